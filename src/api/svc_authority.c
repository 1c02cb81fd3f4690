/* SPDX-License-Identifier: Apache-2.0 */
/* LocalAuthority: the authorities of the node that is asked, by hand (contract server-api.md 4.6). What happens is
 * rotate.c's. */
#include "api/rotate.h"
#include "api/server.h"
#include "api/svc.h"
#include "localauthority.pb-c.h"

#include <ctype.h>

static Pb__AuthorityState *state_of(struct call *call, const struct authority_state *from)
{
	Pb__AuthorityState *state = pb_new(&pb__authority_state__descriptor, call->arena);

	state->authority_id = arena_strdup(call->arena, from->authority_id);
	state->expires_at = from->expires_at_s;
	state->upstream_authority_subject_key_id = arena_strdup(call->arena, from->upstream_id);
	return state;
}

static enum code ask(struct call *call, enum authority_kind kind, enum authority_op op, const char *id,
		     struct authority_answer *out)
{
	if (id[0] != '\0')
		CALL_AUDIT_ADD(call, KV("local_authority_id", id));
	return rotation_ask(call->server->rotation, kind, op, id, call->deadline_ms, out, call->err);
}

/* Both replies to a Get have the same three fields, in two structs. */
#define FILL_STATES(call, reply, answer)                                                                               \
	do {                                                                                                           \
		(reply)->active = state_of((call), &(answer).current);                                                 \
		if ((answer).next.status == SLOT_PREPARED)                                                             \
			(reply)->prepared = state_of((call), &(answer).next);                                          \
		else if ((answer).next.authority_id[0] != '\0')                                                        \
			(reply)->old = state_of((call), &(answer).next);                                               \
	} while (0)

enum code authority_get_x509(struct call *call, const void *request __attribute__((unused)), void *reply)
{
	struct authority_answer answer;

	TRY(ask(call, AUTHORITY_X509, AUTHORITY_STATE, "", &answer));
	FILL_STATES(call, (Pb__GetX509AuthorityStateResponse *)reply, answer);
	return CODE_OK;
}

enum code authority_get_jwt(struct call *call, const void *request __attribute__((unused)), void *reply)
{
	struct authority_answer answer;

	TRY(ask(call, AUTHORITY_JWT, AUTHORITY_STATE, "", &answer));
	FILL_STATES(call, (Pb__GetJWTAuthorityStateResponse *)reply, answer);
	return CODE_OK;
}

enum code authority_prepare_x509(struct call *call, const void *request __attribute__((unused)), void *reply)
{
	struct authority_answer answer;

	TRY(ask(call, AUTHORITY_X509, AUTHORITY_PREPARE, "", &answer));
	((Pb__PrepareX509AuthorityResponse *)reply)->prepared_authority = state_of(call, &answer.next);
	return CODE_OK;
}

enum code authority_prepare_jwt(struct call *call, const void *request __attribute__((unused)), void *reply)
{
	struct authority_answer answer;

	TRY(ask(call, AUTHORITY_JWT, AUTHORITY_PREPARE, "", &answer));
	((Pb__PrepareJWTAuthorityResponse *)reply)->prepared_authority = state_of(call, &answer.next);
	return CODE_OK;
}

enum code authority_activate_x509(struct call *call, const void *request, void *reply)
{
	const Pb__ActivateX509AuthorityRequest *req = request;
	struct authority_answer answer;

	TRY(ask(call, AUTHORITY_X509, AUTHORITY_ACTIVATE, req->authority_id, &answer));
	((Pb__ActivateX509AuthorityResponse *)reply)->activated_authority = state_of(call, &answer.next);
	return CODE_OK;
}

enum code authority_activate_jwt(struct call *call, const void *request, void *reply)
{
	const Pb__ActivateJWTAuthorityRequest *req = request;
	struct authority_answer answer;

	TRY(ask(call, AUTHORITY_JWT, AUTHORITY_ACTIVATE, req->authority_id, &answer));
	((Pb__ActivateJWTAuthorityResponse *)reply)->activated_authority = state_of(call, &answer.next);
	return CODE_OK;
}

