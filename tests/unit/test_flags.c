/* SPDX-License-Identifier: Apache-2.0 */
/* Flags behave as Go's package flag: the forms of a flag, the texts of mistakes, the layout of usage; and Go's texts of
 * values. */
#include "base/gotext.h"
#include "cmd/flags.h"
#include "lib/test.h"

#include <stdlib.h>

struct options {
	const char *id;
	bool admin, v;
	int64_t ttl, keep_ns;
	struct strings selectors;
	int colour;
	const char *secret;
};

static enum code set_colour(void *field, const char *text, struct arena *arena __attribute__((unused)), struct err *err)
{
	if (strcmp(text, "red") != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "no colour: \"%s\"", text);
	*(int *)field += 1;
	return CODE_OK;
}

static const struct flag flags[] = {
	FLAG_STRING(struct options, id, "spiffeID", "spiffe://a", "The \"id\""),
	FLAG_BOOL(struct options, admin, "admin", "Is it\nan admin"),
	FLAG_BOOL(struct options, v, "v", "Short"),
	FLAG_INT(struct options, ttl, "ttl", 600, "Seconds"),
	FLAG_DURATION(struct options, keep_ns, "keep", 720 * 3600 * GO_SECOND, "How long"),
	FLAG_STRINGS(struct options, selectors, "selector", "One more"),
	FLAG_VALUE(struct options, colour, "colour", set_colour, "Red"),
	{ .name = "secret",
	  .type = FLAG_TYPE_STRING,
	  .offset = offsetof(struct options, secret),
	  .text = "",
	  .hidden = true },
	FLAG_END,
};
static const struct flag_set set = { "entry create", flags };

static enum code read_words(const char *const *words, struct options *options, struct arena *arena,
			    struct flag_rest *rest, struct err *err)
{
	char *argv[16];
	int argc = 0;

	for (; words[argc] != NULL; argc++)
		argv[argc] = (char *)(uintptr_t)words[argc];
	*options = (struct options){ .colour = 7 };
	err->text[0] = '\0';
	enum code rc = flags_read(&set, options, arena, argc, argv, rest, err);
	if (rest != NULL && rc == CODE_OK) /* argv is gone: count only */
		rest->argv = NULL;
	return rc;
}
#define READ(...) read_words((const char *const[]){ __VA_ARGS__ __VA_OPT__(, ) NULL }, &o, arena, &rest, &err)

TEST(defaults_are_written_and_values_are_left_alone)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct flag_rest rest;
	struct options o;
	struct err err = { 0 };

	CHECK_CODE(READ(), CODE_OK);
	CHECK_STR(o.id, "spiffe://a");
	CHECK(!o.admin && !o.v);
	CHECK_NUM(o.ttl, 600);
	CHECK_NUM(o.keep_ns, 720 * 3600 * GO_SECOND);
	CHECK_NUM(o.selectors.n, 0);
	CHECK_NUM(o.colour, 7);
	CHECK_STR(o.secret, "");
	CHECK_NUM(rest.argc, 0);
}

TEST(a_flag_has_four_forms)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct flag_rest rest;
	struct options o;
	struct err err = { 0 };

	CHECK_CODE(READ("-spiffeID", "x", "--ttl", "0x10", "-keep=1h30m", "--selector=a=b", "-selector", "", "-secret",
			"-v"),
		   CODE_OK);
	CHECK_STR(o.id, "x");
	CHECK_NUM(o.ttl, 16);
	CHECK_NUM(o.keep_ns, 5400 * GO_SECOND);
	CHECK_NUM(o.selectors.n, 2);
	CHECK_STR(o.selectors.items[0], "a=b");
	CHECK_STR(o.selectors.items[1], "");
	CHECK_STR(o.secret, "-v"); /* a flag that wants a value takes whatever comes */
	CHECK(!o.v);
	CHECK_CODE(READ("-admin", "-v=true", "-ttl=1_000", "-colour", "red", "-colour=red"), CODE_OK);
	CHECK(o.admin && o.v);
	CHECK_NUM(o.ttl, 1000);
	CHECK_NUM(o.colour, 9);
	CHECK_CODE(READ("-admin", "-admin=F"), CODE_OK);
	CHECK(!o.admin);
	CHECK_CODE(READ("-ttl=5", "-ttl", "-7"), CODE_OK);
	CHECK_NUM(o.ttl, -7);
}

