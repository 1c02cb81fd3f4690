/* SPDX-License-Identifier: Apache-2.0 */
/* LocalAuthority, as the rotation carries it out: a request is a letter to the rotation's loop, answered between
 * passes, so that a timer and an operator never cross. The letter has two owners: who asks may give up first. */
#include "api/letter.h"
#include "api/rotate_inside.h"
#include "ca/x509.h"

#include <stdlib.h>
#include <string.h>

/* --- what operators ask for --- */

struct request {
	struct letter letter;
	struct link link;
	struct message there;
	struct rotation *rotation;
	enum authority_kind kind;
	enum authority_op op;
	char authority_id[AUTHORITY_ID_MAX];
	struct authority_answer answer;
	enum code code;
	struct err err;
};

static void request_free(struct letter *letter)
{
	free(LIST_ITEM(letter, struct request, letter));
}

static void state_of(const struct slot *slot, struct authority_state *out)
{
	memcpy(out->authority_id, slot->authority_id, sizeof out->authority_id);
	memcpy(out->upstream_id, slot->upstream_id, sizeof out->upstream_id);
	out->expires_at_s = slot->not_after_s;
	out->status = slot->status;
}

static enum code authority_command(struct rotation *r, const struct request *request, struct err *err)
{
	bool x509 = request->kind == AUTHORITY_X509;
	bool taint = request->op == AUTHORITY_TAINT || request->op == AUTHORITY_TAINT_ABOVE;
	Pb__AuthorityTaint tainted = PB__AUTHORITY_TAINT__INIT;
	Pb__AuthorityRevoke revoked = PB__AUTHORITY_REVOKE__INIT;
	Pb__Command command = PB__COMMAND__INIT;

	tainted.trust_domain = revoked.trust_domain = r->server->td;
	if (x509)
		tainted.x509_subject_key_id = revoked.x509_subject_key_id = request->authority_id;
	else
		tainted.jwt_key_id = revoked.jwt_key_id = request->authority_id;
	command.kind_case = taint ? PB__COMMAND__KIND_AUTHORITY_TAINT : PB__COMMAND__KIND_AUTHORITY_REVOKE;
	if (taint)
		command.authority_taint = &tainted;
	else
		command.authority_revoke = &revoked;
	return rotate_carry_out(r, (Pb__Command *[]){ &command }, 1, err);
}

/* The authority has been tainted in the bundle: our own server SVID does not stay behind. */
static enum code leave_tainted(struct rotation *r, const char *subject_key_id, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(view) view = NULL;
	struct x509_facts facts;
	struct span *tainted;
	Pb__Bundle *bundle;
	size_t n = 0;

	TRY(view_open(r->reader, &view, err));
	TRY(view_bundle(view, r->server->td, arena, &bundle, err));
	tainted = arena_alloc(arena, (bundle->n_x509_authorities + 1) * sizeof *tainted);
	for (size_t i = 0; i < bundle->n_x509_authorities; i++) {
		struct span der = { bundle->x509_authorities[i]->asn1.data, bundle->x509_authorities[i]->asn1.len };

		if (x509_read(der, arena, &facts, NULL) == CODE_OK && strcmp(facts.subject_key_id, subject_key_id) == 0)
			tainted[n++] = der;
	}
	view_close(TAKE(view));
	return rotate_leave_tainted(r, tainted, n, err);
}

static const char *kind_name(const struct slots *slots)
{
	return slots->kind == AUTHORITY_X509 ? "X.509" : "JWT";
}

static enum code op_activate(struct rotation *r, struct slots *slots, const struct request *request, struct err *err)
{
	struct slot *next = slots_next(slots);

