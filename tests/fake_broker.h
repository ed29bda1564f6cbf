/* SPDX-License-Identifier: MIT */
/*
 * The broker engine's owner for tests: sockets, clock, crypto workers, token and storage, all fake,
 * all in memory, all under the test's control. What is random in it comes from harness_random().
 *
 *	test ──fake_input()──► engine ──ops──► out buffers, and jobs that wait here
 *	  ▲                       ▲                                  │
 *	  └──fake_next_packet()   └──── fake_run_*(), fake_turn() ───┘
 *
 * Nothing happens by itself: a job is done when a fake_run_*() says so, time passes when
 *fake_pass() says so. fake_settle() does all there is to do, token jobs in random order, until
 *nothing is left. Every breach of the contract in broker.h by the engine (a job lent twice, a
 *packet for a closed connection, a pause that was on already) ends the test.
 */
#ifndef SSDTF_TESTS_FAKE_BROKER_H
#define SSDTF_TESTS_FAKE_BROKER_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/fake_durable.h"
#include "userspace/broker/broker.h"
#include "userspace/broker/verify.h"
#include "userspace/crypto/p256.h"
#include "userspace/mqtt/packet.h"

#define FAKE_JOBS_MAX	16384
#define FAKE_STORE_MAX	4096
#define FAKE_FORGET_MAX 256
#define FAKE_WALL_MS	1700000000000ull /* the wall clock at the start of a test */

/* What the fake token takes for a wrapped conversion key: grant id || rk, in the clear. */
#define FAKE_BLOB_BYTES (GRANT_ID_BYTES + P256_SCALAR_BYTES)

/* A socket. Owned by the fake, also after it was closed, so that what it was sent can be read. */
struct fake_conn {
	struct fake_broker *fake;
	struct fake_conn *next;
	struct broker_conn *engine; /* NULL: closed, by whichever side */
	uint8_t *out;		    /* all that the engine ever wrote */
	size_t out_n, out_room;
	size_t sent;	/* of it, what the peer's kernel has taken */
	size_t read;	/* of that, what the test has looked at */
	size_t out_max; /* out() refuses to hold more than that unsent; 0: no limit */
	bool stalled;	/* the peer takes nothing */
	bool paused;
	bool closed;	 /* by the engine */
	const char *why; /* its reason */
	bool peer_ends;	 /* closed once the peer does */
};

/* Stable storage. What commits brought, and what a restart finds. */
struct fake_store {
	unsigned n_replay, n_contexts, n_revoked;
	struct broker_commit_replay replay[FAKE_STORE_MAX];
	struct broker_commit_context contexts[FAKE_STORE_MAX];
	struct broker_commit_revoked revoked[FAKE_STORE_MAX];
	uint64_t bundle_serial;
	unsigned commits;
	struct fake_durable durable;
};

struct fake_broker {
	struct broker *engine;
	struct broker_config config;
	struct fake_conn *conns;
	uint64_t mono_ms, wall_ms;

	struct secret32 key_scalar;
	struct p256_private *key; /* the broker's signing key, in the token */
	struct p256_point key_point;
	struct p256_public *key_public;
	struct p256_private *next_key; /* the one that a bundle may say is the next */
	struct p256_point next_point;
	struct p256_public *next_public;
	bool next_expected; /* by the clients: in signatures, and in what they answer */
	bool lacks[2];	    /* the token: the broker's own key, the next one */

	/* Jobs that are out. Verify jobs first come, first served. */
	struct broker_verify *verify[FAKE_JOBS_MAX];
	unsigned n_verify;
	struct broker_token_job *token[FAKE_JOBS_MAX];
	unsigned n_token;
	const struct broker_commit *commit;

	/* Knobs: what fake_settle() leaves alone, and what the token answers. */
	bool hold_verify, hold_convert, hold_sign, hold_commit;
	bool in_order;	    /* token jobs too are served first come, first served */
	bool revoked_first; /* a restart restores revocations before contexts */
	enum broker_token_status convert_status, sign_status;
	int commit_error;
	bool late_crash;	 /* the commit that is out when the engine ends is in storage */
	unsigned wrong_converts; /* so many next conversions come out wrong */

	/* What out() gave last, and may not be filled yet; out_bytes is 0 once it was seen to be.
	 */
	struct fake_conn *out_conn;
	size_t out_at, out_bytes;

	struct fake_store store;
	uint8_t forgotten[FAKE_FORGET_MAX][GRANT_ID_BYTES];
	unsigned n_forgotten;
	unsigned conversions, signatures; /* that the token made */
	char last_event[64], last_what[128];
	/* What the op bundle() was given last, and what it says. */
	char bundle_from[66];
	uint8_t bundle_message[256];
	size_t bundle_n;
	unsigned n_bundles;
	bool bundle_malformed;
	uint8_t from[16]; /* the address of whoever connects; 192.0.2.1 */
	struct admission_source last_ban;
	uint64_t last_ban_ms;
	unsigned n_shared; /* calls of out_shared() */
	unsigned n_bans;   /* and ends of bans */
};

/* Above 0 while the engine runs, and not what it calls: for a test that counts its allocations, or
 * lets them fail. */
extern unsigned fake_inside;

/* A plain broker, or one with SSDTF and admission; limits as broker_limits_default(). */
struct fake_broker *fake_new(bool plain);
/* With limits and switches of the test's own. */
struct fake_broker *fake_new_with(const struct broker_config *config);
void fake_config(bool plain, struct broker_config *ret_config);
/* Gives back the jobs that are out, and frees the engine: its pool must be empty then. */
void fake_free(struct fake_broker *f);
/* The engine ends as in a crash and starts again from what was committed. Connections are lost.
 * With SSDTF sessions are restored by fake_restore(), behind the bundle. */
void fake_restart(struct fake_broker *f);
void fake_restore(struct fake_broker *f);

struct fake_conn *fake_open(struct fake_broker *f);
/* NULL where the engine refuses another one. */
struct fake_conn *fake_try_open(struct fake_broker *f);
void fake_input(struct fake_conn *c, struct bytes in);
/* The peer goes, without DISCONNECT. */
void fake_hang_up(struct fake_conn *c);
/* The peer's kernel takes n bytes of what it has not taken yet (of a stalled connection). */
void fake_drain(struct fake_conn *c, size_t n);
void fake_unstall(struct fake_conn *c);

/* The next whole packet that was sent and not yet read; false: there is none. */
bool fake_next_packet(struct fake_conn *c, struct mqtt_frame *ret_frame);
/* The same, and it stays unread. */
bool fake_peek_packet(struct fake_conn *c, struct mqtt_frame *ret_frame);
/* Is there nothing (more) to read? */
bool fake_silent(struct fake_conn *c);

/* Do one job of the kind: the oldest verify job; a token job at random that is not on hold; the
 * commit that is out, with commit_error. False: there was none. */
bool fake_run_verify(struct fake_broker *f);
bool fake_run_token(struct fake_broker *f);
bool fake_run_commit(struct fake_broker *f);

void fake_turn(struct fake_broker *f);
void fake_settle(struct fake_broker *f);
/* Time passes in small steps, with all that it brings. */
void fake_pass(struct fake_broker *f, uint64_t ms);

struct broker_stats fake_stats(struct fake_broker *f);
/* Was this grant's key ordered to be forgotten? */
bool fake_forgot(const struct fake_broker *f, const uint8_t grant_id[GRANT_ID_BYTES]);
/* The window that storage has for a sender, or NULL. */
const struct replay_window *fake_stored_window(const struct fake_broker *f, const char *id);

#endif
