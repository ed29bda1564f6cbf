// SPDX-License-Identifier: MIT
/*
 * The MQTT 3.1.1 codec: each packet there and back, each cut short, each wrong in every way that
 * the standard names (the clause stands in the case), and anything at all without a read too far.
 * Frames and bodies under test lie in blocks of exactly their size, for the address sanitizer.
 */
#include "tests/harness.h"

#include <stdlib.h>
#include <string.h>

#include "tests/mqtt_recode.h"
#include "userspace/base/text.h"

#define NO_LIMIT     UINT32_MAX
#define WIRE_MAX     512 /* of the packets in tables */
#define RANDOM_TURNS 20000

/* --- tools ------------------------------------------------------------------------------------ */

static uint8_t *copy_of(struct bytes v)
{
	uint8_t *p = malloc(v.n ? v.n : 1);

	ASSERT_TRUE(p);
	if (v.n)
		memcpy(p, v.p, v.n);
	return p;
}

/* Hex with spaces between bytes to a block of exactly their size. */
static struct bytes from_hex(const char *spaced)
{
	char hex[2 * WIRE_MAX];
	size_t n = 0;
	uint8_t out[WIRE_MAX];

	for (; *spaced; spaced++) {
		if (*spaced == ' ')
			continue;
		ASSERT_LT(n, sizeof(hex));
		hex[n++] = *spaced;
	}
	ASSERT_EQ(text_unhex(bytes_of(hex, n), out, n / 2), 0);
	return bytes_of(copy_of(bytes_of(out, n / 2)), n / 2);
}

static void drop(struct bytes v)
{
	free((void *)(uintptr_t)v.p);
}

/* What a server makes of a packet: the frame's verdict, or its decoder's. Only whole packets. */
static enum mqtt_reason verdict(struct bytes wire)
{
	struct mqtt_frame f = { 0 };
	size_t used = 0, need = 0;
	enum mqtt_reason reason = mqtt_frame_next(wire, NO_LIMIT, &f, &used, &need);
	uint8_t *out;
	struct bytes_writer w;

	if (reason != MQTT_OK)
		return reason;
	ASSERT_EQ(used, wire.n);
	out = malloc(wire.n);
	ASSERT_TRUE(out);
	w = bytes_writer_of(out, wire.n);
	reason = mqtt_recode(&f, &w);
	if (reason == MQTT_OK) {
		ASSERT_FALSE(w.bad);
		ASSERT_EQ(w.used, wire.n);
		ASSERT_BYTES(out, wire.p, wire.n);
	}
	free(out);
	return reason;
}

/* The body of a whole packet, cut to n bytes and with a fixed header that says so. */
static struct bytes with_body_of(struct bytes wire, size_t n)
{
	uint8_t *p = malloc(2 + n);

	ASSERT_TRUE(p);
	ASSERT_LT(n, 128);
	p[0] = wire.p[0];
	p[1] = (uint8_t)n;
	memcpy(p + 2, wire.p + 2, n);
	return bytes_of(p, 2 + n);
}

/* --- whole packets ---------------------------------------------------------------------------- */

struct packet {
	const char *name, *hex;
	/* Bodies cut short that are packets, too: a payload or a list that ends earlier. */
	unsigned cut_ok;
	bool more_ok; /* 00 at the end of the body makes another packet */
};

static const struct packet packets[] = {
	{ "CONNECT, least", "10 0c 0004 4d515454 04 02 0000 0000", 0, false },
	{ "CONNECT, a client id, kept session", "10 0f 0004 4d515454 04 00 003c 0003 646576", 0,
	  false },
	{ "CONNECT, Will", "10 15 0004 4d515454 04 2e ffff 0001 61 0001 74 0003 000102", 0, false },
	{ "CONNECT, user name", "10 10 0004 4d515454 04 82 003c 0000 0002 c3a9", 0, false },
	{ "CONNECT, user name and password, empty", "10 10 0004 4d515454 04 c2 003c 0000 0000 0000",
	  0, false },
	{ "CONNECT, all",
	  "10 21 0004 4d515454 04 f4 003c 0001 61 0005 742f75 2f76 0002 6d73 0002 7573 0003 00ff80",
	  0, false },
	{ "CONNACK, accepted", "20 02 00 00", 0, false },
	{ "CONNACK, session present", "20 02 01 00", 0, false },
	{ "CONNACK, refused", "20 02 00 05", 0, false },
	{ "PUBLISH, QoS 0", "30 08 0003 612f62 010203", 3, true },
	{ "PUBLISH, QoS 0, no payload, RETAIN", "31 05 0003 612f62", 0, true },
	{ "PUBLISH, QoS 1", "32 0a 0003 612f62 ffff 010203", 3, true },
	{ "PUBLISH, QoS 2, DUP, RETAIN", "3d 07 0003 612f62 0001", 0, true },
	{ "PUBACK", "40 02 0001", 0, false },
	{ "PUBREC", "50 02 ffff", 0, false },
	{ "PUBREL", "62 02 0100", 0, false },
	{ "PUBCOMP", "70 02 0001", 0, false },
	{ "SUBSCRIBE", "82 06 0001 0001 23 00", 0, false },
	{ "SUBSCRIBE, three", "82 12 0001 0001 23 00 0003 2b2f62 01 0003 612f23 02", 2, false },
	{ "SUBACK", "90 03 0001 00", 0, true },
	{ "SUBACK, four", "90 06 0001 00 01 02 80", 3, true },
	{ "UNSUBSCRIBE", "a2 05 0001 0001 2b", 0, false },
	{ "UNSUBSCRIBE, two", "a2 0a 0001 0003 2b2f62 0001 23", 1, false },
	{ "UNSUBACK", "b0 02 0001", 0, false },
	{ "PINGREQ", "c0 00", 0, false },
	{ "PINGRESP", "d0 00", 0, false },
	{ "DISCONNECT", "e0 00", 0, false },
};

TEST(round_trip)
{
	for (size_t i = 0; i < ARRAY_SIZE(packets); i++) {
		struct bytes wire = from_hex(packets[i].hex);

		if (verdict(wire) != MQTT_OK)
			harness_fail(__FILE__, __LINE__, false, "%s: %s", packets[i].name,
				     mqtt_reason_name(verdict(wire)));
		drop(wire);
	}
}

/* Of a stream that ends early, mqtt_frame_next says how much is missing. */
TEST(truncated_streams)
{
	for (size_t i = 0; i < ARRAY_SIZE(packets); i++) {
		struct bytes wire = from_hex(packets[i].hex);

		for (size_t n = 0; n < wire.n; n++) {
			struct bytes cut = bytes_of(copy_of(bytes_of(wire.p, n)), n);
			struct mqtt_frame f = { 0 };
			size_t used = 1, need = 0;

			ASSERT_EQ(mqtt_frame_next(cut, NO_LIMIT, &f, &used, &need), MQTT_OK);
			EXPECT_EQ(used, 0);
			EXPECT_EQ(need, n < 2 ? 2 : wire.n);
			EXPECT_TRUE(!f.body.p && !f.first);
			drop(cut);
		}
		drop(wire);
	}
}

TEST(truncated_bodies)
{
	for (size_t i = 0; i < ARRAY_SIZE(packets); i++) {
		struct bytes wire = from_hex(packets[i].hex);
		unsigned ok = 0;

		for (size_t n = 0; n + 2 < wire.n; n++) {
			struct bytes cut = with_body_of(wire, n);

			ok += verdict(cut) == MQTT_OK;
			drop(cut);
		}
		if (ok != packets[i].cut_ok)
			harness_fail(__FILE__, __LINE__, false, "%s: %u of its truncations decode",
				     packets[i].name, ok);
		drop(wire);
	}
}

TEST(bytes_left_over)
{
	for (size_t i = 0; i < ARRAY_SIZE(packets); i++) {
		struct bytes wire = from_hex(packets[i].hex);
		uint8_t *p = calloc(1, wire.n + 1);

		ASSERT_TRUE(p);
		memcpy(p, wire.p, wire.n);
		p[1]++;
		if ((verdict(bytes_of(p, wire.n + 1)) == MQTT_OK) != packets[i].more_ok)
			harness_fail(__FILE__, __LINE__, false, "%s: with a byte more",
				     packets[i].name);
		free(p);
		drop(wire);
	}
}

/* An encoder that lacks room says so and stays within what it has. */
TEST(no_room)
{
	for (size_t i = 0; i < ARRAY_SIZE(packets); i++) {
		struct bytes wire = from_hex(packets[i].hex);
		struct mqtt_frame f = { 0 };
		size_t used = 0, need = 0;

		ASSERT_EQ(mqtt_frame_next(wire, NO_LIMIT, &f, &used, &need), MQTT_OK);
		for (size_t room = 0; room < wire.n; room++) {
			uint8_t *out = malloc(room ? room : 1);
			struct bytes_writer w = bytes_writer_of(out, room);

			ASSERT_EQ(mqtt_recode(&f, &w), MQTT_OK);
			EXPECT_TRUE(w.bad);
			free(out);
		}
		drop(wire);
	}
}

