/* SPDX-License-Identifier: Apache-2.0 */
/* Reading entries back, from any thread: places are looked up under the lock, bytes are read without it. The log only
 * grows, so that what lies at a place stays while the segment is held. */
#include "raft/wal_disk.h"

#include "base/buf.h"
#include "base/file.h"

#include <errno.h>
#include <string.h>

enum { CHUNK = 64 << 10 };

struct reading {
	uint64_t next, end; /* indexes */
	size_t bytes_left, max, n;
	struct entry **out;
	struct buf chunk;
};

static enum code damaged(const struct segment *segment, uint32_t offset, struct err *err)
{
	return err_set(err, CODE_DATA_LOSS,
		       "log segment \"%s\" is damaged at byte %u: replace this node (remove it, join again)",
		       segment->path, (unsigned)offset);
}

/* The record at `offset`, of which the chunk holds the first bytes at `at`, or from a new chunk: then *at is 0. */
static enum code record_at(struct reading *r, const struct segment *segment, uint32_t offset, size_t *at,
			   struct record *record, struct err *err)
{
	size_t want = CHUNK;
	ssize_t got;

	if (*at < r->chunk.len &&
	    wal_record_decode(segment->chain, offset, r->chunk.data + *at, r->chunk.len - *at, record))
		return CODE_OK;
	for (*at = 0;;) {
		r->chunk.len = 0;
		buf_reserve(&r->chunk, want);
		got = file_pread(segment->fd, r->chunk.data, want, offset);
		if (got < 0)
			return err_errno(err, CODE_DATA_LOSS, errno, "read", segment->path);
		r->chunk.len = (size_t)got;
		if (wal_record_decode(segment->chain, offset, r->chunk.data, r->chunk.len, record))
			return CODE_OK;
		if (!wal_record_decode_head(segment->chain, offset, r->chunk.data, r->chunk.len, record) ||
		    wal_record_size(record->len) <= want || wal_record_size(record->len) > segment->size - offset)
			return damaged(segment, offset, err);
		want = wal_record_size(record->len);
	}
}

static bool take(struct reading *r, const struct record *record)
{
	struct entry *entry;

	if (r->n == r->max || (r->n > 0 && sizeof *entry + record->len > r->bytes_left))
		return false;
	entry = entry_new(record->index, record->term, record->type, record->data, record->len);
	r->bytes_left -= entry_cost(entry) < r->bytes_left ? entry_cost(entry) : r->bytes_left;
	r->out[r->n++] = entry;
	r->next++;
	return true;
}

/* *full: no more is wanted. */
static enum code read_run(struct reading *r, const struct run *run, bool *full, struct err *err)
{
	uint64_t index = run->first, end = run->last < r->end ? run->last + 1 : r->end;
	uint32_t offset = run->offset;
	size_t at = 0;

	r->chunk.len = 0;
	while (r->next < end) {
		struct record record;

		TRY(record_at(r, run->segment, offset, &at, &record, err));
		if (record.type < RECORD_MARK) {
			if (record.index != index)
				return damaged(run->segment, offset, err);
			if (index++ == r->next && !take(r, &record)) {
				*full = true;
				return CODE_OK;
			}
		}
		offset += (uint32_t)wal_record_size(record.len);
		at += wal_record_size(record.len);
	}
	*full = r->n == r->max || r->bytes_left == 0;
	return CODE_OK;
}

/* The run that holds r->next, with a reference to its segment in *hold; false: there is none that goes with what was
 * read so far. */
static bool look_up(struct wal *wal, struct reading *r, uint64_t *truncations, struct run *run, struct segment **hold)
{
	const struct run *found;

	pthread_mutex_lock(&wal->lock);
	if (r->n == 0)
		*truncations = wal->truncations;
	r->end = wal->visible_end;
	found = r->next < r->end && wal->truncations == *truncations ? wal_runs_find(wal, r->next) : NULL;
	if (found != NULL) {
		*run = *found;
		*hold = found->segment;
		atomic_fetch_add(&found->segment->refs, 1);
	}
	pthread_mutex_unlock(&wal->lock);
	return found != NULL;
}

static enum code read_all(struct wal *wal, struct reading *r, struct err *err)
{
	uint64_t truncations = 0;

	for (bool full = false; !full;) {
		OWN_STRUCT(segment) hold = NULL;
		struct run run;

		if (!look_up(wal, r, &truncations, &run, &hold))
			break;
		TRY(read_run(r, &run, &full, err));
	}
	return CODE_OK;
}

enum code wal_read(struct wal *wal, uint64_t from, size_t max_bytes, struct entry **out, size_t max, size_t *n,
		   struct err *err)
{
	struct reading r = { .next = from, .bytes_left = max_bytes, .max = max, .out = out };
	uint64_t first;
	enum code rc;

	rc = read_all(wal, &r, err);
	buf_done(&r.chunk);
	if (rc != CODE_OK && r.n > 0) { /* what is sound goes out first; the next call says it */
		*n = r.n;
		return CODE_OK;
	}
	TRY(rc);
	pthread_mutex_lock(&wal->lock);
	first = wal->status.first;
	pthread_mutex_unlock(&wal->lock);
	if (r.n == 0 && from < first)
		return err_set(err, CODE_NOT_FOUND, "the log does not go back to entry %llu: it begins at %llu",
			       (unsigned long long)from, (unsigned long long)first);
	*n = r.n;
	return CODE_OK;
}
