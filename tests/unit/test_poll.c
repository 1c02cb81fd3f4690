/* SPDX-License-Identifier: Apache-2.0 */
#include "api/poll.h"
#include "lib/pki.h"
#include "lib/test.h"

TEST(a_look_is_due_four_times_a_hint)
{
	Pb__Bundle bundle = PB__BUNDLE__INIT;

	CHECK_NUM(poll_delay_ms(NULL, 0), 60000);
	bundle.refresh_hint = 300;
	CHECK_NUM(poll_delay_ms(&bundle, 0), 75000);
	bundle.refresh_hint = 1;
	CHECK_NUM(poll_delay_ms(&bundle, 0), 15000);
	bundle.refresh_hint = INT64_MAX; /* what a stranger may write */
	CHECK_NUM(poll_delay_ms(&bundle, 0), 30LL * 86400 * 1000 / 4);
	bundle.refresh_hint = -5; /* none, and no root to go by */
	CHECK_NUM(poll_delay_ms(&bundle, 0), 30LL * 86400 * 1000 / 4);
}

TEST(without_a_hint_the_shortest_root_decides)
{
	static const char *const ends[] = { "20300101000000Z", "20260101080000Z" }; /* years, 8 h */
	Pb__X509Certificate certs[2], *list[2];
	Pb__Bundle bundle = PB__BUNDLE__INIT;
	struct buf der[2] = { 0 };

	for (size_t i = 0; i < 2; i++) {
		OWN(EVP_PKEY) key = pki_key("P-256");
		OWN(X509)
		cert = pki_cert(&(struct pki_cert){
			.subject = "/CN=x", .key = key, .not_before = "20260101000000Z", .not_after = ends[i] });

		pki_der(&der[i], cert);
		pb__x509_certificate__init(&certs[i]);
		certs[i].asn1 = (ProtobufCBinaryData){ der[i].len, der[i].data };
		list[i] = &certs[i];
	}
	bundle.x509_authorities = list;
	bundle.n_x509_authorities = 2;
	CHECK_NUM(poll_delay_ms(&bundle, 0), 8 * 3600 / 10 * 1000 / 4);
	buf_done(&der[0]);
	buf_done(&der[1]);
}

TEST(failures_are_tried_again_soon_and_then_as_usual)
{
	Pb__Bundle bundle = PB__BUNDLE__INIT;

	bundle.refresh_hint = 300;
	CHECK_NUM(poll_delay_ms(&bundle, 1), 15000);
	CHECK_NUM(poll_delay_ms(&bundle, 2), 30000);
	CHECK_NUM(poll_delay_ms(&bundle, 3), 60000);
	CHECK_NUM(poll_delay_ms(&bundle, 4), 75000);
	CHECK_NUM(poll_delay_ms(&bundle, 4000000000u), 75000);
	CHECK_NUM(poll_delay_ms(NULL, 1), 15000);
	CHECK_NUM(poll_delay_ms(NULL, 9), 60000);
}
