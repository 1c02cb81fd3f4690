/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a log: everything is read and judged first; only then is anything changed.
 *
 * From the head (oldest, newest) on: all of these segments must be there and chained. One more may follow, if the
 * process ended between putting it to use and saying so in the head. What is older is left from a cut that was not
 * finished, what is newer are spares. In all segments but the newest the records must be sound up to the end that the
 * next one names. In the newest, the first unsound one is the log's end, unless a later record claims that it had been
 * stored. */
#include "raft/wal_disk.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REMEDY "replace this node (remove it, join again)"

struct recovery {
	struct wal *wal;
	uint64_t oldest, newest;        /* of the head */
	struct segment_header *headers; /* of wal->segments */
	size_t begin;                   /* the segment with the last reset: nothing before counts */
	uint32_t stale_end;             /* the newest segment's bytes up to here may hold what must not come back */
	struct buf bytes;               /* a segment's file */
	struct buf spares;              /* uint64_t numbers of other segment files */
	bool any;                       /* segment file */
};

/* --- what there is --- */

static enum code list_files(struct recovery *r, struct err *err)
{
	DIR *dir = opendir(r->wal->dir);

	if (dir == NULL)
		return errno == ENOENT ? CODE_OK : err_errno(err, CODE_INTERNAL, errno, "open", r->wal->dir);
	for (struct dirent *file; (file = readdir(dir)) != NULL;) {
		uint64_t number;
		int used = 0;

		if (strlen(file->d_name) != 20 || sscanf(file->d_name, "%16" SCNx64 ".seg%n", &number, &used) != 1 ||
		    used != 20)
			continue;
		buf_append(&r->spares, &number, sizeof number);
		r->any = true;
	}
	closedir(dir);
	return CODE_OK;
}

static enum code open_head(struct recovery *r, bool make, struct err *err)
{
	struct wal *wal = r->wal;
	enum code rc;

	if (make && !r->any && mkdir(wal->dir, 0700) == 0 && !file_sync_parent(wal->dir))
		return err_errno(err, CODE_INTERNAL, errno, "sync", wal->dir);
	rc = wal_head_open(wal, make && !r->any, &r->oldest, &r->newest, err);
	if (rc == CODE_NOT_FOUND && r->any)
		return err_set(err, CODE_DATA_LOSS, "log \"%s\" has segments, but its head is missing: " REMEDY,
			       wal->dir);
	if (rc == CODE_NOT_FOUND)
		return err_set(err, CODE_DATA_LOSS, "log \"%s\" is missing: " REMEDY, wal->dir);
	return rc;
}

/* --- headers --- */

static enum code check_identity(const struct wal *wal, const struct segment_header *header, uint64_t number,
				const char *path, struct err *err)
{
	if (strcmp(header->owner, wal->owner) != 0)
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "log segment \"%s\" belongs to node %s, not to this node (%s): the data directory was "
			       "mixed with another node's",
			       path, header->owner, wal->owner);
	if (header->number != number || header->log_id != wal->log_id)
		return err_set(err, CODE_DATA_LOSS, "log segment \"%s\" is from another place or time: " REMEDY, path);
	return CODE_OK;
}

static bool in_order(const struct segment_header *before, const struct segment_header *header)
{
	return header->prev_chain == before->chain && header->prev_end >= SEGMENT_HEADER &&
	       header->prev_end <= before->size;
}

/* Reads the header of the open file; *spare: it was never put to use under this number. */
static enum code read_header(struct wal *wal, int fd, const char *path, uint64_t number, bool must,
			     struct segment_header *header, bool *spare, struct err *err)
{
	uint8_t bytes[HEADER_MAX] = { 0 };
	uint32_t version;
	struct stat st;

	*spare = false;
	if (file_pread(fd, bytes, sizeof bytes, 0) < 0 || fstat(fd, &st) != 0)
		return err_errno(err, CODE_INTERNAL, errno, "read", path);
	switch (wal_header_decode(bytes, header, &version)) {
	case HEADER_NEWER:
		return err_set(err, CODE_UNIMPLEMENTED,
			       "log segment \"%s\" has format %u, this version knows up to %u: start the newer version",
			       path, version, WAL_FORMAT);
	case HEADER_BAD:
		*spare = !must;
		return must ? err_set(err, CODE_DATA_LOSS, "log segment \"%s\": its header is damaged: " REMEDY, path)
			    : CODE_OK;
	case HEADER_GOOD:
		break;
	}
	if (!must && header->number != number) {
		*spare = true;
		return CODE_OK;
	}
	TRY(check_identity(wal, header, number, path, err));
	if ((uint64_t)st.st_size < header->size)
		return err_set(err, CODE_DATA_LOSS, "log segment \"%s\" is cut off at %lld of %llu bytes: " REMEDY,
			       path, (long long)st.st_size, (unsigned long long)header->size);
	return CODE_OK;
}

