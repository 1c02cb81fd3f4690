/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_CONVERT_H
#define API_CONVERT_H

#include "api/call.h"
#include "ca/x509.h"
#include "types.pb-c.h"

/* Small things between the wire's messages and what is inside, that several services need. */

/* Always there: Go clients dereference it without looking. OK says "OK". */
Pb__Status *status_new(struct arena *arena, enum code code, const struct err *err);

/* leaf + what follows it. td and path are not copied. */
Pb__X509SVID *svid_to_proto(struct call *call, const struct x509_authority *signer, const struct x509_svid *svid, const char *td,
			    const char *path);

/* A list of selectors (server-api.md 4.0): INVALID_ARGUMENT "missing selector type", "selector type contains ':'", "missing selector value". */
enum code selectors_check(Pb__Selector *const *selectors, size_t n, struct err *err);

/* Page tokens are decimal row numbers, unsigned 32 bit, no sign, no blank. "" = 0. Not OK: "could not parse token 'x'", INTERNAL. */
enum code page_token_parse(const char *token, uint64_t *seq, struct err *err);

/* Sets `text`, a whole SPIFFE ID, apart into a new message of the arena. It is one: our own state holds it. */
Pb__SPIFFEID *id_to_proto(struct arena *arena, const char *text);

/* Values of the audit log (server-api.md 4.0). */
const char *audit_sha256(struct arena *arena, const void *data, size_t len); /* lower-case hex */
const char *audit_id(struct arena *arena, const Pb__SPIFFEID *id);
const char *audit_td(struct arena *arena, const char *td);       /* "spiffe://td" */
const char *audit_time(struct arena *arena, int64_t unix_s);     /* RFC 3339, UTC */

#endif
