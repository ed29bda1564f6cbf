// SPDX-License-Identifier: MIT
/*
 * The broker's control socket without the broker: what requests are taken and how they are answered
 * (each answer read back by the reader that ssdtfctl uses), hostile requests and cut answers; then
 * the socket itself on a real ring: locks, what is left over, peers that do not behave.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/harness.h"
#include "userspace/base/words.h"
#include "userspace/core/admit.h"
#include "userspace/core/answer.h"
#include "userspace/core/operators.h"
#include "userspace/core/ring.h"
#include "userspace/core/source.h"

#define FAKE_MAX 5000

/* --- what is asked ---------------------------------------------------------------------------- */

struct fake {
	struct admit_status status;
	unsigned n;
	struct answer_row rows[FAKE_MAX];
	int ban_error;
	unsigned asked, bans, unbans;
	struct admission_source source;
	uint64_t ms;
	unsigned slow_ms; /* to answer */
};

static void fake_status(void *ctx, struct admit_status *ret_s)
{
	struct fake *f = ctx;
	const struct timespec slow = { .tv_nsec = f->slow_ms * 1000000l };

	f->asked++;
	nanosleep(&slow, NULL);
	*ret_s = f->status;
}

static int fake_ban(void *ctx, const struct admission_source *source, uint64_t ms)
{
	struct fake *f = ctx;

	f->bans++;
	f->source = *source;
	f->ms = ms;
	return f->ban_error;
}

static bool fake_unban(void *ctx, const struct admission_source *source)
{
	struct fake *f = ctx;
	bool was = !memcmp(&f->source, source, sizeof(*source));

	f->unbans++;
	memset(&f->source, 0, sizeof(f->source));
	return was;
}

static void fake_each_ban(void *ctx, answer_ban_fn *each, void *each_ctx)
{
	struct fake *f = ctx;

	for (unsigned i = 0; i < f->n; i++)
		each(each_ctx, &f->rows[i].source, f->rows[i].n);
}

static void fake_each_rejected(void *ctx, answer_rejected_fn *each, void *each_ctx)
{
	struct fake *f = ctx;

	for (unsigned i = 0; i < f->n; i++)
		each(each_ctx, &f->rows[i].source, f->rows[i].n,
		     (enum admission_verdict)f->rows[i].last);
}

static const struct answer_ops fake_ops = {
	.status = fake_status,
	.ban = fake_ban,
	.unban = fake_unban,
	.each_ban = fake_each_ban,
	.each_rejected = fake_each_rejected,
};

static struct admission_source source_of(const char *text)
{
	struct admission_source s;

	ASSERT_EQ(source_parse(bytes_str(text), &s), 0);
	return s;
}

/* The text of the answer, terminated. */
static const char *ask(struct fake *f, struct bytes request)
{
	static struct answer a;
	static char text[ANSWER_BYTES_MAX + 1];
	unsigned before = f->bans + f->unbans;

	memset(&a, 0x5a, sizeof(a));
	answer_request(&fake_ops, f, request, &a);
	ASSERT_GT(a.n, 0);
	ASSERT_LE(a.n, sizeof(a.text));
	memcpy(text, a.text, a.n);
	text[a.n] = '\0';
	ASSERT_EQ(strlen(text), a.n);
	ASSERT_EQ(text[a.n - 1], '\n');
	ASSERT_EQ(a.changed, !strcmp(text, "ok\n") && f->bans + f->unbans > before);
	return text;
}

static struct fake *fake_new(void)
{
	static struct fake f;

	memset(&f, 0, sizeof(f));
	f.status.why = "";
	return &f;
}

/* --- words and addresses ---------------------------------------------------------------------- */

TEST(words_are_views_of_lines)
{
	struct bytes text = bytes_str("one two\n\nthree  four"), line = words_line(&text);

	ASSERT_TRUE(words_is(words_next(&line), "one"));
	ASSERT_TRUE(words_is(line, "two"));
	ASSERT_TRUE(words_is(words_next(&line), "two"));
	ASSERT_EQ(words_next(&line).n, 0);
	line = words_line(&text);
	ASSERT_EQ(line.n, 0);
	line = words_line(&text);
	ASSERT_EQ(text.n, 0);
	ASSERT_TRUE(words_is(words_next(&line), "three"));
	ASSERT_EQ(words_next(&line).n, 0); /* between two blanks */
	ASSERT_TRUE(words_is(words_next(&line), "four"));
	ASSERT_EQ(words_line(&text).n, 0);
}

