/* SPDX-License-Identifier: Apache-2.0 */
/* x509 mint, jwt mint. The private key of an X509-SVID is made here; the server sees the request for the certificate
 * alone. */
#include "api/pem.h"
#include "base/clock.h"
#include "base/gojson.h"
#include "base/gotext.h"
#include "base/gotime.h"
#include "base/id.h"
#include "cmd/cli.h"
#include "cmd/commands.h"
#include "cmd/convert.h"
#include "cmd/csr.h"

#include "bundle.pb-c.h"
#include "svid.pb-c.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

static const struct rpc x509_rpc = { "/spire.api.server.svid.v1.SVID/MintX509SVID",
				     &pb__mint_x509_svidresponse__descriptor };
static const struct rpc jwt_rpc = { "/spire.api.server.svid.v1.SVID/MintJWTSVID",
				    &pb__mint_jwtsvidresponse__descriptor };
static const struct rpc bundle_rpc = { "/spire.api.server.bundle.v1.Bundle/GetBundle", &pb__bundle__descriptor };

struct mint_options {
	struct cli_flags cli;
	const char *spiffe_id, *write;
	struct strings dns_names, audience;
	int64_t ttl_ns;
};

/* The end has whole seconds and is compared with a later clock, so this is said of nearly every -ttl. */
static void note_lifetime(const char *what, int64_t end_s, int64_t ttl_ns)
{
	char when[GO_TIME_MAX];
	int64_t left_ns;

	if (__builtin_mul_overflow(end_s, GO_SECOND, &left_ns) ||
	    __builtin_sub_overflow(left_ns, clock_wall_ns(), &left_ns))
		left_ns = end_s > 0 ? INT64_MAX : INT64_MIN;
	if (left_ns < ttl_ns)
		fprintf(stderr, "%s lifetime was capped shorter than specified ttl; expires \"%s\"\n", what,
			go_time_rfc3339(end_s, when));
}

static enum code check_id(const struct mint_options *o, struct err *err)
{
	if (o->spiffe_id[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "spiffeID must be specified");
	return CODE_OK;
}

static enum code convert_ttl(const struct mint_options *o, int32_t *out, struct err *err)
{
	if (cli_ttl_seconds(o->ttl_ns, out, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "invalid value for TTL");
	return CODE_OK;
}

/* ---- x509 mint ---- */

struct minted {
	const Pb__X509SVID *svid;
	const Pb__Bundle *bundle;
	struct buf key; /* PKCS #8 */
};

static void wipe(struct buf *buf)
{
	if (buf->data != NULL)
		OPENSSL_cleanse(buf->data, buf->cap);
	buf_done(buf);
}

static void minted_done(struct minted *minted)
{
	wipe(&minted->key);
}

#define OWN_SECRET_BUF __attribute__((cleanup(wipe))) struct buf

static struct span span_of(const ProtobufCBinaryData *bytes)
{
	return (struct span){ bytes->data, bytes->len };
}

static void put_chain(struct buf *out, const Pb__X509SVID *svid)
{
	for (size_t i = 0; i < svid->n_cert_chain; i++)
		pem_write(out, "CERTIFICATE", span_of(&svid->cert_chain[i]));
}

static void put_roots(struct buf *out, const Pb__Bundle *bundle)
{
	for (size_t i = 0; i < bundle->n_x509_authorities; i++)
		pem_write(out, "CERTIFICATE", span_of(&bundle->x509_authorities[i]->asn1));
}

static enum code write_one(struct arena *arena, const char *dir, const char *name, const struct buf *data,
			   unsigned mode, const char *what, const char *short_name, struct err *err)
{
	const char *path = cli_join_path(arena, dir, name);
	enum code rc = cli_write_file(path, (struct span){ data->data, data->len }, mode, err);

	if (rc != CODE_OK)
		return err_wrap(err, rc, "unable to write %s", short_name);
	printf("%s written to %s\n", what, path);
	return CODE_OK;
}

static enum code show_minted(struct arena *arena, const struct minted *minted, const char *dir, struct err *err)
{
	OWN_BUF chain = { 0 };
	OWN_BUF roots = { 0 };
	OWN_SECRET_BUF key = { 0 };

