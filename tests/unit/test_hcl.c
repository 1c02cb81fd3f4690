/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of HCL 1 and JSON: each form gives the tree it should, each mistake its place; nothing that a file can
 * hold makes it crash or slow. SEED=n in the environment repeats the mutations of a run that failed. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/hcl.h"
#include "base/limits.h"
#include "lib/test.h"

#include <stdlib.h>

static void show(struct buf *out, const struct hcl_value *value);

static void show_items(struct buf *out, const struct hcl_item *item)
{
	const char *gap = "";

	for (; item != NULL; item = item->next, gap = " ") {
		buf_puts(out, gap);
		for (size_t i = 0; i < item->n_keys; i++)
			buf_printf(out, item->keys[i].quoted ? "%s'%s'" : "%s%s", i > 0 ? "." : "", item->keys[i].text);
		buf_put(out, '=');
		show(out, item->value);
	}
}

/* One line a tree: {key.'label'={list=[s:text n:1]}} */
static void show(struct buf *out, const struct hcl_value *value)
{
	const char *gap = "";

	switch (value->kind) {
	case HCL_LIST:
		buf_put(out, '[');
		for (const struct hcl_value *at = value->first; at != NULL; at = at->next, gap = " ") {
			buf_puts(out, gap);
			show(out, at);
		}
		buf_put(out, ']');
		break;
	case HCL_OBJECT:
		buf_put(out, '{');
		show_items(out, value->items);
		buf_put(out, '}');
		break;
	default:
		buf_printf(out, "%c:%s", "snfb"[value->kind], value -> text);
	}
}

static void check_tree(const char *text, const char *want)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct hcl_value *root = NULL;
	struct err err = { 0 };
	OWN_BUF out = { 0 };

	CHECK_CODE(hcl_parse(text, strlen(text), arena, &root, &err), CODE_OK);
	show(&out, root);
	CHECK_STR(buf_text(&out), want);
}

static void check_error(const char *text, size_t len, const char *want)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct hcl_value *root = NULL;
	struct err err = { 0 };

	CHECK_CODE(hcl_parse(text, len, arena, &root, &err), CODE_INVALID_ARGUMENT);
	CHECK(root == NULL);
	CHECK_STR(err.text, want);
}

TEST(blocks_and_attributes)
{
	check_tree("", "{}");
	check_tree(" # nothing\n", "{}");
	check_tree("a = 1", "{a=n:1}");
	check_tree("server { port = 8081, host = \"x\" }\n", "{server={port=n:8081 host=s:x}}");
	check_tree("server = { port = 8081 }", "{server={port=n:8081}}");
	check_tree("A \"b\" c { }", "{A.'b'.c={}}");
	check_tree("A \"b\" {} A \"b\" {}", "{A.'b'={} A.'b'={}}");
	check_tree("a.b-c_d = true b = false", "{a.b-c_d=b:true b=b:false}");
	check_tree("\"a\" = 1 \"b\" { c = {} }", "{'a'=n:1 'b'={c={}}}");
	check_tree("\xc3\xa9t\xc3\xa9 = 1", "{\xc3\xa9t\xc3\xa9=n:1}");
	check_tree("a = 1\r\nb = 2\r\n", "{a=n:1 b=n:2}");
}

TEST(numbers)
{
	check_tree("a = 0 b = -5 c = 0x1F d = 0755 e = 1.5 f = -2e3 g = .5 h = 0",
		   "{a=n:0 b=n:-5 c=n:0x1F d=n:0755 e=f:1.5 "
		   "f=f:-2e3 g=f:.5 h=n:0}");
	check_error("a = 0x", 6, "At 1:5: illegal hexadecimal number");
	check_error("a = 089", 7, "At 1:5: illegal octal number");
	check_error("a = 1e", 6, "At 1:5: exponent has no digits");
	check_error("a = 5m", 6, "At 1:7: key 'm' expected start of object ('{') or assignment ('=')");
}

TEST(lists)
{
	check_tree("a = []", "{a=[]}");
	check_tree("a = [1, \"b\", true,]", "{a=[n:1 s:b b:true]}");
	check_tree("a = [ # first\n 1, // second\n 2 /* third */ , ]", "{a=[n:1 n:2]}");
	check_tree("a = [{ b = 1 }, { b = 2 }] c = [[1], [2, 3]]", "{a=[{b=n:1} {b=n:2}] c=[[n:1] [n:2 n:3]]}");
	check_error("a = [1 2]", 9, "At 1:8: error parsing list, expected comma or list end, got: NUMBER");
	check_error("a = [1,\n", 8, "At 2:1: list expected closing RBRACK got: EOF");
	check_error("a = [b]", 7, "At 1:6: expected a value got: IDENT");
}

