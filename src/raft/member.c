/* SPDX-License-Identifier: Apache-2.0 */
/* Changes of members: see member.h. Rules kept here: R8 (one server a change, order kept), R10 (never fewer than two
 * voters beside others), R11 (who must vote afterwards holds today's configuration), and the growth from one voter to
 * two. */
#include "raft/core_inside.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { CATCH_UP_TRIES = 3 };

static void end_change(struct core *core, enum code code, const char *why)
{
	struct member *member = &core->member;

	member->state = MEMBER_IDLE;
	member->ended = member->change;
	member->change = NULL;
	member->ended_code = code;
	snprintf(member->ended_why, sizeof(member->ended_why), "%.*s", (int)sizeof(member->ended_why) - 1, why);
}

static void end_transfer(struct core *core, enum code code, const char *why)
{
	core->member.transfer_ended = true;
	core->member.transfer_code = code;
	snprintf(core->member.transfer_why, sizeof(core->member.transfer_why), "%.*s",
		 (int)sizeof(core->member.transfer_why) - 1, why);
}

/* -- preconditions, checked at the request and again just before the change is submitted
 * --------------------------------- */

/* R11. A server refuses its vote while it is no voter in its own log: were the leader to die with a majority of the new
 * voters in that state, nobody could be elected any more. */
static enum code check_majority(struct core *core, const struct conf *next, struct err *err)
{
	const struct mirror_conf *now = mirror_conf_last(core->mirror);
	unsigned fit = 0, voters = conf_voters(next);

	for (unsigned i = 0; i < next->n; i++) {
		uint64_t id = next->servers[i].id;
		const struct core_peer *peer = core_peer_get(core, id);

		if (next->servers[i].role != CONF_VOTER || !conf_is_voter(&now->conf, id))
			continue;
		if (id != core->id && (peer == NULL || peer->contact_ms < 0 ||
				       core->now - peer->contact_ms > 2 * (int64_t)core->election))
			continue;
		fit += core_match(core, id) >= now->index;
	}
	if (core_rule(core, 11) && fit <= voters / 2)
		return err_set(
			err, CODE_FAILED_PRECONDITION,
			"of the %u voters that would be, only %u are voters, in reach and up to date now: a majority "
			"must be, or nobody could be elected if this node died",
			voters, fit);
	return CODE_OK;
}

static enum code check_ready(struct core *core, struct err *err)
{
	const struct mirror_conf *now = mirror_conf_last(core->mirror);

	if (!core_is_leader(core))
		return err_set(err, CODE_UNAVAILABLE, "this node is not the leader");
	if (!core_ready(core)) /* R6 */
		return err_set(err, CODE_UNAVAILABLE, "the leader has not committed an entry of its term yet");
	if (core->frozen || core->member.transfer != NULL || raft_transferee(&core->raft) != 0)
		return err_set(err, CODE_UNAVAILABLE, "leadership is being handed over");
	if (now->index > core->given)
		return err_set(err, CODE_UNAVAILABLE, "another change of members is under way");
	return CODE_OK;
}

static enum code check_add(const struct core *core, const struct conf *now, const struct core_change *change,
			   struct err *err)
{
	if (conf_voters(now) < 2) /* R10 */
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "a single voter takes its first other member by a common copy of the state");
	if (core_is_removed(core, change->id)) /* R8, R12 */
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "member %" PRIu64 " was removed before: ids are not used again", change->id);
	return CODE_OK;
}

static enum code check_role(const struct conf *now, const struct core_change *change, struct err *err)
{
	const struct conf_server *server = conf_get(now, change->id);

	if (server == NULL)
		return err_set(err, CODE_NOT_FOUND, "there is no member %" PRIu64, change->id);
	if (change->kind == CORE_PROMOTE && server->role == CONF_VOTER)
		return err_set(err, CODE_FAILED_PRECONDITION, "member %" PRIu64 " is a voter already", change->id);
	if (change->kind == CORE_DEMOTE && server->role != CONF_VOTER)
		return err_set(err, CODE_FAILED_PRECONDITION, "member %" PRIu64 " is no voter", change->id);
	return CODE_OK;
}

/* The configuration that the change leads to, if it may be made now. */
static enum code next_conf(struct core *core, const struct core_change *change, struct conf *next, struct err *err)
{
	const struct conf *now = core_newest_conf(core);

