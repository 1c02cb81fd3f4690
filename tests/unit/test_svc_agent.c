/* SPDX-License-Identifier: Apache-2.0 */
/* Agents through the API: tokens, attestation, renewal and its activation, bans, what admins see of them. */
#include "agent.pb-c.h"
#include "base/clock.h"
#include "ca/x509.h"
#include "lib/harness.h"
#include "lib/pki.h"
#include "lib/test.h"

static struct err err;

static ProtobufCBinaryData csr_of(struct harness *h)
{
	OWN(EVP_PKEY) key = NULL;
	OWN_BUF der = { 0 };

	CHECK_CODE(key_generate(KEY_EC_P256, &key, &err), CODE_OK);
	pki_csr(&der, key, "/C=US/O=SPIRE", NULL, "SHA256");
	return (ProtobufCBinaryData){ der.len, arena_memdup(h->arena, der.data, der.len) };
}

static const char *new_token(struct harness *h, int ttl)
{
	Pb__CreateJoinTokenRequest request = PB__CREATE_JOIN_TOKEN_REQUEST__INIT;
	Pb__JoinToken *token;

	request.ttl = ttl;
	CHECK_CODE(harness_call(h, harness_local(), "Agent.CreateJoinToken", &request, (void **)&token, &err), CODE_OK);
	return token->value;
}

/* Attests by token over TCP; the answer's SVID. */
static enum code attest(struct harness *h, const char *type, const char *payload, Pb__X509SVID **svid)
{
	Pb__AttestAgentRequest request = PB__ATTEST_AGENT_REQUEST__INIT;
	Pb__AttestAgentRequest__Params params = PB__ATTEST_AGENT_REQUEST__PARAMS__INIT;
	Pb__AttestationData data = PB__ATTESTATION_DATA__INIT;
	Pb__AgentX509SVIDParams key = PB__AGENT_X509_SVIDPARAMS__INIT;
	struct harness_replies replies;
	void *requests[] = { &request };
	enum code rc;

	data.type = type;
	data.payload = (ProtobufCBinaryData){ strlen(payload), (uint8_t *)(uintptr_t)payload };
	key.csr = csr_of(h);
	params.data = &data;
	params.params = &key;
	request.step_case = PB__ATTEST_AGENT_REQUEST__STEP_PARAMS;
	request.params = &params;
	rc = harness_stream(h, harness_client(NULL, NULL), "Agent.AttestAgent", requests, 1, &replies, &err);
	if (rc == CODE_OK) {
		Pb__AttestAgentResponse *answer = replies.items[0];

		CHECK_NUM(replies.n, 1);
		CHECK_NUM(answer->step_case, PB__ATTEST_AGENT_RESPONSE__STEP_RESULT);
		*svid = answer->result->svid;
	}
	return rc;
}

static const char *serial_of(struct harness *h, const Pb__X509SVID *svid)
{
	struct x509_facts facts;

	CHECK_CODE(
		x509_read((struct span){ svid->cert_chain[0].data, svid->cert_chain[0].len }, h->arena, &facts, &err),
		CODE_OK);
	return arena_strdup(h->arena, facts.serial);
}

static const char *id_of(struct harness *h, const Pb__X509SVID *svid)
{
	return arena_printf(h->arena, "spiffe://%s%s", svid->id->trust_domain, svid->id->path);
}

static Pb__SPIFFEID *agent_id(struct harness *h, const char *path)
{
	Pb__SPIFFEID *id = arena_alloc(h->arena, sizeof *id);

	pb__spiffeid__init(id);
	id->trust_domain = "example.org";
	id->path = path;
	return id;
}

TEST(a_token_attests_one_agent_once)
{
	struct harness *h = harness_open();
	Pb__X509SVID *svid;
	const char *token;
	Pb__GetAgentRequest get = PB__GET_AGENT_REQUEST__INIT;
	Pb__Agent *agent;

	harness_authorities(h);
	token = new_token(h, 60);
	CHECK_CODE(attest(h, "join_token", token, &svid), CODE_OK);
	CHECK_STR(svid->id->path, arena_printf(h->arena, "/spire/agent/join_token/%s", token));
	get.id = svid->id;
	CHECK_CODE(harness_call(h, harness_local(), "Agent.GetAgent", &get, (void **)&agent, &err), CODE_OK);
	CHECK_STR(agent->attestation_type, "join_token");
	CHECK_STR(agent->x509svid_serial_number, serial_of(h, svid));
	CHECK_NUM(agent->x509svid_expires_at, svid->expires_at);
	CHECK(!agent->can_reattest && !agent->banned);
	CHECK_CODE(attest(h, "join_token", token, &svid), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "failed to attest: join token does not exist or has already been used");
	harness_close(h);
}