	if (request->authority_id[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "no authority ID provided");
	if (strcmp(request->authority_id, next->authority_id) != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "unexpected authority ID");
	if (next->status != SLOT_PREPARED)
		return err_set(err, CODE_INTERNAL,
			       "only Prepared authorities can be activated: unsupported local authority status: %s",
			       slot_status_name(next->status));
	if (!rotate_is_ripe(r, slots, next))
		log_warn("Authority is activated before agents may know it: those that do not will fail",
			 KV("subsystem_name", "ca_manager"), KV("local_authority_id", next->authority_id));
	TRY(rotate_activate(r, slots, next, err));
	return CODE_OK;
}

static enum code op_taint(struct rotation *r, struct slots *slots, const struct request *request, struct err *err)
{
	struct slot *next = slots_next(slots);

	if (slots->kind == AUTHORITY_X509 && rotate_is_below(r))
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "local authority can't be tainted if there is an upstream authority");
	if (request->authority_id[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "no authority ID provided");
	if (strcmp(request->authority_id, slots_current(slots)->authority_id) == 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "unable to taint current local authority");
	if (strcmp(request->authority_id, next->authority_id) != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "unexpected authority ID");
	if (next->status != SLOT_OLD)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "only Old local authorities can be tainted: unsupported local authority status: %s",
			       slot_status_name(next->status));
	if (authority_command(r, request, err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL, "failed to taint %s authority", kind_name(slots));
	return slots->kind == AUTHORITY_X509 ? leave_tainted(r, request->authority_id, err) : CODE_OK;
}

static enum code revocable_jwt(struct rotation *r, const char *kid, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(view) view = NULL;
	Pb__Bundle *bundle;

	if (slots_next(&r->jwt)->status == SLOT_PREPARED && strcmp(kid, slots_next(&r->jwt)->authority_id) == 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "unable to use a prepared key");
	TRY(view_open(r->reader, &view, err));
	TRY(view_bundle(view, r->server->td, arena, &bundle, err));
	for (size_t i = 0; i < bundle->n_jwt_authorities; i++)
		if (strcmp(bundle->jwt_authorities[i]->key_id, kid) == 0)
			return CODE_OK;
	/* the next slot's old key passes here too: the state then says that there is none */
	if (slots_next(&r->jwt)->status == SLOT_OLD && strcmp(kid, slots_next(&r->jwt)->authority_id) == 0)
		return CODE_OK;
	return err_set(err, CODE_INVALID_ARGUMENT, "no JWT authority found with provided authority ID");
}

static enum code op_revoke(struct rotation *r, struct slots *slots, const struct request *request, struct err *err)
{
	struct slot *next = slots_next(slots);
	enum code rc = CODE_OK;

	if (slots->kind == AUTHORITY_X509 && rotate_is_below(r))
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "local authority can't be revoked if there is an upstream authority");
	if (request->authority_id[0] == '\0')
		rc = err_set(err, CODE_INVALID_ARGUMENT, "no authority ID provided");
	else if (strcmp(request->authority_id, slots_current(slots)->authority_id) == 0)
		rc = err_set(err, CODE_INVALID_ARGUMENT, "unable to use current authority");
	else if (slots->kind == AUTHORITY_JWT)
		rc = revocable_jwt(r, request->authority_id, err);
	else if (strcmp(request->authority_id, next->authority_id) != 0 || next->status != SLOT_OLD)
		rc = err_set(err, CODE_INVALID_ARGUMENT, "only Old local authority can be revoked");
	if (rc != CODE_OK)
		return err_wrap(err, rc, "invalid authority ID");
	if (authority_command(r, request, err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL, "failed to revoke %s authority", kind_name(slots));
	return CODE_OK;
}

static enum code op_prepare(struct rotation *r, struct slots *slots, struct err *err)
{
	if (rotate_prepare(r, slots, slots_next(slots), err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL, "failed to prepare %s authority", kind_name(slots));
	return CODE_OK;
}

/* Only what signed the old authority alone may go: not what the present one hangs on. */
static enum code check_above(struct rotation *r, const char *id, struct err *err)
{
	const struct slot *next = slots_next(&r->x509);

