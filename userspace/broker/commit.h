/* SPDX-License-Identifier: MIT */
/*
 * What must outlive the process: replay windows, contexts seen, revocations; sessions and what is
 * retained (durable.h). Changes gather while a commit is under way and go out together with the
 * next one; acknowledgements wait for theirs.
 *
 * A message is routed at once and acknowledged when its counter is on stable storage, and with it
 * the queues that it stands in: a crash in between makes the sender send it again (to a session
 * that did not outlive it, for a second time: at QoS 2 the receiver's own window drops it), and
 * never loses what was acknowledged.
 */
#ifndef SSDTF_BROKER_COMMIT_H
#define SSDTF_BROKER_COMMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/timer.h"
#include "userspace/broker/broker.h"
#include "userspace/broker/reply.h"
#include "userspace/broker/table.h"

struct ack;
struct broker_conn;

/* A sender's replay window, kept whether it is connected or not. */
struct commit_sender {
	UT_hash_handle hh;
	struct replay_window window;
	struct list contexts; /* of its contexts, oldest use first; the retired ones not */
	unsigned n_contexts;
	struct list dirty;
	/* Of those that distributors bring (origins.h). */
	unsigned n_origins;		   /* a distributor's */
	struct commit_sender *distributor; /* a pair's; NULL: it is none */
	struct list by_use;
	uint64_t seen_ms; /* wall clock, last use */
	uint8_t id_n;
	char id[]; /* terminated */
};

struct commit {
	struct commit_sender *senders;
	struct list dirty;	      /* senders changed since the last commit */
	struct list revoked;	      /* revocations not yet committed */
	struct list opens, opens_out; /* conn_secure.commit_wait: sessions that open then */
	struct list acks,
		acks_out;	/* ack.wait: waiting for the next commit, for the one under way */
	struct replies replies; /* the like */
	uint64_t bundle_serial; /* to be committed; 0: unchanged */
	bool out;		/* a commit is under way or to be tried again */
	struct broker_commit batch; /* what is out */
	unsigned room_replay, room_contexts, room_revoked;
	struct timer retry;
	struct broker *broker;
};

void commit_init(struct broker *b);
void commit_deinit(struct broker *b);
/* The window of a sender, made where it is new. NULL: no memory. */
struct commit_sender *commit_sender(struct broker *b, struct bytes id) must_check;
/* NULL: there is none. */
struct commit_sender *commit_sender_find(struct broker *b, struct bytes id);
/* One that nothing points at. */
void commit_sender_free(struct broker *b, struct commit_sender *s);
void commit_sender_changed(struct broker *b, struct commit_sender *s);
/* The acknowledgement goes once all that has changed so far is stored. NULL is fine. */
void commit_then_ack(struct broker *b, struct ack *a);
/* auth_committed() for conn once all that has changed so far is stored. */
void commit_then_open(struct broker *b, struct broker_conn *conn);
int commit_revoked(struct broker *b, const struct broker_commit_revoked *r) must_check;
void commit_turn(struct broker *b);

#endif
