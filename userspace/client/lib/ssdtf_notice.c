// SPDX-License-Identifier: MIT
/* PROTOCOL 7: errors and reports that the broker sends, nacks and reports that we do. */
#include "userspace/client/lib/ssdtf.h"

#include "userspace/base/text.h"
#include "userspace/client/lib/ssdtf_private.h"

/* --- incoming --------------------------------------------------------------------------------- */

const char *ssdtf_check_tail(struct ssdtf_session *s, enum ssdtf_counted which,
			     struct bytes_reader *r)
{
	struct bytes r_b = bytes_read_view(r, SSDTF_NONCE_BYTES);
	uint32_t n = bytes_read_u32(r);

	if (!bytes_read_done(r))
		return "a malformed notice";
	if (!bytes_equal(r_b, bytes_of(s->r_b, sizeof(s->r_b))))
		return "a notice of another session";
	if (n < s->next_n[which])
		return "a notice that was here before";
	s->next_n[which] = (uint64_t)n + 1;
	return NULL;
}

/* body := u8 reason || u64 counter || u16+ text || R_b || u32 n */
int ssdtf_take_error(struct ssdtf_client *c, const struct ssdtf_packet *p,
		     struct ssdtf_event *ret_event)
{
	struct ssdtf_event e;
	struct bytes_reader r;
	struct bytes body;
	int ret = ssdtf_verify_control(c, p, &body);

	if (ret && !ssdtf_is_peers_fault(ret))
		return ret;
	if (ret) {
		ssdtf_event_init(ret_event, SSDTF_IGNORED,
				 "a notice whose signature does not hold");
		return 0;
	}
	r = bytes_reader_of(body);
	ssdtf_event_init(&e, SSDTF_ERROR, NULL);
	e.reason = bytes_read_u8(&r);
	e.counter = bytes_read_u64(&r);
	e.text = bytes_read_u16_view(&r);
	e.why = ssdtf_check_tail(&c->session, SSDTF_COUNTED_ERROR, &r);
	if (e.why) {
		ssdtf_event_init(ret_event, SSDTF_IGNORED, e.why);
		return 0;
	}
	/* The broker refuses every message of the retired context, not just this one. */
	if (e.reason == SSDTF_REASON_CONTEXT_RETIRED)
		ssdtf_contexts_close(c);
	*ret_event = e;
	return 0;
}

/* The reporter's own signature, over what it sent the broker. -ENOENT: its key is not certified. */
static int verify_reporter(struct ssdtf_client *c, const char *topic, struct bytes reporter,
			   uint8_t first, struct bytes properties, const struct bytes body,
			   const struct publish_trailer *t, uint64_t now_ms)
{
	struct publish p = {
		.first = first,
		.topic = bytes_str(topic),
		.properties = properties,
		.body = { body },
		.body_parts = 1,
		.client_id = reporter,
	};

	return ssdtf_verify(c, &p, t, reporter, now_ms);
}

/*
 * outer := u8+ reporter || first || u16+ properties || inner || trailer of the reporter
 * inner := u8 reason || u64 counter || u8+ id || u16+ text || R_b || u32 n   (of its own session)
 * or a nack that the broker passes on: the same without text.
 */
static int parse_report(struct ssdtf_client *c, struct bytes outer, uint64_t now_ms,
			struct ssdtf_event *e)
{
	struct bytes_reader r;
	struct publish_trailer t;
	struct bytes properties, inner;
	uint8_t first;
	bool nack;
	int ret = publish_split(outer, &t);

	if (ret || t.kind != 1)
		return -EBADMSG;
	r = bytes_reader_of(t.body);
	e->reporter = bytes_read_u8_view(&r);
	first = bytes_read_u8(&r);
	properties = bytes_read_u16_view(&r);
	inner = bytes_read_rest(&r);
	if (r.bad || !text_is_id(e->reporter))
		return -EBADMSG;
	r = bytes_reader_of(inner);
	e->reason = bytes_read_u8(&r);
	e->counter = bytes_read_u64(&r);
	e->origin = bytes_read_u8_view(&r);
	nack = !r.bad && r.left == SSDTF_NONCE_BYTES + 4;
	if (!nack)
		e->text = bytes_read_u16_view(&r);
	(void)bytes_read_view(&r, SSDTF_NONCE_BYTES + 4); /* the broker has checked these two */
	if (!bytes_read_done(&r))
		return -EBADMSG;
	ret = verify_reporter(c, nack ? SSDTF_TOPIC_NACK : SSDTF_TOPIC_REPORT, e->reporter, first,
			      properties, inner, &t, now_ms);
	e->reporter_verified = !ret;
	return ret == -ENOENT ? 0 : ret;
}

int ssdtf_take_report(struct ssdtf_client *c, const struct ssdtf_packet *p, struct ssdtf_time now,
		      struct ssdtf_event *ret_event)
{
	struct ssdtf_event e;
	struct bytes outer;
	int ret = ssdtf_verify_control(c, p, &outer);

	ssdtf_event_init(&e, SSDTF_REPORTED, NULL);
	if (!ret)
		ret = parse_report(c, outer, now.unix_ms, &e);
	if (ret && !ssdtf_is_peers_fault(ret))
		return ret;
	if (ret)
		ssdtf_event_init(&e, SSDTF_IGNORED, "a report that does not hold");
	*ret_event = e;
	return 0;
}

/* --- outgoing --------------------------------------------------------------------------------- */

int ssdtf_send_counted(struct ssdtf_client *c, const char *topic, struct bytes_writer *w,
		       const uint8_t *body)
{
	struct ssdtf_session *s = &c->session;

	if (s->n_out == UINT32_MAX)
		return -EOVERFLOW;
	/* Used up even where sending fails: n may skip, but not repeat. */
	s->n_out++;
	bytes_write(w, bytes_of(s->r_b, sizeof(s->r_b)));
	bytes_write_u32(w, s->n_out);
	if (w->bad)
		return -EINVAL;
	return ssdtf_send_signed(c, topic, bytes_of(body, w->used));
}

/* body := u8 reason || u64 counter || u8+ origin || R_b || u32 n */
int ssdtf_nack(struct ssdtf_client *c, const struct ssdtf_event *event)
{
	uint8_t body[SSDTF_NOTICE_BODY_MAX];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	if (event->kind != SSDTF_UNOPENED || !event->ask_again)
		return -EINVAL;
	if (!ssdtf_is_open(c))
		return -ENOTCONN;
	bytes_write_u8(&w, (uint8_t)event->reason);
	bytes_write_u64(&w, event->counter);
	bytes_write_u8_view(&w, event->origin);
	return ssdtf_send_counted(c, SSDTF_TOPIC_NACK, &w, body);
}

/* body := u8 reason || u64 counter || u8+ id complained of || u16+ text || R_b || u32 n */
int ssdtf_report(struct ssdtf_client *c, unsigned reason, uint64_t counter, struct bytes id,
		 struct bytes text)
{
	uint8_t body[SSDTF_NOTICE_BODY_MAX];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	if (reason > UINT8_MAX || id.n > ENVELOPE_ORIGIN_BYTES_MAX)
		return -EINVAL;
	if (!ssdtf_is_open(c))
		return -ENOTCONN;
	if (text.n > SSDTF_TEXT_BYTES_MAX)
		text.n = SSDTF_TEXT_BYTES_MAX;
	bytes_write_u8(&w, (uint8_t)reason);
	bytes_write_u64(&w, counter);
	bytes_write_u8_view(&w, id);
	bytes_write_u16_view(&w, text);
	return ssdtf_send_counted(c, SSDTF_TOPIC_REPORT, &w, body);
}
