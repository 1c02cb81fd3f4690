/* SPDX-License-Identifier: Apache-2.0 */
/* Messages from bytes and to bytes. The decoder walks the wire format once and writes straight into the structs that
 * protoc-c laid out. It recurses as deep as our types nest (a handful: none holds itself); what is unknown is skipped
 * without recursion. */
#include "api/pb.h"

#include "base/limits.h"
#include "base/utf8.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_GROUP = 3, WIRE_END_GROUP = 4, WIRE_32 = 5 };

enum { FIRST_ITEMS = 4, GROUPS_MAX = 100 }; /* a repeated field's first array; groups within groups that are skipped */

struct reader {
	const uint8_t *at, *end;
	struct arena *arena;
	size_t arena_limit; /* of arena_used */
	struct err *err;
};

/* --- protobuf-c's allocator --- */

static void *from_arena(void *arena, size_t size)
{
	return arena_alloc(arena, size);
}

static void keep(void *arena, void *held)
{
	(void)arena, (void)held; /* it goes with the arena */
}

ProtobufCAllocator *pb_allocator(struct arena *arena, ProtobufCAllocator *out)
{
	*out = (ProtobufCAllocator){ .alloc = from_arena, .free = keep, .allocator_data = arena };
	return out;
}

/* --- the wire --- */

static enum code malformed(struct reader *r)
{
	return err_set(r->err, CODE_INTERNAL, "proto: cannot parse invalid wire-format data");
}

static enum code get_varint(struct reader *r, uint64_t *out)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < 70 && r->at < r->end; shift += 7) {
		uint8_t byte = *r->at++;

		if (shift == 63 && byte > 1)
			break; /* above 64 bits */
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*out = value;
			return CODE_OK;
		}
	}
	return malformed(r);
}

static enum code get_fixed(struct reader *r, size_t size, uint64_t *out)
{
	uint64_t value = 0;

	if ((size_t)(r->end - r->at) < size)
		return malformed(r);
	for (size_t i = size; i-- > 0;)
		value = value << 8 | r->at[i];
	r->at += size;
	*out = value;
	return CODE_OK;
}

static enum code get_bytes(struct reader *r, struct span *out)
{
	uint64_t len = 0;

	TRY(get_varint(r, &len));
	if (len > (uint64_t)(r->end - r->at))
		return malformed(r);
	*out = (struct span){ r->at, (size_t)len };
	r->at += len;
	return CODE_OK;
}

static enum code get_key(struct reader *r, uint32_t *field, enum wire *wire)
{
	uint64_t key = 0;

	TRY(get_varint(r, &key));
	if (key >> 3 == 0 || key >> 3 > 0x1fffffff || (key & 7) > WIRE_32)
		return malformed(r);
	*field = (uint32_t)(key >> 3);
	*wire = (enum wire)(key & 7);
	return CODE_OK;
}

static enum code skip(struct reader *r, uint32_t field, enum wire wire)
{
	uint32_t open[GROUPS_MAX]; /* the numbers of the groups that we are in */
	size_t depth = 0;
	uint64_t number;
	struct span bytes;

	for (;;) {
		if (wire == WIRE_VARINT)
			TRY(get_varint(r, &number));
		else if (wire == WIRE_64 || wire == WIRE_32)
			TRY(get_fixed(r, wire == WIRE_64 ? 8 : 4, &number));
		else if (wire == WIRE_BYTES)
			TRY(get_bytes(r, &bytes));
		else if (wire == WIRE_GROUP && depth < GROUPS_MAX)
			open[depth++] = field;
		else if (wire != WIRE_END_GROUP || depth == 0 || open[--depth] != field)
			return malformed(r);
		if (depth == 0)
			return CODE_OK;
		TRY(get_key(r, &field, &wire));
	}
}

/* --- fields --- */

static size_t size_of(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return 8;
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	default:
		return 4;
	}
}

