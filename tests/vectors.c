// SPDX-License-Identifier: MIT
/*
 * vectors FILE...: puts test vectors to the crypto layer and reports each entry in TAP 13.
 *
 * A file is one of two kinds, told apart by what it holds: an object with the sections of PROTOCOL
 * 8 (grants, sealed, publish, batch, admission, reject), or a list of HPKE vectors as RFC 9180's
 * appendix A gives them. All is driven by the data: any number of entries, any values. What is not
 * known here (a section, a field, a mode) is reported as not ok, never passed over, so that an ok
 * means that everything the entry says was checked.
 *
 * Exit: 0 all ok; 1 something is not; 65 a file is not of either kind; 66 a file cannot be read.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "tests/admission_check.h"
#include "userspace/base/log.h"
#include "userspace/base/text.h"
#include "userspace/crypto/envelope.h"
#include "userspace/crypto/grant.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/hpke.h"
#include "userspace/crypto/merkle.h"
#include "userspace/crypto/p256.h"
#include "userspace/crypto/publish.h"

#define FILE_BYTES_MAX	(64 << 20)
#define TITLE_BYTES_MAX 256
#define SHOWN_BYTES_MAX 40

/* --- memory of one check --------------------------------------------------------------------- */

/* What a check takes lives until its verdict: no check has to free anything. */
struct kept {
	struct kept *next;
	uint8_t b[];
};

static struct kept *all_kept;

static uint8_t *keep(size_t n)
{
	struct kept *k = calloc(1, sizeof(*k) + n + 1);

	if (!k)
		exit_with(EX_OSERR, "out of memory");
	k->next = all_kept;
	all_kept = k;
	return k->b;
}

static void release(void)
{
	while (all_kept) {
		struct kept *next = all_kept->next;

		free(all_kept);
		all_kept = next;
	}
}

/* --- TAP ------------------------------------------------------------------------------------- */

static unsigned lines, lines_not_ok;
static char title[TITLE_BYTES_MAX];
static bool title_failed;

/* Starts a check. TAP reads a # in a description as a directive, and a line ends at a newline. */
static void format_printf(1, 2) begin(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(title, sizeof(title), fmt, ap); /* a long title is cut */
	va_end(ap);
	for (char *c = title; *c; c++)
		if (*c == '#' || (unsigned char)*c < ' ')
			*c = '_';
	for (size_t n = strlen(title); n && title[n - 1] == ' '; n--)
		title[n - 1] = '\0'; /* an entry without a name of its own */
	title_failed = false;
}

static void format_printf(1, 2) fail(const char *fmt, ...)
{
	va_list ap;

	printf("# ");
	va_start(ap, fmt);
	(void)vprintf(fmt, ap); /* stdout is checked once, at the end */
	va_end(ap);
	printf("\n");
	title_failed = true;
}

/* The verdict on what begin() started. */
static void end(void)
{
	lines++;
	lines_not_ok += title_failed;
	printf("%s %u - %s\n", title_failed ? "not ok" : "ok", lines, title);
	release();
}

static void expect(bool ok, const char *what)
{
	if (!ok)
		fail("%s: does not hold", what);
}

static void expect_ok(int err, const char *what)
{
	if (err)
		fail("%s: %s", what, strerror(-err));
}

static void expect_number(uint64_t got, uint64_t wanted, const char *what)
{
	if (got != wanted)
		fail("%s: %" PRIu64 " and not %" PRIu64, what, got, wanted);
}

/* Shows both around the first byte that differs. */
static void expect_bytes(struct bytes got, struct bytes wanted, const char *what)
{
	char a[TEXT_HEX_SIZE(SHOWN_BYTES_MAX) + 2], b[sizeof(a)];
	size_t at = 0;

	if (bytes_equal(got, wanted))
		return;
	while (at < got.n && at < wanted.n && got.p[at] == wanted.p[at])
		at++;
	fail("%s: %zu bytes, the vector has %zu; from byte %zu: %s, the vector has %s", what, got.n,
	     wanted.n, at, text_short(bytes_of(got.p + at, got.n - at), SHOWN_BYTES_MAX, a),
	     text_short(bytes_of(wanted.p + at, wanted.n - at), SHOWN_BYTES_MAX, b));
}

static struct bytes view32(const struct secret32 *k)
{
	return bytes_of(k->b, sizeof(k->b));
}

static struct bytes view_point(const struct p256_point *p)
{
	return bytes_of(p->b, sizeof(p->b));
}

/* --- fields ---------------------------------------------------------------------------------- */

/*
 * Each getter gives a value of the right shape even where the field is wrong or missing (zeros, an
 * empty view); the check has then failed already and may go on.
 */
static bool has(json_t *o, const char *name)
{
	return json_object_get(o, name) != NULL;
}

/* An MQTT string: ids, topics and user names all are [MQTT-1.5.3]. */
static struct bytes get_text(json_t *o, const char *name)
{
	json_t *v = json_object_get(o, name);

	if (!json_is_string(v) || json_string_length(v) > UINT16_MAX) {
		fail("%s: %s", name, v ? "not a string of at most 65535 bytes" : "missing");
		return bytes_of(NULL, 0);
	}
	return bytes_of(json_string_value(v), json_string_length(v));
}

static struct bytes hex_bytes(json_t *v, const char *name)
{
	size_t n = json_string_length(v) / 2; /* 0 for what is no string */
	uint8_t *b = keep(n);

	if (!json_is_string(v) ||
	    text_unhex(bytes_of(json_string_value(v), json_string_length(v)), b, n)) {
		fail("%s: %s", name, v ? "not hex" : "missing");
		return bytes_of(NULL, 0);
	}
	return bytes_of(b, n);
}

static struct bytes get_hex(json_t *o, const char *name)
{
	return hex_bytes(json_object_get(o, name), name);
}

/* Exactly n bytes. */
static const uint8_t *get_hex_n(json_t *o, const char *name, size_t n)
{
	struct bytes v = get_hex(o, name);

	if (v.n == n)
		return v.p;
	fail("%s: %zu bytes and not %zu", name, v.n, n);
	return keep(n);
}

static struct secret32 get_scalar(json_t *o, const char *name)
{
	struct secret32 k;

	memcpy(k.b, get_hex_n(o, name, sizeof(k.b)), sizeof(k.b));
	if (p256_scalar_check(&k))
		fail("%s: not in 1..n-1", name);
	return k;
}

static struct p256_point get_point(json_t *o, const char *name)
{
	struct p256_point p;

	memcpy(p.b, get_hex_n(o, name, sizeof(p.b)), sizeof(p.b));
	if (p256_point_check(view_point(&p)))
		fail("%s: not a point of the curve", name);
	return p;
}

/* An integer, or one in a string as RFC 9180's vectors write them. */
static uint64_t number_of(json_t *v, const char *name, uint64_t max)
{
	const char *s = json_string_value(v);
	char *rest = NULL;
	uint64_t n = 0;
	bool ok = false;

	if (json_is_integer(v)) {
		n = (uint64_t)json_integer_value(v);
		ok = json_integer_value(v) >= 0;
	} else if (s && *s >= '0' && *s <= '9') {
		errno = 0;
		n = strtoull(s, &rest, 10);
		ok = errno == 0 && *rest == '\0';
	}
	if (ok && n <= max)
		return n;
	fail("%s: %s", name, v ? "not a number in its range" : "missing");
	return 0;
}

