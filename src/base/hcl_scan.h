/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_HCL_SCAN_H
#define BASE_HCL_SCAN_H

#include "base/buf.h"
#include "base/hcl.h"

/* The words of HCL and JSON, for hcl.c alone. */

enum hcl_word {
	WORD_EOF,
	WORD_IDENT,
	WORD_NUMBER,
	WORD_FLOAT,
	WORD_BOOL,
	WORD_STRING,
	WORD_HEREDOC,
	WORD_NULL, /* JSON */
	WORD_LBRACK,
	WORD_RBRACK,
	WORD_LBRACE,
	WORD_RBRACE,
	WORD_COMMA,
	WORD_ASSIGN, /* HCL */
	WORD_COLON,  /* JSON */
	WORD_OTHER,  /* + - . */
};

struct hcl_token {
	enum hcl_word word;
	struct hcl_pos pos;
	const char *text; /* of the words from WORD_IDENT to WORD_HEREDOC: decoded, in the arena */
};

struct hcl_scan {
	const char *data; /* checked: UTF-8, no NUL, and in HCL no CR before LF */
	size_t len, at;
	struct hcl_pos pos; /* of data[at] */
	bool json;
	struct arena *arena;
	struct buf buf; /* the string that is being read; hcl_scan_done frees it */
};

/* Checks the whole input, picks the language. */
enum code hcl_scan_init(struct hcl_scan *scan, const char *data, size_t len, struct arena *arena, struct err *err);
void hcl_scan_done(struct hcl_scan *scan);

/* The next word; blanks and comments are skipped. Behind the end it answers WORD_EOF for ever. */
enum code hcl_scan(struct hcl_scan *scan, struct hcl_token *out, struct err *err);

const char *hcl_word_name(enum hcl_word word); /* "RBRACE" */
enum code hcl_error(struct hcl_pos pos, struct err *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
