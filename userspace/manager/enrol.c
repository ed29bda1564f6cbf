// SPDX-License-Identifier: MIT
#include "userspace/manager/enrol.h"

#include <errno.h>
#include <string.h>

#include "userspace/base/secret.h"
#include "userspace/bundle/record.h"
#include "userspace/crypto/hash.h"
#include "userspace/manager/gateway.h"
#include "userspace/manager/keyfile.h"
#include "userspace/manager/party.h"

static int refuse_other_key(struct manager *m, const char *id)
{
	return manager_fail(m, -EEXIST,
			    "\"%s\" is already enrolled with another key; revoke it first", id);
}

int enrol_check_key(struct manager *m, const char *id, const struct p256_point *key)
{
	char owner[MANAGER_ID_ROOM];
	int err = party_key_owner(m, id, key, owner);

	if (err)
		return err;
	if (owner[0])
		return manager_fail(m, -EEXIST, "the key offered for \"%s\" is that of \"%s\"", id,
				    owner);
	if (!memcmp(key->b, m->key.b, sizeof(key->b)))
		return manager_fail(m, -EEXIST, "the key offered for \"%s\" is the manager's own",
				    id);
	return 0;
}

/* What `ssdtf-hsmd keygen` printed at the distributor. */
static int read_distributor(struct manager *m, const struct enrol_party *e, struct party *p)
{
	struct keyfile_gateway keys;
	int err = keyfile_read_gateway(m, e->public_file, &keys);

	if (err)
		return err;
	p->signing = keys.broker;
	p->unwrap_bytes = keys.spki_bytes;
	memcpy(p->unwrap, keys.spki, keys.spki_bytes);
	return 0;
}

/* What the party brings, or asked us to make. Keys are made only for what is not enrolled yet. */
static int read_keys(struct manager *m, const struct enrol_party *e, const struct party *old,
		     struct party *p)
{
	bool made = e->generate != NULL;
	int err = 0;

	if (e->role == RECORD_ROLE_DISTRIBUTOR && !made)
		return read_distributor(m, e, p);
	if (made && !old)
		err = keyfile_folder(m, e->generate);
	if (!err && made)
		err = keyfile_private(m, e->generate, "signing.pem", !old, &p->signing);
	else if (!err)
		err = keyfile_read_public(m, e->public_file, &p->signing);
	if (err == -ENOENT && made && old)
		return refuse_other_key(m, e->id);
	if (err || e->role != RECORD_ROLE_RECEIVER)
		return err;

	p->has_encryption = true;
	if (made)
		err = keyfile_private(m, e->generate, "encryption.pem",
				      !old || !old->has_encryption, &p->encryption);
	else
		err = keyfile_read_public(m, e->encryption_file, &p->encryption);
	return err == -ENOENT && made ? refuse_other_key(m, e->id) : err;
}

/* What is stored and what was brought do not contradict each other. */
static bool same_keys(const struct party *old, const struct party *p)
{
	if (memcmp(old->signing.b, p->signing.b, sizeof(p->signing.b)))
		return false;
	if (old->has_encryption && p->has_encryption &&
	    memcmp(old->encryption.b, p->encryption.b, sizeof(p->encryption.b)))
		return false;
	return !old->unwrap_bytes || !p->unwrap_bytes ||
	       bytes_equal(bytes_of(old->unwrap, old->unwrap_bytes),
			   bytes_of(p->unwrap, p->unwrap_bytes));
}

/* What was brought (p) on top of what is stored (old). */
static void add_to(const struct party *old, struct party *p)
{
	struct party sum = *old;

	sum.roles |= p->roles;
	if (p->has_encryption) {
		sum.has_encryption = true;
		sum.encryption = p->encryption;
	}
	if (p->unwrap_bytes) {
		sum.unwrap_bytes = p->unwrap_bytes;
		memcpy(sum.unwrap, p->unwrap, p->unwrap_bytes);
	}
	*p = sum;
	secret_wipe(&sum, sizeof(sum));
}

/* p as it will be stored, from what is stored (old, or NULL) and what was brought. */
static int merge(struct manager *m, const struct enrol_party *e, const struct party *old,
		 struct party *p)
{
	if (old && !same_keys(old, p))
		return refuse_other_key(m, e->id);
	p->roles = (uint8_t)e->role;
	if (old)
		add_to(old, p);
	else
		hash_random(p->k_adm, sizeof(p->k_adm)); /* independent of all others, PROTOCOL 1 */
	if (p->has_encryption && !memcmp(p->signing.b, p->encryption.b, sizeof(p->signing.b)))
		return manager_fail(
			m, -EINVAL,
			"\"%s\": signing and encryption key are the same; one key, one use", e->id);
	if (e->zk)
		p->flags |= RECORD_PARTY_ZK;
	if (e->clock == ENROL_NO_CLOCK)
		p->admission_flags |= BUNDLE_ADMISSION_NO_CLOCK;
	else if (e->clock == ENROL_CLOCK)
		p->admission_flags &= (uint8_t)~BUNDLE_ADMISSION_NO_CLOCK;
	return 0;
}

static bool same(const struct party *a, const struct party *b)
{
	return a->roles == b->roles && a->flags == b->flags &&
	       a->admission_flags == b->admission_flags && a->has_encryption == b->has_encryption &&
	       a->unwrap_bytes == b->unwrap_bytes;
}

