/* SPDX-License-Identifier: Apache-2.0 */
/* The links of a node: the member table, who is dialled when, the interface of link.h.
 *
 * Each member that is not this node and not removed is dialled for as long as there is no connection: at once when one
 * has ended, then with growing pauses. One timer does all that depends on time. */
#include "raft/link_inside.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/rand.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROTOCOL "cluster-peer/1"

enum { HANDSHAKE_MS = 5000, REDIAL_MAX_MS = 1000 };

struct links *links_ref(struct links *links)
{
	atomic_fetch_add_explicit(&links->refs, 1, memory_order_relaxed);
	return links;
}

void links_unref(struct links *links)
{
	if (atomic_fetch_sub_explicit(&links->refs, 1, memory_order_acq_rel) != 1)
		return;
	buf_done(&links->scratch);
	tls_context_free(links->client);
	tls_context_free(links->server);
	peer_key_unref(links->key);
	free(links);
}

/* --- the table --- */

struct peer *links_peer(const struct links *links, uint64_t id)
{
	LIST_FOR (item, (struct link *)&links->peers) {
		struct peer *peer = LIST_ITEM(item, struct peer, link);

		if (peer->id == id)
			return peer;
	}
	return NULL;
}

bool links_peer_has_pin(const struct peer *peer, const struct pin *pins, size_t n, bool *rotated)
{
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < peer->n_pins; k++)
			if (pin_equal(&pins[i], &peer->pins[k])) {
				*rotated = i > 0;
				return true;
			}
	return false;
}

/* Who shows the key itself goes before whoever has only vouched for it. */
struct peer *links_peer_by_pins(const struct links *links, const struct pin *pins, size_t n, bool *rotated)
{
	bool ignored;

	for (size_t i = 0; i < n; i++)
		LIST_FOR (item, (struct link *)&links->peers) {
			struct peer *peer = LIST_ITEM(item, struct peer, link);

			if (links_peer_has_pin(peer, &pins[i], 1, &ignored)) {
				*rotated = i > 0;
				return peer;
			}
		}
	return NULL;
}

void links_heard(struct peer *peer)
{
	peer->last_heard_ms = clock_mono_ms();
}

void links_refused(struct links *links, struct peer *peer, bool by_us, enum link_refusal reason, const char *text)
{
	uint32_t bit = (unsigned)reason < 32 ? UINT32_C(1) << reason : 1;

	if (links->closed || (peer != NULL && (peer->told & bit) != 0) ||
	    (peer == NULL && strncmp(links->told_stranger, text, sizeof links->told_stranger - 1) == 0))
		return;
	if (peer != NULL)
		peer->told |= bit;
	else
		snprintf(links->told_stranger, sizeof links->told_stranger, "%s", text);
	links->events->refused(links->ctx, peer != NULL ? peer->id : 0, by_us, reason, text);
}

static bool is_self(const struct links *links, const struct peer *peer)
{
	return links->self.set && peer->node_id[0] != '\0' && strcmp(peer->node_id, links->self.node_id) == 0;
}

static void end_copies(struct peer *peer, const char *why)
{
	LIST_FOR_SAFE (item, &peer->links->wires) {
		struct wire *wire = LIST_ITEM(item, struct wire, link);

		if (wire->peer == peer && wire->kind == LINK_KIND_COPY)
			wire_end(wire, LINK_DOWN_CLOSED, true, why);
	}
}

/* The owner's own doing: he is told that they are down, but no redial means anything. */
static void cut(struct peer *peer, bool in_too, const char *why)
{
	enum link_refusal reason = peer->removed ? LINK_REFUSED_REMOVED : LINK_REFUSED_OTHER;

	if (peer->out != NULL && in_too)
		wire_hang_up(peer->out, reason, why);
	else if (peer->out != NULL)
		wire_end(peer->out, LINK_DOWN_CLOSED, true, why);
	if (in_too && peer->in != NULL)
		wire_hang_up(peer->in, reason, why);
	if (in_too)
		end_copies(peer, why);
	peer->bereft = false;
	peer->backoff_ms = 0;
	peer->next_dial_ms = 0;
}

