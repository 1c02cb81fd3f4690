/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_READS_H
#define RAFT_READS_H

#include "base/err.h"
#include "base/list.h"
#include "raft/conf.h"

#include <stdbool.h>
#include <stdint.h>

struct core;

/* Confirmed reads by rounds of probes (libraft-core.md section 2): no disk, no clock. A leader that has committed an
 * entry of its term notes its commit index, asks the voters "is your term still T?", and once a majority of the newest
 * configuration has said yes, while it still leads in T, that index is one that no acknowledged write is above of. One
 * round serves all that came before it began.
 *
 *     waiting --reads_flush--> asked (round, index) --reads_ack, majority--> done(OK, index)
 *         `-------- leadership lost: reads_fail -----'----> done(UNAVAILABLE) */
struct reads {
	struct link waiting, asked, ended;
	uint64_t round;      /* the last one begun */
	uint64_t confirmed;  /* the last one that a majority has answered */
	uint64_t conf_index; /* of the configuration under which the acknowledgements were given */
	int64_t asked_ms;    /* when a round was last sent */
	struct {
		uint64_t id, round;
	} acks[CONF_MAX];
};

void reads_init(struct reads *reads);
void reads_flush(struct core *core); /* begins a round if somebody waits */
void reads_tick(struct core *core);  /* asks again for what was lost */
void reads_ack(struct core *core, uint64_t from, uint64_t round);
void reads_check(struct core *core); /* after anything may have changed */
void reads_fail(struct core *core);  /* leadership was lost */
void reads_tell(struct core *core);  /* calls those that have ended */

#endif
