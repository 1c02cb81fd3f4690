/* SPDX-License-Identifier: Apache-2.0 */
#include "api/jwks.h"
#include "api/pem.h"
#include "base/own.h"
#include "cmd/cli.h"
#include "cmd/commands.h"
#include "cmd/convert.h"

#include "bundle.pb-c.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define SERVICE "/spire.api.server.bundle.v1.Bundle/"

OWNABLE(X509, X509_free)

static const struct rpc get_rpc = { SERVICE "GetBundle", &pb__bundle__descriptor };
static const struct rpc count_rpc = { SERVICE "CountBundles", &pb__count_bundles_response__descriptor };
static const struct rpc list_rpc = { SERVICE "ListFederatedBundles", &pb__list_federated_bundles_response__descriptor };
static const struct rpc get_federated_rpc = { SERVICE "GetFederatedBundle", &pb__bundle__descriptor };
static const struct rpc set_rpc = { SERVICE "BatchSetFederatedBundle",
				    &pb__batch_set_federated_bundle_response__descriptor };
static const struct rpc delete_rpc = { SERVICE "BatchDeleteFederatedBundle",
				       &pb__batch_delete_federated_bundle_response__descriptor };

struct bundle_options {
	struct cli_flags cli;
	const char *format, *id, *path, *mode;
};

/* Its address tells the default from a word that somebody typed. */
static const char pem_format[] = "pem";

#define FORMAT_FLAG                                                                                                    \
	FLAG_STRING(struct bundle_options, format, "format", pem_format, "The form of the bundle: pem or spiffe")

static enum code parse_format(const char *word, struct arena *arena, enum bundle_format *out, struct err *err)
{
	if (word[0] == '\0' || strcasecmp(word, "pem") == 0) {
		*out = BUNDLE_PEM;
		return CODE_OK;
	}
	if (strcasecmp(word, "spiffe") == 0) {
		*out = BUNDLE_SPIFFE;
		return CODE_OK;
	}
	return err_set(err, CODE_INVALID_ARGUMENT, "invalid format: %s", cli_quote(arena, word));
}

static enum code put_pem(struct buf *out, const Pb__Bundle *bundle, struct err *err)
{
	for (size_t i = 0; i < bundle->n_x509_authorities; i++) {
		const ProtobufCBinaryData *der = &bundle->x509_authorities[i]->asn1;
		const uint8_t *at = der->data, *end = der->data + der->len;

		while (at < end) { /* one field may hold several */
			const uint8_t *from = at;
			OWN(X509) cert = d2i_X509(NULL, &at, (long)(end - at));

			ERR_clear_error();
			if (cert == NULL)
				return err_set(
					err, CODE_INTERNAL,
					"unable to parse certificates ASN.1 DER data: x509: malformed certificate");
			pem_write(out, "CERTIFICATE", (struct span){ from, (size_t)(at - from) });
		}
	}
	return CODE_OK;
}

static enum code show_bundle(const Pb__Bundle *bundle, enum bundle_format format, struct err *err)
{
	OWN_BUF out = { 0 };

	if (format == BUNDLE_PEM) {
		TRY(put_pem(&out, bundle, err));
	} else {
		TRY(jwks_write(bundle, JWKS_GO_SPIFFE, &out, err));
		buf_put(&out, '\n');
	}
	fwrite(out.data, 1, out.len, stdout);
	return CODE_OK;
}

static enum code run_show(struct cli *cli, const void *options, struct err *err)
{
	const struct bundle_options *o = options;
	Pb__GetBundleRequest request = PB__GET_BUNDLE_REQUEST__INIT;
	enum bundle_format format;
	Pb__Bundle *bundle;

	TRY(cli_call(cli, &get_rpc, &request, &bundle, err));
	if (cli_json(cli))
		return cli_print_json(bundle, err);
	TRY(parse_format(o->format, cli->arena, &format, err));
	return show_bundle(bundle, format, err);
}

static enum code run_count(struct cli *cli, const void *options __attribute__((unused)), struct err *err)
{
	Pb__CountBundlesRequest request = PB__COUNT_BUNDLES_REQUEST__INIT;
	Pb__CountBundlesResponse *reply;