TEST(the_first_word_that_is_no_flag_ends_them)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct flag_rest rest;
	struct options o;
	struct err err = { 0 };

	CHECK_CODE(READ("-admin", "true", "-bogus"), CODE_OK);
	CHECK(o.admin);
	CHECK_NUM(rest.argc, 2);
	CHECK_CODE(READ("-v", "--", "-bogus", "x"), CODE_OK);
	CHECK_NUM(rest.argc, 2);
	CHECK_CODE(READ("-", "-v"), CODE_OK);
	CHECK_NUM(rest.argc, 2);
	CHECK_CODE(READ("", "-v"), CODE_OK);
	CHECK_NUM(rest.argc, 2);
	CHECK_CODE(READ("-spiffeID", "--", "-v"), CODE_OK); /* here it is a value */
	CHECK_STR(o.id, "--");
	CHECK(o.v);
}

TEST(mistakes_have_the_texts_of_go)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct flag_rest rest;
	struct options o;
	struct err err = { 0 };
	static const struct {
		const char *words[3], *text;
	} cases[] = {
		{ { "-x" }, "flag provided but not defined: -x" },
		{ { "--x=5" }, "flag provided but not defined: -x" },
		{ { "-TTL", "5" }, "flag provided but not defined: -TTL" },
		{ { "-ttl", "abc" }, "invalid value \"abc\" for flag -ttl: parse error" },
		{ { "-ttl", "1.5" }, "invalid value \"1.5\" for flag -ttl: parse error" },
		{ { "-ttl=" }, "invalid value \"\" for flag -ttl: parse error" },
		{ { "-ttl", "99999999999999999999" },
		  "invalid value \"99999999999999999999\" for flag -ttl: value out of range" },
		{ { "-keep", "30" }, "invalid value \"30\" for flag -keep: parse error" },
		{ { "-admin=maybe" }, "invalid boolean value \"maybe\" for -admin: parse error" },
		{ { "-ttl" }, "flag needs an argument: -ttl" },
		{ { "-colour", "a\"b\n" }, "invalid value \"a\\\"b\\n\" for flag -colour: no colour: \"a\"b\n\"" },
		{ { "---x" }, "bad flag syntax: ---x" },
		{ { "-=x" }, "bad flag syntax: -=x" },
		{ { "--=x" }, "bad flag syntax: --=x" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		CHECK_CODE(read_words(cases[i].words, &o, arena, &rest, &err), CODE_INVALID_ARGUMENT);
		CHECK_STR(err.text, cases[i].text);
	}
	CHECK_CODE(READ("-ttl", "5", "-h"), CODE_CANCELLED);
	CHECK_STR(err.text, "flag: help requested");
	CHECK_CODE(READ("--help"), CODE_CANCELLED);
	CHECK_CODE(READ("-h=1"), CODE_CANCELLED);
	CHECK_CODE(READ("-hh"), CODE_INVALID_ARGUMENT);
}

TEST(usage_is_laid_out_as_go_does)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	flags_usage(&set, out);
	fclose(out);
	CHECK_STR(text, "Usage of entry create:\n"
			"  -admin\n    \tIs it\n    \tan admin\n"
			"  -colour value\n    \tRed\n"
			"  -keep duration\n    \tHow long (default 720h0m0s)\n"
			"  -selector value\n    \tOne more\n"
			"  -spiffeID string\n    \tThe \"id\" (default \"spiffe://a\")\n"
			"  -ttl int\n    \tSeconds (default 600)\n"
			"  -v\tShort\n");
	free(text);
}

