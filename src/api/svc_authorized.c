/* SPDX-License-Identifier: Apache-2.0 */
/* Entry, as agents ask for it: all that they may have (GetAuthorizedEntries) and what has changed of it
 * (SyncAuthorizedEntries, contract server-api.md 4.2). Every agent asks every few seconds: the answers are the rows'
 * own bytes, masked.
 *
 * Sync of more than a page of entries: the client gets the revisions of all, page by page, then asks for those that it
 * lacks by id. No view may be open while the client thinks, so the revisions are gathered first, and what it asks for
 * is looked up afterwards: few ids one by one, many from one more walk whose entries are kept until the stream ends. An
 * entry may be newer than the revision announced; one that is gone by then is passed over, as an unknown id is. */
#include "api/mask.h"
#include "api/pb.h"
#include "api/server.h"
#include "api/svc.h"
#include "entry.pb-c.h"

#include <stdlib.h>
#include <string.h>

enum {
	SYNC_PAGE = 500,   /* entries or revisions in one message: SPIRE's */
	SYNC_LOOKUPS = 64, /* up to so many ids are looked up one by one */
};

enum { /* SyncAuthorizedEntriesResponse */
       F_REVISIONS = 1,
       F_ENTRIES = 2,
       F_MORE = 3,
};

static enum code damaged(struct err *err)
{
	return err_set(err, CODE_INTERNAL, "an entry in the state is damaged");
}

static enum code failed(struct call *call)
{
	return err_wrap(call->err, CODE_INTERNAL, "failed to fetch entries");
}

/* --- GetAuthorizedEntries --- */

struct gathering {
	struct buf *out;
	uint32_t set;
};

static enum code get_one(struct span blob, void *ctx, struct err *err)
{
	struct gathering *gathering = ctx;

	return mask_embed(gathering->out, 1, blob, gathering->set) ? CODE_OK : damaged(err);
}

enum code entry_get_authorized(struct call *call, const void *request, void *reply __attribute__((unused)))
{
	const Pb__GetAuthorizedEntriesRequest *req = request;
	struct gathering gathering = { .out = call_reply_raw(call), .set = mask_of_entry(req->output_mask) };
	OWN_STRUCT(view) view = NULL;

	TRY(call_view(call, &view));
	if (view_authorized_blobs(view, call->caller->id, call_now_s(call), get_one, &gathering, call->err) != CODE_OK)
		return failed(call);
	return CODE_OK;
}

/* --- SyncAuthorizedEntries --- */

struct sync {
	struct call *call;
	struct arena *kept; /* the call's own, while a request has one of its own */
	uint32_t set;
	struct buf first;     /* the one message of a small answer: entries */
	struct buf revisions; /* of all: fields of a message, one after the other */
	size_t *page_ends;    /* where in `revisions` each full page ends */
	size_t n_pages;
	size_t n;
	/* all entries, masked, once the client has asked for many: */
	bool known;
	struct buf entries;
	struct sync_entry *index; /* by id */
	size_t n_index, index_cap;
};

struct sync_entry {
	const char *id;
	size_t at, len; /* in `entries` */
};

static void sync_done(struct sync *sync)
{
	buf_done(&sync->first);
	buf_done(&sync->revisions);
	buf_done(&sync->entries);
	free(sync->page_ends);
	free(sync->index);
}

static size_t varint_len(uint64_t value)
{
	size_t len = 1;

	while (value >= 0x80) {
		value >>= 7;
		len++;
	}
	return len;
}

static size_t number_len(uint64_t value)
{
	return value == 0 ? 0 : 1 + varint_len(value);
}

/* EntryRevision { id, revision_number, created_at } */
static void add_revision(struct buf *out, const struct entry_version *version)
{
	size_t id_len = version->id.len;

	wire_varint(out, F_REVISIONS << 3 | 2);
	wire_varint(out,
		    1 + varint_len(id_len) + id_len + number_len(version->revision) + number_len(version->created_at));
	wire_bytes(out, 1, version->id.data, id_len);
	wire_number(out, 2, version->revision);
	wire_number(out, 3, version->created_at);
}

