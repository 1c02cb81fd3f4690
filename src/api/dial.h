/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_DIAL_H
#define API_DIAL_H

#include "api/client.h"

/* A connection of the blocking client: bytes over a UNIX socket, or over TCP with TLS, each step with a deadline
 * (clock_mono_ms). */
struct dial;

/* UNAVAILABLE with grpc-go's texts: `connection error: desc = "transport: Error while dialing: ..."` if nobody answers,
 * `... "transport: authentication handshake failed: ..."` if the handshake fails. */
enum code dial_open(const struct client_options *options, int64_t deadline_ms, struct dial **out, struct err *err);
void dial_close(struct dial *dial); /* NULL is fine */
OWNABLE_STRUCT(dial, dial_close)

/* All of it. DEADLINE_EXCEEDED, or UNAVAILABLE with the reason alone. */
enum code dial_send(struct dial *dial, const void *data, size_t len, int64_t deadline_ms, struct err *err);
/* Some of it; *n == 0: the peer has closed. A deadline in the past only looks whether something is there. */
enum code dial_recv(struct dial *dial, void *data, size_t cap, int64_t deadline_ms, size_t *n, struct err *err);

size_t dial_server_chain(const struct dial *dial, const struct span **chain);

#endif
