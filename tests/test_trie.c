// SPDX-License-Identifier: MIT
/*
 * The subscription trie and the map of topics against a naive matcher that walks the two texts:
 * the rules of MQTT 4.7 one by one, then random filters and topics with removal, and topics as deep
 * as the wire allows. A tree from which all was removed has no nodes left.
 */
#include "tests/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "userspace/base/siphash.h"
#include "userspace/mqtt/packet.h"
#include "userspace/mqtt/topicmap.h"
#include "userspace/mqtt/trie.h"

static const uint8_t hash_key[16] = "not so secret, 6";

static size_t below(size_t n)
{
	return harness_random() % n;
}

/* --- the reference ---------------------------------------------------------------------------- */

static bool matches(const char *filter, const char *topic)
{
	/* [MQTT-4.7.2-1] */
	if (topic[0] == '$' && (filter[0] == '+' || filter[0] == '#'))
		return false;
	for (;;) {
		size_t f = strcspn(filter, "/"), t = strcspn(topic, "/");

		if (f == 1 && filter[0] == '#')
			return true;
		if (!(f == 1 && filter[0] == '+') && (f != t || memcmp(filter, topic, f)))
			return false;
		filter += f;
		topic += t;
		if (!*topic)
			return !*filter || !strcmp(filter, "/#"); /* 4.7.1.2: the parent, too */
		if (!*filter)
			return false;
		filter++;
		topic++;
	}
}

/* --- collectors ------------------------------------------------------------------------------- */

static void count_sub(void *ctx, struct trie_sub *sub)
{
	(*(unsigned *)ctx)++;
}

static bool count_entry(void *ctx, struct topicmap_entry *entry)
{
	(*(unsigned *)ctx)++;
	return true;
}

static unsigned count_matches(struct trie *t, const char *topic)
{
	unsigned n = 0;

	(void)trie_match(t, bytes_str(topic), count_sub, &n);
	return n;
}

/* A whole walk; the steps that it took. */
static unsigned walk(struct topicmap *m, struct bytes filter,
		     bool (*each)(void *ctx, struct topicmap_entry *entry), void *ctx)
{
	struct topicmap_walk w;
	unsigned steps;

	topicmap_walk_begin(m, &w);
	steps = topicmap_walk(m, filter, &w, UINT32_MAX, each, ctx);
	ASSERT_TRUE(w.at == NULL);
	topicmap_walk_end(m, &w);
	return steps;
}

static unsigned found_by(struct topicmap *m, struct bytes filter)
{
	unsigned n = 0;

	(void)walk(m, filter, count_entry, &n);
	return n;
}

static unsigned count_found(struct topicmap *m, const char *filter)
{
	return found_by(m, bytes_str(filter));
}

/* --- SipHash ---------------------------------------------------------------------------------- */

/* The authors' list: key 00 01 .. 0f, message 00 01 .. (15 bytes of it: appendix A of the paper).
 */
TEST(siphash)
{
	static const struct {
		size_t n;
		uint64_t hash;
	} vectors[] = {
		{ 0, 0x726fdb47dd0e0e31 },  { 1, 0x74f839c593dc67fd },	{ 2, 0x0d6c8009d9a94f5a },
		{ 3, 0x85676696d7fb7e2d },  { 4, 0xcf2794e0277187b7 },	{ 5, 0x18765564cd99a68d },
		{ 6, 0xcbc9466e58fee3ce },  { 7, 0xab0200f58b01d137 },	{ 8, 0x93f5f5799a932462 },
		{ 15, 0xa129ca6149be45e5 }, { 16, 0x3f2acc7f57c29bdb }, { 63, 0x958a324ceb064572 },
	};
	uint8_t key[SIPHASH_KEY_BYTES], message[64];

	for (size_t i = 0; i < sizeof(message); i++)
		message[i] = (uint8_t)i;
	memcpy(key, message, sizeof(key));
	for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
		uint64_t hash = siphash(key, bytes_of(message, vectors[i].n));

		if (hash != vectors[i].hash)
			harness_fail(__FILE__, __LINE__, false, "%zu bytes: %016llx", vectors[i].n,
				     (unsigned long long)hash);
	}
	key[0] ^= 1;
	EXPECT_TRUE(siphash(key, bytes_of(message, 8)) != vectors[8].hash);
}

/* --- the rules -------------------------------------------------------------------------------- */

