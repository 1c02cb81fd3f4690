/* SPDX-License-Identifier: Apache-2.0 */
/* The log: lines as logrus' text and JSON formatters write them, since people grep them.
 *
 * A line is made in a buffer of its own and leaves in one write(2) under a lock, so lines never mix. A write that fails
 * is forgotten: there is nobody to tell, and no server ends for its log. The file descriptor keeps its number when the
 * file is opened again (dup3), so a writer never sees a closed one. */
#include "base/log.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/gojson.h"
#include "base/gotext.h"
#include "base/gotime.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

enum form { FORM_SECONDS, FORM_NANOSECONDS, FORM_JSON };
enum { PAIRS_ON_STACK = 32, FULL_PIPE_MS = 1000 };

static pthread_mutex_t write_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int level_now = LOG_INFO;
static _Atomic int form_now = FORM_SECONDS;
static _Atomic int fd_now = STDOUT_FILENO;
static char *file_now; /* under write_lock; NULL: standard output */

static const char *const level_names[] = { NULL, "panic", "fatal", "error", "warning", "info", "debug", "trace" };

/* --- values
 * ------------------------------------------------------------------------------------------------------------- */

/* RFC 3339; with nanoseconds as Go's RFC3339Nano: without the zeros at the end. */
static void put_rfc3339(struct buf *b, int64_t unix_s, int nanos)
{
	time_t when = (time_t)unix_s;
	struct tm tm;
	long minutes;

	if (localtime_r(&when, &tm) == NULL)
		memset(&tm, 0, sizeof tm);
	buf_printf(b, "%04d-%02d-%02dT%02d:%02d:%02d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
		   tm.tm_min, tm.tm_sec);
	if (nanos > 0) {
		buf_printf(b, ".%09d", nanos);
		while (b->data[b->len - 1] == '0')
			b->len--;
	}
	minutes = labs(tm.tm_gmtoff) / 60;
	if (minutes == 0)
		buf_put(b, 'Z');
	else
		buf_printf(b, "%c%02ld:%02ld", tm.tm_gmtoff < 0 ? '-' : '+', minutes / 60, minutes % 60);
}

static void put_text(struct buf *b, const char *text)
{
	if (text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/@^+")] == '\0')
		buf_puts(b, text); /* the empty one too */
	else
		go_quote(b, text);
}

/* A JSON list as Go's fmt prints one: [a b]. What is no JSON is taken as it is. */
static void put_list_text(struct buf *b, const char *list)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_BUF words = { 0 };
	const struct json *parsed;

	if (json_parse(list, strlen(list), arena, &parsed, NULL) != CODE_OK) {
		put_text(b, list);
		return;
	}
	buf_put(&words, '[');
	for (const struct json *item = parsed->first; item != NULL; item = item->next) {
		if (item != parsed->first)
			buf_put(&words, ' ');
		if (item->kind == JSON_STRING || item->kind == JSON_NUMBER)
			buf_puts(&words, item->text);
	}
	buf_put(&words, ']');
	put_text(b, buf_text(&words));
}

static void put_value(struct buf *b, const struct log_pair *pair, bool json)
{
	switch (pair->kind) {
	case LOG_KIND_TEXT:
		(json ? json_put_string : put_text)(b, pair->text);
		break;
	case LOG_KIND_NUMBER:
		buf_printf(b, "%" PRId64, pair->number);
		break;
	case LOG_KIND_BOOL:
		buf_puts(b, pair->number ? "true" : "false");
		break;
	case LOG_KIND_TIME:
		if (json) {
			buf_put(b, '"');
			put_rfc3339(b, pair->number, 0);
			buf_put(b, '"');
		} else {
			char text[GO_TIME_MAX];

			put_text(b, go_time_local(pair->number, text));
		}
		break;
	case LOG_KIND_LIST:
		if (json)
			buf_puts(b, pair->text);
		else
			put_list_text(b, pair->text);
		break;
	case LOG_KIND_CODE:
		if (json)
			buf_printf(b, "%" PRId64, pair->number);
		else
			put_text(b, code_name((int)pair->number));
		break;
	case LOG_KIND_END:
		break;
	}
}

