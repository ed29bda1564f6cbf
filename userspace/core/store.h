/* SPDX-License-Identifier: MIT */
/*
 * The broker's durable state: replay windows, contexts seen, revocations and the bundle's serial;
 * sessions with their queues, and what is retained (broker/durable.h); in one SQLite database (WAL,
 * synchronous=FULL) that one thread writes, so that the loop never waits for a disk. One commit is
 * out at a time; what the broker collects meanwhile is the next one.
 *
 *   DIR/lock        held with flock(2) while a broker uses DIR
 *   DIR/broker.db   mode 0600, and SQLite's -wal beside it
 *
 * DIR is the broker's alone: mode 0700. A commit is in the database whole or not at all, whatever
 * ends the process.
 */
#ifndef SSDTF_CORE_STORE_H
#define SSDTF_CORE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/base/compiler.h"

#define STORE_SCHEMA_VERSION 3
#define STORE_ERROR_BYTES    256
/* Contexts seen longer ago are forgotten: the hour before a revocation, and the hour after it for
 * which they stay retired (PROTOCOL 2). */
#define STORE_CONTEXT_MS (2ull * 3600 * 1000)
/* And the counters of those whose messages a distributor brings (PROTOCOL 12). */
#define STORE_ORIGIN_MS (30ull * 24 * 3600 * 1000)

struct broker_commit;
struct broker_commit_context;
struct broker_commit_replay;
struct broker_commit_delivery;
struct broker_commit_incoming;
struct broker_commit_message;
struct broker_commit_release;
struct broker_commit_retained;
struct broker_commit_revoked;
struct broker_commit_session;
struct broker_commit_subscription;
struct store;
struct wake;

/* What store_load() finds, and in the second half store_load_sessions(); each returns 0 or -errno,
 * which ends the loading. */
struct store_sink {
	int (*replay)(void *ctx, const struct broker_commit_replay *r);
	int (*context)(void *ctx, const struct broker_commit_context *c);
	int (*revoked)(void *ctx, const struct broker_commit_revoked *r);
	int (*session)(void *ctx, const struct broker_commit_session *r);
	int (*subscription)(void *ctx, const struct broker_commit_subscription *r);
	int (*message)(void *ctx, const struct broker_commit_message *r);
	int (*delivery)(void *ctx, const struct broker_commit_delivery *r);
	int (*release)(void *ctx, const struct broker_commit_release *r);
	int (*incoming)(void *ctx, const struct broker_commit_incoming *r);
	int (*retained)(void *ctx, const struct broker_commit_retained *r);
	void *ctx;
};

/*
 * Makes DIR and the database where they are missing, and brings one of an earlier version of this
 * program up to date. -EBUSY: another process uses DIR; -EPERM: DIR
 * is open to others; -EPROTO: another program's database or another schema version; -EUCLEAN: it is
 * damaged; else -errno. store_open_error() has the sentence.
 */
int store_open(const char *dir, struct store **ret_s) must_check;
const char *store_open_error(void);
/* Waits for the commit that is out, then closes. */
void store_close(struct store *s);

/* Before store_start(). Sessions are loaded in the order that broker_restore_*() want. */
int store_load(struct store *s, const struct store_sink *sink) must_check;
int store_load_sessions(struct store *s, const struct store_sink *sink) must_check;
uint64_t store_bundle_serial(const struct store *s);

/* From here on the database is the thread's. */
int store_start(struct store *s, struct wake *wake) must_check;
/* Lent until store_poll() says that it is done. */
void store_submit(struct store *s, const struct broker_commit *c);
bool store_busy(const struct store *s);
/* A commit is done and not yet polled: for the loop's last look before it sleeps. */
bool store_ready(struct store *s);
/* True once a commit: *ret_error is 0 or -errno (-ENOSPC, -EIO, ...), *ret_words what SQLite says,
 * valid until the next store_submit(). */
bool store_poll(struct store *s, int *ret_error, const char **ret_words);

#endif
