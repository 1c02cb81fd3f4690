/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_PROPOSAL_H
#define RAFT_PROPOSAL_H

#include "base/buf.h"
#include "base/list.h"
#include "base/task.h"
#include "raft/replica.h"

#include <stdatomic.h>

/* Commands on their way to the log and back: refcounted, because who waits for the outcome may give up before it is
 * there. One reference is the waiter's, one is the replica's (and then that of the message to the waiter's loop). */
struct piece {
	size_t item;            /* its place in the caller's array */
	size_t at, len;         /* the encoded command in `commands` */
	size_t out_at, out_len; /* the encoded outcome in `outcomes` */
};

struct proposal {
	struct message message; /* to `home`, when all is done */
	struct wait wait;
	struct loop *home; /* NULL: a thread waits for `done` */
	bool done;         /* under the replica's lock */
	_Atomic int refs;
	struct link link; /* in the replica's queue until the last command is taken */
	struct err failed; /* code not OK: it came to nothing, or nobody knows */
	struct buf commands, outcomes;
	struct piece *pieces;
	size_t n, taken, ended;
};

struct proposal *proposal_new(struct loop *home, size_t n);
struct proposal *proposal_ref(struct proposal *proposal);
void proposal_unref(struct proposal *proposal);

/* replica.c: takes a reference of its own on success. */
enum code replica_enqueue(struct replica *replica, struct proposal *proposal, struct err *err);
/* For a waiter that gives up: true if no command had been taken yet; none will be. */
bool replica_withdraw(struct replica *replica, struct proposal *proposal);
/* Blocks the thread until the proposal is done or it is `deadline_ms`. */
enum code replica_wait_thread(struct replica *replica, struct proposal *proposal, int64_t deadline_ms);

#endif
