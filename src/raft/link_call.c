/* SPDX-License-Identifier: Apache-2.0 */
/* Requests and their answers. On the wire only one of them is under way at a time in each direction, cut into parts, so
 * the receiver puts one together at a time; between the parts go messages of consensus. Many may wait for their
 * answers.
 *
 * What became of a request is never guessed: as long as a part of it is here, nothing has happened there (NOT_SENT);
 * from then on, without an answer, nobody knows (UNKNOWN).
 *
 * link_ask crosses loops: its struct is shared by the task that waits and by the link, each with a reference. */
#include "raft/link_inside.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/task.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	REQUESTS_MAX = 4096,          /* of one connection that wait for their answers here */
	REQUEST_BYTES_MAX = 32 << 20, /* their bodies */
	PARCEL_BYTES_MAX = 64 << 20,  /* that wait to leave: a peer that does not read is cut off */
	REQUEST_HEAD = 17,
	REPLY_HEAD = 13,
	JOINERS_MAX = 16,
};

/* --- asking --- */

static struct link *bucket(struct wire *wire, uint64_t id)
{
	return &wire->calls[id % WIRE_BUCKETS];
}

void wire_parcel_free(struct wire *wire, struct parcel *parcel)
{
	list_remove(&parcel->link);
	wire->parcel_bytes -= parcel->body.len;
	if (parcel->asking != NULL)
		parcel->asking->parcel = NULL;
	buf_done(&parcel->body);
	free(parcel);
}

void wire_parcel_sent(struct wire *wire, struct parcel *parcel)
{
	wire_parcel_free(wire, parcel);
}

static void tell(struct asking *asking, const struct link_answer *answer)
{
	struct link_call *call = asking->call;

	list_remove(&asking->link);
	free(asking);
	if (call == NULL)
		return;
	call->inside = NULL;
	call->done(call, answer);
}

/* It has not left, or nobody knows. To be told by the flush. */
static void fail(struct links *links, struct asking *asking, enum code code, const char *why)
{
	asking->outcome = asking->parcel != NULL ? LINK_NOT_SENT : LINK_UNKNOWN;
	asking->parcel = NULL;
	asking->code = code;
	snprintf(asking->why, sizeof asking->why, "%s%.380s",
		 asking->outcome == LINK_UNKNOWN ? "outcome unknown: " : "", why);
	list_remove(&asking->link);
	list_push(&links->failed, &asking->link);
	links_want_flush(links);
}

void wire_call_tell_failed(struct links *links)
{
	while (!list_empty(&links->failed)) {
		struct asking *asking = LIST_ITEM(links->failed.next, struct asking, link);
		char why[sizeof asking->why];
		const struct link_answer answer = { .outcome = asking->outcome, .code = asking->code, .text = why };

		memcpy(why, asking->why, sizeof why);
		tell(asking, &answer);
	}
}

void wire_call_fail_all(struct wire *wire, const char *why)
{
	char text[300];

	snprintf(text, sizeof text, "the connection to '%s' ended: %.200s",
		 wire->peer != NULL ? wire->peer->name : "the member", why);
	for (size_t i = 0; i < WIRE_BUCKETS; i++)
		while (!list_empty(&wire->calls[i]))
			fail(wire->links, LIST_ITEM(wire->calls[i].next, struct asking, link), CODE_UNAVAILABLE, text);
	while (!list_empty(&wire->parcels)) {
		struct parcel *parcel = LIST_ITEM(wire->parcels.next, struct parcel, link);

		parcel->asking = NULL; /* told above, as not sent */
		wire_parcel_free(wire, parcel);
	}
}

void wire_call_expire(struct wire *wire, int64_t now_ms)
{
	for (size_t i = 0; i < WIRE_BUCKETS; i++)
		LIST_FOR_SAFE (item, &wire->calls[i]) {
			struct asking *asking = LIST_ITEM(item, struct asking, link);
			struct parcel *parcel = asking->parcel;

			if (asking->deadline_ms > now_ms)
				continue;
			if (parcel != NULL)
				parcel->asking = NULL;
			if (parcel != NULL && parcel->begun)
				asking->parcel = NULL; /* the rest must follow: it will be whole there yet */
			fail(wire->links, asking, CODE_DEADLINE_EXCEEDED, "no answer in time");
			if (parcel != NULL && !parcel->begun)
				wire_parcel_free(wire, parcel);
		}
}

static struct asking *asking_new(struct links *links, int64_t deadline_ms, struct link_call *call)
{
	struct asking *asking = xcalloc(1, sizeof *asking);

	list_init(&asking->link);
	asking->id = ++links->next_id;
	asking->deadline_ms = deadline_ms;
	asking->call = call;
	call->inside = asking;
	return asking;
}

