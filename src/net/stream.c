/* SPDX-License-Identifier: Apache-2.0 */
/* One TLS stream.
 *
 *   stream_open --> SHAKING --(handshake done: opened)--> OPEN --stream_close(flush)--> FLUSHING --(sent)--> LINGERING
 *                      |                                    |                              |                    |
 *                      +------(EOF, error: closed)----------+------------------------------+-----> CLOSED <-----+
 *
 * The session's wire is `out`; what the kernel has not taken of it waits there and the socket is polled for writing.
 * Lingering: closing a socket with unread input makes the kernel reset it, and a reset may overtake the last thing we
 * said, which may be the reason why we hang up. */
#include "net/stream.h"

#include "base/arena.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	CHUNK = 64 << 10,
	KEEP = 256 << 10,
	LINGER_MS = 500,
	FLUSH_MS = 2000,
	UNSENT = 128 << 10, /* in the kernel: more would only wait in front of what is urgent */
	USER_TIMEOUT_MS = 10000,
	KEEP_IDLE_S = 5,
	KEEP_INTERVAL_S = 2,
	KEEP_COUNT = 3,
};

enum state { SHAKING, OPEN, FLUSHING, LINGERING, CLOSED };

struct stream {
	struct link link; /* of options.all */
	uv_poll_t poll;
	uv_timer_t timer; /* begins the handshake, tells what went wrong while writing, ends flushing and lingering */
	struct loop *loop;
	const struct stream_events *events;
	void *ctx;
	struct tls *tls;
	struct buf out;
	size_t out_at;
	int fd, handles, events_polled;
	enum state state;
	bool paused, broken; /* broken: nothing can be written any more */
	struct err why;      /* of broken */
};

static _Thread_local uint8_t rx[CHUNK], plain[CHUNK]; /* within one callback only */

static void on_poll(uv_poll_t *poll, int status, int events);
static void on_timer(uv_timer_t *timer);

static void handle_closed(uv_handle_t *handle)
{
	struct stream *stream = handle->data;

	if (--stream->handles > 0)
		return;
	tls_free(stream->tls);
	buf_done(&stream->out);
	free(stream);
}

static void destroy(struct stream *stream)
{
	if (stream->state == CLOSED)
		return;
	stream->state = CLOSED;
	list_remove(&stream->link);
	uv_poll_stop(&stream->poll);
	close(stream->fd);
	uv_close((uv_handle_t *)&stream->poll, handle_closed);
	uv_close((uv_handle_t *)&stream->timer, handle_closed);
}

/* The owner hears of it, if there still is one. */
static void end(struct stream *stream, const struct err *why)
{
	bool owned = stream->state == SHAKING || stream->state == OPEN;
	const struct err copy = *why;

	destroy(stream);
	if (owned)
		stream->events->closed(stream->ctx, &copy);
}

static void watch(struct stream *stream)
{
	int events = 0;

	if (stream->state == CLOSED)
		return;
	if (!stream->paused || stream->state >= FLUSHING)
		events |= UV_READABLE;
	if (stream_waiting(stream) > 0 && !stream->broken)
		events |= UV_WRITABLE;
	if (events == stream->events_polled)
		return;
	stream->events_polled = events;
	if (events == 0)
		uv_poll_stop(&stream->poll);
	else
		uv_poll_start(&stream->poll, events, on_poll);
}

/* Told from the timer: whoever writes is not called back from within. */
static void broke(struct stream *stream, int number)
{
	if (stream->broken)
		return;
	stream->broken = true;
	err_errno(&stream->why, CODE_UNAVAILABLE, number, "write", NULL);
	if (stream->state < LINGERING)
		uv_timer_start(&stream->timer, on_timer, 0, 0);
}

size_t stream_waiting(const struct stream *stream)
{
	return stream->out.len - stream->out_at;
}

