/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/own.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

/* Memory that ends all at once: a call's, a batch's. Nothing is freed piecemeal. Not thread-safe: one owner at a time.
 * Out of memory ends the process. What a peer can make us allocate is limited before it gets here (base/limits.h). */
struct arena;

struct arena *arena_new(void);
void arena_free(struct arena *arena); /* NULL is fine */

/* Uninitialised, aligned to 16, never NULL; size 0 gives a unique pointer. */
void *arena_alloc(struct arena *arena, size_t size);
void *arena_zalloc(struct arena *arena, size_t size);
void *arena_memdup(struct arena *arena, const void *data, size_t size);
char *arena_strdup(struct arena *arena, const char *text);
char *arena_strndup(struct arena *arena, const char *text, size_t len);
char *arena_printf(struct arena *arena, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

char *arena_vprintf(struct arena *arena, const char *fmt, va_list args) __attribute__((format(printf, 2, 0)));

/* Bytes handed out since arena_new: what a test of limits looks at. */
size_t arena_used(const struct arena *arena);

OWNABLE_STRUCT(arena, arena_free)

/* malloc that ends the process instead of answering NULL: for what outlives a call. */
void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *held, size_t size);
char *xstrdup(const char *text);
void *xmemdup(const void *data, size_t size);

#endif
