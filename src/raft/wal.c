/* SPDX-License-Identifier: Apache-2.0 */
/* The log's thread and its queue. A turn takes all writes that wait:
 *
 *   wal_write --> queue --> stage (records, in order) --> flush (pwrite) --> sync (fdatasync, once) --> done, in order
 *                              |  segment full: flush, sync, wal_roll
 *                              |  reset: flush, sync, wal_roll(reset), older segments go
 *
 * Between turns: segments below the cut go, spares are made in small steps, a mark follows the last write. */
#include "raft/wal_disk.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	FLUSH_BYTES = 4 << 20, /* staged at most */
	KEEP_BYTES = 1 << 20,  /* of the staging buffer, between turns */
	IDLE_MS = 200,         /* until a mark is written */
	FULL_MS = 1000,        /* until space is tried again */
};

/* --- a turn --- */

static void flush(struct wal *wal)
{
	struct segment *newest = wal_newest(wal);
	size_t len = wal->staged->len;

	if (len == 0)
		return;
	errno = EIO;
	if (fault_at("wal.write"))
		wal_failed(newest->path, "write");
	if (fault_at("wal.torn")) {
		(void)file_pwrite(newest->fd, wal->staged->data, len / 2, newest->end);
		errno = EIO;
		wal_failed(newest->path, "write");
	}
	if (!file_pwrite(newest->fd, wal->staged->data, len, newest->end))
		wal_failed(newest->path, "write");
	newest->end += (uint32_t)len;
	wal->staged->len = 0;
}

static void sync_newest(struct wal *wal)
{
	struct segment *newest = wal_newest(wal);

	if (wal->synced_end == newest->end)
		return;
	errno = EIO;
	if (fault_at("wal.sync") || fdatasync(newest->fd) != 0)
		wal_failed(newest->path, "sync");
	wal->synced_end = newest->end;
	pthread_mutex_lock(&wal->lock);
	wal->status.syncs++;
	pthread_mutex_unlock(&wal->lock);
}

static void cut(struct wal *wal)
{
	uint64_t below;
	size_t n;

	pthread_mutex_lock(&wal->lock);
	below = wal->cut_below;
	wal->cut_asked = false;
	pthread_mutex_unlock(&wal->lock);
	n = wal_runs_idle_segments(wal, below); /* the runs change in this thread only */
	if (n == 0)
		return;
	wal_head_write(wal, wal->segments[n]->number, wal_newest(wal)->number);
	pthread_mutex_lock(&wal->lock);
	wal_runs_drop(wal, n);
	if (wal->runs_at > 0)
		wal->status.before_term = wal->runs[wal->runs_at - 1].term;
	wal->status.first = wal->runs_at < wal->n_runs ? wal->runs[wal->runs_at].first : wal->last + 1;
	pthread_mutex_unlock(&wal->lock);
	wal_drop_oldest(wal, n);
}

static void deadline_in(struct timespec *at, int ms)
{
	clock_gettime(CLOCK_MONOTONIC, at);
	at->tv_sec += ms / 1000;
	at->tv_nsec += (long)(ms % 1000) * 1000000;
	if (at->tv_nsec >= 1000000000) {
		at->tv_sec++;
		at->tv_nsec -= 1000000000;
	}
}

/* What is staged goes to the disk, and the next segment is put to use, when there is space for it. */
static void roll(struct wal *wal, uint64_t first, uint64_t before_term, bool reset)
{
	flush(wal);
	sync_newest(wal);
	while (!wal_roll(wal, first, before_term, reset)) {
		struct timespec at;
		bool closing;

		deadline_in(&at, FULL_MS);
		pthread_mutex_lock(&wal->lock);
		while (!wal->cut_asked && !wal->closing && pthread_cond_timedwait(&wal->wake, &wal->lock, &at) == 0)
			;
		closing = wal->closing;
		pthread_mutex_unlock(&wal->lock);
		if (closing) {
			errno = ENOSPC;
			wal_failed(wal->dir, "write");
		}
		cut(wal);
	}
}

/* Answers the record's offset in the newest segment. */
static uint32_t stage(struct wal *wal, const struct record *record)
{
	struct record copy = *record;
	size_t size = wal_record_size(record->len);

	assert(SEGMENT_HEADER + size <= wal->segment_bytes);
	if (wal_newest(wal)->end + wal->staged->len + size > wal_newest(wal)->size)
		roll(wal, wal->last + 1, wal->last_term, false);
	else if (wal->staged->len + size > FLUSH_BYTES)
		flush(wal);
	copy.synced = wal->synced_end;
	{
		struct segment *newest = wal_newest(wal);
		uint32_t offset = newest->end + (uint32_t)wal->staged->len;

		wal_record_encode(newest->chain, offset, &copy, wal->staged);
		return offset;
	}
}

