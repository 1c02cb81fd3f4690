/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/pki.h"
#include "lib/test.h"
#include "net/tls.h"

#include <openssl/ssl.h>
#include <stdlib.h>

/* Two ends in memory. Each end's wire is the other's input. */
struct end {
	struct tls_context *context;
	struct tls *tls;
	struct buf wire, in;
	struct identity *identity;
	enum code verdict; /* of its verify callback */
	int asked;
	char subject[64];
	int chain; /* certificates that the callback saw */
	struct err err;
	enum tls_result result;
};

static EVP_PKEY *key(void)
{
	static EVP_PKEY *made;

	return made != NULL ? made : (made = pki_key("P-256"));
}

static struct identity *identity(const char *subject, const char *kind)
{
	EVP_PKEY *own = kind != NULL ? pki_key(kind) : key();
	X509 *cert = pki_cert(&(struct pki_cert){ .subject = subject, .key = own });
	OWN_BUF der = { 0 };
	struct identity *made = NULL;
	struct err err;

	pki_der(&der, cert);
	CHECK_CODE(identity_new(own, &(struct span){ der.data, der.len }, 1, &made, &err), CODE_OK);
	X509_free(cert);
	if (kind != NULL)
		EVP_PKEY_free(own);
	return made;
}

static struct identity *give_identity(void *ctx)
{
	struct end *end = ctx;

	return end->identity != NULL ? identity_ref(end->identity) : NULL;
}

static enum code verify(void *peer, X509 *leaf, STACK_OF(X509) * chain, struct err *err)
{
	struct end *end = peer;

	end->asked++;
	end->chain = sk_X509_num(chain);
	X509_NAME_get_text_by_NID(X509_get_subject_name(leaf), NID_commonName, end->subject, sizeof end->subject);
	return end->verdict == CODE_OK ? CODE_OK : err_set(err, end->verdict, "we do not like '%s'", end->subject);
}

static void open_context(struct end *end, bool client, bool asks)
{
	struct tls_options options = {
		.client = client, .identity = give_identity, .ctx = end, .verify = asks ? verify : NULL
	};
	struct err err;

	CHECK_CODE(tls_context_new(&options, &end->context, &err), CODE_OK);
}

static void begin(struct end *end)
{
	struct err err;

	CHECK_CODE(tls_new(end->context, end, &end->wire, &end->tls, &err), CODE_OK);
	end->result = TLS_WANT;
}

static void finish(struct end *end)
{
	tls_free(end->tls);
	end->tls = NULL;
	buf_done(&end->wire);
	buf_done(&end->in);
}

static void done(struct end *end)
{
	finish(end);
	tls_context_free(end->context);
	identity_unref(end->identity);
}

static void pass(struct end *from, struct end *to)
{
	if (from->wire.len == 0)
		return;
	to->in.len = 0;
	buf_append(&to->in, from->wire.data, from->wire.len);
	from->wire.len = 0;
	tls_input(to->tls, to->in.data, to->in.len);
}

/* Until both have an outcome or nothing moves any more. */
static void shake(struct end *client, struct end *server)
{
	client->result = tls_handshake(client->tls, &client->err);
	for (int round = 0; round < 6; round++) {
		pass(client, server);
		if (server->result == TLS_WANT)
			server->result = tls_handshake(server->tls, &server->err);
		pass(server, client);
		if (client->result == TLS_WANT)
			client->result = tls_handshake(client->tls, &client->err);
	}
}

static void send_across(struct end *from, struct end *to, size_t len)
{
	uint8_t *data = malloc(len), *got = malloc(len + 1);
	size_t at = 0, n;
	struct err err = { 0 };
	enum tls_result result;

	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)(i * 7);
	CHECK_CODE(tls_write(from->tls, data, len, &err), CODE_OK);
	pass(from, to);
	while ((result = tls_read(to->tls, got + at, len + 1 - at, &n, &err)) == TLS_OK)
		at += n;
	CHECK_NUM(result, TLS_WANT);
	CHECK_NUM(at, len);
	CHECK_BYTES(got, data, len);
	free(data);
	free(got);
}

