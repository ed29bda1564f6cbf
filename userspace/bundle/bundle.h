/* SPDX-License-Identifier: MIT */
/*
 * The bundles that the manager hands out, as bodies of signed statements.
 *
 *   gateway := broker record || SHA-256 of the token's unwrapping key 32
 *              || u32 n || n * u32+ scope record
 *              || u32 n || n * ( u32+ party record || admission )
 *              || u32 n || n * ( u32+ grant record || u16+ wrapped conversion key )
 *              || u32 n || n * ( u32 key id || u64 revoked at )
 *              || u32 n || n * u32+ statement (to be passed on to those whom it concerns)
 *   party   := u8+ party id || signing key 65 || broker record || u8 admission flags || K_adm 16
 *              || u16 n || n * u32+ scope record (what it may publish under)
 *              || u16 n || n * u32+ grant record (what it may read)
 *              || u16 n || n * u32+ party record (origins whose proofs it checks)
 *   distributor
 *           := u8+ its id || signing key 65 || SHA-256 of its token's unwrapping key 32
 *              || the manager's tracing key 65 || u8 admission flags || K_adm 16
 *              || broker record (of where it subscribes) || broker record (of where it publishes)
 *              || u16 n || n * u32+ grant record (hops that end at it)
 *              || u16 n || n * outlet
 *              || u32 n || n * u32+ party record (origins whose proofs it checks)
 *   outlet  := u32+ grant record || u16+ wrapped conversion key || u8+ name || u16+ topic prefix
 *              || u8+ id domain || u32 seconds after which external ids change (0: never)
 *   admission
 *           := u8 admission flags || K_adm 16 [|| previous K_adm 16 || u64 until, by flag 2]
 *
 * The statement's signature covers everything, so the records inside carry none of their own. K_adm
 * is a secret: bundles are files of mode 0600. The wrapped conversion key is RSA-OAEP (SHA-1, MGF1
 * with SHA-1, no label) of the 67-byte PKCS#8 form of rk under the token's unwrapping key. It is
 * empty for a grant by which a distributor converts: there the gateway learns what it may take from
 * whom, and for whom.
 *
 * A gateway bundle is decoded by iteration, since it may hold 100,000 records:
 * bundle_gateway_decode checks the structure of the whole and counts; the next() calls then decode
 * one record each.
 */
#ifndef SSDTF_BUNDLE_BUNDLE_H
#define SSDTF_BUNDLE_BUNDLE_H

#include <stdbool.h>
#include <stdint.h>

#include "bpf/admission.h"
#include "userspace/base/bytes.h"
#include "userspace/bundle/record.h"
#include "userspace/bundle/statement.h"

#define BUNDLE_WRAPPED_BYTES_MAX 512

enum bundle_admission_flags {
	BUNDLE_ADMISSION_NO_CLOCK = 1, /* slot 0 is accepted */
	BUNDLE_ADMISSION_PREVIOUS = 2, /* at a gateway: the key before this one still holds */
};

struct bundle_gateway {
	struct record_broker broker;
	uint8_t unwrap_key_hash[32]; /* SHA-256 of its SubjectPublicKeyInfo DER */
	uint32_t n_scopes, n_parties, n_grants, n_revoked, n_updates;
	/* Where each section begins: */
	struct bytes_reader scopes, parties, grants, revoked, updates;
};

struct bundle_gateway_party {
	struct record_party party;
	uint8_t admission_flags;
	uint8_t k_adm[ADMISSION_KEY_BYTES];
	uint8_t previous_k_adm[ADMISSION_KEY_BYTES]; /* by its flag, as the next */
	uint64_t previous_until_ms;
};

struct bundle_gateway_grant {
	struct record_grant grant;
	struct bytes wrapped_rk; /* empty where the grant has an upstream, and only there */
};

/* A revocation under key_id: contexts seen under it before are retired (PROTOCOL 2). */
struct bundle_gateway_revoked {
	uint32_t key_id;
	uint64_t revoked_at_ms;
};

