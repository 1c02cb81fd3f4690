/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of the configuration file, and paths. */
#include "base/config_raw.h"

#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum code too_large(const char *path, struct err *err)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "%s is larger than %d bytes", path, LIMIT_CONFIG);
}

static enum code read_all(int fd, const char *path, struct buf *out, struct err *err)
{
	for (;;) {
		ssize_t n;

		buf_reserve(out, 1 << 16);
		n = read(fd, out->data + out->len, 1 << 16);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(err, CODE_INVALID_ARGUMENT, errno, "read", path);
		if (n == 0)
			return CODE_OK;
		out->len += (size_t)n;
		if (out->len > LIMIT_CONFIG)
			return too_large(path, err);
	}
}

static bool is_special(char c)
{
	return c != '\0' && strchr("*#$@!?-0123456789", c) != NULL;
}

static bool is_name(char c)
{
	return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* The variable that text[0..len), behind a '$', names, and how many bytes that takes; *name_len 0 when it names none.
 * Bad forms ("${}", "${" without an end) are eaten, as Go's os.Expand eats them. */
static size_t shell_name(const char *text, size_t len, const char **name, size_t *name_len)
{
	*name = text;
	*name_len = 0;
	if (len > 0 && text[0] == '{') {
		const char *end = len > 2 && is_special(text[1]) && text[2] == '}' ? text + 2 : memchr(text, '}', len);

		if (end == NULL)
			return 1;
		*name = text + 1;
		*name_len = (size_t)(end - text) - 1;
		return *name_len + 2;
	}
	if (len > 0 && is_special(text[0]))
		*name_len = 1;
	else
		while (*name_len < len && is_name(text[*name_len]))
			++*name_len;
	return *name_len;
}

static void put_variable(struct buf *out, struct arena *arena, const char *name, size_t len)
{
	const char *value = len == 1 && name[0] == '$' ? "$" : getenv(arena_strndup(arena, name, len));

	if (value != NULL)
		buf_puts(out, value);
}

static enum code expand(const struct buf *in, const char *path, struct arena *arena, struct buf *out, struct err *err)
{
	const char *data = (const char *)in->data, *end = data + in->len;
	const char *last_brace = in->len > 0 ? memrchr(data, '}', in->len) : NULL;

	for (const char *at = data; at < end;) {
		const char *dollar = memchr(at, '$', (size_t)(end - at)), *name;
		size_t name_len, used;

		if (dollar == NULL || dollar + 1 == end)
			dollar = end;
		buf_append(out, at, (size_t)(dollar - at));
		if (dollar == end)
			break;
		at = dollar + 1;
		if (*at == '{' && (last_brace == NULL || last_brace < at)) { /* else each one would look to the end */
			at++;
			continue;
		}
		used = shell_name(at, (size_t)(end - at), &name, &name_len);
		if (used == 0)
			buf_put(out, '$');
		else if (name_len > 0)
			put_variable(out, arena, name, name_len);
		at += used;
		if (out->len > LIMIT_CONFIG)
			return too_large(path, err);
	}
	return CODE_OK;
}

enum code read_config_file(const char *path, bool expand_env, struct arena *arena, struct span *out, struct err *err)
{
	OWN_BUF raw = { 0 };
	OWN_BUF expanded = { 0 };
	const struct buf *text = &raw;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum code rc;

	if (fd < 0)
		return err_errno(err, errno == ENOENT ? CODE_NOT_FOUND : CODE_INVALID_ARGUMENT, errno, "open", path);
	rc = read_all(fd, path, &raw, err);
	close(fd);
	TRY(rc);
	if (expand_env) {
		TRY(expand(&raw, path, arena, &expanded, err));
		text = &expanded;
	}
	out->data = arena_alloc(arena, text->len);
	out->len = text->len;
	if (text->len > 0)
		memcpy((void *)(uintptr_t)out->data, text->data, text->len);
	return CODE_OK;
}

/* Puts one component of a rooted path; ".." takes the last one away. */
static void put_component(struct buf *out, const char *name, size_t len)
{
	if (len == 0 || (len == 1 && name[0] == '.'))
		return;
	if (len == 2 && name[0] == '.' && name[1] == '.') {
		while (out->len > 0 && out->data[--out->len] != '/')
			;
		return;
	}
	buf_put(out, '/');
	buf_append(out, name, len);
}

static void put_components(struct buf *out, const char *path)
{
	for (;;) {
		size_t len = strcspn(path, "/");

		put_component(out, path, len);
		if (path[len] == '\0')
			return;
		path += len + 1;
	}
}

enum code absolute_path(struct arena *arena, const char *path, const char **out, struct err *err)
{
	OWN_BUF clean = { 0 };

	if (path[0] != '/') {
		char *cwd = getcwd(NULL, 0);

		if (cwd == NULL)
			return err_errno(err, CODE_INTERNAL, errno, "getwd", ".");
		put_components(&clean, cwd);
		free(cwd);
	}
	put_components(&clean, path);
	if (clean.len == 0)
		buf_put(&clean, '/');
	*out = arena_strdup(arena, buf_text(&clean));
	return CODE_OK;
}
