/* SPDX-License-Identifier: Apache-2.0 */
/* The core alone, its surroundings played by the test: start, the single voter, and the rules that a directed test can
 * show (R2, R3, R5, R6, R7, R10, R12, R13, R18, R19). That all of them hold together is the simulator's business. */
#include "base/rand.h"
#include "lib/test.h"
#include "raft/core.h"

#include <stdlib.h>

enum { SENT = 64, APPLIED = 4096 };

static struct {
	struct core *core;
	int64_t now;
	uint64_t term, voted_for;
	unsigned writes, stored; /* asked for, told to be done */
	uint64_t first, last;    /* of the last write */
	uint64_t reset_at;
	struct peer_message sent[SENT];
	uint64_t to[SENT];
	unsigned n_sent;
	uint64_t applied[APPLIED];
	uint8_t types[APPLIED];
	unsigned n_applied;
	struct core_role role;
	unsigned fates[3];
	uint64_t copy_for;
	bool has_copy, installing;
	unsigned confs;
} box;
static struct err err;
static struct core_submission submissions[64]; /* of one test; those that were refused too */
static unsigned used;

static void io_vote(void *ctx, uint64_t term, uint64_t voted_for)
{
	(void)ctx;
	box.term = term;
	box.voted_for = voted_for;
}

static void io_write(void *ctx, uint64_t first, struct entry *const *entries, size_t n)
{
	(void)ctx, (void)entries;
	box.writes++;
	box.first = first;
	box.last = first + n - 1;
}

static void io_log_reset(void *ctx, uint64_t next)
{
	(void)ctx;
	box.reset_at = next;
}

static bool io_send(void *ctx, uint64_t to, const struct peer_message *message)
{
	(void)ctx;
	if (box.n_sent == SENT)
		return false;
	box.to[box.n_sent] = to;
	box.sent[box.n_sent] = *message; /* the entries are not looked at later than the core lives */
	box.n_sent++;
	return true;
}

static size_t io_queued(void *ctx, uint64_t to)
{
	(void)ctx, (void)to;
	return 0;
}

static void io_read_log(void *ctx, uint64_t peer, uint64_t first, size_t max_bytes)
{
	(void)ctx, (void)peer, (void)first, (void)max_bytes;
}

static void io_apply(void *ctx, struct entry *const *entries, size_t n)
{
	(void)ctx;
	for (size_t i = 0; i < n; i++) {
		box.applied[box.n_applied] = entries[i]->index;
		box.types[box.n_applied++] = entries[i]->type;
	}
}

static void io_fate(void *ctx, struct core_submission *submission, enum core_fate fate)
{
	(void)ctx, (void)submission;
	box.fates[fate]++;
}

static void io_role(void *ctx, const struct core_role *role)
{
	(void)ctx;
	box.role = *role;
}

static void io_conf(void *ctx, uint64_t index, const struct conf *conf, bool committed)
{
	(void)ctx, (void)index, (void)conf;
	box.confs += committed;
}

static void io_copy_wanted(void *ctx, uint64_t peer, uint64_t at_least)
{
	(void)ctx, (void)at_least;
	box.copy_for = peer;
}

static bool io_copy_ready(void *ctx, const struct core_triple *base)
{
	(void)ctx, (void)base;
	return box.has_copy;
}

static void io_install(void *ctx, const struct core_triple *base)
{
	(void)ctx, (void)base;
	box.installing = true;
}

__attribute__((noreturn)) static void io_fatal(void *ctx, const char *why)
{
	(void)ctx;
	print_error("fatal: %s\n", why);
	abort();
}

static const struct core_io io = { io_vote,        io_write,      io_log_reset, io_send, io_queued,
				   io_read_log,    io_apply,      io_fate,      io_role, io_conf,
				   io_copy_wanted, io_copy_ready, io_install,   io_fatal };

static struct conf conf_of(unsigned voters, unsigned standbys)
{
	struct conf conf = { 0 };