static void update_peer(struct peer *peer, const struct link_member *row)
{
	bool moved = strcmp(peer->address, row->address != NULL ? row->address : "") != 0, ignored;
	struct wire *out = peer->out, *in = peer->in;

	snprintf(peer->name, sizeof peer->name, "%s", row->name != NULL ? row->name : "");
	snprintf(peer->node_id, sizeof peer->node_id, "%s", row->node_id != NULL ? row->node_id : "");
	snprintf(peer->address, sizeof peer->address, "%s", row->address != NULL ? row->address : "");
	memcpy(peer->pins, row->pins, sizeof peer->pins);
	peer->n_pins = row->n_pins;
	peer->keep = true;
	if (row->starts > peer->starts) {
		peer->starts = row->starts;
		memcpy(peer->boot, row->boot, LINK_BOOT_LEN);
	}
	if (row->removed && !peer->removed) {
		char why[200];

		peer->removed = true;
		snprintf(why, sizeof why,
			 "'%s' was removed from the cluster: to come back it must join again with an empty data "
			 "directory",
			 peer->name);
		peer->told |= UINT32_C(1) << LINK_REFUSED_REMOVED; /* the owner knows */
		cut(peer, true, why);
	}
	peer->removed = row->removed;
	if (moved)
		cut(peer, false, "its address has changed");
	/* a pin that is gone does not speak for it any more */
	if (out != NULL && out->state == WIRE_UP && !links_peer_has_pin(peer, out->pins, out->n_pins, &ignored))
		wire_end(out, LINK_DOWN_CLOSED, true, "its key has changed");
	if (in != NULL && in->state == WIRE_UP && !links_peer_has_pin(peer, in->pins, in->n_pins, &ignored))
		wire_end(in, LINK_DOWN_CLOSED, true, "its key has changed");
}

void link_set_members(struct links *links, const struct link_member *members, size_t n)
{
	LIST_FOR (item, &links->peers)
		LIST_ITEM(item, struct peer, link)->keep = false;
	for (size_t i = 0; i < n; i++) {
		struct peer *peer = links_peer(links, members[i].id);

		assert(members[i].id != 0 && members[i].n_pins <= 2);
		if (peer == NULL) {
			peer = xcalloc(1, sizeof *peer);
			peer->links = links;
			peer->id = members[i].id;
			peer->down_since_ms = clock_mono_ms();
			snprintf(peer->address, sizeof peer->address, "%s",
				 members[i].address != NULL ? members[i].address : "");
			list_push(&links->peers, &peer->link);
		}
		update_peer(peer, &members[i]);
	}
	LIST_FOR_SAFE (item, &links->peers) {
		struct peer *peer = LIST_ITEM(item, struct peer, link);

		if (peer->keep)
			continue;
		cut(peer, true, "it is no member any more");
		list_remove(&peer->link);
		list_push(&links->gone, &peer->link);
	}
	links_want_flush(links); /* dials who is new */
}

void link_set_self(struct links *links, const struct link_self *self)
{
	struct own *own = &links->self;
	bool other = own->set && (strcmp(own->cluster_id, self->cluster_id) != 0 || own->epoch != self->epoch ||
				  strcmp(own->node_id, self->node_id) != 0 || strcmp(own->name, self->name) != 0);

	shake_own(own, self);
	links_want_flush(links);
	if (!other)
		return;
	LIST_FOR (item, &links->peers) {
		struct peer *peer = LIST_ITEM(item, struct peer, link);

		if (peer->in != NULL)
			wire_end(peer->in, LINK_DOWN_CLOSED, true, "this node is of another cluster or epoch now");
		end_copies(peer, "this node is of another cluster or epoch now");
		cut(peer, false, "this node is of another cluster or epoch now");
	}
}

void link_set_key(struct links *links, struct peer_key *key)
{
	peer_key_ref(key);
	peer_key_unref(links->key);
	links->key = key;
}

/* --- time --- */

static void dial(struct peer *peer)
{
	struct wire *wire = wire_new(peer->links, LINK_KIND_MEMBER, true);

	wire->peer = peer;
	peer->out = wire;
	wire_dial(wire, peer->address, peer->links->handshake_ms);
}

void links_dial(struct links *links)
{
	int64_t now = clock_mono_ms();

	if (!links->self.set || links->closed)
		return;
	LIST_FOR (item, &links->peers) {
		struct peer *peer = LIST_ITEM(item, struct peer, link);

		if (peer->out != NULL || peer->removed || peer->next_dial_ms > now || peer->address[0] == '\0' ||
		    is_self(links, peer))
			continue;
		dial(peer);
	}
}

static void end_the_late(struct links *links, int64_t now)
{
	LIST_FOR_SAFE (item, &links->wires) {
		struct wire *wire = LIST_ITEM(item, struct wire, link);
		bool idle_joiner = wire->kind == LINK_KIND_JOIN && !wire->dialled && !wire->had_request;

		wire_call_expire(wire, now);
		if ((wire->state < WIRE_UP || idle_joiner) && wire->deadline_ms <= now)
			wire_end(wire, LINK_DOWN_ENDED, false, "no answer in time");
	}
}

/* What is due now; the timer is set for the next time. */
static void work(struct links *links)
{
	int64_t now = clock_mono_ms();

	end_the_late(links, now);
	wire_copy_tick(links, now);
	links_dial(links);
}

static void on_tick(uv_timer_t *tick)
{
	work(tick->data);
}

/* --- opening and closing --- */

static struct identity *identity(void *ctx)
{
	return identity_ref(peer_key_identity(((struct links *)ctx)->key));
}

