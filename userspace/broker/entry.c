// SPDX-License-Identifier: MIT
#include "userspace/broker/entry.h"

#include <string.h>

#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"

static bool looks(const struct broker *b)
{
	return !b->config.plain && b->config.admission != BROKER_ADMISSION_OFF;
}

static bool enforces(const struct broker *b)
{
	return !b->config.plain && b->config.admission == BROKER_ADMISSION_ENFORCE;
}

static struct gate_now now_of(const struct broker *b)
{
	return (struct gate_now){ b->mono_ms, b->wall_ms };
}

static struct admission_device *find_device(void *ctx, const struct admission_id *id)
{
	struct broker *b = ctx;
	size_t n = strnlen((const char *)id->bytes, sizeof(id->bytes));
	struct directory_party *party;

	if (!b->directory)
		return NULL;
	party = directory_party(b->directory, bytes_of(id->bytes, n));
	return party ? &party->device : NULL;
}

void entry_init(struct broker *b)
{
	gate_init(&b->gate, &b->pool, &b->config.limits);
	b->gate.find_device = find_device;
	b->gate.ctx = b;
}

bool entry_may_connect(struct broker *b, const uint8_t address[16])
{
	struct admission_source s = gate_source_of(address);

	return !enforces(b) || !gate_banned(&b->gate, now_of(b), &s);
}

void entry_judge(struct broker_conn *c, struct bytes packet)
{
	struct broker *b = c->broker;

	c->verdict = ADMISSION_OK;
	if (looks(b))
		c->verdict = gate_judge(&b->gate, now_of(b), packet);
}

bool entry_admitted(const struct broker_conn *c)
{
	return !enforces(c->broker) || c->verdict == ADMISSION_OK;
}

bool entry_may_tell(struct broker_conn *c)
{
	struct broker *b = c->broker;

	return entry_admitted(c) || gate_may_tell(&b->gate, now_of(b), &c->source, c->verdict);
}

/* Of this machine: there may be a manager, or a proxy. */
static bool is_localhost(const struct admission_source *s)
{
	static const uint8_t v4[16] = { [10] = 0xff, [11] = 0xff, 127, 0, 0, 1 };
	static const uint8_t v6[16] = { [15] = 1 };

	return !memcmp(s->address, v4, sizeof(v4)) || !memcmp(s->address, v6, sizeof(v6));
}

/* Does anybody who authenticated use this source? */
static bool is_in_use(const struct broker *b, const struct admission_source *source)
{
	struct list *pos;

	list_for_each(pos, &b->conns) {
		const struct broker_conn *c = list_entry(pos, struct broker_conn, link);

		if (c->state == CONN_OPEN && !memcmp(&c->source, source, sizeof(*source)))
			return true;
	}
	return false;
}

void entry_blame(struct broker_conn *c)
{
	struct broker *b = c->broker;
	const struct broker_limits *l = &b->config.limits;

	if (!enforces(b) || !l->admission_ban_ms)
		return;
	if (!gate_failed(&b->gate, now_of(b), &c->source, l->admission_ban_failures,
			 l->admission_ban_window_ms))
		return;
	/* A NAT, or a link of IPv6, is one source: a stranger there must not shut out the others.
	 * Nor is an operator's ban to be cut short. */
	if (is_localhost(&c->source) || is_in_use(b, &c->source) ||
	    gate_banned(&b->gate, now_of(b), &c->source))
		return;
	if (broker_ban(b, &c->source, l->admission_ban_ms))
		broker_note(b, "not banned", conn_id(c), "no room for another ban");
	else
		broker_note(b, "banned", conn_id(c), "its address failed too often");
}

void entry_passed(struct broker_conn *c)
{
	gate_passed(&c->broker->gate, &c->source);
}

/* --- for the owner ---------------------------------------------------------------------------- */

const uint64_t *broker_admission_counters(const struct broker *b)
{
	return b->gate.counters;
}

void broker_each_device(const struct broker *b,
			void (*each)(void *ctx, const struct admission_id *id,
				     const struct admission_device *device),
			void *ctx)
{
	for (unsigned i = 0; b->directory && i < b->directory->n_parties; i++) {
		const struct directory_party *party = &b->directory->parties[i];
		struct admission_id id = { { 0 } };

		memcpy(id.bytes, party->id.p, party->id.n);
		each(ctx, &id, &party->device);
	}
}

int broker_ban(struct broker *b, const struct admission_source *source, uint64_t ms)
{
	int err = gate_ban(&b->gate, now_of(b), source, b->mono_ms + ms);

	if (!err)
		b->ops.ban(b->io, source, ms);
	return err;
}

bool broker_unban(struct broker *b, const struct admission_source *source)
{
	if (!gate_unban(&b->gate, source))
		return false;
	b->ops.ban(b->io, source, 0);
	return true;
}

void broker_each_ban(const struct broker *b,
		     void (*each)(void *ctx, const struct admission_source *source,
				  uint64_t left_ms),
		     void *ctx)
{
	gate_each_ban(&b->gate, now_of(b), each, ctx);
}

void broker_each_rejected(const struct broker *b,
			  void (*each)(void *ctx, const struct admission_source *source,
				       uint64_t rejected, enum admission_verdict last),
			  void *ctx)
{
	gate_each_rejected(&b->gate, each, ctx);
}
