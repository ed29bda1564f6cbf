// SPDX-License-Identifier: MIT
#include "userspace/manager/rotate.h"

#include <errno.h>
#include <string.h>

#include "userspace/base/secret.h"
#include "userspace/crypto/hash.h"
#include "userspace/manager/enrol.h"
#include "userspace/manager/keyfile.h"
#include "userspace/manager/party.h"
#include "userspace/manager/renew.h"
#include "userspace/manager/rotate_impl.h"
#include "userspace/manager/update.h"

/* --- the keys ------------------------------------------------------------------------------ */

/* What was brought, or made on request. */
struct brought {
	bool signing, encryption;
	struct p256_point signing_key, encryption_key;
	size_t unwrap_bytes;
	uint8_t unwrap[RSA_SPKI_BYTES_MAX];
};

static int read_generated(struct manager *m, const struct rotate_party *r, const struct party *p,
			  struct brought *b)
{
	int err = keyfile_folder(m, r->generate);

	b->signing = true;
	if (!err)
		err = keyfile_private(m, r->generate, "signing.pem", true, &b->signing_key);
	if (err || !(p->roles & RECORD_ROLE_RECEIVER))
		return err;
	b->encryption = true;
	return keyfile_private(m, r->generate, "encryption.pem", true, &b->encryption_key);
}

static int read_public(struct manager *m, const struct rotate_party *r, const struct party *p,
		       struct brought *b)
{
	struct keyfile_gateway keys;
	int err;

	b->signing = true;
	if (!(p->roles & RECORD_ROLE_DISTRIBUTOR))
		return keyfile_read_public(m, r->public_file, &b->signing_key);
	err = keyfile_read_gateway(m, r->public_file, &keys);
	if (err)
		return err;
	b->signing_key = keys.broker;
	b->unwrap_bytes = keys.spki_bytes;
	memcpy(b->unwrap, keys.spki, keys.spki_bytes);
	return 0;
}

static int read_keys(struct manager *m, const struct rotate_party *r, const struct party *p,
		     struct brought *b)
{
	int err = 0;

	if (!r->public_file && !r->encryption_file && !r->generate)
		return manager_fail(m, -EINVAL, "--public, --encryption or --generate is missing");
	if (r->generate && (r->public_file || r->encryption_file))
		return manager_fail(m, -EINVAL, "--generate makes all keys: no file is brought");
	if (r->generate && (p->roles & RECORD_ROLE_DISTRIBUTOR))
		return manager_fail(m, -EINVAL,
				    "\"%s\": a distributor's keys are made in its token", p->id);
	if (r->encryption_file && !(p->roles & RECORD_ROLE_RECEIVER))
		return manager_fail(m, -EINVAL, "\"%s\": is no receiver", p->id);
	if (r->generate)
		return read_generated(m, r, p, b);
	if (r->public_file)
		err = read_public(m, r, p, b);
	if (!err && r->encryption_file) {
		b->encryption = true;
		err = keyfile_read_public(m, r->encryption_file, &b->encryption_key);
	}
	return err;
}

/* Keys that it has already are not brought. */
static int drop_same(struct manager *m, const struct party *p, struct brought *b)
{
	if (!memcmp(b->signing_key.b, p->signing.b, sizeof(p->signing.b)))
		b->signing = false;
	if (p->has_encryption &&
	    !memcmp(b->encryption_key.b, p->encryption.b, sizeof(p->encryption.b)))
		b->encryption = false;
	if (bytes_equal(bytes_of(b->unwrap, b->unwrap_bytes), bytes_of(p->unwrap, p->unwrap_bytes)))
		b->unwrap_bytes = 0;
	if (b->signing || b->encryption || b->unwrap_bytes)
		return 0;
	return manager_fail(m, -EINVAL, "\"%s\": no key is new", p->id);
}

/* --- what may be replaced ------------------------------------------------------------------ */

