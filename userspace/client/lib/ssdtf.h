/* SPDX-License-Identifier: MIT */
/*
 * libssdtf: what a device or a receiver links to speak SSDTF over any MQTT library.
 *
 *       your program                libssdtf                       your MQTT library
 *   ssdtf_connect_params() --> User Name, Password ------------------> CONNECT
 *   ssdtf_on_connect()     <------------------------------------------ CONNACK 0
 *   ssdtf_on_message()     <-- every incoming PUBLISH <--------------- PUBLISH
 *            |                  challenge, result: it answers by itself
 *            v                  through ops->publish, ops->disconnect -> PUBLISH, DISCONNECT
 *   struct ssdtf_event: authenticated, a message opened, an error, one that would not open ...
 *   ssdtf_seal()           --> payload ------------------------------> PUBLISH
 *   ssdtf_seal_batch()     --> several, under one signature ---------> PUBLISH ...
 *   ssdtf_ask_updates()    --> "what is newer than what I have?" -----> PUBLISH; statements come
 *   ssdtf_on_disconnect()  <------------------------------------------ the connection ended
 *
 * The library is C99, does no I/O, reads no clock and allocates nothing itself (the crypto library
 * beneath it may): memory is the caller's, time is an argument, the network and the counter's
 * storage are the callbacks in struct ssdtf_ops. docs/firmware.md leads through a whole client.
 *
 * struct ssdtf_client is the caller's memory, belongs to one thread, holds secrets (wiped by
 * ssdtf_deinit) and must not be copied, forked with or restored from a snapshot once it has sealed:
 * an HPKE context seals each sequence number once, ever (PROTOCOL 2). Its fields are for reading in
 * a debugger; everything a program needs comes from the functions.
 *
 * Functions that can fail return 0 or -errno, and that is trouble on our side: what a peer did
 * wrong is an event. Out-parameters are untouched on failure.
 */
#ifndef SSDTF_CLIENT_LIB_SSDTF_H
#define SSDTF_CLIENT_LIB_SSDTF_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/base/replay.h"
#include "userspace/base/secret.h"
#include "userspace/bundle/bundle.h"
#include "userspace/bundle/claim.h"
#include "userspace/bundle/record.h"
#include "userspace/bundle/statement.h"
#include "userspace/crypto/admission.h"
#include "userspace/crypto/envelope.h"
#include "userspace/crypto/grant.h"
#include "userspace/crypto/p256.h"
#include "userspace/crypto/publish.h"

/* A firmware may lower these to save memory; a bundle that holds more is refused with -E2BIG. */
#ifndef SSDTF_SCOPES_MAX
#define SSDTF_SCOPES_MAX                                                         \
	16 /* scopes it may publish under, and their epochs; some 400 bytes each \
	    */
#endif
#ifndef SSDTF_GRANTS_MAX
#define SSDTF_GRANTS_MAX 64 /* grants it holds, two a scope for a while; some 200 bytes each */
#endif
/* Batch signatures remembered as verified, the broker's and the origins': as many as have batches
 * on their way at one time. 40 bytes each. */
#ifndef SSDTF_ROOTS_MAX
#define SSDTF_ROOTS_MAX 16
#endif
/* Senders' contexts remembered where the configuration gives no array: some 200 bytes each. */
#ifndef SSDTF_CONTEXTS_MAX
#define SSDTF_CONTEXTS_MAX 8
#endif

#define SSDTF_KEYS_MAX		   8   /* origins' public keys held ready */
#define SSDTF_FAILED_MAX	   4   /* messages remembered as not opened */
#define SSDTF_USER_NAME_BYTES	   43  /* b64u of 32 bytes */
#define SSDTF_BINDING_BYTES_MAX	   32  /* the tls-exporter value */
#define SSDTF_TEXT_BYTES_MAX	   256 /* of a report; a longer text is cut */
#define SSDTF_COUNTER_STEP	   1024
#define SSDTF_CONTEXT_MESSAGES_MAX (HPKE_SEQ_MAX + 1) /* PROTOCOL 2 */
#define SSDTF_CONTEXT_SECONDS_MAX  3600		      /* PROTOCOL 2 */
#define SSDTF_MQTT_LEVEL	   4		      /* 3.1.1 */
/* A broker that names a counter further ahead than this is not followed: one lie would use up the
 * sender's counters for good. */