static uint64_t get_number(json_t *o, const char *name, uint64_t max)
{
	return number_of(json_object_get(o, name), name, max);
}

static bool get_bool(json_t *o, const char *name)
{
	json_t *v = json_object_get(o, name);

	if (!json_is_boolean(v))
		fail("%s: %s", name, v ? "not true or false" : "missing");
	return json_is_true(v);
}

static json_t *get_list(json_t *o, const char *name)
{
	json_t *v = json_object_get(o, name);

	if (!json_is_array(v))
		fail("%s: %s", name, v ? "not a list" : "missing");
	return v; /* json_array_size() is 0 for what is no list */
}

static bool is_word_of(const char *words, const char *word)
{
	size_t n = strlen(word);

	for (const char *at = words; (at = strstr(at, word)) != NULL; at += n ? n : 1)
		if (n && (at == words || at[-1] == ',') && (at[n] == ',' || at[n] == '\0'))
			return true;
	return false;
}

/* Nothing but the fields named, with commas between them, so that none is believed checked which
 * nobody looks at. */
static void expect_fields(json_t *o, const char *names)
{
	if (!json_is_object(o))
		fail("not an object");
	for (void *at = json_object_iter(o); at; at = json_object_iter_next(o, at))
		if (!is_word_of(names, json_object_iter_key(at)))
			fail("%s: a field that this program does not know",
			     json_object_iter_key(at));
}

/* What the entry calls itself, where it does. */
static const char *entry_what(json_t *o, const char *name)
{
	const char *what = json_string_value(json_object_get(o, name));

	return what ? what : "";
}

/* --- grants ---------------------------------------------------------------------------------- */

struct grant_entry {
	uint32_t key_id;
	struct p256_point scope; /* A */
	struct bytes id;	 /* in id_bytes */
	uint8_t id_bytes[GRANT_ID_BYTES];
	struct secret32 rk;
	struct secret32 a, to; /* to: the receiver's d or the hop's secret */
	bool has_a, has_to;
};

/* Everything that several sections need. */
struct core {
	json_t *root;
	struct grant_entry *grants;
	size_t grants_n;
	struct p256_point signer;   /* publish.signing_key's point */
	struct p256_public *verify; /* NULL: there is none */
};

#define HOPS_MAX 8

/*
 * The secrets of a chain in order: a, s1, s2 ..., d. An entry converts from the second-last of
 * those it has to the last. A hop's secret is in the entry as itself, a receiver's d perhaps only
 * by b or x.
 */
static size_t grant_secrets(json_t *o, struct secret32 *secrets)
{
	size_t n = 0;

	if (has(o, "a"))
		secrets[n++] = get_scalar(o, "a");
	for (int i = 1; i < HOPS_MAX; i++) {
		char name[] = { 's', (char)('0' + i), '\0' };

		if (has(o, name))
			secrets[n++] = get_scalar(o, name);
	}
	return n;
}

static void expect_given(json_t *o, const char *name, struct bytes value, const char *what)
{
	if (has(o, name))
		expect_bytes(value, get_hex(o, name), what);
}

/* A key pair of which the entry may give any half. False: it does not give the private one. */
static bool get_pair(json_t *o, const char *private, const char *public, struct secret32 *ret_k,
		     struct p256_point *ret_p)
{
	if (has(o, public))
		*ret_p = get_point(o, public);
	if (!has(o, private))
		return false;
	*ret_k = get_scalar(o, private);
	expect_ok(p256_mul_base(ret_k, ret_p), public);
	expect_given(o, public, view_point(ret_p), public);
	return true;
}

/* d from both ends, as far as the entry gives them. False where it does not give d at all. */
static bool grant_check_d(json_t *o, const struct grant_entry *g, struct secret32 *ret_d)
{
	struct grant_terms t = { .key_id = g->key_id };
	struct secret32 b = { 0 }, x = { 0 };
	bool has_b = get_pair(o, "b", "B", &b, &t.b);
	bool has_x = get_pair(o, "x", "X", &x, &t.x);
	bool from_b = has_b && (has_x || has(o, "X"));
	bool from_x = has_x && (has_b || has(o, "B"));

	memcpy(t.grant_id, g->id_bytes, sizeof(t.grant_id));
	if (has(o, "d"))
		*ret_d = get_scalar(o, "d");
	if (from_b) {
		expect_ok(grant_secret_receiver(&t, &b, ret_d), "d from b and X");
		expect_given(o, "d", view32(ret_d), "d from b and X");
	}
	if (from_x) {
		expect_ok(grant_secret_manager(&t, &x, ret_d), "d from x and B");
		expect_given(o, "d", view32(ret_d), "d from x and B");
	}
	return has(o, "d") || from_b || from_x;
}

static void grant_check_rk(struct grant_entry *g, const struct secret32 *secrets, size_t n)
{
	struct secret32 rk = { 0 }, from = { 0 };

	if (n < 2) {
		fail("rk: a, s1.. or d are missing, between which it converts");
		return;
	}
	g->to = secrets[n - 1];
	g->has_to = true;
	expect_ok(grant_conversion_key(&secrets[n - 2], &g->to, &rk), "rk");
	expect_bytes(view32(&rk), view32(&g->rk), "rk = from / to");
	expect_ok(p256_scalar_mul(&g->rk, &g->to, &from), "rk * to");
	expect_bytes(view32(&from), view32(&secrets[n - 2]), "rk * to = from");
}

static void check_grant(struct core *c, size_t i, json_t *o)
{
	struct secret32 secrets[HOPS_MAX + 1] = { 0 };
	struct grant_entry *g = &c->grants[i];
	struct p256_point a = { 0 };
	size_t n;

	begin("grants[%zu] %s", i, entry_what(o, "what"));
	expect_fields(o, "what,key_id,a,A,b,B,x,X,grant,d,rk,s1,s2,s3,s4,s5,s6,s7");
	g->key_id = (uint32_t)get_number(o, "key_id", UINT32_MAX);
	g->scope = get_point(o, "A");
	memcpy(g->id_bytes, get_hex_n(o, "grant", GRANT_ID_BYTES), GRANT_ID_BYTES);
	g->id = bytes_of(g->id_bytes, GRANT_ID_BYTES);
	g->rk = get_scalar(o, "rk");
	n = grant_secrets(o, secrets);
	if (has(o, "a")) {
		g->a = secrets[0];
		g->has_a = true;
		expect_ok(p256_mul_base(&g->a, &a), "A = aG");
		expect_bytes(view_point(&a), view_point(&g->scope), "A = aG");
	}
	if (grant_check_d(o, g, &secrets[n]))
		n++;
	grant_check_rk(g, secrets, n);
	for (size_t k = 0; k < i; k++)
		if (c->grants[k].key_id == g->key_id)
			expect_bytes(view_point(&g->scope), view_point(&c->grants[k].scope),
				     "A of the same key id");
	end();
}

static void check_grants(struct core *c, json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		check_grant(c, i, json_array_get(list, i));
}

/* --- sealed ---------------------------------------------------------------------------------- */

struct sealed {
	size_t i;
	json_t *o;
	enum hpke_suite suite;
	uint32_t key_id, seq;
	uint64_t counter, time_ms;
	struct bytes salt, sender, topic, plain;
	struct secret32 r;
	bool has_proof;
	uint8_t first; /* of the PUBLISH that the proof is about */
	struct bytes properties;
	const struct grant_entry *scope; /* some grant of its key id: has A, perhaps a */
};

