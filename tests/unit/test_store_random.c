/* SPDX-License-Identifier: Apache-2.0 */
/* Random commands against a model that knows no tables, no indexes and no numbers of parents: lists, walked from end to
 * end. What the store answers and what its views show must be what the model says, and the kept digest that of the
 * rows. SEED= repeats a run. */
#include "lib/state.h"
#include "store/codec.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { ENTRIES = 400, AGENTS = 6, DOMAINS = 4, TOKENS = 4, NAMES = 24 };

static uint64_t random_state;

static uint64_t any(uint64_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 11) % n;
}

struct model_agent {
	bool there, banned, can_reattest;
	char serial[16], new_serial[16], version[16];
	int64_t not_after, new_not_after;
	Pb__Selector **selectors;
	size_t n_selectors;
	uint64_t order, incarnation;
	bool join_token;
};

struct model {
	struct state s;
	struct arena *arena;
	Pb__Entry *entries[ENTRIES]; /* in order of creation */
	size_t n_entries;
	struct model_agent agents[AGENTS];
	Pb__Bundle *bundles[DOMAINS];
	int64_t tokens[TOKENS]; /* expiry, 0: none */
	uint64_t orders, serials, ids;
};

/* --- what there is to choose from --- */

static const char *agent_path(unsigned n)
{
	static const char *const paths[AGENTS] = { "/spire/agent/t/0",          "/spire/agent/t/1",
						   "/spire/agent/t/2",          "/spire/agent/t/3",
						   "/spire/agent/join_token/4", "/spire/agent/join_token/5" };

	return paths[n];
}

static const char *domain(unsigned n)
{
	static const char *const names[DOMAINS] = { "d0.test", "d1.test", "d2.test", "d3.test" };

	return names[n];
}

static const char *name_path(struct model *m)
{
	return arena_printf(m->arena, "/n%d", (int)any(NAMES));
}

static const char *parent_path(struct model *m)
{
	switch (any(6)) {
	case 0:
		return "/spire/server";
	case 1:
	case 2:
		return agent_path((unsigned)any(AGENTS));
	default:
		return name_path(m);
	}
}

static Pb__Selector **some_selectors(struct model *m, unsigned least, size_t *n)
{
	static const char *const all[] = {
		"t:a ", "t:b ", "t:c ", "u:a ", "u:b:c ", "spiffe_id:spiffe://example.org/spire/agent/join_token/4 "
	};
	char text[256] = "";
	unsigned count = least + (unsigned)any(3);

	for (unsigned i = 0; i < count; i++)
		strcat(text, all[any(any(4) == 0 ? 6 : 5)]);
	return state_selectors(&m->s, text, n);
}

static const char **some_domains(struct model *m, size_t *n)
{
	const char **out = arena_alloc(m->arena, 3 * sizeof *out);

	*n = any(4) == 0 ? any(4) : 0;
	for (size_t i = 0; i < *n; i++)
		out[i] = any(5) == 0 ? "none.test" : domain((unsigned)any(DOMAINS));
	return out;
}

static Pb__Entry *random_entry(struct model *m, const char *id)
{
	Pb__Entry *e = state_entry(&m->s, id, parent_path(m), name_path(m), "t:a");

	e->selectors = some_selectors(m, 1, &e->n_selectors);
	e->federates_with = some_domains(m, &e->n_federates_with);
	e->admin = any(8) == 0;
	e->downstream = any(8) == 0;
	e->hint = any(4) == 0 ? "h" : "";
	e->x509_svid_ttl = (int32_t)any(20) - 1;
	e->expires_at = any(4) == 0 ? (int64_t)any(2000000) : 0;
	e->store_svid = any(8) == 0;
	return e;
}

static const char *some_id(struct model *m)
{
	if (m->n_entries == 0 || any(20) == 0)
		return arena_printf(m->arena, "e%d", (int)any(50));
	return m->entries[any(m->n_entries)]->id;
}

/* --- the model --- */

static bool same_selector(const Pb__Selector *a, const Pb__Selector *b)
{
	return strcmp(a->type, b->type) == 0 && strcmp(a->value, b->value) == 0;
}

static bool has_selector(Pb__Selector *const *set, size_t n, const Pb__Selector *one)
{
	for (size_t i = 0; i < n; i++)
		if (same_selector(set[i], one))
			return true;
	return false;
}

static bool subset(Pb__Selector *const *a, size_t n_a, Pb__Selector *const *b, size_t n_b)
{
	for (size_t i = 0; i < n_a; i++)
		if (!has_selector(b, n_b, a[i]))
			return false;
	return true;
}

