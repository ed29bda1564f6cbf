// SPDX-License-Identifier: MIT
#include "userspace/mqtt/topicmap.h"

#include <stdlib.h>

#include "userspace/base/list.h"
#include "userspace/mqtt/level.h"
#include "userspace/mqtt/packet.h"

struct topicmap_node {
	struct level_node level; /* first: a node of the tree is one of ours */
	/* The order of walks. A new child goes in front, where no walk that is under way comes. */
	struct list children, sibling;
	struct topicmap_entry *entry;
};

struct topicmap {
	struct level_tree tree;
};

static struct topicmap_node *node_of(struct level_node *n)
{
	return container_of(n, struct topicmap_node, level);
}

static struct level_node *first_child(struct level_node *n)
{
	struct topicmap_node *first =
		list_first(&node_of(n)->children, struct topicmap_node, sibling);

	return first ? &first->level : NULL;
}

static struct level_node *next_sibling(struct level_node *n)
{
	struct list *next = node_of(n)->sibling.next;

	if (next == &node_of(n->parent)->children)
		return NULL;
	return &list_entry(next, struct topicmap_node, sibling)->level;
}

static void linked(struct level_node *n)
{
	list_init(&node_of(n)->children);
	list_init(&node_of(n)->sibling);
	if (n->parent)
		list_add_head(&node_of(n->parent)->children, &node_of(n)->sibling);
}

static void unlinking(struct level_node *n)
{
	list_del(&node_of(n)->sibling);
}

struct topicmap *topicmap_new(const uint8_t hash_key[16])
{
	struct topicmap *m = malloc(sizeof(*m));

	if (!m)
		return NULL;
	if (level_tree_init(&m->tree, hash_key, sizeof(struct topicmap_node), linked, unlinking)) {
		free(m);
		return NULL;
	}
	return m;
}

void topicmap_free(struct topicmap *m)
{
	if (!m)
		return;
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

/* --- walks ------------------------------------------------------------------------------------ */

/* Does level i of the filter leave open what stands there? */
static bool is_open(struct level_path *p, unsigned i, unsigned rest_from)
{
	return i >= rest_from || level_path_is(p, i, '+');
}

/* The level of the filter's '#', or a number that no level has. */
static unsigned rest_level(struct level_path *p)
{
	unsigned n = 0;

	while (level_path_has(p, n))
		n++;
	return level_path_is(p, n - 1, '#') ? n - 1 : LEVEL_MAX;
}

/* At a node that only a list of children led to: does the filter's wildcard match it? */
static bool wildcard_matches(struct level_path *p, const struct level_node *n, unsigned depth,
			     unsigned rest_from)
{
	if (depth == 0 || !is_open(p, depth - 1, rest_from))
		return true;
	if (depth == 1 && level_text_hidden(level_node_text(n)))
		return false;
	return depth > rest_from || !n->deep;
}

static struct level_node *down(struct level_path *p, struct level_node *n, unsigned depth,
			       unsigned rest_from)
{
	if (depth < rest_from && !level_path_has(p, depth))
		return NULL;
	return is_open(p, depth, rest_from) ? first_child(n) : level_node_child(n, p, depth);
}

/* Back from n to the next choice of a wildcard. */
static struct level_node *next_choice(struct level_path *p, struct level_node *n, unsigned *depth,
				      unsigned rest_from)
{
	for (; *depth; n = n->parent, (*depth)--) {
		struct level_node *next = NULL;

		if (is_open(p, *depth - 1, rest_from))
			next = next_sibling(n);
		if (next)
			return next;
	}
	return NULL;
}

void topicmap_walk_begin(struct topicmap *m, struct topicmap_walk *w)
{
	w->at = m->tree.root;
	w->depth = 0;
	level_node_hold(w->at);
}

void topicmap_walk_end(struct topicmap *m, struct topicmap_walk *w)
{
	if (w->at)
		level_tree_put(&m->tree, w->at);
	w->at = NULL;
}

unsigned topicmap_walk(struct topicmap *m, struct bytes filter, struct topicmap_walk *w,
		       unsigned steps_max, bool (*each)(void *ctx, struct topicmap_entry *entry),
		       void *ctx)
{
	struct level_node *n = w->at;
	unsigned depth = w->depth, steps = 0, rest_from;
	struct level_path path;

	level_path_init(&path, &m->tree, filter);
	if (level_path_deep(&path)) {
		topicmap_walk_end(m, w);
		return 0;
	}
	rest_from = rest_level(&path);
	while (n && steps < steps_max) {
		struct level_node *next = NULL;

		if (wildcard_matches(&path, n, depth, rest_from)) {
			struct topicmap_entry *entry = node_of(n)->entry;
			bool whole = depth >= rest_from || !level_path_has(&path, depth);

			if (whole && entry && !each(ctx, entry))
				break;
			next = down(&path, n, depth, rest_from);
		}
		if (next)
			depth++;
		else
			next = next_choice(&path, n, &depth, rest_from);
		n = next;
		steps++;
	}
	if (n)
		level_node_hold(n);
	topicmap_walk_end(m, w);
	w->at = n;
	w->depth = depth;
	return steps;
}

size_t topicmap_nodes(const struct topicmap *m)
{
	return m->tree.nodes;
}
