/* SPDX-License-Identifier: Apache-2.0 */
/* Configurations: see conf.h. The encoding: version 1, the count (8 bytes, little endian), then for each server its id
 * (8 bytes), its address with a final NUL, its role (1 byte); zeros up to a multiple of 8. */
#include "raft/conf.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

enum { FORMAT = 1 };

static unsigned find(const struct conf *conf, uint64_t id)
{
	unsigned i = 0;

	while (i < conf->n && conf->servers[i].id != id)
		i++;
	return i;
}

const struct conf_server *conf_get(const struct conf *conf, uint64_t id)
{
	unsigned i = find(conf, id);

	return i < conf->n ? &conf->servers[i] : NULL;
}

unsigned conf_voters(const struct conf *conf)
{
	unsigned n = 0;

	for (unsigned i = 0; i < conf->n; i++)
		n += conf->servers[i].role == CONF_VOTER;
	return n;
}

bool conf_is_voter(const struct conf *conf, uint64_t id)
{
	const struct conf_server *server = conf_get(conf, id);

	return server != NULL && server->role == CONF_VOTER;
}

enum code conf_add(struct conf *conf, uint64_t id, const char *address, uint8_t role, struct err *err)
{
	struct conf_server *server = &conf->servers[conf->n];

	if (id == 0 || id > INT64_MAX)
		return err_set(err, CODE_INVALID_ARGUMENT, "member id %" PRIu64 " is out of range", id);
	if (role > CONF_SPARE)
		return err_set(err, CODE_INVALID_ARGUMENT, "member %" PRIu64 " has the unknown role %u", id, role);
	if (address[0] == '\0' || strlen(address) > CONF_ADDRESS_MAX)
		return err_set(err, CODE_INVALID_ARGUMENT, "the address of member %" PRIu64 " has not 1 to %d bytes",
			       id, CONF_ADDRESS_MAX);
	for (unsigned i = 0; i < conf->n; i++) {
		if (conf->servers[i].id == id)
			return err_set(err, CODE_ALREADY_EXISTS, "member %" PRIu64 " is there twice", id);
		if (strcmp(conf->servers[i].address, address) == 0)
			return err_set(err, CODE_ALREADY_EXISTS, "member %" PRIu64 " has already the address '%s'",
				       conf->servers[i].id, address);
	}
	if (conf->n == CONF_MAX)
		return err_set(err, CODE_RESOURCE_EXHAUSTED, "a cluster has at most %d members", CONF_MAX);
	memset(server, 0, sizeof(*server));
	server->id = id;
	server->role = role;
	memcpy(server->address, address, strlen(address) + 1);
	conf->n++;
	return CODE_OK;
}

enum code conf_set_role(struct conf *conf, uint64_t id, uint8_t role, struct err *err)
{
	unsigned i = find(conf, id);

	if (i == conf->n)
		return err_set(err, CODE_NOT_FOUND, "there is no member %" PRIu64, id);
	assert(role <= CONF_SPARE);
	conf->servers[i].role = role;
	return CODE_OK;
}

enum code conf_remove(struct conf *conf, uint64_t id, struct err *err)
{
	unsigned i = find(conf, id);

	if (i == conf->n)
		return err_set(err, CODE_NOT_FOUND, "there is no member %" PRIu64, id);
	conf->n--;
	memmove(&conf->servers[i], &conf->servers[i + 1], (conf->n - i) * sizeof(conf->servers[0]));
	return CODE_OK;
}

static void put_u64(struct buf *out, uint64_t value)
{
	for (int i = 0; i < 8; i++)
		buf_put(out, (uint8_t)(value >> (8 * i)));
}

void conf_encode(const struct conf *conf, struct buf *out)
{
	size_t start = out->len;

	assert(conf->n > 0);
	buf_put(out, FORMAT);
	put_u64(out, conf->n);
	for (unsigned i = 0; i < conf->n; i++) {
		const struct conf_server *server = &conf->servers[i];

		put_u64(out, server->id);
		buf_append(out, server->address, strlen(server->address) + 1);
		buf_put(out, server->role);
	}
	while ((out->len - start) % 8 != 0)
		buf_put(out, 0);
}

static uint64_t get_u64(const uint8_t *data)
{
	uint64_t value = 0;

	for (int i = 7; i >= 0; i--)
		value = value << 8 | data[i];
	return value;
}

static enum code cut_off(struct err *err)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "the configuration ends too early");
}

static enum code decode_server(const uint8_t **at, const uint8_t *end, struct conf *conf, struct err *err)
{
	const uint8_t *nul;
	uint64_t id;

	if (end - *at < 8)
		return cut_off(err);
	id = get_u64(*at);
	*at += 8;
	nul = memchr(*at, '\0', (size_t)(end - *at));
	if (nul == NULL || end - nul < 2)
		return cut_off(err);
	if (conf_add(conf, id, (const char *)*at, nul[1], err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "a malformed configuration");
	*at = nul + 2;
	return CODE_OK;
}

enum code conf_decode(const uint8_t *data, size_t len, struct conf *out, struct err *err)
{
	const uint8_t *at = data, *end = data + len;
	struct conf conf = { 0 };
	uint64_t n;

	if (len < 9)
		return cut_off(err);
	if (data[0] != FORMAT)
		return err_set(err, CODE_INVALID_ARGUMENT, "configuration format %u is not known", data[0]);
	n = get_u64(data + 1);
	if (n == 0 || n > CONF_MAX)
		return err_set(err, CODE_INVALID_ARGUMENT, "a configuration of %" PRIu64 " members", n);
	at += 9;
	while (conf.n < n)
		TRY(decode_server(&at, end, &conf, err));
	if (len % 8 != 0 || end - at >= 8)
		return err_set(err, CODE_INVALID_ARGUMENT, "the configuration has not the size of its content");
	for (; at < end; at++)
		if (*at != 0)
			return err_set(err, CODE_INVALID_ARGUMENT, "the configuration's padding is not zero");
	if (conf_voters(&conf) == 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "a configuration without voters");
	*out = conf;
	return CODE_OK;
}
