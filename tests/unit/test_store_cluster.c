/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster in the state: founding, members, join secrets; parcels that are carried out once; the triple. */
#include "lib/state.h"
#include "lib/test.h"
#include "store/state.h"

static Pb__Member member_of(const char *name, ProtobufCBinaryData *pin)
{
	Pb__Member member = PB__MEMBER__INIT;

	member.name = name;
	member.node_id = name;
	member.address = "127.0.0.1:1";
	member.n_pins = 1;
	member.pins = pin;
	return member;
}

static Pb__Outcome *carry_out(struct state *s, Pb__Command *command)
{
	struct store_item item = { .command = command };
	struct err err = { 0 };

	command->format = COMMAND_FORMAT;
	CHECK_CODE(store_apply(s->store, store_applied(s->store) + 1, 1000000, &item, 1, s->arena, &err), CODE_OK);
	return item.outcome;
}

static Pb__Outcome *found(struct state *s, Pb__Member *member)
{
	Pb__ClusterFound in = PB__CLUSTER_FOUND__INIT;
	Pb__Command command = PB__COMMAND__INIT;

	in.cluster_id = "c1";
	in.member = member;
	command.kind_case = PB__COMMAND__KIND_CLUSTER_FOUND;
	command.cluster_found = &in;
	return carry_out(s, &command);
}

static Pb__Outcome *redeem(struct state *s, ProtobufCBinaryData hash, Pb__Member *member)
{
	Pb__JoinRedeem in = PB__JOIN_REDEEM__INIT;
	Pb__Command command = PB__COMMAND__INIT;

	in.hash = hash;
	in.member = member;
	command.kind_case = PB__COMMAND__KIND_JOIN_REDEEM;
	command.join_redeem = &in;
	return carry_out(s, &command);
}

static void create_join(struct state *s, ProtobufCBinaryData hash, int64_t expires_at, uint32_t uses)
{
	Pb__JoinCreate in = PB__JOIN_CREATE__INIT;
	Pb__Command command = PB__COMMAND__INIT;

	in.hash = hash;
	in.expires_at = expires_at;
	in.uses = uses;
	command.kind_case = PB__COMMAND__KIND_JOIN_CREATE;
	command.join_create = &in;
	CHECK_NUM(carry_out(s, &command)->code, CODE_OK);
}

TEST(a_cluster_is_founded_once)
{
	ProtobufCBinaryData pin = { 1, (uint8_t *)"a" };
	Pb__Member member = member_of("n1", &pin);
	Pb__Outcome *out;
	const char *id;
	uint64_t epoch;
	struct err err = { 0 };
	struct state s;

	state_begin(&s);
	out = found(&s, &member);
	CHECK_NUM(out->code, CODE_OK);
	CHECK_NUM(out->member->id, 1);
	CHECK_NUM(found(&s, &member)->code, CODE_ALREADY_EXISTS);
	CHECK_CODE(view_cluster(state_view(&s), s.arena, &id, &epoch, &err), CODE_OK);
	CHECK_STR(id, "c1");
	CHECK_NUM(epoch, 1);
	state_check_digest(&s);
	state_end(&s);
}

TEST(a_join_secret_makes_one_member_for_one_key)
{
	uint8_t bytes[32] = { 1 };
	ProtobufCBinaryData hash = { 32, bytes }, a = { 1, (uint8_t *)"a" }, b = { 1, (uint8_t *)"b" }, c = { 1, (uint8_t *)"c" };
	Pb__Member first = member_of("n1", &a), second = member_of("n2", &b), third = member_of("n3", &c);
	Pb__Outcome *out;
	struct state s;

	state_begin(&s);
	CHECK_NUM(found(&s, &first)->code, CODE_OK);
	CHECK_NUM(redeem(&s, hash, &second)->code, CODE_NOT_FOUND);
	create_join(&s, hash, 2000, 1);
	out = redeem(&s, hash, &second);
	CHECK_NUM(out->code, CODE_OK);
	CHECK_NUM(out->member->id, 2);
	out = redeem(&s, hash, &second); /* the same key again: the same answer */
	CHECK_NUM(out->code, CODE_OK);
	CHECK_NUM(out->member->id, 2);
	CHECK_NUM(redeem(&s, hash, &third)->code, CODE_FAILED_PRECONDITION);
	create_join(&s, hash, 2000, 1);
	third.name = "n2";
	CHECK_NUM(redeem(&s, hash, &third)->code, CODE_ALREADY_EXISTS);
	create_join(&s, hash, 999, 1);
	third.name = "n3";
	CHECK_NUM(redeem(&s, hash, &third)->code, CODE_FAILED_PRECONDITION); /* expired */
	state_check_digest(&s);
	state_end(&s);
}

