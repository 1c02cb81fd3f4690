/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_WAL_DISK_H
#define RAFT_WAL_DISK_H

/* What the files wal*.c share; for nobody else.
 *
 * A directory holds "head" (pair.h: the oldest and the newest segment, the log's id) and segments "<number>.seg",
 * numbers in hexadecimal. A segment is a header of one page, then records, each aligned to 8 bytes:
 *
 *   header: magic[8] crc32c[4] len[4] version[4] flags[4] number[8] first[8] before_term[8] chain[8] prev_chain[8]
 *           log_id[8] size[8] prev_end[4] 0[4] owner[40]                  crc and len cover what follows the crc
 *   record: crc32c[4] len[4] index[8] term[8] synced[4] type[1] 0[3] payload_crc32c[4] 0[4] payload[len]
 *
 * all little-endian. The crc of a record's head begins with the segment's chain (drawn at random when it was put to
 * use) and the record's offset, so bytes of another segment, log or place, and those of an earlier life of the file,
 * are no records.
 *
 * The log only grows: a truncation is a record of its own, before the entries that replace what it drops, and a reset
 * is a segment with a flag. A prefix of what was written is therefore always a state that the log was in or passed
 * through. A segment is put to use once the one before it is synced, and knows that one's end and chain.
 *
 * `synced` is the offset up to which the segment was known to be on disk when the record was written. It tells a write
 * that a crash cut short (nothing behind the damage claims more) from damage to what had been stored (something does).
 * A mark is a record that carries nothing but this claim: written when the log falls idle and when it is closed. */

#include "raft/pair.h"
#include "raft/wal.h"

#include <pthread.h>

enum {
	WAL_FORMAT = 1,
	SEGMENT_HEADER = 4096,
	HEADER_MAX = 512, /* bytes of it that mean something, in any version */
	RECORD_HEADER = 40,
	SEGMENT_BYTES = 8 << 20,
	SPARES = 2,
	RUN_ENTRIES = 64, /* of one run at most: what a reader may have to skip */

	/* types of records beside the entries' own */
	RECORD_MARK = 0x80,
	RECORD_TRUNCATE = 0x81, /* the log ends before `index` */
};

struct segment_header {
	uint64_t number, first; /* index of the entry that comes next in the log, unless a truncation comes before it */
	uint64_t before_term;   /* of the entry before it */
	uint64_t chain, prev_chain;
	uint64_t log_id;
	uint64_t size;     /* of the file */
	uint32_t prev_end; /* of the records in the segment before */
	bool reset;        /* the log begins here: nothing before counts */
	char owner[PAIR_OWNER_MAX];
};

struct record {
	uint8_t type;
	uint32_t len;
	uint64_t index, term;
	uint32_t synced;
	const uint8_t *data;
};

enum header_state { HEADER_GOOD, HEADER_BAD, HEADER_NEWER };

void wal_header_encode(const struct segment_header *header, uint8_t out[HEADER_MAX]);
enum header_state wal_header_decode(const uint8_t in[HEADER_MAX], struct segment_header *out, uint32_t *version);

/* With its padding. */
static inline size_t wal_record_size(size_t len)
{
	return (RECORD_HEADER + len + 7) & ~(size_t)7;
}

struct buf;
void wal_record_encode(uint64_t chain, uint32_t offset, const struct record *record, struct buf *out);
/* Whether the `len` bytes at `in`, which lie at `offset`, begin with a record: its head, which may be followed by less
 * than the payload, or all of it. `out->data` points into them. */
bool wal_record_decode_head(uint64_t chain, uint32_t offset, const uint8_t *in, size_t len, struct record *out);
bool wal_record_decode(uint64_t chain, uint32_t offset, const uint8_t *in, size_t len, struct record *out);

/* A segment in use. Its file stays open, and is not used again, while a reader holds a reference. */
struct segment {
	_Atomic uint32_t refs;
	int fd;
	uint64_t number, chain, size;
	uint32_t end; /* of the records */
	char *path;
};

void wal_segment_unref(struct segment *segment); /* NULL is fine */
OWNABLE_STRUCT(segment, wal_segment_unref)

/* Entries of one term, side by side in a segment, on disk or about to be. */
struct run {
	uint64_t first, last, term;
	struct segment *segment; /* borrowed: it lives in wal->segments */
	uint32_t offset;         /* of the first one's record */
};

struct wal {
	char *dir;
	char owner[PAIR_OWNER_MAX];
	struct loop *loop;
	size_t segment_bytes;
	unsigned spares_wanted;

	/* the thread's own */
	struct pair *head;
	uint64_t log_id;
	struct segment **segments; /* oldest first; the last one is written to */
	size_t n_segments, cap_segments;
	unsigned spares;    /* files ready under the numbers that follow */
	int making_fd;      /* a spare in the making, or -1 */
	uint64_t made;      /* bytes of it */
	struct buf *staged; /* records that go behind the newest segment's end */
	uint32_t synced_end, marked_end;
	uint64_t last, last_term; /* counting what is staged */
	pthread_t thread;
	bool running;

	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t wake;
	struct wal_write *queue, **queue_tail;
	uint64_t asked_last; /* of the log once the queue is done */
	uint64_t cut_below;
	bool cut_asked, closing;
	struct run *runs; /* runs[runs_at .. n_runs - 1], in order of index and of place */
	size_t runs_at, n_runs, cap_runs;
	bool run_ended;       /* the next entry begins a run: a truncation lies between */
	uint64_t truncations; /* asked for so far: a reader must not mix what was with what is */
	uint64_t visible_end; /* entries below it are on disk and stay */
	struct wal_status status;
};

static inline struct segment *wal_newest(const struct wal *wal)
{
	return wal->segments[wal->n_segments - 1];
}

/* wal_segment.c: files. They end the process when the disk fails. */
char *wal_path(const struct wal *wal, uint64_t number); /* malloc'ed */
void wal_failed(const char *path, const char *step) __attribute__((noreturn));
void wal_head_write(struct wal *wal, uint64_t oldest, uint64_t newest);
/* The head of a new log: oldest 1, newest 0 */
enum code wal_head_open(struct wal *wal, bool make, uint64_t *oldest, uint64_t *newest, struct err *err);
struct segment *wal_segment_new(int fd, char *path, const struct segment_header *header); /* takes both */
void wal_segments_add(struct wal *wal, struct segment *segment);
/* One step of making a spare ready; false: nothing to do, or no space (status.full). */
bool wal_spare_step(struct wal *wal);
/* The newest segment is synced; puts the next one to use. False: no space. */
bool wal_roll(struct wal *wal, uint64_t first, uint64_t before_term, bool reset);
void wal_drop_oldest(struct wal *wal, size_t n); /* from the list and the disk; the head knows already */
void wal_space_update(struct wal *wal);          /* status */

/* wal_runs.c: where entries lie; under the lock. */
void wal_runs_add(struct wal *wal, uint64_t index, uint64_t term, struct segment *segment, uint32_t offset);
void wal_runs_truncate(struct wal *wal, uint64_t first);
const struct run *wal_runs_find(const struct wal *wal, uint64_t index); /* NULL: none */
/* Segments at the start whose entries are all below; the runs in the first `n` go. */
size_t wal_runs_idle_segments(const struct wal *wal, uint64_t below);
void wal_runs_drop(struct wal *wal, size_t n);
uint64_t wal_term_before(const struct wal *wal, uint64_t index); /* of the entry before it; 0: unknown */

/* wal_recover.c */
enum code wal_recover(struct wal *wal, bool make, const struct wal_visitor *visitor, struct err *err);

#endif
