/* SPDX-License-Identifier: Apache-2.0 */
/* Random bytes and UUIDs, the clock that a test sets, fault points. */
#include "lib/test.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/rand.h"

#include <ctype.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

TEST(bytes_differ_and_all_values_come)
{
	uint8_t a[300] = { 0 }, b[300] = { 0 };
	int seen[256] = { 0 }, n = 0;

	rand_bytes(a, sizeof a);
	rand_bytes(b, sizeof b);
	CHECK(memcmp(a, b, sizeof a) != 0);
	for (int i = 0; i < 2000; i++) {
		uint8_t c[7];

		rand_bytes(c, sizeof c);
		for (size_t k = 0; k < sizeof c; k++)
			n += seen[c[k]]++ == 0;
	}
	CHECK_NUM(n, 256);
	rand_bytes(a, 0);
}

TEST(a_child_has_other_bytes_than_its_parent)
{
	uint64_t ours[2], theirs[2];
	int fds[2], status;
	pid_t pid;

	rand_u64(); /* fills the pool */
	fflush(NULL);
	CHECK_NUM(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		rand_bytes(theirs, sizeof theirs);
		_exit(write(fds[1], theirs, sizeof theirs) != sizeof theirs);
	}
	rand_bytes(ours, sizeof ours);
	CHECK_NUM(read(fds[0], theirs, sizeof theirs), sizeof theirs);
	CHECK(memcmp(ours, theirs, sizeof ours) != 0);
	waitpid(pid, &status, 0);
	close(fds[0]);
	close(fds[1]);
}

TEST(unit_is_below_one)
{
	double least = 1, most = 0;

	for (int i = 0; i < 10000; i++) {
		double u = rand_unit();

		CHECK(u >= 0 && u < 1);
		least = u < least ? u : least;
		most = u > most ? u : most;
	}
	CHECK(least < 0.01 && most > 0.99);
}

static void check_uuid(const char *text, char version)
{
	CHECK_NUM(strlen(text), 36);
	for (int i = 0; i < 36; i++) {
		if (i == 8 || i == 13 || i == 18 || i == 23)
			CHECK(text[i] == '-');
		else
			CHECK(isdigit((unsigned char)text[i]) || (text[i] >= 'a' && text[i] <= 'f'));
	}
	CHECK(text[14] == version);
	CHECK(strchr("89ab", text[19]) != NULL);
}

TEST(uuids_have_their_version)
{
	char a[37], b[37];

	rand_uuid4(a);
	rand_uuid4(b);
	check_uuid(a, '4');
	CHECK(strcmp(a, b) != 0);
	rand_uuid7(a);
	check_uuid(a, '7');
}

static int64_t clock_now = 1764000000123;

static int64_t clock_ms(void *ctx)
{
	(void)ctx;
	return clock_now;
}

TEST(uuid7_begins_with_the_time_and_never_goes_back)
{
	static const struct clock clock = { clock_ms, clock_ms, NULL };
	char last[37], next[37];

	rand_uuid7(last);
	for (int i = 0; i < 20000; i++) {
		rand_uuid7(next);
		CHECK(strcmp(next, last) > 0);
		memcpy(last, next, sizeof last);
	}
	clock_use(&clock);
	clock_now = 8000000000000; /* far ahead of what has been */
	rand_uuid7(next);
	CHECK(strncmp(next, "0746a528-8000-7", 15) == 0);
	memcpy(last, next, sizeof last);
	clock_now -= 5000; /* the clock is set back */
	for (int i = 0; i < 10000; i++) {
		rand_uuid7(next);
		CHECK(strcmp(next, last) > 0);
		memcpy(last, next, sizeof last);
	}
	clock_use(NULL);
}

static void *draw(void *arg)
{
	rand_bytes(arg, 16);
	return NULL;
}

