/* SPDX-License-Identifier: MIT */
/*
 * The broker as an engine: events in, actions out. It does no I/O, reads no clock and owns no
 * thread, so that a test drives all of it on fake sockets and a fake clock, and core/ on io_uring.
 *
 * The owner calls broker_*(); the engine answers through struct broker_ops. A turn of the owner's
 * loop is: broker_time(), then any number of events, then broker_turn(), which forms the batches
 * (one signature for many deliveries, one commit for many counters) of all that the turn brought.
 * The engine never calls an op from within an op. One thread.
 *
 * Slow things are jobs: verify (crypto workers), token (hsmd), commit (storage). A job is the
 * engine's memory, lent until its broker_*_done(); the owner gives each back exactly once.
 *   - verify jobs must come back in the order in which they went out;
 *   - token jobs may come back in any order;
 *   - at most one commit is out at a time.
 */
#ifndef SSDTF_BROKER_BROKER_H
#define SSDTF_BROKER_BROKER_H

#include <stdbool.h>
#include <stdint.h>

#include "bpf/admission.h"
#include "userspace/base/bytes.h"
#include "userspace/base/replay.h"
#include "userspace/crypto/envelope.h"
#include "userspace/crypto/grant.h"
#include "userspace/crypto/p256.h"

struct broker;
struct broker_conn;
struct broker_verify; /* verify.h has the work itself */

/* Limits; broker_limits_default() is right for a gateway of 1 GiB. Zero is a limit only where that
 * is said. */
struct broker_limits {
	uint32_t packet_bytes_max;   /* a larger packet ends the connection */
	uint32_t connections_max;    /* one more is closed at once */
	uint32_t sessions_max;	     /* with those kept for absent clients */
	uint32_t subscriptions_max;  /* of one session: SUBACK 0x80 beyond */
	uint32_t retained_max;	     /* messages; a new topic beyond is not retained */
	uint32_t queue_messages_max; /* of one session; QoS 1, 2 beyond: dropped and counted */
	uint32_t queue_bytes_max;
	uint32_t queue_high_water;  /* messages at a connected receiver: its senders are paused */
	uint32_t receiver_stall_ms; /* one that takes nothing for so long pauses nobody */
	uint32_t inflight_max;	    /* QoS 1 and 2 that one client has not completed */
	uint32_t output_bytes_soft; /* unsent bytes of a connection above which none are added */
	uint32_t
		verify_bytes_max; /* of one connection with the crypto workers: then it is paused */
	uint32_t verify_pending_max;  /* of one connection: then it is paused */
	uint32_t connect_timeout_ms;  /* from accept to CONNECT */
	uint32_t auth_timeout_ms;     /* from CONNECT to the response */
	uint32_t convert_deadline_ms; /* then a conversion counts as unavailable and is tried again
				       */
	uint32_t capsules_max;	      /* conversions remembered */
	uint32_t contexts_max;	      /* encs seen, for retirement */
	uint32_t errors_per_second;   /* $SSDTF/error to one session */
	uint32_t reports_queue_max;   /* for an absent manager */
	/* Admission (PROTOCOL 6). */
	uint32_t admission_connects_per_second; /* of one device */
	uint32_t admission_no_clock_ms;		/* between two of a device without a clock */
	uint32_t admission_told_per_second; /* rejected CONNECTs of a source that are answered */
	uint32_t admission_told_total_per_second; /* of all sources */
	uint32_t admission_ban_failures;	  /* of a source, within the window: then a ban */
	uint32_t admission_ban_window_ms;
	uint32_t admission_ban_ms; /* 0: nobody is banned */
	/* Distribution (PROTOCOL 12). */
	uint32_t origins_max; /* of one distributor: senders whose counters are kept */
};

void broker_limits_default(struct broker_limits *l);

/* What becomes of a CONNECT whose admission token does not hold (PROTOCOL 6). */
enum broker_admission {
	BROKER_ADMISSION_OFF,	  /* tokens are not looked at */
	BROKER_ADMISSION_MONITOR, /* counted */
	BROKER_ADMISSION_ENFORCE, /* refused */
};

struct broker_config {
	bool plain;   /* an ordinary MQTT broker: no SSDTF, no token, no bundle */
	bool durable; /* commits hold sessions and retained messages, too (durable.h) */
	enum broker_admission admission;
	struct broker_limits limits;
	uint8_t hash_key[16]; /* random, for tables keyed by what peers choose */
};

/* --- jobs ------------------------------------------------------------------------------------- */