static const struct {
	const char *filter, *topic;
	bool match;
} rules[] = {
	{ "a/b", "a/b", true },
	{ "a/b", "a", false },
	{ "a/b", "a/b/c", false },
	{ "a/b", "a/B", false }, /* 4.7.3: case counts */
	{ "ab", "a", false },
	{ "a", "ab", false },
	{ "sport/tennis/player1/#", "sport/tennis/player1", true }, /* the examples of 4.7.1.2 */
	{ "sport/tennis/player1/#", "sport/tennis/player1/ranking", true },
	{ "sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true },
	{ "sport/#", "sport", true },
	{ "sport/#", "sports", false },
	{ "#", "a", true },
	{ "#", "a/b/c", true },
	{ "#", "/", true },
	{ "sport/tennis/+", "sport/tennis/player1", true }, /* of 4.7.1.3 */
	{ "sport/tennis/+", "sport/tennis/player1/ranking", false },
	{ "sport/+", "sport", false },
	{ "sport/+", "sport/", true },
	{ "+", "finance", true },
	{ "+", "/finance", false },
	{ "+/+", "/finance", true },
	{ "/+", "/finance", true },
	{ "+/tennis/#", "sport/tennis", true },
	{ "a/+/c", "a/b/c", true },
	{ "a/+/c", "a//c", true }, /* an empty level is a level */
	{ "a/+/c", "a/c", false },
	{ "a//c", "a//c", true },
	{ "a//c", "a/c", false },
	{ "a/", "a", false },
	{ "a", "a/", false },
	{ "/", "/", true },
	{ "/", "//", false },
	{ "+/+/+", "//", true },
	{ "/#", "/", true },
	{ "/#", "a", false },
	{ "/#", "/a/b", true },
	{ "#", "$SYS", false }, /* [MQTT-4.7.2-1] and what 4.7.2 says of it */
	{ "#", "$SYS/monitor", false },
	{ "#", "$", false },
	{ "+", "$SYS", false },
	{ "+/monitor/Clients", "$SYS/monitor/Clients", false },
	{ "+/#", "$SYS", false },
	{ "$SYS/#", "$SYS/monitor/Clients", true },
	{ "$SYS/#", "$SYS", true },
	{ "$SYS/monitor/+", "$SYS/monitor/Clients", true },
	{ "$SYS/+", "$SYS/$x", true },
	{ "#", "a/$b", true }, /* a '$' further on is a character like any other */
	{ "+/+", "a/$b", true },
	{ "a/#", "a/$b", true },
	{ "#", "/$SYS", true },
};

TEST(rules_of_the_trie)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		struct trie *t = trie_new(hash_key);
		struct trie_sub sub = { .owner = t };

		ASSERT_TRUE(t);
		ASSERT_EQ(matches(rules[i].filter, rules[i].topic), rules[i].match);
		ASSERT_EQ(trie_add(t, bytes_str(rules[i].filter), &sub), 0);
		if (count_matches(t, rules[i].topic) != rules[i].match)
			harness_fail(__FILE__, __LINE__, false, "%s and %s", rules[i].filter,
				     rules[i].topic);
		trie_remove(t, &sub);
		EXPECT_EQ(trie_nodes(t), 0);
		EXPECT_EQ(count_matches(t, rules[i].topic), 0);
		trie_free(t);
	}
}

TEST(rules_of_the_topicmap)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		struct topicmap *m = topicmap_new(hash_key);
		struct topicmap_entry entry = { NULL }, *old = &entry;

		ASSERT_TRUE(m);
		ASSERT_EQ(topicmap_put(m, bytes_str(rules[i].topic), &entry, &old), 0);
		EXPECT_TRUE(old == NULL);
		if (count_found(m, rules[i].filter) != rules[i].match)
			harness_fail(__FILE__, __LINE__, false, "%s and %s", rules[i].filter,
				     rules[i].topic);
		topicmap_remove(m, &entry);
		EXPECT_EQ(topicmap_nodes(m), 0);
		EXPECT_EQ(count_found(m, rules[i].filter), 0);
		topicmap_free(m);
	}
}

/* --- at random (the seed is printed at start) ------------------------------------------------- */

#define SLOTS	    300
#define TEXT_MAX    64
#define OWNERS	    5
#define RANDOM_OPS  40000
#define COUNT_EVERY 500

static const char *const levels[] = { "", "a", "b", "c", "ab", "$", "$a", "\xc3\xa9" };

/* Few levels out of few words, so that topics and filters meet. Returns out. */
static const char *random_text(char *out, bool wild)
{
	size_t n = 1 + below(5), used = 0;

	do {
		used = 0;
		for (size_t i = 0; i < n; i++) {
			const char *level = levels[below(ARRAY_SIZE(levels))];

			if (wild && below(3) == 0)
				level = "+";
			if (wild && i + 1 == n && below(3) == 0)
				level = "#";
			used += (size_t)snprintf(out + used, TEXT_MAX - used, "%s%s", i ? "/" : "",
						 level);
		}
	} while (used == 0);
	return out;
}

/* The nodes that a tree with these texts must have: one for each way in which one of them begins.
 */
static char seen[SLOTS * 6][TEXT_MAX + 2];

static size_t add_prefixes(size_t n, const char *text)
{
	for (size_t end = 0;; end++) {
		size_t i = 0;

		if (text[end] && text[end] != '/')
			continue;
		snprintf(seen[n], sizeof(seen[n]), "%.*s/", (int)end, text);
		while (strcmp(seen[i], seen[n])) /* at the latest it meets itself */
			i++;
		n += i == n;
		if (!text[end])
			return n;
	}
}

