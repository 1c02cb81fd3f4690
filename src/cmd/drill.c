/* SPDX-License-Identifier: Apache-2.0 */
/* `drill failover`: takes leadership from its holder again and again while a probe load runs, and says how long writes
 * stalled and whether anything that was acknowledged is missing (contract cluster.md section 2).
 *
 *   look (quorum? all up?) -> load -> round: take leadership, wait for writes -> ... -> stop -> compare all nodes ->
 * clean up
 *
 * The nodes: those of -server, or those whose sockets -socketPath lists ("a,b,c"). `stop` and `kill` end the process
 * behind the first socket, which must be restarted by whoever supervises it. */
#include "cmd/drill.h"

#include "base/clock.h"
#include "base/rand.h"
#include "cmd/cli.h"
#include "cmd/commands.h"
#include "cmd/reach.h"

#include "cluster.pb-c.h"
#include "entry.pb-c.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
	RATE_MAX = 1000,
	POLL_MS = 20,
	WARM_UP_MS = 500,
	SETTLE_MS = 300,
	ROUND_MS = 30 * 1000,
	RESTART_MS = 60 * 1000,
	CALL_MS = 12 * 1000,
	PAGE = 1000,
	DELETE_AT_ONCE = 200
};

#define SERVICE "/" NAME ".cluster.v1.Cluster/"
#define ENTRY "/spire.api.server.entry.v1.Entry/"

struct failover_options {
	struct cli_flags cli;
	int64_t rounds, rate;
	const char *kind, *report;
	bool yes;
};

struct drill {
	struct arena *arena;
	const struct failover_options *options;
	struct drill_target targets[DRILL_TARGETS_MAX];
	struct client *clients[DRILL_TARGETS_MAX];
	size_t n;
	const char *socket; /* of the node that may be ended */
	pid_t ended;        /* the process that was */
	char run[9];
	const char *td;
	struct drill_load *load;
	struct drill_report report;
};