#define SSDTF_COUNTER_JUMP_MAX (1ull << 32)

/* What ssdtf_seal() makes of n bytes, and the most that a delivery adds to them: a converted head
 * with the longest origin and proof, and a batch trailer. ssdtf_seal_batch() has its own below. */
#define SSDTF_SEALED_BYTES(n) (ENVELOPE_SEALED_BYTES(n) + PUBLISH_TRAILER_1_BYTES)
#define SSDTF_BLOCK_BYTES_MAX                                                          \
	(ENVELOPE_GRANT_BYTES + P256_X_BYTES + 1 + ENVELOPE_ORIGIN_BYTES_MAX + 2 + 3 + \
	 PUBLISH_TRAILER_BYTES_MAX)
#define SSDTF_DELIVERED_BYTES_MAX(n) \
	(ENVELOPE_SEALED_BYTES(n) + SSDTF_BLOCK_BYTES_MAX + PUBLISH_TRAILER_BYTES_MAX)

/* In a scope whose plaintexts are padded (PROTOCOL 2), n bytes are sealed as ssdtf_padded_bytes(n),
 * which is never more than this. So SSDTF_SEALED_BYTES(SSDTF_PADDED_BYTES_MAX(n)) is room for any.
 */
#define SSDTF_PAD_BYTES_MIN  32
#define SSDTF_PAD_BYTES_STEP 65536
#define SSDTF_PADDED_BYTES_MAX(n)                           \
	((n) < SSDTF_PAD_BYTES_MIN    ? SSDTF_PAD_BYTES_MIN \
	 : (n) < SSDTF_PAD_BYTES_STEP ? 2 * (n)             \
				      : (n) + SSDTF_PAD_BYTES_STEP)
/* Exactly; 0 for 0. SIZE_MAX where no such plaintext can be. */
size_t ssdtf_padded_bytes(size_t n);
/* Writes it at out, which may be where plain is. -ENOBUFS. */
int ssdtf_pad(struct bytes plain, uint8_t *out, size_t room) must_check;
/* *v without its padding. -EBADMSG where it has none. */
int ssdtf_unpad(struct bytes *v) must_check;

#define SSDTF_TOPIC_ERROR  "$SSDTF/error"
#define SSDTF_TOPIC_NACK   "$SSDTF/nack"
#define SSDTF_TOPIC_REPORT "$SSDTF/report"
#define SSDTF_TOPIC_UPDATE "$SSDTF/update"

/* PROTOCOL 7's reasons. */
enum ssdtf_reason {
	SSDTF_REASON_NONE = 0,
	SSDTF_REASON_BAD_SIGNATURE = 1,
	SSDTF_REASON_MALFORMED = 2,
	SSDTF_REASON_REPLAYED = 3,
	SSDTF_REASON_KEY_ID = 4,	/* unknown or expired */
	SSDTF_REASON_NOT_PERMITTED = 5, /* on this topic */
	SSDTF_REASON_UNAVAILABLE = 6,	/* conversion, for now */
	SSDTF_REASON_CANNOT_OPEN = 7,
	SSDTF_REASON_CONTEXT_RETIRED = 8, /* seal anew */
};

/* Constant text for people; numbers that have none are "unknown reason". */
const char *ssdtf_reason_text(unsigned reason);

/* Now. unix_ms is 0 on a device that does not know the time of day; mono_ms is any count of
 * milliseconds that never goes back while the device runs (the age of a context hangs on it). */
