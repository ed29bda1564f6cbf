// SPDX-License-Identifier: MIT
/*
 * Admission: the kernel's filter (bpf/admission.bpf.c) and the broker's gate, first each against a
 * table of verdicts, then against each other and against a third reading of PROTOCOL 6, on random
 * and mutated CONNECTs. The filter runs in the kernel, by BPF_PROG_TEST_RUN.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bpf/admission.h"
#include "bpf/admission.skel.h"
#include "tests/admission_check.h"
#include "tests/harness.h"
#include "userspace/broker/broker.h"
#include "userspace/broker/gate.h"
#include "userspace/mqtt/packet.h"

#define DEVICES	       16
#define CONNECT_MAX    600
#define FRAME_MAX      (14 + 40 + 20 + CONNECT_MAX)
#define NS_PER_MS      1000000ull
#define RECENT	       64
#define PACKETS	       1000000 /* half of them in each version of IP */
#define DEVICE_BURST   40
#define REFRESH	       4000 /* packets until the devices' rates begin anew */
#define PASSED	       0x100
#define INTERVAL_NEVER 1000000000000000ull

/* --- packets ---------------------------------------------------------------------------------- */

struct device {
	char id[ADMISSION_ID_BYTES + 1];
	uint8_t key[ADMISSION_KEY_BYTES];
	uint8_t previous[ADMISSION_KEY_BYTES];
	uint64_t previous_until_ns; /* 0: there is none */
	bool no_clock;
};

struct packet {
	uint8_t bytes[CONNECT_MAX];
	size_t n;
};

/* What a CONNECT is made of. */
struct connect {
	const struct device *device;
	const char *id, *user_name; /* NULL: the device's id; none */
	uint32_t slot;
	uint8_t level;
	bool will, no_password;
	bool old_key;	     /* its token is by the device's previous key */
	unsigned properties; /* bytes of them, of MQTT 5 */
	unsigned will_bytes;
};

static void put_field(struct bytes_writer *w, const void *p, size_t n)
{
	bytes_write_u16(w, (uint16_t)n);
	bytes_write(w, bytes_of(p, n));
}

static void put_zeros(struct bytes_writer *w, size_t n)
{
	while (n--)
		bytes_write_u8(w, 0x26);
}

static void put_varint(struct bytes_writer *w, size_t n)
{
	do {
		bytes_write_u8(w, (uint8_t)((n & 0x7f) | (n > 0x7f ? 0x80 : 0)));
		n >>= 7;
	} while (n);
}

static void put_properties(struct bytes_writer *w, const struct connect *c)
{
	if (c->level != 5)
		return;
	put_varint(w, c->properties);
	put_zeros(w, c->properties);
}

static void connect_body(const struct connect *c, struct bytes_writer *w)
{
	const char *id = c->id ? c->id : c->device->id;
	uint8_t token[ADMISSION_TOKEN_BYTES], flags = 0x02;
	const char *user_name = c->user_name ? c->user_name : "nonce";

	flags |= c->will ? 0x04 : 0;
	flags |= c->user_name ? 0x80 : 0;
	flags |= c->user_name && !c->no_password ? 0x40 : 0;
	put_field(w, "MQTT", 4);
	bytes_write_u8(w, c->level);
	bytes_write_u8(w, flags);
	bytes_write_u16(w, 60);
	put_properties(w, c);
	put_field(w, id, strlen(id));
	if (c->will) {
		put_properties(w, c);
		put_field(w, "gone", 4);
		bytes_write_u16(w, (uint16_t)c->will_bytes);
		put_zeros(w, c->will_bytes);
	}
	if (!c->user_name)
		return;
	put_field(w, user_name, strlen(user_name));
	if (c->no_password)
		return;
	ASSERT_EQ(admission_token(c->old_key ? c->device->previous : c->device->key, bytes_str(id),
				  bytes_str(user_name), c->slot, token),
		  0);
	put_field(w, token, sizeof(token));
}

static struct packet packet_of(const struct connect *c)
{
	uint8_t body[CONNECT_MAX];
	struct bytes_writer b = bytes_writer_of(body, sizeof(body)), w;
	struct packet p;

	connect_body(c, &b);
	ASSERT_FALSE(b.bad);
	w = bytes_writer_of(p.bytes, sizeof(p.bytes));
	bytes_write_u8(&w, 0x10);
	put_varint(&w, b.used);
	bytes_write(&w, bytes_of(body, b.used));
	ASSERT_FALSE(w.bad);
	p.n = w.used;
	return p;
}

static uint64_t boot_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* --- the filter and the gate ------------------------------------------------------------------ */

FIXTURE(admission)
{
	struct admission *object;
	struct pool pool;
	struct gate gate;
	struct admission_config config;
	struct device devices[DEVICES];
	struct admission_device entries[DEVICES]; /* the gate's */
	uint64_t slot_base;			  /* "now" is always within this one */
	uint32_t sequence;
	bool ipv6;
	bool other; /* it is the filter of the other listeners that is asked */
};

