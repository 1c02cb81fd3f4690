/* SPDX-License-Identifier: Apache-2.0 */
/* The frame of the commands: which words run what, exit codes, files, numbers. */
#include "cmd/cli.h"
#include "cmd/command.h"

#include "lib/test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* What `argv` answers: the exit code; standard output and error together in `text`. */
struct answer {
	int code;
	char text[4096];
};

static char ran[256]; /* the command that ran, and its arguments */

static int note(const char *name, int argc, char **argv)
{
	snprintf(ran, sizeof ran, "%s:", name);
	for (int i = 0; i < argc; i++)
		snprintf(ran + strlen(ran), sizeof ran - strlen(ran), " %s", argv[i]);
	return 0;
}

static int run_top(int argc, char **argv)
{
	return note("top", argc, argv);
}

static int run_ours(int argc, char **argv)
{
	return note("ours", argc, argv);
}

struct thing_options {
	struct cli_flags cli;
	bool fail;
};

static enum code run_thing(struct cli *cli, const void *options, struct err *err)
{
	const struct thing_options *o = options;

	snprintf(ran, sizeof ran, "thing %s", cli_json(cli) ? "json" : "pretty");
	if (o->fail)
		return err_set(err, CODE_NOT_FOUND, "no such thing");
	printf("done\n");
	return CODE_OK;
}

static const struct flag thing_flags[] = {
	CLI_FLAGS(struct thing_options),
	FLAG_BOOL(struct thing_options, fail, "fail", "Fail"),
	FLAG_END,
};
static const struct cli_command thing = { { "a thing", thing_flags }, sizeof(struct thing_options), run_thing };

static const struct command table[] = {
	{ "a deep x do", "x", &thing },
	{ "a deep y do", "y", &thing },
	{ "a thing", "Does a thing", &thing },
	{ "b", "Top", .run = run_top },
	{ "c", "Ours", .run = run_ours, .ours = true },
	{ 0 },
};

static struct answer answer(const char *line)
{
	struct answer out = { 0 };
	char words[256], *argv[16], path[128];
	int argc = 0, saved[2] = { dup(1), dup(2) }, fd;
	ssize_t got;

	snprintf(words, sizeof words, "%s", line);
	for (char *at = words; *at != '\0' && argc < 15; argc++) {
		argv[argc] = at;
		at += strcspn(at, "|");
		if (*at != '\0')
			*at++ = '\0';
	}
	argv[argc] = NULL;
	snprintf(path, sizeof path, "%s/out", test_dir());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	fflush(stdout);
	dup2(fd, 1);
	dup2(fd, 2);
	ran[0] = '\0';
	out.code = command_main(table, argc, argv);
	fflush(stdout);
	dup2(saved[0], 1);
	dup2(saved[1], 2);
	got = pread(fd, out.text, sizeof out.text - 1, 0);
	out.text[got > 0 ? got : 0] = '\0';
	close(saved[0]);
	close(saved[1]);
	close(fd);
	return out;
}

static void check(const char *line, int code, const char *what)
{
	struct answer got = answer(line);

	print_message("%s\n", line);
	CHECK_NUM(got.code, code);
	CHECK_STR(ran, what);
}

TEST(words_pick_the_command_and_the_rest_is_its_own)
{
	check("/bin/spire-server|b", 0, "top:");
	check("spire-server|b|-x|y|z", 0, "top: -x y z");
	check("spire-server|b|stray|words", 0, "top: stray words");
	check("spire-server|a|thing", 0, "thing pretty");
	check("spire-server|a|thing|-output|JSON", 0, "thing json");
	check("spire-server|a|thing|stray|-fail", 0, "thing pretty");
	check("spire-server|a|deep|x|do", 0, "thing pretty");
	check("spire-server|a|thing|-fail", 1, "thing pretty");
	check("spire-server|b|--|-h", 0, "top: -- -h");
}

TEST(what_is_no_command)
{
	check("spire-server", 127, "");
	check("spire-server|bogus", 127, "");
	check("spire-server|-x", 127, "");
	check("spire-server|--|b", 127, "");
	check("spire-server|a thing", 127, "");
	check("spire-server|thing", 127, "");
	check("spire-server|a", 1, "");
	check("spire-server|a|bogus", 1, "");
	check("spire-server|a|-bogus", 1, "");
	check("spire-server|a|deep", 1, "");
	check("spire-server|-x|a|thing", 1, "");
	check("spire-server|a|thing|-bogus", 1, "");
}

TEST(help_and_version_are_no_mistakes)
{
	check("spire-server|--help", 0, "");
	check("spire-server|-h", 0, "");
	check("spire-server|a|--help", 0, "");
	check("spire-server|a|thing|-fail|-help", 0, "");
	check("spire-server|--help|a|thing", 0, "");
	check("spire-server|b|-x|-h", 0, "top: -help");
	check("spire-server|-v", 0, "");
	check("spire-server|--version|a|thing", 0, "");
	CHECK_STR(answer("spire-server|-version").text, VERSION "\n");
	check("spire-server|a|thing|-v", 1, "");
}

