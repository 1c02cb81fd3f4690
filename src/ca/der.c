/* SPDX-License-Identifier: Apache-2.0 */
/* DER: the reader never looks beyond the span that it is given, and the spans that it hands out lie within it. The
 * writer moves from the end to the start and asserts that it stays inside: its callers reckon an upper bound first. */

#include "ca/der.h"

#include <assert.h>
#include <limits.h>
#include <string.h>

enum { LENGTH_SHIFT_MAX = 1 << 23 }; /* a length that reaches this may not grow by another octet */

static enum code syntax(struct err *err, const char *text)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "asn1: syntax error: %s", text);
}

static enum code structure(struct err *err, const char *text)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "asn1: structure error: %s", text);
}

/* A base-128 number at `*at`, as in object identifiers and in tag numbers above 30. */
static enum code read_base128(struct span in, size_t *at, uint64_t *out, struct err *err)
{
	uint64_t number = 0;

	for (int shifted = 0; *at < in.len; shifted++) {
		uint8_t octet = in.data[(*at)++];

		if (shifted == 5)
			return structure(err, "base 128 integer too large");
		if (shifted == 0 && octet == 0x80)
			return syntax(err, "integer is not minimally encoded");
		number = number << 7 | (octet & 0x7f);
		if (octet & 0x80)
			continue;
		if (number > INT_MAX)
			return structure(err, "base 128 integer too large");
		*out = number;
		return CODE_OK;
	}
	return syntax(err, "truncated base 128 integer");
}

static enum code read_length(struct span in, size_t *at, size_t *out, struct err *err)
{
	size_t length = 0;
	int octets;

	if (*at >= in.len)
		return syntax(err, "truncated tag or length");
	octets = in.data[(*at)++];
	if (octets < 0x80) {
		*out = (size_t)octets;
		return CODE_OK;
	}
	octets &= 0x7f;
	if (octets == 0)
		return syntax(err, "indefinite length found (not DER)");
	for (; octets > 0; octets--) {
		if (*at >= in.len)
			return syntax(err, "truncated tag or length");
		if (length >= LENGTH_SHIFT_MAX)
			return structure(err, "length too large");
		length = length << 8 | in.data[(*at)++];
		if (length == 0)
			return structure(err, "superfluous leading zeros in length");
	}
	if (length < 0x80)
		return structure(err, "non-minimal length");
	*out = length;
	return CODE_OK;
}

static enum code read_head(struct span in, uint8_t *tag, size_t *head, size_t *length, struct err *err)
{
	size_t at = 1;

	if (in.len == 0)
		return syntax(err, "sequence truncated");
	*tag = in.data[0];
	if ((*tag & 0x1f) == 0x1f) {
		uint64_t number;

		TRY(read_base128(in, &at, &number, err));
		if (number < 0x1f)
			return syntax(err, "non-minimal tag");
	}
	TRY(read_length(in, &at, length, err));
	*head = at;
	return CODE_OK;
}

static enum code take(struct span *in, uint8_t tag, size_t head, size_t length, struct der_item *out, struct err *err)
{
	if (length > in->len - head)
		return syntax(err, "data truncated");
	out->tag = tag;
	out->content = (struct span){ in->data + head, length };
	out->whole = (struct span){ in->data, head + length };
	in->data += head + length;
	in->len -= head + length;
	return CODE_OK;
}

enum code der_next(struct span *in, struct der_item *out, struct err *err)
{
	uint8_t tag;
	size_t head, length;

	TRY(read_head(*in, &tag, &head, &length, err));
	return take(in, tag, head, length, out, err);
}

enum code der_expect(struct span *in, uint8_t tag, const char *what, struct der_item *out, struct err *err)
{
	uint8_t got;
	size_t head, length;

	TRY(read_head(*in, &got, &head, &length, err));
	if (got != tag)
		return err_set(
			err, CODE_INVALID_ARGUMENT,
			"asn1: structure error: tags don't match (%d vs {class:%d tag:%d length:%zu isCompound:%s}) %s",
			tag & 0x1f, got >> 6, got & 0x1f, length, got & 0x20 ? "true" : "false", what);
	return take(in, got, head, length, out, err);
}

enum code der_element(struct span *in, uint8_t tag, struct der_item *out, struct err *err)
{
	uint8_t got;
	size_t head, length;

	TRY(read_head(*in, &got, &head, &length, err));
	if (got != tag)
		return structure(err, "sequence tag mismatch");
	if (length > in->len - head)
		return syntax(err, "truncated sequence");
	return take(in, got, head, length, out, err);
}

bool der_peek(const struct span *in, uint8_t tag)
{
	return in->len > 0 && in->data[0] == tag;
}

