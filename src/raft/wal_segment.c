/* SPDX-License-Identifier: Apache-2.0 */
/* The log's files: the head, segments that are made ahead, put to use, used again and dropped. A spare is a file of
 * the full size whose bytes have all been written once (so that a later fdatasync has no metadata to write), under the
 * number at which it will be put to use; its header, if it has any, is that of an earlier life with another number. */
#include "raft/wal_disk.h"

#include "base/arena.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rand.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STEP = 512 << 10 }; /* bytes of a spare that are written at a time: what a write may have to wait for */

struct head_body { /* little-endian */
	uint64_t oldest, newest, log_id;
};

static const struct pair_kind head_kind = {
	.magic = "LOGHEAD\n",
	.version = 1,
	.body_len = sizeof(struct head_body),
	.what = "head of the log",
	.write_fault = "wal.segment",
	.sync_fault = "wal.segment",
};

void wal_failed(const char *path, const char *step)
{
	log_fatal("Disk failed", KV("path", path), KV("step", step), KV("error", strerror(errno)));
}

/* --- the head --- */

static void fill_head(const struct wal *wal, uint64_t oldest, uint64_t newest, struct head_body *body)
{
	body->oldest = htole64(oldest);
	body->newest = htole64(newest);
	body->log_id = htole64(wal->log_id);
}

void wal_head_write(struct wal *wal, uint64_t oldest, uint64_t newest)
{
	struct head_body body;

	fill_head(wal, oldest, newest, &body);
	pair_write(wal->head, &body);
}

enum code wal_head_open(struct wal *wal, bool make, uint64_t *oldest, uint64_t *newest, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct head_body body;

	wal->log_id = rand_u64();
	fill_head(wal, 1, 0, &body);
	TRY(pair_open(arena_printf(arena, "%s/head", wal->dir), &head_kind, wal->owner, make, &body, &wal->head, err));
	*oldest = le64toh(body.oldest);
	*newest = le64toh(body.newest);
	wal->log_id = le64toh(body.log_id);
	return CODE_OK;
}

/* --- segments --- */

char *wal_path(const struct wal *wal, uint64_t number)
{
	char *path = NULL;

	if (asprintf(&path, "%s/%016" PRIx64 ".seg", wal->dir, number) < 0)
		abort();
	return path;
}

struct segment *wal_segment_new(int fd, char *path, const struct segment_header *header)
{
	struct segment *segment = xcalloc(1, sizeof *segment);

	atomic_init(&segment->refs, 1);
	segment->fd = fd;
	segment->path = path;
	segment->number = header->number;
	segment->chain = header->chain;
	segment->size = header->size;
	segment->end = SEGMENT_HEADER;
	return segment;
}

void wal_segment_unref(struct segment *segment)
{
	if (segment == NULL || atomic_fetch_sub(&segment->refs, 1) != 1)
		return;
	close(segment->fd);
	free(segment->path);
	free(segment);
}

void wal_segments_add(struct wal *wal, struct segment *segment)
{
	if (wal->n_segments == wal->cap_segments) {
		wal->cap_segments = wal->cap_segments == 0 ? 16 : 2 * wal->cap_segments;
		wal->segments = xrealloc(wal->segments, wal->cap_segments * sizeof *wal->segments);
	}
	wal->segments[wal->n_segments++] = segment;
}

void wal_space_update(struct wal *wal)
{
	uint64_t disk = (uint64_t)wal->spares * wal->segment_bytes, reserve = disk;

	for (size_t i = 0; i < wal->n_segments; i++)
		disk += wal->segments[i]->size;
	if (wal->n_segments > 0)
		reserve += wal_newest(wal)->size - wal_newest(wal)->end;
	pthread_mutex_lock(&wal->lock);
	wal->status.disk_bytes = disk;
	wal->status.reserve_bytes = reserve;
	wal->status.segments = (unsigned)wal->n_segments;
	pthread_mutex_unlock(&wal->lock);
}

/* --- spares --- */

static uint64_t next_spare(const struct wal *wal)
{
	return (wal->n_segments > 0 ? wal_newest(wal)->number : 0) + wal->spares + 1;
}

static void set_full(struct wal *wal, bool full)
{
	bool was;

	pthread_mutex_lock(&wal->lock);
	was = wal->status.full;
	wal->status.full = full;
	pthread_mutex_unlock(&wal->lock);
	if (full && !was)
		log_error("No space for the next segment of the log", KV("path", wal->dir),
			  KV_NUM("spare_segments", wal->spares));
	else if (was && !full)
		log_info("There is space for the log again", KV("path", wal->dir));
}

/* A step of making a spare has failed: for want of space, which may come back, or for good. */
static bool give_up_spare(struct wal *wal, const char *path, const char *step)
{
	if (errno != ENOSPC && errno != EDQUOT)
		wal_failed(path, step);
	if (wal->making_fd >= 0)
		close(wal->making_fd);
	wal->making_fd = -1;
	unlink(path);
	set_full(wal, true);
	return false;
}

