/* SPDX-License-Identifier: Apache-2.0 */
/* The core of consensus: life, time, submissions, what follows from a step. See core.h and core_inside.h. Rules kept
 * here: R4, R6, R7, R13, R14, R20, R21. */
#include "raft/core_inside.h"

#include "base/arena.h"
#include "base/rand.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void core_fatal(struct core *core, const char *fmt, ...)
{
	char why[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, sizeof(why), fmt, args);
	va_end(args);
	core->io->fatal(core->ctx, why);
}

/* -- small views ------------------------------------------------------------------------------------------------- */

bool core_is_leader(const struct core *core)
{
	return raft_state((struct raft *)&core->raft) == RAFT_LEADER;
}

uint64_t core_commit(const struct core *core)
{
	return raft_commit_index(&core->raft);
}

bool core_ready(const struct core *core)
{
	return core_is_leader(core) && core_commit(core) > 0 &&
	       mirror_term_of(core->mirror, core_commit(core)) == raft_current_term(&core->raft);
}

const struct conf *core_newest_conf(const struct core *core)
{
	static const struct conf none;
	const struct mirror_conf *last = mirror_conf_last(core->mirror);

	return last != NULL ? &last->conf : &none;
}

uint64_t core_match(const struct core *core, uint64_t id)
{
	raft_index index = 0;

	if (id == core->id)
		return core->durable;
	if (raft_match_index(&core->raft, id, &index) != 0)
		return 0;
	return index;
}

void core_raft_conf(const struct conf *conf, struct raft_configuration *out)
{
	raft_configuration_init(out);
	for (unsigned i = 0; i < conf->n; i++)
		if (raft_configuration_add(out, conf->servers[i].id, conf->servers[i].address, conf->servers[i].role) !=
		    0)
			abort();
}

uint64_t core_term_of(const struct core *core, uint64_t index)
{
	return mirror_term_of(core->mirror, index);
}

struct core_peer *core_peer_get(struct core *core, uint64_t id)
{
	for (unsigned i = 0; i < core->n_peers; i++)
		if (core->peers[i].id == id)
			return &core->peers[i];
	return NULL;
}

/* The peers are the other members of the newest configuration; who stays keeps what is known of it. */
void core_peers_sync(struct core *core)
{
	const struct conf *conf = core_newest_conf(core);
	struct core_peer peers[CONF_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < conf->n; i++) {
		struct core_peer *known = core_peer_get(core, conf->servers[i].id);

		if (conf->servers[i].id == core->id)
			continue;
		peers[n++] = known != NULL ? *known : (struct core_peer){ .id = conf->servers[i].id, .contact_ms = -1 };
	}
	memcpy(core->peers, peers, n * sizeof(peers[0]));
	core->n_peers = n;
}

/* -- removed members (R12) --------------------------------------------------------------------------------------- */

bool core_is_removed(const struct core *core, uint64_t id)
{
	for (size_t i = 0; i < core->n_removed; i++)
		if (core->removed[i] == id)
			return true;
	return false;
}

static void add_removed(struct core *core, uint64_t id)
{
	if (core_is_removed(core, id))
		return;
	if (core->n_removed == core->cap_removed) {
		core->cap_removed = core->cap_removed * 2 + 8;
		core->removed = xrealloc(core->removed, core->cap_removed * sizeof(core->removed[0]));
	}
	core->removed[core->n_removed++] = id;
}

void core_set_removed(struct core *core, const uint64_t *ids, size_t n)
{
	for (size_t i = 0; i < n; i++)
		add_removed(core, ids[i]);
}

/* -- one step ---------------------------------------------------------------------------------------------------- */

static bool is_clients_error(const struct raft_event *event, int rv)
{
	if (event->type != RAFT_SUBMIT && event->type != RAFT_TRANSFER)
		return false;
	return rv == RAFT_NOTLEADER || rv == RAFT_NOSPACE || rv == RAFT_CANTCHANGE || rv == RAFT_BADID ||
	       rv == RAFT_NOTFOUND;
}

