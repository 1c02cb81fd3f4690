/* SPDX-License-Identifier: Apache-2.0 */
/* The task that keeps a node's authorities. Order on every path: make the key, publish it and note it in the journal (one trip),
 * only then use it. A crash in between leaves at worst a published authority that nobody signs with; the next start finds the
 * journal's word for which key is whose. */
#include "api/rotate.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/list.h"
#include "base/log.h"
#include "base/metric.h"
#include "base/task.h"
#include "ca/jwt.h"
#include "ca/x509.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
	CHECK_AUTHORITIES_MS = 10 * 1000,
	CHECK_SERVER_SVID_MS = 5 * 1000,
	PRUNE_BUNDLE_MS = 6 * 3600 * 1000,
	PRUNE_JOURNAL_MS = 8 * 3600 * 1000,
	PROPOSE_MS = 30 * 1000,
	BUNDLE_KEPT_S = 24 * 3600,       /* what has ended stays this long in the bundle */
	JOURNAL_KEPT_S = 14 * 24 * 3600, /* and a journal in which everything has ended */
};

struct rotation {
	struct server *server;
	struct loop *loop;
	struct reader *reader;
	struct key_manager *keys;
	enum key_type x509_type, jwt_type;
	struct slots x509, jwt;
	struct journal *journal;
	EVP_PKEY *server_key; /* of the present server SVID */
	struct buf server_cert;
	int64_t server_not_before_s, server_not_after_s;
	char server_signer[AUTHORITY_ID_MAX];
	atomic_uint failures;
	struct link requests; /* struct request, in order of arrival */
	struct wait wake;     /* ended by a request */
};

enum code rotation_new(struct server *server, struct loop *loop, struct key_manager *keys, struct rotation **out, struct err *err)
{
	struct rotation *r;
	enum key_type x509_type, jwt_type;
	struct reader *reader;

	TRY(key_type_parse(server->config->ca_key_type, &x509_type, err));
	TRY(key_type_parse(server->config->jwt_key_type, &jwt_type, err));
	TRY(reader_open(server->state_path, &reader, err));
	r = xcalloc(1, sizeof *r);
	r->server = server;
	r->loop = loop;
	r->reader = reader;
	r->keys = keys;
	r->x509_type = x509_type;
	r->jwt_type = jwt_type;
	r->journal = journal_new();
	slots_init(&r->x509, AUTHORITY_X509);
	slots_init(&r->jwt, AUTHORITY_JWT);
	list_init(&r->requests);
	*out = r;
	return CODE_OK;
}

void rotation_free(struct rotation *r)
{
	if (r == NULL)
		return;
	slots_done(&r->x509);
	slots_done(&r->jwt);
	journal_free(r->journal);
	reader_close(r->reader);
	EVP_PKEY_free(r->server_key);
	buf_done(&r->server_cert);
	free(r);
}

unsigned rotation_failures(const struct rotation *r)
{
	return atomic_load_explicit(&r->failures, memory_order_relaxed);
}

/* --- commands --- */

static enum code carry_out(struct rotation *r, Pb__Command **commands, size_t n, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	Pb__Outcome **outs = arena_zalloc(arena, n * sizeof *outs);

	for (size_t i = 0; i < n; i++)
		commands[i]->format = 1;
	TRY(propose_all(r->server->replica, commands, n, clock_mono_ms() + PROPOSE_MS, arena, outs, err));
	for (size_t i = 0; i < n; i++)
		if (outs[i]->code != CODE_OK)
			return err_set(err, (enum code)outs[i]->code, "%s", outs[i]->message);
	return CODE_OK;
}

static enum code carry_out_one(struct rotation *r, Pb__Command *command, struct err *err)
{
	return carry_out(r, &command, 1, err);
}

static void journal_command(struct rotation *r, Pb__Command *command, Pb__JournalSet *set)
{
	pb__journal_set__init(set);
	set->node = r->server->node;
	set->journal = (Pb__Journal *)journal_message(r->journal);
	pb__command__init(command);
	command->kind_case = PB__COMMAND__KIND_JOURNAL_SET;
	command->journal_set = set;
}

