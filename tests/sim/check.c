/* SPDX-License-Identifier: Apache-2.0 */
/* The checkers: what must hold after each event, whatever the faults were. */
#include "sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct seen { /* content of (index, term), everywhere */
	uint64_t index, term, hash;
};

struct done { /* what was applied at an index */
	uint64_t term, hash, digest, conf_index;
	struct conf conf;
};

static struct {
	struct seen *seen;
	size_t n_seen, cap_seen;
	struct {
		uint64_t term, id;
	} * leaders;
	size_t n_leaders;
	struct done *done; /* by index */
	size_t cap_done;
	struct {
		uint64_t index, term;
	} * lost;
	size_t n_lost;
} book;

uint64_t acked, committed_last, removed_at[NODES + 1];
struct counters counters;

void violation(const char *fmt, ...)
{
	va_list args;

	printf("\nVIOLATION seed %" PRIu64 " at %" PRId64 " ms: ", options.seed, now);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\nagain: make sim SEED=%" PRIu64 "\n", options.seed);
	fflush(stdout);
	_exit(1);
}

void check_init(void)
{
	memset(&book, 0, sizeof(book));
	memset(&counters, 0, sizeof(counters));
	memset(removed_at, 0, sizeof(removed_at));
	acked = committed_last = 0;
}

void check_free(void)
{
	free(book.seen);
	free(book.leaders);
	free(book.done);
	free(book.lost);
}

uint64_t entry_hash(const struct entry *entry)
{
	uint64_t hash = 1469598103934665603u ^ entry->type;

	for (uint32_t i = 0; i < entry->len; i++)
		hash = (hash ^ entry->data[i]) * 1099511628211u;
	return hash;
}

