// SPDX-License-Identifier: MIT
#include "tests/fake_broker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/fake_check.h"
#include "tests/harness.h"
#include "userspace/crypto/hash.h"

#define SETTLE_ROUNDS_MAX 10000
#define PASS_STEP_MS	  10
#define CHECK_MAX	  500  /* sessions and messages, above which a look at all takes too long */
#define UNWRITTEN	  0xee /* what out() hands over: a byte that was not filled shows */

/* --- what the engine calls -------------------------------------------------------------------- */

unsigned fake_inside;

/* The engine runs, as far as whoever counts its allocations is concerned. */
#define ENGINE(what)           \
	do {                   \
		fake_inside++; \
		what;          \
		fake_inside--; \
	} while (0)

static void *grow(void *block, size_t n)
{
	unsigned inside = fake_inside;
	void *bigger;

	fake_inside = 0;
	bigger = realloc(block, n);
	fake_inside = inside;
	if (!bigger)
		abort();
	return bigger;
}

/* What out() gave is to be filled before the next op is called. */
static struct fake_broker *called(void *io)
{
	struct fake_broker *f = io;
	size_t i = 0;

	while (i < f->out_bytes && f->out_conn->out[f->out_at + i] == UNWRITTEN)
		i++;
	ASSERT_TRUE(f->out_bytes == 0 || i < f->out_bytes);
	f->out_bytes = 0;
	return f;
}

static struct fake_conn *alive(void *io, void *conn_io)
{
	struct fake_conn *c = conn_io;

	ASSERT_TRUE(c->fake == called(io));
	ASSERT_TRUE(c->engine != NULL);
	return c;
}

static size_t unsent(const struct fake_conn *c)
{
	return c->out_n - c->sent;
}

static uint8_t *op_out(void *io, void *conn_io, size_t n)
{
	struct fake_conn *c = alive(io, conn_io);

	ASSERT_GT(n, 0);
	if (c->out_max && unsent(c) + n > c->out_max)
		return NULL;
	if (c->out_n + n > c->out_room) {
		c->out_room = 2 * c->out_room + n;
		c->out = grow(c->out, c->out_room);
	}
	memset(c->out + c->out_n, UNWRITTEN, n);
	c->fake->out_conn = c;
	c->fake->out_at = c->out_n;
	c->fake->out_bytes = n;
	c->out_n += n;
	if (!c->stalled)
		c->sent = c->out_n;
	return c->out + c->out_n - n;
}

/* Taken at once, and given back at once. */
static uint8_t *op_out_shared(void *io, void *conn_io, size_t n, struct bytes shared, void *handle)
{
	struct fake_broker *f = io;
	struct fake_conn *c = alive(io, conn_io);
	uint8_t *out = op_out(io, conn_io, n + shared.n);

	if (!out)
		return NULL;
	memcpy(out + n, shared.p, shared.n);
	f->out_bytes = n;
	f->n_shared++;
	broker_unshare(f->engine, handle);
	return c->out + c->out_n - n - shared.n;
}

static size_t op_backlog(void *io, void *conn_io)
{
	return unsent(alive(io, conn_io));
}

static void op_close(void *io, void *conn_io, const char *why, bool peer_ends)
{
	struct fake_conn *c = alive(io, conn_io);

	c->engine = NULL;
	c->closed = true;
	c->why = why;
	c->peer_ends = peer_ends;
}

static void op_pause(void *io, void *conn_io, bool paused)
{
	struct fake_conn *c = alive(io, conn_io);

	ASSERT_NE(c->paused, paused);
	c->paused = paused;
}

static void op_verify(void *io, struct broker_verify *job)
{
	struct fake_broker *f = called(io);

	ASSERT_LT(f->n_verify, FAKE_JOBS_MAX);
	for (unsigned i = 0; i < f->n_verify; i++)
		ASSERT_TRUE(f->verify[i] != job);
	f->verify[f->n_verify++] = job;
}

static void op_token(void *io, struct broker_token_job *job)
{
	struct fake_broker *f = called(io);

	ASSERT_LT(f->n_token, FAKE_JOBS_MAX);
	for (unsigned i = 0; i < f->n_token; i++)
		ASSERT_TRUE(f->token[i] != job);
	f->token[f->n_token++] = job;
}

