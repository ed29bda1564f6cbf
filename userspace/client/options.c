// SPDX-License-Identifier: MIT
#include "userspace/client/options.h"

#include <errno.h>
#include <getopt.h>
#include <mosquitto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "userspace/base/log.h"
#include "userspace/base/text.h"
#include "userspace/client/batch.h"

#define RETRY_S		 30
#define KEEPALIVE_S	 60
#define ORIGINS		 1024
#define COUNTER_STEP_MAX 1000000

/* Long options without a letter. */
enum {
	LONG_HELP = 256,
	LONG_QUIET,
	LONG_DIR,
	LONG_AUTH,
	LONG_RETRY,
	LONG_RESERVE,
	LONG_NO_CLOCK,
	LONG_WILL_TOPIC,
	LONG_WILL_PAYLOAD,
	LONG_WILL_QOS,
	LONG_WILL_RETAIN,
	LONG_REPEAT,
	LONG_REPEAT_DELAY,
	LONG_BATCH,
	LONG_REKEY_MESSAGES,
	LONG_REKEY_SECONDS,
	LONG_META,
	LONG_JSON,
	LONG_WIRE,
	LONG_ORIGINS,
};

#define COMMON_LONG                                                                               \
	{ "help", no_argument, NULL, LONG_HELP }, { "dir", required_argument, NULL, LONG_DIR },   \
		{ "host", required_argument, NULL, 'h' },                                         \
		{ "auth", required_argument, NULL, LONG_AUTH },                                   \
		{ "port", required_argument, NULL, 'p' }, { "id", required_argument, NULL, 'i' }, \
		{ "topic", required_argument, NULL, 't' },                                        \
		{ "qos", required_argument, NULL, 'q' },                                          \
		{ "keepalive", required_argument, NULL, 'k' },                                    \
		{ "disable-clean-session", no_argument, NULL, 'c' },                              \
		{ "protocol-version", required_argument, NULL, 'V' },                             \
		{ "debug", no_argument, NULL, 'd' }, { "quiet", no_argument, NULL, LONG_QUIET },  \
		{ "username", required_argument, NULL, 'u' },                                     \
		{ "pw", required_argument, NULL, 'P' },                                           \
		{ "retry", required_argument, NULL, LONG_RETRY },                                 \
		{ "reserve", required_argument, NULL, LONG_RESERVE },                             \
		{ "no-clock", no_argument, NULL, LONG_NO_CLOCK },                                 \
		{ "will-topic", required_argument, NULL, LONG_WILL_TOPIC },                       \
		{ "will-payload", required_argument, NULL, LONG_WILL_PAYLOAD },                   \
		{ "will-qos", required_argument, NULL, LONG_WILL_QOS },                           \
	{                                                                                         \
		"will-retain", no_argument, NULL, LONG_WILL_RETAIN                                \
	}
#define COMMON_SHORT "+h:p:i:t:q:k:cV:du:P:W:"

static const struct option long_pub[] = {
	COMMON_LONG,
	{ "message", required_argument, NULL, 'm' },
	{ "null-message", no_argument, NULL, 'n' },
	{ "file", required_argument, NULL, 'f' },
	{ "stdin-line", no_argument, NULL, 'l' },
	{ "stdin-file", no_argument, NULL, 's' },
	{ "retain", no_argument, NULL, 'r' },
	{ "repeat", required_argument, NULL, LONG_REPEAT },
	{ "repeat-delay", required_argument, NULL, LONG_REPEAT_DELAY },
	{ "batch", required_argument, NULL, LONG_BATCH },
	{ "rekey-messages", required_argument, NULL, LONG_REKEY_MESSAGES },
	{ "rekey-seconds", required_argument, NULL, LONG_REKEY_SECONDS },
	{ NULL, 0, NULL, 0 },
};

static const struct option long_sub[] = {
	COMMON_LONG,
	{ "verbose", no_argument, NULL, 'v' },
	{ "meta", no_argument, NULL, LONG_META },
	{ "json", no_argument, NULL, LONG_JSON },
	{ "dump-wire", no_argument, NULL, LONG_WIRE },
	{ "origins", required_argument, NULL, LONG_ORIGINS },
	{ NULL, 0, NULL, 0 },
};

