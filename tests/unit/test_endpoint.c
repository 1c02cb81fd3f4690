/* SPDX-License-Identifier: Apache-2.0 */
#include "api/endpoint.h"
#include "base/arena.h"
#include "base/clock.h"
#include "lib/harness.h"
#include "lib/pki.h"
#include "lib/test.h"

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

static struct err err;

struct fixture {
	struct harness *h;
	struct endpoint *endpoint;
	char cert[128], key[128];
};

static void write_pair(const struct fixture *f, const char *kind, const char *name)
{
	OWN(EVP_PKEY) key = pki_key(kind);
	OWN(X509) cert = pki_cert(&(struct pki_cert){ .subject = name, .key = key, .san = "IP:127.0.0.1" });
	FILE *file = fopen(f->key, "w");

	PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
	fclose(file);
	pki_pem_file(f->cert, &cert, 1);
}

static void begin(struct fixture *f)
{
	struct config_bundle_endpoint *config;

	f->h = harness_open();
	harness_authorities(f->h);
	snprintf(f->cert, sizeof f->cert, "%s/web.crt", test_dir());
	snprintf(f->key, sizeof f->key, "%s/web.key", test_dir());
	write_pair(f, "P-256", "/CN=first");
	config = &f->h->config->bundle_endpoint;
	config->enabled = true;
	config->address = "127.0.0.1";
	config->refresh_hint_s = 300;
	config->profile = ENDPOINT_HTTPS_WEB;
	config->cert_file_path = f->cert;
	config->key_file_path = f->key;
	config->file_sync_interval_s = 1;
}

static void start(struct fixture *f)
{
	begin(f);
	CHECK_CODE(endpoint_bind(f->h->server, &f->endpoint, &err), CODE_OK);
	CHECK_CODE(endpoint_start(f->endpoint, &err), CODE_OK);
}

static void stop(struct fixture *f)
{
	endpoint_stop(f->endpoint);
	endpoint_free(f->endpoint);
	harness_close(f->h);
}

/* A connection; `alpn` in its form on the wire, or NULL. */
static BIO *dial(const struct fixture *f, const char *alpn)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	char address[32];
	BIO *bio;
	SSL *ssl;

	snprintf(address, sizeof address, "127.0.0.1:%d", endpoint_port(f->endpoint));
	if (alpn != NULL)
		SSL_CTX_set_alpn_protos(context, (const unsigned char *)alpn, (unsigned)strlen(alpn));
	bio = BIO_new_ssl_connect(context);
	SSL_CTX_free(context);
	BIO_get_ssl(bio, &ssl);
	BIO_set_conn_hostname(bio, address);
	CHECK(BIO_do_handshake(bio) == 1);
	return bio;
}

static void put(BIO *bio, const char *text)
{
	CHECK_NUM(BIO_write(bio, text, (int)strlen(text)), strlen(text));
}

/* Reads until `want` has come, or the end (NULL). */
static const char *read_until(BIO *bio, const char *want)
{
	static char got[65536];
	size_t len = 0;

	for (;;) {
		int n;

		got[len] = '\0';
		if (want != NULL && strstr(got, want) != NULL)
			return got;
		n = BIO_read(bio, got + len, (int)(sizeof got - 1 - len));
		if (n <= 0)
			return got;
		len += (size_t)n;
	}
}

static const char *ask(const struct fixture *f, const char *request)
{
	BIO *bio = dial(f, "\10http/1.1");
	const char *answer;

	put(bio, request);
	answer = read_until(bio, NULL);
	BIO_free_all(bio);
	return answer;
}

