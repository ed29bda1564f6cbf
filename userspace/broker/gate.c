// SPDX-License-Identifier: MIT
#include "userspace/broker/gate.h"

#include <errno.h>
#include <string.h>

#include "userspace/base/compiler.h"
#include "userspace/broker/broker.h"
#include "userspace/broker/table.h"

#define NS_PER_MS     1000000ull
#define NS_PER_SECOND 1000000000ull

/* How many come at once, of what is allowed in a second. */
#define CONNECTS_SECONDS 4
#define TOLD_SECONDS	 3
/* What the kernel does with segments of nobody's, and with SYNs at listeners of the other kind. */
#define STRAYS_PER_SECOND 100
#define SYNS_PER_SECOND	  100
/* With TCP_SYNCNT 2 a half-open connection lives for 1 + 2 + 4 s. */
#define PEND_NS (8 * NS_PER_SECOND)

struct gate_seen {
	UT_hash_handle hh;
	struct list by_use;
	uint64_t tag;
};

struct gate_source {
	UT_hash_handle hh;
	struct list by_use;
	struct admission_source source;
	struct admission_source_state state;
	uint64_t window_end_ms;
	unsigned failures; /* within the window */
};

struct gate_ban {
	UT_hash_handle hh;
	struct admission_source source;
	uint64_t until_ms;
};

static struct admission_rate rate_of(uint32_t per_second, uint32_t burst)
{
	return (struct admission_rate){ .interval_ns = NS_PER_SECOND / per_second, .burst = burst };
}

void gate_config(const struct broker_limits *l, struct admission_config *ret_config)
{
	*ret_config = (struct admission_config){
		.version = ADMISSION_VERSION,
		.pend_ns = PEND_NS,
		.device = rate_of(l->admission_connects_per_second,
				  CONNECTS_SECONDS * l->admission_connects_per_second),
		.no_clock = { .interval_ns = l->admission_no_clock_ms * NS_PER_MS, .burst = 1 },
		.told = rate_of(l->admission_told_per_second,
				TOLD_SECONDS * l->admission_told_per_second),
		.told_total = rate_of(l->admission_told_total_per_second,
				      l->admission_told_total_per_second),
		.stray = rate_of(STRAYS_PER_SECOND, STRAYS_PER_SECOND),
		.syn = rate_of(SYNS_PER_SECOND, SYNS_PER_SECOND),
	};
}

void gate_init(struct gate *g, struct pool *pool, const struct broker_limits *limits)
{
	memset(g, 0, sizeof(*g));
	g->pool = pool;
	gate_config(limits, &g->config);
	g->config.device.burst *= 2;
	list_init(&g->seen_by_use);
	list_init(&g->sources_by_use);
}

static void drop_seen(struct gate *g, struct gate_seen *s)
{
	HASH_DEL(g->seen, s);
	list_del(&s->by_use);
	pool_free(g->pool, s);
	g->n_seen--;
}

static void drop_source(struct gate *g, struct gate_source *s)
{
	HASH_DEL(g->sources, s);
	list_del(&s->by_use);
	pool_free(g->pool, s);
	g->n_sources--;
}

static void drop_ban(struct gate *g, struct gate_ban *b)
{
	HASH_DEL(g->bans, b);
	pool_free(g->pool, b);
	g->n_bans--;
}

void gate_deinit(struct gate *g)
{
	struct gate_ban *ban, *next;

	while (!list_empty(&g->seen_by_use))
		drop_seen(g, list_entry(g->seen_by_use.next, struct gate_seen, by_use));
	while (!list_empty(&g->sources_by_use))
		drop_source(g, list_entry(g->sources_by_use.next, struct gate_source, by_use));
	HASH_ITER(hh, g->bans, ban, next)
		drop_ban(g, ban);
}

struct admission_source gate_source_of(const uint8_t address[16])
{
	struct admission_source s = { { 0 } };

	memcpy(s.address, address, admission_source_is_host(address) ? 16 : 8);
	return s;
}

/* --- what the judge asks for ------------------------------------------------------------------ */

struct gate_packet {
	struct gate *gate;
	struct bytes bytes;
};

#define ADMISSION_PACKET      struct gate_packet
#define ADMISSION_CLAMP_64(x) ((void)(x))

static int admission_load(const struct gate_packet *p, uint32_t at, void *to, uint64_t n)
{
	if (at > p->bytes.n || n > p->bytes.n - at)
		return -EFAULT;
	memcpy(to, p->bytes.p + at, n);
	return 0;
}

static struct admission_device *admission_find_device(const struct gate_packet *p,
						      const struct admission_id *id)
{
	return p->gate->find_device(p->gate->ctx, id);
}

/* A connection says CONNECT once, so there is no segment that may come again. */
static int admission_find_seen(const struct gate_packet *p, uint64_t tag,
			       const struct admission_seen *now)
{
	struct gate_seen *s;

	HASH_FIND(hh, p->gate->seen, &tag, sizeof(tag), s);
	return s ? -1 : 0;
}

static int admission_remember(const struct gate_packet *p, uint64_t tag,
			      const struct admission_seen *now)
{
	struct gate *g = p->gate;
	struct gate_seen *s;

	if (g->n_seen == GATE_SEEN_MAX)
		drop_seen(g, list_entry(g->seen_by_use.next, struct gate_seen, by_use));
	s = pool_zalloc(g->pool, sizeof(*s));
	if (!s)
		return -1; /* what cannot be remembered is not let in: it could come twice */
	s->tag = tag;
	table_oom = false;
	HASH_ADD(hh, g->seen, tag, sizeof(s->tag), s);
	if (table_oom) {
		pool_free(g->pool, s);
		return -1;
	}
	list_add_tail(&g->seen_by_use, &s->by_use);
	g->n_seen++;
	return 0;
}

