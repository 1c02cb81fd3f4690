/* SPDX-License-Identifier: Apache-2.0 */
/* Templates are read once into a list of pieces, with every type checked, so that what can fail at each agent is
 * little. All of a template lies in an arena of its own. A pipeline is kept as calls in the order in which they run:
 * the result of one is the last argument of the next. */

#include "ca/template.h"

#include "ca/signer.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARGS_MAX = 3, TEMPLATE_MAX = 4096 };

enum type { TYPE_TEXT, TYPE_NUMBER, TYPE_LIST };

struct operand {
	enum { OPERAND_TEXT, OPERAND_NUMBER, OPERAND_FIELD, OPERAND_PIPED } kind;
	enum type type;
	const char *text; /* a literal, or the key of a map */
	long number;
	size_t field;
};

struct step { /* a call, or (function NULL) its one operand */
	const struct function *function;
	struct operand args[ARGS_MAX];
	size_t n_args;
	struct step *next;
};

struct piece {
	const char *text; /* NULL: an action */
	struct step *steps;
	struct piece *next;
};

struct template
{
	struct arena *arena;
	const struct template_field *fields;
	size_t n_fields;
	struct piece *pieces;
};

/* ---- functions ---- */

struct result {
	struct template_value value;
	long number;
};

struct function {
	const char *name;
	enum code (*run)(const struct result *args, struct arena *arena, struct result *out, struct err *err);
	enum type args[ARGS_MAX];
	size_t n_args;
};

static enum code give(struct result *out, const char *text)
{
	*out = (struct result){ .value.text = text };
	return CODE_OK;
}

static const char *text_of(const struct result *result)
{
	return result->value.text == NULL ? "" : result->value.text;
}

static enum code run_lower(const struct result *args, struct arena *arena, struct result *out, struct err *err)
{
	char *text = arena_strdup(arena, text_of(&args[0]));

	(void)err;
	for (char *c = text; *c != '\0'; c++)
		*c = (char)tolower((unsigned char)*c);
	return give(out, text);
}

static enum code run_upper(const struct result *args, struct arena *arena, struct result *out, struct err *err)
{
	char *text = arena_strdup(arena, text_of(&args[0]));

	(void)err;
	for (char *c = text; *c != '\0'; c++)
		*c = (char)toupper((unsigned char)*c);
	return give(out, text);
}

static const char *trim_set(const char *text, const char *set, struct arena *arena)
{
	size_t start = strspn(text, set), end = strlen(text);

	while (end > start && strchr(set, text[end - 1]) != NULL)
		end--;
	return arena_strndup(arena, text + start, end - start);
}

static enum code run_trim(const struct result *args, struct arena *arena, struct result *out, struct err *err)
{
	(void)err;
	return give(out, trim_set(text_of(&args[0]), " \t\r\n\v\f", arena));
}

static enum code run_trim_all(const struct result *args, struct arena *arena, struct result *out, struct err *err)
{
	(void)err;
	return give(out, trim_set(text_of(&args[1]), text_of(&args[0]), arena));
}

static enum code run_nospace(const struct result *args, struct arena *arena, struct result *out, struct err *err)
{
	const char *text = text_of(&args[0]);
	char *kept = arena_alloc(arena, strlen(text) + 1), *to = kept;

	(void)err;
	for (; *text != '\0'; text++)
		if (!isspace((unsigned char)*text))
			*to++ = *text;
	*to = '\0';
	return give(out, kept);
}

static enum code hex_digest(enum digest digest, const char *text, struct arena *arena, struct result *out)
{
	OWN_BUF hex = { 0 };
	uint8_t sum[EVP_MAX_MD_SIZE];
	size_t len = digest_of(digest, text, strlen(text), sum);

	buf_hex(&hex, sum, len);
	return give(out, arena_strdup(arena, buf_text(&hex)));
}

static enum code run_sha1sum(const struct result *args, struct arena *arena, struct result *out, struct err *err)
{
	(void)err;
	return hex_digest(DIGEST_SHA1, text_of(&args[0]), arena, out);
}

static enum code run_sha256sum(const struct result *args, struct arena *arena, struct result *out, struct err *err)
{
	(void)err;
	return hex_digest(DIGEST_SHA256, text_of(&args[0]), arena, out);
}

