/* SPDX-License-Identifier: Apache-2.0 */
/* Messages in: what must not reach the library is answered, cut, or dropped here. Rules kept here: R2, R3, R5, R9, R12,
 * R14, R18, R19, and the checks of the wire that need the state. */
#include "raft/core_inside.h"

#include "base/log.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { FEATURE_CAPACITY = 1 };

static void step_receive(struct core *core, uint64_t from, struct raft_message *message, struct entry *const *pending,
			 unsigned n)
{
	struct raft_event event = { .type = RAFT_RECEIVE, .receive.message = message };

	message->server_id = from;
	message->server_address = "-"; /* only copied; addresses are the link's business */
	core_step(core, &event, pending, n);
}

/* -- appends
 * ----------------------------------------------------------------------------------------------------------- */

/* R2: the library would answer a message of an older term with its own term and an index that means nothing, which the
 * sender, if it has won that term meanwhile, takes for entries that are durable here. This answer is neutral. */
static void answer_stale(struct core *core, uint64_t from)
{
	struct peer_message out = { .kind = PEER_APPEND_RESULT, .term = raft_current_term(&core->raft) };

	out.append_result.features = FEATURE_CAPACITY;
	out.append_result.capacity = core->capacity;
	core->io->send(core->ctx, from, &out);
}

/* One piece: at most its first entry is a change. The payloads that the library does not read are not copied for it. */
static void step_piece(struct core *core, uint64_t from, const struct peer_message *message, uint64_t prev,
		       uint64_t prev_term, unsigned first, unsigned n)
{
	struct entry *const *entries = message->append.entries + first;
	struct raft_entry array[PEER_ENTRIES_MAX];
	struct raft_message out = { .type = RAFT_APPEND_ENTRIES };
	size_t size = n > 0 && entries[0]->type == ENTRY_CHANGE ? entries[0]->len : 8;
	void *batch = NULL;

	if (n > 0) {
		batch = raft_malloc(size);
		if (batch == NULL)
			abort();
		memset(batch, 0, 8);
		if (entries[0]->type == ENTRY_CHANGE)
			memcpy(batch, entries[0]->data, entries[0]->len);
	}
	for (unsigned i = 0; i < n; i++)
		array[i] = (struct raft_entry){
			entries[i]->term, (enum raft_entry_type)entries[i]->type, { batch, size }, batch
		};
	out.append_entries.term = message->term;
	out.append_entries.prev_log_index = prev;
	out.append_entries.prev_log_term = prev_term;
	out.append_entries.leader_commit = message->append.commit;
	out.append_entries.entries = array;
	out.append_entries.n_entries = n;
	step_receive(core, from, &out, entries, n);
}

/* R3: the library remembers a new change at the index of the first new entry, so a change must be that; and an earlier
 * change that it still thinks pending is committed by the rule of one at a time, which it has to be told before. */
static void settle_earlier_change(struct core *core, const struct entry *change, uint64_t prev, uint64_t prev_term)
{
	uint64_t pending = core->raft.configuration_uncommitted_index;
	struct raft_event event = { .type = RAFT_CONFIGURATION };
	const struct mirror_conf *conf;

	if (pending == 0 || pending > prev || mirror_term_of(core->mirror, prev) != prev_term ||
	    mirror_term_of(core->mirror, change->index) == change->term)
		return;
	conf = mirror_conf_at(core->mirror, pending);
	if (conf == NULL || conf->index != pending)
		core_fatal(core, "the change pending at %" PRIu64 " is not in the log", pending);
	event.configuration.index = pending;
	core_raft_conf(&conf->conf, &event.configuration.conf);
	core_step(core, &event, NULL, 0);
}

static unsigned piece_end(const struct core *core, const struct peer_message *message, unsigned first)
{
	unsigned end = first + 1;

	while (end < message->append.n && (!core_rule(core, 3) || message->append.entries[end]->type != ENTRY_CHANGE))
		end++;
	return end;
}

