/* SPDX-License-Identifier: Apache-2.0 */
/* TLS over memory: OpenSSL talks to a BIO that reads from the bytes given by tls_input and appends to the `wire`
 * buffer.
 *
 *   tls_new --> tls_handshake (WANT: tls_input, again) --> tls_read / tls_write --> tls_goodbye --> tls_free
 *                     |                                          |
 *                     +-- FAILED: the alert is in `wire`  -------+
 *
 * The identity belongs to the context: it is put in when it changes, and a session takes a reference of what is there
 * when it is made. OpenSSL keeps the input of a half record itself, so tls_input's bytes are all taken once it asks for
 * more. */
#include "net/tls.h"

#include "base/arena.h"
#include "net/lean.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <assert.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct tls_context {
	struct tls_options options;
	SSL_CTX *ssl;
	struct identity *identity; /* what `ssl` shows */
	bool other_type;           /* it had one with another type of key, which `ssl` shows still */
	unsigned char alpn[32];    /* length, name */
};

struct tls {
	SSL *ssl;
	struct tls_context *context;
	void *peer;
	struct buf *wire;
	const uint8_t *in, *in_end;
	struct err *err; /* where the verify callback says why; set while OpenSSL runs */
	bool refused;    /* by the verify callback: *err is its */
	bool said_goodbye;
};

OWNABLE(SSL_CTX, SSL_CTX_free)

/* The AEADs of Go's list: HTTP/2 forbids the others. */
#define CIPHERS_TLS12                                                                                                  \
	"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"                     \
	"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define CIPHERS_TLS13 "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define GROUPS "X25519:P-256:P-384:P-521"

static const unsigned char protocols[][9] = {
	[TLS_ALPN_H2] = "\2h2",
	[TLS_ALPN_HTTP11] = "\10http/1.1",
};

enum code tls_err(struct err *err, enum code code, const char *fmt, ...)
{
	unsigned long number = ERR_get_error();
	const char *reason = number != 0 ? ERR_reason_error_string(number) : NULL;
	char what[256];
	va_list args;

	ERR_clear_error();
	va_start(args, fmt);
	vsnprintf(what, sizeof what, fmt, args);
	va_end(args);
	return err_set(err, code, "%s: %s", what, reason != NULL ? reason : "unknown reason");
}

/* --- the BIO: bytes in from the session's input, bytes out to its wire --- */

static int bio_read(BIO *bio, char *out, int size)
{
	struct tls *tls = BIO_get_data(bio);
	size_t n = (size_t)(tls->in_end - tls->in);

	BIO_clear_retry_flags(bio);
	if (n == 0) {
		BIO_set_retry_read(bio);
		return -1;
	}
	if (n > (size_t)size)
		n = (size_t)size;
	memcpy(out, tls->in, n);
	tls->in += n;
	return (int)n;
}

static int bio_write(BIO *bio, const char *data, int size)
{
	struct tls *tls = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	buf_append(tls->wire, data, (size_t)size);
	return size;
}

static long bio_ctrl(BIO *bio, int what, long number, void *arg)
{
	(void)bio, (void)number, (void)arg;
	return what == BIO_CTRL_FLUSH || what == BIO_CTRL_DUP;
}

static BIO_METHOD *method;
static pthread_once_t method_once = PTHREAD_ONCE_INIT;

static void make_method(void)
{
	method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "bytes");
	if (method == NULL)
		abort(); /* out of memory */
	BIO_meth_set_read(method, bio_read);
	BIO_meth_set_write(method, bio_write);
	BIO_meth_set_ctrl(method, bio_ctrl);
}

/* --- OpenSSL's callbacks --- */

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
		   unsigned in_len, void *arg)
{
	const struct tls_context *context = arg;
	const unsigned char *ours = context->alpn;
	const unsigned char *http11 = NULL;

	(void)ssl;
	for (unsigned at = 0; at < in_len; at += 1u + in[at]) { /* OpenSSL has checked the lengths */
		if (in[at] == ours[0] && memcmp(in + at, ours, 1u + ours[0]) == 0) {
			*out = in + at + 1;
			*out_len = ours[0];
			return SSL_TLSEXT_ERR_OK;
		}
		if (in[at] == 8 && memcmp(in + at + 1, "http/1.1", 8) == 0)
			http11 = in + at + 1;
	}
	if (http11 != NULL && context->options.also_http11) {
		*out = http11;
		*out_len = 8;
		return SSL_TLSEXT_ERR_OK;
	}
	/* As Go: a client of HTTP/1.1 goes on without a protocol, any other mismatch is an alert. */
	return http11 != NULL && context->options.protocol == NULL ? SSL_TLSEXT_ERR_NOACK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int on_verify(X509_STORE_CTX *store, void *arg)
{
	const struct tls_context *context = arg;
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls *tls = SSL_get_app_data(ssl);

	if (context->options.verify == NULL ||
	    context->options.verify(tls->peer, X509_STORE_CTX_get0_cert(store), X509_STORE_CTX_get0_untrusted(store),
				    tls->err) == CODE_OK)
		return 1;
	tls->refused = true;
	X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED); /* alert bad_certificate */
	return 0;
}

