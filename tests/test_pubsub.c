// SPDX-License-Identifier: MIT
/*
 * What ssdtf-pub and ssdtf-sub are made of beside libssdtf: the files of a party's directory, the
 * outbox, the input, the printing, and the hand-over of a connection to libmosquitto. The programs
 * whole, against a broker, are tests/e2e's.
 */
#include <errno.h>
#include <fcntl.h>
#include <mosquitto.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "tests/harness.h"
#include "userspace/base/file.h"
#include "userspace/base/log.h"
#include "userspace/bundle/statement.h"
#include "userspace/client/batch.h"
#include "userspace/client/dial.h"
#include "userspace/client/input.h"
#include "userspace/client/outbox.h"
#include "userspace/client/party.h"
#include "userspace/client/print.h"

/* --- a directory ------------------------------------------------------------------------------ */

FIXTURE(dir)
{
	char path[64];
	int fd;
	struct p256_private *manager;
	struct secret32 signing, encryption;
	struct p256_point signing_point;
	struct party party;
};

static void put_file(struct fixture_dir *f, const char *name, struct bytes v)
{
	ASSERT_EQ(file_write(f->fd, name, v, 0600), 0);
}

/* With a scope, or none where it is NULL. */
static void put_bundle_with(struct fixture_dir *f, uint64_t serial,
			    const struct record_scope *scope)
{
	struct bundle_party b = { .party_id = bytes_str("rec-1"),
				  .signing = f->signing_point,
				  .broker = { .gateway_id = bytes_str("gw-1"),
					      .signing = f->signing_point } };
	struct statement s = { .kind = STATEMENT_BUNDLE, .serial = serial };
	uint8_t record[256], body[512], whole[1024], digest[32], sig[64];
	struct bytes_writer r = bytes_writer_of(record, sizeof(record));
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	bundle_party_write_head(&b, &w);
	bytes_write_u16(&w, scope ? 1 : 0);
	if (scope) {
		record_scope_encode(scope, &r);
		bundle_party_write_record(bytes_of(record, r.used), &w);
	}
	bytes_write_u16(&w, 0); /* no grants, */
	bytes_write_u16(&w, 0); /* no origins */
	s.body = bytes_of(body, w.used);
	w = bytes_writer_of(whole, sizeof(whole));
	statement_write_unsigned(&s, &w);
	statement_digest(s.kind, bytes_of(whole, w.used), digest);
	ASSERT_EQ(p256_sign_digest(f->manager, digest, sig), 0);
	bytes_write(&w, bytes_of(sig, sizeof(sig)));
	ASSERT_FALSE(w.bad);
	put_file(f, "bundle", bytes_of(whole, w.used));
}

static void put_bundle(struct fixture_dir *f, uint64_t serial)
{
	put_bundle_with(f, serial, NULL);
}