static void step_pieces(struct core *core, uint64_t from, const struct peer_message *message, uint64_t prev,
			uint64_t prev_term, unsigned first)
{
	if (first == message->append.n) {
		step_piece(core, from, message, prev, prev_term, first, 0);
		return;
	}
	while (first < message->append.n) {
		unsigned end = piece_end(core, message, first);
		const struct entry *last = message->append.entries[end - 1];

		if (core_rule(core, 3) && message->append.entries[first]->type == ENTRY_CHANGE && prev > 0)
			settle_earlier_change(core, message->append.entries[first], prev, prev_term);
		step_piece(core, from, message, prev, prev_term, first, end - first);
		if (mirror_term_of(core->mirror, last->index) != last->term)
			return; /* rejected: so would be the rest */
		prev = last->index;
		prev_term = last->term;
		first = end;
	}
}

static void receive_append(struct core *core, uint64_t from, const struct peer_message *message)
{
	uint64_t term = raft_current_term(&core->raft), commit = core_commit(core);
	uint64_t prev = message->append.prev_index, prev_term = message->append.prev_term;
	unsigned first = 0;

	if (message->term < term && core_rule(core, 2)) {
		answer_stale(core, from);
		return;
	}
	if (message->term == term && core_is_leader(core)) { /* R19 */
		log_error("another node says that it leads in this node's term", KV_NUM("member", (int64_t)from),
			  KV_NUM("term", (int64_t)term));
		return;
	}
	if (core->installing) {
		/* R14: it keeps the leader known; entries and its commit index have to wait. */
		struct peer_message empty = { .kind = PEER_APPEND, .term = message->term };

		step_piece(core, from, &empty, core->install.index, core->install.term, 0, 0);
		return;
	}
	/* R5: what is committed here is not up for discussion. The library would append a late duplicate with prev 0
	 * behind a log whose beginning is gone, and reject below its snapshot. */
	if (prev < commit && core_rule(core, 5)) {
		while (first < message->append.n && prev < commit) {
			prev++;
			first++;
		}
		prev = commit;
		prev_term = mirror_term_of(core->mirror, commit);
		if (prev_term == 0)
			core_fatal(core, "the term of the commit index %" PRIu64 " is not known", commit);
	}
	step_pieces(core, from, message, prev, prev_term, first);
}

static enum code receive_append_result(struct core *core, uint64_t from, const struct peer_message *message,
				       struct err *err)
{
	struct raft_message in = { .type = RAFT_APPEND_ENTRIES_RESULT };

	if (!core_is_leader(core))
		return CODE_OK;
	if (message->term == raft_current_term(&core->raft)) {
		if (message->append_result.last_index > mirror_last(core->mirror) && core_rule(core, 2))
			return err_set(err, CODE_INVALID_ARGUMENT,
				       "member %" PRIu64 " says that it has entry %" PRIu64
				       ", the leader's last is %" PRIu64,
				       from, message->append_result.last_index, mirror_last(core->mirror));
		core_stream_answer(core, from, message->append_result.rejected, message->append_result.last_index);
	}
	in.append_entries_result.version = 2;
	in.append_entries_result.term = message->term;
	in.append_entries_result.rejected = message->append_result.rejected;
	in.append_entries_result.last_log_index = message->append_result.last_index;
	in.append_entries_result.features = message->append_result.features;
	in.append_entries_result.capacity = message->append_result.capacity;
	step_receive(core, from, &in, NULL, 0);
	core_writable(core, from);
	return CODE_OK;
}

/* -- votes
 * ------------------------------------------------------------------------------------------------------------- */

static void receive_vote(struct core *core, uint64_t from, const struct peer_message *message)
{
	struct raft_message in = { .type = RAFT_REQUEST_VOTE };

	in.request_vote.version = 2;
	in.request_vote.term = message->term;
	in.request_vote.candidate_id = message->vote.candidate;
	in.request_vote.last_log_index = message->vote.last_index;
	in.request_vote.last_log_term = message->vote.last_term;
	in.request_vote.disrupt_leader = message->vote.disrupt_leader;
	in.request_vote.pre_vote = false;
	step_receive(core, from, &in, NULL, 0);
}

static void receive_vote_result(struct core *core, uint64_t from, const struct peer_message *message)
{
	struct raft_message in = { .type = RAFT_REQUEST_VOTE_RESULT };

	if (raft_state(&core->raft) != RAFT_CANDIDATE) /* R18: it reads a candidate's union member */
		return;
	in.request_vote_result.version = 2;
	in.request_vote_result.term = message->term;
	in.request_vote_result.vote_granted = message->vote_result.granted;
	in.request_vote_result.features = message->vote_result.features;
	in.request_vote_result.capacity = message->vote_result.capacity;
	step_receive(core, from, &in, NULL, 0);
}

