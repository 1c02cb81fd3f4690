/* SPDX-License-Identifier: Apache-2.0 */
/* Entry, as admins and agents call it: orders of checks, texts, masks, pages, items of batches, the sync protocol. */
#include "entry.pb-c.h"
#include "lib/harness.h"
#include "lib/test.h"

#define TD "example.org"

static Pb__SPIFFEID *id(struct harness *h, const char *path)
{
	Pb__SPIFFEID *out = arena_alloc(h->arena, sizeof *out);

	*out = (Pb__SPIFFEID)PB__SPIFFEID__INIT;
	out->trust_domain = TD;
	out->path = path;
	return out;
}

/* "type:value". */
static void add_selector(struct harness *h, Pb__Entry *entry, const char *text)
{
	Pb__Selector *selector = arena_alloc(h->arena, sizeof *selector), **all;
	const char *colon = strchr(text, ':');

	*selector = (Pb__Selector)PB__SELECTOR__INIT;
	selector->type = arena_strndup(h->arena, text, (size_t)(colon - text));
	selector->value = colon + 1;
	all = arena_alloc(h->arena, (entry->n_selectors + 1) * sizeof(Pb__Selector *));
	if (entry->n_selectors > 0)
		memcpy(all, entry->selectors, entry->n_selectors * sizeof(Pb__Selector *));
	all[entry->n_selectors++] = selector;
	entry->selectors = all;
}

static Pb__Entry *entry(struct harness *h, const char *entry_id, const char *parent, const char *path,
			const char *selector)
{
	Pb__Entry *out = arena_alloc(h->arena, sizeof *out);

	*out = (Pb__Entry)PB__ENTRY__INIT;
	out->id = entry_id;
	out->parent_id = parent == NULL ? NULL : id(h, parent);
	out->spiffe_id = path == NULL ? NULL : id(h, path);
	if (selector != NULL)
		add_selector(h, out, selector);
	return out;
}

static Pb__BatchCreateEntryResponse *create_all(struct harness *h, Pb__Entry **entries, size_t n, Pb__EntryMask *mask)
{
	Pb__BatchCreateEntryRequest request = PB__BATCH_CREATE_ENTRY_REQUEST__INIT;
	Pb__BatchCreateEntryResponse *reply;
	struct err err = { 0 };

	request.entries = entries;
	request.n_entries = n;
	request.output_mask = mask;
	CHECK_CODE(harness_call(h, harness_local(), "Entry.BatchCreateEntry", &request, (void **)&reply, &err),
		   CODE_OK);
	CHECK_NUM(reply->n_results, n);
	return reply;
}

static Pb__BatchCreateEntryResponse__Result *create(struct harness *h, Pb__Entry *what)
{
	return create_all(h, &what, 1, NULL)->results[0];
}

static void must_create(struct harness *h, const char *entry_id, const char *parent, const char *path,
			const char *selector)
{
	Pb__BatchCreateEntryResponse__Result *result = create(h, entry(h, entry_id, parent, path, selector));

	CHECK_STR(result->status->message, "OK");
}

static void refused(struct harness *h, Pb__Entry *what, enum code code, const char *text)
{
	Pb__BatchCreateEntryResponse__Result *result = create(h, what);

	CHECK_STR(result->status->message, text);
	CHECK_NUM(result->status->code, code);
	CHECK(result->entry == NULL);
}

