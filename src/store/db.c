/* SPDX-License-Identifier: Apache-2.0 */
/* Connections to the state file. SQLite is set up once for the process: memory through ours (which never fails), no
 * statistics (they are a lock that all threads share). */
#include "store/db.h"

#include <assert.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	WRITER_CACHE_KIB = 16 << 10, /* what a batch may change before it spills, and the upper levels of all trees */
	READER_CACHE_KIB = 4 << 10,
	BUSY_WAIT_MS = 30000,   /* the writer waits for an exclusive checkpoint: milliseconds, unless the disk hangs */
	CHECKPOINT_WAIT_MS = 5, /* an exclusive checkpoint waits for readers, and keeps the writer waiting meanwhile */
};

static void *mem_alloc(int size)
{
	return xmalloc((size_t)size);
}

static void *mem_realloc(void *held, int size)
{
	return xrealloc(held, (size_t)size);
}

static int mem_size(void *held)
{
	return held == NULL ? 0 : (int)malloc_usable_size(held);
}

static int mem_roundup(int size)
{
	return (size + 7) & ~7;
}

static int mem_init(void *unused __attribute__((unused)))
{
	return SQLITE_OK;
}

static void mem_shutdown(void *unused __attribute__((unused)))
{
}

/* Before anybody can have used SQLite: afterwards it would be too late. */
__attribute__((constructor)) static void configure(void)
{
	static const sqlite3_mem_methods methods = { mem_alloc,   free,     mem_realloc,  mem_size,
						     mem_roundup, mem_init, mem_shutdown, NULL };
	int rc = sqlite3_config(SQLITE_CONFIG_MALLOC, &methods);

	if (rc == SQLITE_OK)
		rc = sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	if (rc == SQLITE_OK)
		rc = sqlite3_initialize();
	assert(rc == SQLITE_OK);
}

/* Waits in small steps: what holds the file is another thread of ours and done within milliseconds. */
static int wait_busy(void *limit_ms, int tries)
{
	static const unsigned step_us = 200;

	if ((int64_t)tries * step_us > *(const int *)limit_ms * INT64_C(1000))
		return 0;
	usleep(step_us);
	return 1;
}

enum code err_sqlite(struct db *db, const char *what, struct err *err)
{
	int number = sqlite3_extended_errcode(db->handle);

	if ((number & 0xff) == SQLITE_NOTADB)
		return err_set(err, CODE_FAILED_PRECONDITION, "state file '%s' is no state file of this server",
			       db->path);
	return err_set(err, (number & 0xff) == SQLITE_CORRUPT ? CODE_DATA_LOSS : CODE_INTERNAL,
		       "cannot %s '%s': %s (%d)", what, db->path, sqlite3_errmsg(db->handle), number);
}

enum code db_exec(struct db *db, const char *text, struct err *err)
{
	if (sqlite3_exec(db->handle, text, NULL, NULL, NULL) != SQLITE_OK)
		return err_sqlite(db, "change", err);
	return CODE_OK;
}

static enum code set_up(struct db *db, enum db_mode mode, struct err *err)
{
	static int limits_ms[] = { BUSY_WAIT_MS, CHECKPOINT_WAIT_MS };
	char text[256];

	sqlite3_extended_result_codes(db->handle, 1);
	sqlite3_busy_handler(db->handle, wait_busy, &limits_ms[mode == DB_CHECKPOINTER]);
	snprintf(text, sizeof text,
		 "PRAGMA cache_size = -%d; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA "
		 "secure_delete = OFF%s",
		 mode == DB_WRITER ? WRITER_CACHE_KIB : READER_CACHE_KIB,
		 mode == DB_READER ? "; PRAGMA query_only = ON"
				   : "; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 67108864");
	TRY(db_exec(db, text, err));
	if (sqlite3_wal_autocheckpoint(db->handle, 0) != SQLITE_OK)
		return err_sqlite(db, "set up", err);
	return CODE_OK;
}

