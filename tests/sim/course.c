/* SPDX-License-Identifier: Apache-2.0 */
/* The course of a run: clients, operators and misfortune, each an event that schedules itself again until the healing.
 */
#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool healed;
static uint64_t next_id;
static unsigned voters;

static void again(event_fn *run, int64_t low, int64_t high)
{
	sim_at(now + sim_between(low, high), NULL, run, NULL, 0);
}

static struct node *random_up(void)
{
	for (int tries = 0; tries < 40; tries++) {
		struct node *node = &nodes[1 + sim_rand(NODES)];

		if (node->up)
			return node;
	}
	return NULL;
}

/* Whoever believes that it leads; of two the older one as often. */
static struct node *random_leader(void)
{
	struct node *found = NULL;
	uint64_t n = 0;

	for (int i = 1; i <= NODES; i++)
		if (nodes[i].up && nodes[i].role.role == CORE_LEADER && nodes[i].paused_until <= now &&
		    sim_rand(++n) == 0)
			found = &nodes[i];
	return found;
}

/* -- clients
 * ------------------------------------------------------------------------------------------------------------------ */

static struct submission *new_submission(void)
{
	struct submission *submission = calloc(1, sizeof(*submission));
	size_t len = sim_chance(10) ? 1 + sim_rand(200000) : 1 + sim_rand(200);
	uint64_t stamp = sim_rand(UINT64_MAX);

	submission->base.entry = entry_new(0, 0, ENTRY_COMMAND, NULL, len);
	memset(submission->base.entry->data, (int)(stamp & 255), len);
	memcpy(submission->base.entry->data, &stamp, len < 8 ? len : 8);
	list_init(&submission->base.link);
	return submission;
}

static void submit(struct node *node)
{
	struct core_submission *all[8];
	size_t n = 1 + sim_rand(8);
	struct err err = { 0 };

	for (size_t i = 0; i < n; i++)
		all[i] = &new_submission()->base;
	if (core_submit(node->core, all, n, &err) == CODE_OK) {
		for (size_t i = 0; i < n; i++)
			if (all[i]->index > node->state.triple.index) /* else its fate was told already: single voter */
				list_push(&node->subs, &LIST_ITEM(all[i], struct submission, base)->mine);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		entry_unref(all[i]->entry);
		free(LIST_ITEM(all[i], struct submission, base));
	}
}

static void client(struct node *nobody, void *arg, uint64_t number)
{
	struct node *node = random_leader();

	(void)nobody, (void)arg, (void)number;
	if (node != NULL) {
		node_begin_turn(node);
		submit(node);
		node_turn(node);
	}
	if (!healed || now < options.fault_ms + options.heal_ms - 4000)
		again(client, 3, 40);
}

static void read_done(struct core_read *base, enum code code, uint64_t index)
{
	struct read *read = LIST_ITEM(base, struct read, base);

	if (code == CODE_OK) {
		counters.reads++;
		if (index < read->at_least)
			violation("node %" PRIu64 " confirms a read at %" PRIu64 ", acknowledged was %" PRIu64,
				  read->node->id, index, read->at_least);
	}
	list_remove(&read->mine);
	free(read);
}

static void reader(struct node *nobody, void *arg, uint64_t number)
{
	struct node *node = random_leader();
	struct err err = { 0 };
	struct read *read;

	(void)nobody, (void)arg, (void)number;
	again(reader, 10, 80);
	if (node == NULL)
		return;
	if (options.unsafe_reads) {
		struct core_status status;

		core_status(node->core, &status);
		if (status.now.ready && status.commit < acked)
			violation("node %" PRIu64 " reads at %" PRIu64 " without a round, acknowledged was %" PRIu64,
				  node->id, status.commit, acked);
		return;
	}
	read = calloc(1, sizeof(*read));
	read->node = node;
	read->at_least = acked;
	read->base.done = read_done;
	list_init(&read->mine);
	node_begin_turn(node);
	if (core_read(node->core, &read->base, &err) == CODE_OK)
		list_push(&node->reads, &read->mine);
	else
		free(read);
	node_turn(node);
}

/* -- checkpoints
 * ---------------------------------------------------------------------------------------------------------------- */

static void checkpoint_done(struct node *node, void *arg, uint64_t number)
{
	struct core_triple *triple = arg;
	uint64_t keep;

	(void)number;
	if (node->durable_index < triple->index)
		node->durable_index = triple->index;
	keep = core_snapshot(node->core, triple, sim_rand(220));
	free(triple);
	if (keep == 0)
		return;
	counters.snapshots++;
	node_log_cut(node, keep);
}

