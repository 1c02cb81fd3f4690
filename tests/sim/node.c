/* SPDX-License-Identifier: Apache-2.0 */
/* A node: the core with a simulated disk, a state file and an applying thread. */
#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node nodes[NODES + 1];
int64_t killed_ms;

/* -- the log on disk
 * -------------------------------------------------------------------------------------------------------- */

static void log_truncate(struct node *node, uint64_t first)
{
	while (node->log_n > 0 && node->log_first + node->log_n > first)
		entry_unref(node->log[--node->log_n]);
}

static void log_append(struct node *node, struct entry *entry)
{
	if (node->log_n == 0)
		node->log_first = entry->index;
	if (entry->index != node->log_first + node->log_n)
		violation("node %" PRIu64 ": a hole in the log before %" PRIu64, node->id, entry->index);
	if (node->log_n == node->log_cap) {
		node->log_cap = node->log_cap * 2 + 64;
		node->log = realloc(node->log, node->log_cap * sizeof(node->log[0]));
	}
	node->log[node->log_n++] = entry_ref(entry);
}

void node_log_cut(struct node *node, uint64_t keep)
{
	size_t drop = 0;

	while (drop < node->log_n && node->log_first + drop < keep)
		entry_unref(node->log[drop++]);
	node->log_n -= drop;
	node->log_first += drop;
	memmove(node->log, node->log + drop, node->log_n * sizeof(node->log[0]));
}

bool disk_has(const struct node *node, uint64_t index, uint64_t term)
{
	if (node->durable_index >= index)
		return true;
	return node->log_n > 0 && index >= node->log_first && index < node->log_first + node->log_n &&
	       node->log[index - node->log_first]->term == term;
}

static void op_free(struct disk_op *op)
{
	list_remove(&op->link);
	for (size_t i = 0; i < op->n; i++)
		entry_unref(op->entries[i]);
	free(op->entries);
	free(op);
}

static void take_copy(struct node *node, const struct state *state)
{
	node->state = *state;
	node->durable_index = state->triple.index;
	if (node->max_applied < state->triple.index)
		node->max_applied = state->triple.index;
	node->staged.triple.index = 0;
}

static void op_carry_out(struct node *node, const struct disk_op *op, size_t n)
{
	if (op->kind == DISK_WRITE && op->first <= node->max_applied)
		violation("node %" PRIu64 " cuts its log at %" PRIu64 ", it had applied %" PRIu64, node->id, op->first,
			  node->max_applied);
	if (op->kind != DISK_WRITE) {
		log_truncate(node, 0);
		node->log_first = op->first;
		return;
	}
	log_truncate(node, op->first);
	for (size_t i = 0; i < n; i++)
		log_append(node, op->entries[i]);
}

static void apply_pending(struct node *node, void *arg, uint64_t number);

static void disk_done(struct node *node, void *arg, uint64_t number)
{
	struct disk_op *op = arg;
	int kind = op->kind;

	(void)number;
	if (kind == DISK_INSTALL)
		take_copy(node, &op->state);
	op_carry_out(node, op, op->n);
	op_free(op);
	if (kind == DISK_WRITE) {
		core_stored(node->core);
	} else if (kind == DISK_INSTALL) {
		node->installing = false;
		counters.copies++;
		core_installed(node->core);
		for (uint64_t id = 1; id <= NODES; id++)
			if (removed_at[id] != 0 && removed_at[id] <= node->state.triple.index)
				core_set_removed(node->core, &id, 1);
	}
}

static struct disk_op *push_op(struct node *node, int kind, uint64_t first, int64_t took)
{
	struct disk_op *op = calloc(1, sizeof(*op));

	op->kind = kind;
	op->first = first;
	op->due = (now > node->disk_free_at ? now : node->disk_free_at) + took;
	node->disk_free_at = op->due;
	list_push(&node->ops, &op->link);
	sim_at(op->due, node, disk_done, op, 0);
	return op;
}

/* -- what the core asks for
 * --------------------------------------------------------------------------------------------------- */

static void io_vote(void *ctx, uint64_t term, uint64_t voted_for)
{
	struct node *node = ctx;

	if (term < node->term || (term == node->term && node->voted_for != 0 && node->voted_for != voted_for))
		violation("node %" PRIu64 " changes its vote of term %" PRIu64, node->id, term);
	node->term = term;
	node->voted_for = voted_for;
}

