/* SPDX-License-Identifier: Apache-2.0 */
/* What one end of a TLS connection shows. The certificates are parsed once here, not at each handshake. */
#include "net/identity.h"

#include "base/arena.h"
#include "net/tls.h"

#include <stdatomic.h>
#include <stdlib.h>

struct identity {
	atomic_uint refs;
	EVP_PKEY *key;
	X509 *leaf;
	STACK_OF(X509) * rest;
};

static enum code parse(struct identity *identity, const struct span *chain, size_t n_chain, struct err *err)
{
	for (size_t i = 0; i < n_chain; i++) {
		const uint8_t *at = chain[i].data;
		X509 *cert = d2i_X509(NULL, &at, (long)chain[i].len);

		if (cert == NULL || at != chain[i].data + chain[i].len) {
			X509_free(cert);
			return tls_err(err, CODE_INTERNAL, "malformed certificate in a TLS identity");
		}
		if (i == 0)
			identity->leaf = cert;
		else if (sk_X509_push(identity->rest, cert) == 0)
			abort(); /* out of memory */
	}
	if (identity->leaf == NULL)
		return err_set(err, CODE_INTERNAL, "a TLS identity needs a certificate");
	if (X509_check_private_key(identity->leaf, identity->key) != 1)
		return tls_err(err, CODE_INTERNAL, "a TLS identity's key does not fit its certificate");
	return CODE_OK;
}

enum code identity_new(EVP_PKEY *key, const struct span *chain, size_t n_chain, struct identity **out, struct err *err)
{
	OWN_STRUCT(identity) identity = xcalloc(1, sizeof *identity);

	identity->refs = 1;
	identity->rest = sk_X509_new_null();
	if (identity->rest == NULL)
		abort(); /* out of memory */
	EVP_PKEY_up_ref(key);
	identity->key = key;
	TRY(parse(identity, chain, n_chain, err));
	*out = TAKE(identity);
	return CODE_OK;
}

struct identity *identity_ref(struct identity *identity)
{
	atomic_fetch_add_explicit(&identity->refs, 1, memory_order_relaxed);
	return identity;
}

void identity_unref(struct identity *identity)
{
	if (identity == NULL || atomic_fetch_sub_explicit(&identity->refs, 1, memory_order_acq_rel) != 1)
		return;
	EVP_PKEY_free(identity->key);
	X509_free(identity->leaf);
	sk_X509_pop_free(identity->rest, X509_free);
	free(identity);
}

EVP_PKEY *identity_key(const struct identity *identity)
{
	return identity->key;
}

X509 *identity_leaf(const struct identity *identity)
{
	return identity->leaf;
}

STACK_OF(X509) * identity_rest(const struct identity *identity)
{
	return identity->rest;
}