int bundle_gateway_decode(struct bytes body, struct bundle_gateway *ret_b) must_check;
/* Each takes the section's reader (a copy of it) n times. 0 or -EBADMSG. Points of parties and
 * grants are not looked at (record.h, decode_signed). */
int bundle_gateway_next_scope(struct bytes_reader *r, struct record_scope *ret_s) must_check;
int bundle_gateway_next_party(struct bytes_reader *r,
			      struct bundle_gateway_party *ret_p) must_check;
int bundle_gateway_next_grant(struct bytes_reader *r,
			      struct bundle_gateway_grant *ret_g) must_check;
int bundle_gateway_next_revoked(struct bytes_reader *r,
				struct bundle_gateway_revoked *ret_v) must_check;
/* *ret_whole is what is passed on, *ret_s the same taken apart. */
int bundle_gateway_next_update(struct bytes_reader *r, struct bytes *ret_whole,
			       struct statement *ret_s) must_check;
/* Writing: head, then each section: its u32 count with bytes_write_u32, then its entries. */
void bundle_gateway_write_head(const struct bundle_gateway *b, struct bytes_writer *w);
void bundle_gateway_write_scope(const struct record_scope *s, struct bytes_writer *w);
void bundle_gateway_write_party(const struct bundle_gateway_party *p, struct bytes_writer *w);
void bundle_gateway_write_grant(const struct bundle_gateway_grant *g, struct bytes_writer *w);
void bundle_gateway_write_revoked(const struct bundle_gateway_revoked *v, struct bytes_writer *w);
void bundle_gateway_write_update(struct bytes statement, struct bytes_writer *w);

struct bundle_party {
	struct bytes party_id;
	struct p256_point signing;
	struct record_broker broker;
	uint8_t admission_flags;
	uint8_t k_adm[ADMISSION_KEY_BYTES];
	uint16_t n_scopes, n_grants, n_origins;
	struct bytes_reader scopes, grants, origins; /* where each section begins */
};

int bundle_party_decode(struct bytes body, struct bundle_party *ret_b) must_check;
int bundle_party_next_scope(struct bytes_reader *r, struct record_scope *ret_s) must_check;
int bundle_party_next_grant(struct bytes_reader *r, struct record_grant *ret_g) must_check;
int bundle_party_next_origin(struct bytes_reader *r, struct record_party *ret_p) must_check;
void bundle_party_write_head(const struct bundle_party *b, struct bytes_writer *w);
void bundle_party_write_record(struct bytes record, struct bytes_writer *w); /* u32+ */

struct bundle_distributor {
	struct bytes id;
	struct p256_point signing;
	uint8_t unwrap_key_hash[32];
	struct p256_point trace;
	uint8_t admission_flags;
	uint8_t k_adm[ADMISSION_KEY_BYTES];
	struct record_broker from, to;
	uint16_t n_hops, n_outlets;
	uint32_t n_origins;
	struct bytes_reader hops, outlets, origins;
};

/* What a distributor makes of one hop's messages for one consumer, or for all of a group. */
struct bundle_outlet {
	struct record_grant grant; /* by which it converts */
	struct bytes wrapped_rk;
	struct bytes name;   /* an id in form */
	struct bytes prefix; /* of the public topics: a topic name */
	struct bytes domain; /* outlets of one domain have the same external ids */
	uint32_t rotate_seconds;
};

int bundle_distributor_decode(struct bytes body, struct bundle_distributor *ret_d) must_check;
int bundle_distributor_next_hop(struct bytes_reader *r, struct record_grant *ret_g) must_check;
int bundle_distributor_next_outlet(struct bytes_reader *r, struct bundle_outlet *ret_o) must_check;
int bundle_distributor_next_origin(struct bytes_reader *r, struct record_party *ret_p) must_check;
void bundle_distributor_write_head(const struct bundle_distributor *d, struct bytes_writer *w);
void bundle_distributor_write_hop(const struct record_grant *g, struct bytes_writer *w);
void bundle_distributor_write_outlet(const struct bundle_outlet *o, struct bytes_writer *w);
void bundle_distributor_write_origin(const struct record_party *p, struct bytes_writer *w);

#endif
