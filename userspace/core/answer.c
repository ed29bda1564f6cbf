// SPDX-License-Identifier: MIT
#include "userspace/core/answer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/words.h"
#include "userspace/core/admit.h"
#include "userspace/core/source.h"

#define LINE_BYTES_MAX 512
/* "source", a prefix, 20 digits, a verdict. */
#define ROW_BYTES_MAX 72
_Static_assert(ANSWER_SOURCES_MAX <= ANSWER_BANS_MAX &&
		       ANSWER_BANS_MAX * ROW_BYTES_MAX + LINE_BYTES_MAX <= ANSWER_BYTES_MAX,
	       "every list fits into an answer");

static const char *const counter_names[ADMISSION_COUNTERS] = {
#define NAME(name, text) [ADMISSION_##name] = text,
	ADMISSION_VERDICT_LIST(NAME)
#undef NAME
		[ADMISSION_TOLD] = "told",
	[ADMISSION_DROPPED] = "dropped",
};

static const char *const mode_names[] = {
	[CONFIG_ADMISSION_OFF] = "off",
	[CONFIG_ADMISSION_MONITOR] = "monitor",
	[CONFIG_ADMISSION_ENFORCE] = "enforce",
	[CONFIG_ADMISSION_AUTO] = "auto",
};

const char *answer_verdict_name(unsigned counter)
{
	return counter < ADMISSION_COUNTERS ? counter_names[counter] : "?";
}

static unsigned counter_of(struct bytes name)
{
	unsigned i = 0;

	while (i < ADMISSION_COUNTERS && !words_is(name, counter_names[i]))
		i++;
	return i;
}

/* --- writing ---------------------------------------------------------------------------------- */

static void say(struct answer *a, const char *fmt, ...) format_printf(2, 3);
static void say(struct answer *a, const char *fmt, ...)
{
	size_t room = sizeof(a->text) - a->n;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(a->text + a->n, room, fmt, ap);
	va_end(ap);
	BUG_ON(n < 0 || (size_t)n >= room); /* every line has a bound, and so has their number */
	a->n += (size_t)n;
}

static void refuse(struct answer *a, const char *text)
{
	a->n = 0;
	say(a, "error %s\n", text);
}

static const char *on_off(bool on)
{
	return on ? "on" : "off";
}

static void answer_status(const struct answer_ops *ops, void *ctx, struct answer *a)
{
	char why[ANSWER_WHY_BYTES];
	struct admit_status s = { .why = "" };

	ops->status(ctx, &s);
	say(a, "ok\nmode %s\nkernel %s\n", mode_names[s.mode], on_off(s.kernel));
	if (s.why[0])
		say(a, "why %s\n", words_copy(bytes_str(s.why), why, sizeof(why)));
	say(a, "enforcing %s\ndevices %u\nbans %u\npressure %" PRIu64 "\n", on_off(s.enforcing),
	    s.devices, s.bans, s.pressure_per_second);
	for (unsigned i = 0; i < ADMISSION_COUNTERS; i++)
		say(a, "filter.%s %" PRIu64 "\n", counter_names[i], s.filter[i]);
	for (unsigned i = 0; i < ADMISSION_COUNTERS; i++)
		say(a, "broker.%s %" PRIu64 "\n", counter_names[i], s.broker[i]);
}

/* --- the largest rows of a list --- */

/* A heap whose least row is the first, while there are more rows than it takes. */
struct top {
	struct answer_row *rows;
	unsigned n, max;
	uint64_t more;
};

/* More of it first; of as many, by address, so that an answer does not jump. */
static int compare(const struct answer_row *a, const struct answer_row *b)
{
	if (a->n != b->n)
		return a->n > b->n ? -1 : 1;
	return memcmp(&a->source, &b->source, sizeof(a->source));
}

static int compare_any(const void *a, const void *b)
{
	return compare(a, b);
}

static void swap(struct answer_row *a, struct answer_row *b)
{
	struct answer_row keep = *a;

	*a = *b;
	*b = keep;
}

static void sift_down(struct top *t)
{
	unsigned at = 0;

	for (;;) {
		unsigned child = 2 * at + 1;

		if (child >= t->n)
			return;
		if (child + 1 < t->n && compare(&t->rows[child + 1], &t->rows[child]) > 0)
			child++;
		if (compare(&t->rows[child], &t->rows[at]) <= 0)
			return;
		swap(&t->rows[child], &t->rows[at]);
		at = child;
	}
}

