/* SPDX-License-Identifier: Apache-2.0 */
/* The API on its sockets. The accept loop (`main`) hands each descriptor to the next api loop in a message; from there
 * on the connection is that loop's alone. A stop goes the same way: drain, wait, abort, end, as messages. */
#include "api/serve.h"

#include "api/auth.h"
#include "api/grpc.h"
#include "api/h2.h"
#include "api/shown.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/task.h"
#include "net/conn.h"
#include "net/listener.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { LOOPS_MAX = 64, STOP_POLL_MS = 10, WARN_AGAIN_MS = 60 * 1000 };

/* One api loop and what its handshakes show. */
struct serving {
	struct api_loop api;
	struct tls_context *tls;
	struct shown shown;
	struct message drain, abort, leave;
	atomic_bool leaving; /* `leave` is on its way */
	atomic_bool told;    /* to drain: the connections that came before are counted */
};

struct serve {
	struct server *server;
	struct loop *main;
	struct listener *tcp, *local;
	bool started;
	char *tcp_address, *local_address; /* as the log shows them */
	struct serving *loops;
	size_t n_loops, next;
	int port;
	int64_t warned_ms;
};

/* A descriptor on its way. */
struct handover {
	struct message message;
	struct serving *to;
	int fd;
	bool tcp;
};

/* --- accepting: on main --- */

static void deliver_handover(struct message *message)
{
	struct handover *handover = (struct handover *)message;

	grpc_accept(&handover->to->api, handover->fd, handover->tcp ? handover->to->tls : NULL);
	free(handover);
}

static size_t count(atomic_size_t *connections)
{
	return atomic_load_explicit(connections, memory_order_relaxed);
}

static bool is_full(struct serve *serve)
{
	size_t n = 0;

	for (size_t i = 0; i < serve->n_loops; i++)
		n += count(&serve->loops[i].api.n_tcp) + count(&serve->loops[i].api.n_local);
	if (n < LIMIT_CONNECTIONS)
		return false;
	if (clock_mono_ms() - serve->warned_ms >= WARN_AGAIN_MS) {
		serve->warned_ms = clock_mono_ms();
		log_warn("Too many connections: new ones are closed", KV("subsystem_name", "endpoints"),
			 KV_NUM("limit", LIMIT_CONNECTIONS));
	}
	return true;
}

static void hand_over(struct serve *serve, int fd, bool tcp)
{
	struct handover *handover;

	if (is_full(serve)) {
		close(fd);
		return;
	}
	handover = xcalloc(1, sizeof *handover);
	handover->message.deliver = deliver_handover;
	handover->to = &serve->loops[serve->next++ % serve->n_loops];
	handover->fd = fd;
	handover->tcp = tcp;
	loop_post(handover->to->api.loop, &handover->message);
}

static void accepted_tcp(void *ctx, int fd)
{
	hand_over(ctx, fd, true);
}

static void accepted_local(void *ctx, int fd)
{
	hand_over(ctx, fd, false);
}

/* --- starting --- */

static void deliver_drain(struct message *message)
{
	struct serving *serving = (struct serving *)((char *)message - offsetof(struct serving, drain));

	grpc_drain_all(&serving->api, false);
	atomic_store(&serving->told, true);
}

static void deliver_leave(struct message *message)
{
	struct serving *serving = (struct serving *)((char *)message - offsetof(struct serving, leave));

	atomic_store(&serving->leaving, false); /* before it is done: what comes later is told by the next one */
	grpc_drain_all(&serving->api, true);
}

static void deliver_abort(struct message *message)
{
	struct serving *serving = (struct serving *)((char *)message - offsetof(struct serving, abort));

	grpc_abort_all(&serving->api);
	conn_pool_abort(serving->api.pool);
}

static enum code open_loop(struct serving *serving, struct server *server, size_t number, struct err *err)
{
	const struct tls_options tls = {
		.alpn = TLS_ALPN_H2,
		.identity = shown_identity,
		.ctx = &serving->shown,
		.verify = grpc_verify_client,
	};
	char name[16];

	snprintf(name, sizeof name, "api/%zu", number);
	serving->drain.deliver = deliver_drain;
	serving->abort.deliver = deliver_abort;
	serving->leave.deliver = deliver_leave;
	serving->api.server = server;
	serving->shown.slot = server->keyring;
	list_init(&serving->api.conns);
	serving->api.loop = loop_new(name);
	serving->api.pool = conn_pool_new(serving->api.loop);
	serving->api.slab = slab_new(H2_SLAB);
	serving->api.trust = trust_cache_new();
	TRY(reader_open(server->state_path, &serving->api.reader, err));
	return tls_context_new(&tls, &serving->tls, err);
}

static void free_loop(struct serving *serving)
{
	loop_free(serving->api.loop); /* the last calls end here */
	tls_context_free(serving->tls);
	conn_pool_free(serving->api.pool);
	slab_free(serving->api.slab);
	reader_close(serving->api.reader);
	trust_cache_free(serving->api.trust);
	shown_done(&serving->shown);
}

/* Each connection is a descriptor: take what we may have, as Go's runtime does. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* Those that we may run on: fewer than the machine has in a container or under taskset. */
static size_t count_cores(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;

	return n < 1 ? 1 : n > LOOPS_MAX ? LOOPS_MAX : (size_t)n;
}

enum network { TCP, LOCAL };

static void say_of(const struct serve *serve, enum network network, const char *msg)
{
	log_info(msg, KV("subsystem_name", "endpoints"), KV("network", network == TCP ? "tcp" : "unix"),
		 KV("address", network == TCP ? serve->tcp_address : serve->local_address));
}

