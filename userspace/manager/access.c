// SPDX-License-Identifier: MIT
#include "userspace/manager/access.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/secret.h"
#include "userspace/base/text.h"
#include "userspace/bundle/record.h"
#include "userspace/crypto/hash.h"
#include "userspace/manager/gateway.h"
#include "userspace/manager/party.h"
#include "userspace/manager/scope.h"

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

static int load_both(struct manager *m, const char *scope, const char *device)
{
	struct party party;
	struct scope *s = malloc(sizeof(*s));
	int err;

	if (!s)
		return manager_fail(m, -ENOMEM, "out of memory");
	err = scope_load(m, scope, s);
	if (!err)
		err = party_load(m, device, RECORD_ROLE_DEVICE | RECORD_ROLE_DISTRIBUTOR, &party);
	free(s);
	return err;
}

int access_allow(struct manager *m, const char *scope, const char *device)
{
	int err = load_both(m, scope, device);
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
	if (!err)
		(void)fprintf(m->out, "%s scope=%s device=%s\n", changed ? "allowed" : "unchanged",
			      scope, device);
	return err;
}

int access_deny(struct manager *m, const char *scope, const char *device)
{
	int err = load_both(m, scope, device);
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

/* All that a grant is made from, and the grant. */
struct grant_work {
	struct gateway gateway;
	struct party receiver;
	struct scope scope;
	struct grant_terms terms;
	uint8_t wrapped[RSA_WRAPPED_BYTES_MAX];
	size_t wrapped_bytes;
	uint64_t not_before_ms, not_after_ms;
};

/* In locked memory, wiped when the grant is made. */
struct grant_secrets {
	struct secret32 a, x, d, rk;
	uint8_t pkcs8[P256_PKCS8_BYTES];
};

/* rk = a / d, and rk under the gateway token's key (PROTOCOL 3). */
static int convert(struct grant_work *w, struct grant_secrets *s)
{
	int err = p256_scalar_random(&s->x);

	if (!err)
		err = p256_mul_base(&s->x, &w->terms.x);
	if (!err)
		err = grant_secret_manager(&w->terms, &s->x, &s->d);
	if (!err)
		err = grant_conversion_key(&s->a, &s->d, &s->rk);
	if (err)
		return err;
	p256_pkcs8(&s->rk, s->pkcs8);
	err = rsa_wrap(bytes_of(w->gateway.spki, w->gateway.spki_bytes),
		       bytes_of(s->pkcs8, sizeof(s->pkcs8)), w->wrapped, sizeof(w->wrapped));
	if (err < 0)
		return err;
	w->wrapped_bytes = (size_t)err;
	return 0;
}

static int make_grant(struct manager *m, struct grant_work *w)
{
	struct grant_secrets *s = scope_secret_alloc(m, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	hash_random(w->terms.grant_id, sizeof(w->terms.grant_id));
	w->terms.key_id = w->scope.record.key_id;
	w->terms.b = w->receiver.encryption;
	err = scope_open_scalar(m, &w->scope, &s->a);
	if (!err) {
		err = convert(w, s);
		if (err)
			(void)manager_fail(m, err, "cannot make the conversion key: %s",
					   strerror(-err));
	}
	secret_free(s, sizeof(*s));
	return err;
}

static int insert_grant(struct manager *m, const struct access_grant *g, const struct grant_work *w)
{
	const struct grant_terms *t = &w->terms;
	struct registry_query q = registry_query(
		&m->registry,
		"INSERT INTO grants (id, gateway, receiver, key_id, flags, valid_days,"
		" x, wrapped, not_before_ms, not_after_ms)"
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");

	registry_bind_blob(&q, bytes_of(t->grant_id, sizeof(t->grant_id)));
	registry_bind_text(&q, w->gateway.id);
	registry_bind_text(&q, w->receiver.id);
	registry_bind_int(&q, t->key_id);
	registry_bind_int(&q, g->proof ? RECORD_GRANT_PROOF : 0);
	registry_bind_int(&q, g->valid_days);
	registry_bind_blob(&q, bytes_of(t->x.b, sizeof(t->x.b)));
	registry_bind_blob(&q, bytes_of(w->wrapped, w->wrapped_bytes));
	registry_bind_int(&q, (int64_t)w->not_before_ms);
	registry_bind_int(&q, (int64_t)w->not_after_ms);
	return manager_fail_registry(m, registry_run(&q));
}

/* Is there a grant that still holds? Then its id is in w. */
static int find_grant(struct manager *m, const struct access_grant *g, struct grant_work *w,
		      bool *ret_stands)
{
	struct registry_query q =
		registry_query(&m->registry,
			       "SELECT id, flags, valid_days, not_after_ms FROM grants"
			       " WHERE gateway = ? AND receiver = ? AND key_id = ?");
	bool found, same = false, over = false;
	int err;

	registry_bind_text(&q, w->gateway.id);
	registry_bind_text(&q, w->receiver.id);
	registry_bind_int(&q, w->scope.record.key_id);
	found = registry_step(&q);
	if (found) {
		registry_copy(&q, 0, w->terms.grant_id, sizeof(w->terms.grant_id));
		same = registry_int(&q, 1) == (g->proof ? RECORD_GRANT_PROOF : 0) &&
		       registry_int(&q, 2) == g->valid_days;
		over = !record_valid_at(0, (uint64_t)registry_int(&q, 3), m->now_ms);
	}
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	if (found && !over && !same)
		return manager_fail(m, -EEXIST,
				    "\"%s\" has a grant for scope \"%s\" on other terms; revoke it "
				    "first",
				    g->receiver, g->scope);
	*ret_stands = found && !over;
	return 0;
}

static int delete_grant(struct manager *m, const struct grant_work *w)
{
	struct registry_query q = registry_query(
		&m->registry,
		"DELETE FROM grants WHERE gateway = ? AND receiver = ? AND key_id = ?");

	registry_bind_text(&q, w->gateway.id);
	registry_bind_text(&q, w->receiver.id);
	registry_bind_int(&q, w->scope.record.key_id);
	return manager_fail_registry(m, registry_run(&q));
}

static int new_grant(struct manager *m, const struct access_grant *g, struct grant_work *w)
{
	int err;

	if (!record_valid_at(0, w->scope.record.not_after_ms, m->now_ms))
		return manager_fail(m, -EINVAL, "scope \"%s\": its key has run out", g->scope);
	scope_validity(m, g->valid_days, &w->not_before_ms, &w->not_after_ms);
	err = make_grant(m, w);
	if (!err)
		err = delete_grant(m, w); /* one that has run out */
	if (!err)
		err = insert_grant(m, g, w);
	return err ? err : manager_note(m, "grant", g->receiver, g->scope);
}

static int grant_with(struct manager *m, const struct access_grant *g, struct grant_work *w)
{
	char hex[TEXT_HEX_SIZE(GRANT_ID_BYTES)];
	bool stands = false;
	int err = scope_load(m, g->scope, &w->scope);

	if (!err)
		err = party_load(m, g->receiver, RECORD_ROLE_RECEIVER, &w->receiver);
	if (!err)
		err = gateway_load(m, g->gateway, &w->gateway);
	if (!err)
		err = find_grant(m, g, w, &stands);
	if (!err && !stands)
		err = new_grant(m, g, w);
	if (err)
		return err;
	text_hex(bytes_of(w->terms.grant_id, GRANT_ID_BYTES), hex);
	(void)fprintf(m->out, "%s grant=%s key_id=%u scope=%s receiver=%s gateway=%s\n",
		      stands ? "unchanged" : "granted", hex, w->scope.record.key_id, g->scope,
		      g->receiver, w->gateway.id);
	return 0;
}

int access_grant(struct manager *m, const struct access_grant *g)
{
	struct grant_work *w = calloc(1, sizeof(*w));
	int err;

	if (!w)
		return manager_fail(m, -ENOMEM, "out of memory");
	err = grant_with(m, g, w);
	free(w);
	return err;
}
