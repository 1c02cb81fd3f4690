/* SPDX-License-Identifier: Apache-2.0 */
/* A process that writes the log is ended: by SIGKILL anywhere, by a disk that fails at each step. What it had said to
 * be stored is there afterwards, and nothing else than what it wrote, in that order. */
#include "base/fault.h"
#include "base/log.h"
#include "base/rand.h"
#include "lib/wal_log.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static struct err err;

__attribute__((constructor)) static void quiet(void)
{
	log_set_level(LOG_PANIC);
}

/* --- what the child does follows from a seed, so that the parent can follow it --- */

enum step_kind { STEP_WRITE, STEP_RESET };

struct step {
	enum step_kind kind;
	uint64_t first, term;
	size_t n;
	uint64_t cut_below; /* asked for after it; 0: none */
};

struct script {
	uint64_t seed, number; /* of the next step, from 1 */
	uint64_t first, last, term;
};

static struct step next_step(struct script *script)
{
	uint64_t dice = mix(script->seed + script->number++);
	struct step step = { .kind = STEP_WRITE, .n = 1 + dice / 7 % 12 };
	uint64_t back = dice / 100 % 15;

	if (dice % 40 == 0) {
		step.kind = STEP_RESET;
		script->last += dice / 64 % 50;
		script->term++;
		step.first = script->last;
		step.term = script->term;
		script->first = script->last + 1;
		return step;
	}
	if (dice % 5 == 0) {
		script->term++;
		if (script->last > script->first + back + 1)
			script->last -= back;
	}
	step.first = script->last + 1;
	step.term = script->term;
	script->last += step.n;
	if (dice % 9 == 0 && script->last > script->first + 40) {
		script->first = script->last - 40;
		step.cut_below = script->first;
	}
	return step;
}

/* --- the child --- */

enum { IN_FLIGHT = 4 };

struct done_pipe {
	struct wal_write write;
	struct entry *entries[16];
	int fd;
	uint64_t number;
	pthread_mutex_t *lock;
	pthread_cond_t *wake;
	int *in_flight;
};

static void say_done(struct message *message)
{
	struct done_pipe *done = (struct done_pipe *)(void *)message;

	if (write(done->fd, &done->number, sizeof done->number) != sizeof done->number)
		_exit(4);
	for (size_t i = 0; i < done->write.n; i++)
		entry_unref(done->entries[i]);
	pthread_mutex_lock(done->lock);
	--*done->in_flight;
	pthread_cond_signal(done->wake);
	pthread_mutex_unlock(done->lock);
	free(done);
}

static void ask(struct wal *wal, const struct step *step, struct done_pipe *done)
{
	done->write.done.deliver = say_done;
	if (step->kind == STEP_RESET) {
		wal_reset(wal, &done->write, step->first, step->term);
		return;
	}
	for (size_t i = 0; i < step->n; i++)
		done->entries[i] = entry_of(step->first + i, step->term);
	done->write.first = step->first;
	done->write.entries = done->entries;
	done->write.n = step->n;
	wal_write(wal, &done->write);
	if (step->cut_below != 0)
		wal_cut(wal, step->cut_below);
}

/* Goes on with the script for `steps`. Exits 0 at their end. */
static void child(const char *dir, struct script script, int steps, int fd)
{
	struct wal_options options = options_of(dir);
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
	struct wal *wal;
	int in_flight = 0;

	if (wal_open(&options, NULL, &wal, &err) != CODE_OK)
		_exit(3);
	for (int i = 0; i < steps; i++) {
		struct done_pipe *done = xcalloc(1, sizeof *done);
		struct step step;

		pthread_mutex_lock(&lock);
		while (in_flight == IN_FLIGHT)
			pthread_cond_wait(&wake, &lock);
		in_flight++;
		pthread_mutex_unlock(&lock);
		done->number = script.number;
		done->fd = fd;
		done->lock = &lock;
		done->wake = &wake;
		done->in_flight = &in_flight;
		step = next_step(&script);
		ask(wal, &step, done);
	}
	wal_close(wal);
	_exit(0);
}

/* --- the parent --- */

static void apply(struct model *model, const struct step *step)
{
	if (step->kind == STEP_RESET) {
		model->first = step->first + 1;
		model->last = step->first;
	} else {
		model_append(model, step->first, step->n, step->term);
	}
}

/* The log may begin earlier than the model says: cuts are lazy, but never go above what was asked for. */
static bool same(const struct model *got, uint64_t got_first, const struct model *want, uint64_t last)
{
	if (got->last != last && !(got->last == 0 && got_first == last + 1))
		return false;
	if (got->last == 0)
		return true;
	for (uint64_t index = got_first; index <= got->last; index++)
		if (index >= want->first && got->terms[index] != want->terms[index])
			return false;
	return true;
}

/* Whether what was recovered is the model with a part of the step; the script then goes on from there. */
static bool partly(const struct model *got, uint64_t got_first, const struct model *before, const struct step *step)
{
	struct model part = *before;

	if (step->kind == STEP_RESET)
		return false;
	for (size_t n = 0; n < step->n; n++) {
		part = *before;
		part.last = step->first - 1;
		if (n > 0)
			model_append(&part, step->first, n, step->term);
		if (same(got, got_first, &part, part.last))
			return true;
	}
	return false;
}

