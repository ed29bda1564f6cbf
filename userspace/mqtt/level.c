// SPDX-License-Identifier: MIT
#include "userspace/mqtt/level.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SEPARATOR '/'

#define BUCKETS_LOG_MAX	 30
#define SHRINK_BELOW_LOG 2 /* fewer than one child in so many buckets (log) */

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
	p->hash[p->n] = 0;
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

static uint32_t path_hash(struct level_path *p, unsigned i)
{
	if (!p->hash[i]) /* or it is 0, once in four billion */
		p->hash[i] = (uint32_t)siphash(p->tree->hash_key, p->text[i]);
	return p->hash[i];
}

/* --- the children of a node ------------------------------------------------------------------- */

static struct level_node **bucket_of(struct level_node *parent, uint32_t hash)
{
	return parent->buckets_log
		       ? &parent->children.many[hash & ((1u << parent->buckets_log) - 1)]
		       : &parent->children.one;
}

static void push(struct level_node *parent, struct level_node *child)
{
	struct level_node **bucket = bucket_of(parent, child->hash);

	child->next = *bucket;
	*bucket = child;
}

static void resize(struct level_node *parent, unsigned buckets_log)
{
	struct level_node old = *parent;

	if (buckets_log) {
		struct level_node **many = calloc((size_t)1 << buckets_log, sizeof(*many));

		if (!many)
			return;
		parent->children.many = many;
	} else {
		parent->children.one = NULL;
	}
	parent->buckets_log = buckets_log & 0x7f;
	for (uint32_t i = 0; i < 1u << old.buckets_log; i++) {
		struct level_node **bucket = bucket_of(&old, i);

		while (*bucket) {
			struct level_node *child = *bucket;

			*bucket = child->next;
			push(parent, child);
		}
	}
	if (old.buckets_log)
		free(old.children.many);
}

static void children_add(struct level_node *parent, struct level_node *child)
{
	push(parent, child);
	parent->n_children++;
	if (parent->n_children > 1u << parent->buckets_log && parent->buckets_log < BUCKETS_LOG_MAX)
		resize(parent, parent->buckets_log + 1u);
}

static void children_del(struct level_node *parent, struct level_node *child)
{
	struct level_node **at = bucket_of(parent, child->hash);

	while (*at != child) {
		BUG_ON(!*at);
		at = &(*at)->next;
	}
	*at = child->next;
	parent->n_children--;
	if (parent->n_children == 0 && parent->buckets_log)
		resize(parent, 0);
	else if (parent->n_children < 1u << parent->buckets_log >> SHRINK_BELOW_LOG)
		resize(parent, parent->buckets_log - 1u);
}

static bool text_equal(const struct level_node *n, struct bytes text)
{
	return n->text_n == text.n && bytes_equal(level_node_text(n), text);
}

struct level_node *level_node_child(const struct level_node *n, struct level_path *p, unsigned i)
{
	struct level_node *child = n->children.one;
	uint32_t hash;

	if (!n->buckets_log) { /* one at most, unless memory was short: not worth a hash */
		while (child && !text_equal(child, p->text[i]))
			child = child->next;
		return child;
	}
	hash = path_hash(p, i);
	child = n->children.many[hash & ((1u << n->buckets_log) - 1)];
	while (child && (child->hash != hash || !text_equal(child, p->text[i])))
		child = child->next;
	return child;
}

/* --- nodes ------------------------------------------------------------------------------------ */

static struct level_node *node_new(const struct level_tree *t, struct bytes text)
{
	struct level_node *n = calloc(1, t->node_bytes + text.n);

	if (!n)
		return NULL;
	n->text_at = (uint8_t)t->node_bytes;
	n->text_n = (uint16_t)text.n;
	n->deep = separator_in(text) != NULL;
	if (text.n)
		memcpy((uint8_t *)n + t->node_bytes, text.p, text.n);
	return n;
}

/* As in a filter, where '+' and '#' are names of children too. */
static struct level_node *child_of(const struct level_node *n, struct level_path *p, unsigned i)
{
	if (level_path_is(p, i, '+'))
		return n->plus;
	if (level_path_is(p, i, '#'))
		return n->rest;
	return level_node_child(n, p, i);
}

static struct level_node *child_new(struct level_tree *t, struct level_node *parent,
				    struct level_path *p, unsigned i)
{
	struct level_node *n = node_new(t, p->text[i]);

	if (!n)
		return NULL;
	if (level_path_is(p, i, '+')) {
		parent->plus = n;
	} else if (level_path_is(p, i, '#')) {
		parent->rest = n;
	} else {
		n->hash = path_hash(p, i);
		children_add(parent, n);
	}
	n->parent = parent;
	level_node_hold(parent);
	t->nodes++;
	if (t->linked)
		t->linked(n);
	return n;
}

static void child_free(struct level_tree *t, struct level_node *n)
{
	struct level_node *parent = n->parent;

	if (t->unlinking)
		t->unlinking(n);
	if (parent->plus == n)
		parent->plus = NULL;
	else if (parent->rest == n)
		parent->rest = NULL;
	else
		children_del(parent, n);
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

void level_node_hold(struct level_node *n)
{
	BUG_ON(n->refs == UINT32_MAX);
	n->refs++;
}

size_t level_node_name(const struct level_node *n, uint8_t *out, size_t room)
{
	const struct level_node *at;
	size_t length = 0, end;

	for (at = n; at->parent; at = at->parent)
		length += at->text_n + (at->parent->parent ? 1u : 0u);
	if (length > room)
		return length;
	end = length;
	for (at = n; at->parent; at = at->parent) {
		struct bytes text = level_node_text(at);

		end -= text.n;
		if (text.n)
			memcpy(out + end, text.p, text.n);
		if (at->parent->parent)
			out[--end] = SEPARATOR;
	}
	return length;
}

/* --- trees ------------------------------------------------------------------------------------ */

int level_tree_init(struct level_tree *t, const uint8_t hash_key[SIPHASH_KEY_BYTES],
		    size_t node_bytes, void (*linked)(struct level_node *),
		    void (*unlinking)(struct level_node *))
{
	BUG_ON(node_bytes < sizeof(struct level_node) || node_bytes > UINT8_MAX);
	*t = (struct level_tree){
		.node_bytes = node_bytes,
		.linked = linked,
		.unlinking = unlinking,
	};
	memcpy(t->hash_key, hash_key, sizeof(t->hash_key));
	t->root = node_new(t, bytes_of(NULL, 0));
	if (!t->root)
		return -ENOMEM;
	if (linked)
		linked(t->root);
	return 0;
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
	level_node_hold(n);
	*ret_node = n;
	return 0;
}

void level_tree_put(struct level_tree *t, struct level_node *n)
{
	BUG_ON(n->refs == 0);
	n->refs--;
	prune(t, n);
}
