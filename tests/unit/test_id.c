/* SPDX-License-Identifier: Apache-2.0 */
/* SPIFFE IDs and DNS names: each rule once with SPIRE's text, and what is at the edge of it. */
#include "lib/test.h"

#include "base/arena.h"
#include "base/id.h"
#include "base/idna.h"

#define TD_CHARS "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores"
#define PATH_CHARS "path segment characters are limited to letters, numbers, dots, dashes, and underscores"
#define IDNA "idna error\nidna: invalid label "

struct want {
	const char *text, *error; /* NULL: it is fine */
};

/* --- SPIFFE IDs
 * --------------------------------------------------------------------------------------------------------- */

TEST(ids_are_parsed_by_the_rules_of_spiffe)
{
	static const struct want cases[] = {
		{ "spiffe://example.org", NULL },
		{ "spiffe://a", NULL },
		{ "spiffe://a-b_c.0", NULL },
		{ "spiffe://...", NULL },
		{ "spiffe://a/B", NULL },
		{ "spiffe://a/b/C-9_.x/...", NULL },
		{ "spiffe://a/.b/b./..c", NULL },
		{ "", "cannot be empty" },
		{ "spiffe:/a", "scheme is missing or invalid" },
		{ "SPIFFE://a", "scheme is missing or invalid" },
		{ "http://a/b", "scheme is missing or invalid" },
		{ " spiffe://a", "scheme is missing or invalid" },
		{ "spiffe://", "trust domain is missing" },
		{ "spiffe:///a", "trust domain is missing" },
		{ "spiffe://A", TD_CHARS },
		{ "spiffe://a:80/b", TD_CHARS },
		{ "spiffe://u@a/b", TD_CHARS },
		{ "spiffe://a?x", TD_CHARS },
		{ "spiffe://a%41", TD_CHARS },
		{ "spiffe://\xc3\xa9", TD_CHARS },
		{ "spiffe://a/", "path cannot have a trailing slash" },
		{ "spiffe://a/b/", "path cannot have a trailing slash" },
		{ "spiffe://a//b", "path cannot contain empty segments" },
		{ "spiffe://a//", "path cannot contain empty segments" },
		{ "spiffe://a/b//", "path cannot contain empty segments" },
		{ "spiffe://a/.", "path cannot contain dot segments" },
		{ "spiffe://a/b/..", "path cannot contain dot segments" },
		{ "spiffe://a/../b", "path cannot contain dot segments" },
		{ "spiffe://a/./!", "path cannot contain dot segments" },
		{ "spiffe://a/b!/./", PATH_CHARS },
		{ "spiffe://a/b%20c", PATH_CHARS },
		{ "spiffe://a/b?q", PATH_CHARS },
		{ "spiffe://a/b#f", PATH_CHARS },
		{ "spiffe://a/\xc3\xa9", PATH_CHARS },
		{ "spiffe://a/b\n", PATH_CHARS },
	};
	OWN_STRUCT(arena) arena = arena_new();

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct spiffe_id id = { "untouched", "untouched", "untouched" };
		struct err err = { 0 };

		if (cases[i].error == NULL) {
			CHECK_CODE(id_parse(cases[i].text, arena, &id, &err), CODE_OK);
			CHECK_STR(id.text, cases[i].text);
			CHECK(id.text != cases[i].text);
			CHECK_STR(arena_printf(arena, "spiffe://%s%s", id.td, id.path), id.text);
		} else {
			CHECK_CODE(id_parse(cases[i].text, arena, &id, &err), CODE_INVALID_ARGUMENT);
			CHECK_STR(err.text, cases[i].error);
			CHECK_STR(id.td, "untouched");
		}
	}
}

