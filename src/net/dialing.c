/* SPDX-License-Identifier: Apache-2.0 */
/* Connecting without waiting: numeric addresses at once, names through libuv's threads. */
#include "net/stream.h"

#include "base/arena.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct dialing {
	uv_getaddrinfo_t lookup;
	uv_poll_t poll;
	uv_timer_t timer;
	struct loop *loop;
	struct addrinfo *found; /* as the resolver made it */
	const struct addrinfo *next;
	int64_t each_ms;
	dialing_fn *done; /* NULL: cancelled */
	void *ctx;
	int fd, number; /* of what failed */
	int busy;       /* handles and look-ups that will still call back */
	bool poll_open, others_than_refused, ended;
	char host[256], port[8], why[160];
};

static void drop(struct dialing *d)
{
	if (--d->busy > 0)
		return;
	if (d->found != NULL)
		uv_freeaddrinfo(d->found);
	free(d);
}

static void handle_closed(uv_handle_t *handle)
{
	drop(handle->data);
}

static void stop_poll(struct dialing *d)
{
	if (!d->poll_open)
		return;
	d->poll_open = false;
	uv_poll_stop(&d->poll);
	uv_close((uv_handle_t *)&d->poll, handle_closed);
}

static void finish(struct dialing *d, int fd)
{
	dialing_fn *done = d->done;
	char why[sizeof d->why];
	int number = d->others_than_refused && d->number == ECONNREFUSED ? EHOSTUNREACH : d->number;
	void *ctx = d->ctx;

	if (d->ended)
		return;
	d->ended = true;
	memcpy(why, d->why, sizeof why);
	stop_poll(d);
	if (fd < 0 && d->fd >= 0)
		close(d->fd);
	uv_close((uv_handle_t *)&d->timer, handle_closed);
	if (done != NULL)
		done(ctx, fd, number, why);
	else if (fd >= 0)
		close(fd);
}

static void failed(struct dialing *d, int number)
{
	struct err err = { 0 };

	err_errno(&err, CODE_UNAVAILABLE, number, "", NULL);
	snprintf(d->why, sizeof d->why, "%.150s", err.text + strlen(": "));
	d->number = number;
	d->others_than_refused = d->others_than_refused || number != ECONNREFUSED;
}

static void try_next(struct dialing *d);

/* A dial to a free port of this machine may meet itself: the kernel picks the same port for both ends. */
static bool met_itself(int fd)
{
	struct sockaddr_storage here = { 0 }, there = { 0 };
	socklen_t n_here = sizeof here, n_there = sizeof there;

	return getsockname(fd, (struct sockaddr *)&here, &n_here) == 0 &&
	       getpeername(fd, (struct sockaddr *)&there, &n_there) == 0 && n_here == n_there &&
	       memcmp(&here, &there, n_here) == 0;
}

static void settle(struct dialing *d, int number)
{
	int fd = d->fd;

	stop_poll(d);
	if (number == 0 && met_itself(fd))
		number = ECONNREFUSED;
	if (number == 0) {
		finish(d, fd);
		return;
	}
	close(fd);
	d->fd = -1;
	failed(d, number);
	try_next(d);
}

static void on_poll(uv_poll_t *poll, int status, int events __attribute__((unused)))
{
	struct dialing *d = poll->data;
	int number = 0;
	socklen_t len = sizeof number;

	getsockopt(d->fd, SOL_SOCKET, SO_ERROR, &number, &len);
	settle(d, number != 0 ? number : status < 0 ? ECONNRESET : 0);
}

static void on_timer(uv_timer_t *timer)
{
	struct dialing *d = timer->data;

	if (d->fd >= 0)
		settle(d, ETIMEDOUT);
	else if (d->found == NULL && d->number == 0)
		return; /* still looking up: its own time-outs end it, or the owner */
	else
		try_next(d);
}

static void try_next(struct dialing *d)
{
	while (d->next != NULL) {
		const struct addrinfo *at = d->next;

		d->next = at->ai_next;
		d->fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (d->fd < 0) {
			failed(d, errno);
			continue;
		}
		if ((connect(d->fd, at->ai_addr, at->ai_addrlen) == 0 || errno == EINPROGRESS) &&
		    uv_poll_init(loop_uv(d->loop), &d->poll, d->fd) == 0) {
			d->poll.data = d;
			d->poll_open = true;
			d->busy++;
			uv_poll_start(&d->poll, UV_WRITABLE, on_poll);
			uv_timer_start(&d->timer, on_timer, (uint64_t)d->each_ms, 0);
			return;
		}
		failed(d, errno);
		close(d->fd);
		d->fd = -1;
	}
	finish(d, -1);
}

static void begin(struct dialing *d)
{
	int n = 0;

	for (const struct addrinfo *at = d->found; at != NULL; at = at->ai_next)
		n++;
	d->each_ms = n > 0 ? d->each_ms / n + 1 : 1;
	d->next = d->found;
}

static void found(uv_getaddrinfo_t *lookup, int status, struct addrinfo *result)
{
	struct dialing *d = lookup->data;

	d->found = result;
	if (d->ended) {
		drop(d);
		return;
	}
	if (status < 0) {
		d->number = EHOSTUNREACH;
		d->others_than_refused = true;
		snprintf(d->why, sizeof d->why, "lookup %.100s: %s", d->host, uv_strerror(status));
	}
	begin(d);
	try_next(d);
	drop(d);
}

/* HOST:PORT, [HOST]:PORT. */
static bool split(struct dialing *d, const char *address)
{
	const char *colon = strrchr(address, ':');
	size_t len = colon != NULL ? (size_t)(colon - address) : 0;

	if (len > 1 && address[0] == '[' && address[len - 1] == ']') {
		address++;
		len -= 2;
	}
	if (len == 0 || len >= sizeof d->host || strlen(colon + 1) >= sizeof d->port)
		return false;
	memcpy(d->host, address, len);
	snprintf(d->port, sizeof d->port, "%s", colon + 1);
	return true;
}

struct dialing *dialing_start(struct loop *loop, const char *address, int64_t timeout_ms, dialing_fn *done, void *ctx)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
	struct dialing *d = xcalloc(1, sizeof *d);

	d->loop = loop;
	d->done = done;
	d->ctx = ctx;
	d->fd = -1;
	d->each_ms = timeout_ms;
	d->busy = 1;
	uv_timer_init(loop_uv(loop), &d->timer);
	d->timer.data = d->lookup.data = d;
	if (!split(d, address)) {
		failed(d, EINVAL);
		snprintf(d->why, sizeof d->why, "\"%.100s\" is not HOST:PORT", address);
	} else if (getaddrinfo(d->host, d->port, &hints, &d->found) == 0) {
		begin(d);
	} else {
		d->found = NULL;
		hints.ai_flags = AI_NUMERICSERV;
		if (uv_getaddrinfo(loop_uv(loop), &d->lookup, found, d->host, d->port, &hints) == 0) {
			d->busy++;
			return d;
		}
		failed(d, EHOSTUNREACH);
	}
	uv_timer_start(&d->timer, on_timer, 0, 0);
	return d;
}

void dialing_cancel(struct dialing *d)
{
	if (d == NULL)
		return;
	d->done = NULL;
	uv_cancel((uv_req_t *)&d->lookup);
	finish(d, -1);
}