TEST(words_number_takes_digits_up_to_its_limit)
{
	static const char *const bad[] = { "", "-1", "+1", "1 ", "0x1", "1.0", "12a", "\xb2" };
	uint64_t n = 99;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		ASSERT_EQ(words_number(bytes_str(bad[i]), UINT64_MAX, &n), -EINVAL);
	ASSERT_EQ(words_number(bytes_str("18446744073709551616"), UINT64_MAX, &n), -ERANGE);
	ASSERT_EQ(words_number(bytes_str("99999999999999999999999"), UINT64_MAX, &n), -ERANGE);
	ASSERT_EQ(words_number(bytes_str("7"), 5, &n), -ERANGE);
	ASSERT_EQ(words_number(bytes_str("16"), 15, &n), -ERANGE);
	ASSERT_EQ(words_number(bytes_str("1"), 0, &n), -ERANGE);
	ASSERT_EQ(n, 99);
	ASSERT_EQ(words_number(bytes_str("18446744073709551615"), UINT64_MAX, &n), 0);
	ASSERT_TRUE(n == UINT64_MAX);
	ASSERT_EQ(words_number(bytes_str("0015"), 15, &n), 0);
	ASSERT_EQ(n, 15);
	ASSERT_EQ(words_number(bytes_str("0"), 0, &n), 0);
}

TEST(words_copy_makes_printable_and_ends)
{
	char out[5];

	ASSERT_STREQ(words_copy(bytes_of("a\n\0z", 4), out, sizeof(out)), "a??z");
	ASSERT_STREQ(words_copy(bytes_str("abcdef"), out, sizeof(out)), "abcd");
	ASSERT_STREQ(words_copy(bytes_of(NULL, 0), out, sizeof(out)), "");
}

TEST(source_text_and_parse_are_inverse)
{
	static const struct {
		const char *in, *out;
	} rows[] = {
		{ "192.0.2.7", "192.0.2.7" },
		{ "0.0.0.0", "0.0.0.0" },
		{ "255.255.255.255", "255.255.255.255" },
		{ "::ffff:192.0.2.7", "192.0.2.7" },
		{ "2001:db8:1:2::/64", "2001:db8:1:2::/64" },
		{ "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64" },
		{ "2001:db8:1:2:3:4:5:6/64", "2001:db8:1:2::/64" },
		{ "2001:db8::1", "2001:db8::/64" },
		{ "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff::/64" },
		{ "::1", "::1" },
		{ "fe80::1:2:3:4", "fe80::1:2:3:4" },
		{ "febf:1:2:3:1111:2222:3333:4444", "febf:1:2:3:1111:2222:3333:4444" },
		{ "64:ff9b::192.0.2.7", "64:ff9b::c000:207" },
		{ "fec0::1", "fec0::/64" },
		{ "2001:db8:1:2:3:4:192.0.2.7", "2001:db8:1:2::/64" },
	};
	char text[SOURCE_TEXT_BYTES_MAX];

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct admission_source s = source_of(rows[i].in), again;

		ASSERT_STREQ(source_text(&s, text), rows[i].out);
		again = source_of(text);
		ASSERT_BYTES(&again, &s, sizeof(s));
	}
}

TEST(source_parse_refuses_what_is_no_address)
{
	/* clang-format off */
	static const char *const bad[] = {
		"", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.4/64", "1.2.3.4 ", " 1.2.3.4",
		"1.2.3.4/32", "/64", "::/48", "::/", "::/644", "2001:db8:::1", "localhost",
		"::ffff:1.2.3.4/64", "fe80::1/64", "::1/64", "fe80::1%lo", "1.2.3.4\n", "0x1.2.3.4",
		"1111:2222:3333:4444:5555:6666:7777:8888:9999",
		"1111:2222:3333:4444:5555:6666:7777:8888 and more text than any address",
	};
	/* clang-format on */
	struct admission_source s;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		ASSERT_EQ(source_parse(bytes_str(bad[i]), &s), -EINVAL);
	ASSERT_EQ(source_parse(bytes_of("1.2.3.4\0x", 9), &s), -EINVAL);
	ASSERT_EQ(source_parse(bytes_of("1.2.3.4\0", 8), &s), -EINVAL);
}

/* --- answers ---------------------------------------------------------------------------------- */

TEST(status_is_read_as_it_was_written)
{
	struct fake *f = fake_new();
	char error[ANSWER_ERROR_BYTES];
	struct answer_status s;
	struct bytes lines;
	const char *text;

	f->status = (struct admit_status){ .mode = CONFIG_ADMISSION_AUTO,
					   .kernel = false,
					   .enforcing = true,
					   .why = "/sys/fs/bpf/ssdtf: No such\nfile",
					   .devices = 12,
					   .bans = 3,
					   .pressure_per_second = 4567 };
	for (unsigned i = 0; i < ADMISSION_COUNTERS; i++) {
		f->status.filter[i] = UINT64_MAX - i;
		f->status.broker[i] = i;
	}
	text = ask(f, bytes_str("admission"));
	ASSERT_EQ(answer_open(bytes_str(text), &lines, error), 0);
	ASSERT_EQ(answer_read_status(lines, &s), 0);
	ASSERT_STREQ(s.mode, "auto");
	ASSERT_FALSE(s.kernel);
	ASSERT_TRUE(s.enforcing);
	ASSERT_STREQ(s.why, "/sys/fs/bpf/ssdtf: No such?file");
	ASSERT_EQ(s.devices, 12);
	ASSERT_EQ(s.bans, 3);
	ASSERT_EQ(s.pressure_per_second, 4567);
	ASSERT_BYTES(s.filter, f->status.filter, sizeof(s.filter));
	ASSERT_BYTES(s.broker, f->status.broker, sizeof(s.broker));
	ASSERT_TRUE(strstr(text, "\nfilter.syn 18446744073709551615\n"));
	ASSERT_TRUE(strstr(text, "\nbroker.dropped "));
	f->status.why = "";
	f->status.kernel = true;
	text = ask(f, bytes_str("admission\n"));
	ASSERT_FALSE(strstr(text, "why"));
	ASSERT_EQ(answer_open(bytes_str(text), &lines, error), 0);
	ASSERT_EQ(answer_read_status(lines, &s), 0);
	ASSERT_TRUE(s.kernel);
	ASSERT_STREQ(s.why, "");
}