void wire_ask(struct wire *wire, uint8_t method, struct span body, int64_t deadline_ms, struct link_call *call)
{
	struct asking *asking = asking_new(wire->links, deadline_ms, call);
	struct parcel *parcel = xcalloc(1, sizeof *parcel);

	assert(body.len <= LINK_BODY_MAX);
	list_push(bucket(wire, asking->id), &asking->link);
	asking->parcel = parcel;
	parcel->asking = asking;
	parcel->type = LINK_FRAME_REQUEST;
	parcel->tag = method;
	parcel->id = asking->id;
	parcel->deadline_ms = deadline_ms;
	buf_append(&parcel->body, body.data, body.len);
	wire_add(wire, parcel);
}

static void refuse_call(struct links *links, struct link_call *call, enum code code, const char *why)
{
	struct asking *asking = asking_new(links, INT64_MAX, call);
	struct parcel none = { 0 };

	asking->parcel = &none; /* nothing of it has left */
	fail(links, asking, code, why);
}

void link_call(struct links *links, uint64_t member, uint8_t method, struct span body, int64_t deadline_ms,
	       struct link_call *call)
{
	struct peer *peer = links->closed ? NULL : links_peer(links, member);
	char why[400];

	if (links->closed)
		refuse_call(links, call, CODE_UNAVAILABLE, "this node stops");
	else if (peer == NULL || peer->removed)
		refuse_call(links, call, CODE_UNAVAILABLE, "it is no member");
	else if (peer->out == NULL || peer->out->state != WIRE_UP) {
		snprintf(why, sizeof why, "'%s' cannot be reached: %s", peer->name,
			 peer->why[0] != '\0' ? peer->why : "not connected yet");
		refuse_call(links, call, CODE_UNAVAILABLE, why);
	} else if (peer->out->parcel_bytes > PARCEL_BYTES_MAX) {
		snprintf(why, sizeof why, "too much waits to be sent to '%s'", peer->name);
		refuse_call(links, call, CODE_RESOURCE_EXHAUSTED, why);
	} else
		wire_ask(peer->out, method, body, deadline_ms, call);
}

void link_call_forget(struct link_call *call)
{
	if (call->inside != NULL)
		((struct asking *)call->inside)->call = NULL;
	call->inside = NULL;
}

/* --- answering --- */

static void incoming_free(struct incoming *incoming)
{
	struct links *links = incoming->links;

	buf_done(&incoming->body);
	buf_done(&incoming->answer);
	arena_free(incoming->arena);
	free(incoming);
	links_unref(links);
}

static void reply(struct wire *wire, uint64_t id, enum code code, struct buf *body)
{
	struct parcel *parcel = xcalloc(1, sizeof *parcel);

	parcel->type = LINK_FRAME_REPLY;
	parcel->tag = (uint8_t)code;
	parcel->id = id;
	parcel->body = *body;
	*body = (struct buf){ 0 };
	wire_add(wire, parcel);
	if (wire->parcel_bytes > PARCEL_BYTES_MAX)
		wire_end(wire, LINK_DOWN_CLOSED, false, "it does not read its answers");
}

static void answered(struct message *message)
{
	struct incoming *incoming = (struct incoming *)((char *)message - offsetof(struct incoming, back));
	struct wire *wire = incoming->wire;

	if (wire != NULL) {
		list_remove(&incoming->link);
		wire->n_requests--;
		wire->request_bytes -= incoming->body.len;
		reply(wire, incoming->id, incoming->code, &incoming->answer);
	}
	incoming_free(incoming);
}

void link_answer(struct link_request *request, enum code code, struct span body, const struct err *err)
{
	struct incoming *incoming = (struct incoming *)((char *)request - offsetof(struct incoming, pub));

	incoming->code = code;
	if (code != CODE_OK && err != NULL)
		buf_append(&incoming->answer, err->text, strlen(err->text));
	else if (code == CODE_OK && body.len > LINK_BODY_MAX) {
		incoming->code = CODE_RESOURCE_EXHAUSTED;
		buf_puts(&incoming->answer, "the answer is too large");
	} else if (code == CODE_OK)
		buf_append(&incoming->answer, body.data, body.len);
	incoming->back.deliver = answered;
	loop_post(incoming->links->loop, &incoming->back);
}

static const char *keep(struct arena *arena, const char *text)
{
	return text != NULL ? arena_strdup(arena, text) : NULL;
}

struct link_peer wire_words(const struct link_peer *words, struct arena *arena)
{
	struct link_peer copy = *words;

	copy.cluster_id = keep(arena, words->cluster_id);
	copy.trust_domain = keep(arena, words->trust_domain);
	copy.node_id = keep(arena, words->node_id);
	copy.name = keep(arena, words->name);
	copy.address = keep(arena, words->address);
	copy.api_address = keep(arena, words->api_address);
	copy.software = keep(arena, words->software);
	return copy;
}

