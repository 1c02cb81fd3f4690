/* SPDX-License-Identifier: Apache-2.0 */
/* Public keys in requests. P-256 is what nearly every request carries and has a short way: one key object a thread,
 * whose point is replaced for each check. Building an EVP_PKEY from DER costs twice as much as the check itself
 * (OpenSSL 3.0). All other keys go through d2i_PUBKEY. */

#include "ca/pubkey.h"

#include "ca/der.h"
#include "ca/key.h"
#include "ca/signer.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

OWNABLE(EVP_PKEY_CTX, EVP_PKEY_CTX_free)
OWNABLE(EVP_MD_CTX, EVP_MD_CTX_free)

static const uint8_t oid_rsa[] = { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01 };
static const uint8_t oid_ec[] = { 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01 };
static const uint8_t oid_ed25519[] = { 0x2b, 0x65, 0x70 };

static const struct curve {
	enum pubkey_kind kind;
	const char *name;
	size_t point; /* octets of an uncompressed point */
	uint8_t oid_len;
	uint8_t oid[8];
} curves[] = {
	{ PUBKEY_P256, "P256", 65, 8, { 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07 } },
	{ PUBKEY_P384, "P384", 97, 5, { 0x2b, 0x81, 0x04, 0x00, 0x22 } },
	{ PUBKEY_P521, "P521", 133, 5, { 0x2b, 0x81, 0x04, 0x00, 0x23 } },
	{ PUBKEY_P224, "P224", 57, 5, { 0x2b, 0x81, 0x04, 0x00, 0x21 } },
};

/* ---- P-256, a key object a thread ---- */

struct p256 {
	EVP_PKEY *key;
	EVP_PKEY_CTX *verify;
};

static pthread_key_t p256_key;
static pthread_once_t p256_once = PTHREAD_ONCE_INIT;

static void p256_free(void *held)
{
	struct p256 *p256 = held;

	EVP_PKEY_CTX_free(p256->verify);
	EVP_PKEY_free(p256->key);
	free(p256);
}

static void p256_init(void)
{
	if (pthread_key_create(&p256_key, p256_free) != 0)
		abort();
}

/* Any point will do to begin with: the curve's generator. NULL when OpenSSL cannot. */
static struct p256 *p256_new(void)
{
	static const uint8_t generator[65] = {
		0x04, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2,
		0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96, 0x4f,
		0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16, 0x2b, 0xce,
		0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
	};
	char group[] = "prime256v1";
	OSSL_PARAM params[] = {
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, sizeof group - 1),
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)generator, sizeof generator),
		OSSL_PARAM_END,
	};
	OWN(EVP_PKEY_CTX) make = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
	OWN(EVP_PKEY_CTX) verify = NULL;
	OWN(EVP_PKEY) key = NULL;
	struct p256 *p256;

	if (make == NULL || EVP_PKEY_fromdata_init(make) <= 0 ||
	    EVP_PKEY_fromdata(make, &key, EVP_PKEY_PUBLIC_KEY, params) <= 0)
		return NULL;
	verify = EVP_PKEY_CTX_new(key, NULL);
	if (verify == NULL || EVP_PKEY_verify_init(verify) <= 0)
		return NULL;
	p256 = xmalloc(sizeof *p256);
	p256->key = TAKE(key);
	p256->verify = TAKE(verify);
	return p256;
}

static struct p256 *p256_mine(void)
{
	struct p256 *p256;

	if (pthread_once(&p256_once, p256_init) != 0)
		abort();
	p256 = pthread_getspecific(p256_key);
	if (p256 == NULL) {
		p256 = p256_new();
		if (p256 == NULL || pthread_setspecific(p256_key, p256) != 0)
			abort(); /* out of memory, or an OpenSSL without the one curve that everybody uses */
	}
	return p256;
}

/* False: the point is not on the curve. */
static bool p256_take_point(struct p256 *p256, struct span point)
{
	return EVP_PKEY_set1_encoded_public_key(p256->key, point.data, point.len) == 1;
}

/* ---- parsing ---- */

static enum code pkey_of(struct span der, EVP_PKEY **out, struct err *err)
{
	const uint8_t *at = der.data;
	EVP_PKEY *key = d2i_PUBKEY(NULL, &at, (long)der.len);

