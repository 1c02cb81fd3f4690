/* SPDX-License-Identifier: Apache-2.0 */
/* Agents and join tokens.
 *
 *   (none) --attest--> active --renew--> active with a new serial --activate--> active
 *   any --attest--> active (the old and the new serial end)      any --ban--> banned (serial "")      any --delete-->
 * (none)
 *
 * A ban outlives attestation; only delete lifts it. */
#include "store/state.h"

#include <string.h>

struct agent_row {
	const char *id, *type, *version, *serial, *new_serial;
	uint64_t seq, incarnation;
	int64_t not_before, not_after, new_not_before, new_not_after;
	bool can_reattest;
};

static enum code agent_get(struct apply *a, const char *id, bool *found, struct agent_row *out, struct err *err)
{
	OWN_QUERY q = { 0 };

	TRY(query_open(a->store->db, SQL_AGENT_GET, &q, err));
	query_text(&q, 1, id);
	TRY(query_step(&q, found, err));
	if (!*found)
		return CODE_OK;
	*out = (struct agent_row){
		.id = arena_strdup(a->arena, column_text(&q, 0)),
		.seq = (uint64_t)column_int(&q, 1),
		.type = arena_strdup(a->arena, column_text(&q, 2)),
		.version = arena_strdup(a->arena, column_text(&q, 3)),
		.serial = arena_strdup(a->arena, column_text(&q, 4)),
		.not_before = column_int(&q, 5),
		.not_after = column_int(&q, 6),
		.new_serial = arena_strdup(a->arena, column_text(&q, 7)),
		.new_not_before = column_int(&q, 8),
		.new_not_after = column_int(&q, 9),
		.can_reattest = column_int(&q, 10) != 0,
		.incarnation = (uint64_t)column_int(&q, 11),
	};
	return CODE_OK;
}

static enum code agent_set(struct apply *a, const struct agent_row *agent, struct err *err)
{
	a->out->changed = true;
	return row_replace(a->store, TABLE_AGENT,
			   CELLS(TEXT(agent->id), INT(agent->seq), TEXT(agent->type), TEXT(agent->version),
				 TEXT(agent->serial), INT(agent->not_before), INT(agent->not_after),
				 TEXT(agent->new_serial), INT(agent->new_not_before), INT(agent->new_not_after),
				 INT(agent->can_reattest), INT(agent->incarnation)),
			   err);
}

static bool is_banned(const struct agent_row *agent)
{
	return agent->serial[0] == '\0';
}

/* *ok: it was there and is taken. An expired one is taken and refused. */
static enum code token_take(struct apply *a, ProtobufCBinaryData hash, bool *ok, struct err *err)
{
	struct span key = { hash.data, hash.len };
	OWN_QUERY q = { 0 };
	bool found;
	int64_t expires_at;

	*ok = false;
	TRY(query_open(a->store->db, SQL_TOKEN_GET, &q, err));
	query_blob(&q, 1, hash.data, hash.len);
	TRY(query_step(&q, &found, err));
	if (!found)
		return outcome_refuse(a, CODE_INVALID_ARGUMENT,
				      "failed to attest: join token does not exist or has already been used");
	expires_at = column_int(&q, 1);
	query_done(&q);
	a->out->changed = true;
	TRY(row_drop(a->store, TABLE_TOKEN, CELLS(BLOB(key)), NULL, err));
	if (expires_at * 1000 < a->store->now_ms)
		return outcome_refuse(a, CODE_INVALID_ARGUMENT, "join token expired");
	*ok = true;
	return CODE_OK;
}

static enum code selectors_put(struct apply *a, uint64_t agent, struct err *err)
{
	const Pb__AgentAttest *in = a->command->agent_attest;
	Pb__SelectorMatch list = PB__SELECTOR_MATCH__INIT; /* just its repeated field */
	struct span blob;

	list.n_selectors = selectors_set(in->selectors, in->n_selectors, a->arena, &list.selectors);
	blob = message_pack_arena(&list, a->arena);
	if (list.n_selectors == 0)
		return row_drop(a->store, TABLE_AGENT_SELECTORS, CELLS(INT(agent)), NULL, err);
	return row_replace(a->store, TABLE_AGENT_SELECTORS, CELLS(INT(agent), BLOB(blob)), err);
}

enum code apply_agent_attest(struct apply *a, struct err *err)
{
	const Pb__AgentAttest *in = a->command->agent_attest;
	struct agent_row agent;
	bool found, ok = true;