static void checkpoint(struct node *nobody, void *arg, uint64_t number)
{
	struct node *node = random_up();
	struct core_triple *triple;

	(void)nobody, (void)arg, (void)number;
	again(checkpoint, 20, 400);
	if (node == NULL || node->installing || node->state.triple.index == 0)
		return;
	triple = malloc(sizeof(*triple));
	*triple = node->state.triple;
	sim_at_own(now + sim_between(10, 1500), node, checkpoint_done, triple, 0);
}

/* -- misfortune
 * -------------------------------------------------------------------------------------------------------------------
 */

static void restart(struct node *nobody, void *arg, uint64_t id)
{
	struct node *node = &nodes[id];

	(void)nobody, (void)arg;
	if (!node->up && node->exists && !node->removed_told)
		node_boot(node);
}

static void heard_of_death(struct node *node, void *arg, uint64_t id)
{
	(void)arg;
	if (net_blocked(node->id, id))
		return; /* the redial gets no answer at all */
	counters.fast++;
	core_leader_died(node->core, id);
}

static void kill_node(struct node *node, bool power)
{
	node_crash(node, power);
	sim_at(now + (sim_chance(200) ? sim_between(1, 20) : sim_between(50, 4000)), NULL, restart, NULL, node->id);
	if (power)
		return; /* a dead machine refuses nothing */
	for (int i = 1; i <= NODES; i++)
		if (nodes[i].up && !net_blocked(node->id, nodes[i].id))
			sim_at(now + sim_between(1, 15), &nodes[i], heard_of_death, NULL, node->id);
}

static void crash(struct node *nobody, void *arg, uint64_t number)
{
	struct node *node = sim_chance(500) ? random_leader() : random_up();

	(void)nobody, (void)arg, (void)number;
	if (healed)
		return;
	again(crash, 200, 8000);
	if (sim_chance(60)) {
		for (int i = 1; i <= NODES; i++)
			if (nodes[i].up)
				kill_node(&nodes[i], true);
	} else if (node != NULL) {
		kill_node(node, sim_chance(500));
	}
}

/* -k: nothing but killed leaders; how long it takes to the next commit is printed. */
static void kill_leader(struct node *nobody, void *arg, uint64_t number)
{
	struct node *leader = random_leader();

	(void)nobody, (void)arg, (void)number;
	if (healed)
		return;
	again(kill_leader, 4000, 8000);
	if (leader == NULL || !leader->role.ready)
		return;
	kill_node(leader, false);
	killed_ms = now;
}

static void unblock(struct node *nobody, void *arg, uint64_t pair)
{
	(void)nobody, (void)arg;
	net_block(pair / 100, pair % 100, false);
}

static void block(uint64_t from, uint64_t to, int64_t ms)
{
	net_block(from, to, true);
	sim_at(now + ms, NULL, unblock, NULL, from * 100 + to);
}

static void partition(struct node *nobody, void *arg, uint64_t number)
{
	int64_t ms = sim_tailed(1500, 6000);
	uint64_t kind = sim_rand(4), side = sim_rand(1u << NODES);
	struct node *alone = sim_chance(500) ? random_leader() : random_up();

	(void)nobody, (void)arg, (void)number;
	if (healed)
		return;
	again(partition, 100, 5000);
	if (alone == NULL)
		return;
	counters.partitions++;
	for (uint64_t i = 1; i <= NODES; i++)
		for (uint64_t j = 1; j <= NODES; j++) {
			bool apart = kind == 0   ? (side >> i & 1) != (side >> j & 1)
				     : kind == 1 ? i == alone->id || j == alone->id
				     : kind == 2 ? i == alone->id
						 : j == alone->id;

			if (i != j && apart)
				block(i, j, ms);
		}
}

static void mishap(struct node *nobody, void *arg, uint64_t number)
{
	struct node *a = random_up(), *b = random_up();

	(void)nobody, (void)arg, (void)number;
	if (healed)
		return;
	again(mishap, 50, 2000);
	if (a == NULL || b == NULL)
		return;
	if (a != b && sim_chance(400)) {
		net_reset(a->id, b->id);
	} else if (a != b && sim_chance(500)) {
		net_stall(a->id, b->id, sim_between(10, 3000));
	} else if (sim_chance(300) &&
		   a->paused_until <= now) { /* one at a time: its events wait for the end of it, in order */
		counters.pauses++;
		a->paused_until = now + sim_tailed(600, 8000);
	}
}

/* -- operators
 * --------------------------------------------------------------------------------------------------------------------
 */

struct change {
	struct core_change base;
	struct node *node;
	unsigned life;
	char address[16];
};

static void change_done(struct core_change *base, enum code code, const char *why)
{
	struct change *change = (struct change *)base;

	change->node->changing = false;
	if (code == CODE_OK && base->kind == CORE_PROMOTE)
		counters.promotions++;
	if (code == CODE_OK && base->kind == CORE_REMOVE)
		counters.removals++;
	if (options.verbose)
		printf("%8" PRId64 " node %" PRIu64 ": change %d of %" PRIu64 ": %s %s\n", now, change->node->id,
		       base->kind, base->id, code_name(code), why);
}