/* Where SPIRE fills the id alone. */
static Pb__AuthorityState *only_id(struct call *call, const char *id)
{
	Pb__AuthorityState *state = pb_new(&pb__authority_state__descriptor, call->arena);

	state->authority_id = arena_strdup(call->arena, id);
	return state;
}

enum code authority_taint_x509(struct call *call, const void *request, void *reply)
{
	const Pb__TaintX509AuthorityRequest *req = request;
	struct authority_answer answer;

	TRY(ask(call, AUTHORITY_X509, AUTHORITY_TAINT, req->authority_id, &answer));
	CALL_LOG(call, LOG_INFO, "X.509 authority tainted successfully", KV("local_authority_id", req->authority_id));
	((Pb__TaintX509AuthorityResponse *)reply)->tainted_authority = state_of(call, &answer.next);
	return CODE_OK;
}

enum code authority_taint_jwt(struct call *call, const void *request, void *reply)
{
	const Pb__TaintJWTAuthorityRequest *req = request;
	struct authority_answer answer;

	TRY(ask(call, AUTHORITY_JWT, AUTHORITY_TAINT, req->authority_id, &answer));
	CALL_LOG(call, LOG_INFO, "JWT authority tainted successfully", KV("local_authority_id", req->authority_id));
	((Pb__TaintJWTAuthorityResponse *)reply)->tainted_authority = only_id(call, req->authority_id);
	return CODE_OK;
}

enum code authority_revoke_x509(struct call *call, const void *request, void *reply)
{
	const Pb__RevokeX509AuthorityRequest *req = request;
	struct authority_answer answer;

	TRY(ask(call, AUTHORITY_X509, AUTHORITY_REVOKE, req->authority_id, &answer));
	CALL_LOG(call, LOG_INFO, "X.509 authority revoked successfully", KV("local_authority_id", req->authority_id));
	((Pb__RevokeX509AuthorityResponse *)reply)->revoked_authority = only_id(call, req->authority_id);
	return CODE_OK;
}

enum code authority_revoke_jwt(struct call *call, const void *request, void *reply)
{
	const Pb__RevokeJWTAuthorityRequest *req = request;
	struct authority_answer answer;

	TRY(ask(call, AUTHORITY_JWT, AUTHORITY_REVOKE, req->authority_id, &answer));
	CALL_LOG(call, LOG_INFO, "JWT authority revoked successfully", KV("local_authority_id", req->authority_id));
	((Pb__RevokeJWTAuthorityResponse *)reply)->revoked_authority = only_id(call, req->authority_id);
	return CODE_OK;
}

/* --- what stands above --- */

static enum code ask_above(struct call *call, enum authority_op op, const char *given, const char **id)
{
	char *lower = arena_strdup(call->arena, given);
	struct authority_answer answer;

	for (char *at = lower; *at != '\0'; at++)
		*at = (char)tolower((unsigned char)*at);
	*id = lower;
	CALL_AUDIT_ADD(call, KV("subject_key_id", given));
	return rotation_ask(call->server->rotation, AUTHORITY_X509, op, lower, call->deadline_ms, &answer, call->err);
}

enum code authority_taint_x509_upstream(struct call *call, const void *request, void *reply)
{
	const Pb__TaintX509UpstreamAuthorityRequest *req = request;
	const char *id;

	TRY(ask_above(call, AUTHORITY_TAINT_ABOVE, req->subject_key_id, &id));
	CALL_LOG(call, LOG_INFO, "X.509 upstream authority tainted successfully", KV("subject_key_id", id));
	((Pb__TaintX509UpstreamAuthorityResponse *)reply)->upstream_authority_subject_key_id = id;
	return CODE_OK;
}

enum code authority_revoke_x509_upstream(struct call *call, const void *request, void *reply)
{
	const Pb__RevokeX509UpstreamAuthorityRequest *req = request;
	const char *id;

	TRY(ask_above(call, AUTHORITY_REVOKE_ABOVE, req->subject_key_id, &id));
	CALL_LOG(call, LOG_INFO, "X.509 upstream authority successfully revoked", KV("subject_key_id", id));
	((Pb__RevokeX509UpstreamAuthorityResponse *)reply)->upstream_authority_subject_key_id = id;
	return CODE_OK;
}
