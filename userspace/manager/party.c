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

/* The columns in front of the scope's. */
static void read_row(struct registry_query *q, struct party *p)
{
	registry_text(q, 0, p->id, sizeof(p->id));
	p->roles = (uint8_t)registry_int(q, 1);
	registry_copy(q, 2, p->signing.b, sizeof(p->signing.b));
	p->has_encryption = !registry_is_null(q, 3);
	if (p->has_encryption)
		registry_copy(q, 3, p->encryption.b, sizeof(p->encryption.b));
	p->admission_flags = (uint8_t)registry_int(q, 4);
	registry_copy(q, 5, p->k_adm, sizeof(p->k_adm));
	p->n_scopes = 0;
}

int party_find(struct manager *m, const char *id, struct party *ret_p, bool *ret_found)
{
	struct registry_query q =
		registry_query(&m->registry,
			       "SELECT id, roles, signing, encryption, admission_flags, k_adm"
			       " FROM party WHERE id = ?");
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
				    party_roles_text(ret_p->roles, names),
				    roles == RECORD_ROLE_RECEIVER ? "a receiver" : "a device");
	return 0;
}

int party_key_owner(struct manager *m, const char *id, const struct p256_point *key,
		    char ret_owner[MANAGER_ID_ROOM])
{
	struct registry_query q =
		registry_query(&m->registry,
			       "SELECT id FROM party WHERE id <> ?1 AND signing = ?2"
			       " UNION ALL SELECT id FROM party WHERE id <> ?1 AND encryption = ?2"
			       " UNION ALL SELECT id FROM gateway WHERE id <> ?1 AND broker = ?2");

	ret_owner[0] = '\0';
	registry_bind_text(&q, id);
	registry_bind_blob(&q, bytes_of(key->b, sizeof(key->b)));
	if (registry_step(&q))
		registry_text(&q, 0, ret_owner, MANAGER_ID_ROOM);
	return manager_fail_registry(m, registry_end(&q));
}

int party_store(struct manager *m, const struct party *p)
{
	struct registry_query q = registry_query(
		&m->registry,
		"INSERT INTO party (id, roles, signing, encryption, admission_flags, k_adm,"
		" enrolled_ms) VALUES (?, ?, ?, ?, ?, ?, ?)"
		" ON CONFLICT (id) DO UPDATE SET roles = excluded.roles,"
		" encryption = excluded.encryption, admission_flags = excluded.admission_flags");

	registry_bind_text(&q, p->id);
	registry_bind_int(&q, p->roles);
	registry_bind_blob(&q, bytes_of(p->signing.b, sizeof(p->signing.b)));
	registry_bind_blob(&q, p->has_encryption
				       ? bytes_of(p->encryption.b, sizeof(p->encryption.b))
				       : bytes_of(NULL, 0));
	registry_bind_int(&q, p->admission_flags);
	registry_bind_blob(&q, bytes_of(p->k_adm, sizeof(p->k_adm)));
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
		if (!registry_is_null(q, 6) && p->n_scopes < RECORD_SCOPES_MAX)
			registry_text(q, 6, p->scopes[p->n_scopes++], MANAGER_ID_ROOM);
	} while (registry_step(q) && is_of(q, p));
	return true;
}

void party_record(const struct party *p, struct record_party *ret_r)
{
	*ret_r = (struct record_party){
		.id = bytes_str(p->id),
		.roles = p->roles,
		.signing = p->signing,
		.has_encryption = p->has_encryption,
		.encryption = p->encryption,
		.n_scopes = p->n_scopes,
	};
	for (unsigned i = 0; i < p->n_scopes; i++)
		ret_r->scopes[i] = bytes_str(p->scopes[i]);
}
