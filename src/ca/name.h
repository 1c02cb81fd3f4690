/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CA_NAME_H
#define CA_NAME_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "ca/der.h"

#include <stdbool.h>

/* Distinguished names as SPIRE sees them: nine attribute types, each with its values. All values of a type become one
 * RDN, in the order of enum name_part; other attributes are forgotten. */

enum name_part {
	NAME_COUNTRY,
	NAME_PROVINCE,
	NAME_LOCALITY,
	NAME_STREET,
	NAME_POSTAL_CODE,
	NAME_ORGANIZATION,
	NAME_UNIT,
	NAME_COMMON_NAME,   /* one value: the last one wins */
	NAME_SERIAL_NUMBER, /* the same */
	NAME_PARTS,
};

struct name_value {
	struct span text; /* UTF-8 */
	struct name_value *next;
};

struct name {
	struct name_value *first[NAME_PARTS];
	bool others; /* there were attributes of other types */
};

/* `der` is one Name. INVALID_ARGUMENT if it is not well-formed. Values point into `der` or the arena. */
enum code name_parse(struct span der, struct arena *arena, struct name *out, struct err *err);
/* The same checks, nothing kept. */
enum code name_check(struct span der, struct err *err);

void name_set(struct name *name, enum name_part part, const char *text,
	      struct arena *arena); /* instead of its values */
void name_add(struct name *name, enum name_part part, const char *text, struct arena *arena); /* after its values */
bool name_empty(const struct name *name);

/* The DER of a Name; an upper bound of its length. */
size_t name_bound(const struct name *name);
void name_put(struct der_out *out, const struct name *name);
struct span name_encode(const struct name *name, struct arena *arena);

/* One RDN with one value. */
void name_put_rdn(struct der_out *out, enum name_part part, const void *text, size_t len);

#endif
