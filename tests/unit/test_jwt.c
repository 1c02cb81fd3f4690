/* SPDX-License-Identifier: Apache-2.0 */
/* JWT-SVIDs: their bytes, and that their signatures verify. */
#include "base/arena.h"
#include "ca/jwt.h"
#include "ca/key.h"
#include "lib/pki.h"
#include "lib/test.h"

#include <openssl/ec.h>
#include <openssl/evp.h>

#include <ctype.h>
#include <stdlib.h>

OWNABLE_STRUCT(jwt_authority, jwt_authority_free)

static const int64_t now_s = 1800000000;

static struct jwt_authority *authority_new(const char *kind)
{
	struct jwt_authority *authority;
	struct err err = { 0 };

	CHECK_CODE(jwt_authority_new(pki_key(kind), "kid1", now_s + 86400, &authority, &err), CODE_OK);
	return authority;
}

/* Part number `n` of a token, decoded. */
static void part_of(const char *token, int n, struct buf *out)
{
	for (; n > 0; n--)
		token = strchr(token, '.') + 1;
	assert_int_equal(buf_unbase64(out, token, strcspn(token, "."), 1), 1);
}

static void check_part(const char *token, int n, const char *wanted)
{
	OWN_BUF part = { 0 };

	part_of(token, n, &part);
	CHECK_STR(buf_text(&part), wanted);
}

static void check_signature(const struct jwt_authority *authority, const char *token, const EVP_MD *md, size_t half)
{
	OWN_BUF signature = { 0 };
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	unsigned char *der = NULL;
	int len;

	part_of(token, 2, &signature);
	if (half > 0) {
		ECDSA_SIG *sig = ECDSA_SIG_new();

		CHECK_NUM(signature.len, 2 * half);
		ECDSA_SIG_set0(sig, BN_bin2bn(signature.data, (int)half, NULL),
			       BN_bin2bn(signature.data + half, (int)half, NULL));
		len = i2d_ECDSA_SIG(sig, &der);
		ECDSA_SIG_free(sig);
	} else {
		len = (int)signature.len;
		der = OPENSSL_memdup(signature.data, signature.len);
	}
	CHECK_NUM(EVP_DigestVerifyInit(ctx, NULL, md, NULL, authority->key), 1);
	CHECK_NUM(EVP_DigestVerify(ctx, der, (size_t)len, (const unsigned char *)token,
				   (size_t)(strrchr(token, '.') - token)),
		  1);
	OPENSSL_free(der);
	EVP_MD_CTX_free(ctx);
}

TEST(tokens_of_all_key_types)
{
	static const struct {
		const char *kind, *header, *md;
		size_t half;
	} cases[] = {
		{ "P-256", "{\"alg\":\"ES256\",\"kid\":\"kid1\",\"typ\":\"JWT\"}", "SHA256", 32 },
		{ "P-384", "{\"alg\":\"ES384\",\"kid\":\"kid1\",\"typ\":\"JWT\"}", "SHA384", 48 },
		{ "RSA-2048", "{\"alg\":\"RS256\",\"kid\":\"kid1\",\"typ\":\"JWT\"}", "SHA256", 0 },
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		OWN_STRUCT(jwt_authority) authority = authority_new(cases[i].kind);
		struct jwt_request request = { .spiffe_id = "spiffe://example.org/w",
					       .audience = (const char *const[]){ "b", "", "a" },
					       .n_audience = 3,
					       .ttl_s = 300,
					       .now_s = now_s };

		for (int round = 0; round < 300; round++) { /* short r and s occur once in 256 */
			struct jwt_svid svid;
			struct err err = { 0 };

			CHECK_CODE(jwt_issue(authority, &request, arena, &svid, &err), CODE_OK);
			CHECK_NUM(svid.issued_at_s, now_s);
			CHECK_NUM(svid.expires_at_s, now_s + 300);
			check_part(svid.token, 0, cases[i].header);
			check_part(svid.token, 1,
				   "{\"aud\":[\"b\",\"a\"],\"exp\":1800000300,\"iat\":1800000000,\"sub\":\"spiffe://"
				   "example.org/w\"}");
			check_signature(authority, svid.token, EVP_get_digestbyname(cases[i].md), cases[i].half);
			if (cases[i].half == 0)
				break;
		}
	}
}

static const char *claims_of(struct jwt_request request, struct arena *arena)
{
	OWN_STRUCT(jwt_authority) authority = authority_new("P-256");
	OWN_BUF claims = { 0 };
	struct jwt_svid svid;
	struct err err = { 0 };

	request.spiffe_id = "spiffe://td/w";
	request.now_s = now_s;
	request.ttl_s = 60;
	CHECK_CODE(jwt_issue(authority, &request, arena, &svid, &err), CODE_OK);
	part_of(svid.token, 1, &claims);
	return arena_strdup(arena, buf_text(&claims));
}

