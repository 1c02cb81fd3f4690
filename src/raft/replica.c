/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that owns the store. It goes round: take what waits (one batch), apply it (one transaction, one fsync),
 * hand the outcomes back. A batch is closed at LIMIT_BATCH_BYTES or LIMIT_BATCH_COMMANDS; the rest of a proposal goes
 * into the next one.
 *
 *   proposal: queued --take--> in a batch --apply--> ended --message--> its loop's task
 *             queued --withdraw--> gone
 *
 * A second thread checkpoints. It copies beside the writer; when the WAL has grown long all the same, it asks the
 * writer to stand still for the last few frames, so that the WAL can start over. */
#include "raft/proposal.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "store/codec.h"
#include "store/store.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum {
	CHECKPOINT_STEP = 4096,    /* frames since the last one (16 MiB) */
	WAL_LONG = 16384,          /* frames from which on the writer stands still for the end of a checkpoint */
	CLOCK_BACK_MS = 60 * 1000, /* V13: a clock that was ahead by more is set back */
};

struct batch {
	struct arena *arena;
	size_t n;
	struct store_item items[LIMIT_BATCH_COMMANDS];
	struct proposal *owners[LIMIT_BATCH_COMMANDS];
	struct piece *pieces[LIMIT_BATCH_COMMANDS];
};

struct replica {
	struct store *store; /* the apply thread's */
	struct checkpointer *checkpointer;
	struct batch batch;
	pthread_t apply_thread, checkpoint_thread;

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t work;  /* to the apply thread: the queue, stopping, an exclusive checkpoint ended */
	pthread_cond_t news;  /* to the others: a proposal done, the apply thread idle, a checkpoint due */
	struct link queue;
	size_t queue_bytes;
	bool stopping, applying, apply_ended;
	bool checkpoint_due, exclusive_wanted;
	uint32_t checkpointed_at; /* frames of the WAL at the last checkpoint */
	struct replica_status status;
};

static __attribute__((noreturn)) void fail(const char *msg, const struct err *err)
{
	log_fatal(msg, KV("error", err->text));
}

enum code replica_enqueue(struct replica *replica, struct proposal *proposal, struct err *err)
{
	enum code rc = CODE_OK;

	pthread_mutex_lock(&replica->lock);
	if (replica->stopping) {
		rc = err_set(err, CODE_UNAVAILABLE, "the server is stopping: nothing was changed");
	} else if (replica->queue_bytes + proposal->commands.len > LIMIT_QUEUE_BYTES) {
		rc = err_set(err, CODE_UNAVAILABLE, "too many changes are waiting (%zu bytes): nothing was changed",
			     replica->queue_bytes);
	} else {
		list_push(&replica->queue, &proposal_ref(proposal)->link);
		replica->queue_bytes += proposal->commands.len;
		pthread_cond_signal(&replica->work);
	}
	pthread_mutex_unlock(&replica->lock);
	return rc;
}

bool replica_withdraw(struct replica *replica, struct proposal *proposal)
{
	bool waiting;

	pthread_mutex_lock(&replica->lock);
	waiting = !list_empty(&proposal->link) && proposal->taken == 0;
	if (waiting) {
		list_remove(&proposal->link);
		replica->queue_bytes -= proposal->commands.len;
	}
	pthread_mutex_unlock(&replica->lock);
	if (waiting)
		proposal_unref(proposal);
	return waiting;
}

enum code replica_wait_thread(struct replica *replica, struct proposal *proposal, int64_t deadline_ms)
{
	bool done;

	pthread_mutex_lock(&replica->lock);
	while (!proposal->done) {
		int64_t left_ms = deadline_ms == INT64_MAX ? 1000 : deadline_ms - clock_mono_ms();
		struct timespec until;

		if (left_ms <= 0)
			break;
		if (left_ms > 1000)
			left_ms = 1000; /* the deadline's clock may be a test's: look at it again */
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += left_ms / 1000;
		until.tv_nsec += left_ms % 1000 * 1000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		pthread_cond_timedwait(&replica->news, &replica->lock, &until);
	}
	done = proposal->done;
	pthread_mutex_unlock(&replica->lock);
	return done ? CODE_OK : CODE_DEADLINE_EXCEEDED;
}

