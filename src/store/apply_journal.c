/* SPDX-License-Identifier: Apache-2.0 */
/* The CA journals of the nodes: each is written whole by its node. */
#include "store/state.h"

enum { JOURNAL_MAX = 10 }; /* authorities of a kind: the oldest go */

enum code apply_journal_set(struct apply *a, struct err *err)
{
	const Pb__JournalSet *in = a->command->journal_set;
	Pb__Journal journal = PB__JOURNAL__INIT;
	struct span blob;

	if (in->node[0] == '\0')
		return outcome_refuse(a, CODE_INVALID_ARGUMENT, "a journal needs the name of its node");
	if (in->journal != NULL)
		journal = *in->journal;
	if (journal.n_x509 > JOURNAL_MAX) {
		journal.x509 += journal.n_x509 - JOURNAL_MAX;
		journal.n_x509 = JOURNAL_MAX;
	}
	if (journal.n_jwt > JOURNAL_MAX) {
		journal.jwt += journal.n_jwt - JOURNAL_MAX;
		journal.n_jwt = JOURNAL_MAX;
	}
	blob = message_pack_arena(&journal, a->arena);
	a->out->changed = true;
	return row_replace(a->store, TABLE_JOURNAL, CELLS(TEXT(in->node), BLOB(blob)), err);
}

static bool all_ended(const Pb__Journal *journal, int64_t before)
{
	for (size_t i = 0; i < journal->n_x509; i++)
		if (journal->x509[i]->not_after >= before)
			return false;
	for (size_t i = 0; i < journal->n_jwt; i++)
		if (journal->jwt[i]->not_after >= before)
			return false;
	return true;
}

/* The name of the next journal in which everything has ended, NULL: none. */
static enum code next_ended(struct apply *a, const char **node, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	*node = NULL;
	TRY(query_open(a->store->db, SQL_JOURNAL_ALL, &q, err));
	for (;;) {
		const Pb__Journal *journal;

		TRY(query_step(&q, &row, err));
		if (!row)
			return CODE_OK;
		journal = message_unpack(&pb__journal__descriptor, column_blob(&q, 1), a->arena);
		if (journal == NULL)
			return err_set(err, CODE_DATA_LOSS, "a CA journal in '%s' is damaged", a->store->db->path);
		if (!all_ended(journal, a->command->journal_prune->before))
			continue;
		*node = arena_strdup(a->arena, column_text(&q, 0));
		return CODE_OK;
	}
}

enum code apply_journal_prune(struct apply *a, struct err *err)
{
	const char *node;

	for (;;) {
		TRY(next_ended(a, &node, err));
		if (node == NULL)
			return CODE_OK;
		TRY(row_drop(a->store, TABLE_JOURNAL, CELLS(TEXT(node)), NULL, err));
		a->out->count++;
		a->out->changed = true;
	}
}
