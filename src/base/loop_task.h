/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_LOOP_TASK_H
#define BASE_LOOP_TASK_H

#include "base/list.h"
#include "base/loop.h"
#include "base/stack.h"
#include "base/task.h"

#include <stddef.h>

/* What a loop keeps for its tasks: between loop.c and task.c only. */
struct loop_tasks {
	struct link all;   /* struct task .all */
	struct link ready; /* .ready: to be entered at the next pass */
	struct task *running;
	struct stack home;  /* the thread's own, while a task runs */
	struct task **heap; /* those with a deadline: a binary heap, the earliest first */
	size_t n_heap, cap_heap;
	struct task *spare; /* ended ones with their stacks, for the next */
	size_t n_spare;
	bool cancelled; /* each new one is cancelled */
};

struct loop_tasks *loop_tasks(struct loop *loop);

void tasks_init(struct loop_tasks *tasks);
void tasks_done(struct loop_tasks *tasks); /* when all have ended */

/* The one place that enters tasks: each that is ready now, once. */
void tasks_run(struct loop_tasks *tasks);

void tasks_expire(struct loop_tasks *tasks, int64_t now_ms);
int64_t tasks_next_deadline(const struct loop_tasks *tasks); /* INT64_MAX: none */
void tasks_cancel_all(struct loop_tasks *tasks);             /* those to come too */

#endif