static void sleep_ms(int64_t ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

/* --- calls --- */

static enum code call_at(struct drill *drill, size_t at, const char *method, const void *request,
			 const ProtobufCMessageDescriptor *type, struct arena *arena, void **out, struct err *err)
{
	enum code rc;

	if (drill->clients[at] == NULL)
		TRY(client_open(&drill->targets[at].options, &drill->clients[at], err));
	client_timeout(drill->clients[at], CALL_MS);
	rc = client_call(drill->clients[at], method, request, type, arena, out, err);
	if (rc != CODE_OK && client_trailer(drill->clients[at], "grpc-status") == NULL) {
		client_close(drill->clients[at]);
		drill->clients[at] = NULL;
	}
	return rc;
}

/* At whichever node is available. */
static enum code call_any(struct drill *drill, const char *method, const void *request,
			  const ProtobufCMessageDescriptor *type, void **out, struct err *err)
{
	enum code rc = CODE_UNAVAILABLE;

	for (size_t i = 0; i < drill->n; i++) {
		rc = call_at(drill, i, method, request, type, drill->arena, out, err);
		if (rc != CODE_UNAVAILABLE)
			break;
	}
	return rc;
}

static enum code status_of(struct drill *drill, size_t at, Pb__ClusterStatus **out, struct err *err)
{
	Pb__ClusterStatusRequest request = PB__CLUSTER_STATUS_REQUEST__INIT;
	void *answer = NULL;

	TRY(call_at(drill, at, SERVICE "Status", &request, &pb__cluster_status__descriptor, drill->arena, &answer,
		    err));
	*out = answer;
	return CODE_OK;
}

/* --- before --- */

static enum code find_targets(struct drill *drill, struct cli *cli, struct err *err)
{
	char *text, *save = NULL;
	const char *server;
	struct reach *reach;

	TRY(cli_reach(cli, &reach, err));
	text = arena_strdup(drill->arena,
			    cli->flags->socket_path[0] != '\0' ? cli->flags->socket_path : CLI_SOCKET_PATH);
	for (char *path = strtok_r(text, ",", &save); path != NULL; path = strtok_r(NULL, ",", &save)) {
		drill->socket = drill->socket == NULL ? path : drill->socket;
		if (reach_by_tcp(reach))
			continue;
		if (drill->n == DRILL_TARGETS_MAX)
			return err_set(err, CODE_INVALID_ARGUMENT, "more than %d nodes", DRILL_TARGETS_MAX);
		drill->targets[drill->n++] = (struct drill_target){ { .unix_path = path }, path };
	}
	for (size_t i = 0; (server = reach_server(reach, i)) != NULL; i++) {
		if (drill->n == DRILL_TARGETS_MAX)
			return err_set(err, CODE_INVALID_ARGUMENT, "more than %d nodes", DRILL_TARGETS_MAX);
		drill->targets[drill->n] = (struct drill_target){ *reach_options(reach), server };
		drill->targets[drill->n++].options.tcp = server;
	}
	return CODE_OK;
}

static enum code check_options(const struct failover_options *o, struct err *err)
{
	bool ends = strcmp(o->kind, "stop") == 0 || strcmp(o->kind, "kill") == 0;

	if (!ends && strcmp(o->kind, "transfer") != 0)
		return err_set(err, CODE_INVALID_ARGUMENT, "-kind: expected transfer, stop or kill, got '%s'", o->kind);
	if (ends && !o->yes)
		return err_set(
			err, CODE_INVALID_ARGUMENT,
			"-kind %s ends the server behind the first -socketPath in each round; it must be restarted by "
			"what supervises it. Say -yes if that is meant",
			o->kind);
	if (o->rounds < 1 || o->rounds > DRILL_ROUNDS_MAX)
		return err_set(err, CODE_INVALID_ARGUMENT, "-rounds: expected 1 to %d", DRILL_ROUNDS_MAX);
	if (o->rate < 1 || o->rate > RATE_MAX)
		return err_set(err, CODE_INVALID_ARGUMENT, "-rate: expected 1 to %d", RATE_MAX);
	return CODE_OK;
}

/* No drill on a cluster that could not stand it. */
static enum code check_cluster(struct drill *drill, struct err *err)
{
	Pb__ClusterStatus *status = NULL;

	for (size_t i = 0; i < drill->n; i++)
		if (status_of(drill, i, &status, err) != CODE_OK)
			return err_set(err, CODE_FAILED_PRECONDITION, "%s: %s", drill->targets[i].label, err->text);
	drill->td = status->trust_domain;
	if (!status->quorum)
		return err_set(err, CODE_FAILED_PRECONDITION, "the cluster has no leader: no drill");
	if (status->survives < 1)
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "the cluster would survive no failure now (%" PRIu32 " voters): no drill",
			       status->voters);
	return CODE_OK;
}

/* --- a round --- */

static enum code transfer(struct drill *drill, const char *name, struct drill_round *round, struct err *err)
{
	Pb__ClusterTransferRequest request = PB__CLUSTER_TRANSFER_REQUEST__INIT;
	const Pb__ClusterTransferred *done;
	void *answer = NULL;

	request.name = name;
	TRY(call_any(drill, SERVICE "Transfer", &request, &pb__cluster_transferred__descriptor, &answer, err));
	done = answer;
	snprintf(round->to, sizeof round->to, "%s", done->leader);
	round->term = done->term;
	return CODE_OK;
}

/* Who leads, as one of the nodes says that hears somebody; not `but`. */
static enum code wait_leader(struct drill *drill, const char *but, struct drill_round *round, struct err *err)
{
	int64_t end_ms = clock_mono_ms() + ROUND_MS;

	while (clock_mono_ms() < end_ms) {
		for (size_t i = 0; i < drill->n; i++) {
			Pb__ClusterStatus *status;

			if (status_of(drill, i, &status, err) != CODE_OK || status->leader[0] == '\0' ||
			    strcmp(status->leader, but) == 0)
				continue;
			snprintf(round->to, sizeof round->to, "%s", status->leader);
			round->term = status->term;
			return CODE_OK;
		}
		sleep_ms(POLL_MS);
	}
	return err_set(err, CODE_UNAVAILABLE, "no other leader within %d s", ROUND_MS / 1000);
}

static enum code own_status(struct drill *drill, Pb__ClusterStatus **out, struct err *err)
{
	const struct client_options options = { .unix_path = drill->socket };
	Pb__ClusterStatusRequest request = PB__CLUSTER_STATUS_REQUEST__INIT;
	OWN_STRUCT(client) client = NULL;
	void *answer = NULL;

