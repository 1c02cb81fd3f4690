/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/workload_api.h"

#include "api/pb.h"
#include "lib/test.h"

#include <nghttp2/nghttp2.h>

#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct workload_api {
	int listener, wake;
	pthread_t thread;
	pthread_mutex_t lock;
	bool stop;
	struct buf given;  /* the message with its prefix */
	enum code refusal; /* OK: none */
	unsigned number;   /* of what was given or refused */
	unsigned streams, headless;

	/* the thread's alone */
	nghttp2_session *session;
	int32_t stream;
	bool has_header;
	unsigned shown;
	struct buf out;
	size_t out_at;
	bool ends;
	char status[8];
};

static nghttp2_nv pair(const char *name, const char *value)
{
	return (nghttp2_nv){ (uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE };
}

static ssize_t read_out(nghttp2_session *session, int32_t stream, uint8_t *data, size_t size, uint32_t *flags,
			nghttp2_data_source *source, void *arg)
{
	struct workload_api *api = arg;
	size_t n = api->out.len - api->out_at < size ? api->out.len - api->out_at : size;

	(void)source;
	if (n > 0)
		memcpy(data, api->out.data + api->out_at, n);
	api->out_at += n;
	if (api->ends && api->out_at == api->out.len) {
		nghttp2_nv trailer = pair("grpc-status", api->status);

		*flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
		nghttp2_submit_trailer(session, stream, &trailer, 1);
		return (ssize_t)n;
	}
	return n > 0 ? (ssize_t)n : NGHTTP2_ERR_DEFERRED;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
		     const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
	struct workload_api *api = arg;

	(void)session, (void)frame, (void)flags;
	if (name_len == 18 && memcmp(name, "workload.spiffe.io", 18) == 0 && value_len == 4 &&
	    memcmp(value, "true", 4) == 0)
		api->has_header = true;
	return 0;
}

/* What is new goes to the open stream. */
static void show(struct workload_api *api)
{
	pthread_mutex_lock(&api->lock);
	if (api->stream != 0 && api->shown != api->number) {
		api->shown = api->number;
		if (api->refusal != CODE_OK) {
			snprintf(api->status, sizeof api->status, "%d", (int)api->refusal);
			api->ends = true;
		} else {
			buf_append(&api->out, api->given.data, api->given.len);
		}
		nghttp2_session_resume_data(api->session, api->stream);
	}
	pthread_mutex_unlock(&api->lock);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct workload_api *api = arg;
	const nghttp2_nv headers[] = { pair(":status", "200"), pair("content-type", "application/grpc") };
	const nghttp2_data_provider provider = { .read_callback = read_out };

	if (frame->hd.type != NGHTTP2_HEADERS)
		return 0;
	api->stream = frame->hd.stream_id;
	api->shown = 0;
	api->ends = false;
	api->out.len = api->out_at = 0;
	nghttp2_submit_response(session, api->stream, headers, 2, &provider);
	pthread_mutex_lock(&api->lock);
	api->streams++;
	api->headless += !api->has_header;
	pthread_mutex_unlock(&api->lock);
	api->has_header = false;
	return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *arg)
{
	struct workload_api *api = arg;

	(void)session, (void)code;
	if (stream == api->stream)
		api->stream = 0;
	return 0;
}

static void open_session(struct workload_api *api)
{
	nghttp2_session_callbacks *callbacks;

	nghttp2_session_callbacks_new(&callbacks);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
	nghttp2_session_server_new(&api->session, callbacks, api);
	nghttp2_session_callbacks_del(callbacks);
	nghttp2_submit_settings(api->session, NGHTTP2_FLAG_NONE, NULL, 0);
	api->stream = 0;
	api->has_header = false;
}

static bool stopping(struct workload_api *api)
{
	bool stop;

	pthread_mutex_lock(&api->lock);
	stop = api->stop;
	pthread_mutex_unlock(&api->lock);
	return stop;
}

static void write_out(struct workload_api *api, int fd)
{
	const uint8_t *data;
	ssize_t n;

	while ((n = nghttp2_session_mem_send(api->session, &data)) > 0)
		if (send(fd, data, (size_t)n, MSG_NOSIGNAL) != n)
			return;
}

static void serve(struct workload_api *api, int fd)
{
	uint8_t in[16384];

	open_session(api);
	while (!stopping(api)) {
		struct pollfd pollers[] = { { fd, POLLIN, 0 }, { api->wake, POLLIN, 0 } };
		uint64_t n;

		show(api);
		write_out(api, fd);
		poll(pollers, 2, -1);
		if (pollers[1].revents != 0 && read(api->wake, &n, sizeof n) < 0)
			abort();
		if (pollers[0].revents != 0) {
			ssize_t got = recv(fd, in, sizeof in, 0);

			if (got <= 0 || nghttp2_session_mem_recv(api->session, in, (size_t)got) < 0)
				break;
		}
	}
	nghttp2_session_del(api->session);
	close(fd);
}

static void *run(void *arg)
{
	struct workload_api *api = arg;

	while (!stopping(api)) {
		struct pollfd pollers[] = { { api->listener, POLLIN, 0 }, { api->wake, POLLIN, 0 } };
		uint64_t n;

		poll(pollers, 2, -1);
		if (pollers[1].revents != 0 && read(api->wake, &n, sizeof n) < 0)
			abort();
		if (pollers[0].revents != 0)
			serve(api, accept(api->listener, NULL, NULL));
	}
	return NULL;
}

struct workload_api *workload_api_open(const char *path)
{
	struct workload_api *api = calloc(1, sizeof *api);
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	assert_true(strlen(path) < sizeof address.sun_path);
	strcpy(address.sun_path, path);
	unlink(path);
	api->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(api->listener, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(api->listener, 8), 0);
	api->wake = eventfd(0, EFD_CLOEXEC);
	pthread_mutex_init(&api->lock, NULL);
	assert_int_equal(pthread_create(&api->thread, NULL, run, api), 0);
	return api;
}

static void wake(struct workload_api *api)
{
	const uint64_t one = 1;

	assert_int_equal(write(api->wake, &one, sizeof one), sizeof one);
}

void workload_api_close(struct workload_api *api)
{
	pthread_mutex_lock(&api->lock);
	api->stop = true;
	pthread_mutex_unlock(&api->lock);
	wake(api);
	pthread_join(api->thread, NULL);
	close(api->listener);
	close(api->wake);
	pthread_mutex_destroy(&api->lock);
	buf_done(&api->given);
	buf_done(&api->out);
	free(api);
}

void workload_api_give_bytes(struct workload_api *api, const void *data, size_t len)
{
	const uint8_t prefix[5] = { 0, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len };

	pthread_mutex_lock(&api->lock);
	api->given.len = 0;
	buf_append(&api->given, prefix, sizeof prefix);
	buf_append(&api->given, data, len);
	api->refusal = CODE_OK;
	api->number++;
	pthread_mutex_unlock(&api->lock);
	wake(api);
}

void workload_api_give(struct workload_api *api, const Pb__WorkloadX509SVIDResponse *answer)
{
	OWN_BUF bytes = { 0 };

	pb_encode(answer, &bytes);
	workload_api_give_bytes(api, bytes.data, bytes.len);
}

void workload_api_refuse(struct workload_api *api, enum code code)
{
	pthread_mutex_lock(&api->lock);
	api->refusal = code;
	api->number++;
	pthread_mutex_unlock(&api->lock);
	wake(api);
}

unsigned workload_api_streams(struct workload_api *api)
{
	unsigned n;

	pthread_mutex_lock(&api->lock);
	n = api->streams;
	pthread_mutex_unlock(&api->lock);
	return n;
}

unsigned workload_api_headless(struct workload_api *api)
{
	unsigned n;

	pthread_mutex_lock(&api->lock);
	n = api->headless;
	pthread_mutex_unlock(&api->lock);
	return n;
}
