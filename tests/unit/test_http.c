/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"
#include "lib/test.h"
#include "net/http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

static struct err err;

static void answer_page(void *ctx, const struct http_request *request, struct http_answer *answer)
{
	answer->content_type = "text/plain";
	if (strcmp(request->path, "/missing") == 0)
		answer->status = 404;
	buf_printf(&answer->body, "%s %s %s", (const char *)ctx, request->method, request->path);
}

struct fixture {
	struct loop *loop;
	struct http_server *server;
	int port;
	struct message close;
};

static void start(struct fixture *f)
{
	f->loop = loop_new("http");
	CHECK_CODE(http_listen(f->loop, "127.0.0.1", 0, answer_page, "hello", &f->server, &err), CODE_OK);
	f->port = http_port(f->server);
	loop_start(f->loop);
}

static void close_server(struct message *message)
{
	http_close(((struct fixture *)((char *)message - offsetof(struct fixture, close)))->server);
}

static void stop(struct fixture *f)
{
	f->close.deliver = close_server;
	loop_post(f->loop, &f->close);
	loop_stop(f->loop);
	loop_join(f->loop);
	loop_free(f->loop);
}

static int dial(int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	CHECK_NUM(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
	return fd;
}

/* Reads until `want` has come or the peer has closed; answers what came. */
static const char *read_until(int fd, const char *want)
{
	static char got[65536];
	size_t len = 0;

	for (;;) {
		struct pollfd p = { fd, POLLIN, 0 };
		ssize_t n;

		got[len] = '\0';
		if (want != NULL && strstr(got, want) != NULL)
			return got;
		CHECK_NUM(poll(&p, 1, 10000), 1);
		n = read(fd, got + len, sizeof got - 1 - len);
		if (n <= 0)
			return got;
		len += (size_t)n;
	}
}

static void put(int fd, const char *text)
{
	CHECK_NUM(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

TEST(requests_on_one_connection_are_answered_in_turn)
{
	struct fixture f;
	const char *got;
	int fd;

	start(&f);
	fd = dial(f.port);
	put(fd, "GET /a?x=1 HTTP/1.1\r\nHost: x\r\n\r\nGET /missing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	got = read_until(fd, NULL);
	CHECK(strncmp(got, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: ", 46) == 0);
	CHECK(strstr(got, "Content-Length: 12\r\n\r\nhello GET /aHTTP/1.1 404 Not Found\r\n") != NULL);
	CHECK(strstr(got, "Connection: close\r\n\r\nhello GET /missing") != NULL);
	close(fd);
	stop(&f);
}

TEST(a_request_may_come_byte_by_byte)
{
	const char *text = "HEAD /b HTTP/1.0\r\n\r\n";
	struct fixture f;
	int fd;

	start(&f);
	fd = dial(f.port);
	for (const char *c = text; *c != '\0'; c++)
		CHECK_NUM(send(fd, c, 1, MSG_NOSIGNAL), 1);
	CHECK(strstr(read_until(fd, NULL), "Content-Length: 13\r\nConnection: close\r\n\r\n") != NULL);
	close(fd);
	stop(&f);
}

TEST(what_is_no_request_is_refused_and_hung_up_on)
{
	static const char *const bad[] = { "\r\n\r\n", "GET\r\n\r\n", "GET /\r\n\r\n", "GET x HTTP/1.1\r\n\r\n", "GET / HTTP/2.0\r\n\r\n",
					   " / HTTP/1.1\r\n\r\n" };
	struct fixture f;
	OWN_BUF huge = { 0 };
	int fd;

	start(&f);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		fd = dial(f.port);
		put(fd, bad[i]);
		CHECK(strncmp(read_until(fd, NULL), "HTTP/1.1 400 ", 13) == 0);
		close(fd);
	}
	fd = dial(f.port);
	buf_puts(&huge, "GET / HTTP/1.1\r\nX: ");
	while (huge.len < 17000)
		buf_put(&huge, 'x');
	put(fd, buf_text(&huge));
	CHECK(strncmp(read_until(fd, NULL), "HTTP/1.1 431 ", 13) == 0);
	close(fd);
	fd = dial(f.port); /* and it goes on */
	put(fd, "GET / HTTP/1.1\r\n\r\n");
	CHECK(strstr(read_until(fd, "hello GET /"), "200 OK") != NULL);
	close(fd);
	stop(&f);
}

TEST(a_body_is_not_read)
{
	struct fixture f;
	int fd;

	start(&f);
	fd = dial(f.port);
	put(fd, "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
	CHECK(strstr(read_until(fd, NULL), "Connection: close\r\n\r\nhello POST /") != NULL);
	close(fd);
	stop(&f);
}

TEST(a_port_in_use_is_named)
{
	struct fixture f;
	struct http_server *second;
	char want[96];

	start(&f);
	CHECK_CODE(http_listen(f.loop, "127.0.0.1", f.port, answer_page, "x", &second, &err), CODE_UNAVAILABLE);
	snprintf(want, sizeof want, "listen tcp 127.0.0.1:%d: bind: address already in use", f.port);
	CHECK_STR(err.text, want);
	stop(&f);
}

TEST(open_connections_end_with_the_server)
{
	struct fixture f;
	int idle, half;

	start(&f);
	idle = dial(f.port);
	half = dial(f.port);
	put(half, "GET / HTT");
	stop(&f);
	CHECK_STR(read_until(idle, NULL), "");
	CHECK_STR(read_until(half, NULL), "");
	close(idle);
	close(half);
}

TEST(one_connection_too_many_takes_the_place_of_the_quietest)
{
	enum { MANY = 256 };
	struct fixture f;
	int fds[MANY + 1];

	start(&f);
	for (size_t i = 0; i < MANY; i++) {
		fds[i] = dial(f.port);
		put(fds[i], "GET / HTTP/1.1\r\n\r\n");
		read_until(fds[i], "hello GET /");
	}
	put(fds[0], "GET /again HTTP/1.1\r\n\r\n"); /* the second is the quietest now */
	read_until(fds[0], "hello GET /again");
	fds[MANY] = dial(f.port);
	put(fds[MANY], "GET / HTTP/1.1\r\n\r\n");
	CHECK(strstr(read_until(fds[MANY], "hello GET /"), "200 OK") != NULL);
	CHECK_STR(read_until(fds[1], NULL), "");
	put(fds[0], "GET /third HTTP/1.1\r\n\r\n");
	CHECK(strstr(read_until(fds[0], "hello GET /third"), "200 OK") != NULL);
	for (size_t i = 0; i <= MANY; i++)
		close(fds[i]);
	stop(&f);
}

TEST(many_requests_in_one_piece_are_answered_in_order)
{
	struct fixture f;
	OWN_BUF sent = { 0 };
	const char *got, *at;
	int fd;

	start(&f);
	fd = dial(f.port);
	for (int i = 0; i < 100; i++)
		buf_printf(&sent, "GET /%03d HTTP/1.1\r\n\r\n", i);
	put(fd, buf_text(&sent));
	got = at = read_until(fd, "hello GET /099");
	for (int i = 0; i < 100; i++) {
		char want[32];

		snprintf(want, sizeof want, "hello GET /%03d", i);
		at = strstr(at, want);
		CHECK(at != NULL);
	}
	CHECK(got != at);
	close(fd);
	stop(&f);
}
