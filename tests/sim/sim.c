/* SPDX-License-Identifier: Apache-2.0 */
/* sim [-s SEED] [-n SEEDS] [-t SECONDS OF WALL TIME] [-f FAULT SECONDS] [-w RULE LEFT OUT] [-k] [-u] [-v] [-m FROM MS]
 *
 * Runs seeds one after the other, each in a process of its own, and says what was seen. Exit status 1: a violation. */
#include "sim.h"

#include "base/log.h"
#include "base/rand.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int64_t now;
bool calm;
struct sim_options options;

/* -- chance
 * ----------------------------------------------------------------------------------------------------------------------
 */

static uint64_t chance;

static uint64_t next_chance(void)
{
	uint64_t z = chance += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

uint64_t sim_rand(uint64_t below)
{
	return next_chance() % below;
}

bool sim_chance(unsigned per_mille)
{
	return sim_rand(1000) < per_mille;
}

int64_t sim_between(int64_t low, int64_t high)
{
	return low + (int64_t)sim_rand((uint64_t)(high - low + 1));
}

int64_t sim_tailed(int64_t usual, int64_t tail)
{
	return !calm && sim_chance(15) ? sim_between(0, tail) : sim_between(0, usual);
}

/* -- events: a heap by time, then by order
 * -------------------------------------------------------------------------------------------- */

struct event {
	int64_t at;
	uint64_t order;
	struct node *node;
	unsigned life;
	event_fn *run;
	void *arg;
	uint64_t number;
	bool own; /* arg is to be freed if nobody gets it */
};

static struct event *heap;
static size_t n_events, cap_events;
static uint64_t order;

static bool before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void heap_push(struct event event)
{
	size_t i = n_events++;

	if (n_events > cap_events) {
		cap_events = cap_events * 2 + 256;
		heap = realloc(heap, cap_events * sizeof(heap[0]));
	}
	for (; i > 0 && before(&event, &heap[(i - 1) / 2]); i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = event;
}

static struct event heap_pop(void)
{
	struct event top = heap[0], last = heap[--n_events];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= n_events)
			break;
		if (child + 1 < n_events && before(&heap[child + 1], &heap[child]))
			child++;
		if (!before(&heap[child], &last))
			break;
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = last;
	return top;
}

void sim_at(int64_t at, struct node *node, event_fn *run, void *arg, uint64_t number)
{
	heap_push((struct event){ at, order++, node, node != NULL ? node->life : 0, run, arg, number, false });
}

void sim_at_own(int64_t at, struct node *node, event_fn *run, void *arg, uint64_t number)
{
	heap_push((struct event){ at, order++, node, node->life, run, arg, number, true });
}

/* An event of a node that is paused waits, in order, until it goes on. */
static void run_event(struct event *event)
{
	struct node *node = event->node;

	if (node == NULL) {
		event->run(NULL, event->arg, event->number);
		return;
	}
	if (node->life != event->life) {
		if (event->own)
			free(event->arg);
		return;
	}
	if (node->paused_until > now) {
		event->at = node->paused_until;
		heap_push(*event);
		return;
	}
	if (event->run == NULL) { /* the end of this process, planned */
		node_stop(node);
		return;
	}
	node_begin_turn(node);
	event->run(node, event->arg, event->number);
	node_turn(node);
}

bool sim_next(int64_t until)
{
	struct event event;

	if (n_events == 0 || heap[0].at > until)
		return false;
	event = heap_pop();
	now = event.at > now ? event.at : now;
	counters.events++;
	run_event(&event);
	return true;
}

void sim_events_free(void)
{
	for (size_t i = 0; i < n_events; i++)
		if (heap[i].own)
			free(heap[i].arg);
	free(heap);
	heap = NULL;
	n_events = cap_events = 0;
}

/* -- a run
 * ----------------------------------------------------------------------------------------------------------------------------
 */

static void run(uint64_t seed)
{
	uint64_t before_end;

	options.seed = chance = seed;
	rand_use_seed(seed);
	now = 1000;
	calm = options.kills;
	killed_ms = 0;
	check_init();
	net_init();
	course_begin();
	while (sim_next(options.fault_ms))
		;
	now = options.fault_ms;
	course_heal();
	while (sim_next(options.fault_ms + options.heal_ms / 2))
		;
	before_end = committed_last;
	while (sim_next(options.fault_ms + options.heal_ms))
		;
	course_check_end(before_end);
	check_end();
	for (int i = 1; i <= NODES; i++)
		node_free(&nodes[i]);
	net_free();
	sim_events_free();
	check_free();
}

/* Each seed in a child: a violation ends it, and the counters come back by a pipe. */
static bool run_child(uint64_t seed, struct counters *out)
{
	int pipes[2], status;
	pid_t child;

	if (pipe(pipes) != 0)
		abort();
	fflush(stdout);
	child = fork();
	if (child == 0) {
		close(pipes[0]);
		run(seed);
		if (write(pipes[1], &counters, sizeof(counters)) != (ssize_t)sizeof(counters))
			_exit(1);
		exit(0);
	}
	close(pipes[1]);
	memset(out, 0, sizeof(*out));
	if (read(pipes[0], out, sizeof(*out)) < 0)
		abort();
	close(pipes[0]);
	waitpid(child, &status, 0);
	if (WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) > 1))
		printf("\nseed %" PRIu64 " ended with status %d\n", seed, status);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void add(struct counters *sum, const struct counters *one)
{
	uint64_t *to = (uint64_t *)sum;
	const uint64_t *from = (const uint64_t *)one;

	for (size_t i = 0; i < sizeof(*sum) / sizeof(uint64_t); i++)
		to[i] += from[i];
}

