/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_AUTH_H
#define API_AUTH_H

#include "api/call.h"
#include "base/id.h"
#include "ca/x509.h"

#include <openssl/x509.h>

/* Who is it, and may it: the client's certificate at the handshake (server-api.md section 3), the caller of a call (2.2
 * to 2.4). */

/* --- The handshake.
 * ------------------------------------------------------------------------------------------------------- */

struct auth_peer {                    /* of a verified client certificate */
	const char *id;               /* its SPIFFE ID, in the arena given */
	char serial[SERIAL_TEXT_MAX]; /* decimal */
	int64_t not_before_s, not_after_s;
};

/* Parsed authorities of the trust domains whose members have shown themselves on this loop. */
struct trust_cache;
struct trust_cache *trust_cache_new(void);
void trust_cache_free(struct trust_cache *cache); /* NULL is fine */

/* Is this chain (leaf first) that of a client whom we let connect? On the loop's thread, without waiting; opens and
 * closes a view of the loop's reader. Reads the state at every handshake: a changed bundle counts at the next one.
 * Anything but OK: alert bad_certificate, close; the text is for a log line at DEBUG. Whether the client holds the key
 * is the TLS library's to check. Meant for SSL_CTX_set_cert_verify_callback: X509_STORE_CTX_get0_cert,
 * X509_STORE_CTX_get0_untrusted (which holds the leaf too: `chain` may be that stack as it is; every occurrence of the
 * leaf is passed over). */
enum code auth_verify_client(struct api_loop *api, X509 *leaf, STACK_OF(X509) * chain, struct arena *arena,
			     struct auth_peer *out, struct err *err);

/* The SPIFFE ID of a leaf, and whether it is one (no CA, no such key usages): UNAUTHENTICATED. */
enum code auth_leaf_id(X509 *leaf, struct arena *arena, struct spiffe_id *out, struct err *err);
enum code auth_check_leaf(X509 *leaf, struct err *err);

/* --- A call.
 * -------------------------------------------------------------------------------------------------------------- */

/* May this caller call this route? Sets caller->as and caller->via. PERMISSION_DENIED with SPIRE's text,
 * call->err->reason set if it was the agent check that said no (the one detail that a denial carries), its line in the
 * log written; INTERNAL if the state cannot be read or the renewed serial not activated. May wait: the first use of an
 * agent's renewed certificate is a command. */
enum code authorize(struct call *call);

/* A refusal for reasons of state must rest on state that the leader has confirmed as current (availability.md section
 * 2). Waits for that; *newer: this replica has moved since, so look again before you refuse. UNAVAILABLE: nobody can
 * confirm it, and so it is not to be refused either. No view may be open. A server without other members is its own
 * confirmation. */
enum code auth_confirm_no(struct call *call, bool *newer);

#endif
