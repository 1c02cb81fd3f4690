/* SPDX-License-Identifier: Apache-2.0 */
/* Views: what a reader sees while the writer goes on, filters and pages, what agents may have. (Filters and trees at
 * random: test_store_random.c.) */
#include "lib/state.h"
#include "store/db.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdatomic.h>

static enum code keep(const struct entry_row *row, void *ctx, struct err *err __attribute__((unused)))
{
	buf_printf(ctx, "%s ", row->id);
	return CODE_OK;
}

static const char *list(struct state *s, const struct entry_filter *filter, uint64_t after, size_t limit)
{
	struct err err = { 0 };
	OWN_BUF out = { 0 };

	CHECK_CODE(view_entries(state_view(s), filter, after, limit, keep, &out, &err), CODE_OK);
	return arena_strdup(s->arena, buf_text(&out));
}

static const char *authorized(struct state *s, const char *agent)
{
	struct err err = { 0 };
	OWN_BUF out = { 0 };

	CHECK_CODE(view_authorized_entries(state_view(s), agent, s->now_ms / 1000, keep, &out, &err), CODE_OK);
	return arena_strdup(s->arena, buf_text(&out));
}

static void attest(struct state *s, const char *id, const char *selectors, int64_t not_after)
{
	Pb__AgentAttest message = PB__AGENT_ATTEST__INIT;
	Pb__AgentSvid svid = PB__AGENT_SVID__INIT;

	svid.serial = "1";
	svid.not_after = not_after;
	message.id = id;
	message.attestation_type = strstr(id, "join_token") != NULL ? "join_token" : "t";
	message.svid = &svid;
	message.can_reattest = strstr(id, "join_token") == NULL;
	message.selectors = state_selectors(s, selectors, &message.n_selectors);
	CHECK_NUM(state_do(s, PB__COMMAND__KIND_AGENT_ATTEST, &message)->code, CODE_OK);
}

TEST(view_stays_at_its_revision)
{
	struct state s;
	struct err err = { 0 };
	struct reader *reader;
	struct view *old, *second;
	uint64_t n;

	state_begin(&s);
	state_create(&s, state_entry(&s, "a", "/p", "/a", "t:1"));
	CHECK_CODE(reader_open(s.path, &reader, &err), CODE_OK);
	CHECK_CODE(view_open(reader, &old, &err), CODE_OK);
	state_create(&s, state_entry(&s, "b", "/p", "/b", "t:1"));
	CHECK_NUM(view_revision(old), 1);
	CHECK_CODE(view_entry_count(old, NULL, &n, &err), CODE_OK);
	CHECK_NUM(n, 1);
	CHECK_CODE(view_entry(old, "b", s.arena, &(Pb__Entry *){ NULL }, &err), CODE_NOT_FOUND);
	CHECK_CODE(view_open(reader, &second, &err), CODE_INTERNAL); /* one at a time */
	view_close(old);
	CHECK_CODE(view_open(reader, &second, &err), CODE_OK);
	CHECK_NUM(view_revision(second), 2); /* what has been applied is seen at once */
	CHECK_CODE(view_entry(second, "b", s.arena, &(Pb__Entry *){ NULL }, &err), CODE_OK);
	view_close(second);
	reader_close(reader);
	view_close(NULL);
	state_end(&s);
}

TEST(reader_needs_the_file)
{
	struct err err = { 0 };
	struct reader *reader;

	CHECK_CODE(reader_open("/nonexistent/state.db", &reader, &err), CODE_INTERNAL);
	CHECK(strstr(err.text, "cannot open '/nonexistent/state.db': ") == err.text);
}

