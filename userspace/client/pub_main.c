// SPDX-License-Identifier: MIT
/*
 * ssdtf-pub: seals, signs and publishes.
 *
 *   input --> outbox --batch_seal--> libmosquitto --> broker
 *               ^ PUBACK or PUBCOMP, $SSDTF/error, connection lost
 *
 * A message of QoS 1 or 2 is kept until it is acknowledged, over any number of reconnects. The end
 * waits for all acknowledgements; what is missing then is said, and is in the exit code.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "userspace/base/log.h"
#include "userspace/client/batch.h"
#include "userspace/client/input.h"
#include "userspace/client/link.h"
#include "userspace/client/options.h"
#include "userspace/client/outbox.h"
#include "userspace/client/party.h"
#include "userspace/client/print.h"

#define WAIT_S	    30
#define STALLED_MS  15000 /* no acknowledgement for so long: connect anew and send again */
#define SEALS_MAX   2	  /* the first time, and once after an error */
#define RESENDS_MAX 2	  /* of the same bytes, after errors */
#define HELD_MS	    10000 /* a message waits so long for a newer key */
#define TEXT_SHOWN  120
#define TURN_MS	    1000

struct pub {
	struct options options;
	struct party party;
	struct link link;
	struct outbox outbox;
	struct input input;
	bool input_ended;
	unsigned refused;     /* messages that the broker will not take */
	uint64_t progress_ms; /* when something was sent or acknowledged */
	uint64_t ended_ms;    /* when the input did */
	uint64_t asked_ms;    /* when newer keys were asked for */
};

static uint64_t now_ms(const struct pub *p)
{
	return link_time(&p->options.link).mono_ms;
}

/* --- sending ---------------------------------------------------------------------------------- */

static void cannot_seal(const struct pub *p, int error)
{
	const char *topic = p->options.topics[0];

	switch (error) {
	case -ENOMEM:
		exit_with(EX_OSERR, "no memory to seal what waits");
	case -EACCES:
		exit_with(EX_NOPERM, "no scope of %s's bundle covers the topic %s", p->party.id,
			  topic);
	case -ETIME:
		exit_with(EX_NOPERM,
			  "the scope of the topic %s is not valid now: %s's bundle is old, "
			  "or this machine's clock is wrong",
			  topic, p->party.id);
	case -EINVAL:
		exit_with(EX_USAGE, "-t '%s': not a topic to publish on", topic);
	}
	exit_with(EX_IOERR, "%s: a message cannot be sealed: %s", p->party.path, strerror(-error));
}

static void seal_waiting(struct pub *p)
{
	const struct options *o = &p->options;
	const struct batch_options b = {
		.topic = o->topics[0], .qos = o->qos, .retain = o->retain, .max = o->batch
	};
	int ret = batch_seal(&p->outbox, &p->party.client, &b, link_time(&o->link));

	if (ret)
		cannot_seal(p, ret);
}

static void send_waiting(struct pub *p)
{
	struct outbox_message *m;
	int ret;

	while (link_is_open(&p->link) && (m = outbox_next(&p->outbox))) {
		if (!m->sealed)
			seal_waiting(p);
		/* Before it is handed over: at QoS 0 it is done before link_publish() returns. */
		outbox_mark_sent(&p->outbox, m);
		p->progress_ms = now_ms(p);
		ret = link_publish(&p->link, p->options.topics[0], bytes_of(m->sealed, m->sealed_n),
				   p->options.qos, p->options.retain, &m->mid);
		if (ret == -EMSGSIZE)
			exit_with(EX_DATAERR, "a message of %zu bytes is too long for MQTT",
				  m->plain_n);
		if (ret) {
			/* The connection is on its way out, and link_turn() will say so. */
			if (m->state == OUTBOX_SENT)
				outbox_unsend(&p->outbox, m);
			return;
		}
	}
}

