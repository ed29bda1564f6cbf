// SPDX-License-Identifier: MIT
#include "userspace/manager/party.h"

#include <errno.h>

char *party_roles_text(uint8_t roles, char out[PARTY_ROLES_ROOM])
{
	static const struct {
		uint8_t role;
		const char *name;
	} names[] = { { RECORD_ROLE_DEVICE, "device" },
		      { RECORD_ROLE_RECEIVER, "receiver" },
		      { RECORD_ROLE_DISTRIBUTOR, "distributor" },
		      { RECORD_ROLE_MANAGER, "manager" } };
	size_t used = 0;

	out[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (roles & names[i].role)
			used += (size_t)snprintf(out + used, PARTY_ROLES_ROOM - used, "%s%s",
						 used ? "," : "", names[i].name);
	}
	return out;
}

#define SCOPE_COLUMN 13 /* behind PARTY_COLUMNS */

static bool read_optional(struct registry_query *q, int column, void *out, size_t n)
{
	if (registry_is_null(q, column))
		return false;
	registry_copy(q, column, out, n);
	return true;
}

static void read_row(struct registry_query *q, struct party *p)
{
	registry_text(q, 0, p->id, sizeof(p->id));
	p->roles = (uint8_t)registry_int(q, 1);
	p->flags = (uint8_t)registry_int(q, 2);
	registry_copy(q, 3, p->signing.b, sizeof(p->signing.b));
	p->has_previous = read_optional(q, 4, p->previous.b, sizeof(p->previous.b));
	p->previous_until_ms = (uint64_t)registry_int(q, 5);
	p->has_encryption = read_optional(q, 6, p->encryption.b, sizeof(p->encryption.b));
	p->admission_flags = (uint8_t)registry_int(q, 7);
	registry_copy(q, 8, p->k_adm, sizeof(p->k_adm));
	p->has_previous_k_adm = read_optional(q, 9, p->previous_k_adm, sizeof(p->previous_k_adm));
	p->k_adm_until_ms = (uint64_t)registry_int(q, 10);
	p->unwrap_bytes = registry_blob(q, 11).n;
	if (p->unwrap_bytes > sizeof(p->unwrap))
		p->unwrap_bytes = sizeof(p->unwrap);
	registry_copy(q, 11, p->unwrap, p->unwrap_bytes);
	p->bundle_serial = (uint64_t)registry_int(q, 12);
	p->n_scopes = 0;
}

int party_find(struct manager *m, const char *id, struct party *ret_p, bool *ret_found)
{
	struct registry_query q =
		registry_query(&m->registry, "SELECT " PARTY_COLUMNS " FROM party WHERE id = ?");
	bool found;
	int err;

	registry_bind_text(&q, id);
	found = registry_step(&q);
	if (found)
		read_row(&q, ret_p);
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	*ret_found = found;
	return 0;
}

static const char *role_words(uint8_t roles)
{
	switch (roles) {
	case RECORD_ROLE_RECEIVER:
		return "a receiver";
	case RECORD_ROLE_DISTRIBUTOR:
		return "a distributor";
	default:
		return "a device";
	}
}

int party_load(struct manager *m, const char *id, uint8_t roles, struct party *ret_p)
{
	char names[PARTY_ROLES_ROOM];
	bool found = false;
	int err = manager_check_id(m, "id", id);

	if (!err)
		err = party_find(m, id, ret_p, &found);
	if (err)
		return err;
	if (!found)
		return manager_fail(m, -ESRCH, "no party \"%s\" is enrolled", id);
	if (!(ret_p->roles & roles))
		return manager_fail(m, -ESRCH, "\"%s\" is enrolled as %s, not as %s", id,
				    party_roles_text(ret_p->roles, names), role_words(roles));
	return 0;
}

int party_key_owner(struct manager *m, const char *id, const struct p256_point *key,
		    char ret_owner[MANAGER_ID_ROOM])
{
	struct registry_query q =
		registry_query(&m->registry,
			       /* each by its index: of 100,000 parties, too */
			       "SELECT id FROM party WHERE id <> ?1 AND signing = ?2"
			       " UNION ALL SELECT id FROM party WHERE id <> ?1"
			       "  AND encryption = ?2"
			       " UNION ALL SELECT id FROM party WHERE id <> ?1"
			       "  AND previous = ?2"
			       " UNION ALL SELECT id FROM gateway WHERE id <> ?1"
			       "  AND ?2 IN (broker, next_broker, bundle_key)");

	ret_owner[0] = '\0';
	registry_bind_text(&q, id);
	registry_bind_blob(&q, bytes_of(key->b, sizeof(key->b)));
	if (registry_step(&q))
		registry_text(&q, 0, ret_owner, MANAGER_ID_ROOM);
	return manager_fail_registry(m, registry_end(&q));
}

