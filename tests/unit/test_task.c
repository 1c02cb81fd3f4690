/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks on a loop: waits and what ends them, order, deadlines under the real and a test's clock, cancellation, many at
 * a time. */
#include "lib/test.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/loop.h"
#include "base/sanitize.h"
#include "base/task.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static struct loop *loop;
static char trace[256];

static void note(const char *word)
{
	strncat(trace, word, sizeof trace - strlen(trace) - 1);
}

static void begin(void)
{
	trace[0] = '\0';
	loop = loop_new("test");
}

/* Runs until the last task has ended (each test's tasks end by themselves, or it would hang). */
static void end(void)
{
	while (loop_turn(loop) || loop_next_deadline_ms(loop) != INT64_MAX)
		;
	loop_free(loop);
}

/* --- a clock that stands still
 * ------------------------------------------------------------------------------------------ */

static int64_t fake_now;

static int64_t fake_ms(void *ctx)
{
	(void)ctx;
	return fake_now;
}

static const struct clock fake_clock = { fake_ms, fake_ms, NULL };

/* --- waits
 * -------------------------------------------------------------------------------------------------------------- */

static struct wait gate;
static enum code got;

static void wait_at_gate(void *arg)
{
	int64_t *deadline = arg;

	note("w");
	got = task_wait(&gate, deadline != NULL ? *deadline : INT64_MAX);
	note("r");
}

static void open_gate(void *arg)
{
	(void)arg;
	note("o");
	wait_done(&gate);
}

TEST(a_wait_ends_when_it_is_done)
{
	begin();
	gate = (struct wait){ 0 };
	got = CODE_UNKNOWN;
	task_spawn(loop, "waiter", wait_at_gate, NULL);
	task_spawn(loop, "opener", open_gate, NULL);
	end();
	CHECK_STR(trace, "wor");
	CHECK_NUM(got, CODE_OK);
	CHECK(gate.waiter == NULL && gate.done);
}

TEST(a_wait_that_is_done_before_returns_at_once)
{
	begin();
	gate = (struct wait){ 0 };
	task_spawn(loop, "opener", open_gate, NULL);
	task_spawn(loop, "waiter", wait_at_gate, NULL);
	end();
	CHECK_STR(trace, "owr");
	CHECK_NUM(got, CODE_OK);
}

TEST(a_deadline_ends_a_wait_and_the_event_after_it_finds_nobody)
{
	int64_t deadline = 1050;

	fake_now = 1000;
	clock_use(&fake_clock);
	begin();
	gate = (struct wait){ 0 };
	got = CODE_UNKNOWN;
	task_spawn(loop, "waiter", wait_at_gate, &deadline);
	loop_turn(loop);
	CHECK_NUM(loop_next_deadline_ms(loop), 1050);
	fake_now = 1049;
	loop_turn(loop);
	CHECK_STR(trace, "w");
	fake_now = 1050;
	loop_turn(loop);
	CHECK_STR(trace, "wr");
	CHECK_NUM(got, CODE_DEADLINE_EXCEEDED);
	CHECK(gate.waiter == NULL);
	wait_done(&gate); /* harmless */
	end();
	clock_use(NULL);
}

TEST(a_deadline_that_has_passed_does_not_wait_but_what_is_done_is_done)
{
	int64_t deadline = 999;

	fake_now = 1000;
	clock_use(&fake_clock);
	begin();
	gate = (struct wait){ 0 };
	task_spawn(loop, "waiter", wait_at_gate, &deadline);
	loop_turn(loop);
	CHECK_NUM(got, CODE_DEADLINE_EXCEEDED);
	gate.done = true;
	task_spawn(loop, "waiter", wait_at_gate, &deadline);
	loop_turn(loop);
	CHECK_NUM(got, CODE_OK);
	end();
	clock_use(NULL);
}

static void wait_three_times(void *arg)
{
	enum code *codes = arg;
	struct wait done = { .done = true };

	codes[0] = task_wait(&gate, INT64_MAX);
	codes[1] = task_wait(&done, INT64_MAX);
	codes[2] = task_sleep(1000);
	CHECK(task_cancelled());
}

TEST(a_cancelled_task_waits_no_more)
{
	enum code codes[3] = { CODE_UNKNOWN, CODE_UNKNOWN, CODE_UNKNOWN };
	struct task *task;

	begin();
	gate = (struct wait){ 0 };
	task = task_spawn(loop, "waiter", wait_three_times, codes);
	loop_turn(loop);
	CHECK_NUM(codes[0], CODE_UNKNOWN);
	task_cancel(task);
	CHECK(gate.waiter == NULL);
	end();
	for (int i = 0; i < 3; i++)
		CHECK_NUM(codes[i], CODE_CANCELLED);
}

TEST(a_task_cancelled_before_it_starts_runs_all_the_same)
{
	enum code codes[3] = { CODE_UNKNOWN, CODE_UNKNOWN, CODE_UNKNOWN };

	begin();
	gate = (struct wait){ 0 };
	task_cancel(task_spawn(loop, "waiter", wait_three_times, codes));
	end();
	for (int i = 0; i < 3; i++)
		CHECK_NUM(codes[i], CODE_CANCELLED);
}