static void op_forget(void *io, const uint8_t grant_id[GRANT_ID_BYTES])
{
	struct fake_broker *f = called(io);

	memcpy(f->forgotten[f->n_forgotten++ % FAKE_FORGET_MAX], grant_id, GRANT_ID_BYTES);
}

static bool op_bundle(void *io, const char *manager_id, struct bytes message)
{
	struct fake_broker *f = called(io);

	snprintf(f->bundle_from, sizeof(f->bundle_from), "%s", manager_id);
	f->bundle_n = message.n < sizeof(f->bundle_message) ? message.n : sizeof(f->bundle_message);
	memcpy(f->bundle_message, message.p, f->bundle_n);
	f->n_bundles++;
	return !f->bundle_malformed;
}

static void op_commit(void *io, const struct broker_commit *commit)
{
	struct fake_broker *f = called(io);

	ASSERT_TRUE(f->commit == NULL); /* at most one is out */
	f->commit = commit;
}

static void op_note(void *io, const char *event, const char *client_id, const char *what)
{
	struct fake_broker *f = called(io);

	snprintf(f->last_event, sizeof(f->last_event), "%s", event);
	snprintf(f->last_what, sizeof(f->last_what), "%s: %s", client_id, what);
}

static void op_ban(void *io, const struct admission_source *source, uint64_t ms)
{
	struct fake_broker *f = called(io);

	f->n_bans++;
	f->last_ban = *source;
	f->last_ban_ms = ms;
}

static const struct broker_ops ops = {
	.out = op_out,
	.out_shared = op_out_shared,
	.backlog = op_backlog,
	.close = op_close,
	.pause = op_pause,
	.verify = op_verify,
	.token = op_token,
	.forget = op_forget,
	.commit = op_commit,
	.bundle = op_bundle,
	.note = op_note,
	.ban = op_ban,
};

/* --- life ------------------------------------------------------------------------------------- */

void fake_config(bool plain, struct broker_config *ret_config)
{
	*ret_config = (struct broker_config){
		.plain = plain,
		.durable = !plain,
		.admission = plain ? BROKER_ADMISSION_OFF : BROKER_ADMISSION_ENFORCE,
	};
	broker_limits_default(&ret_config->limits);
	/* Few tests are about who connects too often. */
	ret_config->limits.admission_connects_per_second = 100000;
	ret_config->limits.admission_told_per_second = 100000;
	ret_config->limits.admission_told_total_per_second = 100000;
	ret_config->limits.admission_ban_ms = 0;
	for (unsigned i = 0; i < sizeof(ret_config->hash_key); i++)
		ret_config->hash_key[i] = (uint8_t)harness_random();
}

static void start(struct fake_broker *f)
{
	f->engine = broker_new(&f->config, &ops, f);
	ASSERT_TRUE(f->engine != NULL);
	broker_time(f->engine, f->mono_ms, f->wall_ms);
}

static const uint8_t fake_address[16] = { [10] = 0xff, [11] = 0xff, 192, 0, 2, 1 };

struct fake_broker *fake_new_with(const struct broker_config *config)
{
	struct fake_broker *f = calloc(1, sizeof(*f));
	struct secret32 next SECRET = { 0 };

	if (!f)
		abort();
	f->config = *config;
	f->mono_ms = harness_random() % 1000000;
	f->wall_ms = FAKE_WALL_MS;
	memcpy(f->from, fake_address, sizeof(f->from));
	ASSERT_EQ(p256_scalar_random(&f->key_scalar), 0);
	ASSERT_EQ(p256_private_new(&f->key_scalar, &f->key), 0);
	p256_private_point(f->key, &f->key_point);
	ASSERT_EQ(p256_public_new(&f->key_point, &f->key_public), 0);
	ASSERT_EQ(p256_scalar_random(&next), 0);
	ASSERT_EQ(p256_private_new(&next, &f->next_key), 0);
	p256_private_point(f->next_key, &f->next_point);
	ASSERT_EQ(p256_public_new(&f->next_point, &f->next_public), 0);
	start(f);
	return f;
}

struct fake_broker *fake_new(bool plain)
{
	struct broker_config config;

