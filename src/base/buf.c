/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes that grow by doubling, and the texts that bytes are written as. */
#include "base/buf.h"

#include "base/arena.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CAP_MIN = 256 };

void buf_done(struct buf *buf)
{
	free(buf->data);
	*buf = (struct buf){ 0 };
}

void buf_reserve(struct buf *buf, size_t more)
{
	size_t want, cap;

	if (more <= buf->cap - buf->len)
		return;
	want = more > SIZE_MAX / 2 - buf->len ? SIZE_MAX : buf->len + more; /* too much: xrealloc says so */
	cap = buf->cap > SIZE_MAX / 2 ? SIZE_MAX : buf->cap * 2;
	if (cap < CAP_MIN)
		cap = CAP_MIN;
	if (cap < want)
		cap = want;
	buf->data = xrealloc(buf->data, cap);
	buf->cap = cap;
}

void buf_append(struct buf *buf, const void *data, size_t len)
{
	if (len == 0)
		return;
	buf_reserve(buf, len);
	memcpy(buf->data + buf->len, data, len);
	buf->len += len;
}

void buf_put(struct buf *buf, uint8_t byte)
{
	buf_reserve(buf, 1);
	buf->data[buf->len++] = byte;
}

void buf_puts(struct buf *buf, const char *text)
{
	buf_append(buf, text, strlen(text));
}

void buf_vprintf(struct buf *buf, const char *fmt, va_list args)
{
	va_list again;
	int len;

	buf_reserve(buf, 64);
	va_copy(again, args);
	len = vsnprintf((char *)buf->data + buf->len, buf->cap - buf->len, fmt, again);
	va_end(again);
	if (len < 0)
		abort(); /* no caller prints two gigabytes */
	if ((size_t)len >= buf->cap - buf->len) {
		buf_reserve(buf, (size_t)len + 1);
		vsnprintf((char *)buf->data + buf->len, (size_t)len + 1, fmt, args);
	}
	buf->len += (size_t)len;
}

void buf_printf(struct buf *buf, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	buf_vprintf(buf, fmt, args);
	va_end(args);
}

void buf_consume(struct buf *buf, size_t len)
{
	if (len >= buf->len) {
		buf->len = 0;
		return;
	}
	memmove(buf->data, buf->data + len, buf->len - len);
	buf->len -= len;
}

const char *buf_text(struct buf *buf)
{
	buf_reserve(buf, 1);
	buf->data[buf->len] = '\0';
	return (const char *)buf->data;
}

static const char alphabet[2][65] = { "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
				      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" };

void buf_base64(struct buf *buf, const void *data, size_t len, int url)
{
	const char *letter = alphabet[url != 0];
	const uint8_t *in = data;
	uint8_t *out;

	buf_reserve(buf, len / 3 * 4 + 4);
	out = buf->data + buf->len;
	for (; len >= 3; len -= 3, in += 3) {
		*out++ = (uint8_t)letter[in[0] >> 2];
		*out++ = (uint8_t)letter[(in[0] & 3) << 4 | in[1] >> 4];
		*out++ = (uint8_t)letter[(in[1] & 15) << 2 | in[2] >> 6];
		*out++ = (uint8_t)letter[in[2] & 63];
	}
	if (len > 0) {
		uint8_t second = len == 2 ? in[1] : 0;

		*out++ = (uint8_t)letter[in[0] >> 2];
		*out++ = (uint8_t)letter[(in[0] & 3) << 4 | second >> 4];
		if (len == 2)
			*out++ = (uint8_t)letter[(second & 15) << 2];
		for (size_t pad = len; !url && pad < 3; pad++)
			*out++ = '=';
	}
	buf->len = (size_t)(out - buf->data);
}

/* The six bits of a letter, -1 for what is none. */
static int unletter(char c, int url)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == (url ? '-' : '+'))
		return 62;
	if (c == (url ? '_' : '/'))
		return 63;
	return -1;
}

int buf_unbase64(struct buf *buf, const char *text, size_t len, int url)
{
	size_t before = buf->len;
	uint32_t bits = 0;

	if (!url) {
		if (len % 4 != 0)
			return 0;
		for (int pad = 0; pad < 2 && len > 0 && text[len - 1] == '='; pad++)
			len--;
	}
	if (len % 4 == 1)
		return 0;
	buf_reserve(buf, len / 4 * 3 + 3);
	for (size_t i = 0; i < len; i++) {
		int six = unletter(text[i], url);

		if (six < 0) {
			buf->len = before;
			return 0;
		}
		bits = bits << 6 | (uint32_t)six;
		if (i % 4 != 0)
			buf->data[buf->len++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
	}
	/* What the last letter carries beyond the last byte must be zero: one text for each value. */
	if ((len % 4 == 2 && (bits & 15) != 0) || (len % 4 == 3 && (bits & 3) != 0)) {
		buf->len = before;
		return 0;
	}
	return 1;
}

void buf_hex(struct buf *buf, const void *data, size_t len)
{
	const uint8_t *in = data;

	buf_reserve(buf, 2 * len);
	for (size_t i = 0; i < len; i++) {
		buf->data[buf->len++] = (uint8_t) "0123456789abcdef"[in[i] >> 4];
		buf->data[buf->len++] = (uint8_t) "0123456789abcdef"[in[i] & 15];
	}
}
