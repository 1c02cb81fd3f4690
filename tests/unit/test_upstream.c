/* SPDX-License-Identifier: Apache-2.0 */
/* CAs above ours: the request, what "disk" makes of it, and the check of an answer. */
#include "base/arena.h"
#include "ca/csr.h"
#include "ca/upstream.h"
#include "ca/x509.h"
#include "lib/pki.h"
#include "lib/test.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const struct x509_ca_subject standard_subject = {
	.country = (const char *const[]){ "US" },
	.n_country = 1,
	.organization = (const char *const[]){ "SPIFFE" },
	.n_organization = 1,
};

static const char *path_of(const char *name, char out[256])
{
	snprintf(out, 256, "%s/%s", test_dir(), name);
	return out;
}

static void put_key(const char *path, EVP_PKEY *key)
{
	FILE *file = fopen(path, "w");

	assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
	fclose(file);
}

static X509 *make_ca(const char *name, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key)
{
	X509 *cert = pki_cert(&(struct pki_cert){ .subject = name,
						  .key = key,
						  .issuer = issuer,
						  .issuer_key = issuer_key,
						  .constraints = "critical,CA:TRUE",
						  .key_usage = "critical,keyCertSign,cRLSign" });
	X509V3_CTX ctx;
	X509_EXTENSION *id;

	X509V3_set_ctx(&ctx, NULL, cert, NULL, NULL, 0);
	id = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_key_identifier, "hash");
	X509_add_ext(cert, id, -1);
	X509_EXTENSION_free(id);
	assert_true(X509_sign(cert, issuer_key == NULL ? key : issuer_key,
			      EVP_PKEY_get_base_id(issuer_key == NULL ? key : issuer_key) == EVP_PKEY_ED25519
				      ? NULL
				      : EVP_sha256()) > 0);
	return cert;
}

static struct span request_for(EVP_PKEY *key, struct arena *arena)
{
	struct span csr;
	struct err err = { 0 };

	CHECK_CODE(x509_request_ca(key, &standard_subject, "example.org", arena, &csr, &err), CODE_OK);
	return csr;
}

TEST(request_for_a_ca)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN(EVP_PKEY) key = pki_key("P-256");
	struct span der = request_for(key, arena);
	const unsigned char *at = der.data;
	X509_REQ *parsed = d2i_X509_REQ(NULL, &at, (long)der.len);
	struct csr csr;
	struct err err = { 0 };
	char text[256];

	assert_non_null(parsed);
	CHECK_NUM(X509_REQ_verify(parsed, key), 1);
	CHECK_NUM(X509_REQ_get_version(parsed), 0);
	X509_NAME_oneline(X509_REQ_get_subject_name(parsed), text, sizeof text);
	assert_memory_equal(text, "/C=US/O=SPIFFE/serialNumber=", 28);
	CHECK_CODE(csr_parse(der.data, der.len, arena, &csr, &err), CODE_OK);
	CHECK_CODE(csr_verify(&csr, &err), CODE_OK);
	CHECK_NUM(csr.n_uris, 1);
	CHECK_STR(csr.uris[0], "spiffe://example.org");
	X509_REQ_free(parsed);
}

static void check_layout(struct span der, X509 *issuer, EVP_PKEY *issuer_key)
{
	const unsigned char *at = der.data;
	OWN(X509) cert = d2i_X509(NULL, &at, (long)der.len);
	static const int order[] = { NID_key_usage, NID_basic_constraints, NID_subject_key_identifier,
				     NID_authority_key_identifier, NID_subject_alt_name };

	assert_non_null(cert);
	CHECK_NUM(X509_verify(cert, issuer_key), 1);
	CHECK_NUM(X509_NAME_cmp(X509_get_issuer_name(cert), X509_get_subject_name(issuer)), 0);
	CHECK_NUM(X509_get_ext_count(cert), 5);
	for (int i = 0; i < 5; i++)
		CHECK_NUM(OBJ_obj2nid(X509_EXTENSION_get_object(X509_get_ext(cert, i))), order[i]);
	CHECK_NUM(ASN1_OCTET_STRING_cmp(X509_get0_authority_key_id(cert), X509_get0_subject_key_id(issuer)), 0);
}

