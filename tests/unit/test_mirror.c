/* SPDX-License-Identifier: Apache-2.0 */
/* The mirror of the log against a plain array of the same, under random writes, cuts and checkpoints. */
#include "base/rand.h"
#include "lib/test.h"
#include "raft/mirror.h"

#include <stdlib.h>

static struct conf conf_of(uint64_t id)
{
	struct conf conf = { 0 };

	conf_add(&conf, id, "x", CONF_VOTER, NULL);
	return conf;
}

static struct entry *make(uint64_t index, uint64_t term, uint8_t type)
{
	OWN_BUF bytes = { 0 };
	struct conf conf = conf_of(index);

	if (type == ENTRY_CHANGE)
		conf_encode(&conf, &bytes);
	else
		buf_printf(&bytes, "%d", (int)index);
	return entry_new(index, term, type, bytes.data, bytes.len);
}

static void write_one(struct mirror *mirror, uint64_t index, uint64_t term, uint8_t type)
{
	struct entry *entry = make(index, term, type);

	mirror_write(mirror, index, &entry, 1);
	entry_unref(entry);
}

TEST(terms_and_cuts)
{
	struct mirror *mirror = mirror_new(1 << 20);

	CHECK_NUM(mirror_last(mirror), 0);
	CHECK_NUM(mirror_last_term(mirror), 0);
	write_one(mirror, 1, 1, ENTRY_CHANGE);
	write_one(mirror, 2, 1, ENTRY_COMMAND);
	write_one(mirror, 3, 2, ENTRY_COMMAND);
	write_one(mirror, 4, 2, ENTRY_CHANGE);
	CHECK_NUM(mirror_term_of(mirror, 2), 1);
	CHECK_NUM(mirror_term_of(mirror, 3), 2);
	CHECK_NUM(mirror_term_of(mirror, 5), 0);
	CHECK_NUM(mirror_conf_last(mirror)->index, 4);
	CHECK_NUM(mirror_conf_at(mirror, 3)->index, 1);
	CHECK_NUM(mirror_conf_after(mirror, 1)->index, 4);
	CHECK(mirror_conf_after(mirror, 4) == NULL);
	write_one(mirror, 3, 5, ENTRY_COMMAND); /* cuts 3 and 4, and with them the change */
	CHECK_NUM(mirror_last(mirror), 3);
	CHECK_NUM(mirror_last_term(mirror), 5);
	CHECK_NUM(mirror_conf_last(mirror)->index, 1);
	mirror_mark(mirror, 3);
	CHECK_NUM(mirror_open_bytes(mirror), 0);
	mirror_snapshot(mirror, 3, 1);
	CHECK_NUM(mirror_first(mirror), 3);
	CHECK_NUM(mirror_term_of(mirror, 2), 0);
	CHECK_NUM(mirror_term_of(mirror, 3), 5);
	CHECK_NUM(mirror_conf_last(mirror)->index, 1);
	mirror_free(mirror);
}

TEST(budget_keeps_what_is_not_applied)
{
	struct mirror *mirror = mirror_new(1); /* nothing may stay that need not */
	struct entry *found[8];

	for (uint64_t i = 1; i <= 300; i++)
		write_one(mirror, i, 1, i == 1 ? ENTRY_CHANGE : ENTRY_COMMAND);
	CHECK(mirror_entry(mirror, 1) != NULL);
	mirror_mark(mirror, 200);
	CHECK(mirror_entry(mirror, 200) == NULL);
	CHECK_NUM(mirror_entries_at(mirror, 150, 8, SIZE_MAX, found), 0);
	CHECK_NUM(mirror_entries_at(mirror, 201, 8, SIZE_MAX, found), 8);
	CHECK_NUM(found[7]->index, 208);
	CHECK_NUM(mirror_entries_at(mirror, 201, 8, 1, found), 1); /* one at least */
	CHECK_NUM(mirror_entries_at(mirror, 299, 8, SIZE_MAX, found), 2);
	CHECK_NUM(mirror_term_of(mirror, 100), 1);
	mirror_free(mirror);
}

