/* SPDX-License-Identifier: Apache-2.0 */
/* One accepted connection.
 *
 *   conn_open --> SHAKING --(TLS done)--> OPEN --conn_close--> FLUSHING --(all sent)--> LINGERING --(peer's end, a
 * moment)--> CLOSED |                     |                      |                         ^ | +--(EOF, error)-->
 * CLOSED                        |
 *                    +--(bad certificate, no ALPN: the alert is sent)-----------------------+
 *
 * Bytes that the kernel has not taken lie in `out`; while there are any, the socket is polled for writing, and above
 * HIGH of them it is not polled for reading. Reads go into a buffer of the pool, plaintext is made in another one and
 * handed on at once; writes are gathered in a third. So an idle connection holds its structs alone. Lingering: closing
 * a socket with unread input makes the kernel reset it, and a reset may overtake the last thing we said. */
#include "net/conn.h"

#include "base/arena.h"
#include "base/list.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	RX_SIZE = 64 << 10,    /* of one read */
	PLAIN_SIZE = 64 << 10, /* plaintext handed on at a time */
	HIGH = 64 << 10,       /* bytes that wait for the peer: no more is asked for */
	PUSH_AT = 64 << 10,    /* bytes gathered: on their way at once */
	KEEP = 256 << 10,      /* what a buffer of the pool may keep allocated */
	LINGER_MS = 1000,
	FLUSH_MS = 10000,
	USER_TIMEOUT_MS = 20000, /* a peer that acknowledges nothing for so long is gone (as grpc-go) */
};

struct conn_pool {
	struct loop *loop;
	struct link conns;
	struct link ready; /* want to write, or broke while they wrote */
	size_t n;
	struct message flush;
	bool posted, ends;
	void (*ended)(void *ctx); /* see conn_pool_end */
	void *ended_ctx;
	int passes;          /* the flush waits for this turn's tasks */
	struct conn *writer; /* whose `writable` runs */
	struct buf gathered; /* its output */
	struct buf wire;     /* TLS: what goes to the peer */
	struct err err; /* of what is under way: too large for each stack frame */
	uint8_t rx[RX_SIZE], plain[PLAIN_SIZE];
};

enum state { SHAKING, OPEN, FLUSHING, LINGERING, CLOSED };

struct conn {
	struct link link, ready;
	struct conn_pool *pool;
	const struct conn_events *events;
	void *ctx;
	uv_poll_t poll;
	uv_timer_t timer;
	struct tls *tls;
	struct buf out;
	size_t out_at;
	int fd;
	int polled; /* the events asked for */
	enum state state;
	int handles;       /* of libuv, open */
	bool any_protocol;
	bool broken, more; /* writing failed; wants `writable` */
	bool given_up;     /* conn_close has begun */
	struct err *why;   /* of `broken` */
};

static const struct err fine; /* the peer has closed it */

/* --- the end --- */

static void free_if_done(struct conn_pool *pool)
{
	void (*ended)(void *ctx) = pool->ended;
	void *ctx = pool->ended_ctx;

	if (!pool->ends || pool->n > 0 || pool->posted)
		return;
	conn_pool_free(pool);
	if (ended != NULL)
		ended(ctx);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct conn *conn = handle->data;
	struct conn_pool *pool = conn->pool;

	if (--conn->handles > 0)
		return;
	list_remove(&conn->link);
	pool->n--;
	free(conn->why);
	free(conn);
	free_if_done(pool);
}

static void destroy(struct conn *conn)
{
	if (conn->state == CLOSED)
		return;
	conn->state = CLOSED;
	list_remove(&conn->ready);
	tls_free(TAKE(conn->tls));
	buf_done(&conn->out);
	uv_close((uv_handle_t *)&conn->poll, on_handle_closed);
	uv_close((uv_handle_t *)&conn->timer, on_handle_closed);
	close(conn->fd);
}

/* It ends by itself: the owner hears of it, if there is one still. */
static void end(struct conn *conn, const struct err *why)
{
	bool owned = (conn->state == SHAKING || conn->state == OPEN) && !conn->given_up;

	if (conn->state == CLOSED)
		return;
	destroy(conn);
	if (owned)
		conn->events->closed(conn->ctx, why);
}

static void end_errno(struct conn *conn, int number, const char *what)
{
	err_errno(&conn->pool->err, CODE_UNAVAILABLE, number, what, NULL);
	end(conn, &conn->pool->err);
}

/* --- polling --- */

static void on_poll(uv_poll_t *poll, int status, int events);

static size_t waiting(const struct conn *conn)
{
	return conn->out.len - conn->out_at;
}

