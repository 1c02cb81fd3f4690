/* SPDX-License-Identifier: Apache-2.0 */
/* server.federation: the bundle endpoint and the static relationships, checked as SPIRE checks them. */
#include "base/config_raw.h"
#include "base/id.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_https(const char *url)
{
	return strncasecmp(url, "https://", 8) == 0;
}

static int by_label(const void *a, const void *b)
{
	const struct raw_federates_with *left = a, *right = b;

	int order = strcmp(left->label, right->label);

	return order != 0 ? order : (left->index > right->index) - (left->index < right->index);
}

/* `more` is a later block of the same label: what it says goes on top. */
static void join(struct raw_federates_with *block, const struct raw_federates_with *more)
{
	if (more->bundle_endpoint_url != NULL)
		block->bundle_endpoint_url = more->bundle_endpoint_url;
	if (more->bundle_endpoint_profile.items == NULL)
		return;
	if (block->bundle_endpoint_profile.items == NULL) {
		block->bundle_endpoint_profile = more->bundle_endpoint_profile;
		return;
	}
	*block->bundle_endpoint_profile.tail = more->bundle_endpoint_profile.items;
	block->bundle_endpoint_profile.tail = more->bundle_endpoint_profile.tail;
}

/* Sorts by label, so that the outcome does not depend on the order of the file, and joins equal ones. */
static void join_labels(struct blocks *blocks)
{
	struct raw_federates_with *items = blocks->items;
	size_t n = 0;

	if (blocks->n == 0)
		return;
	for (size_t i = 0; i < blocks->n; i++)
		items[i].index = i;
	qsort(items, blocks->n, sizeof *items, by_label);
	for (size_t i = 0; i < blocks->n; i++) {
		if (n > 0 && strcmp(items[n - 1].label, items[i].label) == 0)
			join(&items[n - 1], &items[i]);
		else
			items[n++] = items[i];
	}
	blocks->n = n;
}

enum code check_federation_urls(struct check *c, struct err *err)
{
	const struct raw_federation *federation = &c->raw->server.federation;
	const struct raw_acme *acme = &federation->bundle_endpoint.acme;
	struct blocks blocks = federation->federates_with;
	const struct raw_federates_with *items = blocks.items;

	if (acme->there && acme->domain_name == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "federation.bundle_endpoint.acme.domain_name must be configured");
	if (acme->there && acme->email == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "federation.bundle_endpoint.acme.email must be configured");
	join_labels(&blocks);
	for (size_t i = 0; i < blocks.n; i++) {
		if (items[i].bundle_endpoint_url == NULL)
			return err_set(err, CODE_INVALID_ARGUMENT,
				       "federation.federates_with[\"%s\"].bundle_endpoint_url must be configured",
				       items[i].label);
		if (!is_https(items[i].bundle_endpoint_url))
			return err_set(err, CODE_INVALID_ARGUMENT,
				       "federation.federates_with[\"%s\"].bundle_endpoint_url must use the HTTPS "
				       "protocol; URL "
				       "found: %s",
				       items[i].label, quoted(c->arena, items[i].bundle_endpoint_url));
	}
	c->n_federates_with = blocks.n;
	return CODE_OK;
}

/* The one profile in `node`. */
static enum code read_profile(struct check *c, const struct raw_node *node, const char *path, struct raw_profile *out,
			      struct err *err)
{
	if (node->literal != NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "malformed configuration");
	if (node->items == NULL || node->items->next != NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "exactly one bundle endpoint profile is expected");
	if (decode_items(&c->decoder, &section_profile, path, node->items, out, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "failed to decode configuration");
	apply_initial(&section_profile, out);
	return CODE_OK;
}

static void use_acme(const struct raw_acme *acme, struct config_bundle_endpoint *out)
{
	out->profile = ENDPOINT_HTTPS_WEB;
	out->acme = true;
	out->acme_directory_url = acme->directory_url;
	out->acme_domain_name = acme->domain_name;
	out->acme_email = acme->email;
	out->acme_tos_accepted = acme->tos_accepted == TRI_TRUE;
}

static enum code use_web(const struct raw_web_profile *web, struct config_bundle_endpoint *out, struct err *err)
{
	const struct raw_serving_cert_file *file = &web->serving_cert_file;

	if (web->acme.there) {
		use_acme(&web->acme, out);
		return CODE_OK;
	}
	if (!file->there)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "malformed https_web profile configuration: 'acme' or 'serving_cert_file' is required");
	out->profile = ENDPOINT_HTTPS_WEB;
	out->cert_file_path = file->cert_file_path;
	out->key_file_path = file->key_file_path;
	if (file->cert_file_path == NULL || file->key_file_path == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "malformed https_web profile configuration: serving_cert_file needs cert_file_path and "
			       "key_file_path");
	TRY(read_seconds("could not parse file_sync_interval", file->file_sync_interval, &out->file_sync_interval_s,
			 err));
	if (out->file_sync_interval_s == 0)
		out->file_sync_interval_s = 3600;
	return CODE_OK;
}

static enum code check_endpoint_profile(struct check *c, struct err *err)
{
	const struct raw_bundle_endpoint *raw = &c->raw->server.federation.bundle_endpoint;
	struct config_bundle_endpoint *out = &c->out->bundle_endpoint;
	struct raw_profile profile = { 0 };

