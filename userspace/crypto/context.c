// SPDX-License-Identifier: MIT
#include "userspace/crypto/context.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t at_thread_exit;
static EVP_MD *sha256;
static EVP_CIPHER *aes_128_gcm, *chacha20_poly1305;
static unsigned forks;
static __thread struct context *mine;

static void context_free(void *p)
{
	struct context *c = p;

	if (!c)
		return;
	EVP_MD_CTX_free(c->digest);
	EVP_CIPHER_CTX_free(c->cipher);
	free(c);
}

static void noreturn_fn give_up(const char *why)
{
	fprintf(stderr, "crypto: %s\n", why);
	abort();
}

/* In the child, which has but one thread yet. */
static void forked(void)
{
	forks++;
}

/* Fetched for the process's life: OpenSSL frees what is left after everyone's last use. */
static void fetch(void)
{
	sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	aes_128_gcm = EVP_CIPHER_fetch(NULL, "AES-128-GCM", NULL);
	chacha20_poly1305 = EVP_CIPHER_fetch(NULL, "ChaCha20-Poly1305", NULL);
	if (!sha256 || !aes_128_gcm || !chacha20_poly1305)
		give_up("OpenSSL offers no SHA-256, AES-128-GCM or ChaCha20-Poly1305");
	if (pthread_key_create(&at_thread_exit, context_free))
		give_up("no thread-specific data left");
	if (pthread_atfork(NULL, NULL, forked))
		give_up("out of memory");
}

static struct context *context_new(void)
{
	struct context *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->digest = EVP_MD_CTX_new();
	c->cipher = EVP_CIPHER_CTX_new();
	c->sha256 = sha256;
	c->aes_128_gcm = aes_128_gcm;
	c->chacha20_poly1305 = chacha20_poly1305;
	if (!c->digest || !c->cipher || pthread_setspecific(at_thread_exit, c)) {
		context_free(c);
		return NULL;
	}
	return c;
}

const struct context *context_get(void)
{
	if (mine)
		return mine;
	(void)pthread_once(&once, fetch); /* fails only for a wrong argument */
	mine = context_new();
	if (!mine)
		give_up("out of memory");
	return mine;
}

unsigned context_forks(void)
{
	(void)context_get(); /* from here on they are counted */
	return forks;
}

int context_error(int otherwise)
{
	bool memory = ERR_GET_REASON(ERR_peek_last_error()) == ERR_R_MALLOC_FAILURE;

	ERR_clear_error();
	return memory ? -ENOMEM : otherwise;
}
