/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NET_SLAB_H
#define NET_SLAB_H

#include "base/own.h"

#include <stdbool.h>
#include <stddef.h>

/* Buffers of one size that are mostly not written to: each begins on a page of its own, so that what nobody has touched
 * takes no memory. (HTTP/2 keeps a buffer for a whole frame by connection and uses the first few hundred bytes of it.)
 * One thread. */
struct slab;

struct slab *slab_new(size_t size);
void slab_free(struct slab *slab); /* everything; NULL is fine */
OWNABLE_STRUCT(slab, slab_free)

size_t slab_size(const struct slab *slab);
void *slab_get(struct slab *slab);
void slab_put(struct slab *slab, void *buffer);
bool slab_has(const struct slab *slab, const void *pointer); /* is it one of ours? Cheap for what is not */

#endif