static bool same_id(const Pb__SPIFFEID *a, const Pb__SPIFFEID *b)
{
	return strcmp(a->path, b->path) == 0;
}

static size_t find(const struct model *m, const char *id)
{
	size_t i = 0;

	while (i < m->n_entries && strcmp(m->entries[i]->id, id) != 0)
		i++;
	return i;
}

static const char *bad_sets(struct model *m, const Pb__Entry *e, enum code *code, bool update)
{
	for (int turn = 0; turn < 2; turn++) {
		if ((turn == 0) != update)
			for (size_t i = 0; i < e->n_federates_with; i++) {
				bool known = false;

				for (unsigned d = 0; d < DOMAINS; d++)
					known |= m->bundles[d] != NULL && strcmp(domain(d), e->federates_with[i]) == 0;
				if (known)
					continue;
				*code = CODE_INTERNAL;
				return "unable to find federated bundle"; /* the first in order of names: only the
									     beginning is compared */
			}
		else
			for (size_t i = 0; i < e->n_selectors; i++)
				if (has_selector(e->selectors, i, e->selectors[i])) {
					*code = CODE_ALREADY_EXISTS;
					return "datastore-sql: UNIQUE constraint failed: selectors";
				}
	}
	return NULL;
}

static bool mixed_types(const Pb__Entry *e)
{
	for (size_t i = 1; i < e->n_selectors; i++)
		if (strcmp(e->selectors[i]->type, e->selectors[0]->type) != 0)
			return e->store_svid;
	return false;
}

static void keep_domains_in_order(Pb__Entry *e)
{
	size_t n = 0;

	for (size_t i = 0; i < e->n_federates_with; i++)
		for (size_t k = i + 1; k < e->n_federates_with; k++)
			if (strcmp(e->federates_with[i], e->federates_with[k]) > 0) {
				const char *swap = e->federates_with[i];

				e->federates_with[i] = e->federates_with[k];
				e->federates_with[k] = swap;
			}
	for (size_t i = 0; i < e->n_federates_with; i++)
		if (n == 0 || strcmp(e->federates_with[n - 1], e->federates_with[i]) != 0)
			e->federates_with[n++] = e->federates_with[i];
	e->n_federates_with = n;
}

static void expect(const Pb__Outcome *out, enum code code, const char *message)
{
	if (out->code != (int)code || strncmp(out->message, message, strlen(message)) != 0) {
		print_error("got %s '%s', expected %s '%s'\n", code_name(out->code), out->message, code_name(code),
			    message);
		fail();
	}
}

static void check_same(const void *got, const void *want)
{
	OWN_BUF a = { 0 }, b = { 0 };

	message_pack(got, &a);
	message_pack(want, &b);
	assert_int_equal(a.len, b.len);
	assert_memory_equal(a.data, b.data, a.len);
}

static void do_create(struct model *m)
{
	Pb__Entry *e = random_entry(m, any(10) == 0 ? some_id(m) : arena_printf(m->arena, "e%d", (int)m->ids++));
	Pb__Outcome *out;
	const char *bad = NULL;
	enum code code = CODE_OK;

	if (m->n_entries == ENTRIES)
		return;
	out = state_create(&m->s, e);
	if (mixed_types(e))
		return expect(out, CODE_INVALID_ARGUMENT,
			      "datastore-validation: invalid registration entry: selector types");
	if (e->x509_svid_ttl < 0)
		return expect(out, CODE_INVALID_ARGUMENT,
			      "datastore-validation: invalid registration entry: X509SvidTtl");
	for (size_t i = 0; i < m->n_entries; i++) {
		const Pb__Entry *o = m->entries[i];

		if (!same_id(o->spiffe_id, e->spiffe_id) || !same_id(o->parent_id, e->parent_id) ||
		    !subset(o->selectors, o->n_selectors, e->selectors, e->n_selectors) ||
		    !subset(e->selectors, e->n_selectors, o->selectors, o->n_selectors))
			continue;
		expect(out, CODE_ALREADY_EXISTS, "similar entry already exists");
		/* several may be similar after updates: it is one of them */
		assert_true(find(m, out->entry->id) < m->n_entries);
		check_same(out->entry, m->entries[find(m, out->entry->id)]);
		return;
	}
	if (find(m, e->id) < m->n_entries)
		return expect(out, CODE_ALREADY_EXISTS,
			      "datastore-sql: UNIQUE constraint failed: registered_entries.entry_id");
	bad = bad_sets(m, e, &code, false);
	expect(out, code, bad != NULL ? bad : "");
	if (bad != NULL)
		return;
	e->created_at = (m->s.now_ms + 500) / 1000;
	keep_domains_in_order(e);
	m->entries[m->n_entries++] = message_copy(e, m->arena);
}

