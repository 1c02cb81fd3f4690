/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_LINK_FRAME_H
#define RAFT_LINK_FRAME_H

#include "base/buf.h"
#include "base/err.h"
#include "base/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Frames on a connection between nodes: type (1 byte), length of the body (4, big-endian), body. Memory grows with what
 * has arrived, never with what a header claims; what is longer than its type may be ends the connection before that. */
enum { LINK_FRAME_HEADER = 5, LINK_MESSAGE_MAX = LIMIT_COMMAND + (512 << 10) /* of consensus */ };

enum link_frame_type {
	LINK_FRAME_HELLO = 1,     /* NodeHello (link.proto): the dialler's first words */
	LINK_FRAME_WELCOME = 2,   /* NodeHello: the answer to it */
	LINK_FRAME_REFUSE = 3,    /* NodeRefusal: the last words of a side that will not go on */
	LINK_FRAME_RAFT = 4,      /* codec.h */
	LINK_FRAME_REQUEST = 5,   /* id (8), method (1), time left in ms (4), length of the whole (4), its first part */
	LINK_FRAME_REPLY = 6,     /* id (8), code (1), length of the whole (4), its first part */
	LINK_FRAME_PART = 7,      /* what follows of the request or reply that was begun last in this direction */
	LINK_FRAME_COPY = 8,      /* NodeCopy (link.proto): a state copy begins */
	LINK_FRAME_COPY_DATA = 9, /* bytes of it, in order */
	LINK_FRAME_COPY_END = 10, /* SHA-256 of all of them */
	LINK_FRAME_COPY_DONE = 11 /* code (1), text: whole and synced at the receiver, or not */
};

/* The most that the body of such a frame may have; 0: not a type. */
size_t link_frame_max(uint8_t type);

/* Appends a header for a body of `len` bytes that the caller appends next. */
void link_frame_header(struct buf *out, enum link_frame_type type, size_t len);
void link_frame_put(struct buf *out, enum link_frame_type type, const void *body, size_t len);

/* Takes a stream of bytes apart. Zero-initialised. */
struct link_frame_reader {
	uint8_t header[LINK_FRAME_HEADER];
	size_t have; /* of the header */
	struct buf body;
};

struct link_frame {
	uint8_t type;
	struct span body; /* in the reader or in the bytes given: until the next call */
};

/* Takes from *data. True with the next frame; false: nothing left, give more later; or *bad is set: INVALID_ARGUMENT
 * in err says why, and the connection must end. `allowed`: bit 1 << type for each type that may come now. */
bool link_frame_next(struct link_frame_reader *reader, const uint8_t **data, size_t *len, uint32_t allowed,
		     struct link_frame *out, bool *bad, struct err *err);
/* The type of the frame of which a part has come; 0: none. */
uint8_t link_frame_pending(const struct link_frame_reader *reader);
void link_frame_reader_done(struct link_frame_reader *reader);

/* Big-endian numbers. */
void link_frame_u32(struct buf *out, uint32_t number);
void link_frame_u64(struct buf *out, uint64_t number);
uint32_t link_frame_get_u32(const uint8_t *at);
uint64_t link_frame_get_u64(const uint8_t *at);

#endif
