// SPDX-License-Identifier: MIT
#include "userspace/broker/control.h"

#include <string.h>

#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"
#include "userspace/base/text.h"

#define ERROR_BYTES_MAX	 256
#define REPORT_BYTES_MAX 4096 /* of one report, text and trailer included */

struct waiting_report {
	struct list link;
	size_t n;
	uint8_t envelope[];
};

void control_init(struct control *c)
{
	list_init(&c->reports);
	c->n_reports = 0;
}

static void report_free(struct broker *b, struct waiting_report *r)
{
	list_del(&r->link);
	b->control.n_reports--;
	pool_free(&b->pool, r);
}

void control_deinit(struct broker *b)
{
	while (!list_empty(&b->control.reports))
		report_free(b, list_first(&b->control.reports, struct waiting_report, link));
}

bool control_is_topic(struct bytes topic)
{
	size_t n = strlen(CONTROL_TOPIC_PREFIX);

	return topic.n >= n && memcmp(topic.p, CONTROL_TOPIC_PREFIX, n) == 0;
}

bool control_is_filter(struct bytes filter)
{
	static const char share[] = "$share/";
	size_t n = strlen(share);
	const uint8_t *slash;
	bool shared = false;

	if (filter.n >= n && memcmp(filter.p, share, n) == 0) {
		slash = memchr(filter.p + n, '/', filter.n - n);
		shared = slash;
		if (shared)
			filter = bytes_of(slash + 1, filter.n - (size_t)(slash + 1 - filter.p));
	}
	/* "$SSDTF" alone and "$SSDTF/#" both begin there. */
	return control_is_topic(filter) || bytes_equal(filter, bytes_str("$SSDTF")) ||
	       (shared && sys_is_topic(filter));
}

/* --- errors ----------------------------------------------------------------------------------- */

static const char *text_of(enum control_reason reason)
{
	switch (reason) {
	case CONTROL_BAD_SIGNATURE:
		return "bad signature";
	case CONTROL_MALFORMED:
		return "malformed, or bound to another id or topic";
	case CONTROL_REPLAYED:
		return "counter is below the replay window";
	case CONTROL_NO_KEY_ID:
		return "key id is unknown or not valid now";
	case CONTROL_NOT_PERMITTED:
		return "not permitted on this topic";
	case CONTROL_UNAVAILABLE:
		return "conversion is unavailable, try again";
	case CONTROL_CANNOT_OPEN:
		return "a receiver cannot open it";
	case CONTROL_RETIRED:
		return "context is retired, seal anew";
	}
	return "unknown";
}

static void send_error(struct broker *b, struct broker_conn *conn, enum control_reason reason,
		       uint64_t counter, struct ack *ack)
{
	uint8_t body[ERROR_BYTES_MAX];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	bytes_write_u8(&w, (uint8_t)reason);
	bytes_write_u64(&w, counter);
	bytes_write_u16_view(&w, bytes_str(text_of(reason)));
	bytes_write(&w, bytes_of(conn->secure->r_b, sizeof(conn->secure->r_b)));
	bytes_write_u32(&w, ++conn->secure->error_n);
	BUG_ON(w.bad);
	if (signer_control(b, conn, CONTROL_TOPIC_ERROR, bytes_of(body, w.used), ack, NULL) == 0)
		b->stats.errors_sent++;
	else
		ack_drop(ack); /* no memory for the error: then no acknowledgement either */
}

void control_error(struct broker *b, struct broker_conn *conn, enum control_reason reason,
		   uint64_t counter, struct ack *ack)
{
	if (conn->state != CONN_OPEN)
		return ack_drop(ack);
	conn_budget_owe(conn);
	send_error(b, conn, reason, counter, ack);
}

void control_error_to(struct broker *b, struct bytes id, enum control_reason reason,
		      uint64_t counter)
{
	struct session *s = session_find(b, id);

	if (s && s->conn && conn_budget(s->conn))
		send_error(b, s->conn, reason, counter, NULL);
}

/* --- nacks ------------------------------------------------------------------------------------ */

bool control_numbered(struct bytes_reader *r, const struct broker_conn *c, uint64_t *next)
{
	struct bytes r_b = bytes_read_view(r, CONN_NONCE_BYTES);
	uint32_t n = bytes_read_u32(r);

	if (!bytes_read_done(r) || n < *next ||
	    !bytes_equal_ct(r_b, bytes_of(c->secure->r_b, sizeof(c->secure->r_b))))
		return false;
	*next = (uint64_t)n + 1;
	return true;
}

static struct delivery *find_in(struct list *l, struct bytes origin, uint64_t counter)
{
	struct list *pos;

