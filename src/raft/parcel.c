/* SPDX-License-Identifier: Apache-2.0 */
/* From proposals to log entries.
 *
 *   proposal --pack--> parcel: waiting --dispatch--> sent, in a log entry --applied here--> told, gone
 *                               ^                      |
 *                               +---- leadership lost -+   (sent again: the state carries a parcel out once)
 *
 * Packing and dispatching happen on the raft loop; outcomes are filled in by the apply thread, which finds the parcel by its
 * sequence number. A parcel that has never been sent may fail for want of a leader, and then nothing was changed; one that has
 * been sent is followed until its outcome is known. */
#include "raft/replica_inside.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "store/codec.h"

#include "batch.pb-c.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { CLOCK_BACK_MS = 60 * 1000 }; /* V13: a clock that was ahead by more is set back */

/* --- the end of a proposal: under the lock --- */

static void delivered(struct message *message)
{
	struct proposal *proposal = LIST_ITEM(message, struct proposal, message);

	wait_done(&proposal->wait);
	proposal_unref(proposal);
}

/* The replica's reference goes with the message. */
static void hand_back(struct replica *r, struct proposal *proposal)
{
	proposal->done = true;
	if (proposal->home != NULL) {
		proposal->message.deliver = delivered;
		loop_post(proposal->home, &proposal->message);
		return;
	}
	pthread_cond_broadcast(&r->news);
	proposal_unref(proposal);
}

static void piece_ended(struct replica *r, struct proposal *proposal)
{
	if (++proposal->ended == proposal->n)
		hand_back(r, proposal_ref(proposal));
	proposal_unref(proposal);
}

/* Under the lock: it is told; freed now, or by the one who holds it. */
static void parcel_free(struct parcel *parcel)
{
	list_remove(&parcel->link);
	parcel->gone = true;
	if (parcel->held > 0)
		return;
	buf_done(&parcel->bytes);
	free(parcel->pieces);
	free(parcel);
}

void parcel_done(struct replica *r, uint64_t sequence, const struct store_parcel *outcomes)
{
	LIST_FOR(item, &r->parcels) {
		struct parcel *parcel = LIST_ITEM(item, struct parcel, link);

		if (parcel->sequence != sequence)
			continue;
		assert(outcomes->n == parcel->n);
		for (size_t i = 0; i < parcel->n; i++) {
			struct piece *piece = parcel->pieces[i].piece;
			struct buf *out = &parcel->pieces[i].owner->outcomes;

			piece->out_at = out->len;
			message_pack(outcomes->items[i].outcome, out);
			piece->out_len = out->len - piece->out_at;
			piece_ended(r, parcel->pieces[i].owner);
		}
		parcel_free(parcel);
		return;
	}
}

/* Nothing of it was changed, or (`unknown`) nobody can tell. */
static void parcel_fail(struct replica *r, struct parcel *parcel, bool unknown, const char *why)
{
	for (size_t i = 0; i < parcel->n; i++) {
		struct proposal *owner = parcel->pieces[i].owner;

		if (unknown || owner->ended > 0)
			err_set(&owner->failed, CODE_UNAVAILABLE, "outcome unknown: %s, the change may still take effect", why);
		else if (owner->failed.code == CODE_OK)
			err_set(&owner->failed, CODE_UNAVAILABLE, "%s: nothing was changed", why);
		piece_ended(r, owner);
	}
	parcel_free(parcel);
}

/* --- packing --- */

static void seal(struct replica *r, struct parcel *parcel)
{
	OWN_STRUCT(arena) arena = arena_new();
	Pb__Parcel message = PB__PARCEL__INIT;

	message.boot = r->boot;
	message.sequence = parcel->sequence = ++r->next_sequence;
	message.n_commands = parcel->n;
	message.commands = arena_alloc(arena, parcel->n * sizeof *message.commands);
	for (size_t i = 0; i < parcel->n; i++)
		message.commands[i] = (ProtobufCBinaryData){
			.len = parcel->pieces[i].piece->len,
			.data = parcel->pieces[i].owner->commands.data + parcel->pieces[i].piece->at,
		};
	message_pack(&message, &parcel->bytes);
	parcel->made_ms = clock_mono_ms();
	list_push(&r->parcels, &parcel->link);
}

/* Under the lock: as much of what waits as one parcel takes. */
static struct parcel *pack_one(struct replica *r)
{
	struct parcel *parcel = xcalloc(1, sizeof *parcel);
	size_t bytes = 0, room = 0;

