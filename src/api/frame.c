/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC's frames and texts. Nothing here waits or knows of a connection. */
#include "api/frame.h"

#include "api/pb.h"
#include "base/gotext.h"
#include "base/limits.h"
#include "base/utf8.h"
#include "rpcstatus.pb-c.h"
#include "types.pb-c.h"

#include <string.h>

enum { TIMEOUT_DIGITS = 8 };

#define CONTENT_TYPE "application/grpc"

/* --- a request's headers --- */

static const char *quoted(struct arena *arena, const char *text)
{
	OWN_BUF out = { 0 };

	go_quote(&out, text);
	return arena_strdup(arena, buf_text(&out));
}

enum code frame_parse_timeout(const char *text, int64_t *ns, struct err *err)
{
	static const char units[] = "HMSmun";
	static const int64_t sizes[] = { 3600 * GO_SECOND, 60 * GO_SECOND, GO_SECOND, 1000000, 1000, 1 };
	size_t len = strlen(text);
	const char *unit = len > 0 ? strchr(units, text[len - 1]) : NULL;
	int64_t n = 0;

	if (len < 2)
		return err_set(err, CODE_INTERNAL,
			       "malformed grpc-timeout: transport: timeout string is too short: \"%s\"", text);
	if (len > TIMEOUT_DIGITS + 1)
		return err_set(err, CODE_INTERNAL,
			       "malformed grpc-timeout: transport: timeout string is too long: \"%s\"", text);
	if (unit == NULL)
		return err_set(err, CODE_INTERNAL,
			       "malformed grpc-timeout: transport: timeout unit is not recognized: \"%s\"", text);
	for (size_t i = 0; i + 1 < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return err_set(err, CODE_INTERNAL,
				       "malformed grpc-timeout: strconv.ParseUint: parsing \"%.*s\": invalid syntax",
				       (int)len - 1, text);
		n = n * 10 + (text[i] - '0');
	}
	if (n > INT64_MAX / sizes[unit - units])
		*ns = INT64_MAX;
	else
		*ns = n * sizes[unit - units];
	return CODE_OK;
}

/* "application/grpc", "application/grpc+proto", "application/grpc;x". NULL: something else. */
static const char *answer_type(const char *type)
{
	size_t len = strlen(CONTENT_TYPE);

	if (strncmp(type, CONTENT_TYPE, len) != 0)
		return NULL;
	if (type[len] == '+')
		return type;
	return type[len] == '\0' || type[len] == ';' ? CONTENT_TYPE : NULL;
}

static enum code split_path(struct frame_request *out, struct arena *arena, struct err *err)
{
	const char *path = out->path[0] == '/' ? out->path + 1 : out->path;
	const char *slash = strrchr(path, '/');

	if (slash == NULL)
		return err_set(err, CODE_UNIMPLEMENTED, "malformed method name: %s", quoted(arena, out->path));
	out->service = (struct span){ (const uint8_t *)path, (size_t)(slash - path) };
	out->method = (struct span){ (const uint8_t *)slash + 1, strlen(slash + 1) };
	return CODE_OK;
}

static const char *or_empty(const char *text)
{
	return text != NULL ? text : "";
}

enum code frame_parse_request(const struct header *headers, struct arena *arena, struct frame_request *out,
			      int *http_status, struct err *err)
{
	const char *type = or_empty(header_find(headers, "content-type"));
	const char *method = or_empty(header_find(headers, ":method"));
	const char *timeout = header_find(headers, "grpc-timeout");

	*out = (struct frame_request){ .path = or_empty(header_find(headers, ":path")), .timeout_ns = -1 };
	out->content_type = answer_type(type);
	out->encoding = header_find(headers, "grpc-encoding");
	if (out->encoding != NULL && strcmp(out->encoding, "identity") == 0)
		out->encoding = NULL;
	if (out->content_type == NULL) {
		out->content_type = CONTENT_TYPE;
		*http_status = 415;
		return err_set(err, CODE_INVALID_ARGUMENT, "invalid gRPC request content-type %s", quoted(arena, type));
	}
	if (strcmp(method, "POST") != 0) {
		*http_status = 405;
		return err_set(err, CODE_INTERNAL, "Received a HEADERS frame with :method %s which should be POST",
			       quoted(arena, method));
	}
	*http_status = 400;
	if (timeout != NULL)
		TRY(frame_parse_timeout(timeout, &out->timeout_ns, err));
	*http_status = 200;
	return split_path(out, arena, err);
}

/* --- messages --- */

static enum code read_head(struct frame_reader *reader, struct err *err)
{
	const uint8_t *head = reader->head;

