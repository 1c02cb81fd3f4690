/* SPDX-License-Identifier: Apache-2.0 */
/* A scanner that goes through the bytes once, with the containers that are open on a stack of its own.
 *
 *     value ----> after_value ----> (',') value | (']' '}') close ----> after_value ...
 *
 * Go ends its scanner by feeding it a blank: what a blank breaks (a number, a literal) is reported as that blank, the
 * rest as `unexpected end of JSON input`. So the end of the input reads as ' ' here. */
#include "base/gojson.h"

#include "base/gotext.h"

#include <string.h>

struct frame {
	struct json *value; /* an array or an object */
	struct json **tail; /* where its next item goes */
};

struct scan {
	const uint8_t *at, *end;
	struct arena *arena;
	struct err *err;
	struct frame *frames; /* the open containers */
	size_t depth, cap;
	struct json *root;
	const char *name; /* of the member whose value comes next */
	uint32_t name_len;
};

static enum code unexpected_end(struct scan *s)
{
	return err_set(s->err, CODE_INVALID_ARGUMENT, "unexpected end of JSON input");
}

/* `invalid character 'x' <context>`: the byte as Go quotes it, a byte above 0x7F as the Latin-1 character. */
static enum code invalid(struct scan *s, uint8_t c, const char *context)
{
	OWN_BUF byte = { 0 };
	OWN_BUF quoted = { 0 };

	if (c == '\'')
		buf_puts(&quoted, "'\\''");
	else if (c == '"')
		buf_puts(&quoted, "'\"'");
	else {
		go_put_rune(&byte, c);
		go_quote_bytes(&quoted, (const char *)byte.data, byte.len);
		quoted.data[0] = quoted.data[quoted.len - 1] = '\'';
	}
	return err_set(s->err, CODE_INVALID_ARGUMENT, "invalid character %s %s", buf_text(&quoted), context);
}

static uint8_t peek(const struct scan *s)
{
	return s->at < s->end ? *s->at : ' ';
}

static void skip_space(struct scan *s)
{
	while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
		s->at++;
}

static bool is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

static enum code digits(struct scan *s, const char *context)
{
	if (!is_digit(peek(s)))
		return invalid(s, peek(s), context);
	while (is_digit(peek(s)))
		s->at++;
	return CODE_OK;
}

static enum code scan_number(struct scan *s, struct json *value)
{
	const uint8_t *from = s->at;

	value->kind = JSON_NUMBER;
	if (*s->at == '-')
		s->at++;
	if (peek(s) == '0')
		s->at++;
	else
		TRY(digits(s, "in numeric literal"));
	if (peek(s) == '.') {
		s->at++;
		TRY(digits(s, "after decimal point in numeric literal"));
	}
	if (peek(s) == 'e' || peek(s) == 'E') {
		s->at++;
		if (peek(s) == '+' || peek(s) == '-')
			s->at++;
		TRY(digits(s, "in exponent of numeric literal"));
	}
	value->len = (uint32_t)(s->at - from);
	value->text = arena_strndup(s->arena, (const char *)from, value->len);
	return CODE_OK;
}

static enum code scan_literal(struct scan *s, const char *word, enum json_kind kind, bool truth, struct json *value)
{
	value->kind = kind;
	value->truth = truth;
	for (const char *want = word; *want != '\0'; want++, s->at++) {
		OWN_BUF context = { 0 };

		if (peek(s) == (uint8_t)*want)
			continue;
		buf_printf(&context, "in literal %s (expecting '%c')", word, *want);
		return invalid(s, peek(s), buf_text(&context));
	}
	return CODE_OK;
}

