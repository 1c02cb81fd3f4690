/* SPDX-License-Identifier: Apache-2.0 */
/* One connection between nodes.
 *
 *   wire_dial --> DIALING --(connected)--> TLS --(handshake)--> WORDS --(hello, welcome)--> UP
 *   wire_accept ---------------------------^                                                 |
 *                          any of them --(end, refusal, deadline: wire_end)--> DEAD <--------+
 *
 * What goes out: messages of consensus in one buffer, whole frames in order; requests and replies as parcels that are
 * cut into pieces of PIECE bytes, one parcel after the other. Between frames of consensus a piece may go when SHARE
 * bytes of them have gone since the last, so neither starves the other and a heartbeat never waits behind a large
 * request. No more is encrypted than the kernel is about to take: what has not left yet can still be put in order. */
#include "raft/link_inside.h"

#include "base/arena.h"
#include "base/clock.h"
#include "raft/codec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	HIGH = 64 << 10,    /* bytes that may wait for the kernel */
	PIECE = 32 << 10,   /* of a parcel */
	SHARE = 64 << 10,   /* of consensus between two pieces */
	A_TURN = 2 << 20,   /* bytes that one wire may send before the others have their turn */
	KEEP = 512 << 10,   /* what a buffer may keep allocated */
	STRANGERS_MAX = 64, /* accepted connections that have not said who they are */
};

/* --- the flush at the end of the turn --- */

static void free_graves(struct links *links)
{
	while (!list_empty(&links->graves)) {
		struct wire *wire = LIST_ITEM(links->graves.next, struct wire, link);

		list_remove(&wire->link);
		list_remove(&wire->flushing);
		link_frame_reader_done(&wire->reader);
		buf_done(&wire->raft);
		buf_done(&wire->whole.body);
		arena_free(wire->arena);
		free(wire);
	}
	while (!list_empty(&links->gone)) {
		struct peer *peer = LIST_ITEM(links->gone.next, struct peer, link);

		list_remove(&peer->link);
		free(peer);
	}
}

static void tell_notices(struct links *links)
{
	while (!list_empty(&links->notices)) {
		struct notice *notice = LIST_ITEM(links->notices.next, struct notice, link);

		list_remove(&notice->link);
		if (links->closed)
			; /* no event comes any more */
		else if (notice->down)
			links->events->down(links->ctx, notice->member, notice->how, notice->why);
		else if (links->events->silent != NULL)
			links->events->silent(links->ctx, notice->member);
		free(notice);
	}
}

/* Comes twice a turn: the first time it goes to the end of the queue, so that the tasks of this turn have run. */
static void flush(struct message *message)
{
	struct links *links = (struct links *)((char *)message - offsetof(struct links, flush));
	struct link now;

	if (links->passes++ == 0) {
		loop_post(links->loop, message);
		return;
	}
	links->passes = 0;
	links->posted = false;
	wire_call_tell_failed(links);
	tell_notices(links);
	wire_copy_settle(links);
	links_dial(links);
	list_init(&now);
	while (!list_empty(&links->flushing)) { /* what gets ready meanwhile is for the next time */
		struct link *first = links->flushing.next;

		list_remove(first);
		list_push(&now, first);
	}
	while (!list_empty(&now)) {
		struct link *first = now.next;

		list_remove(first);
		wire_flush(LIST_ITEM(first, struct wire, flushing));
	}
	free_graves(links);
	links_unref(links);
}

void links_want_flush(struct links *links)
{
	if (links->posted)
		return;
	links->posted = true;
	links->flush.deliver = flush;
	links_ref(links);
	loop_post(links->loop, &links->flush);
}

void wire_want_flush(struct wire *wire)
{
	if (list_empty(&wire->flushing))
		list_push(&wire->links->flushing, &wire->flushing);
	links_want_flush(wire->links);
}

/* --- the end --- */

static void notify(struct links *links, uint64_t member, bool down, enum link_down how, const char *why)
{
	struct notice *notice = xcalloc(1, sizeof *notice);

	notice->member = member;
	notice->down = down;
	notice->how = how;
	snprintf(notice->why, sizeof notice->why, "%s", why);
	list_push(&links->notices, &notice->link);
}

