/* SPDX-License-Identifier: Apache-2.0 */
/* What an agent may have. Entries form a tree by parent id; the agent begins at its own id and at the SPIFFE ids of the
 * node aliases whose selectors it has all of, and goes down: each entry that it meets may be a parent again. A parent
 * is visited once, so circles end. From below, a single entry is authorized if the way up reaches one of the
 * beginnings. Parents are numbers here (schema.c). */
#include "store/reader.h"
#include "store/state.h"

#include <string.h>

/* Numbers of parents, each once, in the order in which they were met. */
struct numbers {
	int64_t *items;
	size_t n, cap;
	uint32_t *slots; /* hash table of places in `items` + 1 */
	size_t n_slots;
	struct arena *arena;
};

static size_t slot_of(const struct numbers *set, int64_t number)
{
	size_t at = (size_t)((uint64_t)number * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (set->n_slots - 1);

	while (set->slots[at] != 0 && set->items[set->slots[at] - 1] != number)
		at = (at + 1) & (set->n_slots - 1);
	return at;
}

static void grow(struct numbers *set)
{
	size_t cap = set->cap == 0 ? 16 : 2 * set->cap;
	int64_t *items = arena_alloc(set->arena, cap * sizeof *items);

	for (size_t i = 0; i < set->n; i++)
		items[i] = set->items[i];
	set->items = items;
	set->cap = cap;
	set->n_slots = 2 * cap;
	set->slots = arena_zalloc(set->arena, set->n_slots * sizeof *set->slots);
	for (size_t i = 0; i < set->n; i++)
		set->slots[slot_of(set, items[i])] = (uint32_t)(i + 1);
}

static void numbers_add(struct numbers *set, int64_t number)
{
	size_t at;

	if (number == 0)
		return;
	if (set->n == set->cap)
		grow(set);
	at = slot_of(set, number);
	if (set->slots[at] != 0)
		return;
	set->items[set->n] = number;
	set->slots[at] = (uint32_t)++set->n;
}

static bool numbers_have(const struct numbers *set, int64_t number)
{
	return set->n > 0 && set->slots[slot_of(set, number)] != 0;
}

/* Where an agent's walk begins; kept by the view, because a batch asks for many entries of one agent. */
struct start {
	const char *agent_id;
	int64_t now_s;
	struct numbers parents;
};

static enum code parent_of_id(struct view *view, const char *id, int64_t *out, struct err *err)
{
	bool named;

	return parent_number(view->db, id, out, &named, err);
}

static enum code add_aliases_of(struct view *view, const char *selector, const struct selector_set *has,
				struct numbers *parents, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;
	int64_t parent;

	TRY(query_open(view->db, SQL_ALIAS_BY_SELECTOR, &q, err));
	query_text(&q, 1, selector);
	for (;;) {
		TRY(query_step(&q, &row, err));
		if (!row)
			return CODE_OK;
		if (!selectors_match(column_blob(&q, 2), ENTRY_SELECTORS, has,
				     PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_SUBSET))
			continue;
		TRY(parent_of_id(view, column_text(&q, 1), &parent, err));
		numbers_add(parents, parent);
	}
}

static enum code add_aliases(struct view *view, uint64_t agent, struct arena *arena, struct numbers *parents,
			     struct err *err)
{
	OWN_QUERY q = { 0 };
	const Pb__SelectorMatch *list;
	struct selector_set has;
	bool row;

	TRY(query_open(view->db, SQL_AGENT_SELECTORS_GET, &q, err));
	query_int(&q, 1, (int64_t)agent);
	TRY(query_step(&q, &row, err));
	if (!row)
		return CODE_OK;
	list = message_unpack(&pb__selector_match__descriptor, column_blob(&q, 1), arena);
	if (list == NULL)
		return err_set(err, CODE_DATA_LOSS, "selectors of an agent in '%s' are damaged", view->db->path);
	has.n = selectors_set(list->selectors, list->n_selectors, arena, &has.items);
	for (size_t i = 0; i < has.n; i++)
		TRY(add_aliases_of(view, selector_text(has.items[i], arena), &has, parents, err));
	return CODE_OK;
}

static enum code start_find(struct view *view, const char *agent_id, int64_t now_s, struct start **out, struct err *err)
{
	struct arena *arena = view_arena(view);
	struct start *start = view->start;
	OWN_QUERY q = { 0 };
	int64_t own;
	bool known;

	*out = start;
	if (start != NULL && start->now_s == now_s && strcmp(start->agent_id, agent_id) == 0)
		return CODE_OK;
	start = arena_zalloc(arena, sizeof *start);
	start->agent_id = arena_strdup(arena, agent_id);
	start->now_s = now_s;
	start->parents.arena = arena;
	TRY(parent_of_id(view, agent_id, &own, err));
	numbers_add(&start->parents, own);
	TRY(query_open(view->db, SQL_AGENT_GET, &q, err));
	query_text(&q, 1, agent_id);
	TRY(query_step(&q, &known, err));
	if (known && column_int(&q, 6) > now_s)
		TRY(add_aliases(view, (uint64_t)column_int(&q, 1), arena, &start->parents, err));
	*out = view->start = start;
	return CODE_OK;
}

static enum code any_named(struct view *view, bool *out, struct err *err)
{
	OWN_QUERY q = { 0 };

	TRY(query_open(view->db, SQL_PARENT_ANY_NAMED, &q, err));
	return query_step(&q, out, err);
}

/* The entry just met may be a parent itself. */
static enum code add_named(struct view *view, const char *spiffe_id, struct numbers *parents, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(view->db, SQL_PARENT_NAMED, &q, err));
	query_text(&q, 1, spiffe_id);
	TRY(query_step(&q, &row, err));
	if (row)
		numbers_add(parents, column_int(&q, 0));
	return CODE_OK;
}

