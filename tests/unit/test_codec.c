/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between cores: each kind there and back, each check of the wire once, and bytes at random. */
#include "base/rand.h"
#include "lib/test.h"
#include "raft/codec.h"

#include <stdlib.h>

static struct err err;
static struct conf abc;

static void make_conf(void)
{
	abc.n = 0;
	conf_add(&abc, 1, "a", CONF_VOTER, NULL);
	conf_add(&abc, 2, "b", CONF_VOTER, NULL);
	conf_add(&abc, 3, "c", CONF_STANDBY, NULL);
}

static struct entry *change(uint64_t index, uint64_t term)
{
	OWN_BUF bytes = { 0 };

	make_conf();
	conf_encode(&abc, &bytes);
	return entry_new(index, term, ENTRY_CHANGE, bytes.data, bytes.len);
}

/* An append of term 7 behind (10, 5) with a command and a change. */
static void make_append(struct peer_message *out)
{
	*out = (struct peer_message){ .kind = PEER_APPEND, .term = 7 };
	out->append.prev_index = 10;
	out->append.prev_term = 5;
	out->append.commit = 9;
	out->append.n = 2;
	out->append.entries[0] = entry_new(11, 6, ENTRY_COMMAND, "hello", 5);
	out->append.entries[1] = change(12, 7);
}

static enum code decode(const struct buf *bytes, struct peer_message *out)
{
	return peer_decode(bytes->data, bytes->len, 2, 1, out, &err);
}

TEST(append_there_and_back)
{
	struct peer_message in, out;
	OWN_BUF bytes = { 0 };

	make_append(&in);
	peer_encode(&in, &bytes);
	CHECK(bytes.len <= peer_size_max(PEER_APPEND));
	CHECK_CODE(decode(&bytes, &out), CODE_OK);
	CHECK_NUM(out.append.n, 2);
	CHECK_NUM(out.append.commit, 9);
	CHECK_NUM(out.append.entries[0]->index, 11);
	CHECK_NUM(out.append.entries[1]->term, 7);
	CHECK_BYTES(out.append.entries[0]->data, "hello", 5);
	for (size_t len = 0; len < bytes.len; len++) { /* each way to be cut off */
		struct peer_message cut;

		CHECK_CODE(peer_decode(bytes.data, len, 2, 1, &cut, &err), CODE_INVALID_ARGUMENT);
	}
	buf_put(&bytes, 0);
	peer_message_done(&out);
	CHECK_CODE(decode(&bytes, &out), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "a malformed 'append' message: bytes are left over");
	peer_message_done(&in);
}

static void check_append_refused(void (*spoil)(struct peer_message *), const char *why)
{
	struct peer_message in, out;
	OWN_BUF bytes = { 0 };

	make_append(&in);
	spoil(&in);
	peer_encode(&in, &bytes);
	CHECK_CODE(decode(&bytes, &out), CODE_INVALID_ARGUMENT);
	CHECK(strstr(err.text, why) != NULL);
	peer_message_done(&in);
}

static void prev_without_term(struct peer_message *m)
{
	m->append.prev_term = 0;
}

static void term_without_prev(struct peer_message *m)
{
	m->append.prev_index = 0;
}

static void falling_terms(struct peer_message *m)
{
	m->append.entries[1]->term = 5;
}

static void below_prev_term(struct peer_message *m)
{
	m->append.entries[0]->term = 4;
}

static void term_too_new(struct peer_message *m)
{
	m->append.entries[1]->term = 8;
}

static void prev_term_too_new(struct peer_message *m)
{
	m->append.prev_term = 8;
}

static void unknown_type(struct peer_message *m)
{
	m->append.entries[0]->type = 4;
}

static void empty_entry(struct peer_message *m)
{
	m->append.entries[0]->len = 0;
}

static void huge_index(struct peer_message *m)
{
	m->append.prev_index = INT64_MAX;
}

static void out_of_range(struct peer_message *m)
{
	m->append.commit = (uint64_t)INT64_MAX + 1;
}

static void no_term(struct peer_message *m)
{
	m->term = 0;
}

static void cut_change(struct peer_message *m)
{
	m->append.entries[1]->len -= 8;
}

static void many_servers(struct peer_message *m)
{
	m->append.entries[1]->data[1] = 200;
}

static void wrong_role(struct peer_message *m)
{
	m->append.entries[1]->data[9 + 8 + 2] = 3;
}

static void unterminated(struct peer_message *m)
{
	memset(m->append.entries[1]->data + 17, 'x', m->append.entries[1]->len - 17);
}

