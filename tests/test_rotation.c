// SPDX-License-Identifier: MIT
/*
 * Keys that are replaced while messages are under way, and what is stated anew to those whom it
 * concerns (PROTOCOL 13).
 */
#include <time.h>

#include "tests/manager_world.h"
#include "userspace/manager/hop.h"
#include "userspace/manager/outlet.h"
#include "userspace/manager/reports.h"
#include "userspace/manager/rotate.h"
#include "userspace/manager/update.h"

#define HOUR_MS 3600000ull
#define DAY_MS	(24 * HOUR_MS)

/* make_world() with a distributor, an outlet for all and a receiver behind it, one outlet for one.
 */
static void make_distribution(struct fixture_token *self)
{
	const struct hop_terms h = { .scope = "hall", .distributor = "dist", .proof = true };
	struct outlet_terms o = {
		.name = "all", .scope = "hall", .distributor = "dist", .prefix = "public/all"
	};
	const struct outlet_grant g = { .outlet = "all", .receiver = "c-1" };

	make_world(self);
	enrol_distributor(self, "dist");
	COMMAND(self, T0, 0, enrol(self, "c-1", RECORD_ROLE_RECEIVER));
	COMMAND(self, T0, 0, enrol(self, "c-2", RECORD_ROLE_RECEIVER));
	COMMAND(self, T0, 0, hop_add(&self->m, &h));
	COMMAND(self, T0, 0, outlet_add(&self->m, &o));
	o.name = "one";
	o.prefix = "public/one";
	o.receiver = "c-2";
	COMMAND(self, T0, 0, outlet_add(&self->m, &o));
	COMMAND(self, T0, 0, outlet_grant(&self->m, &g));
}

/* What gateway and distributor work by at a time. */
struct plant {
	struct bundle_gateway gateway;
	struct bundle_distributor dist;
};

static void look(struct fixture_token *self, uint64_t now_ms, bool distribution, struct plant *p)
{
	BUNDLE(self, now_ms, 0, bundle_make_gateway(&self->m, &no_terms, in_base("g")));
	ASSERT_EQ(bundle_gateway_decode(kept_body(self, "g", STATEMENT_GATEWAY), &p->gateway), 0);
	p->dist = (struct bundle_distributor){ 0 };
	if (!distribution)
		return;
	BUNDLE(self, now_ms, 0, bundle_make_distributor(&self->m, &no_terms, "dist", in_base("d")));
	ASSERT_EQ(bundle_distributor_decode(kept_body(self, "d", STATEMENT_DISTRIBUTOR), &p->dist),
		  0);
}

/* The scope record of this epoch in the gateway's bundle. */
static bool scope_of(const struct plant *p, uint32_t epoch, struct record_scope *s)
{
	struct bytes_reader r = p->gateway.scopes;

	for (uint32_t i = 0; i < p->gateway.n_scopes; i++) {
		ASSERT_EQ(bundle_gateway_next_scope(&r, s), 0);
		if (s->epoch == epoch)
			return true;
	}
	return false;
}

/* The gateway's own grants that convert `from` (zeros: level 0) for this receiver. */
static unsigned grants_from(const struct plant *p, uint32_t key_id, const char *receiver,
			    const uint8_t *from, struct bundle_gateway_grant out[4])
{
	static const uint8_t zeros[GRANT_ID_BYTES];
	struct bytes_reader r = p->gateway.grants;
	struct bundle_gateway_grant g;
	unsigned n = 0;

	for (uint32_t i = 0; i < p->gateway.n_grants; i++) {
		ASSERT_EQ(bundle_gateway_next_grant(&r, &g), 0);
		if (g.grant.key_id != key_id || g.grant.upstream.n ||
		    !bytes_equal(g.grant.receiver, bytes_str(receiver)) ||
		    memcmp(g.grant.from, from ? from : zeros, GRANT_ID_BYTES))
			continue;
		ASSERT_LT(n, 4);
		out[n++] = g;
	}
	return n;
}

/* In how many ways is the message brought to the receiver, who opens it each time? */
static unsigned brought_direct(struct fixture_token *self, const struct plant *p, uint32_t key_id,
			       const struct sealed *s, const char *receiver)
{
	struct bundle_gateway_grant g[4];
	unsigned n = grants_from(p, key_id, receiver, NULL, g), opened = 0;

	for (unsigned i = 0; i < n; i++) {
		struct secret32 k = key_of(self, g[i].wrapped_rk);
		uint8_t x[P256_X_BYTES];

		memcpy(x, s->enc.b + 1, sizeof(x));
		step(&k, x);
		opened += receiver_opens(receiver, s, &g[i].grant, x);
	}
	return opened;
}

static unsigned brought_behind(struct fixture_token *self, const struct plant *p,
			       const struct bundle_outlet *o, const struct sealed *s,
			       const char *receiver, const uint8_t *x2)
{
	struct bundle_gateway_grant g[4];
	unsigned n, opened = 0;

	if (!(o->grant.flags & RECORD_GRANT_HOP))
		return bytes_equal(o->grant.receiver, bytes_str(receiver)) &&
		       receiver_opens(receiver, s, &o->grant, x2);
	n = grants_from(p, o->grant.key_id, receiver, o->grant.grant_id, g);
	for (unsigned i = 0; i < n; i++) {
		struct secret32 k = key_of(self, g[i].wrapped_rk);
		uint8_t x3[P256_X_BYTES];

		memcpy(x3, x2, sizeof(x3));
		step(&k, x3);
		opened += receiver_opens(receiver, s, &g[i].grant, x3);
	}
	return opened;
}

