/* SPDX-License-Identifier: Apache-2.0 */
/* Agents and join tokens. Serial numbers, bans, what is pruned: also under random commands in test_store_random.c. */
#include "lib/state.h"

#define ID "spiffe://example.org/spire/agent/t/1"

static Pb__AgentAttest attest_of(struct state *s, const char *id, const char *serial, int64_t not_after)
{
	Pb__AgentAttest message = PB__AGENT_ATTEST__INIT;
	Pb__AgentSvid *svid = arena_alloc(s->arena, sizeof *svid);

	*svid = (Pb__AgentSvid)PB__AGENT_SVID__INIT;
	svid->serial = serial;
	svid->not_before = 1;
	svid->not_after = not_after;
	message.id = id;
	message.attestation_type = "t";
	message.svid = svid;
	return message;
}

static Pb__Outcome *attest(struct state *s, const char *id, const char *serial)
{
	Pb__AgentAttest message = attest_of(s, id, serial, 2000000);

	return state_do(s, PB__COMMAND__KIND_AGENT_ATTEST, &message);
}

static Pb__Outcome *renew(struct state *s, const char *id, const char *presented, const char *serial)
{
	Pb__AgentRenew message = PB__AGENT_RENEW__INIT;
	Pb__AgentSvid svid = PB__AGENT_SVID__INIT;

	svid.serial = serial;
	svid.not_before = 10;
	svid.not_after = 3000000;
	message.id = id;
	message.presented = presented;
	message.svid = &svid;
	return state_do(s, PB__COMMAND__KIND_AGENT_RENEW, &message);
}

static Pb__Outcome *activate(struct state *s, const char *id, const char *serial)
{
	Pb__AgentActivate message = PB__AGENT_ACTIVATE__INIT;

	message.id = id;
	message.serial = serial;
	return state_do(s, PB__COMMAND__KIND_AGENT_ACTIVATE, &message);
}

static Pb__Outcome *ban(struct state *s, const char *id)
{
	Pb__AgentBan message = PB__AGENT_BAN__INIT;

	message.id = id;
	return state_do(s, PB__COMMAND__KIND_AGENT_BAN, &message);
}

static Pb__Outcome *evict(struct state *s, const char *id)
{
	Pb__AgentDelete message = PB__AGENT_DELETE__INIT;

	message.id = id;
	return state_do(s, PB__COMMAND__KIND_AGENT_DELETE, &message);
}

static struct agent_record get(struct state *s, const char *id)
{
	struct err err = { 0 };
	struct agent_record out;

	CHECK_CODE(view_agent(state_view(s), id, s->arena, &out, &err), CODE_OK);
	return out;
}

static void check_refused(const Pb__Outcome *out, enum code code, int reason, const char *message)
{
	CHECK_STR(out->message, message);
	CHECK_NUM(out->code, code);
	CHECK_NUM(out->reason, reason);
}

enum { BANNED = 4, NOT_ACTIVE = 3, MUST_REATTEST = 5 }; /* PermissionDeniedDetails.Reason */

TEST(renewed_serial_waits_for_its_first_use)
{
	struct state s;
	struct agent_record agent;

	state_begin(&s);
	CHECK_NUM(attest(&s, ID, "100")->code, CODE_OK);
	CHECK_NUM(renew(&s, ID, "100", "200")->code, CODE_OK);
	agent = get(&s, ID);
	CHECK_STR(agent.serial, "100");
	CHECK_NUM(agent.not_after, 2000000);
	CHECK_STR(agent.new_serial, "200");
	CHECK_NUM(agent.new_not_before, 10);
	CHECK_NUM(agent.new_not_after, 3000000);
	CHECK_NUM(renew(&s, ID, "100", "201")->code, CODE_OK); /* overwrites the pending one */
	check_refused(activate(&s, ID, "200"), CODE_PERMISSION_DENIED, NOT_ACTIVE, "agent is not active");
	CHECK(activate(&s, ID, "201")->changed);
	agent = get(&s, ID);
	CHECK_STR(agent.serial, "201");
	CHECK_STR(agent.new_serial, "");
	CHECK_NUM(agent.not_before, 10);
	CHECK_NUM(agent.not_after, 3000000);
	CHECK(!activate(&s, ID, "201")->changed); /* another call was faster */
	check_refused(renew(&s, ID, "100", "300"), CODE_PERMISSION_DENIED, NOT_ACTIVE, "agent is not active");
	CHECK_NUM(renew(&s, ID, "201", "301")->code, CODE_OK);
	CHECK_NUM(renew(&s, ID, "301", "302")->code, CODE_OK); /* presented the pending one: that is its first use */
	agent = get(&s, ID);
	CHECK_STR(agent.serial, "301");
	CHECK_STR(agent.new_serial, "302");
	CHECK_NUM(agent.incarnation, 1);
	state_check_digest(&s);
	state_end(&s);
}

