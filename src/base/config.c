/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration: file, flags over it, defaults below it, then SPIRE's checks in SPIRE's order (so that of several
 * mistakes the same one is told), then ours. */
#include "base/config.h"

#include "base/config_raw.h"
#include "base/gotext.h"
#include "base/id.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

enum { TRUST_DOMAIN_MAX = 255, FEATURES_SHOWN = 512 };

static const int64_t HOUR = 3600, DAY = 24 * HOUR;

const char *quoted(struct arena *arena, const char *text)
{
	OWN_BUF out = { 0 };

	go_quote(&out, text);
	return arena_strdup(arena, buf_text(&out));
}

void add_note(struct check *c, enum log_level level, const char *msg, const struct log_pair *pairs)
{
	struct config_notes *notes = c->notes;
	struct log_pair *copy;
	size_t n = 0;

	if ((notes->n & (notes->n - 1)) == 0) { /* full at each power of two */
		size_t room = notes->n == 0 ? 1 : 2 * notes->n;
		struct config_note *items = arena_alloc(c->arena, room * sizeof *items);

		if (notes->n > 0)
			memcpy(items, notes->items, notes->n * sizeof *items);
		notes->items = items;
	}
	while (pairs[n].kind != LOG_KIND_END)
		n++;
	copy = arena_memdup(c->arena, pairs, (n + 1) * sizeof *pairs);
	notes->items[notes->n++] = (struct config_note){ level, msg, copy };
}

enum code read_seconds(const char *what, const char *text, int64_t *out, struct err *err)
{
	int64_t ns;

	if (go_parse_duration(text, &ns, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "%s", what);
	if (ns < 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "%s: must not be negative", what);
	*out = ns > 0 && ns < GO_SECOND ? 1 : ns / GO_SECOND;
	return CODE_OK;
}

/* `could not parse agent ttl "5"` goes before the error; a duration of nothing is the initial one. */
static enum code read_ttl(struct check *c, const char *name, const char *text, const char *initial, int64_t *out,
			  struct err *err)
{
	const char *what = arena_printf(c->arena, "could not parse %s %s", name, quoted(c->arena, text));

	TRY(read_seconds(what, text, out, err));
	if (*out == 0 && initial != NULL)
		return read_seconds(what, initial, out, err);
	return CODE_OK;
}

/* --- reading */

static enum code parse_file(const struct config_flags *flags, struct check *c, struct raw_config *raw, struct err *err)
{
	const char *path = flags->config[0] != '\0' ? flags->config : "conf/server/server.conf", *whole;
	struct hcl_value *root;
	struct span text;
	enum code rc = read_config_file(path, flags->expand_env, c->arena, &text, err);

	if (rc == CODE_NOT_FOUND) {
		TRY(absolute_path(c->arena, path, &whole, err));
		return err_set(err, CODE_NOT_FOUND, "could not find config file %s: please use the -config flag",
			       whole);
	}
	if (rc != CODE_OK)
		return err_wrap(err, rc, "unable to read configuration at %s", quoted(c->arena, path));
	rc = hcl_parse((const char *)text.data, text.len, c->arena, &root, err);
	if (rc == CODE_OK)
		rc = decode_items(&c->decoder, &section_root, "", root->items, raw, err);
	if (rc != CODE_OK)
		return err_wrap(err, rc, "unable to decode configuration at %s", quoted(c->arena, path));
	return CODE_OK;
}

static void lay_over(const char **field, const char *flag)
{
	if (flag[0] != '\0')
		*field = flag;
}

static void apply_flags(const struct config_flags *flags, struct raw_server *server)
{
	lay_over(&server->bind_address, flags->bind_address);
	lay_over(&server->data_dir, flags->data_dir);
	lay_over(&server->socket_path, flags->socket_path);
	lay_over(&server->trust_domain, flags->trust_domain);
	lay_over(&server->log_file, flags->log_file);
	lay_over(&server->log_format, flags->log_format);
	lay_over(&server->log_level, flags->log_level);
	if (flags->server_port != 0)
		server->bind_port = flags->server_port;
}

/* --- SPIRE's checks */

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum code check_features(struct check *c, struct err *err)
{
	static const char *const known[] = { "i_am_a_test_flag", "wit-svid" };
	const struct strings *flags = &c->raw->server.experimental.feature_flags;
	const char **bad = arena_alloc(c->arena, flags->n * sizeof *bad);
	OWN_BUF list = { 0 };
	size_t n = 0;

	for (size_t i = 0; i < flags->n; i++)
		if (strcmp(flags->items[i], known[0]) != 0 && strcmp(flags->items[i], known[1]) != 0)
			bad[n++] = flags->items[i];
	if (n == 0)
		return CODE_OK;
	qsort(bad, n, sizeof *bad, by_text);
	for (size_t i = 0; i < n && list.len < FEATURES_SHOWN; i++)
		buf_printf(&list, "%s%s", i > 0 ? " " : "", bad[i]);
	return err_set(err, CODE_INVALID_ARGUMENT, "error loading feature flags: unknown feature flag(s): [%s]",
		       buf_text(&list));
}

static enum code check_required(struct check *c, struct err *err)
{
	const struct raw_server *server = &c->raw->server;
	const struct raw_experimental *experimental = &server->experimental;

