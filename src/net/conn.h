/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NET_CONN_H
#define NET_CONN_H

#include "base/err.h"
#include "base/loop.h"
#include "base/own.h"
#include "net/tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An accepted connection on one loop: bytes in and out, plain or through TLS. Everything on the loop's thread.
 *
 * Output is made when the connection asks for it (`writable`), once a turn of the loop and after the turn's tasks have
 * run, so that all that is due leaves in one write. A peer that does not read stops us: no more is asked for, and
 * nothing read, until it does. */
struct conn;

/* What the connections of a loop share: buffers, the list of those that have something to say. Freed after its loop. */
struct conn_pool;
struct conn_pool *conn_pool_new(struct loop *loop);
void conn_pool_free(struct conn_pool *pool); /* NULL is fine; no connection may be left */
size_t conn_pool_count(const struct conn_pool *pool);
void conn_pool_abort(struct conn_pool *pool); /* breaks every connection now: `closed`, without flushing */
/* While the loop runs: aborts, and frees the pool once the last connection is gone; then `done`, if there is one. No
 * connection may be opened in it any more. */
void conn_pool_end(struct conn_pool *pool, void (*done)(void *ctx), void *ctx);
OWNABLE_STRUCT(conn_pool, conn_pool_free)

struct conn_events {
	void (*opened)(void *ctx); /* the TLS handshake is done; a plain connection is open at once, without this */
	void (*data)(void *ctx, const uint8_t *data, size_t len);
	void (*writable)(void *ctx); /* conn_write now, as long as conn_room says */
	void (*timer)(void *ctx);    /* see conn_timer */
	/* It has ended by itself; `why` OK: the peer closed it. The last event; the connection is gone. */
	void (*closed)(void *ctx, const struct err *why);
};

struct conn_options {
	int fd;                  /* taken over, also on failure */
	bool tcp;                /* a TCP socket */
	struct tls_context *tls; /* NULL: plain */
	int64_t handshake_ms;    /* TLS: it is broken if the handshake takes longer */
	bool any_protocol;       /* TLS: a client that does not agree to the context's protocol is welcome, too */
	const struct conn_events *events;
	void *ctx;  /* theirs */
	void *peer; /* of the TLS context's verify callback */
};

enum code conn_open(struct conn_pool *pool, const struct conn_options *options, struct conn **out, struct err *err);

/* No event comes any more. What has been written is sent, the peer is given a moment to take it, then the connection is
 * freed. `writable` is called once more before (from within) if `flush`. */
void conn_close(struct conn *conn, bool flush);

/* Another owner from here on; from within `opened` at the latest. */
void conn_hand_over(struct conn *conn, const struct conn_events *events, void *ctx);

void conn_want_write(struct conn *conn); /* `writable` will be called in this turn, or once the peer reads again */
void conn_write(struct conn *conn, const void *data, size_t len); /* within `writable` only */
bool conn_room(const struct conn *conn);                          /* false: enough for now */

/* `timer` is called once after so many ms, unless it is set again before; below 0: not at all. After the handshake
 * only. */
void conn_timer(struct conn *conn, int64_t ms);

bool conn_is_tls(const struct conn *conn);
const struct tls *conn_tls(const struct conn *conn);

#endif