TEST(attestation_ends_both_serials)
{
	struct state s;
	struct agent_record agent;
	Pb__AgentAttest message;

	state_begin(&s);
	attest(&s, ID, "100");
	renew(&s, ID, "100", "200");
	message = attest_of(&s, ID, "300", 5000000);
	message.attestation_type = "other";
	message.can_reattest = true;
	CHECK_NUM(state_do(&s, PB__COMMAND__KIND_AGENT_ATTEST, &message)->code, CODE_OK);
	agent = get(&s, ID);
	CHECK_STR(agent.serial, "300");
	CHECK_STR(agent.new_serial, "");
	CHECK_STR(agent.attestation_type, "t"); /* is not changed */
	CHECK(agent.can_reattest);
	CHECK_NUM(agent.incarnation, 2);
	CHECK_NUM(agent.seq, 1);
	check_refused(renew(&s, ID, "300", "301"), CODE_PERMISSION_DENIED, MUST_REATTEST,
		      "agent must reattest instead of renew");
	state_end(&s);
}

TEST(selectors_are_replaced_sorted_and_once)
{
	struct state s;
	struct err err = { 0 };
	Pb__AgentAttest message;
	Pb__Selector **selectors;
	size_t n;

	state_begin(&s);
	message = attest_of(&s, ID, "1", 2000000);
	message.selectors = state_selectors(&s, "b:2 a:1 b:1 a:1", &message.n_selectors);
	state_do(&s, PB__COMMAND__KIND_AGENT_ATTEST, &message);
	CHECK_CODE(view_agent_selectors(state_view(&s), ID, s.arena, &selectors, &n, &err), CODE_OK);
	CHECK_NUM(n, 3);
	CHECK_STR(selectors[0]->type, "a");
	CHECK_STR(selectors[1]->value, "1");
	CHECK_STR(selectors[2]->value, "2");
	attest(&s, ID, "2");
	CHECK_CODE(view_agent_selectors(state_view(&s), ID, s.arena, &selectors, &n, &err), CODE_OK);
	CHECK_NUM(n, 0);
	CHECK_CODE(view_agent_selectors(state_view(&s), "spiffe://example.org/none", s.arena, &selectors, &n, &err),
		   CODE_NOT_FOUND);
	state_check_empty(&s, "agent_selectors");
	state_end(&s);
}

TEST(ban_outlives_everything_but_delete)
{
	struct state s;
	struct agent_record agent;

	state_begin(&s);
	check_refused(ban(&s, ID), CODE_NOT_FOUND, 0, "agent not found");
	attest(&s, ID, "100");
	renew(&s, ID, "100", "200");
	CHECK(ban(&s, ID)->changed);
	CHECK_NUM(ban(&s, ID)->code, CODE_OK);
	agent = get(&s, ID);
	CHECK_STR(agent.serial, "");
	CHECK_STR(agent.new_serial, "");
	CHECK_NUM(agent.not_after, 2000000); /* still shown */
	check_refused(attest(&s, ID, "300"), CODE_PERMISSION_DENIED, 0, "failed to attest: agent is banned");
	check_refused(renew(&s, ID, "100", "300"), CODE_PERMISSION_DENIED, BANNED, "agent is banned");
	check_refused(activate(&s, ID, "200"), CODE_PERMISSION_DENIED, BANNED, "agent is banned");
	check_refused(activate(&s, ID, ""), CODE_PERMISSION_DENIED, BANNED, "agent is banned");
	CHECK_NUM(evict(&s, ID)->code, CODE_OK);
	check_refused(evict(&s, ID), CODE_NOT_FOUND, 0, "agent not found");
	check_refused(renew(&s, ID, "100", "300"), CODE_NOT_FOUND, 0, "agent not found");
	check_refused(activate(&s, ID, "200"), CODE_NOT_FOUND, 0, "agent not found");
	CHECK_NUM(attest(&s, ID, "300")->code, CODE_OK);
	CHECK_NUM(get(&s, ID).seq, 2);
	state_end(&s);
}

