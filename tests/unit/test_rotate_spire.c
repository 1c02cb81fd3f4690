/* SPDX-License-Identifier: Apache-2.0 */
/* A node below another server: its first CA and JWT key, steps that fail half-way, and a change of the authority above
 * that it follows by itself, in whatever order it hears of it. */
#include "base/clock.h"
#include "base/fault.h"
#include "ca/x509.h"
#include "lib/below.h"
#include "lib/node.h"
#include "lib/test.h"

#include <time.h>

#define err node_err

struct world {
	struct below b;
	struct node node;
};

static struct world open_world(void)
{
	struct world w = { .b = below_open(), .node = node_new() };

	w.node.h->server->parent = w.b.parent;
	below_admit(&w.b, "spiffe://example.org/child");
	return w;
}

static void close_world(struct world *w)
{
	parent_stop(w->b.parent);
	node_free(&w->node);
	below_close(&w->b);
}

static const Pb__X509Certificate *root_of(struct world *w, const Pb__Bundle *bundle, const char *id)
{
	for (size_t i = 0; i < bundle->n_x509_authorities; i++) {
		const Pb__X509Certificate *root = bundle->x509_authorities[i];
		struct x509_facts facts;

		CHECK_CODE(x509_read((struct span){ root->asn1.data, root->asn1.len }, w->node.h->arena, &facts, &err),
			   CODE_OK);
		if (strcmp(facts.subject_key_id, id) == 0)
			return root;
	}
	return NULL;
}

/* Our CA hangs on this authority, and our server's certificate on our CA. */
static bool hangs_on(struct world *w, const char *id)
{
	OWN_STRUCT(keyring) keyring = keyring_current(w->node.h->server->keyring);
	struct x509_facts facts;

	CHECK_CODE(x509_read((struct span){ keyring->x509->cert.data, keyring->x509->cert.len }, w->node.h->arena,
			     &facts, &err),
		   CODE_OK);
	return strcmp(facts.authority_key_id, id) == 0;
}

static bool shows_present_ca(struct world *w)
{
	OWN_STRUCT(keyring) keyring = keyring_current(w->node.h->server->keyring);

	return keyring->n_server_chain == 2 && keyring->server_chain[1].len == keyring->x509->cert.len &&
	       memcmp(keyring->server_chain[1].data, keyring->x509->cert.data, keyring->x509->cert.len) == 0;
}

#define UNTIL(condition)                                                                                               \
	do {                                                                                                           \
		int64_t end_ms_ = clock_mono_ms() + 20000;                                                             \
		while (!(condition) && clock_mono_ms() < end_ms_)                                                      \
			nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);                                     \
		assert_true(condition);                                                                                \
	} while (0)

/* The server above has another authority, which our agent knows of. */
static const char *change_above(struct world *w)
{
	harness_authorities(w->b.above->h);
	api_server_rotate(w->b.above, 600);
	below_admit(&w->b, "spiffe://example.org/child");
	return below_signer(&w->b);
}

TEST(the_first_start_below_takes_roots_and_hands_its_key_up)
{
	struct world w = open_world();
	Pb__GetBundleRequest request = PB__GET_BUNDLE_REQUEST__INIT;
	Pb__Bundle *ours, *above;

	CHECK_CODE(node_start(&w.node), CODE_OK);
	ours = node_bundle(&w.node);
	CHECK_CODE(harness_call(w.b.above->h, harness_local(), "Bundle.GetBundle", &request, (void **)&above, &err),
		   CODE_OK);
	CHECK_NUM(ours->n_x509_authorities, 1);
	CHECK(root_of(&w, ours, below_signer(&w.b)) != NULL);
	CHECK_NUM(ours->n_jwt_authorities, 2);
	CHECK_NUM(above->n_jwt_authorities, 2);
	for (size_t i = 0; i < 2; i++)
		CHECK_STR(ours->jwt_authorities[i]->key_id, above->jwt_authorities[i]->key_id);
	CHECK_NUM(ours->sequence_number, 1);
	CHECK(hangs_on(&w, below_signer(&w.b)));
	CHECK(shows_present_ca(&w));
	close_world(&w);
}

