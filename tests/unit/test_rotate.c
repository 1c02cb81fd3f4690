/* SPDX-License-Identifier: Apache-2.0 */
/* The authorities of a node over its life: first start, restarts with and without keys, rotation by time, by hand, and steps that
 * fail half-way. */
#include "api/rotate.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/task.h"
#include "bundle.pb-c.h"
#include "lib/harness.h"
#include "lib/test.h"
#include "localauthority.pb-c.h"

#include <time.h>
#include <unistd.h>

static struct err err;
static int64_t shift_ms; /* read by the loop's thread too: changed only while it is idle */

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

struct node {
	struct harness *h;
	struct key_manager *keys;
	struct rotation *rotation;
};

static enum code init(struct call *call, void *ctx)
{
	return rotation_init(((struct node *)ctx)->rotation, call->err);
}

static enum code wait_a_turn(struct call *call __attribute__((unused)), void *ctx __attribute__((unused)))
{
	return task_sleep(1);
}

/* A start of the server on this state with these keys. */
static enum code start(struct node *node)
{
	node->h->server->node = "node-1";
	CHECK_CODE(rotation_new(node->h->server, node->h->api->loop, node->keys, &node->rotation, &err), CODE_OK);
	node->h->server->rotation = node->rotation;
	return harness_run(node->h, harness_local(), init, node, &err);
}

static void end(struct node *node)
{
	rotation_free(node->rotation);
	node->rotation = NULL;
	node->h->server->rotation = NULL;
}

static struct node open_node(void)
{
	struct node node = { 0 };

	__atomic_store_n(&shift_ms, 0, __ATOMIC_RELAXED);
	clock_use(&shifted);
	node.h = harness_open();
	node.h->config->ca_ttl_s = 24 * 3600;
	node.h->config->default_x509_svid_ttl_s = 3600;
	CHECK_CODE(key_manager_open_memory(&node.keys, &err), CODE_OK);
	return node;
}

static void close_node(struct node *node)
{
	harness_close(node->h); /* the loop ends before what its task works on */
	rotation_free(node->rotation);
	key_manager_close(node->keys);
	clock_use(NULL);
}

static Pb__Bundle *bundle(struct node *node)
{
	Pb__GetBundleRequest request = PB__GET_BUNDLE_REQUEST__INIT;
	Pb__Bundle *got;

	CHECK_CODE(harness_call(node->h, harness_local(), "Bundle.GetBundle", &request, (void **)&got, &err), CODE_OK);
	return got;
}

static const char *signer(struct node *node)
{
	OWN_STRUCT(keyring) keyring = keyring_current(node->h->server->keyring);

	return arena_strdup(node->h->arena, keyring->x509->id);
}

TEST(the_first_start_publishes_before_it_signs)
{
	struct node node = open_node();
	Pb__Bundle *got;

	CHECK_CODE(start(&node), CODE_OK);
	got = bundle(&node);
	CHECK_NUM(got->n_x509_authorities, 1);
	CHECK_NUM(got->n_jwt_authorities, 1);
	CHECK_NUM(got->sequence_number, 1);
	CHECK_NUM(strlen(signer(&node)), 40);
	close_node(&node);
}

TEST(a_restart_with_its_keys_changes_nothing)
{
	struct node node = open_node();
	const char *before;

	CHECK_CODE(start(&node), CODE_OK);
	before = signer(&node);
	end(&node);
	CHECK_CODE(start(&node), CODE_OK);
	CHECK_STR(signer(&node), before);
	CHECK_NUM(bundle(&node)->sequence_number, 1);
	close_node(&node);
}

TEST(a_restart_without_its_keys_makes_new_authorities)
{
	struct node node = open_node();
	const char *before;

	CHECK_CODE(start(&node), CODE_OK);
	before = signer(&node);
	end(&node);
	key_manager_close(node.keys);
	CHECK_CODE(key_manager_open_memory(&node.keys, &err), CODE_OK);
	CHECK_CODE(start(&node), CODE_OK);
	CHECK(strcmp(signer(&node), before) != 0);
	CHECK_NUM(bundle(&node)->n_x509_authorities, 2); /* what the old one signed is still good */
	close_node(&node);
}

/* Each step of the first start fails once; the next start succeeds, and signs with what is published. */
TEST(a_start_that_fails_half_way_is_taken_up_by_the_next)
{
	static const char *const points[] = { "rotate.publish", "rotate.activate" };

	for (size_t p = 0; p < 2; p++)
		for (unsigned nth = 1; nth <= 2; nth++) {
			struct node node = open_node();
			OWN_STRUCT(keyring) keyring = NULL;
			Pb__Bundle *got;
			bool published = false;

			fault_arm(points[p], nth);
			CHECK_CODE(start(&node), CODE_INTERNAL);
			CHECK(fault_fired());
			fault_disarm();
			CHECK(keyring_current(node.h->server->keyring) == NULL);
			end(&node);
			CHECK_CODE(start(&node), CODE_OK);
			got = bundle(&node);
			keyring = keyring_current(node.h->server->keyring);
			for (size_t i = 0; i < got->n_x509_authorities; i++)
				published |= got->x509_authorities[i]->asn1.len == keyring->x509->cert.len &&
					     memcmp(got->x509_authorities[i]->asn1.data, keyring->x509->cert.data,
						    keyring->x509->cert.len) == 0;
			CHECK(published);
			CHECK_NUM(got->n_x509_authorities, 1);
			CHECK_NUM(got->n_jwt_authorities, 1);
			close_node(&node);
		}
}

