/* SPDX-License-Identifier: Apache-2.0 */
/* The authorities of a node over its life: first start, restarts with and without keys, rotation by time, by hand, and
 * steps that fail half-way. */
#include "api/rotate.h"
#include "base/fault.h"
#include "base/task.h"
#include "lib/node.h"
#include "lib/test.h"
#include "localauthority.pb-c.h"

#define err node_err

static enum code wait_a_turn(struct call *call __attribute__((unused)), void *ctx __attribute__((unused)))
{
	return task_sleep(1);
}

TEST(the_first_start_publishes_before_it_signs)
{
	struct node node = node_new();
	Pb__Bundle *got;

	CHECK_CODE(node_start(&node), CODE_OK);
	got = node_bundle(&node);
	CHECK_NUM(got->n_x509_authorities, 1);
	CHECK_NUM(got->n_jwt_authorities, 1);
	CHECK_NUM(got->sequence_number, 1);
	CHECK_NUM(strlen(node_signer(&node)), 40);
	node_free(&node);
}

TEST(a_restart_with_its_keys_changes_nothing)
{
	struct node node = node_new();
	const char *before;

	CHECK_CODE(node_start(&node), CODE_OK);
	before = node_signer(&node);
	node_end(&node);
	CHECK_CODE(node_start(&node), CODE_OK);
	CHECK_STR(node_signer(&node), before);
	CHECK_NUM(node_bundle(&node)->sequence_number, 1);
	node_free(&node);
}

TEST(a_restart_without_its_keys_makes_new_authorities)
{
	struct node node = node_new();
	const char *before;

	CHECK_CODE(node_start(&node), CODE_OK);
	before = node_signer(&node);
	node_end(&node);
	key_manager_close(node.keys);
	CHECK_CODE(key_manager_open_memory(&node.keys, &err), CODE_OK);
	CHECK_CODE(node_start(&node), CODE_OK);
	CHECK(strcmp(node_signer(&node), before) != 0);
	CHECK_NUM(node_bundle(&node)->n_x509_authorities, 2); /* what the old one signed is still good */
	node_free(&node);
}

/* Each step of the first start fails once; the next start succeeds, and signs with what is published. */
TEST(a_start_that_fails_half_way_is_taken_up_by_the_next)
{
	static const char *const points[] = { "rotate.publish", "rotate.activate" };

	for (size_t p = 0; p < 2; p++)
		for (unsigned nth = 1; nth <= 2; nth++) {
			struct node node = node_new();
			OWN_STRUCT(keyring) keyring = NULL;
			Pb__Bundle *got;
			bool published = false;

			fault_arm(points[p], nth);
			CHECK_CODE(node_start(&node), CODE_INTERNAL);
			CHECK(fault_fired());
			fault_disarm();
			CHECK(keyring_current(node.h->server->keyring) == NULL);
			node_end(&node);
			CHECK_CODE(node_start(&node), CODE_OK);
			got = node_bundle(&node);
			keyring = keyring_current(node.h->server->keyring);
			for (size_t i = 0; i < got->n_x509_authorities; i++)
				published |= got->x509_authorities[i]->asn1.len == keyring->x509->cert.len &&
					     memcmp(got->x509_authorities[i]->asn1.data, keyring->x509->cert.data,
						    keyring->x509->cert.len) == 0;
			CHECK(published);
			CHECK_NUM(got->n_x509_authorities, 1);
			CHECK_NUM(got->n_jwt_authorities, 1);
			node_free(&node);
		}
}

TEST(authorities_rotate_by_time_on_restart)
{
	struct node node = node_new();
	const char *first;

	CHECK_CODE(node_start(&node), CODE_OK);
	first = node_signer(&node);
	node_end(&node);
	node_shift(13LL * 3600 * 1000); /* past half: the next one is prepared */
	CHECK_CODE(node_start(&node), CODE_OK);
	CHECK_STR(node_signer(&node), first);
	CHECK_NUM(node_bundle(&node)->n_x509_authorities, 2);
	CHECK_NUM(node_bundle(&node)->n_jwt_authorities, 2);
	node_end(&node);
	node_shift(21LL * 3600 * 1000); /* past five sixths: it signs */
	CHECK_CODE(node_start(&node), CODE_OK);
	CHECK(strcmp(node_signer(&node), first) != 0);
	CHECK_NUM(node_bundle(&node)->n_x509_authorities, 2);
	node_end(&node);
	node_shift(60LL * 3600 * 1000); /* all has ended: a new one, at once */
	CHECK_CODE(node_start(&node), CODE_OK);
	CHECK_NUM(node_bundle(&node)->n_x509_authorities, 3);
	node_free(&node);
}

