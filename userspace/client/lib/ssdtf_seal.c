// SPDX-License-Identifier: MIT
/* Sending: the counter (reserved ahead), the context of each scope, and the sealed, signed payload.
 */
#include "userspace/client/lib/ssdtf.h"

#include <string.h>

#include "userspace/client/lib/ssdtf_private.h"

/* --- the counter ------------------------------------------------------------------------------ */

/*
 *        given out           reserved in storage
 *   1 ............ counter_next ........ counter_mark
 *                                        after a reboot: counter_next = counter_mark + 1
 */
int ssdtf_counter_init(struct ssdtf_client *c)
{
	uint64_t mark;
	int ret = c->ops->counter_load(c->ctx, &mark);

	if (ret)
		return ret;
	if (mark == UINT64_MAX)
		return -EOVERFLOW;
	c->counter_mark = mark;
	c->counter_next = mark + 1; /* counters begin at 1 */
	return 0;
}

bool ssdtf_counter_raise(struct ssdtf_client *c, uint64_t highest)
{
	if (highest < c->counter_next || highest - c->counter_next > SSDTF_COUNTER_JUMP_MAX ||
	    highest == UINT64_MAX)
		return false;
	c->counter_next = highest + 1;
	return true;
}

static int counter_take(struct ssdtf_client *c, uint64_t *ret_counter)
{
	uint64_t mark;
	int ret;

	if (c->counter_next == UINT64_MAX)
		return -EOVERFLOW;
	if (c->counter_next > c->counter_mark) {
		mark = c->counter_next - 1;
		mark = mark > UINT64_MAX - 1 - c->counter_step ? UINT64_MAX - 1
							       : mark + c->counter_step;
		ret = c->ops->counter_reserve(c->ctx, mark);
		if (ret)
			return ret;
		c->counter_mark = mark;
	}
	*ret_counter = c->counter_next++;
	return 0;
}

void ssdtf_acknowledged(struct ssdtf_client *c, uint64_t counter)
{
	if (counter > c->acknowledged)
		c->acknowledged = counter;
}

/* --- contexts --------------------------------------------------------------------------------- */

static void context_close(struct ssdtf_scope *s)
{
	if (s->open)
		envelope_sender_deinit(&s->sender);
	s->open = false;
}

void ssdtf_contexts_close(struct ssdtf_client *c)
{
	for (unsigned i = 0; i < c->n_scopes; i++)
		context_close(&c->scopes[i]);
}

/* PROTOCOL 2: so many messages, so long; a clock that went back counts as too long. */
static bool context_is_spent(const struct ssdtf_scope *s, struct ssdtf_time now)
{
	return s->messages >= s->messages_max || now.mono_ms < s->opened_mono_ms ||
	       now.mono_ms - s->opened_mono_ms >= (uint64_t)s->seconds_max * 1000;
}

static int context_open(struct ssdtf_client *c, struct ssdtf_scope *s, struct ssdtf_time now)
{
	int ret;

	context_close(s);
	ret = envelope_sender_init(&s->sender, s->suite, s->key_id, &s->a);
	if (ret)
		return ret;
	s->open = true;
	s->opened_mono_ms = now.mono_ms;
	s->messages = 0;
	c->stats.contexts++;
	return 0;
}

/* The scope of a topic: of the epochs of one scope that are valid now, the latest. */
static int scope_of(struct ssdtf_client *c, struct bytes topic, struct ssdtf_time now,
		    struct ssdtf_scope **ret_scope)
{
	struct ssdtf_scope *found = NULL;
	bool covered = false;

	for (unsigned i = 0; i < c->n_scopes; i++) {
		struct ssdtf_scope *s = &c->scopes[i];

		if (!ssdtf_filters_match(s->filters, topic))
			continue;
		covered = true;
		if (!record_valid_at(s->not_before_ms, s->not_after_ms, now.unix_ms))
			continue;
		if (!found || (bytes_equal(s->name, found->name) && s->epoch > found->epoch))
			found = s;
	}
	if (!found)
		return covered ? -ETIME : -EACCES;
	*ret_scope = found;
	return 0;
}

/* --- sealing ---------------------------------------------------------------------------------- */

/* A topic name [MQTT-4.7.3-1] [MQTT-3.3.2-2] that is not the protocol's own (PROTOCOL 5). */
static bool may_publish_on(struct bytes topic)
{
	if (topic.n < 1 || topic.n > UINT16_MAX || ssdtf_begins(topic, SSDTF_TOPIC_PREFIX))
		return false;
	for (size_t i = 0; i < topic.n; i++)
		if (topic.p[i] == '+' || topic.p[i] == '#' || topic.p[i] == '\0')
			return false;
	return true;
}

static int sign(struct ssdtf_client *c, struct bytes topic, uint8_t first, struct bytes body,
		uint8_t *ret_trailer)
{
	struct publish p = {
		.first = first,
		.topic = topic,
		.body = { body },
		.body_parts = 1,
		.client_id = c->id,
	};

	return publish_sign(&p, c->signing, ret_trailer);
}

int ssdtf_seal(struct ssdtf_client *c, struct bytes topic, struct bytes plain, uint8_t qos,
	       bool retain, struct ssdtf_time now, uint8_t *out, size_t room,
	       struct ssdtf_sealed *ret_sealed)
{
	struct ssdtf_scope *s;
	uint64_t counter;
	size_t body_n;
	int ret;

	if (!may_publish_on(topic) || qos > 2)
		return -EINVAL;
	if (room < SSDTF_SEALED_BYTES(0) || plain.n > room - SSDTF_SEALED_BYTES(0))
		return -ENOBUFS;
	ret = scope_of(c, topic, now, &s);
	if (ret)
		return ret;
	if (!s->open || context_is_spent(s, now)) {
		ret = context_open(c, s, now);
		if (ret)
			return ret;
	}
	ret = counter_take(c, &counter);
	if (ret)
		return ret;
	ret = envelope_seal(&s->sender, counter, now.unix_ms, c->id, topic, plain, out);
	/* Counted before anything else can fail: what was sealed once is not sealed again. */
	s->messages++;
	if (ret)
		return ret;
	body_n = ENVELOPE_SEALED_BYTES(plain.n);
	ret = sign(c, topic, ssdtf_first(qos, retain), bytes_of(out, body_n), out + body_n);
	if (ret)
		return ret;
	c->stats.sealed++;
	ret_sealed->payload = bytes_of(out, body_n + PUBLISH_TRAILER_1_BYTES);
	ret_sealed->counter = counter;
	return 0;
}

int ssdtf_seal_will(struct ssdtf_client *c, struct bytes topic, struct bytes plain, uint8_t qos,
		    bool retain, struct ssdtf_time now, uint8_t *out, size_t room,
		    struct ssdtf_sealed *ret_sealed)
{
	/* CONNECT gives a Will's payload a 16-bit length (MQTT 3.1.3.3). */
	if (plain.n > UINT16_MAX - SSDTF_SEALED_BYTES(0))
		return -EINVAL;
	return ssdtf_seal(c, topic, plain, qos, retain, now, out, room, ret_sealed);
}