static void sift_up(struct top *t)
{
	unsigned at = t->n - 1;

	while (at && compare(&t->rows[at], &t->rows[(at - 1) / 2]) > 0) {
		swap(&t->rows[at], &t->rows[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
}

static void top_add(struct top *t, const struct answer_row *row)
{
	if (t->n < t->max) {
		t->rows[t->n++] = *row;
		sift_up(t);
		return;
	}
	t->more++;
	if (compare(row, &t->rows[0]) < 0) {
		t->rows[0] = *row;
		sift_down(t);
	}
}

static void top_sort(struct top *t)
{
	qsort(t->rows, t->n, sizeof(t->rows[0]), compare_any);
}

static void add_ban(void *ctx, const struct admission_source *source, uint64_t left_ms)
{
	/* What is left of a second is one. */
	struct answer_row row = { .source = *source, .n = left_ms / 1000 + !!(left_ms % 1000) };

	top_add(ctx, &row);
}

static void add_source(void *ctx, const struct admission_source *source, uint64_t rejected,
		       enum admission_verdict last)
{
	struct answer_row row = { .source = *source, .n = rejected, .last = last };

	top_add(ctx, &row);
}

static void answer_bans(const struct answer_ops *ops, void *ctx, struct answer *a)
{
	struct answer_row rows[ANSWER_BANS_MAX];
	struct top t = { .rows = rows, .max = ANSWER_BANS_MAX };
	char text[SOURCE_TEXT_BYTES_MAX];

	ops->each_ban(ctx, add_ban, &t);
	top_sort(&t);
	say(a, "ok\n");
	for (unsigned i = 0; i < t.n; i++)
		say(a, "ban %s %" PRIu64 "\n", source_text(&rows[i].source, text), rows[i].n);
	if (t.more)
		say(a, "more %" PRIu64 "\n", t.more);
}

static void answer_sources(const struct answer_ops *ops, void *ctx, struct answer *a)
{
	struct answer_row rows[ANSWER_SOURCES_MAX];
	struct top t = { .rows = rows, .max = ANSWER_SOURCES_MAX };
	char text[SOURCE_TEXT_BYTES_MAX];

	ops->each_rejected(ctx, add_source, &t);
	top_sort(&t);
	say(a, "ok\n");
	for (unsigned i = 0; i < t.n; i++)
		say(a, "source %s %" PRIu64 " %s\n", source_text(&rows[i].source, text), rows[i].n,
		    answer_verdict_name(rows[i].last));
	if (t.more)
		say(a, "more %" PRIu64 "\n", t.more);
}

/* --- requests --------------------------------------------------------------------------------- */

static void take_ban(const struct answer_ops *ops, void *ctx, struct bytes args, struct answer *a)
{
	struct bytes address = words_next(&args), seconds = words_next(&args);
	struct admission_source s;
	uint64_t n;
	int err;

	if (source_parse(address, &s)) {
		refuse(a, "ban: no address such as 192.0.2.7 or 2001:db8:1:2::/64");
		return;
	}
	if (words_number(seconds, ANSWER_BAN_SECONDS_MAX, &n) || !n || args.n) {
		refuse(a, "ban: the seconds are no number from 1 to 31536000");
		return;
	}
	err = ops->ban(ctx, &s, n * 1000);
	if (err) {
		refuse(a, err == -ENOSPC ? "ban: there are as many bans as there may be"
					 : "ban: no memory");
		return;
	}
	say(a, "ok\n");
	a->changed = true;
}

static void take_unban(const struct answer_ops *ops, void *ctx, struct bytes args, struct answer *a)
{
	struct bytes address = words_next(&args);
	struct admission_source s;

	if (args.n || source_parse(address, &s)) {
		refuse(a, "unban: no address such as 192.0.2.7 or 2001:db8:1:2::/64");
		return;
	}
	if (!ops->unban(ctx, &s)) {
		refuse(a, "unban: it is not banned");
		return;
	}
	say(a, "ok\n");
	a->changed = true;
}

void answer_request(const struct answer_ops *ops, void *ctx, struct bytes request,
		    struct answer *ret_a)
{
	struct answer *a = ret_a;
	struct bytes line = words_line(&request), word = words_next(&line);

	a->n = 0;
	a->changed = false;
	if (request.n)
		refuse(a, "one line is one request");
	else if (words_is(word, "admission") && !line.n)
		answer_status(ops, ctx, a);
	else if (words_is(word, "bans") && !line.n)
		answer_bans(ops, ctx, a);
	else if (words_is(word, "sources") && !line.n)
		answer_sources(ops, ctx, a);
	else if (words_is(word, "ban"))
		take_ban(ops, ctx, line, a);
	else if (words_is(word, "unban"))
		take_unban(ops, ctx, line, a);
	else
		refuse(a, "requests are: admission, bans, sources, ban ADDRESS SECONDS, "
			  "unban ADDRESS");
}

/* --- reading ---------------------------------------------------------------------------------- */

int answer_open(struct bytes answer, struct bytes *ret_lines, char error[ANSWER_ERROR_BYTES])
{
	struct bytes lines = answer, line, word;

	/* Each line ends with a newline: one that does not was cut. */
	if (!answer.n || answer.p[answer.n - 1] != '\n')
		return -EBADMSG;
	line = words_line(&lines);
	word = words_next(&line);
	if (words_is(word, "error")) {
		words_copy(line, error, ANSWER_ERROR_BYTES);
		return -EREMOTEIO;
	}
	if (!words_is(word, "ok") || line.n)
		return -EBADMSG;
	*ret_lines = lines;
	return 0;
}

static int read_switch(struct bytes value, bool *ret_on)
{
	if (!words_is(value, "on") && !words_is(value, "off"))
		return -EBADMSG;
	*ret_on = words_is(value, "on");
	return 0;
}

static int read_number(struct bytes value, uint64_t *ret_n)
{
	return words_number(value, UINT64_MAX, ret_n) ? -EBADMSG : 0;
}

/* "filter.syn 7" behind its dot. */
static int read_counter(struct bytes name, struct bytes value,
			uint64_t counters[ADMISSION_COUNTERS])
{
	unsigned i = counter_of(name);
	uint64_t n;

	if (i == ADMISSION_COUNTERS)
		return 0; /* of a newer broker */
	if (read_number(value, &n))
		return -EBADMSG;
	counters[i] = n;
	return 0;
}

/* Is it PREFIX.NAME? Then *ret_name is what follows the dot. */
static bool dotted(struct bytes key, const char *prefix, struct bytes *ret_name)
{
	size_t n = strlen(prefix);

	if (key.n <= n || memcmp(key.p, prefix, n) != 0)
		return false;
	*ret_name = bytes_of(key.p + n, key.n - n);
	return true;
}

static int read_status_line(struct bytes key, struct bytes value, struct answer_status *s)
{
	struct bytes name;

	if (words_is(key, "mode"))
		words_copy(value, s->mode, sizeof(s->mode));
	else if (words_is(key, "why"))
		words_copy(value, s->why, sizeof(s->why));
	else if (words_is(key, "kernel"))
		return read_switch(value, &s->kernel);
	else if (words_is(key, "enforcing"))
		return read_switch(value, &s->enforcing);
	else if (words_is(key, "devices"))
		return read_number(value, &s->devices);
	else if (words_is(key, "bans"))
		return read_number(value, &s->bans);
	else if (words_is(key, "pressure"))
		return read_number(value, &s->pressure_per_second);
	else if (dotted(key, "filter.", &name))
		return read_counter(name, value, s->filter);
	else if (dotted(key, "broker.", &name))
		return read_counter(name, value, s->broker);
	return 0;
}

int answer_read_status(struct bytes lines, struct answer_status *ret_s)
{
	struct answer_status s = { .mode = "" };

	while (lines.n) {
		struct bytes line = words_line(&lines), key = words_next(&line);

		if (read_status_line(key, line, &s))
			return -EBADMSG;
	}
	if (!s.mode[0])
		return -EBADMSG;
	*ret_s = s;
	return 0;
}

static int read_row(struct bytes line, struct answer_list *l)
{
	struct bytes address = words_next(&line), n = words_next(&line), last = words_next(&line);
	struct answer_row *row = &l->rows[l->n];

	if (l->n == ARRAY_SIZE(l->rows) || source_parse(address, &row->source) ||
	    read_number(n, &row->n))
		return -EBADMSG;
	row->last = counter_of(last);
	l->n++;
	return 0;
}

int answer_read_list(struct bytes lines, const char *key, struct answer_list *ret_l)
{
	int err = 0;

	ret_l->n = 0;
	ret_l->more = 0;
	while (lines.n && !err) {
		struct bytes line = words_line(&lines), word = words_next(&line);

		if (words_is(word, key))
			err = read_row(line, ret_l);
		else if (words_is(word, "more"))
			err = read_number(line, &ret_l->more);
	}
	return err;
}
