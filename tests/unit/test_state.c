/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of a node's state (availability.md V1, V2) under a clock of the test's, and calls under each state. */
#include "agent.pb-c.h"
#include "api/header.h"
#include "api/state.h"
#include "base/clock.h"
#include "bundle.pb-c.h"
#include "entry.pb-c.h"
#include "lib/harness.h"
#include "lib/test.h"
#include "svid.pb-c.h"

enum { S = 1000 };

/* A machine that is stepped every 200 ms; each step with a leader is a confirmed round too. */
struct course {
	struct state_machine machine;
	struct state_facts facts;
};

static struct course begin(int64_t staleness_s, int64_t fresh_wall_ms)
{
	struct course course = { .facts = { .mono_ms = 50 * S,
					    .boot_ms = 70 * S,
					    .wall_ms = 1000000 * (int64_t)S,
					    .hears_leader = true,
					    .caught_up = true,
					    .can_sign = true } };

	state_machine_init(&course.machine, staleness_s * S, fresh_wall_ms);
	return course;
}

static void pass(struct course *course, int64_t ms)
{
	for (; ms >= 200; ms -= 200) {
		course->facts.mono_ms += 200;
		course->facts.boot_ms += 200;
		course->facts.wall_ms += 200;
		if (course->facts.hears_leader && course->facts.caught_up)
			state_machine_fresh(&course->machine, course->facts.boot_ms, course->facts.wall_ms);
		state_machine_step(&course->machine, &course->facts);
	}
}

#define CHECK_IN(course, want, want_open)                                                                              \
	do {                                                                                                           \
		CHECK_NUM((course).machine.state, want);                                                               \
		CHECK_NUM((course).machine.open, want_open);                                                           \
	} while (0)

TEST(a_joiner_is_out_until_it_is_led_and_confirmed)
{
	struct course course = begin(3600, 0);

	course.facts.hears_leader = false;
	pass(&course, 60 * S);
	CHECK_IN(course, STATE_OUT, false); /* never led: no budget, however long it waits */
	course.facts.hears_leader = true;
	state_machine_step(&course.machine, &course.facts);
	CHECK_IN(course, STATE_OUT, false); /* nobody has confirmed anything */
	pass(&course, 200);
	CHECK_IN(course, STATE_LED, true);
}

TEST(without_an_authority_it_is_out_from_the_start)
{
	struct course course = begin(3600, 0);

	course.facts.can_sign = false;
	pass(&course, 30 * S);
	CHECK_IN(course, STATE_OUT, false);
	CHECK_STR(course.machine.why, "it has no authority that agents can know yet");
	course.facts.can_sign = true;
	pass(&course, 200);
	CHECK_IN(course, STATE_LED, true);
	course.facts.can_sign = false; /* later it has 10 s to get one */
	pass(&course, 9 * S);
	CHECK_IN(course, STATE_LED, true);
	pass(&course, 2 * S);
	CHECK_IN(course, STATE_OUT, false);
}

TEST(a_leader_that_has_gone_is_waited_for)
{
	struct course course = begin(3600, 0);

	pass(&course, 1 * S);
	course.facts.hears_leader = false;
	pass(&course, 9 * S);
	CHECK_IN(course, STATE_LED, true);
	CHECK(!course.machine.leaderless);
	pass(&course, 1 * S);
	CHECK_IN(course, STATE_ALONE, true);
	CHECK(course.machine.leaderless);
	course.facts.hears_leader = true;
	pass(&course, 200);
	CHECK_IN(course, STATE_LED, true);
	CHECK(!course.machine.leaderless);
}

TEST(the_budget_ends)
{
	struct course course = begin(60, 0);

	pass(&course, 1 * S);
	course.facts.hears_leader = false;
	pass(&course, 59 * S);
	CHECK_IN(course, STATE_ALONE, true);
	CHECK_NUM(state_machine_age_ms(&course.machine, course.facts.boot_ms, course.facts.wall_ms), 59 * S);
	pass(&course, 8 * S); /* over: calls wait, the port stays for 10 s */
	CHECK_IN(course, STATE_ALONE, true);
	pass(&course, 4 * S);
	CHECK_IN(course, STATE_OUT, false);
	CHECK_STR(course.machine.why, "it hears no leader and its budget (max_staleness) is over");
	pass(&course, 600 * S);
	CHECK_IN(course, STATE_OUT, false);
	course.facts.hears_leader = true;
	pass(&course, 200);
	CHECK_IN(course, STATE_LED, true);
}