static void do_update(struct model *m)
{
	Pb__EntryUpdate message = PB__ENTRY_UPDATE__INIT;
	Pb__EntryMask mask = PB__ENTRY_MASK__INIT;
	Pb__Entry *in = random_entry(m, some_id(m)), *e;
	size_t at = find(m, in->id);
	Pb__Outcome *out;
	const char *bad;
	enum code code = CODE_OK;
	bool all = any(4) == 0;

	mask.parent_id = any(2), mask.spiffe_id = any(2), mask.selectors = any(2), mask.federates_with = any(2);
	mask.hint = any(2), mask.admin = any(2), mask.downstream = any(2), mask.x509_svid_ttl = any(2),
	mask.store_svid = any(2);
	mask.expires_at = any(2);
	message.entry = in;
	message.mask = all ? NULL : &mask;
	out = state_do(&m->s, PB__COMMAND__KIND_ENTRY_UPDATE, &message);
	if ((all || mask.x509_svid_ttl) && in->x509_svid_ttl < 0)
		return expect(out, CODE_INVALID_ARGUMENT,
			      "datastore-validation: invalid registration entry: X509SvidTtl");
	if (at == m->n_entries)
		return expect(out, CODE_NOT_FOUND, "failed to update entry");
	e = message_copy(m->entries[at], m->arena);
#define MERGE(field)                                                                                                   \
	if (all || mask.field)                                                                                         \
	e->field = in->field
	MERGE(parent_id);
	MERGE(spiffe_id);
	MERGE(selectors);
	if (all || mask.selectors)
		e->n_selectors = in->n_selectors;
	MERGE(federates_with);
	if (all || mask.federates_with)
		e->n_federates_with = in->n_federates_with;
	MERGE(hint);
	MERGE(admin);
	MERGE(downstream);
	MERGE(x509_svid_ttl);
	MERGE(store_svid);
	MERGE(expires_at);
	if (mixed_types(e))
		return expect(out, CODE_INVALID_ARGUMENT,
			      "datastore-validation: invalid registration entry: selector types");
	bad = bad_sets(m, e, &code, true);
	expect(out, code, bad != NULL ? bad : "");
	if (bad != NULL)
		return;
	keep_domains_in_order(e);
	e->revision_number++;
	m->entries[at] = message_copy(e, m->arena);
}

static void forget(struct model *m, size_t at)
{
	memmove(&m->entries[at], &m->entries[at + 1], (--m->n_entries - at) * sizeof(void *));
}

static void do_delete(struct model *m)
{
	Pb__EntryDelete message = PB__ENTRY_DELETE__INIT;
	size_t at;

	message.id = some_id(m);
	at = find(m, message.id);
	expect(state_do(&m->s, PB__COMMAND__KIND_ENTRY_DELETE, &message), at < m->n_entries ? CODE_OK : CODE_NOT_FOUND,
	       "");
	if (at < m->n_entries)
		forget(m, at);
}

static void do_prune(struct model *m)
{
	Pb__EntryPrune message = PB__ENTRY_PRUNE__INIT;
	uint32_t n = 0;

	message.before = (int64_t)any(400000);
	for (size_t i = 0; i < m->n_entries;)
		if (m->entries[i]->expires_at != 0 && m->entries[i]->expires_at < message.before)
			forget(m, i), n++;
		else
			i++;
	assert_int_equal(state_do(&m->s, PB__COMMAND__KIND_ENTRY_PRUNE, &message)->count, n);
}

static const char *full(struct model *m, const char *path)
{
	return arena_printf(m->arena, "spiffe://example.org%s", path);
}

