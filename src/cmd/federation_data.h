/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMD_FEDERATION_DATA_H
#define CMD_FEDERATION_DATA_H

#include "base/arena.h"
#include "base/err.h"

#include "types.pb-c.h"

/* The relationships of `federation create` and `update`: one from the flags, or those of a JSON file. */

struct relationship_flags {
	const char *trust_domain, *url, *profile, *endpoint_id, *bundle_path, *bundle_format;
};

/* The default of bundle_format: its address tells it from a word that somebody typed. */
extern const char federation_pem_format[];

/* `data` "" takes the flags, else they must not be there; "-" is standard input. Texts are those of SPIRE's commands.
 */
enum code relationships_read(const struct relationship_flags *flags, const char *data, struct arena *arena,
			     Pb__FederationRelationship ***out, size_t *n, struct err *err);

#endif
