/* SPDX-License-Identifier: MIT */
/*
 * What a distributor's engine stands between, in this process: a manager that makes its bundle,
 * senders, the broker upstream (which converts and signs), a token, a table, and the broker
 * downstream, which says what it got. Faults are for the test to ask for.
 */
#ifndef SSDTF_TESTS_RELAY_FAKE_H
#define SSDTF_TESTS_RELAY_FAKE_H

#include "tests/harness.h"
#include "userspace/distributor/relay.h"

#define FAKE_ID	      "dist-1"
#define FAKE_SCOPE    "temperature"
#define FAKE_NOW_MS   1790000000000ull
#define FAKE_KEY_ID   465143663u
#define FAKE_OUTLETS  3
#define FAKE_SENDERS  4
#define FAKE_JOBS_MAX 4096
#define FAKE_ROWS_MAX 256
#define FAKE_OUT_MAX  4096

struct fake_key {
	struct secret32 scalar;
	struct p256_point point;
	struct p256_private *sign;
	struct p256_public *verify;
};

struct fake_outlet {
	const char *name, *prefix, *domain, *filter;
	uint32_t rotate_seconds;
	bool group;	/* ends in a hop secret */
	bool absent;	/* not in the next bundle */
	bool forgotten; /* by the token, until its key is loaded again */
	const char *wrapped;
	uint8_t grant_id[GRANT_ID_BYTES];
	struct secret32 rk, d;
};

struct fake_sender {
	char id[16];
	struct fake_key key;
	struct envelope_sender context;
	uint64_t counter;
};

/* A PUBLISH that went downstream. */
struct fake_published {
	bool dup, retain;
	uint8_t qos;
	uint16_t packet_id;
	uint8_t *topic, *payload;
	size_t topic_n, payload_n;
};

struct fake_relay {
	struct fake_key manager, tracer, broker, next_broker, own;
	struct secret32 a, s1; /* the scope's scalar, the hop's secret */
	struct p256_point scope;
	uint8_t hop_id[GRANT_ID_BYTES];
	uint8_t hop_flags;
	struct secret32 hop_rk;
	struct fake_outlet outlets[FAKE_OUTLETS];
	unsigned n_outlets;
	struct fake_sender senders[FAKE_SENDERS];
	unsigned n_senders;
	const struct fake_key *previous; /* of sender 0, until previous_until_ms */
	uint64_t previous_until_ms, hop_not_after_ms;
	uint64_t serial;
	struct fake_key *signs; /* whose signatures the broker upstream gives */

	struct relay *relay;
	uint64_t mono_ms, unix_ms;

	struct hsm_job *jobs[FAKE_JOBS_MAX];
	unsigned n_jobs;
	bool token_away, no_id_key;
	const struct fake_outlet *refused_key; /* the token does not take its key */
	unsigned macs, converts, signs_made, forgotten;

	struct relay_row rows[FAKE_ROWS_MAX];
	unsigned n_rows;
	int table_error;

	struct fake_published out[FAKE_OUT_MAX];
	unsigned n_out;
	uint16_t pubacks[FAKE_OUT_MAX];
	unsigned n_pubacks;
	unsigned reports, notes[RELAY_NOTE_DROPPED + 1], sights;
	uint8_t report_reason;
	char report_text[128];
	uint8_t mark[HASH_BYTES]; /* of the last sight */
	char sight_topic[128];
};

/* One outlet "all" (open, domain all) for a group and one "one" (direct, domain one); n senders
 * sensor-17, sensor-18, ... Both sessions are open. */
struct fake_relay *fake_relay_new(unsigned n_senders);
void fake_relay_free(struct fake_relay *f);
/* Keys of the vectors in place of ours, before the bundle is made. Then fake_relay_start(). */
struct fake_relay *fake_relay_make(unsigned n_senders);
void fake_relay_start(struct fake_relay *f);
struct plan *fake_plan(struct fake_relay *f);
/* A statement of kind 7 in memory of its own. */
uint8_t *fake_bundle(struct fake_relay *f, size_t *ret_n);
void fake_relay_replan(struct fake_relay *f);

struct fake_key fake_key_of(const struct secret32 *scalar);
struct fake_key fake_key_new(void);
void fake_key_free(struct fake_key *k);

/* A message as the broker upstream has it after conversion: body without the broker's trailer. */
struct fake_message {
	uint8_t body[2048];
	size_t n;
	char topic[128];
	uint8_t first; /* of the sender's PUBLISH */
};

/* By sender i, on this topic. */
struct fake_message fake_message(struct fake_relay *f, unsigned i, const char *topic,
				 const char *plain, uint8_t qos, bool retain);
/* Signed by the broker and handed to the relay; what relay_deliver() says. */
bool fake_deliver(struct fake_relay *f, const struct fake_message *m, uint8_t qos,
		  uint16_t packet_id, bool dup, bool retain);

/* The token answers all that it has, in its order or a random one. */
void fake_token(struct fake_relay *f, bool shuffled);
/* Turns, the token answering, until nothing moves. */
void fake_settle(struct fake_relay *f);
void fake_pass(struct fake_relay *f, uint64_t ms);
/* PUBACK from downstream for out[i]. */
void fake_acknowledge(struct fake_relay *f, unsigned i);
void fake_acknowledge_all(struct fake_relay *f, unsigned from);
void fake_forget_out(struct fake_relay *f);

struct bytes fake_topic(const struct fake_published *p);
/* The body, once its signature was found to hold; aborts the test where it does not. */
struct envelope fake_body(struct fake_relay *f, const struct fake_published *p);
/* Which outlet it went to, by its prefix. */
unsigned fake_outlet_of(struct fake_relay *f, const struct fake_published *p);
/* Opens it as the outlet's receiver does. 0 or -EBADMSG. */
int fake_open(struct fake_relay *f, const struct fake_published *p, uint8_t *plain, size_t *ret_n);

#endif
