/* SPDX-License-Identifier: Apache-2.0 */
/* What a signature costs: microseconds of each step of issuing, beside the floor that OpenSSL sets. By hand:
 *
 *   make MODE=release && gcc -O2 -std=gnu11 -D_GNU_SOURCE -iquote src -o /tmp/ca_bench tests/bench/ca_bench.c \
 *       build/release/ca/[a-z]*.o build/release/base/[a-z]*.o $(pkg-config --libs libuv openssl jansson) -lunistring
 * -lm /tmp/ca_bench [threads]
 *
 * With threads all of them sign with one authority at the same time: the rate of each is shown, so contention is seen.
 */
#include "base/arena.h"
#include "ca/csr.h"
#include "ca/jwt.h"
#include "ca/key.h"
#include "ca/signer.h"
#include "ca/x509.h"

#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 5000, TRIES = 5 };

static const int64_t now_s = 1800000000;

static struct x509_authority *x509;
static struct jwt_authority *jwt;
static struct buf request_der;

static double now_us(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (double)at.tv_sec * 1e6 + (double)at.tv_nsec / 1e3;
}

static void must(enum code code, const struct err *err)
{
	if (code == CODE_OK)
		return;
	fprintf(stderr, "%s\n", err->text);
	exit(1);
}

static void prepare(void)
{
	static const char *const country[] = { "US" }, *const organization[] = { "SPIFFE" };
	static const struct x509_ca_subject subject = { country, 1, organization, 1, NULL };
	struct arena *arena = arena_new();
	struct x509_svid svid;
	struct err err = { 0 };
	EVP_PKEY *key, *jwt_key;

	must(key_generate(KEY_EC_P256, &key, &err), &err);
	must(key_generate(KEY_EC_P256, &jwt_key, &err), &err);
	must(x509_self_sign(key, &subject, "example.org", 86400, now_s, arena, &svid, &err), &err);
	must(x509_authority_new(key, svid.cert, NULL, 0, &x509, &err), &err);
	must(jwt_authority_new(jwt_key, "abcdefghijklmnopqrstuvwxyz012345", now_s + 86400, &jwt, &err), &err);
	arena_free(arena);
}

/* As a stock agent asks for a workload's. */
static void make_request(void)
{
	X509_REQ *request = X509_REQ_new();
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509_NAME *name = X509_NAME_new();
	STACK_OF(X509_EXTENSION) *list = sk_X509_EXTENSION_new_null();
	unsigned char *der = NULL;
	int len;

	X509_NAME_add_entry_by_txt(name, "C", MBSTRING_ASC, (const unsigned char *)"US", -1, -1, 0);
	X509_NAME_add_entry_by_txt(name, "O", MBSTRING_ASC, (const unsigned char *)"SPIRE", -1, -1, 0);
	sk_X509_EXTENSION_push(list, X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name,
							 "URI:spiffe://example.org/ns/production/sa/web-server"));
	X509_REQ_set_subject_name(request, name);
	X509_REQ_set_pubkey(request, key);
	X509_REQ_add_extensions(request, list);
	X509_REQ_sign(request, key, EVP_sha256());
	len = i2d_X509_REQ(request, &der);
	buf_append(&request_der, der, (size_t)len);
}

/* ---- the steps ---- */

static struct csr parsed;
static struct arena *step_arena;

static void step_parse(void)
{
	struct err err;

	must(csr_parse(request_der.data, request_der.len, step_arena, &parsed, &err), &err);
}

static void step_verify(void)
{
	struct err err;

	must(csr_verify(&parsed, &err), &err);
}

static void step_issue(void)
{
	struct x509_request request = { .spiffe_id = "spiffe://example.org/ns/production/sa/web-server",
					.spki = parsed.spki,
					.ttl_s = 3600,
					.now_s = now_s };
	struct x509_svid svid;
	struct err err;

	must(x509_issue(x509, &request, step_arena, &svid, &err), &err);
}

