/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMD_PRINT_JSON_H
#define CMD_PRINT_JSON_H

#include "base/buf.h"

#include <protobuf-c/protobuf-c.h>

/* A message as the commands' `-output json` shows it (contract server-operation.md 2.2): proto field names sorted,
 * nothing left out but messages that are not set, 64-bit numbers as strings, bytes as base64, enums by name; one line,
 * no newline. A field that came with a later release than 1.13.3 is shown when it holds something. */
void print_json(struct buf *out, const ProtobufCMessage *message);

#endif
