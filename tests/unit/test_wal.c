/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "lib/wal_log.h"

#include <sched.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

static struct err err;

__attribute__((constructor)) static void quiet(void)
{
	log_set_level(LOG_PANIC);
}

static char *dir_of(const char *name)
{
	static char path[256];

	snprintf(path, sizeof path, "%s/%s", test_dir(), name);
	return path;
}

static struct wal *opened(const char *dir, struct model *model)
{
	struct wal_options options = options_of(dir);
	struct wal_visitor visitor = { model_visit, model };
	struct wal *wal = NULL;

	if (model != NULL)
		memset(model, 0, sizeof *model);
	CHECK_CODE(wal_open(&options, model != NULL ? &visitor : NULL, &wal, &err), CODE_OK);
	return wal;
}

static void check_model(const struct model *got, const struct model *want)
{
	CHECK_NUM(got->first, want->first);
	CHECK_NUM(got->last, want->last);
	for (uint64_t index = want->first; index <= want->last; index++)
		CHECK_NUM(got->terms[index], want->terms[index]);
}

/* All that can be read from `from` on, compared. */
static void check_reads(struct wal *wal, uint64_t from, const struct model *want)
{
	struct entry *entries[100];
	size_t n = 1;

	for (; n > 0; from += n) {
		CHECK_CODE(wal_read(wal, from, 5000, entries, 100, &n, &err), CODE_OK);
		for (size_t i = 0; i < n; i++) {
			CHECK_NUM(entries[i]->index, from + i);
			CHECK_NUM(entries[i]->term, want->terms[from + i]);
			CHECK(entry_is_sound(entries[i]));
			entry_unref(entries[i]);
		}
	}
	CHECK_NUM(from, want->last + 1);
}

/* Waits for a condition on the status. */
#define AWAIT(wal, status, condition)                                                                                  \
	do {                                                                                                           \
		int64_t deadline_ = clock_mono_ms() + 20000;                                                           \
		do {                                                                                                   \
			wal_status((wal), &(status));                                                                  \
			sched_yield();                                                                                 \
			CHECK(clock_mono_ms() < deadline_);                                                            \
		} while (!(condition));                                                                                \
	} while (0)

TEST(entries_are_there_after_reopening)
{
	char *dir = dir_of("reopened");
	struct model want = { .first = 1 }, got;
	struct wal_status status;
	struct wal *wal = opened(dir, &got);

	CHECK_NUM(got.last, 0);
	wal_status(wal, &status);
	CHECK_NUM(status.first, 1);
	CHECK_NUM(status.last, 0);
	for (uint64_t next = 1; next <= 1000; next += 10) {
		append(wal, next, 10, 1 + next / 100);
		model_append(&want, next, 10, 1 + next / 100);
	}
	check_reads(wal, 1, &want);
	wal_status(wal, &status);
	CHECK_NUM(status.last, 1000);
	CHECK_NUM(status.entries, 1000);
	CHECK(status.segments > 3);
	CHECK_NUM(status.queued_bytes, 0);
	for (int round = 0; round < 3; round++) {
		wal_close(wal);
		wal = opened(dir, &got);
		check_model(&got, &want);
		check_reads(wal, 500, &want);
		append(wal, want.last + 1, 3, 50);
		model_append(&want, want.last + 1, 3, 50);
	}
	wal_close(wal);
}

TEST(a_truncation_drops_the_end_for_good)
{
	char *dir = dir_of("truncated");
	struct model want = { .first = 1 }, got;
	struct wal *wal = opened(dir, NULL);
	uint64_t term = 1;

	append(wal, 1, 300, term);
	model_append(&want, 1, 300, term);
	for (uint64_t first = 290; first >= 1; first -= first > 20 ? 17 : first > 1 ? first - 1 : 1) {
		size_t n = 1 + first % 40;

		term++;
		append(wal, first, n, term); /* above the terms of what it drops */
		model_append(&want, first, n, term);
		check_reads(wal, 1, &want);
		if (first % 3 == 0) {
			wal_close(wal);
			wal = opened(dir, &got);
			check_model(&got, &want);
		}
	}
	wal_close(wal);
	wal = opened(dir, &got);
	check_model(&got, &want);
	wal_close(wal);
}

