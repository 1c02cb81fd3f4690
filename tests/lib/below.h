/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_LIB_BELOW_H
#define TESTS_LIB_BELOW_H

#include "api/parent.h"
#include "lib/api_server.h"
#include "lib/workload_api.h"

/* What stands above a server: a whole server with an entry for spiffe://example.org/child (downstream), an agent's
 * Workload API that has given nothing yet, and our side of both (looks every 50 ms, tries again after 20 ms). */
struct below {
	struct api_server *above;
	struct workload_api *agent;
	struct parent *parent;
	char socket[160];
};

struct below below_open(void);
void below_close(struct below *b); /* parent first: who uses it must be gone */

/* The agent gives an SVID of the server's present authority. */
void below_admit(struct below *b, const char *id);
/* The same, to be spoilt before it is given: in the arena of above->h. */
Pb__WorkloadX509SVID *below_svid(struct below *b, const char *id);
void below_give(struct below *b, Pb__WorkloadX509SVID *svid);

/* On the server above: who signs; taint and revocation of an authority. */
const char *below_signer(struct below *b);
void below_taint(struct below *b, const char *subject_key_id);
void below_revoke(struct below *b, const char *subject_key_id);

#endif
