/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_VIEW_H
#define STORE_VIEW_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/own.h"
#include "command.pb-c.h"
#include "entry.pb-c.h"

#include <stdbool.h>
#include <stdint.h>

/* Reading the state. A reader is a read-only connection with its prepared statements: one per loop. A view is a read
 * transaction on it: everything asked of one view is of one revision. One view at a time per reader; no waiting while
 * it is open (it pins the task). What a query answers lives in the arena, spans of row callbacks only until the
 * callback returns. Not found is NOT_FOUND with SPIRE's text ("entry not found"); a failing SQLite is INTERNAL. */
struct reader;
struct view;

enum code reader_open(const char *path, struct reader **out, struct err *err);
void reader_close(struct reader *reader);
enum code view_open(struct reader *reader, struct view **out, struct err *err);
void view_close(struct view *view);
OWNABLE_STRUCT(view, view_close)

uint64_t view_revision(struct view *view); /* the applied index */

/* Entries. The blob is the canonical encoding of spire.api.types.Entry, as it goes on the wire. */
struct entry_row {
	uint64_t seq; /* order of creation: the page token */
	struct span blob;
	const char *id, *spiffe_id, *parent_id;
	int64_t revision, created_at;
	bool admin, downstream;
};
typedef enum code entry_fn(const struct entry_row *row, void *ctx, struct err *err); /* not OK: ends the walk with it */

struct entry_filter { /* all NULL/0: every entry. ANDed */
	const char *spiffe_id, *parent_id;
	const Pb__SelectorMatch *selectors;
	const Pb__FederatesWithMatch *federates_with; /* plain names */
	const char *hint;                             /* NULL or "": any */
	bool downstream;                              /* true: only those; false: any */
};

enum code view_entry(struct view *view, const char *id, struct arena *arena, Pb__Entry **out, struct err *err);
/* Matching entries above `after` in order of creation, `limit` of them (0: all). */
enum code view_entries(struct view *view, const struct entry_filter *filter, uint64_t after, size_t limit,
		       entry_fn *each, void *ctx, struct err *err);
enum code view_entry_count(struct view *view, const struct entry_filter *filter, uint64_t *out, struct err *err);

/* What an agent may have (server-api.md 4.2 "Authorized entries"): node aliases that apply, then down the tree, each
 * once. `now_s` decides whether the agent is unexpired (aliases apply to unexpired agents only). */
enum code view_authorized_entries(struct view *view, const char *agent_id, int64_t now_s, entry_fn *each, void *ctx,
				  struct err *err);
/* The same walk, the rows' bytes alone: answers to agents are made of them. */
typedef enum code blob_fn(struct span blob, void *ctx, struct err *err);
enum code view_authorized_blobs(struct view *view, const char *agent_id, int64_t now_s, blob_fn *each, void *ctx, struct err *err);
/* The same question for one entry, from below: a lookup or two, whatever the agent's number of entries.
 * NOT_FOUND "entry not found or not authorized". */
enum code view_authorized_entry(struct view *view, const char *agent_id, const char *entry_id, int64_t now_s,
				struct arena *arena, Pb__Entry **out, struct err *err);

/* What entries give a caller by its SPIFFE ID: any with admin, any with downstream. */
enum code view_caller_rights(struct view *view, const char *spiffe_id, bool *admin, bool *downstream, struct err *err);

/* Agents. */
struct agent_record {
	uint64_t seq;
	const char *id, *attestation_type, *agent_version;
	const char *serial; /* decimal; "" = banned */
	int64_t not_before, not_after;
	const char *new_serial; /* renewed, not used yet; "" = none */
	int64_t new_not_before, new_not_after;
	bool can_reattest;
	uint64_t incarnation; /* +1 at each attestation */
};
typedef enum code agent_fn(const struct agent_record *agent, void *ctx, struct err *err);

struct agent_filter {                 /* -1: any */
	const char *attestation_type; /* NULL or "": any */
	const Pb__SelectorMatch *selectors;
	int banned, can_reattest;
	int64_t expires_before; /* 0: any */
};
#define AGENT_FILTER_ALL                                                                                               \
	{                                                                                                              \
		NULL, NULL, -1, -1, 0                                                                                  \
	}

enum code view_agent(struct view *view, const char *id, struct arena *arena, struct agent_record *out, struct err *err);
enum code view_agent_selectors(struct view *view, const char *id, struct arena *arena, Pb__Selector ***out, size_t *n,
			       struct err *err);
enum code view_agents(struct view *view, const struct agent_filter *filter, uint64_t after, size_t limit,
		      agent_fn *each, void *ctx, struct err *err);
enum code view_agent_count(struct view *view, const struct agent_filter *filter, uint64_t *out, struct err *err);

/* Is there such a join token (used ones are gone), and until when? NOT_FOUND. */
enum code view_token(struct view *view, const char *token, int64_t *expires_at, struct err *err);

/* Bundles, by the plain name of the trust domain. The blob is the encoding of spire.api.types.Bundle. */
enum code view_bundle(struct view *view, const char *td, struct arena *arena, Pb__Bundle **out, struct err *err);
enum code view_bundle_blob(struct view *view, const char *td, struct arena *arena, struct span *out, struct err *err);
/* Changes whenever that bundle changes, 0 if there is none: for caches of parsed authorities. Very cheap. */
enum code view_bundle_version(struct view *view, const char *td, uint64_t *out, struct err *err);
typedef enum code bundle_fn(uint64_t seq, const char *td, struct span blob, void *ctx, struct err *err);
enum code view_bundles(struct view *view, uint64_t after, size_t limit, bundle_fn *each, void *ctx, struct err *err);
enum code view_bundle_count(struct view *view, uint64_t *out, struct err *err);

/* Federation relationships; trust_domain_bundle is the stored bundle, if any. */
enum code view_relationship(struct view *view, const char *td, struct arena *arena, Pb__FederationRelationship **out,
			    struct err *err);
typedef enum code relationship_fn(uint64_t seq, const Pb__FederationRelationship *relationship, void *ctx,
				  struct err *err);
enum code view_relationships(struct view *view, uint64_t after, size_t limit, struct arena *arena,
			     relationship_fn *each, void *ctx, struct err *err);

/* The cluster: its id ("" before it was founded) and epoch, its members, past ones too. */
enum code view_cluster(struct view *view, struct arena *arena, const char **id, uint64_t *epoch, struct err *err);
enum code view_members(struct view *view, struct arena *arena, Pb__Member ***out, size_t *n, struct err *err);

/* The CA journal of a node; NOT_FOUND before the first. */
enum code view_journal(struct view *view, const char *node, struct arena *arena, Pb__Journal **out, struct err *err);

#endif
