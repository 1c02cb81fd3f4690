/* SPDX-License-Identifier: Apache-2.0 */
/* One read buffer a connection. An answer is made when the connection takes output, so the next request is looked at
 * when the answer before it is on its way; those that came in one piece are answered in one piece. The list of
 * connections begins with the one that has been quiet for the longest. */
#include "net/http.h"

#include "base/arena.h"
#include "base/list.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX = 16 << 10, HEAD_MS = 10 * 1000, IDLE_MS = 60 * 1000, CONNECTIONS = 256, PIPELINE_MAX = 64 << 10 };

struct http_server {
	struct http_options options;
	struct listener *listener;
	struct conn_pool *pool;
	struct link connections;
	size_t n_connections;
	void (*done)(void *ctx);
	void *done_ctx;
};

struct connection {
	struct link link;
	struct http_server *server;
	struct conn *conn;
	struct buf in;
	bool last, begun; /* no request is read any more; a head has begun and its time runs */
};

static void forget(struct connection *c)
{
	list_remove(&c->link);
	c->server->n_connections--;
	buf_done(&c->in);
	free(c);
}

static void hang_up(struct connection *c, bool flush)
{
	conn_close(c->conn, flush);
	forget(c);
}

static const char *reason(int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 400:
		return "Bad Request";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 431:
		return "Request Header Fields Too Large";
	default:
		return "Internal Server Error";
	}
}

static void send_answer(struct connection *c, const struct http_answer *answer, bool without_body)
{
	char date[64], head[512];
	time_t now = time(NULL);
	struct tm tm;
	int len;

	gmtime_r(&now, &tm);
	strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
	len = snprintf(head, sizeof head,
		       "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nDate: %s\r\nContent-Length: %zu\r\n%s\r\n",
		       answer->status, reason(answer->status), answer->content_type, date, answer->body.len,
		       c->last ? "Connection: close\r\n" : "");
	assert(len > 0 && (size_t)len < sizeof head);
	conn_write(c->conn, head, (size_t)len);
	if (!without_body)
		conn_write(c->conn, answer->body.data, answer->body.len);
}

static void refuse(struct connection *c, int status)
{
	struct http_answer answer = { .status = status, .content_type = "text/plain; charset=utf-8" };

	c->last = true;
	buf_printf(&answer.body, "%d %s\n", status, reason(status));
	send_answer(c, &answer, false);
	buf_done(&answer.body);
}

/* The value of a header in `head` (NUL-terminated lines, CR stripped later), or NULL. */
static const char *header(const char *head, const char *name, size_t *len)
{
	size_t name_len = strlen(name);

	for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
		line += 2;
		if (strncasecmp(line, name, name_len) == 0 && line[name_len] == ':') {
			const char *value = line + name_len + 1;

			value += strspn(value, " \t");
			*len = strcspn(value, "\r\n");
			return value;
		}
	}
	return NULL;
}

static bool header_is(const char *head, const char *name, const char *want)
{
	size_t len;
	const char *value = header(head, name, &len);

	return value != NULL && len == strlen(want) && strncasecmp(value, want, len) == 0;
}

/* "GET /path?query HTTP/1.1": cut in place. */
static bool split_request_line(char *head, struct http_request *request, bool *http_1_0)
{
	char *end = strstr(head, "\r\n"), *method = head, *target, *version;

	if (end == NULL)
		return false;
	*end = '\0';
	target = strchr(method, ' ');
	if (target == NULL)
		return false;
	*target++ = '\0';
	version = strchr(target, ' ');
	if (version == NULL || target[0] != '/')
		return false;
	*version++ = '\0';
	target[strcspn(target, "?")] = '\0';
	*http_1_0 = strcmp(version, "HTTP/1.0") == 0;
	request->method = method;
	request->path = target;
	return method[0] != '\0' && (*http_1_0 || strcmp(version, "HTTP/1.1") == 0);
}

static void serve_head(struct connection *c, char *head)
{
	const struct http_options *options = &c->server->options;
	struct http_answer answer = { .status = 200, .content_type = "text/plain; charset=utf-8" };
	struct http_request request;
	bool http_1_0 = false;
	size_t len;
	bool close = header_is(head, "Connection", "close") || header(head, "Transfer-Encoding", &len) != NULL ||
		     (header(head, "Content-Length", &len) != NULL && !header_is(head, "Content-Length", "0"));

	if (!split_request_line(head, &request, &http_1_0)) {
		refuse(c, 400);
		return;
	}
	c->last = close || http_1_0;
	options->handler(options->ctx, &request, &answer);
	send_answer(c, &answer, strcmp(request.method, "HEAD") == 0);
	buf_done(&answer.body);
}

