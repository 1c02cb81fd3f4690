/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CA_JWT_H
#define CA_JWT_H

#include "base/arena.h"
#include "base/err.h"
#include "ca/keyring.h"

/* JWT-SVIDs as SPIRE lays them out (contract server-api.md 5.6): compact JWS, keys sorted, aud always an array. */
struct jwt_request {
	const char *spiffe_id;
	const char *const *audience; /* empty strings are dropped; none left: INTERNAL "invalid JWT-SVID
					audience: cannot be empty" */
	size_t n_audience;
	const char *issuer; /* NULL: no iss */
	bool jti;
	int64_t ttl_s, now_s; /* exp = min(now + ttl, the authority's notAfter) */
};

struct jwt_svid {
	const char *token; /* in the arena */
	int64_t issued_at_s, expires_at_s;
};

/* `authority` NULL: INTERNAL "JWT key is not available for signing". */
enum code jwt_issue(const struct jwt_authority *authority, const struct jwt_request *request, struct arena *arena,
		    struct jwt_svid *out, struct err *err);

/* 32 characters of [a-zA-Z0-9], each a random byte mod 62. */
void jwt_new_kid(char out[33]);

#endif
