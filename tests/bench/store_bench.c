/* SPDX-License-Identifier: Apache-2.0 */
/* What the state costs: writes by batch size and by tasks that wait, reads, an agent's entries, opening, memory.
 *
 *   make bench/store_bench && build/release/bench/store_bench [-d DIR] [-n ENTRIES] [-s]     -s: also from many tasks
 */
#include "base/clock.h"
#include "base/rand.h"
#include "base/task.h"
#include "raft/replica.h"
#include "store/store.h"
#include "store/view.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[4096];

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

static long rss_kib(void)
{
	char line[256];
	long kib = 0;
	FILE *file = fopen("/proc/self/status", "r");

	while (file != NULL && fgets(line, sizeof line, file) != NULL)
		if (sscanf(line, "VmRSS: %ld", &kib) == 1)
			break;
	if (file != NULL)
		fclose(file);
	return kib;
}

/* --- commands --- */

static Pb__SPIFFEID *id_new(struct arena *arena, const char *id_path)
{
	Pb__SPIFFEID *id = arena_alloc(arena, sizeof *id);

	*id = (Pb__SPIFFEID)PB__SPIFFEID__INIT;
	id->trust_domain = "example.org";
	id->path = id_path;
	return id;
}

static Pb__Selector *selector_new(struct arena *arena, const char *type, const char *value)
{
	Pb__Selector *selector = arena_alloc(arena, sizeof *selector);

	*selector = (Pb__Selector)PB__SELECTOR__INIT;
	selector->type = type;
	selector->value = value;
	return selector;
}

static Pb__Command *create_new(struct arena *arena, const char *parent, uint64_t n)
{
	Pb__Command *command = arena_alloc(arena, sizeof *command);
	Pb__EntryCreate *create = arena_alloc(arena, sizeof *create);
	Pb__Entry *entry = arena_alloc(arena, sizeof *entry);
	char id[37];

	rand_uuid7(id);
	*command = (Pb__Command)PB__COMMAND__INIT;
	*create = (Pb__EntryCreate)PB__ENTRY_CREATE__INIT;
	*entry = (Pb__Entry)PB__ENTRY__INIT;
	entry->id = arena_strdup(arena, id);
	entry->parent_id = id_new(arena, parent);
	entry->spiffe_id = id_new(arena, arena_printf(arena, "/ns/production/sa/service-%" PRIu64, n));
	entry->n_selectors = 3;
	entry->selectors = arena_alloc(arena, 3 * sizeof(void *));
	entry->selectors[0] = selector_new(arena, "k8s", "ns:production");
	entry->selectors[1] = selector_new(arena, "k8s", arena_printf(arena, "sa:service-%" PRIu64, n));
	entry->selectors[2] = selector_new(arena, "k8s", "pod-label:app:web");
	create->entry = entry;
	command->format = 1;
	command->kind_case = PB__COMMAND__KIND_ENTRY_CREATE;
	command->entry_create = create;
	return command;
}

static Pb__Command *attest_new(struct arena *arena, const char *id)
{
	Pb__Command *command = arena_alloc(arena, sizeof *command);
	Pb__AgentAttest *attest = arena_alloc(arena, sizeof *attest);
	Pb__AgentSvid *svid = arena_alloc(arena, sizeof *svid);

	*command = (Pb__Command)PB__COMMAND__INIT;
	*attest = (Pb__AgentAttest)PB__AGENT_ATTEST__INIT;
	*svid = (Pb__AgentSvid)PB__AGENT_SVID__INIT;
	svid->serial = "123456789012345678901234567890";
	svid->not_after = INT64_C(4000000000);
	attest->id = id;
	attest->attestation_type = "k8s_psat";
	attest->svid = svid;
	attest->n_selectors = 2;
	attest->selectors = arena_alloc(arena, 2 * sizeof(void *));
	attest->selectors[0] = selector_new(arena, "k8s_psat", "cluster:prod");
	attest->selectors[1] = selector_new(arena, "k8s_psat", "agent_ns:spire");
	command->format = 1;
	command->kind_case = PB__COMMAND__KIND_AGENT_ATTEST;
	command->agent_attest = attest;
	return command;
}

