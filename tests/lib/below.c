/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/below.h"

#include "ca/key.h"
#include "lib/test.h"

#include <openssl/x509.h>

static struct err err;

static void add_entry(struct harness *h, const char *path, bool downstream)
{
	Pb__EntryCreate create = PB__ENTRY_CREATE__INIT;
	Pb__Entry entry = PB__ENTRY__INIT;
	Pb__SPIFFEID id = PB__SPIFFEID__INIT, parent = PB__SPIFFEID__INIT;
	Pb__Selector selector = PB__SELECTOR__INIT;
	Pb__Selector *selectors[] = { &selector };
	Pb__Command command = PB__COMMAND__INIT;

	id.trust_domain = parent.trust_domain = "example.org";
	id.path = path;
	parent.path = "/host";
	selector.type = "unix";
	selector.value = "uid:0";
	entry.id = path + 1;
	entry.spiffe_id = &id;
	entry.parent_id = &parent;
	entry.selectors = selectors;
	entry.n_selectors = 1;
	entry.downstream = downstream;
	create.entry = &entry;
	command.kind_case = PB__COMMAND__KIND_ENTRY_CREATE;
	command.entry_create = &create;
	CHECK_NUM(harness_propose(h, &command)->code, CODE_OK);
}

struct below below_open(void)
{
	static unsigned n;
	struct below b = { .above = api_server_open() };
	struct parent_options options = {
		.trust_domain = "example.org", .server_address = "127.0.0.1", .poll_ms = 50, .retry_ms = 20
	};

	add_entry(b.above->h, "/child", true);
	add_entry(b.above->h, "/web", false);
	snprintf(b.socket, sizeof b.socket, "%s/workload-%u.sock", test_dir(), n++);
	b.agent = workload_api_open(b.socket);
	options.server_port = strchr(b.above->tcp, ':') + 1;
	options.workload_api_socket = b.socket;
	CHECK_CODE(parent_open(&options, &b.parent, &err), CODE_OK);
	return b;
}

void below_close(struct below *b)
{
	parent_close(b->parent);
	workload_api_close(b->agent);
	api_server_close(b->above);
}

static ProtobufCBinaryData bytes(struct span span)
{
	return (ProtobufCBinaryData){ span.len, (uint8_t *)span.data };
}

Pb__WorkloadX509SVID *below_svid(struct below *b, const char *id)
{
	struct arena *arena = b->above->h->arena;
	OWN_STRUCT(keyring) keyring = keyring_current(b->above->h->server->keyring);
	struct api_identity identity = api_server_identity(b->above, id, 600);
	Pb__WorkloadX509SVID *svid = arena_alloc(arena, sizeof *svid);
	OWN(EVP_PKEY) key = identity.key;
	uint8_t *der = NULL;
	int len;

	pb__workload_x509_svid__init(svid);
	svid->spiffe_id = arena_strdup(arena, id);
	svid->x509_svid = bytes(identity.cert);
	svid->bundle = bytes((struct span){ arena_memdup(arena, keyring->x509->cert.data, keyring->x509->cert.len),
					    keyring->x509->cert.len });
	len = i2d_PrivateKey(key, &der);
	svid->x509_svid_key = bytes((struct span){ arena_memdup(arena, der, (size_t)len), (size_t)len });
	OPENSSL_free(der);
	return svid;
}

void below_give(struct below *b, Pb__WorkloadX509SVID *svid)
{
	Pb__WorkloadX509SVIDResponse answer = PB__WORKLOAD_X509_SVIDRESPONSE__INIT;

	answer.svids = &svid;
	answer.n_svids = svid != NULL;
	workload_api_give(b->agent, &answer);
}

void below_admit(struct below *b, const char *id)
{
	below_give(b, below_svid(b, id));
}

const char *below_signer(struct below *b)
{
	OWN_STRUCT(keyring) keyring = keyring_current(b->above->h->server->keyring);

	return arena_strdup(b->above->h->arena, keyring->x509->id);
}

void below_taint(struct below *b, const char *subject_key_id)
{
	Pb__AuthorityTaint taint = PB__AUTHORITY_TAINT__INIT;
	Pb__Command command = PB__COMMAND__INIT;

	taint.trust_domain = "example.org";
	taint.x509_subject_key_id = subject_key_id;
	command.kind_case = PB__COMMAND__KIND_AUTHORITY_TAINT;
	command.authority_taint = &taint;
	CHECK_NUM(harness_propose(b->above->h, &command)->code, CODE_OK);
}

void below_revoke(struct below *b, const char *subject_key_id)
{
	Pb__AuthorityRevoke revoke = PB__AUTHORITY_REVOKE__INIT;
	Pb__Command command = PB__COMMAND__INIT;

	revoke.trust_domain = "example.org";
	revoke.x509_subject_key_id = subject_key_id;
	command.kind_case = PB__COMMAND__KIND_AUTHORITY_REVOKE;
	command.authority_revoke = &revoke;
	CHECK_NUM(harness_propose(b->above->h, &command)->code, CODE_OK);
}