TEST(filters_are_anded)
{
	struct state s;
	struct entry_filter f = { 0 };
	Pb__SelectorMatch match = PB__SELECTOR_MATCH__INIT;
	Pb__Entry *e;

	state_begin(&s);
	state_create(&s, state_entry(&s, "a", "/p", "/x", "t:1 t:2"));
	state_create(&s, state_entry(&s, "b", "/q", "/x", "t:1"));
	e = state_entry(&s, "c", "/p", "/y", "t:2");
	e->hint = "h";
	e->downstream = true;
	state_create(&s, e);
	state_create(&s, state_entry(&s, "d", "/q", "/x", "t:3"));
	CHECK_STR(list(&s, NULL, 0, 0), "a b c d ");
	CHECK_STR(list(&s, &f, 1, 2), "b c ");
	CHECK_STR(list(&s, &f, 4, 0), "");
	CHECK_STR(list(&s, &f, UINT64_MAX, 0), "");
	f.parent_id = "spiffe://example.org/p";
	CHECK_STR(list(&s, &f, 0, 0), "a c ");
	CHECK_STR(list(&s, &f, 1, 0), "c ");
	CHECK_STR(list(&s, &f, UINT32_MAX, 0), "");
	CHECK_STR(list(&s, &f, UINT64_MAX, 0), "");
	f.spiffe_id = "spiffe://example.org/x";
	CHECK_STR(list(&s, &f, 0, 0), "a ");
	f.parent_id = "spiffe://example.org/none";
	CHECK_STR(list(&s, &f, 0, 0), "");
	f.parent_id = NULL;
	CHECK_STR(list(&s, &f, 0, 0), "a b d ");
	CHECK_STR(list(&s, &f, 1, 1), "b ");
	match.selectors = state_selectors(&s, "t:1 t:1", &match.n_selectors);
	f.selectors = &match; /* exact */
	CHECK_STR(list(&s, &f, 0, 0), "b ");
	match.match = PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_SUPERSET;
	CHECK_STR(list(&s, &f, 0, 0), "a b ");
	f = (struct entry_filter){ .hint = "h" };
	CHECK_STR(list(&s, &f, 0, 0), "c ");
	f = (struct entry_filter){ .hint = "" };
	CHECK_STR(list(&s, &f, 0, 0), "a b c d ");
	f = (struct entry_filter){ .downstream = true };
	CHECK_STR(list(&s, &f, 0, 0), "c ");
	state_end(&s);
}