	if (in->svid == NULL && in->token_hash.len > 0) /* it came to nothing: the token is spent all the same */
		return token_take(a, in->token_hash, &ok, err);
	if (in->id[0] == '\0' || in->svid == NULL || in->svid->serial[0] == '\0')
		return outcome_refuse(a, CODE_INVALID_ARGUMENT,
				      "an attestation needs an agent ID and the serial number of its SVID");
	TRY(agent_get(a, in->id, &found, &agent, err));
	if (in->token_hash.len > 0)
		TRY(token_take(a, in->token_hash, &ok, err));
	if (!ok)
		return CODE_OK;
	if (found && in->must_be_new)
		return outcome_refuse(a, CODE_PERMISSION_DENIED,
				      "nodeattestor(%s): attestation data has already been used to attest an agent",
				      in->attestation_type);
	if (found && is_banned(&agent))
		return outcome_refuse(a, CODE_PERMISSION_DENIED, "failed to attest: agent is banned");
	if (!found)
		agent = (struct agent_row){
			.id = in->id, .type = in->attestation_type, .version = "", .seq = ++a->store->numbers[SEQ_AGENT]
		};
	agent.serial = in->svid->serial;
	agent.not_before = in->svid->not_before;
	agent.not_after = in->svid->not_after;
	agent.new_serial = "";
	agent.new_not_before = agent.new_not_after = 0;
	agent.can_reattest = in->can_reattest;
	agent.incarnation++;
	TRY(selectors_put(a, agent.seq, err));
	return agent_set(a, &agent, err);
}

static void activate(struct agent_row *agent)
{
	agent->serial = agent->new_serial;
	agent->not_before = agent->new_not_before;
	agent->not_after = agent->new_not_after;
	agent->new_serial = "";
	agent->new_not_before = agent->new_not_after = 0;
}

enum code apply_agent_renew(struct apply *a, struct err *err)
{
	const Pb__AgentRenew *in = a->command->agent_renew;
	struct agent_row agent;
	bool found;

	TRY(agent_get(a, in->id, &found, &agent, err));
	if (!found)
		return outcome_refuse(a, CODE_NOT_FOUND, "agent not found");
	if (is_banned(&agent))
		return outcome_refuse_reason(a, PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_BANNED, "agent is banned");
	if (agent.can_reattest)
		return outcome_refuse_reason(a, PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_MUST_REATTEST,
					     "agent must reattest instead of renew");
	if (in->svid == NULL || in->svid->serial[0] == '\0')
		return outcome_refuse(a, CODE_INVALID_ARGUMENT, "a renewal needs the serial number of the new SVID");
	if (agent.new_serial[0] != '\0' && strcmp(in->presented, agent.new_serial) == 0)
		activate(&agent);
	else if (strcmp(in->presented, agent.serial) != 0)
		return outcome_refuse_reason(a, PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_NOT_ACTIVE,
					     "agent is not active");
	agent.new_serial = in->svid->serial;
	agent.new_not_before = in->svid->not_before;
	agent.new_not_after = in->svid->not_after;
	return agent_set(a, &agent, err);
}

enum code apply_agent_activate(struct apply *a, struct err *err)
{
	const Pb__AgentActivate *in = a->command->agent_activate;
	struct agent_row agent;
	bool found;

	TRY(agent_get(a, in->id, &found, &agent, err));
	if (!found)
		return outcome_refuse(a, CODE_NOT_FOUND, "agent not found");
	if (is_banned(&agent))
		return outcome_refuse_reason(a, PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_BANNED, "agent is banned");
	if (strcmp(in->serial, agent.serial) == 0)
		return CODE_OK; /* another call of the agent was faster */
	if (in->serial[0] == '\0' || strcmp(in->serial, agent.new_serial) != 0)
		return outcome_refuse_reason(a, PB__PERMISSION_DENIED_DETAILS__REASON__AGENT_NOT_ACTIVE,
					     "agent is not active");
	activate(&agent);
	return agent_set(a, &agent, err);
}

enum code apply_agent_ban(struct apply *a, struct err *err)
{
	struct agent_row agent;
	bool found;

	TRY(agent_get(a, a->command->agent_ban->id, &found, &agent, err));
	if (!found)
		return outcome_refuse(a, CODE_NOT_FOUND, "agent not found");
	if (is_banned(&agent))
		return CODE_OK;
	agent.serial = agent.new_serial = "";
	return agent_set(a, &agent, err);
}

/* Keys of the entries under `parent` whose only selector is `spiffe_id:<parent>`: what a join token with an agent ID
 * made. */
static enum code token_entries(struct apply *a, const char *parent, struct buf *keys, struct err *err)
{
	Pb__Selector selector = PB__SELECTOR__INIT, *items[] = { &selector };
	struct selector_set set = { items, 1 };
	int64_t n;
	bool named, row;
	OWN_QUERY q = { 0 };