TEST(a_handshake_with_both_certificates)
{
	struct end client = { .identity = identity("/CN=client", NULL) },
		   server = { .identity = identity("/CN=server", NULL) };

	open_context(&client, true, true);
	open_context(&server, false, true);
	for (int i = 0; i < 3; i++) { /* each is a full one: nothing is resumed */
		begin(&client);
		begin(&server);
		shake(&client, &server);
		CHECK_NUM(client.result, TLS_OK);
		CHECK_NUM(server.result, TLS_OK);
		CHECK_STR(client.subject, "server");
		CHECK_STR(server.subject, "client");
		CHECK_NUM(server.asked, i + 1);
		CHECK(tls_alpn_agreed(client.tls) && tls_alpn_agreed(server.tls));
		CHECK_STR(tls_version(server.tls), "TLSv1.3");
		send_across(&client, &server, 1);
		send_across(&server, &client, 100000);
		send_across(&client, &server, 16384);
		finish(&client);
		finish(&server);
	}
	done(&client);
	done(&server);
}

TEST(a_client_without_certificate)
{
	struct end client = { 0 }, server = { .identity = identity("/CN=server", NULL) };

	open_context(&client, true, false);
	open_context(&server, false, true);
	begin(&client);
	begin(&server);
	shake(&client, &server);
	CHECK_NUM(client.result, TLS_OK);
	CHECK_NUM(server.result, TLS_OK);
	CHECK_NUM(server.asked, 0);
	CHECK(sk_X509_num(tls_peer_chain(server.tls)) <= 0);
	CHECK(tls_peer_chain(client.tls) != NULL);
	send_across(&client, &server, 10);
	done(&client);
	done(&server);
}

/* TLS 1.3: the client is done before the server has looked; it learns of it when it reads. */
TEST(a_refused_certificate_is_alert_42)
{
	struct end client = { .identity = identity("/CN=client", NULL) };
	struct end server = { .identity = identity("/CN=server", NULL), .verdict = CODE_UNAUTHENTICATED };
	struct err err = { 0 };
	char byte;
	size_t n;

	open_context(&client, true, false);
	open_context(&server, false, true);
	begin(&client);
	begin(&server);
	shake(&client, &server);
	CHECK_NUM(server.result, TLS_FAILED);
	CHECK_STR(server.err.text, "we do not like 'client'");
	CHECK_NUM(client.result, TLS_OK);
	CHECK_NUM(tls_read(client.tls, &byte, 1, &n, &err), TLS_FAILED);
	CHECK_STR(err.text, "TLS: sslv3 alert bad certificate");
	done(&client);
	done(&server);
}

TEST(a_refused_server)
{
	struct end client = { .verdict = CODE_UNAVAILABLE }, server = { .identity = identity("/CN=server", NULL) };

	open_context(&client, true, true);
	open_context(&server, false, true);
	begin(&client);
	begin(&server);
	shake(&client, &server);
	CHECK_NUM(client.result, TLS_FAILED);
	CHECK_STR(client.err.text, "we do not like 'server'");
	CHECK_NUM(server.result, TLS_FAILED);
	done(&client);
	done(&server);
}

TEST(the_identity_is_asked_for_at_each_session)
{
	struct end client = { 0 }, server = { 0 };
	struct err err = { 0 };
	const char *const subjects[] = { "one", "two", "three" };

	open_context(&client, true, true);
	open_context(&server, false, false);
	CHECK_CODE(tls_new(server.context, &server, &server.wire, &server.tls, &err), CODE_UNAVAILABLE);
	CHECK_STR(err.text, "no certificate to show yet");
	for (size_t i = 0; i < 3; i++) {
		char subject[32];

		snprintf(subject, sizeof subject, "/CN=%s", subjects[i]);
		identity_unref(server.identity);
		server.identity = identity(subject, i == 2 ? "P-384" : "P-256");
		begin(&client);
		begin(&server);
		shake(&client, &server);
		CHECK_NUM(client.result, TLS_OK);
		CHECK_STR(client.subject, subjects[i]);
		finish(&client);
		finish(&server);
	}
	done(&client);
	done(&server);
}

