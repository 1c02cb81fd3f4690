/* SPDX-License-Identifier: Apache-2.0 */
#include "api/bundle_conv.h"

#include "api/convert.h"
#include "api/mask.h"
#include "api/pb.h"
#include "base/id.h"
#include "ca/x509.h"

#include <string.h>

static Pb__X509Certificate *new_certificate(struct arena *arena, struct span der)
{
	Pb__X509Certificate *out = pb_new(&pb__x509_certificate__descriptor, arena);

	out->asn1 = (ProtobufCBinaryData){ .data = (uint8_t *)der.data, .len = der.len };
	return out;
}

enum code x509_authorities_from_proto(struct arena *arena, Pb__X509Certificate *const *from, size_t n,
				      bool empty_passes, Pb__X509Certificate ***out, size_t *n_out, struct err *err)
{
	Pb__X509Certificate **all;
	struct span **parts = arena_alloc(arena, n * sizeof *parts);
	size_t *counts = arena_zalloc(arena, n * sizeof *counts), total = 0, kept = 0;

	for (size_t i = 0; i < n; i++) {
		struct span bytes = { from[i]->asn1.data, from[i]->asn1.len };

		if (bytes.len > 0 || !empty_passes) {
			TRY(x509_split(bytes, arena, &parts[i], &counts[i], err));
		} else {
			parts[i] = arena_zalloc(arena, sizeof **parts);
			counts[i] = 1;
		}
		total += counts[i];
	}
	all = arena_alloc(arena, total * sizeof *all);
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < counts[i]; j++)
			all[kept++] = new_certificate(arena, parts[i][j]);
	*out = all;
	*n_out = kept;
	return CODE_OK;
}

enum code jwt_authority_from_proto(struct arena *arena, const Pb__JWTKey *from, Pb__JWTKey **out, struct err *err)
{
	Pb__JWTKey *key;

	TRY(key_check_pkix((struct span){ from->public_key.data, from->public_key.len }, err));
	if (from->key_id[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "missing key ID");
	key = pb_new(&pb__jwtkey__descriptor, arena);
	key->public_key = from->public_key;
	key->key_id = from->key_id;
	key->expires_at = from->expires_at;
	*out = key;
	return CODE_OK;
}

enum code jwt_authorities_from_proto(struct arena *arena, Pb__JWTKey *const *from, size_t n, Pb__JWTKey ***out,
				     struct err *err)
{
	Pb__JWTKey **keys = arena_alloc(arena, n * sizeof *keys);

	for (size_t i = 0; i < n; i++)
		TRY(jwt_authority_from_proto(arena, from[i], &keys[i], err));
	*out = keys;
	return CODE_OK;
}

static bool knows_key(const Pb__Bundle *bundle, const char *key_id)
{
	for (size_t i = 0; i < bundle->n_jwt_authorities; i++)
		if (strcmp(bundle->jwt_authorities[i]->key_id, key_id) == 0)
			return true;
	return false;
}

Pb__JWTKey **jwt_keys_missing(const Pb__Bundle *ours, Pb__JWTKey *const *theirs, size_t n, struct arena *arena,
			      size_t *n_out)
{
	Pb__JWTKey **missing = arena_alloc(arena, n * sizeof *missing);

	*n_out = 0;
	for (size_t i = 0; i < n; i++)
		if (!knows_key(ours, theirs[i]->key_id) &&
		    jwt_authority_from_proto(arena, theirs[i], &missing[*n_out], NULL) == CODE_OK)
			(*n_out)++;
	return missing;
}

enum code bundle_from_proto(struct call *call, const Pb__Bundle *from, Pb__Bundle **out, struct err *err)
{
	Pb__Bundle *bundle = pb_new(&pb__bundle__descriptor, call->arena);

	if (id_parse_td(from->trust_domain, call->arena, &bundle->trust_domain, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "invalid trust domain");
	if (x509_authorities_from_proto(call->arena, from->x509_authorities, from->n_x509_authorities, true,
					&bundle->x509_authorities, &bundle->n_x509_authorities, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "unable to parse X.509 authority");
	if (jwt_authorities_from_proto(call->arena, from->jwt_authorities, from->n_jwt_authorities,
				       &bundle->jwt_authorities, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "unable to parse JWT authority");
	bundle->n_jwt_authorities = from->n_jwt_authorities;
	bundle->refresh_hint = from->refresh_hint;
	bundle->sequence_number = from->sequence_number;
	*out = bundle;
	return CODE_OK;
}

/* --- the audit log --- */

static const char *numbered(struct arena *arena, const char *prefix, const char *name, size_t i)
{
	return arena_printf(arena, "%s%s.%zu", prefix, name, i);
}

static void add_authorities(struct call *call, struct pairs *pairs, Pb__X509Certificate *const *x509, size_t n_x509,
			    Pb__JWTKey *const *jwt, size_t n_jwt, const char *prefix)
{
	struct arena *arena = call->arena;

	for (size_t i = 0; i < n_x509; i++)
		PAIR(pairs,
		     KV(numbered(arena, prefix, "x509_authorities_asn1_sha256", i),
			x509[i]->asn1.len == 0 ? "" : audit_sha256(arena, x509[i]->asn1.data, x509[i]->asn1.len)));
	for (size_t i = 0; i < n_jwt; i++) {
		PAIR(pairs, KV_NUM(numbered(arena, prefix, "jwt_authority_expires_at", i), jwt[i]->expires_at));
		PAIR(pairs, KV(numbered(arena, prefix, "jwt_authority_key_id", i), jwt[i]->key_id));
		PAIR(pairs, KV(numbered(arena, prefix, "jwt_authority_public_key_sha256", i),
			       audit_sha256(arena, jwt[i]->public_key.data, jwt[i]->public_key.len)));
	}
}

struct pairs audit_authorities(struct call *call, Pb__X509Certificate *const *x509, size_t n_x509,
			       Pb__JWTKey *const *jwt, size_t n_jwt, const char *prefix, size_t room)
{
	struct pairs pairs = pairs_new(call, room + n_x509 + 3 * n_jwt);

	add_authorities(call, &pairs, x509, n_x509, jwt, n_jwt, prefix);
	return pairs;
}

struct pairs audit_bundle(struct call *call, const Pb__Bundle *bundle, uint32_t set, const char *prefix, size_t room)
{
	size_t n_x509 = mask_has(set, 2) ? bundle->n_x509_authorities : 0,
	       n_jwt = mask_has(set, 3) ? bundle->n_jwt_authorities : 0;
	struct pairs pairs = audit_authorities(call, bundle->x509_authorities, n_x509, bundle->jwt_authorities, n_jwt,
					       prefix, room + 3);

	PAIR(&pairs, KV(arena_printf(call->arena, "%strust_domain_id", prefix), bundle->trust_domain));
	if (mask_has(set, 4))
		PAIR(&pairs, KV_NUM(arena_printf(call->arena, "%srefresh_hint", prefix), bundle->refresh_hint));
	if (mask_has(set, 5))
		PAIR(&pairs,
		     KV_NUM(arena_printf(call->arena, "%ssequence_number", prefix), (int64_t)bundle->sequence_number));
	return pairs;
}