static uint8_t publish_first(uint64_t qos, bool retain)
{
	return (uint8_t)(0x30 | qos << 1 | retain);
}

/* Reads the entry anew for each check, since what a check keeps ends with it. */
static struct sealed sealed_get(const struct core *c, size_t i, json_t *o)
{
	struct sealed s = { .i = i, .o = o };

	s.suite = (enum hpke_suite)get_number(o, "suite", UINT8_MAX);
	s.r = get_scalar(o, "r");
	s.salt = bytes_of(get_hex_n(o, "salt", ENVELOPE_SALT_BYTES), ENVELOPE_SALT_BYTES);
	s.sender = get_text(o, "sender");
	s.topic = get_text(o, "topic");
	s.key_id = (uint32_t)get_number(o, "key_id", UINT32_MAX);
	s.seq = (uint32_t)get_number(o, "seq", HPKE_SEQ_MAX);
	s.counter = get_number(o, "counter", UINT64_MAX);
	s.time_ms = get_number(o, "time_ms", UINT64_MAX);
	s.plain = get_hex(o, "plaintext");
	s.has_proof = has(o, "proof_qos") || has(o, "proof_retain") || has(o, "proof_properties");
	if (s.has_proof) {
		s.first = publish_first(get_number(o, "proof_qos", 2), get_bool(o, "proof_retain"));
		s.properties = get_hex(o, "proof_properties");
	}
	for (size_t k = 0; k < c->grants_n && (!s.scope || !s.scope->has_a); k++)
		if (c->grants[k].key_id == s.key_id)
			s.scope = &c->grants[k];
	if (!s.scope)
		fail("key_id: no entry of grants gives its A");
	return s;
}

/* Parses, and finds in it what the entry says. */
static bool sealed_parse(const struct sealed *s, struct bytes v, struct envelope *ret_e)
{
	int err = envelope_parse(v, ret_e);

	expect_ok(err, "parsing");
	if (err)
		return false;
	expect_number(ret_e->suite, s->suite, "suite");
	expect_number(ret_e->key_id, s->key_id, "key id");
	expect_number(ret_e->seq, s->seq, "seq");
	expect_number(ret_e->counter, s->counter, "counter");
	expect_number(ret_e->time_ms, s->time_ms, "time");
	return true;
}

/* Seals the plaintext once more, from the same ephemeral key and salt. */
static void sealed_rebuild(const struct sealed *s, struct bytes level0)
{
	size_t n = ENVELOPE_SEALED_BYTES(s->plain.n);
	struct envelope_sender sender;
	uint8_t *out = keep(n);
	int err = envelope_sender_init_with(&sender, s->suite, s->key_id, &s->scope->scope, &s->r,
					    s->salt.p);

	if (!err) {
		sender.seq_next = s->seq;
		err = envelope_seal(&sender, s->counter, s->time_ms, s->sender, s->topic, s->plain,
				    out);
		envelope_sender_deinit(&sender);
	}
	expect_ok(err, "sealing");
	if (!err)
		expect_bytes(bytes_of(out, n), level0, "sealed anew");
}

static void expect_opens(const struct sealed *s, const struct envelope *e,
			 const struct secret32 *dh, const char *what)
{
	uint8_t *out = keep(e->ct.n);
	int err = envelope_open(e, dh, &s->scope->scope, out);

	expect_ok(err, what);
	if (!err)
		expect_bytes(bytes_of(out, e->ct.n - HPKE_TAG_BYTES), s->plain, what);
}

static void check_level0(const struct core *c, size_t i, json_t *o)
{
	struct p256_point enc = { 0 }, made = { 0 };
	struct secret32 dh = { 0 };
	struct bytes level0;
	struct envelope e;
	struct sealed s;

	begin("sealed[%zu] level0", i);
	expect_fields(o, "suite,r,salt,sender,topic,key_id,seq,counter,time_ms,plaintext,"
			 "proof_qos,proof_retain,proof_properties,level0,level1_receiver1,"
			 "level1_hop,level2_receiver2");
	s = sealed_get(c, i, o);
	level0 = get_hex(o, "level0");
	if (!s.scope || !sealed_parse(&s, level0, &e)) {
		end();
		return;
	}
	expect_number(e.level, 0, "level");
	expect_bytes(e.salt, s.salt, "salt");
	expect(envelope_bind_fits(&e, s.sender, s.topic), "bind of sender and topic");
	expect_ok(p256_mul_base(&s.r, &made), "E = rG");
	expect_ok(p256_point_decompress(e.enc, &enc), "enc");
	if (!title_failed)
		expect_bytes(view_point(&enc), view_point(&made), "E = rG");
	sealed_rebuild(&s, level0);
	/* The sender's way to the plaintext, and with a the manager's. */
	expect_ok(p256_dh(&s.r, &s.scope->scope, &dh), "r * A");
	expect_opens(&s, &e, &dh, "opened with r");
	if (s.scope->has_a) {
		expect_ok(p256_dh(&s.scope->a, &made, &dh), "a * E");
		expect_opens(&s, &e, &dh, "opened with a");
	}
	end();
}

/* Which grant makes which level of which (PROTOCOL 8). */
struct conversion {
	const char *name, *of;
	size_t grant;
};

static const struct conversion conversions[] = {
	{ "level1_receiver1", "level0", 0 },
	{ "level1_hop", "level0", 1 },
	{ "level2_receiver2", "level1_hop", 2 },
};

/* x(rk * E), or of the lifted point at a level above 0. */
static int converted_x(const struct grant_entry *g, const struct envelope *e, uint8_t ret_x[])
{
	struct p256_point p;
	int err = e->level ? p256_point_lift(e->x.p, &p) : p256_point_decompress(e->enc, &p);

	return err ? err : grant_convert(&g->rk, &p, ret_x);
}

/* The conversion done here, byte for byte; only origin and proof are taken over. */
static void expect_converted(const struct grant_entry *g, const struct envelope *of,
			     const struct envelope *e, bool replaced)
{
	uint8_t x[P256_X_BYTES], *out = keep(e->whole.n);
	struct bytes_writer w = bytes_writer_of(out, e->whole.n);
	struct envelope_block block = {
		.grant = g->id, .x = bytes_of(x, sizeof(x)), .origin = e->origin, .proof = e->proof
	};
	int err = converted_x(g, of, x);

	expect_ok(err, "converting");
	if (err)
		return;
	envelope_raise_head(of, &block, &w);
	expect_number(w.used, envelope_raised_head_bytes(&block), "bytes before ct");
	bytes_write(&w, of->ct);
	expect(!w.bad && w.left == 0, "length of the conversion");
	if (replaced) /* a distributor zeroes the salt */
		memset(out + (of->salt.p - of->whole.p), 0, ENVELOPE_SALT_BYTES);
	expect_bytes(bytes_of(out, e->whole.n), e->whole, "converted anew");
}

static void expect_proof(const struct core *c, const struct sealed *s, const struct envelope *e)
{
	struct bytes properties;
	uint8_t first;
	int err;

	if (!s->has_proof) {
		expect_number(e->proof.n, 0, "bytes of proof, without proof_qos and the like");
		return;
	}
	if (!c->verify) {
		fail("proof: there is no publish.signing_key to check it with");
		return;
	}
	err = publish_check_proof(e, s->topic, c->verify, &first, &properties);
	expect_ok(err, "proof");
	if (err)
		return;
	expect_number(first, s->first, "first byte of the proof");
	expect_bytes(properties, s->properties, "properties of the proof");
}