/* The keys that certificates of SPIFFE peers have. */
TEST(kinds_of_keys)
{
	const char *const kinds[] = { "P-256", "P-384", "P-521", "RSA-2048", "ED25519" };

	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		for (size_t j = 0; j < 2; j++) {
			struct end client = { .identity = identity("/CN=client", j == 0 ? kinds[i] : NULL) };
			struct end server = { .identity = identity("/CN=server", j == 1 ? kinds[i] : NULL) };

			open_context(&client, true, true);
			open_context(&server, false, true);
			begin(&client);
			begin(&server);
			shake(&client, &server);
			if (strcmp(server.subject, "client") != 0 || client.result != TLS_OK || server.result != TLS_OK)
				print_error("%s %zu: %s, %s\n", kinds[i], j, client.err.text, server.err.text);
			CHECK_NUM(client.result, TLS_OK);
			CHECK_NUM(server.result, TLS_OK);
			CHECK_STR(server.subject, "client");
			done(&client);
			done(&server);
		}
}

TEST(an_identity_is_checked)
{
	EVP_PKEY *other = pki_key("P-256");
	X509 *cert = pki_cert(&(struct pki_cert){ .subject = "/CN=x", .key = key() });
	OWN_BUF der = { 0 };
	struct identity *made = NULL;
	struct err err = { 0 };

	pki_der(&der, cert);
	CHECK_CODE(identity_new(other, &(struct span){ der.data, der.len }, 1, &made, &err), CODE_INTERNAL);
	CHECK_CODE(identity_new(key(), &(struct span){ der.data, der.len - 1 }, 1, &made, &err), CODE_INTERNAL);
	CHECK_CODE(identity_new(key(), NULL, 0, &made, &err), CODE_INTERNAL);
	CHECK(made == NULL);
	X509_free(cert);
	EVP_PKEY_free(other);
}

TEST(goodbye)
{
	struct end client = { 0 }, server = { .identity = identity("/CN=server", NULL) };
	struct err err;
	char byte;
	size_t n;

	open_context(&client, true, false);
	open_context(&server, false, true);
	begin(&client);
	begin(&server);
	tls_goodbye(server.tls); /* before there is a session: nothing */
	CHECK_NUM(server.wire.len, 0);
	shake(&client, &server);
	tls_goodbye(server.tls);
	tls_goodbye(server.tls);
	pass(&server, &client);
	CHECK_NUM(tls_read(client.tls, &byte, 1, &n, &err), TLS_END);
	done(&client);
	done(&server);
}

/* --- clients that are not ours: OpenSSL's own, set up as the case wants --- */

static SSL *other_client(SSL_CTX *context, BIO **to_it, BIO **from_it)
{
	SSL *ssl = SSL_new(context);

	*to_it = BIO_new(BIO_s_mem());
	*from_it = BIO_new(BIO_s_mem());
	SSL_set_bio(ssl, *to_it, *from_it);
	SSL_set_connect_state(ssl);
	return ssl;
}

/* What the server makes of it. */
static enum tls_result shake_other(SSL *ssl, BIO *to_it, BIO *from_it, struct end *server)
{
	server->result = TLS_WANT;
	for (int round = 0; round < 6; round++) {
		char *bytes;
		long len;

		SSL_do_handshake(ssl);
		len = BIO_get_mem_data(from_it, &bytes);
		server->in.len = 0;
		buf_append(&server->in, bytes, (size_t)len);
		(void)BIO_reset(from_it);
		tls_input(server->tls, server->in.data, server->in.len);
		if (server->result == TLS_WANT)
			server->result = tls_handshake(server->tls, &server->err);
		if (server->wire.len > 0)
			BIO_write(to_it, server->wire.data, (int)server->wire.len);
		server->wire.len = 0;
	}
	return server->result;
}