static void say(const struct serve *serve, const char *msg)
{
	say_of(serve, TCP, msg);
	say_of(serve, LOCAL, msg);
}

static void *free_loops(void *arg)
{
	struct serve *serve = arg;

	for (size_t i = 0; i < serve->n_loops; i++) {
		loop_join(serve->loops[i].api.loop);
		free_loop(&serve->loops[i]);
	}
	return NULL;
}

/* We are in a task, and a loop that is freed may run a last task of its own, which is not done from within one: a
 * thread does it. */
static void serve_free(struct serve *serve)
{
	pthread_t thread;

	listener_close(serve->tcp);
	listener_close(serve->local);
	if (pthread_create(&thread, NULL, free_loops, serve) != 0)
		abort(); /* no thread to be had: nothing ends in order any more */
	pthread_join(thread, NULL);
	free(serve->loops);
	free(serve->tcp_address);
	free(serve->local_address);
	free(serve);
}

OWNABLE_STRUCT(serve, serve_free)

enum code serve_bind(struct server *server, struct loop *main, struct serve **out, struct err *err)
{
	OWN_STRUCT(serve) serve = xcalloc(1, sizeof *serve);

	serve->server = server;
	serve->main = main;
	serve->warned_ms = -WARN_AGAIN_MS;
	TRY(listener_unix_check(server->config->socket_path, err));
	TRY(listener_tcp(main, server->config->bind_address, server->config->bind_port, &serve->tcp, err));
	serve->tcp_address = xstrdup(listener_address(serve->tcp));
	serve->port = listener_port(serve->tcp);
	if (server->config->cluster.enabled) /* the port was free: that is enough for now */
		listener_close(TAKE(serve->tcp));
	*out = TAKE(serve);
	return CODE_OK;
}

enum code serve_start(struct serve *serve, struct err *err)
{
	size_t n = count_cores();

	raise_descriptor_limit();
	TRY(listener_unix(serve->main, serve->server->config->socket_path, &serve->local, err));
	serve->local_address = xstrdup(listener_address(serve->local));
	serve->loops = xcalloc(n, sizeof *serve->loops);
	for (size_t i = 0; i < n; i++) {
		serve->n_loops = i + 1;
		TRY(open_loop(&serve->loops[i], serve->server, i, err));
	}
	for (size_t i = 0; i < n; i++)
		loop_start(serve->loops[i].api.loop);
	serve->started = true;
	if (serve->tcp != NULL)
		listener_accept(serve->tcp, accepted_tcp, serve);
	listener_accept(serve->local, accepted_local, serve);
	if (serve->tcp != NULL)
		say_of(serve, TCP, "Starting Server APIs");
	say_of(serve, LOCAL, "Starting Server APIs");
	return CODE_OK;
}

enum code serve_tcp(struct serve *serve, bool open, struct err *err)
{
	const struct config *config = serve->server->config;

	if (open == (serve->tcp != NULL))
		return CODE_OK;
	if (open) {
		TRY(listener_tcp(serve->main, config->bind_address, serve->port, &serve->tcp, err));
		listener_accept(serve->tcp, accepted_tcp, serve);
		say_of(serve, TCP, "Starting Server APIs");
		return CODE_OK;
	}
	say_of(serve, TCP, "Stopping Server APIs");
	listener_close(TAKE(serve->tcp));
	for (size_t i = 0; i < serve->n_loops; i++)
		if (!atomic_exchange(&serve->loops[i].leaving, true))
			loop_post(serve->loops[i].api.loop, &serve->loops[i].leave);
	return CODE_OK;
}

int serve_port(const struct serve *serve)
{
	return serve->port;
}

/* --- stopping --- */

static bool is_drained(struct serve *serve, enum network network)
{
	for (size_t i = 0; i < serve->n_loops; i++) {
		struct serving *serving = &serve->loops[i];

		if (!atomic_load(&serving->told) ||
		    count(network == TCP ? &serving->api.n_tcp : &serving->api.n_local) > 0)
			return false;
	}
	return true;
}

/* Until every connection has ended, or the time is over; a line for each network. */
static void drain(struct serve *serve)
{
	int64_t give_up_ms = clock_mono_ms() + LIMIT_STOP_MS;
	bool drained[2] = { false, false };

	for (size_t i = 0; i < serve->n_loops; i++)
		loop_post(serve->loops[i].api.loop, &serve->loops[i].drain);
	for (;;) {
		for (enum network network = TCP; network <= LOCAL; network++) {
			if (drained[network] || !is_drained(serve, network))
				continue;
			drained[network] = true;
			say_of(serve, network, "Graceful stop successful");
		}
		if ((drained[TCP] && drained[LOCAL]) || clock_mono_ms() >= give_up_ms ||
		    task_sleep(STOP_POLL_MS) != CODE_OK)
			break;
	}
	for (enum network network = TCP; network <= LOCAL; network++)
		if (!drained[network])
			say_of(serve, network, "Graceful stop unsuccessful, forced stop after 10s");
}

static void end_loops(struct serve *serve)
{
	for (size_t i = 0; i < serve->n_loops; i++) {
		loop_post(serve->loops[i].api.loop, &serve->loops[i].abort);
		loop_stop(serve->loops[i].api.loop);
	}
}

void serve_stop(struct serve *serve)
{
	if (serve == NULL)
		return;
	if (!serve->started) {
		serve_free(serve);
		return;
	}
	say(serve, "Stopping Server APIs");
	say(serve, "Attempting graceful stop");
	listener_close(TAKE(serve->tcp));
	listener_close(TAKE(serve->local));
	drain(serve);
	end_loops(serve);
	say(serve, "Server APIs have stopped");
	serve_free(serve);
}
