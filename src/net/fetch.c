/* SPDX-License-Identifier: Apache-2.0 */
/* libcurl's multi interface on a loop: it says which sockets it waits for and when it wants to be called, we call it,
 * on the loop's own stack. A task that fetches adds a transfer, waits, and takes it out again, whether it has ended or
 * not: nothing of it is left when `fetch` returns. */
#include "net/fetch.h"

#include "base/arena.h"
#include "base/task.h"
#include "base/url.h"

#include <curl/curl.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { REDIRECTS = 10, CONNECT_MS = 30 * 1000 };

OWNABLE(GENERAL_NAMES, GENERAL_NAMES_free)

struct fetcher {
	uv_loop_t *uv;
	CURLM *multi;
	uv_timer_t timer;
};

struct transfer {
	const struct fetch_request *request;
	struct fetch_answer *answer;
	CURL *easy;
	struct wait wait;
	CURLcode result;
	bool too_large;
	struct err refused; /* by `verify`, or by the chain's check */
	char error[CURL_ERROR_SIZE];
};

struct sock { /* of libcurl's, that it waits for */
	uv_poll_t poll;
	curl_socket_t fd;
	struct fetcher *fetcher;
};

/* --- the loop --- */

static void finish_transfers(struct fetcher *f)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(f->multi, &left)) != NULL) {
		struct transfer *t;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&t);
		t->result = message->data.result;
		wait_done(&t->wait);
	}
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct sock *sock = poll->data;
	struct fetcher *f = sock->fetcher;
	int flags = 0, running;

	if (status < 0)
		flags |= CURL_CSELECT_ERR;
	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	curl_multi_socket_action(f->multi, sock->fd, flags, &running); /* sock may be closing now */
	finish_transfers(f);
}

static void on_timer(uv_timer_t *timer)
{
	struct fetcher *f = timer->data;
	int running;

	curl_multi_socket_action(f->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	finish_transfers(f);
}

static int want_timer(CURLM *multi __attribute__((unused)), long ms, void *arg)
{
	struct fetcher *f = arg;

	if (ms < 0)
		uv_timer_stop(&f->timer);
	else
		uv_timer_start(&f->timer, on_timer, (uint64_t)ms, 0);
	return 0;
}

static void sock_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static int want_socket(CURL *easy __attribute__((unused)), curl_socket_t fd, int what, void *arg, void *known)
{
	struct fetcher *f = arg;
	struct sock *sock = known;
	int events = 0;

	if (what == CURL_POLL_REMOVE) {
		if (sock != NULL) {
			uv_poll_stop(&sock->poll);
			uv_close((uv_handle_t *)&sock->poll, sock_closed);
			curl_multi_assign(f->multi, fd, NULL);
		}
		return 0;
	}
	if (sock == NULL) {
		sock = xcalloc(1, sizeof *sock);
		sock->fd = fd;
		sock->fetcher = f;
		if (uv_poll_init_socket(f->uv, &sock->poll, fd) != 0) {
			free(sock);
			return -1;
		}
		sock->poll.data = sock;
		curl_multi_assign(f->multi, fd, sock);
	}
	if (what & CURL_POLL_IN)
		events |= UV_READABLE;
	if (what & CURL_POLL_OUT)
		events |= UV_WRITABLE;
	uv_poll_start(&sock->poll, events, on_poll);
	return 0;
}

static void init_library(void)
{
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		abort(); /* out of memory */
}

struct fetcher *fetcher_new(struct loop *loop)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct fetcher *f = xcalloc(1, sizeof *f);

	pthread_once(&once, init_library);
	f->uv = loop_uv(loop);
	uv_timer_init(f->uv, &f->timer);
	f->timer.data = f;
	f->multi = curl_multi_init();
	if (f->multi == NULL)
		abort(); /* out of memory */
	curl_multi_setopt(f->multi, CURLMOPT_SOCKETFUNCTION, want_socket);
	curl_multi_setopt(f->multi, CURLMOPT_SOCKETDATA, f);
	curl_multi_setopt(f->multi, CURLMOPT_TIMERFUNCTION, want_timer);
	curl_multi_setopt(f->multi, CURLMOPT_TIMERDATA, f);
	return f;
}