TEST(threads_draw_from_pools_of_their_own)
{
	uint8_t drawn[8][16] = { 0 };
	pthread_t threads[8];

	for (int i = 0; i < 8; i++)
		CHECK_NUM(pthread_create(&threads[i], NULL, draw, drawn[i]), 0);
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 8; i++)
		for (int k = 0; k < i; k++)
			CHECK(memcmp(drawn[i], drawn[k], 16) != 0);
}

/* --- clock
 * -------------------------------------------------------------------------------------------------------------- */

TEST(clocks_go_forward_and_a_test_may_set_them)
{
	static const struct clock clock = { clock_ms, clock_ms, NULL };
	int64_t mono = clock_mono_ms(), boot = clock_boot_ms(), wall = clock_wall_ms();

	CHECK(wall > 1700000000000 && clock_wall_s() >= wall / 1000 && clock_wall_ns() / 1000000 >= wall);
	CHECK(clock_mono_ms() >= mono && clock_boot_ms() >= boot);
	clock_now = 1764000000999;
	clock_use(&clock);
	CHECK_NUM(clock_wall_ms(), clock_now);
	CHECK_NUM(clock_wall_s(), 1764000000);
	CHECK_NUM(clock_wall_ns(), clock_now * 1000000);
	CHECK_NUM(clock_mono_ms(), clock_now);
	CHECK_NUM(clock_boot_ms(), clock_now);
	clock_use(NULL);
	CHECK(clock_mono_ms() != clock_now);
}

/* --- fault points
 * ------------------------------------------------------------------------------------------------------- */

TEST(a_fault_point_fails_once_at_the_pass_asked_for)
{
	CHECK(!fault_at("a"));
	fault_arm("a", 3);
	CHECK(!fault_at("a") && !fault_at("b") && !fault_at("a") && !fault_fired());
	CHECK(fault_at("a") && fault_fired());
	CHECK(!fault_at("a") && !fault_at("a") && fault_fired());
	fault_arm("b", 1);
	CHECK(!fault_fired() && !fault_at("a") && fault_at("b"));
	fault_arm("b", 1);
	fault_disarm();
	CHECK(!fault_at("b") && !fault_fired());
}

static const char *variable(void)
{
	static char name[64];

	snprintf(name, sizeof name, "%s_FAULT", NAME);
	for (char *c = name; *c != '\0'; c++)
		*c = (char)toupper((unsigned char)*c);
	return name;
}

/* This program again, with the variable set: it runs only the test named. */
static int run_again(const char *fault)
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		setenv(variable(), fault, 1);
		if (freopen("/dev/null", "w", stderr) != NULL && freopen("/dev/null", "w", stdout) != NULL)
			execl("/proc/self/exe", "again", "under_the_variable", (char *)NULL);
		_exit(99);
	}
	CHECK_NUM(waitpid(pid, &status, 0), pid);
	return status;
}

TEST(under_the_variable)
{
	if (getenv(variable()) == NULL)
		return; /* run_again's part */
	CHECK(!fault_at("test.point"));
	CHECK(fault_at("test.point"));
}

TEST(the_environment_arms_a_server_under_test)
{
	int status = run_again("test.point:2");

	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	status = run_again("test.point:1");
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	status = run_again("test.point:2:kill");
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	for (const char *const *bad = (const char *const[]){ "", "x", "x:", "x:0", "x:1:", "x:1:kil", ":1", NULL };
	     *bad != NULL; bad++) {
		status = run_again(*bad);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 2);
	}
}

TEST(zz_a_seed_makes_bytes_that_come_again) /* last: the seed stays */
{
	uint8_t a[100], b[100], c[100];

	rand_use_seed(7);
	rand_bytes(a, sizeof a);
	rand_use_seed(8);
	rand_bytes(b, sizeof b);
	rand_use_seed(7);
	rand_bytes(c, sizeof c);
	CHECK_BYTES(a, c, sizeof a);
	CHECK(memcmp(a, b, sizeof a) != 0);
}