/* Opens segment `number`, which must be there unless it is the one after the newest. *found: it is part of the log. */
static enum code open_segment(struct recovery *r, uint64_t number, bool must, bool *found, struct err *err)
{
	struct wal *wal = r->wal;
	size_t n = wal->n_segments;
	struct segment_header *header;
	struct segment *segment;
	char *path = wal_path(wal, number);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	bool spare;
	enum code rc;

	*found = false;
	if (fd < 0) {
		rc = !must && errno == ENOENT ? CODE_OK
		     : errno == ENOENT ? err_set(err, CODE_DATA_LOSS, "log segment \"%s\" is missing: " REMEDY, path)
				       : err_errno(err, CODE_INTERNAL, errno, "open", path);
		free(path);
		return rc;
	}
	r->headers = xrealloc(r->headers, (n + 1) * sizeof *r->headers);
	header = &r->headers[n];
	segment = wal_segment_new(fd, path, &(struct segment_header){ 0 });
	rc = read_header(wal, fd, path, number, must, header, &spare, err);
	if (rc == CODE_OK && !spare && n > 0 && !in_order(&r->headers[n - 1], header))
		rc = err_set(err, CODE_DATA_LOSS, "log segment \"%s\" does not follow the one before it: " REMEDY,
			     path);
	if (rc != CODE_OK || spare) {
		wal_segment_unref(segment);
		return rc;
	}
	segment->number = number;
	segment->chain = header->chain;
	segment->size = header->size;
	wal_segments_add(wal, segment);
	*found = true;
	return CODE_OK;
}

static enum code open_segments(struct recovery *r, struct err *err)
{
	bool found = true;

	for (uint64_t number = r->oldest; found; number++)
		TRY(open_segment(r, number, number <= r->newest, &found, err));
	for (size_t i = 0; i < r->wal->n_segments; i++)
		if (r->headers[i].reset)
			r->begin = i;
	return CODE_OK;
}

/* --- records --- */

static enum code damaged(const struct segment *segment, uint32_t offset, const char *what, struct err *err)
{
	return err_set(err, CODE_DATA_LOSS, "log segment \"%s\" is damaged at byte %u: %s: " REMEDY, segment->path,
		       (unsigned)offset, what);
}

static void start_at(struct wal *wal, uint64_t first, uint64_t before_term)
{
	wal->status.first = first;
	wal->status.before_term = before_term;
	wal->last = first - 1;
	wal->last_term = before_term;
}

static enum code take_record(struct wal *wal, struct segment *segment, uint32_t offset, const struct record *record,
			     struct err *err)
{
	if (record->type == RECORD_MARK)
		return CODE_OK;
	if (record->type == RECORD_TRUNCATE) {
		if (record->index == 0 || record->index > wal->last)
			return damaged(segment, offset, "a truncation above the log's end", err);
		wal_runs_truncate(wal, record->index);
		wal->last_term = wal_term_before(wal, record->index);
		wal->last = record->index - 1;
		if (record->index < wal->status.first)
			start_at(wal, record->index, 0);
		return CODE_OK;
	}
	if (record->type > RECORD_MARK || record->index != wal->last + 1 || record->term == 0 ||
	    record->term < wal->last_term)
		return damaged(segment, offset, "an entry that does not follow the one before it", err);
	wal_runs_add(wal, record->index, record->term, segment, offset);
	wal->last = record->index;
	wal->last_term = record->term;
	return CODE_OK;
}

/* The newest segment is unsound at its end: is that a write that was cut short? */
static enum code judge_tail(struct recovery *r, const struct segment *segment, struct err *err)
{
	const uint8_t *bytes = r->bytes.data;

	for (uint32_t at = segment->end; at + RECORD_HEADER <= r->bytes.len; at += 8) {
		struct record record;

		if (!wal_record_decode_head(segment->chain, at, bytes + at, r->bytes.len - at, &record))
			continue;
		if (record.synced > segment->end)
			return damaged(segment, segment->end, "what stood there had been stored", err);
		r->stale_end = at + RECORD_HEADER;
	}
	return CODE_OK;
}

static enum code scan(struct recovery *r, size_t i, struct err *err)
{
	struct wal *wal = r->wal;
	struct segment *segment = wal->segments[i];
	bool newest = i + 1 == wal->n_segments;
	size_t size = segment->size, end = newest ? size : r->headers[i + 1].prev_end;
	struct record record = { 0 };
	ssize_t got;

	r->bytes.len = 0;
	buf_reserve(&r->bytes, size);
	got = file_pread(segment->fd, r->bytes.data, size, 0);
	if (got < 0)
		return err_errno(err, CODE_DATA_LOSS, errno, "read", segment->path);
	r->bytes.len = (size_t)got;
	while (segment->end < end && wal_record_decode(segment->chain, segment->end, r->bytes.data + segment->end,
						       r->bytes.len - segment->end, &record)) {
		TRY(take_record(wal, segment, segment->end, &record, err));
		segment->end += (uint32_t)wal_record_size(record.len);
	}
	if (!newest)
		return segment->end == end ? CODE_OK
					   : damaged(segment, segment->end, "what stood there had been stored", err);
	wal->marked_end = record.type == RECORD_MARK ? segment->end : 0;
	return judge_tail(r, segment, err);
}

