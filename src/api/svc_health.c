/* SPDX-License-Identifier: Apache-2.0 */
/* grpc.health.v1.Health: serving while the own bundle can be read (contract server-api.md 4.7). */
#include "api/server.h"
#include "api/state.h"
#include "api/svc.h"
#include "health.pb-c.h"

enum code health_check(struct call *call, const void *request, void *reply)
{
	const Pb__HealthCheckRequest *req = request;
	Pb__HealthCheckResponse *out = reply;
	OWN_STRUCT(view) view = NULL;
	uint64_t version = 0;

	if (req->service[0] != '\0')
		return err_set(call->err, CODE_INVALID_ARGUMENT, "per-service health is not supported");
	out->status = PB__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
	if (!state_is_single(call->server->state) &&
	    (state_now(call->server->state) == STATE_OUT || atomic_load(&call->server->stopping)))
		return CODE_OK; /* as /ready says */
	if (call_view(call, &view) == CODE_OK && view_bundle_version(view, call->server->td, &version, call->err) == CODE_OK && version != 0)
		out->status = PB__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
	return CODE_OK;
}
