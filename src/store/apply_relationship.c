/* SPDX-License-Identifier: Apache-2.0 */
/* Federation relationships. The row holds the relationship without a bundle: the bundle has its own row and may be
 * there without it. */
#include "store/state.h"

#include <string.h>

static enum code relationship_get(struct apply *a, const char *td, Pb__FederationRelationship **out, uint64_t *seq,
				  struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	*out = NULL;
	TRY(query_open(a->store->db, SQL_RELATIONSHIP_GET, &q, err));
	query_text(&q, 1, td);
	TRY(query_step(&q, &row, err));
	if (!row)
		return CODE_OK;
	*seq = (uint64_t)column_int(&q, 1);
	*out = message_unpack(&pb__federation_relationship__descriptor, column_blob(&q, 2), a->arena);
	return *out != NULL ? CODE_OK
			    : err_set(err, CODE_DATA_LOSS, "the relationship with '%s' in '%s' is damaged", td,
				      a->store->db->path);
}

/* The bundle that came with the relationship, if one did, takes the place of the stored one. */
static enum code bundle_take(struct apply *a, const Pb__Bundle *given, struct err *err)
{
	Pb__Bundle *bundle;

	if (given == NULL)
		return CODE_OK;
	bundle = bundle_untainted(given, a->arena);
	return bundle_put(a->store, bundle, err);
}

static enum code relationship_put(struct apply *a, uint64_t seq, const Pb__FederationRelationship *relationship,
				  struct err *err)
{
	Pb__FederationRelationship *bare = arena_memdup(a->arena, relationship, sizeof *relationship);
	struct span blob;

	bare->trust_domain_bundle = NULL;
	blob = message_pack_arena(bare, a->arena);
	a->out->changed = true;
	return row_replace(a->store, TABLE_RELATIONSHIP, CELLS(TEXT(bare->trust_domain), INT(seq), BLOB(blob)), err);
}

/* What the edge has checked; false: refused. */
static bool is_whole(struct apply *a, const Pb__FederationRelationship *in)
{
	const Pb__Bundle *bundle = in != NULL ? in->trust_domain_bundle : NULL;

	if (in == NULL || in->trust_domain[0] == '\0')
		outcome_refuse(a, CODE_INVALID_ARGUMENT, "missing federation relationship");
	else if (strcmp(in->trust_domain, a->store->trust_domain) == 0)
		outcome_refuse(a, CODE_INVALID_ARGUMENT,
			       "unable to create federation relationship for server trust domain");
	else if (bundle != NULL && strcmp(bundle->trust_domain, in->trust_domain) != 0)
		outcome_refuse(a, CODE_INVALID_ARGUMENT,
			       "trust domain bundle (\"%s\") must match the trust domain of the federation "
			       "relationship (\"%s\")",
			       bundle->trust_domain, in->trust_domain);
	else
		return true;
	return false;
}

enum code apply_relationship_create(struct apply *a, struct err *err)
{
	const Pb__FederationRelationship *in = a->command->relationship_create->relationship;
	Pb__FederationRelationship *old;
	uint64_t seq;

	if (!is_whole(a, in))
		return CODE_OK;
	TRY(relationship_get(a, in->trust_domain, &old, &seq, err));
	if (old != NULL)
		return outcome_refuse(a, CODE_INTERNAL,
				      "datastore-sql: UNIQUE constraint failed: federated_trust_domains.trust_domain");
	TRY(bundle_take(a, in->trust_domain_bundle, err));
	TRY(relationship_put(a, ++a->store->numbers[SEQ_RELATIONSHIP], in, err));
	a->out->relationship = arena_memdup(a->arena, in, sizeof *in);
	if (in->trust_domain_bundle != NULL)
		a->out->relationship->trust_domain_bundle = bundle_untainted(in->trust_domain_bundle, a->arena);
	return CODE_OK;
}

enum code apply_relationship_update(struct apply *a, struct err *err)
{
	const Pb__FederationRelationship *in = a->command->relationship_update->relationship;
	const Pb__FederationRelationshipMask *mask = a->command->relationship_update->mask;
	Pb__FederationRelationship *now;
	uint64_t seq;

	if (!is_whole(a, in))
		return CODE_OK;
	TRY(relationship_get(a, in->trust_domain, &now, &seq, err));
	if (now == NULL)
		return outcome_refuse(a, CODE_INTERNAL, "unable to fetch federation relationship: record not found");
	if (mask == NULL || mask->bundle_endpoint_url)
		now->bundle_endpoint_url = in->bundle_endpoint_url;
	if (mask == NULL || mask->bundle_endpoint_profile) {
		now->bundle_endpoint_profile_case = in->bundle_endpoint_profile_case;
		now->https_spiffe = in->https_spiffe; /* the union: whichever it is */
	}
	if (mask == NULL || mask->trust_domain_bundle)
		TRY(bundle_take(a, in->trust_domain_bundle, err));
	TRY(relationship_put(a, seq, now, err));
	TRY(bundle_get(a->store->db, in->trust_domain, a->arena, &now->trust_domain_bundle, err));
	a->out->relationship = now;
	return CODE_OK;
}

enum code apply_relationship_delete(struct apply *a, struct err *err)
{
	bool found;

	TRY(row_drop(a->store, TABLE_RELATIONSHIP, CELLS(TEXT(a->command->relationship_delete->trust_domain)), &found,
		     err));
	if (!found)
		return outcome_refuse(a, CODE_NOT_FOUND, "federation relationship not found");
	a->out->changed = true;
	return CODE_OK;
}
