// SPDX-License-Identifier: MIT
#include "userspace/mqtt/topicmap.h"

#include <stdlib.h>

#include "userspace/mqtt/level.h"
#include "userspace/mqtt/packet.h"

struct topicmap_node {
	struct level_node level; /* first: a node of the tree is one of ours */
	struct topicmap_entry *entry;
};

struct topicmap {
	struct level_tree tree;
};

/* Who is told of what was found. */
struct finder {
	void (*each)(void *ctx, struct topicmap_entry *entry);
	void *ctx;
};

static struct topicmap_node *node_of(struct level_node *n)
{
	return container_of(n, struct topicmap_node, level);
}

struct topicmap *topicmap_new(const uint8_t hash_key[16])
{
	struct topicmap *m = malloc(sizeof(*m));

	if (!m)
		return NULL;
	if (level_tree_init(&m->tree, hash_key, sizeof(struct topicmap_node), NULL)) {
		free(m);
		return NULL;
	}
	return m;
}

void topicmap_free(struct topicmap *m)
{
	struct level_node *leaf;

	if (!m)
		return;
	while ((leaf = level_tree_leaf(&m->tree)))
		topicmap_remove(m, node_of(leaf)->entry);
	level_tree_deinit(&m->tree);
	free(m);
}

int topicmap_put(struct topicmap *m, struct bytes topic, struct topicmap_entry *entry,
		 struct topicmap_entry **ret_old)
{
	struct level_path path;
	struct level_node *level;
	struct topicmap_node *n;
	struct topicmap_entry *old;
	int err;

	BUG_ON(!mqtt_topic_name_ok(topic));
	level_path_init(&path, &m->tree, topic);
	err = level_tree_get(&m->tree, &path, &level);
	if (err)
		return err;
	n = node_of(level);
	old = n->entry;
	n->entry = entry;
	entry->node = n;
	if (old) {
		old->node = NULL;
		level_tree_put(&m->tree, level); /* the new one took its own reference */
	}
	*ret_old = old;
	return 0;
}

struct topicmap_entry *topicmap_get(struct topicmap *m, struct bytes topic)
{
	struct level_path path;
	struct level_node *level;

	level_path_init(&path, &m->tree, topic);
	level = level_tree_find(&m->tree, &path);
	return level ? node_of(level)->entry : NULL;
}

void topicmap_remove(struct topicmap *m, struct topicmap_entry *entry)
{
	struct topicmap_node *n = entry->node;

	n->entry = NULL;
	entry->node = NULL;
	level_tree_put(&m->tree, &n->level);
}

size_t topicmap_topic(const struct topicmap_entry *entry, uint8_t *out, size_t room)
{
	return level_node_name(&entry->node->level, out, room);
}

static void give(const struct finder *f, struct level_node *level)
{
	struct topicmap_entry *entry = node_of(level)->entry;

	if (entry)
		f->each(f->ctx, entry);
}

/* --- walking by wildcards --------------------------------------------------------------------- */

/* The next child of parent behind pos that '#' reaches, or '+' where deep ones do not count. */
static struct level_node *wild_after(struct level_node *parent, const struct list *pos, bool deep)
{
	for (struct list *next = pos->next; next != &parent->children; next = next->next) {
		struct level_node *n = list_entry(next, struct level_node, sibling);
		bool hidden = !parent->parent && level_text_hidden(n->text);

		if (!hidden && (deep || !n->deep))
			return n;
	}
	return NULL;
}

static struct level_node *wild_first(struct level_node *parent, bool deep)
{
	return wild_after(parent, &parent->children, deep);
}

static struct level_node *wild_next(struct level_node *n, bool deep)
{
	return wild_after(n->parent, &n->sibling, deep);
}

/* top and all below it, parents first. */
static void give_subtree(const struct finder *f, struct level_node *top)
{
	struct level_node *n = top, *next;

	for (;;) {
		give(f, n);
		next = wild_first(n, true);
		while (!next) {
			if (n == top)
				return;
			next = wild_next(n, true);
			if (!next)
				n = n->parent;
		}
		n = next;
	}
}

/* Back from n, which the first depth levels of the filter led to, to the next choice of a '+'. */
static struct level_node *next_choice(const struct level_path *p, struct level_node *n,
				      unsigned *depth)
{
	for (; *depth; n = n->parent, (*depth)--) {
		struct level_node *next = NULL;

		if (level_path_is(p, *depth - 1, '+'))
			next = wild_next(n, false);
		if (next)
			return next;
	}
	return NULL;
}

void topicmap_match(struct topicmap *m, struct bytes filter,
		    void (*each)(void *ctx, struct topicmap_entry *entry), void *ctx)
{
	struct finder f = { each, ctx };
	struct level_node *n = m->tree.root;
	struct level_path path;
	unsigned depth = 0; /* of n, and filter levels that led there */

	level_path_init(&path, &m->tree, filter);
	if (level_path_deep(&path))
		return;
	while (n) {
		struct level_node *next = NULL;

		if (!level_path_has(&path, depth))
			give(&f, n);
		else if (level_path_is(&path, depth, '#'))
			give_subtree(&f, n);
		else if (level_path_is(&path, depth, '+'))
			next = wild_first(n, false);
		else
			next = level_node_child(n, &path, depth);
		if (next)
			depth++;
		else
			next = next_choice(&path, n, &depth);
		n = next;
	}
}

size_t topicmap_nodes(const struct topicmap *m)
{
	return m->tree.nodes;
}
