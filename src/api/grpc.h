/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_GRPC_H
#define API_GRPC_H

#include "api/call.h"

/* gRPC over HTTP/2: messages and statuses of one stream. Contract server-api.md 1.10. */
struct stream;

/* From the call's task. The next message of the client, until the next stream_recv; *end: it has half-closed, there is none.
 * Texts and codes are grpc-go's. CANCELLED: the client has gone. */
enum code stream_recv(struct stream *stream, int64_t deadline_ms, struct span *out, bool *end, struct err *err);

/* Queues a message, and waits while more than LIMIT_OUTBOX is queued. */
enum code stream_send(struct stream *stream, struct span message, int64_t deadline_ms, struct err *err);

#endif