static const char usage_common[] =
	"  --dir DIR             the party's directory ($SSDTF_DIR): bundle, manager.pub,\n"
	"                        signing.pem, a receiver's encryption.pem; state is kept there\n"
	"  -h, --host HOST       the broker (localhost)\n"
	"  -p, --port PORT       its port (1883)\n"
	"  -q, --qos N           0 (the default), 1 or 2\n"
	"  -i, --id ID           refuse a bundle for another id\n"
	"  --auth zk             authenticate by SSDTF-ZK-1, as it was enrolled (ecdsa: SSDTF-1)\n"
	"  -k, --keepalive S     seconds between pings (60)\n"
	"  -c, --disable-clean-session\n"
	"                        keep the session at the broker after disconnecting (for a\n"
	"                        subscriber with -q 0 or 1)\n"
	"  -d, --debug           say what happens, authentication too\n"
	"  --quiet               errors only\n"
	"  --retry S             give up after so many seconds without a session (30; a\n"
	"                        subscriber that had one goes on trying)\n"
	"  --reserve N           counters reserved by one write of the file counter (1024)\n"
	"  --no-clock            behave as a device that does not know the time of day\n"
	"  --will-topic TOPIC, --will-payload TEXT, --will-qos N, --will-retain\n"
	"                        a message that the broker publishes if the connection breaks\n"
	"  --help                this\n"
	"SIGHUP makes it take the directory's bundle anew.\n";

static const char usage_pub[] =
	"ssdtf-pub --dir DIR -t TOPIC {-m TEXT | -f FILE | -l | -s | -n} [options]\n"
	"Seals, signs and publishes messages through an SSDTF broker.\n"
	"  -t, --topic TOPIC     where to\n"
	"  -m, --message TEXT    one message\n"
	"  -f, --file FILE       a file's bytes as one message\n"
	"  -l, --stdin-line      one message per line of standard input\n"
	"  -s, --stdin-file      standard input as one message\n"
	"  -n, --null-message    an empty message\n"
	"  -r, --retain          the broker keeps the last one for those who subscribe later\n"
	"  --repeat N            publish the message N times,\n"
	"  --repeat-delay S      S seconds (0.5) apart\n"
	"  --batch N             sign up to N messages at once that are there together (64);\n"
	"                        none waits for others\n"
	"  --rekey-messages N, --rekey-seconds S\n"
	"                        a new HPKE context after N messages (1: for each), and after S\n"
	"                        seconds; the bundle's limits hold where they are lower\n"
	"  -W S                  wait so long for acknowledgements at the end (30)\n";

static const char usage_sub[] =
	"ssdtf-sub --dir DIR -t FILTER [-t FILTER]... [options]\n"
	"Subscribes through an SSDTF broker; verifies, opens and prints messages.\n"
	"  -t, --topic FILTER    what to subscribe to\n"
	"  -v, --verbose         the topic before each message\n"
	"  -N                    no newline after each message\n"
	"  -R                    not those that were retained\n"
	"  -C N                  end after N messages\n"
	"  -W S                  end after S seconds of session\n"
	"  --meta                a line before each message: origin, counter, grant, x(E'), proof\n"
	"  --dump-wire           a line before each message: its bytes as delivered, shortened\n"
	"  --json                each message as one JSON object on a line\n"
	"  --origins N           how many origins' replay windows to keep (1024)\n";

static void help(enum options_program program)
{
	printf("%s%s", program == OPTIONS_PUB ? usage_pub : usage_sub, usage_common);
	exit(fflush(stdout) ? EX_IOERR : EX_OK);
}

static uint32_t number(const char *name, const char *text, uint32_t min, uint32_t max)
{
	unsigned long value;
	char *end;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || value < min || value > max)
		exit_with(EX_USAGE, "%s takes a number from %u to %u, not '%s'", name, min, max,
			  text);
	return (uint32_t)value;
}

/* Seconds with a fraction to milliseconds. */
static uint32_t seconds(const char *name, const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= 0 && value <= 86400))
		exit_with(EX_USAGE, "%s takes seconds from 0 to 86400, not '%s'", name, text);
	return (uint32_t)(value * 1000);
}

static void set_source(struct options *o, enum options_source source, const char *message)
{
	if (o->source != OPTIONS_SOURCE_NONE)
		exit_with(EX_USAGE, "only one of -m, -f, -l, -s and -n");
	o->source = source;
	o->message = message;
}

