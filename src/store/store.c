/* SPDX-License-Identifier: Apache-2.0 */
/* The writer: opening the file, one batch = one transaction, the applied index and the digest in it. */
#include "store/state.h"

#include "base/fault.h"

#include <errno.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	STATE_FORMAT = 1,                  /* user_version of the file */
	STATE_APPLICATION_ID = 0x53504654, /* "SPFT": ours, whatever the name of the product */
};

void store_token_hash(const char *token, uint8_t out[32])
{
	SHA256((const unsigned char *)token, strlen(token), out);
}

static enum code pragma_int(struct db *db, const char *text, int64_t *out, struct err *err)
{
	sqlite3_stmt *statement;
	int rc = sqlite3_prepare_v2(db->handle, text, -1, &statement, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(statement);
	if (rc == SQLITE_ROW)
		*out = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	if (rc == SQLITE_ROW)
		return CODE_OK;
	return err_sqlite(db, "read", err);
}

static void digest_bytes(const uint64_t digest[4], uint8_t out[32])
{
	for (int i = 0; i < 32; i++)
		out[i] = (uint8_t)(digest[i / 8] >> (8 * (i % 8)));
}

static enum code meta_write(struct store *store, struct err *err)
{
	OWN_QUERY q = { 0 };
	uint8_t digest[32];
	bool row;

	digest_bytes(store->digest, digest);
	TRY(query_open(store->db, SQL_META_SET, &q, err));
	query_text(&q, 1, store->trust_domain);
	query_int(&q, 2, (int64_t)store->index);
	query_int(&q, 3, store->now_ms);
	query_blob(&q, 4, digest, sizeof digest);
	for (int i = 0; i < NUMBERS; i++)
		query_int(&q, 5 + i, (int64_t)store->numbers[i]);
	query_int(&q, 5 + NUMBERS, (int64_t)store->index_term);
	return query_step(&q, &row, err);
}

static enum code meta_read(struct store *store, struct err *err)
{
	OWN_QUERY q = { 0 };
	struct span digest;
	bool row;

	TRY(query_open(store->db, SQL_META_GET, &q, err));
	TRY(query_step(&q, &row, err));
	if (!row)
		return err_set(err, CODE_DATA_LOSS, "state file '%s' is damaged: it has no applied index",
			       store->db->path);
	free(store->trust_domain);
	store->trust_domain = xstrdup(column_text(&q, 0));
	store->applied = store->index = (uint64_t)column_int(&q, 1);
	store->stamp_ms = store->now_ms = column_int(&q, 2);
	digest = column_blob(&q, 3);
	if (digest.len != 32)
		return err_set(err, CODE_DATA_LOSS, "state file '%s' is damaged: its digest has %zu bytes",
			       store->db->path, digest.len);
	memset(store->digest, 0, sizeof store->digest);
	for (int i = 0; i < 32; i++)
		store->digest[i / 8] |= (uint64_t)digest.data[i] << (8 * (i % 8));
	for (int i = 0; i < NUMBERS; i++)
		store->numbers[i] = (uint64_t)column_int(&q, 4 + i);
	store->term = store->index_term = (uint64_t)column_int(&q, 4 + NUMBERS);
	return CODE_OK;
}

static enum code make_schema(struct store *store, struct err *err)
{
	char text[256];

	TRY(db_exec(store->db, "BEGIN IMMEDIATE", err));
	TRY(db_exec(store->db, schema_text, err));
	snprintf(text, sizeof text,
		 "PRAGMA application_id = %d; PRAGMA user_version = %d;"
		 "INSERT INTO meta VALUES(1, '', 0, 0, x'', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
		 STATE_APPLICATION_ID, STATE_FORMAT);
	TRY(db_exec(store->db, text, err));
	store->trust_domain = xstrdup("");
	digest_numbers(store, store->digest, store->numbers, true);
	TRY(meta_write(store, err));
	if (fault_at("store.create"))
		return err_set(err, CODE_INTERNAL, "cannot make '%s': fault injected", store->db->path);
	return db_exec(store->db, "COMMIT", err);
}

static enum code check_format(struct store *store, bool *empty, struct err *err)
{
	int64_t application, format, tables;

