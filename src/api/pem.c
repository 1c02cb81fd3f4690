/* SPDX-License-Identifier: Apache-2.0 */
/* PEM by hand: OpenSSL's reader is stricter in some places and laxer in others than the decoder whose answers the
 * commands give. */
#include "api/pem.h"

#include "base/gotext.h"
#include "base/own.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <string.h>

OWNABLE(X509, X509_free)

struct text {
	const char *at, *end;
};

static const char BEGIN[] = "-----BEGIN ", END[] = "-----END ", DASHES[] = "-----";

static bool starts(struct text text, const char *with)
{
	size_t len = strlen(with);

	return (size_t)(text.end - text.at) >= len && memcmp(text.at, with, len) == 0;
}

static bool ends(struct text text, const char *with)
{
	size_t len = strlen(with);

	return (size_t)(text.end - text.at) >= len && memcmp(text.end - len, with, len) == 0;
}

/* The line at the start of *rest without the blanks that end it; *rest goes on behind it. */
static struct text take_line(struct text *rest)
{
	const char *newline = memchr(rest->at, '\n', (size_t)(rest->end - rest->at));
	struct text line = { rest->at, newline != NULL ? newline : rest->end };

	rest->at = newline != NULL ? newline + 1 : rest->end;
	while (line.end > line.at && (line.end[-1] == ' ' || line.end[-1] == '\t' || line.end[-1] == '\r'))
		line.end--;
	return line;
}

/* Moves to the first line that starts with `with`; false if there is none. */
static bool seek_line(struct text *rest, const char *with)
{
	while (rest->at < rest->end) {
		if (starts(*rest, with))
			return true;
		take_line(rest);
	}
	return false;
}

/* The lines between BEGIN and END, as bytes. Nothing but base64 and blanks may be there. */
static bool decode_body(struct text body, struct arena *arena, struct span *der)
{
	OWN_BUF packed = { 0 };
	OWN_BUF bytes = { 0 };

	for (const char *at = body.at; at < body.end; at++)
		if (strchr(" \t\r\n", *at) == NULL || *at == '\0')
			buf_put(&packed, (uint8_t)*at);
	if (packed.len > 0 && !buf_unbase64(&bytes, (const char *)packed.data, packed.len, 0))
		return false;
	*der = (struct span){ arena_memdup(arena, bytes.data != NULL ? bytes.data : (const uint8_t *)"", bytes.len),
			      bytes.len };
	return true;
}

struct block {
	struct text type;
	struct span der;
};

/* The next block that is well formed; false at the end. */
static bool next_block(struct text *rest, struct arena *arena, struct block *out)
{
	while (seek_line(rest, BEGIN)) {
		struct text line = take_line(rest), body, after, tail;

		line.at += sizeof BEGIN - 1;
		if (!ends(line, DASHES))
			continue;
		out->type = (struct text){ line.at, line.end - (sizeof DASHES - 1) };
		body = after = *rest;
		while (after.at < after.end) { /* headers: "Name: value" */
			struct text header = take_line(&after);

			if (memchr(header.at, ':', (size_t)(header.end - header.at)) == NULL)
				break;
			body = after;
		}
		after = body;
		if (!seek_line(&after, END))
			continue;
		body.end = after.at;
		tail = take_line(&after);
		tail.at += sizeof END - 1;
		if (tail.end - tail.at != line.end - line.at ||
		    memcmp(tail.at, line.at, (size_t)(line.end - line.at)) != 0 || !decode_body(body, arena, &out->der))
			continue;
		*rest = after;
		return true;
	}
	return false;
}

enum code pem_check_cert(struct span der, struct err *err)
{
	const uint8_t *at = der.data;
	OWN(X509) cert = d2i_X509(NULL, &at, (long)der.len);

	ERR_clear_error();
	if (cert == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "x509: malformed certificate");
	if (at != der.data + der.len)
		return err_set(err, CODE_INVALID_ARGUMENT, "x509: trailing data");
	return CODE_OK;
}

static enum code check_block(const struct block *block, size_t number, struct err *err)
{
	static const char want[] = "CERTIFICATE";
	size_t len = (size_t)(block->type.end - block->type.at);
	OWN_BUF quoted = { 0 };

	if (len != sizeof want - 1 || memcmp(block->type.at, want, len) != 0) {
		go_quote_bytes(&quoted, block->type.at, len);
		return err_set(err, CODE_INVALID_ARGUMENT, "expected block type \"%s\"; got %s", want,
			       buf_text(&quoted));
	}
	if (pem_check_cert(block->der, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "unable to parse \"%s\" PEM block %zu", want, number);
	return CODE_OK;
}

enum code pem_read_certs(const char *text, size_t len, struct arena *arena, struct span **out, size_t *n,
			 struct err *err)
{
	struct err own = { 0 };
	struct text rest = { text, text + len };
	struct span *certs = NULL;
	size_t count = 0, cap = 0;
	struct block block;

	if (err == NULL)
		err = &own;
	while (next_block(&rest, arena, &block)) {
		TRY(check_block(&block, count + 1, err));
		if (count == cap) {
			struct span *more = arena_alloc(arena, 2 * (cap + 4) * sizeof *more);

			if (count > 0)
				memcpy(more, certs, count * sizeof *more);
			certs = more;
			cap = 2 * (cap + 4);
		}
		certs[count++] = block.der;
	}
	if (count == 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "no PEM blocks");
	*out = certs;
	*n = count;
	return CODE_OK;
}

void pem_write(struct buf *out, const char *type, struct span der)
{
	enum { LINE = 48 }; /* bytes: 64 characters */

	buf_printf(out, "-----BEGIN %s-----\n", type);
	for (size_t at = 0; at < der.len; at += LINE) {
		buf_base64(out, der.data + at, der.len - at < LINE ? der.len - at : LINE, 0);
		buf_put(out, '\n');
	}
	buf_printf(out, "-----END %s-----\n", type);
}
