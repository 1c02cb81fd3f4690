/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_WAL_H
#define RAFT_WAL_H

#include "base/err.h"
#include "base/loop.h"
#include "base/own.h"
#include "raft/entry.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The log on disk: segments in a directory of its own, written and synced by a thread of its own. All writes that wait
 * when the thread comes round share one fdatasync. A disk that fails ends the process (log_fatal) before anything is
 * said to be stored; what could not be had for want of space is waited for instead, and a reserve is made ahead so that
 * the caller can stop taking work in time. */
struct wal;

enum { WAL_ENTRY_MAX = 4 << 20 }; /* bytes of one entry's payload; more is our own mistake */

struct wal_options {
	const char *dir;      /* its parent is there */
	const char *owner;    /* node id: a directory that another node wrote is refused */
	bool make;            /* a directory that is missing or empty is made; without it that is DATA_LOSS */
	struct loop *loop;    /* completions are delivered there; need not run yet. NULL: on the log's thread */
	size_t segment_bytes; /* 0: 8 MiB. Holds for segments that are made from now on. Tests take less */
	unsigned spares;      /* 0: 2. Segments that are made ahead */
};

/* Each entry that is on disk, in order, during wal_open: indexes rise by one, terms do not fall. Keep it with
 * entry_ref. What it returns other than CODE_OK ends wal_open with it. */
struct wal_visitor {
	enum code (*entry)(void *ctx, struct entry *entry, struct err *err);
	void *ctx;
};

/* Recovers the log. A write that a crash cut short is dropped from its first damaged record on; it had not completed.
 * Refused, by the name of the file: a format of a newer version (UNIMPLEMENTED), a directory of another node
 * (FAILED_PRECONDITION), damage to what had been stored, and segments that are missing or foreign (DATA_LOSS). Nothing
 * is changed in a directory that is refused. `visitor` may be NULL. */
enum code wal_open(const struct wal_options *options, const struct wal_visitor *visitor, struct wal **out,
		   struct err *err);
/* Stores what was asked for, then ends the thread. Completions of it may be delivered after. NULL is fine. */
void wal_close(struct wal *wal);
OWNABLE_STRUCT(wal, wal_close)

/* One write: the log ends before `first` and `entries` follow (n >= 1, of indexes first, first + 1, ...): a truncation
 * if there is something from `first` on. What is truncated is gone for good before what replaces it is there. `first`
 * is within [first index of the log, last + 1], counting what has been asked for before.
 *
 * The struct, the array and a reference to each entry are the caller's and stay until `done.deliver` is called, once
 * all of it is on disk: in the order of the calls, on the loop of the options. */
struct wal_write {
	struct message done; /* first: deliver may cast */
	uint64_t first;
	struct entry *const *entries;
	size_t n;
	struct wal_write *next; /* the log's own from here on */
	uint64_t last, reset_term;
	bool reset;
};

/* From one thread at a time (the order of the calls is the order of the log). Never blocks on the disk. */
void wal_write(struct wal *wal, struct wal_write *write);

/* After an installed copy: the log is empty and goes on above `index`, whose entry has `term`; (0, 0) starts afresh;
 * `term` 0: unknown. Takes its turn and completes as a write does; of `write` only `done` is filled in by the caller.
 */
void wal_reset(struct wal *wal, struct wal_write *write, uint64_t index, uint64_t term);

/* Entries below `below` are not needed any more: whole segments of them go, when the thread comes round. What was
 * asked for before is not undone by a lower value. From any thread. */
void wal_cut(struct wal *wal, uint64_t below);

/* References (the caller's from then on) to entries from `from` on: up to `max`, up to `max_bytes` of entry_cost, but
 * one at least if there is one. *n = 0: the log ends before `from`. Only what is on disk and is not about to be
 * truncated. NOT_FOUND: it starts above `from`. DATA_LOSS: the file is damaged there. From any thread; reads from the
 * disk, holds up no writer. */
enum code wal_read(struct wal *wal, uint64_t from, size_t max_bytes, struct entry **out, size_t max, size_t *n,
		   struct err *err);

struct wal_status {
	uint64_t first, last;    /* on disk; last = first - 1: no entry */
	uint64_t before_term;    /* of the entry first - 1, as far as a segment's header tells: 0 if unknown */
	uint64_t disk_bytes;     /* of all segments, spare ones too */
	uint64_t reserve_bytes;  /* that can be written without more space from the file system. It drops to `spares`
				  * segments for a moment whenever one is put to use: refuse work below spares - 1 */
	uint64_t queued_bytes;   /* of writes that have not completed */
	uint64_t syncs, entries; /* since the start: fdatasyncs of writes, and entries that they stored */
	unsigned segments;
	bool full; /* a segment could not be made for want of space */
};
void wal_status(struct wal *wal, struct wal_status *out); /* from any thread */

#endif
