/* SPDX-License-Identifier: Apache-2.0 */
/* The file, entries, request ids, rights. */
#include "lib/state.h"
#include "store/codec.h"
#include "store/db.h"
#include "store/state.h"

#include "base/fault.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static Pb__Outcome *update(struct state *s, Pb__Entry *entry, Pb__EntryMask *mask)
{
	Pb__EntryUpdate message = PB__ENTRY_UPDATE__INIT;

	message.entry = entry;
	message.mask = mask;
	return state_do(s, PB__COMMAND__KIND_ENTRY_UPDATE, &message);
}

static Pb__Outcome *delete (struct state *s, const char *id)
{
	Pb__EntryDelete message = PB__ENTRY_DELETE__INIT;

	message.id = id;
	return state_do(s, PB__COMMAND__KIND_ENTRY_DELETE, &message);
}

static Pb__Outcome *bundle_set(struct state *s, const char *td)
{
	Pb__BundleSet message = PB__BUNDLE_SET__INIT;
	Pb__Bundle bundle = PB__BUNDLE__INIT;

	bundle.trust_domain = td;
	message.bundle = &bundle;
	return state_do(s, PB__COMMAND__KIND_BUNDLE_SET, &message);
}

static void check_refused(const Pb__Outcome *out, enum code code, const char *message)
{
	CHECK_STR(out->message, message);
	CHECK_NUM(out->code, code);
	CHECK(!out->changed);
}

static Pb__Entry *get(struct state *s, const char *id)
{
	struct err err = { 0 };
	Pb__Entry *entry;

	CHECK_CODE(view_entry(state_view(s), id, s->arena, &entry, &err), CODE_OK);
	return entry;
}

/* --- the file --- */

