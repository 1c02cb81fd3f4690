/* SPDX-License-Identifier: Apache-2.0 */
/* KeyManagers "memory" and "disk". The disk one rewrites its whole file at each new key: temporary file beside it,
 * fsync, rename, fsync of the directory. A crash at any instant leaves the old file or the new one, and perhaps a
 * temporary file, which the next write replaces. The table in memory changes only after the file did. */

#include "ca/key.h"

#include "base/arena.h"
#include "base/fault.h"
#include "ca/signer.h"

#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/x509.h>

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 4 << 20 }; /* a keys file: some hundred bytes a key */

OWNABLE(PKCS8_PRIV_KEY_INFO, PKCS8_PRIV_KEY_INFO_free)
OWNABLE(json_t, json_decref)

struct entry {
	char *id;
	EVP_PKEY *key;
};

struct key_manager {
	pthread_mutex_t lock;  /* guards the table, and the file's order of writes */
	char *path;            /* NULL: "memory" */
	struct entry *entries; /* sorted by id */
	size_t n_entries;
};

static void entries_free(struct entry *entries, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(entries[i].id);
		EVP_PKEY_free(entries[i].key);
	}
	free(entries);
}

static void wipe(struct buf *buf)
{
	if (buf->data != NULL)
		OPENSSL_cleanse(buf->data, buf->cap);
	buf_done(buf);
}

/* ---- reading ---- */

static enum code read_whole(const char *path, struct buf *out, bool *missing, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	*missing = false;
	if (fd < 0) {
		if (errno == ENOENT) {
			*missing = true;
			return CODE_OK;
		}
		return err_errno(err, CODE_INTERNAL, errno, "open", path);
	}
	do {
		buf_reserve(out, 64 << 10);
		got = read(fd, out->data + out->len, out->cap - out->len);
		if (got > 0)
			out->len += (size_t)got;
	} while ((got > 0 || (got < 0 && errno == EINTR)) && out->len <= FILE_MAX);
	if (got < 0) {
		int number = errno;

		close(fd);
		return err_errno(err, CODE_INTERNAL, number, "read", path);
	}
	close(fd);
	if (out->len > FILE_MAX)
		return err_set(err, CODE_INTERNAL, "keys file \"%s\" is larger than %d bytes", path, FILE_MAX);
	return CODE_OK;
}

static enum code parse_key(const char *id, const char *text, size_t len, EVP_PKEY **out, struct err *err)
{
	__attribute__((cleanup(wipe))) struct buf der = { 0 };
	OWN(PKCS8_PRIV_KEY_INFO) info = NULL;
	OWN(EVP_PKEY) key = NULL;
	const uint8_t *at;
	enum key_type type;

	bool decoded = buf_unbase64(&der, text, len, 0);

	OPENSSL_cleanse((char *)text, len); /* the JSON reader's own copy of a private key */
	if (!decoded)
		return err_set(err, CODE_INTERNAL, "unable to decode keys JSON: key \"%s\" is not base64", id);
	at = der.data;
	info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &at, (long)der.len);
	if (info == NULL || at != der.data + der.len)
		return err_crypto(err, CODE_INTERNAL, "unable to parse key \"%s\"", id);
	key = EVP_PKCS82PKEY(info);
	if (key == NULL)
		return err_crypto(err, CODE_INTERNAL, "unable to parse key \"%s\"", id);
	if (key_type_of(key, &type, err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL, "unable to make key entry for key \"%s\"", id);
	*out = TAKE(key);
	return CODE_OK;
}

static int compare_entries(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->id, ((const struct entry *)b)->id);
}

static enum code parse_file(struct key_manager *manager, const struct buf *text, struct err *err)
{
	json_error_t problem;
	OWN(json_t) root = json_loadb((const char *)text->data, text->len, JSON_REJECT_DUPLICATES, &problem);
	const char *id;
	json_t *keys, *value;

	if (root == NULL)
		return err_set(err, CODE_INTERNAL, "unable to decode keys JSON: \"%s\" line %d: %s", manager->path,
			       problem.line, problem.text);
	if (!json_is_object(root))
		return err_set(err, CODE_INTERNAL, "unable to decode keys JSON: \"%s\" does not hold an object",
			       manager->path);
	keys = json_object_get(root, "keys");
	if (keys == NULL || json_is_null(keys))
		return CODE_OK;
	if (!json_is_object(keys))
		return err_set(err, CODE_INTERNAL, "unable to decode keys JSON: \"keys\" in \"%s\" is not an object",
			       manager->path);
	manager->entries = xcalloc(json_object_size(keys) + 1, sizeof *manager->entries);
	json_object_foreach(keys, id, value)
	{
		struct entry *entry = &manager->entries[manager->n_entries];

		if (!json_is_string(value))
			return err_set(err, CODE_INTERNAL, "unable to decode keys JSON: key \"%s\" is not a string",
				       id);
		TRY(parse_key(id, json_string_value(value), json_string_length(value), &entry->key, err));
		entry->id = xstrdup(id);
		manager->n_entries++;
	}
	qsort(manager->entries, manager->n_entries, sizeof *manager->entries, compare_entries);
	return CODE_OK;
}

