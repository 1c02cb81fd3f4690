/* SPDX-License-Identifier: Apache-2.0 */
/* A signer holds an EVP_PKEY_CTX that was initialised once; each signature is made by a duplicate of it. That spares
 * the look-up of the algorithm by name (2 us of 16), and leaves the original untouched, so threads need no lock. */

#include "ca/signer.h"

#include "base/arena.h"
#include "ca/der.h"

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

#include <assert.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

OWNABLE(EVP_PKEY_CTX, EVP_PKEY_CTX_free)
OWNABLE(EVP_MD_CTX, EVP_MD_CTX_free)

static const uint8_t ecdsa_sha256[] = { 0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02 };
static const uint8_t ecdsa_sha384[] = { 0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03 };
static const uint8_t ecdsa_sha512[] = { 0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04 };
static const uint8_t rsa_sha256[] = { 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
				      0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00 };
static const uint8_t ed25519[] = { 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70 };

#define SPAN_OF(octets)                                                                                                \
	{                                                                                                              \
		(octets), sizeof(octets)                                                                               \
	}

static const struct kind {
	const char *group; /* of an elliptic curve; NULL: RSA or Ed25519 */
	struct span algorithm;
	const char *jws; /* NULL: not for JWT-SVIDs */
	enum digest digest;
	size_t half; /* octets of r and of s */
} kinds[] = {
	{ "prime256v1", SPAN_OF(ecdsa_sha256), "ES256", DIGEST_SHA256, 32 },
	{ "secp384r1", SPAN_OF(ecdsa_sha384), "ES384", DIGEST_SHA384, 48 },
	{ "secp521r1", SPAN_OF(ecdsa_sha512), NULL, DIGEST_SHA512, 66 },
	{ "secp224r1", SPAN_OF(ecdsa_sha256), NULL, DIGEST_SHA256, 28 },
};
static const struct kind rsa = { NULL, SPAN_OF(rsa_sha256), "RS256", DIGEST_SHA256, 0 };
static const struct kind edwards = { NULL, SPAN_OF(ed25519), NULL, DIGEST_SHA512, 0 };

struct signer {
	const struct kind *kind;
	EVP_PKEY_CTX *ctx; /* initialised for signing; NULL: Ed25519, which hashes by itself */
	EVP_PKEY *key;
};

static const struct kind *kind_of(EVP_PKEY *key)
{
	char group[64] = "";

	if (EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA)
		return EVP_PKEY_get_bits(key) <= SIGNATURE_MAX * 8 ? &rsa : NULL;
	if (EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519)
		return &edwards;
	if (EVP_PKEY_get_base_id(key) == EVP_PKEY_EC && EVP_PKEY_get_group_name(key, group, sizeof group, NULL) == 1)
		for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
			if (strcmp(group, kinds[i].group) == 0)
				return &kinds[i];
	return NULL;
}

enum code signer_new(EVP_PKEY *key, struct signer **out, struct err *err)
{
	const struct kind *kind = kind_of(key);
	OWN(EVP_PKEY_CTX) ctx = NULL;
	struct signer *signer;

	if (kind == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "cannot sign with a key of this kind");
	if (kind != &edwards) {
		ctx = EVP_PKEY_CTX_new(key, NULL);
		if (ctx == NULL || EVP_PKEY_sign_init(ctx) <= 0 ||
		    (kind == &rsa && (EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) <= 0 ||
				      EVP_PKEY_CTX_set_signature_md(ctx, digest_md(kind->digest)) <= 0)))
			return err_crypto(err, CODE_INTERNAL, "cannot sign with this key");
	}
	signer = xmalloc(sizeof *signer);
	signer->kind = kind;
	signer->ctx = TAKE(ctx);
	signer->key = key;
	EVP_PKEY_up_ref(key);
	*out = signer;
	return CODE_OK;
}

void signer_free(struct signer *signer)
{
	if (signer == NULL)
		return;
	EVP_PKEY_CTX_free(signer->ctx);
	EVP_PKEY_free(signer->key);
	free(signer);
}

struct span signer_algorithm(const struct signer *signer)
{
	return signer->kind->algorithm;
}

const char *signer_jws_algorithm(const struct signer *signer)
{
	return signer->kind->jws;
}