static void io_write(void *ctx, uint64_t first, struct entry *const *entries, size_t n)
{
	struct node *node = ctx;
	struct disk_op *op = push_op(node, DISK_WRITE, first, sim_tailed(4, 300));
	bool alone = node->state.triple.index > 0 && node->state.triple.conf.n == 1;

	op->n = n;
	op->entries = malloc(n * sizeof(op->entries[0]));
	for (size_t i = 0; i < n; i++) {
		if (!alone) /* a single voter keeps its term over a restart (R10): what it lost nobody has seen */
			check_entry(entries[i]);
		op->entries[i] = entry_ref(entries[i]);
	}
}

static void io_log_reset(void *ctx, uint64_t next)
{
	push_op(ctx, DISK_RESET, next, 1);
}

static bool io_send(void *ctx, uint64_t to, const struct peer_message *message)
{
	return net_send(ctx, to, message);
}

static size_t io_queued(void *ctx, uint64_t to)
{
	return net_queued(ctx, to);
}

struct wanted {
	uint64_t peer, first;
};

static void log_read(struct node *node, void *arg, uint64_t first)
{
	uint64_t peer = (uint64_t)(uintptr_t)arg;
	size_t n = 0;

	if (node->log_n > 0 && first >= node->log_first && first < node->log_first + node->log_n)
		n = node->log_first + node->log_n - first;
	if (n > PEER_ENTRIES_MAX)
		n = PEER_ENTRIES_MAX;
	counters.disk_reads++;
	core_read_log(node->core, peer, n > 0 ? node->log + (first - node->log_first) : NULL, n);
}

static void io_read_log(void *ctx, uint64_t peer, uint64_t first, size_t max_bytes)
{
	(void)max_bytes;
	sim_at(now + sim_tailed(2, 50), ctx, log_read, (void *)(uintptr_t)peer, first);
}

static void io_apply(void *ctx, struct entry *const *entries, size_t n)
{
	struct node *node = ctx;

	if (node->queue_n + n > node->queue_cap) {
		node->queue_cap = (node->queue_n + n) * 2;
		node->queue = realloc(node->queue, node->queue_cap * sizeof(node->queue[0]));
	}
	for (size_t i = 0; i < n; i++)
		node->queue[node->queue_n++] = entry_ref(entries[i]);
	if (!node->apply_due) {
		node->apply_due = true;
		sim_at(now + sim_tailed(3, 60), node, apply_pending, NULL, 0);
	}
}

static void apply_one(struct node *node, const struct entry *entry)
{
	struct state *state = &node->state;

	if (entry->index != state->triple.index + 1)
		violation("node %" PRIu64 " applies %" PRIu64 " after %" PRIu64, node->id, entry->index,
			  state->triple.index);
	state->triple.index = entry->index;
	state->triple.term = entry->term;
	if (entry->type == ENTRY_CHANGE) {
		state->triple.conf_index = entry->index;
		if (conf_decode(entry->data, entry->len, &state->triple.conf, NULL) != CODE_OK)
			violation("a malformed change is applied");
	}
	state->digest = next_digest(state->digest, entry);
	check_applied(entry, state->digest);
	if (node->max_applied < entry->index)
		node->max_applied = entry->index;
}

static void apply_pending(struct node *node, void *arg, uint64_t number)
{
	(void)arg;
	(void)number;
	node->apply_due = false;
	if (node->installing && node->queue_n > 0 && node->queue[0]->index > node->state.triple.index + node->queue_n)
		violation("applied while a copy is installed");
	for (size_t i = 0; i < node->queue_n; i++) {
		if (node->queue[i]->index > node->state.triple.index) /* else a copy has jumped over it */
			apply_one(node, node->queue[i]);
		entry_unref(node->queue[i]);
	}
	node->queue_n = 0;
}

static void io_fate(void *ctx, struct core_submission *base, enum core_fate fate)
{
	struct submission *submission = LIST_ITEM(base, struct submission, base);

	(void)ctx;
	if (fate == CORE_COMMITTED && submission->base.index > acked)
		acked = submission->base.index;
	if (fate == CORE_COMMITTED && killed_ms > 0) {
		printf("stall %" PRId64 "\n", now - killed_ms);
		killed_ms = 0;
	}
	if (fate == CORE_LOST)
		check_lost(submission->base.index, submission->base.term);
	if (fate == CORE_UNKNOWN)
		counters.doubtful++;
	list_remove(&submission->mine);
	free(submission);
}

