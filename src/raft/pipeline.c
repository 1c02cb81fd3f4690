/* SPDX-License-Identifier: Apache-2.0 */
/* The apply thread: committed entries in order, one transaction each, outcomes to those who wait. The checkpoint thread: copies
 * WAL frames into the state file beside the writer; when the WAL has grown long all the same, it asks the writer to stand still for
 * the last few frames, so that the WAL can start over. A checkpoint that has moved everything makes the triple that stood before
 * it durable: below it the log may be cut (availability.md V11, R13). */
#include "raft/replica_inside.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/metric.h"
#include "store/codec.h"

#include "batch.pb-c.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum {
	CHECKPOINT_STEP = 4096, /* frames since the last one (16 MiB) */
	WAL_LONG = 16384,       /* frames from which on the writer stands still for the end of a checkpoint */
	TRAILING = 50000,       /* entries that stay in the log for followers that lag (libraft-core.md section 5) */
};

/* --- the queue --- */

void pipeline_push(struct replica *r, struct entry *const *entries, size_t n)
{
	pthread_mutex_lock(&r->lock);
	if (r->queue_n + n > r->queue_cap) {
		size_t cap = 2 * (r->queue_n + n) + 64;
		struct entry **grown = xcalloc(cap, sizeof *grown);

		for (size_t i = 0; i < r->queue_n; i++)
			grown[i] = r->queue[(r->queue_at + i) % r->queue_cap];
		free(r->queue);
		r->queue = grown;
		r->queue_cap = cap;
		r->queue_at = 0;
	}
	for (size_t i = 0; i < n; i++)
		r->queue[(r->queue_at + r->queue_n++) % r->queue_cap] = entry_ref(entries[i]);
	pthread_cond_signal(&r->work);
	pthread_mutex_unlock(&r->lock);
}

/* --- one entry --- */

struct step {
	struct store_step store;
	uint64_t *boots; /* of the parcels */
};

static void decode_parcel(struct span bytes, struct store_parcel *out, struct arena *arena)
{
	const Pb__Parcel *parcel = message_unpack(&pb__parcel__descriptor, bytes, arena);

	assert(parcel != NULL); /* a node of ours has encoded it */
	out->boot = parcel->boot;
	out->sequence = parcel->sequence;
	out->n = parcel->n_commands;
	out->items = arena_zalloc(arena, (out->n + 1) * sizeof *out->items);
	for (size_t i = 0; i < out->n; i++) {
		struct span command = { parcel->commands[i].data, parcel->commands[i].len };

		out->items[i].command = message_unpack(&pb__command__descriptor, command, arena);
		assert(out->items[i].command != NULL);
	}
}

static void decode_batch(const struct entry *entry, struct store_step *step, struct arena *arena)
{
	const Pb__Batch *batch = message_unpack(&pb__batch__descriptor, (struct span){ entry->data, entry->len }, arena);

	assert(batch != NULL);
	step->stamp_ms = batch->stamp_ms;
	step->n_parcels = batch->n_parcels;
	step->parcels = arena_zalloc(arena, (batch->n_parcels + 1) * sizeof *step->parcels);
	for (size_t i = 0; i < batch->n_parcels; i++)
		decode_parcel((struct span){ batch->parcels[i].data, batch->parcels[i].len }, &step->parcels[i], arena);
}

enum code pipeline_triple(struct store *store, struct core_triple *out, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct store_triple triple;

	TRY(store_triple(store, arena, &triple, err));
	*out = (struct core_triple){ .index = triple.index, .term = triple.term, .conf_index = triple.conf_index };
	if (triple.conf.len == 0)
		return CODE_OK;
	return conf_decode(triple.conf.data, triple.conf.len, &out->conf, err);
}

static void apply_entry(struct replica *r, const struct entry *entry, struct store_step *step, struct arena *arena)
{
	struct err err = { 0 };

	*step = (struct store_step){ .index = entry->index, .term = entry->term, .stamp_ms = store_stamp_ms(r->store) };
	if (entry->type == ENTRY_COMMAND)
		decode_batch(entry, step, arena);
	else if (entry->type == ENTRY_CHANGE)
		step->conf = (struct span){ entry->data, entry->len };
	if (store_apply_step(r->store, step, arena, &err) != CODE_OK)
		replica_fail("State cannot be written, this server stops", &err);
}

/* Under the lock. */
void pipeline_note(struct replica *r)
{
	const struct store *store = r->store;
	uint32_t frames = store_wal_frames(store);

	r->status.applied = store_applied(store);
	r->status.stamp_ms = store_stamp_ms(store);
	store_digest(store, r->status.digest);
	r->status.wal_frames = frames;
	if (frames < r->checkpointed_at)
		r->checkpointed_at = 0; /* the WAL has started over */
	if (frames < r->checkpointed_at + CHECKPOINT_STEP || r->checkpoint_due)
		return;
	r->checkpointed_at = frames;
	r->checkpoint_due = true;
	pthread_cond_broadcast(&r->news);
}

/* Under the lock: what follows from an entry that is in the state now. */
static void finish(struct replica *r, const struct entry *entry, const struct store_step *step)
{
	struct err err = { 0 };

	pipeline_note(r);
	r->triple.index = entry->index;
	r->triple.term = entry->term;
	if (entry->type == ENTRY_CHANGE) {
		r->triple.conf_index = entry->index;
		if (conf_decode(entry->data, entry->len, &r->triple.conf, &err) != CODE_OK)
			replica_fail("A configuration in the log cannot be read, this server stops", &err);
	}
	if (entry->type == ENTRY_COMMAND)
		r->status.batches++;
	waiters_wake(r);
	for (size_t i = 0; i < step->n_parcels; i++) {
		for (size_t k = 0; k < step->parcels[i].n && !step->parcels[i].repeated; k++)
			if (step->parcels[i].items[k].outcome->member != NULL)
				cluster_members_changed(r);
		r->status.commands += step->parcels[i].n;
		if (step->parcels[i].boot == r->boot && !step->parcels[i].repeated)
			parcel_done(r, step->parcels[i].sequence, &step->parcels[i]);
	}
}

