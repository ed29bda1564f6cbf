// SPDX-License-Identifier: MIT
#include "userspace/core/journal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hsm/client.h"
#include "userspace/base/text.h"
#include "userspace/broker/broker.h"
#include "userspace/core/stream.h"
#include "userspace/crypto/envelope.h"

#define TEXT_BYTES_MAX	    200
#define LINE_BYTES_MAX	    4096
#define JOURNAL_TOPIC_BYTES 128

/* What could end or forge a log line becomes a question mark. */
static const char *printable(const char *text, char out[TEXT_BYTES_MAX])
{
	size_t n = 0;

	for (; text && text[n] && n < TEXT_BYTES_MAX - 1; n++) {
		unsigned char c = (unsigned char)text[n];

		out[n] = c >= 0x20 && c < 0x7f && c != '"' && c != '\\' ? (char)c : '?';
	}
	out[n] = '\0';
	return out;
}

static struct log_limit *limit_of(struct journal *j, const char *event)
{
	unsigned i = 0;

	while (i < JOURNAL_EVENTS_MAX - 1 && j->events[i].event &&
	       strcmp(j->events[i].event, event) != 0)
		i++;
	if (!j->events[i].event && i < JOURNAL_EVENTS_MAX - 1)
		j->events[i].event = event;
	return &j->events[i].limit;
}

void journal_note(struct journal *j, uint64_t now_ms, const char *event, const char *client_id,
		  const char *what)
{
	char name[TEXT_BYTES_MAX], id[TEXT_BYTES_MAX], text[TEXT_BYTES_MAX];
	uint64_t left_out;

	if (!log_limit_pass(limit_of(j, event), now_ms, &left_out))
		return;
	printable(event, name);
	for (char *blank = name; (blank = strchr(blank, ' '));)
		*blank = '-'; /* a value without quotes is one word */
	log_warn("event=%s client=\"%s\" what=\"%s\" left_out=%llu", name, printable(client_id, id),
		 printable(what, text), (unsigned long long)left_out);
}

struct line {
	char text[LINE_BYTES_MAX];
	size_t n;
};

static void add(struct line *l, const char *fmt, ...) format_printf(2, 3);
static void add(struct line *l, const char *fmt, ...)
{
	size_t room = sizeof(l->text) - l->n;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(l->text + l->n, room, fmt, ap);
	va_end(ap);
	BUG_ON(n < 0 || (size_t)n >= room); /* the counters are ours, and there is room for all */
	l->n += (size_t)n;
}

#define ADD(l, s, field) add(l, " " #field "=%llu", (unsigned long long)(s)->field)

static void add_broker(struct line *l, const struct broker_stats *s)
{
	ADD(l, s, connections);
	ADD(l, s, sessions);
	ADD(l, s, retained);
	ADD(l, s, queued);
	ADD(l, s, capsules);
	ADD(l, s, contexts);
	ADD(l, s, connects);
	ADD(l, s, auth_passed);
	ADD(l, s, auth_failed);
	ADD(l, s, admission_refused);
	ADD(l, s, received);
	ADD(l, s, accepted);
	ADD(l, s, replayed);
	for (unsigned i = 1; i < ARRAY_SIZE(s->refused); i++)
		add(l, " refused_%u=%llu", i, (unsigned long long)s->refused[i]);
	ADD(l, s, delivered);
	ADD(l, s, acknowledged);
	ADD(l, s, no_grant);
	ADD(l, s, dropped_qos0);
	ADD(l, s, dropped_full);
	ADD(l, s, conversions);
	ADD(l, s, capsule_hits);
	ADD(l, s, conversion_retries);
	ADD(l, s, signatures);
	ADD(l, s, signed_deliveries);
	ADD(l, s, commits);
	ADD(l, s, errors_sent);
	ADD(l, s, nacks);
	ADD(l, s, reports);
}

static void add_streams(struct line *l, const struct stream_stats *s)
{
	ADD(l, s, opened);
	ADD(l, s, bytes_in);
	ADD(l, s, bytes_out);
	ADD(l, s, sends);
	ADD(l, s, no_buffers);
	ADD(l, s, cut_stalled);
	ADD(l, s, cut_budget);
	ADD(l, s, refused_hard);
}

static void add_hsm(struct line *l, const struct hsm_client_stats *s)
{
	add(l, " hsm_converts=%llu hsm_signs=%llu hsm_loads=%llu hsm_packets=%llu",
	    (unsigned long long)s->converts, (unsigned long long)s->signs,
	    (unsigned long long)s->loads, (unsigned long long)s->packets);
	add(l, " hsm_requeued=%llu hsm_unavailable=%llu hsm_queued=%u hsm_in_flight=%u",
	    (unsigned long long)s->requeued, (unsigned long long)s->unavailable, s->queued,
	    s->in_flight);
}

/* The first bytes, those behind the envelope's fixed head, and the last: where messages differ. */
void journal_retained(struct bytes topic, struct bytes body)
{
	char name[JOURNAL_TOPIC_BYTES + 1], from[TEXT_HEX_SIZE(16)], mid[TEXT_HEX_SIZE(16)];
	char last[TEXT_HEX_SIZE(8)];
	size_t n = topic.n < JOURNAL_TOPIC_BYTES ? topic.n : JOURNAL_TOPIC_BYTES;

	for (size_t i = 0; i < n; i++)
		name[i] = topic.p[i] > ' ' && topic.p[i] < 0x7f && topic.p[i] != '"'
				  ? (char)topic.p[i]
				  : '?';
	name[n] = '\0';
	if (body.n < ENVELOPE_FIXED_BYTES + 16) { /* plain mode: not sealed */
		log_debug("event=retained topic=\"%s\" bytes=%zu", name, body.n);
		return;
	}
	log_debug("event=retained topic=\"%s\" bytes=%zu body=%s..%s..%s", name, body.n,
		  text_hex(bytes_of(body.p, 16), from),
		  text_hex(bytes_of(body.p + ENVELOPE_FIXED_BYTES - 1, 16), mid),
		  text_hex(bytes_of(body.p + body.n - 8, 8), last));
}

void journal_stats(const struct broker_stats *b, const struct stream_stats *s,
		   const struct hsm_client_stats *hsm)
{
	struct line l = { .n = 0 };

	add(&l, "ssdtf-broker: stats");
	add_broker(&l, b);
	add_streams(&l, s);
	if (hsm)
		add_hsm(&l, hsm);
	add(&l, "\n");
	/* Asked for by a signal, so said at every log level; longer than the log's own lines. */
	(void)!write(STDERR_FILENO, l.text, l.n); /* nobody is left to tell */
}