static enum wire wire_of(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return WIRE_64;
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_FLOAT:
		return WIRE_32;
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_BYTES:
	case PROTOBUF_C_TYPE_MESSAGE:
		return WIRE_BYTES;
	default:
		return WIRE_VARINT;
	}
}

static enum code get_number(struct reader *r, ProtobufCType type, void *to)
{
	uint64_t value = 0;
	enum wire wire = wire_of(type);
	uint32_t small;

	TRY(wire == WIRE_VARINT ? get_varint(r, &value) : get_fixed(r, wire == WIRE_64 ? 8 : 4, &value));
	if (type == PROTOBUF_C_TYPE_BOOL) {
		*(protobuf_c_boolean *)to = value != 0;
		return CODE_OK;
	}
	if (type == PROTOBUF_C_TYPE_SINT32)
		value = (uint32_t)value >> 1 ^ (0u - ((uint32_t)value & 1));
	else if (type == PROTOBUF_C_TYPE_SINT64)
		value = value >> 1 ^ (UINT64_C(0) - (value & 1));
	small = (uint32_t)value;
	memcpy(to, size_of(type) == 8 ? (void *)&value : (void *)&small, size_of(type));
	return CODE_OK;
}

static enum code check_text(struct reader *r, struct span text)
{
	size_t at = 0;

	while (at < text.len && text.data[at] - 1u < 0x7f) /* 1..127 */
		at++;
	while (at < text.len) {
		uint32_t rune;
		size_t size = utf8_next((const char *)text.data + at, text.len - at, &rune);

		if (size == 0)
			return err_set(r->err, CODE_INTERNAL, "string field contains invalid UTF-8");
		if (rune == 0)
			return err_set(r->err, CODE_INTERNAL, "string field contains a NUL byte");
		at += size;
	}
	return CODE_OK;
}

static enum code room(struct reader *r)
{
	if (arena_used(r->arena) <= r->arena_limit)
		return CODE_OK;
	return err_set(r->err, CODE_RESOURCE_EXHAUSTED, "message takes more than %d bytes of memory", LIMIT_DECODED);
}

static enum code get_message(struct reader *r, const ProtobufCMessageDescriptor *type, void *message);

static enum code get_value(struct reader *r, const ProtobufCFieldDescriptor *field, void *to)
{
	struct span bytes = { 0 };
	const uint8_t *end = r->end;
	ProtobufCMessage **message = to;
	enum code rc;

	if (wire_of(field->type) != WIRE_BYTES)
		return get_number(r, field->type, to);
	TRY(get_bytes(r, &bytes));
	TRY(room(r));
	if (field->type == PROTOBUF_C_TYPE_STRING) {
		TRY(check_text(r, bytes));
		*(const char **)to = bytes.len > 0 ? arena_strndup(r->arena, (const char *)bytes.data, bytes.len)
						   : (const char *)protobuf_c_empty_string;
		return CODE_OK;
	}
	if (field->type == PROTOBUF_C_TYPE_BYTES) {
		*(ProtobufCBinaryData *)to =
			(ProtobufCBinaryData){ bytes.len,
					       bytes.len > 0 ? arena_memdup(r->arena, bytes.data, bytes.len) : NULL };
		return CODE_OK;
	}
	if (*message == NULL)
		*message = pb_new(field->descriptor, r->arena);
	r->at = bytes.data;
	r->end = bytes.data + bytes.len;
	rc = get_message(r, field->descriptor, *message);
	r->at = r->end;
	r->end = end;
	return rc;
}

/* Room for one more item. Arrays double, so that the count tells the capacity. */
static void *next_item(struct reader *r, const ProtobufCFieldDescriptor *field, void *message)
{
	size_t *n = (size_t *)((char *)message + field->quantifier_offset);
	void **array = (void **)((char *)message + field->offset);
	size_t size = size_of(field->type);

	if (*n == 0) {
		*array = arena_alloc(r->arena, FIRST_ITEMS * size);
	} else if (*n >= FIRST_ITEMS && (*n & (*n - 1)) == 0) {
		void *more = arena_alloc(r->arena, 2 * *n * size);

		memcpy(more, *array, *n * size);
		*array = more;
	}
	return memset((char *)*array + *n * size, 0, size);
}

