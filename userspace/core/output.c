// SPDX-License-Identifier: MIT
#include "userspace/core/output.h"

#include <string.h>

struct chunk {
	struct list link;
	const uint8_t *bytes; /* own, or shared */
	void *shared;	      /* their owner's handle; NULL: own */
	uint32_t begin;	      /* bytes before it are sent */
	uint32_t end;	      /* bytes before it are reserved */
	uint32_t room;
	uint8_t own[];
};

struct output_message {
	struct msghdr header;
	struct iovec vectors[OUTPUT_VECTORS_MAX];
};

void output_init(struct output *o)
{
	list_init(&o->filling);
	list_init(&o->sending);
	o->bytes = 0;
	o->message = NULL;
	o->chunk_hint = 0;
}

static void chunk_free(struct chunk *c, struct output_budget *b)
{
	list_del(&c->link);
	if (c->shared)
		b->unshare(b->ctx, c->shared);
	pool_free(b->pool, c);
}

static void drop_all(struct list *chunks, struct output_budget *b)
{
	while (!list_empty(chunks))
		chunk_free(list_first(chunks, struct chunk, link), b);
}

void output_deinit(struct output *o, struct output_budget *b)
{
	drop_all(&o->filling, b);
	drop_all(&o->sending, b);
	pool_free(b->pool, o->message);
	b->bytes -= o->bytes;
	output_init(o);
}

static struct chunk *last_filling(const struct output *o)
{
	return list_empty(&o->filling) ? NULL : list_entry(o->filling.prev, struct chunk, link);
}

/* Room for n bytes, and for what is likely to come behind them. */
static struct chunk *chunk_new(struct output *o, struct pool *pool, size_t n)
{
	struct chunk *c = last_filling(o);
	size_t room = o->chunk_hint;

	if (c && !c->shared && room < (size_t)2 * c->room)
		room = (size_t)2 * c->room; /* more came than it held */
	if (room < OUTPUT_CHUNK_BYTES_MIN - sizeof(*c))
		room = OUTPUT_CHUNK_BYTES_MIN - sizeof(*c);
	if (room > OUTPUT_CHUNK_BYTES_MAX - sizeof(*c))
		room = OUTPUT_CHUNK_BYTES_MAX - sizeof(*c);
	if (room < n)
		room = n;
	c = pool_alloc(pool, sizeof(*c) + room);
	if (!c)
		return NULL;
	*c = (struct chunk){ .bytes = c->own, .room = (uint32_t)room };
	list_add_tail(&o->filling, &c->link);
	return c;
}

static struct chunk *shared_new(struct pool *pool, struct bytes shared, void *handle)
{
	struct chunk *c = pool_alloc(pool, sizeof(*c));

	if (!c)
		return NULL;
	*c = (struct chunk){
		.bytes = shared.p,
		.shared = handle,
		.end = (uint32_t)shared.n,
		.room = (uint32_t)shared.n,
	};
	list_init(&c->link);
	return c;
}

static bool fits(const struct output_budget *b, size_t n)
{
	return n <= UINT32_MAX / 2 && n <= 2 * b->bytes_max && b->bytes <= 2 * b->bytes_max - n;
}

static void count(struct output *o, struct output_budget *b, size_t n)
{
	o->bytes += n;
	b->bytes += n;
}

uint8_t *output_reserve(struct output *o, struct output_budget *b, size_t n)
{
	struct chunk *c = last_filling(o);
	uint8_t *at;

	BUG_ON(n == 0);
	if (!fits(b, n))
		return NULL;
	if (!c || n > c->room - c->end)
		c = chunk_new(o, b->pool, n);
	if (!c)
		return NULL;
	at = c->own + c->end;
	c->end += (uint32_t)n;
	count(o, b, n);
	return at;
}

uint8_t *output_reserve_shared(struct output *o, struct output_budget *b, size_t n,
			       struct bytes shared, void *handle)
{
	struct chunk *c;
	uint8_t *at;

	BUG_ON(shared.n == 0);
	if (shared.n > UINT32_MAX / 2 || !fits(b, n + shared.n))
		return NULL;
	c = shared_new(b->pool, shared, handle);
	if (!c)
		return NULL;
	at = output_reserve(o, b, n);
	if (!at) {
		pool_free(b->pool, c);
		return NULL;
	}
	list_add_tail(&o->filling, &c->link);
	count(o, b, shared.n);
	return at;
}

/* The longest run of bytes that stand in no shared chunk. The hint rises at once and falls slowly.
 */
static void note_size(struct output *o)
{
	struct list *pos;
	uint32_t run = 0, most = 0;

	list_for_each(pos, &o->filling) {
		const struct chunk *c = list_entry(pos, struct chunk, link);

		run = c->shared ? 0 : run + c->end;
		if (run > most)
			most = run;
	}
	if (most < o->chunk_hint)
		most = o->chunk_hint - (o->chunk_hint - most + 7) / 8;
	o->chunk_hint = most < OUTPUT_CHUNK_BYTES_MAX ? most : OUTPUT_CHUNK_BYTES_MAX;
}

bool output_next(struct output *o, struct output_budget *b, struct output_send *ret_send)
{
	struct chunk *first;
	struct list *pos;
	unsigned n = 0;

	BUG_ON(o->message);
	note_size(o);
	list_splice_tail(&o->sending, &o->filling);
	first = list_first(&o->sending, struct chunk, link);
	if (!first)
		return false;
	if (first->link.next == &o->sending) {
		*ret_send = (struct output_send){ .p = first->bytes + first->begin,
						  .n = first->end - first->begin };
		return true;
	}
	o->message = pool_zalloc(b->pool, sizeof(*o->message));
	if (!o->message)
		return false;
	list_for_each(pos, &o->sending) {
		struct chunk *c = list_entry(pos, struct chunk, link);

		if (n == OUTPUT_VECTORS_MAX)
			break;
		o->message->vectors[n++] =
			(struct iovec){ .iov_base = (uint8_t *)(uintptr_t)c->bytes + c->begin,
					.iov_len = c->end - c->begin };
	}
	o->message->header.msg_iov = o->message->vectors;
	o->message->header.msg_iovlen = n;
	*ret_send = (struct output_send){ .message = &o->message->header };
	return true;
}

void output_sent(struct output *o, struct output_budget *b, size_t n)
{
	pool_free(b->pool, o->message);
	o->message = NULL;
	BUG_ON(n > o->bytes);
	o->bytes -= n;
	b->bytes -= n;
	while (n) {
		struct chunk *c = list_first(&o->sending, struct chunk, link);
		size_t here = c->end - c->begin;

		if (n < here) {
			c->begin += (uint32_t)n;
			return;
		}
		n -= here;
		chunk_free(c, b);
	}
}