	list_for_each(pos, l) {
		struct delivery *d = list_entry(pos, struct delivery, link);
		const struct message_sealed *sealed = d->message->sealed;

		if (sealed && sealed->envelope.counter == counter &&
		    bytes_equal(sealed->origin, origin))
			return d;
	}
	return NULL;
}

bool control_nack(struct broker *b, struct broker_conn *conn, struct message *m, struct bytes body)
{
	struct bytes_reader r = bytes_reader_of(body);
	uint8_t reason = bytes_read_u8(&r);
	uint64_t counter = bytes_read_u64(&r);
	struct bytes origin = bytes_read_u8_view(&r);
	struct delivery *d;

	if (!control_numbered(&r, conn, &conn->secure->nack_next) ||
	    (origin.n && !text_is_id(origin)) || reason < CONTROL_BAD_SIGNATURE ||
	    reason > CONTROL_RETIRED)
		return false;
	b->stats.nacks++;
	if (!conn_budget(conn))
		return true;
	d = find_in(&conn->session->sent, origin, counter);
	if (!d)
		d = find_in(&conn->session->recent, origin, counter);
	if (d && !d->sealed->nacked)
		delivery_restart(b, d, m);
	return true;
}

/* --- reports ---------------------------------------------------------------------------------- */

bool control_is_manager(const struct broker_conn *c)
{
	return c->state == CONN_OPEN && c->session->party->roles & RECORD_ROLE_MANAGER &&
	       !directory_may_only_claim(c->session->party);
}

/* False: no memory. */
static bool send_report(struct broker *b, struct broker_conn *manager, struct bytes envelope)
{
	return signer_control(b, manager, CONTROL_TOPIC_REPORT, envelope, NULL, NULL) == 0;
}

static void keep_report(struct broker *b, struct bytes envelope)
{
	struct waiting_report *r = pool_alloc(&b->pool, sizeof(*r) + envelope.n);

	if (!r)
		return;
	list_init(&r->link);
	r->n = envelope.n;
	memcpy(r->envelope, envelope.p, envelope.n);
	list_add_tail(&b->control.reports, &r->link);
	if (++b->control.n_reports > b->config.limits.reports_queue_max)
		report_free(b, list_first(&b->control.reports, struct waiting_report, link));
}

/* u8+ reporter || first || u16 properties || body || trailer as received, to every manager here. */
static void forward(struct broker *b, struct bytes reporter, const struct message *m)
{
	uint8_t envelope[1 + 64 + 1 + 2 + REPORT_BYTES_MAX];
	struct bytes_writer w = bytes_writer_of(envelope, sizeof(envelope));
	struct list *pos;
	bool sent = false;

	bytes_write_u8_view(&w, reporter);
	bytes_write_u8(&w, mqtt_publish_first(m->qos, m->retain, false));
	bytes_write_u16(&w, 0);
	bytes_write(&w, m->payload);
	BUG_ON(w.bad);
	b->stats.reports++;
	list_for_each(pos, &b->conns) {
		struct broker_conn *c = list_entry(pos, struct broker_conn, link);

		if (control_is_manager(c) && send_report(b, c, bytes_of(envelope, w.used)))
			sent = true;
	}
	if (!sent)
		keep_report(b, bytes_of(envelope, w.used));
}

bool control_report(struct broker *b, struct broker_conn *conn, struct message *m,
		    struct bytes body)
{
	struct bytes_reader r = bytes_reader_of(body);
	uint8_t reason = bytes_read_u8(&r);
	struct bytes about, text;

	(void)bytes_read_u64(&r); /* the counter is between the reporter and the manager */
	about = bytes_read_u8_view(&r);
	text = bytes_read_u16_view(&r);
	if (!control_numbered(&r, conn, &conn->secure->report_next) ||
	    m->payload.n > REPORT_BYTES_MAX || reason < CONTROL_BAD_SIGNATURE ||
	    reason > CONTROL_RETIRED || (about.n && !text_is_id(about)) ||
	    (text.n && !mqtt_utf8_ok(text)))
		return false;
	if (conn_budget(conn))
		forward(b, conn_id(conn), m);
	return true;
}

void control_report_sender(struct broker *b, struct delivery *d, struct message *nack)
{
	if (nack->payload.n <= REPORT_BYTES_MAX)
		forward(b, session_id(d->session), nack);
}

void control_manager_here(struct broker *b, struct broker_conn *conn)
{
	if (!control_is_manager(conn))
		return;
	while (!list_empty(&b->control.reports)) {
		struct waiting_report *r =
			list_first(&b->control.reports, struct waiting_report, link);

		if (!send_report(b, conn, bytes_of(r->envelope, r->n)))
			return; /* they wait for the next time */
		report_free(b, r);
	}
}
