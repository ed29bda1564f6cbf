// SPDX-License-Identifier: MIT
/*
 * ssdtf-claim: a device's first connection (PROTOCOL 15). It makes its own key, proves by a claim
 * code that it may have it certified, and keeps the bundle that it gets: then ssdtf-pub can begin.
 *
 *   code --> session under the claim's key --> claim of the new key --> bundle
 *                        ^---- try again, later ----'
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "userspace/base/log.h"
#include "userspace/client/claimant.h"
#include "userspace/client/link.h"
#include "userspace/client/print.h"

#define ANSWER_MS	30000 /* the claim is made again where no answer came for so long */
#define DELAY_MS_MIN	250   /* before it is made again, because the answer says so */
#define DELAY_MS_MAX	60000
#define ANSWERS_BAD_MAX 3 /* that cannot be used */
#define RETRY_S		30
#define KEEPALIVE_S	60
#define TURN_MS		1000
#define TEXT_SHOWN	200

struct claiming {
	const char *dir, *code_path;
	struct link_options link_options;
	uint32_t wait_s; /* 0: for ever */
	struct claimant claimant;
	struct link link;
	bool waiting;	  /* the claim is made, and next_ms is when the answer is late; */
	uint64_t next_ms; /* else when it is to be made. Of CLOCK_BOOTTIME */
	uint64_t delay_ms;
	unsigned refusals; /* of the link's, that were taken note of */
	unsigned bad;
	int code; /* why to end */
	bool done;
};

static uint64_t now_ms(const struct claiming *c)
{
	return link_time(&c->link_options).mono_ms;
}

static void end(struct claiming *c, int code)
{
	c->done = true;
	c->code = code;
}

/* --- the claim -------------------------------------------------------------------------------- */

static void make_claim(struct claiming *c)
{
	int ret = ssdtf_claim(&c->claimant.party.client, c->claimant.signing,
			      &c->claimant.answer_point);

	if (ret)
		log_warn("the claim could not be sent: %s", strerror(-ret));
	else
		log_debug("claimed: waiting for the manager");
	c->waiting = true;
	c->next_ms = now_ms(c) + ANSWER_MS;
}

static void try_again(struct claiming *c, const char *why)
{
	c->delay_ms = c->delay_ms ? c->delay_ms * 2 : DELAY_MS_MIN;
	if (c->delay_ms > DELAY_MS_MAX)
		c->delay_ms = DELAY_MS_MAX;
	c->waiting = false;
	c->next_ms = now_ms(c) + c->delay_ms;
	log_info("not yet: %s; once more in %g s", why, (double)c->delay_ms / 1000);
}

static void certified(struct claiming *c, const struct ssdtf_event *e)
{
	const char *file;
	int ret = claimant_finish(&c->claimant, e, link_time(&c->link_options), &file);

	if (!ret) {
		log_info("%s is certified: %s has all that ssdtf-pub needs", c->claimant.code.id,
			 c->dir);
		end(c, EX_OK);
	} else if (file) {
		log_error("%s/%s: %s", c->dir, file, strerror(-ret));
		end(c, EX_CANTCREAT);
	} else if (++c->bad < ANSWERS_BAD_MAX) {
		try_again(c, "the bundle that came cannot be used");
	} else {
		log_error("the bundle that came %s", party_bundle_trouble(ret));
		end(c, EX_PROTOCOL);
	}
}

static void take_answer(struct claiming *c, const struct ssdtf_event *e)
{
	char text[TEXT_SHOWN + 1];

	print_clean(e->text, text, sizeof(text));
	switch (e->claim) {
	case CLAIM_CERTIFIED:
		certified(c, e);
		return;
	case CLAIM_REFUSED:
		log_error("the claim is refused: %s", *text ? text : "no reason is given");
		end(c, EX_NOPERM);
		return;
	case CLAIM_TRY_AGAIN:
		try_again(c, *text ? text : "the manager is not there");
		return;
	}
}

