/* SPDX-License-Identifier: Apache-2.0 */
/* The writer's process dies: at each step, and at moments that nobody chose, with a checkpointer beside it. What is in
 * the file afterwards is the state of exactly the batches up to its applied index, and all that had been acknowledged
 * is among them. */
#include "lib/state.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/rand.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BATCHES = 400 };

static uint8_t digests[BATCHES + 1][32]; /* of the state after each batch */

/* --- the same commands each time --- */

static void add(Pb__Command *command, Pb__Command__KindCase kind, void *message)
{
	*command = (Pb__Command)PB__COMMAND__INIT;
	command->format = 1;
	command->kind_case = kind;
	command->entry_create = message;
}

static Pb__EntryCreate *create_of(struct state *s, int n)
{
	Pb__EntryCreate *m = arena_alloc(s->arena, sizeof *m);

	*m = (Pb__EntryCreate)PB__ENTRY_CREATE__INIT;
	m->entry = state_entry(s, arena_printf(s->arena, "e%d", n),
			       n % 7 == 0 ? "/spire/server" : arena_printf(s->arena, "/spire/agent/t/%d", n % 5),
			       arena_printf(s->arena, "/w/%d", n % 50), arena_printf(s->arena, "t:%d u:x", n));
	return m;
}

static Pb__AgentAttest *attest_of(struct state *s, int n)
{
	Pb__AgentAttest *m = arena_alloc(s->arena, sizeof *m);
	Pb__AgentSvid *svid = arena_alloc(s->arena, sizeof *svid);

	*m = (Pb__AgentAttest)PB__AGENT_ATTEST__INIT;
	*svid = (Pb__AgentSvid)PB__AGENT_SVID__INIT;
	svid->serial = arena_printf(s->arena, "%d", n + 1);
	svid->not_after = 1000 + n;
	m->id = arena_printf(s->arena, "spiffe://example.org/spire/agent/t/%d", n % 5);
	m->attestation_type = "t";
	m->svid = svid;
	m->selectors = state_selectors(s, "t:1 u:x", &m->n_selectors);
	return m;
}

static enum code apply_batch(struct state *s, int index, struct err *err)
{
	Pb__Command commands[4];
	struct store_item items[4];
	Pb__EntryDelete gone = PB__ENTRY_DELETE__INIT;
	Pb__EntryUpdate change = PB__ENTRY_UPDATE__INIT;
	int n = 0;

	add(&commands[n++], PB__COMMAND__KIND_ENTRY_CREATE, create_of(s, index));
	add(&commands[n++], PB__COMMAND__KIND_AGENT_ATTEST, attest_of(s, index));
	change.entry = create_of(s, index * 3 % (index + 1))->entry;
	add(&commands[n++], PB__COMMAND__KIND_ENTRY_UPDATE, &change);
	gone.id = arena_printf(s->arena, "e%d", index / 2);
	add(&commands[n++], PB__COMMAND__KIND_ENTRY_DELETE, &gone);
	commands[0].request_id = (ProtobufCBinaryData){ 4, arena_memdup(s->arena, &index, 4) };
	for (int i = 0; i < n; i++)
		items[i].command = &commands[i];
	return store_apply(s->store, (uint64_t)index, 1000 * (int64_t)index, items, (size_t)n, s->arena, err);
}

static void make_reference(void)
{
	static bool made;
	struct state s;
	struct err err = { 0 };

	if (made)
		return;
	made = true;
	state_begin(&s);
	store_digest(s.store, digests[0]);
	for (int i = 1; i <= BATCHES; i++) {
		CHECK_CODE(apply_batch(&s, i, &err), CODE_OK);
		store_digest(s.store, digests[i]);
	}
	state_end(&s);
}

/* --- a process that writes until it dies --- */

static void *checkpoint_for_ever(void *path)
{
	struct checkpointer *checkpointer;
	struct err err = { 0 };
	uint32_t left;

	if (checkpointer_open(path, &checkpointer, &err) != CODE_OK)
		_exit(3);
	for (int i = 0;; i++) {
		if (checkpointer_run(checkpointer, i % 3 == 0, &left, &err) != CODE_OK)
			_exit(3);
		usleep(500);
	}
	return NULL;
}

