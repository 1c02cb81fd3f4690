/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"
#include "ca/key.h"
#include "ca/x509pop.h"
#include "lib/pki.h"
#include "lib/test.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/sha.h>

#include <stdlib.h>
#include <time.h>

/* ---- an agent ---- */

struct world {
	struct arena *arena;
	EVP_PKEY *ca_key, *leaf_key;
	X509 *ca, *leaf;
	struct x509pop *pop;
	char ca_path[128];
};

/* As SPIRE's suites make them: no key usage in the CA, serial 0, valid from the year 1. */
static struct world world_new(const char *kind, const char *san)
{
	struct world w = { .arena = arena_new(), .ca_key = pki_key("P-256"), .leaf_key = pki_key(kind) };

	w.ca = pki_cert(&(struct pki_cert){ .subject = "/CN=Agent CA",
					    .key = w.ca_key,
					    .not_before = "00010101000000Z",
					    .serial = "0",
					    .constraints = "critical,CA:TRUE" });
	w.leaf = pki_cert(&(struct pki_cert){ .subject = "/O=o/CN=some common name",
					      .key = w.leaf_key,
					      .issuer = w.ca,
					      .issuer_key = w.ca_key,
					      .not_before = "00010101000000Z",
					      .serial = "0",
					      .key_usage = "critical,digitalSignature",
					      .san = san });
	snprintf(w.ca_path, sizeof w.ca_path, "%s/ca.pem", test_dir());
	pki_pem_file(w.ca_path, &w.ca, 1);
	return w;
}

static void world_open(struct world *w, struct x509pop_options options)
{
	struct err err = { 0 };

	options.trust_domain = "example.org";
	if (options.mode == NULL)
		options.ca_bundle_path = w->ca_path;
	CHECK_CODE(x509pop_open(&options, &w->pop, &err), CODE_OK);
}

static void world_done(struct world *w)
{
	x509pop_close(w->pop);
	X509_free(w->ca);
	X509_free(w->leaf);
	EVP_PKEY_free(w->ca_key);
	EVP_PKEY_free(w->leaf_key);
	arena_free(w->arena);
}

static void put_payload(struct buf *out, X509 *const *certs, size_t n)
{
	buf_puts(out, "{\"certificates\":[");
	for (size_t i = 0; i < n; i++) {
		OWN_BUF der = { 0 };

		pki_der(&der, certs[i]);
		buf_puts(out, i > 0 ? ",\"" : "\"");
		buf_base64(out, der.data, der.len, 0);
		buf_put(out, '"');
	}
	buf_puts(out, "]}");
}

static enum code begin(struct world *w, X509 *const *certs, size_t n, struct x509pop_attempt **attempt,
		       struct span *challenge, struct err *err)
{
	OWN_BUF payload = { 0 };
	struct x509pop_input input = { .now_s = time(NULL) };

	put_payload(&payload, certs, n);
	input.payload = (struct span){ payload.data, payload.len };
	return x509pop_begin(w->pop, &input, w->arena, attempt, challenge, err);
}

static enum code begin_text(struct world *w, const char *payload, struct err *err)
{
	struct x509pop_input input = { .payload = { (const uint8_t *)payload, strlen(payload) }, .now_s = time(NULL) };
	struct x509pop_attempt *attempt;
	struct span challenge;

	return x509pop_begin(w->pop, &input, w->arena, &attempt, &challenge, err);
}

static void digest_nonces(struct span challenge, const uint8_t nonce[32], uint8_t out[32])
{
	const char *at = strstr((const char *)challenge.data, "\"nonce\":\"") + 9;
	OWN_BUF both = { 0 };

	assert_int_equal(buf_unbase64(&both, at, strcspn(at, "\""), 0), 1);
	assert_int_equal(both.len, 32);
	buf_append(&both, nonce, 32);
	SHA256(both.data, both.len, out);
}