TEST(strings_are_written_as_go_does)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct jwt_request request = {
		.audience = (const char *const[]){ "<a>&\"\\", "\b\f\n\r\t\x01\x1f\x7f",
						   "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xe2\x80\xa8\xe2\x80\xa9",
						   "a\xff\xc3", "\xed\xa0\x80", "\xc0\xaf" },
		.n_audience = 7,
	};

	CHECK_STR(claims_of(request, arena),
		  "{\"aud\":[\"\\u003ca\\u003e\\u0026\\\"\\\\\",\"\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\","
		  "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\","
		  "\"\\u2028\\u2029\",\"a\\ufffd\\ufffd\",\"\\ufffd\\ufffd\\ufffd\",\"\\ufffd\\ufffd\"],"
		  "\"exp\":1800000060,\"iat\":1800000000,\"sub\":\"spiffe://td/w\"}");
}

TEST(issuer_and_jti)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct jwt_request request = { .audience = (const char *const[]){ "a" },
				       .n_audience = 1,
				       .issuer = "https://i" };
	const char *first, *second, *at;
	OWN_BUF uuid = { 0 };

	CHECK_STR(claims_of(request, arena), "{\"aud\":[\"a\"],\"exp\":1800000060,\"iat\":1800000000,\"iss\":\"https://"
					     "i\",\"sub\":\"spiffe://td/w\"}");
	request.jti = true;
	first = claims_of(request, arena);
	second = claims_of(request, arena);
	at = strstr(first, ",\"iss\":\"https://i\",\"jti\":\"");
	assert_non_null(at);
	at = strstr(at, "jti") + 6;
	CHECK(strcmp(first, second) != 0);
	CHECK_NUM(strcspn(at, "\""), 22);
	assert_int_equal(buf_unbase64(&uuid, at, 22, 1), 1);
	CHECK_NUM(uuid.data[6] & 0xf0, 0x40);
	CHECK_NUM(uuid.data[8] & 0xc0, 0x80);
	CHECK_STR(at + 22, "\",\"sub\":\"spiffe://td/w\"}");
}

TEST(what_cannot_be_issued)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(jwt_authority) authority = authority_new("P-256");
	struct jwt_request request = { .spiffe_id = "spiffe://td/w", .ttl_s = 60, .now_s = now_s };
	struct jwt_svid svid;
	struct err err = { 0 };

	CHECK_CODE(jwt_issue(NULL, &request, arena, &svid, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "JWT key is not available for signing");
	CHECK_CODE(jwt_issue(authority, &request, arena, &svid, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "invalid JWT-SVID audience: cannot be empty");
	request.audience = (const char *const[]){ "", "" };
	request.n_audience = 2;
	CHECK_CODE(jwt_issue(authority, &request, arena, &svid, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "invalid JWT-SVID audience: cannot be empty");
	request.audience = (const char *const[]){ "a" };
	request.n_audience = 1;
	request.now_s = now_s + 86400;
	CHECK_CODE(jwt_issue(authority, &request, arena, &svid, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "invalid JWT-SVID \"exp\" claim: already expired as of 2027-01-16T08:00:00Z");
	request.now_s = now_s + 86399;
	CHECK_CODE(jwt_issue(authority, &request, arena, &svid, &err), CODE_OK);
	CHECK_NUM(svid.expires_at_s, now_s + 86400); /* the key's end */
}

TEST(copies_sign_the_same_way)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(jwt_authority) authority = authority_new("P-384");
	OWN_STRUCT(jwt_authority) copy = jwt_authority_copy(authority);
	struct jwt_request request = { .spiffe_id = "spiffe://td/w",
				       .audience = (const char *const[]){ "a" },
				       .n_audience = 1,
				       .ttl_s = 60,
				       .now_s = now_s };
	struct jwt_svid svid;
	struct err err = { 0 };

	CHECK_CODE(jwt_issue(copy, &request, arena, &svid, &err), CODE_OK);
	check_signature(authority, svid.token, EVP_sha384(), 48);
	CHECK(jwt_authority_copy(NULL) == NULL);
}

TEST(key_ids_are_32_letters_and_digits)
{
	char first[33], second[33];

	jwt_new_kid(first);
	jwt_new_kid(second);
	CHECK_NUM(strlen(first), 32);
	for (int i = 0; i < 32; i++)
		CHECK(isalnum((unsigned char)first[i]));
	CHECK(strcmp(first, second) != 0);
}
