// SPDX-License-Identifier: MIT
#include "userspace/core/output.h"

#include <string.h>

struct chunk {
	struct list link;
	uint32_t begin; /* bytes before it are sent */
	uint32_t end;	/* bytes before it are reserved */
	uint32_t room;
	uint8_t data[];
};

#define CHUNK_ROOM (OUTPUT_CHUNK_BYTES - sizeof(struct chunk))

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
}

static void drop_all(struct list *chunks, struct pool *pool)
{
	while (!list_empty(chunks)) {
		struct chunk *c = list_first(chunks, struct chunk, link);

		list_del(&c->link);
		pool_free(pool, c);
	}
}

void output_deinit(struct output *o, struct output_budget *b)
{
	drop_all(&o->filling, b->pool);
	drop_all(&o->sending, b->pool);
	pool_free(b->pool, o->message);
	b->bytes -= o->bytes;
	output_init(o);
}

static struct chunk *last_filling(const struct output *o)
{
	return list_empty(&o->filling) ? NULL : list_entry(o->filling.prev, struct chunk, link);
}

static struct chunk *chunk_new(struct output *o, struct pool *pool, size_t n)
{
	size_t room = n > CHUNK_ROOM ? n : CHUNK_ROOM;
	struct chunk *c = pool_alloc(pool, sizeof(*c) + room);

	if (!c)
		return NULL;
	c->begin = 0;
	c->end = 0;
	c->room = (uint32_t)room;
	list_add_tail(&o->filling, &c->link);
	return c;
}

uint8_t *output_reserve(struct output *o, struct output_budget *b, size_t n)
{
	struct chunk *c = last_filling(o);
	uint8_t *at;

	BUG_ON(n == 0);
	if (n > UINT32_MAX / 2 || n > 2 * b->bytes_max || b->bytes > 2 * b->bytes_max - n)
		return NULL;
	if (!c || n > c->room - c->end)
		c = chunk_new(o, b->pool, n);
	if (!c)
		return NULL;
	at = c->data + c->end;
	c->end += (uint32_t)n;
	o->bytes += n;
	b->bytes += n;
	return at;
}

bool output_next(struct output *o, struct output_budget *b, struct output_send *ret_send)
{
	struct chunk *first;
	struct list *pos;
	unsigned n = 0;

	BUG_ON(o->message);
	list_splice_tail(&o->sending, &o->filling);
	first = list_first(&o->sending, struct chunk, link);
	if (!first)
		return false;
	if (first->link.next == &o->sending) {
		*ret_send = (struct output_send){ .p = first->data + first->begin,
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
		o->message->vectors[n++] = (struct iovec){ .iov_base = c->data + c->begin,
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
		list_del(&c->link);
		pool_free(b->pool, c);
	}
}
