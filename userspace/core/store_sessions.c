// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#include "userspace/broker/broker.h"
#include "userspace/core/store_impl.h"

static const char *const sql[STMTS] = {
	[STMT_SESSION] = "REPLACE INTO session (number, id, packet_id) VALUES (?, ?, ?)",
	[STMT_SESSION_GONE] = "DELETE FROM session WHERE number = ?",
	[STMT_SESSION_GONE + 1] = "DELETE FROM subscription WHERE session = ?",
	[STMT_SESSION_GONE + 2] = "DELETE FROM delivery WHERE session = ?",
	[STMT_SESSION_GONE + 3] = "DELETE FROM release WHERE session = ?",
	[STMT_SESSION_GONE + 4] = "DELETE FROM incoming WHERE session = ?",
	[STMT_SUBSCRIPTION] = "REPLACE INTO subscription (session, number, qos, filter) "
			      "VALUES (?, ?, ?, ?)",
	[STMT_SUBSCRIPTION_GONE] = "DELETE FROM subscription WHERE session = ? AND number = ?",
	[STMT_MESSAGE] = "INSERT INTO message (number, sealed, qos, retain, topic, payload, sender)"
			 " VALUES (?, ?, ?, ?, ?, ?, ?)",
	[STMT_MESSAGE_GONE] = "DELETE FROM message WHERE number = ?",
	[STMT_DELIVERY] = "REPLACE INTO delivery (session, seq, message, qos, retain, packet_id) "
			  "VALUES (?, ?, ?, ?, ?, ?)",
	[STMT_DELIVERY_GONE] = "DELETE FROM delivery WHERE session = ? AND seq = ?",
	[STMT_RELEASE] = "REPLACE INTO release (session, place, packet_id) VALUES (?, ?, ?)",
	[STMT_RELEASE_GONE] = "DELETE FROM release WHERE session = ? AND place = ?",
	[STMT_INCOMING] = "REPLACE INTO incoming (session, packet_id) VALUES (?, ?)",
	[STMT_INCOMING_GONE] = "DELETE FROM incoming WHERE session = ? AND packet_id = ?",
	[STMT_RETAINED] = "REPLACE INTO retained (message) VALUES (?)",
	[STMT_RETAINED_GONE] = "DELETE FROM retained WHERE message = ?",
};

const char *store_sessions_sql(enum statement which)
{
	return sql[which];
}

/* --- writing ---------------------------------------------------------------------------------- */

static int bind_blob(struct store *s, enum statement which, int at, struct bytes v)
{
	sqlite3_stmt *stmt = s->statements[which];

	return store_error_of(v.n ? sqlite3_bind_blob64(stmt, at, v.p, v.n, SQLITE_STATIC)
				  : sqlite3_bind_zeroblob(stmt, at, 0));
}

static int write_session(struct store *s, const struct broker_commit_session *r)
{
	uint64_t packet_id = r->packet_id;
	int err = 0;

	if (r->gone) {
		for (unsigned i = STMT_SESSION_GONE; i <= STMT_SESSION_GONE_LAST && !err; i++)
			err = store_run(s, i, 1, &r->number, 1);
		return err;
	}
	err = store_error_of(
		sqlite3_bind_int64(s->statements[STMT_SESSION], 1, (sqlite3_int64)r->number));
	if (!err)
		err = store_error_of(sqlite3_bind_text(s->statements[STMT_SESSION], 2, r->id, -1,
						       SQLITE_STATIC));
	return err ? err : store_run(s, STMT_SESSION, 3, &packet_id, 1);
}

static int write_subscription(struct store *s, const struct broker_commit_subscription *r)
{
	uint64_t numbers[] = { r->session, r->number, r->qos };
	int err;

	if (r->gone)
		return store_run(s, STMT_SUBSCRIPTION_GONE, 1, numbers, 2);
	err = bind_blob(s, STMT_SUBSCRIPTION, 4, r->filter);
	return err ? err : store_run(s, STMT_SUBSCRIPTION, 1, numbers, 3);
}

static int write_message(struct store *s, const struct broker_commit_message *r)
{
	uint64_t numbers[] = { r->number, r->sealed, r->qos, r->retain };
	int err;

	if (r->gone)
		return store_run(s, STMT_MESSAGE_GONE, 1, numbers, 1);
	err = bind_blob(s, STMT_MESSAGE, 5, r->topic);
	if (!err)
		err = bind_blob(s, STMT_MESSAGE, 6, r->payload);
	if (!err)
		err = bind_blob(s, STMT_MESSAGE, 7, r->sender);
	return err ? err : store_run(s, STMT_MESSAGE, 1, numbers, 4);
}

static int write_delivery(struct store *s, const struct broker_commit_delivery *r)
{
	uint64_t numbers[] = { r->session, r->seq, r->message, r->qos, r->retain, r->packet_id };

	return r->gone ? store_run(s, STMT_DELIVERY_GONE, 1, numbers, 2)
		       : store_run(s, STMT_DELIVERY, 1, numbers, 6);
}

static int write_release(struct store *s, const struct broker_commit_release *r)
{
	uint64_t numbers[] = { r->session, r->place, r->packet_id };

	return r->gone ? store_run(s, STMT_RELEASE_GONE, 1, numbers, 2)
		       : store_run(s, STMT_RELEASE, 1, numbers, 3);
}

