/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC streams: between HTTP/2's events and a call's task.
 *
 *   begin --(no such method, bad headers)--> answered
 *     |                                          ^
 *     +-- stream route: start ------+            |
 *     +-- unary: a whole message ---+--> task: call_serve --> answer --> gone
 *                                        ^    grpc_recv, grpc_send wait for data(), sent()
 *                     gone: cancels it --+
 *
 * A stream is freed when both its task and its HTTP/2 stream are gone. A connection is counted by its streams: callers
 * point into it. Bytes that wait here are limited: a message by LIMIT_MESSAGE, a stream's queue by its window, all of a
 * connection by LIMIT_INBOX; and no call begins while LIMIT_BACKLOG of answers wait for the client to read. */
#include "api/grpc.h"

#include "api/auth.h"
#include "api/frame.h"
#include "api/h2.h"
#include "api/route.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/task.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_AGE_MS = 3 * 60 * 1000, STOP_PING_MS = 2000, QUEUE_HIGH = 64 << 10, ADDRESS_MAX = 64 };

struct grpc_conn {
	struct link link; /* of api->conns, while h2 is there */
	struct api_loop *api;
	struct h2 *h2; /* NULL: it has ended */
	unsigned refs; /* h2's, and one a stream */
	struct caller caller;
	struct auth_peer auth;
	char address[ADDRESS_MAX], ip[ADDRESS_MAX];
	char *id, *program;
	size_t inbox;         /* bytes of messages of all streams */
	struct link held_off; /* streams whose call waits for the backlog to shrink */
};

struct message_in {
	struct link link;
	struct buf bytes;
};

struct grpc_stream {
	struct grpc_conn *conn;
	struct h2_stream *h2; /* NULL: gone */
	struct arena *arena;  /* NULL: the call is over */
	struct call *call;
	struct task *task; /* while it runs */
	const char *content_type;
	struct link held_off;
	/* in */
	struct frame_reader reader;
	size_t charged;      /* of conn->inbox */
	struct link queue;   /* whole messages of a streaming call */
	size_t queued, held; /* bytes of them; bytes of window kept back */
	struct buf current;  /* what grpc_recv answered last, or the unary request */
	bool ended;          /* the client has half-closed */
	struct err *broken;  /* what comes after the queue: a frame that was none */
	struct wait readable;
	/* out */
	struct buf reply;
	bool started, responded, done;
	struct wait writable;
};

/* --- connections --- */

static void conn_unref(struct grpc_conn *conn)
{
	if (--conn->refs > 0)
		return;
	free(conn->id);
	free(conn->program);
	free(conn);
}

static void set_tcp_caller(struct grpc_conn *conn, int fd)
{
	struct sockaddr_storage at = { 0 };
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&at;
	const struct sockaddr_in *in = (const struct sockaddr_in *)&at;
	socklen_t len = sizeof at;
	bool six = false;

	getpeername(fd, (struct sockaddr *)&at, &len);
	if (at.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		inet_ntop(AF_INET, &in6->sin6_addr.s6_addr[12], conn->ip, sizeof conn->ip);
	} else if (at.ss_family == AF_INET6) {
		six = true;
		inet_ntop(AF_INET6, &in6->sin6_addr, conn->ip, sizeof conn->ip);
	} else if (at.ss_family == AF_INET) {
		inet_ntop(AF_INET, &in->sin_addr, conn->ip, sizeof conn->ip);
	}
	snprintf(conn->address, sizeof conn->address, six ? "[%.46s]:%u" : "%.46s:%u", conn->ip,
		 ntohs(in->sin_port)); /* the same place in both families */
}

static void set_local_caller(struct grpc_conn *conn, int fd)
{
	struct ucred who = { 0 };
	socklen_t len = sizeof who;
	char link[64], path[1024];
	ssize_t n;

	conn->caller.local = true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) != 0)
		return;
	conn->caller.uid = who.uid;
	conn->caller.gid = who.gid;
	if (!conn->api->server->config->audit_log_enabled)
		return; /* nobody else asks for the program */
	snprintf(link, sizeof link, "/proc/%d/exe", (int)who.pid);
	n = readlink(link, path, sizeof path - 1);
	if (n > 0) {
		path[n] = '\0';
		conn->program = xstrdup(path);
	}
}