void wire_call_joiner(struct wire *wire, const struct link_peer *words)
{
	size_t n = 0;

	LIST_FOR (item, &wire->links->wires) {
		const struct wire *other = LIST_ITEM(item, struct wire, link);

		n += other->kind == LINK_KIND_JOIN && !other->dialled;
	}
	if (n > JOINERS_MAX) {
		wire_refuse(wire, LINK_REFUSED_OTHER, "too many nodes want to join at a time: try again");
		return;
	}
	wire->arena = arena_new();
	wire->joiner = wire_words(words, wire->arena);
}

static void deliver_request(struct wire *wire)
{
	struct links *links = wire->links;
	uint32_t left_ms = wire->whole.time_left_ms;
	struct incoming *incoming = xcalloc(1, sizeof *incoming);

	incoming->links = links_ref(links);
	incoming->wire = wire;
	incoming->id = wire->whole.id;
	incoming->body = wire->whole.body;
	wire->whole.body = (struct buf){ 0 };
	list_push(&wire->requests, &incoming->link);
	wire->n_requests++;
	wire->request_bytes += incoming->body.len;
	incoming->pub.from = wire->kind == LINK_KIND_MEMBER ? wire->peer->id : 0;
	incoming->pub.pin = wire->pins[0];
	incoming->pub.method = wire->whole.tag;
	incoming->pub.body = (struct span){ incoming->body.data, incoming->body.len };
	incoming->pub.deadline_ms = left_ms == UINT32_MAX ? INT64_MAX : clock_mono_ms() + left_ms;
	if (wire->kind == LINK_KIND_JOIN) {
		incoming->arena = arena_new();
		incoming->joining = wire_words(&wire->joiner, incoming->arena);
		incoming->pub.joining = &incoming->joining;
	}
	links->events->request(links->ctx, &incoming->pub);
}

static void take_request(struct wire *wire)
{
	OWN_BUF why = { 0 };

	if (wire->kind == LINK_KIND_JOIN && wire->had_request) {
		wire_refuse(wire, LINK_REFUSED_PROTOCOL, "a node that joins has one request");
		return;
	}
	wire->had_request = true;
	if (wire->n_requests < REQUESTS_MAX && wire->request_bytes < REQUEST_BYTES_MAX) {
		deliver_request(wire);
		return;
	}
	buf_puts(&why, "too many requests of this node are under way");
	reply(wire, wire->whole.id, CODE_RESOURCE_EXHAUSTED, &why);
}

static void take_reply(struct wire *wire)
{
	struct link *list = bucket(wire, wire->whole.id);
	OWN_BUF body = wire->whole.body;

	wire->whole.body = (struct buf){ 0 };
	LIST_FOR (item, list) {
		struct asking *asking = LIST_ITEM(item, struct asking, link);
		struct link_answer answer = { LINK_ANSWERED, wire->whole.tag, { body.data, body.len }, NULL };

		if (asking->id != wire->whole.id)
			continue;
		if (asking->parcel != NULL) {
			wire_refuse(wire, LINK_REFUSED_PROTOCOL, "a request was answered before it was sent");
			return;
		}
		if (answer.code != CODE_OK)
			answer.text = buf_text(&body);
		tell(asking, &answer);
		return;
	}
	/* nobody waits any more: its time was over */
}

/* --- parts --- */

static bool begin_whole(struct wire *wire, const struct link_frame *frame)
{
	bool request = frame->type == LINK_FRAME_REQUEST;
	size_t head = request ? REQUEST_HEAD : REPLY_HEAD;
	const uint8_t *at = frame->body.data;

	if (wire->whole.open || frame->body.len < head)
		return false;
	wire->whole.open = true;
	wire->whole.type = frame->type;
	wire->whole.id = link_frame_get_u64(at);
	wire->whole.tag = at[8];
	wire->whole.time_left_ms = request ? link_frame_get_u32(at + 9) : 0;
	wire->whole.len = link_frame_get_u32(at + head - 4);
	wire->whole.body.len = 0;
	return wire->whole.len <= LINK_BODY_MAX && (request || wire->whole.tag <= CODE_UNAUTHENTICATED);
}

void wire_call_take_part(struct wire *wire, const struct link_frame *frame)
{
	bool first = frame->type != LINK_FRAME_PART;
	size_t head = first ? (frame->type == LINK_FRAME_REQUEST ? REQUEST_HEAD : REPLY_HEAD) : 0;

	if ((first && !begin_whole(wire, frame)) || (!first && (!wire->whole.open || frame->body.len == 0)) ||
	    frame->body.len - head > wire->whole.len - wire->whole.body.len) {
		wire_refuse(wire, LINK_REFUSED_PROTOCOL, "a part of a request or of an answer does not fit");
		return;
	}
	buf_append(&wire->whole.body, frame->body.data + head, frame->body.len - head);
	if (wire->whole.body.len < wire->whole.len)
		return;
	wire->whole.open = false;
	if (wire->whole.type == LINK_FRAME_REQUEST)
		take_request(wire);
	else
		take_reply(wire);
}

