/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_MASK_H
#define API_MASK_H

#include "base/buf.h"
#include "types.pb-c.h"

#include <stdbool.h>
#include <stdint.h>

/* Output masks (contract server-api.md 4.0), on decoded messages and on encoded ones. A set has bit n for field n; no
 * mask is all fields; the identity (id, trust_domain: field 1) is in every set. */
enum { MASK_ALL = -1 };

uint32_t mask_of_entry(const Pb__EntryMask *mask);
uint32_t mask_of_bundle(const Pb__BundleMask *mask);
uint32_t mask_of_relationship(const Pb__FederationRelationshipMask *mask);

static inline bool mask_has(uint32_t set, unsigned field)
{
	return set >> field & 1;
}

/* Empties the fields that are not in the set. */
void mask_entry(Pb__Entry *entry, uint32_t set);
void mask_bundle(Pb__Bundle *bundle, uint32_t set);
void mask_relationship(Pb__FederationRelationship *relationship, uint32_t set);

/* Appends those top-level fields of an encoded message (of fields below 32) that are in the set: nothing is decoded,
 * what is kept is copied in runs. False, and nothing appended, for bytes that are no message or too ragged for our
 * encoder to have written them. */
bool mask_copy(struct buf *out, struct span message, uint32_t set);
/* The same as an embedded message: field `number` (below 16) of what `out` holds. */
bool mask_embed(struct buf *out, unsigned number, struct span message, uint32_t set);

/* What a client compares of an encoded Entry. False as above. */
struct entry_version {
	struct span id;
	uint64_t revision, created_at;
};
bool mask_entry_version(struct span entry, struct entry_version *out);

/* Field numbers and values for those who write messages by hand. */
void wire_varint(struct buf *out, uint64_t value);
void wire_bytes(struct buf *out, unsigned number, const void *data, size_t len);
void wire_text(struct buf *out, unsigned number, const char *text); /* nothing for "" */
void wire_number(struct buf *out, unsigned number, uint64_t value); /* nothing for 0 */

#endif
