/* SPDX-License-Identifier: Apache-2.0 */
/* Go's textual forms of durations, numbers, booleans and quoted strings. Nothing here allocates but the buffers it is
 * given. */
#include "base/gotext.h"

#include <string.h>
#include <unictype.h>

static const struct {
	const char *name;
	uint64_t ns;
} units[] = {
	{ "ns", 1 },
	{ "us", 1000 },
	{ "\xc2\xb5s", 1000 },
	{ "\xce\xbcs", 1000 },
	{ "ms", 1000000 },
	{ "s", 1000000000 },
	{ "m", 60 * UINT64_C(1000000000) },
	{ "h", 3600 * UINT64_C(1000000000) },
};

static const uint64_t LARGEST = UINT64_C(1) << 63; /* of a magnitude: -2^63 is a duration, 2^63 is not */

static uint64_t unit_of(const char *text, size_t len)
{
	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
		if (strlen(units[i].name) == len && memcmp(units[i].name, text, len) == 0)
			return units[i].ns;
	return 0;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static enum code bad_duration(const char *why, const char *text, struct err *err)
{
	OWN_BUF quoted = { 0 };

	go_quote(&quoted, text);
	return err_set(err, CODE_INVALID_ARGUMENT, "time: %s %s", why, buf_text(&quoted));
}

static enum code unknown_unit(const char *unit, size_t len, const char *text, struct err *err)
{
	OWN_BUF name = { 0 };
	OWN_BUF quoted = { 0 };

	go_quote_bytes(&name, unit, len);
	go_quote(&quoted, text);
	return err_set(err, CODE_INVALID_ARGUMENT, "time: unknown unit %s in duration %s", buf_text(&name),
		       buf_text(&quoted));
}

/* The digits at *at; false when they do not fit. */
static bool leading_int(const char **at, uint64_t *value)
{
	*value = 0;
	for (; is_digit(**at); (*at)++) {
		if (*value > LARGEST / 10)
			return false;
		*value = *value * 10 + (uint64_t)(**at - '0');
		if (*value > LARGEST)
			return false;
	}
	return true;
}

/* The digits behind a point: value / *scale. Digits that no longer fit are skipped. */
static uint64_t leading_fraction(const char **at, double *scale)
{
	uint64_t value = 0;
	bool full = false;

	for (*scale = 1; is_digit(**at); (*at)++) {
		full = full || value > (LARGEST - 1) / 10;
		if (full)
			continue;
		value = value * 10 + (uint64_t)(**at - '0');
		*scale *= 10;
	}
	return value;
}

/* One "1.5h" at *at, added to *sum. */
static enum code add_part(const char **at, const char *whole, uint64_t *sum, struct err *err)
{
	const char *from = *at;
	uint64_t value, unit, fraction = 0;
	double scale = 1;
	size_t digits, len;

	if (!leading_int(at, &value))
		return bad_duration("invalid duration", whole, err);
	digits = (size_t)(*at - from);
	if (**at == '.') {
		const char *behind = ++*at;

		fraction = leading_fraction(at, &scale);
		digits += (size_t)(*at - behind);
	}
	if (digits == 0)
		return bad_duration("invalid duration", whole, err);
	for (len = 0; (*at)[len] != '\0' && (*at)[len] != '.' && !is_digit((*at)[len]); len++)
		;
	if (len == 0)
		return bad_duration("missing unit in duration", whole, err);
	unit = unit_of(*at, len);
	if (unit == 0)
		return unknown_unit(*at, len, whole, err);
	*at += len;
	if (value > LARGEST / unit)
		return bad_duration("invalid duration", whole, err);
	value = value * unit + (uint64_t)((double)fraction * ((double)unit / scale));
	if (value > LARGEST || *sum + value > LARGEST)
		return bad_duration("invalid duration", whole, err);
	*sum += value;
	return CODE_OK;
}

enum code go_parse_duration(const char *text, int64_t *ns, struct err *err)
{
	const char *at = text;
	uint64_t sum = 0;
	bool negative = *at == '-';

	if (*at == '-' || *at == '+')
		at++;
	if (strcmp(at, "0") == 0) {
		*ns = 0;
		return CODE_OK;
	}
	if (*at == '\0')
		return bad_duration("invalid duration", text, err);
	while (*at != '\0')
		TRY(add_part(&at, text, &sum, err));
	if (sum == LARGEST && !negative)
		return bad_duration("invalid duration", text, err);
	*ns = negative ? (int64_t)-sum : (int64_t)sum;
	return CODE_OK;
}

/* `value` / 10^`places` without trailing zeros, written backwards from `end`. */
static char *put_fraction(char *end, uint64_t *value, int places)
{
	bool any = false;

	for (int i = 0; i < places; i++, *value /= 10) {
		any = any || *value % 10 != 0;
		if (any)
			*--end = (char)('0' + *value % 10);
	}
	if (any)
		*--end = '.';
	return end;
}

static char *put_int(char *end, uint64_t value)
{
	do
		*--end = (char)('0' + value % 10);
	while ((value /= 10) != 0);
	return end;
}

const char *go_format_duration(int64_t ns, char out[GO_DURATION_MAX])
{
	uint64_t left = ns < 0 ? -(uint64_t)ns : (uint64_t)ns;
	char *end = out + GO_DURATION_MAX - 1;

	if (ns == 0)
		return strcpy(out, "0s");
	*end = '\0';
	*--end = 's';
	if (left < (uint64_t)GO_SECOND) { /* a smaller unit, so that there is a digit before the point */
		int places = left < 1000 ? 0 : left < 1000000 ? 3 : 6;

		if (places == 3) {
			*--end = '\xb5';
			*--end = '\xc2';
		} else {
			*--end = places == 0 ? 'n' : 'm';
		}
		end = put_fraction(end, &left, places);
		end = put_int(end, left);
	} else {
		end = put_fraction(end, &left, 9);
		end = put_int(end, left % 60);
		left /= 60;
		if (left > 0) {
			*--end = 'm';
			end = put_int(end, left % 60);
			left /= 60;
		}
		if (left > 0) {
			*--end = 'h';
			end = put_int(end, left);
		}
	}
	if (ns < 0)
		*--end = '-';
	return memmove(out, end, strlen(end) + 1);
}

static int digit_of(char c)
{
	if (is_digit(c))
		return c - '0';
	if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z')
		return (c | 0x20) - 'a' + 10;
	return 99;
}

/* The base that a prefix names; *at moves behind it. */
static int take_base(const char **at)
{
	char second = (*at)[0] == '0' ? (char)((*at)[1] | 0x20) : '\0';

	if (second == 'x' || second == 'o' || second == 'b') {
		*at += 2;
		return second == 'x' ? 16 : second == 'o' ? 8 : 2;
	}
	if ((*at)[0] == '0' && (*at)[1] != '\0') {
		*at += 1;
		return 8;
	}
	return 10;
}

enum go_int go_parse_int(const char *text, int64_t *out)
{
	const char *at = text;
	bool negative = *at == '-', last_is_digit;
	uint64_t value = 0;
	const char *start;
	int base;

	if (*at == '-' || *at == '+')
		at++;
	start = at;
	base = take_base(&at);
	last_is_digit = at != start; /* "0x_1" and "0_1" are fine, "_1" is not */
	if (*at == '\0')
		return GO_INT_SYNTAX;
	for (; *at != '\0'; at++) {
		int digit = digit_of(*at);

		if (*at == '_') {
			if (!last_is_digit)
				return GO_INT_SYNTAX;
			last_is_digit = false;
			continue;
		}
		if (digit >= base)
			return GO_INT_SYNTAX;
		last_is_digit = true;
		if (__builtin_mul_overflow(value, (uint64_t)base, &value) ||
		    __builtin_add_overflow(value, (uint64_t)digit, &value))
			return GO_INT_RANGE;
	}
	if (!last_is_digit)
		return GO_INT_SYNTAX;
	if (value > (negative ? LARGEST : LARGEST - 1))
		return GO_INT_RANGE;
	*out = negative ? (int64_t)-value : (int64_t)value;
	return GO_INT_OK;
}

bool go_parse_bool(const char *text, bool *out)
{
	static const char *const yes[] = { "1", "t", "T", "TRUE", "true", "True" };
	static const char *const no[] = { "0", "f", "F", "FALSE", "false", "False" };

	for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
		if (strcmp(text, yes[i]) != 0 && strcmp(text, no[i]) != 0)
			continue;
		*out = strcmp(text, yes[i]) == 0;
		return true;
	}
	return false;
}

