/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The first character of `len` bytes: its size in bytes and its number, 0 when they do not begin with valid UTF-8
 * (overlong forms, surrogates and what is above U+10FFFF are not valid). */
size_t utf8_next(const char *text, size_t len, uint32_t *rune);

bool utf8_valid(const char *text, size_t len);

#endif
