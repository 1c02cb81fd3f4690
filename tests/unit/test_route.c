/* SPDX-License-Identifier: Apache-2.0 */
#include "api/route.h"
#include "lib/test.h"

static struct span text(const char *s)
{
	return (struct span){ (const uint8_t *)s, strlen(s) };
}

TEST(every_row_is_found)
{
	bool known;

	for (size_t i = 0; i < n_routes; i++) {
		CHECK(route_find(text(routes[i].service), text(routes[i].method), false, &known) == &routes[i]);
		CHECK(known);
		CHECK((route_find(text(routes[i].service), text(routes[i].method), true, &known) != NULL) ==
		      routes[i].tcp);
		CHECK(known == routes[i].tcp);
		CHECK(routes[i].path[0] == '/' && strstr(routes[i].path, routes[i].method) != NULL);
		CHECK(routes[i].who != 0);
	}
}

TEST(what_is_not_there)
{
	bool known = false;

	CHECK(route_find(text("spire.api.server.entry.v1.Entry"), text("Nothing"), true, &known) == NULL && known);
	CHECK(route_find(text("spire.api.server.none.v1.None"), text("GetEntry"), true, &known) == NULL && !known);
	CHECK(route_find(text("spire.api.server.debug.v1.Debug"), text("Nothing"), true, &known) == NULL && !known);
	CHECK(route_find(text("spire.api.server.debug.v1.Debug"), text("Nothing"), false, &known) == NULL && known);
	CHECK(route_find(text(""), text(""), false, &known) == NULL && !known);
	CHECK(route_find(text("spire.api.server.entry.v1.Entr"), text("yGetEntry"), false, &known) == NULL && !known);
}

static const struct route *find(const char *service, const char *method)
{
	bool known;

	return route_find(text(service), text(method), false, &known);
}

TEST(names_of_log_and_metrics)
{
	const struct route *attest = find("spire.api.server.agent.v1.Agent", "AttestAgent");
	const struct route *svid = find("spire.api.server.svid.v1.SVID", "BatchNewX509SVID");

	CHECK_STR(route_service(attest), "agent.v1.Agent");
	CHECK_STR(route_metric(attest), "rpc_agent_v1_agent_attest_agent");
	CHECK_STR(route_metric(svid), "rpc_svid_v1_svid_batch_new_x509svid");
	CHECK_STR(route_service(find("grpc.health.v1.Health", "Check")), "Health");
	CHECK_STR(route_metric(find("grpc.health.v1.Health", "Check")), "rpc_health_check");
	CHECK_STR(route_service(find("spire.api.server.logger.v1.Logger", "GetLogger")), "Logger");
	CHECK_STR(route_metric(find("spire.api.server.logger.v1.Logger", "GetLogger")), "rpc_logger_get_logger");
	CHECK_STR(route_metric(find("spire.api.server.trustdomain.v1.TrustDomain", "RefreshBundle")),
		  "rpc_trustdomain_v1_trust_domain_refresh_bundle");
}
