/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/api_server.h"

#include "api/limit.h"
#include "api/serve.h"
#include "base/clock.h"
#include "base/task.h"
#include "ca/x509.h"
#include "lib/test.h"

#include <pthread.h>
#include <stdlib.h>

struct api_server_life {
	struct loop *main;
	struct serve *serve;
	struct server *server;
	struct wait stop;
	struct message ask, ask_tcp;
	bool open, did_tcp;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool up, stopped;
	struct err err;
	int port;
};

static void tell(struct api_server_life *life, bool *what)
{
	pthread_mutex_lock(&life->lock);
	*what = true;
	pthread_cond_broadcast(&life->changed);
	pthread_mutex_unlock(&life->lock);
}

static void await(struct api_server_life *life, const bool *what)
{
	pthread_mutex_lock(&life->lock);
	while (!*what)
		pthread_cond_wait(&life->changed, &life->lock);
	pthread_mutex_unlock(&life->lock);
}

static void live(void *arg)
{
	struct api_server_life *life = arg;

	if (serve_bind(life->server, life->main, &life->serve, &life->err) == CODE_OK &&
	    serve_start(life->serve, &life->err) == CODE_OK) {
		life->port = serve_port(life->serve);
		tell(life, &life->up);
		task_wait(&life->stop, INT64_MAX);
	} else {
		print_error("%s\n", life->err.text);
		abort();
	}
	serve_stop(life->serve);
	tell(life, &life->stopped);
	loop_stop(life->main);
}

static void deliver_stop(struct message *message)
{
	struct api_server_life *life =
		(struct api_server_life *)((char *)message - offsetof(struct api_server_life, ask));

	wait_done(&life->stop);
}

static void deliver_tcp(struct message *message)
{
	struct api_server_life *life =
		(struct api_server_life *)((char *)message - offsetof(struct api_server_life, ask_tcp));

	if (serve_tcp(life->serve, life->open, &life->err) != CODE_OK) {
		print_error("%s\n", life->err.text);
		abort();
	}
	tell(life, &life->did_tcp);
}

void api_server_tcp(struct api_server *server, bool open)
{
	struct api_server_life *life = server->life;

	life->open = open;
	life->did_tcp = false;
	life->ask_tcp.deliver = deliver_tcp;
	loop_post(life->main, &life->ask_tcp);
	await(life, &life->did_tcp);
}

struct api_server *api_server_open(void)
{
	static const char *const admins[] = { "spiffe://example.org/admin" };
	static unsigned n;
	struct api_server *server = calloc(1, sizeof *server);
	struct api_server_life *life = calloc(1, sizeof *life);

	server->h = harness_open();
	server->life = life;
	harness_authorities(server->h);
	api_server_rotate(server, 3600);
	snprintf(server->socket, sizeof server->socket, "%s/api-%u.sock", test_dir(), n++);
	server->h->config->bind_address = "127.0.0.1";
	server->h->config->bind_port = 0;
	server->h->config->socket_path = server->socket;
	server->h->config->admin_ids = (struct strings){ (const char **)admins, 1 };
	limiters_free(server->h->server->limiters);
	server->h->server->limiters = limiters_new(false, false);
	life->server = server->h->server;
	life->ask.deliver = deliver_stop;
	pthread_mutex_init(&life->lock, NULL);
	pthread_cond_init(&life->changed, NULL);
	life->main = loop_new("main");
	task_spawn(life->main, "live", live, life);
	loop_start(life->main);
	await(life, &life->up);
	snprintf(server->tcp, sizeof server->tcp, "127.0.0.1:%d", life->port);
	return server;
}

void api_server_stop(struct api_server *server)
{
	struct api_server_life *life = server->life;

	if (life->stopped)
		return;
	loop_post(life->main, &life->ask);
	await(life, &life->stopped);
	loop_join(life->main);
}

void api_server_close(struct api_server *server)
{
	struct api_server_life *life = server->life;

	api_server_stop(server);
	loop_free(life->main);
	pthread_mutex_destroy(&life->lock);
	pthread_cond_destroy(&life->changed);
	free(life);
	harness_close(server->h);
	free(server);
}

static void must(enum code rc, const struct err *err)
{
	if (rc == CODE_OK)
		return;
	print_error("%s: %s\n", code_name((int)rc), err->text);
	abort();
}

struct api_identity api_server_identity(struct api_server *server, const char *id, int64_t ttl_s)
{
	OWN_STRUCT(keyring) keyring = keyring_current(server->h->server->keyring);
	struct x509_request request = { .spiffe_id = id, .ttl_s = ttl_s, .now_s = clock_wall_s() };
	struct api_identity identity = { 0 };
	struct x509_svid svid;
	OWN_BUF public = { 0 };
	struct err err = { 0 };

	if (ttl_s < 0) { /* one that has expired */
		request.ttl_s = 60;
		request.now_s += ttl_s;
	}
	must(key_generate(KEY_EC_P256, &identity.key, &err), &err);
	must(key_public_der(identity.key, &public, &err), &err);
	request.spki = (struct span){ public.data, public.len };
	must(x509_issue(keyring->x509, &request, server->h->arena, &svid, &err), &err);
	identity.cert = svid.cert;
	identity.serial = arena_strdup(server->h->arena, svid.serial);
	return identity;
}

void api_server_rotate(struct api_server *server, int64_t ttl_s)
{
	OWN_STRUCT(keyring) keyring = keyring_current(server->h->server->keyring);
	struct api_identity own = api_server_identity(server, "spiffe://example.org/spire/server", ttl_s);

	keyring_swap(server->h->server->keyring,
		     keyring_new(x509_authority_copy(keyring->x509), jwt_authority_copy(keyring->jwt), own.key,
				 &own.cert, 1, clock_wall_s(), clock_wall_s() + ttl_s));
}

struct client *api_server_local(struct api_server *server)
{
	struct client_options options = { .unix_path = server->socket };
	struct client *client = NULL;
	struct err err = { 0 };

	must(client_open(&options, &client, &err), &err);
	return client;
}

struct client *api_server_tls(struct api_server *server, const struct api_identity *identity)
{
	OWN_STRUCT(keyring) keyring = keyring_current(server->h->server->keyring);
	struct span root = { keyring->x509->cert.data, keyring->x509->cert.len };
	struct client_options options = {
		.tcp = server->tcp, .server_id = "spiffe://example.org/spire/server", .roots = &root, .n_roots = 1
	};
	struct client *client = NULL;
	struct err err = { 0 };

	if (identity != NULL) {
		options.chain = &identity->cert;
		options.n_chain = 1;
		options.key = identity->key;
	}
	must(client_open(&options, &client, &err), &err);
	return client;
}
