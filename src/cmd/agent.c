/* SPDX-License-Identifier: Apache-2.0 */
/* agent list, count, show, ban, evict. agent_purge.c has the rest. */
#include "base/gotime.h"
#include "cmd/cli.h"
#include "cmd/commands.h"
#include "cmd/convert.h"
#include "cmd/print.h"

#include "agent.pb-c.h"

#include <stdio.h>
#include <string.h>

#define SERVICE "/spire.api.server.agent.v1.Agent/"

enum { PAGE = 1000 };

static const struct rpc list_rpc = { SERVICE "ListAgents", &pb__list_agents_response__descriptor };
static const struct rpc count_rpc = { SERVICE "CountAgents", &pb__count_agents_response__descriptor };
static const struct rpc get_rpc = { SERVICE "GetAgent", &pb__agent__descriptor };
static const struct rpc ban_rpc = { SERVICE "BanAgent", &pb__empty__descriptor };
static const struct rpc delete_rpc = { SERVICE "DeleteAgent", &pb__empty__descriptor };

enum yes_no { EITHER, NO, YES };

struct filter_options {
	struct cli_flags cli;
	struct strings selectors;
	const char *match_selectors, *attestation_type, *expires_before;
	enum yes_no banned, can_reattest;
};

/* "true" and "false" filter, any other word does not. */
static enum code set_yes_no(void *field, const char *text, struct arena *arena __attribute__((unused)),
			    struct err *err __attribute__((unused)))
{
	*(enum yes_no *)field = strcmp(text, "true") == 0 ? YES : strcmp(text, "false") == 0 ? NO : EITHER;
	return CODE_OK;
}

static enum code filter_by_selectors(const struct filter_options *o, struct arena *arena, Pb__SelectorMatch **out,
				     struct err *err)
{
	Pb__SelectorMatch *by = arena_alloc(arena, sizeof *by);
	int match;

	if (!convert_match(o->match_selectors, &match))
		return err_set(err, CODE_INVALID_ARGUMENT, "unsupported match behavior");
	pb__selector_match__init(by);
	by->match = (Pb__SelectorMatch__MatchBehavior)match;
	by->selectors = arena_alloc(arena, o->selectors.n * sizeof *by->selectors);
	for (size_t i = 0; i < o->selectors.n; i++) {
		const char *text = o->selectors.items[i];

		if (convert_selector(text, arena, &by->selectors[by->n_selectors++], err) != CODE_OK)
			return err_wrap(err, CODE_INVALID_ARGUMENT, "error parsing selector %s",
					cli_quote(arena, text));
	}
	*out = by;
	return CODE_OK;
}

/* The server reads the time again: it gets the text. */
static enum code make_filter(const struct filter_options *o, struct arena *arena, Pb__ListAgentsRequest__Filter *filter,
			     struct err *err)
{
	int64_t unused;

	pb__list_agents_request__filter__init(filter);
	if (o->selectors.n > 0)
		TRY(filter_by_selectors(o, arena, &filter->by_selector_match, err));
	if (o->expires_before[0] != '\0' && go_parse_time(o->expires_before, &unused, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "date is not valid");
	filter->by_expires_before = o->expires_before;
	filter->by_attestation_type = o->attestation_type;
	if (o->can_reattest != EITHER)
		filter->by_can_reattest = convert_bool(o->can_reattest == YES, arena);
	if (o->banned != EITHER)
		filter->by_banned = convert_bool(o->banned == YES, arena);
	return CODE_OK;
}

static void append(Pb__ListAgentsResponse *all, const Pb__ListAgentsResponse *page, size_t *cap, struct arena *arena)
{
	if (all->n_agents + page->n_agents > *cap) {
		Pb__Agent **more;

		*cap = 2 * (*cap + page->n_agents);
		more = arena_alloc(arena, *cap * sizeof *more);
		if (all->n_agents > 0)
			memcpy(more, all->agents, all->n_agents * sizeof *more);
		all->agents = more;
	}
	if (page->n_agents > 0)
		memcpy(all->agents + all->n_agents, page->agents, page->n_agents * sizeof *all->agents);
	all->n_agents += page->n_agents;
}

static enum code run_list(struct cli *cli, const void *options, struct err *err)
{
	Pb__ListAgentsRequest request = PB__LIST_AGENTS_REQUEST__INIT;
	Pb__ListAgentsResponse all = PB__LIST_AGENTS_RESPONSE__INIT, *page;
	Pb__ListAgentsRequest__Filter filter;
	size_t cap = 0;

	TRY(make_filter(options, cli->arena, &filter, err));
	request.filter = &filter;
	request.page_size = PAGE;
	do {
		TRY(cli_call(cli, &list_rpc, &request, &page, err));
		append(&all, page, &cap, cli->arena);
		request.page_token = page->next_page_token;
	} while (request.page_token[0] != '\0');
	if (cli_json(cli))
		return cli_print_json(&all, err);
	if (all.n_agents == 0) {
		printf("No attested agents found\n");
		return CODE_OK;
	}
	printf("Found %zu attested %s:\n\n", all.n_agents, cli_plural(all.n_agents, "agent", "agents"));
	for (size_t i = 0; i < all.n_agents; i++)
		print_agent(stdout, all.agents[i]);
	return CODE_OK;
}

static enum code run_count(struct cli *cli, const void *options, struct err *err)
{
	Pb__CountAgentsRequest request = PB__COUNT_AGENTS_REQUEST__INIT;
	Pb__CountAgentsRequest__Filter filter = PB__COUNT_AGENTS_REQUEST__FILTER__INIT;
	Pb__ListAgentsRequest__Filter same;
	Pb__CountAgentsResponse *reply;

