// SPDX-License-Identifier: MIT
#include "bench/flow/clients.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bench/flow/clients_impl.h"

#define GREETING_MAX 64 /* connections begun at a time */
#define DRAIN_NS     (5 * CLIENTS_NS_PER_S)
#define UNSTICK_NS   (CLIENTS_NS_PER_S / 2)
#define FILTERS_EACH MQTT_FILTERS_MAX

/* --- who takes part --------------------------------------------------------------------------- */

unsigned clients_senders(const struct scenario *s)
{
	switch (s->kind) {
	case SCENARIO_PAIRS:
	case SCENARIO_FAN_IN:
	case SCENARIO_INGRESS:
		return s->clients;
	case SCENARIO_FAN_OUT:
	case SCENARIO_RETAINED:
		return 1;
	case SCENARIO_CONNECT:
	case SCENARIO_KINDS:
		break;
	}
	return 0;
}

unsigned clients_receivers(const struct scenario *s)
{
	switch (s->kind) {
	case SCENARIO_PAIRS:
	case SCENARIO_FAN_OUT:
	case SCENARIO_RETAINED:
		return s->clients;
	case SCENARIO_FAN_IN:
		return 1;
	case SCENARIO_CONNECT:
	case SCENARIO_INGRESS:
	case SCENARIO_KINDS:
		break;
	}
	return 0;
}

unsigned clients_others(const struct scenario *s)
{
	return (s->others + CLIENTS_OTHERS_EACH - 1) / CLIENTS_OTHERS_EACH;
}

unsigned clients_copies(const struct scenario *s)
{
	return s->kind == SCENARIO_FAN_OUT ? s->clients : 1;
}

/* --- set-up ----------------------------------------------------------------------------------- */

/* Those of one kind stand behind one another. */
static void name_links(struct clients *c, unsigned first, unsigned n, enum client_kind kind)
{
	for (unsigned i = 0; i < n; i++)
		link_init(&c->links[first + i], kind, i);
}

static void make(struct clients *c, const struct clients_options *o)
{
	const struct scenario *s = o->scenario;
	unsigned at = 0;

	*c = (struct clients){ .o = o, .s = s, .shared = o->shared, .epoll = -1 };
	c->n_idle = s->idle;
	c->n_others = clients_others(s);
	c->n_receivers = clients_receivers(s);
	c->n_senders = clients_senders(s);
	c->n_connects = s->kind == SCENARIO_CONNECT ? s->clients : 0;
	c->n_links = c->n_idle + c->n_others + c->n_receivers + c->n_senders + c->n_connects;
	c->copies = clients_copies(s);
	c->links = calloc(c->n_links ? c->n_links : 1, sizeof(c->links[0]));
	c->rx = malloc(CLIENTS_RX_BYTES);
	c->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!c->links || !c->rx || c->epoll < 0)
		clients_fail(c, "no memory for %u clients", c->n_links);
	name_links(c, at, c->n_idle, CLIENT_IDLE);
	name_links(c, at += c->n_idle, c->n_others, CLIENT_OTHER);
	name_links(c, at += c->n_others, c->n_receivers, CLIENT_RECEIVER);
	name_links(c, at += c->n_receivers, c->n_senders, CLIENT_SENDER);
	name_links(c, at += c->n_senders, c->n_connects, CLIENT_CONNECT);
	receivers_make(c);
	senders_make(c);
}

static void unmake(struct clients *c)
{
	receivers_free(c);
	senders_free(c);
	for (unsigned i = 0; i < c->n_links; i++)
		link_deinit(&c->links[i]);
	free(c->links);
	free(c->rx);
	(void)close(c->epoll);
}

static bool room_to_greet(struct clients *c)
{
	return c->greeting < GREETING_MAX;
}

static bool all_open(struct clients *c)
{
	return !c->greeting;
}

static void open_links(struct clients *c, unsigned first, unsigned n, struct device *devices)
{
	for (unsigned i = 0; i < n; i++) {
		clients_until(c, "connecting", room_to_greet);
		clients_dial(c, &c->links[first + i], devices ? &devices[i] : NULL);
	}
	clients_until(c, "connecting", all_open);
}

/* --- other subscriptions ---------------------------------------------------------------------- */

static uint64_t packets_of_others(const struct clients *c)
{
	return (c->s->others + FILTERS_EACH - 1) / FILTERS_EACH;
}

static bool others_acked(struct clients *c)
{
	return c->others_acked >= packets_of_others(c);
}

