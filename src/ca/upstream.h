/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CA_UPSTREAM_H
#define CA_UPSTREAM_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/own.h"
#include "ca/key.h"

/* CAs that stand above ours (contract server-operation.md 3.3, 6.3): UpstreamAuthority "disk", and the check of what
 * any of them answers. The request that they sign is made by x509_request_ca. */

/* Is `chain` (DER; first the CA certificate of `key`, then those above it) usable under `roots`? A CA with the right
 * key usages, no other URI SAN than the trust domain's id, valid now; and an SVID that it signs verifies up to a root.
 * INTERNAL, with SPIRE's text behind "X509 CA minted by upstream authority is invalid: ". */
enum code upstream_check(EVP_PKEY *key, const struct span *chain, size_t n_chain, const struct span *roots,
			 size_t n_roots, const char *trust_domain, int64_t now_s, struct err *err);

struct upstream_disk_options {
	const char *cert_file_path, *key_file_path;
	const char *bundle_file_path; /* NULL or "": the CA is self-signed, and the root */
};

/* Not thread-safe. */
struct upstream_disk;

/* Reads the files. INVALID_ARGUMENT: options missing, a file unreadable, key and certificate that do not match, a
 * certificate that the bundle does not verify. */
enum code upstream_disk_open(const struct upstream_disk_options *options, int64_t now_s, struct upstream_disk **out,
			     struct err *err);
void upstream_disk_close(struct upstream_disk *disk);
OWNABLE_STRUCT(upstream_disk, upstream_disk_close)

struct upstream_minted {    /* all in the arena */
	struct span *chain; /* the new CA certificate, then those above it without the root */
	size_t n_chain;
	struct span *roots;
	size_t n_roots;
};

/* Signs a request of ours. The files are read again first; when that fails, what was read last is used. `ttl_s` <= 0:
 * an hour. INTERNAL "unable to sign CSR: ...". */
enum code upstream_disk_mint(struct upstream_disk *disk, struct span csr, const char *trust_domain, int64_t ttl_s,
			     int64_t now_s, struct arena *arena, struct upstream_minted *out, struct err *err);

#endif
