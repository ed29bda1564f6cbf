/* SPDX-License-Identifier: MIT */
/*
 * Answers to a client that wait for the commit of what they say (durable.h): SUBACK, UNSUBACK,
 * PUBREL; in plain mode PUBACK, PUBREC and PUBCOMP, too. In the order of a connection's packets.
 * One that is owed many is not read from until it is owed fewer. (With SSDTF, PUBACK and PUBREC
 * have more to wait for: acks.h.)
 */
#ifndef SSDTF_BROKER_REPLY_H
#define SSDTF_BROKER_REPLY_H

#include <stdbool.h>

#include "userspace/base/bytes.h"
#include "userspace/base/list.h"

struct broker;
struct broker_conn;

struct replies {
	struct list next, out; /* for the next commit, for the one that is under way */
};

void replies_init(struct replies *r);
/* The packet: once all that has changed so far is stored, or at once, if none before it waits. */
void reply_send(struct broker_conn *c, struct bytes packet, bool wait);
/* What waits for the next commit waits for this one; or has nothing more to wait for. */
void replies_formed(struct broker *b);
void replies_release(struct broker *b, struct list *replies);
/* The connection closes: nothing is owed to it any more. */
void replies_close(struct broker_conn *c);

#endif
