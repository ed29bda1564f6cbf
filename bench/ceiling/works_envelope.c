// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "bench/ceiling/cast.h"
#include "bench/ceiling/works_crypto.h"
#include "userspace/base/log.h"
#include "userspace/crypto/publish.h"

#define LEAVES 64

/* --- digests ---------------------------------------------------------------------------------- */

struct digest_bed {
	struct cast_message *message;
	struct publish publish; /* into it */
	uint8_t nodes[2 * LEAVES + 16][HASH_BYTES];
};

static void digest(const struct work *w, unsigned runs)
{
	const struct digest_bed *b = w->bed;
	uint8_t hash[HASH_BYTES];

	while (runs--)
		publish_digest(&b->publish, hash);
}

static void leaf(const struct work *w, unsigned runs)
{
	const struct digest_bed *b = w->bed;
	uint8_t hash[HASH_BYTES];

	while (runs--)
		publish_leaf(&b->publish, hash);
}

static void build(const struct work *w, unsigned runs)
{
	struct digest_bed *b = w->bed;
	struct merkle m;

	while (runs--)
		merkle_build(&m, b->nodes, LEAVES);
}

static void prove_tree(struct digest_bed *b)
{
	uint8_t path[MERKLE_PATH_MAX][HASH_BYTES], root[HASH_BYTES];
	struct merkle m;

	BUG_ON(merkle_nodes(LEAVES) > ARRAY_SIZE(b->nodes));
	merkle_build(&m, b->nodes, LEAVES);
	merkle_path(&m, 5, path);
	merkle_root_from_path(b->nodes[5], 5, LEAVES,
			      bytes_of(path, HASH_BYTES * merkle_path_len(5, LEAVES)), root);
	work_prove(!memcmp(root, merkle_root(&m), HASH_BYTES), "a leaf's path leads to the root");
}

static struct digest_bed *digest_bed_new(unsigned bytes)
{
	struct digest_bed *b = calloc(1, sizeof(*b));
	const struct cast_message *m;

	if (!b)
		exit_with(EX_OSERR, "no memory");
	m = b->message = cast_messages(1, bytes, 1, 0);
	hash_random(b->nodes, sizeof(b->nodes));
	b->publish = (struct publish){
		.first = cast_first(),
		.topic = bytes_str(CAST_TOPIC),
		.body = { bytes_of(m->p, m->n - PUBLISH_TRAILER_1_BYTES) },
		.body_parts = 1,
		.client_id = bytes_str(CAST_DEVICE),
	};
	prove_tree(b);
	return b;
}

/* --- sealing and opening ---------------------------------------------------------------------- */

struct envelope_bed {
	const struct cast *cast;
	struct cast_message *message;
	uint8_t plain[CAST_PAYLOAD_BYTES];
	struct envelope_sender sender;
	struct envelope_receiver receiver;
	unsigned sender_left, receiver_left; /* messages of the context that is open */
	uint64_t counter;
	uint8_t raised[512];	  /* one message, converted */
	struct envelope envelope; /* into raised */
};

/* In the process that seals: a context does not outlive a fork. */
static void seal(const struct work *w, unsigned runs)
{
	struct envelope_bed *b = w->bed;
	uint8_t out[ENVELOPE_SEALED_BYTES(CAST_PAYLOAD_BYTES)];

	while (runs--) {
		if (!b->sender_left) {
			work_must(envelope_sender_init(&b->sender, HPKE_SUITE_AES_128_GCM,
						       CAST_KEY_ID, &b->cast->scope),
				  "a context");
			b->sender_left = w->context;
		}
		b->sender_left--;
		work_must(envelope_seal(&b->sender, ++b->counter, 0, bytes_str(CAST_DEVICE),
					bytes_str(CAST_TOPIC), bytes_of(b->plain, sizeof(b->plain)),
					out),
			  "sealing");
	}
}

static void receiver_open(struct envelope_bed *b)
{
	struct secret32 dh SECRET = { 0 };

	work_must(grant_dh(&b->cast->d, b->envelope.x.p, &dh), "a Diffie-Hellman value");
	work_must(envelope_receiver_init(&b->receiver, &b->envelope, &dh, &b->cast->scope),
		  "a context");
}

static void open_message(const struct work *w, unsigned runs)
{
	struct envelope_bed *b = w->bed;
	uint8_t out[CAST_PAYLOAD_BYTES];

	while (runs--) {
		if (!b->receiver_left) {
			receiver_open(b);
			b->receiver_left = w->context;
		}
		b->receiver_left--;
		work_must(envelope_receiver_open(&b->receiver, &b->envelope, out), "opening");
	}
}

static void raise_one(struct envelope_bed *b)
{
	struct bytes_writer w = bytes_writer_of(b->raised, sizeof(b->raised));
	uint8_t x[P256_X_BYTES];
	struct envelope_block block = {
		.grant = bytes_of(b->cast->terms.grant_id, GRANT_ID_BYTES),
		.x = bytes_of(x, sizeof(x)),
		.origin = bytes_str(CAST_DEVICE),
	};
	struct p256_point enc;
	struct envelope e;

	b->message = cast_messages(1, CAST_PAYLOAD_BYTES, 1, 0);
	cast_parse(b->message, &e, &enc);
	work_must(grant_convert(&b->cast->rk, &enc, x), "conversion");
	envelope_raise_head(&e, &block, &w);
	bytes_write(&w, e.ct);
	work_prove(!w.bad && !envelope_parse(bytes_of(b->raised, w.used), &b->envelope),
		   "a converted envelope");
}

static void prove_opening(struct envelope_bed *b)
{
	uint8_t out[CAST_PAYLOAD_BYTES];

	receiver_open(b);
	work_prove(!envelope_receiver_open(&b->receiver, &b->envelope, out),
		   "what is converted opens");
	b->raised[b->envelope.whole.n - 1] ^= 1;
	work_prove(envelope_receiver_open(&b->receiver, &b->envelope, out),
		   "what was altered does not");
	b->raised[b->envelope.whole.n - 1] ^= 1;
}

static void add_envelope(struct works *w, unsigned context)
{
	struct envelope_bed *b = calloc(1, sizeof(*b));
	struct work *work;

	if (!b)
		exit_with(EX_OSERR, "no memory");
	b->cast = cast_get();
	hash_random(b->plain, sizeof(b->plain));
	raise_one(b);
	prove_opening(b);
	work = works_add(w, "envelope seal", seal, b);
	work->context = context;
	work->bytes = CAST_PAYLOAD_BYTES;
	work = works_add(w, "envelope open", open_message, b);
	work->context = context;
	work->bytes = CAST_PAYLOAD_BYTES;
}

void works_envelope(struct works *w)
{
	struct digest_bed *b = digest_bed_new(CAST_PAYLOAD_BYTES);
	struct work *tree;

	w->part = "messages";
	works_add(w, "publish digest", digest, b)->bytes = CAST_PAYLOAD_BYTES;
	works_add(w, "publish leaf", leaf, b)->bytes = CAST_PAYLOAD_BYTES;
	tree = works_add(w, "merkle build", build, b);
	tree->batch = tree->each = LEAVES;
	add_envelope(w, 1);
	add_envelope(w, CAST_CONTEXT);
}
