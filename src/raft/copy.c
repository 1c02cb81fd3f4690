/* SPDX-License-Identifier: Apache-2.0 */
/* Taking a copy of the state, and taking one in: see copy.h. A copy counts for nothing before copy_in_finish has
 * judged it: the bytes are those that were sent, the file is a sound state, and it stands where it should. */
#include "raft/copy.h"

#include "base/buf.h"
#include "base/fault.h"
#include "base/file.h"
#include "store/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 1 << 20 };

OWNABLE(EVP_MD_CTX, EVP_MD_CTX_free)
OWNABLE_STRUCT(store, store_close)

static EVP_MD_CTX *digest_new(void)
{
	EVP_MD_CTX *digest = EVP_MD_CTX_new();

	if (digest == NULL || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1)
		abort();
	return digest;
}

static void digest_add(EVP_MD_CTX *digest, const void *data, size_t len)
{
	if (EVP_DigestUpdate(digest, data, len) != 1)
		abort();
}

static void digest_end(EVP_MD_CTX *digest, uint8_t out[COPY_DIGEST])
{
	if (EVP_DigestFinal_ex(digest, out, NULL) != 1)
		abort();
}

/* --- taking --- */

static enum code digest_file(int fd, const char *path, struct copy_info *out, struct err *err)
{
	OWN(EVP_MD_CTX) digest = digest_new();
	OWN_BUF piece = { 0 };

	buf_reserve(&piece, PIECE);
	for (out->len = 0;;) {
		ssize_t n = file_pread(fd, piece.data, PIECE, out->len);

		if (n < 0)
			return err_errno(err, CODE_INTERNAL, errno, "read", path);
		if (n == 0)
			break;
		digest_add(digest, piece.data, (size_t)n);
		out->len += (uint64_t)n;
	}
	digest_end(digest, out->digest);
	return CODE_OK;
}

/* With a descriptor of its own, closed again before anybody opens the file with SQLite: closing it would drop the locks
 * that SQLite holds. */
static enum code sync_file(const char *path, struct err *err)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), why = errno;
	bool ok = fd >= 0;

	if (ok) {
		errno = EIO;
		ok = !fault_at("copy.sync") && fsync(fd) == 0;
		why = errno;
	}

	if (fd >= 0)
		close(fd);
	return ok ? CODE_OK : err_errno(err, CODE_INTERNAL, why, "sync", path);
}

enum code copy_take(const char *state_path, const char *to, bool (*go_on)(void *ctx), void *ctx, struct arena *arena,
		    struct copy_info *out, struct err *err)
{
	struct copy_info info = { 0 };
	enum code rc;
	int fd;

	TRY(store_copy(state_path, to, STORE_COPY_WAL_MAX, go_on, ctx, arena, &info.state, err));
	fd = open(to, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, CODE_INTERNAL, errno, "open", to);
	rc = digest_file(fd, to, &info, err);
	close(fd);
	if (rc == CODE_OK)
		rc = sync_file(to, err);
	if (rc != CODE_OK)
		unlink(to);
	else
		*out = info;
	return rc;
}

/* --- taking in --- */

struct copy_in {
	char *path;
	int fd;
	EVP_MD_CTX *digest;
	struct copy_info info; /* its configuration is a copy of ours */
	uint64_t received;
	bool finished;
};

enum code copy_in_open(const char *path, const struct copy_info *info, struct copy_in **out, struct err *err)
{
	OWN_STRUCT(copy_in) in = xcalloc(1, sizeof *in);

	in->info = *info;
	in->info.state.conf.data = xmemdup(info->state.conf.data, info->state.conf.len);
	in->path = xstrdup(path);
	in->digest = digest_new();
	store_remove_files(path);
	in->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (in->fd < 0)
		return err_errno(err, CODE_INTERNAL, errno, "open", path);
	*out = TAKE(in);
	return CODE_OK;
}

enum code copy_in_write(struct copy_in *in, const void *data, size_t len, struct err *err)
{
	if (len > in->info.len - in->received)
		return err_set(err, CODE_INVALID_ARGUMENT, "a copy of the state is longer than its %llu bytes",
			       (unsigned long long)in->info.len);
	errno = ENOSPC;
	if (fault_at("copy.write") || !file_pwrite(in->fd, data, len, in->received))
		return err_errno(err, errno == ENOSPC || errno == EDQUOT ? CODE_RESOURCE_EXHAUSTED : CODE_INTERNAL,
				 errno, "write", in->path);
	digest_add(in->digest, data, len);
	in->received += len;
	return CODE_OK;
}

uint64_t copy_in_received(const struct copy_in *in)
{
	return in->received;
}

static enum code check_bytes(struct copy_in *in, struct err *err)
{
	uint8_t digest[COPY_DIGEST];

	if (in->received != in->info.len)
		return err_set(err, CODE_DATA_LOSS, "a copy of the state ended after %llu of %llu bytes",
			       (unsigned long long)in->received, (unsigned long long)in->info.len);
	digest_end(in->digest, digest);
	if (memcmp(digest, in->info.digest, COPY_DIGEST) != 0)
		return err_set(err, CODE_DATA_LOSS, "a copy of the state has not the digest that was announced");
	return CODE_OK;
}

static enum code check_state(struct copy_in *in, const char *trust_domain, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN_STRUCT(store) store = NULL;
	const struct store_triple *want = &in->info.state;
	struct store_triple got;
	uint8_t kept[32], counted[32];

	TRY(store_open(in->path, trust_domain, &store, err));
	TRY(store_triple(store, arena, &got, err));
	if (got.index != want->index || got.term != want->term || got.conf_index != want->conf_index ||
	    got.conf.len != want->conf.len || memcmp(got.conf.data, want->conf.data, got.conf.len) != 0)
		return err_set(err, CODE_DATA_LOSS,
			       "a copy of the state stands at index %llu (term %llu), not at %llu (term %llu)",
			       (unsigned long long)got.index, (unsigned long long)got.term,
			       (unsigned long long)want->index, (unsigned long long)want->term);
	store_digest(store, kept);
	TRY(store_recount_digest(store, counted, err));
	if (memcmp(kept, counted, sizeof kept) != 0)
		return err_set(err, CODE_DATA_LOSS, "a copy of the state is damaged: its rows do not have its digest");
	return CODE_OK;
}

enum code copy_in_finish(struct copy_in *in, const char *trust_domain, struct err *err)
{
	enum code rc = check_bytes(in, err);

	close(in->fd); /* see sync_file */
	in->fd = -1;
	if (rc == CODE_OK)
		rc = check_state(in, trust_domain, err); /* has closed it: all is in the one file */
	if (rc == CODE_OK)
		rc = sync_file(in->path, err);
	if (rc != CODE_OK)
		store_remove_files(in->path);
	in->finished = true;
	return rc;
}

void copy_in_close(struct copy_in *in)
{
	if (in == NULL)
		return;
	if (in->fd >= 0)
		close(in->fd);
	if (!in->finished)
		store_remove_files(in->path);
	EVP_MD_CTX_free(in->digest);
	free((void *)in->info.state.conf.data);
	free(in->path);
	free(in);
}