TEST(strings)
{
	check_tree("a = \"\\a\\b\\f\\n\\r\\t\\v\\\\\\\"\"", "{a=s:\a\b\f\n\r\t\v\\\"}");
	check_tree("a = \"\\101\\x41\\u00e9\\U0001F600\"", "{a=s:AA\xc3\xa9\xf0\x9f\x98\x80}");
	check_tree("a = \"$x ${b \"c\" {d}\n} e\"", "{a=s:$x ${b \"c\" {d}\n} e}");
	check_error("a = \"b", 6, "At 1:5: literal not terminated");
	check_error("a = \"b\nc\"", 9, "At 1:5: literal not terminated");
	check_error("a = \"${b\"", 9, "At 1:5: literal not terminated");
	check_error("a = \"\\q\"", 8, "At 1:6: illegal char escape");
	check_error("a = \"\\x4\"", 9, "At 1:9: illegal char escape");
	check_error("a = \"\\777\"", 10, "At 1:6: illegal char escape");
	check_error("a = \"\\UFFFFFFFF\"", 16, "At 1:6: illegal char escape");
	check_error("a = \"x\\x00\"", 11, "At 1:7: string holds a null character");
	check_error("a = \"\\u0000\"", 12, "At 1:6: string holds a null character");
}

TEST(heredocs)
{
	check_tree("a = <<EOF\nx\n  y \"\n\nEOF\n", "{a=s:x\n  y \"\n\n}");
	check_tree("a = <<EOF\nx\n  EOF\nb = 1", "{a=s:x\n   b=n:1}");
	check_tree("a {\n b = <<-EOF\n\t\tx\n\t\t  y\n\t\tEOF\n}\n", "{a={b=s:x\n  y\n}}");
	check_tree("a = <<-EOF\n x\n  EOF\n", "{a=s: x\n}"); /* one line has less: all stay */
	check_tree("a = <<EOF\r\nx\r\nEOF\r\n", "{a=s:x\n}");
	check_tree("a = <<EOF\nEOF\n", "{a=s:}");
	check_tree("a = [<<X\n1\nX\n, <<Y\n2\nY\n]", "{a=[s:1\n s:2\n]}");
	check_error("a = <<EOF\nx\nEOF", 15, "At 1:5: heredoc not terminated");
	check_error("a = <<EOF\nEOFX\n", 15, "At 1:5: heredoc not terminated");
	check_error("a = <<EOF", 9, "At 1:5: heredoc not terminated");
	check_error("a = <<\nx", 8, "At 1:5: zero-length heredoc anchor");
	check_error("a = <<E F\n", 10, "At 1:8: invalid characters in heredoc anchor");
	check_error("a = <E\n", 7, "At 1:5: heredoc expected second '<', didn't see it");
}

TEST(comments)
{
	check_tree("# a\n// b\n/* c\n*/ a = 1 # d", "{a=n:1}");
	check_tree("a /* b */ = /* **/ 1", "{a=n:1}");
	check_error("a = 1 /* b", 10, "At 1:7: comment not terminated");
	check_error("a = 1\n/ b", 9, "At 2:1: expected '/' for comment");
}

TEST(mistakes_name_their_place)
{
	check_error("server {\n", 9, "At 2:1: object expected closing RBRACE got: EOF");
	check_error("}", 1, "At 1:1: expected: IDENT | STRING | ASSIGN | LBRACE got: RBRACE");
	check_error("= 1", 3, "At 1:1: no object keys found!");
	check_error("a b = 1", 7, "At 1:5: nested object expected: LBRACE got: ASSIGN");
	check_error("a { b }", 7, "At 1:7: key 'b' expected start of object ('{') or assignment ('=')");
	check_error("a", 1, "At 1:2: key 'a' expected start of object ('{') or assignment ('=')");
	check_error("a =", 3, "At 1:4: expected a value got: EOF");
	check_error("a = }", 5, "At 1:5: expected a value got: RBRACE");
	check_error("a {{}}", 6, "At 1:4: expected: IDENT | STRING got: LBRACE");
	check_error("a ! b", 5, "At 1:3: illegal char");
	check_error("a : 1", 5, "At 1:3: illegal char");
	check_error("true = 1", 8, "At 1:1: expected: IDENT | STRING | ASSIGN | LBRACE got: BOOL");
	check_error("\xef\xbb\xbf"
		    "a = 1",
		    8, "At 1:1: illegal char");
	check_error("a = 1\n\xc3\xa9\xff", 9, "At 2:2: illegal UTF-8 encoding");
	check_error("a = \"\xc3\xa9\0\"", 9, "At 1:7: unexpected null character (0x00)");
}