/* Publishes what `append` holds and notes the slot in the journal, in one trip. */
static enum code publish(struct rotation *r, Pb__BundleAppend *append, struct err *err)
{
	Pb__Command first = PB__COMMAND__INIT, second;
	Pb__JournalSet set;
	Pb__Command *both[] = { &first, &second };

	append->trust_domain = r->server->td;
	first.kind_case = PB__COMMAND__KIND_BUNDLE_APPEND;
	first.bundle_append = append;
	journal_command(r, &second, &set);
	if (fault_at("rotate.publish"))
		return err_set(err, CODE_INTERNAL, "fault rotate.publish");
	return carry_out(r, both, 2, err);
}

/* --- preparing --- */

static void log_authority(const char *msg, const struct slots *slots, const struct slot *slot, bool prepared)
{
	struct log_pair pairs[] = {
		KV("subsystem_name", "ca_manager"),
		KV("slot", slot->name),
		KV_TIME("issued_at", slot->issued_at_s),
		KV_TIME("expiration", slot->not_after_s),
		KV("local_authority_id", slot->authority_id),
		KV("upstream_authority_id", slots->kind == AUTHORITY_X509 ? slot->upstream_id : NULL),
		{ 0 },
		{ 0 },
	};

	if (slots->kind == AUTHORITY_X509 && prepared)
		pairs[6] = (struct log_pair)KV_BOOL("self_signed", slot->upstream_id[0] == '\0');
	log_write(LOG_INFO, msg, pairs);
}

/* A fresh key and certificate in `slot`, not known to anybody yet. */
static enum code make_x509(struct rotation *r, struct slot *slot, struct arena *arena, struct err *err)
{
	const struct config *config = r->server->config;
	const struct x509_ca_subject subject = {
		config->ca_subject.country.items,      config->ca_subject.country.n,   config->ca_subject.organization.items,
		config->ca_subject.organization.n, config->ca_subject.common_name,
	};
	OWN(EVP_PKEY) key = NULL;
	struct x509_svid cert;
	int64_t now_s = clock_wall_s();

	TRY(key_manager_generate(r->keys, slot->key_id, r->x509_type, &key, err));
	TRY(x509_self_sign(key, &subject, r->server->td, config->ca_ttl_s, now_s, arena, &cert, err));
	TRY(x509_authority_new(key, cert.cert, NULL, 0, &slot->x509, err));
	key = NULL; /* the authority's now */
	slot->issued_at_s = now_s;
	slot->not_after_s = cert.not_after_s;
	slot->upstream_id[0] = '\0';
	memcpy(slot->authority_id, slot->x509->id, sizeof slot->authority_id);
	return CODE_OK;
}

static enum code publish_x509(struct rotation *r, struct slot *slot, struct err *err)
{
	Pb__X509Certificate cert = PB__X509_CERTIFICATE__INIT;
	Pb__X509Certificate *certs[] = { &cert };
	Pb__BundleAppend append = PB__BUNDLE_APPEND__INIT;

	cert.asn1 = (ProtobufCBinaryData){ slot->x509->cert.len, slot->x509->cert.data };
	append.n_x509_authorities = 1;
	append.x509_authorities = certs;
	journal_append(r->journal, AUTHORITY_X509, slot, (struct span){ 0 });
	return publish(r, &append, err);
}

static enum code make_jwt(struct rotation *r, struct slot *slot, struct err *err)
{
	OWN(EVP_PKEY) key = NULL;
	char kid[33];
	int64_t now_s = clock_wall_s();

	TRY(key_manager_generate(r->keys, slot->key_id, r->jwt_type, &key, err));
	jwt_new_kid(kid);
	TRY(jwt_authority_new(key, kid, now_s + r->server->config->ca_ttl_s, &slot->jwt, err));
	key = NULL;
	slot->issued_at_s = now_s;
	slot->not_after_s = slot->jwt->not_after_s;
	memcpy(slot->authority_id, slot->jwt->kid, sizeof slot->authority_id);
	return CODE_OK;
}

