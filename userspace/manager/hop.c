// SPDX-License-Identifier: MIT
#include "userspace/manager/hop.h"

#include <errno.h>
#include <stdlib.h>

#include "userspace/manager/access.h"
#include "userspace/manager/gateway.h"
#include "userspace/manager/party.h"

#define HOPS_OF " FROM grants g WHERE receiver = ?1 AND from_id IS NULL AND (flags & ?2)"

/* A distributor has one connection to take from. */
static int check_gateway(struct manager *m, const char *distributor, const char *gateway)
{
	struct registry_query q =
		registry_query(&m->registry, "SELECT gateway" HOPS_OF " AND gateway <> ?3 LIMIT 1");
	char other[MANAGER_ID_ROOM] = "";
	int err;

	registry_bind_text(&q, distributor);
	registry_bind_int(&q, RECORD_GRANT_HOP);
	registry_bind_text(&q, gateway);
	if (registry_step(&q))
		registry_text(&q, 0, other, sizeof(other));
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	if (other[0])
		return manager_fail(
			m, -EEXIST,
			"distributor \"%s\": subscribes at gateway \"%s\", and can do so "
			"at one only",
			distributor, other);
	return 0;
}

static int add_with(struct manager *m, const struct hop_terms *t, struct scope *s)
{
	struct gateway gateway;
	struct party distributor;
	struct grant g = { 0 };
	char hex[GRANTS_HEX_ROOM];
	bool made = false;
	int err = scope_load(m, t->scope, s);

	if (!err)
		err = party_load(m, t->distributor, RECORD_ROLE_DISTRIBUTOR, &distributor);
	if (!err)
		err = gateway_load(m, t->gateway, &gateway);
	if (!err)
		err = check_gateway(m, t->distributor, gateway.id);
	if (err)
		return err;
	g.flags = RECORD_GRANT_HOP | (t->proof ? RECORD_GRANT_PROOF : 0);
	(void)snprintf(g.receiver, sizeof(g.receiver), "%s", distributor.id);
	(void)snprintf(g.gateway, sizeof(g.gateway), "%s", gateway.id);
	err = access_make(m, &g, s, "scope", t->scope, &made);
	if (!err && made)
		err = manager_note(m, "hop", t->distributor, t->scope);
	if (!err)
		(void)fprintf(m->out, "%s hop=%s key_id=%u scope=%s distributor=%s gateway=%s\n",
			      made ? "added" : "unchanged",
			      text_hex(bytes_of(g.id, sizeof(g.id)), hex), g.key_id, t->scope,
			      t->distributor, g.gateway);
	return err;
}

int hop_add(struct manager *m, const struct hop_terms *t)
{
	struct scope *s = malloc(sizeof(*s));
	int err = s ? add_with(m, t, s) : manager_fail(m, -ENOMEM, "out of memory");

	free(s);
	return err;
}

int hop_load(struct manager *m, const struct scope *s, const char *distributor, struct grant *ret_g)
{
	struct registry_query q =
		registry_query(&m->registry, GRANTS_SQL " WHERE g.next IS NULL AND g.receiver = ?"
							" AND g.key_id = ? AND (g.flags & ?)"
							" AND g.from_id IS NULL");
	bool found;
	int err;

	registry_bind_text(&q, distributor);
	registry_bind_int(&q, s->record.key_id);
	registry_bind_int(&q, RECORD_GRANT_HOP);
	found = registry_step(&q);
	if (found)
		grants_read(&q, ret_g);
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	if (!found)
		return manager_fail(
			m, -ESRCH,
			"scope \"%s\" has no hop to distributor \"%s\": make one with hop "
			"--scope %s --distributor %s",
			s->name, distributor, s->name, distributor);
	return 0;
}