	list_init(&parcel->link);
	while (!list_empty(&r->proposals) && parcel->n < LIMIT_BATCH_COMMANDS) {
		struct proposal *proposal = LIST_ITEM(r->proposals.next, struct proposal, link);
		struct piece *piece = &proposal->pieces[proposal->taken];

		if (parcel->n > 0 && bytes + piece->len > LIMIT_BATCH_BYTES)
			break;
		if (parcel->n == room)
			parcel->pieces = xrealloc(parcel->pieces, (room = 2 * room + 8) * sizeof *parcel->pieces);
		parcel->pieces[parcel->n++] = (struct parcel_piece){ proposal_ref(proposal), piece };
		bytes += piece->len;
		if (++proposal->taken < proposal->n)
			continue;
		list_remove(&proposal->link);
		r->proposals_bytes -= proposal->commands.len;
		proposal_unref(proposal); /* the queue's */
	}
	return parcel;
}

void parcels_pack(struct replica *r)
{
	pthread_mutex_lock(&r->lock);
	while (!list_empty(&r->proposals))
		seal(r, pack_one(r));
	pthread_mutex_unlock(&r->lock);
}

void parcels_fail_all(struct replica *r, const char *why)
{
	pthread_mutex_lock(&r->lock);
	while (!list_empty(&r->proposals))
		seal(r, pack_one(r));
	while (!list_empty(&r->parcels)) {
		struct parcel *parcel = LIST_ITEM(r->parcels.next, struct parcel, link);

		parcel_fail(r, parcel, parcel->ever_sent, why);
	}
	pthread_mutex_unlock(&r->lock);
}

/* --- the leader's entries --- */

static int64_t next_stamp(struct replica *r)
{
	int64_t now = clock_wall_ms(), last = r->last_stamp_ms;

	if (now < last && last - now <= CLOCK_BACK_MS)
		now = last;
	else if (now < last)
		log_warn("Clock was ahead and has been set back", KV_NUM("by_seconds", (last - now) / 1000));
	return r->last_stamp_ms = now;
}

static struct entry *make_entry(struct replica *r, struct span *parcels, size_t n)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_BUF bytes = { 0 };
	Pb__Batch batch = PB__BATCH__INIT;

	batch.stamp_ms = next_stamp(r);
	batch.n_parcels = n;
	batch.parcels = arena_alloc(arena, n * sizeof *batch.parcels);
	for (size_t i = 0; i < n; i++)
		batch.parcels[i] = (ProtobufCBinaryData){ parcels[i].len, (uint8_t *)parcels[i].data };
	message_pack(&batch, &bytes);
	return entry_new(0, 0, ENTRY_COMMAND, bytes.data, bytes.len);
}

static bool submit(struct replica *r, struct span *parcels, size_t n)
{
	struct submission *submission = xcalloc(1, sizeof *submission);
	struct core_submission *one = &submission->core;
	struct err err = { 0 };

	list_init(&submission->link);
	submission->core.entry = make_entry(r, parcels, n);
	if (core_submit(r->core, &one, 1, &err) != CODE_OK) {
		entry_unref(submission->core.entry);
		free(submission);
		return false;
	}
	list_push(&r->submissions, &submission->link);
	r->n_submissions++;
	return true;
}

void submission_fate(struct replica *r, struct core_submission *core, enum core_fate fate)
{
	struct submission *submission = LIST_ITEM(core, struct submission, core);

	list_remove(&submission->link);
	r->n_submissions--;
	free(submission);
	if (fate != CORE_COMMITTED)
		parcels_again(r);
}

/* What goes into one entry: parcels of ours, then those of other nodes. */
enum { PARCELS_MAX = 64 };
struct gathered {
	struct span bytes[PARCELS_MAX];
	struct parcel *own[PARCELS_MAX];
	struct foreign *foreign[PARCELS_MAX];
	size_t n_own, n_foreign, size, commands;
};

static bool fits(const struct gathered *g, size_t bytes, size_t commands)
{
	size_t n = g->n_own + g->n_foreign;

	return n == 0 || (n < PARCELS_MAX && g->size + bytes <= LIMIT_BATCH_BYTES && g->commands + commands <= LIMIT_BATCH_COMMANDS);
}

static void add(struct gathered *g, const struct buf *bytes, size_t commands)
{
	g->bytes[g->n_own + g->n_foreign] = (struct span){ bytes->data, bytes->len };
	g->size += bytes->len;
	g->commands += commands;
}

/* Under the lock. */
static void gather(struct replica *r, struct gathered *g)
{
	g->n_own = g->n_foreign = g->size = g->commands = 0;
	LIST_FOR(item, &r->parcels) {
		struct parcel *parcel = LIST_ITEM(item, struct parcel, link);

		if (parcel->sent)
			continue;
		if (!fits(g, parcel->bytes.len, parcel->n))
			break;
		add(g, &parcel->bytes, parcel->n);
		parcel->held++;
		g->own[g->n_own++] = parcel;
	}
	LIST_FOR(item, &r->foreign) {
		struct foreign *foreign = LIST_ITEM(item, struct foreign, link);

		if (!fits(g, foreign->bytes.len, 1))
			break;
		add(g, &foreign->bytes, 1);
		g->foreign[g->n_foreign++] = foreign;
	}
}

