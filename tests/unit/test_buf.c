/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers, base64, hexadecimal digits, UTF-8. */
#include "lib/test.h"

#include "base/buf.h"
#include "base/rand.h"
#include "base/utf8.h"

TEST(bytes_are_added_and_dropped)
{
	OWN_BUF b = { 0 };

	CHECK_STR(buf_text(&b), "");
	CHECK_NUM(b.len, 0);
	buf_append(&b, NULL, 0);
	buf_append(&b, "abc", 3);
	buf_put(&b, 'd');
	buf_puts(&b, "ef");
	buf_printf(&b, "-%d-%s", 12, "x");
	CHECK_STR(buf_text(&b), "abcdef-12-x");
	CHECK_NUM(b.len, 11);
	buf_consume(&b, 0);
	buf_consume(&b, 4);
	CHECK_STR(buf_text(&b), "ef-12-x");
	buf_consume(&b, 100);
	CHECK_NUM(b.len, 0);
	CHECK_STR(buf_text(&b), "");
	buf_done(&b);
	CHECK(b.data == NULL && b.cap == 0);
}

TEST(buffers_grow)
{
	OWN_BUF b = { 0 };
	static char text[5000];

	for (int i = 0; i < 100000; i++)
		buf_put(&b, (uint8_t)i);
	for (int i = 0; i < 100000; i++)
		if (b.data[i] != (uint8_t)i)
			fail_msg("byte %d", i);
	b.len = 0;
	memset(text, 'y', sizeof text - 1);
	for (size_t room = 0; room < 70; room++) { /* a text that just fits, and just does not */
		OWN_BUF c = { 0 };

		buf_reserve(&c, 4000 + room);
		buf_append(&c, text, 4000);
		buf_printf(&c, "%.35s|%s", text, "end");
		CHECK_NUM(c.len, 4039);
		CHECK_STR(buf_text(&c) + 4035, "|end");
	}
	buf_printf(&b, "%s", text);
	CHECK_STR(buf_text(&b), text);
}

TEST(base64_of_the_rfc)
{
	static const char *const plain[] = { "", "f", "fo", "foo", "foob", "fooba", "foobar" };
	static const char *const coded[] = { "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy" };

	for (size_t i = 0; i < 7; i++) {
		OWN_BUF std = { 0 }, url = { 0 }, back = { 0 };

		buf_base64(&std, plain[i], i, 0);
		CHECK_STR(buf_text(&std), coded[i]);
		buf_base64(&url, plain[i], i, 1);
		CHECK_NUM(url.len, strcspn(coded[i], "="));
		CHECK_BYTES(url.data, coded[i], url.len);
		CHECK(buf_unbase64(&back, coded[i], strlen(coded[i]), 0));
		CHECK_STR(buf_text(&back), plain[i]);
		CHECK(buf_unbase64(&back, coded[i], url.len, 1));
		CHECK_NUM(back.len, 2 * i);
	}
}

TEST(base64_of_anything)
{
	for (int round = 0; round < 2000; round++) {
		OWN_BUF text = { 0 }, back = { 0 };
		uint8_t data[64];
		size_t len = rand_u64() % sizeof data;
		int url = round & 1;

		rand_bytes(data, len);
		buf_base64(&text, data, len, url);
		CHECK(strspn(buf_text(&text),
			     url ? "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
				 : "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") == text.len);
		CHECK(buf_unbase64(&back, (const char *)text.data, text.len, url));
		CHECK_NUM(back.len, len);
		CHECK(len == 0 || memcmp(back.data, data, len) == 0);
	}
}

TEST(what_is_not_canonical_base64_is_refused)
{
	static const char *const std[] = { "Z",    "Zg",     "Zg=",  "Zg===", "Zh==",  "Zm9=",  "Zm8=Zg==",  "=",
					   "====", "Zg==\n", "Z g=", "Zm-_",  "Zm9v=", "Zm\0v", "\xc3\xa9==" };
	static const char *const url[] = { "Z", "Zg==", "Zh", "Zm9", "Zm+/", "Zm8=", "Zg\n" };
	OWN_BUF b = { 0 };

	buf_puts(&b, "kept");
	for (size_t i = 0; i < sizeof std / sizeof std[0]; i++) {
		CHECK(!buf_unbase64(&b, std[i], i == 13 ? 4 : strlen(std[i]), 0));
		CHECK_STR(buf_text(&b), "kept");
	}
	for (size_t i = 0; i < sizeof url / sizeof url[0]; i++)
		CHECK(!buf_unbase64(&b, url[i], strlen(url[i]), 1));
	CHECK_STR(buf_text(&b), "kept");
}

TEST(hex_is_lower_case)
{
	OWN_BUF b = { 0 };

	buf_hex(&b, "\x00\x7f\xab\xff", 4);
	CHECK_STR(buf_text(&b), "007fabff");
}

TEST(utf8_is_strict)
{
	static const struct {
		const char *text;
		size_t size;
		uint32_t rune;
	} cases[] = {
		{ "a", 1, 'a' },
		{ "\xc2\x80", 2, 0x80 },
		{ "\xdf\xbf", 2, 0x7ff },
		{ "\xe0\xa0\x80", 3, 0x800 },
		{ "\xed\x9f\xbf", 3, 0xd7ff },
		{ "\xee\x80\x80", 3, 0xe000 },
		{ "\xf4\x8f\xbf\xbf", 4, 0x10ffff },
		{ "\x80", 0, 0 },     /* a continuation first */
		{ "\xc0\x80", 0, 0 }, /* overlong */
		{ "\xc1\xbf", 0, 0 },
		{ "\xe0\x9f\xbf", 0, 0 },
		{ "\xf0\x8f\xbf\xbf", 0, 0 },
		{ "\xed\xa0\x80", 0, 0 },     /* a surrogate */
		{ "\xf4\x90\x80\x80", 0, 0 }, /* too high */
		{ "\xf8\x88\x80\x80\x80", 0, 0 },
		{ "\xc3", 0, 0 }, /* cut */
		{ "\xe2\x82", 0, 0 },
		{ "\xe2\x41\x80", 0, 0 },
		{ "", 0, 0 },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint32_t rune = 0;

		CHECK_NUM(utf8_next(cases[i].text, strlen(cases[i].text), &rune), cases[i].size);
		CHECK_NUM(rune, cases[i].rune);
	}
	CHECK(utf8_valid("a\xc3\xa9\xf0\x9f\x98\x80", 7));
	CHECK(utf8_valid("", 0));
	CHECK(!utf8_valid("a\xc3", 2));
	CHECK(!utf8_valid("\xff", 1));
}
