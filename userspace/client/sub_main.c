// SPDX-License-Identifier: MIT
/*
 * ssdtf-sub: subscribes, verifies, opens and prints. What cannot be used is asked for once more
 * (nack), and reported if it fails again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "userspace/base/log.h"
#include "userspace/client/link.h"
#include "userspace/client/options.h"
#include "userspace/client/party.h"
#include "userspace/client/print.h"

#define STORE_MESSAGES 256   /* replay windows are stored after so many messages, */
#define STORE_MS       10000 /* or so much time, and at the end */
#define TEXT_SHOWN     120
#define TURN_MS	       1000

struct sub {
	struct options options;
	struct print_options print;
	struct party party;
	struct link link;
	uint32_t printed;
	unsigned unstored; /* messages that the file "windows" does not know yet */
	uint64_t stored_ms;
	uint64_t end_ms; /* -W; 0: not set yet */
	int code;	 /* why to end; 0 with done: as asked */
	bool done;
};

static uint64_t now_ms(const struct sub *s)
{
	return link_time(&s->options.link).mono_ms;
}

static void end(struct sub *s, int code)
{
	s->done = true;
	if (!s->code)
		s->code = code;
}

/* --- replay windows --------------------------------------------------------------------------- */

/* A crash in between lets at most STORE_MESSAGES of the newest be taken twice, none be lost. */
static void store_windows(struct sub *s)
{
	int ret = s->unstored ? party_windows_store(&s->party) : 0;

	s->stored_ms = now_ms(s);
	if (ret) {
		log_error("%s/windows: %s", s->party.path, strerror(-ret));
		end(s, EX_IOERR);
		return;
	}
	s->unstored = 0;
}

static void store_windows_if_due(struct sub *s)
{
	if (s->unstored >= STORE_MESSAGES || (s->unstored && now_ms(s) - s->stored_ms >= STORE_MS))
		store_windows(s);
}

/* --- what comes in ---------------------------------------------------------------------------- */

static void on_opened(void *ctx)
{
	struct sub *s = ctx;
	int ret = link_subscribe(&s->link, s->options.topics, s->options.n_topics, s->options.qos);

	if (ret)
		log_error("subscribe: %s", strerror(-ret));
	if (s->options.wait_s && !s->end_ms)
		s->end_ms = now_ms(s) + s->options.wait_s * 1000ull;
}

static void on_closed(void *ctx)
{
	/* link_turn() says so and connects again; on_opened() subscribes again. */
}

static void on_published(void *ctx, int mid)
{
	/* Nacks and reports, which nobody waits for. */
}

static void on_subscribed(void *ctx, int n, const int *granted)
{
	struct sub *s = ctx;
	int refused = 0;

	for (int i = 0; i < n; i++)
		refused += granted[i] >= 0x80;
	if (!refused) {
		log_debug("subscribed");
		return;
	}
	log_warn("the broker refuses %d of %d subscriptions", refused, n);
	if (refused == n)
		end(s, EX_NOPERM);
}

static void take_message(struct sub *s, const struct ssdtf_packet *packet,
			 const struct ssdtf_event *e)
{
	int ret;

	s->unstored++;
	if (s->done || (packet->retain && s->options.no_retained))
		return;
	ret = print_message(&s->print, packet, e, stdout);
	if (ret) {
		log_error("standard output: %s", strerror(-ret));
		end(s, EX_IOERR);
		return;
	}
	if (s->options.count && ++s->printed == s->options.count)
		end(s, EX_OK);
}

static void take_unopened(struct sub *s, const struct ssdtf_packet *packet,
			  const struct ssdtf_event *e)
{
	struct bytes about = e->origin.n ? e->origin : ssdtf_gateway(&s->party.client);
	char topic[TEXT_SHOWN + 1], origin[TEXT_SHOWN + 1];
	int ret;

	log_warn("a message cannot be used: %s: topic=%s origin=%s counter=%" PRIu64
		 " reason=%u, %s",
		 e->why, print_clean(packet->topic, topic, sizeof(topic)),
		 print_clean(e->origin, origin, sizeof(origin)), e->counter, e->reason,
		 e->ask_again ? "asked for once more" : "reported");
	if (e->ask_again)
		ret = ssdtf_nack(&s->party.client, e);
	else
		ret = ssdtf_report(&s->party.client, e->reason, e->counter, about,
				   bytes_str(e->why));
	if (ret)
		log_warn("the complaint could not be sent: %s", strerror(-ret));
}