TEST(disk_signs_with_any_key)
{
	static const char *const kinds[] = { "P-256", "P-384", "P-521", "RSA-2048", "RSA-3072", "ED25519" };
	char cert_path[256], key_path[256];

	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		OWN_STRUCT(arena) arena = arena_new();
		OWN(EVP_PKEY) root_key = pki_key(kinds[i]);
		OWN(EVP_PKEY) key = pki_key("P-256");
		OWN(X509) root = make_ca("/O=up/CN=one", root_key, NULL, NULL);
		OWN_STRUCT(upstream_disk) disk = NULL;
		struct upstream_minted minted;
		struct x509_facts facts;
		struct err err = { 0 };
		int64_t now_s = time(NULL);

		pki_pem_file(path_of("up.pem", cert_path), &root, 1);
		put_key(path_of("up.key", key_path), root_key);
		CHECK_CODE(upstream_disk_open(&(struct upstream_disk_options){ cert_path, key_path, NULL }, now_s,
					      &disk, &err),
			   CODE_OK);
		CHECK_CODE(upstream_disk_mint(disk, request_for(key, arena), "example.org", 600, now_s, arena, &minted,
					      &err),
			   CODE_OK);
		CHECK_NUM(minted.n_chain, 1);
		CHECK_NUM(minted.n_roots, 1);
		check_layout(minted.chain[0], root, root_key);
		CHECK_CODE(x509_read(minted.chain[0], arena, &facts, &err), CODE_OK);
		CHECK_NUM(facts.not_before_s, now_s - 10);
		CHECK_NUM(facts.not_after_s, now_s + 600);
		CHECK_CODE(upstream_check(key, minted.chain, minted.n_chain, minted.roots, minted.n_roots,
					  "example.org", now_s, &err),
			   CODE_OK);
		CHECK_CODE(upstream_disk_mint(disk, request_for(key, arena), "example.org", 86400, now_s, arena,
					      &minted, &err),
			   CODE_OK);
		CHECK_CODE(x509_read(minted.chain[0], arena, &facts, &err), CODE_OK);
		CHECK(facts.not_after_s <= now_s + 3600); /* the root's end */
	}
}

TEST(disk_below_a_root)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN(EVP_PKEY) root_key = pki_key("P-256");
	OWN(EVP_PKEY) middle_key = pki_key("P-384");
	OWN(EVP_PKEY) key = pki_key("P-256");
	OWN(X509) root = make_ca("/CN=root", root_key, NULL, NULL);
	OWN(X509) middle = make_ca("/CN=middle", middle_key, root, root_key);
	OWN_STRUCT(upstream_disk) disk = NULL;
	struct upstream_minted minted;
	struct err err = { 0 };
	int64_t now_s = time(NULL);
	char cert_path[256], key_path[256], bundle_path[256];
	struct upstream_disk_options options = { path_of("mid.pem", cert_path), path_of("mid.key", key_path),
						 path_of("root.pem", bundle_path) };

	pki_pem_file(cert_path, &middle, 1);
	pki_pem_file(bundle_path, &root, 1);
	put_key(key_path, middle_key);
	CHECK_CODE(upstream_disk_open(&options, now_s, &disk, &err), CODE_OK);
	CHECK_CODE(upstream_disk_mint(disk, request_for(key, arena), "example.org", 600, now_s, arena, &minted, &err),
		   CODE_OK);
	CHECK_NUM(minted.n_chain, 2);
	CHECK_CODE(upstream_check(key, minted.chain, 2, minted.roots, 1, "example.org", now_s, &err), CODE_OK);
	CHECK_CODE(upstream_check(key, minted.chain, 1, minted.roots, 1, "example.org", now_s, &err), CODE_INTERNAL);
	CHECK_STR(err.text,
		  "X509 CA produced an invalid X509-SVID chain: x509: certificate signed by unknown authority");

	/* What is unreadable now was good before. */
	unlink(key_path);
	CHECK_CODE(upstream_disk_mint(disk, request_for(key, arena), "example.org", 600, now_s, arena, &minted, &err),
		   CODE_OK);
	/* And a new CA is taken up. */
	pki_pem_file(cert_path, &root, 1);
	put_key(key_path, root_key);
	CHECK_CODE(upstream_disk_mint(disk, request_for(key, arena), "example.org", 600, now_s, arena, &minted, &err),
		   CODE_OK);
	check_layout(minted.chain[0], root, root_key);
}