struct ssdtf_time {
	uint64_t unix_ms;
	uint64_t mono_ms;
};

/* What a statement of the manager's changes (PROTOCOL 13). Views are into the statement. */
struct ssdtf_update {
	enum statement_kind kind; /* SCOPE, GRANT, PARTY or BROKER */
	uint64_t serial;
	struct bytes name; /* the scope's, also of a grant; the party's or the gateway's id */
	uint32_t key_id;   /* of scope and grant */
	bool removed;	   /* the party was revoked */
};

/*
 * What the library asks of its surroundings. Called only from within functions of this header; a
 * callback calls none of them.
 */
struct ssdtf_ops {
	/* Hands a PUBLISH to the MQTT library, which copies what it keeps. 0 or -errno. */
	int (*publish)(void *ctx, const char *topic, const uint8_t *payload, size_t n, uint8_t qos,
		       bool retain);
	/* Ends the connection: the broker did not prove itself. */
	void (*disconnect)(void *ctx);
	/* The mark that the last counter_reserve() stored, 0 where there never was one. */
	int (*counter_load)(void *ctx, uint64_t *ret_mark);
	/* Stores durably, before it returns, that counters up to and with mark may have been used.
	 * One write covers counter_step messages; after a reboot the counter goes on behind the
	 * mark. */
	int (*counter_reserve)(void *ctx, uint64_t mark);
	/* Stores durably, before it returns, a statement that is about to be taken: given back in
	 * config.statements it holds after a restart, too. May be NULL. Where it fails the
	 * statement is not taken, nor those behind it; the broker sends them again when it is
	 * asked. */
	int (*statement_store)(void *ctx, struct bytes statement, const struct ssdtf_update *what);
};

/*
 * A receiver's memory of one origin (PROTOCOL 4, replay). Plain data without pointers, so that the
 * caller can store the array and load it again before ssdtf_init(). When the array is full the
 * origin heard longest ago is forgotten, and with it which of its messages were seen: give as many
 * as there are origins. Zeroed is unused.
 */
struct ssdtf_origin {
	uint8_t id_n; /* 0: unused */
	uint8_t id[ENVELOPE_ORIGIN_BYTES_MAX];
	struct replay_window window;
	uint64_t used; /* when it was last heard, in messages */
};

/*
 * A receiver's memory of one context of a sender's, as one grant converts it: its further messages
 * are opened without a scalar multiplication. Holds keys. When there is no place, one that was not
 * used for long makes room, and is computed anew when it is needed: give one for each sender that
 * is heard at a time, and scope.
 */
struct ssdtf_context {
	uint64_t used;	/* 0: unused */
	uint32_t grant; /* index */
	uint8_t enc[P256_COMPRESSED_BYTES];
	uint8_t x[P256_X_BYTES];
	struct envelope_receiver receiver;
};

/* Who it is, for one that has no bundle yet: it can claim (PROTOCOL 15) and nothing else. */
struct ssdtf_identity {
	struct bytes id, gateway_id;
	uint8_t k_adm[ADMISSION_KEY_BYTES];
	struct p256_point broker;
};

/* Keys are copied. bundle, statements, origins, contexts and ops stay the caller's and must stay in
 * place: the bundle until the next one is loaded, the others until deinit. */
