/* SPDX-License-Identifier: Apache-2.0 */
/* From the tree of hcl.h to the raw structs, by the tables. SPIRE's (HCL's) rules: keys in any case; a number may be
 * quoted and a string may be a number; a key that is given again replaces, a block or a list that is given again goes
 * on; what is unknown is an error unless it is quoted. */
#include "base/config_raw.h"

#include "base/gotext.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

enum { OPTIONS_MAX = 64 }; /* of one section: bits of a word */

static enum code decode_item(struct decoder *d, const struct option *option, const char *path,
			     const struct hcl_item *item, void *target, struct err *err);

void decoder_init(struct decoder *d, struct arena *arena)
{
	*d = (struct decoder){ .arena = arena };
	d->tail = &d->findings;
}

static struct finding *found(struct decoder *d, enum finding_kind kind, const char *key, struct hcl_pos pos)
{
	struct finding *finding = arena_zalloc(d->arena, sizeof *finding);

	finding->kind = kind;
	finding->key = key;
	finding->pos = pos;
	*d->tail = finding;
	d->tail = &finding->next;
	return finding;
}

void config_refuse_key(struct decoder *d, const char *key, const char *remark, struct hcl_pos pos)
{
	found(d, FINDING_REFUSED, key, pos)->remark = remark;
}

void ignore(struct decoder *d, const char *key, const char *remark, struct hcl_pos pos)
{
	found(d, FINDING_IGNORED, key, pos)->remark = remark;
}

static const char *path_of(struct decoder *d, const char *path, const char *key)
{
	return path[0] == '\0' ? key : arena_printf(d->arena, "%s.%s", path, key);
}

static void *field_of(const struct option *option, void *target)
{
	return (char *)target + option->offset;
}

static enum code wrong_kind(const char *path, const char *want, const struct hcl_value *value, struct err *err)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "At %d:%d: %s: expected %s, got %s", value->pos.line,
		       value->pos.column, path, want, hcl_kind_name(value->kind));
}

static enum code wrong_text(const char *path, const char *want, const struct hcl_value *value, struct err *err)
{
	OWN_BUF text = { 0 };

	go_quote(&text, value->text);
	return err_set(err, CODE_INVALID_ARGUMENT, "At %d:%d: %s: expected %s, got %s", value->pos.line,
		       value->pos.column, path, want, buf_text(&text));
}

static enum code decode_string(const char *path, const struct hcl_value *value, const char **out, struct err *err)
{
	if (value->kind != HCL_STRING && value->kind != HCL_NUMBER)
		return wrong_kind(path, "a string", value, err);
	*out = value->text;
	return CODE_OK;
}

static enum code decode_int(const char *path, const struct hcl_value *value, int64_t *out, struct err *err)
{
	if (value->kind != HCL_STRING && value->kind != HCL_NUMBER)
		return wrong_kind(path, "a number", value, err);
	if (go_parse_int(value->text, out) != GO_INT_OK)
		return wrong_text(path, "a number", value, err);
	return CODE_OK;
}

static enum code decode_bool(const char *path, const struct hcl_value *value, enum tri *out, struct err *err)
{
	if (value->kind != HCL_STRING && value->kind != HCL_BOOL)
		return wrong_kind(path, "true or false", value, err);
	if (strcasecmp(value->text, "true") == 0)
		*out = TRI_TRUE;
	else if (strcasecmp(value->text, "false") == 0)
		*out = TRI_FALSE;
	else
		return wrong_text(path, "true or false", value, err);
	return CODE_OK;
}

static enum code decode_strings(struct decoder *d, const char *path, const struct hcl_value *value, struct strings *out,
				struct err *err)
{
	size_t n = out->n;
	const char **items;

	if (value->kind != HCL_LIST)
		return wrong_kind(path, "a list", value, err);
	for (const struct hcl_value *at = value->first; at != NULL; at = at->next)
		n++;
	if (n == out->n)
		return CODE_OK;
	items = arena_alloc(d->arena, n * sizeof *items);
	if (out->n > 0)
		memcpy(items, out->items, out->n * sizeof *items);
	n = out->n;
	for (const struct hcl_value *at = value->first; at != NULL; at = at->next)
		TRY(decode_string(path, at, &items[n++], err));
	*out = (struct strings){ items, n };
	return CODE_OK;
}

