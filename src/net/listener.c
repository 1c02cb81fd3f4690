/* SPDX-License-Identifier: Apache-2.0 */
/* accept4 until there is nothing left, once a turn at most ACCEPTS_A_TURN, so that a flood of connections does not keep the loop
 * from its other work. */
#include "net/listener.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 1024, ACCEPTS_A_TURN = 64, PAUSE_MS = 100 };

struct listener {
	uv_poll_t poll;
	uv_timer_t pause;
	int fd, open_handles;
	bool tcp, short_of_descriptors;
	listener_fn *accepted;
	void *ctx;
	char address[256];
};

/* --- accepting --- */

static void readable(uv_poll_t *poll, int status, int events);

static void pause_over(uv_timer_t *timer)
{
	struct listener *l = timer->data;

	uv_poll_start(&l->poll, UV_READABLE, readable);
}

static void take_a_break(struct listener *l, int why)
{
	if (!l->short_of_descriptors) {
		log_warn("Connections wait to be accepted", KV("address", l->address), KV("error", strerror(why)),
			 KV("subsystem_name", "endpoints"));
		l->short_of_descriptors = true;
	}
	uv_poll_stop(&l->poll);
	uv_timer_start(&l->pause, pause_over, PAUSE_MS, 0);
}

static bool passes(int why) /* the connection's own trouble: the next one may do */
{
	return why == ECONNABORTED || why == EINTR || why == EPROTO || why == EPERM || why == ENETDOWN || why == ENOPROTOOPT ||
	       why == EHOSTDOWN || why == ENONET || why == EHOSTUNREACH || why == EOPNOTSUPP || why == ENETUNREACH;
}

static void readable(uv_poll_t *poll, int status __attribute__((unused)), int events __attribute__((unused)))
{
	struct listener *l = poll->data;

	for (int n = 0; n < ACCEPTS_A_TURN; n++) {
		int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;

		if (fd >= 0) {
			l->short_of_descriptors = false;
			if (l->tcp)
				setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
			l->accepted(l->ctx, fd);
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			return;
		} else if (!passes(errno)) {
			take_a_break(l, errno);
			return;
		}
	}
}

void listener_accept(struct listener *l, listener_fn *accepted, void *ctx)
{
	l->accepted = accepted;
	l->ctx = ctx;
	uv_poll_start(&l->poll, UV_READABLE, readable);
}

/* --- opening --- */

static struct listener *listener_new(struct loop *loop, int fd, bool tcp)
{
	struct listener *l = xcalloc(1, sizeof *l);

	l->fd = fd;
	l->tcp = tcp;
	l->open_handles = 2;
	uv_poll_init(loop_uv(loop), &l->poll, fd);
	uv_timer_init(loop_uv(loop), &l->pause);
	l->poll.data = l->pause.data = l;
	return l;
}

static enum code failed(struct err *err, int fd, const char *network, const char *address, const char *call, int why)
{
	char what[320];

	if (fd >= 0)
		close(fd);
	snprintf(what, sizeof what, "listen %s %s: %s", network, address, call);
	return err_errno(err, CODE_UNAVAILABLE, why, what, NULL);
}

static void describe(int fd, char out[256])
{
	struct sockaddr_storage at = { 0 };
	socklen_t len = sizeof at;
	char host[128] = "", port[16] = "";

	getsockname(fd, (struct sockaddr *)&at, &len);
	getnameinfo((struct sockaddr *)&at, len, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(out, 256, at.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static enum code bind_and_listen(const struct addrinfo *at, bool both, const char *text, int *out, struct err *err)
{
	int one = 1, only = !both;
	int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return failed(err, fd, "tcp", text, "socket", errno);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (at->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
	if (bind(fd, at->ai_addr, at->ai_addrlen) != 0)
		return failed(err, fd, "tcp", text, "bind", errno);
	if (listen(fd, BACKLOG) != 0)
		return failed(err, fd, "tcp", text, "listen", errno);
	*out = fd;
	return CODE_OK;
}

static bool has_ipv6(void)
{
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

enum code listener_tcp(struct loop *loop, const char *address, int port, struct listener **out, struct err *err)
{
	const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
	bool both = (strcmp(address, "0.0.0.0") == 0 || address[0] == '\0') && has_ipv6();
	struct addrinfo *found;
	struct listener *l;
	char service[16], text[256];
	enum code rc;
	int fd = -1, failure;

	snprintf(service, sizeof service, "%d", port);
	snprintf(text, sizeof text, strchr(address, ':') != NULL ? "[%.200s]:%d" : "%.200s:%d", address, port);
	failure = getaddrinfo(both ? "::" : address, service, &hints, &found);
	if (failure != 0)
		return err_set(err, CODE_UNAVAILABLE, "listen tcp: lookup %s: %s", address, gai_strerror(failure));
	rc = bind_and_listen(found, both, text, &fd, err);
	freeaddrinfo(found);
	if (rc != CODE_OK)
		return rc;
	l = listener_new(loop, fd, true);
	describe(fd, l->address);
	*out = l;
	return CODE_OK;
}

static enum code make_parents(const char *path, struct err *err)
{
	OWN_BUF level = { 0 };

	for (const char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		level.len = 0;
		buf_append(&level, path, (size_t)(slash - path));
		if (mkdir(buf_text(&level), 0750) != 0 && errno != EEXIST)
			return err_errno(err, CODE_UNAVAILABLE, errno, "create socket directory: mkdir", buf_text(&level));
	}
	return CODE_OK;
}

enum code listener_unix_check(const char *path, struct err *err)
{
	const size_t max = sizeof((struct sockaddr_un *)NULL)->sun_path - 1;

	if (strlen(path) > max)
		return err_set(err, CODE_UNAVAILABLE, "listen unix %s: bind: the path has more than %zu characters", path, max);
	return CODE_OK;
}

enum code listener_unix(struct loop *loop, const char *path, struct listener **out, struct err *err)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct listener *l;
	int fd;

	TRY(listener_unix_check(path, err));
	strcpy(at.sun_path, path);
	TRY(make_parents(path, err));
	if (unlink(path) != 0 && errno != ENOENT)
		return err_errno(err, CODE_UNAVAILABLE, errno, "remove", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return failed(err, fd, "unix", path, "socket", errno);
	fchmod(fd, 0600); /* the file is born with it: nobody gets in before the mode below */
	if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0)
		return failed(err, fd, "unix", path, "bind", errno);
	if (chmod(path, 0770) != 0)
		return failed(err, fd, "unix", path, "chmod", errno);
	if (listen(fd, BACKLOG) != 0)
		return failed(err, fd, "unix", path, "listen", errno);
	l = listener_new(loop, fd, false);
	snprintf(l->address, sizeof l->address, "%s", path);
	*out = l;
	return CODE_OK;
}

const char *listener_address(const struct listener *l)
{
	return l->address;
}

int listener_port(const struct listener *l)
{
	const char *colon = l->tcp ? strrchr(l->address, ':') : NULL;

	return colon == NULL ? 0 : atoi(colon + 1);
}

/* --- closing --- */

static void handle_closed(uv_handle_t *handle)
{
	struct listener *l = handle->data;

	if (--l->open_handles == 0)
		free(l);
}

void listener_close(struct listener *l)
{
	if (l == NULL)
		return;
	uv_poll_stop(&l->poll);
	close(l->fd);
	if (!l->tcp)
		unlink(l->address);
	uv_close((uv_handle_t *)&l->poll, handle_closed);
	uv_close((uv_handle_t *)&l->pause, handle_closed);
}