FIXTURE_SETUP(dir)
{
	struct secret32 manager;
	struct p256_point point;
	uint8_t pem[1024];
	int n;

	log_init("test_pubsub", LOG_LEVEL_ERROR);
	snprintf(self->path, sizeof(self->path), "/tmp/ssdtf-test-XXXXXX");
	ASSERT_TRUE(mkdtemp(self->path) != NULL);
	self->fd = open(self->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ASSERT_GE(self->fd, 0);
	ASSERT_EQ(p256_scalar_random(&manager), 0);
	ASSERT_EQ(p256_private_new(&manager, &self->manager), 0);
	p256_private_point(self->manager, &point);
	n = p256_public_to_pem(&point, pem, sizeof(pem));
	ASSERT_GT(n, 0);
	put_file(self, "manager.pub", bytes_of(pem, (size_t)n));
	ASSERT_EQ(p256_scalar_random(&self->signing), 0);
	ASSERT_EQ(p256_mul_base(&self->signing, &self->signing_point), 0);
	n = p256_private_to_pem(&self->signing, pem, sizeof(pem));
	ASSERT_GT(n, 0);
	put_file(self, "signing.pem", bytes_of(pem, (size_t)n));
	put_file(self, "encryption.pem", bytes_of(pem, (size_t)n));
	put_bundle(self, 10);
}

FIXTURE_TEARDOWN(dir)
{
	static const char *const names[] = {
		"bundle", "manager.pub", "signing.pem", "encryption.pem",    "counter",
		"serial", "windows",	 "statements",	"encryption.old.pem"
	};

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		(void)unlinkat(self->fd, names[i], 0); /* not every test makes every file */
	p256_private_free(self->manager);
	close(self->fd);
	/* Which fails where anything else was left behind. */
	ASSERT_EQ(rmdir(self->path), 0);
}

static int no_publish(void *ctx, const char *topic, const uint8_t *p, size_t n, uint8_t qos,
		      bool retain)
{
	return -ENOTCONN;
}

static void no_disconnect(void *ctx)
{
}

static int counter_load(void *ctx, uint64_t *ret_mark)
{
	return party_counter_load(ctx, ret_mark);
}

static int counter_reserve(void *ctx, uint64_t mark)
{
	return party_counter_reserve(ctx, mark);
}

static int statement_store(void *ctx, struct bytes statement, const struct ssdtf_update *what)
{
	return party_statement_store(ctx, statement);
}

static const struct ssdtf_ops ops = {
	.publish = no_publish,
	.disconnect = no_disconnect,
	.counter_load = counter_load,
	.counter_reserve = counter_reserve,
	.statement_store = statement_store,
};

#define ORIGINS 3

static void open_as(const struct fixture_dir *f, struct party *p)
{
	struct party_config config = {
		.dir = f->path, .reads = true, .n_origins = ORIGINS, .ops = &ops, .ctx = p
	};

	party_open(p, &config, (struct ssdtf_time){ .unix_ms = 1, .mono_ms = 1 });
}

static void open_party(struct fixture_dir *f)
{
	open_as(f, &f->party);
}

/* party_open() ends the process where it does not like the directory: with which code? */
static int code_of_open(struct fixture_dir *f)
{
	static struct party another;
	int status;
	pid_t pid = fork();

	ASSERT_GE(pid, 0);
	if (!pid) {
		int null = open("/dev/null", O_WRONLY);

		dup2(null, STDERR_FILENO);
		open_as(f, &another);
		_exit(0);
	}
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	ASSERT_TRUE(WIFEXITED(status));
	return WEXITSTATUS(status);
}

TEST_F(dir, party_opens_and_locks)
{
	EXPECT_EQ(code_of_open(self), 0);
	open_party(self);
	ASSERT_STREQ(self->party.id, "rec-1");
	EXPECT_EQ(self->party.client.n_contexts, ORIGINS); /* one for each origin */
	EXPECT_TRUE(self->party.client.contexts == self->party.contexts);
	EXPECT_EQ(code_of_open(self), EX_TEMPFAIL);
	party_close(&self->party);
	EXPECT_EQ(code_of_open(self), 0);
}

TEST_F(dir, older_bundle_is_refused)
{
	EXPECT_EQ(code_of_open(self), 0);
	put_bundle(self, 9);
	EXPECT_EQ(code_of_open(self), EX_DATAERR);
	put_bundle(self, 11);
	EXPECT_EQ(code_of_open(self), 0);
	put_bundle(self, 10);
	EXPECT_EQ(code_of_open(self), EX_DATAERR);
}

TEST_F(dir, damaged_files)
{
	static const struct {
		const char *name, *text;
		int code;
	} rows[] = {
		{ "counter", "", EX_DATAERR },
		{ "counter", "12", EX_DATAERR },
		{ "counter", "-1\n", EX_DATAERR },
		{ "counter", "1\n2\n", EX_DATAERR },
		{ "counter", "18446744073709551616\n", EX_DATAERR },
		{ "counter", "000000000000000000000000000000000000001\n", EX_DATAERR },
		{ "counter", "77\n", 0 },
		{ "serial", "x\n", EX_DATAERR },
		{ "serial", "10\n", 0 },
		{ "windows", "", EX_DATAERR },
		{ "windows", "SSDTF windows 1\n", EX_DATAERR },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		put_file(self, rows[i].name, bytes_str(rows[i].text));
		EXPECT_EQ(code_of_open(self), rows[i].code);
		ASSERT_EQ(unlinkat(self->fd, rows[i].name, 0), 0);
	}
	put_file(self, "signing.pem", bytes_str("-----BEGIN NOTHING-----\n"));
	EXPECT_EQ(code_of_open(self), EX_DATAERR);
	ASSERT_EQ(unlinkat(self->fd, "signing.pem", 0), 0);
	EXPECT_EQ(code_of_open(self), EX_NOINPUT);
}

/* --- statements ------------------------------------------------------------------------------- */

/* A new key of an origin's; the same one has the same length each time. */
static struct bytes statement(const struct fixture_dir *f, const char *origin, uint64_t serial,
			      uint8_t out[512])
{
	const struct record_party r = { .id = bytes_str(origin),
					.roles = RECORD_ROLE_DEVICE,
					.signing = f->signing_point };
	struct statement s = { .kind = STATEMENT_PARTY, .serial = serial };
	uint8_t body[256], digest[P256_DIGEST_BYTES], sig[P256_SIG_BYTES];
	struct bytes_writer w = bytes_writer_of(body, sizeof(body));

	record_party_encode(&r, &w);
	s.body = bytes_of(body, w.used);
	w = bytes_writer_of(out, 512);
	statement_write_unsigned(&s, &w);
	statement_digest(s.kind, bytes_of(out, w.used), digest);
	ASSERT_EQ(p256_sign_digest(f->manager, digest, sig), 0);
	bytes_write(&w, bytes_of(sig, sizeof(sig)));
	ASSERT_FALSE(w.bad);
	return bytes_of(out, w.used);
}

/* What an opened party has, and how long its file is then. */
static uint64_t updated_to(struct fixture_dir *f, size_t *ret_file_n)
{
	uint64_t serial;
	uint8_t *p;

	open_party(f);
	serial = ssdtf_updated_to(&f->party.client);
	party_close(&f->party);
	ASSERT_EQ(file_read(f->fd, "statements", 1 << 20, &p, ret_file_n, NULL), 0);
	free(p);
	return serial;
}

TEST_F(dir, statements_are_kept)
{
	uint8_t bytes[512];
	struct bytes s;
	size_t n;

	open_party(self);
	EXPECT_EQ(ssdtf_updated_to(&self->party.client), 10);
	s = statement(self, "dev-1", 11, bytes);
	ASSERT_EQ(party_statement_store(&self->party, s), 0);
	ASSERT_EQ(party_statement_store(&self->party, statement(self, "dev-2", 12, bytes)), 0);
	party_close(&self->party);
	EXPECT_EQ(updated_to(self, &n), 12);
	EXPECT_EQ(n, 2 * s.n);
	/* Another of the first: at the next start the file has the newer alone. */
	open_party(self);
	ASSERT_EQ(party_statement_store(&self->party, statement(self, "dev-1", 13, bytes)), 0);
	party_close(&self->party);
	EXPECT_EQ(updated_to(self, &n), 13);
	EXPECT_EQ(n, 2 * s.n);
	/* A bundle that has what they say leaves none; one in between leaves the newer. */
	put_bundle(self, 12);
	EXPECT_EQ(updated_to(self, &n), 13);
	EXPECT_EQ(n, s.n);
	open_party(self);
	put_bundle(self, 13);
	ASSERT_EQ(party_reload(&self->party, (struct ssdtf_time){ .unix_ms = 1, .mono_ms = 1 }), 0);
	EXPECT_EQ(ssdtf_statements(&self->party.client).n, 0);
	party_close(&self->party);
	EXPECT_EQ(updated_to(self, &n), 13);
	EXPECT_EQ(n, 0);
}

/* A crash leaves the front of the last, or zeros behind it: the others hold, and the file is whole
 * again afterwards. */
TEST_F(dir, statements_with_a_torn_end)
{
	uint8_t file[1024], last[512], zeros[512] = { 0 };
	struct bytes_writer w;
	struct bytes s;
	size_t n, one;

	for (unsigned cut = 0; cut < 2; cut++) {
		s = statement(self, "dev-1", 11, file);
		one = s.n;
		s = statement(self, "dev-2", 12, last);
		for (size_t i = 1; i < s.n; i += i < 40 ? 3 : 31) {
			w = bytes_writer_of(file + one, sizeof(file) - one);
			bytes_write(&w, bytes_of(cut ? last : zeros, i));
			if (cut && i % 2)
				bytes_write(&w,
					    bytes_of(zeros, s.n - i)); /* as long as it was to be */
			put_file(self, "statements", bytes_of(file, one + w.used));
			ASSERT_EQ(updated_to(self, &n), 11);
			ASSERT_EQ(n, one);
		}
	}
	put_file(self, "statements", bytes_of(last, 40));
	EXPECT_EQ(updated_to(self, &n), 10);
	EXPECT_EQ(n, 0);
}

TEST_F(dir, statements_that_are_damaged)
{
	uint8_t file[1536], bytes[512];
	struct bytes_writer w = bytes_writer_of(file, sizeof(file));
	size_t one;

	bytes_write(&w, statement(self, "dev-1", 11, bytes));
	one = w.used;
	bytes_write(&w, statement(self, "dev-2", 12, bytes));
	bytes_write(&w, statement(self, "dev-3", 13, bytes));
	for (size_t at = 0; at < 2 * one; at += at % one < 32 ? 3 : 47) {
		uint8_t bent = at % one >= 28 && at % one < 32 ? 0x81 : 0x01;

		file[at] ^= bent;
		put_file(self, "statements", bytes_of(file, w.used));
		ASSERT_EQ(code_of_open(self), EX_DATAERR);
		file[at] ^= bent;
	}
	put_file(self, "statements", bytes_of(file, w.used));
	EXPECT_EQ(code_of_open(self), 0);
	/* Of another manager: none of them holds. */
	put_file(self, "statements", bytes_str("SSDTF windows 1\n"));
	EXPECT_EQ(code_of_open(self), EX_DATAERR);
}

/* --- keys and numbers ------------------------------------------------------------------------- */

TEST_F(dir, old_encryption_key)
{
	struct secret32 old;
	uint8_t pem[1024];
	int n;

	open_party(self);
	EXPECT_EQ(self->party.client.n_encryption, 1);
	party_close(&self->party);
	put_file(self, "encryption.old.pem", bytes_str("no key"));
	EXPECT_EQ(code_of_open(self), EX_DATAERR);
	ASSERT_EQ(p256_scalar_random(&old), 0);
	n = p256_private_to_pem(&old, pem, sizeof(pem));
	ASSERT_GT(n, 0);
	put_file(self, "encryption.old.pem", bytes_of(pem, (size_t)n));
	open_party(self);
	ASSERT_EQ(self->party.client.n_encryption, 2);
	EXPECT_EQ(memcmp(&self->party.client.encryption[1].scalar, &old, sizeof(old)), 0);
	party_close(&self->party);
}

TEST_F(dir, counter_mark)
{
	uint64_t mark = 5;

	open_party(self);
	ASSERT_EQ(party_counter_load(&self->party, &mark), 0);
	EXPECT_EQ(mark, 0);
	ASSERT_EQ(party_counter_reserve(&self->party, UINT64_MAX), 0);
	ASSERT_EQ(party_counter_load(&self->party, &mark), 0);
	EXPECT_TRUE(mark == UINT64_MAX);
	ASSERT_EQ(party_counter_reserve(&self->party, 1024), 0);
	ASSERT_EQ(party_counter_load(&self->party, &mark), 0);
	EXPECT_EQ(mark, 1024);
	party_close(&self->party);
}

static void set_origin(struct ssdtf_origin *o, const char *id, uint64_t used)
{
	o->id_n = (uint8_t)strlen(id);
	memcpy(o->id, id, o->id_n);
	o->used = used;
	o->window = (struct replay_window){ .highest = used * 10, .below = { used, ~used } };
}

TEST_F(dir, windows_round_trip)
{
	uint8_t *file;
	size_t n;

	open_party(self);
	set_origin(&self->party.origins[0], "late", 9);
	set_origin(&self->party.origins[2], "early", 4);
	ASSERT_EQ(party_windows_store(&self->party), 0);
	party_close(&self->party);

	open_party(self);
	EXPECT_EQ(memcmp(self->party.origins[0].id, "early", 5), 0);
	EXPECT_EQ(self->party.origins[0].window.highest, 40);
	EXPECT_EQ(memcmp(self->party.origins[1].id, "late", 4), 0);
	EXPECT_EQ(self->party.origins[1].window.below[0], 9);
	EXPECT_TRUE(self->party.origins[1].window.below[1] == ~9ull);
	ASSERT_LT(self->party.origins[0].used, self->party.origins[1].used);
	EXPECT_EQ(self->party.origins[2].id_n, 0);
	party_close(&self->party);

	/* One bit anywhere, one byte less: told, not taken. */
	ASSERT_EQ(file_read(self->fd, "windows", 4096, &file, &n, NULL), 0);
	for (size_t i = 0; i < n; i += 3) {
		file[i] ^= 1u << i % 8;
		put_file(self, "windows", bytes_of(file, n));
		EXPECT_EQ(code_of_open(self), EX_DATAERR);
		file[i] ^= 1u << i % 8;
	}
	put_file(self, "windows", bytes_of(file, n - 1));
	EXPECT_EQ(code_of_open(self), EX_DATAERR);
	put_file(self, "windows", bytes_of(file, n));
	EXPECT_EQ(code_of_open(self), 0);
	free(file);
}

TEST_F(dir, state_files)
{
	uint8_t *p;
	size_t n;

	EXPECT_EQ(file_read(self->fd, "serial", 100, &p, &n, NULL), -ENOENT);
	EXPECT_EQ(file_read(self->fd, ".", 100, &p, &n, NULL), -EISDIR);
	ASSERT_EQ(file_write(self->fd, "serial", bytes_str("0123456789"), 0600), 0);
	EXPECT_EQ(file_read(self->fd, "serial", 9, &p, &n, NULL), -EFBIG);
	ASSERT_EQ(file_write(self->fd, "serial", bytes_str("new"), 0600), 0);
	ASSERT_EQ(file_read(self->fd, "serial", 9, &p, &n, NULL), 0);
	ASSERT_EQ(n, 3);
	ASSERT_BYTES(p, "new", 3);
	free(p);
}

/* --- outbox ----------------------------------------------------------------------------------- */

/* What a publisher does to send the next one, with this counter and mid. */
static struct outbox_message *send_next(struct outbox *o, uint64_t counter)
{
	struct outbox_message *m = outbox_next(o);

	ASSERT_TRUE(m != NULL);
	if (!m->sealed) {
		m->sealed = malloc(1);
		m->sealed_n = 1;
		m->counter = counter;
		m->seals++;
	}
	m->mid = (int)counter;
	outbox_mark_sent(o, m);
	return m;
}

static void fill(struct outbox *o, unsigned n)
{
	for (uint8_t i = 0; i < n; i++)
		ASSERT_EQ(outbox_add(o, bytes_of(&i, 1)), 0);
}

TEST(outbox_keeps_order_over_reconnects)
{
	struct outbox o;

	outbox_init(&o);
	fill(&o, 6);
	for (unsigned i = 1; i <= 4; i++)
		send_next(&o, i);
	outbox_mark_done(&o, outbox_by_mid(&o, 2));
	EXPECT_TRUE(outbox_by_mid(&o, 2) == NULL);
	EXPECT_EQ(o.n_active, 5);
	outbox_all_unsent(&o);
	EXPECT_TRUE(outbox_by_mid(&o, 1) == NULL); /* of a connection that is gone */
	/* The same bytes again, in the order of before, then those that never were sent. */
	EXPECT_EQ(send_next(&o, 100)->counter, 1);
	EXPECT_EQ(send_next(&o, 101)->counter, 3);
	EXPECT_EQ(send_next(&o, 102)->counter, 4);
	EXPECT_EQ(send_next(&o, 5)->plain[0], 4);
	EXPECT_EQ(send_next(&o, 6)->plain[0], 5);
	EXPECT_TRUE(outbox_next(&o) == NULL);
	outbox_deinit(&o);
}

TEST(outbox_seals_anew_and_drops)
{
	struct outbox_message *m;
	struct outbox o;

	outbox_init(&o);
	fill(&o, 3);
	send_next(&o, 1);
	send_next(&o, 2);
	m = outbox_by_counter(&o, 1);
	ASSERT_TRUE(m != NULL);
	outbox_mark_done(&o, m); /* the acknowledgement came before the error */
	EXPECT_EQ(o.n_active, 2);
	EXPECT_TRUE(outbox_by_counter(&o, 1) == m);
	outbox_reseal(&o, m);
	EXPECT_EQ(o.n_active, 3);
	EXPECT_EQ(o.n_done, 0);
	EXPECT_TRUE(outbox_next(&o) == m);
	EXPECT_TRUE(m->sealed == NULL);
	EXPECT_EQ(send_next(&o, 7)->seals, 2);
	EXPECT_TRUE(outbox_by_counter(&o, 1) == NULL);
	outbox_drop(&o, outbox_by_counter(&o, 2));
	outbox_drop(&o, outbox_by_counter(&o, 7));
	EXPECT_EQ(o.n_active, 1);
	EXPECT_TRUE(outbox_by_counter(&o, 0) == NULL); /* what is not sealed has no counter */
	outbox_deinit(&o);
}

/* Held messages are not sent, survive a reconnect, and go first when they are sealed anew. */
TEST(outbox_holds)
{
	struct outbox_message *m;
	struct outbox o;

	outbox_init(&o);
	fill(&o, 4);
	for (unsigned i = 1; i <= 3; i++)
		send_next(&o, i);
	EXPECT_TRUE(outbox_held(&o) == NULL);
	outbox_hold(&o, outbox_by_counter(&o, 1), 50);
	m = outbox_by_counter(&o, 2);
	outbox_mark_done(&o, m); /* the acknowledgement came before the error */
	EXPECT_EQ(o.n_active, 3);
	outbox_hold(&o, m, 60);
	EXPECT_EQ(o.n_active, 4);
	EXPECT_EQ(o.n_done, 0);
	EXPECT_TRUE(outbox_by_mid(&o, 1) == NULL);
	EXPECT_EQ(outbox_held(&o)->counter, 1);
	EXPECT_EQ(outbox_held(&o)->held_ms, 50);
	outbox_all_unsent(&o);
	EXPECT_EQ(send_next(&o, 3)->counter, 3);
	outbox_reseal(&o, outbox_by_counter(&o, 2));
	outbox_reseal(&o, outbox_by_counter(&o, 1));
	EXPECT_TRUE(outbox_held(&o) == NULL);
	EXPECT_EQ(send_next(&o, 5)->plain[0], 0);
	EXPECT_EQ(send_next(&o, 6)->plain[0], 1);
	EXPECT_EQ(send_next(&o, 7)->plain[0], 3);
	outbox_hold(&o, outbox_by_counter(&o, 7), 70);
	outbox_drop(&o, outbox_held(&o));
	EXPECT_EQ(o.n_active, 3);
	outbox_deinit(&o);
}

TEST(outbox_names_what_is_not_sealed)
{
	struct outbox_message *m[4];
	struct outbox o;

	outbox_init(&o);
	EXPECT_EQ(outbox_unsealed(&o, m, 4), 0);
	fill(&o, 6);
	send_next(&o, 1);
	send_next(&o, 2);
	outbox_unsend(&o, outbox_by_mid(&o, 2)); /* waits again, and is sealed */
	ASSERT_EQ(outbox_unsealed(&o, m, 4), 4);
	for (unsigned i = 0; i < 4; i++)
		EXPECT_EQ(m[i]->plain[0], i + 2);
	EXPECT_EQ(outbox_unsealed(&o, m, 3), 3);
	outbox_reseal(&o, outbox_by_counter(&o, 1));
	ASSERT_EQ(outbox_unsealed(&o, m, 2), 2);
	EXPECT_EQ(m[0]->plain[0], 0);
	EXPECT_EQ(m[1]->plain[0], 2);
	outbox_deinit(&o);
}

TEST(outbox_is_bounded)
{
	struct outbox o;

	outbox_init(&o);
	for (unsigned round = 0; round < 3; round++) {
		fill(&o, OUTBOX_MAX);
		EXPECT_TRUE(outbox_full(&o));
		for (unsigned i = 0; i < OUTBOX_MAX; i++)
			outbox_mark_done(&o, send_next(&o, round * OUTBOX_MAX + i + 1));
		EXPECT_EQ(o.n_active, 0);
		EXPECT_EQ(o.n_done, OUTBOX_DONE_MAX);
	}
	EXPECT_TRUE(outbox_by_counter(&o, 3 * OUTBOX_MAX) != NULL);
	EXPECT_TRUE(outbox_by_counter(&o, 2 * OUTBOX_MAX) == NULL);
	outbox_deinit(&o);
}

/* --- batches ---------------------------------------------------------------------------------- */

/* The trailer of the next message that waits: kind, and its place in a batch of so many. It goes to
 * done. */
static void expect_sealed(struct outbox *o, unsigned kind, unsigned index, unsigned size)
{
	struct outbox_message *m = outbox_next(o);
	struct publish_trailer t;

	ASSERT_TRUE(m != NULL && m->sealed != NULL);
	EXPECT_EQ(m->seals, 1);
	ASSERT_EQ(publish_split(bytes_of(m->sealed, m->sealed_n), &t), 0);
	EXPECT_EQ(t.kind, kind);
	EXPECT_EQ(t.index, index);
	EXPECT_EQ(t.size, size);
	outbox_mark_sent(o, m);
	outbox_mark_done(o, m);
}

TEST_F(dir, what_waits_is_signed_together)
{
	struct record_scope scope = { .key_id = 1,
				      .epoch = 1,
				      .name = bytes_str("plant"),
				      .suite = HPKE_SUITE_AES_128_GCM,
				      .a = self->signing_point,
				      .n_filters = 1,
				      .filters = { bytes_str("plant/#") } };
	struct batch_options b = { .topic = "plant/a", .qos = 1, .max = BATCH_MAX };
	struct ssdtf_time now = { .unix_ms = 1, .mono_ms = 1 };
	struct ssdtf_client *c = &self->party.client;
	struct outbox o;

	put_bundle_with(self, 11, &scope);
	open_party(self);
	outbox_init(&o);
	ASSERT_EQ(batch_seal(&o, c, &b, now), 0); /* nothing */
	EXPECT_EQ(c->stats.signatures, 0);
	fill(&o, 1);
	ASSERT_EQ(batch_seal(&o, c, &b, now), 0);
	expect_sealed(&o, 1, 0, 0);
	fill(&o, 5);
	ASSERT_EQ(batch_seal(&o, c, &b, now), 0);
	ASSERT_EQ(batch_seal(&o, c, &b, now), 0); /* what is sealed stays as it is */
	EXPECT_EQ(c->stats.signatures, 2);
	for (unsigned i = 0; i < 5; i++)
		expect_sealed(&o, 2, i, 5);
	b.max = 2;
	fill(&o, 5);
	ASSERT_EQ(batch_seal(&o, c, &b, now), 0);
	for (unsigned i = 0; i < 4; i++)
		expect_sealed(&o, 2, i % 2, 2);
	expect_sealed(&o, 1, 0, 0);
	fill(&o, 3);
	b.topic = "elsewhere";
	EXPECT_EQ(batch_seal(&o, c, &b, now), -EACCES);
	EXPECT_TRUE(outbox_next(&o)->sealed == NULL);
	EXPECT_EQ(c->stats.sealed, 11);
	outbox_deinit(&o);
	party_close(&self->party);
}

/* --- input ------------------------------------------------------------------------------------ */

static void expect_line(struct input *in, const char *line)
{
	struct bytes got;

	ASSERT_EQ(input_next(in, 0, &got), 0);
	ASSERT_EQ(got.n, strlen(line));
	if (got.n)
		ASSERT_BYTES(got.p, line, got.n);
}

static void feed(int fd, struct input *in, const char *text)
{
	ASSERT_EQ(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	ASSERT_EQ(input_fill(in), 0);
}

TEST(input_lines_in_any_cut)
{
	static char longer[100001];
	struct bytes got;
	struct input in;
	int fds[2];

	ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
	ASSERT_GT(fcntl(fds[1], F_SETPIPE_SZ, 1 << 18), 0);
	input_init_fd(&in, fds[0], true, 1, 0);
	EXPECT_EQ(input_next(&in, 0, &got), -EAGAIN);
	feed(fds[1], &in, "one");
	EXPECT_EQ(input_next(&in, 0, &got), -EAGAIN);
	feed(fds[1], &in, " more\n\ntwo\nth");
	expect_line(&in, "one more");
	expect_line(&in, "");
	expect_line(&in, "two");
	EXPECT_EQ(input_next(&in, 0, &got), -EAGAIN);
	feed(fds[1], &in, "ree\n");
	expect_line(&in, "three");
	memset(longer, 'x', sizeof(longer) - 1);
	feed(fds[1], &in, longer);
	EXPECT_EQ(input_next(&in, 0, &got), -EAGAIN);
	feed(fds[1], &in, "\nend");
	expect_line(&in, longer);
	close(fds[1]);
	EXPECT_EQ(input_fd(&in), fds[0]);
	ASSERT_EQ(input_fill(&in), 0);
	EXPECT_EQ(input_fd(&in), -1);
	expect_line(&in, "end"); /* which has no newline */
	EXPECT_EQ(input_next(&in, 0, &got), -ENODATA);
	EXPECT_TRUE(input_next_ms(&in) == UINT64_MAX);
	input_deinit(&in);
}

TEST(input_repeats)
{
	struct bytes got;
	struct input in;

	input_init_message(&in, bytes_str("again"), 3, 500);
	EXPECT_EQ(input_fd(&in), -1);
	ASSERT_EQ(input_next(&in, 1000, &got), 0);
	ASSERT_EQ(got.n, 5);
	EXPECT_EQ(input_next(&in, 1499, &got), -EAGAIN);
	EXPECT_EQ(input_next_ms(&in), 1500);
	EXPECT_EQ(input_next(&in, 1500, &got), 0);
	EXPECT_EQ(input_next(&in, 9000, &got), 0);
	EXPECT_EQ(input_next(&in, 99000, &got), -ENODATA);
	EXPECT_TRUE(input_next_ms(&in) == UINT64_MAX);
	input_deinit(&in);
}

TEST(input_whole)
{
	struct bytes got;
	struct input in;
	int fds[2];

	ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
	input_init_fd(&in, fds[0], false, 1, 0);
	feed(fds[1], &in, "a\nb");
	EXPECT_EQ(input_next(&in, 0, &got), -EAGAIN); /* more may come */
	close(fds[1]);
	ASSERT_EQ(input_fill(&in), 0);
	expect_line(&in, "a\nb");
	EXPECT_EQ(input_next(&in, 0, &got), -ENODATA);
	input_deinit(&in);
}

/* --- printing --------------------------------------------------------------------------------- */

static void expect_print(const struct print_options *o, struct bytes plain, const char *want)
{
	static const uint8_t id8[8] = { 0xab }, x[32] = { 0xcd };
	static uint8_t wire[200];
	struct ssdtf_packet packet = { .topic = bytes_str("a/\"b"),
				       .payload = bytes_of(wire, sizeof(wire)),
				       .qos = 1 };
	struct ssdtf_event e = { .kind = SSDTF_MESSAGE, .counter = 7, .plain = plain };
	size_t n;
	char *text;
	FILE *to = open_memstream(&text, &n);

	ASSERT_TRUE(to != NULL);
	e.origin = bytes_str("dev");
	e.envelope = (struct envelope){ .key_id = 3,
					.level = 1,
					.grant = bytes_of(id8, sizeof(id8)),
					.x = bytes_of(x, sizeof(x)) };
	ASSERT_EQ(print_message(o, &packet, &e, to), 0);
	fclose(to);
	ASSERT_STREQ(text, want);
	free(text);
}

static void expect_json(struct bytes plain, const char *payload)
{
	static const struct print_options o = { .json = true };
	char want[512];

	snprintf(want, sizeof(want),
		 "{\"topic\":\"a/\\\"b\",\"origin\":\"dev\",\"counter\":7,\"time_ms\":0,"
		 "\"qos\":1,\"retain\":false,\"key_id\":3,\"level\":1,"
		 "\"grant\":\"ab00000000000000\",\"x\":\"cd%062d\","
		 "\"id_replaced\":false,\"proof\":\"absent\",%s}\n",
		 0, payload);
	expect_print(&o, plain, want);
}

TEST(printing_for_people)
{
	struct print_options o = { .newline = true };
	char clean[8];

	expect_print(&o, bytes_str("21.5"), "21.5\n");
	o.topic = true;
	expect_print(&o, bytes_str("21.5"), "a/\"b 21.5\n");
	o = (struct print_options){ .meta = true };
	expect_print(&o, bytes_str("x"),
		     "origin=dev counter=7 time_ms=0 key_id=3 level=1 grant=ab00000000000000 "
		     "x=cd00000000000000.. proof=absent qos=1 retain=0\nx");
	ASSERT_STREQ(print_clean(bytes_str("a\x1b[2Jbcdefgh"), clean, sizeof(clean)), "a?[2Jbc");
}

TEST(printing_json)
{
	expect_json(bytes_str("21 \xc2\xb0\"C\"\n\\"),
		    "\"payload\":\"21 \xc2\xb0\\\"C\\\"\\u000a\\\\\"");
	expect_json(bytes_of("\x00\xff", 2), "\"payload_hex\":\"00ff\"");
	expect_json(bytes_str("\xc2"), "\"payload_hex\":\"c2\"");
	expect_json(bytes_str(""), "\"payload\":\"\"");
}

/* --- dialling --------------------------------------------------------------------------------- */

#define WILL_BYTES 65000

struct dialled {
	bool connected;
	int code;
};

static void on_connect(struct mosquitto *m, void *ctx, int code)
{
	struct dialled *d = ctx;

	d->connected = true;
	d->code = code;
}

static int listen_on_loopback(int *port)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(bind(fd, (const struct sockaddr *)&at, sizeof(at)), 0);
	ASSERT_EQ(listen(fd, 4), 0);
	ASSERT_EQ(getsockname(fd, (struct sockaddr *)&at, &n), 0);
	*port = ntohs(at.sin_port);
	return fd;
}

/* The broker's end, a process: takes a CONNECT of n bytes that ends in the token, sends CONNACK 0.
 */
static pid_t serve_connect(int listener, size_t n, struct bytes token)
{
	static const uint8_t connack[] = { 0x20, 2, 0, 0 };
	static uint8_t packet[2 * WILL_BYTES];
	size_t used = 0;
	pid_t pid = fork();
	int fd;

	if (pid)
		return pid;
	fd = accept(listener, NULL, NULL);
	while (used < n) {
		ssize_t got = read(fd, packet + used, sizeof(packet) - used);

		if (got <= 0)
			_exit(1);
		used += (size_t)got;
	}
	if (used != n || packet[0] != 0x10 || memcmp(packet + n - token.n, token.p, token.n))
		_exit(2);
	if (memcmp(packet + n - token.n - 2, "\0\x0d", 2))
		_exit(3);
	if (write(fd, connack, sizeof(connack)) != sizeof(connack))
		_exit(4);
	/* Until the client goes. */
	while (read(fd, packet, sizeof(packet)) > 0)
		;
	_exit(0);
}

static void dial_once(bool will, struct bytes token)
{
	static uint8_t payload[WILL_BYTES];
	size_t n = 2 + 10 + 2 + 3 + 2 + 4 + 2 + token.n;
	struct dialled d = { .code = -1 };
	struct mosquitto *m = mosquitto_new("dev", true, &d);
	int port, listener = listen_on_loopback(&port), fd, status;
	const char *why;
	pid_t pid;

	if (will)
		n += 2 + 2 + 1 + 2 + WILL_BYTES; /* Remaining Length takes two bytes more */
	pid = serve_connect(listener, n, token);
	ASSERT_GT(pid, 0);
	mosquitto_connect_callback_set(m, on_connect);
	ASSERT_EQ(mosquitto_username_pw_set(m, "user", DIAL_PLACEHOLDER), MOSQ_ERR_SUCCESS);
	if (will)
		ASSERT_EQ(mosquitto_will_set(m, "w", WILL_BYTES, payload, 0, false), 0);
	ASSERT_EQ(dial_tcp("127.0.0.1", port, 1000, &fd, &why), 0);
	ASSERT_EQ(dial_mosquitto(m, fd, 60, token), 0);
	for (unsigned i = 0; i < 100 && !d.connected; i++) {
		struct pollfd p = { .fd = mosquitto_socket(m), .events = POLLIN };

		ASSERT_GE(poll(&p, 1, 100), 0);
		ASSERT_EQ(mosquitto_loop_read(m, 1), MOSQ_ERR_SUCCESS);
	}
	EXPECT_EQ(d.code, 0);
	mosquitto_disconnect(m);
	mosquitto_destroy(m);
	close(listener);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
}

/* A token is bytes, not text: zeros in the slot (no clock), zeros everywhere, none at all. */
TEST(dial_carries_any_token)
{
	static const uint8_t no_clock[13] = { 1, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9 };
	static const uint8_t zeros[13] = { 0 };
	static const uint8_t ones[13] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
					  0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	char tmp[] = "/tmp/ssdtf-test-XXXXXX";

	ASSERT_TRUE(mkdtemp(tmp) != NULL);
	ASSERT_EQ(setenv("TMPDIR", tmp, 1), 0);
	mosquitto_lib_init();
	dial_once(false, bytes_of(no_clock, sizeof(no_clock)));
	dial_once(false, bytes_of(zeros, sizeof(zeros)));
	dial_once(false, bytes_of(ones, sizeof(ones)));
	dial_once(true, bytes_of(no_clock, sizeof(no_clock)));
	mosquitto_lib_cleanup();
	ASSERT_EQ(rmdir(tmp), 0); /* nothing was left in it */
}

TEST(dial_fails_with_a_reason)
{
	const char *why = NULL;
	int port, fd, listener = listen_on_loopback(&port);

	close(listener);
	EXPECT_EQ(dial_tcp("127.0.0.1", port, 1000, &fd, &why), -ECONNREFUSED);
	EXPECT_TRUE(why != NULL);
	why = NULL;
	EXPECT_EQ(dial_tcp("no such host", 1883, 1000, &fd, &why), -EHOSTUNREACH);
	EXPECT_TRUE(why != NULL);
}

HARNESS_MAIN