	if (key == NULL)
		return err_crypto(err, CODE_INVALID_ARGUMENT, "x509: invalid public key");
	*out = key;
	return CODE_OK;
}

static enum code invalid(struct err *err, const char *text)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "%s", text);
}

/* The same after OpenSSL refused: what it has to say is dropped. */
static enum code failed(struct err *err, const char *text)
{
	err_crypto(NULL, CODE_INVALID_ARGUMENT, "%s", text);
	return invalid(err, text);
}

/* SPKI from parts, for the rare input whose encoding was not the canonical one. */
static struct span encode(struct arena *arena, const uint8_t *oid, size_t oid_len, struct span parameters,
			  struct span bits)
{
	size_t size = oid_len + parameters.len + bits.len + 4 * DER_HEAD_MAX + 1;
	uint8_t *start = arena_alloc(arena, size);
	struct der_out out = { start, start + size };
	const uint8_t *end = out.at, *algorithm_end;

	der_put(&out, bits.data, bits.len);
	der_put_byte(&out, 0);
	der_head(&out, DER_BIT_STRING, end);
	algorithm_end = out.at;
	der_put(&out, parameters.data, parameters.len);
	der_put_tlv(&out, DER_OID, oid, oid_len);
	der_head(&out, DER_SEQUENCE, algorithm_end);
	der_head(&out, DER_SEQUENCE, end);
	return (struct span){ out.at, (size_t)(end - out.at) };
}

/* `bits` of an RSA key: SEQUENCE { modulus, exponent } and, canonically, nothing else. */
static enum code parse_rsa(struct arena *arena, struct span *bits, struct err *err)
{
	struct span in = *bits, fields;
	struct der_item sequence, n, e;
	struct der_out out;
	uint8_t *start;
	const uint8_t *end;

	if (der_expect(&in, DER_SEQUENCE, "", &sequence, err) != CODE_OK)
		return invalid(err, "x509: invalid RSA public key");
	fields = sequence.content;
	if (der_expect(&fields, DER_INTEGER, "", &n, err) != CODE_OK || der_check_integer(n.content, err) != CODE_OK)
		return invalid(err, "x509: invalid RSA modulus");
	if (der_expect(&fields, DER_INTEGER, "", &e, err) != CODE_OK || der_check_integer(e.content, err) != CODE_OK ||
	    e.content.len > 8)
		return invalid(err, "x509: invalid RSA public exponent");
	if ((n.content.data[0] & 0x80) || span_is(n.content, "\0", 1))
		return invalid(err, "x509: RSA modulus is not a positive number");
	if ((e.content.data[0] & 0x80) || span_is(e.content, "\0", 1))
		return invalid(err, "x509: RSA public exponent is not a positive number");
	if (n.content.len > PUBKEY_RSA_BITS_MAX / 8 + 1)
		return err_set(err, CODE_INVALID_ARGUMENT, "x509: RSA modulus is larger than %d bits",
			       PUBKEY_RSA_BITS_MAX);
	if (in.len == 0 && fields.len == 0)
		return CODE_OK;
	start = arena_alloc(arena, n.whole.len + e.whole.len + DER_HEAD_MAX);
	out = (struct der_out){ start, start + n.whole.len + e.whole.len + DER_HEAD_MAX };
	end = out.at;
	der_put(&out, e.whole.data, e.whole.len);
	der_put(&out, n.whole.data, n.whole.len);
	der_head(&out, DER_SEQUENCE, end);
	*bits = (struct span){ out.at, (size_t)(end - out.at) };
	return CODE_OK;
}

static enum code parse_ec(struct span parameters, struct span bits, struct pubkey *out, struct err *err)
{
	struct der_item oid;

	if (der_expect(&parameters, DER_OID, "", &oid, err) != CODE_OK)
		return invalid(err, "x509: invalid ECDSA parameters");
	for (size_t i = 0; i < sizeof curves / sizeof *curves; i++) {
		const struct curve *curve = &curves[i];

		if (!span_is(oid.content, curve->oid, curve->oid_len))
			continue;
		if (bits.len < 1 || bits.data[0] != 4)
			return invalid(err, "ecdsa: invalid uncompressed public key");
		if (bits.len != curve->point)
			return err_set(err, CODE_INVALID_ARGUMENT, "invalid %s point encoding", curve->name);
		out->kind = curve->kind;
		return CODE_OK;
	}
	return invalid(err, "x509: unsupported elliptic curve");
}