FIXTURE_VARIANT(admission)
{
	bool ipv6;
};

FIXTURE_VARIANT_ADD(admission, ipv4){ .ipv6 = false };
FIXTURE_VARIANT_ADD(admission, ipv6){ .ipv6 = true };

static struct admission_device *find_device(void *ctx, const struct admission_id *id)
{
	struct fixture_admission *f = ctx;

	for (unsigned i = 0; i < DEVICES; i++) {
		struct admission_id want = { { 0 } };

		memcpy(want.bytes, f->devices[i].id, strlen(f->devices[i].id));
		if (!memcmp(&want, id, sizeof(want)))
			return &f->entries[i];
	}
	return NULL;
}

static void put_devices(struct fixture_admission *f)
{
	for (unsigned i = 0; i < DEVICES; i++) {
		struct admission_id id = { { 0 } };

		memcpy(id.bytes, f->devices[i].id, strlen(f->devices[i].id));
		f->entries[i] = (struct admission_device){
			.flags = f->devices[i].no_clock ? ADMISSION_DEVICE_NO_CLOCK : 0,
			.previous_until_ns = f->devices[i].previous_until_ns,
		};
		memcpy(f->entries[i].previous, f->devices[i].previous,
		       sizeof(f->entries[i].previous));
		memcpy(f->entries[i].key, f->devices[i].key, sizeof(f->entries[i].key));
		ASSERT_EQ(bpf_map_update_elem(bpf_map__fd(f->object->maps.devices), &id,
					      &f->entries[i], BPF_ANY),
			  0);
	}
}

/* Both clocks stand in the middle of the slot from here on. */
static void put_config(struct fixture_admission *f)
{
	const __u32 zero = 0;
	uint64_t middle_ns = (f->slot_base * 30 + 15) * 1000000000ull;

	f->config.wall_offset_ns = middle_ns - boot_ns();
	ASSERT_EQ(bpf_map_update_elem(bpf_map__fd(f->object->maps.config), &zero, &f->config,
				      BPF_ANY),
		  0);
	f->gate.config = f->config;
}

static void start_gate(struct fixture_admission *f)
{
	struct broker_limits limits;

	broker_limits_default(&limits);
	gate_init(&f->gate, &f->pool, &limits);
	f->gate.find_device = find_device;
	f->gate.ctx = f;
}

static void make_devices(struct fixture_admission *f)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789._:-";

	for (unsigned i = 0; i < DEVICES; i++) {
		struct device *d = &f->devices[i];
		unsigned n = i == 0 ? 1 : i == 1 ? 64 : 2 + i * 3;

		d->id[0] = (char)('A' + i);
		for (unsigned k = 1; k < n; k++)
			d->id[k] = letters[harness_random() % (sizeof(letters) - 1)];
		for (unsigned k = 0; k < sizeof(d->key); k++) {
			d->key[k] = (uint8_t)harness_random();
			d->previous[k] = (uint8_t)harness_random();
		}
		d->no_clock = i % 2;
		/* For good, no more, and never. */
		if (i % 4)
			d->previous_until_ns = i % 4 == 1 ? UINT64_MAX : i % 4 == 2;
	}
}

FIXTURE_SETUP(admission)
{
	struct broker_limits limits;
	int err;

	self->ipv6 = variant->ipv6;
	self->object = admission__open();
	ASSERT_TRUE(self->object != NULL);
	libbpf_set_print(NULL);
	err = admission__load(self->object);
	if (err == -EPERM)
		SKIP("loading BPF programs takes CAP_BPF and CAP_PERFMON");
	if (err == -ENOSYS)
		SKIP("this kernel has no BPF");
	ASSERT_EQ(err, 0);
	broker_limits_default(&limits);
	pool_init(&self->pool);
	start_gate(self);
	make_devices(self);
	self->slot_base = 59000000;
	gate_config(&limits, &self->config);
	self->config.flags = ADMISSION_ENFORCE | ADMISSION_ENFORCE_BANS;
	/* Nothing here is about time passing: rates are counts. */
	self->config.device = (struct admission_rate){ INTERVAL_NEVER, DEVICE_BURST, 0 };
	self->config.no_clock = (struct admission_rate){ INTERVAL_NEVER, 3, 0 };
	self->config.told = (struct admission_rate){ INTERVAL_NEVER, 0, 0 };
	self->config.stray = (struct admission_rate){ INTERVAL_NEVER, 0, 0 };
	self->config.pend_ns = INTERVAL_NEVER;
	put_config(self);
	put_devices(self);
}

FIXTURE_TEARDOWN(admission)
{
	admission__destroy(self->object);
	if (self->gate.pool) {
		gate_deinit(&self->gate);
		pool_deinit(&self->pool);
	}
}

/* One segment. */
struct segment {
	uint8_t flags; /* of TCP */
	uint8_t host;  /* the last byte of its source */
	uint16_t port;
	uint32_t sequence;
	const uint8_t *payload;
	size_t n;
};

