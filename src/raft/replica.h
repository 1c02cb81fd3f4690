/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_REPLICA_H
#define RAFT_REPLICA_H

#include "base/arena.h"
#include "base/config.h"
#include "base/err.h"
#include "command.pb-c.h"
#include "raft/peer_key.h"

#include <stdbool.h>
#include <stdint.h>

/* The replicated state machine of this node, and the seam under the API: every change is a command that `propose`
 * carries out. What waits when the raft loop comes round shares a log entry, one fsync of the log and one transaction of
 * the state. A server without a cluster {} block is a cluster of one voter on the same code. */
struct replica;

/* The data directory's lock (raft/node.h) is held by the caller: two writers of one file would be worse than none. */
struct replica_options {
	const char *state_path; /* a file of its own, for tests; else NULL and: */
	const char *trust_domain;
	const char *data_dir; /* the state's generations, raft/ (log, vote, place), node/ (peer key) */
	const char *node_id;  /* of raft/node.h; NULL: a fixed one, for tests */

	/* The cluster {} block; NULL: a cluster of one, no peer listener. Must outlive the replica. */
	const struct config_cluster *cluster;
	bool bootstrap;         /* a node without data founds a cluster... */
	const char *join_token; /* ...or joins one by this; "" or NULL: none */
};

/* Recovers log, vote and state, or makes them; returns when the core runs. DATA_LOSS and the like, by the name of the
 * file, when they do not fit each other. */
enum code replica_start(const struct replica_options *options, struct replica **out, struct err *err);
/* Carries out what was proposed, then ends. Later proposals answer UNAVAILABLE. Before the loops that wait are freed;
 * readers of the file may be closed before or after. NULL is fine. */
void replica_stop(struct replica *replica);

/* From a task on any loop, or from a thread without one (which then blocks). Waits for the outcome until `deadline_ms`
 * (clock_mono_ms; INT64_MAX: none); after it the command may still take effect: UNAVAILABLE "outcome unknown: ..."
 * (V7), CANCELLED with the same text when the task was cancelled. A command that had not had its turn yet is withdrawn:
 * then the text says that nothing was changed. A refusal is OK here: look at (*out)->code. A command above
 * LIMIT_COMMAND is refused so (RESOURCE_EXHAUSTED). The outcome lives in the arena. What the outcome tells is visible
 * to every view that is opened afterwards. `format` is filled in if it is 0. */
enum code propose(struct replica *replica, const Pb__Command *command, int64_t deadline_ms, struct arena *arena,
		  Pb__Outcome **out, struct err *err);
/* Each item is its own command; they travel together and share log entries. */
enum code propose_all(struct replica *replica, Pb__Command *const *commands, size_t n, int64_t deadline_ms,
		      struct arena *arena, Pb__Outcome **outs, struct err *err);
/* The same from a thread without a loop: start-up, tests. */
enum code propose_blocking(struct replica *replica, const Pb__Command *command, struct arena *arena, Pb__Outcome **out,
			   struct err *err);

struct replica_status {
	uint64_t applied;
	int64_t stamp_ms; /* of the last batch */
	uint8_t digest[32];
	uint64_t batches, commands; /* since the start */
	uint32_t wal_frames;
};
void replica_status(struct replica *replica, struct replica_status *out); /* thread-safe */

const char *replica_state_path(const struct replica *replica); /* that readers open */

/* --- reading what is current --- */

/* Waits until this replica holds everything that was acknowledged anywhere before the call: a read index that the leader
 * has confirmed in a round of probes (libraft-core.md section 2), then applied here. From a task. UNAVAILABLE: no leader
 * confirms it in time. */
enum code replica_barrier(struct replica *replica, int64_t deadline_ms, struct err *err);

/* Waits until this replica has applied `index`. From a task. UNAVAILABLE "node 'n3' has not reached revision 1900 (at
 * 1874)". */
enum code replica_await(struct replica *replica, uint64_t index, int64_t deadline_ms, struct err *err);

/* --- the cluster: from any thread unless it says task --- */

struct replica_view {
	bool alone;        /* no cluster {} block */
	bool hears_leader; /* or is it */
	bool candidate;    /* asks for votes */
	bool is_leader, ready; /* ready: leader, and an entry of its term is committed */
	bool caught_up;    /* had applied, within the last 10 s, all that it had heard committed when that moment began */
	int64_t leader_heard_ms; /* clock_mono_ms of the last word of a leader whose round a quorum confirmed; 0: never */
	uint64_t applied, commit, term, self, leader; /* leader 0: none */
};
void replica_view(struct replica *replica, struct replica_view *out); /* cheap: for each call, each probe */

struct replica_member {
	uint64_t id, match; /* match: leader only, durable there */
	const char *name, *address, *api_address, *software;
	bool self, leader, voter, signer, removed, up;
	int64_t last_contact_ms; /* since the last word; -1: never */
	const char *why;         /* it is not up: "connection refused"; may be empty */
	const struct pin *pins;
	size_t n_pins;
	const char *node_id;

	/* by its own words, of replica_survey; `answered`: they are there */
	bool answered;
	uint64_t applied, disk_free_mb;
	int64_t clock_ahead_ms; /* of this node's clock, by half of the way there and back at most wrong */
};
struct replica_cluster {
	const char *cluster_id, *name; /* name: this node's */
	uint64_t epoch, term, leader, applied, commit, changing;
	unsigned voters, survives; /* failures that leave a quorum of those that are up */
	bool quorum;
	struct replica_member *members;
	size_t n;
};
/* Strings live in the arena. */
enum code replica_cluster(struct replica *replica, struct arena *arena, struct replica_cluster *out, struct err *err);

/* The same, and every member that is connected has been asked how it is. From a task; waits half a second at most. */
enum code replica_survey(struct replica *replica, int64_t deadline_ms, struct arena *arena, struct replica_cluster *out,
			 struct err *err);

/* A join token for a new node (V17). From a task. */
enum code replica_token(struct replica *replica, int64_t ttl_s, uint32_t uses, bool signer, int64_t deadline_ms,
			struct arena *arena, const char **text, struct err *err);

/* Removes a member, a dead one too; refuses what would lose the quorum, by name and remedy. From a task, on any member. */
enum code replica_remove(struct replica *replica, const char *name, int64_t deadline_ms, struct err *err);

/* Hands leadership to that voter (NULL: to the one that is furthest), waits for it. From a task, on any member. */
enum code replica_transfer(struct replica *replica, const char *name, int64_t deadline_ms, struct err *err);

#endif
