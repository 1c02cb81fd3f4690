/* SPDX-License-Identifier: Apache-2.0 */
/* Loops and their mailboxes, between threads. Every wait of these tests is for an event; what goes wrong hangs or is
 * seen by TSan. */
#include "lib/test.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/loop.h"
#include "base/task.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

enum { SENDERS = 4, LETTERS = 20000 };

struct letter {
	struct message message;
	int sender, number;
};

static int next_number[SENDERS]; /* of the loop's thread */
static int out_of_order, delivered;
static struct loop *box;

static void take_letter(struct message *message)
{
	struct letter *letter = LIST_ITEM(message, struct letter, message);

	if (loop_self() != box || task_self() != NULL || letter->number != next_number[letter->sender]++)
		out_of_order++;
	if (++delivered == SENDERS * LETTERS)
		loop_stop(box);
	free(letter);
}

static void *send_letters(void *arg)
{
	for (int i = 0; i < LETTERS; i++) {
		struct letter *letter = xmalloc(sizeof *letter);

		*letter = (struct letter){ { NULL, take_letter }, (int)(intptr_t)arg, i };
		loop_post(box, &letter->message);
		if (i % 1000 == 0)
			sched_yield(); /* so that the loop falls asleep now and then */
	}
	return NULL;
}

TEST(letters_of_many_threads_arrive_once_and_in_the_order_of_each)
{
	pthread_t threads[SENDERS];

	box = loop_new("box");
	loop_start(box);
	for (intptr_t i = 0; i < SENDERS; i++)
		CHECK_NUM(pthread_create(&threads[i], NULL, send_letters, (void *)i), 0);
	for (int i = 0; i < SENDERS; i++)
		pthread_join(threads[i], NULL);
	loop_join(box); /* after the last letter */
	CHECK_NUM(out_of_order, 0);
	CHECK_NUM(delivered, SENDERS * LETTERS);
	loop_free(box);
}

/* One letter goes to and fro between two loops: each trip wakes a sleeping loop. */
enum { TRIPS = 5000 };

struct ball {
	struct message message;
	struct loop *at, *other;
	int trips;
};

static void hit(struct message *message)
{
	struct ball *ball = LIST_ITEM(message, struct ball, message);
	struct loop *here = ball->at;

	assert_ptr_equal(loop_self(), here);
	if (++ball->trips == TRIPS) {
		loop_stop(ball->at);
		loop_stop(ball->other);
		return;
	}
	ball->at = ball->other;
	ball->other = here;
	loop_post(ball->at, message);
}

TEST(no_letter_lies_in_the_box_of_a_sleeping_loop)
{
	struct ball ball = { { NULL, hit }, loop_new("one"), loop_new("other"), 0 };
	struct loop *one = ball.at, *other = ball.other;

	loop_start(one);
	loop_start(other);
	loop_post(one, &ball.message);
	loop_join(one);
	loop_join(other);
	CHECK_NUM(ball.trips, TRIPS);
	loop_free(one);
	loop_free(other);
}

/* A letter that posts itself back must not keep events out. */
struct eager {
	struct message message;
	uv_timer_t timer;
	long rounds;
};

static void post_back(struct message *message)
{
	struct eager *eager = LIST_ITEM(message, struct eager, message);

	eager->rounds++;
	if (!uv_is_closing((uv_handle_t *)&eager->timer))
		loop_post(loop_self(), message);
}

static void stop_on_timer(uv_timer_t *timer)
{
	loop_stop(timer->data);
	uv_close((uv_handle_t *)timer, NULL);
}

TEST(a_letter_that_posts_itself_leaves_room_for_events)
{
	struct eager eager = { { NULL, post_back } };
	struct loop *loop = loop_new("eager");

	uv_timer_init(loop_uv(loop), &eager.timer);
	eager.timer.data = loop;
	uv_timer_start(&eager.timer, stop_on_timer, 10, 0);
	loop_post(loop, &eager.message);
	loop_run(loop);
	CHECK(eager.rounds > 100);
	loop_free(loop);
}

/* --- tasks that ask another loop: both mailboxes, as a call and the replica do
 * ------------------------------------------ */

enum { ASKERS = 200, QUESTIONS = 50 };

struct question {
	struct message message;
	struct loop *from;
	struct wait answered;
	long value;
};

static struct loop *answerer;
static int askers_left;
static long wrong;

static void take_answer(struct message *message)
{
	wait_done(&LIST_ITEM(message, struct question, message)->answered);
}

static void answer(struct message *message)
{
	struct question *q = LIST_ITEM(message, struct question, message);

	q->value *= 2;
	message->deliver = take_answer;
	loop_post(q->from, message);
}

