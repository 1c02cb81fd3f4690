/* SPDX-License-Identifier: Apache-2.0 */
/* entry show, entry count: the same filter. */
#include "cmd/cli.h"
#include "cmd/commands.h"
#include "cmd/convert.h"
#include "cmd/print.h"

#include "entry.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVICE "/spire.api.server.entry.v1.Entry/"

enum { PAGE = 500 };

static const struct rpc list_rpc = { SERVICE "ListEntries", &pb__list_entries_response__descriptor };
static const struct rpc get_rpc = { SERVICE "GetEntry", &pb__entry__descriptor };
static const struct rpc count_rpc = { SERVICE "CountEntries", &pb__count_entries_response__descriptor };

struct filter_options {
	struct cli_flags cli;
	const char *entry_id; /* of show */
	const char *parent_id, *spiffe_id, *hint, *match_selectors, *match_federates_with;
	struct strings selectors, federates_with;
	bool downstream;
};

#define FILTER_FLAGS                                                                                                   \
	CLI_FLAGS(struct filter_options),                                                                              \
		FLAG_STRING(struct filter_options, parent_id, "parentID", "", "Entries of this parent"),               \
		FLAG_STRING(struct filter_options, spiffe_id, "spiffeID", "", "Entries of this SPIFFE ID"),            \
		FLAG_STRINGS(struct filter_options, selectors, "selector",                                             \
			     "Entries with this selector; may be repeated"),                                           \
		FLAG_STRING(struct filter_options, match_selectors, "matchSelectorsOn", "superset",                    \
			    "How the selectors are compared: exact, any, superset or subset"),                         \
		FLAG_STRINGS(struct filter_options, federates_with, "federatesWith",                                   \
			     "Entries that federate with this trust domain; may be repeated"),                         \
		FLAG_STRING(struct filter_options, match_federates_with, "matchFederatesWithOn", "superset",           \
			    "How the trust domains are compared: exact, any, superset or subset"),                     \
		FLAG_BOOL(struct filter_options, downstream, "downstream", "Entries of downstream servers"),           \
		FLAG_STRING(struct filter_options, hint, "hint", "", "Entries with this hint")

static enum code parse_match(const char *word, struct arena *arena, int *out, struct err *err)
{
	if (convert_match(word, out))
		return CODE_OK;
	return err_set(err, CODE_INVALID_ARGUMENT, "match behavior %s unknown", cli_quote(arena, word));
}

static enum code parse_id(const char *text, const char *what, struct arena *arena, Pb__SPIFFEID **out, struct err *err)
{
	if (text[0] != '\0' && convert_id(text, arena, out, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "error parsing %s %s", what, cli_quote(arena, text));
	return CODE_OK;
}

static enum code filter_by_selectors(const struct filter_options *o, struct arena *arena, Pb__SelectorMatch **out,
				     struct err *err)
{
	Pb__SelectorMatch *by = arena_alloc(arena, sizeof *by);
	int match;