TEST(authorities_rotate_by_time_on_restart)
{
	struct node node = open_node();
	const char *first;

	CHECK_CODE(start(&node), CODE_OK);
	first = signer(&node);
	end(&node);
	__atomic_store_n(&shift_ms, 13LL * 3600 * 1000, __ATOMIC_RELAXED); /* past half: the next one is prepared */
	CHECK_CODE(start(&node), CODE_OK);
	CHECK_STR(signer(&node), first);
	CHECK_NUM(bundle(&node)->n_x509_authorities, 2);
	CHECK_NUM(bundle(&node)->n_jwt_authorities, 2);
	end(&node);
	__atomic_store_n(&shift_ms, 21LL * 3600 * 1000, __ATOMIC_RELAXED); /* past five sixths: it signs */
	CHECK_CODE(start(&node), CODE_OK);
	CHECK(strcmp(signer(&node), first) != 0);
	CHECK_NUM(bundle(&node)->n_x509_authorities, 2);
	end(&node);
	__atomic_store_n(&shift_ms, 60LL * 3600 * 1000, __ATOMIC_RELAXED); /* all has ended: a new one, at once */
	CHECK_CODE(start(&node), CODE_OK);
	CHECK_NUM(bundle(&node)->n_x509_authorities, 3);
	close_node(&node);
}

/* --- by hand, through the LocalAuthority service --- */

static enum code act(struct node *node, const char *method, const char *id, void **reply)
{
	Pb__ActivateX509AuthorityRequest request = PB__ACTIVATE_X509_AUTHORITY_REQUEST__INIT;
	char name[64];

	request.authority_id = id; /* activate, taint and revoke have the same field in the same place */
	snprintf(name, sizeof name, "LocalAuthority.%s", method);
	if (strncmp(method, "Taint", 5) == 0)
		request.base.descriptor = &pb__taint_x509_authority_request__descriptor;
	if (strncmp(method, "Revoke", 6) == 0)
		request.base.descriptor = &pb__revoke_x509_authority_request__descriptor;
	return harness_call(node->h, harness_local(), name, &request, reply, &err);
}

TEST(an_operator_moves_authorities_by_hand)
{
	struct node node = open_node();
	Pb__PrepareX509AuthorityRequest none = PB__PREPARE_X509_AUTHORITY_REQUEST__INIT;
	Pb__PrepareX509AuthorityResponse *prepared;
	const char *first, *second;

	CHECK_CODE(start(&node), CODE_OK);
	rotation_run(node.rotation);
	harness_run(node.h, harness_local(), wait_a_turn, NULL, &err);
	first = signer(&node);
	CHECK_CODE(act(&node, "ActivateX509Authority", "", NULL), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "no authority ID provided");
	CHECK_CODE(act(&node, "ActivateX509Authority", first, NULL), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "unexpected authority ID");
	CHECK_CODE(act(&node, "TaintX509Authority", first, NULL), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "unable to taint current local authority");
	CHECK_CODE(harness_call(node.h, harness_local(), "LocalAuthority.PrepareX509Authority", &none, (void **)&prepared, &err),
		   CODE_OK);
	second = prepared->prepared_authority->authority_id;
	CHECK_CODE(act(&node, "TaintX509Authority", second, NULL), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "only Old local authorities can be tainted: unsupported local authority status: PREPARED");
	CHECK_CODE(act(&node, "ActivateX509Authority", second, NULL), CODE_OK);
	CHECK_STR(signer(&node), second);
	CHECK_CODE(act(&node, "ActivateX509Authority", first, NULL), CODE_INTERNAL);
	CHECK_CODE(act(&node, "RevokeX509Authority", first, NULL), CODE_INTERNAL);
	CHECK_STR(err.text, "failed to revoke X.509 authority: it is not possible to revoke an untainted root CA");
	CHECK_CODE(act(&node, "TaintX509Authority", first, NULL), CODE_OK);
	CHECK(bundle(&node)->x509_authorities[0]->tainted);
	CHECK_CODE(act(&node, "RevokeX509Authority", first, NULL), CODE_OK);
	CHECK_NUM(bundle(&node)->n_x509_authorities, 1);
	close_node(&node);
}

TEST(the_servers_own_svid_leaves_a_tainted_authority)
{
	struct node node = open_node();
	Pb__PrepareX509AuthorityRequest none = PB__PREPARE_X509_AUTHORITY_REQUEST__INIT;
	Pb__PrepareX509AuthorityResponse *prepared;
	struct keyring *before, *after;
	const char *first;

	CHECK_CODE(start(&node), CODE_OK);
	rotation_run(node.rotation);
	first = signer(&node);
	CHECK_CODE(harness_call(node.h, harness_local(), "LocalAuthority.PrepareX509Authority", &none, (void **)&prepared, &err),
		   CODE_OK);
	before = keyring_current(node.h->server->keyring);
	CHECK_CODE(act(&node, "ActivateX509Authority", prepared->prepared_authority->authority_id, NULL), CODE_OK);
	after = keyring_current(node.h->server->keyring);
	CHECK(before->server_cert.len == after->server_cert.len &&
	      memcmp(before->server_cert.data, after->server_cert.data, after->server_cert.len) == 0); /* agents may not know the new one yet */
	keyring_unref(after);
	CHECK_CODE(act(&node, "TaintX509Authority", first, NULL), CODE_OK);
	after = keyring_current(node.h->server->keyring);
	CHECK(before->server_cert.len != after->server_cert.len ||
	      memcmp(before->server_cert.data, after->server_cert.data, after->server_cert.len) != 0);
	keyring_unref(after);
	keyring_unref(before);
	close_node(&node);
}
