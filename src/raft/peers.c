/* SPDX-License-Identifier: Apache-2.0 */
/* What the core wants done, and the links: messages of consensus, parcels for the leader, confirmed reads. All on the raft loop, but
 * for replica_barrier and replica_await, which tasks of any loop call. */
#include "raft/replica_inside.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/rand.h"
#include "store/codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FORWARD_MS = 10 * 1000, READ_MS = 5 * 1000, RETRY_MS = 20 };

/* --- the core's callbacks --- */

static void io_vote(void *ctx, uint64_t term, uint64_t voted_for)
{
	vote_write(((struct replica *)ctx)->vote, term, voted_for);
}

struct log_write {
	struct wal_write wal; /* first: `done` is its first */
	struct replica *replica;
	uint64_t core; /* which one hears of its end; 0: none */
	struct entry *entries[];
};

static void log_written(struct message *message)
{
	struct log_write *write = (struct log_write *)message;
	struct replica *r = write->replica;
	uint64_t core = write->core;

	for (size_t i = 0; i < write->wal.n; i++)
		entry_unref(write->entries[i]);
	free(write);
	if (core == 0 || r->core == NULL || core != r->core_number) /* a core that is gone asked for it */
		return;
	replica_tick(r);
	core_stored(r->core);
}

static struct log_write *new_write(struct replica *r, uint64_t first, struct entry *const *entries, size_t n)
{
	struct log_write *write = xcalloc(1, sizeof *write + n * sizeof *write->entries);

	write->replica = r;
	write->wal.done.deliver = log_written;
	write->wal.first = first;
	write->wal.entries = write->entries;
	write->wal.n = n;
	for (size_t i = 0; i < n; i++)
		write->entries[i] = entry_ref(entries[i]);
	return write;
}

static void io_write(void *ctx, uint64_t first, struct entry *const *entries, size_t n)
{
	struct replica *r = ctx;
	struct log_write *write = new_write(r, first, entries, n);

	write->core = r->core_number;
	wal_write(r->wal, &write->wal);
}

static void io_log_reset(void *ctx, uint64_t next)
{
	struct replica *r = ctx;

	replica_log_reset(r, next - 1, core_term_of(r->core, next - 1));
}

void replica_log_reset(struct replica *r, uint64_t index, uint64_t term)
{
	r->reset_index = index;
	r->reset_term = term;
	wal_reset(r->wal, &new_write(r, 0, NULL, 0)->wal, index, term);
}

struct after_log {
	struct wal_write wal; /* first */
	struct message *then;
};

static void log_settled(struct message *message)
{
	struct after_log *after = (struct after_log *)message;
	struct message *then = after->then;

	free(after);
	then->deliver(then);
}

/* The same reset once more: its completion comes after all that was asked for before. */
void replica_after_log(struct replica *r, struct message *message)
{
	struct after_log *after = xcalloc(1, sizeof *after);

	after->wal.done.deliver = log_settled;
	after->then = message;
	wal_reset(r->wal, &after->wal, r->reset_index, r->reset_term);
}

static bool io_send(void *ctx, uint64_t to, const struct peer_message *message)
{
	struct replica *r = ctx;
	OWN_BUF bytes = { 0 };

	if (r->links == NULL)
		return false;
	peer_encode(message, &bytes);
	return link_send(r->links, to, bytes.data, bytes.len, message->kind == PEER_APPEND && message->append.n > 0);
}

static size_t io_queued(void *ctx, uint64_t to)
{
	struct replica *r = ctx;

	return r->links == NULL ? 0 : link_queued(r->links, to);
}

/* Entries for a peer that lags behind memory are read when the core's call has ended. */
struct log_read {
	struct message message;
	struct replica *replica;
	uint64_t peer, first;
	size_t max_bytes;
};

static void read_log(struct message *message)
{
	struct log_read *read = LIST_ITEM(message, struct log_read, message);
	struct replica *r = read->replica;
	struct entry *entries[PEER_ENTRIES_MAX];
	struct err err = { 0 };
	size_t n = 0;

	if (r->core != NULL) {
		if (wal_read(r->wal, read->first, read->max_bytes, entries, PEER_ENTRIES_MAX, &n, &err) == CODE_DATA_LOSS)
			replica_fail("The log cannot be read, this server stops", &err);
		replica_tick(r);
		core_read_log(r->core, read->peer, entries, n);
		for (size_t i = 0; i < n; i++)
			entry_unref(entries[i]);
	}
	free(read);
}

