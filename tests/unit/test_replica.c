/* SPDX-License-Identifier: Apache-2.0 */
/* The writer's thread: proposals of tasks and threads, batches, giving up, stopping, the lock on the directory. */
#include "lib/test.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/task.h"
#include "raft/replica.h"
#include "store/view.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

struct fixture {
	struct replica *replica;
	char path[128];
};

static void begin(struct fixture *f)
{
	static int n;
	struct err err = { 0 };

	snprintf(f->path, sizeof f->path, "%s/replica-%d.db", test_dir(), n++);
	CHECK_CODE(replica_start(&(struct replica_options){ f->path, "example.org" }, &f->replica, &err), CODE_OK);
}

static void make_entry(Pb__Command *command, int n, struct arena *arena)
{
	Pb__EntryCreate *create = arena_alloc(arena, sizeof *create);
	Pb__Entry *entry = arena_alloc(arena, sizeof *entry);
	Pb__SPIFFEID *ids = arena_alloc(arena, 2 * sizeof *ids);
	Pb__Selector *selector = arena_alloc(arena, sizeof *selector), **list = arena_alloc(arena, sizeof *list);

	*command = (Pb__Command)PB__COMMAND__INIT;
	*create = (Pb__EntryCreate)PB__ENTRY_CREATE__INIT;
	*entry = (Pb__Entry)PB__ENTRY__INIT;
	ids[0] = ids[1] = (Pb__SPIFFEID)PB__SPIFFEID__INIT;
	ids[0].trust_domain = ids[1].trust_domain = "example.org";
	ids[0].path = arena_printf(arena, "/w/%d", n);
	ids[1].path = "/spire/agent/x509pop/a";
	*selector = (Pb__Selector)PB__SELECTOR__INIT;
	selector->type = "unix";
	selector->value = "uid:1000";
	list[0] = selector;
	entry->id = arena_printf(arena, "id-%d", n);
	entry->spiffe_id = &ids[0];
	entry->parent_id = &ids[1];
	entry->selectors = list;
	entry->n_selectors = 1;
	create->entry = entry;
	command->kind_case = PB__COMMAND__KIND_ENTRY_CREATE;
	command->entry_create = create;
}

static uint64_t count(struct fixture *f)
{
	struct err err = { 0 };
	struct reader *reader;
	struct view *view;
	uint64_t n;

	CHECK_CODE(reader_open(f->path, &reader, &err), CODE_OK);
	CHECK_CODE(view_open(reader, &view, &err), CODE_OK);
	CHECK_CODE(view_entry_count(view, NULL, &n, &err), CODE_OK);
	view_close(view);
	reader_close(reader);
	return n;
}

TEST(thread_proposes_and_reads_its_write)
{
	struct fixture f;
	struct err err = { 0 };
	OWN_STRUCT(arena) arena = arena_new();
	Pb__Command command;
	Pb__Outcome *out;
	struct replica_status status;

	begin(&f);
	make_entry(&command, 1, arena);
	CHECK_CODE(propose_blocking(f.replica, &command, arena, &out, &err), CODE_OK);
	CHECK_NUM(out->code, CODE_OK);
	CHECK_STR(out->entry->id, "id-1");
	CHECK_NUM(count(&f), 1);
	CHECK_CODE(propose_blocking(f.replica, &command, arena, &out, &err), CODE_OK);
	CHECK_NUM(out->code, CODE_ALREADY_EXISTS); /* a refusal is an outcome */
	replica_status(f.replica, &status);
	CHECK_NUM(status.applied, 3); /* the first entry is the configuration */
	replica_stop(f.replica);
	CHECK_NUM(count(&f), 1);
}

TEST(command_of_another_version_does_not_get_in)
{
	struct fixture f;
	struct err err = { 0 };
	OWN_STRUCT(arena) arena = arena_new();
	Pb__Command command = PB__COMMAND__INIT;
	Pb__Outcome *out;

	begin(&f);
	CHECK_CODE(propose_blocking(f.replica, &command, arena, &out, &err), CODE_UNIMPLEMENTED);
	make_entry(&command, 1, arena);
	command.format = 2;
	CHECK_CODE(propose_blocking(f.replica, &command, arena, &out, &err), CODE_UNIMPLEMENTED);
	CHECK_STR(err.text, "command of format 2: this version knows format 1");
	replica_stop(f.replica);
}