	TRY(make_filter(options, cli->arena, &same, err));
	filter.by_attestation_type = same.by_attestation_type;
	filter.by_selector_match = same.by_selector_match;
	filter.by_banned = same.by_banned;
	filter.by_can_reattest = same.by_can_reattest;
	filter.by_expires_before = same.by_expires_before;
	request.filter = &filter;
	TRY(cli_call(cli, &count_rpc, &request, &reply, err));
	if (cli_json(cli))
		return cli_print_json(reply, err);
	printf("%d attested %s\n", reply->count, reply->count == 1 ? "agent" : "agents");
	return CODE_OK;
}

struct id_options {
	struct cli_flags cli;
	const char *spiffe_id;
};

static enum code get_id(const struct id_options *o, struct arena *arena, Pb__SPIFFEID **out, struct err *err)
{
	if (o->spiffe_id[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "a SPIFFE ID is required");
	return convert_id(o->spiffe_id, arena, out, err);
}

static enum code run_show(struct cli *cli, const void *options, struct err *err)
{
	Pb__GetAgentRequest request = PB__GET_AGENT_REQUEST__INIT;
	Pb__Agent *agent;

	TRY(get_id(options, cli->arena, &request.id, err));
	TRY(cli_call(cli, &get_rpc, &request, &agent, err));
	if (cli_json(cli))
		return cli_print_json(agent, err);
	printf("Found an attested agent given its SPIFFE ID\n\n");
	print_agent(stdout, agent);
	for (size_t i = 0; i < agent->n_selectors; i++)
		printf("Selectors         : %s:%s\n", agent->selectors[i]->type, agent->selectors[i]->value);
	return CODE_OK;
}

static enum code finish(struct cli *cli, const Pb__Empty *reply, const char *done, struct err *err)
{
	if (cli_json(cli))
		return cli_print_json(reply, err);
	printf("%s\n", done);
	return CODE_OK;
}

static enum code run_ban(struct cli *cli, const void *options, struct err *err)
{
	Pb__BanAgentRequest request = PB__BAN_AGENT_REQUEST__INIT;
	Pb__Empty *reply;

	TRY(get_id(options, cli->arena, &request.id, err));
	TRY(cli_call(cli, &ban_rpc, &request, &reply, err));
	return finish(cli, reply, "Agent banned successfully", err);
}

static enum code run_evict(struct cli *cli, const void *options, struct err *err)
{
	Pb__DeleteAgentRequest request = PB__DELETE_AGENT_REQUEST__INIT;
	Pb__Empty *reply;

	TRY(get_id(options, cli->arena, &request.id, err));
	TRY(cli_call(cli, &delete_rpc, &request, &reply, err));
	return finish(cli, reply, "Agent evicted successfully", err);
}

static const struct flag filter_flags[] = {
	CLI_FLAGS(struct filter_options),
	FLAG_STRINGS(struct filter_options, selectors, "selector", "Agents with this selector; may be repeated"),
	FLAG_STRING(struct filter_options, match_selectors, "matchSelectorsOn", "superset",
		    "How the selectors are compared: exact, any, superset or subset"),
	FLAG_STRING(struct filter_options, attestation_type, "attestationType", "",
		    "Agents that attested this way, as join_token"),
	FLAG_STRING(struct filter_options, expires_before, "expiresBefore", "",
		    "Agents that expire before this time, written as 2006-01-02 15:04:05 -0700 -07"),
	FLAG_VALUE(struct filter_options, banned, "banned", set_yes_no, "Agents that are banned (true) or not (false)"),
	FLAG_VALUE(struct filter_options, can_reattest, "canReattest", set_yes_no,
		   "Agents that can attest again (true) or not (false)"),
	FLAG_END,
};
static const struct flag id_flags[] = {
	CLI_FLAGS(struct id_options),
	FLAG_STRING(struct id_options, spiffe_id, "spiffeID", "", "The SPIFFE ID of the agent"),
	FLAG_END,
};

const struct cli_command cmd_agent_list = { { "agent list", filter_flags }, sizeof(struct filter_options), run_list };
const struct cli_command cmd_agent_count = { { "agent count", filter_flags },
					     sizeof(struct filter_options),
					     run_count };
const struct cli_command cmd_agent_show = { { "agent show", id_flags }, sizeof(struct id_options), run_show };
const struct cli_command cmd_agent_ban = { { "agent ban", id_flags }, sizeof(struct id_options), run_ban };
const struct cli_command cmd_agent_evict = { { "agent evict", id_flags }, sizeof(struct id_options), run_evict };
