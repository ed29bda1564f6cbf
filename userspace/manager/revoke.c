// SPDX-License-Identifier: MIT
#include "userspace/manager/revoke.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/manager/gateway.h"
#include "userspace/manager/outlet.h"
#include "userspace/manager/party.h"
#include "userspace/manager/scope.h"
#include "userspace/manager/update.h"

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

/* Whose grants: every condition that is not NULL. */
struct grants_of {
	const char *gateway, *receiver, *scope, *outlet;
	const char *upstream; /* a distributor's outlets */
	bool hops_only;	      /* of level 0, that is: with what is behind them, all */
	bool no_hops;
	bool behind_outlet_only; /* not the outlet's own grant */
};

/* Those, and all that convert what they end in: ?1 to ?8. */
#define GONE                                                                         \
	"WITH RECURSIVE gone(id) AS (SELECT id FROM grants WHERE"                    \
	" (?1 IS NULL OR gateway = ?1) AND (?2 IS NULL OR receiver = ?2)"            \
	" AND (?3 IS NULL OR key_id IN (SELECT key_id FROM epoch WHERE scope = ?3))" \
	" AND (?4 IS NULL OR outlet = ?4) AND (?5 IS NULL OR upstream = ?5)"         \
	" AND (NOT ?6 OR (from_id IS NULL AND secret IS NOT NULL))"                  \
	" AND (NOT ?7 OR secret IS NULL) AND (NOT ?8 OR upstream IS NULL)"           \
	" UNION SELECT grants.id FROM grants JOIN gone ON grants.from_id = gone.id)"

/* And what those convert from, up to where senders publish: a context is new only if they open one,
 * and that is what its gateway makes them do. */
#define TOUCHED                                                    \
	GONE ", touched(id) AS (SELECT id FROM gone UNION"         \
	     " SELECT from_id FROM grants JOIN touched USING (id)" \
	     " WHERE from_id IS NOT NULL)"

static void bind_or_null(struct registry_query *q, const char *v)
{
	if (v)
		registry_bind_text(q, v);
	else
		registry_bind_blob(q, bytes_of(NULL, 0));
}

static void bind_grants_of(struct registry_query *q, const struct grants_of *o)
{
	bind_or_null(q, o->gateway);
	bind_or_null(q, o->receiver);
	bind_or_null(q, o->scope);
	bind_or_null(q, o->outlet);
	bind_or_null(q, o->upstream);
	registry_bind_int(q, o->hops_only);
	registry_bind_int(q, o->no_hops);
	registry_bind_int(q, o->behind_outlet_only);
}

/* An outlet whose own grants are gone is none any more. */
static int remove_dead_outlets(struct manager *m)
{
	struct registry_query q =
		registry_query(&m->registry,
			       "DELETE FROM outlet WHERE NOT EXISTS (SELECT 1 FROM grants"
			       " WHERE outlet = outlet.name AND upstream IS NOT NULL)");

	return manager_fail_registry(m, registry_run(&q));
}