TEST(no_budget_at_all_is_no_state_alone)
{
	struct course course = begin(0, 0);

	pass(&course, 1 * S);
	CHECK_IN(course, STATE_LED, true);
	course.facts.hears_leader = false;
	pass(&course, 9 * S);
	CHECK_IN(course, STATE_LED, true); /* and calls wait: nothing may be said */
	pass(&course, 2 * S);
	CHECK_IN(course, STATE_OUT, false);
}

TEST(the_budget_counts_over_a_restart_and_not_backwards)
{
	struct course course = begin(60, 1000000 * (int64_t)S - 30 * S);

	course.facts.hears_leader = false;
	pass(&course, 9 * S);
	CHECK_IN(course, STATE_OUT, false); /* a leader may come: it is not alone at once */
	pass(&course, 2 * S);
	CHECK_IN(course, STATE_ALONE, true);
	pass(&course, 31 * S);
	CHECK_IN(course, STATE_OUT, false);

	course = begin(60, 1000000 * (int64_t)S + 30 * S); /* written in the future: the clock went back */
	course.facts.hears_leader = false;
	pass(&course, 20 * S);
	CHECK_IN(course, STATE_OUT, false);
}

TEST(the_longer_clock_counts)
{
	struct course course = begin(60, 0);

	pass(&course, 1 * S);
	course.facts.hears_leader = false;
	course.facts.boot_ms += 40 * S; /* the machine slept, and its wall clock was set back by as much */
	CHECK_NUM(state_machine_age_ms(&course.machine, course.facts.boot_ms, course.facts.wall_ms), 40 * S);
	course.facts.wall_ms += 50 * S;
	CHECK_NUM(state_machine_age_ms(&course.machine, course.facts.boot_ms, course.facts.wall_ms), 50 * S);
	state_machine_fresh(&course.machine, course.facts.boot_ms - 60 * S,
			    course.facts.wall_ms); /* an older round, late */
	CHECK_NUM(state_machine_age_ms(&course.machine, course.facts.boot_ms, course.facts.wall_ms), 50 * S);
}

TEST(a_node_that_lags_is_out)
{
	struct course course = begin(3600, 0);

	pass(&course, 1 * S);
	course.facts.caught_up = false; /* which takes 10 s already */
	pass(&course, 200);
	CHECK_IN(course, STATE_OUT, false);
	CHECK_STR(course.machine.why, "it lags behind its leader");
}

TEST(the_port_goes_out_and_back_once_in_30_s)
{
	struct course course = begin(3600, 0);

	pass(&course, 1 * S);
	course.facts.caught_up = false;
	pass(&course, 200);
	CHECK_IN(course, STATE_OUT, false);
	course.facts.caught_up = true;
	pass(&course, 200);
	CHECK_IN(course, STATE_LED, true);
	course.facts.caught_up = false;
	pass(&course, 20 * S);
	CHECK_IN(course, STATE_OUT, true); /* it refuses calls, and keeps the port */
	pass(&course, 11 * S);
	CHECK_IN(course, STATE_OUT, false);
}

/* --- calls --- */

#define AGENT_ID "spiffe://example.org/spire/agent/x509pop/one"

static void put_agent(struct harness *h)
{
	Pb__AgentAttest attest = PB__AGENT_ATTEST__INIT;
	Pb__AgentSvid svid = PB__AGENT_SVID__INIT;
	Pb__Command command = PB__COMMAND__INIT;

	svid.serial = "7";
	svid.not_before = clock_wall_s();
	svid.not_after = clock_wall_s() + 3600;
	attest.id = AGENT_ID;
	attest.attestation_type = "x509pop";
	attest.svid = &svid;
	command.kind_case = PB__COMMAND__KIND_AGENT_ATTEST;
	command.agent_attest = &attest;
	CHECK_NUM(harness_propose(h, &command)->code, CODE_OK);
}

static struct harness *open_as(enum node_state now)
{
	struct harness *h = harness_open();

	h->config->cluster.name = "n1";
	put_agent(h);
	h->server->state = state_for_test(h->server, now);
	return h;
}

static void close_it(struct harness *h)
{
	struct state *state = h->server->state;

	harness_close(h);
	state_close(state);
}

