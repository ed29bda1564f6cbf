/* SPDX-License-Identifier: MIT */
/*
 * What the manager stated anew, to those who asked for it ($SSDTF/update, PROTOCOL 13). A session
 * says up to which serial it has everything; it is sent what concerns it above that, now and after
 * each newer bundle, one message at a time. While there are grants among them no delivery sets out
 * for it, until the last one is with the signer: so none comes by a grant that it does not know.
 *
 * What is queued in a session that is kept may set out as soon as its client is back. So where a
 * client asked in the connection before (or may have: the session is from disk), and there are
 * grants that it was not told of then, deliveries wait until it asks, but UPDATES_AWAITED_MS at
 * most.
 */
#ifndef SSDTF_BROKER_UPDATES_H
#define SSDTF_BROKER_UPDATES_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/base/list.h"
#include "userspace/base/timer.h"

struct broker;
struct broker_conn;

#define UPDATES_BYTES_MAX  60000 /* of one message, its trailer included */
#define UPDATES_AWAITED_MS 2000

/* Of one connection. */
struct updates_conn {
	struct list ready;    /* in updates.ready: something may be sent */
	bool asked;	      /* it wants them, */
	bool pending;	      /* and there may be some that it was not sent, */
	bool out;	      /* and one message is with the signer */
	uint64_t had;	      /* the serial up to which it has them, or will */
	uint32_t n;	      /* the last number sent */
	uint64_t next;	      /* the least number that is taken */
	struct timer awaited; /* runs while it may be about to ask */
};

/* Of a session. */
struct updates_session {
	bool asks;    /* its client asked in the connection before this one, or may have */
	uint64_t had; /* and said that it had them up to this serial */
};

struct updates {
	struct list ready;
	bool more;			 /* some had no turn */
	uint8_t body[UPDATES_BYTES_MAX]; /* of the message in hand */
};

void updates_init(struct updates *u);
void updates_conn_init(struct updates_conn *u);
/* The session is open. */
void updates_open(struct broker *b, struct broker_conn *c);
void updates_close(struct broker *b, struct broker_conn *c);
/* "What is newer?", its signature checked. False: malformed. */
bool updates_ask(struct broker *b, struct broker_conn *c, struct bytes body);
/* Another bundle is in force. */
void updates_bundle(struct broker *b);
/* May deliveries set out for it? What it still is to be sent goes before them, if it can. */
bool updates_told(struct broker *b, struct broker_conn *c);
/* There is room on its connection again. */
void updates_room(struct broker *b, struct broker_conn *c);
void updates_turn(struct broker *b);

#endif
