// SPDX-License-Identifier: MIT
/*
 * What the broker does to have deliveries signed and to write them out, as its signer does: for
 * each its converted head and its leaf, the tree over all, one signature, and then header, head,
 * ciphertext and trailer into a connection's output. A delivery's origin proof is in its head. Each
 * is to another receiver; converted before.
 */
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "bench/ceiling/cast.h"
#include "bench/ceiling/works_crypto.h"
#include "bench/ceiling/works_token.h"
#include "userspace/base/log.h"
#include "userspace/crypto/publish.h"
#include "userspace/mqtt/packet.h"

#define BATCH_MAX    256
#define MESSAGES     64
#define ID_BYTES     24
#define PROOF_BYTES  (1 + 2 + PUBLISH_TRAILER_1_BYTES)
#define HEAD_BYTES   512
#define PACKET_BYTES 2048

static const unsigned batches[] = { 1, 8, 64, BATCH_MAX };

struct delivery {
	struct envelope envelope; /* the message's, at level 0 */
	struct bytes trailer;	  /* of its sender */
	char receiver[ID_BYTES];
	uint8_t x[P256_X_BYTES];
};

struct bed {
	struct token_bed *token; /* NULL: none */
	struct p256_private *key;
	struct p256_public *public;
	struct cast_message *messages;
	struct delivery deliveries[BATCH_MAX]; /* into them */
	uint8_t nodes[2 * BATCH_MAX + MERKLE_PATH_MAX][HASH_BYTES];
	uint8_t packet[PACKET_BYTES]; /* the last one */
	size_t packet_n;
};

enum signature { UNSIGNED, IN_PROCESS, IN_TOKEN };

static struct bytes head_of(const struct delivery *d, uint8_t head[HEAD_BYTES])
{
	uint8_t proof[PROOF_BYTES];
	struct bytes_writer p = bytes_writer_of(proof, sizeof(proof));
	struct bytes_writer w = bytes_writer_of(head, HEAD_BYTES);
	struct envelope_block block = {
		.grant = bytes_of(cast_get()->terms.grant_id, GRANT_ID_BYTES),
		.x = bytes_of(d->x, P256_X_BYTES),
		.origin = bytes_str(CAST_DEVICE),
	};

	publish_write_proof(cast_first(), bytes_of(NULL, 0), d->trailer, &p);
	block.proof = bytes_of(proof, p.used);
	envelope_raise_head(&d->envelope, &block, &w);
	BUG_ON(p.bad || w.bad);
	return bytes_of(head, w.used);
}

static struct publish publish_of(const struct delivery *d, struct bytes head)
{
	return (struct publish){
		.first = mqtt_publish_first(1, false, false),
		.topic = bytes_str(CAST_TOPIC),
		.body = { head, d->envelope.ct },
		.body_parts = 2,
		.client_id = bytes_str(d->receiver),
	};
}

/* What is to be signed for all n. */
static void digest_of(struct bed *b, unsigned n, struct merkle *ret_m, uint8_t digest[HASH_BYTES])
{
	uint8_t head[HEAD_BYTES];

	for (unsigned i = 0; i < n; i++) {
		const struct delivery *d = &b->deliveries[i];
		const struct publish p = publish_of(d, head_of(d, head));

		if (n == 1) {
			publish_digest(&p, digest);
			return;
		}
		publish_leaf(&p, b->nodes[i]);
	}
	merkle_build(ret_m, b->nodes, (uint16_t)n);
	publish_root_digest(merkle_root(ret_m), digest);
}

static void write_out(struct bed *b, unsigned i, unsigned n, const struct merkle *m,
		      const uint8_t sig[P256_SIG_BYTES])
{
	const struct delivery *d = &b->deliveries[i];
	uint8_t head_buf[HEAD_BYTES];
	struct bytes head = head_of(d, head_buf);
	size_t payload =
		head.n + d->envelope.ct.n +
		(n == 1 ? PUBLISH_TRAILER_1_BYTES
			: PUBLISH_TRAILER_2_BYTES(merkle_path_len((uint16_t)i, (uint16_t)n)));
	const struct mqtt_publish p = { .qos = 1, .packet_id = 1, .topic = bytes_str(CAST_TOPIC) };
	struct bytes_writer w = bytes_writer_of(b->packet, sizeof(b->packet));

	mqtt_encode_publish_head(&p, payload, &w);
	bytes_write(&w, head);
	bytes_write(&w, d->envelope.ct);
	if (n == 1)
		publish_write_trailer_1(sig, &w);
	else
		publish_write_trailer_2(sig, m, (uint16_t)i, &w);
	BUG_ON(w.bad);
	b->packet_n = w.used;
}

