/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_GRPC_H
#define API_GRPC_H

#include "api/call.h"
#include "api/server.h"
#include "net/tls.h"

/* gRPC over HTTP/2: connections, and on each of them calls. Contract server-api.md 1.10, 3. On the api loop's thread.
 */

/* --- connections --- */

struct grpc_conn;

/* A connection from an accepted socket, which is taken over. `tls` NULL: the UNIX socket. It frees itself; until then
 * it is in api->conns. */
void grpc_accept(struct api_loop *api, int fd, struct tls_context *tls);

/* All connections of the loop (or those over TCP alone): graceful (GOAWAY, the end when their last call has), or now.
 * New calls of a drained one are refused. */
void grpc_drain_all(struct api_loop *api, bool tcp_alone);
void grpc_abort_all(struct api_loop *api);

/* The TLS context's verify callback. */
enum code grpc_verify_client(void *peer, X509 *leaf, STACK_OF(X509) * chain, struct err *err);

/* --- the transport of one call, for its task --- */

struct grpc_stream;

/* The next message of the client, valid until the next grpc_recv; *end: it has half-closed, there is none. Texts and
 * codes are grpc-go's. CANCELLED: the client has gone. */
enum code grpc_recv(struct grpc_stream *stream, int64_t deadline_ms, struct span *out, bool *end, struct err *err);

/* What the client sent is no message: that is its status, whatever the handler makes of it (as grpc-go). grpc_recv does the same
 * for frames. */
void grpc_fail(struct grpc_stream *stream, const struct err *err);

/* Queues a copy of a message, and waits while more than LIMIT_OUTBOX is queued. */
enum code grpc_send(struct grpc_stream *stream, struct span message, int64_t deadline_ms, struct err *err);

#endif
