/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

/* What a peer or a file can make us allocate or wait for. Checked before the memory is asked for. */
enum {
	LIMIT_MESSAGE = 4 << 20,        /* a gRPC message received (grpc-go's default) */
	LIMIT_DECODED = 64 << 20,       /* memory that one message may take once decoded */
	LIMIT_INBOX = 16 << 20,         /* bytes of requests that a connection may have waiting here */
	LIMIT_BACKLOG = 16 << 20,       /* bytes of answers that a connection may have waiting here before its next call begins */
	LIMIT_HEADERS = 64 << 10,       /* the header list of one call */
	LIMIT_STREAMS = 1000,           /* calls at a time on one connection */
	LIMIT_CONNECTIONS = 100000,     /* at a time in the process */
	LIMIT_TASKS = 20000,            /* at a time in the process: each has a stack */
	LIMIT_OUTBOX = 1 << 20,         /* bytes queued to a slow reader before its stream waits */
	LIMIT_HANDSHAKE_MS = 20000,     /* a connection that has not finished its TLS handshake by then is closed */
	LIMIT_CHAIN = 10,               /* certificates in a peer's chain */
	LIMIT_CONFIG = 1 << 20,         /* a configuration file */
	LIMIT_CONFIG_DEPTH = 64,        /* blocks within blocks */
	LIMIT_INPUT = 64 << 20,         /* a file that a command reads */
	LIMIT_COMMAND = 1 << 20,        /* one command (availability.md V7) */
	LIMIT_BATCH_BYTES = 256 << 10,  /* a batch is closed at this size or count */
	LIMIT_BATCH_COMMANDS = 1024,
	LIMIT_QUEUE_BYTES = 64 << 20,   /* commands that wait for their turn, all together */
	LIMIT_WAIT_LEADER_MS = 10000,   /* V7 */
	LIMIT_STOP_MS = 10000,          /* calls in flight at a graceful stop */
};

#endif
