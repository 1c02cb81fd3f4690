/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/rawh2.h"

#include <nghttp2/nghttp2.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { WAIT_MS = 10000 };

struct rawh2 {
	int fd;
	uint8_t *payload;
	nghttp2_hd_inflater *inflater;
	bool no_pong;
};

static bool receive(struct rawh2 *wire, void *out, size_t len)
{
	uint8_t *at = out;

	while (len > 0) {
		struct pollfd poller = { .fd = wire->fd, .events = POLLIN };
		ssize_t n;

		if (poll(&poller, 1, WAIT_MS) <= 0)
			return false;
		n = recv(wire->fd, at, len, 0);
		if (n <= 0)
			return false;
		at += n;
		len -= (size_t)n;
	}
	return true;
}

struct rawh2 *rawh2_dial_bare(const char *unix_path)
{
	struct rawh2 *wire = calloc(1, sizeof *wire);
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	snprintf(at.sun_path, sizeof at.sun_path, "%s", unix_path);
	wire->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(wire->fd, (struct sockaddr *)&at, sizeof at) != 0)
		abort();
	wire->payload = malloc(1 << 24);
	nghttp2_hd_inflate_new(&wire->inflater);
	return wire;
}

struct rawh2 *rawh2_dial(const char *unix_path)
{
	struct rawh2 *wire = rawh2_dial_bare(unix_path);

	rawh2_send(wire, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
	rawh2_frame(wire, SETTINGS, 0, 0, NULL, 0);
	return wire;
}

struct rawh2 *rawh2_accept(int listen_fd)
{
	struct rawh2 *wire = calloc(1, sizeof *wire);
	char preface[24];

