/* SPDX-License-Identifier: Apache-2.0 */
/* Readers, views, and reading entries. */
#include "store/reader.h"
#include "store/state.h"

#include "base/gotext.h"
#include "base/task.h"

#include <stdlib.h>
#include <string.h>

enum code reader_open(const char *path, struct reader **out, struct err *err)
{
	struct reader *reader = xcalloc(1, sizeof *reader);
	enum code rc = db_open(path, DB_READER, &reader->db, err);

	if (rc != CODE_OK) {
		reader_close(reader);
		return rc;
	}
	*out = reader;
	return CODE_OK;
}

void reader_close(struct reader *reader)
{
	if (reader == NULL)
		return;
	db_close(reader->db);
	free(reader);
}

enum code view_open(struct reader *reader, struct view **out, struct err *err)
{
	struct view *view = &reader->view;
	bool row;
	enum code rc;

	if (reader->open)
		return err_set(err, CODE_INTERNAL, "a view of '%s' is open already", reader->db->path);
	*view = (struct view){ .reader = reader, .db = reader->db };
	TRY(query_open(reader->db, SQL_VIEW, &view->meta, err));
	rc = query_step(&view->meta, &row, err);
	if (rc == CODE_OK && !row)
		rc = err_set(err, CODE_DATA_LOSS, "'%s' has no applied index", reader->db->path);
	if (rc != CODE_OK) {
		query_done(&view->meta);
		return rc;
	}
	if (task_self() != NULL)
		task_pin();
	reader->open = true;
	*out = view;
	return CODE_OK;
}

void view_close(struct view *view)
{
	if (view == NULL)
		return;
	query_done(&view->meta);
	arena_free(view->arena);
	view->reader->open = false;
	if (task_self() != NULL)
		task_unpin();
}

struct arena *view_arena(struct view *view)
{
	if (view->arena == NULL)
		view->arena = arena_new();
	return view->arena;
}

uint64_t view_revision(struct view *view)
{
	return (uint64_t)column_int(&view->meta, 0);
}

static const char *put_text(struct buf *texts, size_t at)
{
	return (const char *)texts->data + at;
}

static size_t add_text(struct buf *texts, const char *prefix, struct span one, struct span two)
{
	size_t at = texts->len;

	buf_puts(texts, prefix);
	buf_append(texts, one.data, one.len);
	buf_append(texts, two.data, two.len);
	buf_put(texts, 0);
	return at;
}

enum code entry_row_fill(struct view *view, uint64_t seq, struct span blob, struct buf *texts, struct entry_row *out,
			 struct err *err)
{
	struct entry_peek peek;
	size_t id, spiffe_id, parent_id;

	if (!entry_peek(blob, &peek))
		return err_set(err, CODE_DATA_LOSS, "an entry in '%s' is damaged", view->db->path);
	texts->len = 0;
	id = add_text(texts, "", peek.id, (struct span){ 0 });
	spiffe_id = add_text(texts, "spiffe://", peek.spiffe_td, peek.spiffe_path);
	parent_id = add_text(texts, "spiffe://", peek.parent_td, peek.parent_path);
	*out = (struct entry_row){
		.seq = seq,
		.blob = blob,
		.id = put_text(texts, id),
		.spiffe_id = put_text(texts, spiffe_id),
		.parent_id = put_text(texts, parent_id),
		.revision = peek.revision,
		.created_at = peek.created_at,
		.admin = peek.admin,
		.downstream = peek.downstream,
	};
	return CODE_OK;
}

enum code view_entry(struct view *view, const char *id, struct arena *arena, Pb__Entry **out, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;
	Pb__Entry *entry;

	TRY(query_open(view->db, SQL_ENTRY_BY_ID, &q, err));
	query_text(&q, 1, id);
	TRY(query_step(&q, &row, err));
	if (!row)
		return err_set(err, CODE_NOT_FOUND, "entry not found");
	entry = message_unpack(&pb__entry__descriptor, column_blob(&q, 2), arena);
	if (entry == NULL)
		return err_set(err, CODE_DATA_LOSS, "entry '%s' in '%s' is damaged", id, view->db->path);
	*out = entry;
	return CODE_OK;
}

/* A number as Go prints a rune with %q. */
static enum code unhandled(const char *what, int behaviour, struct err *err)
{
	OWN_BUF rune = { 0 }, quoted = { 0 };