/* The wire that this node dialled: when is the next one due? */
static void lost_out(struct peer *peer, const struct wire *wire, enum wire_state was, enum link_down how,
		     const char *why)
{
	struct links *links = peer->links;
	int64_t now = clock_mono_ms();

	peer->out = NULL;
	snprintf(peer->why, sizeof peer->why, "%s", why);
	if (was == WIRE_UP) {
		notify(links, peer->id, true, how, why);
		peer->bereft = peer->bereft || how == LINK_DOWN_ENDED;
		peer->down_since_ms = now;
		if (now - wire->up_since_ms >= 1000)
			peer->backoff_ms = 0;
	}
	peer->next_dial_ms = now + peer->backoff_ms;
	peer->backoff_ms = peer->backoff_ms == 0 ? 20 : peer->backoff_ms * 2;
	if (peer->backoff_ms > links->redial_max_ms)
		peer->backoff_ms = links->redial_max_ms;
}

static void lost_in(struct peer *peer)
{
	peer->in = NULL;
	notify(peer->links, peer->id, false, LINK_DOWN_ENDED, "");
	peer->bereft = true;
	if (peer->out == NULL) { /* is the process still there? */
		peer->backoff_ms = 0;
		peer->next_dial_ms = 0;
	}
}

static void drop_requests(struct wire *wire)
{
	while (!list_empty(&wire->requests)) {
		struct incoming *incoming = LIST_ITEM(wire->requests.next, struct incoming, link);

		list_remove(&incoming->link);
		incoming->wire = NULL; /* its answer goes nowhere */
	}
}

void wire_end(struct wire *wire, enum link_down how, bool flush_it, const char *why)
{
	struct links *links = wire->links;
	enum wire_state was = wire->state;
	struct peer *peer = wire->peer;

	if (was == WIRE_DEAD)
		return;
	wire->state = WIRE_DEAD;
	if (!wire->dialled && was != WIRE_UP)
		links->n_strangers--;
	dialing_cancel(wire->dialing);
	wire->dialing = NULL;
	if (wire->stream != NULL)
		stream_close(wire->stream, flush_it);
	wire->stream = NULL;
	wire_call_fail_all(wire, why);
	drop_requests(wire);
	if (peer != NULL && peer->out == wire)
		lost_out(peer, wire, was, how, why);
	if (peer != NULL && peer->in == wire)
		lost_in(peer);
	if (wire->joining != NULL)
		joining_ended(wire, why);
	if (wire->sender != NULL || wire->receiver != NULL)
		wire_copy_ended(wire, why);
	list_remove(&wire->link);
	list_push(&links->graves, &wire->link);
	links_want_flush(links);
}

void wire_hang_up(struct wire *wire, enum link_refusal reason, const char *text)
{
	OWN_BUF words = { 0 };

	if (wire->state == WIRE_DEAD)
		return;
	if (wire->stream != NULL && wire->state >= WIRE_WORDS && wire->raft_left == 0) {
		shake_put_refusal(&words, reason, text);
		stream_write(wire->stream, words.data, words.len);
	}
	wire_end(wire, LINK_DOWN_CLOSED, true, text);
}

void wire_refuse(struct wire *wire, enum link_refusal reason, const char *text)
{
	if (wire->state == WIRE_DEAD)
		return;
	links_refused(wire->links, wire->peer, true, reason, text);
	wire_hang_up(wire, reason, text);
}

/* --- out --- */

/* How much of the frames of consensus may go now; keeps account of where one ends. */
static size_t measure(struct wire *wire, size_t max, bool others_wait)
{
	size_t n = 0, have = wire->raft.len - wire->raft_at;

	while (n < max && n < have) {
		size_t step;

		if (wire->raft_left == 0) {
			if (others_wait && wire->raft_run >= SHARE)
				break;
			wire->raft_left =
				LINK_FRAME_HEADER + link_frame_get_u32(wire->raft.data + wire->raft_at + n + 1);
		}
		step = wire->raft_left < max - n ? wire->raft_left : max - n;
		n += step;
		wire->raft_left -= step;
		wire->raft_run += step;
	}
	return n;
}