struct ssdtf_config {
	struct bytes id; /* who the bundle must be for; empty: whoever has these keys */
	const struct secret32 *signing;
	/* Authenticates by SSDTF-ZK-1 (PROTOCOL 16), as it was enrolled: the id is the key. */
	bool zk;
	const struct secret32 *encryption; /* NULL: reads nothing */
	const struct secret32
		*encryption_old;	  /* NULL, or the one before: grants name one or other */
	const struct p256_point *manager; /* whose bundles are believed */
	struct bytes bundle;
	const struct ssdtf_identity *identity; /* instead of a bundle; its views stay in place */
	uint64_t serial_min;		       /* a bundle below this serial is refused */
	/*
	 * Memory for the manager's later statements (PROTOCOL 13), whole and one behind the other:
	 * 96 bytes and the record each, some 230 for a scope or a party, 380 for a grant. The first
	 * statements_n bytes are those that statement_store() was given before. What is superseded
	 * makes room for what comes; what finds none is not taken. NULL: takes no updates.
	 */
	uint8_t *statements;
	size_t statements_n, statements_room;
	uint32_t counter_step; /* 0: SSDTF_COUNTER_STEP */
	/* A sending context serves so many messages and seconds at most. What the bundle says of a
	 * scope holds where it is lower, or these are 0. */
	uint32_t rekey_messages, rekey_seconds;
	struct ssdtf_origin *origins;
	unsigned n_origins; /* at least 1 where there is an encryption key */
	/* A receiver's; wiped by init and deinit. NULL: SSDTF_CONTEXTS_MAX of the client's own. */
	struct ssdtf_context *contexts;
	unsigned n_contexts;
	const struct ssdtf_ops *ops;
	void *ctx; /* for ops */
};

/* --- the client's memory: no fields for the caller -------------------------------------------- */

struct ssdtf_scope {
	const uint8_t *source; /* the statement that its views are in; NULL: the bundle */
	uint32_t key_id;
	uint32_t epoch;
	struct bytes name;
	struct bytes filters; /* n * u16+ */
	bool padded;
	uint64_t not_before_ms, not_after_ms;
	struct p256_point a;
	enum hpke_suite suite;
	uint32_t messages_max; /* of one context; both within PROTOCOL 2's limits */
	uint32_t seconds_max;
	bool open; /* sender holds a context */
	uint64_t opened_mono_ms;
	uint32_t messages;
	struct envelope_sender sender;
};

struct ssdtf_grant {
	const uint8_t *source; /* as above */
	uint8_t grant_id[GRANT_ID_BYTES];
	uint32_t key_id;
	uint8_t flags;
	uint8_t key;	      /* which of our encryption keys it is for */
	struct bytes filters; /* n * u16+ */
	uint64_t not_before_ms, not_after_ms;
	struct p256_point a;
	bool ready; /* d is known, x no longer */
	union {
		struct p256_point x;
		struct secret32 d;
	} u;
};

/* Whose signatures are checked: by its key and, until then, by another. */
struct ssdtf_signer {
	struct p256_public *key, *other; /* other may be NULL */
	uint64_t other_until_ms;	 /* 0: without end */
};

struct ssdtf_key {
	struct bytes id; /* in the bundle or a statement */
	struct ssdtf_signer signer;
	uint64_t used; /* 0: unused */
};

struct ssdtf_root {
	uint64_t used;		  /* 0: unused */
	uint8_t name[HASH_BYTES]; /* of root, signature and signer */
	uint64_t until_ms;	  /* 0: without end */
};

struct ssdtf_encryption {
	struct secret32 scalar;
	struct p256_point point;
};

struct ssdtf_failed {
	uint64_t counter;
	uint8_t origin_hash[8];
};

enum ssdtf_state {
	SSDTF_CLOSED,	  /* no connection */
	SSDTF_CONNECTING, /* CONNECT is made, CONNACK is not here */
	SSDTF_CHALLENGE,  /* waiting for the broker's challenge */
	SSDTF_RESULT,	  /* the response is out */
	SSDTF_OPEN,	  /* both sides have proved themselves */
};

struct ssdtf_session {
	enum ssdtf_state state;
	uint8_t r_c[32], r_b[32];
	uint8_t level, flags;
	uint8_t binding[SSDTF_BINDING_BYTES_MAX];
	uint8_t binding_n;
	uint64_t next_n[3]; /* PROTOCOL 7's n, broker to us, by enum ssdtf_counted: the least taken
			     */
	uint32_t n_out;
};