enum broker_token_op { BROKER_TOKEN_CONVERT, BROKER_TOKEN_SIGN, BROKER_TOKEN_OPEN };
enum broker_token_status {
	BROKER_TOKEN_OK,
	BROKER_TOKEN_REFUSED,	  /* this job will never succeed (bad key, bad request) */
	BROKER_TOKEN_UNAVAILABLE, /* later, perhaps */
};

struct broker_token_job {
	enum broker_token_op op;
	bool next;			  /* SIGN: by the broker's next key, not by its own */
	uint8_t grant_id[GRANT_ID_BYTES]; /* CONVERT */
	uint8_t input[P256_POINT_BYTES];  /* CONVERT, OPEN: a point on the curve; SIGN: 32-byte
					     digest */
	struct bytes blob;		  /* CONVERT: the wrapped conversion key */
	uint64_t deadline_ms;
	enum broker_token_status status; /* the owner's answer */
	uint8_t output[P256_SIG_BYTES];	 /* x (32) or signature (64) */
	void *owner;			 /* the owner's, while it is out */
};

/* A party's id; or a distributor's, a slash, and that of whose message it brought. */
#define BROKER_SENDER_BYTES_MAX \
	(64 + 1 + 16 + 1 + 64 + 1) /* the longest of origins.h, terminated */

/* What must be on stable storage before the acknowledgements that wait for it go out. */
struct broker_commit_replay {
	char id[BROKER_SENDER_BYTES_MAX];
	struct replay_window window;
	uint64_t seen_ms; /* wall clock, of the last use; 0: it is kept for good */
};
struct broker_commit_context { /* an enc seen: PROTOCOL 2's retirement */
	uint32_t key_id;
	uint64_t enc_hash;
	uint64_t seen_ms; /* wall clock */
};
struct broker_commit_revoked {
	uint32_t key_id;
	uint64_t revoked_at_ms;	   /* the manager's word */
	uint64_t retire_before_ms; /* wall clock here: contexts seen until then are retired */
};

/*
 * What outlives the process of sessions and retained messages (durable.h). A row takes the place of
 * the one with the same key; with `gone` it goes. Rows of one kind are applied in order. Numbers of
 * sessions and messages are the engine's, and never used again for others.
 */
struct broker_commit_session { /* gone: with all rows that name it */
	uint64_t number;
	bool gone;
	uint16_t packet_id; /* the last given towards its client */
	char id[65];
};
struct broker_commit_subscription { /* by session and number */
	uint64_t session, number;
	bool gone;
	uint8_t qos;
	struct bytes filter;
};
struct broker_commit_message { /* written once, whoever it waits for */
	uint64_t number;
	bool gone;
	bool sealed, retain;
	uint8_t qos;		     /* as its sender sent it */
	struct bytes topic, payload; /* as received: sealed, at its level and with its trailer */
	struct bytes sender;	     /* sealed: who published it here */
};
struct broker_commit_delivery { /* by session and seq */
	uint64_t session, seq, message;
	bool gone;
	bool retain;
	uint8_t qos;
	uint16_t packet_id; /* 0: it has none yet */
};
struct broker_commit_release { /* by session and place, which is its order */
	uint64_t session, place;
	bool gone;
	uint16_t packet_id;
};
struct broker_commit_incoming { /* by session and packet id */
	uint64_t session;
	bool gone;
	uint16_t packet_id;
};
struct broker_commit_retained { /* by message */
	uint64_t message;
	bool gone;
};

struct broker_commit {
	unsigned n_replay, n_contexts, n_revoked;
	struct broker_commit_replay *replay;
	struct broker_commit_context *contexts;
	struct broker_commit_revoked *revoked;
	uint64_t bundle_serial; /* 0: unchanged */
	unsigned n_sessions, n_subscriptions, n_messages, n_deliveries, n_releases, n_incoming;
	unsigned n_retained;
	struct broker_commit_session *sessions;
	struct broker_commit_subscription *subscriptions;
	struct broker_commit_message *messages;
	struct broker_commit_delivery *deliveries;
	struct broker_commit_release *releases;
	struct broker_commit_incoming *incoming;
	struct broker_commit_retained *retained;
};

/* --- actions ---------------------------------------------------------------------------------- */