/* True where the outbox was full before the input was empty. */
static bool take_input(struct pub *p)
{
	struct bytes message;
	int ret = 0;

	while (!p->input_ended && !outbox_full(&p->outbox)) {
		ret = input_next(&p->input, now_ms(p), &message);
		if (ret == -ENODATA) {
			p->input_ended = true;
			p->ended_ms = now_ms(p);
		}
		if (ret)
			return false;
		ret = outbox_add(&p->outbox, message);
		if (ret)
			exit_with(EX_OSERR, "no memory for a message of %zu bytes", message.n);
	}
	return !p->input_ended;
}

/* --- what comes back -------------------------------------------------------------------------- */

static void on_opened(void *ctx)
{
	struct pub *p = ctx;

	p->progress_ms = p->asked_ms = now_ms(p);
	send_waiting(p);
}

static void on_closed(void *ctx)
{
	outbox_all_unsent(&((struct pub *)ctx)->outbox);
}

static void on_published(void *ctx, int mid)
{
	struct pub *p = ctx;
	struct outbox_message *m = outbox_by_mid(&p->outbox, mid);

	if (!m)
		return; /* a report of ours, or one that was sealed anew since */
	p->progress_ms = now_ms(p);
	if (p->options.qos) {
		log_debug("acknowledged: counter=%" PRIu64, m->counter);
		ssdtf_acknowledged(&p->party.client, m->counter);
	}
	outbox_mark_done(&p->outbox, m);
}

static void on_subscribed(void *ctx, int n, const int *granted)
{
	/* Nothing was subscribed to. */
}

/* What is done about an error (docs/PROTOCOL.md 7). */
enum remedy {
	REMEDY_RESEND, /* the same bytes again: these were damaged on the way */
	REMEDY_RESEAL, /* a new counter, and a new context where the old one is retired */
	REMEDY_HOLD,   /* until there is a newer key to seal to */
	REMEDY_NONE,   /* the message was taken, but did not reach everybody */
	REMEDY_REPORT, /* it never will be taken */
};

/* Is there another key by now than the one that the message was sealed to? */
static bool has_newer_key(struct pub *p, const struct outbox_message *m)
{
	struct ssdtf_rekey r;

	return !ssdtf_rekey(&p->party.client, bytes_str(p->options.topics[0]),
			    link_time(&p->options.link), &r) &&
	       r.key_id != m->key_id;
}

/* The scope has a new key: perhaps it is here already, or in the file "bundle"; else it is asked
 * for. */
static enum remedy remedy_for_key_id(struct pub *p, const struct outbox_message *m)
{
	if (!m || m->seals >= SEALS_MAX)
		return REMEDY_REPORT;
	if (has_newer_key(p, m) || (link_reload(&p->link) && has_newer_key(p, m)))
		return REMEDY_RESEAL;
	if (!outbox_held(&p->outbox)) {
		link_ask_updates(&p->link);
		p->asked_ms = now_ms(p);
	}
	return REMEDY_HOLD;
}

static enum remedy remedy_for(struct pub *p, const struct outbox_message *m, unsigned reason)
{
	switch (reason) {
	case SSDTF_REASON_BAD_SIGNATURE:
		return m && m->state == OUTBOX_SENT && m->resends < RESENDS_MAX ? REMEDY_RESEND
										: REMEDY_REPORT;
	case SSDTF_REASON_REPLAYED:
	case SSDTF_REASON_CONTEXT_RETIRED:
		return m && m->seals < SEALS_MAX ? REMEDY_RESEAL : REMEDY_REPORT;
	case SSDTF_REASON_KEY_ID:
		return remedy_for_key_id(p, m);
	case SSDTF_REASON_UNAVAILABLE:
		return REMEDY_NONE;
	default:
		return REMEDY_REPORT;
	}
}

static void give_up(struct pub *p, struct outbox_message *m, unsigned reason, uint64_t counter)
{
	int ret = ssdtf_report(&p->party.client, reason, counter, ssdtf_gateway(&p->party.client),
			       bytes_str("refused by the broker"));

	if (ret)
		log_warn("the report of it could not be sent: %s", strerror(-ret));
	p->refused++;
	if (m)
		outbox_drop(&p->outbox, m);
}