static void bind_optional(struct registry_query *q, bool has, const void *p, size_t n)
{
	registry_bind_blob(q, has ? bytes_of(p, n) : bytes_of(NULL, 0));
}

int party_store(struct manager *m, const struct party *p)
{
	struct registry_query q = registry_query(
		&m->registry,
		"INSERT INTO party (id, roles, flags, signing, previous, previous_until_ms,"
		" encryption, admission_flags, k_adm, previous_k_adm, k_adm_until_ms, unwrap,"
		" bundle_serial, enrolled_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
		" ON CONFLICT (id) DO UPDATE SET roles = excluded.roles, flags = excluded.flags,"
		" signing = excluded.signing, previous = excluded.previous,"
		" previous_until_ms = excluded.previous_until_ms,"
		" encryption = excluded.encryption, admission_flags = excluded.admission_flags,"
		" k_adm = excluded.k_adm, previous_k_adm = excluded.previous_k_adm,"
		" k_adm_until_ms = excluded.k_adm_until_ms, unwrap = excluded.unwrap,"
		" bundle_serial = excluded.bundle_serial");

	registry_bind_text(&q, p->id);
	registry_bind_int(&q, p->roles);
	registry_bind_int(&q, p->flags);
	registry_bind_blob(&q, bytes_of(p->signing.b, sizeof(p->signing.b)));
	bind_optional(&q, p->has_previous, p->previous.b, sizeof(p->previous.b));
	registry_bind_int(&q, (int64_t)p->previous_until_ms);
	bind_optional(&q, p->has_encryption, p->encryption.b, sizeof(p->encryption.b));
	registry_bind_int(&q, p->admission_flags);
	registry_bind_blob(&q, bytes_of(p->k_adm, sizeof(p->k_adm)));
	bind_optional(&q, p->has_previous_k_adm, p->previous_k_adm, sizeof(p->previous_k_adm));
	registry_bind_int(&q, (int64_t)p->k_adm_until_ms);
	bind_optional(&q, p->unwrap_bytes > 0, p->unwrap, p->unwrap_bytes);
	registry_bind_int(&q, (int64_t)p->bundle_serial);
	registry_bind_int(&q, (int64_t)m->now_ms);
	return manager_fail_registry(m, registry_run(&q));
}

static bool is_of(struct registry_query *q, const struct party *p)
{
	return bytes_equal(registry_blob(q, 0), bytes_str(p->id));
}

bool party_rows_next(struct party_rows *it, struct party *p)
{
	struct registry_query *q = &it->q;

	/* Between calls the cursor stands on the first row of the next party. */
	if (!it->started)
		(void)registry_step(q); /* asked for in the next line */
	it->started = true;
	if (!registry_has_row(q))
		return false;
	read_row(q, p);
	do {
		/* access_allow() lets nobody have more. */
		if (!registry_is_null(q, SCOPE_COLUMN) && p->n_scopes < RECORD_SCOPES_MAX)
			registry_text(q, SCOPE_COLUMN, p->scopes[p->n_scopes++], MANAGER_ID_ROOM);
	} while (registry_step(q) && is_of(q, p));
	return true;
}

void party_record(const struct manager *m, const struct party *p, struct record_party *ret_r)
{
	*ret_r = (struct record_party){
		.id = bytes_str(p->id),
		.roles = p->roles,
		.flags = p->flags,
		.signing = p->signing,
		.has_previous =
			p->has_previous && record_valid_at(0, p->previous_until_ms, m->now_ms),
		.previous = p->previous,
		.previous_until_ms = p->previous_until_ms,
		.has_encryption = p->has_encryption,
		.encryption = p->encryption,
		.n_scopes = p->n_scopes,
	};
	for (unsigned i = 0; i < p->n_scopes; i++)
		ret_r->scopes[i] = bytes_str(p->scopes[i]);
}