/* --- the context --- */

static enum code set_up(struct tls_context *context, struct err *err)
{
	SSL_CTX *ssl = context->ssl;

	SSL_CTX_set_min_proto_version(ssl, context->options.only_tls13 ? TLS1_3_VERSION : TLS1_2_VERSION);
	SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ssl, 0);
	SSL_CTX_set_max_cert_list(ssl, 64 << 10);
	if (SSL_CTX_set_cipher_list(ssl, CIPHERS_TLS12) != 1 || SSL_CTX_set_ciphersuites(ssl, CIPHERS_TLS13) != 1 ||
	    SSL_CTX_set1_groups_list(ssl, GROUPS) != 1)
		return tls_err(err, CODE_INTERNAL, "cannot set up TLS");
	if (context->options.client)
		SSL_CTX_set_alpn_protos(ssl, context->alpn, 1u + context->alpn[0]);
	else
		SSL_CTX_set_alpn_select_cb(ssl, on_alpn, context);
	if (context->options.client || context->options.verify != NULL)
		SSL_CTX_set_verify(
			ssl, SSL_VERIFY_PEER | (context->options.mutual ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
	SSL_CTX_set_cert_verify_callback(ssl, on_verify, context);
	return CODE_OK;
}

static void name_protocol(struct tls_context *context)
{
	const char *name = context->options.protocol;
	size_t len = name != NULL ? strlen(name) : protocols[context->options.alpn][0];

	assert(len > 0 && len < sizeof context->alpn);
	context->alpn[0] = (unsigned char)len;
	memcpy(context->alpn + 1, name != NULL ? (const unsigned char *)name : protocols[context->options.alpn] + 1,
	       len);
	context->options.protocol = context->options.protocol != NULL ? "" : NULL; /* the caller's text is not kept */
}

enum code tls_context_new(const struct tls_options *options, struct tls_context **out, struct err *err)
{
	OWN_STRUCT(tls_context) context = xcalloc(1, sizeof *context);

	pthread_once(&method_once, make_method);
	context->options = *options;
	name_protocol(context);
	context->ssl =
		SSL_CTX_new_ex(lean_context(), NULL, options->client ? TLS_client_method() : TLS_server_method());
	if (context->ssl == NULL)
		return tls_err(err, CODE_INTERNAL, "cannot set up TLS");
	TRY(set_up(context, err));
	*out = TAKE(context);
	return CODE_OK;
}

void tls_context_free(struct tls_context *context)
{
	if (context == NULL)
		return;
	SSL_CTX_free(context->ssl);
	identity_unref(context->identity);
	free(context);
}

static enum code renew_identity(struct tls_context *context, struct err *err)
{
	OWN_STRUCT(identity) identity = NULL;

	if (context->options.identity != NULL)
		identity = context->options.identity(context->options.ctx);
	if (identity == NULL && !context->options.client)
		return err_set(err, CODE_UNAVAILABLE, "no certificate to show yet");
	if (identity == context->identity)
		return CODE_OK;
	if (identity == NULL) /* a client that had one: there is no way to take it out again */
		return err_set(err, CODE_INTERNAL, "a TLS client cannot lose its identity");
	if (SSL_CTX_use_cert_and_key(context->ssl, identity_leaf(identity), identity_key(identity),
				     identity_rest(identity), 1) != 1)
		return tls_err(err, CODE_INTERNAL, "cannot use a TLS identity");
	if (context->identity != NULL &&
	    EVP_PKEY_get_base_id(identity_key(context->identity)) != EVP_PKEY_get_base_id(identity_key(identity)))
		context->other_type = true;
	identity_unref(context->identity);
	context->identity = TAKE(identity);
	return CODE_OK;
}

/* A context keeps a certificate for each type of key, and cannot forget one: the session gets what it is to show. */
static enum code show_present_alone(struct tls *tls, struct err *err)
{
	const struct identity *identity = tls->context->identity;

	SSL_certs_clear(tls->ssl);
	if (SSL_use_cert_and_key(tls->ssl, identity_leaf(identity), identity_key(identity), identity_rest(identity),
				 1) != 1)
		return tls_err(err, CODE_INTERNAL, "cannot use a TLS identity");
	return CODE_OK;
}

/* --- a session --- */

enum code tls_new(struct tls_context *context, void *peer, struct buf *wire, struct tls **out, struct err *err)
{
	OWN_STRUCT(tls) tls = xcalloc(1, sizeof *tls);
	BIO *bio;

	ERR_clear_error();
	TRY(renew_identity(context, err));
	tls->context = context;
	tls->peer = peer;
	tls->wire = wire;
	tls->ssl = SSL_new(context->ssl);
	bio = BIO_new(method);
	if (tls->ssl == NULL || bio == NULL)
		abort(); /* out of memory */
	BIO_set_data(bio, tls);
	BIO_set_init(bio, 1);
	SSL_set_bio(tls->ssl, bio, bio);
	if (context->other_type)
		TRY(show_present_alone(tls, err));
	SSL_set_app_data(tls->ssl, tls);
	if (context->options.client)
		SSL_set_connect_state(tls->ssl);
	else
		SSL_set_accept_state(tls->ssl);
	*out = TAKE(tls);
	return CODE_OK;
}

void tls_free(struct tls *tls)
{
	if (tls == NULL)
		return;
	SSL_free(tls->ssl);
	free(tls);
}

void tls_input(struct tls *tls, const void *data, size_t len)
{
	tls->in = data;
	tls->in_end = tls->in + len;
}

/* What an answer below 1 means. OpenSSL has written the alert already. */
static enum tls_result outcome(struct tls *tls, int answer, const char *what, struct err *err)
{
	switch (SSL_get_error(tls->ssl, answer)) {
	case SSL_ERROR_WANT_READ:
		return TLS_WANT;
	case SSL_ERROR_ZERO_RETURN:
		return TLS_END;
	default:
		break;
	}
	if (!tls->refused)
		tls_err(err, CODE_UNAVAILABLE, "%s", what);
	ERR_clear_error();
	return TLS_FAILED;
}

enum tls_result tls_handshake(struct tls *tls, struct err *err)
{
	int answer;

	ERR_clear_error();
	tls->err = err;
	answer = SSL_do_handshake(tls->ssl);
	tls->err = NULL;
	return answer == 1 ? TLS_OK : outcome(tls, answer, "TLS handshake failed", err);
}

enum tls_result tls_read(struct tls *tls, void *out, size_t cap, size_t *n, struct err *err)
{
	int answer;

	ERR_clear_error();
	tls->err = err;
	answer = SSL_read_ex(tls->ssl, out, cap, n);
	tls->err = NULL;
	return answer == 1 ? TLS_OK : outcome(tls, answer, "TLS", err);
}

enum code tls_write(struct tls *tls, const void *data, size_t len, struct err *err)
{
	size_t n = 0;

	ERR_clear_error();
	if (len == 0 || SSL_write_ex(tls->ssl, data, len, &n) == 1)
		return CODE_OK; /* all of it: the BIO never refuses, and partial writes are off */
	return tls_err(err, CODE_INTERNAL, "TLS");
}

void tls_goodbye(struct tls *tls)
{
	if (tls->said_goodbye || !SSL_is_init_finished(tls->ssl))
		return;
	tls->said_goodbye = true;
	ERR_clear_error();
	SSL_shutdown(tls->ssl);
	ERR_clear_error();
}

bool tls_alpn_agreed(const struct tls *tls)
{
	const unsigned char *name;
	unsigned len;

	SSL_get0_alpn_selected(tls->ssl, &name, &len);
	return len == tls->context->alpn[0] && memcmp(name, tls->context->alpn + 1, len) == 0;
}

const char *tls_version(const struct tls *tls)
{
	return SSL_get_version(tls->ssl);
}

STACK_OF(X509) * tls_peer_chain(const struct tls *tls)
{
	return SSL_get_peer_cert_chain(tls->ssl);
}
