/* SPDX-License-Identifier: Apache-2.0 */
/* The network: a FIFO link for each direction of each pair. A connection that ends takes what is under way with it and
 * both sides hear of it; a blocked direction holds messages back until it is healed or the connection ends. Messages
 * travel as bytes, through the codec. */
#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct packet {
	struct packet *next;
	struct buf bytes;
};

struct wire {
	uint64_t from, to;
	unsigned epoch;
	bool blocked;
	int64_t last_ms, stalled_until;
	size_t queued;
	struct packet *first, **end; /* each has an event; the event takes the first, so that nothing overtakes */
	unsigned late;               /* events that came while it was blocked */
};

static struct wire wires[NODES + 1][NODES + 1];

void net_init(void)
{
	memset(wires, 0, sizeof(wires));
	for (unsigned i = 0; i <= NODES; i++)
		for (unsigned j = 0; j <= NODES; j++) {
			wires[i][j].end = &wires[i][j].first;
			wires[i][j].from = i;
			wires[i][j].to = j;
		}
}

static void packet_free(struct packet *packet)
{
	buf_done(&packet->bytes);
	free(packet);
}

static struct packet *take(struct wire *wire)
{
	struct packet *packet = wire->first;

	wire->first = packet->next;
	if (wire->first == NULL)
		wire->end = &wire->first;
	wire->queued -= packet->bytes.len;
	return packet;
}

static void deliver(struct node *nobody, void *arg, uint64_t epoch);

static void schedule(struct wire *wire)
{
	int64_t at = now + sim_tailed(3, 400);

	if (at < wire->last_ms)
		at = wire->last_ms;
	if (at < wire->stalled_until)
		at = wire->stalled_until;
	wire->last_ms = at;
	sim_at(at, NULL, deliver, wire, wire->epoch);
}

static void link_changed(struct node *node, void *arg, uint64_t peer)
{
	(void)arg;
	core_link_changed(node->core, peer);
}

static void hand_in(struct wire *wire, const struct packet *packet)
{
	struct node *to = &nodes[wire->to];
	struct peer_message message;
	struct err err = { 0 };
	enum code rc = peer_decode(packet->bytes.data, packet->bytes.len, wire->from, wire->to, &message, &err);

	if (rc != CODE_OK)
		violation("a message of %" PRIu64 " is refused by the codec: %s", wire->from, err.text);
	node_begin_turn(to);
	rc = core_receive(to->core, wire->from, &message, &err);
	peer_message_done(&message);
	if (rc == CODE_INVALID_ARGUMENT)
		violation("a message of %" PRIu64 " is refused: %s", wire->from, err.text);
	node_turn(to);
	if (rc == CODE_PERMISSION_DENIED) {
		nodes[wire->from].removed_told = true;
		net_reset(wire->from, wire->to);
	}
}

static void deliver(struct node *nobody, void *arg, uint64_t epoch)
{
	struct wire *wire = arg;
	struct node *to = &nodes[wire->to];
	struct packet *packet;

	(void)nobody;
	if (epoch != wire->epoch)
		return;
	if (wire->blocked) {
		wire->late++;
		return;
	}
	if (to->up && to->paused_until > now) { /* it lies in the socket */
		if (wire->last_ms < to->paused_until)
			wire->last_ms = to->paused_until;
		sim_at(to->paused_until, NULL, deliver, wire, wire->epoch);
		return;
	}
	packet = take(wire);
	if (to->up && to->core != NULL)
		hand_in(wire, packet);
	packet_free(packet);
}

bool net_send(struct node *from, uint64_t to, const struct peer_message *message)
{
	struct wire *wire = &wires[from->id][to];
	struct packet *packet;

	if (to == 0 || to > NODES || !nodes[to].up || from->removed_told)
		return false;
	if (options.trace_ms > 0 && now >= options.trace_ms)
		printf("%8" PRId64 " %" PRIu64 " > %" PRIu64 " kind %d term %" PRIu64 ": %" PRIu64 " %" PRIu64
		       " n %u%s\n",
		       now, from->id, to, message->kind, message->term, message->append.prev_index,
		       message->append.prev_term, message->kind == PEER_APPEND ? message->append.n : 0,
		       wire->blocked ? " blocked" : "");
	packet = calloc(1, sizeof(*packet));
	peer_encode(message, &packet->bytes);
	if (packet->bytes.len > peer_size_max((uint8_t)message->kind))
		violation("a message of %zu bytes is above its limit", packet->bytes.len);
	*wire->end = packet;
	wire->end = &packet->next;
	wire->queued += packet->bytes.len;
	schedule(wire);
	return true;
}

size_t net_queued(const struct node *from, uint64_t to)
{
	return wires[from->id][to].queued;
}

static void drop(uint64_t from, uint64_t to)
{
	struct wire *wire = &wires[from][to];

	wire->epoch++;
	wire->late = 0;
	wire->last_ms = 0;
	while (wire->first != NULL)
		packet_free(take(wire));
	if (nodes[from].up && nodes[from].core != NULL)
		sim_at(now, &nodes[from], link_changed, NULL, to);
}

void net_reset(uint64_t a, uint64_t b)
{
	drop(a, b);
	drop(b, a);
}

void net_block(uint64_t from, uint64_t to, bool blocked)
{
	struct wire *wire = &wires[from][to];

	wire->blocked = blocked;
	if (blocked)
		return;
	if (sim_chance(500)) {
		net_reset(from, to);
		return;
	}
	for (; wire->late > 0; wire->late--) /* the burst */
		schedule(wire);
}

bool net_blocked(uint64_t from, uint64_t to)
{
	return wires[from][to].blocked;
}

void net_stall(uint64_t from, uint64_t to, int64_t ms)
{
	wires[from][to].stalled_until = now + ms;
}

void net_heal(void)
{
	for (uint64_t i = 1; i <= NODES; i++)
		for (uint64_t j = 1; j <= NODES; j++)
			if (wires[i][j].blocked)
				net_block(i, j, false);
}

void net_free(void)
{
	for (uint64_t i = 1; i <= NODES; i++)
		for (uint64_t j = 1; j <= NODES; j++)
			while (wires[i][j].first != NULL)
				packet_free(take(&wires[i][j]));
}