static void apply_one(struct replica *r, struct entry *entry)
{
	struct arena *arena = arena_new();
	struct store_step step;
	bool old;

	old = entry->index <= store_applied(r->store); /* in the state file already: a restart hands it on again */
	if (!old)
		apply_entry(r, entry, &step, arena);
	pthread_mutex_lock(&r->lock);
	if (!old)
		finish(r, entry, &step);
	pthread_mutex_unlock(&r->lock);
	arena_free(arena);
	entry_unref(entry);
}

static void *apply_main(void *arg)
{
	struct replica *r = arg;

	pthread_setname_np(pthread_self(), "apply");
	pthread_mutex_lock(&r->lock);
	for (;;) {
		struct entry *entry;

		while (r->exclusive_wanted || (r->queue_n == 0 && !r->stopping))
			pthread_cond_wait(&r->work, &r->lock);
		if (r->queue_n == 0)
			break;
		entry = r->queue[r->queue_at];
		r->queue_at = (r->queue_at + 1) % r->queue_cap;
		r->queue_n--;
		r->applying = true;
		pthread_mutex_unlock(&r->lock);
		apply_one(r, entry);
		pthread_mutex_lock(&r->lock);
		r->applying = false;
		if (r->exclusive_wanted)
			pthread_cond_broadcast(&r->news);
	}
	r->apply_ended = true;
	pthread_cond_broadcast(&r->news);
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

/* --- checkpoints --- */

static void snapshot_is_durable(struct message *message)
{
	struct replica *r = LIST_ITEM(message, struct replica, durable_message);
	struct core_triple triple;
	uint64_t keep;

	pthread_mutex_lock(&r->lock);
	triple = r->durable;
	r->durable_posted = false;
	pthread_mutex_unlock(&r->lock);
	if (r->core == NULL)
		return;
	replica_tick(r);
	keep = core_snapshot(r->core, &triple, TRAILING);
	if (keep > 0)
		wal_cut(r->wal, keep);
}

/* Under the lock: everything up to `triple` is in the file and synced. */
static void tell_core(struct replica *r, const struct core_triple *triple)
{
	if (triple->index == 0 || triple->conf_index == 0)
		return;
	r->durable = *triple;
	if (r->durable_posted)
		return;
	r->durable_posted = true;
	r->durable_message.deliver = snapshot_is_durable;
	loop_post(r->loop, &r->durable_message);
}

static uint32_t checkpoint(struct replica *r, bool exclusive)
{
	struct err err = { 0 };
	uint32_t left = 0;

	if (checkpointer_run(r->checkpointer, exclusive, &left, &err) != CODE_OK)
		replica_fail("State cannot be written, this server stops", &err);
	return left;
}

/* Under the lock, which it gives up meanwhile. */
static void checkpoint_exclusive(struct replica *r)
{
	struct core_triple triple;
	uint32_t left;

	r->exclusive_wanted = true;
	while (r->applying)
		pthread_cond_wait(&r->news, &r->lock);
	triple = r->triple;
	pthread_mutex_unlock(&r->lock);
	left = checkpoint(r, true);
	pthread_mutex_lock(&r->lock);
	r->exclusive_wanted = false;
	pthread_cond_signal(&r->work);
	if (left == 0)
		tell_core(r, &triple);
}

/* Under the lock, which it gives up meanwhile. */
static void checkpoint_beside(struct replica *r)
{
	struct core_triple triple = r->triple;
	uint32_t left;

	pthread_mutex_unlock(&r->lock);
	left = checkpoint(r, false);
	pthread_mutex_lock(&r->lock);
	if (left == 0)
		tell_core(r, &triple);
}

static void *checkpoint_main(void *arg)
{
	struct replica *r = arg;

	pthread_setname_np(pthread_self(), "checkpoint");
	pthread_mutex_lock(&r->lock);
	while (!r->apply_ended) {
		if (!r->checkpoint_due) {
			pthread_cond_wait(&r->news, &r->lock);
			continue;
		}
		checkpoint_beside(r);
		if (r->status.wal_frames >= WAL_LONG)
			checkpoint_exclusive(r);
		r->checkpoint_due = false;
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

/* --- both --- */

void pipeline_start(struct replica *r)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all); /* signals are for other threads */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&r->apply_thread, NULL, apply_main, r);
	if (rc == 0)
		rc = pthread_create(&r->checkpoint_thread, NULL, checkpoint_main, r);
	if (rc != 0)
		log_fatal("Cannot start a thread", KV("error", strerror(rc)));
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	r->pipeline_runs = true;
}

void pipeline_stop(struct replica *r)
{
	if (!r->pipeline_runs)
		return;
	pthread_mutex_lock(&r->lock);
	r->stopping = true;
	pthread_cond_broadcast(&r->work);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->apply_thread, NULL);
	pthread_join(r->checkpoint_thread, NULL);
	for (size_t i = 0; i < r->queue_n; i++)
		entry_unref(r->queue[(r->queue_at + i) % r->queue_cap]);
	free(r->queue);
	r->queue = NULL;
	r->queue_n = 0;
}
