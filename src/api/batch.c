/* SPDX-License-Identifier: Apache-2.0 */
#include "api/batch.h"

#include "api/pb.h"

#include <string.h>

struct batch_item *batch_new(struct call *call, size_t n)
{
	struct batch_item *items = arena_zalloc(call->arena, n * sizeof *items);

	for (size_t i = 0; i < n; i++)
		items[i].text = "OK";
	return items;
}

void batch_fail(struct call *call, struct batch_item *item, enum code code, const char *msg, const char *inner)
{
	item->code = code;
	item->text = inner == NULL || code == CODE_NOT_FOUND ? arena_strdup(call->arena, msg)
							     : arena_printf(call->arena, "%s: %s", msg, inner);
	call->fields = item->fields;
	call_log_failure(call, code, msg, inner);
	call->fields = NULL;
}

static const char *status_text(struct arena *arena, enum code code, const char *text)
{
	return arena_printf(arena, "rpc error: code = %s desc = %s", code_name((int)code), text);
}

void batch_fail_status(struct call *call, struct batch_item *item, enum code code, const char *msg,
		       enum code inner_code, const char *inner)
{
	item->code = code;
	item->text = arena_printf(call->arena, "%s: %s", msg, inner);
	call->fields = item->fields;
	call_log_failure(call, code, msg, status_text(call->arena, inner_code, inner));
	call->fields = NULL;
}

enum code batch_run(struct call *call, struct batch_item *items, size_t n)
{
	Pb__Command **commands = arena_alloc(call->arena, n * sizeof *commands);
	Pb__Outcome **outcomes = arena_zalloc(call->arena, n * sizeof *outcomes);
	size_t n_commands = 0;

	for (size_t i = 0; i < n; i++)
		if (items[i].command != NULL)
			commands[n_commands++] = items[i].command;
	if (n_commands == 0)
		return CODE_OK;
	TRY(call_propose_all(call, commands, n_commands, outcomes));
	n_commands = 0;
	for (size_t i = 0; i < n; i++)
		if (items[i].command != NULL)
			items[i].outcome = outcomes[n_commands++];
	return CODE_OK;
}

void batch_refused(struct call *call, struct batch_item *item, const char *msg, const char *not_found)
{
	enum code code = (enum code)item->outcome->code;

	if (code == CODE_NOT_FOUND)
		batch_fail(call, item, code, not_found, NULL);
	else if (code != CODE_OK)
		batch_fail_status(call, item, code == CODE_UNKNOWN ? CODE_INTERNAL : code, msg, code,
				  item->outcome->message);
}

enum code call_failed(struct call *call, enum code rc, const char *msg)
{
	switch (rc) {
	case CODE_UNAVAILABLE:
	case CODE_DEADLINE_EXCEEDED:
	case CODE_CANCELLED:
	case CODE_RESOURCE_EXHAUSTED:
	case CODE_PERMISSION_DENIED: /* the right to do it was taken meanwhile */
		return err_wrap(call->err, rc, "%s", msg);
	default:
		return err_wrap(call->err, CODE_INTERNAL, "%s", msg);
	}
}

enum code call_bad_token(struct call *call, const char *msg, const char *token)
{
	err_set(call->err, CODE_INTERNAL, "could not parse token '%s'", token);
	call_log_failure(call, CODE_INTERNAL, msg, status_text(call->arena, CODE_INVALID_ARGUMENT, call->err->text));
	call->logged = true;
	return err_wrap(call->err, CODE_INTERNAL, "%s", msg);
}

Pb__Status *batch_status(struct call *call, const struct batch_item *item)
{
	Pb__Status *status = pb_new(&pb__status__descriptor, call->arena);

	status->code = (int32_t)item->code;
	status->message = item->text;
	return status;
}

void batch_audit(struct call *call, const struct batch_item *item, const struct log_pair *pairs)
{
	call_audit_item(call, item->code, item->code == CODE_OK ? "" : item->text, pairs);
}

struct pairs pairs_new(struct call *call, size_t max)
{
	return (struct pairs){ .items = arena_zalloc(call->arena, (max + 1) * sizeof(struct log_pair)) };
}

void pairs_add(struct pairs *pairs, struct log_pair pair)
{
	pairs->items[pairs->n++] = pair;
}

const char *join_texts(struct arena *arena, const char *const *items, size_t n)
{
	size_t len = 1;
	char *text, *at;

	for (size_t i = 0; i < n; i++)
		len += strlen(items[i]) + 1;
	at = text = arena_alloc(arena, len);
	for (size_t i = 0; i < n; i++) {
		if (i > 0)
			*at++ = ',';
		at = stpcpy(at, items[i]);
	}
	*at = '\0';
	return text;
}