int core_step(struct core *core, struct raft_event *event, struct entry *const *pending, unsigned n_pending)
{
	struct raft_update update;
	int rv;

	if (core->stepping)
		core_fatal(core, "the consensus core was entered from one of its callbacks");
	core->stepping = true;
	event->time = (raft_time)core->now;
	event->capacity = core->capacity;
	rv = raft_step(&core->raft, event, &update);
	if (rv != 0 && !is_clients_error(event, rv))
		core_fatal(core, "the consensus core failed in event %d: %s (%s)", (int)event->type, raft_strerror(rv),
			   raft_errmsg(&core->raft));
	if (rv == 0) {
		core_update(core, &update, pending, n_pending);
		core_notice_role(core);
	}
	core->stepping = false;
	return rv;
}

void core_step_timeout(struct core *core)
{
	struct raft_event event = { .type = RAFT_TIMEOUT };

	core_step(core, &event, NULL, 0);
}

/* -- what follows from a step ------------------------------------------------------------------------------------- */

static void note_removed(struct core *core, const struct mirror_conf *change)
{
	const struct mirror_conf *before = mirror_conf_at(core->mirror, change->index - 1);

	if (before == NULL)
		return;
	for (unsigned i = 0; i < before->conf.n; i++)
		if (conf_get(&change->conf, before->conf.servers[i].id) == NULL)
			add_removed(core, before->conf.servers[i].id);
}

/* The library learns only from us that a change is committed. Answers whether there was one. */
static bool give_next_conf(struct core *core)
{
	const struct mirror_conf *change = mirror_conf_after(core->mirror, core->given);
	struct raft_event event = { .type = RAFT_CONFIGURATION };
	struct mirror_conf copy;

	if (core->installing) /* R14 */
		return false;
	if (change == NULL || change->index > core_commit(core)) {
		if (core_commit(core) > core->given)
			core->given = core_commit(core);
		return false;
	}
	copy = *change;
	event.configuration.index = copy.index;
	core_raft_conf(&copy.conf, &event.configuration.conf);
	core->given = copy.index;
	note_removed(core, &copy);
	core_step(core, &event, NULL, 0);
	core->io->conf(core->ctx, copy.index, &copy.conf, true);
	return true;
}

static void tell_fates(struct core *core, struct link *list, uint64_t upto, bool all)
{
	LIST_FOR_SAFE (item, list) {
		struct core_submission *submission = LIST_ITEM(item, struct core_submission, link);

		if (submission->index > upto) {
			if (!all)
				break;
			continue;
		}
		list_remove(item);
		core->io->fate(core->ctx, submission,
			       mirror_term_of(core->mirror, submission->index) == submission->term ? CORE_COMMITTED
												   : CORE_LOST);
	}
}

/* R4: what is committed is applied only once this node has it on disk too; else a crash would leave a state that is
 * ahead of its log, which a new leader may then seem to truncate. R14: nothing while a copy is being installed. */
static void hand_on(struct core *core)
{
	uint64_t upto = core_commit(core) < core->given ? core_commit(core) : core->given; /* R13 */
	struct entry *entries[128];

	if (core_rule(core, 4) && upto > core->durable)
		upto = core->durable;
	if (core->installing)
		return;
	while (core->handed < upto) {
		size_t room = upto - core->handed < 128 ? upto - core->handed : 128;
		size_t n = mirror_entries_at(core->mirror, core->handed + 1, room, SIZE_MAX, entries);

		if (n == 0)
			core_fatal(core, "entry %" PRIu64 " is to be applied but not in memory", core->handed + 1);
		tell_fates(core, &core->submissions, core->handed + n, false);
		tell_fates(core, &core->doubtful, core->handed + n, true);
		core->io->apply(core->ctx, entries, n);
		core->handed += n;
		mirror_mark(core->mirror, core->handed);
	}
}

/* R6: without an entry of its own term a leader may not change members nor confirm reads; the library appends one only
 * when its log is longer than what it knows to be committed. */
