/* SPDX-License-Identifier: Apache-2.0 */
/* The schema of the state file and every statement that is ever run on it.
 *
 * An entry's key is the number of its parent (above) and its own sequence number (32 bits below): the entries of one
 * parent lie side by side in order of creation, and every index of entries ends in 8 bytes. A parent gets its number
 * with its first entry and loses it with its last one. Entries under /spire/server (node aliases) have a row in `alias`
 * besides: under one of their selectors, so that an agent's selectors find those that may apply to it. A parent is
 * `named` while an entry that is no alias has its id: only then does a walk down the tree go on below an entry. What an
 * entry says stands in its blob alone (the message as it goes on the wire); the columns beside it are what is searched.
 */
#include "store/db.h"

const char schema_text[] =
	"CREATE TABLE meta(one INTEGER PRIMARY KEY CHECK(one = 1), trust_domain TEXT NOT NULL, applied INTEGER NOT "
	"NULL,"
	" stamp_ms INTEGER NOT NULL, digest BLOB NOT NULL, parents INTEGER NOT NULL, entries INTEGER NOT NULL,"
	" agents INTEGER NOT NULL, bundles INTEGER NOT NULL, relationships INTEGER NOT NULL, n_entries INTEGER NOT "
	"NULL,"
	" n_agents INTEGER NOT NULL, n_bundles INTEGER NOT NULL, n_requests INTEGER NOT NULL,"
	" members INTEGER NOT NULL, term INTEGER NOT NULL);"
	/* the configuration as of the applied index: the consensus library's, in no digest */
	"CREATE TABLE conf(one INTEGER PRIMARY KEY CHECK(one = 1), at INTEGER NOT NULL, blob BLOB NOT NULL);"
	"INSERT INTO conf VALUES(1, 0, x'');"
	"CREATE TABLE cluster(one INTEGER PRIMARY KEY CHECK(one = 1), id TEXT NOT NULL, epoch INTEGER NOT NULL);"
	"INSERT INTO cluster VALUES(1, '', 0);"
	"CREATE TABLE member(id INTEGER PRIMARY KEY, blob BLOB NOT NULL);"
	"CREATE TABLE join_secret(hash BLOB PRIMARY KEY, blob BLOB NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE origin(boot INTEGER PRIMARY KEY, blob BLOB NOT NULL);"

	"CREATE TABLE parent(n INTEGER PRIMARY KEY, id TEXT NOT NULL, named INTEGER NOT NULL);"
	"CREATE UNIQUE INDEX parent_id ON parent(id);"
	"CREATE INDEX parent_named ON parent(id) WHERE named;"
	"CREATE TABLE entry(key INTEGER PRIMARY KEY, seq INTEGER NOT NULL, id TEXT NOT NULL, spiffe_id TEXT NOT NULL,"
	" similar INTEGER NOT NULL, admin INTEGER NOT NULL, downstream INTEGER NOT NULL, expires_at INTEGER NOT NULL,"
	" blob BLOB NOT NULL);"
	"CREATE UNIQUE INDEX entry_seq ON entry(seq);"
	"CREATE UNIQUE INDEX entry_id ON entry(id);"
	"CREATE INDEX entry_spiffe_id ON entry(spiffe_id, similar);"
	"CREATE INDEX entry_rights ON entry(spiffe_id, admin, downstream) WHERE admin + downstream;"
	"CREATE INDEX entry_expires ON entry(expires_at) WHERE expires_at;"
	"CREATE TABLE alias(key INTEGER PRIMARY KEY, selector TEXT NOT NULL);"
	"CREATE INDEX alias_selector ON alias(selector);"
	"CREATE TABLE federates(td TEXT NOT NULL, key INTEGER NOT NULL, PRIMARY KEY(td, key)) WITHOUT ROWID;"

	"CREATE TABLE agent(id TEXT PRIMARY KEY, seq INTEGER NOT NULL, attestation_type TEXT NOT NULL, version TEXT "
	"NOT NULL,"
	" serial TEXT NOT NULL, not_before INTEGER NOT NULL, not_after INTEGER NOT NULL, new_serial TEXT NOT NULL,"
	" new_not_before INTEGER NOT NULL, new_not_after INTEGER NOT NULL, can_reattest INTEGER NOT NULL,"
	" incarnation INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE UNIQUE INDEX agent_seq ON agent(seq);"
	"CREATE INDEX agent_not_after ON agent(not_after);"
	"CREATE TABLE agent_selectors(agent INTEGER PRIMARY KEY, blob BLOB NOT NULL);"
	"CREATE TABLE token(hash BLOB PRIMARY KEY, expires_at INTEGER NOT NULL) WITHOUT ROWID;"

	"CREATE TABLE bundle(td TEXT PRIMARY KEY, seq INTEGER NOT NULL, version INTEGER NOT NULL, blob BLOB NOT NULL)"
	" WITHOUT ROWID;"
	"CREATE UNIQUE INDEX bundle_seq ON bundle(seq);"
	"CREATE TABLE relationship(td TEXT PRIMARY KEY, seq INTEGER NOT NULL, blob BLOB NOT NULL) WITHOUT ROWID;"
	"CREATE UNIQUE INDEX relationship_seq ON relationship(seq);"
	"CREATE TABLE journal(node TEXT PRIMARY KEY, blob BLOB NOT NULL) WITHOUT ROWID;"

	"CREATE TABLE request(caller TEXT NOT NULL, id BLOB NOT NULL, item INTEGER NOT NULL, digest BLOB NOT NULL,"
	" stamp_ms INTEGER NOT NULL, outcome BLOB NOT NULL, PRIMARY KEY(caller, id, item)) WITHOUT ROWID;"
	"CREATE INDEX request_stamp ON request(stamp_ms);"
	"CREATE TABLE request_count(caller TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;";

