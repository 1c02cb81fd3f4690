/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_JWKS_H
#define API_JWKS_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/gojson.h"

#include "types.pb-c.h"

#include <stddef.h>

/* A trust bundle as the document that SPIFFE calls for (contract server-api.md section 6) and as Pb__Bundle. What
 * taints and expiry say has no place in the document: a bundle that was read has neither. */

/* Two readers exist in SPIRE, and they differ in what they refuse; ours of endpoints is the third. Whatever the rules:
 * an x509-svid entry has one certificate in x5c, whose key is that of the entry; a jwt-svid entry has a kid; a kty
 * other than EC, RSA, OKP (Ed25519) and oct is refused. */
enum jwks_rules {
	JWKS_GO_SPIFFE, /* the commands: `keys` must be there, entries of another use are passed over, spiffe_sequence
			   is kept */
	JWKS_SPIRE,     /* an agent: every entry must have a use that is known, no spiffe_sequence */
	JWKS_FETCHED,   /* of another trust domain's endpoint: entries of an unknown kty, an unknown use or none are
			   passed over, as   the standard has it; spiffe_sequence is kept; texts as JWKS_SPIRE */
};

/* `trust_domain` becomes the bundle's, in the arena like the rest. INVALID_ARGUMENT with the texts of the reader,
 * without the prefix that a caller puts before them ("spiffebundle", "failed to decode bundle"). Entries of the same
 * certificate are one, of the same kid the last. Hostile input is fine; the caller limits its length. */
enum code jwks_read(const char *text, size_t len, enum jwks_rules rules, const char *trust_domain, struct arena *arena,
		    Pb__Bundle **out, struct err *err);
enum code jwks_read_json(const struct json *doc, enum jwks_rules rules, const char *trust_domain, struct arena *arena,
			 Pb__Bundle **out, struct err *err);

/* Appends the document: indented by four blanks, without a newline at the end. No authority at all: `"keys": null` with
 * JWKS_GO_SPIFFE, `"keys": []` with JWKS_SPIRE. `spiffe_sequence` and `spiffe_refresh_hint` only above 0. INTERNAL:
 * what the bundle holds is no certificate or no key that a JWK can carry; `out` may then hold a part. */
enum code jwks_write(const Pb__Bundle *bundle, enum jwks_rules rules, struct buf *out, struct err *err);

#endif