static enum code run_trim_prefix(const struct result *args, struct arena *arena, struct result *out, struct err *err)
{
	const char *prefix = text_of(&args[0]), *text = text_of(&args[1]);

	(void)arena;
	(void)err;
	return give(out, strncmp(text, prefix, strlen(prefix)) == 0 ? text + strlen(prefix) : text);
}

static enum code run_trim_suffix(const struct result *args, struct arena *arena, struct result *out, struct err *err)
{
	const char *suffix = text_of(&args[0]), *text = text_of(&args[1]);
	size_t len = strlen(text), suffix_len = strlen(suffix);

	(void)err;
	if (suffix_len > len || strcmp(text + len - suffix_len, suffix) != 0)
		return give(out, text);
	return give(out, arena_strndup(arena, text, len - suffix_len));
}

static enum code run_replace(const struct result *args, struct arena *arena, struct result *out, struct err *err)
{
	const char *old = text_of(&args[0]), *new = text_of(&args[1]), *text = text_of(&args[2]);
	OWN_BUF made = { 0 };

	(void)err;
	if (old[0] == '\0')
		return give(out, text);
	for (const char *hit; (hit = strstr(text, old)) != NULL; text = hit + strlen(old)) {
		buf_append(&made, text, (size_t)(hit - text));
		buf_puts(&made, new);
	}
	buf_puts(&made, text);
	return give(out, arena_strdup(arena, buf_text(&made)));
}

static enum code run_trunc(const struct result *args, struct arena *arena, struct result *out, struct err *err)
{
	const char *text = text_of(&args[1]);
	long len = (long)strlen(text), count = args[0].number;

	(void)err;
	if (count < 0)
		return give(out, len + count > 0 ? text + len + count : text);
	return give(out, arena_strndup(arena, text, (size_t)(count < len ? count : len)));
}

static enum code run_default(const struct result *args, struct arena *arena, struct result *out, struct err *err)
{
	(void)arena;
	(void)err;
	return give(out, text_of(&args[1])[0] == '\0' ? text_of(&args[0]) : text_of(&args[1]));
}

static enum code run_index(const struct result *args, struct arena *arena, struct result *out, struct err *err)
{
	long at = args[1].number;

	(void)arena;
	if (at < 0 || (size_t)at >= args[0].value.n)
		return err_set(err, CODE_INTERNAL, "error calling index: index out of range: %ld", at);
	return give(out, args[0].value.list[at]);
}

static enum code run_first(const struct result *args, struct arena *arena, struct result *out, struct err *err)
{
	(void)arena;
	(void)err;
	return give(out, args[0].value.n == 0 ? "" : args[0].value.list[0]);
}

static enum code run_last(const struct result *args, struct arena *arena, struct result *out, struct err *err)
{
	(void)arena;
	(void)err;
	return give(out, args[0].value.n == 0 ? "" : args[0].value.list[args[0].value.n - 1]);
}

static enum code run_join(const struct result *args, struct arena *arena, struct result *out, struct err *err)
{
	OWN_BUF made = { 0 };

	(void)err;
	for (size_t i = 0; i < args[1].value.n; i++) {
		if (i > 0)
			buf_puts(&made, text_of(&args[0]));
		buf_puts(&made, args[1].value.list[i]);
	}
	return give(out, arena_strdup(arena, buf_text(&made)));
}

static const struct function functions[] = {
	{ "lower", run_lower, { TYPE_TEXT }, 1 },
	{ "upper", run_upper, { TYPE_TEXT }, 1 },
	{ "trim", run_trim, { TYPE_TEXT }, 1 },
	{ "nospace", run_nospace, { TYPE_TEXT }, 1 },
	{ "sha1sum", run_sha1sum, { TYPE_TEXT }, 1 },
	{ "sha256sum", run_sha256sum, { TYPE_TEXT }, 1 },
	{ "trimAll", run_trim_all, { TYPE_TEXT, TYPE_TEXT }, 2 },
	{ "trimPrefix", run_trim_prefix, { TYPE_TEXT, TYPE_TEXT }, 2 },
	{ "trimSuffix", run_trim_suffix, { TYPE_TEXT, TYPE_TEXT }, 2 },
	{ "replace", run_replace, { TYPE_TEXT, TYPE_TEXT, TYPE_TEXT }, 3 },
	{ "trunc", run_trunc, { TYPE_NUMBER, TYPE_TEXT }, 2 },
	{ "default", run_default, { TYPE_TEXT, TYPE_TEXT }, 2 },
	{ "index", run_index, { TYPE_LIST, TYPE_NUMBER }, 2 },
	{ "first", run_first, { TYPE_LIST }, 1 },
	{ "last", run_last, { TYPE_LIST }, 1 },
	{ "join", run_join, { TYPE_TEXT, TYPE_LIST }, 2 },
};