static void do_attest(struct model *m)
{
	unsigned n = (unsigned)any(AGENTS);
	struct model_agent *agent = &m->agents[n];
	Pb__AgentAttest message = PB__AGENT_ATTEST__INIT;
	Pb__AgentSvid svid = PB__AGENT_SVID__INIT;
	uint8_t hash[32];
	unsigned token = (unsigned)any(TOKENS);
	bool with_token = any(3) == 0, new;
	Pb__Outcome *out;

	message.id = full(m, agent_path(n));
	message.attestation_type = n >= 4 ? "join_token" : "t";
	svid.serial = arena_printf(m->arena, "%d", (int)++m->serials);
	svid.not_after = m->s.now_ms / 2000 + (int64_t)any((uint64_t)m->s.now_ms / 1000);
	message.svid = &svid;
	message.can_reattest = any(2);
	message.must_be_new = any(4) == 0;
	message.selectors = some_selectors(m, 0, &message.n_selectors);
	if (with_token) {
		store_token_hash(arena_printf(m->arena, "token%u", token), hash);
		message.token_hash = (ProtobufCBinaryData){ 32, hash };
	}
	out = state_do(&m->s, PB__COMMAND__KIND_AGENT_ATTEST, &message);
	if (with_token) {
		int64_t expires_at = m->tokens[token];

		if (expires_at == 0)
			return expect(out, CODE_INVALID_ARGUMENT,
				      "failed to attest: join token does not exist or has already been used");
		m->tokens[token] = 0;
		if (expires_at * 1000 < m->s.now_ms)
			return expect(out, CODE_INVALID_ARGUMENT, "join token expired");
	}
	if (agent->there && message.must_be_new)
		return expect(out, CODE_PERMISSION_DENIED, "nodeattestor(");
	if (agent->there && agent->banned)
		return expect(out, CODE_PERMISSION_DENIED, "failed to attest: agent is banned");
	expect(out, CODE_OK, "");
	new = !agent->there;
	if (new)
		*agent = (struct model_agent){ .order = ++m->orders, .join_token = n >= 4 };
	agent->there = true;
	agent->incarnation++;
	agent->can_reattest = message.can_reattest;
	snprintf(agent->serial, sizeof agent->serial, "%s", svid.serial);
	agent->new_serial[0] = '\0';
	agent->not_after = svid.not_after;
	agent->selectors = message.selectors;
	agent->n_selectors = message.n_selectors;
}

static void do_renew(struct model *m)
{
	unsigned n = (unsigned)any(AGENTS);
	struct model_agent *agent = &m->agents[n];
	Pb__AgentRenew message = PB__AGENT_RENEW__INIT;
	Pb__AgentSvid svid = PB__AGENT_SVID__INIT;
	Pb__Outcome *out;

	message.id = full(m, agent_path(n));
	message.presented = any(3) == 0 ? agent->new_serial : any(5) == 0 ? "7777777" : agent->serial;
	svid.serial = arena_printf(m->arena, "%d", (int)++m->serials);
	svid.not_after = m->s.now_ms / 2000 + (int64_t)any((uint64_t)m->s.now_ms / 1000);
	message.svid = &svid;
	out = state_do(&m->s, PB__COMMAND__KIND_AGENT_RENEW, &message);
	if (!agent->there)
		return expect(out, CODE_NOT_FOUND, "agent not found");
	if (agent->banned)
		return expect(out, CODE_PERMISSION_DENIED, "agent is banned");
	if (agent->can_reattest)
		return expect(out, CODE_PERMISSION_DENIED, "agent must reattest instead of renew");
	if (message.presented[0] == '\0' ||
	    (strcmp(message.presented, agent->serial) != 0 && strcmp(message.presented, agent->new_serial) != 0))
		return expect(out, CODE_PERMISSION_DENIED, "agent is not active");
	if (strcmp(message.presented, agent->new_serial) == 0) {
		memcpy(agent->serial, agent->new_serial, sizeof agent->serial);
		agent->not_after = agent->new_not_after;
	}
	snprintf(agent->new_serial, sizeof agent->new_serial, "%s", svid.serial);
	agent->new_not_after = svid.not_after;
	expect(out, CODE_OK, "");
}

static void do_activate(struct model *m)
{
	unsigned n = (unsigned)any(AGENTS);
	struct model_agent *agent = &m->agents[n];
	Pb__AgentActivate message = PB__AGENT_ACTIVATE__INIT;
	Pb__Outcome *out;

	message.id = full(m, agent_path(n));
	message.serial = any(3) == 0 ? agent->serial : agent->new_serial;
	out = state_do(&m->s, PB__COMMAND__KIND_AGENT_ACTIVATE, &message);
	if (!agent->there)
		return expect(out, CODE_NOT_FOUND, "agent not found");
	if (agent->banned)
		return expect(out, CODE_PERMISSION_DENIED, "agent is banned");
	if (message.serial[0] == '\0')
		return expect(out, CODE_PERMISSION_DENIED, "agent is not active");
	expect(out, CODE_OK, "");
	if (strcmp(message.serial, agent->new_serial) == 0) {
		memcpy(agent->serial, agent->new_serial, sizeof agent->serial);
		agent->not_after = agent->new_not_after;
		agent->new_serial[0] = '\0';
	}
}

static void do_ban(struct model *m)
{
	unsigned n = (unsigned)any(AGENTS);
	Pb__AgentBan message = PB__AGENT_BAN__INIT;

	message.id = full(m, agent_path(n));
	expect(state_do(&m->s, PB__COMMAND__KIND_AGENT_BAN, &message), m->agents[n].there ? CODE_OK : CODE_NOT_FOUND,
	       "");
	if (m->agents[n].there) {
		m->agents[n].banned = true;
		m->agents[n].serial[0] = m->agents[n].new_serial[0] = '\0';
	}
}

