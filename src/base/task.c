/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks: straight-line code that gives way.
 *
 *                task_spawn                 tasks_run                    `run` returns
 *     (spare) ----------------> ready ---------------------> running ------------------> (spare)
 *                                 ^                             |
 *              resolve: event,    |                             | task_wait
 *              deadline, cancel   +---------- waiting <---------+
 *
 * A task is in `ready` or waiting or running, never in two of them. While it waits, its wait points at it and it at its
 * wait; resolve() undoes both, so what comes second (an event after a deadline) finds nobody. Its struct lies above its
 * stack. */
#include "base/task.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/loop_task.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { SPARE_MAX = 512, NOT_IN_HEAP = -1 };

struct task {
	struct link all, ready;
	struct task *next_spare;
	struct stack *stack;
	struct loop *loop;
	const char *name;
	void (*run)(void *arg);
	void *arg;
	struct wait *wait; /* NULL: it does not wait */
	enum code result;  /* of its last wait */
	int64_t deadline_ms, since_ms;
	ptrdiff_t heap_at;
	int pins;
	bool cancelled;
};

static _Atomic unsigned tasks_in_process; /* spare ones too: each has a stack */

static _Thread_local struct task *self;

/* --- deadlines: a heap that knows where each task lies
 * ------------------------------------------------------------------ */

static void heap_set(struct loop_tasks *t, size_t at, struct task *task)
{
	t->heap[at] = task;
	task->heap_at = (ptrdiff_t)at;
}