static void io_role(void *ctx, const struct core_role *role)
{
	struct node *node = ctx;

	if (role->role == CORE_LEADER && (node->role.role != CORE_LEADER || node->role.term != role->term)) {
		check_leader(role->term, node->id);
		counters.elections++;
		node->checked_commit = UINT64_MAX; /* what it knows already another leader has committed */
		if (options.verbose)
			printf("%8" PRId64 " node %" PRIu64 " leads in term %" PRIu64 "\n", now, node->id, role->term);
	}
	node->role = *role;
}

static void io_conf(void *ctx, uint64_t index, const struct conf *conf, bool committed)
{
	struct node *node = ctx;

	if (!options.verbose || !committed)
		return;
	printf("%8" PRId64 " node %" PRIu64 " has the configuration of %" PRIu64 ":", now, node->id, index);
	for (unsigned i = 0; i < conf->n; i++)
		printf(" %" PRIu64 "%s", conf->servers[i].id, conf->servers[i].role == CONF_VOTER ? "" : "(s)");
	printf("\n");
}

/* A copy of the state, beside the core: a second stream that lives or dies with the connection. */
static void copy_arrived(struct node *node, void *arg, uint64_t peer)
{
	struct state *state = arg;
	struct node *to = &nodes[peer];

	node->copying[peer] = false;
	if (to->up && !net_blocked(node->id, peer) && !net_blocked(peer, node->id) && sim_chance(900)) {
		to->staged = *state;
		core_copy_sent(node->core, peer, &state->triple);
	}
	free(state);
}

static void io_copy_wanted(void *ctx, uint64_t peer, uint64_t at_least)
{
	struct node *node = ctx;
	struct state *state;

	if (node->copying[peer] || node->state.triple.index < at_least)
		return;
	state = malloc(sizeof(*state));
	*state = node->state;
	node->copying[peer] = true;
	sim_at_own(now + sim_between(50, 3000), node, copy_arrived, state, peer);
}

static bool io_copy_ready(void *ctx, const struct core_triple *triple)
{
	struct node *node = ctx;

	return node->staged.triple.index == triple->index && node->staged.triple.term == triple->term;
}

static void io_install(void *ctx, const struct core_triple *triple)
{
	struct node *node = ctx;
	struct disk_op *op = push_op(node, DISK_INSTALL, triple->index + 1, sim_tailed(30, 1500));

	op->state = node->staged;
	if (op->state.triple.index != triple->index)
		violation("another copy is to be installed than there is");
	if (committed_digest(triple->index) != op->state.digest)
		violation("a copy at %" PRIu64 " differs from what was applied there", triple->index);
	node->installing = true;
}

__attribute__((noreturn)) static void io_fatal(void *ctx, const char *why)
{
	violation("node %" PRIu64 ": %s", ((struct node *)ctx)->id, why);
}

static const struct core_io io = { io_vote,        io_write,      io_log_reset, io_send, io_queued,
				   io_read_log,    io_apply,      io_fate,      io_role, io_conf,
				   io_copy_wanted, io_copy_ready, io_install,   io_fatal };

/* -- turns of the loop
 * ---------------------------------------------------------------------------------------------------------- */

static void timer(struct node *node, void *arg, uint64_t at)
{
	(void)arg;
	if (node->timer_at == (int64_t)at)
		node->timer_at = 0;
}

void node_begin_turn(struct node *node)
{
	if (now > node->last_turn || node->last_turn == 0)
		core_tick(node->core, now);
	node->last_turn = now;
}

void node_turn(struct node *node)
{
	int64_t due;

	if (node->core == NULL)
		return;
	core_flush(node->core);
	check_commit(node);
	due = core_deadline(node->core);
	if (due <= now)
		violation("node %" PRIu64 " would spin", node->id);
	if (node->timer_at == 0 || due < node->timer_at) {
		node->timer_at = due;
		sim_at(due, node, timer, NULL, (uint64_t)due);
	}
}