	TRY(client_open(&options, &client, err));
	client_timeout(client, CALL_MS);
	TRY(client_call(client, SERVICE "Status", &request, &pb__cluster_status__descriptor, drill->arena, &answer,
			err));
	*out = answer;
	return CODE_OK;
}

/* The process that listens on the socket. */
static enum code own_pid(const char *path, pid_t *out, struct err *err)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct ucred who = { 0 };
	socklen_t len = sizeof who;
	int fd, rv;

	if (strlen(path) >= sizeof at.sun_path)
		return err_set(err, CODE_INVALID_ARGUMENT, "the path '%s' is too long for a socket", path);
	memcpy(at.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(err, CODE_INTERNAL, errno, "socket", path);
	rv = connect(fd, (const struct sockaddr *)&at, sizeof at);
	if (rv == 0)
		rv = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len);
	if (rv != 0)
		err_errno(err, CODE_UNAVAILABLE, errno, "connect", path);
	close(fd);
	if (rv != 0)
		return CODE_UNAVAILABLE;
	if (who.pid <= 1)
		return err_set(err, CODE_FAILED_PRECONDITION,
			       "the server behind '%s' runs in another process namespace", path);
	*out = who.pid;
	return CODE_OK;
}

static enum code end_own(struct drill *drill, struct drill_round *round, struct err *err)
{
	bool kills = strcmp(drill->options->kind, "kill") == 0;
	Pb__ClusterStatus *status;

	TRY(own_status(drill, &status, err));
	snprintf(round->from, sizeof round->from, "%s", status->node);
	if (strcmp(status->leader, status->node) != 0) {
		struct drill_round ignored;

		TRY(transfer(drill, status->node, &ignored, err));
		sleep_ms(SETTLE_MS);
	}
	TRY(own_pid(drill->socket, &drill->ended, err));
	drill_load_round(drill->load);
	if (kill(drill->ended, kills ? SIGKILL : SIGTERM) != 0)
		return err_set(err, CODE_FAILED_PRECONDITION, "process %d cannot be ended: %s", (int)drill->ended,
			       strerror(errno));
	return wait_leader(drill, round->from, round, err);
}

static enum code move_leadership(struct drill *drill, struct drill_round *round, struct err *err)
{
	struct drill_round before = { 0 };

	TRY(wait_leader(drill, "", &before, err));
	snprintf(round->from, sizeof round->from, "%s", before.to);
	drill_load_round(drill->load);
	return transfer(drill, "", round, err);
}

/* Writes go through again, none that waited is left. */
static enum code measure(struct drill *drill, struct drill_round *round, struct err *err)
{
	int64_t end_ms = clock_mono_ms() + ROUND_MS;
	uint64_t writes, before;

	drill_load_slowest_ms(drill->load, &before);
	for (;;) {
		sleep_ms(SETTLE_MS);
		round->stalled_ms = drill_load_slowest_ms(drill->load, &writes);
		if (writes >= before + drill->n)
			return CODE_OK;
		if (clock_mono_ms() > end_ms)
			return err_set(err, CODE_UNAVAILABLE, "writes did not go on within %d s", ROUND_MS / 1000);
	}
}

/* The node that was ended is a member again that has everything. */
static enum code wait_restart(struct drill *drill, const char *name, struct err *err)
{
	int64_t end_ms = clock_mono_ms() + RESTART_MS;

	while (clock_mono_ms() < end_ms) {
		Pb__ClusterStatus *status;
		pid_t pid;

		sleep_ms(POLL_MS * 5);
		if (own_pid(drill->socket, &pid, err) != CODE_OK || pid == drill->ended ||
		    own_status(drill, &status, err) != CODE_OK || status->leader[0] == '\0')
			continue;
		for (size_t i = 0; i < status->n_members; i++)
			if (strcmp(status->members[i]->name, name) == 0 && strcmp(status->members[i]->state, "up") == 0)
				return CODE_OK;
	}
	return err_set(err, CODE_UNAVAILABLE, "%s has not come back within %d s", name, RESTART_MS / 1000);
}

static enum code do_round(struct drill *drill, struct err *err)
{
	struct drill_round *round = &drill->report.rounds[drill->report.n];
	bool ends = strcmp(drill->options->kind, "transfer") != 0;

