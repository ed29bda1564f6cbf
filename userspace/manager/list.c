// SPDX-License-Identifier: MIT
#include "userspace/manager/list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/secret.h"
#include "userspace/base/text.h"
#include "userspace/crypto/hash.h"
#include "userspace/manager/bundle_make.h"
#include "userspace/manager/gateway.h"
#include "userspace/manager/grants.h"
#include "userspace/manager/outlet.h"
#include "userspace/manager/party.h"
#include "userspace/manager/say.h"
#include "userspace/manager/scope.h"

#define TIME_ROOM SAY_TIME_ROOM

static const char *time_text(int64_t ms, char out[TIME_ROOM])
{
	return say_time(ms, out);
}

/* The texts that most lines are made of, column for column. */
static const char *text_of(struct registry_query *q, int column, char out[MANAGER_ID_ROOM])
{
	registry_text(q, column, out, MANAGER_ID_ROOM);
	return out;
}

/* "a,b,c" of the first column of sql, asked about id; "-" where there is none. */
static int put_names(struct manager *m, const char *label, const char *sql, const char *id)
{
	struct registry_query q = registry_query(&m->registry, sql);
	char name[MANAGER_ID_ROOM];
	unsigned n = 0;

	registry_bind_text(&q, id);
	(void)fprintf(m->out, "%s", label);
	while (registry_step(&q))
		(void)fprintf(m->out, "%s%s", n++ ? "," : "", text_of(&q, 0, name));
	(void)fprintf(m->out, "%s\n", n ? "" : "-");
	return manager_fail_registry(m, registry_end(&q));
}

static void put_point(struct manager *m, const char *label, const struct p256_point *p)
{
	char hex[TEXT_HEX_SIZE(P256_POINT_BYTES)];

	(void)fprintf(m->out, "%s%s\n", label, text_hex(bytes_of(p->b, sizeof(p->b)), hex));
}

/* --- lists --------------------------------------------------------------------------------- */

int list_parties(struct manager *m)
{
	struct registry_query q = registry_query(
		&m->registry,
		"SELECT id, roles, admission_flags, enrolled_ms FROM party ORDER BY id");
	char id[MANAGER_ID_ROOM], roles[PARTY_ROLES_ROOM], at[TIME_ROOM];

	while (registry_step(&q)) {
		int64_t flags = registry_int(&q, 2);

		(void)fprintf(m->out, "id=%s roles=%s clock=%s enrolled=%s\n", text_of(&q, 0, id),
			      party_roles_text((uint8_t)registry_int(&q, 1), roles),
			      flags & BUNDLE_ADMISSION_NO_CLOCK ? "no" : "yes",
			      time_text(registry_int(&q, 3), at));
	}
	return manager_fail_registry(m, registry_end(&q));
}

int list_gateways(struct manager *m)
{
	struct registry_query q = registry_query(
		&m->registry,
		"SELECT id, enrolled_ms, (SELECT count(*) FROM grants"
		" WHERE gateway = gateway.id), revoked_ms, made_serial, applied_serial"
		" FROM gateway LEFT JOIN online ON online.gateway = id ORDER BY id");
	char id[MANAGER_ID_ROOM], at[TIME_ROOM];

	while (registry_step(&q))
		(void)fprintf(
			m->out,
			"gateway=%s grants=%lld enrolled=%s state=%s made=%lld applied=%lld\n",
			text_of(&q, 0, id), (long long)registry_int(&q, 2),
			time_text(registry_int(&q, 1), at),
			registry_int(&q, 3) ? "revoked" : "enrolled",
			(long long)registry_int(&q, 4), (long long)registry_int(&q, 5));
	return manager_fail_registry(m, registry_end(&q));
}

int list_scopes(struct manager *m)
{
	struct registry_query q = registry_query(
		&m->registry,
		"SELECT name, key_id, epoch, suite, not_after_ms,"
		" (SELECT count(*) FROM filter WHERE scope = name),"
		" (SELECT count(*) FROM permission WHERE scope = name),"
		" (SELECT count(*) FROM grants WHERE grants.key_id = epoch.key_id),"
		" kept_until_ms FROM scope JOIN epoch ON epoch.scope = name ORDER BY name, epoch");
	char name[MANAGER_ID_ROOM], end[TIME_ROOM], kept[TIME_ROOM];

	while (registry_step(&q))
		(void)fprintf(m->out,
			      "scope=%s key_id=%lld epoch=%lld suite=%lld filters=%lld "
			      "devices=%lld grants=%lld until=%s converted_until=%s\n",
			      text_of(&q, 0, name), (long long)registry_int(&q, 1),
			      (long long)registry_int(&q, 2), (long long)registry_int(&q, 3),
			      (long long)registry_int(&q, 5), (long long)registry_int(&q, 6),
			      (long long)registry_int(&q, 7), time_text(registry_int(&q, 4), end),
			      time_text(registry_int(&q, 8), kept));
	return manager_fail_registry(m, registry_end(&q));
}

