/* SPDX-License-Identifier: Apache-2.0 */
/* Agent, as admins see it: list, count, get, ban, delete, join tokens (contract server-api.md 4.1). Attestation and renewal, the
 * agents' own calls, are in svc_attest.c. */
#include "agent.pb-c.h"
#include "api/convert.h"
#include "api/server.h"
#include "api/svc.h"
#include "base/id.h"
#include "base/rand.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- what an agent looks like --- */

static Pb__Agent *agent_to_proto(struct arena *arena, const struct agent_record *record, const Pb__AgentMask *mask)
{
	Pb__Agent *agent = pb_new(&pb__agent__descriptor, arena);

	agent->id = id_to_proto(arena, record->id);
	if (mask == NULL || mask->attestation_type)
		agent->attestation_type = arena_strdup(arena, record->attestation_type);
	if (mask == NULL || mask->x509svid_serial_number)
		agent->x509svid_serial_number = arena_strdup(arena, record->serial);
	if (mask == NULL || mask->x509svid_expires_at)
		agent->x509svid_expires_at = record->not_after;
	if (mask == NULL || mask->banned)
		agent->banned = record->serial[0] == '\0';
	if (mask == NULL || mask->can_reattest)
		agent->can_reattest = record->can_reattest;
	if (mask == NULL || mask->agent_version)
		agent->agent_version = arena_strdup(arena, record->agent_version == NULL ? "" : record->agent_version);
	return agent;
}

static bool wants_selectors(const Pb__AgentMask *mask)
{
	return mask == NULL || mask->selectors;
}

/* --- filters: CountAgents and ListAgents have the same, in two structs --- */

/* "2006-01-02 15:04:05 -0700 -07"; anything else is no filter, as in SPIRE. */
static int64_t parse_expires_before(const char *text)
{
	struct tm tm = { 0 };
	const char *rest = strptime(text, "%Y-%m-%d %H:%M:%S %z", &tm);
	long offset_s = tm.tm_gmtoff;

	if (rest == NULL || rest[0] != ' ' || (rest[1] != '+' && rest[1] != '-') || strlen(rest) != 4 ||
	    strspn(rest + 2, "0123456789") != 2)
		return 0;
	return (int64_t)timegm(&tm) - offset_s;
}

static enum code parse_filter(struct call *call, const Pb__ListAgentsRequest__Filter *in, struct agent_filter *out, const char *what)
{
	*out = (struct agent_filter)AGENT_FILTER_ALL;
	if (in == NULL)
		return CODE_OK;
	out->attestation_type = in->by_attestation_type;
	if (in->by_banned != NULL)
		out->banned = in->by_banned->value;
	if (in->by_can_reattest != NULL)
		out->can_reattest = in->by_can_reattest->value;
	if (in->by_expires_before[0] != '\0')
		out->expires_before = parse_expires_before(in->by_expires_before);
	if (in->by_selector_match == NULL)
		return CODE_OK;
	if (selectors_check(in->by_selector_match->selectors, in->by_selector_match->n_selectors, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INVALID_ARGUMENT, "failed to parse selectors");
	if (in->by_selector_match->n_selectors == 0)
		return err_set(call->err, CODE_INTERNAL, "failed to %s agents: cannot list by empty selectors set", what);
	out->selectors = in->by_selector_match;
	return CODE_OK;
}

static void audit_filter(struct call *call, const Pb__ListAgentsRequest__Filter *in)
{
	if (in == NULL || !call_audits(call))
		return;
	if (in->by_attestation_type[0] != '\0')
		CALL_AUDIT_ADD(call, KV("node_attestor_type", in->by_attestation_type));
	if (in->by_banned != NULL)
		CALL_AUDIT_ADD(call, KV_BOOL("by_banned", in->by_banned->value));
	if (in->by_can_reattest != NULL)
		CALL_AUDIT_ADD(call, KV_BOOL("by_can_reattest", in->by_can_reattest->value));
}

enum code agent_count(struct call *call, const void *request, void *reply)
{
	const Pb__CountAgentsRequest *req = request;
	Pb__ListAgentsRequest__Filter same = PB__LIST_AGENTS_REQUEST__FILTER__INIT;
	OWN_STRUCT(view) view = NULL;
	struct agent_filter filter;
	uint64_t count;