	if (raw->acme.there && raw->profile.there)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "either bundle endpoint 'acme' or 'profile' can be set, but not both");
	if (raw->acme.there) {
		NOTE(c, LOG_WARN,
		     "ACME configuration within the bundle_endpoint is deprecated. Please use ACME configuration as "
		     "part of the "
		     "https_web profile instead.");
		use_acme(&raw->acme, out);
		return CODE_OK;
	}
	if (!raw->profile.there) {
		NOTE(c, LOG_WARN,
		     "Bundle endpoint is configured but has no profile set, using https_spiffe as default; please "
		     "configure a "
		     "profile explicitly. This will be fatal in a future release.");
		return CODE_OK;
	}
	TRY(read_profile(c, &raw->profile, "server.federation.bundle_endpoint.profile", &profile, err));
	if (profile.https_web.there)
		return use_web(&profile.https_web, out, err);
	if (!profile.https_spiffe.there)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "unknown bundle endpoint profile configured; current supported profiles are "
			       "\"https_spiffe\" and "
			       "'https_web\"");
	return CODE_OK;
}

static enum code check_endpoint(struct check *c, struct err *err)
{
	const struct raw_bundle_endpoint *raw = &c->raw->server.federation.bundle_endpoint;
	struct config_bundle_endpoint *out = &c->out->bundle_endpoint;
	long long port = raw->port;
	struct in6_addr address;

	out->enabled = raw->there;
	if (!raw->there)
		return CODE_OK;
	/* What is no IP literal means all interfaces: so SPIRE has it. */
	if (raw->address != NULL &&
	    (inet_pton(AF_INET, raw->address, &address) == 1 || inet_pton(AF_INET6, raw->address, &address) == 1))
		out->address = raw->address;
	else if (raw->address != NULL)
		NOTE(c, LOG_WARN, "Bundle endpoint address is not an IP address; listening on all interfaces",
		     KV("address", raw->address));
	if (port < 0 || port > 65535)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "federation.bundle_endpoint.port: expected a port from 0 to 65535, got %lld", port);
	out->port = (int)port;
	TRY(read_seconds(arena_printf(c->arena, "could not parse refresh_hint %s", quoted(c->arena, raw->refresh_hint)),
			 raw->refresh_hint, &out->refresh_hint_s, err));
	if (out->refresh_hint_s >= 24 * 3600)
		NOTE(c, LOG_WARN,
		     "Bundle endpoint refresh hint set to a high value. To cover the case of unscheduled trust bundle "
		     "updates, "
		     "it's recommended to have a smaller value, e.g. 5m");
	if (out->refresh_hint_s < 60)
		NOTE(c, LOG_WARN,
		     "Bundle endpoint refresh hint set too low. SPIRE will not refresh more often than 1 minute");
	return check_endpoint_profile(c, err);
}

static enum code check_other_endpoint(struct check *c, const struct raw_federates_with *raw,
				      struct config_federates_with *out, struct err *err)
{
	struct raw_profile profile = { 0 };
	struct spiffe_id id;

	TRY(read_profile(
		c, &raw->bundle_endpoint_profile,
		arena_printf(c->arena, "server.federation.federates_with.%s.bundle_endpoint_profile", raw->label),
		&profile, err));
	out->profile = ENDPOINT_HTTPS_WEB;
	if (profile.https_web.there)
		return CODE_OK;
	if (!profile.https_spiffe.there)
		return err_set(
			err, CODE_INVALID_ARGUMENT,
			"no bundle endpoint profile defined; current supported profiles are \"https_spiffe\" and "
			"'https_web\"");
	out->profile = ENDPOINT_HTTPS_SPIFFE;
	if (id_parse(profile.https_spiffe.endpoint_spiffe_id == NULL ? "" : profile.https_spiffe.endpoint_spiffe_id,
		     c->arena, &id, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "could not get endpoint SPIFFE ID");
	out->endpoint_spiffe_id = id.text;
	return CODE_OK;
}

static enum code check_relationship(struct check *c, const struct raw_federates_with *raw,
				    struct config_federates_with *out, struct err *err)
{
	TRY(id_parse_td(raw->label, c->arena, &out->trust_domain, err));
	if (!raw->bundle_endpoint_profile.there)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "federation configuration for trust domain %s: missing bundle endpoint configuration",
			       quoted(c->arena, raw->label));
	out->bundle_endpoint_url = raw->bundle_endpoint_url;
	if (check_other_endpoint(c, raw, out, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "error parsing federation relationship for trust domain %s",
				quoted(c->arena, raw->label));
	return CODE_OK;
}

static int by_trust_domain(const void *a, const void *b)
{
	const struct config_federates_with *left = a, *right = b;

	return strcmp(left->trust_domain, right->trust_domain);
}

/* "spiffe://x" and "x" name one trust domain: SPIRE takes either, here it is an error. */
static enum code check_twice(const struct config *out, struct err *err)
{
	for (size_t i = 1; i < out->n_federates_with; i++)
		if (strcmp(out->federates_with[i - 1].trust_domain, out->federates_with[i].trust_domain) == 0)
			return err_set(err, CODE_INVALID_ARGUMENT,
				       "federation configuration for trust domain \"%s\": there are two blocks for it",
				       out->federates_with[i].trust_domain);
	return CODE_OK;
}

enum code check_federation(struct check *c, struct err *err)
{
	const struct raw_federates_with *raw = c->raw->server.federation.federates_with.items;
	struct config *out = c->out;

	TRY(check_endpoint(c, err));
	out->n_federates_with = c->n_federates_with;
	out->federates_with = arena_zalloc(c->arena, c->n_federates_with * sizeof *out->federates_with);
	for (size_t i = 0; i < c->n_federates_with; i++)
		TRY(check_relationship(c, &raw[i], &out->federates_with[i], err));
	qsort(out->federates_with, out->n_federates_with, sizeof *out->federates_with, by_trust_domain);
	out->federation_configured = out->bundle_endpoint.enabled || out->n_federates_with > 0;
	return check_twice(out, err);
}