static void check_conversion(const struct core *c, size_t i, json_t *o, const struct conversion *v)
{
	const struct grant_entry *g = v->grant < c->grants_n ? &c->grants[v->grant] : NULL;
	struct sealed s = sealed_get(c, i, o);
	struct envelope of, e;
	struct secret32 dh = { 0 };
	bool replaced;

	if (!g)
		fail("grants[%zu], which makes it, is missing", v->grant);
	if (!g || !s.scope || !sealed_parse(&s, get_hex(o, v->of), &of) ||
	    !sealed_parse(&s, get_hex(o, v->name), &e))
		return;
	expect_number(g->key_id, e.key_id, "key id of the grant");
	expect_number(e.level, of.level + 1u, "level");
	if (e.level == 0)
		return;
	expect_bytes(g->id, e.grant, "grant id");
	replaced = !bytes_equal(e.origin, s.sender);
	expect_converted(g, &of, &e, replaced);
	if (replaced) {
		expect(bytes_is_zero(e.salt), "zero salt once the id is replaced");
		expect_number(e.proof.n, 0, "bytes of proof once the id is replaced");
	} else {
		expect(envelope_bind_fits(&e, e.origin, s.topic), "bind of origin and topic");
		expect_proof(c, &s, &e);
	}
	if (g->has_to) {
		expect_ok(grant_dh(&g->to, e.x.p, &dh), "dh from x");
		expect_opens(&s, &e, &dh, "opened by the grant's receiver");
	}
}

static void check_sealed(struct core *c, json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *o = json_array_get(list, i);

		check_level0(c, i, o);
		for (size_t k = 0; k < ARRAY_SIZE(conversions); k++) {
			if (!has(o, conversions[k].name))
				continue;
			begin("sealed[%zu] %s", i, conversions[k].name);
			check_conversion(c, i, o, &conversions[k]);
			end();
		}
	}
}

/* --- publish --------------------------------------------------------------------------------- */

/* Sets up what other sections verify with; what is wrong with it is said by check_publish(). */
static void core_load_signer(struct core *c)
{
	json_t *o = json_object_get(c->root, "publish");
	const char *hex = json_string_value(json_object_get(o, "signing_key"));
	struct secret32 k;

	if (hex && !text_unhex(bytes_str(hex), k.b, sizeof(k.b)) &&
	    !p256_mul_base(&k, &c->signer) && p256_public_new(&c->signer, &c->verify))
		exit_with(EX_OSERR, "out of memory");
}

static int split_and_verify(struct publish *p, struct bytes payload, const struct p256_public *key)
{
	struct publish_trailer t;
	int err = publish_split(payload, &t);

	if (err)
		return err;
	p->body[0] = t.body;
	p->body_parts = 1;
	return publish_verify(p, &t, key);
}

static struct bytes sign_payload(const struct publish *p, const struct p256_private *key)
{
	uint8_t *out = keep(p->body[0].n + PUBLISH_TRAILER_1_BYTES);

	if (p->body[0].n)
		memcpy(out, p->body[0].p, p->body[0].n);
	expect_ok(publish_sign(p, key, out + p->body[0].n), "signing");
	return bytes_of(out, p->body[0].n + PUBLISH_TRAILER_1_BYTES);
}

static void check_publish_case(const struct core *c, size_t i, json_t *o,
			       const struct p256_private *key)
{
	struct publish p = { 0 }, other;
	struct bytes input, payload;
	struct publish_trailer t;
	struct bytes_writer w;
	uint8_t *out;

	begin("publish.cases[%zu]", i);
	expect_fields(o, "topic,client_id,qos,retain,properties,body,input,payload");
	p.first = publish_first(get_number(o, "qos", 2), get_bool(o, "retain"));
	p.topic = get_text(o, "topic");
	p.client_id = get_text(o, "client_id");
	p.properties = get_hex(o, "properties");
	p.body[0] = get_hex(o, "body");
	p.body_parts = 1;
	input = get_hex(o, "input");
	payload = get_hex(o, "payload");
	out = keep(input.n);
	w = bytes_writer_of(out, input.n);
	publish_input(&p, &w);
	expect(!w.bad, "length of the input");
	expect_bytes(bytes_of(out, w.used), input, "input");

	if (publish_split(payload, &t))
		fail("payload: no trailer");
	else
		expect_bytes(t.body, p.body[0], "body of the payload");
	if (!key) {
		fail("there is no signing_key to check the payload with");
		end();
		return;
	}
	other = p;
	expect_ok(split_and_verify(&other, payload, c->verify), "payload");
	expect_ok(split_and_verify(&other, sign_payload(&p, key), c->verify), "signed anew");
	other.first = p.first ^ 0x08; /* DUP is not signed */
	expect_ok(split_and_verify(&other, payload, c->verify), "payload with DUP");
	other.first = p.first ^ 0x01;
	expect(split_and_verify(&other, payload, c->verify) == -EBADMSG, "other RETAIN refused");
	other = p;
	other.client_id = bytes_str("somebody.else");
	expect(split_and_verify(&other, payload, c->verify) == -EBADMSG, "other sender refused");
	end();
}

static void check_publish(struct core *c, json_t *o)
{
	struct p256_private *key = NULL;
	struct p256_point public;
	struct secret32 k;
	json_t *cases;

	begin("publish keys");
	expect_fields(o, "signing_key,public,cases");
	k = get_scalar(o, "signing_key");
	public = get_point(o, "public");
	if (!title_failed) {
		expect_ok(p256_private_new(&k, &key), "signing_key");
		expect_bytes(view_point(&c->signer), view_point(&public), "public");
	}
	cases = get_list(o, "cases");
	end();
	for (size_t i = 0; i < json_array_size(cases); i++)
		check_publish_case(c, i, json_array_get(cases, i), c->verify ? key : NULL);
	p256_private_free(key);
}

/* --- SSDTF-ZK-1 ------------------------------------------------------------------------------ */

static struct publish zk_publish(json_t *o)
{
	return (struct publish){ .first = publish_first(get_number(o, "qos", 2), false),
				 .topic = get_text(o, "topic"),
				 .client_id = get_text(o, "client_id"),
				 .body_parts = 1 };
}

static int zk_split_and_verify(struct publish *p, struct bytes payload,
			       const struct p256_point *key)
{
	struct publish_trailer t;
	int err = publish_split_zk(payload, &t);

	if (err)
		return err;
	p->body[0] = t.body;
	return publish_verify_zk(p, &t, key);
}

/* s = v - c*x and V = vG, from the entry's own numbers; whether c is right shows when the payload
 * is verified. */
static void check_zk_numbers(json_t *o)
{
	struct secret32 x = get_scalar(o, "x"), v = get_scalar(o, "v"), c = get_scalar(o, "c");
	struct secret32 cx, s;
	uint8_t compressed[P256_COMPRESSED_BYTES];
	struct p256_point point;

	if (title_failed)
		return;
	expect_ok(p256_mul_base(&x, &point), "x");
	expect_given(o, "X", view_point(&point), "X");
	expect_ok(p256_mul_base(&v, &point), "v");
	p256_point_compress(&point, compressed);
	expect_given(o, "V", bytes_of(compressed, sizeof(compressed)), "V");
	expect_ok(p256_scalar_mul(&c, &x, &cx), "c * x");
	expect_ok(p256_scalar_sub(&v, &cx, &s), "v - c * x");
	expect_given(o, "s", bytes_of(s.b, sizeof(s.b)), "s");
}

