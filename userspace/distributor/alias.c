// SPDX-License-Identifier: MIT
#include "userspace/distributor/alias.h"

#include <errno.h>
#include <string.h>

#include "userspace/distributor/alloc.h"
#include "userspace/distributor/relay.h"

#define MARK_LABEL "ssdtf-mark-1"

void aliases_init(struct aliases *a, unsigned n_max)
{
	*a = (struct aliases){ .n_max = n_max };
	list_init(&a->fresh);
	list_init(&a->lru);
}

static void discard(struct aliases *all, struct alias *a)
{
	BUG_ON(!list_empty(&a->waiters));
	BUG_ON(!ask_cancel(&a->ask));
	HASH_DELETE(hh, all->table, a);
	all->n--;
	list_del(&a->link);
	free(a);
}

void aliases_deinit(struct aliases *all)
{
	struct alias *a, *tmp;

	HASH_ITER(hh, all->table, a, tmp)
		discard(all, a);
}

static void make_room(struct aliases *all)
{
	struct alias *oldest;

	while (all->n >= all->n_max && (oldest = list_first(&all->lru, struct alias, link)))
		discard(all, oldest);
}

static void hand_over(const struct alias *a, struct alias_wait *w)
{
	memcpy(w->to, a->value, w->n);
}

static void ready(struct alias *a)
{
	a->state = ALIAS_READY;
	list_add_tail(&a->relay->aliases.lru, &a->link);
	while (!list_empty(&a->waiters)) {
		struct alias_wait *w = list_first(&a->waiters, struct alias_wait, link);

		list_del(&w->link);
		hand_over(a, w);
		delivery_waited(w->delivery);
	}
}

/* The token gave the lookup key: the table knows the id, or it is drawn now. */
static void look_up(struct alias *a)
{
	struct relay *r = a->relay;
	int err = r->ops->id_find(r->io, a->lookup, a->value);

	if (!err) {
		ready(a);
		return;
	}
	if (err != -ENOENT) {
		ask_later(&a->ask); /* io has said why */
		return;
	}
	hash_random(a->value, IDTABLE_EXTERNAL_BYTES);
	r->aliases.drawn++;
	a->state = ALIAS_FRESH;
	list_add_tail(&r->aliases.fresh, &a->link);
}

static void answered(struct ask *ask)
{
	struct alias *a = container_of(ask, struct alias, ask);
	struct relay *r = a->relay;

	if (ask->job.status != HSM_OK) {
		r->ops->note(r->io, RELAY_NOTE_NO_ID_KEY, bytes_of(NULL, 0));
		ask_later(ask);
		return;
	}
	if (a->mark) {
		memcpy(a->value, ask->job.output, sizeof(a->value));
		ready(a);
		return;
	}
	memcpy(a->lookup, ask->job.output, sizeof(a->lookup));
	look_up(a);
}

static struct alias *find(struct relay *r, const uint8_t input[HASH_BYTES])
{
	struct alias *a;

	HASH_FIND(hh, r->aliases.table, input, HASH_BYTES, a);
	return a;
}

static struct alias *alias_new(struct relay *r, const uint8_t input[HASH_BYTES])
{
	struct alias *a = alloc_zeroed(sizeof(*a));

	make_room(&r->aliases);
	memcpy(a->input, input, sizeof(a->input));
	a->relay = r;
	list_init(&a->link);
	list_init(&a->waiters);
	ask_init(&a->ask, &r->asks);
	a->ask.job.op = HSM_MAC;
	a->ask.answered = answered;
	memcpy(a->ask.job.input, input, HASH_BYTES);
	HASH_ADD(hh, r->aliases.table, input, HASH_BYTES, a);
	r->aliases.n++;
	r->aliases.asked++;
	return a;
}

static bool use(struct alias *a, struct alias_wait *w)
{
	if (a->state != ALIAS_READY) {
		list_add_tail(&a->waiters, &w->link);
		return false;
	}
	a->relay->aliases.hits++;
	list_del(&a->link);
	list_add_tail(&a->relay->aliases.lru, &a->link);
	hand_over(a, w);
	return true;
}

bool alias_external(struct relay *r, struct bytes domain, uint32_t rotate_seconds,
		    struct bytes internal, struct alias_wait *w)
{
	uint64_t from_ms, until_ms;
	uint64_t period = idtable_period(r->unix_ms, rotate_seconds, &from_ms, &until_ms);
	uint8_t input[HASH_BYTES];
	struct alias *a;

	w->n = IDTABLE_EXTERNAL_BYTES;
	idtable_lookup_input(domain, period, internal, input);
	a = find(r, input);
	if (!a) {
		a = alias_new(r, input);
		a->internal_n = (uint8_t)internal.n;
		memcpy(a->internal, internal.p, internal.n);
		a->domain_n = (uint8_t)domain.n;
		memcpy(a->domain, domain.p, domain.n);
		a->from_ms = from_ms;
		a->until_ms = until_ms;
		ask_submit(&a->ask);
	}
	return use(a, w);
}

bool alias_mark(struct relay *r, struct bytes internal, struct alias_wait *w)
{
	struct bytes parts[] = { bytes_str(MARK_LABEL), internal };
	uint8_t input[HASH_BYTES];
	struct alias *a;

	w->n = HASH_BYTES;
	hash_parts(parts, ARRAY_SIZE(parts), input);
	a = find(r, input);
	if (!a) {
		a = alias_new(r, input);
		a->mark = true;
		ask_submit(&a->ask);
	}
	return use(a, w);
}

/* --- rows ------------------------------------------------------------------------------------- */

static int row_of(const struct alias *a, struct relay_row *row)
{
	struct idtable_entry e = {
		.internal = bytes_of(a->internal, a->internal_n),
		.domain = bytes_of(a->domain, a->domain_n),
		.from_ms = a->from_ms,
		.until_ms = a->until_ms,
	};
	struct bytes_writer w = bytes_writer_of(row->trace, sizeof(row->trace));
	int err = idtable_trace_seal(&a->relay->plan->bundle.trace, a->value, &e, &w);

	if (err)
		return err;
	BUG_ON(w.bad);
	memcpy(row->lookup, a->lookup, sizeof(row->lookup));
	memcpy(row->external, a->value, sizeof(row->external));
	row->trace_n = w.used;
	row->from_ms = a->from_ms;
	row->until_ms = a->until_ms;
	return 0;
}

void aliases_commit(struct relay *r)
{
	struct relay_row rows[RELAY_ROWS_MAX];
	struct list *pos;
	unsigned n = 0;

	while (!list_empty(&r->aliases.fresh)) {
		n = 0;
		list_for_each(pos, &r->aliases.fresh) {
			if (n == RELAY_ROWS_MAX ||
			    row_of(list_entry(pos, struct alias, link), &rows[n]))
				break;
			n++;
		}
		if (!n || r->ops->ids_put(r->io, rows, n))
			return; /* io has said why; the next turn tries again */
		while (n--) {
			struct alias *a = list_first(&r->aliases.fresh, struct alias, link);

			list_del(&a->link);
			ready(a);
		}
	}
}
