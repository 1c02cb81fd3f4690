/* SPDX-License-Identifier: Apache-2.0 */
/* The texts are what `spire-server agent count -expiresBefore` 1.13.3 answers. */
#include "base/gotime.h"

#include "lib/test.h"

#include <stdlib.h>
#include <time.h>

TEST(times_are_read)
{
	static const struct {
		const char *text;
		int64_t unix_s;
	} cases[] = {
		{ "1970-01-01 00:00:00 +0000 +00", 0 },
		{ "2026-02-01 12:34:56 +0000 +00", 1769949296 },
		{ "2026-02-01 12:34:56 -0730 -07", 1769949296 + 7 * 3600 },
		{ "2026-02-01 12:34:56 +0000 +01", 1769949296 - 3600 },
		{ "2026-02-01 12:34:56.789 +0000 +00", 1769949296 },
		{ "2026-02-01 12:34:56,1234567890123 +0000 +00", 1769949296 },
		{ "2026-02-01   12:34:56 +0000  +00", 1769949296 },
		{ "2026-02-01 2:34:56 +0000 +00", 1769949296 - 36000 },
		{ "2024-02-29 00:00:00 +0000 +00", 1709164800 },
		{ "0000-01-01 00:00:00 +0000 +00", -62167219200 },
		{ "9999-12-31 23:59:59 -0000 -00", 253402300799 },
	};
	struct err err = { 0 };
	int64_t unix_s;

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		CHECK_CODE(go_parse_time(cases[i].text, &unix_s, &err), CODE_OK);
		CHECK(unix_s == cases[i].unix_s);
	}
}

#define AS " as \"2006-01-02 15:04:05 -0700 -07\": cannot parse "

TEST(what_is_no_time_is_named)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{ "", "\"\"" AS "\"\" as \"2006\"" },
		{ "tomorrow", "\"tomorrow\"" AS "\"tomorrow\" as \"2006\"" },
		{ "2026", "\"2026\"" AS "\"\" as \"-\"" },
		{ "26-02-01 00:00:00 +0000 +00",
		  "\"26-02-01 00:00:00 +0000 +00\"" AS "\"26-02-01 00:00:00 +0000 +00\" as \"2006\"" },
		{ "2026-2-01 00", "\"2026-2-01 00\"" AS "\"2-01 00\" as \"01\"" },
		{ "2026-13-01 00:00:00 +0000 +00", "\"2026-13-01 00:00:00 +0000 +00\": month out of range" },
		{ "2026-00-01", "\"2026-00-01\": month out of range" },
		{ "2027-02-29 00:00:00 +0000 +00", "\"2027-02-29 00:00:00 +0000 +00\": day out of range" },
		{ "2026-02-00 00:00:00 +0000 +00", "\"2026-02-00 00:00:00 +0000 +00\": day out of range" },
		{ "2026-02-01 24:00:00", "\"2026-02-01 24:00:00\": hour out of range" },
		{ "2026-02-01 00:60:00", "\"2026-02-01 00:60:00\": minute out of range" },
		{ "2026-02-01 00:00:60", "\"2026-02-01 00:00:60\": second out of range" },
		{ "2026-02-01T00:00:00", "\"2026-02-01T00:00:00\"" AS "\"T00:00:00\" as \" \"" },
		{ "2026-02-01 00:00:00", "\"2026-02-01 00:00:00\"" AS "\"\" as \"-0700\"" },
		{ "2026-02-01 00:00:00 UTC", "\"2026-02-01 00:00:00 UTC\"" AS "\"UTC\" as \"-0700\"" },
		{ "2026-02-01 00:00:00 +0000", "\"2026-02-01 00:00:00 +0000\"" AS "\"\" as \"-07\"" },
		{ "2026-02-01 00:00:00 +2500 +25",
		  "\"2026-02-01 00:00:00 +2500 +25\": time zone offset hour out of range" },
		{ "2026-02-01 00:00:00 +0061 +00",
		  "\"2026-02-01 00:00:00 +0061 +00\": time zone offset minute out of range" },
		{ "2026-02-01 00:00:00 +0000 +00 x", "\"2026-02-01 00:00:00 +0000 +00 x\": extra text: \" x\"" },
		{ "2026-02-01 00:00:00 +0000 \xc3\xa9",
		  "\"2026-02-01 00:00:00 +0000 \\xc3\\xa9\"" AS "\"\\xc3\\xa9\" as \"-07\"" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct err err = { 0 };
		int64_t unix_s;
		char want[512];

		snprintf(want, sizeof want, "parsing time %s", cases[i].why);
		CHECK_CODE(go_parse_time(cases[i].text, &unix_s, &err), CODE_INVALID_ARGUMENT);
		CHECK_STR(err.text, want);
	}
}

TEST(times_are_written)
{
	char out[GO_TIME_MAX];

	CHECK_STR(go_time_utc(0, out), "1970-01-01 00:00:00 +0000 UTC");
	CHECK_STR(go_time_utc(-5, out), "1969-12-31 23:59:55 +0000 UTC");
	CHECK_STR(go_time_utc(4102444800, out), "2100-01-01 00:00:00 +0000 UTC");
	CHECK_STR(go_time_utc(-62135596800, out), "0001-01-01 00:00:00 +0000 UTC");
	CHECK_STR(go_time_rfc3339(1769949296, out), "2026-02-01T12:34:56Z");
	CHECK_STR(go_time_utc(INT64_MAX, out), "9223372036854775807 s since 1970");
	CHECK_STR(go_time_local(INT64_MIN, out), "-9223372036854775808 s since 1970");
}

TEST(local_times_name_their_zone)
{
	char out[GO_TIME_MAX];

	setenv("TZ", "EST5EDT,M3.2.0,M11.1.0", 1);
	CHECK_STR(go_time_local(1769949296, out), "2026-02-01 07:34:56 -0500 EST");
	CHECK_STR(go_time_local(1785587696, out), "2026-08-01 08:34:56 -0400 EDT");
	setenv("TZ", "<-03>3", 1);
	CHECK_STR(go_time_local(1769949296, out), "2026-02-01 09:34:56 -0300 -03");
	setenv("TZ", "", 1);
	CHECK_STR(go_time_local(1769949296, out), "2026-02-01 12:34:56 +0000 UTC");
	unsetenv("TZ");
}
