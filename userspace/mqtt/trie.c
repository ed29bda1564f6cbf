// SPDX-License-Identifier: MIT
#include "userspace/mqtt/trie.h"

#include <errno.h>
#include <stdlib.h>

#include "userspace/mqtt/level.h"
#include "userspace/mqtt/packet.h"

_Static_assert(TRIE_LEVELS_MAX == LEVEL_MAX, "a filter is a path without a deep end");

struct trie_node {
	struct level_node level; /* first: a node of the tree is one of ours */
	struct trie_sub *subs;
};

_Static_assert(sizeof(struct trie_node) <= 64, "a node without its text is one cache line");

struct trie {
	struct level_tree tree;
};

static struct trie_node *node_of(struct level_node *n)
{
	return container_of(n, struct trie_node, level);
}

struct trie *trie_new(const uint8_t hash_key[16])
{
	struct trie *t = malloc(sizeof(*t));

	if (!t)
		return NULL;
	if (level_tree_init(&t->tree, hash_key, sizeof(struct trie_node), NULL, NULL)) {
		free(t);
		return NULL;
	}
	return t;
}

void trie_free(struct trie *t)
{
	if (!t)
		return;
	level_tree_deinit(&t->tree);
	free(t);
}

/* Each '+' may double what a walk looks at, so they stand where little can be doubled. */
static bool filter_bounded(struct level_path *p)
{
	if (level_path_deep(p))
		return false;
	for (unsigned i = 0; level_path_has(p, i); i++)
		if (i >= TRIE_PLUS_LEVELS && level_path_is(p, i, '+'))
			return false;
	return true;
}

int trie_add(struct trie *t, struct bytes filter, struct trie_sub *sub)
{
	struct level_path path;
	struct level_node *level;
	struct trie_node *n;
	int err;

	BUG_ON(!mqtt_topic_filter_ok(filter));
	level_path_init(&path, &t->tree, filter);
	if (!filter_bounded(&path))
		return -E2BIG;
	err = level_tree_get(&t->tree, &path, &level);
	if (err)
		return err;
	n = node_of(level);
	sub->node = n;
	sub->next = n->subs;
	sub->at = &n->subs;
	if (sub->next)
		sub->next->at = &sub->next;
	n->subs = sub;
	return 0;
}

void trie_remove(struct trie *t, struct trie_sub *sub)
{
	struct trie_node *n = sub->node;

	*sub->at = sub->next;
	if (sub->next)
		sub->next->at = sub->at;
	sub->node = NULL;
	level_tree_put(&t->tree, &n->level);
}

size_t trie_filter(const struct trie_sub *sub, uint8_t *out, size_t room)
{
	return level_node_name(&sub->node->level, out, room);
}

struct trie_sub *trie_find(struct trie *t, struct bytes filter, const void *owner,
			   struct list *owned)
{
	struct list *pos = owned->next;
	struct level_path path;
	struct level_node *level;
	struct trie_sub *sub;

	level_path_init(&path, &t->tree, filter);
	level = level_tree_find(&t->tree, &path);
	if (!level)
		return NULL;
	/* It is among the filter's and among the owner's: through both at once, to the shorter's
	 * end. */
	for (sub = node_of(level)->subs; sub && pos != owned; sub = sub->next, pos = pos->next) {
		struct trie_sub *other = list_entry(pos, struct trie_sub, by_owner);

		if (sub->owner == owner)
			return sub;
		if (other->node == node_of(level))
			return other;
	}
	return NULL;
}

/* --- matching --------------------------------------------------------------------------------- */

static void give(struct level_node *n, void (*each)(void *ctx, struct trie_sub *sub), void *ctx)
{
	for (struct trie_sub *sub = node_of(n)->subs; sub; sub = sub->next)
		each(ctx, sub);
}

unsigned trie_match(struct trie *t, struct bytes topic,
		    void (*each)(void *ctx, struct trie_sub *sub), void *ctx)
{
	/* Nodes to look at. Each adds two at most, one level down: so one waits at every level. */
	struct {
		struct level_node *node;
		unsigned depth;
	} todo[LEVEL_MAX + 1];
	unsigned n = 0, looked_at = 0;
	bool hidden = level_text_hidden(topic);
	struct level_path path;

	level_path_init(&path, &t->tree, topic);
	todo[n].node = t->tree.root;
	todo[n++].depth = 0;
	while (n) {
		struct level_node *at = todo[--n].node, *text;
		unsigned depth = todo[n].depth;
		bool wild = depth > 0 || !hidden;

		looked_at++;
		if (at->rest && wild) {
			looked_at++;
			give(at->rest, each, ctx);
		}
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
	return looked_at;
}

size_t trie_nodes(const struct trie *t)
{
	return t->tree.nodes;
}
