/* SPDX-License-Identifier: Apache-2.0 */
/* Health and metrics. Health is asked for, not polled: the checks are a few reads, made when somebody wants to know. */
#include "api/pages.h"

#include "api/rotate.h"
#include "api/state.h"
#include "base/clock.h"
#include "base/metric.h"
#include "ca/x509.h"
#include "net/http.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { ROTATION_FAILURES_MAX = 10, STUCK_MS = 10 * 1000 };

struct pages {
	struct server *server;
	struct reader *reader;
	struct http_server *health, *metrics;
	char host[256];
	struct metric_page_options page;
};

/* --- health --- */

/* One member of the body: {} when fine, {"key":"why"} when not. */
static bool put_check(struct buf *out, const char *name, const char *key, enum code rc, const struct err *err)
{
	buf_printf(out, "%s\"%s\":{", out->len > 1 ? "," : "", name);
	if (rc != CODE_OK) {
		buf_printf(out, "\"%s\":\"", key);
		for (const char *c = err->text; *c != '\0'; c++)
			if (*c == '"' || *c == '\\')
				buf_printf(out, "\\%c", *c);
			else if ((unsigned char)*c >= 0x20)
				buf_put(out, (uint8_t)*c);
		buf_put(out, '"');
	}
	buf_put(out, '}');
	return rc == CODE_OK;
}

static enum code check_store(struct pages *pages, uint64_t *bundles, uint64_t *own, struct err *err)
{
	OWN_STRUCT(view) view = NULL;

	TRY(view_open(pages->reader, &view, err));
	TRY(view_bundle_count(view, bundles, err));
	return view_bundle_version(view, pages->server->td, own, err);
}

/* Signs for a name that no workload may have, as SPIRE's check does. */
static enum code check_signing(struct pages *pages, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(keyring) keyring = keyring_current(pages->server->keyring);
	OWN_BUF spki = { 0 };
	struct x509_request request = { .ttl_s = 60, .now_s = clock_wall_s() };
	struct x509_svid svid;

	if (keyring == NULL)
		return err_set(err, CODE_INTERNAL, "X509 CA is not available for signing");
	TRY(key_public_der(keyring->server_key, &spki, err));
	request.spki = (struct span){ spki.data, spki.len };
	request.spiffe_id = arena_printf(arena, "spiffe://%s/for/health/check/only", pages->server->td);
	return x509_issue(keyring->x509, &request, arena, &svid, err);
}

static enum code check_rotation(struct pages *pages, struct err *err)
{
	if (rotation_failures(pages->server->rotation) > ROTATION_FAILURES_MAX)
		return err_set(err, CODE_INTERNAL, "rotations exceed the threshold number of failures");
	return CODE_OK;
}

/* cluster.md section 6. */
static void put_raft(struct pages *pages, struct buf *out)
{
	OWN_STRUCT(arena) arena = arena_new();
	const char *role = "candidate", *leader = "";
	struct replica_cluster cluster;
	uint64_t lag;

	if (replica_cluster(pages->server->replica, arena, &cluster, NULL) != CODE_OK)
		return;
	lag = cluster.commit > cluster.applied ? cluster.commit - cluster.applied : 0;
	for (size_t i = 0; i < cluster.n; i++) {
		const struct replica_member *member = &cluster.members[i];

		if (member->leader)
			leader = member->name;
		if (member->self)
			role = member->leader	     ? "leader"
			       : member->signer	     ? "signer"
			       : !member->voter	     ? "learner"
			       : cluster.leader != 0 ? "follower"
						     : "candidate";
	}
	buf_printf(out, ",\"" NAME ".raft\":{\"role\":\"%s\",\"leader\":\"%s\",\"lag\":%llu}", role, leader, (unsigned long long)lag);
}

static bool put_health(struct pages *pages, struct buf *out)
{
	struct err err = { 0 };
	uint64_t bundles = 0, own = 0;
	bool well = true;
	enum code rc;

	buf_put(out, '{');
	rc = check_store(pages, &bundles, &own, &err);
	well &= put_check(out, "catalog.datastore", "list_bundle_err", rc, &err);
	if (rc == CODE_OK && own == 0)
		rc = err_set(&err, CODE_NOT_FOUND, "bundle not found");
	well &= put_check(out, "server", "get_bundle_err", rc, &err);
	rc = check_signing(pages, &err);
	well &= put_check(out, "server.ca", "sign_x509_svid_err", rc, &err);
	rc = check_rotation(pages, &err);
	well &= put_check(out, "server.ca.rotator", "rotation_err", rc, &err);
	if (!state_is_single(pages->server->state))
		put_raft(pages, out);
	buf_puts(out, "}\n");
	return well;
}

static void serve_health(void *ctx, const struct http_request *request, struct http_answer *answer)
{
	struct pages *pages = ctx;
	const struct config *config = pages->server->config;
	const struct state *state = pages->server->state;
	bool ready = strcmp(request->path, config->health_ready_path) == 0, well;

	if (!ready && strcmp(request->path, config->health_live_path) != 0) {
		answer->status = 404;
		buf_puts(&answer->body, "404 page not found\n");
		return;
	}
	answer->content_type = "application/json";
	well = put_health(pages, &answer->body);
	if (ready)
		well = well && state_now(state) != STATE_OUT && !atomic_load(&pages->server->stopping);
	else if (!state_is_single(state))
		well = true; /* a node that may not answer is alive: to end it would not help it */
	if (!well)
		answer->status = 500;
}

