/* SPDX-License-Identifier: Apache-2.0 */
/* What `cluster status` and `drill failover` print: the JSON is a contract (cluster.md section 3). */
#include "cmd/cluster_print.h"
#include "cmd/drill.h"
#include "lib/test.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

static Pb__ClusterMember member(uint64_t id, const char *name, const char *state)
{
	Pb__ClusterMember m = PB__CLUSTER_MEMBER__INIT;

	m.id = id;
	m.name = name;
	m.role = id == 1 ? "leader" : "follower";
	m.voter = true;
	m.state = state;
	m.peer_address = "h:1";
	m.api_address = "h:2";
	m.applied = 7;
	m.version = "0.1.0";
	m.x509_authority = "ab";
	m.disk_free_mb = 5000;
	return m;
}

static char *printed(void (*print)(FILE *, const Pb__ClusterStatus *), const Pb__ClusterStatus *status)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	print(out, status);
	fclose(out);
	return text;
}

TEST(status_as_json)
{
	Pb__ClusterStatus status = PB__CLUSTER_STATUS__INIT;
	Pb__ClusterMember one = member(1, "n\"1", "up"), *members[1] = { &one };
	char *text;

	one.x509_ca_expires_at = 1000000000;
	one.last_contact_ms = -1;
	status.cluster_id = "c";
	status.trust_domain = "example.org";
	status.epoch = 1;
	status.node = "n1";
	status.leader = "";
	status.term = 4;
	status.voters = 3;
	status.revision = UINT64_C(9007199254740993);
	status.signing_budget_s = 3600;
	status.members = members;
	status.n_members = 1;
	text = printed(cluster_print_json, &status);
	CHECK_STR(
		text,
		"{\"cluster_id\":\"c\",\"trust_domain\":\"example.org\",\"epoch\":1,\"node\":\"n1\",\"leader\":\"\","
		"\"term\":4,"
		"\"quorum\":false,\"voters\":3,\"survives\":0,\"revision\":9007199254740993,\"signing_budget_s\":3600,"
		"\"members\":[{\"id\":1,\"name\":\"n\\\"1\",\"role\":\"leader\",\"voter\":true,\"state\":\"up\","
		"\"peer_address\":\"h:1\",\"api_address\":\"h:2\",\"applied\":7,\"lag\":0,\"last_contact_ms\":-1,"
		"\"version\":\"0.1.0\",\"x509_authority\":\"ab\",\"x509_ca_expires_at\":\"2001-09-09T01:46:40Z\","
		"\"disk_free_mb\":5000,\"clock_ahead_ms\":0}]}\n");
	free(text);
}

/* One warning for each thing, and none without. */
TEST(status_warns)
{
	Pb__ClusterStatus status = PB__CLUSTER_STATUS__INIT;
	Pb__ClusterMember one = member(1, "n1", "up"), two = member(2, "n2", "up"), gone = member(3, "n3", "removed");
	Pb__ClusterMember *members[] = { &one, &two, &gone };
	int64_t now_s = clock_wall_s();
	char *text;

	status.leader = "n1";
	status.quorum = true;
	status.voters = 3;
	status.members = members;
	status.n_members = 3;
	gone.version = "0.0.1";
	one.x509_ca_issued_at = now_s - 10 * 3600; /* a CA of a day, not due yet */
	one.x509_ca_expires_at = now_s + 14 * 3600;
	text = printed(cluster_print_pretty, &status);
	assert_null(strstr(text, "Warning"));
	free(text);

	status.quorum = false;
	status.voters = 2;
	one.x509_ca_issued_at = now_s - 240 * 3600;
	one.x509_ca_expires_at = now_s + 3600;
	one.disk_free_mb = 100;
	one.clock_ahead_ms = -1500;
	one.lag = 1001;
	two.state = "unreachable";
	two.version = "0.2.0";
	text = printed(cluster_print_pretty, &status);
	assert_non_null(strstr(text, "no quorum"));
	assert_non_null(strstr(text, "two voters survive no failure"));
	assert_non_null(strstr(text, "n2 cannot be reached"));
	assert_non_null(strstr(text, "n1 lags by 1001 changes"));
	assert_non_null(strstr(text, "the CA of n1 expires within a day"));
	assert_non_null(strstr(text, "n1 has 100 MiB of disk left"));
	assert_non_null(strstr(text, "the clock of n1 is 1500 ms behind"));
	assert_non_null(strstr(text, "different versions"));
	assert_null(strstr(text, "n3 cannot"));
	free(text);
}

TEST(drill_percentiles_and_verdict)
{
	struct drill_round rounds[4] = {
		{ .stalled_ms = 30 }, { .stalled_ms = 10 }, { .stalled_ms = 90 }, { .stalled_ms = 20 }
	};
	struct drill_report report = {
		.kind = "transfer", .wanted = 4, .rounds = rounds, .n = 4, .unchecked = "", .ended = ""
	};

	drill_sum_up(&report);
	CHECK_NUM(report.p50_ms, 20);
	CHECK_NUM(report.p99_ms, 90);
	CHECK_NUM(report.max_ms, 90);
	assert_true(drill_passed(&report));
	report.load.failed[14] = 3; /* retried: no failure of the drill */
	assert_true(drill_passed(&report));
	report.missing = 1;
	assert_false(drill_passed(&report));
	report.missing = 0;
	report.load.svids_refused = 1;
	assert_false(drill_passed(&report));
	report.load.svids_refused = 0;
	report.unchecked = "n3";
	assert_false(drill_passed(&report));
	report.n = 0;
	drill_sum_up(&report);
	CHECK_NUM(report.max_ms, 0);
}
