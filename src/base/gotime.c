/* SPDX-License-Identifier: Apache-2.0 */
/* The layout is a table of elements, each with the text that stands before it; the oddities are Go's: an hour of one
 * digit and a fraction behind the seconds are fine, several blanks count as one, the last of two zones wins. */
#include "base/gotime.h"

#include "base/buf.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LAYOUT "2006-01-02 15:04:05 -0700 -07"

enum part { YEAR, MONTH, DAY, HOUR, MINUTE, SECOND, ZONE, SHORT_ZONE };

static const struct {
	const char *before, *name;
	enum part part;
} elements[] = {
	{ "", "2006", YEAR },  { "-", "01", MONTH },  { "-", "02", DAY },     { " ", "15", HOUR },
	{ ":", "04", MINUTE }, { ":", "05", SECOND }, { " ", "-0700", ZONE }, { " ", "-07", SHORT_ZONE },
};

struct parts {
	int year, month, day, hour, minute, second, offset_s;
};

static bool digit(char c)
{
	return c >= '0' && c <= '9';
}

/* `n` digits at *at. */
static bool number(const char **at, int n, int *out)
{
	int value = 0;

	for (int i = 0; i < n; i++) {
		if (!digit((*at)[i]))
			return false;
		value = value * 10 + ((*at)[i] - '0');
	}
	*at += n;
	*out = value;
	return true;
}

/* "+hhmm" or "+hh"; *range names what is too large. */
static bool zone(const char **at, bool minutes, int *offset_s, const char **range)
{
	const char *digits = *at + 1;
	int hour, minute = 0;

	if ((**at != '+' && **at != '-') || !number(&digits, 2, &hour))
		return false;
	if (minutes && !number(&digits, 2, &minute))
		return false;
	if (hour > 24)
		*range = "time zone offset hour";
	else if (minute > 60)
		*range = "time zone offset minute";
	*offset_s = (hour * 60 + minute) * 60 * (**at == '-' ? -1 : 1);
	*at = digits;
	return true;
}

/* A fraction is read past, whatever its length. */
static void fraction(const char **at)
{
	if (((*at)[0] != '.' && (*at)[0] != ',') || !digit((*at)[1]))
		return;
	for ((*at)++; digit(**at); (*at)++)
		;
}

static bool element(const char **at, enum part part, struct parts *out, const char **range)
{
	switch (part) {
	case YEAR:
		return number(at, 4, &out->year);
	case MONTH:
		if (!number(at, 2, &out->month))
			return false;
		if (out->month < 1 || out->month > 12)
			*range = "month";
		return true;
	case DAY:
		return number(at, 2, &out->day);
	case HOUR:
		if (!number(at, digit((*at)[0]) && !digit((*at)[1]) ? 1 : 2, &out->hour))
			return false;
		if (out->hour > 23)
			*range = "hour";
		return true;
	case MINUTE:
		if (!number(at, 2, &out->minute))
			return false;
		if (out->minute > 59)
			*range = "minute";
		return true;
	case SECOND:
		if (!number(at, 2, &out->second))
			return false;
		if (out->second > 59)
			*range = "second";
		else
			fraction(at);
		return true;
	default:
		return zone(at, part == ZONE, &out->offset_s, range);
	}
}

static int days_in(int year, int month)
{
	static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

	return days[month - 1] + (month == 2 && leap ? 1 : 0);
}

/* time's own way of quoting: bytes that are not printable ASCII as \xNN. */
static void quote(struct buf *out, const char *text)
{
	buf_put(out, '"');
	for (const char *at = text; *at != '\0'; at++) {
		if (*at == '"' || *at == '\\')
			buf_printf(out, "\\%c", *at);
		else if (*at < ' ' || *at > '~')
			buf_printf(out, "\\x%02x", (uint8_t)*at);
		else
			buf_put(out, (uint8_t)*at);
	}
	buf_put(out, '"');
}

static enum code cannot_parse(const char *whole, const char *rest, const char *name, struct err *err)
{
	OWN_BUF text = { 0 };

	buf_puts(&text, "parsing time ");
	quote(&text, whole);
	buf_puts(&text, " as \"" LAYOUT "\": cannot parse ");
	quote(&text, rest);
	buf_printf(&text, " as \"%s\"", name);
	return err_set(err, CODE_INVALID_ARGUMENT, "%s", buf_text(&text));
}

static enum code refused(const char *whole, const char *what, const char *rest, struct err *err)
{
	OWN_BUF text = { 0 };

	buf_puts(&text, "parsing time ");
	quote(&text, whole);
	buf_printf(&text, ": %s", what);
	if (rest != NULL)
		quote(&text, rest);
	return err_set(err, CODE_INVALID_ARGUMENT, "%s", buf_text(&text));
}

static bool skip(const char **at, const char *before)
{
	if (*before == ' ') {
		if (**at != '\0' && **at != ' ')
			return false;
		while (**at == ' ')
			(*at)++;
		return true;
	}
	if (*before == '\0')
		return true;
	if (**at != *before)
		return false;
	(*at)++;
	return true;
}

enum code go_parse_time(const char *text, int64_t *unix_s, struct err *err)
{
	struct parts parts = { 0 };
	const char *at = text;
	struct tm tm;

	for (size_t i = 0; i < sizeof elements / sizeof elements[0]; i++) {
		const char *range = NULL, *from;
		char what[48];

		if (!skip(&at, elements[i].before))
			return cannot_parse(text, at, elements[i].before, err);
		from = at;
		if (!element(&at, elements[i].part, &parts, &range))
			return cannot_parse(text, from, elements[i].name, err);
		if (range != NULL) {
			snprintf(what, sizeof what, "%s out of range", range);
			return refused(text, what, NULL, err);
		}
	}
	if (*at != '\0')
		return refused(text, "extra text: ", at, err);
	if (parts.day < 1 || parts.day > days_in(parts.year, parts.month))
		return refused(text, "day out of range", NULL, err);
	tm = (struct tm){ .tm_year = parts.year - 1900,
			  .tm_mon = parts.month - 1,
			  .tm_mday = parts.day,
			  .tm_hour = parts.hour,
			  .tm_min = parts.minute,
			  .tm_sec = parts.second };
	*unix_s = (int64_t)timegm(&tm) - parts.offset_s;
	return CODE_OK;
}

/* A moment beyond what a calendar of 32-bit years holds is shown as its number. */
static const char *format(int64_t unix_s, const struct tm *tm, const char *form, char out[GO_TIME_MAX])
{
	if (tm == NULL || strftime(out, GO_TIME_MAX, form, tm) == 0)
		snprintf(out, GO_TIME_MAX, "%lld s since 1970", (long long)unix_s);
	return out;
}

/* %Y is not padded for years before 1000, Go pads it to four digits. */
const char *go_time_utc(int64_t unix_s, char out[GO_TIME_MAX])
{
	time_t when = (time_t)unix_s;
	struct tm tm;

	return format(unix_s, gmtime_r(&when, &tm), "%04Y-%m-%d %H:%M:%S +0000 UTC", out);
}

const char *go_time_local(int64_t unix_s, char out[GO_TIME_MAX])
{
	time_t when = (time_t)unix_s;
	struct tm tm;

	tzset();
	return format(unix_s, localtime_r(&when, &tm), "%04Y-%m-%d %H:%M:%S %z %Z", out);
}

const char *go_time_rfc3339(int64_t unix_s, char out[GO_TIME_MAX])
{
	time_t when = (time_t)unix_s;
	struct tm tm;

	return format(unix_s, gmtime_r(&when, &tm), "%04Y-%m-%dT%H:%M:%SZ", out);
}
