/* SPDX-License-Identifier: Apache-2.0 */
/* Headers and records as bytes: see wal_disk.h. */
#include "raft/wal_disk.h"

#include "base/buf.h"
#include "base/crc.h"

#include <endian.h>
#include <string.h>

enum {
	CRC_AT = 8,
	LEN_AT = 12,
	VERSION_AT = 16,
	FLAGS_AT = 20,
	NUMBERS_AT = 24,
	PREV_END_AT = 80,
	OWNER_AT = 88,
	HEADER_LEN = 128
};
enum { FLAG_RESET = 1 };

static const char magic[8] = "LOGSEG\r\n";

static uint32_t get32(const uint8_t *at)
{
	uint32_t number;

	memcpy(&number, at, 4);
	return le32toh(number);
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t number;

	memcpy(&number, at, 8);
	return le64toh(number);
}

static void put32(uint8_t *at, uint32_t number)
{
	number = htole32(number);
	memcpy(at, &number, 4);
}

static void put64(uint8_t *at, uint64_t number)
{
	number = htole64(number);
	memcpy(at, &number, 8);
}

void wal_header_encode(const struct segment_header *header, uint8_t out[HEADER_MAX])
{
	const uint64_t numbers[] = { header->number,     header->first,  header->before_term, header->chain,
				     header->prev_chain, header->log_id, header->size };

	memset(out, 0, HEADER_MAX);
	memcpy(out, magic, 8);
	put32(out + LEN_AT, HEADER_LEN);
	put32(out + VERSION_AT, WAL_FORMAT);
	put32(out + FLAGS_AT, header->reset ? FLAG_RESET : 0);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		put64(out + NUMBERS_AT + 8 * i, numbers[i]);
	put32(out + PREV_END_AT, header->prev_end);
	memcpy(out + OWNER_AT, header->owner, PAIR_OWNER_MAX);
	put32(out + CRC_AT, crc32c(0, out + LEN_AT, HEADER_LEN - LEN_AT));
}

enum header_state wal_header_decode(const uint8_t in[HEADER_MAX], struct segment_header *out, uint32_t *version)
{
	uint32_t len = get32(in + LEN_AT);
	const uint8_t *numbers = in + NUMBERS_AT;

	if (memcmp(in, magic, 8) != 0 || len < NUMBERS_AT || len > HEADER_MAX ||
	    crc32c(0, in + LEN_AT, len - LEN_AT) != get32(in + CRC_AT))
		return HEADER_BAD;
	*version = get32(in + VERSION_AT);
	if (*version > WAL_FORMAT)
		return HEADER_NEWER;
	if (len != HEADER_LEN)
		return HEADER_BAD;
	*out = (struct segment_header){
		.number = get64(numbers),
		.first = get64(numbers + 8),
		.before_term = get64(numbers + 16),
		.chain = get64(numbers + 24),
		.prev_chain = get64(numbers + 32),
		.log_id = get64(numbers + 40),
		.size = get64(numbers + 48),
		.prev_end = get32(in + PREV_END_AT),
		.reset = (get32(in + FLAGS_AT) & FLAG_RESET) != 0,
	};
	memcpy(out->owner, in + OWNER_AT, PAIR_OWNER_MAX - 1);
	return HEADER_GOOD;
}

/* What a record's crc begins with: where it belongs. */
static uint32_t crc_of_place(uint64_t chain, uint32_t offset)
{
	uint8_t place[12];

	put64(place, chain);
	put32(place + 8, offset);
	return crc32c(0, place, sizeof place);
}

void wal_record_encode(uint64_t chain, uint32_t offset, const struct record *record, struct buf *out)
{
	static const uint8_t zeros[8];
	uint8_t head[RECORD_HEADER] = { 0 };

	put32(head + 4, record->len);
	put64(head + 8, record->index);
	put64(head + 16, record->term);
	put32(head + 24, record->synced);
	head[28] = record->type;
	put32(head + 32, crc32c(0, record->data, record->len));
	put32(head, crc32c(crc_of_place(chain, offset), head + 4, RECORD_HEADER - 4));
	buf_append(out, head, RECORD_HEADER);
	if (record->len > 0)
		buf_append(out, record->data, record->len);
	buf_append(out, zeros, wal_record_size(record->len) - RECORD_HEADER - record->len);
}

bool wal_record_decode_head(uint64_t chain, uint32_t offset, const uint8_t *in, size_t len, struct record *out)
{
	if (len < RECORD_HEADER || in[28] == 0 || in[29] != 0 || in[30] != 0 || in[31] != 0)
		return false;
	if (crc32c(crc_of_place(chain, offset), in + 4, RECORD_HEADER - 4) != get32(in))
		return false;
	*out = (struct record){
		.type = in[28],
		.len = get32(in + 4),
		.index = get64(in + 8),
		.term = get64(in + 16),
		.synced = get32(in + 24),
		.data = in + RECORD_HEADER,
	};
	return true;
}

bool wal_record_decode(uint64_t chain, uint32_t offset, const uint8_t *in, size_t len, struct record *out)
{
	return wal_record_decode_head(chain, offset, in, len, out) && wal_record_size(out->len) <= len &&
	       crc32c(0, out->data, out->len) == get32(in + 32);
}