static void take_error(struct pub *p, const struct ssdtf_event *e)
{
	static const char *const done[] = {
		[REMEDY_RESEND] = ": sent again",
		[REMEDY_RESEAL] = ": sealed anew",
		[REMEDY_HOLD] = ": waits for a newer key",
		[REMEDY_NONE] = "",
		[REMEDY_REPORT] = ": reported",
	};
	struct outbox_message *m = outbox_by_counter(&p->outbox, e->counter);
	enum remedy remedy = remedy_for(p, m, e->reason);
	char text[TEXT_SHOWN + 1];

	log_warn("error from the broker: reason=%u (%s) counter=%" PRIu64 " text=\"%s\"%s",
		 e->reason, ssdtf_reason_text(e->reason), e->counter,
		 print_clean(e->text, text, sizeof(text)), done[remedy]);
	switch (remedy) {
	case REMEDY_RESEND:
		m->resends++;
		outbox_unsend(&p->outbox, m);
		break;
	case REMEDY_RESEAL:
		outbox_reseal(&p->outbox, m);
		break;
	case REMEDY_HOLD:
		outbox_hold(&p->outbox, m, now_ms(p));
		break;
	case REMEDY_NONE:
		break;
	case REMEDY_REPORT:
		give_up(p, m, e->reason, e->counter);
		break;
	}
}

/* The manager stated something anew: what waits for a key may have one. The last first, so that the
 * first stands in front. */
static void take_update(struct pub *p)
{
	struct list *pos, *next;
	unsigned n = 0;

	for (pos = p->outbox.held.prev; pos != &p->outbox.held; pos = next) {
		struct outbox_message *m = list_entry(pos, struct outbox_message, link);

		next = pos->prev;
		if (!has_newer_key(p, m))
			continue;
		outbox_reseal(&p->outbox, m);
		n++;
	}
	if (n)
		log_debug("%u message%s sealed anew under the newer key", n, n == 1 ? "" : "s");
}

/* A newer key does not come for ever. */
static void check_held(struct pub *p)
{
	struct outbox_message *m;

	while (link_is_open(&p->link) && (m = outbox_held(&p->outbox)) &&
	       now_ms(p) - m->held_ms >= HELD_MS && now_ms(p) - p->asked_ms >= HELD_MS) {
		log_warn("no newer key came for the message with counter=%" PRIu64 ": reported",
			 m->counter);
		give_up(p, m, SSDTF_REASON_KEY_ID, m->counter);
	}
}

static void on_event(void *ctx, const struct ssdtf_packet *packet, const struct ssdtf_event *e)
{
	if (e->kind == SSDTF_ERROR)
		take_error(ctx, e);
	else if (e->kind == SSDTF_UPDATED)
		take_update(ctx);
	else
		log_debug("not for a publisher: a message on %.*s", (int)packet->topic.n,
			  (const char *)packet->topic.p);
}

static const struct link_handler handler = {
	.opened = on_opened,
	.closed = on_closed,
	.event = on_event,
	.published = on_published,
	.subscribed = on_subscribed,
};

/* --- the program ------------------------------------------------------------------------------ */