TEST(json_is_told_by_its_first_brace)
{
	check_tree(" \n{}", "{}");
	check_tree("{\"a\": 1, \"b\": {\"c\": [true, null, -1.5, \"x\"]},}", "{a=n:1 b={c=[b:true s: f:-1.5 s:x]}}");
	check_tree("{\"a\": [{\"b\": 1}, {\"b\": 2}], \"c\": [], \"d\": [{\"e\": 1}, 2]}",
		   "{a={b=n:1} a={b=n:2} c=[] d=[{e=n:1} n:2]}");
	check_tree("{\"a\": \"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00 ${x\"}",
		   "{a=s:\"\\/\b\f\n\r\t\xc3\xa9\xf0\x9f\x98\x80 ${x}");
	check_error("{\"a\" 1}", 7, "At 1:6: expected: COLON got: NUMBER");
	check_error("{a: 1}", 6, "At 1:2: illegal char");
	check_error("{\"a\": 01}", 9, "At 1:7: numbers cannot start with 0");
	check_error("{\"a\": 1 \"b\": 2}", 15, "At 1:9: object expected COMMA or closing RBRACE got: STRING");
	check_error("{\"a\": # b\n1}", 12, "At 1:7: illegal char");
	check_error("{\"a\": \"b\nc\"}", 12, "At 1:7: literal not terminated");
	check_error("{\"a\": \"\\ud800x\"}", 16, "At 1:8: illegal char escape");
	check_error("{\"a\": 1}}", 9, "At 1:9: expected the end of the file got: RBRACE");
	check_error("{\"a\": 1", 7, "At 1:8: object expected COMMA or closing RBRACE got: EOF");
	check_error("{", 1, "At 1:2: object expected closing RBRACE got: EOF");
	check_error("{\"a\":}", 6, "At 1:6: expected a value got: RBRACE");
}

/* `n` times `part`, between `head` and `tail`. */
static void fill(struct buf *out, const char *head, const char *part, size_t n, const char *tail)
{
	size_t len = strlen(part);

	out->len = 0;
	buf_puts(out, head);
	buf_reserve(out, n * len);
	for (size_t i = 0; i < n; i++)
		buf_append(out, part, len);
	buf_puts(out, tail);
}

TEST(nesting_ends_somewhere)
{
	static const char *const parts[] = { "a {", "[", "{\"a\":", "[{ b = " };
	OWN_BUF out = { 0 };

	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		struct hcl_value *root;
		struct err err = { 0 };

		fill(&out, parts[i][0] == '[' ? "a = " : "", parts[i], 1000000, "");
		CHECK_CODE(hcl_parse((char *)out.data, out.len, arena, &root, &err), CODE_INVALID_ARGUMENT);
		CHECK(strstr(err.text, "nested deeper than 64 levels") != NULL);
	}
	fill(&out, "", "a {", LIMIT_CONFIG_DEPTH, "");
	for (int i = 0; i < LIMIT_CONFIG_DEPTH; i++)
		buf_put(&out, '}');
	OWN_STRUCT(arena) arena = arena_new();
	struct hcl_value *root;
	struct err err = { 0 };
	CHECK_CODE(hcl_parse((char *)out.data, out.len, arena, &root, &err), CODE_OK);
}

