/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NET_HTTP_H
#define NET_HTTP_H

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"
#include "net/conn.h"
#include "net/listener.h"
#include "net/tls.h"

/* A small HTTP/1.1 server (RFC 9112), plain or over TLS, for pages that are made on the spot: health, metrics, bundles.
 * Request bodies are not read: such a connection is closed after its answer. Connections are kept open between
 * requests. Limits: 16 KiB of request line and headers; 10 s for a handshake, for headers once begun, and 60 s between
 * requests; a number of connections: one more takes the place of the one that has been quiet for the longest. */
struct http_server;

struct http_request {
	const char *method; /* "GET" */
	const char *path;   /* without the query */
};

struct http_answer {
	int status;               /* 200 */
	const char *content_type; /* a constant */
	struct buf body;
};

/* On the loop's thread; `answer` is 200 with an empty body until it says otherwise. */
typedef void http_handler(void *ctx, const struct http_request *request, struct http_answer *answer);

struct http_options {
	struct tls_context *tls; /* NULL: plain. It must outlive the server's loop */
	size_t connections;      /* at a time; 0: 256 */
	http_handler *handler;
	void *ctx; /* of both callbacks */
	/* TLS: the client has agreed to the context's protocol, which is not HTTP/1.1: the connection is the callee's
	 * from here on (conn_hand_over). NULL: it is HTTP/1.1 all the same. */
	void (*other)(void *ctx, struct conn_pool *pool, struct conn *conn);
};

/* On a socket that listens (taken over). On the loop's thread or before it runs. */
struct http_server *http_serve(struct loop *loop, struct listener *listener, const struct http_options *options);

/* Listens at once, or an error in the form "listen tcp 127.0.0.1:80: bind: address already in use". `address` is a name
 * or an IP address. Port 0: any, see http_port. On the loop's thread or before it runs. */
enum code http_listen(struct loop *loop, const char *address, int port, http_handler *handler, void *ctx,
		      struct http_server **out, struct err *err);
int http_port(const struct http_server *server);

/* Stops listening, closes every connection at once, those that `other` took too. Freed by the loop once all handles are
 * closed; `http_close_then` calls `done` after that. NULL is fine. */
void http_close(struct http_server *server);
void http_close_then(struct http_server *server, void (*done)(void *ctx), void *ctx);

#endif
