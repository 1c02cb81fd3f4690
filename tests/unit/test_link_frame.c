/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"
#include "base/rand.h"
#include "lib/test.h"
#include "raft/link_frame.h"

#include <stdlib.h>

static struct err err;

enum { ALL = 0xfff };

static void put_sample(struct buf *out, int i)
{
	static const size_t sizes[] = { 0, 1, 7, 100, 4096, 70000, 300000 };
	size_t len = sizes[i % 7];
	uint8_t *body = xmalloc(len + 1);

	memset(body, i, len);
	link_frame_put(out, LINK_FRAME_RAFT, body, len);
	free(body);
}

TEST(frames_come_out_as_they_went_in_however_they_are_cut)
{
	OWN_BUF wire = { 0 };

	for (int i = 0; i < 30; i++)
		put_sample(&wire, i);
	for (size_t step = 1; step < 200000; step = step * 3 + 1) {
		struct link_frame_reader reader = { 0 };
		int got = 0;

		for (size_t at = 0; at < wire.len; at += step) {
			const uint8_t *data = wire.data + at;
			size_t len = wire.len - at < step ? wire.len - at : step;
			struct link_frame frame;
			bool bad;

			while (link_frame_next(&reader, &data, &len, ALL, &frame, &bad, &err)) {
				OWN_BUF want = { 0 };

				put_sample(&want, got++);
				CHECK_NUM(frame.type, LINK_FRAME_RAFT);
				CHECK_NUM(frame.body.len, want.len - LINK_FRAME_HEADER);
				CHECK_BYTES(frame.body.data, want.data + LINK_FRAME_HEADER, frame.body.len);
			}
			CHECK(!bad);
			CHECK_NUM(len, 0);
		}
		CHECK_NUM(got, 30);
		link_frame_reader_done(&reader);
	}
}

static bool refused(const void *bytes, size_t n, uint32_t allowed, size_t *memory)
{
	struct link_frame_reader reader = { 0 };
	const uint8_t *data = bytes;
	struct link_frame frame;
	bool bad = false;

	while (link_frame_next(&reader, &data, &n, allowed, &frame, &bad, &err))
		;
	*memory = reader.body.cap;
	link_frame_reader_done(&reader);
	return bad;
}

TEST(lies_about_lengths_cost_nothing)
{
	size_t memory;

	CHECK(refused("\x01\xff\xff\xff\xff", 5, ALL, &memory));
	CHECK_STR(err.text, "a frame of type 1 claims 4294967295 bytes, 4096 are allowed");
	CHECK_NUM(memory, 0);
	CHECK(refused("\x01\x00\x00\x10\x01", 5, ALL, &memory));
	CHECK(!refused("\x01\x00\x00\x10\x00", 5, ALL, &memory));
	CHECK_NUM(memory, 0); /* claimed, not come */
	CHECK(!refused("\x04\x00\x10\x00\x00x", 6, ALL, &memory));
	CHECK(memory < 4096);
}

TEST(types_that_are_none_or_do_not_belong_there_are_refused)
{
	size_t memory;

	CHECK(refused("\x00", 1, ALL, &memory));
	CHECK(refused("\x16\x03\x01", 3, ALL, &memory));
	CHECK(refused("GET / HTTP/1.1", 14, ALL, &memory));
	CHECK_STR(err.text, "a frame of type 71 does not belong here");
	CHECK(refused("\x04\x00\x00\x00\x01x", 6, 1u << LINK_FRAME_HELLO, &memory));
	CHECK_STR(err.text, "a frame of type 4 does not belong here");
	for (int type = 12; type < 256; type++) {
		uint8_t bytes[] = { (uint8_t)type, 0, 0, 0, 0 };

		CHECK(refused(bytes, sizeof bytes, UINT32_MAX, &memory));
	}
}

TEST(noise_never_breaks_the_reader)
{
	for (int round = 0; round < 20000; round++) {
		uint8_t noise[64];
		size_t memory;

		rand_bytes(noise, sizeof noise);
		noise[0] = (uint8_t)(1 + noise[0] % 11);
		noise[1] = 0;
		noise[2] = 0;
		noise[3] = 0;
		refused(noise, 1 + noise[5] % 63, ALL, &memory);
		CHECK(memory <= 4096);
	}
}

TEST(numbers_are_big_endian)
{
	OWN_BUF out = { 0 };

	link_frame_u64(&out, UINT64_C(0x0102030405060708));
	link_frame_u32(&out, 0x090a0b0c);
	CHECK_BYTES(out.data, "\1\2\3\4\5\6\7\10\11\12\13\14", 12);
	CHECK(link_frame_get_u64(out.data) == UINT64_C(0x0102030405060708));
	CHECK(link_frame_get_u32(out.data + 8) == 0x090a0b0c);
}