static enum code parse_by_algorithm(struct span oid, struct span parameters, struct span *bits, struct arena *arena,
				    struct pubkey *out, struct err *err)
{
	if (span_is(oid, oid_ec, sizeof oid_ec))
		return parse_ec(parameters, *bits, out, err);
	if (span_is(oid, oid_rsa, sizeof oid_rsa)) {
		if (!span_is(parameters, "\x05\x00", 2))
			return invalid(err, "x509: RSA key missing NULL parameters");
		out->kind = PUBKEY_RSA;
		return parse_rsa(arena, bits, err);
	}
	if (span_is(oid, oid_ed25519, sizeof oid_ed25519)) {
		if (parameters.len != 0)
			return invalid(err, "x509: Ed25519 key encoded with illegal parameters");
		if (bits->len != 32)
			return invalid(err, "x509: wrong Ed25519 public key size");
		out->kind = PUBKEY_ED25519;
		return CODE_OK;
	}
	return invalid(err, "x509: unsupported public key algorithm");
}

/* That the key can be used: a point on its curve, a modulus that OpenSSL takes. */
static enum code check_usable(const struct pubkey *key, struct err *err)
{
	OWN(EVP_PKEY) pkey = NULL;

	if (key->kind == PUBKEY_P256)
		return p256_take_point(p256_mine(), key->bits) ? CODE_OK : failed(err, "P256 point not on curve");
	if (pkey_of(key->der, &pkey, err) == CODE_OK)
		return CODE_OK;
	for (size_t i = 0; i < sizeof curves / sizeof *curves; i++)
		if (curves[i].kind == key->kind)
			return err_set(err, CODE_INVALID_ARGUMENT, "%s point not on curve", curves[i].name);
	return CODE_INVALID_ARGUMENT;
}

enum code pubkey_parse(struct span der, struct arena *arena, struct pubkey *out, struct err *err)
{
	struct der_item spki, algorithm, oid, parameters = { 0 }, bit_string;
	struct span in = der, fields, algorithm_fields, bits, given;
	struct pubkey key = { 0 };

	TRY(der_expect(&in, DER_SEQUENCE, "publicKeyInfo", &spki, err));
	if (in.len != 0)
		return invalid(err, "x509: trailing data after ASN.1 of public-key");
	fields = spki.content;
	TRY(der_expect(&fields, DER_SEQUENCE, "AlgorithmIdentifier", &algorithm, err));
	algorithm_fields = algorithm.content;
	TRY(der_expect(&algorithm_fields, DER_OID, "ObjectIdentifier", &oid, err));
	TRY(der_check_oid(oid.content, err));
	if (algorithm_fields.len > 0)
		TRY(der_next(&algorithm_fields, &parameters, err));
	TRY(der_expect(&fields, DER_BIT_STRING, "BitString", &bit_string, err));
	TRY(der_bits(bit_string.content, &bits, err));
	given = bits;
	TRY(parse_by_algorithm(oid.content, parameters.whole, &bits, arena, &key, err));

	key.bits = bits;
	key.der = spki.whole;
	if (fields.len != 0 || algorithm_fields.len != 0 || bits.data != given.data) {
		struct span canonical = parameters.whole;

		key.der = encode(arena, oid.content.data, oid.content.len, canonical, bits);
		key.bits = pubkey_bits_of(key.der);
	}
	TRY(check_usable(&key, err));
	*out = key;
	return CODE_OK;
}

struct span pubkey_bits_of(struct span der)
{
	struct der_item spki, algorithm, bit_string;
	struct span bits = { 0 };
	bool known = der_expect(&der, DER_SEQUENCE, "", &spki, NULL) == CODE_OK &&
		     der_expect(&spki.content, DER_SEQUENCE, "", &algorithm, NULL) == CODE_OK &&
		     der_expect(&spki.content, DER_BIT_STRING, "", &bit_string, NULL) == CODE_OK &&
		     der_bits(bit_string.content, &bits, NULL) == CODE_OK;

	assert(known);
	return bits;
}

