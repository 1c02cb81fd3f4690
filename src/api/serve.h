/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_SERVE_H
#define API_SERVE_H

#include "api/server.h"
#include "base/loop.h"

/* The API on its sockets: one api loop per core, one accept loop that deals connections to them in turn (availability.md V21). */
struct serve;

/* Takes the TCP port, before anything is written anywhere: a port in use must leave no trace. With a cluster {} block it lets go of
 * it again: serve_tcp takes it when this node may answer. `main` is the accept loop; nothing is
 * accepted yet. Errors are Go's ("listen tcp 127.0.0.1:8081: bind: address already in use"). */
enum code serve_bind(struct server *server, struct loop *main, struct serve **out, struct err *err);

/* From a task of `main`, once the server can answer. Takes the UNIX socket, starts the api loops, and says "Starting Server APIs" now
 * that both listen. On failure: serve_stop. */
enum code serve_start(struct serve *serve, struct err *err);

/* From a task of `main`. Stops listening, tells every connection (GOAWAY), lets calls in flight finish for LIMIT_STOP_MS, then
 * breaks what is left; returns when the api loops have ended and are freed (server-operation.md 8.3, with its lines). NULL is fine. */
void serve_stop(struct serve *serve);

/* On main's thread. A node that may not answer holds no TCP port (availability.md V1): closes it, and tells its connections to go
 * elsewhere, calls in flight end. Opening takes the same port again. The UNIX socket stays. Nothing happens if it is so already. */
enum code serve_tcp(struct serve *serve, bool open, struct err *err);

int serve_port(const struct serve *serve); /* of TCP: the one that was given when the configuration says 0 */

#endif