#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define PSH 0x08
#define ACK 0x10

static void put_ip(struct bytes_writer *w, bool ipv6, const struct segment *s)
{
	static const uint8_t prefix[15] = { 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0 };
	uint8_t v4[20] = { 0x45, [8] = 64, [9] = 6, [12] = 192, 0, 2 };
	uint8_t v6[40] = { 0x60, [6] = 6, 64 };

	if (ipv6) {
		memcpy(v6 + 8, prefix, sizeof(prefix));
		v6[8 + 7] = s->host; /* a /64 of its own */
		v6[23] = 7;
		bytes_write(w, bytes_of(v6, sizeof(v6)));
		return;
	}
	v4[15] = s->host;
	bytes_write(w, bytes_of(v4, sizeof(v4)));
}

static const struct bpf_program *program_of(const struct fixture_admission *f)
{
	if (f->other)
		return f->ipv6 ? f->object->progs.filter_other_test_ipv6
			       : f->object->progs.filter_other_test_ip;
	return f->ipv6 ? f->object->progs.filter_test_ipv6 : f->object->progs.filter_test_ip;
}

/* The filter's verdict, and PASSED. */
static unsigned filter(struct fixture_admission *f, const struct segment *s)
{
	uint8_t frame[FRAME_MAX], tcp[20] = { [12] = 0x50 };
	struct bytes_writer w = bytes_writer_of(frame, sizeof(frame));
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame, .repeat = 1);

	bytes_write(&w, bytes_of("\2\2\2\2\2\2\2\2\2\2\2\2", 12));
	bytes_write_u16(&w, f->ipv6 ? 0x86dd : 0x0800);
	put_ip(&w, f->ipv6, s);
	tcp[0] = (uint8_t)(s->port >> 8);
	tcp[1] = (uint8_t)s->port;
	bytes_store_u32(tcp + 4, s->sequence);
	tcp[13] = s->flags;
	bytes_write(&w, bytes_of(tcp, sizeof(tcp)));
	if (s->n)
		bytes_write(&w, bytes_of(s->payload, s->n));
	ASSERT_FALSE(w.bad);
	run.data_size_in = (uint32_t)w.used;
	ASSERT_EQ(bpf_prog_test_run_opts(bpf_program__fd(program_of(f)), &run), 0);
	return run.retval;
}

static enum admission_verdict gate(struct fixture_admission *f, struct bytes in)
{
	uint64_t now_ms = boot_ns() / NS_PER_MS;
	struct gate_now now = { now_ms, f->config.wall_offset_ns / NS_PER_MS + now_ms };

	return gate_judge(&f->gate, now, in);
}

/* A connection of its own: its SYN was seen, its CONNECT is what is asked about. */
static unsigned filter_connect(struct fixture_admission *f, const uint8_t *p, size_t n)
{
	struct segment s = { .flags = SYN, .host = 1, .port = (uint16_t)(1024 + f->sequence++) };

	ASSERT_EQ(filter(f, &s), ADMISSION_SYN | PASSED);
	s.flags = ACK | PSH;
	s.sequence = f->sequence;
	s.payload = p;
	s.n = n;
	return filter(f, &s);
}

#define EXPECT_BOTH(f, p, verdict)                                                   \
	do {                                                                         \
		struct packet expect_p = p;                                          \
		unsigned expect_pass = (verdict) == ADMISSION_OK ? PASSED : 0;       \
		EXPECT_EQ(filter_connect(f, expect_p.bytes, expect_p.n),             \
			  (unsigned)(verdict) | expect_pass);                        \
		EXPECT_EQ(gate(f, bytes_of(expect_p.bytes, expect_p.n)), (verdict)); \
	} while (0)

static struct connect good(struct fixture_admission *f, unsigned device, const char *user_name)
{
	return (struct connect){
		.device = &f->devices[device],
		.user_name = user_name,
		.slot = (uint32_t)f->slot_base,
		.level = 4,
	};
}

/* --- the table -------------------------------------------------------------------------------- */

TEST_F(admission, segments_without_a_claim)
{
	struct segment s = { .flags = SYN, .host = 1, .port = 5000 };

	EXPECT_EQ(filter(self, &s), ADMISSION_SYN | PASSED);
	s.flags = ACK;
	EXPECT_EQ(filter(self, &s), ADMISSION_BARE);
	s.flags = ACK | FIN;
	EXPECT_EQ(filter(self, &s), ADMISSION_BARE);
	s.flags = RST;
	EXPECT_EQ(filter(self, &s), ADMISSION_RST | PASSED);
	s.flags = ACK | PSH;
	s.payload = (const uint8_t *)"GET / HTTP/1.1\r\n\r\n";
	s.n = 18;
	EXPECT_EQ(filter(self, &s), ADMISSION_NOT_CONNECT);
	/* Bytes that come with a SYN are left by TCP, and judged when they come again. */
	s.flags = SYN;
	EXPECT_EQ(filter(self, &s), ADMISSION_SYN | PASSED);
	/* To TCP, these end a handshake. */
	s.flags = SYN | FIN;
	EXPECT_EQ(filter(self, &s), ADMISSION_BARE);
	s.flags = SYN | ACK;
	EXPECT_EQ(filter(self, &s), ADMISSION_BARE);
	s.flags = SYN | FIN | ACK;
	EXPECT_EQ(filter(self, &s), ADMISSION_BARE);
}