static void io_read_log(void *ctx, uint64_t peer, uint64_t first, size_t max_bytes)
{
	struct replica *r = ctx;
	struct log_read *read = xcalloc(1, sizeof *read);

	*read = (struct log_read){ .message = { .deliver = read_log }, .replica = r, .peer = peer, .first = first, .max_bytes = max_bytes };
	loop_post(r->loop, &read->message);
}

static void io_apply(void *ctx, struct entry *const *entries, size_t n)
{
	pipeline_push(ctx, entries, n);
}

static void io_fate(void *ctx, struct core_submission *submission, enum core_fate fate)
{
	submission_fate(ctx, submission, fate);
}

static void io_role(void *ctx, const struct core_role *role)
{
	struct replica *r = ctx;
	bool other = role->term != r->role.term || role->leader != r->role.leader;

	r->role = *role;
	r->publish_now = true;
	if (other) {
		parcels_again(r);
		foreign_answer_all(r, "the leader has changed");
	}
	cluster_role_changed(r);
}

static void io_conf(void *ctx, uint64_t index __attribute__((unused)), const struct conf *conf __attribute__((unused)),
		    bool committed __attribute__((unused)))
{
	cluster_role_changed(ctx);
}

static void io_copy_wanted(void *ctx, uint64_t peer, uint64_t at_least)
{
	copy_send(ctx, peer, at_least);
}

__attribute__((noreturn)) static void io_fatal(void *ctx __attribute__((unused)), const char *why)
{
	log_fatal("Consensus is broken, this server stops", KV("error", why));
}

const struct core_io replica_io = {
	.vote = io_vote,
	.write = io_write,
	.log_reset = io_log_reset,
	.send = io_send,
	.queued = io_queued,
	.read_log = io_read_log,
	.apply = io_apply,
	.fate = io_fate,
	.role = io_role,
	.conf = io_conf,
	.copy_wanted = io_copy_wanted,
	.copy_ready = copy_ready,
	.install = copy_install,
	.fatal = io_fatal,
};

/* --- the links' events --- */

static void on_up(void *ctx, uint64_t member, uint64_t epoch __attribute__((unused)), const struct link_peer *peer)
{
	struct replica *r = ctx;

	log_info("Peer is connected", KV("subsystem_name", "raft"), KV("peer", peer->name), KV("address", peer->address));
	r->publish_now = true;
	if (r->core == NULL)
		return;
	replica_tick(r);
	core_link_changed(r->core, member);
}

static void on_down(void *ctx, uint64_t member, enum link_down how __attribute__((unused)), const char *why)
{
	struct replica *r = ctx;
	const Pb__Member *row = cluster_member(r, member);

	log_info("Peer is disconnected", KV("subsystem_name", "raft"), KV("peer", row == NULL ? "" : row->name), KV("reason", why));
	r->publish_now = true;
	if (r->core == NULL)
		return;
	replica_tick(r);
	core_link_changed(r->core, member);
}

static void on_dead(void *ctx, uint64_t member)
{
	struct replica *r = ctx;

	if (r->core == NULL)
		return;
	replica_tick(r);
	core_leader_died(r->core, member);
}

static void on_refused(void *ctx __attribute__((unused)), uint64_t member, bool by_us, enum link_refusal reason, const char *text)
{
	log_warn(by_us ? "A node that connected was refused" : "A peer refuses this node", KV("subsystem_name", "raft"),
		 KV_NUM("member", (int64_t)member), KV("reason", link_refusal_name(reason)), KV("error", text));
	if (!by_us && (reason == LINK_REFUSED_REMOVED || reason == LINK_REFUSED_ROLLED_BACK))
		log_fatal("This node is no member any more, it stops", KV("error", text));
}

static void on_writable(void *ctx, uint64_t member)
{
	struct replica *r = ctx;

	if (r->core == NULL)
		return;
	replica_tick(r);
	core_writable(r->core, member);
}

static enum code on_raft(void *ctx, uint64_t from, const uint8_t *data, size_t len, struct err *err)
{
	struct replica *r = ctx;
	struct peer_message message;
	enum code rc;

