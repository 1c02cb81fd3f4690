/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of peers: whatever is accepted encodes to the same bytes, and nothing else happens. */
#include "raft/codec.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct peer_message message;
	struct err err = { 0 };
	OWN_BUF back = { 0 };

	if (peer_decode(data, size, 2, 1, &message, &err) != CODE_OK) {
		if (err.text[0] == '\0')
			abort(); /* every refusal has a reason */
		return 0;
	}
	peer_encode(&message, &back);
	if (back.len != size || memcmp(back.data, data, size) != 0)
		abort();
	peer_message_done(&message);
	return 0;
}