TEST(a_start_below_that_fails_half_way_is_taken_up)
{
	static const char *const points[] = { "rotate.mint",    "rotate.roots",    "rotate.publish",
					      "rotate.publish", "rotate.activate", "rotate.publish_above",
					      "rotate.activate" };
	static const unsigned nth[] = { 1, 1, 1, 2, 1, 1, 2 };

	for (size_t p = 0; p < sizeof points / sizeof points[0]; p++) {
		struct world w = open_world();

		fault_arm(points[p], nth[p]);
		CHECK_CODE(node_start(&w.node), CODE_INTERNAL);
		CHECK(fault_fired());
		fault_disarm();
		CHECK(keyring_current(w.node.h->server->keyring) == NULL);
		node_end(&w.node);
		CHECK_CODE(node_start(&w.node), CODE_OK);
		CHECK_NUM(node_bundle(&w.node)->n_x509_authorities, 1);
		CHECK(hangs_on(&w, below_signer(&w.b)));
		close_world(&w);
	}
}

TEST(a_root_that_is_added_above_comes_down)
{
	struct world w = open_world();
	const char *before;

	CHECK_CODE(node_start(&w.node), CODE_OK);
	before = node_signer(&w.node);
	node_run(&w.node);
	change_above(&w);
	UNTIL(node_bundle(&w.node)->n_x509_authorities == 2);
	UNTIL(node_bundle(&w.node)->n_jwt_authorities == 3);
	CHECK_STR(node_signer(&w.node), before);
	close_world(&w);
}

/* Each step that fails is done at the next look. */
TEST(a_tainted_authority_above_is_left)
{
	static const char *const points[] = { NULL, "rotate.mint", "rotate.publish", "rotate.activate" };

	for (size_t p = 0; p < sizeof points / sizeof points[0]; p++) {
		struct world w = open_world();
		const char *old, *new;

		CHECK_CODE(node_start(&w.node), CODE_OK);
		old = below_signer(&w.b);
		node_run(&w.node);
		new = change_above(&w);
		UNTIL(node_bundle(&w.node)->n_x509_authorities == 2);
		if (points[p] != NULL)
			fault_arm(points[p], 1);
		below_taint(&w.b, old);
		UNTIL(root_of(&w, node_bundle(&w.node), old)->tainted);
		CHECK(points[p] == NULL || fault_fired());
		fault_disarm();
		CHECK(hangs_on(&w, new)); /* before our own say so */
		UNTIL(shows_present_ca(&w));
		below_revoke(&w.b, old);
		UNTIL(root_of(&w, node_bundle(&w.node), old) == NULL);
		CHECK_NUM(node_bundle(&w.node)->n_x509_authorities, 1);
		CHECK(hangs_on(&w, new));
		close_world(&w);
	}
}

/* Tainted and revoked between two looks: there is no mark to be seen. */
TEST(an_authority_that_is_gone_above_is_left)
{
	struct world w = open_world();
	const char *old, *new;

	CHECK_CODE(node_start(&w.node), CODE_OK);
	old = below_signer(&w.b);
	node_run(&w.node);
	new = change_above(&w);
	UNTIL(node_bundle(&w.node)->n_x509_authorities == 2);
	below_taint(&w.b, old);
	below_revoke(&w.b, old);
	UNTIL(root_of(&w, node_bundle(&w.node), old) == NULL);
	CHECK(hangs_on(&w, new));
	UNTIL(shows_present_ca(&w));
	close_world(&w);
}

