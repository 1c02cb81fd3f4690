/* SPDX-License-Identifier: Apache-2.0 */
/* Arenas: pieces of every size, aligned, apart, as they were written; chunks that come again. */
#include "lib/test.h"

#include "base/arena.h"
#include "base/rand.h"
#include "base/sanitize.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#endif

static void fill_and_check(int pieces, size_t largest)
{
	struct {
		uint8_t *data;
		size_t size;
	} *held = xcalloc((size_t)pieces, sizeof *held);
	OWN_STRUCT(arena) arena = arena_new();
	size_t sum = 0;

	for (int i = 0; i < pieces; i++) {
		held[i].size = rand_u64() % largest;
		held[i].data = arena_alloc(arena, held[i].size);
		CHECK((uintptr_t)held[i].data % 16 == 0);
		memset(held[i].data, i & 255, held[i].size);
		sum += held[i].size;
	}
	CHECK_NUM(arena_used(arena), sum);
	for (int i = 0; i < pieces; i++)
		for (size_t b = 0; b < held[i].size; b++)
			if (held[i].data[b] != (i & 255))
				fail_msg("piece %d of %zu bytes was written over at %zu", i, held[i].size, b);
	free(held);
}

TEST(pieces_are_aligned_and_apart)
{
	for (int round = 0; round < 20; round++) {
		fill_and_check(1, 2);
		fill_and_check(500, 100);
		fill_and_check(200, 5000);
		fill_and_check(100, 40000);
		fill_and_check(8, 1 << 20);
	}
}

TEST(sizes_at_the_edges_of_chunks)
{
	OWN_STRUCT(arena) arena = arena_new();

	for (size_t size = 1; size <= 1 << 18; size *= 2)
		for (size_t around = 0; around < 130; around++)
			if (size + around >= 65)
				memset(arena_alloc(arena, size + around - 65), 1, size + around - 65);
}

TEST(pieces_of_no_bytes_are_unique)
{
	OWN_STRUCT(arena) arena = arena_new();
	void *a = arena_alloc(arena, 0), *b = arena_alloc(arena, 0);

	CHECK(a != NULL && b != NULL && a != b);
	CHECK(arena_memdup(arena, NULL, 0) != NULL);
	arena_free(NULL);
}

TEST(copies_and_texts)
{
	OWN_STRUCT(arena) arena = arena_new();
	static char long_text[10000];
	char *zeros = arena_zalloc(arena, 64);

	for (int i = 0; i < 64; i++)
		CHECK(zeros[i] == 0);
	CHECK_STR(arena_strdup(arena, "abc"), "abc");
	CHECK_STR(arena_strdup(arena, ""), "");
	CHECK_STR(arena_strndup(arena, "abcdef", 3), "abc");
	CHECK_STR(arena_strndup(arena, "ab", 30), "ab"); /* ends at the NUL */
	CHECK_BYTES(arena_memdup(arena, "a\0b", 3), "a\0b", 3);
	memset(long_text, 'x', sizeof long_text - 1);
	CHECK_STR(arena_printf(arena, "%s", long_text), long_text);
	CHECK_STR(arena_printf(arena, "%d-%s", 7, "x"), "7-x");
}

#ifdef WITH_ASAN
TEST(what_is_not_handed_out_is_poisoned)
{
	struct arena *arena = arena_new();
	char *a = arena_alloc(arena, 20), *b = arena_alloc(arena, 3000), *c = arena_alloc(arena, 100000);

	CHECK(__asan_address_is_poisoned(a + 20) && __asan_address_is_poisoned(b + 3000));
	CHECK(__asan_region_is_poisoned(a, 20) == NULL && __asan_region_is_poisoned(c, 100000) == NULL);
	arena_free(arena);
	CHECK(__asan_address_is_poisoned(a) && __asan_address_is_poisoned(b) && __asan_address_is_poisoned(c));
}
#else
TEST(a_thread_gets_its_chunks_again)
{
	struct arena *arena = arena_new(), *again;

	arena_free(arena);
	again = arena_new();
	CHECK(again == arena);
	arena_free(again);
}
#endif

static void *free_arena(void *arg)
{
	arena_free(arg);
	for (int i = 0; i < 1000; i++) {
		OWN_STRUCT(arena) arena = arena_new();

		arena_alloc(arena, 10000);
	}
	return NULL; /* its cache goes with it: LeakSanitizer looks */
}

TEST(an_arena_may_end_on_another_thread)
{
	for (int i = 0; i < 10; i++) {
		struct arena *arena = arena_new();
		pthread_t thread;

		for (int k = 0; k < 50; k++)
			arena_alloc(arena, 1000);
		CHECK_NUM(pthread_create(&thread, NULL, free_arena, arena), 0);
		pthread_join(thread, NULL);
	}
}

TEST(out_of_memory_ends_the_process)
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		OWN_STRUCT(arena) arena = arena_new();

		if (freopen("/dev/null", "w", stderr) != NULL)
			arena_alloc(arena, SIZE_MAX - 8);
		_exit(0);
	}
	CHECK_NUM(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

TEST(the_heaps_functions_never_answer_null)
{
	char *a = xmalloc(0), *b = xcalloc(0, 8), *c = xstrdup("abc"), *d = xmemdup("xy", 2), *e = xrealloc(NULL, 0);

	CHECK(a != NULL && b != NULL && e != NULL);
	CHECK_STR(c, "abc");
	CHECK_BYTES(d, "xy", 2);
	c = xrealloc(c, 100);
	CHECK_STR(c, "abc");
	free(a);
	free(b);
	free(c);
	free(d);
	free(e);
}