	if (server->trust_domain == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "trust_domain must be configured");
	if (server->data_dir == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "data_dir must be configured");
	if (!c->raw->plugins.there)
		return err_set(err, CODE_INVALID_ARGUMENT, "plugins section must be configured");
	TRY(check_federation_urls(c, err));
	if (experimental->event_timeout != NULL && experimental->sql_transaction_timeout != NULL)
		return err_set(
			err, CODE_INVALID_ARGUMENT,
			"both experimental sql_transaction_timeout and event_timeout set, only set event_timeout");
	if (experimental->named_pipe_name != NULL)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "invalid configuration: named_pipe_name is not supported in this platform; "
			       "please use socket_path instead");
	return CODE_OK;
}

static enum code check_log(struct check *c, struct err *err)
{
	const struct raw_server *server = &c->raw->server;
	struct log_options *log = &c->out->log;

	if (!log_level_parse(server->log_level, &log->level))
		return err_set(err, CODE_INVALID_ARGUMENT, "could not start logger: not a valid logrus Level: %s",
			       quoted(c->arena, server->log_level));
	log->file = server->log_file;
	log->format = "";
	if (server->log_format == NULL)
		return CODE_OK;
	if (strcasecmp(server->log_format, "text") != 0 && strcasecmp(server->log_format, "json") != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "could not start logger: unknown logger format: %s",
			       quoted(c->arena, server->log_format));
	log->format = strcasecmp(server->log_format, "json") == 0 ? "json" : "text";
	return CODE_OK;
}

static const char *trim_brackets(struct arena *arena, const char *host)
{
	size_t len;

	host += strspn(host, "[]");
	for (len = strlen(host); len > 0 && strchr("[]", host[len - 1]) != NULL; len--)
		;
	return arena_strndup(arena, host, len);
}

/* "5" and "10.1" are addresses to getaddrinfo alone. */
static bool is_odd_number(const char *host)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST }, *found = NULL;
	struct in6_addr address;

	if (strpbrk(host, ":%") != NULL || inet_pton(AF_INET, host, &address) == 1 ||
	    getaddrinfo(host, NULL, &hints, &found) != 0)
		return false;
	freeaddrinfo(found);
	return true;
}

/* A name must be known now, as SPIRE has it: a server that cannot listen should say so before it opens anything. */
static enum code check_host(const char *host, struct err *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found = NULL;
	int rc;

	if (host[0] == '\0')
		return CODE_OK;
	rc = is_odd_number(host) ? EAI_NONAME : getaddrinfo(host, NULL, &hints, &found);
	if (found != NULL)
		freeaddrinfo(found);
	if (rc == EAI_NONAME)
		return err_set(err, CODE_INVALID_ARGUMENT, "lookup %s: no such host", host);
	if (rc != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "lookup %s: %s", host, gai_strerror(rc));
	return CODE_OK;
}

static enum code check_bind(struct check *c, struct err *err)
{
	const struct raw_server *server = &c->raw->server;
	long long port = server->bind_port;