static unsigned brought_by_distributor(struct fixture_token *self, const struct plant *p,
				       uint32_t key_id, const struct sealed *s,
				       const char *receiver)
{
	struct bundle_gateway_grant h[4];
	unsigned n = grants_from(p, key_id, "dist", NULL, h), opened = 0;

	for (unsigned i = 0; i < n; i++) {
		struct secret32 k1 = key_of(self, h[i].wrapped_rk);
		struct bytes_reader r = p->dist.outlets;
		uint8_t x1[P256_X_BYTES];

		memcpy(x1, s->enc.b + 1, sizeof(x1));
		step(&k1, x1);
		for (unsigned j = 0; j < p->dist.n_outlets; j++) {
			struct bundle_outlet o;
			struct secret32 k2;
			uint8_t x2[P256_X_BYTES];

			ASSERT_EQ(bundle_distributor_next_outlet(&r, &o), 0);
			if (memcmp(o.grant.from, h[i].grant.grant_id, GRANT_ID_BYTES))
				continue;
			k2 = key_of(self, o.wrapped_rk);
			memcpy(x2, x1, sizeof(x2));
			step(&k2, x2);
			opened += brought_behind(self, p, &o, s, receiver, x2);
		}
	}
	return opened;
}

/* --- a scope ------------------------------------------------------------------------------- */

static int rotate_hall(struct fixture_token *self)
{
	return rotate_scope(&self->m, "hall", 24, 30);
}

TEST_F(token, a_scope_rotates_and_nothing_is_lost)
{
	struct record_scope s1, s2;
	struct sealed old, new;
	struct plant p;

	make_distribution(self);
	look(self, T0, true, &p);
	ASSERT_TRUE(scope_of(&p, 1, &s1));
	seal(&s1, &old);
	COMMAND(self, T0 + 1000, 0, rotate_hall(self));
	EXPECT_TRUE(strstr(said, "rotated scope=hall key_id=") && strstr(said, "grants=6"));
	look(self, T0 + 1000, true, &p);
	ASSERT_TRUE(scope_of(&p, 1, &s1));
	ASSERT_TRUE(scope_of(&p, 2, &s2));
	EXPECT_NE(s1.key_id, s2.key_id);
	EXPECT_EQ(s1.not_after_ms, T0 + 1000 + DAY_MS);
	EXPECT_EQ(s2.not_after_ms, 0);
	EXPECT_EQ(p.gateway.n_grants, 12);
	seal(&s2, &new);

	/* What was sealed before and what is sealed now, by every way. */
	EXPECT_EQ(brought_direct(self, &p, s1.key_id, &old, "r-1"), 1);
	EXPECT_EQ(brought_direct(self, &p, s2.key_id, &new, "r-1"), 1);
	EXPECT_EQ(brought_direct(self, &p, s2.key_id, &new, "r-2"), 1);
	EXPECT_EQ(brought_by_distributor(self, &p, s1.key_id, &old, "c-1"), 1);
	EXPECT_EQ(brought_by_distributor(self, &p, s2.key_id, &new, "c-1"), 1);
	EXPECT_EQ(brought_by_distributor(self, &p, s1.key_id, &old, "c-2"), 1);
	EXPECT_EQ(brought_by_distributor(self, &p, s2.key_id, &new, "c-2"), 1);
	/* The keys of one epoch are nothing to the other. */
	EXPECT_EQ(brought_direct(self, &p, s2.key_id, &old, "r-1"), 0);
	EXPECT_EQ(brought_direct(self, &p, s1.key_id, &new, "r-1"), 0);
	EXPECT_EQ(brought_by_distributor(self, &p, s2.key_id, &old, "c-1"), 0);
	COMMAND(self, T0 + 1000, 0, list_check(&self->m));

	/* A grant that stands is the new epoch's. */
	COMMAND(self, T0 + 2000, 0, grant(self, "hall", "r-1", true));
	ASSERT_TRUE(!strncmp(said, "unchanged", 9));
	/* Revoked, it is so in both. */
	COMMAND(self, T0 + 2000, 0, revoke_grant(&self->m, "hall", "r-1", NULL));
	EXPECT_TRUE(strstr(said, "grants=2") != NULL);
	look(self, T0 + 2000, true, &p);
	EXPECT_EQ(brought_direct(self, &p, s1.key_id, &old, "r-1"), 0);
	EXPECT_EQ(p.gateway.n_revoked, 2);
}

TEST_F(token, one_overlap_at_a_time_and_an_end)
{
	struct record_scope s;
	struct plant p;
	uint32_t first;

	make_distribution(self);
	look(self, T0, true, &p);
	ASSERT_TRUE(scope_of(&p, 1, &s));
	first = s.key_id;
	COMMAND(self, T0, 0, rotate_hall(self));
	COMMAND(self, T0 + DAY_MS - 1, -EBUSY, rotate_hall(self));
	EXPECT_TRUE(strstr(said, "until 2027-01-16T08:00:00Z; rotate it again") != NULL);
	COMMAND(self, T0 + DAY_MS, 0, rotate_hall(self));
	look(self, T0 + DAY_MS, true, &p);
	EXPECT_EQ(p.gateway.n_scopes, 3);
	EXPECT_EQ(p.gateway.n_grants, 18);
	/* When the first epoch's time is over it is in no bundle, and the next rotation wipes it.
	 */
	look(self, T0 + 31 * DAY_MS - 1, true, &p);
	EXPECT_TRUE(scope_of(&p, 1, &s));
	look(self, T0 + 31 * DAY_MS, true, &p);
	EXPECT_FALSE(scope_of(&p, 1, &s));
	EXPECT_EQ(p.gateway.n_grants, 12);
	EXPECT_EQ(count(self, "SELECT count(*) FROM epoch WHERE sealed = zeroblob(60)"), 0);
	COMMAND(self, T0 + 31 * DAY_MS, 0, rotate_hall(self));
	EXPECT_TRUE(strstr(said, "wiped scope=hall epochs=1") != NULL);
	EXPECT_EQ(count(self, "SELECT count(*) FROM epoch WHERE sealed = zeroblob(60)"), 1);
	EXPECT_EQ(count(self, "SELECT count(*) FROM epoch"), 4);
	EXPECT_EQ(count(self, "SELECT count(DISTINCT key_id) FROM grants"), 3);
	COMMAND(self, T0 + 31 * DAY_MS, 0, list_check(&self->m));
	open_at(self, T0);
	struct scope *wiped = malloc(sizeof(*wiped));
	struct secret32 a;
	ASSERT_EQ(scope_load_key(&self->m, first, wiped), 0);
	EXPECT_EQ(scope_open_scalar(&self->m, wiped, &a), -EIO);
	free(wiped);
	done(self, 0, 0);
}

