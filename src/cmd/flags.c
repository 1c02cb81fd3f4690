/* SPDX-License-Identifier: Apache-2.0 */
/* The command line as Go's package flag reads it: -x v, -x=v, --x v, --x=v; the first word that is no flag, or "--",
 * ends the flags; a bool takes a value only behind '='. */
#include "cmd/flags.h"

#include "base/gotext.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { FLAGS_MAX = 64 }; /* of one command: a table of ours */

static bool as_spire; /* set once, before anything is shown */

void flags_as_spire(void)
{
	as_spire = true;
}

static void *field_of(const struct flag *flag, void *options)
{
	return (char *)options + flag->offset;
}

static void set_defaults(const struct flag *flag, void *options)
{
	void *field = field_of(flag, options);

	switch (flag->type) {
	case FLAG_TYPE_STRING:
		*(const char **)field = flag->text;
		break;
	case FLAG_TYPE_BOOL:
		*(bool *)field = flag->number != 0;
		break;
	case FLAG_TYPE_INT:
	case FLAG_TYPE_DURATION:
		*(int64_t *)field = flag->number;
		break;
	case FLAG_TYPE_STRINGS:
		*(struct strings *)field = (struct strings){ 0 };
		break;
	case FLAG_TYPE_VALUE:
	case FLAG_TYPE_END:
		break;
	}
}

static void add_string(struct strings *list, const char *text, struct arena *arena)
{
	const char **items = arena_alloc(arena, (list->n + 1) * sizeof *items);

	if (list->n > 0)
		memcpy(items, list->items, list->n * sizeof *items);
	items[list->n++] = text;
	list->items = items;
}

static enum code set_int(int64_t *field, const char *text, struct err *err)
{
	switch (go_parse_int(text, field)) {
	case GO_INT_OK:
		return CODE_OK;
	case GO_INT_RANGE:
		return err_set(err, CODE_INVALID_ARGUMENT, "value out of range");
	default:
		return err_set(err, CODE_INVALID_ARGUMENT, "parse error");
	}
}

static enum code set_value(const struct flag *flag, void *options, const char *text, struct arena *arena,
			   struct err *err)
{
	void *field = field_of(flag, options);

	switch (flag->type) {
	case FLAG_TYPE_STRING:
		*(const char **)field = text;
		return CODE_OK;
	case FLAG_TYPE_BOOL:
		if (!go_parse_bool(text, field))
			return err_set(err, CODE_INVALID_ARGUMENT, "parse error");
		return CODE_OK;
	case FLAG_TYPE_INT:
		return set_int(field, text, err);
	case FLAG_TYPE_DURATION:
		if (go_parse_duration(text, field, NULL) != CODE_OK)
			return err_set(err, CODE_INVALID_ARGUMENT, "parse error");
		return CODE_OK;
	case FLAG_TYPE_STRINGS:
		add_string(field, text, arena);
		return CODE_OK;
	default:
		assert(flag->type == FLAG_TYPE_VALUE);
		return flag->set(field, text, arena, err);
	}
}

static const struct flag *find(const struct flag_set *set, const char *name, size_t len)
{
	for (const struct flag *flag = set->flags; flag->type != FLAG_TYPE_END; flag++)
		if (strlen(flag->name) == len && memcmp(flag->name, name, len) == 0)
			return flag;
	return NULL;
}

static enum code not_defined(const char *name, size_t len, struct err *err)
{
	if ((len == 1 && name[0] == 'h') || (len == 4 && memcmp(name, "help", 4) == 0))
		return err_set(err, CODE_CANCELLED, "flag: help requested");
	return err_set(err, CODE_INVALID_ARGUMENT, "flag provided but not defined: -%.*s", (int)len, name);
}

static enum code invalid(const struct flag *flag, const char *text, struct err *err)
{
	bool is_bool = flag->type == FLAG_TYPE_BOOL;
	OWN_BUF what = { 0 };

	buf_puts(&what, is_bool ? "invalid boolean value " : "invalid value ");
	go_quote(&what, text);
	buf_printf(&what, " for %s-%s", is_bool ? "" : "flag ", flag->name);
	return err_wrap(err, CODE_INVALID_ARGUMENT, "%s", buf_text(&what));
}