struct slot {
	char text[TEXT_MAX]; /* "": not in use */
	struct trie_sub sub;
	struct topicmap_entry entry;
	unsigned times; /* seen by the last match */
};

static struct slot slots[SLOTS];
static struct list owners[OWNERS]; /* of their subscriptions */

static size_t expected_nodes(void)
{
	size_t n = 0;

	for (size_t i = 0; i < SLOTS; i++)
		if (slots[i].text[0])
			n = add_prefixes(n, slots[i].text);
	return n;
}

static void mark_sub(void *ctx, struct trie_sub *sub)
{
	container_of(sub, struct slot, sub)->times++;
}

static bool mark_entry(void *ctx, struct topicmap_entry *entry)
{
	container_of(entry, struct slot, entry)->times++;
	return true;
}

static void check_match(struct trie *t)
{
	char topic[TEXT_MAX];

	random_text(topic, false);
	for (size_t i = 0; i < SLOTS; i++)
		slots[i].times = 0;
	ASSERT_LE(trie_match(t, bytes_str(topic), mark_sub, NULL), 2 * (trie_nodes(t) + 1));
	for (size_t i = 0; i < SLOTS; i++)
		if (slots[i].times != (slots[i].text[0] && matches(slots[i].text, topic)))
			harness_fail(__FILE__, __LINE__, true, "filter %s, topic %s: %u times",
				     slots[i].text, topic, slots[i].times);
}

static struct slot *slot_with(const char *text, const void *owner)
{
	for (size_t i = 0; i < SLOTS; i++)
		if (slots[i].text[0] && !strcmp(slots[i].text, text) &&
		    (!owner || slots[i].sub.owner == owner))
			return &slots[i];
	return NULL;
}

static void check_find(struct trie *t)
{
	char filter[TEXT_MAX];
	struct list *owner = &owners[below(OWNERS)];
	struct slot *s;

	random_text(filter, true);
	s = slot_with(filter, owner);
	ASSERT_TRUE(trie_find(t, bytes_str(filter), owner, owner) == (s ? &s->sub : NULL));
}

static void change_sub(struct trie *t, struct slot *s)
{
	char filter[TEXT_MAX];
	struct list *owner = &owners[below(OWNERS)];
	uint8_t text[TEXT_MAX];

	if (s->text[0]) {
		ASSERT_EQ(trie_filter(&s->sub, text, sizeof(text)), strlen(s->text));
		ASSERT_BYTES(text, s->text, strlen(s->text));
		trie_remove(t, &s->sub);
		list_del(&s->sub.by_owner);
		s->text[0] = 0;
		return;
	}
	random_text(filter, true);
	if (slot_with(filter, owner))
		return;
	s->sub.owner = owner;
	ASSERT_EQ(trie_add(t, bytes_str(filter), &s->sub), 0);
	list_add_tail(owner, &s->sub.by_owner);
	memcpy(s->text, filter, sizeof(filter));
}

TEST(trie_at_random)
{
	struct trie *t = trie_new(hash_key);

	ASSERT_TRUE(t);
	for (size_t i = 0; i < OWNERS; i++)
		list_init(&owners[i]);
	for (unsigned op = 0; op < RANDOM_OPS; op++) {
		change_sub(t, &slots[below(SLOTS)]);
		check_match(t);
		check_find(t);
		if (op % COUNT_EVERY == 0)
			ASSERT_EQ(trie_nodes(t), expected_nodes());
	}
	for (size_t i = 0; i < SLOTS; i++)
		if (slots[i].text[0])
			change_sub(t, &slots[i]);
	EXPECT_EQ(trie_nodes(t), 0);
	trie_free(t);
}

static void check_find_by_filter(struct topicmap *m)
{
	char filter[TEXT_MAX];

	random_text(filter, true);
	for (size_t i = 0; i < SLOTS; i++)
		slots[i].times = 0;
	(void)walk(m, bytes_str(filter), mark_entry, NULL);
	for (size_t i = 0; i < SLOTS; i++)
		if (slots[i].times != (slots[i].text[0] && matches(filter, slots[i].text)))
			harness_fail(__FILE__, __LINE__, true, "filter %s, topic %s: %u times",
				     filter, slots[i].text, slots[i].times);
}

