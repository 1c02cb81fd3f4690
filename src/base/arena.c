/* SPDX-License-Identifier: Apache-2.0 */
/* Arenas: memory is cut off the front of chunks. An arena lies at the beginning of its own first chunk. Chunks double
 * up to CHUNK_MAX; what is larger than a quarter of that gets a chunk to itself, behind the current one in the list, so
 * that the rest of the current one is not lost. Chunks of the common sizes go to a small cache of the thread that drops
 * them: a call's arena costs no malloc. Under ASan what has not been handed out is poisoned, with a gap behind each
 * piece. */
#include "base/arena.h"

#include "base/sanitize.h"

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(at, size) ASAN_POISON_MEMORY_REGION((at), (size))
#define UNPOISON(at, size) ASAN_UNPOISON_MEMORY_REGION((at), (size))
enum { GAP = 16 };
#else
#define POISON(at, size) ((void)(at), (void)(size))
#define UNPOISON(at, size) ((void)(at), (void)(size))
enum { GAP = 0 };
#endif

enum {
	ALIGN = 16,
	CLASSES = 5, /* chunks of 4, 8, 16, 32, 64 KiB */
	CHUNK_MIN = 4096,
	CHUNK_MAX = CHUNK_MIN << (CLASSES - 1),
	ALONE_MIN = CHUNK_MAX / 4,
	CACHE_BYTES = 256 << 10, /* of each class and thread */
};

struct chunk {
	struct chunk *next; /* older */
	size_t size;        /* all of it, this header too */
};

struct arena {
	char *at, *end; /* what is free of the current chunk */
	struct chunk *current;
	size_t used;
	int class; /* of the next chunk */
};

struct cache {
	struct chunk *free[CLASSES];
	int count[CLASSES];
	bool known; /* the thread's end will free it */
};

static _Thread_local struct cache cache;
static pthread_key_t cache_key;
static pthread_once_t cache_once = PTHREAD_ONCE_INIT;

static __attribute__((noreturn, cold)) void out_of_memory(size_t size)
{
	fprintf(stderr, "out of memory: cannot allocate %zu bytes\n", size);
	abort();
}

static void cache_drop(void *held)
{
	struct cache *c = held;

	for (int i = 0; i < CLASSES; i++) {
		while (c->free[i] != NULL) {
			struct chunk *chunk = c->free[i];

			c->free[i] = chunk->next;
			UNPOISON(chunk, chunk->size);
			free(chunk);
		}
		c->count[i] = 0;
	}
	c->known = false; /* a later destructor of this thread may still use arenas */
}

static void cache_key_make(void)
{
	if (pthread_key_create(&cache_key, cache_drop) != 0)
		out_of_memory(0);
}

static struct chunk *chunk_get(int class)
{
	size_t size = (size_t)CHUNK_MIN << class;
	struct chunk *chunk = cache.free[class];

	if (chunk != NULL) {
		cache.free[class] = chunk->next;
		cache.count[class]--;
		UNPOISON(chunk, sizeof *chunk);
		return chunk;
	}
	chunk = xmalloc(size);
	chunk->size = size;
	return chunk;
}

static void chunk_put(struct chunk *chunk)
{
	int class = 0;

	while (class < CLASSES && chunk->size != (size_t)CHUNK_MIN << class)
		class ++;
	if (class == CLASSES || cache.count[class] >= CACHE_BYTES / (CHUNK_MIN << class)) {
		UNPOISON(chunk, chunk->size);
		free(chunk);
		return;
	}
	if (!cache.known) {
		pthread_once(&cache_once, cache_key_make);
		if (pthread_setspecific(cache_key, &cache) != 0)
			out_of_memory(sizeof cache);
		cache.known = true;
	}
	chunk->next = cache.free[class];
	cache.free[class] = chunk;
	cache.count[class]++;
	POISON(chunk + 1, chunk->size - sizeof *chunk);
}

struct arena *arena_new(void)
{
	struct chunk *chunk = chunk_get(0);
	struct arena *arena = (struct arena *)(chunk + 1);
	size_t head = (sizeof *chunk + sizeof *arena + ALIGN - 1) & ~(size_t)(ALIGN - 1);

