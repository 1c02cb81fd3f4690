/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC's frames: the same bytes give the same messages however they are cut, and timeouts never go wrong. The first
 * byte says how. */
#include "api/frame.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* All messages one after the other, and what ended it. */
static enum code read_all(const uint8_t *data, size_t size, size_t step, struct buf *out, struct err *err)
{
	struct frame_reader reader = { 0 };
	enum code rc = CODE_OK;

	for (size_t from = 0; from < size && rc == CODE_OK; from += step) {
		const uint8_t *at = data + from, *end = from + step < size ? at + step : data + size;
		bool whole;

		while (at < end && rc == CODE_OK) {
			rc = frame_read(&reader, &at, end, &whole, err);
			if (rc != CODE_OK || !whole)
				continue;
			buf_printf(out, "%zu:", reader.message.len);
			buf_append(out, reader.message.data, reader.message.len);
			frame_next(&reader);
		}
	}
	frame_done(&reader);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	OWN_BUF once = { 0 }, again = { 0 };
	struct err err = { 0 };
	int64_t ns = 0;
	char text[16];

	if (size == 0)
		return 0;
	if (read_all(data + 1, size - 1, size, &once, &err) !=
		    read_all(data + 1, size - 1, data[0] % 9 + 1u, &again, &err) ||
	    once.len != again.len || (once.len > 0 && memcmp(once.data, again.data, once.len) != 0))
		abort();
	snprintf(text, sizeof text, "%.*s", (int)size, (const char *)data);
	if (frame_parse_timeout(text, &ns, &err) == CODE_OK && ns < 0)
		abort();
	return 0;
}