struct ssdtf_stats {
	uint64_t verifications;	  /* ECDSA, of the broker's signatures and of proofs */
	uint64_t roots_reused;	  /* batch signatures that needed none */
	uint64_t exchanges;	  /* ECDH to open messages: one for each context not known */
	uint64_t contexts_reused; /* messages that needed none */
	uint64_t sealed, signatures, contexts, opened, replayed, unopened, ignored;
	uint64_t origins_forgotten;
	uint64_t updates; /* statements taken */
};

struct ssdtf_client {
	const struct ssdtf_ops *ops;
	void *ctx;
	struct bytes id; /* in the bundle */
	struct p256_point signing_point;
	struct p256_private *signing;
	bool zk;
	struct secret32 proves; /* with zk: the signing key's scalar */
	struct ssdtf_encryption encryption[2];
	unsigned n_encryption; /* 0: reads nothing */
	struct p256_public *manager;
	struct ssdtf_signer broker;
	uint8_t broker_hashes[2][HASH_BYTES];
	unsigned broker_key; /* which of the two it signed with last */
	uint64_t bundle_serial;
	uint64_t serial; /* of the newest statement had; not below the bundle's */
	struct bundle_party bundle;
	struct {
		uint8_t *p;
		size_t n, room;
	} statements;
	unsigned n_scopes, n_grants;
	struct ssdtf_scope scopes[SSDTF_SCOPES_MAX];
	struct ssdtf_grant grants[SSDTF_GRANTS_MAX];

	uint64_t counter_next, counter_mark, acknowledged;
	uint32_t counter_step;
	uint32_t rekey_messages, rekey_seconds;

	struct ssdtf_session session;

	struct ssdtf_origin *origins;
	unsigned n_origins;
	uint64_t tick;
	struct ssdtf_key keys[SSDTF_KEYS_MAX];
	struct ssdtf_root roots[SSDTF_ROOTS_MAX];
	struct ssdtf_context *contexts;
	unsigned n_contexts;
	struct ssdtf_context own_contexts[SSDTF_CONTEXTS_MAX];
	struct ssdtf_failed failed[SSDTF_FAILED_MAX];
	unsigned failed_used, failed_at;
	struct ssdtf_stats stats;
};

/* --- set-up ----------------------------------------------------------------------------------- */

/*
 * Verifies the bundle and the statements, takes them apart and loads the counter. Of the statements
 * those that are newer than the bundle hold; what is of no use any more is taken out of their
 * memory (ssdtf_statements() is what is left). Errors: -EINVAL a config that cannot be; -EBADMSG
 * the bundle is not the manager's or is damaged; -EILSEQ the statements are; -ESTALE the bundle's
 * serial is below serial_min; -ETIME it is not valid now; -EPERM it is for another id or other
 * keys; -E2BIG more scopes or grants than the maxima; those of p256.h and of counter_load. On
 * failure there is nothing to deinit.
 */
int ssdtf_init(struct ssdtf_client *c, const struct ssdtf_config *config,
	       struct ssdtf_time now) must_check;
void ssdtf_deinit(struct ssdtf_client *c);

/*
 * A newer bundle (the same serial is taken too) in place of the one in use; errors as above, and
 * then the old one stays. Statements that are newer still hold. The session goes on, sending
 * contexts are opened anew.
 */
int ssdtf_load_bundle(struct ssdtf_client *c, struct bytes bundle,
		      struct ssdtf_time now) must_check;

