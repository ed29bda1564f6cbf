// SPDX-License-Identifier: MIT
/*
 * Bundles online at the gateway (PROTOCOL 14): with real files, and a manager, a token and an
 * engine that are the test's. Offers that hold and that do not, what travels and what does not, and
 * a broker that ends at any moment.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/harness.h"
#include "userspace/base/file.h"
#include "userspace/broker/broker.h"
#include "userspace/bundle/cut.h"
#include "userspace/bundle/online.h"
#include "userspace/core/bundlein.h"
#include "userspace/core/pieces.h"

HARNESS_MAIN

#define WALL_MS	    1700000000000ull
#define BYTES	    (1500u << 10)
#define ANSWERS_MAX 64
#define PIECES_MAX  1024

static struct secret32 scalar_of(uint8_t n)
{
	struct secret32 k = { { 0 } };

	k.b[31] = n;
	return k;
}

/* A bundle, as a manager offers it. To the code under test it is bytes. */
struct offer {
	uint8_t *bundle;
	size_t n;
	uint64_t serial;
	size_t at[PIECES_MAX + 1];
	uint32_t n_pieces;
	uint8_t manifest[STATEMENT_BYTES(MANIFEST_HEAD_BYTES_MAX +
					 PIECES_MAX * MANIFEST_ENTRY_BYTES)];
	size_t manifest_n;
	struct hpke_context hpke;
	struct p256_point enc;
	unsigned sent;
};

FIXTURE(in)
{
	char dir[64];
	struct bundlein *in;
	struct p256_private *manager;
	struct p256_public *manager_public;
	struct secret32 key_scalar;
	struct p256_point key;
	bool no_key;
	enum broker_token_status token;
	struct broker_token_job *job; /* out */
	bool hold_job, hold_sync;
	int sync_error, sync_fd; /* -1: none is out */
	uint64_t mono_ms;

	/* What was said to the manager. */
	struct online_message said[ANSWERS_MAX];
	char texts[ANSWERS_MAX][ONLINE_TEXT_BYTES_MAX];
	char to[65];
	unsigned n_said;

	/* The engine. */
	const struct offer *expected;
	int check_error;
	unsigned checks, applied, dropped;
	uint64_t serial;
	char bundle_path[128];
};

/* --- the owner ---------------------------------------------------------------------------------
 */

static bool op_key(void *ctx, struct p256_point *ret_key)
{
	struct fixture_in *self = ctx;

	*ret_key = self->key;
	return !self->no_key;
}

static void op_open(void *ctx, struct broker_token_job *job)
{
	struct fixture_in *self = ctx;

	ASSERT_TRUE(self->job == NULL);
	self->job = job;
}

static void op_answer(void *ctx, const char *manager_id, struct bytes body)
{
	struct fixture_in *self = ctx;
	struct online_message *m = &self->said[self->n_said];

	ASSERT_LT(self->n_said, ANSWERS_MAX);
	ASSERT_EQ(online_decode(body, m), 0);
	snprintf(self->texts[self->n_said], sizeof(self->texts[0]), "%.*s", (int)m->text.n,
		 (const char *)m->text.p);
	snprintf(self->to, sizeof(self->to), "%s", manager_id);
	self->n_said++;
}

static void op_sync(void *ctx, int fd)
{
	struct fixture_in *self = ctx;

	ASSERT_EQ(self->sync_fd, -1);
	self->sync_fd = fd;
}

static int op_check(void *ctx, const char *path, char *why, size_t room)
{
	struct fixture_in *self = ctx;
	struct stat st;
	uint8_t *bytes;
	size_t n;

	self->checks++;
	ASSERT_EQ(file_read(AT_FDCWD, path, BYTES * 2, &bytes, &n, NULL), 0);
	ASSERT_EQ(n, self->expected->n);
	ASSERT_BYTES(bytes, self->expected->bundle, n);
	free(bytes);
	ASSERT_EQ(stat(path, &st), 0);
	ASSERT_EQ(st.st_mode & 0777, 0600);
	snprintf(why, room, "the engine does not like it");
	return self->check_error;
}

