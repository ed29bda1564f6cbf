// SPDX-License-Identifier: MIT
#include "bench/ceiling/cast.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "bench/ceiling/work.h"
#include "userspace/base/log.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/publish.h"
#include "userspace/mqtt/packet.h"

#define TIME_MS 1764115200000 /* some time */

static void random_pair(struct secret32 *ret_k, struct p256_point *ret_p)
{
	work_must(p256_scalar_random(ret_k), "a key");
	work_must(p256_mul_base(ret_k, ret_p), "its point");
}

static void make(struct cast *c)
{
	struct secret32 x SECRET = { 0 }, key SECRET = { 0 };

	random_pair(&c->a, &c->scope);
	random_pair(&c->b, &c->terms.b);
	random_pair(&x, &c->terms.x);
	hash_random(c->terms.grant_id, sizeof(c->terms.grant_id));
	c->terms.key_id = CAST_KEY_ID;
	work_must(grant_secret_manager(&c->terms, &x, &c->d), "a grant");
	work_must(grant_conversion_key(&c->a, &c->d, &c->rk), "a conversion key");
	random_pair(&key, &c->device_public);
	work_must(p256_private_new(&key, &c->device), "a signing key");
}

const struct cast *cast_get(void)
{
	static struct cast cast;

	if (!cast.device)
		make(&cast);
	return &cast;
}

uint8_t cast_first(void)
{
	return mqtt_publish_first(1, false, false);
}

/* --- messages --------------------------------------------------------------------------------- */

static struct publish publish_of(const struct cast_message *m)
{
	return (struct publish){
		.first = cast_first(),
		.topic = bytes_str(CAST_TOPIC),
		.body = { bytes_of(m->p, m->n) },
		.body_parts = 1,
		.client_id = bytes_str(CAST_DEVICE),
	};
}

static void seal(struct cast_message *m, struct envelope_sender *s, unsigned bytes)
{
	static uint64_t counter;
	uint8_t *plain = malloc(bytes);

	m->n = ENVELOPE_SEALED_BYTES(bytes);
	m->p = malloc(m->n + PUBLISH_TRAILER_BYTES_MAX);
	if (!plain || !m->p)
		exit_with(EX_OSERR, "no memory");
	hash_random(plain, bytes);
	work_must(envelope_seal(s, ++counter, TIME_MS, bytes_str(CAST_DEVICE),
				bytes_str(CAST_TOPIC), bytes_of(plain, bytes), m->p),
		  "sealing");
	free(plain);
}

static void sign_one(const struct cast *c, struct cast_message *m)
{
	const struct publish p = publish_of(m);

	work_must(publish_sign(&p, c->device, m->p + m->n), "signing");
	m->n += PUBLISH_TRAILER_1_BYTES;
}

static void sign_batch(const struct cast *c, struct cast_message *m, unsigned n)
{
	uint8_t(*nodes)[HASH_BYTES] = calloc(merkle_nodes((uint16_t)n), HASH_BYTES);
	uint8_t digest[HASH_BYTES], sig[P256_SIG_BYTES];
	struct merkle tree;

	if (!nodes)
		exit_with(EX_OSERR, "no memory");
	for (unsigned i = 0; i < n; i++) {
		const struct publish p = publish_of(&m[i]);

		publish_leaf(&p, nodes[i]);
	}
	merkle_build(&tree, nodes, (uint16_t)n);
	publish_root_digest(merkle_root(&tree), digest);
	work_must(p256_sign_digest(c->device, digest, sig), "signing");
	for (unsigned i = 0; i < n; i++) {
		struct bytes_writer w = bytes_writer_of(m[i].p + m[i].n, PUBLISH_TRAILER_BYTES_MAX);

		publish_write_trailer_2(sig, &tree, (uint16_t)i, &w);
		m[i].n += w.used;
	}
	free(nodes);
}

struct cast_message *cast_messages(unsigned n, unsigned bytes, unsigned context, unsigned batch)
{
	const struct cast *c = cast_get();
	struct cast_message *m = calloc(n, sizeof(*m));
	struct envelope_sender s = { 0 };

	BUG_ON(!context || (batch && n % batch));
	if (!m)
		exit_with(EX_OSERR, "no memory");
	for (unsigned i = 0; i < n; i++) {
		if (i % context == 0)
			work_must(envelope_sender_init(&s, HPKE_SUITE_AES_128_GCM, CAST_KEY_ID,
						       &c->scope),
				  "a context");
		seal(&m[i], &s, bytes);
		if (!batch)
			sign_one(c, &m[i]);
		else if (i % batch == batch - 1)
			sign_batch(c, &m[i + 1 - batch], batch);
	}
	envelope_sender_deinit(&s);
	return m;
}

void cast_parse(const struct cast_message *m, struct envelope *ret_e, struct p256_point *ret_enc)
{
	struct publish_trailer t;

	work_must(publish_split(bytes_of(m->p, m->n), &t), "a trailer");
	work_must(envelope_parse(t.body, ret_e), "an envelope");
	work_must(p256_point_decompress(ret_e->enc, ret_enc), "its point");
}
