// SPDX-License-Identifier: MIT
#include "userspace/crypto/publish.h"

#include <errno.h>
#include <string.h>

#include "userspace/crypto/hash.h"

#define LABEL		"ssdtf-publish-1"
#define LABEL_BATCH	"ssdtf-batch-1"
#define KIND_SINGLE	1
#define KIND_BATCH	2
#define KIND_ZK		3
#define FIRST_DUP	0x08 /* MQTT 3.3.1.1 */
#define FIRST_TYPE_MASK 0xf0
#define FIRST_PUBLISH	0x30
#define FIRST_QOS_MASK	0x06
#define BODY_HEAD_BYTES (ENVELOPE_FIXED_BYTES - 1)

/* --- what is signed -------------------------------------------------------------------------- */

/* label, first and topic length, topic, properties length, properties, body length, body, client id
 * length, client id */
#define PARTS_MAX (8 + PUBLISH_BODY_PARTS_MAX)

/* The input as views, the numbers between them in memory of its own. */
struct input {
	uint8_t first_topic[1 + 2], properties[4], body[4], client_id[2];
	struct bytes parts[PARTS_MAX];
	size_t n;
};

static void input_add(struct input *in, struct bytes part)
{
	in->parts[in->n++] = part;
}

static void input_init(struct input *in, const struct publish *p)
{
	size_t body_n = 0;

	BUG_ON(p->body_parts > PUBLISH_BODY_PARTS_MAX);
	for (unsigned i = 0; i < p->body_parts; i++)
		body_n += p->body[i].n;
	/* MQTT's own limits, which its decoder has kept: 16-bit strings, 28-bit packets. */
	BUG_ON(p->topic.n > UINT16_MAX || p->client_id.n > UINT16_MAX);
	BUG_ON(p->properties.n > UINT32_MAX || body_n > UINT32_MAX);
	in->first_topic[0] = p->first & (uint8_t)~FIRST_DUP;
	bytes_store_u16(in->first_topic + 1, (uint16_t)p->topic.n);
	bytes_store_u32(in->properties, (uint32_t)p->properties.n);
	bytes_store_u32(in->body, (uint32_t)body_n);
	bytes_store_u16(in->client_id, (uint16_t)p->client_id.n);

	in->n = 0;
	input_add(in, bytes_str(LABEL));
	input_add(in, bytes_of(in->first_topic, sizeof(in->first_topic)));
	input_add(in, p->topic);
	input_add(in, bytes_of(in->properties, sizeof(in->properties)));
	input_add(in, p->properties);
	input_add(in, bytes_of(in->body, sizeof(in->body)));
	for (unsigned i = 0; i < p->body_parts; i++)
		input_add(in, p->body[i]);
	input_add(in, bytes_of(in->client_id, sizeof(in->client_id)));
	input_add(in, p->client_id);
}

void publish_digest(const struct publish *p, uint8_t out[HASH_BYTES])
{
	struct input in;

	input_init(&in, p);
	hash_parts(in.parts, in.n, out);
}

void publish_leaf(const struct publish *p, uint8_t out[HASH_BYTES])
{
	struct input in;

	_Static_assert(PARTS_MAX <= MERKLE_LEAF_PARTS_MAX, "an input is one leaf");
	input_init(&in, p);
	merkle_leaf(in.parts, in.n, out);
}

void publish_root_digest(const uint8_t root[HASH_BYTES], uint8_t out[HASH_BYTES])
{
	struct bytes parts[] = { bytes_str(LABEL_BATCH), bytes_of(root, HASH_BYTES) };

	hash_parts(parts, ARRAY_SIZE(parts), out);
}

void publish_input(const struct publish *p, struct bytes_writer *w)
{
	struct input in;

	input_init(&in, p);
	for (size_t i = 0; i < in.n; i++)
		bytes_write(w, in.parts[i]);
}

/* --- trailers -------------------------------------------------------------------------------- */

/* The last n bytes of v, where it has so many; else nothing. */
static struct bytes_reader last(struct bytes v, size_t n)
{
	struct bytes_reader r = bytes_reader_of(v);

