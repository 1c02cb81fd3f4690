/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

/* A thread, its uv_loop and its tasks. All of a loop's objects live on its thread; others reach it by messages only. */
struct loop;

/* A letter to a loop. It lives in what it is about; nothing is allocated for the trip. After `deliver` has been called the loop
 * does not touch it again, so `deliver` may free it or post it back. */
struct message {
	struct message *next;
	void (*deliver)(struct message *message);
};

struct loop *loop_new(const char *name); /* not running yet: handles may be set up on loop_uv() by the caller's thread */
void loop_start(struct loop *loop);      /* runs on a thread of its own */
void loop_run(struct loop *loop);        /* runs on this thread until loop_stop */
void loop_stop(struct loop *loop);       /* from any thread: the loop returns once its messages are delivered and its tasks ended
                                            (tasks still waiting are cancelled) */
void loop_join(struct loop *loop);       /* waits for the thread of loop_start */
void loop_free(struct loop *loop);       /* a stopped one; closes handles that are still open */

uv_loop_t *loop_uv(struct loop *loop);
struct loop *loop_self(void); /* the loop of this thread, or NULL */
const char *loop_name(const struct loop *loop);

/* Delivers `message` on the loop's thread, in the order of posting per sender. Thread-safe, lock-free, wakes the loop. */
void loop_post(struct loop *loop, struct message *message);

/* For /live: monotonic ms at which the loop last went round. Thread-safe. */
int64_t loop_last_turn_ms(const struct loop *loop);

#endif
