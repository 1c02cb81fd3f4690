/* SPDX-License-Identifier: Apache-2.0 */
/* The task that keeps a node's authorities: what is due when, the start, and the server's own SVID. */
#include "api/parent.h"
#include "api/rotate_inside.h"

#include "api/state.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "ca/chain.h"
#include "ca/x509.h"

#include <stdlib.h>

OWNABLE(X509, X509_free)

enum {
	CHECK_AUTHORITIES_MS = 10 * 1000,
	CHECK_RIPE_MS = 500,
	CHECK_SERVER_SVID_MS = 5 * 1000,
	PRUNE_BUNDLE_MS = 6 * 3600 * 1000,
	PRUNE_JOURNAL_MS = 8 * 3600 * 1000,
	BUNDLE_KEPT_S = 24 * 3600,       /* what has ended stays this long in the bundle */
	JOURNAL_KEPT_S = 14 * 24 * 3600, /* and a journal in which everything has ended */
};

enum code rotation_new(struct server *server, struct loop *loop, struct key_manager *keys, struct rotation **out,
		       struct err *err)
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
	atomic_init(&r->waiting_since_ms, -1);
	*out = r;
	return CODE_OK;
}

void rotation_free(struct rotation *r)
{
	if (r == NULL)
		return;
	rotate_refuse(r);
	slots_done(&r->x509);
	slots_done(&r->jwt);
	journal_free(r->journal);
	reader_close(r->reader);
	EVP_PKEY_free(r->server_key);
	arena_free(r->server_arena);
	buf_done(&r->news);
	buf_done(&r->followed);
	free(r);
}

unsigned rotation_failures(const struct rotation *r)
{
	return atomic_load_explicit(&r->failures, memory_order_relaxed);
}

/* One pass over a kind (3.2): whatever is due now. */
static enum code rotate_kind(struct rotation *r, struct slots *slots, struct err *err)
{
	struct slot *current = slots_current(slots), *next = slots_next(slots);
	int64_t now_s = clock_wall_s();

	if (current->not_after_s <= now_s && !state_is_single(r->server->state) && !slot_is_empty(next))
		return rotate_is_ripe(r, slots, next) ? rotate_activate(r, slots, next, err) : CODE_OK;
	if (slot_is_empty(current) || current->not_after_s <= now_s)
		TRY(rotate_prepare(r, slots, current, err));
	if (current->status == SLOT_PREPARED) /* made just now, or the start before this one ended in between */
		return rotate_is_ripe(r, slots, current) ? rotate_activate(r, slots, current, err) : CODE_OK;
	if (slot_is_empty(next) && now_s > slot_prepare_after_s(current))
		TRY(rotate_prepare(r, slots, next, err));
	if (!slot_is_empty(next) && now_s > slot_activate_after_s(current) && rotate_is_ripe(r, slots, next))
		return rotate_activate(r, slots, next, err);
	return CODE_OK;
}

/* --- the server's own SVID --- */

/* The present authorities and the server's SVID, for everybody. */
void rotate_hang_keyring(struct rotation *r)
{
	const struct slot *x509 = slots_current(&r->x509), *jwt = slots_current(&r->jwt);

	if (r->server_key == NULL || x509->x509 == NULL || x509->status != SLOT_ACTIVE)
		return; /* still starting, or not ripe yet */
	EVP_PKEY_up_ref(r->server_key);
	keyring_swap(r->server->keyring,
		     keyring_new(x509_authority_copy(x509->x509),
				 jwt->jwt == NULL || jwt->status != SLOT_ACTIVE ? NULL : jwt_authority_copy(jwt->jwt), r->server_key, r->server_chain,
				 r->n_server_chain, r->server_not_before_s, r->server_not_after_s));
}