	(void)bytes_read_view(&r, n > v.n ? v.n : v.n - n); /* stepped over */
	return r;
}

/* How long the trailer at the end of payload is, as its last bytes say. 0: it is none. */
static size_t trailer_bytes(struct bytes payload, struct publish_trailer *t)
{
	struct bytes_reader r = last(payload, 1);

	t->kind = bytes_read_u8(&r);
	if (t->kind == KIND_SINGLE)
		return PUBLISH_TRAILER_1_BYTES;
	if (t->kind != KIND_BATCH)
		return 0;
	r = last(payload, 2 + 2 + 1);
	t->index = bytes_read_u16(&r);
	t->size = bytes_read_u16(&r);
	if (r.bad || t->index >= t->size) /* a size of 0 too */
		return 0;
	return PUBLISH_TRAILER_2_BYTES(merkle_path_len(t->index, t->size));
}

int publish_split(struct bytes payload, struct publish_trailer *ret_t)
{
	struct publish_trailer t = { 0 };
	size_t n = trailer_bytes(payload, &t);
	struct bytes_reader r = bytes_reader_of(payload);

	if (n == 0 || n > payload.n)
		return -EBADMSG;
	t.body = bytes_read_view(&r, payload.n - n);
	t.trailer = bytes_of(r.p, r.left);
	t.sig = bytes_read_view(&r, P256_SIG_BYTES);
	if (t.kind == KIND_BATCH)
		t.path = bytes_read_view(&r, n - PUBLISH_TRAILER_2_BYTES(0));
	if (r.bad)
		return -EBADMSG;
	*ret_t = t;
	return 0;
}

void publish_root(const struct publish *p, const struct publish_trailer *t,
		  uint8_t ret_root[HASH_BYTES])
{
	uint8_t leaf[HASH_BYTES];

	publish_leaf(p, leaf);
	merkle_root_from_path(leaf, t->index, t->size, t->path, ret_root);
}

/* The signature alone; whether a batch may stand there is the callers' matter. */
static int verify(const struct publish *p, const struct publish_trailer *t,
		  const struct p256_public *key)
{
	uint8_t hash[HASH_BYTES];

	if (t->kind == KIND_SINGLE) {
		publish_digest(p, hash);
	} else {
		publish_root(p, t, hash);
		publish_root_digest(hash, hash);
	}
	return p256_verify_digest(key, hash, t->sig.p);
}

int publish_verify(const struct publish *p, const struct publish_trailer *t,
		   const struct p256_public *key)
{
	struct envelope e;

	/* PROTOCOL 4: a sibling's hash must not betray a guessable message. */
	if (t->kind == KIND_BATCH && (p->body_parts != 1 || envelope_parse(p->body[0], &e)))
		return -EBADMSG;
	return verify(p, t, key);
}

void publish_write_trailer_1(const uint8_t sig[P256_SIG_BYTES], struct bytes_writer *w)
{
	bytes_write(w, bytes_of(sig, P256_SIG_BYTES));
	bytes_write_u8(w, KIND_SINGLE);
}

void publish_write_trailer_2(const uint8_t sig[P256_SIG_BYTES], const struct merkle *m,
			     uint16_t index, struct bytes_writer *w)
{
	uint8_t path[MERKLE_PATH_MAX][HASH_BYTES];

	merkle_path(m, index, path);
	bytes_write(w, bytes_of(sig, P256_SIG_BYTES));
	bytes_write(w, bytes_of(path, HASH_BYTES * merkle_path_len(index, m->size)));
	bytes_write_u16(w, index);
	bytes_write_u16(w, m->size);
	bytes_write_u8(w, KIND_BATCH);
}

int publish_sign(const struct publish *p, const struct p256_private *key,
		 uint8_t ret_trailer[PUBLISH_TRAILER_1_BYTES])
{
	struct bytes_writer w = bytes_writer_of(ret_trailer, PUBLISH_TRAILER_1_BYTES);
	uint8_t hash[HASH_BYTES], sig[P256_SIG_BYTES];
	int err;

	publish_digest(p, hash);
	err = p256_sign_digest(key, hash, sig);
	if (!err)
		publish_write_trailer_1(sig, &w);
	return err;
}

