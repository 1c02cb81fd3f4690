/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_MIRROR_H
#define RAFT_MIRROR_H

#include "raft/conf.h"
#include "raft/entry.h"

/* What the consensus library does not keep or does not tell: the term of each index of the log, the recent entries, and
 * the configurations. In memory, of the raft loop alone.
 *
 *     offset                 snapshot       mark         last
 *        |  terms known  --------|------------|------------|
 *                   | entries in memory (a byte budget; those above `mark` always) |
 *
 * Invariants: offset <= snapshot.index <= last or the log is empty and last == snapshot.index; entries in memory are a
 * suffix of the log; the oldest configuration held is in force at the mark, the newest one is the log's last. */
struct mirror;

/* What a copy of the state, and the state file itself, says of itself (availability.md V11). */
struct core_triple {
	uint64_t index, term;
	uint64_t conf_index; /* of the change that made `conf`, or the index at which a state was made to begin with it
			      */
	struct conf conf;
};

struct mirror_conf {
	uint64_t index;
	struct conf conf;
};

struct mirror *mirror_new(size_t budget);
void mirror_free(struct mirror *mirror);

/* Fills an empty mirror: the state's triple (index 0: none) and the log behind it, entries[0] at first <= index + 1,
 * contiguous. Takes references. */
void mirror_start(struct mirror *mirror, const struct core_triple *state, uint64_t first, struct entry *const *entries,
		  size_t n);
/* Drops everything from `first` on, then appends. Takes references. first > offset and <= last + 1. */
void mirror_write(struct mirror *mirror, uint64_t first, struct entry *const *entries, size_t n);
/* A copy replaces the whole log. */
void mirror_restore(struct mirror *mirror, const struct core_triple *state);
/* The state is durable at `index`; what lies more than `trailing` below it is forgotten. */
void mirror_snapshot(struct mirror *mirror, uint64_t index, uint64_t trailing);
/* Entries up to `index` have been handed on for applying: only above it must they stay in memory. */
void mirror_mark(struct mirror *mirror, uint64_t index);

uint64_t mirror_last(const struct mirror *mirror);
uint64_t mirror_last_term(const struct mirror *mirror);
uint64_t mirror_snapshot_index(const struct mirror *mirror);
/* The lowest index whose entry is in the log (maybe only on disk). */
uint64_t mirror_first(const struct mirror *mirror);
uint64_t mirror_term_of(const struct mirror *mirror, uint64_t index); /* 0: not known */
size_t mirror_open_bytes(const struct mirror *mirror);                /* of the entries above the mark */

struct entry *mirror_entry(const struct mirror *mirror, uint64_t index); /* borrowed; NULL: not in memory */
/* As many entries from `first` on as are in memory, at most `max` and `max_bytes` (but one at least). Borrowed. */
size_t mirror_entries_at(const struct mirror *mirror, uint64_t first, size_t max, size_t max_bytes, struct entry **out);

/* The configuration in force at `index`; NULL when it is not known (an empty log). */
const struct mirror_conf *mirror_conf_at(const struct mirror *mirror, uint64_t index);
const struct mirror_conf *mirror_conf_last(const struct mirror *mirror);
/* The first one above `index`; NULL: none. */
const struct mirror_conf *mirror_conf_after(const struct mirror *mirror, uint64_t index);

#endif
