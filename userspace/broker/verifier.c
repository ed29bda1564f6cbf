// SPDX-License-Identifier: MIT
#include "userspace/broker/verifier.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/crypto/publish.h"

/* What holds for a whole batch: this signature stands for this root. */
struct root {
	uint64_t used; /* tick of the last use; 0: empty */
	uint8_t root[HASH_BYTES];
	uint8_t sig[P256_SIG_BYTES];
};

struct point {
	uint64_t used;
	uint8_t enc[P256_COMPRESSED_BYTES];
	struct p256_point point;
};

struct verifier {
	struct p256_point point; /* the party's */
	pthread_mutex_t lock;	 /* of all below */
	struct p256_public *key; /* of point, from its first use on */
	uint64_t tick;
	struct root roots[VERIFIER_ROOTS];
	struct point points[VERIFIER_POINTS];
	struct verifier_stats stats;
};

struct verifier *verifier_new(const struct p256_point *key)
{
	struct verifier *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->point = *key;
	pthread_mutex_init(&v->lock, NULL); /* cannot fail without attributes */
	return v;
}

void verifier_free(struct verifier *v)
{
	if (!v)
		return;
	p256_public_free(v->key);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

const struct p256_point *verifier_key(const struct verifier *v)
{
	return &v->point;
}

int verifier_digest(struct verifier *v, const uint8_t digest[HASH_BYTES],
		    const uint8_t sig[P256_SIG_BYTES])
{
	const struct p256_public *key;
	int err = 0;

	pthread_mutex_lock(&v->lock);
	v->stats.verifications++;
	if (!v->key)
		err = p256_public_new(&v->point, &v->key);
	key = v->key;
	pthread_mutex_unlock(&v->lock);
	return err ? err : p256_verify_digest(key, digest, sig);
}

/* --- roots ------------------------------------------------------------------------------------ */

/* With the lock held. NULL: it is not known. */
static struct root *root_find(struct verifier *v, const uint8_t root[HASH_BYTES],
			      const uint8_t sig[P256_SIG_BYTES])
{
	for (unsigned i = 0; i < VERIFIER_ROOTS; i++) {
		struct root *r = &v->roots[i];

		if (r->used && !memcmp(r->root, root, HASH_BYTES) &&
		    !memcmp(r->sig, sig, P256_SIG_BYTES))
			return r;
	}
	return NULL;
}

static bool root_known(struct verifier *v, const uint8_t root[HASH_BYTES],
		       const uint8_t sig[P256_SIG_BYTES])
{
	struct root *r;

	pthread_mutex_lock(&v->lock);
	r = root_find(v, root, sig);
	if (r) {
		r->used = ++v->tick;
		v->stats.root_hits++;
	}
	pthread_mutex_unlock(&v->lock);
	return r;
}

static void root_note(struct verifier *v, const uint8_t root[HASH_BYTES],
		      const uint8_t sig[P256_SIG_BYTES])
{
	struct root *oldest = &v->roots[0];

	pthread_mutex_lock(&v->lock);
	for (unsigned i = 1; i < VERIFIER_ROOTS; i++)
		if (v->roots[i].used < oldest->used)
			oldest = &v->roots[i];
	if (!root_find(v, root, sig)) { /* another thread was as quick */
		oldest->used = ++v->tick;
		memcpy(oldest->root, root, HASH_BYTES);
		memcpy(oldest->sig, sig, P256_SIG_BYTES);
	}
	pthread_mutex_unlock(&v->lock);
}

int verifier_root(struct verifier *v, const uint8_t root[HASH_BYTES],
		  const uint8_t sig[P256_SIG_BYTES])
{
	uint8_t digest[HASH_BYTES];
	int err;

	if (root_known(v, root, sig))
		return 0;
	publish_root_digest(root, digest);
	err = verifier_digest(v, digest, sig);
	if (!err)
		root_note(v, root, sig);
	return err;
}

/* --- points ----------------------------------------------------------------------------------- */

/* With the lock held. NULL: it is not known. */
static struct point *point_find(struct verifier *v, struct bytes enc)
{
	for (unsigned i = 0; i < VERIFIER_POINTS; i++) {
		struct point *p = &v->points[i];

		if (p->used && bytes_equal(enc, bytes_of(p->enc, sizeof(p->enc))))
			return p;
	}
	return NULL;
}

static bool point_known(struct verifier *v, struct bytes enc, struct p256_point *ret_point)
{
	struct point *p;

	pthread_mutex_lock(&v->lock);
	p = point_find(v, enc);
	if (p) {
		p->used = ++v->tick;
		*ret_point = p->point;
		v->stats.point_hits++;
	} else {
		v->stats.decompressions++;
	}
	pthread_mutex_unlock(&v->lock);
	return p;
}

static void point_note(struct verifier *v, struct bytes enc, const struct p256_point *point)
{
	struct point *oldest = &v->points[0];

	pthread_mutex_lock(&v->lock);
	for (unsigned i = 1; i < VERIFIER_POINTS; i++)
		if (v->points[i].used < oldest->used)
			oldest = &v->points[i];
	if (!point_find(v, enc)) {
		oldest->used = ++v->tick;
		memcpy(oldest->enc, enc.p, sizeof(oldest->enc));
		oldest->point = *point;
	}
	pthread_mutex_unlock(&v->lock);
}

int verifier_point(struct verifier *v, struct bytes enc, struct p256_point *ret_point)
{
	struct p256_point point;
	int err;

	if (point_known(v, enc, ret_point))
		return 0;
	err = p256_point_decompress(enc, &point); /* refuses another length */
	if (err)
		return err;
	point_note(v, enc, &point);
	*ret_point = point;
	return 0;
}

void verifier_stats(struct verifier *v, struct verifier_stats *ret_s)
{
	pthread_mutex_lock(&v->lock);
	*ret_s = v->stats;
	pthread_mutex_unlock(&v->lock);
}
