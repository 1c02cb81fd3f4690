/* SPDX-License-Identifier: Apache-2.0 */
/* A file of two slots, a page each. A record goes into the slot that does not hold the last synced one and is synced:
 * from there on it counts. Then it is copied into the other slot, unsynced. So
 *   - what is overwritten is never the only good copy: a write that is cut short leaves the record before it;
 *   - at rest both slots hold the same: damage to one of them cannot bring an older record back to life.
 *
 *   slot: magic[8] crc32c[4] len[4] version[4] 0[4] number[8] owner[40] body     numbers little-endian; crc and len
 *   cover what follows the crc */
#include "raft/pair.h"

#include "base/arena.h"
#include "base/crc.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SLOT = 4096, CRC_AT = 8, LEN_AT = 12, VERSION_AT = 16, NUMBER_AT = 24, OWNER_AT = 32, BODY_AT = 72 };
enum { RECORD_MAX = BODY_AT + PAIR_BODY_MAX };

struct pair {
	struct pair_kind kind;
	int fd;
	unsigned synced; /* the slot that holds the record for sure */
	uint64_t number; /* of the record; rises by one */
	char owner[PAIR_OWNER_MAX];
	char *path;
};

enum slot_state { SLOT_GOOD, SLOT_BAD, SLOT_NEWER, SLOT_FOREIGN };

static uint32_t get32(const uint8_t *at)
{
	uint32_t number;

	memcpy(&number, at, 4);
	return le32toh(number);
}

static void put32(uint8_t *at, uint32_t number)
{
	number = htole32(number);
	memcpy(at, &number, 4);
}

static uint64_t get64(const uint8_t *at)
{
	return get32(at) | (uint64_t)get32(at + 4) << 32;
}

static void put64(uint8_t *at, uint64_t number)
{
	put32(at, (uint32_t)number);
	put32(at + 4, (uint32_t)(number >> 32));
}

static size_t encode(const struct pair *pair, const void *body, uint8_t out[RECORD_MAX])
{
	size_t len = BODY_AT + pair->kind.body_len;

	memset(out, 0, len);
	memcpy(out, pair->kind.magic, 8);
	put32(out + LEN_AT, (uint32_t)len);
	put32(out + VERSION_AT, pair->kind.version);
	put64(out + NUMBER_AT, pair->number);
	memcpy(out + OWNER_AT, pair->owner, PAIR_OWNER_MAX);
	memcpy(out + BODY_AT, body, pair->kind.body_len);
	put32(out + CRC_AT, crc32c(0, out + LEN_AT, len - LEN_AT));
	return len;
}

static enum slot_state inspect(const struct pair *pair, const uint8_t *slot, size_t got)
{
	uint32_t len;

	if (got < BODY_AT || memcmp(slot, pair->kind.magic, 8) != 0)
		return SLOT_BAD;
	len = get32(slot + LEN_AT);
	if (len < BODY_AT || len > got || crc32c(0, slot + LEN_AT, len - LEN_AT) != get32(slot + CRC_AT))
		return SLOT_BAD;
	if (get32(slot + VERSION_AT) > pair->kind.version)
		return SLOT_NEWER;
	if (len != BODY_AT + pair->kind.body_len)
		return SLOT_BAD;
	return memcmp(slot + OWNER_AT, pair->owner, PAIR_OWNER_MAX) == 0 ? SLOT_GOOD : SLOT_FOREIGN;
}

static enum code read_slots(struct pair *pair, uint8_t slots[2][RECORD_MAX], enum slot_state states[2], struct err *err)
{
	for (int i = 0; i < 2; i++) {
		ssize_t got = file_pread(pair->fd, slots[i], RECORD_MAX, (uint64_t)i * SLOT);

		if (got < 0)
			return err_errno(err, CODE_INTERNAL, errno, "read", pair->path);
		states[i] = inspect(pair, slots[i], (size_t)got);
	}
	for (int i = 0; i < 2; i++) {
		if (states[i] == SLOT_NEWER)
			return err_set(err, CODE_UNIMPLEMENTED,
				       "%s \"%s\" has format %u, this version knows up to %u: start the newer version",
				       pair->kind.what, pair->path, get32(slots[i] + VERSION_AT), pair->kind.version);
		if (states[i] == SLOT_FOREIGN)
			return err_set(err, CODE_FAILED_PRECONDITION,
				       "%s \"%s\" belongs to node %.*s, not to this node (%s): the data directory was "
				       "mixed with another node's",
				       pair->kind.what, pair->path, PAIR_OWNER_MAX - 1,
				       (const char *)slots[i] + OWNER_AT, pair->owner);
	}
	if (states[0] == SLOT_BAD && states[1] == SLOT_BAD)
		return err_set(err, CODE_DATA_LOSS, "%s \"%s\" is damaged: replace this node (remove it, join again)",
			       pair->kind.what, pair->path);
	return CODE_OK;
}

