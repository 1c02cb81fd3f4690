/* SPDX-License-Identifier: Apache-2.0 */
/* Errors: their texts, wrapped and cut. */
#include "lib/test.h"

#include "base/utf8.h"

#include <errno.h>

TEST(set_takes_code_and_text)
{
	struct err err = { .reason = 3, .msg_len = 9 };

	CHECK_NUM(err_set(&err, CODE_NOT_FOUND, "entry '%s' not found", "e1"), CODE_NOT_FOUND);
	CHECK_NUM(err.code, CODE_NOT_FOUND);
	CHECK_NUM(err.reason, 0);
	CHECK_NUM(err.msg_len, 0);
	CHECK_STR(err.text, "entry 'e1' not found");
	CHECK_NUM(err_set(&err, CODE_INTERNAL, "<%s> again", err.text),
		  CODE_INTERNAL); /* its own text as an argument */
	CHECK_STR(err.text, "<entry 'e1' not found> again");
	CHECK_NUM(err_set(NULL, CODE_ABORTED, "nobody wants it"), CODE_ABORTED);
}

TEST(wrap_puts_words_before)
{
	struct err err = { 0 };

	err_set(&err, CODE_NOT_FOUND, "no row");
	CHECK_NUM(err_wrap(&err, CODE_INTERNAL, "failed to list %s", "entries"), CODE_INTERNAL);
	CHECK_NUM(err.code, CODE_INTERNAL);
	CHECK_STR(err.text, "failed to list entries: no row");
	CHECK_NUM(err.msg_len, strlen("failed to list entries"));
	CHECK_NUM(err_wrap(NULL, CODE_INTERNAL, "x"), CODE_INTERNAL);

	err.text[0] = '\0'; /* nothing inside: no colon */
	err_wrap(&err, CODE_UNKNOWN, "alone");
	CHECK_STR(err.text, "alone");
	CHECK_NUM(err.msg_len, 0);
}

TEST(long_texts_are_cut_between_characters)
{
	static char text[3 * ERR_TEXT_MAX];
	struct err err = { 0 };

	for (size_t shift = 0; shift < 4; shift++) {
		memset(text, 'a', shift);
		for (size_t i = shift; i + 4 < sizeof text; i += 4)
			memcpy(text + i, "\xf0\x9f\x98\x80", 5);
		err_set(&err, CODE_UNKNOWN, "%s", text);
		CHECK(strlen(err.text) < ERR_TEXT_MAX && strlen(err.text) > ERR_TEXT_MAX - 5);
		CHECK(utf8_valid(err.text, strlen(err.text)));
		err_wrap(&err, CODE_UNKNOWN, "w%zu", shift);
		CHECK(strlen(err.text) < ERR_TEXT_MAX && strncmp(err.text, "w", 1) == 0);
		CHECK(utf8_valid(err.text, strlen(err.text)));
		err_wrap(&err, CODE_UNKNOWN, "%s", text);
		CHECK(strlen(err.text) < ERR_TEXT_MAX);
		for (int i = 0; i < 300; i++)
			err_wrap(&err, CODE_UNKNOWN, "again");
		CHECK(strlen(err.text) < ERR_TEXT_MAX);
	}
}

TEST(codes_have_grpcs_names)
{
	CHECK_STR(code_name(CODE_OK), "OK");
	CHECK_STR(code_name(CODE_CANCELLED), "Canceled");
	CHECK_STR(code_name(CODE_INVALID_ARGUMENT), "InvalidArgument");
	CHECK_STR(code_name(CODE_UNAUTHENTICATED), "Unauthenticated");
	CHECK_STR(code_name(17), "Code(17)");
	CHECK_STR(code_name(-1), "Code(4294967295)");
}

TEST(errno_has_gos_words)
{
	struct err err = { 0 };

	CHECK_NUM(err_errno(&err, CODE_UNKNOWN, ENOENT, "open", "/x"), CODE_UNKNOWN);
	CHECK_STR(err.text, "open /x: no such file or directory");
	err_errno(&err, CODE_UNKNOWN, EACCES, "mkdir", "/x");
	CHECK_STR(err.text, "mkdir /x: permission denied");
	err_errno(&err, CODE_UNKNOWN, EADDRINUSE, "bind", NULL);
	CHECK_STR(err.text, "bind: address already in use");
	err_errno(&err, CODE_UNKNOWN, EIO, "read", "f");
	CHECK_STR(err.text, "read f: input/output error");
	err_errno(&err, CODE_UNKNOWN, EREMOTEIO, "read", "f");
	CHECK_STR(err.text, "read f: remote I/O error");
	err_errno(&err, CODE_UNKNOWN, EDOTDOT, "read", "f");
	CHECK_STR(err.text, "read f: RFS specific error");
	err_errno(&err, CODE_UNKNOWN, 4095, "read", "f");
	CHECK_STR(err.text, "read f: errno 4095");
}

static enum code fails(struct err *err)
{
	TRY(err_set(err, CODE_ABORTED, "first"));
	return err_set(err, CODE_INTERNAL, "not reached");
}

TEST(try_returns_what_is_not_ok)
{
	struct err err = { 0 };

	CHECK_CODE(fails(&err), CODE_ABORTED);
	CHECK_STR(err.text, "first");
}