static void op_apply(void *ctx)
{
	struct fixture_in *self = ctx;

	self->applied++;
	self->serial = self->expected->serial;
	snprintf(self->bundle_path, sizeof(self->bundle_path), "%s/bundle", self->dir);
	bundlein_in_force(self->in, self->serial, self->bundle_path);
}

static void op_drop(void *ctx)
{
	struct fixture_in *self = ctx;

	self->dropped++;
}

static void op_note(void *ctx, const char *manager_id, const char *what)
{
}

static const struct bundlein_ops ops = {
	.key = op_key,
	.open = op_open,
	.answer = op_answer,
	.sync = op_sync,
	.check = op_check,
	.apply = op_apply,
	.drop = op_drop,
	.note = op_note,
};

static void start(struct fixture_in *self)
{
	const struct bundlein_config c = { .state_dir = self->dir,
					   .gateway_id = "gw-1",
					   .manager = self->manager_public,
					   .ops = &ops,
					   .ctx = self };

	self->in = bundlein_new(&c);
	ASSERT_TRUE(self->in != NULL);
	bundlein_in_force(self->in, self->serial, self->bundle_path);
}

/* As after a kill -9: what is in the files is all there is. */
static void restart(struct fixture_in *self)
{
	bundlein_free(self->in);
	self->job = NULL;
	self->sync_fd = -1;
	self->n_said = 0;
	start(self);
}

static void remove_all(const char *dir, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	(void)remove(path);
}

FIXTURE_SETUP(in)
{
	struct secret32 scalar = scalar_of(9);
	struct p256_point p;

	snprintf(self->dir, sizeof(self->dir), "/tmp/test_bundlein.XXXXXX");
	ASSERT_TRUE(mkdtemp(self->dir) != NULL);
	ASSERT_EQ(p256_private_new(&scalar, &self->manager), 0);
	p256_private_point(self->manager, &p);
	ASSERT_EQ(p256_public_new(&p, &self->manager_public), 0);
	self->key_scalar = scalar_of(7);
	ASSERT_EQ(p256_mul_base(&self->key_scalar, &self->key), 0);
	self->sync_fd = -1;
	self->serial = 10;
	snprintf(self->bundle_path, sizeof(self->bundle_path), "%s/none", self->dir);
	start(self);
}

FIXTURE_TEARDOWN(in)
{
	static const char *const names[] = { "incoming/part",
					     "incoming/manifest",
					     "incoming/old.part",
					     "incoming/old.manifest",
					     "incoming/manifest.tmp",
					     "incoming",
					     "bundle",
					     "bundle.manifest",
					     "file",
					     "" };

	bundlein_free(self->in);
	p256_private_free(self->manager);
	p256_public_free(self->manager_public);
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		remove_all(self->dir, names[i]);
}

/* --- the manager -------------------------------------------------------------------------------
 */

static void cut(struct offer *o)
{
	o->n_pieces = 0;
	for (size_t at = 0; at < o->n; o->n_pieces++) {
		ASSERT_LT(o->n_pieces, PIECES_MAX);
		o->at[o->n_pieces] = at;
		at += cut_next(bytes_of(o->bundle + at, o->n - at));
	}
	o->at[o->n_pieces] = o->n;
}