struct many {
	struct wal_write write;
	struct wal *wal;
	struct written *writes[100];
};

/* On the log's thread, which therefore takes none of them before all are there. */
static void ask_many(struct message *message)
{
	struct many *many = (struct many *)(void *)message;

	for (int i = 0; i < 100; i++)
		wal_write(many->wal, &many->writes[i]->write);
}

TEST(what_waits_together_is_synced_once)
{
	struct many many = { .wal = opened(dir_of("one-sync"), NULL) };
	struct entry *entry = entry_new(1, 1, 1, "small", 5);
	struct wal_status before, after;

	AWAIT(many.wal, before, before.reserve_bytes > 2 * SEGMENT);
	for (int i = 0; i < 100; i++) {
		many.writes[i] = written_new(2 + (uint64_t)i, 1, 1);
		entry_unref(many.writes[i]->entries[0]);
		many.writes[i]->entries[0] = entry_new(2 + (uint64_t)i, 1, 1, "small", 5);
	}
	many.write = (struct wal_write){ .done = { .deliver = ask_many }, .first = 1, .entries = &entry, .n = 1 };
	wal_write(many.wal, &many.write);
	for (int i = 0; i < 100; i++)
		written_wait(many.writes[i]);
	wal_status(many.wal, &after);
	CHECK_NUM(after.syncs - before.syncs, 2); /* the first alone, then the hundred */
	CHECK_NUM(after.entries, 101);
	wal_close(many.wal);
	entry_unref(entry);
}

struct ordered {
	struct wal_write write;
	struct entry *entry;
	int number, *seen;
	struct loop *loop;
};

static void in_order(struct message *message)
{
	struct ordered *ordered = (struct ordered *)(void *)message;

	CHECK(loop_self() == ordered->loop);
	CHECK_NUM(ordered->number, (*ordered->seen)++);
	if (ordered->number == 199)
		loop_stop(ordered->loop);
}

TEST(completions_come_in_order_on_the_loop)
{
	struct loop *loop = loop_new("test");
	struct wal_options options = options_of(dir_of("order"));
	struct ordered *all = xcalloc(200, sizeof *all);
	struct wal *wal;
	int seen = 0;

	options.loop = loop;
	CHECK_CODE(wal_open(&options, NULL, &wal, &err), CODE_OK);
	for (int i = 0; i < 200; i++) {
		all[i].entry = entry_of((uint64_t)i + 1, 1);
		all[i].number = i;
		all[i].seen = &seen;
		all[i].loop = loop;
		all[i].write.done.deliver = in_order;
		all[i].write.first = (uint64_t)i + 1;
		all[i].write.entries = &all[i].entry;
		all[i].write.n = 1;
		wal_write(wal, &all[i].write);
	}
	loop_run(loop);
	CHECK_NUM(seen, 200);
	wal_close(wal);
	loop_free(loop);
	for (int i = 0; i < 200; i++)
		entry_unref(all[i].entry);
	free(all);
}

TEST(reads_are_bounded)
{
	struct wal *wal = opened(dir_of("reads"), NULL);
	struct entry *entries[10];
	struct wal_status status;
	size_t n = 7;

	CHECK_CODE(wal_read(wal, 1, 1000, entries, 10, &n, &err), CODE_OK);
	CHECK_NUM(n, 0);
	append(wal, 1, 200, 1);
	CHECK_CODE(wal_read(wal, 150, 0, entries, 10, &n, &err), CODE_OK);
	CHECK_NUM(n, 1); /* one at least */
	CHECK_NUM(entries[0]->index, 150);
	entry_unref(entries[0]);
	CHECK_CODE(wal_read(wal, 10, 1 << 20, entries, 7, &n, &err), CODE_OK);
	CHECK_NUM(n, 7);
	for (size_t i = 0; i < n; i++)
		entry_unref(entries[i]);
	CHECK_CODE(wal_read(wal, 201, 1000, entries, 10, &n, &err), CODE_OK);
	CHECK_NUM(n, 0);
	append(wal, 201, 200, 1);
	wal_cut(wal, 300);
	AWAIT(wal, status, status.first > 200);
	CHECK(status.first <= 300);
	CHECK_NUM(status.before_term, 1);
	CHECK_CODE(wal_read(wal, 100, 1000, entries, 10, &n, &err), CODE_NOT_FOUND);
	CHECK(strstr(err.text, "the log does not go back to entry 100: it begins at ") != NULL);
	wal_close(wal);
}

