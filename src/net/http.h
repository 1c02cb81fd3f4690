/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NET_HTTP_H
#define NET_HTTP_H

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"

/* A small HTTP/1.1 server (RFC 9112) for pages that are made on the spot: health and metrics. Request bodies are not read: such a
 * connection is closed after its answer. Connections are kept open between requests. Limits: 16 KiB of request line and headers,
 * 10 s to send them, 256 connections. */
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

/* Listens at once, or an error in the form "listen tcp 127.0.0.1:80: bind: address already in use". `address` is a name or an
 * IP address. Port 0: any, see http_port. On the loop's thread or before it runs. */
enum code http_listen(struct loop *loop, const char *address, int port, http_handler *handler, void *ctx, struct http_server **out,
		      struct err *err);
int http_port(const struct http_server *server);

/* Stops listening, closes every connection at once. Freed by the loop once all handles are closed. NULL is fine. */
void http_close(struct http_server *server);

#endif