/* All of them in one stream, which arrives in pieces of each size: a reader that waits for what it
 * is told to wait for finds every packet, and is never made to wait for more than there is. */
TEST(stream_in_pieces)
{
	uint8_t stream[ARRAY_SIZE(packets) * WIRE_MAX];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(packets); i++) {
		struct bytes wire = from_hex(packets[i].hex);

		memcpy(stream + n, wire.p, wire.n);
		n += wire.n;
		drop(wire);
	}
	for (size_t piece = 1; piece <= 64; piece++) {
		size_t at = 0, have = 0, found = 0;

		while (at < n) {
			struct mqtt_frame f;
			size_t used = 0, need = 0;

			ASSERT_EQ(mqtt_frame_next(bytes_of(stream + at, have - at), NO_LIMIT, &f,
						  &used, &need),
				  MQTT_OK);
			at += used;
			found += used > 0;
			if (used)
				continue;
			ASSERT_LE(at + need, n);
			while (have < at + need)
				have += have + piece < n ? piece : n - have;
		}
		EXPECT_EQ(found, ARRAY_SIZE(packets));
	}
}

TEST(fields)
{
	struct bytes wire = from_hex(packets[5].hex);
	struct mqtt_frame f = { 0 };
	struct mqtt_connect c = { 0 };
	size_t used, need;

	ASSERT_STREQ(packets[5].name, "CONNECT, all");
	ASSERT_EQ(mqtt_frame_next(wire, NO_LIMIT, &f, &used, &need), MQTT_OK);
	EXPECT_EQ(mqtt_frame_type(&f), MQTT_CONNECT);
	ASSERT_EQ(mqtt_decode_connect(f.body, &c), MQTT_OK);
	EXPECT_EQ(c.level, 4);
	EXPECT_EQ(c.flags, 0xf4);
	EXPECT_FALSE(c.clean_session);
	EXPECT_EQ(c.keepalive_s, 60);
	EXPECT_TRUE(bytes_equal(c.client_id, bytes_str("a")));
	EXPECT_TRUE(c.has_will && c.has_user_name && c.has_password);
	EXPECT_TRUE(bytes_equal(c.will.topic, bytes_str("t/u/v")));
	EXPECT_TRUE(bytes_equal(c.will.payload, bytes_str("ms")));
	EXPECT_EQ(c.will.qos, 2);
	EXPECT_TRUE(c.will.retain);
	EXPECT_TRUE(bytes_equal(c.user_name, bytes_str("us")));
	EXPECT_TRUE(bytes_equal(c.password, bytes_of("\x00\xff\x80", 3)));
	EXPECT_EQ(c.properties.n + c.will.properties.n, 0);
	drop(wire);
}

/* --- what is refused -------------------------------------------------------------------------- */

struct refusal {
	const char *why, *hex;
	enum mqtt_reason reason;
};

static void expect_all(const struct refusal *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct bytes wire = from_hex(cases[i].hex);
		enum mqtt_reason reason = verdict(wire);

		if (reason != cases[i].reason)
			harness_fail(__FILE__, __LINE__, false, "%s: \"%s\", not \"%s\"",
				     cases[i].why, mqtt_reason_name(reason),
				     mqtt_reason_name(cases[i].reason));
		drop(wire);
	}
}

TEST(malformed_connect)
{
	static const struct refusal cases[] = {
		{ "nothing", "10 00", MQTT_MALFORMED },
		{ "a name, no level", "10 06 0004 4d515454", MQTT_MALFORMED },
		{ "[MQTT-3.1.2-1] MQTT 3.1", "10 0e 0006 4d5149736470 03 02 003c 0000",
		  MQTT_UNSUPPORTED_LEVEL },
		{ "[MQTT-3.1.2-1] MQIsdp, level 4", "10 0e 0006 4d5149736470 04 02 003c 0000",
		  MQTT_UNSUPPORTED_LEVEL },
		{ "[MQTT-3.1.2-1] another protocol", "10 0c 0004 48545450 04 02 003c 0000",
		  MQTT_MALFORMED },
		{ "[MQTT-3.1.2-1] mqtt in lower case", "10 0c 0004 6d717474 04 02 003c 0000",
		  MQTT_MALFORMED },
		{ "[MQTT-3.1.2-1] no name", "10 08 0000 04 02 003c 0000", MQTT_MALFORMED },
		{ "[MQTT-3.1.2-1] MQTT and a NUL", "10 0d 0005 4d51545400 04 02 003c 0000",
		  MQTT_MALFORMED },
		{ "[MQTT-3.1.2-2] level 3", "10 0c 0004 4d515454 03 02 003c 0000",
		  MQTT_UNSUPPORTED_LEVEL },
		{ "[MQTT-3.1.2-2] level 5, as 5.0 lays it out",
		  "10 0d 0004 4d515454 05 02 003c 00 0000", MQTT_UNSUPPORTED_LEVEL },
		{ "[MQTT-3.1.2-2] level 0", "10 0c 0004 4d515454 00 02 003c 0000",
		  MQTT_UNSUPPORTED_LEVEL },
		{ "[MQTT-3.1.2-2] level 84, a bridge", "10 0c 0004 4d515454 84 02 003c 0000",
		  MQTT_UNSUPPORTED_LEVEL },
		{ "[MQTT-3.1.2-2] another level, cut short behind it", "10 07 0004 4d515454 05",
		  MQTT_UNSUPPORTED_LEVEL },
		{ "[MQTT-3.1.2-3] reserved flag", "10 0c 0004 4d515454 04 03 003c 0000",
		  MQTT_MALFORMED },
		{ "[MQTT-3.1.2-22] password, no user name",
		  "10 0e 0004 4d515454 04 42 003c 0000 0000", MQTT_MALFORMED },
		{ "[MQTT-3.1.2-13] Will QoS, no Will", "10 0c 0004 4d515454 04 0a 003c 0000",
		  MQTT_MALFORMED },
		{ "[MQTT-3.1.2-15] Will RETAIN, no Will", "10 0c 0004 4d515454 04 22 003c 0000",
		  MQTT_MALFORMED },
		{ "[MQTT-3.1.2-14] Will QoS 3", "10 11 0004 4d515454 04 1e 003c 0000 0001 74 0000",
		  MQTT_MALFORMED },
		{ "[MQTT-3.1.2-9] no Will where the flag is", "10 0c 0004 4d515454 04 06 003c 0000",
		  MQTT_MALFORMED },
		{ "[MQTT-3.1.2-11] a Will where the flag is not",
		  "10 11 0004 4d515454 04 02 003c 0000 0001 74 0000", MQTT_MALFORMED },
		{ "[MQTT-3.1.2-18] a user name where the flag is not",
		  "10 0f 0004 4d515454 04 02 003c 0000 0001 75", MQTT_MALFORMED },
		{ "[MQTT-3.1.2-19] no user name where the flag is",
		  "10 0c 0004 4d515454 04 82 003c 0000", MQTT_MALFORMED },
		{ "[MQTT-3.1.2-21] no password where the flag is",
		  "10 0f 0004 4d515454 04 c2 003c 0000 0001 75", MQTT_MALFORMED },
		{ "[MQTT-3.1.3-3] no client id", "10 0a 0004 4d515454 04 02 003c", MQTT_MALFORMED },
		{ "[MQTT-3.1.3-4] client id no UTF-8", "10 0d 0004 4d515454 04 02 003c 0001 ff",
		  MQTT_MALFORMED },
		{ "[MQTT-1.5.3-2] NUL in the client id", "10 0d 0004 4d515454 04 02 003c 0001 00",
		  MQTT_MALFORMED },
		{ "[MQTT-3.1.3-8] no client id, kept session",
		  "10 0c 0004 4d515454 04 00 003c 0000", MQTT_IDENTIFIER_REJECTED },
		{ "[MQTT-3.1.3-8] only where the rest is right",
		  "10 0f 0004 4d515454 04 80 003c 0000 0001 ff", MQTT_MALFORMED },
		{ "[MQTT-3.1.3-10] Will topic no UTF-8",
		  "10 11 0004 4d515454 04 06 003c 0000 0001 c3 0000", MQTT_MALFORMED },
		{ "[MQTT-4.7.1-1] Will topic with a wildcard",
		  "10 11 0004 4d515454 04 06 003c 0000 0001 23 0000", MQTT_BAD_TOPIC },
		{ "[MQTT-4.7.3-1] Will topic empty",
		  "10 10 0004 4d515454 04 06 003c 0000 0000 0000", MQTT_BAD_TOPIC },
		{ "[MQTT-3.1.3-11] user name no UTF-8",
		  "10 10 0004 4d515454 04 82 003c 0000 0002 eda0", MQTT_MALFORMED },
		{ "a field longer than the packet", "10 0c 0004 4d515454 04 02 003c 0001",
		  MQTT_MALFORMED },
		{ "[MQTT-2.2.2-1] flags", "11 0c 0004 4d515454 04 02 003c 0000", MQTT_MALFORMED },
	};

	expect_all(cases, ARRAY_SIZE(cases));
}