int pubkey_bits(const struct pubkey *key)
{
	struct span in = key->bits;
	struct der_item sequence, n;

	switch (key->kind) {
	case PUBKEY_P224:
		return 224;
	case PUBKEY_P256:
	case PUBKEY_ED25519:
		return 256;
	case PUBKEY_P384:
		return 384;
	case PUBKEY_P521:
		return 521;
	case PUBKEY_RSA:
		break;
	}
	if (der_expect(&in, DER_SEQUENCE, "", &sequence, NULL) != CODE_OK ||
	    der_expect(&sequence.content, DER_INTEGER, "", &n, NULL) != CODE_OK)
		return 0;
	if (n.content.len > 1 && n.content.data[0] == 0) {
		n.content.data++;
		n.content.len--;
	}
	return (int)n.content.len * 8 - (n.content.data[0] == 0 ? 8 : __builtin_clz(n.content.data[0]) - 24);
}

/* ---- signatures ---- */

enum key_class { CLASS_RSA, CLASS_ECDSA, CLASS_ED25519 };

static const struct algorithm {
	enum key_class class;
	bool pss, insecure;
	enum digest digest;
	const char *name;
	uint8_t oid_len;
	uint8_t oid[9];
} algorithms[] = {
	{ CLASS_ECDSA, 0, 0, DIGEST_SHA256, "ECDSA-SHA256", 8, { 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02 } },
	{ CLASS_ECDSA, 0, 0, DIGEST_SHA384, "ECDSA-SHA384", 8, { 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03 } },
	{ CLASS_ECDSA, 0, 0, DIGEST_SHA512, "ECDSA-SHA512", 8, { 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04 } },
	{ CLASS_ECDSA, 0, 0, DIGEST_SHA1, "ECDSA-SHA1", 7, { 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01 } },
	{ CLASS_RSA, 0, 0, DIGEST_SHA256, "SHA256-RSA", 9, { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b } },
	{ CLASS_RSA, 0, 0, DIGEST_SHA384, "SHA384-RSA", 9, { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c } },
	{ CLASS_RSA, 0, 0, DIGEST_SHA512, "SHA512-RSA", 9, { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d } },
	{ CLASS_RSA, 0, 0, DIGEST_SHA1, "SHA1-RSA", 9, { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05 } },
	{ CLASS_RSA, 0, 0, DIGEST_SHA1, "SHA1-RSA", 5, { 0x2b, 0x0e, 0x03, 0x02, 0x1d } },
	{ CLASS_RSA, 0, 1, DIGEST_SHA1, "MD5-RSA", 9, { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04 } },
	{ CLASS_ED25519, 0, 0, DIGEST_SHA512, "Ed25519", 3, { 0x2b, 0x65, 0x70 } },
};

static const uint8_t oid_pss[] = { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a };

/* RSASSA-PSS: the three sets of parameters that are in use, each with its salt as long as its digest. */
static const struct {
	struct algorithm algorithm;
	uint8_t oid_last; /* of 2.16.840.1.101.3.4.2.x */
	uint8_t salt;
} pss_algorithms[] = {
	{ { CLASS_RSA, 1, 0, DIGEST_SHA256, "SHA256-RSAPSS", 0, { 0 } }, 1, 32 },
	{ { CLASS_RSA, 1, 0, DIGEST_SHA384, "SHA384-RSAPSS", 0, { 0 } }, 2, 48 },
	{ { CLASS_RSA, 1, 0, DIGEST_SHA512, "SHA512-RSAPSS", 0, { 0 } }, 3, 64 },
};

/* AlgorithmIdentifier { oid, absent or NULL } off `in`: answers the oid's content. */
static bool take_plain_algorithm(struct span *in, struct span *oid)
{
	struct der_item sequence, item;

	if (der_expect(in, DER_SEQUENCE, "", &sequence, NULL) != CODE_OK ||
	    der_expect(&sequence.content, DER_OID, "", &item, NULL) != CODE_OK)
		return false;
	*oid = item.content;
	return sequence.content.len == 0 || span_is(sequence.content, "\x05\x00", 2);
}

static bool take_explicit(struct span *in, int number, struct span *content)
{
	struct der_item item;

	if (der_expect(in, (uint8_t)(DER_CONTEXT_CONSTRUCTED + number), "", &item, NULL) != CODE_OK)
		return false;
	*content = item.content;
	return true;
}

