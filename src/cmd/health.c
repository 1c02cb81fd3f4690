/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/cli.h"
#include "cmd/commands.h"

#include "health.pb-c.h"

#include <stdio.h>

static const struct rpc check_rpc = { "/grpc.health.v1.Health/Check", &pb__health_check_response__descriptor };

struct health_options {
	struct cli_flags cli;
	bool shallow, verbose;
};

static enum code run_healthcheck(struct cli *cli, const void *options, struct err *err)
{
	const struct health_options *o = options;
	Pb__HealthCheckRequest request = PB__HEALTH_CHECK_REQUEST__INIT;
	const ProtobufCEnumValue *name;
	Pb__HealthCheckResponse *reply;

	if (o->verbose)
		printf("Checking server health...\n");
	if (cli_call(cli, &check_rpc, &request, &reply, err) != CODE_OK) {
		if (o->verbose)
			fprintf(stderr, "Failed to check health: %s\n", err->text);
		return err_set(err, CODE_UNAVAILABLE, "server is unhealthy: unable to determine health");
	}
	name = protobuf_c_enum_descriptor_get_value(&pb__health_check_response__serving_status__descriptor,
						    (int)reply->status);
	if (reply->status != PB__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING)
		return err_set(err, CODE_UNAVAILABLE, "server is unhealthy: server returned status \"%s\"",
			       name != NULL ? name->name : "unknown");
	printf("Server is healthy.\n");
	return CODE_OK;
}

static const struct flag health_flags[] = {
	CLI_SOCKET_FLAG(struct health_options),
	FLAG_BOOL(struct health_options, shallow, "shallow", "Kept for scripts: every check is the same"),
	FLAG_BOOL(struct health_options, verbose, "verbose", "Say what goes on"),
	FLAG_END,
};

const struct cli_command cmd_healthcheck = { { "healthcheck", health_flags },
					     sizeof(struct health_options),
					     run_healthcheck };
