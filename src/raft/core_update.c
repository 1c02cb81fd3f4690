/* SPDX-License-Identifier: Apache-2.0 */
/* What the library wants done after a step, in the order of libraft-core.md 1.3, and what comes back when it is done.
 * Rules kept here: R1, R13, R14, R15. */
#include "raft/core_inside.h"

#include "base/arena.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* -- writes under way ---------------------------------------------------------------------------------------------- */

static struct core_write *write_at(struct core *core, size_t i)
{
	return &core->writes[(core->writes_front + i) % core->cap_writes];
}

static void push_write(struct core *core, uint64_t first, uint64_t last)
{
	if (core->n_writes == core->cap_writes) {
		size_t cap = core->cap_writes * 2 + 16;
		struct core_write *writes = xmalloc(cap * sizeof(*writes));

		for (size_t i = 0; i < core->n_writes; i++)
			writes[i] = *write_at(core, i);
		free(core->writes);
		core->writes = writes;
		core->cap_writes = cap;
		core->writes_front = 0;
	}
	core->n_writes++;
	*write_at(core, core->n_writes - 1) = (struct core_write){ first, last, false };
}

/* R1: of a write that has ended only that is durable and current which no later write, queued meanwhile, will replace.
 * The library believes what it is told, so it is told no more; and nothing while a copy is being installed. */
static void report(struct core *core, const struct core_write *done)
{
	struct raft_event event = { .type = RAFT_PERSISTED_ENTRIES };
	uint64_t upto = done->last;

	if (done->stale || core->installing)
		return;
	for (size_t i = 0; core_rule(core, 1) && i < core->n_writes; i++)
		if (!write_at(core, i)->stale && write_at(core, i)->first - 1 < upto)
			upto = write_at(core, i)->first - 1;
	if (upto > mirror_last(core->mirror)) /* only without R1 */
		upto = mirror_last(core->mirror);
	if (upto <= core->durable)
		return;
	core->durable = upto;
	event.persisted_entries.index = upto;
	core_step(core, &event, NULL, 0);
}

void core_stored(struct core *core)
{
	struct core_write done;

	if (core->n_writes == 0)
		core_fatal(core, "a log write has ended that was not begun");
	done = *write_at(core, 0);
	core->writes_front = (core->writes_front + 1) % core->cap_writes;
	core->n_writes--;
	report(core, &done);
	core_settle(core);
}

/* -- 2. entries ------------------------------------------------------------------------------------------------------
 */

/* The library's array is the tail of the one that was handed in, or the barrier that it made itself. */
static struct entry *take_entry(const struct raft_update *update, unsigned i, struct entry *const *pending,
				unsigned n_pending)
{
	const struct raft_entry *made = &update->entries.batch[i];

	if (n_pending > 0)
		return entry_ref(pending[n_pending - update->entries.n + i]);
	return entry_new(update->entries.index + i, made->term, (uint8_t)made->type, made->buf.base, made->buf.len);
}

static void tell_new_confs(struct core *core, uint64_t first, uint64_t conf_before)
{
	const struct mirror_conf *last = mirror_conf_last(core->mirror);

	if (last == NULL)
		return;
	if (last->index >= first || last->index != conf_before) {
		core_peers_sync(core);
		core->io->conf(core->ctx, last->index, &last->conf, last->index <= core->given);
	}
}

static void write_entries(struct core *core, const struct raft_update *update, struct entry *const *pending,
			  unsigned n_pending)
{
	uint64_t first = update->entries.index;
	unsigned n = update->entries.n;
	const struct mirror_conf *conf = mirror_conf_last(core->mirror);
	uint64_t conf_before = conf != NULL ? conf->index : 0;
	struct entry *entries[PEER_ENTRIES_MAX];

	assert(n > 0 && n <= PEER_ENTRIES_MAX && (n_pending == 0 || n <= n_pending));
	for (unsigned i = 0; i < n; i++) {
		entries[i] = take_entry(update, i, pending, n_pending);
		if (entries[i]->index != first + i)
			core_fatal(core, "entry %" PRIu64 " would be written at %" PRIu64, entries[i]->index,
				   first + i);
	}
	raft_free(update->entries.batch[0].batch);
	if (first <= core->handed)
		core_fatal(core, "the log would be cut at %" PRIu64 ", below what was applied (%" PRIu64 ")", first,
			   core->handed);
	mirror_write(core->mirror, first, entries, n);
	if (core->durable >= first)
		core->durable = first - 1;
	push_write(core, first, first + n - 1);
	core->io->write(core->ctx, first, entries, n);
	for (unsigned i = 0; i < n; i++)
		entry_unref(entries[i]);
	tell_new_confs(core, first, conf_before);
}

/* -- 3. copies of the state ---------------------------------------------------------------------------------------- */

static void conf_from_raft(struct core *core, const struct raft_configuration *from, struct conf *out)
{
	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < from->n; i++)
		if (conf_add(out, from->servers[i].id, from->servers[i].address, (uint8_t)from->servers[i].role,
			     NULL) != CODE_OK)
			core_fatal(core, "a configuration came back malformed");
}

