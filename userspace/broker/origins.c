// SPDX-License-Identifier: MIT
#include "userspace/broker/origins.h"

#include <errno.h>
#include <string.h>

#include "userspace/base/text.h"
#include "userspace/broker/engine.h"

void origins_init(struct origins *o)
{
	list_init(&o->by_use);
}

/* "distributor/grant/origin", in the given memory. */
static struct bytes name_of(struct bytes distributor, const struct envelope *e,
			    uint8_t name[BROKER_SENDER_BYTES_MAX])
{
	struct bytes_writer w = bytes_writer_of(name, BROKER_SENDER_BYTES_MAX);
	char grant[TEXT_HEX_SIZE(GRANT_ID_BYTES)];

	text_hex(e->grant, grant);
	bytes_write(&w, distributor);
	bytes_write_u8(&w, '/');
	bytes_write(&w, bytes_str(grant));
	bytes_write_u8(&w, '/');
	bytes_write(&w, e->origin);
	BUG_ON(w.bad); /* the others are ids */
	return bytes_of(name, w.used);
}

static bool too_old(const struct broker *b, uint64_t ms)
{
	return ms + ORIGINS_KEEP_MS <= b->wall_ms;
}

/* Those that nobody has used for so long. One that is still to be stored waits for that. */
static void forget_old(struct broker *b)
{
	struct commit_sender *oldest;

	while ((oldest = list_first(&b->origins.by_use, struct commit_sender, by_use)) &&
	       too_old(b, oldest->seen_ms) && list_empty(&oldest->dirty)) {
		oldest->distributor->n_origins--;
		contexts_leave(oldest);
		list_del(&oldest->by_use);
		commit_sender_free(b, oldest);
	}
}

struct commit_sender *origins_find(struct broker *b, struct bytes distributor,
				   const struct envelope *e)
{
	uint8_t name[BROKER_SENDER_BYTES_MAX];

	forget_old(b);
	return commit_sender_find(b, name_of(distributor, e, name));
}

bool origins_may_begin(const struct broker *b, uint64_t time_ms)
{
	return !time_ms || !too_old(b, time_ms);
}

static struct commit_sender *begin(struct broker *b, struct commit_sender *distributor,
				   struct bytes name)
{
	struct commit_sender *pair = commit_sender(b, name);

	if (!pair || pair->distributor)
		return pair;
	pair->distributor = distributor;
	distributor->n_origins++;
	list_add_tail(&b->origins.by_use, &pair->by_use);
	return pair;
}

struct commit_sender *origins_begin(struct broker *b, struct bytes distributor,
				    const struct envelope *e)
{
	uint8_t name[BROKER_SENDER_BYTES_MAX];
	struct commit_sender *of = commit_sender(b, distributor);

	if (!of || of->n_origins >= b->config.limits.origins_max)
		return NULL;
	return begin(b, of, name_of(distributor, e, name));
}

void origins_used(struct broker *b, struct commit_sender *pair)
{
	if (!pair->distributor)
		return;
	pair->seen_ms = b->wall_ms;
	list_del(&pair->by_use);
	list_add_tail(&b->origins.by_use, &pair->by_use);
}

/* Behind those that were used before it; storage gives them in this order. */
static void insert_by_use(struct origins *o, struct commit_sender *pair)
{
	struct list *at;

	list_del(&pair->by_use); /* first: it is not to stand behind itself */
	at = o->by_use.prev;
	while (at != &o->by_use &&
	       list_entry(at, struct commit_sender, by_use)->seen_ms > pair->seen_ms)
		at = at->prev;
	list_add_head(at, &pair->by_use);
}

int origins_restore(struct broker *b, const struct broker_commit_replay *r)
{
	const char *slash = strchr(r->id, '/'), *second = strchr(slash + 1, '/');
	struct bytes distributor = bytes_of(r->id, (size_t)(slash - r->id));
	struct commit_sender *of, *pair;

	if (!text_is_id(distributor) || !second || second - slash != 1 + 2 * GRANT_ID_BYTES ||
	    !text_is_id(bytes_str(second + 1)))
		return -EINVAL;
	if (too_old(b, r->seen_ms))
		return 0;
	of = commit_sender(b, distributor);
	pair = of ? begin(b, of, bytes_str(r->id)) : NULL;
	if (!pair)
		return -ENOMEM;
	pair->window = r->window;
	pair->seen_ms = r->seen_ms;
	insert_by_use(&b->origins, pair);
	return 0;
}
