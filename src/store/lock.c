/* SPDX-License-Identifier: Apache-2.0 */
/* The lock on the data directory. The kernel keeps it and lets go when the process ends, however it does; what the file
 * says is only for the text that a second process prints. */
#include "store/store.h"

#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct dir_lock {
	int fd;
};

static enum code make_dir(const char *path, struct err *err)
{
	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return err_errno(err, CODE_FAILED_PRECONDITION, errno, "mkdir", path);
	return CODE_OK;
}

static enum code in_use(int fd, const char *dir, struct err *err)
{
	char who[32];
	ssize_t n = pread(fd, who, sizeof who - 1, 0);

	who[n > 0 ? n : 0] = '\0';
	who[strspn(who, "0123456789")] = '\0';
	if (who[0] == '\0')
		return err_set(err, CODE_FAILED_PRECONDITION, "data directory '%s' is in use by another process", dir);
	return err_set(err, CODE_FAILED_PRECONDITION,
		       "data directory '%s' is in use by process %s: two servers cannot share one, stop that one or "
		       "set another data_dir",
		       dir, who);
}

static enum code take(int fd, const char *dir, const char *path, struct err *err)
{
	char pid[32];
	int len = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());

	if (flock(fd, LOCK_EX | LOCK_NB) != 0)
		return errno == EWOULDBLOCK ? in_use(fd, dir, err)
					    : err_errno(err, CODE_FAILED_PRECONDITION, errno, "lock", path);
	if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)len, 0) != len)
		return err_errno(err, CODE_FAILED_PRECONDITION, errno, "write", path);
	return CODE_OK;
}

enum code dir_lock_take(const char *dir, struct dir_lock **out, struct err *err)
{
	OWN_BUF path = { 0 };
	enum code rc;
	int fd;

	TRY(make_dir(dir, err));
	buf_printf(&path, "%s/node", dir);
	TRY(make_dir(buf_text(&path), err));
	buf_puts(&path, "/lock");
	fd = open(buf_text(&path), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(err, CODE_FAILED_PRECONDITION, errno, "open", buf_text(&path));
	rc = take(fd, dir, buf_text(&path), err);
	if (rc != CODE_OK) {
		close(fd);
		return rc;
	}
	*out = xmalloc(sizeof **out);
	(*out)->fd = fd;
	return CODE_OK;
}

void dir_lock_release(struct dir_lock *lock)
{
	if (lock == NULL)
		return;
	close(lock->fd);
	free(lock);
}