static void change_entry(struct topicmap *m, struct slot *s)
{
	struct topicmap_entry *old = &s->entry;
	char topic[TEXT_MAX];
	struct slot *had;
	uint8_t text[TEXT_MAX];

	if (s->text[0]) {
		ASSERT_EQ(topicmap_topic(&s->entry, text, sizeof(text)), strlen(s->text));
		ASSERT_BYTES(text, s->text, strlen(s->text));
		ASSERT_TRUE(topicmap_get(m, bytes_str(s->text)) == &s->entry);
		topicmap_remove(m, &s->entry);
		ASSERT_TRUE(topicmap_get(m, bytes_str(s->text)) == NULL);
		s->text[0] = 0;
		return;
	}
	random_text(topic, false);
	had = slot_with(topic, NULL);
	ASSERT_TRUE(topicmap_get(m, bytes_str(topic)) == (had ? &had->entry : NULL));
	ASSERT_EQ(topicmap_put(m, bytes_str(topic), &s->entry, &old), 0);
	ASSERT_TRUE(old == (had ? &had->entry : NULL));
	if (had) {
		ASSERT_TRUE(had->entry.node == NULL);
		had->text[0] = 0;
	}
	memcpy(s->text, topic, sizeof(topic));
}

TEST(topicmap_at_random)
{
	struct topicmap *m = topicmap_new(hash_key);

	ASSERT_TRUE(m);
	for (unsigned op = 0; op < RANDOM_OPS; op++) {
		change_entry(m, &slots[below(SLOTS)]);
		check_find_by_filter(m);
		if (op % COUNT_EVERY == 0)
			ASSERT_EQ(topicmap_nodes(m), expected_nodes());
	}
	for (size_t i = 0; i < SLOTS; i++)
		if (slots[i].text[0])
			change_entry(m, &slots[i]);
	EXPECT_EQ(topicmap_nodes(m), 0);
	topicmap_free(m);
}

/* --- walks while the map changes -------------------------------------------------------------- */

#define WALKS	   4
#define WALK_STEPS 20000

static struct random_walk {
	struct topicmap *map;
	struct topicmap_walk walk;
	char filter[TEXT_MAX];
	bool changed[SLOTS]; /* since it began: what it finds of these is as it may be */
	unsigned found[SLOTS];
	unsigned room; /* how many entries it may still be given now */
} walks[WALKS];

static void begin(struct random_walk *w, struct topicmap *m)
{
	*w = (struct random_walk){ .map = m };
	random_text(w->filter, true);
	topicmap_walk_begin(m, &w->walk);
}

static bool mark_found(void *ctx, struct topicmap_entry *entry)
{
	struct random_walk *w = ctx;
	struct slot *s = container_of(entry, struct slot, entry);

	ASSERT_TRUE(s->text[0] && matches(w->filter, s->text));
	if (!w->room)
		return false;
	w->room--;
	w->found[s - slots]++;
	return true;
}

static void go_on(struct random_walk *w)
{
	unsigned steps = 1 + (unsigned)below(30);

	w->room = (unsigned)below(20);
	ASSERT_LE(topicmap_walk(w->map, bytes_str(w->filter), &w->walk, steps, mark_found, w),
		  steps);
	if (w->walk.at) {
		if (below(100) == 0) {
			topicmap_walk_end(w->map, &w->walk);
			begin(w, w->map);
		}
		return;
	}
	for (size_t i = 0; i < SLOTS; i++)
		if (!w->changed[i] &&
		    w->found[i] != (slots[i].text[0] && matches(w->filter, slots[i].text)))
			harness_fail(__FILE__, __LINE__, true, "filter %s, topic %s: %u times",
				     w->filter, slots[i].text, w->found[i]);
	begin(w, w->map);
}

static void note_changes(const char before[SLOTS][TEXT_MAX])
{
	for (size_t i = 0; i < SLOTS; i++)
		for (size_t j = 0; j < WALKS && strcmp(before[i], slots[i].text); j++)
			walks[j].changed[i] = true;
}

TEST(topicmap_walks_at_random)
{
	static char before[SLOTS][TEXT_MAX];
	struct topicmap *m = topicmap_new(hash_key);

	ASSERT_TRUE(m);
	for (size_t i = 0; i < WALKS; i++)
		begin(&walks[i], m);
	for (unsigned step = harness_rounds(WALK_STEPS); step; step--) {
		size_t few = 1 + below(SLOTS); /* at times the map is nearly empty */

		go_on(&walks[below(WALKS)]);
		for (size_t i = 0; i < SLOTS; i++)
			memcpy(before[i], slots[i].text, TEXT_MAX);
		for (size_t n = below(3) ? 0 : below(8); n; n--)
			change_entry(m, &slots[below(few)]);
		note_changes(before);
	}
	for (size_t i = 0; i < SLOTS; i++)
		if (slots[i].text[0])
			change_entry(m, &slots[i]);
	for (size_t i = 0; i < WALKS; i++)
		topicmap_walk_end(m, &walks[i].walk);
	EXPECT_EQ(topicmap_nodes(m), 0);
	topicmap_free(m);
}

/* One that is put where a walk has been is not found; one where it has not been may be. A walk that
 * stands on what goes goes on. */
