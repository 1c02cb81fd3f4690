/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_LIB_TEST_H
#define TESTS_LIB_TEST_H

/* Thin macros over cmocka. A file tests/unit/test_X.c is one binary; each TEST(name) in it registers itself. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

void test_register(const char *name, void (*run)(void **state));

#define TEST(name)                                                                                                     \
	static void test_##name(void **state);                                                                         \
	__attribute__((constructor)) static void test_register_##name(void)                                            \
	{                                                                                                              \
		test_register(#name, test_##name);                                                                     \
	}                                                                                                              \
	static void test_##name(void **state __attribute__((unused)))

/* `err` in scope (struct err err) is shown when the code differs. */
#define CHECK_CODE(call, want)                                                                                         \
	do {                                                                                                           \
		enum code got_ = (call);                                                                               \
		if (got_ != (want)) {                                                                                  \
			print_error("%s: %s, not %s: %s\n", #call, code_name(got_), code_name(want), err.text);        \
			assert_int_equal(got_, want);                                                                  \
		}                                                                                                      \
	} while (0)
#define CHECK_STR(got, want) assert_string_equal((got), (want))
#define CHECK_NUM(got, want) assert_int_equal((got), (want))
#define CHECK(condition) assert_true(condition)
#define CHECK_BYTES(got, want, len) assert_memory_equal((got), (want), (len))

/* A directory of its own, removed at the end of the process. */
const char *test_dir(void);

#endif
