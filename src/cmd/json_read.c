/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of fields walked along the document. Nesting is that of the shapes: three. */
#include "cmd/json_read.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

/* Where we are: for the texts. */
struct where {
	const struct where *up;
	const struct json_shape *shape; /* that has the field */
	const struct json_field *field;
};

static void put_path(struct buf *out, const struct where *where)
{
	const struct where *steps[8];
	size_t n = 0;

	for (; where != NULL; where = where->up) {
		assert(n < sizeof steps / sizeof steps[0]);
		steps[n++] = where;
	}
	while (n-- > 0)
		buf_printf(out, ".%s", steps[n]->field->name);
}

static enum code wrong_type(const struct json *value, bool shown, const struct where *where, const char *type,
			    struct err *err)
{
	OWN_BUF path = { 0 };

	if (where == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "json: cannot unmarshal %s into Go value of type %s",
			       json_kind_name(value), type);
	put_path(&path, where);
	return err_set(err, CODE_INVALID_ARGUMENT, "json: cannot unmarshal %s%s%s into Go struct field %s%s of type %s",
		       json_kind_name(value), shown ? " " : "", shown ? value->text : "", where->shape->name,
		       buf_text(&path), type);
}

static enum code wrong_object(const struct json *value, const struct where *where, const struct json_shape *shape,
			      const char *before, struct err *err)
{
	OWN_BUF type = { 0 };

	buf_printf(&type, "%s%s.%s", before, shape->package, shape->name);
	return wrong_type(value, false, where, buf_text(&type), err);
}

static enum code read_string(const struct json *value, const struct where *where, const char **out, struct err *err)
{
	if (value->kind != JSON_STRING)
		return wrong_type(value, false, where, "string", err);
	if (strlen(value->text) != value->len)
		return err_set(err, CODE_INVALID_ARGUMENT, "json: string of \"%s\" holds a NUL", where->field->name);
	*out = value->text;
	return CODE_OK;
}

static enum code read_strings(const struct json *value, const struct where *where, struct strings *out,
			      struct arena *arena, struct err *err)
{
	const char **items;
	size_t n = 0;

	if (value->kind != JSON_ARRAY)
		return wrong_type(value, false, where, "[]string", err);
	items = arena_alloc(arena, value->n * sizeof *items);
	for (const struct json *item = value->first; item != NULL; item = item->next, n++) {
		items[n] = "";
		if (item->kind != JSON_NULL)
			TRY(read_string(item, where, &items[n], err));
	}
	*out = (struct strings){ items, n };
	return CODE_OK;
}

static enum code read_object(const struct json *value, const struct where *up, const struct json_shape *shape,
			     void *out, struct arena *arena, struct err *err);

static enum code read_objects(const struct json *value, const struct where *where, struct json_list *out,
			      struct arena *arena, struct err *err)
{
	const struct json_shape *shape = where->field->shape;
	size_t n = 0;
	void **items;

	if (value->kind != JSON_ARRAY)
		return wrong_object(value, where, shape, "[]*", err);
	items = arena_zalloc(arena, value->n * sizeof *items);
	for (const struct json *item = value->first; item != NULL; item = item->next, n++) {
		if (item->kind == JSON_NULL)
			continue;
		items[n] = arena_alloc(arena, shape->size);
		TRY(read_object(item, where, shape, items[n], arena, err));
	}
	*out = (struct json_list){ items, n };
	return CODE_OK;
}

static enum code read_int(const struct json *value, const struct where *where, void *member, bool wide, struct err *err)
{
	const char *type = wide ? "int64" : "int32";
	int64_t number;

	if (value->kind != JSON_NUMBER)
		return wrong_type(value, false, where, type, err);
	if (!json_int64(value, &number) || (!wide && (number < INT32_MIN || number > INT32_MAX)))
		return wrong_type(value, true, where, type, err);
	if (wide)
		*(int64_t *)member = number;
	else
		*(int32_t *)member = (int32_t)number;
	return CODE_OK;
}

static enum code read_field(const struct json *value, const struct where *where, void *member, struct arena *arena,
			    struct err *err)
{
	if (where->field->type == JSON_READ_ANY) {
		*(const struct json **)member = value;
		return CODE_OK;
	}
	if (value->kind == JSON_NULL)
		return CODE_OK;
	switch (where->field->type) {
	case JSON_READ_STRING:
		return read_string(value, where, member, err);
	case JSON_READ_BOOL:
		if (value->kind != JSON_BOOL)
			return wrong_type(value, false, where, "bool", err);
		*(bool *)member = value->truth;
		return CODE_OK;
	case JSON_READ_INT32:
		return read_int(value, where, member, false, err);
	case JSON_READ_INT64:
		return read_int(value, where, member, true, err);
	case JSON_READ_STRINGS:
		return read_strings(value, where, member, arena, err);
	default:
		assert(where->field->type == JSON_READ_OBJECTS);
		return read_objects(value, where, member, arena, err);
	}
}

static const struct json_field *field_of(const struct json_shape *shape, const struct json *member)
{
	const struct json_field *folded = NULL;

	if (strlen(member->name) != member->name_len)
		return NULL;
	for (const struct json_field *field = shape->fields; field->type != JSON_READ_END; field++) {
		if (strcmp(field->name, member->name) == 0)
			return field;
		if (strcasecmp(field->name, member->name) == 0)
			folded = field;
	}
	return folded;
}

static void clear(const struct json_shape *shape, void *out)
{
	memset(out, 0, shape->size);
	for (const struct json_field *field = shape->fields; field->type != JSON_READ_END; field++)
		if (field->type == JSON_READ_STRING)
			*(const char **)((char *)out + field->offset) = "";
}

static enum code read_object(const struct json *value, const struct where *up, const struct json_shape *shape,
			     void *out, struct arena *arena, struct err *err)
{
	clear(shape, out);
	if (value->kind == JSON_NULL)
		return CODE_OK;
	if (value->kind != JSON_OBJECT)
		return wrong_object(value, up, shape, "", err);
	for (const struct json *member = value->first; member != NULL; member = member->next) {
		struct where where = { up, shape, field_of(shape, member) };

		if (where.field != NULL)
			TRY(read_field(member, &where, (char *)out + where.field->offset, arena, err));
	}
	return CODE_OK;
}

enum code json_read(const char *text, size_t len, const struct json_shape *shape, void *out, struct arena *arena,
		    struct err *err)
{
	const struct json *doc;

	TRY(json_parse(text, len, arena, &doc, err));
	return read_object(doc, NULL, shape, out, arena, err);
}
