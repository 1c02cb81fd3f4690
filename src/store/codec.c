/* SPDX-License-Identifier: Apache-2.0 */
/* Messages as bytes: decoding into an arena, dropping what we do not know, and walking encoded entries without decoding
 * them. */
#include "store/codec.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

static void *alloc_in_arena(void *arena, size_t size)
{
	return arena_alloc(arena, size);
}

static void free_in_arena(void *arena __attribute__((unused)), void *held __attribute__((unused)))
{
}

/* Our messages nest by their descriptors, which have no cycle: the depth is that of the schema. */
static void drop_unknown(ProtobufCMessage *message)
{
	const ProtobufCMessageDescriptor *type = message->descriptor;

	message->n_unknown_fields = 0;
	message->unknown_fields = NULL;
	for (unsigned i = 0; i < type->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &type->fields[i];
		char *at = (char *)message + field->offset;

		if (field->type != PROTOBUF_C_TYPE_MESSAGE)
			continue;
		if (field->label == PROTOBUF_C_LABEL_REPEATED) {
			size_t n = *(size_t *)((char *)message + field->quantifier_offset);
			ProtobufCMessage **items = *(ProtobufCMessage ***)at;

			for (size_t k = 0; k < n; k++)
				drop_unknown(items[k]);
		} else if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0 ||
			   *(uint32_t *)((char *)message + field->quantifier_offset) == field->id) {
			if (*(ProtobufCMessage **)at != NULL)
				drop_unknown(*(ProtobufCMessage **)at);
		}
	}
}

void *message_unpack(const ProtobufCMessageDescriptor *type, struct span bytes, struct arena *arena)
{
	ProtobufCAllocator allocator = { alloc_in_arena, free_in_arena, arena };
	ProtobufCMessage *message = protobuf_c_message_unpack(type, &allocator, bytes.len, bytes.data);

	if (message != NULL)
		drop_unknown(message);
	return message;
}

void message_pack(const void *message, struct buf *out)
{
	size_t size = protobuf_c_message_get_packed_size(message);

	buf_reserve(out, size);
	out->len += protobuf_c_message_pack(message, out->data + out->len);
}

struct span message_pack_arena(const void *message, struct arena *arena)
{
	size_t size = protobuf_c_message_get_packed_size(message);
	uint8_t *bytes = arena_alloc(arena, size);

	protobuf_c_message_pack(message, bytes);
	return (struct span){ bytes, size };
}

void *message_copy(const void *message, struct arena *arena)
{
	return message_unpack(((const ProtobufCMessage *)message)->descriptor, message_pack_arena(message, arena),
			      arena);
}

/* The walker. Wire types 0 (varint) and 2 (bytes) are all that an Entry has. */
struct field {
	uint32_t number;
	uint64_t varint;
	struct span bytes;
};

static bool varint_next(struct span *at, uint64_t *out)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < 10 && i < at->len; i++) {
		value |= (uint64_t)(at->data[i] & 0x7f) << (7 * i);
		if ((at->data[i] & 0x80) == 0) {
			at->data += i + 1;
			at->len -= i + 1;
			*out = value;
			return true;
		}
	}
	return false;
}

static bool field_next(struct span *at, struct field *out)
{
	uint64_t tag, len;

	if (!varint_next(at, &tag))
		return false;
	*out = (struct field){ .number = (uint32_t)(tag >> 3) };
	if ((tag & 7) == 0)
		return varint_next(at, &out->varint);
	if ((tag & 7) != 2 || !varint_next(at, &len) || len > at->len)
		return false;
	out->bytes = (struct span){ at->data, (size_t)len };
	at->data += len;
	at->len -= len;
	return true;
}

bool message_next(struct span *at, uint32_t number, struct span *value)
{
	struct field field;

	while (at->len > 0) {
		if (!field_next(at, &field)) {
			at->len = 0;
			return false;
		}
		if (field.number == number) {
			*value = field.bytes;
			return true;
		}
	}
	return false;
}

static bool two_strings(struct span message, struct span *one, struct span *two)
{
	struct field field;

	*one = *two = (struct span){ NULL, 0 };
	while (message.len > 0) {
		if (!field_next(&message, &field))
			return false;
		if (field.number == 1)
			*one = field.bytes;
		else if (field.number == 2)
			*two = field.bytes;
	}
	return true;
}

bool selector_peek(struct span selector, struct span *type, struct span *value)
{
	return two_strings(selector, type, value);
}

bool entry_peek(struct span blob, struct entry_peek *out)
{
	struct field field;

	*out = (struct entry_peek){ 0 };
	while (blob.len > 0) {
		if (!field_next(&blob, &field))
			return false;
		switch (field.number) {
		case 1:
			out->id = field.bytes;
			break;
		case 2:
			if (!two_strings(field.bytes, &out->spiffe_td, &out->spiffe_path))
				return false;
			break;
		case 3:
			if (!two_strings(field.bytes, &out->parent_td, &out->parent_path))
				return false;
			break;
		case 7:
			out->admin = field.varint != 0;
			break;
		case 8:
			out->downstream = field.varint != 0;
			break;
		case 9:
			out->expires_at = (int64_t)field.varint;
			break;
		case 11:
			out->revision = (int64_t)field.varint;
			break;
		case 14:
			out->hint = field.bytes;
			break;
		case 15:
			out->created_at = (int64_t)field.varint;
			break;
		default:
			break;
		}
	}
	return true;
}