static void agent_gone(struct model *m, unsigned n)
{
	m->agents[n].there = false;
	for (size_t i = 0; m->agents[n].join_token && i < m->n_entries;) {
		const Pb__Entry *e = m->entries[i];

		if (strcmp(e->parent_id->path, agent_path(n)) == 0 && e->n_selectors == 1 &&
		    strcmp(e->selectors[0]->type, "spiffe_id") == 0 &&
		    strcmp(e->selectors[0]->value, full(m, agent_path(n))) == 0)
			forget(m, i);
		else
			i++;
	}
	m->agents[n] = (struct model_agent){ 0 };
}

static void do_evict(struct model *m)
{
	unsigned n = (unsigned)any(AGENTS);
	Pb__AgentDelete message = PB__AGENT_DELETE__INIT;

	message.id = full(m, agent_path(n));
	expect(state_do(&m->s, PB__COMMAND__KIND_AGENT_DELETE, &message), m->agents[n].there ? CODE_OK : CODE_NOT_FOUND,
	       "");
	if (m->agents[n].there)
		agent_gone(m, n);
}

static void do_agent_prune(struct model *m)
{
	Pb__AgentPrune message = PB__AGENT_PRUNE__INIT;
	uint32_t n = 0;

	message.before = (int64_t)any(300000);
	message.tofu = any(2);
	message.limit = 100;
	for (unsigned i = 0; i < AGENTS; i++) {
		const struct model_agent *agent = &m->agents[i];

		if (agent->there && !agent->banned && agent->not_after < message.before &&
		    (agent->can_reattest || message.tofu))
			agent_gone(m, i), n++;
	}
	assert_int_equal(state_do(&m->s, PB__COMMAND__KIND_AGENT_PRUNE, &message)->count, n);
}

static void do_token(struct model *m)
{
	unsigned n = (unsigned)any(TOKENS);
	Pb__TokenCreate message = PB__TOKEN_CREATE__INIT;
	uint8_t hash[32];

	store_token_hash(arena_printf(m->arena, "token%u", n), hash);
	message.hash = (ProtobufCBinaryData){ 32, hash };
	message.expires_at = 1 + (int64_t)any(2000000);
	expect(state_do(&m->s, PB__COMMAND__KIND_TOKEN_CREATE, &message), m->tokens[n] == 0 ? CODE_OK : CODE_INTERNAL,
	       m->tokens[n] == 0 ? "" : "datastore-sql: UNIQUE constraint failed: join_tokens.token");
	if (m->tokens[n] == 0)
		m->tokens[n] = message.expires_at;
}

static void do_bundle_set(struct model *m)
{
	unsigned n = (unsigned)any(DOMAINS);
	Pb__BundleSet message = PB__BUNDLE_SET__INIT;
	Pb__Bundle bundle = PB__BUNDLE__INIT;

	bundle.trust_domain = domain(n);
	bundle.refresh_hint = (int64_t)any(100);
	message.bundle = &bundle;
	expect(state_do(&m->s, PB__COMMAND__KIND_BUNDLE_SET, &message), CODE_OK, "");
	m->bundles[n] = message_copy(&bundle, m->arena);
}

static bool federates(const Pb__Entry *e, const char *td)
{
	for (size_t i = 0; i < e->n_federates_with; i++)
		if (strcmp(e->federates_with[i], td) == 0)
			return true;
	return false;
}

static void do_bundle_delete(struct model *m)
{
	unsigned n = (unsigned)any(DOMAINS);
	Pb__BundleDelete message = PB__BUNDLE_DELETE__INIT;
	Pb__Outcome *out;
	unsigned count = 0;

	message.trust_domain = domain(n);
	message.mode = (Pb__BundleDelete__Mode)any(3);
	out = state_do(&m->s, PB__COMMAND__KIND_BUNDLE_DELETE, &message);
	if (m->bundles[n] == NULL)
		return expect(out, CODE_NOT_FOUND, "bundle not found");
	for (size_t i = 0; i < m->n_entries; i++)
		count += federates(m->entries[i], domain(n));
	if (count > 0 && message.mode == PB__BUNDLE_DELETE__MODE__RESTRICT)
		return expect(
			out, CODE_FAILED_PRECONDITION,
			arena_printf(m->arena,
				     "datastore-sql: cannot delete bundle; federated with %u registration entries",
				     count));
	expect(out, CODE_OK, "");
	m->bundles[n] = NULL;
	for (size_t i = 0; i < m->n_entries;) {
		Pb__Entry *e = m->entries[i];
		size_t kept = 0;

		if (federates(e, domain(n)) && message.mode == PB__BUNDLE_DELETE__MODE__DELETE) {
			forget(m, i);
			continue;
		}
		for (size_t k = 0; k < e->n_federates_with; k++)
			if (strcmp(e->federates_with[k], domain(n)) != 0)
				e->federates_with[kept++] = e->federates_with[k];
		e->n_federates_with = kept;
		i++;
	}
}

