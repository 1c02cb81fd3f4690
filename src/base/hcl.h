/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_HCL_H
#define BASE_HCL_H

#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

/* HCL version 1, and JSON when the first character that is not blank is '{', as one tree. What a key means is not known
 * here: repeated keys stay repeated, in the order of the file. Everything lives in the arena; time and memory are
 * linear in the input.
 *
 *   server "a" b { port = 8081 }     an item with the keys "server", "a", b and an object
 *   list = ["x", 1, true, { c = 2 }] values; a comma may stand behind the last
 *   text = <<EOF ... EOF             <<-EOF strips the indentation of the last line
 *
 * In JSON, {"k": [{..}, {..}]} means what two blocks "k" mean. */

struct hcl_pos {
	int line, column; /* from 1; columns count characters */
};

enum hcl_kind {
	HCL_STRING, /* text, unescaped; "${...}" stays as it is */
	HCL_NUMBER, /* text as written: 8081, -1, 0x1F, 0755 */
	HCL_FLOAT,  /* text as written */
	HCL_BOOL,   /* text "true" or "false" */
	HCL_LIST,
	HCL_OBJECT,
};

struct hcl_value {
	enum hcl_kind kind;
	struct hcl_pos pos;
	const char *text;        /* never NULL for the first four kinds, holds no NUL character */
	struct hcl_value *first; /* of a list */
	struct hcl_item *items;  /* of an object */
	struct hcl_value *next;  /* within a list */
};

struct hcl_key {
	const char *text;
	struct hcl_pos pos;
	bool quoted; /* written "so" in HCL; never set in JSON */
};

struct hcl_item {
	const struct hcl_key *keys; /* at least one; more than one only with an object */
	size_t n_keys;
	struct hcl_value *value;
	struct hcl_item *next;
};

/* The root is an object. CODE_INVALID_ARGUMENT: "At LINE:COLUMN: ...". `data` need not end in NUL. */
enum code hcl_parse(const char *data, size_t len, struct arena *arena, struct hcl_value **root, struct err *err);

/* "a string", "an object": what a message calls a value. */
const char *hcl_kind_name(enum hcl_kind kind);

#endif
