/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of the state file. SQLite's backup reads page by page; it would begin anew at each foreign write, if the
 * connection that it reads from did not hold a read transaction (a view) of its own all the time. */
#include "store/copy.h"
#include "store/reader.h"
#include "store/state.h"

#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STEP_PAGES = 64 };

OWNABLE_STRUCT(reader, reader_close)

static enum code check_wal(const char *path, uint64_t wal_max, struct arena *arena, struct err *err)
{
	struct stat st;

	if (stat(arena_printf(arena, "%s-wal", path), &st) == 0 && (uint64_t)st.st_size > wal_max)
		return err_set(err, CODE_RESOURCE_EXHAUSTED,
			       "the copy of '%s' was given up: its WAL has grown to %lld bytes meanwhile", path,
			       (long long)st.st_size);
	return CODE_OK;
}

static enum code run_backup(sqlite3_backup *backup, struct db *to, const char *from, uint64_t wal_max,
			    bool (*go_on)(void *ctx), void *ctx, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();

	for (;;) {
		int rc = fault_at("store.copy") ? SQLITE_IOERR : sqlite3_backup_step(backup, STEP_PAGES);

		if (rc == SQLITE_DONE)
			return CODE_OK;
		if (rc != SQLITE_OK)
			return err_set(err, CODE_INTERNAL, "cannot copy '%s' to '%s': %s (%d)", from, to->path,
				       sqlite3_errstr(rc), rc);
		if (go_on != NULL && !go_on(ctx))
			return err_set(err, CODE_CANCELLED, "the copy of '%s' was given up", from);
		TRY(check_wal(from, wal_max, arena, err));
	}
}

static enum code read_triple(struct db *db, struct arena *arena, struct store_triple *out, struct err *err)
{
	OWN_QUERY meta = { 0 };
	OWN_QUERY conf = { 0 };
	bool row;

	TRY(query_open(db, SQL_META_GET, &meta, err));
	TRY(query_step(&meta, &row, err));
	if (row) {
		TRY(query_open(db, SQL_CONF_GET, &conf, err));
		TRY(query_step(&conf, &row, err));
	}
	if (!row)
		return err_set(err, CODE_DATA_LOSS, "state file '%s' is damaged: it does not say where it stands",
			       db->path);
	*out = (struct store_triple){
		.index = (uint64_t)column_int(&meta, 1),
		.term = (uint64_t)column_int(&meta, 4 + NUMBERS),
		.conf_index = (uint64_t)column_int(&conf, 0),
		.conf = column_blob_copy(&conf, 1, arena),
	};
	return CODE_OK;
}

static enum code copy_open_files(struct reader *reader, struct db *to, uint64_t wal_max, bool (*go_on)(void *ctx),
				 void *ctx, struct err *err)
{
	OWN_STRUCT(view) view = NULL;
	sqlite3_backup *backup;
	enum code rc;

	TRY(view_open(reader, &view, err));
	backup = sqlite3_backup_init(to->handle, "main", reader->db->handle, "main");
	if (backup == NULL)
		return err_sqlite(to, "copy to", err);
	rc = run_backup(backup, to, reader->db->path, wal_max, go_on, ctx, err);
	if (sqlite3_backup_finish(backup) != SQLITE_OK && rc == CODE_OK)
		rc = err_sqlite(to, "copy to", err);
	return rc;
}

static enum code make_copy(const char *from, const char *to, uint64_t wal_max, bool (*go_on)(void *ctx), void *ctx,
			   struct arena *arena, struct store_triple *out, struct err *err)
{
	OWN_STRUCT(reader) reader = NULL;
	OWN_STRUCT(db) copy = NULL;
	int fd = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_errno(err, CODE_INTERNAL, errno, "open", to);
	close(fd);
	TRY(reader_open(from, &reader, err));
	TRY(db_open(to, DB_WRITER, &copy, err));
	TRY(db_exec(copy, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF", err)); /* the caller syncs it once */
	TRY(copy_open_files(reader, copy, wal_max, go_on, ctx, err));
	TRY(db_exec(copy, "PRAGMA journal_mode = DELETE", err)); /* the header says WAL, as the original's does */
	return read_triple(copy, arena, out, err);
}

enum code store_copy(const char *from, const char *to, uint64_t wal_max, bool (*go_on)(void *ctx), void *ctx,
		     struct arena *arena, struct store_triple *out, struct err *err)
{
	enum code rc = make_copy(from, to, wal_max, go_on, ctx, arena, out, err);

	if (rc != CODE_OK)
		store_remove_files(to);
	return rc;
}
