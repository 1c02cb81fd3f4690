/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMD_COMMAND_H
#define CMD_COMMAND_H

#include "cmd/cli.h"

#include <stdbool.h>
#include <stddef.h>

/* The command line: which words are which command, and the help (contract server-operation.md 2.1). */

struct command {
	const char *words;                 /* "localauthority x509 show"; all but the last name groups */
	const char *summary;               /* for the list of commands */
	const struct cli_command *client;  /* a client of a server; or: */
	int (*run)(int argc, char **argv); /* anything else: what stands behind the words; the exit code. Knows -help */
	bool ours;                         /* SPIRE has no such command: unknown under the name spire-server */
};

/* Runs what argv asks for. The table is ended by `words` NULL and sorted by them. The exit code: 127 for what is no
 * command. */
int command_main(const struct command *commands, int argc, char **argv);

#endif