	TRY(pragma_int(store->db, "PRAGMA application_id", &application, err));
	TRY(pragma_int(store->db, "PRAGMA user_version", &format, err));
	TRY(pragma_int(store->db, "SELECT count(*) FROM sqlite_schema", &tables, err));
	*empty = application == 0 && format == 0 && tables == 0;
	if (*empty)
		return CODE_OK;
	if (application != STATE_APPLICATION_ID)
		return err_set(err, CODE_FAILED_PRECONDITION, "state file '%s' is no state file of this server",
			       store->db->path);
	if (format > STATE_FORMAT)
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "state file '%s' has format %lld, this version knows formats up to %d: start it with "
			       "the newer version",
			       store->db->path, (long long)format, STATE_FORMAT);
	return CODE_OK;
}

static enum code claim_trust_domain(struct store *store, const char *trust_domain, struct err *err)
{
	if (trust_domain[0] == '\0' || strcmp(store->trust_domain, trust_domain) == 0)
		return CODE_OK;
	if (store->trust_domain[0] != '\0')
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "state file '%s' belongs to trust domain '%s', the configuration says '%s'",
			       store->db->path, store->trust_domain, trust_domain);
	free(store->trust_domain);
	store->trust_domain = xstrdup(trust_domain);
	return meta_write(store, err);
}

static int note_wal(void *store, sqlite3 *handle __attribute__((unused)), const char *name __attribute__((unused)),
		    int frames)
{
	((struct store *)store)->wal_frames = (uint32_t)frames;
	return SQLITE_OK;
}

static enum code open_file(struct store *store, const char *path, const char *trust_domain, struct err *err)
{
	bool empty;

	TRY(db_open(path, DB_WRITER, &store->db, err));
	TRY(check_format(store, &empty, err));
	TRY(db_exec(store->db, "PRAGMA journal_mode = WAL", err));
	sqlite3_wal_hook(store->db->handle, note_wal, store);
	if (empty)
		TRY(make_schema(store, err));
	TRY(meta_read(store, err));
	return claim_trust_domain(store, trust_domain, err);
}

void store_remove_files(const char *path)
{
	static const char *const ends[] = { "", "-wal", "-shm", "-journal" };
	OWN_BUF name = { 0 };

	for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
		name.len = 0;
		buf_printf(&name, "%s%s", path, ends[i]);
		unlink(buf_text(&name));
	}
}

enum code store_open(const char *path, const char *trust_domain, struct store **out, struct err *err)
{
	struct store *store = xcalloc(1, sizeof *store);
	bool was_there = access(path, F_OK) == 0;
	enum code rc;

	store->hasher = hasher_new();
	rc = open_file(store, path, trust_domain, err);
	if (rc != CODE_OK) {
		store_close(store);
		if (!was_there)
			store_remove_files(path);
		return rc;
	}
	*out = store;
	return CODE_OK;
}

void store_close(struct store *store)
{
	if (store == NULL)
		return;
	db_close(store->db);
	hasher_free(store->hasher);
	buf_done(&store->scratch);
	free(store->trust_domain);
	free(store);
}

uint32_t store_wal_frames(const struct store *store)
{
	return store->wal_frames;
}

uint64_t store_applied(const struct store *store)
{
	return store->applied;
}

int64_t store_stamp_ms(const struct store *store)
{
	return store->stamp_ms;
}

void store_digest(const struct store *store, uint8_t out[32])
{
	digest_bytes(store->digest, out);
}

const char *store_trust_domain(const struct store *store)
{
	return store->trust_domain;
}

enum code store_recount_digest(struct store *store, uint8_t out[32], struct err *err)
{
	uint64_t digest[4];

	TRY(state_digest(store, digest, err));
	digest_bytes(digest, out);
	return CODE_OK;
}

static enum code conf_write(struct store *store, uint64_t index, struct span conf, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(store->db, SQL_CONF_SET, &q, err));
	query_int(&q, 1, (int64_t)index);
	query_blob(&q, 2, conf.data, conf.len);
	return query_step(&q, &row, err);
}

enum code store_triple(struct store *store, struct arena *arena, struct store_triple *out, struct err *err)
{
	OWN_QUERY q = { 0 };
	struct span conf;
	bool row;

	TRY(query_open(store->db, SQL_CONF_GET, &q, err));
	TRY(query_step(&q, &row, err));
	if (!row)
		return err_set(err, CODE_DATA_LOSS, "state file '%s' is damaged: it has no configuration", store->db->path);
	conf = column_blob(&q, 1);
	*out = (struct store_triple){
		.index = store->applied,
		.term = store->term,
		.conf_index = (uint64_t)column_int(&q, 0),
		.conf = { arena_memdup(arena, conf.data, conf.len), conf.len },
	};
	return CODE_OK;
}