enum code grpc_verify_client(void *peer, X509 *leaf, STACK_OF(X509) * chain, struct err *err)
{
	struct grpc_conn *conn = peer;
	OWN_STRUCT(arena) arena = arena_new();

	TRY(auth_verify_client(conn->api, leaf, chain, arena, &conn->auth, err));
	conn->id = xstrdup(conn->auth.id); /* `arena` goes now */
	conn->auth.id = conn->id;
	conn->caller.id = conn->id;
	conn->caller.serial = conn->auth.serial;
	conn->caller.not_before_s = conn->auth.not_before_s;
	conn->caller.not_after_s = conn->auth.not_after_s;
	return CODE_OK;
}

static void on_opened(void *ctx)
{
	(void)ctx; /* the caller is known since grpc_verify_client */
}

static atomic_size_t *count_of(struct grpc_conn *conn)
{
	return conn->caller.local ? &conn->api->n_local : &conn->api->n_tcp;
}

static void on_closed(void *ctx, const struct err *why)
{
	struct grpc_conn *conn = ctx;

	if (why->code != CODE_OK)
		log_debug("Connection ended", KV("subsystem_name", "endpoints"),
			  KV("caller_addr", conn->caller.local ? NULL : conn->address), KV("error", why->text));
	conn->h2 = NULL;
	list_remove(&conn->link);
	atomic_fetch_sub_explicit(count_of(conn), 1, memory_order_relaxed);
	conn_unref(conn);
}

void grpc_drain_all(struct api_loop *api, bool tcp_alone)
{
	LIST_FOR_SAFE (item, &api->conns) {
		struct grpc_conn *conn = LIST_ITEM(item, struct grpc_conn, link);

		if (!tcp_alone || !conn->caller.local)
			h2_drain(conn->h2, STOP_PING_MS);
	}
}

void grpc_abort_all(struct api_loop *api)
{
	while (!list_empty(&api->conns))
		h2_abort(LIST_ITEM(api->conns.next, struct grpc_conn, link)->h2);
}

/* --- the end of a stream --- */

static void charge(struct grpc_stream *stream, size_t n)
{
	stream->charged += n;
	stream->conn->inbox += n;
}

static void discharge(struct grpc_stream *stream, size_t n)
{
	stream->charged -= n;
	stream->conn->inbox -= n;
}

/* What the client sent is of no use any more. */
static void drop_input(struct grpc_stream *stream)
{
	while (!list_empty(&stream->queue)) {
		struct message_in *message = LIST_ITEM(stream->queue.next, struct message_in, link);

		list_remove(&message->link);
		buf_done(&message->bytes);
		free(message);
	}
	frame_done(&stream->reader);
	buf_done(&stream->current);
	discharge(stream, stream->charged);
	stream->queued = 0;
}

static void free_if_over(struct grpc_stream *stream)
{
	if (stream->h2 != NULL || stream->task != NULL)
		return;
	list_remove(&stream->held_off);
	drop_input(stream);
	buf_done(&stream->reply);
	arena_free(stream->arena);
	free(stream->broken);
	conn_unref(stream->conn);
	free(stream);
}

/* --- answering --- */

static void respond(struct grpc_stream *stream, const char *status, const struct header *trailers_only)
{
	const struct header type = { (struct header *)trailers_only, "content-type", stream->content_type };
	const struct header first = { (struct header *)&type, ":status", status };

	stream->responded = true;
	h2_respond(stream->h2, &first, trailers_only != NULL);
}

/* The status, after an answer or instead of one. Texts come from the stream's arena, which lives until the caller is
 * done. */