/* -- life
 * ------------------------------------------------------------------------------------------------------------------------
 */

void node_boot(struct node *node)
{
	struct core_options with = { .id = node->id,
				     .election_ms = 300,
				     .memory = node->memory,
				     .now_ms = now,
				     .io = &io,
				     .ctx = node,
				     .without = options.without };
	struct core_recovered found = { .term = node->term,
					.voted_for = node->voted_for,
					.state = node->state.triple,
					.first = node->log_n > 0 ? node->log_first : 0,
					.entries = node->log,
					.n = node->log_n };
	struct err err = { 0 };
	uint64_t removed[NODES];

	for (uint64_t id = 1; id <= NODES; id++) /* this list is part of the replicated state */
		if (removed_at[id] != 0 && removed_at[id] <= node->state.triple.index)
			removed[found.n_removed++] = id;
	found.removed = removed;
	node->up = node->exists = true;
	node->life++;
	list_init(&node->ops);
	list_init(&node->subs);
	list_init(&node->reads);
	node->disk_free_at = now;
	node->timer_at = node->paused_until = 0;
	node->apply_due = node->installing = node->changing = node->transferring = false;
	node->checked_commit = 0;
	memset(&node->role, 0, sizeof(node->role));
	memset(node->copying, 0, sizeof(node->copying));
	node->last_turn = now;
	if (core_start(&with, &found, &node->core, &err) != CODE_OK)
		violation("node %" PRIu64 " does not start: %s", node->id, err.text);
	node_turn(node);
}

/* The first write that was under way may be torn: truncation first, then entries in order. */
static void tear(struct node *node)
{
	struct disk_op *op;

	if (list_empty(&node->ops))
		return;
	op = LIST_ITEM(node->ops.next, struct disk_op, link);
	if (op->kind == DISK_WRITE) {
		if (sim_chance(600))
			op_carry_out(node, op, sim_rand(op->n + 1));
	} else if (op->kind == DISK_INSTALL) {
		if (sim_chance(500)) { /* renamed; the log is dropped or not yet */
			take_copy(node, &op->state);
			if (sim_chance(500))
				op_carry_out(node, op, 0);
		}
	} else if (sim_chance(500)) {
		op_carry_out(node, op, 0);
	}
}

void node_crash(struct node *node, bool power)
{
	tear(node);
	core_free(node->core);
	node->core = NULL;
	node->up = false;
	node->life++;
	while (!list_empty(&node->ops))
		op_free(LIST_ITEM(node->ops.next, struct disk_op, link));
	while (!list_empty(&node->subs)) {
		struct submission *submission = LIST_ITEM(node->subs.next, struct submission, mine);

		list_remove(&submission->mine);
		free(submission);
	}
	while (!list_empty(&node->reads)) {
		struct read *read = LIST_ITEM(node->reads.next, struct read, mine);

		list_remove(&read->mine);
		free(read);
	}
	for (size_t i = 0; i < node->queue_n; i++)
		entry_unref(node->queue[i]);
	node->queue_n = 0;
	if (power &&
	    node->state.triple.index > node->durable_index) { /* the state file goes back, not behind a checkpoint */
		uint64_t index = node->durable_index + sim_rand(node->state.triple.index - node->durable_index + 1);

		if (index == 0) {
			memset(&node->state, 0, sizeof(node->state));
		} else {
			node->state.triple = *committed_triple(index);
			node->state.digest = committed_digest(index);
		}
	}
	if (sim_chance(300))
		node->staged.triple.index = 0;
	for (uint64_t i = 1; i <= NODES; i++)
		if (i != node->id)
			net_reset(node->id, i);
	counters.crashes++;
}

/* A planned end of the process: everything that was queued is synced. */
void node_stop(struct node *node)
{
	while (!list_empty(&node->ops)) {
		struct disk_op *op = LIST_ITEM(node->ops.next, struct disk_op, link);

		if (op->kind == DISK_INSTALL)
			take_copy(node, &op->state);
		op_carry_out(node, op, op->n);
		op_free(op);
	}
	node_crash(node, false);
	counters.crashes--;
}

void node_free(struct node *node)
{
	if (node->up)
		node_crash(node, false);
	log_truncate(node, 0);
	free(node->log);
	free(node->queue);
}
