/* SPDX-License-Identifier: Apache-2.0 */
/* Rows and their digest. The digest of the state is the sum modulo 2^256 of SHA-256 over (table, cells) of every row:
 * each write adds the row that comes and takes away the one that goes, in any order the sum is the same. */
#include "store/state.h"

#include "base/fault.h"

#include <string.h>

static const struct {
	const char *name;
	int n_key, n_cells;
	enum sql put;      /* get and drop follow */
	enum number count; /* 0: not counted */
} tables[TABLE_COUNT] = {
	[TABLE_PARENT] = { "parent", 1, 3, SQL_PARENT_PUT },
	[TABLE_ENTRY] = { "entry", 1, 9, SQL_ENTRY_PUT, N_ENTRIES },
	[TABLE_ALIAS] = { "alias", 1, 2, SQL_ALIAS_PUT },
	[TABLE_FEDERATES] = { "federates", 2, 2, SQL_FEDERATES_PUT },
	[TABLE_AGENT] = { "agent", 1, 12, SQL_AGENT_PUT, N_AGENTS },
	[TABLE_AGENT_SELECTORS] = { "agent_selectors", 1, 2, SQL_AGENT_SELECTORS_PUT },
	[TABLE_TOKEN] = { "token", 1, 2, SQL_TOKEN_PUT },
	[TABLE_BUNDLE] = { "bundle", 1, 4, SQL_BUNDLE_PUT, N_BUNDLES },
	[TABLE_RELATIONSHIP] = { "relationship", 1, 3, SQL_RELATIONSHIP_PUT },
	[TABLE_JOURNAL] = { "journal", 1, 2, SQL_JOURNAL_PUT },
	[TABLE_REQUEST] = { "request", 3, 6, SQL_REQUEST_PUT, N_REQUESTS },
	[TABLE_REQUEST_COUNT] = { "request_count", 1, 2, SQL_REQUEST_COUNT_PUT },
	[TABLE_MEMBER] = { "member", 1, 2, SQL_MEMBER_PUT },
	[TABLE_JOIN] = { "join_secret", 1, 2, SQL_JOIN_PUT },
	[TABLE_ORIGIN] = { "origin", 1, 2, SQL_ORIGIN_PUT },
};

void digest_move(uint64_t sum[4], const uint8_t hash[32], bool add)
{
	unsigned carry = 0;

	for (int i = 0; i < 4; i++) {
		uint64_t word = 0, before = sum[i];

		for (int k = 7; k >= 0; k--)
			word = word << 8 | hash[8 * i + k];
		if (add) {
			sum[i] = before + word + carry;
			carry = sum[i] < before || (carry && sum[i] == before);
		} else {
			sum[i] = before - word - carry;
			carry = before < word || (carry && before == word);
		}
	}
}

static void put_number(struct buf *out, char kind, uint64_t number)
{
	uint8_t bytes[9] = { (uint8_t)kind };

	for (int i = 0; i < 8; i++)
		bytes[1 + i] = (uint8_t)(number >> (8 * i));
	buf_append(out, bytes, sizeof bytes);
}

static void put_bytes(struct buf *out, char kind, const void *data, size_t len)
{
	put_number(out, kind, len);
	buf_append(out, data, len);
}

static void row_begin(struct buf *out, const char *table)
{
	out->len = 0;
	put_bytes(out, 't', table, strlen(table));
}

static void row_end(struct store *store, uint64_t sum[4], bool add)
{
	uint8_t hash[32];

	hasher_begin(store->hasher);
	hasher_add(store->hasher, store->scratch.data, store->scratch.len);
	hasher_end(store->hasher, hash);
	digest_move(sum, hash, add);
}

static void digest_cells(struct store *store, enum table table, const struct cell *cells)
{
	struct buf *out = &store->scratch;

	row_begin(out, tables[table].name);
	for (int i = 0; i < tables[table].n_cells; i++) {
		if (cells[i].kind == CELL_INT)
			put_number(out, 'i', (uint64_t)cells[i].number);
		else if (cells[i].kind == CELL_TEXT)
			put_bytes(out, 's', cells[i].data, strlen(cells[i].data));
		else
			put_bytes(out, 'b', cells[i].data, cells[i].len);
	}
	row_end(store, store->digest, true);
}

