/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NET_FETCH_H
#define NET_FETCH_H

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"

#include <openssl/x509.h>

/* GETs over HTTPS to servers that strangers run, for the tasks of one loop. TLS 1.2 and later; a connection for each
 * request, none is resumed; proxies as the environment says (HTTPS_PROXY, NO_PROXY). A redirect is followed to the same
 * host and port only. */
struct fetcher;
struct fetcher *fetcher_new(struct loop *loop); /* on the loop's thread, or before it runs */
void fetcher_free(struct fetcher *fetcher);     /* after its loop; NULL is fine */

/* May the holder of this chain answer? `leaf` is in `chain` too. */
typedef enum code fetch_verify_fn(void *ctx, X509 *leaf, STACK_OF(X509) * chain, struct err *err);

struct fetch_request {
	const char *url;
	/* NULL: the chain must lead to one of the system's roots, and the certificate must name the URL's host. */
	fetch_verify_fn *verify;
	void *ctx;
	size_t max;         /* bytes of an answer; a larger one is an error */
	int64_t timeout_ms; /* for all of it */
};

struct fetch_answer {
	int status;
	struct buf body;
	char *leaf_uri;   /* the first URI in the server's certificate, NULL if it has none: set on failure too */
	bool unauthentic; /* it failed at who the server is */
};
void fetch_answer_done(struct fetch_answer *answer);
#define OWN_FETCH_ANSWER __attribute__((cleanup(fetch_answer_done))) struct fetch_answer

/* From a task of the loop; `out` is zeroed. OK: an answer came, whatever its status. UNAVAILABLE, DEADLINE_EXCEEDED,
 * RESOURCE_EXHAUSTED (too large), PERMISSION_DENIED (not followed, or `verify`'s no): what went wrong, in Go's words
 * where it has some, without the URL. CANCELLED: the task was. */
enum code fetch(struct fetcher *fetcher, const struct fetch_request *request, struct fetch_answer *out,
		struct err *err);

#endif
