/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_ID_H
#define BASE_ID_H

#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>

/* SPIFFE IDs, trust domain names and DNS names as SPIRE accepts them (contract server-api.md 4.0, 5.7, 5.8). Texts are SPIRE's.
 * All strings come from the arena. */

struct spiffe_id {
	const char *td;   /* "example.org" */
	const char *path; /* "" or "/a/b" */
	const char *text; /* "spiffe://example.org/a/b" */
};

enum code id_parse(const char *text, struct arena *arena, struct spiffe_id *out, struct err *err);

/* From the two fields of spire.api.types.SPIFFEID; `td` may be a whole SPIFFE ID, its trust domain is taken then. */
enum code id_from_parts(const char *td, const char *path, struct arena *arena, struct spiffe_id *out, struct err *err);

/* A trust domain name or a SPIFFE ID (if it has ":/"): answers the name. */
enum code id_parse_td(const char *text, struct arena *arena, const char **td, struct err *err);

/* The validators of server-api.md 4.0: of trust domain `td`, and of the class. */
enum code id_check_member(const struct spiffe_id *id, const char *td, struct err *err);
enum code id_check_agent(const struct spiffe_id *id, const char *td, struct err *err);
enum code id_check_workload(const struct spiffe_id *id, const char *td, struct err *err);

bool id_path_is_reserved(const char *path); /* /spire or below /spire/ */

/* One path segment: letters, digits, '-', '.', '_', not "." or "..". */
enum code id_check_segment(const char *segment, struct err *err);

/* DNS names of entries and of minted SVIDs (5.8). */
enum code dns_check(const char *name, struct err *err);
/* Mint only: a name that a listed wildcard covers. */
enum code dns_check_overlap(const char *const *names, size_t n, struct err *err);

#endif
