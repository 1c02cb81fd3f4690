/* SPDX-License-Identifier: Apache-2.0 */
/* Certificate requests: what is read, and that nothing hostile gets through or beyond the end. */
#include "base/arena.h"
#include "ca/csr.h"
#include "ca/der.h"
#include "ca/key.h"
#include "lib/pki.h"
#include "lib/test.h"

#include <openssl/evp.h>
#include <openssl/rsa.h>

#include <pthread.h>
#include <stdlib.h>

static const char *const kinds[] = { "P-256", "P-384", "P-521", "P-224", "RSA-2048", "ED25519" };
static const char *const digests[] = { "SHA256", "SHA384", "SHA512", "SHA1", "SHA256", NULL };

/* Parses a copy of exactly that size on the heap, so that ASan sees a step beyond it. */
static enum code parse_copy(const uint8_t *der, size_t len, struct arena *arena, struct csr *out, struct err *err)
{
	uint8_t *copy = malloc(len == 0 ? 1 : len);
	enum code rc;

	memcpy(copy, der, len);
	rc = csr_parse(copy, len, arena, out, err);
	if (rc == CODE_OK)
		csr_verify(out, NULL);
	free(copy);
	return rc;
}

TEST(requests_of_all_keys_verify)
{
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		OWN(EVP_PKEY) key = pki_key(kinds[i]);
		OWN_BUF der = { 0 }, spki = { 0 };
		struct csr csr;
		struct err err = { 0 };

		pki_csr(&der, key, "/C=US/O=SPIRE",
			"URI:spiffe://example.org/w,DNS:a.org,DNS:b.org,IP:1.2.3.4,email:a@b.c,RID:1.2.3", digests[i]);
		CHECK_CODE(csr_parse(der.data, der.len, arena, &csr, &err), CODE_OK);
		CHECK_CODE(csr_verify(&csr, &err), CODE_OK);
		CHECK_NUM(csr.n_uris, 1);
		CHECK_STR(csr.uris[0], "spiffe://example.org/w");
		CHECK_NUM(csr.n_dns_names, 2);
		CHECK_STR(csr.dns_names[0], "a.org");
		CHECK_STR(csr.dns_names[1], "b.org");
		CHECK_CODE(key_public_der(key, &spki, &err), CODE_OK);
		CHECK_NUM(csr.spki.len, spki.len);
		CHECK_BYTES(csr.spki.data, spki.data, spki.len);
	}
}

TEST(request_without_names)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN(EVP_PKEY) key = pki_key("P-256");
	OWN_BUF der = { 0 };
	struct csr csr;
	struct err err = { 0 };

	pki_csr(&der, key, "", NULL, "SHA256");
	CHECK_CODE(csr_parse(der.data, der.len, arena, &csr, &err), CODE_OK);
	CHECK_CODE(csr_verify(&csr, &err), CODE_OK);
	CHECK_NUM(csr.n_uris + csr.n_dns_names, 0);
}

TEST(signature_of_another_key)
{
	static const char *const texts[] = { "x509: ECDSA verification failure", "x509: ECDSA verification failure",
					     "x509: ECDSA verification failure", "x509: ECDSA verification failure",
					     "crypto/rsa: verification error",   "x509: Ed25519 verification failure" };

	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		OWN(EVP_PKEY) key = pki_key(kinds[i]);
		OWN(EVP_PKEY) other = pki_key(kinds[i]);
		OWN_BUF der = { 0 }, other_der = { 0 };
		struct csr csr, other_csr;
		struct err err = { 0 };

		pki_csr(&der, key, "/O=x", NULL, digests[i]);
		pki_csr(&other_der, other, "/O=x", NULL, digests[i]);
		CHECK_CODE(csr_parse(der.data, der.len, arena, &csr, &err), CODE_OK);
		CHECK_CODE(csr_parse(other_der.data, other_der.len, arena, &other_csr, &err), CODE_OK);
		csr.signature = other_csr.signature;
		CHECK_CODE(csr_verify(&csr, &err), CODE_INVALID_ARGUMENT);
		CHECK_STR(err.text, texts[i]);
		csr.signature = (struct span){ csr.signature.data, 0 };
		CHECK_CODE(csr_verify(&csr, &err), CODE_INVALID_ARGUMENT);
		/* One key does not spoil the thread's next check. */
		CHECK_CODE(csr_verify(&other_csr, &err), CODE_OK);
	}
}