	TRY(cli_call(cli, &count_rpc, &request, &reply, err));
	if (cli_json(cli))
		return cli_print_json(reply, err);
	printf("%d %s\n", reply->count, reply->count == 1 ? "bundle" : "bundles");
	return CODE_OK;
}

static enum code list_one(struct cli *cli, const struct bundle_options *o, struct err *err)
{
	Pb__GetFederatedBundleRequest request = PB__GET_FEDERATED_BUNDLE_REQUEST__INIT;
	enum bundle_format format;
	Pb__Bundle *bundle;

	request.trust_domain = o->id;
	TRY(cli_call(cli, &get_federated_rpc, &request, &bundle, err));
	if (cli_json(cli))
		return cli_print_json(bundle, err);
	TRY(parse_format(o->format, cli->arena, &format, err));
	return show_bundle(bundle, format, err);
}

static enum code run_list(struct cli *cli, const void *options, struct err *err)
{
	static const char stars[] = "****************************************";
	const struct bundle_options *o = options;
	Pb__ListFederatedBundlesRequest request = PB__LIST_FEDERATED_BUNDLES_REQUEST__INIT;
	Pb__ListFederatedBundlesResponse *reply;
	enum bundle_format format;

	if (o->id[0] != '\0')
		return list_one(cli, o, err);
	TRY(cli_call(cli, &list_rpc, &request, &reply, err));
	if (cli_json(cli))
		return cli_print_json(reply, err);
	for (size_t i = 0; i < reply->n_bundles; i++) {
		if (i > 0)
			printf("\n");
		TRY(parse_format(o->format, cli->arena, &format, err));
		printf("%s\n* %s\n%s\n", stars, reply->bundles[i]->trust_domain, stars);
		TRY(show_bundle(reply->bundles[i], format, err));
	}
	return CODE_OK;
}

/* Without -format the form is found from the content. */
static enum code read_bundle(const struct bundle_options *o, struct arena *arena, Pb__Bundle **out, struct err *err)
{
	enum bundle_format format;
	struct span text;

	TRY(parse_format(o->format, arena, &format, err));
	if (o->format == pem_format)
		format = BUNDLE_ANY;
	if (cli_read_file(o->path[0] != '\0' ? o->path : "-", arena, &text, err) != CODE_OK)
		return err_wrap(err, CODE_INVALID_ARGUMENT, "unable to load bundle data");
	return convert_bundle((const char *)text.data, text.len, format, o->id, arena, out, err);
}

static enum code run_set(struct cli *cli, const void *options, struct err *err)
{
	const struct bundle_options *o = options;
	Pb__BatchSetFederatedBundleRequest request = PB__BATCH_SET_FEDERATED_BUNDLE_REQUEST__INIT;
	Pb__BatchSetFederatedBundleResponse *reply;
	const Pb__Status *status;
	Pb__Bundle *bundle;
	enum code rc;

	if (o->id[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "id flag is required");
	TRY(read_bundle(o, cli->arena, &bundle, err));
	request.bundle = &bundle;
	request.n_bundle = 1;
	rc = cli_call(cli, &set_rpc, &request, &reply, err);
	if (rc != CODE_OK)
		return err_wrap(err, rc, "failed to set federated bundle");
	if (cli_json(cli))
		return cli_print_json(reply, err);
	if (reply->n_results == 0 || reply->results[0]->status == NULL)
		return err_set(err, CODE_INTERNAL, "failed to set federated bundle: the server answered nothing");
	status = reply->results[0]->status;
	if (status->code != CODE_OK)
		return err_set(err, CODE_UNKNOWN, "failed to set federated bundle: %s", status->message);
	printf("bundle set.\n");
	return CODE_OK;
}

static enum code parse_mode(const char *word, struct arena *arena, Pb__BatchDeleteFederatedBundleRequest__Mode *out,
			    struct err *err)
{
	if (word[0] == '\0' || strcmp(word, "restrict") == 0)
		*out = PB__BATCH_DELETE_FEDERATED_BUNDLE_REQUEST__MODE__RESTRICT;
	else if (strcmp(word, "dissociate") == 0)
		*out = PB__BATCH_DELETE_FEDERATED_BUNDLE_REQUEST__MODE__DISSOCIATE;
	else if (strcmp(word, "delete") == 0)
		*out = PB__BATCH_DELETE_FEDERATED_BUNDLE_REQUEST__MODE__DELETE;
	else
		return err_set(err, CODE_INVALID_ARGUMENT, "unsupported mode %s", cli_quote(arena, word));
	return CODE_OK;
}

static enum code run_delete(struct cli *cli, const void *options, struct err *err)
{
	const struct bundle_options *o = options;
	Pb__BatchDeleteFederatedBundleRequest request = PB__BATCH_DELETE_FEDERATED_BUNDLE_REQUEST__INIT;
	Pb__BatchDeleteFederatedBundleResponse *reply;
	const char *ids[] = { o->id };
	enum code rc;

