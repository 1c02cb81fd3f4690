/* SPDX-License-Identifier: Apache-2.0 */
/* Stacks: mappings with a guard page at their low end. `struct stack` itself lies at the high end of the mapping, then
 * the room that the caller asked for, then the stack grows down from there. */
#include "base/stack.h"

#include "base/sanitize.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
enum { STACK_SIZE = 512 << 10 }; /* its frames are several times as large */
#elif defined WITH_TSAN
#include <sanitizer/tsan_interface.h>
enum { STACK_SIZE = 256 << 10 };
#else
enum { STACK_SIZE = 64 << 10 };
#endif

enum { GUARD_INSTALL = 102 /* MADV_GUARD_INSTALL: Linux 6.13 */ };

#if defined __x86_64__ || defined __aarch64__

/* Saves what the calling convention says a function keeps, stores the stack pointer to *from, loads it from `to`,
 * restores. */
void stack_switch_registers(void **from, void *to);

#if defined __x86_64__
__asm__(".pushsection .text\n"
	".type stack_switch_registers, @function\n"
	"stack_switch_registers:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	".size stack_switch_registers, . - stack_switch_registers\n"
	".popsection\n");

static void *first_frame(uintptr_t top, void (*run)(void))
{
	uintptr_t *sp = (uintptr_t *)top;

	*--sp = 0;              /* the caller of `run`: none; debuggers stop here */
	*--sp = (uintptr_t)run; /* where the switch returns to; then sp is 8 off a multiple of 16, as after a call */
	for (int i = 0; i < 6; i++)
		*--sp = 0;
	return sp;
}
#else
__asm__(".pushsection .text\n"
	".type stack_switch_registers, %function\n"
	"stack_switch_registers:\n"
	"	sub sp, sp, #160\n"
	"	stp x19, x20, [sp, #0]\n"
	"	stp x21, x22, [sp, #16]\n"
	"	stp x23, x24, [sp, #32]\n"
	"	stp x25, x26, [sp, #48]\n"
	"	stp x27, x28, [sp, #64]\n"
	"	stp x29, x30, [sp, #80]\n"
	"	stp d8, d9, [sp, #96]\n"
	"	stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]\n"
	"	stp d14, d15, [sp, #144]\n"
	"	mov x9, sp\n"
	"	str x9, [x0]\n"
	"	mov sp, x1\n"
	"	ldp x19, x20, [sp, #0]\n"
	"	ldp x21, x22, [sp, #16]\n"
	"	ldp x23, x24, [sp, #32]\n"
	"	ldp x25, x26, [sp, #48]\n"
	"	ldp x27, x28, [sp, #64]\n"
	"	ldp x29, x30, [sp, #80]\n"
	"	ldp d8, d9, [sp, #96]\n"
	"	ldp d10, d11, [sp, #112]\n"
	"	ldp d12, d13, [sp, #128]\n"
	"	ldp d14, d15, [sp, #144]\n"
	"	add sp, sp, #160\n"
	"	ret\n"
	".size stack_switch_registers, . - stack_switch_registers\n"
	".popsection\n");

static void *first_frame(uintptr_t top, void (*run)(void))
{
	uintptr_t *sp = (uintptr_t *)(top - 160);

	memset(sp, 0, 160);
	sp[11] = (uintptr_t)run; /* x30 */
	return sp;
}
#endif

static void set_first(struct stack *stack, uintptr_t top, void (*run)(void))
{
	stack->sp = first_frame(top, run);
}

static void switch_to(struct stack *from, struct stack *to)
{
	stack_switch_registers(&from->sp, to->sp);
}

static void forget(struct stack *stack)
{
	stack->sp = NULL;
}

#else /* any other machine: a system call a switch */
#include "base/arena.h"

#include <ucontext.h>

static void set_first(struct stack *stack, uintptr_t top, void (*run)(void))
{
	ucontext_t *context = xcalloc(1, sizeof *context);

	getcontext(context);
	context->uc_stack.ss_sp = (void *)stack->low;
	context->uc_stack.ss_size = top - (uintptr_t)stack->low;
	makecontext(context, run, 0);
	free(stack->sp);
	stack->sp = context;
}

static void switch_to(struct stack *from, struct stack *to)
{
	if (from->sp == NULL)
		from->sp = xcalloc(1, sizeof(ucontext_t));
	swapcontext(from->sp, to->sp);
}

static void forget(struct stack *stack)
{
	free(stack->sp);
	stack->sp = NULL;
}
#endif

/* --- what the sanitizers want to know
 * ----------------------------------------------------------------------------------- */

static _Thread_local struct stack *here; /* the one that runs, if any was entered yet */
static _Thread_local struct stack *left; /* the one that ran before it */

static void leave(struct stack *from, struct stack *to, bool ends)
{
	left = from;
	here = to;
#ifdef WITH_ASAN
	__sanitizer_start_switch_fiber(ends ? NULL : &from->fake, to->low, to->size);
#elif defined WITH_TSAN
	(void)ends;
	__tsan_switch_to_fiber(to->fiber, 0);
#else
	(void)ends;
#endif
}

/* The first thing on the other side. ASan tells where the thread's own stack lies. */
static void arrive(void)
{
#ifdef WITH_ASAN
	__sanitizer_finish_switch_fiber(here->fake, &left->low, &left->size);
#endif
}

static __attribute__((no_sanitize_address)) void begin(void)
{
	arrive();
	here->run();
	abort(); /* `run` may not return */
}

/* --- the contract of stack.h
 * -------------------------------------------------------------------------------------------- */

static size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE); /* no system call: glibc has it from the kernel's start vector */
}

struct stack *stack_new(size_t room, void **top)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK;
	size_t guard = page_size(), size = guard + STACK_SIZE;
	char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
	struct stack *stack;
	uintptr_t at;

	if (map == MAP_FAILED)
		return NULL;
	/* The new way leaves one mapping where mprotect makes two: the number of mappings is limited. */
	if (madvise(map, guard, GUARD_INSTALL) != 0 && mprotect(map, guard, PROT_NONE) != 0) {
		munmap(map, size);
		return NULL;
	}
	stack = (struct stack *)(((uintptr_t)map + size - sizeof *stack) & ~(uintptr_t)15);
	at = ((uintptr_t)stack - room) & ~(uintptr_t)15;
	*stack = (struct stack){ .map = map, .low = map + guard, .size = at - (uintptr_t)(map + guard) };
	*top = (void *)at;
	return stack;
}

void stack_prepare(struct stack *stack, void (*run)(void))
{
	stack->run = run;
	stack->fake = NULL;
	set_first(stack, (uintptr_t)stack->low + stack->size, begin);
#ifdef WITH_TSAN
	stack->fiber = __tsan_create_fiber(0);
#endif
}

void stack_free(struct stack *stack)
{
	forget(stack);
	munmap(stack->map, page_size() + STACK_SIZE);
}

void stack_home(struct stack *home)
{
#ifdef WITH_TSAN
	home->fiber = __tsan_get_current_fiber();
#else
	(void)home;
#endif
}

void stack_home_done(struct stack *home)
{
	forget(home);
}

void stack_switch(struct stack *from, struct stack *to, bool ends)
{
	leave(from, to, ends);
	switch_to(from, to);
	arrive();
}

void stack_ended(struct stack *stack)
{
#ifdef WITH_ASAN
	ASAN_UNPOISON_MEMORY_REGION(stack->low, stack->size);
#elif defined WITH_TSAN
	__tsan_destroy_fiber(stack->fiber);
#else
	(void)stack;
#endif
}
