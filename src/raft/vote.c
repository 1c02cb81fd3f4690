/* SPDX-License-Identifier: Apache-2.0 */
/* The vote record: see pair.c for how it is kept. */
#include "raft/vote.h"

#include "base/arena.h"
#include "raft/pair.h"

#include <assert.h>
#include <endian.h>
#include <stdlib.h>

struct body { /* little-endian */
	uint64_t term, voted_for, starts;
};

static const struct pair_kind kind = {
	.magic = "VOTE\r\n\x1a",
	.version = 1,
	.body_len = sizeof(struct body),
	.what = "vote record",
	.write_fault = "vote.write",
	.sync_fault = "vote.sync",
};

struct vote {
	struct pair *pair;
	struct vote_state state;
};

static void store(struct vote *vote)
{
	struct body body = {
		.term = htole64(vote->state.term),
		.voted_for = htole64(vote->state.voted_for),
		.starts = htole64(vote->state.starts),
	};

	pair_write(vote->pair, &body);
}

enum code vote_open(const char *path, const char *owner, bool make, struct vote **out, struct vote_state *state,
		    struct err *err)
{
	struct body body = { 0 };
	struct pair *pair;
	struct vote *vote;
	enum code rc = pair_open(path, &kind, owner, make, &body, &pair, err);

	if (rc == CODE_NOT_FOUND)
		return err_set(err, CODE_DATA_LOSS,
			       "vote record \"%s\" is missing: without it this node could vote twice; replace it "
			       "(remove it, join again)",
			       path);
	TRY(rc);
	vote = xcalloc(1, sizeof *vote);
	vote->pair = pair;
	vote->state.term = le64toh(body.term);
	vote->state.voted_for = le64toh(body.voted_for);
	vote->state.starts = le64toh(body.starts) + 1;
	store(vote);
	*state = vote->state;
	*out = vote;
	return CODE_OK;
}

void vote_close(struct vote *vote)
{
	if (vote == NULL)
		return;
	pair_close(vote->pair);
	free(vote);
}

void vote_write(struct vote *vote, uint64_t term, uint64_t voted_for)
{
	assert(term >= vote->state.term);
	assert(term > vote->state.term || vote->state.voted_for == 0 || vote->state.voted_for == voted_for);
	vote->state.term = term;
	vote->state.voted_for = voted_for;
	store(vote);
}
