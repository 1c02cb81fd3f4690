/* SPDX-License-Identifier: Apache-2.0 */
/* The texts are what spire-server 1.13.3 answers for the same input. */
#include "base/gojson.h"

#include "lib/test.h"

#include <stdlib.h>

static const struct json *parse(const char *text, struct arena *arena)
{
	const struct json *out = NULL;
	struct err err = { 0 };

	CHECK_CODE(json_parse(text, strlen(text), arena, &out, &err), CODE_OK);
	return out;
}

TEST(values_of_every_kind)
{
	OWN_STRUCT(arena) arena = arena_new();
	const struct json *doc =
		parse(" {\"a\" : [ 1, -2.5e+3, true, false, null, \"x\", {}, [] ] ,\"b\":{\"c\":\"d\"}}\r\n\t", arena);
	static const enum json_kind kinds[] = { JSON_NUMBER, JSON_NUMBER, JSON_BOOL,   JSON_BOOL,
						JSON_NULL,   JSON_STRING, JSON_OBJECT, JSON_ARRAY };
	const struct json *list = json_get(doc, "a"), *item = list->first;

	CHECK_NUM(doc->kind, JSON_OBJECT);
	CHECK_NUM(doc->n, 2);
	CHECK_NUM(list->n, 8);
	for (size_t i = 0; i < 8; i++, item = item->next)
		CHECK_NUM(item->kind, kinds[i]);
	CHECK(item == NULL);
	CHECK_STR(list->first->next->text, "-2.5e+3");
	CHECK(list->first->next->next->truth);
	CHECK_STR(json_get(json_get(doc, "b"), "c")->text, "d");
	CHECK_NUM(parse("7", arena)->kind, JSON_NUMBER);
	CHECK_NUM(parse("\"\"", arena)->len, 0);
}

TEST(names_are_found_with_and_without_case_and_the_last_wins)
{
	OWN_STRUCT(arena) arena = arena_new();
	const struct json *doc = parse("{\"Key\":1,\"key\":2,\"KEY\":3,\"k\":4}", arena);

	CHECK_STR(json_get(doc, "key")->text, "2");
	CHECK_STR(json_find(doc, "key")->text, "3");
	CHECK(json_get(doc, "ke") == NULL);
	CHECK(json_find(doc->first, "key") == NULL);
	CHECK(json_find(NULL, "key") == NULL);
}