/* ---- writing ---- */

static enum code encode_key(const struct entry *entry, struct buf *out, struct err *err)
{
	OWN(PKCS8_PRIV_KEY_INFO) info = EVP_PKEY2PKCS8(entry->key);
	uint8_t *der = NULL;
	int len = info == NULL ? -1 : i2d_PKCS8_PRIV_KEY_INFO(info, &der);

	if (len <= 0)
		return err_crypto(err, CODE_INTERNAL, "cannot encode key \"%s\"", entry->id);
	buf_base64(out, der, (size_t)len, 0);
	OPENSSL_clear_free(der, (size_t)len);
	return CODE_OK;
}

/* The same bytes as SPIRE's: tabs, keys in order, no newline at the end. */
static enum code encode_file(const struct entry *entries, size_t n, struct buf *out, struct err *err)
{
	buf_reserve(out, 256 + n * 4096); /* mostly no reallocation, which would leave keys behind in freed memory */
	buf_puts(out, n == 0 ? "{\n\t\"keys\": {" : "{\n\t\"keys\": {\n");
	for (size_t i = 0; i < n; i++) {
		OWN(json_t) id = json_string(entries[i].id);
		char *quoted = json_dumps(id, JSON_ENCODE_ANY);

		buf_puts(out, "\t\t");
		buf_puts(out, quoted == NULL ? "\"\"" : quoted);
		free(quoted);
		buf_puts(out, ": \"");
		TRY(encode_key(&entries[i], out, err));
		buf_puts(out, i + 1 < n ? "\",\n" : "\"\n\t");
	}
	buf_puts(out, "}\n}");
	return CODE_OK;
}

static enum code write_all(int fd, const struct buf *data)
{
	size_t done = 0;

	while (done < data->len) {
		ssize_t wrote = write(fd, data->data + done, data->len - done);

		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote < 0)
			return CODE_INTERNAL;
		done += (size_t)wrote;
	}
	if (fault_at("keys.fsync")) {
		errno = EIO;
		return CODE_INTERNAL;
	}
	return fsync(fd) == 0 ? CODE_OK : CODE_INTERNAL;
}

static enum code sync_directory(const char *path, struct err *err)
{
	char *copy = xstrdup(path);
	const char *directory = dirname(copy);
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	enum code rc = CODE_OK;

	if (fd < 0 || fsync(fd) != 0)
		rc = err_errno(err, CODE_INTERNAL, errno, fd < 0 ? "open" : "fsync", directory);
	if (fd >= 0)
		close(fd);
	free(copy);
	return rc;
}

static enum code write_temporary(const char *temporary, const struct buf *data, struct err *err)
{
	int fd, number;
	enum code rc;

	if (unlink(temporary) != 0 && errno != ENOENT) /* left by a crash, maybe with other permissions */
		return err_errno(err, CODE_INTERNAL, errno, "remove", temporary);
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(err, CODE_INTERNAL, errno, "open", temporary);
	rc = write_all(fd, data);
	number = errno;
	if (close(fd) != 0 && rc == CODE_OK) {
		rc = CODE_INTERNAL;
		number = errno;
	}
	return rc == CODE_OK ? CODE_OK : err_errno(err, CODE_INTERNAL, number, "write", temporary);
}

static enum code write_file(const char *path, const struct entry *entries, size_t n, struct err *err)
{
	__attribute__((cleanup(wipe))) struct buf text = { 0 };
	OWN_BUF temporary = { 0 };

	TRY(encode_file(entries, n, &text, err));
	buf_printf(&temporary, "%s.tmp", path);
	TRY(write_temporary(buf_text(&temporary), &text, err));
	if (fault_at("keys.rename"))
		return err_errno(err, CODE_INTERNAL, EIO, "rename", path);
	if (rename(buf_text(&temporary), path) != 0)
		return err_errno(err, CODE_INTERNAL, errno, "rename", path);
	return sync_directory(path, err);
}

