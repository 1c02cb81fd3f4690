/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_COPY_H
#define STORE_COPY_H

#include "store/store.h"

enum { STORE_COPY_WAL_MAX = 512 << 20 };

/* Writes the state as of one moment into the file `to` (made, 0600; on failure it is removed again): one file without a
 * WAL, that store_open takes. Readers and the writer go on meanwhile; the WAL cannot start over until it is done, so it
 * is given up when that passes `wal_max` bytes (RESOURCE_EXHAUSTED). `go_on` is asked after each 256 KiB; false:
 * CANCELLED. From any thread; blocks. The file is not synced yet. The triple lives in the arena. A failure here is not
 * one of the state: an alarm, no reason to stop. */
enum code store_copy(const char *from, const char *to, uint64_t wal_max, bool (*go_on)(void *ctx), void *ctx,
		     struct arena *arena, struct store_triple *out, struct err *err);

#endif
