/* SPDX-License-Identifier: Apache-2.0 */
/* Fault points. One can be armed at a time. */
#include "base/fault.h"

#include <ctype.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Atomic bool armed;
static char point[64]; /* written before `armed` is set */
static bool kills;
static _Atomic unsigned passes_left; /* 1: the next pass fails */
static _Atomic bool fired;

static void arm(const char *name, unsigned nth, bool kill_there)
{
	atomic_store(&armed, false);
	snprintf(point, sizeof point, "%s", name);
	kills = kill_there;
	atomic_store(&fired, false);
	atomic_store(&passes_left, nth);
	atomic_store(&armed, nth > 0);
}

bool fault_at(const char *name)
{
	if (!atomic_load_explicit(&armed, memory_order_acquire))
		return false;
	if (name == NULL || strcmp(name, point) != 0)
		return false;
	if (atomic_fetch_sub(&passes_left, 1) != 1)
		return false; /* before it, or (wrapped) after it */
	atomic_store(&fired, true);
	if (kills)
		kill(getpid(), SIGKILL);
	return true;
}

void fault_arm(const char *name, unsigned nth)
{
	arm(name, nth, false);
}

void fault_disarm(void)
{
	atomic_store(&armed, false);
}

bool fault_fired(void)
{
	return atomic_load(&fired);
}

/* NAME_FAULT="point:n[:kill]". What cannot be read is said and ends the process: a test that arms nothing proves
 * nothing. */
__attribute__((constructor)) static void arm_from_environment(void)
{
	char variable[64], name[64];
	const char *text;
	unsigned nth;
	int used = 0;

	snprintf(variable, sizeof variable, "%s_FAULT", NAME);
	for (char *c = variable; *c != '\0'; c++)
		*c = (char)toupper((unsigned char)*c);
	text = getenv(variable);
	if (text == NULL)
		return;
	if (sscanf(text, "%63[^:]:%u%n", name, &nth, &used) != 2 || nth == 0 ||
	    (text[used] != '\0' && strcmp(text + used, ":kill") != 0)) {
		fprintf(stderr, "%s=%s: not point:n or point:n:kill\n", variable, text);
		_exit(2);
	}
	arm(name, nth, text[used] != '\0');
}