/* ---- reading ---- */

struct reader {
	struct template *template;
	const char *at, *end; /* of the action */
};

static enum code refuse(struct err *err, const char *fmt, const char *text, size_t len)
{
	char word[64];

	snprintf(word, sizeof word, "%.*s", (int)(len < sizeof word ? len : sizeof word - 1), text);
	return err_set(err, CODE_INVALID_ARGUMENT, fmt, word);
}

static void skip_blanks(struct reader *reader)
{
	while (reader->at < reader->end && isspace((unsigned char)*reader->at))
		reader->at++;
}

static bool is_word(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

static size_t word_len(const struct reader *reader, bool dots)
{
	size_t len = 0;

	while (reader->at + len < reader->end && (is_word(reader->at[len]) || (dots && reader->at[len] == '.')))
		len++;
	return len;
}

static enum code read_field(struct reader *reader, struct operand *out, struct err *err)
{
	const char *name = reader->at + 1;
	size_t len;

	reader->at++;
	len = word_len(reader, true);
	reader->at += len;
	for (size_t i = 0; i < reader->template->n_fields; i++) {
		const struct template_field *field = &reader->template->fields[i];
		size_t field_len = strlen(field->name);

		if (field->is_map && len > field_len + 1 && memcmp(name, field->name, field_len) == 0 &&
		    name[field_len] == '.' && memchr(name + field_len + 1, '.', len - field_len - 1) == NULL) {
			*out = (struct operand){ .kind = OPERAND_FIELD, .field = i };
			out->text = arena_strndup(reader->template->arena, name + field_len + 1, len - field_len - 1);
			return CODE_OK;
		}
		if (!field->is_map && len == field_len && memcmp(name, field->name, len) == 0) {
			*out = (struct operand){ .kind = OPERAND_FIELD, .field = i };
			out->type = field->is_list ? TYPE_LIST : TYPE_TEXT;
			return CODE_OK;
		}
	}
	return refuse(err, "field \".%s\" is not supported", name, len);
}

static enum code read_literal(struct reader *reader, struct operand *out, struct err *err)
{
	char quote = *reader->at++;
	char *text = arena_alloc(reader->template->arena, (size_t)(reader->end - reader->at) + 1), *to = text;

	while (reader->at < reader->end && *reader->at != quote) {
		if (quote == '"' && *reader->at == '\\') {
			reader->at++;
			if (reader->at == reader->end || strchr("\"\\", *reader->at) == NULL)
				return err_set(err, CODE_INVALID_ARGUMENT,
					       "a string has an escape other than \\\" and \\\\");
		}
		*to++ = *reader->at++;
	}
	if (reader->at == reader->end)
		return err_set(err, CODE_INVALID_ARGUMENT, "unterminated quoted string");
	reader->at++;
	*to = '\0';
	*out = (struct operand){ .kind = OPERAND_TEXT, .text = text };
	return CODE_OK;
}

static enum code read_number(struct reader *reader, struct operand *out, struct err *err)
{
	const char *start = reader->at;
	size_t len = (*start == '-') + strspn(start + (*start == '-'), "0123456789");

	if (len > 9 || !isdigit((unsigned char)start[len - 1]))
		return refuse(err, "bad number \"%s\"", start, len);
	reader->at += len;
	*out = (struct operand){ .kind = OPERAND_NUMBER, .type = TYPE_NUMBER, .number = strtol(start, NULL, 10) };
	return CODE_OK;
}

static enum code read_operand(struct reader *reader, struct operand *out, struct err *err)
{
	char c = *reader->at;

	if (c == '.')
		return read_field(reader, out, err);
	if (c == '"' || c == '`')
		return read_literal(reader, out, err);
	if (isdigit((unsigned char)c) || c == '-')
		return read_number(reader, out, err);
	if (is_word(c))
		return refuse(err, "function or keyword \"%s\" is not supported here", reader->at,
			      word_len(reader, false));
	return refuse(err, "'%s' is not supported", reader->at, 1);
}

static enum code read_function(struct reader *reader, const struct function **out, struct err *err)
{
	size_t len = word_len(reader, false);

	for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
		if (strlen(functions[i].name) == len && memcmp(functions[i].name, reader->at, len) == 0) {
			reader->at += len;
			*out = &functions[i];
			return CODE_OK;
		}
	}
	return refuse(err, "function or keyword \"%s\" is not supported", reader->at, len);
}