static enum code make_contexts(struct links *links, struct err *err)
{
	struct tls_options options = {
		.client = true,
		.protocol = PROTOCOL,
		.only_tls13 = true,
		.mutual = true,
		.identity = identity,
		.ctx = links,
		.verify = wire_verify,
	};

	TRY(tls_context_new(&options, &links->client, err));
	options.client = false;
	return tls_context_new(&options, &links->server, err);
}

static struct links *links_new(const struct link_options *options)
{
	struct links *links = xcalloc(1, sizeof *links);
	struct link *const lists[] = { &links->peers,     &links->gone,   &links->wires,   &links->graves,
				       &links->flushing,  &links->failed, &links->notices, &links->copies,
				       &links->receivers, &links->streams };

	for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
		list_init(lists[i]);
	links->refs = 1;
	links->loop = options->loop;
	links->events = options->events;
	links->ctx = options->ctx;
	links->handshake_ms = options->handshake_ms != 0 ? options->handshake_ms : HANDSHAKE_MS;
	links->redial_max_ms = options->redial_max_ms != 0 ? options->redial_max_ms : REDIAL_MAX_MS;
	links->key = peer_key_ref(options->key);
	links->next_id = rand_u64() >> 16; /* an answer to a former process' request fits nowhere */
	return links;
}

enum code link_open(const struct link_options *options, struct links **out, struct err *err)
{
	struct links *links = links_new(options);
	enum code rc = make_contexts(links, err);

	if (rc != CODE_OK) {
		links_unref(links);
		return rc;
	}
	uv_timer_init(loop_uv(links->loop), &links->tick);
	links->tick.data = links;
	uv_timer_start(&links->tick, on_tick, 0, TICK_MS);
	links_ref(links); /* the timer's */
	*out = links;
	return CODE_OK;
}

static void accepted(void *ctx, int fd)
{
	wire_accept(ctx, fd);
}

enum code link_listen(struct links *links, const char *address, int port, struct err *err)
{
	TRY(listener_tcp(links->loop, address, port, &links->listener, err));
	listener_accept(links->listener, accepted, links);
	return CODE_OK;
}

int link_port(const struct links *links)
{
	return links->listener != NULL ? listener_port(links->listener) : 0;
}

void link_listen_stop(struct links *links)
{
	listener_close(links->listener);
	links->listener = NULL;
}

static void tick_closed(uv_handle_t *handle)
{
	links_unref(handle->data);
}

void link_close(struct links *links)
{
	if (links == NULL || links->closed)
		return;
	links->closed = true;
	link_listen_stop(links);
	wire_copy_close(links);
	while (!list_empty(&links->wires))
		wire_end(LIST_ITEM(links->wires.next, struct wire, link), LINK_DOWN_CLOSED, false, "this node stops");
	while (!list_empty(&links->peers)) {
		struct link *item = links->peers.next;

		list_remove(item);
		list_push(&links->gone, item);
	}
	stream_close_all(&links->streams);
	wire_call_tell_failed(links); /* those who wait may end with their loops right after */
	links_want_flush(links);      /* frees what is left */
	uv_close((uv_handle_t *)&links->tick, tick_closed);
	links_unref(links);
}

/* --- messages and status --- */

bool link_send(struct links *links, uint64_t member, const void *message, size_t len, bool bulky)
{
	struct peer *peer = links_peer(links, member);
	struct wire *wire = peer != NULL ? peer->out : NULL;
	size_t queued, size = LINK_FRAME_HEADER + len;

	if (wire == NULL || wire->state != WIRE_UP)
		return false;
	queued = wire->raft.len - wire->raft_at;
	if (queued > 0 && queued + size > (bulky ? LINK_AHEAD : LINK_QUEUE)) {
		wire->wants_room = true;
		return false;
	}
	link_frame_put(&wire->raft, LINK_FRAME_RAFT, message, len);
	wire_want_flush(wire);
	return true;
}

size_t link_queued(const struct links *links, uint64_t member)
{
	const struct peer *peer = links_peer(links, member);

	return peer == NULL || peer->out == NULL ? 0 : peer->out->raft.len - peer->out->raft_at;
}

bool link_status(const struct links *links, uint64_t member, struct link_status *out)
{
	const struct peer *peer = links_peer(links, member);

	if (peer == NULL)
		return false;
	*out = (struct link_status){
		.member = member,
		.epoch = peer->epoch,
		.up = peer->out != NULL && peer->out->state == WIRE_UP,
		.heard = peer->in != NULL,
		.last_heard_ms = peer->last_heard_ms,
		.down_since_ms = peer->down_since_ms,
		.queued = link_queued(links, member),
	};
	snprintf(out->why, sizeof out->why, "%s",
		 out->up                ? ""
		 : peer->why[0] != '\0' ? peer->why
					: "not connected yet");
	return true;
}
