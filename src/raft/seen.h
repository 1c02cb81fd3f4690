/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_SEEN_H
#define RAFT_SEEN_H

#include "base/err.h"
#include "base/own.h"

#include <stdbool.h>
#include <stdint.h>

/* The highest start number of each member that this node has seen, and which start that was (V19): what tells a member
 * whose data directory was rolled back. A file of its own, `data_dir/node/seen`; on one thread. Feeds the rows of
 * link_set_members and keeps what link_events.started brings. */
enum { SEEN_BOOT_LEN = 16 };
struct seen;

/* A file that is missing is an empty one. DATA_LOSS: it is damaged, by name and with the remedy; INTERNAL: the system's
 * words. */
enum code seen_open(const char *path, struct seen **out, struct err *err);
void seen_close(struct seen *seen); /* NULL is fine */
OWNABLE_STRUCT(seen, seen_close)

/* False: never seen. */
bool seen_get(const struct seen *seen, uint64_t member, uint64_t *starts, uint8_t boot[SEEN_BOOT_LEN]);
/* Durable on return; a disk that fails ends the process. A lower number than is known changes nothing. */
void seen_put(struct seen *seen, uint64_t member, uint64_t starts, const uint8_t boot[SEEN_BOOT_LEN]);

#endif
