/* SPDX-License-Identifier: Apache-2.0 */
/* Regions from mmap, cut into slots of whole pages; a free slot holds the link to the next free one. Regions stay:
 * their number follows the most connections there have been at a time. */
#include "net/slab.h"

#include "base/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { PAGE = 4096, REGION = 2 << 20 };

struct slab {
	size_t size;    /* of a slot */
	void *free;     /* the next of a free slot stands at its beginning */
	char **regions; /* in the order of their addresses */
	size_t n_regions;
};

struct slab *slab_new(size_t size)
{
	struct slab *slab = xcalloc(1, sizeof *slab);

	slab->size = (size + PAGE - 1) / PAGE * PAGE;
	return slab;
}

void slab_free(struct slab *slab)
{
	if (slab == NULL)
		return;
	for (size_t i = 0; i < slab->n_regions; i++)
		munmap(slab->regions[i], REGION);
	free(slab->regions);
	free(slab);
}

size_t slab_size(const struct slab *slab)
{
	return slab->size;
}

static void add_region(struct slab *slab)
{
	char *region = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t at = slab->n_regions++;

	if (region == MAP_FAILED) {
		fprintf(stderr, "out of memory: cannot map %d bytes\n", REGION);
		abort();
	}
	madvise(region, REGION, MADV_NOHUGEPAGE); /* a huge page would be touched as a whole */
	slab->regions = xrealloc(slab->regions, slab->n_regions * sizeof *slab->regions);
	for (; at > 0 && slab->regions[at - 1] > region; at--)
		slab->regions[at] = slab->regions[at - 1];
	slab->regions[at] = region;
	for (size_t n = REGION / slab->size; n-- > 0;)
		slab_put(slab, region + n * slab->size);
}

void *slab_get(struct slab *slab)
{
	void *buffer;

	if (slab->free == NULL)
		add_region(slab);
	buffer = slab->free;
	slab->free = *(void **)buffer;
	return buffer;
}

void slab_put(struct slab *slab, void *buffer)
{
	*(void **)buffer = slab->free;
	slab->free = buffer;
}

bool slab_has(const struct slab *slab, const void *pointer)
{
	size_t low = 0, high = slab->n_regions;
	const char *at = pointer;

	if ((uintptr_t)pointer % PAGE != 0)
		return false;
	while (low < high) {
		size_t middle = (low + high) / 2;

		if (at < slab->regions[middle])
			high = middle;
		else if (at >= slab->regions[middle] + REGION)
			low = middle + 1;
		else
			return true;
	}
	return false;
}
