/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "lib/pki.h"
#include "lib/test.h"
#include "net/conn.h"

#include <openssl/ssl.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* A connection on a loop of its own; the test's thread holds the other end of a socket pair. */
struct fixture {
	struct loop *loop;
	struct conn_pool *pool;
	struct conn *conn;
	int fd; /* the test's end */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under the lock: what the events did */
	struct buf got;
	_Atomic size_t to_write, written;
	int opened, timers;
	bool closed, close_on_data, pump;
	struct err why;
	/* a call on the loop */
	struct message message;
	void (*run)(struct fixture *f);
	bool ran;
};

static void changed(struct fixture *f)
{
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
}

static void on_opened(void *ctx)
{
	struct fixture *f = ctx;

	pthread_mutex_lock(&f->lock);
	f->opened++;
	changed(f);
}

static void on_data(void *ctx, const uint8_t *data, size_t len)
{
	struct fixture *f = ctx;

	pthread_mutex_lock(&f->lock);
	buf_append(&f->got, data, len);
	if (f->close_on_data)
		conn_close(f->conn, true);
	changed(f);
}

static void on_writable(void *ctx)
{
	struct fixture *f = ctx;
	static const char block[10000];

	while (conn_room(f->conn) && f->written < f->to_write) {
		size_t n = f->to_write - f->written < sizeof block ? f->to_write - f->written : sizeof block;

		conn_write(f->conn, block, n);
		f->written += n;
	}
	if (f->written < f->to_write)
		conn_want_write(f->conn);
}

static void on_timer(void *ctx)
{
	struct fixture *f = ctx;

	pthread_mutex_lock(&f->lock);
	f->timers++;
	changed(f);
}

static void on_closed(void *ctx, const struct err *why)
{
	struct fixture *f = ctx;

	pthread_mutex_lock(&f->lock);
	assert_false(f->closed);
	f->closed = true;
	f->conn = NULL;
	f->why = *why;
	changed(f);
}

static void deliver(struct message *message)
{
	struct fixture *f = (struct fixture *)((char *)message - offsetof(struct fixture, message));

	f->run(f);
	pthread_mutex_lock(&f->lock);
	f->ran = true;
	changed(f);
}

static void on_loop(struct fixture *f, void (*run)(struct fixture *f))
{
	f->run = run;
	f->ran = false;
	f->message.deliver = deliver;
	loop_post(f->loop, &f->message);
	pthread_mutex_lock(&f->lock);
	while (!f->ran)
		pthread_cond_wait(&f->changed, &f->lock);
	pthread_mutex_unlock(&f->lock);
}

/* Until `holds`, at most 10 s. */
static void await(struct fixture *f, bool (*holds)(struct fixture *f))
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 10;
	pthread_mutex_lock(&f->lock);
	while (!holds(f))
		if (pthread_cond_timedwait(&f->changed, &f->lock, &until) == ETIMEDOUT)
			break;
	if (!holds(f)) {
		pthread_mutex_unlock(&f->lock);
		fail_msg("it does not happen");
	}
	pthread_mutex_unlock(&f->lock);
}

static const struct conn_events events = {
	.opened = on_opened, .data = on_data, .writable = on_writable, .timer = on_timer, .closed = on_closed
};

static struct tls_context *context; /* for the next fixture */
static int64_t handshake_ms = 10000;

static void open_conn(struct fixture *f)
{
	struct conn_options options = { .events = &events, .ctx = f, .tls = context, .handshake_ms = handshake_ms };
	struct err err = { 0 };
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	f->fd = fds[0];
	options.fd = fds[1];
	CHECK_CODE(conn_open(f->pool, &options, &f->conn, &err), CODE_OK);
}

static struct fixture *start(void)
{
	struct fixture *f = calloc(1, sizeof *f);

	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->changed, NULL);
	f->loop = loop_new("conn");
	f->pool = conn_pool_new(f->loop);
	loop_start(f->loop);
	on_loop(f, open_conn);
	return f;
}

static void abort_all(struct fixture *f)
{
	conn_pool_abort(f->pool);
}