TEST(large_command_is_refused_by_name_and_the_others_are_done)
{
	enum { N = 3000 };
	struct fixture f;
	struct err err = { 0 };
	OWN_STRUCT(arena) arena = arena_new();
	Pb__Command *commands[N];
	Pb__Outcome *outs[N];
	char *hint = arena_zalloc(arena, LIMIT_COMMAND + 1);
	struct replica_status status;

	begin(&f);
	memset(hint, 'x', LIMIT_COMMAND);
	for (int i = 0; i < N; i++) {
		commands[i] = arena_alloc(arena, sizeof *commands[i]);
		make_entry(commands[i], i, arena);
	}
	commands[1]->entry_create->entry->hint = hint;
	CHECK_CODE(propose_all(f.replica, commands, N, clock_mono_ms() + 60000, arena, outs, &err), CODE_OK);
	for (int i = 0; i < N; i++)
		CHECK_NUM(outs[i]->code, i == 1 ? CODE_RESOURCE_EXHAUSTED : CODE_OK);
	CHECK(strstr(outs[1]->message, "is larger than the limit of 1048576 bytes") != NULL);
	for (int i = 0; i < N; i++)
		if (i != 1)
			CHECK_STR(outs[i]->entry->spiffe_id->path, commands[i]->entry_create->entry->spiffe_id->path);
	CHECK_NUM(count(&f), N - 1);
	replica_status(f.replica, &status);
	CHECK(status.batches >= 3 && status.batches < 12); /* LIMIT_BATCH_COMMANDS, LIMIT_BATCH_BYTES */
	replica_stop(f.replica);
}

enum { LOOPS = 2, TASKS = 50, EACH = 20 };

struct worker {
	struct fixture *f;
	int number;
	_Atomic int *left, *good;
};

static void work(void *arg)
{
	struct worker *worker = arg;

	for (int i = 0; i < EACH; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		struct err err = { 0 };
		Pb__Command command;
		Pb__Outcome *out;

		make_entry(&command, worker->number * EACH + i, arena);
		if (propose(worker->f->replica, &command, INT64_MAX, arena, &out, &err) == CODE_OK &&
		    out->code == CODE_OK)
			atomic_fetch_add(worker->good, 1);
	}
	atomic_fetch_sub(worker->left, 1);
}

static void wait_zero(_Atomic int *left)
{
	int64_t deadline = clock_mono_ms() + 60000;

	while (atomic_load(left) > 0 && clock_mono_ms() < deadline)
		usleep(1000);
	CHECK_NUM(atomic_load(left), 0);
}

TEST(tasks_of_several_loops_share_batches)
{
	struct fixture f;
	struct loop *loops[LOOPS];
	struct worker workers[LOOPS * TASKS];
	_Atomic int left = LOOPS * TASKS, good = 0;
	struct replica_status status;

	begin(&f);
	for (int i = 0; i < LOOPS; i++) {
		loops[i] = loop_new("test");
		for (int k = 0; k < TASKS; k++) {
			workers[i * TASKS + k] = (struct worker){ &f, i * TASKS + k, &left, &good };
			CHECK(task_spawn(loops[i], "work", work, &workers[i * TASKS + k]) != NULL);
		}
	}
	for (int i = 0; i < LOOPS; i++)
		loop_start(loops[i]);
	wait_zero(&left);
	CHECK_NUM(atomic_load(&good), LOOPS * TASKS * EACH);
	replica_status(f.replica, &status);
	CHECK_NUM(status.commands, LOOPS * TASKS * EACH);
	CHECK(status.batches < status.commands / 2);
	replica_stop(f.replica);
	for (int i = 0; i < LOOPS; i++) {
		loop_stop(loops[i]);
		loop_join(loops[i]);
		loop_free(loops[i]);
	}
	CHECK_NUM(count(&f), LOOPS * TASKS * EACH);
}

struct quitter {
	struct fixture *f;
	enum code code;
	char text[ERR_TEXT_MAX];
	_Atomic int left;
};

static void give_up_at_once(void *arg)
{
	struct quitter *quitter = arg;
	OWN_STRUCT(arena) arena = arena_new();
	struct err err = { 0 };
	Pb__Command command;
	Pb__Outcome *out;

	make_entry(&command, 7, arena);
	quitter->code = propose(quitter->f->replica, &command, clock_mono_ms() - 1, arena, &out, &err);
	snprintf(quitter->text, sizeof quitter->text, "%s", err.text);
	atomic_store(&quitter->left, 0);
}

/* The deadline is over before the outcome can be there: the text says which of the two it is, and it is so. */
TEST(waiter_may_give_up)
{
	for (int round = 0; round < 20; round++) {
		struct fixture f;
		struct quitter quitter = { .f = &f, .left = 1 };
		struct loop *loop = loop_new("test");
		bool nothing;

		begin(&f);
		CHECK(task_spawn(loop, "quit", give_up_at_once, &quitter) != NULL);
		loop_start(loop);
		wait_zero(&quitter.left);
		replica_stop(f.replica);
		loop_stop(loop);
		loop_join(loop);
		loop_free(loop);
		CHECK_NUM(quitter.code, CODE_UNAVAILABLE);
		nothing = strcmp(quitter.text,
				 "the deadline passed before the change had its turn: nothing was changed") == 0;
		if (nothing)
			CHECK_NUM(count(&f), 0);
		else
			CHECK(strncmp(quitter.text, "outcome unknown: ", 17) == 0);
	}
}