static void submit_barrier(struct core *core)
{
	static const uint8_t zeros[8];
	struct entry *entry;

	core->barrier_due = false;
	if (!core_is_leader(core) || mirror_last_term(core->mirror) == raft_current_term(&core->raft))
		return;
	entry = entry_new(mirror_last(core->mirror) + 1, raft_current_term(&core->raft), ENTRY_BARRIER, zeros,
			  sizeof(zeros));
	if (core_submit_entries(core, &entry, 1) != 0)
		core->barrier_due = true; /* handing over, or no space: again with the next settling */
	entry_unref(entry);
}

void core_settle(struct core *core)
{
	if (core->barrier_due)
		submit_barrier(core);
	while (give_next_conf(core))
		if (core->barrier_due)
			submit_barrier(core);
	hand_on(core);
	core_notice_role(core);
	member_check(core);
	reads_check(core);
	while (give_next_conf(core)) /* a change that a single step has committed */
		hand_on(core);
	hand_on(core);
	member_tell(core);
	reads_tell(core);
}

/* -- start ------------------------------------------------------------------------------------------------------- */

struct entry *core_founding_entry(const struct conf *conf)
{
	OWN_BUF bytes = { 0 };

	conf_encode(conf, &bytes);
	return entry_new(1, 1, ENTRY_CHANGE, bytes.data, bytes.len);
}

static enum code check_entries(const struct core_recovered *found, struct err *err)
{
	uint64_t term = 1;
	struct conf conf;

	for (size_t i = 0; i < found->n; i++) {
		const struct entry *entry = found->entries[i];

		if (entry->index != found->first + i || entry->term < term || entry->term > INT64_MAX)
			return err_set(err, CODE_DATA_LOSS,
				       "the log's entry %" PRIu64 " does not follow the one before it",
				       found->first + i);
		term = entry->term;
		if (entry->type == ENTRY_CHANGE && conf_decode(entry->data, entry->len, &conf, err) != CODE_OK)
			return err_wrap(err, CODE_DATA_LOSS, "the log's entry %" PRIu64, entry->index);
	}
	if (found->n > 0 && term > found->term)
		return err_set(err, CODE_DATA_LOSS,
			       "the log has entries of term %" PRIu64 " but the vote record says term %" PRIu64
			       ": it was lost or rolled back",
			       term, found->term);
	return CODE_OK;
}

static enum code check_recovered(const struct core_recovered *found, struct err *err)
{
	TRY(check_entries(found, err));
	if (found->term == 0 && (found->voted_for != 0 || found->state.index != 0))
		return err_set(err, CODE_DATA_LOSS, "there is a state but no vote record");
	if (found->state.term > found->term)
		return err_set(err, CODE_DATA_LOSS,
			       "the state is of term %" PRIu64 " but the vote record says term %" PRIu64
			       ": it was lost or rolled back",
			       found->state.term, found->term);
	if (found->n > 0 && found->first > found->state.index + 1)
		return err_set(err, CODE_DATA_LOSS,
			       "the log begins at %" PRIu64 " but the state ends at %" PRIu64
			       ": entries between them are missing",
			       found->first, found->state.index);
	if (found->n > 0 && found->first == 0)
		return err_set(err, CODE_DATA_LOSS, "the log begins at 0");
	if (found->state.index == 0 && found->n > 0 && found->entries[0]->type != ENTRY_CHANGE)
		return err_set(err, CODE_DATA_LOSS, "the log does not begin with a configuration");
	return CODE_OK;
}

/* A state that is ahead of the log, or of another history at its index, comes from a copy whose installation was cut
 * short between rename and log drop: the log goes (libraft-core.md 1.4). */
static bool log_is_stale(const struct core_recovered *found)
{
	uint64_t index = found->state.index;

	if (found->n == 0 || index == 0 || found->first == index + 1)
		return false;
	return found->first + found->n - 1 < index || found->entries[index - found->first]->term != found->state.term;
}