/* --- SSDTF-ZK-1 ------------------------------------------------------------------------------ */

int publish_split_zk(struct bytes payload, struct publish_trailer *ret_t)
{
	struct publish_trailer t = { .kind = KIND_ZK };
	struct bytes_reader r = bytes_reader_of(payload);

	if (payload.n < PUBLISH_TRAILER_3_BYTES)
		return -EBADMSG;
	t.body = bytes_read_view(&r, payload.n - PUBLISH_TRAILER_3_BYTES);
	t.trailer = bytes_of(r.p, r.left);
	t.sig = bytes_read_view(&r, SCHNORR_PROOF_BYTES);
	if (bytes_read_u8(&r) != KIND_ZK || !bytes_read_done(&r))
		return -EBADMSG;
	*ret_t = t;
	return 0;
}

int publish_verify_zk(const struct publish *p, const struct publish_trailer *t,
		      const struct p256_point *key)
{
	struct input in;

	_Static_assert(PARTS_MAX <= SCHNORR_INPUT_PARTS_MAX, "an input can be proved");
	if (t->kind != KIND_ZK)
		return -EBADMSG;
	input_init(&in, p);
	return schnorr_verify(key, in.parts, in.n, t->sig.p);
}

int publish_prove_zk(const struct publish *p, const struct secret32 *key,
		     const struct p256_point *public, uint8_t ret_trailer[PUBLISH_TRAILER_3_BYTES])
{
	struct input in;
	int err;

	input_init(&in, p);
	err = schnorr_prove(key, public, in.parts, in.n, ret_trailer);
	if (!err)
		ret_trailer[SCHNORR_PROOF_BYTES] = KIND_ZK;
	return err;
}

/* --- origin proof ---------------------------------------------------------------------------- */

size_t publish_proof_bytes(struct bytes properties, struct bytes trailer)
{
	return 1 + 2 + properties.n + trailer.n;
}

void publish_write_proof(uint8_t first, struct bytes properties, struct bytes trailer,
			 struct bytes_writer *w)
{
	bytes_write_u8(w, first & (uint8_t)~FIRST_DUP);
	bytes_write_u16_view(w, properties);
	bytes_write(w, trailer);
}

/* A PUBLISH with DUP = 0 and a QoS that exists: the only form that a sender signs. */
static bool first_is_signable(uint8_t first)
{
	return (first & (FIRST_TYPE_MASK | FIRST_DUP)) == FIRST_PUBLISH &&
	       (first & FIRST_QOS_MASK) != FIRST_QOS_MASK;
}

int publish_take_proof(const struct envelope *e, struct bytes topic, struct publish *ret_p,
		       struct publish_trailer *ret_t)
{
	static const uint8_t level_0;
	struct bytes_reader r = bytes_reader_of(e->proof);
	struct publish p = {
		.topic = topic,
		.body = { bytes_of(e->whole.p, BODY_HEAD_BYTES), bytes_of(&level_0, 1), e->ct },
		.body_parts = 3,
		.client_id = e->origin,
	};
	struct publish_trailer t;

	if (e->proof.n == 0)
		return -ENOENT;
	p.first = bytes_read_u8(&r);
	p.properties = bytes_read_u16_view(&r);
	if (r.bad || !first_is_signable(p.first))
		return -EBADMSG;
	/* The trailer is all that is left. */
	if (publish_split(bytes_read_rest(&r), &t) || t.body.n)
		return -EBADMSG;
	*ret_p = p;
	*ret_t = t;
	return 0;
}

int publish_check_proof(const struct envelope *e, struct bytes topic,
			const struct p256_public *origin_key, uint8_t *ret_first,
			struct bytes *ret_properties)
{
	struct publish_trailer t;
	struct publish p;
	int err = publish_take_proof(e, topic, &p, &t);

	if (!err)
		err = verify(&p, &t, origin_key);
	if (err)
		return err;
	*ret_first = p.first;
	*ret_properties = p.properties;
	return 0;
}