TEST(topicmap_walk_stands_on_what_goes)
{
	struct topicmap *m = topicmap_new(hash_key);
	struct topicmap_entry entries[3], *old;
	static const char *const topics[] = { "a/1/x", "a/2", "a/3/y/z" };
	struct topicmap_walk w;
	unsigned n = 0;

	ASSERT_TRUE(m);
	for (int i = 0; i < 3; i++)
		ASSERT_EQ(topicmap_put(m, bytes_str(topics[i]), &entries[i], &old), 0);
	for (unsigned steps = 0; steps < 8; steps++) {
		topicmap_walk_begin(m, &w);
		ASSERT_EQ(topicmap_walk(m, bytes_str("a/#"), &w, steps, count_entry, &n), steps);
		for (int i = 0; i < 3; i++)
			topicmap_remove(m, &entries[i]);
		ASSERT_EQ(topicmap_nodes(m) > 0, steps > 0 && w.at);
		if (steps % 2)
			ASSERT_LE(topicmap_walk(m, bytes_str("a/#"), &w, 9, count_entry, &n), 4);
		topicmap_walk_end(m, &w);
		ASSERT_EQ(topicmap_nodes(m), 0);
		for (int i = 0; i < 3; i++)
			ASSERT_EQ(topicmap_put(m, bytes_str(topics[i]), &entries[i], &old), 0);
	}
	for (int i = 0; i < 3; i++)
		topicmap_remove(m, &entries[i]);
	topicmap_free(m);
}

/* However fast the map grows: what is new stands where no walk comes. */
TEST(topicmap_walk_ends)
{
	enum { N = 100 };
	struct topicmap *m = topicmap_new(hash_key);
	static struct topicmap_entry entries[4 * N];
	struct topicmap_entry *old;
	struct topicmap_walk w;
	unsigned n = 0, found = 0;
	char topic[16];

	ASSERT_TRUE(m);
	topicmap_walk_begin(m, &w);
	do {
		for (unsigned more = n < N ? N : 1; more; more--, n++) {
			snprintf(topic, sizeof(topic), "a/%u", n);
			ASSERT_LT(n, ARRAY_SIZE(entries));
			ASSERT_EQ(topicmap_put(m, bytes_str(topic), &entries[n], &old), 0);
		}
		(void)topicmap_walk(m, bytes_str("a/+"), &w, 1, count_entry, &found);
	} while (w.at);
	EXPECT_TRUE(found >= N && found <= N + 2); /* those of before it was at "a" */
	while (n)
		topicmap_remove(m, &entries[--n]);
	topicmap_free(m);
}

/* --- depth ------------------------------------------------------------------------------------ */

/* n levels, each of text, joined. */
static struct bytes repeat(const char *level, size_t n)
{
	size_t length = n * strlen(level) + n - 1, one = strlen(level);
	uint8_t *p = malloc(length + 1);

	ASSERT_TRUE(p);
	for (size_t i = 0; i < n; i++) {
		memcpy(p + i * (one + 1), level, one);
		p[i * (one + 1) + one] = '/';
	}
	return bytes_of(p, length);
}

static void drop(struct bytes v)
{
	free((void *)(uintptr_t)v.p);
}

static unsigned count_deep(struct trie *t, const char *level, size_t n)
{
	struct bytes topic = repeat(level, n);
	unsigned found = 0;

	(void)trie_match(t, topic, count_sub, &found);
	drop(topic);
	return found;
}

static struct list nobody = { &nobody, &nobody };

TEST(filters_of_the_most_levels)
{
	struct trie *t = trie_new(hash_key);
	struct bytes plus = repeat("+", TRIE_PLUS_LEVELS), slashes = repeat("", TRIE_LEVELS_MAX),
		     most = repeat("x", TRIE_LEVELS_MAX), all = repeat("", UINT16_MAX + 1);
	struct bytes more[] = { repeat("x", TRIE_LEVELS_MAX + 1), repeat("", TRIE_LEVELS_MAX + 1),
				repeat("+", TRIE_PLUS_LEVELS + 1), all };
	struct trie_sub sub[4] = { { .owner = t }, { .owner = t }, { .owner = t }, { .owner = t } };
	uint8_t rest[2 * TRIE_LEVELS_MAX];

	ASSERT_TRUE(t);
	for (size_t i = 0; i < ARRAY_SIZE(more); i++) {
		EXPECT_EQ(trie_add(t, more[i], &sub[0]), -E2BIG);
		EXPECT_TRUE(trie_find(t, more[i], t, &nobody) == NULL);
	}
	EXPECT_EQ(trie_nodes(t), 0);
	ASSERT_EQ(trie_add(t, most, &sub[0]), 0);
	ASSERT_EQ(trie_add(t, slashes, &sub[1]), 0);
	ASSERT_EQ(trie_add(t, plus, &sub[2]), 0);
	memcpy(rest, most.p, most.n);
	rest[most.n - 1] = '#';
	ASSERT_EQ(trie_add(t, bytes_of(rest, most.n), &sub[3]), 0); /* '#' in the last level */
	EXPECT_EQ(trie_nodes(t), 2 * TRIE_LEVELS_MAX + TRIE_PLUS_LEVELS + 1);

	EXPECT_EQ(count_deep(t, "y", TRIE_PLUS_LEVELS), 1);
	EXPECT_EQ(count_deep(t, "x", TRIE_LEVELS_MAX - 2), 0);
	EXPECT_EQ(count_deep(t, "x", TRIE_LEVELS_MAX - 1), 1); /* its parent */
	EXPECT_EQ(count_deep(t, "x", TRIE_LEVELS_MAX), 2);
	EXPECT_EQ(count_deep(t, "x", TRIE_LEVELS_MAX + 1), 1); /* '#' alone */
	EXPECT_EQ(count_deep(t, "", TRIE_LEVELS_MAX), 1);
	EXPECT_EQ(count_deep(t, "", TRIE_LEVELS_MAX + 1), 0);
	EXPECT_EQ(count_deep(t, "", UINT16_MAX + 1), 0); /* 65,535 bytes of '/' */
	for (int i = 0; i < 4; i++)
		trie_remove(t, &sub[i]);
	EXPECT_EQ(trie_nodes(t), 0);
	trie_free(t);
	drop(plus);
	drop(slashes);
	drop(most);
	for (size_t i = 0; i < ARRAY_SIZE(more); i++)
		drop(more[i]);
}

