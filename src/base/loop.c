/* SPDX-License-Identifier: Apache-2.0 */
/* A loop: libuv's, with a mailbox and tasks.
 *
 * The loop goes round in turn(), before it waits for events and after: it delivers messages, ends waits whose deadline
 * has passed, and enters the tasks that are ready. Callbacks of libuv only mark tasks ready in between.
 *
 * The mailbox is a stack that any thread pushes to with one compare-and-swap, and that the loop takes as a whole with
 * one exchange and turns round: per sender the order is that of posting. Who pushes onto an empty stack wakes the loop;
 * a message behind another one needs no wake-up of its own, since the loop takes the stack after the wake-up that the
 * first one caused. */
#include "base/loop.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/loop_task.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	HEARTBEAT_MS = 1000,
	PASSES = 16, /* of one turn, before events of the system are looked at again */
};

struct loop {
	uv_loop_t uv;
	uv_async_t wake;
	uv_prepare_t before;
	uv_check_t after;
	uv_idle_t busy; /* active: something is left to do, do not block */
	uv_timer_t timer;
	int64_t timer_at_ms;           /* when the timer will fire; INT64_MAX: it has */
	struct message *_Atomic inbox; /* the last posted first */
	_Atomic bool stopping;
	_Atomic int64_t last_turn_ms;
	struct loop_tasks tasks;
	pthread_t thread;
	bool has_thread, ended;
	char name[16]; /* what a thread's name may have */
};

static _Thread_local struct loop *self;

/* --- the turn
 * ----------------------------------------------------------------------------------------------------------- */

static void deliver_all(struct loop *loop)
{
	struct message *message = atomic_exchange_explicit(&loop->inbox, NULL, memory_order_acquire);
	struct message *oldest = NULL;

	while (message != NULL) {
		struct message *next = message->next;

		message->next = oldest;
		oldest = message;
		message = next;
	}
	while (oldest != NULL) {
		message = oldest;
		oldest = message->next;
		message->next = NULL;
		message->deliver(message);
	}
}

static bool has_work(struct loop *loop)
{
	return !list_empty(&loop->tasks.ready) || atomic_load_explicit(&loop->inbox, memory_order_relaxed) != NULL;
}

static void turn(struct loop *loop)
{
	int64_t now = clock_mono_ms();
	bool stopping;

	atomic_store_explicit(&loop->last_turn_ms, now, memory_order_relaxed);
	tasks_expire(&loop->tasks, now);
	for (int pass = 0; pass < PASSES; pass++) {
		stopping = atomic_load_explicit(&loop->stopping,
						memory_order_acquire); /* before what it follows is taken */
		deliver_all(loop);
		if (stopping)
			tasks_cancel_all(&loop->tasks);
		tasks_run(&loop->tasks);
		if (!has_work(loop))
			break;
	}
	if (stopping && list_empty(&loop->tasks.all) && !has_work(loop)) {
		loop->ended = true;
		uv_stop(&loop->uv);
	}
}

static void on_timer(uv_timer_t *timer)
{
	((struct loop *)timer->data)->timer_at_ms = INT64_MAX;
}

static void on_wake(uv_async_t *wake)
{
	(void)wake; /* the turn after it does the work */
}

static void on_busy(uv_idle_t *busy)
{
	(void)busy; /* that it is active is all */
}

static void set_timer(struct loop *loop)
{
	int64_t now = atomic_load_explicit(&loop->last_turn_ms, memory_order_relaxed);
	int64_t next = tasks_next_deadline(&loop->tasks);

	if (next > now + HEARTBEAT_MS)
		next = now + HEARTBEAT_MS;
	if (next >= loop->timer_at_ms)
		return; /* it fires earlier, and is set again then */
	loop->timer_at_ms = next;
	uv_timer_start(&loop->timer, on_timer, next > now ? (uint64_t)(next - now) : 0, 0);
}

static void on_before(uv_prepare_t *before)
{
	struct loop *loop = before->data;

	turn(loop);
	set_timer(loop);
	if (has_work(loop))
		uv_idle_start(&loop->busy, on_busy);
	else
		uv_idle_stop(&loop->busy);
}

static void on_after(uv_check_t *after)
{
	turn(after->data);
}

/* --- life
 * --------------------------------------------------------------------------------------------------------------- */

