/* SPDX-License-Identifier: Apache-2.0 */
/* SPIFFE IDs: the rules of the SPIFFE standard as go-spiffe checks them, in its order, with its texts. A name or path
 * is never changed, only accepted or refused. */
#include "base/id.h"

#include <string.h>

static const char scheme[] = "spiffe://";
static const char td_chars[] = "abcdefghijklmnopqrstuvwxyz0123456789-._";
static const char path_chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._";

static enum code bad(const char *text, struct err *err)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "%s", text);
}

static enum code check_td(const char *td, size_t len, struct err *err)
{
	if (strspn(td, td_chars) < len)
		return bad("trust domain characters are limited to lowercase letters, numbers, dots, dashes, and "
			   "underscores",
			   err);
	if (len == 0)
		return bad("trust domain is missing", err);
	return CODE_OK;
}

static bool is_dots(const char *segment, size_t len)
{
	return (len == 1 && segment[0] == '.') || (len == 2 && segment[0] == '.' && segment[1] == '.');
}

static enum code check_path(const char *path, struct err *err)
{
	if (*path == '\0')
		return CODE_OK;
	if (*path != '/')
		return bad("path must have a leading slash", err);
	for (;;) {
		const char *segment = path + 1;
		size_t len = strspn(segment, path_chars);

		path = segment + len;
		if (*path != '/' && *path != '\0')
			return bad("path segment characters are limited to letters, numbers, dots, dashes, and "
				   "underscores",
				   err);
		if (len == 0)
			return bad(*path == '/' ? "path cannot contain empty segments"
						: "path cannot have a trailing slash",
				   err);
		if (is_dots(segment, len))
			return bad("path cannot contain dot segments", err);
		if (*path == '\0')
			return CODE_OK;
	}
}

enum code id_parse(const char *text, struct arena *arena, struct spiffe_id *out, struct err *err)
{
	size_t prefix = strlen(scheme), td_len;

	if (*text == '\0')
		return bad("cannot be empty", err);
	if (strncmp(text, scheme, prefix) != 0)
		return bad("scheme is missing or invalid", err);
	td_len = strcspn(text + prefix, "/");
	TRY(check_td(text + prefix, td_len, err));
	TRY(check_path(text + prefix + td_len, err));
	out->text = arena_strdup(arena, text);
	out->td = arena_strndup(arena, text + prefix, td_len);
	out->path = out->text + prefix + td_len;
	return CODE_OK;
}

enum code id_parse_td(const char *text, struct arena *arena, const char **td, struct err *err)
{
	struct spiffe_id id;

	if (strstr(text, ":/") == NULL) {
		TRY(check_td(text, strlen(text), err));
		*td = arena_strdup(arena, text);
		return CODE_OK;
	}
	TRY(id_parse(text, arena, &id, err));
	*td = id.td;
	return CODE_OK;
}

enum code id_from_parts(const char *td, const char *path, struct arena *arena, struct spiffe_id *out, struct err *err)
{
	const char *name;

	TRY(id_parse_td(td, arena, &name, err));
	TRY(check_path(path, err));
	out->td = name;
	out->text = arena_printf(arena, "%s%s%s", scheme, name, path);
	out->path = out->text + strlen(scheme) + strlen(name);
	return CODE_OK;
}

/* --- classes of SPIFFE IDs
 * ---------------------------------------------------------------------------------------------- */

static enum code not_a(const char *what, const struct spiffe_id *id, const char *td, const char *why, struct err *err)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "\"%s\" is not %s trust domain \"%s\"%s", id->text, what, td, why);
}

static enum code check_of(const struct spiffe_id *id, const char *td, const char *what, struct err *err)
{
	if (strcmp(id->td, td) != 0)
		return not_a("a member of", id, td, "", err);
	if (*id->path == '\0')
		return not_a(what, id, td, "; path is empty", err);
	return CODE_OK;
}

enum code id_check_member(const struct spiffe_id *id, const char *td, struct err *err)
{
	return check_of(id, td, "a member of", err);
}

enum code id_check_agent(const struct spiffe_id *id, const char *td, struct err *err)
{
	TRY(check_of(id, td, "an agent in", err));
	if (strncmp(id->path, "/spire/agent/", strlen("/spire/agent/")) != 0)
		return not_a("an agent in", id, td, "; path is not in the agent namespace", err);
	return CODE_OK;
}

enum code id_check_workload(const struct spiffe_id *id, const char *td, struct err *err)
{
	TRY(check_of(id, td, "a workload in", err));
	if (id_path_is_reserved(id->path))
		return not_a("a workload in", id, td, "; path is in the reserved namespace", err);
	return CODE_OK;
}

bool id_path_is_reserved(const char *path)
{
	size_t len = strlen("/spire");

	return strncmp(path, "/spire", len) == 0 && (path[len] == '\0' || path[len] == '/');
}

enum code id_check_segment(const char *segment, struct err *err)
{
	size_t len = strlen(segment);

	if (len == 0)
		return bad("path cannot contain empty segments", err);
	if (is_dots(segment, len))
		return bad("path cannot contain dot segments", err);
	if (strspn(segment, path_chars) < len)
		return bad("path segment characters are limited to letters, numbers, dots, dashes, and underscores",
			   err);
	return CODE_OK;
}