static void one_batch(struct bed *b, unsigned n, enum signature signature)
{
	uint8_t digest[HASH_BYTES], sig[P256_SIG_BYTES] = { 0 };
	struct merkle m = { 0 };

	digest_of(b, n, &m, digest);
	switch (signature) {
	case UNSIGNED:
		break;
	case IN_PROCESS:
		work_must(p256_sign_digest(b->key, digest, sig), "signing");
		break;
	case IN_TOKEN:
		token_bed_must(b->token, token_sign(b->token->t, TOKEN_LABEL_SIGN, digest, sig));
		break;
	}
	for (unsigned i = 0; i < n; i++)
		write_out(b, i, n, &m, sig);
}

static void egress(const struct work *w, unsigned runs)
{
	while (runs--)
		one_batch(w->bed, w->batch, UNSIGNED);
}

static void egress_signed(const struct work *w, unsigned runs)
{
	while (runs--)
		one_batch(w->bed, w->batch, IN_PROCESS);
}

static void egress_token(const struct work *w, unsigned runs)
{
	while (runs--)
		one_batch(w->bed, w->batch, IN_TOKEN);
}

/* The last packet of a batch of n is what its receiver takes. */
static void prove(struct bed *b, unsigned n)
{
	const struct delivery *d = &b->deliveries[n - 1];
	struct publish_trailer t;
	struct mqtt_frame frame;
	struct mqtt_publish p;
	struct publish publish;
	struct envelope e;
	size_t used, need;

	one_batch(b, n, IN_PROCESS);
	work_prove(mqtt_frame_next(bytes_of(b->packet, b->packet_n), sizeof(b->packet), &frame,
				   &used, &need) == MQTT_OK &&
			   used == b->packet_n && mqtt_decode_publish(&frame, &p) == MQTT_OK,
		   "a delivery is a PUBLISH");
	work_prove(!publish_split(p.payload, &t) && !envelope_parse(t.body, &e) && e.level == 1 &&
			   bytes_equal(e.x, bytes_of(d->x, P256_X_BYTES)),
		   "a delivery is at level 1");
	publish = (struct publish){
		.first = mqtt_publish_first(1, false, false),
		.topic = p.topic,
		.body = { t.body },
		.body_parts = 1,
		.client_id = bytes_str(d->receiver),
	};
	work_prove(!publish_verify(&publish, &t, b->public), "a delivery's signature");
	publish.client_id = bytes_str("another");
	work_prove(publish_verify(&publish, &t, b->public), "a signature for another receiver");
}

static void deliveries_make(struct bed *b)
{
	struct p256_point enc;

	b->messages = cast_messages(MESSAGES, CAST_PAYLOAD_BYTES, MESSAGES, 0);
	for (unsigned i = 0; i < BATCH_MAX; i++) {
		struct delivery *d = &b->deliveries[i];
		const struct cast_message *from = &b->messages[i % MESSAGES];

		cast_parse(from, &d->envelope, &enc);
		d->trailer = bytes_of(from->p + from->n - PUBLISH_TRAILER_1_BYTES,
				      PUBLISH_TRAILER_1_BYTES);
		snprintf(d->receiver, sizeof(d->receiver), "receiver-%03u", i);
		if (!i)
			work_must(grant_convert(&cast_get()->rk, &enc, d->x), "conversion");
		else
			memcpy(d->x, b->deliveries[0].x, sizeof(d->x));
	}
}

void works_egress(struct works *w, struct token_bed *token)
{
	struct bed *b = calloc(1, sizeof(*b));
	struct secret32 key SECRET = { 0 };
	struct p256_point public;

	w->part = "egress, a delivery";
	if (!b)
		exit_with(EX_OSERR, "no memory");
	BUG_ON(merkle_nodes(BATCH_MAX) > ARRAY_SIZE(b->nodes));
	b->token = token;
	work_must(p256_scalar_random(&key), "a key");
	work_must(p256_private_new(&key, &b->key), "a key");
	p256_private_point(b->key, &public);
	work_must(p256_public_new(&public, &b->public), "a public key");
	deliveries_make(b);
	for (unsigned i = 0; i < ARRAY_SIZE(batches); i++)
		prove(b, batches[i]);
	for (unsigned i = 0; i < ARRAY_SIZE(batches); i++) {
		struct work *work = works_add(w, "egress", egress, b);

		work->batch = work->each = batches[i];
		work = works_add(w, "egress signed", egress_signed, b);
		work->batch = work->each = batches[i];
		if (!token)
			continue;
		work = works_add(w, "egress token", egress_token, b);
		work->batch = work->each = batches[i];
	}
}
