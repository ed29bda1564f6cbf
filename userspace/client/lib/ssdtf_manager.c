// SPDX-License-Identifier: MIT
#include "userspace/client/lib/ssdtf_manager.h"

#include <string.h>

#include "userspace/base/text.h"
#include "userspace/client/lib/ssdtf_private.h"

#define TAIL_BYTES (SSDTF_NONCE_BYTES + 4)

int ssdtf_control_open(struct ssdtf_client *c, const struct ssdtf_packet *p,
		       struct ssdtf_numbers *numbers, struct bytes *ret_body)
{
	struct bytes body, r_b, said;
	struct bytes_reader r;
	uint32_t n;
	int ret = ssdtf_verify_control(c, p, &body);

	if (ret)
		return ssdtf_is_peers_fault(ret) ? -EBADMSG : ret;
	if (body.n < TAIL_BYTES)
		return -EBADMSG;
	r = bytes_reader_of(body);
	said = bytes_read_view(&r, body.n - TAIL_BYTES);
	r_b = bytes_read_view(&r, SSDTF_NONCE_BYTES);
	n = bytes_read_u32(&r);
	if (n < numbers->heard ||
	    !bytes_equal(r_b, bytes_of(c->session.r_b, sizeof(c->session.r_b))))
		return -EBADMSG;
	numbers->heard = (uint64_t)n + 1;
	*ret_body = said;
	return 0;
}

int ssdtf_control_write(struct ssdtf_client *c, const char *topic, struct ssdtf_numbers *numbers,
			struct bytes body, uint8_t *out)
{
	struct bytes_writer w = bytes_writer_of(out + body.n, SSDTF_CONTROL_END_BYTES);
	struct publish p = {
		.first = ssdtf_first(0, false),
		.topic = bytes_str(topic),
		.body_parts = 1,
		.client_id = c->id,
	};
	uint8_t trailer[PUBLISH_TRAILER_1_BYTES];
	int ret;

	if (!ssdtf_is_open(c) || numbers->said == UINT32_MAX)
		return -ENOTCONN;
	if (body.n)
		memmove(out, body.p, body.n);
	numbers->said++;
	bytes_write(&w, bytes_of(c->session.r_b, sizeof(c->session.r_b)));
	bytes_write_u32(&w, numbers->said);
	p.body[0] = bytes_of(out, body.n + w.used);
	ret = publish_sign(&p, c->signing, trailer);
	if (ret)
		return ret;
	bytes_write(&w, bytes_of(trailer, sizeof(trailer)));
	return 0;
}

/*
 * outer := u8+ reporter || first || u16+ properties || inner || trailer of the reporter
 * inner := u8 reason || u64 counter || u8+ id || u16+ text || R_b || u32 n
 * or a nack that the broker passes on: the same without text.
 */
int ssdtf_report_read(struct bytes outer, struct ssdtf_report *ret_r)
{
	struct ssdtf_report report = { .whole = outer };
	struct bytes_reader r;

	if (publish_split(outer, &report.trailer) || report.trailer.kind != 1)
		return -EBADMSG;
	r = bytes_reader_of(report.trailer.body);
	report.reporter = bytes_read_u8_view(&r);
	report.first = bytes_read_u8(&r);
	report.properties = bytes_read_u16_view(&r);
	report.body = bytes_read_rest(&r);
	if (r.bad || !text_is_id(report.reporter))
		return -EBADMSG;
	r = bytes_reader_of(report.body);
	report.reason = bytes_read_u8(&r);
	report.counter = bytes_read_u64(&r);
	report.about = bytes_read_u8_view(&r);
	report.nack = !r.bad && r.left == TAIL_BYTES;
	if (!report.nack)
		report.text = bytes_read_u16_view(&r);
	(void)bytes_read_view(&r, TAIL_BYTES); /* the broker has checked these two */
	if (!bytes_read_done(&r))
		return -EBADMSG;
	*ret_r = report;
	return 0;
}

int ssdtf_report_open(struct ssdtf_client *c, const struct ssdtf_packet *p,
		      struct ssdtf_report *ret_r)
{
	struct bytes outer;
	int ret = ssdtf_verify_control(c, p, &outer);

	if (ret)
		return ssdtf_is_peers_fault(ret) ? -EBADMSG : ret;
	return ssdtf_report_read(outer, ret_r);
}

int ssdtf_report_verify(const struct ssdtf_report *r, const struct p256_public *key)
{
	const struct publish p = {
		.first = r->first,
		.topic = bytes_str(r->nack ? SSDTF_TOPIC_NACK : SSDTF_TOPIC_REPORT),
		.properties = r->properties,
		.body = { r->body },
		.body_parts = 1,
		.client_id = r->reporter,
	};

	return publish_verify(&p, &r->trailer, key);
}
