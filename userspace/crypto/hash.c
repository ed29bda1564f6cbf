// SPDX-License-Identifier: MIT
#include "userspace/crypto/hash.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/random.h>

#include "userspace/crypto/context.h"

#define BLOCK_BYTES 64 /* SHA-256's */

/*
 * A SHA-256 over parts in this thread's context. The digest's state is some hundred bytes that
 * OpenSSL allocates; where even that fails there is no result to hand on, and no way to say so that
 * every caller of a hash would handle: the process ends.
 */
static EVP_MD_CTX *start(void)
{
	const struct context *c = context_get();

	BUG_ON(EVP_DigestInit_ex2(c->digest, c->sha256, NULL) != 1);
	return c->digest;
}

static void add(EVP_MD_CTX *md, const struct bytes *parts, size_t n)
{
	for (size_t i = 0; i < n; i++)
		BUG_ON(parts[i].n && EVP_DigestUpdate(md, parts[i].p, parts[i].n) != 1);
}

static void finish(EVP_MD_CTX *md, uint8_t out[HASH_BYTES])
{
	BUG_ON(EVP_DigestFinal_ex(md, out, NULL) != 1);
}

void hash_parts(const struct bytes *parts, size_t n, uint8_t out[HASH_BYTES])
{
	EVP_MD_CTX *md = start();

	add(md, parts, n);
	finish(md, out);
}

/*
 * HMAC (RFC 2104) written out over the thread's digest context: OpenSSL's own copies the key to the
 * heap for each call. Starting the next digest frees and wipes the state of the one before, and the
 * reset at the end does so for the last.
 */
static void hmac(struct bytes key, const struct bytes *parts, size_t n, uint8_t out[HASH_BYTES])
{
	uint8_t pad[BLOCK_BYTES] = { 0 }, inner[HASH_BYTES];
	struct bytes pad_view = bytes_of(pad, sizeof(pad));
	struct bytes inner_view = bytes_of(inner, sizeof(inner));
	EVP_MD_CTX *md;

	if (key.n > BLOCK_BYTES)
		hash_one(key, pad);
	else if (key.n)
		memcpy(pad, key.p, key.n);
	for (size_t i = 0; i < BLOCK_BYTES; i++)
		pad[i] ^= 0x36;
	md = start();
	add(md, &pad_view, 1);
	add(md, parts, n);
	finish(md, inner);

	for (size_t i = 0; i < BLOCK_BYTES; i++)
		pad[i] ^= 0x36 ^ 0x5c;
	md = start();
	add(md, &pad_view, 1);
	add(md, &inner_view, 1);
	finish(md, out);

	(void)EVP_MD_CTX_reset(md); /* cannot fail */
	secret_wipe(pad, sizeof(pad));
	secret_wipe(inner, sizeof(inner));
}

void hash_hkdf_extract(struct bytes salt, const struct bytes *ikm, size_t n,
		       struct secret32 *ret_prk)
{
	/* No salt is a salt of zeros, which is what HMAC makes of an empty key (RFC 5869 2.2). */
	hmac(salt, ikm, n, ret_prk->b);
}

/* RFC 5869 2.3: T(i) = HMAC(prk, T(i-1) || info || i), with T(0) empty. */
void hash_hkdf_expand(const struct secret32 *prk, const struct bytes *info, size_t n, uint8_t *out,
		      size_t len)
{
	struct bytes parts[HASH_EXPAND_PARTS_MAX + 2];
	struct secret32 t SECRET = { 0 };
	uint8_t i = 0;

	BUG_ON(n > HASH_EXPAND_PARTS_MAX || len > HASH_EXPAND_BYTES_MAX);
	for (size_t k = 0; k < n; k++)
		parts[k + 1] = info[k];
	parts[n + 1] = bytes_of(&i, 1);
	while (len) {
		size_t take = len < HASH_BYTES ? len : HASH_BYTES;

		parts[0] = bytes_of(t.b, i ? HASH_BYTES : 0);
		i++;
		hmac(bytes_of(prk->b, sizeof(prk->b)), parts, n + 2, t.b);
		memcpy(out, t.b, take);
		out += take;
		len -= take;
	}
}

void hash_random(void *out, size_t n)
{
	uint8_t *to = out;

	while (n) {
		ssize_t got = getrandom(to, n, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			perror("getrandom");
			abort(); /* nothing that needs random bytes may go on without them */
		}
		to += got;
		n -= (size_t)got;
	}
}
