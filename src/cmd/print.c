/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/print.h"

#include "base/err.h"
#include "base/gotext.h"
#include "base/gotime.h"

#include <inttypes.h>
#include <stdarg.h>

static void put_id(FILE *out, const char *label, const Pb__SPIFFEID *id)
{
	fprintf(out, "%s: spiffe://%s%s\n", label, id != NULL ? id->trust_domain : "", id != NULL ? id->path : "");
}

static void put_ttl(FILE *out, const char *label, int32_t ttl)
{
	if (ttl == 0)
		fprintf(out, "%s: default\n", label);
	else
		fprintf(out, "%s: %" PRId32 "\n", label, ttl);
}

static void put_flag(FILE *out, const char *label, protobuf_c_boolean set)
{
	if (set)
		fprintf(out, "%s: true\n", label);
}

void print_entry(FILE *out, const Pb__Entry *entry)
{
	char when[GO_TIME_MAX];

	fprintf(out, "Entry ID         : %s\n", entry->id[0] != '\0' ? entry->id : "(none)");
	put_id(out, "SPIFFE ID        ", entry->spiffe_id);
	put_id(out, "Parent ID        ", entry->parent_id);
	fprintf(out, "Revision         : %" PRId64 "\n", entry->revision_number);
	put_flag(out, "Downstream       ", entry->downstream);
	put_ttl(out, "X509-SVID TTL    ", entry->x509_svid_ttl);
	put_ttl(out, "JWT-SVID TTL     ", entry->jwt_svid_ttl);
	if (entry->expires_at != 0)
		fprintf(out, "Expiration time  : %s\n", go_time_utc(entry->expires_at, when));
	for (size_t i = 0; i < entry->n_selectors; i++)
		fprintf(out, "Selector         : %s:%s\n", entry->selectors[i]->type, entry->selectors[i]->value);
	for (size_t i = 0; i < entry->n_federates_with; i++)
		fprintf(out, "FederatesWith    : %s\n", entry->federates_with[i]);
	for (size_t i = 0; i < entry->n_dns_names; i++)
		fprintf(out, "DNS name         : %s\n", entry->dns_names[i]);
	put_flag(out, "Admin            ", entry->admin);
	put_flag(out, "StoreSvid        ", entry->store_svid);
	if (entry->hint[0] != '\0')
		fprintf(out, "Hint             : %s\n", entry->hint);
	fputc('\n', out);
}

void print_agent(FILE *out, const Pb__Agent *agent)
{
	char when[GO_TIME_MAX];

	put_id(out, "SPIFFE ID         ", agent->id);
	fprintf(out, "Attestation type  : %s\n", agent->attestation_type);
	fprintf(out, "Expiration time   : %s\n", go_time_local(agent->x509svid_expires_at, when));
	if (agent->banned)
		put_flag(out, "Banned            ", true);
	else
		fprintf(out, "Serial number     : %s\n", agent->x509svid_serial_number);
	fprintf(out, "Can re-attest     : %s\n", agent->can_reattest ? "true" : "false");
	if (agent->agent_version[0] != '\0')
		fprintf(out, "Agent version     : %s\n", agent->agent_version);
	fputc('\n', out);
}

void print_relationship(FILE *out, const Pb__FederationRelationship *relationship)
{
	fprintf(out, "Trust domain              : %s\n", relationship->trust_domain);
	fprintf(out, "Bundle endpoint URL       : %s\n", relationship->bundle_endpoint_url);
	switch (relationship->bundle_endpoint_profile_case) {
	case PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_WEB:
		fprintf(out, "Bundle endpoint profile   : https_web\n");
		break;
	case PB__FEDERATION_RELATIONSHIP__BUNDLE_ENDPOINT_PROFILE_HTTPS_SPIFFE:
		fprintf(out, "Bundle endpoint profile   : https_spiffe\n");
		fprintf(out, "Endpoint SPIFFE ID        : %s\n", relationship->https_spiffe->endpoint_spiffe_id);
		break;
	default:
		break;
	}
}

void print_failure(const Pb__Status *status, const char *end, const char *fmt, ...)
{
	OWN_BUF quoted = { 0 };
	va_list args;

	go_quote(&quoted, status->message);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, " (code: %s, msg: %s)%s\n", code_name(status->code), buf_text(&quoted), end);
}