TEST(file_of_another_trust_domain_is_refused)
{
	struct fixture f;
	struct err err = { 0 };
	struct replica *other;

	begin(&f);
	replica_stop(f.replica);
	CHECK_CODE(replica_start(&(struct replica_options){ f.path, "other.org" }, &other, &err),
		   CODE_FAILED_PRECONDITION);
	CHECK(strstr(err.text, "belongs to trust domain 'example.org', the configuration says 'other.org'") != NULL);
}

/* A write that fails is nobody's outcome: the process ends, and what was acknowledged before is there. */
TEST(failed_write_ends_the_process)
{
	struct fixture f;
	OWN_STRUCT(arena) arena = arena_new();
	struct err err = { 0 };
	Pb__Command command;
	Pb__Outcome *out;
	int status;
	pid_t child;

	begin(&f);
	replica_stop(f.replica);
	fflush(NULL);
	child = fork();
	if (child == 0) {
		if (replica_start(&(struct replica_options){ f.path, "example.org" }, &f.replica, &err) != CODE_OK)
			_exit(10);
		make_entry(&command, 1, arena);
		if (propose_blocking(f.replica, &command, arena, &out, &err) != CODE_OK)
			_exit(11);
		fault_arm("store.commit", 1);
		make_entry(&command, 2, arena);
		propose_blocking(f.replica, &command, arena, &out, &err);
		_exit(12); /* it must not come back */
	}
	CHECK(waitpid(child, &status, 0) == child);
	CHECK(WIFEXITED(status));
	CHECK_NUM(WEXITSTATUS(status), 1);
	CHECK_NUM(count(&f), 1);
}

static enum code restart(struct fixture *f, struct err *err)
{
	return replica_start(&(struct replica_options){ f->path, "example.org" }, &f->replica, err);
}

static void propose_one(struct fixture *f, int n)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct err err = { 0 };
	Pb__Command command;
	Pb__Outcome *out;

	make_entry(&command, n, arena);
	CHECK_CODE(propose_blocking(f->replica, &command, arena, &out, &err), CODE_OK);
	CHECK_NUM(out->code, CODE_OK);
}

TEST(a_restart_goes_on_where_it_was)
{
	struct replica_status before, after;
	struct err err = { 0 };
	struct fixture f;

	begin(&f);
	propose_one(&f, 1);
	replica_status(f.replica, &before);
	replica_stop(f.replica);
	CHECK_CODE(restart(&f, &err), CODE_OK);
	propose_one(&f, 2);
	replica_status(f.replica, &after);
	CHECK(after.applied > before.applied);
	replica_stop(f.replica);
	CHECK_NUM(count(&f), 2);
}

/* Killed between the log's fsync and the state's transaction, at each of the two: what was committed is carried out by the next
 * start, once. */
TEST(what_the_log_holds_is_carried_out_by_the_next_start)
{
	static const char *const points[] = { "store.begin", "store.commit", "store.committed" };

	for (size_t p = 0; p < sizeof points / sizeof points[0]; p++) {
		OWN_STRUCT(arena) arena = arena_new();
		struct err err = { 0 };
		struct fixture f;
		Pb__Command command;
		Pb__Outcome *out;
		int status;
		pid_t child;

		begin(&f);
		replica_stop(f.replica);
		fflush(NULL);
		child = fork();
		if (child == 0) {
			if (restart(&f, &err) != CODE_OK)
				_exit(10);
			make_entry(&command, 1, arena);
			fault_arm(points[p], 1);
			propose_blocking(f.replica, &command, arena, &out, &err);
			_exit(12);
		}
		CHECK(waitpid(child, &status, 0) == child);
		CHECK_NUM(WEXITSTATUS(status), 1);
		CHECK_CODE(restart(&f, &err), CODE_OK);
		propose_one(&f, 2); /* all that came before it is in the state */
		CHECK_NUM(count(&f), 2);
		replica_stop(f.replica);
	}
}

TEST(a_state_without_its_log_is_refused)
{
	struct err err = { 0 };
	struct fixture f;
	char from[160], to[160];

	begin(&f);
	propose_one(&f, 1);
	replica_stop(f.replica);
	snprintf(from, sizeof from, "%s-raft", f.path);
	snprintf(to, sizeof to, "%s-away", f.path);
	CHECK_NUM(rename(from, to), 0);
	CHECK_CODE(restart(&f, &err), CODE_DATA_LOSS);
	CHECK(strstr(err.text, f.path) != NULL && strstr(err.text, "restore the data directory as a whole") != NULL);
	CHECK_NUM(rename(to, from), 0);
	CHECK_CODE(restart(&f, &err), CODE_OK);
	replica_stop(f.replica);
}