static void init_raft(struct core *core, const struct core_options *options)
{
	memset(&core->raft, 0, sizeof(core->raft));
	if (raft_init(&core->raft, NULL, NULL, options->id, "self") != 0)
		abort();
	core->raft.tracer = NULL;
	raft_seed(&core->raft, (unsigned)rand_u64());
	raft_set_election_timeout(&core->raft, core->election);
	raft_set_heartbeat_timeout(&core->raft, core->heartbeat);
	/* Soon, for all that it does is to ask the replica again, which ignores it while a copy is under way: a
	 * rejection does not do it once the leader's own snapshot has moved on. */
	raft_set_install_snapshot_timeout(&core->raft, 2 * core->election);
	raft_set_pre_vote(&core->raft, false);               /* R20 */
	raft_set_max_inflight_entries(&core->raft, 1000000); /* R16, R17 */
	raft_set_capacity_threshold(&core->raft, options->min_capacity);
}

static struct core *core_new(const struct core_options *options)
{
	struct core *core = xcalloc(1, sizeof(*core));

	assert(options->election_ms >= 12 && options->id > 0);
	core->io = options->io;
	core->ctx = options->ctx;
	core->id = options->id;
	core->without = options->without;
	core->now = options->now_ms;
	core->election = options->election_ms;
	core->heartbeat = options->election_ms / 6;
	core->capacity = UINT16_MAX;
	core->role.role = CORE_FOLLOWER;
	core->mirror = mirror_new(options->memory > 0 ? options->memory : 64 << 20);
	list_init(&core->submissions);
	list_init(&core->doubtful);
	reads_init(&core->reads);
	init_raft(core, options);
	return core;
}

static void step_start(struct core *core, const struct core_recovered *found, uint64_t first, size_t n)
{
	struct raft_event event = { .type = RAFT_START };
	struct raft_snapshot_metadata metadata = { .index = found->state.index, .term = found->state.term };
	struct raft_entry *entries = xcalloc(n + 1, sizeof(*entries));

	for (size_t i = 0; i < n; i++) { /* of the payloads the library reads only those of changes */
		struct entry *entry = found->entries[i];

		entries[i].term = entry->term;
		entries[i].type = (enum raft_entry_type)entry->type;
		entries[i].buf = (struct raft_buffer){ entry->data, entry->len };
	}
	if (found->state.index > 0) {
		metadata.configuration_index = found->state.conf_index;
		core_raft_conf(&found->state.conf, &metadata.configuration);
		event.start.metadata = &metadata;
	}
	event.start.term = found->term;
	event.start.voted_for = found->voted_for;
	event.start.start_index = first;
	event.start.entries = entries;
	event.start.n_entries = (unsigned)n;
	core_step(core, &event, NULL, 0);
	free(entries);
}

enum code core_start(const struct core_options *options, const struct core_recovered *found, struct core **out,
		     struct err *err)
{
	const struct conf *conf;
	struct core *core;
	uint64_t first;
	bool stale;
	size_t n;

	TRY(check_recovered(found, err));
	stale = log_is_stale(found);
	n = stale ? 0 : found->n;
	first = n > 0 ? found->first : found->state.index + 1;
	core = core_new(options);
	mirror_start(core->mirror, &found->state, first, found->entries, n);
	conf = core_newest_conf(core);
	if (conf->n > 1 && conf_voters(conf) < 2) { /* R10 */
		core_free(core);
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "one voter beside other members is no safe configuration");
	}
	core->durable = mirror_last(core->mirror);
	core->given = core->handed = found->state.index;
	core_set_removed(core, found->removed, found->n_removed);
	core_peers_sync(core);
	if (stale)
		core->io->log_reset(core->ctx, first);
	step_start(core, found, first, n);
	core->started = true;
	core_settle(core);
	*out = core;
	return CODE_OK;
}

void core_free(struct core *core)
{
	if (core == NULL)
		return;
	raft_close(&core->raft, NULL);
	mirror_free(core->mirror);
	free(core->writes);
	free(core->removed);
	free(core);
}

/* -- time -------------------------------------------------------------------------------------------------------- */

/* Steps the message that the dead leader would have sent had it handed over (libraft-core.md 1.4). The library does
 * nothing when an entry is still being written: then again a moment later. */
