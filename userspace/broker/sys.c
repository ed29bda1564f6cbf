// SPDX-License-Identifier: MIT
#include "userspace/broker/sys.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"
#include "userspace/bundle/record.h"

#define TOPIC_BYTES_MAX (sizeof(SYS_TOPIC_PREFIX) - 1 + SYS_NAME_BYTES_MAX)
/* A filter is longer than a topic that it matches by '+' for an empty level and by "/#" at most. */
#define FILTER_BYTES_MAX (2 * TOPIC_BYTES_MAX + 3)
#define TEXT_BYTES_MAX	 sizeof("18446744073709551615")
/* Above this nothing more is signed here: there is room left for those who authenticate. */
#define SIGNED_OUT_MAX (SIGNER_CONTROLS_OUT_MAX / 2)

static void timer_fired(struct timer *t);

void sys_init(struct broker *b)
{
	struct sys *y = &b->sys;

	memset(y, 0, sizeof(*y));
	list_init(&y->fresh);
	list_init(&y->watchers);
	timer_init(&y->timer, timer_fired);
	y->broker = b;
}

void sys_deinit(struct broker *b)
{
	struct sys *y = &b->sys;

	timer_cancel(&b->wheel, &y->timer);
	while (y->n)
		pool_free(&b->pool, y->values[--y->n]);
}

bool sys_is_topic(struct bytes topic)
{
	static const char root[] = "$SYS";
	size_t n = strlen(root);

	return topic.n >= n && memcmp(topic.p, root, n) == 0 &&
	       (topic.n == n || topic.p[n] == '/'); /* "$SYS/#" has "$SYS" too */
}

/* --- values ----------------------------------------------------------------------------------- */

static struct sys_value *find(const struct sys *y, const char *name)
{
	for (unsigned i = 0; i < y->n; i++)
		if (strcmp(y->values[i]->topic + strlen(SYS_TOPIC_PREFIX), name) == 0)
			return y->values[i];
	return NULL;
}

static int add(struct broker *b, const char *name, struct sys_value **ret_v)
{
	struct sys *y = &b->sys;
	size_t n = strlen(name), prefix_n = strlen(SYS_TOPIC_PREFIX);
	struct sys_value *v;

	if (n > SYS_NAME_BYTES_MAX || !mqtt_topic_name_ok(bytes_of(name, n)))
		return -EINVAL;
	if (y->n == SYS_VALUES_MAX)
		return -ENOSPC;
	v = pool_zalloc(&b->pool, sizeof(*v) + prefix_n + n + 1);
	if (!v)
		return -ENOMEM;
	v->topic_n = prefix_n + n;
	memcpy(v->topic, SYS_TOPIC_PREFIX, prefix_n);
	memcpy(v->topic + prefix_n, name, n + 1);
	y->values[y->n++] = v;
	*ret_v = v;
	return 0;
}

int broker_sys_set(struct broker *b, const char *name, uint64_t value)
{
	struct sys_value *v = find(&b->sys, name);
	int err;

	if (v && v->value == value)
		return 0;
	if (!v) {
		err = add(b, name, &v);
		if (err)
			return err;
	}
	v->value = value;
	v->changed = ++b->sys.change;
	return 0;
}

/* --- one message ------------------------------------------------------------------------------ */

/* False: the connection ended. */
static bool send_plain(struct broker_conn *c, const struct sys_value *v, struct bytes text,
		       bool retain)
{
	struct mqtt_publish p = {
		.retain = retain,
		.topic = bytes_of(v->topic, v->topic_n),
		.payload = text,
	};
	size_t n = mqtt_publish_bytes(p.topic.n, p.payload.n, 0);
	uint8_t *out = conn_out(c, n);
	struct bytes_writer w;

	if (!out)
		return false;
	w = bytes_writer_of(out, n);
	mqtt_encode_publish(&p, &w);
	BUG_ON(w.bad || w.left);
	return true;
}

/* The session's nonce and a number behind it, as all that the broker says has them: an old number
 * cannot be played to a manager as today's. False: no memory. */
static bool send_signed(struct broker_conn *c, const struct sys_value *v, struct bytes text)
{
	uint8_t body[TEXT_BYTES_MAX + CONN_NONCE_BYTES + 4];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	bytes_write(&w, text);
	bytes_write(&w, bytes_of(c->secure->r_b, sizeof(c->secure->r_b)));
	bytes_write_u32(&w, ++c->secure->sys_n);
	BUG_ON(w.bad);
	return signer_control(c->broker, c, v->topic, bytes_of(body, w.used), NULL, NULL) == 0;
}

