// SPDX-License-Identifier: MIT
#include "userspace/broker/contexts.h"

#include <errno.h>
#include <string.h>

#include "userspace/broker/engine.h"

#define RETIRED_LOOKS_MAX 4096

void contexts_init(struct contexts *c)
{
	c->table = NULL;
	c->revoked = NULL;
	c->n = 0;
	list_init(&c->lru);
	list_init(&c->dirty);
}

static void leave_sender(struct context *c)
{
	if (c->sender)
		c->sender->n_contexts--;
	c->sender = NULL;
	list_del(&c->of_sender);
}

static void context_free(struct broker *b, struct context *c)
{
	HASH_DELETE(hh, b->contexts.table, c);
	leave_sender(c);
	list_del(&c->lru);
	list_del(&c->dirty);
	b->contexts.n--;
	pool_free(&b->pool, c);
}

void contexts_deinit(struct broker *b)
{
	struct context *c, *tmp;
	struct context_revoked *r, *rtmp;

	HASH_ITER(hh, b->contexts.table, c, tmp)
		context_free(b, c);
	HASH_ITER(hh, b->contexts.revoked, r, rtmp) {
		HASH_DELETE(hh, b->contexts.revoked, r);
		pool_free(&b->pool, r);
	}
}

/* Eight bytes of x and the sign: as good as random for honest senders. */
static struct context_key key_of(uint32_t key_id, struct bytes enc)
{
	struct context_key key = { .key_id = key_id };

	memcpy(&key.enc_hash, enc.p + 1, sizeof(key.enc_hash));
	key.enc_hash ^= enc.p[0];
	return key;
}

static struct context *find(struct broker *b, const struct context_key *key)
{
	struct context *c;

	HASH_FIND(hh, b->contexts.table, key, sizeof(*key), c);
	return c;
}

/* Forgets what nobody has used for long, and where there are too many the oldest: of those that are
 * not retired if one is near the front, which it is unless all of an hour's were retired. */
static void make_room(struct broker *b)
{
	struct context *oldest;
	struct list *pos;
	unsigned looked = 0;

	while ((oldest = list_first(&b->contexts.lru, struct context, lru)) &&
	       oldest->seen_ms + CONTEXTS_KEEP_MS <= b->wall_ms)
		context_free(b, oldest);
	if (b->contexts.n < b->config.limits.contexts_max)
		return;
	list_for_each(pos, &b->contexts.lru) {
		struct context *c = list_entry(pos, struct context, lru);

		if (c->retired && ++looked < RETIRED_LOOKS_MAX)
			continue;
		context_free(b, c);
		return;
	}
}

/* The newest of its sender's; the oldest one goes where there are too many. */
static void join_sender(struct broker *b, struct context *c, struct commit_sender *sender)
{
	leave_sender(c);
	c->sender = sender;
	list_add_tail(&sender->contexts, &c->of_sender);
	if (++sender->n_contexts > CONTEXTS_SENDER_MAX)
		context_free(b, list_first(&sender->contexts, struct context, of_sender));
}

void contexts_leave(struct commit_sender *sender)
{
	struct context *c;

	while ((c = list_first(&sender->contexts, struct context, of_sender)))
		leave_sender(c);
}

static struct context *context_new(struct broker *b, const struct context_key *key)
{
	struct context *c;

	make_room(b);
	c = pool_zalloc(&b->pool, sizeof(*c));
	if (!c)
		return NULL;
	c->key = *key;
	list_init(&c->dirty);
	list_init(&c->of_sender);
	table_oom = false;
	HASH_ADD(hh, b->contexts.table, key, sizeof(c->key), c);
	if (table_oom) {
		pool_free(&b->pool, c);
		return NULL;
	}
	list_add_tail(&b->contexts.lru, &c->lru);
	b->contexts.n++;
	return c;
}

bool contexts_retired(struct broker *b, uint32_t key_id, struct bytes enc)
{
	struct context_key key = key_of(key_id, enc);
	struct context *c = find(b, &key);

	return c && c->retired;
}