/* What a grant is for. */
static const char *kind_of(int64_t flags, bool has_upstream, bool has_outlet)
{
	if (has_upstream)
		return "outlet";
	if (has_outlet)
		return "behind-outlet";
	return flags & RECORD_GRANT_HOP ? "hop" : "reader";
}

int list_grants(struct manager *m)
{
	struct registry_query q = registry_query(
		&m->registry,
		"SELECT grants.id, scope, receiver, gateway, grants.key_id, flags,"
		" grants.not_after_ms, upstream, outlet, next IS NULL"
		" FROM grants JOIN epoch USING (key_id)"
		" ORDER BY scope, receiver, gateway, grants.key_id, outlet, grants.id");
	char scope[MANAGER_ID_ROOM], receiver[MANAGER_ID_ROOM], gateway[MANAGER_ID_ROOM];
	char outlet[MANAGER_ID_ROOM];
	char hex[TEXT_HEX_SIZE(GRANT_ID_BYTES)], end[TIME_ROOM];
	uint8_t id[GRANT_ID_BYTES] = { 0 };

	while (registry_step(&q)) {
		registry_copy(&q, 0, id, sizeof(id));
		text_of(&q, 8, outlet);
		(void)fprintf(m->out,
			      "grant=%s key_id=%lld scope=%s receiver=%s gateway=%s proof=%s "
			      "until=%s kind=%s outlet=%s stands=%s\n",
			      text_hex(bytes_of(id, sizeof(id)), hex),
			      (long long)registry_int(&q, 4), text_of(&q, 1, scope),
			      text_of(&q, 2, receiver), text_of(&q, 3, gateway),
			      registry_int(&q, 5) & RECORD_GRANT_PROOF ? "yes" : "no",
			      time_text(registry_int(&q, 6), end),
			      kind_of(registry_int(&q, 5), !registry_is_null(&q, 7), outlet[0]),
			      outlet[0] ? outlet : "-", registry_int(&q, 9) ? "yes" : "no");
	}
	return manager_fail_registry(m, registry_end(&q));
}

int list_outlets(struct manager *m)
{
	struct registry_query q =
		registry_query(&m->registry,
			       "SELECT name, scope, distributor, gateway, prefix, domain,"
			       " rotate_seconds, receiver FROM outlet ORDER BY name");
	char name[MANAGER_ID_ROOM], scope[MANAGER_ID_ROOM], distributor[MANAGER_ID_ROOM];
	char gateway[MANAGER_ID_ROOM], domain[MANAGER_ID_ROOM], receiver[MANAGER_ID_ROOM];
	char prefix[SCOPE_FILTER_BYTES_MAX + 1];

	while (registry_step(&q)) {
		registry_text(&q, 4, prefix, sizeof(prefix));
		text_of(&q, 7, receiver);
		(void)fprintf(m->out,
			      "outlet=%s scope=%s distributor=%s gateway=%s ids=%s "
			      "rotate_seconds=%lld receiver=%s topics=%s/#\n",
			      text_of(&q, 0, name), text_of(&q, 1, scope),
			      text_of(&q, 2, distributor), text_of(&q, 3, gateway),
			      text_of(&q, 5, domain), (long long)registry_int(&q, 6),
			      receiver[0] ? receiver : "-", prefix);
	}
	return manager_fail_registry(m, registry_end(&q));
}

int list_history(struct manager *m)
{
	struct registry_query q = registry_query(
		&m->registry, "SELECT at_ms, action, subject, detail FROM history ORDER BY n");
	char at[TIME_ROOM], action[64], subject[3 * MANAGER_ID_ROOM], detail[MANAGER_ID_ROOM];

	while (registry_step(&q)) {
		registry_text(&q, 1, action, sizeof(action));
		registry_text(&q, 2, subject, sizeof(subject));
		(void)fprintf(m->out, "%s %s %s %s\n", time_text(registry_int(&q, 0), at), action,
			      subject, text_of(&q, 3, detail));
	}
	return manager_fail_registry(m, registry_end(&q));
}

