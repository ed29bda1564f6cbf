/* SPDX-License-Identifier: MIT */
/*
 * What libssdtf's own files call of each other. Not for users of the library: ssdtf.h is.
 *
 * In here a peer's misbehaviour travels as -EBADMSG (or p256.h's -EINVAL for bytes that are no
 * point) until it is made an event; ssdtf_is_peers_fault() tells it from trouble of our own.
 */
#ifndef SSDTF_CLIENT_LIB_SSDTF_PRIVATE_H
#define SSDTF_CLIENT_LIB_SSDTF_PRIVATE_H

#include <errno.h>

#include "userspace/client/lib/ssdtf.h"

#define SSDTF_TOPIC_PREFIX "$SSDTF/"
#define SSDTF_TOPIC_AUTH   "$SSDTF/auth/"
#define SSDTF_NONCE_BYTES  32

static inline bool ssdtf_is_peers_fault(int error)
{
	return error == -EBADMSG || error == -EINVAL;
}

/* First byte of a PUBLISH with DUP = 0 (PROTOCOL 4). */
static inline uint8_t ssdtf_first(uint8_t qos, bool retain)
{
	return (uint8_t)(0x30 | qos << 1 | (retain ? 1 : 0));
}

static inline bool ssdtf_begins(struct bytes v, const char *prefix)
{
	struct bytes p = bytes_str(prefix);

	return v.n >= p.n && bytes_equal(bytes_of(v.p, p.n), p);
}

/* Does one of the u16+ filters match? */
bool ssdtf_filters_match(struct bytes filters, struct bytes topic);

/* ssdtf_table.c: scopes and grants. Each record's views stay in place; source is the statement that
 * they are in, NULL for the bundle. */

/* Is there room, with those gone that make room for it? */
bool ssdtf_scope_fits(const struct ssdtf_client *c, const struct record_scope *s, uint64_t now_ms);
bool ssdtf_grant_fits(const struct ssdtf_client *c, const struct record_grant *g, uint64_t now_ms);
/* Does a scope of that name have a later epoch? */
bool ssdtf_scope_is_over(const struct ssdtf_client *c, const struct record_scope *s);
/* Which of our encryption keys it is for. -ENOENT. */
int ssdtf_grant_key(const struct ssdtf_client *c, const struct record_grant *g) must_check;
/* In place of those that make room. What was looked at above holds. */
void ssdtf_scope_take(struct ssdtf_client *c, const struct record_scope *s, const uint8_t *source,
		      uint64_t now_ms);
void ssdtf_grant_take(struct ssdtf_client *c, const struct record_grant *g, const uint8_t *source,
		      uint64_t now_ms);
/* Beside all others, as a bundle has them: its counts were looked at. */
void ssdtf_scope_add(struct ssdtf_client *c, const struct record_scope *s, const uint8_t *source);
void ssdtf_grant_add(struct ssdtf_client *c, const struct record_grant *g, const uint8_t *source);
/* Does anything have its views in this statement? */
/* Takes out the oldest grant of a statement that another one came after. False: there is none. */
bool ssdtf_grant_drop(struct ssdtf_client *c);
bool ssdtf_tables_use(const struct ssdtf_client *c, const uint8_t *source);
/* The statement moves there. */
void ssdtf_tables_move(struct ssdtf_client *c, const uint8_t *source, const uint8_t *to);

/* ssdtf_update.c */

/* All that is kept is the manager's: 0, -EILSEQ, p256.h's. */
int ssdtf_statements_check(struct ssdtf_client *c) must_check;
/* Takes those that are newer than what is had, and drops the others. */
void ssdtf_statements_take(struct ssdtf_client *c, uint64_t now_ms);
/* The body of the newest kept statement about this party. */
bool ssdtf_statement_of_party(const struct ssdtf_client *c, struct bytes id,
			      struct bytes *ret_body);
/* $SSDTF/update from the broker. */
int ssdtf_take_update(struct ssdtf_client *c, const struct ssdtf_packet *p, struct ssdtf_time now,
		      struct ssdtf_event *ret_event) must_check;

/* ssdtf_session.c */

