/* SPDX-License-Identifier: Apache-2.0 */
#include "base/url.h"

#include "lib/test.h"

/* What comes back for a URL: its text in Go's form, or the error. */
static const char *both_ways(const char *text, struct arena *arena)
{
	struct err err = { 0 };
	struct url url;

	if (url_parse(text, arena, &url, &err) != CODE_OK)
		return arena_strdup(arena, err.text);
	return url_text(&url, arena);
}

TEST(url_comes_back_in_gos_form)
{
	static const char *const cases[][2] = {
		{ "https://a.test", "https://a.test" },
		{ "HTTPS://A.test", "https://A.test" },
		{ "https://b.test/x?y=1#z", "https://b.test/x?y=1#z" },
		{ "https://a.test:8443/x y", "https://a.test:8443/x%20y" },
		{ "https://[::1]:443/x", "https://[::1]:443/x" },
		{ "https://:443", "https://:443" },
		{ "https://a.test?x=%zz&y#f%20g", "https://a.test?x=%zz&y#f%20g" },
		{ "https://a.test/\xc3\xbc", "https://a.test/%C3%BC" },
		{ "https://a.test/a?b?c##d", "https://a.test/a?b?c#%23d" },
		{ "https://a.test/(a)'b'", "https://a.test/(a)'b'" },
		{ "https://a.test/(a) %41", "https://a.test/%28a%29%20A" },
		{ "https://a.test/a%00 ", "https://a.test/a%00%20" },
		{ "https:a.test", "https:a.test" },
		{ "https://a.test?", "https://a.test?" },
		{ "a b", "a%20b" },
		{ "", "" },
	};
	OWN_STRUCT(arena) arena = arena_new();

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		CHECK_STR(both_ways(cases[i][0], arena), cases[i][1]);
}

TEST(url_that_is_none_says_why)
{
	static const char *const cases[][2] = {
		{ "https://host:abc", "parse \"https://host:abc\": invalid port \":abc\" after host" },
		{ "https://[::1", "parse \"https://[::1\": missing ']' in host" },
		{ "https://[::1]x", "parse \"https://[::1]x\": invalid port \"x\" after host" },
		{ "https://a.test/%zz", "parse \"https://a.test/%zz\": invalid URL escape \"%zz\"" },
		{ "https://a.test/%4", "parse \"https://a.test/%4\": invalid URL escape \"%4\"" },
		{ "https://a.test#f%zz", "parse \"https://a.test#f%zz\": invalid URL escape \"%zz\"" },
		{ "https://a%41.test/", "parse \"https://a%41.test/\": invalid URL escape \"%41\"" },
		{ "https:// a", "parse \"https:// a\": invalid character \" \" in host name" },
		{ "://a", "parse \"://a\": missing protocol scheme" },
		{ "https://a.test\x01", "parse \"https://a.test\\x01\": net/url: invalid control character in URL" },
		{ "1https://x", "parse \"1https://x\": first path segment in URL cannot contain colon" },
		{ "https://a b@c", "parse \"https://a b@c\": net/url: invalid userinfo" },
	};
	OWN_STRUCT(arena) arena = arena_new();

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		CHECK_STR(both_ways(cases[i][0], arena), cases[i][1]);
}

TEST(url_parts)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct err err = { 0 };
	struct url url;

	CHECK_CODE(url_parse("https://u:p@h:1/p?q#f", arena, &url, &err), CODE_OK);
	CHECK(url.has_user && url.has_authority && url.has_query);
	CHECK_STR(url.scheme, "https");
	CHECK_STR(url.host, "h:1");
	CHECK_STR(url.path, "/p");
	CHECK_STR(url.query, "q");
	CHECK_STR(url.fragment, "f");
	CHECK_CODE(url_parse("https://@h", arena, &url, &err), CODE_OK);
	CHECK(url.has_user);
	CHECK_CODE(url_parse("https:h", arena, &url, &err), CODE_OK);
	CHECK_STR(url.host, "");
	CHECK_STR(url.opaque, "h");
}