static enum code check_args(const struct step *step, struct err *err)
{
	static const char *const names[] = { "a text", "a number", "a list" };
	const struct function *function = step->function;

	if (step->n_args != function->n_args)
		return err_set(err, CODE_INVALID_ARGUMENT, "wrong number of args for %s: want %zu got %zu",
			       function->name, function->n_args, step->n_args);
	for (size_t i = 0; i < step->n_args; i++)
		if (step->args[i].type != function->args[i])
			return err_set(err, CODE_INVALID_ARGUMENT, "argument %zu of %s must be %s", i + 1,
				       function->name, names[function->args[i]]);
	return CODE_OK;
}

/* One command of a pipeline. `piped`: what the command before it gives. */
static enum code read_step(struct reader *reader, const enum type *piped, struct step *step, struct err *err)
{
	if (isalpha((unsigned char)*reader->at) || *reader->at == '_')
		TRY(read_function(reader, &step->function, err));
	for (;;) {
		skip_blanks(reader);
		if (reader->at == reader->end || *reader->at == '|')
			break;
		if (step->n_args == ARGS_MAX)
			return err_set(err, CODE_INVALID_ARGUMENT, "too many arguments");
		TRY(read_operand(reader, &step->args[step->n_args++], err));
	}
	if (piped != NULL) {
		if (step->n_args == ARGS_MAX)
			return err_set(err, CODE_INVALID_ARGUMENT, "too many arguments");
		step->args[step->n_args++] = (struct operand){ .kind = OPERAND_PIPED, .type = *piped };
	}
	if (step->function != NULL)
		return check_args(step, err);
	if (step->n_args != 1 || piped != NULL)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       piped != NULL ? "non executable command in pipeline"
					     : "can't give argument to non-function");
	return CODE_OK;
}

static enum code read_pipeline(struct reader *reader, struct step **first, struct err *err)
{
	enum type type = TYPE_TEXT;
	struct step **at = first;

	for (;;) {
		struct step *step = arena_zalloc(reader->template->arena, sizeof *step);

		skip_blanks(reader);
		if (reader->at == reader->end)
			return err_set(err, CODE_INVALID_ARGUMENT, "missing value for command");
		TRY(read_step(reader, at == first ? NULL : &type, step, err));
		type = step->function != NULL ? TYPE_TEXT : step->args[0].type;
		*at = step;
		at = &step->next;
		if (reader->at == reader->end)
			break;
		reader->at++; /* '|' */
	}
	if (type == TYPE_LIST)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "a list has no place in a path: use index, first, last or join");
	return CODE_OK;
}

/* Where the action that begins at `at` ends: at its "}}", which a quoted string may contain, too. NULL: nowhere. */
static const char *action_end(const char *at)
{
	char quote = '\0';

	for (; *at != '\0'; at++) {
		if (quote == '"' && *at == '\\' && at[1] != '\0')
			at++;
		else if (quote != '\0')
			quote = *at == quote ? '\0' : quote;
		else if (*at == '"' || *at == '`')
			quote = *at;
		else if (at[0] == '}' && at[1] == '}')
			return at;
	}
	return NULL;
}

static struct piece *add_piece(struct template *template, struct piece ***at)
{
	struct piece *piece = arena_zalloc(template->arena, sizeof *piece);

	**at = piece;
	*at = &piece->next;
	return piece;
}