	if (r->core == NULL)
		return CODE_OK; /* not started yet: as if it had been lost */
	TRY(peer_decode(data, len, from, r->id, &message, err));
	replica_tick(r);
	rc = core_receive(r->core, from, &message, err);
	peer_message_done(&message);
	return rc;
}

static void on_started(void *ctx, uint64_t member, uint64_t starts, const uint8_t boot[LINK_BOOT_LEN])
{
	(void)ctx, (void)member, (void)starts, (void)boot; /* the row tells once the member has put itself: cluster.c */
}

/* --- parcels of other nodes --- */

static void take_foreign(struct replica *r, struct link_request *request)
{
	struct err err = { 0 };
	struct foreign *foreign;

	if (r->core == NULL || r->role.role != CORE_LEADER || !r->role.ready) {
		err_set(&err, CODE_UNAVAILABLE, "this node does not lead");
		link_answer(request, CODE_UNAVAILABLE, (struct span){ 0 }, &err);
		return;
	}
	foreign = xcalloc(1, sizeof *foreign);
	foreign->request = request;
	buf_append(&foreign->bytes, request->body.data, request->body.len);
	list_init(&foreign->link);
	list_push(&r->foreign, &foreign->link);
}

void foreign_answer_all(struct replica *r, const char *why)
{
	LIST_FOR_SAFE(item, &r->foreign) {
		struct foreign *foreign = LIST_ITEM(item, struct foreign, link);
		struct err err = { 0 };

		err_set(&err, CODE_UNAVAILABLE, "%s", why);
		list_remove(&foreign->link);
		link_answer(foreign->request, CODE_UNAVAILABLE, (struct span){ 0 }, &err);
		buf_done(&foreign->bytes);
		free(foreign);
	}
}

/* --- parcels of ours, to the leader --- */

struct forward {
	struct link_call call;
	struct replica *replica;
	uint64_t sequence;
};

/* Answered OK: the leader has it in an entry; its outcome comes by the log. Else it is sent again. */
static void forwarded(struct link_call *call, const struct link_answer *answer)
{
	struct forward *forward = LIST_ITEM(call, struct forward, call);
	struct replica *r = forward->replica;

	if (answer->outcome != LINK_ANSWERED || answer->code != CODE_OK)
		parcel_unsend(r, forward->sequence, clock_mono_ms() + RETRY_MS);
	free(forward);
}

bool peers_forward(struct replica *r, struct parcel *parcel)
{
	struct forward *forward;
	struct link_status status;

	if (r->links == NULL || r->role.leader == 0 || r->role.leader == r->id)
		return false;
	if (!link_status(r->links, r->role.leader, &status) || !status.up)
		return false;
	forward = xcalloc(1, sizeof *forward);
	forward->call.done = forwarded;
	forward->replica = r;
	forward->sequence = parcel->sequence;
	link_call(r->links, r->role.leader, METHOD_PARCEL, (struct span){ parcel->bytes.data, parcel->bytes.len },
		  clock_mono_ms() + FORWARD_MS, &forward->call);
	return true;
}

/* --- confirmed reads --- */

struct read_request {
	struct core_read core;
	struct link_request *request; /* another node's */
	struct barrier *barrier;      /* or a task of this node */
};

struct barrier {
	struct message there, back;
	struct link_call call;
	struct replica *replica;
	struct loop *home;
	struct wait wait;
	_Atomic int refs;
	enum code code;
	uint64_t index;
};

static void barrier_unref(struct barrier *barrier)
{
	if (atomic_fetch_sub(&barrier->refs, 1) == 1)
		free(barrier);
}

static void barrier_delivered(struct message *message)
{
	struct barrier *barrier = LIST_ITEM(message, struct barrier, back);

	wait_done(&barrier->wait);
	barrier_unref(barrier);
}

static void barrier_done(struct barrier *barrier, enum code code, uint64_t index)
{
	barrier->code = code;
	barrier->index = index;
	barrier->back.deliver = barrier_delivered;
	loop_post(barrier->home, &barrier->back);
}

