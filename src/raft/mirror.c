/* SPDX-License-Identifier: Apache-2.0 */
/* The mirror of the log: see mirror.h. Terms are kept as runs (first index of each term): they are few. Entries lie in
 * a ring at their index modulo its size. */
#include "raft/mirror.h"

#include "base/arena.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct run {
	uint64_t first, term;
};

struct mirror {
	size_t budget;
	uint64_t offset, last, snapshot_index, snapshot_term, mark;
	struct run *runs;
	size_t n_runs, cap_runs;
	struct entry **ring;
	uint64_t size; /* a power of two */
	uint64_t held; /* the lowest index in memory; last + 1: none */
	size_t bytes, open_bytes;
	struct mirror_conf *confs;
	size_t n_confs, cap_confs;
};

struct mirror *mirror_new(size_t budget)
{
	struct mirror *mirror = xcalloc(1, sizeof(*mirror));

	mirror->budget = budget;
	mirror->size = 64;
	mirror->ring = xcalloc(mirror->size, sizeof(struct entry *));
	mirror->held = 1;
	return mirror;
}

static struct entry **slot(const struct mirror *mirror, uint64_t index)
{
	return &mirror->ring[index & (mirror->size - 1)];
}

static void forget_oldest(struct mirror *mirror)
{
	struct entry **at = slot(mirror, mirror->held);

	mirror->bytes -= entry_cost(*at);
	if (mirror->held > mirror->mark)
		mirror->open_bytes -= entry_cost(*at);
	entry_unref(*at);
	*at = NULL;
	mirror->held++;
}

static void forget_newest(struct mirror *mirror)
{
	struct entry **at = slot(mirror, mirror->last);

	if (mirror->held <= mirror->last) {
		mirror->bytes -= entry_cost(*at);
		if (mirror->last > mirror->mark)
			mirror->open_bytes -= entry_cost(*at);
		entry_unref(*at);
		*at = NULL;
	} else {
		mirror->held--;
	}
	mirror->last--;
}

static void forget_entries(struct mirror *mirror)
{
	while (mirror->held <= mirror->last)
		forget_oldest(mirror);
	assert(mirror->bytes == 0 && mirror->open_bytes == 0);
}

void mirror_free(struct mirror *mirror)
{
	if (mirror == NULL)
		return;
	forget_entries(mirror);
	free(mirror->ring);
	free(mirror->runs);
	free(mirror->confs);
	free(mirror);
}

static void grow_ring(struct mirror *mirror)
{
	uint64_t size = mirror->size * 2;
	struct entry **ring = xcalloc(size, sizeof(struct entry *));

	for (uint64_t i = mirror->held; i <= mirror->last; i++)
		ring[i & (size - 1)] = *slot(mirror, i);
	free(mirror->ring);
	mirror->ring = ring;
	mirror->size = size;
}

static void add_conf(struct mirror *mirror, uint64_t index, const struct conf *conf)
{
	if (mirror->n_confs == mirror->cap_confs) {
		mirror->cap_confs = mirror->cap_confs * 2 + 4;
		mirror->confs = xrealloc(mirror->confs, mirror->cap_confs * sizeof(mirror->confs[0]));
	}
	mirror->confs[mirror->n_confs++] = (struct mirror_conf){ index, *conf };
}

static void append(struct mirror *mirror, struct entry *entry)
{
	uint64_t newest = mirror->n_runs > 0 ? mirror->runs[mirror->n_runs - 1].term : 0;

	assert(entry->index == mirror->last + 1 && entry->term >= newest);
	if (entry->term > newest) {
		if (mirror->n_runs == mirror->cap_runs) {
			mirror->cap_runs = mirror->cap_runs * 2 + 8;
			mirror->runs = xrealloc(mirror->runs, mirror->cap_runs * sizeof(mirror->runs[0]));
		}
		mirror->runs[mirror->n_runs++] = (struct run){ entry->index, entry->term };
	}
	if (entry->type == ENTRY_CHANGE &&
	    (mirror->n_confs == 0 || mirror->confs[mirror->n_confs - 1].index < entry->index)) {
		struct conf conf;

		if (conf_decode(entry->data, entry->len, &conf, NULL) == CODE_OK)
			add_conf(mirror, entry->index, &conf);
		else
			assert(!"a change in the log is checked before it gets there");
	}
	if (mirror->last + 1 - mirror->held == mirror->size)
		grow_ring(mirror);
	mirror->last++;
	*slot(mirror, mirror->last) = entry_ref(entry);
	mirror->bytes += entry_cost(entry);
	if (mirror->last > mirror->mark)
		mirror->open_bytes += entry_cost(entry);
}

static void keep_budget(struct mirror *mirror)
{
	while (mirror->bytes > mirror->budget && mirror->held <= mirror->mark && mirror->held <= mirror->last)
		forget_oldest(mirror);
}

static void begin(struct mirror *mirror, const struct core_triple *state, uint64_t offset)
{
	mirror->offset = mirror->last = offset;
	mirror->held = offset + 1;
	mirror->mark = mirror->snapshot_index = state->index;
	mirror->snapshot_term = state->term;
	mirror->n_runs = mirror->n_confs = 0;
	if (state->index > 0)
		add_conf(mirror, state->conf_index, &state->conf);
}

