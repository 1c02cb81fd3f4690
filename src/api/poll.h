/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_POLL_H
#define API_POLL_H

#include "api/server.h"
#include "base/arena.h"
#include "net/fetch.h"
#include "types.pb-c.h"

/* One look at the bundle endpoint of another trust domain (server-operation.md 4.2). */
struct poll {
	struct server *server;
	struct reader *reader;
	struct fetcher *fetcher;
	struct arena *arena;
	const char *td, *url;
	const char *endpoint_id; /* https_spiffe; NULL: https_web */
};

/* From a task. What was fetched is stored if it is another than what is stored, authentic, whole and not older; else
 * what is stored stays. *changed: it was stored. *known: the newest bundle that there is, NULL: none; set on failure
 * too. Errors have SPIRE's words; the code tells nothing but CANCELLED and whether it is OK. */
enum code poll_bundle(const struct poll *poll, bool *changed, Pb__Bundle **known, struct err *err);

/* How long until the next look: a quarter of the bundle's hint, else of a tenth of its shortest root's life, 15 s at
 * least; a minute if there is none. `failures` in a row: from 15 s on, doubled each time, up to that. */
int64_t poll_delay_ms(const Pb__Bundle *known, unsigned failures);

#endif