/* Hands the kernel what it takes. */
static void push(struct stream *stream)
{
	while (stream_waiting(stream) > 0 && !stream->broken) {
		ssize_t n = send(stream->fd, stream->out.data + stream->out_at, stream_waiting(stream),
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
			broke(stream, errno);
		if (n < 0)
			break;
		stream->out_at += (size_t)n;
	}
	if (stream_waiting(stream) == 0) {
		stream->out.len = stream->out_at = 0;
		if (stream->out.cap > KEEP)
			buf_done(&stream->out);
	} else if (stream->out_at > CHUNK) {
		buf_consume(&stream->out, stream->out_at);
		stream->out_at = 0;
	}
}

void stream_write(struct stream *stream, const void *data, size_t len)
{
	struct err err = { 0 };

	assert(stream->state == OPEN);
	if (!stream->broken && tls_write(stream->tls, data, len, &err) != CODE_OK)
		broke(stream, EPROTO);
}

void stream_flush(struct stream *stream)
{
	if (stream->state != OPEN)
		return;
	push(stream);
	watch(stream);
}

void stream_pause(struct stream *stream, bool pause)
{
	stream->paused = pause;
	watch(stream);
}

/* --- closing --- */

static void after_flush(struct stream *stream)
{
	if (stream->state != FLUSHING || (stream_waiting(stream) > 0 && !stream->broken))
		return;
	if (stream->broken) {
		destroy(stream);
		return;
	}
	stream->state = LINGERING;
	shutdown(stream->fd, SHUT_WR);
	uv_timer_start(&stream->timer, on_timer, LINGER_MS, 0);
}

static void begin_flush(struct stream *stream)
{
	if (stream->broken) {
		destroy(stream);
		return;
	}
	stream->state = FLUSHING;
	tls_goodbye(stream->tls);
	push(stream);
	if (stream->state == FLUSHING)
		uv_timer_start(&stream->timer, on_timer, FLUSH_MS, 0);
	after_flush(stream);
	watch(stream);
}

void stream_close(struct stream *stream, bool flush)
{
	if (stream->state != OPEN && stream->state != SHAKING)
		return;
	if (flush && stream->state == OPEN)
		begin_flush(stream);
	else
		destroy(stream);
}

void stream_close_all(struct link *all)
{
	while (!list_empty(all))
		destroy(LIST_ITEM(all->next, struct stream, link));
}

/* --- in --- */

/* The handshake failed: the peer gets the alert, the owner hears of it. */
static void refuse(struct stream *stream, const struct err *why)
{
	const struct stream_events *events = stream->events;
	void *ctx = stream->ctx;
	const struct err copy = *why;

	begin_flush(stream);
	events->closed(ctx, &copy);
}

static bool shake(struct stream *stream)
{
	struct err err = { 0 };
	enum tls_result result = tls_handshake(stream->tls, &err);

	if (result == TLS_OK && !tls_alpn_agreed(stream->tls)) {
		err_set(&err, CODE_UNAVAILABLE,
			"TLS handshake failed: the other side does not speak the peer protocol");
		result = TLS_FAILED;
	} else if (result == TLS_END) {
		err_set(&err, CODE_UNAVAILABLE, "TLS handshake failed: the other side ended it");
	}
	if (result == TLS_FAILED || result == TLS_END) {
		refuse(stream, &err);
		return false;
	}
	push(stream);
	if (result != TLS_OK)
		return false;
	stream->state = OPEN;
	stream->events->opened(stream->ctx);
	return stream->state == OPEN;
}

static void take(struct stream *stream, const uint8_t *data, size_t len)
{
	struct err err = { 0 };

	tls_input(stream->tls, data, len);
	if (stream->state == SHAKING && !shake(stream))
		return;
	for (;;) {
		size_t n = 0;
		enum tls_result result = tls_read(stream->tls, plain, sizeof plain, &n, &err);

		if (result == TLS_OK) {
			stream->events->data(stream->ctx, plain, n);
			if (stream->state != OPEN)
				return;
			continue;
		}
		if (result != TLS_WANT) {
			if (result == TLS_FAILED)
				push(stream); /* the alert */
			end(stream, &err);
			return;
		}
		push(stream); /* TLS' own answers */
		return;
	}
}

static void on_readable(struct stream *stream)
{
	ssize_t n = recv(stream->fd, rx, sizeof rx, MSG_DONTWAIT);
	struct err err = { 0 };

	if (n < 0) {
		if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
			return;
		err_errno(&err, CODE_UNAVAILABLE, errno, "read", NULL);
		end(stream, &err);
	} else if (n == 0) {
		if (stream->state == SHAKING)
			err_set(&err, CODE_UNAVAILABLE, "TLS handshake failed: the other side closed the connection");
		end(stream, &err);
	} else if (stream->state <= OPEN) {
		take(stream, rx, (size_t)n);
	}
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct stream *stream = poll->data;
	bool waited = stream_waiting(stream) > 0;

	if (status < 0) {
		struct err err = { 0 };
		int number = 0;
		socklen_t len = sizeof number;

		getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &number, &len);
		err_errno(&err, CODE_UNAVAILABLE, number != 0 ? number : ECONNRESET, "read", NULL);
		end(stream, &err);
		return;
	}
	if ((events & UV_WRITABLE) && waited) {
		push(stream);
		after_flush(stream);
	}
	if ((events & UV_READABLE) && stream->state != CLOSED && (!stream->paused || stream->state >= FLUSHING))
		on_readable(stream);
	/* reading pushes too, so it is asked here */
	if (waited && stream->state == OPEN && stream_waiting(stream) == 0 && !stream->broken)
		stream->events->drained(stream->ctx);
	watch(stream);
}

static void on_timer(uv_timer_t *timer)
{
	struct stream *stream = timer->data;
	const struct err late = { 0 };

	if (stream->broken)
		end(stream, &stream->why);
	else if (stream->state == SHAKING)
		take(stream, rx, 0); /* a client's first words */
	else if (stream->state >= FLUSHING)
		end(stream, &late);
	watch(stream);
}

/* --- opening --- */

static void set_socket(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS },
		{ IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE_S },
		{ IPPROTO_TCP, TCP_KEEPINTVL, KEEP_INTERVAL_S },
		{ IPPROTO_TCP, TCP_KEEPCNT, KEEP_COUNT },
	};

	for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
		setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof options[i].value);
}

enum code stream_open(const struct stream_options *options, struct stream **out, struct err *err)
{
	struct stream *stream = xcalloc(1, sizeof *stream);
	enum code rc = tls_new(options->tls, options->peer, &stream->out, &stream->tls, err);
	int status = rc == CODE_OK ? uv_poll_init(loop_uv(options->loop), &stream->poll, options->fd) : 0;

	if (rc != CODE_OK || status != 0) {
		close(options->fd);
		tls_free(stream->tls);
		free(stream);
		return rc != CODE_OK ? rc : err_set(err, CODE_INTERNAL, "poll: %s", uv_strerror(status));
	}
	uv_timer_init(loop_uv(options->loop), &stream->timer);
	stream->poll.data = stream->timer.data = stream;
	stream->handles = 2;
	list_push(options->all, &stream->link);
	stream->loop = options->loop;
	stream->events = options->events;
	stream->ctx = options->ctx;
	stream->fd = options->fd;
	set_socket(stream->fd);
	uv_timer_start(&stream->timer, on_timer, 0, 0);
	watch(stream);
	*out = stream;
	return CODE_OK;
}

const struct tls *stream_tls(const struct stream *stream)
{
	return stream->tls;
}