static void sign(struct offer *o, const struct p256_private *key, const char *gateway_id)
{
	static uint8_t body[MANIFEST_HEAD_BYTES_MAX + PIECES_MAX * MANIFEST_ENTRY_BYTES];
	const struct manifest m = { .gateway_id = bytes_str(gateway_id),
				    .serial = o->serial,
				    .bytes = o->n,
				    .n_pieces = o->n_pieces };
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));
	struct statement s = { .kind = STATEMENT_MANIFEST, .serial = 1 };
	uint8_t hash[HASH_BYTES], digest[P256_DIGEST_BYTES], sig[P256_SIG_BYTES];

	manifest_write_head(&m, &w);
	for (uint32_t i = 0; i < o->n_pieces; i++) {
		size_t n = o->at[i + 1] - o->at[i];

		hash_one(bytes_of(o->bundle + o->at[i], n), hash);
		manifest_write_piece(&(struct manifest_piece){ (uint32_t)n, { hash, HASH_BYTES } },
				     &w);
	}
	s.body = bytes_of(body, w.used);
	w = bytes_writer_of(o->manifest, sizeof(o->manifest));
	statement_write_unsigned(&s, &w);
	statement_digest(s.kind, bytes_of(o->manifest, w.used), digest);
	ASSERT_EQ(p256_sign_digest(key, digest, sig), 0);
	bytes_write(&w, bytes_of(sig, sizeof(sig)));
	ASSERT_FALSE(w.bad);
	o->manifest_n = w.used;
}

static struct offer *offer_new(struct fixture_in *self, uint64_t serial, const struct offer *like)
{
	struct offer *o = calloc(1, sizeof(*o));

	ASSERT_TRUE(o != NULL);
	o->serial = serial;
	o->n = BYTES;
	o->bundle = malloc(o->n);
	ASSERT_TRUE(o->bundle != NULL);
	for (size_t i = 0; i < o->n && !like; i++)
		o->bundle[i] = (uint8_t)harness_random();
	if (like)
		memcpy(o->bundle, like->bundle, o->n);
	/* A statement has its serial in its first piece, and its signature in the last. */
	memcpy(o->bundle, &serial, sizeof(serial));
	memcpy(o->bundle + o->n - sizeof(serial), &serial, sizeof(serial));
	cut(o);
	sign(o, self->manager, "gw-1");
	ASSERT_EQ(hpke_setup_sender(HPKE_SUITE_AES_128_GCM, &self->key, bytes_str(ONLINE_INFO),
				    &o->hpke, &o->enc),
		  0);
	self->expected = o;
	return o;
}

static void offer_free(struct offer *o)
{
	free(o->bundle);
	free(o);
}

static void say(struct fixture_in *self, const char *manager_id, const struct online_message *m)
{
	static uint8_t buf[256u << 10];
	struct bytes_writer w = bytes_writer_of(buf, sizeof(buf));

	online_write(m, &w);
	ASSERT_FALSE(w.bad);
	ASSERT_TRUE(bundlein_take(self->in, manager_id, bytes_of(buf, w.used)));
}

static void say_offer(struct fixture_in *self, const char *manager_id, const struct offer *o)
{
	const struct online_message m = { .kind = ONLINE_OFFER,
					  .manifest = bytes_of(o->manifest, o->manifest_n),
					  .enc = o->enc };

	say(self, manager_id, &m);
}

static void say_piece(struct fixture_in *self, const char *manager_id, struct offer *o,
		      uint32_t index, size_t flip)
{
	uint8_t sealed[ONLINE_SEALED_MAX], aad[ONLINE_AAD_BYTES];
	size_t n = o->at[index + 1] - o->at[index];
	const struct online_message m = { .kind = ONLINE_PIECE,
					  .serial = o->serial,
					  .index = index,
					  .sealed = bytes_of(sealed, n + HPKE_TAG_BYTES) };

	online_aad(o->serial, index, aad);
	ASSERT_EQ(hpke_seal(&o->hpke, index, bytes_of(aad, sizeof(aad)),
			    bytes_of(o->bundle + o->at[index], n), sealed),
		  0);
	if (flip)
		sealed[flip % n] ^= 1;
	o->sent++;
	say(self, manager_id, &m);
}

/* --- turns -------------------------------------------------------------------------------------
 */