	fake_config(plain, &config);
	return fake_new_with(&config);
}

static void apply(struct fake_broker *f, const struct broker_commit *c);

/* Every job that is out goes back, none of them done. */
static void give_back(struct fake_broker *f)
{
	while (f->n_verify || f->n_token) {
		f->convert_status = f->sign_status = BROKER_TOKEN_UNAVAILABLE;
		while (fake_run_verify(f))
			;
		while (fake_run_token(f))
			;
	}
	if (f->commit && f->late_crash)
		apply(f, f->commit);
	f->commit = NULL; /* the engine's own memory: nothing to give */
}

/* The engine ends, and with it every connection. */
static void stop(struct fake_broker *f)
{
	f->hold_verify = f->hold_convert = f->hold_sign = f->hold_commit = false;
	give_back(f);
	broker_free(f->engine);
	f->engine = NULL;
	for (struct fake_conn *c = f->conns; c; c = c->next)
		c->engine = NULL;
}

void fake_free(struct fake_broker *f)
{
	stop(f);
	while (f->conns) {
		struct fake_conn *c = f->conns;

		f->conns = c->next;
		free(c->out);
		free(c);
	}
	fake_durable_free(&f->store.durable);
	p256_private_free(f->key);
	p256_public_free(f->key_public);
	p256_private_free(f->next_key);
	p256_public_free(f->next_public);
	free(f);
}

static void restore_revoked(struct fake_broker *f)
{
	for (unsigned i = 0; i < f->store.n_revoked; i++)
		ASSERT_EQ(broker_restore_revoked(f->engine, &f->store.revoked[i]), 0);
}

void fake_restart(struct fake_broker *f)
{
	struct fake_store *s = &f->store;

	stop(f);
	f->convert_status = f->sign_status = BROKER_TOKEN_OK;
	start(f);
	if (f->revoked_first)
		restore_revoked(f);
	for (unsigned i = 0; i < s->n_replay; i++)
		ASSERT_EQ(broker_restore_replay(f->engine, &s->replay[i]), 0);
	for (unsigned i = 0; i < s->n_contexts; i++)
		ASSERT_EQ(broker_restore_context(f->engine, &s->contexts[i]), 0);
	if (!f->revoked_first)
		restore_revoked(f);
	broker_restore_serial(f->engine, s->bundle_serial);
	if (f->config.plain)
		fake_restore(f);
}

void fake_restore(struct fake_broker *f)
{
	if (f->config.durable)
		fake_durable_restore(&f->store.durable, f->engine);
}

/* --- sockets ---------------------------------------------------------------------------------- */

struct fake_conn *fake_try_open(struct fake_broker *f)
{
	struct fake_conn *c = calloc(1, sizeof(*c));

	if (!c)
		abort();
	c->fake = f;
	ENGINE(c->engine = broker_conn_open(f->engine, c, f->from));
	if (!c->engine) {
		free(c);
		return NULL;
	}
	c->next = f->conns;
	f->conns = c;
	return c;
}

struct fake_conn *fake_open(struct fake_broker *f)
{
	struct fake_conn *c = fake_try_open(f);

	ASSERT_TRUE(c != NULL);
	return c;
}

/* From memory of exactly its size, gone afterwards: a view that the engine kept, or a byte read
 * behind it, shows under the address sanitizer. */
void fake_input(struct fake_conn *c, struct bytes in)
{
	uint8_t *copy = grow(NULL, in.n ? in.n : 1);

	if (in.n)
		memcpy(copy, in.p, in.n);
	if (c->engine)
		ENGINE(broker_conn_input(c->engine, bytes_of(copy, in.n)));
	free(copy);
}

void fake_hang_up(struct fake_conn *c)
{
	struct broker_conn *engine = c->engine;

	c->engine = NULL;
	if (engine)
		ENGINE(broker_conn_closed(engine));
}

void fake_drain(struct fake_conn *c, size_t n)
{
	size_t soft = c->fake->config.limits.output_bytes_soft;
	bool was_full = unsent(c) >= soft;

	c->sent += n < unsent(c) ? n : unsent(c);
	if (was_full && unsent(c) < soft && c->engine)
		ENGINE(broker_conn_drained(c->engine));
}