static void read_confirmed(struct core_read *core, enum code code, uint64_t index)
{
	struct read_request *read = LIST_ITEM(core, struct read_request, core);

	if (read->barrier != NULL) {
		barrier_done(read->barrier, code, index);
	} else {
		Pb__ReadAnswer answer = PB__READ_ANSWER__INIT;
		OWN_BUF body = { 0 };
		struct err err = { 0 };

		answer.index = index;
		message_pack(&answer, &body);
		err_set(&err, CODE_UNAVAILABLE, "leadership was lost");
		link_answer(read->request, code, (struct span){ body.data, body.len }, &err);
	}
	free(read);
}

static enum code begin_read(struct replica *r, struct link_request *request, struct barrier *barrier, struct err *err)
{
	struct read_request *read = xcalloc(1, sizeof *read);
	enum code rc;

	read->core.done = read_confirmed;
	read->request = request;
	read->barrier = barrier;
	rc = core_read(r->core, &read->core, err);
	if (rc != CODE_OK)
		free(read);
	return rc;
}

static void answer_read(struct replica *r, struct link_request *request)
{
	struct err err = { 0 };

	if (r->core == NULL || begin_read(r, request, NULL, &err) != CODE_OK) {
		if (err.code == CODE_OK)
			err_set(&err, CODE_UNAVAILABLE, "this node has not started");
		link_answer(request, CODE_UNAVAILABLE, (struct span){ 0 }, &err);
	}
}

static void leader_answered(struct link_call *call, const struct link_answer *answer)
{
	struct barrier *barrier = LIST_ITEM(call, struct barrier, call);
	OWN_STRUCT(arena) arena = arena_new();
	const Pb__ReadAnswer *body = NULL;

	if (answer->outcome == LINK_ANSWERED && answer->code == CODE_OK)
		body = message_unpack(&pb__read_answer__descriptor, answer->body, arena);
	barrier_done(barrier, body == NULL ? CODE_UNAVAILABLE : CODE_OK, body == NULL ? 0 : body->index);
}

static void barrier_begin(struct message *message)
{
	struct barrier *barrier = LIST_ITEM(message, struct barrier, there);
	struct replica *r = barrier->replica;

	replica_tick(r);
	if (r->core == NULL || r->role.leader == 0) {
		barrier_done(barrier, CODE_UNAVAILABLE, 0);
	} else if (r->role.leader == r->id) {
		if (begin_read(r, NULL, barrier, NULL) != CODE_OK)
			barrier_done(barrier, CODE_UNAVAILABLE, 0);
	} else if (r->links == NULL) {
		barrier_done(barrier, CODE_UNAVAILABLE, 0);
	} else {
		barrier->call.done = leader_answered;
		link_call(r->links, r->role.leader, METHOD_READ, (struct span){ 0 }, clock_mono_ms() + READ_MS, &barrier->call);
	}
}

static enum code ask_index(struct replica *r, int64_t deadline_ms, uint64_t *index)
{
	struct barrier *barrier = xcalloc(1, sizeof *barrier);
	enum code rc;

	barrier->there.deliver = barrier_begin;
	barrier->replica = r;
	barrier->home = loop_self();
	atomic_init(&barrier->refs, 2);
	loop_post(r->loop, &barrier->there);
	rc = task_wait(&barrier->wait, deadline_ms);
	if (rc == CODE_OK) {
		rc = barrier->code;
		*index = barrier->index;
	}
	barrier_unref(barrier);
	return rc;
}

enum code replica_barrier(struct replica *r, int64_t deadline_ms, struct err *err)
{
	int64_t latest_ms = clock_mono_ms() + LIMIT_WAIT_LEADER_MS;
	uint64_t index = 0;
	enum code rc;

	if (r->cluster == NULL)
		return CODE_OK; /* what one voter has acknowledged, it has applied */
	if (deadline_ms < latest_ms)
		latest_ms = deadline_ms;
	while ((rc = ask_index(r, latest_ms, &index)) == CODE_UNAVAILABLE && clock_mono_ms() + RETRY_MS < latest_ms)
		if ((rc = task_sleep(RETRY_MS)) != CODE_OK)
			break;
	if (rc == CODE_CANCELLED)
		return err_set(err, rc, "the call was cancelled");
	if (rc != CODE_OK)
		return err_set(err, CODE_UNAVAILABLE, "no leader has confirmed that this node's state is current");
	return replica_await(r, index, latest_ms, err);
}

/* --- waiting for an index --- */