static void delivered(struct message *message)
{
	struct proposal *proposal = LIST_ITEM(message, struct proposal, message);

	wait_done(&proposal->wait);
	proposal_unref(proposal);
}

/* Under the lock. The replica's reference goes with the message. */
static void hand_back(struct replica *replica, struct proposal *proposal)
{
	proposal->done = true;
	if (proposal->home != NULL) {
		proposal->message.deliver = delivered;
		loop_post(proposal->home, &proposal->message);
		return;
	}
	pthread_cond_broadcast(&replica->news);
	proposal_unref(proposal);
}

/* Under the lock: the next batch from the head of the queue. */
static void take(struct replica *replica)
{
	struct batch *batch = &replica->batch;
	size_t bytes = 0;

	batch->n = 0;
	while (!list_empty(&replica->queue) && batch->n < LIMIT_BATCH_COMMANDS) {
		struct proposal *proposal = LIST_ITEM(replica->queue.next, struct proposal, link);
		struct piece *piece = &proposal->pieces[proposal->taken];

		if (batch->n > 0 && bytes + piece->len > LIMIT_BATCH_BYTES)
			return;
		batch->owners[batch->n] = proposal;
		batch->pieces[batch->n++] = piece;
		bytes += piece->len;
		if (++proposal->taken < proposal->n)
			continue;
		list_remove(&proposal->link);
		replica->queue_bytes -= proposal->commands.len;
	}
}

static void decode(struct batch *batch)
{
	for (size_t i = 0; i < batch->n; i++) {
		const struct piece *piece = batch->pieces[i];
		struct span bytes = { batch->owners[i]->commands.data + piece->at, piece->len };

		batch->items[i].command = message_unpack(&pb__command__descriptor, bytes, batch->arena);
		assert(batch->items[i].command != NULL); /* we have encoded it ourselves */
	}
}

static int64_t next_stamp(const struct store *store)
{
	int64_t now = clock_wall_ms(), last = store_stamp_ms(store);

	if (now >= last)
		return now;
	if (last - now <= CLOCK_BACK_MS)
		return last;
	log_warn("Clock was ahead and has been set back", KV_NUM("by_seconds", (last - now) / 1000));
	return now;
}

static void apply(struct replica *replica)
{
	struct batch *batch = &replica->batch;
	struct err err = { 0 };

	batch->arena = arena_new();
	decode(batch);
	if (store_apply(replica->store, store_applied(replica->store) + 1, next_stamp(replica->store), batch->items,
			batch->n, batch->arena, &err) != CODE_OK)
		fail("State cannot be written, this server stops", &err);
	for (size_t i = 0; i < batch->n; i++) {
		struct buf *out = &batch->owners[i]->outcomes;

		batch->pieces[i]->out_at = out->len;
		message_pack(batch->items[i].outcome, out);
		batch->pieces[i]->out_len = out->len - batch->pieces[i]->out_at;
	}
	arena_free(batch->arena);
}

/* Under the lock. */
static void note(struct replica *replica)
{
	const struct store *store = replica->store;
	uint32_t frames = store_wal_frames(store);

	replica->status.applied = store_applied(store);
	replica->status.stamp_ms = store_stamp_ms(store);
	store_digest(store, replica->status.digest);
	replica->status.wal_frames = frames;
	if (frames < replica->checkpointed_at)
		replica->checkpointed_at = 0; /* the WAL has started over */
	if (frames < replica->checkpointed_at + CHECKPOINT_STEP || replica->checkpoint_due)
		return;
	replica->checkpointed_at = frames;
	replica->checkpoint_due = true;
	pthread_cond_broadcast(&replica->news);
}

/* Under the lock. */
static void finish(struct replica *replica)
{
	struct batch *batch = &replica->batch;

	note(replica);
	replica->status.batches++;
	replica->status.commands += batch->n;
	for (size_t i = 0; i < batch->n; i++)
		if (++batch->owners[i]->ended == batch->owners[i]->n)
			hand_back(replica, batch->owners[i]);
}