#include "bpf/admission_judge.h"

/* --- judging ---------------------------------------------------------------------------------- */

enum admission_verdict gate_judge(struct gate *g, struct gate_now now, struct bytes in)
{
	struct gate_packet p = { g, in };
	struct admission_claim claim = { 0 };
	uint64_t now_ns = now.mono_ms * NS_PER_MS;
	enum admission_verdict verdict;

	g->config.wall_offset_ns = now.wall_ms * NS_PER_MS - now_ns;
	verdict = admission_parse(&p, 0, (uint32_t)in.n, &claim);
	if (verdict == ADMISSION_OK)
		verdict = admission_weigh(&p, &claim, &g->config, now_ns, NULL);
	g->counters[verdict]++;
	return verdict;
}

static struct gate_source *find_source(struct gate *g, const struct admission_source *source)
{
	struct gate_source *s;

	HASH_FIND(hh, g->sources, source, sizeof(*source), s);
	return s;
}

/* NULL: no memory. */
static struct gate_source *use_source(struct gate *g, const struct admission_source *source)
{
	struct gate_source *s = find_source(g, source);

	if (s) {
		list_del(&s->by_use);
		list_add_tail(&g->sources_by_use, &s->by_use);
		return s;
	}
	if (g->n_sources == GATE_SOURCES_MAX)
		drop_source(g, list_entry(g->sources_by_use.next, struct gate_source, by_use));
	s = pool_zalloc(g->pool, sizeof(*s));
	if (!s)
		return NULL;
	s->source = *source;
	table_oom = false;
	HASH_ADD(hh, g->sources, source, sizeof(s->source), s);
	if (table_oom) {
		pool_free(g->pool, s);
		return NULL;
	}
	list_add_tail(&g->sources_by_use, &s->by_use);
	g->n_sources++;
	return s;
}

bool gate_may_tell(struct gate *g, struct gate_now now, const struct admission_source *source,
		   enum admission_verdict verdict)
{
	struct gate_source *s = use_source(g, source);
	uint64_t now_ns = now.mono_ms * NS_PER_MS;
	bool told;

	if (s) {
		s->state.rejected++;
		s->state.last = verdict;
	}
	told = s && admission_fits(&s->state.told_tat_ns, now_ns, &g->config.told) &&
	       admission_fits(&g->told_tat_ns, now_ns, &g->config.told_total);
	g->counters[told ? ADMISSION_TOLD : ADMISSION_DROPPED]++;
	return told;
}

bool gate_failed(struct gate *g, struct gate_now now, const struct admission_source *source,
		 unsigned failures_max, uint64_t window_ms)
{
	struct gate_source *s = use_source(g, source);

	if (!s)
		return false;
	if (now.mono_ms >= s->window_end_ms) {
		s->window_end_ms = now.mono_ms + window_ms;
		s->failures = 0;
	}
	if (++s->failures < failures_max)
		return false;
	s->failures = 0;
	return true;
}

void gate_passed(struct gate *g, const struct admission_source *source)
{
	struct gate_source *s = find_source(g, source);

	if (s)
		s->failures = 0;
}

void gate_each_rejected(const struct gate *g,
			void (*each)(void *ctx, const struct admission_source *source,
				     uint64_t rejected, enum admission_verdict last),
			void *ctx)
{
	const struct gate_source *s;

	for (s = g->sources; s; s = s->hh.next)
		if (s->state.rejected)
			each(ctx, &s->source, s->state.rejected,
			     (enum admission_verdict)s->state.last);
}

/* --- bans ------------------------------------------------------------------------------------- */

static struct gate_ban *find_ban(const struct gate *g, const struct admission_source *source)
{
	struct gate_ban *b;

	HASH_FIND(hh, g->bans, source, sizeof(*source), b);
	return b;
}

bool gate_banned(struct gate *g, struct gate_now now, const struct admission_source *source)
{
	struct gate_ban *b = g->n_bans ? find_ban(g, source) : NULL;

	if (!b)
		return false;
	if (now.mono_ms < b->until_ms) {
		g->counters[ADMISSION_BANNED]++;
		return true;
	}
	drop_ban(g, b);
	return false;
}

static void drop_ended(struct gate *g, uint64_t now_ms)
{
	struct gate_ban *b, *next;

	HASH_ITER(hh, g->bans, b, next)
		if (b->until_ms <= now_ms)
			drop_ban(g, b);
}

int gate_ban(struct gate *g, struct gate_now now, const struct admission_source *source,
	     uint64_t until_ms)
{
	struct gate_ban *b = find_ban(g, source);

	if (b) {
		b->until_ms = until_ms;
		return 0;
	}
	if (g->n_bans == GATE_BANS_MAX)
		drop_ended(g, now.mono_ms);
	if (g->n_bans == GATE_BANS_MAX)
		return -ENOSPC;
	b = pool_zalloc(g->pool, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->source = *source;
	b->until_ms = until_ms;
	table_oom = false;
	HASH_ADD(hh, g->bans, source, sizeof(b->source), b);
	if (table_oom) {
		pool_free(g->pool, b);
		return -ENOMEM;
	}
	g->n_bans++;
	return 0;
}

bool gate_unban(struct gate *g, const struct admission_source *source)
{
	struct gate_ban *b = find_ban(g, source);

	if (b)
		drop_ban(g, b);
	return b;
}

void gate_each_ban(const struct gate *g, struct gate_now now,
		   void (*each)(void *ctx, const struct admission_source *source, uint64_t left_ms),
		   void *ctx)
{
	const struct gate_ban *b;

	for (b = g->bans; b; b = b->hh.next)
		if (b->until_ms > now.mono_ms)
			each(ctx, &b->source, b->until_ms - now.mono_ms);
}
