/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NET_LEAN_H
#define NET_LEAN_H

#include <openssl/types.h>

/* OpenSSL with the algorithms that TLS between SPIFFE peers needs and no others. OpenSSL 3.0 looks through all the key
 * types and decoders there are for each certificate that a peer shows: with the whole of its default provider this
 * costs more than verifying a signature. NULL: it could not be made, and the common context does as well. Made once,
 * for the process. */
OSSL_LIB_CTX *lean_context(void);

#endif