TEST_F(token, ends_that_were_agreed_stay)
{
	const struct access_grant g = { .scope = "hall", .receiver = "c", .valid_days = 2 };
	struct record_scope s;
	struct bundle_gateway_grant out[4];
	struct plant p;

	make_world(self);
	COMMAND(self, T0, 0, enrol(self, "c", RECORD_ROLE_RECEIVER));
	COMMAND(self, T0, 0, access_grant(&self->m, &g));
	COMMAND(self, T0 + DAY_MS, 0, rotate_hall(self));
	look(self, T0 + DAY_MS, false, &p);
	ASSERT_TRUE(scope_of(&p, 2, &s));
	ASSERT_EQ(grants_from(&p, s.key_id, "c", NULL, out), 1);
	EXPECT_EQ(out[0].grant.not_after_ms, T0 + 2 * DAY_MS);
	ASSERT_TRUE(scope_of(&p, 1, &s));
	ASSERT_EQ(grants_from(&p, s.key_id, "c", NULL, out), 1);
	EXPECT_EQ(out[0].grant.not_after_ms, T0 + 2 * DAY_MS); /* and not a month later */
	ASSERT_EQ(grants_from(&p, s.key_id, "r-1", NULL, out), 1);
	EXPECT_EQ(out[0].grant.not_after_ms, T0 + DAY_MS + 31 * DAY_MS);
}

/* All tables' contents, so that a change of any byte shows. */
static int64_t fingerprint(struct fixture_token *self)
{
	return count(self,
		     "SELECT (SELECT sum(key_id + not_after_ms + kept_until_ms) FROM epoch)"
		     " + (SELECT count(*) FROM epoch) * 3 + (SELECT count(*) FROM grants) * 5"
		     " + (SELECT count(next) FROM grants) * 7 + (SELECT count(*) FROM history)"
		     " + (SELECT sum(previous_until_ms + k_adm_until_ms) FROM party)"
		     " + (SELECT sum(next_from_ms) FROM gateway)"
		     " + (SELECT count(*) FROM statement) * 11");
}

TEST_F(token, a_dry_run_changes_nothing)
{
	char fresh[128];
	struct rotate_party r = { .id = "r-1", .generate = fresh, .overlap_hours = 1 };
	int64_t before;

	snprintf(fresh, sizeof(fresh), "%s/fresh", base);
	make_distribution(self);
	before = fingerprint(self);
	open_at(self, T0);
	self->m.dry_run = true;
	done(self, rotate_hall(self), 0);
	EXPECT_TRUE(strstr(said, "rotated scope=hall") && strstr(said, "replaced grant="));
	EXPECT_EQ(fingerprint(self), before);
	open_at(self, T0);
	self->m.dry_run = true;
	done(self, rotate_party(&self->m, &r), 0);
	EXPECT_TRUE(strstr(said, "rotated id=r-1 signing=yes encryption=yes") != NULL);
	EXPECT_EQ(access(fresh, F_OK), -1);
	EXPECT_EQ(fingerprint(self), before);
	open_at(self, T0);
	self->m.dry_run = true;
	done(self, rotate_admission(&self->m, NULL, 1), 0);
	EXPECT_EQ(fingerprint(self), before);
}

/* --- a party ------------------------------------------------------------------------------- */

static struct bundle_gateway_party party_of(const struct plant *p, const char *id)
{
	struct bytes_reader r = p->gateway.parties;
	struct bundle_gateway_party g;

	for (uint32_t i = 0; i < p->gateway.n_parties; i++) {
		ASSERT_EQ(bundle_gateway_next_party(&r, &g), 0);
		if (bytes_equal(g.party.id, bytes_str(id)))
			return g;
	}
	harness_fail(__FILE__, __LINE__, true, "no party %s", id);
	harness_end();
}