static void stage_truncation(struct wal *wal, uint64_t first)
{
	struct record record = { .type = RECORD_TRUNCATE, .index = first };

	errno = EIO;
	if (fault_at("wal.truncate"))
		wal_failed(wal_newest(wal)->path, "truncate");
	assert(first >= wal->status.first);
	(void)stage(wal, &record);
	pthread_mutex_lock(&wal->lock);
	wal_runs_truncate(wal, first);
	wal->last_term = wal_term_before(wal, first);
	wal->last = first - 1;
	pthread_mutex_unlock(&wal->lock);
}

static void stage_write(struct wal *wal, const struct wal_write *write)
{
	if (write->first <= wal->last)
		stage_truncation(wal, write->first);
	for (size_t i = 0; i < write->n; i++) {
		const struct entry *entry = write->entries[i];
		struct record record = { .type = entry->type,
					 .len = entry->len,
					 .index = entry->index,
					 .term = entry->term,
					 .data = entry->data };
		uint32_t offset;

		assert(entry->term >= wal->last_term);
		offset = stage(wal, &record);
		pthread_mutex_lock(&wal->lock);
		wal_runs_add(wal, entry->index, entry->term, wal_newest(wal), offset);
		pthread_mutex_unlock(&wal->lock);
		wal->last = entry->index;
		wal->last_term = entry->term;
	}
}

static void reset(struct wal *wal, uint64_t index, uint64_t term)
{
	roll(wal, index + 1, term, true);
	pthread_mutex_lock(&wal->lock);
	wal->runs_at = wal->n_runs = 0;
	wal->status.first = index + 1;
	wal->status.before_term = term;
	wal->last = index;
	wal->last_term = term;
	pthread_mutex_unlock(&wal->lock);
	wal_drop_oldest(wal, wal->n_segments - 1);
}

static uint64_t cost_of(const struct wal_write *write)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < write->n; i++)
		bytes += entry_cost(write->entries[i]);
	return bytes;
}

/* All of it is on disk: what readers may see, what the status says. */
static void publish(struct wal *wal, const struct wal_write *writes)
{
	pthread_mutex_lock(&wal->lock);
	wal->status.last = wal->last;
	wal->visible_end = wal->last + 1;
	for (const struct wal_write *waits = wal->queue; waits != NULL; waits = waits->next)
		if (waits->first < wal->visible_end)
			wal->visible_end = waits->first;
	for (const struct wal_write *write = writes; write != NULL; write = write->next) {
		wal->status.entries += write->n;
		wal->status.queued_bytes -= cost_of(write);
	}
	pthread_mutex_unlock(&wal->lock);
}

static void complete(struct wal *wal, struct wal_write *writes)
{
	while (writes != NULL) {
		struct wal_write *write = writes;

		writes = write->next; /* it is the caller's again from the next line on */
		if (wal->loop != NULL)
			loop_post(wal->loop, &write->done);
		else
			write->done.deliver(&write->done);
	}
}

static void turn(struct wal *wal, struct wal_write *writes)
{
	for (struct wal_write *write = writes; write != NULL; write = write->next) {
		if (write->reset)
			reset(wal, write->last, write->reset_term);
		else
			stage_write(wal, write);
	}
	flush(wal);
	sync_newest(wal);
	publish(wal, writes);
	complete(wal, writes);
	if (wal->staged->cap > KEEP_BYTES)
		buf_done(wal->staged);
	wal_space_update(wal);
}

/* Says that all before it is on disk. It need not be itself. */
static void mark(struct wal *wal)
{
	struct segment *newest = wal_newest(wal);
	struct record record = { .type = RECORD_MARK, .index = wal->last, .term = wal->last_term };

	if (newest->end + RECORD_HEADER <= newest->size) {
		(void)stage(wal, &record);
		flush(wal);
	}
	wal->marked_end = newest->end;
}

/* --- the thread --- */

/* How long to wait for work: 0 if there is some to do meanwhile, -1: for ever. */
static int patience_ms(const struct wal *wal)
{
	if (wal->making_fd >= 0 || wal->spares < wal->spares_wanted)
		return wal->status.full ? FULL_MS : 0;
	return wal->marked_end < wal_newest(wal)->end ? IDLE_MS : -1;
}

enum work { WORK_WRITES, WORK_CUT, WORK_IDLE, WORK_END };

static enum work wait_for_work(struct wal *wal, struct wal_write **writes)
{
	struct timespec at;
	int ms, rc = 0;
	enum work work;

	pthread_mutex_lock(&wal->lock);
	ms = patience_ms(wal);
	if (ms > 0)
		deadline_in(&at, ms);
	while (wal->queue == NULL && !wal->cut_asked && !wal->closing && ms != 0 && rc == 0)
		rc = ms < 0 ? pthread_cond_wait(&wal->wake, &wal->lock)
			    : pthread_cond_timedwait(&wal->wake, &wal->lock, &at);
	work = wal->queue != NULL ? WORK_WRITES : wal->cut_asked ? WORK_CUT : wal->closing ? WORK_END : WORK_IDLE;
	*writes = wal->queue;
	wal->queue = NULL;
	wal->queue_tail = &wal->queue;
	pthread_mutex_unlock(&wal->lock);
	return work;
}

