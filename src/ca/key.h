/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CA_KEY_H
#define CA_KEY_H

#include "base/buf.h"
#include "base/err.h"
#include "base/own.h"

#include <openssl/evp.h>

/* Private keys and where they live. No private key ever leaves the process but into KeyManager "disk"'s own file. */

OWNABLE(EVP_PKEY, EVP_PKEY_free)

enum key_type { KEY_EC_P256, KEY_EC_P384, KEY_RSA_2048, KEY_RSA_4096 };

enum code key_type_parse(const char *text, enum key_type *out,
			 struct err *err); /* "ec-p256" ... as ca_key_type, in any case */
const char *key_type_name(enum key_type type);
/* INVALID_ARGUMENT for a key that is none of these. */
enum code key_type_of(EVP_PKEY *key, enum key_type *out, struct err *err);
enum code key_generate(enum key_type type, EVP_PKEY **out, struct err *err);
/* SubjectPublicKeyInfo in DER. */
enum code key_public_der(EVP_PKEY *key, struct buf *out, struct err *err);
/* RFC 5280 4.2.1.2 method 1: SHA-1 over the content of the subjectPublicKey BIT STRING. */
enum code key_subject_key_id(EVP_PKEY *key, uint8_t out[20], struct err *err);

/* KeyManager: keys by id ("x509-CA-A", "JWT-Signer-B"; server-operation.md 3.1). One per process, guarded by a lock of
 * its own. "disk": SPIRE's JSON file {"keys": {id: base64 PKCS#8}}, 0600, replaced atomically (temporary name, fsync,
 * rename, fsync of the directory): a keys.json of a SPIRE server is read as it is. "memory": nothing is kept. */
struct key_manager;

enum code key_manager_open_memory(struct key_manager **out, struct err *err);
/* Reads the file if it is there; makes it with the first key. Unreadable, malformed, or no directory above it: an error
 * that says so. */
enum code key_manager_open_disk(const char *path, struct key_manager **out, struct err *err);
void key_manager_close(struct key_manager *manager);

/* A new key under `id`; a former one of that id is gone once this returns OK. The key is a reference of the caller's.
 */
enum code key_manager_generate(struct key_manager *manager, const char *id, enum key_type type, EVP_PKEY **out,
			       struct err *err);
/* NOT_FOUND if there is none. */
enum code key_manager_get(struct key_manager *manager, const char *id, EVP_PKEY **out, struct err *err);

#endif