enum { RUNE_ERROR = 0xFFFD };

size_t go_decode_rune(const char *data, size_t len, uint32_t *rune)
{
	const uint8_t *at = (const uint8_t *)data;
	size_t need = at[0] < 0x80 ? 1 : at[0] < 0xC2 ? 0 : at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : at[0] < 0xF5 ? 4 : 0;
	uint32_t value;

	*rune = RUNE_ERROR;
	if (need == 0 || need > len)
		return 1;
	value = need == 1 ? at[0] : at[0] & (0x7Fu >> need);
	for (size_t i = 1; i < need; i++) {
		if ((at[i] & 0xC0) != 0x80)
			return 1;
		value = value << 6 | (at[i] & 0x3F);
	}
	if ((need == 3 && value < 0x800) || (need == 4 && (value < 0x10000 || value > 0x10FFFF)) ||
	    (value >= 0xD800 && value < 0xE000))
		return 1;
	*rune = value;
	return need;
}

void go_put_rune(struct buf *out, uint32_t rune)
{
	if (rune > 0x10FFFF || (rune >= 0xD800 && rune < 0xE000))
		rune = RUNE_ERROR;
	if (rune < 0x80) {
		buf_put(out, (uint8_t)rune);
		return;
	}
	if (rune < 0x800) {
		buf_put(out, (uint8_t)(0xC0 | rune >> 6));
	} else {
		if (rune < 0x10000) {
			buf_put(out, (uint8_t)(0xE0 | rune >> 12));
		} else {
			buf_put(out, (uint8_t)(0xF0 | rune >> 18));
			buf_put(out, (uint8_t)(0x80 | (rune >> 12 & 0x3F)));
		}
		buf_put(out, (uint8_t)(0x80 | (rune >> 6 & 0x3F)));
	}
	buf_put(out, (uint8_t)(0x80 | (rune & 0x3F)));
}

