/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_GOTIME_H
#define BASE_GOTIME_H

#include "base/err.h"

#include <stdint.h>

/* Times as Go's package time reads and writes them. Unix seconds. */

enum { GO_TIME_MAX = 64 };

/* "2006-01-02 15:04:05 -0700 MST" in UTC and in the process's own zone; "2006-01-02T15:04:05Z". Answer `out`. */
const char *go_time_utc(int64_t unix_s, char out[GO_TIME_MAX]);
const char *go_time_local(int64_t unix_s, char out[GO_TIME_MAX]);
const char *go_time_rfc3339(int64_t unix_s, char out[GO_TIME_MAX]);

/* time.Parse("2006-01-02 15:04:05 -0700 -07", text): the form of the filter ByExpiresBefore. INVALID_ARGUMENT:
 * `parsing time "x" as "2006-01-02 15:04:05 -0700 -07": cannot parse "x" as "2006"`. */
enum code go_parse_time(const char *text, int64_t *unix_s, struct err *err);

#endif