/* --- lines
 * -------------------------------------------------------------------------------------------------------------- */

/* A pair may not take the place of a line's own fields. */
static const char *shown_key(const char *key)
{
	static const char *const own[][2] = { { "time", "fields.time" },
					      { "msg", "fields.msg" },
					      { "level", "fields.level" } };

	for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
		if (strcmp(key, own[i][0]) == 0)
			return own[i][1];
	return key;
}

struct field {
	const char *key;
	const struct log_pair *pair;
};

static int by_key(const void *a, const void *b)
{
	const struct field *x = a, *y = b;
	int order = strcmp(x->key, y->key);

	return order != 0 ? order : (x->pair > y->pair) - (x->pair < y->pair);
}

static bool has_value(const struct log_pair *pair)
{
	return pair->text != NULL || (pair->kind != LOG_KIND_TEXT && pair->kind != LOG_KIND_LIST);
}

/* What is to be shown, sorted by key; of two with one key the later. */
static size_t sort_pairs(const struct log_pair *pairs, struct field *out)
{
	size_t n = 0, kept = 0;

	for (; pairs->kind != LOG_KIND_END; pairs++)
		if (has_value(pairs))
			out[n++] = (struct field){ shown_key(pairs->key), pairs };
	qsort(out, n, sizeof *out, by_key);
	for (size_t i = 0; i < n; i++)
		if (i + 1 == n || strcmp(out[i].key, out[i + 1].key) != 0)
			out[kept++] = out[i];
	return kept;
}

static void put_text_line(struct buf *b, const struct log_pair *own, const struct field *fields, size_t n, bool nanos)
{
	int64_t now = clock_wall_ns();

	buf_puts(b, "time=\"");
	put_rfc3339(b, now / 1000000000, nanos ? (int)(now % 1000000000) : 0);
	buf_printf(b, "\" level=%s msg=", own[0].text);
	put_text(b, own[1].text);
	for (size_t i = 0; i < n; i++) {
		buf_put(b, ' ');
		buf_puts(b, fields[i].key);
		buf_put(b, '=');
		put_value(b, fields[i].pair, false);
	}
	buf_put(b, '\n');
}

static void put_json_field(struct buf *b, const char *key, const struct log_pair *pair)
{
	buf_put(b, b->len == 0 ? '{' : ',');
	json_put_string(b, key);
	buf_put(b, ':');
	put_value(b, pair, true);
}

/* All keys are sorted, the line's own three among the others. */
static void put_json_line(struct buf *b, const struct log_pair *own, const struct field *fields, size_t n)
{
	int64_t now = clock_wall_ns();
	OWN_BUF time = { 0 };
	struct log_pair own_now[3] = { own[0], own[1], KV("time", NULL) };
	size_t o = 0, i = 0;

	put_rfc3339(&time, now / 1000000000, (int)(now % 1000000000));
	own_now[2].text = buf_text(&time);
	while (o < 3 || i < n) {
		if (i == n || (o < 3 && strcmp(own_now[o].key, fields[i].key) < 0)) {
			put_json_field(b, own_now[o].key, &own_now[o]);
			o++;
		} else {
			put_json_field(b, fields[i].key, fields[i].pair);
			i++;
		}
	}
	buf_puts(b, "}\n");
}

/* The whole line if the reader takes it; a full non-blocking pipe gets a second. */
static void write_line(const struct buf *line)
{
	const uint8_t *at = line->data;
	size_t left = line->len;

	pthread_mutex_lock(&write_lock);
	while (left > 0) {
		ssize_t done = write(fd_now, at, left);

		if (done >= 0) {
			at += done;
			left -= (size_t)done;
		} else if (errno == EAGAIN) {
			struct pollfd wait = { .fd = fd_now, .events = POLLOUT };

			if (poll(&wait, 1, FULL_PIPE_MS) <= 0)
				break;
		} else if (errno != EINTR) {
			break;
		}
	}
	pthread_mutex_unlock(&write_lock);
}

