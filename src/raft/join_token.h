/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_JOIN_TOKEN_H
#define RAFT_JOIN_TOKEN_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "raft/peer_key.h"

#include <stddef.h>
#include <stdint.h>

/* What lets a new node into a cluster (V17): where the members are, the keys that they must show, which cluster it is,
 * and a secret of which the cluster keeps the hash alone. One line of text, "join1." and base64url, with a checksum:
 * what was not copied whole is told apart from what is wrong. */
enum {
	JOIN_SECRET_LEN = 32,
	JOIN_ADDRESSES_MAX = 9,
	JOIN_PINS_MAX = 18,        /* two of each member while keys rotate */
	JOIN_TOKEN_TEXT_MAX = 8192 /* characters; longer is no token */
};

struct join_token {
	const char *addresses[JOIN_ADDRESSES_MAX]; /* HOST:PORT of peer listeners, the issuer's first; at least one */
	size_t n_addresses;
	struct pin pins[JOIN_PINS_MAX]; /* keys of the members; at least one */
	size_t n_pins;
	const char *cluster_id; /* 36 characters */
	const char *trust_domain;
	int64_t expires_at; /* Unix seconds */
	uint8_t secret[JOIN_SECRET_LEN];
};

/* A fresh secret; the rest is the caller's. */
void join_token_secret(struct join_token *token);
/* What the cluster keeps: SHA-256 of the secret under a label of its own. Compare with join_hash_equal. */
void join_token_hash(const uint8_t secret[JOIN_SECRET_LEN], uint8_t out[32]);
bool join_hash_equal(const uint8_t a[32], const uint8_t b[32]); /* in constant time */

/* Appends the text. The caller's fields are within the bounds above (asserted). */
void join_token_encode(const struct join_token *token, struct buf *out);

/* Blanks and line ends around it are passed over. INVALID_ARGUMENT: what is wrong with it, without repeating the
 * secret; UNIMPLEMENTED: a newer version made it. Strings live in the arena. */
enum code join_token_decode(const char *text, struct arena *arena, struct join_token *out, struct err *err);

/* Can this node use it? FAILED_PRECONDITION: it has expired (by this node's clock; the members' decides at last), or
 * is for another trust domain: with times, names and the remedy. */
enum code join_token_check(const struct join_token *token, const char *trust_domain, int64_t now_s, struct err *err);

#endif