	c->out->bind_address = trim_brackets(c->arena, server->bind_address);
	c->out->bind_port = (int)port;
	if (port < 0 || port > 65535)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "could not resolve bind address \"%s:%lld\": address %lld: invalid port",
			       server->bind_address, port, port);
	if (check_host(c->out->bind_address, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "could not resolve bind address \"%s:%lld\"",
				server->bind_address, port);
	return CODE_OK;
}

static enum code check_trust_domain(struct check *c, struct err *err)
{
	const char *text = c->raw->server.trust_domain;

	if (id_parse_td(text, c->arena, &c->out->trust_domain, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "could not parse trust_domain %s", quoted(c->arena, text));
	if (strlen(c->out->trust_domain) > TRUST_DOMAIN_MAX)
		NOTE(c, LOG_WARN,
		     "Configured trust domain name should be less than 255 characters to be SPIFFE compliant; a longer "
		     "trust "
		     "domain name may impact interoperability",
		     KV("trust_domain", c->out->trust_domain));
	return CODE_OK;
}

static enum code check_admins(struct check *c, struct err *err)
{
	const struct strings *raw = &c->raw->server.admin_ids;
	const char **ids = arena_alloc(c->arena, raw->n * sizeof *ids);

	for (size_t i = 0; i < raw->n; i++) {
		struct spiffe_id id;

		if (id_parse(raw->items[i], c->arena, &id, err) != CODE_OK)
			return err_wrap(err, CODE_INVALID_ARGUMENT, "could not parse admin ID %s",
					quoted(c->arena, raw->items[i]));
		ids[i] = id.text;
	}
	c->out->admin_ids = (struct strings){ ids, raw->n };
	return CODE_OK;
}

static enum code check_ttls(struct check *c, struct err *err)
{
	const struct raw_server *server = &c->raw->server;
	struct config *out = c->out;

	if (server->agent_ttl != NULL)
		TRY(read_ttl(c, "agent ttl", server->agent_ttl, NULL, &out->agent_ttl_s, err));
	TRY(read_ttl(c, "default X509 SVID ttl", server->default_x509_svid_ttl, "1h", &out->default_x509_svid_ttl_s,
		     err));
	TRY(read_ttl(c, "default JWT SVID ttl", server->default_jwt_svid_ttl, "5m", &out->default_jwt_svid_ttl_s, err));
	return read_ttl(c, "default CA ttl", server->ca_ttl, "24h", &out->ca_ttl_s, err);
}

/* A duration without what is zero at its end: "4h", "1h30m". */
static const char *short_duration(struct arena *arena, int64_t seconds)
{
	char text[GO_DURATION_MAX];
	size_t len;

	go_format_duration(seconds * GO_SECOND, text);
	len = strlen(text);
	if (len > 3 && strcmp(text + len - 3, "m0s") == 0)
		text[len -= 2] = '\0';
	if (len > 3 && strcmp(text + len - 3, "h0m") == 0)
		text[len -= 2] = '\0';
	return arena_strdup(arena, text);
}

/* An SVID can live as long as its CA only if the CA is renewed early enough: after five sixths, at most seven days
 * before. */
static void note_long_ttl(struct check *c, const char *name, int64_t ttl)
{
	const int64_t cap = 7 * DAY, parts = 6, ca_ttl = c->out->ca_ttl_s;
	int64_t most = ca_ttl / parts < cap ? ca_ttl / parts : cap;
	const char *text;

	if (ttl <= most)
		return;
	if (ttl < cap)
		text = arena_printf(
			c->arena,
			"%s is too high for the configured ca_ttl value. SVIDs with shorter lifetimes may be "
			"issued. Please set %s to %s or less, or the ca_ttl to %s or more, to guarantee the full "
			"%s lifetime when CA rotations are scheduled.",
			name, name, short_duration(c->arena, most), short_duration(c->arena, ttl * parts), name);
	else if (ca_ttl < cap * parts)
		text = arena_printf(
			c->arena,
			"%s is too high and the ca_ttl is too low. SVIDs with shorter lifetimes may be issued. "
			"Please set %s to %s or less, and the ca_ttl to %s or more, to guarantee the full %s "
			"lifetime when CA rotations are scheduled.",
			name, name, short_duration(c->arena, cap), short_duration(c->arena, cap * parts), name);
	else
		text = arena_printf(
			c->arena,
			"%s is too high. SVIDs with shorter lifetimes may be issued. Please set %s to %s or less "
			"to guarantee the full %s lifetime when CA rotations are scheduled.",
			name, name, short_duration(c->arena, most), name);
	NOTE(c, LOG_WARN, text);
}

static void note_long_ttls(struct check *c)
{
	note_long_ttl(c, "default_x509_svid_ttl", c->out->default_x509_svid_ttl_s);
	note_long_ttl(c, "default_jwt_svid_ttl", c->out->default_jwt_svid_ttl_s);
	if (c->out->agent_ttl_s != 0)
		note_long_ttl(c, "agent_ttl", c->out->agent_ttl_s);
	else
		c->out->agent_ttl_s = c->out->default_x509_svid_ttl_s;
}

static enum code check_key_type(struct check *c, const char *key, const char *text, const char **out, struct err *err)
{
	static const char *const types[] = { "rsa-2048", "rsa-4096", "ec-p256", "ec-p384" };

	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
		if (strcasecmp(text, types[i]) != 0)
			continue;
		*out = types[i];
		return CODE_OK;
	}
	return err_set(
		err, CODE_INVALID_ARGUMENT,
		"error parsing %s: key type %s is unknown; must be one of [rsa-2048, rsa-4096, ec-p256, ec-p384]", key,
		quoted(c->arena, text));
}