TEST_F(token, a_signing_key_rotates)
{
	struct rotate_party r = { .id = "dev-1", .overlap_hours = 24 };
	struct p256_point old, new = make_key("n.key", "n.pub");
	struct bundle_gateway_party g;
	struct bundle_party b;
	struct record_party origin;
	struct plant p;

	make_world(self);
	look(self, T0, false, &p);
	old = party_of(&p, "dev-1").party.signing;
	COMMAND(self, T0, -EINVAL, rotate_party(&self->m, &r));
	r.public_file = in_base("n.pub");
	COMMAND(self, T0, 0, rotate_party(&self->m, &r));
	COMMAND(self, T0, -EINVAL, rotate_party(&self->m, &r)); /* that is its key now */
	look(self, T0, false, &p);
	g = party_of(&p, "dev-1");
	ASSERT_BYTES(g.party.signing.b, new.b, sizeof(new.b));
	ASSERT_TRUE(g.party.has_previous);
	ASSERT_BYTES(g.party.previous.b, old.b, sizeof(old.b));
	EXPECT_EQ(g.party.previous_until_ms, T0 + DAY_MS);
	BUNDLE(self, T0, 0, bundle_make_party(&self->m, &no_terms, "r-1", in_base("p")));
	ASSERT_EQ(bundle_party_decode(open_bundle(self, "p", STATEMENT_BUNDLE).body, &b), 0);
	ASSERT_EQ(bundle_party_next_origin(&b.origins, &origin), 0);
	EXPECT_TRUE(origin.has_previous); /* proofs under way hold */

	make_key("n2.key", "n2.pub");
	r.public_file = in_base("n2.pub");
	COMMAND(self, T0 + DAY_MS - 1, -EBUSY, rotate_party(&self->m, &r));
	COMMAND(self, T0, -EEXIST, enrol_with(self, "x", RECORD_ROLE_DEVICE, "n.pub", NULL));
	look(self, T0 + DAY_MS, false, &p);
	EXPECT_FALSE(party_of(&p, "dev-1").party.has_previous);
	COMMAND(self, T0 + DAY_MS, 0, rotate_party(&self->m, &r));
	r.public_file = in_base("n.pub");
	COMMAND(self, T0 + 3 * DAY_MS, -EEXIST, rotate_party(&self->m, &r)); /* not back again */
	r.id = "nobody";
	COMMAND(self, T0, -ESRCH, rotate_party(&self->m, &r));
	r.id = "r-1";
	COMMAND(self, T0 + 3 * DAY_MS, -EEXIST, rotate_party(&self->m, &r)); /* another's */
}

TEST_F(token, an_encryption_key_rotates)
{
	struct rotate_party r = { .id = "r-1", .overlap_hours = 24 };
	struct bundle_gateway_grant g[4];
	struct record_scope s1;
	struct sealed s;
	struct plant p;

	make_distribution(self);
	COMMAND(self, T0, 0,
		access_grant(&self->m,
			     &(struct access_grant){ .scope = "hall", .receiver = "c-2" }));
	make_key("n.key", "n.pub");
	r.encryption_file = in_base("n.pub");
	COMMAND(self, T0 + 1, 0, rotate_party(&self->m, &r));
	EXPECT_TRUE(strstr(said, "signing=no encryption=yes") && strstr(said, "grants=1"));
	look(self, T0 + 1, true, &p);
	ASSERT_TRUE(scope_of(&p, 1, &s1));
	seal(&s1, &s);
	ASSERT_EQ(grants_from(&p, s1.key_id, "r-1", NULL, g), 2);
	/* By the old key with the old grant, by the new with the new: one each. */
	EXPECT_EQ(brought_direct(self, &p, s1.key_id, &s, "r-1"), 1);
	put(in_base("keep"), "");
	append("keep", "r-1/encryption.pem");
	ASSERT_EQ(rename(in_base("n.key"), in_base("r-1/encryption.pem")), 0);
	EXPECT_EQ(brought_direct(self, &p, s1.key_id, &s, "r-1"), 1);
	look(self, T0 + 1 + DAY_MS, true, &p);
	EXPECT_EQ(grants_from(&p, s1.key_id, "r-1", NULL, g), 1);

	/* Behind an outlet, and at the end of one, as well. */
	r.id = "c-2";
	make_key("n2.key", "n2.pub");
	r.encryption_file = in_base("n2.pub");
	COMMAND(self, T0 + 2, 0, rotate_party(&self->m, &r));
	EXPECT_TRUE(strstr(said, "grants=2") != NULL);
	make_key("n3.key", "n3.pub");
	r.encryption_file = in_base("n3.pub");
	COMMAND(self, T0 + 3, -EBUSY, rotate_party(&self->m, &r));
	/* That a scope is rotated meanwhile is no reason to refuse, nor is it lost by that. */
	COMMAND(self, T0 + 4, 0, rotate_hall(self));
	COMMAND(self, T0 + 4, 0, list_check(&self->m));
	COMMAND(self, T0 + 2 + DAY_MS, 0, rotate_party(&self->m, &r));
	r.id = "dev-1";
	COMMAND(self, T0, -EINVAL, rotate_party(&self->m, &r)); /* no receiver */
}

TEST_F(token, a_distributors_unwrapping_key_rotates)
{
	struct rotate_party r = { .id = "dist", .overlap_hours = 24 };
	EVP_PKEY *other = make_rsa("rsa2", 2048);
	struct record_scope s1;
	struct sealed s;
	struct plant p;

	make_distribution(self);
	put(in_base("next"), "");
	append("next", "dist.pub");
	/* The same signing key, another RSA key. */
	uint8_t pem[4096];
	size_t n = get(in_base("dist.pub"), pem, sizeof(pem));
	struct bytes ec = bytes_of(pem, n);
	const char *end = strstr((char *)memcpy(pem, ec.p, n), "-----END PUBLIC KEY-----");
	ASSERT_TRUE(end != NULL);
	ASSERT_EQ(file_write(AT_FDCWD, in_base("next"),
			     bytes_of(pem, (size_t)(end - (char *)pem) + 25), 0600),
		  0);
	append("next", "rsa2");
	r.public_file = in_base("next");
	COMMAND(self, T0 + 1, 0, rotate_party(&self->m, &r));
	EXPECT_TRUE(strstr(said, "signing=no") && strstr(said, "unwrapping=yes grants=3"));
	COMMAND(self, T0 + 1, 0, list_check(&self->m));
	/* The new outlets are for the new key; with it the chain holds. */
	look(self, T0 + 2 + DAY_MS, true, &p);
	ASSERT_EQ(p.dist.n_outlets, 2);
	ASSERT_TRUE(scope_of(&p, 1, &s1));
	seal(&s1, &s);
	struct bundle_gateway_grant h[4], behind[4];
	struct bundle_outlet o = find_outlet(p.dist, "all");
	uint8_t x[P256_X_BYTES], pkcs8[RSA_WRAPPED_BYTES_MAX];
	struct secret32 k;

	ASSERT_EQ(grants_from(&p, s1.key_id, "dist", NULL, h), 1);
	k = key_of(self, h[0].wrapped_rk);
	memcpy(x, s.enc.b + 1, sizeof(x));
	step(&k, x);
	ASSERT_EQ(unwrap(other, o.wrapped_rk, pkcs8, sizeof(pkcs8)), P256_PKCS8_BYTES);
	memcpy(k.b, pkcs8 + P256_PKCS8_BYTES - P256_SCALAR_BYTES, P256_SCALAR_BYTES);
	step(&k, x);
	ASSERT_EQ(grants_from(&p, s1.key_id, "c-1", o.grant.grant_id, behind), 1);
	k = key_of(self, behind[0].wrapped_rk);
	step(&k, x);
	EXPECT_TRUE(receiver_opens("c-1", &s, &behind[0].grant, x));
	EVP_PKEY_free(other);
}

