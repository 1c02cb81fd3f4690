/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CA_DER_H
#define CA_DER_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* A small reader and writer of DER (X.690). The reader walks spans in place and copies nothing; it is as strict as
 * SPIRE's: definite and minimal lengths, below 2 GiB, and what follows the expected elements inside a SEQUENCE is let
 * pass. The writer fills a buffer from its end to its start, so that every length is known when it is written. */

enum der_tag { /* the identifier octet, with its class and constructed bits */
	       DER_BOOLEAN = 0x01,
	       DER_INTEGER = 0x02,
	       DER_BIT_STRING = 0x03,
	       DER_OCTET_STRING = 0x04,
	       DER_NULL = 0x05,
	       DER_OID = 0x06,
	       DER_UTF8_STRING = 0x0c,
	       DER_NUMERIC_STRING = 0x12,
	       DER_PRINTABLE_STRING = 0x13,
	       DER_T61_STRING = 0x14,
	       DER_IA5_STRING = 0x16,
	       DER_UTC_TIME = 0x17,
	       DER_GENERALIZED_TIME = 0x18,
	       DER_BMP_STRING = 0x1e,
	       DER_SEQUENCE = 0x30,
	       DER_SET = 0x31,
	       DER_CONTEXT = 0x80, /* [0] primitive; + n for [n] */
	       DER_CONTEXT_CONSTRUCTED = 0xa0,
};

struct der_item {
	uint8_t tag;         /* the first octet; of a tag number above 30 the low five bits are set */
	struct span content; /* without the header */
	struct span whole;   /* with it */
};

/* Takes the next element off `in`. INVALID_ARGUMENT with the texts of SPIRE's ASN.1 reader; `what` names the element in
 * them. */
enum code der_next(struct span *in, struct der_item *out, struct err *err);
/* The same, and it must have this tag. */
enum code der_expect(struct span *in, uint8_t tag, const char *what, struct der_item *out, struct err *err);
/* The same for an element of a SEQUENCE OF or SET OF, whose texts are others. */
enum code der_element(struct span *in, uint8_t tag, struct der_item *out, struct err *err);
/* The next element if it has this tag; else false and nothing is taken. */
bool der_peek(const struct span *in, uint8_t tag);

/* The content of a BIT STRING without unused bits. */
enum code der_bits(struct span content, struct span *out, struct err *err);
/* Checks the content of an OBJECT IDENTIFIER, of an INTEGER (minimal, not empty). */
enum code der_check_oid(struct span content, struct err *err);
enum code der_check_integer(struct span content, struct err *err);

static inline bool span_is(struct span span, const void *data, size_t len)
{
	return span.len == len && __builtin_memcmp(span.data, data, len) == 0;
}

struct der_out {
	uint8_t *start, *at; /* at: the first octet written so far; it moves towards start */
};

/* All of these write in front of what is there. No room left is our own mistake: asserted. */
void der_put(struct der_out *out, const void *data, size_t len);
void der_put_byte(struct der_out *out, uint8_t byte);
/* The header of an element whose content lies between out->at and `end` (out->at as it was before the content). */
void der_head(struct der_out *out, uint8_t tag, const uint8_t *end);
void der_put_tlv(struct der_out *out, uint8_t tag, const void *data, size_t len);
/* A non-negative INTEGER from big-endian octets: leading zeros go, a sign octet comes where it is needed. */
void der_put_unsigned(struct der_out *out, const uint8_t *number, size_t len);
/* UTCTime until 2049, GeneralizedTime from 2050 on and before 1950. */
void der_put_time(struct der_out *out, int64_t unix_s);
/* PrintableString if every character allows it, else UTF8String. */
void der_put_string(struct der_out *out, const void *text, size_t len);

enum { DER_HEAD_MAX = 6, DER_TIME_MAX = 17 };

#endif
