/* SPDX-License-Identifier: Apache-2.0 */
/* A node whose CA is signed by files on disk: whose roots the bundle holds, what is sent with SVIDs, restarts, a change
 * of the authority above with its taint and revocation, and steps that fail half-way. */
#include "base/fault.h"
#include "ca/upstream.h"
#include "ca/x509.h"
#include "lib/node.h"
#include "lib/pki.h"
#include "lib/test.h"
#include "localauthority.pb-c.h"
#include "svid.pb-c.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <time.h>

#define err node_err

static char cert_path[256], key_path[256], bundle_path[256];

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *extension;

	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
}

static X509 *make_ca(const char *name, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key)
{
	X509 *cert = pki_cert(&(struct pki_cert){ .subject = name,
						  .key = key,
						  .issuer = issuer,
						  .issuer_key = issuer_key,
						  .constraints = "critical,CA:TRUE",
						  .key_usage = "critical,keyCertSign,cRLSign" });

	add_extension(cert, cert, NID_subject_key_identifier, "hash");
	assert_true(X509_sign(cert, issuer_key == NULL ? key : issuer_key, EVP_sha256()) > 0);
	return cert;
}

static void put_files(X509 *cert, EVP_PKEY *key)
{
	FILE *file = fopen(key_path, "w");

	assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
	fclose(file);
	pki_pem_file(cert_path, &cert, 1);
}

static void name_files(void)
{
	snprintf(cert_path, sizeof cert_path, "%s/up.pem", test_dir());
	snprintf(key_path, sizeof key_path, "%s/up.key", test_dir());
	snprintf(bundle_path, sizeof bundle_path, "%s/root.pem", test_dir());
}

static struct node below(X509 *cert, EVP_PKEY *key, bool bundle)
{
	struct node node = node_new();
	struct upstream_disk_options options = { cert_path, key_path, bundle ? bundle_path : NULL };

	put_files(cert, key);
	CHECK_CODE(upstream_disk_open(&options, time(NULL), &node.h->server->upstream_disk, &err), CODE_OK);
	return node;
}

static void close_below(struct node *node)
{
	struct upstream_disk *disk = node->h->server->upstream_disk;

	node_free(node);
	upstream_disk_close(disk);
}

static bool is_cert(ProtobufCBinaryData der, X509 *cert)
{
	OWN_BUF want = { 0 };

	pki_der(&want, cert);
	return der.len == want.len && memcmp(der.data, want.data, want.len) == 0;
}

static const char *key_id(struct node *node, X509 *cert)
{
	OWN_BUF der = { 0 };
	struct x509_facts facts;

	pki_der(&der, cert);
	CHECK_CODE(x509_read((struct span){ der.data, der.len }, node->h->arena, &facts, &err), CODE_OK);
	return arena_strdup(node->h->arena, facts.subject_key_id);
}

static Pb__AuthorityState *prepare(struct node *node)
{
	Pb__PrepareX509AuthorityResponse *prepared;

	CHECK_CODE(node_act(node, "PrepareX509Authority", NULL, (void **)&prepared), CODE_OK);
	return prepared->prepared_authority;
}

TEST(the_bundle_holds_the_root_above_and_chains_lead_to_it)
{
	OWN(EVP_PKEY) root_key = pki_key("P-384");
	OWN(EVP_PKEY) middle_key = pki_key("P-256");
	OWN(X509) root = make_ca("/CN=root", root_key, NULL, NULL);
	OWN(X509) middle = make_ca("/CN=middle", middle_key, root, root_key);
	OWN_STRUCT(keyring) keyring = NULL;
	struct node node;
	Pb__Bundle *got;

	name_files();
	pki_pem_file(bundle_path, &root, 1);
	node = below(middle, middle_key, true);
	CHECK_CODE(node_start(&node), CODE_OK);
	got = node_bundle(&node);
	CHECK_NUM(got->n_x509_authorities, 1);
	CHECK(is_cert(got->x509_authorities[0]->asn1, root));
	CHECK_NUM(got->n_jwt_authorities, 1); /* "disk" has no place for it: ours is in our bundle */
	CHECK_NUM(got->sequence_number, 1);
	keyring = keyring_current(node.h->server->keyring);
	CHECK_NUM(keyring->x509->n_upstream, 2);
	CHECK_NUM(keyring->n_server_chain, 3);
	CHECK(is_cert((ProtobufCBinaryData){ keyring->server_chain[2].len, (uint8_t *)keyring->server_chain[2].data },
		      middle));
	CHECK(keyring->server_chain[1].len == keyring->x509->cert.len);
	close_below(&node);
}