/* --- the link's ------------------------------------------------------------------------------- */

static void on_opened(void *ctx)
{
	make_claim(ctx);
}

static void on_closed(void *ctx)
{
	/* The link comes back, and on_opened() claims again. */
}

static void on_event(void *ctx, const struct ssdtf_packet *packet, const struct ssdtf_event *e)
{
	struct claiming *c = ctx;

	if (c->done)
		return;
	if (e->kind == SSDTF_CLAIMED)
		take_answer(c, e);
	else if (e->kind == SSDTF_ERROR && e->reason == SSDTF_REASON_BAD_SIGNATURE)
		c->next_ms = now_ms(c); /* its key is another by now: reconnect */
	else
		log_debug("not for a claim: a message on %.*s", (int)packet->topic.n,
			  (const char *)packet->topic.p);
}

static void on_published(void *ctx, int mid)
{
	/* The answer is what counts. */
}

static void on_subscribed(void *ctx, int n, const int *granted)
{
	/* Nothing was subscribed to. */
}

static const struct link_handler handler = {
	.opened = on_opened,
	.closed = on_closed,
	.event = on_event,
	.published = on_published,
	.subscribed = on_subscribed,
};

/* --- the program ------------------------------------------------------------------------------ */

enum { LONG_HELP = 256, LONG_DIR, LONG_CODE, LONG_RETRY, LONG_NO_CLOCK, LONG_QUIET };

static const struct option long_options[] = {
	{ "help", no_argument, NULL, LONG_HELP },
	{ "dir", required_argument, NULL, LONG_DIR },
	{ "code", required_argument, NULL, LONG_CODE },
	{ "host", required_argument, NULL, 'h' },
	{ "port", required_argument, NULL, 'p' },
	{ "debug", no_argument, NULL, 'd' },
	{ "quiet", no_argument, NULL, LONG_QUIET },
	{ "retry", required_argument, NULL, LONG_RETRY },
	{ "no-clock", no_argument, NULL, LONG_NO_CLOCK },
	{ NULL, 0, NULL, 0 },
};

static const char usage[] =
	"ssdtf-claim --dir DIR --code FILE [options]\n"
	"Makes a device's key and has it certified by the claim code that the manager gave for\n"
	"it. Then DIR is what ssdtf-pub takes. It may be stopped and started again at any time.\n"
	"  --dir DIR             made where it is not there ($SSDTF_DIR); the key stays in it\n"
	"  --code FILE           the claim code, \"SSDTF1:...\"; - is standard input\n"
	"  -h, --host HOST       the broker (localhost)\n"
	"  -p, --port PORT       its port (1883)\n"
	"  -W S                  give up after S seconds (as long as it takes)\n"
	"  --retry S             give up after so many seconds without a session (30)\n"
	"  --no-clock            behave as a device that does not know the time of day\n"
	"  -d, --debug           say what happens, authentication too\n"
	"  --quiet               errors only\n"
	"  --help                this\n"
	"Exit: 0 certified; 65 no claim code, 69 no broker there, 73 DIR cannot be written, 75\n"
	"not within -W, 76 the broker is not the code's, 77 refused.\n";

static uint32_t number(const char *name, const char *text, uint32_t min, uint32_t max)
{
	unsigned long value;
	char *rest;

	errno = 0;
	value = strtoul(text, &rest, 10);
	if (errno || rest == text || *rest || *text == '-' || value < min || value > max)
		exit_with(EX_USAGE, "%s takes a number from %u to %u, not '%s'", name, min, max,
			  text);
	return (uint32_t)value;
}