static enum code check_keys(struct check *c, struct err *err)
{
	const struct raw_server *server = &c->raw->server;
	struct config *out = c->out;

	TRY(check_key_type(c, "ca_key_type", server->ca_key_type, &out->ca_key_type, err));
	out->jwt_key_type = out->ca_key_type;
	if (server->jwt_key_type != NULL)
		TRY(check_key_type(c, "jwt_key_type", server->jwt_key_type, &out->jwt_key_type, err));
	out->jwt_issuer = server->jwt_issuer;
	return CODE_OK;
}

static void check_subject(struct check *c)
{
	static const char *country[] = { "US" }, *organization[] = { "SPIFFE" };
	const struct raw_ca_subject *raw = &c->raw->server.ca_subject;
	struct config_ca_subject *out = &c->out->ca_subject;

	*out = (struct config_ca_subject){ raw->country, raw->organization, raw->common_name };
	if (raw->country.n > 0 || raw->organization.n > 0 || raw->common_name != NULL)
		return;
	if (raw->there)
		NOTE(c, LOG_WARN, "ca_subject configurable is set but empty; the default will be used");
	out->country = (struct strings){ country, 1 };
	out->organization = (struct strings){ organization, 1 };
}

static enum code check_pruning(struct check *c, struct err *err)
{
	const struct raw_server *server = &c->raw->server;
	struct config *out = c->out;

	out->prune_attested_nodes_batch_size = server->prune_attested_nodes_batch_size;
	if (out->prune_attested_nodes_batch_size < 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "prune_attested_nodes_batch_size must not be negative");
	if (server->prune_attested_nodes_expired_for == NULL)
		return CODE_OK;
	TRY(read_seconds("could not parse prune_attested_nodes_expired_for", server->prune_attested_nodes_expired_for,
			 &out->prune_attested_nodes_expired_for_s, err));
	out->prune_tofu_nodes = server->prune_tofu_nodes == TRI_TRUE;
	return CODE_OK;
}

static int by_section(const void *a, const void *b)
{
	const struct finding *const *left = a, *const *right = b;

	if ((*left)->section->order != (*right)->section->order)
		return (*left)->section->order - (*right)->section->order;
	return strcmp((*left)->value, (*right)->value);
}

/* The unknown keys of sections[*at] and those of the same section behind it: one line, each key once. */
static void note_unknown(struct check *c, struct finding *const *sorted, size_t n, size_t *at)
{
	const struct section *section = sorted[*at]->section;
	const char *last = "";
	OWN_BUF keys = { 0 };

	for (; *at < n && sorted[*at]->section == section; ++*at) {
		if (strcmp(sorted[*at]->value, last) == 0)
			continue;
		last = sorted[*at]->value;
		buf_printf(&keys, "%s%s", keys.len > 0 ? "," : "", last);
	}
	NOTE(c, LOG_ERROR, "Unknown configuration detected", KV("section", section->name),
	     KV("keys", arena_strdup(c->arena, buf_text(&keys))));
}

