/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

/* A thread, its uv_loop and its tasks. All of a loop's objects live on its thread; others reach it by messages only. */
struct loop;

/* A letter to a loop. It lives in what it is about; nothing is allocated for the trip. After `deliver` has been called
 * the loop does not touch it again, so `deliver` may free it or post it back. */
struct message {
	struct message *next;
	void (*deliver)(struct message *message);
};

struct loop *loop_new(const char *name); /* not running yet: the caller's thread may set up handles on loop_uv() and
					    tasks. The process ignores SIGPIPE from here on */
void loop_start(struct loop *loop);      /* runs on a thread of its own, which takes no signals */
void loop_run(struct loop *loop);        /* runs on this thread until loop_stop */
void loop_stop(struct loop *loop); /* from any thread, also from a signal handler: what was posted before is delivered,
				      all tasks are cancelled, and once they have ended the loop returns */
void loop_join(struct loop *loop); /* waits for the thread of loop_start; harmless if there is none */
void loop_free(struct loop *loop); /* one that does not run (NULL is fine); nobody may post to it any more. Delivers
				      what was posted since, closes handles that are still open */

uv_loop_t *loop_uv(struct loop *loop);
struct loop *loop_self(void); /* the loop of this thread, or NULL */
const char *loop_name(const struct loop *loop);

/* Delivers `message` on the loop's thread, outside of any task, in the order of posting per sender. Thread-safe,
 * lock-free, wakes the loop. */
void loop_post(struct loop *loop, struct message *message);

/* For /live: monotonic ms at which the loop last went round; it does so once a second at least. Thread-safe. */
int64_t loop_last_turn_ms(const struct loop *loop);

/* For simulations, which own the clock: one round on this thread that does not block (events, messages, deadlines,
 * tasks; true if it has more to do at once), and the earliest deadline a task waits for (clock_mono_ms; INT64_MAX:
 * none). */
bool loop_turn(struct loop *loop);
int64_t loop_next_deadline_ms(const struct loop *loop);

#endif
