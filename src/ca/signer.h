/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CA_SIGNER_H
#define CA_SIGNER_H

#include "base/buf.h"
#include "base/err.h"
#include "base/own.h"
#include "ca/key.h"

/* A private key made ready to sign: what OpenSSL looks up by name is looked up once. Immutable, so any thread may sign
 * with it. */
struct signer;

enum { SIGNATURE_MAX = 1024 }; /* RSA with 8192 bits */

/* INVALID_ARGUMENT for a key that is not RSA, ECDSA on a NIST curve or Ed25519. */
enum code signer_new(EVP_PKEY *key, struct signer **out, struct err *err); /* takes a reference of its own to the key */
void signer_free(struct signer *signer);
OWNABLE_STRUCT(signer, signer_free)

struct span
signer_algorithm(const struct signer *signer); /* AlgorithmIdentifier of its signatures in certificates, DER */
const char *signer_jws_algorithm(const struct signer *signer); /* "ES256", "ES384", "RS256"; NULL: not for tokens */

/* As certificates want it: ECDSA as a SEQUENCE of r and s, RSA PKCS #1 v1.5. `out` has room for SIGNATURE_MAX. */
enum code signer_sign(const struct signer *signer, struct span data, uint8_t *out, size_t *out_len, struct err *err);
/* As JWS wants it: ECDSA as r and s of fixed width one after the other. */
enum code signer_sign_jws(const struct signer *signer, struct span data, uint8_t *out, size_t *out_len,
			  struct err *err);

/* Digests that were looked up once. `out` has room for EVP_MAX_MD_SIZE. A failure ends the process (there is no input
 * to blame). */
enum digest { DIGEST_SHA1, DIGEST_SHA256, DIGEST_SHA384, DIGEST_SHA512 };
const EVP_MD *digest_md(enum digest digest);
size_t digest_of(enum digest digest, const void *data, size_t len, uint8_t *out);

/* Drains OpenSSL's error queue: sets "<fmt>: <its first reason>". */
enum code err_crypto(struct err *err, enum code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
