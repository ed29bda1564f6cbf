// SPDX-License-Identifier: MIT
#include "userspace/manager/gateway.h"

#include <errno.h>
#include <string.h>

static void read_row(struct registry_query *q, struct gateway *g)
{
	struct bytes spki;

	registry_text(q, 0, g->id, sizeof(g->id));
	registry_copy(q, 1, g->broker.b, sizeof(g->broker.b));
	spki = registry_blob(q, 2);
	g->spki_bytes = spki.n < sizeof(g->spki) ? spki.n : sizeof(g->spki);
	registry_copy(q, 2, g->spki, g->spki_bytes);
}

int gateway_find(struct manager *m, const char *id, struct gateway *ret_g, bool *ret_found)
{
	struct registry_query q =
		registry_query(&m->registry, "SELECT id, broker, unwrap FROM gateway WHERE id = ?");
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
		registry_query(&m->registry, "SELECT id, broker, unwrap FROM gateway LIMIT 2");
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
	return err;
}

int gateway_insert(struct manager *m, const struct gateway *g)
{
	struct registry_query q = registry_query(
		&m->registry,
		"INSERT INTO gateway (id, broker, unwrap, enrolled_ms) VALUES (?, ?, ?, ?)");

	registry_bind_text(&q, g->id);
	registry_bind_blob(&q, bytes_of(g->broker.b, sizeof(g->broker.b)));
	registry_bind_blob(&q, bytes_of(g->spki, g->spki_bytes));
	registry_bind_int(&q, (int64_t)m->now_ms);
	return manager_fail_registry(m, registry_run(&q));
}