TEST(tofu_attestor_attests_once)
{
	struct state s;
	Pb__AgentAttest message;

	state_begin(&s);
	message = attest_of(&s, ID, "1", 2000000);
	message.must_be_new = true;
	CHECK_NUM(state_do(&s, PB__COMMAND__KIND_AGENT_ATTEST, &message)->code, CODE_OK);
	check_refused(state_do(&s, PB__COMMAND__KIND_AGENT_ATTEST, &message), CODE_PERMISSION_DENIED, 0,
		      "nodeattestor(t): attestation data has already been used to attest an agent");
	message.svid = NULL;
	CHECK_NUM(state_do(&s, PB__COMMAND__KIND_AGENT_ATTEST, &message)->code, CODE_INVALID_ARGUMENT);
	state_end(&s);
}

static Pb__Outcome *token_create(struct state *s, const char *token, int64_t expires_at, Pb__Entry *alias)
{
	Pb__TokenCreate message = PB__TOKEN_CREATE__INIT;
	uint8_t hash[32];

	store_token_hash(token, hash);
	message.hash = (ProtobufCBinaryData){ sizeof hash, hash };
	message.expires_at = expires_at;
	message.alias = alias;
	return state_do(s, PB__COMMAND__KIND_TOKEN_CREATE, &message);
}

static Pb__Outcome *token_attest(struct state *s, const char *token)
{
	Pb__AgentAttest message = attest_of(
		s, arena_printf(s->arena, "spiffe://example.org/spire/agent/join_token/%s", token), "1", 2000000);
	uint8_t hash[32];

	store_token_hash(token, hash);
	message.attestation_type = "join_token";
	message.token_hash = (ProtobufCBinaryData){ sizeof hash, hash };
	return state_do(s, PB__COMMAND__KIND_AGENT_ATTEST, &message);
}

#define NO_TOKEN "failed to attest: join token does not exist or has already been used"

TEST(join_token_is_taken_once)
{
	struct state s;
	struct err err = { 0 };
	int64_t expires_at;

	state_begin(&s);
	check_refused(token_attest(&s, "t1"), CODE_INVALID_ARGUMENT, 0, NO_TOKEN);
	CHECK_NUM(token_create(&s, "t1", 1000600, NULL)->code, CODE_OK);
	check_refused(token_create(&s, "t1", 1000600, NULL), CODE_INTERNAL, 0,
		      "datastore-sql: UNIQUE constraint failed: join_tokens.token");
	CHECK_CODE(view_token(state_view(&s), "t1", &expires_at, &err), CODE_OK);
	CHECK_NUM(expires_at, 1000600);
	CHECK_NUM(token_attest(&s, "t1")->code, CODE_OK);
	check_refused(token_attest(&s, "t1"), CODE_INVALID_ARGUMENT, 0, NO_TOKEN);
	CHECK_CODE(view_token(state_view(&s), "t1", &expires_at, &err), CODE_NOT_FOUND);
	/* expired: taken all the same */
	token_create(&s, "t2", 1000600, NULL);
	s.now_ms = INT64_C(1000600) * 1000;
	token_create(&s, "t3", 1000600, NULL);
	CHECK_NUM(token_attest(&s, "t3")->code, CODE_OK); /* the very millisecond */
	s.now_ms++;
	check_refused(token_attest(&s, "t2"), CODE_INVALID_ARGUMENT, 0, "join token expired");
	check_refused(token_attest(&s, "t2"), CODE_INVALID_ARGUMENT, 0, NO_TOKEN);
	/* so is that of a banned agent */
	token_create(&s, "t1", 2000000, NULL);
	ban(&s, "spiffe://example.org/spire/agent/join_token/t1");
	check_refused(token_attest(&s, "t1"), CODE_PERMISSION_DENIED, 0, "failed to attest: agent is banned");
	check_refused(token_attest(&s, "t1"), CODE_INVALID_ARGUMENT, 0, NO_TOKEN);
	state_check_digest(&s);
	state_end(&s);
}

