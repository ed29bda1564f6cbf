// SPDX-License-Identifier: MIT
#include "userspace/manager/revoke.h"

#include <errno.h>
#include <stdlib.h>

#include "userspace/manager/gateway.h"
#include "userspace/manager/party.h"
#include "userspace/manager/scope.h"

/* Nothing was there to revoke: was it done before, or is it a mistake? */
static int already(struct manager *m, const char *action, const char *subject, const char *label,
		   const char *words)
{
	uint64_t at = 0;
	int err = manager_noted(m, action, subject, &at);

	if (err)
		return err;
	if (!at)
		return manager_fail(m, -ESRCH, "%s", words);
	(void)fprintf(m->out, "unchanged %s=%s\n", label, subject);
	return 0;
}

#define GRANTS_OF                                         \
	" FROM grants WHERE (?1 IS NULL OR gateway = ?1)" \
	" AND (?2 IS NULL OR receiver = ?2)"              \
	" AND (?3 IS NULL OR key_id IN (SELECT key_id FROM epoch WHERE scope = ?3))"

static void bind_or_null(struct registry_query *q, const char *v)
{
	if (v)
		registry_bind_text(q, v);
	else
		registry_bind_blob(q, bytes_of(NULL, 0));
}

/* Grants by gateway, receiver and scope, NULL for any: written down as revoked, and removed. */
static int remove_grants(struct manager *m, const char *gateway, const char *receiver,
			 const char *scope, int64_t *ret_n)
{
	struct registry_query q;
	int err;

	q = registry_query(&m->registry, "INSERT INTO revoked (gateway, key_id, at_ms)"
					 " SELECT DISTINCT gateway, key_id, ?4" GRANTS_OF
					 " ON CONFLICT (gateway, key_id)"
					 " DO UPDATE SET at_ms = max(at_ms, excluded.at_ms)");
	bind_or_null(&q, gateway);
	bind_or_null(&q, receiver);
	bind_or_null(&q, scope);
	registry_bind_int(&q, (int64_t)m->now_ms);
	err = registry_run(&q);
	if (err)
		return manager_fail_registry(m, err);
	q = registry_query(&m->registry, "DELETE" GRANTS_OF);
	bind_or_null(&q, gateway);
	bind_or_null(&q, receiver);
	bind_or_null(&q, scope);
	err = registry_run(&q);
	if (err)
		return manager_fail_registry(m, err);
	*ret_n = registry_changes(&m->registry);
	return 0;
}

/* --- a grant ------------------------------------------------------------------------------- */

static int check_scope(struct manager *m, const char *name)
{
	struct scope *s = malloc(sizeof(*s));
	int err;

	if (!s)
		return manager_fail(m, -ENOMEM, "out of memory");
	err = scope_load(m, name, s);
	free(s);
	return err;
}

int revoke_grant(struct manager *m, const char *scope, const char *receiver, const char *gateway)
{
	char subject[3 * MANAGER_ID_ROOM];
	char words[256];
	int64_t n = 0;
	int err = check_scope(m, scope);

	if (!err)
		err = manager_check_id(m, "receiver", receiver);
	if (!err && gateway)
		err = manager_check_id(m, "gateway", gateway);
	if (!err)
		err = remove_grants(m, gateway, receiver, scope, &n);
	if (err)
		return err;
	(void)snprintf(subject, sizeof(subject), "%s/%s", receiver, scope);
	if (!n) {
		(void)snprintf(words, sizeof(words), "\"%s\" has no grant for scope \"%s\"",
			       receiver, scope);
		return already(m, "revoke grant", subject, "grant", words);
	}
	(void)fprintf(m->out, "revoked scope=%s receiver=%s grants=%lld\n", scope, receiver,
		      (long long)n);
	return manager_note(m, "revoke grant", subject, gateway ? gateway : "");
}

/* --- a party ------------------------------------------------------------------------------- */

static int by_id(struct manager *m, const char *sql, const char *id)
{
	struct registry_query q = registry_query(&m->registry, sql);

	registry_bind_text(&q, id);
	return manager_fail_registry(m, registry_run(&q));
}

static int take_roles(struct manager *m, struct party *p, uint8_t roles)
{
	int64_t n = 0;
	int err = 0;

	p->roles &= (uint8_t)~roles;
	if (!(p->roles & RECORD_ROLE_RECEIVER)) {
		err = remove_grants(m, NULL, p->id, NULL, &n);
		p->has_encryption = false;
	}
	if (!err && !(p->roles & (RECORD_ROLE_DEVICE | RECORD_ROLE_DISTRIBUTOR)))
		err = by_id(m, "DELETE FROM permission WHERE party = ?", p->id);
	if (err)
		return err;
	return p->roles ? party_store(m, p) : by_id(m, "DELETE FROM party WHERE id = ?", p->id);
}

int revoke_party(struct manager *m, const char *id, uint8_t roles)
{
	char taken[PARTY_ROLES_ROOM], action[PARTY_ROLES_ROOM + 16], words[128];
	struct party p;
	bool found = false;
	int err = manager_check_id(m, "id", id);

	if (!err)
		err = party_find(m, id, &p, &found);
	if (err)
		return err;
	/* The action in the history is named by what was asked for, not by what was left of it. */
	party_roles_text(roles, taken);
	(void)snprintf(action, sizeof(action), "revoke %s",
		       roles == PARTY_ANY_ROLE ? "party" : taken);
	if (!found || !(p.roles & roles)) {
		(void)snprintf(words, sizeof(words), "no %s \"%s\" is enrolled", action + 7, id);
		return already(m, action, id, "id", words);
	}
	party_roles_text(p.roles & roles, taken);
	err = take_roles(m, &p, roles);
	if (!err)
		err = manager_note(m, action, id, taken);
	if (!err)
		(void)fprintf(m->out, "revoked id=%s roles=%s\n", id, taken);
	return err;
}

/* --- a gateway ----------------------------------------------------------------------------- */

int revoke_gateway(struct manager *m, const char *id)
{
	struct gateway g;
	char words[128];
	bool found = false;
	int64_t n = 0;
	int err = manager_check_id(m, "gateway", id);

	if (!err)
		err = gateway_find(m, id, &g, &found);
	if (err)
		return err;
	if (!found) {
		(void)snprintf(words, sizeof(words), "no gateway \"%s\" is enrolled", id);
		return already(m, "revoke gateway", id, "gateway", words);
	}
	err = remove_grants(m, id, NULL, NULL, &n);
	if (!err)
		err = by_id(m, "DELETE FROM gateway WHERE id = ?", id);
	if (!err)
		err = manager_note(m, "revoke gateway", id, "");
	if (!err)
		(void)fprintf(m->out, "revoked gateway=%s grants=%lld\n", id, (long long)n);
	return err;
}