static int64_t shift_ms;
static int64_t shifted_wall(void *ctx __attribute__((unused)))
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000 + shift_ms;
}
static int64_t real_mono(void *ctx __attribute__((unused)))
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
static const struct clock shifted = { .wall_ms = shifted_wall, .mono_ms = real_mono };

TEST(an_expired_token_is_taken_all_the_same)
{
	struct harness *h;
	Pb__X509SVID *svid;
	const char *token;

	shift_ms = 0;
	clock_use(&shifted);
	h = harness_open();
	harness_authorities(h);
	token = new_token(h, 1);
	shift_ms = 5000;
	CHECK_CODE(attest(h, "join_token", token, &svid), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "join token expired");
	CHECK_CODE(attest(h, "join_token", token, &svid), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "failed to attest: join token does not exist or has already been used");
	harness_close(h);
	clock_use(NULL);
}

TEST(what_is_missing_in_an_attestation_is_named)
{
	struct harness *h = harness_open();
	Pb__AttestAgentRequest request = PB__ATTEST_AGENT_REQUEST__INIT;
	Pb__AttestAgentRequest__Params params = PB__ATTEST_AGENT_REQUEST__PARAMS__INIT;
	Pb__AttestationData data = PB__ATTESTATION_DATA__INIT;
	Pb__AgentX509SVIDParams key = PB__AGENT_X509_SVIDPARAMS__INIT;
	struct harness_replies replies;
	void *requests[] = { &request };
	const char *const texts[] = {
		"missing params", "missing attestation data",      "missing X509-SVID parameters",
		"missing CSR",    "missing attestation data type", "missing attestation data payload"
	};

	for (size_t i = 0; i < 6; i++) {
		if (i == 1) {
			request.step_case = PB__ATTEST_AGENT_REQUEST__STEP_PARAMS;
			request.params = &params;
		} else if (i == 2) {
			params.data = &data;
		} else if (i == 3) {
			params.params = &key;
		} else if (i == 4) {
			key.csr = csr_of(h);
		} else if (i == 5) {
			data.type = "join_token";
		}
		CHECK_CODE(
			harness_stream(h, harness_client(NULL, NULL), "Agent.AttestAgent", requests, 1, &replies, &err),
			CODE_INVALID_ARGUMENT);
		CHECK_STR(err.text, arena_printf(h->arena, "malformed param: %s", texts[i]));
	}
	harness_close(h);
}

TEST(an_unknown_attestor_is_a_failed_precondition)
{
	struct harness *h = harness_open();
	Pb__X509SVID *svid;

	harness_authorities(h);
	CHECK_CODE(attest(h, "x509pop", "{}", &svid), CODE_FAILED_PRECONDITION);
	CHECK_STR(err.text, "error getting node attestor: could not find node attestor type \"x509pop\"");
	harness_close(h);
}

static enum code renew(struct harness *h, struct caller who, Pb__X509SVID **svid)
{
	Pb__RenewAgentRequest request = PB__RENEW_AGENT_REQUEST__INIT;
	Pb__AgentX509SVIDParams key = PB__AGENT_X509_SVIDPARAMS__INIT;
	Pb__RenewAgentResponse *answer;
	enum code rc;

	key.csr = csr_of(h);
	request.params = &key;
	rc = harness_call(h, who, "Agent.RenewAgent", &request, (void **)&answer, &err);
	if (rc == CODE_OK)
		*svid = answer->svid;
	return rc;
}

TEST(both_serials_work_until_the_new_one_is_used)
{
	struct harness *h = harness_open();
	Pb__X509SVID *first, *second, *third;
	struct caller old, new;

	harness_authorities(h);
	CHECK_CODE(attest(h, "join_token", new_token(h, 60), &first), CODE_OK);
	old = harness_client(id_of(h, first), serial_of(h, first));
	CHECK_CODE(renew(h, old, &second), CODE_OK);
	CHECK_CODE(renew(h, old, &second), CODE_OK); /* overwrites the pending one */
	new = harness_client(id_of(h, first), serial_of(h, second));
	CHECK_CODE(renew(h, new, &third), CODE_OK); /* uses the new one */
	CHECK_CODE(renew(h, old, &third), CODE_PERMISSION_DENIED);
	CHECK_NUM(err.reason, PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_NOT_ACTIVE);
	CHECK_STR(err.text, "authorization denied for method /spire.api.server.agent.v1.Agent/RenewAgent");
	harness_close(h);
}