static int write_incoming(struct store *s, const struct broker_commit_incoming *r)
{
	uint64_t numbers[] = { r->session, r->packet_id };

	return store_run(s, r->gone ? STMT_INCOMING_GONE : STMT_INCOMING, 1, numbers, 2);
}

static int write_retained(struct store *s, const struct broker_commit_retained *r)
{
	return store_run(s, r->gone ? STMT_RETAINED_GONE : STMT_RETAINED, 1, &r->message, 1);
}

int store_write_sessions(struct store *s, const struct broker_commit *c)
{
	int err = 0;

	for (unsigned i = 0; i < c->n_sessions && !err; i++)
		err = write_session(s, &c->sessions[i]);
	for (unsigned i = 0; i < c->n_subscriptions && !err; i++)
		err = write_subscription(s, &c->subscriptions[i]);
	for (unsigned i = 0; i < c->n_messages && !err; i++)
		err = write_message(s, &c->messages[i]);
	for (unsigned i = 0; i < c->n_deliveries && !err; i++)
		err = write_delivery(s, &c->deliveries[i]);
	for (unsigned i = 0; i < c->n_releases && !err; i++)
		err = write_release(s, &c->releases[i]);
	for (unsigned i = 0; i < c->n_incoming && !err; i++)
		err = write_incoming(s, &c->incoming[i]);
	for (unsigned i = 0; i < c->n_retained && !err; i++)
		err = write_retained(s, &c->retained[i]);
	return err;
}

/* --- loading ---------------------------------------------------------------------------------- */

static struct bytes blob(sqlite3_stmt *row, int i)
{
	const void *p = sqlite3_column_blob(row, i);

	return bytes_of(p, (size_t)sqlite3_column_bytes(row, i));
}

static int load_session(const struct store_sink *sink, sqlite3_stmt *row)
{
	struct broker_commit_session r = {
		.number = store_column(row, 0),
		.packet_id = (uint16_t)store_column(row, 2),
	};
	const void *id = sqlite3_column_text(row, 1);
	size_t n = (size_t)sqlite3_column_bytes(row, 1);

	if (!id)
		return -ENOMEM;
	if (n >= sizeof(r.id))
		return -EBADMSG;
	memcpy(r.id, id, n);
	return sink->session(sink->ctx, &r);
}

static int load_subscription(const struct store_sink *sink, sqlite3_stmt *row)
{
	struct broker_commit_subscription r = {
		.session = store_column(row, 0),
		.number = store_column(row, 1),
		.qos = (uint8_t)store_column(row, 2),
		.filter = blob(row, 3),
	};

	return sink->subscription(sink->ctx, &r);
}

static int load_message(const struct store_sink *sink, sqlite3_stmt *row)
{
	struct broker_commit_message r = {
		.number = store_column(row, 0),
		.sealed = store_column(row, 1),
		.qos = (uint8_t)store_column(row, 2),
		.retain = store_column(row, 3),
		.topic = blob(row, 4),
		.payload = blob(row, 5),
		.sender = blob(row, 6),
	};

	return sink->message(sink->ctx, &r);
}

static int load_delivery(const struct store_sink *sink, sqlite3_stmt *row)
{
	struct broker_commit_delivery r = {
		.session = store_column(row, 0),
		.seq = store_column(row, 1),
		.message = store_column(row, 2),
		.qos = (uint8_t)store_column(row, 3),
		.retain = store_column(row, 4),
		.packet_id = (uint16_t)store_column(row, 5),
	};

	return sink->delivery(sink->ctx, &r);
}

static int load_release(const struct store_sink *sink, sqlite3_stmt *row)
{
	struct broker_commit_release r = {
		.session = store_column(row, 0),
		.place = store_column(row, 1),
		.packet_id = (uint16_t)store_column(row, 2),
	};

	return sink->release(sink->ctx, &r);
}

static int load_incoming(const struct store_sink *sink, sqlite3_stmt *row)
{
	struct broker_commit_incoming r = {
		.session = store_column(row, 0),
		.packet_id = (uint16_t)store_column(row, 1),
	};

	return sink->incoming(sink->ctx, &r);
}

static int load_retained(const struct store_sink *sink, sqlite3_stmt *row)
{
	struct broker_commit_retained r = { .message = store_column(row, 0) };

	return sink->retained(sink->ctx, &r);
}

/* In the order of the tables' keys, which costs nothing, and which the broker wants. */
int store_load_sessions(struct store *s, const struct store_sink *sink)
{
	static const struct {
		const char *sql;
		int (*load)(const struct store_sink *sink, sqlite3_stmt *row);
	} tables[] = {
		{ "SELECT number, id, packet_id FROM session", load_session },
		{ "SELECT session, number, qos, filter FROM subscription", load_subscription },
		{ "SELECT number, sealed, qos, retain, topic, payload, sender FROM message",
		  load_message },
		{ "SELECT session, seq, message, qos, retain, packet_id FROM delivery "
		  "ORDER BY session, seq",
		  load_delivery },
		{ "SELECT session, place, packet_id FROM release ORDER BY session, place",
		  load_release },
		{ "SELECT session, packet_id FROM incoming", load_incoming },
		{ "SELECT message FROM retained ORDER BY message", load_retained },
	};
	int err = 0;

	BUG_ON(s->started);
	for (unsigned i = 0; i < ARRAY_SIZE(tables) && !err; i++)
		err = store_each(s, tables[i].sql, tables[i].load, sink);
	return err;
}