static bool begin_spare(struct wal *wal, const char *path)
{
	wal->making_fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	wal->made = 0;
	if (wal->making_fd < 0)
		return give_up_spare(wal, path, "open");
	errno = ENOSPC;
	if (fault_at("wal.space"))
		return give_up_spare(wal, path, "allocate");
	if (fallocate(wal->making_fd, 0, 0, (off_t)wal->segment_bytes) != 0 && errno != EOPNOTSUPP && errno != EINTR)
		return give_up_spare(wal, path, "allocate");
	return true;
}

static bool finish_spare(struct wal *wal, const char *temporary)
{
	char *path;

	errno = EIO;
	if (fault_at("wal.segment") || fsync(wal->making_fd) != 0)
		return give_up_spare(wal, temporary, "sync");
	close(wal->making_fd);
	wal->making_fd = -1;
	path = wal_path(wal, next_spare(wal));
	if (rename(temporary, path) != 0 || !file_sync_dir(wal->dir))
		wal_failed(path, "rename");
	free(path);
	wal->spares++;
	set_full(wal, false);
	wal_space_update(wal);
	return true;
}

bool wal_spare_step(struct wal *wal)
{
	static const uint8_t zeros[STEP];
	OWN_STRUCT(arena) arena = arena_new();
	const char *path = arena_printf(arena, "%s/spare.tmp", wal->dir);
	size_t len;

	if (wal->making_fd < 0)
		return wal->spares < wal->spares_wanted && begin_spare(wal, path);
	if (wal->made == wal->segment_bytes)
		return finish_spare(wal, path);
	len = wal->segment_bytes - wal->made < STEP ? wal->segment_bytes - wal->made : STEP;
	errno = EIO;
	if (fault_at("wal.segment") || !file_pwrite(wal->making_fd, zeros, len, wal->made))
		return give_up_spare(wal, path, "write");
	wal->made += len;
	return true;
}

/* --- putting to use, dropping --- */

static void write_header(const struct segment_header *header, int fd, const char *path)
{
	uint8_t bytes[HEADER_MAX];

	wal_header_encode(header, bytes);
	errno = EIO;
	if (fault_at("wal.segment") || !file_pwrite(fd, bytes, sizeof bytes, 0))
		wal_failed(path, "write");
	errno = EIO;
	if (fault_at("wal.segment") || fdatasync(fd) != 0)
		wal_failed(path, "sync");
}

bool wal_roll(struct wal *wal, uint64_t first, uint64_t before_term, bool reset)
{
	const struct segment *newest = wal->n_segments > 0 ? wal_newest(wal) : NULL;
	struct segment_header header = { .first = first, .before_term = before_term, .reset = reset };
	char *path;
	int fd;

	while (wal->spares == 0)
		if (!wal_spare_step(wal))
			return false;
	header.number = newest == NULL ? 1 : newest->number + 1;
	header.prev_chain = newest == NULL ? 0 : newest->chain;
	header.prev_end = newest == NULL ? 0 : newest->end;
	header.chain = rand_u64();
	header.log_id = wal->log_id;
	header.size = wal->segment_bytes;
	memcpy(header.owner, wal->owner, PAIR_OWNER_MAX);
	path = wal_path(wal, header.number);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		wal_failed(path, "open");
	write_header(&header, fd, path);
	wal_head_write(wal, reset || newest == NULL ? header.number : wal->segments[0]->number, header.number);
	wal_segments_add(wal, wal_segment_new(fd, path, &header));
	wal->spares--;
	wal->synced_end = wal->marked_end = SEGMENT_HEADER;
	wal_space_update(wal);
	return true;
}

/* A dropped segment that nobody reads any more becomes a spare. */
static bool use_again(struct wal *wal, const struct segment *segment)
{
	char *path;

	if (wal->spares >= wal->spares_wanted || segment->size != wal->segment_bytes ||
	    atomic_load(&segment->refs) != 1)
		return false;
	path = wal_path(wal, next_spare(wal));
	if (rename(segment->path, path) != 0)
		wal_failed(segment->path, "rename");
	free(path);
	wal->spares++;
	set_full(wal, false);
	return true;
}

void wal_drop_oldest(struct wal *wal, size_t n)
{
	if (n == 0)
		return;
	assert(n < wal->n_segments);
	errno = EIO;
	if (fault_at("wal.segment"))
		wal_failed(wal->segments[0]->path, "drop");
	for (size_t i = 0; i < n; i++) {
		struct segment *segment = wal->segments[i];

		if (!use_again(wal, segment) && unlink(segment->path) != 0)
			wal_failed(segment->path, "unlink");
		wal_segment_unref(segment);
	}
	if (!file_sync_dir(wal->dir))
		wal_failed(wal->dir, "sync");
	wal->n_segments -= n;
	memmove(wal->segments, wal->segments + n, wal->n_segments * sizeof *wal->segments);
	wal_space_update(wal);
}
