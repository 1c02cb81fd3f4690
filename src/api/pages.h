/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_PAGES_H
#define API_PAGES_H

#include "api/server.h"
#include "base/loop.h"

/* The pages for machines: /live and /ready (contract server-operation.md 7.3) and Prometheus' (7.1, cluster.md section 5). */
struct pages;

/* On the main loop's thread. Health is served if the configuration asks for it; a metrics port that is taken is a WARN, as in
 * SPIRE; anything else that fails is an error. */
enum code pages_start(struct server *server, struct loop *loop, struct pages **out, struct err *err);
void pages_stop(struct pages *pages); /* on the loop's thread; NULL is fine */

#endif