static void run_token(struct fixture_in *self)
{
	struct broker_token_job *job = self->job;
	struct p256_point enc;
	struct secret32 dh;

	memcpy(enc.b, job->input, sizeof(enc.b));
	ASSERT_EQ(job->op, BROKER_TOKEN_OPEN);
	ASSERT_EQ(p256_dh(&self->key_scalar, &enc, &dh), 0);
	memcpy(job->output, dh.b, sizeof(dh.b));
	job->status = self->token;
	self->job = NULL;
	bundlein_opened(self->in, job);
}

/* As long as it has something to do. */
static void settle(struct fixture_in *self)
{
	for (unsigned i = 0; i < 1000; i++) {
		bundlein_turn(self->in, self->mono_ms, WALL_MS);
		if (self->job && !self->hold_job) {
			run_token(self);
		} else if (self->sync_fd >= 0 && !self->hold_sync) {
			self->sync_fd = -1;
			bundlein_synced(self->in, self->sync_error);
		} else if (bundlein_wait_ms(self->in)) {
			return;
		}
	}
	harness_fail(__FILE__, __LINE__, true, "it does not come to rest");
}

/* The last thing that was said. */
static const struct online_message *last(const struct fixture_in *self)
{
	ASSERT_GT(self->n_said, 0);
	return &self->said[self->n_said - 1];
}

static const char *last_text(const struct fixture_in *self)
{
	return self->texts[self->n_said - 1];
}

/* Answers every want, until something else is said or `pieces` were sent. */
static void serve(struct fixture_in *self, const char *manager_id, struct offer *o, unsigned pieces)
{
	settle(self);
	while (self->n_said && last(self)->kind == ONLINE_WANT && pieces) {
		struct online_message want = *last(self);

		if (!want.n_wanted)
			break;
		self->n_said = 0;
		for (unsigned i = 0; i < want.n_wanted && pieces; i++, pieces--)
			say_piece(self, manager_id, o, want.wanted[i], 0);
		settle(self);
	}
}

static void bring(struct fixture_in *self, struct offer *o)
{
	say_offer(self, "mgr", o);
	serve(self, "mgr", o, UINT32_MAX);
	ASSERT_EQ(last(self)->kind, ONLINE_APPLIED);
	ASSERT_STREQ(last_text(self), "");
	ASSERT_EQ(last(self)->result, ONLINE_RESULT_APPLIED);
	ASSERT_EQ(last(self)->serial, o->serial);
	ASSERT_EQ(self->serial, o->serial);
	self->n_said = 0;
}

static void check_refused(struct fixture_in *self, const char *text)
{
	settle(self);
	ASSERT_EQ(last(self)->kind, ONLINE_APPLIED);
	ASSERT_STREQ(last_text(self), text);
	ASSERT_EQ(last(self)->result, ONLINE_RESULT_REFUSED);
	ASSERT_EQ(last(self)->serial, self->serial);
	ASSERT_EQ(self->applied, 0);
	self->n_said = 0;
}

static bool is_there(const struct fixture_in *self, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", self->dir, name);
	return access(path, F_OK) == 0;
}

/* --- what goes well ----------------------------------------------------------------------------
 */

TEST_F(in, a_first_bundle_travels_whole)
{
	struct offer *o = offer_new(self, 11, NULL);

	ASSERT_EQ(bundlein_wait_ms(self->in), UINT64_MAX);
	bring(self, o);
	ASSERT_EQ(o->sent, o->n_pieces);
	ASSERT_STREQ(self->to, "mgr");
	ASSERT_TRUE(is_there(self, "bundle"));
	ASSERT_TRUE(is_there(self, "bundle.manifest"));
	ASSERT_FALSE(is_there(self, "incoming/part"));
	ASSERT_EQ(bundlein_wait_ms(self->in), UINT64_MAX);
	offer_free(o);
}

