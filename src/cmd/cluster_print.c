/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/cluster_print.h"

#include "base/clock.h"
#include "base/gotime.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { LAG_MAX = 1000, DISK_MIN_MB = 1024, CLOCK_MS = 1000, DAY_S = 24 * 3600, OVERDUE = 6 };

static void put_text(json_t *object, const char *key, const char *value)
{
	json_object_set_new(object, key, json_stringn_nocheck(value, strlen(value)));
}

static void put_number(json_t *object, const char *key, uint64_t value)
{
	json_object_set_new(object, key, json_integer((json_int_t)value));
}

static void put_time(json_t *object, const char *key, int64_t unix_s)
{
	char text[GO_TIME_MAX] = "";

	put_text(object, key, unix_s == 0 ? "" : go_time_rfc3339(unix_s, text));
}

static json_t *member_object(const Pb__ClusterMember *member)
{
	json_t *object = json_object();

	put_number(object, "id", member->id);
	put_text(object, "name", member->name);
	put_text(object, "role", member->role);
	json_object_set_new(object, "voter", json_boolean(member->voter));
	put_text(object, "state", member->state);
	put_text(object, "peer_address", member->peer_address);
	put_text(object, "api_address", member->api_address);
	put_number(object, "applied", member->applied);
	put_number(object, "lag", member->lag);
	json_object_set_new(object, "last_contact_ms", json_integer(member->last_contact_ms));
	put_text(object, "version", member->version);
	put_text(object, "x509_authority", member->x509_authority);
	put_time(object, "x509_ca_expires_at", member->x509_ca_expires_at);
	put_number(object, "disk_free_mb", member->disk_free_mb);
	json_object_set_new(object, "clock_ahead_ms", json_integer(member->clock_ahead_ms));
	return object;
}

void cluster_print_json(FILE *out, const Pb__ClusterStatus *status)
{
	json_t *object = json_object(), *members = json_array();
	char *text;

	put_text(object, "cluster_id", status->cluster_id);
	put_text(object, "trust_domain", status->trust_domain);
	put_number(object, "epoch", status->epoch);
	put_text(object, "node", status->node);
	put_text(object, "leader", status->leader);
	put_number(object, "term", status->term);
	json_object_set_new(object, "quorum", json_boolean(status->quorum));
	put_number(object, "voters", status->voters);
	put_number(object, "survives", status->survives);
	put_number(object, "revision", status->revision);
	json_object_set_new(object, "signing_budget_s", json_integer(status->signing_budget_s));
	for (size_t i = 0; i < status->n_members; i++)
		json_array_append_new(members, member_object(status->members[i]));
	json_object_set_new(object, "members", members);
	text = json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER);
	fprintf(out, "%s\n", text == NULL ? "" : text);
	free(text);
	json_decref(object);
}

/* --- for people --- */

static bool is_present(const Pb__ClusterMember *member)
{
	return strcmp(member->state, "removed") != 0;
}

static bool is_reachable(const Pb__ClusterMember *member)
{
	return is_present(member) && strcmp(member->state, "unreachable") != 0;
}

static void warn_of_member(FILE *out, const Pb__ClusterMember *member)
{
	int64_t left_s = member->x509_ca_expires_at - clock_wall_s();
	int64_t life_s = member->x509_ca_expires_at - member->x509_ca_issued_at;

	if (!is_reachable(member)) {
		fprintf(out, "Warning: %s cannot be reached\n", member->name);
		return;
	}
	if (member->lag > LAG_MAX)
		fprintf(out, "Warning: %s lags by %" PRIu64 " changes\n", member->name, member->lag);
	/* a CA that lives no longer than a day is replaced before its last sixth: then nothing is wrong */
	if (member->x509_ca_expires_at != 0 && left_s < DAY_S && left_s < life_s / OVERDUE)
		fprintf(out, "Warning: the CA of %s %s\n", member->name,
			left_s <= 0 ? "has expired" : "expires within a day");
	if (member->disk_free_mb > 0 && member->disk_free_mb < DISK_MIN_MB)
		fprintf(out, "Warning: %s has %" PRIu64 " MiB of disk left\n", member->name, member->disk_free_mb);
	if (llabs(member->clock_ahead_ms) > CLOCK_MS)
		fprintf(out, "Warning: the clock of %s is %" PRId64 " ms %s\n", member->name,
			(int64_t)llabs(member->clock_ahead_ms), member->clock_ahead_ms > 0 ? "ahead" : "behind");
}

static void warn(FILE *out, const Pb__ClusterStatus *status)
{
	const char *version = NULL;
	bool mixed = false;

	if (!status->quorum)
		fprintf(out,
			"Warning: no quorum: nothing can be changed; this node goes on signing for %" PRId64 " s\n",
			status->signing_budget_s);
	if (status->voters == 2)
		fprintf(out, "Warning: two voters survive no failure: add a third member\n");
	for (size_t i = 0; i < status->n_members; i++) {
		const Pb__ClusterMember *member = status->members[i];

		if (!is_present(member))
			continue;
		mixed = mixed || (version != NULL && strcmp(version, member->version) != 0);
		version = member->version;
		warn_of_member(out, member);
	}
	if (mixed)
		fprintf(out, "Warning: the members run different versions\n");
}

static void print_row(FILE *out, const Pb__ClusterMember *member)
{
	char contact[32] = "never";

	if (member->last_contact_ms >= 0)
		snprintf(contact, sizeof contact, "%" PRId64 " ms", member->last_contact_ms);
	fprintf(out, "%-16s %-10s %-12s %-22s %-22s %10" PRIu64 " %6" PRIu64 " %10s  %s\n", member->name, member->role,
		member->state, member->peer_address, member->api_address, member->applied, member->lag, contact,
		member->version);
}

void cluster_print_pretty(FILE *out, const Pb__ClusterStatus *status)
{
	fprintf(out, "Cluster          : %s (epoch %" PRIu64 ")\n", status->cluster_id, status->epoch);
	fprintf(out, "Trust domain     : %s\n", status->trust_domain);
	fprintf(out, "Node             : %s\n", status->node);
	fprintf(out, "Leader           : %s\n", status->leader[0] != '\0' ? status->leader : "none");
	fprintf(out, "Term             : %" PRIu64 "\n", status->term);
	fprintf(out, "Quorum           : %s\n", status->quorum ? "yes" : "no");
	fprintf(out, "Voters           : %" PRIu32 " (survives %" PRIu32 ")\n", status->voters, status->survives);
	fprintf(out, "Revision         : %" PRIu64 "\n", status->revision);
	fprintf(out, "Signing budget   : %" PRId64 " s\n\n", status->signing_budget_s);
	fprintf(out, "%-16s %-10s %-12s %-22s %-22s %10s %6s %10s  %s\n", "NAME", "ROLE", "STATE", "PEER ADDRESS",
		"API ADDRESS", "APPLIED", "LAG", "CONTACT", "VERSION");
	for (size_t i = 0; i < status->n_members; i++)
		print_row(out, status->members[i]);
	warn(out, status);
}
