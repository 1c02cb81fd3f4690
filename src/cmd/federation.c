/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/cli.h"
#include "cmd/commands.h"
#include "cmd/federation_data.h"
#include "cmd/print.h"

#include "trustdomain.pb-c.h"

#include <stdio.h>

#define SERVICE "/spire.api.server.trustdomain.v1.TrustDomain/"

static const struct rpc list_rpc = { SERVICE "ListFederationRelationships",
				     &pb__list_federation_relationships_response__descriptor };
static const struct rpc get_rpc = { SERVICE "GetFederationRelationship", &pb__federation_relationship__descriptor };
static const struct rpc create_rpc = { SERVICE "BatchCreateFederationRelationship",
				       &pb__batch_create_federation_relationship_response__descriptor };
static const struct rpc update_rpc = { SERVICE "BatchUpdateFederationRelationship",
				       &pb__batch_update_federation_relationship_response__descriptor };
static const struct rpc delete_rpc = { SERVICE "BatchDeleteFederationRelationship",
				       &pb__batch_delete_federation_relationship_response__descriptor };
static const struct rpc refresh_rpc = { SERVICE "RefreshBundle", &pb__empty__descriptor };

struct write_options {
	struct cli_flags cli;
	struct relationship_flags relationship;
	const char *data;
};

/* What is shown of one result. */
struct outcome {
	const Pb__Status *status;
	const Pb__FederationRelationship *made, *asked;
};

static enum code show_outcomes(const struct outcome *outcomes, size_t n, const char *verb, struct err *err)
{
	bool failed = false;

	for (size_t i = 0; i < n; i++) {
		if (outcomes[i].status == NULL || outcomes[i].status->code != CODE_OK || outcomes[i].made == NULL)
			continue;
		printf("\n");
		print_relationship(stdout, outcomes[i].made);
	}
	for (size_t i = 0; i < n; i++) {
		if (outcomes[i].status == NULL || outcomes[i].status->code == CODE_OK)
			continue;
		failed = true;
		printf("\n");
		print_failure(outcomes[i].status, ":", "Failed to %s the following federation relationship", verb);
		if (outcomes[i].asked != NULL)
			print_relationship(stderr, outcomes[i].asked);
	}
	if (failed)
		return err_set(err, CODE_UNKNOWN, "failed to %s one or more federation relationships", verb);
	return CODE_OK;
}

static enum code run_create(struct cli *cli, const void *options, struct err *err)
{
	const struct write_options *o = options;
	Pb__BatchCreateFederationRelationshipRequest request = PB__BATCH_CREATE_FEDERATION_RELATIONSHIP_REQUEST__INIT;
	Pb__BatchCreateFederationRelationshipResponse *reply;
	struct outcome *outcomes;
	enum code rc;

	TRY(relationships_read(&o->relationship, o->data, cli->arena, &request.federation_relationships,
			       &request.n_federation_relationships, err));
	rc = cli_call(cli, &create_rpc, &request, &reply, err);
	if (rc != CODE_OK)
		return err_wrap(err, rc, "request failed");
	if (cli_json(cli))
		return cli_print_json(reply, err);
	outcomes = arena_alloc(cli->arena, reply->n_results * sizeof *outcomes);
	for (size_t i = 0; i < reply->n_results; i++)
		outcomes[i] =
			(struct outcome){ reply->results[i]->status, reply->results[i]->federation_relationship,
					  i < request.n_federation_relationships ? request.federation_relationships[i]
										 : NULL };
	return show_outcomes(outcomes, reply->n_results, "create", err);
}

static enum code run_update(struct cli *cli, const void *options, struct err *err)
{
	const struct write_options *o = options;
	Pb__BatchUpdateFederationRelationshipRequest request = PB__BATCH_UPDATE_FEDERATION_RELATIONSHIP_REQUEST__INIT;
	Pb__BatchUpdateFederationRelationshipResponse *reply;
	struct outcome *outcomes;
	enum code rc;

	TRY(relationships_read(&o->relationship, o->data, cli->arena, &request.federation_relationships,
			       &request.n_federation_relationships, err));
	rc = cli_call(cli, &update_rpc, &request, &reply, err);
	if (rc != CODE_OK)
		return err_wrap(err, rc, "request failed");
	if (cli_json(cli))
		return cli_print_json(reply, err);
	outcomes = arena_alloc(cli->arena, reply->n_results * sizeof *outcomes);
	for (size_t i = 0; i < reply->n_results; i++)
		outcomes[i] =
			(struct outcome){ reply->results[i]->status, reply->results[i]->federation_relationship,
					  i < request.n_federation_relationships ? request.federation_relationships[i]
										 : NULL };
	return show_outcomes(outcomes, reply->n_results, "update", err);
}

static enum code run_list(struct cli *cli, const void *options __attribute__((unused)), struct err *err)
{
	Pb__ListFederationRelationshipsRequest request = PB__LIST_FEDERATION_RELATIONSHIPS_REQUEST__INIT;
	Pb__ListFederationRelationshipsResponse *reply;
	enum code rc = cli_call(cli, &list_rpc, &request, &reply, err);
	size_t n;

	if (rc != CODE_OK)
		return err_wrap(err, rc, "error listing federation relationship");
	if (cli_json(cli))
		return cli_print_json(reply, err);
	n = reply->n_federation_relationships;
	printf("Found %zu %s\n", n, cli_plural(n, "federation relationship", "federation relationships"));
	for (size_t i = 0; i < n; i++) {
		printf("\n");
		print_relationship(stdout, reply->federation_relationships[i]);
	}
	return CODE_OK;
}

