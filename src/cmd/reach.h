/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMD_REACH_H
#define CMD_REACH_H

#include "api/client.h"
#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define METADATA_REQUEST_ID NAME "-request-id"

/* How the commands reach a server: the socket of -socketPath, or by TLS one of a list of servers, as an admin with an
 * X509-SVID from files. With a list, whoever is unavailable is passed over: the caller asks for the next one until the
 * time of the whole call is over. */
struct reach;
struct cli_flags;

/* INVALID_ARGUMENT: flags that do not fit together, files that cannot be used. */
enum code reach_new(const struct cli_flags *flags, struct arena *arena, struct reach **out, struct err *err);
void reach_free(struct reach *reach); /* NULL is fine */
bool reach_by_tcp(const struct reach *reach);
const char *reach_server(const struct reach *reach, size_t n);         /* HOST:PORT; NULL: no more */
const struct client_options *reach_options(const struct reach *reach); /* for connections of the caller's own */

/* A connection to the server whose turn it is. */
enum code reach_open(struct reach *reach, int64_t wait_ms, struct client **out, struct err *err);

/* A call begins: its time runs from now. */
void reach_begin(struct reach *reach, const char *method);
const char *reach_request_id(const struct reach *reach); /* of the call, if it is a write by TCP; else NULL */
/* What an attempt may take: all that is left, or a part of it, if others could be asked; 1 at least. */
int64_t reach_left_ms(const struct reach *reach);
bool reach_has_others(const struct reach *reach); /* an attempt that failed is made again (maybe at the same server) */
/* To the next server, after a pause once all have been asked. False: the time is over. */
bool reach_next(struct reach *reach);

#endif
