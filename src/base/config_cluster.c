/* SPDX-License-Identifier: Apache-2.0 */
/* cluster {}: names, addresses and durations (contract cluster.md section 1). A text of error names the key, the value
 * and what is allowed. */
#include "base/config_raw.h"
#include "base/gotext.h"
#include "base/id.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_MAX_LEN = 63, HOST_MAX_LEN = 255, ELECTION_LEAST_MS = 60, ELECTION_MOST_MS = 60000 };

static enum code bad_value(struct check *c, const char *key, const char *value, const char *allowed, struct err *err)
{
	return err_set(err, CODE_INVALID_ARGUMENT, "cluster.%s: expected %s, got %s", key, allowed,
		       quoted(c->arena, value));
}

static bool is_name(const char *text)
{
	size_t len = strlen(text);

	return len > 0 && len <= NAME_MAX_LEN && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

/* The host's name up to the first dot. */
static enum code own_host(struct check *c, const char **whole, const char **first, struct err *err)
{
	char name[HOST_MAX_LEN + 1];

	if (gethostname(name, sizeof name) != 0)
		return err_errno(err, CODE_INTERNAL, errno, "gethostname", "");
	name[HOST_MAX_LEN] = '\0';
	*whole = arena_strdup(c->arena, name);
	*first = arena_strndup(c->arena, name, strcspn(name, "."));
	return CODE_OK;
}

static enum code check_name(struct check *c, const char *host, struct err *err)
{
	const char *given = c->raw->cluster.name;

	c->out->cluster.name = given != NULL ? given : host;
	if (is_name(c->out->cluster.name))
		return CODE_OK;
	if (given != NULL)
		return bad_value(c, "name", given, "1 to 63 of a-z, 0-9 and '-'", err);
	return err_set(
		err, CODE_INVALID_ARGUMENT,
		"cluster.name: must be configured, since the host's name %s is not made of 1 to 63 of a-z, 0-9 and '-'",
		quoted(c->arena, host));
}

/* HOST:PORT, [v6]:PORT. */
static bool is_host_port(const char *text)
{
	const char *colon = strrchr(text, ':');
	size_t host = colon == NULL ? 0 : (size_t)(colon - text);
	int64_t port;

	if (host == 0 || host > HOST_MAX_LEN || strspn(colon + 1, "0123456789") != strlen(colon + 1))
		return false;
	if (go_parse_int(colon + 1, &port) != GO_INT_OK || port < 1 || port > 65535)
		return false;
	if (text[0] == '[')
		return host > 2 && text[host - 1] == ']';
	return memchr(text, ':', host) == NULL && strcspn(text, " \t/[]") >= host;
}

static bool is_unspecified(const char *address)
{
	struct in6_addr six;
	struct in_addr four;

	if (inet_pton(AF_INET, address, &four) == 1)
		return four.s_addr == INADDR_ANY;
	return address[0] == '\0' || (inet_pton(AF_INET6, address, &six) == 1 && IN6_IS_ADDR_UNSPECIFIED(&six));
}

/* What others dial: as given, or the address listened on, or this host. */
static enum code check_advertise(struct check *c, const char *key, const char *given, const char *address, int port,
				 const char *host, const char **out, struct err *err)
{
	const char *name = is_unspecified(address) ? host : address;

	*out = given != NULL               ? given
	       : strchr(name, ':') != NULL ? arena_printf(c->arena, "[%s]:%d", name, port)
					   : arena_printf(c->arena, "%s:%d", name, port);
	if (!is_host_port(*out))
		return bad_value(c, key, *out, "HOST:PORT", err);
	return CODE_OK;
}

static enum code check_addresses(struct check *c, const char *host, struct err *err)
{
	const struct raw_cluster *raw = &c->raw->cluster;
	struct config_cluster *out = &c->out->cluster;
	size_t len = strlen(raw->bind_address);
	bool brackets = raw->bind_address[0] == '[' && raw->bind_address[len - 1] == ']';

	out->bind_address = brackets ? arena_strndup(c->arena, raw->bind_address + 1, len - 2) : raw->bind_address;
	if (raw->bind_port < 1 || raw->bind_port > 65535)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "cluster.bind_port: expected a port from 1 to 65535, got %lld",
			       (long long)raw->bind_port);
	out->bind_port = (int)raw->bind_port;
	TRY(check_advertise(c, "advertise", raw->advertise, out->bind_address, out->bind_port, host, &out->advertise,
			    err));
	TRY(check_advertise(c, "api_advertise", raw->api_advertise, c->out->bind_address, c->out->bind_port, host,
			    &out->api_advertise, err));
	for (size_t i = 0; i < raw->known_members.n; i++)
		if (!is_host_port(raw->known_members.items[i]))
			return bad_value(c, "known_members", raw->known_members.items[i], "HOST:PORT", err);
	out->known_members = raw->known_members;
	return CODE_OK;
}

static enum code check_ids(struct check *c, struct err *err)
{
	const struct raw_cluster *raw = &c->raw->cluster;
	struct config_cluster *out = &c->out->cluster;

	for (size_t i = 0; i < raw->admin_ids.n; i++) {
		struct spiffe_id id;
		enum code rc = id_parse(raw->admin_ids.items[i], c->arena, &id, err);

		if (rc == CODE_OK)
			rc = id_check_member(&id, c->out->trust_domain, err);
		if (rc != CODE_OK)
			return err_wrap(err, CODE_INVALID_ARGUMENT, "cluster.admin_ids: %s",
					quoted(c->arena, raw->admin_ids.items[i]));
	}
	out->admin_ids = raw->admin_ids;
	for (size_t i = 0; i < raw->fail_closed.n; i++)
		if (raw->fail_closed.items[i][0] != '/')
			return bad_value(c, "fail_closed", raw->fail_closed.items[i],
					 "the beginning of a path, such as \"/ns/payments/\"", err);
	out->fail_closed = raw->fail_closed;
	return CODE_OK;
}

static enum code check_seconds(struct check *c, const char *key, const char *text, int64_t *out, struct err *err)
{
	return read_seconds(arena_printf(c->arena, "cluster.%s: %s", key, quoted(c->arena, text)), text, out, err);
}

static enum code check_election_timeout(struct check *c, struct err *err)
{
	const char *text = c->raw->cluster.election_timeout;
	int64_t ns;

	if (go_parse_duration(text, &ns, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "cluster.election_timeout: %s", quoted(c->arena, text));
	c->out->cluster.election_timeout_ms = ns / 1000000;
	if (ns / 1000000 < ELECTION_LEAST_MS || ns / 1000000 > ELECTION_MOST_MS)
		return bad_value(c, "election_timeout", text, "60ms to 1m", err);
	return CODE_OK;
}

enum code check_cluster(struct check *c, struct err *err)
{
	const struct raw_cluster *raw = &c->raw->cluster;
	struct config_cluster *out = &c->out->cluster;
	const char *host, *first;

	out->enabled = raw->there;
	if (!raw->there)
		return CODE_OK;
	TRY(own_host(c, &host, &first, err));
	TRY(check_name(c, first, err));
	TRY(check_addresses(c, host, err));
	TRY(check_ids(c, err));
	TRY(check_seconds(c, "authority_spread", raw->authority_spread, &out->authority_spread_s, err));
	TRY(check_seconds(c, "drain", raw->drain, &out->drain_s, err));
	TRY(check_seconds(c, "max_staleness", raw->max_staleness, &out->max_staleness_s, err));
	out->join_token_file = raw->join_token_file;
	return check_election_timeout(c, err);
}
