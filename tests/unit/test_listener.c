/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/test.h"
#include "net/listener.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct err err;

struct fixture {
	struct loop *loop;
	struct listener *listener;
	struct message close;
	atomic_int accepted;
};

static void greet(void *ctx, int fd)
{
	struct fixture *f = ctx;

	atomic_fetch_add(&f->accepted, 1);
	CHECK_NUM(write(fd, "hi", 2), 2);
	close(fd);
}

static void close_it(struct message *message)
{
	listener_close(((struct fixture *)((char *)message - offsetof(struct fixture, close)))->listener);
}

static void run(struct fixture *f)
{
	listener_accept(f->listener, greet, f);
	loop_start(f->loop);
}

static void stop(struct fixture *f)
{
	f->close.deliver = close_it;
	loop_post(f->loop, &f->close);
	loop_stop(f->loop);
	loop_join(f->loop);
	loop_free(f->loop);
}

static void greeted(int fd)
{
	struct pollfd p = { fd, POLLIN, 0 };
	char got[2];

	CHECK_NUM(poll(&p, 1, 10000), 1);
	CHECK_NUM(read(fd, got, 2), 2);
	CHECK_BYTES(got, "hi", 2);
	close(fd);
}

static int dial_tcp(int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	CHECK_NUM(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
	return fd;
}

static int dial_unix(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(at.sun_path, path);
	CHECK_NUM(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
	return fd;
}

TEST(tcp_connections_are_handed_on)
{
	struct fixture f = { .loop = loop_new("listener") };
	char want[64];

	CHECK_CODE(listener_tcp(f.loop, "127.0.0.1", 0, &f.listener, &err), CODE_OK);
	snprintf(want, sizeof want, "127.0.0.1:%d", listener_port(f.listener));
	CHECK_STR(listener_address(f.listener), want);
	run(&f);
	for (int i = 0; i < 200; i++)
		greeted(dial_tcp(listener_port(f.listener)));
	CHECK_NUM(atomic_load(&f.accepted), 200);
	stop(&f);
}

TEST(a_port_in_use_is_refused_as_go_says_it)
{
	struct fixture f = { .loop = loop_new("listener") };
	struct listener *second;
	char want[96];

	CHECK_CODE(listener_tcp(f.loop, "127.0.0.1", 0, &f.listener, &err), CODE_OK);
	snprintf(want, sizeof want, "listen tcp %s: bind: address already in use", listener_address(f.listener));
	CHECK_CODE(listener_tcp(f.loop, "127.0.0.1", listener_port(f.listener), &second, &err), CODE_UNAVAILABLE);
	CHECK_STR(err.text, want);
	run(&f);
	stop(&f);
}

TEST(a_socket_has_its_modes_and_replaces_a_stale_file)
{
	struct fixture f = { .loop = loop_new("listener") };
	char path[240], dir[200];
	struct stat st;
	FILE *stale;

	umask(0);
	snprintf(dir, sizeof dir, "%s/a/b", test_dir());
	snprintf(path, sizeof path, "%s/api.sock", dir);
	CHECK_CODE(listener_unix(f.loop, path, &f.listener, &err), CODE_OK);
	run(&f);
	CHECK(stat(dir, &st) == 0 && (st.st_mode & 0777) == 0750);
	CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0770);
	CHECK_STR(listener_address(f.listener), path);
	greeted(dial_unix(path));
	stop(&f);
	CHECK(stat(path, &st) != 0);
	stale = fopen(path, "w");
	fclose(stale);
	f = (struct fixture){ .loop = loop_new("listener") };
	CHECK_CODE(listener_unix(f.loop, path, &f.listener, &err), CODE_OK);
	run(&f);
	greeted(dial_unix(path));
	stop(&f);
}

TEST(a_path_that_is_too_long_is_an_error)
{
	struct loop *loop = loop_new("listener");
	struct listener *listener;
	char path[300];

	memset(path, 'x', sizeof path - 1);
	path[0] = '/';
	path[sizeof path - 1] = '\0';
	CHECK_CODE(listener_unix(loop, path, &listener, &err), CODE_UNAVAILABLE);
	CHECK(strstr(err.text, "more than 107 characters") != NULL);
	CHECK_CODE(listener_unix_check("/tmp/fits", &err), CODE_OK);
	loop_free(loop);
}

TEST(out_of_descriptors_connections_wait)
{
	struct fixture f = { .loop = loop_new("listener") };
	struct rlimit before, tight;
	int fd, spare;

	CHECK_CODE(listener_tcp(f.loop, "127.0.0.1", 0, &f.listener, &err), CODE_OK);
	fd = dial_tcp(listener_port(f.listener));
	spare = dup(fd);
	getrlimit(RLIMIT_NOFILE, &before);
	tight = before;
	tight.rlim_cur = (rlim_t)spare + 1;
	close(spare);
	while ((spare = dup(fd)) < (int)tight.rlim_cur - 1)
		;
	setrlimit(RLIMIT_NOFILE, &tight);
	run(&f);
	setrlimit(RLIMIT_NOFILE, &before);
	greeted(fd);
	stop(&f);
}