static void watch(struct conn *conn)
{
	int events = 0;

	if (conn->state == CLOSED)
		return;
	if (waiting(conn) < HIGH || conn->state >= FLUSHING)
		events |= UV_READABLE;
	if (waiting(conn) > 0)
		events |= UV_WRITABLE;
	if (events == conn->polled)
		return;
	conn->polled = events;
	uv_poll_start(&conn->poll, events, on_poll);
}

/* --- out --- */

static void flush_ready(struct message *message);

static void put_ready(struct conn *conn)
{
	struct conn_pool *pool = conn->pool;

	if (list_empty(&conn->ready))
		list_push(&pool->ready, &conn->ready);
	if (!pool->posted) {
		pool->posted = true;
		pool->passes = 0;
		loop_post(pool->loop, &pool->flush);
	}
}

/* The socket is broken while the owner writes: it hears of it when it is out of there. */
static void broke(struct conn *conn, int number)
{
	if (conn->broken)
		return;
	conn->broken = true;
	conn->why = xcalloc(1, sizeof *conn->why);
	err_errno(conn->why, CODE_UNAVAILABLE, number, "write", NULL);
	conn->out.len = conn->out_at = 0;
	put_ready(conn);
}

/* What the kernel takes of it at once; -1: broken. */
static ssize_t send_some(struct conn *conn, const uint8_t *data, size_t len)
{
	size_t sent = 0;

	while (sent < len) {
		ssize_t n = send(conn->fd, data + sent, len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n >= 0) {
			sent += (size_t)n;
		} else if (errno == EAGAIN) {
			break;
		} else if (errno != EINTR) {
			broke(conn, errno);
			return -1;
		}
	}
	return (ssize_t)sent;
}

static void send_or_keep(struct conn *conn, const uint8_t *data, size_t len)
{
	ssize_t sent = 0;

	if (conn->broken || len == 0)
		return;
	if (waiting(conn) == 0)
		sent = send_some(conn, data, len);
	if (sent < 0 || (size_t)sent == len)
		return;
	if (conn->out_at == conn->out.len)
		conn->out_at = conn->out.len = 0;
	buf_append(&conn->out, data + sent, len - (size_t)sent);
}

static void trim(struct buf *buf)
{
	buf->len = 0;
	if (buf->cap > KEEP)
		buf_done(buf);
}

static void send_wire(struct conn *conn)
{
	struct buf *wire = &conn->pool->wire;

	send_or_keep(conn, wire->data, wire->len);
	trim(wire);
}

/* What has been gathered goes on its way. */
static void push(struct conn *conn)
{
	struct buf *gathered = &conn->pool->gathered;

	if (gathered->len == 0)
		return;
	if (conn->tls == NULL)
		send_or_keep(conn, gathered->data, gathered->len);
	else if (tls_write(conn->tls, gathered->data, gathered->len, NULL) == CODE_OK)
		send_wire(conn);
	else
		broke(conn, EPROTO);
	trim(gathered);
}

static void ask_for_output(struct conn *conn)
{
	struct conn_pool *pool = conn->pool;

	assert(pool->writer == NULL);
	conn->more = false;
	pool->writer = conn;
	pool->gathered.len = 0;
	conn->events->writable(conn->ctx);
	if (conn->state != CLOSED)
		push(conn);
	pool->writer = NULL;
	watch(conn);
}

static void flush_one(struct conn *conn)
{
	if (conn->broken) {
		struct err *why = TAKE(conn->why);

		end(conn, why);
		free(why);
	} else if (conn->state == OPEN && conn->more && conn_room(conn)) {
		ask_for_output(conn);
	}
}

/* Comes twice: the first time it goes to the end of the queue, so that the tasks of this turn have run. */
static void flush_ready(struct message *message)
{
	struct conn_pool *pool = (struct conn_pool *)((char *)message - offsetof(struct conn_pool, flush));
	struct link now;

	if (pool->passes++ == 0) {
		loop_post(pool->loop, message);
		return;
	}
	pool->posted = false;
	list_init(&now);
	while (!list_empty(&pool->ready)) { /* what gets ready meanwhile is for the next time */
		struct link *first = pool->ready.next;

		list_remove(first);
		list_push(&now, first);
	}
	while (!list_empty(&now)) {
		struct link *first = now.next;

		list_remove(first);
		flush_one(LIST_ITEM(first, struct conn, ready));
	}
	free_if_done(pool);
}

void conn_want_write(struct conn *conn)
{
	conn->more = true;
	if (conn->state == OPEN && conn_room(conn))
		put_ready(conn);
}

