/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

/* What went wrong, in the gRPC codes from SQLite to the wire. A function that can fail returns `enum code`, takes
 * `struct err *` last, and sets its out parameters on success only. Text: lower case, no full stop, the subject in
 * quotes. */

enum code { /* the numbers of gRPC: github.com/grpc/grpc, doc/statuscodes.md */
	    CODE_OK = 0,
	    CODE_CANCELLED = 1,
	    CODE_UNKNOWN = 2,
	    CODE_INVALID_ARGUMENT = 3,
	    CODE_DEADLINE_EXCEEDED = 4,
	    CODE_NOT_FOUND = 5,
	    CODE_ALREADY_EXISTS = 6,
	    CODE_PERMISSION_DENIED = 7,
	    CODE_RESOURCE_EXHAUSTED = 8,
	    CODE_FAILED_PRECONDITION = 9,
	    CODE_ABORTED = 10,
	    CODE_OUT_OF_RANGE = 11,
	    CODE_UNIMPLEMENTED = 12,
	    CODE_INTERNAL = 13,
	    CODE_UNAVAILABLE = 14,
	    CODE_DATA_LOSS = 15,
	    CODE_UNAUTHENTICATED = 16,
};

enum { ERR_TEXT_MAX = 1536 };

struct err {
	enum code code;
	int reason;       /* PermissionDeniedDetails.Reason of a denied agent, 0 if none */
	unsigned msg_len; /* of the part that the last err_wrap put before (": " follows), 0: none. The log shows what
			     follows as error= */
	char text[ERR_TEXT_MAX]; /* cut, never overrun */
};

/* Sets code and text, answers the code. `err` may be NULL where the text is not wanted. (A macro, so that the compiler
 * sees that what comes back is not CODE_OK: it can then tell that an out parameter is set. `code` is evaluated twice.)
 */
#define err_set(err, code, ...) (err_set_text((err), (code), __VA_ARGS__), err_same_code(code))

/* Puts "fmt: " before the text and sets the code, as SPIRE's handlers do ("msg: inner"). */
#define err_wrap(err, code, ...) (err_wrap_text((err), (code), __VA_ARGS__), err_same_code(code))

void err_set_text(struct err *err, enum code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void err_wrap_text(struct err *err, enum code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static inline enum code err_same_code(enum code code)
{
	return code;
}

/* The name of a code as grpc-go prints it: "InvalidArgument"; "Code(17)" for an unknown number (static buffer per
 * thread). */
const char *code_name(int code);

/* errno as a text of the form "open /x: no such file or directory" (Go's words for the common errnos). */
#define err_errno(err, code, number, what, path)                                                                       \
	(err_errno_text((err), (code), (number), (what), (path)), err_same_code(code))
void err_errno_text(struct err *err, enum code code, int number, const char *what, const char *path);

/* Returns what is not CODE_OK. No other macro hides a return. */
#define TRY(call)                                                                                                      \
	do {                                                                                                           \
		enum code try_code_ = (call);                                                                          \
		if (try_code_ != CODE_OK)                                                                              \
			return try_code_;                                                                              \
	} while (0)

#endif
