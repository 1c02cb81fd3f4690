/* SPDX-License-Identifier: Apache-2.0 */
/* Distinguished names: read leniently in structure and strictly in strings, as SPIRE does, and written in one fixed
 * form. */

#include "ca/name.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

/* The last arc of 2.5.4.n. */
static const uint8_t arcs[NAME_PARTS] = {
	[NAME_COUNTRY] = 6, [NAME_PROVINCE] = 8,     [NAME_LOCALITY] = 7,
	[NAME_STREET] = 9,  [NAME_POSTAL_CODE] = 17, [NAME_ORGANIZATION] = 10,
	[NAME_UNIT] = 11,   [NAME_COMMON_NAME] = 3,  [NAME_SERIAL_NUMBER] = 5,
};

enum { RDN_OVERHEAD = 3 * DER_HEAD_MAX + 5 }; /* SET, SEQUENCE, the value's header, the attribute type */

static enum code bad_string(struct err *err, const char *text)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "asn1: syntax error: %s", text);
}

static enum code check_printable(struct span text, struct err *err)
{
	for (size_t i = 0; i < text.len; i++) {
		uint8_t c = text.data[i];
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

		if (!letter &&
		    (c == '\0' || strchr(" '()+,-./:=?*&", c) == NULL)) /* '*' and '&' are not in the set, but occur */
			return bad_string(err, "PrintableString contains invalid character");
	}
	return CODE_OK;
}

static enum code check_numeric(struct span text, struct err *err)
{
	for (size_t i = 0; i < text.len; i++)
		if (text.data[i] != ' ' && (text.data[i] < '0' || text.data[i] > '9'))
			return bad_string(err, "NumericString contains invalid character");
	return CODE_OK;
}

static enum code check_ascii(struct span text, struct err *err)
{
	for (size_t i = 0; i < text.len; i++)
		if (text.data[i] >= 0x80)
			return bad_string(err, "IA5String contains invalid character");
	return CODE_OK;
}

static enum code check_utf8(struct span text, struct err *err)
{
	if (!utf8_valid((const char *)text.data, text.len))
		return err_set(err, CODE_INVALID_ARGUMENT, "asn1: invalid UTF-8 string");
	return CODE_OK;
}

static size_t put_utf8(uint8_t *out, unsigned point)
{
	if (point < 0x80) {
		out[0] = (uint8_t)point;
		return 1;
	}
	if (point < 0x800) {
		out[0] = (uint8_t)(0xc0 | point >> 6);
		out[1] = (uint8_t)(0x80 | (point & 0x3f));
		return 2;
	}
	out[0] = (uint8_t)(0xe0 | point >> 12);
	out[1] = (uint8_t)(0x80 | (point >> 6 & 0x3f));
	out[2] = (uint8_t)(0x80 | (point & 0x3f));
	return 3;
}

/* T.61 is read as Latin-1, as everybody does. */
static struct span from_latin1(struct span text, struct arena *arena)
{
	uint8_t *out = arena_alloc(arena, 2 * text.len);
	size_t len = 0;

	for (size_t i = 0; i < text.len; i++)
		len += put_utf8(out + len, text.data[i]);
	return (struct span){ out, len };
}

static enum code check_bmp(struct span text, struct err *err)
{
	if (text.len % 2 != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "invalid BMPString");
	for (size_t i = 0; i < text.len; i += 2) {
		unsigned point = (unsigned)text.data[i] << 8 | text.data[i + 1];

		if (point >= 0xfffe || (point >= 0xfdd0 && point <= 0xfdef) || (point >= 0xd800 && point <= 0xdfff))
			return err_set(err, CODE_INVALID_ARGUMENT, "invalid BMPString");
	}
	return CODE_OK;
}

static struct span from_bmp(struct span text, struct arena *arena)
{
	uint8_t *out = arena_alloc(arena, text.len / 2 * 3);
	size_t len = 0;

	if (text.len >= 2 && text.data[text.len - 1] == 0 && text.data[text.len - 2] == 0)
		text.len -= 2; /* a terminator that some encoders leave in */
	for (size_t i = 0; i < text.len; i += 2)
		len += put_utf8(out + len, (unsigned)text.data[i] << 8 | text.data[i + 1]);
	return (struct span){ out, len };
}

/* A value as text. `arena` NULL: the check alone. `*is_text` false: it is of a type that is not a string. */
static enum code read_value(const struct der_item *value, struct arena *arena, struct span *text, bool *is_text,
			    struct err *err)
{
	*text = value->content;
	*is_text = true;
	switch (value->tag) {
	case DER_PRINTABLE_STRING:
		return check_printable(value->content, err);
	case DER_NUMERIC_STRING:
		return check_numeric(value->content, err);
	case DER_IA5_STRING:
		return check_ascii(value->content, err);
	case DER_UTF8_STRING:
		return check_utf8(value->content, err);
	case DER_T61_STRING:
		if (arena != NULL)
			*text = from_latin1(value->content, arena);
		return CODE_OK;
	case DER_BMP_STRING:
		TRY(check_bmp(value->content, err));
		if (arena != NULL)
			*text = from_bmp(value->content, arena);
		return CODE_OK;
	default:
		*is_text = false;
		return CODE_OK;
	}
}

static int part_of(struct span oid)
{
	if (oid.len == 3 && oid.data[0] == 0x55 && oid.data[1] == 0x04)
		for (int part = 0; part < NAME_PARTS; part++)
			if (arcs[part] == oid.data[2])
				return part;
	return -1;
}

static void append(struct name *name, enum name_part part, struct span text, struct arena *arena)
{
	struct name_value **at = &name->first[part];
	struct name_value *value = arena_alloc(arena, sizeof *value);

	if (part != NAME_COMMON_NAME && part != NAME_SERIAL_NUMBER)
		while (*at != NULL)
			at = &(*at)->next;
	*value = (struct name_value){ .text = text };
	*at = value;
}