/* --- writing --- */

static const char *agent_path(struct arena *arena, uint64_t n)
{
	return arena_printf(arena, "/spire/agent/k8s_psat/prod/%08" PRIx64 "-1111-2222-3333-444455556666",
			    n * 2654435761u % 4294967296u);
}

static uint64_t made;

static void fill(struct store *store, struct checkpointer *checkpointer, uint64_t n, unsigned batch, uint64_t per_agent,
		 const char *what)
{
	struct err err = { 0 };
	double begin = now_s(), apply = 0;

	for (uint64_t done = 0; done < n;) {
		struct arena *arena = arena_new();
		struct store_item *items = arena_alloc(arena, 1024 * sizeof *items);
		size_t k = 0;
		double at;
		uint32_t left;

		for (; k < batch && done < n; k++, done++) {
			const char *parent = agent_path(arena, per_agent == 0 ? rand_u64() % 1000 : made / per_agent);

			items[k].command = create_new(arena, parent, made++);
		}
		at = now_s();
		must(store_apply(store, store_applied(store) + 1, 1000, items, k, arena, &err), &err);
		apply += now_s() - at;
		for (size_t i = 0; i < k; i++)
			if (items[i].outcome->code != CODE_OK) {
				fprintf(stderr, "%s\n", items[i].outcome->message);
				exit(1);
			}
		arena_free(arena);
		if (store_wal_frames(store) > 16384)
			must(checkpointer_run(checkpointer, true, &left, &err), &err);
	}
	printf("%-44s %9.0f/s  (%.0f/s with the checkpoints and the making of commands)\n", what, (double)n / apply,
	       (double)n / (now_s() - begin));
}

static void attest_all(struct store *store, uint64_t n)
{
	struct err err = { 0 };

	for (uint64_t i = 0; i < n; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		struct store_item item;

		item.command = attest_new(arena, arena_printf(arena, "spiffe://example.org%s", agent_path(arena, i)));
		must(store_apply(store, store_applied(store) + 1, 1000, &item, 1, arena, &err), &err);
	}
}

/* --- reading --- */

static enum code add_bytes(const struct entry_row *row, void *ctx, struct err *err __attribute__((unused)))
{
	*(size_t *)ctx += row->blob.len;
	return CODE_OK;
}

enum { ROUNDS = 20000 };

static void time_views(struct reader *reader)
{
	struct err err = { 0 };
	struct view *view;
	double begin = now_s();

	for (int i = 0; i < ROUNDS; i++) {
		must(view_open(reader, &view, &err), &err);
		view_close(view);
	}
	printf("%-44s %9.2f us\n", "a view, opened and closed", (now_s() - begin) * 1e6 / ROUNDS);
}

static void time_agent(struct reader *reader, uint64_t agents)
{
	struct err err = { 0 };
	struct view *view;
	double begin = now_s();

	for (int i = 0; i < ROUNDS; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		struct agent_record agent;

		must(view_open(reader, &view, &err), &err);
		must(view_agent(view,
				arena_printf(arena, "spiffe://example.org%s", agent_path(arena, rand_u64() % agents)),
				arena, &agent, &err),
		     &err);
		view_close(view);
	}
	printf("%-44s %9.2f us\n", "agent by id, with its view", (now_s() - begin) * 1e6 / ROUNDS);
}

static void time_rights(struct reader *reader)
{
	struct err err = { 0 };
	struct view *view;
	double begin = now_s();

	for (int i = 0; i < ROUNDS; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		bool admin, downstream;

		must(view_open(reader, &view, &err), &err);
		must(view_caller_rights(view,
					arena_printf(arena, "spiffe://example.org/ns/production/sa/service-%" PRIu64,
						     rand_u64() % made),
					&admin, &downstream, &err),
		     &err);
		view_close(view);
	}
	printf("%-44s %9.2f us\n", "rights of a caller, with its view", (now_s() - begin) * 1e6 / ROUNDS);
}