TEST(each_counter_has_a_name_of_its_own)
{
	for (unsigned i = 0; i < ADMISSION_COUNTERS; i++) {
		ASSERT_TRUE(answer_verdict_name(i)[0]);
		for (unsigned k = 0; k < i; k++)
			ASSERT_NE(strcmp(answer_verdict_name(i), answer_verdict_name(k)), 0);
	}
	ASSERT_STREQ(answer_verdict_name(ADMISSION_BAD_TAG), "bad_tag");
	ASSERT_STREQ(answer_verdict_name(ADMISSION_TOLD), "told");
	ASSERT_STREQ(answer_verdict_name(ADMISSION_DROPPED), "dropped");
	ASSERT_STREQ(answer_verdict_name(ADMISSION_COUNTERS), "?");
}

TEST(lists_are_sorted_and_seconds_are_rounded_up)
{
	struct fake *f = fake_new();
	const char *text;

	ASSERT_STREQ(ask(f, bytes_str("bans")), "ok\n");
	ASSERT_STREQ(ask(f, bytes_str("sources")), "ok\n");
	f->n = 3;
	f->rows[0] = (struct answer_row){ source_of("192.0.2.1"), 1, ADMISSION_BARE };
	f->rows[1] = (struct answer_row){ source_of("2001:db8::1"), 60001, ADMISSION_BAD_TAG };
	f->rows[2] = (struct answer_row){ source_of("192.0.2.0"), 1000, ADMISSION_RATE };
	text = ask(f, bytes_str("bans"));
	ASSERT_STREQ(text, "ok\nban 2001:db8::/64 61\nban 192.0.2.0 1\nban 192.0.2.1 1\n");
	text = ask(f, bytes_str("sources"));
	ASSERT_STREQ(text, "ok\nsource 2001:db8::/64 60001 bad_tag\nsource 192.0.2.0 1000 rate\n"
			   "source 192.0.2.1 1 bare\n");
}

/* The largest of many, each as long as it can be, fit and are the right ones. */
static void check_top(struct fake *f, const char *request, const char *key, unsigned max,
		      unsigned unit)
{
	static struct answer_list l;
	char error[ANSWER_ERROR_BYTES];
	struct bytes lines;
	const char *text = ask(f, bytes_str(request));

	ASSERT_EQ(answer_open(bytes_str(text), &lines, error), 0);
	ASSERT_EQ(answer_read_list(lines, key, &l), 0);
	ASSERT_EQ(l.n, max);
	ASSERT_EQ(l.more, FAKE_MAX - max);
	for (unsigned i = 0; i < max; i++) {
		uint64_t n = UINT64_MAX / unit * unit - (uint64_t)i * unit;

		ASSERT_TRUE(l.rows[i].n == n / unit);
		for (unsigned k = 0; k < FAKE_MAX; k++)
			if (f->rows[k].n == n)
				ASSERT_BYTES(&l.rows[i].source, &f->rows[k].source, 16);
	}
}

TEST(long_lists_are_cut_to_the_largest)
{
	struct fake *f = fake_new();

	for (unsigned unit = 1; unit <= 1000; unit *= 1000) {
		f->n = FAKE_MAX;
		for (unsigned i = 0; i < FAKE_MAX; i++) {
			struct answer_row *row = &f->rows[i];

			memset(row, 0, sizeof(*row));
			memset(row->source.address, 0xff, 6);
			row->source.address[6] = (uint8_t)(0x10 + (i >> 8));
			row->source.address[7] = (uint8_t)i;
			row->n = UINT64_MAX / unit * unit - (uint64_t)i * unit;
			row->last = ADMISSION_NOT_CONNECT;
		}
		for (unsigned i = FAKE_MAX - 1; i; i--) { /* in any order */
			unsigned k = (unsigned)(harness_random() % (i + 1));
			struct answer_row keep = f->rows[i];

			f->rows[i] = f->rows[k];
			f->rows[k] = keep;
		}
		if (unit == 1)
			check_top(f, "sources", "source", ANSWER_SOURCES_MAX, unit);
		else
			check_top(f, "bans", "ban", ANSWER_BANS_MAX, unit);
	}
}

