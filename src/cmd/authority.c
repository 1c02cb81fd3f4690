/* SPDX-License-Identifier: Apache-2.0 */
/* localauthority x509|jwt and upstreamauthority: a row a command. The replies of one kind differ in the name of their
 * one field alone, so they are read by their descriptors. */
#include "base/gotime.h"
#include "cmd/cli.h"
#include "cmd/commands.h"

#include "localauthority.pb-c.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define SERVICE "/spire.api.server.localauthority.v1.LocalAuthority/"

struct authority_options {
	struct cli_flags cli;
	const char *id; /* -authorityID, -subjectKeyID */
};

/* What a command does beside its call. */
struct action {
	const char *kind;        /* "X.509", "JWT", "X.509 upstream" */
	const char *verb, *done; /* "taint", "Tainted" */
	struct rpc rpc;
	const ProtobufCMessageDescriptor *request; /* no field, or the one that takes the id */
};

/* The member of a message's only field. */
static void *only_field(const ProtobufCMessage *message)
{
	assert(message->descriptor->n_fields == 1);
	return (char *)message + message->descriptor->fields[0].offset;
}

static void show_authority(const Pb__AuthorityState *authority, bool upstream)
{
	char when[GO_TIME_MAX];

	printf("  Authority ID: %s\n", authority->authority_id);
	printf("  Expires at: %s\n", go_time_utc(authority->expires_at, when));
	if (!upstream)
		return;
	if (authority->upstream_authority_subject_key_id[0] != '\0')
		printf("  Upstream authority Subject Key ID: %s\n", authority->upstream_authority_subject_key_id);
	else
		printf("  Upstream authority ID: No upstream authority\n");
}

static enum code call_action(struct cli *cli, const struct action *action, const char *id, ProtobufCMessage **reply,
			     struct err *err)
{
	ProtobufCMessage *request = arena_alloc(cli->arena, action->request->sizeof_message);
	enum code rc;

	action->request->message_init(request);
	if (action->request->n_fields > 0)
		*(const char **)only_field(request) = id;
	rc = cli_call(cli, &action->rpc, request, reply, err);
	return rc == CODE_OK ? rc : err_wrap(err, rc, "could not %s %s authority", action->verb, action->kind);
}

/* prepare, activate, taint, revoke of a local authority. */
static enum code run_local(struct cli *cli, const struct action *action, const char *id, struct err *err)
{
	const Pb__AuthorityState *authority;
	ProtobufCMessage *reply;

	if (action->request->n_fields > 0 && id[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "an authority ID is required");
	TRY(call_action(cli, action, id, &reply, err));
	if (cli_json(cli))
		return cli_print_json(reply, err);
	authority = *(Pb__AuthorityState **)only_field(reply);
	printf("%s %s authority:\n", action->done, action->kind);
	if (authority == NULL)
		return err_set(err, CODE_INTERNAL, "server response missing the authority");
	show_authority(authority, strcmp(action->kind, "X.509") == 0);
	return CODE_OK;
}

static enum code run_upstream(struct cli *cli, const struct action *action, const char *id, struct err *err)
{
	ProtobufCMessage *reply;

	if (id[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "the Subject Key ID of the X.509 upstream authority is required");
	TRY(call_action(cli, action, id, &reply, err));
	if (cli_json(cli))
		return cli_print_json(reply, err);
	printf("%s %s authority:\n  Subject Key ID: %s\n", action->done, action->kind,
	       *(const char **)only_field(reply));
	return CODE_OK;
}

static void show_slot(const char *title, const char *name, const char *kind, const Pb__AuthorityState *authority,
		      bool upstream)
{
	printf("%s %s authority:\n", title, kind);
	if (authority != NULL)
		show_authority(authority, upstream);
	else
		printf("  No %s %s authority found\n", name, kind);
}

static void show_slots(const char *kind, const Pb__AuthorityState *active, const Pb__AuthorityState *prepared,
		       const Pb__AuthorityState *old, bool upstream)
{
	show_slot("Active", "active", kind, active, upstream);
	printf("\n");
	show_slot("Prepared", "prepared", kind, prepared, upstream);
	printf("\n");
	show_slot("Old", "old", kind, old, upstream);
}

static enum code run_x509_show(struct cli *cli, const void *options __attribute__((unused)), struct err *err)
{
	static const struct rpc rpc = { SERVICE "GetX509AuthorityState",
					&pb__get_x509_authority_state_response__descriptor };
	Pb__GetX509AuthorityStateRequest request = PB__GET_X509_AUTHORITY_STATE_REQUEST__INIT;
	Pb__GetX509AuthorityStateResponse *reply;
	enum code rc = cli_call(cli, &rpc, &request, &reply, err);