static void check_zk_entry(size_t i, json_t *o)
{
	struct publish p = zk_publish(o);
	struct secret32 x = get_scalar(o, "x");
	struct p256_point key = get_point(o, "X");
	struct bytes input = get_hex(o, "input"), payload = get_hex(o, "payload");
	struct bytes body = get_hex(o, "body");
	uint8_t *out = keep(input.n), *anew = keep(body.n + PUBLISH_TRAILER_3_BYTES);
	struct bytes_writer w = bytes_writer_of(out, input.n);
	struct publish_trailer t;

	begin("zk[%zu]", i);
	expect_fields(o, "x,X,client_id,topic,qos,body,input,v,V,c,s,payload");
	p.body[0] = body;
	publish_input(&p, &w);
	expect(!w.bad, "length of the input");
	expect_bytes(bytes_of(out, w.used), input, "input");
	check_zk_numbers(o);
	expect_ok(zk_split_and_verify(&p, payload, &key), "payload");
	expect_bytes(p.body[0], body, "body of the payload");
	expect(publish_split(payload, &t) == -EBADMSG, "refused where signatures are expected");
	memcpy(anew, body.p, body.n);
	expect_ok(publish_prove_zk(&p, &x, &key, anew + body.n), "proved anew");
	expect_ok(zk_split_and_verify(&p, bytes_of(anew, body.n + PUBLISH_TRAILER_3_BYTES), &key),
		  "what was proved anew");
	end();
}

static void check_zk(struct core *c, json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		check_zk_entry(i, json_array_get(list, i));
}

static void check_zk_reject(struct core *c, json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *o = json_array_get(list, i);
		struct publish p = zk_publish(o);
		struct p256_point key = get_point(o, "X");
		struct bytes why = get_text(o, "why");

		begin("zk_reject[%zu] %.*s", i, (int)why.n, (const char *)why.p);
		expect_fields(o, "why,X,client_id,topic,qos,payload");
		expect(zk_split_and_verify(&p, get_hex(o, "payload"), &key) == -EBADMSG, "refused");
		end();
	}
}

/* --- batch ----------------------------------------------------------------------------------- */

/* An input taken apart again: the inverse of publish_input(). */
static bool input_parse(struct bytes input, struct publish *ret_p)
{
	struct bytes_reader r = bytes_reader_of(input);
	struct bytes label = bytes_read_view(&r, strlen("ssdtf-publish-1"));
	struct publish p = { .body_parts = 1 };

	p.first = bytes_read_u8(&r);
	p.topic = bytes_read_u16_view(&r);
	p.properties = bytes_read_u32_view(&r);
	p.body[0] = bytes_read_u32_view(&r);
	p.client_id = bytes_read_u16_view(&r);
	if (!bytes_read_done(&r) || !bytes_equal(label, bytes_str("ssdtf-publish-1")))
		return false;
	*ret_p = p;
	return true;
}

struct batch {
	uint16_t size;
	struct bytes root;
	struct p256_public *key;
	json_t *inputs, *picked, *trailers;
	struct merkle tree; /* size 0: not all of its leaves are given */
	uint8_t (*nodes)[HASH_BYTES];
};

/* Where each leaf's input is given, the tree itself is checked. */
static void batch_build(struct batch *b)
{
	uint8_t *given = keep(b->size);
	b->nodes = calloc(merkle_nodes(b->size), HASH_BYTES);
	if (!b->nodes)
		exit_with(EX_OSERR, "out of memory");
	for (size_t i = 0; i < json_array_size(b->inputs); i++) {
		struct bytes input = hex_bytes(json_array_get(b->inputs, i), "inputs");
		uint64_t at = number_of(json_array_get(b->picked, i), "picked", b->size - 1u);

		if (given[at]++)
			fail("picked: %" PRIu64 " twice", at);
		merkle_leaf(&input, 1, b->nodes[at]);
	}
	if (title_failed || json_array_size(b->inputs) < b->size)
		return;
	merkle_build(&b->tree, b->nodes, b->size);
	expect_bytes(bytes_of(merkle_root(&b->tree), HASH_BYTES), b->root, "root");
}

static void expect_trailer(const struct batch *b, const struct publish *p, struct bytes trailer,
			   uint16_t index)
{
	uint8_t hash[HASH_BYTES], *bent = keep(trailer.n);
	struct publish_trailer t;
	struct bytes_writer w;

	if (publish_split(trailer, &t)) {
		fail("trailer: cut or of no known kind");
		return;
	}
	expect_number(t.kind, 2, "kind of trailer");
	expect_number(t.body.n, 0, "bytes before the trailer");
	if (t.kind != 2)
		return;
	expect_number(t.index, index, "index");
	expect_number(t.size, b->size, "size");
	publish_leaf(p, hash);
	merkle_root_from_path(hash, t.index, t.size, t.path, hash);
	expect_bytes(bytes_of(hash, sizeof(hash)), b->root, "root from the path");
	expect_ok(publish_verify(p, &t, b->key), "trailer");
	if (b->tree.size) {
		w = bytes_writer_of(bent, trailer.n);
		publish_write_trailer_2(t.sig.p, &b->tree, index, &w);
		expect(!w.bad, "length of the trailer");
		expect_bytes(bytes_of(bent, w.used), trailer, "trailer written anew");
	}
	/* A proof that is not this one. */
	memcpy(bent, trailer.p, trailer.n);
	bent[P256_SIG_BYTES - 1 + t.path.n] ^= 1;
	expect(!publish_split(bytes_of(bent, trailer.n), &t) &&
		       publish_verify(p, &t, b->key) == -EBADMSG,
	       "bent trailer refused");
}

static void check_batch_trailer(const struct batch *b, size_t i, size_t k)
{
	struct bytes input, trailer;
	struct bytes_writer w;
	struct publish p;
	uint64_t index;
	uint8_t *again;

	begin("batch[%zu] trailers[%zu] of %u", i, k, b->size);
	input = hex_bytes(json_array_get(b->inputs, k), "inputs");
	trailer = hex_bytes(json_array_get(b->trailers, k), "trailers");
	index = number_of(json_array_get(b->picked, k), "picked", UINT16_MAX);
	again = keep(input.n);
	w = bytes_writer_of(again, input.n);
	if (!input_parse(input, &p)) {
		fail("inputs: not of the form of an input");
	} else if (!b->key) {
		fail("there is no key to check it with");
	} else if (index >= b->size) {
		fail("picked: beyond size");
	} else {
		publish_input(&p, &w);
		expect_bytes(bytes_of(again, w.used), input, "input written anew");
		expect_trailer(b, &p, trailer, (uint16_t)index);
	}
	end();
}

static void check_batch(const struct core *c, size_t i, json_t *o)
{
	struct batch b = { 0 };
	struct p256_point public;
	uint8_t root[HASH_BYTES];
	size_t n;

	begin("batch[%zu] root", i);
	expect_fields(o, "size,public,root,inputs,picked,trailers");
	b.size = (uint16_t)get_number(o, "size", MERKLE_LEAVES_MAX);
	public = get_point(o, "public");
	memcpy(root, get_hex_n(o, "root", HASH_BYTES), HASH_BYTES);
	b.root = bytes_of(root, sizeof(root));
	b.inputs = get_list(o, "inputs");
	b.picked = get_list(o, "picked");
	b.trailers = get_list(o, "trailers");
	n = json_array_size(b.inputs);
	expect_number(json_array_size(b.picked), n, "number of picked");
	expect_number(json_array_size(b.trailers), n, "number of trailers");
	expect(b.size > 0 && n > 0 && n <= b.size, "1..size inputs");
	if (c->verify)
		expect_bytes(view_point(&public), view_point(&c->signer),
			     "public of publish.signing_key");
	if (!title_failed)
		batch_build(&b);
	if (p256_public_new(&public, &b.key))
		b.key = NULL; /* said already */
	end();
	if (n > json_array_size(b.picked) || n > json_array_size(b.trailers))
		n = 0; /* said already */
	for (size_t k = 0; k < n; k++)
		check_batch_trailer(&b, i, k);
	p256_public_free(b.key);
	free(b.nodes);
}

