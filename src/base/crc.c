/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C: eight bytes a step by instruction, or by eight tables of 256. */
#include "base/crc.h"

#include <pthread.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78u /* 0x1edc6f41, lowest bit first */

static uint32_t tables[8][256];
static pthread_once_t tables_made = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
	for (uint32_t byte = 0; byte < 256; byte++) {
		uint32_t crc = byte;

		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
		tables[0][byte] = crc;
	}
	for (int k = 1; k < 8; k++)
		for (int byte = 0; byte < 256; byte++)
			tables[k][byte] = tables[k - 1][byte] >> 8 ^ tables[0][tables[k - 1][byte] & 0xff];
}

uint32_t crc32c_table(uint32_t crc, const void *data, size_t len)
{
	const uint8_t *at = data;

	pthread_once(&tables_made, make_tables);
	crc = ~crc;
	for (; len >= 8; at += 8, len -= 8)
		crc = tables[7][(crc ^ at[0]) & 0xff] ^ tables[6][(crc >> 8 ^ at[1]) & 0xff] ^
		      tables[5][(crc >> 16 ^ at[2]) & 0xff] ^ tables[4][(crc >> 24 ^ at[3]) & 0xff] ^ tables[3][at[4]] ^
		      tables[2][at[5]] ^ tables[1][at[6]] ^ tables[0][at[7]];
	for (; len > 0; at++, len--)
		crc = crc >> 8 ^ tables[0][(crc ^ *at) & 0xff];
	return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_instruction(uint32_t crc, const void *data, size_t len)
{
	const uint8_t *at = data;
	uint64_t wide = (uint32_t)~crc, word;

	for (; len >= 8; at += 8, len -= 8) {
		memcpy(&word, at, 8);
		wide = __builtin_ia32_crc32di(wide, word);
	}
	crc = (uint32_t)wide;
	for (; len > 0; at++, len--)
		crc = __builtin_ia32_crc32qi(crc, *at);
	return ~crc;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
	if (__builtin_cpu_supports("sse4.2"))
		return crc32c_instruction(crc, data, len);
	return crc32c_table(crc, data, len);
}
#else
uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
	return crc32c_table(crc, data, len);
}
#endif