	TRY(ends ? end_own(drill, round, err) : move_leadership(drill, round, err));
	TRY(measure(drill, round, err));
	drill->report.n++;
	return ends ? wait_restart(drill, round->from, err) : CODE_OK;
}

/* --- after --- */

struct found {
	uint8_t *there[DRILL_TARGETS_MAX]; /* by writer: one a write, up to `n` */
	uint64_t n;
	const char **ids; /* of the first node: to be deleted */
	size_t n_ids, cap_ids;
};

static void note_entry(struct drill *drill, struct found *found, const Pb__Entry *entry, bool with_ids)
{
	unsigned writer;
	uint64_t n;

	if (with_ids) {
		if (found->n_ids == found->cap_ids)
			found->ids =
				xrealloc(found->ids, (found->cap_ids = 2 * found->cap_ids + 256) * sizeof *found->ids);
		found->ids[found->n_ids++] = arena_strdup(drill->arena, entry->id);
	}
	if (sscanf(entry->spiffe_id->path, "/drill/%*8[0-9a-f]/%u/%" SCNu64, &writer, &n) == 2 && writer < drill->n &&
	    n < found->n)
		found->there[writer][n] = 1;
}

static enum code list_probe(struct drill *drill, size_t at, struct found *found, bool with_ids, struct err *err)
{
	Pb__SPIFFEID parent = PB__SPIFFEID__INIT;
	Pb__ListEntriesRequest__Filter filter = PB__LIST_ENTRIES_REQUEST__FILTER__INIT;
	Pb__ListEntriesRequest request = PB__LIST_ENTRIES_REQUEST__INIT;

	parent.trust_domain = drill->td;
	parent.path = arena_printf(drill->arena, "/drill/%s", drill->run);
	filter.by_parent_id = &parent;
	request.filter = &filter;
	request.page_size = PAGE;
	request.page_token = "";
	do {
		OWN_STRUCT(arena) arena = arena_new();
		const Pb__ListEntriesResponse *page;
		void *answer = NULL;

		TRY(call_at(drill, at, ENTRY "ListEntries", &request, &pb__list_entries_response__descriptor, arena,
			    &answer, err));
		page = answer;
		for (size_t i = 0; i < page->n_entries; i++)
			note_entry(drill, found, page->entries[i], with_ids);
		request.page_token = arena_strdup(drill->arena, page->next_page_token);
	} while (request.page_token[0] != '\0');
	return CODE_OK;
}

/* Has this node applied what every other one has? */
static enum code catch_up(struct drill *drill, size_t at, uint64_t revision, struct err *err)
{
	Pb__ClusterWaitRequest request = PB__CLUSTER_WAIT_REQUEST__INIT;
	void *answer = NULL;

	request.revision = revision;
	return call_at(drill, at, SERVICE "Wait", &request, &pb__cluster_waited__descriptor, drill->arena, &answer,
		       err);
}

static void compare(struct drill *drill, struct found *found)
{
	uint64_t revision = 0;
	struct err err = { 0 };

	for (size_t i = 0; i < drill->n; i++) {
		Pb__ClusterStatus *status;

		if (status_of(drill, i, &status, &err) == CODE_OK && status->revision > revision)
			revision = status->revision;
	}
	for (size_t i = 0; i < drill->n; i++) {
		for (size_t w = 0; w < drill->n; w++)
			memset(found->there[w], 0, found->n);
		if (catch_up(drill, i, revision, &err) != CODE_OK ||
		    list_probe(drill, i, found, found->n_ids == 0, &err) != CODE_OK) {
			drill->report.unchecked = arena_printf(drill->arena, "%s%s%s (%s)", drill->report.unchecked,
							       drill->report.unchecked[0] != '\0' ? ", " : "",
							       drill->targets[i].label, err.text);
			continue;
		}
		for (size_t w = 0; w < drill->n; w++)
			for (uint64_t n = 0; n < found->n; n++)
				drill->report.missing +=
					drill_load_acknowledged(drill->load, (unsigned)w, n) && !found->there[w][n];
	}
}