TEST(create_answers_sorted_lists_and_get_those_given)
{
	struct harness *h = harness_open();
	Pb__Entry *what = entry(h, "", "/host", "/web", "z:1");
	Pb__GetEntryRequest get = PB__GET_ENTRY_REQUEST__INIT;
	const char *dns[] = { "b.org", "a.org" }, *tds[] = { "spiffe://" TD, TD };
	Pb__BatchCreateEntryResponse__Result *made;
	struct err err = { 0 };
	Pb__Entry *got;

	add_selector(h, what, "a:2:3");
	what->dns_names = dns;
	what->n_dns_names = 2;
	what->federates_with = tds;
	what->n_federates_with = 2;
	what->revision_number = 7;
	what->created_at = 5;
	what->hint = "h";
	harness_authorities(h); /* the own bundle: entries may federate with it */
	made = create(h, what);
	CHECK_STR(made->status->message, "OK");
	CHECK_NUM(made->status->code, 0);
	CHECK_NUM(strlen(made->entry->id), 36);
	CHECK_NUM(made->entry->id[14], '7'); /* version 7: in order of time */
	CHECK_STR(made->entry->selectors[0]->type, "a");
	CHECK_STR(made->entry->selectors[0]->value, "2:3");
	CHECK_STR(made->entry->dns_names[0], "a.org");
	CHECK_NUM(made->entry->n_federates_with, 1);
	CHECK_STR(made->entry->federates_with[0], TD);
	CHECK_NUM(made->entry->revision_number, 0);
	CHECK(made->entry->created_at > 1600000000);
	get.id = made->entry->id;
	CHECK_CODE(harness_call(h, harness_local(), "Entry.GetEntry", &get, (void **)&got, &err), CODE_OK);
	CHECK_STR(got->selectors[0]->type, "z");
	CHECK_STR(got->dns_names[0], "b.org");
	CHECK_STR(got->spiffe_id->path, "/web");
	CHECK_STR(got->hint, "h");
	harness_close(h);
}

TEST(create_checks_in_order)
{
	struct harness *h = harness_open();
	Pb__Entry *what = entry(h, "e", NULL, NULL, NULL);
	const char *dns[] = { "-a" }, *tds[] = { "a b" };
	char *hint = arena_alloc(h->arena, 1026);

	memset(hint, 'x', 1025);
	hint[1025] = '\0';
	what->hint = hint;
	what->x509_svid_ttl = what->jwt_svid_ttl = -1;
	what->dns_names = dns;
	what->federates_with = tds;
	what->n_dns_names = what->n_federates_with = 1;
	refused(h, what, CODE_INVALID_ARGUMENT,
		"failed to convert entry: invalid parent ID: request must specify SPIFFE ID");
	what->parent_id = id(h, "");
	refused(h, what, CODE_INVALID_ARGUMENT,
		"failed to convert entry: invalid parent ID: \"spiffe://" TD "\" is not a member of trust domain \"" TD
		"\"; path is empty");
	what->parent_id = id(h, "/spire/server");
	refused(h, what, CODE_INVALID_ARGUMENT,
		"failed to convert entry: invalid spiffe ID: request must specify SPIFFE ID");
	what->spiffe_id = id(h, "/spire/x");
	refused(h, what, CODE_INVALID_ARGUMENT,
		"failed to convert entry: invalid spiffe ID: \"spiffe://" TD
		"/spire/x\" is not a workload in trust domain \"" TD "\"; path is in the reserved namespace");
	what->spiffe_id = id(h, "/x");
	refused(h, what, CODE_INVALID_ARGUMENT,
		"failed to convert entry: invalid DNS name: idna error\nidna: invalid label \"-a\"");
	what->n_dns_names = 0;
	refused(h, what, CODE_INVALID_ARGUMENT,
		"failed to convert entry: invalid federated trust domain: trust domain characters are limited to "
		"lowercase letters, "
		"numbers, dots, dashes, and underscores");
	what->n_federates_with = 0;
	refused(h, what, CODE_INVALID_ARGUMENT, "failed to convert entry: selector list is empty");
	add_selector(h, what, "a:");
	refused(h, what, CODE_INVALID_ARGUMENT, "failed to convert entry: missing selector value");
	what->selectors[0]->value = "1";
	refused(h, what, CODE_INVALID_ARGUMENT,
		"failed to convert entry: hint is too long, max length is 1024 characters");
	what->hint = hint + 1;
	what->id = "no blank";
	refused(h, what, CODE_INVALID_ARGUMENT,
		"failed to create entry: datastore-validation: invalid registration entry: entry ID contains invalid "
		"characters");
	what->id = "e";
	refused(h, what, CODE_INVALID_ARGUMENT,
		"failed to create entry: datastore-validation: invalid registration entry: X509SvidTtl is not set");
	what->x509_svid_ttl = 0;
	refused(h, what, CODE_INVALID_ARGUMENT,
		"failed to create entry: datastore-validation: invalid registration entry: JwtSvidTtl is not set");
	what->jwt_svid_ttl = 0;
	add_selector(h, what, "b:1");
	what->store_svid = true;
	refused(h, what, CODE_INVALID_ARGUMENT,
		"failed to create entry: datastore-validation: invalid registration entry: selector types must be the "
		"same when store "
		"SVID is enabled");
	what->store_svid = false;
	tds[0] = "none.test";
	what->n_federates_with = 1;
	refused(h, what, CODE_INTERNAL,
		"failed to create entry: unable to find federated bundle \"spiffe://none.test\"");
	what->n_federates_with = 0;
	CHECK_STR(create(h, what)->status->message, "OK");
	harness_close(h);
}

