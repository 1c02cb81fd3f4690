/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_PB_H
#define API_PB_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

#include <protobuf-c/protobuf-c.h>

/* protobuf-c over an arena: what is decoded lives as long as the call. */
ProtobufCAllocator *pb_allocator(struct arena *arena, ProtobufCAllocator *out); /* fills and answers `out` */

/* INTERNAL as grpc-go ("grpc: error unmarshalling request: ...") for what is no such message. Unknown fields are dropped. */
enum code pb_decode(const ProtobufCMessageDescriptor *type, struct span bytes, struct arena *arena, void **out, struct err *err);
void pb_encode(const void *message, struct buf *out); /* appended */

/* A new message in the arena, as its *_INIT. */
void *pb_new(const ProtobufCMessageDescriptor *type, struct arena *arena);

#endif