/* --- from tasks of any loop --- */

struct ask {
	struct message message; /* there and back */
	struct wait wait;
	struct link_call call;
	_Atomic int refs; /* the task's, the link's */
	_Atomic bool abandoned;
	struct loop *home;
	struct links *links;
	uint64_t member;
	uint8_t method;
	int64_t deadline_ms;
	struct buf body, text;
	struct link_answer answer;
};

static void ask_unref(struct ask *ask)
{
	if (atomic_fetch_sub_explicit(&ask->refs, 1, memory_order_acq_rel) != 1)
		return;
	buf_done(&ask->body);
	buf_done(&ask->text);
	links_unref(ask->links);
	free(ask);
}

static void ask_home(struct message *message)
{
	struct ask *ask = (struct ask *)message;

	wait_done(&ask->wait);
	ask_unref(ask);
}

static void ask_done(struct link_call *call, const struct link_answer *answer)
{
	struct ask *ask = (struct ask *)((char *)call - offsetof(struct ask, call));

	ask->answer = *answer;
	ask->body.len = 0;
	buf_append(&ask->body, answer->body.data, answer->body.len);
	buf_puts(&ask->text, answer->text != NULL ? answer->text : "");
	if (atomic_load(&ask->abandoned)) {
		ask_unref(ask);
		return;
	}
	ask->message.deliver = ask_home;
	loop_post(ask->home, &ask->message);
}

static void ask_there(struct message *message)
{
	struct ask *ask = (struct ask *)message;
	const struct link_answer late = { LINK_NOT_SENT, CODE_CANCELLED, { 0 }, "nobody waits any more" };

	ask->call.done = ask_done;
	if (atomic_load(&ask->abandoned))
		ask_done(&ask->call, &late);
	else
		link_call(ask->links, ask->member, ask->method, (struct span){ ask->body.data, ask->body.len },
			  ask->deadline_ms, &ask->call);
}

static struct ask *ask_new(struct links *links, uint64_t member, uint8_t method, struct span body, int64_t deadline_ms)
{
	struct ask *ask = xcalloc(1, sizeof *ask);

	ask->refs = 2;
	ask->home = loop_self();
	ask->links = links_ref(links);
	ask->member = member;
	ask->method = method;
	ask->deadline_ms = deadline_ms;
	buf_append(&ask->body, body.data, body.len);
	ask->message.deliver = ask_there;
	return ask;
}

/* The task gave up, or the answer is there. */
static enum code ask_outcome(struct ask *ask, enum code waited, struct arena *arena, struct link_answer *answer,
			     struct err *err)
{
	if (waited != CODE_OK) {
		*answer = (struct link_answer){ .outcome = LINK_UNKNOWN, .code = waited };
		answer->text = waited == CODE_CANCELLED ? "outcome unknown: the call was cancelled"
							: "outcome unknown: no answer in time";
		return err_set(err, waited, "%s", answer->text);
	}
	*answer = ask->answer;
	answer->body = (struct span){ arena_memdup(arena, ask->body.data, ask->body.len), ask->body.len };
	answer->text = ask->text.len > 0 ? arena_strdup(arena, buf_text(&ask->text)) : NULL;
	if (answer->outcome == LINK_ANSWERED && answer->code == CODE_OK)
		return CODE_OK;
	return err_set(err, answer->code, "%s", answer->text != NULL ? answer->text : "");
}

enum code link_ask(struct links *links, uint64_t member, uint8_t method, struct span body, int64_t deadline_ms,
		   struct arena *arena, struct link_answer *answer, struct err *err)
{
	struct ask *ask;
	enum code rc;

	assert(task_self() != NULL);
	if (body.len > LINK_BODY_MAX) {
		*answer = (struct link_answer){ .outcome = LINK_NOT_SENT, .code = CODE_RESOURCE_EXHAUSTED };
		answer->text = "the request is too large for another node";
		return err_set(err, answer->code, "%s", answer->text);
	}
	ask = ask_new(links, member, method, body, deadline_ms);
	loop_post(links->loop, &ask->message);
	rc = task_wait(&ask->wait, deadline_ms);
	if (rc != CODE_OK)
		atomic_store(&ask->abandoned, true);
	rc = ask_outcome(ask, rc, arena, answer, err);
	ask_unref(ask);
	return rc;
}