/* `item` without its first key: {a b c} is {b c} within a. */
static struct hcl_item inner(const struct hcl_item *item)
{
	struct hcl_item rest = { .keys = item->keys + 1, .n_keys = item->n_keys - 1, .value = item->value };

	return rest;
}

/* What stands in the block: its items, or, with more labels than the caller has read, the rest as the one item. */
static enum code decode_block(struct decoder *d, const struct section *section, const char *path,
			      const struct hcl_item *item, void *target, struct err *err)
{
	*(bool *)target = true;
	if (item->n_keys > 1) {
		struct hcl_item rest = inner(item);

		return decode_items(d, section, path, &rest, target, err);
	}
	if (item->value->kind != HCL_OBJECT)
		return wrong_kind(path, "a block", item->value, err);
	return decode_items(d, section, path, item->value->items, target, err);
}

static void *new_block(struct decoder *d, const struct section *section, struct blocks *blocks)
{
	if (blocks->n == blocks->room) {
		void *more;

		blocks->room = blocks->room == 0 ? 4 : 2 * blocks->room;
		more = arena_zalloc(d->arena, blocks->room * section->size);
		if (blocks->n > 0)
			memcpy(more, blocks->items, blocks->n * section->size);
		blocks->items = more;
	}
	return (char *)blocks->items + section->size * blocks->n++;
}

static enum code decode_blocks(struct decoder *d, const struct option *option, const char *path,
			       const struct hcl_item *item, struct blocks *blocks, struct err *err)
{
	struct hcl_item one = *item;

	if (item->value->kind != HCL_LIST || item->n_keys > 1)
		return decode_block(d, option->section, path, item, new_block(d, option->section, blocks), err);
	for (struct hcl_value *at = item->value->first; at != NULL; at = at->next) {
		one.value = at;
		TRY(decode_block(d, option->section, path, &one, new_block(d, option->section, blocks), err));
	}
	return CODE_OK;
}

/* `item` begins with the label. A label that comes again is a block of its own here: config_federation.c joins them. */
static enum code decode_label(struct decoder *d, const struct option *option, const char *path,
			      const struct hcl_item *item, struct blocks *blocks, struct err *err)
{
	struct labelled {
		bool there;
		const char *label;
	} *block = new_block(d, option->section, blocks);

	block->label = item->keys[0].text;
	return decode_block(d, option->section, path_of(d, path, block->label), item, block, err);
}

static enum code decode_labelled(struct decoder *d, const struct option *option, const char *path,
				 const struct hcl_item *item, struct blocks *blocks, struct err *err)
{
	if (item->n_keys > 1) {
		struct hcl_item rest = inner(item);

		return decode_label(d, option, path, &rest, blocks, err);
	}
	if (item->value->kind != HCL_OBJECT)
		return wrong_kind(path, "a block", item->value, err);
	for (const struct hcl_item *at = item->value->items; at != NULL; at = at->next)
		TRY(decode_label(d, option, path, at, blocks, err));
	return CODE_OK;
}

static void keep_item(struct decoder *d, struct raw_node *node, const struct hcl_item *item)
{
	struct hcl_item *copy = arena_memdup(d->arena, item, sizeof *item);

	copy->next = NULL;
	if (node->items == NULL)
		node->tail = &node->items;
	*node->tail = copy;
	node->tail = &copy->next;
}

static void decode_node(struct decoder *d, const struct hcl_item *item, struct raw_node *node)
{
	node->there = true;
	if (item->n_keys > 1) {
		struct hcl_item rest = inner(item);

		keep_item(d, node, &rest);
	} else if (item->value->kind != HCL_OBJECT) {
		node->literal = item->value;
	} else {
		for (const struct hcl_item *at = item->value->items; at != NULL; at = at->next)
			keep_item(d, node, at);
	}
}

/* Whether a value does more than say what is so anyway. */
static bool is_set(const struct hcl_item *item)
{
	const struct hcl_value *value = item->value;

	switch (value->kind) {
	case HCL_STRING:
		return value->text[0] != '\0' && strcasecmp(value->text, "false") != 0;
	case HCL_NUMBER:
		return strcmp(value->text, "0") != 0;
	case HCL_BOOL:
		return strcmp(value->text, "true") == 0;
	case HCL_LIST:
		return value->first != NULL;
	default:
		return true;
	}
}