void mirror_start(struct mirror *mirror, const struct core_triple *state, uint64_t first, struct entry *const *entries,
		  size_t n)
{
	assert(first > 0 && first <= state->index + 1 && mirror->last == 0);
	begin(mirror, state, first - 1);
	for (size_t i = 0; i < n; i++)
		append(mirror, entries[i]);
	assert(mirror->last >= state->index);
	keep_budget(mirror);
}

static void truncate_from(struct mirror *mirror, uint64_t first)
{
	while (mirror->last >= first)
		forget_newest(mirror);
	while (mirror->n_runs > 0 && mirror->runs[mirror->n_runs - 1].first >= first)
		mirror->n_runs--;
	while (mirror->n_confs > 0 && mirror->confs[mirror->n_confs - 1].index >= first)
		mirror->n_confs--;
}

void mirror_write(struct mirror *mirror, uint64_t first, struct entry *const *entries, size_t n)
{
	assert(first > mirror->mark && first > mirror->offset && first <= mirror->last + 1);
	truncate_from(mirror, first);
	for (size_t i = 0; i < n; i++)
		append(mirror, entries[i]);
	keep_budget(mirror);
}

void mirror_restore(struct mirror *mirror, const struct core_triple *state)
{
	forget_entries(mirror);
	begin(mirror, state, state->index);
}

void mirror_snapshot(struct mirror *mirror, uint64_t index, uint64_t trailing)
{
	uint64_t offset = index > trailing ? index - trailing : 0;
	size_t drop = 0;

	assert(index > mirror->snapshot_index && index <= mirror->mark);
	mirror->snapshot_term = mirror_term_of(mirror, index);
	mirror->snapshot_index = index;
	if (offset <= mirror->offset)
		return;
	while (mirror->held <= offset)
		forget_oldest(mirror);
	while (drop + 1 < mirror->n_runs && mirror->runs[drop + 1].first <= offset + 1)
		drop++;
	mirror->n_runs -= drop;
	memmove(mirror->runs, mirror->runs + drop, mirror->n_runs * sizeof(mirror->runs[0]));
	mirror->offset = offset;
}

void mirror_mark(struct mirror *mirror, uint64_t index)
{
	size_t drop = 0;

	assert(index >= mirror->mark && index <= mirror->last);
	while (mirror->mark < index) {
		mirror->mark++;
		if (mirror->mark >= mirror->held)
			mirror->open_bytes -= entry_cost(*slot(mirror, mirror->mark));
	}
	while (drop + 1 < mirror->n_confs && mirror->confs[drop + 1].index <= index)
		drop++;
	mirror->n_confs -= drop;
	memmove(mirror->confs, mirror->confs + drop, mirror->n_confs * sizeof(mirror->confs[0]));
	keep_budget(mirror);
}

uint64_t mirror_last(const struct mirror *mirror)
{
	return mirror->last;
}

uint64_t mirror_last_term(const struct mirror *mirror)
{
	return mirror_term_of(mirror, mirror->last);
}

uint64_t mirror_snapshot_index(const struct mirror *mirror)
{
	return mirror->snapshot_index;
}

uint64_t mirror_first(const struct mirror *mirror)
{
	return mirror->offset + 1;
}

uint64_t mirror_term_of(const struct mirror *mirror, uint64_t index)
{
	size_t low = 0, high = mirror->n_runs;

	if (index == mirror->snapshot_index)
		return mirror->snapshot_term;
	if (index <= mirror->offset || index > mirror->last)
		return 0;
	while (high - low > 1) { /* runs[low].first <= index < runs[high].first */
		size_t middle = low + (high - low) / 2;

		if (mirror->runs[middle].first <= index)
			low = middle;
		else
			high = middle;
	}
	return mirror->runs[low].term;
}

size_t mirror_open_bytes(const struct mirror *mirror)
{
	return mirror->open_bytes;
}

struct entry *mirror_entry(const struct mirror *mirror, uint64_t index)
{
	return index >= mirror->held && index <= mirror->last ? *slot(mirror, index) : NULL;
}

size_t mirror_entries_at(const struct mirror *mirror, uint64_t first, size_t max, size_t max_bytes, struct entry **out)
{
	size_t n = 0, bytes = 0;

	while (n < max) {
		struct entry *entry = mirror_entry(mirror, first + n);

		if (entry == NULL || (n > 0 && bytes + entry_cost(entry) > max_bytes))
			break;
		bytes += entry_cost(entry);
		out[n++] = entry;
	}
	return n;
}

const struct mirror_conf *mirror_conf_at(const struct mirror *mirror, uint64_t index)
{
	size_t i = mirror->n_confs;

	while (i > 0 && mirror->confs[i - 1].index > index)
		i--;
	return i > 0 ? &mirror->confs[i - 1] : NULL;
}

const struct mirror_conf *mirror_conf_last(const struct mirror *mirror)
{
	return mirror->n_confs > 0 ? &mirror->confs[mirror->n_confs - 1] : NULL;
}

const struct mirror_conf *mirror_conf_after(const struct mirror *mirror, uint64_t index)
{
	for (size_t i = 0; i < mirror->n_confs; i++)
		if (mirror->confs[i].index > index)
			return &mirror->confs[i];
	return NULL;
}
