/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_TASK_H
#define BASE_TASK_H

#include "base/err.h"
#include "base/loop.h"

#include <stdbool.h>
#include <stdint.h>

/* A task: straight-line code with a stack of its own (64 KiB, guard page) on a loop. It gives way only inside task_wait
 * and what is built on it. Rules (style.md section 4): callbacks only mark a task ready, the loop's one place enters
 * it; a `struct wait` lives in what ends it, never on the task's stack; nothing borrowed crosses a wait (task_wait
 * asserts that nothing is pinned); every wait ends by its event, a deadline, or cancellation; a task never changes its
 * thread. */
struct task;

struct wait {
	struct task *waiter; /* set while somebody waits */
	bool done;
};

/* Starts `run(arg)` as a task of this thread's loop at its next turn. `name` (a constant) is for `debug tasks`. The
 * handle is good until `run` returns. NULL when there are LIMIT_TASKS in the process or no memory for its stack: refuse
 * what it was for. A task of a loop that stops is cancelled before it starts; `run` is called all the same. */
struct task *task_spawn(struct loop *loop, const char *name, void (*run)(void *arg), void *arg);

struct task *task_self(void); /* NULL outside of a task */
bool task_cancelled(void);    /* has this task been cancelled? */

/* On the task's loop: its present or next wait ends with CODE_CANCELLED, and every later one, whether done or not. (A
 * wait that ended before, while its task has not run again, stays what it was.) */
void task_cancel(struct task *task);

/* Waits until wait_done(wait), at most until `deadline_ms` (clock_mono_ms; INT64_MAX = none).
 * CODE_OK, CODE_DEADLINE_EXCEEDED or CODE_CANCELLED; after the latter two nobody waits on `wait` any more. Sets no
 * text. */
enum code task_wait(struct wait *wait, int64_t deadline_ms);
void wait_done(struct wait *wait); /* on the task's loop; may come before the wait, then the wait returns at once */

enum code task_sleep(int64_t ms); /* CODE_OK or CODE_CANCELLED; 0 lets all others have their turn */

/* What may not cross a wait (an open view) pins the task. */
void task_pin(void);
void task_unpin(void);

/* One call a task of this loop: name, since how many ms it waits (-1: it does not). For `debug tasks`; on the loop's
 * thread. */
void task_each(struct loop *loop, void (*each)(const char *name, int64_t waiting_ms, void *ctx), void *ctx);

#endif
