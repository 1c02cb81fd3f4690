/* SPDX-License-Identifier: Apache-2.0 */
/* The bundle document and PEM: the texts are those of spire-server 1.13.3 for the same input (`bundle set -format
 * spiffe`). */
#include "api/jwks.h"
#include "api/pem.h"

#include "lib/test.h"

#include <stdlib.h>

#define CERT1                                                                                                          \
	"MIIB5zCCAY2gAwIBAgIUBpC++Tz/nZ3w7T89h4TDvMxfcxcwCgYIKoZIzj0EAwIwLjELMAkGA1UEBhMCVVMxDTALBgNVBAoMBFRl"         \
	"c3QxEDAOBgNVBAMMB2RvbWFpbjEwIBcNMjYxMTI0MTEyMjIwWhgPMjEyNjEwMzExMTIyMjBaMC4xCzAJBgNVBAYTAlVTMQ0wCwYD"         \
	"VQQKDARUZXN0MRAwDgYDVQQDDAdkb21haW4xMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE4ngzp0fjNA8Ei0afxPvLGu18KSjU"         \
	"5jmbYO5zIignlK9t8PS0PlJgIYblnjP65ch+In03jL/jDZuSnqVNYey6lKOBhjCBgzAdBgNVHQ4EFgQUF5gxG2HBOeKa+er8Q3fu"         \
	"3pZa8NYwHwYDVR0jBBgwFoAUF5gxG2HBOeKa+er8Q3fu3pZa8NYwIAYDVR0RBBkwF4YVc3BpZmZlOi8vZG9tYWluMS50ZXN0MA8G"         \
	"A1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgEGMAoGCCqGSM49BAMCA0gAMEUCIQDa8m8GN+KqonA+x0b7EqUUjYdFARKDXfFj"         \
	"RdK3kfcG3AIgHOnbSFkWqTIzORqEbyr2knqktO9687pcI8Y2Va4ZIhM="
#define CERT2                                                                                                          \
	"MIIB5jCCAY2gAwIBAgIUKNFkATTSA563Jmu4Bm0T22vgvKIwCgYIKoZIzj0EAwIwLjELMAkGA1UEBhMCVVMxDTALBgNVBAoMBFRl"         \
	"c3QxEDAOBgNVBAMMB2RvbWFpbjIwIBcNMjYxMTI0MTEyMjIwWhgPMjEyNjEwMzExMTIyMjBaMC4xCzAJBgNVBAYTAlVTMQ0wCwYD"         \
	"VQQKDARUZXN0MRAwDgYDVQQDDAdkb21haW4yMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAETeKnCHtnhk8r4L4H1AV2EUgasg44"         \
	"cTNXU+32UK3DAODwjZgV60YV+4E9G0IxMq9HouOfbkdUs8xDGw6woYnwraOBhjCBgzAdBgNVHQ4EFgQUgeGSh1xJt7k7NHhh8mk0"         \
	"1FpD9EQwHwYDVR0jBBgwFoAUgeGSh1xJt7k7NHhh8mk01FpD9EQwIAYDVR0RBBkwF4YVc3BpZmZlOi8vZG9tYWluMi50ZXN0MA8G"         \
	"A1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgEGMAoGCCqGSM49BAMCA0cAMEQCIAE6/ZnKnWphp2BMi9vC1o+hnr9iXoykKIgg"         \
	"O/DET5VjAiA+ttiYJrP79fI+2XTWrJUh1+7NLbWnd3pc2tsPTGfaYg=="
