/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CA_TEMPLATE_H
#define CA_TEMPLATE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/own.h"

#include <stdbool.h>
#include <stddef.h>

/* Agent path templates: the part of Go's text/template that paths need. Text, and actions {{ ... }} of one pipeline:
 * fields
 * (.Subject.CommonName), literals ("x", `x`, 3) and the functions below, also chained by '|'. {{- and -}} trim blanks.
 * Conditions, loops, variables, parentheses and comments are refused when the template is read, as is a field that does
 * not exist.
 *
 *   lower upper trim nospace sha1sum sha256sum      one text
 *   trimPrefix trimSuffix trimAll                   affix or set, text
 *   replace                                         old, new, text
 *   trunc                                           count, text
 *   default                                         fallback, text
 *   index                                           list, number
 *   first last                                      list
 *   join                                            separator, list */
struct template;

/* A field that a template may name. With `is_map` the name goes on: ".URISanSelectors.key". */
struct template_field {
	const char *name; /* "Subject.CommonName" */
	bool is_list, is_map;
};

struct template_value {
	const char *text;        /* of a text; NULL: empty */
	const char *const *list; /* of a list */
	size_t n;
};

/* Field number `field` of the table given to template_new; `key` of a map. False: the map has no such key. */
typedef bool template_lookup(const void *data, size_t field, const char *key, struct arena *arena,
			     struct template_value *out);

/* `fields` must outlive the template. INVALID_ARGUMENT says what is not supported or wrong. */
enum code template_new(const char *text, const struct template_field *fields, size_t n_fields, struct template **out,
		       struct err *err);
void template_free(struct template *template);
OWNABLE_STRUCT(template, template_free)

/* INTERNAL: a key that the map lacks, an index out of range. */
enum code template_run(const struct template *template, template_lookup *lookup, const void *data, struct arena *arena,
		       const char **out, struct err *err);

#endif