static enum code check_unknown(struct check *c, struct err *err)
{
	struct finding **sorted;
	size_t n = 0, i = 0;

	for (const struct finding *f = c->decoder.findings; f != NULL; f = f->next)
		n += f->kind == FINDING_UNKNOWN;
	if (n == 0)
		return CODE_OK;
	sorted = arena_alloc(c->arena, n * sizeof *sorted);
	for (struct finding *f = c->decoder.findings; f != NULL; f = f->next)
		if (f->kind == FINDING_UNKNOWN)
			sorted[i++] = f;
	qsort(sorted, n, sizeof(struct finding *), by_section);
	for (i = 0; i < n;)
		note_unknown(c, sorted, n, &i);
	return err_set(err, CODE_INVALID_ARGUMENT, "unknown configuration detected");
}

static enum code check_duration(struct check *c, const char *what, const char *text, struct err *err)
{
	int64_t ns;

	if (text == NULL || go_parse_duration(text, &ns, err) == CODE_OK)
		return CODE_OK;
	return err_wrap(err, CODE_INVALID_ARGUMENT, "%s", arena_strdup(c->arena, what));
}

static enum code check_experimental(struct check *c, struct err *err)
{
	const struct raw_experimental *raw = &c->raw->server.experimental;
	static const char below[] = "server.experimental.";
	bool any = false;

	for (const struct finding *f = c->decoder.findings; f != NULL; f = f->next)
		any = any || (f->kind != FINDING_REPEATED && strncmp(f->key, below, sizeof below - 1) == 0);
	if (any)
		NOTE(c, LOG_WARN,
		     "Experimental features have been enabled. Please see doc/upgrading.md for upgrade and "
		     "compatibility "
		     "considerations for experimental features.");
	if (raw->sql_transaction_timeout != NULL)
		NOTE(c, LOG_WARN,
		     "experimental.sql_transaction_timeout is deprecated, use experimental.event_timeout instead");
	TRY(check_duration(c, "could not parse cache reload interval", raw->cache_reload_interval, err));
	TRY(check_duration(c, "could not parse full cache reload interval", raw->full_cache_reload_interval, err));
	TRY(check_duration(c, "could not parse prune events interval", raw->prune_events_older_than, err));
	TRY(check_duration(c, "could not parse SQL transaction timeout interval", raw->sql_transaction_timeout, err));
	return check_duration(c, "could not parse event timeout interval", raw->event_timeout, err);
}

/* --- ours */

static enum code check_health(struct check *c, struct err *err)
{
	const struct raw_health_checks *raw = &c->raw->health_checks;
	struct config *out = c->out;
	int64_t port;

	out->health_enabled = raw->listener_enabled == TRI_TRUE;
	out->health_address = trim_brackets(c->arena, raw->bind_address);
	out->health_live_path = raw->live_path;
	out->health_ready_path = raw->ready_path;
	if (go_parse_int(raw->bind_port, &port) != GO_INT_OK || port < 0 || port > 65535)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "health_checks.bind_port: expected a port from 0 to 65535, got %s",
			       quoted(c->arena, raw->bind_port));
	out->health_port = (int)port;
	return CODE_OK;
}

static enum code check_telemetry(struct check *c, struct err *err)
{
	const struct raw_telemetry *raw = &c->raw->telemetry;
	struct config *out = c->out;
	long long port = raw->prometheus.port;

	out->prometheus_enabled = raw->prometheus.there;
	out->prometheus_host = trim_brackets(c->arena, raw->prometheus.host);
	out->prometheus_port = (int)port;
	out->metric_prefix = raw->metric_prefix;
	out->trust_domain_label = raw->trust_domain_label == TRI_TRUE;
	out->hostname_label = raw->hostname_label == TRI_TRUE;
	out->allowed_prefixes = raw->allowed_prefixes;
	out->blocked_prefixes = raw->blocked_prefixes;
	out->allowed_labels = raw->allowed_labels;
	out->blocked_labels = raw->blocked_labels;
	if (port < 0 || port > 65535)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "telemetry.Prometheus.port: expected a port from 0 to 65535, got %lld", port);
	return CODE_OK;
}