	for (unsigned i = 1; i <= voters + standbys; i++) {
		char name[2] = { (char)('a' + i), 0 };

		conf_add(&conf, i, name, i <= voters ? CONF_VOTER : CONF_STANDBY, NULL);
	}
	return conf;
}

static uint16_t min_capacity;

static enum code start(const struct core_recovered *found, uint64_t id)
{
	struct core_options options = {
		.id = id, .election_ms = 300, .now_ms = 1000, .io = &io, .min_capacity = min_capacity
	};

	memset(&box, 0, sizeof(box));
	used = 0;
	box.now = 1000;
	rand_use_seed(1);
	return core_start(&options, found, &box.core, &err);
}

static void start_founder(unsigned voters, uint64_t id)
{
	struct conf conf = conf_of(voters, 0);
	struct entry *entry = core_founding_entry(&conf);
	struct core_recovered found = { .term = 1, .first = 1, .entries = &entry, .n = 1 };

	CHECK_CODE(start(&found, id), CODE_OK);
	entry_unref(entry);
}

static void tick(int64_t ms)
{
	box.now += ms;
	core_tick(box.core, box.now);
	core_flush(box.core);
}

static void store_all(void)
{
	while (box.stored < box.writes) {
		box.stored++;
		core_stored(box.core);
	}
}

static enum code submit(unsigned n)
{
	struct core_submission *all[64] = { 0 };
	enum code rc;

	for (unsigned i = 0; i < n; i++) {
		all[i] = &submissions[used++];
		all[i]->entry = entry_new(0, 0, ENTRY_COMMAND, "x", 1);
		list_init(&all[i]->link);
	}
	rc = core_submit(box.core, all, n, &err);
	for (unsigned i = 0; rc != CODE_OK && i < n; i++)
		entry_unref(all[i]->entry);
	return rc;
}

static void receive(uint64_t from, struct peer_message *message)
{
	CHECK_CODE(core_receive(box.core, from, message, &err), CODE_OK);
	peer_message_done(message);
}

/* An append with n commands of `entry_term` behind prev. */
static struct peer_message append(uint64_t term, uint64_t prev, uint64_t prev_term, unsigned n, uint64_t entry_term)
{
	struct peer_message out = { .kind = PEER_APPEND, .term = term };

	out.append.prev_index = prev;
	out.append.prev_term = prev_term;
	out.append.n = n;
	for (unsigned i = 0; i < n; i++)
		out.append.entries[i] = entry_new(prev + 1 + i, entry_term, ENTRY_COMMAND, "y", 1);
	return out;
}

static struct entry *change_at(uint64_t index, uint64_t term, const struct conf *conf)
{
	OWN_BUF bytes = { 0 };

	conf_encode(conf, &bytes);
	return entry_new(index, term, ENTRY_CHANGE, bytes.data, bytes.len);
}

static const struct peer_message *last_sent(enum peer_kind kind, uint64_t to)
{
	for (unsigned i = box.n_sent; i > 0; i--)
		if (box.sent[i - 1].kind == kind && box.to[i - 1] == to)
			return &box.sent[i - 1];
	return NULL;
}

/* Node 1 of three becomes the leader by the vote of 2. */
static void win_election(void)
{
	struct peer_message vote = { .kind = PEER_VOTE_RESULT };

	tick(700);
	CHECK_NUM(box.role.role, CORE_CANDIDATE);
	vote.term = box.term;
	vote.vote_result.granted = true;
	receive(2, &vote);
	CHECK_NUM(box.role.role, CORE_LEADER);
}

static void acknowledge(uint64_t from, uint64_t last)
{
	struct peer_message result = { .kind = PEER_APPEND_RESULT, .term = box.term };

	result.append_result.last_index = last;
	receive(from, &result);
}

/* -- start
 * ---------------------------------------------------------------------------------------------------------------- */