TEST_F(token, admission_keys_rotate)
{
	struct bundle_gateway_party before, after;
	struct bundle_party b;
	struct plant p;

	make_world(self);
	look(self, T0, false, &p);
	before = party_of(&p, "dev-1");
	COMMAND(self, T0, 0, rotate_admission(&self->m, "dev-1", 2));
	look(self, T0, false, &p);
	after = party_of(&p, "dev-1");
	EXPECT_EQ(after.admission_flags, BUNDLE_ADMISSION_PREVIOUS);
	EXPECT_NE(memcmp(after.k_adm, before.k_adm, sizeof(after.k_adm)), 0);
	ASSERT_BYTES(after.previous_k_adm, before.k_adm, sizeof(before.k_adm));
	EXPECT_EQ(after.previous_until_ms, T0 + 2 * HOUR_MS);
	EXPECT_EQ(party_of(&p, "r-1").admission_flags, 0);
	BUNDLE(self, T0, 0, bundle_make_party(&self->m, &no_terms, "dev-1", in_base("p")));
	ASSERT_EQ(bundle_party_decode(open_bundle(self, "p", STATEMENT_BUNDLE).body, &b), 0);
	ASSERT_BYTES(b.k_adm, after.k_adm, sizeof(after.k_adm));
	EXPECT_EQ(b.admission_flags, 0);

	COMMAND(self, T0, -EBUSY, rotate_admission(&self->m, "dev-1", 2));
	COMMAND(self, T0, -EBUSY, rotate_admission(&self->m, NULL, 2)); /* all or none */
	look(self, T0 + 2 * HOUR_MS, false, &p);
	EXPECT_EQ(party_of(&p, "dev-1").admission_flags, 0);
	EXPECT_EQ(party_of(&p, "r-1").admission_flags, 0);
	COMMAND(self, T0 + 2 * HOUR_MS, 0, rotate_admission(&self->m, NULL, 2));
	look(self, T0 + 2 * HOUR_MS, false, &p);
	EXPECT_EQ(party_of(&p, "r-2").admission_flags, BUNDLE_ADMISSION_PREVIOUS);
	COMMAND(self, T0, -ESRCH, rotate_admission(&self->m, "nobody", 2));
}

/* --- a gateway ----------------------------------------------------------------------------- */

TEST_F(token, a_broker_key_rotates)
{
	struct p256_point next = make_key(NULL, "g2");
	struct plant p;

	append("g2", "rsa");
	make_world(self);
	COMMAND(self, T0, -EINVAL, rotate_gateway(&self->m, "gw", in_base("gateway"), T0, 1));
	COMMAND(self, T0, -EINVAL, rotate_gateway(&self->m, "gw", in_base("g2"), T0, 1));
	EXPECT_TRUE(strstr(said, "before it signs") != NULL);
	COMMAND(self, T0, 0, rotate_gateway(&self->m, "gw", in_base("g2"), T0 + HOUR_MS, 1));
	look(self, T0, false, &p);
	ASSERT_BYTES(p.gateway.broker.signing.b, self->broker.b, sizeof(self->broker.b));
	ASSERT_TRUE(p.gateway.broker.has_next);
	ASSERT_BYTES(p.gateway.broker.next.b, next.b, sizeof(next.b));
	EXPECT_EQ(p.gateway.broker.next_from_ms, T0 + HOUR_MS);
	EXPECT_EQ(p.gateway.n_updates, 1); /* everybody is told */

	make_key(NULL, "g3");
	append("g3", "rsa");
	COMMAND(self, T0, -EBUSY,
		rotate_gateway(&self->m, "gw", in_base("g3"), T0 + 2 * HOUR_MS, 1));
	/* In use, it becomes the present one; no way back. */
	COMMAND(self, T0 + HOUR_MS, -EEXIST,
		rotate_gateway(&self->m, "gw", in_base("gateway"), T0 + 2 * HOUR_MS, 1));
	COMMAND(self, T0 + HOUR_MS, 0,
		rotate_gateway(&self->m, "gw", in_base("g2"), T0 + HOUR_MS, 1));
	look(self, T0 + HOUR_MS, false, &p);
	ASSERT_BYTES(p.gateway.broker.signing.b, next.b, sizeof(next.b));
	EXPECT_FALSE(p.gateway.broker.has_next);
	COMMAND(self, T0 + HOUR_MS, 0,
		rotate_gateway(&self->m, "gw", in_base("g3"), T0 + 2 * HOUR_MS, 1));
	COMMAND(self, T0, -ESRCH, rotate_gateway(&self->m, "none", in_base("g3"), T0, 1));
}

