/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMD_PRINT_H
#define CMD_PRINT_H

#include "types.pb-c.h"

#include <stdio.h>

/* What the commands show of a message (contract server-operation.md 2.4 to 2.7). */

void print_entry(FILE *out, const Pb__Entry *entry);
void print_agent(FILE *out, const Pb__Agent *agent);
void print_relationship(FILE *out, const Pb__FederationRelationship *relationship);

/* `Failed to <what> (code: NotFound, msg: "entry not found")` and `end`, on standard error. */
void print_failure(const Pb__Status *status, const char *end, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
