/* SPDX-License-Identifier: Apache-2.0 */
/* Frames. A frame that lies in the given bytes whole is handed out where it is; only one that came in pieces is put
 * together in a buffer, which grows by what has come. */
#include "raft/link_frame.h"

#include <assert.h>
#include <string.h>

enum { PART_MAX = 64 << 10, KEEP = 256 << 10 };

size_t link_frame_max(uint8_t type)
{
	static const uint32_t max[] = {
		[LINK_FRAME_HELLO] = 4 << 10,      [LINK_FRAME_WELCOME] = 4 << 10,
		[LINK_FRAME_REFUSE] = 4 << 10,     [LINK_FRAME_RAFT] = LINK_MESSAGE_MAX,
		[LINK_FRAME_REQUEST] = PART_MAX,   [LINK_FRAME_REPLY] = PART_MAX,
		[LINK_FRAME_PART] = PART_MAX,      [LINK_FRAME_COPY] = PART_MAX + 64,
		[LINK_FRAME_COPY_DATA] = PART_MAX, [LINK_FRAME_COPY_END] = 32,
		[LINK_FRAME_COPY_DONE] = 4 << 10,
	};

	return type < sizeof max / sizeof max[0] ? max[type] : 0;
}

void link_frame_u32(struct buf *out, uint32_t number)
{
	for (int shift = 24; shift >= 0; shift -= 8)
		buf_put(out, (uint8_t)(number >> shift));
}

void link_frame_u64(struct buf *out, uint64_t number)
{
	link_frame_u32(out, (uint32_t)(number >> 32));
	link_frame_u32(out, (uint32_t)number);
}

uint32_t link_frame_get_u32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

uint64_t link_frame_get_u64(const uint8_t *at)
{
	return (uint64_t)link_frame_get_u32(at) << 32 | link_frame_get_u32(at + 4);
}

void link_frame_header(struct buf *out, enum link_frame_type type, size_t len)
{
	assert(len <= link_frame_max((uint8_t)type));
	buf_put(out, (uint8_t)type);
	link_frame_u32(out, (uint32_t)len);
}

void link_frame_put(struct buf *out, enum link_frame_type type, const void *body, size_t len)
{
	link_frame_header(out, type, len);
	buf_append(out, body, len);
}

/* The first bytes of a frame say everything that can be wrong with it. */
static bool header_ok(uint8_t type, uint32_t len, uint32_t allowed, struct err *err)
{
	if (link_frame_max(type) == 0 || type >= 32 || (allowed & UINT32_C(1) << type) == 0) {
		err_set(err, CODE_INVALID_ARGUMENT, "a frame of type %u does not belong here", type);
		return false;
	}
	if (len > link_frame_max(type)) {
		err_set(err, CODE_INVALID_ARGUMENT, "a frame of type %u claims %u bytes, %zu are allowed", type, len,
			link_frame_max(type));
		return false;
	}
	return true;
}

bool link_frame_next(struct link_frame_reader *reader, const uint8_t **data, size_t *len, uint32_t allowed,
		     struct link_frame *out, bool *bad, struct err *err)
{
	size_t n, size;

	*bad = false;
	if (reader->have == LINK_FRAME_HEADER && reader->body.len == link_frame_get_u32(reader->header + 1)) {
		reader->have = reader->body.len = 0; /* the last one was put together here, and has been seen */
		if (reader->body.cap > KEEP)
			buf_done(&reader->body);
	}
	n = LINK_FRAME_HEADER - reader->have < *len ? LINK_FRAME_HEADER - reader->have : *len;
	memcpy(reader->header + reader->have, *data, n);
	reader->have += n;
	*data += n;
	*len -= n;
	if (reader->have > 0 && (link_frame_max(reader->header[0]) == 0 || reader->have == LINK_FRAME_HEADER) &&
	    !header_ok(reader->header[0],
		       reader->have == LINK_FRAME_HEADER ? link_frame_get_u32(reader->header + 1) : 0, allowed, err)) {
		*bad = true;
		return false;
	}
	if (reader->have < LINK_FRAME_HEADER)
		return false;
	size = link_frame_get_u32(reader->header + 1);
	out->type = reader->header[0];
	if (reader->body.len == 0 && *len >= size) {
		out->body = (struct span){ *data, size };
		*data += size;
		*len -= size;
		reader->have = 0;
		return true;
	}
	n = size - reader->body.len < *len ? size - reader->body.len : *len;
	buf_append(&reader->body, *data, n);
	*data += n;
	*len -= n;
	if (reader->body.len < size)
		return false;
	out->body = (struct span){ reader->body.data, size };
	return true;
}

uint8_t link_frame_pending(const struct link_frame_reader *reader)
{
	bool seen = reader->have == LINK_FRAME_HEADER && reader->body.len == link_frame_get_u32(reader->header + 1);

	return reader->have < LINK_FRAME_HEADER || seen ? 0 : reader->header[0];
}

void link_frame_reader_done(struct link_frame_reader *reader)
{
	buf_done(&reader->body);
	reader->have = 0;
}
