/* SPDX-License-Identifier: Apache-2.0 */
/* Errors as texts with a gRPC code. A text that is too long is cut between two characters, so that it stays valid
 * UTF-8. */
#include "base/err.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Drops the beginning of a character whose end did not fit. */
static void cut_clean(char *text, size_t len)
{
	size_t tail = 0;

	while (tail < 3 && tail < len && ((unsigned char)text[len - 1 - tail] & 0xc0) == 0x80)
		tail++;
	if (tail < len) {
		unsigned char lead = (unsigned char)text[len - 1 - tail];
		size_t want = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc0 ? 1 : 0;

		if (want > tail)
			text[len - 1 - tail] = '\0';
	}
}

void err_set_text(struct err *err, enum code code, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX]; /* an argument may be err->text itself */
	va_list args;
	int len;

	if (err == NULL)
		return;
	va_start(args, fmt);
	len = vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	if (len < 0)
		text[0] = '\0';
	if (len >= (int)sizeof text)
		cut_clean(text, sizeof text - 1);
	err->code = code;
	err->reason = 0;
	err->msg_len = 0;
	memcpy(err->text, text, strlen(text) + 1);
}

void err_wrap_text(struct err *err, enum code code, const char *fmt, ...)
{
	char prefix[ERR_TEXT_MAX];
	size_t before, inner;
	va_list args;
	int len;

	if (err == NULL)
		return;
	va_start(args, fmt);
	len = vsnprintf(prefix, sizeof prefix - 2, fmt, args);
	va_end(args);
	before = len < 0 ? 0 : strnlen(prefix, sizeof prefix - 3);
	inner = strnlen(err->text, ERR_TEXT_MAX - 1);
	err->code = code;
	err->msg_len = inner > 0 ? (unsigned)before : 0;
	if (inner > 0) {
		prefix[before++] = ':';
		prefix[before++] = ' ';
	}
	if (inner > ERR_TEXT_MAX - 1 - before)
		inner = ERR_TEXT_MAX - 1 - before;
	memmove(err->text + before, err->text, inner);
	memcpy(err->text, prefix, before);
	err->text[before + inner] = '\0';
	if (before + inner == ERR_TEXT_MAX - 1)
		cut_clean(err->text, before + inner);
}

const char *code_name(int code)
{
	static const char *const names[] = {
		"OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
		"NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
		"Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
		"DataLoss", "Unauthenticated"
	};
	static _Thread_local char unknown[32];

	if (code >= 0 && (size_t)code < sizeof names / sizeof names[0])
		return names[code];
	snprintf(unknown, sizeof unknown, "Code(%u)", (unsigned)code);
	return unknown;
}

/* Go's words are the C library's without the capital at their beginning ("RFS specific error" keeps its own). */
static const char *errno_words(int number, char *space, size_t size)
{
	const char *words = strerror_r(number, space, size); /* the GNU one: it may answer a constant */

	if (strncmp(words, "Unknown error", strlen("Unknown error")) == 0)
		snprintf(space, size, "errno %d", number);
	else if (words != space)
		snprintf(space, size, "%s", words);
	if (isupper((unsigned char)space[0]) && !isupper((unsigned char)space[1]))
		space[0] = (char)tolower((unsigned char)space[0]);
	return space;
}

void err_errno_text(struct err *err, enum code code, int number, const char *what, const char *path)
{
	char space[128];
	const char *words = errno_words(number, space, sizeof space);

	if (path == NULL)
		err_set(err, code, "%s: %s", what, words);
	else
		err_set(err, code, "%s %s: %s", what, path, words);
}