	*next = *now;
	TRY(check_ready(core, err));
	if (change->kind == CORE_ADD) {
		TRY(check_add(core, now, change, err));
		TRY(conf_add(next, change->id, change->address, CONF_STANDBY, err));
	} else {
		TRY(check_role(now, change, err));
		if (change->kind == CORE_REMOVE)
			TRY(conf_remove(next, change->id, err));
		else
			TRY(conf_set_role(next, change->id, change->kind == CORE_PROMOTE ? CONF_VOTER : CONF_STANDBY,
					  err));
	}
	if (conf_voters(next) < 2) /* R10 */
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "one voter would be left, which is not safe beside what others may hold: add a member "
			       "first, or use recover on the one that stays");
	return check_majority(core, next, err);
}

/* -- doing it
 * ------------------------------------------------------------------------------------------------------------- */

static enum code submit_change(struct core *core, struct err *err)
{
	struct member *member = &core->member;
	OWN_BUF bytes = { 0 };
	struct entry *entry;
	struct conf next;
	int rv;

	TRY(next_conf(core, member->change, &next, err));
	conf_encode(&next, &bytes);
	entry = entry_new(mirror_last(core->mirror) + 1, raft_current_term(&core->raft), ENTRY_CHANGE, bytes.data,
			  bytes.len);
	member->index = entry->index;
	member->state = MEMBER_COMMITTING;
	rv = core_submit_entries(core, &entry, 1);
	entry_unref(entry);
	if (rv != 0) {
		member->state = MEMBER_IDLE;
		return err_set(err, CODE_UNAVAILABLE, "the change was not taken: %s", raft_strerror(rv));
	}
	return CODE_OK;
}

/* The library looks at the progress only when the peer's log grows: an idle cluster gets an entry for it to grow by. */
static void nudge(struct core *core, uint64_t id)
{
	static const uint8_t zeros[8];
	struct entry *entry;

	if (core_match(core, id) < mirror_last(core->mirror))
		return;
	entry = entry_new(mirror_last(core->mirror) + 1, raft_current_term(&core->raft), ENTRY_BARRIER, zeros,
			  sizeof(zeros));
	core_submit_entries(core, &entry, 1);
	entry_unref(entry);
}

static void begin_catch_up(struct core *core)
{
	struct raft_event event = { .type = RAFT_CATCH_UP };
	uint64_t id = core->member.change->id;

	core->member.state = MEMBER_CATCHING_UP;
	core->member.tries++;
	event.catch_up.server_id = id;
	core_step(core, &event, NULL, 0);
	if (core->member.state == MEMBER_CATCHING_UP)
		nudge(core, id);
}

static void check_catch_up(struct core *core)
{
	struct err err = { 0 };
	enum code rc;
	int status;

	if (raft_catch_up(&core->raft, core->member.change->id, &status) != 0) {
		end_change(core, CODE_UNAVAILABLE, "the member is gone");
	} else if (status == RAFT_CATCH_UP_FINISHED) {
		rc = submit_change(core, &err);
		if (rc != CODE_OK)
			end_change(core, rc, err.text);
	} else if (status != RAFT_CATCH_UP_RUNNING) {
		if (core->member.tries < CATCH_UP_TRIES)
			begin_catch_up(core);
		else
			end_change(core, CODE_UNAVAILABLE, "the member does not catch up with the log");
	}
}

static void check_transfer(struct core *core)
{
	struct member *member = &core->member;

	if (member->transfer == NULL || member->transfer_ended)
		return;
	if (core_is_leader(core)) {
		if (raft_transferee(&core->raft) == 0)
			end_transfer(core, CODE_UNAVAILABLE, "it did not take over within an election timeout");
	} else if (core->role.leader != 0) {
		end_transfer(core, CODE_OK, "");
	} else if (core->now - member->transfer_ms > 4 * (int64_t)core->election) {
		end_transfer(core, CODE_UNKNOWN, "leadership is given up, but no new leader is known yet");
	}
}

void member_check(struct core *core)
{
	struct member *member = &core->member;

	if (member->state == MEMBER_CATCHING_UP)
		check_catch_up(core);
	else if (member->state == MEMBER_COMMITTING && core->given >= member->index)
		end_change(core, CODE_OK, "");
	check_transfer(core);
}

void member_lost(struct core *core)
{
	struct member *member = &core->member;

	if (member->state == MEMBER_COMMITTING)
		/* A leader that has removed itself leads until the change is committed: then it is no loss. */
		end_change(core, core->given >= member->index ? CODE_OK : CODE_UNKNOWN,
			   core->given >= member->index
				   ? ""
				   : "leadership was lost: whether the change holds is not known yet");
	else if (member->state == MEMBER_CATCHING_UP)
		end_change(core, CODE_UNAVAILABLE, "leadership was lost");
}

void member_tell(struct core *core)
{
	struct member *member = &core->member;
	struct core_change *change = member->ended;
	struct core_transfer *transfer = member->transfer;

	member->ended = NULL;
	if (change != NULL)
		change->done(change, member->ended_code, member->ended_why);
	if (transfer != NULL && member->transfer_ended) {
		member->transfer = NULL;
		member->transfer_ended = false;
		transfer->done(transfer, member->transfer_code, member->transfer_why);
	}
}

