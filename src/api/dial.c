/* SPDX-License-Identifier: Apache-2.0 */
/* The blocking client's connection: a non-blocking socket and poll(2), with net/tls.h's sessions on top of it for TCP.
 * The server's certificate is checked as that of a SPIFFE server: its chain leads to one of the given authorities and
 * its only URI is the id that is asked for; host names mean nothing. */
#include "api/dial.h"

#include "base/clock.h"
#include "base/gotext.h"
#include "net/tls.h"

#include <openssl/x509v3.h>

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CHUNK = 32 << 10 };

struct dial {
	int fd;
	int stop_fd; /* -1: none */
	const struct client_options *options; /* during dial_open only */
	struct tls_context *context;
	struct tls *tls;
	struct identity *identity;
	struct buf wire; /* TLS: what goes out */
	uint8_t *in;     /* TLS: what came in, CHUNK of it */
	bool in_left;    /* some of `in` may not have been read yet */
	struct span *chain;
	size_t n_chain;
};

OWNABLE(X509_STORE, X509_STORE_free)
OWNABLE(X509_STORE_CTX, X509_STORE_CTX_free)
OWNABLE(GENERAL_NAMES, GENERAL_NAMES_free)

/* --- waiting --- */

static enum code wait_for(const struct dial *dial, short events, int64_t deadline_ms, struct err *err)
{
	struct pollfd pollers[] = { { .fd = dial->fd, .events = events }, { .fd = dial->stop_fd, .events = POLLIN } };

	for (;;) {
		int64_t left = deadline_ms == INT64_MAX ? -1 : deadline_ms - clock_mono_ms();
		int n;

		if (deadline_ms != INT64_MAX && left < 0)
			left = 0;
		n = poll(pollers, 2, left > 60000 ? 60000 : (int)left); /* poll passes over a negative descriptor */
		if (n > 0 && pollers[1].revents != 0)
			return err_set(err, CODE_CANCELLED, "context canceled");
		if (n > 0)
			return CODE_OK;
		if (n < 0 && errno != EINTR)
			return err_errno(err, CODE_UNAVAILABLE, errno, "poll", NULL);
		if (n == 0 && left == 0)
			return err_set(err, CODE_DEADLINE_EXCEEDED, "context deadline exceeded");
	}
}

static enum code send_raw(struct dial *dial, const uint8_t *data, size_t len, int64_t deadline_ms, struct err *err)
{
	while (len > 0) {
		ssize_t n = send(dial->fd, data, len, MSG_NOSIGNAL);

		if (n >= 0) {
			data += n;
			len -= (size_t)n;
		} else if (errno == EAGAIN) {
			TRY(wait_for(dial, POLLOUT, deadline_ms, err));
		} else if (errno != EINTR) {
			return err_errno(err, CODE_UNAVAILABLE, errno, "write", NULL);
		}
	}
	return CODE_OK;
}

static enum code recv_raw(struct dial *dial, void *data, size_t cap, int64_t deadline_ms, size_t *n, struct err *err)
{
	for (;;) {
		ssize_t got = recv(dial->fd, data, cap, 0);

		if (got >= 0) {
			*n = (size_t)got;
			return CODE_OK;
		}
		if (errno == EAGAIN)
			TRY(wait_for(dial, POLLIN, deadline_ms, err));
		else if (errno != EINTR)
			return err_errno(err, CODE_UNAVAILABLE, errno, "read", NULL);
	}
}

/* --- dialling --- */

