/* SPDX-License-Identifier: MIT */
/*
 * The server's inside: server.c turns it, server_start.c makes it and takes it apart.
 */
#ifndef SSDTF_CORE_SERVER_IMPL_H
#define SSDTF_CORE_SERVER_IMPL_H

#include "userspace/base/file.h"
#include "userspace/bundle/bundle.h"
#include "userspace/base/pool.h"
#include "userspace/broker/broker.h"
#include "userspace/core/admit.h"
#include "userspace/core/bufring.h"
#include "userspace/core/bundlefile.h"
#include "userspace/core/bundlein.h"
#include "userspace/core/config.h"
#include "userspace/core/hsmlink.h"
#include "userspace/core/journal.h"
#include "userspace/core/listener.h"
#include "userspace/core/operators.h"
#include "userspace/core/ring.h"
#include "userspace/core/store.h"
#include "userspace/core/stream.h"
#include "userspace/core/wake.h"
#include "userspace/core/workers.h"

struct bundlefile;

/* What RING_POLL's completions are about. */
enum polled { POLLED_WAKE, POLLED_SIGNALS, POLLED };

struct server {
	const struct config *config;
	struct ring ring;
	struct bufring buffers;
	struct pool pool;
	struct wake wake;
	struct {
		int fd;
		bool armed;
	} polled[POLLED];
	struct listener_set listeners;
	struct admit *admit;
	struct operators *operators; /* NULL: no control socket */
	struct address bound[LISTENER_MAX];
	struct stream_table streams;
	struct store *store;	 /* NULL: plain mode without a directory */
	struct workers *workers; /* this and the next two: NULL in plain mode */
	struct hsmlink *hsm;
	struct p256_public *manager;
	struct hsmlink_keys keys; /* the bundle's, and so our own */
	uint64_t bundle_serial;	  /* in force, from this file: */
	const char *bundle_path;
	char online_path[FILE_PATH_BYTES_MAX]; /* of the last that came online */
	struct bundlein *bundlein;	       /* NULL in plain mode */
	struct {
		struct directory *directory;
		uint64_t serial, not_after_ms;
		struct hsmlink_keys keys;
	} prepared;	   /* checked, and about to be in force */
	bool reload_again; /* when the token has told what keys it has */
	struct broker *broker;
	struct journal journal;
	uint64_t mono_ms, wall_ms;
	unsigned stops; /* signals that told it to stop: at the second it waits for nobody */
};

/* Makes everything and listens; ends the process with one line where that is not possible. Told to
 * stop meanwhile, it returns without listening. */
void server_start(struct server *s, const struct config *config);
/* What an earlier run stored, and the first bundle (not in plain mode): all that the engine knows
 * before its first connection; from here on it is stored. Ends the process where it cannot be. */
void server_restore(struct server *s, const struct bundlefile *b);
/* Gives every job back, closes everything. */
void server_free(struct server *s);

/* The clocks, into mono_ms and wall_ms. */
void server_take_time(struct server *s);
/* One round of the loop, waiting no longer than that. -errno where the ring is broken. */
int server_turn(struct server *s, uint64_t wait_ms_max) must_check;
/* Every verify job and commit that is done goes back to the engine. */
void server_retire(struct server *s);

/* server_bundle.c */

/* The newer of the configured bundle and the one that came online, of which neither may be older
 * than serial_min. bundlefile_read()'s errors and words. */
int server_choose_bundle(struct server *s, uint64_t serial_min, struct bundlefile *ret_b,
			 char why[BUNDLEFILE_ERROR_BYTES]) must_check;
int server_start_bundlein(struct server *s) must_check;
/* A bundle was applied. */
void server_bundle_in_force(struct server *s, uint64_t serial, const char *path);

extern const struct broker_ops server_ops;
extern const struct answer_ops server_answer_ops;
extern const struct stream_events server_stream_events;
void server_accepted(void *ctx, int fd);
/* What of a bundle is for the key processes. */
void server_keys_of(const struct bundle_gateway *b, struct hsmlink_keys *ret_k);
void server_token_done(void *ctx, struct broker_token_job *job);
ring_complete_fn server_complete_poll;

#endif
