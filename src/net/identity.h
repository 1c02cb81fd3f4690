/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NET_IDENTITY_H
#define NET_IDENTITY_H

#include "base/buf.h"
#include "base/err.h"
#include "base/own.h"

#include <openssl/x509.h>

/* A key and the certificates that speak for it, as one end of a TLS connection shows them. Immutable,
 * reference-counted. */
struct identity;

/* `chain` is DER, leaf first. The key's reference count goes up; its type must fit the leaf. INTERNAL otherwise. */
enum code identity_new(EVP_PKEY *key, const struct span *chain, size_t n_chain, struct identity **out, struct err *err);
struct identity *identity_ref(struct identity *identity); /* thread-safe */
void identity_unref(struct identity *identity);           /* thread-safe; NULL is fine */
OWNABLE_STRUCT(identity, identity_unref)

EVP_PKEY *identity_key(const struct identity *identity);
X509 *identity_leaf(const struct identity *identity);
STACK_OF(X509) * identity_rest(const struct identity *identity); /* what follows the leaf; may be empty */

#endif
