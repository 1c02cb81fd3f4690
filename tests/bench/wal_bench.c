/* SPDX-License-Identifier: Apache-2.0 */
/* What the log on disk costs: appends a second and their latency by how many are in flight, fdatasyncs, recovery,
 * reading back.
 *
 *   make bench/wal_bench && build/release/bench/wal_bench [-d DIR] [-n APPENDS] [-p PAYLOAD] */
#include "base/arena.h"
#include "base/crc.h"
#include "base/loop.h"
#include "raft/wal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { IN_FLIGHT_MAX = 1024 };

struct run {
	struct wal *wal;
	struct loop *loop;
	uint64_t next, end; /* indexes */
	uint64_t done, asked;
	unsigned payload;
	double *took;
	uint64_t cut_at;
};

struct append {
	struct wal_write write;
	struct entry *entry;
	struct run *run;
	double begun;
};

static void must(enum code rc, const struct err *err)
{
	if (rc == CODE_OK)
		return;
	fprintf(stderr, "%s: %s\n", code_name(rc), err->text);
	exit(1);
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void append_done(struct message *message);

static void append_next(struct append *append)
{
	struct run *run = append->run;

	append->entry = entry_new(run->next, 1, ENTRY_COMMAND, NULL, run->payload);
	memset(append->entry->data, (int)run->next, run->payload);
	append->write = (struct wal_write){ .first = run->next++, .entries = &append->entry, .n = 1 };
	append->write.done.deliver = append_done;
	append->begun = now_s();
	run->asked++;
	wal_write(run->wal, &append->write);
}

static void append_done(struct message *message)
{
	struct append *append = (struct append *)(void *)message;
	struct run *run = append->run;

	entry_unref(append->entry);
	run->took[run->done++] = now_s() - append->begun;
	if (run->done >= run->cut_at) { /* as a checkpoint would */
		wal_cut(run->wal, run->next - 1000);
		run->cut_at += 100000;
	}
	if (run->next < run->end)
		append_next(append);
	else if (run->done == run->asked)
		loop_stop(run->loop);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static struct wal *open_log(const char *dir, struct loop *loop)
{
	struct wal_options options = { .dir = dir, .owner = "bench", .make = true, .loop = loop };
	struct err err = { 0 };
	struct wal *wal;

	must(wal_open(&options, NULL, &wal, &err), &err);
	return wal;
}

static void time_appends(const char *dir, unsigned in_flight, uint64_t n, unsigned payload)
{
	struct loop *loop = loop_new("bench");
	struct run run = { .loop = loop, .payload = payload, .cut_at = 100000 };
	struct append *appends = xcalloc(in_flight, sizeof *appends);
	struct wal_status before, after;
	double begin, took;

	run.wal = open_log(dir, loop);
	run.took = xcalloc(n + in_flight, sizeof *run.took);
	wal_status(run.wal, &before);
	run.next = before.last + 1;
	run.end = run.next + n;
	begin = now_s();
	for (unsigned i = 0; i < in_flight; i++) {
		appends[i].run = &run;
		append_next(&appends[i]);
	}
	loop_run(loop);
	took = now_s() - begin;
	wal_status(run.wal, &after);
	qsort(run.took, run.done, sizeof *run.took, by_value);
	printf("%4u in flight, %u bytes: %9.0f appends/s, %" PRIu64 " fdatasyncs for %" PRIu64
	       ", p50 %.0f us, p99 %.0f us, max %.0f us\n",
	       in_flight, payload, (double)run.done / took, after.syncs, run.done, run.took[run.done / 2] * 1e6,
	       run.took[run.done * 99 / 100] * 1e6, run.took[run.done - 1] * 1e6);
	wal_close(run.wal);
	loop_free(loop);
	free(run.took);
	free(appends);
}

static void time_recovery(const char *dir)
{
	double begin = now_s(), took;
	struct wal *wal = open_log(dir, NULL);
	struct wal_status status;
	struct entry *entries[64];
	struct err err = { 0 };
	uint64_t read = 0, bytes = 0;
	size_t n = 1;

	took = now_s() - begin;
	wal_status(wal, &status);
	printf("recovery of %" PRIu64 " entries in %u segments: %.1f ms\n", status.last - status.first + 1,
	       status.segments, took * 1e3);
	begin = now_s();
	for (uint64_t from = status.first; n > 0; from += n) {
		must(wal_read(wal, from, 256 << 10, entries, 64, &n, &err), &err);
		for (size_t i = 0; i < n; i++) {
			bytes += entries[i]->len;
			entry_unref(entries[i]);
		}
		read += n;
	}
	printf("reading back: %.0f entries/s, %.0f MB/s\n", (double)read / (now_s() - begin),
	       (double)bytes / (now_s() - begin) / 1e6);
	wal_close(wal);
}

static void time_crc(void)
{
	static uint8_t block[1 << 20];
	uint32_t crc = 0;
	double begin = now_s(), took;

	for (int i = 0; i < 1000; i++)
		crc = crc32c(crc, block, sizeof block);
	took = now_s() - begin;
	begin = now_s();
	for (int i = 0; i < 100; i++)
		crc = crc32c_table(crc, block, sizeof block);
	printf("crc32c: %.1f GB/s, by tables %.1f GB/s (%08x)\n", 1000 * sizeof block / took / 1e9,
	       100 * sizeof block / (now_s() - begin) / 1e9, crc);
}

int main(int argc, char **argv)
{
	static const unsigned in_flight[] = { 1, 16, 64, IN_FLIGHT_MAX };
	const char *parent = "/tmp";
	unsigned payload = 300;
	uint64_t n = 200000;
	static char dir[4096], command[4200];

	for (int o; (o = getopt(argc, argv, "d:n:p:")) != -1;) {
		if (o == 'd')
			parent = optarg;
		else if (o == 'n')
			n = strtoull(optarg, NULL, 10);
		else
			payload = (unsigned)strtoul(optarg, NULL, 10);
	}
	snprintf(dir, sizeof dir, "%s/wal-bench-%d", parent, (int)getpid());
	for (size_t i = 0; i < sizeof in_flight / sizeof *in_flight; i++)
		time_appends(dir, in_flight[i], in_flight[i] == 1 ? n / 40 : in_flight[i] == 16 ? n / 4 : n, payload);
	time_recovery(dir);
	time_crc();
	snprintf(command, sizeof command, "rm -r '%s'", dir);
	return system(command) == 0 ? 0 : 1;
}