/* Every filter of '+' and "a" that there may be, and each once more with "/#" behind it. */
TEST(all_branches)
{
	enum { WIDE = TRIE_WIDTH_MAX, DEEP = TRIE_LEVELS_MAX };
	static struct trie_sub subs[2][DEEP + 1][WIDE];
	struct trie *t = trie_new(hash_key);
	char text[2 * DEEP + 2];
	unsigned looked_at, n = 0, found = 0, nodes = 0, rests = 0;
	struct bytes topic = repeat("a", DEEP + 9);

	ASSERT_TRUE(t);
	for (unsigned depth = 1; depth <= DEEP; depth++) {
		for (unsigned bits = 0; bits < (depth < 8 ? 1u << depth : WIDE); bits++, n++) {
			struct trie_sub *sub = &subs[0][depth][bits], *rest = &subs[1][depth][bits];

			for (unsigned i = 0; i < depth; i++) {
				text[2 * i] = i < TRIE_PLUS_LEVELS && bits >> i & 1 ? '+' : 'a';
				text[2 * i + 1] = '/';
			}
			text[2 * depth] = '#';
			sub->owner = rest->owner = t;
			ASSERT_EQ(trie_add(t, bytes_of(text, 2 * depth - 1), sub), 0);
			ASSERT_EQ(trie_add(t, bytes_of(text, 2 * depth + 1), rest),
				  depth < DEEP ? 0 : -E2BIG);
		}
	}
	EXPECT_EQ(trie_nodes(t), 2 * n - WIDE);
	for (unsigned depth = 1; depth <= DEEP; depth++) {
		unsigned wide = depth < 8 ? 1u << depth : WIDE;

		found = 0;
		looked_at = trie_match(t, bytes_of(topic.p, 2 * depth - 1), count_sub, &found);
		nodes += wide;
		rests += depth < DEEP ? wide : 0;
		ASSERT_EQ(looked_at, 1 + nodes + rests);
		ASSERT_EQ(found, wide + rests);
		ASSERT_LE(count_deep(t, "b", depth), 2 * DEEP);
	}
	/* The most that there can be; a deeper topic's is no more. */
	found = 0;
	looked_at = trie_match(t, topic, count_sub, &found);
	ASSERT_LE(looked_at, TRIE_LOOKS_MAX);
	ASSERT_GT(looked_at, TRIE_LOOKS_MAX / 10 * 9);
	EXPECT_EQ(found, n - WIDE); /* those with '#' */
	for (size_t i = 0; i < 2 * (DEEP + 1) * WIDE; i++)
		if ((&subs[0][0][0])[i].node)
			trie_remove(t, &(&subs[0][0][0])[i]);
	EXPECT_EQ(trie_nodes(t), 0);
	trie_free(t);
	drop(topic);
}