TEST(algorithm_must_fit_the_key)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN(EVP_PKEY) ec = pki_key("P-256");
	OWN(EVP_PKEY) rsa = pki_key("RSA-2048");
	OWN_BUF der = { 0 }, rsa_der = { 0 };
	static const uint8_t unknown[] = { 0x30, 0x04, 0x06, 0x02, 0x2a, 0x03 };
	static const uint8_t md5[] = { 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
				       0xf7, 0x0d, 0x01, 0x01, 0x04, 0x05, 0x00 };
	struct csr csr, rsa_csr;
	struct err err = { 0 };

	pki_csr(&der, ec, "/O=x", NULL, "SHA256");
	pki_csr(&rsa_der, rsa, "/O=x", NULL, "SHA256");
	CHECK_CODE(csr_parse(der.data, der.len, arena, &csr, &err), CODE_OK);
	CHECK_CODE(csr_parse(rsa_der.data, rsa_der.len, arena, &rsa_csr, &err), CODE_OK);
	csr.signature_algorithm = rsa_csr.signature_algorithm;
	CHECK_CODE(csr_verify(&csr, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(
		err.text,
		"x509: signature algorithm specifies an RSA public key, but have public key of type *ecdsa.PublicKey");
	csr.signature_algorithm = (struct span){ unknown, sizeof unknown };
	CHECK_CODE(csr_verify(&csr, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "x509: cannot verify signature: algorithm unimplemented");
	rsa_csr.signature_algorithm = (struct span){ md5, sizeof md5 };
	CHECK_CODE(csr_verify(&rsa_csr, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "x509: cannot verify signature: insecure algorithm MD5-RSA");
}

static void sign_pss(EVP_PKEY *key, const EVP_MD *md, int salt, X509_REQ *request)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *pkey_ctx;

	EVP_DigestSignInit(ctx, &pkey_ctx, md, NULL, key);
	EVP_PKEY_CTX_set_rsa_padding(pkey_ctx, RSA_PKCS1_PSS_PADDING);
	EVP_PKEY_CTX_set_rsa_pss_saltlen(pkey_ctx, salt);
	assert_true(X509_REQ_sign_ctx(request, ctx) > 0);
	EVP_MD_CTX_free(ctx);
}

TEST(pss_with_the_usual_parameters)
{
	static const struct {
		const char *md;
		int salt;
		enum code code;
	} cases[] = {
		{ "SHA256", 32, CODE_OK },
		{ "SHA384", 48, CODE_OK },
		{ "SHA512", 64, CODE_OK },
		{ "SHA256", 20, CODE_INVALID_ARGUMENT },
		{ "SHA256", 222, CODE_INVALID_ARGUMENT },
	};
	OWN(EVP_PKEY) key = pki_key("RSA-2048");

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		X509_REQ *request = X509_REQ_new();
		unsigned char *der = NULL;
		struct csr csr;
		struct err err = { 0 };
		int len;

		X509_REQ_set_version(request, 0);
		X509_REQ_set_pubkey(request, key);
		sign_pss(key, EVP_get_digestbyname(cases[i].md), cases[i].salt, request);
		len = i2d_X509_REQ(request, &der);
		X509_REQ_free(request);
		CHECK_CODE(csr_parse(der, (size_t)len, arena, &csr, &err), CODE_OK);
		CHECK_CODE(csr_verify(&csr, &err), cases[i].code);
		OPENSSL_free(der);
	}
}

TEST(short_rsa_keys_are_insecure)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN(EVP_PKEY) key = pki_key("RSA-768");
	OWN_BUF der = { 0 };
	struct csr csr;
	struct err err = { 0 };

	pki_csr(&der, key, "/O=x", NULL, "SHA256");
	CHECK_CODE(csr_parse(der.data, der.len, arena, &csr, &err), CODE_OK);
	CHECK_CODE(csr_verify(&csr, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text,
		  "crypto/rsa: 768-bit keys are insecure (see https://go.dev/pkg/crypto/rsa#hdr-Minimum_key_size)");
}

static void *verify_own(void *held)
{
	OWN(EVP_PKEY) key = pki_key("P-256");
	OWN_BUF der = { 0 };

	(void)held;
	pki_csr(&der, key, "/O=x", NULL, "SHA256");
	for (int i = 0; i < 50; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		struct csr csr;

		if (csr_parse(der.data, der.len, arena, &csr, NULL) != CODE_OK || csr_verify(&csr, NULL) != CODE_OK)
			abort();
	}
	return NULL;
}

TEST(threads_do_not_mix_up_keys)
{
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, verify_own, NULL), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

/* ---- hostile input ---- */

TEST(every_cut_is_refused)
{
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		OWN(EVP_PKEY) key = pki_key(kinds[i]);
		OWN_BUF der = { 0 };

		pki_csr(&der, key, "/C=US/O=SPIRE/CN=x", "URI:spiffe://example.org/w,DNS:a.org", digests[i]);
		for (size_t len = 0; len < der.len; len++) {
			OWN_STRUCT(arena) arena = arena_new();
			struct csr csr;
			struct err err = { 0 };

			CHECK_CODE(parse_copy(der.data, len, arena, &csr, &err), CODE_INVALID_ARGUMENT);
		}
		buf_put(&der, 0);
		OWN_STRUCT(arena) arena = arena_new();
		struct csr csr;
		struct err err = { 0 };

		CHECK_CODE(csr_parse(der.data, der.len, arena, &csr, &err), CODE_INVALID_ARGUMENT);
		CHECK_STR(err.text, "asn1: syntax error: trailing data");
	}
}

