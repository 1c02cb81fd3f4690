/* SPDX-License-Identifier: Apache-2.0 */
/* The walker over encoded entries agrees with the decoder on what we write, and reads nothing beyond what it was given
 * on what we do not. */
#include "lib/state.h"
#include "store/codec.h"
#include "store/foreign.h"

#include "base/rand.h"

#include <sqlite3.h>
#include <stdlib.h>

static bool is(struct span span, const char *text)
{
	return span.len == strlen(text) && memcmp(span.data, text, span.len) == 0;
}

static Pb__Entry *full_entry(struct state *s)
{
	static const char *names[] = { "a.org", "b.org" }, *domains[] = { "x.test", "y.test" };
	Pb__Entry *e = state_entry(s, "id-1", "/parent", "/w", "t:1 u:a:b");

	e->hint = "hint";
	e->admin = e->downstream = true;
	e->revision_number = INT64_MAX;
	e->created_at = 1764000000;
	e->expires_at = -5; /* nonsense, but a number of ten bytes */
	e->x509_svid_ttl = 5;
	e->dns_names = names;
	e->n_dns_names = 2;
	e->federates_with = domains;
	e->n_federates_with = 2;
	return e;
}

TEST(peek_agrees_with_the_decoder)
{
	struct state s;
	struct span blob, at, item, type, value;
	struct entry_peek peek;
	int n = 0;

	state_begin(&s);
	blob = message_pack_arena(full_entry(&s), s.arena);
	CHECK(entry_peek(blob, &peek));
	CHECK(is(peek.id, "id-1"));
	CHECK(is(peek.spiffe_td, "example.org"));
	CHECK(is(peek.spiffe_path, "/w"));
	CHECK(is(peek.parent_path, "/parent"));
	CHECK(is(peek.hint, "hint"));
	CHECK(peek.admin && peek.downstream);
	CHECK_NUM(peek.revision, INT64_MAX);
	CHECK_NUM(peek.created_at, 1764000000);
	CHECK_NUM(peek.expires_at, -5);
	at = blob;
	while (message_next(&at, ENTRY_SELECTORS, &item)) {
		CHECK(selector_peek(item, &type, &value));
		CHECK(is(type, n == 0 ? "t" : "u"));
		CHECK(is(value, n == 0 ? "1" : "a:b"));
		n++;
	}
	CHECK_NUM(n, 2);
	CHECK(entry_peek((struct span){ NULL, 0 }, &peek));
	CHECK_NUM(peek.id.len, 0);
	state_end(&s);
}

/* ASan watches: each try is a piece of memory of exactly its size. */
TEST(hostile_bytes_stay_within_their_bounds)
{
	struct state s;
	struct span blob, item, type, value;
	struct entry_peek peek;
	struct selector_set set;

	state_begin(&s);
	blob = message_pack_arena(full_entry(&s), s.arena);
	set.n = selectors_set(full_entry(&s)->selectors, 2, s.arena, &set.items);
	for (int i = 0; i < 20000; i++) {
		size_t len = i < (int)blob.len ? (size_t)i : (size_t)(rand_u64() % (blob.len + 1));
		uint8_t *bytes = xmemdup(blob.data, len == 0 ? 1 : len);
		struct span given = { bytes, len }, at = given;

		for (int k = 0; len > 0 && k < i % 5; k++)
			bytes[rand_u64() % len] = (uint8_t)rand_u64();
		entry_peek(given, &peek);
		while (message_next(&at, ENTRY_SELECTORS, &item))
			selector_peek(item, &type, &value);
		selectors_match(given, ENTRY_SELECTORS, &set, i % 4);
		strings_match(given, ENTRY_FEDERATES_WITH, &(struct string_set){ (const char *[]){ "x.test" }, 1 },
			      i % 4);
		free(bytes);
	}
	state_end(&s);
}