TEST_F(admission, good_connects)
{
	struct connect c = good(self, 0, "u");

	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK); /* an id of 1 byte */
	c = good(self, 1, "0123456789012345678901234567890123456789abcdefgh");
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK); /* of 64, and a User Name of 48 */
	c = good(self, 2, "with a will");
	c.will = true;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK);
	c.user_name = "and a longer one";
	c.will_bytes = 300;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK);
	c = good(self, 3, "mqtt 5");
	c.level = 5;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK);
	c.user_name = "mqtt 5 with properties";
	c.properties = 1;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK);
	c.user_name = "many properties";
	c.properties = 130;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK);
	c.user_name = "twice";
	c.will = true;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK);
}

TEST_F(admission, slots)
{
	static const struct {
		int apart;
		enum admission_verdict verdict;
	} table[] = { { -2, ADMISSION_SLOT },
		      { -1, ADMISSION_OK },
		      { 0, ADMISSION_OK },
		      { 1, ADMISSION_OK },
		      { 2, ADMISSION_SLOT } };
	struct connect c = good(self, 4, "slots");

	for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
		c.slot = (uint32_t)(self->slot_base + (uint64_t)table[i].apart);
		EXPECT_BOTH(self, packet_of(&c), table[i].verdict);
	}
	c.slot = UINT32_MAX;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_SLOT);
}

TEST_F(admission, without_a_clock)
{
	struct connect c = good(self, 5, "1");

	c.slot = ADMISSION_SLOT_NO_CLOCK;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK);
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_REPLAYED);
	c.user_name = "2";
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK);
	c.user_name = "3";
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK);
	c.user_name = "4"; /* at a rate of its own */
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_RATE);
	c.slot = (uint32_t)self->slot_base;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK);
	c = good(self, 4, "1"); /* has a clock */
	c.slot = ADMISSION_SLOT_NO_CLOCK;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_SLOT);
}

TEST_F(admission, rate_of_a_device)
{
	char user_name[16];
	struct connect c = good(self, 6, user_name);

	for (unsigned i = 0; i < DEVICE_BURST; i++) {
		snprintf(user_name, sizeof(user_name), "%u", i);
		EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK);
	}
	c.user_name = "one more";
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_RATE);
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_RATE); /* it was not remembered */
	c.user_name = "0";				  /* nor does a replay count */
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_REPLAYED);
	c = good(self, 7, "another");
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK);
}

TEST_F(admission, the_previous_key)
{
	const uint64_t middle_ns = (self->slot_base * 30 + 15) * 1000000000ull;
	struct connect c = good(self, 5, "for good");

	c.old_key = true;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK);
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_REPLAYED);
	c.old_key = false;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK); /* another token */
	c.old_key = true;
	c.slot = ADMISSION_SLOT_NO_CLOCK;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK);
	c = good(self, 6, "its time is over");
	c.old_key = true;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_BAD_TAG);
	c = good(self, 4, "never");
	c.old_key = true;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_BAD_TAG);
	/* Until a time; the clocks stand still but for what a test takes. */
	self->devices[4].previous_until_ns = middle_ns + 3600 * 1000000000ull;
	self->devices[8].previous_until_ns = middle_ns - 10000000;
	put_devices(self);
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK);
	c = good(self, 8, "a moment ago");
	c.old_key = true;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_BAD_TAG);
	c.old_key = false;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_OK);
}

TEST_F(admission, claims_that_do_not_hold)
{
	struct connect c = good(self, 8, "claims");
	struct packet p;

	c.id = "nobody";
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_UNKNOWN);
	c.id = NULL;
	c.device = &self->devices[9];
	c.id = self->devices[8].id; /* with another's key */
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_BAD_TAG);
	c = good(self, 8, "claims");
	c.no_password = true;
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_NO_TOKEN);
	c = good(self, 8, NULL);
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_NO_TOKEN);
	c = good(self, 8, "");
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_NO_TOKEN);
	c = good(self, 8, "claims");
	p = packet_of(&c);
	for (unsigned i = 0; i < 8; i++) { /* every byte of the tag counts */
		struct packet bent = p;

		bent.bytes[p.n - 1 - i] ^= (uint8_t)(1u << i);
		EXPECT_BOTH(self, bent, ADMISSION_BAD_TAG);
	}
	p.bytes[p.n - 13] = 2;
	EXPECT_BOTH(self, p, ADMISSION_NO_TOKEN); /* a version to come */
}