static enum tls_result meet(struct end *server, int version, const unsigned char *alpn, size_t alpn_len,
			    char protocol[16])
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	BIO *to_it, *from_it;
	enum tls_result result;
	const unsigned char *name;
	unsigned len;
	SSL *ssl;

	SSL_CTX_set_security_level(context, 0);
	SSL_CTX_set_min_proto_version(context, version);
	SSL_CTX_set_max_proto_version(context, version);
	if (alpn != NULL)
		SSL_CTX_set_alpn_protos(context, alpn, (unsigned)alpn_len);
	begin(server);
	ssl = other_client(context, &to_it, &from_it);
	result = shake_other(ssl, to_it, from_it, server);
	SSL_get0_alpn_selected(ssl, &name, &len);
	snprintf(protocol, 16, "%.*s", (int)len, (const char *)name);
	CHECK(!SSL_SESSION_has_ticket(SSL_get0_session(ssl)));
	SSL_free(ssl);
	SSL_CTX_free(context);
	return result;
}

TEST(versions_and_protocols)
{
	struct end server = { .identity = identity("/CN=server", NULL) };
	char protocol[16];

	open_context(&server, false, true);
	CHECK_NUM(meet(&server, TLS1_3_VERSION, (const unsigned char *)"\2h2", 3, protocol), TLS_OK);
	CHECK_STR(protocol, "h2");
	finish(&server);
	CHECK_NUM(meet(&server, TLS1_2_VERSION, (const unsigned char *)"\10http/1.1\2h2", 12, protocol), TLS_OK);
	CHECK_STR(protocol, "h2");
	CHECK_STR(tls_version(server.tls), "TLSv1.2");
	finish(&server);
	CHECK_NUM(meet(&server, TLS1_3_VERSION, NULL, 0, protocol), TLS_OK); /* the connection hangs up on it later */
	CHECK_STR(protocol, "");
	CHECK(!tls_alpn_agreed(server.tls));
	finish(&server);
	CHECK_NUM(meet(&server, TLS1_3_VERSION, (const unsigned char *)"\10http/1.1", 9, protocol), TLS_OK);
	CHECK_STR(protocol, "");
	finish(&server);
	CHECK_NUM(meet(&server, TLS1_3_VERSION, (const unsigned char *)"\3foo", 4, protocol), TLS_FAILED);
	finish(&server);
	CHECK_NUM(meet(&server, TLS1_1_VERSION, (const unsigned char *)"\2h2", 3, protocol), TLS_FAILED);
	done(&server);
}

TEST(bytes_that_are_no_tls)
{
	static const struct span bytes[] = {
		{ (const uint8_t *)"GET / HTTP/1.1\r\n\r\n", 18 },
		{ (const uint8_t *)"\x16\x03\x01\xff\xff", 5 },
		{ (const uint8_t *)"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24 },
		{ (const uint8_t *)"\x15\x03\x03\x00\x02\x02\x28", 7 },
	};
	struct end server = { .identity = identity("/CN=server", NULL) };

	open_context(&server, false, true);
	for (size_t i = 0; i < sizeof bytes / sizeof bytes[0]; i++) {
		begin(&server);
		tls_input(server.tls, bytes[i].data, bytes[i].len);
		CHECK_NUM(tls_handshake(server.tls, &server.err), TLS_FAILED);
		finish(&server);
	}
	done(&server);
}

TEST(a_changed_record_breaks_the_session)
{
	struct end client = { 0 }, server = { .identity = identity("/CN=server", NULL) };
	struct err err = { 0 };
	char got[16];
	size_t n;

	open_context(&client, true, false);
	open_context(&server, false, true);
	begin(&client);
	begin(&server);
	shake(&client, &server);
	CHECK_CODE(tls_write(client.tls, "hello", 5, &err), CODE_OK);
	client.wire.data[client.wire.len - 1] ^= 1;
	pass(&client, &server);
	CHECK_NUM(tls_read(server.tls, got, sizeof got, &n, &err), TLS_FAILED);
	CHECK(server.wire.len > 0); /* an alert */
	done(&client);
	done(&server);
}