/* Topics of more levels than filters may have keep what their first levels say about them. */
TEST(deep_topics_kept)
{
	enum { N = 4 };
	struct topicmap *m = topicmap_new(hash_key);
	struct bytes topics[N] = { repeat("a", TRIE_LEVELS_MAX), repeat("a", TRIE_LEVELS_MAX + 1),
				   repeat("a", 1000), repeat("", UINT16_MAX + 1) };
	struct bytes plus = repeat("+", TRIE_LEVELS_MAX), more = repeat("+", TRIE_LEVELS_MAX + 1);
	struct topicmap_entry entries[N], *old;
	uint8_t rest[2 * TRIE_LEVELS_MAX];
	static uint8_t name[UINT16_MAX];

	ASSERT_TRUE(m);
	for (int i = 0; i < N; i++)
		ASSERT_EQ(topicmap_put(m, topics[i], &entries[i], &old), 0);
	for (int i = 0; i < N; i++) {
		EXPECT_TRUE(topicmap_get(m, topics[i]) == &entries[i]);
		ASSERT_EQ(topicmap_topic(&entries[i], name, sizeof(name)), topics[i].n);
		ASSERT_BYTES(name, topics[i].p, topics[i].n);
	}
	EXPECT_TRUE(topicmap_get(m, bytes_of(topics[2].p, 1001)) == NULL);
	ASSERT_LE(topicmap_nodes(m), N * TRIE_LEVELS_MAX);

	EXPECT_EQ(found_by(m, bytes_str("#")), N);
	EXPECT_EQ(found_by(m, bytes_str("a/#")), 3);
	EXPECT_EQ(found_by(m, bytes_str("/#")), 1);
	EXPECT_EQ(found_by(m, bytes_str("+/+/+/#")), N);
	EXPECT_EQ(found_by(m, plus), 1); /* not those that go on behind it */
	EXPECT_EQ(found_by(m, topics[0]), 1);
	EXPECT_EQ(found_by(m, more), 0);      /* no filter of the trie */
	EXPECT_EQ(found_by(m, topics[1]), 0); /* nor this, though it is a topic here */
	memcpy(rest, plus.p, plus.n);
	rest[plus.n - 1] = '#';
	EXPECT_EQ(found_by(m, bytes_of(rest, plus.n)), N);
	for (int i = 0; i < N; i++)
		topicmap_remove(m, &entries[i]);
	EXPECT_EQ(topicmap_nodes(m), 0);
	topicmap_free(m);
	for (int i = 0; i < N; i++)
		drop(topics[i]);
	drop(plus);
	drop(more);
}

/* --- many ------------------------------------------------------------------------------------- */

#define MANY 100000

static struct trie_sub many[MANY];
static struct list owned[MANY];

/* One filter, many owners: each is found, in whatever order they go. */
TEST(one_filter_many_owners)
{
	struct trie *t = trie_new(hash_key);
	struct bytes filter = bytes_str("all/+");

	ASSERT_TRUE(t);
	for (unsigned i = 0; i < MANY; i++) {
		many[i].owner = &many[i];
		list_init(&owned[i]);
		ASSERT_TRUE(trie_find(t, filter, &many[i], &owned[i]) == NULL);
		ASSERT_EQ(trie_add(t, filter, &many[i]), 0);
		list_add_tail(&owned[i], &many[i].by_owner);
	}
	EXPECT_EQ(trie_nodes(t), 2);
	EXPECT_EQ(count_matches(t, "all/x"), MANY);
	for (unsigned i = 0; i < MANY; i++) {
		size_t at = (i * 7919ul) % MANY; /* a prime: each once */
		struct trie_sub *sub = &many[at];

		ASSERT_TRUE(trie_find(t, filter, sub, &owned[at]) == sub);
		trie_remove(t, sub);
		list_del(&sub->by_owner);
		ASSERT_TRUE(trie_find(t, filter, sub, &owned[at]) == NULL);
	}
	EXPECT_EQ(trie_nodes(t), 0);
	trie_free(t);
}

/* Many filters below one node, growing and shrinking its table. */
TEST(many_filters)
{
	struct trie *t = trie_new(hash_key);
	char text[32];

	ASSERT_TRUE(t);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(text, sizeof(text), "d/%u/x", i);
		many[i].owner = t;
		ASSERT_EQ(trie_add(t, bytes_str(text), &many[i]), 0);
	}
	EXPECT_EQ(trie_nodes(t), 1 + 2 * MANY);
	for (unsigned i = 0; i < MANY; i += 17) {
		snprintf(text, sizeof(text), "d/%u/x", i);
		ASSERT_EQ(count_matches(t, text), 1);
		text[strlen(text) - 1] = 'y';
		ASSERT_EQ(count_matches(t, text), 0);
	}
	for (unsigned i = 0; i < MANY; i++) {
		trie_remove(t, &many[i]);
		if (i % 1009 == 0 && i + 1 < MANY) {
			snprintf(text, sizeof(text), "d/%u/x", i + 1);
			ASSERT_EQ(count_matches(t, text), 1);
		}
	}
	EXPECT_EQ(trie_nodes(t), 0);
	trie_free(t);
}

/* --- odds and ends ---------------------------------------------------------------------------- */