/* --- what the views must show --- */

struct seen {
	struct model *m;
	struct arena *arena;
	Pb__Entry *entries[ENTRIES];
	uint64_t seqs[ENTRIES];
	size_t n;
};

static enum code see(const struct entry_row *row, void *ctx, struct err *err __attribute__((unused)))
{
	struct seen *seen = ctx;
	Pb__Entry *e = message_unpack(&pb__entry__descriptor, row->blob, seen->arena);

	assert_non_null(e);
	assert_true(seen->n < ENTRIES);
	CHECK_STR(row->id, e->id);
	CHECK_STR(row->spiffe_id, full(seen->m, e->spiffe_id->path));
	CHECK_STR(row->parent_id, full(seen->m, e->parent_id->path));
	CHECK_NUM(row->revision, e->revision_number);
	CHECK_NUM(row->created_at, e->created_at);
	CHECK_NUM(row->admin, e->admin);
	CHECK_NUM(row->downstream, e->downstream);
	seen->seqs[seen->n] = row->seq;
	seen->entries[seen->n++] = e;
	return CODE_OK;
}

static bool behaves(int behaviour, size_t n_row, size_t n_filter, size_t hits)
{
	return behaviour == 0   ? hits == n_row && hits == n_filter
	       : behaviour == 1 ? n_row > 0 && hits == n_row
	       : behaviour == 2 ? hits == n_filter
				: hits > 0;
}

static bool passes(struct model *m, const struct entry_filter *f, const Pb__Entry *e)
{
	size_t n = 0, hits = 0;

	if (f->spiffe_id != NULL && strcmp(f->spiffe_id, full(m, e->spiffe_id->path)) != 0)
		return false;
	if (f->parent_id != NULL && strcmp(f->parent_id, full(m, e->parent_id->path)) != 0)
		return false;
	if (f->hint != NULL && f->hint[0] != '\0' && strcmp(f->hint, e->hint) != 0)
		return false;
	if (f->downstream && !e->downstream)
		return false;
	if (f->selectors != NULL) {
		for (size_t i = 0; i < f->selectors->n_selectors; i++)
			n += !has_selector(f->selectors->selectors, i, f->selectors->selectors[i]);
		for (size_t i = 0; i < e->n_selectors; i++)
			hits += has_selector(f->selectors->selectors, f->selectors->n_selectors, e->selectors[i]);
		if (!behaves((int)f->selectors->match, e->n_selectors, n, hits))
			return false;
	}
	if (f->federates_with == NULL)
		return true;
	n = hits = 0;
	for (size_t i = 0; i < f->federates_with->n_trust_domains; i++) {
		bool again = false;

		for (size_t k = 0; k < i; k++)
			again |= strcmp(f->federates_with->trust_domains[i], f->federates_with->trust_domains[k]) == 0;
		n += !again;
		hits += !again && federates(e, f->federates_with->trust_domains[i]);
	}
	return behaves((int)f->federates_with->match, e->n_federates_with, n, hits);
}

static void check_list(struct model *m, const struct entry_filter *filter, const struct seen *seen)
{
	size_t k = 0;

	for (size_t i = 0; i < m->n_entries; i++)
		if (passes(m, filter, m->entries[i])) {
			assert_true(k < seen->n);
			check_same(seen->entries[k++], m->entries[i]);
		}
	assert_int_equal(k, seen->n);
}

static void check_filter(struct model *m, struct view *view, const struct entry_filter *filter)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct seen *whole = arena_zalloc(arena, sizeof *whole), *pages = arena_zalloc(arena, sizeof *pages);
	struct err err = { 0 };
	uint64_t count, after = 0;
	size_t before;

	whole->m = pages->m = m;
	whole->arena = pages->arena = arena;
	CHECK_CODE(view_entries(view, filter, 0, 0, see, whole, &err), CODE_OK);
	check_list(m, filter, whole);
	CHECK_CODE(view_entry_count(view, filter, &count, &err), CODE_OK);
	CHECK_NUM(count, whole->n);
	do {
		before = pages->n;
		CHECK_CODE(view_entries(view, filter, after, 3, see, pages, &err), CODE_OK);
		assert_true(pages->n - before <= 3);
		if (pages->n > before)
			after = pages->seqs[pages->n - 1];
	} while (pages->n > before);
	check_list(m, filter, pages);
}

