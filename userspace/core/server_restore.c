// SPDX-License-Identifier: MIT
/* What an earlier run left in storage goes back to the engine. */
#include <errno.h>
#include <string.h>
#include <sysexits.h>

#include "userspace/base/log.h"
#include "userspace/core/bundlefile.h"
#include "userspace/core/server_impl.h"

static int restore_replay(void *ctx, const struct broker_commit_replay *r)
{
	return broker_restore_replay(ctx, r);
}

static int restore_context(void *ctx, const struct broker_commit_context *c)
{
	return broker_restore_context(ctx, c);
}

static int restore_revoked(void *ctx, const struct broker_commit_revoked *r)
{
	return broker_restore_revoked(ctx, r);
}

static int restore_session(void *ctx, const struct broker_commit_session *r)
{
	return broker_restore_session(ctx, r);
}

static int restore_subscription(void *ctx, const struct broker_commit_subscription *r)
{
	return broker_restore_subscription(ctx, r);
}

static int restore_message(void *ctx, const struct broker_commit_message *r)
{
	return broker_restore_message(ctx, r);
}

static int restore_delivery(void *ctx, const struct broker_commit_delivery *r)
{
	return broker_restore_delivery(ctx, r);
}

static int restore_release(void *ctx, const struct broker_commit_release *r)
{
	return broker_restore_release(ctx, r);
}

static int restore_incoming(void *ctx, const struct broker_commit_incoming *r)
{
	return broker_restore_incoming(ctx, r);
}

static int restore_retained(void *ctx, const struct broker_commit_retained *r)
{
	return broker_restore_retained(ctx, r);
}

static void loaded_or_exit(const struct server *s, int err)
{
	const char *dir = s->config->state_dir;

	if (!err)
		return;
	if (err == -EPROTO)
		exit_with(EX_CONFIG, "%s: has messages of a broker %s; one directory each", dir,
			  s->config->plain ? "with SSDTF" : "in plain mode");
	exit_with(err == -ENOMEM ? EX_OSERR : EX_DATAERR, "%s: cannot be loaded: %s", dir,
		  err == -EBADMSG ? "its rows contradict each other" : strerror(-err));
}

static void apply_bundle(struct server *s, const struct bundlefile *b)
{
	const char *why = "";
	int err = broker_apply_bundle(s->broker, b->statement.serial, b->statement.body, &why);

	if (err)
		exit_with(EX_DATAERR, "%s: %s (%s)", s->bundle_path, why, strerror(-err));
	broker_bundle_until(s->broker, b->statement.not_after_ms);
	admit_sync(s->admit, s->broker);
	admit_restore_bans(s->admit, s->broker);
}

void server_restore(struct server *s, const struct bundlefile *b)
{
	const struct store_sink sink = {
		.replay = restore_replay,
		.context = restore_context,
		.revoked = restore_revoked,
		.session = restore_session,
		.subscription = restore_subscription,
		.message = restore_message,
		.delivery = restore_delivery,
		.release = restore_release,
		.incoming = restore_incoming,
		.retained = restore_retained,
		.ctx = s->broker,
	};
	struct broker_stats stats;
	int err;

	loaded_or_exit(s, store_load(s->store, &sink));
	broker_restore_serial(s->broker, store_bundle_serial(s->store));
	if (!s->config->plain)
		apply_bundle(s, b);
	/* Behind the bundle, which says whose sessions may come back. */
	loaded_or_exit(s, store_load_sessions(s->store, &sink));
	broker_restore_end(s->broker);
	broker_stats(s->broker, &stats);
	if (stats.sessions || stats.retained)
		log_info("event=restored sessions=%u queued=%u retained=%u", stats.sessions,
			 stats.queued, stats.retained);
	err = store_start(s->store, &s->wake);
	if (err)
		exit_with(EX_OSERR, "no thread for storage: %s", strerror(-err));
}