/* --- metrics --- */

static void gauge(const char *name, double value)
{
	metric_set(metric_get(METRIC_GAUGE, name, NULL), value);
}

static void fill_counts(struct pages *pages)
{
	const struct entry_filter entries = { 0 };
	struct agent_filter agents = AGENT_FILTER_ALL;
	OWN_STRUCT(view) view = NULL;
	uint64_t n;

	if (view_open(pages->reader, &view, NULL) != CODE_OK)
		return;
	if (view_entry_count(view, &entries, &n, NULL) == CODE_OK)
		gauge(NAME "_entries", (double)n);
	for (int banned = 0; banned <= 1; banned++) {
		agents.banned = banned;
		if (view_agent_count(view, &agents, &n, NULL) == CODE_OK)
			metric_set(metric_get(METRIC_GAUGE, NAME "_agents",
					      METRIC_LABELS({ "state", banned ? "banned" : "attested" })),
				   (double)n);
	}
	gauge(NAME "_revision", (double)view_revision(view));
}

static void fill_gauges(void *ctx)
{
	struct pages *pages = ctx;
	OWN_STRUCT(keyring) keyring = keyring_current(pages->server->keyring);
	struct statvfs disk;
	struct stat state;

	gauge("uptime_in_ms", (double)(clock_mono_ms() - pages->server->started_ms));
	metric_set(metric_get(METRIC_GAUGE, "started",
			      METRIC_LABELS({ "version", VERSION }, { "trust_domain_id", pages->server->td })),
		   1);
	if (keyring != NULL)
		gauge(NAME "_server_svid_not_after_seconds", (double)keyring->server_not_after_s);
	if (stat(pages->server->state_path, &state) == 0)
		gauge(NAME "_state_bytes", (double)state.st_size);
	if (statvfs(pages->server->config->data_dir, &disk) == 0)
		gauge(NAME "_disk_free_bytes", (double)disk.f_bavail * (double)disk.f_frsize);
	fill_counts(pages);
}

static void serve_metrics(void *ctx, const struct http_request *request __attribute__((unused)), struct http_answer *answer)
{
	struct pages *pages = ctx;

	answer->content_type = "text/plain; version=0.0.4; charset=utf-8";
	fill_gauges(pages);
	metric_page(&pages->page, &answer->body);
}

/* --- both --- */

static enum code start_health(struct pages *pages, struct loop *loop, struct err *err)
{
	const struct config *config = pages->server->config;
	OWN_BUF address = { 0 };

	TRY(http_listen(loop, config->health_address, config->health_port, serve_health, pages, &pages->health, err));
	buf_printf(&address, "%s:%d", config->health_address, config->health_port);
	log_info("Serving health checks", KV("address", buf_text(&address)), KV("subsystem_name", "health"));
	return CODE_OK;
}

static void start_metrics(struct pages *pages, struct loop *loop)
{
	const struct config *config = pages->server->config;
	struct err err = { 0 };
	OWN_BUF text = { 0 };

	if (strcmp(config->prometheus_host, "localhost") != 0)
		log_warn("Server is now configured to accept remote network connections for Prometheus stats collection. Please ensure "
			 "access to this port is tightly controlled",
			 KV("subsystem_name", "telemetry"));
	log_info("Starting prometheus exporter", KV("host", config->prometheus_host), KV_NUM("port", config->prometheus_port),
		 KV("subsystem_name", "telemetry"));
	if (http_listen(loop, config->prometheus_host, config->prometheus_port, serve_metrics, pages, &pages->metrics, &err) == CODE_OK)
		return;
	buf_printf(&text, "Prometheus listener stopped unexpectedly: %s", err.text);
	log_warn(buf_text(&text), KV("subsystem_name", "telemetry"));
}

enum code pages_start(struct server *server, struct loop *loop, struct pages **out, struct err *err)
{
	const struct config *config = server->config;
	struct pages *pages;
	struct reader *reader;

	TRY(reader_open(server->state_path, &reader, err));
	pages = xcalloc(1, sizeof *pages);
	pages->server = server;
	pages->reader = reader;
	gethostname(pages->host, sizeof pages->host - 1);
	pages->page = (struct metric_page_options){
		.prefix = config->metric_prefix,
		.host = config->hostname_label ? pages->host : NULL,
		.trust_domain = config->trust_domain_label ? server->td : NULL,
	};
	if (config->prometheus_enabled)
		start_metrics(pages, loop);
	if (config->health_enabled && start_health(pages, loop, err) != CODE_OK) {
		pages_stop(pages);
		return err->code;
	}
	*out = pages;
	return CODE_OK;
}

void pages_stop(struct pages *pages)
{
	if (pages == NULL)
		return;
	http_close(pages->health);
	http_close(pages->metrics);
	reader_close(pages->reader);
	free(pages);
}
