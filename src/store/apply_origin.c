/* SPDX-License-Identifier: Apache-2.0 */
/* Parcels that have been carried out, by the start of a node that they came from (V14). A node has at most a window of
 * parcels under way, so what is below the window has been answered long ago: it is taken as repeated. */
#include "store/state.h"

#include <string.h>

enum { WINDOW = 1024, WINDOW_BYTES = WINDOW / 8, KEPT_MS = 24 * 3600 * 1000 };

static bool bit(const uint8_t *window, uint64_t sequence)
{
	return window[sequence % WINDOW / 8] >> (sequence % 8) & 1;
}

static void set_bit(uint8_t *window, uint64_t sequence, bool on)
{
	uint8_t mask = (uint8_t)(1u << (sequence % 8));
	uint8_t *byte = &window[sequence % WINDOW / 8];

	*byte = on ? *byte | mask : *byte & (uint8_t)~mask;
}

/* Starts of nodes that have been silent for a day go when a new one appears. */
static enum code forget_old(struct store *store, struct err *err)
{
	for (;;) {
		OWN_QUERY q = { 0 };
		bool row, old = false;
		int64_t boot = 0;

		TRY(query_open(store->db, SQL_ORIGIN_ALL, &q, err));
		for (;;) {
			const Pb__Origin *origin;

			TRY(query_step(&q, &row, err));
			if (!row)
				return CODE_OK;
			origin = message_unpack(&pb__origin__descriptor, column_blob(&q, 1), store->arena);
			if (origin == NULL)
				return err_set(err, CODE_DATA_LOSS, "an origin in '%s' is damaged", store->db->path);
			old = origin->stamp_ms < store->now_ms - KEPT_MS;
			boot = column_int(&q, 0);
			if (old)
				break;
		}
		query_done(&q);
		TRY(row_drop(store, TABLE_ORIGIN, CELLS(INT(boot)), NULL, err));
	}
}

static enum code origin_read(struct store *store, uint64_t boot, Pb__Origin *out, bool *found, struct err *err)
{
	OWN_QUERY q = { 0 };
	const Pb__Origin *origin;

	TRY(query_open(store->db, SQL_ORIGIN_GET, &q, err));
	query_int(&q, 1, (int64_t)boot);
	TRY(query_step(&q, found, err));
	if (!*found)
		return CODE_OK;
	origin = message_unpack(&pb__origin__descriptor, column_blob(&q, 1), store->arena);
	if (origin == NULL || origin->window.len != WINDOW_BYTES)
		return err_set(err, CODE_DATA_LOSS, "an origin in '%s' is damaged", store->db->path);
	*out = *origin;
	return CODE_OK;
}

enum code origin_note(struct store *store, uint64_t boot, uint64_t sequence, bool *repeated, struct err *err)
{
	Pb__Origin origin = PB__ORIGIN__INIT;
	struct span blob;
	bool found;

	TRY(origin_read(store, boot, &origin, &found, err));
	if (!found) {
		TRY(forget_old(store, err));
		origin.window = (ProtobufCBinaryData){ WINDOW_BYTES, arena_zalloc(store->arena, WINDOW_BYTES) };
	}
	*repeated = sequence + WINDOW <= origin.high || (sequence <= origin.high && bit(origin.window.data, sequence));
	if (*repeated)
		return CODE_OK;
	for (uint64_t between = origin.high + 1; between < sequence && between <= origin.high + WINDOW; between++)
		set_bit(origin.window.data, between, false);
	if (sequence > origin.high)
		origin.high = sequence;
	set_bit(origin.window.data, sequence, true);
	origin.stamp_ms = store->now_ms;
	blob = message_pack_arena(&origin, store->arena);
	return row_replace(store, TABLE_ORIGIN, CELLS(INT(boot), BLOB(blob)), err);
}
