/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_DB_H
#define STORE_DB_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/own.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

/* A connection to the state file and its prepared statements: each is compiled at its first use and kept. One thread at
 * a time. */
struct db {
	sqlite3 *handle;
	char *path;
	sqlite3_stmt **statements; /* by enum sql */
};

/* The texts are in schema.c. Tables have their three statements side by side: put, get by key, drop by key. */
enum sql {
	SQL_PARENT_PUT,
	SQL_PARENT_GET,
	SQL_PARENT_DROP,
	SQL_ENTRY_PUT,
	SQL_ENTRY_GET,
	SQL_ENTRY_DROP,
	SQL_ALIAS_PUT,
	SQL_ALIAS_GET,
	SQL_ALIAS_DROP,
	SQL_FEDERATES_PUT,
	SQL_FEDERATES_GET,
	SQL_FEDERATES_DROP,
	SQL_AGENT_PUT,
	SQL_AGENT_GET,
	SQL_AGENT_DROP,
	SQL_AGENT_SELECTORS_PUT,
	SQL_AGENT_SELECTORS_GET,
	SQL_AGENT_SELECTORS_DROP,
	SQL_TOKEN_PUT,
	SQL_TOKEN_GET,
	SQL_TOKEN_DROP,
	SQL_BUNDLE_PUT,
	SQL_BUNDLE_GET,
	SQL_BUNDLE_DROP,
	SQL_RELATIONSHIP_PUT,
	SQL_RELATIONSHIP_GET,
	SQL_RELATIONSHIP_DROP,
	SQL_JOURNAL_PUT,
	SQL_JOURNAL_GET,
	SQL_JOURNAL_DROP,
	SQL_REQUEST_PUT,
	SQL_REQUEST_GET,
	SQL_REQUEST_DROP,
	SQL_REQUEST_COUNT_PUT,
	SQL_REQUEST_COUNT_GET,
	SQL_REQUEST_COUNT_DROP,
	SQL_MEMBER_PUT,
	SQL_MEMBER_GET,
	SQL_MEMBER_DROP,
	SQL_JOIN_PUT,
	SQL_JOIN_GET,
	SQL_JOIN_DROP,
	SQL_ORIGIN_PUT,
	SQL_ORIGIN_GET,
	SQL_ORIGIN_DROP,
	SQL_TABLES_END, /* what follows belongs to no single table's rows */

	SQL_BEGIN = SQL_TABLES_END,
	SQL_COMMIT,
	SQL_META_GET,
	SQL_META_SET,
	SQL_VIEW,

	SQL_PARENT_BY_ID,
	SQL_PARENT_NAMED,
	SQL_PARENT_ANY_NAMED,
	SQL_PARENT_HAS_CHILD,
	SQL_ENTRY_BY_ID,
	SQL_ENTRY_SIMILAR,
	SQL_ENTRY_BY_SPIFFE_ID,
	SQL_ENTRY_RIGHTS,
	SQL_ENTRY_CHILDREN,
	SQL_ENTRY_CHILDREN_AFTER,
	SQL_ENTRY_ALL,
	SQL_ENTRY_ROW,
	SQL_ENTRY_KEYS_BY_SPIFFE_ID,
	SQL_ENTRY_EXPIRED,
	SQL_ENTRY_IS_NAMED,
	SQL_ALIAS_BY_SELECTOR,
	SQL_ALIAS_FILED,
	SQL_FEDERATES_COUNT,
	SQL_FEDERATES_KEYS,
	SQL_FEDERATES_NEXT,

	SQL_AGENT_ALL,
	SQL_AGENT_EXPIRED,

	SQL_BUNDLE_ALL,
	SQL_BUNDLE_VERSION,
	SQL_RELATIONSHIP_ALL,
	SQL_JOURNAL_ALL,
	SQL_MEMBER_ALL,
	SQL_ORIGIN_ALL,
	SQL_CONF_GET,
	SQL_CONF_SET,
	SQL_CLUSTER_GET,
	SQL_CLUSTER_SET,

	SQL_REQUEST_EXPIRED,
	SQL_COUNT,
};

enum db_mode { DB_WRITER, DB_READER, DB_CHECKPOINTER };

enum code db_open(const char *path, enum db_mode mode, struct db **out, struct err *err);
void db_close(struct db *db);
OWNABLE_STRUCT(db, db_close)
enum code db_exec(struct db *db, const char *text, struct err *err);

/* The one place where SQLite's codes become ours: INTERNAL "cannot <what> '<path>': <SQLite's words> (<its number>)",
 * DATA_LOSS with the same text for a damaged file, FAILED_PRECONDITION for what is no database. Any of them is fatal to
 * the writer. */
enum code err_sqlite(struct db *db, const char *what, struct err *err);

/* A statement in use: bind, step, read columns; it is reset when `struct query` goes out of scope. Bound memory must
 * live until then. */
struct query {
	struct db *db;
	sqlite3_stmt *statement;
	bool extra; /* the kept one was in use: a row callback asked the same question */
};
void query_done(struct query *query);
#define OWN_QUERY __attribute__((cleanup(query_done))) struct query

enum code query_open(struct db *db, enum sql sql, struct query *out, struct err *err);
/* All rows of a table, for the digest and for tests: compiled each time. */
enum code query_open_table(struct db *db, const char *table, struct query *out, struct err *err);
void query_int(struct query *query, int at, int64_t value); /* `at` counts from 1 */
void query_text(struct query *query, int at, const char *text);
void query_blob(struct query *query, int at, const void *data, size_t len);
void query_reset(struct query *query); /* to run it again with other values */
/* *row: there is one. */
enum code query_step(struct query *query, bool *row, struct err *err);

/* Columns count from 0; texts and spans live until the next step. */
int64_t column_int(const struct query *query, int at);
const char *column_text(const struct query *query, int at);
struct span column_blob(const struct query *query, int at);
struct span column_blob_copy(const struct query *query, int at, struct arena *arena);

const char *sql_text(enum sql sql);
extern const char schema_text[];

#endif