TEST(ban_and_unban_do_what_they_say)
{
	struct fake *f = fake_new();
	struct admission_source v4 = source_of("192.0.2.7"), v6 = source_of("2001:db8:1:2::/64");

	ASSERT_STREQ(ask(f, bytes_str("ban 192.0.2.7 60")), "ok\n");
	ASSERT_EQ(f->bans, 1);
	ASSERT_EQ(f->ms, 60000);
	ASSERT_BYTES(&f->source, &v4, sizeof(v4));
	ASSERT_STREQ(ask(f, bytes_str("unban 192.0.2.8")), "error unban: it is not banned\n");
	ASSERT_STREQ(ask(f, bytes_str("ban 2001:db8:1:2:3::4 31536000\n")), "ok\n");
	ASSERT_TRUE(f->ms == 31536000000ull);
	ASSERT_BYTES(&f->source, &v6, sizeof(v6));
	ASSERT_STREQ(ask(f, bytes_str("unban 2001:db8:1:2::/64")), "ok\n");
	ASSERT_EQ(f->unbans, 2);
	f->ban_error = -ENOSPC;
	ASSERT_TRUE(strstr(ask(f, bytes_str("ban 192.0.2.7 1")), "error ban: there are as many"));
	f->ban_error = -ENOMEM;
	ASSERT_STREQ(ask(f, bytes_str("ban 192.0.2.7 1")), "error ban: no memory\n");
}

TEST(hostile_requests_are_refused_and_do_nothing)
{
	/* clang-format off */
	static const char *const bad[] = {
		"", " ", "\n", "admission\n\n", "admission\nbans", "admission x", " admission",
		"ADMISSION", "admissio", "admission\t", "bans 1", "sources 50", "ban", "ban ",
		"ban 192.0.2.7", "ban 192.0.2.7 ", "ban 192.0.2.7 0", "ban 192.0.2.7 -1",
		"ban 192.0.2.7 31536001", "ban 192.0.2.7 18446744073709551617",
		"ban 192.0.2.7 1 1", "ban 192.0.2.7  1", "ban  192.0.2.7 1", "ban 60 192.0.2.7",
		"ban 192.0.2.7 1s", "ban %s%n 1", "unban", "unban ", "unban x",
		"unban 192.0.2.7 1", "unban 192.0.2.7/32", "help", "\xff\xfe",
		"ban 192.0.2.7 60\nban 192.0.2.8 60",
	};
	/* clang-format on */
	struct fake *f = fake_new();

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		if (strncmp(ask(f, bytes_str(bad[i])), "error ", 6) != 0)
			harness_fail(__FILE__, __LINE__, false, "\"%s\" is taken", bad[i]);
	ask(f, bytes_of("admission\0", 10));
	ask(f, bytes_of("ban 192.0.2.7\0 60", 17));
	ASSERT_EQ(f->asked + f->bans + f->unbans, 0);
}

/* Every cut of every request, in memory that ends there, and noise. */
TEST(requests_are_read_within_their_bounds)
{
	static const char *const good[] = { "admission", "bans", "sources",
					    "ban 2001:db8:1:2::/64 31536000", "unban 192.0.2.255" };
	struct fake *f = fake_new();

	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		for (size_t n = 0; n <= strlen(good[i]); n++) {
			uint8_t *copy = malloc(n + !n);

			ASSERT_TRUE(copy);
			memcpy(copy, good[i], n);
			ask(f, bytes_of(copy, n));
			free(copy);
		}
	}
	for (unsigned i = 0; i < 20000; i++) {
		const char *from = good[harness_random() % ARRAY_SIZE(good)];
		size_t n = strlen(from);
		uint8_t *copy = malloc(n);

		ASSERT_TRUE(copy);
		memcpy(copy, from, n);
		for (unsigned k = 0; k <= i % 4; k++)
			copy[harness_random() % n] = (uint8_t)harness_random();
		ask(f, bytes_of(copy, n));
		free(copy);
	}
}

/* An answer that was cut is never taken for a whole one that says less of its last line. */
static void check_cuts(const char *text, const char *key)
{
	static struct answer_list l;
	size_t whole = strlen(text);
	char error[ANSWER_ERROR_BYTES];
	struct answer_status s;
	struct bytes lines;

	for (size_t n = 0; n < whole; n++) {
		uint8_t *copy = malloc(n + !n);
		int err;

		ASSERT_TRUE(copy);
		memcpy(copy, text, n);
		err = answer_open(bytes_of(copy, n), &lines, error);
		ASSERT_EQ(err, n && text[n - 1] == '\n' ? 0 : -EBADMSG);
		if (!err)
			(void)(key ? answer_read_list(lines, key, &l)
				   : answer_read_status(lines, &s)); /* only its bounds count */
		free(copy);
	}
}