void fake_unstall(struct fake_conn *c)
{
	c->stalled = false;
	fake_drain(c, unsent(c));
}

bool fake_next_packet(struct fake_conn *c, struct mqtt_frame *ret_frame)
{
	struct bytes sent = bytes_of(c->out + c->read, c->sent - c->read);
	size_t used, need;

	if (sent.n == 0)
		return false;
	ASSERT_EQ(mqtt_frame_next(sent, MQTT_PACKET_BYTES_MAX, ret_frame, &used, &need), MQTT_OK);
	c->read += used;
	return used > 0;
}

bool fake_peek_packet(struct fake_conn *c, struct mqtt_frame *ret_frame)
{
	size_t read = c->read;
	bool whole = fake_next_packet(c, ret_frame);

	c->read = read;
	return whole;
}

bool fake_silent(struct fake_conn *c)
{
	return c->sent == c->read;
}

/* --- jobs ------------------------------------------------------------------------------------- */

bool fake_run_verify(struct fake_broker *f)
{
	struct broker_verify *job = f->verify[0];

	if (f->n_verify == 0)
		return false;
	memmove(f->verify, f->verify + 1, --f->n_verify * sizeof(job));
	broker_verify_run(job);
	ENGINE(broker_verify_done(f->engine, job));
	return true;
}

static void convert(struct fake_broker *f, struct broker_token_job *job)
{
	struct bytes_reader r = bytes_reader_of(job->blob);
	struct bytes grant_id = bytes_read_view(&r, GRANT_ID_BYTES);
	struct secret32 rk = { 0 };
	struct p256_point e;

	job->status = f->convert_status;
	if (job->status != BROKER_TOKEN_OK)
		return;
	bytes_read_copy(&r, rk.b, sizeof(rk.b));
	ASSERT_TRUE(bytes_read_done(&r));
	ASSERT_BYTES(grant_id.p, job->grant_id, GRANT_ID_BYTES);
	memcpy(e.b, job->input, sizeof(e.b));
	/* The token must never see a point that is not on the curve (PROTOCOL 3). */
	ASSERT_EQ(p256_point_check(bytes_of(e.b, sizeof(e.b))), 0);
	ASSERT_EQ(grant_convert(&rk, &e, job->output), 0);
	f->conversions++;
	if (f->wrong_converts) {
		f->wrong_converts--;
		memcpy(job->output, f->key_point.b + 1, P256_X_BYTES); /* of some other point */
	}
}

static void sign(struct fake_broker *f, struct broker_token_job *job)
{
	job->status = f->lacks[job->next] ? BROKER_TOKEN_UNAVAILABLE : f->sign_status;
	if (job->status != BROKER_TOKEN_OK)
		return;
	ASSERT_EQ(p256_sign_digest(job->next ? f->next_key : f->key, job->input, job->output), 0);
	f->signatures++;
}

static bool held(const struct fake_broker *f, const struct broker_token_job *job)
{
	return job->op == BROKER_TOKEN_CONVERT ? f->hold_convert : f->hold_sign;
}

/* The first job at or behind a random place that is not held. False: there is none. */
static bool pick_token(struct fake_broker *f, unsigned *ret_at)
{
	unsigned from = f->n_token && !f->in_order ? (unsigned)(harness_random() % f->n_token) : 0;

	for (unsigned i = 0; i < f->n_token; i++) {
		unsigned at = (from + i) % f->n_token;

		if (held(f, f->token[at]))
			continue;
		*ret_at = at;
		return true;
	}
	return false;
}

bool fake_run_token(struct fake_broker *f)
{
	struct broker_token_job *job;
	unsigned at;

	if (!pick_token(f, &at))
		return false;
	job = f->token[at];
	memmove(f->token + at, f->token + at + 1, (--f->n_token - at) * sizeof(job));
	if (job->op == BROKER_TOKEN_CONVERT)
		convert(f, job);
	else
		sign(f, job);
	ENGINE(broker_token_done(f->engine, job));
	return true;
}

/* --- storage ---------------------------------------------------------------------------------- */

