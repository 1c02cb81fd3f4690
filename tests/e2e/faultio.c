/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into a server under test: while the first byte of the file $FAULTIO is '1', fsync and fdatasync fail with EIO, as
 * after a disk error. Nothing else is changed. The file is mapped, so the test switches it while the server runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static const volatile char *control;

__attribute__((constructor)) static void map_control(void)
{
	const char *path = getenv("FAULTIO");
	int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *p;

	if (fd < 0)
		return;
	p = mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0);
	if (p != MAP_FAILED)
		control = p;
	close(fd);
}

static int sync_file(long number, int fd)
{
	if (control != NULL && *control == '1') {
		errno = EIO;
		return -1;
	}
	return (int)syscall(number, fd);
}

int fsync(int fd)
{
	return sync_file(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	return sync_file(SYS_fdatasync, fd);
}
