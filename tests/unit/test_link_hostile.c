/* SPDX-License-Identifier: Apache-2.0 */
#include "base/list.h"
#include "base/rand.h"
#include "lib/link_nodes.h"
#include "net/stream.h"
#include "raft/codec.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

static struct err err;

/* --- hostile input --- */

struct raw {
	struct stream *stream;
	struct buf say;
	bool closed, open;
	struct buf heard;
};

static void raw_opened(void *ctx)
{
	struct raw *raw = ctx;

	raw->open = true;
	stream_write(raw->stream, raw->say.data, raw->say.len);
	stream_flush(raw->stream);
}

static void raw_data(void *ctx, const uint8_t *data, size_t len)
{
	buf_append(&((struct raw *)ctx)->heard, data, len);
}

static void raw_drained(void *ctx)
{
	(void)ctx;
}

static void raw_closed(void *ctx, const struct err *why)
{
	(void)why;
	((struct raw *)ctx)->closed = true;
}

static struct identity *raw_identity(void *ctx)
{
	return identity_ref(peer_key_identity(ctx));
}

static int dial_raw(int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CHECK_NUM(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* Speaks TLS with b's key to a, says the bytes; true if a hung up. */
static void say_raw(struct node *a, struct node *b, const struct tls_options *tls, const void *bytes, size_t len,
		    struct raw *raw)
{
	static const struct stream_events raw_events = { raw_opened, raw_data, raw_drained, raw_closed };
	OWN_STRUCT(tls_context) context = NULL;
	struct link all = { &all, &all };
	struct stream_options options = { .loop = b->loop, .events = &raw_events, .ctx = raw, .all = &all };

	*raw = (struct raw){ 0 };
	buf_append(&raw->say, bytes, len);
	CHECK_CODE(tls_context_new(tls, &context, &err), CODE_OK);
	options.tls = context;
	options.fd = dial_raw(a->port);
	CHECK_CODE(stream_open(&options, &raw->stream, &err), CODE_OK);
	UNTIL(raw->closed);
	stream_close_all(&all);
	turn_for(5);
	buf_done(&raw->say);
	buf_done(&raw->heard);
}

TEST(garbage_ends_the_connection_and_nothing_else)
{
	struct node *a, *b, *c;
	struct raw raw;
	struct tls_options tls = { .client = true, .protocol = "cluster-peer/1", .only_tls13 = true };
	static const struct {
		const char *bytes;
		size_t len;
	} cases[] = {
		{ "\x04\x00\x00\x00\x01x", 6 },            /* a message before the first words */
		{ "\x01\xff\xff\xff\xff", 5 },             /* a lie about the length */
		{ "\x01\x00\x00\x00\x03\xff\xff\xff", 8 }, /* no hello */
		{ "\x01\x00\x00\x00\x00", 5 },             /* an empty one */
		{ "\x00", 1 },
		{ "GET / HTTP/1.1\r\n\r\n", 18 },
		{ "\x05\x00\x00\x00\x11"
		  "12345678\x01"
		  "1234"
		  "\x00\x00\x00\x00",
		  22 }, /* a request of nobody */
	};

	two_up(&a, &b);
	c = node(3);
	tls.identity = raw_identity;
	tls.ctx = c->key;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		say_raw(a, c, &tls, cases[i].bytes, cases[i].len, &raw);
	tls.protocol = NULL; /* h2 */
	say_raw(a, c, &tls, "", 0, &raw);
	CHECK(!raw.open);
	tls.protocol = "cluster-peer/1";
	tls.identity = NULL; /* no certificate */
	say_raw(a, c, &tls, "\x01\x00\x00\x00\x00", 5, &raw);
	for (int i = 0; i < 20; i++) { /* not even TLS */
		uint8_t noise[600];
		int fd = dial_raw(a->port);

		rand_bytes(noise, sizeof noise);
		if (i % 2 == 0)
			memcpy(noise, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
		CHECK(send(fd, noise, sizeof noise, MSG_NOSIGNAL) > 0);
		turn_for(5);
		close(fd);
	}
	turn_for(20);
	CHECK(is_up(a, b) && is_up(b, a));
	CHECK_NUM(a->downs + b->downs, 0);
	CHECK_NUM(a->messages + a->requests, 0);
	stop_all();
}

TEST(a_message_that_is_too_long_for_its_kind_ends_its_connection)
{
	struct node *a, *b;
	uint8_t *message = calloc(1, 1000000);

	two_up(&a, &b);
	message[0] = PEER_VOTE;
	CHECK(link_send(a->links, 2, message, 1000000, false));
	UNTIL(a->downs == 1 && a->refusals == 1);
	CHECK_STR(a->why, "a message is longer than its kind may be");
	UNTIL(is_up(a, b));
	message[0] = 99;
	CHECK(link_send(a->links, 2, message, 1, false));
	UNTIL(a->downs == 2);
	CHECK_NUM(b->messages, 0);
	free(message);
	stop_all();
}

/* A client that speaks TLS 1.2 at most gets an alert. */
TEST(only_tls_13_is_spoken)
{
	struct node *a = node(1);
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
	uint8_t answer[64];
	ssize_t n = -1;
	char *hello;
	SSL *ssl;
	int fd = dial_raw(a->port);

	SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
	ssl = SSL_new(context);
	SSL_set_bio(ssl, in, out);
	SSL_set_connect_state(ssl);
	CHECK(SSL_do_handshake(ssl) < 1);
	n = BIO_get_mem_data(out, &hello);
	CHECK(send(fd, hello, (size_t)n, MSG_NOSIGNAL) == n);
	UNTIL((n = recv(fd, answer, sizeof answer, MSG_DONTWAIT)) >= 0);
	CHECK(n >= 7);
	CHECK_NUM(answer[0], 21); /* alert */
	CHECK_NUM(answer[6], 70); /* protocol_version */
	close(fd);
	SSL_free(ssl);
	SSL_CTX_free(context);
	stop_all();
}

TEST(many_silent_connections_do_not_keep_a_member_out)
{
	struct node *a = node(1), *b;
	int fds[150];

	for (int i = 0; i < 150; i++) {
		fds[i] = dial_raw(a->port);
		if (i % 10 == 0)
			turn_for(1);
	}
	b = node(2);
	acquaint(2);
	UNTIL(is_up(a, b) && is_up(b, a));
	for (int i = 0; i < 150; i++)
		close(fds[i]);
	stop_all();
}

TEST(a_message_that_makes_no_sense_ends_its_connection)
{
	struct node *a, *b;

	two_up(&a, &b);
	b->refuse_messages = 1;
	CHECK(send_number(a, b, 0, 10, false));
	UNTIL(a->downs == 1 && a->refusals == 1);
	CHECK_NUM(a->reason, LINK_REFUSED_PROTOCOL);
	CHECK_STR(a->why, "nonsense");
	b->refuse_messages = 0;
	UNTIL(is_up(a, b));
	stop_all();
}