void fetcher_free(struct fetcher *f)
{
	if (f == NULL)
		return;
	curl_multi_setopt(f->multi, CURLMOPT_SOCKETFUNCTION, NULL); /* the loop is gone */
	curl_multi_setopt(f->multi, CURLMOPT_TIMERFUNCTION, NULL);
	curl_multi_cleanup(f->multi);
	free(f);
}

void fetch_answer_done(struct fetch_answer *answer)
{
	buf_done(&answer->body);
	free(answer->leaf_uri);
	answer->leaf_uri = NULL;
}

/* --- what libcurl asks of a transfer --- */

static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
	struct transfer *t = arg;
	size_t len = size * n;

	if (len > t->request->max - t->answer->body.len) {
		t->too_large = true;
		return 0;
	}
	buf_append(&t->answer->body, data, len);
	return len;
}

static char *first_uri(X509 *leaf)
{
	OWN(GENERAL_NAMES) names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		const ASN1_IA5STRING *uri = name->d.uniformResourceIdentifier;
		OWN_BUF text = { 0 };

		if (name->type != GEN_URI)
			continue;
		buf_append(&text, ASN1_STRING_get0_data(uri), (size_t)ASN1_STRING_length(uri));
		return xstrdup(buf_text(&text)); /* up to a NUL: it goes into messages alone */
	}
	return NULL;
}

static int on_verify(X509_STORE_CTX *store, void *arg)
{
	struct transfer *t = arg;
	X509 *leaf = X509_STORE_CTX_get0_cert(store);
	enum code rc;

	if (t->answer->leaf_uri == NULL)
		t->answer->leaf_uri = first_uri(leaf);
	if (t->request->verify == NULL) {
		if (X509_verify_cert(store) == 1)
			return 1;
		err_set(&t->refused, CODE_PERMISSION_DENIED, "tls: failed to verify certificate: x509: %s",
			X509_verify_cert_error_string(X509_STORE_CTX_get_error(store)));
		return 0;
	}
	rc = t->request->verify(t->request->ctx, leaf, X509_STORE_CTX_get0_untrusted(store), &t->refused);
	ERR_clear_error();
	X509_STORE_CTX_set_error(store, rc == CODE_OK ? X509_V_OK : X509_V_ERR_CERT_REJECTED);
	return rc == CODE_OK;
}

static CURLcode on_ssl_ctx(CURL *easy __attribute__((unused)), void *context, void *arg)
{
	SSL_CTX_set_cert_verify_callback(context, on_verify, arg);
	return CURLE_OK;
}

/* As in Go, the environment may name other roots than the system's. */
static void set_roots(struct transfer *t)
{
	const char *file = getenv("SSL_CERT_FILE"), *folder = getenv("SSL_CERT_DIR");

	if (t->request->verify != NULL) {
		curl_easy_setopt(t->easy, CURLOPT_CAINFO, NULL);
		curl_easy_setopt(t->easy, CURLOPT_CAPATH, NULL);
		return;
	}
	if (file != NULL && file[0] != '\0')
		curl_easy_setopt(t->easy, CURLOPT_CAINFO, file);
	if (folder != NULL && folder[0] != '\0')
		curl_easy_setopt(t->easy, CURLOPT_CAPATH, folder);
}

static void set_options(struct transfer *t, const char *url)
{
	CURL *easy = t->easy;

	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, t);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https");
	curl_easy_setopt(easy, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* a name that is being looked up does not hold the loop */
	curl_easy_setopt(easy, CURLOPT_USERAGENT, NAME "/" VERSION);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->error);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)t->request->timeout_ms);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
	/* Who answered once may not be who may answer now. */
	curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
	curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
	curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, t);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, t->request->verify == NULL ? 2L : 0L);
	set_roots(t);
}

/* --- how it went --- */

static enum code failed(struct transfer *t, const struct url *url, struct err *err)
{
	const char *text = t->error[0] != '\0' ? t->error : curl_easy_strerror(t->result);
	struct fetch_answer *answer = t->answer;
	char what[320];
	long number = 0;