static void answer(struct grpc_stream *stream, const char *http_status, enum code code, const struct err *err)
{
	const struct header *more = stream->call != NULL ? stream->call->trailers : NULL;
	const struct header *trailers = frame_status(code, err, more, stream->arena);
	uint8_t head[FRAME_HEAD];

	if (stream->done)
		return; /* grpc_fail was first */
	stream->done = true;
	if (stream->h2 == NULL)
		return; /* nobody listens */
	if (code == CODE_OK && stream->call->route->stream == NULL) {
		respond(stream, http_status, NULL);
		frame_head(head, stream->reply.len);
		h2_send(stream->h2, head, &stream->reply);
	}
	if (stream->responded)
		h2_finish(stream->h2, trailers);
	else
		respond(stream, http_status, trailers);
	if (stream->held > 0)
		h2_consumed(stream->h2, stream->held);
	stream->held = 0;
	drop_input(stream);
}

static void refuse(struct grpc_stream *stream, const char *http_status, const struct err *err)
{
	answer(stream, http_status, err->code, err);
}

/* --- the call's task --- */

static void run(void *arg)
{
	struct grpc_stream *stream = arg;
	struct call *call = stream->call;
	enum code rc;

	if (task_cancelled())
		rc = err_set(call->err, CODE_CANCELLED, "context canceled");
	else if (call->deadline_ms <= clock_mono_ms())
		rc = err_set(call->err, CODE_DEADLINE_EXCEEDED, "context deadline exceeded");
	else
		rc = call_serve(call);
	if (rc == CODE_DEADLINE_EXCEEDED && call->err->text[0] == '\0')
		err_set(call->err, rc, "context deadline exceeded");
	answer(stream, "200", rc, call->err);
	stream->call = NULL;
	arena_free(TAKE(stream->arena));
	stream->task = NULL;
	free_if_over(stream);
}

static void start(struct grpc_stream *stream)
{
	const struct err full = { .code = CODE_RESOURCE_EXHAUSTED, .text = "the server has too many calls in flight" };

	stream->started = true;
	if (h2_backlog(stream->conn->h2) > LIMIT_BACKLOG) {
		list_push(&stream->conn->held_off, &stream->held_off);
		return;
	}
	stream->task = task_spawn(stream->conn->api->loop, stream->call->route->method, run, stream);
	if (stream->task == NULL)
		refuse(stream, "200", &full);
}

static void start_held_off(struct grpc_conn *conn)
{
	while (!list_empty(&conn->held_off) && h2_backlog(conn->h2) <= LIMIT_BACKLOG) {
		struct grpc_stream *stream = LIST_ITEM(conn->held_off.next, struct grpc_stream, held_off);

		list_remove(&stream->held_off);
		start(stream);
	}
}

/* --- HTTP/2's events --- */

static int64_t deadline_of(int64_t timeout_ns)
{
	int64_t now = clock_mono_ms();

	if (timeout_ns < 0 || timeout_ns / 1000000 > INT64_MAX / 2 - now)
		return INT64_MAX;
	return now + timeout_ns / 1000000;
}

static struct call *new_call(struct grpc_stream *stream, const struct route *route, const struct frame_request *request,
			     struct header *headers)
{
	struct grpc_conn *conn = stream->conn;
	struct call *call = arena_zalloc(stream->arena, sizeof *call);

	call->server = conn->api->server;
	call->api = conn->api;
	call->route = route;
	call->arena = stream->arena;
	call->caller = arena_memdup(stream->arena, &conn->caller, sizeof conn->caller);
	call->caller->address = conn->address;
	call->caller->ip = conn->ip;
	call->caller->program = conn->program;
	call->request_id = "";
	call->deadline_ms = deadline_of(request->timeout_ns);
	call->reply = &stream->reply;
	call->metadata = headers;
	call->stream = stream;
	return call;
}

static void begin_call(struct grpc_stream *stream, struct header *headers)
{
	struct frame_request request;
	const struct route *route;
	bool service_known = false;
	struct err err = { 0 };
	int http_status = 200;

	if (frame_parse_request(headers, stream->arena, &request, &http_status, &err) != CODE_OK) {
		stream->content_type = request.content_type;
		refuse(stream, arena_printf(stream->arena, "%d", http_status), &err);
		return;
	}
	stream->content_type = request.content_type;
	stream->reader.encoding = request.encoding;
	route = route_find(request.service, request.method, !stream->conn->caller.local, &service_known);
	if (route == NULL) {
		if (service_known)
			err_set(&err, CODE_UNIMPLEMENTED, "unknown method %.*s for service %.*s",
				(int)request.method.len, (const char *)request.method.data, (int)request.service.len,
				(const char *)request.service.data);
		else
			err_set(&err, CODE_UNIMPLEMENTED, "unknown service %.*s", (int)request.service.len,
				(const char *)request.service.data);
		refuse(stream, "200", &err);
		return;
	}
	stream->call = new_call(stream, route, &request, headers);
	if (route->stream != NULL)
		start(stream);
}