/* The text up to the next action, trimmed where an action's '-' says so. */
static void add_text(struct template *template, struct piece ***at, const char *text, const char *end, bool trim_start,
		     bool trim_end)
{
	while (trim_start && text < end && isspace((unsigned char)*text))
		text++;
	while (trim_end && end > text && isspace((unsigned char)end[-1]))
		end--;
	if (text < end)
		add_piece(template, at)->text = arena_strndup(template->arena, text, (size_t)(end - text));
}

static enum code read_template(struct template *template, const char *text, struct err *err)
{
	struct piece **at = &template->pieces;
	bool trim = false;

	for (;;) {
		const char *open = strstr(text, "{{"), *close;
		struct reader reader = { .template = template };
		bool trim_before;

		if (open == NULL)
			break;
		close = action_end(open + 2);
		if (close == NULL)
			return err_set(err, CODE_INVALID_ARGUMENT, "unclosed action");
		trim_before = open[2] == '-' && isspace((unsigned char)open[3]);
		add_text(template, &at, text, open, trim, trim_before);
		trim = close > open + 3 && close[-1] == '-' && isspace((unsigned char)close[-2]);
		reader.at = open + 2 + trim_before;
		reader.end = trim ? close - 1 : close;
		TRY(read_pipeline(&reader, &add_piece(template, &at)->steps, err));
		text = close + 2;
	}
	add_text(template, &at, text, text + strlen(text), trim, false);
	return CODE_OK;
}

enum code template_new(const char *text, const struct template_field *fields, size_t n_fields, struct template **out,
		       struct err *err)
{
	OWN_STRUCT(template) template = xcalloc(1, sizeof *template);

	template->arena = arena_new();
	template->fields = fields;
	template->n_fields = n_fields;
	if (strlen(text) > TEMPLATE_MAX)
		return err_set(err, CODE_INVALID_ARGUMENT, "it is longer than %d characters", TEMPLATE_MAX);
	TRY(read_template(template, text, err));
	*out = TAKE(template);
	return CODE_OK;
}

void template_free(struct template *template)
{
	if (template == NULL)
		return;
	arena_free(template->arena);
	free(template);
}

/* ---- running ---- */

struct run {
	const struct template *template;
	template_lookup *lookup;
	const void *data;
	struct arena *arena;
};

static enum code get_operand(const struct run *run, const struct operand *operand, const struct result *piped,
			     struct result *out, struct err *err)
{
	*out = (struct result){ .number = operand->number, .value.text = operand->text };
	if (operand->kind == OPERAND_PIPED)
		*out = *piped;
	if (operand->kind == OPERAND_FIELD &&
	    !run->lookup(run->data, operand->field, operand->text, run->arena, &out->value))
		return err_set(err, CODE_INTERNAL, "map has no entry for key \"%s\"", operand->text);
	return CODE_OK;
}

static enum code run_steps(const struct run *run, const struct step *steps, struct buf *made, struct err *err)
{
	struct result result = { 0 };
	const struct operand *only = NULL;

	for (const struct step *step = steps; step != NULL; step = step->next) {
		struct result args[ARGS_MAX];

		for (size_t i = 0; i < step->n_args; i++)
			TRY(get_operand(run, &step->args[i], &result, &args[i], err));
		only = step->function == NULL ? &step->args[0] : NULL;
		if (step->function == NULL)
			result = args[0];
		else
			TRY(step->function->run(args, run->arena, &result, err));
	}
	if (only != NULL && only->type == TYPE_NUMBER)
		buf_printf(made, "%ld", result.number);
	else
		buf_puts(made, text_of(&result));
	return CODE_OK;
}

enum code template_run(const struct template *template, template_lookup *lookup, const void *data, struct arena *arena,
		       const char **out, struct err *err)
{
	struct run run = { template, lookup, data, arena };
	OWN_BUF made = { 0 };

	for (const struct piece *piece = template->pieces; piece != NULL; piece = piece->next) {
		if (piece->text != NULL)
			buf_puts(&made, piece->text);
		else
			TRY(run_steps(&run, piece->steps, &made, err));
	}
	*out = arena_strdup(arena, buf_text(&made));
	return CODE_OK;
}
