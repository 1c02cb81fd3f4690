/* SPDX-License-Identifier: Apache-2.0 */
/* The words of HCL and JSON. The input is checked once (UTF-8, no NUL), so that what follows goes byte by byte; no
 * function looks further ahead than one byte, but for the anchor of a heredoc's last line: time is linear. */
#include "base/hcl_scan.h"

#include "base/gotext.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { END = -1 };

enum code hcl_error(struct hcl_pos pos, struct err *err, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	return err_set(err, CODE_INVALID_ARGUMENT, "At %d:%d: %s", pos.line, pos.column, text);
}

const char *hcl_word_name(enum hcl_word word)
{
	static const char *const names[] = {
		"EOF",    "IDENT",  "NUMBER", "FLOAT",  "BOOL",  "STRING", "HEREDOC", "NULL",
		"LBRACK", "RBRACK", "LBRACE", "RBRACE", "COMMA", "ASSIGN", "COLON",   "OPERATOR",
	};

	return names[word];
}

/* Moves over one byte. */
static void step(struct hcl_pos *pos, char byte)
{
	if (byte == '\n') {
		pos->line++;
		pos->column = 1;
	} else if (((unsigned char)byte & 0xC0) != 0x80) {
		pos->column++;
	}
}

static enum code check_text(const char *data, size_t len, struct err *err)
{
	struct hcl_pos pos = { 1, 1 };

	for (size_t i = 0; i < len;) {
		uint32_t rune;
		size_t size = utf8_next(data + i, len - i, &rune);

		if (size == 0)
			return hcl_error(pos, err, "illegal UTF-8 encoding");
		if (rune == 0)
			return hcl_error(pos, err, "unexpected null character (0x00)");
		step(&pos, data[i]);
		i += size;
	}
	return CODE_OK;
}

/* Line ends become "\n", also within heredocs. */
static void drop_cr(struct hcl_scan *scan)
{
	char *out = arena_alloc(scan->arena, scan->len);
	size_t n = 0;

	for (size_t i = 0; i < scan->len; i++)
		if (scan->data[i] != '\r' || i + 1 == scan->len || scan->data[i + 1] != '\n')
			out[n++] = scan->data[i];
	scan->data = out;
	scan->len = n;
}

enum code hcl_scan_init(struct hcl_scan *scan, const char *data, size_t len, struct arena *arena, struct err *err)
{
	size_t blank = 0;

	TRY(check_text(data, len, err));
	*scan = (struct hcl_scan){ .data = data, .len = len, .pos = { 1, 1 }, .arena = arena };
	while (blank < len && memchr(" \t\r\n\v\f", data[blank], 6) != NULL)
		blank++;
	scan->json = blank < len && data[blank] == '{';
	if (!scan->json && len > 0 && memchr(data, '\r', len) != NULL)
		drop_cr(scan);
	return CODE_OK;
}

void hcl_scan_done(struct hcl_scan *scan)
{
	buf_done(&scan->buf);
}

static int peek(const struct hcl_scan *scan)
{
	return scan->at < scan->len ? (unsigned char)scan->data[scan->at] : END;
}

static int take(struct hcl_scan *scan)
{
	if (scan->at == scan->len)
		return END;
	step(&scan->pos, scan->data[scan->at]);
	return (unsigned char)scan->data[scan->at++];
}

static bool take_if(struct hcl_scan *scan, int byte)
{
	if (peek(scan) != byte)
		return false;
	take(scan);
	return true;
}

static bool is_digit(int c)
{
	return c >= '0' && c <= '9';
}

static int hex_digit(int c)
{
	if (is_digit(c))
		return c - '0';
	if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
		return (c | 0x20) - 'a' + 10;
	return END;
}

/* Letters beyond ASCII are told from signs and blanks by their blocks. */
static bool is_letter_rune(uint32_t rune)
{
	static const uint32_t signs[][2] = {
		{ 0x80, 0xA9 },     { 0xAB, 0xB4 },     { 0xB6, 0xB9 },       { 0xBB, 0xBF },
		{ 0xD7, 0xD7 },     { 0xF7, 0xF7 },     { 0x2000, 0x2070 },   { 0x20A0, 0x20FF },
		{ 0x2190, 0x2BFF }, { 0x3000, 0x3004 }, { 0xE000, 0xF8FF },   { 0xFE00, 0xFE6F },
		{ 0xFEFF, 0xFF20 }, { 0xFFF0, 0xFFFF }, { 0x1F000, 0x1FAFF }, { 0xE0000, 0x10FFFF },
	};

	for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++)
		if (rune >= signs[i][0] && rune <= signs[i][1])
			return false;
	return true;
}