/* They are in an entry: those who sent them need not send them again unless the leader changes. */
static void answer_foreign(struct gathered *g)
{
	for (size_t i = 0; i < g->n_foreign; i++) {
		struct foreign *foreign = g->foreign[i];

		list_remove(&foreign->link);
		link_answer(foreign->request, CODE_OK, (struct span){ 0 }, NULL);
		buf_done(&foreign->bytes);
		free(foreign);
	}
}

static void mark_sent(struct replica *r, struct parcel *const *parcels, size_t n, bool sent)
{
	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < n; i++) {
		parcels[i]->sent = sent;
		parcels[i]->ever_sent |= sent;
	}
	pthread_mutex_unlock(&r->lock);
}

/* One that had been sent under a former leader may be told by the apply thread at any moment: held, it stays in memory. */
static void let_go(struct replica *r, struct parcel *const *parcels, size_t n)
{
	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < n; i++)
		if (--parcels[i]->held == 0 && parcels[i]->gone)
			parcel_free(parcels[i]);
	pthread_mutex_unlock(&r->lock);
}

static void lead(struct replica *r)
{
	struct gathered g;
	bool submitted = true;

	while (submitted && r->n_submissions < SUBMISSIONS_OPEN) {
		pthread_mutex_lock(&r->lock);
		gather(r, &g);
		pthread_mutex_unlock(&r->lock);
		if (g.n_own + g.n_foreign == 0)
			return;
		mark_sent(r, g.own, g.n_own, true); /* before the core may hand it to the apply thread */
		submitted = submit(r, g.bytes, g.n_own + g.n_foreign);
		if (submitted)
			answer_foreign(&g);
		else
			mark_sent(r, g.own, g.n_own, false);
		let_go(r, g.own, g.n_own);
	}
}

enum { FORWARDS_A_TURN = 64 };

static void follow(struct replica *r)
{
	struct parcel *parcels[FORWARDS_A_TURN];
	int64_t now_ms = clock_mono_ms();
	size_t n = 0;

	pthread_mutex_lock(&r->lock);
	LIST_FOR(item, &r->parcels) {
		struct parcel *parcel = LIST_ITEM(item, struct parcel, link);

		if (parcel->sent || parcel->not_before_ms > now_ms || n == FORWARDS_A_TURN)
			continue;
		parcel->held++;
		parcels[n++] = parcel;
	}
	pthread_mutex_unlock(&r->lock);
	for (size_t i = 0; i < n && peers_forward(r, parcels[i]); i++)
		mark_sent(r, &parcels[i], 1, true);
	let_go(r, parcels, n);
}

void parcels_dispatch(struct replica *r)
{
	if (r->role.role == CORE_LEADER && r->role.ready)
		lead(r);
	else if (r->role.role != CORE_LEADER && r->role.leader != 0)
		follow(r);
}

void parcel_unsend(struct replica *r, uint64_t sequence, int64_t not_before_ms)
{
	pthread_mutex_lock(&r->lock);
	LIST_FOR(item, &r->parcels) {
		struct parcel *parcel = LIST_ITEM(item, struct parcel, link);

		if (parcel->sequence == sequence) {
			parcel->sent = false;
			parcel->not_before_ms = not_before_ms;
		}
	}
	pthread_mutex_unlock(&r->lock);
}

void parcels_again(struct replica *r)
{
	pthread_mutex_lock(&r->lock);
	LIST_FOR(item, &r->parcels)
		LIST_ITEM(item, struct parcel, link)->sent = false;
	pthread_mutex_unlock(&r->lock);
}

void parcels_expire(struct replica *r)
{
	int64_t now_ms = clock_mono_ms();

	pthread_mutex_lock(&r->lock);
	LIST_FOR_SAFE(item, &r->parcels) {
		struct parcel *parcel = LIST_ITEM(item, struct parcel, link);

		if (!parcel->ever_sent && now_ms - parcel->made_ms >= LIMIT_WAIT_LEADER_MS)
			parcel_fail(r, parcel, false, "no leader");
	}
	pthread_mutex_unlock(&r->lock);
}

int64_t parcels_deadline(struct replica *r)
{
	int64_t deadline_ms = INT64_MAX;

	pthread_mutex_lock(&r->lock);
	LIST_FOR(item, &r->parcels) {
		struct parcel *parcel = LIST_ITEM(item, struct parcel, link);

		if (!parcel->ever_sent && parcel->made_ms + LIMIT_WAIT_LEADER_MS < deadline_ms)
			deadline_ms = parcel->made_ms + LIMIT_WAIT_LEADER_MS;
		if (!parcel->sent && parcel->not_before_ms < deadline_ms && parcel->not_before_ms > clock_mono_ms())
			deadline_ms = parcel->not_before_ms;
	}
	pthread_mutex_unlock(&r->lock);
	return deadline_ms;
}
