/* SPDX-License-Identifier: MIT */
/*
 * Two ends for tests of libssdtf, and what is between them, made of the crypto layer in this
 * process:
 *
 *   device (libssdtf) -- level 0 --> ends_convert() -- level 1 --> receiver (libssdtf)
 *
 * Time, storage and network are the test's, so that a power cut is a struct forgotten. What goes
 * wrong in here fails the test that runs.
 */
#ifndef SSDTF_TESTS_ENDS_H
#define SSDTF_TESTS_ENDS_H

#include "tests/harness.h"
#include "userspace/client/lib/ssdtf.h"

#define ROOM	  4096
#define NOW_MS	  1790000000000ull
#define TOPIC	  "plant/7/temp"
#define TOPIC_CHA "$SSDTF/auth/challenge"
#define TOPIC_RES "$SSDTF/auth/result"
#define DEVICE	  "sensor-7"
#define RECEIVER  "desk:1"
#define KEY_ID	  465143663u
#define SENT_MAX  4

struct keys {
	struct secret32 scalar;
	struct p256_point point;
	struct p256_private *sign;
};

/* One end: what its callbacks were told. */
struct end {
	struct ssdtf_client client;
	uint8_t bundle[ROOM];
	size_t bundle_n;
	struct ssdtf_origin origins[4];
	struct {
		char topic[64];
		uint8_t payload[ROOM];
		size_t n;
		uint8_t qos;
		bool retain;
	} sent[SENT_MAX];
	unsigned n_sent, disconnects;
	uint64_t stored_mark;
	unsigned reserves;
	int reserve_fails;
	struct ssdtf_connect connect;
	uint8_t r_b[32];
	/* Of the configuration, for the next ends_init(). */
	uint32_t rekey_messages, rekey_seconds;
	struct ssdtf_context *contexts;
	unsigned n_contexts;
	const struct secret32 *encryption, *encryption_old; /* NULL: the fixture's reader; none */
	uint8_t statements[ROOM];
	size_t statements_n, statements_room;
	/* What statement_store() was given, one behind the other, and the last of it. */
	uint8_t stored[ROOM];
	size_t stored_n;
	unsigned n_stored;
	struct ssdtf_update stored_what;
	int store_fails;
};

/* What a bundle says; the fixture's defaults are a device and a receiver that fit each other. */
struct terms {
	const char *id;
	struct keys *signing;
	const struct p256_point *encryption; /* of grants */
	bool zk;
	uint64_t serial, not_before_ms, not_after_ms;
	struct record_scope scope;
	unsigned n_scopes, n_grants;
	struct record_grant grant;
	struct record_party origin;
	unsigned n_origins;
};

FIXTURE(client)
{
	struct keys manager, broker, device, receiver, reader, scope, x;
	struct secret32 rk;
	struct p256_public *device_public;
	struct end dev, rec;
	struct terms device_terms, receiver_terms;
	struct ssdtf_time now;
};

struct ends_challenge {
	uint8_t r_c[32], r_b[32], level, flags;
	struct bytes binding;
	size_t cut; /* bytes left out at the end */
};

/* What the broker makes of a sealed PUBLISH; fields are for bending. */
struct delivery {
	uint8_t sealed[ROOM];
	size_t sealed_n;
	uint8_t sealed_first;
	uint8_t x[P256_X_BYTES];
	const char *origin;
	const uint8_t *grant;
	struct bytes proof; /* .p NULL: the true one */
	bool zero_salt, level_0;
	uint8_t first;
	const char *topic;
	uint8_t proof_bytes[ROOM];
	uint8_t out[ROOM];
	size_t out_n;
};

extern const uint8_t ends_grant_id[GRANT_ID_BYTES];

void ends_keys_new(struct keys *k);

/* For FIXTURE_SETUP and FIXTURE_TEARDOWN. */
void ends_setup(struct fixture_client *self, enum hpke_suite suite);
void ends_teardown(struct fixture_client *self);

/* --- the manager ------------------------------------------------------------------------------ */

void ends_bundle(struct fixture_client *f, const struct terms *t, struct end *to);
int ends_init(struct fixture_client *f, const struct terms *t, struct end *e, uint64_t serial_min);
void ends_start(struct fixture_client *f, const struct terms *t, struct end *e);
/* A receiver or device under other terms than the fixture began with. */
void ends_restart(struct fixture_client *f, const struct terms *t, struct end *e);

/* A statement with one of the records of record.h, signed by the manager or by another. */
struct bytes ends_statement(const struct keys *by, enum statement_kind kind, uint64_t serial,
			    const void *record, uint8_t out[ROOM]);

/* --- the broker ------------------------------------------------------------------------------- */

/* A PUBLISH from the broker: body || trailer 1 under its key, for this client id. */
size_t ends_broker_sign(struct fixture_client *f, const char *topic, uint8_t first,
			struct bytes body, const char *to_id, uint8_t out[ROOM]);
struct ssdtf_event ends_hand(struct fixture_client *f, struct end *e, const char *topic,
			     struct bytes payload, uint8_t first);
/* Signs the body and hands it to the end; QoS 0. */
struct ssdtf_event ends_hand_signed(struct fixture_client *f, struct end *e, const char *topic,
				    struct bytes body);
void ends_connect_begin(struct fixture_client *f, struct end *e);
struct ends_challenge ends_challenge_right(const struct end *e);
struct bytes ends_challenge_body(const struct ends_challenge *ch, uint8_t out[ROOM]);
struct bytes ends_result_body(const struct end *e, uint8_t code, uint64_t highest, uint8_t out[41]);
struct ssdtf_event ends_hand_challenge(struct fixture_client *f, struct end *e,
				       const struct ends_challenge *ch);
struct ssdtf_event ends_hand_result(struct fixture_client *f, struct end *e, uint64_t highest);
/* The whole handshake, as it should go. */
struct ssdtf_event ends_session_open(struct fixture_client *f, struct end *e, uint64_t highest);
/* $SSDTF/update with these statements, as the number-th of this session. */
struct ssdtf_event ends_update(struct fixture_client *f, struct end *e, const struct bytes *list,
			       unsigned n, uint32_t number);

/* --- messages --------------------------------------------------------------------------------- */

/* What the device publishes, to be delivered under the fixture's grant. */
void ends_take(struct delivery *d, struct bytes payload, const char *topic, uint8_t qos,
	       bool retain);
void ends_seal(struct fixture_client *f, struct delivery *d, const char *topic, const char *text,
	       uint8_t qos, bool retain);
/* Verifies the device's signature as a broker does, and takes the message apart. */
struct envelope ends_take_apart(struct fixture_client *f, const struct delivery *d,
				const char *topic, struct publish_trailer *t);
/* Level 0 to the level-1 body, unsigned; returns its length. */
size_t ends_convert(struct fixture_client *f, struct delivery *d, uint8_t *to);
/* Any body one level higher, by rk under that grant. */
size_t ends_raise(struct bytes body, const struct secret32 *rk, const uint8_t *grant,
		  const char *origin, struct bytes proof, bool zero_salt, uint8_t *to);
/* Converts, signs with a trailer 1, and hands it to the receiver. */
struct ssdtf_event ends_deliver(struct fixture_client *f, struct delivery *d);
void ends_expect_refused(const struct ssdtf_event *e, unsigned reason);
void ends_expect_opened(const struct ssdtf_event *e, const char *text);

#endif