struct name_options {
	struct cli_flags cli;
	const char *trust_domain; /* -trustDomain of show, -id of the others */
};

static enum code run_show(struct cli *cli, const void *options, struct err *err)
{
	const struct name_options *o = options;
	Pb__GetFederationRelationshipRequest request = PB__GET_FEDERATION_RELATIONSHIP_REQUEST__INIT;
	Pb__FederationRelationship *relationship;
	enum code rc;

	if (o->trust_domain[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "a trust domain name is required");
	request.trust_domain = o->trust_domain;
	rc = cli_call(cli, &get_rpc, &request, &relationship, err);
	if (rc != CODE_OK)
		return err_wrap(err, rc, "error showing federation relationship");
	if (cli_json(cli))
		return cli_print_json(relationship, err);
	printf("Found a federation relationship with trust domain %s:\n\n", o->trust_domain);
	print_relationship(stdout, relationship);
	return CODE_OK;
}

static enum code run_delete(struct cli *cli, const void *options, struct err *err)
{
	const struct name_options *o = options;
	Pb__BatchDeleteFederationRelationshipRequest request = PB__BATCH_DELETE_FEDERATION_RELATIONSHIP_REQUEST__INIT;
	Pb__BatchDeleteFederationRelationshipResponse *reply;
	const char *names[] = { o->trust_domain };
	enum code rc;

	if (o->trust_domain[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "id is required");
	request.trust_domains = names;
	request.n_trust_domains = 1;
	rc = cli_call(cli, &delete_rpc, &request, &reply, err);
	if (rc != CODE_OK)
		return err_wrap(err, rc, "failed to delete federation relationship");
	if (cli_json(cli))
		return cli_print_json(reply, err);
	if (reply->n_results == 0 || reply->results[0]->status == NULL)
		return err_set(err, CODE_INTERNAL,
			       "failed to delete federation relationship: the server answered nothing");
	if (reply->results[0]->status->code != CODE_OK)
		return err_set(err, CODE_UNKNOWN, "failed to delete federation relationship %s: %s",
			       cli_quote(cli->arena, reply->results[0]->trust_domain),
			       reply->results[0]->status->message);
	printf("federation relationship deleted.\n");
	return CODE_OK;
}

static enum code run_refresh(struct cli *cli, const void *options, struct err *err)
{
	const struct name_options *o = options;
	Pb__RefreshBundleRequest request = PB__REFRESH_BUNDLE_REQUEST__INIT;
	Pb__Status ok = PB__STATUS__INIT;
	Pb__Empty *reply;
	enum code rc;

	if (o->trust_domain[0] == '\0')
		return err_set(err, CODE_INVALID_ARGUMENT, "id is required");
	request.trust_domain = o->trust_domain;
	rc = cli_call(cli, &refresh_rpc, &request, &reply, err);
	if (rc == CODE_NOT_FOUND)
		return err_set(err, rc, "there is no federation relationship with trust domain %s",
			       cli_quote(cli->arena, o->trust_domain));
	if (rc != CODE_OK)
		return err_wrap(err, rc, "failed to refresh bundle");
	ok.message = "OK";
	if (cli_json(cli))
		return cli_print_json(&ok, err);
	printf("Bundle refreshed\n");
	return CODE_OK;
}

static const struct flag write_flags[] = {
	CLI_FLAGS(struct write_options),
	FLAG_STRING(struct write_options, relationship.trust_domain, "trustDomain", "",
		    "The trust domain to federate with"),
	FLAG_STRING(struct write_options, relationship.url, "bundleEndpointURL", "",
		    "The URL of its bundle endpoint, https only"),
	FLAG_STRING(struct write_options, relationship.profile, "bundleEndpointProfile", "",
		    "How the endpoint is authenticated: https_web or https_spiffe"),
	FLAG_STRING(struct write_options, relationship.endpoint_id, "endpointSpiffeID", "",
		    "The SPIFFE ID of the endpoint, for https_spiffe"),
	FLAG_STRING(struct write_options, relationship.bundle_path, "trustDomainBundlePath", "",
		    "A file with the trust domain's bundle as it is now"),
	FLAG_STRING(struct write_options, relationship.bundle_format, "trustDomainBundleFormat", federation_pem_format,
		    "The form of that file: pem or spiffe; found from the content if it is not given"),
	FLAG_STRING(struct write_options, data, "data", "", "A JSON file with relationships, - for standard input"),
	FLAG_END,
};
static const struct flag list_flags[] = { CLI_FLAGS(struct name_options), FLAG_END };
static const struct flag show_flags[] = {
	CLI_FLAGS(struct name_options),
	FLAG_STRING(struct name_options, trust_domain, "trustDomain", "", "The trust domain of the relationship"),
	FLAG_END,
};
static const struct flag id_flags[] = {
	CLI_FLAGS(struct name_options),
	FLAG_STRING(struct name_options, trust_domain, "id", "", "The SPIFFE ID of the trust domain"),
	FLAG_END,
};

#define COMMAND(name, flags, options, run)                                                                             \
	const struct cli_command cmd_federation_##name = { { "federation " #name, flags }, sizeof(options), run }
COMMAND(create, write_flags, struct write_options, run_create);
COMMAND(update, write_flags, struct write_options, run_update);
COMMAND(list, list_flags, struct name_options, run_list);
COMMAND(show, show_flags, struct name_options, run_show);
COMMAND(delete, id_flags, struct name_options, run_delete);
COMMAND(refresh, id_flags, struct name_options, run_refresh);