TEST_F(admission, malformed)
{
	struct connect c = good(self, 8, "malformed");
	struct packet whole = packet_of(&c), p;

	for (size_t n = 1; n < whole.n; n++) { /* in two segments, or the first of them */
		p = whole;
		p.n = n;
		EXPECT_BOTH(self, p, ADMISSION_SPLIT);
	}
	p = whole;
	p.bytes[1]--; /* Remaining Length ends within the token */
	EXPECT_BOTH(self, p, ADMISSION_MALFORMED);
	p = whole;
	p.bytes[1]++;
	p.bytes[p.n++] = 0; /* or behind it */
	EXPECT_BOTH(self, p, ADMISSION_MALFORMED);
	p = whole;
	p.bytes[0] = 0x11;
	EXPECT_BOTH(self, p, ADMISSION_NOT_CONNECT);
	p = whole;
	p.bytes[5] = 'm';
	EXPECT_BOTH(self, p, ADMISSION_NOT_CONNECT);
	p = whole;
	p.bytes[8] = 3;
	EXPECT_BOTH(self, p, ADMISSION_MALFORMED); /* level */
	p = whole;
	p.bytes[9] |= 1;
	EXPECT_BOTH(self, p, ADMISSION_MALFORMED); /* the reserved flag */
	p = whole;
	p.bytes[9] |= 0x20;
	EXPECT_BOTH(self, p, ADMISSION_MALFORMED); /* RETAIN of no Will */
	p = whole;
	p.bytes[1] = 0xff;
	p.bytes[2] = p.bytes[3] = 0x80;
	EXPECT_BOTH(self, p, ADMISSION_MALFORMED); /* a length of four bytes */
	c.id = "";
	EXPECT_BOTH(self, packet_of(&c), ADMISSION_MALFORMED);
	EXPECT_BOTH(self, whole, ADMISSION_OK);
}

/* What follows a CONNECT in its segment is TCP's and the broker's. */
TEST_F(admission, more_behind_a_connect)
{
	struct connect c = good(self, 8, "more");
	struct packet p = packet_of(&c);

	memset(p.bytes + p.n, 0x82, 50);
	p.n += 50;
	EXPECT_BOTH(self, p, ADMISSION_OK);
}

TEST_F(admission, the_same_segment_again)
{
	struct connect c = good(self, 10, "again");
	struct packet p = packet_of(&c);
	struct segment s = { .flags = SYN, .host = 1, .port = 7000 };

	filter(self, &s);
	s = (struct segment){ ACK | PSH, 1, 7000, 99, p.bytes, p.n };
	EXPECT_EQ(filter(self, &s), ADMISSION_OK | PASSED);
	EXPECT_EQ(filter(self, &s), ADMISSION_OK_AGAIN | PASSED);
	s.sequence++;
	EXPECT_EQ(filter(self, &s), ADMISSION_REPLAYED);
	s.sequence--;
	s.port++;
	EXPECT_EQ(filter(self, &s), ADMISSION_REPLAYED);
	s.port--;
	s.host = 2;
	EXPECT_EQ(filter(self, &s), ADMISSION_REPLAYED);
	s.host = 1;
	EXPECT_EQ(filter(self, &s), ADMISSION_OK_AGAIN | PASSED);
}

TEST_F(admission, strays_are_tcps_within_a_budget)
{
	struct segment s = { .flags = ACK, .host = 1, .port = 8000 };

	/* A bare one would end a handshake of SYN cookies. */
	self->config.stray = (struct admission_rate){ .interval_ns = 0 };
	put_config(self);
	EXPECT_EQ(filter(self, &s), ADMISSION_BARE);
	s.flags = ACK | PSH;
	s.payload = (const uint8_t *)"\xc0";
	s.n = 2;
	self->config.stray = (struct admission_rate){ INTERVAL_NEVER, 2, 0 };
	put_config(self);
	EXPECT_EQ(filter(self, &s), ADMISSION_STRAY | PASSED); /* there was no SYN */
	EXPECT_EQ(filter(self, &s), ADMISSION_STRAY | PASSED);
	EXPECT_EQ(filter(self, &s), ADMISSION_NOT_CONNECT);
	self->config.stray.interval_ns = 0; /* no limit */
	put_config(self);
	s.flags = SYN;
	EXPECT_EQ(filter(self, &s), ADMISSION_SYN | PASSED);
	s.flags = ACK | PSH;
	EXPECT_EQ(filter(self, &s), ADMISSION_NOT_CONNECT);
	self->config.pend_ns = 0; /* the half-open connection is gone since */
	put_config(self);
	EXPECT_EQ(filter(self, &s), ADMISSION_STRAY | PASSED);
}