TEST(malformed_publish)
{
	static const struct refusal cases[] = {
		{ "nothing", "30 00", MQTT_MALFORMED },
		{ "half a length", "30 01 00", MQTT_MALFORMED },
		{ "[MQTT-3.3.1-4] QoS 3", "36 07 0001 61 0001 00 00", MQTT_MALFORMED },
		{ "[MQTT-3.3.1-4] QoS 3, DUP, RETAIN", "3f 07 0001 61 0001 00 00", MQTT_MALFORMED },
		{ "[MQTT-3.3.1-2] DUP at QoS 0", "38 03 0001 61", MQTT_MALFORMED },
		{ "[MQTT-3.3.1-2] DUP and RETAIN at QoS 0", "39 03 0001 61", MQTT_MALFORMED },
		{ "[MQTT-2.3.1-1] packet id 0 at QoS 1", "32 05 0001 61 0000", MQTT_MALFORMED },
		{ "[MQTT-2.3.1-1] packet id 0 at QoS 2", "34 05 0001 61 0000", MQTT_MALFORMED },
		{ "[MQTT-2.3.1-1] no packet id at QoS 1", "32 03 0001 61", MQTT_MALFORMED },
		{ "[MQTT-2.3.1-1] half a packet id", "32 04 0001 61 00", MQTT_MALFORMED },
		{ "[MQTT-3.3.2-1] topic longer than the packet", "30 03 0002 61", MQTT_MALFORMED },
		{ "[MQTT-3.3.2-1] topic no UTF-8", "30 04 0002 61ff", MQTT_MALFORMED },
		{ "[MQTT-1.5.3-2] NUL in the topic", "30 04 0002 6100", MQTT_MALFORMED },
		{ "[MQTT-3.3.2-2] # in the topic", "30 05 0003 612f23", MQTT_BAD_TOPIC },
		{ "[MQTT-3.3.2-2] + in the topic", "30 05 0003 2b2f61", MQTT_BAD_TOPIC },
		{ "[MQTT-3.3.2-2] + within a level", "30 05 0003 612b62", MQTT_BAD_TOPIC },
		{ "[MQTT-4.7.3-1] empty topic", "30 02 0000", MQTT_BAD_TOPIC },
	};

	expect_all(cases, ARRAY_SIZE(cases));
}

TEST(malformed_subscribe)
{
	static const struct refusal cases[] = {
		{ "[MQTT-3.8.3-3] an empty body: over-read by a well-known codec", "82 00",
		  MQTT_MALFORMED },
		{ "half a packet id", "82 01 00", MQTT_MALFORMED },
		{ "[MQTT-3.8.3-3] no filter", "82 02 0001", MQTT_PROTOCOL_ERROR },
		{ "[MQTT-2.3.1-1] packet id 0", "82 06 0000 0001 61 00", MQTT_MALFORMED },
		{ "[MQTT-2.3.1-1] packet id 0, no filter", "82 02 0000", MQTT_MALFORMED },
		{ "[MQTT-3.8.1-1] flags 0", "80 06 0001 0001 61 00", MQTT_MALFORMED },
		{ "[MQTT-3.8.1-1] flags 3", "83 06 0001 0001 61 00", MQTT_MALFORMED },
		{ "[MQTT-3-8.3-4] QoS 3", "82 06 0001 0001 61 03", MQTT_MALFORMED },
		{ "[MQTT-3-8.3-4] reserved bits", "82 06 0001 0001 61 04", MQTT_MALFORMED },
		{ "[MQTT-3-8.3-4] reserved bits", "82 06 0001 0001 61 80", MQTT_MALFORMED },
		{ "[MQTT-3-8.3-4] in the second filter", "82 0a 0001 0001 61 00 0001 62 03",
		  MQTT_MALFORMED },
		{ "no QoS", "82 05 0001 0001 61", MQTT_MALFORMED },
		{ "half a length", "82 03 0001 00", MQTT_MALFORMED },
		{ "a filter longer than the packet", "82 06 0001 ffff 61 00", MQTT_MALFORMED },
		{ "[MQTT-3.8.3-1] filter no UTF-8", "82 06 0001 0001 80 00", MQTT_MALFORMED },
		{ "[MQTT-1.5.3-2] NUL in a filter", "82 06 0001 0001 00 00", MQTT_MALFORMED },
		{ "[MQTT-4.7.3-1] empty filter", "82 05 0001 0000 00", MQTT_BAD_TOPIC },
		{ "[MQTT-4.7.1-2] a#", "82 07 0001 0002 6123 00", MQTT_BAD_TOPIC },
		{ "[MQTT-4.7.1-2] #/a", "82 08 0001 0003 232f61 00", MQTT_BAD_TOPIC },
		{ "[MQTT-4.7.1-3] a+", "82 07 0001 0002 612b 00", MQTT_BAD_TOPIC },
	};

	expect_all(cases, ARRAY_SIZE(cases));
}

TEST(malformed_unsubscribe)
{
	static const struct refusal cases[] = {
		{ "[MQTT-3.10.3-2] an empty body", "a2 00", MQTT_MALFORMED },
		{ "half a packet id", "a2 01 00", MQTT_MALFORMED },
		{ "[MQTT-3.10.3-2] no filter", "a2 02 0001", MQTT_PROTOCOL_ERROR },
		{ "[MQTT-2.3.1-1] packet id 0", "a2 05 0000 0001 61", MQTT_MALFORMED },
		{ "[MQTT-3.10.1-1] flags 0", "a0 05 0001 0001 61", MQTT_MALFORMED },
		{ "half a length", "a2 03 0001 00", MQTT_MALFORMED },
		{ "a filter longer than the packet", "a2 05 0001 0002 61", MQTT_MALFORMED },
		{ "[MQTT-3.10.3-1] filter no UTF-8", "a2 05 0001 0001 ff", MQTT_MALFORMED },
		{ "[MQTT-4.7.3-1] empty filter", "a2 04 0001 0000", MQTT_BAD_TOPIC },
		{ "[MQTT-4.7.1-2] #/", "a2 06 0001 0002 232f", MQTT_BAD_TOPIC },
	};

	expect_all(cases, ARRAY_SIZE(cases));
}

TEST(malformed_acks)
{
	static const struct refusal cases[] = {
		{ "PUBACK, nothing", "40 00", MQTT_MALFORMED },
		{ "PUBACK, half an id", "40 01 01", MQTT_MALFORMED },
		{ "PUBACK, id 0", "40 02 0000", MQTT_MALFORMED },
		{ "PUBACK, a reason code as in 5.0", "40 03 0001 00", MQTT_MALFORMED },
		{ "[MQTT-2.2.2-1] PUBACK, flags", "42 02 0001", MQTT_MALFORMED },
		{ "PUBREC, nothing", "50 00", MQTT_MALFORMED },
		{ "PUBREC, id 0", "50 02 0000", MQTT_MALFORMED },
		{ "[MQTT-2.2.2-1] PUBREC, flags", "52 02 0001", MQTT_MALFORMED },
		{ "PUBREL, nothing", "62 00", MQTT_MALFORMED },
		{ "PUBREL, id 0", "62 02 0000", MQTT_MALFORMED },
		{ "[MQTT-3.6.1-1] PUBREL, flags 0", "60 02 0001", MQTT_MALFORMED },
		{ "[MQTT-3.6.1-1] PUBREL, flags 6", "66 02 0001", MQTT_MALFORMED },
		{ "PUBCOMP, nothing", "70 00", MQTT_MALFORMED },
		{ "PUBCOMP, id 0", "70 02 0000", MQTT_MALFORMED },
		{ "[MQTT-2.2.2-1] PUBCOMP, flags", "71 02 0001", MQTT_MALFORMED },
		{ "UNSUBACK, nothing", "b0 00", MQTT_MALFORMED },
		{ "UNSUBACK, id 0", "b0 02 0000", MQTT_MALFORMED },
		{ "[MQTT-2.2.2-1] UNSUBACK, flags", "b2 02 0001", MQTT_MALFORMED },
		{ "SUBACK, nothing", "90 00", MQTT_MALFORMED },
		{ "SUBACK, no code", "90 02 0001", MQTT_MALFORMED },
		{ "SUBACK, id 0", "90 03 0000 00", MQTT_MALFORMED },
		{ "[MQTT-3.9.3-2] SUBACK, code 3", "90 03 0001 03", MQTT_MALFORMED },
		{ "[MQTT-3.9.3-2] SUBACK, code 81", "90 04 0001 00 81", MQTT_MALFORMED },
		{ "[MQTT-2.2.2-1] SUBACK, flags", "92 03 0001 00", MQTT_MALFORMED },
		{ "CONNACK, nothing", "20 00", MQTT_MALFORMED },
		{ "CONNACK, one byte", "20 01 00", MQTT_MALFORMED },
		{ "CONNACK, three bytes", "20 03 00 00 00", MQTT_MALFORMED },
		{ "3.2.2.1 CONNACK, reserved bits", "20 02 02 00", MQTT_MALFORMED },
		{ "[MQTT-3.2.2-4] CONNACK, refused with a session", "20 02 01 01", MQTT_MALFORMED },
		{ "3.2.2.3 CONNACK, reserved code", "20 02 00 06", MQTT_MALFORMED },
		{ "[MQTT-2.2.2-1] CONNACK, flags", "21 02 00 00", MQTT_MALFORMED },
	};

	expect_all(cases, ARRAY_SIZE(cases));
}

