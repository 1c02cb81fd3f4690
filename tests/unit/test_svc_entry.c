/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/harness.h"
#include "lib/test.h"
#include "entry.pb-c.h"

TEST(get_needs_an_id)
{
	struct harness *h = harness_open();
	Pb__GetEntryRequest request = PB__GET_ENTRY_REQUEST__INIT;
	struct err err = { 0 };

	CHECK_CODE(harness_call(h, harness_local(), "Entry.GetEntry", &request, NULL, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "missing ID");
	harness_close(h);
}