	put_chain(&chain, minted->svid);
	put_roots(&roots, minted->bundle);
	buf_reserve(&key, 512); /* in one piece: nothing of it stays behind in a smaller one */
	pem_write(&key, "PRIVATE KEY", (struct span){ minted->key.data, minted->key.len });
	if (dir[0] == '\0') {
		printf("X509-SVID:\n%s\n", buf_text(&chain));
		printf("Private key:\n%s\n", buf_text(&key));
		printf("Root CAs:\n%s\n", buf_text(&roots));
		return CODE_OK;
	}
	TRY(write_one(arena, dir, "svid.pem", &chain, 0644, "X509-SVID", "SVID", err));
	TRY(write_one(arena, dir, "key.pem", &key, 0600, "Private key", "key", err));
	return write_one(arena, dir, "bundle.pem", &roots, 0644, "Root CAs", "bundle", err);
}

static void put_base64(struct buf *out, const char *before, struct span der)
{
	buf_printf(out, "%s\"", before);
	buf_base64(out, der.data, der.len, 0);
	buf_put(out, '"');
}

static void show_minted_json(const struct minted *minted)
{
	OWN_SECRET_BUF out = { 0 };

	buf_reserve(&out, 4096);
	buf_puts(&out, "[{\"x509_svid\":[");
	for (size_t i = 0; i < minted->svid->n_cert_chain; i++)
		put_base64(&out, i > 0 ? "," : "", span_of(&minted->svid->cert_chain[i]));
	put_base64(&out, "],\"private_key\":", (struct span){ minted->key.data, minted->key.len });
	buf_puts(&out, ",\"root_cas\":[");
	for (size_t i = 0; i < minted->bundle->n_x509_authorities; i++)
		put_base64(&out, i > 0 ? "," : "", span_of(&minted->bundle->x509_authorities[i]->asn1));
	buf_puts(&out, "]}]\n");
	fwrite(out.data, 1, out.len, stdout);
}

static enum code mint_x509(struct cli *cli, const struct mint_options *o, struct minted *minted, struct err *err)
{
	Pb__MintX509SVIDRequest request = PB__MINT_X509_SVIDREQUEST__INIT;
	Pb__GetBundleRequest get_bundle = PB__GET_BUNDLE_REQUEST__INIT;
	Pb__MintX509SVIDResponse *reply;
	struct spiffe_id id;
	OWN_BUF csr = { 0 };
	enum code rc;

	TRY(id_parse(o->spiffe_id, cli->arena, &id, err));
	TRY(convert_ttl(o, &request.ttl, err));
	if (csr_make(id.text, &o->dns_names, &csr, &minted->key, err) != CODE_OK)
		return err_wrap(err, CODE_INTERNAL, "unable to generate CSR");
	request.csr.data = csr.data;
	request.csr.len = csr.len;
	rc = cli_call(cli, &x509_rpc, &request, &reply, err);
	if (rc != CODE_OK)
		return err_wrap(err, rc, "unable to mint SVID");
	if (reply->svid == NULL || reply->svid->n_cert_chain == 0)
		return err_set(err, CODE_INTERNAL, "server response missing SVID chain");
	rc = cli_call(cli, &bundle_rpc, &get_bundle, &minted->bundle, err);
	if (rc != CODE_OK)
		return err_wrap(err, rc, "unable to get bundle");
	if (minted->bundle->n_x509_authorities == 0)
		return err_set(err, CODE_INTERNAL, "server response missing X509 Authorities");
	minted->svid = reply->svid;
	return CODE_OK;
}

static enum code run_x509(struct cli *cli, const void *options, struct err *err)
{
	const struct mint_options *o = options;
	__attribute__((cleanup(minted_done))) struct minted minted = { 0 };

	TRY(check_id(o, err));
	TRY(mint_x509(cli, o, &minted, err));
	note_lifetime("X509-SVID", minted.svid->expires_at, o->ttl_ns);
	if (cli_json(cli) && o->write[0] == '\0') {
		show_minted_json(&minted);
		return CODE_OK;
	}
	return show_minted(cli->arena, &minted, o->write, err);
}

/* ---- jwt mint ---- */

/* The claim `exp` of a token, unverified: it comes from the server that we trust. */
static enum code token_end(const char *token, struct arena *arena, int64_t *end_s, struct err *err)
{
	const char *from = strchr(token, '.'), *to = from != NULL ? strchr(from + 1, '.') : NULL;
	const struct json *claims, *exp;
	OWN_BUF payload = { 0 };

