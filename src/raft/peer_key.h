/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_PEER_KEY_H
#define RAFT_PEER_KEY_H

#include "base/buf.h"
#include "base/err.h"
#include "base/own.h"
#include "net/identity.h"

#include <openssl/x509.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Who a node is to the others: an EC P-256 key pair of its own, made at its first start, kept in data_dir/node/peer.key
 * (0600), never shown. Others know it by its pin. It shows a certificate that is made anew at each start and that
 * nobody looks into but for the public key and the statements "old signs new" of rotate-key (V19): there is nothing
 * that can lapse. */
enum { PIN_LEN = 32, PIN_HEX = 2 * PIN_LEN + 1 };

struct pin {
	uint8_t bytes[PIN_LEN]; /* SHA-256 of SubjectPublicKeyInfo in DER */
};

static inline bool pin_equal(const struct pin *a, const struct pin *b)
{
	unsigned differ = 0;

	for (int i = 0; i < PIN_LEN; i++)
		differ |= (unsigned)(a->bytes[i] ^ b->bytes[i]);
	return differ == 0;
}
const char *pin_hex(const struct pin *pin, char out[PIN_HEX]); /* answers out */
bool pin_parse(const char *hex, struct pin *out);

struct peer_key;

/* Reads `path` or makes it; `*made` (may be NULL) tells which. The directory is there. FAILED_PRECONDITION: others may
 * read the file; DATA_LOSS: it holds no such key (a node without its key must be removed and join again), both by name.
 * INTERNAL with the system's words otherwise. */
enum code peer_key_open(const char *path, struct peer_key **out, bool *made, struct err *err);
struct peer_key *peer_key_ref(struct peer_key *key); /* thread-safe */
void peer_key_unref(struct peer_key *key);           /* thread-safe; NULL is fine */
OWNABLE_STRUCT(peer_key, peer_key_unref)

const struct pin *peer_key_pin(const struct peer_key *key);
struct identity *peer_key_identity(const struct peer_key *key); /* for TLS; borrowed */

/* rotate-key: a new pair with the statement "old signs new" replaces the file at `path` (durable on return); the old
 * private key is gone with it. `key` itself does not change. The last PEER_KEY_STATEMENTS statements are kept, so that
 * a node that was away for so many rotations still knows this one. */
enum { PEER_KEY_STATEMENTS = 8 };
enum code peer_key_rotate(const struct peer_key *key, const char *path, struct peer_key **out, struct err *err);

/* What a certificate that was shown proves once TLS has checked that the peer holds its key: pins[0] is that of the key
 * itself, each later one is older and has signed the one before it. The owner of pins[0] is whoever holds any of them.
 * PERMISSION_DENIED: not a key of ours (not P-256). A statement that is broken ends the list. */
enum { PEER_PINS_MAX = PEER_KEY_STATEMENTS + 1 };
enum code peer_pins_of(X509 *shown, struct pin pins[PEER_PINS_MAX], size_t *n, struct err *err);

#endif
