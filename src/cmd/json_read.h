/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMD_JSON_READ_H
#define CMD_JSON_READ_H

#include "base/arena.h"
#include "base/config.h"
#include "base/err.h"
#include "base/gojson.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The JSON files of the commands (-data, -file) into structs, as Go's json.Unmarshal fills those of SPIRE: names
 * without regard to case, what is unknown is passed over, null changes nothing, the first mistake is reported with Go's
 * names of types. */

struct json_list {
	void **items; /* structs of the field's shape; NULL where the file says null */
	size_t n;
};

enum json_type {
	JSON_READ_END,
	JSON_READ_STRING,  /* const char *; "" when absent */
	JSON_READ_BOOL,    /* bool */
	JSON_READ_INT32,   /* int32_t */
	JSON_READ_INT64,   /* int64_t */
	JSON_READ_STRINGS, /* struct strings */
	JSON_READ_OBJECTS, /* struct json_list */
	JSON_READ_ANY,     /* const struct json *; NULL when absent */
};

struct json_shape;

struct json_field {
	const char *name;
	enum json_type type;
	size_t offset;
	const struct json_shape *shape; /* of JSON_READ_OBJECTS */
};

struct json_shape {
	const char *package, *name; /* what Go calls the type: "common", "RegistrationEntry" */
	size_t size;
	const struct json_field *fields; /* ended by JSON_READ_END */
};

/* Fills *out, `shape->size` bytes. INVALID_ARGUMENT: what json_parse or the types refuse. `null` alone fills nothing.
 */
enum code json_read(const char *text, size_t len, const struct json_shape *shape, void *out, struct arena *arena,
		    struct err *err);

#endif