TEST(ids_come_from_two_fields)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct spiffe_id id = { 0 };
	struct err err = { 0 };

	CHECK_CODE(id_from_parts("example.org", "/a/b", arena, &id, &err), CODE_OK);
	CHECK_STR(id.td, "example.org");
	CHECK_STR(id.path, "/a/b");
	CHECK_STR(id.text, "spiffe://example.org/a/b");
	CHECK_CODE(id_from_parts("example.org", "", arena, &id, &err), CODE_OK);
	CHECK_STR(id.text, "spiffe://example.org");
	CHECK_STR(id.path, "");
	CHECK_CODE(id_from_parts("spiffe://other.org/lost", "/kept", arena, &id, &err), CODE_OK);
	CHECK_STR(id.text, "spiffe://other.org/kept");

	CHECK_CODE(id_from_parts("", "/a", arena, &id, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "trust domain is missing");
	CHECK_CODE(id_from_parts("Example", "/a", arena, &id, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, TD_CHARS);
	CHECK_CODE(id_from_parts("example.org", "a", arena, &id, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "path must have a leading slash");
	CHECK_CODE(id_from_parts("example.org", "/", arena, &id, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "path cannot have a trailing slash");
	CHECK_STR(id.text, "spiffe://other.org/kept");
}

TEST(a_trust_domain_is_a_name_or_an_id)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct err err = { 0 };
	const char *td = NULL;

	CHECK_CODE(id_parse_td("example.org", arena, &td, &err), CODE_OK);
	CHECK_STR(td, "example.org");
	CHECK_CODE(id_parse_td("spiffe://a.b/c", arena, &td, &err), CODE_OK);
	CHECK_STR(td, "a.b");
	CHECK_CODE(id_parse_td("", arena, &td, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "trust domain is missing");
	CHECK_CODE(id_parse_td("https://a.b", arena, &td, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "scheme is missing or invalid");
	CHECK_CODE(id_parse_td("a.b/c", arena, &td, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, TD_CHARS);
	CHECK_CODE(id_parse_td("spiffe://a.b//", arena, &td, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "path cannot contain empty segments");
	CHECK_STR(td, "a.b");
}

static const char *refusal(enum code (*check)(const struct spiffe_id *, const char *, struct err *), const char *text)
{
	static struct err err;
	OWN_STRUCT(arena) arena = arena_new();
	struct spiffe_id id;

	err.text[0] = '\0';
	CHECK_CODE(id_parse(text, arena, &id, &err), CODE_OK);
	if (check(&id, "td", &err) == CODE_OK)
		return NULL;
	CHECK_NUM(err.code, CODE_INVALID_ARGUMENT);
	return err.text;
}

TEST(members_agents_and_workloads_are_told_apart)
{
	CHECK(refusal(id_check_member, "spiffe://td/a") == NULL);
	CHECK(refusal(id_check_member, "spiffe://td/spire/server") == NULL);
	CHECK_STR(refusal(id_check_member, "spiffe://td"),
		  "\"spiffe://td\" is not a member of trust domain \"td\"; path is empty");
	CHECK_STR(refusal(id_check_member, "spiffe://tdx/a"),
		  "\"spiffe://tdx/a\" is not a member of trust domain \"td\"");

	CHECK(refusal(id_check_agent, "spiffe://td/spire/agent/x") == NULL);
	CHECK_STR(refusal(id_check_agent, "spiffe://t/spire/agent/x"),
		  "\"spiffe://t/spire/agent/x\" is not a member of trust domain \"td\"");
	CHECK_STR(refusal(id_check_agent, "spiffe://td"),
		  "\"spiffe://td\" is not an agent in trust domain \"td\"; path is empty");
	CHECK_STR(refusal(id_check_agent, "spiffe://td/spire/agent"),
		  "\"spiffe://td/spire/agent\" is not an agent in trust domain \"td\"; path is not in the agent "
		  "namespace");

	CHECK(refusal(id_check_workload, "spiffe://td/spirex") == NULL);
	CHECK_STR(refusal(id_check_workload, "spiffe://t/a"),
		  "\"spiffe://t/a\" is not a member of trust domain \"td\"");
	CHECK_STR(refusal(id_check_workload, "spiffe://td"),
		  "\"spiffe://td\" is not a workload in trust domain \"td\"; path is empty");
	CHECK_STR(refusal(id_check_workload, "spiffe://td/spire"),
		  "\"spiffe://td/spire\" is not a workload in trust domain \"td\"; path is in the reserved namespace");
	CHECK_STR(refusal(id_check_workload, "spiffe://td/spire/server"),
		  "\"spiffe://td/spire/server\" is not a workload in trust domain \"td\"; path is in the reserved "
		  "namespace");
}

TEST(reserved_paths)
{
	CHECK(id_path_is_reserved("/spire"));
	CHECK(id_path_is_reserved("/spire/x"));
	CHECK(!id_path_is_reserved("/spires"));
	CHECK(!id_path_is_reserved("/spir"));
	CHECK(!id_path_is_reserved("/a/spire"));
	CHECK(!id_path_is_reserved(""));
}

TEST(segments)
{
	struct err err = { 0 };

	CHECK_CODE(id_check_segment("Az09-._", &err), CODE_OK);
	CHECK_CODE(id_check_segment("...", &err), CODE_OK);
	CHECK_CODE(id_check_segment("", &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "path cannot contain empty segments");
	CHECK_CODE(id_check_segment("..", &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "path cannot contain dot segments");
	CHECK_CODE(id_check_segment("a/b", &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, PATH_CHARS);
}

/* --- DNS names
 * ---------------------------------------------------------------------------------------------------------- */

#define A63 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define N253 A63 "." A63 "." A63 ".bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static void check_names(const struct want *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct err err = { 0 };

		CHECK_CODE(dns_check(cases[i].text, &err), cases[i].error == NULL ? CODE_OK : CODE_INVALID_ARGUMENT);
		CHECK_STR(err.text, cases[i].error != NULL ? cases[i].error : "");
	}
}

TEST(dns_names_in_ascii)
{
	static const struct want cases[] = {
		{ "example.org", NULL },
		{ "a", NULL },
		{ "A.Example", NULL },
		{ "a_b.c", NULL },
		{ "1.2.3.4", NULL },
		{ "a b", NULL },
		{ " a ", NULL }, /* the check overlooks blanks around it */
		{ "*.a", NULL },
		{ A63, NULL },
		{ N253, NULL },
		{ "a-b.a--b", NULL },
		{ "", "empty or only whitespace" },
		{ " \t", "empty or only whitespace" },
		{ "*.", "empty or only whitespace" },
		{ "a.", "domain ends with dot" },
		{ ".", "domain ends with dot" },
		{ "..", "domain ends with dot" },
		{ "*.a.", "domain ends with dot" },
		{ "*", "wildcard must be first label" },
		{ "*a.b", "wildcard must be first label" },
		{ "a.*.b", "wildcard must be first label" },
		{ "*.*", "too many wildcards" },
		{ "**.a", "too many wildcards" },
		{ "\xc3\xbcmlaut.org", "name must be ascii" },
		{ "*.*.\xc3\xbc", "name must be ascii" },
		{ "a..b", IDNA "\"a..b\"" },
		{ ".a", IDNA "\".a\"" },
		{ "*..a", IDNA "\".a\"" },
		{ "a.-b.c", IDNA "\"-b\"" },
		{ "a-.b", IDNA "\"a-\"" },
		{ "-", IDNA "\"-\"" },
		{ "ab--c.d", IDNA "\"ab--c\"" },
		{ "XN--4ca.d", IDNA "\"XN--4ca\"" },
		{ "a.b" A63, IDNA "\"b" A63 "\"" },
		{ N253 "b", IDNA "\"" N253 "b\"" },
		{ "-\"\n", IDNA "\"-\\\"\"" },
	};

	check_names(cases, sizeof cases / sizeof cases[0]);
}

TEST(dns_names_with_encoded_labels)
{
	static const struct want cases[] = {
		{ "xn--mlaut-jva.example.org", NULL },     /* ümlaut */
		{ "xn--strae-oqa", NULL },                 /* straße */
		{ "xn--wgbl6a.xn--hgbk6aj7f53bba", NULL }, /* two Arabic labels */
		{ "*.xn--fsqu00a.xn--0zwm56d", NULL },     /* Chinese */
		{ "xn--i-7iq.example", NULL },             /* a heart: Go takes symbols */
		{ "xn--e28h.example", NULL },              /* as of a face */
		{ "xn--tda", NULL },                       /* u with two dots */
		{ "xn--zca", NULL },                       /* sharp s */
		{ "xn--11b6iy14e", NULL },                 /* a joiner behind a virama */
		{ "xn--ngba799q", NULL },                  /* a non-joiner between letters that join */
		{ "a1.xn--4db40a", NULL },                 /* from right to left */
		{ "xn--1-zhc", NULL },
		{ "xn---.a", IDNA "\"-\"" }, /* not Punycode */
		{ "a.xn--\x01", IDNA "\"\\x01\"" },
		{ "xn--99999999", IDNA "\"99999999\"" },
		{ "xn--", IDNA "\"\"" },
		{ "xn--a-\x7f", IDNA "\"a-\\x7f\"" },
		{ "xn--abc-",
		  "input domain name \"xn--abc-\" does not match idna output \"abc\": label mismatch after idna" },
		{ "xn--mlaut-JVA.b",
		  "input domain name \"xn--mlaut-JVA.b\" does not match idna output \"xn--mlaut-jva.b\": label "
		  "mismatch after idna" },
		{ "xn--Mlaut-jva", IDNA "\"\xc3\xbcMlaut\"" }, /* capitals */
		{ "xn--wca", IDNA "\"\xc3\x9c\"" },
		{ "xn--a-vbb", IDNA "\"a\xcc\x80\"" }, /* not composed */
		{ "xn--a-ubb", IDNA "\"\xcc\x80"
				    "a\"" },            /* begins with a mark */
		{ "xn--r6j", IDNA "\"\xe3\x80\x82\"" }, /* a full stop */
		{ "xn--1ch", IDNA "\"\xe2\x89\xa0\"" }, /* holds a '=' */
		{ "xn--ab-m1t", IDNA "\"a\\u200db\"" }, /* joiners that join nothing */
		{ "xn--a-sgn", IDNA "\"a\\u200c\"" },
		{ "1a.xn--4db40a", IDNA "\"1a.xn--4db40a\"" }, /* a digit first beside right to left */
		{ "xn--a-zhc", IDNA "\"xn--a-zhc\"" },         /* both directions in one label */
		{ "xn--1-zhc05b", IDNA "\"xn--1-zhc05b\"" },   /* both kinds of digits */
	};

	check_names(cases, sizeof cases / sizeof cases[0]);
}

TEST(a_wildcard_covers_one_label)
{
	const char *names[] = { "a.org", "*.b.org", "c.b.org", "*.c.b.org" };
	const char *odd[] = { "x\"y.b.org", "*.b.org" };
	struct err err = { 0 };

	CHECK_CODE(dns_check_overlap(names, 2, &err), CODE_OK);
	CHECK_CODE(dns_check_overlap(names, 0, &err), CODE_OK);
	CHECK_CODE(dns_check_overlap(names, 3, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "name \"c.b.org\" overlaps with an existing wildcard name in the list: wildcard overlap");
	names[2] = "d.c.org"; /* neither deeper nor shallower */
	CHECK_CODE(dns_check_overlap(names, 4, &err), CODE_OK);
	CHECK_CODE(dns_check_overlap(odd, 2, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text,
		  "name \"x\\\"y.b.org\" overlaps with an existing wildcard name in the list: wildcard overlap");
}

/* --- Punycode
 * ----------------------------------------------------------------------------------------------------------- */

TEST(punycode_decodes_the_samples_of_its_rfc)
{
	static const uint32_t why[] = { 0x4ED6, 0x4EEC, 0x4E3A, 0x4EC0, 0x4E48, 0x4E0D, 0x8BF4, 0x4E2D, 0x6587 };
	static const uint32_t pro[] = { 0x0050, 0x0072, 0x006F, 0x010D, 0x0070, 0x0072, 0x006F, 0x0073,
					0x0074, 0x011B, 0x006E, 0x0065, 0x006D, 0x006C, 0x0075, 0x0076,
					0x00ED, 0x010D, 0x0065, 0x0073, 0x006B, 0x0079 };
	const char *w = "ihqwcrb4cv8a8dqg056pqjye", *p = "Proprostnemluvesky-uyb24dma41a";
	uint32_t runes[64];

	CHECK_NUM(punycode_decode(w, strlen(w), runes), 9);
	CHECK_BYTES(runes, why, sizeof why);
	CHECK_NUM(punycode_decode(p, strlen(p), runes), 22);
	CHECK_BYTES(runes, pro, sizeof pro);
}

TEST(punycode_of_an_enemy_ends)
{
	static char text[8192];
	static uint32_t runes[8192];

	memset(text, 'a', sizeof text); /* each 'a' one more U+0080: stopped at the limit */
	CHECK_NUM(punycode_decode(text, sizeof text, runes), -1);
	CHECK_NUM(punycode_decode(text, 1000, runes), 1000);
	memset(text, '9', sizeof text);
	CHECK_NUM(punycode_decode(text, sizeof text, runes), -1);
	text[sizeof text - 1] = '-'; /* plain, whatever its length */
	CHECK_NUM(punycode_decode(text, sizeof text, runes), sizeof text - 1);
	CHECK_NUM(punycode_decode("", 0, runes), 0);
}