TEST(a_restart_below_keeps_certificate_and_chain)
{
	OWN(EVP_PKEY) key = pki_key("P-256");
	OWN(X509) root = make_ca("/CN=root", key, NULL, NULL);
	OWN_STRUCT(keyring) keyring = NULL;
	struct node node;
	const char *before;
	Pb__GetX509AuthorityStateResponse *states;

	name_files();
	node = below(root, key, false);
	CHECK_CODE(node_start(&node), CODE_OK);
	before = node_signer(&node);
	node_end(&node);
	fault_arm("rotate.mint", 1); /* nothing is asked for */
	CHECK_CODE(node_start(&node), CODE_OK);
	CHECK(!fault_fired());
	fault_disarm();
	CHECK_STR(node_signer(&node), before);
	CHECK_NUM(node_bundle(&node)->sequence_number, 1);
	keyring = keyring_current(node.h->server->keyring);
	CHECK_NUM(keyring->n_server_chain, 2);
	node_rotate(&node);
	CHECK_CODE(node_act(&node, "GetX509AuthorityState", NULL, (void **)&states), CODE_OK);
	CHECK_STR(states->active->upstream_authority_subject_key_id, key_id(&node, root));
	close_below(&node);
}

TEST(steps_below_that_fail_are_taken_up_by_the_next_start)
{
	static const char *const points[] = { "rotate.mint", "rotate.roots", "rotate.publish", "rotate.activate" };
	OWN(EVP_PKEY) key = pki_key("P-256");
	OWN(X509) root = make_ca("/CN=root", key, NULL, NULL);

	name_files();
	for (size_t p = 0; p < 4; p++) {
		struct node node = below(root, key, false);

		fault_arm(points[p], 1);
		CHECK_CODE(node_start(&node), CODE_INTERNAL);
		CHECK(fault_fired());
		fault_disarm();
		CHECK(keyring_current(node.h->server->keyring) == NULL);
		node_end(&node);
		CHECK_CODE(node_start(&node), CODE_OK);
		CHECK_NUM(node_bundle(&node)->n_x509_authorities, 1);
		CHECK(is_cert(node_bundle(&node)->x509_authorities[0]->asn1, root));
		close_below(&node);
	}
}

/* What the files say is not always usable: the CA that is minted is looked at before anything is published. */
TEST(a_ca_above_that_may_not_sign_cas_is_refused)
{
	OWN(EVP_PKEY) root_key = pki_key("P-256");
	OWN(EVP_PKEY) key = pki_key("P-256");
	OWN(X509) root = make_ca("/CN=root", root_key, NULL, NULL);
	OWN(X509)
	narrow = pki_cert(&(struct pki_cert){ .subject = "/CN=narrow",
					      .key = key,
					      .issuer = root,
					      .issuer_key = root_key,
					      .constraints = "critical,CA:TRUE,pathlen:0",
					      .key_usage = "critical,keyCertSign" });
	struct node node;

	name_files();
	pki_pem_file(bundle_path, &root, 1);
	node = below(narrow, key, true);
	CHECK_CODE(node_start(&node), CODE_INVALID_ARGUMENT);
	CHECK(strncmp(err.text, "X509 CA minted by upstream authority is invalid: ", 49) == 0);
	close_below(&node);
}

