/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/node.h"

#include "base/clock.h"
#include "base/task.h"
#include "lib/test.h"
#include "localauthority.pb-c.h"

#include <time.h>

struct err node_err;
static int64_t shift_ms; /* read by the loop's thread too */

static int64_t shifted_wall(void *ctx __attribute__((unused)))
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000 + __atomic_load_n(&shift_ms, __ATOMIC_RELAXED);
}

static int64_t real_mono(void *ctx __attribute__((unused)))
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static const struct clock shifted = { .wall_ms = shifted_wall, .mono_ms = real_mono };

void node_shift(int64_t ms)
{
	__atomic_store_n(&shift_ms, ms, __ATOMIC_RELAXED);
}

struct node node_new(void)
{
	struct node node = { 0 };

	node_shift(0);
	clock_use(&shifted);
	node.h = harness_open();
	node.h->config->ca_ttl_s = 24 * 3600;
	node.h->config->default_x509_svid_ttl_s = 3600;
	assert_int_equal(key_manager_open_memory(&node.keys, &node_err), CODE_OK);
	return node;
}

void node_free(struct node *node)
{
	harness_close(node->h); /* the loop ends before what its task works on */
	rotation_free(node->rotation);
	key_manager_close(node->keys);
	clock_use(NULL);
}

static enum code init(struct call *call, void *ctx)
{
	return rotation_init(((struct node *)ctx)->rotation, call->err);
}

static enum code run(struct call *call __attribute__((unused)), void *ctx)
{
	rotation_run(((struct node *)ctx)->rotation);
	return CODE_OK;
}

#define err node_err /* for CHECK_CODE */

static enum code begin(struct call *call __attribute__((unused)), void *ctx)
{
	rotation_run(((struct node *)ctx)->rotation);
	return CODE_OK;
}

void node_rotate(struct node *node)
{
	CHECK_CODE(harness_run(node->h, harness_local(), begin, node, &err), CODE_OK);
}

enum code node_start(struct node *node)
{
	node->h->server->node = "node-1";
	CHECK_CODE(rotation_new(node->h->server, node->h->api->loop, node->keys, &node->rotation, &err), CODE_OK);
	node->h->server->rotation = node->rotation;
	return harness_run(node->h, harness_local(), init, node, &err);
}

void node_run(struct node *node)
{
	CHECK_CODE(harness_run(node->h, harness_local(), run, node, &err), CODE_OK);
}

void node_end(struct node *node)
{
	rotation_free(node->rotation);
	node->rotation = NULL;
	node->h->server->rotation = NULL;
}

Pb__Bundle *node_bundle(struct node *node)
{
	Pb__GetBundleRequest request = PB__GET_BUNDLE_REQUEST__INIT;
	Pb__Bundle *got;

	CHECK_CODE(harness_call(node->h, harness_local(), "Bundle.GetBundle", &request, (void **)&got, &err), CODE_OK);
	return got;
}

const char *node_signer(struct node *node)
{
	OWN_STRUCT(keyring) keyring = keyring_current(node->h->server->keyring);

	return arena_strdup(node->h->arena, keyring->x509->id);
}

enum code node_act(struct node *node, const char *method, const char *id, void **reply)
{
	Pb__PrepareX509AuthorityRequest none = PB__PREPARE_X509_AUTHORITY_REQUEST__INIT;
	Pb__ActivateX509AuthorityRequest request = PB__ACTIVATE_X509_AUTHORITY_REQUEST__INIT;

	char name[64];

	snprintf(name, sizeof name, "LocalAuthority.%s", method);
	if (id == NULL)
		return harness_call(node->h, harness_local(), name, &none, reply, &err);
	request.authority_id = id; /* the same field in the same place in all of them */
	if (strcmp(method, "TaintX509Authority") == 0)
		request.base.descriptor = &pb__taint_x509_authority_request__descriptor;
	else if (strcmp(method, "RevokeX509Authority") == 0)
		request.base.descriptor = &pb__revoke_x509_authority_request__descriptor;
	else if (strcmp(method, "TaintX509UpstreamAuthority") == 0)
		request.base.descriptor = &pb__taint_x509_upstream_authority_request__descriptor;
	else if (strcmp(method, "RevokeX509UpstreamAuthority") == 0)
		request.base.descriptor = &pb__revoke_x509_upstream_authority_request__descriptor;
	return harness_call(node->h, harness_local(), name, &request, reply, &err);
}
