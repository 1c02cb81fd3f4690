/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMD_FLAGS_H
#define CMD_FLAGS_H

#include "base/arena.h"
#include "base/config.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* The flags of a command, as Go's package flag reads and prints them (contract server-operation.md 2.1).
 *
 *   struct options { struct api_flags api; const char *spiffe_id; struct strings selectors; int64_t ttl; };
 *
 *   static const struct flag flags[] = {
 *           FLAG_STRING(struct options, spiffe_id, "spiffeID", "", "The SPIFFE ID of the entry"),
 *           FLAG_STRINGS(struct options, selectors, "selector", "A colon-delimited type:value selector"),
 *           FLAG_INT(struct options, ttl, "ttl", 600, "Lifetime in seconds"),
 *           FLAG_END,
 *   };
 *   const struct flag_set entry_create_flags = { "entry create", flags };
 *
 * The order of the table does not matter: usage is sorted by name. Rows that commands share are a macro over the
 * member. */

enum flag_type {
	FLAG_TYPE_END,
	FLAG_TYPE_STRING,   /* const char *; never NULL */
	FLAG_TYPE_BOOL,     /* bool: -x, -x=false; takes no argument of its own */
	FLAG_TYPE_INT,      /* int64_t; 0x10, 0b1, 0o7, 1_000 */
	FLAG_TYPE_DURATION, /* int64_t, nanoseconds; Go's text: 1h30m */
	FLAG_TYPE_STRINGS,  /* struct strings (base/config.h): each use adds one */
	FLAG_TYPE_VALUE,    /* whatever `set` writes; called once for each use */
};

/* Reads `text` into `field`. Its text of error becomes that of the flag: `invalid value "x" for flag -y: <text>`. */
typedef enum code flag_set_fn(void *field, const char *text, struct arena *arena, struct err *err);

struct flag {
	const char *name;
	enum flag_type type;
	size_t offset;    /* of the field in the command's options */
	const char *text; /* default of a string */
	int64_t number;   /* default of the others */
	flag_set_fn *set; /* of a value */
	const char *help;
	bool hidden; /* works, and is not shown by usage */
	bool ours;   /* SPIRE has no such flag: the same under the name spire-server */
};

#define FLAG_STRING(type_, field, name_, default_, help_)                                                              \
	{                                                                                                              \
		.name = (name_), .type = FLAG_TYPE_STRING, .offset = offsetof(type_, field), .text = (default_),       \
		.help = (help_)                                                                                        \
	}
#define FLAG_BOOL(type_, field, name_, help_)                                                                          \
	{                                                                                                              \
		.name = (name_), .type = FLAG_TYPE_BOOL, .offset = offsetof(type_, field), .help = (help_)             \
	}
#define FLAG_INT(type_, field, name_, default_, help_)                                                                 \
	{                                                                                                              \
		.name = (name_), .type = FLAG_TYPE_INT, .offset = offsetof(type_, field), .number = (default_),        \
		.help = (help_)                                                                                        \
	}
#define FLAG_DURATION(type_, field, name_, default_ns, help_)                                                          \
	{                                                                                                              \
		.name = (name_), .type = FLAG_TYPE_DURATION, .offset = offsetof(type_, field), .number = (default_ns), \
		.help = (help_)                                                                                        \
	}
#define FLAG_STRINGS(type_, field, name_, help_)                                                                       \
	{                                                                                                              \
		.name = (name_), .type = FLAG_TYPE_STRINGS, .offset = offsetof(type_, field), .help = (help_)          \
	}
#define FLAG_VALUE(type_, field, name_, set_, help_)                                                                   \
	{                                                                                                              \
		.name = (name_), .type = FLAG_TYPE_VALUE, .offset = offsetof(type_, field), .set = (set_),             \
		.help = (help_)                                                                                        \
	}
#define FLAG_END                                                                                                       \
	{                                                                                                              \
		.type = FLAG_TYPE_END                                                                                  \
	}

struct flag_set {
	const char *name;         /* "entry create"; what usage calls the command */
	const struct flag *flags; /* ended by FLAG_END */
};

/* What is left of the command line: the words from the first that is no flag on. */
struct flag_rest {
	int argc;
	char **argv;
};

/* Writes every default into `options`, then what argv[0..argc) says (flags only, the words of the command are gone).
 * Strings are argv's own, lists come from the arena. FLAG_TYPE_VALUE fields are left as the caller set them until used.
 * `rest` may be NULL. Prints nothing. CODE_CANCELLED: -h, -help or --help was there (text "flag: help requested").
 * CODE_INVALID_ARGUMENT: the text is Go's, without usage. */
enum code flags_read(const struct flag_set *set, void *options, struct arena *arena, int argc, char **argv,
		     struct flag_rest *rest, struct err *err);

/* From now on usage shows what spire-server has, and nothing else. */
void flags_as_spire(void);

/* "Usage of <name>:" and the flags sorted by name, as Go's PrintDefaults lays them out. */
void flags_usage(const struct flag_set *set, FILE *out);

/* flags_read as every spire-server command answers for it on standard error: after a mistake its text and usage, after
 * -h usage and "flag: help requested". True: go on. False: end with *status (1 after a mistake, 0 after -h). */
bool flags_parse(const struct flag_set *set, void *options, struct arena *arena, int argc, char **argv,
		 struct flag_rest *rest, int *status);

#endif
