/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_FOREIGN_H
#define STORE_FOREIGN_H

#include <stdbool.h>
#include <stdint.h>

/* The database of a SPIRE server that was here before. Nothing of it is taken over; who starts on such a machine should
 * hear so. */
struct foreign_rows {
	uint64_t entries, agents, bundles;
};

/* Looks into what `connection_string` of a DataStore "sql" with sqlite3 names (a path or a file: URI), without changing
 * it. False: there is no such file, it is no database of SPIRE's, or it holds none of the three. */
bool foreign_database_look(const char *connection_string, struct foreign_rows *out);

#endif