static enum code publish_jwt(struct rotation *r, struct slot *slot, struct err *err)
{
	OWN_BUF public_key = { 0 };
	Pb__JWTKey key = PB__JWTKEY__INIT;
	Pb__JWTKey *keys[] = { &key };
	Pb__BundleAppend append = PB__BUNDLE_APPEND__INIT;

	TRY(key_public_der(slot->jwt->key, &public_key, err));
	key.public_key = (ProtobufCBinaryData){ public_key.len, public_key.data };
	key.key_id = slot->authority_id;
	key.expires_at = slot->not_after_s;
	append.n_jwt_authorities = 1;
	append.jwt_authorities = keys;
	journal_append(r->journal, AUTHORITY_JWT, slot, (struct span){ public_key.data, public_key.len });
	return publish(r, &append, err);
}

static enum code prepare(struct rotation *r, struct slots *slots, struct slot *slot, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	bool x509 = slots->kind == AUTHORITY_X509;
	int64_t begin_ms = clock_mono_ms();
	enum code rc;

	slot_drop_key(slot);
	slot->status = SLOT_OLD; /* from here on the former key of this slot is gone */
	rc = x509 ? make_x509(r, slot, arena, err) : make_jwt(r, slot, err);
	if (rc == CODE_OK) {
		slot->status = SLOT_PREPARED;
		rc = x509 ? publish_x509(r, slot, err) : publish_jwt(r, slot, err);
		if (rc != CODE_OK)
			journal_remove(r->journal, slots->kind, slot->authority_id);
	}
	metric_call(x509 ? "ca_manager_x509_ca_prepare" : "ca_manager_jwt_key_prepare", rc, (double)(clock_mono_ms() - begin_ms));
	if (rc != CODE_OK) {
		slot_drop_key(slot);
		slot->status = SLOT_OLD;
		return rc;
	}
	log_authority(x509 ? "X509 CA prepared" : "JWT key prepared", slots, slot, true);
	return CODE_OK;
}

/* --- activating --- */

/* The present authorities and the server's SVID, for everybody. */
static void hang_keyring(struct rotation *r)
{
	const struct slot *x509 = slots_current(&r->x509), *jwt = slots_current(&r->jwt);

	if (r->server_key == NULL || x509->x509 == NULL)
		return; /* still starting */
	EVP_PKEY_up_ref(r->server_key);
	keyring_swap(r->server->keyring,
		     keyring_new(x509_authority_copy(x509->x509), jwt->jwt == NULL ? NULL : jwt_authority_copy(jwt->jwt),
				 r->server_key, (struct span){ r->server_cert.data, r->server_cert.len },
				 r->server_not_before_s, r->server_not_after_s));
}

static void count_activation(struct rotation *r, const struct slots *slots, const struct slot *slot)
{
	const struct metric_label *td = METRIC_LABELS({ "trust_domain_id", r->server->td });

	if (slots->kind == AUTHORITY_JWT) {
		metric_add(metric_get(METRIC_COUNTER, "manager_jwt_key_activate", NULL), 1);
		return;
	}
	metric_add(metric_get(METRIC_COUNTER, "ca_manager_x509_ca_activate", NULL), 1);
	metric_set(metric_get(METRIC_GAUGE, "manager_x509_ca_rotate_expiration", td), (double)slot->not_after_s);
	metric_set(metric_get(METRIC_GAUGE, "manager_x509_ca_rotate_ttl", td), (double)(slot->not_after_s - clock_wall_s()));
}

/* `slot` becomes the one that signs. The journal says so first; what it said before comes back if that fails. */
static enum code activate(struct rotation *r, struct slots *slots, struct slot *slot, struct err *err)
{
	struct slot *former = slots_current(slots) == slot ? NULL : slots_current(slots);
	bool retires = former != NULL && former->status == SLOT_ACTIVE;
	Pb__Command command;
	Pb__JournalSet set;
	enum code rc;

