/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMD_CSR_H
#define CMD_CSR_H

#include "base/buf.h"
#include "base/config.h"
#include "base/err.h"

/* A new P-256 key and a request for a certificate with the URI and the DNS names (SANs, no subject), both DER; the key
 * is PKCS #8, the caller wipes it. */
enum code csr_make(const char *uri, const struct strings *dns_names, struct buf *csr, struct buf *key, struct err *err);

#endif
