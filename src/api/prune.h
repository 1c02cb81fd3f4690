/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_PRUNE_H
#define API_PRUNE_H

#include "api/server.h"

/* Starts the tasks that take out what has ended (server-operation.md 8.6): expired entries every 5 minutes, and, if the
 * configuration says so, agents whose SVID ended long ago, once an hour. */
void prune_run(struct server *server, struct loop *loop);

#endif
