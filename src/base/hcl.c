/* SPDX-License-Identifier: Apache-2.0 */
/* The grammar of HCL 1 and JSON: recursive descent, no deeper than LIMIT_CONFIG_DEPTH. One word of look-ahead,
 * p->token. */
#include "base/hcl.h"

#include "base/hcl_scan.h"
#include "base/limits.h"

#include <string.h>

struct parser {
	struct hcl_scan scan;
	struct hcl_token token;
	struct arena *arena;
	int depth;
};

static enum code parse_value(struct parser *p, struct hcl_value **out, struct err *err);

const char *hcl_kind_name(enum hcl_kind kind)
{
	static const char *const names[] = { "a string",      "a number", "a fraction",
					     "true or false", "a list",   "an object" };

	return names[kind];
}

static enum code advance(struct parser *p, struct err *err)
{
	return hcl_scan(&p->scan, &p->token, err);
}

static enum code enter(struct parser *p, struct err *err)
{
	if (++p->depth > LIMIT_CONFIG_DEPTH)
		return hcl_error(p->token.pos, err, "nested deeper than %d levels", LIMIT_CONFIG_DEPTH);
	return CODE_OK;
}

static struct hcl_value *new_value(struct parser *p, enum hcl_kind kind)
{
	struct hcl_value *value = arena_zalloc(p->arena, sizeof *value);

	value->kind = kind;
	value->pos = p->token.pos;
	value->text = p->token.text;
	return value;
}

/* The keys before '=', '{' or, in JSON, ':'. The token behind them is current afterwards. */
static enum code parse_keys(struct parser *p, struct hcl_item *item, struct err *err)
{
	size_t room = 2;
	struct hcl_key *keys = arena_alloc(p->arena, room * sizeof *keys);

	for (; p->token.word == WORD_STRING || p->token.word == WORD_IDENT; item->n_keys++) {
		if (item->n_keys == room) {
			struct hcl_key *more = arena_alloc(p->arena, 2 * room * sizeof *keys);

			memcpy(more, keys, room * sizeof *keys);
			keys = more;
			room *= 2;
		}
		keys[item->n_keys].text = p->token.text;
		keys[item->n_keys].pos = p->token.pos;
		keys[item->n_keys].quoted = p->token.word == WORD_STRING && !p->scan.json;
		TRY(advance(p, err));
		if (p->scan.json) {
			item->n_keys++;
			break;
		}
	}
	item->keys = keys;
	return CODE_OK;
}

static enum code bad_keys(struct parser *p, const struct hcl_item *item, struct err *err)
{
	enum hcl_word word = p->token.word;

	if (p->scan.json && item->n_keys == 0)
		return hcl_error(p->token.pos, err, "expected: STRING got: %s", hcl_word_name(word));
	if (p->scan.json)
		return hcl_error(p->token.pos, err, "expected: COLON got: %s", hcl_word_name(word));
	if (item->n_keys == 0 && word == WORD_ASSIGN)
		return hcl_error(p->token.pos, err, "no object keys found!");
	if (item->n_keys == 0 && word == WORD_LBRACE)
		return hcl_error(p->token.pos, err, "expected: IDENT | STRING got: LBRACE");
	if (word == WORD_ASSIGN)
		return hcl_error(p->token.pos, err, "nested object expected: LBRACE got: ASSIGN");
	if (item->n_keys > 0 && (word == WORD_EOF || word == WORD_RBRACE))
		return hcl_error(p->token.pos, err, "key '%s' expected start of object ('{') or assignment ('=')",
				 item->keys[item->n_keys - 1].text);
	return hcl_error(p->token.pos, err, "expected: IDENT | STRING | ASSIGN | LBRACE got: %s", hcl_word_name(word));
}

static enum code parse_item(struct parser *p, struct hcl_item **out, struct err *err)
{
	struct hcl_item *item = arena_zalloc(p->arena, sizeof *item);

	TRY(parse_keys(p, item, err));
	if (p->scan.json ? p->token.word == WORD_COLON && item->n_keys == 1
			 : p->token.word == WORD_ASSIGN && item->n_keys == 1)
		TRY(advance(p, err));
	else if (p->scan.json || p->token.word != WORD_LBRACE || item->n_keys == 0)
		return bad_keys(p, item, err);
	TRY(parse_value(p, &item->value, err));
	*out = item;
	return CODE_OK;
}

/* Whether a JSON value means repeated blocks: a list, not empty, of objects alone. */
static bool is_blocks(const struct hcl_value *value)
{
	if (value->kind != HCL_LIST || value->first == NULL)
		return false;
	for (const struct hcl_value *at = value->first; at != NULL; at = at->next)
		if (at->kind != HCL_OBJECT)
			return false;
	return true;
}