static enum code connect_to(struct dial *dial, const struct sockaddr *address, socklen_t len, const char *what,
			    int64_t deadline_ms, struct err *err)
{
	int fd = dial->fd;
	int status = 0;
	socklen_t size = sizeof status;

	if (connect(fd, address, len) == 0)
		return CODE_OK;
	if (errno == EAGAIN &&
	    address->sa_family == AF_UNIX) { /* its backlog is full, and there is no waiting for that */
		while (connect(fd, address, len) != 0) {
			if (errno != EAGAIN || clock_mono_ms() >= deadline_ms)
				return err_errno(err, CODE_UNAVAILABLE, errno, what, NULL);
			poll(NULL, 0, 10);
		}
		return CODE_OK;
	}
	if (errno != EINPROGRESS)
		return err_errno(err, CODE_UNAVAILABLE, errno, what, NULL);
	TRY(wait_for(dial, POLLOUT, deadline_ms, err));
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &status, &size) != 0)
		status = errno;
	return status == 0 ? CODE_OK : err_errno(err, CODE_UNAVAILABLE, status, what, NULL);
}

static enum code dial_unix(struct dial *dial, const char *path, int64_t deadline_ms, struct err *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	OWN_BUF what = { 0 };

	buf_printf(&what, "dial unix %s%s: connect", path[0] == '/' ? "//" : "", path);
	if (strlen(path) >= sizeof address.sun_path)
		return err_set(err, CODE_UNAVAILABLE, "%s: invalid argument", buf_text(&what));
	memcpy(address.sun_path, path, strlen(path) + 1);
	dial->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (dial->fd < 0)
		return err_errno(err, CODE_UNAVAILABLE, errno, "socket", NULL);
	return connect_to(dial, (struct sockaddr *)&address, sizeof address, buf_text(&what), deadline_ms, err);
}

static enum code dial_address(struct dial *dial, const struct addrinfo *address, const char *what, int64_t deadline_ms,
			      struct err *err)
{
	int on = 1;

	if (dial->fd >= 0)
		close(dial->fd);
	dial->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (dial->fd < 0)
		return err_errno(err, CODE_UNAVAILABLE, errno, "socket", NULL);
	setsockopt(dial->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return connect_to(dial, address->ai_addr, address->ai_addrlen, what, deadline_ms, err);
}

static enum code dial_tcp(struct dial *dial, const char *address, int64_t deadline_ms, struct err *err)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	const char *colon = strrchr(address, ':');
	struct addrinfo *found = NULL;
	OWN_BUF host = { 0 }, what = { 0 };
	bool bracket = address[0] == '[';
	enum code rc = CODE_UNAVAILABLE;
	int status;

	if (colon == NULL || (bracket && (colon == address + 1 || colon[-1] != ']')))
		return err_set(err, CODE_UNAVAILABLE, "dial tcp: address %s: missing port in address", address);
	buf_append(&host, address + bracket, (size_t)(colon - address) - 2u * bracket);
	buf_printf(&what, "dial tcp %s: connect", address);
	status = getaddrinfo(buf_text(&host), colon + 1, &hints, &found);
	if (status != 0)
		return err_set(err, CODE_UNAVAILABLE, "dial tcp: lookup %s: %s", buf_text(&host),
			       status == EAI_NONAME ? "no such host" : gai_strerror(status));
	for (const struct addrinfo *at = found; at != NULL && rc != CODE_OK; at = at->ai_next)
		rc = dial_address(dial, at, buf_text(&what), deadline_ms, err);
	freeaddrinfo(found);
	return rc;
}

/* --- the server's certificate --- */

static enum code check_chain(const struct client_options *options, X509 *leaf, STACK_OF(X509) * chain, struct err *err)
{
	OWN(X509_STORE) store = X509_STORE_new();
	OWN(X509_STORE_CTX) ctx = X509_STORE_CTX_new();

	if (store == NULL || ctx == NULL)
		abort(); /* out of memory */
	for (size_t i = 0; i < options->n_roots; i++) {
		const uint8_t *at = options->roots[i].data;
		X509 *root = d2i_X509(NULL, &at, (long)options->roots[i].len);

		if (root == NULL)
			return tls_err(err, CODE_UNAVAILABLE, "malformed authority");
		X509_STORE_add_cert(store, root);
		X509_free(root);
	}
	X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN); /* any authority is an anchor, as in Go */
	if (X509_STORE_CTX_init(ctx, store, leaf, chain) != 1)
		return tls_err(err, CODE_UNAVAILABLE, "cannot verify a certificate");
	if (X509_verify_cert(ctx) != 1)
		return err_set(err, CODE_UNAVAILABLE, "x509svid: could not verify leaf certificate: x509: %s",
			       X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
	return CODE_OK;
}

