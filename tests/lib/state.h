/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_LIB_STATE_H
#define TESTS_LIB_STATE_H

#include "lib/test.h"
#include "store/store.h"
#include "store/view.h"

/* A state file of its own, one command at a time. */
struct state {
	struct store *store;
	struct reader *reader;
	struct view *view;
	struct arena *arena;
	char path[128];
	int64_t now_ms; /* stamp of the next batch */
	struct err err;
};

void state_begin(struct state *state); /* trust domain example.org, now = 1,000,000 s */
void state_end(struct state *state);
void state_reopen(struct state *state);

/* The outcome of one command in a batch of its own; it lives in state->arena. A failed write fails the test. */
Pb__Outcome *state_apply(struct state *state, Pb__Command *command);
/* The same for a command without a caller: any message of the oneof. */
Pb__Outcome *state_do(struct state *state, Pb__Command__KindCase kind, void *message);
Pb__Outcome *state_create(struct state *state, Pb__Entry *entry);

/* A view that sees the last batch; open until the next state_apply. */
struct view *state_view(struct state *state);

/* An entry in the arena: "spiffe://example.org<path>" under "spiffe://example.org<parent>", selectors "type:value"
 * separated by blanks. */
Pb__Entry *state_entry(struct state *state, const char *id, const char *parent, const char *path,
		       const char *selectors);
Pb__Selector **state_selectors(struct state *state, const char *text, size_t *n);

/* The kept digest is the one of the file's rows. */
void state_check_digest(struct state *state);

void state_check_empty(struct state *state, const char *table);

#endif
