/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_LIB_WAL_LOG_H
#define TESTS_LIB_WAL_LOG_H

/* Helpers of the tests of the log: entries whose bytes follow from index and term, writes that wait, copies of
 * directories. */
#include "base/arena.h"
#include "lib/test.h"
#include "raft/wal.h"

#include <pthread.h>
#include <stdlib.h>

#define NODE "11111111-2222-4333-8444-555555555555"
enum { SEGMENT = 64 << 10, SEGMENT_HEAD = 4096, RECORD_HEAD = 40, LOG_MAX = 4096 };

static inline uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static inline size_t entry_len(uint64_t index, uint64_t term)
{
	return mix(index * 1000 + term) % 700 + (mix(index + term * 77) % 50 == 0 ? 9000 : 1);
}

static inline uint8_t entry_type(uint64_t index, uint64_t term)
{
	return (uint8_t)(1 + mix(index * 31 + term) % 3);
}

static inline struct entry *entry_of(uint64_t index, uint64_t term)
{
	struct entry *entry = entry_new(index, term, entry_type(index, term), NULL, entry_len(index, term));

	for (uint32_t i = 0; i < entry->len; i++)
		entry->data[i] = (uint8_t)mix(index * 7919 + term * 13 + i / 8);
	return entry;
}

static inline int entry_is_sound(const struct entry *entry)
{
	struct entry *want = entry_of(entry->index, entry->term);
	int sound = entry->len == want->len && entry->type == want->type &&
		    memcmp(entry->data, want->data, entry->len) == 0;

	entry_unref(want);
	return sound;
}

/* The terms of a log's entries. */
struct model {
	uint64_t first, last;
	uint64_t terms[LOG_MAX]; /* of index at its place */
};

static inline void model_append(struct model *model, uint64_t first, size_t n, uint64_t term)
{
	for (size_t i = 0; i < n; i++)
		model->terms[first + i] = term;
	model->last = first + n - 1;
}

static inline enum code model_visit(void *ctx, struct entry *entry, struct err *err)
{
	struct model *model = ctx;

	if (model->last != 0 && entry->index != model->last + 1)
		return err_set(err, CODE_ABORTED, "entry %d after %d", (int)entry->index, (int)model->last);
	if (!entry_is_sound(entry))
		return err_set(err, CODE_ABORTED, "entry %d of term %d: wrong bytes", (int)entry->index,
			       (int)entry->term);
	if (model->first == 0)
		model->first = entry->index;
	model->terms[entry->index] = entry->term;
	model->last = entry->index;
	return CODE_OK;
}

static inline struct wal_options options_of(const char *dir)
{
	return (struct wal_options){ .dir = dir, .owner = NODE, .make = true, .segment_bytes = SEGMENT };
}

/* A write of `n` entries of one term and the wait for it. */
struct written {
	struct wal_write write;
	struct entry **entries;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	int done;
};

static inline void written_done(struct message *message)
{
	struct written *written = (struct written *)(void *)message;

	pthread_mutex_lock(&written->lock);
	written->done = 1;
	pthread_cond_signal(&written->wake);
	pthread_mutex_unlock(&written->lock);
}

static inline struct written *written_new(uint64_t first, size_t n, uint64_t term)
{
	struct written *written = xcalloc(1, sizeof *written);

	written->entries = xcalloc(n + 1, sizeof *written->entries);
	for (size_t i = 0; i < n; i++)
		written->entries[i] = entry_of(first + i, term);
	written->write.done.deliver = written_done;
	written->write.first = first;
	written->write.entries = written->entries;
	written->write.n = n;
	pthread_mutex_init(&written->lock, NULL);
	pthread_cond_init(&written->wake, NULL);
	return written;
}

static inline void written_free(struct written *written)
{
	for (size_t i = 0; i < written->write.n; i++)
		entry_unref(written->entries[i]);
	pthread_cond_destroy(&written->wake);
	pthread_mutex_destroy(&written->lock);
	free(written->entries);
	free(written);
}

static inline void written_wait(struct written *written)
{
	pthread_mutex_lock(&written->lock);
	while (!written->done)
		pthread_cond_wait(&written->wake, &written->lock);
	pthread_mutex_unlock(&written->lock);
	written_free(written);
}

static inline void append(struct wal *wal, uint64_t first, size_t n, uint64_t term)
{
	struct written *written = written_new(first, n, term);

	wal_write(wal, &written->write);
	written_wait(written);
}

static inline void reset_to(struct wal *wal, uint64_t index, uint64_t term)
{
	struct written *written = written_new(0, 0, 0);

	wal_reset(wal, &written->write, index, term);
	written_wait(written);
}

/* For copies of a directory and what is in it. */
struct image {
	size_t n;
	struct image_file {
		char name[32];
		uint8_t *data;
		size_t len;
	} files[64];
};

void image_take(struct image *image, const char *dir);
void image_put(const struct image *image, const char *dir); /* the directory holds nothing else after it */
void image_free(struct image *image);
struct image_file *image_file(struct image *image, const char *name);

#endif