static enum code read_attribute(struct span *set, struct arena *arena, struct name *name, struct err *err)
{
	struct der_item attribute, oid, value;
	struct span text;
	bool is_text;
	int part;

	TRY(der_element(set, DER_SEQUENCE, &attribute, err));
	TRY(der_expect(&attribute.content, DER_OID, "ObjectIdentifier", &oid, err));
	TRY(der_check_oid(oid.content, err));
	TRY(der_next(&attribute.content, &value, err));
	TRY(read_value(&value, arena, &text, &is_text, err));
	if (name == NULL)
		return CODE_OK;
	part = part_of(oid.content);
	if (part < 0)
		name->others = true;
	else if (is_text)
		append(name, (enum name_part)part, text, arena);
	return CODE_OK;
}

static enum code read_name(struct span der, struct arena *arena, struct name *name, struct err *err)
{
	struct der_item sequence, set;

	TRY(der_expect(&der, DER_SEQUENCE, "RDNSequence", &sequence, err));
	if (der.len != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "x509: trailing data after X.509 Subject");
	while (sequence.content.len > 0) {
		TRY(der_element(&sequence.content, DER_SET, &set, err));
		while (set.content.len > 0)
			TRY(read_attribute(&set.content, arena, name, err));
	}
	return CODE_OK;
}

enum code name_parse(struct span der, struct arena *arena, struct name *out, struct err *err)
{
	struct name name = { 0 };

	TRY(read_name(der, arena, &name, err));
	*out = name;
	return CODE_OK;
}

enum code name_check(struct span der, struct err *err)
{
	return read_name(der, NULL, NULL, err);
}

void name_set(struct name *name, enum name_part part, const char *text, struct arena *arena)
{
	name->first[part] = NULL;
	name_add(name, part, text, arena);
}

void name_add(struct name *name, enum name_part part, const char *text, struct arena *arena)
{
	append(name, part, (struct span){ (const uint8_t *)text, strlen(text) }, arena);
}

/* An empty common name or serial number is as good as none. */
static bool part_empty(const struct name *name, enum name_part part)
{
	const struct name_value *first = name->first[part];

	return first == NULL || (first->text.len == 0 && (part == NAME_COMMON_NAME || part == NAME_SERIAL_NUMBER));
}

bool name_empty(const struct name *name)
{
	for (int part = 0; part < NAME_PARTS; part++)
		if (!part_empty(name, (enum name_part)part))
			return false;
	return true;
}

size_t name_bound(const struct name *name)
{
	size_t bound = DER_HEAD_MAX;

	for (int part = 0; part < NAME_PARTS; part++)
		for (const struct name_value *value = name->first[part]; value != NULL; value = value->next)
			bound += value->text.len + RDN_OVERHEAD;
	return bound;
}

static void put_attribute(struct der_out *out, enum name_part part, const void *text, size_t len)
{
	const uint8_t oid[] = { 0x55, 0x04, arcs[part] };
	const uint8_t *end = out->at;

	der_put_string(out, text, len);
	der_put_tlv(out, DER_OID, oid, sizeof oid);
	der_head(out, DER_SEQUENCE, end);
}

void name_put_rdn(struct der_out *out, enum name_part part, const void *text, size_t len)
{
	const uint8_t *end = out->at;

	put_attribute(out, part, text, len);
	der_head(out, DER_SET, end);
}

static int compare_octets(const void *a, const void *b)
{
	const struct span *x = a, *y = b;
	int order = memcmp(x->data, y->data, x->len < y->len ? x->len : y->len);

	return order != 0 ? order : (x->len > y->len) - (x->len < y->len);
}

/* Several values of one type: a SET OF, so its elements stand in the order of their octets. */
static void put_sorted_rdn(struct der_out *out, enum name_part part, const struct name_value *first)
{
	size_t n = 0, size = 0, i = 0;
	const uint8_t *end = out->at;
	struct der_out scratch;
	struct span *elements;

	for (const struct name_value *value = first; value != NULL; value = value->next, n++)
		size += value->text.len + RDN_OVERHEAD;
	elements = xcalloc(n, sizeof *elements);
	scratch.start = xmalloc(size);
	scratch.at = scratch.start + size;
	for (const struct name_value *value = first; value != NULL; value = value->next, i++) {
		const uint8_t *value_end = scratch.at;

		put_attribute(&scratch, part, value->text.data, value->text.len);
		elements[i] = (struct span){ scratch.at, (size_t)(value_end - scratch.at) };
	}
	qsort(elements, n, sizeof *elements, compare_octets);
	while (n > 0) {
		n--;
		der_put(out, elements[n].data, elements[n].len);
	}
	der_head(out, DER_SET, end);
	free(scratch.start);
	free(elements);
}

void name_put(struct der_out *out, const struct name *name)
{
	const uint8_t *end = out->at;

	for (int i = NAME_PARTS - 1; i >= 0; i--) {
		enum name_part part = (enum name_part)i;
		const struct name_value *first = name->first[part];

		if (part_empty(name, part))
			continue;
		if (first->next == NULL)
			name_put_rdn(out, part, first->text.data, first->text.len);
		else
			put_sorted_rdn(out, part, first);
	}
	der_head(out, DER_SEQUENCE, end);
}

struct span name_encode(const struct name *name, struct arena *arena)
{
	size_t bound = name_bound(name);
	uint8_t *start = arena_alloc(arena, bound);
	struct der_out out = { start, start + bound };

	name_put(&out, name);
	return (struct span){ out.at, (size_t)(start + bound - out.at) };
}