/* What the probe made goes again; what cannot be deleted is said, and harms nobody. */
static void clean_up(struct drill *drill, const struct found *found)
{
	struct err err = { 0 };

	for (size_t at = 0; at < found->n_ids; at += DELETE_AT_ONCE) {
		Pb__BatchDeleteEntryRequest request = PB__BATCH_DELETE_ENTRY_REQUEST__INIT;
		void *answer = NULL;

		request.ids = found->ids + at;
		request.n_ids = found->n_ids - at < DELETE_AT_ONCE ? found->n_ids - at : DELETE_AT_ONCE;
		if (call_any(drill, ENTRY "BatchDeleteEntry", &request, &pb__batch_delete_entry_response__descriptor,
			     &answer, &err) != CODE_OK) {
			fprintf(stderr, "Entries below /drill/%s could not all be deleted: %s\n", drill->run, err.text);
			return;
		}
	}
}

static void judge(struct drill *drill)
{
	struct found found = { 0 };

	drill_load_result(drill->load, &drill->report.load);
	found.n = drill->report.load.writes + drill->report.load.given_up + 1;
	for (size_t w = 0; w < drill->n; w++)
		found.there[w] = xcalloc(found.n, 1);
	compare(drill, &found);
	clean_up(drill, &found);
	for (size_t w = 0; w < drill->n; w++)
		free(found.there[w]);
	free(found.ids);
	drill_sum_up(&drill->report);
}

static enum code write_report(const struct drill *drill, struct err *err)
{
	FILE *file = fopen(drill->options->report, "we");

	if (file == NULL)
		return err_errno(err, CODE_INVALID_ARGUMENT, errno, "open", drill->options->report);
	drill_print_html(file, &drill->report);
	if (fclose(file) != 0)
		return err_errno(err, CODE_INTERNAL, errno, "write", drill->options->report);
	return CODE_OK;
}

static enum code drill_all(struct drill *drill, struct err *err)
{
	struct drill_load_options load = { drill->targets, drill->n, drill->td, drill->run, drill->options->rate };
	struct err why = { 0 };

	TRY(drill_load_start(&load, &drill->load, err));
	sleep_ms(WARM_UP_MS);
	while ((int64_t)drill->report.n < drill->options->rounds)
		if (do_round(drill, &why) != CODE_OK) {
			drill->report.ended = arena_strdup(drill->arena, why.text);
			break;
		}
	drill_load_stop(drill->load);
	judge(drill);
	return drill->options->report[0] != '\0' ? write_report(drill, err) : CODE_OK;
}

static enum code run_failover(struct cli *cli, const void *options, struct err *err)
{
	const struct failover_options *o = options;
	struct drill drill = { .arena = cli->arena, .options = o };
	char id[37];
	enum code rc;

	TRY(check_options(o, err));
	drill.report = (struct drill_report){ .kind = o->kind, .wanted = o->rounds, .unchecked = "", .ended = "" };
	drill.report.rounds = arena_zalloc(cli->arena, (size_t)o->rounds * sizeof *drill.report.rounds);
	rand_uuid4(id);
	snprintf(drill.run, sizeof drill.run, "%.8s", id);
	rc = find_targets(&drill, cli, err);
	if (rc == CODE_OK)
		rc = check_cluster(&drill, err);
	if (rc == CODE_OK)
		rc = drill_all(&drill, err);
	if (rc == CODE_OK && cli_json(cli))
		drill_print_json(stdout, &drill.report);
	else if (rc == CODE_OK)
		drill_print_pretty(stdout, &drill.report);
	drill_load_free(drill.load);
	for (size_t i = 0; i < drill.n; i++)
		client_close(drill.clients[i]);
	if (rc == CODE_OK && !drill_passed(&drill.report))
		return err_set(err, CODE_INTERNAL, "the drill has failed");
	return rc;
}

static const struct flag failover_flags[] = {
	CLI_FLAGS(struct failover_options),
	FLAG_INT(struct failover_options, rounds, "rounds", 5, "How often leadership is taken away"),
	FLAG_STRING(struct failover_options, kind, "kind", "transfer",
		    "How: transfer, or the server behind the first -socketPath is ended by stop or kill"),
	FLAG_INT(struct failover_options, rate, "rate", 50, "Writes a second, of all nodes together"),
	FLAG_STRING(struct failover_options, report, "report", "", "File for the report as HTML"),
	FLAG_BOOL(struct failover_options, yes, "yes", "stop and kill are meant"),
	FLAG_END,
};
const struct cli_command cmd_drill_failover = { { "drill failover", failover_flags },
						sizeof(struct failover_options),
						run_failover };
