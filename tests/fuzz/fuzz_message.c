/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of clients: what is accepted can be encoded, and that decodes to the same bytes again. The first byte picks
 * the type. */
#include "agent.pb-c.h"
#include "api/pb.h"
#include "bundle.pb-c.h"
#include "entry.pb-c.h"
#include "rpcstatus.pb-c.h"
#include "svid.pb-c.h"
#include "trustdomain.pb-c.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const ProtobufCMessageDescriptor *const types[] = {
		&pb__batch_create_entry_request__descriptor,
		&pb__list_entries_request__descriptor,
		&pb__attest_agent_request__descriptor,
		&pb__batch_set_federated_bundle_request__descriptor,
		&pb__batch_new_x509_svidrequest__descriptor,
		&pb__batch_create_federation_relationship_request__descriptor,
		&pb__rpc_status__descriptor,
	};
	OWN_STRUCT(arena) arena = arena_new();
	OWN_BUF once = { 0 }, twice = { 0 };
	const ProtobufCMessageDescriptor *type;
	struct err err = { 0 };
	void *message;

	if (size == 0)
		return 0;
	type = types[data[0] % (sizeof types / sizeof types[0])];
	if (pb_parse(type, (struct span){ data + 1, size - 1 }, arena, &message, &err) != CODE_OK) {
		if (err.text[0] == '\0')
			abort(); /* every refusal has a reason */
		return 0;
	}
	pb_encode(message, &once);
	if (pb_parse(type, (struct span){ once.data, once.len }, arena, &message, &err) != CODE_OK)
		abort();
	pb_encode(message, &twice);
	if (once.len != twice.len || (once.len > 0 && memcmp(once.data, twice.data, once.len) != 0))
		abort();
	return 0;
}