static void check_open(const char *cert, const char *key, const char *bundle, const char *text)
{
	struct upstream_disk *disk;
	struct err err = { 0 };

	CHECK_CODE(upstream_disk_open(&(struct upstream_disk_options){ cert, key, bundle }, time(NULL), &disk, &err),
		   CODE_INVALID_ARGUMENT);
	if (strncmp(err.text, text, strlen(text)) != 0)
		CHECK_STR(err.text, text);
}

TEST(disk_with_bad_files)
{
	OWN(EVP_PKEY) key = pki_key("P-256");
	OWN(EVP_PKEY) other = pki_key("P-256");
	OWN(X509) root = make_ca("/CN=root", key, NULL, NULL);
	OWN(X509) other_root = make_ca("/CN=other", other, NULL, NULL);
	char root_path[256], key_path[256], other_path[256], other_key_path[256], two_path[256];

	pki_pem_file(path_of("r.pem", root_path), &root, 1);
	pki_pem_file(path_of("o.pem", other_path), &other_root, 1);
	pki_pem_file(path_of("two.pem", two_path), (X509 *const[]){ root, other_root }, 2);
	put_key(path_of("r.key", key_path), key);
	put_key(path_of("o.key", other_key_path), other);
	check_open("", key_path, NULL, "'cert_file_path' and 'key_file_path' must be set and not empty");
	check_open(root_path, NULL, NULL, "'cert_file_path' and 'key_file_path' must be set and not empty");
	check_open(root_path, "/nowhere/k", NULL,
		   "unable to load upstream CA key: open /nowhere/k: no such file or directory");
	check_open(root_path, root_path, NULL, "unable to load upstream CA key: no private key in PEM in ");
	check_open("/nowhere/c", key_path, NULL,
		   "unable to load upstream CA cert: open /nowhere/c: no such file or directory");
	check_open(key_path, key_path, NULL, "unable to load upstream CA cert: no certificates found in file");
	check_open(two_path, key_path, NULL, "with no bundle_file_path configured only self-signed CAs are supported");
	check_open(root_path, key_path, "/nowhere/b",
		   "unable to load upstream CA bundle: open /nowhere/b: no such file or directory");
	check_open(root_path, other_key_path, NULL,
		   "unable to load upstream CA: certificate and private key do not match");
	check_open(root_path, key_path, other_path,
		   "unable to load upstream CA: certificate cannot be validated with the provided bundle or is not "
		   "self-signed: ");
}