static void twice_the_id(struct peer_message *m)
{
	m->append.entries[1]->data[9 + 11] = 1;
}

TEST(append_is_checked)
{
	check_append_refused(prev_without_term, "previous entry do not fit");
	check_append_refused(term_without_prev, "previous entry do not fit");
	check_append_refused(falling_terms, "term is out of order");
	check_append_refused(below_prev_term, "term is out of order");
	check_append_refused(term_too_new, "term is out of order");
	check_append_refused(prev_term_too_new, "newer than the message's");
	check_append_refused(unknown_type, "unknown type");
	check_append_refused(empty_entry, "length");
	check_append_refused(huge_index, "too many entries");
	check_append_refused(out_of_range, "out of range");
	check_append_refused(no_term, "its term");
	check_append_refused(cut_change, "ends too early");
	check_append_refused(many_servers, "of 200 members");
	check_append_refused(wrong_role, "unknown role 3");
	check_append_refused(unterminated, "ends too early");
	check_append_refused(twice_the_id, "is there twice");
}

static enum code round_trip(const struct peer_message *in, struct peer_message *out)
{
	OWN_BUF bytes = { 0 };

	peer_encode(in, &bytes);
	CHECK(bytes.len <= peer_size_max((uint8_t)in->kind));
	return decode(&bytes, out);
}

TEST(results)
{
	struct peer_message in = { .kind = PEER_APPEND_RESULT, .term = 3 }, out;

	in.append_result.rejected = 8;
	in.append_result.last_index = 7;
	in.append_result.features = 1;
	in.append_result.capacity = 65535;
	CHECK_CODE(round_trip(&in, &out), CODE_OK);
	CHECK_NUM(out.append_result.rejected, 8);
	CHECK_NUM(out.append_result.last_index, 7);
	CHECK_NUM(out.append_result.capacity, 65535);
	in.append_result.last_index = 8;
	CHECK_CODE(round_trip(&in, &out), CODE_INVALID_ARGUMENT);
	in = (struct peer_message){ .kind = PEER_VOTE_RESULT, .term = 3 };
	in.vote_result.granted = true;
	CHECK_CODE(round_trip(&in, &out), CODE_OK);
	CHECK(out.vote_result.granted);
}

TEST(votes)
{
	struct peer_message in = { .kind = PEER_VOTE, .term = 3 }, out;
	OWN_BUF bytes = { 0 };

	in.vote.candidate = 2;
	in.vote.last_index = 5;
	in.vote.last_term = 3;
	in.vote.disrupt_leader = true;
	CHECK_CODE(round_trip(&in, &out), CODE_OK);
	CHECK(out.vote.disrupt_leader);
	peer_encode(&in, &bytes);
	bytes.data[bytes.len - 1] = 1;
	CHECK_CODE(decode(&bytes, &out), CODE_INVALID_ARGUMENT);
	CHECK(strstr(err.text, "pre-votes") != NULL);
	bytes.data[bytes.len - 1] = 0;
	bytes.data[bytes.len - 2] = 2; /* no boolean */
	CHECK_CODE(decode(&bytes, &out), CODE_INVALID_ARGUMENT);
	in.vote.candidate = 3;
	CHECK_CODE(round_trip(&in, &out), CODE_INVALID_ARGUMENT);
	CHECK(strstr(err.text, "another member") != NULL);
	in.vote.candidate = 2;
	in.vote.last_term = 4;
	CHECK_CODE(round_trip(&in, &out), CODE_INVALID_ARGUMENT);
	in.vote.last_term = 0;
	CHECK_CODE(round_trip(&in, &out), CODE_INVALID_ARGUMENT);
}

TEST(snapshots)
{
	struct peer_message in = { .kind = PEER_SNAPSHOT, .term = 9 }, out;

	make_conf();
	in.snapshot.index = 100;
	in.snapshot.term = 8;
	in.snapshot.conf_index = 40;
	in.snapshot.conf = abc;
	CHECK_CODE(round_trip(&in, &out), CODE_OK);
	CHECK_NUM(out.snapshot.conf.n, 3);
	CHECK_STR(out.snapshot.conf.servers[2].address, "c");
	in.snapshot.conf_index = 101;
	CHECK_CODE(round_trip(&in, &out), CODE_INVALID_ARGUMENT);
	in.snapshot.conf_index = 0;
	CHECK_CODE(round_trip(&in, &out), CODE_INVALID_ARGUMENT);
	in.snapshot.conf_index = 40;
	in.snapshot.term = 10;
	CHECK_CODE(round_trip(&in, &out), CODE_INVALID_ARGUMENT);
	in.snapshot.term = 0;
	CHECK_CODE(round_trip(&in, &out), CODE_INVALID_ARGUMENT);
}