TEST(create_items_stand_alone)
{
	struct harness *h = harness_open();
	Pb__EntryMask mask = PB__ENTRY_MASK__INIT;
	Pb__Entry *all[] = {
		entry(h, "one", "/host", "/a", "x:1"),   entry(h, "two", "/host", "/a", NULL),
		entry(h, "three", "/host", "/a", "x:1"), /* similar to the first of the same batch */
		entry(h, "one", "/host", "/b", "x:1"),   entry(h, "four", "/host", "/c", "x:1"),
	};
	Pb__BatchCreateEntryResponse *reply;

	mask.spiffe_id = true;
	reply = create_all(h, all, 5, &mask);
	CHECK_STR(reply->results[0]->status->message, "OK");
	CHECK_STR(reply->results[0]->entry->id, "one");
	CHECK(reply->results[0]->entry->parent_id == NULL);
	CHECK_STR(reply->results[0]->entry->spiffe_id->path, "/a");
	CHECK_STR(reply->results[1]->status->message, "failed to convert entry: selector list is empty");
	CHECK_STR(reply->results[2]->status->message, "similar entry already exists");
	CHECK_NUM(reply->results[2]->status->code, CODE_ALREADY_EXISTS);
	CHECK_STR(reply->results[2]->entry->id, "one");
	CHECK_NUM(reply->results[3]->status->code, CODE_ALREADY_EXISTS);
	CHECK(strncmp(reply->results[3]->status->message, "failed to create entry: datastore-sql: ", 39) == 0);
	CHECK(reply->results[3]->entry == NULL);
	CHECK_STR(reply->results[4]->entry->id, "four");
	CHECK_NUM(create_all(h, NULL, 0, NULL)->n_results, 0);
	harness_close(h);
}

static Pb__BatchUpdateEntryResponse__Result *update(struct harness *h, Pb__Entry *what, Pb__EntryMask *mask)
{
	Pb__BatchUpdateEntryRequest request = PB__BATCH_UPDATE_ENTRY_REQUEST__INIT;
	Pb__BatchUpdateEntryResponse *reply;
	struct err err = { 0 };

	request.entries = &what;
	request.n_entries = 1;
	request.input_mask = mask;
	CHECK_CODE(harness_call(h, harness_local(), "Entry.BatchUpdateEntry", &request, (void **)&reply, &err),
		   CODE_OK);
	return reply->results[0];
}