static void *on_begin(void *ctx, struct h2_stream *h2, struct arena *arena, struct header *headers)
{
	struct grpc_stream *stream = xcalloc(1, sizeof *stream);

	stream->conn = ctx;
	stream->conn->refs++;
	stream->h2 = h2;
	stream->arena = arena;
	list_init(&stream->queue);
	list_init(&stream->held_off);
	begin_call(stream, headers);
	return stream;
}

/* Input that is no gRPC: a unary call that has not begun ends with it, a streaming one reads it after what came before.
 */
static void broke(struct grpc_stream *stream, const struct err *err)
{
	if (!stream->started) {
		refuse(stream, "200", err);
		return;
	}
	stream->broken = xmemdup(err, sizeof *err);
	wait_done(&stream->readable);
}

static void took_message(struct grpc_stream *stream)
{
	struct buf *bytes = &stream->reader.message;
	struct message_in *message;

	if (stream->call->route->stream == NULL) {
		stream->current = *bytes;
		*bytes = (struct buf){ 0 };
		stream->call->request = (struct span){ stream->current.data, stream->current.len };
		start(stream);
		return;
	}
	message = xcalloc(1, sizeof *message);
	message->bytes = *bytes;
	*bytes = (struct buf){ 0 };
	list_push(&stream->queue, &message->link);
	stream->queued += message->bytes.len + FRAME_HEAD;
	wait_done(&stream->readable);
}

/* A client may send again what memory has room for: at once, unless a streaming call's handler is behind. */
static void credit(struct grpc_stream *stream, size_t n)
{
	stream->held += n;
	if (stream->queued <= QUEUE_HIGH && stream->h2 != NULL && stream->held > 0) {
		h2_consumed(stream->h2, stream->held);
		stream->held = 0;
	}
}

static bool wants_input(const struct grpc_stream *stream)
{
	if (stream->done || stream->broken != NULL || stream->call == NULL)
		return false;
	return stream->call->route->stream != NULL || !stream->started; /* of a unary call the first message */
}

static void on_data(void *user, const uint8_t *data, size_t len)
{
	const struct err full = { .code = CODE_RESOURCE_EXHAUSTED,
				  .text = "too many bytes of requests wait on this connection" };
	struct grpc_stream *stream = user;
	const uint8_t *at = data, *end = data + len;
	struct err err = { 0 };
	bool whole = false;

	while (at < end && wants_input(stream)) {
		size_t before = stream->reader.message.len;

		if (frame_read(&stream->reader, &at, end, &whole, &err) != CODE_OK) {
			broke(stream, &err);
			break;
		}
		charge(stream, stream->reader.message.len - before);
		if (stream->conn->inbox > LIMIT_INBOX) {
			broke(stream, &full);
			break;
		}
		if (whole) {
			took_message(stream);
			frame_next(&stream->reader);
		} else if (stream->reader.n_head == FRAME_HEAD) {
			h2_expect(stream->h2, stream->reader.size - stream->reader.message.len);
		}
	}
	credit(stream, len);
}

static void on_end(void *user)
{
	struct grpc_stream *stream = user;
	bool partial = stream->reader.n_head > 0;
	struct err err = { 0 };

	stream->ended = true;
	if (!wants_input(stream))
		return;
	if (!stream->started) {
		err_set(&err, CODE_UNKNOWN, stream->reader.n_head == FRAME_HEAD ? "unexpected EOF" : "EOF");
		broke(stream, &err);
	} else if (partial) {
		err_set(&err, CODE_INTERNAL, "unexpected EOF");
		broke(stream, &err);
	} else {
		wait_done(&stream->readable);
	}
}