uint64_t next_digest(uint64_t digest, const struct entry *entry)
{
	return (digest ^ entry_hash(entry) ^ entry->index * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u + entry->term;
}

void check_leader(uint64_t term, uint64_t id)
{
	for (size_t i = 0; i < book.n_leaders; i++) {
		if (book.leaders[i].term != term)
			continue;
		if (book.leaders[i].id != id)
			violation("two leaders in term %" PRIu64 ": %" PRIu64 " and %" PRIu64, term, book.leaders[i].id,
				  id);
		return;
	}
	book.leaders = realloc(book.leaders, (book.n_leaders + 1) * sizeof(*book.leaders));
	book.leaders[book.n_leaders].term = term;
	book.leaders[book.n_leaders++].id = id;
}

static struct seen *find(struct seen *table, size_t cap, uint64_t index, uint64_t term)
{
	size_t i = (index * 0x9e3779b97f4a7c15u ^ term * 0xbf58476d1ce4e5b9u) & (cap - 1);

	while (table[i].index != 0 && (table[i].index != index || table[i].term != term))
		i = (i + 1) & (cap - 1);
	return &table[i];
}

void check_entry(const struct entry *entry)
{
	struct seen *at;

	if (book.n_seen * 2 >= book.cap_seen) {
		size_t cap = book.cap_seen > 0 ? book.cap_seen * 2 : 4096;
		struct seen *table = calloc(cap, sizeof(*table));

		for (size_t i = 0; i < book.cap_seen; i++)
			if (book.seen[i].index != 0)
				*find(table, cap, book.seen[i].index, book.seen[i].term) = book.seen[i];
		free(book.seen);
		book.seen = table;
		book.cap_seen = cap;
	}
	at = find(book.seen, book.cap_seen, entry->index, entry->term);
	if (at->index == 0) {
		*at = (struct seen){ entry->index, entry->term, entry_hash(entry) };
		book.n_seen++;
	} else if (at->hash != entry_hash(entry)) {
		violation("entry %" PRIu64 " of term %" PRIu64 " has two contents", entry->index, entry->term);
	}
}

static struct done *done_at(uint64_t index)
{
	while (index >= book.cap_done) {
		size_t cap = book.cap_done > 0 ? book.cap_done * 2 : 4096;

		book.done = realloc(book.done, cap * sizeof(*book.done));
		memset(book.done + book.cap_done, 0, (cap - book.cap_done) * sizeof(*book.done));
		book.cap_done = cap;
	}
	return &book.done[index];
}

void check_applied(const struct entry *entry, uint64_t digest)
{
	struct done *done = done_at(entry->index); /* grows the table: first */
	struct done *before = done_at(entry->index - 1);

	if (done->term == 0) {
		if (entry->index != committed_last + 1)
			violation("entry %" PRIu64 " is applied, %" PRIu64 " was the last", entry->index,
				  committed_last);
		done->term = entry->term;
		done->hash = entry_hash(entry);
		done->digest = digest;
		done->conf_index = before->conf_index;
		done->conf = before->conf;
		if (entry->type == ENTRY_CHANGE) {
			done->conf_index = entry->index;
			if (conf_decode(entry->data, entry->len, &done->conf, NULL) != CODE_OK)
				violation("a malformed change was applied");
			for (unsigned i = 0; i < before->conf.n; i++)
				if (conf_get(&done->conf, before->conf.servers[i].id) == NULL)
					removed_at[before->conf.servers[i].id] = entry->index;
			counters.changes++;
		}
		committed_last = entry->index;
		counters.committed++;
		return;
	}
	if (done->term != entry->term || done->hash != entry_hash(entry) || done->digest != digest)
		violation("entry %" PRIu64 " is applied differently: term %" PRIu64 " and %" PRIu64, entry->index,
			  done->term, entry->term);
}

uint64_t committed_digest(uint64_t index)
{
	return done_at(index)->digest;
}

uint64_t committed_term(uint64_t index)
{
	return done_at(index)->term;
}

const struct core_triple *committed_triple(uint64_t index)
{
	static struct core_triple triple;
	struct done *done = done_at(index);

	triple = (struct core_triple){ index, done->term, done->conf_index, done->conf };
	return &triple;
}

void check_grown(uint64_t index, const struct conf *conf)
{
	struct done *done = done_at(index);

	done->conf = *conf;
	done->conf_index = index;
	counters.grown++;
}

void check_lost(uint64_t index, uint64_t term)
{
	book.lost = realloc(book.lost, (book.n_lost + 1) * sizeof(*book.lost));
	book.lost[book.n_lost].index = index;
	book.lost[book.n_lost++].term = term;
	counters.lost++;
}

/* What a leader holds to be committed is on the disks of a majority. */
void check_commit(struct node *node)
{
	struct core_status status;
	unsigned have = 0;
	uint64_t term;

	core_status(node->core, &status);
	if (node->checked_commit == UINT64_MAX)
		node->checked_commit = status.commit;
	if (status.commit <= node->checked_commit || status.now.role != CORE_LEADER)
		return;
	node->checked_commit = status.commit;
	term = core_term_of(node->core, status.commit);
	for (unsigned i = 0; i < status.conf.n; i++)
		have += status.conf.servers[i].role == CONF_VOTER &&
			disk_has(&nodes[status.conf.servers[i].id], status.commit, term);
	if (have <= conf_voters(&status.conf) / 2)
		violation("node %" PRIu64 " commits %" PRIu64 " of term %" PRIu64 ", which is on %u of %u disks",
			  node->id, status.commit, term, have, conf_voters(&status.conf));
}

void check_end(void)
{
	for (size_t i = 0; i < book.n_lost; i++)
		if (done_at(book.lost[i].index)->term == book.lost[i].term)
			violation("entry %" PRIu64 " of term %" PRIu64 " was called lost and is committed",
				  book.lost[i].index, book.lost[i].term);
	if (acked > committed_last)
		violation("index %" PRIu64 " was acknowledged, the last applied anywhere is %" PRIu64, acked,
			  committed_last);
}
