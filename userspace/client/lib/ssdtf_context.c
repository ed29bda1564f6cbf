// SPDX-License-Identifier: MIT
/*
 * A receiver's memory of contexts. A context is named by what its keys are computed from: the
 * grant, the suite, enc and x(E'). The commitment is not among them: it is each message's own, and
 * compared with each.
 *
 * x(E') is as good as random, so it says by itself where to look: in the few places from there on,
 * however large the caller's array is.
 */
#include "userspace/client/lib/ssdtf.h"

#include <string.h>

#include "userspace/client/lib/ssdtf_private.h"

#define WAYS 4

static struct ssdtf_context *place(struct ssdtf_client *c, const struct envelope *e, unsigned way)
{
	struct bytes_reader r = bytes_reader_of(e->x);

	return &c->contexts[(bytes_read_u32(&r) % c->n_contexts + way) % c->n_contexts];
}

static unsigned ways(const struct ssdtf_client *c)
{
	return c->n_contexts < WAYS ? c->n_contexts : WAYS;
}

const struct envelope_receiver *ssdtf_context_find(struct ssdtf_client *c, uint32_t grant,
						   const struct envelope *e)
{
	for (unsigned i = 0; i < ways(c); i++) {
		struct ssdtf_context *at = place(c, e, i);

		if (!at->used || at->grant != grant || at->receiver.hpke.suite != e->suite ||
		    !bytes_equal(e->enc, bytes_of(at->enc, sizeof(at->enc))) ||
		    !bytes_equal(e->x, bytes_of(at->x, sizeof(at->x))))
			continue;
		at->used = ++c->tick;
		return &at->receiver;
	}
	return NULL;
}

void ssdtf_context_keep(struct ssdtf_client *c, uint32_t grant, const struct envelope *e,
			const struct envelope_receiver *receiver)
{
	struct ssdtf_context *oldest = place(c, e, 0);

	for (unsigned i = 1; i < ways(c); i++)
		if (place(c, e, i)->used < oldest->used)
			oldest = place(c, e, i);
	oldest->used = ++c->tick;
	oldest->grant = grant;
	memcpy(oldest->enc, e->enc.p, sizeof(oldest->enc));
	memcpy(oldest->x, e->x.p, sizeof(oldest->x));
	oldest->receiver = *receiver;
}

void ssdtf_contexts_wipe_grant(struct ssdtf_client *c, uint32_t grant)
{
	for (unsigned i = 0; i < c->n_contexts; i++)
		if (c->contexts[i].grant == grant)
			secret_wipe(&c->contexts[i], sizeof(c->contexts[i]));
}

void ssdtf_contexts_wipe(struct ssdtf_client *c)
{
	secret_wipe(c->contexts, c->n_contexts * sizeof(c->contexts[0]));
}
