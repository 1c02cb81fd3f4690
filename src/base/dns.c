/* SPDX-License-Identifier: Apache-2.0 */
/* DNS names of entries and minted SVIDs, as SPIRE accepts them. A name is never changed, only accepted or refused. */
#include "base/id.h"

#include "base/buf.h"
#include "base/gotext.h"
#include "base/idna.h"

#include <stdlib.h>
#include <string.h>

/* Without the blanks around it, which only the check overlooks. */
static enum code check_plain(const char *name, struct err *err)
{
	static const char blanks[] = " \t\n\v\f\r";
	size_t len;
	char *trimmed;
	enum code rc;

	name += strspn(name, blanks);
	for (len = strlen(name); len > 0 && strchr(blanks, name[len - 1]) != NULL;)
		len--;
	if (len == 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "empty or only whitespace");
	if (name[len - 1] == '.')
		return err_set(err, CODE_INVALID_ARGUMENT, "domain ends with dot");
	trimmed = xmemdup(name, len + 1);
	trimmed[len] = '\0';
	rc = idna_check(trimmed, err);
	free(trimmed);
	return rc;
}

enum code dns_check(const char *name, struct err *err)
{
	const char *star = strchr(name, '*');

	for (const char *c = name; *c != '\0'; c++)
		if ((unsigned char)*c >= 0x80)
			return err_set(err, CODE_INVALID_ARGUMENT, "name must be ascii");
	if (star == NULL)
		return check_plain(name, err);
	if (strchr(star + 1, '*') != NULL)
		return err_set(err, CODE_INVALID_ARGUMENT, "too many wildcards");
	if (strncmp(name, "*.", 2) != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "wildcard must be first label");
	return check_plain(name + 2, err);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum code overlap(const char *name, struct err *err)
{
	OWN_BUF quoted = { 0 };

	go_quote(&quoted, name);
	return err_set(err, CODE_INVALID_ARGUMENT,
		       "name %s overlaps with an existing wildcard name in the list: wildcard overlap",
		       buf_text(&quoted));
}

enum code dns_check_overlap(const char *const *names, size_t n, struct err *err)
{
	const char **wild = xmalloc(n * sizeof *wild); /* what follows the '*' of each, sorted */
	enum code rc = CODE_OK;
	size_t n_wild = 0;

	for (size_t i = 0; i < n; i++)
		if (names[i][0] == '*')
			wild[n_wild++] = names[i] + 1;
	qsort(wild, n_wild, sizeof *wild, by_text);
	for (size_t i = 0; i < n && rc == CODE_OK; i++) {
		const char *rest = names[i] + strcspn(names[i], ".");

		if (names[i][0] != '*' && bsearch(&rest, wild, n_wild, sizeof *wild, by_text) != NULL)
			rc = overlap(names[i], err);
	}
	free(wild);
	return rc;
}
