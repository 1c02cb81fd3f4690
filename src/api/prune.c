/* SPDX-License-Identifier: Apache-2.0 */
/* Two timers that propose. What is pruned is decided by the command's own time, in apply. */
#include "api/prune.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/rand.h"
#include "base/task.h"

enum {
	ENTRIES_EVERY_MS = 5 * 60 * 1000,
	AGENTS_EVERY_MS = 60 * 60 * 1000,
	AGENTS_JITTER_MS = 15 * 60 * 1000,
	AGENTS_AT_ONCE = 1000,
	PROPOSE_MS = 30 * 1000,
};

static bool leads(const struct server *server)
{
	struct replica_view view;

	replica_view(server->replica, &view);
	return view.is_leader;
}

static void prune(struct server *server, Pb__Command *command, const char *subsystem, const char *failed, const char *done)
{
	OWN_STRUCT(arena) arena = arena_new();
	Pb__Outcome *outcome;
	struct err err = { 0 };
	enum code rc;

	if (!leads(server))
		return; /* one of a cluster is enough */
	command->format = 1;
	rc = propose(server->replica, command, clock_mono_ms() + PROPOSE_MS, arena, &outcome, &err);
	if (rc == CODE_OK && outcome->code != CODE_OK)
		rc = err_set(&err, (enum code)outcome->code, "%s", outcome->message);
	if (rc != CODE_OK)
		log_error(failed, KV("subsystem_name", subsystem), KV("error", err.text));
	else if (outcome->count > 0)
		log_info(done, KV("subsystem_name", subsystem), KV_NUM("count", outcome->count));
}

static void entries(void *arg)
{
	struct server *server = arg;

	while (task_sleep(ENTRIES_EVERY_MS) == CODE_OK) {
		Pb__EntryPrune what = PB__ENTRY_PRUNE__INIT;
		Pb__Command command = PB__COMMAND__INIT;

		what.before = clock_wall_s();
		command.kind_case = PB__COMMAND__KIND_ENTRY_PRUNE;
		command.entry_prune = &what;
		prune(server, &command, "registration_manager", "Failed pruning registration entries", "Pruned registration entries");
	}
}

static void agents(void *arg)
{
	struct server *server = arg;
	int64_t every_ms = AGENTS_EVERY_MS + (int64_t)((2 * rand_unit() - 1) * AGENTS_JITTER_MS);

	while (task_sleep(every_ms) == CODE_OK) {
		Pb__AgentPrune what = PB__AGENT_PRUNE__INIT;
		Pb__Command command = PB__COMMAND__INIT;

		what.before = clock_wall_s() - server->config->prune_attested_nodes_expired_for_s;
		what.tofu = server->config->prune_tofu_nodes;
		what.limit = AGENTS_AT_ONCE;
		command.kind_case = PB__COMMAND__KIND_AGENT_PRUNE;
		command.agent_prune = &what;
		prune(server, &command, "node_manager", "Failed pruning expired agents", "Pruned expired agents");
	}
}

void prune_run(struct server *server, struct loop *loop)
{
	task_spawn(loop, "prune entries", entries, server);
	if (server->config->prune_attested_nodes_expired_for_s > 0)
		task_spawn(loop, "prune agents", agents, server);
}