TEST(update_looks_at_masked_fields_only)
{
	struct harness *h = harness_open();
	Pb__Entry *what = entry(h, "e", NULL, NULL, NULL);
	Pb__EntryMask mask = PB__ENTRY_MASK__INIT;
	Pb__BatchUpdateEntryResponse__Result *result;

	must_create(h, "e", "/host", "/a", "x:1");
	what->hint = "new";
	what->x509_svid_ttl = -1;
	mask.hint = true;
	result = update(h, what, &mask);
	CHECK_STR(result->status->message, "OK");
	CHECK_STR(result->entry->hint, "new");
	CHECK_NUM(result->entry->revision_number, 1);
	CHECK_STR(result->entry->spiffe_id->path, "/a");
	CHECK_STR(update(h, what, NULL)->status->message,
		  "failed to convert entry: invalid parent ID: request must specify SPIFFE ID");
	mask.x509_svid_ttl = true;
	result = update(h, what, &mask);
	CHECK_STR(result->status->message,
		  "failed to update entry: datastore-validation: invalid registration entry: X509SvidTtl is not set");
	CHECK_NUM(result->status->code, CODE_INVALID_ARGUMENT);
	what->id = "none"; /* the value is checked before the entry is looked for */
	CHECK_NUM(update(h, what, &mask)->status->code, CODE_INVALID_ARGUMENT);
	what->x509_svid_ttl = 5;
	result = update(h, what, &mask);
	CHECK_STR(result->status->message, "failed to update entry");
	CHECK_NUM(result->status->code, CODE_NOT_FOUND);
	CHECK(result->entry == NULL);
	harness_close(h);
}

TEST(delete_echoes_ids)
{
	struct harness *h = harness_open();
	Pb__BatchDeleteEntryRequest request = PB__BATCH_DELETE_ENTRY_REQUEST__INIT;
	Pb__BatchDeleteEntryResponse *reply;
	const char *ids[] = { "e", "", "none", "e" };
	struct err err = { 0 };

	must_create(h, "e", "/host", "/a", "x:1");
	request.ids = ids;
	request.n_ids = 4;
	CHECK_CODE(harness_call(h, harness_local(), "Entry.BatchDeleteEntry", &request, (void **)&reply, &err),
		   CODE_OK);
	CHECK_STR(reply->results[0]->status->message, "OK");
	CHECK_STR(reply->results[0]->id, "e");
	CHECK_STR(reply->results[1]->status->message, "missing entry ID");
	CHECK_NUM(reply->results[1]->status->code, CODE_INVALID_ARGUMENT);
	CHECK_STR(reply->results[2]->status->message, "entry not found");
	CHECK_NUM(reply->results[2]->status->code, CODE_NOT_FOUND);
	CHECK_STR(reply->results[2]->id, "none");
	CHECK_STR(reply->results[3]->status->message, "entry not found");
	harness_close(h);
}

TEST(get_says_what_is_missing)
{
	struct harness *h = harness_open();
	Pb__GetEntryRequest request = PB__GET_ENTRY_REQUEST__INIT;
	Pb__EntryMask mask = PB__ENTRY_MASK__INIT;
	struct err err = { 0 };
	Pb__Entry *got;

	CHECK_CODE(harness_call(h, harness_local(), "Entry.GetEntry", &request, NULL, &err), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "missing ID");
	request.id = "none";
	CHECK_CODE(harness_call(h, harness_local(), "Entry.GetEntry", &request, NULL, &err), CODE_NOT_FOUND);
	CHECK_STR(err.text, "entry not found");
	must_create(h, "e", "/host", "/a", "x:1");
	request.id = "e";
	request.output_mask = &mask;
	CHECK_CODE(harness_call(h, harness_local(), "Entry.GetEntry", &request, (void **)&got, &err), CODE_OK);
	CHECK_STR(got->id, "e");
	CHECK(got->spiffe_id == NULL && got->n_selectors == 0 && got->created_at == 0);
	harness_close(h);
}

/* --- lists --- */

static Pb__ListEntriesResponse *list(struct harness *h, Pb__ListEntriesRequest *request)
{
	Pb__ListEntriesResponse *reply;
	struct err err = { 0 };

	CHECK_CODE(harness_call(h, harness_local(), "Entry.ListEntries", request, (void **)&reply, &err), CODE_OK);
	return reply;
}