	selector.type = "spiffe_id";
	selector.value = parent;
	TRY(parent_number(a->store->db, parent, &n, &named, err));
	if (n == 0)
		return CODE_OK;
	TRY(query_open(a->store->db, SQL_ENTRY_CHILDREN, &q, err));
	query_int(&q, 1, n);
	for (;;) {
		int64_t key;

		TRY(query_step(&q, &row, err));
		if (!row)
			return CODE_OK;
		key = column_int(&q, 1);
		if (selectors_match(column_blob(&q, 2), ENTRY_SELECTORS, &set,
				    PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_EXACT))
			buf_append(keys, &key, sizeof key);
	}
}

static enum code agent_drop(struct apply *a, const struct agent_row *agent, struct err *err)
{
	OWN_BUF keys = { 0 };

	TRY(row_drop(a->store, TABLE_AGENT, CELLS(TEXT(agent->id)), NULL, err));
	TRY(row_drop(a->store, TABLE_AGENT_SELECTORS, CELLS(INT(agent->seq)), NULL, err));
	a->out->changed = true;
	if (strcmp(agent->type, "join_token") != 0)
		return CODE_OK;
	TRY(token_entries(a, agent->id, &keys, err));
	for (size_t i = 0; i < keys.len / sizeof(int64_t); i++) {
		int64_t key;

		memcpy(&key, keys.data + i * sizeof key, sizeof key);
		TRY(entry_drop_by_key(a->store, key, err));
	}
	return CODE_OK;
}

enum code apply_agent_delete(struct apply *a, struct err *err)
{
	struct agent_row agent;
	bool found;

	TRY(agent_get(a, a->command->agent_delete->id, &found, &agent, err));
	if (!found)
		return outcome_refuse(a, CODE_NOT_FOUND, "agent not found");
	return agent_drop(a, &agent, err);
}

enum code apply_agent_status(struct apply *a, struct err *err)
{
	const Pb__AgentStatus *in = a->command->agent_status;
	struct agent_row agent;
	bool found;

	TRY(agent_get(a, in->id, &found, &agent, err));
	if (!found)
		return outcome_refuse(a, CODE_NOT_FOUND, "agent not found");
	if (in->agent_version[0] == '\0' || strcmp(agent.version, in->agent_version) == 0)
		return CODE_OK;
	agent.version = in->agent_version;
	return agent_set(a, &agent, err);
}

static enum code expired_agents(struct apply *a, const char **ids, uint32_t limit, uint32_t *n, struct err *err)
{
	const Pb__AgentPrune *in = a->command->agent_prune;
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(a->store->db, SQL_AGENT_EXPIRED, &q, err));
	query_int(&q, 1, in->before);
	query_int(&q, 2, in->tofu);
	query_int(&q, 3, limit);
	for (*n = 0;; (*n)++) {
		TRY(query_step(&q, &row, err));
		if (!row)
			return CODE_OK;
		ids[*n] = arena_strdup(a->arena, column_text(&q, 0));
	}
}

enum code apply_agent_prune(struct apply *a, struct err *err)
{
	enum { PRUNE_MAX = 10000 };
	uint32_t asked = a->command->agent_prune->limit, limit = asked == 0 || asked > PRUNE_MAX ? PRUNE_MAX : asked;
	const char **ids = arena_alloc(a->arena, limit * sizeof *ids);

	TRY(expired_agents(a, ids, limit, &a->out->count, err));
	for (uint32_t i = 0; i < a->out->count; i++) {
		struct agent_row agent;
		bool found;

		TRY(agent_get(a, ids[i], &found, &agent, err));
		if (found)
			TRY(agent_drop(a, &agent, err));
	}
	return CODE_OK;
}

enum code apply_token_create(struct apply *a, struct err *err)
{
	const Pb__TokenCreate *in = a->command->token_create;
	struct span hash = { in->hash.data, in->hash.len };
	Pb__Outcome alias = PB__OUTCOME__INIT, *out = a->out;
	OWN_QUERY q = { 0 };
	bool found;

	if (hash.len != 32)
		return outcome_refuse(a, CODE_INVALID_ARGUMENT, "a join token needs a SHA-256 of 32 bytes, not of %zu",
				      hash.len);
	TRY(query_open(a->store->db, SQL_TOKEN_GET, &q, err));
	query_blob(&q, 1, hash.data, hash.len);
	TRY(query_step(&q, &found, err));
	if (found)
		return outcome_refuse(a, CODE_INTERNAL, "datastore-sql: UNIQUE constraint failed: join_tokens.token");
	query_done(&q);
	TRY(row_put(a->store, TABLE_TOKEN, CELLS(BLOB(hash), INT(in->expires_at)), err));
	out->changed = true;
	if (in->alias == NULL)
		return CODE_OK;
	a->out = &alias;
	TRY(entry_create(a, in->alias, err));
	a->out = out;
	out->entry = alias.entry;
	if (alias.code != CODE_OK && alias.entry == NULL) /* as SPIRE: the token stays */
		return outcome_refuse(a, alias.code, "failed to create join token registration entry: %s",
				      alias.message);
	return CODE_OK;
}
