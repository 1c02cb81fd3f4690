/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of the log about what failed, in the words of SPIRE's handlers (contract server-operation.md 7). */
#include "api/call.h"

#include "base/task.h"

#include <ctype.h>
#include <string.h>

void call_log_failure(struct call *call, enum code code, const char *msg, const char *inner)
{
	enum log_level level =
		task_cancelled() ? LOG_DEBUG : LOG_ERROR; /* a client that has left is no error of ours */
	char *text;

	if (!log_enabled(level))
		return;
	if (code == CODE_INVALID_ARGUMENT) {
		text = arena_printf(call->arena, "Invalid argument: %s", msg);
	} else {
		text = arena_strdup(call->arena, msg);
		text[0] = (char)toupper((unsigned char)text[0]);
	}
	CALL_LOG(call, level, text, KV("error", code == CODE_NOT_FOUND ? NULL : inner));
}

void call_log_err(struct call *call, const struct err *err)
{
	size_t len = strlen(err->text);

	if (err->msg_len > 0 && err->msg_len + 2 <= len)
		call_log_failure(call, err->code, arena_strndup(call->arena, err->text, err->msg_len),
				 err->text + err->msg_len + 2);
	else
		call_log_failure(call, err->code, err->text, NULL);
}