static int compare_selectors(const void *left, const void *right)
{
	const Pb__Selector *const *a = left, *const *b = right;
	int types = strcmp((*a)->type, (*b)->type);

	return types != 0 ? types : strcmp((*a)->value, (*b)->value);
}

static int compare_strings(const void *left, const void *right)
{
	return strcmp(*(const char *const *)left, *(const char *const *)right);
}

void selectors_sort(Pb__Selector **selectors, size_t n)
{
	if (n > 1)
		qsort(selectors, n, sizeof *selectors, compare_selectors);
}

void strings_sort(const char **strings, size_t n)
{
	if (n > 1)
		qsort(strings, n, sizeof *strings, compare_strings);
}

size_t selectors_set(Pb__Selector *const *selectors, size_t n, struct arena *arena, Pb__Selector ***out)
{
	Pb__Selector **set = arena_memdup(arena, selectors, n * sizeof *set);
	size_t kept = 0;

	selectors_sort(set, n);
	for (size_t i = 0; i < n; i++)
		if (kept == 0 || compare_selectors(&set[kept - 1], &set[i]) != 0)
			set[kept++] = set[i];
	*out = set;
	return kept;
}

static bool span_is(struct span span, const char *text)
{
	return strlen(text) == span.len && memcmp(span.data, text, span.len) == 0;
}

static int span_compare(struct span span, const char *text)
{
	size_t len = strlen(text);
	int order = memcmp(span.data != NULL ? (const void *)span.data : "", text, span.len < len ? span.len : len);

	return order != 0 ? order : (span.len > len) - (span.len < len);
}

static bool behaviour_holds(int behaviour, size_t n_row, size_t n_filter, size_t hits)
{
	switch (behaviour) {
	case PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_EXACT:
		return hits == n_row && hits == n_filter;
	case PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_SUBSET:
		return n_row > 0 && hits == n_row;
	case PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_SUPERSET:
		return hits == n_filter;
	case PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_ANY:
		return hits > 0;
	default:
		return false;
	}
}

static bool set_has_selector(const struct selector_set *set, struct span type, struct span value)
{
	size_t low = 0, high = set->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int order = span_compare(type, set->items[mid]->type);

		if (order == 0)
			order = span_compare(value, set->items[mid]->value);
		if (order == 0)
			return true;
		if (order < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return false;
}

bool selectors_match(struct span message, uint32_t field, const struct selector_set *filter, int behaviour)
{
	size_t n = 0, hits = 0;
	struct span item, type, value;

	while (message_next(&message, field, &item)) {
		n++;
		if (selector_peek(item, &type, &value) && set_has_selector(filter, type, value))
			hits++;
	}
	return behaviour_holds(behaviour, n, filter->n, hits);
}

bool strings_match(struct span message, uint32_t field, const struct string_set *filter, int behaviour)
{
	size_t n = 0, hits = 0;
	struct span item;

	while (message_next(&message, field, &item)) {
		n++;
		for (size_t i = 0; i < filter->n; i++)
			if (span_is(item, filter->items[i])) {
				hits++;
				break;
			}
	}
	return behaviour_holds(behaviour, n, filter->n, hits);
}

const char *spiffe_id_text(const Pb__SPIFFEID *id, struct arena *arena)
{
	if (id == NULL)
		return "";
	return arena_printf(arena, "spiffe://%s%s", id->trust_domain, id->path);
}

bool spiffe_id_split(const char *text, struct arena *arena, Pb__SPIFFEID *out)
{
	static const char scheme[] = "spiffe://";
	const char *td = text + sizeof scheme - 1, *path;

	if (strncmp(text, scheme, sizeof scheme - 1) != 0)
		return false;
	path = td + strcspn(td, "/");
	*out = (Pb__SPIFFEID)PB__SPIFFEID__INIT;
	out->trust_domain = arena_strndup(arena, td, (size_t)(path - td));
	out->path = arena_strdup(arena, path);
	return true;
}

struct hasher {
	EVP_MD *sha256;
	EVP_MD_CTX *ctx;
};

struct hasher *hasher_new(void)
{
	struct hasher *hasher = xcalloc(1, sizeof *hasher);

	hasher->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	hasher->ctx = EVP_MD_CTX_new();
	if (hasher->sha256 == NULL || hasher->ctx == NULL)
		abort(); /* no SHA-256: no state */
	return hasher;
}

void hasher_free(struct hasher *hasher)
{
	if (hasher == NULL)
		return;
	EVP_MD_CTX_free(hasher->ctx);
	EVP_MD_free(hasher->sha256);
	free(hasher);
}

void hasher_begin(struct hasher *hasher)
{
	if (EVP_DigestInit_ex2(hasher->ctx, hasher->sha256, NULL) != 1)
		abort();
}

void hasher_add(struct hasher *hasher, const void *data, size_t len)
{
	if (EVP_DigestUpdate(hasher->ctx, data, len) != 1)
		abort();
}

void hasher_end(struct hasher *hasher, uint8_t out[32])
{
	if (EVP_DigestFinal_ex(hasher->ctx, out, NULL) != 1)
		abort();
}