static enum code scan_all(struct recovery *r, struct err *err)
{
	struct wal *wal = r->wal;

	start_at(wal, 1, 0);
	for (size_t i = r->begin; i < wal->n_segments; i++) {
		const struct segment_header *header = &r->headers[i];

		if (i == r->begin)
			start_at(wal, header->first, header->before_term);
		else if (header->first != wal->last + 1 ||
			 (wal->last_term != 0 && header->before_term != wal->last_term))
			return damaged(wal->segments[i], 0, "its entries do not follow those before it", err);
		wal->last_term = header->before_term;
		TRY(scan(r, i, err));
	}
	wal->status.last = wal->asked_last = wal->last;
	wal->visible_end = wal->last + 1;
	return CODE_OK;
}

/* --- to the caller --- */

static enum code visit(struct wal *wal, const struct wal_visitor *visitor, struct err *err)
{
	enum { AT_A_TIME = 256, BYTES = 1 << 20 };
	struct entry *entries[AT_A_TIME];
	enum code rc = CODE_OK;
	size_t n;

	for (uint64_t next = wal->status.first; rc == CODE_OK && next <= wal->last; next += n) {
		TRY(wal_read(wal, next, BYTES, entries, AT_A_TIME, &n, err));
		assert(n > 0);
		for (size_t i = 0; i < n; i++) {
			if (rc == CODE_OK)
				rc = visitor->entry(visitor->ctx, entries[i], err);
			entry_unref(entries[i]);
		}
	}
	return rc;
}

/* --- changes --- */

/* Records behind the end that are sound in themselves would come to life when the log has grown up to them. */
static enum code clear_tail(struct recovery *r, struct err *err)
{
	struct segment *newest = wal_newest(r->wal);

	if (r->stale_end > newest->end) {
		size_t len = r->stale_end - newest->end;

		r->bytes.len = 0;
		buf_reserve(&r->bytes, len);
		memset(r->bytes.data, 0, len);
		if (!file_pwrite(newest->fd, r->bytes.data, len, newest->end))
			return err_errno(err, CODE_INTERNAL, errno, "write", newest->path);
	}
	/* what a killed process wrote may be in memory only */
	if (fdatasync(newest->fd) != 0)
		return err_errno(err, CODE_INTERNAL, errno, "sync", newest->path);
	r->wal->synced_end = newest->end;
	return CODE_OK;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Files outside of the log: spares are kept as far as they follow each other and have the size that is wanted. */
static void sort_out_files(struct recovery *r)
{
	struct wal *wal = r->wal;
	OWN_STRUCT(arena) arena = arena_new();
	uint64_t *numbers = (uint64_t *)(void *)r->spares.data;
	size_t n = r->spares.len / sizeof *numbers;
	uint64_t oldest = wal->n_segments > 0 ? wal->segments[0]->number : 1;
	uint64_t newest = wal->n_segments > 0 ? wal_newest(wal)->number : 0;

	unlink(arena_printf(arena, "%s/spare.tmp", wal->dir));
	if (n > 0)
		qsort(numbers, n, sizeof *numbers, by_number);
	for (size_t i = 0; i < n; i++) {
		char *path = wal_path(wal, numbers[i]);
		struct stat st;

		if (numbers[i] > newest) {
			if (numbers[i] == newest + wal->spares + 1 && stat(path, &st) == 0 &&
			    (uint64_t)st.st_size == wal->segment_bytes)
				wal->spares++;
			else
				unlink(path);
		} else if (numbers[i] < oldest) {
			unlink(path);
		}
		free(path);
	}
}

static enum code settle(struct recovery *r, struct err *err)
{
	struct wal *wal = r->wal;

	sort_out_files(r);
	if (wal->n_segments == 0) {
		if (!wal_roll(wal, 1, 0, true))
			return err_set(err, CODE_RESOURCE_EXHAUSTED, "no space for the log \"%s\"", wal->dir);
		return CODE_OK;
	}
	TRY(clear_tail(r, err));
	if (wal_newest(wal)->number != r->newest || r->begin > 0)
		wal_head_write(wal, wal->segments[r->begin]->number, wal_newest(wal)->number);
	wal_drop_oldest(wal, r->begin);
	wal_space_update(wal);
	return CODE_OK;
}

enum code wal_recover(struct wal *wal, bool make, const struct wal_visitor *visitor, struct err *err)
{
	struct recovery r = { .wal = wal };
	enum code rc = list_files(&r, err);

	if (rc == CODE_OK)
		rc = open_head(&r, make, err);
	if (rc == CODE_OK)
		rc = open_segments(&r, err);
	if (rc == CODE_OK)
		rc = scan_all(&r, err);
	if (rc == CODE_OK && visitor != NULL)
		rc = visit(wal, visitor, err);
	if (rc == CODE_OK)
		rc = settle(&r, err);
	free(r.headers);
	buf_done(&r.bytes);
	buf_done(&r.spares);
	return rc;
}
