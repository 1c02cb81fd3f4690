/* SPDX-License-Identifier: Apache-2.0 */
/* Entry: the registration entries, as admins keep them (contract server-api.md 4.2). What agents ask of them is
 * svc_authorized.c. Lists are made of the rows' own bytes (api/mask.h); nothing of an entry is decoded for them. */
#include "api/batch.h"
#include "api/convert.h"
#include "api/entry_check.h"
#include "api/mask.h"
#include "api/pb.h"
#include "api/server.h"
#include "api/svc.h"
#include "base/id.h"
#include "base/rand.h"
#include "store/codec.h"

#include <string.h>

/* --- the audit log --- */

static const char *selectors_text(struct arena *arena, Pb__Selector *const *selectors, size_t n)
{
	const char **texts = arena_alloc(arena, n * sizeof *texts);

	for (size_t i = 0; i < n; i++)
		texts[i] = arena_printf(arena, "%s:%s", selectors[i]->type, selectors[i]->value);
	return join_texts(arena, texts, n);
}

static const char *list_text(struct arena *arena, const char *const *items, size_t n)
{
	return n == 0 ? NULL : join_texts(arena, items, n);
}

/* NULL for what is none. */
static const char *id_text(struct arena *arena, const Pb__SPIFFEID *id)
{
	struct spiffe_id parsed;

	return id != NULL && id_from_parts(id->trust_domain, id->path, arena, &parsed, NULL) == CODE_OK ? parsed.text
													: NULL;
}

/* The fields of an entry as the client sent it: those of the set. */
static const struct log_pair *audit_entry(struct call *call, const Pb__Entry *entry, uint32_t set)
{
	struct arena *arena = call->arena;
	struct pairs pairs = pairs_new(call, 16);
	const struct {
		unsigned field;
		struct log_pair pair;
	} all[] = {
		{ 1, KV("entry_id", entry->id[0] == '\0' ? NULL : entry->id) },
		{ 2, KV("spiffe_id", id_text(arena, entry->spiffe_id)) },
		{ 3, KV("parent_id", id_text(arena, entry->parent_id)) },
		{ 4, KV("selectors",
			entry->n_selectors == 0 ? NULL : selectors_text(arena, entry->selectors, entry->n_selectors)) },
		{ 5, KV_NUM("x509_svid_ttl", entry->x509_svid_ttl) },
		{ 6, KV("federates_with", list_text(arena, entry->federates_with, entry->n_federates_with)) },
		{ 7, KV_BOOL("admin", entry->admin) },
		{ 8, KV_BOOL("downstream", entry->downstream) },
		{ 9, KV_NUM("expires_at", entry->expires_at) },
		{ 10, KV("dns_name", list_text(arena, entry->dns_names, entry->n_dns_names)) },
		{ 11, KV_NUM("revision_number", entry->revision_number) },
		{ 12, KV_BOOL("store_svid", entry->store_svid) },
		{ 13, KV_NUM("jwt_svid_ttl", entry->jwt_svid_ttl) },
		{ 14, KV("hint", entry->hint) },
		{ 15, KV_NUM("created_at", entry->created_at) },
	};

	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
		if (mask_has(set, all[i].field))
			pairs_add(&pairs, all[i].pair);
	return pairs.items;
}

static const char *match_name(struct arena *arena, int match)
{
	static const char *const names[] = { "MATCH_EXACT", "MATCH_SUBSET", "MATCH_SUPERSET", "MATCH_ANY" };

	return match >= 0 && match <= 3 ? names[match] : arena_printf(arena, "%d", match);
}