	if (req->filter != NULL) {
		same.by_attestation_type = req->filter->by_attestation_type;
		same.by_selector_match = req->filter->by_selector_match;
		same.by_banned = req->filter->by_banned;
		same.by_can_reattest = req->filter->by_can_reattest;
		same.by_expires_before = req->filter->by_expires_before;
	}
	audit_filter(call, &same);
	TRY(parse_filter(call, &same, &filter, "count"));
	TRY(call_view(call, &view));
	if (view_agent_count(view, &filter, &count, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to count agents");
	((Pb__CountAgentsResponse *)reply)->count = (int32_t)count;
	return CODE_OK;
}

struct listing {
	struct call *call;
	struct view *view;
	const Pb__AgentMask *mask;
	Pb__ListAgentsResponse *reply;
	size_t room;
	uint64_t last;
};

static enum code list_one(const struct agent_record *record, void *ctx, struct err *err)
{
	struct listing *listing = ctx;
	struct arena *arena = listing->call->arena;
	Pb__ListAgentsResponse *reply = listing->reply;
	Pb__Agent *agent = agent_to_proto(arena, record, listing->mask);

	if (wants_selectors(listing->mask))
		TRY(view_agent_selectors(listing->view, record->id, arena, &agent->selectors, &agent->n_selectors, err));
	if (reply->n_agents == listing->room) {
		size_t room = listing->room == 0 ? 64 : 2 * listing->room;
		Pb__Agent **grown = arena_alloc(arena, room * sizeof *grown);

		if (reply->n_agents > 0)
			memcpy(grown, reply->agents, reply->n_agents * sizeof *grown);
		reply->agents = grown;
		listing->room = room;
	}
	reply->agents[reply->n_agents++] = agent;
	listing->last = record->seq;
	return CODE_OK;
}

enum code agent_list(struct call *call, const void *request, void *reply)
{
	const Pb__ListAgentsRequest *req = request;
	struct listing listing = { .call = call, .mask = req->output_mask, .reply = reply };
	OWN_STRUCT(view) view = NULL;
	struct agent_filter filter;
	size_t limit = req->page_size > 0 ? (size_t)req->page_size : 0;
	uint64_t after = 0;

	audit_filter(call, req->filter);
	TRY(parse_filter(call, req->filter, &filter, "list"));
	if (limit > 0 && page_token_parse(req->page_token, &after, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to list agents");
	TRY(call_view(call, &view));
	listing.view = view;
	if (view_agents(view, &filter, after, limit, list_one, &listing, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to list agents");
	if (limit > 0 && listing.last > 0)
		listing.reply->next_page_token = arena_printf(call->arena, "%llu", (unsigned long long)listing.last);
	return CODE_OK;
}

/* --- one agent --- */

static enum code agent_id(struct call *call, const Pb__SPIFFEID *from, struct spiffe_id *id)
{
	enum code rc;

	if (from == NULL)
		rc = err_set(call->err, CODE_INVALID_ARGUMENT, "request must specify SPIFFE ID");
	else if ((rc = id_from_parts(from->trust_domain, from->path, call->arena, id, call->err)) == CODE_OK)
		rc = id_check_agent(id, call->server->td, call->err);
	if (rc != CODE_OK)
		return err_wrap(call->err, CODE_INVALID_ARGUMENT, "invalid agent ID");
	CALL_AUDIT_ADD(call, KV("spiffe_id", id->text));
	return CODE_OK;
}

/* NOT_FOUND stands alone, everything else gets SPIRE's prefix. */
static enum code failed(struct call *call, enum code rc, const char *what)
{
	return rc == CODE_OK || rc == CODE_NOT_FOUND || rc == CODE_UNAVAILABLE ? rc : err_wrap(call->err, CODE_INTERNAL, "%s", what);
}

enum code agent_get(struct call *call, const void *request, void *reply)
{
	const Pb__GetAgentRequest *req = request;
	OWN_STRUCT(view) view = NULL;
	struct agent_record record;
	struct spiffe_id id;
	Pb__Agent *agent;

	TRY(agent_id(call, req->id, &id));
	TRY(call_view(call, &view));
	TRY(failed(call, view_agent(view, id.text, call->arena, &record, call->err), "failed to fetch agent"));
	agent = agent_to_proto(call->arena, &record, req->output_mask);
	if (wants_selectors(req->output_mask))
		TRY(failed(call,
			   view_agent_selectors(view, id.text, call->arena, &agent->selectors, &agent->n_selectors, call->err),
			   "failed to get selectors from agent"));
	*(Pb__Agent *)reply = *agent;
	return CODE_OK;
}

enum code agent_ban(struct call *call, const void *request, void *reply __attribute__((unused)))
{
	const Pb__BanAgentRequest *req = request;
	Pb__AgentBan ban = PB__AGENT_BAN__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	Pb__Outcome *outcome;
	struct spiffe_id id;

	TRY(agent_id(call, req->id, &id));
	ban.id = id.text;
	command.kind_case = PB__COMMAND__KIND_AGENT_BAN;
	command.agent_ban = &ban;
	TRY(failed(call, call_propose(call, &command, &outcome), "failed to ban agent"));
	CALL_LOG(call, LOG_INFO, "Agent banned", KV("spiffe_id", id.text));
	return CODE_OK;
}

enum code agent_delete(struct call *call, const void *request, void *reply __attribute__((unused)))
{
	const Pb__DeleteAgentRequest *req = request;
	Pb__AgentDelete delete = PB__AGENT_DELETE__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	Pb__Outcome *outcome;
	struct spiffe_id id;

	TRY(agent_id(call, req->id, &id));
	delete.id = id.text;
	command.kind_case = PB__COMMAND__KIND_AGENT_DELETE;
	command.agent_delete = &delete;
	TRY(failed(call, call_propose(call, &command, &outcome), "failed to remove agent"));
	CALL_LOG(call, LOG_INFO, "Agent deleted", KV("spiffe_id", id.text));
	return CODE_OK;
}

/* --- join tokens --- */

/* The entry by which the agent of this token goes under the name that the operator gave it. */
static Pb__Entry *alias_entry(struct call *call, const char *parent, const struct spiffe_id *agent)
{
	Pb__Entry *entry = pb_new(&pb__entry__descriptor, call->arena);
	Pb__Selector *selector = pb_new(&pb__selector__descriptor, call->arena);
	char *id = arena_alloc(call->arena, 37);

	rand_uuid7(id);
	entry->id = id;
	entry->spiffe_id = id_to_proto(call->arena, agent->text);
	entry->parent_id = id_to_proto(call->arena, parent);
	selector->type = "spiffe_id";
	selector->value = parent;
	entry->selectors = arena_alloc(call->arena, sizeof *entry->selectors);
	entry->selectors[0] = selector;
	entry->n_selectors = 1;
	return entry;
}

static enum code check_token_request(struct call *call, const Pb__CreateJoinTokenRequest *req, struct spiffe_id *agent)
{
	enum code rc;

	if (req->ttl < 1)
		return err_set(call->err, CODE_INVALID_ARGUMENT, "ttl is required, you must provide one");
	agent->text = NULL;
	if (req->agent_id == NULL)
		return CODE_OK;
	rc = id_from_parts(req->agent_id->trust_domain, req->agent_id->path, call->arena, agent, call->err);
	if (rc == CODE_OK)
		rc = id_check_workload(agent, call->server->td, call->err);
	return rc == CODE_OK ? CODE_OK : err_wrap(call->err, CODE_INVALID_ARGUMENT, "invalid agent ID");
}

enum code agent_create_join_token(struct call *call, const void *request, void *reply)
{
	const Pb__CreateJoinTokenRequest *req = request;
	Pb__JoinToken *out = reply;
	Pb__TokenCreate create = PB__TOKEN_CREATE__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	Pb__Outcome *outcome;
	struct spiffe_id agent;
	uint8_t hash[32];
	char *made = arena_alloc(call->arena, 37);
	const char *token = req->token[0] != '\0' ? req->token : made;

	CALL_AUDIT_ADD(call, KV_NUM("ttl", req->ttl), KV("spiffe_id", req->agent_id == NULL ? NULL : audit_id(call->arena, req->agent_id)));
	TRY(check_token_request(call, req, &agent));
	rand_uuid4(made);
	store_token_hash(token, hash);
	create.hash = (ProtobufCBinaryData){ sizeof hash, hash };
	create.expires_at = call_now_s(call) + req->ttl;
	if (agent.text != NULL) {
		/* Unlike SPIRE, which leaves the token behind: nothing is half done. */
		if (id_check_segment(token, call->err) != CODE_OK)
			return err_wrap(call->err, CODE_INTERNAL,
					"failed to create join token registration entry: failed to create join token ID");
		create.alias = alias_entry(call, arena_printf(call->arena, "spiffe://%s/spire/agent/join_token/%s", call->server->td, token),
					   &agent);
	}
	command.kind_case = PB__COMMAND__KIND_TOKEN_CREATE;
	command.token_create = &create;
	TRY(failed(call, call_propose(call, &command, &outcome), "failed to create token"));
	if (outcome->replayed && token == made)
		return err_set(call->err, CODE_ALREADY_EXISTS,
				 "a token was made for this request id before, and its value was in that answer alone: make another one");
	out->value = token;
	out->expires_at = create.expires_at;
	return CODE_OK;
}