TEST(malformed_empty)
{
	static const struct refusal cases[] = {
		{ "3.12 PINGREQ with a body", "c0 01 00", MQTT_MALFORMED },
		{ "3.13 PINGRESP with a body", "d0 01 00", MQTT_MALFORMED },
		{ "3.14 DISCONNECT with a body", "e0 01 00", MQTT_MALFORMED },
		{ "[MQTT-2.2.2-1] PINGREQ, flags", "c1 00", MQTT_MALFORMED },
		{ "[MQTT-2.2.2-1] PINGRESP, flags", "d8 00", MQTT_MALFORMED },
		{ "[MQTT-3.14.1-1] DISCONNECT, flags", "e2 00", MQTT_MALFORMED },
		{ "table 2.1: type 0 is forbidden", "00 00", MQTT_MALFORMED },
		{ "table 2.1: type 15 is forbidden (AUTH is 5.0's)", "f0 00", MQTT_MALFORMED },
	};

	expect_all(cases, ARRAY_SIZE(cases));
}

/* [MQTT-2.2.2-1], [MQTT-2.2.2-2]: all first bytes, found wrong before a second one is there. */
TEST(first_bytes)
{
	static const uint16_t right[16] = {
		/* bit f: flags f are right */
		[MQTT_CONNECT] = 1,    [MQTT_CONNACK] = 1,  [MQTT_PUBLISH] = 0x3c3f,
		[MQTT_PUBACK] = 1,     [MQTT_PUBREC] = 1,   [MQTT_PUBREL] = 1 << 2,
		[MQTT_PUBCOMP] = 1,    [MQTT_SUBACK] = 1,   [MQTT_SUBSCRIBE] = 1 << 2,
		[MQTT_UNSUBACK] = 1,   [MQTT_PINGREQ] = 1,  [MQTT_UNSUBSCRIBE] = 1 << 2,
		[MQTT_DISCONNECT] = 1, [MQTT_PINGRESP] = 1,
	};

	for (unsigned i = 0; i < 256; i++) {
		uint8_t first = (uint8_t)i;
		struct mqtt_frame f = { 0 };
		size_t used = 7, need = 7;
		enum mqtt_reason reason =
			mqtt_frame_next(bytes_of(&first, 1), NO_LIMIT, &f, &used, &need);
		bool ok = right[i >> 4] >> (i & 15) & 1;

		if ((reason == MQTT_OK) != ok)
			harness_fail(__FILE__, __LINE__, false, "first byte %02x: %s", i,
				     mqtt_reason_name(reason));
		EXPECT_EQ(used, ok ? 0 : 7);
		EXPECT_EQ(need, ok ? 2 : 7);
	}
}

/* A decoder that is handed a PUBLISH's frame from elsewhere looks at the flags itself. */
TEST(publish_flags)
{
	static const uint8_t body[] = { 0, 1, 'a', 0, 1 };
	static const uint8_t wrong[] = { 0x36, 0x37, 0x38, 0x39, 0x3e, 0x3f };
	struct mqtt_publish p;

	for (size_t i = 0; i < sizeof(wrong); i++) {
		struct mqtt_frame f = { wrong[i], bytes_of(body, sizeof(body)) };

		EXPECT_EQ(mqtt_decode_publish(&f, &p), MQTT_MALFORMED);
	}
}

/* Output parameters keep what they had where a decoder refuses. */
TEST(refusals_touch_nothing)
{
	struct {
		struct mqtt_connect connect;
		struct mqtt_publish publish;
		struct mqtt_subscribe sub;
		struct mqtt_unsubscribe unsub;
		struct bytes codes;
		uint16_t id;
		bool present;
		uint8_t code;
	} out, before;
	static const uint8_t bad[] = { 0, 1, 0, 1, 'a', 3 }, none[] = { 0, 1 };
	struct mqtt_frame f = { 0x36, bytes_of(bad, sizeof(bad)) };

	memset(&out, 0xa5, sizeof(out));
	before = out;
	EXPECT_EQ(mqtt_decode_connect(f.body, &out.connect), MQTT_MALFORMED);
	EXPECT_EQ(mqtt_decode_publish(&f, &out.publish), MQTT_MALFORMED);
	EXPECT_EQ(mqtt_decode_subscribe(f.body, &out.sub), MQTT_MALFORMED);
	EXPECT_EQ(mqtt_decode_subscribe(bytes_of(none, 2), &out.sub), MQTT_PROTOCOL_ERROR);
	EXPECT_EQ(mqtt_decode_unsubscribe(f.body, &out.unsub), MQTT_MALFORMED);
	EXPECT_EQ(mqtt_decode_unsubscribe(bytes_of(none, 2), &out.unsub), MQTT_PROTOCOL_ERROR);
	EXPECT_EQ(mqtt_decode_ack(f.body, &out.id), MQTT_MALFORMED);
	EXPECT_EQ(mqtt_decode_suback(f.body, &out.id, &out.codes), MQTT_MALFORMED);
	EXPECT_EQ(mqtt_decode_connack(f.body, &out.present, &out.code), MQTT_MALFORMED);
	ASSERT_BYTES(&out, &before, sizeof(out));
}

/* --- CONNECT flags ---------------------------------------------------------------------------- */

/* The clauses, one by one; the codec has them in another form. */
static bool connect_flags_allowed(unsigned flags)
{
	bool reserved = flags & 1, will = flags & 4, retain = flags & 32;
	bool password = flags & 64, user = flags & 128;
	unsigned qos = flags >> 3 & 3;

	if (reserved) /* [MQTT-3.1.2-3] */
		return false;
	if (!will && qos != 0) /* [MQTT-3.1.2-13] */
		return false;
	if (will && qos == 3) /* [MQTT-3.1.2-14] */
		return false;
	if (!will && retain) /* [MQTT-3.1.2-15] */
		return false;
	return user || !password; /* [MQTT-3.1.2-22] */
}

/* All 256, each with the fields that its flags announce. */
TEST(connect_flags)
{
	unsigned allowed = 0;

	for (unsigned flags = 0; flags < 256; flags++) {
		uint8_t wire[64];
		struct bytes_writer w = bytes_writer_of(wire, sizeof(wire));
		bool ok = connect_flags_allowed(flags);

		bytes_write_u16(&w, MQTT_CONNECT << 12);
		bytes_write_u16_view(&w, bytes_str("MQTT"));
		bytes_write_u8(&w, 4);
		bytes_write_u8(&w, (uint8_t)flags);
		bytes_write_u16(&w, 60);
		bytes_write_u16_view(&w, bytes_str("id"));
		if (flags & 4) {
			bytes_write_u16_view(&w, bytes_str("will/topic"));
			bytes_write_u16_view(&w, bytes_str("gone"));
		}
		if (flags & 128)
			bytes_write_u16_view(&w, bytes_str("user"));
		if (flags & 64)
			bytes_write_u16_view(&w, bytes_str("password"));
		wire[1] = (uint8_t)(w.used - 2);
		if (verdict(bytes_of(wire, w.used)) != (ok ? MQTT_OK : MQTT_MALFORMED))
			harness_fail(__FILE__, __LINE__, false, "flags %02x", flags);
		allowed += ok;
	}
	/* 2 clean * (1 no Will + 3 QoS * 2 RETAIN) * (none, user, user and password) */
	EXPECT_EQ(allowed, 2 * 7 * 3);
}

/* --- text ------------------------------------------------------------------------------------- */

