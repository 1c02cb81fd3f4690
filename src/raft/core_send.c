/* SPDX-License-Identifier: Apache-2.0 */
/* Messages out. The library names what to send ("all entries behind prev"), possibly all that is outstanding at once
 * and, to a peer that it probes, again at each heartbeat. R17: here that becomes a stream of pieces, each with its own
 * previous index and term, which goes on as the queue to the peer has room, and from disk where memory does not reach.
 *
 * A stream exists only while this node leads; it begins anew when the connection changes, when the peer rejects, or
 * when nothing has moved for an election timeout: whatever was lost then comes back by the library's own probing. */
#include "raft/core_inside.h"

#include "base/log.h"

#include <assert.h>
#include <string.h>

enum { STALLED = 10 }; /* election timeouts without an answer */

void core_stream_reset(struct core_peer *peer)
{
	peer->streaming = peer->probed = false;
	peer->told = 0;
}

void core_streams_reset(struct core *core)
{
	for (unsigned i = 0; i < core->n_peers; i++)
		core_stream_reset(&core->peers[i]);
}

/* Every append tells the commit index too. */
static bool send_append(struct core *core, uint64_t to, uint64_t prev, uint64_t prev_term, struct entry *const *entries,
			size_t n)
{
	struct peer_message out = { .kind = PEER_APPEND, .term = raft_current_term(&core->raft) };
	struct core_peer *peer;

	out.append.prev_index = prev;
	out.append.prev_term = prev_term;
	out.append.commit = core_commit(core);
	out.append.n = (unsigned)n;
	if (n > 0)
		memcpy(out.append.entries, entries, n * sizeof(entries[0]));
	if (!core->io->send(core->ctx, to, &out))
		return false;
	peer = core_peer_get(core, to);
	if (peer != NULL)
		peer->told = out.append.commit;
	return true;
}

/* The library tells followers with the next entries or the next heartbeat what is committed. Who waits for his write on
 * a follower should not wait for that: at the end of a turn in which nothing else has told them, an empty append does.
 * It is anchored at what the peer is known to have, or has before this arrives. */
void core_tell_commit(struct core *core)
{
	uint64_t commit = core_commit(core);

	if (!core_is_leader(core) || !core_ready(core))
		return;
	for (unsigned i = 0; i < core->n_peers; i++) {
		struct core_peer *peer = &core->peers[i];
		uint64_t anchor = peer->streaming ? peer->next - 1 : core_match(core, peer->id);

		if (peer->told >= commit || anchor == 0 || peer->contact_ms < 0 ||
		    core->now - peer->contact_ms > (int64_t)core->election)
			continue;
		if (mirror_term_of(core->mirror, anchor) != 0)
			send_append(core, peer->id, anchor, mirror_term_of(core->mirror, anchor), NULL, 0);
	}
}

/* One piece at peer->next. False: the stream is over, or waits. */
static bool send_piece(struct core *core, struct core_peer *peer, struct entry *const *entries, size_t n)
{
	uint64_t prev = peer->next - 1;
	uint64_t prev_term = prev > 0 ? mirror_term_of(core->mirror, prev) : 0;

	if (n > peer->end + 1 - peer->next)
		n = peer->end + 1 - peer->next;
	if ((prev > 0 && prev_term == 0) || !send_append(core, peer->id, prev, prev_term, entries, n)) {
		core_stream_reset(peer);
		return false;
	}
	peer->next += n;
	return true;
}

/* Sends what the queue takes. A peer that has not answered since the stream began gets one piece: it may have to reject
 * it. Answers whether anything was sent. */
static bool pump(struct core *core, struct core_peer *peer)
{
	struct entry *entries[PEER_ENTRIES_MAX];
	bool sent = false;

	while (peer->streaming && !peer->reading && peer->next <= peer->end) {
		size_t n;

		if (!peer->probed && peer->next > peer->begin)
			break;
		if (core->io->queued(core->ctx, peer->id) > CORE_QUEUE_BYTES)
			break;
		n = mirror_entries_at(core->mirror, peer->next, PEER_ENTRIES_MAX, PEER_PIECE_BYTES, entries);
		if (n == 0) {
			peer->reading = true;
			core->io->read_log(core->ctx, peer->id, peer->next, PEER_PIECE_BYTES);
			break;
		}
		if (!send_piece(core, peer, entries, n))
			break;
		sent = true;
	}
	return sent;
}

static void begin_stream(struct core *core, struct core_peer *peer, uint64_t first, uint64_t last)
{
	peer->streaming = true;
	peer->probed = false;
	peer->begin = peer->next = first;
	peer->end = last;
	peer->moved_ms = core->now;
}

/* The library wants [prev + 1, prev + n] at the peer. */
static void append_out(struct core *core, uint64_t to, const struct raft_append_entries *want)
{
	struct core_peer *peer = core_peer_get(core, to);
	uint64_t first = want->prev_log_index + 1, last = want->prev_log_index + want->n_entries;
	uint64_t anchor = want->prev_log_index;

	if (peer == NULL || want->term != raft_current_term(&core->raft) || !core_is_leader(core))
		return;
	if (peer->streaming && !peer->reading && core->now - peer->moved_ms > STALLED * (int64_t)core->election &&
	    core->io->queued(core->ctx, to) == 0)
		core_stream_reset(peer);
	if (want->n_entries > 0) {
		if (!peer->streaming || first < peer->begin || first > peer->end + 1)
			begin_stream(core, peer, first, last);
		else if (last > peer->end)
			peer->end = last;
		if (pump(core, peer))
			return;
	}
	/* A heartbeat: behind what was really sent, for the peer cannot have more. */
	if (peer->streaming && anchor >= peer->next)
		anchor = peer->next - 1;
	else if (peer->streaming && want->n_entries > 0)
		anchor = peer->next - 1;
	if (anchor > 0 && mirror_term_of(core->mirror, anchor) == 0)
		return;
	if (!send_append(core, to, anchor, anchor > 0 ? mirror_term_of(core->mirror, anchor) : 0, NULL, 0))
		core_stream_reset(peer);
}