static void report(uint64_t seeds, uint64_t failed, const struct counters *sum)
{
	printf("%" PRIu64 " seeds, %.1f simulated hours, %" PRIu64 " failed\n", seeds,
	       (double)seeds * (double)(options.fault_ms + options.heal_ms) / 3600000.0, failed);
	printf("committed %" PRIu64 ", elections %" PRIu64 ", crashes %" PRIu64 ", partitions %" PRIu64
	       ", pauses %" PRIu64 ", checkpoints %" PRIu64 ", copies %" PRIu64 "\n",
	       sum->committed, sum->elections, sum->crashes, sum->partitions, sum->pauses, sum->snapshots, sum->copies);
	printf("changes %" PRIu64 " (promotions %" PRIu64 ", removals %" PRIu64 ", grown %" PRIu64
	       "), transfers %" PRIu64 ", reads %" PRIu64 ", disk reads %" PRIu64 ", lost %" PRIu64
	       ", doubtful %" PRIu64 ", fast %" PRIu64 ", events %" PRIu64 "\n",
	       sum->changes, sum->promotions, sum->removals, sum->grown, sum->transfers, sum->reads, sum->disk_reads,
	       sum->lost, sum->doubtful, sum->fast, sum->events);
}

int main(int argc, char **argv)
{
	uint64_t first = 1, n = 0, failed = 0, done = 0;
	int64_t wall_s = 30;
	struct counters sum = { 0 }, one;
	time_t begin = time(NULL);
	int opt;

	options.fault_ms = 60000;
	options.heal_ms = 30000;
	while ((opt = getopt(argc, argv, "s:n:t:f:w:m:kuv")) != -1) {
		if (opt == 's')
			first = strtoull(optarg, NULL, 10);
		else if (opt == 'n')
			n = strtoull(optarg, NULL, 10);
		else if (opt == 't')
			wall_s = atoll(optarg);
		else if (opt == 'f')
			options.fault_ms = atoll(optarg) * 1000;
		else if (opt == 'w')
			options.without |= 1u << atoi(optarg);
		else if (opt == 'k')
			options.kills = true;
		else if (opt == 'u')
			options.unsafe_reads = true;
		else if (opt == 'm')
			options.trace_ms = atoll(optarg);
		else if (opt == 'v')
			options.verbose = true;
		else
			return 2;
	}
	log_set_level(LOG_FATAL);
	if (n == 0 && argc > 1 && strcmp(argv[1], "-s") == 0)
		n = 1;
	for (; n > 0 ? done < n : time(NULL) - begin < wall_s; done++) {
		failed += !run_child(first + done, &one);
		add(&sum, &one);
	}
	report(done, failed, &sum);
	return failed > 0;
}
