/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_ENDPOINT_H
#define API_ENDPOINT_H

#include "api/server.h"
#include "base/err.h"

/* The bundle endpoint (server-operation.md 4.1): the own trust bundle for whoever asks, over TLS without a client
 * certificate, HTTP/1.1 and HTTP/2, at `/` and `/bundle`. A loop and a thread of its own: what strangers do to it, the
 * API does not feel. Every answer is of the state as it is then; a body is made once a change. */
struct endpoint;

/* Takes the port and reads the files of https_web, before anything is written. Errors name the file or the key of the
 * configuration. UNIMPLEMENTED: ACME. */
enum code endpoint_bind(struct server *server, struct endpoint **out, struct err *err);

/* Serves from here on. The state must be there. */
enum code endpoint_start(struct endpoint *endpoint, struct err *err);

/* From another thread, once it has started: the port, while its thread goes on (availability.md V1). With a cluster {} block it is closed
 * after endpoint_bind; without, open after endpoint_start. Closing hangs up on everybody; what cannot be opened is said in the log and
 * tried again. Again is harmless. */
void endpoint_set_port(struct endpoint *endpoint, bool open);

/* Hangs up on everybody; the thread has ended when it returns. NULL is fine, twice too. */
void endpoint_stop(struct endpoint *endpoint);
void endpoint_free(struct endpoint *endpoint); /* stops it, if need be; not from within a task. NULL is fine */

/* For tests: the port, if the configuration says 0. */
int endpoint_port(const struct endpoint *endpoint);

#endif