static int find_old(struct manager *m, const char *id, struct party *old, bool *ret_found)
{
	struct gateway gateway;
	bool is_gateway = false;
	int err = manager_check_id(m, "id", id);

	if (!err)
		err = gateway_find(m, id, &gateway, &is_gateway);
	if (!err && is_gateway)
		return manager_fail(m, -EEXIST, "\"%s\" is a gateway's id", id);
	return err ? err : party_find(m, id, old, ret_found);
}

static int enrol_named(struct manager *m, const struct enrol_party *e)
{
	struct party old, p = { 0 };
	char roles[PARTY_ROLES_ROOM];
	bool found = false;
	int err = find_old(m, e->id, &old, &found);

	if (err)
		return err;
	(void)snprintf(p.id, sizeof(p.id), "%s", e->id); /* an id, so it fits */
	err = read_keys(m, e, found ? &old : NULL, &p);
	if (!err)
		err = merge(m, e, found ? &old : NULL, &p);
	if (!err)
		err = enrol_check_key(m, e->id, &p.signing);
	if (!err && p.has_encryption)
		err = enrol_check_key(m, e->id, &p.encryption);
	if (err)
		return err;

	party_roles_text(p.roles, roles);
	if (found && same(&old, &p)) {
		(void)fprintf(m->out, "unchanged id=%s roles=%s\n", p.id, roles);
		return 0;
	}
	err = party_store(m, &p);
	if (!err)
		err = manager_note(m, "enrol", p.id, roles);
	if (!err)
		(void)fprintf(m->out, "enrolled id=%s roles=%s\n", p.id, roles);
	return err;
}

/* The id that its key makes. A key that is made here is there from now on for read_keys(). */
static int zk_id(struct manager *m, const struct enrol_party *e, char ret_id[MANAGER_ID_ROOM])
{
	struct p256_point key;
	int err;

	_Static_assert(RECORD_ZK_ID_CHARS < MANAGER_ID_ROOM, "such an id is one");
	if (e->generate) {
		err = keyfile_folder(m, e->generate);
		if (!err)
			err = keyfile_private(m, e->generate, "signing.pem", true, &key);
	} else {
		err = keyfile_read_public(m, e->public_file, &key);
	}
	if (err)
		return err;
	record_zk_id(&key, ret_id);
	if (e->id && strcmp(e->id, ret_id))
		return manager_fail(m, -EINVAL,
				    "with --zk the id is made of the key: \"%s\"; leave --id out",
				    ret_id);
	return 0;
}

int enrol_party(struct manager *m, const struct enrol_party *e)
{
	struct enrol_party named = *e;
	char id[MANAGER_ID_ROOM];
	int err;

	if (!e->zk)
		return enrol_named(m, e);
	err = zk_id(m, e, id);
	named.id = id;
	return err ? err : enrol_named(m, &named);
}

static bool same_gateway(const struct gateway *a, const struct gateway *b)
{
	if (memcmp(a->broker.b, b->broker.b, sizeof(a->broker.b)))
		return false;
	if (a->has_bundle_key && b->has_bundle_key &&
	    memcmp(a->bundle_key.b, b->bundle_key.b, sizeof(a->bundle_key.b)))
		return false;
	return bytes_equal(bytes_of(a->spki, a->spki_bytes), bytes_of(b->spki, b->spki_bytes));
}

/* *ret_same: it is enrolled with these keys already. One that was revoked begins anew. */
static int check_gateway(struct manager *m, struct gateway *g, bool *ret_same)
{
	struct gateway old;
	struct party party;
	bool found = false;
	int err = manager_check_id(m, "id", g->id);

	if (!err)
		err = party_find(m, g->id, &party, &found);
	if (!err && found)
		return manager_fail(m, -EEXIST, "\"%s\" is a party's id", g->id);
	if (!err)
		err = enrol_check_key(m, g->id, &g->broker);
	if (!err && g->has_bundle_key)
		err = enrol_check_key(m, g->id, &g->bundle_key);
	if (!err)
		err = gateway_find(m, g->id, &old, &found);
	if (err || !found)
		return err;
	if (old.revoked_ms)
		return gateway_delete(m, g->id);
	if (!same_gateway(&old, g))
		return refuse_other_key(m, g->id);
	/* The key for bundles came later than the others. */
	*ret_same = old.has_bundle_key || !g->has_bundle_key;
	g->has_next = old.has_next;
	g->next = old.next;
	g->next_from_ms = old.next_from_ms;
	return 0;
}

int enrol_gateway(struct manager *m, const char *id, const char *file)
{
	struct keyfile_gateway keys;
	struct gateway g = { 0 };
	bool unchanged = false;
	int err = manager_check_id(m, "id", id);

	if (!err)
		err = keyfile_read_gateway(m, file, &keys);
	if (err)
		return err;
	(void)snprintf(g.id, sizeof(g.id), "%s", id); /* an id, so it fits */
	g.broker = keys.broker;
	g.has_bundle_key = keys.has_bundle;
	g.bundle_key = keys.bundle;
	memcpy(g.spki, keys.spki, keys.spki_bytes);
	g.spki_bytes = keys.spki_bytes;
	err = check_gateway(m, &g, &unchanged);
	if (!err && !unchanged)
		err = gateway_store(m, &g);
	if (!err && !unchanged)
		err = manager_note(m, "enrol gateway", id, "");
	if (!err)
		(void)fprintf(m->out, "%s gateway=%s\n", unchanged ? "unchanged" : "enrolled", id);
	return err;
}
