/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_REPLICA_INSIDE_H
#define RAFT_REPLICA_INSIDE_H

/* Inside of the replica: what its files share; for nobody else.
 *
 *   replica.c   the raft loop: the core, its callbacks, start and stop
 *   parcel.c    proposals -> parcels -> the leader's log entries; own and other nodes'
 *   pipeline.c  the apply thread and the checkpoint thread
 *
 * Three threads: the raft loop owns core, wal handle, parcels' states; the apply thread owns the store; the checkpoint
 * thread its own connection. What they share is under `lock`. */

#include "base/list.h"
#include "base/loop.h"
#include "raft/core.h"
#include "raft/proposal.h"
#include "raft/vote.h"
#include "raft/wal.h"
#include "store/store.h"

#include <pthread.h>

/* Commands of one or several proposals on their way. */
struct parcel {
	struct link link; /* in replica->parcels, in order of sequence */
	uint64_t sequence;
	struct buf bytes; /* an encoded Parcel */
	struct parcel_piece {
		struct proposal *owner; /* a reference for each piece */
		struct piece *piece;
	} *pieces;
	size_t n;
	int64_t made_ms;
	bool sent, ever_sent; /* to the leader there was then; the raft loop's */
};

/* A log entry that the core has been given, until its fate is told. */
struct submission {
	struct core_submission core;
	struct link link; /* in replica->submissions */
};

enum { SUBMISSIONS_OPEN = 2 }; /* more wait until these are durable, and share entries */

struct replica {
	/* set once */
	char *state_path, *trust_domain, *node_id, *raft_dir;
	uint64_t boot;
	struct store *store; /* the apply thread's */
	struct checkpointer *checkpointer;
	struct loop *loop;
	pthread_t apply_thread, checkpoint_thread;

	/* the raft loop's */
	uint64_t id;
	struct core *core;
	struct wal *wal;
	struct vote *vote;
	struct vote_state vote_state;
	struct core_recovered recovered; /* until the core has started */
	struct entry **recovered_entries;
	size_t n_recovered, cap_recovered;
	struct core_role role;
	struct link submissions;
	unsigned n_submissions;
	int64_t last_stamp_ms;
	uint64_t next_sequence;
	uv_timer_t timer;
	uv_prepare_t before_poll;
	int64_t ticked_ms;

	/* shared */
	pthread_mutex_t lock;
	pthread_cond_t work; /* to the apply thread: the queue, stopping, an exclusive checkpoint ended */
	pthread_cond_t news; /* to the others: a proposal done, the apply thread idle, a checkpoint due, started */
	struct link proposals; /* struct proposal, waiting to be packed */
	size_t proposals_bytes;
	struct message kick;
	bool kicked;
	struct link parcels; /* struct parcel, until their outcomes are told */
	struct entry **queue; /* to be applied: a ring */
	size_t queue_at, queue_n, queue_cap;
	bool started, closing /* takes nothing new */, stopping, applying, apply_ended;
	bool checkpoint_due, exclusive_wanted;
	uint32_t checkpointed_at; /* frames of the WAL at the last checkpoint */
	struct replica_status status;
	struct core_triple triple; /* of the state as it is now */
	struct core_triple durable; /* on its way to the core */
	struct message durable_message;
	bool durable_posted;
};

/* replica.c */
void replica_tick(struct replica *replica); /* first of all in every entry point of the loop (R21) */
__attribute__((noreturn)) void replica_fail(const char *msg, const struct err *err);

/* parcel.c: on the raft loop */
void parcels_pack(struct replica *replica);     /* takes the proposals that wait */
void parcels_dispatch(struct replica *replica); /* gives what is not sent to the leader, if this node is it */
void parcels_again(struct replica *replica);    /* leadership has changed: all of them are to be sent again */
void parcels_expire(struct replica *replica);   /* what no leader was found for, for too long, has failed */
int64_t parcels_deadline(struct replica *replica);
void submission_fate(struct replica *replica, struct core_submission *submission, enum core_fate fate);
/* from the apply thread, under the lock: this parcel of ours has been carried out */
void parcel_done(struct replica *replica, uint64_t sequence, const struct store_parcel *outcomes);
void parcels_fail_all(struct replica *replica, const char *why); /* at the end */

/* pipeline.c */
void pipeline_start(struct replica *replica);
void pipeline_stop(struct replica *replica);
void pipeline_push(struct replica *replica, struct entry *const *entries, size_t n); /* takes references */
void pipeline_note(struct replica *replica); /* under the lock, or before the threads run */
enum code pipeline_triple(struct store *store, struct core_triple *out, struct err *err);

#endif