TEST_F(token, a_gateways_unwrapping_key_rotates)
{
	EVP_PKEY *other = make_rsa("rsa2", 2048);
	struct bundle_gateway_grant g[4];
	struct record_scope s1;
	struct plant p;
	uint8_t pkcs8[RSA_WRAPPED_BYTES_MAX], hash[32];
	uint8_t *der = NULL;
	int n = i2d_PUBKEY(other, &der);

	make_distribution(self);
	make_key(NULL, "g2");
	append("g2", "rsa2");
	COMMAND(self, T0, 0, rotate_gateway(&self->m, "gw", in_base("g2"), T0 + HOUR_MS, 1));
	EXPECT_TRUE(strstr(said, "unwrapping=yes") && strstr(said, "grants=6"));
	look(self, T0, true, &p);
	hash_one(bytes_of(der, (size_t)n), hash);
	ASSERT_BYTES(p.gateway.unwrap_key_hash, hash, sizeof(hash));
	ASSERT_TRUE(scope_of(&p, 1, &s1));
	ASSERT_EQ(grants_from(&p, s1.key_id, "r-1", NULL, g), 2); /* one for each key, old first */
	(void)key_of(self, g[0].wrapped_rk);
	ASSERT_EQ(unwrap(other, g[1].wrapped_rk, pkcs8, sizeof(pkcs8)), P256_PKCS8_BYTES);
	EXPECT_EQ(g[0].grant.not_after_ms, T0 + 2 * HOUR_MS);
	look(self, T0 + 2 * HOUR_MS, true, &p);
	EXPECT_EQ(grants_from(&p, s1.key_id, "r-1", NULL, g), 1);
	OPENSSL_free(der);
	EVP_PKEY_free(other);
}

TEST_F(token, a_revoked_gateway_gets_a_last_bundle)
{
	struct bundle_terms t = { .gateway = "gw" };
	struct bundle_gateway b;
	struct statement s;
	uint64_t serial;

	make_distribution(self);
	BUNDLE(self, T0, 0, bundle_make_gateway(&self->m, &t, in_base("g")));
	serial = open_bundle(self, "g", STATEMENT_GATEWAY).serial;
	COMMAND(self, T0, 0, revoke_gateway(&self->m, "gw"));
	BUNDLE(self, T0, 0, bundle_make_gateway(&self->m, &t, in_base("g")));
	s = open_bundle(self, "g", STATEMENT_GATEWAY);
	EXPECT_TRUE(s.serial > serial);
	ASSERT_EQ(bundle_gateway_decode(s.body, &b), 0);
	EXPECT_EQ(b.n_scopes + b.n_parties + b.n_grants + b.n_revoked + b.n_updates, 0);
	ASSERT_BYTES(b.broker.signing.b, self->broker.b, sizeof(self->broker.b));
	COMMAND(self, T0, 0, revoke_gateway(&self->m, "gw"));
	ASSERT_TRUE(!strncmp(said, "unchanged", 9));
	COMMAND(self, T0, 0, list_gateways(&self->m));
	EXPECT_TRUE(strstr(said, "state=revoked") != NULL);
	/* It is nobody's gateway any more, and everything else of it is gone. */
	BUNDLE(self, T0, -ESRCH, bundle_make_party(&self->m, &t, "r-1", in_base("p")));
	COMMAND(self, T0, -ESRCH, grant(self, "hall", "r-1", true));
	EXPECT_EQ(count(self, "SELECT count(*) FROM grants"), 0);
	EXPECT_EQ(count(self, "SELECT count(*) FROM outlet"), 0);
	COMMAND(self, T0, 0, list_check(&self->m));
	/* Until it is enrolled anew. */
	COMMAND(self, T0, 0, enrol_gateway(&self->m, "gw", in_base("gateway")));
	COMMAND(self, T0, 0, grant(self, "hall", "r-1", true));
	BUNDLE(self, T0, 0, bundle_make_gateway(&self->m, &no_terms, in_base("g")));
	ASSERT_EQ(bundle_gateway_decode(open_bundle(self, "g", STATEMENT_GATEWAY).body, &b), 0);
	EXPECT_EQ(b.n_grants, 1);
	EXPECT_EQ(b.n_revoked, 1);
}

/* --- what is stated anew ------------------------------------------------------------------- */

/* The updates in the gateway's next bundle: "kind kind ..." by ascending serial; each holds under
 * the manager's key. */
static const char *updates(struct fixture_token *self, uint64_t now_ms)
{
	static char text[256];
	struct p256_public *manager;
	struct plant p;
	struct bytes whole;
	struct statement s, again;
	uint64_t last = 0, bundle;
	size_t used = 0;

	look(self, now_ms, false, &p);
	bundle = open_bundle(self, "g", STATEMENT_GATEWAY).serial;
	open_at(self, now_ms);
	ASSERT_EQ(p256_public_new(&self->m.key, &manager), 0);
	done(self, 0, 0);
	text[0] = '\0';
	for (uint32_t i = 0; i < p.gateway.n_updates; i++) {
		ASSERT_EQ(bundle_gateway_next_update(&p.gateway.updates, &whole, &s), 0);
		ASSERT_EQ(statement_open(whole, s.kind, manager, &again), 0);
		ASSERT_GT(s.serial, last);
		last = s.serial;
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%d", i ? " " : "",
					 (int)s.kind);
	}
	ASSERT_LT(last, bundle);
	p256_public_free(manager);
	return text;
}

