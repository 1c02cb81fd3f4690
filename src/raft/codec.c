/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between cores: see codec.h. A message is its kind (1 byte), its version (1 byte), and fixed fields in little
 * endian; nothing may be left over. Versions are those that the library sets; it relies on them. */
#include "raft/codec.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

struct kind {
	const char *name;
	uint8_t version;
	size_t max;
};

enum { HEAD = 2, NUMBER = 8, ENTRY_HEAD = 8 + 1 + 4, CONF_BYTES = 16 + CONF_MAX * (8 + CONF_ADDRESS_MAX + 2) };

static const struct kind kinds[] = {
	[PEER_APPEND] = { "append", 0, PEER_MESSAGE_MAX },
	[PEER_APPEND_RESULT] = { "append result", 2, HEAD + 3 * NUMBER + 4 },
	[PEER_VOTE] = { "vote", 2, HEAD + 4 * NUMBER + 2 },
	[PEER_VOTE_RESULT] = { "vote result", 2, HEAD + NUMBER + 2 + 4 },
	[PEER_SNAPSHOT] = { "snapshot", 0, HEAD + 4 * NUMBER + 4 + CONF_BYTES },
	[PEER_TIMEOUT_NOW] = { "timeout now", 0, HEAD + 3 * NUMBER },
	[PEER_PROBE] = { "probe", 0, HEAD + 2 * NUMBER },
	[PEER_PROBE_ACK] = { "probe answer", 0, HEAD + 2 * NUMBER },
};

size_t peer_size_max(uint8_t kind)
{
	return kind >= PEER_APPEND && kind <= PEER_PROBE_ACK ? kinds[kind].max : 0;
}

static void put(struct buf *out, uint64_t value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		buf_put(out, (uint8_t)(value >> (8 * i)));
}

static void encode_append(const struct peer_message *message, struct buf *out)
{
	assert(message->append.n <= PEER_ENTRIES_MAX);
	put(out, message->append.prev_index, 8);
	put(out, message->append.prev_term, 8);
	put(out, message->append.commit, 8);
	put(out, message->append.n, 4);
	for (unsigned i = 0; i < message->append.n; i++) {
		const struct entry *entry = message->append.entries[i];

		put(out, entry->term, 8);
		put(out, entry->type, 1);
		put(out, entry->len, 4);
		buf_append(out, entry->data, entry->len);
	}
}

static void encode_snapshot(const struct peer_message *message, struct buf *out)
{
	OWN_BUF conf = { 0 };

	conf_encode(&message->snapshot.conf, &conf);
	put(out, message->snapshot.index, 8);
	put(out, message->snapshot.term, 8);
	put(out, message->snapshot.conf_index, 8);
	put(out, conf.len, 4);
	buf_append(out, conf.data, conf.len);
}

void peer_encode(const struct peer_message *message, struct buf *out)
{
	buf_put(out, (uint8_t)message->kind);
	buf_put(out, kinds[message->kind].version);
	put(out, message->term, 8);
	switch (message->kind) {
	case PEER_APPEND:
		encode_append(message, out);
		break;
	case PEER_APPEND_RESULT:
		put(out, message->append_result.rejected, 8);
		put(out, message->append_result.last_index, 8);
		put(out, message->append_result.features, 2);
		put(out, message->append_result.capacity, 2);
		break;
	case PEER_VOTE:
		put(out, message->vote.candidate, 8);
		put(out, message->vote.last_index, 8);
		put(out, message->vote.last_term, 8);
		put(out, message->vote.disrupt_leader, 1);
		put(out, 0, 1); /* no pre-vote: R20 */
		break;
	case PEER_VOTE_RESULT:
		put(out, message->vote_result.granted, 1);
		put(out, 0, 1);
		put(out, message->vote_result.features, 2);
		put(out, message->vote_result.capacity, 2);
		break;
	case PEER_SNAPSHOT:
		encode_snapshot(message, out);
		break;
	case PEER_TIMEOUT_NOW:
		put(out, message->timeout_now.last_index, 8);
		put(out, message->timeout_now.last_term, 8);
		break;
	case PEER_PROBE:
	case PEER_PROBE_ACK:
		put(out, message->probe.round, 8);
		break;
	}
}