static enum code end_batch(struct store *store, const uint64_t numbers[NUMBERS], struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	if (memcmp(numbers, store->numbers, sizeof store->numbers) != 0) {
		digest_numbers(store, store->digest, numbers, false);
		digest_numbers(store, store->digest, store->numbers, true);
	}
	TRY(meta_write(store, err));
	if (fault_at("store.commit"))
		return err_set(err, CODE_INTERNAL, "cannot commit to '%s': fault injected", store->db->path);
	TRY(query_open(store->db, SQL_COMMIT, &q, err));
	TRY(query_step(&q, &row, err));
	if (fault_at("store.committed")) /* durable, and nobody has been told */
		return err_set(err, CODE_INTERNAL, "cannot go on after a commit to '%s': fault injected",
			       store->db->path);
	store->applied = store->index;
	store->term = store->index_term;
	store->stamp_ms = store->now_ms;
	return CODE_OK;
}

static enum code begin_batch(struct store *store, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	if (fault_at("store.begin"))
		return err_set(err, CODE_INTERNAL, "cannot begin on '%s': fault injected", store->db->path);
	TRY(query_open(store->db, SQL_BEGIN, &q, err));
	return query_step(&q, &row, err);
}

/* Everything of one log entry, in the transaction that is open. */
static enum code apply_step(struct store *store, const struct store_step *step, struct arena *arena, struct err *err)
{
	TRY(requests_expire(store, err));
	for (size_t p = 0; p < step->n_parcels; p++) {
		struct store_parcel *parcel = &step->parcels[p];

		parcel->repeated = false;
		if (parcel->boot != 0)
			TRY(origin_note(store, parcel->boot, parcel->sequence, &parcel->repeated, err));
		for (size_t i = 0; i < parcel->n && !parcel->repeated; i++)
			TRY(apply_command(store, parcel->items[i].command, arena, &parcel->items[i].outcome, err));
	}
	if (step->conf.len > 0)
		return conf_write(store, step->index, step->conf, err);
	return CODE_OK;
}

enum code store_apply_step(struct store *store, const struct store_step *step, struct arena *arena, struct err *err)
{
	uint64_t numbers[NUMBERS];

	if (step->index <= store->applied)
		return err_set(err, CODE_INTERNAL, "index %llu comes after %llu has been applied to '%s'",
			       (unsigned long long)step->index, (unsigned long long)store->applied, store->db->path);
	memcpy(numbers, store->numbers, sizeof numbers);
	store->index = step->index;
	store->index_term = step->term;
	store->now_ms = step->stamp_ms;
	store->arena = arena;
	TRY(begin_batch(store, err));
	TRY(apply_step(store, step, arena, err));
	return end_batch(store, numbers, err);
}

enum code store_apply(struct store *store, uint64_t index, int64_t stamp_ms, struct store_item *items, size_t n,
		      struct arena *arena, struct err *err)
{
	struct store_parcel parcel = { .items = items, .n = n };
	const struct store_step step = {
		.index = index, .term = store->term, .stamp_ms = stamp_ms, .parcels = &parcel, .n_parcels = 1
	};

	return store_apply_step(store, &step, arena, err);
}

enum code store_rebase(struct store *store, struct span conf, struct err *err)
{
	TRY(db_exec(store->db, "PRAGMA synchronous = FULL", err));
	store->index = store->applied;
	store->index_term = store->term;
	TRY(begin_batch(store, err));
	TRY(conf_write(store, store->applied, conf, err));
	TRY(end_batch(store, store->numbers, err));
	return db_exec(store->db, "PRAGMA synchronous = NORMAL", err);
}

enum code command_check(const Pb__Command *command, struct err *err)
{
	if (command->format != COMMAND_FORMAT)
		return err_set(err, CODE_UNIMPLEMENTED, "command of format %u: this version knows format %d",
			       command->format, COMMAND_FORMAT);
	if (!command_kind_known(command->kind_case))
		return err_set(err, CODE_UNIMPLEMENTED, "command of a kind (%d) that this version does not know",
			       (int)command->kind_case);
	return CODE_OK;
}