TEST_F(token, statements_that_travel)
{
	static uint8_t before[65536];
	struct rotate_party r = { .id = "dev-1", .generate = NULL, .overlap_hours = 24 };
	struct plant p;
	size_t n;

	make_world(self);
	/* Nobody has had a bundle: all will be in the first ones. */
	ASSERT_STREQ(updates(self, T0), "");
	BUNDLE(self, T0, 0, bundle_make_all(&self->m, &no_terms, in_base("out")));
	ASSERT_STREQ(updates(self, T0), "");

	/* A device more: r-1 checks its proofs. It has its scope in its own first bundle. */
	COMMAND(self, T0, 0, enrol(self, "dev-2", RECORD_ROLE_DEVICE));
	COMMAND(self, T0, 0, access_allow(&self->m, "hall", "dev-2"));
	ASSERT_STREQ(updates(self, T0), "3");
	/* A scope more for one that has a bundle; a grant for one that has, and one that has not.
	 */
	COMMAND(self, T0, 0, add_scope(self, "yard", "yard"));
	COMMAND(self, T0, 0, access_allow(&self->m, "yard", "dev-1"));
	COMMAND(self, T0, 0, grant(self, "yard", "r-1", false));
	COMMAND(self, T0, 0, enrol(self, "r-3", RECORD_ROLE_RECEIVER));
	COMMAND(self, T0, 0, grant(self, "yard", "r-3", false));
	ASSERT_STREQ(updates(self, T0), "3 1 2 3"); /* dev-1 as it now is, last */

	/* The same statements are the same bytes, bundle for bundle. */
	look(self, T0, false, &p);
	n = p.gateway.updates.left;
	memcpy(before, p.gateway.updates.p, n);
	look(self, T0 + 1, false, &p);
	ASSERT_EQ(p.gateway.updates.left, n);
	ASSERT_BYTES(p.gateway.updates.p, before, n);

	/* What is revoked is not stated any more; that a device is gone, is. */
	COMMAND(self, T0, 0, revoke_grant(&self->m, "yard", "r-1", NULL));
	ASSERT_STREQ(updates(self, T0), "3 1 3");
	COMMAND(self, T0, 0, revoke_party(&self->m, "dev-2", RECORD_ROLE_DEVICE));
	ASSERT_STREQ(updates(self, T0), "1 3 3");
	look(self, T0, false, &p);
	struct record_party gone;
	struct statement s;
	struct bytes whole;
	for (int i = 0; i < 3; i++)
		ASSERT_EQ(bundle_gateway_next_update(&p.gateway.updates, &whole, &s), 0);
	ASSERT_EQ(record_party_decode(s.body, &gone), 0);
	EXPECT_TRUE(bytes_equal(gone.id, bytes_str("dev-2")));
	EXPECT_EQ(gone.roles, 0);

	/* A key that was rotated takes the place of what was said of its owner before. */
	make_key("n.key", "n.pub");
	r.public_file = in_base("n.pub");
	COMMAND(self, T0, 0, rotate_party(&self->m, &r));
	ASSERT_STREQ(updates(self, T0), "1 3 3");
	/* Where a week was set, it is old after that. */
	open_at(self, T0);
	done(self, registry_set(&self->m.registry, UPDATE_DAYS_SETTING, "7"), 0);
	ASSERT_STREQ(updates(self, T0 + 7 * DAY_MS), "1 3 3");
	ASSERT_STREQ(updates(self, T0 + 7 * DAY_MS + 1), "");
}

/* Whose code waits has no key yet by which it could prove itself to a receiver. */
TEST_F(token, a_code_proves_no_origin)
{
	struct registry_query q;
	struct bundle_party b;

	make_world(self);
	BUNDLE(self, T0, 0, bundle_make_party(&self->m, &no_terms, "r-1", in_base("p")));
	ASSERT_EQ(bundle_party_decode(open_bundle(self, "p", STATEMENT_BUNDLE).body, &b), 0);
	EXPECT_EQ(b.n_origins, 1);
	open_at(self, T0);
	q = registry_query(&self->m.registry, "UPDATE party SET flags = ? WHERE id = 'dev-1'");
	registry_bind_int(&q, RECORD_PARTY_CLAIM);
	done(self, registry_run(&q), 0);
	BUNDLE(self, T0, 0, bundle_make_party(&self->m, &no_terms, "r-1", in_base("p")));
	ASSERT_EQ(bundle_party_decode(open_bundle(self, "p", STATEMENT_BUNDLE).body, &b), 0);
	EXPECT_EQ(b.n_origins, 0);
	COMMAND(self, T0, 0, add_scope(self, "yard", "yard"));
	COMMAND(self, T0, 0, access_allow(&self->m, "yard", "dev-1"));
	ASSERT_STREQ(updates(self, T0), "");
}

/* Its admission key is printed on its label. */
TEST_F(token, a_code_keeps_its_admission_key)
{
	struct registry_query q;

	make_world(self);
	open_at(self, T0);
	q = registry_query(&self->m.registry, "UPDATE party SET flags = ? WHERE id = 'dev-1'");
	registry_bind_int(&q, RECORD_PARTY_CLAIM);
	done(self, registry_run(&q), 0);
	COMMAND(self, T0, -EINVAL, rotate_admission(&self->m, "dev-1", 24));
	COMMAND(self, T0, 0, rotate_admission(&self->m, NULL, 24));
	EXPECT_EQ(count(self, "SELECT count(*) FROM party WHERE previous_k_adm IS NOT NULL"), 2);
	EXPECT_EQ(count(self, "SELECT count(*) FROM party WHERE id = 'dev-1'"
			      " AND previous_k_adm IS NULL"),
		  1);
}

