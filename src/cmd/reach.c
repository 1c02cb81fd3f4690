/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/reach.h"

#include "api/pem.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/rand.h"
#include "ca/x509.h"
#include "cmd/cli.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

OWNABLE(BIO, BIO_free_all)

enum { SERVERS_MAX = 64, CONNECT_MS = 5000, ATTEMPT_MIN_MS = 2000, PAUSE_MS = 100, PAUSE_MAX_MS = 1000 };

struct reach {
	struct client_options options;
	EVP_PKEY *key;
	const char *servers[SERVERS_MAX]; /* none: the socket */
	size_t n, at;
	unsigned asked; /* in this call */
	int64_t timeout_ms, end_ms, pause_ms;
	char request_id[37]; /* "": none */
};

/* --- flags --- */

static enum code split(const char *list, struct arena *arena, struct reach *reach, struct err *err)
{
	char *text = arena_strdup(arena, list), *save = NULL;

	for (char *word = strtok_r(text, ", ", &save); word != NULL; word = strtok_r(NULL, ", ", &save)) {
		const char *colon = strrchr(word, ':');

		if (colon == NULL || colon == word || colon[1] == '\0')
			return err_set(err, CODE_INVALID_ARGUMENT, "-server: expected HOST:PORT, got '%s'", word);
		if (reach->n == SERVERS_MAX)
			return err_set(err, CODE_INVALID_ARGUMENT, "-server: more than %d servers", SERVERS_MAX);
		reach->servers[reach->n++] = word;
	}
	return CODE_OK;
}

static enum code read_certs(const char *flag, const char *path, struct arena *arena, const struct span **out, size_t *n,
			    struct err *err)
{
	struct span text, *certs;

	TRY(cli_read_file(path, arena, &text, err));
	if (pem_read_certs((const char *)text.data, text.len, arena, &certs, n, err) != CODE_OK)
		return err_set(err, CODE_INVALID_ARGUMENT, "-%s %s: %s", flag, path, err->text);
	*out = certs;
	return CODE_OK;
}

/* Nobody is asked for one: commands run in scripts. */
static int no_passphrase(char *out __attribute__((unused)), int size __attribute__((unused)),
			 int writing __attribute__((unused)), void *held __attribute__((unused)))
{
	return -1;
}

static enum code read_key(const char *path, struct arena *arena, EVP_PKEY **out, struct err *err)
{
	OWN(BIO) bio = NULL;
	struct span text;

	TRY(cli_read_file(path, arena, &text, err));
	bio = BIO_new_mem_buf(text.data, (int)text.len);
	*out = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
	explicit_bzero((void *)text.data, text.len);
	ERR_clear_error();
	if (*out == NULL)
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "-key %s: no private key in PEM (encrypted ones are not read)", path);
	return CODE_OK;
}

/* The servers are those of the trust domain of the SVID. */
static enum code read_identity(struct reach *reach, const struct cli_flags *flags, struct arena *arena, struct err *err)
{
	struct client_options *options = &reach->options;
	struct x509_facts facts;
	struct spiffe_id id;

	if (flags->svid[0] == '\0' || flags->key[0] == '\0' || flags->bundle[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT,
			       "-server needs -svid, -key and -bundle: files of an admin's X509-SVID");
	TRY(read_certs("svid", flags->svid, arena, &options->chain, &options->n_chain, err));
	TRY(read_certs("bundle", flags->bundle, arena, &options->roots, &options->n_roots, err));
	TRY(read_key(flags->key, arena, &reach->key, err));
	options->key = reach->key;
	TRY(x509_read(options->chain[0], arena, &facts, err));
	if (facts.n_uris != 1 || id_parse(facts.uri, arena, &id, err) != CODE_OK)
		return err_set(err, CODE_INVALID_ARGUMENT, "-svid %s: not an X509-SVID", flags->svid);
	options->server_id = arena_printf(arena, "spiffe://%s/spire/server", id.td);
	return CODE_OK;
}

/* The flag, then a socket that was named, then the environment. */
static const char *server_list(const struct cli_flags *flags)
{
	const char *from_environment = getenv(CLI_SERVERS_VARIABLE);

	if (flags->servers[0] != '\0')
		return flags->servers;
	if (flags->socket_path[0] != '\0' && strcmp(flags->socket_path, CLI_SOCKET_PATH) != 0)
		return "";
	return from_environment == NULL ? "" : from_environment;
}

enum code reach_new(const struct cli_flags *flags, struct arena *arena, struct reach **out, struct err *err)
{
	struct reach *reach = arena_zalloc(arena, sizeof *reach);