	if (behaviour == '"' || behaviour == '\'') /* the quotes that differ from those of a text */
		return err_set(err, CODE_INTERNAL, "datastore-sql: unhandled %smatch behavior '%s%c'", what,
			       behaviour == '"' ? "" : "\\", behaviour);
	go_put_rune(&rune, (uint32_t)behaviour);
	go_quote_bytes(&quoted, (const char *)rune.data, rune.len);
	return err_set(err, CODE_INTERNAL, "datastore-sql: unhandled %smatch behavior '%.*s'", what,
		       (int)quoted.len - 2, buf_text(&quoted) + 1);
}

static bool known_behaviour(int behaviour)
{
	return behaviour >= PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_EXACT &&
	       behaviour <= PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_ANY;
}

enum code match_prepare(const Pb__SelectorMatch *match, const char *what, struct arena *arena, struct selector_set *out,
			struct err *err)
{
	if (!known_behaviour((int)match->match))
		return unhandled(what, (int)match->match, err);
	out->n = selectors_set(match->selectors, match->n_selectors, arena, &out->items);
	return CODE_OK;
}

/* A filter made ready: what the chosen statement does not decide is decided on the blob. */
struct matcher {
	const struct entry_filter *filter;
	struct selector_set selectors;
	struct string_set federates_with;
};

static enum code matcher_prepare(const struct entry_filter *filter, struct arena *arena, struct matcher *out,
				 struct err *err)
{
	const Pb__FederatesWithMatch *federates = filter->federates_with;

	*out = (struct matcher){ .filter = filter };
	if (filter->selectors != NULL)
		TRY(match_prepare(filter->selectors, "selectors ", arena, &out->selectors, err));
	if (federates == NULL)
		return CODE_OK;
	if (!known_behaviour((int)federates->match))
		return unhandled("federates with ", (int)federates->match, err);
	out->federates_with.items = arena_alloc(arena, federates->n_trust_domains * sizeof(const char *));
	for (size_t i = 0; i < federates->n_trust_domains; i++) {
		size_t k = 0;

		while (k < out->federates_with.n &&
		       strcmp(out->federates_with.items[k], federates->trust_domains[i]) != 0)
			k++;
		if (k == out->federates_with.n)
			out->federates_with.items[out->federates_with.n++] = federates->trust_domains[i];
	}
	return CODE_OK;
}

static bool matches(const struct matcher *m, struct span blob)
{
	const struct entry_filter *filter = m->filter;
	struct entry_peek peek;

	if (filter->downstream || (filter->hint != NULL && filter->hint[0] != '\0')) {
		if (!entry_peek(blob, &peek))
			return true; /* damaged: whoever reads it says so */
		if (filter->downstream && !peek.downstream)
			return false;
		if (filter->hint != NULL && filter->hint[0] != '\0' &&
		    (peek.hint.len != strlen(filter->hint) || memcmp(peek.hint.data, filter->hint, peek.hint.len) != 0))
			return false;
	}
	if (filter->selectors != NULL &&
	    !selectors_match(blob, ENTRY_SELECTORS, &m->selectors, (int)filter->selectors->match))
		return false;
	return filter->federates_with == NULL ||
	       strings_match(blob, ENTRY_FEDERATES_WITH, &m->federates_with, (int)filter->federates_with->match);
}

/* Where the rows come from, in order of creation: a statement that has it by itself, or keys of an index, sorted here
 * (8 bytes each, while SQLite would sort whole rows). */
struct source {
	struct query rows;
	bool by_key;
	struct buf keys;
	size_t next;
};

static void source_done(struct source *source)
{
	query_done(&source->rows);
	buf_done(&source->keys);
}

static int compare_seqs(const void *left, const void *right)
{
	uint32_t a = (uint32_t) * (const int64_t *)left, b = (uint32_t) * (const int64_t *)right;

	return (a > b) - (a < b);
}

static enum code gather(struct view *view, enum sql sql, const char *text, uint64_t after, int64_t parent,
			struct source *out, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	out->by_key = true;
	TRY(query_open(view->db, sql, &q, err));
	query_text(&q, 1, text);
	for (;;) {
		int64_t key;

		TRY(query_step(&q, &row, err));
		if (!row)
			break;
		key = column_int(&q, 0);
		if ((uint32_t)key > after && (parent == 0 || key >> 32 == parent))
			buf_append(&out->keys, &key, sizeof key);
	}
	if (out->keys.len > 0)
		qsort(out->keys.data, out->keys.len / sizeof(int64_t), sizeof(int64_t), compare_seqs);
	return query_open(view->db, SQL_ENTRY_ROW, &out->rows, err);
}

