/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at a SPIRE database. Whatever fails means that there is nothing to warn of. */
#include "store/foreign.h"

#include <sqlite3.h>
#include <stddef.h>

static uint64_t count(sqlite3 *handle, const char *sql)
{
	sqlite3_stmt *statement = NULL;
	uint64_t n = 0;

	if (sqlite3_prepare_v2(handle, sql, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW)
		n = (uint64_t)sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	return n;
}

bool foreign_database_look(const char *connection_string, struct foreign_rows *out)
{
	sqlite3 *handle = NULL;

	*out = (struct foreign_rows){ 0 };
	if (sqlite3_open_v2(connection_string, &handle, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL) == SQLITE_OK) {
		out->entries = count(handle, "SELECT count(*) FROM registered_entries");
		out->agents = count(handle, "SELECT count(*) FROM attested_node_entries");
		out->bundles = count(handle, "SELECT count(*) FROM bundles");
	}
	sqlite3_close(handle);
	return out->entries + out->agents + out->bundles > 0;
}
