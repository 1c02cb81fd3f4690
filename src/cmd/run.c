/* SPDX-License-Identifier: Apache-2.0 */
/* `run`: builds every layer in order and takes them down in reverse (contract server-operation.md 8.1 to 8.3). The main
 * thread runs the main loop: it accepts connections, serves the pages, keeps the authorities, and hears the signals. */
#include "cmd/run_flags.h"

#include "api/endpoint.h"
#include "api/limit.h"
#include "api/pages.h"
#include "api/parent.h"
#include "api/prune.h"
#include "api/refresh.h"
#include "api/rotate.h"
#include "api/serve.h"
#include "api/state.h"
#include "base/clock.h"
#include "base/task.h"
#include "ca/upstream.h"
#include "ca/x509pop.h"
#include "raft/node.h"
#include "store/foreign.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { UMASK_LEAST = 0027, DRAIN_POLL_MS = 100, TRANSFER_MS = 5000, PORT_WARN_MS = 60 * 1000 };
#define JOIN_TOKEN_VARIABLE "TREFOIL_JOIN_TOKEN" /* the name is part of the contract (cluster.md section 1) */

struct run_options {
	struct config_flags config;
	bool bootstrap;
	const char *join;
};

static const struct flag run_flag_rows[] = {
	RUN_FLAGS(struct run_options, config),
	{ .name = "bootstrap", .type = FLAG_TYPE_BOOL, .offset = offsetof(struct run_options, bootstrap), .hidden = true,
	  .help = "Found a new cluster (a node without data)" },
	{ .name = "join", .type = FLAG_TYPE_STRING, .offset = offsetof(struct run_options, join), .text = "", .hidden = true,
	  .help = "Join a cluster by this token (a node without data)" },
	FLAG_END,
};
static const struct flag_set run_set = { "run", run_flag_rows };

struct run {
	struct arena *arena;
	struct run_options options;
	struct config config;
	struct server server;
	struct node *node;
	struct key_manager *keys;
	struct loop *loop;
	struct serve *serve;
	struct pages *pages;
	struct endpoint *endpoint;
	uv_signal_t signals[4];
	size_t n_signals;
	struct wait stop;      /* ended by SIGINT or SIGTERM */
	bool hurry;            /* it came again */
	int64_t port_warned_ms;
	struct task *starting; /* ended by them too, as long as it waits for others */
	enum code code;        /* how it went */
	struct err err;
};

/* --- before the loop --- */

static void tighten_umask(void)
{
	mode_t present = umask(0);
	mode_t wanted = present | UMASK_LEAST;
	char text[96];

	umask(wanted);
	if (wanted == present)
		return;
	snprintf(text, sizeof text, "Current umask %#04o is too permissive; setting umask %#04o", (unsigned)present,
		 (unsigned)wanted);
	log_warn(text);
}

static void log_configured(const struct config *config, struct arena *arena)
{
	const char *ids = config->admin_ids.n == 0 ? NULL : "";

	for (size_t i = 0; i < config->admin_ids.n; i++)
		ids = arena_printf(arena, "%s%s\"%s\"", ids, i == 0 ? "" : ",", config->admin_ids.items[i]);
	log_info("Configured", KV_LIST("admin_ids", ids == NULL ? "null" : arena_printf(arena, "[%s]", ids)),
		 KV("data_dir", config->data_dir), KV("launch_log_level", log_level_name(config->log.level)),
		 KV("version", VERSION));
}

/* Keys that are there are read before anything is written; a new file may lie in a directory that is yet to be made. */
static enum code open_keys(struct run *run, bool before)
{
	bool on_disk = run->config.key_manager == KEY_MANAGER_DISK;

	if (run->keys != NULL || (before && on_disk && access(run->config.keys_path, F_OK) != 0))
		return CODE_OK;
	if (!on_disk)
		return key_manager_open_memory(&run->keys, &run->err);
	return key_manager_open_disk(run->config.keys_path, &run->keys, &run->err);
}