TEST(a_single_voter_leads_at_once)
{
	struct core_status status;

	start_founder(1, 1);
	CHECK_NUM(box.role.role, CORE_LEADER);
	CHECK(box.role.ready);
	CHECK_NUM(box.n_applied, 1); /* the configuration at index 1 */
	CHECK_NUM(box.types[0], ENTRY_CHANGE);
	CHECK_CODE(submit(3), CODE_OK);
	CHECK_NUM(submissions[2].index, 4);
	CHECK_NUM(box.fates[CORE_COMMITTED], 0); /* not on disk yet */
	store_all();
	CHECK_NUM(box.fates[CORE_COMMITTED], 3);
	CHECK_NUM(box.n_applied, 4);
	core_status(box.core, &status);
	CHECK_NUM(status.commit, 4);
	CHECK_NUM(status.durable, 4);
	CHECK(status.conf_committed);
	CHECK(core_deadline(box.core) > box.now);
	core_free(box.core);
}

TEST(a_full_disk_refuses_writes_before_it_is_full)
{
	min_capacity = 2;
	start_founder(1, 1);
	min_capacity = 0;
	core_capacity(box.core, 1);
	CHECK_CODE(submit(1), CODE_RESOURCE_EXHAUSTED);
	CHECK_STR(err.text, "the disks of a majority have no room for the log");
	CHECK_NUM(box.writes, 0);
	core_capacity(box.core, 2);
	CHECK_CODE(submit(1), CODE_OK);
	CHECK_NUM(box.last, 2);
	core_free(box.core);
}

static unsigned reads_done;
static uint64_t read_at;

static void read_done(struct core_read *read, enum code code, uint64_t index)
{
	(void)read;
	reads_done += code == CODE_OK;
	read_at = index;
}

TEST(a_single_voter_confirms_reads_itself)
{
	struct core_read read = { .done = read_done };

	start_founder(1, 1);
	list_init(&read.link);
	reads_done = 0;
	CHECK_CODE(core_read(box.core, &read, &err), CODE_OK);
	CHECK_NUM(reads_done, 0);
	core_flush(box.core);
	CHECK_NUM(reads_done, 1);
	CHECK_NUM(read_at, 1);
	core_free(box.core);
}

TEST(starts_from_the_state_files_own_index)
{
	struct core_recovered found = { .term = 4, .first = 3 };
	struct entry *log[6];
	struct core_status status;

	found.state = (struct core_triple){ 5, 2, 1, conf_of(3, 0) };
	for (uint64_t i = 0; i < 6; i++)
		log[i] = entry_new(3 + i, i < 4 ? 2 : 4, ENTRY_COMMAND, "z", 1);
	found.entries = log;
	found.n = 6;
	CHECK_CODE(start(&found, 1), CODE_OK);
	core_status(box.core, &status);
	CHECK_NUM(status.commit, 5);
	CHECK_NUM(status.last, 8);
	CHECK_NUM(status.handed, 5);
	CHECK_NUM(box.n_applied, 0); /* what is above is not known to be committed */
	CHECK_NUM(box.reset_at, 0);
	core_free(box.core);
	found.state.term = 3; /* another history at 5: the log is a leftover of before a copy */
	CHECK_CODE(start(&found, 1), CODE_OK);
	CHECK_NUM(box.reset_at, 6);
	core_status(box.core, &status);
	CHECK_NUM(status.last, 5);
	core_free(box.core);
	for (int i = 0; i < 6; i++)
		entry_unref(log[i]);
}