/* The chain belongs to the certificate: it stays as it is when another authority becomes the one that signs. */
static void keep_chain(struct rotation *r, const struct x509_authority *signer, struct span leaf)
{
	struct arena *arena = arena_new();
	struct span *chain = arena_alloc(arena, (signer->n_upstream + 1) * sizeof *chain);
	size_t n = 0;

	chain[n++] = (struct span){ arena_memdup(arena, leaf.data, leaf.len), leaf.len };
	for (size_t i = 0; i < signer->n_upstream; i++, n++)
		chain[n] = (struct span){ arena_memdup(arena, signer->upstream[i].data, signer->upstream[i].len),
					  signer->upstream[i].len };
	arena_free(r->server_arena);
	r->server_arena = arena;
	r->server_chain = chain;
	r->n_server_chain = n;
}

static enum code sign_server_svid(struct rotation *r, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN(EVP_PKEY) key = NULL;
	OWN_BUF spki = { 0 };
	const struct x509_authority *signer = slots_current(&r->x509)->x509;
	struct x509_request request = { .spiffe_id = r->server->server_id,
					.ttl_s = r->server->config->default_x509_svid_ttl_s,
					.now_s = clock_wall_s() };
	struct x509_svid svid;

	TRY(key_generate(r->x509_type, &key, err));
	TRY(key_public_der(key, &spki, err));
	request.spki = (struct span){ spki.data, spki.len };
	TRY(x509_issue(signer, &request, arena, &svid, err));
	EVP_PKEY_free(r->server_key);
	r->server_key = TAKE(key);
	keep_chain(r, signer, svid.cert);
	r->server_not_before_s = svid.not_before_s;
	r->server_not_after_s = svid.not_after_s;
	rotate_hang_keyring(r);
	log_debug("Signed X509 SVID", KV("subsystem_name", "svid_rotator"), KV_TIME("expiration", svid.not_after_s),
		  KV("spiffe_id", r->server->server_id));
	return CODE_OK;
}

static enum code rotate_server_svid(struct rotation *r, struct err *err)
{
	int64_t begin_ms = clock_mono_ms();
	enum code rc;

	if (slots_current(&r->x509)->status != SLOT_ACTIVE)
		return CODE_OK; /* not ripe yet */
	rc = sign_server_svid(r, err);
	metric_call("svid_rotate", rc, (double)(clock_mono_ms() - begin_ms));
	return rc;
}

static enum code parse_all(const struct span *ders, size_t n, struct certs *out)
{
	for (size_t i = 0; i < n; i++) {
		X509 *cert;

		TRY(cert_parse(ders[i], &cert, NULL));
		certs_add(out, cert);
	}
	return CODE_OK;
}

bool rotate_leads_to(const struct span *chain, size_t n_chain, const struct span *authorities, size_t n)
{
	OWN_CERTS between = { 0 };
	OWN_CERTS anchors = { 0 };
	OWN_CERTS issuers = { 0 };
	OWN(X509) leaf = NULL;

	return n_chain > 0 && n > 0 && cert_parse(chain[0], &leaf, NULL) == CODE_OK &&
	       parse_all(chain + 1, n_chain - 1, &between) == CODE_OK &&
	       parse_all(authorities, n, &anchors) == CODE_OK &&
	       chain_verify(leaf, &between, &anchors, clock_wall_s(), &issuers, NULL) == CODE_OK;
}

enum code rotate_leave_tainted(struct rotation *r, const struct span *tainted, size_t n, struct err *err)
{
	if (!rotate_leads_to(r->server_chain, r->n_server_chain, tainted, n))
		return CODE_OK;
	log_info("Server SVID signed using a tainted authority, forcing rotation of the Server SVID",
		 KV("subsystem_name", "svid_rotator"));
	return rotate_server_svid(r, err);
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
	TRY(journal_load(r->journal, stored, bundle, r->keys, &r->x509, &r->jwt, clock_wall_s(), err));
	for (int i = 0; i < 2; i++) {
		rotate_note_loaded(&r->x509.slots[i]);
		rotate_note_loaded(&r->jwt.slots[i]);
	}
	return CODE_OK;
}

enum code rotation_init(struct rotation *r, struct err *err)
{
	enum code rc;

