/* SPDX-License-Identifier: Apache-2.0 */
/* Bundles: the own one (append, prune, taint, revoke: each raises its sequence number by one) and federated ones (kept
 * as they were given, without taint marks). One table; the row's version is the index of its last change. */
#include "store/state.h"

#include <string.h>

enum code bundle_get(struct db *db, const char *td, struct arena *arena, Pb__Bundle **out, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	*out = NULL;
	TRY(query_open(db, SQL_BUNDLE_GET, &q, err));
	query_text(&q, 1, td);
	TRY(query_step(&q, &row, err));
	if (!row)
		return CODE_OK;
	*out = message_unpack(&pb__bundle__descriptor, column_blob(&q, 3), arena);
	return *out != NULL ? CODE_OK
			    : err_set(err, CODE_DATA_LOSS, "the bundle of '%s' in '%s' is damaged", td, db->path);
}

enum code bundle_put(struct store *store, Pb__Bundle *bundle, struct err *err)
{
	uint64_t seq;
	bool found;
	OWN_QUERY q = { 0 };
	struct span blob = message_pack_arena(bundle, store->arena);

	TRY(query_open(store->db, SQL_BUNDLE_GET, &q, err));
	query_text(&q, 1, bundle->trust_domain);
	TRY(query_step(&q, &found, err));
	seq = found ? (uint64_t)column_int(&q, 1) : ++store->numbers[SEQ_BUNDLE];
	query_done(&q);
	return row_replace(store, TABLE_BUNDLE,
			   CELLS(TEXT(bundle->trust_domain), INT(seq), INT(store->index), BLOB(blob)), err);
}

static enum code changed(struct apply *a, Pb__Bundle *bundle, struct err *err)
{
	a->out->changed = true;
	a->out->bundle = bundle;
	return bundle_put(a->store, bundle, err);
}

static Pb__Bundle *bundle_new(struct apply *a, const char *td)
{
	Pb__Bundle *bundle = arena_alloc(a->arena, sizeof *bundle);

	*bundle = (Pb__Bundle)PB__BUNDLE__INIT;
	bundle->trust_domain = td;
	return bundle;
}