static void stop(struct fixture *f)
{
	on_loop(f, abort_all);
	loop_stop(f->loop);
	loop_join(f->loop);
	loop_free(f->loop);
	conn_pool_free(f->pool);
	if (f->fd >= 0)
		close(f->fd);
	buf_done(&f->got);
	pthread_mutex_destroy(&f->lock);
	pthread_cond_destroy(&f->changed);
	free(f);
}

static bool got_five(struct fixture *f)
{
	return f->got.len >= 5;
}

static bool is_closed(struct fixture *f)
{
	return f->closed;
}

static void want_write(struct fixture *f)
{
	conn_want_write(f->conn);
}

/* Reads until the peer's end or `len` bytes. */
static size_t read_all(int fd, size_t len)
{
	static char sink[65536];
	size_t n = 0;

	while (n < len) {
		struct pollfd poller = { .fd = fd, .events = POLLIN };
		ssize_t got;

		if (poll(&poller, 1, 10000) <= 0)
			break;
		got = recv(fd, sink, len - n < sizeof sink ? len - n : sizeof sink, 0);
		if (got <= 0)
			break;
		n += (size_t)got;
	}
	return n;
}

TEST(bytes_come_and_go)
{
	struct fixture *f = start();

	CHECK_NUM(send(f->fd, "hello", 5, 0), 5);
	await(f, got_five);
	CHECK_BYTES(f->got.data, "hello", 5);
	f->to_write = 12345;
	on_loop(f, want_write);
	CHECK_NUM(read_all(f->fd, 12345), 12345);
	stop(f);
}

TEST(the_peer_closes)
{
	struct fixture *f = start();

	CHECK_NUM(send(f->fd, "hello", 5, 0), 5);
	close(f->fd);
	f->fd = -1;
	await(f, is_closed);
	CHECK_NUM(f->got.len, 5);
	CHECK_NUM(f->why.code, CODE_OK);
	stop(f);
}

static size_t room_for(int fd)
{
	int size = 0;
	socklen_t len = sizeof size;

	getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, &len);
	return (size_t)size;
}

/* A reader that sleeps holds us, and what we keep for it is bounded; when it reads, all of it comes. */
TEST(a_reader_that_sleeps)
{
	struct fixture *f = start();
	size_t total = 64 << 20;

	f->to_write = total;
	on_loop(f, want_write);
	on_loop(f, want_write); /* asking again changes nothing */
	CHECK(f->written < 4 * room_for(f->fd) + (1 << 20));
	CHECK_NUM(read_all(f->fd, total), total);
	stop(f);
}

static void close_flushing(struct fixture *f)
{
	conn_close(f->conn, true);
}

/* What was due before the close is asked for once more, and sent, though the peer reads late. */
TEST(closing_sends_what_is_due)
{
	struct fixture *f = start();

	f->to_write = 50000;
	on_loop(f, close_flushing);
	CHECK_NUM(f->written, 50000);
	CHECK_NUM(read_all(f->fd, 1 << 20), 50000);
	CHECK(!f->closed); /* it was our doing */
	stop(f);
}

TEST(closing_from_within_an_event)
{
	struct fixture *f = start();

	f->close_on_data = true;
	f->to_write = 1000;
	CHECK_NUM(send(f->fd, "hello", 5, 0), 5);
	CHECK_NUM(read_all(f->fd, 1 << 20), 1000);
	CHECK(!f->closed);
	stop(f);
}

TEST(the_peer_goes_while_we_write)
{
	struct fixture *f = start();

	f->to_write = 64 << 20;
	on_loop(f, want_write);
	close(f->fd);
	f->fd = -1;
	await(f, is_closed);
	stop(f);
}

static void set_timer(struct fixture *f)
{
	conn_timer(f->conn, 100000);
	conn_timer(f->conn, 1);
}

static bool had_a_timer(struct fixture *f)
{
	return f->timers == 1;
}

TEST(timers)
{
	struct fixture *f = start();

	on_loop(f, set_timer);
	await(f, had_a_timer);
	stop(f);
}