TEST(unknown_behaviours_are_named_as_spire_does)
{
	struct state s;
	struct err err = { 0 };
	Pb__SelectorMatch match = PB__SELECTOR_MATCH__INIT;
	Pb__FederatesWithMatch domains = PB__FEDERATES_WITH_MATCH__INIT;
	const char *names[] = { "a.test" };
	struct entry_filter f = { .selectors = &match }, g = { .federates_with = &domains };
	struct agent_filter agents = AGENT_FILTER_ALL;
	uint64_t n;

	state_begin(&s);
	match.selectors = state_selectors(&s, "t:1", &match.n_selectors);
	domains.trust_domains = names;
	domains.n_trust_domains = 1;
	match.match = (Pb__SelectorMatch__MatchBehavior)9;
	CHECK_CODE(view_entry_count(state_view(&s), &f, &n, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "datastore-sql: unhandled selectors match behavior '\\t'");
	match.match = (Pb__SelectorMatch__MatchBehavior)39;
	CHECK_CODE(view_entry_count(state_view(&s), &f, &n, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "datastore-sql: unhandled selectors match behavior '\\''");
	domains.match = (Pb__FederatesWithMatch__MatchBehavior)34;
	CHECK_CODE(view_entry_count(state_view(&s), &g, &n, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "datastore-sql: unhandled federates with match behavior '\"'");
	agents.selectors = &match;
	match.match = (Pb__SelectorMatch__MatchBehavior)9;
	CHECK_CODE(view_agent_count(state_view(&s), &agents, &n, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "datastore-sql: unhandled match behavior '\\t'");
	match.n_selectors = 0;
	CHECK_CODE(view_agent_count(state_view(&s), &agents, &n, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "cannot list by empty selectors set");
	state_end(&s);
}

struct nested {
	struct state *s;
	int rows;
};

static enum code count_rows(const struct entry_row *row __attribute__((unused)), void *ctx,
			    struct err *err __attribute__((unused)))
{
	++*(int *)ctx;
	return CODE_OK;
}

static enum code look_again(const struct entry_row *row, void *ctx, struct err *err)
{
	struct nested *nested = ctx;
	Pb__Entry *entry;
	int inner = 0;

	TRY(view_entry(state_view(nested->s), row->id, nested->s->arena, &entry, err));
	CHECK_STR(entry->id, row->id);
	TRY(view_entries(state_view(nested->s), NULL, 0, 0, count_rows, &inner,
			 err)); /* the same statement once more */
	CHECK_NUM(inner, 3);
	CHECK_STR(entry->id, row->id);
	nested->rows++;
	return CODE_OK;
}

static enum code stop_at_second(const struct entry_row *row, void *ctx, struct err *err)
{
	++*(int *)ctx;
	return row->seq == 2 ? err_set(err, CODE_ABORTED, "enough") : CODE_OK;
}

TEST(callbacks_may_ask_and_may_end_the_walk)
{
	struct state s;
	struct err err = { 0 };
	struct nested nested = { &s, 0 };
	int rows = 0;

	state_begin(&s);
	for (int i = 0; i < 3; i++)
		state_create(&s, state_entry(&s, arena_printf(s.arena, "e%d", i), "/p", "/x",
					     arena_printf(s.arena, "t:%d", i)));
	CHECK_CODE(view_entries(state_view(&s), NULL, 0, 0, look_again, &nested, &err), CODE_OK);
	CHECK_NUM(nested.rows, 3);
	CHECK_CODE(view_entries(state_view(&s), NULL, 0, 0, stop_at_second, &rows, &err), CODE_ABORTED);
	CHECK_STR(err.text, "enough");
	CHECK_NUM(rows, 2);
	CHECK_STR(list(&s, NULL, 0, 0), "e0 e1 e2 "); /* the view goes on */
	state_end(&s);
}

#define AGENT "spiffe://example.org/spire/agent/t/1"

TEST(authorized_entries_go_down_the_tree)
{
	struct state s;
	struct err err = { 0 };
	Pb__Entry *entry;

	state_begin(&s);
	attest(&s, AGENT, "t:node t:zone", 2000000);
	state_create(&s, state_entry(&s, "own", "/spire/agent/t/1", "/own", "u:1"));
	state_create(&s, state_entry(&s, "below", "/own", "/below", "u:1"));
	state_create(&s, state_entry(&s, "circle", "/below", "/own", "u:1"));
	state_create(&s, state_entry(&s, "alias", "/spire/server", "/zone", "t:zone"));
	state_create(&s, state_entry(&s, "too-much", "/spire/server", "/other", "t:zone t:more"));
	state_create(&s, state_entry(&s, "in-zone", "/zone", "/z", "u:1"));
	state_create(&s, state_entry(&s, "in-other", "/other", "/o", "u:1"));
	state_create(&s, state_entry(&s, "stranger", "/spire/agent/t/2", "/s", "u:1"));
	CHECK_STR(authorized(&s, AGENT), "own in-zone below circle ");
	CHECK_STR(authorized(&s, "spiffe://example.org/spire/agent/t/2"),
		  "stranger "); /* not known: its own all the same */
	CHECK_STR(authorized(&s, "spiffe://example.org/none"), "");
	CHECK_CODE(view_authorized_entry(state_view(&s), AGENT, "circle", 1000000, s.arena, &entry, &err), CODE_OK);
	CHECK_STR(entry->id, "circle");
	CHECK_CODE(view_authorized_entry(state_view(&s), AGENT, "in-other", 1000000, s.arena, &entry, &err),
		   CODE_NOT_FOUND);
	CHECK_STR(err.text, "entry not found or not authorized");
	CHECK_CODE(view_authorized_entry(state_view(&s), AGENT, "alias", 1000000, s.arena, &entry, &err),
		   CODE_NOT_FOUND);
	CHECK_CODE(view_authorized_entry(state_view(&s), AGENT, "none", 1000000, s.arena, &entry, &err),
		   CODE_NOT_FOUND);
	/* another agent within the same view */
	CHECK_CODE(view_authorized_entry(state_view(&s), "spiffe://example.org/spire/agent/t/2", "in-zone", 1000000,
					 s.arena, &entry, &err),
		   CODE_NOT_FOUND);
	CHECK_CODE(view_authorized_entry(state_view(&s), AGENT, "in-zone", 1000000, s.arena, &entry, &err), CODE_OK);
	/* aliases are for agents that have not expired */
	CHECK_CODE(view_authorized_entry(state_view(&s), AGENT, "in-zone", 2000000, s.arena, &entry, &err),
		   CODE_NOT_FOUND);
	s.now_ms = INT64_C(2000000) * 1000;
	CHECK_STR(authorized(&s, AGENT), "own below circle ");
	state_end(&s);
}

/* Many aliases share a selector that each agent has; each is filed under the one that tells them apart. */
TEST(many_aliases_with_a_common_selector)
{
	enum { N = 2000 };
	struct state s;
	struct err err = { 0 };
	Pb__Command commands[200];
	Pb__EntryCreate creates[200];
	struct store_item items[200];
	struct db *db;
	OWN_QUERY q = { 0 };
	bool row;

	state_begin(&s);
	for (int done = 0; done < N; done += 200) {
		for (int i = 0; i < 200; i++) {
			int n = done + i;

			creates[i] = (Pb__EntryCreate)PB__ENTRY_CREATE__INIT;
			creates[i].entry = state_entry(&s, arena_printf(s.arena, "alias-%d", n), "/spire/server",
						       arena_printf(s.arena, "/node/%d", n),
						       arena_printf(s.arena, "ca:fingerprint:ab subject:cn:%d", n));
			commands[i] = (Pb__Command)PB__COMMAND__INIT;
			commands[i].format = 1;
			commands[i].kind_case = PB__COMMAND__KIND_ENTRY_CREATE;
			commands[i].entry_create = &creates[i];
			items[i].command = &commands[i];
		}
		CHECK_CODE(store_apply(s.store, store_applied(s.store) + 1, s.now_ms, items, 200, s.arena, &err),
			   CODE_OK);
	}
	attest(&s, AGENT, "ca:fingerprint:ab subject:cn:777", 2000000);
	state_create(&s, state_entry(&s, "w", "/node/777", "/w", "u:1"));
	CHECK_STR(authorized(&s, AGENT), "w ");
	CHECK_CODE(db_open(s.path, DB_READER, &db, &err), CODE_OK);
	CHECK_CODE(query_open(db, SQL_ALIAS_FILED, &q, &err), CODE_OK);
	query_text(&q, 1, "ca:fingerprint:ab");
	CHECK_CODE(query_step(&q, &row, &err), CODE_OK);
	CHECK(column_int(&q, 0) <= 1); /* not 2,000, which every agent would have to look at */
	query_done(&q);
	db_close(db);
	state_end(&s);
}

static enum code keep_agent(const struct agent_record *agent, void *ctx, struct err *err __attribute__((unused)))
{
	buf_printf(ctx, "%s ", strrchr(agent->id, '/') + 1);
	return CODE_OK;
}

static const char *agents(struct state *s, const struct agent_filter *filter, uint64_t after, size_t limit)
{
	struct err err = { 0 };
	OWN_BUF out = { 0 };

	CHECK_CODE(view_agents(state_view(s), filter, after, limit, keep_agent, &out, &err), CODE_OK);
	return arena_strdup(s->arena, buf_text(&out));
}

TEST(agents_are_listed_in_order_and_filtered)
{
	struct state s;
	struct err err = { 0 };
	struct agent_filter f = AGENT_FILTER_ALL;
	Pb__SelectorMatch match = PB__SELECTOR_MATCH__INIT;
	Pb__AgentBan ban = PB__AGENT_BAN__INIT;
	uint64_t n;

	state_begin(&s);
	attest(&s, "spiffe://example.org/spire/agent/t/z", "t:1 t:2", 100);
	attest(&s, "spiffe://example.org/spire/agent/join_token/y", "", 200);
	attest(&s, "spiffe://example.org/spire/agent/t/x", "t:1", 300);
	ban.id = "spiffe://example.org/spire/agent/t/x";
	state_do(&s, PB__COMMAND__KIND_AGENT_BAN, &ban);
	CHECK_STR(agents(&s, NULL, 0, 0), "z y x ");
	CHECK_STR(agents(&s, &f, 1, 1), "y ");
	CHECK_STR(agents(&s, &f, 3, 0), "");
	f.attestation_type = "t";
	CHECK_STR(agents(&s, &f, 0, 0), "z x ");
	f.banned = 0;
	CHECK_STR(agents(&s, &f, 0, 0), "z ");
	f = (struct agent_filter)AGENT_FILTER_ALL;
	f.banned = 1;
	CHECK_STR(agents(&s, &f, 0, 0), "x ");
	f = (struct agent_filter)AGENT_FILTER_ALL;
	f.can_reattest = 0;
	CHECK_STR(agents(&s, &f, 0, 0), "y ");
	f = (struct agent_filter)AGENT_FILTER_ALL;
	f.expires_before = 200;
	CHECK_STR(agents(&s, &f, 0, 0), "z ");
	f = (struct agent_filter)AGENT_FILTER_ALL;
	f.selectors = &match;
	match.selectors = state_selectors(&s, "t:1", &match.n_selectors);
	CHECK_STR(agents(&s, &f, 0, 0), "x ");
	match.match = PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_SUPERSET;
	CHECK_STR(agents(&s, &f, 0, 0), "z x ");
	match.match = PB__SELECTOR_MATCH__MATCH_BEHAVIOR__MATCH_SUBSET; /* an empty set is none */
	CHECK_STR(agents(&s, &f, 0, 0), "x ");
	CHECK_CODE(view_agent_count(state_view(&s), &f, &n, &err), CODE_OK);
	CHECK_NUM(n, 1);
	CHECK_CODE(view_agent(state_view(&s), "spiffe://example.org/spire/agent/t/none", s.arena,
			      &(struct agent_record){ 0 }, &err),
		   CODE_NOT_FOUND);
	CHECK_STR(err.text, "agent not found");
	state_end(&s);
}

/* Readers of other threads never see half a batch: each batch makes two entries, and no view may count an odd number.
 */
struct watcher {
	const char *path;
	_Atomic bool *stop;
	_Atomic int *ready;
	int views;
	bool odd;
};

static void *watch(void *arg)
{
	struct watcher *w = arg;
	struct err err = { 0 };
	struct reader *reader;
	uint64_t last = 0;

	if (reader_open(w->path, &reader, &err) != CODE_OK)
		return NULL;
	atomic_fetch_add(w->ready, 1);
	while (!atomic_load(w->stop)) {
		struct view *view;
		uint64_t n = 0;
		int rows = 0;

		if (view_open(reader, &view, &err) != CODE_OK)
			break;
		if (view_entry_count(view, NULL, &n, &err) != CODE_OK ||
		    view_entries(view, NULL, 0, 0, count_rows, &rows, &err) != CODE_OK)
			break;
		w->odd |= n % 2 != 0 || n < last || (uint64_t)rows != n || n != 2 * view_revision(view);
		last = n;
		w->views++;
		view_close(view);
	}
	reader_close(reader);
	return NULL;
}

TEST(readers_of_other_threads_see_whole_batches)
{
	enum { READERS = 3, BATCHES = 150 };
	struct state s;
	struct err err = { 0 };
	pthread_t threads[READERS];
	struct watcher watchers[READERS];
	_Atomic bool stop = false;
	_Atomic int ready = 0;
	struct checkpointer *checkpointer;
	int64_t deadline = clock_mono_ms() + 30000;

	state_begin(&s);
	CHECK_CODE(checkpointer_open(s.path, &checkpointer, &err), CODE_OK);
	for (int i = 0; i < READERS; i++) {
		watchers[i] = (struct watcher){ .path = s.path, .stop = &stop, .ready = &ready };
		pthread_create(&threads[i], NULL, watch, &watchers[i]);
	}
	while (atomic_load(&ready) < READERS && clock_mono_ms() < deadline)
		;
	for (int i = 0; i < BATCHES; i++) {
		Pb__Command commands[2] = { PB__COMMAND__INIT, PB__COMMAND__INIT };
		Pb__EntryCreate creates[2] = { PB__ENTRY_CREATE__INIT, PB__ENTRY_CREATE__INIT };
		struct store_item items[2];
		uint32_t left;

		for (int k = 0; k < 2; k++) {
			creates[k].entry = state_entry(&s, arena_printf(s.arena, "e%d-%d", i, k), "/p",
						       arena_printf(s.arena, "/w/%d", i), k == 0 ? "t:1" : "t:2");
			commands[k].format = 1;
			commands[k].kind_case = PB__COMMAND__KIND_ENTRY_CREATE;
			commands[k].entry_create = &creates[k];
			items[k].command = &commands[k];
		}
		CHECK_CODE(store_apply(s.store, store_applied(s.store) + 1, s.now_ms, items, 2, s.arena, &err),
			   CODE_OK);
		if (i % 10 == 0)
			CHECK_CODE(checkpointer_run(checkpointer, i % 20 == 0, &left, &err), CODE_OK);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < READERS; i++) {
		pthread_join(threads[i], NULL);
		CHECK(watchers[i].views > 0);
		CHECK(!watchers[i].odd);
	}
	checkpointer_close(checkpointer);
	state_end(&s);
}