TEST(requests_that_disk_refuses)
{
	OWN_STRUCT(arena) arena = arena_new();
	OWN(EVP_PKEY) key = pki_key("P-256");
	OWN(X509) root = make_ca("/CN=root", key, NULL, NULL);
	OWN_STRUCT(upstream_disk) disk = NULL;
	OWN_BUF none = { 0 }, other = { 0 }, two = { 0 }, broken = { 0 };
	struct upstream_minted minted;
	struct err err = { 0 };
	char cert_path[256], key_path[256];

	pki_pem_file(path_of("q.pem", cert_path), &root, 1);
	put_key(path_of("q.key", key_path), key);
	CHECK_CODE(upstream_disk_open(&(struct upstream_disk_options){ cert_path, key_path, NULL }, time(NULL), &disk,
				      &err),
		   CODE_OK);
	pki_csr(&none, key, "/O=x", NULL, "SHA256");
	pki_csr(&other, key, "/O=x", "URI:spiffe://other.org", "SHA256");
	pki_csr(&two, key, "/O=x", "URI:spiffe://example.org,URI:spiffe://example.org", "SHA256");
	pki_csr(&broken, key, "/O=x", "URI:spiffe://example.org", "SHA256");
	broken.data[broken.len - 1] ^= 1;

	const struct {
		struct buf *csr;
		const char *text;
	} cases[] = {
		{ &none, "unable to sign CSR: CSR must have exactly one URI SAN" },
		{ &two, "unable to sign CSR: CSR must have exactly one URI SAN" },
		{ &other, "unable to sign CSR: CSR with SPIFFE ID \"spiffe://other.org\" is invalid: must use the "
			  "trust domain ID for "
			  "trust domain \"example.org\"" },
		{ &broken, "unable to sign CSR: CSR signature check failed: x509: ECDSA verification failure" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		CHECK_CODE(upstream_disk_mint(disk, (struct span){ cases[i].csr->data, cases[i].csr->len },
					      "example.org", 600, time(NULL), arena, &minted, &err),
			   CODE_INTERNAL);
		CHECK_STR(err.text, cases[i].text);
	}
}

TEST(answers_that_cannot_be_used)
{
	static const struct {
		const char *constraints, *key_usage, *san, *text;
	} cases[] = {
		{ NULL, "keyCertSign", NULL, "basic constraints are not valid" },
		{ "CA:FALSE", "keyCertSign", NULL, "cA constraint is not set" },
		{ "CA:TRUE", "cRLSign", NULL, "keyCertSign key usage must be set" },
		{ "CA:TRUE", NULL, NULL, "keyCertSign key usage must be set" },
		{ "CA:TRUE", "keyCertSign,keyAgreement", NULL,
		  "only keyCertSign, cRLSign, or digitalSignature key usage can be set" },
		{ "CA:TRUE", "keyCertSign", "URI:spiffe://other.org",
		  "expected URI SAN \"spiffe://example.org\" but got \"spiffe://other.org\"" },
		{ "CA:TRUE", "keyCertSign,digitalSignature", NULL, NULL },
		{ "CA:TRUE", "keyCertSign", "URI:spiffe://example.org", NULL },
	};
	OWN(EVP_PKEY) root_key = pki_key("P-256");
	OWN(EVP_PKEY) key = pki_key("P-256");
	OWN(EVP_PKEY) stranger = pki_key("P-256");
	OWN(X509) root = make_ca("/CN=root", root_key, NULL, NULL);
	OWN_BUF root_der = { 0 };
	struct span roots;
	struct err err = { 0 };

	pki_der(&root_der, root);
	roots = (struct span){ root_der.data, root_der.len };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		OWN(X509)
		cert = pki_cert(&(struct pki_cert){ .subject = "/CN=ca",
						    .key = key,
						    .issuer = root,
						    .issuer_key = root_key,
						    .constraints = cases[i].constraints,
						    .key_usage = cases[i].key_usage,
						    .san = cases[i].san });
		OWN_BUF der = { 0 };
		struct span chain;
		char text[256];

		pki_der(&der, cert);
		chain = (struct span){ der.data, der.len };
		CHECK_CODE(upstream_check(key, &chain, 1, &roots, 1, "example.org", time(NULL), &err),
			   cases[i].text == NULL ? CODE_OK : CODE_INTERNAL);
		snprintf(text, sizeof text, "invalid upstream-signed X509 CA: invalid X509 CA: %s",
			 cases[i].text == NULL ? "" : cases[i].text);
		if (cases[i].text != NULL) {
			CHECK_STR(err.text, text);
			continue;
		}
		CHECK_CODE(upstream_check(stranger, &chain, 1, &roots, 1, "example.org", time(NULL), &err),
			   CODE_INTERNAL);
		CHECK_CODE(upstream_check(key, &chain, 1, NULL, 0, "example.org", time(NULL), &err), CODE_INTERNAL);
		CHECK_CODE(upstream_check(key, &chain, 1, &roots, 1, "example.org", time(NULL) + 7200, &err),
			   CODE_INTERNAL);
		assert_memory_equal(err.text,
				    "invalid upstream-signed X509 CA: invalid X509 CA: already expired as of ", 71);
		CHECK_CODE(upstream_check(key, &chain, 1, &roots, 1, "example.org", time(NULL) - 7200, &err),
			   CODE_INTERNAL);
	}
	CHECK_CODE(upstream_check(key, NULL, 0, &roots, 1, "example.org", time(NULL), &err), CODE_INTERNAL);
}