static enum code check_id(const char *want, X509 *leaf, struct err *err)
{
	OWN(GENERAL_NAMES) names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
	const ASN1_IA5STRING *uri = NULL;
	int n = 0;

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

		if (name->type == GEN_URI) {
			uri = name->d.uniformResourceIdentifier;
			n++;
		}
	}
	if (n != 1)
		return err_set(err, CODE_UNAVAILABLE, "certificate contains %s URI SAN",
			       n == 0 ? "no" : "more than one");
	if ((size_t)ASN1_STRING_length(uri) != strlen(want) ||
	    memcmp(ASN1_STRING_get0_data(uri), want, strlen(want)) != 0)
		return err_set(err, CODE_UNAVAILABLE, "unexpected ID \"%.*s\"", ASN1_STRING_length(uri),
			       ASN1_STRING_get0_data(uri));
	return CODE_OK;
}

static enum code verify_server(void *peer, X509 *leaf, STACK_OF(X509) * chain, struct err *err)
{
	const struct client_options *options = ((struct dial *)peer)->options;

	if (options->n_roots > 0)
		TRY(check_chain(options, leaf, chain, err));
	return options->server_id != NULL ? check_id(options->server_id, leaf, err) : CODE_OK;
}

static void keep_chain(struct dial *dial)
{
	STACK_OF(X509) *chain = tls_peer_chain(dial->tls);
	int n = chain != NULL ? sk_X509_num(chain) : 0;

	dial->chain = xcalloc((size_t)n + 1, sizeof *dial->chain);
	for (int i = 0; i < n; i++) {
		uint8_t *der = NULL;
		int len = i2d_X509(sk_X509_value(chain, i), &der);

		if (len < 0)
			abort(); /* out of memory: it has been parsed */
		dial->chain[dial->n_chain++] = (struct span){ xmemdup(der, (size_t)len), (size_t)len };
		OPENSSL_free(der);
	}
}

/* --- TLS --- */

static struct identity *own_identity(void *ctx)
{
	struct dial *dial = ctx;

	return dial->identity != NULL ? identity_ref(dial->identity) : NULL;
}

static enum code flush_wire(struct dial *dial, int64_t deadline_ms, struct err *err)
{
	enum code rc = send_raw(dial, dial->wire.data, dial->wire.len, deadline_ms, err);

	dial->wire.len = 0;
	return rc;
}

static enum code shake_hands(struct dial *dial, int64_t deadline_ms, struct err *err)
{
	size_t n = 0;

	for (;;) {
		enum tls_result result = tls_handshake(dial->tls, err);
		struct err ignored;

		if (result == TLS_OK || result == TLS_WANT)
			TRY(flush_wire(dial, deadline_ms, err));
		if (result == TLS_OK) {
			dial->in_left = true; /* the server may have gone on at once */
			return CODE_OK;
		}
		if (result != TLS_WANT) {
			flush_wire(dial, deadline_ms, &ignored);
			return CODE_UNAVAILABLE;
		}
		TRY(recv_raw(dial, dial->in, CHUNK, deadline_ms, &n, err));
		if (n == 0)
			return err_set(err, CODE_UNAVAILABLE, "EOF");
		tls_input(dial->tls, dial->in, n);
	}
}

static enum code start_tls(struct dial *dial, const struct client_options *options, int64_t deadline_ms,
			   struct err *err)
{
	const struct tls_options tls = {
		.client = true,
		.alpn = TLS_ALPN_H2,
		.identity = own_identity,
		.ctx = dial,
		.verify = verify_server,
	};