static void *run(void *arg)
{
	struct wal *wal = arg;
	struct wal_write *writes;

	for (;;) {
		switch (wait_for_work(wal, &writes)) {
		case WORK_WRITES:
			turn(wal, writes);
			break;
		case WORK_CUT:
			cut(wal);
			break;
		case WORK_IDLE:
			if (!wal_spare_step(wal) && wal->marked_end < wal_newest(wal)->end)
				mark(wal);
			break;
		case WORK_END:
			if (wal->marked_end < wal_newest(wal)->end)
				mark(wal);
			sync_newest(wal);
			return NULL;
		}
	}
}

static void start(struct wal *wal)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the main loop */
	rc = pthread_create(&wal->thread, NULL, run, wal);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc != 0)
		log_fatal("No thread for the log", KV("error", strerror(rc)));
	(void)pthread_setname_np(wal->thread, "wal");
	wal->running = true;
}

/* --- for the others --- */

static struct wal *wal_new(const struct wal_options *options)
{
	struct wal *wal = xcalloc(1, sizeof *wal);
	pthread_condattr_t attr;

	assert(strlen(options->owner) < PAIR_OWNER_MAX);
	wal->dir = xstrdup(options->dir);
	strcpy(wal->owner, options->owner);
	wal->loop = options->loop;
	wal->segment_bytes = options->segment_bytes == 0 ? SEGMENT_BYTES : options->segment_bytes;
	wal->spares_wanted = options->spares == 0 ? SPARES : options->spares;
	assert(wal->segment_bytes % 4096 == 0 && wal->segment_bytes <= UINT32_MAX);
	wal->making_fd = -1;
	wal->staged = xcalloc(1, sizeof *wal->staged);
	wal->queue_tail = &wal->queue;
	pthread_mutex_init(&wal->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&wal->wake, &attr);
	pthread_condattr_destroy(&attr);
	return wal;
}

enum code wal_open(const struct wal_options *options, const struct wal_visitor *visitor, struct wal **out,
		   struct err *err)
{
	OWN_STRUCT(wal) wal = wal_new(options);

	TRY(wal_recover(wal, options->make, visitor, err));
	start(wal);
	*out = TAKE(wal);
	return CODE_OK;
}

void wal_close(struct wal *wal)
{
	if (wal == NULL)
		return;
	if (wal->running) {
		pthread_mutex_lock(&wal->lock);
		wal->closing = true;
		pthread_cond_signal(&wal->wake);
		pthread_mutex_unlock(&wal->lock);
		pthread_join(wal->thread, NULL);
	}
	for (size_t i = 0; i < wal->n_segments; i++)
		wal_segment_unref(wal->segments[i]);
	if (wal->making_fd >= 0)
		close(wal->making_fd); /* the next start makes it anew */
	pair_close(wal->head);
	pthread_cond_destroy(&wal->wake);
	pthread_mutex_destroy(&wal->lock);
	buf_done(wal->staged);
	free(wal->staged);
	free(wal->segments);
	free(wal->runs);
	free(wal->dir);
	free(wal);
}

static void ask(struct wal *wal, struct wal_write *write)
{
	pthread_mutex_lock(&wal->lock);
	assert(write->first <= wal->asked_last + 1);
	if (write->first <= wal->asked_last || write->reset)
		wal->truncations++;
	wal->asked_last = write->last;
	if (write->first < wal->visible_end)
		wal->visible_end = write->first;
	wal->status.queued_bytes += cost_of(write);
	*wal->queue_tail = write;
	wal->queue_tail = &write->next;
	pthread_cond_signal(&wal->wake);
	pthread_mutex_unlock(&wal->lock);
}

void wal_write(struct wal *wal, struct wal_write *write)
{
	assert(write->n > 0 && write->first > 0);
	for (size_t i = 0; i < write->n; i++) {
		const struct entry *entry = write->entries[i];

		assert(entry->index == write->first + i && entry->term > 0);
		assert(entry->type > 0 && entry->type < RECORD_MARK && entry->len <= WAL_ENTRY_MAX);
	}
	write->next = NULL;
	write->reset = false;
	write->last = write->first + write->n - 1;
	ask(wal, write);
}

void wal_reset(struct wal *wal, struct wal_write *write, uint64_t index, uint64_t term)
{
	write->next = NULL;
	write->reset = true;
	write->first = 0; /* readers see nothing until it is done */
	write->n = 0;
	write->last = index;
	write->reset_term = term;
	ask(wal, write);
}

void wal_cut(struct wal *wal, uint64_t below)
{
	pthread_mutex_lock(&wal->lock);
	if (below > wal->cut_below) {
		wal->cut_below = below;
		wal->cut_asked = true;
		pthread_cond_signal(&wal->wake);
	}
	pthread_mutex_unlock(&wal->lock);
}

void wal_status(struct wal *wal, struct wal_status *out)
{
	pthread_mutex_lock(&wal->lock);
	*out = wal->status;
	pthread_mutex_unlock(&wal->lock);
}