TEST(strings_are_unescaped_and_made_valid)
{
	OWN_STRUCT(arena) arena = arena_new();
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t" },
		{ "\"\\u00e9\\u20AC\"", "\xc3\xa9\xe2\x82\xac" },
		{ "\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80" },
		{ "\"\\ud83d\"", "\xef\xbf\xbd" },
		{ "\"\\ud83dx\"", "\xef\xbf\xbdx" },
		{ "\"\\ud83d\\u0041\"", "\xef\xbf\xbd"
					"A" },
		{ "\"\\ude00\"", "\xef\xbf\xbd" },
		{ "\"a\xff\xc3\"", "a\xef\xbf\xbd\xef\xbf\xbd" },
		{ "\"\x7f\"", "\x7f" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		CHECK_STR(parse(cases[i].in, arena)->text, cases[i].out);
	CHECK_NUM(parse("\"a\\u0000b\"", arena)->len, 3);
}

TEST(mistakes_have_the_texts_of_go)
{
	OWN_STRUCT(arena) arena = arena_new();
	static const struct {
		const char *in, *text;
	} cases[] = {
		{ "", "unexpected end of JSON input" },
		{ " ", "unexpected end of JSON input" },
		{ "{", "unexpected end of JSON input" },
		{ "{\"a\"", "unexpected end of JSON input" },
		{ "{\"a\":", "unexpected end of JSON input" },
		{ "{\"a\":1", "unexpected end of JSON input" },
		{ "{\"a\":1,", "unexpected end of JSON input" },
		{ "[1", "unexpected end of JSON input" },
		{ "[1,", "unexpected end of JSON input" },
		{ "\"a", "unexpected end of JSON input" },
		{ "\"a\\", "invalid character ' ' in string escape code" },
		{ "\"\\u12", "invalid character ' ' in \\u hexadecimal character escape" },
		{ "-", "invalid character ' ' in numeric literal" },
		{ "1.", "invalid character ' ' after decimal point in numeric literal" },
		{ "1e+", "invalid character ' ' in exponent of numeric literal" },
		{ "nul", "invalid character ' ' in literal null (expecting 'l')" },
		{ "{\"a\":tru}", "invalid character '}' in literal true (expecting 'e')" },
		{ "{\"a\":truE}", "invalid character 'E' in literal true (expecting 'e')" },
		{ "[fals3]", "invalid character '3' in literal false (expecting 'e')" },
		{ "{\"entries\":[]} x", "invalid character 'x' after top-level value" },
		{ "{\"entries\":[],}", "invalid character '}' looking for beginning of object key string" },
		{ "{,}", "invalid character ',' looking for beginning of object key string" },
		{ "[,]", "invalid character ',' looking for beginning of value" },
		{ "[1,]", "invalid character ']' looking for beginning of value" },
		{ "[1 2]", "invalid character '2' after array element" },
		{ "[1}", "invalid character '}' after array element" },
		{ "{\"a\" []}", "invalid character '[' after object key" },
		{ "{a:1}", "invalid character 'a' looking for beginning of object key string" },
		{ "{\"a\":1 \"c\"}", "invalid character '\"' after object key:value pair" },
		{ "{\"a\":1]", "invalid character ']' after object key:value pair" },
		{ "{\"a\":-}", "invalid character '}' in numeric literal" },
		{ "{\"a\":01}", "invalid character '1' after object key:value pair" },
		{ "{\"a\":\"\\x\"}", "invalid character 'x' in string escape code" },
		{ "{\"a\":\"\\u12g4\"}", "invalid character 'g' in \\u hexadecimal character escape" },
		{ "\"\x01\"", "invalid character '\\x01' in string literal" },
		{ "\"\n\"", "invalid character '\\n' in string literal" },
		{ "\xef\xbb\xbf{}", "invalid character '\xc3\xaf' looking for beginning of value" },
		{ "\xff{}", "invalid character '\xc3\xbf' looking for beginning of value" },
		{ "'x'", "invalid character '\\'' looking for beginning of value" },
		{ "]", "invalid character ']' looking for beginning of value" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const struct json *out = NULL;
		struct err err = { 0 };

		CHECK_CODE(json_parse(cases[i].in, strlen(cases[i].in), arena, &out, &err), CODE_INVALID_ARGUMENT);
		CHECK_STR(err.text, cases[i].text);
		CHECK(out == NULL);
	}
}

TEST(a_nul_is_a_byte_like_any_other)
{
	OWN_STRUCT(arena) arena = arena_new();
	const struct json *out;
	struct err err = { 0 };

	CHECK_CODE(json_parse("\0", 1, arena, &out, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "invalid character '\\x00' looking for beginning of value");
	CHECK_CODE(json_parse("\"\0\"", 3, arena, &out, &err), CODE_INVALID_ARGUMENT);
	CHECK_CODE(json_parse("\"\\\0\"", 4, arena, &out, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "invalid character '\\x00' in string escape code");
}

TEST(nesting_ends_at_ten_thousand)
{
	enum { MORE = JSON_DEPTH + 1 };
	OWN_STRUCT(arena) arena = arena_new();
	char *text = malloc(2 * (size_t)MORE);
	const struct json *out;
	struct err err = { 0 };

	memset(text, '[', MORE);
	memset(text + MORE, ']', MORE);
	CHECK_CODE(json_parse(text + 1, 2 * (size_t)JSON_DEPTH, arena, &out, &err), CODE_OK);
	CHECK_CODE(json_parse(text, 2 * (size_t)MORE, arena, &out, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "invalid character '[' exceeded max depth");
	free(text);
}

TEST(ten_megabytes_of_anything)
{
	enum { SIZE = 10 << 20 };
	char *text = malloc(SIZE);
	struct err err = { 0 };

	for (const char *fill = "[{\"1,\\ a"; *fill != '\0'; fill++) {
		OWN_STRUCT(arena) arena = arena_new();
		const struct json *out;

		memset(text, *fill, SIZE);
		CHECK_CODE(json_parse(text, SIZE, arena, &out, &err), *fill == '1' ? CODE_OK : CODE_INVALID_ARGUMENT);
	}
	free(text);
}

/* Cut anywhere, and with any one byte changed: an answer, never a crash. */
TEST(a_document_cut_and_bent)
{
	static const char doc[] = "{\"a\":[1.5e3,{\"b\":\"\\ud83d\\ude00\\n\"},true],\"c\":null}";
	struct err err = { 0 };

	for (size_t len = 0; len < sizeof doc - 1; len++) {
		OWN_STRUCT(arena) arena = arena_new();
		char *copy = malloc(len == 0 ? 1 : len); /* so that a read beyond the end is seen */
		const struct json *out;

		memcpy(copy, doc, len);
		CHECK_CODE(json_parse(copy, len, arena, &out, &err), CODE_INVALID_ARGUMENT);
		for (size_t i = 0; i < len; i++)
			for (int byte = 0; byte < 256; byte += 5) {
				memcpy(copy, doc, len);
				copy[i] = (char)byte;
				(void)json_parse(copy, len, arena, &out, &err);
			}
		free(copy);
	}
}

TEST(numbers_of_whole_numbers_only)
{
	OWN_STRUCT(arena) arena = arena_new();
	uint64_t u = 0;
	int64_t i = 0;

	CHECK(json_int64(parse("-9223372036854775808", arena), &i));
	CHECK(i == INT64_MIN);
	CHECK(json_int64(parse("9223372036854775807", arena), &i));
	CHECK(i == INT64_MAX);
	CHECK(!json_int64(parse("9223372036854775808", arena), &i));
	CHECK(!json_int64(parse("-9223372036854775809", arena), &i));
	CHECK(!json_int64(parse("1.0", arena), &i));
	CHECK(!json_int64(parse("1e2", arena), &i));
	CHECK(!json_int64(parse("\"1\"", arena), &i));
	CHECK(json_uint64(parse("18446744073709551615", arena), &u));
	CHECK(u == UINT64_MAX);
	CHECK(!json_uint64(parse("18446744073709551616", arena), &u));
	CHECK(!json_uint64(parse("-1", arena), &u));
}

TEST(strings_are_written_as_go_writes_them)
{
	OWN_BUF out = { 0 };

	json_put_string(&out, "a <b> & \"c\" \\ \b\f\n\r\t\x01\x1f\x7f \xc3\xa9 \xe2\x80\xa8 \xf0\x9f\x98\x80 \xff");
	CHECK_STR(buf_text(&out), "\"a \\u003cb\\u003e \\u0026 \\\"c\\\" \\\\ \\b\\f\\n\\r\\t\\u0001\\u001f\x7f "
				  "\xc3\xa9 \\u2028 \xf0\x9f\x98\x80 \\ufffd\"");
}
