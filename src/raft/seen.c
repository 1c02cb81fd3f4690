/* SPDX-License-Identifier: Apache-2.0 */
/* One line a member, "MEMBER STARTS BOOT", then a line with the SHA-256 of those above it. Replaced as a whole:
 * temporary name, fsync, rename, fsync of the directory. It changes when a member starts, which is rare. */
#include "raft/seen.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/fault.h"
#include "base/log.h"

#include <openssl/sha.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_MAX = 1 << 20, DIGEST_HEX = 64 };

struct row {
	uint64_t member, starts;
	uint8_t boot[SEEN_BOOT_LEN];
};

struct seen {
	char *path;
	struct row *rows;
	size_t n;
};

static struct row *find(const struct seen *seen, uint64_t member)
{
	for (size_t i = 0; i < seen->n; i++)
		if (seen->rows[i].member == member)
			return &seen->rows[i];
	return NULL;
}

static struct row *add(struct seen *seen, uint64_t member)
{
	seen->rows = xrealloc(seen->rows, (seen->n + 1) * sizeof *seen->rows);
	seen->rows[seen->n] = (struct row){ .member = member };
	return &seen->rows[seen->n++];
}

/* --- reading --- */

static bool take_hex(const char *text, uint8_t *out, size_t len)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < 2 * len; i++) {
		const char *digit = text[i] != '\0' ? strchr(digits, text[i]) : NULL;

		if (digit == NULL)
			return false;
		out[i / 2] = (uint8_t)(out[i / 2] << 4 | (digit - digits));
	}
	return true;
}

static bool take_number(const char **at, uint64_t *out)
{
	char *end;

	if (**at < '0' || **at > '9')
		return false;
	errno = 0;
	*out = strtoull(*at, &end, 10);
	if (errno != 0 || *end != ' ')
		return false;
	*at = end + 1;
	return true;
}

static bool take_row(struct seen *seen, const char **at)
{
	struct row row = { 0 };

	if (!take_number(at, &row.member) || !take_number(at, &row.starts) || !take_hex(*at, row.boot, SEEN_BOOT_LEN) ||
	    (*at)[2 * SEEN_BOOT_LEN] != '\n' || find(seen, row.member) != NULL)
		return false;
	*at += 2 * SEEN_BOOT_LEN + 1;
	*add(seen, row.member) = row;
	return true;
}

static bool parse(struct seen *seen, struct buf *file)
{
	const char *at = buf_text(file), *end = at + file->len;
	uint8_t want[32] = { 0 }, digest[32];

	if (file->len < DIGEST_HEX + 1 || strlen(at) != file->len || end[-1] != '\n')
		return false;
	end -= DIGEST_HEX + 1;
	SHA256(file->data, (size_t)(end - at), digest);
	if (!take_hex(end, want, sizeof want) || memcmp(want, digest, sizeof want) != 0)
		return false;
	while (at < end)
		if (!take_row(seen, &at))
			return false;
	return at == end;
}

static enum code read_file(const char *path, struct buf *out, bool *missing, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum code rc = CODE_OK;

	*missing = fd < 0 && errno == ENOENT;
	if (*missing)
		return CODE_OK;
	if (fd < 0)
		return err_errno(err, CODE_INTERNAL, errno, "open", path);
	for (;;) {
		ssize_t n;

		buf_reserve(out, 4096);
		n = read(fd, out->data + out->len, 4096);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			rc = err_errno(err, CODE_INTERNAL, errno, "read", path);
		if (n <= 0 || out->len > FILE_MAX)
			break;
		out->len += (size_t)n;
	}
	close(fd);
	return rc;
}

enum code seen_open(const char *path, struct seen **out, struct err *err)
{
	OWN_STRUCT(seen) seen = xcalloc(1, sizeof *seen);
	OWN_BUF file = { 0 };
	bool missing;

	seen->path = xstrdup(path);
	TRY(read_file(path, &file, &missing, err));
	if (!missing && !parse(seen, &file))
		return err_set(err, CODE_DATA_LOSS,
			       "\"%s\" is damaged: restore it, or delete it (the other members' start numbers are then "
			       "learned anew, and one whose data directory was rolled back is not told from this node)",
			       path);
	*out = TAKE(seen);
	return CODE_OK;
}

void seen_close(struct seen *seen)
{
	if (seen == NULL)
		return;
	free(seen->path);
	free(seen->rows);
	free(seen);
}

bool seen_get(const struct seen *seen, uint64_t member, uint64_t *starts, uint8_t boot[SEEN_BOOT_LEN])
{
	const struct row *row = find(seen, member);

	if (row == NULL)
		return false;
	*starts = row->starts;
	memcpy(boot, row->boot, SEEN_BOOT_LEN);
	return true;
}

/* --- writing --- */

static void write_whole(const char *path, const struct buf *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	size_t at = 0;

	while (fd >= 0 && at < text->len) {
		ssize_t n = write(fd, text->data + at, text->len - at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		at += (size_t)n;
	}
	if (fd < 0 || at < text->len || fault_at("seen.sync") || fsync(fd) != 0)
		log_fatal("Cannot write what has been seen of the members", KV("path", path),
			  KV("error", strerror(errno)));
	close(fd);
}

static void sync_parent(const char *path)
{
	char *dir = xstrdup(path), *slash = strrchr(dir, '/');
	int fd;

	if (slash != NULL)
		*(slash == dir ? slash + 1 : slash) = '\0';
	fd = open(slash != NULL ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) != 0)
		log_fatal("Cannot sync a directory", KV("path", dir), KV("error", strerror(errno)));
	close(fd);
	free(dir);
}

static void store(const struct seen *seen)
{
	OWN_BUF text = { 0 }, temporary = { 0 };
	uint8_t digest[32];

	for (size_t i = 0; i < seen->n; i++) {
		const struct row *row = &seen->rows[i];

		buf_printf(&text, "%llu %llu ", (unsigned long long)row->member, (unsigned long long)row->starts);
		buf_hex(&text, row->boot, SEEN_BOOT_LEN);
		buf_put(&text, '\n');
	}
	SHA256(text.data, text.len, digest);
	buf_hex(&text, digest, sizeof digest);
	buf_put(&text, '\n');
	buf_printf(&temporary, "%s.tmp", seen->path);
	write_whole(buf_text(&temporary), &text);
	if (rename(buf_text(&temporary), seen->path) != 0)
		log_fatal("Cannot rename a file", KV("path", buf_text(&temporary)), KV("error", strerror(errno)));
	sync_parent(seen->path);
}

void seen_put(struct seen *seen, uint64_t member, uint64_t starts, const uint8_t boot[SEEN_BOOT_LEN])
{
	struct row *row = find(seen, member);

	if (row != NULL && starts <= row->starts)
		return;
	if (row == NULL)
		row = add(seen, member);
	row->starts = starts;
	memcpy(row->boot, boot, SEEN_BOOT_LEN);
	store(seen);
}