enum code der_bits(struct span content, struct span *out, struct err *err)
{
	uint8_t unused;

	if (content.len == 0)
		return syntax(err, "zero length BIT STRING");
	unused = content.data[0];
	if (unused > 7 || (unused > 0 && content.len == 1) ||
	    (content.data[content.len - 1] & ((1U << unused) - 1)) != 0)
		return syntax(err, "invalid padding bits in BIT STRING");
	if (unused != 0) /* keys and signatures are whole octets */
		return syntax(err, "BIT STRING is not a multiple of eight bits");
	*out = (struct span){ content.data + 1, content.len - 1 };
	return CODE_OK;
}

enum code der_check_oid(struct span content, struct err *err)
{
	size_t at = 0;

	if (content.len == 0)
		return syntax(err, "zero length OBJECT IDENTIFIER");
	while (at < content.len) {
		uint64_t arc;

		TRY(read_base128(content, &at, &arc, err));
	}
	return CODE_OK;
}

enum code der_check_integer(struct span content, struct err *err)
{
	if (content.len == 0)
		return structure(err, "empty integer");
	if (content.len > 1 && ((content.data[0] == 0x00 && !(content.data[1] & 0x80)) ||
				(content.data[0] == 0xff && (content.data[1] & 0x80))))
		return structure(err, "integer not minimally-encoded");
	return CODE_OK;
}

void der_put(struct der_out *out, const void *data, size_t len)
{
	assert((size_t)(out->at - out->start) >= len);
	out->at -= len;
	if (len > 0)
		memcpy(out->at, data, len);
}

void der_put_byte(struct der_out *out, uint8_t byte)
{
	assert(out->at > out->start);
	*--out->at = byte;
}

void der_head(struct der_out *out, uint8_t tag, const uint8_t *end)
{
	size_t length = (size_t)(end - out->at);

	if (length < 0x80) {
		der_put_byte(out, (uint8_t)length);
	} else {
		uint8_t octets = 0;

		for (; length > 0; length >>= 8, octets++)
			der_put_byte(out, (uint8_t)length);
		der_put_byte(out, 0x80 | octets);
	}
	der_put_byte(out, tag);
}

void der_put_tlv(struct der_out *out, uint8_t tag, const void *data, size_t len)
{
	const uint8_t *end = out->at;

	der_put(out, data, len);
	der_head(out, tag, end);
}

void der_put_unsigned(struct der_out *out, const uint8_t *number, size_t len)
{
	const uint8_t *end = out->at;

	while (len > 1 && number[0] == 0) {
		number++;
		len--;
	}
	der_put(out, number, len);
	if (len == 0 || (number[0] & 0x80))
		der_put_byte(out, 0);
	der_head(out, DER_INTEGER, end);
}

static void put_digits(struct der_out *out, int64_t number, int digits)
{
	for (; digits > 0; digits--, number /= 10)
		der_put_byte(out, (uint8_t)('0' + number % 10));
}

void der_put_time(struct der_out *out, int64_t unix_s)
{
	const uint8_t *end = out->at;
	int64_t days = unix_s / 86400, rest = unix_s % 86400;
	int64_t era, year, month, day_of_era, day_of_year;

	if (rest < 0) {
		rest += 86400;
		days--;
	}
	/* Days to a date in the proleptic Gregorian calendar: years begin in March, so that the leap day comes last. */
	days += 719468;    /* from 0000-03-01 */
	assert(days >= 0); /* no certificate is older than the calendar */
	era = days / 146097;
	day_of_era = days % 146097;
	year = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
	month = (5 * day_of_year + 2) / 153;
	year += era * 400 + (month >= 10);

	der_put_byte(out, 'Z');
	put_digits(out, rest % 60, 2);
	put_digits(out, rest / 60 % 60, 2);
	put_digits(out, rest / 3600, 2);
	put_digits(out, day_of_year - (153 * month + 2) / 5 + 1, 2);
	put_digits(out, month < 10 ? month + 3 : month - 9, 2);
	if (year >= 1950 && year < 2050) {
		put_digits(out, year % 100, 2);
		der_head(out, DER_UTC_TIME, end);
	} else {
		put_digits(out, year, 4);
		der_head(out, DER_GENERALIZED_TIME, end);
	}
}

static bool is_printable(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c != '\0' && strchr(" '()+,-./:=?", c) != NULL);
}

void der_put_string(struct der_out *out, const void *text, size_t len)
{
	const uint8_t *octets = text;
	uint8_t tag = DER_PRINTABLE_STRING;

	for (size_t i = 0; i < len; i++)
		if (!is_printable(octets[i]))
			tag = DER_UTF8_STRING;
	der_put_tlv(out, tag, text, len);
}
