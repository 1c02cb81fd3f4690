/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_HEADER_H
#define API_HEADER_H

#include <string.h>

/* A header or trailer of HTTP/2, in a list. Names are lower case. */
struct header {
	struct header *next;
	const char *name, *value;
};

static inline const char *header_find(const struct header *list, const char *name) /* the first; NULL: none */
{
	for (; list != NULL; list = list->next)
		if (strcmp(list->name, name) == 0)
			return list->value;
	return NULL;
}

#endif
