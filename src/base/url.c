/* SPDX-License-Identifier: Apache-2.0 */
/* RFC 3986 with the habits of Go's net/url: a scheme is letters first, a host may be anything printable, escapes must
 * be whole, and a path that is no valid encoding of itself is decoded and encoded again. */
#include "base/url.h"

#include "base/buf.h"
#include "base/gotext.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum part { PART_HOST, PART_PATH, PART_FRAGMENT };

static bool is_in(const char *set, char c)
{
	return c != '\0' && strchr(set, c) != NULL;
}

static bool is_plain(char c)
{
	return isalnum((unsigned char)c) || is_in("-_.~", c);
}

/* Does this byte, decoded, have to be written as %XX? */
static bool must_escape(char c, enum part part)
{
	if (is_plain(c))
		return false;
	if (part == PART_HOST)
		return !is_in("!$&'()*+,;=:[]<>\"", c);
	if (is_in("$&+,/:;=?@", c))
		return part == PART_PATH && c == '?';
	return part != PART_FRAGMENT || !is_in("!()*", c);
}

/* May this byte stand in a written path or fragment as it is? */
static bool is_valid_written(char c, enum part part)
{
	return is_in("!$&'()*+,;=:@[]%", c) || !must_escape(c, part);
}

static int unhex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static enum code bad_escape(const char *at, struct err *err)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "invalid URL escape \"%.3s\"", at);
}

/* Checks escapes; in a host only those of bytes above 127, and only printable ones beside. */
static enum code check(const char *text, enum part part, struct err *err)
{
	for (const char *at = text; *at != '\0'; at++) {
		if (*at == '%') {
			if (unhex(at[1]) < 0 || unhex(at[2]) < 0 || (part == PART_HOST && unhex(at[1]) < 8))
				return bad_escape(at, err);
			at += 2;
		} else if (part == PART_HOST && (unsigned char)*at < 0x80 && must_escape(*at, part)) {
			return err_set(err, CODE_INVALID_ARGUMENT, "invalid character \"%c\" in host name", *at);
		}
	}
	return CODE_OK;
}

static const char *decode(const char *text, struct arena *arena)
{
	char *out = arena_alloc(arena, strlen(text) + 1), *to = out;

	for (const char *at = text; *at != '\0'; at++) {
		if (*at == '%') {
			*to++ = (char)(unhex(at[1]) << 4 | unhex(at[2]));
			at += 2;
		} else {
			*to++ = *at;
		}
	}
	*to = '\0';
	return out;
}

static void encode_one(struct buf *out, char c, enum part part)
{
	if (must_escape(c, part))
		buf_printf(out, "%%%02X", (unsigned char)c);
	else
		buf_put(out, (uint8_t)c);
}

static bool is_fit(const char *written, enum part part)
{
	for (; *written != '\0'; written++)
		if (!is_valid_written(*written, part))
			return false;
	return true;
}

/* As written if that is fit to be, else decoded and encoded. */
static void put_written(struct buf *out, const char *text, enum part part)
{
	if (is_fit(text, part)) {
		buf_puts(out, text);
		return;
	}
	for (; *text != '\0'; text++) {
		if (*text == '%') {
			encode_one(out, (char)(unhex(text[1]) << 4 | unhex(text[2])), part);
			text += 2;
		} else {
			encode_one(out, *text, part);
		}
	}
}

/* --- parsing --- */

/* "" or ":" and digits. */
static enum code check_port(const char *text, struct err *err)
{
	if (text[0] == '\0' || (text[0] == ':' && strspn(text + 1, "0123456789") == strlen(text + 1)))
		return CODE_OK;
	return err_set(err, CODE_INVALID_ARGUMENT, "invalid port \"%s\" after host", text);
}

static enum code parse_host(const char *text, struct arena *arena, const char **out, struct err *err)
{
	const char *colon = strrchr(text, ':');

	if (text[0] == '[') {
		const char *end = strrchr(text, ']');

		if (end == NULL)
			return err_set(err, CODE_INVALID_ARGUMENT, "missing ']' in host");
		TRY(check_port(end + 1, err));
	} else if (colon != NULL) {
		TRY(check_port(colon, err));
	}
	TRY(check(text, PART_HOST, err));
	*out = decode(text, arena);
	return CODE_OK;
}

static enum code parse_authority(char **rest, struct arena *arena, struct url *out, struct err *err)
{
	char *authority = *rest + 2, *slash = strchr(authority, '/'), *at;