static bool same_bytes(ProtobufCBinaryData a, ProtobufCBinaryData b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static bool same_key(const Pb__JWTKey *a, const Pb__JWTKey *b)
{
	return same_bytes(a->public_key, b->public_key) && strcmp(a->key_id, b->key_id) == 0 &&
	       a->expires_at == b->expires_at && a->tainted == b->tainted;
}

static Pb__X509Certificate *untainted_cert(const Pb__X509Certificate *cert, struct arena *arena)
{
	Pb__X509Certificate *copy = arena_memdup(arena, cert, sizeof *cert);

	copy->tainted = false;
	return copy;
}

static Pb__JWTKey *untainted_key(const Pb__JWTKey *key, struct arena *arena)
{
	Pb__JWTKey *copy = arena_memdup(arena, key, sizeof *key);

	copy->tainted = false;
	return copy;
}

static bool add_cert(Pb__Bundle *bundle, Pb__X509Certificate *cert)
{
	for (size_t i = 0; i < bundle->n_x509_authorities; i++)
		if (same_bytes(bundle->x509_authorities[i]->asn1, cert->asn1) &&
		    bundle->x509_authorities[i]->tainted == cert->tainted)
			return false;
	bundle->x509_authorities[bundle->n_x509_authorities++] = cert;
	return true;
}

static bool add_key(Pb__Bundle *bundle, Pb__JWTKey *key)
{
	for (size_t i = 0; i < bundle->n_jwt_authorities; i++)
		if (same_key(bundle->jwt_authorities[i], key))
			return false;
	bundle->jwt_authorities[bundle->n_jwt_authorities++] = key;
	return true;
}

/* Room for `certs` and `keys` more. */
static void bundle_grow(Pb__Bundle *bundle, size_t certs, size_t keys, struct arena *arena)
{
	Pb__X509Certificate **x509 = arena_alloc(arena, (bundle->n_x509_authorities + certs) * sizeof(void *));
	Pb__JWTKey **jwt = arena_alloc(arena, (bundle->n_jwt_authorities + keys) * sizeof(void *));

	for (size_t i = 0; i < bundle->n_x509_authorities; i++)
		x509[i] = bundle->x509_authorities[i];
	for (size_t i = 0; i < bundle->n_jwt_authorities; i++)
		jwt[i] = bundle->jwt_authorities[i];
	bundle->x509_authorities = x509;
	bundle->jwt_authorities = jwt;
}

enum code apply_bundle_append(struct apply *a, struct err *err)
{
	const Pb__BundleAppend *in = a->command->bundle_append;
	Pb__Bundle *bundle;
	bool is_new, added = false;

	if (in->trust_domain[0] == '\0')
		return outcome_refuse(a, CODE_INVALID_ARGUMENT, "trust domain is missing");
	TRY(bundle_get(a->store->db, in->trust_domain, a->arena, &bundle, err));
	is_new = bundle == NULL;
	if (is_new)
		bundle = bundle_new(a, in->trust_domain);
	bundle_grow(bundle, in->n_x509_authorities, in->n_jwt_authorities, a->arena);
	for (size_t i = 0; i < in->n_x509_authorities; i++)
		added |= add_cert(bundle, untainted_cert(in->x509_authorities[i], a->arena));
	for (size_t i = 0; i < in->n_jwt_authorities; i++)
		added |= add_key(bundle, untainted_key(in->jwt_authorities[i], a->arena));
	a->out->bundle = bundle;
	if (!is_new && !added)
		return CODE_OK;
	if (!is_new)
		bundle->sequence_number++;
	return changed(a, bundle, err);
}

/* A federated bundle as it is kept: a copy without taint marks. */
Pb__Bundle *bundle_untainted(const Pb__Bundle *given, struct arena *arena)
{
	Pb__Bundle *bundle = arena_memdup(arena, given, sizeof *given);

	bundle_grow(bundle, 0, 0, arena);
	for (size_t i = 0; i < bundle->n_x509_authorities; i++)
		bundle->x509_authorities[i] = untainted_cert(bundle->x509_authorities[i], arena);
	for (size_t i = 0; i < bundle->n_jwt_authorities; i++)
		bundle->jwt_authorities[i] = untainted_key(bundle->jwt_authorities[i], arena);
	return bundle;
}

/* The bundle of a command about federated ones; NULL: refused. The own bundle is no federated one (SPIRE's words; the
 * edge says so first). */
static Pb__Bundle *given_bundle(struct apply *a, const Pb__Bundle *given, const char *doing)
{
	if (given == NULL || given->trust_domain[0] == '\0')
		outcome_refuse(a, CODE_INVALID_ARGUMENT, "trust domain is missing");
	else if (strcmp(given->trust_domain, a->store->trust_domain) == 0)
		outcome_refuse(a, CODE_INVALID_ARGUMENT,
			       "%s a federated bundle for the server's own trust domain is not allowed", doing);
	else
		return bundle_untainted(given, a->arena);
	return NULL;
}

enum code apply_bundle_create(struct apply *a, struct err *err)
{
	Pb__Bundle *bundle = given_bundle(a, a->command->bundle_create->bundle, "creating"), *old;

	if (bundle == NULL)
		return CODE_OK;
	TRY(bundle_get(a->store->db, bundle->trust_domain, a->arena, &old, err));
	if (old != NULL)
		return outcome_refuse(a, CODE_ALREADY_EXISTS, "bundle already exists");
	return changed(a, bundle, err);
}

enum code apply_bundle_set(struct apply *a, struct err *err)
{
	Pb__Bundle *bundle = given_bundle(a, a->command->bundle_set->bundle, "setting");

	return bundle == NULL ? CODE_OK : changed(a, bundle, err);
}

enum code apply_bundle_update(struct apply *a, struct err *err)
{
	const Pb__BundleMask *mask = a->command->bundle_update->mask;
	Pb__Bundle *in = given_bundle(a, a->command->bundle_update->bundle, "updating"), *bundle;

	if (in == NULL)
		return CODE_OK;
	TRY(bundle_get(a->store->db, in->trust_domain, a->arena, &bundle, err));
	if (bundle == NULL)
		return outcome_refuse(a, CODE_NOT_FOUND, "bundle not found");
	if (mask == NULL || mask->x509_authorities) {
		bundle->n_x509_authorities = in->n_x509_authorities;
		bundle->x509_authorities = in->x509_authorities;
	}
	if (mask == NULL || mask->jwt_authorities) {
		bundle->n_jwt_authorities = in->n_jwt_authorities;
		bundle->jwt_authorities = in->jwt_authorities;
	}
	if (mask == NULL || mask->refresh_hint)
		bundle->refresh_hint = in->refresh_hint;
	if (mask == NULL || mask->sequence_number)
		bundle->sequence_number = in->sequence_number;
	return changed(a, bundle, err);
}

static enum code federated_count(struct apply *a, const char *td, uint32_t *out, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(a->store->db, SQL_FEDERATES_COUNT, &q, err));
	query_text(&q, 1, td);
	TRY(query_step(&q, &row, err));
	*out = (uint32_t)column_int(&q, 0);
	return CODE_OK;
}