TEST(utf8)
{
	static const struct {
		const char *hex;
		bool ok;
	} cases[] = {
		{ "", true },
		{ "61", true },
		{ "7f", true },	      /* a control character: may be refused, is not */
		{ "01", true },	      /* the same */
		{ "00", false },      /* [MQTT-1.5.3-2] */
		{ "610062", false },  /* wherever it is */
		{ "c280", true },     /* U+0080, the least of two bytes */
		{ "dfbf", true },     /* U+07FF, the last */
		{ "e0a080", true },   /* U+0800, the least of three */
		{ "efbfbf", true },   /* U+FFFF, no character, but well-formed */
		{ "f0908080", true }, /* U+10000, the least of four */
		{ "f48fbfbf", true }, /* U+10FFFF, the last of all */
		{ "efbbbf", true },   /* U+FEFF alone: [MQTT-1.5.3-3] */
		{ "61efbbbf62", true },
		{ "f09f9880e38182c3a941", true },
		/* overlong [MQTT-1.5.3-1] */
		{ "c080", false }, /* NUL in two bytes */
		{ "c1bf", false },
		{ "e08080", false },
		{ "e09fbf", false },
		{ "f0808080", false },
		{ "f08fbfbf", false },
		/* surrogates [MQTT-1.5.3-1] */
		{ "ed9fbf", true }, /* U+D7FF, just before */
		{ "eda080", false },
		{ "edafbf", false },
		{ "edb080", false },
		{ "edbfbf", false },
		{ "eda081edb080", false }, /* a pair: CESU-8 */
		{ "ee8080", true },	   /* U+E000, just behind */
		/* beyond U+10FFFF */
		{ "f4908080", false },
		{ "f5808080", false },
		{ "f888808080", false },
		{ "fc8480808080", false },
		{ "fe", false },
		{ "ff", false },
		/* stray and missing continuations */
		{ "80", false },
		{ "bf", false },
		{ "6180", false },
		{ "c2", false },
		{ "c261", false },
		{ "c2c280", false },
		{ "e0a0", false },
		{ "e0a061", false },
		{ "e1", false },
		{ "f09080", false },
		{ "f0908061", false },
		{ "f4", false },
		{ "c28080", false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bytes text = from_hex(cases[i].hex);

		if (mqtt_utf8_ok(text) != cases[i].ok)
			harness_fail(__FILE__, __LINE__, false, "%s", cases[i].hex);
		drop(text);
	}
	EXPECT_TRUE(mqtt_utf8_ok(bytes_of(NULL, 0)));
}

/* Encodes a code point as RFC 3629 section 3 says, whether it may be or not. */
static size_t utf8_put(uint32_t c, uint8_t out[4])
{
	if (c < 0x80) {
		out[0] = (uint8_t)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (uint8_t)(0xc0 | c >> 6);
		out[1] = (uint8_t)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (uint8_t)(0xe0 | c >> 12);
		out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
		out[2] = (uint8_t)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (uint8_t)(0xf0 | c >> 18);
	out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
	out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
	out[3] = (uint8_t)(0x80 | (c & 0x3f));
	return 4;
}

/* Every code point, and with it every way in which a sequence of the right length can be. */
TEST(utf8_all_code_points)
{
	for (uint32_t c = 0; c <= 0x1fffff; c++) {
		uint8_t text[4];
		size_t n = utf8_put(c, text);
		bool ok = c != 0 && c <= 0x10ffff && !(c >= 0xd800 && c <= 0xdfff);

		if (mqtt_utf8_ok(bytes_of(text, n)) != ok)
			harness_fail(__FILE__, __LINE__, true, "U+%04X", c);
	}
}

TEST(topics)
{
	static const struct {
		const char *text;
		bool name, filter;
	} cases[] = {
		{ "", false, false }, /* [MQTT-4.7.3-1] */
		{ "a", true, true },
		{ "/", true, true },
		{ "//", true, true },
		{ " ", true, true },
		{ "a/b/c", true, true },
		{ "a//c", true, true },
		{ "/a", true, true },
		{ "a/", true, true },
		{ "$SYS/a", true, true },
		{ "$", true, true },
		{ "\xef\xbb\xbf", true, true },
		{ "#", false, true }, /* [MQTT-4.7.1-1], and so on */
		{ "+", false, true },
		{ "a/#", false, true },
		{ "/#", false, true },
		{ "+/+", false, true },
		{ "/+", false, true },
		{ "+/", false, true },
		{ "+/a/#", false, true },
		{ "a/+/c", false, true },
		{ "$SYS/#", false, true },
		{ "a#", false, false }, /* [MQTT-4.7.1-2] */
		{ "a/b#", false, false },
		{ "#/a", false, false },
		{ "#/", false, false },
		{ "a/#/b", false, false },
		{ "##", false, false },
		{ "#+", false, false },
		{ "#a", false, false },
		{ "a+", false, false }, /* [MQTT-4.7.1-3] */
		{ "+a", false, false },
		{ "a/+b", false, false },
		{ "a/b+/c", false, false },
		{ "++", false, false },
		{ "+#", false, false },
		{ "a/\xff", false, false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bytes text = bytes_str(cases[i].text);

		if (mqtt_topic_name_ok(text) != cases[i].name ||
		    mqtt_topic_filter_ok(text) != cases[i].filter)
			harness_fail(__FILE__, __LINE__, false, "\"%s\"", cases[i].text);
	}
	EXPECT_FALSE(mqtt_topic_name_ok(bytes_of("a\0b", 3))); /* [MQTT-4.7.3-2] */
	EXPECT_FALSE(mqtt_topic_filter_ok(bytes_of("a\0b", 3)));
	EXPECT_FALSE(mqtt_topic_name_ok(bytes_of(NULL, 0)));
}

/* [MQTT-4.7.3-3] */
TEST(topic_length)
{
	static uint8_t text[UINT16_MAX + 1];

	memset(text, 'x', sizeof(text));
	EXPECT_TRUE(mqtt_topic_name_ok(bytes_of(text, UINT16_MAX)));
	EXPECT_TRUE(mqtt_topic_filter_ok(bytes_of(text, UINT16_MAX)));
	EXPECT_FALSE(mqtt_topic_name_ok(bytes_of(text, UINT16_MAX + 1)));
	EXPECT_FALSE(mqtt_topic_filter_ok(bytes_of(text, UINT16_MAX + 1)));
}

/* --- Remaining Length and sizes --------------------------------------------------------------- */

TEST(remaining_length)
{
	static const struct {
		const char *hex; /* of a PUBLISH's fixed header */
		enum mqtt_reason reason;
		size_t need;
	} cases[] = {
		{ "30 7f", MQTT_OK, 2 + 127 }, /* table 2.4 */
		{ "30 80 01", MQTT_OK, 3 + 128 },
		{ "30 ff 7f", MQTT_OK, 3 + 16383 },
		{ "30 80 80 01", MQTT_OK, 4 + 16384 },
		{ "30 ff ff 7f", MQTT_OK, 4 + 2097151 },
		{ "30 80 80 80 01", MQTT_OK, 5 + 2097152 },
		{ "30 ff ff ff 7f", MQTT_OK, 5 + 268435455 },
		{ "30 c1 02", MQTT_OK, 3 + 321 }, /* the example of 2.2.3 */
		/* longer than it need be: 3.1.1 does not forbid it */
		{ "30 85 00", MQTT_OK, 3 + 5 },
		{ "30 85 80 00", MQTT_OK, 4 + 5 },
		{ "30 85 80 80 00", MQTT_OK, 5 + 5 },
		/* unfinished */
		{ "30", MQTT_OK, 2 },
		{ "30 80", MQTT_OK, 3 },
		{ "30 ff ff", MQTT_OK, 4 },
		{ "30 ff ff ff", MQTT_OK, 5 },
		/* five bytes, known from the fourth */
		{ "30 80 80 80 80", MQTT_MALFORMED, 0 },
		{ "30 80 80 80 80 00", MQTT_MALFORMED, 0 },
		{ "30 ff ff ff ff", MQTT_MALFORMED, 0 },
		{ "30 ff ff ff ff 7f", MQTT_MALFORMED, 0 },
		{ "30 ff ff ff ff ff", MQTT_MALFORMED, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bytes wire = from_hex(cases[i].hex);
		struct mqtt_frame f = { 0 };
		size_t used = 1, need = 0;
		enum mqtt_reason reason = mqtt_frame_next(wire, NO_LIMIT, &f, &used, &need);

		if (reason != cases[i].reason || need != cases[i].need)
			harness_fail(__FILE__, __LINE__, false, "%s: %s, needs %zu", cases[i].hex,
				     mqtt_reason_name(reason), need);
		EXPECT_EQ(used, reason == MQTT_OK ? 0 : 1);
		drop(wire);
	}
}

/* A long form of a length, and then a packet that decodes; its re-encoding is the short form. */
TEST(remaining_length_not_minimal)
{
	struct bytes wire = from_hex("30 84 80 00 0001 61 70");
	struct bytes least = from_hex("30 04 0001 61 70");
	struct mqtt_frame f = { 0 };
	uint8_t out[16];
	struct bytes_writer w = bytes_writer_of(out, sizeof(out));
	size_t used = 0, need = 0;

	ASSERT_EQ(mqtt_frame_next(wire, NO_LIMIT, &f, &used, &need), MQTT_OK);
	ASSERT_EQ(used, wire.n);
	ASSERT_EQ(mqtt_recode(&f, &w), MQTT_OK);
	ASSERT_EQ(w.used, least.n);
	ASSERT_BYTES(out, least.p, least.n);
	drop(wire);
	drop(least);
}

TEST(limit)
{
	struct bytes wire = from_hex("30 05 0001 61 7071"), head = from_hex("30 ff ff 7f");
	struct mqtt_frame f = { 0 };
	size_t used = 0, need = 0;

	EXPECT_EQ(mqtt_frame_next(wire, 7, &f, &used, &need), MQTT_OK);
	EXPECT_EQ(used, 7);
	EXPECT_EQ(mqtt_frame_next(wire, 6, &f, &used, &need), MQTT_TOO_LARGE);
	/* It is known from the header alone, and so from half of one. */
	EXPECT_EQ(mqtt_frame_next(bytes_of(wire.p, 2), 6, &f, &used, &need), MQTT_TOO_LARGE);
	EXPECT_EQ(mqtt_frame_next(head, 4 + 2097151, &f, &used, &need), MQTT_OK);
	EXPECT_EQ(used, 0);
	EXPECT_EQ(need, 4 + 2097151);
	EXPECT_EQ(mqtt_frame_next(head, 4 + 2097150, &f, &used, &need), MQTT_TOO_LARGE);
	EXPECT_EQ(mqtt_frame_next(bytes_of(head.p, 3), 3, &f, &used, &need), MQTT_TOO_LARGE);
	EXPECT_EQ(mqtt_frame_next(bytes_of(head.p, 1), 1, &f, &used, &need), MQTT_TOO_LARGE);
	/* A limit on size does not hide what is wrong in kind. */
	EXPECT_EQ(mqtt_frame_next(bytes_of("\xf0", 1), 0, &f, &used, &need), MQTT_MALFORMED);
	drop(wire);
	drop(head);
}

static const struct {
	size_t body_n;
	unsigned digits;
	const char *hex;
} sizes[] = {
	{ 127, 1, "7f" },
	{ 128, 2, "8001" },
	{ 16383, 2, "ff7f" },
	{ 16384, 3, "808001" },
	{ 2097151, 3, "ffff7f" },
	{ 2097152, 4, "80808001" },
	{ 268435455, 4, "ffffff7f" },
};

/* Heads of PUBLISH packets on both sides of each step of Remaining Length, at each QoS. */
TEST(publish_sizes)
{
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (uint8_t qos = 0; qos <= 2; qos++) {
			struct mqtt_publish p = { .qos = qos,
						  .packet_id = qos ? 9 : 0,
						  .topic = bytes_str("t/u") };
			size_t head_n = 2 + 3 + (qos ? 2 : 0);
			size_t payload_n = sizes[i].body_n - head_n;
			uint8_t out[32], digits[4];
			struct bytes_writer w = bytes_writer_of(out, sizeof(out));

			ASSERT_EQ(text_unhex(bytes_str(sizes[i].hex), digits, sizes[i].digits), 0);
			mqtt_encode_publish_head(&p, payload_n, &w);
			ASSERT_FALSE(w.bad);
			ASSERT_EQ(w.used, 1 + sizes[i].digits + head_n);
			EXPECT_EQ(out[0], mqtt_publish_first(qos, false, false));
			ASSERT_BYTES(out + 1, digits, sizes[i].digits);
			EXPECT_EQ(mqtt_publish_bytes(3, payload_n, qos), w.used + payload_n);
		}
	}
}

TEST(publish_too_large)
{
	struct mqtt_publish p = { .topic = bytes_str("t") };
	uint8_t out[32];
	struct bytes_writer w = bytes_writer_of(out, sizeof(out));
	size_t most = MQTT_PACKET_BYTES_MAX - 3;

	EXPECT_EQ(mqtt_publish_bytes(1, most, 0), MQTT_FIXED_HEADER_MAX + MQTT_PACKET_BYTES_MAX);
	EXPECT_EQ(mqtt_publish_bytes(1, most + 1, 0), 0);
	EXPECT_EQ(mqtt_publish_bytes(1, most - 1, 1), 0);
	EXPECT_EQ(mqtt_publish_bytes(1, SIZE_MAX, 0), 0);
	EXPECT_EQ(mqtt_publish_bytes(UINT16_MAX, 0, 0), 1 + 3 + 2 + UINT16_MAX);
	EXPECT_EQ(mqtt_publish_bytes(UINT16_MAX + 1, 0, 0), 0);
	EXPECT_EQ(mqtt_publish_bytes(SIZE_MAX, SIZE_MAX, 2), 0);
	mqtt_encode_publish_head(&p, most, &w);
	EXPECT_FALSE(w.bad);
	mqtt_encode_publish_head(&p, most + 1, &w);
	EXPECT_TRUE(w.bad);
	w = bytes_writer_of(out, sizeof(out));
	mqtt_encode_publish_head(&p, SIZE_MAX, &w); /* the sum does not wrap to a small one */
	EXPECT_TRUE(w.bad);
}

/* Whole packets of those sizes, but for the largest, there and back. */
TEST(publish_large_round_trip)
{
	for (size_t i = 0; i + 1 < ARRAY_SIZE(sizes); i++) {
		struct mqtt_publish p = { .qos = 1,
					  .packet_id = 0x1234,
					  .topic = bytes_str("a/b") };
		size_t n = 1 + sizes[i].digits + sizes[i].body_n, used = 0, need = 0;
		uint8_t *payload = malloc(sizes[i].body_n), *wire = malloc(n);
		struct bytes_writer w = bytes_writer_of(wire, n);
		struct mqtt_frame f = { 0 };
		struct mqtt_publish got;

		ASSERT_TRUE(payload && wire);
		for (size_t k = 0; k < sizes[i].body_n; k++)
			payload[k] = (uint8_t)harness_random();
		p.payload = bytes_of(payload, sizes[i].body_n - 7);
		mqtt_encode_publish(&p, &w);
		ASSERT_FALSE(w.bad);
		ASSERT_EQ(w.used, n);
		ASSERT_EQ(mqtt_frame_next(bytes_of(wire, n - 1), NO_LIMIT, &f, &used, &need),
			  MQTT_OK);
		EXPECT_EQ(used, 0);
		EXPECT_EQ(need, n);
		ASSERT_EQ(mqtt_frame_next(bytes_of(wire, n), NO_LIMIT, &f, &used, &need), MQTT_OK);
		ASSERT_EQ(used, n);
		ASSERT_EQ(mqtt_decode_publish(&f, &got), MQTT_OK);
		EXPECT_EQ(got.packet_id, 0x1234);
		EXPECT_TRUE(bytes_equal(got.topic, p.topic));
		EXPECT_TRUE(bytes_equal(got.payload, p.payload));
		free(payload);
		free(wire);
	}
}

/* --- lists ------------------------------------------------------------------------------------ */

/* A SUBSCRIBE or UNSUBSCRIBE with n filters "f". */
static enum mqtt_reason with_filters(unsigned n, bool subscribe)
{
	uint8_t wire[4 * (MQTT_FILTERS_MAX + 2) + 8];
	struct bytes_writer w = bytes_writer_of(wire, sizeof(wire));
	size_t body_n = 2 + n * (subscribe ? 4 : 3);

	bytes_write_u8(&w, subscribe ? 0x82 : 0xa2);
	if (body_n >= 128)
		bytes_write_u8(&w, (uint8_t)(body_n | 128));
	bytes_write_u8(&w, (uint8_t)(body_n >= 128 ? body_n >> 7 : body_n));
	bytes_write_u16(&w, 1);
	for (unsigned i = 0; i < n; i++) {
		bytes_write_u16_view(&w, bytes_str("f"));
		if (subscribe)
			bytes_write_u8(&w, (uint8_t)(i % 3));
	}
	ASSERT_FALSE(w.bad);
	return verdict(bytes_of(wire, w.used));
}

TEST(filters_max)
{
	for (unsigned n = 1; n <= MQTT_FILTERS_MAX; n++) {
		EXPECT_EQ(with_filters(n, true), MQTT_OK);
		EXPECT_EQ(with_filters(n, false), MQTT_OK);
	}
	EXPECT_EQ(with_filters(MQTT_FILTERS_MAX + 1, true), MQTT_TOO_LARGE);
	EXPECT_EQ(with_filters(MQTT_FILTERS_MAX + 1, false), MQTT_TOO_LARGE);
}

/* --- what encoders refuse --------------------------------------------------------------------- */

static bool connect_refused(struct mqtt_connect c)
{
	uint8_t out[256];
	struct bytes_writer w = bytes_writer_of(out, sizeof(out));

	mqtt_encode_connect(&c, &w);
	return w.bad;
}

TEST(encode_connect_refuses)
{
	static uint8_t big[UINT16_MAX + 1];
	struct bytes too_long = bytes_of(big, sizeof(big)), x = bytes_str("x");
	static uint8_t out[sizeof(big) + 64];
	struct bytes_writer w = bytes_writer_of(out, sizeof(out));
	struct mqtt_connect c = { .level = 4, .client_id = too_long };

	EXPECT_FALSE(connect_refused((struct mqtt_connect){ .level = 4 }));
	EXPECT_TRUE(connect_refused((struct mqtt_connect){ .level = 4, .has_password = true }));
	EXPECT_TRUE(connect_refused(
		(struct mqtt_connect){ .level = 4, .has_will = true, .will = { .qos = 3 } }));
	EXPECT_TRUE(connect_refused(
		(struct mqtt_connect){ .level = 4, .has_will = true, .will = { .qos = 0x40 } }));
	EXPECT_TRUE(connect_refused((struct mqtt_connect){ .level = 4, .properties = x }));
	/* What the bools say is not there is not looked at. */
	EXPECT_FALSE(connect_refused((struct mqtt_connect){ .level = 4,
							    .flags = 0xff,
							    .will = { .qos = 3, .topic = too_long },
							    .password = too_long }));
	mqtt_encode_connect(&c, &w);
	EXPECT_TRUE(w.bad);
	c.client_id.n--;
	w = bytes_writer_of(out, sizeof(out));
	mqtt_encode_connect(&c, &w);
	EXPECT_FALSE(w.bad);
}

static bool publish_refused(struct mqtt_publish p)
{
	uint8_t out[64];
	struct bytes_writer w = bytes_writer_of(out, sizeof(out));

	mqtt_encode_publish(&p, &w);
	return w.bad;
}

TEST(encode_publish_refuses)
{
	struct bytes t = bytes_str("t");

	EXPECT_FALSE(publish_refused((struct mqtt_publish){ .topic = t }));
	EXPECT_FALSE(publish_refused((struct mqtt_publish){ .topic = t, .packet_id = 1 }));
	EXPECT_TRUE(publish_refused((struct mqtt_publish){ .topic = t, .dup = true }));
	EXPECT_TRUE(publish_refused((struct mqtt_publish){ .topic = t, .qos = 3, .packet_id = 1 }));
	EXPECT_TRUE(publish_refused((struct mqtt_publish){ .topic = t, .qos = 8, .packet_id = 1 }));
	EXPECT_TRUE(publish_refused((struct mqtt_publish){ .topic = t, .qos = 1 }));
	EXPECT_TRUE(publish_refused((struct mqtt_publish){ .topic = t, .properties = t }));
}

TEST(encode_others_refuse)
{
	uint8_t out[64];
	struct bytes_writer w;
	struct mqtt_subscribe s = { .packet_id = 1, .n = 1, .list = { { bytes_str("a"), 3 } } };
	struct mqtt_unsubscribe u = { .packet_id = 1 };

#define REFUSED(call)                                  \
	do {                                           \
		w = bytes_writer_of(out, sizeof(out)); \
		call;                                  \
		EXPECT_TRUE(w.bad);                    \
	} while (0)
	REFUSED(mqtt_encode_subscribe(&s, &w)); /* QoS 3 */
	s.list[0].qos = 0;
	s.packet_id = 0;
	REFUSED(mqtt_encode_subscribe(&s, &w));
	s.packet_id = 1;
	s.n = 0;
	REFUSED(mqtt_encode_subscribe(&s, &w));
	s.n = MQTT_FILTERS_MAX + 1;
	REFUSED(mqtt_encode_subscribe(&s, &w));
	REFUSED(mqtt_encode_unsubscribe(&u, &w)); /* no filter */
	u.n = MQTT_FILTERS_MAX + 1;
	REFUSED(mqtt_encode_unsubscribe(&u, &w));
	REFUSED(mqtt_encode_ack(MQTT_PUBACK, 0, &w));
	REFUSED(mqtt_encode_suback(1, NULL, 0, &w));
	REFUSED(mqtt_encode_suback(0, (const uint8_t *)"", 1, &w));
	REFUSED(mqtt_encode_suback(1, (const uint8_t *)"\x03", 1, &w));
	REFUSED(mqtt_encode_connack(true, 1, &w)); /* [MQTT-3.2.2-4] */
	REFUSED(mqtt_encode_connack(false, 6, &w));
#undef REFUSED
}

/* An error from before stays, and nothing is written any more. */
TEST(sticky_error)
{
	uint8_t out[64] = { 0 };
	struct bytes_writer w = bytes_writer_of(out, sizeof(out));
	struct mqtt_publish p = { .topic = bytes_str("t"), .payload = bytes_str("p") };

	w.bad = true;
	mqtt_encode_publish(&p, &w);
	mqtt_encode_connack(false, 0, &w);
	mqtt_encode_ack(MQTT_PUBREL, 1, &w);
	mqtt_encode_empty(MQTT_PINGRESP, &w);
	EXPECT_TRUE(w.bad);
	EXPECT_EQ(w.used, 0);
	EXPECT_TRUE(bytes_is_zero(bytes_of(out, sizeof(out))));
}

TEST(reason_names)
{
	for (int r = MQTT_OK; r <= MQTT_QOS_UNSUPPORTED; r++) {
		ASSERT_TRUE(mqtt_reason_name((enum mqtt_reason)r));
		EXPECT_TRUE(strcmp(mqtt_reason_name((enum mqtt_reason)r), "unknown reason"));
		for (int s = MQTT_OK; s < r; s++)
			EXPECT_TRUE(strcmp(mqtt_reason_name((enum mqtt_reason)r),
					   mqtt_reason_name((enum mqtt_reason)s)));
	}
}

/* --- at random (the seed is printed at start) ------------------------------------------------- */

static size_t below(size_t n)
{
	return harness_random() % n;
}

static struct {
	uint8_t mem[1 << 16];
	size_t used;
} arena; /* of one random packet's texts */

/* n code points of all lengths; '+', '#' and NUL left out, so that it is a topic too. */
static struct bytes random_text(size_t points)
{
	size_t start = arena.used;

	while (points) {
		static const uint32_t below_of[] = { 0x80, 0x80, 0x80, 0x800, 0x10000, 0x110000 };
		uint32_t c = (uint32_t)below(below_of[below(ARRAY_SIZE(below_of))]);

		if (c == 0 || c == '+' || c == '#' || (c >= 0xd800 && c <= 0xdfff))
			continue;
		arena.used += utf8_put(c, arena.mem + arena.used);
		points--;
	}
	return bytes_of(arena.mem + start, arena.used - start);
}

static struct bytes random_bytes(size_t n)
{
	size_t start = arena.used;

	for (size_t i = 0; i < n; i++)
		arena.mem[arena.used++] = (uint8_t)harness_random();
	return bytes_of(arena.mem + start, n);
}

static struct bytes random_filter(void)
{
	size_t start = arena.used, levels = 1 + below(4);

	for (size_t i = 0; i < levels; i++) {
		size_t kind = below(4);

		if (i)
			arena.mem[arena.used++] = '/';
		if (kind == 0)
			arena.mem[arena.used++] = '+';
		else if (kind == 1 && i + 1 == levels)
			arena.mem[arena.used++] = '#';
		else
			(void)random_text(1 + below(5)); /* it lands in the arena */
	}
	return bytes_of(arena.mem + start, arena.used - start);
}

static void random_connect(struct bytes_writer *w)
{
	struct mqtt_connect c = {
		.level = 4,
		.clean_session = below(2),
		.keepalive_s = (uint16_t)harness_random(),
		.client_id = random_text(1 + below(30)),
		.has_will = below(2),
		.has_user_name = below(2),
	};
	struct mqtt_connect got;
	struct mqtt_frame f;
	size_t used, need;

	c.has_password = c.has_user_name && below(2);
	if (c.has_will)
		c.will = (struct mqtt_will){ .topic = random_text(1 + below(30)),
					     .payload = random_bytes(below(200)),
					     .qos = (uint8_t)below(3),
					     .retain = below(2) };
	if (c.has_user_name)
		c.user_name = random_text(below(50));
	if (c.has_password)
		c.password = random_bytes(below(50));
	mqtt_encode_connect(&c, w);
	ASSERT_FALSE(w->bad);
	ASSERT_EQ(mqtt_frame_next(bytes_of(w->p - w->used, w->used), NO_LIMIT, &f, &used, &need),
		  MQTT_OK);
	ASSERT_EQ(mqtt_decode_connect(f.body, &got), MQTT_OK);
	ASSERT_TRUE(got.level == 4 && got.clean_session == c.clean_session &&
		    got.keepalive_s == c.keepalive_s && got.has_will == c.has_will &&
		    got.has_user_name == c.has_user_name && got.has_password == c.has_password &&
		    got.will.qos == c.will.qos && got.will.retain == c.will.retain);
	ASSERT_TRUE(bytes_equal(got.client_id, c.client_id));
	ASSERT_TRUE(bytes_equal(got.will.topic, c.will.topic));
	ASSERT_TRUE(bytes_equal(got.will.payload, c.will.payload));
	ASSERT_TRUE(bytes_equal(got.user_name, c.user_name));
	ASSERT_TRUE(bytes_equal(got.password, c.password));
}

static void random_publish(struct bytes_writer *w)
{
	struct mqtt_publish p = {
		.retain = below(2),
		.qos = (uint8_t)below(3),
		.topic = random_text(1 + below(60)),
		.payload = random_bytes(below(300)),
	};
	struct mqtt_publish got;
	struct mqtt_frame f;
	size_t used, need;

	p.dup = p.qos && below(2);
	p.packet_id = p.qos ? (uint16_t)(1 + below(UINT16_MAX)) : 0;
	mqtt_encode_publish(&p, w);
	ASSERT_FALSE(w->bad);
	ASSERT_EQ(w->used, mqtt_publish_bytes(p.topic.n, p.payload.n, p.qos));
	ASSERT_EQ(mqtt_frame_next(bytes_of(w->p - w->used, w->used), NO_LIMIT, &f, &used, &need),
		  MQTT_OK);
	ASSERT_EQ(mqtt_decode_publish(&f, &got), MQTT_OK);
	ASSERT_TRUE(got.dup == p.dup && got.retain == p.retain && got.qos == p.qos &&
		    got.packet_id == p.packet_id);
	ASSERT_TRUE(bytes_equal(got.topic, p.topic));
	ASSERT_TRUE(bytes_equal(got.payload, p.payload));
}

static void random_subscribe(struct bytes_writer *w)
{
	struct mqtt_subscribe s = { .packet_id = (uint16_t)(1 + below(UINT16_MAX)),
				    .n = (unsigned)(1 + below(MQTT_FILTERS_MAX)) };
	struct mqtt_subscribe got;
	struct mqtt_frame f;
	size_t used, need;

	for (unsigned i = 0; i < s.n; i++)
		s.list[i] = (struct mqtt_subscription){ random_filter(), (uint8_t)below(3) };
	mqtt_encode_subscribe(&s, w);
	ASSERT_FALSE(w->bad);
	ASSERT_EQ(mqtt_frame_next(bytes_of(w->p - w->used, w->used), NO_LIMIT, &f, &used, &need),
		  MQTT_OK);
	ASSERT_EQ(mqtt_decode_subscribe(f.body, &got), MQTT_OK);
	ASSERT_EQ(got.packet_id, s.packet_id);
	ASSERT_EQ(got.n, s.n);
	for (unsigned i = 0; i < s.n; i++) {
		ASSERT_TRUE(bytes_equal(got.list[i].filter, s.list[i].filter));
		ASSERT_EQ(got.list[i].qos, s.list[i].qos);
	}
}

static void random_unsubscribe(struct bytes_writer *w)
{
	struct mqtt_unsubscribe u = { .packet_id = (uint16_t)(1 + below(UINT16_MAX)),
				      .n = (unsigned)(1 + below(MQTT_FILTERS_MAX)) };
	struct mqtt_unsubscribe got;
	struct mqtt_frame f;
	size_t used, need;

	for (unsigned i = 0; i < u.n; i++)
		u.filters[i] = random_filter();
	mqtt_encode_unsubscribe(&u, w);
	ASSERT_FALSE(w->bad);
	ASSERT_EQ(mqtt_frame_next(bytes_of(w->p - w->used, w->used), NO_LIMIT, &f, &used, &need),
		  MQTT_OK);
	ASSERT_EQ(mqtt_decode_unsubscribe(f.body, &got), MQTT_OK);
	ASSERT_EQ(got.packet_id, u.packet_id);
	ASSERT_EQ(got.n, u.n);
	for (unsigned i = 0; i < u.n; i++)
		ASSERT_TRUE(bytes_equal(got.filters[i], u.filters[i]));
}

static void random_small(struct bytes_writer *w)
{
	static const enum mqtt_type acks[] = { MQTT_PUBACK, MQTT_PUBREC, MQTT_PUBREL, MQTT_PUBCOMP,
					       MQTT_UNSUBACK };
	static const enum mqtt_type empties[] = { MQTT_PINGREQ, MQTT_PINGRESP, MQTT_DISCONNECT };
	static const uint8_t granted[] = { 0, 1, 2, 0x80 };
	uint16_t id = (uint16_t)(1 + below(UINT16_MAX));
	uint8_t codes[MQTT_FILTERS_MAX];
	size_t n = 1 + below(sizeof(codes));

	for (size_t i = 0; i < n; i++)
		codes[i] = granted[below(sizeof(granted))];
	switch (below(4)) {
	case 0:
		mqtt_encode_ack(acks[below(ARRAY_SIZE(acks))], id, w);
		break;
	case 1:
		mqtt_encode_empty(empties[below(ARRAY_SIZE(empties))], w);
		break;
	case 2:
		mqtt_encode_suback(id, codes, n, w);
		break;
	case 3:
		mqtt_encode_connack(false, (uint8_t)below(6), w);
		break;
	}
	ASSERT_FALSE(w->bad);
}

/* One packet of any kind, compared field by field with what it decodes to, and then as bytes. */
static size_t random_packet(uint8_t *out, size_t room)
{
	static void (*const makers[])(struct bytes_writer *) = {
		random_connect, random_publish, random_subscribe, random_unsubscribe, random_small,
	};
	struct bytes_writer w = bytes_writer_of(out, room);

	arena.used = 0;
	makers[below(ARRAY_SIZE(makers))](&w);
	return w.used;
}

TEST(random_round_trip)
{
	static uint8_t out[1 << 16];

	for (unsigned turn = 0; turn < RANDOM_TURNS; turn++) {
		size_t n = random_packet(out, sizeof(out));

		ASSERT_EQ(verdict(bytes_of(out, n)), MQTT_OK);
	}
}

/* Whatever it is: only a verdict, no read beyond the end (the address sanitizer looks on), and what
 * decodes encodes to itself. */
static void survive(struct bytes wire)
{
	uint8_t *p = copy_of(wire);
	struct mqtt_frame f = { 0 };
	size_t used = 0, need = 0;
	enum mqtt_reason reason;

	reason = mqtt_frame_next(bytes_of(p, wire.n), NO_LIMIT, &f, &used, &need);
	if (reason == MQTT_OK && used) {
		uint8_t *body = copy_of(f.body), *out = malloc(wire.n);
		struct bytes_writer w = bytes_writer_of(out, wire.n);
		size_t body_n = f.body.n;

		f.body.p = body;
		if (mqtt_recode(&f, &w) == MQTT_OK) {
			ASSERT_FALSE(w.bad);
			ASSERT_GE(w.used, body_n);
			ASSERT_BYTES(out + w.used - body_n, body, body_n);
		}
		free(body);
		free(out);
	}
	free(p);
}

TEST(random_bytes_as_packets)
{
	uint8_t noise[128];

	for (unsigned turn = 0; turn < 10 * RANDOM_TURNS; turn++) {
		size_t n = below(sizeof(noise) + 1);

		for (size_t i = 0; i < n; i++)
			noise[i] = (uint8_t)harness_random();
		if (n > 1 && below(4)) /* mostly with a length that fits, to get further */
			noise[1] = (uint8_t)((n - 2) % 128);
		survive(bytes_of(noise, n));
	}
}

TEST(random_changes_to_packets)
{
	static uint8_t out[1 << 16];

	for (unsigned turn = 0; turn < RANDOM_TURNS; turn++) {
		size_t n = random_packet(out, sizeof(out));

		for (size_t changes = 1 + below(3); changes; changes--)
			out[below(n)] ^= (uint8_t)(1u << below(8));
		survive(bytes_of(out, below(2) ? n : below(n + 1)));
	}
}

HARNESS_MAIN
