/* SPDX-License-Identifier: Apache-2.0 */
/* `cluster ...`: what an operator asks of the cluster and orders it (contract cluster.md section 2). The exit code
 * tells a refusal (1: nothing changed) from what may have happened (2). */
#include "cmd/cluster_print.h"
#include "cmd/commands.h"

#include "base/gotext.h"
#include "cluster.pb-c.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define RPC(method, reply_)                                                                                            \
	{                                                                                                              \
		"/" NAME ".cluster.v1.Cluster/" method, &pb__##reply_##__descriptor                                    \
	}

static const struct rpc status_rpc = RPC("Status", cluster_status), wait_rpc = RPC("Wait", cluster_waited),
			token_rpc = RPC("Token", cluster_token_answer), remove_rpc = RPC("Remove", cluster_removed),
			leave_rpc = RPC("Leave", cluster_removed), transfer_rpc = RPC("Transfer", cluster_transferred);

enum { EXIT_UNKNOWN_OUTCOME = 2 };

/* A change that was asked for and of which no refusal has come may have been made. */
static enum code change(struct cli *cli, const struct rpc *rpc, const void *request, void *reply, struct err *err)
{
	enum code rc = cli_call(cli, rpc, request, reply, err);

	if (rc == CODE_OK || !cli->sent)
		return rc;
	if (rc == CODE_DEADLINE_EXCEEDED || rc == CODE_CANCELLED || rc == CODE_UNKNOWN ||
	    strstr(err->text, "outcome unknown") != NULL || (rc == CODE_UNAVAILABLE && cli->lost)) {
		cli->exit_code = EXIT_UNKNOWN_OUTCOME;
		return err_set(err, rc, "%s\nIt may have happened all the same: `" NAME " cluster status` tells",
			       err->text);
	}
	return rc;
}

/* --- status --- */

struct status_options {
	struct cli_flags cli;
};

static enum code run_status(struct cli *cli, const void *options __attribute__((unused)), struct err *err)
{
	Pb__ClusterStatusRequest request = PB__CLUSTER_STATUS_REQUEST__INIT;
	Pb__ClusterStatus *status;

	TRY(cli_call(cli, &status_rpc, &request, &status, err));
	if (cli_json(cli))
		cluster_print_json(stdout, status);
	else
		cluster_print_pretty(stdout, status);
	return CODE_OK;
}

static const struct flag status_flags[] = { CLI_FLAGS(struct status_options), FLAG_END };
const struct cli_command cmd_cluster_status = { { "cluster status", status_flags },
						sizeof(struct status_options),
						run_status };

/* --- token --- */

struct token_options {
	struct cli_flags cli;
	int64_t ttl_ns, uses;
	bool signer;
};

static enum code run_token(struct cli *cli, const void *options, struct err *err)
{
	const struct token_options *o = options;
	Pb__ClusterTokenRequest request = PB__CLUSTER_TOKEN_REQUEST__INIT;
	Pb__ClusterTokenAnswer *answer;

	if (o->ttl_ns < GO_SECOND)
		return err_set(err, CODE_INVALID_ARGUMENT, "-ttl must be 1s at least");
	if (o->uses < 1 || o->uses > UINT16_MAX)
		return err_set(err, CODE_INVALID_ARGUMENT, "-uses must be 1 at least and %d at most", UINT16_MAX);
	request.ttl_s = o->ttl_ns / GO_SECOND;
	request.uses = (uint32_t)o->uses;
	request.signer = o->signer;
	TRY(cli_call(cli, &token_rpc, &request, &answer, err));
	if (cli_json(cli))
		printf("{\"token\":\"%s\",\"expires_at\":%" PRId64 "}\n", answer->token, answer->expires_at);
	else
		printf("Token: %s\n", answer->token);
	return CODE_OK;
}

static const struct flag token_flags[] = {
	CLI_FLAGS(struct token_options),
	FLAG_DURATION(struct token_options, ttl_ns, "ttl", 600 * GO_SECOND, "How long the token may be used"),
	FLAG_INT(struct token_options, uses, "uses", 1, "How many nodes may join with it"),
	FLAG_BOOL(struct token_options, signer, "signer", "The node serves and signs, and never votes"),
	FLAG_END,
};
const struct cli_command cmd_cluster_token = { { "cluster token", token_flags },
					       sizeof(struct token_options),
					       run_token };

/* --- remove, leave --- */

struct remove_options {
	struct cli_flags cli;
};