static bool at_letter(const struct hcl_scan *scan)
{
	int c = peek(scan);
	uint32_t rune;

	if (c < 0x80)
		return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
	return utf8_next(scan->data + scan->at, scan->len - scan->at, &rune) > 0 && is_letter_rune(rune);
}

static void take_rune(struct hcl_scan *scan)
{
	take(scan);
	while (peek(scan) != END && (peek(scan) & 0xC0) == 0x80)
		take(scan);
}

static enum code skip_comment(struct hcl_scan *scan, struct err *err)
{
	struct hcl_pos start = scan->pos;
	bool line = take(scan) == '#';

	if (!line && take_if(scan, '*')) {
		for (int c = take(scan); c != END; c = take(scan))
			if (c == '*' && take_if(scan, '/'))
				return CODE_OK;
		return hcl_error(start, err, "comment not terminated");
	}
	if (!line && !take_if(scan, '/'))
		return hcl_error(start, err, "expected '/' for comment");
	while (peek(scan) != END && peek(scan) != '\n')
		take(scan);
	return CODE_OK;
}

static enum code skip_blank(struct hcl_scan *scan, struct err *err)
{
	for (;;) {
		int c = peek(scan);

		if (c == ' ' || c == '\t' || c == '\n' || c == '\r')
			take(scan);
		else if ((c == '#' || c == '/') && !scan->json)
			TRY(skip_comment(scan, err));
		else
			return CODE_OK;
	}
}

static void set_text(struct hcl_scan *scan, struct hcl_token *out, size_t start)
{
	out->text = arena_strndup(scan->arena, scan->data + start, scan->at - start);
}

static void scan_ident(struct hcl_scan *scan, struct hcl_token *out)
{
	size_t start = scan->at;

	do
		take_rune(scan);
	while (at_letter(scan) || is_digit(peek(scan)) || peek(scan) == '-' || peek(scan) == '.');
	set_text(scan, out, start);
	out->word = WORD_IDENT;
	if (strcmp(out->text, "true") == 0 || strcmp(out->text, "false") == 0)
		out->word = WORD_BOOL;
	else if (scan->json && strcmp(out->text, "null") == 0)
		out->word = WORD_NULL;
}

static void take_digits(struct hcl_scan *scan)
{
	while (is_digit(peek(scan)))
		take(scan);
}

static bool all_octal(const char *digits)
{
	return digits[strspn(digits, "01234567")] == '\0';
}

static enum code scan_number(struct hcl_scan *scan, struct hcl_token *out, struct err *err)
{
	size_t start = scan->at, digits;

	take_if(scan, '-');
	digits = scan->at;
	out->word = WORD_NUMBER;
	if (take_if(scan, '0') && !scan->json && (take_if(scan, 'x') || take_if(scan, 'X'))) {
		if (hex_digit(peek(scan)) == END)
			return hcl_error(out->pos, err, "illegal hexadecimal number");
		while (hex_digit(peek(scan)) != END)
			take(scan);
		set_text(scan, out, start);
		return CODE_OK;
	}
	take_digits(scan);
	if (take_if(scan, '.')) {
		out->word = WORD_FLOAT;
		take_digits(scan);
	}
	if (take_if(scan, 'e') || take_if(scan, 'E')) {
		out->word = WORD_FLOAT;
		if (!take_if(scan, '-'))
			take_if(scan, '+');
		if (!is_digit(peek(scan)))
			return hcl_error(out->pos, err, "exponent has no digits");
		take_digits(scan);
	}
	set_text(scan, out, start);
	if (out->word == WORD_NUMBER && out->text[digits - start] == '0' && out->text[digits - start + 1] != '\0') {
		if (scan->json)
			return hcl_error(out->pos, err, "numbers cannot start with 0");
		if (!all_octal(out->text + (digits - start)))
			return hcl_error(out->pos, err, "illegal octal number");
	}
	return CODE_OK;
}

/* `n` hexadecimal digits. */
static enum code take_hex(struct hcl_scan *scan, int n, uint32_t *out, struct err *err)
{
	*out = 0;
	for (; n > 0; n--) {
		int digit = hex_digit(peek(scan));

		if (digit == END)
			return hcl_error(scan->pos, err, "illegal char escape");
		*out = *out << 4 | (uint32_t)digit;
		take(scan);
	}
	return CODE_OK;
}

