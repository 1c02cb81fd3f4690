/* SPDX-License-Identifier: Apache-2.0 */
/* The runner of every unit test binary: what TEST() has registered is one cmocka group. A word on the command line runs
 * only the tests whose names contain it. */
#include "lib/test.h"

#include <ftw.h>
#include <stdlib.h>
#include <unistd.h>

enum { TESTS_MAX = 512 };

static struct CMUnitTest tests[TESTS_MAX];
static size_t n_tests;
static char dir[64];

void test_register(const char *name, void (*run)(void **state))
{
	if (n_tests == TESTS_MAX)
		abort();
	tests[n_tests++] = (struct CMUnitTest){ .name = name, .test_func = run };
}

static int remove_one(const char *path, const struct stat *st __attribute__((unused)), int type __attribute__((unused)),
		      struct FTW *ftw __attribute__((unused)))
{
	return remove(path);
}

static void remove_dir(void)
{
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *test_dir(void)
{
	if (dir[0] == '\0') {
		snprintf(dir, sizeof dir, "/tmp/unit-XXXXXX");
		if (mkdtemp(dir) == NULL)
			abort();
		atexit(remove_dir);
	}
	return dir;
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		size_t kept = 0;

		for (size_t i = 0; i < n_tests; i++)
			if (strstr(tests[i].name, argv[1]) != NULL)
				tests[kept++] = tests[i];
		n_tests = kept;
	}
	return _cmocka_run_group_tests(argv[0], tests, n_tests, NULL, NULL);
}
