// SPDX-License-Identifier: MIT
/*
 * Whose signatures a receiver checks: the keys that the bundle certifies, made ready, and the batch
 * signatures that were verified already.
 */
#include "userspace/client/lib/ssdtf.h"

#include <string.h>

#include "userspace/client/lib/ssdtf_private.h"

/* --- keys of origins -------------------------------------------------------------------------- */

static struct ssdtf_key *key_slot(struct ssdtf_client *c)
{
	struct ssdtf_key *oldest = &c->keys[0];

	for (unsigned i = 0; i < SSDTF_KEYS_MAX; i++)
		if (c->keys[i].used < oldest->used)
			oldest = &c->keys[i];
	return oldest;
}

/* The record of id among the bundle's origins. Ids are compared before a record is decoded, since
 * decoding checks curve points. */
static int certified(const struct ssdtf_client *c, struct bytes id, struct record_party *ret_p)
{
	struct bytes_reader r = c->bundle.origins;

	for (unsigned i = 0; i < c->bundle.n_origins; i++) {
		struct bytes record = bytes_read_u32_view(&r);
		struct bytes_reader head = bytes_reader_of(record);

		if (bytes_equal(bytes_read_u8_view(&head), id))
			return record_party_decode(record, ret_p);
	}
	return -ENOENT;
}

int ssdtf_key_of(struct ssdtf_client *c, struct bytes id, const struct p256_public **ret_key)
{
	struct p256_public *key;
	struct record_party p;
	struct ssdtf_key *slot;
	int ret;

	for (unsigned i = 0; i < SSDTF_KEYS_MAX; i++) {
		if (!c->keys[i].key || !bytes_equal(c->keys[i].id, id))
			continue;
		c->keys[i].used = ++c->tick;
		*ret_key = c->keys[i].key;
		return 0;
	}
	ret = certified(c, id, &p);
	if (ret)
		return ret;
	ret = p256_public_new(&p.signing, &key);
	if (ret)
		return ret;
	slot = key_slot(c);
	p256_public_free(slot->key);
	slot->key = key;
	slot->id = p.id;
	slot->used = ++c->tick;
	*ret_key = key;
	return 0;
}

/* --- signatures ------------------------------------------------------------------------------- */

/*
 * The root commits to every input of its batch, so a known (root, signature, signer) proves any of
 * them by its path alone. The signer belongs to it: an origin's root is not the broker's. Ids stand
 * for keys here, since within a bundle an id has one key; the broker's is the empty one.
 */
static void root_name(const uint8_t root[HASH_BYTES], struct bytes sig, struct bytes signer,
		      uint8_t ret_name[HASH_BYTES])
{
	struct bytes parts[] = { bytes_of(root, HASH_BYTES), sig, signer };

	hash_parts(parts, ARRAY_SIZE(parts), ret_name);
}

static bool root_known(struct ssdtf_client *c, const uint8_t name[HASH_BYTES])
{
	for (unsigned i = 0; i < SSDTF_ROOTS_MAX; i++) {
		if (!c->roots[i].used || memcmp(c->roots[i].name, name, HASH_BYTES))
			continue;
		c->roots[i].used = ++c->tick;
		return true;
	}
	return false;
}

/* In place of the one used longest ago. */
static void root_keep(struct ssdtf_client *c, const uint8_t name[HASH_BYTES])
{
	struct ssdtf_root *oldest = &c->roots[0];

	for (unsigned i = 1; i < SSDTF_ROOTS_MAX; i++)
		if (c->roots[i].used < oldest->used)
			oldest = &c->roots[i];
	memcpy(oldest->name, name, HASH_BYTES);
	oldest->used = ++c->tick;
}

/* The key is looked for only where it is needed: not for what a known root proves. */
static int key_of_signer(struct ssdtf_client *c, struct bytes signer,
			 const struct p256_public **ret_key)
{
	if (signer.n)
		return ssdtf_key_of(c, signer, ret_key);
	*ret_key = c->broker;
	return 0;
}

static int verify_batch(struct ssdtf_client *c, const struct publish *p,
			const struct publish_trailer *t, struct bytes signer)
{
	uint8_t root[HASH_BYTES], digest[HASH_BYTES], name[HASH_BYTES];
	const struct p256_public *key;
	int ret;

	publish_root(p, t, root);
	root_name(root, t->sig, signer, name);
	if (root_known(c, name)) {
		c->stats.roots_reused++;
		return 0;
	}
	ret = key_of_signer(c, signer, &key);
	if (ret)
		return ret;
	publish_root_digest(root, digest);
	c->stats.verifications++;
	ret = p256_verify_digest(key, digest, t->sig.p);
	if (!ret)
		root_keep(c, name);
	return ret;
}

int ssdtf_verify(struct ssdtf_client *c, const struct publish *p, const struct publish_trailer *t,
		 struct bytes signer)
{
	const struct p256_public *key;
	int ret;

	if (t->kind != 1)
		return verify_batch(c, p, t, signer);
	ret = key_of_signer(c, signer, &key);
	if (ret)
		return ret;
	c->stats.verifications++;
	return publish_verify(p, t, key);
}

void ssdtf_signers_forget(struct ssdtf_client *c)
{
	for (unsigned i = 0; i < SSDTF_KEYS_MAX; i++)
		p256_public_free(c->keys[i].key);
	memset(c->keys, 0, sizeof(c->keys));
	memset(c->roots, 0, sizeof(c->roots));
}