TEST(closing_stores_what_was_asked_for)
{
	struct written *writes[50];
	struct wal *wal = opened(dir_of("closing"), NULL);
	struct model want = { .first = 1 }, got;

	for (int i = 0; i < 50; i++) {
		writes[i] = written_new(1 + 3 * (uint64_t)i, 3, 1);
		wal_write(wal, &writes[i]->write);
	}
	wal_close(wal);
	for (int i = 0; i < 50; i++)
		written_wait(writes[i]);
	model_append(&want, 1, 150, 1);
	wal = opened(dir_of("closing"), &got);
	check_model(&got, &want);
	wal_close(wal);
}

TEST(a_large_entry_is_kept)
{
	struct wal_options options = options_of(dir_of("large"));
	struct written *written = written_new(1, 1, 1);
	struct entry *entry = entry_new(1, 1, 1, NULL, WAL_ENTRY_MAX), *read = NULL;
	struct wal *wal;
	size_t n;

	memset(entry->data, 'x', entry->len);
	entry_unref(written->entries[0]);
	written->entries[0] = entry_ref(entry);
	options.segment_bytes = 0;
	CHECK_CODE(wal_open(&options, NULL, &wal, &err), CODE_OK);
	wal_write(wal, &written->write);
	written_wait(written);
	CHECK_CODE(wal_read(wal, 1, 10, &read, 1, &n, &err), CODE_OK);
	CHECK_NUM(n, 1);
	CHECK_NUM(read->len, entry->len);
	CHECK_BYTES(read->data, entry->data, entry->len);
	entry_unref(read);
	entry_unref(entry);
	wal_close(wal);
}

TEST(segments_below_the_cut_go_and_are_used_again)
{
	char *dir = dir_of("cut");
	struct model want = { 0 }, got;
	struct wal *wal = opened(dir, NULL);
	struct wal_status status;
	uint64_t next = 1;

	for (int round = 0; round < 15; round++) {
		for (int i = 0; i < 10; i++, next += 20) {
			append(wal, next, 20, 1);
			model_append(&want, next, 20, 1);
		}
		wal_cut(wal, next - 50);
		wal_cut(wal, 5); /* undoes nothing */
		AWAIT(wal, status, status.first + 400 > next);
		CHECK(status.first <= next - 50);
		CHECK(status.disk_bytes < 12 * SEGMENT);
		if (round % 4 == 3) {
			wal_close(wal);
			wal = opened(dir, &got);
			CHECK(got.first >= status.first && got.first <= next - 50);
			want.first = got.first;
			check_model(&got, &want);
		}
	}
	wal_close(wal);
}

TEST(a_cut_below_a_truncation_keeps_what_counts)
{
	char *dir = dir_of("cut-truncated");
	struct model want = { .first = 1 }, got;
	struct wal *wal = opened(dir, NULL);
	struct wal_status status;

	append(wal, 1, 400, 1);
	model_append(&want, 1, 400, 1);
	append(wal, 200, 200, 2); /* what was dropped lies in later segments than 199 */
	model_append(&want, 200, 200, 2);
	wal_cut(wal, 200);
	AWAIT(wal, status, status.first == 200);
	want.first = 200;
	check_reads(wal, 200, &want);
	wal_close(wal);
	wal = opened(dir, &got);
	check_model(&got, &want);
	append(wal, 250, 5, 3);
	model_append(&want, 250, 5, 3);
	wal_close(wal);
	wal = opened(dir, &got);
	check_model(&got, &want);
	wal_close(wal);
}