	assert(slot->status == SLOT_PREPARED || slot->status == SLOT_ACTIVE);
	journal_set_status(r->journal, slots->kind, slot->authority_id, SLOT_ACTIVE);
	if (retires)
		journal_set_status(r->journal, slots->kind, former->authority_id, SLOT_OLD);
	journal_command(r, &command, &set);
	rc = fault_at("rotate.activate") ? err_set(err, CODE_INTERNAL, "fault rotate.activate") : carry_out_one(r, &command, err);
	if (rc != CODE_OK) {
		journal_set_status(r->journal, slots->kind, slot->authority_id, slot->status);
		if (retires)
			journal_set_status(r->journal, slots->kind, former->authority_id, SLOT_ACTIVE);
		return rc;
	}
	slot->status = SLOT_ACTIVE;
	if (former != NULL) {
		slot_drop_key(former);
		if (retires)
			former->status = SLOT_OLD;
	}
	slots->current = (int)(slot - slots->slots);
	hang_keyring(r);
	count_activation(r, slots, slot);
	log_authority(slots->kind == AUTHORITY_X509 ? "X509 CA activated" : "JWT key activated", slots, slot, false);
	return CODE_OK;
}

/* One pass over a kind (3.2): whatever is due now. */
static enum code rotate_kind(struct rotation *r, struct slots *slots, struct err *err)
{
	struct slot *current = slots_current(slots), *next = slots_next(slots);
	int64_t now_s = clock_wall_s();

	if (slot_is_empty(current) || current->not_after_s <= now_s) {
		TRY(prepare(r, slots, current, err));
		return activate(r, slots, current, err);
	}
	if (current->status == SLOT_PREPARED) /* the start before this one ended in between */
		return activate(r, slots, current, err);
	if (slot_is_empty(next) && now_s > slot_prepare_after_s(current))
		TRY(prepare(r, slots, next, err));
	if (!slot_is_empty(next) && now_s > slot_activate_after_s(current))
		return activate(r, slots, next, err);
	return CODE_OK;
}

/* --- the server's own SVID --- */

static enum code sign_server_svid(struct rotation *r, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN(EVP_PKEY) key = NULL;
	OWN_BUF spki = { 0 };
	const struct slot *signer = slots_current(&r->x509);
	struct x509_request request = { .spiffe_id = r->server->server_id,
					.ttl_s = r->server->config->default_x509_svid_ttl_s,
					.now_s = clock_wall_s() };
	struct x509_svid svid;

	TRY(key_generate(r->x509_type, &key, err));
	TRY(key_public_der(key, &spki, err));
	request.spki = (struct span){ spki.data, spki.len };
	TRY(x509_issue(signer->x509, &request, arena, &svid, err));
	EVP_PKEY_free(r->server_key);
	r->server_key = TAKE(key);
	buf_done(&r->server_cert);
	buf_append(&r->server_cert, svid.cert.data, svid.cert.len);
	r->server_not_before_s = svid.not_before_s;
	r->server_not_after_s = svid.not_after_s;
	memcpy(r->server_signer, signer->authority_id, sizeof r->server_signer);
	hang_keyring(r);
	log_debug("Signed X509 SVID", KV("subsystem_name", "svid_rotator"), KV_TIME("expiration", svid.not_after_s),
		  KV("spiffe_id", r->server->server_id));
	return CODE_OK;
}

static enum code rotate_server_svid(struct rotation *r, struct err *err)
{
	int64_t begin_ms = clock_mono_ms();
	enum code rc = sign_server_svid(r, err);

	metric_call("svid_rotate", rc, (double)(clock_mono_ms() - begin_ms));
	return rc;
}

static bool server_svid_due(const struct rotation *r)
{
	return clock_wall_s() > r->server_not_before_s + (r->server_not_after_s - r->server_not_before_s) / 2;
}

/* --- start --- */