TEST(another_ca_above_is_taken_up_and_the_old_one_revoked)
{
	OWN(EVP_PKEY) key1 = pki_key("P-256");
	OWN(EVP_PKEY) key2 = pki_key("P-256");
	OWN(X509) root1 = make_ca("/CN=one", key1, NULL, NULL);
	OWN(X509) root2 = make_ca("/CN=two", key2, NULL, NULL);
	struct keyring *before, *after;
	struct node node;
	Pb__AuthorityState *prepared;
	const char *id1;

	name_files();
	node = below(root1, key1, false);
	id1 = key_id(&node, root1);
	CHECK_CODE(node_start(&node), CODE_OK);
	node_rotate(&node);
	CHECK_CODE(node_act(&node, "TaintX509Authority", node_signer(&node), NULL), CODE_FAILED_PRECONDITION);
	CHECK_CODE(node_act(&node, "RevokeX509Authority", node_signer(&node), NULL), CODE_FAILED_PRECONDITION);
	CHECK_CODE(node_act(&node, "TaintX509UpstreamAuthority", "", NULL), CODE_INVALID_ARGUMENT);
	CHECK_STR(err.text, "provided subject key id is not valid: no subject key ID provided");
	CHECK_CODE(node_act(&node, "TaintX509UpstreamAuthority", id1, NULL), CODE_INVALID_ARGUMENT);
	before = keyring_current(node.h->server->keyring);

	put_files(root2, key2);
	prepared = prepare(&node);
	CHECK_STR(prepared->upstream_authority_subject_key_id, key_id(&node, root2));
	CHECK_NUM(node_bundle(&node)->n_x509_authorities, 2);
	CHECK_CODE(node_act(&node, "TaintX509UpstreamAuthority", prepared->upstream_authority_subject_key_id, NULL),
		   CODE_INVALID_ARGUMENT);
	CHECK_STR(
		err.text,
		"provided subject key id is not valid: only upstream authorities signing an old authority can be used");
	CHECK_CODE(node_act(&node, "ActivateX509Authority", prepared->authority_id, NULL), CODE_OK);
	after = keyring_current(node.h->server->keyring);
	/* the server's certificate is the former authority's, and so is its chain */
	CHECK(after->n_server_chain == 2 && after->server_chain[1].len == before->x509->cert.len &&
	      memcmp(after->server_chain[1].data, before->x509->cert.data, before->x509->cert.len) == 0);
	keyring_unref(after);

	CHECK_CODE(node_act(&node, "RevokeX509UpstreamAuthority", id1, NULL), CODE_INTERNAL);
	CHECK_STR(err.text,
		  "failed to revoke X.509 upstream authority: it is not possible to revoke an untainted root CA");
	CHECK_CODE(node_act(&node, "TaintX509UpstreamAuthority", id1, NULL), CODE_OK);
	CHECK(node_bundle(&node)->x509_authorities[0]->tainted);
	after = keyring_current(node.h->server->keyring);
	CHECK(after->server_chain[1].len == after->x509->cert.len &&
	      memcmp(after->server_chain[1].data, after->x509->cert.data, after->x509->cert.len) == 0);
	keyring_unref(after);
	keyring_unref(before);
	CHECK_CODE(node_act(&node, "RevokeX509UpstreamAuthority", id1, NULL), CODE_OK);
	CHECK_NUM(node_bundle(&node)->n_x509_authorities, 1);
	CHECK(is_cert(node_bundle(&node)->x509_authorities[0]->asn1, root2));
	close_below(&node);
}