TEST(answers_are_read_within_their_bounds)
{
	struct fake *f = fake_new();
	static char text[ANSWER_BYTES_MAX + 1];

	f->status.why = "because";
	snprintf(text, sizeof(text), "%s", ask(f, bytes_str("admission")));
	check_cuts(text, NULL);
	f->n = 2;
	f->rows[0] = (struct answer_row){ source_of("192.0.2.1"), 7, ADMISSION_BARE };
	f->rows[1] = (struct answer_row){ source_of("2001:db8::"), 8, ADMISSION_BARE };
	snprintf(text, sizeof(text), "%s", ask(f, bytes_str("sources")));
	check_cuts(text, "source");
}

TEST(answers_that_are_none_are_refused)
{
	/* clang-format off */
	static const char *const not_open[] = {
		"", "\n", "o\n", "ok", "ok x\n", "okay\n", "ok 1\n", "errors\n", "OK\n",
	};
	/* clang-format on */
	/* clang-format off */
	static const char *const bad_status[] = {
		"", "kernel on\n", "mode auto\nkernel yes\n", "mode auto\nbans x\n",
		"mode auto\ndevices -1\n", "mode auto\npressure 1.5\n", "mode auto\nfilter.syn\n",
		"mode auto\nbroker.ok 99999999999999999999\n", "mode auto\nenforcing\n",
	};
	/* clang-format on */
	static const char *const bad_list[] = { "ban\n",	   "ban x 1\n", "ban 1.2.3.4\n",
						"ban 1.2.3.4 x\n", "more\n",	"more x\n" };
	char error[ANSWER_ERROR_BYTES] = "";
	struct answer_status s;
	struct answer_list l;
	struct bytes lines;

	for (unsigned i = 0; i < ARRAY_SIZE(not_open); i++)
		ASSERT_EQ(answer_open(bytes_str(not_open[i]), &lines, error), -EBADMSG);
	for (unsigned i = 0; i < ARRAY_SIZE(bad_status); i++)
		ASSERT_EQ(answer_read_status(bytes_str(bad_status[i]), &s), -EBADMSG);
	for (unsigned i = 0; i < ARRAY_SIZE(bad_list); i++)
		ASSERT_EQ(answer_read_list(bytes_str(bad_list[i]), "ban", &l), -EBADMSG);
	ASSERT_EQ(answer_open(bytes_str("error no\x1b way\n"), &lines, error), -EREMOTEIO);
	ASSERT_STREQ(error, "no? way");
	/* What a newer broker adds is skipped. */
	ASSERT_EQ(answer_read_status(bytes_str("mode auto\nfilter.new x\nnew thing\n"), &s), 0);
	ASSERT_EQ(answer_read_list(bytes_str("new thing\nban 1.2.3.4 5\n"), "ban", &l), 0);
	ASSERT_EQ(l.n, 1);
	ASSERT_EQ(l.rows[0].last, ADMISSION_COUNTERS);
}

TEST(a_list_longer_than_any_is_refused)
{
	static char text[(ANSWER_BANS_MAX + 1) * 16 + 1];
	static struct answer_list l;
	size_t n = 0;

	for (unsigned i = 0; i <= ANSWER_BANS_MAX; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "ban 1.2.3.4 5\n");
	ASSERT_EQ(answer_read_list(bytes_of(text, n), "ban", &l), -EBADMSG);
}

/* --- the socket ------------------------------------------------------------------------------- */

#define PATH_BYTES 80