static void open_input(struct pub *p)
{
	const struct options *o = &p->options;
	int fd = STDIN_FILENO;

	switch (o->source) {
	case OPTIONS_SOURCE_NONE:
		return;
	case OPTIONS_SOURCE_MESSAGE:
		input_init_message(&p->input, bytes_str(o->message), o->times, o->delay_ms);
		return;
	case OPTIONS_SOURCE_FILE:
		fd = open(o->message, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			exit_with(EX_NOINPUT, "%s: %s", o->message, strerror(errno));
		break;
	case OPTIONS_SOURCE_LINES:
	case OPTIONS_SOURCE_STDIN:
		break;
	}
	input_init_fd(&p->input, fd, o->source == OPTIONS_SOURCE_LINES, o->times, o->delay_ms);
}

/* The manager's limits hold, but who asked for more should know. */
static void check_rekey(const struct options *o, struct ssdtf_client *c)
{
	struct ssdtf_rekey r;

	if (ssdtf_rekey(c, bytes_str(o->topics[0]), link_time(&o->link), &r))
		return; /* no scope covers the topic: sealing will say so */
	if (o->rekey_messages > r.messages)
		log_warn("--rekey-messages %u: a context of %s's scope serves %u at most, as its "
			 "bundle says",
			 o->rekey_messages, o->topics[0], r.messages);
	if (o->rekey_seconds > r.seconds)
		log_warn("--rekey-seconds %u: a context of %s's scope is kept for %u s at most, as "
			 "its bundle says",
			 o->rekey_seconds, o->topics[0], r.seconds);
}

static void read_input(struct pub *p)
{
	struct pollfd ready = { .fd = input_fd(&p->input), .events = POLLIN };
	int ret;

	if (ready.fd < 0 || outbox_full(&p->outbox) || poll(&ready, 1, 0) <= 0)
		return;
	ret = input_fill(&p->input);
	if (ret == -EMSGSIZE)
		exit_with(EX_DATAERR, "a message of more than %u bytes", INPUT_BYTES_MAX);
	if (ret)
		exit_with(EX_NOINPUT, "input: %s", strerror(-ret));
}

static bool finished(const struct pub *p)
{
	uint32_t wait_s = p->options.wait_s ? p->options.wait_s : WAIT_S;

	if (!p->input_ended)
		return false;
	return !p->outbox.n_active || now_ms(p) - p->ended_ms >= wait_s * 1000ull;
}

/* An acknowledgement that does not come on a session that lives: MQTT 3.1.1 has no other way to ask
 * than to connect anew and send again [MQTT-4.4.0-1]. */
static void check_stalled(struct pub *p)
{
	if (link_is_open(&p->link) && !list_empty(&p->outbox.sent) &&
	    now_ms(p) - p->progress_ms >= STALLED_MS)
		link_reconnect(&p->link, "no acknowledgement for a while");
}

/* 0, or the link's reason to give up. */
static int run(struct pub *p)
{
	uint64_t until;
	int watch, code = 0;
	bool more;

	while (!code && !link_stopped()) {
		read_input(p);
		more = take_input(p);
		send_waiting(p);
		if (finished(p))
			break;
		check_stalled(p);
		check_held(p);
		watch = outbox_full(&p->outbox) ? -1 : input_fd(&p->input);
		until = now_ms(p) + TURN_MS;
		if (!outbox_full(&p->outbox) && input_next_ms(&p->input) < until)
			until = input_next_ms(&p->input);
		/* At QoS 0 the outbox is empty again already. */
		if (more && !outbox_full(&p->outbox))
			until = 0;
		code = link_turn(&p->link, watch, until);
	}
	return code;
}

/* The exit code: what went wrong first in this order. */
static int verdict(const struct pub *p, int code)
{
	if (p->refused)
		log_error("%u message%s refused by the broker", p->refused,
			  p->refused == 1 ? "" : "s");
	if (p->outbox.n_active)
		log_error("%u message%s %s", p->outbox.n_active, p->outbox.n_active == 1 ? "" : "s",
			  p->options.qos ? "unacknowledged" : "not sent");
	if (code) {
		log_error("%s", link_why(&p->link));
		return code;
	}
	if (p->refused)
		return EX_NOPERM;
	return p->outbox.n_active ? EX_TEMPFAIL : EX_OK;
}

int main(int argc, char **argv)
{
	static struct pub p;
	struct party_config config = { .ops = &link_ops, .ctx = &p.link };
	int code;

	options_parse(OPTIONS_PUB, argc, argv, &p.options);
	config.dir = p.options.dir;
	config.id = p.options.id;
	config.zk = p.options.zk;
	config.counter_step = p.options.counter_step;
	config.rekey_messages = p.options.rekey_messages;
	config.rekey_seconds = p.options.rekey_seconds;
	link_catch_signals();
	link_init(&p.link, &p.party, &p.options.link, &handler, &p);
	party_open(&p.party, &config, link_time(&p.options.link));
	check_rekey(&p.options, &p.party.client);
	outbox_init(&p.outbox);
	open_input(&p);
	code = run(&p);
	link_deinit(&p.link);
	code = verdict(&p, code);
	input_deinit(&p.input);
	outbox_deinit(&p.outbox);
	party_close(&p.party);
	return code;
}
