/* SPDX-License-Identifier: Apache-2.0 */
/* Which state file counts: see copy.h. An install renames the copy to the name of the next generation, syncs the
 * directory, then moves the pointer: the one step that counts. Whatever the pointer does not name may go. */
#include "raft/copy.h"

#include "base/buf.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "raft/pair.h"

#include <assert.h>
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct pair_kind pointer_kind = {
	.magic = "STATEPTR",
	.version = 1,
	.body_len = sizeof(uint64_t),
	.what = "pointer to the state",
	.write_fault = "copy.pointer",
	.sync_fault = "copy.pointer",
};

struct generations {
	char *dir;
	char *path;
	uint64_t number;
	struct pair *pointer;
};

static char *path_of(const char *dir, uint64_t number)
{
	char *path = NULL;
	int rc = number == 0 ? asprintf(&path, "%s/state.db", dir)
			     : asprintf(&path, "%s/state.%" PRIu64 ".db", dir, number);

	if (rc < 0)
		abort();
	return path;
}

enum file_kind { FILE_OTHER, FILE_TEMPORARY, FILE_GENERATION };

static bool ends_with(const char *name, const char *end)
{
	size_t len = strlen(name), end_len = strlen(end);

	return len > end_len && strcmp(name + len - end_len, end) == 0;
}

/* "state.<number>.db", also with SQLite's "-wal" and "-shm" and "-journal". *number: 0 for "state.db". */
static enum file_kind kind_of(const char *name, uint64_t *number)
{
	static const char *const ends[] = { "", "-wal", "-shm", "-journal" };
	char canonical[64];

	if (strncmp(name, "state.", 6) != 0)
		return FILE_OTHER;
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
		char end[32];

		snprintf(end, sizeof end, ".copy.tmp%s", ends[i]);
		if (ends_with(name, end))
			return FILE_TEMPORARY;
		*number = 0;
		snprintf(canonical, sizeof canonical, "state.db%s", ends[i]);
		if (strcmp(name, canonical) == 0)
			return FILE_GENERATION;
		*number = strtoull(name + 6, NULL, 10);
		snprintf(canonical, sizeof canonical, "state.%" PRIu64 ".db%s", *number, ends[i]);
		if (*number > 0 && strcmp(name, canonical) == 0)
			return FILE_GENERATION;
	}
	return FILE_OTHER;
}

struct seen {
	bool generations; /* above 0 */
	bool present;     /* the file of the present one */
};

/* Looks at the directory's files; `clean`: removes those that do not count. */
static enum code look(struct generations *g, bool clean, struct seen *seen, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	DIR *dir = opendir(g->dir);
	const char *present = strrchr(g->path, '/') + 1;

	if (dir == NULL)
		return err_errno(err, CODE_INTERNAL, errno, "open", g->dir);
	*seen = (struct seen){ 0 };
	for (struct dirent *file; (file = readdir(dir)) != NULL;) {
		uint64_t number = 0;
		enum file_kind kind = kind_of(file->d_name, &number);

		if (kind == FILE_OTHER)
			continue;
		seen->generations |= kind == FILE_GENERATION && number > 0;
		seen->present |= strcmp(file->d_name, present) == 0;
		if (clean && (kind == FILE_TEMPORARY || number != g->number)) {
			log_info("A state file that no longer counts is removed", KV("path", file->d_name));
			unlink(arena_printf(arena, "%s/%s", g->dir, file->d_name));
		}
	}
	closedir(dir);
	return CODE_OK;
}

static enum code open_pointer(struct generations *g, const char *owner, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	const char *path = arena_printf(arena, "%s/state.current", g->dir);
	struct seen seen;
	uint64_t body = 0;
	enum code rc;

	TRY(look(g, false, &seen, err));
	rc = pair_open(path, &pointer_kind, owner, !seen.generations, &body, &g->pointer, err);
	if (rc == CODE_NOT_FOUND)
		return err_set(
			err, CODE_DATA_LOSS,
			"pointer to the state \"%s\" is missing, and there are several state files: replace this "
			"node (remove it, join again)",
			path);
	TRY(rc);
	g->number = le64toh(body);
	free(g->path);
	g->path = path_of(g->dir, g->number);
	return CODE_OK;
}

enum code generations_open(const char *data_dir, const char *owner, struct generations **out, struct err *err)
{
	OWN_STRUCT(generations) g = xcalloc(1, sizeof *g);
	struct seen seen;

	g->dir = xstrdup(data_dir);
	g->path = path_of(data_dir, 0);
	TRY(open_pointer(g, owner, err));
	TRY(look(g, false, &seen, err));
	if (g->number > 0 && !seen.present)
		return err_set(err, CODE_DATA_LOSS,
			       "state file \"%s\" is missing: replace this node (remove it, join again)", g->path);
	TRY(look(g, true, &seen, err));
	*out = TAKE(g);
	return CODE_OK;
}

void generations_close(struct generations *g)
{
	if (g == NULL)
		return;
	pair_close(g->pointer);
	free(g->path);
	free(g->dir);
	free(g);
}

const char *generations_path(const struct generations *g)
{
	return g->path;
}

uint64_t generations_number(const struct generations *g)
{
	return g->number;
}

char *generations_temporary(const struct generations *g, const char *what, struct arena *arena)
{
	assert(strchr(what, '/') == NULL);
	return arena_printf(arena, "%s/state.%s.copy.tmp", g->dir, what);
}

void generations_install(struct generations *g, const char *temporary, uint64_t index)
{
	uint64_t number = index > g->number ? index : g->number + 1, body = htole64(number);
	char *path = path_of(g->dir, number);

	errno = EIO;
	if (fault_at("copy.rename") || rename(temporary, path) != 0)
		log_fatal("Disk failed", KV("path", path), KV("step", "rename"), KV("error", strerror(errno)));
	errno = EIO;
	if (fault_at("copy.rename") || !file_sync_dir(g->dir))
		log_fatal("Disk failed", KV("path", g->dir), KV("step", "sync"), KV("error", strerror(errno)));
	pair_write(g->pointer, &body);
	free(g->path);
	g->path = path;
	g->number = number;
}

void generations_forget(struct generations *g, const char *path)
{
	assert(strcmp(path, g->path) != 0);
	store_remove_files(path);
}