/* Before the library sees an answer. */
void core_stream_answer(struct core *core, uint64_t from, uint64_t rejected, uint64_t last_index)
{
	struct core_peer *peer = core_peer_get(core, from);

	if (peer == NULL || !peer->streaming)
		return;
	if (rejected > 0) {
		core_stream_reset(peer);
		return;
	}
	peer->probed = true;
	if (last_index + 1 > peer->begin) {
		peer->begin = last_index + 1;
		peer->moved_ms = core->now;
		if (peer->begin > peer->next) /* it has more than this stream has sent */
			peer->next = peer->begin;
		if (peer->next > peer->end + 1)
			peer->end = peer->next - 1;
	}
	if (peer->next > peer->end && peer->begin == peer->next)
		peer->moved_ms = core->now;
}

void core_writable(struct core *core, uint64_t id)
{
	struct core_peer *peer = core_peer_get(core, id);

	if (peer != NULL && core_is_leader(core))
		pump(core, peer);
}

void core_link_changed(struct core *core, uint64_t id)
{
	struct core_peer *peer = core_peer_get(core, id);

	if (peer != NULL)
		core_stream_reset(peer);
}

void core_read_log(struct core *core, uint64_t id, struct entry *const *entries, size_t n)
{
	struct core_peer *peer = core_peer_get(core, id);

	if (peer == NULL || !peer->reading)
		return;
	peer->reading = false;
	if (!peer->streaming || !core_is_leader(core))
		return;
	if (n == 0) {
		core_stream_reset(peer);
		return;
	}
	if (n > PEER_ENTRIES_MAX)
		n = PEER_ENTRIES_MAX;
	if (entries[0]->index == peer->next) { /* else the stream began anew meanwhile */
		for (size_t i = 0; i < n; i++)
			if (entries[i]->index != peer->next + i ||
			    entries[i]->term != mirror_term_of(core->mirror, entries[i]->index))
				core_fatal(core, "the log on disk and its mirror differ at %llu",
					   (unsigned long long)(peer->next + i));
		if (!send_piece(core, peer, entries, n))
			return;
	}
	pump(core, peer);
}

/* -- the others ------------------------------------------------------------------------------------------------------
 */

static void convert(const struct raft_message *from, struct peer_message *to)
{
	switch (from->type) {
	case RAFT_APPEND_ENTRIES_RESULT:
		to->kind = PEER_APPEND_RESULT;
		to->term = from->append_entries_result.term;
		to->append_result.rejected = from->append_entries_result.rejected;
		to->append_result.last_index = from->append_entries_result.last_log_index;
		to->append_result.features = from->append_entries_result.features;
		to->append_result.capacity = from->append_entries_result.capacity;
		break;
	case RAFT_REQUEST_VOTE:
		to->kind = PEER_VOTE;
		to->term = from->request_vote.term;
		to->vote.candidate = from->request_vote.candidate_id;
		to->vote.last_index = from->request_vote.last_log_index;
		to->vote.last_term = from->request_vote.last_log_term;
		to->vote.disrupt_leader = from->request_vote.disrupt_leader;
		break;
	case RAFT_REQUEST_VOTE_RESULT:
		to->kind = PEER_VOTE_RESULT;
		to->term = from->request_vote_result.term;
		to->vote_result.granted = from->request_vote_result.vote_granted;
		to->vote_result.features = from->request_vote_result.features;
		to->vote_result.capacity = from->request_vote_result.capacity;
		break;
	case RAFT_TIMEOUT_NOW:
		to->kind = PEER_TIMEOUT_NOW;
		to->term = from->timeout_now.term;
		to->timeout_now.last_index = from->timeout_now.last_log_index;
		to->timeout_now.last_term = from->timeout_now.last_log_term;
		break;
	case RAFT_APPEND_ENTRIES:
	case RAFT_INSTALL_SNAPSHOT:
		break;
	}
}

void core_send_message(struct core *core, const struct raft_message *message)
{
	struct peer_message out = { 0 };
	struct core_peer *peer;

	switch (message->type) {
	case RAFT_APPEND_ENTRIES:
		append_out(core, message->server_id, &message->append_entries);
		return;
	case RAFT_INSTALL_SNAPSHOT:
		/* The bytes go beside the core; what the library says of a snapshot is only "this peer needs one". */
		peer = core_peer_get(core, message->server_id);
		if (peer != NULL)
			core_stream_reset(peer);
		core->io->copy_wanted(core->ctx, message->server_id, message->install_snapshot.last_index);
		return;
	default:
		convert(message, &out);
		if (out.kind != 0)
			core->io->send(core->ctx, message->server_id, &out);
	}
}

void core_copy_sent(struct core *core, uint64_t id, const struct core_triple *state)
{
	struct peer_message out = { .kind = PEER_SNAPSHOT, .term = raft_current_term(&core->raft) };

	if (!core_is_leader(core))
		return;
	out.snapshot.index = state->index;
	out.snapshot.term = state->term;
	out.snapshot.conf_index = state->conf_index;
	out.snapshot.conf = state->conf;
	core->io->send(core->ctx, id, &out);
}
