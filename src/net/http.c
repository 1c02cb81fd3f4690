/* SPDX-License-Identifier: Apache-2.0 */
/* One read buffer a connection, one answer at a time: the next request is looked at when the answer before it has been written. */
#include "net/http.h"

#include "base/arena.h"
#include "base/list.h"

#include <assert.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { HEAD_MAX = 16 << 10, HEAD_MS = 10 * 1000, IDLE_MS = 60 * 1000, CONNECTIONS_MAX = 256, BACKLOG = 128 };

struct http_server {
	uv_tcp_t tcp;
	uv_loop_t *uv;
	http_handler *handler;
	void *ctx;
	struct link connections;
	size_t n_connections;
	bool closing, tcp_closed;
};

struct connection {
	struct link link;
	struct http_server *server;
	uv_tcp_t tcp;
	uv_timer_t timer;
	uv_write_t write;
	struct buf in, out;
	int open_handles;
	bool closing, writing, last;
};

static void server_free_if_done(struct http_server *server)
{
	if (server->closing && server->tcp_closed && server->n_connections == 0)
		free(server);
}

static void handle_closed(uv_handle_t *handle)
{
	struct connection *c = handle->data;
	struct http_server *server = c->server;

	if (--c->open_handles > 0)
		return;
	list_remove(&c->link);
	server->n_connections--;
	buf_done(&c->in);
	buf_done(&c->out);
	free(c);
	server_free_if_done(server);
}

static void hang_up(struct connection *c)
{
	if (c->closing)
		return;
	c->closing = true;
	uv_close((uv_handle_t *)&c->tcp, handle_closed);
	uv_close((uv_handle_t *)&c->timer, handle_closed);
}