/* Picks what looks at the fewest rows. */
static enum code source_open(struct view *view, const struct matcher *m, uint64_t after, struct source *out,
			     struct err *err)
{
	const struct entry_filter *filter = m->filter;
	int64_t parent = 0;
	bool named;

	if (filter->parent_id != NULL) {
		TRY(parent_number(view->db, filter->parent_id, &parent, &named, err));
		if (parent == 0) {
			out->by_key = true; /* of no keys */
			return CODE_OK;
		}
	}
	if (filter->spiffe_id != NULL)
		return gather(view, SQL_ENTRY_KEYS_BY_SPIFFE_ID, filter->spiffe_id, after, parent, out, err);
	if (parent != 0) {
		TRY(query_open(view->db, SQL_ENTRY_CHILDREN_AFTER, &out->rows, err));
		query_int(&out->rows, 1, parent);
		query_int(&out->rows, 2, (int64_t)(after < UINT32_MAX ? after : UINT32_MAX));
		return CODE_OK;
	}
	if (m->federates_with.n == 1) /* every behaviour asks for that one */
		return gather(view, SQL_FEDERATES_KEYS, m->federates_with.items[0], after, 0, out, err);
	TRY(query_open(view->db, SQL_ENTRY_ALL, &out->rows, err));
	query_int(&out->rows, 1, (int64_t)after);
	return CODE_OK;
}

static enum code source_next(struct source *source, bool *row, struct err *err)
{
	int64_t key;

	if (!source->by_key)
		return query_step(&source->rows, row, err);
	*row = source->next < source->keys.len;
	if (!*row)
		return CODE_OK;
	memcpy(&key, source->keys.data + source->next, sizeof key);
	source->next += sizeof key;
	query_reset(&source->rows);
	query_int(&source->rows, 1, key);
	TRY(query_step(&source->rows, row, err));
	return *row ? CODE_OK : err_set(err, CODE_DATA_LOSS, "an entry that an index names is missing");
}

enum code view_entries(struct view *view, const struct entry_filter *filter, uint64_t after, size_t limit,
		       entry_fn *each, void *ctx, struct err *err)
{
	static const struct entry_filter all;
	OWN_STRUCT(arena) arena = arena_new();
	__attribute__((cleanup(source_done))) struct source source = { 0 };
	OWN_BUF texts = { 0 };
	struct matcher m;
	bool row;
	size_t n = 0;

	TRY(matcher_prepare(filter != NULL ? filter : &all, arena, &m, err));
	TRY(source_open(view, &m, after < INT64_MAX ? after : INT64_MAX, &source, err));
	while (limit == 0 || n < limit) {
		struct entry_row out;
		struct span blob;

		TRY(source_next(&source, &row, err));
		if (!row)
			break;
		blob = column_blob(&source.rows, 2);
		if (!matches(&m, blob))
			continue;
		TRY(entry_row_fill(view, (uint64_t)column_int(&source.rows, 0), blob, &texts, &out, err));
		TRY(each(&out, ctx, err));
		n++;
	}
	return CODE_OK;
}

static enum code count_one(const struct entry_row *row __attribute__((unused)), void *ctx,
			   struct err *err __attribute__((unused)))
{
	++*(uint64_t *)ctx;
	return CODE_OK;
}

static bool filters_nothing(const struct entry_filter *f)
{
	return f == NULL || (f->spiffe_id == NULL && f->parent_id == NULL && f->selectors == NULL &&
			     f->federates_with == NULL && (f->hint == NULL || f->hint[0] == '\0') && !f->downstream);
}

enum code view_entry_count(struct view *view, const struct entry_filter *filter, uint64_t *out, struct err *err)
{
	uint64_t n = 0;

	if (filters_nothing(filter))
		n = (uint64_t)column_int(&view->meta, 1);
	else
		TRY(view_entries(view, filter, 0, 0, count_one, &n, err));
	*out = n;
	return CODE_OK;
}

enum code view_caller_rights(struct view *view, const char *spiffe_id, bool *admin, bool *downstream, struct err *err)
{
	return rights_by_entry(view->db, spiffe_id, admin, downstream, err);
}
