// SPDX-License-Identifier: MIT
#include "userspace/manager/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/bundle/claim.h"
#include "userspace/bundle/online.h"
#include "userspace/client/link.h"
#include "userspace/client/party.h"

#define KEEPALIVE_S 60

struct session {
	struct party party;
	struct link link;
	struct link_options options;
	const struct session_handler *handler;
	void *ctx;
	struct ssdtf_numbers bundle, claim;
};

static void on_opened(void *ctx)
{
	struct session *s = ctx;

	s->bundle = s->claim = (struct ssdtf_numbers){ 0 };
	s->handler->opened(s->ctx);
}

static void on_closed(void *ctx)
{
}

/* Forged, of another session, or a copy: no matter. */
static void take_control(struct session *s, const struct ssdtf_packet *p,
			 struct ssdtf_numbers *numbers, void (*take)(void *ctx, struct bytes body))
{
	struct bytes body;

	if (!ssdtf_control_open(&s->party.client, p, numbers, &body))
		take(s->ctx, body);
}

static void on_event(void *ctx, const struct ssdtf_packet *p, const struct ssdtf_event *e)
{
	struct session *s = ctx;
	struct ssdtf_report report;

	if (bytes_equal(p->topic, bytes_str(ONLINE_TOPIC)))
		take_control(s, p, &s->bundle, s->handler->bundle);
	else if (bytes_equal(p->topic, bytes_str(CLAIM_TOPIC)))
		take_control(s, p, &s->claim, s->handler->claim);
	else if (bytes_equal(p->topic, bytes_str(SSDTF_TOPIC_REPORT)) &&
		 !ssdtf_report_open(&s->party.client, p, &report))
		s->handler->report(s->ctx, &report);
}

static void on_published(void *ctx, int mid)
{
}

static void on_subscribed(void *ctx, int n, const int *granted)
{
}

static const struct link_handler handler = {
	.opened = on_opened,
	.closed = on_closed,
	.event = on_event,
	.published = on_published,
	.subscribed = on_subscribed,
};

struct session *session_new(const struct session_options *o, const struct session_handler *h,
			    void *ctx)
{
	struct session *s = calloc(1, sizeof(*s));
	const struct party_config config = {
		.dir = o->dir,
		.id = o->id,
		.ops = &link_ops,
		.ctx = s ? &s->link : NULL,
	};

	if (!s)
		return NULL;
	s->handler = h;
	s->ctx = ctx;
	s->options = (struct link_options){
		.host = o->host,
		.port = o->port,
		.keepalive_s = KEEPALIVE_S,
		.clean_session = true,
		.retry_s = o->patience_s ? o->patience_s : LINK_FOREVER,
		.retry_lost_s = o->patience_s ? o->patience_s : LINK_FOREVER,
	};
	link_catch_signals();
	link_init(&s->link, &s->party, &s->options, &handler, s);
	party_open(&s->party, &config, link_time(&s->options));
	return s;
}

void session_free(struct session *s)
{
	if (!s)
		return;
	link_deinit(&s->link);
	party_close(&s->party);
	secret_wipe(s, sizeof(*s));
	free(s);
}

int session_turn(struct session *s, uint64_t until_ms)
{
	return link_turn(&s->link, -1, until_ms);
}

const char *session_why(const struct session *s)
{
	return link_why(&s->link);
}

bool session_is_open(const struct session *s)
{
	return link_is_open(&s->link);
}

bool session_stopped(void)
{
	return link_stopped();
}

uint64_t session_now_ms(const struct session *s)
{
	return link_time(&s->options).mono_ms;
}

struct bytes session_gateway(const struct session *s)
{
	return ssdtf_gateway(&s->party.client);
}

int session_say(struct session *s, const char *topic, struct bytes body)
{
	struct ssdtf_numbers *numbers = strcmp(topic, ONLINE_TOPIC) ? &s->claim : &s->bundle;
	size_t n = body.n + SSDTF_CONTROL_END_BYTES;
	uint8_t *payload = malloc(n);
	int mid, err;

	if (!payload)
		return -ENOMEM;
	err = ssdtf_control_write(&s->party.client, topic, numbers, body, payload);
	if (!err)
		err = link_publish(&s->link, topic, bytes_of(payload, n), 0, false, &mid);
	free(payload);
	return err;
}