static enum code open_x509pop(struct run *run)
{
	const struct config_x509pop *from = &run->config.x509pop;
	const struct x509pop_options options = {
		.trust_domain = run->config.trust_domain,
		.mode = from->mode,
		.spiffe_prefix = from->spiffe_prefix,
		.ca_bundle_path = from->ca_bundle_path,
		.ca_bundle_paths = from->ca_bundle_paths.items,
		.n_ca_bundle_paths = from->ca_bundle_paths.n,
		.agent_path_template = from->agent_path_template,
		.max_intermediates = from->max_intermediates,
		.max_rsa_key_size = from->max_rsa_key_size,
		.verify_client_ip = from->verify_client_ip,
	};

	struct err why = { 0 };

	if (!from->enabled)
		return CODE_OK;
	if (x509pop_open(&options, &run->server.x509pop, &why) != CODE_OK)
		return err_set(&run->err, why.code,
			       "failed to configure plugin \"x509pop\": rpc error: code = %s desc = %s",
			       code_name(why.code), why.text);
	return CODE_OK;
}

static enum code open_upstream(struct run *run)
{
	const struct config_upstream *from = &run->config.upstream;
	const struct upstream_disk_options disk = { from->cert_file_path, from->key_file_path, from->bundle_file_path };
	struct err why = { 0 };

	if (from->kind == UPSTREAM_DISK &&
	    upstream_disk_open(&disk, clock_wall_s(), &run->server.upstream_disk, &why) != CODE_OK)
		return err_set(&run->err, why.code,
			       "failed to configure plugin \"disk\": rpc error: code = %s desc = %s",
			       code_name(why.code), why.text);
	return CODE_OK;
}

/* Given by flag, environment or file, in this order; used only by a node without data. */
static enum code read_join_token(struct run *run, const char **token)
{
	const char *path = run->config.cluster.join_token_file, *from_environment = getenv(JOIN_TOKEN_VARIABLE);
	char text[4096];
	FILE *file;
	size_t n;

	if ((*token)[0] != '\0')
		return CODE_OK;
	if (from_environment != NULL && from_environment[0] != '\0') {
		*token = from_environment;
		return CODE_OK;
	}
	if (!run->config.cluster.enabled || path == NULL || run->options.bootstrap)
		return CODE_OK;
	file = fopen(path, "re");
	if (file == NULL && errno == ENOENT)
		return CODE_OK; /* a member does not need it any more */
	if (file == NULL)
		return err_errno(&run->err, CODE_FAILED_PRECONDITION, errno, "open", path);
	n = fread(text, 1, sizeof text - 1, file);
	fclose(file);
	*token = arena_strndup(run->arena, text, n);
	return CODE_OK;
}

static enum code open_state(struct run *run)
{
	struct server *server = &run->server;
	const char *token = run->options.join;
	struct replica_options options = {
		.trust_domain = server->td,
		.data_dir = run->config.data_dir,
		.node_id = server->node,
		.cluster = &run->config.cluster,
		.bootstrap = run->options.bootstrap,
	};

	TRY(read_join_token(run, &token));
	options.join_token = token;
	TRY(replica_start(&options, &server->replica, &run->err));
	server->state_path = replica_state_path(server->replica);
	return CODE_OK;
}

/* Who replaces a SPIRE server on its machine should hear that nothing of its database is taken over. */
static void look_for_foreign_database(const char *path)
{
	struct foreign_rows rows;

	if (path == NULL || !foreign_database_look(path, &rows))
		return;
	log_warn("The datastore of another server is there, and nothing of it is taken over: make the entries here again, then "
		 "remove the file",
		 KV("path", path), KV_NUM("entries", (int64_t)rows.entries), KV_NUM("agents", (int64_t)rows.agents),
		 KV_NUM("bundles", (int64_t)rows.bundles));
}

/* What can be wrong without our having written anything: another server's port, keys that cannot be read, bad options.
 */
static enum code check(struct run *run)
{
	struct config_notes notes;
	enum code rc = config_plugins(&run->config, run->arena, &notes, &run->err);

	write_notes(&notes);
	TRY(rc);
	look_for_foreign_database(run->config.datastore_path);
	TRY(open_x509pop(run));
	TRY(open_upstream(run));
	TRY(open_keys(run, true));
	if (run->config.bundle_endpoint.enabled)
		TRY(endpoint_bind(&run->server, &run->endpoint, &run->err));
	return serve_bind(&run->server, run->loop, &run->serve, &run->err);
}