static void check_filters(struct model *m, struct view *view)
{
	Pb__SelectorMatch selectors = PB__SELECTOR_MATCH__INIT;
	Pb__FederatesWithMatch domains = PB__FEDERATES_WITH_MATCH__INIT;
	const char *names[] = { domain((unsigned)any(DOMAINS)), domain((unsigned)any(DOMAINS)) };
	struct entry_filter filter = { 0 };

	check_filter(m, view, &filter);
	filter.spiffe_id = any(3) == 0 ? full(m, name_path(m)) : NULL;
	filter.parent_id = any(3) == 0 ? full(m, parent_path(m)) : NULL;
	filter.hint = any(4) == 0 ? "h" : any(2) ? "" : NULL;
	filter.downstream = any(6) == 0;
	selectors.selectors = some_selectors(m, 1, &selectors.n_selectors);
	selectors.match = (Pb__SelectorMatch__MatchBehavior)any(4);
	filter.selectors = any(3) == 0 ? &selectors : NULL;
	domains.trust_domains = names;
	domains.n_trust_domains = 1 + any(2);
	domains.match = (Pb__FederatesWithMatch__MatchBehavior)any(4);
	filter.federates_with = any(3) == 0 ? &domains : NULL;
	check_filter(m, view, &filter);
}

/* Which entries agent `n` may have: round and round until nothing is added. */
static void authorize(struct model *m, unsigned n, bool *may)
{
	const struct model_agent *agent = &m->agents[n];
	bool alias[ENTRIES], more = true;
	int64_t now_s = m->s.now_ms / 1000;

	for (size_t i = 0; i < m->n_entries; i++) {
		const Pb__Entry *e = m->entries[i];

		may[i] = false;
		alias[i] = strcmp(e->parent_id->path, "/spire/server") == 0 && agent->there &&
			   agent->not_after > now_s &&
			   subset(e->selectors, e->n_selectors, agent->selectors, agent->n_selectors);
	}
	while (more) {
		more = false;
		for (size_t i = 0; i < m->n_entries; i++) {
			const char *parent = m->entries[i]->parent_id->path;
			bool now = strcmp(parent, agent_path(n)) == 0;

			if (may[i] || strcmp(parent, "/spire/server") == 0)
				continue;
			for (size_t k = 0; k < m->n_entries; k++)
				now |= (alias[k] || may[k]) && strcmp(m->entries[k]->spiffe_id->path, parent) == 0;
			may[i] = now;
			more |= now;
		}
	}
}

static void check_authorized(struct model *m, struct view *view, unsigned n)
{
	OWN_STRUCT(arena) arena = arena_new();
	struct seen *seen = arena_zalloc(arena, sizeof *seen);
	bool may[ENTRIES];
	size_t want = 0;
	struct err err = { 0 };
	const char *id = full(m, agent_path(n));

	seen->m = m;
	seen->arena = arena;
	authorize(m, n, may);
	CHECK_CODE(view_authorized_entries(view, id, m->s.now_ms / 1000, see, seen, &err), CODE_OK);
	for (size_t i = 0; i < m->n_entries; i++) {
		Pb__Entry *one;
		enum code code =
			view_authorized_entry(view, id, m->entries[i]->id, m->s.now_ms / 1000, arena, &one, &err);
		size_t times = 0;

		want += may[i];
		assert_int_equal(code, may[i] ? CODE_OK : CODE_NOT_FOUND);
		if (may[i])
			check_same(one, m->entries[i]);
		for (size_t k = 0; k < seen->n; k++)
			times += strcmp(seen->entries[k]->id, m->entries[i]->id) == 0;
		assert_int_equal(times, may[i] ? 1 : 0);
	}
	assert_int_equal(seen->n, want);
}

