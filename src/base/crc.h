/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_CRC_H
#define BASE_CRC_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32C (Castagnoli, as in RFC 3720) of `data`, going on from `crc` (0 to begin): crc32c(crc32c(0, a), b) is that of
 * a followed by b. By the processor's instruction where it has one. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);
uint32_t crc32c_table(uint32_t crc, const void *data, size_t len); /* the same without the instruction: for tests */

#endif