/* One request of those that have come. False: there is none, wait. */
static bool next_request(struct connection *c)
{
	uint8_t *end = c->in.len == 0 ? NULL : memmem(c->in.data, c->in.len, "\r\n\r\n", 4);
	OWN_BUF head = { 0 };

	if (end == NULL && c->in.len < HEAD_MAX)
		return false;
	if (end == NULL || end - c->in.data >= HEAD_MAX) {
		refuse(c, 431);
		return true;
	}
	if (memchr(c->in.data, '\0', (size_t)(end - c->in.data)) != NULL) {
		refuse(c, 400);
		return true;
	}
	buf_append(&head, c->in.data, (size_t)(end - c->in.data) + 2);
	buf_consume(&c->in, (size_t)(end - c->in.data) + 4);
	c->begun = false;
	serve_head(c, (char *)(uintptr_t)buf_text(&head));
	return true;
}

/* A head has HEAD_MS from its first byte on, however it trickles in. */
static void set_time(struct connection *c)
{
	if (c->in.len > 0 && c->begun)
		return;
	c->begun = c->in.len > 0;
	conn_timer(c->conn, c->begun ? HEAD_MS : IDLE_MS);
}

/* --- events of the connection --- */

static void conn_opened(void *ctx)
{
	struct connection *c = ctx;
	struct http_server *server = c->server;
	struct conn *conn = c->conn;

	if (server->options.other != NULL && tls_alpn_agreed(conn_tls(conn))) {
		forget(c);
		server->options.other(server->options.ctx, server->pool, conn);
		return;
	}
	conn_timer(conn, HEAD_MS);
}

static void conn_data(void *ctx, const uint8_t *data, size_t len)
{
	struct connection *c = ctx;

	if (c->in.len > PIPELINE_MAX) { /* it sends on while we answer */
		hang_up(c, false);
		return;
	}
	buf_append(&c->in, data, len);
	set_time(c);
	conn_want_write(c->conn);
}

static void conn_writable(void *ctx)
{
	struct connection *c = ctx;
	bool served = false;

	while (!c->last && conn_room(c->conn) && next_request(c))
		served = true;
	if (c->last) {
		hang_up(c, true);
		return;
	}
	if (served) {
		list_remove(&c->link);
		list_push(&c->server->connections, &c->link);
		if (c->in.len == 0)
			buf_done(&c->in);
		set_time(c);
	}
	if (!conn_room(c->conn))
		conn_want_write(c->conn);
}

static void conn_tick(void *ctx)
{
	hang_up(ctx, false);
}

static void conn_closed(void *ctx, const struct err *why __attribute__((unused)))
{
	forget(ctx);
}

/* --- the server --- */

static void accepted(void *ctx, int fd)
{
	static const struct conn_events events = { conn_opened, conn_data, conn_writable, conn_tick, conn_closed };
	struct http_server *server = ctx;
	struct connection *c = xcalloc(1, sizeof *c);
	const struct conn_options options = {
		.fd = fd,
		.tcp = true,
		.tls = server->options.tls,
		.handshake_ms = HEAD_MS,
		.any_protocol = true,
		.events = &events,
		.ctx = c,
	};
	struct err err;

	if (server->n_connections >= server->options.connections)
		hang_up(LIST_ITEM(server->connections.next, struct connection, link), false);
	c->server = server;
	list_init(&c->link);
	if (conn_open(server->pool, &options, &c->conn, &err) != CODE_OK) {
		free(c);
		return;
	}
	list_push(&server->connections, &c->link);
	server->n_connections++;
	conn_timer(c->conn, HEAD_MS);
}

struct http_server *http_serve(struct loop *loop, struct listener *listener, const struct http_options *options)
{
	struct http_server *server = xcalloc(1, sizeof *server);

	server->options = *options;
	if (server->options.connections == 0)
		server->options.connections = CONNECTIONS;
	server->listener = listener;
	server->pool = conn_pool_new(loop);
	list_init(&server->connections);
	listener_accept(listener, accepted, server);
	return server;
}

enum code http_listen(struct loop *loop, const char *address, int port, http_handler *handler, void *ctx,
		      struct http_server **out, struct err *err)
{
	const struct http_options options = { .handler = handler, .ctx = ctx };
	struct listener *listener;

	TRY(listener_tcp(loop, address, port, &listener, err));
	*out = http_serve(loop, listener, &options);
	return CODE_OK;
}

int http_port(const struct http_server *server)
{
	return listener_port(server->listener);
}

static void pool_ended(void *ctx)
{
	struct http_server *server = ctx;

	if (server->done != NULL)
		server->done(server->done_ctx);
	free(server);
}

void http_close_then(struct http_server *server, void (*done)(void *ctx), void *ctx)
{
	if (server == NULL)
		return;
	server->done = done;
	server->done_ctx = ctx;
	listener_close(server->listener);
	conn_pool_end(server->pool, pool_ended, server);
}

void http_close(struct http_server *server)
{
	http_close_then(server, NULL, NULL);
}
