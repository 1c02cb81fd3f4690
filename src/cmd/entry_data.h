/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMD_ENTRY_DATA_H
#define CMD_ENTRY_DATA_H

#include "base/arena.h"
#include "base/config.h"
#include "base/err.h"

#include "types.pb-c.h"

/* The JSON files of the entry commands. `path` "-": standard input. */

/* -data of create and update: {"entries": [...]} with the fields of SPIRE's RegistrationEntry. */
enum code entry_read_data(const char *path, struct arena *arena, Pb__Entry ***out, size_t *n, struct err *err);

/* -file of delete: {"ids": [...]}. */
enum code entry_read_ids(const char *path, struct arena *arena, struct strings *out, struct err *err);

#endif