TEST(restore_replaces_all)
{
	struct mirror *mirror = mirror_new(1 << 20);
	struct core_triple base = { 50, 7, 40, conf_of(9) };

	write_one(mirror, 1, 1, ENTRY_CHANGE);
	write_one(mirror, 2, 1, ENTRY_COMMAND);
	mirror_restore(mirror, &base);
	CHECK_NUM(mirror_last(mirror), 50);
	CHECK_NUM(mirror_last_term(mirror), 7);
	CHECK_NUM(mirror_term_of(mirror, 2), 0);
	CHECK_NUM(mirror_conf_last(mirror)->index, 40);
	write_one(mirror, 51, 8, ENTRY_COMMAND);
	CHECK_NUM(mirror_last_term(mirror), 8);
	CHECK_NUM(mirror_term_of(mirror, 50), 7);
	mirror_free(mirror);
}

TEST(starts_with_a_state_in_the_middle_of_the_log)
{
	struct mirror *mirror = mirror_new(1 << 20);
	struct core_triple base = { 5, 2, 3, conf_of(3) };
	struct entry *log[6];

	for (uint64_t i = 0; i < 6; i++)
		log[i] = make(3 + i, i < 4 ? 2 : 4, i == 0 || i == 4 ? ENTRY_CHANGE : ENTRY_COMMAND);
	mirror_start(mirror, &base, 3, log, 6);
	CHECK_NUM(mirror_last(mirror), 8);
	CHECK_NUM(mirror_first(mirror), 3);
	CHECK_NUM(mirror_conf_at(mirror, 6)->index, 3);
	CHECK_NUM(mirror_conf_last(mirror)->index, 7);
	CHECK(mirror_open_bytes(mirror) > 0);
	for (int i = 0; i < 6; i++)
		entry_unref(log[i]);
	mirror_free(mirror);
}

TEST(against_a_plain_array)
{
	static uint64_t terms[4000];
	struct mirror *mirror = mirror_new(2000);
	uint64_t last = 1, mark = 0, first = 1, snapshot = 0, term = 1;

	rand_use_seed(11);
	write_one(mirror, 1, 1, ENTRY_CHANGE);
	terms[1] = 1;
	for (int step = 0; step < 6000 && last < 3990; step++) {
		uint64_t dice = rand_u64() % 20;

		if (dice == 0 && last > mark + 1) { /* a cut */
			last = mark + 1 + rand_u64() % (last - mark);
			write_one(mirror, last, ++term, ENTRY_COMMAND);
			terms[last] = term;
		} else if (dice == 1 && mark > snapshot) { /* a checkpoint */
			uint64_t trailing = rand_u64() % 50;

			snapshot += 1 + rand_u64() % (mark - snapshot);
			mirror_snapshot(mirror, snapshot, trailing);
			if (snapshot > trailing && snapshot - trailing + 1 > first)
				first = snapshot - trailing + 1;
		} else if (dice < 5) {
			mark += rand_u64() % (last - mark + 1);
			mirror_mark(mirror, mark);
		} else {
			term += rand_u64() % 10 == 0;
			terms[++last] = term;
			write_one(mirror, last, term, rand_u64() % 30 == 0 ? ENTRY_CHANGE : ENTRY_COMMAND);
		}
		CHECK_NUM(mirror_last(mirror), last);
		CHECK_NUM(mirror_first(mirror), first);
		for (uint64_t i = first; i <= last; i += 1 + (last - first) / 7)
			CHECK_NUM(mirror_term_of(mirror, i), terms[i]);
		for (uint64_t i = mark + 1; i <= last; i++)
			CHECK_NUM(mirror_entry(mirror, i)->index, i);
	}
	mirror_free(mirror);
}
