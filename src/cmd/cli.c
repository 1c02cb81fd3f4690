/* SPDX-License-Identifier: Apache-2.0 */
/* The frame of the commands that talk to a server: flags, the connection, files, how errors look. */
#include "cmd/cli.h"

#include "api/client.h"
#include "base/gotext.h"
#include "base/limits.h"
#include "cmd/print_json.h"
#include "cmd/reach.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRAILER_STALE NAME "-stale"

static enum code flush(struct err *err)
{
	if (fflush(stdout) != 0 || ferror(stdout) != 0)
		return err_errno(err, CODE_INTERNAL, errno, "write", "/dev/stdout");
	return CODE_OK;
}

/* Words may stand before the flags, too: `cluster remove n3 -socketPath x`. */
static bool parse(const struct cli_command *command, struct cli *cli, void *options, int argc, char **argv, int *status)
{
	int before = 0;
	char **words;

	if (!command->words)
		return flags_parse(&command->flags, options, cli->arena, argc, argv, NULL, status);
	while (before < argc && argv[before][0] != '-')
		before++;
	if (!flags_parse(&command->flags, options, cli->arena, argc - before, argv + before, &cli->rest, status))
		return false;
	words = arena_alloc(cli->arena, (size_t)(before + cli->rest.argc + 1) * sizeof *words);
	memcpy(words, argv, (size_t)before * sizeof *words);
	memcpy(words + before, cli->rest.argv, (size_t)cli->rest.argc * sizeof *words);
	cli->rest = (struct flag_rest){ before + cli->rest.argc, words };
	return true;
}

int cli_main(const struct cli_command *command, int argc, char **argv)
{
	OWN_STRUCT(arena) arena = arena_new();
	void *options = arena_zalloc(arena, command->options_size);
	struct cli cli = { .arena = arena, .flags = options };
	struct err err = { 0 }, broken = { 0 };
	enum code rc, written;
	int status;

	if (!parse(command, &cli, options, argc, argv, &status))
		return status;
	rc = command->run(&cli, options, &err);
	client_close(cli.client);
	reach_free(cli.reach);
	written = flush(&broken);
	if (rc == CODE_OK && written != CODE_OK)
		err = broken;
	if (rc == CODE_OK && written == CODE_OK)
		return 0;
	fprintf(stderr, "Error: %s\n", err.text);
	return cli.exit_code != 0 ? cli.exit_code : 1;
}

/* Each use must agree with the one before. */
enum code cli_set_output(void *field, const char *text, struct arena *arena __attribute__((unused)), struct err *err)
{
	enum output *output = field, wanted = OUTPUT_UNSET;
	OWN_BUF quoted = { 0 };

	if (strcasecmp(text, "json") == 0)
		wanted = OUTPUT_JSON;
	else if (strcasecmp(text, "pretty") == 0 || strcasecmp(text, "prettyprint") == 0)
		wanted = OUTPUT_PRETTY;
	if (wanted == OUTPUT_UNSET) {
		go_quote(&quoted, text);
		return err_set(err, CODE_INVALID_ARGUMENT, "bad formatter flag: unknown format option: %s",
			       buf_text(&quoted));
	}
	if (*output != OUTPUT_UNSET && *output != wanted)
		return err_set(err, CODE_INVALID_ARGUMENT, "the output format has already been set to \"%s\"",
			       *output == OUTPUT_JSON ? "json" : "pretty");
	*output = wanted;
	return CODE_OK;
}

enum code cli_reach(struct cli *cli, struct reach **out, struct err *err)
{
	if (cli->reach == NULL)
		TRY(reach_new(cli->flags, cli->arena, &cli->reach, err));
	*out = cli->reach;
	return CODE_OK;
}

enum code cli_connect(struct cli *cli, struct err *err)
{
	struct reach *reach;

	TRY(cli_reach(cli, &reach, err));
	return cli->client != NULL ? CODE_OK : reach_open(cli->reach, INT64_MAX, &cli->client, err);
}

/* A node without a leader has answered with what it knows (cluster.md section 4): said once, beside the answer. */
static void warn_stale(struct cli *cli)
{
	const char *age_s = client_trailer(cli->client, TRAILER_STALE);

	if (age_s == NULL || cli->said_stale)
		return;
	cli->said_stale = true;
	fflush(stdout);
	fprintf(stderr, "Warning: the server hears no leader: this is what it knew %s seconds ago\n", age_s);
}

/* One attempt, at the server whose turn it is. */
static enum code attempt(struct cli *cli, const struct rpc *rpc, const void *request, int64_t left_ms, void **reply,
			 struct err *err)
{
	enum code rc;

	if (cli->client == NULL)
		TRY(reach_open(cli->reach, left_ms, &cli->client, err));
	client_metadata(cli->client, METADATA_REQUEST_ID, reach_request_id(cli->reach));
	client_timeout(cli->client, left_ms);
	cli->sent = true;
	rc = client_call(cli->client, rpc->method, request, rpc->reply, cli->arena, reply, err);
	if (rc != CODE_OK && client_trailer(cli->client, "grpc-status") == NULL)
		cli->lost = true;
	if (rc == CODE_OK)
		warn_stale(cli);
	return rc;
}

static enum code call(struct cli *cli, const struct rpc *rpc, const void *request, void **reply, struct err *err)
{
	struct reach *reach;
	int64_t left_ms;
	enum code rc;

	cli->sent = cli->lost = false;
	TRY(cli_reach(cli, &reach, err));
	reach_begin(reach, rpc->method);
	do {
		left_ms = reach_left_ms(reach);
		rc = attempt(cli, rpc, request, left_ms, reply, err);
		if ((rc != CODE_UNAVAILABLE && rc != CODE_DEADLINE_EXCEEDED) || !reach_has_others(reach))
			return rc;
		client_close(cli->client);
		cli->client = NULL;
	} while (reach_next(reach));
	return rc;
}