static struct change changes[NODES + 1]; /* one each, for it is of one node at a time */

static bool choose_change(struct node *leader, struct core_change *change)
{
	struct core_status status;
	const struct conf_server *server;

	core_status(leader->core, &status);
	server = &status.conf.servers[sim_rand(status.conf.n)];
	change->id = server->id;
	if (server->role == CONF_STANDBY)
		change->kind = sim_chance(800) ? CORE_PROMOTE : CORE_REMOVE;
	else if (conf_voters(&status.conf) > 3 || sim_chance(200))
		change->kind = sim_chance(500) ? CORE_DEMOTE : CORE_REMOVE;
	else if (next_id <= NODES && status.conf.n < 7)
		change->kind = CORE_ADD;
	else
		return false;
	if (change->kind == CORE_ADD)
		change->id = next_id;
	return true;
}

static void operator_turn(struct node *nobody, void *arg, uint64_t number)
{
	struct node *leader = random_leader();
	struct err err = { 0 };
	struct change *change;
	enum code rc;

	(void)nobody, (void)arg, (void)number;
	if (healed)
		return;
	again(operator_turn, 100, 3000);
	if (leader == NULL || leader->changing)
		return;
	change = &changes[leader->id];
	memset(change, 0, sizeof(*change));
	change->base.done = change_done;
	change->node = leader;
	if (!choose_change(leader, &change->base))
		return;
	snprintf(change->address, sizeof(change->address), "n%" PRIu64, change->base.id);
	change->base.address = change->address;
	node_begin_turn(leader);
	leader->changing = true;
	rc = core_change(leader->core, &change->base, &err);
	if (rc != CODE_OK)
		leader->changing = false;
	if (rc == CODE_OK && change->base.kind == CORE_ADD)
		node_boot(&nodes[next_id++]);
	node_turn(leader);
}

static struct core_transfer transfers[NODES + 1];

static void transfer_done(struct core_transfer *transfer, enum code code, const char *why)
{
	(void)why;
	nodes[transfer - transfers].transferring = false;
	counters.transfers += code == CODE_OK;
}

static void transfer(struct node *nobody, void *arg, uint64_t number)
{
	struct node *leader = random_leader();
	struct err err = { 0 };

	(void)nobody, (void)arg, (void)number;
	again(transfer, 500, 8000);
	if (leader == NULL || leader->transferring || healed)
		return;
	node_begin_turn(leader);
	transfers[leader->id] = (struct core_transfer){ .done = transfer_done };
	leader->transferring = core_transfer(leader->core, &transfers[leader->id], &err) == CODE_OK;
	node_turn(leader);
}

/* Nodes that were told that they are removed stop. */
static void sweeper(struct node *nobody, void *arg, uint64_t number)
{
	(void)nobody, (void)arg, (void)number;
	again(sweeper, 100, 500);
	for (int i = 1; i <= NODES; i++)
		if (nodes[i].exists && (nodes[i].removed_told || (healed && removed_at[i] != 0))) {
			if (nodes[i].up)
				node_stop(&nodes[i]);
			nodes[i].exists = false;
			nodes[i].removed_told = true;
		}
}

/* -- one voter to two (V18)
 * --------------------------------------------------------------------------------------------------- */

static struct {
	uint64_t term, index;
	struct state copy;
	bool copying;
	unsigned life; /* of node 1 in which the copy is under way */
} growth;

static void grow(struct node *nobody, void *arg, uint64_t number);

static void fetch_answer(struct node *nobody, void *arg, uint64_t number)
{
	struct node *joiner = &nodes[2];

	(void)nobody, (void)arg, (void)number;
	if (!nodes[1].up) {
		again(fetch_answer, 50, 500); /* it never times out into starting */
		return;
	}
	if (joiner->exists)
		return;
	joiner->state = growth.copy;
	joiner->durable_index = joiner->max_applied = growth.index;
	joiner->term = growth.term;
	node_boot(joiner);
	next_id = 3;
}

static void grow_copied(struct node *node, void *arg, uint64_t number)
{
	struct core_triple triple;
	struct err err = { 0 };

	(void)arg, (void)number;
	growth.copying = false;
	if (growth.index != 0)
		return;
	if (core_grow(node->core, 2, "n2", &growth.term, &triple, &err) != CODE_OK) {
		core_thaw(node->core);
		return;
	}
	if (sim_chance(200) && !healed) { /* the term is raised, the state not switched */
		sim_at(now, node, NULL, NULL, 0);
		sim_at(now + 1, NULL, restart, NULL, 1);
		return;
	}
	growth.index = triple.index;
	growth.copy = node->state;
	growth.copy.triple = triple;
	node->state = growth.copy;
	node->durable_index = triple.index;
	check_grown(triple.index, &triple.conf);
	again(fetch_answer, 10, 500);
	sim_at(now, node, NULL, NULL, 0); /* ends this core */
	sim_at(now + (sim_chance(300) ? sim_between(50, 2000) : 1), NULL, restart, NULL, 1);
}

