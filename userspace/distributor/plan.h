/* SPDX-License-Identifier: MIT */
/*
 * A distributor's bundle taken apart: which hops end here, what is made of each one's messages, and
 * whose signatures say where a message comes from.
 *
 *   hop h (from 0) ──► outlets whose grant's from is h: prefix, domain, conversion key
 *
 * Counted: what is under way holds the plan that it was judged by, and so the bytes that wrapped
 * keys and names are views of. Keys of origins are made ready when they are first needed.
 */
#ifndef SSDTF_DISTRIBUTOR_PLAN_H
#define SSDTF_DISTRIBUTOR_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/bytes.h"
#include "userspace/bundle/bundle.h"

struct plan_outlet {
	struct bundle_outlet outlet;
	bool broken; /* the token does not take its key */
};

struct plan_hop {
	struct record_grant grant;
	unsigned first_outlet, n_outlets; /* they stand together */
};

/* A certified signer, and the key that it had before. */
struct plan_signer {
	struct p256_public *key, *previous;
	uint64_t change_ms; /* origin: the previous one holds before; 0: without end */
};

struct plan_origin {
	struct bytes id;
	struct bytes record;
	bool ready; /* signer is what record says */
	struct plan_signer signer;
};

struct plan {
	unsigned refs;
	uint8_t *bytes; /* the whole statement; has K_adm in it */
	size_t n_bytes;
	uint64_t serial;
	struct bundle_distributor bundle;
	/* Either of a broker's two keys is taken, at any time (PROTOCOL 8). */
	struct plan_signer from, to;
	bool one_broker; /* it publishes where it subscribes */
	unsigned n_hops, n_outlets, n_origins;
	struct plan_hop *hops;
	struct plan_outlet *outlets;
	struct plan_origin *origins; /* by id */
};

/*
 * From a statement of kind 7 that statement_open() has found to be the manager's. bytes, which the
 * statement is a view of, become the plan's where it succeeds, to be freed (and wiped) with it.
 * -EBADMSG: its records do not fit together; p256.h's; -ENOMEM.
 */
int plan_new(uint8_t *bytes, size_t n, const struct statement *s, struct plan **ret_p) must_check;
struct plan *plan_get(struct plan *p);
/* NULL is fine. */
void plan_put(struct plan *p);

/* NULL: no hop of ours. */
const struct plan_hop *plan_hop(const struct plan *p, struct bytes grant_id);
struct plan_outlet *plan_outlet(const struct plan *p, const uint8_t grant_id[GRANT_ID_BYTES]);
/* Is the very outlet (its grant and wrapped key) in the plan? */
bool plan_has(const struct plan *p, const struct plan_outlet *o);
/* The certified key of an origin. -ENOENT, or p256.h's. */
int plan_origin(struct plan *p, struct bytes id, const struct plan_signer **ret_s) must_check;

#endif
