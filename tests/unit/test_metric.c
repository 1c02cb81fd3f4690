/* SPDX-License-Identifier: Apache-2.0 */
#include "base/metric.h"
#include "lib/test.h"

#include <pthread.h>

static struct buf page;

static const char *read_page(const char *host, const char *td)
{
	page.len = 0;
	metric_page(&(struct metric_page_options){ .prefix = "spire_server", .host = host, .trust_domain = td }, &page);
	return buf_text(&page);
}

#define HAS(text) CHECK(strstr(buf_text(&page), (text)) != NULL)

TEST(a_call_counts_and_times_by_status)
{
	metric_call("rpc_x", CODE_OK, 2);
	metric_call("rpc_x", CODE_OK, 4);
	metric_call("rpc_x", CODE_NOT_FOUND, 1);
	read_page("my.host", NULL);
	HAS("# TYPE spire_server_rpc_x counter\nspire_server_rpc_x{host=\"my_host\",status=\"NotFound\"} 1\n"
	    "spire_server_rpc_x{host=\"my_host\",status=\"OK\"} 2\n");
	HAS("# TYPE spire_server_rpc_x_elapsed_time summary\n");
	HAS("spire_server_rpc_x_elapsed_time{host=\"my_host\",status=\"NotFound\",quantile=\"0.5\"} 1\n");
	HAS("spire_server_rpc_x_elapsed_time_sum{host=\"my_host\",status=\"OK\"} 6\n");
	HAS("spire_server_rpc_x_elapsed_time_count{host=\"my_host\",status=\"OK\"} 2\n");
}

TEST(a_site_counts_into_the_same_series)
{
	static struct metric_site site;

	metric_call_at(&site, "rpc_site", CODE_OK, 1);
	metric_call_at(&site, "rpc_site", CODE_OK, 1);
	metric_call("rpc_site", CODE_OK, 1);
	read_page(NULL, "example.org");
	HAS("spire_server_rpc_site{status=\"OK\",trust_domain=\"example_org\"} 3\n");
}

TEST(our_own_names_have_no_prefix)
{
	metric_set(metric_get(METRIC_GAUGE, NAME "_revision", NULL), 12);
	metric_get(METRIC_GAUGE, NAME "_never_set", NULL);
	read_page(NULL, NULL);
	HAS("\n# TYPE " NAME "_revision gauge\n" NAME "_revision 12\n");
	CHECK(strstr(buf_text(&page), NAME "_never_set 0") == NULL);
}

TEST(histograms_accumulate)
{
	struct metric *m = metric_get(METRIC_HISTOGRAM, NAME "_h_seconds", NULL);

	metric_observe(m, 0.0004);
	metric_observe(m, 0.003);
	metric_observe(m, 100);
	read_page(NULL, NULL);
	HAS(NAME "_h_seconds_bucket{le=\"0.0005\"} 1\n");
	HAS(NAME "_h_seconds_bucket{le=\"0.005\"} 2\n");
	HAS(NAME "_h_seconds_bucket{le=\"10\"} 2\n");
	HAS(NAME "_h_seconds_bucket{le=\"+Inf\"} 3\n");
	HAS(NAME "_h_seconds_count 3\n");
}

static void fill(void *ctx)
{
	metric_set(metric_get(METRIC_GAUGE, "filled", METRIC_LABELS({ "a", "x.y-_z" })), *(int *)ctx);
}

TEST(gauges_are_asked_for_at_each_page)
{
	static int value = 7;

	metric_on_page(fill, &value);
	read_page(NULL, NULL);
	HAS("spire_server_filled{a=\"x_y_z\"} 7\n");
	value = 8;
	read_page(NULL, NULL);
	HAS("spire_server_filled{a=\"x_y_z\"} 8\n");
}

static void *count_much(void *site)
{
	for (int i = 0; i < 10000; i++)
		metric_call_at(site, "threads", CODE_OK, 0.5);
	return NULL;
}

TEST(threads_count_together)
{
	static struct metric_site site;
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, count_much, &site);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	read_page(NULL, NULL);
	HAS("spire_server_threads{status=\"OK\"} 40000\n");
}

TEST(names_of_rpcs)
{
	static const char *const pairs[][2] = {
		{ "BatchNewX509SVID", "batch_new_x509svid" }, { "MintJWTSVID", "mint_jwtsvid" },
		{ "GetEntry", "get_entry" },		      { "GetJWTAuthorityState", "get_jwt_authority_state" },
		{ "SVID", "svid" },
	};
	char out[64];

	for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
		metric_snake_case(pairs[i][0], out);
		CHECK_STR(out, pairs[i][1]);
	}
}
