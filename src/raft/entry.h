/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_ENTRY_H
#define RAFT_ENTRY_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* One entry of the log. It never changes once it is made; the raft loop, the log's thread and the applying thread share
 * it by references. `type` carries the numbers of the consensus library, which are those of the log and of the wire. */
enum {
	ENTRY_COMMAND = 1, /* a Batch (batch.proto) */
	ENTRY_BARRIER = 2, /* a new leader's own: 8 zero bytes, nothing to apply */
	ENTRY_CHANGE = 3,  /* a configuration (conf.h) */
};

struct entry {
	_Atomic uint32_t refs;
	uint8_t type;
	uint32_t len;
	uint64_t index, term;
	uint8_t data[];
};

/* With one reference and a copy of the bytes; `data` NULL leaves the bytes to the caller to fill in before he shares
 * it. */
struct entry *entry_new(uint64_t index, uint64_t term, uint8_t type, const void *data, size_t len);
struct entry *entry_ref(struct entry *entry);
void entry_unref(struct entry *entry); /* NULL is fine */

/* What an entry counts for in a byte budget. */
static inline size_t entry_cost(const struct entry *entry)
{
	return sizeof(*entry) + entry->len;
}

#endif