static void audit_filter(struct call *call, const Pb__ListEntriesRequest__Filter *in)
{
	struct pairs pairs = pairs_new(call, 8);

	if (in == NULL || !call_audits(call))
		return;
	if (in->by_hint != NULL)
		PAIR(&pairs, KV("hint", in->by_hint->value));
	if (id_text(call->arena, in->by_parent_id) != NULL)
		PAIR(&pairs, KV("parent_id", id_text(call->arena, in->by_parent_id)));
	if (id_text(call->arena, in->by_spiffe_id) != NULL)
		PAIR(&pairs, KV("spiffe_id", id_text(call->arena, in->by_spiffe_id)));
	if (in->by_selectors != NULL) {
		PAIR(&pairs, KV("by_selector_match", match_name(call->arena, (int)in->by_selectors->match)));
		PAIR(&pairs, KV("by_selectors", selectors_text(call->arena, in->by_selectors->selectors,
							       in->by_selectors->n_selectors)));
	}
	if (in->by_federates_with != NULL) {
		PAIR(&pairs, KV("federates_with_match", match_name(call->arena, (int)in->by_federates_with->match)));
		PAIR(&pairs, KV("federates_with", join_texts(call->arena, in->by_federates_with->trust_domains,
							     in->by_federates_with->n_trust_domains)));
	}
	if (in->by_downstream != NULL)
		PAIR(&pairs, KV_BOOL("downstream", in->by_downstream->value));
	call_audit_add(call, pairs.items);
}

/* --- reading --- */

enum code entry_get(struct call *call, const void *request, void *reply)
{
	const Pb__GetEntryRequest *req = request;
	OWN_STRUCT(view) view = NULL;
	Pb__Entry *entry;
	enum code rc;

	if (req->id[0] == '\0')
		return err_set(call->err, CODE_INVALID_ARGUMENT, "missing ID");
	call->fields = CALL_PAIRS(call, KV("entry_id", req->id));
	CALL_AUDIT_ADD(call, KV("entry_id", req->id));
	TRY(call_view(call, &view));
	rc = view_entry(view, req->id, call->arena, &entry, call->err);
	if (rc == CODE_NOT_FOUND)
		return err_set(call->err, rc, "entry not found");
	if (rc != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to fetch entry");
	mask_entry(entry, mask_of_entry(req->output_mask));
	*(Pb__Entry *)reply = *entry;
	return CODE_OK;
}

enum code entry_count(struct call *call, const void *request, void *reply)
{
	const Pb__CountEntriesRequest *req = request;
	Pb__ListEntriesRequest__Filter same = PB__LIST_ENTRIES_REQUEST__FILTER__INIT;
	OWN_STRUCT(view) view = NULL;
	struct entry_filter filter;
	uint64_t count;