static void take_report(const struct ssdtf_event *e)
{
	char reporter[TEXT_SHOWN + 1], about[TEXT_SHOWN + 1], text[TEXT_SHOWN + 1];

	log_info("report: from=%s%s about=%s counter=%" PRIu64 " reason=%u (%s) text=\"%s\"",
		 print_clean(e->reporter, reporter, sizeof(reporter)),
		 e->reporter_verified ? "" : " (not verified)",
		 print_clean(e->origin, about, sizeof(about)), e->counter, e->reason,
		 ssdtf_reason_text(e->reason), print_clean(e->text, text, sizeof(text)));
}

static void on_event(void *ctx, const struct ssdtf_packet *packet, const struct ssdtf_event *e)
{
	struct sub *s = ctx;
	char text[TEXT_SHOWN + 1];

	switch (e->kind) {
	case SSDTF_MESSAGE:
		take_message(s, packet, e);
		return;
	case SSDTF_UNOPENED:
		take_unopened(s, packet, e);
		return;
	case SSDTF_REPORTED:
		take_report(e);
		return;
	case SSDTF_ERROR:
		log_warn("error from the broker: reason=%u (%s) counter=%" PRIu64 " text=\"%s\"",
			 e->reason, ssdtf_reason_text(e->reason), e->counter,
			 print_clean(e->text, text, sizeof(text)));
		return;
	case SSDTF_REPLAYED:
	case SSDTF_IGNORED:
		log_debug("ignored: %s: topic=%s counter=%" PRIu64, e->why,
			  print_clean(packet->topic, text, sizeof(text)), e->counter);
		return;
	case SSDTF_NOTHING:
	case SSDTF_AUTHENTICATED:
	case SSDTF_AUTH_FAILED:
	case SSDTF_UPDATED:
	case SSDTF_CLAIMED:
		return; /* the link's */
	}
}

static const struct link_handler handler = {
	.opened = on_opened,
	.closed = on_closed,
	.event = on_event,
	.published = on_published,
	.subscribed = on_subscribed,
};

/* --- the program ------------------------------------------------------------------------------ */

static void run(struct sub *s)
{
	uint64_t until;
	int code;

	while (!s->done && !link_stopped()) {
		until = now_ms(s) + TURN_MS;
		if (s->end_ms && s->end_ms < until)
			until = s->end_ms;
		code = link_turn(&s->link, -1, until);
		if (code) {
			log_error("%s", link_why(&s->link));
			end(s, code);
		}
		store_windows_if_due(s);
		/* With -C, time running out means that something did not come. */
		if (s->end_ms && now_ms(s) >= s->end_ms)
			end(s, s->options.count ? EX_TEMPFAIL : EX_OK);
	}
}

int main(int argc, char **argv)
{
	static struct sub s;
	struct party_config config = { .reads = true, .ops = &link_ops, .ctx = &s.link };

	options_parse(OPTIONS_SUB, argc, argv, &s.options);
	s.print = (struct print_options){
		.topic = s.options.verbose,
		.newline = !s.options.no_newline,
		.meta = s.options.meta,
		.wire = s.options.wire,
		.json = s.options.json,
	};
	config.dir = s.options.dir;
	config.id = s.options.id;
	config.zk = s.options.zk;
	config.counter_step = s.options.counter_step;
	config.n_origins = s.options.n_origins;
	link_catch_signals();
	link_init(&s.link, &s.party, &s.options.link, &handler, &s);
	party_open(&s.party, &config, link_time(&s.options.link));
	run(&s);
	link_deinit(&s.link);
	store_windows(&s);
	party_close(&s.party);
	return s.code;
}