static int check_signing(struct manager *m, const struct party *p, const struct brought *b)
{
	if (p->flags & RECORD_PARTY_ZK)
		return manager_fail(m, -EINVAL,
				    "\"%s\": its id is made of its key; enrol the new key's id",
				    p->id);
	if (p->flags & RECORD_PARTY_CLAIM)
		return manager_fail(m, -EINVAL, "\"%s\": has claimed no key of its own yet", p->id);
	if (p->has_previous && !memcmp(b->signing_key.b, p->previous.b, sizeof(p->previous.b)))
		return manager_fail(m, -EEXIST, "\"%s\": that was its key before this one", p->id);
	return 0;
}

/* The latest end of grants that were made for other keys than this party's present ones. */
static int old_grants_until(struct manager *m, const struct party *p, uint64_t *ret_until)
{
	struct registry_query q = registry_query(
		&m->registry,
		"SELECT max(grants.not_after_ms) FROM grants JOIN epoch USING (key_id)"
		" WHERE kept_until_ms = 0 AND next IS NOT NULL"
		" AND ((receiver = ?1 AND b IS NOT NULL AND b <> ?2)"
		"  OR upstream = ?1)");
	uint64_t until = 0;
	int err;

	registry_bind_text(&q, p->id);
	registry_bind_blob(&q, bytes_of(p->encryption.b, sizeof(p->encryption.b)));
	if (registry_step(&q))
		until = (uint64_t)registry_int(&q, 0);
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	*ret_until = until;
	return 0;
}

static int check(struct manager *m, const struct party *p, const struct brought *b)
{
	uint64_t until = 0;
	int err = 0;

	if (b->signing)
		err = check_signing(m, p, b);
	if (!err && b->signing)
		err = enrol_check_key(m, p->id, &b->signing_key);
	if (!err && b->encryption)
		err = enrol_check_key(m, p->id, &b->encryption_key);
	if (!err && p->has_previous)
		err = rotate_check_overlap(m, "party", p->id, "its previous key holds",
					   p->previous_until_ms);
	if (!err && (b->encryption || b->unwrap_bytes))
		err = old_grants_until(m, p, &until);
	return err ? err
		   : rotate_check_overlap(m, "party", p->id, "grants for its previous key hold",
					  until);
}

/* One key, one use: none of the four is another. */
static int check_uses(struct manager *m, const struct party *p)
{
	if (p->has_encryption &&
	    (!memcmp(p->signing.b, p->encryption.b, sizeof(p->signing.b)) ||
	     (p->has_previous && !memcmp(p->previous.b, p->encryption.b, sizeof(p->previous.b)))))
		return manager_fail(
			m, -EINVAL,
			"\"%s\": signing and encryption key are the same; one key, one use", p->id);
	return 0;
}

/* --- replacing ----------------------------------------------------------------------------- */

static void replace(struct party *p, const struct brought *b, uint64_t until_ms)
{
	if (b->signing) {
		p->has_previous = true;
		p->previous = p->signing;
		p->previous_until_ms = until_ms;
		p->signing = b->signing_key;
	}
	if (b->encryption)
		p->encryption = b->encryption_key;
	if (b->unwrap_bytes) {
		p->unwrap_bytes = b->unwrap_bytes;
		memcpy(p->unwrap, b->unwrap, b->unwrap_bytes);
	}
}

static int renew(struct manager *m, const struct party *p, const struct brought *b,
		 uint64_t until_ms, uint32_t *ret_n)
{
	const struct renew_which reads = { .receiver = p->id }, passes = { .upstream = p->id };
	uint32_t n = 0;
	int err = 0;

	if (b->encryption)
		err = renew_grants(m, &reads, 0, until_ms, ret_n);
	if (!err && b->unwrap_bytes)
		err = renew_grants(m, &passes, 0, until_ms, &n);
	*ret_n += n;
	return err;
}

