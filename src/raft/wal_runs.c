/* SPDX-License-Identifier: Apache-2.0 */
/* Where entries lie. Runs follow each other without a hole, in order of index; because the log only grows and a
 * truncation drops the end, that is also their order of place. So the segments of the first runs are the oldest. */
#include "raft/wal_disk.h"

#include "base/arena.h"

#include <assert.h>
#include <string.h>

static void make_room(struct wal *wal)
{
	if (wal->n_runs < wal->cap_runs)
		return;
	if (wal->runs_at > wal->cap_runs / 2) {
		wal->n_runs -= wal->runs_at;
		memmove(wal->runs, wal->runs + wal->runs_at, wal->n_runs * sizeof *wal->runs);
		wal->runs_at = 0;
		return;
	}
	wal->cap_runs = wal->cap_runs == 0 ? 64 : 2 * wal->cap_runs;
	wal->runs = xrealloc(wal->runs, wal->cap_runs * sizeof *wal->runs);
}

void wal_runs_add(struct wal *wal, uint64_t index, uint64_t term, struct segment *segment, uint32_t offset)
{
	struct run *end = wal->n_runs > wal->runs_at ? &wal->runs[wal->n_runs - 1] : NULL;

	assert(end == NULL || index == end->last + 1);
	if (end != NULL && !wal->run_ended && end->segment == segment && end->term == term &&
	    index - end->first < RUN_ENTRIES) {
		end->last = index;
		return;
	}
	wal->run_ended = false;
	make_room(wal);
	wal->runs[wal->n_runs++] = (struct run){ index, index, term, segment, offset };
}

void wal_runs_truncate(struct wal *wal, uint64_t first)
{
	wal->run_ended = true;
	while (wal->n_runs > wal->runs_at && wal->runs[wal->n_runs - 1].first >= first)
		wal->n_runs--;
	if (wal->n_runs > wal->runs_at && wal->runs[wal->n_runs - 1].last >= first)
		wal->runs[wal->n_runs - 1].last = first - 1;
}

const struct run *wal_runs_find(const struct wal *wal, uint64_t index)
{
	size_t low = wal->runs_at, high = wal->n_runs;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (wal->runs[middle].last < index)
			low = middle + 1;
		else
			high = middle;
	}
	return low < wal->n_runs && wal->runs[low].first <= index ? &wal->runs[low] : NULL;
}

size_t wal_runs_idle_segments(const struct wal *wal, uint64_t below)
{
	size_t run = wal->runs_at, n = 0;

	for (; n + 1 < wal->n_segments; n++)
		for (; run < wal->n_runs && wal->runs[run].segment == wal->segments[n]; run++)
			if (wal->runs[run].last >= below)
				return n;
	return n;
}

void wal_runs_drop(struct wal *wal, size_t n)
{
	for (size_t i = 0; i < n; i++)
		while (wal->runs_at < wal->n_runs && wal->runs[wal->runs_at].segment == wal->segments[i])
			wal->runs_at++;
}

uint64_t wal_term_before(const struct wal *wal, uint64_t index)
{
	const struct run *run = wal_runs_find(wal, index - 1);

	if (run != NULL)
		return run->term;
	return index == wal->status.first ? wal->status.before_term : 0;
}