void log_write(enum log_level level, const char *msg, const struct log_pair *pairs)
{
	const struct log_pair own[2] = { KV("level", level_names[level]), KV("msg", msg) };
	struct field few[PAIRS_ON_STACK], *sorted = few;
	int form = form_now;
	OWN_BUF line = { 0 };
	size_t n = 0;

	if (!log_enabled(level))
		return;
	while (pairs[n].kind != LOG_KIND_END)
		n++;
	if (n > PAIRS_ON_STACK)
		sorted = xmalloc(n * sizeof *sorted);
	n = sort_pairs(pairs, sorted);
	if (form == FORM_JSON)
		put_json_line(&line, own, sorted, n);
	else
		put_text_line(&line, own, sorted, n, form == FORM_NANOSECONDS);
	if (sorted != few)
		free(sorted);
	write_line(&line);
}

void log_end(void)
{
	_exit(1);
}

/* --- where to, how much
 * ------------------------------------------------------------------------------------------------- */

static enum code open_file(const char *path, int *fd, struct err *err)
{
	*fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
	if (*fd < 0)
		return err_errno(err, CODE_UNKNOWN, errno, "open", path);
	return CODE_OK;
}

/* Lets fd_now lead to what `fd` leads to. */
static void replace_fd(int fd)
{
	int held = fd_now;

	if (held == STDOUT_FILENO) {
		fd_now = fd;
		return;
	}
	while (dup3(fd, held, O_CLOEXEC) < 0 && (errno == EINTR || errno == EBUSY))
		;
	close(fd);
}

enum code log_open(const struct log_options *options, struct err *err)
{
	const char *format = options->format != NULL ? options->format : "";
	int form = FORM_SECONDS, fd = -1;

	if (strcasecmp(format, "json") == 0)
		form = FORM_JSON;
	else if (strcasecmp(format, "text") == 0)
		form = FORM_NANOSECONDS;
	else if (*format != '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "unknown logger format: \"%s\"", format);
	if (options->file != NULL)
		TRY(open_file(options->file, &fd, err));
	signal(SIGPIPE, SIG_IGN);
	pthread_mutex_lock(&write_lock);
	free(file_now);
	file_now = options->file != NULL ? xstrdup(options->file) : NULL;
	if (fd >= 0) {
		replace_fd(fd);
	} else if (fd_now != STDOUT_FILENO) {
		close(fd_now);
		fd_now = STDOUT_FILENO;
	}
	pthread_mutex_unlock(&write_lock);
	form_now = form;
	level_now = options->level;
	return CODE_OK;
}

enum code log_reopen(struct err *err)
{
	enum code rc = CODE_OK;
	int fd;

	pthread_mutex_lock(&write_lock);
	if (file_now != NULL) {
		rc = open_file(file_now, &fd, err);
		if (rc == CODE_OK)
			replace_fd(fd);
	}
	pthread_mutex_unlock(&write_lock);
	return rc;
}

void log_set_level(enum log_level level)
{
	level_now = level;
}

enum log_level log_get_level(void)
{
	return (enum log_level)level_now;
}

bool log_enabled(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&level_now, memory_order_relaxed);
}

bool log_level_parse(const char *text, enum log_level *out)
{
	for (int i = LOG_PANIC; i <= LOG_TRACE; i++) {
		if (strcasecmp(text, level_names[i]) == 0) {
			*out = (enum log_level)i;
			return true;
		}
	}
	if (strcasecmp(text, "warn") == 0) {
		*out = LOG_WARN;
		return true;
	}
	return false;
}

const char *log_level_name(enum log_level level)
{
	return level_names[level];
}
