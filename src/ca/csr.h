/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CA_CSR_H
#define CA_CSR_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "ca/pubkey.h"

/* A PKCS #10 request (RFC 2986), walked in place: no generic ASN.1 objects on the hot path. Spans point into the
 * caller's bytes. */
struct csr {
	struct span whole;
	struct span info;    /* CertificationRequestInfo: what is signed */
	struct span subject; /* Name, DER */
	struct span spki;    /* SubjectPublicKeyInfo, DER: the canonical encoding of `key` */
	struct pubkey key;
	struct span signature_algorithm; /* AlgorithmIdentifier, DER */
	struct span signature;
	const char **uris; /* URI SANs, in order, from the arena */
	size_t n_uris;
	const char **dns_names;
	size_t n_dns_names;
};

/* Checks the structure and that the public key is one that can be used (ca/pubkey.h).
 * INVALID_ARGUMENT with a text that follows SPIRE's "malformed CSR: " / "failed to parse CSR: ". */
enum code csr_parse(const uint8_t *der, size_t len, struct arena *arena, struct csr *out, struct err *err);

/* The self-signature. INVALID_ARGUMENT with a text that follows "failed to verify CSR signature: " / "invalid CSR
 * signature: ". */
enum code csr_verify(const struct csr *csr, struct err *err);

#endif
