// SPDX-License-Identifier: MIT
#include "userspace/manager/access.h"

#include <errno.h>
#include <stdlib.h>

#include "userspace/manager/gateway.h"
#include "userspace/manager/party.h"
#include "userspace/manager/scope.h"
#include "userspace/manager/update.h"

/* --- publishing ---------------------------------------------------------------------------- */

static int permission_run(struct manager *m, const char *sql, const char *party, const char *scope)
{
	struct registry_query q = registry_query(&m->registry, sql);

	registry_bind_text(&q, party);
	registry_bind_text(&q, scope);
	return manager_fail_registry(m, registry_run(&q));
}

static int check_room(struct manager *m, const char *party)
{
	struct registry_query q =
		registry_query(&m->registry, "SELECT count(*) FROM permission WHERE party = ?");
	int64_t n = 0;
	int err;

	registry_bind_text(&q, party);
	if (registry_step(&q))
		n = registry_int(&q, 0);
	err = registry_end(&q);
	if (!err && n > RECORD_SCOPES_MAX)
		return manager_fail(m, -EINVAL, "\"%s\": may publish under %d scopes already",
				    party, RECORD_SCOPES_MAX);
	return manager_fail_registry(m, err);
}

static int load_both(struct manager *m, const char *scope, const char *device, struct party *party)
{
	struct scope *s = malloc(sizeof(*s));
	int err;

	if (!s)
		return manager_fail(m, -ENOMEM, "out of memory");
	err = scope_load(m, scope, s);
	if (!err)
		err = party_load(m, device, RECORD_ROLE_DEVICE | RECORD_ROLE_DISTRIBUTOR, party);
	free(s);
	return err;
}

/* The device learns what to seal to, others whose proofs to take. */
static int tell_allowed(struct manager *m, const char *scope, const struct party *device)
{
	int err = device->bundle_serial ? update_scope(m, scope) : 0;

	return err ? err : update_party(m, device->id);
}

int access_allow(struct manager *m, const char *scope, const char *device)
{
	struct party party;
	int err = load_both(m, scope, device, &party);
	bool changed;

	if (!err)
		err = permission_run(m,
				     "INSERT INTO permission (party, scope) VALUES (?, ?)"
				     " ON CONFLICT DO NOTHING",
				     device, scope);
	if (err)
		return err;
	changed = registry_changes(&m->registry) > 0;
	if (changed)
		err = check_room(m, device);
	if (!err && changed)
		err = manager_note(m, "allow", device, scope);
	if (!err && changed)
		err = tell_allowed(m, scope, &party);
	if (!err)
		(void)fprintf(m->out, "%s scope=%s device=%s\n", changed ? "allowed" : "unchanged",
			      scope, device);
	return err;
}

int access_deny(struct manager *m, const char *scope, const char *device)
{
	struct party party;
	int err = load_both(m, scope, device, &party);
	bool changed;

	if (!err)
		err = permission_run(m, "DELETE FROM permission WHERE party = ? AND scope = ?",
				     device, scope);
	if (err)
		return err;
	changed = registry_changes(&m->registry) > 0;
	if (changed)
		err = manager_note(m, "deny", device, scope);
	if (!err)
		(void)fprintf(m->out, "%s scope=%s device=%s\n", changed ? "denied" : "unchanged",
			      scope, device);
	return err;
}

/* --- reading ------------------------------------------------------------------------------- */

static int fail_other_terms(struct manager *m, const struct grant *g, const char *what,
			    const char *name)
{
	return manager_fail(m, -EEXIST,
			    "\"%s\" has a grant for %s \"%s\" on other terms; revoke it first",
			    g->receiver, what, name);
}

/*
 * want says all but the secrets. *ret_stands: one that still holds is there on these terms, and is
 * in *want now. One that has run out is removed.
 */
static int find_standing(struct manager *m, struct grant *want, const char *what, const char *name,
			 bool *ret_stands)
{
	struct grant old;
	bool found = false;
	int err = grants_find(m, want->gateway, want->receiver, want->key_id, want->outlet, &old,
			      &found);

	if (err || !found)
		return err;
	if (!record_valid_at(0, old.not_after_ms, m->now_ms))
		return grants_delete(m, old.id);
	if (old.flags != want->flags || old.valid_days != want->valid_days)
		return fail_other_terms(m, want, what, name);
	*want = old;
	*ret_stands = true;
	return 0;
}

static int make_one(struct manager *m, struct grant *g)
{
	struct grants_maker *k;
	int err = grants_maker_new(m, &k);

	if (err)
		return err;
	err = grants_make(k, g);
	grants_maker_free(k);
	return err;
}

int access_make(struct manager *m, struct grant *g, const struct scope *s, const char *what,
		const char *name, bool *ret_made)
{
	bool stands = false;
	int err;

	g->key_id = s->record.key_id;
	if (s->record.flags & RECORD_SCOPE_PADDED)
		g->flags |= RECORD_GRANT_PADDED;
	err = find_standing(m, g, what, name, &stands);
	*ret_made = !err && !stands;
	if (err || stands)
		return err;
	if (!record_valid_at(0, s->record.not_after_ms, m->now_ms))
		return manager_fail(
			m, -EINVAL,
			"scope \"%s\": its key has run out; rotate scope makes a new one", s->name);
	scope_validity(m, g->valid_days, &g->not_before_ms, &g->not_after_ms);
	err = make_one(m, g);
	return err ? err : update_grant(m, g);
}

static int grant_with(struct manager *m, const struct access_grant *a, struct scope *s,
		      struct grant *g)
{
	struct gateway gateway;
	struct party receiver;
	char hex[GRANTS_HEX_ROOM];
	bool made = false;
	int err = scope_load(m, a->scope, s);

	if (!err)
		err = party_load(m, a->receiver, RECORD_ROLE_RECEIVER, &receiver);
	if (!err)
		err = gateway_load(m, a->gateway, &gateway);
	if (err)
		return err;
	g->flags = a->proof ? RECORD_GRANT_PROOF : 0;
	g->valid_days = a->valid_days;
	(void)snprintf(g->receiver, sizeof(g->receiver), "%s", receiver.id);
	(void)snprintf(g->gateway, sizeof(g->gateway), "%s", gateway.id);
	err = access_make(m, g, s, "scope", a->scope, &made);
	if (!err && made)
		err = manager_note(m, "grant", a->receiver, a->scope);
	if (err)
		return err;
	(void)fprintf(m->out, "%s grant=%s key_id=%u scope=%s receiver=%s gateway=%s\n",
		      made ? "granted" : "unchanged", text_hex(bytes_of(g->id, sizeof(g->id)), hex),
		      g->key_id, a->scope, a->receiver, g->gateway);
	return 0;
}

int access_grant(struct manager *m, const struct access_grant *a)
{
	struct scope *s = malloc(sizeof(*s));
	struct grant g = { 0 };
	int err = s ? grant_with(m, a, s, &g) : manager_fail(m, -ENOMEM, "out of memory");

	free(s);
	return err;
}