	wire->fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	wire->payload = malloc(1 << 24);
	nghttp2_hd_inflate_new(&wire->inflater);
	if (wire->fd < 0 || !receive(wire, preface, sizeof preface))
		abort();
	rawh2_frame(wire, SETTINGS, 0, 0, NULL, 0);
	return wire;
}

void rawh2_close(struct rawh2 *wire)
{
	close(wire->fd);
	nghttp2_hd_inflate_del(wire->inflater);
	free(wire->payload);
	free(wire);
}

int rawh2_fd(struct rawh2 *wire)
{
	return wire->fd;
}

void rawh2_answer_pings(struct rawh2 *wire, bool answer)
{
	wire->no_pong = !answer;
}

void rawh2_send(struct rawh2 *wire, const void *data, size_t len)
{
	const char *at = data;

	while (len > 0) {
		ssize_t n = send(wire->fd, at, len, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		at += n;
		len -= (size_t)n;
	}
}

void rawh2_frame(struct rawh2 *wire, uint8_t type, uint8_t flags, int32_t stream, const void *payload, size_t len)
{
	uint8_t *frame = malloc(9 + len);

	frame[0] = (uint8_t)(len >> 16);
	frame[1] = (uint8_t)(len >> 8);
	frame[2] = (uint8_t)len;
	frame[3] = type;
	frame[4] = flags;
	for (int i = 0; i < 4; i++)
		frame[5 + i] = (uint8_t)((uint32_t)stream >> (24 - 8 * i));
	if (len > 0)
		memcpy(frame + 9, payload, len);
	rawh2_send(wire, frame, 9 + len);
	free(frame);
}

static size_t put_integer(uint8_t *out, size_t n)
{
	size_t at = 0;

	if (n < 127) {
		out[at++] = (uint8_t)n;
		return at;
	}
	out[at++] = 127;
	for (n -= 127; n > 127; n >>= 7)
		out[at++] = (uint8_t)(n & 127) | 128;
	out[at++] = (uint8_t)n;
	return at;
}

static size_t put_pair(uint8_t *out, const char *name, const char *value)
{
	size_t at = 0;

	out[at++] = 0; /* a literal, not indexed */
	at += put_integer(out + at, strlen(name));
	memcpy(out + at, name, strlen(name));
	at += strlen(name);
	at += put_integer(out + at, strlen(value));
	memcpy(out + at, value, strlen(value));
	return at + strlen(value);
}

void rawh2_request(struct rawh2 *wire, int32_t stream, uint8_t flags, const char *path, const char *const *more)
{
	const char *const own[][2] = { { ":method", "POST" },
				       { ":scheme", "http" },
				       { ":path", path },
				       { ":authority", "localhost" },
				       { "content-type", "application/grpc" },
				       { "te", "trailers" } };
	uint8_t *block = malloc(1 << 20);
	size_t len = 0;

	for (size_t i = 0; path != NULL && i < sizeof own / sizeof own[0]; i++)
		len += put_pair(block + len, own[i][0], own[i][1]);
	for (; more != NULL && *more != NULL; more += 2)
		len += put_pair(block + len, more[0], more[1]);
	for (size_t at = 0; at < len;) { /* in frames of 16 KiB */
		size_t n = len - at < 16384 ? len - at : 16384;
		uint8_t last = at + n == len ? END_HEADERS : 0;

		rawh2_frame(wire, at == 0 ? HEADERS : CONTINUATION, at == 0 ? flags | last : last, stream, block + at,
			    n);
		at += n;
	}
	free(block);
}

void rawh2_message(struct rawh2 *wire, int32_t stream, uint8_t flags, const void *message, size_t len)
{
	uint8_t *bytes = malloc(len + 5);

	bytes[0] = 0;
	for (int i = 0; i < 4; i++)
		bytes[1 + i] = (uint8_t)(len >> (24 - 8 * i));
	if (len > 0)
		memcpy(bytes + 5, message, len);
	for (size_t at = 0; at < len + 5;) {
		size_t n = len + 5 - at < 16384 ? len + 5 - at : 16384;

		rawh2_frame(wire, DATA, at + n == len + 5 ? flags : 0, stream, bytes + at, n);
		at += n;
	}
	free(bytes);
}

static void inflate(struct rawh2 *wire, struct rawh2_frame *out)
{
	const uint8_t *in = out->payload;
	size_t left = out->len, at = 0;

	for (;;) {
		nghttp2_nv nv;
		int flags = 0;
		ssize_t n = nghttp2_hd_inflate_hd2(wire->inflater, &nv, &flags, in, left, 1);

		if (n < 0)
			abort();
		in += n;
		left -= (size_t)n;
		if (flags & NGHTTP2_HD_INFLATE_EMIT)
			at += (size_t)snprintf(out->headers + at, sizeof out->headers - at, "%s: %s\n", nv.name,
					       nv.value);
		if (flags & NGHTTP2_HD_INFLATE_FINAL)
			break;
		if (!(flags & NGHTTP2_HD_INFLATE_EMIT) && left == 0)
			break;
	}
	nghttp2_hd_inflate_end_headers(wire->inflater);
}

bool rawh2_read(struct rawh2 *wire, struct rawh2_frame *out)
{
	uint8_t head[9];

	if (!receive(wire, head, sizeof head))
		return false;
	*out = (struct rawh2_frame){ .type = head[3], .flags = head[4], .payload = wire->payload };
	out->len = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
	out->stream =
		(int32_t)((uint32_t)(head[5] & 127) << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8]);
	if (!receive(wire, out->payload, out->len))
		return false;
	if (out->type == HEADERS)
		inflate(wire, out);
	if (out->type == SETTINGS && !(out->flags & ACK))
		rawh2_frame(wire, SETTINGS, ACK, 0, NULL, 0);
	if (out->type == PING && !(out->flags & ACK) && !wire->no_pong)
		rawh2_frame(wire, PING, ACK, 0, out->payload, out->len);
	return true;
}

bool rawh2_await(struct rawh2 *wire, uint8_t type, struct rawh2_frame *out)
{
	while (rawh2_read(wire, out))
		if (out->type == type)
			return true;
	return false;
}

bool rawh2_finish(struct rawh2 *wire, int32_t stream, struct rawh2_frame *out, size_t *data)
{
	size_t n = 0;

	while (rawh2_read(wire, out)) {
		if (out->stream != stream)
			continue;
		if (out->type == DATA)
			n += out->len;
		if (data != NULL)
			*data = n;
		if (out->type == RST_STREAM)
			return false;
		if ((out->type == HEADERS || out->type == DATA) && (out->flags & END_STREAM))
			return true;
	}
	return false;
}

bool rawh2_closed(struct rawh2 *wire)
{
	for (;;) {
		struct pollfd poller = { .fd = wire->fd, .events = POLLIN };
		char byte[4096];
		ssize_t n;

		if (poll(&poller, 1, WAIT_MS) <= 0)
			return false;
		n = recv(wire->fd, byte, sizeof byte, 0);
		if (n == 0 || (n < 0 && errno == ECONNRESET))
			return true;
	}
}