/* What is told of each entry: all that a row says, or its bytes. */
struct visitor {
	entry_fn *row;
	blob_fn *blob;
	void *ctx;
};

static enum code visit(const struct visitor *visitor, const struct entry_row *row, struct err *err)
{
	return visitor->row != NULL ? visitor->row(row, visitor->ctx, err)
				    : visitor->blob(row->blob, visitor->ctx, err);
}

static enum code walk_children(struct view *view, int64_t parent, bool deeper, struct numbers *parents,
			       const struct visitor *visitor, struct err *err)
{
	OWN_QUERY q = { 0 };
	OWN_BUF texts = { 0 };
	bool row, first = true;

	TRY(query_open(view->db, SQL_ENTRY_CHILDREN, &q, err));
	query_int(&q, 1, parent);
	for (;; first = false) {
		struct entry_row out;

		TRY(query_step(&q, &row, err));
		if (!row)
			return CODE_OK;
		if (visitor->blob != NULL && !first && !deeper) { /* nothing of the row has to be looked at */
			TRY(visitor->blob(column_blob(&q, 2), visitor->ctx, err));
			continue;
		}
		TRY(entry_row_fill(view, (uint64_t)column_int(&q, 0), column_blob(&q, 2), &texts, &out, err));
		if (parent_is_server(out.parent_id))
			return CODE_OK; /* aliases are never given out */
		if (deeper)
			TRY(add_named(view, out.spiffe_id, parents, err));
		TRY(visit(visitor, &out, err));
	}
}

static enum code walk(struct view *view, const char *agent_id, int64_t now_s, const struct visitor *visitor,
		      struct err *err)
{
	struct start *start;
	struct numbers parents = { .arena = view_arena(view) };
	bool deeper;

	TRY(start_find(view, agent_id, now_s, &start, err));
	TRY(any_named(view, &deeper, err));
	for (size_t i = 0; i < start->parents.n; i++)
		numbers_add(&parents, start->parents.items[i]);
	for (size_t i = 0; i < parents.n; i++) /* grows while it runs */
		TRY(walk_children(view, parents.items[i], deeper, &parents, visitor, err));
	return CODE_OK;
}

enum code view_authorized_entries(struct view *view, const char *agent_id, int64_t now_s, entry_fn *each, void *ctx,
				  struct err *err)
{
	return walk(view, agent_id, now_s, &(struct visitor){ .row = each, .ctx = ctx }, err);
}

enum code view_authorized_blobs(struct view *view, const char *agent_id, int64_t now_s, blob_fn *each, void *ctx,
				struct err *err)
{
	return walk(view, agent_id, now_s, &(struct visitor){ .blob = each, .ctx = ctx }, err);
}

/* The parents of the entries (no aliases) that have the SPIFFE ID of parent `number`. */
static enum code add_above(struct view *view, int64_t number, struct numbers *seen, struct err *err)
{
	OWN_QUERY parent = { 0 }, q = { 0 };
	OWN_BUF texts = { 0 };
	bool row;

	TRY(query_open(view->db, SQL_PARENT_GET, &parent, err));
	query_int(&parent, 1, number);
	TRY(query_step(&parent, &row, err));
	if (!row || column_int(&parent, 2) == 0)
		return CODE_OK;
	TRY(query_open(view->db, SQL_ENTRY_BY_SPIFFE_ID, &q, err));
	query_text(&q, 1, column_text(&parent, 1));
	for (;;) {
		struct entry_row out;

		TRY(query_step(&q, &row, err));
		if (!row)
			return CODE_OK;
		TRY(entry_row_fill(view, 0, column_blob(&q, 2), &texts, &out, err));
		if (!parent_is_server(out.parent_id))
			numbers_add(seen, column_int(&q, 1) >> 32);
	}
}

static enum code reaches(struct view *view, const struct numbers *start, int64_t parent, bool *out, struct err *err)
{
	struct numbers seen = { .arena = view_arena(view) };

	*out = numbers_have(start, parent);
	if (*out)
		return CODE_OK;
	numbers_add(&seen, parent);
	for (size_t i = 0; i < seen.n && !*out; i++) { /* grows while it runs */
		*out = numbers_have(start, seen.items[i]);
		if (!*out)
			TRY(add_above(view, seen.items[i], &seen, err));
	}
	return CODE_OK;
}

enum code view_authorized_entry(struct view *view, const char *agent_id, const char *entry_id, int64_t now_s,
				struct arena *arena, Pb__Entry **out, struct err *err)
{
	struct entry_at at;
	struct start *start;
	Pb__Entry *entry = NULL;
	bool yes = false;

	TRY(entry_by_id(view->db, entry_id, arena, &at, err));
	if (at.found) {
		entry = message_unpack(&pb__entry__descriptor, at.blob, arena);
		if (entry == NULL)
			return err_set(err, CODE_DATA_LOSS, "entry '%s' in '%s' is damaged", entry_id, view->db->path);
		TRY(start_find(view, agent_id, now_s, &start, err));
		if (!parent_is_server(spiffe_id_text(entry->parent_id, arena)))
			TRY(reaches(view, &start->parents, at.key >> 32, &yes, err));
	}
	if (!yes)
		return err_set(err, CODE_NOT_FOUND, "entry not found or not authorized");
	*out = entry;
	return CODE_OK;
}