/* Written down as revoked, and removed, with what hangs on them. */
static int remove_grants(struct manager *m, const struct grants_of *o, int64_t *ret_n)
{
	struct registry_query q;
	int err;

	q = registry_query(&m->registry,
			   TOUCHED " INSERT INTO revoked (gateway, key_id, at_ms)"
				   " SELECT DISTINCT gateway, key_id, ?9 FROM grants"
				   " WHERE id IN (SELECT id FROM touched)"
				   " ON CONFLICT (gateway, key_id)"
				   " DO UPDATE SET at_ms = max(at_ms, excluded.at_ms)");
	bind_grants_of(&q, o);
	registry_bind_int(&q, (int64_t)m->now_ms);
	err = registry_run(&q);
	if (err)
		return manager_fail_registry(m, err);
	q = registry_query(&m->registry,
			   GONE " DELETE FROM grants WHERE id IN (SELECT id FROM gone)");
	bind_grants_of(&q, o);
	err = registry_run(&q);
	if (err)
		return manager_fail_registry(m, err);
	*ret_n = registry_changes(&m->registry);
	return remove_dead_outlets(m);
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

/* What was asked for is told: subject names it in the history, words say that it was never there.
 */
static int revoke_some(struct manager *m, const struct grants_of *o, const char *action,
		       const char *label, const char *subject, const char *words)
{
	int64_t n = 0;
	int err = remove_grants(m, o, &n);

	if (err)
		return err;
	if (!n)
		return already(m, action, subject, label, words);
	(void)fprintf(m->out, "revoked %s=%s grants=%lld\n", label, subject, (long long)n);
	return manager_note(m, action, subject, o->gateway ? o->gateway : "");
}

#define SUBJECT_ROOM (3 * MANAGER_ID_ROOM)

int revoke_grant(struct manager *m, const char *scope, const char *receiver, const char *gateway)
{
	const struct grants_of o = {
		.gateway = gateway,
		.receiver = receiver,
		.scope = scope,
		.no_hops = true, /* revoke hop takes those, and says what goes with them */
	};
	char subject[SUBJECT_ROOM], words[256];
	int err = check_scope(m, scope);

	if (!err)
		err = manager_check_id(m, "receiver", receiver);
	if (!err && gateway)
		err = manager_check_id(m, "gateway", gateway);
	if (err)
		return err;
	(void)snprintf(subject, sizeof(subject), "%s/%s", receiver, scope);
	(void)snprintf(words, sizeof(words), "\"%s\" has no grant for scope \"%s\"", receiver,
		       scope);
	return revoke_some(m, &o, "revoke grant", "grant", subject, words);
}

int revoke_outlet_grant(struct manager *m, const char *outlet, const char *receiver)
{
	const struct grants_of of = { .receiver = receiver,
				      .outlet = outlet,
				      .behind_outlet_only = true };
	char subject[SUBJECT_ROOM], words[256];
	struct outlet o;
	int err = outlet_load(m, outlet, &o);

	if (!err)
		err = manager_check_id(m, "receiver", receiver);
	if (err)
		return err;
	if (!strcmp(o.receiver, receiver))
		return manager_fail(m, -EINVAL,
				    "outlet \"%s\": is for \"%s\" alone; revoke the outlet", outlet,
				    receiver);
	(void)snprintf(subject, sizeof(subject), "%s/%s", receiver, outlet);
	(void)snprintf(words, sizeof(words), "\"%s\" has no grant for outlet \"%s\"", receiver,
		       outlet);
	return revoke_some(m, &of, "revoke grant", "grant", subject, words);
}

int revoke_outlet(struct manager *m, const char *name)
{
	const struct grants_of o = { .outlet = name };
	char words[128];
	int err = manager_check_id(m, "outlet", name);

	if (err)
		return err;
	(void)snprintf(words, sizeof(words), "there is no outlet \"%s\"", name);
	return revoke_some(m, &o, "revoke outlet", "outlet", name, words);
}

int revoke_hop(struct manager *m, const char *scope, const char *distributor)
{
	const struct grants_of o = { .receiver = distributor, .scope = scope, .hops_only = true };
	char subject[SUBJECT_ROOM], words[256];
	int err = check_scope(m, scope);

	if (!err)
		err = manager_check_id(m, "distributor", distributor);
	if (err)
		return err;
	(void)snprintf(subject, sizeof(subject), "%s/%s", distributor, scope);
	(void)snprintf(words, sizeof(words), "scope \"%s\" has no hop to distributor \"%s\"", scope,
		       distributor);
	return revoke_some(m, &o, "revoke hop", "hop", subject, words);
}

/* --- a party ------------------------------------------------------------------------------- */

static int by_id(struct manager *m, const char *sql, const char *id)
{
	struct registry_query q = registry_query(&m->registry, sql);

	registry_bind_text(&q, id);
	return manager_fail_registry(m, registry_run(&q));
}

static int take_grants(struct manager *m, const struct party *p)
{
	const struct grants_of reads = { .receiver = p->id, .no_hops = true };
	const struct grants_of hops = { .receiver = p->id, .hops_only = true };
	const struct grants_of outlets = { .upstream = p->id };
	int64_t n = 0;
	int err = 0;

	if (!(p->roles & RECORD_ROLE_DISTRIBUTOR)) {
		err = remove_grants(m, &hops, &n);
		if (!err)
			err = remove_grants(m, &outlets, &n);
	}
	if (!err && !(p->roles & RECORD_ROLE_RECEIVER))
		err = remove_grants(m, &reads, &n);
	return err;
}

static int take_roles(struct manager *m, struct party *p, uint8_t roles)
{
	int err = 0;

	if (p->roles & roles & RECORD_ROLE_DEVICE)
		err = update_party_revoked(m, p);
	p->roles &= (uint8_t)~roles;
	if (!err)
		err = take_grants(m, p);
	if (!(p->roles & RECORD_ROLE_RECEIVER))
		p->has_encryption = false;
	if (!(p->roles & RECORD_ROLE_DISTRIBUTOR))
		p->unwrap_bytes = 0;
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
	const struct grants_of o = { .gateway = id };
	struct gateway g;
	char words[128];
	bool found = false;
	int64_t n = 0;
	int err = manager_check_id(m, "gateway", id);

	if (!err)
		err = gateway_find(m, id, &g, &found);
	if (err)
		return err;
	if (!found || g.revoked_ms) {
		(void)snprintf(words, sizeof(words), "no gateway \"%s\" is enrolled", id);
		return already(m, "revoke gateway", id, "gateway", words);
	}
	err = remove_grants(m, &o, &n);
	g.revoked_ms = m->now_ms;
	g.has_next = false;
	if (!err)
		err = gateway_store(m, &g);
	if (!err)
		err = manager_note(m, "revoke gateway", id, "");
	if (!err)
		(void)fprintf(m->out, "revoked gateway=%s grants=%lld\n", id, (long long)n);
	return err;
}