/* What a stock agent answers. `spoil`: an octet of the signature is changed. */
static void put_response(struct buf *out, EVP_PKEY *key, struct span challenge, int spoil)
{
	static const uint8_t nonce[32] = { 1, 2, 3 };
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
	uint8_t digest[32], signature[1024];
	size_t len = sizeof signature;
	bool rsa = EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA;

	digest_nonces(challenge, nonce, digest);
	assert_int_equal(EVP_PKEY_sign_init(ctx), 1);
	if (rsa) {
		EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING);
		EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256());
		EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, 17); /* any */
	}
	assert_int_equal(EVP_PKEY_sign(ctx, signature, &len, digest, 32), 1);
	EVP_PKEY_CTX_free(ctx);
	buf_puts(out, rsa ? "{\"ecdsa_signature\":null,\"rsa_signature\":{\"nonce\":\""
			  : "{\"ecdsa_signature\":{\"nonce\":\"");
	buf_base64(out, nonce, 32, 0);
	if (rsa) {
		signature[len / 2] ^= (uint8_t)spoil;
		buf_puts(out, "\",\"signature\":\"");
		buf_base64(out, signature, len, 0);
		buf_puts(out, "\"}}");
	} else {
		const uint8_t *at = signature;
		ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &at, (long)len);
		uint8_t number[128];
		int n = BN_bn2bin(ECDSA_SIG_get0_r(sig), number);

		number[n / 2] ^= (uint8_t)spoil;
		buf_puts(out, "\",\"r\":\"");
		buf_base64(out, number, (size_t)n, 0);
		n = BN_bn2bin(ECDSA_SIG_get0_s(sig), number);
		buf_puts(out, "\",\"s\":\"");
		buf_base64(out, number, (size_t)n, 0);
		buf_puts(out, "\"},\"rsa_signature\":null}");
		ECDSA_SIG_free(sig);
	}
}

static enum code answer(struct world *w, const struct x509pop_attempt *attempt, struct span challenge,
			struct x509pop_result *result, struct err *err)
{
	OWN_BUF response = { 0 };

	put_response(&response, w->leaf_key, challenge, 0);
	return x509pop_finish(attempt, (struct span){ response.data, response.len }, result, err);
}

static enum code finish_text(const struct x509pop_attempt *attempt, const char *response, struct err *err)
{
	struct x509pop_result result;

	return x509pop_finish(attempt, (struct span){ (const uint8_t *)response, strlen(response) }, &result, err);
}

static const char *sha1_hex(X509 *cert, char out[41])
{
	unsigned char digest[20];

	X509_digest(cert, EVP_sha1(), digest, NULL);
	for (int i = 0; i < 20; i++)
		snprintf(out + 2 * i, 3, "%02x", digest[i]);
	return out;
}

static bool has_selector(const struct x509pop_result *result, const char *selector)
{
	for (size_t i = 0; i < result->n_selectors; i++)
		if (strcmp(result->selectors[i], selector) == 0)
			return true;
	return false;
}

/* The id of the agent of this world. */
static const char *attest(struct world *w, X509 *const *certs, size_t n)
{
	struct x509pop_attempt *attempt;
	struct x509pop_result result;
	struct span challenge;
	struct err err = { 0 };

	CHECK_CODE(begin(w, certs, n, &attempt, &challenge, &err), CODE_OK);
	CHECK_CODE(answer(w, attempt, challenge, &result, &err), CODE_OK);
	return result.agent_id;
}

/* ---- the whole exchange ---- */

TEST(attests_every_key_kind)
{
	static const char *const kinds[] = { "P-256", "P-384", "P-521", "RSA-2048" };

	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		struct world w = world_new(
			kinds[i], "URI:x509pop://example.org/cluster/one/two,URI:x509pop://example.org/env/%70rod?q,"
				  "URI:x509pop://other.org/a/b,URI:x509pop://example.org/lonely");
		struct x509pop_attempt *attempt;
		struct x509pop_result result;
		struct span challenge;
		struct err err = { 0 };
		char wanted[128], hex[41];

		world_open(&w, (struct x509pop_options){ 0 });
		CHECK_CODE(begin(&w, &w.leaf, 1, &attempt, &challenge, &err), CODE_OK);
		snprintf(wanted, sizeof wanted, "%.*s", i == 3 ? 27 : 25,
			 i == 3 ? "{\"rsa_signature\":{\"nonce\":\"" : "{\"rsa_signature\":null,\"ecdsa");
		assert_memory_equal(challenge.data, wanted, strlen(wanted));
		CHECK_CODE(answer(&w, attempt, challenge, &result, &err), CODE_OK);
		snprintf(wanted, sizeof wanted, "spiffe://example.org/spire/agent/x509pop/%s", sha1_hex(w.leaf, hex));
		CHECK_STR(result.agent_id, wanted);
		CHECK(result.can_reattest);
		CHECK_NUM(result.n_selectors, 5);
		CHECK_STR(result.selectors[0], "subject:cn:some common name");
		snprintf(wanted, sizeof wanted, "ca:fingerprint:%s", sha1_hex(w.ca, hex));
		CHECK_STR(result.selectors[1], wanted);
		CHECK_STR(result.selectors[2], "serialnumber:00");
		CHECK_STR(result.selectors[3], "san:cluster:one/two");
		CHECK_STR(result.selectors[4], "san:env:prod");
		world_done(&w);
	}
}

