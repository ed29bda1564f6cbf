/* SPDX-License-Identifier: MIT */
/*
 * The session that ssdtf-pub and ssdtf-sub share: libmosquitto carries, libssdtf speaks, this file
 * connects, waits, reconnects and gives up.
 *
 * Each connection is a fresh struct mosquitto. An old one would repeat its unacknowledged messages
 * right behind CONNACK, before authentication, which ends the connection (PROTOCOL 5); so who
 * publishes keeps them, and publishes them again from opened(). At QoS 2 this begins a new exchange
 * under a new packet id, in whichever state the old one was: the counter, not the packet id, is
 * what the broker knows a message by (PROTOCOL 4).
 *
 * At QoS 2 the library keeps what came until PUBREL and hands it over then. With the object goes
 * what lies between PUBREC and PUBREL; in a session that outlives the connection the broker would
 * send PUBREL alone, and the message would be lost. The object cannot be kept either: 2.0 does not
 * know a PUBLISH that is repeated [MQTT-4.4.0-1] by its packet id, keeps both, and at PUBREL hands
 * over the first; the second then stands in the way of the next message with that id. So a session
 * that is kept is subscribed to at QoS 0 or 1, and repeated messages are known by their counters.
 *
 * libmosquitto 2.0 sends a message's PUBACK before it hands the message over. A nack of ours
 * therefore comes after it, and the broker answers it if it still can.
 *
 * One thread. Handlers are called from within link_turn() and may call link_is_open(),
 * link_publish(), link_subscribe(), link_reload() and link_ask_updates(), no other function of this
 * header.
 */
#ifndef SSDTF_CLIENT_LINK_H
#define SSDTF_CLIENT_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "userspace/client/lib/ssdtf.h"
#include "userspace/client/party.h"

struct mosquitto;

#define LINK_FOREVER UINT32_MAX

struct link_options {
	const char *host;
	int port;
	int keepalive_s;
	bool clean_session;
	bool no_clock;		/* as a device that does not know the time of day */
	uint32_t retry_s;	/* give up when there was no session for so long, */
	uint32_t retry_lost_s;	/* and for so long after there was one */
	const char *will_topic; /* NULL: no Will */
	struct bytes will_payload;
	uint8_t will_qos;
	bool will_retain;
};

struct link_handler {
	/* The session is open. */
	void (*opened)(void *ctx);
	/* It is not any more; what was published may or may not have arrived. */
	void (*closed)(void *ctx);
	/* MESSAGE, REPLAYED, UNOPENED, ERROR, REPORTED, UPDATED, CLAIMED, IGNORED. */
	void (*event)(void *ctx, const struct ssdtf_packet *packet,
		      const struct ssdtf_event *event);
	/* QoS 0: written. QoS 1: PUBACK. QoS 2: PUBCOMP. May come before link_publish() returns. */
	void (*published)(void *ctx, int mid);
	/* SUBACK; a granted QoS of 0x80 is a refusal. */
	void (*subscribed)(void *ctx, int n, const int *granted);
};

struct link {
	const struct link_options *options;
	const struct link_handler *handler;
	void *ctx;
	struct party *party;
	struct mosquitto *mosq; /* NULL: no connection */
	uint8_t *plain;
	size_t plain_room;
	bool was_open;	   /* there was a session */
	bool dropped;	   /* the connection is to be ended */
	bool no_challenge; /* the last connection brought CONNACK 0 and nothing more */
	bool complained;   /* of being without a session */
	unsigned refusals; /* authentications in a row that the broker did not take */
	unsigned delay_s;
	uint64_t deadline_ms; /* until which the session must be open; all of CLOCK_BOOTTIME */
	uint64_t next_try_ms;
	uint64_t opened_ms;
	uint64_t trying_since_ms;
	int end_code;  /* from sysexits.h: give up, and why */
	char why[256]; /* the last trouble */
};

/* Of ssdtf_ops, for party_config: the context is a struct link. */
extern const struct ssdtf_ops link_ops;

struct ssdtf_time link_time(const struct link_options *o);
/* From now on SIGINT and SIGTERM end link_turn()'s waiting, and SIGHUP makes it take a new bundle.
 */
void link_catch_signals(void);
bool link_stopped(void);

void link_init(struct link *l, struct party *p, const struct link_options *o,
	       const struct link_handler *h, void *ctx);
/* Says DISCONNECT where there is a connection. */
void link_deinit(struct link *l);

/* Takes the file "bundle" as it is now, and says so. True: it was a newer one. */
bool link_reload(struct link *l);

/*
 * Connects where it is time to, waits for something to happen and handles it. Waits until until_ms
 * (CLOCK_BOOTTIME), watch_fd is readable (-1: none) or a signal comes, whatever is first. 0, or the
 * exit code with which to give up; link_why() then says why.
 */
int link_turn(struct link *l, int watch_fd, uint64_t until_ms) must_check;
const char *link_why(const struct link *l);

bool link_is_open(const struct link *l);
/* As when a session opens: SSDTF_UPDATED comes if there is anything newer. */
void link_ask_updates(struct link *l);
/* Ends the connection at the end of this turn (or the next); another follows. */
void link_reconnect(struct link *l, const char *why);
/* *ret_mid is set before anything else happens. -ENOTCONN, -EMSGSIZE, -EIO. */
int link_publish(struct link *l, const char *topic, struct bytes payload, uint8_t qos, bool retain,
		 int *ret_mid) must_check;
int link_subscribe(struct link *l, char *const *topics, int n, uint8_t qos) must_check;

#endif
