// SPDX-License-Identifier: MIT
#include "userspace/client/link.h"

#include <errno.h>
#include <mosquitto.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "userspace/base/log.h"
#include "userspace/base/text.h"
#include "userspace/client/dial.h"

#define CONNECT_TIMEOUT_MS 10000 /* of TCP, then of CONNACK and authentication together */
#define DELAY_S_MAX	   30
#define REFUSALS_MAX	   3
#define REFUSAL_MS	   3000 /* an ending later than that behind CONNECT is no refusal */
#define MISC_MS		   1000 /* libmosquitto's keep-alive wants to be called that often */
#define FLUSH_MS	   2000
#define SETTLED_MS	   5000 /* a session that lasted so long was worth coming back to at once */
#define HASH_SHOWN_BYTES   8

/* --- time and signals ------------------------------------------------------------------------- */

static uint64_t clock_ms(clockid_t clock)
{
	struct timespec t;

	BUG_ON(clock_gettime(clock, &t));
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* BOOTTIME, so that a context ages while the machine sleeps. */
struct ssdtf_time link_time(const struct link_options *o)
{
	return (struct ssdtf_time){
		.unix_ms = o->no_clock ? 0 : clock_ms(CLOCK_REALTIME),
		.mono_ms = clock_ms(CLOCK_BOOTTIME),
	};
}

static volatile sig_atomic_t stopped, reload_wanted;

static void on_signal(int signal)
{
	if (signal == SIGHUP)
		reload_wanted = 1;
	else
		stopped = 1;
}

/* They are blocked but for the wait in ppoll(), so that none falls between a look and a wait. */
void link_catch_signals(void)
{
	struct sigaction stop = { .sa_handler = on_signal }, ignore = { .sa_handler = SIG_IGN };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	BUG_ON(sigprocmask(SIG_BLOCK, &set, NULL));
	BUG_ON(sigaction(SIGINT, &stop, NULL) || sigaction(SIGTERM, &stop, NULL) ||
	       sigaction(SIGHUP, &stop, NULL));
	BUG_ON(sigaction(SIGPIPE, &ignore, NULL));
}

bool link_stopped(void)
{
	sigset_t pending;

	if (!sigpending(&pending) &&
	    (sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1))
		stopped = 1;
	return stopped;
}

/* --- trouble ---------------------------------------------------------------------------------- */

static void format_printf(2, 3) trouble(struct link *l, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(l->why, sizeof(l->why), fmt, ap);
	va_end(ap);
	log_debug("%s", l->why);
}

const char *link_why(const struct link *l)
{
	return l->why;
}

/* How long it may take to get a session; LINK_FOREVER: as long as it takes. */
static uint32_t patience_s(const struct link *l)
{
	return l->was_open ? l->options->retry_lost_s : l->options->retry_s;
}

/* Ends the connection, whatever state it is in, and sets the time of the next. */
static void hang_up(struct link *l)
{
	uint64_t now = clock_ms(CLOCK_BOOTTIME);
	bool was_open = ssdtf_is_open(&l->party->client);

	ssdtf_on_disconnect(&l->party->client);
	if (l->mosq)
		mosquitto_destroy(l->mosq);
	l->mosq = NULL;
	l->dropped = false;
	l->deadline_ms = 0;
	if (was_open && now - l->opened_ms >= SETTLED_MS)
		l->delay_s = 0;
	l->next_try_ms = now + l->delay_s * 1000ull;
	l->delay_s = l->delay_s ? l->delay_s * 2 : 1;
	if (l->delay_s > DELAY_S_MAX)
		l->delay_s = DELAY_S_MAX;
	/* Once, until there is a session again; the end of patience says the last trouble. */
	if (!l->complained && !l->end_code && patience_s(l))
		log_warn("%s; trying again", l->why);
	l->complained = true;
	if (was_open) {
		l->trying_since_ms = now;
		l->handler->closed(l->ctx);
	}
}

/* --- libssdtf's callbacks --------------------------------------------------------------------- */

static int ops_publish(void *ctx, const char *topic, const uint8_t *payload, size_t n, uint8_t qos,
		       bool retain)
{
	struct link *l = ctx;

	if (!l->mosq || mosquitto_publish(l->mosq, NULL, topic, (int)n, payload, qos, retain) !=
				MOSQ_ERR_SUCCESS)
		return -EIO;
	return 0;
}

/* Within a callback of libmosquitto the connection cannot end: link_turn() ends it. */
static void ops_disconnect(void *ctx)
{
	struct link *l = ctx;

	l->dropped = true;
}

static int ops_counter_load(void *ctx, uint64_t *ret_mark)
{
	return party_counter_load(((struct link *)ctx)->party, ret_mark);
}

static int ops_counter_reserve(void *ctx, uint64_t mark)
{
	return party_counter_reserve(((struct link *)ctx)->party, mark);
}

static const char *const update_kinds[] = {
	[STATEMENT_SCOPE] = "scope",
	[STATEMENT_GRANT] = "grant",
	[STATEMENT_PARTY] = "party",
	[STATEMENT_BROKER] = "broker",
};

static int ops_statement_store(void *ctx, struct bytes statement, const struct ssdtf_update *what)
{
	log_debug("update: %s %.*s key-id=%lu serial=%llu%s", update_kinds[what->kind],
		  (int)what->name.n, (const char *)what->name.p, (unsigned long)what->key_id,
		  (unsigned long long)what->serial, what->removed ? " removed" : "");
	return party_statement_store(((struct link *)ctx)->party, statement);
}

const struct ssdtf_ops link_ops = {
	.publish = ops_publish,
	.disconnect = ops_disconnect,
	.counter_load = ops_counter_load,
	.counter_reserve = ops_counter_reserve,
	.statement_store = ops_statement_store,
};

/* --- libmosquitto's callbacks ----------------------------------------------------------------- */

static void on_connect(struct mosquitto *m, void *ctx, int code)
{
	struct link *l = ctx;

	switch (code) {
	case 0:
		ssdtf_on_connect(&l->party->client);
		return;
	case 1:
		l->end_code = EX_PROTOCOL;
		break;
	case 3: /* server unavailable: later, perhaps */
		break;
	default:
		l->end_code = EX_NOPERM;
	}
	trouble(l, "%s:%d refuses the connection (CONNACK %d, %s)%s", l->options->host,
		l->options->port, code, mosquitto_connack_string(code),
		code == 5 ? " Is this party enrolled there, and its clock right?" : "");
	l->dropped = true;
}

void link_ask_updates(struct link *l)
{
	int ret = ssdtf_ask_updates(&l->party->client);

	if (ret && ret != -ENOTSUP) /* who has no bundle yet takes none */
		log_warn("what the manager stated anew could not be asked for: %s", strerror(-ret));
}

static void session_opened(struct link *l, const struct ssdtf_event *e)
{
	char hash[TEXT_HEX_SIZE(HASH_SHOWN_BYTES) + 2];

	l->was_open = true;
	l->refusals = 0;
	l->complained = false;
	l->deadline_ms = 0;
	l->opened_ms = clock_ms(CLOCK_BOOTTIME);
	text_short(bytes_of(ssdtf_broker_hash(&l->party->client), HASH_BYTES), HASH_SHOWN_BYTES,
		   hash);
	log_debug("mutual authentication passed: broker %s", hash);
	if (e->counter_lost)
		log_warn("the broker knows counters up to %llu, higher than %s/counter says: "
			 "going on behind it (was the directory restored, or copied?)",
			 (unsigned long long)e->counter, l->party->path);
	if (e->acks_forged)
		log_warn("somebody acknowledged messages that the broker never accepted (it knows "
			 "counters up to %llu)",
			 (unsigned long long)e->counter);
	link_ask_updates(l);
	l->handler->opened(l->ctx);
}

static void updated(const struct ssdtf_event *e)
{
	if (e->updates)
		log_debug("updates: %u taken", e->updates);
	if (e->why)
		log_warn("an update was not taken: %s", e->why);
}

static void take_event(struct link *l, const struct ssdtf_packet *p, const struct ssdtf_event *e)
{
	switch (e->kind) {
	case SSDTF_NOTHING:
		return;
	case SSDTF_AUTHENTICATED:
		session_opened(l, e);
		return;
	case SSDTF_AUTH_FAILED:
		l->end_code = EX_PROTOCOL;
		trouble(l, "the broker at %s:%d failed to prove itself: %s", l->options->host,
			l->options->port, e->why);
		return;
	case SSDTF_UPDATED:
		updated(e);
		l->handler->event(l->ctx, p, e);
		return;
	case SSDTF_MESSAGE:
	case SSDTF_REPLAYED:
	case SSDTF_UNOPENED:
	case SSDTF_ERROR:
	case SSDTF_REPORTED:
	case SSDTF_CLAIMED:
	case SSDTF_IGNORED:
		l->handler->event(l->ctx, p, e);
		return;
	}
}

static void on_message(struct mosquitto *m, void *ctx, const struct mosquitto_message *message)
{
	struct link *l = ctx;
	struct ssdtf_packet p = {
		.topic = bytes_str(message->topic),
		.payload = bytes_of(message->payload, (size_t)message->payloadlen),
		.qos = (uint8_t)message->qos,
		.retain = message->retain,
	};
	struct ssdtf_event e;
	int ret = 0;

	if (l->dropped)
		return;
	if (p.payload.n > l->plain_room) {
		uint8_t *larger = realloc(l->plain, p.payload.n);

		if (larger) {
			l->plain = larger;
			l->plain_room = p.payload.n;
		}
	}
	ret = ssdtf_on_message(&l->party->client, &p, link_time(l->options), l->plain,
			       l->plain_room, &e);
	if (ret)
		log_error("a message on %s is lost: %s", message->topic, strerror(-ret));
	else
		take_event(l, &p, &e);
}

static void on_publish(struct mosquitto *m, void *ctx, int mid)
{
	struct link *l = ctx;

	if (link_is_open(l))
		l->handler->published(l->ctx, mid);
}

static void on_subscribe(struct mosquitto *m, void *ctx, int mid, int n, const int *granted)
{
	struct link *l = ctx;

	l->handler->subscribed(l->ctx, n, granted);
}

static void on_log(struct mosquitto *m, void *ctx, int level, const char *text)
{
	log_debug("%s", text);
}

/* --- connecting ------------------------------------------------------------------------------- */

/* Sealed for each connection, since the broker takes its counter when the session opens. */
static int set_will(struct link *l)
{
	const struct link_options *o = l->options;
	size_t room = SSDTF_SEALED_BYTES(SSDTF_PADDED_BYTES_MAX(o->will_payload.n));
	struct ssdtf_sealed s;
	uint8_t *sealed;
	int ret;

	if (!o->will_topic)
		return 0;
	sealed = malloc(room);
	if (!sealed)
		return -ENOMEM;
	ret = ssdtf_seal_will(&l->party->client, bytes_str(o->will_topic), o->will_payload,
			      o->will_qos, o->will_retain, link_time(o), sealed, room, &s);
	if (!ret && mosquitto_will_set(l->mosq, o->will_topic, (int)s.payload.n, s.payload.p,
				       o->will_qos, o->will_retain) != MOSQ_ERR_SUCCESS)
		ret = -EINVAL;
	free(sealed);
	if (ret) {
		l->end_code = ret == -EACCES || ret == -ETIME ? EX_NOPERM : EX_DATAERR;
		trouble(l, "the Will on %s cannot be sealed: %s", o->will_topic,
			ret == -EACCES	? "no scope of the bundle covers this topic"
			: ret == -ETIME ? "the topic's scope is not valid now"
					: strerror(-ret));
	}
	return ret;
}

static int prepare(struct link *l, struct ssdtf_connect *params)
{
	const struct link_options *o = l->options;
	int ret;

	*params = (struct ssdtf_connect){
		.clean_session = o->clean_session,
		.has_will = o->will_topic,
		.will_qos = o->will_topic ? o->will_qos : 0,
		.will_retain = o->will_topic && o->will_retain,
	};
	l->mosq = mosquitto_new(l->party->id, o->clean_session, l);
	if (!l->mosq)
		return -ENOMEM;
	mosquitto_connect_callback_set(l->mosq, on_connect);
	mosquitto_message_callback_set(l->mosq, on_message);
	mosquitto_publish_callback_set(l->mosq, on_publish);
	mosquitto_subscribe_callback_set(l->mosq, on_subscribe);
	mosquitto_log_callback_set(l->mosq, on_log);
	/* What may be out unacknowledged is the outbox's to say, not the library's. */
	if (mosquitto_max_inflight_messages_set(l->mosq, 0) != MOSQ_ERR_SUCCESS)
		return -EIO;
	ret = set_will(l);
	if (ret)
		return ret;
	ret = ssdtf_connect_params(&l->party->client, params, link_time(o));
	if (ret)
		return ret;
	_Static_assert(sizeof(DIAL_PLACEHOLDER) - 1 == ADMISSION_TOKEN_BYTES,
		       "the token takes the placeholder's room");
	if (mosquitto_username_pw_set(l->mosq, params->user_name, DIAL_PLACEHOLDER) !=
	    MOSQ_ERR_SUCCESS)
		return -ENOMEM;
	return 0;
}

static void try_connect(struct link *l)
{
	const struct link_options *o = l->options;
	struct ssdtf_connect params;
	const char *why;
	int fd, ret;

	l->no_challenge = false;
	ret = dial_tcp(o->host, o->port, CONNECT_TIMEOUT_MS, &fd, &why);
	if (ret == -EINTR)
		return;
	if (ret) {
		trouble(l, "%s:%d: %s", o->host, o->port, why);
		hang_up(l);
		return;
	}
	ret = prepare(l, &params);
	if (ret) {
		(void)close(fd);
		if (!l->end_code)
			trouble(l, "%s:%d: %s", o->host, o->port, strerror(-ret));
		hang_up(l);
		return;
	}
	l->deadline_ms = clock_ms(CLOCK_BOOTTIME) + CONNECT_TIMEOUT_MS;
	ret = dial_mosquitto(l->mosq, fd, o->keepalive_s,
			     bytes_of(params.password, sizeof(params.password)));
	if (ret) {
		trouble(l, "%s:%d: CONNECT: %s", o->host, o->port, strerror(-ret));
		hang_up(l);
	}
}

/* The connection ended before the session was open: what does that say? */
static void ended_early(struct link *l, enum ssdtf_state state, const char *how)
{
	const struct link_options *o = l->options;

	if (l->end_code)
		return;
	switch (state) {
	case SSDTF_OPEN:
	case SSDTF_CLOSED:
		trouble(l, "%s:%d: %s", o->host, o->port, how);
		return;
	case SSDTF_CONNECTING:
		trouble(l, "%s:%d: %s before CONNACK", o->host, o->port, how);
		return;
	case SSDTF_CHALLENGE:
		/* Or its token is away for a while. */
		l->no_challenge = true;
		trouble(l, "%s:%d: %s and sent no challenge: is it an SSDTF broker?", o->host,
			o->port, how);
		return;
	case SSDTF_RESULT:
		break;
	}
	/* A refusal is prompt; what takes longer is a broker in trouble of its own. */
	if (clock_ms(CLOCK_BOOTTIME) + CONNECT_TIMEOUT_MS - l->deadline_ms >= REFUSAL_MS) {
		trouble(l, "%s:%d: %s before it opened the session", o->host, o->port, how);
		return;
	}
	trouble(l, "%s:%d: %s: the broker does not accept this party's proof%s", o->host, o->port,
		how, o->will_topic ? " or Will" : "");
	if (++l->refusals >= REFUSALS_MAX)
		l->end_code = EX_NOPERM;
}

/* --- the loop --------------------------------------------------------------------------------- */

bool link_is_open(const struct link *l)
{
	return l->mosq && !l->dropped && ssdtf_is_open(&l->party->client);
}

void link_init(struct link *l, struct party *p, const struct link_options *o,
	       const struct link_handler *h, void *ctx)
{
	memset(l, 0, sizeof(*l));
	l->party = p;
	l->options = o;
	l->handler = h;
	l->ctx = ctx;
	l->trying_since_ms = clock_ms(CLOCK_BOOTTIME);
	BUG_ON(mosquitto_lib_init() != MOSQ_ERR_SUCCESS);
}

/* Writes what libmosquitto holds, as far as the broker takes it in time. */
static void flush(struct link *l)
{
	uint64_t until = clock_ms(CLOCK_BOOTTIME) + FLUSH_MS;

	while (mosquitto_want_write(l->mosq) && clock_ms(CLOCK_BOOTTIME) < until) {
		struct pollfd p = { .fd = mosquitto_socket(l->mosq), .events = POLLOUT };

		if (p.fd < 0 || poll(&p, 1, FLUSH_MS) < 0 ||
		    mosquitto_loop_write(l->mosq, 1) != MOSQ_ERR_SUCCESS)
			return;
	}
}

/*
 * DISCONNECT, and then the broker is waited for to close: the library closes at once, and a close
 * with anything unread makes TCP reset the connection, which can overtake what was just written.
 */
static void say_goodbye(struct link *l)
{
	uint64_t until = clock_ms(CLOCK_BOOTTIME) + FLUSH_MS;
	struct pollfd p = { .events = POLLIN };
	char unread[4096];

	flush(l);
	p.fd = dup(mosquitto_socket(l->mosq));
	(void)mosquitto_disconnect(l->mosq); /* a connection that is gone needs none */
	flush(l);
	if (p.fd < 0)
		return;
	(void)shutdown(p.fd, SHUT_WR);
	while (clock_ms(CLOCK_BOOTTIME) < until && poll(&p, 1, FLUSH_MS) > 0 &&
	       read(p.fd, unread, sizeof(unread)) > 0)
		;
	(void)close(p.fd);
}

void link_deinit(struct link *l)
{
	if (l->mosq) {
		say_goodbye(l);
		mosquitto_destroy(l->mosq);
		ssdtf_on_disconnect(&l->party->client);
	}
	secret_wipe(l->plain, l->plain_room);
	free(l->plain);
	(void)mosquitto_lib_cleanup(); /* always succeeds */
}

static void read_and_write(struct link *l, short events)
{
	enum ssdtf_state state = l->party->client.session.state;
	int ret = MOSQ_ERR_SUCCESS;

	if (events & (POLLIN | POLLHUP | POLLERR))
		ret = mosquitto_loop_read(l->mosq, 1);
	if (l->party->client.session.state != SSDTF_CLOSED)
		state = l->party->client.session.state;
	if (!ret && !l->dropped && mosquitto_want_write(l->mosq))
		ret = mosquitto_loop_write(l->mosq, 1);
	if (!ret && !l->dropped)
		ret = mosquitto_loop_misc(l->mosq);
	if (l->dropped) {
		/* PROTOCOL 5: who failed to prove itself gets DISCONNECT. */
		say_goodbye(l);
		hang_up(l);
	} else if (ret) {
		ended_early(l, state,
			    ret == MOSQ_ERR_CONN_LOST ? "the connection was closed"
						      : mosquitto_strerror(ret));
		hang_up(l);
	}
}

static void check_deadline(struct link *l, uint64_t now)
{
	enum ssdtf_state state = l->party->client.session.state;

	if (!l->mosq || !l->deadline_ms || now < l->deadline_ms)
		return;
	ended_early(l, state, "the broker is silent");
	hang_up(l);
}

bool link_reload(struct link *l)
{
	int ret = party_reload(l->party, link_time(l->options));

	if (!ret)
		log_info("took a newer bundle: serial=%llu",
			 (unsigned long long)ssdtf_serial(&l->party->client));
	else if (ret == -EALREADY)
		log_debug("%s/bundle is the one in use", l->party->path);
	else
		log_warn("%s/bundle %s; the one in use stays", l->party->path,
			 party_bundle_trouble(ret));
	return !ret;
}

static int wait_ms(const struct link *l, uint64_t now, uint64_t until_ms)
{
	uint64_t at = now + MISC_MS;

	if (until_ms < at)
		at = until_ms;
	if (!l->mosq && l->next_try_ms < at)
		at = l->next_try_ms;
	return at > now ? (int)(at - now) : 0;
}

static bool out_of_patience(struct link *l, uint64_t now)
{
	if (l->end_code)
		return true;
	if (l->mosq || patience_s(l) == LINK_FOREVER ||
	    now - l->trying_since_ms < patience_s(l) * 1000ull)
		return false;
	l->end_code = l->no_challenge ? EX_PROTOCOL : EX_UNAVAILABLE;
	return true;
}

int link_turn(struct link *l, int watch_fd, uint64_t until_ms)
{
	uint64_t now = clock_ms(CLOCK_BOOTTIME);
	struct pollfd fds[2] = { { .fd = -1 }, { .fd = watch_fd, .events = POLLIN } };
	struct timespec wait;
	sigset_t none;
	int ms;

	if (reload_wanted) {
		reload_wanted = 0;
		(void)link_reload(l); /* it has said what came of it */
	}
	if (!l->mosq && now >= l->next_try_ms)
		try_connect(l);
	if (out_of_patience(l, now))
		return l->end_code;
	if (l->mosq) {
		fds[0].fd = mosquitto_socket(l->mosq);
		fds[0].events = POLLIN | (mosquitto_want_write(l->mosq) ? POLLOUT : 0);
	}
	ms = wait_ms(l, now, until_ms);
	wait = (struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l };
	sigemptyset(&none);
	if (ppoll(fds, ARRAY_SIZE(fds), &wait, &none) < 0 && errno != EINTR) {
		trouble(l, "poll: %s", strerror(errno));
		return l->end_code = EX_OSERR;
	}
	if (l->mosq)
		read_and_write(l, fds[0].revents);
	check_deadline(l, clock_ms(CLOCK_BOOTTIME));
	return out_of_patience(l, clock_ms(CLOCK_BOOTTIME)) ? l->end_code : 0;
}

void link_reconnect(struct link *l, const char *why)
{
	trouble(l, "%s:%d: %s", l->options->host, l->options->port, why);
	l->dropped = true;
}

int link_publish(struct link *l, const char *topic, struct bytes payload, uint8_t qos, bool retain,
		 int *ret_mid)
{
	if (!link_is_open(l))
		return -ENOTCONN;
	switch (mosquitto_publish(l->mosq, ret_mid, topic, (int)payload.n, payload.p, qos,
				  retain)) {
	case MOSQ_ERR_SUCCESS:
		return 0;
	case MOSQ_ERR_PAYLOAD_SIZE:
		return -EMSGSIZE;
	case MOSQ_ERR_NO_CONN:
	case MOSQ_ERR_CONN_LOST:
		return -ENOTCONN;
	default:
		return -EIO;
	}
}

int link_subscribe(struct link *l, char *const *topics, int n, uint8_t qos)
{
	if (!link_is_open(l))
		return -ENOTCONN;
	return mosquitto_subscribe_multiple(l->mosq, NULL, n, topics, qos, 0, NULL) ==
			       MOSQ_ERR_SUCCESS
		       ? 0
		       : -EIO;
}