TEST(the_lists_of_commands)
{
	CHECK_STR(answer("x/spire-server").text, "Usage: spire-server [--version] [--help] <command> [<args>]\n\n"
						 "Available commands are:\n    a\n    b    Top\n\n");
	CHECK_STR(answer("other").text, "Usage: other [--version] [--help] <command> [<args>]\n\n"
					"Available commands are:\n    a\n    b    Top\n    c    Ours\n\n");
	CHECK_STR(answer("spire-server|a|deep").text,
		  "This command is accessed by using one of the subcommands below.\n\n"
		  "Subcommands:\n    x\n    y\n");
	CHECK(strncmp(answer("spire-server|a").text, "Usage of a thing:\n  -fail\n", 26) == 0);
	CHECK(strstr(answer("spire-server|a").text, "Subcommands:\n    deep\n    thing    Does a thing\n") != NULL);
}

TEST(commands_of_our_own_are_unknown_under_the_other_name)
{
	check("spire-server|c", 127, "");
	check("other|c|1", 0, "ours: 1");
}

TEST(errors_go_to_standard_error_with_code_1)
{
	CHECK_STR(answer("spire-server|a|thing|-fail").text, "Error: no such thing\n");
	CHECK_STR(answer("spire-server|a|thing").text, "done\n");
	CHECK(strncmp(answer("spire-server|a|thing|-output|x").text,
		      "invalid value \"x\" for flag -output: bad formatter flag: unknown format option: \"x\"\nUsage "
		      "of a thing:\n",
		      100) == 0);
	CHECK(strstr(answer("spire-server|a|thing|-output|json|-output|pretty").text,
		     "the output format has already been set to \"json\"") != NULL);
	check("spire-server|a|thing|-output|json|-output|Json", 0, "thing json");
	check("spire-server|a|thing|-output|prettyprint|-output|pretty", 0, "thing pretty");
}

TEST(a_standard_output_that_cannot_be_written_is_an_error)
{
	char full[] = "a", word[] = "thing", *argv[] = { full, full, word, NULL };
	int saved = dup(1), fd = open("/dev/full", O_WRONLY), code;

	fflush(stdout);
	dup2(fd, 1);
	code = command_main(table, 3, argv);
	clearerr(stdout);
	dup2(saved, 1);
	close(fd);
	close(saved);
	CHECK_NUM(code, 1);
}

TEST(paths_are_joined_and_cleaned)
{
	static const struct {
		const char *dir, *name, *want;
	} cases[] = {
		{ "/tmp", "key.pem", "/tmp/key.pem" },
		{ "/tmp/", "key.pem", "/tmp/key.pem" },
		{ ".", "key.pem", "key.pem" },
		{ "", "key.pem", "key.pem" },
		{ "..", "key.pem", "../key.pem" },
		{ "a/..", "k", "k" },
		{ "a//b/./c", "k", "a/b/c/k" },
		{ "a/b/..", "k", "a/k" },
		{ "../../a", "k", "../../a/k" },
		{ "a/../..", "k", "../k" },
		{ "/..", "k", "/k" },
		{ "/a/../../b", "k", "/b/k" },
		{ "a/..", NULL, "." },
		{ "/", NULL, "/" },
		{ "./x", NULL, "x" },
		{ "..a/b..", "k", "..a/b../k" },
		{ "a/...", "..", "a" },
	};
	OWN_STRUCT(arena) arena = arena_new();

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		CHECK_STR(cli_join_path(arena, cases[i].dir, cases[i].name), cases[i].want);
}

TEST(files_are_written_with_their_mode)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct span data = { (const uint8_t *)"secret", 6 }, got;
	struct err err = { 0 };
	struct stat st;
	char path[128];

	snprintf(path, sizeof path, "%s/key.pem", test_dir());
	fclose(fopen(path, "w"));
	chmod(path, 0666);
	CHECK_CODE(cli_write_file(path, data, 0600, &err), CODE_OK);
	CHECK_NUM(stat(path, &st), 0);
	CHECK_NUM(st.st_mode & 0777, 0600);
	CHECK_CODE(cli_read_file(path, arena, &got, &err), CODE_OK);
	CHECK_NUM(got.len, 6);
	CHECK_BYTES(got.data, "secret", 6);
	CHECK_CODE(cli_write_file("/nowhere/key.pem", data, 0600, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "open /nowhere/key.pem: no such file or directory");
	CHECK_CODE(cli_write_file("/dev/full", data, 0666, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "write /dev/full: no space left on device");
	CHECK_CODE(cli_read_file("/dev/zero", arena, &got, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "read /dev/zero: more than 64 MiB");
}

TEST(lifetimes_are_rounded_up_and_must_fit)
{
	struct err err = { 0 };
	int32_t out;

	CHECK_CODE(cli_ttl_seconds(1500000000, &out, &err), CODE_OK);
	CHECK_NUM(out, 2);
	CHECK_CODE(cli_ttl_seconds(1, &out, &err), CODE_OK);
	CHECK_NUM(out, 1);
	CHECK_CODE(cli_ttl_seconds(0, &out, &err), CODE_OK);
	CHECK_NUM(out, 0);
	CHECK_CODE(cli_ttl_seconds(-1000000000, &out, &err), CODE_OK);
	CHECK_NUM(out, 0);
	CHECK_CODE(cli_ttl_seconds(INT64_C(2562047) * 3600 * 1000000000, &out, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "overflow converting time.Duration(9.2233692s) to int32");
	CHECK_CODE(cli_int32(INT32_MIN, &out, &err), CODE_OK);
	CHECK_CODE(cli_int32(INT64_C(2147483648), &out, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "overflow converting int(2147483648) to int32");
}