/* The numbers of the steps that were said to be done, in order. */
static uint64_t read_done(int fd, uint64_t from)
{
	uint64_t number;

	while (read(fd, &number, sizeof number) == sizeof number) {
		CHECK_NUM(number, from + 1);
		from = number;
	}
	return from;
}

struct life {
	char dir[256];
	uint64_t seed;
	struct model got;
	uint64_t got_first;
};

static void recover(struct life *life)
{
	struct wal_options options = options_of(life->dir);
	struct wal_visitor visitor = { model_visit, &life->got };
	struct wal_status status;
	struct wal *wal;

	memset(&life->got, 0, sizeof life->got);
	CHECK_CODE(wal_open(&options, &visitor, &wal, &err), CODE_OK);
	wal_status(wal, &status);
	CHECK(life->got.first == 0 || life->got.first == status.first);
	life->got_first = status.first;
	wal_close(wal);
}

static void check_life(struct life *life, uint64_t done)
{
	struct script script = { .seed = life->seed, .number = 1, .first = 1, .term = 1 }, ahead;
	static struct model model;
	bool found = false;

	memset(&model, 0, sizeof model);
	model.first = 1;
	recover(life);
	while (script.number <= done) {
		struct step step = next_step(&script);

		apply(&model, &step);
	}
	ahead = script;
	for (int i = 0; i < IN_FLIGHT; i++)
		(void)next_step(&ahead);
	CHECK(life->got_first <= ahead.first); /* no more is cut than was asked for */
	for (int more = 0; more <= IN_FLIGHT && !found; more++) {
		struct step step;

		found = same(&life->got, life->got_first, &model, model.last);
		if (found)
			break;
		step = next_step(&script);
		found = partly(&life->got, life->got_first, &model, &step);
		apply(&model, &step);
	}
	if (!found)
		print_error("seed %llu: %llu steps were done; the log is [%llu, %llu]\n",
			    (unsigned long long)life->seed, (unsigned long long)done,
			    (unsigned long long)life->got_first, (unsigned long long)life->got.last);
	CHECK(found);
}

/* A life in a directory of its own; `point` fails (or, after a while, a kill comes). Answers the wait status. */
static int live(struct life *life, int steps, const char *point, unsigned nth, int kill_after)
{
	struct script script = { .seed = life->seed, .number = 1, .first = 1, .term = 1 };
	uint64_t done = 0;
	int status, pipes[2];
	pid_t pid;

	snprintf(life->dir, sizeof life->dir, "%s/life-%llx", test_dir(), (unsigned long long)life->seed);
	CHECK_NUM(pipe(pipes), 0);
	pid = fork();
	if (pid == 0) {
		close(pipes[0]);
		if (point != NULL)
			fault_arm(point, nth);
		child(life->dir, script, steps, pipes[1]);
	}
	close(pipes[1]);
	if (kill_after > 0) {
		uint64_t number;

		while (done < (uint64_t)kill_after && read(pipes[0], &number, sizeof number) == sizeof number) {
			CHECK_NUM(number, done + 1);
			done = number;
		}
		kill(pid, SIGKILL);
	}
	done = read_done(pipes[0], done);
	close(pipes[0]);
	CHECK_NUM(waitpid(pid, &status, 0), pid);
	check_life(life, done);
	return status;
}

TEST(nothing_said_is_lost_when_the_process_is_killed)
{
	uint64_t seed = rand_u64();

	print_message("seed %llu\n", (unsigned long long)seed);
	for (int round = 0; round < 40; round++) {
		static struct life life;

		life.seed = mix(seed + (uint64_t)round);
		live(&life, 200, NULL, 0, 1 + (int)(life.seed % 150));
	}
}

/* Each step of the disk fails, the 1st, the 2nd, ... time, until a life passes without. */
static void fail_at(const char *point, unsigned stride)
{
	uint64_t seed = rand_u64();
	unsigned nth = 1, failed = 0;

	print_message("%s: seed %llu\n", point, (unsigned long long)seed);
	for (;; nth += stride) {
		static struct life life;
		int status;

		life.seed = mix(seed + nth);
		status = live(&life, 60, point, nth, 0);
		CHECK(WIFEXITED(status));
		if (WEXITSTATUS(status) == 0)
			break;
		CHECK_NUM(WEXITSTATUS(status), 1); /* log_fatal */
		failed++;
	}
	CHECK(failed > 0);
}

TEST(a_failing_write_ends_the_process)
{
	fail_at("wal.write", 5);
}

TEST(a_write_that_was_cut_short_ends_the_process)
{
	fail_at("wal.torn", 3);
}

TEST(a_failing_sync_ends_the_process)
{
	fail_at("wal.sync", 5);
}

TEST(a_failing_truncation_ends_the_process)
{
	fail_at("wal.truncate", 1);
}

TEST(a_failing_segment_ends_the_process)
{
	fail_at("wal.segment", 1);
}
