// SPDX-License-Identifier: MIT
/*
 * What operators ask, from the parts of the server that know.
 */
#include "userspace/core/answer.h"
#include "userspace/core/server_impl.h"

static void status(void *ctx, struct admit_status *ret_s)
{
	const struct server *s = ctx;

	admit_status(s->admit, s->broker, ret_s);
}

static int ban(void *ctx, const struct admission_source *source, uint64_t ms)
{
	struct server *s = ctx;

	return broker_ban(s->broker, source, ms);
}

static bool unban(void *ctx, const struct admission_source *source)
{
	struct server *s = ctx;

	return broker_unban(s->broker, source);
}

static void each_ban(void *ctx, answer_ban_fn *each, void *each_ctx)
{
	const struct server *s = ctx;

	broker_each_ban(s->broker, each, each_ctx);
}

static void each_rejected(void *ctx, answer_rejected_fn *each, void *each_ctx)
{
	const struct server *s = ctx;

	admit_each_rejected(s->admit, s->broker, each, each_ctx);
}

const struct answer_ops server_answer_ops = {
	.status = status,
	.ban = ban,
	.unban = unban,
	.each_ban = each_ban,
	.each_rejected = each_rejected,
};
