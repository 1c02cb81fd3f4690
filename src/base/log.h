/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* The log, in the form of SPIRE's logrus: a constant message and pairs, sorted by key; text (key=value) or JSON; contract
 * server-operation.md 7.4. Thread-safe; one write(2) a line. No key, token or CSR goes in. */

enum log_level { LOG_PANIC = 1, LOG_FATAL, LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };

enum log_kind { LOG_KIND_END, LOG_KIND_TEXT, LOG_KIND_NUMBER, LOG_KIND_BOOL, LOG_KIND_TIME, LOG_KIND_LIST, LOG_KIND_CODE };

struct log_pair {
	enum log_kind kind;
	const char *key;
	const char *text;
	int64_t number;
};

#define KV(key, text) { LOG_KIND_TEXT, (key), (text), 0 }          /* a NULL text leaves the pair out */
#define KV_NUM(key, number) { LOG_KIND_NUMBER, (key), 0, (number) }
#define KV_BOOL(key, flag) { LOG_KIND_BOOL, (key), 0, (flag) }
#define KV_TIME(key, unix_s) { LOG_KIND_TIME, (key), 0, (unix_s) } /* logrus prints Go's time.String() in text, RFC 3339 in JSON */
#define KV_LIST(key, json) { LOG_KIND_LIST, (key), (json), 0 }     /* a JSON text, as it is in JSON, logrus' [a b] in text */
#define KV_CODE(key, code) { LOG_KIND_CODE, (key), 0, (code) }     /* a gRPC code: its name in text, its number in JSON */

void log_write(enum log_level level, const char *msg, const struct log_pair *pairs);

#define LOG_(level, msg, ...) log_write((level), (msg), (const struct log_pair[]){ __VA_ARGS__ __VA_OPT__(, ) { 0 } })
#define log_error(msg, ...) LOG_(LOG_ERROR, msg, __VA_ARGS__)
#define log_warn(msg, ...) LOG_(LOG_WARN, msg, __VA_ARGS__)
#define log_info(msg, ...) LOG_(LOG_INFO, msg, __VA_ARGS__)
#define log_debug(msg, ...) LOG_(LOG_DEBUG, msg, __VA_ARGS__)

/* Says why at FATAL level and ends the process at once, exit status 1: failed disks, broken invariants. */
#define log_fatal(msg, ...)                                                                                            \
	do {                                                                                                           \
		LOG_(LOG_FATAL, msg, __VA_ARGS__);                                                                     \
		log_end();                                                                                             \
	} while (0)
void log_end(void) __attribute__((noreturn));

struct log_options {
	enum log_level level;
	const char *format; /* "" (text, seconds), "text" (text, nanoseconds), "json" */
	const char *file;   /* NULL: standard output. Appended to, made with 0640 */
};

/* Until log_open: standard output, text, level INFO. log_open makes the process ignore SIGPIPE: a reader of the log who goes away
 * must not end the server. */
enum code log_open(const struct log_options *options, struct err *err);
enum code log_reopen(struct err *err); /* the same file by name again (SIGUSR2); on error the old handle stays */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
bool log_enabled(enum log_level level);

/* panic fatal error warn|warning info debug trace, any case. */
bool log_level_parse(const char *text, enum log_level *out);
const char *log_level_name(enum log_level level); /* "warning" for LOG_WARN */

#endif