void conn_write(struct conn *conn, const void *data, size_t len)
{
	assert(conn->pool->writer == conn);
	buf_append(&conn->pool->gathered, data, len);
	if (conn->pool->gathered.len >= PUSH_AT)
		push(conn);
}

bool conn_room(const struct conn *conn)
{
	return waiting(conn) < HIGH && !conn->broken;
}

/* --- closing --- */

static void on_timer(uv_timer_t *timer)
{
	struct conn *conn = timer->data;

	if (conn->state == OPEN) {
		conn->events->timer(conn->ctx);
		return;
	}
	err_set(&conn->pool->err, CODE_DEADLINE_EXCEEDED, "TLS handshake failed: it took too long"); /* if it is that */
	end(conn, &conn->pool->err);
}

static void after_flush(struct conn *conn)
{
	if (conn->state != FLUSHING || waiting(conn) > 0)
		return;
	conn->state = LINGERING;
	shutdown(conn->fd, SHUT_WR);
	uv_timer_start(&conn->timer, on_timer, LINGER_MS, 0);
}

/* The owner is gone; what is in `out` is sent before the socket is closed. */
static void begin_flush(struct conn *conn)
{
	list_remove(&conn->ready);
	if (conn->broken) {
		destroy(conn);
		return;
	}
	conn->state = FLUSHING;
	if (conn->tls != NULL) {
		tls_goodbye(conn->tls);
		send_wire(conn);
	}
	if (conn->broken) {
		destroy(conn);
		return;
	}
	uv_timer_start(&conn->timer, on_timer, FLUSH_MS, 0);
	after_flush(conn);
	watch(conn);
}

void conn_close(struct conn *conn, bool flush)
{
	if ((conn->state != OPEN && conn->state != SHAKING) || conn->given_up)
		return;
	conn->given_up = true;
	if (!flush) {
		destroy(conn);
		return;
	}
	if (conn->state == OPEN && conn->pool->writer == NULL)
		ask_for_output(conn);
	else if (conn->pool->writer == conn)
		push(conn);
	begin_flush(conn);
}

/* The handshake failed, or ended without the protocol: the owner hears of it, the peer gets the alert. */
static void refuse(struct conn *conn, const struct err *why)
{
	send_wire(conn);
	begin_flush(conn);
	conn->events->closed(conn->ctx, why);
}

/* --- in --- */

/* True once the handshake is done. */
static bool shake(struct conn *conn)
{
	struct err *err = &conn->pool->err;
	enum tls_result result = tls_handshake(conn->tls, err);

	if (result == TLS_OK && !conn->any_protocol && !tls_alpn_agreed(conn->tls)) {
		err_set(err, CODE_UNAVAILABLE, "TLS handshake failed: the client does not offer the protocol (ALPN)");
		refuse(conn, err);
		return false;
	}
	if (result == TLS_FAILED || result == TLS_END) {
		if (result == TLS_END)
			err_set(err, CODE_UNAVAILABLE, "TLS handshake failed: the client ended it");
		refuse(conn, err);
		return false;
	}
	send_wire(conn);
	if (result != TLS_OK)
		return false;
	conn->state = OPEN;
	uv_timer_stop(&conn->timer);
	conn->events->opened(conn->ctx);
	return conn->state == OPEN;
}

static void take_tls(struct conn *conn, const uint8_t *data, size_t len)
{
	struct conn_pool *pool = conn->pool;
	struct err *err = &pool->err;

	tls_input(conn->tls, data, len);
	if (conn->state == SHAKING && !shake(conn))
		return;
	for (;;) {
		size_t n = 0;
		enum tls_result result = tls_read(conn->tls, pool->plain, sizeof pool->plain, &n, err);

		if (pool->wire.len > 0) /* TLS' own answers */
			send_wire(conn);
		if (result == TLS_OK) {
			conn->events->data(conn->ctx, pool->plain, n);
			if (conn->state != OPEN)
				return;
			continue;
		}
		if (result == TLS_END)
			end(conn, &fine);
		else if (result == TLS_FAILED)
			end(conn, err);
		return;
	}
}

static void on_readable(struct conn *conn)
{
	struct conn_pool *pool = conn->pool;
	ssize_t n = recv(conn->fd, pool->rx, sizeof pool->rx, MSG_DONTWAIT);

	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			end_errno(conn, errno, "read");
	} else if (n == 0) {
		end(conn, &fine);
	} else if (conn->state >= FLUSHING) {
		return; /* nobody wants it any more */
	} else if (conn->tls != NULL) {
		take_tls(conn, pool->rx, (size_t)n);
	} else {
		conn->events->data(conn->ctx, pool->rx, (size_t)n);
	}
}