/* Tells each index through `out` once its batch has been acknowledged. */
static __attribute__((noreturn)) void write_until_death(const char *path, int out, const char *fault, unsigned nth)
{
	struct state s = { .arena = arena_new() };
	struct err err = { 0 };
	pthread_t thread;

	snprintf(s.path, sizeof s.path, "%s", path);
	if (fault != NULL)
		fault_arm(fault, nth);
	if (store_open(path, "example.org", &s.store, &err) != CODE_OK)
		kill(getpid(), SIGKILL);
	if (fault == NULL)
		pthread_create(&thread, NULL, checkpoint_for_ever, s.path);
	for (int i = (int)store_applied(s.store) + 1; i <= BATCHES; i++) {
		if (apply_batch(&s, i, &err) != CODE_OK)
			kill(getpid(), SIGKILL); /* at the step where it failed, nothing cleaned up */
		if (write(out, &i, sizeof i) != sizeof i)
			_exit(4);
	}
	_exit(0);
}

static int read_last(int from, int last)
{
	int index;

	while (read(from, &index, sizeof index) == sizeof index)
		last = index;
	return last;
}

/* What must hold of a file after a death; answers its applied index. */
static int check_file(const char *path, int acknowledged)
{
	struct state s = { .arena = arena_new() };
	struct err err = { 0 };
	uint8_t kept[32];
	int applied;

	snprintf(s.path, sizeof s.path, "%s", path);
	CHECK_CODE(store_open(path, "example.org", &s.store, &err), CODE_OK);
	applied = (int)store_applied(s.store);
	CHECK(applied >= acknowledged && applied <= acknowledged + 1);
	store_digest(s.store, kept);
	CHECK_BYTES(kept, digests[applied], 32);
	state_check_digest(&s);
	store_close(s.store);
	arena_free(s.arena);
	return applied;
}

static void new_path(char *path, size_t size)
{
	static int n;

	snprintf(path, size, "%s/crash-%d.db", test_dir(), n++);
}

TEST(death_at_each_step)
{
	static const char *const points[] = { "store.create", "store.begin", "store.row", "store.commit",
					      "store.committed" };

	make_reference();
	for (size_t p = 0; p < sizeof points / sizeof points[0]; p++)
		for (unsigned nth = 1; nth < 60; nth += p == 2 ? 7 : 20) {
			char path[160];
			int ends[2], status, acknowledged;
			pid_t child;

			new_path(path, sizeof path);
			CHECK(pipe(ends) == 0);
			child = fork();
			if (child == 0)
				write_until_death(path, ends[1], points[p], nth);
			close(ends[1]);
			acknowledged = read_last(ends[0], 0);
			close(ends[0]);
			CHECK(waitpid(child, &status, 0) == child);
			if (p == 0 && nth > 1) {
				CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0); /* it is made once */
				break;
			}
			CHECK(WIFSIGNALED(status));
			check_file(path, acknowledged);
		}
}

TEST(death_at_any_moment)
{
	char path[160];
	int acknowledged = 0, deaths = 0;
	struct timespec pause = { 0, 0 };

	make_reference();
	new_path(path, sizeof path);
	while (acknowledged < BATCHES && deaths < 60) {
		int ends[2], status;
		pid_t child;

		CHECK(pipe(ends) == 0);
		child = fork();
		if (child == 0)
			write_until_death(path, ends[1], NULL, 0);
		close(ends[1]);
		pause.tv_nsec = (long)(rand_u64() % 30000000); /* up to 30 ms: several batches, several checkpoints */
		nanosleep(&pause, NULL);
		kill(child, SIGKILL);
		acknowledged = read_last(ends[0], acknowledged);
		close(ends[0]);
		CHECK(waitpid(child, &status, 0) == child);
		CHECK(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
		deaths++;
		acknowledged = check_file(path, acknowledged);
	}
	print_message("%d deaths, %d batches\n", deaths, acknowledged);
	CHECK(deaths > 1);
}