	if (id[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "no subject key ID provided");
	if (strcmp(id, slots_current(&r->x509)->upstream_id) == 0)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "unable to use upstream authority singing current authority");
	if (strcmp(id, next->upstream_id) != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "upstream authority didn't sign the old local authority");
	if (next->status != SLOT_OLD)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "only upstream authorities signing an old authority can be used");
	return CODE_OK;
}

static enum code op_above(struct rotation *r, const struct request *request, struct err *err)
{
	bool taint = request->op == AUTHORITY_TAINT_ABOVE;

	if (!rotate_is_below(r))
		return err_set(err, CODE_FAILED_PRECONDITION, "upstream authority is not configured");
	if (check_above(r, request->authority_id, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT,
				taint ? "provided subject key id is not valid" : "invalid subject key ID");
	if (authority_command(r, request, err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL,
				taint ? "failed to taint upstream authority"
				      : "failed to revoke X.509 upstream authority");
	return taint ? leave_tainted(r, request->authority_id, err) : CODE_OK;
}

static void serve_request(struct rotation *r, struct request *request)
{
	struct slots *slots = request->kind == AUTHORITY_X509 ? &r->x509 : &r->jwt;
	struct slot *acted = slots_next(slots); /* activation makes it the current one: the answer is still about it */
	struct err *err = &request->err;

	if (slots_current(slots)->status != SLOT_ACTIVE) {
		request->code = CODE_UNAVAILABLE;
		if (!rotation_is_waiting(r, err))
			err_set(err, CODE_UNAVAILABLE, "server is initializing");
		return;
	}
	switch (request->op) {
	case AUTHORITY_STATE:
		request->code = CODE_OK;
		break;
	case AUTHORITY_PREPARE:
		request->code = op_prepare(r, slots, err);
		break;
	case AUTHORITY_ACTIVATE:
		request->code = op_activate(r, slots, request, err);
		break;
	case AUTHORITY_TAINT:
		request->code = op_taint(r, slots, request, err);
		break;
	case AUTHORITY_REVOKE:
		request->code = op_revoke(r, slots, request, err);
		break;
	case AUTHORITY_TAINT_ABOVE:
	case AUTHORITY_REVOKE_ABOVE:
		request->code = op_above(r, request, err);
		break;
	}
	state_of(slots_current(slots), &request->answer.current);
	state_of(acted, &request->answer.next);
}

static void deliver_there(struct message *message)
{
	struct request *request = LIST_ITEM(message, struct request, there);

	list_push(&request->rotation->requests, &request->link);
	wait_done(&request->rotation->wake);
}

enum code rotation_ask(struct rotation *r, enum authority_kind kind, enum authority_op op, const char *authority_id,
		       int64_t deadline_ms, struct authority_answer *out, struct err *err)
{
	struct request *request = xcalloc(1, sizeof *request);
	enum code rc;

	request->there.deliver = deliver_there;
	request->rotation = r;
	request->kind = kind;
	request->op = op;
	letter_init(&request->letter, request_free);
	if (strlen(authority_id) < sizeof request->authority_id)
		strcpy(request->authority_id, authority_id);
	else
		strcpy(request->authority_id, "?"); /* longer than any id is: matches none */
	loop_post(r->loop, &request->there);
	rc = letter_wait(&request->letter, deadline_ms);
	if (rc == CODE_OK) {
		rc = request->code;
		*out = request->answer;
		if (rc != CODE_OK)
			*err = request->err;
	} else {
		err_set(err, rc, "the authority task has not answered in time: it may still be carried out");
	}
	letter_unref(&request->letter);
	return rc;
}

static struct request *first_request(struct rotation *r)
{
	struct request *request = LIST_ITEM(r->requests.next, struct request, link);

	list_remove(&request->link);
	return request;
}

void rotate_answer(struct rotation *r)
{
	while (!list_empty(&r->requests)) {
		struct request *request = first_request(r);

		serve_request(r, request);
		letter_answer(&request->letter);
	}
}

void rotate_refuse(struct rotation *r)
{
	while (!list_empty(&r->requests)) {
		struct request *request = first_request(r);

		request->code = err_set(&request->err, CODE_UNAVAILABLE, "the server is stopping");
		letter_answer(&request->letter);
	}
}