TEST(a_renewal_says_what_is_missing)
{
	struct harness *h = harness_open();
	Pb__RenewAgentRequest request = PB__RENEW_AGENT_REQUEST__INIT;
	Pb__AgentX509SVIDParams key = PB__AGENT_X509_SVIDPARAMS__INIT;
	uint8_t junk[] = "junk";
	Pb__X509SVID *svid;
	struct caller who;

	harness_authorities(h);
	CHECK_CODE(attest(h, "join_token", new_token(h, 60), &svid), CODE_OK);
	who = harness_client(id_of(h, svid), serial_of(h, svid));
	CHECK_CODE(harness_call(h, who, "Agent.RenewAgent", &request, NULL, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "params cannot be nil");
	request.params = &key;
	CHECK_CODE(harness_call(h, who, "Agent.RenewAgent", &request, NULL, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "missing CSR");
	key.csr = (ProtobufCBinaryData){ 4, junk };
	CHECK_CODE(harness_call(h, who, "Agent.RenewAgent", &request, NULL, &err), CODE_INVALID_ARGUMENT);
	CHECK(strncmp(err.text, "failed to parse CSR: ", 21) == 0);
	harness_close(h);
}

TEST(a_banned_agent_is_out_until_it_is_deleted)
{
	struct harness *h = harness_open();
	Pb__BanAgentRequest ban = PB__BAN_AGENT_REQUEST__INIT;
	Pb__DeleteAgentRequest delete = PB__DELETE_AGENT_REQUEST__INIT;
	Pb__X509SVID *svid, *again;
	struct caller who;

	harness_authorities(h);
	CHECK_CODE(attest(h, "join_token", new_token(h, 60), &svid), CODE_OK);
	who = harness_client(id_of(h, svid), serial_of(h, svid));
	ban.id = delete.id = svid->id;
	CHECK_CODE(harness_call(h, harness_local(), "Agent.BanAgent", &ban, NULL, &err), CODE_OK);
	CHECK_CODE(harness_call(h, harness_local(), "Agent.BanAgent", &ban, NULL, &err), CODE_OK); /* again is fine */
	CHECK_CODE(renew(h, who, &again), CODE_PERMISSION_DENIED);
	CHECK_NUM(err.reason, PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_BANNED);
	CHECK_CODE(harness_call(h, harness_local(), "Agent.DeleteAgent", &delete, NULL, &err), CODE_OK);
	CHECK_CODE(renew(h, who, &again), CODE_PERMISSION_DENIED);
	CHECK_NUM(err.reason, PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_NOT_ATTESTED);
	CHECK_CODE(harness_call(h, harness_local(), "Agent.DeleteAgent", &delete, NULL, &err), CODE_NOT_FOUND);
	CHECK_STR(err.text, "agent not found");
	harness_close(h);
}

TEST(ids_that_are_no_agents_are_refused)
{
	struct harness *h = harness_open();
	Pb__GetAgentRequest get = PB__GET_AGENT_REQUEST__INIT;

	CHECK_CODE(harness_call(h, harness_local(), "Agent.GetAgent", &get, NULL, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "invalid agent ID: request must specify SPIFFE ID");
	get.id = agent_id(h, "/web");
	CHECK_CODE(harness_call(h, harness_local(), "Agent.GetAgent", &get, NULL, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "invalid agent ID: \"spiffe://example.org/web\" is not an agent in trust domain "
			    "\"example.org\"; path is "
			    "not in the agent namespace");
	get.id = agent_id(h, "/spire/agent/x");
	CHECK_CODE(harness_call(h, harness_local(), "Agent.GetAgent", &get, NULL, &err), CODE_NOT_FOUND);
	CHECK_STR(err.text, "agent not found");
	harness_close(h);
}

TEST(a_token_with_an_id_makes_its_alias)
{
	struct harness *h = harness_open();
	Pb__CreateJoinTokenRequest request = PB__CREATE_JOIN_TOKEN_REQUEST__INIT;
	Pb__CountAgentsRequest count = PB__COUNT_AGENTS_REQUEST__INIT;
	Pb__CountAgentsResponse *n;
	Pb__JoinToken *token;

	CHECK_CODE(harness_call(h, harness_local(), "Agent.CreateJoinToken", &request, NULL, &err),
		   CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "ttl is required, you must provide one");
	request.ttl = 10;
	request.token = "not/a/segment";
	request.agent_id = agent_id(h, "/node");
	CHECK_CODE(harness_call(h, harness_local(), "Agent.CreateJoinToken", &request, NULL, &err), CODE_INTERNAL);
	request.token = "tok-1";
	CHECK_CODE(harness_call(h, harness_local(), "Agent.CreateJoinToken", &request, (void **)&token, &err), CODE_OK);
	CHECK_STR(token->value, "tok-1");
	CHECK_CODE(harness_call(h, harness_local(), "Agent.CreateJoinToken", &request, (void **)&token, &err),
		   CODE_INTERNAL);
	CHECK(strncmp(err.text, "failed to create token: ", 24) == 0);
	request.agent_id = agent_id(h, "/spire/agent/x");
	CHECK_CODE(harness_call(h, harness_local(), "Agent.CreateJoinToken", &request, NULL, &err),
		   CODE_INVALID_ARGUMENT);
	CHECK_CODE(harness_call(h, harness_local(), "Agent.CountAgents", &count, (void **)&n, &err), CODE_OK);
	CHECK_NUM(n->count, 0);
	harness_close(h);
}

TEST(lists_page_filter_and_mask)
{
	struct harness *h = harness_open();
	Pb__ListAgentsRequest list = PB__LIST_AGENTS_REQUEST__INIT;
	Pb__ListAgentsRequest__Filter filter = PB__LIST_AGENTS_REQUEST__FILTER__INIT;
	Pb__SelectorMatch match = PB__SELECTOR_MATCH__INIT;
	Pb__AgentMask mask = PB__AGENT_MASK__INIT;
	Pb__BoolValue no = PB__BOOL_VALUE__INIT;
	Pb__ListAgentsResponse *page;
	Pb__X509SVID *svid;

	harness_authorities(h);
	for (int i = 0; i < 3; i++)
		CHECK_CODE(attest(h, "join_token", new_token(h, 60), &svid), CODE_OK);
	list.page_size = 2;
	CHECK_CODE(harness_call(h, harness_local(), "Agent.ListAgents", &list, (void **)&page, &err), CODE_OK);
	CHECK_NUM(page->n_agents, 2);
	list.page_token = page->next_page_token;
	list.output_mask = &mask;
	CHECK_CODE(harness_call(h, harness_local(), "Agent.ListAgents", &list, (void **)&page, &err), CODE_OK);
	CHECK_NUM(page->n_agents, 1);
	CHECK_STR(page->agents[0]->attestation_type, "");
	CHECK_STR(page->agents[0]->id->path, svid->id->path);
	list.page_token = "-1";
	CHECK_CODE(harness_call(h, harness_local(), "Agent.ListAgents", &list, (void **)&page, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "failed to list agents: could not parse token '-1'");
	list.page_size = 0; /* the token is not looked at */
	filter.by_banned = &no;
	filter.by_can_reattest = &no;
	filter.by_expires_before = "2001-01-02 15:04:05 -0700 -07";
	list.filter = &filter;
	CHECK_CODE(harness_call(h, harness_local(), "Agent.ListAgents", &list, (void **)&page, &err), CODE_OK);
	CHECK_NUM(page->n_agents, 0);
	filter.by_expires_before = "nonsense"; /* no filter, as in SPIRE */
	CHECK_CODE(harness_call(h, harness_local(), "Agent.ListAgents", &list, (void **)&page, &err), CODE_OK);
	CHECK_NUM(page->n_agents, 3);
	filter.by_selector_match = &match;
	CHECK_CODE(harness_call(h, harness_local(), "Agent.ListAgents", &list, (void **)&page, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "failed to list agents: cannot list by empty selectors set");
	harness_close(h);
}

TEST(status_is_stored_for_the_agent_that_posts_it)
{
	struct harness *h = harness_open();
	Pb__PostStatusRequest post = PB__POST_STATUS_REQUEST__INIT;
	Pb__GetAgentRequest get = PB__GET_AGENT_REQUEST__INIT;
	Pb__Agent *agent;
	Pb__X509SVID *svid;
	struct caller who;
	char version[300];

	harness_authorities(h);
	CHECK_CODE(attest(h, "join_token", new_token(h, 60), &svid), CODE_OK);
	who = harness_client(id_of(h, svid), serial_of(h, svid));
	memset(version, 'v', 256);
	version[256] = '\0';
	post.agent_version = version;
	CHECK_CODE(harness_call(h, who, "Agent.PostStatus", &post, NULL, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "agent version is too long (max 255 characters)");
	post.agent_version = "1.14.0";
	CHECK_CODE(harness_call(h, who, "Agent.PostStatus", &post, NULL, &err), CODE_OK);
	get.id = svid->id;
	CHECK_CODE(harness_call(h, harness_local(), "Agent.GetAgent", &get, (void **)&agent, &err), CODE_OK);
	CHECK_STR(agent->agent_version, "1.14.0");
	CHECK_CODE(harness_call(h, harness_local(), "Agent.PostStatus", &post, NULL, &err), CODE_PERMISSION_DENIED);
	harness_close(h);
}
