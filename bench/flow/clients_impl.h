/* SPDX-License-Identifier: MIT */
/*
 * What the files of the clients' process share. Private to them.
 */
#ifndef SSDTF_BENCH_CLIENTS_IMPL_H
#define SSDTF_BENCH_CLIENTS_IMPL_H

#include "bench/flow/clients.h"
#include "bench/flow/link.h"
#include "bench/flow/sample.h"
#include "bench/flow/topics.h"
#include "bench/flow/track.h"

#define CLIENTS_RX_BYTES  (LINK_PACKET_BYTES_MAX + (256u << 10))
#define CLIENTS_NS_PER_MS ((uint64_t)1000000)
#define CLIENTS_NS_PER_S  ((uint64_t)1000000000)

enum client_kind { CLIENT_SENDER, CLIENT_RECEIVER, CLIENT_IDLE, CLIENT_OTHER, CLIENT_CONNECT };

struct sender {
	struct link *link;
	struct tape tape;
	uint64_t due;	   /* open loop: messages whose time has come */
	uint64_t done;	   /* that reached all their receivers */
	uint64_t acked;	   /* PUBACK or PUBCOMP */
	uint64_t floor;	   /* below: given up, after a long wait */
	uint64_t moved_ns; /* when anything last went on */
	uint32_t *copies;  /* of the messages under way, by number; NULL: one receiver */
	uint64_t copies_n; /* a power of two */
	struct sender *next;
	bool listed, full; /* full: its ring had no room */
	uint8_t *owned;	   /* retained, plain: what the tape is made of */
	uint64_t *owned_ends;
};

struct receiver {
	struct link *link;
	bool subscribed;
	struct track *tracks; /* one, or of fan-in one a sender */
	struct sample sample; /* sealed */
	/* retained */
	uint64_t *got; /* a bit a topic */
	uint64_t n_got;
	uint64_t moved_ns;
};

struct clients {
	const struct clients_options *o;
	const struct scenario *s;
	struct clients_shared *shared;
	int epoll;
	uint8_t *rx;
	uint64_t now_ns;
	uint64_t number; /* of connections */
	unsigned n_links, n_senders, n_receivers, n_idle, n_others, n_connects;
	struct link *links; /* idle, others, receivers, senders, connects */
	struct sender *senders;
	struct receiver *receivers;
	struct link *listed;	 /* with something to send */
	struct sender *pumped;	 /* that may have something to put on their tapes */
	unsigned greeting, open; /* links */
	uint64_t others_acked;
	bool publishing; /* senders send what they may */
	bool running;	 /* a connection that is lost is counted, and does not end it */
	uint64_t copies; /* of a message */
	/* open loop */
	uint64_t start_ns, due;
	/* counted */
	uint64_t sent, delivered, duplicated, disordered, wrong;
	uint64_t expected; /* deliveries, of all that was sent */
	struct connects *connects;
};

/* Ends the process with a line for the lab. */
void clients_fail(struct clients *c, const char *fmt, ...) format_printf(2, 3) noreturn_fn;
uint64_t clients_now_ns(void);

/* --- loop.c: one turn ------------------------------------------------------------------------- */

/* Receives, pumps, sends; waits for at most wait_ns. */
void clients_turn(struct clients *c, uint64_t wait_ns);
/* The link has something to send, by the end of the turn. */
void clients_list(struct clients *c, struct link *l);
/* Begins to connect. */
void clients_dial(struct clients *c, struct link *l, struct device *d);
/* Ends it, as if the broker had. */
void clients_drop(struct clients *c, struct link *l);
/* Open loop: what was due then is done, in this window or another. */
void clients_time(struct clients *c, uint64_t due_ns);
/* Turns until done(c); the process fails where nothing goes on for a long time. */
void clients_until(struct clients *c, const char *what, bool (*done)(struct clients *c));
/* Tells the lab, and waits until it orders as much. */
void clients_meet(struct clients *c, enum clients_stage at, enum clients_order order);
/* Counters, for the lab. */
void clients_publish(struct clients *c);

/* --- senders.c -------------------------------------------------------------------------------- */

void senders_make(struct clients *c);
void senders_free(struct clients *c);
void sender_take(struct clients *c, struct link *l, const struct mqtt_frame *f);
/* There may be room: puts what may go on the tape by the end of the turn. */
void sender_list(struct clients *c, struct sender *s);
void senders_pump(struct clients *c);
/* A receiver has it, or will not get it any more: from and up to, not with, to. */
void sender_reached(struct clients *c, struct sender *s, uint64_t from, uint64_t to);
/* Open loop: what is due now. Returns ns to the next. */
uint64_t senders_due(struct clients *c);
uint64_t sender_due_ns(const struct clients *c, const struct sender *s, uint64_t number);
/* Closed loop: those whose messages got lost go on. */
void senders_unstick(struct clients *c);
bool senders_idle(const struct clients *c);

/* --- receivers.c ------------------------------------------------------------------------------ */

void receivers_make(struct clients *c);
void receivers_free(struct clients *c);
/* The counter in a sealed payload's head. */
uint64_t receiver_counter(struct bytes payload);
void receiver_subscribe(struct clients *c, struct receiver *r);
void receiver_take(struct clients *c, struct link *l, const struct mqtt_frame *f);
/* Open loop: what has not come by now is late by as much. */
void receivers_give_up(struct clients *c);
/* Sealed: opens the samples. */
void receivers_open(struct clients *c);

/* --- retained.c: receivers subscribe, are sent all that is retained, and subscribe again -------
 */

/* The one sender's messages, all at once. */
void retained_tape(struct clients *c, struct sender *s);
/* Until the broker has them. */
void retained_publish(struct clients *c);
void retained_run(struct clients *c);
void retained_take(struct clients *c, struct receiver *r, const struct mqtt_publish *p);

/* --- connects.c: clients that connect, are let in and go ---------------------------------------
 */

void connects_run(struct clients *c);
/* A link of theirs is open. */
void connects_open(struct clients *c, struct link *l);
/* It is gone before it was. */
void connects_lost(struct clients *c, struct link *l);

/* --- control.c -------------------------------------------------------------------------------- */

/* Any PUBLISH that is libssdtf's business; true: it was. */
bool clients_control(struct clients *c, struct link *l, const struct mqtt_publish *p);
/* Reads it in place: no check of text, which costs more than all the rest. */
bool clients_read_publish(const struct mqtt_frame *f, struct mqtt_publish *ret_p);

#endif
