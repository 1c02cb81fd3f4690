/* SPDX-License-Identifier: Apache-2.0 */
/* agent purge: agents whose SVID ended a while ago. Only such as can attest again: they come back when they live. One
 * that cannot be removed is reported and does not stop the others. */
#include "base/clock.h"
#include "base/gojson.h"
#include "base/gotext.h"
#include "cmd/cli.h"
#include "cmd/commands.h"
#include "cmd/convert.h"

#include "agent.pb-c.h"

#include <stdio.h>

#define SERVICE "/spire.api.server.agent.v1.Agent/"

static const struct rpc list_rpc = { SERVICE "ListAgents", &pb__list_agents_response__descriptor };
static const struct rpc delete_rpc = { SERVICE "DeleteAgent", &pb__empty__descriptor };

struct purge_options {
	struct cli_flags cli;
	int64_t expired_for_ns;
	bool dry_run;
};

struct expired {
	const char *id;
	bool deleted;
	const char *error; /* NULL: none */
};

static enum code list(struct cli *cli, Pb__ListAgentsResponse **out, struct err *err)
{
	Pb__ListAgentsRequest request = PB__LIST_AGENTS_REQUEST__INIT;
	Pb__ListAgentsRequest__Filter filter = PB__LIST_AGENTS_REQUEST__FILTER__INIT;
	Pb__AgentMask mask = PB__AGENT_MASK__INIT;
	enum code rc;

	filter.by_can_reattest = convert_bool(true, cli->arena);
	mask.x509svid_expires_at = true;
	request.filter = &filter;
	request.output_mask = &mask;
	rc = cli_call(cli, &list_rpc, &request, out, err);
	return rc == CODE_OK ? rc : err_wrap(err, rc, "failed to list agents");
}

/* More than `expired_for` ago. Seconds first: a time far away does not fit in nanoseconds. */
static bool is_expired(const Pb__Agent *agent, int64_t expired_for_ns)
{
	int64_t since_s, now_ns = clock_wall_ns();

	if (__builtin_sub_overflow(now_ns / GO_SECOND, agent->x509svid_expires_at, &since_s))
		return agent->x509svid_expires_at < 0;
	if (since_s > INT64_MAX / GO_SECOND - 1 || since_s < INT64_MIN / GO_SECOND + 1)
		return since_s > 0;
	return since_s * GO_SECOND + now_ns % GO_SECOND > expired_for_ns;
}

static struct expired purge_one(struct cli *cli, Pb__Agent *agent, bool dry_run)
{
	Pb__DeleteAgentRequest request = PB__DELETE_AGENT_REQUEST__INIT;
	struct expired out = { .id = arena_printf(cli->arena, "spiffe://%s%s", agent->id->trust_domain,
						  agent->id->path) };
	struct err err = { 0 };
	Pb__Empty *reply;

	if (dry_run)
		return out;
	request.id = agent->id;
	out.deleted = cli_call(cli, &delete_rpc, &request, &reply, &err) == CODE_OK;
	if (!out.deleted)
		out.error = arena_strdup(cli->arena, err.text);
	return out;
}

static void show_json(const struct expired *agents, size_t n)
{
	OWN_BUF out = { 0 };

	buf_puts(&out, "[{\"expired_agents\":[");
	for (size_t i = 0; i < n; i++) {
		buf_puts(&out, i > 0 ? ",{\"agent_id\":" : "{\"agent_id\":");
		json_put_string(&out, agents[i].id);
		buf_printf(&out, ",\"deleted\":%s", agents[i].deleted ? "true" : "false");
		if (agents[i].error != NULL) {
			buf_puts(&out, ",\"error\":");
			json_put_string(&out, agents[i].error);
		}
		buf_put(&out, '}');
	}
	buf_puts(&out, "]}]\n");
	fwrite(out.data, 1, out.len, stdout);
}

static void show_some(const char *title, const struct expired *agents, size_t n, bool deleted)
{
	bool any = false;

	for (size_t i = 0; i < n; i++) {
		if (agents[i].deleted != deleted)
			continue;
		if (!any)
			printf("%s\n", title);
		any = true;
		printf("SPIFFE ID         : %s\n", agents[i].id);
		if (agents[i].error != NULL)
			printf("Error             : %s\n", agents[i].error);
	}
}

static void show(const struct expired *agents, size_t n, bool dry_run)
{
	if (n == 0) {
		printf("No agents to purge.\n");
		return;
	}
	printf("Found %zu expired %s\n\n", n, cli_plural(n, "agent", "agents"));
	if (dry_run) {
		show_some("\nAgents that can be purged:", agents, n, false);
		return;
	}
	show_some("Agents purged:", agents, n, true);
	show_some("Agents not purged:", agents, n, false);
}

static enum code run_purge(struct cli *cli, const void *options, struct err *err)
{
	const struct purge_options *o = options;
	Pb__ListAgentsResponse *reply;
	struct expired *agents;
	size_t n = 0;

	TRY(list(cli, &reply, err));
	agents = arena_alloc(cli->arena, reply->n_agents * sizeof *agents);
	for (size_t i = 0; i < reply->n_agents; i++)
		if (reply->agents[i]->id != NULL && is_expired(reply->agents[i], o->expired_for_ns))
			agents[n++] = purge_one(cli, reply->agents[i], o->dry_run);
	if (cli_json(cli))
		show_json(agents, n);
	else
		show(agents, n, o->dry_run);
	return CODE_OK;
}

static const struct flag purge_flags[] = {
	CLI_FLAGS(struct purge_options),
	FLAG_DURATION(struct purge_options, expired_for_ns, "expiredFor", 720 * 3600 * GO_SECOND,
		      "How long ago an agent's SVID must have ended"),
	FLAG_BOOL(struct purge_options, dry_run, "dryRun", "Only show which agents would be removed"),
	FLAG_END,
};

const struct cli_command cmd_agent_purge = { { "agent purge", purge_flags }, sizeof(struct purge_options), run_purge };