	TRY(parse_match(o->match_selectors, arena, &match, err));
	pb__selector_match__init(by);
	by->match = (Pb__SelectorMatch__MatchBehavior)match;
	if (convert_selectors(&o->selectors, arena, &by->selectors, &by->n_selectors, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "error parsing selectors");
	*out = by;
	return CODE_OK;
}

static enum code filter_by_federates_with(const struct filter_options *o, struct arena *arena,
					  Pb__FederatesWithMatch **out, struct err *err)
{
	Pb__FederatesWithMatch *by = arena_alloc(arena, sizeof *by);
	int match;

	TRY(parse_match(o->match_federates_with, arena, &match, err));
	pb__federates_with_match__init(by);
	by->match = (Pb__FederatesWithMatch__MatchBehavior)match;
	by->trust_domains = o->federates_with.items;
	by->n_trust_domains = o->federates_with.n;
	*out = by;
	return CODE_OK;
}

/* -downstream is sent always: the server takes false for no filter. */
static enum code make_filter(const struct filter_options *o, struct arena *arena,
			     Pb__ListEntriesRequest__Filter *filter, struct err *err)
{
	pb__list_entries_request__filter__init(filter);
	TRY(parse_id(o->parent_id, "parent ID", arena, &filter->by_parent_id, err));
	TRY(parse_id(o->spiffe_id, "SPIFFE ID", arena, &filter->by_spiffe_id, err));
	if (o->selectors.n > 0)
		TRY(filter_by_selectors(o, arena, &filter->by_selectors, err));
	filter->by_downstream = convert_bool(o->downstream, arena);
	if (o->federates_with.n > 0)
		TRY(filter_by_federates_with(o, arena, &filter->by_federates_with, err));
	if (o->hint[0] != '\0') {
		filter->by_hint = arena_alloc(arena, sizeof *filter->by_hint);
		pb__string_value__init(filter->by_hint);
		filter->by_hint->value = o->hint;
	}
	return CODE_OK;
}

static int compare_selectors(const Pb__Selector *a, const Pb__Selector *b)
{
	int c = strcmp(a->type, b->type);

	return c != 0 ? c : strcmp(a->value, b->value);
}

static int by_selector(const void *a, const void *b)
{
	return compare_selectors(*(Pb__Selector *const *)a, *(Pb__Selector *const *)b);
}

static int compare_ids(const Pb__SPIFFEID *a, const Pb__SPIFFEID *b)
{
	int c;

	if (a == NULL || b == NULL)
		return (a != NULL) - (b != NULL);
	c = strcmp(a->trust_domain, b->trust_domain);
	return c != 0 ? c : strcmp(a->path, b->path);
}

#define COMPARE(a, b) (((a) > (b)) - ((a) < (b)))

/* SPIFFE ID, parent, lifetimes, number of selectors, the selectors themselves. */
static int by_content(const void *left, const void *right)
{
	const Pb__Entry *a = *(Pb__Entry *const *)left, *b = *(Pb__Entry *const *)right;
	int c = compare_ids(a->spiffe_id, b->spiffe_id);

	if (c == 0)
		c = compare_ids(a->parent_id, b->parent_id);
	if (c == 0)
		c = COMPARE(a->x509_svid_ttl, b->x509_svid_ttl);
	if (c == 0)
		c = COMPARE(a->jwt_svid_ttl, b->jwt_svid_ttl);
	if (c == 0)
		c = COMPARE(a->n_selectors, b->n_selectors);
	for (size_t i = 0; c == 0 && i < a->n_selectors; i++)
		c = compare_selectors(a->selectors[i], b->selectors[i]);
	return c;
}

static void sort_entries(Pb__ListEntriesResponse *list)
{
	for (size_t i = 0; i < list->n_entries; i++)
		if (list->entries[i]->n_selectors > 0)
			qsort(list->entries[i]->selectors, list->entries[i]->n_selectors, sizeof(Pb__Selector *),
			      by_selector);
	if (list->n_entries > 0)
		qsort(list->entries, list->n_entries, sizeof(Pb__Entry *), by_content);
}

static void append(Pb__ListEntriesResponse *all, const Pb__ListEntriesResponse *page, size_t *cap, struct arena *arena)
{
	if (all->n_entries + page->n_entries > *cap) {
		Pb__Entry **more;

		*cap = 2 * (*cap + page->n_entries);
		more = arena_alloc(arena, *cap * sizeof *more);
		if (all->n_entries > 0)
			memcpy(more, all->entries, all->n_entries * sizeof *more);
		all->entries = more;
	}
	if (page->n_entries > 0)
		memcpy(all->entries + all->n_entries, page->entries, page->n_entries * sizeof *all->entries);
	all->n_entries += page->n_entries;
}

static enum code fetch_all(struct cli *cli, const struct filter_options *o, Pb__ListEntriesResponse *all,
			   struct err *err)
{
	Pb__ListEntriesRequest request = PB__LIST_ENTRIES_REQUEST__INIT;
	Pb__ListEntriesRequest__Filter filter;
	Pb__ListEntriesResponse *page;
	size_t cap = 0;

