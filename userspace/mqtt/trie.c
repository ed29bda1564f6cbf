// SPDX-License-Identifier: MIT
#include "userspace/mqtt/trie.h"

#include <errno.h>
#include <stdlib.h>

#include "userspace/mqtt/level.h"
#include "userspace/mqtt/packet.h"

_Static_assert(TRIE_LEVELS_MAX == LEVEL_MAX, "a filter is a path without a deep end");

struct trie_node {
	struct level_node level; /* first: a node of the tree is one of ours */
	struct list subs;
	struct chain_table by_owner; /* the same again, for trie_find */
};

struct trie {
	struct level_tree tree;
};

static struct trie_node *node_of(struct level_node *n)
{
	return container_of(n, struct trie_node, level);
}

static void node_init(struct level_node *n)
{
	list_init(&node_of(n)->subs);
	chain_table_init(&node_of(n)->by_owner);
}

static uint64_t owner_hash(const struct trie *t, const void *owner)
{
	return siphash(t->tree.hash_key, bytes_of(&owner, sizeof(owner)));
}

static struct trie_sub *sub_of_owner(const struct trie *t, const struct trie_node *n,
				     const void *owner)
{
	struct chain *c = chain_table_first(&n->by_owner, owner_hash(t, owner));

	for (; c; c = c->next) {
		struct trie_sub *sub = container_of(c, struct trie_sub, chain);

		if (sub->owner == owner)
			return sub;
	}
	return NULL;
}

struct trie *trie_new(const uint8_t hash_key[16])
{
	struct trie *t = malloc(sizeof(*t));

	if (!t)
		return NULL;
	if (level_tree_init(&t->tree, hash_key, sizeof(struct trie_node), node_init)) {
		free(t);
		return NULL;
	}
	return t;
}

void trie_free(struct trie *t)
{
	struct level_node *leaf;

	if (!t)
		return;
	while ((leaf = level_tree_leaf(&t->tree)))
		trie_remove(t, list_first(&node_of(leaf)->subs, struct trie_sub, by_filter));
	level_tree_deinit(&t->tree);
	free(t);
}

int trie_add(struct trie *t, struct bytes filter, struct trie_sub *sub)
{
	struct level_path path;
	struct level_node *level;
	struct trie_node *n;
	int err;

	BUG_ON(!mqtt_topic_filter_ok(filter));
	level_path_init(&path, &t->tree, filter);
	if (level_path_deep(&path))
		return -E2BIG;
	err = level_tree_get(&t->tree, &path, &level);
	if (err)
		return err;
	n = node_of(level);
	if (sub_of_owner(t, n, sub->owner)) {
		level_tree_put(&t->tree, level);
		return -EEXIST;
	}
	list_add_tail(&n->subs, &sub->by_filter);
	chain_table_add(&n->by_owner, &sub->chain, owner_hash(t, sub->owner));
	sub->node = n;
	return 0;
}

void trie_remove(struct trie *t, struct trie_sub *sub)
{
	struct trie_node *n = sub->node;

	list_del(&sub->by_filter);
	chain_table_del(&n->by_owner, &sub->chain);
	sub->node = NULL;
	level_tree_put(&t->tree, &n->level);
}

size_t trie_filter(const struct trie_sub *sub, uint8_t *out, size_t room)
{
	return level_node_name(&sub->node->level, out, room);
}

struct trie_sub *trie_find(struct trie *t, struct bytes filter, const void *owner)
{
	struct level_path path;
	struct level_node *level;

	level_path_init(&path, &t->tree, filter);
	level = level_tree_find(&t->tree, &path);
	return level ? sub_of_owner(t, node_of(level), owner) : NULL;
}

static void give(struct level_node *level, void (*each)(void *ctx, struct trie_sub *sub), void *ctx)
{
	struct trie_node *n = node_of(level);
	struct list *pos;

	list_for_each(pos, &n->subs)
		each(ctx, list_entry(pos, struct trie_sub, by_filter));
}

void trie_match(struct trie *t, struct bytes topic, void (*each)(void *ctx, struct trie_sub *sub),
		void *ctx)
{
	/* Nodes to look at. Each adds two at most, one level down: so one waits at every level. */
	struct {
		struct level_node *node;
		unsigned depth;
	} todo[LEVEL_MAX + 1];
	unsigned n = 0;
	struct level_path path;
	bool hidden;

	level_path_init(&path, &t->tree, topic);
	hidden = level_text_hidden(topic);
	todo[n].node = t->tree.root;
	todo[n++].depth = 0;
	while (n) {
		struct level_node *at = todo[--n].node, *text;
		unsigned depth = todo[n].depth;
		bool wild = depth > 0 || !hidden;

		if (at->rest && wild)
			give(at->rest, each, ctx);
		if (!level_path_has(&path, depth)) {
			give(at, each, ctx);
			continue;
		}
		if (at->plus && wild && !level_path_deep_at(&path, depth)) {
			todo[n].node = at->plus;
			todo[n++].depth = depth + 1;
		}
		text = level_node_child(at, &path, depth);
		if (text) {
			todo[n].node = text;
			todo[n++].depth = depth + 1;
		}
	}
}

size_t trie_nodes(const struct trie *t)
{
	return t->tree.nodes;
}
