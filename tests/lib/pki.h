/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_LIB_PKI_H
#define TESTS_LIB_PKI_H

#include "base/buf.h"
#include "base/own.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

/* Keys, requests and certificates for tests, made through OpenSSL's own objects. A failure ends the process. */

OWNABLE(X509, X509_free)

/* "P-256", "P-384", "P-521", "P-224", "ED25519", "RSA-2048" (any size). */
EVP_PKEY *pki_key(const char *kind);

/* A request in DER, appended. `subject`: "/C=US/O=SPIRE" ("" for an empty one); `san` as in openssl.cnf
 * ("URI:spiffe://a/b,DNS:c") or NULL; `md`: "SHA256", NULL for Ed25519. */
void pki_csr(struct buf *der, EVP_PKEY *key, const char *subject, const char *san, const char *md);

struct pki_cert {
	const char *subject;
	EVP_PKEY *key;
	X509 *issuer; /* NULL: self-signed */
	EVP_PKEY *issuer_key;
	const char *not_before, *not_after; /* "YYYYMMDDHHMMSSZ"; NULL: an hour ago, in an hour */
	const char *serial;                 /* decimal; NULL: "1" */
	const char *constraints, *key_usage, *ext_key_usage, *san; /* as in openssl.cnf; NULL: none */
};
X509 *pki_cert(const struct pki_cert *wanted);

void pki_der(struct buf *out, X509 *cert); /* appended */
void pki_pem_file(const char *path, X509 *const *certs, size_t n);

#endif
