// SPDX-License-Identifier: MIT
#include "userspace/client/outbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/secret.h"

static struct outbox_message *message_of(struct list *link)
{
	return list_entry(link, struct outbox_message, link);
}

static void message_free(struct outbox_message *m)
{
	list_del(&m->link);
	secret_wipe(m->plain, m->plain_n);
	free(m->plain);
	free(m->sealed);
	free(m);
}

static void list_free(struct list *head)
{
	struct list *pos, *next;

	list_for_each_safe(pos, next, head)
		message_free(message_of(pos));
}

void outbox_init(struct outbox *o)
{
	memset(o, 0, sizeof(*o));
	list_init(&o->waiting);
	list_init(&o->sent);
	list_init(&o->done);
	list_init(&o->held);
}

void outbox_deinit(struct outbox *o)
{
	list_free(&o->waiting);
	list_free(&o->sent);
	list_free(&o->done);
	list_free(&o->held);
}

int outbox_add(struct outbox *o, struct bytes plain)
{
	struct outbox_message *m = calloc(1, sizeof(*m));

	BUG_ON(outbox_full(o));
	if (!m)
		return -ENOMEM;
	m->plain = malloc(plain.n + 1);
	if (!m->plain) {
		free(m);
		return -ENOMEM;
	}
	if (plain.n)
		memcpy(m->plain, plain.p, plain.n);
	m->plain_n = plain.n;
	list_add_tail(&o->waiting, &m->link);
	o->n_active++;
	return 0;
}

struct outbox_message *outbox_next(struct outbox *o)
{
	return list_first(&o->waiting, struct outbox_message, link);
}

unsigned outbox_unsealed(const struct outbox *o, struct outbox_message **ret_list, unsigned max)
{
	unsigned n = 0;
	struct list *pos;

	list_for_each(pos, &o->waiting) {
		if (n == max)
			break;
		if (!message_of(pos)->sealed)
			ret_list[n++] = message_of(pos);
	}
	return n;
}

void outbox_mark_sent(struct outbox *o, struct outbox_message *m)
{
	list_del(&m->link);
	list_add_tail(&o->sent, &m->link);
	m->state = OUTBOX_SENT;
}

void outbox_unsend(struct outbox *o, struct outbox_message *m)
{
	list_del(&m->link);
	list_add_head(&o->waiting, &m->link);
	m->state = OUTBOX_WAITING;
}

void outbox_mark_done(struct outbox *o, struct outbox_message *m)
{
	list_del(&m->link);
	list_add_tail(&o->done, &m->link);
	m->state = OUTBOX_DONE;
	o->n_active--;
	/* Its sealed bytes are never sent again. */
	free(m->sealed);
	m->sealed = NULL;
	if (++o->n_done <= OUTBOX_DONE_MAX)
		return;
	message_free(list_first(&o->done, struct outbox_message, link));
	o->n_done--;
}

static unsigned *count_of(struct outbox *o, const struct outbox_message *m)
{
	return m->state == OUTBOX_DONE ? &o->n_done : &o->n_active;
}

void outbox_drop(struct outbox *o, struct outbox_message *m)
{
	--*count_of(o, m);
	message_free(m);
}

void outbox_hold(struct outbox *o, struct outbox_message *m, uint64_t now_ms)
{
	--*count_of(o, m);
	o->n_active++;
	list_del(&m->link);
	list_add_tail(&o->held, &m->link);
	m->state = OUTBOX_HELD;
	m->held_ms = now_ms;
}

struct outbox_message *outbox_held(struct outbox *o)
{
	return list_first(&o->held, struct outbox_message, link);
}

void outbox_reseal(struct outbox *o, struct outbox_message *m)
{
	--*count_of(o, m);
	o->n_active++;
	free(m->sealed);
	m->sealed = NULL;
	m->resends = 0;
	outbox_unsend(o, m);
}

void outbox_all_unsent(struct outbox *o)
{
	while (!list_empty(&o->sent))
		outbox_unsend(o, message_of(o->sent.prev));
}

struct outbox_message *outbox_by_mid(struct outbox *o, int mid)
{
	struct list *pos;

	list_for_each(pos, &o->sent)
		if (message_of(pos)->mid == mid)
			return message_of(pos);
	return NULL;
}

struct outbox_message *outbox_by_counter(struct outbox *o, uint64_t counter)
{
	struct list *heads[] = { &o->sent, &o->waiting, &o->done, &o->held };
	struct list *pos;

	for (unsigned i = 0; i < ARRAY_SIZE(heads); i++)
		list_for_each(pos, heads[i])
			if (message_of(pos)->seals && message_of(pos)->counter == counter)
				return message_of(pos);
	return NULL;
}
