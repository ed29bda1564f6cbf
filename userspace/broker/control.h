/* SPDX-License-Identifier: MIT */
/*
 * The $SSDTF/ topics after authentication (PROTOCOL 7): errors to senders, nacks and reports from
 * clients, report envelopes to the manager.
 */
#ifndef SSDTF_BROKER_CONTROL_H
#define SSDTF_BROKER_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/base/list.h"

struct ack;
struct broker;
struct broker_conn;
struct delivery;
struct message;

enum control_reason {
	CONTROL_BAD_SIGNATURE = 1,
	CONTROL_MALFORMED = 2,
	CONTROL_REPLAYED = 3,
	CONTROL_NO_KEY_ID = 4,
	CONTROL_NOT_PERMITTED = 5,
	CONTROL_UNAVAILABLE = 6,
	CONTROL_CANNOT_OPEN = 7,
	CONTROL_RETIRED = 8,
};

#define CONTROL_TOPIC_PREFIX	"$SSDTF/"
#define CONTROL_TOPIC_CHALLENGE "$SSDTF/auth/challenge"
#define CONTROL_TOPIC_RESPONSE	"$SSDTF/auth/response"
#define CONTROL_TOPIC_RESULT	"$SSDTF/auth/result"
#define CONTROL_TOPIC_ERROR	"$SSDTF/error"
#define CONTROL_TOPIC_NACK	"$SSDTF/nack"
#define CONTROL_TOPIC_REPORT	"$SSDTF/report"
#define CONTROL_TOPIC_UPDATE	"$SSDTF/update"
#define CONTROL_TOPIC_BUNDLE	"$SSDTF/bundle"
#define CONTROL_TOPIC_CLAIM	"$SSDTF/claim"

struct control {
	struct list reports; /* envelopes for a manager that is absent, oldest first */
	unsigned n_reports;
};

void control_init(struct control *c);
void control_deinit(struct broker *b);

/* Does a topic, or a filter (behind $share/GROUP/ too), begin with $SSDTF/? Behind $share/GROUP/
 * $SYS counts, too: nobody shares what the broker says. */
bool control_is_topic(struct bytes topic);
bool control_is_filter(struct bytes filter);

/* $SSDTF/error to the client of conn, and behind it an acknowledgement, which is taken (NULL:
 * none). A client that causes more than errors_per_second is read from more slowly. */
void control_error(struct broker *b, struct broker_conn *conn, enum control_reason reason,
		   uint64_t counter, struct ack *ack);
/* The same to a sender by id, if it is here and its rate is not used up. */
void control_error_to(struct broker *b, struct bytes id, enum control_reason reason,
		      uint64_t counter);
/* The end of a message on a $SSDTF topic: the session's own nonce, and a number of at least *next,
 * which then goes up. False: it is another session's, a copy, or malformed. */
bool control_numbered(struct bytes_reader *r, const struct broker_conn *c, uint64_t *next);
/* Is it here, and a manager? */
bool control_is_manager(const struct broker_conn *c);
/* A nack or report whose signature holds; m is the packet as received, body what is before its
 * trailer. False: malformed. */
bool control_nack(struct broker *b, struct broker_conn *conn, struct message *m, struct bytes body);
bool control_report(struct broker *b, struct broker_conn *conn, struct message *m,
		    struct bytes body);
/* The conversion that d's receiver could not open came out the same again: its sender is reported,
 * with the nack as evidence. */
void control_report_sender(struct broker *b, struct delivery *d, struct message *nack);
/* A manager's session opened: what waits for it is sent. */
void control_manager_here(struct broker *b, struct broker_conn *conn);

#endif