TEST_F(in, of_a_second_only_what_changed_travels)
{
	struct offer *first = offer_new(self, 11, NULL), *second;

	bring(self, first);
	second = offer_new(self, 12, first);
	second->bundle[BYTES / 2] ^= 1;
	cut(second);
	sign(second, self->manager, "gw-1");
	bring(self, second);
	harness_note("%u of %u pieces", second->sent, second->n_pieces);
	ASSERT_LE(second->sent, 6);
	ASSERT_EQ(self->applied, 2);
	offer_free(first);
	offer_free(second);
}

/* The administrator's file has no list of its cuts: it is cut by content. */
TEST_F(in, pieces_of_the_configured_file_are_used)
{
	struct offer *file = offer_new(self, 10, NULL), *o;

	snprintf(self->bundle_path, sizeof(self->bundle_path), "%s/file", self->dir);
	ASSERT_EQ(file_write(AT_FDCWD, self->bundle_path, bytes_of(file->bundle, file->n), 0600),
		  0);
	restart(self);
	o = offer_new(self, 11, file);
	bring(self, o);
	ASSERT_LE(o->sent, 3);
	offer_free(file);
	offer_free(o);
}

/* Not more than 64 are asked for at once, and what was not asked for is not taken. */
TEST_F(in, windows)
{
	struct offer *o = offer_new(self, 11, NULL);
	unsigned asked = 0;

	say_offer(self, "mgr", o);
	settle(self);
	while (last(self)->n_wanted) {
		struct online_message want = *last(self);

		ASSERT_EQ(want.kind, ONLINE_WANT);
		ASSERT_EQ(want.serial, 11);
		ASSERT_LE(want.n_wanted, ONLINE_WANTED_MAX);
		asked += want.n_wanted;
		say_piece(self, "mgr", o, want.wanted[0], 0);
		say_piece(self, "mgr", o, want.wanted[0], 1); /* here already: not looked at */
		settle(self);
		ASSERT_EQ(last(self)->n_wanted, want.n_wanted); /* nothing new yet */
		for (unsigned i = 1; i < want.n_wanted; i++)
			say_piece(self, "mgr", o, want.wanted[i], 0);
		settle(self);
		if (last(self)->kind == ONLINE_APPLIED)
			break;
	}
	ASSERT_EQ(asked, o->n_pieces);
	ASSERT_EQ(last(self)->result, ONLINE_RESULT_APPLIED);
	ASSERT_EQ(self->said[self->n_said - 2].kind, ONLINE_WANT); /* "all are here" */
	ASSERT_EQ(self->said[self->n_said - 2].n_wanted, 0);
	offer_free(o);
}

TEST_F(in, what_is_in_force_is_said_to_be)
{
	struct offer *o = offer_new(self, 11, NULL);

	bring(self, o);
	say_offer(self, "mgr", o);
	settle(self);
	ASSERT_EQ(last(self)->kind, ONLINE_APPLIED);
	ASSERT_EQ(last(self)->result, ONLINE_RESULT_IN_FORCE);
	ASSERT_EQ(self->applied, 1);
	offer_free(o);
}

/* The manager's connection was lost: the next session goes on, for whoever comes. */
TEST_F(in, another_session_goes_on)
{
	struct offer *o = offer_new(self, 11, NULL);

	say_offer(self, "mgr", o);
	serve(self, "mgr", o, 7);
	say_offer(self, "mgr2", o);
	serve(self, "mgr2", o, UINT32_MAX);
	ASSERT_EQ(last(self)->result, ONLINE_RESULT_APPLIED);
	ASSERT_STREQ(self->to, "mgr2");
	ASSERT_EQ(o->sent, o->n_pieces);
	offer_free(o);
}

TEST_F(in, pieces_of_somebody_else_are_not_taken)
{
	struct offer *o = offer_new(self, 11, NULL);

	say_offer(self, "mgr", o);
	settle(self);
	say_piece(self, "mgr2", o, 0, 1);
	serve(self, "mgr", o, UINT32_MAX);
	ASSERT_EQ(last(self)->result, ONLINE_RESULT_APPLIED);
	offer_free(o);
}