static void *apply_main(void *arg)
{
	struct replica *replica = arg;

	pthread_setname_np(pthread_self(), "replica");
	pthread_mutex_lock(&replica->lock);
	for (;;) {
		while (replica->exclusive_wanted || (list_empty(&replica->queue) && !replica->stopping))
			pthread_cond_wait(&replica->work, &replica->lock);
		if (list_empty(&replica->queue))
			break;
		take(replica);
		replica->applying = true;
		pthread_mutex_unlock(&replica->lock);
		apply(replica);
		pthread_mutex_lock(&replica->lock);
		replica->applying = false;
		finish(replica);
		if (replica->exclusive_wanted)
			pthread_cond_broadcast(&replica->news);
	}
	replica->apply_ended = true;
	pthread_cond_broadcast(&replica->news);
	pthread_mutex_unlock(&replica->lock);
	return NULL;
}

static uint32_t checkpoint(struct replica *replica, bool exclusive)
{
	struct err err = { 0 };
	uint32_t left = 0;

	if (checkpointer_run(replica->checkpointer, exclusive, &left, &err) != CODE_OK)
		fail("State cannot be written, this server stops", &err);
	return left;
}

/* Under the lock, which it gives up meanwhile. */
static void checkpoint_exclusive(struct replica *replica)
{
	replica->exclusive_wanted = true;
	while (replica->applying)
		pthread_cond_wait(&replica->news, &replica->lock);
	pthread_mutex_unlock(&replica->lock);
	checkpoint(replica, true);
	pthread_mutex_lock(&replica->lock);
	replica->exclusive_wanted = false;
	pthread_cond_signal(&replica->work);
}

static void *checkpoint_main(void *arg)
{
	struct replica *replica = arg;

	pthread_setname_np(pthread_self(), "checkpoint");
	pthread_mutex_lock(&replica->lock);
	while (!replica->apply_ended) {
		if (!replica->checkpoint_due) {
			pthread_cond_wait(&replica->news, &replica->lock);
			continue;
		}
		pthread_mutex_unlock(&replica->lock);
		checkpoint(replica, false);
		pthread_mutex_lock(&replica->lock);
		if (replica->status.wal_frames >= WAL_LONG)
			checkpoint_exclusive(replica);
		replica->checkpoint_due = false;
	}
	pthread_mutex_unlock(&replica->lock);
	return NULL;
}

static void sync_init(struct replica *replica)
{
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&replica->lock, NULL);
	pthread_cond_init(&replica->work, NULL);
	pthread_cond_init(&replica->news, &monotonic);
	pthread_condattr_destroy(&monotonic);
	list_init(&replica->queue);
}

static enum code open_all(struct replica *replica, const struct replica_options *options, struct err *err)
{
	TRY(store_open(options->state_path, options->trust_domain, &replica->store, err));
	return checkpointer_open(options->state_path, &replica->checkpointer, err);
}

static void replica_free(struct replica *replica)
{
	checkpointer_close(replica->checkpointer);
	store_close(replica->store);
	pthread_mutex_destroy(&replica->lock);
	pthread_cond_destroy(&replica->work);
	pthread_cond_destroy(&replica->news);
	free(replica);
}

/* Signals are for other threads. */
static void start_threads(struct replica *replica)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&replica->apply_thread, NULL, apply_main, replica);
	if (rc == 0)
		rc = pthread_create(&replica->checkpoint_thread, NULL, checkpoint_main, replica);
	if (rc != 0)
		log_fatal("Cannot start a thread", KV("error", strerror(rc)));
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

enum code replica_start(const struct replica_options *options, struct replica **out, struct err *err)
{
	struct replica *replica = xcalloc(1, sizeof *replica);
	enum code rc;

	sync_init(replica);
	rc = open_all(replica, options, err);
	if (rc != CODE_OK) {
		replica_free(replica);
		return rc;
	}
	note(replica);
	start_threads(replica);
	*out = replica;
	return CODE_OK;
}

void replica_stop(struct replica *replica)
{
	if (replica == NULL)
		return;
	pthread_mutex_lock(&replica->lock);
	replica->stopping = true;
	pthread_cond_signal(&replica->work);
	pthread_mutex_unlock(&replica->lock);
	pthread_join(replica->apply_thread, NULL);
	pthread_join(replica->checkpoint_thread, NULL);
	replica_free(replica);
}

void replica_status(struct replica *replica, struct replica_status *out)
{
	pthread_mutex_lock(&replica->lock);
	*out = replica->status;
	pthread_mutex_unlock(&replica->lock);
}
