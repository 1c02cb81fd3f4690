/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_FRAME_H
#define API_FRAME_H

#include "api/header.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* gRPC's texts and frames as pure functions: what a request's headers mean, how messages are cut out of a byte stream,
 * how a status is written (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md). Codes and texts of refusals are grpc-go's. */

/* --- a request's headers --- */

struct frame_request {
	const char *path;            /* ":path", "" if it is missing */
	struct span service, method; /* of it; empty when malformed */
	const char *content_type;    /* to answer with */
	const char *encoding;        /* grpc-encoding; NULL: none */
	int64_t timeout_ns;          /* grpc-timeout; -1: none */
};

/* Not OK: http_status is what to answer with besides. UNIMPLEMENTED "malformed method name: ..." is among it (200). */
enum code frame_parse_request(const struct header *headers, struct arena *arena, struct frame_request *out,
			      int *http_status, struct err *err);

/* "100m", "1S", at most 8 digits. */
enum code frame_parse_timeout(const char *text, int64_t *ns, struct err *err);

/* --- messages --- */

enum { FRAME_HEAD = 5 };

struct frame_reader { /* zero-initialised */
	uint8_t head[FRAME_HEAD];
	size_t n_head;
	size_t size; /* of the message whose head is there */
	struct buf message;
	const char *encoding;
};

/* Takes bytes from *at on, to the end of a message at most. *whole: `message` is one now; take it and call frame_next.
 */
enum code frame_read(struct frame_reader *reader, const uint8_t **at, const uint8_t *end, bool *whole, struct err *err);
void frame_next(struct frame_reader *reader); /* the message has been taken or is dropped */
void frame_done(struct frame_reader *reader);
void frame_head(uint8_t head[FRAME_HEAD], size_t size);

/* --- a status --- */

/* grpc-status, grpc-message if there is text, grpc-status-details-bin if err->reason is set; then `more`. */
const struct header *frame_status(enum code code, const struct err *err, const struct header *more,
				  struct arena *arena);

#endif