static void check_batches(struct core *c, json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		check_batch(c, i, json_array_get(list, i));
}

/* --- admission ------------------------------------------------------------------------------- */

/* The window around the token's slot (PROTOCOL 6), seen from slots on both sides of it. */
static void expect_window(const uint8_t *key, struct bytes id, struct bytes user,
			  struct bytes token, uint32_t slot)
{
	if (slot == ADMISSION_SLOT_NO_CLOCK) {
		expect(!admission_check(key, id, user, token, 1, true), "slot 0 where allowed");
		expect(admission_check(key, id, user, token, 1, false) == -ESTALE,
		       "slot 0 where not allowed");
		return;
	}
	for (int apart = -2; apart <= 2; apart++) {
		int64_t now = (int64_t)slot + apart;
		int wanted = apart == -2 || apart == 2 ? -ESTALE : 0;

		if (now < 0 || now > UINT32_MAX)
			continue;
		if (admission_check(key, id, user, token, (uint32_t)now, false) != wanted)
			fail("token seen %d slots later: wrong verdict", apart);
	}
}

static void check_admission_entry(size_t i, json_t *o)
{
	uint8_t made[ADMISSION_TOKEN_BYTES], *bent = keep(ADMISSION_TOKEN_BYTES), back[32];
	char user[TEXT_B64U_SIZE(32)];
	struct bytes id, name, token, r_c;
	const uint8_t *key;
	uint32_t slot;
	int err;

	begin("admission[%zu]", i);
	expect_fields(o, "key,client_id,r_c,user_name,slot,token");
	key = get_hex_n(o, "key", ADMISSION_KEY_BYTES);
	id = get_text(o, "client_id");
	r_c = bytes_of(get_hex_n(o, "r_c", sizeof(back)), sizeof(back));
	name = get_text(o, "user_name");
	slot = (uint32_t)get_number(o, "slot", UINT32_MAX);
	token = bytes_of(get_hex_n(o, "token", sizeof(made)), sizeof(made));

	expect_bytes(bytes_str(text_b64u(r_c, user)), name, "user_name = b64u(r_c)");
	if (text_unb64u(name, back, sizeof(back)))
		fail("user_name: not 32 bytes in base64url");
	else
		expect_bytes(bytes_of(back, sizeof(back)), r_c, "r_c from user_name");
	expect(text_is_id(id), "client_id is an id");
	err = admission_token(key, id, name, slot, made);
	expect_ok(err, "making the token");
	if (!err)
		expect_bytes(bytes_of(made, sizeof(made)), token, "token");
	expect_window(key, id, name, token, slot);
	memcpy(bent, token.p, token.n);
	bent[token.n - 1] ^= 1;
	expect(admission_check(key, id, name, bytes_of(bent, token.n), slot, true) == -EBADMSG,
	       "bent token refused");
	end();
}

static void check_admission(struct core *c, json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		check_admission_entry(i, json_array_get(list, i));
}

/* --- reject ---------------------------------------------------------------------------------- */

static bool point_accepted(struct bytes v)
{
	struct p256_point p;

	if (v.n == P256_COMPRESSED_BYTES)
		return !p256_point_decompress(v, &p);
	return !p256_point_check(v);
}

static bool x_accepted(struct bytes v)
{
	struct p256_point p;

	return v.n == P256_X_BYTES && !p256_point_lift(v.p, &p);
}

/* As one who is about to use it: structure first, then every point in it. */
static bool sealed_accepted(struct bytes v, struct envelope *ret_e)
{
	return !envelope_parse(v, ret_e) && point_accepted(ret_e->enc) &&
	       (ret_e->level == 0 || x_accepted(ret_e->x));
}

static void check_reject_entry(size_t i, json_t *o)
{
	struct envelope e;

	begin("reject[%zu] %s", i, entry_what(o, "what"));
	expect_fields(o, "what,x,point,sealed,sender,topic");
	expect_number(has(o, "x") + has(o, "point") + has(o, "sealed"), 1,
		      "fields of x, point, sealed");
	if (has(o, "x"))
		expect(!x_accepted(get_hex(o, "x")), "x refused");
	if (has(o, "point"))
		expect(!point_accepted(get_hex(o, "point")), "point refused");
	if (has(o, "sealed") && (has(o, "sender") || has(o, "topic"))) {
		struct bytes sender = get_text(o, "sender"), topic = get_text(o, "topic");

		if (!sealed_accepted(get_hex(o, "sealed"), &e))
			fail("sealed: refused already, before its bind is looked at");
		else
			expect(!envelope_bind_fits(&e, sender, topic), "bind refused");
	} else if (has(o, "sealed")) {
		expect(!sealed_accepted(get_hex(o, "sealed"), &e), "sealed refused");
	} else {
		expect(!has(o, "sender") && !has(o, "topic"), "sender and topic with sealed only");
	}
	end();
}

static void check_reject(struct core *c, json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		check_reject_entry(i, json_array_get(list, i));
}

/* --- RFC 9180 -------------------------------------------------------------------------------- */

/*
 * hpke.h hands out no intermediate values; they are computed here from the RFC's text (section 4),
 * which checks the vectors' own consistency and the key schedule's steps one by one.
 */
#define SUITE_KEM 'K', 'E', 'M', 0, 16

static void labeled_extract(struct bytes suite, struct bytes salt, const char *label,
			    struct bytes ikm, struct secret32 *ret_prk)
{
	struct bytes parts[] = { bytes_str("HPKE-v1"), suite, bytes_str(label), ikm };

	hash_hkdf_extract(salt, parts, ARRAY_SIZE(parts), ret_prk);
}

static void labeled_expand(struct bytes suite, const struct secret32 *prk, const char *label,
			   struct bytes info, uint8_t *out, uint16_t len)
{
	uint8_t n[2];
	struct bytes parts[] = { bytes_of(n, 2), bytes_str("HPKE-v1"), suite, bytes_str(label),
				 info };

	bytes_store_u16(n, len);
	hash_hkdf_expand(prk, parts, ARRAY_SIZE(parts), out, len);
}

/* RFC 9180 7.1.3: DeriveKeyPair for P-256. */
static bool derive_scalar(struct bytes ikm, struct secret32 *ret_k)
{
	static const uint8_t suite[] = { SUITE_KEM };
	struct bytes suite_view = bytes_of(suite, sizeof(suite));
	struct secret32 prk, k;

	labeled_extract(suite_view, bytes_of(NULL, 0), "dkp_prk", ikm, &prk);
	for (unsigned i = 0; i <= UINT8_MAX; i++) {
		uint8_t counter = (uint8_t)i;

		labeled_expand(suite_view, &prk, "candidate", bytes_of(&counter, 1), k.b,
			       sizeof(k.b));
		if (!p256_scalar_check(&k)) {
			*ret_k = k;
			return true;
		}
	}
	return false;
}