	TRY(load(r, err));
	rc = rotate_kind(r, &r->x509, err);
	if (rc == CODE_OK)
		rc = rotate_kind(r, &r->jwt, err);
	rotate_note_waiting(r);
	if (rc == CODE_UNAVAILABLE && !state_is_single(r->server->state)) /* no leader: what is there goes on, the rest comes later */
		log_warn("Authorities are not complete yet", KV("subsystem_name", "ca_manager"), KV("error", err->text));
	else
		TRY(rc);
	return rotate_server_svid(r, err);
}

/* --- the task --- */

static void note_failure(struct rotation *r, const char *what, const struct err *err)
{
	atomic_fetch_add_explicit(&r->failures, 1, memory_order_relaxed);
	log_error(what, KV("subsystem_name", "ca_manager"), KV("error", err->text));
}

static void check_server_svid(struct rotation *r)
{
	struct err err = { 0 };

	if (server_svid_due(r) && rotate_server_svid(r, &err) != CODE_OK)
		log_error("Could not rotate server SVID", KV("subsystem_name", "svid_rotator"), KV("error", err.text));
}

static void pass(struct rotation *r)
{
	struct err err = { 0 };
	struct replica_view view;

	replica_view(r->server->replica, &view);
	if (!state_is_single(r->server->state) && !view.hears_leader)
		return; /* what is due has to be a command */
	if (rotate_kind(r, &r->x509, &err) != CODE_OK)
		note_failure(r, "Unable to rotate X509 CA", &err);
	if (rotate_kind(r, &r->jwt, &err) != CODE_OK)
		note_failure(r, "Unable to rotate JWT key", &err);
	rotate_note_waiting(r);
	if (r->server_key == NULL)
		check_server_svid(r);
}

/* The first authority is looked at more often: the node holds no port before it is ripe. */
static void ripen(struct rotation *r)
{
	if (atomic_load_explicit(&r->waiting_since_ms, memory_order_relaxed) >= 0)
		pass(r);
}

static void prune_bundle(struct rotation *r)
{
	Pb__BundlePrune prune = PB__BUNDLE_PRUNE__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	struct err err = { 0 };
	struct replica_view view;

	replica_view(r->server->replica, &view);
	if (!view.is_leader)
		return; /* one of a cluster is enough */
	prune.trust_domain = r->server->td;
	prune.before = clock_wall_s() - BUNDLE_KEPT_S;
	command.kind_case = PB__COMMAND__KIND_BUNDLE_PRUNE;
	command.bundle_prune = &prune;
	if (rotate_carry_out(r, (Pb__Command *[]){ &command }, 1, &err) != CODE_OK)
		log_error("Could not prune CA certificates", KV("subsystem_name", "ca_manager"), KV("error", err.text));
}

static void prune_journals(struct rotation *r)
{
	Pb__JournalPrune prune = PB__JOURNAL_PRUNE__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	struct err err = { 0 };
	struct replica_view view;

	replica_view(r->server->replica, &view);
	if (!view.is_leader)
		return; /* one of a cluster is enough */
	prune.before = clock_wall_s() - JOURNAL_KEPT_S;
	command.kind_case = PB__COMMAND__KIND_JOURNAL_PRUNE;
	command.journal_prune = &prune;
	if (rotate_carry_out(r, (Pb__Command *[]){ &command }, 1, &err) != CODE_OK)
		log_error("Could not prune CA journals", KV("subsystem_name", "ca_manager"), KV("error", err.text));
}

struct timer {
	int64_t every_ms, next_ms;
	void (*fire)(struct rotation *r);
};

static void run(void *arg)
{
	struct rotation *r = arg;
	struct timer timers[] = {
		{ CHECK_AUTHORITIES_MS, 0, pass },
		{ CHECK_RIPE_MS, 0, ripen },
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
		rotate_answer(r);
		rotate_follow(r);
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
	r->running = true;
	if (r->server->parent != NULL)
		parent_watch(r->server->parent, r->loop, rotate_hear_news, r);
	task_spawn(r->loop, "rotation", run, r);
}
