/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_VOTE_H
#define RAFT_VOTE_H

#include "base/err.h"
#include "base/own.h"

#include <stdbool.h>
#include <stdint.h>

/* The term and the vote in it, in one record: what this node has promised. */
struct vote;

struct vote_state {
	uint64_t term, voted_for; /* 0: no vote in this term */
	uint64_t starts;          /* times that the file was opened, this one included: never twice the same (V19) */
};

/* Reads `path`; counts the start. `make`: a file that is missing is made (term 0), as the last of a new node's files;
 * a node that has a log or a state passes false. Refused, by name: a newer version's format (UNIMPLEMENTED), another
 * node's file (FAILED_PRECONDITION), a damaged or missing one (DATA_LOSS). */
enum code vote_open(const char *path, const char *owner, bool make, struct vote **out, struct vote_state *state,
		    struct err *err);
void vote_close(struct vote *vote); /* NULL is fine */
OWNABLE_STRUCT(vote, vote_close)

/* Durable when it returns; a disk that fails ends the process. The term does not fall; in one term a vote once given
 * stays (asserted). */
void vote_write(struct vote *vote, uint64_t term, uint64_t voted_for);

#endif
