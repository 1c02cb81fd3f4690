/* SPDX-License-Identifier: Apache-2.0 */
/* Confirmed reads: see reads.h. A round that was begun under another configuration than today's is begun again. */
#include "raft/core_inside.h"

#include <string.h>

void reads_init(struct reads *reads)
{
	list_init(&reads->waiting);
	list_init(&reads->asked);
	list_init(&reads->ended);
}

static void move_all(struct link *from, struct link *to)
{
	while (!list_empty(from)) {
		struct link *item = from->next;

		list_remove(item);
		list_push(to, item);
	}
}

static struct core_read *read_of(struct link *item)
{
	return LIST_ITEM(item, struct core_read, link);
}

/* The acknowledgements of this round on are those of one term and one configuration. */
static void forget_acks(struct reads *reads)
{
	memset(reads->acks, 0, sizeof(reads->acks));
	reads->confirmed = reads->round;
}

static void send_probes(struct core *core)
{
	const struct conf *conf = core_newest_conf(core);
	struct peer_message out = { .kind = PEER_PROBE, .term = raft_current_term(&core->raft) };

	out.probe.round = core->reads.round;
	for (unsigned i = 0; i < conf->n; i++)
		if (conf->servers[i].role == CONF_VOTER && conf->servers[i].id != core->id)
			core->io->send(core->ctx, conf->servers[i].id, &out);
	core->reads.asked_ms = core->now;
}

void reads_flush(struct core *core)
{
	struct reads *reads = &core->reads;

	/* Before the first commit in its own term a leader does not know what is committed. */
	if (list_empty(&reads->waiting) || !core_ready(core))
		return;
	reads->round++;
	while (!list_empty(&reads->waiting)) {
		struct core_read *read = read_of(reads->waiting.next);

		list_remove(&read->link);
		read->round = reads->round;
		read->index = core_commit(core);
		list_push(&reads->asked, &read->link);
	}
	send_probes(core);
}

void reads_tick(struct core *core)
{
	if (!list_empty(&core->reads.asked) && core->now - core->reads.asked_ms >= (int64_t)core->heartbeat &&
	    core_is_leader(core))
		send_probes(core);
}

void reads_ack(struct core *core, uint64_t from, uint64_t round)
{
	struct reads *reads = &core->reads;
	unsigned free_slot = CONF_MAX;

	if (round > reads->round)
		return;
	for (unsigned i = 0; i < CONF_MAX; i++) {
		if (reads->acks[i].id == from) {
			if (round > reads->acks[i].round)
				reads->acks[i].round = round;
			return;
		}
		if (reads->acks[i].id == 0 || conf_get(core_newest_conf(core), reads->acks[i].id) == NULL)
			free_slot = i;
	}
	if (free_slot < CONF_MAX) {
		reads->acks[free_slot].id = from;
		reads->acks[free_slot].round = round;
	}
}

static uint64_t acked_by(const struct core *core, uint64_t id)
{
	if (id == core->id)
		return core->reads.round;
	for (unsigned i = 0; i < CONF_MAX; i++)
		if (core->reads.acks[i].id == id)
			return core->reads.acks[i].round;
	return 0;
}

/* The highest round that a majority of the voters has answered. */
static uint64_t majority_round(const struct core *core)
{
	const struct conf *conf = core_newest_conf(core);
	uint64_t best = 0;

	for (unsigned i = 0; i < conf->n; i++) {
		uint64_t round = acked_by(core, conf->servers[i].id);
		unsigned yes = 0;

		for (unsigned j = 0; j < conf->n; j++)
			yes += conf->servers[j].role == CONF_VOTER && acked_by(core, conf->servers[j].id) >= round;
		if (yes > conf_voters(conf) / 2 && round > best)
			best = round;
	}
	return best;
}

void reads_check(struct core *core)
{
	struct reads *reads = &core->reads;
	const struct mirror_conf *conf = mirror_conf_last(core->mirror);

	if (list_empty(&reads->asked) || !core_is_leader(core))
		return;
	if (conf->index != reads->conf_index) {
		reads->conf_index = conf->index;
		forget_acks(reads);
		move_all(&reads->waiting, &reads->asked);
		move_all(&reads->asked, &reads->waiting);
		reads_flush(core);
	}
	reads->confirmed = majority_round(core);
	LIST_FOR_SAFE (item, &reads->asked) {
		struct core_read *read = read_of(item);

		if (read->round > reads->confirmed)
			break;
		list_remove(item);
		list_push(&reads->ended, item);
	}
}

void reads_fail(struct core *core)
{
	struct reads *reads = &core->reads;

	move_all(&reads->asked, &reads->waiting);
	LIST_FOR (item, &reads->waiting)
		read_of(item)->index = 0; /* no commit index: failed */
	move_all(&reads->waiting, &reads->ended);
	forget_acks(reads);
}

void reads_tell(struct core *core)
{
	struct link ended;

	list_init(&ended);
	move_all(&core->reads.ended, &ended);
	while (!list_empty(&ended)) {
		struct core_read *read = read_of(ended.next);

		list_remove(&read->link);
		read->done(read, read->index > 0 ? CODE_OK : CODE_UNAVAILABLE, read->index);
	}
}

enum code core_read(struct core *core, struct core_read *read, struct err *err)
{
	if (!core_is_leader(core))
		return err_set(err, CODE_UNAVAILABLE, "this node is not the leader");
	read->index = 0;
	list_push(&core->reads.waiting, &read->link);
	return CODE_OK;
}

void core_read_withdraw(struct core *core, struct core_read *read)
{
	(void)core;
	list_remove(&read->link);
}
