/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_MEMBER_H
#define RAFT_MEMBER_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct core;
struct core_change;
struct core_transfer;

/* Changes of members, in the leader's memory: one at a time (R8, R10, R11), and the handing over of leadership.
 *
 *     IDLE --add, demote, remove--> (checks) --submit--> COMMITTING --committed--> IDLE, done(OK)
 *     IDLE --promote--> CATCHING_UP --caught up--> (checks) --submit--> COMMITTING
 *                           `--too slow, gone--> IDLE, done(UNAVAILABLE)
 *     any --leadership lost--> IDLE, done(UNKNOWN): a new leader starts from the configuration */
struct member {
	enum { MEMBER_IDLE, MEMBER_CATCHING_UP, MEMBER_COMMITTING } state;
	struct core_change *change;
	uint64_t index; /* COMMITTING: of the change */
	unsigned tries; /* CATCHING_UP */
	/* What has ended and is told at the end of the outer call. */
	struct core_change *ended;
	enum code ended_code;
	char ended_why[256];

	struct core_transfer *transfer;
	int64_t transfer_ms; /* when it began */
	bool transfer_ended;
	enum code transfer_code;
	char transfer_why[160];
};

void member_check(struct core *core); /* after anything may have changed */
void member_lost(struct core *core);  /* leadership was lost */
void member_tell(struct core *core);  /* calls those that have ended */

#endif