/* The next federated entry: *key becomes it, or 0 at the end. */
static enum code federated_next(struct apply *a, const char *td, int64_t *key, struct err *err)
{
	OWN_QUERY q = { 0 };
	bool row;

	TRY(query_open(a->store->db, SQL_FEDERATES_NEXT, &q, err));
	query_text(&q, 1, td);
	query_int(&q, 2, *key);
	TRY(query_step(&q, &row, err));
	*key = row ? column_int(&q, 0) : 0;
	return CODE_OK;
}

static enum code entries_let_go(struct apply *a, const char *td, bool delete, struct err *err)
{
	int64_t key = 0;

	for (;;) {
		TRY(federated_next(a, td, &key, err));
		if (key == 0)
			return CODE_OK;
		TRY(delete ? entry_drop_by_key(a->store, key, err) : entry_dissociate(a->store, key, td, err));
	}
}

enum code apply_bundle_delete(struct apply *a, struct err *err)
{
	const Pb__BundleDelete *in = a->command->bundle_delete;
	bool found;

	if (strcmp(in->trust_domain, a->store->trust_domain) == 0)
		return outcome_refuse(a, CODE_INVALID_ARGUMENT,
				      "removing the bundle for the server trust domain is not allowed");
	TRY(federated_count(a, in->trust_domain, &a->out->count, err));
	if (in->mode == PB__BUNDLE_DELETE__MODE__RESTRICT || a->out->count == 0) {
		Pb__Bundle *bundle;

		TRY(bundle_get(a->store->db, in->trust_domain, a->arena, &bundle, err));
		if (bundle == NULL)
			return outcome_refuse(a, CODE_NOT_FOUND, "bundle not found");
		if (a->out->count > 0)
			return outcome_refuse(
				a, CODE_FAILED_PRECONDITION,
				"datastore-sql: cannot delete bundle; federated with %u registration entries",
				a->out->count);
	}
	TRY(entries_let_go(a, in->trust_domain, in->mode == PB__BUNDLE_DELETE__MODE__DELETE, err));
	TRY(row_drop(a->store, TABLE_BUNDLE, CELLS(TEXT(in->trust_domain)), &found, err));
	a->out->changed = true;
	return CODE_OK;
}

/* The stored refresh hint stays (in SPIRE it is lost here). */
enum code apply_bundle_prune(struct apply *a, struct err *err)
{
	const Pb__BundlePrune *in = a->command->bundle_prune;
	Pb__Bundle *bundle;
	size_t certs = 0, keys = 0, had_certs, had_keys;

	TRY(bundle_get(a->store->db, in->trust_domain, a->arena, &bundle, err));
	if (bundle == NULL)
		return outcome_refuse(a, CODE_NOT_FOUND, "bundle not found");
	had_certs = bundle->n_x509_authorities;
	had_keys = bundle->n_jwt_authorities;
	for (size_t i = 0; i < had_certs; i++) {
		Pb__X509Certificate *cert = bundle->x509_authorities[i];

		if (cert_all_active((struct span){ cert->asn1.data, cert->asn1.len }, in->before))
			bundle->x509_authorities[certs++] = cert;
	}
	for (size_t i = 0; i < had_keys; i++)
		if (bundle->jwt_authorities[i]->expires_at > in->before)
			bundle->jwt_authorities[keys++] = bundle->jwt_authorities[i];
	if (had_certs > 0 && certs == 0)
		return outcome_refuse(a, CODE_FAILED_PRECONDITION, "would prune all certificates");
	if (had_keys > 0 && keys == 0)
		return outcome_refuse(a, CODE_FAILED_PRECONDITION, "would prune all JWT signing keys");
	a->out->count = (uint32_t)(had_certs - certs + had_keys - keys);
	if (a->out->count == 0)
		return CODE_OK;
	bundle->n_x509_authorities = certs;
	bundle->n_jwt_authorities = keys;
	bundle->sequence_number++;
	return changed(a, bundle, err);
}

