/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_PEM_H
#define API_PEM_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>

/* Certificates as PEM (RFC 7468), read with the leniency of Go's decoder: text around the blocks, headers in them, CR
 * LF, and a block that is not well formed is passed over. */

/* Every block must be a certificate; `out` is DER from the arena. INVALID_ARGUMENT with SPIRE's texts: `no PEM blocks`,
 * `expected block type "CERTIFICATE"; got "PUBLIC KEY"`, `unable to parse "CERTIFICATE" PEM block 1: x509: malformed
 * certificate`. */
enum code pem_read_certs(const char *text, size_t len, struct arena *arena, struct span **out, size_t *n,
			 struct err *err);

/* One block, lines of 64. */
void pem_write(struct buf *out, const char *type, struct span der);

/* Whether `der` is one certificate and nothing else; INVALID_ARGUMENT `x509: malformed certificate`, `x509: trailing
 * data`. */
enum code pem_check_cert(struct span der, struct err *err);

#endif