static void step_jwt(void)
{
	static const char *const audience[] = { "https://backend.example.org" };
	struct jwt_request request = { .spiffe_id = "spiffe://example.org/ns/production/sa/web-server",
				       .audience = audience,
				       .n_audience = 1,
				       .ttl_s = 300,
				       .now_s = now_s };
	struct jwt_svid svid;
	struct err err;

	must(jwt_issue(jwt, &request, step_arena, &svid, &err), &err);
}

static void step_sign_floor(void)
{
	static EVP_PKEY_CTX *ctx;
	uint8_t digest[32] = { 1 }, signature[SIGNATURE_MAX];
	size_t len = sizeof signature;

	if (ctx == NULL) {
		ctx = EVP_PKEY_CTX_new(x509->key, NULL);
		EVP_PKEY_sign_init(ctx);
	}
	EVP_PKEY_sign(ctx, signature, &len, digest, sizeof digest);
}

static void step_verify_floor(void)
{
	static EVP_PKEY_CTX *ctx;
	static uint8_t digest[EVP_MAX_MD_SIZE];

	if (ctx == NULL) {
		const uint8_t *at = parsed.spki.data;

		ctx = EVP_PKEY_CTX_new(d2i_PUBKEY(NULL, &at, (long)parsed.spki.len), NULL);
		EVP_PKEY_verify_init(ctx);
		digest_of(DIGEST_SHA256, parsed.info.data, parsed.info.len, digest);
	}
	if (EVP_PKEY_verify(ctx, parsed.signature.data, parsed.signature.len, digest, 32) != 1)
		exit(1);
}

static void step_all(void)
{
	step_parse();
	step_verify();
	step_issue();
}

/* The best of some tries: what the step costs when nobody disturbs it. */
static double measure(void (*step)(void))
{
	double best = 1e9;

	for (int try = 0; try < TRIES; try++) {
		double start = now_us(), each;

		for (int i = 0; i < ROUNDS; i++) {
			if (i % 50 == 0) { /* a batch is one call's arena */
				arena_free(step_arena);
				step_arena = arena_new();
				if (step != step_parse)
					step_parse();
			}
			step();
		}
		each = (now_us() - start) / ROUNDS;
		best = each < best ? each : best;
	}
	return best;
}

/* ---- threads ---- */

static void *issue_on(void *held)
{
	double *rate = held, start = now_us();

	for (int i = 0; i < ROUNDS; i++) {
		struct arena *arena = arena_new();
		struct csr csr;
		struct x509_svid svid;
		struct err err;
		struct x509_request request = { .spiffe_id = "spiffe://example.org/w", .ttl_s = 3600, .now_s = now_s };

		must(csr_parse(request_der.data, request_der.len, arena, &csr, &err), &err);
		must(csr_verify(&csr, &err), &err);
		request.spki = csr.spki;
		must(x509_issue(x509, &request, arena, &svid, &err), &err);
		arena_free(arena);
	}
	*rate = ROUNDS / ((now_us() - start) / 1e6);
	return NULL;
}

static void run_threads(int n)
{
	pthread_t threads[64];
	double rates[64], sum = 0;

	for (int i = 0; i < n; i++)
		pthread_create(&threads[i], NULL, issue_on, &rates[i]);
	for (int i = 0; i < n; i++) {
		pthread_join(threads[i], NULL);
		sum += rates[i];
	}
	printf("%d threads: %.0f SVIDs/s in all, %.0f each\n", n, sum, sum / n);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*step)(void);
	} steps[] = {
		{ "csr_parse", step_parse },
		{ "csr_verify", step_verify },
		{ "x509_issue", step_issue },
		{ "the three together", step_all },
		{ "jwt_issue", step_jwt },
		{ "floor: sign P-256", step_sign_floor },
		{ "floor: verify P-256", step_verify_floor },
	};
	int threads = argc > 1 ? atoi(argv[1]) : 0;

	prepare();
	make_request();
	step_arena = arena_new();
	step_parse();
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
		printf("%-22s %7.2f us\n", steps[i].name, measure(steps[i].step));
	for (int n = 1; n <= threads && n <= 64; n *= 2)
		run_threads(n);
	return 0;
}
