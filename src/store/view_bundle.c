/* SPDX-License-Identifier: Apache-2.0 */
/* Reading bundles, federation relationships and CA journals. */
#include "store/reader.h"
#include "store/state.h"

enum code view_bundle(struct view *view, const char *td, struct arena *arena, Pb__Bundle **out, struct err *err)
{
	Pb__Bundle *bundle;

	TRY(bundle_get(view->db, td, arena, &bundle, err));
	if (bundle == NULL)
		return err_set(err, CODE_NOT_FOUND, "bundle not found");
	*out = bundle;
	return CODE_OK;
}

enum code view_bundle_blob(struct view *view, const char *td, struct arena *arena, struct span *out, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(view->db, SQL_BUNDLE_GET, &q, err));
	query_text(&q, 1, td);
	TRY(query_step(&q, &row, err));
	if (!row)
		return err_set(err, CODE_NOT_FOUND, "bundle not found");
	*out = column_blob_copy(&q, 3, arena);
	return CODE_OK;
}

enum code view_bundle_version(struct view *view, const char *td, uint64_t *out, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(view->db, SQL_BUNDLE_VERSION, &q, err));
	query_text(&q, 1, td);
	TRY(query_step(&q, &row, err));
	*out = row ? (uint64_t)column_int(&q, 0) : 0;
	return CODE_OK;
}

enum code view_bundles(struct view *view, uint64_t after, size_t limit, bundle_fn *each, void *ctx, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(view->db, SQL_BUNDLE_ALL, &q, err));
	query_int(&q, 1, (int64_t)(after < INT64_MAX ? after : INT64_MAX));
	for (size_t n = 0; limit == 0 || n < limit; n++) {
		TRY(query_step(&q, &row, err));
		if (!row)
			break;
		TRY(each((uint64_t)column_int(&q, 0), column_text(&q, 1), column_blob(&q, 2), ctx, err));
	}
	return CODE_OK;
}

enum code view_bundle_count(struct view *view, uint64_t *out, struct err *err __attribute__((unused)))
{
	*out = (uint64_t)column_int(&view->meta, 3);
	return CODE_OK;
}

static enum code decode(struct view *view, const char *td, struct span blob, struct arena *arena,
			Pb__FederationRelationship **out, struct err *err)
{
	Pb__FederationRelationship *relationship =
		message_unpack(&pb__federation_relationship__descriptor, blob, arena);

	if (relationship == NULL)
		return err_set(err, CODE_DATA_LOSS, "the relationship with '%s' in '%s' is damaged", td,
			       view->db->path);
	TRY(bundle_get(view->db, td, arena, &relationship->trust_domain_bundle, err));
	*out = relationship;
	return CODE_OK;
}

enum code view_relationship(struct view *view, const char *td, struct arena *arena, Pb__FederationRelationship **out,
			    struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(view->db, SQL_RELATIONSHIP_GET, &q, err));
	query_text(&q, 1, td);
	TRY(query_step(&q, &row, err));
	if (!row)
		return err_set(err, CODE_NOT_FOUND, "federation relationship does not exist");
	return decode(view, td, column_blob(&q, 2), arena, out, err);
}

enum code view_relationships(struct view *view, uint64_t after, size_t limit, struct arena *arena,
			     relationship_fn *each, void *ctx, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(view->db, SQL_RELATIONSHIP_ALL, &q, err));
	query_int(&q, 1, (int64_t)(after < INT64_MAX ? after : INT64_MAX));
	for (size_t n = 0; limit == 0 || n < limit; n++) {
		Pb__FederationRelationship *relationship;

		TRY(query_step(&q, &row, err));
		if (!row)
			break;
		TRY(decode(view, column_text(&q, 1), column_blob(&q, 2), arena, &relationship, err));
		TRY(each((uint64_t)column_int(&q, 0), relationship, ctx, err));
	}
	return CODE_OK;
}

enum code view_journal(struct view *view, const char *node, struct arena *arena, Pb__Journal **out, struct err *err)
{
	OWN_QUERY q = { 0 };
	Pb__Journal *journal;
	bool row;

	TRY(query_open(view->db, SQL_JOURNAL_GET, &q, err));
	query_text(&q, 1, node);
	TRY(query_step(&q, &row, err));
	if (!row)
		return err_set(err, CODE_NOT_FOUND, "node '%s' has no CA journal", node);
	journal = message_unpack(&pb__journal__descriptor, column_blob(&q, 1), arena);
	if (journal == NULL)
		return err_set(err, CODE_DATA_LOSS, "the CA journal of '%s' in '%s' is damaged", node, view->db->path);
	*out = journal;
	return CODE_OK;
}