static enum code put_escaped(struct hcl_scan *scan, struct hcl_pos pos, uint32_t value, bool is_byte, struct err *err)
{
	if (value == 0)
		return hcl_error(pos, err, "string holds a null character");
	if (value > (is_byte ? 0xFF : 0x10FFFF) || (value >= 0xD800 && value <= 0xDFFF))
		return hcl_error(pos, err, "illegal char escape");
	if (is_byte)
		buf_put(&scan->buf, (uint8_t)value);
	else
		go_put_rune(&scan->buf, value);
	return CODE_OK;
}

/* JSON writes what is beyond 16 bits as two escapes. */
static enum code put_json_rune(struct hcl_scan *scan, struct hcl_pos pos, struct err *err)
{
	uint32_t high, low;

	TRY(take_hex(scan, 4, &high, err));
	if (high >= 0xD800 && high < 0xDC00 && take_if(scan, '\\')) {
		if (!take_if(scan, 'u'))
			return hcl_error(pos, err, "illegal char escape");
		TRY(take_hex(scan, 4, &low, err));
		if (low < 0xDC00 || low > 0xDFFF)
			return hcl_error(pos, err, "illegal char escape");
		high = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
	}
	return put_escaped(scan, pos, high, false, err);
}

static enum code put_octal(struct hcl_scan *scan, struct hcl_pos pos, int first, struct err *err)
{
	uint32_t value = (uint32_t)(first - '0');

	for (int i = 0; i < 2; i++) {
		if (peek(scan) < '0' || peek(scan) > '7')
			return hcl_error(pos, err, "illegal char escape");
		value = value << 3 | (uint32_t)(take(scan) - '0');
	}
	return put_escaped(scan, pos, value, true, err);
}

static enum code put_escape(struct hcl_scan *scan, struct hcl_pos pos, struct err *err)
{
	static const char names[] = "abfnrtv\\\"", values[] = "\a\b\f\n\r\t\v\\\"";
	int c = take(scan);
	const char *found = c > 0 ? strchr(names, c) : NULL;
	uint32_t value;

	if (found != NULL) {
		buf_put(&scan->buf, (uint8_t)values[found - names]);
		return CODE_OK;
	}
	if (scan->json && c == '/') {
		buf_put(&scan->buf, '/');
		return CODE_OK;
	}
	if (scan->json && c == 'u')
		return put_json_rune(scan, pos, err);
	if (c >= '0' && c <= '7')
		return put_octal(scan, pos, c, err);
	if (c != 'x' && c != 'u' && c != 'U')
		return hcl_error(pos, err, "illegal char escape");
	TRY(take_hex(scan, c == 'x' ? 2 : c == 'u' ? 4 : 8, &value, err));
	return put_escaped(scan, pos, value, c == 'x', err);
}

/* Within "${ }" nothing is unescaped, quotes do not end the string, and lines may end. */
static enum code scan_string(struct hcl_scan *scan, struct hcl_token *out, struct err *err)
{
	int braces = 0;

	scan->buf.len = 0;
	take(scan);
	for (;;) {
		struct hcl_pos pos = scan->pos;
		int c = take(scan);

		if (c == END || (c == '\n' && braces == 0))
			return hcl_error(out->pos, err, "literal not terminated");
		if (c == '"' && braces == 0)
			break;
		if (c == '\\' && braces == 0) {
			TRY(put_escape(scan, pos, err));
			continue;
		}
		buf_put(&scan->buf, (uint8_t)c);
		if (!scan->json && braces == 0 && c == '$' && peek(scan) == '{') {
			buf_put(&scan->buf, (uint8_t)take(scan));
			braces = 1;
		} else if (braces > 0 && c == '\\' && peek(scan) != END) {
			buf_put(&scan->buf, (uint8_t)take(scan));
		} else if (braces > 0) {
			braces += c == '{' ? 1 : c == '}' ? -1 : 0;
		}
	}
	out->word = WORD_STRING;
	out->text = arena_strndup(scan->arena, buf_text(&scan->buf), scan->buf.len);
	return CODE_OK;
}

/* Where the anchor stands in the line data[start..end), or -1: blanks before it, returns behind it. */
static ssize_t find_anchor(const struct hcl_scan *scan, size_t start, size_t end, const char *anchor, size_t len)
{
	while (start < end && memchr(" \t\v\f\r", scan->data[start], 5) != NULL)
		start++;
	while (end > start && scan->data[end - 1] == '\r')
		end--;
	if (end - start != len || memcmp(scan->data + start, anchor, len) != 0)
		return -1;
	return (ssize_t)start;
}