TEST(refuses_what_does_not_fit)
{
	struct core_recovered found = { .term = 4, .first = 7 };
	struct conf lonely = conf_of(1, 1), three = conf_of(3, 0);
	struct entry *entry = entry_new(7, 2, ENTRY_COMMAND, "z", 1);

	found.state = (struct core_triple){ 5, 2, 1, three };
	found.entries = &entry;
	found.n = 1;
	CHECK_CODE(start(&found, 1), CODE_DATA_LOSS);
	CHECK_STR(err.text, "the log begins at 7 but the state ends at 5: entries between them are missing");
	entry->index = found.first = 6;
	found.term = 1;
	CHECK_CODE(start(&found, 1), CODE_DATA_LOSS);
	CHECK_STR(err.text,
		  "the log has entries of term 2 but the vote record says term 1: it was lost or rolled back");
	found.n = 0;
	CHECK_CODE(start(&found, 1), CODE_DATA_LOSS);
	CHECK_STR(err.text, "the state is of term 2 but the vote record says term 1: it was lost or rolled back");
	found.term = 0;
	CHECK_CODE(start(&found, 1), CODE_DATA_LOSS);
	found.term = 4;
	found.state.conf = lonely; /* R10 */
	CHECK_CODE(start(&found, 1), CODE_FAILED_PRECONDITION);
	entry_unref(entry);
}

/* -- rules
 * ---------------------------------------------------------------------------------------------------------------- */

TEST(r2_stale_messages_get_a_neutral_answer)
{
	struct peer_message old = append(1, 0, 0, 1, 1), copy = { .kind = PEER_SNAPSHOT, .term = 1 };
	struct peer_message now;
	const struct peer_message *answer;

	start_founder(3, 1);
	now = append(5, 1, 1, 0, 0);
	receive(2, &now);
	CHECK_NUM(box.term, 5);
	receive(3, &old);
	answer = last_sent(PEER_APPEND_RESULT, 3);
	CHECK(answer != NULL);
	CHECK_NUM(answer->term, 5);
	CHECK_NUM(answer->append_result.rejected, 0);
	CHECK_NUM(answer->append_result.last_index, 0);
	box.n_sent = 0;
	copy.snapshot.index = 9;
	copy.snapshot.term = copy.snapshot.conf_index = 1;
	copy.snapshot.conf = conf_of(3, 0);
	receive(3, &copy);
	answer = last_sent(PEER_APPEND_RESULT, 3);
	CHECK(answer != NULL && answer->append_result.last_index == 0);
	CHECK(!box.installing);
	core_free(box.core);
}

/* Entries and a change in one message; the change alone is truncated later: the older configuration is back, and the
 * next change is possible. With the change noted at the wrong index it would not be. */
TEST(r3_a_change_in_the_middle_of_a_message)
{
	struct conf four = conf_of(3, 1), five = conf_of(3, 2);
	struct peer_message in;
	struct core_status status;

	start_founder(3, 1);
	in = append(2, 1, 1, 2, 2);
	in.append.entries[2] = change_at(4, 2, &four);
	in.append.n = 3;
	receive(2, &in);
	CHECK_NUM(box.writes, 2); /* two pieces */
	store_all();
	core_status(box.core, &status);
	CHECK_NUM(status.last, 4);
	CHECK_NUM(status.conf.n, 4);
	in = append(3, 3, 2, 1, 3); /* another leader: index 4 is a command */
	receive(3, &in);
	store_all();
	core_status(box.core, &status);
	CHECK_NUM(status.conf.n, 3);
	CHECK(status.conf_committed);
	in = append(3, 4, 3, 0, 0);
	in.append.entries[0] = change_at(5, 3, &five);
	in.append.n = 1;
	in.append.commit = 5;
	receive(3, &in);
	store_all();
	core_status(box.core, &status);
	CHECK_NUM(status.conf.n, 5);
	CHECK(status.conf_committed);
	core_free(box.core);
}

