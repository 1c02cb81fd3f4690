/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that grow. `struct buf b = { 0 };` is an empty one; buf_done frees it (and leaves an empty one). */
struct buf {
	uint8_t *data;
	size_t len, cap;
};

/* Bytes that somebody else owns. */
struct span {
	const uint8_t *data;
	size_t len;
};

void buf_done(struct buf *buf);
void buf_reserve(struct buf *buf, size_t more); /* room for `more` bytes beyond len */
void buf_append(struct buf *buf, const void *data, size_t len);
void buf_put(struct buf *buf, uint8_t byte);
void buf_puts(struct buf *buf, const char *text);
void buf_printf(struct buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *buf, const char *fmt, va_list args) __attribute__((format(printf, 2, 0)));
void buf_consume(struct buf *buf, size_t len); /* drops the first `len` bytes */
const char *buf_text(struct buf *buf); /* NUL-terminated, the NUL not counted */

#define OWN_BUF __attribute__((cleanup(buf_done))) struct buf

/* base64: `url` picks base64url without padding (RFC 4648 section 5), else the standard alphabet with padding (section 4).
 * Decoding is strict; answers 0 for anything that is not canonical base64 (a line break too), and the buffer is as before. */
void buf_base64(struct buf *buf, const void *data, size_t len, int url);
int buf_unbase64(struct buf *buf, const char *text, size_t len, int url);
void buf_hex(struct buf *buf, const void *data, size_t len); /* lower case */

#endif