/* --- one of them --------------------------------------------------------------------------- */

int list_party(struct manager *m, const char *id)
{
	struct party p;
	char roles[PARTY_ROLES_ROOM], end[TIME_ROOM];
	int err = party_load(m, id, PARTY_ANY_ROLE, &p);

	if (err)
		return err;
	(void)fprintf(m->out, "id=%s\nroles=%s\nclock=%s\n", p.id, party_roles_text(p.roles, roles),
		      p.admission_flags & BUNDLE_ADMISSION_NO_CLOCK ? "no" : "yes");
	put_point(m, "signing=", &p.signing);
	if (p.has_encryption)
		put_point(m, "encryption=", &p.encryption);
	if (p.has_previous && p.previous_until_ms > m->now_ms) {
		put_point(m, "previous=", &p.previous);
		(void)fprintf(m->out, "previous_until=%s\n",
			      time_text((int64_t)p.previous_until_ms, end));
	}
	secret_wipe(p.k_adm, sizeof(p.k_adm));
	secret_wipe(p.previous_k_adm, sizeof(p.previous_k_adm));
	err = put_names(
		m, "publishes=", "SELECT scope FROM permission WHERE party = ? ORDER BY scope", id);
	if (!err)
		err = put_names(m, "reads=",
				"SELECT DISTINCT scope FROM grants JOIN epoch USING (key_id)"
				" WHERE receiver = ? AND secret IS NULL ORDER BY scope",
				id);
	if (!err)
		err = put_names(m, "distributes=",
				"SELECT DISTINCT scope FROM grants JOIN epoch USING (key_id)"
				" WHERE receiver = ? AND secret IS NOT NULL ORDER BY scope",
				id);
	return err;
}

int list_gateway(struct manager *m, const char *id)
{
	char hex[TEXT_HEX_SIZE(HASH_BYTES)];
	char at[TIME_ROOM];
	uint8_t hash[HASH_BYTES];
	struct gateway g;
	int err = gateway_load(m, id, &g);

	if (err)
		return err;
	hash_one(bytes_of(g.spki, g.spki_bytes), hash);
	(void)fprintf(m->out, "gateway=%s\n", g.id);
	put_point(m, "broker=", &g.broker);
	(void)fprintf(m->out, "unwrap_sha256=%s\n", text_hex(bytes_of(hash, sizeof(hash)), hex));
	if (g.has_bundle_key)
		put_point(m, "bundle_key=", &g.bundle_key);
	if (g.has_next) {
		put_point(m, "next=", &g.next);
		(void)fprintf(m->out, "next_from=%s\n", time_text((int64_t)g.next_from_ms, at));
	}
	return put_names(m, "receivers=",
			 "SELECT DISTINCT receiver FROM grants WHERE gateway = ? ORDER BY receiver",
			 id);
}

int list_outlet(struct manager *m, const char *name)
{
	struct outlet o;
	int err = outlet_load(m, name, &o);

	if (err)
		return err;
	(void)fprintf(m->out,
		      "outlet=%s\nscope=%s\ndistributor=%s\ngateway=%s\ntopics=%s/#\nids=%s\n"
		      "rotate_seconds=%u\n",
		      o.name, o.scope, o.distributor, o.gateway, o.prefix, o.domain,
		      o.rotate_seconds);
	return put_names(m, "receivers=",
			 "SELECT DISTINCT receiver FROM grants WHERE outlet = ? AND secret IS NULL"
			 " ORDER BY receiver",
			 name);
}

