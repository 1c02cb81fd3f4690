/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

/* A ring of links inside what is listed. A list is a link of its own; a link that is in no list points at itself. */
struct link {
	struct link *next, *prev;
};

static inline void list_init(struct link *list)
{
	list->next = list->prev = list;
}

static inline bool list_empty(const struct link *list)
{
	return list->next == list;
}

static inline void list_push(struct link *list, struct link *item) /* at the end */
{
	item->next = list;
	item->prev = list->prev;
	list->prev->next = item;
	list->prev = item;
}

static inline void list_remove(struct link *item) /* harmless when it is in none */
{
	item->prev->next = item->next;
	item->next->prev = item->prev;
	list_init(item);
}

#define LIST_ITEM(item, type, member) ((type *)((char *)(item) - offsetof(type, member)))
#define LIST_FOR(item, list) for (struct link *item = (list)->next; item != (list); item = item->next)
/* the body may remove `item` */
#define LIST_FOR_SAFE(item, list)                                                                                      \
	for (struct link *item = (list)->next, *next_##item = item->next; item != (list);                              \
	     item = next_##item, next_##item = item->next)

#endif