static void campaign_for_dead(struct core *core)
{
	struct raft_message message = { .type = RAFT_TIMEOUT_NOW,
					.server_id = core->died.leader,
					.server_address = "-" };
	struct raft_event event = { .type = RAFT_RECEIVE, .receive.message = &message };
	raft_id leader;
	const char *address;

	raft_leader(&core->raft, &leader, &address);
	if (core->role.role != CORE_FOLLOWER || leader != core->died.leader || core->installing ||
	    !conf_is_voter(core_newest_conf(core), core->id) || core->now >= core->died.until_ms) {
		core->died.leader = 0;
		return;
	}
	if (core->durable < mirror_last(core->mirror)) {
		core->died.at_ms = core->now + 2;
		return;
	}
	message.timeout_now.term = raft_current_term(&core->raft);
	message.timeout_now.last_log_index = mirror_last(core->mirror);
	message.timeout_now.last_log_term = mirror_last_term(core->mirror);
	core->died.leader = 0;
	core_step(core, &event, NULL, 0);
}

void core_leader_died(struct core *core, uint64_t peer)
{
	if (core->role.role != CORE_FOLLOWER || core->role.leader != peer || core->died.leader == peer)
		return;
	core->died.leader = peer;
	core->died.at_ms = core->now + (int64_t)(rand_u64() % (2 * core->heartbeat + 1));
	core->died.until_ms = core->died.at_ms + 2 * (int64_t)core->heartbeat;
}

/* R21: after a pause the messages that wait are older than they look; whether this leader still leads is asked first.
 */
void core_tick(struct core *core, int64_t now_ms)
{
	bool paused = now_ms - core->now > (int64_t)core->heartbeat;

	if (now_ms < core->now)
		core_fatal(core, "the monotonic clock went back");
	core->now = now_ms;
	if (paused || (raft_time)now_ms >= raft_timeout(&core->raft))
		core_step_timeout(core);
	if (core->died.leader != 0 && now_ms >= core->died.at_ms)
		campaign_for_dead(core);
	reads_tick(core);
	core_settle(core);
}

int64_t core_deadline(const struct core *core)
{
	int64_t at = (int64_t)raft_timeout(&core->raft);

	if (core->died.leader != 0 && core->died.at_ms < at)
		at = core->died.at_ms;
	if (core->member.state != MEMBER_IDLE && core->now + (int64_t)core->heartbeat < at)
		at = core->now + (int64_t)core->heartbeat;
	return at > core->now ? at : core->now + 1;
}

void core_capacity(struct core *core, uint16_t units)
{
	core->capacity = units; /* goes into the library and to the leader with the next step */
}

void core_flush(struct core *core)
{
	reads_flush(core);
	core_settle(core);
	core_tell_commit(core);
}

/* -- submissions ------------------------------------------------------------------------------------------------- */

/* R7: a change goes alone; the term is the current one, of the same thread. */
int core_submit_entries(struct core *core, struct entry *const *entries, unsigned n)
{
	struct raft_entry array[CORE_SUBMIT_MAX];
	struct raft_event event = { .type = RAFT_SUBMIT, .submit = { array, n } };
	size_t size = entries[0]->type == ENTRY_CHANGE ? entries[0]->len : 8;
	void *batch = raft_malloc(size);
	int rv;

	assert(n > 0 && n <= CORE_SUBMIT_MAX);
	if (batch == NULL)
		abort(); /* out of memory ends the process */
	memset(batch, 0, 8);
	if (entries[0]->type == ENTRY_CHANGE)
		memcpy(batch, entries[0]->data, entries[0]->len);
	for (unsigned i = 0; i < n; i++) {
		assert(n == 1 || entries[i]->type != ENTRY_CHANGE);
		array[i] = (struct raft_entry){
			entries[i]->term, (enum raft_entry_type)entries[i]->type, { batch, size }, batch
		};
	}
	rv = core_step(core, &event, entries, n);
	if (rv != 0)
		raft_free(batch);
	return rv;
}