static const struct algorithm *find_pss(struct span parameters)
{
	static const uint8_t oid_mgf1[] = { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08 };
	uint8_t oid_sha2[] = { 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x00 };
	struct span fields, hash, mgf, salt, digest_oid, mgf_digest_oid;
	struct der_item sequence, mgf_sequence, mgf_oid, salt_number;

	if (der_expect(&parameters, DER_SEQUENCE, "", &sequence, NULL) != CODE_OK)
		return NULL;
	fields = sequence.content;
	if (!take_explicit(&fields, 0, &hash) || !take_plain_algorithm(&hash, &digest_oid) ||
	    !take_explicit(&fields, 1, &mgf) || der_expect(&mgf, DER_SEQUENCE, "", &mgf_sequence, NULL) != CODE_OK ||
	    der_expect(&mgf_sequence.content, DER_OID, "", &mgf_oid, NULL) != CODE_OK ||
	    !span_is(mgf_oid.content, oid_mgf1, sizeof oid_mgf1) ||
	    !take_plain_algorithm(&mgf_sequence.content, &mgf_digest_oid) ||
	    !span_is(mgf_digest_oid, digest_oid.data, digest_oid.len) || !take_explicit(&fields, 2, &salt) ||
	    der_expect(&salt, DER_INTEGER, "", &salt_number, NULL) != CODE_OK || salt_number.content.len != 1)
		return NULL;
	if (fields.len != 0 && !span_is(fields, "\xa3\x03\x02\x01\x01", 5)) /* trailerField: 1, the default */
		return NULL;
	for (size_t i = 0; i < sizeof pss_algorithms / sizeof *pss_algorithms; i++) {
		oid_sha2[sizeof oid_sha2 - 1] = pss_algorithms[i].oid_last;
		if (span_is(digest_oid, oid_sha2, sizeof oid_sha2) &&
		    salt_number.content.data[0] == pss_algorithms[i].salt)
			return &pss_algorithms[i].algorithm;
	}
	return NULL;
}

static const struct algorithm *find_algorithm(struct span der)
{
	struct der_item sequence, oid;

	if (der_expect(&der, DER_SEQUENCE, "", &sequence, NULL) != CODE_OK ||
	    der_expect(&sequence.content, DER_OID, "", &oid, NULL) != CODE_OK)
		return NULL;
	if (span_is(oid.content, oid_pss, sizeof oid_pss))
		return find_pss(sequence.content);
	for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms; i++) {
		if (!span_is(oid.content, algorithms[i].oid, algorithms[i].oid_len))
			continue;
		if (algorithms[i].class == CLASS_ED25519 && sequence.content.len != 0)
			return NULL;
		return &algorithms[i];
	}
	return NULL;
}

static enum code verify_rsa(EVP_PKEY *pkey, const struct algorithm *algorithm, int salt, const uint8_t *digest,
			    size_t digest_len, struct span signature, struct err *err)
{
	OWN(EVP_PKEY_CTX) ctx = EVP_PKEY_CTX_new(pkey, NULL);
	int bits = EVP_PKEY_get_bits(pkey);

	if (bits < 1024)
		return err_set(
			err, CODE_INVALID_ARGUMENT,
			"crypto/rsa: %d-bit keys are insecure (see https://go.dev/pkg/crypto/rsa#hdr-Minimum_key_size)",
			bits);
	if (ctx == NULL || EVP_PKEY_verify_init(ctx) <= 0 ||
	    EVP_PKEY_CTX_set_rsa_padding(ctx, algorithm->pss ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING) <= 0 ||
	    EVP_PKEY_CTX_set_signature_md(ctx, digest_md(algorithm->digest)) <= 0 ||
	    (algorithm->pss && EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, salt) <= 0))
		return failed(err, "crypto/rsa: verification error");
	if (EVP_PKEY_verify(ctx, signature.data, signature.len, digest, digest_len) != 1)
		return failed(err, "crypto/rsa: verification error");
	return CODE_OK;
}

static enum code verify_ecdsa(const struct pubkey *key, const uint8_t *digest, size_t digest_len, struct span signature,
			      struct err *err)
{
	OWN(EVP_PKEY) pkey = NULL;
	OWN(EVP_PKEY_CTX) own = NULL;
	EVP_PKEY_CTX *ctx;

