/* SPDX-License-Identifier: Apache-2.0 */
/* Our side of a server above us: an identity that comes late, changes, or cannot be used; a CA, JWT keys and the bundle
 * from a server that answers, refuses, or is away; an end while something waits. */
#include "base/clock.h"
#include "base/task.h"
#include "ca/key.h"
#include "ca/upstream.h"
#include "ca/x509.h"
#include "lib/below.h"
#include "lib/pki.h"
#include "lib/test.h"

#include <pthread.h>
#include <time.h>

static struct err err;

struct asked {
	struct below *b;
	int64_t wait_ms;
	const char *kid;
	EVP_PKEY *key;
	Pb__NewDownstreamX509CAResponse *minted;
	Pb__Bundle *bundle;
	Pb__PublishJWTAuthorityResponse *published;
};

static enum code mint_task(struct call *call, void *ctx)
{
	struct asked *a = ctx;
	struct span csr;

	TRY(x509_request_ca(a->key, &(struct x509_ca_subject){ 0 }, "example.org", call->arena, &csr, call->err));
	return parent_mint(a->b->parent, csr, 3600, a->wait_ms == 0 ? INT64_MAX : clock_mono_ms() + a->wait_ms,
			   call->arena, &a->minted, &a->bundle, call->err);
}

static enum code mint(struct below *b, int64_t wait_ms)
{
	OWN(EVP_PKEY) key = pki_key("P-256");
	struct asked a = { .b = b, .wait_ms = wait_ms, .key = key };
	enum code rc = harness_run(b->above->h, harness_local(), mint_task, &a, &err);
	struct span chain, roots[4];

	if (rc != CODE_OK)
		return rc;
	CHECK_NUM(a.minted->n_ca_cert_chain, 1);
	chain = (struct span){ a.minted->ca_cert_chain[0].data, a.minted->ca_cert_chain[0].len };
	for (size_t i = 0; i < a.bundle->n_x509_authorities && i < 4; i++)
		roots[i] = (struct span){ a.bundle->x509_authorities[i]->asn1.data,
					  a.bundle->x509_authorities[i]->asn1.len };
	CHECK_CODE(upstream_check(key, &chain, 1, roots, a.bundle->n_x509_authorities, "example.org", time(NULL), &err),
		   CODE_OK);
	return rc;
}

static enum code publish_task(struct call *call, void *ctx)
{
	struct asked *a = ctx;
	Pb__JWTKey key = PB__JWTKEY__INIT;
	OWN_BUF public = { 0 };

	TRY(key_public_der(a->key, &public, call->err));
	key.public_key = (ProtobufCBinaryData){ public.len, public.data };
	key.key_id = a->kid;
	key.expires_at = clock_wall_s() + 3600;
	return parent_publish_jwt(a->b->parent, &key, clock_mono_ms() + 10000, call->arena, &a->published, call->err);
}

TEST(a_ca_and_the_bundle_for_who_is_admitted)
{
	struct below b = below_open();

	below_admit(&b, "spiffe://example.org/child");
	CHECK_CODE(mint(&b, 0), CODE_OK);
	CHECK_CODE(mint(&b, 10000), CODE_OK); /* over the same connection */
	CHECK_NUM(workload_api_headless(b.agent), 0);
	below_close(&b);
}

static void *admit_later(void *arg)
{
	struct below *b = arg;

	while (workload_api_streams(b->agent) == 0)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	workload_api_refuse(b->agent, CODE_PERMISSION_DENIED);
	while (workload_api_streams(b->agent) < 3) /* it tries again */
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	below_admit(b, "spiffe://example.org/child");
	return NULL;
}

TEST(an_identity_that_comes_late_is_waited_for)
{
	struct below b = below_open();
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, admit_later, &b), 0);
	CHECK_CODE(mint(&b, 0), CODE_OK);
	pthread_join(thread, NULL);
	below_close(&b);
}

