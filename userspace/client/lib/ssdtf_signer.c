// SPDX-License-Identifier: MIT
/*
 * Whose signatures a receiver checks: the keys that bundle and statements certify, made ready, and
 * the batch signatures that were verified already.
 *
 * A signer may have two keys for a while: an origin the one before, until it ends; the broker the
 * next one. Either will do.
 */
#include "userspace/client/lib/ssdtf.h"

#include <string.h>

#include "userspace/client/lib/ssdtf_private.h"

/* --- keys ------------------------------------------------------------------------------------- */

void ssdtf_signer_deinit(struct ssdtf_signer *s)
{
	p256_public_free(s->key);
	p256_public_free(s->other);
	memset(s, 0, sizeof(*s));
}

static int signer_init(const struct p256_point *key, const struct p256_point *other,
		       uint64_t other_until_ms, struct ssdtf_signer *ret_s)
{
	struct ssdtf_signer s = { .other_until_ms = other_until_ms };
	int ret = p256_public_new(key, &s.key);

	if (!ret && other)
		ret = p256_public_new(other, &s.other);
	if (ret) {
		ssdtf_signer_deinit(&s);
		return ret;
	}
	*ret_s = s;
	return 0;
}

int ssdtf_broker_take(struct ssdtf_client *c, const struct record_broker *b)
{
	struct ssdtf_signer s;
	int ret = signer_init(&b->signing, b->has_next ? &b->next : NULL, 0, &s);

	if (ret)
		return ret;
	ssdtf_signer_deinit(&c->broker);
	c->broker = s;
	c->broker_key = 0;
	hash_one(bytes_of(b->signing.b, P256_POINT_BYTES), c->broker_hashes[0]);
	hash_one(bytes_of(b->has_next ? b->next.b : b->signing.b, P256_POINT_BYTES),
		 c->broker_hashes[1]);
	/* What was remembered stood under the old keys. */
	ssdtf_signers_forget(c);
	return 0;
}

static struct ssdtf_key *key_slot(struct ssdtf_client *c)
{
	struct ssdtf_key *oldest = &c->keys[0];

	for (unsigned i = 0; i < SSDTF_KEYS_MAX; i++)
		if (c->keys[i].used < oldest->used)
			oldest = &c->keys[i];
	return oldest;
}

/* The record of id in the newest statement about it, or among the bundle's origins. Ids are
 * compared before a record is decoded, since decoding checks curve points. */
static int certified(const struct ssdtf_client *c, struct bytes id, struct record_party *ret_p)
{
	struct bytes_reader r = c->bundle.origins;
	struct bytes body;
	int ret;

	if (ssdtf_statement_of_party(c, id, &body)) {
		ret = record_party_decode(body, ret_p);
		return !ret && !ret_p->roles ? -ENOENT : ret;
	}

	for (unsigned i = 0; i < c->bundle.n_origins; i++) {
		struct bytes record = bytes_read_u32_view(&r);
		struct bytes_reader head = bytes_reader_of(record);

		if (bytes_equal(bytes_read_u8_view(&head), id))
			return record_party_decode(record, ret_p);
	}
	return -ENOENT;
}

/* -ENOENT: nobody certifies a key for id. */
static int origin_signer(struct ssdtf_client *c, struct bytes id, const struct ssdtf_signer **ret_s)
{
	struct ssdtf_signer s;
	struct record_party p;
	struct ssdtf_key *slot;
	int ret;

	for (unsigned i = 0; i < SSDTF_KEYS_MAX; i++) {
		if (!c->keys[i].used || !bytes_equal(c->keys[i].id, id))
			continue;
		c->keys[i].used = ++c->tick;
		*ret_s = &c->keys[i].signer;
		return 0;
	}
	ret = certified(c, id, &p);
	if (ret)
		return ret;
	ret = signer_init(&p.signing, p.has_previous ? &p.previous : NULL, p.previous_until_ms, &s);
	if (ret)
		return ret;
	slot = key_slot(c);
	ssdtf_signer_deinit(&slot->signer);
	slot->signer = s;
	slot->id = p.id;
	slot->used = ++c->tick;
	*ret_s = &slot->signer;
	return 0;
}