static Pb__X509Certificate *cert_of(const Pb__Bundle *bundle, const char *subject_key_id, size_t *at)
{
	for (*at = 0; *at < bundle->n_x509_authorities; (*at)++) {
		ProtobufCBinaryData der = bundle->x509_authorities[*at]->asn1;

		if (cert_has_subject_key_id((struct span){ der.data, der.len }, subject_key_id))
			return bundle->x509_authorities[*at];
	}
	return NULL;
}

static Pb__JWTKey *key_of(const Pb__Bundle *bundle, const char *key_id, size_t *at)
{
	for (*at = 0; *at < bundle->n_jwt_authorities; (*at)++)
		if (strcmp(bundle->jwt_authorities[*at]->key_id, key_id) == 0)
			return bundle->jwt_authorities[*at];
	return NULL;
}

enum code apply_authority_taint(struct apply *a, struct err *err)
{
	const Pb__AuthorityTaint *in = a->command->authority_taint;
	Pb__Bundle *bundle;
	size_t at;

	TRY(bundle_get(a->store->db, in->trust_domain, a->arena, &bundle, err));
	if (bundle == NULL)
		return outcome_refuse(a, CODE_NOT_FOUND, "bundle not found");
	if (in->x509_subject_key_id[0] != '\0') {
		Pb__X509Certificate *cert = cert_of(bundle, in->x509_subject_key_id, &at);

		if (cert == NULL)
			return outcome_refuse(a, CODE_NOT_FOUND, "no ca found with provided subject key ID");
		if (cert->tainted)
			return outcome_refuse(a, CODE_INVALID_ARGUMENT, "root CA is already tainted");
		cert->tainted = true;
	} else {
		Pb__JWTKey *key = key_of(bundle, in->jwt_key_id, &at);

		if (key == NULL)
			return outcome_refuse(a, CODE_NOT_FOUND, "no JWT Key found with provided key ID");
		if (key->tainted)
			return outcome_refuse(a, CODE_INVALID_ARGUMENT, "key is already tainted");
		key->tainted = true;
	}
	bundle->sequence_number++;
	return changed(a, bundle, err);
}

enum code apply_authority_revoke(struct apply *a, struct err *err)
{
	const Pb__AuthorityRevoke *in = a->command->authority_revoke;
	Pb__Bundle *bundle;
	size_t at;

	TRY(bundle_get(a->store->db, in->trust_domain, a->arena, &bundle, err));
	if (bundle == NULL)
		return outcome_refuse(a, CODE_NOT_FOUND, "bundle not found");
	if (in->x509_subject_key_id[0] != '\0') {
		const Pb__X509Certificate *cert = cert_of(bundle, in->x509_subject_key_id, &at);

		if (cert == NULL)
			return outcome_refuse(a, CODE_NOT_FOUND, "no root CA found with provided subject key ID");
		if (!cert->tainted)
			return outcome_refuse(a, CODE_INVALID_ARGUMENT,
					      "it is not possible to revoke an untainted root CA");
		bundle->n_x509_authorities--;
		memmove(&bundle->x509_authorities[at], &bundle->x509_authorities[at + 1],
			(bundle->n_x509_authorities - at) * sizeof(void *));
	} else {
		const Pb__JWTKey *key = key_of(bundle, in->jwt_key_id, &at);

		if (key == NULL)
			return outcome_refuse(a, CODE_NOT_FOUND, "no JWT Key found with provided key ID");
		if (!key->tainted)
			return outcome_refuse(a, CODE_INVALID_ARGUMENT,
					      "it is not possible to revoke an untainted key");
		bundle->n_jwt_authorities--;
		memmove(&bundle->jwt_authorities[at], &bundle->jwt_authorities[at + 1],
			(bundle->n_jwt_authorities - at) * sizeof(void *));
	}
	bundle->sequence_number++;
	return changed(a, bundle, err);
}