static void time_authorized(struct reader *reader, const char *agent, const char *what, int rounds)
{
	struct err err = { 0 };
	struct view *view;
	size_t bytes = 0;
	double begin = now_s();

	for (int i = 0; i < rounds; i++) {
		bytes = 0;
		must(view_open(reader, &view, &err), &err);
		must(view_authorized_entries(view, agent, 2000, add_bytes, &bytes, &err), &err);
		view_close(view);
	}
	printf("%-44s %9.1f us  (%zu bytes)\n", what, (now_s() - begin) * 1e6 / rounds, bytes);
}

static enum code keep_id(const struct entry_row *row, void *ctx, struct err *err __attribute__((unused)))
{
	snprintf(ctx, 64, "%s", row->id);
	return CODE_OK;
}

static void time_one_authorized(struct reader *reader, const char *agent)
{
	struct err err = { 0 };
	struct view *view;
	char id[64] = "";
	double begin;

	must(view_open(reader, &view, &err), &err);
	must(view_authorized_entries(view, agent, 2000, keep_id, id, &err), &err);
	view_close(view);
	begin = now_s();
	for (int i = 0; i < ROUNDS; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		Pb__Entry *entry;

		must(view_open(reader, &view, &err), &err);
		must(view_authorized_entry(view, agent, id, 2000, arena, &entry, &err), &err);
		view_close(view);
	}
	printf("%-44s %9.2f us\n", "one entry from below, with its view", (now_s() - begin) * 1e6 / ROUNDS);
}

static void time_list(struct reader *reader)
{
	struct err err = { 0 };
	struct view *view;
	size_t bytes = 0;
	double begin = now_s();

	must(view_open(reader, &view, &err), &err);
	must(view_entries(view, NULL, 0, 0, add_bytes, &bytes, &err), &err);
	view_close(view);
	printf("%-44s %9.1f ms  (%zu bytes)\n", "all entries, in order of creation", (now_s() - begin) * 1e3, bytes);
}

/* --- many tasks on one replica --- */

struct waiter {
	struct replica *replica;
	_Atomic int *left;
	int rounds;
	float *took_ms; /* each of the rounds */
};

static _Atomic uint64_t task_number = 1u << 30;

static void waiter_run(void *arg)
{
	struct waiter *waiter = arg;

	for (int i = 0; i < waiter->rounds; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		struct err err = { 0 };
		Pb__Outcome *out;
		uint64_t n = atomic_fetch_add(&task_number, 1);
		double begin = now_s();

		must(propose(waiter->replica, create_new(arena, agent_path(arena, n / 100), n), INT64_MAX, arena, &out,
			     &err),
		     &err);
		waiter->took_ms[i] = (float)((now_s() - begin) * 1e3);
	}
	atomic_fetch_sub(waiter->left, 1);
}

static int compare_floats(const void *left, const void *right)
{
	float a = *(const float *)left, b = *(const float *)right;

	return (a > b) - (a < b);
}

static void time_tasks(int tasks, int rounds)
{
	size_t n = (size_t)tasks * (size_t)rounds;
	float *took_ms = xcalloc(n, sizeof *took_ms);
	struct err err = { 0 };
	struct replica *replica;
	struct loop *loop = loop_new("bench");
	struct waiter *waiters = xcalloc((size_t)tasks, sizeof *waiters);
	_Atomic int left = tasks;
	struct replica_status status;
	double begin, took;

	must(replica_start(&(struct replica_options){ .state_path = path, .trust_domain = "example.org" }, &replica,
			   &err),
	     &err);
	for (int i = 0; i < tasks; i++) {
		waiters[i] = (struct waiter){ replica, &left, rounds, took_ms + (size_t)i * (size_t)rounds };
		task_spawn(loop, "waiter", waiter_run, &waiters[i]);
	}
	begin = now_s();
	loop_start(loop);
	while (atomic_load(&left) > 0)
		usleep(1000);
	took = now_s() - begin;
	replica_status(replica, &status);
	qsort(took_ms, n, sizeof *took_ms, compare_floats);
	printf("%3d tasks that wait for their creates %18.0f/s  (%.1f a batch; p50 %.2f, p99 %.2f, p99.9 %.2f, max "
	       "%.1f ms)\n",
	       tasks, (double)n / took, (double)status.commands / (double)status.batches, took_ms[n / 2],
	       took_ms[n * 99 / 100], took_ms[n * 999 / 1000], took_ms[n - 1]);
	free(took_ms);
	replica_stop(replica);
	loop_stop(loop);
	loop_join(loop);
	loop_free(loop);
	free(waiters);
}