TEST(every_octet_bent_does_no_harm)
{
	static const uint8_t values[] = { 0x00, 0x01, 0x7f, 0x80, 0x81, 0x82, 0x84, 0x88,
					  0xfe, 0xff, 0x30, 0x31, 0x1f, 0x3f, 0xa0 };

	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		OWN(EVP_PKEY) key = pki_key(kinds[i]);
		OWN_BUF der = { 0 };
		size_t at, step = i == 0 ? 1 : 7; /* all of it once; the rest is alike */

		pki_csr(&der, key, "/C=US/O=SPIRE/CN=x", "URI:spiffe://example.org/w,DNS:a.org", digests[i]);
		for (at = 0; at < der.len; at += step) {
			uint8_t was = der.data[at];

			for (size_t v = 0; v < sizeof values; v++) {
				OWN_STRUCT(arena) arena = arena_new();
				struct csr csr;
				struct err err = { 0 };

				if (values[v] == was)
					continue;
				der.data[at] = values[v];
				if (parse_copy(der.data, der.len, arena, &csr, &err) != CODE_OK)
					CHECK(err.code == CODE_INVALID_ARGUMENT && err.text[0] != '\0');
				else if (at < der.len - 1)
					continue;
			}
			der.data[at] = was;
		}
	}
}

