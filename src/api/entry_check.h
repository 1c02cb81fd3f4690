/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_ENTRY_CHECK_H
#define API_ENTRY_CHECK_H

#include "api/call.h"
#include "entry.pb-c.h"

/* What clients send as an entry or a filter of entries, checked in SPIRE's order with its texts (contract
 * server-api.md 4.2). */

/* The client's entry as a new one in the arena, as the state keeps it: trust domains as plain names, federates_with
 * without duplicates; id, revision and creation time as given. `set` (api/mask.h): the fields that are to be looked at;
 * the others are taken over unseen. INVALID_ARGUMENT without "failed to convert entry: ". Entry NULL: "missing entry".
 */
enum code entry_from_proto(struct call *call, const Pb__Entry *from, uint32_t set, Pb__Entry **out, struct err *err);

/* What SPIRE's datastore refuses before it looks at its rows: INVALID_ARGUMENT "datastore-validation: ...". */
enum code entry_check_create(const Pb__Entry *entry, struct err *err);
enum code entry_check_update(const Pb__Entry *entry, uint32_t set, struct err *err);

/* `in` is that of ListEntries or CountEntries (the same fields). `what`: "list" or "count". */
enum code entry_filter_from_proto(struct call *call, const Pb__ListEntriesRequest__Filter *in, const char *what,
				  struct entry_filter *out, struct err *err);

#endif
