/* SPDX-License-Identifier: Apache-2.0 */
/* Driven by protobuf-c's descriptors, so that a new message needs nothing here. Nesting is that of the types: a
 * handful. */
#include "cmd/print_json.h"

#include "base/gojson.h"

#include "types.pb-c.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

static const void *at(const ProtobufCMessage *message, unsigned offset)
{
	return (const char *)message + offset;
}

static bool is_repeated(const ProtobufCFieldDescriptor *field)
{
	return field->label == PROTOBUF_C_LABEL_REPEATED;
}

static size_t count_of(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	return *(const size_t *)at(message, field->quantifier_offset);
}

/* Fields that 1.13.3 does not know. */
static bool is_later(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	return message->descriptor == &pb__agent__descriptor && strcmp(field->name, "agent_version") == 0;
}

static bool is_empty_string(const void *member)
{
	const char *text = *(const char *const *)member;

	return text == NULL || text[0] == '\0';
}

/* A message that is not set, the other arms of a oneof: what protobuf's JSON shows as null, and nobody sees. */
static bool is_absent(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	const void *member = at(message, field->offset);

	if (is_repeated(field))
		return false;
	if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
	    *(const uint32_t *)at(message, field->quantifier_offset) != field->id)
		return true;
	if (field->type == PROTOBUF_C_TYPE_MESSAGE)
		return *(const ProtobufCMessage *const *)member == NULL;
	return is_later(message, field) && is_empty_string(member);
}

static void put_enum(struct buf *out, const ProtobufCEnumDescriptor *type, int value)
{
	const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value(type, value);

	if (known != NULL)
		json_put_string(out, known->name);
	else
		buf_printf(out, "%d", value);
}

static void put_bytes(struct buf *out, const ProtobufCBinaryData *bytes)
{
	buf_put(out, '"');
	buf_base64(out, bytes->data, bytes->len, 0);
	buf_put(out, '"');
}

/* The value at `member`; answers its size in a list. */
static size_t put_value(struct buf *out, const ProtobufCFieldDescriptor *field, const void *member)
{
	const char *text;

	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
		buf_printf(out, "%" PRId32, *(const int32_t *)member);
		return sizeof(int32_t);
	case PROTOBUF_C_TYPE_INT64:
		buf_printf(out, "\"%" PRId64 "\"", *(const int64_t *)member);
		return sizeof(int64_t);
	case PROTOBUF_C_TYPE_UINT64:
		buf_printf(out, "\"%" PRIu64 "\"", *(const uint64_t *)member);
		return sizeof(uint64_t);
	case PROTOBUF_C_TYPE_BOOL:
		buf_puts(out, *(const protobuf_c_boolean *)member ? "true" : "false");
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_ENUM:
		put_enum(out, field->descriptor, *(const int *)member);
		return sizeof(int);
	case PROTOBUF_C_TYPE_STRING:
		text = *(const char *const *)member;
		json_put_string(out, text != NULL ? text : "");
		return sizeof text;
	case PROTOBUF_C_TYPE_BYTES:
		put_bytes(out, member);
		return sizeof(ProtobufCBinaryData);
	default:
		assert(field->type == PROTOBUF_C_TYPE_MESSAGE);
		print_json(out, *(const ProtobufCMessage *const *)member);
		return sizeof(ProtobufCMessage *);
	}
}

static void put_list(struct buf *out, const ProtobufCFieldDescriptor *field, const char *items, size_t n)
{
	buf_put(out, '[');
	for (size_t i = 0; i < n; i++) {
		if (i > 0)
			buf_put(out, ',');
		items += put_value(out, field, items);
	}
	buf_put(out, ']');
}

void print_json(struct buf *out, const ProtobufCMessage *message)
{
	const ProtobufCMessageDescriptor *type = message->descriptor;
	bool any = false;

	buf_put(out, '{');
	for (unsigned i = 0; i < type->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &type->fields[type->fields_sorted_by_name[i]];
		const void *member = at(message, field->offset);

		if (is_absent(message, field))
			continue;
		buf_printf(out, "%s\"%s\":", any ? "," : "", field->name);
		any = true;
		if (is_repeated(field))
			put_list(out, field, *(const char *const *)member, count_of(message, field));
		else
			put_value(out, field, member);
	}
	buf_put(out, '}');
}
