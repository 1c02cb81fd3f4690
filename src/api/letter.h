/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_LETTER_H
#define API_LETTER_H

#include "base/err.h"
#include "base/loop.h"
#include "base/task.h"

#include <pthread.h>
#include <stdatomic.h>

/* A question that a task asks of another thread and waits for. It lives inside what is asked, on the heap, and has two
 * owners, the asker and who answers: the asker may give up first, and its loop may be gone by the time of the answer.
 */
struct letter {
	struct message back;
	struct wait done;
	struct loop *asker;
	pthread_mutex_t lock;
	bool given_up; /* under the lock */
	atomic_int refs;
	void (*free)(struct letter *letter);
};

/* By the asker, in a task. Two references: its own and that of who answers. `free` frees what the letter is in. */
void letter_init(struct letter *letter, void (*free)(struct letter *letter));
/* Until it is answered, or the deadline, or a cancellation. After OK the answer may be read. */
enum code letter_wait(struct letter *letter, int64_t deadline_ms);
bool letter_given_up(struct letter *letter); /* nobody waits any more: need not be answered in earnest */
/* By who answers, on any thread: hands its reference back. */
void letter_answer(struct letter *letter);
void letter_unref(struct letter *letter); /* the asker's */

#endif