/* ---- the manager ---- */

static struct key_manager *manager_new(const char *path)
{
	struct key_manager *manager = xcalloc(1, sizeof *manager);

	pthread_mutex_init(&manager->lock, NULL);
	manager->path = path == NULL ? NULL : xstrdup(path);
	return manager;
}

enum code key_manager_open_memory(struct key_manager **out, struct err *err)
{
	(void)err;
	*out = manager_new(NULL);
	return CODE_OK;
}

/* Without this a server would start, and fail at its first key only. */
static enum code check_directory(const char *path, struct err *err)
{
	char *copy = xstrdup(path);
	const char *directory = dirname(copy);
	struct stat st;
	enum code rc = CODE_OK;

	if (stat(directory, &st) != 0)
		rc = err_errno(err, CODE_INTERNAL, errno, "stat", directory);
	else if (!S_ISDIR(st.st_mode))
		rc = err_errno(err, CODE_INTERNAL, ENOTDIR, "stat", directory);
	free(copy);
	return rc;
}

OWNABLE_STRUCT(key_manager, key_manager_close)

enum code key_manager_open_disk(const char *path, struct key_manager **out, struct err *err)
{
	__attribute__((cleanup(wipe))) struct buf text = { 0 };
	OWN_STRUCT(key_manager) manager = manager_new(path);
	bool missing;

	if (path[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "keys_path is required");
	TRY(check_directory(path, err));
	TRY(read_whole(path, &text, &missing, err));
	if (!missing)
		TRY(parse_file(manager, &text, err));
	*out = TAKE(manager);
	return CODE_OK;
}

void key_manager_close(struct key_manager *manager)
{
	if (manager == NULL)
		return;
	entries_free(manager->entries, manager->n_entries);
	pthread_mutex_destroy(&manager->lock);
	free(manager->path);
	free(manager);
}

static struct entry *find(const struct key_manager *manager, const char *id)
{
	struct entry wanted = { .id = (char *)id };

	if (manager->n_entries == 0)
		return NULL;
	return bsearch(&wanted, manager->entries, manager->n_entries, sizeof *manager->entries, compare_entries);
}

/* The table as it will be: a copy with `key` under `id`. */
static struct entry *table_with(const struct key_manager *manager, const char *id, EVP_PKEY *key, size_t *n)
{
	struct entry *table = xcalloc(manager->n_entries + 1, sizeof *table);

	*n = 0;
	for (size_t i = 0; i < manager->n_entries; i++) {
		if (strcmp(manager->entries[i].id, id) == 0)
			continue;
		table[*n].id = xstrdup(manager->entries[i].id);
		table[*n].key = manager->entries[i].key;
		EVP_PKEY_up_ref(table[(*n)++].key);
	}
	table[*n].id = xstrdup(id);
	table[*n].key = key;
	EVP_PKEY_up_ref(table[(*n)++].key);
	qsort(table, *n, sizeof *table, compare_entries);
	return table;
}

enum code key_manager_generate(struct key_manager *manager, const char *id, enum key_type type, EVP_PKEY **out,
			       struct err *err)
{
	OWN(EVP_PKEY) key = NULL;
	struct entry *table;
	size_t n;
	enum code rc = CODE_OK;

	TRY(key_generate(type, &key, err)); /* outside the lock: RSA-4096 takes its time */
	pthread_mutex_lock(&manager->lock);
	table = table_with(manager, id, key, &n);
	if (manager->path != NULL)
		rc = write_file(manager->path, table, n, err);
	if (rc == CODE_OK) {
		struct entry *former = manager->entries;
		size_t n_former = manager->n_entries;

		manager->entries = table;
		manager->n_entries = n;
		entries_free(former, n_former);
	} else {
		entries_free(table, n);
		err_wrap(err, rc, "unable to write entries");
	}
	pthread_mutex_unlock(&manager->lock);
	if (rc == CODE_OK)
		*out = TAKE(key);
	return rc;
}

enum code key_manager_get(struct key_manager *manager, const char *id, EVP_PKEY **out, struct err *err)
{
	const struct entry *entry;
	EVP_PKEY *key = NULL;

	pthread_mutex_lock(&manager->lock);
	entry = find(manager, id);
	if (entry != NULL) {
		key = entry->key;
		EVP_PKEY_up_ref(key);
	}
	pthread_mutex_unlock(&manager->lock);
	if (key == NULL)
		return err_set(err, CODE_NOT_FOUND, "no such key \"%s\"", id);
	*out = key;
	return CODE_OK;
}