static void store_replay(struct fake_store *s, const struct broker_commit_replay *r)
{
	unsigned i = 0;

	while (i < s->n_replay && strcmp(s->replay[i].id, r->id) != 0)
		i++;
	ASSERT_LT(i, FAKE_STORE_MAX);
	s->replay[i] = *r;
	if (i == s->n_replay)
		s->n_replay++;
}

static void store_context(struct fake_store *s, const struct broker_commit_context *c)
{
	unsigned i = 0;

	while (i < s->n_contexts &&
	       (s->contexts[i].key_id != c->key_id || s->contexts[i].enc_hash != c->enc_hash))
		i++;
	ASSERT_LT(i, FAKE_STORE_MAX);
	s->contexts[i] = *c;
	if (i == s->n_contexts)
		s->n_contexts++;
}

static void store_revoked(struct fake_store *s, const struct broker_commit_revoked *r)
{
	unsigned i = 0;

	while (i < s->n_revoked && s->revoked[i].key_id != r->key_id)
		i++;
	ASSERT_LT(i, FAKE_STORE_MAX);
	s->revoked[i] = *r;
	if (i == s->n_revoked)
		s->n_revoked++;
}

static void apply(struct fake_broker *f, const struct broker_commit *c)
{
	struct fake_store *s = &f->store;

	for (unsigned i = 0; i < c->n_replay; i++)
		store_replay(s, &c->replay[i]);
	for (unsigned i = 0; i < c->n_contexts; i++)
		store_context(s, &c->contexts[i]);
	for (unsigned i = 0; i < c->n_revoked; i++)
		store_revoked(s, &c->revoked[i]);
	if (c->bundle_serial)
		s->bundle_serial = c->bundle_serial;
	fake_durable_apply(&s->durable, c);
	s->commits++;
}

bool fake_run_commit(struct fake_broker *f)
{
	const struct broker_commit *c = f->commit;

	if (!c || f->hold_commit)
		return false;
	f->commit = NULL;
	if (f->commit_error) {
		ENGINE(broker_commit_done(f->engine, f->commit_error));
		return true;
	}
	apply(f, c);
	ENGINE(broker_commit_done(f->engine, 0));
	return true;
}

const struct replay_window *fake_stored_window(const struct fake_broker *f, const char *id)
{
	for (unsigned i = 0; i < f->store.n_replay; i++)
		if (strcmp(f->store.replay[i].id, id) == 0)
			return &f->store.replay[i].window;
	return NULL;
}

/* --- turns ------------------------------------------------------------------------------------ */

void fake_turn(struct fake_broker *f)
{
	broker_time(f->engine, f->mono_ms, f->wall_ms);
	ENGINE(broker_turn(f->engine));
	(void)called(f);
}

/* All that is out now. True where there was something to do. */
static bool work(struct fake_broker *f)
{
	bool some = false;

	if (!f->hold_verify)
		while (fake_run_verify(f))
			some = true;
	while (fake_run_token(f))
		some = true;
	if (fake_run_commit(f))
		some = true;
	return some;
}

void fake_settle(struct fake_broker *f)
{
	unsigned rounds = 0;

	do {
		ASSERT_LT(rounds++, SETTLE_ROUNDS_MAX);
		fake_turn(f);
	} while (work(f) || broker_wait_ms(f->engine) == 0);
	if (fake_stats(f).queued <= CHECK_MAX && fake_stats(f).sessions <= CHECK_MAX)
		fake_check_settled(f);
}

void fake_pass(struct fake_broker *f, uint64_t ms)
{
	fake_settle(f);
	while (ms) {
		uint64_t step = ms < PASS_STEP_MS ? ms : PASS_STEP_MS;

		f->mono_ms += step;
		f->wall_ms += step;
		ms -= step;
		fake_settle(f);
	}
}

struct broker_stats fake_stats(struct fake_broker *f)
{
	struct broker_stats s;

	broker_stats(f->engine, &s);
	return s;
}

bool fake_forgot(const struct fake_broker *f, const uint8_t grant_id[GRANT_ID_BYTES])
{
	unsigned n = f->n_forgotten < FAKE_FORGET_MAX ? f->n_forgotten : FAKE_FORGET_MAX;

	for (unsigned i = 0; i < n; i++)
		if (memcmp(f->forgotten[i], grant_id, GRANT_ID_BYTES) == 0)
			return true;
	return false;
}