static enum code build(struct run *run)
{
	struct server *server = &run->server;

	server->config = &run->config;
	server->td = run->config.trust_domain;
	server->server_id = arena_printf(run->arena, "spiffe://%s/spire/server", server->td);
	server->started_ms = clock_mono_ms();
	server->launch_level = run->config.log.level;
	server->limiters = limiters_new(run->config.ratelimit_attestation, run->config.ratelimit_signing);
	server->keyring = keyring_slot_new();
	run->loop = loop_new("main");
	TRY(check(run));
	TRY(node_open(run->config.data_dir, &run->node, &run->err));
	server->node = node_id(run->node);
	TRY(open_state(run));
	if (run->config.cluster.enabled)
		TRY(state_open(server, &server->state, &run->err));
	TRY(open_keys(run, false));
	TRY(refresher_new(server, &server->refresher, &run->err));
	return rotation_new(server, run->loop, run->keys, &server->rotation, &run->err);
}

/* --- on the loop --- */

static void heard(uv_signal_t *handle, int number)
{
	struct run *run = handle->data;
	struct err err = { 0 };

	switch (number) {
	case SIGUSR1:
		log_info("Reconfigure signal received", KV("subsystem_name", "reconfigurer"));
		break;
	case SIGUSR2:
		if (log_reopen(&err) != CODE_OK)
			log_error("failed to rotate log after signal", KV("error", err.text));
		break;
	default:
		if (!run->stop.done)
			wait_done(&run->stop);
		else
			run->hurry = true;
		if (run->starting != NULL)
			task_cancel(run->starting);
	}
}

static void listen_for_signals(struct run *run)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGUSR1, SIGUSR2 };

	for (run->n_signals = 0; run->n_signals < sizeof numbers / sizeof numbers[0]; run->n_signals++) {
		uv_signal_t *handle = &run->signals[run->n_signals];

		uv_signal_init(loop_uv(run->loop), handle);
		handle->data = run;
		uv_signal_start(handle, heard, numbers[run->n_signals]);
	}
}

static enum code open_parent(struct run *run)
{
	const struct config_upstream *from = &run->config.upstream;
	const struct parent_options options = { run->config.trust_domain, from->server_address, from->server_port,
						from->workload_api_socket };

	return from->kind == UPSTREAM_SPIRE ? parent_open(&options, &run->server.parent, &run->err) : CODE_OK;
}

/* A node that may not answer holds no port (availability.md V1). */
static bool set_port(void *ctx, bool open)
{
	struct run *run = ctx;
	struct err err = { 0 };

	if (run->endpoint != NULL)
		endpoint_set_port(run->endpoint, open);
	if (serve_tcp(run->serve, open, &err) == CODE_OK)
		return true;
	if (run->port_warned_ms == 0 || clock_mono_ms() - run->port_warned_ms >= PORT_WARN_MS) {
		run->port_warned_ms = clock_mono_ms();
		log_error("Port cannot be opened, trying again", KV("subsystem_name", "endpoints"), KV("error", err.text));
	}
	return false;
}

/* A planned stop: not ready, but serving, so that balancers leave; then somebody else leads. A second signal cuts it short. */
static void leave(struct run *run)
{
	const struct config_cluster *cluster = &run->config.cluster;
	int64_t end_ms = clock_mono_ms() + cluster->drain_s * 1000;
	struct replica_view view;
	struct err err = { 0 };

	if (!cluster->enabled)
		return;
	atomic_store(&run->server.stopping, true);
	log_info("Stopping: not ready, serving on for a moment", KV("subsystem_name", "endpoints"), KV_NUM("seconds", cluster->drain_s));
	while (!run->hurry && clock_mono_ms() < end_ms)
		if (task_sleep(DRAIN_POLL_MS) != CODE_OK)
			return;
	replica_view(run->server.replica, &view);
	if (view.is_leader && replica_transfer(run->server.replica, NULL, clock_mono_ms() + TRANSFER_MS, &err) != CODE_OK)
		log_info("Leadership is not handed over", KV("subsystem_name", "raft"), KV("reason", err.text));
}

