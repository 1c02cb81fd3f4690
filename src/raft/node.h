/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAFT_NODE_H
#define RAFT_NODE_H

#include "base/err.h"
#include "base/own.h"

/* What a node is apart from the replicated state: the directory `data_dir/node`, its lock, its id (contract cluster.md
 * section 1). */
struct node;

/* Makes data_dir (0755 less the umask) and node/ (0700) where they are missing, takes the lock, makes or reads the id.
 * FAILED_PRECONDITION: another process holds the directory, by name and pid. */
enum code node_open(const char *data_dir, struct node **out, struct err *err);
void node_close(struct node *node); /* releases the lock; NULL is fine */
OWNABLE_STRUCT(node, node_close)

const char *node_id(const struct node *node); /* 36 characters, made at the first start, stays for ever */

#endif