	if (options->n_chain > 0)
		TRY(identity_new(options->key, options->chain, options->n_chain, &dial->identity, err));
	dial->in = xmalloc(CHUNK);
	TRY(tls_context_new(&tls, &dial->context, err));
	TRY(tls_new(dial->context, dial, &dial->wire, &dial->tls, err));
	TRY(shake_hands(dial, deadline_ms, err));
	if (!tls_alpn_agreed(dial->tls))
		return err_set(err, CODE_UNAVAILABLE, "the server does not speak HTTP/2 (no ALPN protocol)");
	keep_chain(dial);
	return CODE_OK;
}

/* --- the interface --- */

static enum code say(struct err *err, const char *what)
{
	OWN_BUF desc = { 0 }, quoted = { 0 };

	buf_printf(&desc, "%s: %s", what, err->text);
	go_quote(&quoted, buf_text(&desc));
	return err_set(err, CODE_UNAVAILABLE, "connection error: desc = %s", buf_text(&quoted));
}

enum code dial_open(const struct client_options *options, int64_t deadline_ms, struct dial **out, struct err *err)
{
	OWN_STRUCT(dial) dial = xcalloc(1, sizeof *dial);
	enum code rc;

	dial->fd = -1;
	dial->stop_fd = options->stop_fd > 0 ? options->stop_fd : -1;
	dial->options = options;
	rc = options->unix_path != NULL ? dial_unix(dial, options->unix_path, deadline_ms, err)
					: dial_tcp(dial, options->tcp, deadline_ms, err);
	if (rc != CODE_OK)
		return say(err, "transport: Error while dialing");
	if (options->unix_path == NULL && start_tls(dial, options, deadline_ms, err) != CODE_OK)
		return say(err, "transport: authentication handshake failed");
	dial->options = NULL;
	*out = TAKE(dial);
	return CODE_OK;
}

void dial_close(struct dial *dial)
{
	struct err ignored;

	if (dial == NULL)
		return;
	if (dial->tls != NULL) {
		tls_goodbye(dial->tls);
		flush_wire(dial, 0, &ignored);
	}
	tls_free(dial->tls);
	tls_context_free(dial->context);
	identity_unref(dial->identity);
	if (dial->fd >= 0)
		close(dial->fd);
	for (size_t i = 0; i < dial->n_chain; i++)
		free((void *)dial->chain[i].data);
	free(dial->chain);
	free(dial->in);
	buf_done(&dial->wire);
	free(dial);
}

enum code dial_send(struct dial *dial, const void *data, size_t len, int64_t deadline_ms, struct err *err)
{
	if (dial->tls == NULL)
		return send_raw(dial, data, len, deadline_ms, err);
	TRY(tls_write(dial->tls, data, len, err));
	return flush_wire(dial, deadline_ms, err);
}

enum code dial_recv(struct dial *dial, void *data, size_t cap, int64_t deadline_ms, size_t *n, struct err *err)
{
	size_t got = 0;

	if (dial->tls == NULL)
		return recv_raw(dial, data, cap, deadline_ms, n, err);
	for (;;) {
		enum tls_result result = dial->in_left ? tls_read(dial->tls, data, cap, n, err) : TLS_WANT;

		if (dial->wire.len > 0) /* an answer of TLS' own */
			TRY(flush_wire(dial, deadline_ms, err));
		if (result == TLS_OK)
			return CODE_OK;
		dial->in_left = false;
		if (result == TLS_FAILED)
			return CODE_UNAVAILABLE;
		if (result == TLS_WANT) {
			TRY(recv_raw(dial, dial->in, CHUNK, deadline_ms, &got, err));
			tls_input(dial->tls, dial->in, got);
			dial->in_left = true;
		}
		if (result == TLS_END || got == 0) {
			*n = 0;
			return CODE_OK;
		}
	}
}

size_t dial_server_chain(const struct dial *dial, const struct span **chain)
{
	*chain = dial->chain;
	return dial->n_chain;
}
