// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>
#include <sysexits.h>

#include "bench/ceiling/bare.h"
#include "bench/ceiling/works_crypto.h"
#include "userspace/base/log.h"
#include "userspace/crypto/grant.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/schnorr.h"

/* What is signed or proved of an authentication response: label, numbers, topic, body, id. */
#define RESPONSE_INPUT_BYTES (15 + 1 + 2 + 20 + 4 + 4 + 96 + 2 + 44)

struct bed {
	struct secret32 k, key;
	struct p256_point p, point; /* point: of key */
	uint8_t compressed[P256_COMPRESSED_BYTES];
	struct p256_private *private;
	struct p256_public *public;
	uint8_t digest[P256_DIGEST_BYTES], sig[P256_SIG_BYTES];
	uint8_t response[RESPONSE_INPUT_BYTES], proof[SCHNORR_PROOF_BYTES];
	struct bare *bare;
};

static void multiply(const struct work *w, unsigned runs)
{
	const struct bed *b = w->bed;
	struct secret32 x;

	while (runs--)
		work_must(p256_dh(&b->k, &b->p, &x), "p256_dh");
}

static void multiply_base(const struct work *w, unsigned runs)
{
	const struct bed *b = w->bed;
	struct p256_point p;

	while (runs--)
		work_must(p256_mul_base(&b->k, &p), "p256_mul_base");
}

static void decompress(const struct work *w, unsigned runs)
{
	const struct bed *b = w->bed;
	struct p256_point p;

	while (runs--)
		work_must(p256_point_decompress(bytes_of(b->compressed, sizeof(b->compressed)), &p),
			  "p256_point_decompress");
}

static void sign(const struct work *w, unsigned runs)
{
	struct bed *b = w->bed;

	while (runs--)
		work_must(p256_sign_digest(b->private, b->digest, b->sig), "p256_sign_digest");
}

static void verify(const struct work *w, unsigned runs)
{
	const struct bed *b = w->bed;

	while (runs--)
		work_must(p256_verify_digest(b->public, b->digest, b->sig), "p256_verify_digest");
}

static void zk_prove(const struct work *w, unsigned runs)
{
	struct bed *b = w->bed;
	const struct bytes input = bytes_of(b->response, sizeof(b->response));

	while (runs--)
		work_must(schnorr_prove(&b->key, &b->point, &input, 1, b->proof), "schnorr_prove");
}

static void zk_verify(const struct work *w, unsigned runs)
{
	const struct bed *b = w->bed;
	const struct bytes input = bytes_of(b->response, sizeof(b->response));

	while (runs--)
		work_must(schnorr_verify(&b->point, &input, 1, b->proof), "schnorr_verify");
}

static void evp_derive(const struct work *w, unsigned runs)
{
	const struct bed *b = w->bed;

	work_prove(bare_derive(b->bare, runs), "EVP_PKEY_derive");
}

static void evp_sign(const struct work *w, unsigned runs)
{
	const struct bed *b = w->bed;

	work_prove(bare_sign(b->bare, runs), "EVP_PKEY_sign");
}

static void evp_verify(const struct work *w, unsigned runs)
{
	const struct bed *b = w->bed;

	work_prove(bare_verify(b->bare, runs), "EVP_PKEY_verify");
}

static void prove(struct bed *b)
{
	struct secret32 inverse SECRET = { 0 };
	struct p256_point p, q;
	uint8_t sig[P256_SIG_BYTES];
	struct bytes input = bytes_of(b->response, sizeof(b->response));

	work_must(p256_scalar_invert(&b->k, &inverse), "an inverse");
	work_must(p256_mul(&b->k, &b->p, &q), "p256_mul");
	work_must(p256_mul(&inverse, &q, &p), "p256_mul");
	work_prove(!memcmp(&p, &b->p, sizeof(p)), "1/k * k * P is P");
	work_must(p256_point_decompress(bytes_of(b->compressed, sizeof(b->compressed)), &p),
		  "p256_point_decompress");
	work_prove(!memcmp(&p, &b->p, sizeof(p)), "a compressed point");
	memcpy(sig, b->sig, sizeof(sig));
	sig[P256_SIG_BYTES - 1] ^= 1;
	work_prove(!p256_verify_digest(b->public, b->digest, b->sig) &&
			   p256_verify_digest(b->public, b->digest, sig) == -EBADMSG,
		   "a signature holds, another does not");
	work_prove(bare_verify(b->bare, 1) && bare_refuses(b->bare), "the same with EVP alone");
	work_prove(!schnorr_verify(&b->point, &input, 1, b->proof), "a proof");
	input.n--;
	work_prove(schnorr_verify(&b->point, &input, 1, b->proof) == -EBADMSG,
		   "a proof of something else is refused");
}

void works_curve(struct works *w)
{
	struct bed *b = calloc(1, sizeof(*b));
	struct secret32 r SECRET = { 0 };
	struct bytes input;

	w->part = "P-256";
	if (!b)
		exit_with(EX_OSERR, "no memory");
	work_must(p256_scalar_random(&b->k), "a scalar");
	work_must(p256_scalar_random(&r), "a scalar");
	work_must(p256_mul_base(&r, &b->p), "a point");
	p256_point_compress(&b->p, b->compressed);
	work_must(p256_scalar_random(&b->key), "a key");
	work_must(p256_private_new(&b->key, &b->private), "a key");
	p256_private_point(b->private, &b->point);
	work_must(p256_public_new(&b->point, &b->public), "a public key");
	hash_random(b->digest, sizeof(b->digest));
	work_must(p256_sign_digest(b->private, b->digest, b->sig), "a signature");
	hash_random(b->response, sizeof(b->response));
	input = bytes_of(b->response, sizeof(b->response));
	work_must(schnorr_prove(&b->key, &b->point, &input, 1, b->proof), "a proof");
	b->bare = bare_new();
	prove(b);

	(void)works_add(w, "p256 multiply", multiply, b);
	(void)works_add(w, "p256 multiply base", multiply_base, b);
	(void)works_add(w, "p256 decompress", decompress, b);
	(void)works_add(w, "p256 sign", sign, b);
	(void)works_add(w, "p256 verify", verify, b);
	(void)works_add(w, "zk prove", zk_prove, b);
	(void)works_add(w, "zk verify", zk_verify, b);
	(void)works_add(w, "evp derive", evp_derive, b);
	(void)works_add(w, "evp sign", evp_sign, b);
	(void)works_add(w, "evp verify", evp_verify, b);
}
