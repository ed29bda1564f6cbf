/* SPDX-License-Identifier: MIT */
/*
 * The two bundles that the manager hands out, as bodies of signed statements.
 *
 *   gateway := u8+ gateway id || broker's signing key 65 || SHA-256 of the token's unwrapping key
 * 32
 *              || u32 n || n * u32+ scope record
 *              || u32 n || n * ( u32+ party record || u8 admission flags || K_adm 16 )
 *              || u32 n || n * ( u32+ grant record || u16+ wrapped conversion key )
 *              || u32 n || n * ( u32 key id || u64 revoked at )
 *   party   := u8+ party id || signing key 65 || u8+ gateway id || broker's signing key 65
 *              || u8 admission flags || K_adm 16
 *              || u16 n || n * u32+ scope record (what it may publish under)
 *              || u16 n || n * u32+ grant record (what it may read)
 *              || u16 n || n * u32+ party record (origins whose proofs it checks)
 *
 * The statement's signature covers everything, so the records inside carry none of their own. K_adm
 * is a secret: bundles are files of mode 0600. The wrapped conversion key is RSA-OAEP (SHA-1, MGF1
 * with SHA-1, no label) of the 67-byte PKCS#8 form of rk under the gateway token's unwrapping key.
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

#define BUNDLE_WRAPPED_BYTES_MAX 512

enum bundle_admission_flags { BUNDLE_ADMISSION_NO_CLOCK = 1 /* slot 0 is accepted */ };

struct bundle_gateway {
	struct bytes gateway_id;
	struct p256_point broker;    /* the broker's public signing key */
	uint8_t unwrap_key_hash[32]; /* SHA-256 of its SubjectPublicKeyInfo DER */
	uint32_t n_scopes, n_parties, n_grants, n_revoked;
	struct bytes_reader scopes, parties, grants, revoked; /* where each section begins */
};

struct bundle_gateway_party {
	struct record_party party;
	uint8_t admission_flags;
	uint8_t k_adm[ADMISSION_KEY_BYTES];
};

struct bundle_gateway_grant {
	struct record_grant grant;
	struct bytes wrapped_rk;
};

/* A revocation under key_id: contexts seen under it before are retired (PROTOCOL 2). */
struct bundle_gateway_revoked {
	uint32_t key_id;
	uint64_t revoked_at_ms;
};

int bundle_gateway_decode(struct bytes body, struct bundle_gateway *ret_b) must_check;
/* Each takes the section's reader (a copy of it) n times. 0 or -EBADMSG. */
int bundle_gateway_next_scope(struct bytes_reader *r, struct record_scope *ret_s) must_check;
int bundle_gateway_next_party(struct bytes_reader *r,
			      struct bundle_gateway_party *ret_p) must_check;
int bundle_gateway_next_grant(struct bytes_reader *r,
			      struct bundle_gateway_grant *ret_g) must_check;
int bundle_gateway_next_revoked(struct bytes_reader *r,
				struct bundle_gateway_revoked *ret_v) must_check;
/* Writing: head, then each section: its u32 count with bytes_write_u32, then its entries. */
void bundle_gateway_write_head(const struct bundle_gateway *b, struct bytes_writer *w);
void bundle_gateway_write_scope(const struct record_scope *s, struct bytes_writer *w);
void bundle_gateway_write_party(const struct bundle_gateway_party *p, struct bytes_writer *w);
void bundle_gateway_write_grant(const struct bundle_gateway_grant *g, struct bytes_writer *w);
void bundle_gateway_write_revoked(const struct bundle_gateway_revoked *v, struct bytes_writer *w);

struct bundle_party {
	struct bytes party_id;
	struct p256_point signing;
	struct bytes gateway_id;
	struct p256_point broker;
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

#endif