	TRY(make_filter(o, cli->arena, &filter, err));
	request.filter = &filter;
	request.page_size = PAGE;
	do {
		enum code rc = cli_call(cli, &list_rpc, &request, &page, err);

		if (rc != CODE_OK)
			return err_wrap(err, rc, "error fetching entries");
		append(all, page, &cap, cli->arena);
		request.page_token = page->next_page_token;
	} while (request.page_token[0] != '\0');
	return CODE_OK;
}

static enum code fetch_one(struct cli *cli, const char *id, Pb__ListEntriesResponse *all, struct err *err)
{
	Pb__GetEntryRequest request = PB__GET_ENTRY_REQUEST__INIT;
	Pb__Entry *entry;
	enum code rc;
	size_t cap = 0;
	Pb__ListEntriesResponse page = PB__LIST_ENTRIES_RESPONSE__INIT;

	request.id = id;
	rc = cli_call(cli, &get_rpc, &request, &entry, err);
	if (rc != CODE_OK)
		return err_wrap(err, rc, "error fetching entry ID %s", id);
	page.n_entries = 1;
	page.entries = &entry;
	append(all, &page, &cap, cli->arena);
	return CODE_OK;
}

static enum code run_show(struct cli *cli, const void *options, struct err *err)
{
	const struct filter_options *o = options;
	Pb__ListEntriesResponse all = PB__LIST_ENTRIES_RESPONSE__INIT;

	if (o->entry_id[0] != '\0') {
		if (o->parent_id[0] != '\0' || o->spiffe_id[0] != '\0' || o->selectors.n > 0)
			return err_set(err, CODE_INVALID_ARGUMENT, "the -entryID flag can't be combined with others");
		TRY(fetch_one(cli, o->entry_id, &all, err));
	} else {
		TRY(fetch_all(cli, o, &all, err));
	}
	sort_entries(&all);
	if (cli_json(cli))
		return cli_print_json(&all, err);
	printf("Found %zu %s\n", all.n_entries, cli_plural(all.n_entries, "entry", "entries"));
	for (size_t i = 0; i < all.n_entries; i++)
		print_entry(stdout, all.entries[i]);
	return CODE_OK;
}

static enum code run_count(struct cli *cli, const void *options, struct err *err)
{
	Pb__CountEntriesRequest request = PB__COUNT_ENTRIES_REQUEST__INIT;
	Pb__CountEntriesRequest__Filter filter = PB__COUNT_ENTRIES_REQUEST__FILTER__INIT;
	Pb__ListEntriesRequest__Filter same;
	Pb__CountEntriesResponse *reply;

	TRY(make_filter(options, cli->arena, &same, err));
	filter.by_spiffe_id = same.by_spiffe_id;
	filter.by_parent_id = same.by_parent_id;
	filter.by_selectors = same.by_selectors;
	filter.by_federates_with = same.by_federates_with;
	filter.by_hint = same.by_hint;
	filter.by_downstream = same.by_downstream;
	request.filter = &filter;
	TRY(cli_call(cli, &count_rpc, &request, &reply, err));
	if (cli_json(cli))
		return cli_print_json(reply, err);
	printf("%d registration %s\n", reply->count, reply->count == 1 ? "entry" : "entries");
	return CODE_OK;
}

static const struct flag show_flags[] = {
	FILTER_FLAGS,
	FLAG_STRING(struct filter_options, entry_id, "entryID", "", "The entry of this id"),
	FLAG_END,
};
static const struct flag count_flags[] = { FILTER_FLAGS, FLAG_END };

const struct cli_command cmd_entry_show = { { "entry show", show_flags }, sizeof(struct filter_options), run_show };
const struct cli_command cmd_entry_count = { { "entry count", count_flags }, sizeof(struct filter_options), run_count };