/* -- what the replica asks for
 * -------------------------------------------------------------------------------------------- */

enum code core_change(struct core *core, struct core_change *change, struct err *err)
{
	struct member *member = &core->member;
	struct conf next;

	if (member->state != MEMBER_IDLE || member->ended != NULL)
		return err_set(err, CODE_UNAVAILABLE, "another change of members is under way");
	TRY(next_conf(core, change, &next, err));
	member->change = change;
	member->tries = 0;
	if (change->kind == CORE_PROMOTE) {
		begin_catch_up(core);
	} else {
		enum code rc = submit_change(core, err);

		if (rc != CODE_OK) {
			member->change = NULL;
			return rc;
		}
	}
	core_settle(core);
	return CODE_OK;
}

static uint64_t best_voter(struct core *core)
{
	const struct conf *conf = core_newest_conf(core);
	uint64_t best = 0, most = 0;

	for (unsigned i = 0; i < conf->n; i++) {
		const struct core_peer *peer = core_peer_get(core, conf->servers[i].id);

		if (conf->servers[i].role != CONF_VOTER || peer == NULL || peer->contact_ms < 0 ||
		    core->now - peer->contact_ms > (int64_t)core->election)
			continue;
		if (best == 0 || core_match(core, peer->id) > most) {
			best = peer->id;
			most = core_match(core, peer->id);
		}
	}
	return best;
}

enum code core_transfer(struct core *core, struct core_transfer *transfer, struct err *err)
{
	struct raft_event event = { .type = RAFT_TRANSFER };
	uint64_t id = transfer->id;
	int rv;

	if (!core_is_leader(core))
		return err_set(err, CODE_UNAVAILABLE, "this node is not the leader");
	if (core->member.transfer != NULL || core->frozen)
		return err_set(err, CODE_UNAVAILABLE, "leadership is being handed over already");
	if (id == 0)
		id = best_voter(core);
	if (id == 0)
		return err_set(err, CODE_FAILED_PRECONDITION, "no other voter is in reach");
	if (id == core->id)
		return err_set(err, CODE_FAILED_PRECONDITION, "member %" PRIu64 " leads already", id);
	if (!conf_is_voter(core_newest_conf(core), id))
		return err_set(err, CODE_FAILED_PRECONDITION, "member %" PRIu64 " is no voter", id);
	event.transfer.server_id = id;
	rv = core_step(core, &event, NULL, 0);
	if (rv != 0)
		return err_set(err, CODE_UNAVAILABLE, "leadership cannot be handed over: %s", raft_strerror(rv));
	transfer->id = id;
	core->member.transfer = transfer;
	core->member.transfer_ms = core->now;
	core_settle(core);
	return CODE_OK;
}

/* -- one voter to two (R10, V18)
 * -------------------------------------------------------------------------------------------- */

void core_freeze(struct core *core)
{
	core->frozen = true;
}

void core_thaw(struct core *core)
{
	core->frozen = false;
}

enum code core_grow_base(struct core *core, struct core_triple *out, struct err *err)
{
	const struct mirror_conf *conf = mirror_conf_last(core->mirror);
	uint64_t last = mirror_last(core->mirror);

	if (!core_ready(core))
		return err_set(err, CODE_UNAVAILABLE, "this node is not the leader");
	if (conf->conf.n != 1)
		return err_set(err, CODE_FAILED_PRECONDITION, "the cluster has %u members already", conf->conf.n);
	if (!core->frozen || core->handed < last || core->durable < last || core->n_writes > 0 || conf->index > last)
		return err_set(err, CODE_UNAVAILABLE, "writes are still under way");
	out->index = last;
	out->term = mirror_term_of(core->mirror, last);
	out->conf_index = conf->index;
	out->conf = conf->conf;
	return CODE_OK;
}

enum code core_grow(struct core *core, uint64_t id, const char *address, uint64_t *term, struct core_triple *out,
		    struct err *err)
{
	struct core_triple state;

	TRY(core_grow_base(core, &state, err));
	if (core_is_removed(core, id))
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "member %" PRIu64 " was removed before: ids are not used again", id);
	TRY(conf_add(&state.conf, id, address, CONF_VOTER, err));
	/* The raised term keeps what the single voter, which leads without a vote, wrote in its own term apart from
	 * what either of the two will write. */
	state.conf_index = state.index;
	*term = raft_current_term(&core->raft) + 1;
	core->io->vote(core->ctx, *term, 0);
	*out = state;
	return CODE_OK;
}