/* Strangers are not told, nor is a device whose retransmission will get in. */
TEST_F(admission, replays_garbage_and_rates_are_not_told)
{
	char user_name[16];
	struct connect c = good(self, 6, user_name);
	struct packet p;

	self->config.told = self->config.told_total = (struct admission_rate){ 0, 0, 0 };
	put_config(self);
	for (unsigned i = 0; i <= DEVICE_BURST; i++) {
		snprintf(user_name, sizeof(user_name), "%u", i);
		p = packet_of(&c);
		EXPECT_EQ(filter_connect(self, p.bytes, p.n),
			  i < DEVICE_BURST ? ADMISSION_OK | PASSED : ADMISSION_RATE);
	}
	snprintf(user_name, sizeof(user_name), "0");
	p = packet_of(&c);
	EXPECT_EQ(filter_connect(self, p.bytes, p.n), ADMISSION_REPLAYED);
	EXPECT_EQ(filter_connect(self, (const uint8_t *)"GET /", 5), ADMISSION_NOT_CONNECT);
	c.id = "nobody";
	p = packet_of(&c);
	EXPECT_EQ(filter_connect(self, p.bytes, p.n), ADMISSION_UNKNOWN | PASSED);
}

TEST_F(admission, some_are_told)
{
	struct connect c = good(self, 8, "told");
	struct packet p;
	struct admission_source_state state;
	struct admission_source source;
	uint64_t n = 0;

	c.id = "nobody";
	p = packet_of(&c);
	self->config.told = (struct admission_rate){ INTERVAL_NEVER, 2, 0 };
	self->config.told_total = (struct admission_rate){ INTERVAL_NEVER, 3, 0 };
	put_config(self);
	EXPECT_EQ(filter_connect(self, p.bytes, p.n), ADMISSION_UNKNOWN | PASSED);
	EXPECT_EQ(filter_connect(self, p.bytes, p.n), ADMISSION_UNKNOWN | PASSED);
	EXPECT_EQ(filter_connect(self, p.bytes, p.n), ADMISSION_UNKNOWN);
	ASSERT_EQ(bpf_map_get_next_key(bpf_map__fd(self->object->maps.sources), NULL, &source), 0);
	ASSERT_EQ(bpf_map_lookup_elem(bpf_map__fd(self->object->maps.sources), &source, &state), 0);
	EXPECT_EQ(state.rejected, 3);
	EXPECT_EQ(state.last, ADMISSION_UNKNOWN);
	for (unsigned host = 2; host < 6; host++) { /* the third, and nobody more */
		struct segment s = { SYN, (uint8_t)host, 9000, 0, NULL, 0 };

		filter(self, &s);
		s = (struct segment){ ACK | PSH, (uint8_t)host, 9000, 1, p.bytes, p.n };
		n += filter(self, &s) == (ADMISSION_UNKNOWN | PASSED);
	}
	EXPECT_EQ(n, 1);
}

/* Nothing that a packet says bans its source; only what user space puts there. */
TEST_F(admission, bans_are_of_user_space)
{
	struct segment s = { .flags = SYN, .host = 9, .port = 9999 };
	int bans = bpf_map__fd(self->object->maps.bans);
	struct admission_source source, unused;
	uint8_t address[16] = { 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 9, 1, 2, 3 };
	__u64 until_ns = boot_ns() + INTERVAL_NEVER;

	for (unsigned i = 0; i < 1000; i++)
		filter_connect(self, (const uint8_t *)"garbage", 7);
	EXPECT_TRUE(bpf_map_get_next_key(bans, NULL, &unused) == -ENOENT);
	if (!self->ipv6) {
		memset(address, 0, sizeof(address));
		memcpy(address + 10, "\xff\xff\xc0\0\2\t", 6);
	}
	source = gate_source_of(address);
	ASSERT_EQ(bpf_map_update_elem(bans, &source, &until_ns, BPF_ANY), 0);
	EXPECT_EQ(filter(self, &s), ADMISSION_BANNED);
	s.flags = RST;
	EXPECT_EQ(filter(self, &s), ADMISSION_RST | PASSED);
	s.flags = SYN;
	s.host = 8;
	EXPECT_EQ(filter(self, &s), ADMISSION_SYN | PASSED);
	s.host = 9;
	self->config.flags = ADMISSION_ENFORCE_BANS;
	put_config(self);
	EXPECT_EQ(filter(self, &s), ADMISSION_BANNED);
	self->config.flags = 0;
	put_config(self);
	EXPECT_EQ(filter(self, &s), ADMISSION_BANNED | PASSED);
	self->config.flags = ADMISSION_ENFORCE | ADMISSION_ENFORCE_BANS;
	put_config(self);
	until_ns = boot_ns() - 1;
	ASSERT_EQ(bpf_map_update_elem(bans, &source, &until_ns, BPF_ANY), 0);
	EXPECT_EQ(filter(self, &s), ADMISSION_SYN | PASSED);
}

