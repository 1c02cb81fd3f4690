/* SPDX-License-Identifier: Apache-2.0 */
/* Reading agents and join tokens. */
#include "store/reader.h"
#include "store/state.h"

#include <string.h>

static void record_read(const struct query *q, struct agent_record *out)
{
	*out = (struct agent_record){
		.id = column_text(q, 0),
		.seq = (uint64_t)column_int(q, 1),
		.attestation_type = column_text(q, 2),
		.agent_version = column_text(q, 3),
		.serial = column_text(q, 4),
		.not_before = column_int(q, 5),
		.not_after = column_int(q, 6),
		.new_serial = column_text(q, 7),
		.new_not_before = column_int(q, 8),
		.new_not_after = column_int(q, 9),
		.can_reattest = column_int(q, 10) != 0,
		.incarnation = (uint64_t)column_int(q, 11),
	};
}

enum code view_agent(struct view *view, const char *id, struct arena *arena, struct agent_record *out, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(view->db, SQL_AGENT_GET, &q, err));
	query_text(&q, 1, id);
	TRY(query_step(&q, &row, err));
	if (!row)
		return err_set(err, CODE_NOT_FOUND, "agent not found");
	record_read(&q, out);
	out->id = arena_strdup(arena, out->id);
	out->attestation_type = arena_strdup(arena, out->attestation_type);
	out->agent_version = arena_strdup(arena, out->agent_version);
	out->serial = arena_strdup(arena, out->serial);
	out->new_serial = arena_strdup(arena, out->new_serial);
	return CODE_OK;
}

static enum code selectors_read(struct view *view, uint64_t agent, struct query *q, struct span *list, struct err *err)
{
	bool row;

	TRY(query_open(view->db, SQL_AGENT_SELECTORS_GET, q, err));
	query_int(q, 1, (int64_t)agent);
	TRY(query_step(q, &row, err));
	*list = row ? column_blob(q, 1) : (struct span){ 0 };
	return CODE_OK;
}

enum code view_agent_selectors(struct view *view, const char *id, struct arena *arena, Pb__Selector ***out, size_t *n,
			       struct err *err)
{
	OWN_QUERY agent = { 0 }, q = { 0 };
	const Pb__SelectorMatch *message;
	struct span list;
	bool row;

	TRY(query_open(view->db, SQL_AGENT_GET, &agent, err));
	query_text(&agent, 1, id);
	TRY(query_step(&agent, &row, err));
	if (!row)
		return err_set(err, CODE_NOT_FOUND, "agent not found");
	TRY(selectors_read(view, (uint64_t)column_int(&agent, 1), &q, &list, err));
	message = message_unpack(&pb__selector_match__descriptor, list, arena);
	if (message == NULL)
		return err_set(err, CODE_DATA_LOSS, "selectors of '%s' in '%s' are damaged", id, view->db->path);
	*out = message->selectors;
	*n = message->n_selectors;
	return CODE_OK;
}

static bool fits(const struct agent_filter *filter, const struct agent_record *agent)
{
	const char *type = filter->attestation_type;

	if (type != NULL && type[0] != '\0' && strcmp(type, agent->attestation_type) != 0)
		return false;
	if (filter->banned >= 0 && (filter->banned != 0) != (agent->serial[0] == '\0'))
		return false;
	if (filter->can_reattest >= 0 && (filter->can_reattest != 0) != agent->can_reattest)
		return false;
	return filter->expires_before == 0 || agent->not_after < filter->expires_before;
}

static enum code fits_selectors(struct view *view, const struct agent_filter *filter, const struct selector_set *set,
				uint64_t agent, bool *out, struct err *err)
{
	OWN_QUERY q = { 0 };
	struct span list;

	*out = true;
	if (filter->selectors == NULL)
		return CODE_OK;
	TRY(selectors_read(view, agent, &q, &list, err));
	*out = selectors_match(list, SELECTOR_LIST, set, (int)filter->selectors->match);
	return CODE_OK;
}

enum code view_agents(struct view *view, const struct agent_filter *filter, uint64_t after, size_t limit,
		      agent_fn *each, void *ctx, struct err *err)
{
	static const struct agent_filter all = AGENT_FILTER_ALL;
	OWN_STRUCT(arena) arena = arena_new();
	OWN_QUERY q = { 0 };
	struct selector_set set = { 0 };
	bool row, good;
	size_t n = 0;

	if (filter == NULL)
		filter = &all;
	if (filter->selectors != NULL) {
		if (filter->selectors->n_selectors == 0)
			return err_set(err, CODE_INTERNAL, "cannot list by empty selectors set");
		TRY(match_prepare(filter->selectors, "", arena, &set, err));
	}
	TRY(query_open(view->db, SQL_AGENT_ALL, &q, err));
	query_int(&q, 1, (int64_t)(after < INT64_MAX ? after : INT64_MAX));
	while (limit == 0 || n < limit) {
		struct agent_record agent;

		TRY(query_step(&q, &row, err));
		if (!row)
			break;
		record_read(&q, &agent);
		if (!fits(filter, &agent))
			continue;
		TRY(fits_selectors(view, filter, &set, agent.seq, &good, err));
		if (!good)
			continue;
		TRY(each(&agent, ctx, err));
		n++;
	}
	return CODE_OK;
}

static enum code count_one(const struct agent_record *agent __attribute__((unused)), void *ctx,
			   struct err *err __attribute__((unused)))
{
	++*(uint64_t *)ctx;
	return CODE_OK;
}

enum code view_agent_count(struct view *view, const struct agent_filter *filter, uint64_t *out, struct err *err)
{
	uint64_t n = 0;

	if (filter == NULL)
		n = (uint64_t)column_int(&view->meta, 2);
	else
		TRY(view_agents(view, filter, 0, 0, count_one, &n, err));
	*out = n;
	return CODE_OK;
}

enum code view_token(struct view *view, const char *token, int64_t *expires_at, struct err *err)
{
	uint8_t hash[32];
	OWN_QUERY q = { 0 };
	bool row;

	store_token_hash(token, hash);
	TRY(query_open(view->db, SQL_TOKEN_GET, &q, err));
	query_blob(&q, 1, hash, sizeof hash);
	TRY(query_step(&q, &row, err));
	if (!row)
		return err_set(err, CODE_NOT_FOUND, "join token does not exist or has already been used");
	*expires_at = column_int(&q, 1);
	return CODE_OK;
}
