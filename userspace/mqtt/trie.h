/* SPDX-License-Identifier: MIT */
/*
 * The topic trie: which subscriptions does a topic match?
 *
 *	(root)-+- "home" -+- "kitchen" --- "temp" [s1]      s1  home/kitchen/temp
 *	       |          +- '+' --------- "temp" [s2 s3]   s2  home/+/temp, s3 too
 *	       |          +- '#' [s4]                       s4  home/#   (home itself as well)
 *	       +- '#' [s5]                                  s5  #
 *
 *	match home/kitchen/temp:  root: '#' s5, "home": '#' s4, "kitchen": "temp" s1, '+': "temp" s2
 *s3
 *
 * One node a filter level; subscriptions hang at the node where their filter ends. A walk looks, at
 * each node that it reaches, at three children at most: the topic's level (hash table), '+' and '#'
 * (pointers). So its cost is that of the nodes whose filters match so far, whatever else the trie
 * holds; only filters that differ in where they have '+' multiply them (2^'+' at most).
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
#include "userspace/mqtt/chain.h"

#define TRIE_LEVELS_MAX 128

struct trie;
struct trie_node;

/*
 * One subscription of one owner to one filter. owner is set before trie_add and stays; qos may
 * change at any time; by_owner is not touched here. The rest is the trie's.
 */
struct trie_sub {
	struct list by_filter;
	struct list by_owner;
	struct trie_node *node;
	void *owner;
	uint8_t qos;
	struct chain chain;
};

/* hash_key: random, kept from peers. NULL: no memory. */
struct trie *trie_new(const uint8_t hash_key[16]) must_check;
/* NULL is fine. Subscriptions still in it are taken out. */
void trie_free(struct trie *t);

/*
 * filter is mqtt_topic_filter_ok. -E2BIG: more than TRIE_LEVELS_MAX levels. -EEXIST: its owner has
 * this filter already (replace what trie_find gives, [MQTT-3.8.4-3]). -ENOMEM.
 */
int trie_add(struct trie *t, struct bytes filter, struct trie_sub *sub) must_check;
/* Also frees the nodes that nothing needs any more. */
void trie_remove(struct trie *t, struct trie_sub *sub);

/* Its filter into out, where room is enough for it. Returns the filter's length. */
size_t trie_filter(const struct trie_sub *sub, uint8_t *out, size_t room);

/* The subscription of this owner to exactly this filter, or NULL. However many share the filter. */
struct trie_sub *trie_find(struct trie *t, struct bytes filter, const void *owner);

/*
 * Calls each for every subscription that matches a topic name, in no order; an owner with several
 * filters that match is seen several times. each must not add to or remove from this trie.
 */
void trie_match(struct trie *t, struct bytes topic, void (*each)(void *ctx, struct trie_sub *sub),
		void *ctx);

/* Nodes in use: 0 when the last subscription is gone. */
size_t trie_nodes(const struct trie *t);

#endif