	*out = reach; /* at once: what it owns is freed in any case */
	reach->timeout_ms = flags->timeout_ns / 1000000;
	if (reach->timeout_ms <= 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "-timeout must be longer than nothing");
	TRY(split(server_list(flags), arena, reach, err));
	if (reach->n > 0)
		return read_identity(reach, flags, arena, err);
	reach->options.unix_path = flags->socket_path[0] != '\0' ? flags->socket_path : CLI_SOCKET_PATH;
	return CODE_OK;
}

void reach_free(struct reach *reach)
{
	if (reach != NULL)
		EVP_PKEY_free(reach->key);
}

bool reach_by_tcp(const struct reach *reach)
{
	return reach->n > 0;
}

const char *reach_server(const struct reach *reach, size_t n)
{
	return n < reach->n ? reach->servers[n] : NULL;
}

const struct client_options *reach_options(const struct reach *reach)
{
	return &reach->options;
}

enum code reach_open(struct reach *reach, int64_t wait_ms, struct client **out, struct err *err)
{
	if (reach->n > 0) {
		reach->options.tcp = reach->servers[reach->at];
		reach->options.connect_timeout_ms = wait_ms < CONNECT_MS ? wait_ms : CONNECT_MS;
	}
	return client_open(&reach->options, out, err);
}

/* --- a call --- */

static bool is_read(const char *method)
{
	static const char *const verbs[] = { "Get", "List", "Count", "Check", "Mint", "Status", "Wait" };
	const char *name = strrchr(method, '/') + 1;

	for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
		if (strncmp(name, verbs[i], strlen(verbs[i])) == 0)
			return true;
	return false;
}

void reach_begin(struct reach *reach, const char *method)
{
	reach->end_ms = clock_mono_ms() + reach->timeout_ms;
	reach->asked = 0;
	reach->pause_ms = PAUSE_MS;
	reach->request_id[0] = '\0';
	if (reach->n > 0 && !is_read(method))
		rand_uuid4(reach->request_id);
}

const char *reach_request_id(const struct reach *reach)
{
	return reach->request_id[0] != '\0' ? reach->request_id : NULL;
}

int64_t reach_left_ms(const struct reach *reach)
{
	int64_t left_ms = reach->end_ms - clock_mono_ms(), part_ms = left_ms / 2;

	if (reach->n > 1 && left_ms > ATTEMPT_MIN_MS)
		left_ms = part_ms > ATTEMPT_MIN_MS ? part_ms : ATTEMPT_MIN_MS;
	return left_ms > 1 ? left_ms : 1;
}

bool reach_has_others(const struct reach *reach)
{
	return reach->n > 0;
}

bool reach_next(struct reach *reach)
{
	int64_t pause_ms = 0;

	reach->at = (reach->at + 1) % reach->n;
	if (++reach->asked % reach->n == 0) {
		pause_ms = reach->pause_ms;
		reach->pause_ms = 2 * pause_ms < PAUSE_MAX_MS ? 2 * pause_ms : PAUSE_MAX_MS;
	}
	if (clock_mono_ms() + pause_ms >= reach->end_ms)
		return false;
	if (pause_ms > 0)
		nanosleep(&(struct timespec){ pause_ms / 1000, pause_ms % 1000 * 1000000 }, NULL);
	return true;
}
