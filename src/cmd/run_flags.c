/* SPDX-License-Identifier: Apache-2.0 */
/* What `run` and `validate` have in common. */
#include "cmd/run_flags.h"

struct options {
	struct config_flags config;
};

static const struct flag flags[] = {
	RUN_FLAGS(struct options, config),
	FLAG_END,
};

const struct flag_set validate_flags = { "validate", flags };

void write_notes(const struct config_notes *notes)
{
	for (size_t i = 0; i < notes->n; i++)
		log_write(notes->items[i].level, notes->items[i].msg, notes->items[i].pairs);
}
