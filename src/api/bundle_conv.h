/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_BUNDLE_CONV_H
#define API_BUNDLE_CONV_H

#include "api/batch.h"
#include "api/call.h"
#include "bundle.pb-c.h"

/* Bundles and authorities as clients send them (contract server-api.md 4.4). `tainted` is dropped: it is ours to say.
 */

/* A federated bundle, the trust domain as a plain name. INVALID_ARGUMENT "invalid trust domain: ...", "unable to parse
 * X.509 authority: ...", "unable to parse JWT authority: ...". */
enum code bundle_from_proto(struct call *call, const Pb__Bundle *from, Pb__Bundle **out, struct err *err);

/* One certificate an element, whatever the client put into one. `empty_passes`: an element without bytes is kept, as
 * SPIRE does. */
enum code x509_authorities_from_proto(struct arena *arena, Pb__X509Certificate *const *from, size_t n,
				      bool empty_passes, Pb__X509Certificate ***out, size_t *n_out, struct err *err);
/* Its key must be a PKIX public key; "missing key ID". */
enum code jwt_authority_from_proto(struct arena *arena, const Pb__JWTKey *from, Pb__JWTKey **out, struct err *err);
enum code jwt_authorities_from_proto(struct arena *arena, Pb__JWTKey *const *from, size_t n, Pb__JWTKey ***out,
				     struct err *err);

/* Of the keys that another server of our trust domain has: those whose key id our bundle does not know. What is no key
 * is left out. */
Pb__JWTKey **jwt_keys_missing(const Pb__Bundle *ours, Pb__JWTKey *const *theirs, size_t n, struct arena *arena,
			      size_t *n_out);

/* Fields of the audit log: those of the set (api/mask.h), each name behind `prefix`. trust_domain_id as the client
 * wrote it. */
struct pairs audit_bundle(struct call *call, const Pb__Bundle *bundle, uint32_t set, const char *prefix, size_t room);
struct pairs audit_authorities(struct call *call, Pb__X509Certificate *const *x509, size_t n_x509,
			       Pb__JWTKey *const *jwt, size_t n_jwt, const char *prefix, size_t room);

#endif