static int hex_of(uint8_t c)
{
	if (is_digit(c))
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four digits behind \u. */
static enum code scan_hex(struct scan *s, uint32_t *rune)
{
	*rune = 0;
	for (int i = 0; i < 4; i++, s->at++) {
		if (s->at == s->end || hex_of(*s->at) < 0)
			return invalid(s, peek(s), "in \\u hexadecimal character escape");
		*rune = *rune << 4 | (uint32_t)hex_of(*s->at);
	}
	return CODE_OK;
}

/* Behind the backslash. A surrogate needs the other half right behind it, alone it is U+FFFD. */
static enum code scan_escape(struct scan *s, struct buf *out)
{
	static const char plain[] = "bfnrt\\/\"", meant[] = "\b\f\n\r\t\\/\"";
	const char *found = peek(s) != 0 ? strchr(plain, peek(s)) : NULL;
	uint32_t rune, low;

	if (found != NULL) {
		buf_put(out, (uint8_t)meant[found - plain]);
		s->at++;
		return CODE_OK;
	}
	if (peek(s) != 'u')
		return invalid(s, peek(s), "in string escape code");
	s->at++;
	TRY(scan_hex(s, &rune));
	if (rune >= 0xD800 && rune < 0xDC00 && s->end - s->at >= 2 && s->at[0] == '\\' && s->at[1] == 'u') {
		const uint8_t *behind = s->at;

		s->at += 2;
		TRY(scan_hex(s, &low));
		if (low >= 0xDC00 && low < 0xE000)
			rune = 0x10000 + ((rune - 0xD800) << 10) + (low - 0xDC00);
		else
			s->at = behind;
	}
	go_put_rune(out, rune);
	return CODE_OK;
}

/* At the opening quote. Most strings have nothing to translate and are copied in one go. */
static enum code scan_string(struct scan *s, const char **text, uint32_t *len)
{
	OWN_BUF out = { 0 };

	s->at++;
	for (;;) {
		uint32_t rune;
		size_t size;

		if (s->at == s->end)
			return unexpected_end(s);
		if (*s->at == '"')
			break;
		if (*s->at < 0x20)
			return invalid(s, *s->at, "in string literal");
		if (*s->at == '\\') {
			s->at++;
			TRY(scan_escape(s, &out));
			continue;
		}
		size = go_decode_rune((const char *)s->at, (size_t)(s->end - s->at), &rune);
		go_put_rune(&out, rune);
		s->at += size;
	}
	s->at++;
	*len = (uint32_t)out.len;
	*text = arena_strndup(s->arena, buf_text(&out), out.len);
	return CODE_OK;
}

static struct json *new_value(struct scan *s)
{
	struct json *value = arena_zalloc(s->arena, sizeof *value);

	value->name = s->name;
	value->name_len = s->name_len;
	s->name = NULL;
	if (s->depth == 0) {
		s->root = value;
	} else {
		struct frame *top = &s->frames[s->depth - 1];

		*top->tail = value;
		top->tail = &value->next;
		top->value->n++;
	}
	return value;
}

static enum code open_container(struct scan *s, struct json *value)
{
	if (s->depth == s->cap) {
		struct frame *more = arena_alloc(s->arena, 2 * (s->cap + 8) * sizeof *more);

		if (s->depth > 0)
			memcpy(more, s->frames, s->depth * sizeof *more);
		s->frames = more;
		s->cap = 2 * (s->cap + 8);
	}
	value->kind = *s->at++ == '{' ? JSON_OBJECT : JSON_ARRAY;
	s->frames[s->depth++] = (struct frame){ value, &value->first };
	return CODE_OK;
}

/* A member's name and the colon behind it. */
static enum code scan_name(struct scan *s)
{
	skip_space(s);
	if (s->at == s->end)
		return unexpected_end(s);
	if (*s->at != '"')
		return invalid(s, *s->at, "looking for beginning of object key string");
	TRY(scan_string(s, &s->name, &s->name_len));
	skip_space(s);
	if (s->at == s->end)
		return unexpected_end(s);
	if (*s->at != ':')
		return invalid(s, *s->at, "after object key");
	s->at++;
	return CODE_OK;
}

/* A value, or the beginning of one that holds others. */
static enum code scan_value(struct scan *s)
{
	struct json *value;

	skip_space(s);
	if (s->at == s->end)
		return unexpected_end(s);
	if (strchr("{[\"-0123456789tfn", *s->at) == NULL || *s->at == 0)
		return invalid(s, *s->at, "looking for beginning of value");
	if ((*s->at == '{' || *s->at == '[') && s->depth == JSON_DEPTH)
		return invalid(s, *s->at, "exceeded max depth");
	value = new_value(s);
	switch (*s->at) {
	case '{':
	case '[':
		return open_container(s, value);
	case '"':
		value->kind = JSON_STRING;
		return scan_string(s, &value->text, &value->len);
	case 't':
		return scan_literal(s, "true", JSON_BOOL, true, value);
	case 'f':
		return scan_literal(s, "false", JSON_BOOL, false, value);
	case 'n':
		return scan_literal(s, "null", JSON_NULL, false, value);
	default:
		return scan_number(s, value);
	}
}

/* Right behind '{' or '[', or behind a ',': what the open container needs next. */
static enum code scan_item(struct scan *s)
{
	if (s->frames[s->depth - 1].value->kind == JSON_OBJECT)
		TRY(scan_name(s));
	return scan_value(s);
}

/* Behind a value: closes what ends here. *more: another item of the innermost container follows. */
static enum code after_value(struct scan *s, bool *more)
{
	*more = false;
	while (s->depth > 0) {
		const struct json *open = s->frames[s->depth - 1].value;
		bool object = open->kind == JSON_OBJECT;

		skip_space(s);
		if (s->at == s->end)
			return unexpected_end(s);
		if (*s->at == (object ? '}' : ']')) {
			s->at++;
			s->depth--;
			continue;
		}
		if (open->n == 0) { /* it was opened just now */
			*more = true;
			return CODE_OK;
		}
		if (*s->at != ',')
			return invalid(s, *s->at, object ? "after object key:value pair" : "after array element");
		s->at++;
		*more = true;
		return CODE_OK;
	}
	return CODE_OK;
}

enum code json_parse(const char *data, size_t len, struct arena *arena, const struct json **out, struct err *err)
{
	struct scan s = { .at = (const uint8_t *)data, .end = (const uint8_t *)data + len, .arena = arena, .err = err };
	bool more;

	if (len > UINT32_MAX)
		return err_set(err, CODE_INVALID_ARGUMENT, "JSON input of %zu bytes is too large", len);
	TRY(scan_value(&s));
	TRY(after_value(&s, &more));
	while (more) {
		TRY(scan_item(&s));
		TRY(after_value(&s, &more));
	}
	skip_space(&s);
	if (s.at < s.end)
		return invalid(&s, *s.at, "after top-level value");
	*out = s.root;
	return CODE_OK;
}

static uint8_t lower(uint8_t c)
{
	return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

static bool same_name(const struct json *member, const char *name, size_t len, bool fold)
{
	if (member->name_len != len)
		return false;
	if (!fold)
		return memcmp(member->name, name, len) == 0;
	for (size_t i = 0; i < len; i++)
		if (lower((uint8_t)member->name[i]) != lower((uint8_t)name[i]))
			return false;
	return true;
}

static const struct json *last_member(const struct json *object, const char *name, bool fold)
{
	const struct json *found = NULL;

	if (object == NULL || object->kind != JSON_OBJECT)
		return NULL;
	for (const struct json *at = object->first; at != NULL; at = at->next)
		if (same_name(at, name, strlen(name), fold))
			found = at;
	return found;
}

const struct json *json_get(const struct json *object, const char *name)
{
	return last_member(object, name, false);
}

const struct json *json_find(const struct json *object, const char *name)
{
	return last_member(object, name, true);
}

const char *json_kind_name(const struct json *value)
{
	static const char *const names[] = {
		[JSON_NULL] = "null",     [JSON_BOOL] = "bool",   [JSON_NUMBER] = "number",
		[JSON_STRING] = "string", [JSON_ARRAY] = "array", [JSON_OBJECT] = "object",
	};

	return names[value->kind];
}

bool json_uint64(const struct json *value, uint64_t *out)
{
	uint64_t sum = 0;

	if (value->kind != JSON_NUMBER)
		return false;
	for (const char *at = value->text; *at != '\0'; at++)
		if (!is_digit((uint8_t)*at) || __builtin_mul_overflow(sum, UINT64_C(10), &sum) ||
		    __builtin_add_overflow(sum, (uint64_t)(*at - '0'), &sum))
			return false;
	*out = sum;
	return true;
}

bool json_int64(const struct json *value, int64_t *out)
{
	bool negative = value->kind == JSON_NUMBER && value->text[0] == '-';
	struct json magnitude = *value;
	uint64_t sum;

	if (negative)
		magnitude.text++;
	if (!json_uint64(&magnitude, &sum) || sum > (uint64_t)INT64_MAX + (negative ? 1 : 0))
		return false;
	*out = negative ? (int64_t)-sum : (int64_t)sum;
	return true;
}

static void put_rune(struct buf *out, uint32_t rune)
{
	static const char plain[] = "\b\f\n\r\t\"\\", escape[] = "bfnrt\"\\";
	const char *found = rune != 0 && rune < 0x80 ? strchr(plain, (int)rune) : NULL;

	if (found != NULL)
		buf_printf(out, "\\%c", escape[found - plain]);
	else if (rune < 0x20 || rune == '<' || rune == '>' || rune == '&' || rune == 0x2028 || rune == 0x2029)
		buf_printf(out, "\\u%04x", rune);
	else
		go_put_rune(out, rune);
}

/* How many bytes at the beginning stand for themselves: most strings as a whole. */
static size_t plain_run(const char *text)
{
	size_t n = 0;

	while (text[n] >= ' ' && text[n] < 0x7F && text[n] != '"' && text[n] != '\\' && text[n] != '<' &&
	       text[n] != '>' && text[n] != '&')
		n++;
	return n;
}

void json_put_string(struct buf *out, const char *text)
{
	size_t len = strlen(text), i;

	buf_put(out, '"');
	i = plain_run(text);
	buf_append(out, text, i);
	while (i < len) {
		uint32_t rune;
		size_t size = go_decode_rune(text + i, len - i, &rune);

		if (size == 1 && rune == 0xFFFD)
			buf_puts(out, "\\ufffd");
		else
			put_rune(out, rune);
		i += size;
	}
	buf_put(out, '"');
}