TEST(r5_a_late_duplicate_below_the_commit_index)
{
	struct core_triple base = { 3, 2, 1, conf_of(3, 0) };
	struct peer_message in;
	struct core_status status;
	const struct peer_message *answer;

	start_founder(3, 1);
	in = append(2, 1, 1, 3, 2);
	in.append.commit = 4;
	receive(2, &in);
	store_all();
	CHECK_NUM(box.n_applied, 4);
	CHECK_NUM(core_snapshot(box.core, &base, 0), 4); /* the beginning is gone */
	in = append(2, 0, 0, 4, 2);
	in.append.entries[0]->term = 1;
	box.n_sent = 0;
	receive(2, &in);
	core_status(box.core, &status);
	CHECK_NUM(status.last, 4);
	CHECK_NUM(box.writes, 1);
	answer = last_sent(PEER_APPEND_RESULT, 2);
	CHECK(answer != NULL);
	CHECK_NUM(answer->append_result.rejected, 0);
	CHECK_NUM(answer->append_result.last_index, 4);
	core_free(box.core);
}

TEST(r6_a_new_leader_commits_a_barrier_first)
{
	start_founder(3, 1); /* fully committed: the library would append nothing */
	win_election();
	CHECK(!box.role.ready);
	CHECK_NUM(box.writes, 1);
	CHECK_NUM(box.last, 2);
	store_all();
	acknowledge(2, 2);
	CHECK(box.role.ready);
	CHECK_NUM(box.types[box.n_applied - 1], ENTRY_BARRIER);
	core_free(box.core);
}

static enum code change_code;
static unsigned changes_done;

static void change_done(struct core_change *change, enum code code, const char *why)
{
	(void)change, (void)why;
	change_code = code;
	changes_done++;
}

static enum code change(enum core_change_kind kind, uint64_t id, struct core_change *out)
{
	*out = (struct core_change){ .kind = kind, .id = id, .address = "new", .done = change_done };
	return core_change(box.core, out, &err);
}

TEST(members_one_at_a_time)
{
	struct core_change add, other;
	struct core_status status;

	start_founder(3, 1);
	CHECK_CODE(change(CORE_ADD, 4, &add), CODE_UNAVAILABLE);
	CHECK_STR(err.text, "this node is not the leader");
	win_election();
	CHECK_CODE(change(CORE_ADD, 4, &add), CODE_UNAVAILABLE); /* R6 */
	store_all();
	acknowledge(2, 2);
	CHECK_CODE(change(CORE_ADD, 2, &add), CODE_ALREADY_EXISTS);
	CHECK_CODE(change(CORE_PROMOTE, 2, &add), CODE_FAILED_PRECONDITION);
	CHECK_CODE(change(CORE_PROMOTE, 7, &add), CODE_NOT_FOUND);
	changes_done = 0;
	CHECK_CODE(change(CORE_ADD, 4, &add), CODE_OK);
	CHECK_CODE(change(CORE_REMOVE, 3, &other), CODE_UNAVAILABLE);
	CHECK_STR(err.text, "another change of members is under way");
	store_all();
	CHECK_NUM(changes_done, 0);
	acknowledge(2, 3);
	CHECK_NUM(changes_done, 1);
	CHECK_NUM(change_code, CODE_OK);
	core_status(box.core, &status);
	CHECK_NUM(status.conf.n, 4);
	CHECK_NUM(status.conf.servers[3].role, CONF_STANDBY);
	core_free(box.core);
}

TEST(r10_r11_and_r12)
{
	struct core_change out;
	struct peer_message in;

	start_founder(3, 1);
	win_election();
	store_all();
	acknowledge(2, 2);
	/* {1, 3} would be left, and 3 has never been heard (R11). */
	CHECK_CODE(change(CORE_REMOVE, 2, &out), CODE_FAILED_PRECONDITION);
	CHECK(strstr(err.text, "of the 2 voters that would be, only 1") != NULL);
	changes_done = 0;
	CHECK_CODE(change(CORE_REMOVE, 3, &out), CODE_OK); /* {1, 2} are up to date */
	store_all();
	acknowledge(2, 3);
	CHECK_NUM(changes_done, 1);
	CHECK_NUM(change_code, CODE_OK);
	CHECK_CODE(change(CORE_REMOVE, 2, &out), CODE_FAILED_PRECONDITION); /* R10 */
	CHECK(strstr(err.text, "one voter would be left") != NULL);
	CHECK_CODE(change(CORE_ADD, 3, &out), CODE_FAILED_PRECONDITION); /* R8 */
	CHECK(core_is_removed(box.core, 3));
	in = (struct peer_message){ .kind = PEER_VOTE, .term = 99 }; /* R12 */
	in.vote.candidate = 3;
	CHECK_CODE(core_receive(box.core, 3, &in, &err), CODE_PERMISSION_DENIED);
	CHECK_STR(err.text, "member 3 was removed from the cluster");
	CHECK_NUM(box.role.role, CORE_LEADER);
	core_free(box.core);
}

