// SPDX-License-Identifier: MIT
#include "userspace/broker/broker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/broker/claims.h"
#include "userspace/broker/conn.h"
#include "userspace/broker/engine.h"
#include "userspace/broker/entry.h"

#define STARVED_MS 50 /* until what found no memory is tried again */

void broker_limits_default(struct broker_limits *l)
{
	*l = (struct broker_limits){
		.packet_bytes_max = 1u << 20,
		.connections_max = 20000,
		.sessions_max = 50000,
		.subscriptions_max = 256,
		.retained_max = 100000,
		.queue_messages_max = 10000,
		.queue_bytes_max = 64u << 20,
		.queue_high_water = 1000,
		.receiver_stall_ms = 5000,
		.inflight_max = 128,
		.output_bytes_soft = 256u << 10,
		.verify_bytes_max = 4u << 20,
		.verify_pending_max = 256,
		.connect_timeout_ms = 10000,
		.auth_timeout_ms = 20000,
		.convert_deadline_ms = 5000,
		.capsules_max = 65536,
		.contexts_max = 262144,
		.errors_per_second = 20,
		.reports_queue_max = 256,
		.admission_connects_per_second = 5,
		.admission_no_clock_ms = 2000,
		.admission_told_per_second = 1,
		.admission_told_total_per_second = 100,
		.admission_ban_failures = 20,
		.admission_ban_window_ms = 60000,
		.admission_ban_ms = 60000,
		.origins_max = 100000,
	};
}

void broker_note(struct broker *b, const char *event, struct bytes client_id, const char *what)
{
	char id[66];

	if (client_id.n >= sizeof(id))
		client_id.n = sizeof(id) - 1;
	if (client_id.n)
		memcpy(id, client_id.p, client_id.n);
	id[client_id.n] = '\0';
	b->ops.note(b->io, event, id, what);
}

struct broker *broker_new(const struct broker_config *config, const struct broker_ops *ops,
			  void *io)
{
	struct broker *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->config = *config;
	b->ops = *ops;
	b->io = io;
	table_key_set(config->hash_key);
	pool_init(&b->pool);
	timer_wheel_init(&b->wheel, 0);
	list_init(&b->conns);
	list_init(&b->dead);
	list_init(&b->reapable);
	sessions_init(&b->sessions);
	capsules_init(&b->capsules);
	signer_init(b);
	commit_init(b);
	durable_init(b);
	contexts_init(&b->contexts);
	origins_init(&b->origins);
	control_init(&b->control);
	updates_init(&b->updates);
	keys_init(b);
	sys_init(b);
	entry_init(b);
	if (retained_init(b) || route_init(b)) {
		retained_deinit(b);
		route_deinit(b);
		free(b);
		return NULL;
	}
	return b;
}

static void reap(struct broker *b)
{
	while (!list_empty(&b->reapable)) {
		struct broker_conn *c = list_first(&b->reapable, struct broker_conn, link);

		list_del(&c->link);
		pool_free(&b->pool, c->partial);
		pool_free(&b->pool, c);
	}
}

void broker_free(struct broker *b)
{
	struct session *s, *tmp;

	if (!b)
		return;
	while (!list_empty(&b->conns)) {
		struct broker_conn *c = list_first(&b->conns, struct broker_conn, link);

		message_put(&b->pool, c->will);
		c->will = NULL;
		broker_conn_closed(c);
	}
	HASH_ITER(hh, b->sessions.table, s, tmp)
		session_free(b, s);
	signer_deinit(b);
	contexts_deinit(b); /* before the senders that they belong to */
	commit_deinit(b);
	capsules_deinit(b);
	control_deinit(b);
	sys_deinit(b);
	keys_deinit(b);
	gate_deinit(&b->gate);
	retained_deinit(b);
	durable_deinit(b);
	route_deinit(b);
	reap(b);
	BUG_ON(!list_empty(&b->dead));
	directory_put(b->directory);
	pool_deinit(&b->pool);
	free(b);
}