/* -- copies and hand-overs
 * --------------------------------------------------------------------------------------------- */

static void receive_snapshot(struct core *core, uint64_t from, const struct peer_message *message)
{
	struct raft_message in = { .type = RAFT_INSTALL_SNAPSHOT };
	struct core_triple state = { message->snapshot.index, message->snapshot.term, message->snapshot.conf_index,
				     message->snapshot.conf };

	if (message->term < raft_current_term(&core->raft)) { /* R2 */
		answer_stale(core, from);
		return;
	}
	if (message->term == raft_current_term(&core->raft) && core_is_leader(core)) { /* R19 */
		log_error("another node says that it leads in this node's term", KV_NUM("member", (int64_t)from));
		return;
	}
	/* R9: once is enough. R15: the file is here, or this is not for us. A state behind what was applied is not
	 * taken: the library answers that it has all that, which the leader has to hear. */
	if (core->installing || (state.index > core->handed && !core->io->copy_ready(core->ctx, &state)))
		return;
	in.install_snapshot.term = message->term;
	in.install_snapshot.last_index = state.index;
	in.install_snapshot.last_term = state.term;
	in.install_snapshot.conf_index = state.conf_index;
	core_raft_conf(&state.conf, &in.install_snapshot.conf);
	step_receive(core, from, &in, NULL, 0);
}

static void receive_timeout_now(struct core *core, uint64_t from, const struct peer_message *message)
{
	struct raft_message in = { .type = RAFT_TIMEOUT_NOW };

	if (core->role.role != CORE_FOLLOWER || core->role.leader != from)
		return;
	in.timeout_now.term = message->term;
	in.timeout_now.last_log_index = message->timeout_now.last_index;
	in.timeout_now.last_log_term = message->timeout_now.last_term;
	step_receive(core, from, &in, NULL, 0);
}

/* A yes means: at this moment this node knows no newer term, so no newer leader has its vote. */
static void receive_probe(struct core *core, uint64_t from, const struct peer_message *message)
{
	struct peer_message out = { .kind = PEER_PROBE_ACK, .term = message->term };

	if (message->term != raft_current_term(&core->raft))
		return;
	out.probe.round = message->probe.round;
	core->io->send(core->ctx, from, &out);
}

static enum code dispatch(struct core *core, uint64_t from, const struct peer_message *message, struct err *err)
{
	switch (message->kind) {
	case PEER_APPEND:
		receive_append(core, from, message);
		break;
	case PEER_APPEND_RESULT:
		return receive_append_result(core, from, message, err);
	case PEER_VOTE:
		receive_vote(core, from, message);
		break;
	case PEER_VOTE_RESULT:
		receive_vote_result(core, from, message);
		break;
	case PEER_SNAPSHOT:
		receive_snapshot(core, from, message);
		break;
	case PEER_TIMEOUT_NOW:
		receive_timeout_now(core, from, message);
		break;
	case PEER_PROBE:
		receive_probe(core, from, message);
		break;
	case PEER_PROBE_ACK:
		if (message->term == raft_current_term(&core->raft))
			reads_ack(core, from, message->probe.round);
		break;
	}
	return CODE_OK;
}

enum code core_receive(struct core *core, uint64_t from, const struct peer_message *message, struct err *err)
{
	struct core_peer *peer;

	if (from == core->id)
		return err_set(err, CODE_INVALID_ARGUMENT, "member %" PRIu64 " speaks to itself", from);
	if (core_is_removed(core, from) && core_rule(core, 12)) /* R12: it would campaign for ever */
		return err_set(err, CODE_PERMISSION_DENIED, "member %" PRIu64 " was removed from the cluster", from);
	peer = core_peer_get(core, from);
	if (peer != NULL)
		peer->contact_ms = core->now;
	if (core->died.leader == from)
		core->died.leader = 0; /* it lives */
	TRY(dispatch(core, from, message, err));
	core_settle(core);
	return CODE_OK;
}