TEST(both_paths_serve_the_bundle_and_others_do_not)
{
	static const char *const good[] = { "/", "/bundle", "/?x=1" };
	struct fixture f;
	const char *answer;
	char request[128];

	start(&f);
	for (size_t i = 0; i < 3; i++) {
		snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nConnection: close\r\n\r\n", good[i]);
		answer = ask(&f, request);
		CHECK(strncmp(answer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n", 49) == 0);
		CHECK(strstr(answer, "\r\n\r\n{\n    \"keys\": [\n") != NULL);
		CHECK(strstr(answer, "\n    \"spiffe_refresh_hint\": 300\n}") != NULL);
	}
	answer = ask(&f, "GET /bundle/ HTTP/1.1\r\nConnection: close\r\n\r\n");
	CHECK(strncmp(answer, "HTTP/1.1 404 ", 13) == 0);
	CHECK(strstr(answer, "\r\n\r\n404 page not found\n") != NULL);
	answer = ask(&f, "PUT /x HTTP/1.1\r\nConnection: close\r\n\r\n");
	CHECK(strncmp(answer, "HTTP/1.1 405 ", 13) == 0);
	CHECK(strstr(answer, "\r\n\r\n405 method not allowed\n") != NULL);
	stop(&f);
}

TEST(an_answer_is_of_the_state_as_it_is)
{
	struct fixture f;
	BIO *bio;

	start(&f);
	bio = dial(&f, NULL);
	put(bio, "GET / HTTP/1.1\r\n\r\n");
	CHECK(strstr(read_until(bio, "\n}"), "spiffe_sequence") == NULL);
	harness_authorities(f.h); /* on a connection that is open */
	put(bio, "GET / HTTP/1.1\r\n\r\n");
	CHECK(strstr(read_until(bio, "\n}"), "\"spiffe_sequence\": 1,") != NULL);
	BIO_free_all(bio);
	stop(&f);
}

static const char *shown_name(const struct fixture *f, char out[64])
{
	BIO *bio = dial(f, "\10http/1.1");
	SSL *ssl;

	BIO_get_ssl(bio, &ssl);
	X509_NAME_get_text_by_NID(X509_get_subject_name(SSL_get0_peer_certificate(ssl)), NID_commonName, out, 64);
	BIO_free_all(bio);
	return out;
}

static void wait_for_name(const struct fixture *f, const char *want)
{
	int64_t until_ms = clock_mono_ms() + 20 * 1000;
	char name[64];

	while (strcmp(shown_name(f, name), want) != 0) {
		CHECK(clock_mono_ms() < until_ms);
		poll(NULL, 0, 50);
	}
}

TEST(new_files_are_taken_and_bad_ones_are_not)
{
	struct fixture f;
	char name[64];
	FILE *file;

	start(&f);
	CHECK_STR(shown_name(&f, name), "first");
	write_pair(&f, "RSA-2048", "/CN=second"); /* of another type: the old one is not shown to anybody any more */
	wait_for_name(&f, "second");
	file = fopen(f.cert, "w");
	fputs("garbage\n", file);
	fclose(file);
	poll(NULL, 0, 1500); /* a look at the files comes in between: nothing changes */
	CHECK_STR(shown_name(&f, name), "second");
	write_pair(&f, "P-384", "/CN=third");
	wait_for_name(&f, "third");
	stop(&f);
}

TEST(what_cannot_be_served_is_refused_by_name)
{
	struct fixture f;
	FILE *file;

	begin(&f);
	file = fopen(f.key, "w");
	fputs("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", file);
	fclose(file);
	CHECK_CODE(endpoint_bind(f.h->server, &f.endpoint, &err), CODE_INVALID_ARGUMENT);
	CHECK(strstr(err.text, f.key) != NULL);
	unlink(f.cert);
	CHECK_CODE(endpoint_bind(f.h->server, &f.endpoint, &err), CODE_INVALID_ARGUMENT);
	CHECK(strstr(err.text, f.cert) != NULL);
	f.h->config->bundle_endpoint.acme = true;
	CHECK_CODE(endpoint_bind(f.h->server, &f.endpoint, &err), CODE_UNIMPLEMENTED);
	CHECK(strstr(err.text, "serving_cert_file") != NULL);
	harness_close(f.h);
}

TEST(http2_is_spoken_with_those_who_do)
{
	static const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
	struct fixture f;
	unsigned char got[64];
	const unsigned char *name;
	unsigned len;
	BIO *bio;
	SSL *ssl;

	start(&f);
	bio = dial(&f, "\2h2\10http/1.1");
	BIO_get_ssl(bio, &ssl);
	SSL_get0_alpn_selected(ssl, &name, &len);
	CHECK(len == 2 && memcmp(name, "h2", 2) == 0);
	CHECK_NUM(BIO_write(bio, hello, sizeof hello - 1), sizeof hello - 1);
	CHECK(BIO_read(bio, got, 9) == 9);
	CHECK_NUM(got[3], 4); /* SETTINGS */
	BIO_free_all(bio);
	bio = dial(&f, "\10http/1.1");
	BIO_get_ssl(bio, &ssl);
	SSL_get0_alpn_selected(ssl, &name, &len);
	CHECK(len == 8 && memcmp(name, "http/1.1", 8) == 0);
	BIO_free_all(bio);
	stop(&f);
}

TEST(connections_end_with_the_endpoint)
{
	struct fixture f;
	BIO *idle, *half;

	start(&f);
	idle = dial(&f, NULL);
	half = dial(&f, "\2h2");
	put(half, "PRI * HT");
	endpoint_stop(f.endpoint);
	CHECK_STR(read_until(idle, NULL), "");
	read_until(half, NULL);
	BIO_free_all(idle);
	BIO_free_all(half);
	stop(&f);
}