static int rotate_keys(struct manager *m, const struct rotate_party *r, struct party *p)
{
	uint64_t until = rotate_overlap_end(m, r->overlap_hours);
	struct brought b = { 0 };
	char end[ROTATE_TIME_ROOM];
	uint32_t n = 0;
	int err = read_keys(m, r, p, &b);

	if (!err)
		err = drop_same(m, p, &b);
	if (!err)
		err = check(m, p, &b);
	if (err)
		return err;
	replace(p, &b, until);
	err = check_uses(m, p);
	if (!err)
		err = party_store(m, p);
	if (!err)
		err = renew(m, p, &b, until, &n);
	if (!err && b.signing)
		err = update_party(m, p->id);
	if (!err)
		err = manager_note(m, "rotate party", p->id, "");
	if (!err)
		(void)fprintf(m->out,
			      "rotated id=%s signing=%s encryption=%s unwrapping=%s grants=%u "
			      "old_until=%s\n",
			      p->id, b.signing ? "yes" : "no", b.encryption ? "yes" : "no",
			      b.unwrap_bytes ? "yes" : "no", n, rotate_time_text(until, end));
	return err;
}

int rotate_party(struct manager *m, const struct rotate_party *r)
{
	struct party p;
	int err = party_load(m, r->id, PARTY_ANY_ROLE, &p);

	if (err)
		return err;
	err = rotate_keys(m, r, &p);
	secret_wipe(&p, sizeof(p));
	return err;
}

/* --- admission keys ------------------------------------------------------------------------ */

static int rotate_one_admission(struct manager *m, struct party *p, uint64_t until_ms)
{
	char end[ROTATE_TIME_ROOM];
	int err = 0;

	if (p->has_previous_k_adm)
		err = rotate_check_overlap(m, "admission key of", p->id, "its previous one holds",
					   p->k_adm_until_ms);
	if (err)
		return err;
	p->has_previous_k_adm = true;
	memcpy(p->previous_k_adm, p->k_adm, sizeof(p->k_adm));
	p->k_adm_until_ms = until_ms;
	hash_random(p->k_adm, sizeof(p->k_adm));
	err = party_store(m, p);
	if (!err)
		(void)fprintf(m->out, "rotated admission=%s old_until=%s\n", p->id,
			      rotate_time_text(until_ms, end));
	return err;
}

/* The party whose id comes next; *ret_found false where there is none. */
static int next_party(struct manager *m, const char *after, struct party *ret_p, bool *ret_found)
{
	struct registry_query q = registry_query(
		&m->registry, "SELECT id FROM party WHERE id > ? ORDER BY id LIMIT 1");
	char id[MANAGER_ID_ROOM] = "";
	bool found;
	int err;

	registry_bind_text(&q, after);
	found = registry_step(&q);
	registry_text(&q, 0, id, sizeof(id));
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	*ret_found = false;
	return found ? party_find(m, id, ret_p, ret_found) : 0;
}

static int rotate_all_admissions(struct manager *m, struct party *p, uint64_t until_ms)
{
	char after[MANAGER_ID_ROOM] = "";
	bool found = true;
	int err = 0;

	while (!err) {
		err = next_party(m, after, p, &found);
		if (err || !found)
			break;
		(void)snprintf(after, sizeof(after), "%s", p->id);
		if (!(p->flags & RECORD_PARTY_CLAIM))
			err = rotate_one_admission(m, p, until_ms);
	}
	return err;
}

int rotate_admission(struct manager *m, const char *id, uint32_t overlap_hours)
{
	uint64_t until = rotate_overlap_end(m, overlap_hours);
	struct party p = { 0 };
	int err;

	if (id) {
		err = party_load(m, id, PARTY_ANY_ROLE, &p);
		if (!err && p.flags & RECORD_PARTY_CLAIM)
			err = manager_fail(m, -EINVAL,
					   "\"%s\": its admission key is in its claim code; claim "
					   "renew makes another",
					   id);
		if (!err)
			err = rotate_one_admission(m, &p, until);
	} else {
		err = rotate_all_admissions(m, &p, until);
	}
	secret_wipe(&p, sizeof(p));
	return err ? err : manager_note(m, "rotate admission", id ? id : "all", "");
}