static void begin_install(struct core *core, const struct raft_update *update)
{
	const struct raft_snapshot_metadata *metadata = &update->snapshot.metadata;

	core->install.index = metadata->index;
	core->install.term = metadata->term;
	core->install.conf_index = metadata->configuration_index;
	conf_from_raft(core, &metadata->configuration, &core->install.conf);
	raft_configuration_close((struct raft_configuration *)&metadata->configuration);
	raft_free(update->snapshot.chunk.base);
	if (core->install.index < core->handed)
		core_fatal(core, "a copy at %" PRIu64 " would go back behind what was applied (%" PRIu64 ")",
			   core->install.index, core->handed);
	core->installing = true;
	for (size_t i = 0; i < core->n_writes; i++)
		write_at(core, i)->stale = true;
	core->io->install(core->ctx, &core->install);
}

static void forget_submissions(struct core *core, struct link *list, uint64_t upto)
{
	LIST_FOR_SAFE (item, list) {
		struct core_submission *submission = LIST_ITEM(item, struct core_submission, link);

		if (submission->index > upto)
			continue;
		list_remove(item);
		core->io->fate(core->ctx, submission, CORE_UNKNOWN);
	}
}

void core_installed(struct core *core)
{
	struct raft_event event = { .type = RAFT_PERSISTED_SNAPSHOT };
	struct raft_snapshot_metadata *metadata = &event.persisted_snapshot.metadata;
	uint64_t index = core->install.index;

	if (!core->installing)
		core_fatal(core, "a copy was installed that was not asked for");
	metadata->index = index;
	metadata->term = core->install.term;
	metadata->configuration_index = core->install.conf_index;
	core_raft_conf(&core->install.conf, &metadata->configuration);
	event.persisted_snapshot.last = true;
	mirror_restore(core->mirror, &core->install);
	core->installing = false;
	core->durable = core->handed = core->given = index;
	core_peers_sync(core);
	core_step(core, &event, NULL, 0);
	core->io->conf(core->ctx, core->install.conf_index, &core->install.conf, true);
	forget_submissions(core, &core->doubtful, index);
	core_settle(core);
}

/* R13: only what the library knows to be committed, and whose changes it was told to be, may become its snapshot. */
uint64_t core_snapshot(struct core *core, const struct core_triple *state, uint64_t trailing)
{
	struct raft_event event = { .type = RAFT_SNAPSHOT };
	struct raft_snapshot_metadata *metadata = &event.snapshot.metadata;

	if (core->installing || state->index <= mirror_snapshot_index(core->mirror))
		return 0;
	if (core_rule(core, 13) && (state->index > core->handed || state->index > core->given))
		return 0;
	if (mirror_term_of(core->mirror, state->index) != state->term)
		core_fatal(core, "the state says term %" PRIu64 " at %" PRIu64 ", the log says %" PRIu64, state->term,
			   state->index, mirror_term_of(core->mirror, state->index));
	metadata->index = state->index;
	metadata->term = state->term;
	metadata->configuration_index = state->conf_index;
	core_raft_conf(&state->conf, &metadata->configuration);
	event.snapshot.trailing = trailing < UINT32_MAX ? (unsigned)trailing : UINT32_MAX;
	mirror_snapshot(core->mirror, state->index, trailing);
	core_step(core, &event, NULL, 0);
	core_settle(core);
	return mirror_first(core->mirror);
}

/* -- 5. role ---------------------------------------------------------------------------------------------------------
 */

static void lost_leadership(struct core *core)
{
	core_streams_reset(core);
	while (!list_empty(&core->submissions)) { /* the result is unknown, not "failed" */
		struct link *item = core->submissions.next;

		list_remove(item);
		list_push(&core->doubtful, item);
	}
	core->barrier_due = false;
	reads_fail(core);
	member_lost(core);
}

void core_notice_role(struct core *core)
{
	struct core_role now = { .role = (int)raft_state(&core->raft), .term = raft_current_term(&core->raft) };
	struct core_role before = core->role;
	const char *address;
	raft_id leader;

	raft_leader(&core->raft, &leader, &address);
	now.leader = now.role == CORE_LEADER ? core->id : leader;
	now.ready = core_ready(core);
	if (now.role == before.role && now.term == before.term && now.leader == before.leader &&
	    now.ready == before.ready)
		return;
	core->role = now;
	if (before.role == CORE_LEADER && (now.role != CORE_LEADER || now.term != before.term))
		lost_leadership(core);
	if (now.role == CORE_LEADER && (before.role != CORE_LEADER || now.term != before.term))
		core->barrier_due = true; /* R6 */
	/* Who has voted for another lets him win. */
	if (core->died.leader != 0 &&
	    (now.leader != core->died.leader || (now.term != before.term && raft_voted_for(&core->raft) != 0)))
		core->died.leader = 0;
	core->io->role(core->ctx, &now);
}

/* -- all of it -------------------------------------------------------------------------------------------------------
 */

void core_update(struct core *core, const struct raft_update *update, struct entry *const *pending, unsigned n_pending)
{
	unsigned flags = update->flags;

	if ((flags & ((RAFT_UPDATE_CURRENT_TERM) | (RAFT_UPDATE_VOTED_FOR))) != 0) {
		if (raft_voted_for(&core->raft) == core->id)
			core->elections++;
		core->io->vote(core->ctx, raft_current_term(&core->raft), raft_voted_for(&core->raft));
	}
	if ((flags & (RAFT_UPDATE_ENTRIES)) != 0)
		write_entries(core, update, pending, n_pending);
	if ((flags & (RAFT_UPDATE_SNAPSHOT)) != 0)
		begin_install(core, update);
	if ((flags & (RAFT_UPDATE_MESSAGES)) != 0 || update->messages.n > 0)
		for (unsigned i = 0; i < update->messages.n; i++)
			core_send_message(core, &update->messages.batch[i]);
}
