/* SPDX-License-Identifier: MIT */
/*
 * What the bundle_make_*.c files share: the memory that a body is made in, and one body of each
 * kind. bundle_make.c signs and writes them.
 */
#ifndef SSDTF_MANAGER_BUNDLE_MAKE_IMPL_H
#define SSDTF_MANAGER_BUNDLE_MAKE_IMPL_H

#include "userspace/bundle/bundle.h"
#include "userspace/manager/gateway.h"
#include "userspace/manager/grants.h"
#include "userspace/manager/manager.h"
#include "userspace/manager/party.h"
#include "userspace/manager/scope.h"

/* Room for the largest bundle, of which pages that are not written cost nothing, and what one
 * record needs while it is made. */
struct bundle_work {
	struct manager *m;
	struct gateway gateway; /* whose bundle it is, or where the party is */
	uint64_t not_after_ms;
	struct bundle_made *made; /* NULL: to a file */
	struct p256_point trace;  /* the manager's tracing key, for distributors */
	uint8_t *body, *whole;
	struct bytes_writer w; /* over body */
	struct scope scope;    /* the one that was loaded last */
	struct party party;
	struct grant grant;
	char filter[GRANTS_FILTER_ROOM]; /* the grant's */
	uint8_t record[SCOPE_RECORD_BYTES_MAX];
};

/* The bodies, each in k->w from its start, and read back: 0, or words are said. */
int bundle_make_gateway_body(struct bundle_work *k) must_check;
int bundle_make_party_body(struct bundle_work *k, const char *id) must_check;
int bundle_make_distributor_body(struct bundle_work *k, const char *id) must_check;

/* --- for those who make them --- */

/* The next body; what was there of the last is overwritten or wiped in the end. */
void bundle_make_begin(struct bundle_work *k);
/* -EMSGSIZE where it was too much. */
int bundle_make_end(struct bundle_work *k, const char *id) must_check;
/* What was made does not read back. */
int bundle_make_damaged(struct bundle_work *k) must_check;

/* A count of 2 or 4 bytes in front of a section, filled in when the section is written. */
uint8_t *bundle_make_section(struct bundle_work *k, size_t bytes);
void bundle_make_count(struct bundle_work *k, uint8_t *at, size_t bytes, uint32_t n);

/* The grant that q (GRANTS_SQL) stands on, as a record with its views into k. The scope of its key
 * id is loaded where it is not the last one's. */
int bundle_make_read_grant(struct bundle_work *k, struct registry_query *q,
			   struct record_grant *ret_r) must_check;
/* A section of origins: who may publish under a scope that this party gets at k->gateway with
 * proofs. It learns of each only what a proof is checked with: id, signing keys, and those scopes.
 */
int bundle_make_origins(struct bundle_work *k, const char *id, size_t count_bytes) must_check;

#endif