enum code cli_call(struct cli *cli, const struct rpc *rpc, const void *request, void *reply, struct err *err)
{
	void *message = NULL;
	enum code rc = call(cli, rpc, request, &message, err);

	if (rc != CODE_OK)
		return err_set(err, rc, "rpc error: code = %s desc = %s", code_name((int)rc), err->text);
	memcpy(reply, &message, sizeof message);
	return CODE_OK;
}

bool cli_json(const struct cli *cli)
{
	return cli->flags->output == OUTPUT_JSON;
}

enum code cli_print_json(const void *message, struct err *err)
{
	OWN_BUF out = { 0 };

	print_json(&out, message);
	buf_put(&out, '\n');
	fwrite(out.data, 1, out.len, stdout);
	return flush(err);
}

/* ---- files ---- */

static void close_fd(int *fd)
{
	if (*fd > STDERR_FILENO)
		close(*fd);
}

#define OWN_FD __attribute__((cleanup(close_fd))) int

enum code cli_read_file(const char *path, struct arena *arena, struct span *out, struct err *err)
{
	OWN_FD fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	OWN_BUF bytes = { 0 };
	ssize_t got;

	if (fd < 0)
		return err_errno(err, CODE_INVALID_ARGUMENT, errno, "open", path);
	do {
		if (bytes.len > LIMIT_INPUT)
			return err_set(err, CODE_INVALID_ARGUMENT, "read %s: more than %d MiB", path,
				       LIMIT_INPUT >> 20);
		buf_reserve(&bytes, 64 << 10);
		got = read(fd, bytes.data + bytes.len, bytes.cap - bytes.len);
		if (got < 0 && errno != EINTR)
			return err_errno(err, CODE_INVALID_ARGUMENT, errno, "read",
					 fd == STDIN_FILENO ? "/dev/stdin" : path);
		bytes.len += got > 0 ? (size_t)got : 0;
	} while (got != 0);
	*out = (struct span){ arena_memdup(arena, bytes.data, bytes.len), bytes.len };
	return CODE_OK;
}

enum code cli_write_file(const char *path, struct span data, unsigned mode, struct err *err)
{
	OWN_FD fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	size_t done = 0;
	int held;

	if (fd < 0)
		return err_errno(err, CODE_INVALID_ARGUMENT, errno, "open", path);
	if (fchmod(fd, mode) != 0)
		return err_errno(err, CODE_INTERNAL, errno, "chmod", path);
	while (done < data.len) {
		ssize_t n = write(fd, data.data + done, data.len - done);

		if (n < 0 && errno != EINTR)
			return err_errno(err, CODE_INTERNAL, errno, "write", path);
		done += n > 0 ? (size_t)n : 0;
	}
	held = fd;
	fd = -1;
	if (close(held) != 0)
		return err_errno(err, CODE_INTERNAL, errno, "close", path);
	return CODE_OK;
}

/* Drops the last segment of `out` for a ".."; false: there is none to drop. */
static bool drop_segment(struct buf *out, bool rooted)
{
	size_t len = out->len, start = rooted ? 1 : 0;

	if (len <= start ||
	    (len >= 2 && memcmp(out->data + len - 2, "..", 2) == 0 && (len == 2 || out->data[len - 3] == '/')))
		return rooted; /* "/.." is "/" */
	while (len > start && out->data[len - 1] != '/')
		len--;
	out->len = len > start ? len - 1 : len;
	return true;
}

const char *cli_join_path(struct arena *arena, const char *dir, const char *name)
{
	const char *whole = name == NULL ? dir : arena_printf(arena, "%s%s%s", dir, dir[0] != '\0' ? "/" : "", name);
	bool rooted = whole[0] == '/';
	OWN_BUF out = { 0 };

	if (rooted)
		buf_put(&out, '/');
	for (const char *at = whole; *at != '\0';) {
		size_t len = strcspn(at, "/");
		bool up = len == 2 && at[0] == '.' && at[1] == '.';

		if (len > 0 && !(len == 1 && at[0] == '.') && !(up && drop_segment(&out, rooted))) {
			if (out.len > 0 && out.data[out.len - 1] != '/')
				buf_put(&out, '/');
			buf_append(&out, at, len);
		}
		at += len + (at[len] == '/' ? 1 : 0);
	}
	return out.len == 0 ? "." : arena_strndup(arena, buf_text(&out), out.len);
}

/* ---- numbers and words ---- */

enum code cli_ttl_seconds(int64_t ttl_ns, int32_t *out, struct err *err)
{
	int64_t seconds = (int64_t)((uint64_t)ttl_ns + (uint64_t)GO_SECOND - 1) / GO_SECOND; /* wraps as Go's does */
	char text[GO_DURATION_MAX];

	if (seconds > INT32_MAX || seconds < INT32_MIN)
		return err_set(err, CODE_INVALID_ARGUMENT, "overflow converting time.Duration(%s) to int32",
			       go_format_duration(seconds, text));
	*out = (int32_t)seconds;
	return CODE_OK;
}

enum code cli_int32(int64_t value, int32_t *out, struct err *err)
{
	if (value > INT32_MAX || value < INT32_MIN)
		return err_set(err, CODE_INVALID_ARGUMENT, "overflow converting int(%" PRId64 ") to int32", value);
	*out = (int32_t)value;
	return CODE_OK;
}

const char *cli_quote(struct arena *arena, const char *text)
{
	OWN_BUF out = { 0 };

	go_quote(&out, text);
	return arena_strdup(arena, buf_text(&out));
}

const char *cli_plural(size_t n, const char *one, const char *many)
{
	return n == 1 ? one : many;
}
