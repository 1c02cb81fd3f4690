/* SPDX-License-Identifier: Apache-2.0 */
/* A library context with one provider, which is the default provider seen through a sieve: it hands out that one's
 * implementations, its context with them, but of key types and decoders a few only. All through OpenSSL's provider
 * interface: OSSL_PROVIDER(3), provider-base(7). */
#include "net/lean.h"

#include "base/arena.h"

#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/provider.h>

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

enum { OPERATIONS = 32 }; /* OSSL_OP_* are below it */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static OSSL_LIB_CTX *context;
static OSSL_PROVIDER *whole;
static OSSL_ALGORITHM *kept[OPERATIONS]; /* for the life of the process */

/* What TLS 1.2 and 1.3 of net/tls.c use, by the first of an algorithm's names. */
static const struct {
	int operation;
	const char *names[8];
} wanted[] = {
	{ OSSL_OP_DIGEST, { "SHA1", "SHA2-224", "SHA2-256", "SHA2-384", "SHA2-512" } }, /* SHA1: names of key ids */
	{ OSSL_OP_CIPHER, { "AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305" } },
	{ OSSL_OP_MAC, { "HMAC" } },
	{ OSSL_OP_KDF, { "HKDF", "TLS13-KDF", "TLS1-PRF" } },
	{ OSSL_OP_RAND, { "CTR-DRBG", "SEED-SRC" } },
	{ OSSL_OP_KEYMGMT, { "EC", "RSA", "RSA-PSS", "ED25519", "X25519" } }, /* RSA-PSS: how RSA signs in TLS 1.3 */
	{ OSSL_OP_KEYEXCH, { "ECDH", "X25519" } },
	{ OSSL_OP_SIGNATURE, { "ECDSA", "RSA", "ED25519" } },
	{ OSSL_OP_DECODER, { "EC", "RSA", "ED25519" } },
};

/* "EC" begins "EC:id-ecPublicKey:1.2.840.10045.2.1". */
static bool is_named(const OSSL_ALGORITHM *algorithm, const char *name)
{
	size_t len = strlen(name);

	return strncmp(algorithm->algorithm_names, name, len) == 0 &&
	       (algorithm->algorithm_names[len] == '\0' || algorithm->algorithm_names[len] == ':');
}

static bool is_wanted(int operation, const OSSL_ALGORITHM *algorithm)
{
	if (operation == OSSL_OP_DECODER && (strstr(algorithm->property_definition, "input=der") == NULL ||
					     strstr(algorithm->property_definition, "=SubjectPublicKeyInfo") == NULL))
		return false; /* public keys of certificates alone */
	for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
		for (const char *const *name = wanted[i].names; wanted[i].operation == operation && *name != NULL;
		     name++)
			if (is_named(algorithm, *name))
				return true;
	return false;
}

static void keep(int operation)
{
	int ignored;
	const OSSL_ALGORITHM *all = OSSL_PROVIDER_query_operation(whole, operation, &ignored);
	size_t n = 0, at = 0;

	if (all == NULL)
		return;
	while (all[n].algorithm_names != NULL)
		n++;
	kept[operation] = xcalloc(n + 1, sizeof *all);
	for (size_t i = 0; i < n; i++)
		if (is_wanted(operation, &all[i]))
			kept[operation][at++] = all[i];
}

/* --- the provider --- */

static const OSSL_ALGORITHM *query(void *provider, int operation, int *no_cache)
{
	(void)provider;
	*no_cache = 0;
	return operation > 0 && operation < OPERATIONS ? kept[operation] : NULL;
}

static int capabilities(void *provider, const char *capability, OSSL_CALLBACK *each, void *arg)
{
	(void)provider;
	return OSSL_PROVIDER_get_capabilities(whole, capability, each, arg);
}

static int init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out, void **provider)
{
	static const OSSL_DISPATCH functions[] = {
		{ OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query },
		{ OSSL_FUNC_PROVIDER_GET_CAPABILITIES, (void (*)(void))capabilities },
		{ 0, NULL },
	};

	(void)handle, (void)in;
	*out = functions;
	*provider = OSSL_PROVIDER_get0_provider_ctx(whole);
	return 1;
}

static void set_up(void)
{
	OSSL_LIB_CTX *made;

	whole = OSSL_PROVIDER_load(NULL, "default");
	made = OSSL_LIB_CTX_new();
	if (whole == NULL || made == NULL) {
		OSSL_LIB_CTX_free(made);
		return;
	}
	for (int operation = 1; operation < OPERATIONS; operation++)
		keep(operation);
	if (OSSL_PROVIDER_add_builtin(made, "lean", init) == 1 && OSSL_PROVIDER_load(made, "lean") != NULL)
		context = made;
	else
		OSSL_LIB_CTX_free(made);
}

OSSL_LIB_CTX *lean_context(void)
{
	pthread_once(&once, set_up);
	return context;
}
