/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_LIB_LOAD_CONFIG_H
#define TESTS_LIB_LOAD_CONFIG_H

/* What the tests of the configuration share: a text is written into a file and loaded; the outcome lies in `config`,
 * `notes` and `err` until the next one. */

#include "base/config.h"
#include "lib/test.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD "trust_domain = \"example.org\" data_dir = \"/d\" "
#define PLUGINS " plugins { KeyManager \"memory\" { plugin_data {} } }"
#define SERVER(more) "server { " HEAD more " }" PLUGINS

static struct arena *arena; /* of the file that was loaded last */
static struct arena *made;  /* texts of files and paths: until the end */
static struct config config;
static struct config_notes notes;
static struct err err;

__attribute__((format(printf, 1, 2))) static inline const char *printed(const char *fmt, ...)
{
	char text[8192];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	if (made == NULL)
		made = arena_new();
	return arena_strdup(made, text);
}

__attribute__((destructor)) static void free_arenas(void)
{
	arena_free(arena);
	arena_free(made);
}

static inline const char *path_of(const char *name)
{
	return printed("%s/%s", test_dir(), name);
}

static inline const char *write_file(const char *name, const char *text, size_t len)
{
	const char *path = path_of(name);
	FILE *file = fopen(path, "w");

	CHECK(file != NULL);
	CHECK(fwrite(text, 1, len, file) == len);
	fclose(file);
	return path;
}

static inline struct config_flags no_flags(const char *path)
{
	return (struct config_flags){ path, false, "", "", "", "", "", "", "", 0, false };
}

static inline enum code load_with(struct config_flags flags)
{
	err = (struct err){ 0 };
	return config_load(&flags, arena, &config, &notes, &err);
}

/* Everything of an earlier file is gone then. */
static inline enum code load(const char *text)
{
	arena_free(arena);
	arena = arena_new();
	return load_with(no_flags(write_file("server.conf", text, strlen(text))));
}

static inline void check_refused(const char *text, const char *want)
{
	CHECK_CODE(load(text), CODE_INVALID_ARGUMENT);
	if (strstr(err.text, want) == NULL)
		print_error("%s\n%s\n", text, err.text);
	CHECK(strstr(err.text, want) != NULL);
}

static inline void check_plugins(const char *plugins, const char *want)
{
	CHECK_CODE(load(printed("server { " HEAD " } plugins { %s }", plugins)), CODE_OK);
	err = (struct err){ 0 };
	if (want == NULL) {
		CHECK_CODE(config_plugins(&config, arena, &notes, &err), CODE_OK);
		return;
	}
	CHECK_CODE(config_plugins(&config, arena, &notes, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, want);
}

static inline const struct config_note *find_note(const char *msg)
{
	for (size_t i = 0; i < notes.n; i++)
		if (strstr(notes.items[i].msg, msg) != NULL)
			return &notes.items[i];
	return NULL;
}

static inline const char *pair_of(const struct config_note *note, const char *key)
{
	for (const struct log_pair *pair = note->pairs; pair->kind != LOG_KIND_END; pair++)
		if (strcmp(pair->key, key) == 0)
			return pair->text;
	return NULL;
}

static inline void check_warned(const char *text, const char *key)
{
	const struct config_note *note;

	CHECK_CODE(load(text), CODE_OK);
	note = find_note("has no effect");
	CHECK(note != NULL);
	CHECK_NUM(note->level, LOG_WARN);
	CHECK_STR(pair_of(note, "key"), key);
}

#endif
