/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/cli.h"
#include "cmd/commands.h"

#include "logger.pb-c.h"

#include <stdio.h>
#include <strings.h>

#define SERVICE "/spire.api.server.logger.v1.Logger/"

static const struct rpc get_rpc = { SERVICE "GetLogger", &pb__logger__descriptor };
static const struct rpc set_rpc = { SERVICE "SetLogLevel", &pb__logger__descriptor };
static const struct rpc reset_rpc = { SERVICE "ResetLogLevel", &pb__logger__descriptor };

struct logger_options {
	struct cli_flags cli;
	const char *level; /* of set */
};

static const struct {
	const char *word, *also;
	Pb__LogLevel level;
} levels[] = {
	{ "panic", NULL, PB__LOG_LEVEL__PANIC }, { "fatal", NULL, PB__LOG_LEVEL__FATAL },
	{ "error", NULL, PB__LOG_LEVEL__ERROR }, { "warning", "warn", PB__LOG_LEVEL__WARN },
	{ "info", NULL, PB__LOG_LEVEL__INFO },   { "debug", NULL, PB__LOG_LEVEL__DEBUG },
	{ "trace", NULL, PB__LOG_LEVEL__TRACE },
};

enum { LEVELS = sizeof levels / sizeof levels[0] };

static const char *word_of(Pb__LogLevel level)
{
	for (size_t i = 0; i < LEVELS; i++)
		if (levels[i].level == level)
			return levels[i].word;
	return NULL;
}

static enum code finish(struct cli *cli, const Pb__Logger *logger, struct err *err)
{
	const char *current = word_of(logger->current_level), *launch = word_of(logger->launch_level);

	if (cli_json(cli))
		return cli_print_json(logger, err);
	if (current == NULL || launch == NULL)
		return err_set(err, CODE_INTERNAL, "the server answered a log level that is none: %d, %d",
			       logger->current_level, logger->launch_level);
	printf("Logger Level : %s\nLaunch Level : %s\n\n", current, launch);
	return CODE_OK;
}

static enum code run_get(struct cli *cli, const void *options __attribute__((unused)), struct err *err)
{
	Pb__GetLoggerRequest request = PB__GET_LOGGER_REQUEST__INIT;
	Pb__Logger *logger;
	enum code rc = cli_call(cli, &get_rpc, &request, &logger, err);

	return rc == CODE_OK ? finish(cli, logger, err) : err_wrap(err, rc, "error fetching logger");
}

static enum code run_reset(struct cli *cli, const void *options __attribute__((unused)), struct err *err)
{
	Pb__ResetLogLevelRequest request = PB__RESET_LOG_LEVEL_REQUEST__INIT;
	Pb__Logger *logger;
	enum code rc = cli_call(cli, &reset_rpc, &request, &logger, err);

	return rc == CODE_OK ? finish(cli, logger, err) : err_wrap(err, rc, "failed to reset logger");
}

static enum code run_set(struct cli *cli, const void *options, struct err *err)
{
	const struct logger_options *o = options;
	Pb__SetLogLevelRequest request = PB__SET_LOG_LEVEL_REQUEST__INIT;
	Pb__Logger *logger;
	enum code rc;

	if (o->level[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "a value (-level) must be set");
	for (size_t i = 0; i < LEVELS; i++)
		if (strcasecmp(o->level, levels[i].word) == 0 ||
		    (levels[i].also != NULL && strcasecmp(o->level, levels[i].also) == 0))
			request.new_level = levels[i].level;
	if (request.new_level == PB__LOG_LEVEL__UNSPECIFIED)
		return err_set(err, CODE_INVALID_ARGUMENT, "the value %s is not a valid setting",
			       cli_quote(cli->arena, o->level));
	rc = cli_call(cli, &set_rpc, &request, &logger, err);
	return rc == CODE_OK ? finish(cli, logger, err) : err_wrap(err, rc, "failed to set log level");
}

static const struct flag no_flags[] = { CLI_FLAGS(struct logger_options), FLAG_END };
static const struct flag set_flags[] = {
	CLI_FLAGS(struct logger_options),
	FLAG_STRING(struct logger_options, level, "level", "",
		    "The new level: panic, fatal, error, warn, info, debug or trace"),
	FLAG_END,
};

const struct cli_command cmd_logger_get = { { "logger get", no_flags }, sizeof(struct logger_options), run_get };
const struct cli_command cmd_logger_set = { { "logger set", set_flags }, sizeof(struct logger_options), run_set };
const struct cli_command cmd_logger_reset = { { "logger reset", no_flags }, sizeof(struct logger_options), run_reset };