static enum code serve_until_stopped(struct run *run)
{
	struct server *server = &run->server;

	TRY(open_parent(run));
	TRY(rotation_init(server->rotation, &run->err));
	TRY(serve_start(run->serve, &run->err));
	TRY(pages_start(server, run->loop, &run->pages, &run->err));
	if (run->endpoint != NULL)
		TRY(endpoint_start(run->endpoint, &run->err));
	refresher_start(server->refresher);
	rotation_run(server->rotation);
	prune_run(server, run->loop);
	run->starting = NULL;
	if (server->state != NULL)
		state_run(server->state, run->loop, set_port, run);
	task_wait(&run->stop, INT64_MAX);
	leave(run);
	return CODE_OK;
}

/* The life of the server as one task of the main loop. */
static void live(void *arg)
{
	struct run *run = arg;

	run->starting = task_self();
	if (run->code == CODE_OK)
		run->code = serve_until_stopped(run);
	run->starting = NULL;
	if (run->code != CODE_OK && run->stop.done)
		run->code = CODE_OK; /* it was told to stop before it had started */
	atomic_store(&run->server.stopping, true);
	state_stop(run->server.state);
	refresher_stop(run->server.refresher); /* answers who waits for it, while they are there */
	endpoint_stop(run->endpoint);
	serve_stop(run->serve);
	pages_stop(run->pages);
	for (size_t i = 0; i < run->n_signals; i++)
		uv_close((uv_handle_t *)&run->signals[i], NULL);
	loop_stop(run->loop);
}

static void take_down(struct run *run)
{
	struct server *server = &run->server;

	endpoint_free(run->endpoint);
	parent_stop(server->parent);
	rotation_free(server->rotation);
	replica_stop(server->replica);
	refresher_free(server->refresher);
	loop_free(run->loop);
	state_close(server->state);
	x509pop_close(server->x509pop);
	upstream_disk_close(server->upstream_disk);
	parent_close(server->parent);
	key_manager_close(run->keys);
	keyring_slot_free(server->keyring);
	limiters_free(server->limiters);
	node_close(run->node);
}

static int finish(struct run *run, enum code rc)
{
	if (rc == CODE_OK) {
		log_info("Server stopped gracefully");
		return 0;
	}
	log_error("Fatal run error", KV("error", run->err.text));
	log_error("Server crashed", KV("error", run->err.text));
	return 1;
}

static int run_configured(struct run *run)
{
	tighten_umask();
	log_configured(&run->config, run->arena);
	signal(SIGPIPE, SIG_IGN);
	run->code = build(run);
	if (run->code == CODE_OK)
		listen_for_signals(run);
	task_spawn(run->loop, "run", live, run); /* takes down what stands, if the building failed */
	loop_run(run->loop);
	take_down(run);
	return finish(run, run->code);
}

static enum code load(struct run *run, const struct config_flags *flags)
{
	struct config_notes notes = { 0 };
	struct err ignored = { 0 };
	enum code rc = config_load(flags, run->arena, &run->config, &notes, &run->err);

	if (rc == CODE_OK)
		TRY(log_open(&run->config.log, &run->err));
	else if (notes.n > 0)
		log_open(&run->config.log, &ignored); /* what is wrong is in its lines */
	write_notes(&notes);
	return rc;
}

int cmd_run(int argc, char **argv)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct run *run = arena_zalloc(arena, sizeof *run);
	enum code rc = flags_read(&run_set, &run->options, arena, argc, argv, NULL, &run->err);

	run->arena = arena;
	if (rc == CODE_CANCELLED) {
		flags_usage(&run_set, stderr);
		fprintf(stderr, "%s\n", run->err.text);
		return 0;
	}
	if (rc != CODE_OK) {
		fprintf(stderr, "%s\n", run->err.text);
		flags_usage(&run_set, stderr);
		fprintf(stderr, "%s\n", run->err.text);
		return 1;
	}
	if (load(run, &run->options.config) != CODE_OK) {
		fprintf(stderr, "%s\n", run->err.text);
		return 1;
	}
	return run_configured(run);
}