static void open_and_cancel(void *arg)
{
	wait_done(&gate);
	task_cancel(arg);
}

TEST(a_wait_that_was_done_first_is_ok_in_spite_of_the_cancel_after_it)
{
	enum code codes[3] = { CODE_UNKNOWN, CODE_UNKNOWN, CODE_UNKNOWN };

	begin();
	gate = (struct wait){ 0 };
	task_spawn(loop, "killer", open_and_cancel, task_spawn(loop, "waiter", wait_three_times, codes));
	end();
	CHECK_NUM(codes[0], CODE_OK);
	CHECK_NUM(codes[1], CODE_CANCELLED);
	CHECK_NUM(codes[2], CODE_CANCELLED);
}

/* --- order
 * -------------------------------------------------------------------------------------------------------------- */

static void three_steps(void *arg)
{
	for (int i = 0; i < 3; i++) {
		note(arg);
		CHECK_NUM(task_sleep(0), CODE_OK);
	}
}

TEST(sleep_zero_lets_all_others_have_their_turn)
{
	begin();
	task_spawn(loop, "a", three_steps, "a");
	task_spawn(loop, "b", three_steps, "b");
	task_spawn(loop, "c", three_steps, "c");
	end();
	CHECK_STR(trace, "abcabcabc");
}

struct sleeper {
	int64_t ms;
	const char *name;
};

static void sleep_then_note(void *arg)
{
	struct sleeper *s = arg;

	CHECK_NUM(task_sleep(s->ms), CODE_OK);
	note(s->name);
}

TEST(sleepers_wake_in_the_order_of_their_deadlines)
{
	struct sleeper s[] = { { 30, "d" }, { 10, "b" }, { 20, "c" }, { 5, "a" }, { 40, "e" } };
	int64_t before = clock_mono_ms();

	begin();
	for (size_t i = 0; i < 5; i++)
		task_spawn(loop, "sleeper", sleep_then_note, &s[i]);
	end();
	CHECK_STR(trace, "abcde");
	CHECK(clock_mono_ms() - before >= 40);
}

/* The real loop blocks until a deadline and does not spin or oversleep: this is what the timer is for. */
static void sleep_and_stop(void *arg)
{
	CHECK_NUM(task_sleep(50), CODE_OK);
	loop_stop(arg);
}

TEST(a_running_loop_wakes_for_a_deadline)
{
	int64_t before = clock_mono_ms(), took;

	begin();
	task_spawn(loop, "sleeper", sleep_and_stop, loop);
	loop_run(loop);
	took = clock_mono_ms() - before;
	CHECK(took >= 50 && took < 5000);
	loop_free(loop);
}

/* --- many
 * --------------------------------------------------------------------------------------------------------------- */

enum { MANY = 3000 };

static struct wait waits[MANY];
static int counts[3]; /* by event, deadline, cancel */

static void wait_for_one(void *arg)
{
	size_t i = (size_t)arg;

	switch (task_wait(&waits[i], i % 3 == 1 ? fake_now + 1 + (int64_t)(i * 7919 % 1000) : fake_now + 1000000)) {
	case CODE_OK:
		counts[0]++;
		break;
	case CODE_DEADLINE_EXCEEDED:
		CHECK(i % 3 == 1);
		counts[1]++;
		break;
	default:
		CHECK(i % 3 == 2);
		counts[2]++;
	}
}

TEST(thousands_wait_and_each_ends_by_its_own_cause)
{
	static struct task *tasks[MANY];
	int64_t last;

	fake_now = 1;
	clock_use(&fake_clock);
	begin();
	memset(counts, 0, sizeof counts);
	memset(waits, 0, sizeof waits);
	for (size_t i = 0; i < MANY; i++)
		tasks[i] = task_spawn(loop, "one", wait_for_one, (void *)i);
	loop_turn(loop);
	for (size_t i = 0; i < MANY; i++)
		CHECK(waits[i].waiter == tasks[i]);
	/* Take some out of the middle of the heap, then let time pass: deadlines come in order. */
	for (size_t i = 0; i < MANY; i += 3)
		wait_done(&waits[(i * 31) % MANY / 3 * 3]);
	for (size_t i = 2; i < MANY; i += 3)
		task_cancel(tasks[i]);
	loop_turn(loop);
	CHECK_NUM(counts[0], MANY / 3);
	CHECK_NUM(counts[2], MANY / 3);
	last = 0;
	while (loop_next_deadline_ms(loop) != INT64_MAX) {
		int before = counts[1];

		CHECK(loop_next_deadline_ms(loop) > last);
		last = fake_now = loop_next_deadline_ms(loop);
		loop_turn(loop);
		CHECK(counts[1] > before);
	}
	CHECK_NUM(counts[1], MANY / 3);
	loop_free(loop);
	clock_use(NULL);
}

#ifndef WITH_TSAN /* has no memory for so many */
static void do_nothing(void *arg)
{
	(void)arg;
	counts[0]++;
}