static enum code load(struct pair *pair, void *body, struct err *err)
{
	uint8_t slots[2][RECORD_MAX];
	enum slot_state states[2];

	TRY(read_slots(pair, slots, states, err));
	if (states[0] == SLOT_BAD || states[1] == SLOT_BAD)
		log_warn("One copy of a record is damaged; the other one is used", KV("path", pair->path));
	pair->synced = states[0] == SLOT_BAD ||
		       (states[1] == SLOT_GOOD && get64(slots[1] + NUMBER_AT) > get64(slots[0] + NUMBER_AT));
	/* what a killed process wrote may be in memory only */
	if (fdatasync(pair->fd) != 0)
		return err_errno(err, CODE_INTERNAL, errno, "sync", pair->path);
	pair->number = get64(slots[pair->synced] + NUMBER_AT);
	memcpy(body, slots[pair->synced] + BODY_AT, pair->kind.body_len);
	return CODE_OK;
}

static enum code make_file(struct pair *pair, const char *temporary, const void *body, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	uint8_t *pages = arena_zalloc(arena, 2 * SLOT);

	(void)encode(pair, body, pages);
	(void)encode(pair, body, pages + SLOT);
	pair->fd = open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (pair->fd < 0)
		return err_errno(err, CODE_INTERNAL, errno, "open", temporary);
	if (!file_pwrite(pair->fd, pages, 2 * SLOT, 0) || fsync(pair->fd) != 0)
		return err_errno(err, CODE_INTERNAL, errno, "write", temporary);
	if (rename(temporary, pair->path) != 0 || !file_sync_parent(pair->path))
		return err_errno(err, CODE_INTERNAL, errno, "rename", temporary);
	return CODE_OK;
}

enum code pair_open(const char *path, const struct pair_kind *kind, const char *owner, bool make, void *body,
		    struct pair **out, struct err *err)
{
	OWN_STRUCT(pair) pair = xcalloc(1, sizeof *pair);
	OWN_STRUCT(arena) arena = arena_new();

	assert(kind->body_len <= PAIR_BODY_MAX && strlen(owner) < PAIR_OWNER_MAX);
	pair->kind = *kind;
	pair->path = xstrdup(path);
	strcpy(pair->owner, owner);
	pair->fd = open(path, O_RDWR | O_CLOEXEC);
	if (pair->fd >= 0) {
		TRY(load(pair, body, err));
	} else if (errno != ENOENT) {
		return err_errno(err, CODE_INTERNAL, errno, "open", path);
	} else if (!make) {
		return err_set(err, CODE_NOT_FOUND, "%s \"%s\" is missing", kind->what, path);
	} else {
		TRY(make_file(pair, arena_printf(arena, "%s.tmp", path), body, err));
	}
	*out = TAKE(pair);
	return CODE_OK;
}

void pair_close(struct pair *pair)
{
	if (pair == NULL)
		return;
	if (pair->fd >= 0)
		close(pair->fd);
	free(pair->path);
	free(pair);
}

static void put(struct pair *pair, unsigned slot, const uint8_t *record, size_t len)
{
	if (fault_at(pair->kind.write_fault))
		errno = EIO;
	else if (file_pwrite(pair->fd, record, len, (uint64_t)slot * SLOT))
		return;
	log_fatal("Disk failed", KV("path", pair->path), KV("step", "write"), KV("error", strerror(errno)));
}

void pair_write(struct pair *pair, const void *body)
{
	uint8_t record[RECORD_MAX];
	unsigned slot = pair->synced ^ 1;
	size_t len;

	pair->number++;
	len = encode(pair, body, record);
	put(pair, slot, record, len);
	errno = EIO;
	if (fault_at(pair->kind.sync_fault) || fdatasync(pair->fd) != 0)
		log_fatal("Disk failed", KV("path", pair->path), KV("step", "sync"), KV("error", strerror(errno)));
	pair->synced = slot;
	put(pair, slot ^ 1, record, len);
}