static enum code sync_one(struct span blob, void *ctx, struct err *err)
{
	struct sync *sync = ctx;
	struct entry_version version;

	if (!mask_entry_version(blob, &version))
		return damaged(err);
	add_revision(&sync->revisions, &version);
	if (++sync->n % SYNC_PAGE == 0) {
		sync->page_ends = xrealloc(sync->page_ends, (sync->n_pages + 1) * sizeof *sync->page_ends);
		sync->page_ends[sync->n_pages++] = sync->revisions.len;
	}
	if (sync->n <= SYNC_PAGE && !mask_embed(&sync->first, F_ENTRIES, blob, sync->set))
		return damaged(err);
	return CODE_OK;
}

static enum code walk(struct sync *sync, blob_fn *each)
{
	struct call *call = sync->call;
	OWN_STRUCT(view) view = NULL;

	TRY(call_view(call, &view));
	if (view_authorized_blobs(view, call->caller->id, call_now_s(call), each, sync, call->err) != CODE_OK)
		return failed(call);
	return CODE_OK;
}

static enum code send_page(struct sync *sync, const void *data, size_t len, bool more)
{
	OWN_BUF page = { 0 };

	buf_append(&page, data, len);
	wire_number(&page, F_MORE, more);
	return call_send_raw(sync->call, &page);
}

static enum code send_revisions(struct sync *sync)
{
	size_t from = 0;

	for (size_t i = 0; i < sync->n_pages; i++) {
		bool more = sync->page_ends[i] < sync->revisions.len;

		TRY(send_page(sync, sync->revisions.data + from, sync->page_ends[i] - from, more));
		from = sync->page_ends[i];
	}
	if (from < sync->revisions.len)
		TRY(send_page(sync, sync->revisions.data + from, sync->revisions.len - from, false));
	buf_done(&sync->revisions);
	return CODE_OK;
}

/* --- the entries that the client lacks --- */

static enum code know_one(struct span blob, void *ctx, struct err *err)
{
	struct sync *sync = ctx;
	struct sync_entry *entry;
	struct entry_version version;

	if (!mask_entry_version(blob, &version))
		return damaged(err);
	if (sync->n_index == sync->index_cap) {
		sync->index_cap = sync->index_cap == 0 ? 1024 : sync->index_cap * 2;
		sync->index = xrealloc(sync->index, sync->index_cap * sizeof *sync->index);
	}
	entry = &sync->index[sync->n_index++];
	entry->id = arena_strndup(sync->kept, (const char *)version.id.data, version.id.len);
	entry->at = sync->entries.len;
	if (!mask_embed(&sync->entries, F_ENTRIES, blob, sync->set))
		return damaged(err);
	entry->len = sync->entries.len - entry->at;
	return CODE_OK;
}

static int compare_entries(const void *a, const void *b)
{
	return strcmp(((const struct sync_entry *)a)->id, ((const struct sync_entry *)b)->id);
}

static enum code know_all(struct sync *sync)
{
	if (sync->known)
		return CODE_OK;
	TRY(walk(sync, know_one));
	qsort(sync->index, sync->n_index, sizeof *sync->index, compare_entries);
	sync->known = true;
	return CODE_OK;
}