static enum code load(struct rotation *r, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	Pb__Journal *stored = NULL;
	Pb__Bundle *bundle = NULL;
	OWN_STRUCT(view) view = NULL;
	enum code rc;

	TRY(view_open(r->reader, &view, err));
	rc = view_journal(view, r->server->node, arena, &stored, err);
	if (rc == CODE_NOT_FOUND)
		return CODE_OK;
	if (rc == CODE_OK)
		rc = view_bundle(view, r->server->td, arena, &bundle, err);
	if (rc != CODE_OK && rc != CODE_NOT_FOUND)
		return rc;
	return journal_load(r->journal, stored, bundle, r->keys, &r->x509, &r->jwt, clock_wall_s(), err);
}

enum code rotation_init(struct rotation *r, struct err *err)
{
	TRY(load(r, err));
	TRY(rotate_kind(r, &r->x509, err));
	TRY(rotate_kind(r, &r->jwt, err));
	return rotate_server_svid(r, err);
}

/* --- what operators ask for --- */

struct request {
	struct link link;
	struct message there, back;
	struct rotation *rotation;
	struct loop *asker;
	struct wait done;
	atomic_int refs; /* the asker's and the rotation's */
	enum authority_kind kind;
	enum authority_op op;
	char authority_id[AUTHORITY_ID_MAX];
	struct authority_answer answer;
	enum code code;
	struct err err;
};