/* --- by hand, through the LocalAuthority service --- */

TEST(an_operator_moves_authorities_by_hand)
{
	struct node node = node_new();
	Pb__PrepareX509AuthorityRequest none = PB__PREPARE_X509_AUTHORITY_REQUEST__INIT;
	Pb__PrepareX509AuthorityResponse *prepared;
	const char *first, *second;

	CHECK_CODE(node_start(&node), CODE_OK);
	node_rotate(&node);
	harness_run(node.h, harness_local(), wait_a_turn, NULL, &err);
	first = node_signer(&node);
	CHECK_CODE(node_act(&node, "ActivateX509Authority", "", NULL), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "no authority ID provided");
	CHECK_CODE(node_act(&node, "ActivateX509Authority", first, NULL), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "unexpected authority ID");
	CHECK_CODE(node_act(&node, "TaintX509Authority", first, NULL), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "unable to taint current local authority");
	CHECK_CODE(harness_call(node.h, harness_local(), "LocalAuthority.PrepareX509Authority", &none,
				(void **)&prepared, &err),
		   CODE_OK);
	second = prepared->prepared_authority->authority_id;
	CHECK_CODE(node_act(&node, "TaintX509Authority", second, NULL), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "only Old local authorities can be tainted: unsupported local authority status: PREPARED");
	CHECK_CODE(node_act(&node, "ActivateX509Authority", second, NULL), CODE_OK);
	CHECK_STR(node_signer(&node), second);
	CHECK_CODE(node_act(&node, "ActivateX509Authority", first, NULL), CODE_INTERNAL);
	CHECK_CODE(node_act(&node, "RevokeX509Authority", first, NULL), CODE_INTERNAL);
	CHECK_STR(err.text, "failed to revoke X.509 authority: it is not possible to revoke an untainted root CA");
	CHECK_CODE(node_act(&node, "TaintX509Authority", first, NULL), CODE_OK);
	CHECK(node_bundle(&node)->x509_authorities[0]->tainted);
	CHECK_CODE(node_act(&node, "RevokeX509Authority", first, NULL), CODE_OK);
	CHECK_NUM(node_bundle(&node)->n_x509_authorities, 1);
	node_free(&node);
}

TEST(the_servers_own_svid_leaves_a_tainted_authority)
{
	struct node node = node_new();
	Pb__PrepareX509AuthorityRequest none = PB__PREPARE_X509_AUTHORITY_REQUEST__INIT;
	Pb__PrepareX509AuthorityResponse *prepared;
	struct keyring *before, *after;
	const char *first;

	CHECK_CODE(node_start(&node), CODE_OK);
	node_rotate(&node);
	first = node_signer(&node);
	CHECK_CODE(harness_call(node.h, harness_local(), "LocalAuthority.PrepareX509Authority", &none,
				(void **)&prepared, &err),
		   CODE_OK);
	before = keyring_current(node.h->server->keyring);
	CHECK_CODE(node_act(&node, "ActivateX509Authority", prepared->prepared_authority->authority_id, NULL), CODE_OK);
	after = keyring_current(node.h->server->keyring);
	CHECK(before->server_cert.len == after->server_cert.len &&
	      memcmp(before->server_cert.data, after->server_cert.data, after->server_cert.len) ==
		      0); /* agents may not know the new one yet */
	keyring_unref(after);
	CHECK_CODE(node_act(&node, "TaintX509Authority", first, NULL), CODE_OK);
	after = keyring_current(node.h->server->keyring);
	CHECK(before->server_cert.len != after->server_cert.len ||
	      memcmp(before->server_cert.data, after->server_cert.data, after->server_cert.len) != 0);
	keyring_unref(after);
	keyring_unref(before);
	node_free(&node);
}
