/* SPDX-License-Identifier: MIT */
/*
 * PUBLISH packets from clients: verified by a crypto worker, then judged in the order in which they
 * came (scope, context, counter), routed, acknowledged.
 */
#ifndef SSDTF_BROKER_INGRESS_H
#define SSDTF_BROKER_INGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/broker/control.h"
#include "userspace/broker/message.h"
#include "userspace/broker/verify.h"
#include "userspace/mqtt/packet.h"

struct broker;
struct broker_conn;
struct directory;

enum ingress_kind {
	INGRESS_PUBLISH,
	INGRESS_NACK,
	INGRESS_REPORT,
	INGRESS_UPDATE,
	INGRESS_BUNDLE,
	INGRESS_CLAIM,
	INGRESS_RESPONSE,
	INGRESS_WILL,
};

struct ingress {
	struct broker_verify verify;
	enum ingress_kind kind;
	struct broker_conn *conn;    /* counted */
	struct message *message;     /* counted; what the verify job looks at */
	struct directory *directory; /* counted: holds the key */
	uint16_t packet_id;	     /* 0: it is owed no acknowledgement */
	bool previous_first;	     /* the party's previous key is tried before its own */
};

/* Sends a message to the workers as this kind. The message's reference is taken. False: no memory
 * (the connection has been ended). */
bool ingress_submit(struct broker_conn *c, enum ingress_kind kind, struct message *m,
		    uint16_t packet_id);
/* Its signature held: does the key that made it still count? */
bool ingress_key_holds(const struct ingress *in);
/* A PUBLISH on an open session. */
void ingress_publish(struct broker_conn *c, const struct mqtt_publish *p);

enum ingress_verdict { INGRESS_TAKE, INGRESS_SEEN, INGRESS_REFUSE };
/*
 * Everything but the signature: permission, context, counter, of a sealed message of its sender.
 * TAKE consumes the counter. On REFUSE *ret_reason says why. Used for PUBLISH and for a Will when
 * its session opens.
 */
enum ingress_verdict ingress_judge(struct broker *b, struct message *m,
				   enum control_reason *ret_reason);

/* auth.c's: a response or Will came back from the workers. */
void auth_response_verified(struct ingress *in);
void auth_will_verified(struct ingress *in);

#endif