TEST(the_rest)
{
	struct peer_message in = { .kind = PEER_TIMEOUT_NOW, .term = 9 }, out;
	OWN_BUF bytes = { 0 };

	in.timeout_now.last_index = 4;
	CHECK_CODE(round_trip(&in, &out), CODE_INVALID_ARGUMENT);
	in.timeout_now.last_term = 4;
	CHECK_CODE(round_trip(&in, &out), CODE_OK);
	in = (struct peer_message){ .kind = PEER_PROBE, .term = 1 };
	in.probe.round = 77;
	CHECK_CODE(round_trip(&in, &out), CODE_OK);
	CHECK_NUM(out.probe.round, 77);
	peer_encode(&in, &bytes);
	CHECK_CODE(peer_decode(bytes.data, bytes.len, 1, 1, &out, &err), CODE_INVALID_ARGUMENT); /* from itself */
	CHECK_CODE(peer_decode(bytes.data, bytes.len, 0, 1, &out, &err), CODE_INVALID_ARGUMENT);
	bytes.data[1] = 1;
	CHECK_CODE(decode(&bytes, &out), CODE_INVALID_ARGUMENT);
	CHECK(strstr(err.text, "version") != NULL);
	bytes.data[0] = 9;
	CHECK_CODE(decode(&bytes, &out), CODE_INVALID_ARGUMENT);
	CHECK_NUM(peer_size_max(0), 0);
	CHECK_NUM(peer_size_max(9), 0);
}

/* Whatever is decoded encodes to the same bytes: so no two texts mean the same, and nothing unchecked gets through. */
TEST(random_bytes)
{
	struct peer_message seed, out;
	OWN_BUF bytes = { 0 }, back = { 0 };
	int accepted = 0;

	make_append(&seed);
	peer_encode(&seed, &bytes);
	rand_use_seed(4);
	for (int i = 0; i < 20000; i++) {
		size_t at = rand_u64() % bytes.len;
		uint8_t old = bytes.data[at];

		bytes.data[at] = (uint8_t)rand_u64();
		if (decode(&bytes, &out) == CODE_OK) {
			back.len = 0;
			peer_encode(&out, &back);
			CHECK_NUM(back.len, bytes.len);
			CHECK_BYTES(back.data, bytes.data, bytes.len);
			peer_message_done(&out);
			accepted++;
		}
		bytes.data[at] = old;
	}
	CHECK(accepted > 0);
	peer_message_done(&seed);
}

TEST(configurations)
{
	struct conf conf = { 0 };

	CHECK_CODE(conf_add(&conf, 0, "a", CONF_VOTER, &err), CODE_INVALID_ARGUMENT);
	CHECK_CODE(conf_add(&conf, 1, "", CONF_VOTER, &err), CODE_INVALID_ARGUMENT);
	CHECK_CODE(conf_add(&conf, 1, "a", 3, &err), CODE_INVALID_ARGUMENT);
	CHECK_CODE(conf_add(&conf, 1, "a", CONF_VOTER, &err), CODE_OK);
	CHECK_CODE(conf_add(&conf, 1, "b", CONF_VOTER, &err), CODE_ALREADY_EXISTS);
	CHECK_CODE(conf_add(&conf, 2, "a", CONF_VOTER, &err), CODE_ALREADY_EXISTS);
	CHECK_CODE(conf_remove(&conf, 2, &err), CODE_NOT_FOUND);
	CHECK_CODE(conf_set_role(&conf, 2, CONF_VOTER, &err), CODE_NOT_FOUND);
	for (uint64_t id = 2; id <= CONF_MAX; id++) {
		char name[2] = { (char)('a' + id), 0 };

		CHECK_CODE(conf_add(&conf, id, name, CONF_STANDBY, &err), CODE_OK);
	}
	CHECK_CODE(conf_add(&conf, 99, "z", CONF_STANDBY, &err), CODE_RESOURCE_EXHAUSTED);
	CHECK_CODE(conf_remove(&conf, 4, &err), CODE_OK);
	CHECK_NUM(conf.servers[3].id, 5); /* the order of the others stays (R8) */
	CHECK_NUM(conf_voters(&conf), 1);
}