/* Puts the lines of text[0..len) into the buffer without `indent`; false when one of them has less. */
static bool put_unindented(struct buf *buf, const char *text, size_t len, const char *indent, size_t n)
{
	const char *end = text + len;

	for (const char *line = text; line < end;) {
		const char *next = memchr(line, '\n', (size_t)(end - line));

		next = next == NULL ? end : next + 1;
		if ((size_t)(next - line) < n || memcmp(line, indent, n) != 0)
			return false;
		buf_append(buf, line + n, (size_t)(next - line) - n);
		line = next;
	}
	return true;
}

/* The text from `start` up to the line of the anchor, which begins at `last` and whose anchor stands at `anchor`.
 * Without '-' the blanks before the anchor belong to the text: so HCL has it. */
static void heredoc_text(struct hcl_scan *scan, struct hcl_token *out, bool unindent, size_t start, size_t last,
			 size_t anchor)
{
	scan->buf.len = 0;
	if (unindent &&
	    put_unindented(&scan->buf, scan->data + start, last - start, scan->data + last, anchor - last)) {
		out->text = arena_strndup(scan->arena, buf_text(&scan->buf), scan->buf.len);
		return;
	}
	out->text = arena_strndup(scan->arena, scan->data + start, (unindent ? last : anchor) - start);
}

static enum code scan_heredoc(struct hcl_scan *scan, struct hcl_token *out, struct err *err)
{
	size_t name, name_len, start;
	bool unindent;

	take(scan);
	if (!take_if(scan, '<'))
		return hcl_error(out->pos, err, "heredoc expected second '<', didn't see it");
	unindent = take_if(scan, '-');
	name = scan->at;
	while (at_letter(scan) || is_digit(peek(scan)))
		take_rune(scan);
	name_len = scan->at - name;
	if (peek(scan) == END)
		return hcl_error(out->pos, err, "heredoc not terminated");
	if (!take_if(scan, '\n'))
		return hcl_error(scan->pos, err, "invalid characters in heredoc anchor");
	if (name_len == 0)
		return hcl_error(out->pos, err, "zero-length heredoc anchor");
	start = scan->at;
	for (;;) {
		size_t line = scan->at;
		ssize_t anchor;

		while (peek(scan) != END && peek(scan) != '\n')
			take(scan);
		if (peek(scan) == END)
			return hcl_error(out->pos, err, "heredoc not terminated");
		anchor = find_anchor(scan, line, scan->at, scan->data + name, name_len);
		take(scan);
		if (anchor < 0)
			continue;
		out->word = WORD_HEREDOC;
		heredoc_text(scan, out, unindent, start, line, (size_t)anchor);
		return CODE_OK;
	}
}

static enum code scan_sign(struct hcl_scan *scan, struct hcl_token *out, struct err *err)
{
	static const char signs[] = "[]{},=:+-.";
	static const enum hcl_word words[] = { WORD_LBRACK, WORD_RBRACK, WORD_LBRACE, WORD_RBRACE, WORD_COMMA,
					       WORD_ASSIGN, WORD_COLON,  WORD_OTHER,  WORD_OTHER,  WORD_OTHER };
	const char *found = strchr(signs, peek(scan));

	if (found == NULL || *found == (scan->json ? '=' : ':'))
		return hcl_error(scan->pos, err, "illegal char");
	take(scan);
	out->word = words[found - signs];
	return CODE_OK;
}

enum code hcl_scan(struct hcl_scan *scan, struct hcl_token *out, struct err *err)
{
	int c, after;

	TRY(skip_blank(scan, err));
	*out = (struct hcl_token){ .word = WORD_EOF, .pos = scan->pos };
	c = peek(scan);
	after = scan->at + 1 < scan->len ? scan->data[scan->at + 1] : END;
	if (c == END)
		return CODE_OK;
	if (at_letter(scan)) {
		scan_ident(scan, out);
		if (scan->json && out->word == WORD_IDENT)
			return hcl_error(out->pos, err, "illegal char");
		return CODE_OK;
	}
	if (is_digit(c) || ((c == '-' || c == '.') && is_digit(after)))
		return scan_number(scan, out, err);
	if (c == '"')
		return scan_string(scan, out, err);
	if (c == '<' && !scan->json)
		return scan_heredoc(scan, out, err);
	return scan_sign(scan, out, err);
}