TEST(aborting_tells_the_owner)
{
	struct fixture *f = start();

	on_loop(f, abort_all);
	CHECK(f->closed);
	CHECK_NUM(f->why.code, CODE_UNAVAILABLE);
	CHECK_NUM(read_all(f->fd, 1), 0);
	stop(f);
}

/* --- through TLS --- */

static struct identity *server_identity;

static struct identity *give_identity(void *ctx)
{
	(void)ctx;
	return identity_ref(server_identity);
}

static void with_tls(bool with)
{
	const struct tls_options options = { .identity = give_identity };
	struct err err;

	if (with) {
		EVP_PKEY *key = pki_key("P-256");
		X509 *cert = pki_cert(&(struct pki_cert){ .subject = "/CN=server", .key = key });
		OWN_BUF der = { 0 };

		pki_der(&der, cert);
		CHECK_CODE(identity_new(key, &(struct span){ der.data, der.len }, 1, &server_identity, &err), CODE_OK);
		CHECK_CODE(tls_context_new(&options, &context, &err), CODE_OK);
		X509_free(cert);
		EVP_PKEY_free(key);
	} else {
		tls_context_free(context);
		identity_unref(server_identity);
		context = NULL;
	}
}

static SSL *tls_client(SSL_CTX *ctx, int fd, const char *alpn)
{
	SSL *ssl = SSL_new(ctx);

	if (alpn != NULL)
		SSL_set_alpn_protos(ssl, (const unsigned char *)alpn, (unsigned)strlen(alpn));
	SSL_set_fd(ssl, fd);
	return ssl;
}

TEST(bytes_through_tls)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	struct fixture *f;
	char sink[4096];
	size_t n = 0;
	SSL *ssl;
	int got;

	with_tls(true);
	f = start();
	ssl = tls_client(ctx, f->fd, "\2h2");
	CHECK_NUM(SSL_connect(ssl), 1);
	CHECK_NUM(SSL_write(ssl, "hello", 5), 5);
	await(f, got_five);
	CHECK_NUM(f->opened, 1);
	f->to_write = 300000;
	on_loop(f, want_write);
	while (n < 300000 && (got = SSL_read(ssl, sink, sizeof sink)) > 0)
		n += (size_t)got;
	CHECK_NUM(n, 300000);
	f->to_write += 20;
	on_loop(f, close_flushing);
	CHECK_NUM(SSL_read(ssl, sink, sizeof sink), 20);
	got = SSL_read(ssl, sink, sizeof sink);
	CHECK_NUM(SSL_get_error(ssl, got), SSL_ERROR_ZERO_RETURN); /* close_notify */
	SSL_free(ssl);
	stop(f);
	with_tls(false);
	SSL_CTX_free(ctx);
}

TEST(a_tls_client_without_the_protocol_is_hung_up_on)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	struct fixture *f;
	char byte;
	SSL *ssl;

	with_tls(true);
	f = start();
	ssl = tls_client(ctx, f->fd, NULL);
	CHECK_NUM(SSL_connect(ssl), 1);
	CHECK_NUM(SSL_read(ssl, &byte, 1), 0);
	await(f, is_closed);
	CHECK_NUM(f->opened, 0);
	CHECK_NUM(f->why.code, CODE_UNAVAILABLE);
	SSL_free(ssl);
	stop(f);
	with_tls(false);
	SSL_CTX_free(ctx);
}

TEST(what_is_no_tls)
{
	struct fixture *f;

	with_tls(true);
	f = start();
	CHECK_NUM(send(f->fd, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
	await(f, is_closed);
	CHECK(strncmp(f->why.text, "TLS handshake failed", 20) == 0);
	stop(f);
	with_tls(false);
}

TEST(a_handshake_that_does_not_end)
{
	struct fixture *f;

	with_tls(true);
	handshake_ms = 20;
	f = start();
	handshake_ms = 10000;
	await(f, is_closed);
	CHECK_NUM(f->why.code, CODE_DEADLINE_EXCEEDED);
	CHECK_NUM(read_all(f->fd, 1), 0);
	stop(f);
	with_tls(false);
}