static void run_sql(const char *path, const char *sql)
{
	sqlite3 *handle;

	CHECK_NUM(sqlite3_open(path, &handle), SQLITE_OK);
	CHECK_NUM(sqlite3_exec(handle, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(handle);
}

TEST(new_file_is_empty_and_opens_again)
{
	struct state s;
	struct err err = { 0 };
	uint64_t n;
	uint8_t digest[32];

	state_begin(&s);
	CHECK_NUM(store_applied(s.store), 0);
	CHECK_STR(store_trust_domain(s.store), "example.org");
	CHECK_CODE(view_entry_count(state_view(&s), NULL, &n, &err), CODE_OK);
	CHECK_NUM(n, 0);
	CHECK_NUM(view_revision(state_view(&s)), 0);
	state_check_digest(&s);
	state_create(&s, state_entry(&s, "a", "/p", "/w", "t:1"));
	store_digest(s.store, digest);
	state_reopen(&s);
	CHECK_NUM(store_applied(s.store), 1);
	CHECK_NUM(store_stamp_ms(s.store), s.now_ms);
	CHECK_NUM(view_revision(state_view(&s)), 1);
	state_check_digest(&s);
	state_create(&s, state_entry(&s, "b", "/p", "/w", "t:2"));
	CHECK_NUM(store_applied(s.store), 2);
	state_end(&s);
}

TEST(index_must_rise)
{
	struct state s;
	struct err err = { 0 };

	state_begin(&s);
	CHECK_CODE(store_apply(s.store, 0, 1, NULL, 0, s.arena, &err), CODE_INTERNAL);
	CHECK_CODE(store_apply(s.store, 7, 1, NULL, 0, s.arena, &err),
		   CODE_OK); /* an entry of the log without commands */
	CHECK_NUM(store_applied(s.store), 7);
	CHECK_CODE(store_apply(s.store, 7, 1, NULL, 0, s.arena, &err), CODE_INTERNAL);
	state_end(&s);
}

TEST(foreign_files_are_refused_by_name)
{
	struct err err = { 0 };
	struct store *store;
	char path[160], want[512];
	FILE *file;

	snprintf(path, sizeof path, "%s/text.db", test_dir());
	file = fopen(path, "w");
	for (int i = 0; i < 100; i++)
		fputs("this is no database\n", file);
	fclose(file);
	CHECK_CODE(store_open(path, "example.org", &store, &err), CODE_FAILED_PRECONDITION);
	snprintf(want, sizeof want, "state file '%s' is no state file of this server", path);
	CHECK_STR(err.text, want);
	CHECK(access(path, F_OK) == 0); /* it is not ours to remove */

	snprintf(path, sizeof path, "%s/other.db", test_dir());
	run_sql(path, "CREATE TABLE bundles(x)");
	CHECK_CODE(store_open(path, "example.org", &store, &err), CODE_FAILED_PRECONDITION);
	snprintf(want, sizeof want, "state file '%s' is no state file of this server", path);
	CHECK_STR(err.text, want);

	snprintf(path, sizeof path, "%s/nowhere/state.db", test_dir());
	CHECK_CODE(store_open(path, "example.org", &store, &err), CODE_INTERNAL);
	CHECK(strstr(err.text, "unable to open database file") != NULL);
}

TEST(newer_format_and_other_trust_domain_are_refused)
{
	struct state s;
	struct err err = { 0 };
	struct store *store;
	char want[512];

	state_begin(&s);
	state_end(&s);
	CHECK_CODE(store_open(s.path, "other.org", &store, &err), CODE_FAILED_PRECONDITION);
	snprintf(want, sizeof want,
		 "state file '%s' belongs to trust domain 'example.org', the configuration says 'other.org'", s.path);
	CHECK_STR(err.text, want);
	run_sql(s.path, "PRAGMA user_version = 9");
	CHECK_CODE(store_open(s.path, "example.org", &store, &err), CODE_FAILED_PRECONDITION);
	snprintf(want, sizeof want,
		 "state file '%s' has format 9, this version knows formats up to 1: start it with the newer version",
		 s.path);
	CHECK_STR(err.text, want);
}

TEST(trust_domain_may_come_later)
{
	struct err err = { 0 };
	struct store *store;
	char path[160];

	snprintf(path, sizeof path, "%s/later.db", test_dir());
	CHECK_CODE(store_open(path, "", &store, &err), CODE_OK);
	CHECK_STR(store_trust_domain(store), "");
	store_close(store);
	CHECK_CODE(store_open(path, "example.org", &store, &err), CODE_OK);
	store_close(store);
	CHECK_CODE(store_open(path, "other.org", &store, &err), CODE_FAILED_PRECONDITION);
}

TEST(failed_creation_leaves_nothing)
{
	struct err err = { 0 };
	struct store *store;
	char path[160], wal[170];

	snprintf(path, sizeof path, "%s/failed.db", test_dir());
	snprintf(wal, sizeof wal, "%s-wal", path);
	fault_arm("store.create", 1);
	CHECK_CODE(store_open(path, "example.org", &store, &err), CODE_INTERNAL);
	fault_disarm();
	CHECK(access(path, F_OK) != 0);
	CHECK(access(wal, F_OK) != 0);
	CHECK_CODE(store_open(path, "example.org", &store, &err), CODE_OK);
	store_close(store);
}

TEST(damaged_rows_are_named)
{
	struct state s;
	struct err err = { 0 };
	Pb__Entry *entry;

	state_begin(&s);
	state_create(&s, state_entry(&s, "a", "/p", "/w", "t:1"));
	state_end(&s);
	run_sql(s.path, "UPDATE entry SET blob = x'0aff'");
	CHECK_CODE(store_open(s.path, "example.org", &s.store, &err), CODE_OK);
	CHECK_CODE(reader_open(s.path, &s.reader, &err), CODE_OK);
	s.arena = arena_new();
	CHECK_CODE(view_entry(state_view(&s), "a", s.arena, &entry, &err), CODE_DATA_LOSS);
	CHECK(strstr(err.text, "entry 'a' in '") == err.text);
	state_end(&s);
}

TEST(unknown_kind_in_a_batch_stops_the_node)
{
	struct state s;
	struct err err = { 0 };
	Pb__Command command = PB__COMMAND__INIT;
	struct store_item item = { &command, NULL };

	state_begin(&s);
	command.format = 1;
	command.kind_case = (Pb__Command__KindCase)200;
	CHECK_CODE(store_apply(s.store, 1, 1, &item, 1, s.arena, &err), CODE_UNIMPLEMENTED);
	CHECK_STR(err.text, "command of a kind (200) that this version does not know");
	CHECK_NUM(store_applied(s.store), 0);
	state_end(&s);
}

/* Every step fails once: the error comes out, and the file holds the batch or nothing of it. */
TEST(failed_write_is_no_outcome)
{
	static const char *const points[] = { "store.begin", "store.row", "store.commit" };

	for (size_t p = 0; p < sizeof points / sizeof points[0]; p++)
		for (unsigned nth = 1;; nth++) {
			struct state s;
			struct err err = { 0 };
			Pb__Command commands[2] = { PB__COMMAND__INIT, PB__COMMAND__INIT };
			Pb__EntryCreate creates[2] = { PB__ENTRY_CREATE__INIT, PB__ENTRY_CREATE__INIT };
			struct store_item items[2];
			enum code rc;
			uint64_t n;
			bool fired;

			state_begin(&s);
			for (int i = 0; i < 2; i++) {
				creates[i].entry =
					state_entry(&s, i == 0 ? "a" : "b", "/p", "/w", i == 0 ? "t:1" : "t:2");
				commands[i].format = 1;
				commands[i].kind_case = PB__COMMAND__KIND_ENTRY_CREATE;
				commands[i].entry_create = &creates[i];
				items[i].command = &commands[i];
			}
			fault_arm(points[p], nth);
			rc = store_apply(s.store, 1, 1, items, 2, s.arena, &err);
			fired = fault_fired();
			fault_disarm();
			CHECK_NUM(rc, fired ? CODE_INTERNAL : CODE_OK);
			state_reopen(&s);
			CHECK_CODE(view_entry_count(state_view(&s), NULL, &n, &err), CODE_OK);
			CHECK_NUM(n, fired ? 0 : 2);
			CHECK_NUM(store_applied(s.store), fired ? 0 : 1);
			state_check_digest(&s);
			state_end(&s);
			if (!fired)
				break;
		}
}

TEST(statements_find_their_rows_by_an_index)
{
	static const enum sql whole[] = { SQL_META_GET,   SQL_PARENT_ANY_NAMED, SQL_JOURNAL_ALL, SQL_ALIAS_FILED, SQL_MEMBER_ALL,
					  SQL_ORIGIN_ALL, SQL_CONF_GET,         SQL_CLUSTER_GET, SQL_CONF_SET, SQL_CLUSTER_SET };
	struct state s;
	struct err err = { 0 };
	struct db *db;

	state_begin(&s);
	CHECK_CODE(db_open(s.path, DB_READER, &db, &err), CODE_OK);
	for (int i = 0; i < SQL_COUNT; i++) {
		char text[1024];
		sqlite3_stmt *plan;
		bool may_scan = false;

		for (size_t k = 0; k < sizeof whole / sizeof whole[0]; k++)
			may_scan |= whole[k] == (enum sql)i;
		snprintf(text, sizeof text, "EXPLAIN QUERY PLAN %s", sql_text((enum sql)i));
		CHECK_NUM(sqlite3_prepare_v2(db->handle, text, -1, &plan, NULL), SQLITE_OK);
		while (sqlite3_step(plan) == SQLITE_ROW) {
			const char *step = (const char *)sqlite3_column_text(plan, 3);

			if ((strncmp(step, "SCAN", 4) == 0 || strstr(step, "TEMP B-TREE") != NULL) && !may_scan)
				fail_msg("%s: %s", sql_text((enum sql)i), step);
		}
		sqlite3_finalize(plan);
	}
	db_close(db);
	state_end(&s);
}

TEST(checkpoint_moves_the_wal)
{
	struct state s;
	struct err err = { 0 };
	struct checkpointer *checkpointer;
	uint32_t left, before;
	uint64_t n;

	state_begin(&s);
	for (int i = 0; i < 50; i++)
		state_create(&s, state_entry(&s, arena_printf(s.arena, "e%d", i), "/p", "/w",
					     arena_printf(s.arena, "t:%d", i)));
	before = store_wal_frames(s.store);
	CHECK(before > 50);
	CHECK_CODE(checkpointer_open(s.path, &checkpointer, &err), CODE_OK);
	state_view(&s); /* a reader of the newest state holds nothing back */
	CHECK_CODE(checkpointer_run(checkpointer, false, &left, &err), CODE_OK);
	CHECK_NUM(left, 0);
	state_create(&s, state_entry(&s, "x", "/p", "/x", "t:1"));
	CHECK(store_wal_frames(s.store) < before); /* started over */
	state_view(&s);
	{
		Pb__EntryCreate create = PB__ENTRY_CREATE__INIT;
		Pb__Command command = PB__COMMAND__INIT;
		struct store_item item = { &command, NULL };

		create.entry = state_entry(&s, "y", "/p", "/y", "t:1");
		command.format = 1;
		command.kind_case = PB__COMMAND__KIND_ENTRY_CREATE;
		command.entry_create = &create;
		CHECK_CODE(store_apply(s.store, store_applied(s.store) + 1, 1, &item, 1, s.arena, &err), CODE_OK);
	}
	CHECK_CODE(checkpointer_run(checkpointer, true, &left, &err),
		   CODE_OK); /* does not wait for the reader for long */
	CHECK(left > 0);
	CHECK_CODE(view_entry_count(state_view(&s), NULL, &n, &err), CODE_OK);
	CHECK_NUM(n, 51); /* the reader still sees what it saw */
	fault_arm("store.checkpoint", 1);
	CHECK_CODE(checkpointer_run(checkpointer, true, &left, &err), CODE_INTERNAL);
	fault_disarm();
	checkpointer_close(checkpointer);
	state_end(&s);
}

/* --- entries --- */

TEST(created_entry_is_sorted_and_stored_as_given)
{
	struct state s;
	Pb__Entry *entry;
	const char *names[] = { "z.org", "a.org", "Upper.org", "_x.org" };
	const char *domains[] = { "b.test", "a.test", "b.test" };
	Pb__Entry__AdditionalAttributes nothing = PB__ENTRY__ADDITIONAL_ATTRIBUTES__INIT;
	Pb__Outcome *out;

	state_begin(&s);
	bundle_set(&s, "a.test");
	bundle_set(&s, "b.test");
	s.now_ms = 1500;
	entry = state_entry(&s, "a", "/p", "/w", "t:2 t:1 a:z");
	entry->dns_names = names;
	entry->n_dns_names = 4;
	entry->federates_with = domains;
	entry->n_federates_with = 3;
	entry->revision_number = 5;
	entry->created_at = 5;
	entry->additional_attributes = &nothing;
	out = state_create(&s, entry);
	CHECK_NUM(out->code, CODE_OK);
	CHECK(out->changed);
	CHECK_NUM(out->revision, 3);
	CHECK_NUM(out->entry->created_at, 2); /* rounded to the nearest */
	CHECK_NUM(out->entry->revision_number, 0);
	CHECK(out->entry->additional_attributes == NULL);
	CHECK_STR(out->entry->selectors[0]->type, "a");
	CHECK_STR(out->entry->selectors[1]->value, "1");
	CHECK_STR(out->entry->dns_names[0], "Upper.org");
	CHECK_STR(out->entry->dns_names[3], "z.org");
	CHECK_NUM(out->entry->n_federates_with, 2);
	CHECK_STR(out->entry->federates_with[0], "a.test");
	entry = get(&s, "a");
	CHECK_STR(entry->selectors[0]->value, "2");
	CHECK_STR(entry->dns_names[0], "z.org");
	CHECK_NUM(entry->n_federates_with, 2);
	CHECK(entry->additional_attributes == NULL);
	state_end(&s);
}

TEST(similar_entry_is_answered_as_stored)
{
	struct state s;
	Pb__Outcome *out;

	state_begin(&s);
	state_create(&s, state_entry(&s, "a", "/p", "/w", "t:2 t:1"));
	out = state_create(&s, state_entry(&s, "b", "/p", "/w", "t:1 t:2 t:1"));
	check_refused(out, CODE_ALREADY_EXISTS, "similar entry already exists");
	CHECK_STR(out->entry->id, "a");
	CHECK_STR(out->entry->selectors[0]->value, "2");
	CHECK_NUM(state_create(&s, state_entry(&s, "c", "/q", "/w", "t:1 t:2"))->code, CODE_OK); /* another parent */
	CHECK_NUM(state_create(&s, state_entry(&s, "d", "/p", "/x", "t:1 t:2"))->code, CODE_OK); /* another id */
	CHECK_NUM(state_create(&s, state_entry(&s, "e", "/p", "/w", "t:1"))->code, CODE_OK);     /* other selectors */
	delete (&s, "a");
	CHECK_NUM(state_create(&s, state_entry(&s, "f", "/p", "/w", "t:1 t:2"))->code, CODE_OK);
	state_end(&s);
}

#define INVALID "datastore-validation: invalid registration entry: "

TEST(faults_of_a_new_entry_in_their_order)
{
	struct state s;
	Pb__Entry *entry;
	const char *names[] = { "a.org", "a.org" }, *domains[] = { "none.test" };
	Pb__Entry__AdditionalAttributes no_prefetch = PB__ENTRY__ADDITIONAL_ATTRIBUTES__INIT;

	state_begin(&s);
	state_create(&s, state_entry(&s, "taken", "/p", "/taken", "t:1"));
	no_prefetch.disable_x509_svid_prefetch = true;
	entry = state_entry(&s, arena_printf(s.arena, "%0300d", 0), "/p", "/w", "t:1 t:1 u:1");
	entry->store_svid = true;
	entry->additional_attributes = &no_prefetch;
	entry->x509_svid_ttl = entry->jwt_svid_ttl = -1;
	entry->dns_names = names;
	entry->n_dns_names = 2;
	entry->federates_with = domains;
	entry->n_federates_with = 1;
#define NEXT(code, text) check_refused(state_create(&s, entry), code, text)
	NEXT(CODE_INVALID_ARGUMENT,
	     "datastore-validation: specifying cache behaviour is incompatible with storable SVIDs");
	entry->additional_attributes = NULL;
	NEXT(CODE_INVALID_ARGUMENT, INVALID "selector types must be the same when store SVID is enabled");
	entry->store_svid = false;
	NEXT(CODE_INVALID_ARGUMENT, INVALID "entry ID too long");
	entry->id = "a/b";
	NEXT(CODE_INVALID_ARGUMENT, INVALID "entry ID contains invalid characters");
	entry->id = "taken";
	NEXT(CODE_INVALID_ARGUMENT, INVALID "X509SvidTtl is not set");
	entry->x509_svid_ttl = 0;
	NEXT(CODE_INVALID_ARGUMENT, INVALID "JwtSvidTtl is not set");
	entry->jwt_svid_ttl = 0;
	NEXT(CODE_ALREADY_EXISTS, "datastore-sql: UNIQUE constraint failed: registered_entries.entry_id");
	entry->id = "free";
	NEXT(CODE_INTERNAL, "unable to find federated bundle \"spiffe://none.test\"");
	entry->n_federates_with = 0;
	NEXT(CODE_ALREADY_EXISTS,
	     "datastore-sql: UNIQUE constraint failed: selectors.registered_entry_id, selectors.type, selectors.value");
	entry->n_selectors = 1;
	NEXT(CODE_ALREADY_EXISTS,
	     "datastore-sql: UNIQUE constraint failed: dns_names.registered_entry_id, dns_names.value");
	entry->n_dns_names = 1;
	entry->n_selectors = 0;
	NEXT(CODE_INVALID_ARGUMENT, INVALID "missing selector list");
	entry->n_selectors = 1;
	entry->spiffe_id = NULL;
	NEXT(CODE_INVALID_ARGUMENT, INVALID "missing SPIFFE ID");
	check_refused(state_create(&s, NULL), CODE_INVALID_ARGUMENT, "missing entry");
	state_check_digest(&s);
	state_end(&s);
}

TEST(update_changes_what_the_mask_says)
{
	struct state s;
	Pb__EntryMask mask = PB__ENTRY_MASK__INIT;
	Pb__Entry *in, *now;
	Pb__Outcome *out;

	state_begin(&s);
	state_create(&s, state_entry(&s, "a", "/p", "/w", "t:2 t:1"));
	s.now_ms += 100000;
	in = state_entry(&s, "a", "/q", "/x", "u:1");
	in->hint = "new";
	in->admin = true;
	mask.hint = mask.revision_number = mask.created_at = true;
	out = update(&s, in, &mask);
	CHECK_NUM(out->code, CODE_OK);
	CHECK_STR(out->entry->hint, "new");
	CHECK_STR(out->entry->spiffe_id->path, "/w");
	CHECK_NUM(out->entry->revision_number, 1);
	CHECK_NUM(out->entry->created_at, 1000000);
	CHECK(!out->entry->admin);
	CHECK_STR(out->entry->selectors[0]->value, "1"); /* sorted */
	out = update(&s, in, NULL);
	CHECK_NUM(out->entry->revision_number, 2);
	now = get(&s, "a");
	CHECK_STR(now->parent_id->path, "/q");
	CHECK_STR(now->spiffe_id->path, "/x");
	CHECK(now->admin);
	CHECK_NUM(now->n_selectors, 1);
	state_check_digest(&s);
	state_end(&s);
}

TEST(faults_of_an_update)
{
	struct state s;
	Pb__EntryMask mask = PB__ENTRY_MASK__INIT;
	Pb__Entry *in;
	const char *domains[] = { "none.test" };

	state_begin(&s);
	state_create(&s, state_entry(&s, "a", "/p", "/w", "t:1"));
	in = state_entry(&s, "none", "/p", "/w", "t:1 u:1 t:1");
	in->x509_svid_ttl = in->jwt_svid_ttl = -1;
	in->store_svid = true;
	in->federates_with = domains;
	in->n_federates_with = 1;
	check_refused(update(&s, in, &mask), CODE_NOT_FOUND, "failed to update entry");
	mask.x509_svid_ttl = mask.jwt_svid_ttl = mask.selectors = mask.store_svid = mask.federates_with = true;
	check_refused(update(&s, in, &mask), CODE_INVALID_ARGUMENT, INVALID "X509SvidTtl is not set");
	mask.x509_svid_ttl = false;
	check_refused(update(&s, in, &mask), CODE_INVALID_ARGUMENT, INVALID "JwtSvidTtl is not set");
	mask.jwt_svid_ttl = false;
	in->id = "a";
	check_refused(update(&s, in, &mask), CODE_INVALID_ARGUMENT,
		      INVALID "selector types must be the same when store SVID is enabled");
	mask.store_svid = false;
	check_refused(update(&s, in, &mask), CODE_ALREADY_EXISTS,
		      "datastore-sql: UNIQUE constraint failed: selectors.registered_entry_id, selectors.type, "
		      "selectors.value");
	in->n_selectors = 2;
	check_refused(update(&s, in, &mask), CODE_INTERNAL, "unable to find federated bundle \"spiffe://none.test\"");
	in->n_selectors = 0;
	check_refused(update(&s, in, &mask), CODE_INVALID_ARGUMENT, INVALID "missing selector list");
	CHECK_NUM(get(&s, "a")->revision_number, 0);
	state_end(&s);
}

TEST(numbers_of_entries_are_not_used_again)
{
	struct state s;
	struct err err = { 0 };
	uint64_t n = 0;
	Pb__EntryMask mask = PB__ENTRY_MASK__INIT;

	state_begin(&s);
	state_create(&s, state_entry(&s, "a", "/p", "/a", "t:1"));
	state_create(&s, state_entry(&s, "b", "/p", "/b", "t:1"));
	delete (&s, "b");
	state_reopen(&s);
	state_create(&s, state_entry(&s, "c", "/p", "/c", "t:1"));
	CHECK_CODE(view_entry_count(state_view(&s), NULL, &n, &err), CODE_OK);
	CHECK_NUM(n, 2);
	mask.parent_id = true;
	update(&s, state_entry(&s, "a", "/q", "/", "t:1"), &mask); /* moves, keeps its place in the list */
	{
		struct db *db;
		OWN_QUERY q = { 0 };
		bool row;

		CHECK_CODE(db_open(s.path, DB_READER, &db, &err), CODE_OK);
		CHECK_CODE(query_open(db, SQL_ENTRY_ALL, &q, &err), CODE_OK);
		query_int(&q, 1, 0);
		CHECK_CODE(query_step(&q, &row, &err), CODE_OK);
		CHECK_NUM(column_int(&q, 0), 1);
		CHECK_CODE(query_step(&q, &row, &err), CODE_OK);
		CHECK_NUM(column_int(&q, 0), 3);
		query_done(&q);
		db_close(db);
	}
	state_end(&s);
}

TEST(update_keeps_the_number_of_its_parent)
{
	struct state s;
	struct err err = { 0 };
	struct db *db;
	int64_t number, again;
	bool named;

	state_begin(&s);
	state_create(&s, state_entry(&s, "a", "/p", "/a", "t:1"));
	CHECK_CODE(db_open(s.path, DB_READER, &db, &err), CODE_OK);
	CHECK_CODE(parent_number(db, "spiffe://example.org/p", &number, &named, &err), CODE_OK);
	update(&s, state_entry(&s, "a", "/p", "/b", "t:2"), NULL); /* its only child */
	CHECK_CODE(parent_number(db, "spiffe://example.org/p", &again, &named, &err), CODE_OK);
	CHECK(number != 0);
	CHECK_NUM(again, number);
	update(&s, state_entry(&s, "a", "/q", "/b", "t:2"), NULL);
	CHECK_CODE(parent_number(db, "spiffe://example.org/p", &again, &named, &err), CODE_OK);
	CHECK_NUM(again, 0); /* gone with it */
	db_close(db);
	state_end(&s);
}

TEST(unknown_fields_do_not_get_into_rows)
{
	struct state s;
	OWN_BUF bytes = { 0 }, blob = { 0 };
	Pb__Entry *entry;
	static const uint8_t unknown[] = { 0xaa, 0x06, 0x03, 'x', 'y', 'z' }; /* field 101 */

	state_begin(&s);
	message_pack(state_entry(&s, "a", "/p", "/w", "t:1"), &bytes);
	buf_append(&bytes, unknown, sizeof unknown);
	entry = message_unpack(&pb__entry__descriptor, (struct span){ bytes.data, bytes.len }, s.arena);
	CHECK_NUM(state_create(&s, entry)->code, CODE_OK);
	message_pack(get(&s, "a"), &blob);
	for (size_t i = 0; i + 3 <= blob.len; i++)
		CHECK(memcmp(blob.data + i, "xyz", 3) != 0);
	state_end(&s);
}

TEST(expired_entries_are_pruned)
{
	struct state s;
	Pb__EntryPrune prune = PB__ENTRY_PRUNE__INIT;
	struct err err = { 0 };
	uint64_t n;

	state_begin(&s);
	for (int i = 0; i < 3; i++) {
		Pb__Entry *entry =
			state_entry(&s, arena_printf(s.arena, "e%d", i), "/p", arena_printf(s.arena, "/w%d", i), "t:1");

		entry->expires_at = i * 100; /* 0: never */
		state_create(&s, entry);
	}
	prune.before = 101;
	CHECK_NUM(state_do(&s, PB__COMMAND__KIND_ENTRY_PRUNE, &prune)->count, 1);
	CHECK(!state_do(&s, PB__COMMAND__KIND_ENTRY_PRUNE, &prune)->changed);
	CHECK_CODE(view_entry_count(state_view(&s), NULL, &n, &err), CODE_OK);
	CHECK_NUM(n, 2);
	state_end(&s);
}

/* --- rights and request ids --- */

static Pb__Outcome *create_as(struct state *s, const char *caller, const char *request, const char *digest,
			      const char *id, const char *path)
{
	Pb__EntryCreate *create = arena_alloc(s->arena, sizeof *create);
	Pb__Command command = PB__COMMAND__INIT;

	*create = (Pb__EntryCreate)PB__ENTRY_CREATE__INIT;
	create->entry = state_entry(s, id, "/p", path, "t:1");
	command.caller = caller;
	command.request_id = (ProtobufCBinaryData){ strlen(request), (uint8_t *)(uintptr_t)request };
	command.request_digest = (ProtobufCBinaryData){ strlen(digest), (uint8_t *)(uintptr_t)digest };
	command.kind_case = PB__COMMAND__KIND_ENTRY_CREATE;
	command.entry_create = create;
	return state_apply(s, &command);
}

TEST(same_request_id_is_done_once)
{
	struct state s;
	Pb__Outcome *first, *again;

	state_begin(&s);
	first = create_as(&s, "spiffe://example.org/admin", "request-1", "", "a", "/w");
	CHECK_NUM(first->code, CODE_OK);
	delete (&s, "a");
	again = create_as(&s, "spiffe://example.org/admin", "request-1", "", "a", "/w");
	CHECK_NUM(again->code, CODE_OK);
	CHECK(again->replayed);
	CHECK_NUM(again->revision, first->revision);
	CHECK_STR(again->entry->id, "a");
	CHECK_NUM(delete (&s, "a")->code, CODE_NOT_FOUND); /* it was not made again */
	check_refused(create_as(&s, "spiffe://example.org/admin", "request-1", "", "b", "/x"), CODE_INVALID_ARGUMENT,
		      "the request id has been used for a request with other content");
	CHECK_NUM(create_as(&s, "spiffe://example.org/other", "request-1", "", "b", "/x")->code,
		  CODE_OK); /* its own ids */
	/* a refusal is kept as well */
	first = create_as(&s, "", "request-2", "", "b", "/y");
	CHECK_NUM(first->code, CODE_ALREADY_EXISTS);
	delete (&s, "b");
	CHECK_NUM(create_as(&s, "", "request-2", "", "b", "/y")->code, CODE_ALREADY_EXISTS);
	state_check_digest(&s);
	state_end(&s);
}

TEST(request_digest_stands_for_the_content)
{
	struct state s;
	Pb__Outcome *again;

	state_begin(&s);
	create_as(&s, "", "request-1", "what the client sent", "made-up-1", "/w");
	again = create_as(&s, "", "request-1", "what the client sent", "made-up-2", "/w");
	CHECK_NUM(again->code, CODE_OK);
	CHECK_STR(again->entry->id, "made-up-1");
	check_refused(create_as(&s, "", "request-1", "something else", "made-up-1", "/w"), CODE_INVALID_ARGUMENT,
		      "the request id has been used for a request with other content");
	state_end(&s);
}

TEST(request_ids_end_after_a_day)
{
	struct state s;

	state_begin(&s);
	create_as(&s, "", "request-1", "", "a", "/w");
	s.now_ms += INT64_C(24) * 3600 * 1000 - 1;
	CHECK(create_as(&s, "", "request-1", "", "a", "/w")->replayed);
	s.now_ms += 1;
	CHECK_NUM(create_as(&s, "", "request-1", "", "b", "/x")->code, CODE_OK); /* other content: a new request */
	s.now_ms += INT64_C(24) * 3600 * 1000;
	delete (&s, "a");
	state_check_empty(&s, "request");
	state_check_empty(&s, "request_count");
	state_check_digest(&s);
	state_end(&s);
}

TEST(caller_with_too_many_request_ids_is_refused)
{
	enum { LIMIT = 10000 };
	struct state s;
	struct err err = { 0 };
	Pb__Outcome *out;
	Pb__EntryDelete gone = PB__ENTRY_DELETE__INIT;

	state_begin(&s);
	gone.id = "none";
	for (int done = 0; done < LIMIT; done += 500) {
		OWN_STRUCT(arena) arena = arena_new();
		Pb__Command *commands = arena_alloc(arena, 500 * sizeof *commands);
		struct store_item *items = arena_alloc(arena, 500 * sizeof *items);

		for (int i = 0; i < 500; i++) {
			commands[i] = (Pb__Command)PB__COMMAND__INIT;
			commands[i].format = 1;
			commands[i].caller = "spiffe://example.org/greedy";
			commands[i].request_id = (ProtobufCBinaryData){ 4, (uint8_t *)&(int){ 0 } };
			commands[i].request_id.data = arena_memdup(arena, &(int){ done + i }, sizeof(int));
			commands[i].kind_case = PB__COMMAND__KIND_ENTRY_DELETE;
			commands[i].entry_delete = &gone;
			items[i].command = &commands[i];
		}
		CHECK_CODE(store_apply(s.store, store_applied(s.store) + 1, s.now_ms, items, 500, arena, &err),
			   CODE_OK);
		CHECK_NUM(items[499].outcome->code, CODE_NOT_FOUND);
	}
	out = create_as(&s, "spiffe://example.org/greedy", "one more", "", "a", "/w");
	check_refused(out, CODE_RESOURCE_EXHAUSTED,
		      "'spiffe://example.org/greedy' has used 10000 request ids within 24 hours: wait, or send the "
		      "call without one");
	CHECK_NUM(create_as(&s, "spiffe://example.org/greedy", "", "", "a", "/w")->code, CODE_OK);
	CHECK_NUM(create_as(&s, "spiffe://example.org/modest", "one", "", "b", "/x")->code, CODE_OK);
	s.now_ms += INT64_C(24) * 3600 * 1000;
	for (int i = 0; i < 6; i++) /* some are dropped with each batch */
		delete (&s, "none");
	CHECK_NUM(create_as(&s, "spiffe://example.org/greedy", "one more", "", "c", "/y")->code, CODE_OK);
	state_check_digest(&s);
	state_end(&s);
}

TEST(large_outcomes_are_not_kept_twice)
{
	struct state s;
	Pb__BundleSet set = PB__BUNDLE_SET__INIT;
	Pb__Bundle bundle = PB__BUNDLE__INIT;
	Pb__Command command = PB__COMMAND__INIT;
	Pb__Outcome *out;

	state_begin(&s);
	bundle.trust_domain = "a.test";
	bundle.refresh_hint = 60;
	set.bundle = &bundle;
	command.request_id = (ProtobufCBinaryData){ 3, (uint8_t *)"abc" };
	command.kind_case = PB__COMMAND__KIND_BUNDLE_SET;
	command.bundle_set = &set;
	state_apply(&s, &command);
	out = state_apply(&s, &command);
	CHECK(out->replayed);
	CHECK_NUM(out->bundle->refresh_hint, 60);
	state_end(&s);
}

TEST(right_by_entry_is_checked_again)
{
	struct state s;
	Pb__Entry *admin;
	Pb__EntryDelete message = PB__ENTRY_DELETE__INIT;
	Pb__Command command = PB__COMMAND__INIT;

	state_begin(&s);
	admin = state_entry(&s, "boss", "/p", "/admin", "t:1");
	admin->admin = true;
	state_create(&s, admin);
	state_create(&s, state_entry(&s, "a", "/p", "/w", "t:1"));
	message.id = "a";
	command.caller = "spiffe://example.org/admin";
	command.kind_case = PB__COMMAND__KIND_ENTRY_DELETE;
	command.entry_delete = &message;
	command.right = PB__COMMAND__RIGHT__DOWNSTREAM_ENTRY;
	check_refused(state_apply(&s, &command), CODE_PERMISSION_DENIED,
		      "the entry that gave 'spiffe://example.org/admin' this right is gone");
	command.right = PB__COMMAND__RIGHT__ADMIN_ENTRY;
	CHECK_NUM(state_apply(&s, &command)->code, CODE_OK);
	delete (&s, "boss");
	CHECK_NUM(state_apply(&s, &command)->code, CODE_PERMISSION_DENIED);
	state_end(&s);
}