/* Ten megabytes of whatever might be looked at twice. A quadratic reader would need hours. */
TEST(time_is_linear)
{
	static const struct {
		const char *head, *part, *tail;
	} inputs[] = {
		{ "", "a = 1\n", "" },
		{ "a = [", "1,", "]" },
		{ "a = \"", "x", "\"" },
		{ "a = \"", "x", "" },
		{ "a = <<EOF\n", "EO\n", "" },
		{ "a = <<EOF\n", " ", "" },
		{ "a = <<-EOF\n", " \n", " EOF\n" },
		{ "", "#\n", "" },
		{ "/*", "*", "" },
		{ "a ", "b ", "{}" },
		{ "a = \"${", "{", "" },
		{ "a = 0", "1", "" },
		{ "", "\r", "" },
		{ "{\"a\": [", "{},", "]}" },
		{ "{", "\"a\":1,", "}" },
		{ "a ", "{} a ", "{}" },
		{ "a = ", "<<X\nX\na = ", "1" },
		{ "a", "b", "" },
	};
	OWN_BUF out = { 0 };

	for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		struct hcl_value *root;
		struct err err = { 0 };
		int64_t start = clock_mono_ms();

		fill(&out, inputs[i].head, inputs[i].part, (10 << 20) / strlen(inputs[i].part), inputs[i].tail);
		hcl_parse((char *)out.data, out.len, arena, &root, &err);
		CHECK(clock_mono_ms() - start < 20000);
	}
}

static const char sample[] = "server {\n bind_port = \"8081\"\n\tca_subject = { country = [\"US\", \"DE\",] }\n "
			     "admin_ids = []\n # c\n x = 0x1F\n"
			     " federates_with \"a\\u00e9\" { url = \"https://${x}/\" }\n}\nplugins {\n KeyManager "
			     "\"disk\" { plugin_data {} }\n"
			     " T \"n\" { data = <<-EOF\n\t\ta\n\t\tEOF\n }\n /* z */ f = 1.5 t = true }\n";
static const char sample_json[] = "{\"server\": {\"a\": \"b\\u00e9\\n\", \"l\": [1, 2.5, true, null, {\"x\": {}}]}, "
				  "\"plugins\": [{\"A\": {}}, {\"B\": []}]}";

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void mutate(struct buf *out, const char *text, size_t len, uint64_t *state)
{
	static const char bytes[] = "{}[]=\",\n\\$<#/*:-.0xE\t \xc3\xff";
	size_t edits = 1 + next_random(state) % 4;

	out->len = 0;
	buf_append(out, text, len);
	for (size_t i = 0; i < edits && out->len > 0; i++) {
		size_t at = next_random(state) % out->len;
		uint8_t byte = (uint8_t)bytes[next_random(state) % sizeof bytes]; /* NUL too */

		switch (next_random(state) % 4) {
		case 0:
			out->data[at] = byte;
			break;
		case 1: /* cut */
			out->len = at;
			break;
		case 2: /* drop some */
			memmove(out->data + at, out->data + at + 1, out->len - at - 1);
			out->len--;
			break;
		default: /* insert */
			buf_put(out, 0);
			memmove(out->data + at + 1, out->data + at, out->len - 1 - at);
			out->data[at] = byte;
		}
	}
}

/* Answers a tree or a place, for whatever it is given. */
TEST(mutations_are_refused_or_read)
{
	const char *given = getenv("SEED");
	uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)clock_wall_ms(), random = seed | 1;
	OWN_BUF text = { 0 };
	OWN_BUF exact = { 0 };

	printf("SEED=%llu\n", (unsigned long long)seed);
	for (int i = 0; i < 20000; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		struct hcl_value *root = NULL;
		struct err err = { 0 };
		bool json = i % 2 == 0;
		char *copy;
		int line, column;

		mutate(&text, json ? sample_json : sample, json ? sizeof sample_json - 1 : sizeof sample - 1, &random);
		copy = malloc(text.len + (text.len == 0)); /* so that the sanitizer sees a read beyond the end */
		memcpy(copy, text.data, text.len);
		if (hcl_parse(copy, text.len, arena, &root, &err) == CODE_OK) {
			exact.len = 0;
			show(&exact, root);
		} else {
			CHECK(sscanf(err.text, "At %d:%d: ", &line, &column) == 2 && line >= 1 && column >= 1);
		}
		free(copy);
	}
}

TEST(every_truncation_is_refused_or_read)
{
	for (size_t len = 0; len < sizeof sample; len++) {
		OWN_STRUCT(arena) arena = arena_new();
		struct hcl_value *root = NULL;
		struct err err = { 0 };
		char *copy = malloc(len + 1);

		memcpy(copy, sample, len);
		if (hcl_parse(copy, len, arena, &root, &err) != CODE_OK)
			CHECK(strncmp(err.text, "At ", 3) == 0);
		free(copy);
	}
}