static void grow(struct node *nobody, void *arg, uint64_t number)
{
	struct node *node = &nodes[1];
	struct core_triple triple;
	struct err err = { 0 };

	(void)nobody, (void)arg, (void)number;
	if (growth.index != 0)
		return;
	again(grow, 50, 300);
	if (!node->up || node->role.role != CORE_LEADER || node->paused_until > now)
		return;
	core_freeze(node->core);
	if (core_grow_base(node->core, &triple, &err) != CODE_OK || triple.index != node->state.triple.index) {
		if (sim_chance(50))
			core_thaw(node->core);
		return;
	}
	if (growth.life == node->life && growth.copying)
		return;
	growth.life = node->life;
	growth.copying = true;
	sim_at(now + sim_between(20, 800), node, grow_copied, NULL, 0);
}

/* -- begin and end
 * ---------------------------------------------------------------------------------------------------------------- */

static void found(void)
{
	struct conf conf = { 0 };
	struct entry *entry;
	char address[16];

	for (unsigned i = 1; i <= voters; i++) {
		snprintf(address, sizeof(address), "n%u", i);
		conf_add(&conf, i, address, CONF_VOTER, NULL);
	}
	entry = core_founding_entry(&conf);
	check_entry(entry);
	for (unsigned i = 1; i <= voters; i++) {
		nodes[i].log = malloc(sizeof(nodes[i].log[0]));
		nodes[i].log_cap = nodes[i].log_n = 1;
		nodes[i].log[0] = entry_ref(entry);
		nodes[i].log_first = nodes[i].term = 1;
	}
	entry_unref(entry);
	for (unsigned i = 1; i <= voters; i++)
		node_boot(&nodes[i]);
}

void course_begin(void)
{
	static const unsigned sizes[] = { 3, 1, 3, 5 };

	healed = false;
	memset(&growth, 0, sizeof(growth));
	voters = sizes[options.seed % 4];
	next_id = voters == 1 ? NODES + 1 : voters + 1; /* until it has grown */
	for (int i = 0; i <= NODES; i++) {
		memset(&nodes[i], 0, sizeof(nodes[i]));
		nodes[i].id = (uint64_t)i;
		nodes[i].memory = sim_chance(500) ? 4096 << sim_rand(8) : 0;
	}
	found();
	again(client, 1, 400);
	if (options.kills) {
		again(kill_leader, 4000, 8000);
		return;
	}
	again(reader, 1, 400);
	again(checkpoint, 1, 400);
	again(crash, 1000, 8000);
	again(partition, 1000, 5000);
	again(mishap, 500, 2000);
	again(operator_turn, 500, 3000);
	again(transfer, 1000, 8000);
	again(sweeper, 100, 500);
	if (voters == 1)
		again(grow, 500, 9000);
}

void course_heal(void)
{
	healed = calm = true;
	net_heal();
	for (int i = 1; i <= NODES; i++) {
		if (nodes[i].exists && !nodes[i].up && removed_at[i] == 0)
			restart(NULL, NULL, (uint64_t)i);
	}
}

static struct node *the_leader(void)
{
	struct node *found_leader = NULL;

	for (int i = 1; i <= NODES; i++)
		if (nodes[i].up && nodes[i].role.role == CORE_LEADER && nodes[i].role.ready)
			found_leader = &nodes[i];
	return found_leader;
}

/* After the healing there is a leader, writes go on, and each member has all of it. */
void course_check_end(uint64_t committed_before)
{
	struct node *leader = the_leader();
	struct core_status status;

	if (leader == NULL)
		violation("no leader after the healing");
	core_status(leader->core, &status);
	if (committed_last <= committed_before)
		violation("nothing was committed after the healing");
	if (!status.conf_committed)
		violation("a change of members is stuck after the healing");
	for (unsigned i = 0; i < status.conf.n; i++) {
		const struct node *node = &nodes[status.conf.servers[i].id];

		if (node->state.triple.index != committed_last)
			violation("member %" PRIu64 " has applied %" PRIu64 " of %" PRIu64 " after the healing",
				  node->id, node->state.triple.index, committed_last);
		if (node->state.digest != committed_digest(committed_last))
			violation("member %" PRIu64 " has another state", node->id);
	}
	if (voters == 1 && growth.index == 0)
		violation("the cluster of one has not grown");
}