	if (rc != CODE_OK)
		return err_wrap(err, rc, "could not get X.509 authorities");
	if (cli_json(cli))
		return cli_print_json(reply, err);
	show_slots("X.509", reply->active, reply->prepared, reply->old, true);
	return CODE_OK;
}

static enum code run_jwt_show(struct cli *cli, const void *options __attribute__((unused)), struct err *err)
{
	static const struct rpc rpc = { SERVICE "GetJWTAuthorityState",
					&pb__get_jwtauthority_state_response__descriptor };
	Pb__GetJWTAuthorityStateRequest request = PB__GET_JWTAUTHORITY_STATE_REQUEST__INIT;
	Pb__GetJWTAuthorityStateResponse *reply;

	TRY(cli_call(cli, &rpc, &request, &reply, err));
	if (cli_json(cli))
		return cli_print_json(reply, err);
	show_slots("JWT", reply->active, reply->prepared, reply->old, false);
	return CODE_OK;
}

static const struct flag no_id[] = { CLI_FLAGS(struct authority_options), FLAG_END };
static const struct flag local_id[] = {
	CLI_FLAGS(struct authority_options),
	FLAG_STRING(struct authority_options, id, "authorityID", "", "The id of the authority, as `show` has it"),
	FLAG_END,
};
static const struct flag upstream_id[] = {
	CLI_FLAGS(struct authority_options),
	FLAG_STRING(struct authority_options, id, "subjectKeyID", "", "The subject key id of the upstream authority"),
	FLAG_END,
};

#define SHOW(name, words, function)                                                                                    \
	const struct cli_command cmd_##name = { { words, no_id }, sizeof(struct authority_options), function }

/* A command of one call: its C name, its words, who runs it, its flags, what it says, its method and messages. */
#define ACTION(name, words, runner, flags, kind, verb, done, method, message)                                          \
	static enum code run_##name(struct cli *cli, const void *options, struct err *err)                             \
	{                                                                                                              \
		static const struct action action = { kind,                                                            \
						      verb,                                                            \
						      done,                                                            \
						      { SERVICE method, &pb__##message##_response__descriptor },       \
						      &pb__##message##_request__descriptor };                          \
                                                                                                                       \
		const char *id = ((const struct authority_options *)options)->id;                                      \
                                                                                                                       \
		return runner(cli, &action, id != NULL ? id : "", err);                                                \
	}                                                                                                              \
	const struct cli_command cmd_##name = { { words, flags }, sizeof(struct authority_options), run_##name }

#define X509(verb, done, method, message, flags)                                                                       \
	ACTION(x509_##verb, "localauthority x509 " #verb, run_local, flags, "X.509", #verb, done, method, message)
#define JWT(verb, done, method, message, flags)                                                                        \
	ACTION(jwt_##verb, "localauthority jwt " #verb, run_local, flags, "JWT", #verb, done, method, message)
#define UPSTREAM(verb, done, method, message)                                                                          \
	ACTION(upstreamauthority_##verb, "upstreamauthority " #verb, run_upstream, upstream_id, "X.509 upstream",      \
	       #verb, done, method, message)

SHOW(x509_show, "localauthority x509 show", run_x509_show);
X509(prepare, "Prepared", "PrepareX509Authority", prepare_x509_authority, no_id);
X509(activate, "Activated", "ActivateX509Authority", activate_x509_authority, local_id);
X509(taint, "Tainted", "TaintX509Authority", taint_x509_authority, local_id);
X509(revoke, "Revoked", "RevokeX509Authority", revoke_x509_authority, local_id);
SHOW(jwt_show, "localauthority jwt show", run_jwt_show);
JWT(prepare, "Prepared", "PrepareJWTAuthority", prepare_jwtauthority, no_id);
JWT(activate, "Activated", "ActivateJWTAuthority", activate_jwtauthority, local_id);
JWT(taint, "Tainted", "TaintJWTAuthority", taint_jwtauthority, local_id);
JWT(revoke, "Revoked", "RevokeJWTAuthority", revoke_jwtauthority, local_id);
UPSTREAM(taint, "Tainted", "TaintX509UpstreamAuthority", taint_x509_upstream_authority);
UPSTREAM(revoke, "Revoked", "RevokeX509UpstreamAuthority", revoke_x509_upstream_authority);