static const char *trailer(const struct harness *h, const char *name)
{
	return header_find(harness_last(h)->trailers, name);
}

TEST(alone_an_unknown_agent_is_not_denied)
{
	struct harness *h = open_as(STATE_ALONE);
	Pb__GetAuthorizedEntriesRequest request = PB__GET_AUTHORIZED_ENTRIES_REQUEST__INIT;
	struct caller unknown = harness_client("spiffe://example.org/spire/agent/x509pop/two", "1");
	struct caller other_serial = harness_client(AGENT_ID, "8"), known = harness_client(AGENT_ID, "7");
	struct err err = { 0 };

	CHECK_CODE(harness_call(h, known, "Entry.GetAuthorizedEntries", &request, NULL, &err), CODE_OK);
	CHECK_CODE(harness_call(h, unknown, "Entry.GetAuthorizedEntries", &request, NULL, &err), CODE_UNAVAILABLE);
	CHECK_STR(err.text, "no leader");
	CHECK_CODE(harness_call(h, other_serial, "Entry.GetAuthorizedEntries", &request, NULL, &err), CODE_UNAVAILABLE);
	state_force(h->server->state, STATE_LED);
	CHECK_CODE(harness_call(h, unknown, "Entry.GetAuthorizedEntries", &request, NULL, &err),
		   CODE_PERMISSION_DENIED);
	CHECK_CODE(harness_call(h, other_serial, "Entry.GetAuthorizedEntries", &request, NULL, &err),
		   CODE_PERMISSION_DENIED);
	close_it(h);
}

TEST(alone_admins_read_what_is_here_and_learn_its_age)
{
	struct harness *h = open_as(STATE_ALONE);
	Pb__CountAgentsRequest count = PB__COUNT_AGENTS_REQUEST__INIT;
	Pb__GetEntryRequest get = PB__GET_ENTRY_REQUEST__INIT;
	Pb__CountAgentsResponse *counted;
	struct err err = { 0 };
	void *reply;

	get.id = "none";
	CHECK_CODE(harness_call(h, harness_local(), "Agent.CountAgents", &count, &reply, &err), CODE_OK);
	counted = reply;
	CHECK_NUM(counted->count, 1);
	CHECK(trailer(h, NAME "-stale") != NULL);
	CHECK_CODE(harness_call(h, harness_local(), "Entry.GetEntry", &get, NULL, &err), CODE_UNAVAILABLE);
	state_force(h->server->state, STATE_LED);
	CHECK_CODE(harness_call(h, harness_local(), "Agent.CountAgents", &count, &reply, &err), CODE_OK);
	CHECK(trailer(h, NAME "-stale") == NULL);
	CHECK(trailer(h, NAME "-revision") != NULL);
	CHECK_CODE(harness_call(h, harness_local(), "Entry.GetEntry", &get, NULL, &err), CODE_NOT_FOUND);
	close_it(h);
}

TEST(alone_nothing_is_written)
{
	struct harness *h = open_as(STATE_ALONE);
	Pb__CreateJoinTokenRequest token = PB__CREATE_JOIN_TOKEN_REQUEST__INIT;
	struct err err = { 0 };

	token.ttl = 60;
	CHECK_CODE(harness_call(h, harness_local(), "Agent.CreateJoinToken", &token, NULL, &err), CODE_UNAVAILABLE);
	CHECK(strstr(err.text, "no leader") != NULL);
	state_force(h->server->state, STATE_LED);
	CHECK_CODE(harness_call(h, harness_local(), "Agent.CreateJoinToken", &token, NULL, &err), CODE_OK);
	close_it(h);
}

