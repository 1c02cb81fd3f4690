/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_READER_H
#define STORE_READER_H

#include "store/codec.h"
#include "store/db.h"
#include "store/view.h"

/* Inside of views. The read transaction is the step of a statement that has not been reset: it reads the meta row at
 * view_open and is reset by view_close. That costs half of BEGIN and COMMIT and tells the revision and the counts
 * besides. */

struct view {
	struct reader *reader;
	struct db *db;
	struct query meta;
	struct arena *arena; /* for what a view keeps; made at the first use */
	struct start *start; /* view_authorized.c: where the walk of the last agent begins */
};

struct reader {
	struct db *db;
	struct view view;
	bool open;
};

struct arena *view_arena(struct view *view);

/* Fills the row that a callback gets; its texts live in `texts`. */
enum code entry_row_fill(struct view *view, uint64_t seq, struct span blob, struct buf *texts, struct entry_row *out,
			 struct err *err);

/* The set of a filter, sorted and without duplicates; INTERNAL in SPIRE's words ("unhandled <what>match behavior") for
 * an unknown behaviour. */
enum code match_prepare(const Pb__SelectorMatch *match, const char *what, struct arena *arena, struct selector_set *out,
			struct err *err);

#endif