TEST(durations_are_those_of_go)
{
	static const struct {
		const char *text;
		int64_t ns;
		const char *back;
	} good[] = {
		{ "0", 0, "0s" },
		{ "-0", 0, "0s" },
		{ "1h", 3600 * GO_SECOND, "1h0m0s" },
		{ "1h15m30.918273645s", 4530918273645, "1h15m30.918273645s" },
		{ "+5.s", 5 * GO_SECOND, "5s" },
		{ ".5m", 30 * GO_SECOND, "30s" },
		{ "-1.5h", -5400 * GO_SECOND, "-1h30m0s" },
		{ "3ms", 3000000, "3ms" },
		{ "1500us", 1500000, "1.5ms" },
		{ "12\xc2\xb5s", 12000, "12\xc2\xb5s" },
		{ "12\xce\xbcs7ns", 12007, "12.007\xc2\xb5s" },
		{ "9223372036854775807ns", INT64_MAX, "2562047h47m16.854775807s" },
		{ "-9223372036854775808ns", INT64_MIN, "-2562047h47m16.854775808s" },
		{ "0.3333333333333333333h", 1200 * GO_SECOND, "20m0s" },
		{ "0.100000000000000000000h", 360 * GO_SECOND, "6m0s" },
	};
	static const struct {
		const char *text, *error;
	} bad[] = {
		{ "", "time: invalid duration \"\"" },
		{ "3", "time: missing unit in duration \"3\"" },
		{ "-", "time: invalid duration \"-\"" },
		{ "s", "time: invalid duration \"s\"" },
		{ ".s", "time: invalid duration \".s\"" },
		{ "1 day", "time: unknown unit \" day\" in duration \"1 day\"" },
		{ "1d", "time: unknown unit \"d\" in duration \"1d\"" },
		{ "9223372036854775808ns", "time: invalid duration \"9223372036854775808ns\"" },
		{ "9223372036854775810ns", "time: invalid duration \"9223372036854775810ns\"" },
		{ "2562047h47m16.854775808s", "time: invalid duration \"2562047h47m16.854775808s\"" },
		{ "99999999999999999999s", "time: invalid duration \"99999999999999999999s\"" },
	};
	char text[GO_DURATION_MAX];
	struct err err = { 0 };
	int64_t ns;

	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		CHECK_CODE(go_parse_duration(good[i].text, &ns, &err), CODE_OK);
		CHECK(ns == good[i].ns);
		CHECK_STR(go_format_duration(ns, text), good[i].back);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		CHECK_CODE(go_parse_duration(bad[i].text, &ns, &err), CODE_INVALID_ARGUMENT);
		CHECK_STR(err.text, bad[i].error);
	}
}

TEST(integers_are_those_of_go)
{
	static const struct {
		const char *text;
		enum go_int rc;
		int64_t value;
	} cases[] = {
		{ "0", GO_INT_OK, 0 },
		{ "-0x1F", GO_INT_OK, -31 },
		{ "0b101", GO_INT_OK, 5 },
		{ "0o17", GO_INT_OK, 15 },
		{ "017", GO_INT_OK, 15 },
		{ "0_7", GO_INT_OK, 7 },
		{ "0x_f", GO_INT_OK, 15 },
		{ "+1_000", GO_INT_OK, 1000 },
		{ "9223372036854775807", GO_INT_OK, INT64_MAX },
		{ "-9223372036854775808", GO_INT_OK, INT64_MIN },
		{ "9223372036854775808", GO_INT_RANGE, 0 },
		{ "99999999999999999999999", GO_INT_RANGE, 0 },
		{ "-9223372036854775809", GO_INT_RANGE, 0 },
		{ "", GO_INT_SYNTAX, 0 },
		{ "-", GO_INT_SYNTAX, 0 },
		{ "_1", GO_INT_SYNTAX, 0 },
		{ "1_", GO_INT_SYNTAX, 0 },
		{ "1__0", GO_INT_SYNTAX, 0 },
		{ "08", GO_INT_SYNTAX, 0 },
		{ "0x", GO_INT_SYNTAX, 0 },
		{ "0b2", GO_INT_SYNTAX, 0 },
		{ " 1", GO_INT_SYNTAX, 0 },
		{ "1e3", GO_INT_SYNTAX, 0 },
		{ "\xc3\xa9", GO_INT_SYNTAX, 0 },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		int64_t value = 0;

		CHECK_NUM(go_parse_int(cases[i].text, &value), cases[i].rc);
		CHECK(value == cases[i].value);
	}
}

TEST(quoting_is_that_of_go)
{
	static const char raw[] = "a\"\\\t\x01\x7f\xc3\xa9\xff\xe2\x80\x8b\xf0\x9f\x98\x80\xf3\xa0\x80\x81";
	OWN_BUF out = { 0 };

	go_quote(&out, raw);
	CHECK_STR(buf_text(&out), "\"a\\\"\\\\\\t\\x01\\x7f\xc3\xa9\\xff\\u200b\xf0\x9f\x98\x80\\U000e0001\"");
	out.len = 0;
	go_put_rune(&out, 0xD800);
	CHECK_STR(buf_text(&out), "\xef\xbf\xbd");
}