/* This party's id, which is the MQTT client id. A view into the bundle. */
struct bytes ssdtf_id(const struct ssdtf_client *c);
/* Of the bundle in use: to be stored, and given as serial_min next time. */
uint64_t ssdtf_serial(const struct ssdtf_client *c);
/* The id of the gateway that the bundle names. A view into the bundle. */
struct bytes ssdtf_gateway(const struct ssdtf_client *c);
/* SHA-256 of the broker's public point, the one that it signed with last: what people compare. */
const uint8_t *ssdtf_broker_hash(const struct ssdtf_client *c);
/* The statements that hold, for who keeps them all at once. A view into config.statements. */
struct bytes ssdtf_statements(const struct ssdtf_client *c);
/* Of the newest that the manager stated and this party has, in the bundle or behind it. */
uint64_t ssdtf_updated_to(const struct ssdtf_client *c);

/* --- the session ------------------------------------------------------------------------------ */

/* What CONNECT is to carry. The first part is the caller's wish, the second the answer. */
struct ssdtf_connect {
	bool clean_session;
	bool has_will;
	uint8_t will_qos;
	bool will_retain;
	struct bytes binding; /* 32-byte tls-exporter value on TLS, empty on TCP (PROTOCOL 5) */

	char user_name[SSDTF_USER_NAME_BYTES + 1]; /* terminated */
	uint8_t password[ADMISSION_TOKEN_BYTES];   /* bytes: there may be zeros among them */
	uint8_t flags; /* the connect flags that these make, with which the broker is compared */
};

/*
 * Begins a session: draws a fresh R_c, so each CONNECT needs its own call. -EINVAL: a binding
 * longer than 32 bytes or a Will QoS above 2. Nothing of an earlier session holds in this one.
 */
int ssdtf_connect_params(struct ssdtf_client *c, struct ssdtf_connect *params,
			 struct ssdtf_time now) must_check;
/* CONNACK with return code 0 came. */
void ssdtf_on_connect(struct ssdtf_client *c);
/* The connection is gone, whoever ended it. */
void ssdtf_on_disconnect(struct ssdtf_client *c);
/* Both sides have proved themselves: SUBSCRIBE and PUBLISH may go out. */
bool ssdtf_is_open(const struct ssdtf_client *c);

/* A PUBLISH as the MQTT library gives it. */
struct ssdtf_packet {
	struct bytes topic, payload;
	uint8_t qos;
	bool retain;
};

enum ssdtf_event_kind {
	SSDTF_NOTHING,	     /* a step of the handshake was taken */
	SSDTF_AUTHENTICATED, /* the session is open: subscribe and publish now */
	SSDTF_AUTH_FAILED,   /* the broker is not who the manager says; disconnect() was called */
	SSDTF_MESSAGE,	     /* one was opened */
	SSDTF_REPLAYED,	     /* one that was seen before: acknowledge and forget it */
	SSDTF_UNOPENED,	     /* one is of no use: ssdtf_nack() if ask_again, else ssdtf_report() */
	SSDTF_ERROR,	     /* the broker refused a message of ours */
	SSDTF_REPORTED,	     /* to a manager: somebody complains */
	SSDTF_UPDATED,	     /* the manager stated something anew, and it was taken */
	SSDTF_CLAIMED,	     /* the answer to ssdtf_claim() */
	SSDTF_IGNORED,	     /* forged, stale or out of place; nothing is to be done */
};

/* How far the sender's own signature was checked. */
enum ssdtf_proof {
	SSDTF_PROOF_ABSENT,    /* none came, and none is required */
	SSDTF_PROOF_UNCHECKED, /* not required, and the bundle has no key of its origin */
	SSDTF_PROOF_VERIFIED,
};

/*
 * What a PUBLISH was. Fields that are not named for a kind are zero. Views are into the packet, but
 * plain is in the caller's buffer.
 */
struct ssdtf_event {
	enum ssdtf_event_kind kind;

	/* AUTH_FAILED, UNOPENED, REPLAYED, IGNORED: for people, a constant. UPDATED: why one of the
	 * statements was not taken, or NULL. */
	const char *why;

	/* UNOPENED, ERROR, REPORTED: enum ssdtf_reason, or a number that is not known yet. */
	unsigned reason;