static void print_removed(const struct cli *cli, const Pb__ClusterRemoved *removed)
{
	if (cli_json(cli))
		printf("{\"removed\":\"%s\",\"voters\":%" PRIu32 ",\"survives\":%" PRIu32 "}\n", removed->name,
		       removed->voters, removed->survives);
	else
		printf("Removed %s; %" PRIu32 " %s left, survives %" PRIu32 " %s\n", removed->name, removed->voters,
		       cli_plural(removed->voters, "voter", "voters"), removed->survives,
		       cli_plural(removed->survives, "failure", "failures"));
}

/* The one name behind the words; `optional`: none is fine. */
static enum code one_name(const struct cli *cli, bool optional, const char **name, struct err *err)
{
	*name = "";
	if (cli->rest.argc > 1 || (cli->rest.argc == 0 && !optional))
		return err_set(err, CODE_INVALID_ARGUMENT, "the name of %s member is expected, and nothing behind it",
			       optional ? "one" : "a");
	if (cli->rest.argc == 1)
		*name = cli->rest.argv[0];
	return CODE_OK;
}

static enum code run_remove(struct cli *cli, const void *options __attribute__((unused)), struct err *err)
{
	Pb__ClusterRemoveRequest request = PB__CLUSTER_REMOVE_REQUEST__INIT;
	Pb__ClusterRemoved *removed;

	TRY(one_name(cli, false, &request.name, err));
	TRY(change(cli, &remove_rpc, &request, &removed, err));
	print_removed(cli, removed);
	return CODE_OK;
}

static enum code run_leave(struct cli *cli, const void *options __attribute__((unused)), struct err *err)
{
	Pb__ClusterLeaveRequest request = PB__CLUSTER_LEAVE_REQUEST__INIT;
	Pb__ClusterRemoved *removed;

	TRY(change(cli, &leave_rpc, &request, &removed, err));
	print_removed(cli, removed);
	return CODE_OK;
}

static const struct flag remove_flags[] = { CLI_FLAGS(struct remove_options), FLAG_END };
const struct cli_command cmd_cluster_remove = {
	{ "cluster remove", remove_flags }, sizeof(struct remove_options), run_remove, .words = true
};
const struct cli_command cmd_cluster_leave = { { "cluster leave", remove_flags },
					       sizeof(struct remove_options),
					       run_leave };

/* --- transfer --- */

static enum code run_transfer(struct cli *cli, const void *options __attribute__((unused)), struct err *err)
{
	Pb__ClusterTransferRequest request = PB__CLUSTER_TRANSFER_REQUEST__INIT;
	Pb__ClusterTransferred *done;

	TRY(one_name(cli, true, &request.name, err));
	TRY(change(cli, &transfer_rpc, &request, &done, err));
	if (cli_json(cli))
		printf("{\"leader\":\"%s\",\"term\":%" PRIu64 ",\"stalled_ms\":%" PRId64 "}\n", done->leader,
		       done->term, done->stalled_ms);
	else
		printf("Leader: %s (term %" PRIu64 "), writes stalled %" PRId64 " ms\n", done->leader, done->term,
		       done->stalled_ms);
	return CODE_OK;
}

const struct cli_command cmd_cluster_transfer = {
	{ "cluster transfer", remove_flags }, sizeof(struct remove_options), run_transfer, .words = true
};

/* --- wait --- */

struct wait_options {
	struct cli_flags cli;
	int64_t revision, members;
	bool all, leader;
};

static enum code run_wait(struct cli *cli, const void *options, struct err *err)
{
	const struct wait_options *o = options;
	Pb__ClusterWaitRequest request = PB__CLUSTER_WAIT_REQUEST__INIT;
	Pb__ClusterWaited *reached;

	if (o->revision < 0 || o->members < 0 || o->members > UINT16_MAX)
		return err_set(err, CODE_INVALID_ARGUMENT, "-revision and -members are no negative numbers");
	if (o->revision == 0 && o->members == 0 && !o->all && !o->leader)
		return err_set(err, CODE_INVALID_ARGUMENT, "wait for what? One of -revision, -all, -members, -leader");
	request.revision = (uint64_t)o->revision;
	request.members = (uint32_t)o->members;
	request.all = o->all;
	request.leader = o->leader;
	return cli_call(cli, &wait_rpc, &request, &reached, err);
}

static const struct flag wait_flags[] = {
	CLI_FLAGS(struct wait_options),
	FLAG_INT(struct wait_options, revision, "revision", 0, "The node holds this revision"),
	FLAG_BOOL(struct wait_options, all, "all",
		  "So does every member that can be reached (without -revision: what the node holds now)"),
	FLAG_INT(struct wait_options, members, "members", 0, "So many members are up"),
	FLAG_BOOL(struct wait_options, leader, "leader", "There is a leader"),
	FLAG_END,
};
const struct cli_command cmd_cluster_wait = { { "cluster wait", wait_flags }, sizeof(struct wait_options), run_wait };