static void expired(uv_timer_t *timer)
{
	hang_up(timer->data);
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

static void next_request(struct connection *c);

static void written(uv_write_t *write, int status)
{
	struct connection *c = write->data;

	c->writing = false;
	if (status != 0 || c->last)
		hang_up(c);
	else if (!c->closing)
		next_request(c);
}

static void send_answer(struct connection *c, struct http_answer *answer, bool without_body)
{
	char date[64];
	time_t now = time(NULL);
	struct tm tm;
	uv_buf_t bytes;

	gmtime_r(&now, &tm);
	strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
	c->out.len = 0;
	buf_printf(&c->out, "HTTP/1.1 %d %s\r\n", answer->status, reason(answer->status));
	buf_printf(&c->out, "Content-Type: %s\r\nDate: %s\r\nContent-Length: %zu\r\n", answer->content_type, date, answer->body.len);
	buf_puts(&c->out, c->last ? "Connection: close\r\n\r\n" : "\r\n");
	if (!without_body)
		buf_append(&c->out, answer->body.data, answer->body.len);
	buf_done(&answer->body);
	bytes = uv_buf_init((char *)c->out.data, (unsigned)c->out.len);
	c->write.data = c;
	c->writing = true;
	if (uv_write(&c->write, (uv_stream_t *)&c->tcp, &bytes, 1, written) != 0)
		hang_up(c);
}

static void refuse(struct connection *c, int status)
{
	struct http_answer answer = { .status = status, .content_type = "text/plain; charset=utf-8" };

	c->last = true;
	buf_printf(&answer.body, "%d %s\n", status, reason(status));
	send_answer(c, &answer, false);
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
	c->server->handler(c->server->ctx, &request, &answer);
	send_answer(c, &answer, strcmp(request.method, "HEAD") == 0);
}

static void next_request(struct connection *c)
{
	uint8_t *end = memmem(c->in.data == NULL ? (uint8_t *)"" : c->in.data, c->in.len, "\r\n\r\n", 4);
	OWN_BUF head = { 0 };

	if (end == NULL && c->in.len >= HEAD_MAX) {
		refuse(c, 431);
		return;
	}
	if (end == NULL) {
		uv_timer_start(&c->timer, expired, c->in.len == 0 ? IDLE_MS : HEAD_MS, 0);
		return;
	}
	if (memchr(c->in.data, '\0', (size_t)(end - c->in.data)) != NULL) {
		refuse(c, 400);
		return;
	}
	buf_append(&head, c->in.data, (size_t)(end - c->in.data) + 2);
	buf_consume(&c->in, (size_t)(end - c->in.data) + 4);
	uv_timer_start(&c->timer, expired, IDLE_MS, 0);
	serve_head(c, (char *)(uintptr_t)buf_text(&head));
}

static void give_room(uv_handle_t *handle, size_t hint __attribute__((unused)), uv_buf_t *out)
{
	struct connection *c = handle->data;

	buf_reserve(&c->in, 4096);
	*out = uv_buf_init((char *)c->in.data + c->in.len, (unsigned)(c->in.cap - c->in.len));
}

static void received(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes __attribute__((unused)))
{
	struct connection *c = stream->data;

	if (n < 0) {
		hang_up(c);
		return;
	}
	c->in.len += (size_t)n;
	if (c->in.len > 2 * HEAD_MAX) /* it sends on while we answer */
		hang_up(c);
	else if (!c->writing && !c->last && n > 0)
		next_request(c);
}

static void accepted(uv_stream_t *stream, int status)
{
	struct http_server *server = stream->data;
	struct connection *c;

	if (status != 0)
		return;
	c = xcalloc(1, sizeof *c);
	c->server = server;
	c->open_handles = 2;
	c->tcp.data = c->timer.data = c;
	list_init(&c->link);
	list_push(&server->connections, &c->link);
	server->n_connections++;
	uv_tcp_init(server->uv, &c->tcp);
	uv_timer_init(server->uv, &c->timer);
	if (uv_accept(stream, (uv_stream_t *)&c->tcp) != 0 || server->n_connections > CONNECTIONS_MAX ||
	    uv_read_start((uv_stream_t *)&c->tcp, give_room, received) != 0) {
		hang_up(c);
		return;
	}
	uv_timer_start(&c->timer, expired, HEAD_MS, 0);
}

static enum code resolve(const char *address, int port, struct sockaddr_storage *out, struct err *err)
{
	const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
	struct addrinfo *found;
	char service[16];
	int rc;

	snprintf(service, sizeof service, "%d", port);
	rc = getaddrinfo(address[0] == '\0' ? NULL : address, service, &hints, &found);
	if (rc != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "listen tcp: lookup %s: %s", address, gai_strerror(rc));
	memcpy(out, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	return CODE_OK;
}

static void listener_closed(uv_handle_t *handle)
{
	struct http_server *server = handle->data;

	server->tcp_closed = true;
	server_free_if_done(server);
}

void http_close(struct http_server *server)
{
	if (server == NULL)
		return;
	server->closing = true;
	LIST_FOR_SAFE(item, &server->connections)
		hang_up(LIST_ITEM(item, struct connection, link));
	uv_close((uv_handle_t *)&server->tcp, listener_closed);
}

enum code http_listen(struct loop *loop, const char *address, int port, http_handler *handler, void *ctx, struct http_server **out,
		      struct err *err)
{
	struct sockaddr_storage at = { 0 };
	struct http_server *server;
	int rc;

	TRY(resolve(address, port, &at, err));
	server = xcalloc(1, sizeof *server);
	server->uv = loop_uv(loop);
	server->handler = handler;
	server->ctx = ctx;
	list_init(&server->connections);
	uv_tcp_init(server->uv, &server->tcp);
	server->tcp.data = server;
	rc = uv_tcp_bind(&server->tcp, (const struct sockaddr *)&at, 0);
	if (rc == 0)
		rc = uv_listen((uv_stream_t *)&server->tcp, BACKLOG, accepted);
	if (rc != 0) {
		OWN_BUF what = { 0 };

		http_close(server);
		buf_printf(&what, strchr(address, ':') != NULL ? "listen tcp [%s]:%d: bind" : "listen tcp %s:%d: bind", address, port);
		return err_errno(err, CODE_UNAVAILABLE, -rc, buf_text(&what), NULL);
	}
	*out = server;
	return CODE_OK;
}

int http_port(const struct http_server *server)
{
	struct sockaddr_storage at;
	int len = sizeof at;

	if (uv_tcp_getsockname(&server->tcp, (struct sockaddr *)&at, &len) != 0)
		return 0;
	return ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port : ((struct sockaddr_in *)&at)->sin_port);
}