TEST(list_goes_page_by_page)
{
	struct harness *h = harness_open();
	Pb__ListEntriesRequest request = PB__LIST_ENTRIES_REQUEST__INIT;
	Pb__EntryMask mask = PB__ENTRY_MASK__INIT;
	Pb__ListEntriesResponse *reply;
	struct err err = { 0 };

	must_create(h, "a", "/host", "/a", "x:1");
	must_create(h, "b", "/host", "/b", "x:1");
	must_create(h, "c", "/host", "/c", "x:2");
	request.output_mask = &mask;
	reply = list(h, &request);
	CHECK_NUM(reply->n_entries, 3);
	CHECK_STR(reply->next_page_token, "");
	CHECK_STR(reply->entries[2]->id, "c");
	CHECK(reply->entries[2]->spiffe_id == NULL);
	request.page_size = 2;
	reply = list(h, &request);
	CHECK_NUM(reply->n_entries, 2);
	CHECK_STR(reply->next_page_token, "2");
	request.page_token = "2";
	reply = list(h, &request);
	CHECK_NUM(reply->n_entries, 1);
	CHECK_STR(reply->next_page_token, "3");
	request.page_token = "3";
	reply = list(h, &request);
	CHECK_NUM(reply->n_entries, 0);
	CHECK_STR(reply->next_page_token, "");
	request.page_token = "x";
	CHECK_CODE(harness_call(h, harness_local(), "Entry.ListEntries", &request, NULL, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "failed to list entries: datastore-sql: rpc error: code = InvalidArgument desc = could not "
			    "parse token 'x'");
	request.page_size = -1; /* no pages: the token is not looked at */
	CHECK_NUM(list(h, &request)->n_entries, 3);
	harness_close(h);
}

TEST(list_and_count_filter_alike)
{
	struct harness *h = harness_open();
	Pb__SelectorMatch selectors = PB__SELECTOR_MATCH__INIT;
	Pb__StringValue hint = PB__STRING_VALUE__INIT;
	Pb__BoolValue downstream = PB__BOOL_VALUE__INIT;
	Pb__ListEntriesRequest request = PB__LIST_ENTRIES_REQUEST__INIT;
	Pb__ListEntriesRequest__Filter filter = PB__LIST_ENTRIES_REQUEST__FILTER__INIT;
	Pb__CountEntriesRequest count = PB__COUNT_ENTRIES_REQUEST__INIT;
	Pb__CountEntriesRequest__Filter same = PB__COUNT_ENTRIES_REQUEST__FILTER__INIT;
	Pb__CountEntriesResponse *counted;
	Pb__Entry *what = entry(h, "d", "/host", "/d", "x:1");
	struct err err = { 0 };

	what->downstream = true;
	what->hint = "h";
	create(h, what);
	must_create(h, "e", "/other", "/e", "x:2");
	request.filter = &filter;
	count.filter = &same;
	filter.by_downstream = same.by_downstream = &downstream; /* false: no filter */
	CHECK_NUM(list(h, &request)->n_entries, 2);
	downstream.value = true;
	CHECK_NUM(list(h, &request)->n_entries, 1);
	CHECK_CODE(harness_call(h, harness_local(), "Entry.CountEntries", &count, (void **)&counted, &err), CODE_OK);
	CHECK_NUM(counted->count, 1);
	filter.by_downstream = NULL;
	filter.by_hint = &hint; /* "": no filter */
	CHECK_NUM(list(h, &request)->n_entries, 2);
	hint.value = "h";
	CHECK_NUM(list(h, &request)->n_entries, 1);
	hint.value = "other";
	CHECK_NUM(list(h, &request)->n_entries, 0);
	filter.by_hint = NULL;
	filter.by_parent_id = id(h, "/other");
	CHECK_STR(list(h, &request)->entries[0]->id, "e");
	filter.by_parent_id = NULL;
	filter.by_spiffe_id = id(h, "/d");
	CHECK_STR(list(h, &request)->entries[0]->id, "d");
	filter.by_spiffe_id = NULL;
	selectors.selectors = what->selectors;
	selectors.n_selectors = 1;
	filter.by_selectors = &selectors;
	CHECK_STR(list(h, &request)->entries[0]->id, "d");
	harness_close(h);
}

TEST(filters_are_checked)
{
	struct harness *h = harness_open();
	Pb__SelectorMatch selectors = PB__SELECTOR_MATCH__INIT;
	Pb__FederatesWithMatch tds = PB__FEDERATES_WITH_MATCH__INIT;
	Pb__ListEntriesRequest request = PB__LIST_ENTRIES_REQUEST__INIT;
	Pb__ListEntriesRequest__Filter filter = PB__LIST_ENTRIES_REQUEST__FILTER__INIT;
	Pb__SPIFFEID empty = PB__SPIFFEID__INIT;
	Pb__Entry *what = entry(h, "d", "/host", "/d", "x:1");
	const char *names[] = { "x y" };
	struct err err = { 0 };

	request.filter = &filter;
	filter.by_parent_id = filter.by_spiffe_id = &empty;
	filter.by_selectors = &selectors;
	filter.by_federates_with = &tds;
#define REFUSED(code, want)                                                                                            \
	do {                                                                                                           \
		CHECK_CODE(harness_call(h, harness_local(), "Entry.ListEntries", &request, NULL, &err), code);         \
		CHECK_STR(err.text, want);                                                                             \
	} while (0)
	REFUSED(CODE_INVALID_ARGUMENT, "malformed parent ID filter: trust domain is missing");
	filter.by_parent_id = NULL;
	REFUSED(CODE_INVALID_ARGUMENT, "malformed SPIFFE ID filter: trust domain is missing");
	filter.by_spiffe_id = NULL;
	REFUSED(CODE_INVALID_ARGUMENT, "malformed selectors filter: empty selector set");
	selectors.selectors = what->selectors;
	selectors.n_selectors = 1;
	REFUSED(CODE_INVALID_ARGUMENT, "malformed federates with filter: empty trust domain set");
	tds.trust_domains = names;
	tds.n_trust_domains = 1;
	REFUSED(CODE_INVALID_ARGUMENT,
		"malformed federates with filter: trust domain characters are limited to lowercase letters, "
		"numbers, dots, dashes, and underscores");
	names[0] = "a.test";
	selectors.match = 9;
	REFUSED(CODE_INTERNAL, "failed to list entries: datastore-sql: unhandled selectors match behavior '\\t'");
	selectors.match = 1000;
	REFUSED(CODE_INTERNAL, "failed to list entries: datastore-sql: unhandled selectors match behavior '\xcf\xa8'");
	selectors.match = -1;
	REFUSED(CODE_INTERNAL,
		"failed to list entries: datastore-sql: unhandled selectors match behavior '\xef\xbf\xbd'");
	selectors.match = 39;
	REFUSED(CODE_INTERNAL, "failed to list entries: datastore-sql: unhandled selectors match behavior '\\''");
	selectors.match = 0;
	tds.match = 34;
	REFUSED(CODE_INTERNAL, "failed to list entries: datastore-sql: unhandled federates with match behavior '\"'");
#undef REFUSED
	harness_close(h);
}

/* --- agents --- */

#define AGENT "spiffe://" TD "/spire/agent/test/a"

static struct caller attest(struct harness *h)
{
	Pb__Command command = PB__COMMAND__INIT;
	Pb__AgentAttest what = PB__AGENT_ATTEST__INIT;
	Pb__AgentSvid svid = PB__AGENT_SVID__INIT;
	struct caller agent = harness_client(AGENT, "1");

	svid.serial = "1";
	svid.not_before = agent.not_before_s;
	svid.not_after = agent.not_after_s;
	what.id = AGENT;
	what.attestation_type = "test";
	what.svid = &svid;
	command.kind_case = PB__COMMAND__KIND_AGENT_ATTEST;
	command.agent_attest = &what;
	CHECK_NUM(harness_propose(h, &command)->code, CODE_OK);
	return agent;
}

static void create_children(struct harness *h, size_t n)
{
	Pb__Entry **all = arena_alloc(h->arena, n * sizeof(Pb__Entry *));

	for (size_t i = 0; i < n; i++)
		all[i] = entry(h, arena_printf(h->arena, "e%04zu", i), "/spire/agent/test/a",
			       arena_printf(h->arena, "/w%zu", i), "x:1");
	create_all(h, all, n, NULL);
}

TEST(authorized_entries_are_masked)
{
	struct harness *h = harness_open();
	struct caller agent = attest(h);
	Pb__GetAuthorizedEntriesRequest request = PB__GET_AUTHORIZED_ENTRIES_REQUEST__INIT;
	Pb__GetAuthorizedEntriesResponse *reply;
	Pb__EntryMask mask = PB__ENTRY_MASK__INIT;
	struct err err = { 0 };

	CHECK_CODE(harness_call(h, agent, "Entry.GetAuthorizedEntries", &request, (void **)&reply, &err), CODE_OK);
	CHECK_NUM(reply->n_entries, 0);
	create_children(h, 2);
	must_create(h, "child", "/w0", "/child", "x:1");
	must_create(h, "foreign", "/elsewhere", "/foreign", "x:1");
	CHECK_CODE(harness_call(h, agent, "Entry.GetAuthorizedEntries", &request, (void **)&reply, &err), CODE_OK);
	CHECK_NUM(reply->n_entries, 3);
	mask.selectors = true;
	request.output_mask = &mask;
	CHECK_CODE(harness_call(h, agent, "Entry.GetAuthorizedEntries", &request, (void **)&reply, &err), CODE_OK);
	CHECK_NUM(reply->n_entries, 3);
	for (size_t i = 0; i < 3; i++) {
		CHECK(reply->entries[i]->spiffe_id == NULL && reply->entries[i]->created_at == 0);
		CHECK_NUM(reply->entries[i]->n_selectors, 1);
		CHECK(reply->entries[i]->id[0] != '\0');
	}
	harness_close(h);
}

TEST(sync_sends_a_page_at_once)
{
	struct harness *h = harness_open();
	struct caller agent = attest(h);
	Pb__SyncAuthorizedEntriesRequest first = PB__SYNC_AUTHORIZED_ENTRIES_REQUEST__INIT, second = first;
	Pb__SyncAuthorizedEntriesResponse *got;
	Pb__EntryMask mask = PB__ENTRY_MASK__INIT;
	void *requests[] = { &first, &second };
	const char *ids[] = { "e0001" };
	struct harness_replies replies;
	struct err err = { 0 };

	CHECK_CODE(harness_stream(h, agent, "Entry.SyncAuthorizedEntries", requests, 1, &replies, &err), CODE_OK);
	CHECK_NUM(replies.n, 1); /* an empty one */
	create_children(h, 500);
	second.ids = ids;
	second.n_ids = 1; /* comes too late: the stream has ended */
	CHECK_CODE(harness_stream(h, agent, "Entry.SyncAuthorizedEntries", requests, 2, &replies, &err), CODE_OK);
	CHECK_NUM(replies.n, 1);
	got = replies.items[0];
	CHECK_NUM(got->n_entries, 500);
	CHECK_NUM(got->n_entry_revisions, 0);
	CHECK(!got->more);
	first.ids = ids;
	first.n_ids = 1;
	CHECK_CODE(harness_stream(h, agent, "Entry.SyncAuthorizedEntries", requests, 1, &replies, &err),
		   CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "specifying IDs on initial request is not supported");
	first.n_ids = 0;
	first.output_mask = &mask;
	CHECK_CODE(harness_stream(h, agent, "Entry.SyncAuthorizedEntries", requests, 1, &replies, &err),
		   CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "revision number cannot be masked");
	CHECK_CODE(harness_stream(h, agent, "Entry.SyncAuthorizedEntries", requests, 0, &replies, &err), CODE_UNKNOWN);
	harness_close(h);
}

/* What came for the ids of one request: in ascending order, `n` of them over these pages. */
static void check_pages(const struct harness_replies *replies, size_t from, size_t to, size_t n)
{
	const char *last = "";
	size_t seen = 0;

	for (size_t i = from; i < to; i++) {
		const Pb__SyncAuthorizedEntriesResponse *page = replies->items[i];

		CHECK_NUM(page->more, i + 1 < to);
		CHECK_NUM(page->n_entry_revisions, 0);
		for (size_t j = 0; j < page->n_entries; j++, seen++) {
			CHECK(strcmp(last, page->entries[j]->id) < 0);
			last = page->entries[j]->id;
			CHECK_STR(page->entries[j]->parent_id == NULL ? "masked" : "there", "masked");
			CHECK_NUM(page->entries[j]->n_selectors, 1);
		}
	}
	CHECK_NUM(seen, n);
}

TEST(sync_of_many_tells_revisions_first)
{
	struct harness *h = harness_open();
	struct caller agent = attest(h);
	Pb__SyncAuthorizedEntriesRequest first = PB__SYNC_AUTHORIZED_ENTRIES_REQUEST__INIT, few = first, none = first,
					 all = first;
	Pb__EntryMask mask = PB__ENTRY_MASK__INIT;
	void *requests[] = { &first, &few, &none, &all, &few };
	const char *few_ids[] = { "e0003", "unknown", "e0001", "e0003" }, *all_ids[1001];
	struct harness_replies replies;
	struct err err = { 0 };

	create_children(h, 1001);
	must_create(h, "foreign", "/elsewhere", "/foreign", "x:1");
	mask.revision_number = mask.selectors = true;
	first.output_mask = &mask;
	few.ids = few_ids;
	few.n_ids = 4;
	for (size_t i = 0; i < 1001; i++)
		all_ids[i] = arena_printf(h->arena, "e%04zu", 1000 - i);
	all_ids[0] = "foreign"; /* not this agent's */
	all.ids = all_ids;
	all.n_ids = 1001;
	CHECK_CODE(harness_stream(h, agent, "Entry.SyncAuthorizedEntries", requests, 5, &replies, &err), CODE_OK);
	CHECK_NUM(replies.n, 3 + 1 + 1 + 2 + 1);
	for (size_t i = 0; i < 3; i++) {
		const Pb__SyncAuthorizedEntriesResponse *page = replies.items[i];

		CHECK_NUM(page->n_entry_revisions, i < 2 ? 500 : 1);
		CHECK_NUM(page->n_entries, 0);
		CHECK_NUM(page->more, i < 2);
		CHECK(page->entry_revisions[0]->created_at > 0);
	}
	check_pages(&replies, 3, 4, 2);
	check_pages(&replies, 4, 5, 0);
	check_pages(&replies, 5, 7, 1000);
	check_pages(&replies, 7, 8, 2);
	harness_close(h);
}

TEST(sync_pages_end_where_entries_do)
{
	struct harness *h = harness_open();
	struct caller agent = attest(h);
	Pb__SyncAuthorizedEntriesRequest first = PB__SYNC_AUTHORIZED_ENTRIES_REQUEST__INIT;
	void *requests[] = { &first };
	struct harness_replies replies;
	struct err err = { 0 };

	create_children(h, 1000);
	CHECK_CODE(harness_stream(h, agent, "Entry.SyncAuthorizedEntries", requests, 1, &replies, &err), CODE_OK);
	CHECK_NUM(replies.n, 2);
	CHECK(((Pb__SyncAuthorizedEntriesResponse *)replies.items[0])->more);
	CHECK(!((Pb__SyncAuthorizedEntriesResponse *)replies.items[1])->more);
	harness_close(h);
}
