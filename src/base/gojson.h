/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_GOJSON_H
#define BASE_GOJSON_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* JSON as Go's encoding/json reads it, with its texts of error, because those are what SPIRE's commands and its bundle
 * documents answer with. Input may be anything: nothing here recurses, nesting is limited, the texts quote one byte. */

enum json_kind { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
	enum json_kind kind;
	bool truth;   /* of JSON_BOOL */
	uint32_t len; /* of `text` */
	uint32_t n;   /* items of an array, members of an object */
	const char
		*text; /* JSON_NUMBER: its literal; JSON_STRING: UTF-8, what was not valid is U+FFFD. Ends with a NUL */
	const char *name; /* of a member */
	uint32_t name_len;
	struct json *first, *next; /* items and members in the order of the input */
};

enum { JSON_DEPTH = 10000 }; /* arrays and objects within each other */

/* The whole of `data` is one value. INVALID_ARGUMENT: `invalid character 'x' looking for beginning of value` ... */
enum code json_parse(const char *data, size_t len, struct arena *arena, const struct json **out, struct err *err);

/* The last member of that name, NULL if there is none or `object` is no object. json_find ignores the case of ASCII
 * letters, as Go does for the fields of a struct. */
const struct json *json_get(const struct json *object, const char *name);
const struct json *json_find(const struct json *object, const char *name);

/* "number", "object" ...: what Go calls the value when it is of the wrong type. */
const char *json_kind_name(const struct json *value);

/* strconv.ParseInt and ParseUint of a number's literal: "1.5", "1e3" and what does not fit are refused. */
bool json_int64(const struct json *value, int64_t *out);
bool json_uint64(const struct json *value, uint64_t *out);

/* A string with its quotes as Go writes it: <, > and & escaped, U+2028 and U+2029 too. */
void json_put_string(struct buf *out, const char *text);

#endif