	if (req->filter != NULL) {
		same.by_spiffe_id = req->filter->by_spiffe_id;
		same.by_parent_id = req->filter->by_parent_id;
		same.by_selectors = req->filter->by_selectors;
		same.by_federates_with = req->filter->by_federates_with;
		same.by_hint = req->filter->by_hint;
		same.by_downstream = req->filter->by_downstream;
	}
	audit_filter(call, &same);
	TRY(entry_filter_from_proto(call, &same, "count", &filter, call->err));
	TRY(call_view(call, &view));
	if (view_entry_count(view, &filter, &count, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to count entries");
	((Pb__CountEntriesResponse *)reply)->count = (int32_t)count;
	return CODE_OK;
}

struct listing {
	struct buf *out;
	uint32_t set;
	uint64_t last;
};

static enum code list_one(const struct entry_row *row, void *ctx, struct err *err)
{
	struct listing *listing = ctx;

	listing->last = row->seq;
	if (!mask_embed(listing->out, 1, row->blob, listing->set))
		return err_set(err, CODE_INTERNAL, "entry '%s' is damaged", row->id);
	return CODE_OK;
}

enum code entry_list(struct call *call, const void *request, void *reply __attribute__((unused)))
{
	const Pb__ListEntriesRequest *req = request;
	struct listing listing = { .set = mask_of_entry(req->output_mask) };
	size_t limit = req->page_size > 0 ? (size_t)req->page_size : 0;
	OWN_STRUCT(view) view = NULL;
	struct entry_filter filter;
	uint64_t after = 0;

	audit_filter(call, req->filter);
	TRY(entry_filter_from_proto(call, req->filter, "list", &filter, call->err));
	if (limit > 0 && page_token_parse(req->page_token, &after, call->err) != CODE_OK) {
		err_set(call->err, CODE_INTERNAL,
			"datastore-sql: rpc error: code = InvalidArgument desc = could not parse token '%s'",
			req->page_token);
		return err_wrap(call->err, CODE_INTERNAL, "failed to list entries");
	}
	listing.out = call_reply_raw(call);
	TRY(call_view(call, &view));
	if (view_entries(view, &filter, after, limit, list_one, &listing, call->err) != CODE_OK)
		return err_wrap(call->err, CODE_INTERNAL, "failed to list entries");
	if (limit > 0 && listing.last > 0)
		wire_text(listing.out, 2, arena_printf(call->arena, "%llu", (unsigned long long)listing.last));
	return CODE_OK;
}

/* --- writing --- */

/* An entry as the client gets it. The state's own order of selectors and DNS names is the given one; the answers to
 * create and update have them sorted. */
static Pb__Entry *answer(struct call *call, const Pb__Entry *entry, bool sorted, uint32_t set)
{
	Pb__Entry *out = arena_memdup(call->arena, entry, sizeof *entry);

	if (sorted && entry->n_selectors > 1) {
		out->selectors =
			arena_memdup(call->arena, entry->selectors, entry->n_selectors * sizeof *entry->selectors);
		selectors_sort(out->selectors, out->n_selectors);
	}
	if (sorted && entry->n_dns_names > 1) {
		out->dns_names =
			arena_memdup(call->arena, entry->dns_names, entry->n_dns_names * sizeof *entry->dns_names);
		strings_sort(out->dns_names, out->n_dns_names);
	}
	mask_entry(out, set);
	return out;
}

static void create_prepare(struct call *call, const Pb__Entry *from, struct batch_item *item)
{
	Pb__EntryCreate *create;
	Pb__Entry *entry;
	struct err err = { 0 };

	if (entry_from_proto(call, from, (uint32_t)MASK_ALL, &entry, &err) != CODE_OK) {
		batch_fail(call, item, CODE_INVALID_ARGUMENT, "failed to convert entry", err.text);
		return;
	}
	item->fields = CALL_PAIRS(call, KV("spiffe_id", audit_id(call->arena, entry->spiffe_id)));
	if (entry_check_create(entry, &err) != CODE_OK) {
		batch_fail_status(call, item, CODE_INVALID_ARGUMENT, "failed to create entry", CODE_INVALID_ARGUMENT,
				  err.text);
		return;
	}
	if (entry->id[0] == '\0') {
		char id[37];

		rand_uuid7(id);
		entry->id = arena_strdup(call->arena, id);
	}
	create = pb_new(&pb__entry_create__descriptor, call->arena);
	create->entry = entry;
	item->command = pb_new(&pb__command__descriptor, call->arena);
	item->command->kind_case = PB__COMMAND__KIND_ENTRY_CREATE;
	item->command->entry_create = create;
}

static Pb__Entry *create_finish(struct call *call, struct batch_item *item, uint32_t set)
{
	const Pb__Outcome *outcome = item->outcome;

	if (outcome == NULL)
		return NULL;
	if (outcome->code == CODE_OK)
		return answer(call, outcome->entry, true, set);
	if (outcome->code == CODE_ALREADY_EXISTS && outcome->entry != NULL) { /* a similar one: no line in the log */
		item->code = CODE_ALREADY_EXISTS;
		item->text = "similar entry already exists";
		return answer(call, outcome->entry, false, set);
	}
	batch_refused(call, item, "failed to create entry", "failed to create entry");
	return NULL;
}

enum code entry_batch_create(struct call *call, const void *request, void *reply)
{
	const Pb__BatchCreateEntryRequest *req = request;
	Pb__BatchCreateEntryResponse *out = reply;
	struct batch_item *items = batch_new(call, req->n_entries);

	for (size_t i = 0; i < req->n_entries; i++)
		create_prepare(call, req->entries[i], &items[i]);
	TRY(batch_run(call, items, req->n_entries));
	out->results = arena_alloc(call->arena, req->n_entries * sizeof *out->results);
	for (size_t i = 0; i < req->n_entries; i++) {
		Pb__BatchCreateEntryResponse__Result *result =
			pb_new(&pb__batch_create_entry_response__result__descriptor, call->arena);

		result->entry = create_finish(call, &items[i], mask_of_entry(req->output_mask));
		result->status = batch_status(call, &items[i]);
		if (call_audits(call))
			batch_audit(call, &items[i], audit_entry(call, req->entries[i], (uint32_t)MASK_ALL));
		out->results[out->n_results++] = result;
	}
	return CODE_OK;
}

static void update_prepare(struct call *call, const Pb__Entry *from, Pb__EntryMask *mask, struct batch_item *item)
{
	uint32_t set = mask_of_entry(mask);
	Pb__EntryUpdate *update;
	Pb__Entry *entry;
	struct err err = { 0 };

	item->fields = CALL_PAIRS(call, KV("entry_id", from->id));
	if (entry_from_proto(call, from, set, &entry, &err) != CODE_OK) {
		batch_fail(call, item, CODE_INVALID_ARGUMENT, "failed to convert entry", err.text);
		return;
	}
	if (entry_check_update(entry, set, &err) != CODE_OK) {
		batch_fail_status(call, item, CODE_INVALID_ARGUMENT, "failed to update entry", CODE_INVALID_ARGUMENT,
				  err.text);
		return;
	}
	update = pb_new(&pb__entry_update__descriptor, call->arena);
	update->entry = entry;
	update->mask = mask;
	item->command = pb_new(&pb__command__descriptor, call->arena);
	item->command->kind_case = PB__COMMAND__KIND_ENTRY_UPDATE;
	item->command->entry_update = update;
}

enum code entry_batch_update(struct call *call, const void *request, void *reply)
{
	const Pb__BatchUpdateEntryRequest *req = request;
	Pb__BatchUpdateEntryResponse *out = reply;
	struct batch_item *items = batch_new(call, req->n_entries);

	for (size_t i = 0; i < req->n_entries; i++)
		update_prepare(call, req->entries[i], req->input_mask, &items[i]);
	TRY(batch_run(call, items, req->n_entries));
	out->results = arena_alloc(call->arena, req->n_entries * sizeof *out->results);
	for (size_t i = 0; i < req->n_entries; i++) {
		Pb__BatchUpdateEntryResponse__Result *result =
			pb_new(&pb__batch_update_entry_response__result__descriptor, call->arena);

		if (items[i].outcome != NULL) {
			batch_refused(call, &items[i], "failed to update entry", "failed to update entry");
			if (items[i].code == CODE_OK)
				result->entry =
					answer(call, items[i].outcome->entry, true, mask_of_entry(req->output_mask));
		}
		result->status = batch_status(call, &items[i]);
		if (call_audits(call))
			batch_audit(call, &items[i],
				    audit_entry(call, req->entries[i], mask_of_entry(req->input_mask)));
		out->results[out->n_results++] = result;
	}
	return CODE_OK;
}

static void delete_prepare(struct call *call, const char *id, struct batch_item *item)
{
	Pb__EntryDelete *delete;

	if (id[0] == '\0') {
		batch_fail(call, item, CODE_INVALID_ARGUMENT, "missing entry ID", NULL);
		return;
	}
	item->fields = CALL_PAIRS(call, KV("entry_id", id));
	delete = pb_new(&pb__entry_delete__descriptor, call->arena);
	delete->id = id;
	item->command = pb_new(&pb__command__descriptor, call->arena);
	item->command->kind_case = PB__COMMAND__KIND_ENTRY_DELETE;
	item->command->entry_delete = delete;
}

enum code entry_batch_delete(struct call *call, const void *request, void *reply)
{
	const Pb__BatchDeleteEntryRequest *req = request;
	Pb__BatchDeleteEntryResponse *out = reply;
	struct batch_item *items = batch_new(call, req->n_ids);

	for (size_t i = 0; i < req->n_ids; i++)
		delete_prepare(call, req->ids[i], &items[i]);
	TRY(batch_run(call, items, req->n_ids));
	out->results = arena_alloc(call->arena, req->n_ids * sizeof *out->results);
	for (size_t i = 0; i < req->n_ids; i++) {
		Pb__BatchDeleteEntryResponse__Result *result =
			pb_new(&pb__batch_delete_entry_response__result__descriptor, call->arena);

		if (items[i].outcome != NULL)
			batch_refused(call, &items[i], "failed to delete entry", "entry not found");
		result->id = req->ids[i];
		result->status = batch_status(call, &items[i]);
		if (call_audits(call))
			batch_audit(call, &items[i], CALL_PAIRS(call, KV("entry_id", req->ids[i])));
		out->results[out->n_results++] = result;
	}
	return CODE_OK;
}
