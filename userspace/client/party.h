/* SPDX-License-Identifier: MIT */
/*
 * A party's directory, and the libssdtf client that it makes:
 *
 *   bundle           the manager's signed statement for this party (holds K_adm: mode 0600)
 *   manager.pub      PEM, the manager's public key
 *   signing.pem      PEM, the party's private signing key
 *   encryption.pem   PEM, a receiver's private encryption key
 *   encryption.old.pem
 *                    the one before, as long as there are grants for it
 * and what the programs keep there:
 *   counter          the mark up to which counters may have been used
 *   serial           of the newest bundle seen; an older one is refused
 *   windows          a receiver's replay windows
 *   statements       what the manager stated after the bundle, as it came, one behind the other
 *
 * The directory is locked while it is open: one (enc, seq) and one counter must never be used by
 * two processes. party_open() says what is wrong and ends the program, since it runs at start-up;
 * the rest returns errors.
 */
#ifndef SSDTF_CLIENT_PARTY_H
#define SSDTF_CLIENT_PARTY_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/client/lib/ssdtf.h"

struct party_config {
	const char *dir;
	const char *id;	       /* must be the bundle's; NULL: whatever the bundle says */
	bool zk;	       /* authenticate by SSDTF-ZK-1 */
	bool reads;	       /* take the encryption key */
	unsigned n_origins;    /* with reads: how many replay windows there are */
	uint32_t counter_step; /* counters reserved by one write; 0: the library's choice */
	uint32_t rekey_messages, rekey_seconds; /* of a sending context; 0: as the bundle says */
	const struct ssdtf_ops *ops;
	void *ctx; /* for ops */
};

struct party {
	const char *path;
	int dir;
	char id[ENVELOPE_ORIGIN_BYTES_MAX + 1];
	uint8_t *bundle;
	size_t bundle_n;
	struct ssdtf_origin *origins;
	unsigned n_origins;
	struct ssdtf_context *contexts;
	unsigned n_contexts;
	uint8_t *statements; /* libssdtf's memory for them */
	struct ssdtf_client client;
};

void party_open(struct party *p, const struct party_config *config, struct ssdtf_time now);
/* For who has no bundle yet, and is known by a claim code: the directory is locked, and nothing of
 * it read. id's views stay in place until party_close(). */
void party_open_claim(struct party *p, const char *dir, const struct ssdtf_config *config,
		      struct ssdtf_time now);
void party_close(struct party *p);

/*
 * Takes the file "bundle" as it is now. 0: it was a newer one, and is in use; -EALREADY: it is the
 * one in use; others, of which party_bundle_trouble() is the text: the one in use stays.
 */
int party_reload(struct party *p, struct ssdtf_time now) must_check;
const char *party_bundle_trouble(int error);

/* For ssdtf_ops: the file "counter". */
int party_counter_load(struct party *p, uint64_t *ret_mark) must_check;
int party_counter_reserve(struct party *p, uint64_t mark) must_check;

int party_windows_store(struct party *p) must_check;

/* For ssdtf_ops: behind those in the file "statements". */
int party_statement_store(struct party *p, struct bytes statement) must_check;

#endif