TEST(r13_no_snapshot_above_what_is_committed)
{
	struct core_triple base = { 3, 2, 1, conf_of(3, 0) };
	struct peer_message in;

	start_founder(3, 1);
	in = append(2, 1, 1, 3, 2);
	receive(2, &in);
	store_all();
	CHECK_NUM(core_snapshot(box.core, &base, 0), 0);
	in = append(2, 4, 2, 0, 0);
	in.append.commit = 4;
	receive(2, &in);
	CHECK_NUM(core_snapshot(box.core, &base, 1), 3);
	core_free(box.core);
}

TEST(r18_r19_what_would_hit_the_wrong_state)
{
	struct peer_message vote = { .kind = PEER_VOTE_RESULT, .term = 9 }, rival;

	start_founder(3, 1);
	receive(2, &vote); /* as a follower: dropped */
	CHECK_NUM(box.role.term, 1);
	win_election();
	rival = append(box.term, 1, 1, 0, 0);
	receive(3, &rival); /* of our own term */
	CHECK_NUM(box.role.role, CORE_LEADER);
	core_free(box.core);
}

TEST(an_answer_beyond_the_log_ends_the_connection)
{
	struct peer_message result = { .kind = PEER_APPEND_RESULT };

	start_founder(3, 1);
	win_election();
	result.term = box.term;
	result.append_result.last_index = 77;
	CHECK_CODE(core_receive(box.core, 2, &result, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "member 2 says that it has entry 77, the leader's last is 2");
	core_free(box.core);
}

/* -- the leader's life
 * --------------------------------------------------------------------------------------------------- */

TEST(a_lost_leader_leaves_submissions_in_doubt)
{
	struct peer_message in;

	start_founder(3, 1);
	win_election();
	store_all();
	CHECK_CODE(submit(2), CODE_OK); /* at 3 and 4, seen by nobody else */
	in = append(box.term + 1, 1, 1, 0, 0);
	receive(2, &in);
	CHECK_NUM(box.role.role, CORE_FOLLOWER);
	CHECK_NUM(box.role.leader, 2);
	CHECK_NUM(box.fates[CORE_LOST] + box.fates[CORE_UNKNOWN] + box.fates[CORE_COMMITTED], 0);
	in = append(box.term, 1, 1, 3, box.term);
	in.append.commit = 3;
	receive(2, &in);
	store_all();
	CHECK_NUM(box.fates[CORE_LOST], 1); /* 3 is another entry now, 4 not decided yet */
	core_withdraw(box.core, &submissions[1]);
	CHECK_CODE(submit(1), CODE_UNAVAILABLE);
	core_free(box.core);
}

TEST(reads_need_a_majority)
{
	struct core_read read = { .done = read_done };
	struct peer_message ack = { .kind = PEER_PROBE_ACK };
	const struct peer_message *probe;

	start_founder(3, 1);
	CHECK_CODE(core_read(box.core, &read, &err), CODE_UNAVAILABLE);
	win_election();
	list_init(&read.link);
	reads_done = 0;
	CHECK_CODE(core_read(box.core, &read, &err), CODE_OK);
	core_flush(box.core);
	CHECK(last_sent(PEER_PROBE, 2) == NULL); /* nothing of this term is committed yet */
	store_all();
	acknowledge(2, 2);
	core_flush(box.core);
	probe = last_sent(PEER_PROBE, 2);
	CHECK(probe != NULL);
	CHECK_NUM(reads_done, 0);
	ack.term = box.term;
	ack.probe.round = probe->probe.round;
	receive(3, &ack);
	CHECK_NUM(reads_done, 1);
	CHECK_NUM(read_at, 2);
	core_free(box.core);
}

TEST(followers_hear_at_once_what_is_committed)
{
	start_founder(3, 1);
	win_election();
	store_all();
	acknowledge(2, 2);
	box.n_sent = 0;
	core_flush(box.core);
	CHECK(last_sent(PEER_APPEND, 2) != NULL);
	CHECK_NUM(last_sent(PEER_APPEND, 2)->append.commit, 2);
	CHECK_NUM(last_sent(PEER_APPEND, 2)->append.n, 0);
	CHECK_NUM(last_sent(PEER_APPEND, 2)->append.prev_index, 2);
	CHECK(last_sent(PEER_APPEND, 3) == NULL); /* has never been heard */
	box.n_sent = 0;
	core_flush(box.core);
	CHECK_NUM(box.n_sent, 0);
	core_free(box.core);
}

TEST(long_logs_go_in_pieces) /* R17 */
{
	unsigned pieces = 0;

	start_founder(3, 1);
	win_election();
	store_all();
	acknowledge(2, 2);
	for (int i = 0; i < 4; i++) {
		used = 0; /* nobody looks at these again */
		CHECK_CODE(submit(20), CODE_OK);
		for (unsigned j = 0; j < 20; j++)
			core_withdraw(box.core, &submissions[j]);
	}
	tick(60);
	for (unsigned i = 0; i < box.n_sent; i++)
		if (box.to[i] == 3 && box.sent[i].kind == PEER_APPEND && box.sent[i].append.n > 0) {
			CHECK_NUM(box.sent[i].append.n, PEER_ENTRIES_MAX);
			pieces++;
		}
	CHECK_NUM(pieces, 1); /* one until it has answered: it may have to reject it */
	tick(60);
	CHECK_NUM(last_sent(PEER_APPEND, 3)->append.n, 0); /* not again, but a heartbeat behind it */
	CHECK_NUM(last_sent(PEER_APPEND, 3)->append.prev_index, 65);
	acknowledge(3, 65);
	CHECK_NUM(last_sent(PEER_APPEND, 3)->append.n, 17);
	CHECK_NUM(last_sent(PEER_APPEND, 3)->append.prev_index, 65);
	core_free(box.core);
}

TEST(a_paused_leader_asks_itself_first) /* R21 */
{
	start_founder(3, 1);
	win_election();
	tick(10000);
	tick(700);
	CHECK(box.role.role != CORE_LEADER);
	core_free(box.core);
}

TEST(a_dead_leader_is_replaced_at_once)
{
	struct peer_message in;

	start_founder(3, 1);
	in = append(2, 1, 1, 0, 0);
	receive(2, &in);
	CHECK_NUM(box.role.leader, 2);
	core_leader_died(box.core, 3); /* does not lead */
	tick(1);
	CHECK_NUM(box.role.role, CORE_FOLLOWER);
	core_leader_died(box.core, 2);
	tick(101);
	CHECK_NUM(box.role.role, CORE_CANDIDATE);
	CHECK(last_sent(PEER_VOTE, 3)->vote.disrupt_leader);
	core_free(box.core);
}

TEST(growth_from_one_to_two)
{
	struct core_triple base;
	struct core_recovered found = { 0 };
	uint64_t term;

	start_founder(1, 1);
	CHECK_CODE(core_grow_base(box.core, &base, &err), CODE_UNAVAILABLE); /* not frozen */
	CHECK_CODE(submit(2), CODE_OK);
	core_freeze(box.core);
	CHECK_CODE(submit(1), CODE_UNAVAILABLE);
	CHECK_CODE(core_grow_base(box.core, &base, &err), CODE_UNAVAILABLE); /* not on disk yet */
	store_all();
	CHECK_CODE(core_grow_base(box.core, &base, &err), CODE_OK);
	CHECK_NUM(base.index, 3);
	CHECK_NUM(base.conf.n, 1);
	CHECK_CODE(core_grow(box.core, 2, "new", &term, &base, &err), CODE_OK);
	CHECK_NUM(term, 2);
	CHECK_NUM(box.term, 2); /* in the vote record */
	CHECK_NUM(base.conf.n, 2);
	CHECK_NUM(base.conf_index, 3);
	core_free(box.core);
	found.term = term;
	found.state = base;
	CHECK_CODE(start(&found, 2), CODE_OK);
	CHECK_NUM(box.role.role, CORE_FOLLOWER);
	CHECK_NUM(box.role.term, 2);
	core_free(box.core);
}

TEST(a_copy_is_taken_over)
{
	struct peer_message copy = { .kind = PEER_SNAPSHOT, .term = 3 }, in;
	struct core_recovered found = { 0 };
	struct core_status status;

	CHECK_CODE(start(&found, 4), CODE_OK); /* a joiner that knows nothing */
	copy.snapshot.index = 20;
	copy.snapshot.term = 2;
	copy.snapshot.conf_index = 10;
	copy.snapshot.conf = conf_of(3, 1);
	receive(1, &copy);
	CHECK(!box.installing); /* R15: the file is not here */
	box.has_copy = true;
	receive(1, &copy);
	CHECK(box.installing);
	box.installing = false;
	receive(1, &copy); /* R9 */
	CHECK(!box.installing);
	in = append(3, 20, 2, 1, 3);
	in.append.commit = 21;
	receive(1, &in); /* R14: has to wait */
	CHECK_NUM(box.writes, 0);
	CHECK_NUM(box.n_applied, 0);
	core_installed(box.core);
	core_status(box.core, &status);
	CHECK_NUM(status.handed, 20);
	CHECK_NUM(status.conf.n, 4);
	CHECK_NUM(last_sent(PEER_APPEND_RESULT, 1)->append_result.last_index, 20);
	in = append(3, 20, 2, 1, 3);
	in.append.commit = 21;
	receive(1, &in);
	store_all();
	CHECK_NUM(box.n_applied, 1);
	CHECK_NUM(box.applied[0], 21);
	core_free(box.core);
}

TEST(transfer)
{
	static struct core_transfer order;
	struct peer_message in;

	start_founder(3, 1);
	win_election();
	store_all();
	acknowledge(2, 2);
	order = (struct core_transfer){ 0 };
	order.id = 1;
	CHECK_CODE(core_transfer(box.core, &order, &err), CODE_FAILED_PRECONDITION);
	order.id = 9;
	CHECK_CODE(core_transfer(box.core, &order, &err), CODE_FAILED_PRECONDITION);
	order.id = 0;
	order.done = NULL;
	CHECK_CODE(core_transfer(box.core, &order, &err), CODE_OK);
	CHECK_NUM(order.id, 2);
	CHECK(last_sent(PEER_TIMEOUT_NOW, 2) != NULL);
	CHECK_CODE(submit(1), CODE_UNAVAILABLE);
	in = (struct peer_message){ .kind = PEER_VOTE, .term = box.term + 1 };
	in.vote.candidate = 2;
	in.vote.last_index = 2;
	in.vote.last_term = box.term;
	in.vote.disrupt_leader = true;
	receive(2, &in);
	CHECK_NUM(box.role.role, CORE_FOLLOWER);
	CHECK_NUM(box.voted_for, 2);
	core_free(box.core);
}
