/* SPDX-License-Identifier: Apache-2.0 */
/* Agent, as agents see it: attestation, renewal, status (contract server-api.md 4.1, section 7). An attestation that succeeds is
 * one command: it takes the token, writes the record and its selectors, or nothing of it (availability.md V5). */
#include "agent.pb-c.h"
#include "api/convert.h"
#include "api/server.h"
#include "api/state.h"
#include "api/svc.h"
#include "base/id.h"
#include "ca/csr.h"
#include "ca/x509.h"
#include "ca/x509pop.h"
#include "store/store.h"

#include <stdlib.h>
#include <string.h>

/* Who the attestor says this is. */
struct attested {
	const char *type;
	struct spiffe_id id;
	Pb__Selector **selectors;
	size_t n_selectors;
	bool can_reattest;
	uint8_t token_hash[32];
	bool by_token;
};

static enum code agent_svid(struct call *call, const char *agent_id, ProtobufCBinaryData csr_der, struct keyring **keyring,
			    struct x509_svid *svid)
{
	struct x509_request request = { .spiffe_id = agent_id, .ttl_s = call->server->config->agent_ttl_s, .now_s = call_now_s(call) };
	struct csr csr;

	if (csr_parse(csr_der.data, csr_der.len, call->arena, &csr, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INVALID_ARGUMENT, "failed to parse CSR");
	request.spki = csr.spki; /* all else is ignored, the signature too: 5.5 */
	*keyring = keyring_current(call->server->keyring);
	if (*keyring == NULL || (*keyring)->x509 == NULL)
		return call_cannot_sign(call, "failed to sign X509 SVID: X509 CA is not available for signing");
	if (x509_issue((*keyring)->x509, &request, call->arena, svid, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to sign X509 SVID");
	return CODE_OK;
}

static void svid_command(const struct x509_svid *svid, Pb__AgentSvid *out)
{
	pb__agent_svid__init(out);
	out->serial = svid->serial;
	out->not_before = svid->not_before_s;
	out->not_after = svid->not_after_s;
}

/* --- attestors --- */

/* A token that is not there is refused without a command; one that is there is taken by the command that writes the record. */
static enum code attest_token(struct call *call, const Pb__AttestationData *data, struct attested *out)
{
	const char *token = arena_strndup(call->arena, (const char *)data->payload.data, data->payload.len);
	OWN_STRUCT(view) view = NULL;
	int64_t expires_at;
	bool again = false;
	enum code rc;

	do {
		if (view == NULL)
			TRY(call_view(call, &view));
		rc = view_token(view, token, &expires_at, call->err);
		if (rc == CODE_NOT_FOUND)
			rc = call_no(call, &view,
				     err_set(call->err, CODE_INVALID_ARGUMENT,
					     "failed to attest: join token does not exist or has already been used"),
				     &again);
	} while (again);
	if (rc == CODE_INVALID_ARGUMENT || rc == CODE_UNAVAILABLE)
		return rc;
	if (rc != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to fetch join token");
	view_close(TAKE(view));
	if (id_check_segment(token, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to create join token ID");
	store_token_hash(token, out->token_hash);
	out->by_token = true;
	out->id.td = call->server->td;
	out->id.path = arena_printf(call->arena, "/spire/agent/join_token/%s", token);
	out->id.text = arena_printf(call->arena, "spiffe://%s%s", out->id.td, out->id.path);
	return CODE_OK;
}

static enum code own_authorities(struct call *call, struct x509pop_input *input)
{
	OWN_STRUCT(view) view = NULL;
	Pb__Bundle *bundle;
	struct span *roots;

	TRY(call_view(call, &view));
	TRY(view_bundle(view, call->server->td, call->arena, &bundle, call->err));
	roots = arena_alloc(call->arena, bundle->n_x509_authorities * sizeof *roots);
	for (size_t i = 0; i < bundle->n_x509_authorities; i++)
		roots[i] = (struct span){ bundle->x509_authorities[i]->asn1.data, bundle->x509_authorities[i]->asn1.len };
	input->bundle = roots;
	input->n_bundle = bundle->n_x509_authorities;
	return CODE_OK;
}

/* Sends a challenge and waits for the agent's answer to it. */
static enum code challenge_agent(struct call *call, struct span challenge, struct span *response)
{
	Pb__AttestAgentResponse out = PB__ATTEST_AGENT_RESPONSE__INIT;
	Pb__AttestAgentRequest *in;

	out.step_case = PB__ATTEST_AGENT_RESPONSE__STEP_CHALLENGE;
	out.challenge = (ProtobufCBinaryData){ challenge.len, (uint8_t *)challenge.data };
	if (call_send(call, &out) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to send challenge to agent");
	if (call_recv(call, &pb__attest_agent_request__descriptor, (void **)&in) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to receive challenge from agent");
	if (in == NULL)
		return err_set(call->err, CODE_INTERNAL, "failed to receive challenge from agent: EOF");
	*response = (struct span){ 0 };
	if (in->step_case == PB__ATTEST_AGENT_REQUEST__STEP_CHALLENGE_RESPONSE)
		*response = (struct span){ in->challenge_response.data, in->challenge_response.len };
	return CODE_OK;
}

static void take_selectors(struct call *call, const struct x509pop_result *from, struct attested *out)
{
	out->selectors = arena_alloc(call->arena, (from->n_selectors + 1) * sizeof *out->selectors);
	for (size_t i = 0; i < from->n_selectors; i++) {
		Pb__Selector *selector = pb_new(&pb__selector__descriptor, call->arena);

		selector->type = "x509pop";
		selector->value = from->selectors[i];
		out->selectors[out->n_selectors++] = selector;
	}
}

static enum code attest_x509pop(struct call *call, const Pb__AttestationData *data, struct attested *out)
{
	struct x509pop *pop = call->server->x509pop;
	struct x509pop_input input = { .payload = { data->payload.data, data->payload.len },
				       .client_ip = call->caller->ip,
				       .now_s = call_now_s(call) };
	struct x509pop_attempt *attempt;
	struct x509pop_result result;
	struct span challenge, response;
	enum code rc;

	if (x509pop_wants_bundle(pop))
		TRY(own_authorities(call, &input));
	if ((rc = x509pop_begin(pop, &input, call->arena, &attempt, &challenge, call->err)) != CODE_OK)
		return err_wrap(call->err, rc, "nodeattestor(x509pop)");
	TRY(challenge_agent(call, challenge, &response));
	if ((rc = x509pop_finish(attempt, response, &result, call->err)) != CODE_OK)
		return err_wrap(call->err, rc, "nodeattestor(x509pop)");
	if (id_parse(result.agent_id, call->arena, &out->id, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "invalid agent ID");
	take_selectors(call, &result, out);
	out->can_reattest = result.can_reattest;
	return CODE_OK;
}

/* --- AttestAgent --- */

static enum code check_params(struct call *call, const Pb__AttestAgentRequest *request)
{
	const Pb__AttestAgentRequest__Params *params =
		request->step_case == PB__ATTEST_AGENT_REQUEST__STEP_PARAMS ? request->params : NULL;
	const char *missing = params == NULL			     ? "params"
			      : params->data == NULL		     ? "attestation data"
			      : params->params == NULL		     ? "X509-SVID parameters"
			      : params->params->csr.len == 0	     ? "CSR"
			      : params->data->type[0] == '\0'	     ? "attestation data type"
			      : params->data->payload.len == 0	     ? "attestation data payload"
								     : NULL;

	if (missing != NULL) {
		err_set(call->err, CODE_INVALID_ARGUMENT, "missing %s", missing);
		return err_wrap(call->err, CODE_INVALID_ARGUMENT, "malformed param");
	}
	return CODE_OK;
}

static enum code run_attestor(struct call *call, const Pb__AttestationData *data, struct attested *out)
{
	*out = (struct attested){ .type = data->type };
	if (strcmp(data->type, "join_token") == 0)
		return attest_token(call, data, out);
	if (strcmp(data->type, "x509pop") == 0 && call->server->x509pop != NULL)
		return attest_x509pop(call, data, out);
	return err_set(call->err, CODE_FAILED_PRECONDITION,
		       "error getting node attestor: could not find node attestor type \"%s\"", data->type);
}

/* What is refused at once is refused before anything is signed; the command checks it again. */
static enum code check_agent(struct call *call, const struct attested *who)
{
	OWN_STRUCT(view) view = NULL;
	struct agent_record record;
	bool again = false;
	enum code rc;

	if (strcmp(who->id.text, call->server->server_id) == 0)
		return err_set(call->err, CODE_INTERNAL, "agent ID cannot collide with the server ID");
	do {
		if (view == NULL)
			TRY(call_view(call, &view));
		rc = view_agent(view, who->id.text, call->arena, &record, call->err);
		if (rc == CODE_NOT_FOUND)
			return CODE_OK;
		if (rc != CODE_OK)
			return err_wrap(call->err, CODE_INTERNAL, "failed to fetch agent");
		if (record.serial[0] == '\0')
			rc = call_no(call, &view,
				     err_set(call->err, CODE_PERMISSION_DENIED, "failed to attest: agent is banned"), &again);
	} while (again);
	return rc;
}

static int by_type_and_value(const void *a, const void *b)
{
	const Pb__Selector *x = *(Pb__Selector *const *)a, *y = *(Pb__Selector *const *)b;
	int order = strcmp(x->type, y->type);

	return order != 0 ? order : strcmp(x->value, y->value);
}

static enum code write_record(struct call *call, struct attested *who, const struct x509_svid *svid)
{
	Pb__AgentAttest attest = PB__AGENT_ATTEST__INIT;
	Pb__AgentSvid written;
	Pb__Command command = PB__COMMAND__INIT;
	Pb__Outcome *outcome;
	size_t kept = 0;

	if (who->n_selectors > 0)
		qsort(who->selectors, who->n_selectors, sizeof *who->selectors, by_type_and_value);
	for (size_t i = 0; i < who->n_selectors; i++)
		if (kept == 0 || by_type_and_value(&who->selectors[kept - 1], &who->selectors[i]) != 0)
			who->selectors[kept++] = who->selectors[i];
	svid_command(svid, &written);
	attest.id = who->id.text;
	attest.attestation_type = who->type;
	attest.svid = &written;
	attest.can_reattest = who->can_reattest;
	attest.n_selectors = kept;
	attest.selectors = who->selectors;
	if (who->by_token)
		attest.token_hash = (ProtobufCBinaryData){ sizeof who->token_hash, who->token_hash };
	command.kind_case = PB__COMMAND__KIND_AGENT_ATTEST;
	command.agent_attest = &attest;
	return call_propose(call, &command, &outcome);
}

/* The attestation fails after its token was found good: the token is spent, as in SPIRE, whatever becomes of that. */
static enum code spend_token(struct call *call, const struct attested *who, enum code rc)
{
	Pb__AgentAttest attest = PB__AGENT_ATTEST__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	Pb__Outcome *outcome;
	struct err why = *call->err;

	if (!who->by_token || rc == CODE_CANCELLED)
		return rc;
	attest.id = who->id.text;
	attest.token_hash = (ProtobufCBinaryData){ sizeof who->token_hash, (uint8_t *)who->token_hash };
	command.kind_case = PB__COMMAND__KIND_AGENT_ATTEST;
	command.agent_attest = &attest;
	if (call_propose(call, &command, &outcome) == CODE_OK)
		*call->err = why;
	else
		rc = call->err->code; /* "join token expired", or no leader */
	return rc;
}

static enum code send_result(struct call *call, const struct attested *who, const struct keyring *keyring,
			     const struct x509_svid *svid)
{
	Pb__AttestAgentResponse out = PB__ATTEST_AGENT_RESPONSE__INIT;
	Pb__AttestAgentResponse__Result result = PB__ATTEST_AGENT_RESPONSE__RESULT__INIT;

	result.svid = svid_to_proto(call, keyring->x509, svid, who->id.td, who->id.path);
	result.reattestable = who->can_reattest;
	out.step_case = PB__ATTEST_AGENT_RESPONSE__STEP_RESULT;
	out.result = &result;
	if (call_send(call, &out) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to send response over stream");
	CALL_LOG(call, LOG_INFO, "Agent attestation request completed", KV("address", call->caller->address),
		 KV("agent_id", who->id.text), KV("node_attestor_type", who->type));
	return CODE_OK;
}

/* Before anything is consumed. */
static enum code needs_leader(struct call *call)
{
	return state_is_leaderless(call->server->state) ? state_no_leader(call->server, call->err) : CODE_OK;
}

enum code agent_attest(struct call *call)
{
	OWN_STRUCT(keyring) keyring = NULL;
	Pb__AttestAgentRequest *request;
	struct attested who;
	struct x509_svid svid;
	enum code rc;

	TRY(call_limit(call, LIMITER_ATTEST, 1, "rejecting request due to attest agent rate limiting"));
	if (call_recv(call, &pb__attest_agent_request__descriptor, (void **)&request) != CODE_OK)
		return err_wrap(call->err, CODE_INVALID_ARGUMENT, "failed to receive request from stream");
	if (request == NULL)
		return err_set(call->err, CODE_INVALID_ARGUMENT, "failed to receive request from stream: EOF");
	TRY(check_params(call, request));
	CALL_AUDIT_ADD(call, KV("node_attestor_type", request->params->data->type));
	TRY(needs_leader(call));
	TRY(run_attestor(call, request->params->data, &who));
	CALL_AUDIT_ADD(call, KV("agent_id", who.id.text));
	rc = check_agent(call, &who);
	if (rc == CODE_OK)
		rc = agent_svid(call, who.id.text, request->params->params->csr, &keyring, &svid);
	if (rc != CODE_OK)
		return spend_token(call, &who, rc);
	TRY(write_record(call, &who, &svid));
	return send_result(call, &who, keyring, &svid);
}

/* --- RenewAgent, PostStatus --- */

static enum code check_renewal(struct call *call, const Pb__RenewAgentRequest *req)
{
	OWN_STRUCT(view) view = NULL;
	struct agent_record record;
	bool again = false;
	enum code rc;

	do {
		if (view == NULL)
			TRY(call_view(call, &view));
		rc = view_agent(view, call->caller->id, call->arena, &record, call->err);
		if (rc == CODE_OK && record.can_reattest) { /* before the CSR is looked at */
			rc = err_set(call->err, CODE_PERMISSION_DENIED, "agent must reattest instead of renew");
			call->err->reason = PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_MUST_REATTEST;
		}
		if (rc == CODE_NOT_FOUND || rc == CODE_PERMISSION_DENIED)
			rc = call_no(call, &view, rc, &again);
		else if (rc != CODE_OK)
			return err_wrap(call->err, CODE_INTERNAL, "failed to fetch agent");
	} while (again);
	TRY(rc);
	if (req->params == NULL)
		return err_set(call->err, CODE_INVALID_ARGUMENT, "params cannot be nil");
	if (req->params->csr.len == 0)
		return err_set(call->err, CODE_INVALID_ARGUMENT, "missing CSR");
	return CODE_OK;
}

enum code agent_renew(struct call *call, const void *request, void *reply)
{
	const Pb__RenewAgentRequest *req = request;
	OWN_STRUCT(keyring) keyring = NULL;
	Pb__AgentRenew renew = PB__AGENT_RENEW__INIT;
	Pb__AgentSvid written;
	Pb__Command command = PB__COMMAND__INIT;
	Pb__Outcome *outcome;
	struct x509_svid svid;
	struct spiffe_id id;

	TRY(call_limit(call, LIMITER_CSR, 1, "rejecting request due to renew agent rate limiting"));
	TRY(needs_leader(call)); /* not V4: agents try again, at other nodes too */
	TRY(check_renewal(call, req));
	CALL_AUDIT_ADD(call, KV("csr", call_audits(call) ? audit_sha256(call->arena, req->params->csr.data, req->params->csr.len) : NULL));
	CALL_LOG(call, LOG_INFO, "Renewing agent SVID");
	TRY(id_parse(call->caller->id, call->arena, &id, call->err));
	TRY(agent_svid(call, id.text, req->params->csr, &keyring, &svid));
	svid_command(&svid, &written);
	renew.id = id.text;
	renew.presented = call->caller->serial;
	renew.svid = &written;
	command.kind_case = PB__COMMAND__KIND_AGENT_RENEW;
	command.agent_renew = &renew;
	TRY(call_propose(call, &command, &outcome));
	((Pb__RenewAgentResponse *)reply)->svid = svid_to_proto(call, keyring->x509, &svid, id.td, id.path);
	return CODE_OK;
}

enum { AGENT_VERSION_MAX = 255 };

/* From SPIRE 1.14 on; 1.13.3 denies it to everybody. */
enum code agent_post_status(struct call *call, const void *request, void *reply __attribute__((unused)))
{
	const Pb__PostStatusRequest *req = request;
	Pb__AgentStatus status = PB__AGENT_STATUS__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	Pb__Outcome *outcome;

	TRY(call_limit(call, LIMITER_POST_STATUS, 1, "rejecting request due to post status rate limiting"));
	CALL_AUDIT_ADD(call, KV("spiffe_id", call->caller->id), KV("agent_version", req->agent_version));
	if (strlen(req->agent_version) > AGENT_VERSION_MAX)
		return err_set(call->err, CODE_INVALID_ARGUMENT, "agent version is too long (max %d characters)", AGENT_VERSION_MAX);
	if (req->agent_version[0] == '\0')
		return CODE_OK;
	status.id = call->caller->id;
	status.agent_version = req->agent_version;
	command.kind_case = PB__COMMAND__KIND_AGENT_STATUS;
	command.agent_status = &status;
	return call_propose(call, &command, &outcome);
}