TEST_F(in, a_newer_offer_takes_its_place)
{
	struct offer *a = offer_new(self, 11, NULL), *b = offer_new(self, 12, a);

	say_offer(self, "mgr", a);
	serve(self, "mgr", a, 9);
	self->n_said = 0;
	bring(self, b);
	ASSERT_LE(b->sent, b->n_pieces - 8); /* the first may differ */
	say_offer(self, "mgr", a);
	settle(self);
	ASSERT_EQ(last(self)->result, ONLINE_RESULT_REFUSED);
	ASSERT_STREQ(last_text(self), "it is older than the one in force");
	offer_free(a);
	offer_free(b);
}

/* Whoever brought the older one is told. */
TEST_F(in, a_newer_offer_of_somebody_else)
{
	struct offer *a = offer_new(self, 11, NULL), *b = offer_new(self, 12, a);

	say_offer(self, "mgr", a);
	serve(self, "mgr", a, 9);
	say_offer(self, "mgr2", b);
	bundlein_turn(self->in, self->mono_ms, WALL_MS);
	ASSERT_EQ(last(self)->result, ONLINE_RESULT_REFUSED);
	ASSERT_STREQ(last_text(self), "a newer one took its place");
	ASSERT_STREQ(self->to, "mgr");
	self->n_said = 0;
	serve(self, "mgr2", b, UINT32_MAX);
	ASSERT_EQ(last(self)->result, ONLINE_RESULT_APPLIED);
	ASSERT_STREQ(self->to, "mgr2");
	offer_free(a);
	offer_free(b);
}

TEST_F(in, an_older_one_does_not)
{
	struct offer *a = offer_new(self, 11, NULL), *b = offer_new(self, 12, NULL);

	say_offer(self, "mgr", b);
	serve(self, "mgr", b, 3);
	say_offer(self, "mgr2", a);
	settle(self);
	ASSERT_EQ(last(self)->result, ONLINE_RESULT_REFUSED);
	ASSERT_STREQ(last_text(self), "a newer one is on its way");
	ASSERT_STREQ(self->to, "mgr2");
	self->n_said = 0;
	bring(self, b);
	offer_free(a);
	offer_free(b);
}

/* --- what does not -----------------------------------------------------------------------------
 */

TEST_F(in, offers_that_do_not_hold)
{
	struct offer *o = offer_new(self, 11, NULL);
	struct secret32 other_scalar = scalar_of(33);
	struct p256_private *other;

	ASSERT_EQ(p256_private_new(&other_scalar, &other), 0);
	sign(o, other, "gw-1");
	say_offer(self, "mgr", o);
	check_refused(self, "it is not signed by this gateway's manager");
	sign(o, self->manager, "gw-2");
	say_offer(self, "mgr", o);
	check_refused(self, "it is for another gateway");
	o->serial = 9;
	sign(o, self->manager, "gw-1");
	say_offer(self, "mgr", o);
	check_refused(self, "it is older than the one in force");
	o->manifest[o->manifest_n - 1] ^= 1;
	say_offer(self, "mgr", o);
	check_refused(self, "it is not signed by this gateway's manager");
	ASSERT_FALSE(is_there(self, "incoming"));
	p256_private_free(other);
	offer_free(o);
}

TEST_F(in, malformed_messages)
{
	static const uint8_t want[] = { 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0 };
	static const uint8_t piece[] = { 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 7 };

	ASSERT_FALSE(bundlein_take(self->in, "mgr", bytes_of(want, sizeof(want))));
	ASSERT_FALSE(bundlein_take(self->in, "mgr", bytes_of(piece, sizeof(piece))));
	ASSERT_FALSE(bundlein_take(self->in, "mgr", bytes_str("")));
	settle(self);
	ASSERT_EQ(self->n_said, 0);
}