static bool send_value(struct broker_conn *c, const struct sys_value *v, bool retain)
{
	char text[TEXT_BYTES_MAX];
	int n = snprintf(text, sizeof(text), "%" PRIu64, v->value);
	struct bytes view = bytes_of(text, (size_t)n);

	return c->broker->config.plain ? send_plain(c, v, view, retain) : send_signed(c, v, view);
}

/* --- one session ------------------------------------------------------------------------------ */

/* The values that one filter is still to be told: all where it is new, else those that changed.
 * *sent counts them. False: one could not be sent, and s may be gone. */
static bool tell(struct broker *b, struct session *s, const struct subscription *sub,
		 unsigned *sent)
{
	struct sys *y = &b->sys;
	uint8_t filter[FILTER_BYTES_MAX];
	size_t n = trie_filter(&sub->sub, filter, sizeof(filter));

	if (n > sizeof(filter))
		return true;
	for (unsigned i = 0; i < y->n; i++) {
		struct sys_value *v = y->values[i];

		if (v->pass == y->pass || (!sub->sys_fresh && v->changed <= s->sys_seen) ||
		    !record_filter_matches(bytes_of(filter, n), bytes_of(v->topic, v->topic_n)))
			continue;
		v->pass = y->pass;
		/* RETAIN as of retained messages [MQTT-3.3.1-8], [MQTT-3.3.1-9]. */
		if (!send_value(s->conn, v, sub->sys_fresh))
			return false;
		(*sent)++;
	}
	return true;
}

static bool tell_all(struct broker *b, struct session *s, bool fresh, unsigned *sent)
{
	struct list *pos;

	list_for_each(pos, &s->subscriptions) {
		struct subscription *sub = list_entry(pos, struct subscription, sub.by_owner);

		if (sub->sys && sub->sys_fresh == fresh && !tell(b, s, sub, sent))
			return false;
	}
	return true;
}

static void told(struct broker *b, struct session *s)
{
	struct list *pos;

	list_for_each(pos, &s->subscriptions)
		list_entry(pos, struct subscription, sub.by_owner)->sys_fresh = false;
	s->sys_seen = b->sys.change;
}

static bool watches(struct session *s)
{
	struct list *pos;

	list_for_each(pos, &s->subscriptions)
		if (list_entry(pos, struct subscription, sub.by_owner)->sys)
			return true;
	return false;
}

/* Absent, or with enough to send already: then it is told another time. */
static bool can_take(const struct broker *b, const struct session *s)
{
	return s->conn && b->ops.backlog(b->io, s->conn->io) + s->pipeline_bytes <
				  b->config.limits.output_bytes_soft;
}

/* Returns how many messages it was sent. */
static unsigned serve(struct broker *b, struct session *s)
{
	struct sys *y = &b->sys;
	unsigned sent = 0;

	list_del(&s->sys);
	if (!watches(s))
		return 0;
	s->sys_due_ms = b->mono_ms + SYS_PERIOD_MS;
	list_add_tail(&y->watchers, &s->sys);
	if (!can_take(b, s))
		return 0;
	y->pass++;
	if (tell_all(b, s, true, &sent) && tell_all(b, s, false, &sent))
		told(b, s);
	return sent;
}

/* --- their order ------------------------------------------------------------------------------ */

static struct session *next_due(struct sys *y)
{
	struct session *f = list_first(&y->fresh, struct session, sys);
	struct session *w = list_first(&y->watchers, struct session, sys);

	if (!f || !w)
		return f ? f : w;
	return f->sys_due_ms <= w->sys_due_ms ? f : w;
}

static void arm(struct broker *b)
{
	struct sys *y = &b->sys;
	const struct session *s = next_due(y);

	if (!s)
		return timer_cancel(&b->wheel, &y->timer);
	timer_arm(&b->wheel, &y->timer,
		  s->sys_due_ms > y->step_next_ms ? s->sys_due_ms : y->step_next_ms);
}

/* Is there room with the token for all that one session can get? */
static bool token_has_room(const struct broker *b)
{
	return b->config.plain || b->signer.controls_out + b->sys.n <= SIGNED_OUT_MAX;
}

static void timer_fired(struct timer *t)
{
	struct sys *y = container_of(t, struct sys, timer);
	struct broker *b = y->broker;
	struct session *s;
	unsigned done = 0;

	while (done < SYS_STEP_MAX && token_has_room(b) && (s = next_due(y)) &&
	       s->sys_due_ms <= b->mono_ms)
		done += 1 + serve(b, s);
	y->step_next_ms = b->mono_ms + SYS_STEP_MS;
	arm(b);
}

void sys_subscribed(struct broker *b, struct session *s, struct subscription *sub)
{
	sub->sys = sub->sys_fresh = true;
	s->sys_due_ms = b->mono_ms;
	list_del(&s->sys);
	list_add_tail(&b->sys.fresh, &s->sys);
	arm(b);
}