static void heap_up(struct loop_tasks *t, size_t at, struct task *task)
{
	while (at > 0 && t->heap[(at - 1) / 2]->deadline_ms > task->deadline_ms) {
		heap_set(t, at, t->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	heap_set(t, at, task);
}

static void heap_down(struct loop_tasks *t, size_t at, struct task *task)
{
	for (;;) {
		size_t child = 2 * at + 1;

		if (child + 1 < t->n_heap && t->heap[child + 1]->deadline_ms < t->heap[child]->deadline_ms)
			child++;
		if (child >= t->n_heap || t->heap[child]->deadline_ms >= task->deadline_ms)
			break;
		heap_set(t, at, t->heap[child]);
		at = child;
	}
	heap_set(t, at, task);
}

static void heap_add(struct loop_tasks *t, struct task *task)
{
	if (t->n_heap == t->cap_heap) {
		t->cap_heap = t->cap_heap > 0 ? 2 * t->cap_heap : 64;
		t->heap = xrealloc(t->heap, t->cap_heap * sizeof *t->heap);
	}
	heap_up(t, t->n_heap++, task);
}

static void heap_remove(struct loop_tasks *t, struct task *task)
{
	size_t at = (size_t)task->heap_at;
	struct task *last;

	if (task->heap_at == NOT_IN_HEAP)
		return;
	task->heap_at = NOT_IN_HEAP;
	last = t->heap[--t->n_heap];
	if (last == task)
		return;
	if (at > 0 && t->heap[(at - 1) / 2]->deadline_ms > last->deadline_ms)
		heap_up(t, at, last);
	else
		heap_down(t, at, last);
}

/* --- spare ones
 * --------------------------------------------------------------------------------------------------------- */

static struct task *task_get(struct loop_tasks *t)
{
	struct task *task = t->spare;
	struct stack *stack;
	void *top;

	if (task != NULL) {
		t->spare = task->next_spare;
		t->n_spare--;
		return task;
	}
	if (atomic_fetch_add(&tasks_in_process, 1) >= LIMIT_TASKS || (stack = stack_new(sizeof *task, &top)) == NULL) {
		atomic_fetch_sub(&tasks_in_process, 1);
		return NULL;
	}
	task = top;
	task->stack = stack;
	return task;
}

static void task_give_up(struct task *task)
{
	stack_free(task->stack); /* the task with it */
	atomic_fetch_sub(&tasks_in_process, 1);
}

static void task_put(struct loop_tasks *t, struct task *task)
{
	if (t->n_spare == SPARE_MAX) {
		task_give_up(task);
		return;
	}
	task->next_spare = t->spare;
	t->spare = task;
	t->n_spare++;
}

/* --- running
 * ------------------------------------------------------------------------------------------------------------ */

/* The first and last code on a task's stack. */
static void task_main(void)
{
	struct task *task = self;

	task->run(task->arg);
	assert(task->pins == 0);
	task->run = NULL; /* enter() sees that it ended */
	stack_switch(task->stack, &loop_tasks(task->loop)->home, true);
}

static void enter(struct loop_tasks *t, struct task *task)
{
	self = task;
	stack_switch(&t->home, task->stack, false);
	self = NULL;
	if (task->run == NULL) {
		list_remove(&task->all);
		stack_ended(task->stack);
		task_put(t, task);
	}
}

void tasks_run(struct loop_tasks *t)
{
	struct link *last = t->ready.prev, *next;

	assert(self == NULL);
	if (list_empty(&t->ready))
		return;
	stack_home(&t->home);
	do {
		next = t->ready.next;
		list_remove(next);
		enter(t, LIST_ITEM(next, struct task, ready));
	} while (next != last);
}

struct task *task_spawn(struct loop *loop, const char *name, void (*run)(void *arg), void *arg)
{
	struct loop_tasks *t = loop_tasks(loop);
	struct task *task = task_get(t);

	if (task == NULL)
		return NULL;
	*task = (struct task){ .stack = task->stack, .loop = loop, .name = name, .run = run, .arg = arg };
	task->heap_at = NOT_IN_HEAP;
	task->cancelled = t->cancelled;
	stack_prepare(task->stack, task_main);
	list_push(&t->all, &task->all);
	list_push(&t->ready, &task->ready);
	return task;
}

struct task *task_self(void)
{
	return self;
}

/* --- waiting
 * ------------------------------------------------------------------------------------------------------------ */

/* The wait of a task ends: it will run. */
static void resolve(struct task *task, enum code result)
{
	struct loop_tasks *t = loop_tasks(task->loop);

	task->wait->waiter = NULL;
	task->wait = NULL;
	task->result = result;
	heap_remove(t, task);
	list_push(&t->ready, &task->ready);
}

enum code task_wait(struct wait *wait, int64_t deadline_ms)
{
	struct task *task = self;
	struct loop_tasks *t;
	int64_t now;

	assert(task != NULL && task->pins == 0);
	assert(wait->waiter == NULL);
	if (task->cancelled)
		return CODE_CANCELLED;
	if (wait->done)
		return CODE_OK;
	now = clock_mono_ms();
	if (deadline_ms <= now)
		return CODE_DEADLINE_EXCEEDED;
	t = loop_tasks(task->loop);
	task->wait = wait;
	wait->waiter = task;
	task->since_ms = now;
	task->deadline_ms = deadline_ms;
	if (deadline_ms != INT64_MAX)
		heap_add(t, task);
	stack_switch(task->stack, &t->home, false);
	return task->result;
}

void wait_done(struct wait *wait)
{
	wait->done = true;
	if (wait->waiter != NULL) {
		assert(loop_self() == wait->waiter->loop || loop_self() == NULL); /* NULL: who drives loop_turn */
		resolve(wait->waiter, CODE_OK);
	}
}

enum code task_sleep(int64_t ms)
{
	struct wait never = { 0 };
	enum code rc;

	assert(self != NULL && self->pins == 0);
	if (ms <= 0) { /* to the end of the queue */
		if (!self->cancelled) {
			list_push(&loop_tasks(self->loop)->ready, &self->ready);
			stack_switch(self->stack, &loop_tasks(self->loop)->home, false);
		}
		return self->cancelled ? CODE_CANCELLED : CODE_OK;
	}
	rc = task_wait(&never, clock_mono_ms() + ms);
	return rc == CODE_DEADLINE_EXCEEDED ? CODE_OK : rc;
}

void task_cancel(struct task *task)
{
	task->cancelled = true;
	if (task->wait != NULL)
		resolve(task, CODE_CANCELLED);
}

bool task_cancelled(void)
{
	return self != NULL && self->cancelled;
}

void task_pin(void)
{
	if (self != NULL)
		self->pins++;
}

void task_unpin(void)
{
	if (self != NULL) {
		assert(self->pins > 0);
		self->pins--;
	}
}

void task_each(struct loop *loop, void (*each)(const char *name, int64_t waiting_ms, void *ctx), void *ctx)
{
	int64_t now = clock_mono_ms();

	LIST_FOR (item, &loop_tasks(loop)->all) {
		const struct task *task = LIST_ITEM(item, struct task, all);

		each(task->name, task->wait != NULL ? now - task->since_ms : -1, ctx);
	}
}

/* --- the loop's side
 * ---------------------------------------------------------------------------------------------------- */

void tasks_init(struct loop_tasks *t)
{
	*t = (struct loop_tasks){ 0 };
	list_init(&t->all);
	list_init(&t->ready);
}

void tasks_done(struct loop_tasks *t)
{
	assert(list_empty(&t->all));
	while (t->spare != NULL) {
		struct task *task = t->spare;

		t->spare = task->next_spare;
		task_give_up(task);
	}
	stack_home_done(&t->home);
	free(t->heap);
	tasks_init(t);
}

void tasks_expire(struct loop_tasks *t, int64_t now_ms)
{
	while (t->n_heap > 0 && t->heap[0]->deadline_ms <= now_ms)
		resolve(t->heap[0], CODE_DEADLINE_EXCEEDED);
}

int64_t tasks_next_deadline(const struct loop_tasks *t)
{
	return t->n_heap > 0 ? t->heap[0]->deadline_ms : INT64_MAX;
}

void tasks_cancel_all(struct loop_tasks *t)
{
	t->cancelled = true;
	LIST_FOR (item, &t->all)
		task_cancel(LIST_ITEM(item, struct task, all));
}