#define X2 "TeKnCHtnhk8r4L4H1AV2EUgasg44cTNXU-32UK3DAOA"
#define Y2 "8I2YFetGFfuBPRtCMTKvR6Ljn25HVLPMQxsOsKGJ8K0"
#define XJ "8c5AzQRLPZZcrRbCaf3vIYs_gLOngdG0UPmtx5nQR5w"
#define YJ "MNEVFcm1ZYNbBEeoPk1pp-YdrWI6-KSBYKK7fh8CWmE"
#define EC "\"kty\":\"EC\",\"crv\":\"P-256\","
#define X509 EC "\"x\":\"" X2 "\",\"y\":\"" Y2 "\",\"use\":\"x509-svid\",\"x5c\":[\"" CERT2 "\"]"
#define JWT EC "\"x\":\"" XJ "\",\"y\":\"" YJ "\",\"use\":\"jwt-svid\",\"kid\":\"key-1\""
#define ED "\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE\""
#define RSA "\"kty\":\"RSA\",\"n\":\"wcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHB\",\"e\":\"AQAB\""
#define DOC(keys) "{\"keys\":[" keys "]}"

static enum code read_as(enum jwks_rules rules, const char *text, struct arena *arena, Pb__Bundle **out,
			 struct err *err)
{
	return jwks_read(text, strlen(text), rules, "domain2.test", arena, out, err);
}

TEST(a_document_becomes_a_bundle_and_back)
{
	static const char want[] =
		"{\n    \"keys\": [\n        {\n            \"use\": \"x509-svid\",\n            \"kty\": \"EC\",\n"
		"            \"crv\": \"P-256\",\n            \"x\": \"" X2 "\",\n            \"y\": \"" Y2 "\",\n"
		"            \"x5c\": [\n                \"" CERT2 "\"\n            ]\n        },\n        {\n"
		"            \"use\": \"jwt-svid\",\n            \"kty\": \"EC\",\n            \"kid\": \"key-1\",\n"
		"            \"crv\": \"P-256\",\n            \"x\": \"" XJ "\",\n            \"y\": \"" YJ
		"\"\n        }\n"
		"    ],\n    \"spiffe_sequence\": 7,\n    \"spiffe_refresh_hint\": 600\n}";
	OWN_STRUCT(arena) arena = arena_new();
	OWN_BUF out = { 0 };
	struct err err = { 0 };
	Pb__Bundle *bundle;

	CHECK_CODE(read_as(JWKS_GO_SPIFFE, want, arena, &bundle, &err), CODE_OK);
	CHECK_STR(bundle->trust_domain, "domain2.test");
	CHECK_NUM(bundle->n_x509_authorities, 1);
	CHECK_NUM(bundle->n_jwt_authorities, 1);
	CHECK_STR(bundle->jwt_authorities[0]->key_id, "key-1");
	CHECK_NUM(bundle->jwt_authorities[0]->expires_at, 0);
	CHECK_NUM(bundle->sequence_number, 7);
	CHECK_NUM(bundle->refresh_hint, 600);
	CHECK_CODE(jwks_write(bundle, JWKS_GO_SPIFFE, &out, &err), CODE_OK);
	CHECK_STR(buf_text(&out), want);
	CHECK_CODE(read_as(JWKS_SPIRE, want, arena, &bundle, &err), CODE_OK);
	CHECK_NUM(bundle->sequence_number, 0); /* a server counts by itself */
	CHECK_NUM(bundle->refresh_hint, 600);
}

TEST(keys_of_every_type_come_back_as_they_were)
{
	static const char *const keys[] = {
		"\"use\": \"jwt-svid\",\n            \"kty\": \"OKP\",\n            \"kid\": \"a\",\n            "
		"\"crv\": \"Ed25519\",\n"
		"            \"x\": \"YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE\"",
		"\"use\": \"jwt-svid\",\n            \"kty\": \"RSA\",\n            \"kid\": \"a\\u003cb\",\n"
		"            \"n\": \"wcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHB\",\n            \"e\": \"AQAB\"",
		"\"use\": \"jwt-svid\",\n            \"kty\": \"EC\",\n            \"kid\": \"p\",\n            "
		"\"crv\": \"P-384\",\n"
		"            \"x\": \"jFYsFwHiF8UTJiAIoOIQOBK_HZ0L_pA7VeUWa9jghLRSQ1KacYnGeV8H-bE32jBj\",\n"
		"            \"y\": \"SedzZCT8ydiqbUNd8rHFRyzEvYaX7OF4bhhCvTj9hIRDCWccPj_Y29m4A_bvLKWQ\"",
	};
	OWN_STRUCT(arena) arena = arena_new();
	struct err err = { 0 };

	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
		OWN_BUF out = { 0 };
		const char *doc = arena_printf(
			arena, "{\n    \"keys\": [\n        {\n            %s\n        }\n    ]\n}", keys[i]);
		Pb__Bundle *bundle;

		CHECK_CODE(read_as(JWKS_SPIRE, doc, arena, &bundle, &err), CODE_OK);
		CHECK_CODE(jwks_write(bundle, JWKS_SPIRE, &out, &err), CODE_OK);
		CHECK_STR(buf_text(&out), doc);
	}
}