TEST(no_bent_request_verifies)
{
	OWN(EVP_PKEY) key = pki_key("P-256");
	OWN_BUF der = { 0 };

	pki_csr(&der, key, "/C=US/O=SPIRE", "URI:spiffe://example.org/w", "SHA256");
	for (size_t bit = 0; bit < 8 * der.len; bit++) {
		OWN_STRUCT(arena) arena = arena_new();
		struct csr csr;

		der.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		/* The last octet of the ecdsa-with-SHA256 identifier names other digests: those do not verify either.
		 */
		CHECK(csr_parse(der.data, der.len, arena, &csr, NULL) != CODE_OK || csr_verify(&csr, NULL) != CODE_OK);
		der.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

static void check_text(const void *der, size_t len, const char *text)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct csr csr;
	struct err err = { 0 };

	CHECK_CODE(parse_copy(der, len, arena, &csr, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, text);
}

TEST(lengths_must_be_definite_and_minimal)
{
	check_text("", 0, "asn1: syntax error: sequence truncated");
	check_text("\x30", 1, "asn1: syntax error: truncated tag or length");
	check_text("\x30\x80\x00\x00", 4, "asn1: syntax error: indefinite length found (not DER)");
	check_text("\x30\x81\x05\x00\x00\x00\x00\x00", 8, "asn1: structure error: non-minimal length");
	check_text("\x30\x82\x00\x80", 4, "asn1: structure error: superfluous leading zeros in length");
	check_text("\x30\x84\x7f\xff\xff\xff", 6, "asn1: syntax error: data truncated");
	check_text("\x30\x85\x7f\xff\xff\xff\xff", 7, "asn1: structure error: length too large");
	check_text("\x30\x88\xff\xff\xff\xff\xff\xff\xff\xff", 10, "asn1: structure error: length too large");
	check_text("\x30\x05\x30\x00", 4, "asn1: syntax error: data truncated");
	check_text("\x30\x00", 2, "asn1: syntax error: sequence truncated");
	check_text("\x1f\x01\x00", 3, "asn1: syntax error: non-minimal tag");
	check_text("\x1f\x80\x01\x00", 4, "asn1: syntax error: integer is not minimally encoded");
	check_text("\x1f\xff\xff\xff\xff\xff\xff\x01\x00", 9, "asn1: structure error: base 128 integer too large");
	check_text("\x1f\xff", 2, "asn1: syntax error: truncated base 128 integer");
	check_text("\x00\x00\x00", 3,
		   "asn1: structure error: tags don't match (16 vs {class:0 tag:0 length:0 isCompound:false}) "
		   "certificateRequest");
}

/* A request from parts: whatever is in them, around a good key. */
static void build(struct buf *out, const char *subject, size_t subject_len, const void *spki, size_t spki_len,
		  const void *attributes, size_t attributes_len)
{
	static const uint8_t tail[] = { 0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
					0x3d, 0x04, 0x03, 0x02, 0x03, 0x02, 0x00, 0x01 };
	size_t size = subject_len + spki_len + attributes_len + 200;
	uint8_t *start = malloc(size);
	struct der_out writer = { start, start + size };
	const uint8_t *end = writer.at, *info;

	der_put(&writer, tail, sizeof tail);
	info = writer.at;
	der_put_tlv(&writer, DER_CONTEXT_CONSTRUCTED, attributes, attributes_len);
	der_put(&writer, spki, spki_len);
	der_put(&writer, subject, subject_len);
	der_put_tlv(&writer, DER_INTEGER, "", 1);
	der_head(&writer, DER_SEQUENCE, info);
	der_head(&writer, DER_SEQUENCE, end);
	buf_append(out, writer.at, (size_t)(end - writer.at));
	free(start);
}

static void check_part(const char *text, const char *subject, size_t subject_len, const void *spki, size_t spki_len,
		       const void *attributes, size_t attributes_len)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_BUF der = { 0 };
	struct csr csr;
	struct err err = { 0 };

	build(&der, subject, subject_len, spki, spki_len, attributes, attributes_len);
	if (text == NULL) {
		CHECK_CODE(parse_copy(der.data, der.len, arena, &csr, &err), CODE_OK);
	} else {
		CHECK_CODE(parse_copy(der.data, der.len, arena, &csr, &err), CODE_INVALID_ARGUMENT);
		CHECK_STR(err.text, text);
	}
}

static struct buf good_spki(const char *kind)
{
	OWN(EVP_PKEY) key = pki_key(kind);
	struct buf der = { 0 };
	struct err err = { 0 };

	CHECK_CODE(key_public_der(key, &der, &err), CODE_OK);
	return der;
}

#define PART(bytes) (bytes), sizeof(bytes) - 1

TEST(subjects_are_checked)
{
	OWN_BUF spki = good_spki("P-256");
	static const struct {
		const char *text, *subject;
		size_t len;
	} cases[] = {
		{ NULL, PART("\x30\x00") },
		{ NULL, PART("\x30\x02\x31\x00") },
		{ "asn1: structure error: tags don't match (16 vs {class:0 tag:17 length:0 isCompound:true}) "
		  "RDNSequence",
		  PART("\x31\x00") },
		{ "asn1: structure error: sequence tag mismatch", PART("\x30\x02\x30\x00") },
		{ "asn1: syntax error: sequence truncated", PART("\x30\x04\x31\x02\x30\x00") },
		{ "asn1: syntax error: zero length OBJECT IDENTIFIER",
		  PART("\x30\x08\x31\x06\x30\x04\x06\x00\x05\x00") },
		{ NULL, PART("\x30\x0b\x31\x09\x30\x07\x06\x03\x55\x04\x03\x0c\x00") },
		{ "asn1: invalid UTF-8 string", PART("\x30\x0c\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x0c\x01\xff") },
		{ "asn1: syntax error: PrintableString contains invalid character",
		  PART("\x30\x0c\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x13\x01@") },
		{ "asn1: syntax error: NumericString contains invalid character",
		  PART("\x30\x0c\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x12\x01x") },
		{ "asn1: syntax error: IA5String contains invalid character",
		  PART("\x30\x0c\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x16\x01\x80") },
		{ "invalid BMPString", PART("\x30\x0c\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x1e\x01x") },
		{ "invalid BMPString", PART("\x30\x0d\x31\x0b\x30\x09\x06\x03\x55\x04\x03\x1e\x02\xd8\x00") },
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		check_part(cases[i].text, cases[i].subject, cases[i].len, spki.data, spki.len, "", 0);
}

TEST(keys_are_checked)
{
	OWN_BUF ec = good_spki("P-256"), p384 = good_spki("P-384"), rsa = good_spki("RSA-2048"),
		ed = good_spki("ED25519");

	ec.data[ec.len - 1] ^= 1;
	check_part("P256 point not on curve", PART("\x30\x00"), ec.data, ec.len, "", 0);
	ec.data[ec.len - 65] = 2; /* compressed */
	check_part("ecdsa: invalid uncompressed public key", PART("\x30\x00"), ec.data, ec.len, "", 0);
	ec.data[22] ^= 0x40;
	check_part("x509: unsupported elliptic curve", PART("\x30\x00"), ec.data, ec.len, "", 0);
	p384.data[p384.len - 1] ^= 1;
	check_part("P384 point not on curve", PART("\x30\x00"), p384.data, p384.len, "", 0);
	rsa.data[17] = 0x04; /* NULL becomes an OCTET STRING */
	check_part("x509: RSA key missing NULL parameters", PART("\x30\x00"), rsa.data, rsa.len, "", 0);
	check_part("x509: unsupported public key algorithm", PART("\x30\x00"),
		   PART("\x30\x0a\x30\x04\x06\x02\x2a\x03\x03\x02\x00\x01"), "", 0);
	check_part("asn1: syntax error: zero length BIT STRING", PART("\x30\x00"),
		   PART("\x30\x08\x30\x04\x06\x02\x2a\x03\x03\x00"), "", 0);
	check_part("asn1: syntax error: invalid padding bits in BIT STRING", PART("\x30\x00"),
		   PART("\x30\x0a\x30\x04\x06\x02\x2a\x03\x03\x02\x08\x00"), "", 0);
	check_part(NULL, PART("\x30\x00"), ed.data, ed.len, "", 0);
}

/* A key with its parts in another encoding is taken, and comes out in the usual one. */
TEST(keys_become_canonical)
{
	static const char *const canonical_kinds[] = { "P-256", "RSA-2048" };

	for (size_t i = 0; i < 2; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		OWN_BUF usual = good_spki(canonical_kinds[i]), der = { 0 };
		uint8_t *start = malloc(1000);
		struct der_out writer = { start, start + 1000 };
		const uint8_t *end = writer.at;
		struct der_item spki;
		struct span in = { usual.data, usual.len };
		struct csr csr;
		struct err err = { 0 };

		CHECK_CODE(der_expect(&in, DER_SEQUENCE, "", &spki, &err), CODE_OK);
		der_put(&writer, "\x05\x00", 2); /* one element more */
		der_put(&writer, spki.content.data, spki.content.len);
		der_head(&writer, DER_SEQUENCE, end);
		build(&der, PART("\x30\x00"), writer.at, (size_t)(end - writer.at), "", 0);
		CHECK_CODE(csr_parse(der.data, der.len, arena, &csr, &err), CODE_OK);
		CHECK_NUM(csr.spki.len, usual.len);
		CHECK_BYTES(csr.spki.data, usual.data, usual.len);
		free(start);
	}
}

/* [0] { extensionRequest { SET { extensions } } } around the extensions. */
static void check_extensions(const char *text, const void *extensions, size_t len)
{
	static const uint8_t oid[] = { 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e };
	OWN_BUF spki = good_spki("P-256");
	uint8_t *start = malloc(len + 64);
	struct der_out writer = { start, start + len + 64 };
	const uint8_t *end = writer.at;

	der_put_tlv(&writer, DER_SEQUENCE, extensions, len);
	der_head(&writer, DER_SET, end);
	der_put(&writer, oid, sizeof oid);
	der_head(&writer, DER_SEQUENCE, end);
	check_part(text, PART("\x30\x00"), spki.data, spki.len, writer.at, (size_t)(end - writer.at));
	free(start);
}

static void check_san(const char *text, const void *names, size_t len)
{
	static const uint8_t oid[] = { 0x06, 0x03, 0x55, 0x1d, 0x11 };
	uint8_t *start = malloc(len + 64);
	struct der_out writer = { start, start + len + 64 };
	const uint8_t *end = writer.at;

	der_put(&writer, names, len);
	der_head(&writer, DER_OCTET_STRING, end);
	der_put(&writer, oid, sizeof oid);
	der_head(&writer, DER_SEQUENCE, end);
	check_extensions(text, writer.at, (size_t)(end - writer.at));
	free(start);
}

TEST(names_are_checked)
{
	check_san(NULL, PART("\x30\x00"));
	check_san("x509: invalid subject alternative names", PART("\x31\x00"));
	check_san("x509: invalid subject alternative name", PART("\x30\x02\x86\x05"));
	check_san("x509: SAN dNSName is malformed", PART("\x30\x03\x82\x01\x80"));
	check_san("x509: SAN dNSName is malformed", PART("\x30\x0a\x82\x08"
							 "a.org\0.b"));
	check_san("x509: SAN rfc822Name is malformed", PART("\x30\x03\x81\x01\xff"));
	check_san("x509: SAN uniformResourceIdentifier is malformed", PART("\x30\x03\x86\x01\xff"));
	check_san("x509: cannot parse URI \"a\\x00\": parse \"a\\x00\": net/url: invalid control character in URL",
		  PART("\x30\x04\x86\x02"
		       "a\0"));
	check_san("x509: cannot parse IP address of length 3", PART("\x30\x05\x87\x03"
								    "abc"));
	check_san(NULL, PART("\x30\x06\x87\x04"
			     "abcd"));
}

TEST(extensions_are_checked)
{
	OWN_BUF many = { 0 }, names = { 0 };
	static const uint8_t one[] = { 0x30, 0x06, 0x06, 0x02, 0x2a, 0x03, 0x04, 0x00 };

	check_extensions(NULL, one, sizeof one);
	check_extensions(NULL, PART("\x30\x09\x06\x02\x2a\x03\x01\x01\xff\x04\x00"));
	check_extensions("asn1: syntax error: invalid boolean", PART("\x30\x09\x06\x02\x2a\x03\x01\x01\x01\x04\x00"));
	check_extensions("asn1: structure error: sequence tag mismatch", PART("\x31\x00"));
	check_extensions("asn1: syntax error: sequence truncated", PART("\x30\x00"));
	buf_append(&many, one, sizeof one);
	buf_append(&many, one, sizeof one);
	check_extensions("x509: certificate request contains duplicate requested extensions", many.data, many.len);
	many.len = 0;
	for (int i = 0; i < 300; i++) {
		uint8_t next[] = { 0x30, 0x07, 0x06, 0x03, 0x2a, (uint8_t)(0x81 + i / 128), (uint8_t)(i % 128),
				   0x04, 0x00 };

		buf_append(&many, next, sizeof next);
	}
	check_extensions("x509: certificate request contains more than 256 extensions", many.data, many.len);

	buf_append(&names, "\x30\x83\x00\x00\x00", 5);
	for (int i = 0; i < 40000; i++)
		buf_append(&names, "\x82\x00", 2);
	names.data[2] = (uint8_t)(80000 >> 16);
	names.data[3] = (uint8_t)(80000 >> 8);
	names.data[4] = (uint8_t)80000;
	check_san("x509: more than 16384 subject alternative names", names.data, names.len);
}

TEST(attributes_that_cannot_be_read_are_passed_over)
{
	OWN_BUF spki = good_spki("P-256");

	check_part(NULL, PART("\x30\x00"), spki.data, spki.len, PART("\x05\x00"));
	check_part(NULL, PART("\x30\x00"), spki.data, spki.len,
		   PART("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e\x31\x00"));
	check_part("asn1: syntax error: data truncated", PART("\x30\x00"), spki.data, spki.len, PART("\x05\x01"));
}
