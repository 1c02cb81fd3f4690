/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NET_LISTENER_H
#define NET_LISTENER_H

#include "base/err.h"
#include "base/loop.h"

/* A listening socket on one loop (the accept loop). What it accepts it hands on as a descriptor, non-blocking and close-on-exec,
 * TCP with TCP_NODELAY. Out of descriptors it waits a moment instead of spinning, and says so once. */
struct listener;

/* Called on the loop's thread; the descriptor is the callee's from there on. */
typedef void listener_fn(void *ctx, int fd);

/* Binds and listens at once; connections come once listener_accept has been called and the loop runs. Errors are Go's:
 * UNAVAILABLE "listen tcp 127.0.0.1:8081: bind: address already in use". 0.0.0.0 means IPv6 too, as in Go. Port 0: any. */
enum code listener_tcp(struct loop *loop, const char *address, int port, struct listener **out, struct err *err);

/* What listener_unix would say at once, before anything is made. */
enum code listener_unix_check(const char *path, struct err *err);

/* Levels of the directory that are missing are made with 0750, a stale file is removed, the socket gets 0770. */
enum code listener_unix(struct loop *loop, const char *path, struct listener **out, struct err *err);

void listener_accept(struct listener *listener, listener_fn *accepted, void *ctx);

const char *listener_address(const struct listener *listener); /* "127.0.0.1:8081", "[::]:8081" or the path */
int listener_port(const struct listener *listener);            /* 0 for a UNIX socket */

/* On the loop's thread. The port is free at once, the socket's file is gone. NULL is fine. */
void listener_close(struct listener *listener);

#endif