TEST(wrong_answers_are_refused)
{
	static const char *const kinds[] = { "P-256", "RSA-2048" };

	for (size_t i = 0; i < 2; i++) {
		struct world w = world_new(kinds[i], NULL);
		struct x509pop_attempt *attempt, *other;
		struct x509pop_result result;
		struct span challenge, other_challenge;
		struct err err = { 0 };
		OWN_BUF spoiled = { 0 }, replayed = { 0 };

		world_open(&w, (struct x509pop_options){ 0 });
		CHECK_CODE(begin(&w, &w.leaf, 1, &attempt, &challenge, &err), CODE_OK);
		CHECK_CODE(begin(&w, &w.leaf, 1, &other, &other_challenge, &err), CODE_OK);
		put_response(&spoiled, w.leaf_key, challenge, 1);
		put_response(&replayed, w.leaf_key, other_challenge, 0);
		CHECK_CODE(x509pop_finish(attempt, (struct span){ spoiled.data, spoiled.len }, &result, &err),
			   CODE_PERMISSION_DENIED);
		CHECK_STR(err.text, i == 0 ? "challenge response verification failed: ECDSA signature verify failed"
					   : "challenge response verification failed: RSA signature verify failed");
		CHECK_CODE(x509pop_finish(attempt, (struct span){ replayed.data, replayed.len }, &result, &err),
			   CODE_PERMISSION_DENIED);
		CHECK_CODE(finish_text(attempt, "{}", &err), CODE_PERMISSION_DENIED);
		CHECK_STR(err.text, i == 0 ? "challenge response verification failed: expecting ECDSA response"
					   : "challenge response verification failed: expecting RSA response");
		CHECK_CODE(finish_text(attempt, "", &err), CODE_INVALID_ARGUMENT);
		CHECK_STR(err.text, "unable to unmarshal challenge response: unexpected end of JSON input");
		CHECK_CODE(finish_text(attempt, "[]", &err), CODE_INVALID_ARGUMENT);
		CHECK_CODE(finish_text(attempt, "{\"ecdsa_signature\":3,\"rsa_signature\":3}", &err),
			   CODE_INVALID_ARGUMENT);
		CHECK_CODE(finish_text(attempt,
				       "{\"ecdsa_signature\":{\"nonce\":\"?\"},\"rsa_signature\":{\"nonce\":\"?\"}}",
				       &err),
			   CODE_INVALID_ARGUMENT);
		CHECK_CODE(
			finish_text(attempt,
				    "{\"ecdsa_signature\":{\"nonce\":\"AAAA\"},\"rsa_signature\":{\"nonce\":\"AAAA\"}}",
				    &err),
			CODE_PERMISSION_DENIED);
		CHECK_STR(err.text, "challenge response verification failed: invalid response nonce");
		/* r and s of nothing, of zeros, and far too long */
		for (int n = 0; n < 3; n++) {
			OWN_BUF text = { 0 }, zeros = { 0 };

			buf_reserve(&zeros, 1000);
			memset(zeros.data, n == 2, 1000);
			zeros.len = n == 0 ? 0 : 1000;
			buf_puts(&text, "{\"ecdsa_signature\":{\"nonce\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
					"\",\"r\":\"");
			buf_base64(&text, zeros.data, zeros.len, 0);
			buf_puts(&text, "\",\"s\":\"");
			buf_base64(&text, zeros.data, zeros.len, 0);
			buf_puts(&text,
				 "\"},\"rsa_signature\":{\"nonce\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"}}");
			CHECK_CODE(finish_text(attempt, buf_text(&text), &err), CODE_PERMISSION_DENIED);
		}
		CHECK_CODE(answer(&w, attempt, challenge, &result, &err), CODE_OK); /* the attempt is still good */
		world_done(&w);
	}
}