TEST(an_empty_bundle_has_no_keys)
{
	OWN_STRUCT(arena) arena = arena_new();
	Pb__Bundle bundle = PB__BUNDLE__INIT, *read;
	struct err err = { 0 };
	OWN_BUF cli = { 0 };
	OWN_BUF endpoint = { 0 };

	CHECK_CODE(jwks_write(&bundle, JWKS_GO_SPIFFE, &cli, &err), CODE_OK);
	CHECK_STR(buf_text(&cli), "{\n    \"keys\": null\n}");
	CHECK_CODE(jwks_write(&bundle, JWKS_SPIRE, &endpoint, &err), CODE_OK);
	CHECK_STR(buf_text(&endpoint), "{\n    \"keys\": []\n}");
	CHECK_CODE(read_as(JWKS_GO_SPIFFE, "{\"Keys\":[]}", arena, &read, &err), CODE_OK);
	CHECK_CODE(read_as(JWKS_SPIRE, "{\"spiffe_refresh_hint\":5,\"other\":{}}", arena, &read, &err), CODE_OK);
	CHECK_NUM(read->refresh_hint, 5);
}

TEST(a_bundle_that_cannot_be_written_says_so)
{
	Pb__X509Certificate cert = PB__X509_CERTIFICATE__INIT, *certs[] = { &cert };
	Pb__JWTKey key = PB__JWTKEY__INIT, *jwts[] = { &key };
	Pb__Bundle bundle = PB__BUNDLE__INIT;
	struct err err = { 0 };
	OWN_BUF out = { 0 };

	bundle.jwt_authorities = jwts;
	bundle.n_jwt_authorities = 1;
	key.key_id = "k";
	CHECK_CODE(jwks_write(&bundle, JWKS_SPIRE, &out, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "unable to parse JWT signing key 'k'");
	bundle.x509_authorities = certs;
	bundle.n_x509_authorities = 1;
	cert.asn1.data = (uint8_t *)"0";
	cert.asn1.len = 1;
	CHECK_CODE(jwks_write(&bundle, JWKS_SPIRE, &out, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "unable to parse root CA 0: x509: malformed certificate");
}

TEST(what_the_commands_refuse)
{
	static const struct {
		const char *doc, *text;
	} cases[] = {
		{ "", "unable to parse JWKS: unexpected end of JSON input" },
		{ "-----BEGIN", "unable to parse JWKS: invalid character '-' in numeric literal" },
		{ "[]",
		  "unable to parse JWKS: json: cannot unmarshal array into Go value of type spiffebundle.bundleDoc" },
		{ "{}", "no authorities found" },
		{ "null", "no authorities found" },
		{ "{\"keys\":null}", "no authorities found" },
		{ "{\"keys\":1}", "unable to parse JWKS: json: cannot unmarshal number into Go struct field "
				  "bundleDoc.JSONWebKeySet.keys of type []jose.JSONWebKey" },
		{ DOC("1"),
		  "unable to parse JWKS: json: cannot unmarshal number into Go value of type jose.rawJSONWebKey" },
		{ DOC("null"), "unable to parse JWKS: go-jose/go-jose: missing json web key type" },
		{ DOC("{}"), "unable to parse JWKS: go-jose/go-jose: missing json web key type" },
		{ DOC("{\"kty\":\"foo\"}"), "unable to parse JWKS: go-jose/go-jose: unsupported key type/format" },
		{ DOC("{\"kty\":5}"),
		  "unable to parse JWKS: json: cannot unmarshal number into Go value of type string" },
		{ DOC("{\"kty\":\"EC\",\"kty\":\"EC\"}"), "unable to parse JWKS: json: duplicate key 'kty' in object" },
		{ DOC("{\"kty\":\"EC\"}"), "unable to parse JWKS: go-jose/go-jose: unsupported elliptic curve ''" },
		{ DOC("{" EC "\"x\":\"" XJ "\"}"),
		  "unable to parse JWKS: go-jose/go-jose: invalid EC key, missing x/y values" },
		{ DOC("{" EC "\"x\":\"AQAB\",\"y\":\"" YJ "\"}"),
		  "unable to parse JWKS: go-jose/go-jose: invalid EC public key, wrong length for x" },
		{ DOC("{" EC "\"x\":\"" XJ "\",\"y\":\"AQAB\"}"),
		  "unable to parse JWKS: go-jose/go-jose: invalid EC public key, wrong length for y" },
		{ DOC("{" EC "\"x\":\"" X2 "\",\"y\":\"" YJ "\"}"),
		  "unable to parse JWKS: go-jose/go-jose: invalid EC key, X/Y are not on declared curve" },
		{ DOC("{" EC "\"x\":\"" XJ "=\",\"y\":\"" YJ "\"}"),
		  "unable to parse JWKS: illegal base64 data at input byte 43" },
		{ DOC("{" EC "\"x\":\"a/b\",\"y\":\"" YJ "\"}"),
		  "unable to parse JWKS: illegal base64 data at input byte 1" },
		{ DOC("{" EC "\"x\":\"a\\u0000\",\"y\":\"" YJ "\"}"), "unable to parse JWKS: a string holds a NUL" },
		{ DOC("{\"kty\":\"RSA\",\"n\":\"AQAB\"}"),
		  "unable to parse JWKS: go-jose/go-jose: invalid RSA key, missing n/e values" },
		{ DOC("{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AAAAAAAAAAAAAAAA\"}"),
		  "unable to parse JWKS: RSA key is too large" },
		{ DOC("{\"kty\":\"OKP\",\"crv\":\"X25519\"}"),
		  "unable to parse JWKS: go-jose/go-jose: unsupported key type/format" },
		{ DOC("{\"kty\":\"OKP\",\"crv\":\"Ed25519\"}"),
		  "unable to parse JWKS: go-jose/go-jose: invalid Ed key, missing x value" },
		{ DOC("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AQAB\"}"),
		  "unable to parse JWKS: go-jose/go-jose: invalid Ed key" },
		{ DOC("{\"kty\":\"oct\"}"),
		  "unable to parse JWKS: go-jose/go-jose: invalid OCT (symmetric) key, missing k value" },
		{ DOC("{" JWT ",\"d\":\"AQAB\"}"), "unable to parse JWKS: a key of the bundle is a private key" },
		{ DOC("{" JWT ",\"x5c\":[\"AAAA\"]}"),
		  "unable to parse JWKS: go-jose/go-jose: failed to unmarshal x5c field: x509: malformed certificate" },
		{ DOC("{" JWT ",\"x5c\":[\"!!\"]}"), "unable to parse JWKS: go-jose/go-jose: failed to unmarshal x5c "
						     "field: illegal base64 data at input byte 0" },
		{ DOC("{" JWT ",\"x5c\":[1]}"),
		  "unable to parse JWKS: json: cannot unmarshal number into Go value of type string" },
		{ DOC("{" JWT ",\"x5c\":\"a\"}"),
		  "unable to parse JWKS: json: cannot unmarshal string into Go value of type []string" },
		{ DOC("{" JWT ",\"x5c\":[\"" CERT2 "\"]}"), "unable to parse JWKS: go-jose/go-jose: invalid JWK, "
							    "public keys in key and x5c fields do not match" },
		{ DOC("{" EC "\"x\":\"" X2 "\",\"y\":\"" Y2 "\",\"use\":\"x509-svid\"}"),
		  "expected a single certificate in x509-svid entry 0; got 0" },
		{ DOC("{" EC "\"x\":\"" X2 "\",\"y\":\"" Y2 "\",\"use\":\"x509-svid\",\"x5c\":[\"" CERT2 "\",\"" CERT1
		      "\"]}"),
		  "expected a single certificate in x509-svid entry 0; got 2" },
		{ DOC("{" X509 "},{" EC "\"x\":\"" XJ "\",\"y\":\"" YJ "\",\"use\":\"jwt-svid\",\"kid\":\"\"}"),
		  "error adding authority 1 of JWKS: keyID cannot be empty" },
		{ DOC("{\"kty\":\"oct\",\"k\":\"AQAB\",\"use\":\"jwt-svid\",\"kid\":\"o\"}"),
		  "x509: unsupported public key type: []uint8" },
		{ "{\"keys\":[],\"spiffe_sequence\":\"7\"}",
		  "unable to parse JWKS: json: cannot unmarshal string into Go struct field bundleDoc.spiffe_sequence "
		  "of type uint64" },
		{ "{\"keys\":[],\"spiffe_sequence\":-7}", "unable to parse JWKS: json: cannot unmarshal number -7 into "
							  "Go struct field bundleDoc.spiffe_sequence of type uint64" },
		{ "{\"keys\":[],\"spiffe_refresh_hint\":1.5}",
		  "unable to parse JWKS: json: cannot unmarshal number 1.5 into Go struct "
		  "field bundleDoc.spiffe_refresh_hint of type int64" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		struct err err = { 0 };
		Pb__Bundle *bundle;

		CHECK_CODE(read_as(JWKS_GO_SPIFFE, cases[i].doc, arena, &bundle, &err), CODE_INVALID_ARGUMENT);
		CHECK_STR(err.text, cases[i].text);
	}
}

TEST(entries_of_another_use)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct err err = { 0 };
	Pb__Bundle *bundle;

	CHECK_CODE(read_as(JWKS_GO_SPIFFE, DOC("{" ED ",\"use\":\"sig\"},{" RSA "},{" JWT "}"), arena, &bundle, &err),
		   CODE_OK);
	CHECK_NUM(bundle->n_jwt_authorities, 1);
	CHECK_CODE(read_as(JWKS_SPIRE, DOC("{" JWT "},{" ED "}"), arena, &bundle, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "missing use for key entry 1");
	CHECK_CODE(read_as(JWKS_SPIRE, DOC("{" RSA ",\"use\":\"s\\\"g\"}"), arena, &bundle, &err),
		   CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "unrecognized use \"s\\\"g\" for key entry 0");
	CHECK_CODE(read_as(JWKS_SPIRE, DOC("{" ED ",\"use\":\"jwt-svid\"}"), arena, &bundle, &err),
		   CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "missing key ID in jwt-svid entry 0");
	CHECK_CODE(read_as(JWKS_SPIRE, "[", arena, &bundle, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "failed to decode bundle: unexpected end of JSON input");
	CHECK_CODE(read_as(JWKS_SPIRE, DOC("{}"), arena, &bundle, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "failed to decode bundle: go-jose/go-jose: missing json web key type");
}

TEST(the_same_entry_twice_counts_once)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct err err = { 0 };
	Pb__Bundle *bundle;

	CHECK_CODE(read_as(JWKS_SPIRE,
			   DOC("{" X509 "},{" JWT "},{" X509 "},{" RSA ",\"use\":\"jwt-svid\",\"kid\":\"key-1\"}"),
			   arena, &bundle, &err),
		   CODE_OK);
	CHECK_NUM(bundle->n_x509_authorities, 1);
	CHECK_NUM(bundle->n_jwt_authorities, 1);
	CHECK(bundle->jwt_authorities[0]->public_key.len < 80); /* the RSA key here, not the point */
}

TEST(a_document_cut_anywhere_is_refused)
{
	static const char doc[] = DOC("{" X509 "},{" JWT "}");
	struct err err = { 0 };

	for (size_t len = 0; len < sizeof doc - 1; len++) {
		OWN_STRUCT(arena) arena = arena_new();
		char *copy = malloc(len == 0 ? 1 : len);
		Pb__Bundle *bundle;

		memcpy(copy, doc, len);
		CHECK_CODE(jwks_read(copy, len, JWKS_SPIRE, "td", arena, &bundle, &err), CODE_INVALID_ARGUMENT);
		free(copy);
	}
}

/* One byte changed anywhere: an answer, and what is taken can be written again. */
TEST(a_document_bent_anywhere)
{
	static const char doc[] = DOC("{" X509 "},{" JWT "},{" RSA ",\"use\":\"jwt-svid\",\"kid\":\"r\"}");
	static const char bytes[] = "\"{A\xff";

	for (size_t i = 0; i < sizeof doc - 1; i++)
		for (const char *byte = bytes; *byte != '\0'; byte++) {
			OWN_STRUCT(arena) arena = arena_new();
			char bent[sizeof doc];
			struct err err = { 0 };
			Pb__Bundle *bundle;
			OWN_BUF out = { 0 };

			memcpy(bent, doc, sizeof doc);
			bent[i] = *byte;
			if (jwks_read(bent, sizeof doc - 1, JWKS_GO_SPIFFE, "td", arena, &bundle, &err) == CODE_OK)
				CHECK_CODE(jwks_write(bundle, JWKS_GO_SPIFFE, &out, &err), CODE_OK);
		}
}

#define PEM(type, body) "-----BEGIN " type "-----\n" body "\n-----END " type "-----\n"

static const struct {
	const char *name, *text, *why; /* why: NULL when it is fine */
	size_t n;
} pems[] = {
	{ "plain", PEM("CERTIFICATE", CERT1), NULL, 1 },
	{ "two", PEM("CERTIFICATE", CERT1) PEM("CERTIFICATE", CERT2), NULL, 2 },
	{ "text around", "hello\n" PEM("CERTIFICATE", CERT1) "bye\n" PEM("CERTIFICATE", CERT1) "x", NULL, 2 },
	{ "no newline at the end", "-----BEGIN CERTIFICATE-----\n" CERT1 "\n-----END CERTIFICATE-----", NULL, 1 },
	{ "CR LF", "-----BEGIN CERTIFICATE-----\r\n" CERT1 "\r\n-----END CERTIFICATE-----\r\n", NULL, 1 },
	{ "blanks", "-----BEGIN CERTIFICATE----- \n " CERT1 "\t\n-----END CERTIFICATE-----  \n", NULL, 1 },
	{ "headers", PEM("CERTIFICATE", "A: b\nC: d\n\n" CERT1), NULL, 1 },
	{ "a bad block is passed over", PEM("CERTIFICATE", "MII!") PEM("CERTIFICATE", CERT1), NULL, 1 },
	{ "an open block at the end", PEM("CERTIFICATE", CERT1) "-----BEGIN CERTIFICATE-----\n" CERT1, NULL, 1 },
	{ "nothing", "", "no PEM blocks", 0 },
	{ "text", "no bundle at all\n", "no PEM blocks", 0 },
	{ "bad base64", PEM("CERTIFICATE", "MII!"), "no PEM blocks", 0 },
	{ "no end", "-----BEGIN CERTIFICATE-----\n" CERT1 "\n", "no PEM blocks", 0 },
	{ "other end", "-----BEGIN CERTIFICATE-----\n" CERT1 "\n-----END X509 CERTIFICATE-----\n", "no PEM blocks", 0 },
	{ "indented", "  " PEM("CERTIFICATE", CERT1), "no PEM blocks", 0 },
	{ "half a line", "-----BEGIN CERTIFICATE\n", "no PEM blocks", 0 },
	{ "key", PEM("PUBLIC KEY", "AAAA"), "expected block type \"CERTIFICATE\"; got \"PUBLIC KEY\"", 0 },
	{ "key behind", PEM("CERTIFICATE", CERT1) PEM("PUBLIC KEY", "AAAA"),
	  "expected block type \"CERTIFICATE\"; got \"PUBLIC KEY\"", 0 },
	{ "empty block", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
	  "unable to parse \"CERTIFICATE\" PEM block 1: x509: malformed certificate", 0 },
	{ "no certificate", PEM("CERTIFICATE", CERT1) PEM("CERTIFICATE", "AAAA"),
	  "unable to parse \"CERTIFICATE\" PEM block 2: x509: malformed certificate", 0 },
};

TEST(pem_is_read_as_go_reads_it)
{
	for (size_t i = 0; i < sizeof pems / sizeof pems[0]; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		struct err err = { 0 };
		struct span *certs;
		size_t n = 0;

		print_message("%s\n", pems[i].name);
		CHECK_CODE(pem_read_certs(pems[i].text, strlen(pems[i].text), arena, &certs, &n, &err),
			   pems[i].why == NULL ? CODE_OK : CODE_INVALID_ARGUMENT);
		CHECK_NUM(n, pems[i].n);
		if (pems[i].why != NULL)
			CHECK_STR(err.text, pems[i].why);
	}
}

TEST(pem_lines_have_64_characters)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_BUF text = { 0 };
	struct err err = { 0 };
	struct span *certs, *again;
	size_t n;

	CHECK_CODE(pem_read_certs(pems[0].text, strlen(pems[0].text), arena, &certs, &n, &err), CODE_OK);
	pem_write(&text, "CERTIFICATE", certs[0]);
	CHECK(strncmp(buf_text(&text),
		      "-----BEGIN CERTIFICATE-----\nMIIB5zCCAY2gAwIBAgIUBpC++Tz/nZ3w7T89h4TDvMxfcxcwCgYIKoZIzj0EAwIw\n",
		      93) == 0);
	CHECK_CODE(pem_read_certs(buf_text(&text), text.len, arena, &again, &n, &err), CODE_OK);
	CHECK_NUM(again[0].len, certs[0].len);
	CHECK_BYTES(again[0].data, certs[0].data, certs[0].len);
	CHECK_CODE(pem_check_cert((struct span){ certs[0].data, certs[0].len - 1 }, &err), CODE_INVALID_ARGUMENT);
}

TEST(a_fetched_document_may_hold_keys_for_others)
{
	static const char doc[] = "{\"keys\":[{\"use\":\"wit-svid\",\"kty\":\"EC\"},{\"kty\":\"EC\"},"
				  "{\"use\":\"x509-svid\",\"kty\":\"new\",\"x5c\":[]}],"
				  "\"spiffe_sequence\":7,\"spiffe_refresh_hint\":60}";
	static const char *const bad[][2] = {
		{ "{\"keys\":[{\"use\":\"x509-svid\",\"kty\":\"EC\"}]}", "failed to decode bundle: " },
		{ "{\"keys\":[7]}", "failed to decode bundle: " },
		{ "{\"keys\":[{\"use\":\"jwt-svid\"}]}", "failed to decode bundle: " },
		{ "<html>", "failed to decode bundle: " },
	};
	OWN_STRUCT(arena) arena = arena_new();
	struct err err = { 0 };
	Pb__Bundle *bundle;

	CHECK_CODE(jwks_read(doc, sizeof doc - 1, JWKS_FETCHED, "a.test", arena, &bundle, &err), CODE_OK);
	CHECK_NUM(bundle->n_x509_authorities + bundle->n_jwt_authorities, 0);
	CHECK_NUM(bundle->sequence_number, 7);
	CHECK_NUM(bundle->refresh_hint, 60);
	CHECK_CODE(jwks_read(doc, sizeof doc - 1, JWKS_SPIRE, "a.test", arena, &bundle, &err), CODE_INVALID_ARGUMENT);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		CHECK_CODE(jwks_read(bad[i][0], strlen(bad[i][0]), JWKS_FETCHED, "a.test", arena, &bundle, &err),
			   CODE_INVALID_ARGUMENT);
		CHECK(strncmp(err.text, bad[i][1], strlen(bad[i][1])) == 0);
	}
}