static int put_scope(struct manager *m, const struct scope *s)
{
	const struct record_scope *r = &s->record;
	char begin[TIME_ROOM], end[TIME_ROOM];
	int err;

	(void)fprintf(m->out, "scope=%s\nkey_id=%u\nepoch=%u\nsuite=%u\n", s->name, r->key_id,
		      r->epoch, r->suite);
	(void)fprintf(m->out, "rekey_messages=%u\nrekey_seconds=%u\nfrom=%s\nuntil=%s\n",
		      r->rekey_messages, r->rekey_seconds,
		      time_text((int64_t)r->not_before_ms, begin),
		      time_text((int64_t)r->not_after_ms, end));
	put_point(m, "a=", &r->a);
	for (unsigned i = 0; i < r->n_filters; i++)
		(void)fprintf(m->out, "filter=%.*s\n", (int)r->filters[i].n,
			      (const char *)r->filters[i].p);
	for (unsigned i = 0; i < r->n_public_filters; i++)
		(void)fprintf(m->out, "public=%.*s\n", (int)r->public_filters[i].n,
			      (const char *)r->public_filters[i].p);
	(void)fprintf(m->out, "padded=%s\n", r->flags & RECORD_SCOPE_PADDED ? "yes" : "no");
	err = put_names(m,
			"devices=", "SELECT party FROM permission WHERE scope = ? ORDER BY party",
			s->name);
	if (!err)
		err = put_names(m, "receivers=",
				"SELECT DISTINCT receiver FROM grants JOIN epoch USING (key_id)"
				" WHERE scope = ? AND secret IS NULL ORDER BY receiver",
				s->name);
	if (!err)
		err = put_names(m, "distributors=",
				"SELECT DISTINCT receiver FROM grants JOIN epoch USING (key_id)"
				" WHERE scope = ? AND secret IS NOT NULL ORDER BY receiver",
				s->name);
	return err;
}

int list_scope(struct manager *m, const char *name)
{
	struct scope *s = malloc(sizeof(*s));
	int err;

	if (!s)
		return manager_fail(m, -ENOMEM, "out of memory");
	err = scope_load(m, name, s);
	if (!err)
		err = put_scope(m, s);
	free(s);
	return err;
}

int list_manager(struct manager *m)
{
	static const char *const names[] = { "token", "module", "pin_file", "serial" };
	char value[FILE_PATH_BYTES_MAX];

	put_point(m, "key=", &m->key);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		int err = registry_setting(&m->registry, names[i], value, sizeof(value));

		if (err && err != -ENOENT)
			return manager_fail_registry(m, err);
		(void)fprintf(m->out, "%s=%s\n", names[i], err ? "none" : value);
	}
	return 0;
}

/* --- the check ----------------------------------------------------------------------------- */

static int check_hops(struct manager *m, struct grants_maker *k, struct grant *g)
{
	struct registry_query q =
		registry_query(&m->registry, GRANTS_SQL " WHERE g.secret IS NOT NULL");
	int err = 0, end;

	while (!err && registry_step(&q)) {
		grants_read(&q, g);
		err = grants_check_secret(k, g);
	}
	end = registry_end(&q);
	return err ? err : manager_fail_registry(m, end);
}

static int check_secrets(struct manager *m)
{
	struct grants_maker *k;
	struct grant g;
	int err = grants_maker_new(m, &k);

	if (err)
		return err;
	err = check_hops(m, k, &g);
	grants_maker_free(k);
	return err;
}

static int check_scalars(struct manager *m, struct scope *s, struct secret32 *a)
{
	struct registry_query q =
		registry_query(&m->registry, "SELECT key_id FROM epoch"
					     " WHERE kept_until_ms = 0 OR kept_until_ms > ?");
	int err = 0, end;

	registry_bind_int(&q, (int64_t)m->now_ms); /* those of before may be wiped */
	while (!err && registry_step(&q)) {
		err = scope_load_key(m, (uint32_t)registry_int(&q, 0), s);
		if (!err)
			err = scope_open_scalar(m, s, a);
	}
	end = registry_end(&q);
	return err ? err : manager_fail_registry(m, end);
}

int list_check(struct manager *m)
{
	struct secret32 *a = NULL;
	struct scope *s = NULL;
	int err = manager_fail_registry(m, registry_check(&m->registry));

	if (err)
		return err;
	a = scope_secret_alloc(m, sizeof(*a));
	s = malloc(sizeof(*s));
	if (!a || !s)
		err = a ? manager_fail(m, -ENOMEM, "out of memory") : -ENOMEM;
	if (!err)
		err = manager_token(m);
	if (!err)
		err = check_scalars(m, s, a);
	free(s);
	secret_free(a, sizeof(*a));
	if (!err)
		err = check_secrets(m);
	if (!err)
		err = bundle_make_check(m);
	if (!err)
		(void)fprintf(m->out, "registry and token are whole\n");
	return err;
}