struct broker_ops {
	/* n bytes at the end of the connection's output, to be filled before the next call of an
	 * op. NULL: no memory or far over its limit; the engine then closes the connection. */
	uint8_t *(*out)(void *io, void *conn_io, size_t n);
	/* The same, and behind them bytes that stay where they are until broker_unshare(handle):
	 * what many are sent alike need not be copied for each. */
	uint8_t *(*out_shared)(void *io, void *conn_io, size_t n, struct bytes shared,
			       void *handle);
	/* Bytes handed to out() that the peer's kernel has not taken yet. */
	size_t (*backlog)(void *io, void *conn_io);
	/* Send what out() took, then close; if the peer has said that it ends the connection, not
	 * before it does. The engine has forgotten the connection. */
	void (*close)(void *io, void *conn_io, const char *why, bool peer_ends);
	/* Stop or go on reading. What was read already may still be handed in. */
	void (*pause)(void *io, void *conn_io, bool paused);
	void (*verify)(void *io, struct broker_verify *job);
	void (*token)(void *io, struct broker_token_job *job);
	/* A grant is gone: its key is to be forgotten wherever it is held. */
	void (*forget)(void *io, const uint8_t grant_id[GRANT_ID_BYTES]);
	void (*commit)(void *io, const struct broker_commit *commit);
	/* A manager brings a bundle (PROTOCOL 14): one message of it, without its end. False: it is
	 * malformed. The owner answers with broker_bundle_answer(), not from within. */
	bool (*bundle)(void *io, const char *manager_id, struct bytes message);
	/* A source is banned for so long, or no more (0). */
	void (*ban)(void *io, const struct admission_source *source, uint64_t ms);
	/* A line for the log; peers can provoke it, so the owner limits its rate. */
	void (*note)(void *io, const char *event, const char *client_id, const char *what);
};

/* --- events ----------------------------------------------------------------------------------- */

/* ops and config are copied. NULL: no memory. */
struct broker *broker_new(const struct broker_config *config, const struct broker_ops *ops,
			  void *io) must_check;
/* Ends everything without a word to anyone: connections are forgotten, not closed. Jobs that are
 * out must have been given back. */
void broker_free(struct broker *b);

/* The time, before the events of a turn. mono_ms never goes back; wall_ms is since 1970. */
void broker_time(struct broker *b, uint64_t mono_ms, uint64_t wall_ms);

/* A connection was accepted; address is the peer's, IPv4 as ::ffff:a.b.c.d. NULL: over the limit,
 * no memory, or banned; the owner closes it. */
struct broker_conn *broker_conn_open(struct broker *b, void *conn_io,
				     const uint8_t address[16]) must_check;
/* Bytes came in, in any cut. */
void broker_conn_input(struct broker_conn *c, struct bytes in);
/* Its backlog fell: there is room below output_bytes_soft again. */
void broker_conn_drained(struct broker_conn *c);
/* The peer is gone. The engine forgets the connection (and publishes its Will). */
void broker_conn_closed(struct broker_conn *c);

/* What out_shared() took was sent, or dropped. May come at any time, from within an op too. */
void broker_unshare(struct broker *b, void *handle);

void broker_verify_done(struct broker *b, struct broker_verify *job);
void broker_token_done(struct broker *b, struct broker_token_job *job);
/* error: 0 or -errno. On an error the same commit is submitted again after a second. */
void broker_commit_done(struct broker *b, int error);

/* The end of a turn. */
void broker_turn(struct broker *b);
/* Milliseconds until broker_turn() must be called even if nothing happens; UINT64_MAX: never. */
uint64_t broker_wait_ms(const struct broker *b);

/* --- configuration and state ------------------------------------------------------------------ */

/*
 * Applies the body of a gateway bundle whose signature the caller has checked (bundle.h). All or
 * nothing; *ret_why is a constant text for people on error. -ESTALE for a serial below the one
 * applied, -EBADMSG for a body that does not decode, -ENOMEM. What is gone in it is gone at once:
 * sessions of revoked parties are closed, revoked grants convert nothing any more.
 */
int broker_apply_bundle(struct broker *b, uint64_t serial, struct bytes body,
			const char **ret_why) must_check;

/*
 * The same in two steps: first everything that can fail, then what cannot. Between them the owner
 * may put the bundle where a restart finds it. What was prepared is applied or dropped, in order.
 */
struct directory;
int broker_prepare_bundle(struct broker *b, uint64_t serial, struct bytes body,
			  struct directory **ret_prepared, const char **ret_why) must_check;
void broker_apply_prepared(struct broker *b, struct directory *prepared);
void broker_drop_prepared(struct directory *prepared);

/* To the manager of that id, if it is here: an answer to what the op bundle() brought, signed.
 * False: it is not here, or there is no memory. */