static void request_unref(struct request *request)
{
	if (atomic_fetch_sub(&request->refs, 1) == 1)
		free(request);
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
	bool x509 = request->kind == AUTHORITY_X509, taint = request->op == AUTHORITY_TAINT;
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
	if (carry_out_one(r, &command, err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL, "failed to %s %s authority", taint ? "taint" : "revoke", x509 ? "X.509" : "JWT");
	return CODE_OK;
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
	TRY(activate(r, slots, next, err));
	return CODE_OK;
}

static enum code op_taint(struct rotation *r, struct slots *slots, const struct request *request, struct err *err)
{
	struct slot *next = slots_next(slots);

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
	TRY(authority_command(r, request, err));
	if (slots->kind == AUTHORITY_X509 && strcmp(r->server_signer, request->authority_id) == 0) {
		log_info("Server SVID signed using a tainted authority, forcing rotation of the Server SVID",
			 KV("subsystem_name", "svid_rotator"));
		TRY(rotate_server_svid(r, err));
	}
	return CODE_OK;
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
	return authority_command(r, request, err);
}

static enum code op_prepare(struct rotation *r, struct slots *slots, struct err *err)
{
	if (prepare(r, slots, slots_next(slots), err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL, "failed to prepare %s authority", slots->kind == AUTHORITY_X509 ? "X.509" : "JWT");
	return CODE_OK;
}

static void serve_request(struct rotation *r, struct request *request)
{
	struct slots *slots = request->kind == AUTHORITY_X509 ? &r->x509 : &r->jwt;
	struct slot *acted = slots_next(slots); /* activation makes it the current one: the answer is still about it */
	struct err *err = &request->err;

	if (slots_current(slots)->status != SLOT_ACTIVE) {
		request->code = err_set(err, CODE_UNAVAILABLE, "server is initializing");
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
	}
	state_of(slots_current(slots), &request->answer.current);
	state_of(acted, &request->answer.next);
}

static void deliver_back(struct message *message)
{
	struct request *request = LIST_ITEM(message, struct request, back);

	wait_done(&request->done);
	request_unref(request);
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
	request->back.deliver = deliver_back;
	request->rotation = r;
	request->asker = loop_self();
	request->kind = kind;
	request->op = op;
	atomic_init(&request->refs, 2);
	if (strlen(authority_id) < sizeof request->authority_id)
		strcpy(request->authority_id, authority_id);
	else
		strcpy(request->authority_id, "?"); /* longer than any id is: matches none */
	loop_post(r->loop, &request->there);
	rc = task_wait(&request->done, deadline_ms);
	if (rc == CODE_OK) {
		rc = request->code;
		*out = request->answer;
		if (rc != CODE_OK)
			*err = request->err;
	} else {
		err_set(err, rc, "the authority task has not answered in time: it may still be carried out");
	}
	request_unref(request);
	return rc;
}

/* --- the task --- */

static void note_failure(struct rotation *r, const char *what, const struct err *err)
{
	atomic_fetch_add_explicit(&r->failures, 1, memory_order_relaxed);
	log_error(what, KV("subsystem_name", "ca_manager"), KV("error", err->text));
}

static void pass(struct rotation *r)
{
	struct err err = { 0 };

	if (rotate_kind(r, &r->x509, &err) != CODE_OK)
		note_failure(r, "Unable to rotate X509 CA", &err);
	if (rotate_kind(r, &r->jwt, &err) != CODE_OK)
		note_failure(r, "Unable to rotate JWT key", &err);
}

static void check_server_svid(struct rotation *r)
{
	struct err err = { 0 };

	if (server_svid_due(r) && rotate_server_svid(r, &err) != CODE_OK)
		log_error("Could not rotate server SVID", KV("subsystem_name", "svid_rotator"), KV("error", err.text));
}

static void prune_bundle(struct rotation *r)
{
	Pb__BundlePrune prune = PB__BUNDLE_PRUNE__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	struct err err = { 0 };

	prune.trust_domain = r->server->td;
	prune.before = clock_wall_s() - BUNDLE_KEPT_S;
	command.kind_case = PB__COMMAND__KIND_BUNDLE_PRUNE;
	command.bundle_prune = &prune;
	if (carry_out_one(r, &command, &err) != CODE_OK)
		log_error("Could not prune CA certificates", KV("subsystem_name", "ca_manager"), KV("error", err.text));
}

static void prune_journals(struct rotation *r)
{
	Pb__JournalPrune prune = PB__JOURNAL_PRUNE__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	struct err err = { 0 };

	prune.before = clock_wall_s() - JOURNAL_KEPT_S;
	command.kind_case = PB__COMMAND__KIND_JOURNAL_PRUNE;
	command.journal_prune = &prune;
	if (carry_out_one(r, &command, &err) != CODE_OK)
		log_error("Could not prune CA journals", KV("subsystem_name", "ca_manager"), KV("error", err.text));
}

struct timer {
	int64_t every_ms, next_ms;
	void (*fire)(struct rotation *r);
};

static void answer_requests(struct rotation *r)
{
	while (!list_empty(&r->requests)) {
		struct request *request = LIST_ITEM(r->requests.next, struct request, link);

		list_remove(&request->link);
		serve_request(r, request);
		loop_post(request->asker, &request->back);
	}
}

static void run(void *arg)
{
	struct rotation *r = arg;
	struct timer timers[] = {
		{ CHECK_AUTHORITIES_MS, 0, pass },
		{ CHECK_SERVER_SVID_MS, 0, check_server_svid },
		{ PRUNE_BUNDLE_MS, 0, prune_bundle },
		{ PRUNE_JOURNAL_MS, 0, prune_journals },
	};
	const size_t n = sizeof timers / sizeof timers[0];
	int64_t now_ms = clock_mono_ms();

	for (size_t i = 0; i < n; i++)
		timers[i].next_ms = now_ms + timers[i].every_ms;
	for (;;) {
		int64_t next_ms = INT64_MAX;
		enum code rc;

		for (size_t i = 0; i < n; i++)
			next_ms = timers[i].next_ms < next_ms ? timers[i].next_ms : next_ms;
		rc = task_wait(&r->wake, next_ms);
		r->wake.done = false;
		answer_requests(r);
		if (rc == CODE_CANCELLED)
			return;
		now_ms = clock_mono_ms();
		for (size_t i = 0; i < n; i++)
			if (timers[i].next_ms <= now_ms) {
				timers[i].next_ms = now_ms + timers[i].every_ms;
				timers[i].fire(r);
			}
	}
}

void rotation_run(struct rotation *r)
{
	task_spawn(r->loop, "rotation", run, r);
}
