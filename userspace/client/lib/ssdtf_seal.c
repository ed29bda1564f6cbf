// SPDX-License-Identifier: MIT
/* Sending: the counter (reserved ahead), the context of each scope, and the sealed, signed payload,
 * alone or as one of a batch. */
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

void ssdtf_scope_close(struct ssdtf_scope *s)
{
	if (s->open)
		envelope_sender_deinit(&s->sender);
	s->open = false;
}

void ssdtf_contexts_close(struct ssdtf_client *c)
{
	for (unsigned i = 0; i < c->n_scopes; i++)
		ssdtf_scope_close(&c->scopes[i]);
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

	ssdtf_scope_close(s);
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

/* --- padding ---------------------------------------------------------------------------------- */

#define PAD_MARK 0x80

/* One byte more than n at the least, for the mark. */
size_t ssdtf_padded_bytes(size_t n)
{
	size_t size = SSDTF_PAD_BYTES_MIN;

	if (!n)
		return 0;
	if (n > SIZE_MAX - SSDTF_PAD_BYTES_STEP)
		return SIZE_MAX;
	if (n >= SSDTF_PAD_BYTES_STEP)
		return (n / SSDTF_PAD_BYTES_STEP + 1) * SSDTF_PAD_BYTES_STEP;
	while (size <= n)
		size *= 2;
	return size;
}

int ssdtf_pad(struct bytes plain, uint8_t *out, size_t room)
{
	size_t n = ssdtf_padded_bytes(plain.n);

	if (n > room)
		return -ENOBUFS;
	if (!n)
		return 0;
	memmove(out, plain.p, plain.n);
	out[plain.n] = PAD_MARK;
	memset(out + plain.n + 1, 0, n - plain.n - 1);
	return 0;
}

int ssdtf_unpad(struct bytes *v)
{
	size_t n = v->n;

	if (!n)
		return 0;
	while (n && !v->p[n - 1])
		n--;
	if (!n || v->p[n - 1] != PAD_MARK)
		return -EBADMSG;
	v->n = n - 1;
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

/* Of the sealed body of n bytes, without its trailer. */
static size_t body_bytes(const struct ssdtf_scope *s, size_t n)
{
	return ENVELOPE_SEALED_BYTES(s->padded ? ssdtf_padded_bytes(n) : n);
}

/* The body alone, under the next counter of all and the next number of the scope's context. That it
 * fits was looked at. */
static int seal_body(struct ssdtf_client *c, struct ssdtf_scope *s, struct bytes topic,
		     struct bytes plain, struct ssdtf_time now, uint8_t *out, uint64_t *ret_counter)
{
	uint64_t counter;
	int ret;

	/* Padded where the ciphertext will stand, so that no memory is needed for it. */
	if (s->padded) {
		size_t n = ssdtf_padded_bytes(plain.n);

		ret = ssdtf_pad(plain, out + ENVELOPE_FIXED_BYTES, n);
		if (ret)
			return ret;
		plain = bytes_of(out + ENVELOPE_FIXED_BYTES, n);
	}

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
	*ret_counter = counter;
	return 0;
}

/* What the signature of a sealed message covers. */
static struct publish signed_part(const struct ssdtf_client *c, struct bytes topic, uint8_t qos,
				  bool retain, struct bytes body)
{
	return (struct publish){
		.first = ssdtf_first(qos, retain),
		.topic = topic,
		.body = { body },
		.body_parts = 1,
		.client_id = c->id,
	};
}

/* Can it be sealed, with a trailer of so many bytes? */
static int check(struct ssdtf_client *c, struct bytes topic, struct bytes plain, uint8_t qos,
		 size_t trailer_n, size_t room, struct ssdtf_time now, struct ssdtf_scope **ret_s)
{
	size_t more = ENVELOPE_SEALED_BYTES(0) + trailer_n;
	struct ssdtf_scope *s;
	int ret;

	if (!may_publish_on(topic) || qos > 2)
		return -EINVAL;
	if (room < more || plain.n > room - more)
		return -ENOBUFS;
	ret = scope_of(c, topic, now, &s);
	if (ret)
		return ret;
	if (s->padded && ssdtf_padded_bytes(plain.n) > room - more)
		return -ENOBUFS;
	*ret_s = s;
	return 0;
}

int ssdtf_seal(struct ssdtf_client *c, struct bytes topic, struct bytes plain, uint8_t qos,
	       bool retain, struct ssdtf_time now, uint8_t *out, size_t room,
	       struct ssdtf_sealed *ret_sealed)
{
	struct ssdtf_scope *s;
	struct publish p;
	uint64_t counter;
	size_t body_n;
	int ret;

	ret = check(c, topic, plain, qos, PUBLISH_TRAILER_1_BYTES, room, now, &s);
	if (ret)
		return ret;
	body_n = body_bytes(s, plain.n);
	ret = seal_body(c, s, topic, plain, now, out, &counter);
	if (ret)
		return ret;
	p = signed_part(c, topic, qos, retain, bytes_of(out, body_n));
	ret = publish_sign(&p, c->signing, out + body_n);
	if (ret)
		return ret;
	c->stats.signatures++;
	c->stats.sealed++;
	ret_sealed->payload = bytes_of(out, body_n + PUBLISH_TRAILER_1_BYTES);
	ret_sealed->counter = counter;
	return 0;
}

int ssdtf_seal_will(struct ssdtf_client *c, struct bytes topic, struct bytes plain, uint8_t qos,
		    bool retain, struct ssdtf_time now, uint8_t *out, size_t room,
		    struct ssdtf_sealed *ret_sealed)
{
	struct ssdtf_scope *s;
	int ret;

	/* CONNECT gives a Will's payload a 16-bit length (MQTT 3.1.3.3). */
	if (plain.n > UINT16_MAX - SSDTF_SEALED_BYTES(0))
		return -EINVAL;
	ret = check(c, topic, plain, qos, PUBLISH_TRAILER_1_BYTES, room, now, &s);
	if (ret)
		return ret;
	if (body_bytes(s, plain.n) > UINT16_MAX - PUBLISH_TRAILER_1_BYTES)
		return -EINVAL;
	return ssdtf_seal(c, topic, plain, qos, retain, now, out, room, ret_sealed);
}

int ssdtf_rekey(struct ssdtf_client *c, struct bytes topic, struct ssdtf_time now,
		struct ssdtf_rekey *ret_rekey)
{
	struct ssdtf_scope *s;
	int ret = scope_of(c, topic, now, &s);

	if (ret)
		return ret;
	ret_rekey->messages = s->messages_max;
	ret_rekey->seconds = s->seconds_max;
	ret_rekey->key_id = s->key_id;
	ret_rekey->padded = s->padded;
	return 0;
}

/* --- batches ---------------------------------------------------------------------------------- */

/* The first error of the list, each in its place. */
static int batch_check(struct ssdtf_client *c, struct ssdtf_outgoing *list, unsigned n,
		       struct ssdtf_time now)
{
	struct ssdtf_scope *s;
	int ret = 0;

	for (unsigned i = 0; i < n; i++) {
		struct ssdtf_outgoing *m = &list[i];
		size_t path_n = merkle_path_len((uint16_t)i, (uint16_t)n);

		m->error = check(c, m->topic, m->plain, m->qos, PUBLISH_TRAILER_2_BYTES(path_n),
				 m->room, now, &s);
		if (!ret)
			ret = m->error;
	}
	return ret;
}

/* The bodies, and their leaves of the tree. */
static int batch_seal(struct ssdtf_client *c, struct ssdtf_outgoing *list, unsigned n,
		      struct ssdtf_time now, uint8_t (*leaves)[HASH_BYTES])
{
	for (unsigned i = 0; i < n; i++) {
		struct ssdtf_outgoing *m = &list[i];
		struct ssdtf_scope *s;
		struct publish p;
		int ret = scope_of(c, m->topic, now, &s);

		if (!ret)
			ret = seal_body(c, s, m->topic, m->plain, now, m->out, &m->sealed.counter);
		if (ret)
			return ret;
		m->sealed.payload = bytes_of(m->out, body_bytes(s, m->plain.n));
		p = signed_part(c, m->topic, m->qos, m->retain, m->sealed.payload);
		publish_leaf(&p, leaves[i]);
	}
	return 0;
}

int ssdtf_seal_batch(struct ssdtf_client *c, struct ssdtf_outgoing *list, unsigned n,
		     struct ssdtf_time now, uint8_t (*nodes)[HASH_BYTES], size_t n_nodes)
{
	uint8_t digest[HASH_BYTES], sig[P256_SIG_BYTES];
	struct merkle tree;
	int ret;

	if (n < 1 || n > SSDTF_BATCH_MAX)
		return -EINVAL;
	if (n == 1)
		return list->error =
			       ssdtf_seal(c, list->topic, list->plain, list->qos, list->retain, now,
					  list->out, list->room, &list->sealed);
	if (n_nodes < merkle_nodes((uint16_t)n))
		return -ENOBUFS;
	ret = batch_check(c, list, n, now);
	if (!ret)
		ret = batch_seal(c, list, n, now, nodes);
	if (ret)
		return ret;
	merkle_build(&tree, nodes, (uint16_t)n);
	publish_root_digest(merkle_root(&tree), digest);
	ret = p256_sign_digest(c->signing, digest, sig);
	if (ret)
		return ret;
	c->stats.signatures++;
	for (unsigned i = 0; i < n; i++) {
		struct ssdtf_outgoing *m = &list[i];
		size_t body_n = m->sealed.payload.n;
		struct bytes_writer w = bytes_writer_of(m->out + body_n, m->room - body_n);

		publish_write_trailer_2(sig, &tree, (uint16_t)i, &w);
		if (w.bad) /* which batch_check() ruled out */
			return -ENOBUFS;
		m->sealed.payload.n += w.used;
		c->stats.sealed++;
	}
	return 0;
}
