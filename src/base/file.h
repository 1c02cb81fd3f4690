/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Files whose bytes must be there after a crash. What fails leaves errno. */

bool file_pwrite(int fd, const void *data, size_t len, uint64_t at); /* all of it */
ssize_t file_pread(int fd, void *out, size_t len, uint64_t at);      /* up to the end of the file; -1: failed */
bool file_sync_dir(const char *path);                                /* names in it are durable */
bool file_sync_parent(const char *path);                             /* of the directory that holds it */

#endif