/* TLS and WebSocket: nothing is known of what is said there. */
TEST_F(admission, other_listeners_have_bans_and_a_rate_of_syns)
{
	struct segment s = { .flags = ACK, .host = 9, .port = 443 };
	struct admission_source source;
	__u64 until_ns = boot_ns() + INTERVAL_NEVER;
	int bans = bpf_map__fd(self->object->maps.bans);

	self->other = true;
	self->config.syn = (struct admission_rate){ INTERVAL_NEVER, 2, 0 };
	put_config(self);
	EXPECT_EQ(filter(self, &s), ADMISSION_STRAY | PASSED);
	s.flags = ACK | PSH;
	s.payload = (const uint8_t *)"\x16\x03\x01";
	s.n = 3;
	EXPECT_EQ(filter(self, &s), ADMISSION_STRAY | PASSED);
	s = (struct segment){ .flags = SYN, .host = 9, .port = 443 };
	EXPECT_EQ(filter(self, &s), ADMISSION_SYN | PASSED);
	EXPECT_EQ(filter(self, &s), ADMISSION_SYN | PASSED);
	EXPECT_EQ(filter(self, &s), ADMISSION_SYN_RATE);
	s.host = 8;
	EXPECT_EQ(filter(self, &s), ADMISSION_SYN | PASSED);
	ASSERT_EQ(bpf_map_get_next_key(bpf_map__fd(self->object->maps.sources), NULL, &source), 0);
	ASSERT_EQ(bpf_map_update_elem(bans, &source, &until_ns, BPF_ANY), 0);
	s.host = 9;
	if (filter(self, &s) != ADMISSION_BANNED)
		s.host = 8;
	EXPECT_EQ(filter(self, &s), ADMISSION_BANNED);
	s.flags = ACK;
	EXPECT_EQ(filter(self, &s), ADMISSION_BANNED);
	s.flags = RST;
	EXPECT_EQ(filter(self, &s), ADMISSION_RST | PASSED);
	self->config.flags = 0; /* monitor */
	put_config(self);
	s.flags = SYN;
	EXPECT_EQ(filter(self, &s), ADMISSION_BANNED | PASSED);
}

TEST_F(admission, monitor_only_counts)
{
	struct connect c = good(self, 8, "monitor");
	__u32 key = ADMISSION_UNKNOWN;
	uint64_t n = 0, cpus[256];
	struct packet p;

	ASSERT_LE(libbpf_num_possible_cpus(), 256);
	c.id = "nobody";
	p = packet_of(&c);
	self->config.flags = 0;
	put_config(self);
	EXPECT_EQ(filter_connect(self, p.bytes, p.n), ADMISSION_UNKNOWN | PASSED);
	EXPECT_EQ(filter_connect(self, (const uint8_t *)"x", 1), ADMISSION_NOT_CONNECT | PASSED);
	ASSERT_EQ(bpf_map_lookup_elem(bpf_map__fd(self->object->maps.counters), &key, cpus), 0);
	for (int i = 0; i < libbpf_num_possible_cpus(); i++)
		n += cpus[i];
	EXPECT_EQ(n, 1);
}

/* Each socket is charged for it; 20480 is what 6.1 has for all of a socket's options. */
TEST_F(admission, size)
{
	struct bpf_prog_info info = { 0 };
	uint32_t n = sizeof(info);

	ASSERT_EQ(bpf_obj_get_info_by_fd(bpf_program__fd(self->object->progs.filter), &info, &n),
		  0);
	ASSERT_LT(info.xlated_prog_len, 16384);
}

/* --- filter, gate and a third reading --------------------------------------------------------- */

static struct connect random_connect(struct fixture_admission *f, char user_name[49])
{
	struct connect c = good(f, (unsigned)(harness_random() % DEVICES), user_name);
	unsigned n = 1 + (unsigned)(harness_random() % 48);

	for (unsigned i = 0; i < n; i++)
		user_name[i] = (char)('!' + harness_random() % 90);
	user_name[n] = '\0';
	c.level = harness_random() % 3 ? 4 : 5;
	c.will = harness_random() % 4 == 0;
	c.will_bytes = (unsigned)(harness_random() % 100);
	c.properties = (unsigned)(harness_random() % 150);
	c.slot += (uint32_t)(harness_random() % 8) < 6 ? 0 : (uint32_t)(harness_random() % 7) - 3;
	if (harness_random() % 16 == 0)
		c.slot = ADMISSION_SLOT_NO_CLOCK;
	if (harness_random() % 32 == 0)
		c.id = "stranger";
	c.no_password = harness_random() % 64 == 0;
	c.old_key = harness_random() % 8 == 0;
	return c;
}

/* Bits, bytes, lengths, the end. */
static void mutate(struct packet *p)
{
	unsigned rounds = (unsigned)(harness_random() % 4);

	for (unsigned i = 0; i < rounds && p->n; i++) {
		size_t at = harness_random() % p->n;

		switch (harness_random() % 6) {
		case 0:
			p->bytes[at] ^= (uint8_t)(1u << harness_random() % 8);
			break;
		case 1:
			p->bytes[at] = (uint8_t)harness_random();
			break;
		case 2: /* near the front, where lengths and flags are */
			p->bytes[at % 16] = (uint8_t)harness_random();
			break;
		case 3:
			p->n = at;
			break;
		case 4:
			p->bytes[at] += harness_random() % 2 ? 1 : 0xff;
			break;
		default:
			if (p->n < sizeof(p->bytes))
				p->bytes[p->n++] = (uint8_t)harness_random();
		}
	}
}