static void note_effect(struct decoder *d, const struct option *option, const char *path, const struct hcl_item *item)
{
	static const char *const shapes[] = { [HCL_LIST] = "[...]", [HCL_OBJECT] = "{...}" };
	const struct hcl_value *value = item->value;
	struct finding *finding;

	if (option->effect == OPTION_WORKS || !is_set(item))
		return;
	finding =
		found(d, option->effect == OPTION_REFUSED ? FINDING_REFUSED : FINDING_IGNORED, path, item->keys[0].pos);
	finding->remark = option->remark;
	finding->value = value->kind < HCL_LIST ? value->text : shapes[value->kind];
}

static enum code decode_item(struct decoder *d, const struct option *option, const char *path,
			     const struct hcl_item *item, void *target, struct err *err)
{
	void *field = field_of(option, target);

	note_effect(d, option, path, item);
	if (item->n_keys > 1 && option->type <= OPTION_STRINGS)
		return err_set(err, CODE_INVALID_ARGUMENT, "At %d:%d: %s: expected '=' and a value, got a block",
			       item->keys[0].pos.line, item->keys[0].pos.column, path);
	switch (option->type) {
	case OPTION_STRING:
		return decode_string(path, item->value, field, err);
	case OPTION_INT:
		return decode_int(path, item->value, field, err);
	case OPTION_BOOL:
		return decode_bool(path, item->value, field, err);
	case OPTION_STRINGS:
		return decode_strings(d, path, item->value, field, err);
	case OPTION_BLOCK:
		return decode_block(d, option->section, path, item, field, err);
	case OPTION_BLOCKS:
		return decode_blocks(d, option, path, item, field, err);
	case OPTION_LABELLED:
		return decode_labelled(d, option, path, item, field, err);
	default:
		assert(option->type == OPTION_NODE);
		decode_node(d, item, field);
		return CODE_OK;
	}
}

static void note_unknown(struct decoder *d, const struct section *section, const char *path, const struct hcl_key *key)
{
	enum finding_kind kind = key->quoted || section->name == NULL ? FINDING_UNREAD : FINDING_UNKNOWN;
	struct finding *finding = found(d, kind, path_of(d, path, key->text), key->pos);

	finding->section = section;
	finding->value = key->text;
}

static const struct option *find(const struct section *section, const char *key)
{
	for (const struct option *option = section->options; option->key != NULL; option++)
		if (strcasecmp(option->key, key) == 0)
			return option;
	return NULL;
}

enum code decode_items(struct decoder *d, const struct section *section, const char *path, const struct hcl_item *items,
		       void *target, struct err *err)
{
	uint64_t seen = 0;

	for (const struct hcl_item *item = items; item != NULL; item = item->next) {
		const struct hcl_key *key = &item->keys[0];
		const struct option *option = find(section, key->text);
		const char *whole;
		uint64_t bit;

		if (option == NULL) {
			note_unknown(d, section, path, key);
			continue;
		}
		assert(option - section->options < OPTIONS_MAX);
		bit = UINT64_C(1) << (option - section->options);
		whole = path_of(d, path, option->key);
		if ((seen & bit) != 0 && option->type <= OPTION_STRINGS)
			found(d, FINDING_REPEATED, whole, key->pos);
		seen |= bit;
		TRY(decode_item(d, option, whole, item, target, err));
	}
	return CODE_OK;
}

static void set_initial(const struct option *option, void *field)
{
	switch (option->type) {
	case OPTION_STRING:
		if (*(const char **)field == NULL || **(const char **)field == '\0')
			*(const char **)field = option->initial;
		break;
	case OPTION_INT:
		if (*(int64_t *)field == 0 && option->initial != NULL)
			go_parse_int(option->initial, field);
		break;
	case OPTION_BOOL:
		if (*(enum tri *)field == TRI_UNSET && option->initial != NULL)
			*(enum tri *)field = strcmp(option->initial, "true") == 0 ? TRI_TRUE : TRI_FALSE;
		break;
	case OPTION_BLOCK:
		apply_initial(option->section, field);
		break;
	case OPTION_LABELLED:
		for (size_t i = 0; i < ((struct blocks *)field)->n; i++)
			apply_initial(option->section,
				      (char *)((struct blocks *)field)->items + i * option->section->size);
		break;
	default:
		break;
	}
}

void apply_initial(const struct section *section, void *target)
{
	for (const struct option *option = section->options; option->key != NULL; option++)
		set_initial(option, field_of(option, target));
}