/* A cursor that notes the first thing that is wrong. */
struct reader {
	const uint8_t *at, *end;
	bool bad;
};

static uint64_t get(struct reader *reader, int bytes)
{
	uint64_t value = 0;

	if (reader->end - reader->at < bytes) {
		reader->bad = true;
		return 0;
	}
	for (int i = bytes - 1; i >= 0; i--)
		value = value << 8 | reader->at[i];
	reader->at += bytes;
	return value;
}

/* Terms, indexes and ids stay below 2^63, so that sums of ours cannot overflow. */
static uint64_t get_number(struct reader *reader)
{
	uint64_t value = get(reader, 8);

	if (value > INT64_MAX)
		reader->bad = true;
	return value;
}

static bool get_bool(struct reader *reader)
{
	uint64_t value = get(reader, 1);

	if (value > 1)
		reader->bad = true;
	return value == 1;
}

static enum code wrong(const struct peer_message *message, const char *what, struct err *err)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "a malformed '%s' message: %s", kinds[message->kind].name, what);
}

static enum code decode_entry(struct reader *reader, struct peer_message *message, uint64_t least_term, struct err *err)
{
	unsigned i = message->append.n;
	uint64_t term = get_number(reader);
	uint8_t type = (uint8_t)get(reader, 1);
	uint64_t len = get(reader, 4);
	struct conf conf;

	if (reader->bad)
		return wrong(message, "cut off", err);
	if (term < least_term || term == 0 || term > message->term)
		return wrong(message, "an entry's term is out of order", err);
	if (type < ENTRY_COMMAND || type > ENTRY_CHANGE)
		return wrong(message, "an entry of an unknown type", err);
	if (len == 0 || len > PEER_ENTRY_MAX || len > (size_t)(reader->end - reader->at))
		return wrong(message, "an entry's length", err);
	if (type == ENTRY_CHANGE)
		TRY(conf_decode(reader->at, len, &conf, err));
	message->append.entries[i] = entry_new(message->append.prev_index + 1 + i, term, type, reader->at, len);
	message->append.n++;
	reader->at += len;
	return CODE_OK;
}

static enum code decode_append(struct reader *reader, struct peer_message *message, struct err *err)
{
	uint64_t n, least_term;

	message->append.prev_index = get_number(reader);
	message->append.prev_term = least_term = get_number(reader);
	message->append.commit = get_number(reader);
	n = get(reader, 4);
	message->append.n = 0;
	if (reader->bad)
		return wrong(message, "cut off or out of range", err);
	if ((message->append.prev_index == 0) != (message->append.prev_term == 0))
		return wrong(message, "index and term of the previous entry do not fit", err);
	if (message->append.prev_term > message->term)
		return wrong(message, "the previous entry's term is newer than the message's", err);
	if (n > PEER_ENTRIES_MAX || message->append.prev_index + n > INT64_MAX)
		return wrong(message, "too many entries", err);
	while (message->append.n < n) {
		TRY(decode_entry(reader, message, least_term, err));
		least_term = message->append.entries[message->append.n - 1]->term;
	}
	return CODE_OK;
}

static enum code decode_append_result(struct reader *reader, struct peer_message *message, struct err *err)
{
	message->append_result.rejected = get_number(reader);
	message->append_result.last_index = get_number(reader);
	message->append_result.features = (uint16_t)get(reader, 2);
	message->append_result.capacity = (uint16_t)get(reader, 2);
	if (message->append_result.rejected > 0 && message->append_result.last_index >= message->append_result.rejected)
		return wrong(message, "rejects an index that it has", err);
	return CODE_OK;
}

static enum code decode_vote(struct reader *reader, uint64_t from, struct peer_message *message, struct err *err)
{
	bool pre_vote;

	message->vote.candidate = get_number(reader);
	message->vote.last_index = get_number(reader);
	message->vote.last_term = get_number(reader);
	message->vote.disrupt_leader = get_bool(reader);
	pre_vote = get_bool(reader);
	if (reader->bad)
		return wrong(message, "cut off or out of range", err);
	if (message->vote.candidate != from)
		return wrong(message, "asks for another member", err);
	if ((message->vote.last_index == 0) != (message->vote.last_term == 0))
		return wrong(message, "index and term of the last entry do not fit", err);
	if (message->vote.last_term > message->term)
		return wrong(message, "the last entry's term is newer than the message's", err);
	if (pre_vote)
		return wrong(message, "pre-votes are not used", err);
	return CODE_OK;
}

