/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CA_CHAIN_H
#define CA_CHAIN_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

#include <openssl/x509.h>

/* Chains of certificates that foreign CAs made. */

struct certs {
	X509 **list; /* each a reference; the array on the heap */
	size_t n;
};
void certs_done(struct certs *certs);
#define OWN_CERTS __attribute__((cleanup(certs_done))) struct certs
void certs_add(struct certs *certs, X509 *cert); /* takes the reference */

/* One certificate in DER, and nothing behind it. INVALID_ARGUMENT. */
enum code cert_parse(struct span der, X509 **out, struct err *err);

/* All CERTIFICATE blocks of a PEM file; other blocks are passed over, none is an error. INVALID_ARGUMENT. */
enum code certs_load(const char *path, struct certs *out, struct err *err);

/* All chains from `leaf` over `intermediates` to one of `roots` (each of these is an anchor, self-signed or not) that
 * hold at `now_s`, for any purpose, without OpenSSL's strict mode. Appends to `issuers` every certificate in them but
 * the leaf, none twice. PERMISSION_DENIED with SPIRE's text if there is no such chain. At most 100 signatures are
 * checked. */
enum code chain_verify(X509 *leaf, const struct certs *intermediates, const struct certs *roots, int64_t now_s,
		       struct certs *issuers, struct err *err);

#endif
