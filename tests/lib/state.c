/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/state.h"
#include "store/db.h"

#include <stdlib.h>
#include <unistd.h>

static void must(struct state *state, enum code rc)
{
	if (rc != CODE_OK) {
		print_error("%s: %s\n", code_name(rc), state->err.text);
		assert_int_equal(rc, CODE_OK);
	}
}

static void open_all(struct state *state)
{
	must(state, store_open(state->path, "example.org", &state->store, &state->err));
	must(state, reader_open(state->path, &state->reader, &state->err));
}

static void close_all(struct state *state)
{
	view_close(state->view);
	state->view = NULL;
	reader_close(state->reader);
	store_close(state->store);
}

void state_begin(struct state *state)
{
	static int n;

	memset(state, 0, sizeof *state);
	snprintf(state->path, sizeof state->path, "%s/state-%d-%d.db", test_dir(), (int)getpid(), n++);
	state->now_ms = INT64_C(1000000000);
	state->arena = arena_new();
	open_all(state);
}

void state_end(struct state *state)
{
	close_all(state);
	arena_free(state->arena);
}

void state_reopen(struct state *state)
{
	close_all(state);
	open_all(state);
}

Pb__Outcome *state_apply(struct state *state, Pb__Command *command)
{
	struct store_item item = { command, NULL };

	command->format = 1;
	view_close(state->view);
	state->view = NULL;
	must(state, store_apply(state->store, store_applied(state->store) + 1, state->now_ms, &item, 1, state->arena,
				&state->err));
	return item.outcome;
}

Pb__Outcome *state_do(struct state *state, Pb__Command__KindCase kind, void *message)
{
	Pb__Command command = PB__COMMAND__INIT;

	command.kind_case = kind;
	command.entry_create = message; /* a union of pointers: this one is as good as any */
	return state_apply(state, &command);
}

Pb__Outcome *state_create(struct state *state, Pb__Entry *entry)
{
	Pb__EntryCreate create = PB__ENTRY_CREATE__INIT;

	create.entry = entry;
	return state_do(state, PB__COMMAND__KIND_ENTRY_CREATE, &create);
}

struct view *state_view(struct state *state)
{
	if (state->view == NULL)
		must(state, view_open(state->reader, &state->view, &state->err));
	return state->view;
}

Pb__Selector **state_selectors(struct state *state, const char *text, size_t *n)
{
	char *copy = arena_strdup(state->arena, text), *rest = NULL;
	Pb__Selector **out = arena_alloc(state->arena, (strlen(text) + 1) * sizeof(void *));

	*n = 0;
	for (char *one = strtok_r(copy, " ", &rest); one != NULL; one = strtok_r(NULL, " ", &rest)) {
		Pb__Selector *selector = arena_alloc(state->arena, sizeof *selector);
		char *colon = strchr(one, ':');

		*selector = (Pb__Selector)PB__SELECTOR__INIT;
		*colon = '\0';
		selector->type = one;
		selector->value = colon + 1;
		out[(*n)++] = selector;
	}
	return out;
}

static Pb__SPIFFEID *spiffe_id(struct state *state, const char *path)
{
	Pb__SPIFFEID *id = arena_alloc(state->arena, sizeof *id);

	*id = (Pb__SPIFFEID)PB__SPIFFEID__INIT;
	id->trust_domain = "example.org";
	id->path = arena_strdup(state->arena, path);
	return id;
}

Pb__Entry *state_entry(struct state *state, const char *id, const char *parent, const char *path, const char *selectors)
{
	Pb__Entry *entry = arena_alloc(state->arena, sizeof *entry);

	*entry = (Pb__Entry)PB__ENTRY__INIT;
	entry->id = arena_strdup(state->arena, id);
	entry->parent_id = spiffe_id(state, parent);
	entry->spiffe_id = spiffe_id(state, path);
	entry->selectors = state_selectors(state, selectors, &entry->n_selectors);
	return entry;
}

void state_check_digest(struct state *state)
{
	uint8_t kept[32], counted[32];

	store_digest(state->store, kept);
	must(state, store_recount_digest(state->store, counted, &state->err));
	CHECK_BYTES(kept, counted, 32);
}

void state_check_empty(struct state *state, const char *table)
{
	OWN_STRUCT(db) db = NULL;
	OWN_QUERY q = { 0 };
	bool row;

	must(state, db_open(state->path, DB_READER, &db, &state->err));
	must(state, query_open_table(db, table, &q, &state->err));
	must(state, query_step(&q, &row, &state->err));
	assert_false(row);
}