static void digest_row(struct store *store, enum table table, const struct query *q, uint64_t sum[4], bool add)
{
	struct buf *out = &store->scratch;

	row_begin(out, tables[table].name);
	for (int i = 0; i < tables[table].n_cells; i++) {
		int type = sqlite3_column_type(q->statement, i);
		struct span bytes;

		if (type == SQLITE_INTEGER) {
			put_number(out, 'i', (uint64_t)column_int(q, i));
			continue;
		}
		bytes = column_blob(q, i);
		put_bytes(out, type == SQLITE_TEXT ? 's' : 'b', bytes.data, bytes.len);
	}
	row_end(store, sum, add);
}

void digest_numbers(struct store *store, uint64_t sum[4], const uint64_t numbers[NUMBERS], bool add)
{
	row_begin(&store->scratch, "numbers");
	for (int i = 0; i < NUMBERS; i++)
		put_number(&store->scratch, 'i', numbers[i]);
	row_end(store, sum, add);
}

static void bind(struct query *q, const struct cell *cells, int n)
{
	for (int i = 0; i < n; i++) {
		if (cells[i].kind == CELL_INT)
			query_int(q, i + 1, cells[i].number);
		else if (cells[i].kind == CELL_TEXT)
			query_text(q, i + 1, cells[i].data);
		else
			query_blob(q, i + 1, cells[i].data, cells[i].len);
	}
}

enum code row_put(struct store *store, enum table table, const struct cell *cells, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	if (fault_at("store.row"))
		return err_set(err, CODE_INTERNAL, "cannot write '%s': fault injected", store->db->path);
	TRY(query_open(store->db, tables[table].put, &q, err));
	bind(&q, cells, tables[table].n_cells);
	TRY(query_step(&q, &row, err));
	digest_cells(store, table, cells);
	if (tables[table].count != 0)
		store->numbers[tables[table].count]++;
	return CODE_OK;
}

/* The row leaves the digest; it is still in the file. */
static enum code row_forget(struct store *store, enum table table, const struct cell *key, bool *found, struct err *err)
{
	OWN_QUERY q = { 0 };

	TRY(query_open(store->db, tables[table].put + 1, &q, err));
	bind(&q, key, tables[table].n_key);
	TRY(query_step(&q, found, err));
	if (*found)
		digest_row(store, table, &q, store->digest, false);
	return CODE_OK;
}

enum code row_drop(struct store *store, enum table table, const struct cell *key, bool *found, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool there, row;

	TRY(row_forget(store, table, key, &there, err));
	if (found != NULL)
		*found = there;
	if (!there)
		return CODE_OK;
	if (fault_at("store.row"))
		return err_set(err, CODE_INTERNAL, "cannot write '%s': fault injected", store->db->path);
	TRY(query_open(store->db, tables[table].put + 2, &q, err));
	bind(&q, key, tables[table].n_key);
	TRY(query_step(&q, &row, err));
	if (tables[table].count != 0)
		store->numbers[tables[table].count]--;
	return CODE_OK;
}

enum code row_replace(struct store *store, enum table table, const struct cell *cells, struct err *err)
{
	TRY(row_drop(store, table, cells, NULL, err));
	return row_put(store, table, cells, err);
}

enum code state_digest(struct store *store, uint64_t out[4], struct err *err)
{
	memset(out, 0, 4 * sizeof *out);
	for (int i = 0; i < TABLE_COUNT; i++) {
		OWN_QUERY q = { 0 };
		bool row;

		TRY(query_open_table(store->db, tables[i].name, &q, err));
		for (;;) {
			TRY(query_step(&q, &row, err));
			if (!row)
				break;
			digest_row(store, (enum table)i, &q, out, true);
		}
	}
	digest_numbers(store, out, store->numbers, true);
	return CODE_OK;
}
