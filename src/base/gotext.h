/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_GOTEXT_H
#define BASE_GOTEXT_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The ways in which Go's standard library reads and writes values, because flags, the configuration and SPIRE's texts
 * rest on them: durations, integers and booleans as text, %q. Pure functions, thread-safe. */

#define GO_SECOND INT64_C(1000000000)

/* "1h30m", "300ms", "-1.5h", "0": nanoseconds. Refused: `time: invalid duration "x"`, `time: unknown unit "d" in
 * duration "1d"`, `time: missing unit in duration "5"`. */
enum code go_parse_duration(const char *text, int64_t *ns, struct err *err);

/* "1h30m0s", "1.5s", "250ms", "0s". Answers `out`. */
enum { GO_DURATION_MAX = 32 };
const char *go_format_duration(int64_t ns, char out[GO_DURATION_MAX]);

/* strconv.ParseInt(text, 0, 64): sign, 0x 0o 0b 0 prefixes, '_' between digits. */
enum go_int { GO_INT_OK, GO_INT_SYNTAX, GO_INT_RANGE };
enum go_int go_parse_int(const char *text, int64_t *out);

/* strconv.ParseBool: 1 t T TRUE true True, 0 f F FALSE false False. */
bool go_parse_bool(const char *text, bool *out);

/* fmt's %q: double quotes, escapes; what is not UTF-8 as \x.. . */
void go_quote(struct buf *out, const char *text);
void go_quote_bytes(struct buf *out, const char *data, size_t len);

/* One UTF-8 sequence at `data`: its length, and the code point; length 1 and 0xFFFD for what is none (as Go decodes).
 * `len` > 0. */
size_t go_decode_rune(const char *data, size_t len, uint32_t *rune);
void go_put_rune(struct buf *out, uint32_t rune);

#endif
