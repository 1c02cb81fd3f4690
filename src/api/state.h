/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_STATE_H
#define API_STATE_H

#include "api/server.h"
#include "base/err.h"
#include "base/loop.h"

/* May this node answer? (availability.md sections 1 and 2.) A server without a cluster {} block always may.
 *
 *            hears a leader, caught up                 no leader for 10 s, budget left
 *   OUT -------------------------------> LED ------------------------------------------> ALONE
 *    ^  <---- lags 10 s; 10 s without -- |  <------- hears a leader, caught up ----------- |
 *    |        authority or budget                                                          |
 *    +---------------------------------------- 10 s without authority or budget -----------+
 *
 * A leader that has gone is waited for: until 10 s are over a node stays what it was, and calls wait. */
enum node_state { STATE_OUT, STATE_LED, STATE_ALONE };

/* --- The rules, pure: no clock, no file, no socket. --- */

struct state_facts { /* what the node sees of itself at one moment */
	int64_t mono_ms, boot_ms, wall_ms;
	bool hears_leader; /* or is it */
	bool caught_up; /* at some moment of the last 10 s it had applied all it had heard committed when that began */
	bool can_sign;  /* has authorities that agents can know */
};

struct state_machine {
	int64_t max_staleness_ms;
	enum node_state state;
	const char *why; /* it is OUT: a constant */
	bool open;       /* the TCP port: follows the state, but goes out and back at most once in 30 s */

	/* The state of this replica was current at that moment: the beginning of the last round that a quorum
	 * confirmed. */
	int64_t fresh_boot_ms; /* 0: not in this process */
	int64_t fresh_wall_ms; /* 0: never since it joined */

	int64_t heard_ms;          /* of the last step that heard a leader; at the start that of the first step */
	int64_t unusable_since_ms; /* without authority or budget; -1: it is not */
	int64_t closed_ms;         /* when the port was last closed; -1: never */
	bool begun;
	bool leaderless; /* no leader for 10 s: not worth waiting for */
};

void state_machine_init(struct state_machine *machine, int64_t max_staleness_ms, int64_t fresh_wall_ms);
void state_machine_step(struct state_machine *machine, const struct state_facts *facts);
/* A confirmed read that began then has come back. */
void state_machine_fresh(struct state_machine *machine, int64_t boot_ms, int64_t wall_ms);
/* How long ago that was, by the clock that says the longer time; INT64_MAX: never, or a clock went back over a restart.
 */
int64_t state_machine_age_ms(const struct state_machine *machine, int64_t boot_ms, int64_t wall_ms);

/* --- The node. Reading is thread-safe and cheap; NULL is a server without other members. --- */

struct state;

/* Reads what the budget was: data_dir/node/budget. `server` must outlive it. */
enum code state_open(struct server *server, struct state **out, struct err *err);
void state_close(struct state *state); /* after the loop of state_run has ended. NULL is fine */
OWNABLE_STRUCT(state, state_close)

/* Keeps it up on this loop from now on. `port(ctx, open)` is called in a task of the loop, first with true, whenever
 * the port is to be opened or closed; false: it could not be opened (said in the log), try again. */
typedef bool state_port_fn(void *ctx, bool open);
void state_run(struct state *state, struct loop *loop, state_port_fn *port, void *ctx);

void state_stop(struct state *state); /* on the loop: `port` is not called any more. NULL is fine */

enum node_state state_now(const struct state *state);
bool state_is_leaderless(const struct state *state);    /* no leader for 10 s: calls that need one do not wait */
bool state_is_single(const struct state *state);        /* no cluster {} block: nobody to ask */
int64_t state_stale_s(const struct state *state);       /* since when nobody has confirmed what stands here */
int64_t state_budget_left_s(const struct state *state); /* how long it goes on without a leader; 0: over */

/* May a yes rest on this replica alone? False: the budget is over, or none is given (max_staleness = "0s"). */
bool state_may_say_yes(const struct state *state);

/* A confirmed read has come back that began then (clock_boot_ms, clock_wall_ms). */
void state_fresh(struct state *state, int64_t boot_ms, int64_t wall_ms);

/* UNAVAILABLE "no leader: 1 of 3 voters reachable from 'n1' (n2: connection refused, ...)". */
enum code state_no_leader(const struct server *server, struct err *err);
/* UNAVAILABLE "node 'n3' is out of service: ..." */
enum code state_refuse(const struct server *server, struct err *err);

struct state *state_for_test(struct server *server, enum node_state now); /* stays so; state_close */
void state_force(struct state *state, enum node_state now);

#endif
