/* SPDX-License-Identifier: Apache-2.0 */
#ifndef API_WEBCERT_H
#define API_WEBCERT_H

#include "base/err.h"
#include "net/identity.h"

/* A certificate with its chain and a key, in two PEM files that somebody else renews. On one thread. */
struct webcert;

/* INVALID_ARGUMENT: names the file and what is wrong with it. */
enum code webcert_open(const char *cert_path, const char *key_path, struct webcert **out, struct err *err);
void webcert_free(struct webcert *webcert); /* NULL is fine */

/* Reads the files again if one of them is another than before, by its time, size or inode. A pair that cannot be used
 * leaves the old one; either goes to the log. */
void webcert_sync(struct webcert *webcert);

struct identity *webcert_identity(struct webcert *webcert); /* a reference */

#endif
