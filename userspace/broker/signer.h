/* SPDX-License-Identifier: MIT */
/*
 * Signatures by the broker's key in the token. Requests go out at once and are finished in the
 * order in which they were made, whatever order the token answers in, so each connection sees its
 * packets in order.
 *
 * Deliveries are signed together: while SIGNER_BATCHES_OUT batches are under way the converted
 * deliveries gather, then as many as gathered share one Merkle root and one signature (trailer 2).
 * A lone one is signed by itself (trailer 1). Control messages are always signed alone.
 */
#ifndef SSDTF_BROKER_SIGNER_H
#define SSDTF_BROKER_SIGNER_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/timer.h"
#include "userspace/broker/broker.h"

struct ack;
struct broker;
struct broker_conn;
struct delivery;

/* Past some hundred the token's share of a delivery is less than what the longer path costs. */
#define SIGNER_BATCH_MAX   256
#define SIGNER_BATCHES_OUT 2
/* Above this no new client is challenged (CONNACK 3): strangers cannot fill the token's queue. */
#define SIGNER_CONTROLS_OUT_MAX 1024

struct signer_request {
	struct list link;
	struct broker_token_job job;
	bool done, failed;
	struct broker_conn *conn; /* control: the receiver; NULL: a batch of deliveries */
	/* A control message. */
	const char *topic;
	uint8_t *body;
	size_t body_n;
	struct ack *ack;		     /* a PUBACK that may go once this is sent, or NULL */
	void (*sent)(struct broker_conn *c); /* is told when it is on the connection, or NULL */
	/* A batch. */
	unsigned n;
	struct delivery **deliveries; /* NULL: gone meanwhile; behind nodes, in the same block */
	uint8_t (*nodes)[32];
};

struct signer {
	struct list requests; /* in order */
	struct list ready;    /* delivery.wait: converted, not yet in a batch */
	unsigned batches_out;
	unsigned controls_out;
	struct timer retry;
	struct broker *broker;
};

void signer_init(struct broker *b);
void signer_deinit(struct broker *b);
/* Signs body for `topic` to conn as a QoS 0 PUBLISH and sends it, then calls sent (NULL: nothing),
 * unless the connection ends before. Copies body. -ENOMEM: then ack is still the caller's. */
int signer_control(struct broker *b, struct broker_conn *conn, const char *topic, struct bytes body,
		   struct ack *ack, void (*sent)(struct broker_conn *c)) must_check;
/* True where so many control messages wait for the token that nobody new should. */
static inline bool signer_crowded(const struct signer *s)
{
	return s->controls_out >= SIGNER_CONTROLS_OUT_MAX;
}
/* d is converted and next in its session. */
void signer_add(struct broker *b, struct delivery *d);
/* d is not to be signed any more. */
void signer_leave(struct delivery *d);
void signer_done(struct broker *b, struct broker_token_job *job);
/* Forms batches of what is ready. */
void signer_turn(struct broker *b);

#endif
