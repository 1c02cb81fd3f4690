/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_URL_H
#define BASE_URL_H

#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>

/* URLs as Go's net/url reads and writes them, because SPIRE stores what it reads and prints what it stored. */
struct url {
	const char *scheme;   /* lower case; "" = none */
	const char *opaque;   /* "a.test" of "https:a.test"; then there is nothing else but query and fragment */
	const char *host;     /* with the port, decoded; brackets stay: "[::1]:443" */
	const char *path;     /* as written, %XX and all; "" = none */
	const char *query;    /* as written, without "?" */
	const char *fragment; /* as written, without "#" */
	bool has_user;        /* there is an "@" in the authority */
	bool has_authority;   /* there is a "//" */
	bool has_query;       /* there is a "?" */
};

/* INVALID_ARGUMENT `parse "text": what is wrong`. */
enum code url_parse(const char *text, struct arena *arena, struct url *out, struct err *err);

/* In Go's form: what has to be escaped is. Not for one with a user. */
const char *url_text(const struct url *url, struct arena *arena);

#endif
