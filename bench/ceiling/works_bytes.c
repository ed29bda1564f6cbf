// SPDX-License-Identifier: MIT
/*
 * The AEADs as hpke_seal() has them: the key is set anew for each message, for a thread seals under
 * many. Additional data as long as an envelope's.
 */
#include <string.h>
#include <sysexits.h>

#include "bench/ceiling/works_crypto.h"
#include "userspace/base/log.h"
#include "userspace/crypto/envelope.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/hpke.h"

#define BYTES_MAX 16384

static const unsigned sizes[] = { 64, 256, 1024, BYTES_MAX };

struct bed {
	struct hpke_context context;
	uint32_t seq;
	uint8_t aad[ENVELOPE_AAD_BYTES];
	uint8_t plain[BYTES_MAX], sealed[BYTES_MAX + HPKE_TAG_BYTES];
};

static void seal(const struct work *w, unsigned runs)
{
	struct bed *b = w->bed;

	while (runs--)
		work_must(hpke_seal(&b->context, b->seq++ & HPKE_SEQ_MAX,
				    bytes_of(b->aad, sizeof(b->aad)), bytes_of(b->plain, w->bytes),
				    b->sealed),
			  "hpke_seal");
}

static void sha_256(const struct work *w, unsigned runs)
{
	struct bed *b = w->bed;
	uint8_t hash[HASH_BYTES];

	while (runs--)
		hash_one(bytes_of(b->plain, w->bytes), hash);
}

static void prove(struct bed *b)
{
	uint8_t out[BYTES_MAX];
	struct bytes aad = bytes_of(b->aad, sizeof(b->aad)), sealed;

	work_must(hpke_seal(&b->context, 7, aad, bytes_of(b->plain, sizeof(b->plain)), b->sealed),
		  "hpke_seal");
	sealed = bytes_of(b->sealed, sizeof(b->sealed));
	work_prove(!hpke_open(&b->context, 7, aad, sealed, out) &&
			   !memcmp(out, b->plain, sizeof(out)),
		   "what is sealed opens");
	b->sealed[0] ^= 1;
	work_prove(hpke_open(&b->context, 7, aad, sealed, out), "what was altered does not");
}

static struct bed *bed_new(enum hpke_suite suite)
{
	struct bed *b = calloc(1, sizeof(*b));

	if (!b)
		exit_with(EX_OSERR, "no memory");
	b->context.suite = suite;
	hash_random(b->context.key, sizeof(b->context.key));
	hash_random(b->aad, sizeof(b->aad));
	hash_random(b->plain, sizeof(b->plain));
	prove(b);
	return b;
}

void works_bytes(struct works *w)
{
	struct bed *aes = bed_new(HPKE_SUITE_AES_128_GCM);
	struct bed *chacha = bed_new(HPKE_SUITE_CHACHA20_POLY1305);

	w->part = "bytes";
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
		works_add(w, "aes-128-gcm", seal, aes)->bytes = sizes[i];
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
		works_add(w, "chacha20-poly1305", seal, chacha)->bytes = sizes[i];
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
		works_add(w, "sha-256", sha_256, aes)->bytes = sizes[i];
}