	if (o->id[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "id is required");
	TRY(parse_mode(o->mode, cli->arena, &request.mode, err));
	request.trust_domains = ids;
	request.n_trust_domains = 1;
	rc = cli_call(cli, &delete_rpc, &request, &reply, err);
	if (rc != CODE_OK)
		return err_wrap(err, rc, "failed to delete federated bundle");
	if (cli_json(cli))
		return cli_print_json(reply, err);
	if (reply->n_results == 0 || reply->results[0]->status == NULL)
		return err_set(err, CODE_INTERNAL, "failed to delete federated bundle: the server answered nothing");
	if (reply->results[0]->status->code != CODE_OK)
		return err_set(err, CODE_UNKNOWN, "failed to delete federated bundle %s: %s",
			       cli_quote(cli->arena, reply->results[0]->trust_domain),
			       reply->results[0]->status->message);
	printf("bundle deleted.\n");
	return CODE_OK;
}

static const struct flag show_flags[] = { CLI_FLAGS(struct bundle_options), FORMAT_FLAG, FLAG_END };
static const struct flag count_flags[] = { CLI_FLAGS(struct bundle_options), FLAG_END };
static const struct flag list_flags[] = {
	CLI_FLAGS(struct bundle_options),
	FORMAT_FLAG,
	FLAG_STRING(struct bundle_options, id, "id", "", "The bundle of this trust domain only"),
	FLAG_END,
};
static const struct flag set_flags[] = {
	CLI_FLAGS(struct bundle_options),
	FLAG_STRING(struct bundle_options, format, "format", pem_format,
		    "The form of the bundle: pem or spiffe; found from the content if it is not given"),
	FLAG_STRING(struct bundle_options, id, "id", "", "The SPIFFE ID of the trust domain"),
	FLAG_STRING(struct bundle_options, path, "path", "",
		    "The file that holds the bundle; standard input if there is none"),
	FLAG_END,
};
static const struct flag delete_flags[] = {
	CLI_FLAGS(struct bundle_options),
	FLAG_STRING(struct bundle_options, id, "id", "", "The SPIFFE ID of the trust domain"),
	FLAG_STRING(struct bundle_options, mode, "mode", "restrict",
		    "What becomes of entries that federate with it: restrict (refuse to delete the bundle), dissociate "
		    "(they go on without "
		    "it) or delete (them too)"),
	FLAG_END,
};

const struct cli_command cmd_bundle_show = { { "bundle show", show_flags }, sizeof(struct bundle_options), run_show };
const struct cli_command cmd_bundle_count = { { "bundle count", count_flags },
					      sizeof(struct bundle_options),
					      run_count };
const struct cli_command cmd_bundle_list = { { "bundle list", list_flags }, sizeof(struct bundle_options), run_list };
const struct cli_command cmd_bundle_set = { { "bundle set", set_flags }, sizeof(struct bundle_options), run_set };
const struct cli_command cmd_bundle_delete = { { "bundle delete", delete_flags },
					       sizeof(struct bundle_options),
					       run_delete };