TEST(sets_are_sorted_bytewise_and_once)
{
	struct state s;
	Pb__Selector **list, **set;
	size_t n;

	state_begin(&s);
	list = state_selectors(&s, "b:1 B:1 a:2 a:10 b:1 ab:0", &n);
	n = selectors_set(list, n, s.arena, &set);
	CHECK_NUM(n, 5);
	CHECK_STR(set[0]->type, "B");
	CHECK_STR(set[1]->value, "10");
	CHECK_STR(set[2]->value, "2");
	CHECK_STR(set[3]->type, "ab");
	CHECK_STR(set[4]->type, "b");
	CHECK_STR(list[0]->type, "b"); /* as it was */
	CHECK_NUM(selectors_set(NULL, 0, s.arena, &set), 0);
	state_end(&s);
}

TEST(unknown_fields_go_at_every_depth)
{
	struct state s;
	static const uint8_t entry[] = {
		0x12, 0x08, 0x0a, 0x01, 'a', 0x12, 0x01, '/',  0x18, 0x05, /* spiffe_id with an unknown field 3 */
		0x22, 0x06, 0x0a, 0x01, 't', 0x20, 0x01, 0x28,             /* broken: a tag without its value */
	};
	static const uint8_t good[] = { 0x12, 0x08, 0x0a, 0x01, 'a', 0x12, 0x01, '/', 0x18, 0x05, 0xa8, 0x06, 0x01 };
	Pb__Entry *e;

	state_begin(&s);
	CHECK(message_unpack(&pb__entry__descriptor, (struct span){ entry, sizeof entry }, s.arena) == NULL);
	e = message_unpack(&pb__entry__descriptor, (struct span){ good, sizeof good }, s.arena);
	CHECK(e != NULL);
	CHECK_NUM(message_pack_arena(e, s.arena).len, 8);
	CHECK_NUM(e->base.n_unknown_fields, 0);
	CHECK_NUM(e->spiffe_id->base.n_unknown_fields, 0);
	CHECK_STR(((Pb__Entry *)message_copy(e, s.arena))->spiffe_id->path, "/");
	state_end(&s);
}

TEST(spiffe_id_is_split)
{
	struct state s;
	Pb__SPIFFEID id;

	state_begin(&s);
	CHECK(spiffe_id_split("spiffe://example.org/a/b", s.arena, &id));
	CHECK_STR(id.trust_domain, "example.org");
	CHECK_STR(id.path, "/a/b");
	CHECK(spiffe_id_split("spiffe://example.org", s.arena, &id));
	CHECK_STR(id.path, "");
	CHECK(!spiffe_id_split("https://example.org", s.arena, &id));
	CHECK_STR(spiffe_id_text(&id, s.arena), "spiffe://example.org");
	CHECK_STR(spiffe_id_text(NULL, s.arena), "");
	state_end(&s);
}

TEST(database_of_spire_is_seen)
{
	struct foreign_rows rows;
	char path[160], uri[180];
	sqlite3 *handle;

	snprintf(path, sizeof path, "%s/datastore.sqlite3", test_dir());
	CHECK(!foreign_database_look(path, &rows));
	CHECK(!foreign_database_look("", &rows));
	CHECK_NUM(sqlite3_open(path, &handle), SQLITE_OK);
	CHECK_NUM(sqlite3_exec(handle,
			       "CREATE TABLE registered_entries(id); CREATE TABLE attested_node_entries(id); CREATE "
			       "TABLE bundles(id)",
			       NULL, NULL, NULL),
		  SQLITE_OK);
	CHECK(!foreign_database_look(path, &rows)); /* nothing in it */
	CHECK_NUM(sqlite3_exec(handle, "INSERT INTO registered_entries VALUES(1), (2); INSERT INTO bundles VALUES(1)",
			       NULL, NULL, NULL),
		  SQLITE_OK);
	sqlite3_close(handle);
	CHECK(foreign_database_look(path, &rows));
	CHECK_NUM(rows.entries, 2);
	CHECK_NUM(rows.agents, 0);
	CHECK_NUM(rows.bundles, 1);
	snprintf(uri, sizeof uri, "file:%s", path);
	CHECK(foreign_database_look(uri, &rows));
}
