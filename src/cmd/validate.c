/* SPDX-License-Identifier: Apache-2.0 */
/* `validate`: reads the configuration as `run` does, and starts nothing. As SPIRE 1.13.3 it judges no plugin_data and
 * counts no plugins; what this version refuses to run with (config.h) it does name. */
#include "cmd/run_flags.h"

static int invalid(const struct err *err)
{
	fprintf(stderr, "SPIRE server configuration file is invalid: %s\n", err->text);
	return 1;
}

static enum code load(const struct config_flags *flags, struct arena *arena, struct err *err)
{
	struct err ignored = { 0 };
	struct config_notes notes;
	struct config config;
	enum code rc = config_load(flags, arena, &config, &notes, err);

	/* Notes are there only once the log's options have been found good; lines go where `run` would write them. */
	if (rc != CODE_OK && notes.n == 0)
		return rc;
	if (rc == CODE_OK)
		TRY(log_open(&config.log, err));
	else
		log_open(&config.log, &ignored);
	write_notes(&notes);
	return rc;
}

int cmd_validate(int argc, char **argv)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct config_flags flags;
	struct err err = { 0 };
	enum code rc = flags_read(&validate_flags, &flags, arena, argc, argv, NULL, &err);

	if (rc == CODE_CANCELLED) {
		flags_usage(&validate_flags, stderr);
		fprintf(stderr, "%s\n", err.text);
		return 0;
	}
	if (rc != CODE_OK) {
		fprintf(stderr, "%s\n", err.text);
		flags_usage(&validate_flags, stderr);
		return invalid(&err);
	}
	if (load(&flags, arena, &err) != CODE_OK)
		return invalid(&err);
	printf("SPIRE server configuration file is valid.\n");
	return 0;
}