	UNPOISON(chunk, head);
	chunk->next = NULL;
	*arena = (struct arena){
		.at = (char *)chunk + head, .end = (char *)chunk + chunk->size, .current = chunk, .class = 1
	};
	POISON(arena->at, (size_t)(arena->end - arena->at));
	return arena;
}

void arena_free(struct arena *arena)
{
	if (arena == NULL)
		return;
	for (struct chunk *chunk = arena->current, *next; chunk != NULL; chunk = next) {
		next = chunk->next; /* the arena itself lies in the last one */
		chunk_put(chunk);
	}
}

/* A chunk for this piece alone; the current one stays current. */
static void *alloc_alone(struct arena *arena, size_t size)
{
	struct chunk *chunk = xmalloc(sizeof *chunk + size);

	chunk->size = sizeof *chunk + size;
	chunk->next = arena->current->next;
	arena->current->next = chunk;
	return chunk + 1;
}

static void *alloc_new_chunk(struct arena *arena, size_t size, size_t need)
{
	struct chunk *chunk;
	char *piece;

	while (((size_t)CHUNK_MIN << arena->class) - sizeof *chunk < need)
		arena->class ++; /* ends: need <= ALONE_MIN */
	chunk = chunk_get(arena->class);
	if (arena->class < CLASSES - 1)
		arena->class ++;
	chunk->next = arena->current;
	arena->current = chunk;
	piece = (char *)(chunk + 1);
	arena->at = piece + need;
	arena->end = (char *)chunk + chunk->size;
	POISON(piece, chunk->size - sizeof *chunk);
	UNPOISON(piece, size);
	return piece;
}

void *arena_alloc(struct arena *arena, size_t size)
{
	size_t need;
	char *piece = arena->at;

	if (size > PTRDIFF_MAX / 2)
		out_of_memory(size);
	need = ((size > 0 ? size : 1) + GAP + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	arena->used += size;
	if (need <= (size_t)(arena->end - piece)) {
		arena->at += need;
		UNPOISON(piece, size);
		return piece;
	}
	if (need > ALONE_MIN)
		return alloc_alone(arena, size);
	return alloc_new_chunk(arena, size, need);
}

void *arena_zalloc(struct arena *arena, size_t size)
{
	return memset(arena_alloc(arena, size), 0, size);
}

void *arena_memdup(struct arena *arena, const void *data, size_t size)
{
	void *copy = arena_alloc(arena, size);

	if (size > 0)
		memcpy(copy, data, size);
	return copy;
}

char *arena_strdup(struct arena *arena, const char *text)
{
	return arena_memdup(arena, text, strlen(text) + 1);
}

char *arena_strndup(struct arena *arena, const char *text, size_t len)
{
	char *copy;

	len = strnlen(text, len);
	copy = arena_alloc(arena, len + 1);
	memcpy(copy, text, len);
	copy[len] = '\0';
	return copy;
}

char *arena_vprintf(struct arena *arena, const char *fmt, va_list args)
{
	va_list again;
	char *text;
	int len;

	va_copy(again, args);
	len = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	if (len < 0)
		out_of_memory(INT_MAX); /* a text longer than an int can say */
	text = arena_alloc(arena, (size_t)len + 1);
	vsnprintf(text, (size_t)len + 1, fmt, args);
	return text;
}

char *arena_printf(struct arena *arena, const char *fmt, ...)
{
	va_list args;
	char *text;

	va_start(args, fmt);
	text = arena_vprintf(arena, fmt, args);
	va_end(args);
	return text;
}

size_t arena_used(const struct arena *arena)
{
	return arena->used;
}

void *xmalloc(size_t size)
{
	void *held = malloc(size > 0 ? size : 1);

	if (held == NULL)
		out_of_memory(size);
	return held;
}

void *xcalloc(size_t count, size_t size)
{
	void *held = calloc(count > 0 ? count : 1, size > 0 ? size : 1);

	if (held == NULL)
		out_of_memory(size);
	return held;
}

void *xrealloc(void *held, size_t size)
{
	void *moved = realloc(held, size > 0 ? size : 1);

	if (moved == NULL)
		out_of_memory(size);
	return moved;
}

char *xstrdup(const char *text)
{
	return xmemdup(text, strlen(text) + 1);
}

void *xmemdup(const void *data, size_t size)
{
	void *copy = xmalloc(size);

	if (size > 0)
		memcpy(copy, data, size);
	return copy;
}