/* Appends the item at *tail and answers the new tail. A JSON list of objects becomes as many items. */
static struct hcl_item **append(struct parser *p, struct hcl_item **tail, struct hcl_item *item)
{
	if (!p->scan.json || !is_blocks(item->value)) {
		*tail = item;
		return &item->next;
	}
	for (struct hcl_value *at = item->value->first; at != NULL; at = at->next) {
		struct hcl_item *one = arena_memdup(p->arena, item, sizeof *item);

		one->value = at;
		*tail = one;
		tail = &one->next;
	}
	return tail;
}

/* Items up to `end`, which stays current. */
static enum code parse_items(struct parser *p, enum hcl_word end, struct hcl_item **first, struct err *err)
{
	struct hcl_item **tail = first, *item = NULL;

	while (p->token.word != end) {
		if (p->token.word == WORD_EOF)
			return hcl_error(p->token.pos, err, "object expected closing RBRACE got: EOF");
		TRY(parse_item(p, &item, err));
		tail = append(p, tail, item);
		if (p->token.word == WORD_COMMA)
			TRY(advance(p, err));
		else if (p->scan.json && p->token.word != end)
			return hcl_error(p->token.pos, err, "object expected COMMA or closing RBRACE got: %s",
					 hcl_word_name(p->token.word));
	}
	return CODE_OK;
}

static enum code parse_object(struct parser *p, struct hcl_value **out, struct err *err)
{
	struct hcl_value *object = new_value(p, HCL_OBJECT);

	TRY(enter(p, err));
	TRY(advance(p, err));
	TRY(parse_items(p, WORD_RBRACE, &object->items, err));
	p->depth--;
	*out = object;
	return advance(p, err);
}

static enum code parse_list(struct parser *p, struct hcl_value **out, struct err *err)
{
	struct hcl_value *list = new_value(p, HCL_LIST), **tail = &list->first;

	TRY(enter(p, err));
	TRY(advance(p, err));
	while (p->token.word != WORD_RBRACK) {
		if (p->token.word == WORD_COMMA) {
			TRY(advance(p, err));
			continue;
		}
		if (p->token.word == WORD_EOF)
			return hcl_error(p->token.pos, err, "list expected closing RBRACK got: EOF");
		TRY(parse_value(p, tail, err));
		tail = &(*tail)->next;
		if (p->token.word != WORD_COMMA && p->token.word != WORD_RBRACK)
			return hcl_error(p->token.pos, err, "error parsing list, expected comma or list end, got: %s",
					 hcl_word_name(p->token.word));
	}
	p->depth--;
	*out = list;
	return advance(p, err);
}

static enum code parse_value(struct parser *p, struct hcl_value **out, struct err *err)
{
	static const enum hcl_kind kinds[] = {
		[WORD_NUMBER] = HCL_NUMBER, [WORD_FLOAT] = HCL_FLOAT,    [WORD_BOOL] = HCL_BOOL,
		[WORD_STRING] = HCL_STRING, [WORD_HEREDOC] = HCL_STRING, [WORD_NULL] = HCL_STRING
	};

	switch (p->token.word) {
	case WORD_LBRACE:
		return parse_object(p, out, err);
	case WORD_LBRACK:
		return parse_list(p, out, err);
	case WORD_NULL:
		p->token.text = "";
		break;
	case WORD_NUMBER:
	case WORD_FLOAT:
	case WORD_BOOL:
	case WORD_STRING:
	case WORD_HEREDOC:
		break;
	default:
		return hcl_error(p->token.pos, err, "expected a value got: %s", hcl_word_name(p->token.word));
	}
	*out = new_value(p, kinds[p->token.word]);
	return advance(p, err);
}

static enum code parse_root(struct parser *p, struct hcl_value **root, struct err *err)
{
	TRY(advance(p, err));
	if (p->scan.json)
		TRY(parse_object(p, root, err));
	else
		*root = new_value(p, HCL_OBJECT);
	if (!p->scan.json)
		return parse_items(p, WORD_EOF, &(*root)->items, err);
	if (p->token.word != WORD_EOF)
		return hcl_error(p->token.pos, err, "expected the end of the file got: %s",
				 hcl_word_name(p->token.word));
	return CODE_OK;
}

enum code hcl_parse(const char *data, size_t len, struct arena *arena, struct hcl_value **root, struct err *err)
{
	struct parser p = { .arena = arena };
	struct hcl_value *value = NULL;
	enum code rc;

	TRY(hcl_scan_init(&p.scan, data, len, arena, err));
	rc = parse_root(&p, &value, err);
	hcl_scan_done(&p.scan);
	if (rc == CODE_OK)
		*root = value;
	return rc;
}