/* SPIRE's rule: what is tainted here and no longer above goes when the authority above is asked next. */
TEST(a_tainted_root_that_is_gone_above_goes_here)
{
	OWN(EVP_PKEY) key1 = pki_key("P-256");
	OWN(EVP_PKEY) key2 = pki_key("P-256");
	OWN(X509) root1 = make_ca("/CN=one", key1, NULL, NULL);
	OWN(X509) root2 = make_ca("/CN=two", key2, NULL, NULL);
	struct node node;

	name_files();
	node = below(root1, key1, false);
	CHECK_CODE(node_start(&node), CODE_OK);
	node_rotate(&node);
	put_files(root2, key2);
	CHECK_CODE(node_act(&node, "ActivateX509Authority", prepare(&node)->authority_id, NULL), CODE_OK);
	CHECK_CODE(node_act(&node, "TaintX509UpstreamAuthority", key_id(&node, root1), NULL), CODE_OK);
	CHECK_NUM(node_bundle(&node)->n_x509_authorities, 2);
	prepare(&node);
	CHECK_NUM(node_bundle(&node)->n_x509_authorities, 1);
	/* the same root again: it is not added a second time, tainted or not */
	CHECK_CODE(node_act(&node, "ActivateX509Authority", prepare(&node)->authority_id, NULL), CODE_OK);
	CHECK_NUM(node_bundle(&node)->n_x509_authorities, 1);
	close_below(&node);
}

TEST(a_server_below_us_gets_the_whole_chain)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN(EVP_PKEY) key = pki_key("P-256");
	OWN(EVP_PKEY) child = pki_key("P-256");
	OWN(X509) root = make_ca("/CN=root", key, NULL, NULL);
	Pb__NewDownstreamX509CARequest request = PB__NEW_DOWNSTREAM_X509_CAREQUEST__INIT;
	Pb__NewDownstreamX509CAResponse *reply;
	Pb__EntryCreate create = PB__ENTRY_CREATE__INIT;
	Pb__Entry entry = PB__ENTRY__INIT;
	Pb__SPIFFEID id = PB__SPIFFEID__INIT, parent = PB__SPIFFEID__INIT;
	Pb__Selector selector = PB__SELECTOR__INIT;
	Pb__Selector *selectors[] = { &selector };
	Pb__Command command = PB__COMMAND__INIT;
	struct span chain[4], der, roots[1];
	struct node node;

	name_files();
	node = below(root, key, false);
	CHECK_CODE(node_start(&node), CODE_OK);
	CHECK_CODE(x509_request_ca(child, &(struct x509_ca_subject){ 0 }, "example.org", arena, &der, &err), CODE_OK);
	request.csr = (ProtobufCBinaryData){ der.len, (uint8_t *)der.data };
	id.trust_domain = parent.trust_domain = "example.org";
	id.path = "/child";
	parent.path = "/host";
	selector.type = "unix";
	selector.value = "uid:0";
	entry.id = "child";
	entry.spiffe_id = &id;
	entry.parent_id = &parent;
	entry.selectors = selectors;
	entry.n_selectors = 1;
	entry.downstream = true;
	create.entry = &entry;
	command.kind_case = PB__COMMAND__KIND_ENTRY_CREATE;
	command.entry_create = &create;
	CHECK_NUM(harness_propose(node.h, &command)->code, CODE_OK);
	CHECK_CODE(harness_call(node.h, harness_client("spiffe://example.org/child", "1"), "SVID.NewDownstreamX509CA",
				&request, (void **)&reply, &err),
		   CODE_OK);
	CHECK_NUM(reply->n_ca_cert_chain, 2);
	CHECK_NUM(reply->n_x509_authorities, 1);
	for (size_t i = 0; i < 2; i++)
		chain[i] = (struct span){ reply->ca_cert_chain[i].data, reply->ca_cert_chain[i].len };
	roots[0] = (struct span){ reply->x509_authorities[0].data, reply->x509_authorities[0].len };
	CHECK_CODE(upstream_check(child, chain, 2, roots, 1, "example.org", time(NULL), &err), CODE_OK);
	close_below(&node);
}