static void write_others(struct clients *c, struct link *l, unsigned from, unsigned n)
{
	struct mqtt_subscribe s = { .packet_id = 1, .n = n };
	char text[FILTERS_EACH][TOPICS_BYTES];
	uint8_t bytes[FILTERS_EACH * (TOPICS_BYTES + 3) + MQTT_FIXED_HEADER_MAX + 2];
	struct bytes_writer w = bytes_writer_of(bytes, sizeof(bytes));

	for (unsigned i = 0; i < n; i++)
		s.list[i].filter = topics_other(from + i, text[i]);
	mqtt_encode_subscribe(&s, &w);
	BUG_ON(w.bad);
	memcpy(link_space(l, w.used), bytes, w.used);
	clients_list(c, l);
}

static void subscribe_others(struct clients *c)
{
	unsigned i = 0;

	for (unsigned at = 0; at < c->s->others; i++) {
		unsigned left = c->s->others - at, n = left < FILTERS_EACH ? left : FILTERS_EACH;

		write_others(c, &c->links[c->n_idle + i % c->n_others], at, n);
		at += n;
		if (i % 64 == 63)
			clients_turn(c, 0);
	}
	clients_until(c, "subscribing to other topics", others_acked);
}

static bool all_subscribed(struct clients *c)
{
	for (unsigned i = 0; i < c->n_receivers; i++) {
		if (!c->receivers[i].subscribed)
			return false;
	}
	return true;
}

static void subscribe(struct clients *c)
{
	for (unsigned i = 0; i < c->n_receivers; i++)
		receiver_subscribe(c, &c->receivers[i]);
	clients_until(c, "subscribing", all_subscribed);
}

/* --- the run ---------------------------------------------------------------------------------- */

static void run_messages(struct clients *c)
{
	uint64_t unstuck, wait = UINT64_MAX;

	c->publishing = true;
	c->now_ns = c->start_ns = unstuck = clients_now_ns();
	for (unsigned i = 0; i < c->n_senders; i++)
		sender_list(c, &c->senders[i]);
	while (atomic_load(&c->shared->order) < CLIENTS_DRAIN) {
		if (!c->s->window)
			wait = senders_due(c);
		clients_turn(c, wait);
		if (c->s->window && c->now_ns - unstuck >= UNSTICK_NS) {
			senders_unstick(c);
			unstuck = c->now_ns;
		}
	}
}

static void drain(struct clients *c)
{
	uint64_t end = clients_now_ns() + DRAIN_NS;

	while ((c->delivered < c->expected || !senders_idle(c)) && c->now_ns < end)
		clients_turn(c, UINT64_MAX);
	receivers_give_up(c);
	c->shared->lost = c->expected > c->delivered ? c->expected - c->delivered : 0;
}

static void run(struct clients *c)
{
	switch (c->s->kind) {
	case SCENARIO_CONNECT:
		connects_run(c);
		return;
	case SCENARIO_RETAINED:
		retained_run(c);
		break;
	case SCENARIO_PAIRS:
	case SCENARIO_FAN_IN:
	case SCENARIO_FAN_OUT:
	case SCENARIO_INGRESS:
		run_messages(c);
		break;
	case SCENARIO_KINDS:
		return;
	}
	drain(c);
}

static void tell(struct clients *c)
{
	c->shared->duplicated = c->duplicated;
	c->shared->disordered = c->disordered;
	c->shared->wrong = c->wrong;
}

int clients_run(void *ctx)
{
	const struct clients_options *o = ctx;
	static struct clients c;

	(void)prctl(PR_SET_TIMERSLACK, 1); /* ns; without it an open loop is late by 50 us */
	make(&c, o);
	open_links(&c, 0, c.n_idle, o->idle);
	clients_meet(&c, CLIENTS_IDLE_THERE, CLIENTS_GO_ON);
	open_links(&c, c.n_idle, c.n_others, o->receivers ? o->receivers + c.n_receivers : NULL);
	subscribe_others(&c);
	open_links(&c, c.n_idle + c.n_others, c.n_receivers, o->receivers);
	open_links(&c, c.n_idle + c.n_others + c.n_receivers, c.n_senders, o->senders);
	if (o->scenario->kind == SCENARIO_RETAINED)
		retained_publish(&c);
	else
		subscribe(&c);
	clients_meet(&c, CLIENTS_READY, CLIENTS_RUN);
	c.running = true;
	run(&c);
	receivers_open(&c);
	tell(&c);
	unmake(&c);
	return 0;
}