static enum code sign_whole(const struct signer *signer, struct span data, uint8_t *out, size_t *out_len,
			    struct err *err)
{
	OWN(EVP_MD_CTX) ctx = EVP_MD_CTX_new();
	size_t len = SIGNATURE_MAX;

	if (ctx == NULL || EVP_DigestSignInit(ctx, NULL, NULL, NULL, signer->key) != 1 ||
	    EVP_DigestSign(ctx, out, &len, data.data, data.len) != 1)
		return err_crypto(err, CODE_INTERNAL, "signing failed");
	*out_len = len;
	return CODE_OK;
}

enum code signer_sign(const struct signer *signer, struct span data, uint8_t *out, size_t *out_len, struct err *err)
{
	OWN(EVP_PKEY_CTX) ctx = NULL;
	uint8_t digest[EVP_MAX_MD_SIZE];
	size_t digest_len, len = SIGNATURE_MAX;

	if (signer->ctx == NULL)
		return sign_whole(signer, data, out, out_len, err);
	ctx = EVP_PKEY_CTX_dup(signer->ctx);
	digest_len = digest_of(signer->kind->digest, data.data, data.len, digest);
	if (ctx == NULL || EVP_PKEY_sign(ctx, out, &len, digest, digest_len) <= 0)
		return err_crypto(err, CODE_INTERNAL, "signing failed");
	*out_len = len;
	return CODE_OK;
}

/* An INTEGER below 2^(8 * half), right-aligned into `out`. */
static bool put_half(struct span *in, uint8_t *out, size_t half)
{
	struct der_item item;

	if (der_expect(in, DER_INTEGER, "", &item, NULL) != CODE_OK)
		return false;
	while (item.content.len > half && item.content.data[0] == 0) {
		item.content.data++;
		item.content.len--;
	}
	if (item.content.len > half)
		return false;
	memset(out, 0, half - item.content.len);
	memcpy(out + half - item.content.len, item.content.data, item.content.len);
	return true;
}

enum code signer_sign_jws(const struct signer *signer, struct span data, uint8_t *out, size_t *out_len, struct err *err)
{
	uint8_t der[SIGNATURE_MAX];
	size_t half = signer->kind->half;
	struct span in = { der, 0 };
	struct der_item sequence;

	if (half == 0)
		return signer_sign(signer, data, out, out_len, err);
	TRY(signer_sign(signer, data, der, &in.len, err));
	if (der_expect(&in, DER_SEQUENCE, "", &sequence, NULL) != CODE_OK || !put_half(&sequence.content, out, half) ||
	    !put_half(&sequence.content, out + half, half))
		return err_set(err, CODE_INTERNAL, "signing failed: the signature has an unknown form");
	*out_len = 2 * half;
	return CODE_OK;
}

/* ---- digests ---- */

static EVP_MD *digests[4];
static pthread_once_t digests_once = PTHREAD_ONCE_INIT;

static void digests_fetch(void)
{
	static const char *const names[] = { "SHA1", "SHA256", "SHA384", "SHA512" };

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		digests[i] = EVP_MD_fetch(NULL, names[i], NULL);
		if (digests[i] == NULL) {
			fprintf(stderr, "the digest %s is not to be had from OpenSSL\n", names[i]);
			abort();
		}
	}
}

const EVP_MD *digest_md(enum digest digest)
{
	if (pthread_once(&digests_once, digests_fetch) != 0)
		abort();
	return digests[digest];
}

size_t digest_of(enum digest digest, const void *data, size_t len, uint8_t *out)
{
	unsigned int out_len = 0;

	if (EVP_Digest(data, len, out, &out_len, digest_md(digest), NULL) != 1)
		abort(); /* out of memory */
	return out_len;
}

/* ---- errors ---- */

enum code err_crypto(struct err *err, enum code code, const char *fmt, ...)
{
	unsigned long first = ERR_peek_error();
	const char *reason = first == 0 ? NULL : ERR_reason_error_string(first);
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	ERR_clear_error();
	if (err == NULL)
		return code;
	return reason == NULL ? err_set(err, code, "%s", text) : err_set(err, code, "%s: %s", text, reason);
}