static void on_sent(void *user)
{
	struct grpc_stream *stream = user;

	if (h2_queued(stream->h2) <= LIMIT_OUTBOX / 2)
		wait_done(&stream->writable);
	if (!list_empty(&stream->conn->held_off))
		start_held_off(stream->conn);
}

static void on_gone(void *user)
{
	struct grpc_stream *stream = user;

	stream->h2 = NULL;
	if (stream->task != NULL && !stream->done)
		task_cancel(stream->task);
	free_if_over(stream);
}

/* --- for the call --- */

static enum code await(struct grpc_stream *stream, struct wait *wait, int64_t deadline_ms, struct err *err)
{
	enum code rc;

	if (stream->h2 == NULL)
		return err_set(err, CODE_CANCELLED, "context canceled");
	*wait = (struct wait){ 0 };
	rc = task_wait(wait, deadline_ms);
	if (rc == CODE_OK)
		return rc;
	return err_set(err, rc, rc == CODE_CANCELLED ? "context canceled" : "context deadline exceeded");
}

enum code grpc_recv(struct grpc_stream *stream, int64_t deadline_ms, struct span *out, bool *end, struct err *err)
{
	struct message_in *message;
	enum code rc;

	discharge(stream, stream->current.len);
	buf_done(&stream->current);
	while (list_empty(&stream->queue)) {
		if (stream->broken != NULL) {
			*err = *stream->broken;
			grpc_fail(stream, err);
			return err->code;
		}
		*end = stream->ended;
		if (stream->ended)
			return CODE_OK;
		rc = await(stream, &stream->readable, deadline_ms, err);
		if (rc != CODE_OK) {
			grpc_fail(stream, err);
			return rc;
		}
	}
	message = LIST_ITEM(stream->queue.next, struct message_in, link);
	list_remove(&message->link);
	stream->current = message->bytes;
	free(message);
	stream->queued -= stream->current.len + FRAME_HEAD;
	credit(stream, 0);
	*end = false;
	*out = (struct span){ stream->current.data, stream->current.len };
	return CODE_OK;
}

void grpc_fail(struct grpc_stream *stream, const struct err *err)
{
	answer(stream, "200", err->code, err);
}

enum code grpc_send(struct grpc_stream *stream, struct span message, int64_t deadline_ms, struct err *err)
{
	struct buf copy = { 0 };
	uint8_t head[FRAME_HEAD];

	while (stream->h2 != NULL && h2_queued(stream->h2) > LIMIT_OUTBOX)
		TRY(await(stream, &stream->writable, deadline_ms, err));
	if (stream->h2 == NULL || stream->done)
		return err_set(err, CODE_CANCELLED, "context canceled");
	if (!stream->responded)
		respond(stream, "200", NULL);
	buf_append(&copy, message.data, message.len);
	frame_head(head, message.len);
	h2_send(stream->h2, head, &copy);
	return CODE_OK;
}

/* --- accepting --- */

void grpc_accept(struct api_loop *api, int fd, struct tls_context *tls)
{
	static const struct h2_events events = {
		.begin = on_begin,
		.data = on_data,
		.end = on_end,
		.sent = on_sent,
		.gone = on_gone,
		.opened = on_opened,
		.closed = on_closed,
	};
	struct grpc_conn *conn = xcalloc(1, sizeof *conn);
	struct h2_options options = {
		.fd = fd,
		.tcp = tls != NULL,
		.tls = tls,
		.slab = api->slab,
		.max_age_ms = tls != NULL ? MAX_AGE_MS : 0,
		.events = &events,
		.ctx = conn,
	};
	struct err err = { 0 };

	conn->api = api;
	conn->refs = 1;
	list_init(&conn->held_off);
	if (tls != NULL)
		set_tcp_caller(conn, fd);
	else
		set_local_caller(conn, fd);
	list_push(&api->conns, &conn->link);
	atomic_fetch_add_explicit(count_of(conn), 1, memory_order_relaxed);
	if (h2_open(api->pool, &options, &conn->h2, &err) != CODE_OK)
		on_closed(conn, &err);
}
