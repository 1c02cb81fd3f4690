/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_H2_H
#define API_H2_H

#include "api/header.h"
#include "base/arena.h"
#include "base/buf.h"
#include "net/conn.h"
#include "net/slab.h"

/* The server's side of HTTP/2 on one connection: streams, flow control, keepalive, graceful ends, and what a client may
 * not do to us. On the loop's thread; may be called from a task or from within its events. */
struct h2;
struct h2_stream;

struct h2_events { /* to whom `ctx` (the connection's) and `user` (a stream's) belong */
	/* A request's headers, pseudo-headers too. The arena holds them and is the receiver's from here on. Answers
	 * `user`. */
	void *(*begin)(void *ctx, struct h2_stream *stream, struct arena *arena, struct header *headers);
	void (*data)(void *user, const uint8_t *data, size_t len); /* give the bytes back with h2_consumed */
	void (*end)(void *user);                                   /* the client will send no more */
	void (*sent)(void *user);                                  /* some of what was queued has left */
	void (*gone)(void *user);  /* answered, reset, or the connection went; the last event of the stream */
	void (*opened)(void *ctx); /* TLS: the handshake is done */
	/* The connection has ended, after `gone` of all its streams; it is freed. `why` OK: as it should. */
	void (*closed)(void *ctx, const struct err *why);
};

enum { H2_SLAB = 20 << 10 }; /* nghttp2's buffer for a frame of 16 KiB, in whole pages */

struct h2_options {
	struct conn *conn; /* one that is open already (conn_hand_over); NULL: one is made of the next three */
	int fd;            /* taken over, also on failure */
	bool tcp;
	struct tls_context *tls; /* NULL: plain */
	int64_t max_age_ms;      /* GOAWAY after so long, +-10 %; 0: never */
	int64_t handshake_ms;    /* for TLS, and again for the client's first SETTINGS; 0: LIMIT_HANDSHAKE_MS */
	struct slab *slab;       /* of H2_SLAB bytes, the loop's; NULL: malloc */
	const struct h2_events *events;
	void *ctx; /* theirs, and the peer of the TLS context's verify callback */
};

enum code h2_open(struct conn_pool *pool, const struct h2_options *options, struct h2 **out, struct err *err);

/* Tells the client to go elsewhere: GOAWAY with the last id 2^31-1, a PING's round trip (`ping_ms` at most), GOAWAY
 * with the true last id; the connection ends when its last stream has. */
void h2_drain(struct h2 *h2, int64_t ping_ms);
void h2_abort(struct h2 *h2); /* now; `closed` is called from within */

/* Response headers; `end`: they are all of the answer (trailers-only). Copied. At most once a stream, before h2_send.
 */
void h2_respond(struct h2_stream *stream, const struct header *headers, bool end);
/* Queues `head` and all of `body` (which is empty afterwards). */
void h2_send(struct h2_stream *stream, const uint8_t head[5], struct buf *body);
/* No more bytes: trailers (copied) go after what is queued. A client that has not ended is told that nobody listens. */
void h2_finish(struct h2_stream *stream, const struct header *trailers);
void h2_reset(struct h2_stream *stream, uint32_t code); /* RFC 9113 section 7 */

size_t h2_queued(const struct h2_stream *stream); /* bytes of h2_send that have not left */
size_t h2_backlog(const struct h2 *h2);           /* of all streams of the connection */

void h2_consumed(struct h2_stream *stream, size_t n); /* bytes of `data` that take no memory any more */
void h2_expect(struct h2_stream *stream, size_t n);   /* so many are coming: opens the window for them, up to 1 MiB */

const struct conn *h2_conn(const struct h2 *h2);

#endif
