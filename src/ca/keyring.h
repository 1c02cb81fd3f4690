/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CA_KEYRING_H
#define CA_KEYRING_H

#include "base/buf.h"
#include "base/err.h"
#include "ca/key.h"

#include <stdbool.h>
#include <stdint.h>

/* What signs now: immutable, reference-counted, shared by all loops. Rotation builds another one and swaps the pointer.
 */

enum { SUBJECT_KEY_ID_MAX = 64, AUTHORITY_ID_MAX = 2 * SUBJECT_KEY_ID_MAX + 1 };

struct signer;

struct x509_authority {
	EVP_PKEY *key;
	enum key_type type;
	struct buf cert;      /* DER of its own certificate */
	struct buf *upstream; /* what follows the leaf in a chain, DER: own certificate and intermediates; none when
				 self-signed */
	size_t n_upstream;
	char id[AUTHORITY_ID_MAX];                  /* lower-case hex of the subject key id */
	uint8_t subject_key_id[SUBJECT_KEY_ID_MAX]; /* as the certificate has it; an upstream CA's choice may differ
						       from ours (20 octets) */
	size_t subject_key_id_len;
	struct signer *signer; /* of key */
	struct span subject;   /* Name, DER, inside cert */
	int64_t not_before_s, not_after_s;
};

struct jwt_authority {
	EVP_PKEY *key;
	enum key_type type;
	char kid[AUTHORITY_ID_MAX];
	int64_t not_after_s;
	struct signer *signer; /* of key */
	char *header;          /* the JWS header of its tokens, base64url */
};

struct keyring {
	struct x509_authority *x509; /* NULL: cannot sign X.509 */
	struct jwt_authority *jwt;   /* NULL: cannot sign JWT */
	struct span server_cert;     /* the server's own X509-SVID (server-api.md 5.4) */
	/* How it is shown: `server_cert`, then what leads from its signer, which may be the authority before `x509`, to
	 * a root. */
	const struct span *server_chain;
	size_t n_server_chain;
	EVP_PKEY *server_key;
	int64_t server_not_before_s, server_not_after_s;
};

/* Takes the authorities and the server's key over, copies its chain (leaf first; may be empty). One reference. */
struct keyring *keyring_new(struct x509_authority *x509, struct jwt_authority *jwt, EVP_PKEY *server_key,
			    const struct span *server_chain, size_t n_server_chain, int64_t server_not_before_s,
			    int64_t server_not_after_s);
struct keyring *keyring_ref(struct keyring *keyring); /* thread-safe */
void keyring_unref(struct keyring *keyring);          /* thread-safe; the last one wipes and frees. NULL is fine */
OWNABLE_STRUCT(keyring, keyring_unref)

/* From a key and its certificate (DER). Checks that they belong together and fills the rest. The key's reference is
 * taken on success. */
enum code x509_authority_new(EVP_PKEY *key, struct span cert, const struct span *upstream, size_t n_upstream,
			     struct x509_authority **out, struct err *err);
struct x509_authority *
x509_authority_copy(const struct x509_authority *authority); /* for a keyring that differs elsewhere */
void x509_authority_free(struct x509_authority *authority);
enum code jwt_authority_new(EVP_PKEY *key, const char *kid, int64_t not_after_s, struct jwt_authority **out,
			    struct err *err);
struct jwt_authority *jwt_authority_copy(const struct jwt_authority *authority);
void jwt_authority_free(struct jwt_authority *authority);

/* The place where the current keyring hangs. */
struct keyring_slot;
struct keyring_slot *keyring_slot_new(void);
void keyring_slot_free(struct keyring_slot *slot);
struct keyring *keyring_current(struct keyring_slot *slot);            /* a reference, or NULL before the first swap */
void keyring_swap(struct keyring_slot *slot, struct keyring *keyring); /* takes the reference over */

#endif