static void note_finding(struct check *c, const struct finding *f)
{
	if (f->kind == FINDING_UNKNOWN || f->kind == FINDING_UNREAD)
		NOTE(c, LOG_WARN, "Configuration key is unknown and has no effect", KV("key", f->key),
		     KV_NUM("line", f->pos.line));
	else if (f->kind == FINDING_IGNORED)
		NOTE(c, LOG_WARN, "Configuration key has no effect in this version", KV("key", f->key),
		     KV("reason", f->remark), KV_NUM("line", f->pos.line));
	else if (f->kind == FINDING_REPEATED)
		NOTE(c, LOG_WARN,
		     "Configuration key is set more than once in one block; a later value replaces an earlier one, "
		     "lists are joined",
		     KV("key", f->key), KV_NUM("line", f->pos.line));
}

enum code check_findings(struct check *c, struct err *err)
{
	OWN_BUF text = { 0 };

	for (const struct finding *f = c->decoder.findings; f != NULL; f = f->next) {
		note_finding(c, f);
		if (f->kind == FINDING_REFUSED)
			buf_printf(&text, "%s%s%s%s (line %d) is not supported: %s", text.len > 0 ? "; " : "", f->key,
				   f->value != NULL ? " = " : "", f->value != NULL ? f->value : "", f->pos.line,
				   f->remark);
	}
	if (text.len > 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "%s", buf_text(&text));
	return CODE_OK;
}

static enum code check_effects(struct check *c, struct err *err)
{
	if (c->log_source_location)
		NOTE(c, LOG_WARN, "Flag has no effect in this version", KV("flag", "-logSourceLocation"),
		     KV("reason", "lines of the log name no source"));
	return check_findings(c, err);
}

static enum code check_server(struct check *c, struct err *err)
{
	const struct raw_server *server = &c->raw->server;
	struct config *out = c->out;

	TRY(check_features(c, err));
	TRY(check_required(c, err));
	TRY(check_log(c, err));
	TRY(check_bind(c, err));
	TRY(absolute_path(c->arena, server->socket_path, &out->socket_path, err));
	out->data_dir = server->data_dir;
	TRY(check_trust_domain(c, err));
	out->ratelimit_attestation = server->ratelimit.attestation == TRI_TRUE;
	out->ratelimit_signing = server->ratelimit.signing == TRI_TRUE;
	out->audit_log_enabled = server->audit_log_enabled == TRI_TRUE;
	TRY(check_federation(c, err));
	if (server->max_attested_node_info_staleness != NULL)
		TRY(check_duration(c,
				   arena_printf(c->arena, "could not parse max attested node staleness %s",
						quoted(c->arena, server->max_attested_node_info_staleness)),
				   server->max_attested_node_info_staleness, err));
	TRY(check_admins(c, err));
	TRY(check_ttls(c, err));
	note_long_ttls(c);
	TRY(check_keys(c, err));
	check_subject(c);
	TRY(check_plugin_blocks(c, err));
	TRY(check_pruning(c, err));
	TRY(check_unknown(c, err));
	return check_experimental(c, err);
}

enum code config_load(const struct config_flags *flags, struct arena *arena, struct config *out,
		      struct config_notes *notes, struct err *err)
{
	struct raw_config *raw = arena_zalloc(arena, sizeof *raw);
	struct check c = { .raw = raw,
			   .arena = arena,
			   .out = out,
			   .notes = notes,
			   .log_source_location = flags->log_source_location };
	struct err unread = { 0 };

	if (err == NULL)
		err = &unread; /* texts are wrapped */
	*out = (struct config){ 0 };
	*notes = (struct config_notes){ 0 };
	decoder_init(&c.decoder, arena);
	TRY(parse_file(flags, &c, raw, err));
	apply_flags(flags, &raw->server);
	apply_initial(&section_root, raw);
	TRY(check_server(&c, err));
	TRY(check_health(&c, err));
	TRY(check_telemetry(&c, err));
	TRY(check_cluster(&c, err));
	return check_effects(&c, err);
}