TEST(bad_payloads_are_refused)
{
	struct world w = world_new("P-256", NULL);
	struct err err = { 0 };

	world_open(&w, (struct x509pop_options){ 0 });
	CHECK_CODE(begin_text(&w, "", &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "failed to unmarshal data: unexpected end of JSON input");
	CHECK_CODE(begin_text(&w, "{", &err), CODE_INVALID_ARGUMENT);
	CHECK_CODE(begin_text(&w, "[]", &err), CODE_INVALID_ARGUMENT);
	CHECK_CODE(begin_text(&w, "{}", &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "no certificate to attest");
	CHECK_CODE(begin_text(&w, "{\"certificates\":[]}", &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "no certificate to attest");
	CHECK_CODE(begin_text(&w, "{\"certificates\":\"x\"}", &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "failed to unmarshal data: \"certificates\" is not an array");
	CHECK_CODE(begin_text(&w, "{\"certificates\":[1]}", &err), CODE_INVALID_ARGUMENT);
	CHECK_CODE(begin_text(&w, "{\"certificates\":[\"*\"]}", &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "failed to unmarshal data: \"certificates\" is not base64");
	CHECK_CODE(begin_text(&w, "{\"certificates\":[\"AAAA\"]}", &err), CODE_INVALID_ARGUMENT);
	assert_memory_equal(err.text, "unable to parse leaf certificate: ", 34);
	world_done(&w);
}

TEST(deep_json_is_refused)
{
	struct world w = world_new("P-256", NULL);
	OWN_BUF deep = { 0 };
	struct err err = { 0 };

	world_open(&w, (struct x509pop_options){ 0 });
	CHECK_CODE(begin_text(&w, "{\"x\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[\"}", &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "no certificate to attest");
	for (int i = 0; i < 1000000; i++)
		buf_put(&deep, i % 2 == 0 ? '[' : ' ');
	CHECK_CODE(begin_text(&w, buf_text(&deep), &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "failed to unmarshal data: exceeded max depth");
	world_done(&w);
}

TEST(cut_certificates_are_refused)
{
	struct world w = world_new("P-256", "URI:x509pop://example.org/a/b");
	OWN_BUF der = { 0 };
	size_t size;

	world_open(&w, (struct x509pop_options){ 0 });
	pki_der(&der, w.leaf);
	size = der.len;
	buf_put(&der, 0); /* the last round has something behind the certificate */
	for (size_t len = 0; len <= der.len; len++) {
		OWN_BUF payload = { 0 };
		struct err err = { 0 };

		if (len == size)
			continue;
		buf_puts(&payload, "{\"certificates\":[\"");
		buf_base64(&payload, der.data, len, 0);
		buf_puts(&payload, "\"]}");
		CHECK_CODE(begin_text(&w, buf_text(&payload), &err), CODE_INVALID_ARGUMENT);
	}
	world_done(&w);
}

/* ---- chains ---- */

static X509 *issue(const char *name, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key)
{
	return pki_cert(&(struct pki_cert){ .subject = name,
					    .key = key,
					    .issuer = issuer,
					    .issuer_key = issuer_key,
					    .constraints = "critical,CA:TRUE",
					    .key_usage = "critical,keyCertSign" });
}

static X509 *leaf_under(X509 *issuer, EVP_PKEY *issuer_key, EVP_PKEY *key)
{
	return pki_cert(&(struct pki_cert){ .subject = "/CN=leaf",
					    .key = key,
					    .issuer = issuer,
					    .issuer_key = issuer_key,
					    .serial = "4660",
					    .key_usage = "digitalSignature",
					    .ext_key_usage = "codeSigning" });
}

TEST(all_chains_make_selectors)
{
	/* leaf <- middle <- Agent CA, and the same middle certified by another root */
	struct world w = world_new("P-256", NULL);
	OWN(EVP_PKEY) middle_key = pki_key("P-384"), *other_key = pki_key("P-256");
	OWN(X509) other = issue("/CN=Other", other_key, NULL, NULL);
	OWN(X509) middle = issue("/CN=Middle", middle_key, w.ca, w.ca_key);
	OWN(X509) cross = issue("/CN=Middle", middle_key, other, other_key);
	OWN(X509) leaf = leaf_under(middle, middle_key, w.leaf_key);
	struct x509pop_attempt *attempt;
	struct x509pop_result result;
	struct span challenge;
	struct err err = { 0 };
	char text[64] = "ca:fingerprint:";

	pki_pem_file(w.ca_path, (X509 *const[]){ w.ca, other }, 2);
	world_open(&w, (struct x509pop_options){ 0 });
	CHECK_CODE(begin(&w, (X509 *const[]){ leaf, cross, middle, middle }, 4, &attempt, &challenge, &err), CODE_OK);
	CHECK_CODE(answer(&w, attempt, challenge, &result, &err), CODE_OK);
	CHECK_NUM(result.n_selectors, 6);
	CHECK(has_selector(&result, "subject:cn:leaf"));
	CHECK(has_selector(&result, "serialnumber:1234"));
	sha1_hex(w.ca, text + 15);
	CHECK(has_selector(&result, text));
	sha1_hex(other, text + 15);
	CHECK(has_selector(&result, text));
	sha1_hex(middle, text + 15);
	CHECK(has_selector(&result, text));
	sha1_hex(cross, text + 15);
	CHECK(has_selector(&result, text));

	CHECK_CODE(begin(&w, (X509 *const[]){ leaf, cross }, 2, &attempt, &challenge, &err), CODE_OK);
	CHECK_CODE(answer(&w, attempt, challenge, &result, &err), CODE_OK);
	CHECK_NUM(result.n_selectors, 4);
	world_done(&w);
}

TEST(anchors_need_not_be_roots)
{
	struct world w = world_new("P-256", NULL);
	OWN(EVP_PKEY) middle_key = pki_key("P-256");
	OWN(X509) middle = issue("/CN=Middle", middle_key, w.ca, w.ca_key);
	OWN(X509) leaf = leaf_under(middle, middle_key, w.leaf_key);

	pki_pem_file(w.ca_path, &middle, 1);
	world_open(&w, (struct x509pop_options){ 0 });
	attest(&w, &leaf, 1);
	x509pop_close(w.pop);
	pki_pem_file(w.ca_path, &leaf, 1); /* the leaf itself is trusted: no issuers */
	world_open(&w, (struct x509pop_options){ 0 });
	attest(&w, &leaf, 1);
	world_done(&w);
}

static void check_refused(struct world *w, X509 *const *certs, size_t n, const char *text)
{
	struct x509pop_attempt *attempt;
	struct span challenge;
	struct err err = { 0 };

	CHECK_CODE(begin(w, certs, n, &attempt, &challenge, &err), CODE_PERMISSION_DENIED);
	err.text[strlen(text) < sizeof err.text ? strlen(text) : 0] = '\0';
	CHECK_STR(err.text, text);
}

TEST(chains_that_do_not_hold)
{
	static const char unknown[] = "certificate verification failed: x509: certificate signed by unknown authority";
	static const char expired[] =
		"certificate verification failed: x509: certificate has expired or is not yet valid: current time ";
	struct world w = world_new("P-256", NULL);
	OWN(EVP_PKEY) key = pki_key("P-256"), *rsa = pki_key("RSA-2048");
	OWN(X509) stranger = issue("/CN=Agent CA", key, NULL, NULL); /* the right name, another key */
	OWN(X509) forged = leaf_under(stranger, key, w.leaf_key);
	OWN(X509) self = leaf_under(NULL, NULL, w.leaf_key);
	OWN(X509) not_ca = leaf_under(w.ca, w.ca_key, key);
	OWN(X509) below = leaf_under(not_ca, key, w.leaf_key);
	OWN(X509)
	old = pki_cert(&(struct pki_cert){ .subject = "/CN=old",
					   .key = w.leaf_key,
					   .issuer = w.ca,
					   .issuer_key = w.ca_key,
					   .not_after = "20200101000000Z",
					   .not_before = "20190101000000Z",
					   .key_usage = "digitalSignature" });
	OWN(X509)
	early = pki_cert(&(struct pki_cert){ .subject = "/CN=early",
					     .key = w.leaf_key,
					     .issuer = w.ca,
					     .issuer_key = w.ca_key,
					     .not_before = "21000101000000Z",
					     .not_after = "21010101000000Z",
					     .key_usage = "digitalSignature" });
	OWN(X509)
	old_ca = pki_cert(&(struct pki_cert){ .subject = "/CN=Middle",
					      .key = key,
					      .issuer = w.ca,
					      .issuer_key = w.ca_key,
					      .not_before = "20190101000000Z",
					      .not_after = "20200101000000Z",
					      .constraints = "CA:TRUE" });
	OWN(X509) below_old = leaf_under(old_ca, key, w.leaf_key);
	OWN(X509)
	short_ca = pki_cert(&(struct pki_cert){ .subject = "/CN=Short",
						.key = key,
						.issuer = w.ca,
						.issuer_key = w.ca_key,
						.constraints = "CA:TRUE,pathlen:0" });
	OWN(X509) below_short = issue("/CN=TooDeep", rsa, short_ca, key);
	OWN(X509) too_deep = leaf_under(below_short, rsa, w.leaf_key);

	world_open(&w, (struct x509pop_options){ 0 });
	check_refused(&w, &forged, 1, unknown);
	check_refused(&w, &self, 1, unknown);
	check_refused(&w, (X509 *const[]){ forged, stranger }, 2, unknown);
	check_refused(&w, (X509 *const[]){ below, not_ca }, 2, unknown);
	check_refused(&w, &old, 1, expired);
	check_refused(&w, &early, 1, expired);
	check_refused(&w, (X509 *const[]){ below_old, old_ca }, 2, expired);
	check_refused(&w, (X509 *const[]){ too_deep, below_short, short_ca }, 3,
		      "certificate verification failed: x509: too many intermediates for path length constraint");
	world_done(&w);
}

TEST(sha1_signatures_are_too_weak)
{
	struct world w = world_new("P-256", NULL);

	X509_sign(w.leaf, w.ca_key, EVP_sha1());
	world_open(&w, (struct x509pop_options){ 0 });
	check_refused(&w, &w.leaf, 1, "certificate verification failed: x509: certificate signed by unknown authority");
	world_done(&w);
}

TEST(loops_end)
{
	/* Four CAs that have all certified each other: the search is cut off, not endless. */
	struct world w = world_new("P-256", NULL);
	EVP_PKEY *keys[4];
	X509 *selves[4], *certs[17];
	size_t n = 1;
	char name[32];

	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof name, "/CN=ca%d", i);
		keys[i] = pki_key("P-256");
		selves[i] = issue(name, keys[i], NULL, NULL);
	}
	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof name, "/CN=ca%d", i);
		for (int j = 0; j < 4; j++)
			certs[n++] = issue(name, keys[i], selves[j], keys[j]);
	}
	certs[0] = leaf_under(selves[0], keys[0], w.leaf_key);
	world_open(&w, (struct x509pop_options){ .max_intermediates = 20 });
	check_refused(&w, certs, n, "certificate verification failed: x509: certificate signed by unknown authority");
	for (size_t i = 0; i < n; i++)
		X509_free(certs[i]);
	for (int i = 0; i < 4; i++) {
		X509_free(selves[i]);
		EVP_PKEY_free(keys[i]);
	}
	world_done(&w);
}

TEST(limits)
{
	struct world w = world_new("RSA-3072", NULL);
	struct x509pop_attempt *attempt;
	struct span challenge;
	struct err err = { 0 };
	X509 *many[6] = { w.leaf, w.ca, w.ca, w.ca, w.ca, w.ca };

	world_open(&w, (struct x509pop_options){ .max_rsa_key_size = 2048 });
	CHECK_CODE(begin(&w, many, 6, &attempt, &challenge, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "too many intermediate certificates");
	CHECK_CODE(begin(&w, many, 1, &attempt, &challenge, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "leaf certificate key size too large");
	many[0] = w.ca;
	many[2] = w.leaf;
	CHECK_CODE(begin(&w, many, 3, &attempt, &challenge, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "intermediate certificate 1 key size too large");
	world_done(&w);
}

TEST(leaf_must_be_for_signatures)
{
	struct world w = world_new("ED25519", NULL);
	OWN(EVP_PKEY) key = pki_key("P-256");
	OWN(X509)
	none = pki_cert(&(struct pki_cert){ .subject = "/CN=x", .key = key, .issuer = w.ca, .issuer_key = w.ca_key });
	OWN(X509)
	other = pki_cert(&(struct pki_cert){ .subject = "/CN=x",
					     .key = key,
					     .issuer = w.ca,
					     .issuer_key = w.ca_key,
					     .key_usage = "keyEncipherment" });
	struct x509pop_attempt *attempt;
	struct span challenge;
	struct err err = { 0 };

	world_open(&w, (struct x509pop_options){ 0 });
	CHECK_CODE(begin(&w, &none, 1, &attempt, &challenge, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "unable to generate challenge: certificate not intended for digital signature use");
	CHECK_CODE(begin(&w, &other, 1, &attempt, &challenge, &err), CODE_INTERNAL);
	CHECK_CODE(begin(&w, &w.leaf, 1, &attempt, &challenge, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "unable to generate challenge: unsupported public key type ed25519.PublicKey");
	world_done(&w);
}

TEST(client_ip)
{
	struct world w = world_new("P-256", "IP:192.0.2.7,IP:2001:db8::7");
	OWN_BUF payload = { 0 };
	static const struct {
		const char *ip;
		enum code code;
	} cases[] = { { "192.0.2.7", CODE_OK },
		      { "2001:0db8::0:7", CODE_OK },
		      { "192.0.2.8", CODE_PERMISSION_DENIED },
		      { "nonsense", CODE_PERMISSION_DENIED },
		      { NULL, CODE_INTERNAL } };

	put_payload(&payload, &w.leaf, 1);
	world_open(&w, (struct x509pop_options){ .verify_client_ip = true });
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct x509pop_input input = { .payload = { payload.data, payload.len },
					       .now_s = time(NULL),
					       .client_ip = cases[i].ip };
		struct x509pop_attempt *attempt;
		struct span challenge;
		struct err err = { 0 };

		CHECK_CODE(x509pop_begin(w.pop, &input, w.arena, &attempt, &challenge, &err), cases[i].code);
	}
	world_done(&w);
}

/* ---- mode "spiffe" ---- */

static enum code spiffe_attest(struct world *w, struct x509pop_result *result, struct err *err)
{
	OWN_BUF payload = { 0 }, ca = { 0 };
	struct x509pop_input input = { .now_s = time(NULL), .n_bundle = 1 };
	struct span bundle, challenge;
	struct x509pop_attempt *attempt;
	enum code rc;

	put_payload(&payload, &w->leaf, 1);
	pki_der(&ca, w->ca);
	bundle = (struct span){ ca.data, ca.len };
	input.payload = (struct span){ payload.data, payload.len };
	input.bundle = &bundle;
	rc = x509pop_begin(w->pop, &input, w->arena, &attempt, &challenge, err);
	return rc != CODE_OK ? rc : answer(w, attempt, challenge, result, err);
}

TEST(spiffe_mode_trims_the_path)
{
	static const struct {
		const char *san, *prefix, *id, *text;
	} cases[] = {
		{ "URI:spiffe://example.org/spire-exchange/host/1", NULL,
		  "spiffe://example.org/spire/agent/x509pop/host/1", NULL },
		{ "URI:spiffe://example.org/other/host", NULL, NULL, "x509 cert doesnt match SVID prefix" },
		{ "URI:https://example.org/spire-exchange/x", NULL, NULL, "valid SVID x509 cert not found" },
		{ "URI:spiffe://example.org/a/b/host", "/a/b", "spiffe://example.org/spire/agent/x509pop/host", NULL },
		{ "URI:spiffe://example.org/a/b/host", "/a/b/", "spiffe://example.org/spire/agent/x509pop/host", NULL },
		{ "URI:spiffe://example.org/a/b/host", "", "spiffe://example.org/spire/agent/x509pop/a/b/host", NULL },
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct world w = world_new("P-256", cases[i].san);
		struct x509pop_result result;
		struct err err = { 0 };

		world_open(&w, (struct x509pop_options){ .mode = "spiffe", .spiffe_prefix = cases[i].prefix });
		CHECK(x509pop_wants_bundle(w.pop));
		CHECK_CODE(spiffe_attest(&w, &result, &err), cases[i].id != NULL ? CODE_OK : CODE_PERMISSION_DENIED);
		CHECK_STR(cases[i].id != NULL ? result.agent_id : err.text,
			  cases[i].id != NULL ? cases[i].id : cases[i].text);
		world_done(&w);
	}
}

TEST(spiffe_mode_without_a_bundle_trusts_nobody)
{
	struct world w = world_new("P-256", "URI:spiffe://example.org/spire-exchange/host");

	world_open(&w, (struct x509pop_options){ .mode = "spiffe" });
	check_refused(&w, &w.leaf, 1, "certificate verification failed: x509: certificate signed by unknown authority");
	world_done(&w);
}

/* ---- templates ---- */

TEST(agent_path_templates)
{
	static const struct {
		const char *template, *path;
	} cases[] = {
		{ "/{{ .PluginName }}/{{ .SerialNumberHex }}", "/x509pop/00" },
		{ "/cn/{{ .Subject.CommonName | nospace | upper }}", "/cn/SOMECOMMONNAME" },
		{ "/{{.TrustDomain}}/{{ index .Subject.Organization 0 }}", "/example.org/o" },
		{ "/{{- .SerialNumber -}}  /x", "/0/x" },
		{ "/{{ .Issuer.CommonName | replace \" \" \"-\" | lower }}", "/agent-ca" },
		{ "/{{ .URISanSelectors.cluster }}", "/one/two" },
		{ "/{{ trimPrefix \"some \" .Subject.CommonName | trimSuffix ` name` }}", "/common" },
		{ "/{{ trunc 4 .Subject.CommonName }}{{ trunc -4 .Subject.CommonName }}", "/somename" },
		{ "/{{ .Subject.SerialNumber | default \"none\" }}", "/none" },
		{ "/{{ first .DNSNames }}/{{ last .DNSNames }}/{{ join \".\" .DNSNames }}",
		  "/a.org/b.org/a.org.b.org" },
		{ "/{{ sha1sum \"\" }}", "/da39a3ee5e6b4b0d3255bfef95601890afd80709" },
		{ "/{{ sha256sum \"\" | trunc 8 }}", "/e3b0c442" },
		{ "/{{ \"}}\" | trimAll \"}\" }}x{{ 3 }}", "/x3" },
	};
	struct world w = world_new("P-256", "URI:x509pop://example.org/cluster/one/two,DNS:a.org,DNS:b.org");

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char wanted[256];

		world_open(&w, (struct x509pop_options){ .agent_path_template = cases[i].template });
		snprintf(wanted, sizeof wanted, "spiffe://example.org/spire/agent%s", cases[i].path);
		CHECK_STR(attest(&w, &w.leaf, 1), wanted);
		x509pop_close(w.pop);
	}
	w.pop = NULL;
	world_done(&w);
}

TEST(unsupported_templates_are_refused_at_start)
{
	static const char *const templates[] = {
		"{{ .Nothing }}",
		"{{ .Subject }}",
		"{{ .Subject.Organization }}",
		"{{ . }}",
		"{{ if .Fingerprint }}x{{ end }}",
		"{{ range .DNSNames }}x{{ end }}",
		"{{ $x := 1 }}",
		"{{ (.Fingerprint) }}",
		"{{/* comment */}}",
		"{{ }}",
		"{{",
		"{{ .Fingerprint",
		"{{ .Fingerprint | }}",
		"{{ | lower }}",
		"{{ lower }}",
		"{{ lower .Fingerprint .Fingerprint }}",
		"{{ lower 3 }}",
		"{{ lower .DNSNames }}",
		"{{ index .DNSNames .Fingerprint }}",
		"{{ first .Fingerprint }}",
		"{{ unknown .Fingerprint }}",
		"{{ .Fingerprint .Fingerprint }}",
		"{{ .Fingerprint | \"x\" }}",
		"{{ \"x }}",
		"{{ \"\\n\" }}",
		"{{ 12345678901 }}",
		"{{ - }}",
		"{{ .URISanSelectors }}",
		"{{ .URISanSelectors.a.b }}",
		"{{ replace \"a\" \"b\" \"c\" \"d\" }}",
	};
	struct world w = world_new("P-256", NULL);

	for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
		struct x509pop_options options = { .trust_domain = "example.org",
						   .ca_bundle_path = w.ca_path,
						   .agent_path_template = templates[i] };
		struct x509pop *pop = NULL;
		struct err err = { 0 };

		if (x509pop_open(&options, &pop, &err) == CODE_OK)
			print_error("accepted: %s\n", templates[i]);
		CHECK(pop == NULL);
		assert_memory_equal(err.text, "failed to parse agent svid template: \"", 38);
		CHECK_NUM(err.code, CODE_INVALID_ARGUMENT);
	}
	world_done(&w);
}

TEST(template_that_gives_no_path)
{
	static const struct {
		const char *template, *text;
	} cases[] = {
		{ "{{ .PluginName }}",
		  "failed to make spiffe id: invalid agent path suffix \"x509pop\": path must have a leading slash" },
		{ "/{{ .Subject.CommonName }}",
		  "failed to make spiffe id: invalid agent path suffix \"/some common name\": "
		  "path segment characters are limited to letters, numbers, dots, dashes, and underscores" },
		{ "/{{ .URISanSelectors.none }}", "failed to make spiffe id: map has no entry for key \"none\"" },
		{ "/{{ index .DNSNames 0 }}", "failed to make spiffe id: error calling index: index out of range: 0" },
	};
	struct world w = world_new("P-256", NULL);

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct x509pop_attempt *attempt;
		struct x509pop_result result;
		struct span challenge;
		struct err err = { 0 };

		world_open(&w, (struct x509pop_options){ .agent_path_template = cases[i].template });
		CHECK_CODE(begin(&w, &w.leaf, 1, &attempt, &challenge, &err), CODE_OK);
		CHECK_CODE(answer(&w, attempt, challenge, &result, &err), CODE_INTERNAL);
		CHECK_STR(err.text, cases[i].text);
		x509pop_close(w.pop);
	}
	w.pop = NULL;
	world_done(&w);
}

/* ---- options ---- */

static void check_option(struct x509pop_options options, const char *text)
{
	struct x509pop *pop;
	struct err err = { 0 };

	options.trust_domain = "example.org";
	CHECK_CODE(x509pop_open(&options, &pop, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, text);
}

TEST(contradictory_options_are_refused)
{
	const char *paths[] = { "/nowhere/a.pem" };
	char path[128], text[256];
	FILE *file;

	check_option((struct x509pop_options){ 0 }, "one of ca_bundle_path or ca_bundle_paths must be configured");
	check_option((struct x509pop_options){ .mode = "x" }, "mode can only be either spiffe or external_pki");
	check_option((struct x509pop_options){ .mode = "spiffe", .ca_bundle_path = "x" },
		     "you can not use ca_bundle_path or ca_bundle_paths in spiffe mode");
	check_option(
		(struct x509pop_options){ .ca_bundle_path = "x", .ca_bundle_paths = paths, .n_ca_bundle_paths = 1 },
		"only one of ca_bundle_path or ca_bundle_paths can be configured, not both");
	check_option((struct x509pop_options){ .ca_bundle_paths = paths, .n_ca_bundle_paths = 1 },
		     "unable to load trust bundle \"/nowhere/a.pem\": open /nowhere/a.pem: no such file or directory");
	snprintf(path, sizeof path, "%s/empty.pem", test_dir());
	file = fopen(path, "w");
	fputs("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", file);
	fclose(file);
	snprintf(text, sizeof text, "unable to load trust bundle \"%s\": no certificates found in file", path);
	check_option((struct x509pop_options){ .ca_bundle_path = path }, text);
	file = fopen(path, "a");
	fputs("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", file);
	fclose(file);
	{
		struct x509pop_options options = { .trust_domain = "example.org", .ca_bundle_path = path };
		struct x509pop *pop;
		struct err err = { 0 };

		CHECK_CODE(x509pop_open(&options, &pop, &err), CODE_INVALID_ARGUMENT);
		assert_non_null(strstr(err.text, "unable to parse certificate in block 1: "));
	}
}