TEST(a_reset_drops_all_and_goes_on_above)
{
	char *dir = dir_of("reset");
	struct model want = { .first = 1 }, got;
	struct wal *wal = opened(dir, NULL);
	struct wal_status status;

	append(wal, 1, 500, 1);
	reset_to(wal, 2000, 7);
	wal_status(wal, &status);
	CHECK_NUM(status.first, 2001);
	CHECK_NUM(status.last, 2000);
	CHECK_NUM(status.before_term, 7);
	CHECK_NUM(status.segments, 1);
	wal_close(wal);
	wal = opened(dir, &got);
	CHECK_NUM(got.last, 0);
	wal_status(wal, &status);
	CHECK_NUM(status.first, 2001);
	CHECK_NUM(status.before_term, 7);
	append(wal, 2001, 30, 8);
	memset(&want, 0, sizeof want);
	want.first = 2001;
	model_append(&want, 2001, 30, 8);
	check_reads(wal, 2001, &want);
	wal_close(wal);
	wal = opened(dir, &got);
	check_model(&got, &want);
	reset_to(wal, 0, 0);
	append(wal, 1, 2, 1);
	wal_close(wal);
	wal = opened(dir, &got);
	CHECK_NUM(got.first, 1);
	CHECK_NUM(got.last, 2);
	wal_close(wal);
}

TEST(want_of_space_is_waited_for)
{
	struct wal *wal;
	struct wal_status status;

	fault_arm("wal.space", 2); /* the first is the log's own first segment */
	wal = opened(dir_of("space"), NULL);
	AWAIT(wal, status, status.full);
	CHECK(status.reserve_bytes < SEGMENT);
	append(wal, 1, 1, 1); /* what fits is stored */
	AWAIT(wal, status, !status.full && status.reserve_bytes > 2 * SEGMENT);
	fault_disarm();
	wal_close(wal);
}

/* --- readers meanwhile: for the thread sanitizer, and that no old and new entries are mixed --- */

struct reader_arg {
	struct wal *wal;
	_Atomic int stop;
	int reads;
};

static void *read_on(void *arg)
{
	struct reader_arg *reader = arg;
	struct err why;
	uint64_t seed = 1;

	while (!atomic_load(&reader->stop) || reader->reads < 100) {
		struct entry *entries[64];
		struct wal_status status;
		size_t n = 0;
		enum code rc;

		wal_status(reader->wal, &status);
		seed = mix(seed + 1);
		rc = wal_read(reader->wal, status.first + seed % 200, 20000, entries, 64, &n, &why);
		if (rc == CODE_NOT_FOUND)
			continue;
		CHECK_NUM(rc, CODE_OK);
		for (size_t i = 0; i < n; i++) {
			CHECK(entry_is_sound(entries[i]));
			if (i > 0) {
				CHECK_NUM(entries[i]->index, entries[i - 1]->index + 1);
				CHECK(entries[i]->term >= entries[i - 1]->term);
			}
		}
		for (size_t i = 0; i < n; i++)
			entry_unref(entries[i]);
		reader->reads++;
	}
	return NULL;
}

TEST(readers_see_a_log_that_is_sound_meanwhile)
{
	struct reader_arg reader = { .wal = opened(dir_of("readers"), NULL) };
	uint64_t last = 0, seed = 3;
	pthread_t thread;

	append(reader.wal, 1, 100, 1);
	last = 100;
	CHECK_NUM(pthread_create(&thread, NULL, read_on, &reader), 0);
	for (uint64_t term = 2; term < 120; term++) {
		uint64_t back = (seed = mix(seed)) % 30, first = last + 1 > back + 60 ? last + 1 - back : last + 1;

		append(reader.wal, first, 25, term);
		last = first + 24;
		if (term % 5 == 0 && last > 300)
			wal_cut(reader.wal, last - 200);
	}
	atomic_store(&reader.stop, 1);
	pthread_join(thread, NULL);
	wal_close(reader.wal);
}