static void trim_raft(struct wire *wire)
{
	if (wire->raft_at == wire->raft.len) {
		wire->raft_at = wire->raft.len = 0;
		if (wire->raft.cap > KEEP)
			buf_done(&wire->raft);
	} else if (wire->raft_at > LINK_AHEAD) {
		buf_consume(&wire->raft, wire->raft_at);
		wire->raft_at = 0;
	}
}

static void begin_parcel(struct parcel *parcel, struct buf *out, size_t n)
{
	bool request = parcel->type == LINK_FRAME_REQUEST;
	int64_t left = parcel->deadline_ms == INT64_MAX ? UINT32_MAX : parcel->deadline_ms - clock_mono_ms();

	link_frame_header(out, parcel->type, (request ? 17 : 13) + n);
	link_frame_u64(out, parcel->id);
	buf_put(out, parcel->tag);
	if (request)
		link_frame_u32(out, left < 0 ? 0 : left > UINT32_MAX ? UINT32_MAX : (uint32_t)left);
	link_frame_u32(out, (uint32_t)parcel->body.len);
	parcel->begun = true;
}

static size_t send_piece(struct wire *wire)
{
	struct parcel *parcel = LIST_ITEM(wire->parcels.next, struct parcel, link);
	struct buf *out = &wire->links->scratch;
	size_t n = parcel->body.len - parcel->at < PIECE ? parcel->body.len - parcel->at : PIECE;

	out->len = 0;
	if (parcel->begun)
		link_frame_header(out, LINK_FRAME_PART, n);
	else
		begin_parcel(parcel, out, n);
	buf_append(out, parcel->body.data + parcel->at, n);
	parcel->at += n;
	wire->raft_run = 0;
	stream_write(wire->stream, out->data, out->len);
	if (parcel->at == parcel->body.len)
		wire_parcel_sent(wire, parcel);
	return out->len;
}

/* What is due next, at most HIGH bytes; 0: nothing. */
static size_t send_next(struct wire *wire)
{
	bool others = !list_empty(&wire->parcels);
	size_t n = measure(wire, HIGH, others);

	if (n == 0)
		return others ? send_piece(wire) : 0;
	stream_write(wire->stream, wire->raft.data + wire->raft_at, n);
	wire->raft_at += n;
	trim_raft(wire);
	return n;
}

static void tell_room(struct wire *wire)
{
	if (!wire->wants_room || wire->raft.len - wire->raft_at > LINK_AHEAD / 2 || wire->peer == NULL)
		return;
	wire->wants_room = false;
	wire->links->events->writable(wire->links->ctx, wire->peer->id);
}

void wire_flush(struct wire *wire)
{
	size_t sent = 0, n = 1;

	if (wire->state != WIRE_UP)
		return;
	while (n > 0 && sent < A_TURN && stream_waiting(wire->stream) < HIGH) {
		n = 0;
		for (size_t more = 1; more > 0 && stream_waiting(wire->stream) < HIGH; n += more)
			more = send_next(wire);
		sent += n;
		stream_flush(wire->stream);
	}
	if (sent >= A_TURN)
		wire_want_flush(wire);
	if (wire->kind == LINK_KIND_JOIN && !wire->dialled && wire->had_request && list_empty(&wire->parcels) &&
	    list_empty(&wire->requests))
		wire_end(wire, LINK_DOWN_CLOSED, true, "answered");
	else
		tell_room(wire);
}

void wire_add(struct wire *wire, struct parcel *parcel)
{
	list_push(&wire->parcels, &parcel->link);
	wire->parcel_bytes += parcel->body.len;
	wire_want_flush(wire);
}

/* --- in --- */