#define TABLE(NAME, name, values, key)                                                                                 \
	[SQL_##NAME##_PUT] = "INSERT INTO " #name " VALUES(" values ")",                                               \
	[SQL_##NAME##_GET] = "SELECT * FROM " #name " WHERE " key,                                                     \
	[SQL_##NAME##_DROP] = "DELETE FROM " #name " WHERE " key

#define ENTRY_COLUMNS "SELECT seq, key, blob FROM entry "
#define AGENT_COLUMNS                                                                                                  \
	"SELECT id, seq, attestation_type, version, serial, not_before, not_after, new_serial, new_not_before,"        \
	" new_not_after, can_reattest, incarnation FROM agent "

static const char *const texts[SQL_COUNT] = {
	TABLE(PARENT, parent, "?,?,?", "n = ?"),
	TABLE(ENTRY, entry, "?,?,?,?,?,?,?,?,?", "key = ?"),
	TABLE(ALIAS, alias, "?,?", "key = ?"),
	TABLE(FEDERATES, federates, "?,?", "td = ? AND key = ?"),
	TABLE(AGENT, agent, "?,?,?,?,?,?,?,?,?,?,?,?", "id = ?"),
	TABLE(AGENT_SELECTORS, agent_selectors, "?,?", "agent = ?"),
	TABLE(TOKEN, token, "?,?", "hash = ?"),
	TABLE(BUNDLE, bundle, "?,?,?,?", "td = ?"),
	TABLE(RELATIONSHIP, relationship, "?,?,?", "td = ?"),
	TABLE(JOURNAL, journal, "?,?", "node = ?"),
	TABLE(REQUEST, request, "?,?,?,?,?,?", "caller = ? AND id = ? AND item = ?"),
	TABLE(REQUEST_COUNT, request_count, "?,?", "caller = ?"),
	TABLE(MEMBER, member, "?,?", "id = ?"),
	TABLE(JOIN, join_secret, "?,?", "hash = ?"),
	TABLE(ORIGIN, origin, "?,?", "boot = ?"),

	[SQL_BEGIN] = "BEGIN IMMEDIATE",
	[SQL_COMMIT] = "COMMIT",
	[SQL_META_GET] =
		"SELECT trust_domain, applied, stamp_ms, digest, parents, entries, agents, bundles, relationships,"
		" n_entries, n_agents, n_bundles, n_requests, members, term FROM meta",
	[SQL_META_SET] =
		"UPDATE meta SET trust_domain = ?1, applied = ?2, stamp_ms = ?3, digest = ?4, parents = ?5,"
		" entries = ?6, agents = ?7, bundles = ?8, relationships = ?9, n_entries = ?10, n_agents = ?11,"
		" n_bundles = ?12, n_requests = ?13, members = ?14, term = ?15 WHERE one = 1",
	[SQL_VIEW] = "SELECT applied, n_entries, n_agents, n_bundles FROM meta WHERE one = 1",

	[SQL_PARENT_BY_ID] = "SELECT n, named FROM parent WHERE id = ?",
	[SQL_PARENT_NAMED] = "SELECT n FROM parent INDEXED BY parent_named WHERE id = ? AND named",
	[SQL_PARENT_ANY_NAMED] = "SELECT 1 FROM parent WHERE named LIMIT 1",
	[SQL_PARENT_HAS_CHILD] = "SELECT 1 FROM entry WHERE key BETWEEN ?1 << 32 AND (?1 << 32) + 4294967295 LIMIT 1",
	[SQL_ENTRY_BY_ID] = ENTRY_COLUMNS "WHERE id = ?",
	[SQL_ENTRY_SIMILAR] = ENTRY_COLUMNS "WHERE spiffe_id = ?1 AND similar = ?2"
					    " AND key BETWEEN ?3 << 32 AND (?3 << 32) + 4294967295",
	[SQL_ENTRY_BY_SPIFFE_ID] = ENTRY_COLUMNS "WHERE spiffe_id = ?",
	[SQL_ENTRY_RIGHTS] = "SELECT max(admin), max(downstream) FROM entry WHERE spiffe_id = ? AND admin + downstream",
	[SQL_ENTRY_CHILDREN] = ENTRY_COLUMNS "WHERE key BETWEEN ?1 << 32 AND (?1 << 32) + 4294967295",
	[SQL_ENTRY_CHILDREN_AFTER] =
		ENTRY_COLUMNS "WHERE key > (?1 << 32) + ?2 AND key <= (?1 << 32) + 4294967295 ORDER BY key",
	[SQL_ENTRY_ALL] = ENTRY_COLUMNS "WHERE seq > ? ORDER BY seq",
	[SQL_ENTRY_ROW] = ENTRY_COLUMNS "WHERE key = ?",
	[SQL_ENTRY_KEYS_BY_SPIFFE_ID] = "SELECT key FROM entry WHERE spiffe_id = ?",
	[SQL_ENTRY_EXPIRED] =
		"SELECT key FROM entry WHERE expires_at AND expires_at < ? ORDER BY expires_at, key LIMIT ?",
	[SQL_ENTRY_IS_NAMED] = "SELECT 1 FROM entry WHERE spiffe_id = ? AND NOT EXISTS (SELECT 1 FROM alias WHERE"
			       " alias.key = entry.key) LIMIT 1",
	[SQL_ALIAS_BY_SELECTOR] =
		"SELECT entry.key, entry.spiffe_id, entry.blob FROM alias JOIN entry ON entry.key = alias.key"
		" WHERE alias.selector = ?",
	[SQL_ALIAS_FILED] = "SELECT count(*) FROM (SELECT 1 FROM alias WHERE selector = ? LIMIT 1000)",
	[SQL_FEDERATES_COUNT] = "SELECT count(*) FROM federates WHERE td = ?",
	[SQL_FEDERATES_KEYS] = "SELECT key FROM federates WHERE td = ?",
	[SQL_FEDERATES_NEXT] = "SELECT key FROM federates WHERE td = ?1 AND key > ?2 ORDER BY key LIMIT 1",

	[SQL_AGENT_ALL] = AGENT_COLUMNS "WHERE seq > ? ORDER BY seq",
	[SQL_AGENT_EXPIRED] = "SELECT id FROM agent WHERE not_after < ?1 AND serial <> '' AND (can_reattest OR ?2)"
			      " ORDER BY not_after, id LIMIT ?3",

	[SQL_BUNDLE_ALL] = "SELECT seq, td, blob FROM bundle WHERE seq > ? ORDER BY seq",
	[SQL_BUNDLE_VERSION] = "SELECT version FROM bundle WHERE td = ?",
	[SQL_RELATIONSHIP_ALL] = "SELECT seq, td, blob FROM relationship WHERE seq > ? ORDER BY seq",
	[SQL_JOURNAL_ALL] = "SELECT node, blob FROM journal ORDER BY node",
	[SQL_MEMBER_ALL] = "SELECT id, blob FROM member ORDER BY id",
	[SQL_ORIGIN_ALL] = "SELECT boot, blob FROM origin ORDER BY boot",
	[SQL_CONF_GET] = "SELECT at, blob FROM conf",
	[SQL_CONF_SET] = "UPDATE conf SET at = ?, blob = ?",
	[SQL_CLUSTER_GET] = "SELECT id, epoch FROM cluster",
	[SQL_CLUSTER_SET] = "UPDATE cluster SET id = ?, epoch = ?",

	[SQL_REQUEST_EXPIRED] =
		"SELECT caller, id, item FROM request WHERE stamp_ms <= ?1 ORDER BY stamp_ms, caller, id, item"
		" LIMIT ?2",
};

const char *sql_text(enum sql sql)
{
	return texts[sql];
}