TEST(token_makes_its_alias_and_the_agent_takes_it_along)
{
	struct state s;
	struct err err = { 0 };
	Pb__Outcome *out;
	uint64_t n;
	const char *parent = "/spire/agent/join_token/t1";
	const char *own = "spiffe_id:spiffe://example.org/spire/agent/join_token/t1";

	state_begin(&s);
	out = token_create(&s, "t1", 2000000, state_entry(&s, "alias", parent, "/db", own));
	CHECK_NUM(out->code, CODE_OK);
	CHECK_STR(out->entry->id, "alias");
	out = token_create(&s, "t2", 2000000, state_entry(&s, "other", parent, "/db", own)); /* a similar one is fine */
	CHECK_NUM(out->code, CODE_OK);
	CHECK_STR(out->entry->id, "alias");
	out = token_create(&s, "t3", 2000000, state_entry(&s, "bad id", parent, "/x", own));
	check_refused(out, CODE_INVALID_ARGUMENT, 0,
		      "failed to create join token registration entry: datastore-validation: invalid registration "
		      "entry: entry ID "
		      "contains invalid characters");
	CHECK_NUM(token_attest(&s, "t3")->code, CODE_OK); /* the token stays, as in SPIRE */
	CHECK_NUM(token_attest(&s, "t1")->code, CODE_OK);
	state_create(&s, state_entry(&s, "child", parent, "/child", "unix:uid:0"));
	state_create(&s, state_entry(&s, "more", parent, "/db", arena_printf(s.arena, "%s unix:uid:0", own)));
	CHECK_NUM(evict(&s, "spiffe://example.org/spire/agent/join_token/t1")->code, CODE_OK);
	CHECK_CODE(view_entry_count(state_view(&s), NULL, &n, &err), CODE_OK);
	CHECK_NUM(n, 2); /* the alias alone went */
	state_check_digest(&s);
	state_end(&s);
}

TEST(status_keeps_the_version)
{
	struct state s;
	Pb__AgentStatus message = PB__AGENT_STATUS__INIT;

	state_begin(&s);
	message.id = ID;
	message.agent_version = "1.14.0";
	check_refused(state_do(&s, PB__COMMAND__KIND_AGENT_STATUS, &message), CODE_NOT_FOUND, 0, "agent not found");
	attest(&s, ID, "1");
	CHECK(state_do(&s, PB__COMMAND__KIND_AGENT_STATUS, &message)->changed);
	CHECK(!state_do(&s, PB__COMMAND__KIND_AGENT_STATUS, &message)->changed);
	message.agent_version = "";
	CHECK(!state_do(&s, PB__COMMAND__KIND_AGENT_STATUS, &message)->changed);
	CHECK_STR(get(&s, ID).agent_version, "1.14.0");
	attest(&s, ID, "2");
	CHECK_STR(get(&s, ID).agent_version, "1.14.0");
	state_end(&s);
}

TEST(prune_takes_what_ended_and_can_come_back)
{
	struct state s;
	struct err err = { 0 };
	Pb__AgentPrune prune = PB__AGENT_PRUNE__INIT;
	uint64_t n;

	state_begin(&s);
	for (int i = 0; i < 6; i++) {
		Pb__AgentAttest message = attest_of(&s, arena_printf(s.arena, ID "%d", i),
						    arena_printf(s.arena, "%d", i + 1), 100 * (i + 1));

		message.can_reattest = i != 0;
		state_do(&s, PB__COMMAND__KIND_AGENT_ATTEST, &message);
	}
	ban(&s, ID "1");
	prune.before = 500;
	prune.limit = 1;
	CHECK_NUM(state_do(&s, PB__COMMAND__KIND_AGENT_PRUNE, &prune)->count, 1); /* 2: 0 is TOFU, 1 banned */
	prune.limit = 0;
	CHECK_NUM(state_do(&s, PB__COMMAND__KIND_AGENT_PRUNE, &prune)->count, 1); /* 3; 4 ends at 500 */
	prune.tofu = true;
	CHECK_NUM(state_do(&s, PB__COMMAND__KIND_AGENT_PRUNE, &prune)->count, 1); /* 0 */
	CHECK_CODE(view_agent_count(state_view(&s), NULL, &n, &err), CODE_OK);
	CHECK_NUM(n, 3);
	state_end(&s);
}