static void on_writable(struct conn *conn)
{
	ssize_t n = send_some(conn, conn->out.data + conn->out_at, waiting(conn));

	if (n > 0)
		conn->out_at += (size_t)n;
	if (waiting(conn) > 0)
		return;
	buf_done(&conn->out);
	conn->out_at = 0;
	if (conn->state == FLUSHING && conn->broken)
		destroy(conn);
	else if (conn->state == FLUSHING)
		after_flush(conn);
	else if (conn->more)
		put_ready(conn);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct conn *conn = poll->data;

	if (status < 0) { /* an error is pending */
		int number = 0;
		socklen_t len = sizeof number;

		getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &number, &len);
		end_errno(conn, number != 0 ? number : ECONNRESET, "read");
		return;
	}
	if ((events & UV_WRITABLE) && waiting(conn) > 0)
		on_writable(conn);
	if ((events & UV_READABLE) && conn->state != CLOSED)
		on_readable(conn);
	watch(conn);
}

/* --- the interface --- */

static void set_tcp(int fd) /* TCP_NODELAY is the listener's */
{
	int timeout = USER_TIMEOUT_MS;

	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

enum code conn_open(struct conn_pool *pool, const struct conn_options *options, struct conn **out, struct err *err)
{
	struct conn *conn = xcalloc(1, sizeof *conn);
	enum code rc = CODE_OK;
	int status;

	if (options->tls != NULL)
		rc = tls_new(options->tls, options->peer, &pool->wire, &conn->tls, err);
	status = rc == CODE_OK ? uv_poll_init(loop_uv(pool->loop), &conn->poll, options->fd) : 0;
	if (rc != CODE_OK || status != 0) {
		close(options->fd);
		tls_free(conn->tls);
		free(conn);
		return rc != CODE_OK ? rc : err_set(err, CODE_INTERNAL, "poll: %s", uv_strerror(status));
	}
	uv_timer_init(loop_uv(pool->loop), &conn->timer);
	conn->poll.data = conn->timer.data = conn;
	conn->handles = 2;
	conn->pool = pool;
	conn->events = options->events;
	conn->ctx = options->ctx;
	conn->fd = options->fd;
	conn->any_protocol = options->any_protocol;
	conn->state = conn->tls != NULL ? SHAKING : OPEN;
	list_init(&conn->ready);
	list_push(&pool->conns, &conn->link);
	pool->n++;
	if (options->tcp)
		set_tcp(conn->fd);
	if (conn->tls != NULL)
		uv_timer_start(&conn->timer, on_timer, (uint64_t)options->handshake_ms, 0);
	watch(conn);
	*out = conn;
	return CODE_OK;
}

void conn_timer(struct conn *conn, int64_t ms)
{
	if (conn->state != OPEN)
		return;
	if (ms < 0)
		uv_timer_stop(&conn->timer);
	else
		uv_timer_start(&conn->timer, on_timer, (uint64_t)ms, 0);
}

void conn_hand_over(struct conn *conn, const struct conn_events *events, void *ctx)
{
	conn->events = events;
	conn->ctx = ctx;
}

bool conn_is_tls(const struct conn *conn)
{
	return conn->tls != NULL;
}

const struct tls *conn_tls(const struct conn *conn)
{
	return conn->tls;
}

struct conn_pool *conn_pool_new(struct loop *loop)
{
	struct conn_pool *pool = xcalloc(1, sizeof *pool);

	pool->loop = loop;
	pool->flush.deliver = flush_ready;
	list_init(&pool->conns);
	list_init(&pool->ready);
	return pool;
}

void conn_pool_free(struct conn_pool *pool)
{
	if (pool == NULL)
		return;
	assert(pool->n == 0);
	buf_done(&pool->gathered);
	buf_done(&pool->wire);
	free(pool);
}

size_t conn_pool_count(const struct conn_pool *pool)
{
	return pool->n;
}

void conn_pool_abort(struct conn_pool *pool)
{
	const struct err why = { .code = CODE_UNAVAILABLE, .text = "the server stops" };

	LIST_FOR_SAFE (item, &pool->conns)
		end(LIST_ITEM(item, struct conn, link), &why);
}

void conn_pool_end(struct conn_pool *pool, void (*done)(void *ctx), void *ctx)
{
	pool->ends = true;
	pool->ended = done;
	pool->ended_ctx = ctx;
	conn_pool_abort(pool);
	free_if_done(pool);
}