static void add_topic(struct options *o, char *topic)
{
	if (o->n_topics == OPTIONS_TOPICS_MAX)
		exit_with(EX_USAGE, "more than %d topics", OPTIONS_TOPICS_MAX);
	o->topics[o->n_topics++] = topic;
}

static bool take_will(int c, char *arg, struct options *o)
{
	switch (c) {
	case LONG_WILL_TOPIC:
		o->link.will_topic = arg;
		return true;
	case LONG_WILL_PAYLOAD:
		o->link.will_payload = bytes_str(arg);
		return true;
	case LONG_WILL_QOS:
		o->link.will_qos = (uint8_t)number("--will-qos", arg, 0, 2);
		return true;
	case LONG_WILL_RETAIN:
		o->link.will_retain = true;
		return true;
	}
	return false;
}

static bool take_connection(int c, char *arg, struct options *o)
{
	switch (c) {
	case 'h':
		o->link.host = arg;
		return true;
	case 'p':
		o->link.port = (int)number("-p", arg, 1, 65535);
		return true;
	case 'k':
		o->link.keepalive_s = (int)number("-k", arg, 5, 65535);
		return true;
	case 'c':
		o->link.clean_session = false;
		return true;
	case LONG_RETRY:
		o->link.retry_s = o->link.retry_lost_s = number("--retry", arg, 0, 1u << 30);
		return true;
	case LONG_NO_CLOCK:
		o->link.no_clock = true;
		return true;
	case 'V':
		if (strcmp(arg, "mqttv311") && strcmp(arg, "311"))
			exit_with(EX_USAGE, "-V: this client speaks MQTT 3.1.1 only");
		return true;
	case 'u':
	case 'P':
		exit_with(EX_USAGE,
			  "-%c: User Name and Password carry the session's nonce and "
			  "admission token; keys in --dir take their place",
			  c);
	}
	return take_will(c, arg, o);
}

static bool take_common(int c, char *arg, struct options *o)
{
	switch (c) {
	case LONG_AUTH:
		o->zk = !strcmp(arg, "zk");
		if (!o->zk && strcmp(arg, "ecdsa"))
			exit_with(EX_USAGE, "--auth: zk or ecdsa, not \"%s\"", arg);
		return true;
	case LONG_DIR:
		o->dir = arg;
		return true;
	case 'i':
		o->id = arg;
		return true;
	case 't':
		add_topic(o, arg);
		return true;
	case 'q':
		o->qos = (uint8_t)number("-q", arg, 0, 2);
		return true;
	case 'd':
		o->debug = true;
		return true;
	case LONG_QUIET:
		o->quiet = true;
		return true;
	case 'W':
		o->wait_s = number("-W", arg, 1, 1u << 30);
		return true;
	case LONG_RESERVE:
		o->counter_step = number("--reserve", arg, 1, COUNTER_STEP_MAX);
		return true;
	}
	return take_connection(c, arg, o);
}

static bool take_pub(int c, char *arg, struct options *o)
{
	switch (c) {
	case 'm':
		set_source(o, OPTIONS_SOURCE_MESSAGE, arg);
		return true;
	case 'n':
		set_source(o, OPTIONS_SOURCE_MESSAGE, "");
		return true;
	case 'f':
		set_source(o, OPTIONS_SOURCE_FILE, arg);
		return true;
	case 'l':
		set_source(o, OPTIONS_SOURCE_LINES, NULL);
		return true;
	case 's':
		set_source(o, OPTIONS_SOURCE_STDIN, NULL);
		return true;
	case 'r':
		o->retain = true;
		return true;
	case LONG_REPEAT:
		o->times = number("--repeat", arg, 1, UINT32_MAX);
		return true;
	case LONG_REPEAT_DELAY:
		o->delay_ms = seconds("--repeat-delay", arg);
		return true;
	case LONG_BATCH:
		o->batch = number("--batch", arg, 1, BATCH_MAX);
		return true;
	case LONG_REKEY_MESSAGES:
		o->rekey_messages = number("--rekey-messages", arg, 1, SSDTF_CONTEXT_MESSAGES_MAX);
		return true;
	case LONG_REKEY_SECONDS:
		o->rekey_seconds = number("--rekey-seconds", arg, 1, SSDTF_CONTEXT_SECONDS_MAX);
		return true;
	}
	return false;
}

