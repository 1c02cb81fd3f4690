/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMD_RUN_FLAGS_H
#define CMD_RUN_FLAGS_H

#include "base/config.h"
#include "cmd/flags.h"

/* The flags that `run` and `validate` share (contract server-operation.md 1.8): options are a struct config_flags. A
 * command with more of its own puts RUN_FLAGS(its struct, the member) in its table:
 *
 *   struct options { struct config_flags config; bool bootstrap; };
 *   static const struct flag flags[] = { RUN_FLAGS(struct options, config), FLAG_BOOL(...), FLAG_END }; */
#define RUN_FLAGS(type_, member)                                                                                       \
	FLAG_STRING(type_, member.bind_address, "bindAddress", "",                                                     \
		    "IP address or DNS name that the server listens on"),                                              \
		FLAG_INT(type_, member.server_port, "serverPort", 0, "Port that the server listens on"),               \
		FLAG_STRING(type_, member.config, "config", "", "Path of the configuration file"),                     \
		FLAG_STRING(type_, member.data_dir, "dataDir", "", "Directory of the server's state"),                 \
		FLAG_STRING(type_, member.log_file, "logFile", "", "File that the log goes to"),                       \
		FLAG_STRING(type_, member.log_format, "logFormat", "", "'text' or 'json'"),                            \
		FLAG_BOOL(type_, member.log_source_location, "logSourceLocation",                                      \
			  "Name the source of each line of the log"),                                                  \
		FLAG_STRING(type_, member.log_level, "logLevel", "", "'debug', 'info', 'warn' or 'error'"),            \
		FLAG_STRING(type_, member.trust_domain, "trustDomain", "", "Trust domain of the server"),              \
		FLAG_BOOL(type_, member.expand_env, "expandEnv",                                                       \
			  "Replace $NAME in the configuration file by the environment"),                               \
		FLAG_STRING(type_, member.socket_path, "socketPath", "", "Path of the socket of the local API")

extern const struct flag_set validate_flags; /* of struct config_flags */

int cmd_validate(int argc, char **argv); /* argv begins behind the word "validate" */
int cmd_run(int argc, char **argv);      /* the same behind "run" */

/* Writes what config_load or config_plugins has noted into the log. */
void write_notes(const struct config_notes *notes);

#endif