	if (key->kind == PUBKEY_P256) {
		struct p256 *p256 = p256_mine();

		if (!p256_take_point(p256, key->bits))
			return failed(err, "P256 point not on curve");
		ctx = p256->verify;
	} else {
		TRY(pkey_of(key->der, &pkey, err));
		ctx = own = EVP_PKEY_CTX_new(pkey, NULL);
		if (own == NULL || EVP_PKEY_verify_init(own) <= 0)
			return failed(err, "x509: ECDSA verification failure");
	}
	if (EVP_PKEY_verify(ctx, signature.data, signature.len, digest, digest_len) != 1)
		return failed(err, "x509: ECDSA verification failure");
	return CODE_OK;
}

static enum code verify_ed25519(const struct pubkey *key, struct span data, struct span signature, struct err *err)
{
	OWN(EVP_PKEY) pkey = NULL;
	OWN(EVP_MD_CTX) ctx = EVP_MD_CTX_new();

	TRY(pkey_of(key->der, &pkey, err));
	if (ctx == NULL || EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, pkey) != 1 ||
	    EVP_DigestVerify(ctx, signature.data, signature.len, data.data, data.len) != 1)
		return failed(err, "x509: Ed25519 verification failure");
	return CODE_OK;
}

static enum key_class class_of(enum pubkey_kind kind)
{
	return kind == PUBKEY_RSA ? CLASS_RSA : kind == PUBKEY_ED25519 ? CLASS_ED25519 : CLASS_ECDSA;
}

enum code pubkey_verify(const struct pubkey *key, struct span algorithm_der, struct span data, struct span signature,
			struct err *err)
{
	static const char *const class_names[] = { "RSA", "ECDSA", "Ed25519" };
	static const char *const type_names[] = { "*rsa.PublicKey", "*ecdsa.PublicKey", "ed25519.PublicKey" };
	const struct algorithm *algorithm = find_algorithm(algorithm_der);
	uint8_t digest[EVP_MAX_MD_SIZE];
	OWN(EVP_PKEY) pkey = NULL;
	size_t digest_len;

	if (algorithm == NULL)
		return invalid(err, "x509: cannot verify signature: algorithm unimplemented");
	if (algorithm->insecure)
		return err_set(err, CODE_INVALID_ARGUMENT, "x509: cannot verify signature: insecure algorithm %s",
			       algorithm->name);
	if (algorithm->class != class_of(key->kind))
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "x509: signature algorithm specifies an %s public key, but have public key of type %s",
			       class_names[algorithm->class], type_names[class_of(key->kind)]);
	if (algorithm->class == CLASS_ED25519)
		return verify_ed25519(key, data, signature, err);
	digest_len = digest_of(algorithm->digest, data.data, data.len, digest);
	if (algorithm->class == CLASS_ECDSA)
		return verify_ecdsa(key, digest, digest_len, signature, err);
	TRY(pkey_of(key->der, &pkey, err));
	return verify_rsa(pkey, algorithm, RSA_PSS_SALTLEN_DIGEST, digest, digest_len, signature, err);
}

/* ---- proof of possession ---- */

bool pubkey_verify_ecdsa(const struct pubkey *key, const uint8_t digest[32], struct span r, struct span s)
{
	uint8_t der[2 * 80 + 2 * DER_HEAD_MAX];
	struct der_out out = { der, der + sizeof der };
	const uint8_t *end = out.at;

	while (r.len > 0 && r.data[0] == 0)
		r = (struct span){ r.data + 1, r.len - 1 };
	while (s.len > 0 && s.data[0] == 0)
		s = (struct span){ s.data + 1, s.len - 1 };
	if (class_of(key->kind) != CLASS_ECDSA || r.len == 0 || s.len == 0 || r.len > 66 || s.len > 66)
		return false;
	der_put_unsigned(&out, s.data, s.len);
	der_put_unsigned(&out, r.data, r.len);
	der_head(&out, DER_SEQUENCE, end);
	return verify_ecdsa(key, digest, 32, (struct span){ out.at, (size_t)(end - out.at) }, NULL) == CODE_OK;
}

bool pubkey_verify_pss(const struct pubkey *key, const uint8_t digest[32], struct span signature)
{
	static const struct algorithm any_salt = { CLASS_RSA, true, false, DIGEST_SHA256, "", 0, { 0 } };
	OWN(EVP_PKEY) pkey = NULL;

	return key->kind == PUBKEY_RSA && pkey_of(key->der, &pkey, NULL) == CODE_OK &&
	       verify_rsa(pkey, &any_salt, RSA_PSS_SALTLEN_AUTO, digest, 32, signature, NULL) == CODE_OK;
}
