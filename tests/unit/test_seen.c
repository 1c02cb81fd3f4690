/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/test.h"
#include "raft/seen.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static struct err err;
static const uint8_t boot_a[16] = "aaaaaaaaaaaaaaa", boot_b[16] = "bbbbbbbbbbbbbbb";

static struct seen *reopen(const char *path, struct seen *seen)
{
	seen_close(seen);
	seen = NULL;
	CHECK_CODE(seen_open(path, &seen, &err), CODE_OK);
	return seen;
}

TEST(the_highest_number_stays)
{
	char path[300];
	struct seen *seen;
	uint64_t starts = 0;
	uint8_t boot[16];

	snprintf(path, sizeof path, "%s/seen", test_dir());
	seen = reopen(path, NULL);
	CHECK(!seen_get(seen, 1, &starts, boot));
	seen_put(seen, 1, 7, boot_a);
	seen_put(seen, UINT64_MAX, UINT64_MAX, boot_b);
	seen_put(seen, 1, 6, boot_b);
	seen_put(seen, 1, 7, boot_b);
	for (int i = 0; i < 2; i++) {
		CHECK(seen_get(seen, 1, &starts, boot));
		CHECK_NUM(starts, 7);
		CHECK_BYTES(boot, boot_a, 16);
		CHECK(seen_get(seen, UINT64_MAX, &starts, boot));
		CHECK(starts == UINT64_MAX);
		CHECK_BYTES(boot, boot_b, 16);
		CHECK(!seen_get(seen, 2, &starts, boot));
		seen = reopen(path, seen);
	}
	seen_put(seen, 1, 8, boot_b);
	seen = reopen(path, seen);
	CHECK(seen_get(seen, 1, &starts, boot));
	CHECK_NUM(starts, 8);
	CHECK_BYTES(boot, boot_b, 16);
	seen_close(seen);
}

TEST(damage_is_refused_by_name)
{
	char path[300], text[1000];
	struct seen *seen;
	ssize_t len;
	int fd;

	snprintf(path, sizeof path, "%s/damaged", test_dir());
	seen = reopen(path, NULL);
	for (uint64_t i = 1; i < 5; i++)
		seen_put(seen, i, i * 3, boot_a);
	seen_close(seen);
	fd = open(path, O_RDWR);
	len = read(fd, text, sizeof text);
	CHECK(len > 100);
	for (ssize_t i = 0; i < len; i++) {
		char turned = (char)(text[i] ^ 1);

		CHECK_NUM(pwrite(fd, &turned, 1, i), 1);
		CHECK_CODE(seen_open(path, &seen, &err), CODE_DATA_LOSS);
		CHECK_NUM(pwrite(fd, &text[i], 1, i), 1);
	}
	CHECK(strstr(err.text, path) != NULL && strstr(err.text, "is damaged: restore it, or delete it") != NULL);
	for (ssize_t i = len - 1; i >= 0; i--) {
		CHECK_NUM(ftruncate(fd, i), 0);
		CHECK_CODE(seen_open(path, &seen, &err), CODE_DATA_LOSS);
	}
	close(fd);
	CHECK_CODE(seen_open(test_dir(), &seen, &err), CODE_INTERNAL);
}
