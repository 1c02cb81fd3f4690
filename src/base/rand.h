/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_RAND_H
#define BASE_RAND_H

#include <stddef.h>
#include <stdint.h>

/* Random bytes of the system's generator; a failure ends the process. A simulation may seed its own (rand_use_seed). */
void rand_bytes(void *out, size_t len);
uint64_t rand_u64(void);
double rand_unit(void); /* [0, 1) */

void rand_uuid4(char out[37]); /* RFC 9562: 122 random bits */
void rand_uuid7(char out[37]); /* RFC 9562: time-ordered, so that rows arrive in key order */

/* From here on this process' random bytes follow from the seed: simulations only. */
void rand_use_seed(uint64_t seed);

#endif
