/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_SHOWN_H
#define API_SHOWN_H

#include "ca/keyring.h"
#include "net/identity.h"

/* What the server shows of itself at a handshake: its X509-SVID with what its CA's chain has in between, made once for
 * each keyring. One per thread: `{ .slot = server->keyring }` is a new one. */
struct shown {
	struct keyring_slot *slot;
	struct keyring *keyring; /* whose server certificate `identity` is */
	struct identity *identity;
};

/* A reference, or NULL: there is none yet (or, with a line in the log, none that can be shown). `ctx` is a struct
 * shown: this is the `identity` of a struct tls_options. */
struct identity *shown_identity(void *ctx);
void shown_done(struct shown *shown);

#endif
