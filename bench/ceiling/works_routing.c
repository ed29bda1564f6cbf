// SPDX-License-Identifier: MIT
/*
 * The trie alone: which of so many subscriptions match a topic. Half of them are exact, a quarter
 * have '+', a quarter '#', all of them different; each topic has one that matches, and others that
 * nearly do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "bench/ceiling/works_crypto.h"
#include "userspace/base/log.h"
#include "userspace/crypto/hash.h"
#include "userspace/mqtt/trie.h"

#define SITES	    1000
#define TOPICS	    4096 /* a power of two */
#define TOPIC_BYTES 40

struct bed {
	struct trie *trie;
	struct trie_sub *subs;
	unsigned n, next, found;
	struct {
		char text[TOPIC_BYTES];
		size_t n;
	} topics[TOPICS];
};

static void count(void *ctx, struct trie_sub *sub)
{
	(*(unsigned *)ctx)++;
}

static void match(const struct work *w, unsigned runs)
{
	struct bed *b = w->bed;

	for (; runs; runs--, b->next++) {
		unsigned i = b->next % TOPICS;

		(void)trie_match(b->trie, bytes_of(b->topics[i].text, b->topics[i].n), count,
				 &b->found);
	}
}

static void subscribe(struct bed *b, unsigned i)
{
	char filter[TOPIC_BYTES];

	if (i % 4 == 2)
		snprintf(filter, sizeof(filter), "site/+/dev%u/temp", i);
	else
		snprintf(filter, sizeof(filter), "site/%u/dev%u/%s", i % SITES, i,
			 i % 4 == 3 ? "#" : "temp");
	b->subs[i].owner = b;
	work_must(trie_add(b->trie, bytes_str(filter), &b->subs[i]), "trie_add");
}

/* Topics at random, so that the processor's caches do not have what a broker's would not. */
static void choose(struct bed *b)
{
	for (unsigned i = 0; i < TOPICS; i++) {
		uint32_t which;

		hash_random((uint8_t *)&which, sizeof(which));
		which %= b->n;
		b->topics[i].n = (size_t)snprintf(b->topics[i].text, TOPIC_BYTES,
						  "site/%u/dev%u/temp", which % SITES, which);
	}
}

static struct bed *bed_new(unsigned n)
{
	struct bed *b = calloc(1, sizeof(*b));
	uint8_t key[16];

	hash_random(key, sizeof(key));
	if (b) {
		b->n = n;
		b->subs = calloc(n, sizeof(*b->subs));
		b->trie = trie_new(key);
	}
	if (!b || !b->subs || !b->trie)
		exit_with(EX_OSERR, "no memory");
	for (unsigned i = 0; i < n; i++)
		subscribe(b, i);
	choose(b);
	match(&(struct work){ .bed = b }, TOPICS);
	work_prove(b->found == TOPICS, "each topic matches one subscription");
	return b;
}

void works_routing(struct works *w)
{
	w->part = "routing";
	(void)works_add(w, "trie match, 1000 subscriptions", match, bed_new(1000));
	(void)works_add(w, "trie match, 100000 subscriptions", match, bed_new(100000));
}
