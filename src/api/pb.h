/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_PB_H
#define API_PB_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

#include <protobuf-c/protobuf-c.h>

/* Messages of protobuf-c over an arena: what is decoded lives as long as the call. Decoding is our own walk over protobuf-c's
 * descriptors and agrees with Go about what is a message: unknown fields and fields of another wire type are dropped, a message
 * that comes twice is merged, strings are UTF-8. One thing more: a string with a NUL in it is refused, as C would cut it. What it
 * may take of the arena is limited (LIMIT_DECODED). */

/* protobuf-c's allocator over an arena, for its own functions. Fills and answers `out`. */
ProtobufCAllocator *pb_allocator(struct arena *arena, ProtobufCAllocator *out);

/* Go's words for what is no such message: INTERNAL "proto: cannot parse invalid wire-format data" or "string field contains
 * invalid UTF-8". Strings and bytes are copied: `bytes` need not live on. */
enum code pb_parse(const ProtobufCMessageDescriptor *type, struct span bytes, struct arena *arena, void **out, struct err *err);

/* The same with the prefix of grpc-go's unary calls: "grpc: error unmarshalling request: ...". */
enum code pb_decode(const ProtobufCMessageDescriptor *type, struct span bytes, struct arena *arena, void **out, struct err *err);

void pb_encode(const void *message, struct buf *out); /* appended */

/* A new message in the arena, as its *_INIT. */
void *pb_new(const ProtobufCMessageDescriptor *type, struct arena *arena);

#endif
