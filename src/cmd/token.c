/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/cli.h"
#include "cmd/commands.h"
#include "cmd/convert.h"
#include "cmd/reach.h"

#include "base/rand.h"

#include "agent.pb-c.h"

#include <stdio.h>

static const struct rpc create_rpc = { "/spire.api.server.agent.v1.Agent/CreateJoinToken",
				       &pb__join_token__descriptor };

struct token_options {
	struct cli_flags cli;
	int64_t ttl;
	const char *spiffe_id;
};

static enum code run_generate(struct cli *cli, const void *options, struct err *err)
{
	const struct token_options *o = options;
	Pb__CreateJoinTokenRequest request = PB__CREATE_JOIN_TOKEN_REQUEST__INIT;
	struct reach *reach;
	Pb__JoinToken *token;
	char made[37];

	TRY(cli_reach(cli, &reach, err));
	if (reach_by_tcp(reach)) { /* a server would make another one each time it is asked */
		rand_uuid4(made);
		request.token = made;
	}
	if (o->spiffe_id[0] != '\0')
		TRY(convert_id(o->spiffe_id, cli->arena, &request.agent_id, err));
	if (cli_int32(o->ttl, &request.ttl, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "invalid value for TTL");
	TRY(cli_call(cli, &create_rpc, &request, &token, err));
	if (cli_json(cli))
		return cli_print_json(token, err);
	printf("Token: %s\n", token->value);
	if (o->spiffe_id[0] == '\0')
		printf("Warning: Missing SPIFFE ID.\n");
	return CODE_OK;
}

static const struct flag generate_flags[] = {
	CLI_FLAGS(struct token_options),
	FLAG_INT(struct token_options, ttl, "ttl", 600, "How long the token may be used, in seconds"),
	FLAG_STRING(struct token_options, spiffe_id, "spiffeID", "",
		    "A further SPIFFE ID for the agent that uses the token"),
	FLAG_END,
};

const struct cli_command cmd_token_generate = { { "generate", generate_flags },
						sizeof(struct token_options),
						run_generate };
