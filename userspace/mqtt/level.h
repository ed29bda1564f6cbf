/* SPDX-License-Identifier: MIT */
/*
 * The tree of topic levels on which the subscription trie and the map of topics stand. It knows
 * levels and their text; what hangs at a node is its user's. Private to userspace/mqtt.
 *
 *	(root) -- "home" -- "kitchen" -- "temp"      home/kitchen/temp
 *	     |         \--- '+' ------- "temp"      home/+/temp
 *	     \--- "" ----- "home"                  /home: an empty level is a level
 *
 * Children are found by their text through a hash table in each node, keyed with SipHash, since
 * peers choose the text; the children '+' and '#' by pointer. A table of one child keeps it in
 * place; it grows when it has more children than buckets and shrinks below a quarter. Where there
 * is no memory for that the chains get longer, and nothing else happens.
 *
 * A node lives while something refers to it: a child or a user that got it (level_tree_get,
 * level_node_hold). With its last reference it goes, and so do the ancestors that were there for it
 * alone.
 *
 * No path is longer than LEVEL_MAX nodes, so nothing here or above recurses or needs memory by
 * depth. The last node of a deeper topic stands for all levels from there on ("deep"; its text has
 * slashes in it): '#' above it matches it, '+' and the text of a level do not.
 */
#ifndef SSDTF_MQTT_LEVEL_H
#define SSDTF_MQTT_LEVEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/base/siphash.h"

#define LEVEL_MAX 32

/* One a level and subscription: every byte counts. */
struct level_node {
	struct level_node *next; /* in its bucket of its parent's table, unless it is '+' or '#' */
	union {
		struct level_node *one;	  /* 1 bucket */
		struct level_node **many; /* 2^buckets_log */
	} children;
	struct level_node *plus, *rest; /* the children '+' and '#' */
	struct level_node *parent;	/* NULL: the root */
	uint32_t hash;			/* of its text */
	uint32_t n_children;		/* in the table */
	uint32_t refs;
	uint16_t text_n;
	uint8_t text_at; /* in the same allocation, so far from its start */
	uint8_t buckets_log : 7;
	uint8_t deep : 1;
};

struct level_tree {
	uint8_t hash_key[SIPHASH_KEY_BYTES];
	size_t node_bytes; /* the user's struct, a struct level_node first in it, then zeroes */
	/* Called once a node has its parent (the root: has none), and before it loses it. */
	void (*linked)(struct level_node *);
	void (*unlinking)(struct level_node *);
	struct level_node *root;
	size_t nodes; /* without the root */
};

/* -ENOMEM. linked and unlinking may be NULL. */
int level_tree_init(struct level_tree *t, const uint8_t hash_key[SIPHASH_KEY_BYTES],
		    size_t node_bytes, void (*linked)(struct level_node *),
		    void (*unlinking)(struct level_node *)) must_check;
/* All that was got must have been put. */
void level_tree_deinit(struct level_tree *t);

/* A name or filter cut into levels, and these hashed, as they are asked for, so that a walk that
 * ends early costs little. */
struct level_path {
	const struct level_tree *tree;
	struct bytes left;
	bool ended; /* nothing is left to cut, not even an empty level */
	unsigned n; /* levels cut so far */
	struct bytes text[LEVEL_MAX];
	uint32_t hash[LEVEL_MAX]; /* 0: not known yet */
};

void level_path_init(struct level_path *p, const struct level_tree *t, struct bytes name);
/* True where there is a level i. Ask in order: i is at most the number of levels asked for before.
 */
bool level_path_has(struct level_path *p, unsigned i);
/* Level i, which the path has, stands for itself and more. */
bool level_path_deep_at(const struct level_path *p, unsigned i);
/* The last level does: there are more than LEVEL_MAX. */
bool level_path_deep(struct level_path *p);
/* Level i, which the path has, is all of one character ('+', '#'). */
bool level_path_is(const struct level_path *p, unsigned i, char c);

static inline struct bytes level_node_text(const struct level_node *n)
{
	return bytes_of((const uint8_t *)n + n->text_at, n->text_n);
}

/* The child where level i of the path leads by its own text, or NULL. */
struct level_node *level_node_child(const struct level_node *n, struct level_path *p, unsigned i);
/* [MQTT-4.7.2-1]: a first level that begins with '$', which no wildcard matches. */
bool level_text_hidden(struct bytes first);
/* The path from the root in MQTT's notation into out, if it has room for it; its length. */
size_t level_node_name(const struct level_node *n, uint8_t *out, size_t room);
/* One reference more, for level_tree_put. */
void level_node_hold(struct level_node *n);

/* The node at the end of the path, or NULL. */
struct level_node *level_tree_find(const struct level_tree *t, struct level_path *p);
/* The same, made where it is not there, and held until level_tree_put. -ENOMEM. */
int level_tree_get(struct level_tree *t, struct level_path *p,
		   struct level_node **ret_node) must_check;
void level_tree_put(struct level_tree *t, struct level_node *n);

#endif
