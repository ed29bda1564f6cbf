// SPDX-License-Identifier: MIT
#include "userspace/manager/gateway.h"

#include <errno.h>
#include <string.h>

#define COLUMNS                                                                        \
	"SELECT id, broker, unwrap, bundle_key, next_broker, next_from_ms, revoked_ms" \
	" FROM gateway"

static void read_row(struct registry_query *q, struct gateway *g)
{
	struct bytes spki;

	*g = (struct gateway){ 0 };
	registry_text(q, 0, g->id, sizeof(g->id));
	registry_copy(q, 1, g->broker.b, sizeof(g->broker.b));
	spki = registry_blob(q, 2);
	g->spki_bytes = spki.n < sizeof(g->spki) ? spki.n : sizeof(g->spki);
	registry_copy(q, 2, g->spki, g->spki_bytes);
	g->has_bundle_key = !registry_is_null(q, 3);
	if (g->has_bundle_key)
		registry_copy(q, 3, g->bundle_key.b, sizeof(g->bundle_key.b));
	g->has_next = !registry_is_null(q, 4);
	if (g->has_next)
		registry_copy(q, 4, g->next.b, sizeof(g->next.b));
	g->next_from_ms = (uint64_t)registry_int(q, 5);
	g->revoked_ms = (uint64_t)registry_int(q, 6);
}

int gateway_find(struct manager *m, const char *id, struct gateway *ret_g, bool *ret_found)
{
	struct registry_query q = registry_query(&m->registry, COLUMNS " WHERE id = ?");
	bool found;
	int err;

	registry_bind_text(&q, id);
	found = registry_step(&q);
	if (found)
		read_row(&q, ret_g);
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	*ret_found = found;
	return 0;
}

static int load_only(struct manager *m, struct gateway *ret_g)
{
	struct registry_query q =
		registry_query(&m->registry, COLUMNS " WHERE revoked_ms = 0 LIMIT 2");
	unsigned n = 0;
	int err;

	while (registry_step(&q)) {
		read_row(&q, ret_g);
		n++;
	}
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	if (!n)
		return manager_fail(m, -ESRCH, "no gateway is enrolled: enrol gateway first");
	if (n > 1)
		return manager_fail(m, -EINVAL,
				    "several gateways are enrolled: say which one with --gateway");
	return 0;
}

int gateway_load(struct manager *m, const char *id, struct gateway *ret_g)
{
	bool found = false;
	int err;

	if (!id)
		return load_only(m, ret_g);
	err = manager_check_id(m, "gateway", id);
	if (!err)
		err = gateway_find(m, id, ret_g, &found);
	if (!err && !found)
		return manager_fail(m, -ESRCH, "no gateway \"%s\" is enrolled", id);
	if (!err && ret_g->revoked_ms)
		return manager_fail(m, -ESRCH, "gateway \"%s\" was revoked", id);
	return err;
}

static void bind_point(struct registry_query *q, bool has, const struct p256_point *p)
{
	registry_bind_blob(q, has ? bytes_of(p->b, sizeof(p->b)) : bytes_of(NULL, 0));
}

int gateway_store(struct manager *m, const struct gateway *g)
{
	struct registry_query q = registry_query(
		&m->registry,
		"INSERT INTO gateway (id, broker, unwrap, bundle_key, next_broker, next_from_ms,"
		" revoked_ms, enrolled_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
		" ON CONFLICT (id) DO UPDATE SET broker = excluded.broker,"
		" unwrap = excluded.unwrap, bundle_key = excluded.bundle_key,"
		" next_broker = excluded.next_broker, next_from_ms = excluded.next_from_ms,"
		" revoked_ms = excluded.revoked_ms");

	registry_bind_text(&q, g->id);
	bind_point(&q, true, &g->broker);
	registry_bind_blob(&q, bytes_of(g->spki, g->spki_bytes));
	bind_point(&q, g->has_bundle_key, &g->bundle_key);
	bind_point(&q, g->has_next, &g->next);
	registry_bind_int(&q, (int64_t)g->next_from_ms);
	registry_bind_int(&q, (int64_t)g->revoked_ms);
	registry_bind_int(&q, (int64_t)m->now_ms);
	return manager_fail_registry(m, registry_run(&q));
}

int gateway_delete(struct manager *m, const char *id)
{
	struct registry_query q = registry_query(&m->registry, "DELETE FROM gateway WHERE id = ?");

	registry_bind_text(&q, id);
	return manager_fail_registry(m, registry_run(&q));
}

void gateway_record(const struct gateway *g, struct record_broker *ret_r)
{
	*ret_r = (struct record_broker){
		.gateway_id = bytes_str(g->id),
		.signing = g->broker,
		.has_next = g->has_next,
		.next = g->next,
		.next_from_ms = g->next_from_ms,
	};
}