TEST_F(in, a_damaged_piece_ends_it)
{
	struct offer *o = offer_new(self, 11, NULL);

	say_offer(self, "mgr", o);
	serve(self, "mgr", o, 5);
	ASSERT_EQ(self->n_said, 0);
	say_piece(self, "mgr", o, 8, 100);
	check_refused(self, "a piece does not open, or is not what the manifest says");
	ASSERT_EQ(self->checks, 0);
	/* What was good is kept for the next attempt. */
	o->sent = 0;
	bring(self, o);
	ASSERT_EQ(o->sent, o->n_pieces - 5);
	offer_free(o);
}

/* It opens, since who seals it has the public key; but the manager did not sign for it. */
TEST_F(in, a_piece_that_the_manager_did_not_sign_for)
{
	struct offer *o = offer_new(self, 11, NULL);

	say_offer(self, "mgr", o);
	settle(self);
	o->bundle[o->at[2] + 1] ^= 1;
	say_piece(self, "mgr", o, 2, 0);
	check_refused(self, "a piece does not open, or is not what the manifest says");
	offer_free(o);
}

TEST_F(in, what_the_engine_refuses_leaves_the_one_in_force)
{
	struct offer *o = offer_new(self, 11, NULL);

	self->check_error = -EBADMSG;
	say_offer(self, "mgr", o);
	serve(self, "mgr", o, UINT32_MAX);
	check_refused(self, "the engine does not like it");
	ASSERT_EQ(self->checks, 1);
	ASSERT_FALSE(is_there(self, "bundle"));
	offer_free(o);
}

TEST_F(in, a_disk_that_fails)
{
	struct offer *o = offer_new(self, 11, NULL);

	self->sync_error = -EIO;
	say_offer(self, "mgr", o);
	serve(self, "mgr", o, UINT32_MAX);
	check_refused(self, "it cannot be written to the disk: Input/output error");
	ASSERT_EQ(self->checks, 0);
	ASSERT_FALSE(is_there(self, "bundle"));
	offer_free(o);
}

TEST_F(in, a_place_that_is_taken)
{
	struct offer *o = offer_new(self, 11, NULL);
	char path[128];

	snprintf(path, sizeof(path), "%s/bundle", self->dir);
	ASSERT_EQ(mkdir(path, 0700), 0);
	say_offer(self, "mgr", o);
	serve(self, "mgr", o, UINT32_MAX);
	check_refused(self, "it cannot be put in its place: Is a directory");
	ASSERT_EQ(self->dropped, 1);
	offer_free(o);
}

/* --- the token ---------------------------------------------------------------------------------
 */

TEST_F(in, a_token_without_the_key)
{
	struct offer *o = offer_new(self, 11, NULL);

	self->no_key = true;
	say_offer(self, "mgr", o);
	check_refused(self, "its token has no bundle key: ssdtf-hsmd keygen makes one");
	offer_free(o);
}

TEST_F(in, a_token_that_is_away_is_asked_again)
{
	struct offer *o = offer_new(self, 11, NULL);

	self->token = BROKER_TOKEN_UNAVAILABLE;
	say_offer(self, "mgr", o);
	settle(self);
	ASSERT_EQ(self->n_said, 0);
	ASSERT_EQ(bundlein_wait_ms(self->in), BUNDLEIN_RETRY_MS);
	self->token = BROKER_TOKEN_OK;
	self->mono_ms += BUNDLEIN_RETRY_MS;
	serve(self, "mgr", o, UINT32_MAX);
	ASSERT_EQ(last(self)->result, ONLINE_RESULT_APPLIED);
	offer_free(o);
}

/* The answer to an offer of before is not this one's. */
TEST_F(in, a_late_answer_of_the_token)
{
	struct offer *a = offer_new(self, 11, NULL), *b = offer_new(self, 12, NULL);

	self->hold_job = true;
	say_offer(self, "mgr", a);
	settle(self);
	say_offer(self, "mgr", b);
	settle(self);
	ASSERT_EQ(self->n_said, 0);
	self->hold_job = false;
	serve(self, "mgr", b, UINT32_MAX);
	ASSERT_EQ(last(self)->result, ONLINE_RESULT_APPLIED);
	ASSERT_EQ(b->sent, b->n_pieces);
	offer_free(a);
	offer_free(b);
}