TEST(alone_attestation_and_renewal_come_later)
{
	struct harness *h = open_as(STATE_ALONE);
	Pb__AttestAgentRequest attest = PB__ATTEST_AGENT_REQUEST__INIT;
	Pb__AttestAgentRequest__Params params = PB__ATTEST_AGENT_REQUEST__PARAMS__INIT;
	Pb__AttestationData data = PB__ATTESTATION_DATA__INIT;
	Pb__AgentX509SVIDParams svid = PB__AGENT_X509_SVIDPARAMS__INIT;
	Pb__RenewAgentRequest renew = PB__RENEW_AGENT_REQUEST__INIT;
	void *const requests[] = { &attest };
	struct err err = { 0 };

	data.type = "join_token";
	data.payload = (ProtobufCBinaryData){ 5, (uint8_t *)"bogus" };
	svid.csr = (ProtobufCBinaryData){ 3, (uint8_t *)"csr" };
	params.data = &data;
	params.params = &svid;
	attest.step_case = PB__ATTEST_AGENT_REQUEST__STEP_PARAMS;
	attest.params = &params;
	CHECK_CODE(harness_stream(h, harness_client(NULL, NULL), "Agent.AttestAgent", requests, 1, NULL, &err),
		   CODE_UNAVAILABLE);
	CHECK_CODE(harness_call(h, harness_client(AGENT_ID, "7"), "Agent.RenewAgent", &renew, NULL, &err),
		   CODE_UNAVAILABLE);
	state_force(h->server->state, STATE_LED);
	CHECK_CODE(harness_stream(h, harness_client(NULL, NULL), "Agent.AttestAgent", requests, 1, NULL, &err),
		   CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "failed to attest: join token does not exist or has already been used");
	CHECK_CODE(harness_call(h, harness_client(AGENT_ID, "7"), "Agent.RenewAgent", &renew, NULL, &err),
		   CODE_INVALID_ARGUMENT);
	close_it(h);
}

TEST(alone_an_entry_that_is_not_here_fails_its_item_alone)
{
	struct harness *h = open_as(STATE_ALONE);
	Pb__BatchNewX509SVIDRequest batch = PB__BATCH_NEW_X509_SVIDREQUEST__INIT;
	Pb__NewX509SVIDParams one = PB__NEW_X509_SVIDPARAMS__INIT, *params[] = { &one, &one };
	Pb__NewJWTSVIDRequest jwt = PB__NEW_JWTSVIDREQUEST__INIT;
	Pb__BatchNewX509SVIDResponse *got;
	struct err err = { 0 };
	void *reply;

	harness_authorities(h);
	one.entry_id = "unknown";
	one.csr = (ProtobufCBinaryData){ 3, (uint8_t *)"csr" };
	batch.params = params;
	batch.n_params = 2;
	jwt.entry_id = "unknown";
	for (int led = 0; led <= 1; led++) {
		enum code want = led ? CODE_NOT_FOUND : CODE_UNAVAILABLE;

		state_force(h->server->state, led ? STATE_LED : STATE_ALONE);
		CHECK_CODE(
			harness_call(h, harness_client(AGENT_ID, "7"), "SVID.BatchNewX509SVID", &batch, &reply, &err),
			CODE_OK);
		got = reply;
		CHECK_NUM(got->n_results, 2);
		CHECK_NUM(got->results[0]->status->code, want);
		CHECK_NUM(got->results[1]->status->code, want);
		CHECK_CODE(harness_call(h, harness_client(AGENT_ID, "7"), "SVID.NewJWTSVID", &jwt, NULL, &err), want);
	}
	close_it(h);
}

TEST(alone_a_foreign_bundle_that_is_not_here_is_not_found_to_agents)
{
	struct harness *h = open_as(STATE_ALONE);
	Pb__GetFederatedBundleRequest request = PB__GET_FEDERATED_BUNDLE_REQUEST__INIT;
	struct err err = { 0 };

	request.trust_domain = "other.org";
	CHECK_CODE(harness_call(h, harness_client(AGENT_ID, "7"), "Bundle.GetFederatedBundle", &request, NULL, &err),
		   CODE_NOT_FOUND);
	CHECK_CODE(harness_call(h, harness_local(), "Bundle.GetFederatedBundle", &request, NULL, &err),
		   CODE_UNAVAILABLE);
	close_it(h);
}

TEST(out_only_the_local_socket_is_answered)
{
	struct harness *h = open_as(STATE_OUT);
	Pb__GetBundleRequest bundle = PB__GET_BUNDLE_REQUEST__INIT;
	Pb__CountAgentsRequest count = PB__COUNT_AGENTS_REQUEST__INIT;
	struct err err = { 0 };

	CHECK_CODE(harness_call(h, harness_client(NULL, NULL), "Bundle.GetBundle", &bundle, NULL, &err),
		   CODE_UNAVAILABLE);
	CHECK_STR(err.text, "node 'n1' is out of service: a test says so");
	CHECK_CODE(harness_call(h, harness_local(), "Agent.CountAgents", &count, NULL, &err), CODE_OK);
	close_it(h);
}