TEST(spawning_ends_at_the_limit_and_begins_again_below_it)
{
	size_t n = 0;

	begin();
	counts[0] = 0;
	while (n < 2 * LIMIT_TASKS && task_spawn(loop, "one", do_nothing, NULL) != NULL)
		n++;
	CHECK(n <= LIMIT_TASKS);
#ifndef WITH_ASAN /* whose stacks are larger: the machine may give fewer */
	CHECK_NUM(n, LIMIT_TASKS);
#endif
	loop_turn(loop);
	CHECK_NUM(counts[0], n);
	CHECK(task_spawn(loop, "one", do_nothing, NULL) != NULL);
	end();
	CHECK_NUM(counts[0], n + 1);
}
#endif

/* --- what belongs to the task
 * ------------------------------------------------------------------------------------------- */

static int fib(int n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

/* Locals, registers and floating point survive the others. */
static void keep_locals(void *arg)
{
	uint64_t seed = (uint64_t)(uintptr_t)arg, a = seed * 3, b = seed * 5;
	volatile char block[2048];
	double x = (double)seed / 3;
	int f;

	memset((void *)(uintptr_t)block, (int)seed, sizeof block);
	for (int i = 0; i < 20; i++) {
		task_sleep(0);
		a += seed;
		b ^= a;
		x *= 1.5;
	}
	f = fib(10);
	CHECK_NUM(f, 55);
	CHECK(a == seed * 23);
	CHECK(x == (double)seed / 3 * 3325.256730079651); /* 1.5^20 */
	for (size_t i = 0; i < sizeof block; i++)
		CHECK(block[i] == (char)seed);
	(void)b;
}

TEST(a_stack_is_the_tasks_own)
{
	begin();
	for (uintptr_t i = 1; i < 40; i++)
		task_spawn(loop, "locals", keep_locals, (void *)(3 * i));
	end();
}

static void pin_and_unpin(void *arg)
{
	(void)arg;
	task_pin();
	task_pin();
	task_unpin();
	task_unpin();
	CHECK_NUM(task_sleep(0), CODE_OK);
}

TEST(pins_are_counted)
{
	begin();
	task_spawn(loop, "pins", pin_and_unpin, NULL);
	end();
	task_pin(); /* outside of a task they mean nothing */
	task_unpin();
}

static void count_task(const char *name, int64_t waiting_ms, void *ctx)
{
	int64_t *seen = ctx;

	CHECK_STR(name, "waiter");
	seen[0]++;
	seen[1] = waiting_ms;
}

TEST(task_each_says_who_waits_since_when)
{
	int64_t seen[2] = { 0, 0 };
	struct task *task;

	fake_now = 100;
	clock_use(&fake_clock);
	begin();
	gate = (struct wait){ 0 };
	task = task_spawn(loop, "waiter", wait_at_gate, NULL);
	task_each(loop, count_task, seen);
	CHECK_NUM(seen[0], 1);
	CHECK_NUM(seen[1], -1);
	loop_turn(loop);
	fake_now = 142;
	task_each(loop, count_task, seen);
	CHECK_NUM(seen[0], 2);
	CHECK_NUM(seen[1], 42);
	CHECK(task_self() == NULL);
	task_cancel(task);
	end();
	clock_use(NULL);
}

static void spawn_another(void *arg)
{
	note("p");
	if (arg == NULL)
		CHECK(task_spawn(loop_self(), "child", spawn_another, "c") != NULL);
	CHECK(task_self() != NULL);
	note("q");
}

TEST(a_task_spawns_tasks)
{
	begin();
	task_spawn(loop, "parent", spawn_another, NULL);
	end();
	CHECK_STR(trace, "pqpq");
}

static void forever(void *arg)
{
	int *ended = arg;
	struct wait never = { 0 };

	while (task_wait(&never, INT64_MAX) == CODE_OK)
		;
	++*ended;
}

TEST(loop_free_ends_tasks_that_never_ran_or_wait)
{
	int ended = 0;

	begin();
	task_spawn(loop, "waits", forever, &ended);
	loop_turn(loop);
	task_spawn(loop, "new", forever, &ended);
	loop_free(loop);
	CHECK_NUM(ended, 2);
}

/* --- the guard
 * ---------------------------------------------------------------------------------------------------------- */

static volatile int depth;

static __attribute__((noinline)) int too_deep(int n)
{
	volatile char frame[1024];

	frame[0] = (char)n;
	depth = n;
	return n > 100000 ? frame[0] : too_deep(n + 1) + frame[0];
}

static void overflow(void *arg)
{
	(void)arg;
	too_deep(0);
}

TEST(a_stack_that_overflows_ends_the_process)
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		if (freopen("/dev/null", "w", stderr) == NULL)
			_exit(0);
		begin();
		signal(SIGSEGV, SIG_DFL); /* cmocka's would go on */
		signal(SIGBUS, SIG_DFL);
		task_spawn(loop, "deep", overflow, NULL);
		loop_turn(loop);
		_exit(0);
	}
	CHECK_NUM(waitpid(pid, &status, 0), pid);
	CHECK(!(WIFEXITED(status) && WEXITSTATUS(status) == 0));
}