	reader->size = (size_t)head[1] << 24 | (size_t)head[2] << 16 | (size_t)head[3] << 8 | head[4];
	if (reader->size > LIMIT_MESSAGE)
		return err_set(err, CODE_RESOURCE_EXHAUSTED, "grpc: received message larger than max (%zu vs. %d)",
			       reader->size, LIMIT_MESSAGE);
	if (head[0] > 1)
		return err_set(err, CODE_INTERNAL, "grpc: received unexpected payload format %d", head[0]);
	if (head[0] == 1 && reader->encoding == NULL)
		return err_set(err, CODE_INTERNAL, "grpc: compressed flag set with identity or empty encoding");
	/* gzip may be announced and not used */
	if (reader->encoding != NULL && (head[0] == 1 || strcmp(reader->encoding, "gzip") != 0))
		return err_set(err, CODE_UNIMPLEMENTED,
			       "grpc: Decompressor is not installed for grpc-encoding \"%.64s\"", reader->encoding);
	return CODE_OK;
}

enum code frame_read(struct frame_reader *reader, const uint8_t **at, const uint8_t *end, bool *whole, struct err *err)
{
	size_t n;

	*whole = false;
	if (reader->n_head < FRAME_HEAD) {
		n = FRAME_HEAD - reader->n_head;
		if (n > (size_t)(end - *at))
			n = (size_t)(end - *at);
		memcpy(reader->head + reader->n_head, *at, n);
		reader->n_head += n;
		*at += n;
		if (reader->n_head < FRAME_HEAD)
			return CODE_OK;
		TRY(read_head(reader, err));
	}
	n = reader->size - reader->message.len;
	if (n > (size_t)(end - *at))
		n = (size_t)(end - *at);
	buf_append(&reader->message, *at, n);
	*at += n;
	*whole = reader->message.len == reader->size;
	return CODE_OK;
}

void frame_next(struct frame_reader *reader)
{
	reader->n_head = 0;
	reader->message.len = 0;
}

void frame_done(struct frame_reader *reader)
{
	buf_done(&reader->message);
}

void frame_head(uint8_t head[FRAME_HEAD], size_t size)
{
	head[0] = 0;
	head[1] = (uint8_t)(size >> 24);
	head[2] = (uint8_t)(size >> 16);
	head[3] = (uint8_t)(size >> 8);
	head[4] = (uint8_t)size;
}

/* --- a status --- */

/* Printable ASCII without '%' stays, what is no UTF-8 becomes U+FFFD. */
static const char *percent_encode(const char *text, struct arena *arena)
{
	size_t len = strlen(text);
	OWN_BUF out = { 0 };

	while (len > 0) {
		uint32_t rune;
		size_t size = utf8_next(text, len, &rune);

		if (size == 0) {
			buf_puts(&out, "%EF%BF%BD");
			size = 1;
		} else if (rune >= ' ' && rune <= '~' && rune != '%') {
			buf_put(&out, (uint8_t)rune);
		} else {
			for (size_t i = 0; i < size; i++)
				buf_printf(&out, "%%%02X", (uint8_t)text[i]);
		}
		text += size;
		len -= size;
	}
	return arena_strndup(arena, buf_text(&out), out.len);
}

static const char *details(enum code code, const struct err *err, struct arena *arena)
{
	Pb__PermissionDeniedDetails denied = PB__PERMISSION_DENIED_DETAILS__INIT;
	Pb__RpcStatus status = PB__RPC_STATUS__INIT;
	Pb__Any any = PB__ANY__INIT, *list[] = { &any };
	OWN_BUF inner = { 0 }, outer = { 0 }, text = { 0 };

	denied.reason = (Pb__PermissionDeniedDetails__Reason)err->reason;
	pb_encode(&denied, &inner);
	any.type_url = "type.googleapis.com/spire.api.types.PermissionDeniedDetails";
	any.value = (ProtobufCBinaryData){ inner.len, inner.data };
	status.code = (int32_t)code;
	status.message = err->text;
	status.details = list;
	status.n_details = 1;
	pb_encode(&status, &outer);
	buf_base64(&text, outer.data, outer.len, 0);
	while (text.len > 0 && text.data[text.len - 1] == '=') /* as gRPC sends binary metadata */
		text.len--;
	return arena_strndup(arena, (const char *)text.data, text.len);
}

static const struct header *before(const struct header *list, const char *name, const char *value, struct arena *arena)
{
	struct header *header = arena_alloc(arena, sizeof *header);

	*header = (struct header){ (struct header *)list, name, value };
	return header;
}

const struct header *frame_status(enum code code, const struct err *err, const struct header *more, struct arena *arena)
{
	static const struct header ok = { NULL, "grpc-status", "0" };
	const struct header *list = more;

	if (code == CODE_OK && more == NULL)
		return &ok;
	if (code != CODE_OK && err->reason != 0)
		list = before(list, "grpc-status-details-bin", details(code, err, arena), arena);
	if (code != CODE_OK && err->text[0] != '\0')
		list = before(list, "grpc-message", percent_encode(err->text, arena), arena);
	return before(list, "grpc-status", arena_printf(arena, "%u", (unsigned)code), arena);
}