TEST(who_waits_in_vain_is_told_why)
{
	struct below b = below_open();

	workload_api_refuse(b.agent, CODE_PERMISSION_DENIED);
	while (workload_api_streams(b.agent) < 2)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	CHECK_CODE(mint(&b, 100), CODE_UNAVAILABLE);
	CHECK(strstr(err.text, "unable to request a new Downstream X509CA: rpc error: code = Unavailable desc = no "
			       "X509-SVID from the "
			       "Workload API at ") == err.text);
	below_close(&b);
}

TEST(an_identity_that_cannot_be_used_is_not)
{
	static const char *const why[] = { "has no X509-SVID for us", "trust domain 'other.org'", "do not match",
					   "malformed certificate",   "private key is malformed", "cannot parse" };

	for (size_t i = 0; i < sizeof why / sizeof why[0]; i++) {
		struct below b = below_open();
		Pb__WorkloadX509SVID *svid =
			below_svid(&b, i == 1 ? "spiffe://other.org/child" : "spiffe://example.org/child");

		if (i == 2)
			svid->x509_svid_key = below_svid(&b, "spiffe://example.org/child")->x509_svid_key;
		if (i == 3)
			svid->bundle.len = 0;
		if (i == 4)
			svid->x509_svid_key.len /= 2;
		if (i == 5)
			workload_api_give_bytes(b.agent, "\x0a\xff", 2);
		else
			below_give(&b, i == 0 ? NULL : svid);
		while (workload_api_streams(b.agent) < 2)
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		CHECK_CODE(mint(&b, 50), CODE_UNAVAILABLE);
		if (strstr(err.text, why[i]) == NULL)
			CHECK_STR(err.text, why[i]);
		below_admit(&b, "spiffe://example.org/child");
		CHECK_CODE(mint(&b, 10000), CODE_OK);
		below_close(&b);
	}
}

/* The next call goes as who we have become, and back. */
TEST(another_identity_makes_another_connection)
{
	struct below b = below_open();
	enum code rc = CODE_OK;

	below_admit(&b, "spiffe://example.org/child");
	CHECK_CODE(mint(&b, 0), CODE_OK);
	below_admit(&b, "spiffe://example.org/web");
	for (int i = 0; i < 1000 && rc == CODE_OK; i++)
		rc = mint(&b, 10000);
	CHECK_CODE(rc, CODE_INTERNAL);
	CHECK(strstr(err.text,
		     "unable to request a new Downstream X509CA: rpc error: code = PermissionDenied desc = ") ==
	      err.text);
	below_admit(&b, "spiffe://example.org/child");
	for (int i = 0; i < 1000 && rc != CODE_OK; i++)
		rc = mint(&b, 10000);
	CHECK_CODE(rc, CODE_OK);
	below_close(&b);
}

TEST(a_server_that_is_not_the_one_is_not_called)
{
	struct below b = below_open();
	Pb__WorkloadX509SVID *svid = below_svid(&b, "spiffe://example.org/child");

	harness_authorities(b.above->h); /* another one signs, and the agent's bundle does not have it */
	api_server_rotate(b.above, 600);
	below_give(&b, svid);
	CHECK_CODE(mint(&b, 10000), CODE_UNAVAILABLE);
	CHECK(strstr(err.text, "authentication handshake failed") != NULL);
	below_admit(&b, "spiffe://example.org/child");
	for (int i = 0; i < 100 && mint(&b, 10000) != CODE_OK; i++)
		;
	CHECK_CODE(mint(&b, 10000), CODE_OK);
	below_close(&b);
}

