// SPDX-License-Identifier: MIT
#include "userspace/mqtt/level.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SEPARATOR '/'

static const uint8_t *separator_in(struct bytes text)
{
	return text.n ? memchr(text.p, SEPARATOR, text.n) : NULL;
}

static bool text_is(struct bytes text, char c)
{
	return text.n == 1 && text.p[0] == (uint8_t)c;
}

bool level_text_hidden(struct bytes first)
{
	return first.n > 0 && first.p[0] == '$';
}

/* --- paths ------------------------------------------------------------------------------------ */

void level_path_init(struct level_path *p, const struct level_tree *t, struct bytes name)
{
	p->tree = t;
	p->left = name;
	p->ended = false;
	p->n = 0;
}

static void cut(struct level_path *p)
{
	/* The last level that there is room for takes all that is left. */
	const uint8_t *slash = p->n < LEVEL_MAX - 1 ? separator_in(p->left) : NULL;
	struct bytes text = p->left;

	if (slash) {
		text.n = (size_t)(slash - text.p);
		p->left = bytes_of(slash + 1, p->left.n - text.n - 1);
	} else {
		p->ended = true;
	}
	p->text[p->n] = text;
	p->hash[p->n] = siphash(p->tree->hash_key, text);
	p->n++;
}

bool level_path_has(struct level_path *p, unsigned i)
{
	if (i < p->n)
		return true;
	BUG_ON(i > p->n);
	if (p->ended)
		return false;
	cut(p);
	return true;
}

bool level_path_deep_at(const struct level_path *p, unsigned i)
{
	return i == LEVEL_MAX - 1 && separator_in(p->text[i]);
}

bool level_path_deep(struct level_path *p)
{
	while (!p->ended)
		cut(p);
	return level_path_deep_at(p, p->n - 1);
}

bool level_path_is(const struct level_path *p, unsigned i, char c)
{
	return text_is(p->text[i], c);
}

/* --- nodes ------------------------------------------------------------------------------------ */

static struct level_node *node_new(struct level_tree *t, struct bytes text)
{
	uint8_t *mem = calloc(1, t->node_bytes + text.n);
	struct level_node *n = (struct level_node *)(void *)mem;

	if (!n)
		return NULL;
	chain_table_init(&n->by_text);
	list_init(&n->children);
	list_init(&n->sibling);
	if (text.n)
		memcpy(mem + t->node_bytes, text.p, text.n);
	n->text = bytes_of(mem + t->node_bytes, text.n);
	n->deep = separator_in(text);
	if (t->node_init)
		t->node_init(n);
	return n;
}

struct level_node *level_node_child(const struct level_node *n, const struct level_path *p,
				    unsigned i)
{
	struct chain *c = chain_table_first(&n->by_text, p->hash[i]);

	for (; c; c = c->next) {
		struct level_node *child = container_of(c, struct level_node, chain);

		if (c->hash == p->hash[i] && bytes_equal(child->text, p->text[i]))
			return child;
	}
	return NULL;
}

/* As in a filter, where '+' and '#' are names of children too. */
static struct level_node *child_of(const struct level_node *n, const struct level_path *p,
				   unsigned i)
{
	if (level_path_is(p, i, '+'))
		return n->plus;
	if (level_path_is(p, i, '#'))
		return n->rest;
	return level_node_child(n, p, i);
}

static struct level_node *child_new(struct level_tree *t, struct level_node *parent,
				    const struct level_path *p, unsigned i)
{
	struct level_node *n = node_new(t, p->text[i]);

	if (!n)
		return NULL;
	if (level_path_is(p, i, '+'))
		parent->plus = n;
	else if (level_path_is(p, i, '#'))
		parent->rest = n;
	else
		chain_table_add(&parent->by_text, &n->chain, p->hash[i]);
	list_add_tail(&parent->children, &n->sibling);
	n->parent = parent;
	parent->refs++;
	t->nodes++;
	return n;
}

static void child_free(struct level_tree *t, struct level_node *n)
{
	struct level_node *parent = n->parent;

	if (parent->plus == n)
		parent->plus = NULL;
	else if (parent->rest == n)
		parent->rest = NULL;
	else
		chain_table_del(&parent->by_text, &n->chain);
	list_del(&n->sibling);
	parent->refs--;
	t->nodes--;
	free(n);
}

/* Frees n and its ancestors up to the first that is still there for something else. */
static void prune(struct level_tree *t, struct level_node *n)
{
	while (n->parent && n->refs == 0) {
		struct level_node *parent = n->parent;

		child_free(t, n);
		n = parent;
	}
}

size_t level_node_name(const struct level_node *n, uint8_t *out, size_t room)
{
	const struct level_node *at;
	size_t length = 0, end;

	for (at = n; at->parent; at = at->parent)
		length += at->text.n + (at->parent->parent ? 1 : 0);
	if (length > room)
		return length;
	end = length;
	for (at = n; at->parent; at = at->parent) {
		end -= at->text.n;
		if (at->text.n)
			memcpy(out + end, at->text.p, at->text.n);
		if (at->parent->parent)
			out[--end] = SEPARATOR;
	}
	return length;
}

/* --- trees ------------------------------------------------------------------------------------ */

int level_tree_init(struct level_tree *t, const uint8_t hash_key[SIPHASH_KEY_BYTES],
		    size_t node_bytes, void (*node_init)(struct level_node *))
{
	BUG_ON(node_bytes < sizeof(struct level_node));
	*t = (struct level_tree){ .node_bytes = node_bytes, .node_init = node_init };
	memcpy(t->hash_key, hash_key, sizeof(t->hash_key));
	t->root = node_new(t, bytes_of(NULL, 0));
	return t->root ? 0 : -ENOMEM;
}

void level_tree_deinit(struct level_tree *t)
{
	BUG_ON(t->root->refs);
	free(t->root);
}

struct level_node *level_tree_find(const struct level_tree *t, struct level_path *p)
{
	struct level_node *n = t->root;

	for (unsigned i = 0; n && level_path_has(p, i); i++)
		n = child_of(n, p, i);
	return n;
}

int level_tree_get(struct level_tree *t, struct level_path *p, struct level_node **ret_node)
{
	struct level_node *n = t->root;

	for (unsigned i = 0; level_path_has(p, i); i++) {
		struct level_node *child = child_of(n, p, i);

		if (!child)
			child = child_new(t, n, p, i);
		if (!child) {
			prune(t, n);
			return -ENOMEM;
		}
		n = child;
	}
	n->refs++;
	*ret_node = n;
	return 0;
}

void level_tree_put(struct level_tree *t, struct level_node *n)
{
	BUG_ON(n->refs == 0);
	n->refs--;
	prune(t, n);
}

struct level_node *level_tree_leaf(const struct level_tree *t)
{
	struct level_node *n = t->root;

	while (!list_empty(&n->children))
		n = list_first(&n->children, struct level_node, sibling);
	return n->parent ? n : NULL;
}
