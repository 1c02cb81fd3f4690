/* SPDX-License-Identifier: Apache-2.0 */
/* The file, and what entries do. */
#include "lib/state.h"

static Pb__Outcome *update(struct state *s, Pb__Entry *entry, Pb__EntryMask *mask)
{
	Pb__EntryUpdate message = PB__ENTRY_UPDATE__INIT;

	message.entry = entry;
	message.mask = mask;
	return state_do(s, PB__COMMAND__KIND_ENTRY_UPDATE, &message);
}

static Pb__Outcome *delete (struct state *s, const char *id)
{
	Pb__EntryDelete message = PB__ENTRY_DELETE__INIT;

	message.id = id;
	return state_do(s, PB__COMMAND__KIND_ENTRY_DELETE, &message);
}

TEST(entry_comes_and_goes)
{
	struct state s;
	struct err err = { 0 };
	Pb__Outcome *out;
	Pb__Entry *entry;

	state_begin(&s);
	s.now_ms = 1500;
	out = state_create(&s, state_entry(&s, "a", "/p", "/w", "t:2 t:1"));
	CHECK_NUM(out->code, CODE_OK);
	CHECK_NUM(out->entry->created_at, 2); /* rounded */
	CHECK_STR(out->entry->selectors[0]->value, "1");
	CHECK_NUM(out->revision, 1);
	CHECK_CODE(view_entry(state_view(&s), "a", s.arena, &entry, &err), CODE_OK);
	CHECK_STR(entry->selectors[0]->value, "2");
	out = state_create(&s, state_entry(&s, "b", "/p", "/w", "t:1 t:2"));
	CHECK_NUM(out->code, CODE_ALREADY_EXISTS);
	CHECK_STR(out->message, "similar entry already exists");
	CHECK_STR(out->entry->id, "a");
	CHECK_STR(out->entry->selectors[0]->value, "2");
	out = state_create(&s, state_entry(&s, "a", "/p", "/x", "t:1"));
	CHECK_NUM(out->code, CODE_ALREADY_EXISTS);
	CHECK_STR(out->message, "datastore-sql: UNIQUE constraint failed: registered_entries.entry_id");
	state_check_digest(&s);
	state_reopen(&s);
	CHECK_NUM(delete (&s, "a")->code, CODE_OK);
	CHECK_NUM(delete (&s, "a")->code, CODE_NOT_FOUND);
	state_check_digest(&s);
	CHECK_CODE(view_entry(state_view(&s), "a", s.arena, &entry, &err), CODE_NOT_FOUND);
	CHECK_STR(err.text, "entry not found");
	(void)update;
	state_end(&s);
}
