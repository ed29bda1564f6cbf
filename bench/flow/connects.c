// SPDX-License-Identifier: MIT
/*
 * Clients that connect, are let in (sealed: both sides prove themselves), say DISCONNECT and go.
 * Closed loop: so many at a time, the next as soon as one is done. Open loop: one is due every
 * 1/rate seconds, whatever became of those before.
 */
#include <stdlib.h>

#include "bench/flow/clients_impl.h"

#define TIMEOUT_NS   (5 * CLIENTS_NS_PER_S)
#define SWEEP_NS     (CLIENTS_NS_PER_S / 10)
#define DISCONNECT_N 2

struct connect {
	uint64_t due_ns, begun_ns;
};

struct connects {
	unsigned n, n_free;
	unsigned *free; /* a stack of those that do nothing */
	struct connect *list;
	uint64_t begun; /* open loop: how many of the plan */
	uint64_t failed;
};

static struct link *link_of(const struct clients *c, unsigned i)
{
	return &c->links[c->n_links - c->connects->n + i];
}

static void release(struct clients *c, struct link *l)
{
	c->connects->free[c->connects->n_free++] = l->index;
}

void connects_lost(struct clients *c, struct link *l)
{
	c->connects->failed++;
	release(c, l);
}

void connects_open(struct clients *c, struct link *l)
{
	struct bytes_writer w = bytes_writer_of(link_space(l, DISCONNECT_N), DISCONNECT_N);

	c->delivered++;
	clients_time(c, c->connects->list[l->index].due_ns);
	mqtt_encode_empty(MQTT_DISCONNECT, &w);
	BUG_ON(w.bad || w.used != DISCONNECT_N);
	(void)!link_flush(l); /* whether it arrives is no part of connecting */
	link_close(l);
	c->open--;
	release(c, l);
}

static void begin(struct clients *c, uint64_t due)
{
	struct connects *k = c->connects;
	unsigned i = k->free[--k->n_free];

	k->list[i] = (struct connect){ due, c->now_ns };
	clients_dial(c, link_of(c, i), c->o->senders ? &c->o->senders[i] : NULL);
	c->sent++;
}

/* ns until the next is due. */
static uint64_t begin_due(struct clients *c)
{
	struct connects *k = c->connects;
	uint64_t due;

	c->now_ns = clients_now_ns();
	if (c->s->window) {
		while (k->n_free)
			begin(c, c->now_ns);
		return UINT64_MAX;
	}
	for (;; k->begun++) {
		due = c->start_ns + (uint64_t)((double)k->begun * 1e9 / c->s->rate);
		if (due > c->now_ns)
			return due - c->now_ns;
		if (!k->n_free)
			return UINT64_MAX; /* the next that is done makes way */
		begin(c, due);
	}
}

static void sweep(struct clients *c)
{
	for (unsigned i = 0; i < c->connects->n; i++) {
		struct link *l = link_of(c, i);

		if (l->state == LINK_GREETING &&
		    c->now_ns - c->connects->list[i].begun_ns > TIMEOUT_NS)
			clients_drop(c, l);
	}
}

static void make(struct clients *c)
{
	struct connects *k = calloc(1, sizeof(*k));

	if (!k)
		clients_fail(c, "no memory");
	k->n = c->s->clients;
	k->free = calloc(k->n, sizeof(k->free[0]));
	k->list = calloc(k->n, sizeof(k->list[0]));
	if (!k->free || !k->list)
		clients_fail(c, "no memory for %u clients", k->n);
	while (k->n_free < k->n) {
		k->free[k->n_free] = k->n_free;
		k->n_free++;
	}
	c->connects = k;
}

void connects_run(struct clients *c)
{
	uint64_t swept, end;

	make(c);
	c->start_ns = swept = clients_now_ns();
	while (atomic_load(&c->shared->order) < CLIENTS_DRAIN) {
		clients_turn(c, begin_due(c));
		if (c->now_ns - swept < SWEEP_NS)
			continue;
		sweep(c);
		swept = c->now_ns;
	}
	end = c->now_ns + TIMEOUT_NS;
	while (c->connects->n_free < c->connects->n && c->now_ns < end)
		clients_turn(c, UINT64_MAX);
	c->shared->lost = c->connects->failed + c->connects->n - c->connects->n_free;
	free(c->connects->free);
	free(c->connects->list);
	free(c->connects);
	c->connects = NULL;
}