/* Go shows letters, marks, numbers, punctuation, symbols and the blank. */
static bool is_printable(uint32_t rune)
{
	const uint32_t shown = UC_CATEGORY_MASK_L | UC_CATEGORY_MASK_M | UC_CATEGORY_MASK_N | UC_CATEGORY_MASK_P |
			       UC_CATEGORY_MASK_S;

	return rune == ' ' || uc_is_general_category_withtable(rune, shown);
}

static void quote_rune(struct buf *out, uint32_t rune)
{
	static const char plain[] = "\a\b\f\n\r\t\v\"\\", escape[] = "abfnrtv\"\\";
	const char *found = rune != 0 && rune < 0x80 ? strchr(plain, (int)rune) : NULL;

	if (found != NULL)
		buf_printf(out, "\\%c", escape[found - plain]);
	else if (is_printable(rune))
		go_put_rune(out, rune);
	else if (rune < ' ' || rune == 0x7F)
		buf_printf(out, "\\x%02x", rune);
	else
		buf_printf(out, rune < 0x10000 ? "\\u%04x" : "\\U%08x", rune);
}

void go_quote_bytes(struct buf *out, const char *data, size_t len)
{
	buf_put(out, '"');
	for (size_t i = 0; i < len;) {
		uint32_t rune;
		size_t size = go_decode_rune(data + i, len - i, &rune);

		if (size == 1 && rune == RUNE_ERROR)
			buf_printf(out, "\\x%02x", (uint8_t)data[i]);
		else
			quote_rune(out, rune);
		i += size;
	}
	buf_put(out, '"');
}

void go_quote(struct buf *out, const char *text)
{
	go_quote_bytes(out, text, strlen(text));
}