static int compare_ids(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

struct pages {
	struct buf page;
	size_t n;
};

/* A page goes out when one more entry comes, so that the last one knows that it is the last. */
static enum code add_entry(struct sync *sync, struct pages *pages, const void *data, size_t len)
{
	if (pages->n == SYNC_PAGE) {
		TRY(send_page(sync, pages->page.data, pages->page.len, true));
		pages->page.len = 0;
		pages->n = 0;
	}
	buf_append(&pages->page, data, len);
	pages->n++;
	return CODE_OK;
}

/* One of few: by a lookup. Unknown: nothing. */
static enum code look_up(struct sync *sync, const char *id, struct buf *out)
{
	struct call *call = sync->call;
	OWN_STRUCT(view) view = NULL;
	OWN_BUF bytes = { 0 };
	Pb__Entry *entry;
	enum code rc;

	TRY(call_view(call, &view));
	rc = view_authorized_entry(view, call->caller->id, id, call_now_s(call), call->arena, &entry, call->err);
	if (rc == CODE_NOT_FOUND)
		return CODE_OK;
	if (rc != CODE_OK)
		return failed(call);
	mask_entry(entry, sync->set);
	pb_encode(entry, &bytes);
	wire_bytes(out, F_ENTRIES, bytes.data, bytes.len);
	return CODE_OK;
}

static enum code add_by_id(struct sync *sync, struct pages *pages, const char *id)
{
	OWN_BUF bytes = { 0 };

	if (sync->known) {
		const struct sync_entry key = { .id = id }, *found = NULL;

		if (sync->n_index > 0)
			found = bsearch(&key, sync->index, sync->n_index, sizeof key, compare_entries);
		return found == NULL ? CODE_OK : add_entry(sync, pages, sync->entries.data + found->at, found->len);
	}
	TRY(look_up(sync, id, &bytes));
	return bytes.len == 0 ? CODE_OK : add_entry(sync, pages, bytes.data, bytes.len);
}

static enum code answer_ids(struct sync *sync, struct pages *pages, const char *const *ids, size_t n)
{
	const char **sorted = arena_memdup(sync->call->arena, ids, n * sizeof *ids);

	if (n > SYNC_LOOKUPS)
		TRY(know_all(sync));
	qsort(sorted, n, sizeof *sorted, compare_ids);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || strcmp(sorted[i], sorted[i - 1]) != 0)
			TRY(add_by_id(sync, pages, sorted[i]));
	return send_page(sync, pages->page.data, pages->page.len, false);
}

/* What a request needs goes with it: a client may send any number of them. */
static enum code serve_one(struct sync *sync, bool *end)
{
	Pb__SyncAuthorizedEntriesRequest *request;
	struct pages pages = { 0 };
	enum code rc;

	TRY(call_recv(sync->call, &pb__sync_authorized_entries_request__descriptor, (void **)&request));
	*end = request == NULL;
	if (*end)
		return CODE_OK;
	rc = answer_ids(sync, &pages, request->ids, request->n_ids);
	buf_done(&pages.page);
	return rc;
}

static enum code serve_ids(struct sync *sync)
{
	enum code rc = CODE_OK;
	bool end = false;

	sync->kept = sync->call->arena;
	while (rc == CODE_OK && !end) {
		OWN_STRUCT(arena) scratch = arena_new();

		sync->call->arena = scratch;
		rc = serve_one(sync, &end);
		sync->call->arena = sync->kept;
	}
	return rc;
}

/* SPIRE refuses a first request without a line in its log. */
static enum code refuse_first(struct call *call, const char *text)
{
	call->logged = true;
	return err_set(call->err, CODE_INVALID_ARGUMENT, "%s", text);
}

static enum code run_sync(struct sync *sync)
{
	struct call *call = sync->call;
	Pb__SyncAuthorizedEntriesRequest *request;

	TRY(call_recv(call, &pb__sync_authorized_entries_request__descriptor, (void **)&request));
	if (request == NULL)
		return err_set(call->err, CODE_UNKNOWN, "EOF");
	if (request->n_ids > 0)
		return refuse_first(call, "specifying IDs on initial request is not supported");
	if (request->output_mask != NULL && !request->output_mask->revision_number)
		return refuse_first(call, "revision number cannot be masked");
	sync->set = mask_of_entry(request->output_mask);
	TRY(walk(sync, sync_one));
	if (sync->n <= SYNC_PAGE)
		return call_send_raw(call, &sync->first);
	buf_done(&sync->first);
	TRY(send_revisions(sync));
	return serve_ids(sync);
}

enum code entry_sync_authorized(struct call *call)
{
	struct sync sync = { .call = call };
	enum code rc = run_sync(&sync);

	sync_done(&sync);
	return rc;
}
