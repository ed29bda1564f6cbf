// SPDX-License-Identifier: MIT
#include "userspace/manager/renew.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/manager/update.h"

struct ids {
	uint8_t (*id)[GRANT_ID_BYTES];
	size_t n, room;
};

static int add(struct manager *m, struct ids *l, struct registry_query *q)
{
	if (l->n == l->room) {
		size_t room = l->room ? 2 * l->room : 64;
		void *p = realloc(l->id, room * sizeof(*l->id));

		if (!p)
			return manager_fail(m, -ENOMEM, "out of memory");
		l->id = p;
		l->room = room;
	}
	registry_copy(q, 0, l->id[l->n++], GRANT_ID_BYTES);
	return 0;
}

static void bind_text_or_null(struct registry_query *q, const char *v)
{
	if (v)
		registry_bind_text(q, v);
	else
		registry_bind_blob(q, bytes_of(NULL, 0));
}

/* Their ids, each behind the one that it converts from. */
static int collect(struct manager *m, const struct renew_which *which, struct ids *l)
{
	struct registry_query q = registry_query(
		&m->registry,
		"WITH RECURSIVE old(id, depth) AS (SELECT id, 0 FROM grants WHERE next IS NULL"
		" AND (not_after_ms = 0 OR not_after_ms > ?1) AND (?2 = 0 OR key_id = ?2)"
		" AND (?3 IS NULL OR (receiver = ?3 AND secret IS NULL))"
		" AND (?4 IS NULL OR upstream = ?4)"
		" AND (?5 IS NULL OR (gateway = ?5 AND upstream IS NULL))"
		" UNION SELECT g.id, depth + 1 FROM grants g JOIN old ON g.from_id = old.id"
		" WHERE g.next IS NULL AND (g.not_after_ms = 0 OR g.not_after_ms > ?1))"
		" SELECT id FROM old GROUP BY id ORDER BY max(depth), id");
	int err = 0, end;

	registry_bind_int(&q, (int64_t)m->now_ms);
	registry_bind_int(&q, which->key_id);
	bind_text_or_null(&q, which->receiver);
	bind_text_or_null(&q, which->upstream);
	bind_text_or_null(&q, which->gateway);
	while (!err && registry_step(&q))
		err = add(m, l, &q);
	end = registry_end(&q);
	return err ? err : manager_fail_registry(m, end);
}

/* What took the place of the one that g converts from, where something did. */
static int follow(struct manager *m, struct grant *g)
{
	struct registry_query q =
		registry_query(&m->registry, "SELECT next FROM grants WHERE id = ? AND next IS NOT"
					     " NULL");

	registry_bind_blob(&q, bytes_of(g->from, sizeof(g->from)));
	if (registry_step(&q))
		registry_copy(&q, 0, g->from, sizeof(g->from));
	return manager_fail_registry(m, registry_end(&q));
}

static void tell(struct manager *m, const struct grant *old, const struct grant *g)
{
	char old_hex[GRANTS_HEX_ROOM], hex[GRANTS_HEX_ROOM];

	(void)fprintf(m->out,
		      "replaced grant=%s by=%s key_id=%u receiver=%s gateway=%s outlet=%s\n",
		      text_hex(bytes_of(old->id, sizeof(old->id)), old_hex),
		      text_hex(bytes_of(g->id, sizeof(g->id)), hex), g->key_id, g->receiver,
		      g->gateway, g->outlet[0] ? g->outlet : "-");
}

static int renew_one(struct grants_maker *k, struct manager *m, const uint8_t id[GRANT_ID_BYTES],
		     uint32_t key_id, uint64_t old_until_ms)
{
	struct grant old, g;
	uint64_t unused;
	int err = grants_load(m, id, &old);

	if (err)
		return err;
	g = old; /* who, flags, and the end, if it has one */
	if (key_id)
		g.key_id = key_id;
	if (g.has_from)
		err = follow(m, &g);
	scope_validity(m, 0, &g.not_before_ms, &unused);
	if (!err)
		err = grants_replace(k, &old, old_until_ms, &g);
	if (!err)
		err = update_grant(m, &g);
	if (!err)
		tell(m, &old, &g);
	return err;
}

int renew_grants(struct manager *m, const struct renew_which *which, uint32_t key_id,
		 uint64_t old_until_ms, uint32_t *ret_n)
{
	struct grants_maker *k;
	struct ids l = { 0 };
	int err = grants_maker_new(m, &k);

	if (err)
		return err;
	err = collect(m, which, &l);
	for (size_t i = 0; !err && i < l.n; i++)
		err = renew_one(k, m, l.id[i], key_id, old_until_ms);
	*ret_n = (uint32_t)l.n;
	free(l.id);
	grants_maker_free(k);
	return err;
}
