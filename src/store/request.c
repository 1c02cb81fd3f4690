/* SPDX-License-Identifier: Apache-2.0 */
/* Once (availability.md V14): what a client's request id was answered is kept for a day, so that a retry is answered
 * the same and done once. Only what was applied is kept: a refusal for want of room is not. */
#include "store/state.h"

#include <string.h>

enum {
	REQUESTS_ALL = 100000,
	REQUESTS_CALLER = 10000,
	REQUESTS_EXPIRE_STEP = 2048, /* dropped a batch at most: more than a batch can add */
	ENTRY_KEPT_MAX = 16 << 10,   /* a larger entry is not kept with the outcome */
};
static const int64_t REQUEST_TTL_MS = INT64_C(24) * 3600 * 1000;

/* What the id stands for: the client's request if the edge said so, else the command without the id. */
static void content_digest(struct apply *a, uint8_t out[32])
{
	Pb__Command content = *a->command;
	struct span bytes;

	hasher_begin(a->store->hasher);
	if (a->command->request_digest.len > 0) {
		hasher_add(a->store->hasher, a->command->request_digest.data, a->command->request_digest.len);
	} else {
		content.request_id = (ProtobufCBinaryData){ 0, NULL };
		content.item = 0;
		content.right = PB__COMMAND__RIGHT__NONE;
		bytes = message_pack_arena(&content, a->arena);
		hasher_add(a->store->hasher, bytes.data, bytes.len);
	}
	hasher_end(a->store->hasher, out);
}

static enum code count_get(struct store *store, const char *caller, int64_t *out, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(store->db, SQL_REQUEST_COUNT_GET, &q, err));
	query_text(&q, 1, caller);
	TRY(query_step(&q, &row, err));
	*out = row ? column_int(&q, 1) : 0;
	return CODE_OK;
}

static enum code count_move(struct store *store, const char *caller, int by, struct err *err)
{
	int64_t n;

	TRY(count_get(store, caller, &n, err));
	n += by;
	if (n == 0)
		return row_drop(store, TABLE_REQUEST_COUNT, CELLS(TEXT(caller)), NULL, err);
	return row_replace(store, TABLE_REQUEST_COUNT, CELLS(TEXT(caller), INT(n)), err);
}

/* One that has had its day counts as none. */
static enum code request_read(struct apply *a, bool *found, struct span *digest, struct span *outcome, struct err *err)
{
	OWN_QUERY q = { 0 };

	TRY(query_open(a->store->db, SQL_REQUEST_GET, &q, err));
	query_text(&q, 1, a->command->caller);
	query_blob(&q, 2, a->command->request_id.data, a->command->request_id.len);
	query_int(&q, 3, a->command->item);
	TRY(query_step(&q, found, err));
	if (*found && column_int(&q, 4) <= a->store->now_ms - REQUEST_TTL_MS)
		*found = false;
	if (*found) {
		*digest = column_blob_copy(&q, 3, a->arena);
		*outcome = column_blob_copy(&q, 5, a->arena);
	}
	return CODE_OK;
}

static enum code check_room(struct apply *a, bool *room, struct err *err)
{
	int64_t n;

	*room = false;
	TRY(count_get(a->store, a->command->caller, &n, err));
	if (n >= REQUESTS_CALLER)
		return outcome_refuse(
			a, CODE_RESOURCE_EXHAUSTED,
			"'%s' has used %d request ids within 24 hours: wait, or send the call without one",
			a->command->caller[0] != '\0' ? a->command->caller : "the local socket", REQUESTS_CALLER);
	if (a->store->numbers[N_REQUESTS] >= REQUESTS_ALL)
		return outcome_refuse(
			a, CODE_RESOURCE_EXHAUSTED,
			"%d request ids have been used within 24 hours: wait, or send the call without one",
			REQUESTS_ALL);
	*room = true;
	return CODE_OK;
}

/* What is large is not kept a second time: a retry gets it as it is by then. */
static struct span outcome_pack(struct apply *a)
{
	Pb__Outcome kept = *a->out;
	Pb__Bundle bundle = PB__BUNDLE__INIT;
	Pb__FederationRelationship relationship;
	Pb__Entry entry = PB__ENTRY__INIT;