/* One vector of the list. */
struct rfc {
	size_t i;
	json_t *o;
	enum hpke_suite suite;
	size_t key_bytes;
	uint8_t suite_id[10];
	struct hpke_context sender, receiver;
	bool ready;
};

static void expect_key_pair(json_t *o, const char *ikm, const char *sk, const char *pk)
{
	struct secret32 k = get_scalar(o, sk), derived;
	struct p256_point p = { 0 };

	if (has(o, ikm)) {
		if (derive_scalar(get_hex(o, ikm), &derived))
			expect_bytes(view32(&derived), view32(&k), sk);
		else
			fail("%s: derives no key", ikm);
	}
	expect_ok(p256_mul_base(&k, &p), pk);
	expect_bytes(view_point(&p), get_hex(o, pk), pk);
}

static void check_rfc_keys(struct rfc *v)
{
	uint64_t aead;

	begin("[%zu] %s: suite and key pairs", v->i, entry_what(v->o, "title"));
	expect_fields(v->o, "source,title,mode,kem_id,kdf_id,aead_id,info,ikmE,pkEm,skEm,ikmR,"
			    "pkRm,skRm,enc,shared_secret,key_schedule_context,secret,key,"
			    "base_nonce,exporter_secret,encryptions,exports");
	expect_number(get_number(v->o, "mode", UINT8_MAX), 0, "mode (Base)");
	expect_number(get_number(v->o, "kem_id", UINT16_MAX), 16, "kem_id (P-256, HKDF-SHA256)");
	expect_number(get_number(v->o, "kdf_id", UINT16_MAX), 1, "kdf_id (HKDF-SHA256)");
	aead = get_number(v->o, "aead_id", UINT16_MAX);
	expect(aead == 1 || aead == 3, "aead_id (AES-128-GCM or ChaCha20-Poly1305)");
	v->suite = aead == 1 ? HPKE_SUITE_AES_128_GCM : HPKE_SUITE_CHACHA20_POLY1305;
	v->key_bytes = aead == 1 ? 16 : 32;
	memcpy(v->suite_id, (uint8_t[]){ 'H', 'P', 'K', 'E', 0, 16, 0, 1, 0, (uint8_t)aead }, 10);
	v->ready = !title_failed;
	expect_key_pair(v->o, "ikmE", "skEm", "pkEm");
	expect_key_pair(v->o, "ikmR", "skRm", "pkRm");
	end();
}

/* shared_secret, key_schedule_context and secret, as far as the vector gives them. */
static void expect_intermediate(const struct rfc *v, const struct p256_point *enc)
{
	static const uint8_t kem[] = { SUITE_KEM };
	struct bytes kem_view = bytes_of(kem, sizeof(kem)), none = bytes_of(NULL, 0);
	struct bytes suite = bytes_of(v->suite_id, sizeof(v->suite_id));
	struct p256_point pk_r = get_point(v->o, "pkRm");
	struct secret32 sk_r = get_scalar(v->o, "skRm"), dh = { 0 }, prk, shared, hash, secret;
	uint8_t kem_context[2 * P256_POINT_BYTES], schedule[1 + 2 * HASH_BYTES] = { 0 };

	memcpy(kem_context, enc->b, P256_POINT_BYTES);
	memcpy(kem_context + P256_POINT_BYTES, pk_r.b, P256_POINT_BYTES);
	expect_ok(p256_dh(&sk_r, enc, &dh), "dh");
	labeled_extract(kem_view, none, "eae_prk", view32(&dh), &prk);
	labeled_expand(kem_view, &prk, "shared_secret", bytes_of(kem_context, sizeof(kem_context)),
		       shared.b, sizeof(shared.b));
	labeled_extract(suite, none, "psk_id_hash", none, &hash);
	memcpy(schedule + 1, hash.b, HASH_BYTES);
	labeled_extract(suite, none, "info_hash", get_hex(v->o, "info"), &hash);
	memcpy(schedule + 1 + HASH_BYTES, hash.b, HASH_BYTES);
	labeled_extract(suite, view32(&shared), "secret", none, &secret);
	expect_given(v->o, "shared_secret", view32(&shared), "shared_secret");
	expect_given(v->o, "key_schedule_context", bytes_of(schedule, sizeof(schedule)),
		     "key_schedule_context");
	expect_given(v->o, "secret", view32(&secret), "secret");
}

static void expect_context(const struct rfc *v, const struct hpke_context *c)
{
	expect_bytes(bytes_of(c->key, v->key_bytes), get_hex(v->o, "key"), "key");
	expect_bytes(bytes_of(c->base_nonce, sizeof(c->base_nonce)), get_hex(v->o, "base_nonce"),
		     "base_nonce");
	expect_bytes(bytes_of(c->exporter_secret, sizeof(c->exporter_secret)),
		     get_hex(v->o, "exporter_secret"), "exporter_secret");
}

static void check_rfc_schedule(struct rfc *v)
{
	struct p256_point pk_r, enc = { 0 }, given;
	struct secret32 sk_e, sk_r;
	struct bytes info;
	int err;

	begin("[%zu] %s: key schedule", v->i, entry_what(v->o, "title"));
	(void)get_list(v->o, "encryptions"); /* walked after this */
	(void)get_list(v->o, "exports");
	info = get_hex(v->o, "info");
	sk_e = get_scalar(v->o, "skEm");
	sk_r = get_scalar(v->o, "skRm");
	pk_r = get_point(v->o, "pkRm");
	given = get_point(v->o, "enc");
	err = hpke_setup_sender_with(v->suite, &pk_r, info, &sk_e, &v->sender, &enc);
	expect_ok(err, "sender's set-up");
	if (!err) {
		expect_bytes(view_point(&enc), view_point(&given), "enc");
		expect_context(v, &v->sender);
		err = hpke_setup_receiver(v->suite, &given, &sk_r, info, &v->receiver);
		expect_ok(err, "receiver's set-up");
	}
	if (!err) {
		expect_context(v, &v->receiver);
		expect_intermediate(v, &given);
	}
	v->ready = !err;
	end();
}

static void check_rfc_encryption(const struct rfc *v, size_t k, json_t *o)
{
	struct bytes pt, aad, ct, nonce;
	uint8_t made[HPKE_NONCE_BYTES], *out;
	uint32_t seq;
	int err;

	begin("[%zu] encryptions[%zu] sequence number %s", v->i, k,
	      entry_what(o, "sequence number"));
	expect_fields(o, "sequence number,pt,aad,nonce,ct");
	seq = (uint32_t)get_number(o, "sequence number", HPKE_SEQ_MAX);
	pt = get_hex(o, "pt");
	aad = get_hex(o, "aad");
	ct = get_hex(o, "ct");
	memcpy(made, v->sender.base_nonce, sizeof(made));
	for (size_t i = 0; i < 4; i++)
		made[sizeof(made) - 1 - i] ^= (uint8_t)(seq >> 8 * i);
	nonce = bytes_of(made, sizeof(made));
	expect_given(o, "nonce", nonce, "nonce");
	out = keep(pt.n + HPKE_TAG_BYTES + ct.n);
	err = hpke_seal(&v->sender, seq, aad, pt, out);
	expect_ok(err, "sealing");
	expect_bytes(bytes_of(out, pt.n + HPKE_TAG_BYTES), ct, "ct");
	err = hpke_open(&v->receiver, seq, aad, ct, out);
	expect_ok(err, "opening");
	if (!err)
		expect_bytes(bytes_of(out, ct.n - HPKE_TAG_BYTES), pt, "pt");
	end();
}

