/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMD_CONVERT_H
#define CMD_CONVERT_H

#include "base/arena.h"
#include "base/config.h"
#include "base/err.h"

#include "types.pb-c.h"

/* Flags into messages. Everything comes from the arena or is the flags' own. */

enum code convert_id(const char *text, struct arena *arena, Pb__SPIFFEID **out, struct err *err);

/* "type:value", split at the first ':'. */
enum code convert_selector(const char *text, struct arena *arena, Pb__Selector **out, struct err *err);
enum code convert_selectors(const struct strings *texts, struct arena *arena, Pb__Selector ***out, size_t *n,
			    struct err *err);

/* "exact", "subset", "superset", "any": the numbers of SelectorMatch and FederatesWithMatch are the same. False: none
 * of them. */
bool convert_match(const char *text, int *out);

Pb__BoolValue *convert_bool(bool value, struct arena *arena);

/* A bundle's text, for the trust domain `id` (`bundle set`, `federation create`). */
enum bundle_format {
	BUNDLE_PEM,
	BUNDLE_SPIFFE,
	BUNDLE_ANY, /* what begins with '{' is SPIFFE, the rest PEM */
};
enum code convert_bundle(const char *text, size_t len, enum bundle_format format, const char *id, struct arena *arena,
			 Pb__Bundle **out, struct err *err);

#endif
