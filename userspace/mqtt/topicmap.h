/* SPDX-License-Identifier: MIT */
/*
 * A map from topic names to what its user keeps for each (a retained message), which can be asked
 * by filter: the trie the other way round (trie.h draws the tree; here an entry hangs at the node
 * where its topic ends).
 *
 * Filters match as there: a/# gives a too, no wildcard in a filter's first level gives topics that
 * begin with '$' [MQTT-4.7.2-1]. Topics may have any number of levels; a filter with more than
 * TRIE_LEVELS_MAX, which trie_add refuses, finds nothing.
 *
 * The map owns its nodes and allocates in topicmap_put alone. Entries are their owner's memory, and
 * must be removed before it goes. One thread.
 *
 * A walk finds what a filter matches, some at a time: between two times entries may come and go. An
 * entry of a topic that has one all the while is found once; one that is put meanwhile on a topic
 * that had none is not found, or found once.
 */
#ifndef SSDTF_MQTT_TOPICMAP_H
#define SSDTF_MQTT_TOPICMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "userspace/base/bytes.h"

struct level_node;
struct topicmap;
struct topicmap_node;

/* Embedded in what is kept. */
struct topicmap_entry {
	struct topicmap_node *node; /* NULL: in no map */
};

struct topicmap_walk {
	struct level_node *at; /* what is looked at next, held; NULL: it is at its end */
	unsigned depth;
};

/* hash_key: random, kept from peers. NULL: no memory. */
struct topicmap *topicmap_new(const uint8_t hash_key[16]) must_check;
/* NULL is fine. All entries must have been removed, and walks ended. */
void topicmap_free(struct topicmap *m);

/*
 * entry becomes what topic, a mqtt_topic_name_ok, has. *ret_old is what it had, out of the map now,
 * or NULL. The entry is in no map yet. -ENOMEM, and then nothing has changed.
 */
int topicmap_put(struct topicmap *m, struct bytes topic, struct topicmap_entry *entry,
		 struct topicmap_entry **ret_old) must_check;
/* What topic has, or NULL. */
struct topicmap_entry *topicmap_get(struct topicmap *m, struct bytes topic);
/* Also frees the nodes that nothing needs any more. */
void topicmap_remove(struct topicmap *m, struct topicmap_entry *entry);

/* Its topic into out, where room is enough for it. Returns the topic's length. */
size_t topicmap_topic(const struct topicmap_entry *entry, uint8_t *out, size_t room);

/* A walk that was begun must be ended (it may be so twice) before the map goes. */
void topicmap_walk_begin(struct topicmap *m, struct topicmap_walk *w);
void topicmap_walk_end(struct topicmap *m, struct topicmap_walk *w);
/*
 * Goes on with a walk, the filter being the same each time, for at most so many steps of about one
 * node each, and calls each for every entry that it comes to; in no order. each must not add to or
 * remove from this map; where it returns false the walk stops, to begin with the same entry next
 * time. Returns the steps it took.
 */
unsigned topicmap_walk(struct topicmap *m, struct bytes filter, struct topicmap_walk *w,
		       unsigned steps_max, bool (*each)(void *ctx, struct topicmap_entry *entry),
		       void *ctx);

/* Nodes in use: 0 when the last entry is gone and no walk is under way. */
size_t topicmap_nodes(const struct topicmap *m);

#endif