static uint32_t allowed(const struct wire *wire)
{
	uint32_t member = 1u << LINK_FRAME_REFUSE;

	if (wire->state == WIRE_WORDS)
		return wire->dialled ? 1u << LINK_FRAME_WELCOME | 1u << LINK_FRAME_REFUSE : 1u << LINK_FRAME_HELLO;
	if (wire->kind == LINK_KIND_COPY && wire->dialled)
		return member | 1u << LINK_FRAME_COPY_DONE;
	if (wire->kind == LINK_KIND_COPY)
		return member | 1u << LINK_FRAME_COPY | 1u << LINK_FRAME_COPY_DATA | 1u << LINK_FRAME_COPY_END;
	if (wire->dialled)
		return member | 1u << LINK_FRAME_REPLY | 1u << LINK_FRAME_PART;
	if (wire->kind == LINK_KIND_MEMBER)
		member |= 1u << LINK_FRAME_RAFT;
	return member | 1u << LINK_FRAME_REQUEST | 1u << LINK_FRAME_PART;
}

_Static_assert((int)PEER_MESSAGE_MAX <= (int)LINK_MESSAGE_MAX, "a frame holds the largest message");

/* Is what has come of a message of consensus, as long as it claims to be, longer than its kind may be? */
static bool too_long(const uint8_t *head, size_t have, size_t claimed)
{
	return have > 0 && claimed > peer_size_max(head[0]);
}

static void take_raft(struct wire *wire, const struct link_frame *frame)
{
	struct links *links = wire->links;
	struct err err = { 0 };
	enum code rc;

	if (too_long(frame->body.data, frame->body.len, frame->body.len)) {
		wire_refuse(wire, LINK_REFUSED_PROTOCOL, "a message is longer than its kind may be");
		return;
	}
	rc = links->events->raft(links->ctx, wire->peer->id, frame->body.data, frame->body.len, &err);
	if (rc != CODE_OK)
		wire_refuse(wire, rc == CODE_PERMISSION_DENIED ? LINK_REFUSED_REMOVED : LINK_REFUSED_PROTOCOL,
			    err.text);
}

static void take_frame(struct wire *wire, const struct link_frame *frame)
{
	switch (frame->type) {
	case LINK_FRAME_RAFT:
		take_raft(wire, frame);
		return;
	case LINK_FRAME_REQUEST:
	case LINK_FRAME_REPLY:
	case LINK_FRAME_PART:
		wire_call_take_part(wire, frame);
		return;
	case LINK_FRAME_HELLO:
	case LINK_FRAME_WELCOME:
	case LINK_FRAME_REFUSE:
		shake_take(wire, frame);
		return;
	default:
		wire_copy_take(wire, frame);
	}
}

static void on_data(void *ctx, const uint8_t *data, size_t len)
{
	struct wire *wire = ctx;
	struct link_frame frame;
	struct err err = { 0 };
	bool bad = false;

	if (wire->peer != NULL && wire->state == WIRE_UP)
		links_heard(wire->peer);
	while (wire->state != WIRE_DEAD &&
	       link_frame_next(&wire->reader, &data, &len, allowed(wire), &frame, &bad, &err))
		take_frame(wire, &frame);
	if (bad)
		wire_refuse(wire, LINK_REFUSED_PROTOCOL, err.text);
	else if (wire->state == WIRE_UP && link_frame_pending(&wire->reader) == LINK_FRAME_RAFT &&
		 too_long(wire->reader.body.data, wire->reader.body.len, link_frame_get_u32(wire->reader.header + 1)))
		wire_refuse(wire, LINK_REFUSED_PROTOCOL, "a message is longer than its kind may be");
}

/* --- the stream's other events --- */

static void on_opened(void *ctx)
{
	struct wire *wire = ctx;

	wire->state = WIRE_WORDS;
	if (wire->dialled)
		shake_hello(wire);
}

static void on_drained(void *ctx)
{
	struct wire *wire = ctx;

	if (wire->kind == LINK_KIND_COPY)
		wire_copy_drained(wire);
	else
		wire_want_flush(wire);
}

static void on_closed(void *ctx, const struct err *why)
{
	struct wire *wire = ctx;
	struct links *links = wire->links;

	wire->stream = NULL;
	if (wire->dialled && wire->state == WIRE_TLS && why->code == CODE_PERMISSION_DENIED && wire->joining == NULL)
		links_refused(links, wire->peer, true, LINK_REFUSED_UNKNOWN_KEY, why->text);
	wire_end(wire, LINK_DOWN_ENDED, false,
		 why->code == CODE_OK ? "the other side closed the connection" : why->text);
}

