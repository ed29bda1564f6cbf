/* SPDX-License-Identifier: MIT */
/*
 * The messages of a publisher from its input until the broker has them. A message keeps its
 * plaintext (it may have to be sealed anew) and, once sealed, the very bytes that are sent (sending
 * again means the same bytes, PROTOCOL 2).
 *
 *   waiting --send--> sent --acknowledged--> done (the last few, since an error may still come)
 *      ^------ connection lost, or sealed anew -----'
 *      |                                         v
 *      '---- sealed anew, under a newer key --- held, until there is one
 *
 * At most OUTBOX_MAX are waiting or sent (but for those that go back from done), so that their
 * counters stay within the broker's replay window when all of them are sent again behind a newer
 * Will.
 */
#ifndef SSDTF_CLIENT_OUTBOX_H
#define SSDTF_CLIENT_OUTBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/base/list.h"

#define OUTBOX_MAX	64
#define OUTBOX_DONE_MAX 64

enum outbox_state { OUTBOX_WAITING, OUTBOX_SENT, OUTBOX_DONE, OUTBOX_HELD };

struct outbox_message {
	struct list link;
	enum outbox_state state; /* which list it is on */
	uint8_t *plain;
	size_t plain_n;
	uint8_t *sealed; /* NULL: not yet */
	size_t sealed_n;
	uint64_t counter; /* with sealed */
	uint32_t key_id;  /* to whose key it was sealed last */
	uint64_t held_ms; /* while held: since when */
	int mid;	  /* while sent */
	unsigned seals;	  /* how often it was sealed */
	unsigned resends; /* of these bytes, after errors: the publisher's count */
};

struct outbox {
	struct list waiting, sent, done, held;
	unsigned n_active, n_done;
};

void outbox_init(struct outbox *o);
void outbox_deinit(struct outbox *o);

static inline bool outbox_full(const struct outbox *o)
{
	return o->n_active >= OUTBOX_MAX;
}

/* Copies plain. Not full. -ENOMEM. */
int outbox_add(struct outbox *o, struct bytes plain) must_check;
/* The next to be sent, or NULL. */
struct outbox_message *outbox_next(struct outbox *o);
/* Those that wait and are not sealed, in their order, max at most. Returns how many. */
unsigned outbox_unsealed(const struct outbox *o, struct outbox_message **ret_list, unsigned max);
/* From waiting to sent, before it is handed to the library. */
void outbox_mark_sent(struct outbox *o, struct outbox_message *m);
/* Back to the head of waiting: it was not sent after all. */
void outbox_unsend(struct outbox *o, struct outbox_message *m);
/* Acknowledged. */
void outbox_mark_done(struct outbox *o, struct outbox_message *m);
/* Given up. */
void outbox_drop(struct outbox *o, struct outbox_message *m);
/* Waiting, sent or done: it is not sent until it is sealed anew. */
void outbox_hold(struct outbox *o, struct outbox_message *m, uint64_t now_ms);
/* The one held longest, or NULL. */
struct outbox_message *outbox_held(struct outbox *o);
/* In any state: to be sealed anew and sent first. */
void outbox_reseal(struct outbox *o, struct outbox_message *m);
/* The connection is gone: all that was sent waits again, in the old order. */
void outbox_all_unsent(struct outbox *o);

struct outbox_message *outbox_by_mid(struct outbox *o, int mid);
struct outbox_message *outbox_by_counter(struct outbox *o, uint64_t counter);

#endif