	if (kept.bundle != NULL) {
		bundle.trust_domain = kept.bundle->trust_domain;
		kept.bundle = &bundle;
	}
	if (kept.relationship != NULL && kept.relationship->trust_domain_bundle != NULL) {
		relationship = *kept.relationship;
		bundle.trust_domain = relationship.trust_domain;
		relationship.trust_domain_bundle = &bundle;
		kept.relationship = &relationship;
	}
	if (kept.entry != NULL && protobuf_c_message_get_packed_size(&kept.entry->base) > ENTRY_KEPT_MAX) {
		entry.id = kept.entry->id;
		kept.entry = &entry;
	}
	return message_pack_arena(&kept, a->arena);
}

static enum code bundle_again(struct apply *a, Pb__Bundle **bundle, struct err *err)
{
	Pb__Bundle *now;

	if (*bundle == NULL)
		return CODE_OK;
	TRY(bundle_get(a->store->db, (*bundle)->trust_domain, a->arena, &now, err));
	if (now != NULL)
		*bundle = now;
	return CODE_OK;
}

static enum code outcome_unpack(struct apply *a, struct span kept, struct err *err)
{
	Pb__Outcome *out = message_unpack(&pb__outcome__descriptor, kept, a->arena);
	struct entry_at at;

	if (out == NULL)
		return err_set(err, CODE_DATA_LOSS, "a kept outcome in '%s' is damaged", a->store->db->path);
	TRY(bundle_again(a, &out->bundle, err));
	if (out->relationship != NULL)
		TRY(bundle_again(a, &out->relationship->trust_domain_bundle, err));
	if (out->entry != NULL && out->entry->spiffe_id == NULL) {
		TRY(entry_by_id(a->store->db, out->entry->id, a->arena, &at, err));
		if (at.found)
			out->entry = message_unpack(&pb__entry__descriptor, at.blob, a->arena);
	}
	*a->out = *out;
	a->out->replayed = true;
	return CODE_OK;
}

enum code request_recall(struct apply *a, bool *known, struct err *err)
{
	uint8_t digest[32];
	struct span kept, outcome;
	bool room;

	TRY(request_read(a, known, &kept, &outcome, err));
	if (!*known) {
		TRY(check_room(a, &room, err));
		*known = !room;
		return CODE_OK;
	}
	content_digest(a, digest);
	if (kept.len != sizeof digest || memcmp(kept.data, digest, sizeof digest) != 0)
		return outcome_refuse(a, CODE_INVALID_ARGUMENT,
				      "the request id has been used for a request with other content");
	return outcome_unpack(a, outcome, err);
}

enum code request_remember(struct apply *a, struct err *err)
{
	const Pb__Command *command = a->command;
	struct span id = { command->request_id.data, command->request_id.len }, hash, outcome;
	uint8_t digest[32];
	bool expired;

	content_digest(a, digest);
	hash = (struct span){ digest, sizeof digest };
	outcome = outcome_pack(a);
	TRY(row_drop(a->store, TABLE_REQUEST, CELLS(TEXT(command->caller), BLOB(id), INT(command->item)), &expired,
		     err));
	if (!expired)
		TRY(count_move(a->store, command->caller, 1, err));
	return row_put(a->store, TABLE_REQUEST,
		       CELLS(TEXT(command->caller), BLOB(id), INT(command->item), BLOB(hash), INT(a->store->now_ms),
			     BLOB(outcome)),
		       err);
}

/* The oldest that has had its day. */
static enum code expired_next(struct store *store, bool *found, const char **caller, struct span *id, int64_t *item,
			      struct err *err)
{
	OWN_QUERY q = { 0 };

	TRY(query_open(store->db, SQL_REQUEST_EXPIRED, &q, err));
	query_int(&q, 1, store->now_ms - REQUEST_TTL_MS);
	query_int(&q, 2, 1);
	TRY(query_step(&q, found, err));
	if (!*found)
		return CODE_OK;
	*caller = arena_strdup(store->arena, column_text(&q, 0));
	*id = column_blob_copy(&q, 1, store->arena);
	*item = column_int(&q, 2);
	return CODE_OK;
}

enum code requests_expire(struct store *store, struct err *err)
{
	for (int i = 0; i < REQUESTS_EXPIRE_STEP; i++) {
		const char *caller = NULL;
		struct span id = { 0 };
		int64_t item = 0;
		bool found;

		if (store->numbers[N_REQUESTS] == 0)
			return CODE_OK;
		TRY(expired_next(store, &found, &caller, &id, &item, err));
		if (!found)
			return CODE_OK;
		TRY(row_drop(store, TABLE_REQUEST, CELLS(TEXT(caller), BLOB(id), INT(item)), NULL, err));
		TRY(count_move(store, caller, -1, err));
	}
	return CODE_OK;
}