bool broker_bundle_answer(struct broker *b, const char *manager_id, struct bytes body);

/* Until when the bundle last applied is in force (0: no end): after that nobody gets a session and
 * nothing is taken or converted. Who keeps new bundles from a gateway does not keep it running. */
void broker_bundle_until(struct broker *b, uint64_t not_after_ms);

/* What an earlier run committed, before the first connection. Windows come by ascending seen_ms. */
int broker_restore_replay(struct broker *b, const struct broker_commit_replay *r) must_check;
int broker_restore_context(struct broker *b, const struct broker_commit_context *c) must_check;
int broker_restore_revoked(struct broker *b, const struct broker_commit_revoked *r) must_check;
void broker_restore_serial(struct broker *b, uint64_t bundle_serial);

/*
 * Sessions and retained messages of an earlier run: behind the first bundle, table by table in this
 * order, deliveries by session and seq, releases by session and place. What is no longer allowed
 * (a party that is not enrolled, more than a limit has room for) goes, from storage too. -EBADMSG:
 * no commit of ours; -EPROTO: a plain broker's where this has SSDTF, or the other way round;
 * -ENOMEM.
 */
int broker_restore_session(struct broker *b, const struct broker_commit_session *r) must_check;
int broker_restore_subscription(struct broker *b,
				const struct broker_commit_subscription *r) must_check;
int broker_restore_message(struct broker *b, const struct broker_commit_message *r) must_check;
int broker_restore_delivery(struct broker *b, const struct broker_commit_delivery *r) must_check;
int broker_restore_release(struct broker *b, const struct broker_commit_release *r) must_check;
int broker_restore_incoming(struct broker *b, const struct broker_commit_incoming *r) must_check;
int broker_restore_retained(struct broker *b, const struct broker_commit_retained *r) must_check;
/* That was all. */
void broker_restore_end(struct broker *b);

/* Says goodbye to every connection (for SIGTERM): they are closed, Wills are not published. */
void broker_stop(struct broker *b);

struct broker_stats {
	uint64_t connects, auth_passed, auth_failed, admission_refused;
	uint64_t received, accepted, replayed, refused[9]; /* refused: by PROTOCOL 7 reason */
	uint64_t delivered, acknowledged, no_grant, dropped_qos0, dropped_full;
	uint64_t conversions, capsule_hits, conversion_retries, signatures, signed_deliveries;
	uint64_t commits, errors_sent, nacks, reports;
	uint32_t connections, sessions, retained, queued, capsules, contexts;
};
void broker_stats(const struct broker *b, struct broker_stats *ret_s);

/* --- admission ------------------------------------------------------------------------------ */

/* How often each verdict was given, and what was done: ADMISSION_COUNTERS of them. */
const uint64_t *broker_admission_counters(const struct broker *b);
/* Each enrolled party as the filter has to know it; key holds a secret. */
void broker_each_device(const struct broker *b,
			void (*each)(void *ctx, const struct admission_id *id,
				     const struct admission_device *device),
			void *ctx);

/* 0, -ENOSPC, -ENOMEM. The op ban() is called for it, too. */
int broker_ban(struct broker *b, const struct admission_source *source, uint64_t ms) must_check;
bool broker_unban(struct broker *b, const struct admission_source *source);
void broker_each_ban(const struct broker *b,
		     void (*each)(void *ctx, const struct admission_source *source,
				  uint64_t left_ms),
		     void *ctx);
/* Sources of CONNECTs that were rejected here, in no order. */
void broker_each_rejected(const struct broker *b,
			  void (*each)(void *ctx, const struct admission_source *source,
				       uint64_t rejected, enum admission_verdict last),
			  void *ctx);

/* What is retained, as it is stored: in SSDTF mode the sender's bytes as they came. */
void broker_each_retained(const struct broker *b,
			  void (*each)(void *ctx, struct bytes topic, struct bytes body),
			  void *ctx);

/*
 * The value of $SYS/broker/NAME, for those who may see it (PROTOCOL 7): managers, or in plain mode
 * anybody. name is a topic of its own, of at most SYS_NAME_BYTES_MAX (sys.h) bytes. Costs nothing
 * where nobody subscribed; may be called as often as the value changes. -EINVAL (the name),
 * -ENOSPC (SYS_VALUES_MAX names), -ENOMEM: only a new name can fail.
 */
int broker_sys_set(struct broker *b, const char *name, uint64_t value) must_check;

/* For the loss and leak checks of tests and the benchmark. */
uint64_t broker_mallocs(const struct broker *b);

#endif