/* PROTOCOL 6 by the broker's own decoder: is it one that must get in, must not, or either? */
enum third { THIRD_IN, THIRD_OUT, THIRD_EITHER };

static int third_check(const struct fixture_admission *f, const struct device *d,
		       const struct mqtt_connect *c)
{
	const uint64_t middle_ns = (f->slot_base * 30 + 15) * 1000000000ull;
	int err = admission_check(d->key, c->client_id, c->user_name, c->password,
				  (uint32_t)f->slot_base, d->no_clock);

	if (err && d->previous_until_ns > middle_ns)
		err = admission_check(d->previous, c->client_id, c->user_name, c->password,
				      (uint32_t)f->slot_base, d->no_clock);
	return err;
}

static enum third third_reading(struct fixture_admission *f, const struct packet *p)
{
	struct mqtt_frame frame;
	struct mqtt_connect c;
	size_t used, need;

	if (p->n >= 5 && (p->bytes[1] & p->bytes[2] & p->bytes[3] & 0x80))
		return THIRD_EITHER; /* a longer length than it needs: the filter is stricter */
	if (mqtt_frame_next(bytes_of(p->bytes, p->n), 1 << 20, &frame, &used, &need) || !used ||
	    mqtt_frame_type(&frame) != MQTT_CONNECT)
		return THIRD_OUT;
	if (mqtt_decode_connect(frame.body, &c))
		return THIRD_EITHER; /* what is no text, or MQTT 5 */
	if (!c.has_user_name || !c.has_password || c.user_name.n < 1)
		return THIRD_OUT;
	for (unsigned i = 0; i < DEVICES; i++)
		if (bytes_equal(c.client_id, bytes_str(f->devices[i].id)))
			return third_check(f, &f->devices[i], &c) ? THIRD_OUT : THIRD_IN;
	return THIRD_OUT;
}

/* What was seen is forgotten on both sides: which old one goes first is not the same in both. */
static void begin_anew(struct fixture_admission *f)
{
	int seen = bpf_map__fd(f->object->maps.seen);
	__u64 tag;

	while (!bpf_map_get_next_key(seen, NULL, &tag))
		ASSERT_EQ(bpf_map_delete_elem(seen, &tag), 0);
	gate_deinit(&f->gate);
	start_gate(f);
	put_config(f);
	put_devices(f);
}

static bool got_in(enum admission_verdict v)
{
	return v == ADMISSION_OK || v == ADMISSION_REPLAYED || v == ADMISSION_RATE;
}

static void show(const struct packet *p, unsigned kernel, unsigned ours, enum third third)
{
	printf("# filter %x, gate %u, third %u:", kernel, ours, (unsigned)third);
	for (size_t i = 0; i < p->n; i++)
		printf(" %02x", p->bytes[i]);
	printf("\n");
}

static bool agree(struct fixture_admission *f, const struct packet *p, unsigned *counts)
{
	unsigned kernel = filter_connect(f, p->bytes, p->n) & ~PASSED;
	enum third third = third_reading(f, p);
	enum admission_verdict ours;

	if (p->n == 0)
		return kernel == ADMISSION_BARE;
	ours = gate(f, bytes_of(p->bytes, p->n));
	counts[ours]++;
	if (kernel == ours && (third != THIRD_IN || got_in(ours)) &&
	    (third != THIRD_OUT || !got_in(ours)))
		return true;
	show(p, kernel, ours, third);
	return false;
}

TEST_F_TIMEOUT(admission, filter_and_gate_never_disagree, 300)
{
	static struct packet recent[RECENT];
	unsigned counts[ADMISSION_COUNTERS] = { 0 }, wrong = 0, n = harness_rounds(PACKETS) / 2;
	char user_name[49];

	for (unsigned i = 0; i < n && wrong < 5; i++) {
		struct packet p;

		if (i % REFRESH == 0)
			begin_anew(self);
		if (i >= RECENT && harness_random() % 16 == 0) {
			p = recent[harness_random() % RECENT];
		} else {
			struct connect c = random_connect(self, user_name);

			p = packet_of(&c);
			if (harness_random() % 2)
				mutate(&p);
		}
		recent[i % RECENT] = p;
		wrong += !agree(self, &p, counts);
	}
	EXPECT_EQ(wrong, 0);
	/* Each kind was there: else the packets prove little. */
	EXPECT_TRUE(counts[ADMISSION_RATE] > 0);
	for (unsigned v = ADMISSION_REPLAYED; v < ADMISSION_VERDICTS; v++)
		EXPECT_TRUE(counts[v] > 0);
	EXPECT_TRUE(counts[ADMISSION_OK] > n / 10);
	printf("# %u packets, %u let in\n", n, counts[ADMISSION_OK]);
}

HARNESS_MAIN