/* Nor is a sync of another file. */
TEST_F(in, a_late_sync)
{
	struct offer *a = offer_new(self, 11, NULL), *b = offer_new(self, 12, NULL);

	self->hold_sync = true;
	say_offer(self, "mgr", a);
	serve(self, "mgr", a, UINT32_MAX);
	ASSERT_GE(self->sync_fd, 0);
	say_offer(self, "mgr", b);
	serve(self, "mgr", b, UINT32_MAX);
	ASSERT_EQ(self->checks, 0);
	self->sync_fd = -1; /* a's */
	bundlein_synced(self->in, 0);
	settle(self);
	ASSERT_EQ(self->checks, 0);
	ASSERT_GE(self->sync_fd, 0); /* now b's */
	self->hold_sync = false;
	settle(self);
	ASSERT_EQ(last(self)->result, ONLINE_RESULT_APPLIED);
	offer_free(a);
	offer_free(b);
}

/* --- crashes -----------------------------------------------------------------------------------
 */

TEST_F(in, a_broker_that_ends_goes_on_where_it_was)
{
	struct offer *o = offer_new(self, 11, NULL);
	unsigned rounds = harness_rounds(8);

	for (unsigned i = 0; i < rounds; i++) {
		say_offer(self, "mgr", o);
		serve(self, "mgr", o, 3);
		restart(self);
	}
	ASSERT_EQ(self->applied, 0);
	bring(self, o);
	ASSERT_EQ(o->sent, o->n_pieces);
	offer_free(o);
}

/* A manager that begins anew makes another bundle: all but serial and signature is the same. */
TEST_F(in, pieces_of_an_offer_that_was_cut_short_are_used)
{
	struct offer *a = offer_new(self, 11, NULL), *b;

	say_offer(self, "mgr", a);
	serve(self, "mgr", a, 20);
	restart(self);
	b = offer_new(self, 12, a);
	bring(self, b);
	ASSERT_LE(b->sent, b->n_pieces - 19);
	offer_free(a);
	offer_free(b);
}

/* A piece that the power took is asked for again. */
TEST_F(in, a_piece_that_was_lost_is_found_missing)
{
	struct offer *o = offer_new(self, 11, NULL);
	char path[128];
	FILE *f;

	say_offer(self, "mgr", o);
	serve(self, "mgr", o, 10);
	snprintf(path, sizeof(path), "%s/incoming/part", self->dir);
	f = fopen(path, "r+");
	ASSERT_TRUE(f != NULL);
	ASSERT_EQ(fseek(f, (long)o->at[4] + 3, SEEK_SET), 0);
	ASSERT_EQ(fwrite("lost", 1, 4, f), 4);
	ASSERT_EQ(fclose(f), 0);
	restart(self);
	bring(self, o);
	ASSERT_EQ(o->sent, o->n_pieces + 1);
	offer_free(o);
}

/* Whole, and not yet in its place; in its place, and not yet applied. */
TEST_F(in, an_end_at_the_last_moments)
{
	struct offer *o = offer_new(self, 11, NULL);

	self->hold_sync = true;
	say_offer(self, "mgr", o);
	serve(self, "mgr", o, UINT32_MAX);
	ASSERT_FALSE(is_there(self, "bundle"));
	restart(self);
	self->hold_sync = false;
	bring(self, o);
	ASSERT_EQ(o->sent, o->n_pieces);
	ASSERT_TRUE(is_there(self, "bundle"));
	/* The broker starts with the file of before and the serial of then: it takes the one that
	 * is in its place, and the offer made again is answered so. */
	restart(self);
	self->n_said = 0;
	say_offer(self, "mgr", o);
	settle(self);
	ASSERT_EQ(last(self)->result, ONLINE_RESULT_IN_FORCE);
	offer_free(o);
}
