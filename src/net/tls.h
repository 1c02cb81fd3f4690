/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NET_TLS_H
#define NET_TLS_H

#include "base/buf.h"
#include "base/err.h"
#include "net/identity.h"

#include <openssl/x509.h>
#include <stdbool.h>

/* TLS as bytes in, bytes out: no socket, no waiting. TLS 1.2 and later, no session tickets, no resumption, no
 * renegotiation; a session at rest holds no buffers. Contract server-api.md section 3. */

enum tls_alpn { TLS_ALPN_H2, TLS_ALPN_HTTP11 };

/* Is this chain that of somebody whom we let in? `leaf` comes first in `chain` too. `peer` is what tls_new got.
 * Anything but OK: alert bad_certificate. Whether the peer holds the leaf's key is checked by TLS itself. */
typedef enum code tls_verify_fn(void *peer, X509 *leaf, STACK_OF(X509) * chain, struct err *err);

struct tls_options {
	bool client;
	enum tls_alpn alpn; /* the one protocol that is offered */
	/* NULL, or the name of the one protocol in its place, up to 30 characters: both ends must speak it. */
	const char *protocol;
	bool also_http11; /* a server: a client that offers HTTP/1.1 only is told that this is agreed */
	bool only_tls13;
	bool mutual; /* a server: a client that shows no certificate is refused; `verify` is set */
	/* The identity to show, asked for at each new session: a reference, or NULL: none (a server then refuses the
	 * handshake). */
	struct identity *(*identity)(void *ctx);
	void *ctx;
	/* Server: the client's certificate is asked for, and checked if it comes; NULL: it is not asked for.
	 * Client: checks the server's; NULL: any will do. */
	tls_verify_fn *verify;
};

/* Settings that sessions share. One per thread: nothing in it is locked. */
struct tls_context;
enum code tls_context_new(const struct tls_options *options, struct tls_context **out, struct err *err);
void tls_context_free(struct tls_context *context); /* no session may be left; NULL is fine */
OWNABLE_STRUCT(tls_context, tls_context_free)

struct tls;

/* What goes to the peer is appended to `wire`, which must live as long as the session (it may be shared by many). */
enum code tls_new(struct tls_context *context, void *peer, struct buf *wire, struct tls **out, struct err *err);
void tls_free(struct tls *tls); /* NULL is fine */
OWNABLE_STRUCT(tls, tls_free)

enum tls_result {
	TLS_OK,
	TLS_WANT, /* nothing more to be had from the bytes given: all of them are taken */
	TLS_END,  /* the peer has said that it will send no more */
	TLS_FAILED,
};

/* Gives bytes from the peer. They are taken by the calls below and must stay until those answer TLS_WANT. */
void tls_input(struct tls *tls, const void *data, size_t len);

/* One step of the handshake: OK once it is done. A client's first call needs no input. FAILED: err says why, and the
 * alert, if one is due, is in `wire`. */
enum tls_result tls_handshake(struct tls *tls, struct err *err);

/* Up to `cap` bytes of plaintext, after the handshake. OK: *n > 0. */
enum tls_result tls_read(struct tls *tls, void *out, size_t cap, size_t *n, struct err *err);

/* Encrypts all of it. INTERNAL: the session is broken. */
enum code tls_write(struct tls *tls, const void *data, size_t len, struct err *err);

void tls_goodbye(struct tls *tls); /* close_notify, once */

bool tls_alpn_agreed(const struct tls *tls);            /* did the peer agree to the context's protocol? */
const char *tls_version(const struct tls *tls);         /* "TLSv1.3" */
STACK_OF(X509) * tls_peer_chain(const struct tls *tls); /* a client's: leaf first; NULL: none. Borrowed */

/* Sets "fmt: <the library's first reason>" and drains its queue. */
enum code tls_err(struct err *err, enum code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