void broker_time(struct broker *b, uint64_t mono_ms, uint64_t wall_ms)
{
	b->mono_ms = mono_ms;
	b->wall_ms = wall_ms;
}

void broker_unshare(struct broker *b, void *handle)
{
	message_put(&b->pool, handle);
}

void broker_token_done(struct broker *b, struct broker_token_job *job)
{
	if (job->op == BROKER_TOKEN_CONVERT)
		capsule_done(b, job);
	else
		signer_done(b, job);
}

void broker_turn(struct broker *b)
{
	timer_wheel_advance(&b->wheel, b->mono_ms);
	b->starved = false;
	retained_turn(b);
	updates_turn(b);
	deliveries_pump(b);
	signer_turn(b);
	commit_turn(b);
	reap(b);
}

uint64_t broker_wait_ms(const struct broker *b)
{
	uint64_t ms = timer_wheel_wait_ms(&b->wheel, b->mono_ms);

	if (b->starved) /* and dirty it stays until there is memory */
		return ms < STARVED_MS ? ms : STARVED_MS;
	if (!list_empty(&b->sessions.dirty) || !list_empty(&b->retained.ready) || b->updates.more)
		return 0;
	return ms;
}

/* --- bundles ---------------------------------------------------------------------------------- */

static void revoke_sessions(struct broker *b, const struct directory *old)
{
	struct session *s, *tmp;

	HASH_ITER(hh, b->sessions.table, s, tmp) {
		/* Who is here authenticated by a key that holds. */
		if (!s->conn && !directory_same_key(old, b->directory, session_id(s))) {
			session_free(b, s);
			continue;
		}
		s->party = directory_party(b->directory, session_id(s));
		session_recheck_roles(b, s);
		deliveries_restart(b, s);
	}
}

int broker_prepare_bundle(struct broker *b, uint64_t serial, struct bytes body,
			  struct directory **ret_prepared, const char **ret_why)
{
	if (serial < b->bundle_serial) {
		*ret_why = "it is older than the one in force";
		return -ESTALE;
	}
	return directory_new(serial, body, ret_prepared, ret_why);
}

void broker_drop_prepared(struct directory *prepared)
{
	directory_put(prepared);
}

void broker_apply_prepared(struct broker *b, struct directory *now)
{
	struct directory *old = b->directory;
	int err = 0;

	b->directory = now;
	claims_bundle(b);
	keys_bundle(b);
	if (old) {
		revoke_sessions(b, old);
		capsules_revoke(b, old, now);
	}
	for (unsigned i = 0; i < now->n_revoked && !err; i++)
		err = contexts_revoke(b, now->revoked[i].key_id, now->revoked[i].revoked_at_ms);
	if (err)
		broker_note(b, "not retired", bytes_of(NULL, 0), "no memory; apply it again");
	updates_bundle(b);
	b->bundle_serial = now->serial;
	b->commit.bundle_serial = now->serial;
	directory_put(old);
}

int broker_apply_bundle(struct broker *b, uint64_t serial, struct bytes body, const char **ret_why)
{
	struct directory *prepared;
	int err = broker_prepare_bundle(b, serial, body, &prepared, ret_why);

	if (!err)
		broker_apply_prepared(b, prepared);
	return err;
}

void broker_bundle_until(struct broker *b, uint64_t not_after_ms)
{
	b->directory->not_after_ms = not_after_ms;
}

void broker_restore_serial(struct broker *b, uint64_t bundle_serial)
{
	b->bundle_serial = bundle_serial;
}

void broker_stop(struct broker *b)
{
	while (!list_empty(&b->conns))
		conn_end(list_first(&b->conns, struct broker_conn, link), "the broker stops");
	durable_hurry(b);
}

void broker_stats(const struct broker *b, struct broker_stats *ret_s)
{
	*ret_s = b->stats;
	ret_s->sessions = b->sessions.n;
	ret_s->retained = b->retained.n;
	ret_s->capsules = b->capsules.n;
	ret_s->contexts = b->contexts.n;
}

uint64_t broker_mallocs(const struct broker *b)
{
	return b->pool.mallocs;
}