	if (to == NULL || !buf_unbase64(&payload, from + 1, (size_t)(to - from - 1), 1))
		return err_set(err, CODE_INTERNAL, "token is no JWT in compact form");
	TRY(json_parse((const char *)payload.data, payload.len, arena, &claims, err));
	exp = json_get(claims, "exp");
	if (exp == NULL || !json_int64(exp, end_s))
		return err_set(err, CODE_INTERNAL, "no expiry claim");
	return CODE_OK;
}

static enum code show_token(struct cli *cli, const Pb__MintJWTSVIDResponse *reply, const char *write, struct err *err)
{
	const char *token = reply->svid->token, *path;
	enum code rc;

	if (write[0] != '\0') {
		path = cli_join_path(cli->arena, write, NULL);
		rc = cli_write_file(path, (struct span){ (const uint8_t *)token, strlen(token) }, 0600, err);
		if (rc != CODE_OK)
			return err_wrap(err, rc, "unable to write token");
		printf("JWT-SVID written to %s\n", path);
		return CODE_OK;
	}
	if (cli_json(cli))
		return cli_print_json(reply, err);
	printf("%s\n", token);
	return CODE_OK;
}

static enum code run_jwt(struct cli *cli, const void *options, struct err *err)
{
	const struct mint_options *o = options;
	Pb__MintJWTSVIDRequest request = PB__MINT_JWTSVIDREQUEST__INIT;
	Pb__MintJWTSVIDResponse *reply;
	struct err why = { 0 };
	int64_t end_s;
	enum code rc;

	TRY(check_id(o, err));
	if (o->audience.n == 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "at least one audience must be specified");
	TRY(convert_id(o->spiffe_id, cli->arena, &request.id, err));
	TRY(convert_ttl(o, &request.ttl, err));
	request.audience = o->audience.items;
	request.n_audience = o->audience.n;
	rc = cli_call(cli, &jwt_rpc, &request, &reply, err);
	if (rc != CODE_OK)
		return err_wrap(err, rc, "unable to mint SVID");
	if (reply->svid == NULL || reply->svid->token[0] == '\0')
		return err_set(err, CODE_INTERNAL, "server response missing token");
	if (token_end(reply->svid->token, cli->arena, &end_s, &why) != CODE_OK)
		fprintf(stderr, "Unable to determine JWT-SVID lifetime: %s\n", why.text);
	else
		note_lifetime("JWT-SVID", end_s, o->ttl_ns);
	return show_token(cli, reply, o->write, err);
}

static const struct flag x509_flags[] = {
	CLI_FLAGS(struct mint_options),
	FLAG_STRING(struct mint_options, spiffe_id, "spiffeID", "", "The SPIFFE ID of the X509-SVID"),
	FLAG_DURATION(struct mint_options, ttl_ns, "ttl", 0, "Its lifetime; the server's default if there is none"),
	FLAG_STRINGS(struct mint_options, dns_names, "dns", "A DNS name of the X509-SVID; may be repeated"),
	FLAG_STRING(struct mint_options, write, "write", "", "A folder for svid.pem, key.pem and bundle.pem"),
	FLAG_END,
};
static const struct flag jwt_flags[] = {
	CLI_FLAGS(struct mint_options),
	FLAG_STRING(struct mint_options, spiffe_id, "spiffeID", "", "The SPIFFE ID of the JWT-SVID"),
	FLAG_DURATION(struct mint_options, ttl_ns, "ttl", 0, "Its lifetime; the server's default if there is none"),
	FLAG_STRINGS(struct mint_options, audience, "audience", "Whom the JWT-SVID is for; may be repeated"),
	FLAG_STRING(struct mint_options, write, "write", "", "A file for the token"),
	FLAG_END,
};

const struct cli_command cmd_x509_mint = { { "x509 mint", x509_flags }, sizeof(struct mint_options), run_x509 };
const struct cli_command cmd_jwt_mint = { { "jwt mint", jwt_flags }, sizeof(struct mint_options), run_jwt };
