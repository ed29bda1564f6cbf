// SPDX-License-Identifier: MIT
#include "userspace/broker/updates.h"

#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"
#include "userspace/crypto/publish.h"

/* Connections looked at in one turn. */
#define TURN_MAX 256
/* Above this nothing more is signed here: there is room left for those who authenticate. */
#define SIGNED_OUT_MAX (SIGNER_CONTROLS_OUT_MAX / 2)
#define BODY_BYTES_MAX (UPDATES_BYTES_MAX - PUBLISH_TRAILER_1_BYTES)
#define TAIL_BYTES     (CONN_NONCE_BYTES + 4)

void updates_init(struct updates *u)
{
	list_init(&u->ready);
}

static struct updates_conn *of(struct broker_conn *c)
{
	return &c->secure->updates;
}

static struct broker_conn *conn_of(struct updates_conn *u)
{
	return container_of(u, struct conn_secure, updates)->conn;
}

static void awaited_fired(struct timer *t)
{
	struct broker_conn *c = conn_of(container_of(t, struct updates_conn, awaited));

	session_mark_dirty(c->broker, c->session);
}

void updates_conn_init(struct updates_conn *u)
{
	list_init(&u->ready);
	timer_init(&u->awaited, awaited_fired);
}

void updates_open(struct broker *b, struct broker_conn *c)
{
	if (c->secure && c->session->updates.asks)
		timer_arm(&b->wheel, &of(c)->awaited, b->mono_ms + UPDATES_AWAITED_MS);
}

void updates_close(struct broker *b, struct broker_conn *c)
{
	list_del(&of(c)->ready);
	timer_cancel(&b->wheel, &of(c)->awaited);
}

static void get_ready(struct broker *b, struct broker_conn *c)
{
	if (of(c)->pending && !of(c)->out && list_empty(&of(c)->ready))
		list_add_tail(&b->updates.ready, &of(c)->ready);
}

/* It has all that there is, or will. */
static void told(struct broker_conn *c)
{
	of(c)->pending = false;
	list_del(&of(c)->ready);
}

/* Is there a grant that it does not have? */
static bool owes_grants(const struct broker *b, const struct broker_conn *c)
{
	return stated_any(&b->directory->stated, STATEMENT_GRANT, conn_id(c),
			  c->secure->updates.asked ? c->secure->updates.had
						   : c->session->updates.had);
}

/* The connection has it; what comes behind it may go. */
static void sent(struct broker_conn *c)
{
	of(c)->out = false;
	get_ready(c->broker, c);
}

/* As many of those that are marked as fit. *had is the serial up to which that is all, *more
 * whether there are others. */
static uint16_t gather(struct broker *b, struct bytes_writer *w, uint64_t *had, bool *more)
{
	const struct stated *s = &b->directory->stated;
	const struct stated_update *u;
	unsigned at = 0;
	uint16_t n = 0;

	while ((u = stated_next(s, &at))) {
		size_t need = sizeof(uint32_t) + u->whole.n + TAIL_BYTES;

		*more = need > w->left && n;
		if (*more)
			return n;
		*had = u->serial;
		if (need > w->left) {
			broker_note(b, "not passed on", bytes_of(NULL, 0),
				    "a statement is larger than a message may be");
			continue;
		}
		bytes_write_u32_view(w, u->whole);
		n++;
	}
	*had = stated_last(s);
	return n;
}

/* The next message of those that are marked, in updates.body; 0: nothing is. */
static size_t write_next(struct broker *b, struct broker_conn *c, uint64_t *had, bool *more)
{
	struct bytes_writer w = bytes_writer_of(b->updates.body, BODY_BYTES_MAX);
	uint8_t *count = bytes_write_space(&w, sizeof(uint16_t));
	uint16_t n = gather(b, &w, had, more);

	bytes_store_u16(count, n);
	bytes_write(&w, bytes_of(c->secure->r_b, sizeof(c->secure->r_b)));
	bytes_write_u32(&w, of(c)->n + 1);
	BUG_ON(w.bad);
	return n ? w.used : 0;
}

static bool crowded(const struct broker *b)
{
	return b->signer.controls_out >= SIGNED_OUT_MAX;
}

/* It is pending, and nothing of it is out. False: there is no memory now. */
static bool serve(struct broker *b, struct broker_conn *c)
{
	struct directory *d = b->directory;
	uint64_t had = of(c)->had;
	bool more = false;
	size_t n;

	if (b->ops.backlog(b->io, c->io) >= b->config.limits.output_bytes_soft) {
		list_del(&of(c)->ready); /* until updates_room() */
		return true;
	}
	directory_mark_updates(d, c->session->party, had);
	n = write_next(b, c, &had, &more);
	stated_clear(&d->stated);
	if (n) {
		if (signer_control(b, c, CONTROL_TOPIC_UPDATE, bytes_of(b->updates.body, n), NULL,
				   sent))
			return false;
		of(c)->n++;
		of(c)->out = true;
		list_del(&of(c)->ready);
	}
	of(c)->had = had;
	if (!more)
		told(c);
	session_mark_dirty(b, c->session); /* what waited for that */
	return true;
}

static void begin(struct broker *b, struct broker_conn *c)
{
	of(c)->pending = true;
	get_ready(b, c);
}

bool updates_ask(struct broker *b, struct broker_conn *c, struct bytes body)
{
	struct bytes_reader r = bytes_reader_of(body);
	uint64_t had = bytes_read_u64(&r);

	if (!control_numbered(&r, c, &of(c)->next))
		return false;
	c->session->updates = (struct updates_session){ true, had };
	if (!conn_budget(c))
		return true;
	timer_cancel(&b->wheel, &of(c)->awaited);
	of(c)->asked = true;
	of(c)->had = had;
	if (stated_last(&b->directory->stated) > had) {
		begin(b, c);
		if (owes_grants(b, c))
			deliveries_restart(b, c->session); /* behind what it will be told */
	} else {
		told(c);
		session_mark_dirty(b, c->session);
	}
	return true;
}

void updates_bundle(struct broker *b)
{
	const uint64_t last = stated_last(&b->directory->stated);
	struct list *pos;

	list_for_each(pos, &b->conns) {
		struct broker_conn *c = list_entry(pos, struct broker_conn, link);

		if (c->state == CONN_OPEN && of(c)->asked && of(c)->had < last)
			begin(b, c);
	}
}

bool updates_told(struct broker *b, struct broker_conn *c)
{
	if (of(c)->pending && !of(c)->out && !crowded(b) && !serve(b, c))
		b->starved = true;
	return !(of(c)->pending || timer_armed(&of(c)->awaited)) || !owes_grants(b, c);
}

void updates_room(struct broker *b, struct broker_conn *c)
{
	get_ready(b, c);
}

void updates_turn(struct broker *b)
{
	struct updates *u = &b->updates;
	struct updates_conn *next;
	unsigned n = 0;

	u->more = false;
	while (!crowded(b) && (next = list_first(&u->ready, struct updates_conn, ready))) {
		u->more = n++ == TURN_MAX;
		if (u->more)
			return;
		if (!serve(b, conn_of(next))) {
			b->starved = true;
			return;
		}
	}
}
