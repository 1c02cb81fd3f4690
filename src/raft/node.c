/* SPDX-License-Identifier: Apache-2.0 */
/* The node's own directory. The lock is the kernel's (flock): it goes with the process, however that ends; the pid in
 * the file is for the error message alone. The id is written once: temporary name, fsync, rename, fsync of the
 * directory. */
#include "raft/node.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/rand.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ID_LEN = 36 };

struct node {
	int lock_fd;
	char id[ID_LEN + 1];
};

static enum code make_dir(const char *path, mode_t mode, struct err *err)
{
	if (mkdir(path, mode) != 0 && errno != EEXIST)
		return err_errno(err, CODE_INTERNAL, errno, "mkdir", path);
	return CODE_OK;
}

/* All levels of `path`, as mkdir -p. */
static enum code make_dirs(const char *path, mode_t mode, struct err *err)
{
	OWN_BUF part = { 0 };

	for (const char *at = path;;) {
		const char *slash = strchrnul(at, '/');

		part.len = 0;
		buf_append(&part, path, (size_t)(slash - path));
		if (part.len > 0)
			TRY(make_dir(buf_text(&part), mode, err));
		if (*slash == '\0')
			return CODE_OK;
		at = slash + 1;
	}
}

static enum code take_lock(struct node *node, const char *path, const char *data_dir, struct err *err)
{
	char pid[32] = "";
	ssize_t n;

	node->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (node->lock_fd < 0)
		return err_errno(err, CODE_INTERNAL, errno, "open", path);
	if (flock(node->lock_fd, LOCK_EX | LOCK_NB) != 0) {
		if (errno != EWOULDBLOCK)
			return err_errno(err, CODE_INTERNAL, errno, "lock", path);
		n = read(node->lock_fd, pid, sizeof pid - 1);
		pid[n > 0 ? n : 0] = '\0';
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "data directory \"%s\" is in use by another server (process %s): stop it, or set "
			       "another data_dir",
			       data_dir, pid[0] == '\0' ? "unknown" : pid);
	}
	snprintf(pid, sizeof pid, "%ld", (long)getpid());
	if (ftruncate(node->lock_fd, 0) != 0 || pwrite(node->lock_fd, pid, strlen(pid), 0) < 0)
		return err_errno(err, CODE_INTERNAL, errno, "write", path);
	return CODE_OK;
}

static enum code write_file(const char *path, const char *text, struct err *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && fsync(fd) == 0;
	int why = errno;

	if (fd >= 0)
		close(fd);
	return ok ? CODE_OK : err_errno(err, CODE_INTERNAL, why, "write", path);
}

static enum code sync_dir(const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool ok = fd >= 0 && fsync(fd) == 0;
	int why = errno;

	if (fd >= 0)
		close(fd);
	return ok ? CODE_OK : err_errno(err, CODE_INTERNAL, why, "sync", path);
}

static enum code make_id(struct node *node, const char *dir, const char *path, struct arena *arena, struct err *err)
{
	const char *temporary = arena_printf(arena, "%s.tmp", path);

	rand_uuid4(node->id);
	TRY(write_file(temporary, node->id, err));
	if (rename(temporary, path) != 0)
		return err_errno(err, CODE_INTERNAL, errno, "rename", temporary);
	return sync_dir(dir, err);
}

static enum code read_id(struct node *node, const char *dir, const char *path, struct arena *arena, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0 && errno == ENOENT)
		return make_id(node, dir, path, arena, err);
	if (fd < 0)
		return err_errno(err, CODE_INTERNAL, errno, "open", path);
	n = read(fd, node->id, sizeof node->id);
	close(fd);
	if (n != ID_LEN || strspn(node->id, "0123456789abcdef-") < ID_LEN)
		return err_set(err, CODE_DATA_LOSS,
			       "\"%s\" does not hold a node id of %d characters: restore the data directory", path,
			       ID_LEN);
	node->id[ID_LEN] = '\0';
	return CODE_OK;
}

enum code node_open(const char *data_dir, struct node **out, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(node) node = xcalloc(1, sizeof *node);
	const char *dir = arena_printf(arena, "%s/node", data_dir);

	node->lock_fd = -1;
	TRY(make_dirs(data_dir, 0755, err));
	TRY(make_dir(dir, 0700, err));
	TRY(take_lock(node, arena_printf(arena, "%s/lock", dir), data_dir, err));
	TRY(read_id(node, dir, arena_printf(arena, "%s/id", dir), arena, err));
	*out = TAKE(node);
	return CODE_OK;
}

void node_close(struct node *node)
{
	if (node == NULL)
		return;
	if (node->lock_fd >= 0)
		close(node->lock_fd);
	free(node);
}

const char *node_id(const struct node *node)
{
	return node->id;
}