static bool take_sub(int c, char *arg, struct options *o)
{
	switch (c) {
	case 'v':
		o->verbose = true;
		return true;
	case 'N':
		o->no_newline = true;
		return true;
	case 'R':
		o->no_retained = true;
		return true;
	case 'C':
		o->count = number("-C", arg, 1, UINT32_MAX);
		return true;
	case LONG_META:
		o->meta = true;
		return true;
	case LONG_JSON:
		o->json = true;
		return true;
	case LONG_WIRE:
		o->wire = true;
		return true;
	case LONG_ORIGINS:
		o->n_origins = number("--origins", arg, 1, 1000000);
		return true;
	}
	return false;
}

static void check_topics(enum options_program program, const struct options *o)
{
	if (!o->n_topics)
		exit_with(EX_USAGE, "-t is missing; --help lists the options");
	for (int i = 0; i < o->n_topics; i++) {
		if (program == OPTIONS_PUB && mosquitto_pub_topic_check(o->topics[i]))
			exit_with(EX_USAGE, "-t '%s': not the name of a topic", o->topics[i]);
		if (program == OPTIONS_SUB && mosquitto_sub_topic_check(o->topics[i]))
			exit_with(EX_USAGE, "-t '%s': not a topic filter", o->topics[i]);
	}
	if (program == OPTIONS_PUB && o->n_topics > 1)
		exit_with(EX_USAGE, "-t may be given once");
	if (o->link.will_topic && mosquitto_pub_topic_check(o->link.will_topic))
		exit_with(EX_USAGE, "--will-topic '%s': not the name of a topic",
			  o->link.will_topic);
}

static void check(enum options_program program, const struct options *o)
{
	const struct link_options *l = &o->link;

	if (!o->dir)
		exit_with(EX_USAGE, "--dir is missing; --help lists the options");
	if (o->id && !text_is_id(bytes_str(o->id)))
		exit_with(EX_USAGE, "-i: an id is 1 to 64 of A-Z a-z 0-9 . _ : -");
	if (!l->will_topic && (l->will_payload.n || l->will_qos || l->will_retain))
		exit_with(EX_USAGE, "a Will needs --will-topic");
	if (program == OPTIONS_PUB && o->source == OPTIONS_SOURCE_NONE)
		exit_with(EX_USAGE, "one of -m, -f, -l, -s or -n is missing");
	if (o->source == OPTIONS_SOURCE_LINES && o->times > 1)
		exit_with(EX_USAGE, "--repeat does not go with -l");
	/* link.h says why. */
	if (program == OPTIONS_SUB && o->qos == 2 && !l->clean_session)
		exit_with(EX_USAGE, "-q 2 does not go with -c: a message between PUBREC and PUBREL "
				    "would be lost with the connection. At -q 1 each comes once, "
				    "too: its counter sees to that");
	check_topics(program, o);
}

void options_parse(enum options_program program, int argc, char **argv, struct options *ret_o)
{
	bool pub = program == OPTIONS_PUB;
	struct options o = {
		.link = { .host = "localhost",
			  .port = 1883,
			  .keepalive_s = KEEPALIVE_S,
			  .clean_session = true,
			  .retry_s = RETRY_S,
			  .retry_lost_s = pub ? RETRY_S : LINK_FOREVER },
		.dir = getenv("SSDTF_DIR"),
		.times = 1,
		.delay_ms = 500,
		.batch = BATCH_MAX,
		.n_origins = ORIGINS,
	};
	int c;

	log_init(argv[0], LOG_LEVEL_INFO);
	while ((c = getopt_long(argc, argv, pub ? COMMON_SHORT "m:nf:lsr" : COMMON_SHORT "vNRC:",
				pub ? long_pub : long_sub, NULL)) != -1) {
		if (c == LONG_HELP)
			help(program);
		if (!take_common(c, optarg, &o) &&
		    !(pub ? take_pub(c, optarg, &o) : take_sub(c, optarg, &o)))
			exit_with(EX_USAGE, "--help lists the options"); /* getopt said which */
	}
	if (optind < argc)
		exit_with(EX_USAGE, "'%s': no arguments are taken, only options", argv[optind]);
	check(program, &o);
	log_init(argv[0], o.debug ? LOG_LEVEL_DEBUG : o.quiet ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO);
	*ret_o = o;
}
