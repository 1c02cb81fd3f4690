/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_IDNA_H
#define BASE_IDNA_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* Whether an ASCII domain name (no dot at the end, not empty) is what Unicode's UTS 46 makes of itself, as Go's idna
 * package checks it for SPIRE: labels of 1 to 63 bytes, 253 in all, no hyphen at a label's ends nor as its third and
 * fourth, and each "xn--" label decodes to text that is allowed in a name and encodes back to the same bytes. ASCII
 * labels may hold any characters. CODE_INVALID_ARGUMENT with Go's texts ("idna error\nidna: invalid label ..."). */
enum code idna_check(const char *domain, struct err *err);

/* RFC 3492. `runes` has room for `len` numbers. Answers how many, -1 for what is not Punycode. */
ptrdiff_t punycode_decode(const char *text, size_t len, uint32_t *runes);

#endif
