/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_REPLICA_H
#define RAFT_REPLICA_H

#include "base/arena.h"
#include "base/err.h"
#include "command.pb-c.h"

#include <stdbool.h>
#include <stdint.h>

/* The replicated state machine of this node, and the seam under the API: every change is a command that `propose`
 * carries out. What waits when the raft loop comes round shares a log entry, one fsync of the log and one transaction of
 * the state. A server without a cluster {} block is a cluster of one voter on the same code. */
struct replica;

/* The data directory's lock (raft/node.h) is held by the caller: two writers of one file would be worse than none. */
struct replica_options {
	const char *state_path;
	const char *trust_domain;
	const char *raft_dir; /* log and vote; NULL: state_path with "-raft" behind it */
	const char *node_id;  /* of raft/node.h; NULL: a fixed one, for tests */
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

#endif
