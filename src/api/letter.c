/* SPDX-License-Identifier: Apache-2.0 */
#include "api/letter.h"

#include "base/list.h"

#include <stdlib.h>

void letter_unref(struct letter *letter)
{
	if (atomic_fetch_sub(&letter->refs, 1) != 1)
		return;
	pthread_mutex_destroy(&letter->lock);
	letter->free(letter);
}

static void deliver(struct message *message)
{
	struct letter *letter = LIST_ITEM(message, struct letter, back);

	wait_done(&letter->done);
	letter_unref(letter);
}

void letter_init(struct letter *letter, void (*free_it)(struct letter *letter))
{
	*letter = (struct letter){ .back.deliver = deliver, .asker = loop_self(), .free = free_it };
	pthread_mutex_init(&letter->lock, NULL);
	atomic_init(&letter->refs, 2);
}

enum code letter_wait(struct letter *letter, int64_t deadline_ms)
{
	enum code rc = task_wait(&letter->done, deadline_ms);

	if (rc != CODE_OK) {
		pthread_mutex_lock(&letter->lock);
		letter->given_up = true;
		pthread_mutex_unlock(&letter->lock);
	}
	return rc;
}

bool letter_given_up(struct letter *letter)
{
	bool given_up;

	pthread_mutex_lock(&letter->lock);
	given_up = letter->given_up;
	pthread_mutex_unlock(&letter->lock);
	return given_up;
}

/* Posted under the lock: a task that has not given up keeps its loop alive, and what has been posted a loop delivers
 * before it ends. The message has a reference of its own: it may be delivered before we let the lock go. */
void letter_answer(struct letter *letter)
{
	pthread_mutex_lock(&letter->lock);
	if (!letter->given_up) {
		atomic_fetch_add(&letter->refs, 1);
		loop_post(letter->asker, &letter->back);
	}
	pthread_mutex_unlock(&letter->lock);
	letter_unref(letter);
}