static const struct stream_events stream_events = {
	.opened = on_opened,
	.data = on_data,
	.drained = on_drained,
	.closed = on_closed,
};

static void start_tls(struct wire *wire, int fd)
{
	struct links *links = wire->links;
	const struct stream_options options = {
		.loop = links->loop,
		.fd = fd,
		.tls = wire->dialled ? links->client : links->server,
		.peer = wire,
		.events = &stream_events,
		.ctx = wire,
		.all = &links->streams,
	};
	struct err err = { 0 };

	wire->state = WIRE_TLS;
	if (stream_open(&options, &wire->stream, &err) != CODE_OK)
		wire_end(wire, LINK_DOWN_ENDED, false, err.text);
}

static void on_dialled(void *ctx, int fd, int number, const char *why)
{
	struct wire *wire = ctx;
	struct peer *peer = wire->peer;
	struct links *links = wire->links;

	wire->dialing = NULL;
	if (fd >= 0) {
		start_tls(wire, fd);
		return;
	}
	wire_end(wire, LINK_DOWN_ENDED, false, why);
	if (peer == NULL || wire->kind != LINK_KIND_MEMBER || number != ECONNREFUSED || !peer->bereft ||
	    peer->in != NULL || peer->removed)
		return;
	peer->bereft = false;
	tell_notices(links); /* `down` before `dead` */
	if (!links->closed)
		links->events->dead(links->ctx, peer->id);
}

struct wire *wire_new(struct links *links, enum link_kind kind, bool dialled)
{
	struct wire *wire = xcalloc(1, sizeof *wire);

	wire->links = links;
	wire->kind = kind;
	wire->dialled = dialled;
	wire->state = dialled ? WIRE_DIALING : WIRE_TLS;
	wire->deadline_ms = clock_mono_ms() + links->handshake_ms;
	list_init(&wire->flushing);
	list_init(&wire->parcels);
	list_init(&wire->requests);
	for (size_t i = 0; i < WIRE_BUCKETS; i++)
		list_init(&wire->calls[i]);
	list_push(&links->wires, &wire->link);
	return wire;
}

void wire_dial(struct wire *wire, const char *address, int64_t timeout_ms)
{
	wire->deadline_ms = clock_mono_ms() + timeout_ms;
	wire->dialing = dialing_start(wire->links->loop, address, timeout_ms, on_dialled, wire);
}

void wire_accept(struct links *links, int fd)
{
	struct wire *wire;

	if (links->n_strangers >= STRANGERS_MAX) { /* the oldest makes room: members are quick */
		LIST_FOR (item, &links->wires) {
			struct wire *old = LIST_ITEM(item, struct wire, link);

			if (!old->dialled && old->state != WIRE_UP) {
				wire_end(old, LINK_DOWN_CLOSED, false, "too many connections at a time");
				break;
			}
		}
	}
	wire = wire_new(links, LINK_KIND_MEMBER, false);
	links->n_strangers++;
	start_tls(wire, fd);
}

/* TLS: who is at the other end? A dialler knows whom he expects. Who has dialled us is told what is wrong in words
 * (link_shake.c). */
enum code wire_verify(void *ctx, X509 *leaf, STACK_OF(X509) * chain, struct err *err)
{
	struct wire *wire = ctx;
	char hex[PIN_HEX];

	(void)chain;
	TRY(peer_pins_of(leaf, wire->pins, &wire->n_pins, err));
	if (!wire->dialled)
		return CODE_OK;
	if (wire->joining != NULL)
		return joining_verify(wire, err) ? CODE_OK : CODE_PERMISSION_DENIED;
	if (wire->peer == NULL)
		return err_set(err, CODE_PERMISSION_DENIED, "nobody is expected there");
	if (links_peer_has_pin(wire->peer, wire->pins, wire->n_pins, &wire->rotated))
		return CODE_OK;
	return err_set(
		err, CODE_PERMISSION_DENIED,
		"who answers at %s does not have the key of '%s' (sha256 %.16s...): another node has its address, or "
		"its data directory is new",
		wire->peer->address, wire->peer->name, pin_hex(&wire->pins[0], hex));
}