static void waiter_unref(struct waiter *waiter)
{
	if (atomic_fetch_sub(&waiter->refs, 1) == 1)
		free(waiter);
}

static void waiter_delivered(struct message *message)
{
	struct waiter *waiter = LIST_ITEM(message, struct waiter, message);

	wait_done(&waiter->wait);
	waiter_unref(waiter);
}

void waiters_wake(struct replica *r)
{
	LIST_FOR_SAFE(item, &r->waiters) {
		struct waiter *waiter = LIST_ITEM(item, struct waiter, link);

		if (waiter->index > r->status.applied)
			continue;
		list_remove(&waiter->link);
		waiter->message.deliver = waiter_delivered;
		loop_post(waiter->home, &waiter->message);
	}
}

enum code replica_await(struct replica *r, uint64_t index, int64_t deadline_ms, struct err *err)
{
	struct waiter *waiter;
	uint64_t at;
	enum code rc;

	pthread_mutex_lock(&r->lock);
	at = r->status.applied;
	if (at >= index) {
		pthread_mutex_unlock(&r->lock);
		return CODE_OK;
	}
	waiter = xcalloc(1, sizeof *waiter);
	waiter->index = index;
	waiter->home = loop_self();
	atomic_init(&waiter->refs, 2);
	list_init(&waiter->link);
	list_push(&r->waiters, &waiter->link);
	pthread_mutex_unlock(&r->lock);
	rc = task_wait(&waiter->wait, deadline_ms);
	pthread_mutex_lock(&r->lock);
	at = r->status.applied;
	if (rc != CODE_OK && waiter->link.next != &waiter->link) { /* nobody will deliver it */
		list_remove(&waiter->link);
		waiter_unref(waiter);
	}
	pthread_mutex_unlock(&r->lock);
	waiter_unref(waiter);
	if (rc == CODE_OK)
		return CODE_OK;
	return err_set(err, rc == CODE_CANCELLED ? rc : CODE_UNAVAILABLE, "node '%s' has not reached revision %llu (at %llu)",
		       r->cluster == NULL ? r->node_id : r->cluster->name, (unsigned long long)index, (unsigned long long)at);
}

/* --- requests --- */

static void on_request(void *ctx, struct link_request *request)
{
	struct replica *r = ctx;

	replica_tick(r);
	switch (request->from == 0 && request->method != METHOD_JOIN ? 0 : request->method) {
	case METHOD_PARCEL:
		take_foreign(r, request);
		break;
	case METHOD_READ:
		answer_read(r, request);
		break;
	case METHOD_SWITCH:
		growth_answer(r, request);
		break;
	case METHOD_ABOUT:
		about_answer(r, request);
		break;
	case METHOD_JOIN:
	case METHOD_REMOVE:
	case METHOD_TRANSFER:
		cluster_answer(r, request);
		break;
	default: {
		struct err err = { 0 };

		err_set(&err, CODE_UNIMPLEMENTED, "this version does not know request %d", request->method);
		link_answer(request, CODE_UNIMPLEMENTED, (struct span){ 0 }, &err);
	}
	}
}

static const struct link_events events = {
	.up = on_up,
	.down = on_down,
	.dead = on_dead,
	.refused = on_refused,
	.writable = on_writable,
	.raft = on_raft,
	.request = on_request,
	.started = on_started,
	.copy_begin = copy_begin,
	.copy_end = copy_end,
};

enum code peers_open(struct replica *r, struct err *err)
{
	OWN_BUF path = { 0 };
	const struct link_options options = { .loop = r->loop, .events = &events, .ctx = r };
	struct link_options with_key = options;

	if (r->cluster == NULL)
		return CODE_OK;
	buf_printf(&path, "%s/peer.key", r->node_dir);
	TRY(peer_key_open(buf_text(&path), &r->key, NULL, err));
	with_key.key = r->key;
	rand_bytes(r->link_boot, sizeof r->link_boot);
	TRY(link_open(&with_key, &r->links, err));
	return link_listen(r->links, r->cluster->bind_address, r->cluster->bind_port, err);
}

void peers_close(struct replica *r)
{
	foreign_answer_all(r, "this node is stopping");
	link_close(r->links);
	r->links = NULL;
	peer_key_unref(r->key);
	r->key = NULL;
}
