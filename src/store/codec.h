/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_CODEC_H
#define STORE_CODEC_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "types.pb-c.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

/* Messages as bytes. What is read here has no unknown fields afterwards, so that nothing that we do not know gets into
 * a row or an outcome; what is written is canonical: fields by number, no defaults (protobuf-c does so), hence the same
 * bytes on every node. */

/* Decodes into the arena; NULL for what is no such message. */
void *message_unpack(const ProtobufCMessageDescriptor *type, struct span bytes, struct arena *arena);
/* Appends the encoding. */
void message_pack(const void *message, struct buf *out);
struct span message_pack_arena(const void *message, struct arena *arena);
/* A copy that lives in the arena, strings and all. */
void *message_copy(const void *message, struct arena *arena);

/* An encoded spire.api.types.Entry looked at without decoding it: spans into the blob. False for bytes that our encoder
 * did not write. */
struct entry_peek {
	struct span id, spiffe_td, spiffe_path, parent_td, parent_path, hint;
	int64_t revision, created_at, expires_at;
	bool admin, downstream;
};
bool entry_peek(struct span blob, struct entry_peek *out);

/* The values of a repeated field of an encoded message, one by one: `at` begins as the whole message. */
bool message_next(struct span *at, uint32_t field, struct span *value);
bool selector_peek(struct span selector, struct span *type, struct span *value);

/* Sets of selectors. Order: type, then value, bytewise. */
void selectors_sort(Pb__Selector **selectors, size_t n);
void strings_sort(const char **strings, size_t n);
/* Sorted and without duplicates, in the arena. */
size_t selectors_set(Pb__Selector *const *selectors, size_t n, struct arena *arena, Pb__Selector ***out);

/* How a set of a row compares with one of a filter (the same numbers in SelectorMatch and FederatesWithMatch). `field`
 * says which repeated field of the encoded message holds the row's set. False also for an unknown behaviour: check it
 * first. */
struct selector_set {
	Pb__Selector **items;
	size_t n;
};
bool selectors_match(struct span message, uint32_t field, const struct selector_set *filter, int behaviour);
struct string_set {
	const char **items;
	size_t n;
};
bool strings_match(struct span message, uint32_t field, const struct string_set *filter, int behaviour);

enum { ENTRY_SELECTORS = 4, ENTRY_FEDERATES_WITH = 6, SELECTOR_LIST = 1 }; /* field numbers */

/* "spiffe://td/path" in the arena. */
const char *spiffe_id_text(const Pb__SPIFFEID *id, struct arena *arena);
bool spiffe_id_split(const char *text, struct arena *arena, Pb__SPIFFEID *out);

/* SHA-256 with a context that is kept. */
struct hasher;
struct hasher *hasher_new(void);
void hasher_free(struct hasher *hasher);
void hasher_begin(struct hasher *hasher);
void hasher_add(struct hasher *hasher, const void *data, size_t len);
void hasher_end(struct hasher *hasher, uint8_t out[32]);

#endif
