/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CA_PUBKEY_H
#define CA_PUBKEY_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>

/* Public keys as they come in requests (SubjectPublicKeyInfo), and signatures made by their owners. What SPIRE accepts
 * is accepted: RSA, ECDSA on the NIST curves (uncompressed points), Ed25519. */

enum pubkey_kind { PUBKEY_RSA, PUBKEY_P224, PUBKEY_P256, PUBKEY_P384, PUBKEY_P521, PUBKEY_ED25519 };

enum { PUBKEY_RSA_BITS_MAX = 16384 }; /* nobody else can use a larger one, and using it costs seconds */

struct pubkey {
	enum pubkey_kind kind;
	struct span der;  /* SubjectPublicKeyInfo in its one canonical encoding: the input, or rewritten in the arena */
	struct span bits; /* the content of its BIT STRING */
};

/* `der` holds one SubjectPublicKeyInfo and nothing behind it. A point must lie on its curve. INVALID_ARGUMENT. */
enum code pubkey_parse(struct span der, struct arena *arena, struct pubkey *out, struct err *err);

/* Bits of an RSA modulus; of other keys, of the field. */
int pubkey_bits(const struct pubkey *key);

/* The BIT STRING content of a SubjectPublicKeyInfo that is known to be well-formed. */
struct span pubkey_bits_of(struct span der);

/* Checks a signature over `data` as certificate requests carry them (SHA-1 is let pass, MD5 is not). `algorithm` is an
 * AlgorithmIdentifier, DER. INVALID_ARGUMENT with SPIRE's text. Hot: 41 us for P-256, of which 39 are the curve's. */
enum code pubkey_verify(const struct pubkey *key, struct span algorithm, struct span data, struct span signature,
			struct err *err);

/* Proof of possession: a signature over a SHA-256 digest of 32 octets, which is not hashed again. ECDSA: r and s,
 * big-endian. RSA: PSS with SHA-256, a salt of any length. False: it is not the key's, or the key is of another kind.
 */
bool pubkey_verify_ecdsa(const struct pubkey *key, const uint8_t digest[32], struct span r, struct span s);
bool pubkey_verify_pss(const struct pubkey *key, const uint8_t digest[32], struct span signature);

#endif