	/* The counter of the message that it is about, 0 where that is unreadable. AUTHENTICATED:
	 * the highest of ours that the broker accepted. */
	uint64_t counter;

	/* MESSAGE, REPLAYED, UNOPENED: whose it is, empty where that is unreadable. REPORTED: who
	 * is complained of. */
	struct bytes origin;

	/* ERROR, REPORTED, CLAIMED: the peer's words, any bytes. */
	struct bytes text;

	/* AUTHENTICATED: a message was acknowledged that the broker never accepted; the broker
	 * knows a higher counter than we gave out, and ours was raised above it. */
	bool acks_forged, counter_lost;

	/* MESSAGE */
	struct bytes plain;
	uint64_t time_ms; /* the sender's clock, 0: it has none */
	enum ssdtf_proof proof;
	uint8_t proven_first; /* proof verified: first byte of the sender's PUBLISH */
	bool id_replaced;     /* origin is an external id */

	/* MESSAGE, REPLAYED, and UNOPENED where it parses: as delivered. */
	struct envelope envelope;

	/* UNOPENED: another conversion may help, and was not asked for yet. */
	bool ask_again;

	/* REPORTED: who complains, and whether under the key that the bundle certifies for it. */
	struct bytes reporter;
	bool reporter_verified;

	/* UPDATED: how many statements were taken (perhaps none), and the last of them. */
	unsigned updates;
	struct ssdtf_update update;

	/* CLAIMED; where it is certified, sealed is the party's bundle for claim_open(). */
	enum claim_result claim;
	struct p256_point enc;
	struct bytes sealed;
};

/*
 * Takes every incoming PUBLISH, whatever its topic. plain is room for the plaintext, payload.n
 * bytes are always enough. -ENOBUFS: they were too few, and nothing was changed; -ENOMEM, -EIO: the
 * crypto library's trouble; what publish() returned where the answer to a challenge could not be
 * sent.
 */
int ssdtf_on_message(struct ssdtf_client *c, const struct ssdtf_packet *packet,
		     struct ssdtf_time now, uint8_t *plain, size_t plain_room,
		     struct ssdtf_event *ret_event) must_check;

/* --- sending ---------------------------------------------------------------------------------- */

struct ssdtf_sealed {
	struct bytes payload; /* in the caller's buffer */
	uint64_t counter;     /* by which an error names this message */
};

/*
 * Seals and signs plain for a PUBLISH with exactly this topic, QoS and RETAIN. out has room for
 * SSDTF_SEALED_BYTES(plain.n), of the padded size where the scope is padded, and does not overlap
 * plain. May be called with no session open.
 * Sending again means these bytes again. Errors: -EACCES no scope of the bundle covers topic;
 * -ETIME the one that does is not valid now; -EINVAL no topic name, or QoS above 2; -ENOBUFS;
 * -EOVERFLOW counters are used up; those of p256.h and of counter_reserve.
 */
int ssdtf_seal(struct ssdtf_client *c, struct bytes topic, struct bytes plain, uint8_t qos,
	       bool retain, struct ssdtf_time now, uint8_t *out, size_t room,
	       struct ssdtf_sealed *ret_sealed) must_check;

/* The same for a Will. Its counter is used up when the session opens: seal one for each CONNECT. */
int ssdtf_seal_will(struct ssdtf_client *c, struct bytes topic, struct bytes plain, uint8_t qos,
		    bool retain, struct ssdtf_time now, uint8_t *out, size_t room,
		    struct ssdtf_sealed *ret_sealed) must_check;

/*
 * One message of a batch. Only what the first part says is the caller's; out has room for
 * SSDTF_SEALED_BATCH_BYTES(plain.n, size of the batch), of the padded size as above.
 */
struct ssdtf_outgoing {
	struct bytes topic, plain;
	uint8_t qos;
	bool retain;
	uint8_t *out;
	size_t room;