static void ask(void *arg)
{
	for (long i = 0; i < QUESTIONS; i++) {
		struct question *q = xcalloc(1, sizeof *q);

		*q = (struct question){ { NULL, answer }, loop_self(), { 0 }, (long)arg + i };
		loop_post(answerer, &q->message);
		if (task_wait(&q->answered, clock_mono_ms() + 60000) != CODE_OK || q->value != 2 * ((long)arg + i))
			wrong++;
		free(q);
	}
	if (--askers_left == 0) {
		loop_stop(answerer);
		loop_stop(loop_self());
	}
}

TEST(tasks_ask_another_loop_and_get_their_own_answers)
{
	struct loop *asker = loop_new("asker");

	answerer = loop_new("answerer");
	askers_left = ASKERS;
	for (long i = 0; i < ASKERS; i++)
		CHECK(task_spawn(asker, "ask", ask, (void *)(i * 1000)) != NULL);
	loop_start(answerer);
	loop_run(asker);
	loop_join(answerer);
	CHECK_NUM(askers_left, 0);
	CHECK_NUM(wrong, 0);
	loop_free(asker);
	loop_free(answerer);
}

/* --- stopping
 * ----------------------------------------------------------------------------------------------------------- */

static sem_t waiting;
static int steps_after;

static void stay(void *arg)
{
	struct wait never = { 0 };

	(void)arg;
	sem_post(&waiting);
	CHECK_NUM(task_wait(&never, INT64_MAX), CODE_CANCELLED);
	CHECK_NUM(task_sleep(1), CODE_CANCELLED);
	steps_after++;
}

static void spawn_stayer(struct message *message)
{
	CHECK(task_spawn(loop_self(), "stay", stay, NULL) != NULL);
	free(message);
}

static void post_stayer(struct loop *loop)
{
	struct message *message = xcalloc(1, sizeof *message);

	message->deliver = spawn_stayer;
	loop_post(loop, message);
}

TEST(stop_delivers_what_was_posted_and_ends_all_tasks)
{
	struct loop *loop = loop_new("stop");

	sem_init(&waiting, 0, 0);
	steps_after = 0;
	loop_start(loop);
	for (int i = 0; i < 10; i++)
		post_stayer(loop);
	for (int i = 0; i < 10; i++)
		sem_wait(&waiting);
	for (int i = 0; i < 5; i++)
		post_stayer(loop);
	loop_stop(loop);
	loop_stop(loop); /* twice is once */
	loop_join(loop);
	CHECK_NUM(steps_after, 15);
	post_stayer(loop); /* loop_free delivers this one */
	loop_free(loop);
	CHECK_NUM(steps_after, 16);
}

TEST(a_loop_stopped_before_it_runs_returns)
{
	struct loop *loop = loop_new("stop");

	loop_stop(loop);
	loop_run(loop);
	CHECK(loop_self() == NULL);
	loop_free(loop);
	loop_free(NULL);
}

/* --- the rest
 * ----------------------------------------------------------------------------------------------------------- */

static void say_name(struct message *message)
{
	char thread[16];

	(void)message;
	pthread_getname_np(pthread_self(), thread, sizeof thread);
	CHECK_STR(thread, "a-rather-long-n");
	CHECK_STR(loop_name(loop_self()), "a-rather-long-n");
	loop_stop(loop_self());
}

TEST(a_loops_thread_bears_its_name)
{
	struct loop *loop = loop_new("a-rather-long-name");
	struct message message = { NULL, say_name };

	loop_start(loop);
	loop_post(loop, &message);
	loop_join(loop);
	loop_free(loop);
}

TEST(an_idle_loop_goes_round_once_a_second)
{
	struct loop *loop = loop_new("idle");
	int64_t first, limit = clock_mono_ms() + 20000;

	loop_start(loop);
	first = loop_last_turn_ms(loop);
	while (loop_last_turn_ms(loop) < first + 900 && clock_mono_ms() < limit)
		usleep(10000);
	CHECK(loop_last_turn_ms(loop) >= first + 900);
	loop_stop(loop);
	loop_join(loop);
	loop_free(loop);
}

TEST(handles_that_are_open_are_closed_by_free)
{
	struct loop *loop = loop_new("open");
	static uv_tcp_t tcp;
	static uv_timer_t timer;

	uv_tcp_init(loop_uv(loop), &tcp);
	uv_timer_init(loop_uv(loop), &timer);
	loop_turn(loop);
	loop_free(loop);
	CHECK(uv_is_closing((uv_handle_t *)&tcp) && uv_is_closing((uv_handle_t *)&timer));
}

TEST(a_broken_pipe_does_not_end_the_process)
{
	int fds[2];

	loop_free(loop_new("pipe"));
	CHECK_NUM(pipe(fds), 0);
	close(fds[0]);
	CHECK_NUM(write(fds[1], "x", 1), -1);
	close(fds[1]);
}
