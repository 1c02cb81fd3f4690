/* SPDX-License-Identifier: Apache-2.0 */
/* A command is the longest row of words at the start of the line that the table knows; the words before its last one
 * are groups. -h, -help and --help count wherever they stand, --version only before the command, and "--" ends both. */
#include "cmd/command.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { EXIT_UNKNOWN = 127 };

struct line {
	const struct command *commands;
	const char *program; /* argv[0] without its folder */
	bool spire;          /* called as spire-server */
	bool help, version, stray_flag;
	char words[128]; /* of the command or group that was found; "": none */
	int argc;        /* what stands behind them */
	char **argv;
};

static bool is_one_of(const char *word, const char *const list[3])
{
	return strcmp(word, list[0]) == 0 || strcmp(word, list[1]) == 0 || strcmp(word, list[2]) == 0;
}

static bool is_help(const char *word)
{
	static const char *const names[3] = { "-h", "-help", "--help" };

	return is_one_of(word, names);
}

static bool is_version(const char *word)
{
	static const char *const names[3] = { "-v", "-version", "--version" };

	return is_one_of(word, names);
}

static bool is_shown(const struct line *line, const struct command *command)
{
	return !command->ours || !line->spire;
}

/* Whether `words` are those of the command, or (group) the first of them. */
static bool begins(const char *whole, const char *words, bool group)
{
	size_t len = strlen(words);

	return strncmp(whole, words, len) == 0 && whole[len] == (group ? ' ' : '\0');
}

static const struct command *find(const struct line *line, const char *words, bool group)
{
	for (const struct command *command = line->commands; command->words != NULL; command++)
		if (is_shown(line, command) && begins(command->words, words, group))
			return command;
	return NULL;
}

static bool is_known(const struct line *line, const char *words)
{
	return find(line, words, false) != NULL || find(line, words, true) != NULL;
}

/* Takes words from argv as long as they name a command or a group. An unknown first word is kept: nothing is called so.
 */
static void take_words(struct line *line, int argc, char **argv)
{
	char words[sizeof line->words] = "";
	int taken = 0;

	for (int i = 0; i < argc; i++) {
		size_t used = strlen(words);

		if (argv[i][0] == '-' || argv[i][0] == '\0' || strchr(argv[i], ' ') != NULL ||
		    used + strlen(argv[i]) + 2 > sizeof words)
			break;
		snprintf(words + used, sizeof words - used, "%s%s", used > 0 ? " " : "", argv[i]);
		if (!is_known(line, words))
			break;
		taken = i + 1;
		memcpy(line->words, words, sizeof words);
	}
	line->argc = argc - taken;
	line->argv = argv + taken;
}

static void read_line(struct line *line, int argc, char **argv)
{
	bool found = false;

	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (is_help(argv[i])) {
			line->help = true;
		} else if (!found && is_version(argv[i])) {
			line->version = true;
		} else if (!found && argv[i][0] == '-') {
			line->stray_flag = true;
		} else if (!found && argv[i][0] != '\0') {
			found = true;
			take_words(line, argc - i, argv + i);
		}
	}
}

/* ---- help ---- */

/* The next word of `command` behind the group's; false when it is not in the group. */
static bool child_of(const struct line *line, const struct command *command, const char *group, char out[64])
{
	size_t skip = group[0] == '\0' ? 0 : strlen(group) + 1, len;

	if (!is_shown(line, command) || (skip > 0 && !begins(command->words, group, true)))
		return false;
	len = strcspn(command->words + skip, " ");
	assert(len < 64);
	memcpy(out, command->words + skip, len);
	out[len] = '\0';
	return true;
}

static bool is_leaf(const struct command *command, const char *group, const char *child)
{
	size_t skip = group[0] == '\0' ? 0 : strlen(group) + 1;

	return strcmp(command->words + skip, child) == 0;
}

/* The names in a group, each once, as the table is sorted; what a command does beside its name. */
static void list_children(const struct line *line, const char *group)
{
	char child[64], last[64] = "";
	int width = 0;

	for (const struct command *command = line->commands; command->words != NULL; command++)
		if (child_of(line, command, group, child) && (int)strlen(child) > width)
			width = (int)strlen(child);
	for (const struct command *command = line->commands; command->words != NULL; command++) {
		if (!child_of(line, command, group, child) || strcmp(child, last) == 0)
			continue;
		if (is_leaf(command, group, child))
			fprintf(stderr, "    %-*s    %s\n", width, child, command->summary);
		else
			fprintf(stderr, "    %s\n", child);
		memcpy(last, child, sizeof last);
	}
}

static void top_help(const struct line *line)
{
	fprintf(stderr, "Usage: %s [--version] [--help] <command> [<args>]\n\nAvailable commands are:\n",
		line->program);
	list_children(line, "");
	fputc('\n', stderr);
}

/* The flags of each command that is right in the group, then the list. */
static void group_help(const struct line *line, const char *group)
{
	char child[64];

	for (const struct command *command = line->commands; command->words != NULL; command++)
		if (child_of(line, command, group, child) && is_leaf(command, group, child) && command->client != NULL)
			flags_usage(&command->client->flags, stderr);
	fprintf(stderr, "This command is accessed by using one of the subcommands below.\n\nSubcommands:\n");
	list_children(line, group);
}

static int run(const struct command *command, int argc, char **argv)
{
	return command->client != NULL ? cli_main(command->client, argc, argv) : command->run(argc, argv);
}

static void command_help(const struct command *command)
{
	static char help[] = "-help";
	char *argv[] = { help, NULL };

	run(command, 1, argv);
}

int command_main(const struct command *commands, int argc, char **argv)
{
	const char *called = argc > 0 ? argv[0] : "", *slash = strrchr(called, '/');
	struct line line = { .commands = commands, .program = slash != NULL ? slash + 1 : called };
	const struct command *command;

	line.spire = strcmp(line.program, "spire-server") == 0;
	if (line.spire)
		flags_as_spire();
	read_line(&line, argc, argv);
	if (line.version) {
		fprintf(stderr, "%s\n", VERSION);
		return 0;
	}
	if (line.words[0] == '\0') {
		top_help(&line);
		return line.help ? 0 : EXIT_UNKNOWN;
	}
	command = find(&line, line.words, false);
	if (command == NULL) {
		group_help(&line, line.words);
		return line.help ? 0 : 1;
	}
	if (line.stray_flag)
		fprintf(stderr, "A flag stands before the command: flags follow it, %s %s [flags]\n\n", line.program,
			line.words);
	if (!line.help && !line.stray_flag)
		return run(command, line.argc, line.argv);
	command_help(command);
	return line.stray_flag && !line.help ? 1 : 0;
}