static enum code decode_vote_result(struct reader *reader, struct peer_message *message, struct err *err)
{
	bool pre_vote;

	message->vote_result.granted = get_bool(reader);
	pre_vote = get_bool(reader);
	message->vote_result.features = (uint16_t)get(reader, 2);
	message->vote_result.capacity = (uint16_t)get(reader, 2);
	if (pre_vote)
		return wrong(message, "pre-votes are not used", err);
	return CODE_OK;
}

static enum code decode_snapshot(struct reader *reader, struct peer_message *message, struct err *err)
{
	uint64_t len;

	message->snapshot.index = get_number(reader);
	message->snapshot.term = get_number(reader);
	message->snapshot.conf_index = get_number(reader);
	len = get(reader, 4);
	if (reader->bad || len > (size_t)(reader->end - reader->at))
		return wrong(message, "cut off or out of range", err);
	if (message->snapshot.index == 0 || message->snapshot.term == 0 || message->snapshot.term > message->term)
		return wrong(message, "index or term", err);
	if (message->snapshot.conf_index == 0 || message->snapshot.conf_index > message->snapshot.index)
		return wrong(message, "the configuration's index", err);
	TRY(conf_decode(reader->at, len, &message->snapshot.conf, err));
	reader->at += len;
	return CODE_OK;
}

static enum code decode_timeout_now(struct reader *reader, struct peer_message *message, struct err *err)
{
	message->timeout_now.last_index = get_number(reader);
	message->timeout_now.last_term = get_number(reader);
	if ((message->timeout_now.last_index == 0) != (message->timeout_now.last_term == 0))
		return wrong(message, "index and term of the last entry do not fit", err);
	return CODE_OK;
}

static enum code decode_body(struct reader *reader, uint64_t from, struct peer_message *message, struct err *err)
{
	switch (message->kind) {
	case PEER_APPEND:
		return decode_append(reader, message, err);
	case PEER_APPEND_RESULT:
		return decode_append_result(reader, message, err);
	case PEER_VOTE:
		return decode_vote(reader, from, message, err);
	case PEER_VOTE_RESULT:
		return decode_vote_result(reader, message, err);
	case PEER_SNAPSHOT:
		return decode_snapshot(reader, message, err);
	case PEER_TIMEOUT_NOW:
		return decode_timeout_now(reader, message, err);
	case PEER_PROBE:
	case PEER_PROBE_ACK:
		message->probe.round = get_number(reader);
		return CODE_OK;
	}
	return CODE_INTERNAL;
}

static enum code decode_head(struct reader *reader, size_t len, struct peer_message *message, struct err *err)
{
	uint64_t kind = get(reader, 1), version = get(reader, 1);

	if (reader->bad || peer_size_max((uint8_t)kind) == 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "a message of the unknown kind %" PRIu64, kind);
	message->kind = (enum peer_kind)kind;
	if (version != kinds[kind].version)
		return wrong(message, "its version is not known", err);
	if (len > kinds[kind].max)
		return wrong(message, "too long", err);
	message->term = get_number(reader);
	if (reader->bad || message->term == 0)
		return wrong(message, "its term", err);
	return CODE_OK;
}

enum code peer_decode(const uint8_t *data, size_t len, uint64_t from, uint64_t self, struct peer_message *out,
		      struct err *err)
{
	struct reader reader = { data, data + len, false };
	enum code rc;

	if (from == 0 || from == self)
		return err_set(err, CODE_INVALID_ARGUMENT, "a message from member %" PRIu64 " to itself", from);
	TRY(decode_head(&reader, len, out, err));
	rc = decode_body(&reader, from, out, err);
	if (rc == CODE_OK && (reader.bad || reader.at != reader.end))
		rc = wrong(out, reader.bad ? "cut off or out of range" : "bytes are left over", err);
	if (rc != CODE_OK)
		peer_message_done(out);
	return rc;
}

void peer_message_done(struct peer_message *message)
{
	if (message->kind != PEER_APPEND)
		return;
	for (unsigned i = 0; i < message->append.n; i++)
		entry_unref(message->append.entries[i]);
	message->append.n = 0;
}