void contexts_used(struct broker *b, struct commit_sender *sender, uint32_t key_id,
		   struct bytes enc)
{
	struct context_key key = key_of(key_id, enc);
	struct context *c = find(b, &key);

	if (!c)
		c = context_new(b, &key);
	if (!c)
		return; /* no memory: this one context will not be retired; the message still counts
			 */
	c->seen_ms = b->wall_ms;
	list_del(&c->lru);
	list_add_tail(&b->contexts.lru, &c->lru);
	if (c->seen_ms - c->committed_ms >= CONTEXTS_COMMIT_MS && list_empty(&c->dirty))
		list_add_tail(&b->contexts.dirty, &c->dirty);
	join_sender(b, c, sender);
}

static struct context_revoked *revoked_of(struct broker *b, uint32_t key_id)
{
	struct context_revoked *r;

	HASH_FIND(hh, b->contexts.revoked, &key_id, sizeof(key_id), r);
	if (r)
		return r;
	r = pool_zalloc(&b->pool, sizeof(*r));
	if (!r)
		return NULL;
	r->key_id = key_id;
	table_oom = false;
	HASH_ADD(hh, b->contexts.revoked, key_id, sizeof(r->key_id), r);
	if (table_oom) {
		pool_free(&b->pool, r);
		return NULL;
	}
	return r;
}

/* Every context of the key id that was used up to then. */
static void retire(struct broker *b, const struct context_revoked *r)
{
	struct list *pos;

	list_for_each(pos, &b->contexts.lru) {
		struct context *c = list_entry(pos, struct context, lru);

		if (c->key.key_id != r->key_id || c->seen_ms > r->retire_before_ms)
			continue;
		c->retired = true;
		leave_sender(c); /* none of its sender's later ones pushes it out */
	}
}

/* Now, or later where the clock was set back since one was used: all that was seen is retired. */
static uint64_t newest_use(struct broker *b, uint32_t key_id)
{
	uint64_t newest = b->wall_ms;
	struct list *pos;

	list_for_each(pos, &b->contexts.lru) {
		const struct context *c = list_entry(pos, struct context, lru);

		if (c->key.key_id == key_id && c->seen_ms > newest)
			newest = c->seen_ms;
	}
	return newest;
}

int contexts_revoke(struct broker *b, uint32_t key_id, uint64_t revoked_at_ms)
{
	struct context_revoked *r = revoked_of(b, key_id);
	struct broker_commit_revoked entry;
	int err;

	if (!r)
		return -ENOMEM;
	if (revoked_at_ms <= r->revoked_at_ms)
		return 0; /* known: contexts opened since then are good */
	entry = (struct broker_commit_revoked){ key_id, revoked_at_ms, newest_use(b, key_id) };
	err = commit_revoked(b, &entry);
	if (err)
		return err;
	r->revoked_at_ms = revoked_at_ms;
	r->retire_before_ms = entry.retire_before_ms;
	retire(b, r);
	return 0;
}

int broker_restore_revoked(struct broker *b, const struct broker_commit_revoked *stored)
{
	struct context_revoked *r = revoked_of(b, stored->key_id);

	if (!r)
		return -ENOMEM;
	r->revoked_at_ms = stored->revoked_at_ms;
	r->retire_before_ms = stored->retire_before_ms;
	retire(b, r);
	return 0;
}

int broker_restore_context(struct broker *b, const struct broker_commit_context *stored)
{
	struct context_key key = { .enc_hash = stored->enc_hash, .key_id = stored->key_id };
	struct context_revoked *r;
	struct context *c;

	if (stored->seen_ms + CONTEXTS_KEEP_MS <= b->wall_ms)
		return 0;
	c = find(b, &key);
	if (!c)
		c = context_new(b, &key);
	if (!c)
		return -ENOMEM;
	c->seen_ms = c->committed_ms = stored->seen_ms;
	HASH_FIND(hh, b->contexts.revoked, &key.key_id, sizeof(key.key_id), r);
	c->retired = r && c->seen_ms <= r->retire_before_ms;
	return 0;
}