TEST_F(token, a_new_epoch_is_stated)
{
	struct record_scope scope;
	struct record_grant g;
	struct statement s;
	struct bytes whole;
	struct plant p;

	make_world(self);
	BUNDLE(self, T0, 0, bundle_make_all(&self->m, &no_terms, in_base("out")));
	COMMAND(self, T0, 0, rotate_hall(self));
	ASSERT_STREQ(updates(self, T0), "1 2 2");
	look(self, T0, false, &p);
	ASSERT_EQ(bundle_gateway_next_update(&p.gateway.updates, &whole, &s), 0);
	ASSERT_EQ(record_scope_decode(s.body, &scope), 0);
	EXPECT_EQ(scope.epoch, 2);
	ASSERT_EQ(bundle_gateway_next_update(&p.gateway.updates, &whole, &s), 0);
	ASSERT_EQ(record_grant_decode(s.body, &g), 0);
	EXPECT_EQ(g.key_id, scope.key_id);
	ASSERT_STREQ(updates(self, T0 + 30 * DAY_MS), "1 2 2");
	/* Another gateway's bundle has the scope, and not this one's grants. */
	enrol_second_gateway(self);
	BUNDLE(self, T0, 0,
	       bundle_make_gateway(&self->m, &(struct bundle_terms){ .gateway = "gw2" },
				   in_base("g2")));
	ASSERT_EQ(bundle_gateway_decode(kept_body(self, "g2", STATEMENT_GATEWAY), &p.gateway), 0);
	EXPECT_EQ(p.gateway.n_updates, 1);
	/* A month after it was signed it is old. */
	BUNDLE(self, T0 + 30 * DAY_MS + 1, 0,
	       bundle_make_gateway(&self->m, &(struct bundle_terms){ .gateway = "gw" },
				   in_base("g")));
	ASSERT_EQ(bundle_gateway_decode(kept_body(self, "g", STATEMENT_GATEWAY), &p.gateway), 0);
	EXPECT_EQ(p.gateway.n_updates, 0);
}

/* What was rotated is stated by the first bundle behind it, however late that is made. */
TEST_F(token, what_waits_for_a_bundle_is_not_forgotten)
{
	make_world(self);
	BUNDLE(self, T0, 0, bundle_make_all(&self->m, &no_terms, in_base("out")));
	COMMAND(self, T0, 0, rotate_hall(self));
	ASSERT_STREQ(updates(self, T0 + 90 * DAY_MS), "1 2 2");
	ASSERT_STREQ(updates(self, T0 + 120 * DAY_MS), "1 2 2");
	ASSERT_STREQ(updates(self, T0 + 121 * DAY_MS), "");
}

/* --- what a party says meanwhile ----------------------------------------------------------- */

/* A report of dev-1, by the key that it was enrolled with; n makes it the only one. Does it hold?
 */
static bool report_holds(struct fixture_token *self, uint64_t now_ms, uint32_t n)
{
	static const uint8_t r_b[CLAIM_NONCE_BYTES];
	uint8_t pem[512], body[256], outer[512], trailer[PUBLISH_TRAILER_1_BYTES];
	struct bytes_writer b = bytes_writer_of(body, sizeof(body)),
			    w = bytes_writer_of(outer, sizeof(outer));
	struct publish p = { .first = 0x30,
			     .topic = bytes_str("$SSDTF/report"),
			     .body_parts = 1,
			     .client_id = bytes_str("dev-1") };
	size_t pem_n = get(in_base("dev-1/signing.pem"), pem, sizeof(pem));
	struct p256_private *key;
	struct secret32 scalar;
	struct ssdtf_report r;
	bool is_new = false;

	bytes_write_u8(&b, 7);
	bytes_write_u64(&b, 1);
	bytes_write_u8_view(&b, bytes_str("dev-9"));
	bytes_write_u16_view(&b, bytes_str("words"));
	bytes_write(&b, bytes_of(r_b, sizeof(r_b)));
	bytes_write_u32(&b, n);
	p.body[0] = bytes_of(body, b.used);
	ASSERT_EQ(p256_private_from_pem(bytes_of(pem, pem_n), &scalar), 0);
	ASSERT_EQ(p256_private_new(&scalar, &key), 0);
	ASSERT_EQ(publish_sign(&p, key, trailer), 0);
	p256_private_free(key);
	bytes_write_u8_view(&w, p.client_id);
	bytes_write_u8(&w, p.first);
	bytes_write_u16(&w, 0);
	bytes_write(&w, p.body[0]);
	bytes_write(&w, bytes_of(trailer, sizeof(trailer)));
	ASSERT_EQ(ssdtf_report_read(bytes_of(outer, w.used), &r), 0);
	COMMAND(self, now_ms, 0, reports_store(&self->m, "gw", &r, &is_new));
	ASSERT_TRUE(is_new);
	return count(self, "SELECT proven FROM report ORDER BY n DESC LIMIT 1");
}

TEST_F(token, reports_by_the_key_before)
{
	struct rotate_party r = { .id = "dev-1", .overlap_hours = 24 };

	make_world(self);
	EXPECT_TRUE(report_holds(self, T0, 1));
	make_key("n.key", "n.pub");
	r.public_file = in_base("n.pub");
	COMMAND(self, T0, 0, rotate_party(&self->m, &r));
	EXPECT_TRUE(report_holds(self, T0, 2));
	EXPECT_TRUE(report_holds(self, T0 + DAY_MS - 1, 3));
	EXPECT_FALSE(report_holds(self, T0 + DAY_MS, 4));
}

TEST_F(token, times_as_text)
{
	uint64_t ms = 0;

	open_at(self, T0);
	EXPECT_EQ(rotate_time(&self->m, "2027-01-15T08:00:00Z", &ms), 0);
	EXPECT_EQ(ms, T0);
	EXPECT_EQ(rotate_time(&self->m, "2027-01-15", &ms), -EINVAL);
	EXPECT_EQ(rotate_time(&self->m, "2027-01-15T08:00:00Zulu", &ms), -EINVAL);
	EXPECT_EQ(rotate_time(&self->m, "", &ms), -EINVAL);
	EXPECT_EQ(rotate_time(&self->m, "2027-02-31T08:00:00Z", &ms), -EINVAL);
	done(self, 0, 0);
}

int main(int argc, char **argv)
{
	return world_main(argc, argv);
}