/* Many filters of one owner, each of them of nobody else. */
TEST(many_filters_one_owner)
{
	struct trie *t = trie_new(hash_key);
	struct list mine;
	char text[32];

	ASSERT_TRUE(t);
	list_init(&mine);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(text, sizeof(text), "%u", i);
		many[i].owner = t;
		ASSERT_TRUE(trie_find(t, bytes_str(text), t, &mine) == NULL);
		ASSERT_EQ(trie_add(t, bytes_str(text), &many[i]), 0);
		list_add_tail(&mine, &many[i].by_owner);
		ASSERT_TRUE(trie_find(t, bytes_str(text), t, &mine) == &many[i]);
	}
	for (unsigned i = 0; i < MANY; i++)
		trie_remove(t, &many[i]);
	trie_free(t);
}

TEST(same_filter_two_owners)
{
	struct trie *t = trie_new(hash_key);
	struct trie_sub a = { .owner = &a, .qos = 1 }, b = { .owner = &b };
	struct list of_a;

	ASSERT_TRUE(t);
	list_init(&of_a);
	ASSERT_EQ(trie_add(t, bytes_str("x/y"), &a), 0);
	list_add_tail(&of_a, &a.by_owner);
	EXPECT_EQ(trie_add(t, bytes_str("x/y"), &b), 0);
	EXPECT_TRUE(trie_find(t, bytes_str("x/y"), &a, &of_a) == &a);
	EXPECT_TRUE(trie_find(t, bytes_str("x/y"), &owners, &nobody) == NULL);
	EXPECT_TRUE(trie_find(t, bytes_str("x"), &a, &of_a) == NULL); /* without subscriptions */
	EXPECT_TRUE(trie_find(t, bytes_str("x/+"), &a, &of_a) == NULL);
	EXPECT_TRUE(trie_find(t, bytes_str("x/#"), &a, &of_a) == NULL);
	EXPECT_EQ(count_matches(t, "x/y"), 2);
	trie_remove(t, &a);
	EXPECT_EQ(count_matches(t, "x/y"), 1);
	trie_remove(t, &b);
	trie_free(t);
	trie_free(NULL);
}

TEST(names_and_room)
{
	struct trie *t = trie_new(hash_key);
	struct topicmap *m = topicmap_new(hash_key);
	struct trie_sub sub = { .owner = t };
	struct topicmap_entry entry, *old;
	uint8_t out[8] = "-------";

	ASSERT_TRUE(t && m);
	ASSERT_EQ(trie_add(t, bytes_str("/+//#"), &sub), 0);
	ASSERT_EQ(topicmap_put(m, bytes_str("/a//b"), &entry, &old), 0);
	EXPECT_EQ(trie_filter(&sub, out, 4), 5);
	EXPECT_EQ(topicmap_topic(&entry, out, 0), 5);
	ASSERT_BYTES(out, "-------", 8);
	EXPECT_EQ(trie_filter(&sub, out, 5), 5);
	ASSERT_BYTES(out, "/+//#--", 8);
	EXPECT_EQ(topicmap_topic(&entry, out, sizeof(out)), 5);
	ASSERT_BYTES(out, "/a//b--", 8);
	trie_remove(t, &sub);
	EXPECT_TRUE(sub.node == NULL);
	trie_free(t);
	topicmap_remove(m, &entry);
	EXPECT_TRUE(entry.node == NULL);
	topicmap_free(m);
	topicmap_free(NULL);
}

/* A trie that runs out of memory says so, and is as it was. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool own_allocator = true;
#else
static const bool own_allocator = false;
#endif

TEST(no_memory)
{
	static char text[UINT16_MAX + 1];
	struct rlimit limit = { 64ul << 20, 64ul << 20 };
	struct topicmap_entry entry = { NULL }, *old = &entry;
	struct topicmap *m;
	struct trie *t;
	unsigned n = 0;
	size_t nodes;
	int err = 0;

	if (own_allocator)
		SKIP("a sanitizer's allocator does not go by RLIMIT_AS");
	t = trie_new(hash_key);
	m = topicmap_new(hash_key);
	ASSERT_TRUE(t && m);
	ASSERT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
	memset(text, 'x', UINT16_MAX);
	text[1] = text[3] = text[5] = '/';
	while (n < MANY) {
		snprintf(text + UINT16_MAX - 8, 9, "%08u",
			 n); /* its last node differs, and is large */
		text[0] = (char)('A' + n % 26);
		many[n].owner = t;
		nodes = trie_nodes(t);
		err = trie_add(t, bytes_str(text), &many[n]);
		if (err)
			break;
		n++;
	}
	EXPECT_EQ(err, -ENOMEM);
	EXPECT_EQ(trie_nodes(t), nodes); /* what it had begun is gone again */
	EXPECT_TRUE(trie_find(t, bytes_str(text), t, &nobody) == NULL);
	EXPECT_EQ(topicmap_put(m, bytes_str(text), &entry, &old), -ENOMEM);
	EXPECT_TRUE(old == &entry && topicmap_nodes(m) == 0);
	ASSERT_GT(n, 100);
	while (n)
		trie_remove(t, &many[--n]);
	EXPECT_EQ(trie_nodes(t), 0);
	trie_free(t);
	topicmap_free(m);
}

HARNESS_MAIN
