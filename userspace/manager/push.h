/* SPDX-License-Identifier: MIT */
/*
 * A gateway's bundle on its way to it (PROTOCOL 14): made, cut, its manifest signed, and its pieces
 * sealed to the gateway as they are asked for.
 *
 *   push_make() --> push_offer(), in each session anew --> push_take() of what the broker says
 *      ... --> push_ended()
 */
#ifndef SSDTF_MANAGER_PUSH_H
#define SSDTF_MANAGER_PUSH_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/manager/bundle_make.h"
#include "userspace/manager/manager.h"

struct session;
struct push;

/* Holds the bundle's admission keys until push_free(). Begins and ends transactions of its own. */
int push_make(struct manager *m, const struct bundle_terms *t, struct push **ret_p) must_check;
void push_free(struct push *p); /* NULL ok */

const char *push_gateway(const struct push *p);
uint64_t push_serial(const struct push *p);
void push_offer(struct push *p, struct session *s);
/* A message of the broker's; one about another bundle is none of ours. */
void push_take(struct push *p, struct session *s, struct bytes body);

enum push_state {
	PUSH_UNDER_WAY,
	PUSH_APPLIED,
	PUSH_REFUSED, /* push_words() says why */
};
enum push_state push_state(const struct push *p);
/* The gateway's words for people, harmless to print. */
const char *push_words(const struct push *p);

struct push_figures {
	uint64_t bytes, bytes_sent; /* of the bundle; with all that was said, as payload */
	uint32_t pieces, pieces_sent;
};
void push_figures(const struct push *p, struct push_figures *ret_f);

/* The gateway was revoked and was sent all of its last bundle, in which nobody is enrolled any
 * more: that it lets us in no longer means that it applied it. */
bool push_is_farewell(const struct push *p);

/* Writes down what the gateway has in force. */
int push_note_applied(struct manager *m, const struct push *p) must_check;

#endif
