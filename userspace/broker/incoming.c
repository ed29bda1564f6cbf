// SPDX-License-Identifier: MIT
#include "userspace/broker/incoming.h"

#define IDS	 65536u
#define PAGE_IDS 4096u
#define PAGES	 (IDS / PAGE_IDS)
#define WORD_IDS 64u

struct page {
	uint64_t words[PAGE_IDS / WORD_IDS];
};

struct incoming {
	unsigned n;
	uint16_t n_in[PAGES]; /* at most PAGE_IDS */
	struct page *pages[PAGES];
};

static uint64_t *word_of(const struct incoming *in, uint16_t packet_id)
{
	return &in->pages[packet_id / PAGE_IDS]->words[packet_id % PAGE_IDS / WORD_IDS];
}

static uint64_t bit_of(uint16_t packet_id)
{
	return UINT64_C(1) << (packet_id % WORD_IDS);
}

bool incoming_has(const struct incoming *in, uint16_t packet_id)
{
	return in && in->pages[packet_id / PAGE_IDS] && *word_of(in, packet_id) & bit_of(packet_id);
}

bool incoming_add(struct pool *pool, struct incoming **in, uint16_t packet_id)
{
	unsigned at = packet_id / PAGE_IDS;

	if (!*in)
		*in = pool_zalloc(pool, sizeof(**in));
	if (!*in)
		return false;
	if (!(*in)->pages[at])
		(*in)->pages[at] = pool_zalloc(pool, sizeof(struct page));
	if (!(*in)->pages[at]) {
		if ((*in)->n == 0)
			incoming_free(pool, in);
		return false;
	}
	*word_of(*in, packet_id) |= bit_of(packet_id);
	(*in)->n_in[at]++;
	(*in)->n++;
	return true;
}

void incoming_remove(struct pool *pool, struct incoming **in, uint16_t packet_id)
{
	unsigned at = packet_id / PAGE_IDS;

	if (!incoming_has(*in, packet_id))
		return;
	*word_of(*in, packet_id) &= ~bit_of(packet_id);
	if (--(*in)->n_in[at] == 0) {
		pool_free(pool, (*in)->pages[at]);
		(*in)->pages[at] = NULL;
	}
	if (--(*in)->n == 0)
		incoming_free(pool, in);
}

void incoming_free(struct pool *pool, struct incoming **in)
{
	for (unsigned i = 0; *in && i < PAGES; i++)
		pool_free(pool, (*in)->pages[i]);
	pool_free(pool, *in);
	*in = NULL;
}
