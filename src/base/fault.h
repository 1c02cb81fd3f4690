/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include <stdbool.h>

/* Points at which a test makes a step fail: `if (fault_at("store.commit")) return ...;`. In a process in which no test
 * has armed one this is a load and a compare. In a server under test the environment variable `<NAME>_FAULT` (the
 * Makefile's NAME in upper case) arms one: "point:n" fails the n-th pass, "point:n:kill" ends the process with SIGKILL
 * there. */
bool fault_at(const char *name); /* NULL: a point without a name, never */

void fault_arm(const char *name, unsigned nth); /* the nth pass from now fails (1 = the next), once */
void fault_disarm(void);
bool fault_fired(void); /* since fault_arm */

#endif