TEST(an_authority_that_went_while_we_were_away_is_left)
{
	struct world w = open_world();
	const char *old, *new;

	CHECK_CODE(node_start(&w.node), CODE_OK);
	old = below_signer(&w.b);
	node_end(&w.node);
	new = change_above(&w);
	below_taint(&w.b, old);
	below_revoke(&w.b, old);
	CHECK_CODE(node_start(&w.node), CODE_OK); /* from the journal */
	CHECK(hangs_on(&w, old));
	node_run(&w.node);
	UNTIL(root_of(&w, node_bundle(&w.node), old) == NULL);
	CHECK(hangs_on(&w, new));
	UNTIL(shows_present_ca(&w));
	close_world(&w);
}

/* A root that is there without the server above: an operator's, or ours from the time before. */
TEST(a_root_that_never_was_the_servers_above_stays)
{
	struct world w = open_world();
	const char *own;

	harness_authorities(w.node.h);
	own = node_signer(&w.node);
	CHECK_CODE(node_start(&w.node), CODE_OK);
	node_run(&w.node);
	change_above(&w);
	UNTIL(node_bundle(&w.node)->n_x509_authorities == 3);
	CHECK(!root_of(&w, node_bundle(&w.node), own)->tainted);
	close_world(&w);
}

/* And nothing is taken that has not gone up. */
TEST(keys_of_one_below_us_go_up)
{
	struct world w = open_world();
	Pb__PublishJWTAuthorityRequest request = PB__PUBLISH_JWTAUTHORITY_REQUEST__INIT;
	Pb__PublishJWTAuthorityResponse *reply;
	Pb__JWTKey key = PB__JWTKEY__INIT;
	Pb__GetBundleRequest get = PB__GET_BUNDLE_REQUEST__INIT;
	Pb__EntryCreate create = PB__ENTRY_CREATE__INIT;
	Pb__Entry entry = PB__ENTRY__INIT;
	Pb__SPIFFEID id = PB__SPIFFEID__INIT, host = PB__SPIFFEID__INIT;
	Pb__Selector selector = PB__SELECTOR__INIT;
	Pb__Selector *selectors[] = { &selector };
	Pb__Command command = PB__COMMAND__INIT;
	Pb__Bundle *above;

	CHECK_CODE(node_start(&w.node), CODE_OK);
	id.trust_domain = host.trust_domain = "example.org";
	id.path = "/grandchild";
	host.path = "/host";
	selector.type = "unix";
	selector.value = "uid:0";
	entry.id = "grandchild";
	entry.spiffe_id = &id;
	entry.parent_id = &host;
	entry.selectors = selectors;
	entry.n_selectors = 1;
	entry.downstream = true;
	create.entry = &entry;
	command.kind_case = PB__COMMAND__KIND_ENTRY_CREATE;
	command.entry_create = &create;
	CHECK_NUM(harness_propose(w.node.h, &command)->code, CODE_OK);

	key.public_key = node_bundle(&w.node)->jwt_authorities[0]->public_key;
	key.key_id = "grandchild";
	key.expires_at = clock_wall_s() + 3600;
	request.jwt_authority = &key;
	CHECK_CODE(harness_call(w.node.h, harness_client("spiffe://example.org/grandchild", "1"),
				"Bundle.PublishJWTAuthority", &request, (void **)&reply, &err),
		   CODE_OK);
	CHECK_NUM(reply->n_jwt_authorities, 3);
	CHECK_CODE(harness_call(w.b.above->h, harness_local(), "Bundle.GetBundle", &get, (void **)&above, &err),
		   CODE_OK);
	CHECK_NUM(above->n_jwt_authorities, 3);
	CHECK_STR(above->jwt_authorities[2]->key_id, "grandchild");
	api_server_stop(w.b.above);
	key.key_id = "another";
	CHECK_CODE(harness_call(w.node.h, harness_client("spiffe://example.org/grandchild", "1"),
				"Bundle.PublishJWTAuthority", &request, (void **)&reply, &err),
		   CODE_UNAVAILABLE);
	CHECK(strstr(err.text,
		     "failed to publish JWT key: failed to push JWT authority: rpc error: code = Unavailable") ==
	      err.text);
	CHECK_NUM(node_bundle(&w.node)->n_jwt_authorities, 3);
	close_world(&w);
}