static void check_agents(struct model *m, struct view *view)
{
	struct err err = { 0 };
	uint64_t count = 0, there = 0;

	for (unsigned n = 0; n < AGENTS; n++) {
		const struct model_agent *want = &m->agents[n];
		struct agent_record got;
		Pb__Selector **selectors;
		size_t n_selectors;

		there += want->there;
		CHECK_CODE(view_agent(view, full(m, agent_path(n)), m->arena, &got, &err),
			   want->there ? CODE_OK : CODE_NOT_FOUND);
		if (!want->there)
			continue;
		CHECK_STR(got.serial, want->serial);
		CHECK_STR(got.new_serial, want->new_serial);
		CHECK_NUM(got.not_after, want->not_after);
		CHECK_NUM(got.can_reattest, want->can_reattest);
		CHECK_NUM(got.incarnation, want->incarnation);
		CHECK_NUM(got.seq, want->order);
		CHECK_CODE(view_agent_selectors(view, full(m, agent_path(n)), m->arena, &selectors, &n_selectors, &err),
			   CODE_OK);
		CHECK(subset(selectors, n_selectors, want->selectors, want->n_selectors));
		CHECK(subset(want->selectors, want->n_selectors, selectors, n_selectors));
		for (size_t i = 0; i < n_selectors; i++)
			CHECK(!has_selector(selectors, i, selectors[i]));
	}
	CHECK_CODE(view_agent_count(view, NULL, &count, &err), CODE_OK);
	CHECK_NUM(count, there);
}

static void check_rights(struct model *m, struct view *view)
{
	struct err err = { 0 };

	for (int n = 0; n < NAMES; n++) {
		const char *path = arena_printf(m->arena, "/n%d", n);
		bool admin = false, downstream = false, got_admin, got_downstream;

		for (size_t i = 0; i < m->n_entries; i++)
			if (strcmp(m->entries[i]->spiffe_id->path, path) == 0) {
				admin |= m->entries[i]->admin;
				downstream |= m->entries[i]->downstream;
			}
		CHECK_CODE(view_caller_rights(view, full(m, path), &got_admin, &got_downstream, &err), CODE_OK);
		CHECK_NUM(got_admin, admin);
		CHECK_NUM(got_downstream, downstream);
	}
}

static void check_all(struct model *m)
{
	struct view *view = state_view(&m->s);
	struct err err = { 0 };
	uint64_t count, there = 0;

	check_filters(m, view);
	for (unsigned n = 0; n < AGENTS; n++)
		check_authorized(m, view, n);
	check_agents(m, view);
	check_rights(m, view);
	for (unsigned n = 0; n < DOMAINS; n++) {
		Pb__Bundle *bundle;

		there += m->bundles[n] != NULL;
		CHECK_CODE(view_bundle(view, domain(n), m->arena, &bundle, &err),
			   m->bundles[n] != NULL ? CODE_OK : CODE_NOT_FOUND);
		if (m->bundles[n] != NULL)
			check_same(bundle, m->bundles[n]);
	}
	CHECK_CODE(view_bundle_count(view, &count, &err), CODE_OK);
	CHECK_NUM(count, there);
	state_check_digest(&m->s);
}

static void step(struct model *m)
{
	static void (*const often[])(struct model *) = { do_create, do_create, do_create, do_create,
							 do_update, do_update, do_delete };
	static void (*const seldom[])(struct model *) = { do_attest,        do_attest,      do_renew,      do_activate,
							  do_ban,           do_evict,       do_token,      do_prune,
							  do_bundle_delete, do_agent_prune, do_bundle_set, do_attest,
							  do_activate,      do_bundle_set };

	m->s.now_ms += (int64_t)any(100000);
	if (any(2))
		often[any(sizeof often / sizeof often[0])](m);
	else
		seldom[any(sizeof seldom / sizeof seldom[0])](m);
}

static void run(uint64_t seed, int steps)
{
	struct model *m = calloc(1, sizeof *m);

	random_state = seed;
	print_message("seed %llu\n", (unsigned long long)seed);
	state_begin(&m->s);
	m->s.now_ms = INT64_C(1000) * 10000;
	m->arena = m->s.arena;
	for (int i = 0; i < steps; i++) {
		step(m);
		if (i % 16 == 0)
			check_all(m);
		if (i % 500 == 499)
			state_reopen(&m->s);
	}
	check_all(m);
	/* everything goes: nothing is left behind, not even the numbers of parents */
	while (m->n_entries > 0) {
		Pb__EntryDelete message = PB__ENTRY_DELETE__INIT;

		message.id = m->entries[any(m->n_entries)]->id;
		expect(state_do(&m->s, PB__COMMAND__KIND_ENTRY_DELETE, &message), CODE_OK, "");
		forget(m, find(m, message.id));
	}
	check_all(m);
	state_check_empty(&m->s, "parent");
	state_check_empty(&m->s, "entry");
	state_check_empty(&m->s, "alias");
	state_check_empty(&m->s, "federates");
	state_end(&m->s);
	free(m);
}

TEST(random_commands_do_what_the_model_does)
{
	const char *seed = getenv("SEED");

	if (seed != NULL) {
		run(strtoull(seed, NULL, 10), 2500);
		return;
	}
	run(1, 1200);
	run((uint64_t)getpid() * 2654435761u + (uint64_t)time(NULL), 1200);
}
