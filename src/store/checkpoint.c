/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints: what the WAL holds goes into the file itself. */
#include "store/db.h"
#include "store/store.h"

#include "base/fault.h"

#include <stdlib.h>

struct checkpointer {
	struct db *db;
};

enum code checkpointer_open(const char *path, struct checkpointer **out, struct err *err)
{
	struct db *db;

	TRY(db_open(path, DB_CHECKPOINTER, &db, err));
	*out = xcalloc(1, sizeof **out);
	(*out)->db = db;
	return CODE_OK;
}

enum code checkpointer_run(struct checkpointer *checkpointer, bool exclusive, uint32_t *left, struct err *err)
{
	int frames = 0, moved = 0, rc;

	if (fault_at("store.checkpoint"))
		return err_set(err, CODE_INTERNAL, "cannot checkpoint '%s': fault injected", checkpointer->db->path);
	rc = sqlite3_wal_checkpoint_v2(checkpointer->db->handle, NULL,
				       exclusive ? SQLITE_CHECKPOINT_FULL : SQLITE_CHECKPOINT_PASSIVE, &frames, &moved);
	/* busy: a reader looks at an older state, or somebody else is at it: what could be moved has been */
	if (rc != SQLITE_OK && (rc & 0xff) != SQLITE_BUSY)
		return err_sqlite(checkpointer->db, "checkpoint", err);
	*left = frames > moved ? (uint32_t)(frames - moved) : 0;
	return CODE_OK;
}

void checkpointer_close(struct checkpointer *checkpointer)
{
	if (checkpointer == NULL)
		return;
	db_close(checkpointer->db);
	free(checkpointer);
}
