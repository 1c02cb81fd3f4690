/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the cluster and its members. */
#include "store/reader.h"
#include "store/state.h"

enum { MEMBERS_STEP = 16 };

enum code view_cluster(struct view *view, struct arena *arena, const char **id, uint64_t *epoch, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(view->db, SQL_CLUSTER_GET, &q, err));
	TRY(query_step(&q, &row, err));
	if (!row)
		return err_set(err, CODE_DATA_LOSS, "state file '%s' is damaged: it has no cluster", view->db->path);
	*id = arena_strdup(arena, column_text(&q, 0));
	*epoch = (uint64_t)column_int(&q, 1);
	return CODE_OK;
}

enum code view_members(struct view *view, struct arena *arena, Pb__Member ***out, size_t *n, struct err *err)
{
	OWN_QUERY q = { 0 };
	Pb__Member **members = NULL;
	size_t room = 0;
	bool row;

	*n = 0;
	TRY(query_open(view->db, SQL_MEMBER_ALL, &q, err));
	for (;;) {
		TRY(query_step(&q, &row, err));
		if (!row)
			break;
		if (*n == room) {
			Pb__Member **grown = arena_alloc(arena, (room += MEMBERS_STEP) * sizeof *grown);

			for (size_t i = 0; i < *n; i++)
				grown[i] = members[i];
			members = grown;
		}
		members[*n] = message_unpack(&pb__member__descriptor, column_blob(&q, 1), arena);
		if (members[(*n)++] == NULL)
			return err_set(err, CODE_DATA_LOSS, "a member in '%s' is damaged", view->db->path);
	}
	*out = members;
	return CODE_OK;
}