static void time_open(void)
{
	struct err err = { 0 };
	struct store *store;
	struct reader *reader;
	struct view *view;
	double begin = now_s();

	must(store_open(path, "example.org", &store, &err), &err);
	must(reader_open(path, &reader, &err), &err);
	must(view_open(reader, &view, &err), &err);
	printf("%-44s %9.1f ms\n", "open to first view", (now_s() - begin) * 1e3);
	view_close(view);
	reader_close(reader);
	store_close(store);
}

int main(int argc, char **argv)
{
	const char *dir = "/tmp";
	uint64_t entries = 100000;
	bool tasks = false;
	struct err err = { 0 };
	struct store *store;
	struct checkpointer *checkpointer;
	struct reader *reader;
	struct stat st;
	uint8_t kept[32], counted[32];
	double begin;

	for (int o; (o = getopt(argc, argv, "d:n:s")) != -1;) {
		if (o == 'd')
			dir = optarg;
		else if (o == 'n')
			entries = strtoull(optarg, NULL, 10);
		else
			tasks = true;
	}
	snprintf(path, sizeof path, "%s/store-bench-%d.db", dir, (int)getpid());
	must(store_open(path, "example.org", &store, &err), &err);
	must(checkpointer_open(path, &checkpointer, &err), &err);
	printf("%-44s %9ld KiB\n", "memory at the start", rss_kib());
	fill(store, checkpointer, 1000, 1, 100, "creates, one a batch");
	fill(store, checkpointer, 20000, 64, 100, "creates, 64 a batch, 100 an agent");
	fill(store, checkpointer, 20000, 64, 0, "creates, 64 a batch, any of 1,000 agents");
	fill(store, checkpointer, entries > 51000 ? entries - 51000 : 0, 1024, 100,
	     "creates, 1,024 a batch, 100 an agent");
	{
		uint64_t keep = made;

		made = 1u << 20;
		fill(store, checkpointer, 10000, 1024, 1u << 20, "creates, 1,024 a batch, one agent");
		made = keep;
	}
	attest_all(store, 500);
	printf("%-44s %9ld KiB\n", "memory with the writer full", rss_kib());
	must(reader_open(path, &reader, &err), &err);
	time_views(reader);
	time_agent(reader, 400);
	time_rights(reader);
	time_authorized(reader, "spiffe://example.org/spire/agent/k8s_psat/prod/00000000-1111-2222-3333-444455556666",
			"authorized entries, 100", 2000);
	time_authorized(reader, "spiffe://example.org/spire/agent/k8s_psat/prod/9e3779b1-1111-2222-3333-444455556666",
			"authorized entries, 100", 2000);
	time_one_authorized(reader,
			    "spiffe://example.org/spire/agent/k8s_psat/prod/9e3779b1-1111-2222-3333-444455556666");
	time_list(reader);
	printf("%-44s %9ld KiB\n", "memory with a reader", rss_kib());
	begin = now_s();
	store_digest(store, kept);
	must(store_recount_digest(store, counted, &err), &err);
	printf("%-44s %9.1f ms  (%s)\n", "digest counted afresh", (now_s() - begin) * 1e3,
	       memcmp(kept, counted, 32) == 0 ? "the same" : "DIFFERENT");
	reader_close(reader);
	checkpointer_close(checkpointer);
	store_close(store);
	if (stat(path, &st) == 0)
		printf("%-44s %9ld KiB\n", "the file", (long)(st.st_size >> 10));
	time_open();
	if (tasks) {
		time_tasks(1, 2000);
		time_tasks(64, 2000);
		time_tasks(512, 500);
	}
	unlink(path);
	return 0;
}