TEST(removed_members_stay_known_and_their_names_are_free)
{
	ProtobufCBinaryData a = { 1, (uint8_t *)"a" };
	Pb__Member first = member_of("n1", &a), **members;
	Pb__MemberRemove in = PB__MEMBER_REMOVE__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	struct err err = { 0 };
	struct state s;
	size_t n;

	state_begin(&s);
	CHECK_NUM(found(&s, &first)->code, CODE_OK);
	in.id = 1;
	command.kind_case = PB__COMMAND__KIND_MEMBER_REMOVE;
	command.member_remove = &in;
	CHECK_NUM(carry_out(&s, &command)->code, CODE_OK);
	CHECK_NUM(carry_out(&s, &command)->code, CODE_NOT_FOUND);
	CHECK_CODE(view_members(state_view(&s), s.arena, &members, &n, &err), CODE_OK);
	CHECK_NUM(n, 1);
	CHECK(members[0]->removed);
	state_check_digest(&s);
	state_end(&s);
}

/* One token command in a parcel of that origin; was it carried out? */
static bool parcel(struct state *s, uint64_t boot, uint64_t sequence)
{
	static uint8_t number;
	Pb__TokenCreate in = PB__TOKEN_CREATE__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	struct store_item item = { .command = &command };
	struct store_parcel parcel = { .boot = boot, .sequence = sequence, .items = &item, .n = 1 };
	struct store_step step = { .index = store_applied(s->store) + 1, .term = 3, .stamp_ms = 5, .parcels = &parcel, .n_parcels = 1 };
	struct err err = { 0 };

	in.hash = (ProtobufCBinaryData){ 1, &number };
	number++;
	command.format = COMMAND_FORMAT;
	command.kind_case = PB__COMMAND__KIND_TOKEN_CREATE;
	command.token_create = &in;
	CHECK_CODE(store_apply_step(s->store, &step, s->arena, &err), CODE_OK);
	return !parcel.repeated;
}

TEST(a_parcel_is_carried_out_once)
{
	struct state s;

	state_begin(&s);
	CHECK(parcel(&s, 7, 1));
	CHECK(!parcel(&s, 7, 1));
	CHECK(parcel(&s, 8, 1)); /* another start */
	CHECK(parcel(&s, 7, 3));
	CHECK(parcel(&s, 7, 2)); /* late, and for the first time */
	CHECK(!parcel(&s, 7, 2));
	CHECK(!parcel(&s, 7, 3));
	CHECK(parcel(&s, 7, 5000));
	CHECK(!parcel(&s, 7, 4)); /* below the window */
	CHECK(parcel(&s, 7, 4999));
	CHECK(!parcel(&s, 7, 4999));
	state_reopen(&s);
	CHECK(!parcel(&s, 7, 4999));
	state_check_digest(&s);
	state_end(&s);
}

TEST(the_triple_stands_with_the_rows)
{
	struct store_step step = { .index = 9, .term = 4, .stamp_ms = 5, .conf = { (const uint8_t *)"conf", 4 } };
	struct store_triple triple;
	struct err err = { 0 };
	struct state s;

	state_begin(&s);
	CHECK_CODE(store_triple(s.store, s.arena, &triple, &err), CODE_OK);
	CHECK_NUM(triple.conf_index, 0);
	CHECK_CODE(store_apply_step(s.store, &step, s.arena, &err), CODE_OK);
	step = (struct store_step){ .index = 10, .term = 5, .stamp_ms = 5 };
	CHECK_CODE(store_apply_step(s.store, &step, s.arena, &err), CODE_OK);
	state_reopen(&s);
	CHECK_CODE(store_triple(s.store, s.arena, &triple, &err), CODE_OK);
	CHECK_NUM(triple.index, 10);
	CHECK_NUM(triple.term, 5);
	CHECK_NUM(triple.conf_index, 9);
	CHECK_BYTES(triple.conf.data, "conf", 4);
	state_end(&s);
}