static void take_option(struct claiming *c, int option, char *arg, enum log_level *level)
{
	switch (option) {
	case LONG_HELP:
		fputs(usage, stdout);
		exit(fflush(stdout) ? EX_IOERR : EX_OK);
	case LONG_DIR:
		c->dir = arg;
		break;
	case LONG_CODE:
		c->code_path = arg;
		break;
	case 'h':
		c->link_options.host = arg;
		break;
	case 'p':
		c->link_options.port = (int)number("-p", arg, 1, 65535);
		break;
	case 'W':
		c->wait_s = number("-W", arg, 1, 1u << 30);
		break;
	case LONG_RETRY:
		c->link_options.retry_s = number("--retry", arg, 0, 1u << 30);
		break;
	case LONG_NO_CLOCK:
		c->link_options.no_clock = true;
		break;
	case 'd':
		*level = LOG_LEVEL_DEBUG;
		break;
	case LONG_QUIET:
		*level = LOG_LEVEL_ERROR;
		break;
	default: /* getopt said which */
		exit_with(EX_USAGE, "--help lists the options");
	}
}

static void parse(struct claiming *c, int argc, char **argv)
{
	enum log_level level = LOG_LEVEL_INFO;
	int option;

	c->dir = getenv("SSDTF_DIR");
	c->link_options = (struct link_options){ .host = "localhost",
						 .port = 1883,
						 .keepalive_s = KEEPALIVE_S,
						 .clean_session = true,
						 .retry_s = RETRY_S,
						 .retry_lost_s = LINK_FOREVER };
	log_init(argv[0], level);
	while ((option = getopt_long(argc, argv, "+h:p:dW:", long_options, NULL)) != -1)
		take_option(c, option, optarg, &level);
	if (optind < argc)
		exit_with(EX_USAGE, "'%s': no arguments are taken, only options", argv[optind]);
	if (!c->dir || !c->code_path)
		exit_with(EX_USAGE, "%s is missing; --help lists the options",
			  c->dir ? "--code" : "--dir");
	log_init(argv[0], level);
}

/* It is time to do something in the session. */
static void act(struct claiming *c)
{
	if (c->waiting)
		link_reconnect(&c->link, "no answer to the claim");
	else
		make_claim(c);
	c->waiting = true;
	c->next_ms = now_ms(c) + ANSWER_MS;
}

/* Its proof was not taken: where the claim was certified before, and the answer lost, the new key
 * is its key. */
static void check_refusals(struct claiming *c)
{
	if (c->link.refusals == c->refusals)
		return;
	if (c->link.refusals > c->refusals) {
		claimant_change_key(&c->claimant, link_time(&c->link_options));
		log_debug("from now on by the %s key", c->claimant.by_new_key ? "new" : "code's");
	}
	c->refusals = c->link.refusals;
}

static void run(struct claiming *c)
{
	uint64_t began = now_ms(c);

	while (!c->done && !link_stopped()) {
		uint64_t until = now_ms(c) + TURN_MS;
		int code;

		if (link_is_open(&c->link) && c->next_ms < until)
			until = c->next_ms;
		code = link_turn(&c->link, -1, until);

		if (code && !c->done) {
			log_error("%s", link_why(&c->link));
			end(c, code);
		}
		check_refusals(c);
		if (!c->done && link_is_open(&c->link) && now_ms(c) >= c->next_ms)
			act(c);
		if (!c->done && c->wait_s && now_ms(c) - began >= c->wait_s * 1000ull) {
			log_error("not certified within %u s", c->wait_s);
			end(c, EX_TEMPFAIL);
		}
	}
}

int main(int argc, char **argv)
{
	static struct claiming c;
	struct claim_code code;

	parse(&c, argc, argv);
	claimant_read_code(c.code_path, &code);
	link_catch_signals();
	link_init(&c.link, &c.claimant.party, &c.link_options, &handler, &c);
	claimant_open(&c.claimant, c.dir, &code, &link_ops, &c.link, link_time(&c.link_options));
	claim_code_wipe(&code);
	if (claimant_is_done(&c.claimant, link_time(&c.link_options))) {
		log_info("%s has its bundle already", c.dir);
		end(&c, EX_OK);
	}
	c.code = c.done ? c.code : EX_TEMPFAIL; /* where a signal ends it */
	run(&c);
	link_deinit(&c.link);
	claimant_close(&c.claimant);
	return c.code;
}
