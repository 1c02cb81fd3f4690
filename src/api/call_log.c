/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of a call in the log, and its records in the audit log, with the fields that SPIRE gives them (contract
 * server-api.md 4.0, server-operation.md 7.4). */
#include "api/call.h"

#include "api/route.h"
#include "api/server.h"
#include "base/rand.h"

#include <string.h>

enum { FIELDS_MAX = 96 };

struct pairs {
	struct log_pair items[FIELDS_MAX + 1]; /* one for the end */
	size_t n;
};

static void add(struct pairs *pairs, struct log_pair pair)
{
	if (pairs->n < FIELDS_MAX)
		pairs->items[pairs->n++] = pair;
}

static void add_all(struct pairs *pairs, const struct log_pair *more)
{
	for (; more != NULL && more->kind != LOG_KIND_END; more++)
		add(pairs, *more);
}

static const char *class_name(enum who as)
{
	switch (as) {
	case WHO_ANY:
		return "nobody";
	case WHO_LOCAL:
		return "local";
	case WHO_ADMIN:
		return "admin";
	case WHO_DOWNSTREAM:
		return "downstream";
	case WHO_AGENT:
		return "agent";
	case WHO_OPERATOR:
		return "operator";
	}
	return NULL; /* not authorized (yet): the field is left out */
}

static const char *request_id(struct call *call)
{
	char id[37];

	if (call->request_id == NULL || call->request_id[0] == '\0') {
		rand_uuid4(id);
		call->request_id = arena_strdup(call->arena, id);
	}
	return call->request_id;
}

/* What every line of a call has. */
static void add_common(struct pairs *pairs, struct call *call)
{
	const struct caller *caller = call->caller;
	const char *as = class_name(caller->as);

	add(pairs, (struct log_pair)KV("authorized_as", as));
	add(pairs, (struct log_pair)KV("authorized_via", as != NULL ? caller->via : NULL));
	if (!caller->local) {
		add(pairs, (struct log_pair)KV("caller_addr", caller->address));
		add(pairs, (struct log_pair)KV("caller_id", caller->id));
	}
	if (call->route != NULL) {
		add(pairs, (struct log_pair)KV("method", call->route->method));
		add(pairs, (struct log_pair)KV("service", route_service(call->route)));
	}
	add(pairs, (struct log_pair)KV("request_id", request_id(call)));
	add(pairs, (struct log_pair)KV("subsystem_name", "api"));
}

void call_log(struct call *call, enum log_level level, const char *msg, const struct log_pair *pairs)
{
	struct pairs all = { .n = 0 };

	if (!log_enabled(level))
		return;
	add_common(&all, call);
	add_all(&all, call->fields);
	add_all(&all, pairs);
	log_write(level, msg, all.items);
}

/* --- the audit log --- */

bool call_audits(const struct call *call)
{
	return call->server->config->audit_log_enabled && log_enabled(LOG_INFO);
}

static void record(struct call *call, enum code code, const char *text, const struct log_pair *pairs)
{
	struct pairs all = { .n = 0 };

	add_common(&all, call);
	if (call->caller->local) {
		add(&all, (struct log_pair)KV_NUM("caller_uid", call->caller->uid));
		add(&all, (struct log_pair)KV_NUM("caller_gid", call->caller->gid));
		add(&all, (struct log_pair)KV("caller_path", call->caller->program));
	}
	add(&all, (struct log_pair)KV("type", "audit"));
	add(&all, (struct log_pair)KV("status", code == CODE_OK ? "success" : "error"));
	if (code != CODE_OK) {
		add(&all, (struct log_pair)KV_CODE("status_code", code));
		add(&all, (struct log_pair)KV("status_message", text));
	}
	add_all(&all, pairs);
	log_write(LOG_INFO, "API accessed", all.items);
}

void call_audit_add(struct call *call, const struct log_pair *pairs)
{
	struct log_pair *all;
	size_t n = 0;

	if (!call_audits(call))
		return;
	while (pairs[n].kind != LOG_KIND_END)
		n++;
	all = arena_zalloc(call->arena, (call->n_audit + n + 1) * sizeof *all);
	if (call->n_audit > 0)
		memcpy(all, call->audit, call->n_audit * sizeof *all);
	for (size_t i = 0; i < n; i++) {
		struct log_pair *pair = &all[call->n_audit + i];

		*pair = pairs[i];
		pair->key = arena_strdup(call->arena, pair->key);
		if (pair->text != NULL)
			pair->text = arena_strdup(call->arena, pair->text);
	}
	call->audit = all;
	call->n_audit += n;
}

void call_audit_item(struct call *call, enum code code, const char *text, const struct log_pair *pairs)
{
	if (call_audits(call))
		record(call, code, text, pairs);
}

void call_audit(struct call *call, enum code code)
{
	if (call_audits(call) && (code != CODE_OK || call->route->audit))
		record(call, code, call->err->text, call->audit);
}