static void check_rfc_export(const struct rfc *v, size_t k, json_t *o)
{
	struct bytes context;
	size_t n;
	uint8_t *out;

	begin("[%zu] exports[%zu]", v->i, k);
	expect_fields(o, "exporter_context,L,exported_value");
	context = get_hex(o, "exporter_context");
	n = get_number(o, "L", HASH_EXPAND_BYTES_MAX);
	out = keep(n);
	hpke_export(&v->sender, context, out, n);
	expect_bytes(bytes_of(out, n), get_hex(o, "exported_value"), "sender's");
	hpke_export(&v->receiver, context, out, n);
	expect_bytes(bytes_of(out, n), get_hex(o, "exported_value"), "receiver's");
	end();
}

static void check_rfc(size_t i, json_t *o)
{
	struct rfc v = { .i = i, .o = o };
	json_t *encryptions = json_object_get(o, "encryptions");
	json_t *exports = json_object_get(o, "exports");

	check_rfc_keys(&v);
	if (v.ready) /* else another mode or suite, which is said already */
		check_rfc_schedule(&v);
	if (!v.ready)
		return;
	for (size_t k = 0; k < json_array_size(encryptions); k++)
		check_rfc_encryption(&v, k, json_array_get(encryptions, k));
	for (size_t k = 0; k < json_array_size(exports); k++)
		check_rfc_export(&v, k, json_array_get(exports, k));
}

/* --- files ----------------------------------------------------------------------------------- */

struct section {
	const char *name;
	void (*check)(struct core *c, json_t *v);
	json_type type;
};

/* In this order, whatever the file's: later ones use the grants of the first. */
static const struct section sections[] = {
	{ "grants", check_grants, JSON_ARRAY },
	{ "sealed", check_sealed, JSON_ARRAY },
	{ "publish", check_publish, JSON_OBJECT },
	{ "batch", check_batches, JSON_ARRAY },
	{ "admission", check_admission, JSON_ARRAY },
	{ "reject", check_reject, JSON_ARRAY },
	{ "zk", check_zk, JSON_ARRAY },
	{ "zk_reject", check_zk_reject, JSON_ARRAY },
};

static const struct section *section_of(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++)
		if (strcmp(sections[i].name, name) == 0)
			return &sections[i];
	return NULL;
}

static void check_core(json_t *root)
{
	struct core c = { .root = root };

	c.grants_n = json_array_size(json_object_get(root, "grants"));
	c.grants = calloc(c.grants_n + 1, sizeof(*c.grants));
	if (!c.grants)
		exit_with(EX_OSERR, "out of memory");
	core_load_signer(&c);
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
		json_t *v = json_object_get(root, sections[i].name);

		if (v && json_typeof(v) == sections[i].type) {
			sections[i].check(&c, v);
		} else if (v) {
			begin("%s", sections[i].name);
			fail("not what PROTOCOL 8 has under this name");
			end();
		}
	}
	for (void *at = json_object_iter(root); at; at = json_object_iter_next(root, at)) {
		const char *name = json_object_iter_key(at);

		if (section_of(name) || strcmp(name, "note") == 0)
			continue;
		begin("%s", name);
		fail("a section that this program does not know");
		end();
	}
	p256_public_free(c.verify);
	free(c.grants);
}

/* The whole file, terminated; the caller frees it. */
static char *file_read(const char *path, size_t *ret_n)
{
	FILE *f = fopen(path, "rb");
	char *text = NULL;
	size_t n = 0, room = 0;

	if (!f)
		exit_with(EX_NOINPUT, "%s: %s", path, strerror(errno));
	do {
		if (room - n < 2) {
			char *more;

			room = room ? 2 * room : 1 << 16;
			more = room > FILE_BYTES_MAX ? NULL : realloc(text, room);
			if (!more)
				exit_with(EX_DATAERR, "%s: too large", path);
			text = more;
		}
		n += fread(text + n, 1, room - n - 1, f);
	} while (!feof(f) && !ferror(f));
	if (ferror(f))
		exit_with(EX_NOINPUT, "%s: %s", path, strerror(errno));
	(void)fclose(f); /* read only */
	text[n] = '\0';
	*ret_n = n;
	return text;
}

/*
 * A counter may be any u64, but jansson's integers end at 2^63 - 1: what is longer than they surely
 * hold is put in quotes, which number_of() reads as well. Returns new text; the caller frees it.
 */
static char *quote_long_integers(const char *text)
{
	char *out = malloc(2 * strlen(text) + 1), *to = out;
	bool in_string = false;

	if (!out)
		exit_with(EX_OSERR, "out of memory");
	while (*text) {
		size_t digits = in_string ? 0 : strspn(text, "0123456789");
		bool whole = digits > 18 && !strchr(".eE", text[digits]) &&
			     (to == out || !strchr("-+.eE", to[-1]));

		if (*text == '\\' && text[1])
			*to++ = *text++;
		else if (*text == '"')
			in_string = !in_string;
		if (whole)
			*to++ = '"';
		do {
			*to++ = *text++;
		} while (digits-- > 1);
		if (whole)
			*to++ = '"';
	}
	*to = '\0';
	return out;
}

/* Ends the program where the file is not of either kind. */
static json_t *file_load(const char *path)
{
	json_error_t error;
	size_t n;
	char *text = file_read(path, &n), *quoted;
	bool known = false;
	json_t *root;

	if (n != strlen(text))
		exit_with(EX_DATAERR, "%s: not text", path);
	quoted = quote_long_integers(text);
	root = json_loads(quoted, JSON_REJECT_DUPLICATES, &error);
	free(quoted);
	free(text);
	if (!root)
		exit_with(EX_DATAERR, "%s:%d: %s", path, error.line, error.text);
	for (void *at = json_object_iter(root); at; at = json_object_iter_next(root, at))
		known |= section_of(json_object_iter_key(at)) != NULL;
	if (!known && json_array_size(root) == 0)
		exit_with(EX_DATAERR,
			  "%s: neither vectors of PROTOCOL 8 nor a list of HPKE vectors", path);
	return root;
}

int main(int argc, char **argv)
{
	json_t **roots;

	log_init(argv[0], LOG_LEVEL_INFO);
	if (argc < 2)
		exit_with(EX_USAGE, "usage: vectors FILE...");
	roots = calloc((size_t)argc, sizeof(*roots));
	if (!roots)
		exit_with(EX_OSERR, "out of memory");
	/* All are read before anything is said, so that a bad file costs no half report. */
	for (int i = 1; i < argc; i++)
		roots[i] = file_load(argv[i]);
	printf("TAP version 13\n");
	for (int i = 1; i < argc; i++) {
		printf("# %s\n", argv[i]);
		if (json_is_array(roots[i]))
			for (size_t k = 0; k < json_array_size(roots[i]); k++)
				check_rfc(k, json_array_get(roots[i], k));
		else
			check_core(roots[i]);
		json_decref(roots[i]);
	}
	free(roots);
	printf("1..%u\n", lines);
	if (fflush(stdout) || ferror(stdout))
		exit_with(EX_IOERR, "standard output: %s", strerror(errno));
	return lines_not_ok ? EXIT_FAILURE : EXIT_SUCCESS;
}
