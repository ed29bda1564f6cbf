/* SPDX-License-Identifier: MIT */
/*
 * The topic trie: which subscriptions does a topic match?
 *
 *	(root)-+- "home" -+- "kitchen" --- "temp" [s1]      s1  home/kitchen/temp
 *	       |          +- '+' --------- "temp" [s2 s3]   s2  home/+/temp, s3 too
 *	       |          +- '#' [s4]                       s4  home/#   (home itself as well)
 *	       +- '#' [s5]                                  s5  #
 *
 *	match home/kitchen/temp:  root: '#' s5, "home": '#' s4, "kitchen": "temp" s1,
 *	                          '+': "temp" s2 s3
 *
 * One node a filter level; subscriptions hang at the node where their filter ends. A walk looks, at
 * each node that it reaches, at three children at most: the topic's level (hash table), '+' and '#'
 * (pointers). So its cost is that of the nodes whose filters match so far, whatever else the trie
 * holds; only filters that differ in where they have '+' multiply them, which is why a '+' may not
 * stand behind the first TRIE_PLUS_LEVELS levels: a walk has TRIE_WIDTH_MAX nodes at most at one
 * level, whoever subscribes to whatever, and TRIE_LOOKS_MAX in all.
 * Rules: a/# matches a (4.7.1.2); levels may be empty; no wildcard in the first level matches a
 * topic that begins with '$' [MQTT-4.7.2-1]. A filter may have TRIE_LEVELS_MAX levels, a topic any.
 *
 * The trie owns its nodes and allocates in trie_add alone. Subscriptions are their owner's memory
 * and must be removed before it goes. One thread.
 */
#ifndef SSDTF_MQTT_TRIE_H
#define SSDTF_MQTT_TRIE_H

#include <stddef.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/base/list.h"

#define TRIE_LEVELS_MAX	 32
#define TRIE_PLUS_LEVELS 8
#define TRIE_WIDTH_MAX	 (1u << TRIE_PLUS_LEVELS)
/* 1 + 2 + 4 + ... nodes down to the widest level, as many at each further one, and a '#' each. */
#define TRIE_LOOKS_MAX \
	(2 * (2 * TRIE_WIDTH_MAX - 1 + TRIE_WIDTH_MAX * (TRIE_LEVELS_MAX - TRIE_PLUS_LEVELS)))

struct trie;
struct trie_node;

/*
 * One subscription of one owner to one filter. owner is set before trie_add and stays; qos may
 * change at any time; by_owner is a list of the owner's. The rest is the trie's.
 */
struct trie_sub {
	struct trie_sub *next, **at; /* among those to the same filter */
	struct trie_node *node;	     /* NULL: in no trie */
	void *owner;
	struct list by_owner;
	uint8_t qos;
};

/* hash_key: random, kept from peers. NULL: no memory. */
struct trie *trie_new(const uint8_t hash_key[16]) must_check;
/* NULL is fine. All subscriptions must have been removed. */
void trie_free(struct trie *t);

/*
 * filter is mqtt_topic_filter_ok, and its owner has no subscription to it: else trie_find gives
 * that, to be changed [MQTT-3.8.4-3]. -E2BIG: more than TRIE_LEVELS_MAX levels, or a '+' behind the
 * first TRIE_PLUS_LEVELS. -ENOMEM.
 */
int trie_add(struct trie *t, struct bytes filter, struct trie_sub *sub) must_check;
/* Also frees the nodes that nothing needs any more. */
void trie_remove(struct trie *t, struct trie_sub *sub);

/* Its filter into out, where room is enough for it. Returns the filter's length. */
size_t trie_filter(const struct trie_sub *sub, uint8_t *out, size_t room);

/*
 * The subscription of this owner to exactly this filter, or NULL. owned: the owner's list of all
 * its subscriptions, by by_owner. Costs the fewer of what the filter and what the owner has.
 */
struct trie_sub *trie_find(struct trie *t, struct bytes filter, const void *owner,
			   struct list *owned);

/*
 * Calls each for every subscription that matches a topic name, in no order; an owner with several
 * filters that match is seen several times. each must not add to or remove from this trie. Returns
 * how many nodes it looked at.
 */
unsigned trie_match(struct trie *t, struct bytes topic,
		    void (*each)(void *ctx, struct trie_sub *sub), void *ctx);

/* Nodes in use: 0 when the last subscription is gone. */
size_t trie_nodes(const struct trie *t);

#endif
