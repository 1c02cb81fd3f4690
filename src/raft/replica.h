/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_REPLICA_H
#define RAFT_REPLICA_H

#include "base/arena.h"
#include "base/err.h"
#include "command.pb-c.h"

#include <stdbool.h>
#include <stdint.h>

/* The replicated state machine of this node, and the seam under the API: every change is a command that `propose` carries out.
 * A thread of its own owns the store. What waits when it comes round is one batch: one log entry, one transaction, one fsync. */
struct replica;

struct replica_options {
	const char *state_path;
	const char *trust_domain;
};

enum code replica_start(const struct replica_options *options, struct replica **out, struct err *err);
/* Carries out what was proposed, then ends. Later proposals answer UNAVAILABLE. */
void replica_stop(struct replica *replica);

/* From a task on any loop. Waits for the outcome until `deadline_ms` (clock_mono_ms); after it the command may still take effect:
 * UNAVAILABLE "outcome unknown: ..." (V7). A refusal is OK here: look at (*out)->code. The outcome lives in the arena. */
enum code propose(struct replica *replica, const Pb__Command *command, int64_t deadline_ms, struct arena *arena, Pb__Outcome **out,
		  struct err *err);
/* Each item is its own command; they travel together and share log entries. */
enum code propose_all(struct replica *replica, Pb__Command *const *commands, size_t n, int64_t deadline_ms, struct arena *arena,
		      Pb__Outcome **outs, struct err *err);
/* The same from a thread without a loop: start-up, tests. */
enum code propose_blocking(struct replica *replica, const Pb__Command *command, struct arena *arena, Pb__Outcome **out, struct err *err);

struct replica_status {
	uint64_t applied;
	uint8_t digest[32];
};
void replica_status(struct replica *replica, struct replica_status *out); /* thread-safe */

#endif