	switch (t->result) {
	case CURLE_OPERATION_TIMEDOUT:
		return err_set(err, CODE_DEADLINE_EXCEEDED, "it took longer than %lld s",
			       (long long)t->request->timeout_ms / 1000);
	case CURLE_COULDNT_RESOLVE_HOST:
		return err_set(err, CODE_UNAVAILABLE, "dial tcp: lookup %s: no such host", url->host);
	case CURLE_COULDNT_CONNECT:
		curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &number);
		if (number == 0)
			break;
		snprintf(what, sizeof what, "dial tcp %.255s: connect", url->host);
		return err_errno(err, CODE_UNAVAILABLE, (int)number, what, NULL);
	case CURLE_WRITE_ERROR:
	case CURLE_FILESIZE_EXCEEDED:
		return err_set(err, CODE_RESOURCE_EXHAUSTED, "the answer has more than %zu bytes", t->request->max);
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CONNECT_ERROR:
		answer->unauthentic = t->result == CURLE_PEER_FAILED_VERIFICATION || t->refused.code != CODE_OK;
		if (t->refused.code != CODE_OK)
			return err_set(err, CODE_PERMISSION_DENIED, "%s", t->refused.text);
		return err_set(err, CODE_UNAVAILABLE, "tls: %s", text);
	default:
		break;
	}
	return err_set(err, CODE_UNAVAILABLE, "%s", text);
}

static void transfer_end(struct fetcher *f, struct transfer *t)
{
	curl_multi_remove_handle(f->multi, t->easy);
	curl_easy_cleanup(t->easy);
	free(t);
}

/* One GET. *to is where a redirect leads, in the arena; NULL: nowhere. */
static enum code get(struct fetcher *f, const struct fetch_request *request, const char *text, const struct url *url,
		     struct arena *arena, struct fetch_answer *out, const char **to, struct err *err)
{
	struct transfer *t = xcalloc(1, sizeof *t);
	long status = 0;
	char *location = NULL;
	enum code rc;

	t->request = request;
	t->answer = out;
	t->easy = curl_easy_init();
	if (t->easy == NULL)
		abort(); /* out of memory */
	set_options(t, text);
	curl_multi_add_handle(f->multi, t->easy);
	rc = task_wait(&t->wait, INT64_MAX); /* libcurl keeps the time */
	if (rc != CODE_OK)
		err_set(err, rc, "the fetch was given up");
	else if (t->result != CURLE_OK)
		rc = failed(t, url, err);
	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &location);
	out->status = (int)status;
	*to = location == NULL ? NULL : arena_strdup(arena, location);
	transfer_end(f, t);
	return rc;
}

/* "host:port" of an authority: an IPv6 address has colons of its own, in brackets. */
static const char *authority(const struct url *url, struct arena *arena)
{
	const char *colon = strrchr(url->host, ':'), *bracket = strrchr(url->host, ']');

	if (colon != NULL && (bracket == NULL || colon > bracket))
		return url->host;
	return arena_printf(arena, "%s:443", url->host);
}

static enum code read_url(const char *text, struct arena *arena, struct url *out, struct err *err)
{
	TRY(url_parse(text, arena, out, err));
	if (strcmp(out->scheme, "https") != 0 || out->host[0] == '\0' || out->has_user)
		return err_set(err, CODE_PERMISSION_DENIED, "\"%s\" is no https URL of a host without user info", text);
	out->host = authority(out, arena);
	return CODE_OK;
}

enum code fetch(struct fetcher *f, const struct fetch_request *request, struct fetch_answer *out, struct err *err)
{
	OWN_STRUCT(arena) arena = arena_new();
	const char *text = request->url, *to;
	struct url first, next;

	TRY(read_url(text, arena, &first, err));
	for (int n = 0;; n++) {
		fetch_answer_done(out);
		TRY(get(f, request, text, &first, arena, out, &to, err));
		if (out->status < 300 || out->status > 399 || to == NULL)
			return CODE_OK;
		if (n == REDIRECTS)
			return err_set(err, CODE_PERMISSION_DENIED, "stopped after %d redirects", REDIRECTS);
		if (read_url(to, arena, &next, err) != CODE_OK || strcasecmp(next.host, first.host) != 0)
			return err_set(err, CODE_PERMISSION_DENIED,
				       "a redirect to \"%s\" is not followed: it leads to another place than \"%s\"",
				       to, first.host);
		text = to;
	}
}