	*rest = slash == NULL ? "" : arena_strdup(arena, slash);
	if (slash != NULL)
		*slash = '\0';
	out->has_authority = true;
	at = strrchr(authority, '@');
	out->has_user = at != NULL;
	if (at != NULL) {
		*at = '\0';
		for (const char *c = authority; *c != '\0'; c++)
			if (!isalnum((unsigned char)*c) && !is_in("-._:~!$&'()*+,;=%@", *c))
				return err_set(err, CODE_INVALID_ARGUMENT, "net/url: invalid userinfo");
		TRY(check(authority, PART_PATH, err));
	}
	return parse_host(at == NULL ? authority : at + 1, arena, &out->host, err);
}

/* Takes "scheme:" off. */
static enum code parse_scheme(char **rest, struct arena *arena, struct url *out, struct err *err)
{
	size_t len = strspn(*rest, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.");
	char *scheme;

	if ((*rest)[0] == ':')
		return err_set(err, CODE_INVALID_ARGUMENT, "missing protocol scheme");
	if (!isalpha((unsigned char)(*rest)[0]) || (*rest)[len] != ':')
		return CODE_OK;
	scheme = arena_strndup(arena, *rest, len);
	for (char *c = scheme; *c != '\0'; c++)
		*c = (char)tolower((unsigned char)*c);
	out->scheme = scheme;
	*rest += len + 1;
	return CODE_OK;
}

/* Cuts at the first `mark`; what follows, or NULL. */
static char *cut(char *text, char mark)
{
	char *at = strchr(text, mark);

	if (at == NULL)
		return NULL;
	*at = '\0';
	return at + 1;
}

static enum code parse_parts(char *rest, struct arena *arena, struct url *out, struct err *err)
{
	char *fragment = cut(rest, '#'), *query;

	if (fragment != NULL) {
		TRY(check(fragment, PART_FRAGMENT, err));
		out->fragment = fragment;
	}
	TRY(parse_scheme(&rest, arena, out, err));
	query = cut(rest, '?');
	out->has_query = query != NULL;
	out->query = query == NULL ? "" : query;
	if (rest[0] != '/') {
		if (out->scheme[0] != '\0') {
			out->opaque = rest;
			return CODE_OK;
		}
		if (strcspn(rest, ":") < strcspn(rest, "/"))
			return err_set(err, CODE_INVALID_ARGUMENT, "first path segment in URL cannot contain colon");
	}
	if (strncmp(rest, "//", 2) == 0 && (out->scheme[0] != '\0' || rest[2] != '/'))
		TRY(parse_authority(&rest, arena, out, err));
	TRY(check(rest, PART_PATH, err));
	out->path = rest;
	return CODE_OK;
}

enum code url_parse(const char *text, struct arena *arena, struct url *out, struct err *err)
{
	struct url url = { .scheme = "", .opaque = "", .host = "", .path = "", .query = "", .fragment = "" };
	OWN_BUF quoted = { 0 };
	enum code rc = CODE_OK;

	for (const char *at = text; *at != '\0' && rc == CODE_OK; at++)
		if ((unsigned char)*at < 0x20 || *at == 0x7f)
			rc = err_set(err, CODE_INVALID_ARGUMENT, "net/url: invalid control character in URL");
	if (rc == CODE_OK)
		rc = parse_parts(arena_strdup(arena, text), arena, &url, err);
	if (rc != CODE_OK) {
		go_quote(&quoted, text);
		return err_wrap(err, rc, "parse %s", buf_text(&quoted));
	}
	*out = url;
	return CODE_OK;
}

const char *url_text(const struct url *url, struct arena *arena)
{
	OWN_BUF out = { 0 };

	if (url->scheme[0] != '\0')
		buf_printf(&out, "%s:", url->scheme);
	buf_puts(&out, url->opaque);
	if (url->has_authority) {
		buf_puts(&out, "//");
		for (const char *c = url->host; *c != '\0'; c++)
			encode_one(&out, *c, PART_HOST);
	}
	put_written(&out, url->path, PART_PATH);
	if (url->has_query)
		buf_printf(&out, "?%s", url->query);
	if (url->fragment[0] != '\0') {
		buf_put(&out, '#');
		put_written(&out, url->fragment, PART_FRAGMENT);
	}
	return arena_strdup(arena, buf_text(&out));
}
