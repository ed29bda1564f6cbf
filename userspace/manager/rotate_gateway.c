// SPDX-License-Identifier: MIT
#include "userspace/manager/rotate.h"

#include <errno.h>
#include <string.h>

#include "userspace/manager/enrol.h"
#include "userspace/manager/gateway.h"
#include "userspace/manager/keyfile.h"
#include "userspace/manager/renew.h"
#include "userspace/manager/rotate_impl.h"
#include "userspace/manager/update.h"

/* What is to be done with the keys of the file. */
struct plan {
	bool promote; /* the next signing key is in use, and becomes the present one */
	bool signing; /* a new next one */
	bool unwrap, bundle;
	struct keyfile_gateway keys;
};

static bool same(const struct p256_point *a, const struct p256_point *b)
{
	return !memcmp(a->b, b->b, sizeof(a->b));
}

static int make_plan(struct manager *m, const char *file, const struct gateway *g, struct plan *p)
{
	const struct p256_point *present = &g->broker;
	int err = keyfile_read_gateway(m, file, &p->keys);

	if (err)
		return err;
	p->promote = g->has_next && g->next_from_ms <= m->now_ms;
	if (p->promote)
		present = &g->next;
	p->signing = !same(&p->keys.broker, present);
	p->unwrap = !bytes_equal(bytes_of(p->keys.spki, p->keys.spki_bytes),
				 bytes_of(g->spki, g->spki_bytes));
	p->bundle =
		p->keys.has_bundle && !(g->has_bundle_key && same(&p->keys.bundle, &g->bundle_key));
	if (!p->promote && !p->signing && !p->unwrap && !p->bundle)
		return manager_fail(m, -EINVAL, "gateway \"%s\": no key is new", g->id);
	if (p->signing && p->promote && same(&p->keys.broker, &g->broker))
		return manager_fail(m, -EEXIST, "gateway \"%s\": that was its key before this one",
				    g->id);
	return 0;
}

static int old_grants_until(struct manager *m, const char *id, uint64_t *ret_until)
{
	struct registry_query q = registry_query(
		&m->registry,
		"SELECT max(grants.not_after_ms) FROM grants JOIN epoch USING (key_id)"
		" WHERE kept_until_ms = 0 AND next IS NOT NULL AND upstream IS NULL"
		" AND gateway = ?");
	uint64_t until = 0;
	int err;

	registry_bind_text(&q, id);
	if (registry_step(&q))
		until = (uint64_t)registry_int(&q, 0);
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	*ret_until = until;
	return 0;
}

static int check(struct manager *m, const struct gateway *g, const struct plan *p, uint64_t from_ms)
{
	uint64_t until = 0;
	int err = 0;

	if (g->has_next && !p->promote)
		err = rotate_check_overlap(m, "gateway", g->id, "it signs by its present key",
					   g->next_from_ms);
	if (!err && p->unwrap)
		err = old_grants_until(m, g->id, &until);
	if (!err)
		err = rotate_check_overlap(m, "gateway", g->id, "grants made before hold", until);
	if (!err && p->signing && from_ms <= m->now_ms)
		err = manager_fail(m, -EINVAL,
				   "gateway \"%s\": parties must learn of the key before it signs",
				   g->id);
	if (!err && p->signing)
		err = enrol_check_key(m, g->id, &p->keys.broker);
	if (!err && p->bundle)
		err = enrol_check_key(m, g->id, &p->keys.bundle);
	return err;
}

static void replace(struct gateway *g, const struct plan *p, uint64_t from_ms)
{
	if (p->promote) {
		g->broker = g->next;
		g->has_next = false;
		g->next_from_ms = 0;
	}
	if (p->signing) {
		g->has_next = true;
		g->next = p->keys.broker;
		g->next_from_ms = from_ms;
	}
	if (p->unwrap) {
		g->spki_bytes = p->keys.spki_bytes;
		memcpy(g->spki, p->keys.spki, p->keys.spki_bytes);
	}
	if (p->bundle) {
		g->has_bundle_key = true;
		g->bundle_key = p->keys.bundle;
	}
}

/* After the new signing key is in force, whichever comes last. */
static uint64_t old_until(const struct manager *m, uint64_t from_ms, uint32_t overlap_hours)
{
	uint64_t begin = from_ms > m->now_ms ? from_ms : m->now_ms;

	return begin + overlap_hours * ROTATE_HOUR_MS;
}

int rotate_gateway(struct manager *m, const char *id, const char *file, uint64_t from_ms,
		   uint32_t overlap_hours)
{
	const uint64_t until = old_until(m, from_ms, overlap_hours);
	const struct renew_which which = { .gateway = id };
	char from[ROTATE_TIME_ROOM], end[ROTATE_TIME_ROOM];
	struct gateway g;
	struct plan p = { 0 };
	uint32_t n = 0;
	int err = gateway_load(m, id, &g);

	if (!err)
		err = make_plan(m, file, &g, &p);
	if (!err)
		err = check(m, &g, &p, from_ms);
	if (err)
		return err;
	replace(&g, &p, from_ms);
	err = gateway_store(m, &g);
	if (!err && p.unwrap)
		err = renew_grants(m, &which, 0, until, &n);
	if (!err && (p.promote || p.signing))
		err = update_broker(m, id);
	if (!err)
		err = manager_note(m, "rotate gateway", id, "");
	if (!err)
		(void)fprintf(m->out,
			      "rotated gateway=%s signing_from=%s unwrapping=%s bundle_key=%s "
			      "grants=%u old_until=%s\n",
			      id, p.signing ? rotate_time_text(from_ms, from) : "unchanged",
			      p.unwrap ? "yes" : "no", p.bundle ? "yes" : "no", n,
			      p.unwrap ? rotate_time_text(until, end) : "none");
	return err;
}
