/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NET_STREAM_H
#define NET_STREAM_H

#include "base/err.h"
#include "base/list.h"
#include "base/loop.h"
#include "net/tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A TLS connection between nodes, either end of it, on one loop. Unlike conn.h each direction flows on its own: a peer
 * that does not read what we send does not keep us from reading, so two ends that both talk cannot block each other.
 * Events come from the loop, never from within a call here. */
struct stream;

struct stream_events {
	void (*opened)(void *ctx); /* the handshake is done */
	void (*data)(void *ctx, const uint8_t *data, size_t len);
	void (*drained)(void *ctx); /* the kernel has taken all that waited */
	/* It has ended by itself; `why` OK: the peer closed it. The last event; the stream is gone. */
	void (*closed)(void *ctx, const struct err *why);
};

struct stream_options {
	struct loop *loop;
	int fd; /* a connected TCP socket, non-blocking; taken over, also on failure */
	struct tls_context *tls;
	void *peer; /* of the TLS context's verify callback */
	const struct stream_events *events;
	void *ctx;
	struct link *all; /* a list of the caller's in which the stream stays until it is closed, flushing included */
};
enum code stream_open(const struct stream_options *options, struct stream **out, struct err *err);

/* Encrypts; leaves with stream_flush. After `opened` only. */
void stream_write(struct stream *stream, const void *data, size_t len);
void stream_flush(struct stream *stream);
size_t stream_waiting(const struct stream *stream);   /* bytes that the kernel has not taken */
void stream_pause(struct stream *stream, bool pause); /* no reading; up to 64 KiB may still come */

/* No event comes any more. `flush`: what has been written is sent, the peer is given a moment to take it. */
void stream_close(struct stream *stream, bool flush);
/* Breaks what is in the list, without events: before the loop ends. */
void stream_close_all(struct link *all);

const struct tls *stream_tls(const struct stream *stream);

/* Connecting: each address that HOST:PORT stands for, one after the other. Names are looked up beside the loop. */
struct dialing;
/* fd >= 0, or errno's number and the words: ECONNREFUSED only if every address refused. Once, never from within
 * dialing_start; the dialing is gone then. */
typedef void dialing_fn(void *ctx, int fd, int number, const char *why);
struct dialing *dialing_start(struct loop *loop, const char *address, int64_t timeout_ms, dialing_fn *done, void *ctx);
void dialing_cancel(struct dialing *dialing); /* `done` is not called; NULL is fine */

#endif