/* Of libuv's starting calls: they fail for want of memory or descriptors only, before there is anything to serve. */
static void must(int status, const char *what)
{
	if (status == 0)
		return;
	fprintf(stderr, "%s: %s\n", what, uv_strerror(status));
	abort();
}

struct loop *loop_new(const char *name)
{
	struct loop *loop = xcalloc(1, sizeof *loop);

	signal(SIGPIPE, SIG_IGN);
	snprintf(loop->name, sizeof loop->name, "%s", name);
	tasks_init(&loop->tasks);
	must(uv_loop_init(&loop->uv), "uv_loop_init");
	must(uv_async_init(&loop->uv, &loop->wake, on_wake), "uv_async_init");
	uv_prepare_init(&loop->uv, &loop->before);
	uv_check_init(&loop->uv, &loop->after);
	uv_idle_init(&loop->uv, &loop->busy);
	uv_timer_init(&loop->uv, &loop->timer);
	loop->before.data = loop->after.data = loop->timer.data = loop;
	uv_prepare_start(&loop->before, on_before);
	uv_check_start(&loop->after, on_after);
	loop->timer_at_ms = INT64_MAX;
	loop->last_turn_ms = clock_mono_ms();
	return loop;
}

void loop_run(struct loop *loop)
{
	struct loop *outer = self;

	self = loop;
	while (!loop->ended)
		uv_run(&loop->uv, UV_RUN_DEFAULT);
	self = outer;
}

static void *thread_main(void *arg)
{
	struct loop *loop = arg;

	pthread_setname_np(pthread_self(), loop->name);
	loop_run(loop);
	return NULL;
}

void loop_start(struct loop *loop)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS };
	sigset_t none, before;

	sigfillset(&none);
	for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
		sigdelset(&none, faults[i]);
	pthread_sigmask(SIG_SETMASK, &none, &before);
	must(-pthread_create(&loop->thread, NULL, thread_main, loop), "pthread_create");
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	loop->has_thread = true;
}

void loop_stop(struct loop *loop)
{
	atomic_store_explicit(&loop->stopping, true, memory_order_release);
	uv_async_send(&loop->wake);
}

void loop_join(struct loop *loop)
{
	if (loop->has_thread)
		pthread_join(loop->thread, NULL);
	loop->has_thread = false;
}

static void close_handle(uv_handle_t *handle, void *arg)
{
	(void)arg;
	if (!uv_is_closing(handle))
		uv_close(handle, NULL);
}

void loop_free(struct loop *loop)
{
	struct loop *outer = self;

	if (loop == NULL)
		return;
	assert(!loop->has_thread);
	self = loop;
	loop->stopping = true;
	do /* what was posted since, and tasks that never ran: cancelled, they end */
		turn(loop);
	while (!list_empty(&loop->tasks.all) || has_work(loop));
	uv_walk(&loop->uv, close_handle, NULL);
	while (uv_loop_close(&loop->uv) == UV_EBUSY)
		uv_run(&loop->uv, UV_RUN_DEFAULT);
	tasks_done(&loop->tasks);
	self = outer;
	free(loop);
}

/* --- the rest
 * ----------------------------------------------------------------------------------------------------------- */

uv_loop_t *loop_uv(struct loop *loop)
{
	return &loop->uv;
}

struct loop *loop_self(void)
{
	return self;
}

const char *loop_name(const struct loop *loop)
{
	return loop->name;
}

struct loop_tasks *loop_tasks(struct loop *loop)
{
	return &loop->tasks;
}

void loop_post(struct loop *loop, struct message *message)
{
	struct message *first = atomic_load_explicit(&loop->inbox, memory_order_relaxed);

	do
		message->next = first;
	while (!atomic_compare_exchange_weak_explicit(&loop->inbox, &first, message, memory_order_release,
						      memory_order_relaxed));
	if (first == NULL && self != loop) /* the loop itself looks before it sleeps */
		uv_async_send(&loop->wake);
}

int64_t loop_last_turn_ms(const struct loop *loop)
{
	return atomic_load_explicit(&loop->last_turn_ms, memory_order_relaxed);
}

bool loop_turn(struct loop *loop)
{
	struct loop *outer = self;

	self = loop;
	uv_run(&loop->uv, UV_RUN_NOWAIT);
	self = outer;
	return has_work(loop);
}

int64_t loop_next_deadline_ms(const struct loop *loop)
{
	return tasks_next_deadline(&loop->tasks);
}