/* Makes *e an event without content of this kind. */
void ssdtf_event_init(struct ssdtf_event *e, enum ssdtf_event_kind kind, const char *why);
/* body || trailer 1 of ours, published at QoS 0. body is SSDTF_NOTICE_BODY_MAX bytes at most. */
int ssdtf_send_signed(struct ssdtf_client *c, const char *topic, struct bytes body) must_check;
#define SSDTF_NOTICE_BODY_MAX \
	(1 + 8 + 1 + ENVELOPE_ORIGIN_BYTES_MAX + 2 + SSDTF_TEXT_BYTES_MAX + SSDTF_NONCE_BYTES + 4)
/* The trailer-1 signature of the broker over a packet on a $SSDTF topic. 0, -EBADMSG, p256.h's. */
int ssdtf_verify_control(struct ssdtf_client *c, const struct ssdtf_packet *p,
			 struct bytes *ret_body) must_check;

/* What counts its messages, each for itself (PROTOCOL 7: n grows, per topic). */
enum ssdtf_counted { SSDTF_COUNTED_ERROR, SSDTF_COUNTED_UPDATE, SSDTF_COUNTED_CLAIM };
/* The end of such a message: R_b || u32 n. NULL where it is of this session and newer than the
 * last. */
const char *ssdtf_check_tail(struct ssdtf_session *s, enum ssdtf_counted which,
			     struct bytes_reader *r);
/* Behind what w has of body: R_b || u32 n, and sends it signed. */
int ssdtf_send_counted(struct ssdtf_client *c, const char *topic, struct bytes_writer *w,
		       const uint8_t *body) must_check;

/* ssdtf_seal.c */

int ssdtf_counter_init(struct ssdtf_client *c) must_check;
/* The broker knows a higher counter than we gave out: ours goes on behind it. */
bool ssdtf_counter_raise(struct ssdtf_client *c, uint64_t highest);
/* The next message of every scope, or of this one, opens a new context. */
void ssdtf_contexts_close(struct ssdtf_client *c);
void ssdtf_scope_close(struct ssdtf_scope *s);

/* ssdtf_open.c */

int ssdtf_open_message(struct ssdtf_client *c, const struct ssdtf_packet *p, struct ssdtf_time now,
		       uint8_t *plain, size_t room, struct ssdtf_event *ret_event) must_check;
/* ssdtf_signer.c */

#define SSDTF_SIGNER_BROKER bytes_of(NULL, 0)
/* Does t hold for p under a key of this origin, or of the broker? Of a batch one signature is
 * verified, the first time. That the body under a batch trailer is an envelope, the caller has seen
 * to. now_ms: 0 without a clock. 0; -ENOENT: no key is certified for the origin; -EBADMSG;
 * p256.h's.
 */
int ssdtf_verify(struct ssdtf_client *c, const struct publish *p, const struct publish_trailer *t,
		 struct bytes signer, uint64_t now_ms) must_check;
/* The broker's keys are those of the record now. p256.h's errors, and then they stay. */
int ssdtf_broker_take(struct ssdtf_client *c, const struct record_broker *b) must_check;
void ssdtf_signer_deinit(struct ssdtf_signer *s);
/* Other keys may be certified now. */
void ssdtf_signers_forget(struct ssdtf_client *c);

/* ssdtf_context.c */

/* The context of e under this grant, NULL where it is not known. */
const struct envelope_receiver *ssdtf_context_find(struct ssdtf_client *c, uint32_t grant,
						   const struct envelope *e);
/* One that is not known, and has opened e. */
void ssdtf_context_keep(struct ssdtf_client *c, uint32_t grant, const struct envelope *e,
			const struct envelope_receiver *receiver);
void ssdtf_contexts_wipe(struct ssdtf_client *c);
/* Those of one grant. */
void ssdtf_contexts_wipe_grant(struct ssdtf_client *c, uint32_t grant);

/* ssdtf_notice.c */

/* $SSDTF/error and $SSDTF/report from the broker. */
int ssdtf_take_error(struct ssdtf_client *c, const struct ssdtf_packet *p,
		     struct ssdtf_event *ret_event) must_check;
int ssdtf_take_report(struct ssdtf_client *c, const struct ssdtf_packet *p, struct ssdtf_time now,
		      struct ssdtf_event *ret_event) must_check;

/* ssdtf_claim.c: $SSDTF/claim from the broker. */
int ssdtf_take_claim(struct ssdtf_client *c, const struct ssdtf_packet *p,
		     struct ssdtf_event *ret_event) must_check;

#endif