TEST(jwt_keys_go_up_and_all_come_back)
{
	struct below b = below_open();
	OWN(EVP_PKEY) key = pki_key("P-256");
	struct asked a = { .b = &b, .kid = "ours", .key = key };
	bool found = false;

	below_admit(&b, "spiffe://example.org/child");
	CHECK_CODE(harness_run(b.above->h, harness_local(), publish_task, &a, &err), CODE_OK);
	CHECK_NUM(a.published->n_jwt_authorities, 2);
	for (size_t i = 0; i < 2; i++)
		found |= strcmp(a.published->jwt_authorities[i]->key_id, "ours") == 0;
	CHECK(found);
	a.kid = "";
	CHECK_CODE(harness_run(b.above->h, harness_local(), publish_task, &a, &err), CODE_INTERNAL);
	CHECK_STR(err.text, "failed to push JWT authority: rpc error: code = InvalidArgument desc = invalid JWT "
			    "authority: missing key ID");
	below_close(&b);
}

TEST(a_server_that_is_away_is_said_to_be)
{
	struct below b = below_open();

	below_admit(&b, "spiffe://example.org/child");
	CHECK_CODE(mint(&b, 0), CODE_OK);
	api_server_stop(b.above);
	CHECK_CODE(mint(&b, 10000), CODE_UNAVAILABLE);
	CHECK(strstr(err.text, "connection refused") != NULL);
	below_close(&b);
}

/* --- news --- */

struct heard {
	struct below *b;
	struct wait any;
	unsigned n;
	struct buf last;
	size_t want; /* roots */
};

static void hear(void *ctx, struct span bundle)
{
	struct heard *heard = ctx;

	heard->n++;
	heard->last.len = 0;
	buf_append(&heard->last, bundle.data, bundle.len);
	wait_done(&heard->any);
}

static enum code watch_task(struct call *call, void *ctx)
{
	struct heard *heard = ctx;

	for (;;) {
		Pb__Bundle *bundle = NULL;

		TRY(task_wait(&heard->any, clock_mono_ms() + 10000));
		heard->any.done = false;
		bundle = pb__bundle__unpack(NULL, heard->last.len, heard->last.data);
		CHECK(bundle != NULL);
		if (bundle->n_x509_authorities == heard->want) {
			pb__bundle__free_unpacked(bundle, NULL);
			return CODE_OK;
		}
		pb__bundle__free_unpacked(bundle, NULL);
	}
	(void)call;
}

static enum code begin_watch(struct call *call, void *ctx)
{
	struct heard *heard = ctx;

	parent_watch(heard->b->parent, call->server == NULL ? NULL : loop_self(), hear, heard);
	return CODE_OK;
}

TEST(the_bundle_is_looked_at_again_and_again)
{
	struct below b = below_open();
	struct heard heard = { .b = &b, .want = 1 };

	below_admit(&b, "spiffe://example.org/child");
	CHECK_CODE(harness_run(b.above->h, harness_local(), begin_watch, &heard, &err), CODE_OK);
	CHECK_CODE(harness_run(b.above->h, harness_local(), watch_task, &heard, &err), CODE_OK);
	harness_authorities(b.above->h);
	heard.want = 2;
	CHECK_CODE(harness_run(b.above->h, harness_local(), watch_task, &heard, &err), CODE_OK);
	CHECK(heard.n >= 2);
	parent_stop(b.parent);
	below_close(&b);
	buf_done(&heard.last);
}

/* --- the end --- */

static void *stop_later(void *arg)
{
	struct below *b = arg;

	while (workload_api_streams(b->agent) == 0)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	parent_stop(b->parent);
	return NULL;
}

TEST(an_end_while_somebody_waits)
{
	struct below b = below_open();
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, stop_later, &b), 0);
	CHECK_CODE(mint(&b, 0), CODE_CANCELLED);
	pthread_join(thread, NULL);
	CHECK_CODE(mint(&b, 0), CODE_CANCELLED); /* nobody is there any more */
	below_close(&b);
}

TEST(an_end_without_an_agent)
{
	struct parent_options options = { .trust_domain = "example.org",
					  .server_address = "::1",
					  .server_port = "1",
					  .workload_api_socket = "/nonexistent/agent.sock" };
	struct parent *parent;

	CHECK_CODE(parent_open(&options, &parent, &err), CODE_OK);
	parent_close(parent);
	parent_close(NULL);
}