FIXTURE(socket)
{
	struct ring ring;
	struct fake *fake;
	struct operators *operators;
	char dir[PATH_BYTES], path[PATH_BYTES + 16], lock[PATH_BYTES + 24];
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static int start(struct fixture_socket *self)
{
	return operators_new(self->path, &self->ring, &fake_ops, self->fake, &self->operators);
}

FIXTURE_SETUP(socket)
{
	snprintf(self->dir, sizeof(self->dir), "%s/ssdtf-operators-XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	ASSERT_TRUE(mkdtemp(self->dir));
	snprintf(self->path, sizeof(self->path), "%s/broker.sock", self->dir);
	snprintf(self->lock, sizeof(self->lock), "%s.lock", self->path);
	ASSERT_EQ(ring_init(&self->ring, 64, 128), 0);
	self->fake = fake_new();
	ASSERT_EQ(start(self), 0);
}

FIXTURE_TEARDOWN(socket)
{
	operators_free(self->operators);
	ring_deinit(&self->ring);
	ASSERT_EQ(rmdir(self->dir), 0); /* nothing was left */
}

/* One turn of a loop that has nothing else to do. */
static void turn(struct fixture_socket *self, uint64_t wait_ms_max)
{
	uint64_t wait_ms = operators_wait_ms(self->operators);

	ASSERT_EQ(ring_wait(&self->ring, wait_ms < wait_ms_max ? wait_ms : wait_ms_max), 0);
	ring_drain(&self->ring, 100);
	operators_turn(self->operators, now_ms());
}

static void turns(struct fixture_socket *self, uint64_t ms)
{
	for (uint64_t end = now_ms() + ms; now_ms() < end;)
		turn(self, 5);
}

static int dial(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	ASSERT_GE(fd, 0);
	memcpy(a.sun_path, path, strlen(path));
	ASSERT_EQ(connect(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void say(int fd, const char *request)
{
	ASSERT_EQ(send(fd, request, strlen(request), MSG_NOSIGNAL), (ssize_t)strlen(request));
}

/* What comes, while turns go on: its length; 0: the end; -EAGAIN: nothing within two seconds. */
static ssize_t hear(struct fixture_socket *self, int fd, char text[ANSWER_BYTES_MAX + 1])
{
	for (uint64_t end = now_ms() + 2000; now_ms() < end;) {
		ssize_t n = recv(fd, text, ANSWER_BYTES_MAX, 0);

		if (n >= 0) {
			text[n] = '\0';
			return n;
		}
		ASSERT_EQ(errno, EAGAIN);
		turn(self, 5);
	}
	return -EAGAIN;
}

static void check_works(struct fixture_socket *self)
{
	static char text[ANSWER_BYTES_MAX + 1];
	int fd = dial(self->path);

	say(fd, "admission");
	ASSERT_GT(hear(self, fd, text), 0);
	ASSERT_TRUE(!strncmp(text, "ok\nmode ", 8));
	close(fd);
}

TEST_F(socket, requests_are_answered_one_packet_each)
{
	static char text[ANSWER_BYTES_MAX + 1];
	int fd = dial(self->path);
	struct stat st;

	ASSERT_EQ(stat(self->path, &st), 0);
	ASSERT_EQ(st.st_mode & 07777, 0660);
	say(fd, "ban 192.0.2.7 60");
	say(fd, "bans");
	say(fd, "nonsense");
	ASSERT_GT(hear(self, fd, text), 0);
	ASSERT_STREQ(text, "ok\n");
	ASSERT_GT(hear(self, fd, text), 0);
	ASSERT_STREQ(text, "ok\n");
	ASSERT_GT(hear(self, fd, text), 0);
	ASSERT_TRUE(!strncmp(text, "error ", 6));
	ASSERT_EQ(self->fake->bans, 1);
	/* Who is done asking still hears. */
	say(fd, "admission");
	ASSERT_EQ(shutdown(fd, SHUT_WR), 0);
	ASSERT_GT(hear(self, fd, text), 0);
	ASSERT_EQ(hear(self, fd, text), 0);
	close(fd);
	check_works(self);
}

TEST_F(socket, idle_costs_no_turns)
{
	int fd = dial(self->path);

	turns(self, 50);
	ASSERT_TRUE(operators_wait_ms(self->operators) == UINT64_MAX);
	ASSERT_FALSE(ring_ready(&self->ring));
	close(fd);
	turns(self, 50);
	ASSERT_TRUE(operators_wait_ms(self->operators) == UINT64_MAX);
	check_works(self);
}

TEST_F(socket, packets_that_are_no_request_end_their_peer)
{
	static char text[ANSWER_BYTES_MAX + 1], big[100000];
	static const size_t sizes[] = { ANSWER_REQUEST_BYTES_MAX + 1, 4096, sizeof(big), 0 };

	memset(big, 'x', sizeof(big));
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		int fd = dial(self->path);

		ASSERT_EQ(send(fd, big, sizes[i], MSG_NOSIGNAL), (ssize_t)sizes[i]);
		ASSERT_EQ(hear(self, fd, text), 0);
		close(fd);
	}
	{
		int fd = dial(self->path); /* the longest that is read */

		ASSERT_EQ(send(fd, big, ANSWER_REQUEST_BYTES_MAX, MSG_NOSIGNAL),
			  ANSWER_REQUEST_BYTES_MAX);
		ASSERT_GT(hear(self, fd, text), 0);
		ASSERT_TRUE(!strncmp(text, "error ", 6));
		close(fd);
	}
	check_works(self);
}

TEST_F(socket, a_peer_that_takes_no_answer_is_cut_off)
{
	int fd = dial(self->path), open = 0;
	unsigned sent = 0;

	for (uint64_t end = now_ms() + 10000; !open && now_ms() < end;) {
		if (send(fd, "admission", 9, MSG_NOSIGNAL) == 9)
			sent++;
		else
			open = errno == EAGAIN ? 0 : errno;
		turn(self, 5);
	}
	ASSERT_TRUE(open == EPIPE || open == ECONNRESET);
	harness_note("cut off after %u requests, %u of them answered", sent, self->fake->asked);
	ASSERT_LT(self->fake->asked, 100);
	close(fd);
	check_works(self);
}

TEST_F(socket, one_too_many_replaces_the_one_silent_longest)
{
	static char text[ANSWER_BYTES_MAX + 1];
	int fds[OPERATORS_MAX], one_more;

	for (unsigned i = 0; i < OPERATORS_MAX; i++) {
		fds[i] = dial(self->path);
		say(fds[i], "bans");
		ASSERT_GT(hear(self, fds[i], text), 0);
		turns(self, 5);
	}
	say(fds[0], "bans"); /* so that the second is the one */
	ASSERT_GT(hear(self, fds[0], text), 0);
	one_more = dial(self->path);
	say(one_more, "bans");
	ASSERT_GT(hear(self, one_more, text), 0);
	ASSERT_EQ(hear(self, fds[1], text), 0);
	for (unsigned i = 0; i < OPERATORS_MAX; i++) {
		if (i != 1) {
			say(fds[i], "bans");
			ASSERT_GT(hear(self, fds[i], text), 0);
		}
		close(fds[i]);
	}
	close(one_more);
	check_works(self);
}

TEST_F(socket, many_peers_get_no_more_than_their_share_of_the_loop)
{
	uint64_t begin = now_ms(), took;
	static char text[ANSWER_BYTES_MAX + 1];
	int fds[4];

	self->fake->slow_ms = 10;
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = dial(self->path);
		for (unsigned k = 0; k < 10; k++)
			say(fds[i], "admission");
	}
	turns(self, 1500);
	took = now_ms() - begin;
	harness_note("%u requests of 10 ms in %llu ms", self->fake->asked,
		     (unsigned long long)took);
	ASSERT_GE(self->fake->asked, 2);
	ASSERT_LE(self->fake->asked, took / (10 * OPERATORS_SHARE) + 1);
	self->fake->slow_ms = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) { /* none was forgotten */
		for (unsigned k = 0; k < 10; k++)
			ASSERT_GT(hear(self, fds[i], text), 0);
		close(fds[i]);
	}
}

/* Somebody connects and goes, in every turn. */
static void storm(struct fixture_socket *self)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	memcpy(a.sun_path, self->path, strlen(self->path));
	for (unsigned i = 0; i < 2; i++) {
		int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		ASSERT_GE(fd, 0);
		if (connect(fd, (const struct sockaddr *)&a, sizeof(a)))
			ASSERT_EQ(errno, EAGAIN); /* the queue is full */
		close(fd);
	}
	turn(self, 5);
}

TEST_F(socket, connects_in_a_storm_do_not_starve_who_asks)
{
	static char text[ANSWER_BYTES_MAX + 1];
	int fd = dial(self->path);

	for (unsigned i = 0; i < 100; i++)
		storm(self);
	for (unsigned round = 0; round < 20; round++) {
		uint64_t end = now_ms() + 2000;
		ssize_t n = -1;

		say(fd, "bans");
		while (n < 0 && now_ms() < end) {
			storm(self);
			n = recv(fd, text, sizeof(text), 0);
		}
		ASSERT_GT(n, 0);
	}
	close(fd);
}

TEST_F(socket, descriptors_that_a_peer_sends_are_not_kept)
{
	static char text[ANSWER_BYTES_MAX + 1];
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { .head = { .cmsg_level = SOL_SOCKET,
				.cmsg_type = SCM_RIGHTS,
				.cmsg_len = CMSG_LEN(sizeof(int)) } };
	struct iovec packet = { .iov_base = (char[]){ "bans" }, .iov_len = 4 };
	struct msghdr m = { .msg_iov = &packet,
			    .msg_iovlen = 1,
			    .msg_control = control.space,
			    .msg_controllen = sizeof(control.space) };
	int fd = dial(self->path), ends[2];

	ASSERT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	memcpy(CMSG_DATA(&control.head), &ends[1], sizeof(int));
	ASSERT_EQ(sendmsg(fd, &m, 0), 4);
	ASSERT_GT(hear(self, fd, text), 0);
	close(ends[1]);
	ASSERT_EQ(read(ends[0], text, 1), 0); /* nobody else holds the other end */
	close(ends[0]);
	close(fd);
}

/* --- the name --- */

TEST_F(socket, a_second_broker_is_refused_and_harms_nothing)
{
	struct operators *second = NULL;

	ASSERT_EQ(operators_new(self->path, &self->ring, &fake_ops, self->fake, &second),
		  -EADDRINUSE);
	ASSERT_FALSE(second);
	check_works(self);
}

TEST_F(socket, what_a_dead_broker_left_is_replaced)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd, lock;

	operators_free(self->operators);
	self->operators = NULL;
	ASSERT_EQ(access(self->path, F_OK), -1);
	ASSERT_EQ(access(self->lock, F_OK), -1);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	memcpy(a.sun_path, self->path, strlen(self->path));
	ASSERT_EQ(bind(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
	ASSERT_EQ(listen(fd, 1), 0);
	close(fd);
	lock = open(self->lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_GE(lock, 0);
	close(lock);
	ASSERT_EQ(start(self), 0);
	check_works(self);
}

TEST_F(socket, what_lives_there_or_is_no_socket_is_left_alone)
{
	static const int types[] = { SOCK_SEQPACKET, SOCK_STREAM, SOCK_DGRAM };
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct stat st;
	int fd;

	operators_free(self->operators);
	self->operators = NULL;
	memcpy(a.sun_path, self->path, strlen(self->path));
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		fd = socket(AF_UNIX, types[i] | SOCK_CLOEXEC, 0);
		ASSERT_EQ(bind(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
		if (types[i] != SOCK_DGRAM)
			ASSERT_EQ(listen(fd, 1), 0);
		ASSERT_EQ(start(self), -EADDRINUSE);
		ASSERT_EQ(lstat(self->path, &st), 0);
		ASSERT_EQ(access(self->lock, F_OK), -1);
		close(fd);
		ASSERT_EQ(unlink(self->path), 0);
	}
	fd = open(self->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_GE(fd, 0);
	close(fd);
	ASSERT_EQ(start(self), -ENOTSOCK);
	ASSERT_EQ(unlink(self->path), 0);
	ASSERT_EQ(mkdir(self->path, 0700), 0);
	ASSERT_EQ(start(self), -ENOTSOCK);
	ASSERT_EQ(rmdir(self->path), 0);
}

TEST_F(socket, a_socket_that_outlives_its_process_a_little_is_waited_for)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd, status;
	pid_t child;

	operators_free(self->operators);
	self->operators = NULL;
	memcpy(a.sun_path, self->path, strlen(self->path));
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	ASSERT_EQ(bind(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
	ASSERT_EQ(listen(fd, 100), 0);
	child = fork(); /* stands for the kernel, which holds it on */
	ASSERT_GE(child, 0);
	if (!child) {
		const struct timespec some = { .tv_nsec = 200000000 };

		nanosleep(&some, NULL);
		_exit(0);
	}
	close(fd);
	ASSERT_EQ(start(self), 0);
	ASSERT_EQ(waitpid(child, &status, 0), child);
	check_works(self);
}

TEST_F(socket, paths_that_cannot_be_are_named)
{
	char path[300];
	struct operators *o = NULL;

	snprintf(path, sizeof(path), "%s/none/broker.sock", self->dir);
	ASSERT_EQ(operators_new(path, &self->ring, &fake_ops, self->fake, &o), -ENOENT);
	ASSERT_TRUE(strstr(operators_explain(-ENOENT), "folder"));
	snprintf(path, sizeof(path), "%s/%0150d", self->dir, 0);
	ASSERT_EQ(operators_new(path, &self->ring, &fake_ops, self->fake, &o), -ENAMETOOLONG);
	ASSERT_EQ(operators_new("", &self->ring, &fake_ops, self->fake, &o), -EINVAL);
	ASSERT_TRUE(strstr(operators_explain(-EADDRINUSE), "in use"));
	ASSERT_FALSE(o);
}

/* The lock of one that ends just now is a file that is no longer there: it is no lock. */
TEST_F(socket, a_lock_file_that_was_removed_does_not_count)
{
	struct operators *second = NULL;
	struct stat st;

	ASSERT_EQ(unlink(self->lock), 0);
	/* A new lock file can be locked; but the first still answers at its socket. */
	ASSERT_EQ(operators_new(self->path, &self->ring, &fake_ops, self->fake, &second),
		  -EADDRINUSE);
	ASSERT_EQ(lstat(self->path, &st), 0);
	turns(self, 200); /* its questions whether somebody is there stand in the queue */
	check_works(self);
}

TEST_F(socket, what_stands_there_since_is_left_alone_at_the_end)
{
	int fd;

	ASSERT_EQ(unlink(self->path), 0);
	fd = open(self->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_GE(fd, 0);
	close(fd);
	operators_free(self->operators);
	self->operators = NULL;
	ASSERT_EQ(unlink(self->path), 0);
}

/* Starts and ends as often as it can; while it has the socket, nobody else may. 0: that was so. */
static int contend(struct fixture_socket *self)
{
	char mark[PATH_BYTES + 16];

	snprintf(mark, sizeof(mark), "%s/mark", self->dir);
	for (uint64_t end = now_ms() + 500; now_ms() < end;) {
		int fd, err = start(self);

		if (err == -EADDRINUSE)
			continue;
		if (err)
			return err;
		fd = open(mark, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0 || close(fd) || access(self->path, F_OK) || unlink(mark))
			return -errno;
		operators_free(self->operators);
	}
	return 0;
}

TEST_F(socket, of_many_that_start_at_once_one_has_it)
{
	pid_t children[4];

	operators_free(self->operators);
	self->operators = NULL;
	for (unsigned i = 0; i < ARRAY_SIZE(children); i++) {
		children[i] = fork();
		ASSERT_GE(children[i], 0);
		if (!children[i]) {
			int err = contend(self);

			_exit(err != 0);
		}
	}
	for (unsigned i = 0; i < ARRAY_SIZE(children); i++) {
		int status;

		ASSERT_EQ(waitpid(children[i], &status, 0), children[i]);
		ASSERT_EQ(status, 0);
	}
	ASSERT_EQ(start(self), 0);
	check_works(self);
}

HARNESS_MAIN