/* One flag at argv[0]; *used counts the words that it took, 0 when there is no flag. */
static enum code read_one(const struct flag_set *set, void *options, struct arena *arena, int argc, char **argv,
			  int *used, struct err *err)
{
	const char *name = argv[0] + 1, *equals, *text = NULL;
	const struct flag *flag;
	size_t len;

	*used = 0;
	if (argv[0][0] != '-' || argv[0][1] == '\0')
		return CODE_OK;
	*used = 1;
	if (*name == '-')
		name++;
	if (*name == '\0')
		return CODE_OK; /* "--", the caller stops there */
	if (*name == '-' || *name == '=')
		return err_set(err, CODE_INVALID_ARGUMENT, "bad flag syntax: %s", argv[0]);
	equals = strchr(name, '=');
	len = equals != NULL ? (size_t)(equals - name) : strlen(name);
	flag = find(set, name, len);
	if (flag == NULL)
		return not_defined(name, len, err);
	if (equals != NULL) {
		text = equals + 1;
	} else if (flag->type == FLAG_TYPE_BOOL) {
		text = "true";
	} else if (argc > 1) {
		text = argv[1];
		*used = 2;
	} else {
		return err_set(err, CODE_INVALID_ARGUMENT, "flag needs an argument: -%s", flag->name);
	}
	if (set_value(flag, options, text, arena, err) != CODE_OK)
		return invalid(flag, text, err);
	return CODE_OK;
}

enum code flags_read(const struct flag_set *set, void *options, struct arena *arena, int argc, char **argv,
		     struct flag_rest *rest, struct err *err)
{
	struct err own = { 0 }; /* err_wrap needs the inner text */
	int used;

	if (err == NULL)
		err = &own;
	for (const struct flag *flag = set->flags; flag->type != FLAG_TYPE_END; flag++)
		set_defaults(flag, options);
	while (argc > 0) {
		bool end = strcmp(argv[0], "--") == 0;

		TRY(read_one(set, options, arena, argc, argv, &used, err));
		argc -= used;
		argv += used;
		if (end || used == 0)
			break;
	}
	if (rest != NULL)
		*rest = (struct flag_rest){ argc, argv };
	return CODE_OK;
}

static int by_name(const void *a, const void *b)
{
	const struct flag *const *left = a, *const *right = b;

	return strcmp((*left)->name, (*right)->name);
}

static const char *type_word(enum flag_type type)
{
	switch (type) {
	case FLAG_TYPE_STRING:
		return " string";
	case FLAG_TYPE_BOOL:
		return "";
	case FLAG_TYPE_INT:
		return " int";
	case FLAG_TYPE_DURATION:
		return " duration";
	default:
		return " value";
	}
}

static void put_default(struct buf *out, const struct flag *flag)
{
	char text[GO_DURATION_MAX];

	if (flag->type == FLAG_TYPE_STRING && flag->text[0] != '\0') {
		buf_puts(out, " (default ");
		go_quote(out, flag->text);
		buf_puts(out, ")");
	} else if (flag->type == FLAG_TYPE_INT && flag->number != 0) {
		buf_printf(out, " (default %lld)", (long long)flag->number);
	} else if (flag->type == FLAG_TYPE_DURATION && flag->number != 0) {
		buf_printf(out, " (default %s)", go_format_duration(flag->number, text));
	} else if (flag->type == FLAG_TYPE_BOOL && flag->number != 0) {
		buf_puts(out, " (default true)");
	}
}

static void put_flag(struct buf *out, const struct flag *flag)
{
	bool short_bool = flag->type == FLAG_TYPE_BOOL && strlen(flag->name) == 1;

	buf_printf(out, "  -%s%s%s", flag->name, type_word(flag->type), short_bool ? "\t" : "\n    \t");
	for (const char *at = flag->help; *at != '\0'; at++) {
		if (*at == '\n')
			buf_puts(out, "\n    \t");
		else
			buf_put(out, (uint8_t)*at);
	}
	put_default(out, flag);
	buf_put(out, '\n');
}

void flags_usage(const struct flag_set *set, FILE *out)
{
	const struct flag *sorted[FLAGS_MAX];
	OWN_BUF text = { 0 };
	size_t n = 0;

	for (const struct flag *flag = set->flags; flag->type != FLAG_TYPE_END; flag++) {
		if (flag->hidden || (flag->ours && as_spire))
			continue;
		assert(n < FLAGS_MAX);
		sorted[n++] = flag;
	}
	qsort(sorted, n, sizeof *sorted, by_name);
	buf_printf(&text, "Usage of %s:\n", set->name);
	for (size_t i = 0; i < n; i++)
		put_flag(&text, sorted[i]);
	fputs(buf_text(&text), out);
}

bool flags_parse(const struct flag_set *set, void *options, struct arena *arena, int argc, char **argv,
		 struct flag_rest *rest, int *status)
{
	struct err err = { 0 };
	enum code rc = flags_read(set, options, arena, argc, argv, rest, &err);

	if (rc == CODE_OK)
		return true;
	if (rc != CODE_CANCELLED)
		fprintf(stderr, "%s\n", err.text);
	flags_usage(set, stderr);
	if (rc == CODE_CANCELLED)
		fprintf(stderr, "%s\n", err.text);
	*status = rc == CODE_CANCELLED ? 0 : 1;
	return false;
}
