/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMD_CLI_H
#define CMD_CLI_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "cmd/flags.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What every command that talks to a server shares. A command is a struct cli_command: its flags, and a function that
 * calls, prints and answers an error, which is shown as `Error: <text>` with exit code 1.
 *
 *   struct ban_options { struct cli_flags cli; const char *spiffe_id; };
 *   static const struct flag ban_flags[] = { CLI_FLAGS(struct ban_options), FLAG_STRING(...), FLAG_END };
 *   const struct cli_command cmd_agent_ban = { { "agent ban", ban_flags }, sizeof(struct ban_options), agent_ban };
 */

#define CLI_SOCKET_PATH "/tmp/spire-server/private/api.sock"
#define CLI_SERVERS_VARIABLE "TREFOIL_SERVERS" /* the name is part of the contract (cluster.md section 2) */
#define CLI_TIMEOUT_NS (30 * INT64_C(1000000000))

enum output { OUTPUT_UNSET, OUTPUT_PRETTY, OUTPUT_JSON };

struct cli_flags { /* the first member of every command's options, by the name of `cli` */
	const char *socket_path;
	const char *servers;             /* HOST:PORT[,HOST:PORT...]: by TCP instead, */
	const char *svid, *key, *bundle; /* as an admin: files of an X509-SVID */
	int64_t timeout_ns;              /* of a whole call */
	enum output output;
};

flag_set_fn cli_set_output;

#define CLI_OURS(options, field_, name_, type_, text_, number_, help_)                                                 \
	{                                                                                                              \
		.name = (name_), .type = (type_), .offset = offsetof(options, field_), .text = (text_),                \
		.number = (number_), .help = (help_), .ours = true                                                     \
	}
#define CLI_SERVER_FLAGS(options)                                                                                      \
	CLI_OURS(options, cli.servers, "server", FLAG_TYPE_STRING, "", 0,                                              \
		 "HOST:PORT[,HOST:PORT...] of servers to call instead of the socket: with -svid, -key and -bundle; "   \
		 "the next "                                                                                           \
		 "one is tried when one is unavailable. Also " CLI_SERVERS_VARIABLE),                                  \
		CLI_OURS(options, cli.svid, "svid", FLAG_TYPE_STRING, "", 0,                                           \
			 "File of an admin's X509-SVID, with its intermediates (PEM)"),                                \
		CLI_OURS(options, cli.key, "key", FLAG_TYPE_STRING, "", 0, "File of its private key (PEM)"),           \
		CLI_OURS(options, cli.bundle, "bundle", FLAG_TYPE_STRING, "", 0,                                       \
			 "File of the trust domain's bundle (PEM)"),                                                   \
		CLI_OURS(options, cli.timeout_ns, "timeout", FLAG_TYPE_DURATION, NULL, CLI_TIMEOUT_NS,                 \
			 "How long a call may take, over all servers")
#define CLI_SOCKET_FLAG(options)                                                                                       \
	FLAG_STRING(options, cli.socket_path, "socketPath", CLI_SOCKET_PATH, "Where the server's API socket is"),      \
		CLI_SERVER_FLAGS(options)
#define CLI_FLAGS(options)                                                                                             \
	CLI_SOCKET_FLAG(options), FLAG_VALUE(options, cli.output, "output", cli_set_output,                            \
					     "How to print the answer: pretty (the default) or json")

struct client;
struct reach; /* cmd/reach.h */

struct cli {
	struct arena *arena; /* of the whole command */
	const struct cli_flags *flags;
	struct flag_rest rest; /* words behind the command, if it takes some */
	struct reach *reach;   /* NULL until the first call */
	struct client *client; /* NULL until the first call */
	int exit_code;         /* of a failure, if not 0; else 1 */
	bool sent, lost;       /* of the last call: it left this process; no answer came to (one of) its attempts */
	bool said_stale;       /* the warning about it is out */
};

struct cli_command {
	struct flag_set flags;
	size_t options_size;
	enum code (*run)(struct cli *cli, const void *options, struct err *err);
	bool words; /* takes words, before its flags or behind them */
};

/* Reads the flags argv[0..argc), runs, prints the error. The exit code. */
int cli_main(const struct cli_command *command, int argc, char **argv);

/* The one place that knows how a server is reached: by the socket of -socketPath, or by TCP (cmd/reach.h). cli_call
 * does it by itself. */
enum code cli_connect(struct cli *cli, struct err *err);
/* Checks the flags about it, without connecting; by TCP, calls may be made more than once. */
enum code cli_reach(struct cli *cli, struct reach **out, struct err *err);

struct rpc {
	const char *method; /* "/package.Service/Method" */
	const ProtobufCMessageDescriptor *reply;
};

/* One call; with -server, servers that are unavailable are passed over until -timeout ends, and a write has one request
 * id over all attempts, so it is done once. `reply` points at a pointer to the reply's type; the reply lives in the
 * arena. The text of a refusal is grpc-go's: `rpc error: code = NotFound desc = agent not found`. */
enum code cli_call(struct cli *cli, const struct rpc *rpc, const void *request, void *reply, struct err *err);

bool cli_json(const struct cli *cli);                           /* -output json */
enum code cli_print_json(const void *message, struct err *err); /* the message, a line on standard output */

/* A whole file, "-" is standard input. The texts are Go's: `open x: no such file or directory`. */
enum code cli_read_file(const char *path, struct arena *arena, struct span *out, struct err *err);
/* Made or overwritten, with that mode in any case. */
enum code cli_write_file(const char *path, struct span data, unsigned mode, struct err *err);
/* A path without "//", "." and "..", `name` (NULL: none) put behind it. */
const char *cli_join_path(struct arena *arena, const char *dir, const char *name);

/* seconds from a duration in ns, rounded up, as an int32; and a number: `overflow converting int(2147483648) to int32`.
 */
enum code cli_ttl_seconds(int64_t ttl_ns, int32_t *out, struct err *err);
enum code cli_int32(int64_t value, int32_t *out, struct err *err);

const char *cli_quote(struct arena *arena, const char *text); /* as Go's %q */

/* "one" for 1, else "many" (after "<n> "): "entry", "entries". */
const char *cli_plural(size_t n, const char *one, const char *many);

#endif
