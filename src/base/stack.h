/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_STACK_H
#define BASE_STACK_H

#include <stdbool.h>
#include <stddef.h>

/* Stacks to run code on, and the switch between them. Only task.c uses this.
 * The sanitizers are told of each switch; where there is no switch in assembly for the machine, ucontext does it. */
struct stack {
	void *sp;        /* while it does not run; ucontext: its ucontext_t */
	char *map;       /* the lowest address, a guard page; NULL: the stack that the thread was born with */
	const void *low; /* for ASan: where it begins, and its size */
	size_t size;
	void (*run)(void);
	void *fake;  /* ASan's shadow of its locals */
	void *fiber; /* TSan's name for it */
};

/* `room` bytes above the stack are the caller's (*top, aligned to 16). NULL: the machine gives no more memory. */
struct stack *stack_new(size_t room, void **top);

/* On a new or an ended stack: the first switch to it calls `run`, which never returns: its last act is a switch that
 * ends it. */
void stack_prepare(struct stack *stack, void (*run)(void));
void stack_free(struct stack *stack); /* one that does not run */

/* `home` (zeroed at first) stands for the stack that this thread was born with, from now on. */
void stack_home(struct stack *home);
void stack_home_done(struct stack *home);

/* Leaves `from`, which is running, for `to`. Returns when something switches back to `from`; with `ends` that never
 * happens. */
void stack_switch(struct stack *from, struct stack *to, bool ends);

/* After an `ends` switch, on the other stack: what the sanitizers kept of it is given back. */
void stack_ended(struct stack *stack);

#endif