/* --- signatures ------------------------------------------------------------------------------- */

/*
 * The root commits to every input of its batch, so a known (root, signature, signer) proves any of
 * them by its path alone. The signer belongs to it: an origin's root is not the broker's. Ids stand
 * for keys here, since what is known is forgotten when an id's keys change; the broker's is the
 * empty one. What a key proves that is valid for a while is known as long.
 */
static void root_name(const uint8_t root[HASH_BYTES], struct bytes sig, struct bytes signer,
		      uint8_t ret_name[HASH_BYTES])
{
	struct bytes parts[] = { bytes_of(root, HASH_BYTES), sig, signer };

	hash_parts(parts, ARRAY_SIZE(parts), ret_name);
}

static bool root_known(struct ssdtf_client *c, const uint8_t name[HASH_BYTES], uint64_t now_ms)
{
	for (unsigned i = 0; i < SSDTF_ROOTS_MAX; i++) {
		struct ssdtf_root *r = &c->roots[i];

		if (!r->used || memcmp(r->name, name, HASH_BYTES) ||
		    !record_valid_at(0, r->until_ms, now_ms))
			continue;
		r->used = ++c->tick;
		return true;
	}
	return false;
}

/* In place of the one used longest ago. */
static void root_keep(struct ssdtf_client *c, const uint8_t name[HASH_BYTES], uint64_t until_ms)
{
	struct ssdtf_root *oldest = &c->roots[0];

	for (unsigned i = 1; i < SSDTF_ROOTS_MAX; i++)
		if (c->roots[i].used < oldest->used)
			oldest = &c->roots[i];
	memcpy(oldest->name, name, HASH_BYTES);
	oldest->until_ms = until_ms;
	oldest->used = ++c->tick;
}

/*
 * The signature alone, by either key; of the broker's keys by the one that it used last first.
 * *ret_until_ms is how long it holds.
 */
static int verify_digest(struct ssdtf_client *c, struct bytes signer, uint64_t now_ms,
			 const uint8_t digest[P256_DIGEST_BYTES], const uint8_t *sig,
			 uint64_t *ret_until_ms)
{
	const struct ssdtf_signer *s = &c->broker;
	unsigned first = signer.n ? 0 : c->broker_key;
	int ret = signer.n ? origin_signer(c, signer, &s) : 0;

	if (ret)
		return ret;
	ret = -EBADMSG;
	for (unsigned i = 0; i < 2 && ret == -EBADMSG; i++) {
		bool other = (first + i) % 2;

		if (other && (!s->other || !record_valid_at(0, s->other_until_ms, now_ms)))
			continue;
		c->stats.verifications++;
		ret = p256_verify_digest(other ? s->other : s->key, digest, sig);
		*ret_until_ms = other ? s->other_until_ms : 0;
		if (!ret && !signer.n)
			c->broker_key = other;
	}
	return ret;
}

int ssdtf_verify(struct ssdtf_client *c, const struct publish *p, const struct publish_trailer *t,
		 struct bytes signer, uint64_t now_ms)
{
	uint8_t root[HASH_BYTES], digest[HASH_BYTES], name[HASH_BYTES];
	uint64_t until_ms;
	int ret;

	if (t->kind == 1) {
		publish_digest(p, digest);
		return verify_digest(c, signer, now_ms, digest, t->sig.p, &until_ms);
	}
	publish_root(p, t, root);
	root_name(root, t->sig, signer, name);
	if (root_known(c, name, now_ms)) {
		c->stats.roots_reused++;
		return 0;
	}
	publish_root_digest(root, digest);
	ret = verify_digest(c, signer, now_ms, digest, t->sig.p, &until_ms);
	if (!ret)
		root_keep(c, name, until_ms);
	return ret;
}

void ssdtf_signers_forget(struct ssdtf_client *c)
{
	for (unsigned i = 0; i < SSDTF_KEYS_MAX; i++)
		ssdtf_signer_deinit(&c->keys[i].signer);
	memset(c->keys, 0, sizeof(c->keys));
	memset(c->roots, 0, sizeof(c->roots));
}
