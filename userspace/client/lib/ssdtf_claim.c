// SPDX-License-Identifier: MIT
/* PROTOCOL 15: a new key's claim, and the answer. */
#include "userspace/client/lib/ssdtf.h"

#include <string.h>

#include "userspace/client/lib/ssdtf_private.h"

int ssdtf_claim(struct ssdtf_client *c, const struct p256_private *signing,
		const struct p256_point *answer)
{
	uint8_t body[SSDTF_NOTICE_BODY_MAX], digest[P256_DIGEST_BYTES];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));
	struct claim_request q = { .answer = *answer };
	int ret;

	if (!ssdtf_is_open(c))
		return -ENOTCONN;
	p256_private_point(signing, &q.signing);
	claim_request_digest(&q, c->id, c->session.r_b, digest);
	ret = p256_sign_digest(signing, digest, q.sig);
	if (ret)
		return ret;
	claim_request_write(&q, &w);
	return ssdtf_send_counted(c, CLAIM_TOPIC, &w, body);
}

int ssdtf_take_claim(struct ssdtf_client *c, const struct ssdtf_packet *p,
		     struct ssdtf_event *ret_event)
{
	const char *wrong = "an answer whose signature does not hold";
	struct claim_answer a = { .result = CLAIM_TRY_AGAIN };
	struct bytes_reader r;
	struct ssdtf_event e;
	struct bytes body;
	int ret = ssdtf_verify_control(c, p, &body);

	if (ret && !ssdtf_is_peers_fault(ret))
		return ret;
	if (!ret) {
		r = bytes_reader_of(body);
		claim_answer_read(&r, &a);
		wrong = ssdtf_check_tail(&c->session, SSDTF_COUNTED_CLAIM, &r);
	}
	ssdtf_event_init(&e, wrong ? SSDTF_IGNORED : SSDTF_CLAIMED, wrong);
	if (!wrong) {
		e.claim = a.result;
		e.text = a.text;
		e.enc = a.enc;
		e.sealed = a.sealed;
	}
	*ret_event = e;
	return 0;
}
