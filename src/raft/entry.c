/* SPDX-License-Identifier: Apache-2.0 */
/* Entries of the log: see entry.h. */
#include "raft/entry.h"

#include "base/arena.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct entry *entry_new(uint64_t index, uint64_t term, uint8_t type, const void *data, size_t len)
{
	struct entry *entry;

	assert(len <= UINT32_MAX);
	entry = xmalloc(sizeof(*entry) + len);
	atomic_init(&entry->refs, 1);
	entry->type = type;
	entry->len = (uint32_t)len;
	entry->index = index;
	entry->term = term;
	if (data != NULL)
		memcpy(entry->data, data, len);
	return entry;
}

struct entry *entry_ref(struct entry *entry)
{
	atomic_fetch_add_explicit(&entry->refs, 1, memory_order_relaxed);
	return entry;
}

void entry_unref(struct entry *entry)
{
	if (entry != NULL && atomic_fetch_sub_explicit(&entry->refs, 1, memory_order_acq_rel) == 1)
		free(entry);
}