	int error;		    /* why it cannot be sealed: as of ssdtf_seal(), 0: nothing */
	struct ssdtf_sealed sealed; /* where the call returned 0 */
};

#define SSDTF_BATCH_MAX MERKLE_LEAVES_MAX
#define SSDTF_SEALED_BATCH_BYTES(n, batch) \
	(ENVELOPE_SEALED_BYTES(n) + PUBLISH_TRAILER_2_BYTES(MERKLE_STEPS_MAX(batch)))
/* How many nodes ssdtf_seal_batch() wants to build its tree of. */
#define SSDTF_BATCH_NODES(batch) MERKLE_NODES_MAX(batch)

/*
 * Seals n messages, 1 to SSDTF_BATCH_MAX, and signs all of them at once (PROTOCOL 4, trailer 2):
 * each verifies by itself and may be published, lost, delayed and sent again like any other. One
 * alone is what ssdtf_seal() makes. They take their counters in the order of the list; have no
 * more unacknowledged than the broker's window holds. nodes is memory to work in, its content of
 * no use afterwards.
 *
 * All are looked at before the first is sealed. Where one cannot be, that is in its error, the
 * first of them is returned, and nothing was used up. -EINVAL, -ENOBUFS also for n and n_nodes;
 * otherwise as ssdtf_seal(), and none of the messages may be published.
 */
int ssdtf_seal_batch(struct ssdtf_client *c, struct ssdtf_outgoing *list, unsigned n,
		     struct ssdtf_time now, uint8_t (*nodes)[HASH_BYTES],
		     size_t n_nodes) must_check;

/* How long a context is kept that seals for topic now. -EACCES and -ETIME as above. */
struct ssdtf_rekey {
	uint32_t messages, seconds;
	uint32_t key_id; /* to whose key */
	bool padded;
};
int ssdtf_rekey(struct ssdtf_client *c, struct bytes topic, struct ssdtf_time now,
		struct ssdtf_rekey *ret_rekey) must_check;

/* A PUBACK or PUBCOMP came for the message with this counter. Lets the next session see whether it
 * was forged; calling it is otherwise optional. */
void ssdtf_acknowledged(struct ssdtf_client *c, uint64_t counter);

/* --- updates ---------------------------------------------------------------------------------- */

/*
 * Tells the broker what was had, so that it sends what the manager stated since, now and as long as
 * the session lasts; call it when a session opens. Scopes are sealed to under their new key from
 * the next message on (what was sealed before stays valid for a while), grants are added to those
 * that are held, keys of origins and of the broker are replaced. -ENOTCONN with no session open;
 * -ENOTSUP where the configuration has no room for statements.
 */
int ssdtf_ask_updates(struct ssdtf_client *c) must_check;

/* --- claiming --------------------------------------------------------------------------------- */

/*
 * Claims the certification of a new signing key (PROTOCOL 15), in a session under the key of a
 * claim code: config.signing and config.identity are claim_keys()' and the code's. SSDTF_CLAIMED is
 * what comes of it. answer is the public half of a key for claim_open(). -ENOTCONN; p256.h's.
 */
int ssdtf_claim(struct ssdtf_client *c, const struct p256_private *signing,
		const struct p256_point *answer) must_check;

/* --- complaining ------------------------------------------------------------------------------ */

/*
 * Asks the broker to convert the message of an UNOPENED event once more. Send it before (and
 * instead of) the message's PUBACK: the broker repeats only what is unacknowledged. -ENOTCONN with
 * no session open; -EINVAL for an event without ask_again.
 */
int ssdtf_nack(struct ssdtf_client *c, const struct ssdtf_event *event) must_check;

/* Tells the manager, by way of the broker, about id. text is cut to SSDTF_TEXT_BYTES_MAX. */
int ssdtf_report(struct ssdtf_client *c, unsigned reason, uint64_t counter, struct bytes id,
		 struct bytes text) must_check;

#endif
