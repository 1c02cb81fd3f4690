/* SPDX-License-Identifier: Apache-2.0 */
/* Logger: the level of the log while the server runs (contract server-api.md 4.7). */
#include "api/server.h"
#include "api/svc.h"
#include "base/log.h"
#include "logger.pb-c.h"

/* LogLevel on the wire is base/log.h's order, from 1. */
static void fill(struct call *call, Pb__Logger *reply)
{
	reply->current_level = (Pb__LogLevel)log_get_level();
	reply->launch_level = (Pb__LogLevel)call->server->launch_level;
}

enum code logger_get(struct call *call, const void *request __attribute__((unused)), void *reply)
{
	fill(call, reply);
	return CODE_OK;
}

enum code logger_set(struct call *call, const void *request, void *reply)
{
	const Pb__SetLogLevelRequest *req = request;

	if (req->new_level == PB__LOG_LEVEL__UNSPECIFIED)
		return err_set(call->err, CODE_INVALID_ARGUMENT, "newLevel value cannot be LogLevel_UNSPECIFIED");
	if (req->new_level < PB__LOG_LEVEL__PANIC || req->new_level > PB__LOG_LEVEL__TRACE)
		return err_set(call->err, CODE_INVALID_ARGUMENT, "unsupported log level");
	CALL_AUDIT_ADD(call, KV("new_log_level", log_level_name((enum log_level)req->new_level)));
	log_set_level((enum log_level)req->new_level);
	fill(call, reply);
	return CODE_OK;
}

enum code logger_reset(struct call *call, const void *request __attribute__((unused)), void *reply)
{
	log_set_level(call->server->launch_level);
	fill(call, reply);
	return CODE_OK;
}