static enum code may_submit(struct core *core, struct core_submission *const *submissions, size_t n, struct err *err)
{
	if (!core_is_leader(core))
		return err_set(err, CODE_UNAVAILABLE, "this node is not the leader");
	if (core->frozen)
		return err_set(err, CODE_UNAVAILABLE, "the cluster is growing from one voter to two");
	if (core->member.transfer != NULL || raft_transferee(&core->raft) != 0)
		return err_set(err, CODE_UNAVAILABLE, "leadership is being handed over");
	if (mirror_last(core->mirror) - core_commit(core) + n > CORE_OPEN_ENTRIES ||
	    mirror_open_bytes(core->mirror) > CORE_OPEN_BYTES)
		return err_set(err, CODE_RESOURCE_EXHAUSTED, "too many writes wait for a majority");
	for (size_t i = 0; i < n; i++)
		if (submissions[i]->entry->len == 0 || submissions[i]->entry->len > PEER_ENTRY_MAX)
			return err_set(err, CODE_RESOURCE_EXHAUSTED, "a log entry of %u bytes is too large",
				       submissions[i]->entry->len);
	return CODE_OK;
}

static enum code submit_some(struct core *core, struct core_submission *const *submissions, unsigned n, struct err *err)
{
	uint64_t index = mirror_last(core->mirror) + 1, term = raft_current_term(&core->raft);
	struct entry *entries[CORE_SUBMIT_MAX];
	int rv;

	for (unsigned i = 0; i < n; i++) {
		entries[i] = submissions[i]->entry;
		entries[i]->type = ENTRY_COMMAND;
		submissions[i]->index = entries[i]->index = index + i;
		submissions[i]->term = entries[i]->term = term;
	}
	rv = core_submit_entries(core, entries, n);
	if (rv == RAFT_NOSPACE)
		return err_set(err, CODE_RESOURCE_EXHAUSTED, "the disks of a majority have no room for the log");
	if (rv != 0)
		return err_set(err, CODE_UNAVAILABLE, "this node does not take writes: %s", raft_strerror(rv));
	for (unsigned i = 0; i < n; i++) {
		list_push(&core->submissions, &submissions[i]->link);
		submissions[i]->entry = NULL;
		entry_unref(entries[i]);
	}
	return CODE_OK;
}

enum code core_submit(struct core *core, struct core_submission *const *submissions, size_t n, struct err *err)
{
	assert(n > 0 && n <= CORE_SUBMIT_MAX);
	TRY(may_submit(core, submissions, n, err));
	TRY(submit_some(core, submissions, (unsigned)n, err));
	core_settle(core);
	return CODE_OK;
}

void core_withdraw(struct core *core, struct core_submission *submission)
{
	(void)core;
	list_remove(&submission->link);
}

/* -- status ------------------------------------------------------------------------------------------------------ */

static void peer_status(const struct core *core, const struct core_peer *peer, struct core_peer_status *out)
{
	const struct conf_server *server = conf_get(core_newest_conf(core), peer->id);

	out->id = peer->id;
	out->role = server != NULL ? server->role : CONF_SPARE;
	out->match = core_is_leader(core) ? core_match(core, peer->id) : 0;
	out->last_contact_ms = peer->contact_ms;
}

void core_status(const struct core *core, struct core_status *out)
{
	const struct mirror_conf *conf = mirror_conf_last(core->mirror);

	memset(out, 0, sizeof(*out));
	out->now = core->role;
	out->last = mirror_last(core->mirror);
	out->durable = core->durable;
	out->commit = core_commit(core);
	out->handed = core->handed;
	out->first = mirror_first(core->mirror);
	out->snapshot = mirror_snapshot_index(core->mirror);
	out->installing = core->installing;
	out->frozen = core->frozen;
	out->changing = core->member.state != MEMBER_IDLE;
	out->transferring = core->member.transfer != NULL;
	out->elections = core->elections;
	if (conf != NULL) {
		out->conf = conf->conf;
		out->conf_index = conf->index;
		out->conf_committed = conf->index <= core->given;
	}
	out->n_peers = core->n_peers;
	for (unsigned i = 0; i < core->n_peers; i++)
		peer_status(core, &core->peers[i], &out->peers[i]);
}