static enum code get_item(struct reader *r, const ProtobufCFieldDescriptor *field, void *message)
{
	TRY(get_value(r, field, next_item(r, field, message)));
	++*(size_t *)((char *)message + field->quantifier_offset);
	return CODE_OK;
}

static enum code get_packed(struct reader *r, const ProtobufCFieldDescriptor *field, void *message)
{
	struct span bytes = { 0 };
	const uint8_t *end = r->end;

	TRY(get_bytes(r, &bytes));
	r->at = bytes.data;
	r->end = bytes.data + bytes.len;
	while (r->at < r->end) {
		TRY(room(r));
		TRY(get_item(r, field, message));
	}
	r->end = end;
	return CODE_OK;
}

static enum code get_single(struct reader *r, const ProtobufCFieldDescriptor *field, void *message)
{
	void *to = (char *)message + field->offset;

	if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
		uint32_t *which = (uint32_t *)((char *)message + field->quantifier_offset);

		if (*which != field->id)
			memset(to, 0, size_of(field->type));
		*which = field->id;
	}
	return get_value(r, field, to);
}

static enum code get_message(struct reader *r, const ProtobufCMessageDescriptor *type, void *message)
{
	unsigned guess = 0; /* fields mostly come in their order */

	while (r->at < r->end) {
		const ProtobufCFieldDescriptor *field;
		uint32_t number = 0;
		enum wire wire = WIRE_VARINT;

		TRY(get_key(r, &number, &wire));
		while (guess < type->n_fields && type->fields[guess].id < number)
			guess++;
		if (guess < type->n_fields && type->fields[guess].id == number)
			field = &type->fields[guess];
		else
			field = protobuf_c_message_descriptor_get_field(type, number);
		if (field == NULL)
			TRY(skip(r, number, wire));
		else if (field->label != PROTOBUF_C_LABEL_REPEATED && wire == wire_of(field->type))
			TRY(get_single(r, field, message));
		else if (field->label == PROTOBUF_C_LABEL_REPEATED && wire == wire_of(field->type))
			TRY(get_item(r, field, message));
		else if (field->label == PROTOBUF_C_LABEL_REPEATED && wire == WIRE_BYTES)
			TRY(get_packed(r, field, message));
		else
			TRY(skip(r, number, wire));
	}
	return CODE_OK;
}

/* --- the interface --- */

void *pb_new(const ProtobufCMessageDescriptor *type, struct arena *arena)
{
	void *message = arena_alloc(arena, type->sizeof_message);

	protobuf_c_message_init(type, message);
	return message;
}

enum code pb_parse(const ProtobufCMessageDescriptor *type, struct span bytes, struct arena *arena, void **out,
		   struct err *err)
{
	struct reader reader = { .at = bytes.data, .end = bytes.data + bytes.len, .arena = arena, .err = err };
	void *message = pb_new(type, arena);

	reader.arena_limit = arena_used(arena) + LIMIT_DECODED;
	TRY(get_message(&reader, type, message));
	*out = message;
	return CODE_OK;
}

enum code pb_decode(const ProtobufCMessageDescriptor *type, struct span bytes, struct arena *arena, void **out,
		    struct err *err)
{
	enum code rc = pb_parse(type, bytes, arena, out, err);

	return rc == CODE_OK ? rc : err_wrap(err, rc, "grpc: error unmarshalling request");
}

void pb_encode(const void *message, struct buf *out)
{
	size_t size = protobuf_c_message_get_packed_size(message);

	buf_reserve(out, size);
	out->len += protobuf_c_message_pack(message, out->data + out->len);
}