enum code db_open(const char *path, enum db_mode mode, struct db **out, struct err *err)
{
	int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_READWRITE | (mode == DB_WRITER ? SQLITE_OPEN_CREATE : 0);
	OWN_STRUCT(db) db = xcalloc(1, sizeof *db);

	db->path = xstrdup(path);
	db->statements = xcalloc(SQL_COUNT, sizeof(sqlite3_stmt *));
	if (sqlite3_open_v2(path, &db->handle, flags, NULL) != SQLITE_OK)
		return err_sqlite(db, "open", err);
	TRY(set_up(db, mode, err));
	*out = TAKE(db);
	return CODE_OK;
}

void db_close(struct db *db)
{
	if (db == NULL)
		return;
	for (int i = 0; i < SQL_COUNT; i++)
		sqlite3_finalize(db->statements[i]);
	sqlite3_close(db->handle);
	free(db->statements);
	free(db->path);
	free(db);
}

enum code query_open(struct db *db, enum sql sql, struct query *out, struct err *err)
{
	sqlite3_stmt *statement = db->statements[sql];
	bool extra = statement != NULL && sqlite3_stmt_busy(statement);

	if (statement == NULL || extra) {
		unsigned flags = extra ? 0 : SQLITE_PREPARE_PERSISTENT;

		if (sqlite3_prepare_v3(db->handle, sql_text(sql), -1, flags, &statement, NULL) != SQLITE_OK)
			return err_sqlite(db, "read", err);
		if (!extra)
			db->statements[sql] = statement;
	}
	*out = (struct query){ db, statement, extra };
	return CODE_OK;
}

enum code query_open_table(struct db *db, const char *table, struct query *out, struct err *err)
{
	char text[64];
	sqlite3_stmt *statement;

	snprintf(text, sizeof text, "SELECT * FROM %s", table);
	if (sqlite3_prepare_v2(db->handle, text, -1, &statement, NULL) != SQLITE_OK)
		return err_sqlite(db, "read", err);
	*out = (struct query){ db, statement, true };
	return CODE_OK;
}

void query_done(struct query *query)
{
	if (query->extra)
		sqlite3_finalize(query->statement);
	else if (query->statement != NULL)
		sqlite3_reset(query->statement);
	query->statement = NULL;
}

void query_reset(struct query *query)
{
	sqlite3_reset(query->statement);
}

void query_int(struct query *query, int at, int64_t value)
{
	sqlite3_bind_int64(query->statement, at, value);
}

void query_text(struct query *query, int at, const char *text)
{
	sqlite3_bind_text(query->statement, at, text, -1, SQLITE_STATIC);
}

void query_blob(struct query *query, int at, const void *data, size_t len)
{
	sqlite3_bind_blob64(query->statement, at, len > 0 ? data : "", len, SQLITE_STATIC);
}

enum code query_step(struct query *query, bool *row, struct err *err)
{
	int rc = sqlite3_step(query->statement);

	*row = rc == SQLITE_ROW;
	if (rc != SQLITE_ROW && rc != SQLITE_DONE)
		return err_sqlite(query->db, sqlite3_stmt_readonly(query->statement) ? "read" : "write", err);
	return CODE_OK;
}

int64_t column_int(const struct query *query, int at)
{
	return sqlite3_column_int64(query->statement, at);
}

const char *column_text(const struct query *query, int at)
{
	const char *text = (const char *)sqlite3_column_text(query->statement, at);

	return text != NULL ? text : "";
}

struct span column_blob(const struct query *query, int at)
{
	const void *data = sqlite3_column_blob(query->statement, at);

	return (struct span){ data, (size_t)sqlite3_column_bytes(query->statement, at) };
}

struct span column_blob_copy(const struct query *query, int at, struct arena *arena)
{
	struct span blob = column_blob(query, at);

	return (struct span){ arena_memdup(arena, blob.data, blob.len), blob.len };
}
