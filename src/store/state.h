/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_STATE_H
#define STORE_STATE_H

#include "store/codec.h"
#include "store/db.h"
#include "store/store.h"

/* Inside of the state machine: what the appliers share. Every row is written through row_put and row_drop, which keep
 * the digest. */

/* Numbers in the meta row: the last of each sequence, then how many rows there are. */
enum number {
	SEQ_PARENT,
	SEQ_ENTRY,
	SEQ_AGENT,
	SEQ_BUNDLE,
	SEQ_RELATIONSHIP,
	N_ENTRIES,
	N_AGENTS,
	N_BUNDLES,
	N_REQUESTS,
	SEQ_MEMBER,
	NUMBERS,
};

struct store {
	struct db *db;
	struct hasher *hasher;
	char *trust_domain;
	uint64_t applied, term; /* of the last entry */
	int64_t stamp_ms;
	uint64_t digest[4];
	uint64_t numbers[NUMBERS];
	struct buf scratch; /* of row digests */
	uint32_t wal_frames;

	/* The batch that is being applied. */
	uint64_t index, index_term;
	int64_t now_ms;
	struct arena *arena;
};

enum table {
	TABLE_PARENT,
	TABLE_ENTRY,
	TABLE_ALIAS,
	TABLE_FEDERATES,
	TABLE_AGENT,
	TABLE_AGENT_SELECTORS,
	TABLE_TOKEN,
	TABLE_BUNDLE,
	TABLE_RELATIONSHIP,
	TABLE_JOURNAL,
	TABLE_REQUEST,
	TABLE_REQUEST_COUNT,
	TABLE_MEMBER,
	TABLE_JOIN,
	TABLE_ORIGIN,
	TABLE_COUNT,
};

struct cell {
	enum { CELL_INT, CELL_TEXT, CELL_BLOB } kind;
	int64_t number;
	const void *data; /* text: NUL-terminated */
	size_t len;       /* of a blob */
};
#define INT(value) ((struct cell){ CELL_INT, (int64_t)(value), NULL, 0 })
#define TEXT(value) ((struct cell){ CELL_TEXT, 0, (value), 0 })
#define BLOB(value) ((struct cell){ CELL_BLOB, 0, (value).data, (value).len })
#define CELLS(...) ((const struct cell[]){ __VA_ARGS__ })

/* A row that is not there yet; there already is our mistake or a damaged file: an error. */
enum code row_put(struct store *store, enum table table, const struct cell *cells, struct err *err);
/* *found (may be NULL): whether there was one. */
enum code row_drop(struct store *store, enum table table, const struct cell *key, bool *found, struct err *err);
/* Puts it in the place of the one with its key, if there is one. */
enum code row_replace(struct store *store, enum table table, const struct cell *cells, struct err *err);
/* The digest of what is in the file, counted afresh: what the kept one must be. */
enum code state_digest(struct store *store, uint64_t out[4], struct err *err);
void digest_move(uint64_t sum[4], const uint8_t hash[32], bool add);
/* The meta row's part of it. */
void digest_numbers(struct store *store, uint64_t sum[4], const uint64_t numbers[NUMBERS], bool add);

/* One command at work. */
struct apply {
	struct store *store;
	const Pb__Command *command;
	Pb__Outcome *out;
	struct arena *arena;
};
typedef enum code applier(struct apply *a,
			  struct err *err); /* not OK: the disk or the file failed, nothing was refused */

enum code apply_command(struct store *store, const Pb__Command *command, struct arena *arena, Pb__Outcome **out,
			struct err *err);
bool command_kind_known(Pb__Command__KindCase kind);

/* A refusal; answers CODE_OK, so that an applier ends with `return outcome_refuse(...)`. */
enum code outcome_refuse(struct apply *a, enum code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
enum code outcome_refuse_reason(struct apply *a, Pb__PermissionDeniedDetails__Reason reason, const char *text);

applier apply_entry_create, apply_entry_update, apply_entry_delete, apply_entry_prune;
applier apply_agent_attest, apply_agent_renew, apply_agent_activate, apply_agent_ban, apply_agent_delete,
	apply_agent_status, apply_agent_prune, apply_token_create;
applier apply_bundle_append, apply_bundle_create, apply_bundle_update, apply_bundle_set, apply_bundle_delete,
	apply_bundle_prune, apply_authority_taint, apply_authority_revoke;
applier apply_journal_set, apply_journal_prune;
applier apply_cluster_found, apply_member_put, apply_member_remove, apply_join_create, apply_join_redeem;

/* Has this parcel been applied already? Notes it if not (apply_origin.c). */
enum code origin_note(struct store *store, uint64_t boot, uint64_t sequence, bool *repeated, struct err *err);
applier apply_relationship_create, apply_relationship_update, apply_relationship_delete;

/* Entries, for more than one applier (apply_entry.c). */
struct entry_at {
	bool found;
	int64_t key;
	struct span blob; /* in the arena it was read into */
};
enum code entry_by_id(struct db *db, const char *id, struct arena *arena, struct entry_at *out, struct err *err);
enum code entry_create(struct apply *a, const Pb__Entry *given, struct err *err); /* outcome and all */
enum code entry_drop(struct store *store, int64_t key, const Pb__Entry *entry, struct err *err);
/* The entry with that key without `td` in federates_with; its revision stays. */
enum code entry_dissociate(struct store *store, int64_t key, const char *td, struct err *err);
enum code entry_drop_by_key(struct store *store, int64_t key, struct err *err);
enum code entry_by_key(struct db *db, int64_t key, struct arena *arena, Pb__Entry **out,
		       struct err *err);                                                            /* NULL: none */
enum code parent_number(struct db *db, const char *id, int64_t *out, bool *named, struct err *err); /* 0: none */
bool parent_is_server(const char *parent_id);
int64_t similar_hash(struct hasher *hasher, Pb__Selector *const *set, size_t n);
const char *selector_text(const Pb__Selector *selector, struct arena *arena); /* "type:value", as filed in `alias` */
enum code rights_by_entry(struct db *db, const char *spiffe_id, bool *admin, bool *downstream, struct err *err);

/* Bundles (apply_bundle.c). */
enum code bundle_get(struct db *db, const char *td, struct arena *arena, Pb__Bundle **out,
		     struct err *err);                                          /* NULL: none */
Pb__Bundle *bundle_untainted(const Pb__Bundle *given, struct arena *arena);     /* a copy without taint marks */
enum code bundle_put(struct store *store, Pb__Bundle *bundle, struct err *err); /* new or in the place of the old one */

/* Request ids (request.c). *known: answered from memory, `out` is set. */
enum code request_recall(struct apply *a, bool *known, struct err *err);
enum code request_remember(struct apply *a, struct err *err);
enum code requests_expire(struct store *store, struct err *err);

/* Certificates (cert.c): pure functions of the bytes. False for what is no certificate. `chain` may hold several, one
 * after another. */
bool cert_all_active(struct span chain, int64_t now_s);
bool cert_has_subject_key_id(struct span chain, const char *hex);

#endif
