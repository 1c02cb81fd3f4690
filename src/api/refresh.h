/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_REFRESH_H
#define API_REFRESH_H

#include "api/server.h"
#include "base/err.h"

/* Keeps the bundles of the trust domains that this one federates with (server-operation.md 4.2): those of the
 * configuration and those of the API, the configuration first. A loop and a thread of its own with a task for each.
 * Only the node that leads polls by the clock, and another one within seconds when it is gone; whoever is asked polls.
 */
struct refresher;

/* Opens a reader of the state. */
enum code refresher_new(struct server *server, struct refresher **out, struct err *err);
void refresher_start(struct refresher *refresher);

/* Everybody who waits is answered, the thread has ended when it returns: before the loops of those who ask are freed.
 * Later requests are refused. NULL is fine. */
void refresher_stop(struct refresher *refresher);
void refresher_free(struct refresher *refresher); /* stopped, or never started; not from within a task. NULL is fine */

/* Relationships may have changed: look now, not within 10 s. Thread-safe; NULL is fine. */
void refresher_changed(struct refresher *refresher);

/* Polls now, from a task of any loop. NOT_FOUND `no relationship with trust domain "x"`; else what poll_bundle says. */
enum code refresher_refresh(struct refresher *refresher, const char *td, int64_t deadline_ms, struct err *err);

#endif
