// SPDX-License-Identifier: MIT
/*
 * Distribution as the manager makes it (PROTOCOL 12): the three keys of a chain, unwrapped and
 * multiplied, bring a device's message to the receiver, and to nobody in between.
 */
#include "tests/manager_world.h"
#include "userspace/manager/hop.h"
#include "userspace/manager/outlet.h"

static int hop(struct fixture_token *self, const char *scope)
{
	const struct hop_terms t = {
		.scope = scope, .distributor = "dist", .proof = true, .gateway = "gw"
	};

	return hop_add(&self->m, &t);
}

static int outlet(struct fixture_token *self, const char *name, const char *prefix,
		  const char *receiver)
{
	const struct outlet_terms t = { .name = name,
					.scope = "hall",
					.distributor = "dist",
					.prefix = prefix,
					.receiver = receiver };

	return outlet_add(&self->m, &t);
}

static int grant_outlet(struct fixture_token *self, const char *name, const char *receiver)
{
	const struct outlet_grant t = { .outlet = name, .receiver = receiver };

	return outlet_grant(&self->m, &t);
}

static void make_distribution(struct fixture_token *self)
{
	make_world(self);
	enrol_distributor(self, "dist");
	COMMAND(self, T0, 0, enrol(self, "c-1", RECORD_ROLE_RECEIVER));
	COMMAND(self, T0, 0, enrol(self, "c-2", RECORD_ROLE_RECEIVER));
	COMMAND(self, T0, 0, hop(self, "hall"));
	COMMAND(self, T0, 0, outlet(self, "all", "public/all", NULL));
	COMMAND(self, T0, 0, outlet(self, "one", "public/one", "c-2"));
	COMMAND(self, T0, 0, grant_outlet(self, "all", "c-1"));
}

static struct record_grant only_grant(struct fixture_token *self, const char *id)
{
	struct bundle_party b;
	struct record_grant g;

	BUNDLE(self, T0, 0, bundle_make_party(&self->m, &no_terms, id, in_base("p")));
	ASSERT_EQ(bundle_party_decode(kept_body(self, "p", STATEMENT_BUNDLE), &b), 0);
	ASSERT_EQ(b.n_grants, 1);
	EXPECT_EQ(b.n_origins, 0); /* nobody's name is told */
	ASSERT_EQ(bundle_party_next_grant(&b.grants, &g), 0);
	return g;
}

TEST_F(token, a_chain_of_three_keys)
{
	uint8_t x0[P256_X_BYTES], x1[P256_X_BYTES], x2[P256_X_BYTES], x3[P256_X_BYTES];
	struct bundle_gateway gateway;
	struct bundle_distributor dist;
	struct bundle_gateway_grant h, own, behind;
	struct bundle_outlet all;
	struct record_grant hop_seen, mine;
	struct record_scope scope;
	struct secret32 k1, k2, k3;
	struct sealed s;

	make_distribution(self);
	BUNDLE(self, T0, 0, bundle_make_gateway(&self->m, &no_terms, in_base("g")));
	ASSERT_EQ(bundle_gateway_decode(kept_body(self, "g", STATEMENT_GATEWAY), &gateway), 0);
	BUNDLE(self, T0, 0, bundle_make_distributor(&self->m, &no_terms, "dist", in_base("d")));
	ASSERT_EQ(bundle_distributor_decode(kept_body(self, "d", STATEMENT_DISTRIBUTOR), &dist), 0);
	ASSERT_EQ(bundle_gateway_next_scope(&gateway.scopes, &scope), 0);
	ASSERT_EQ(scope.n_public_filters, 2);
	EXPECT_TRUE(bytes_equal(scope.public_filters[0], bytes_str("public/all/#")));

	/* What each is told fits together. */
	h = gateway_grant(gateway, "dist", "", "hall/#");
	EXPECT_EQ(h.grant.flags, RECORD_GRANT_HOP | RECORD_GRANT_PROOF);
	EXPECT_TRUE(bytes_is_zero(bytes_of(h.grant.from, GRANT_ID_BYTES)));
	own = gateway_grant(gateway, "dist", "dist", "public/all/#");
	EXPECT_EQ(own.grant.flags, RECORD_GRANT_HOP);
	EXPECT_EQ(own.wrapped_rk.n, 0);
	ASSERT_BYTES(own.grant.from, h.grant.grant_id, GRANT_ID_BYTES);
	behind = gateway_grant(gateway, "c-1", "", "public/all/#");
	EXPECT_EQ(behind.grant.flags, RECORD_GRANT_IDS_REPLACED);
	ASSERT_BYTES(behind.grant.from, own.grant.grant_id, GRANT_ID_BYTES);
	ASSERT_EQ(dist.n_hops, 1);
	ASSERT_EQ(bundle_distributor_next_hop(&dist.hops, &hop_seen), 0);
	ASSERT_BYTES(hop_seen.grant_id, h.grant.grant_id, GRANT_ID_BYTES);
	ASSERT_EQ(dist.n_outlets, 2);
	all = find_outlet(dist, "all");
	ASSERT_BYTES(all.grant.grant_id, own.grant.grant_id, GRANT_ID_BYTES);
	EXPECT_TRUE(bytes_equal(all.prefix, bytes_str("public/all")));
	EXPECT_TRUE(bytes_equal(all.domain, bytes_str("all")));
	EXPECT_TRUE(bytes_equal(dist.from.gateway_id, bytes_str("gw")));
	EXPECT_TRUE(bytes_equal(dist.to.gateway_id, bytes_str("gw")));
	EXPECT_EQ(dist.n_origins, 1);
	mine = only_grant(self, "c-1");
	ASSERT_BYTES(mine.grant_id, behind.grant.grant_id, GRANT_ID_BYTES);

	/* Sealed to A, converted by the three in turn, it opens for the receiver. */
	seal(&scope, &s);
	k1 = key_of(self, h.wrapped_rk);
	k2 = key_of(self, all.wrapped_rk);
	k3 = key_of(self, behind.wrapped_rk);
	memcpy(x0, s.enc.b + 1, sizeof(x0));
	memcpy(x1, x0, sizeof(x1));
	step(&k1, x1);
	memcpy(x2, x1, sizeof(x2));
	step(&k2, x2);
	memcpy(x3, x2, sizeof(x3));
	step(&k3, x3);
	EXPECT_TRUE(receiver_opens("c-1", &s, &mine, x3));
	/* But not before, nor for another, nor with a key left out. */
	EXPECT_FALSE(receiver_opens("c-1", &s, &mine, x2));
	EXPECT_FALSE(receiver_opens("c-1", &s, &mine, x1));
	EXPECT_FALSE(receiver_opens("c-1", &s, &mine, x0));
	EXPECT_FALSE(receiver_opens("c-2", &s, &mine, x3));
	step(&k3, x1);
	EXPECT_FALSE(receiver_opens("c-1", &s, &mine, x1));
}

/* All that a distributor has, tried as it likes, opens nothing. */
TEST_F(token, a_distributor_opens_nothing)
{
	uint8_t x[P256_X_BYTES];
	struct bundle_distributor d;
	struct bundle_gateway b;
	struct bundle_gateway_grant h;
	struct secret32 keys[3], inverse, product;
	struct record_scope scope;
	struct record_grant as = { 0 };
	struct sealed s;

	make_distribution(self);
	BUNDLE(self, T0, 0, bundle_make_gateway(&self->m, &no_terms, in_base("g")));
	ASSERT_EQ(bundle_gateway_decode(kept_body(self, "g", STATEMENT_GATEWAY), &b), 0);
	BUNDLE(self, T0, 0, bundle_make_distributor(&self->m, &no_terms, "dist", in_base("d")));
	ASSERT_EQ(bundle_distributor_decode(kept_body(self, "d", STATEMENT_DISTRIBUTOR), &d), 0);
	ASSERT_EQ(bundle_gateway_next_scope(&b.scopes, &scope), 0);
	seal(&scope, &s);
	as.a = scope.a;
	h = gateway_grant(b, "dist", "", "hall/#");
	keys[0] = key_of(self, find_outlet(d, "all").wrapped_rk);
	keys[1] = key_of(self, find_outlet(d, "one").wrapped_rk);
	ASSERT_EQ(p256_scalar_mul(&keys[0], &keys[1], &keys[2]), 0);
	/* What it gets, and what it makes of it, with each key, its inverse, and both in one. */
	for (int converted = 0; converted < 4; converted++) {
		memcpy(x, s.enc.b + 1, sizeof(x));
		if (converted) {
			struct secret32 k1 = key_of(self, h.wrapped_rk);

			step(&k1, x);
		}
		if (converted > 1)
			step(&keys[converted - 2], x);
		for (int k = 0; k < 3; k++) {
			EXPECT_FALSE(opens_with(&s, &as, &keys[k], x));
			ASSERT_EQ(p256_scalar_invert(&keys[k], &inverse), 0);
			EXPECT_FALSE(opens_with(&s, &as, &inverse, x));
			ASSERT_EQ(p256_scalar_mul(&inverse, &keys[(k + 1) % 3], &product), 0);
			EXPECT_FALSE(opens_with(&s, &as, &product, x));
		}
	}
}

/* An outlet for one receiver: two keys, and the gateway has neither the second nor a say. */
TEST_F(token, an_outlet_for_one)
{
	uint8_t x[P256_X_BYTES];
	struct bundle_gateway gateway;
	struct bundle_distributor dist;
	struct bundle_gateway_grant h, own;
	struct bundle_outlet one;
	struct record_grant mine;
	struct record_scope scope;
	struct secret32 k1, k2;
	struct sealed s;

	make_distribution(self);
	BUNDLE(self, T0, 0, bundle_make_gateway(&self->m, &no_terms, in_base("g")));
	ASSERT_EQ(bundle_gateway_decode(kept_body(self, "g", STATEMENT_GATEWAY), &gateway), 0);
	BUNDLE(self, T0, 0, bundle_make_distributor(&self->m, &no_terms, "dist", in_base("d")));
	ASSERT_EQ(bundle_distributor_decode(kept_body(self, "d", STATEMENT_DISTRIBUTOR), &dist), 0);
	ASSERT_EQ(bundle_gateway_next_scope(&gateway.scopes, &scope), 0);
	h = gateway_grant(gateway, "dist", "", "hall/#");
	own = gateway_grant(gateway, "c-2", "dist", "public/one/#");
	EXPECT_EQ(own.grant.flags, RECORD_GRANT_IDS_REPLACED);
	EXPECT_EQ(own.wrapped_rk.n, 0);
	one = find_outlet(dist, "one");
	mine = only_grant(self, "c-2");
	ASSERT_BYTES(mine.grant_id, one.grant.grant_id, GRANT_ID_BYTES);
	EXPECT_TRUE(bytes_equal(mine.upstream, bytes_str("dist")));

	seal(&scope, &s);
	k1 = key_of(self, h.wrapped_rk);
	k2 = key_of(self, one.wrapped_rk);
	memcpy(x, s.enc.b + 1, sizeof(x));
	step(&k1, x);
	EXPECT_FALSE(receiver_opens("c-2", &s, &mine, x));
	step(&k2, x);
	EXPECT_TRUE(receiver_opens("c-2", &s, &mine, x));
	EXPECT_FALSE(receiver_opens("c-1", &s, &mine, x));
	COMMAND(self, T0, -EINVAL, grant_outlet(self, "one", "c-1"));
	EXPECT_TRUE(strstr(said, "alone") != NULL);
}

/* Taken at one gateway, published at another: each learns its part, and no more. */
TEST_F(token, an_outlet_at_another_gateway)
{
	const struct bundle_terms at1 = { .gateway = "gw" }, at2 = { .gateway = "gw2" };
	struct outlet_terms t = { .name = "far",
				  .scope = "hall",
				  .distributor = "dist",
				  .prefix = "public/far",
				  .gateway = "gw2" };
	struct bundle_gateway here, there;
	struct bundle_distributor d;
	struct bundle_gateway_grant own, behind;
	struct bundle_party b;

	make_world(self);
	enrol_second_gateway(self);
	enrol_distributor(self, "dist");
	COMMAND(self, T0, 0, hop(self, "hall"));
	COMMAND(self, T0, 0, outlet_add(&self->m, &t));
	COMMAND(self, T0, 0, grant_outlet(self, "far", "r-1"));
	BUNDLE(self, T0, 0, bundle_make_gateway(&self->m, &at1, in_base("g1")));
	ASSERT_EQ(bundle_gateway_decode(kept_body(self, "g1", STATEMENT_GATEWAY), &here), 0);
	BUNDLE(self, T0, 0, bundle_make_gateway(&self->m, &at2, in_base("g2")));
	ASSERT_EQ(bundle_gateway_decode(kept_body(self, "g2", STATEMENT_GATEWAY), &there), 0);
	EXPECT_EQ(here.n_grants, 2 + 1); /* two readers, and the hop */
	(void)gateway_grant(here, "dist", "", "hall/#");
	ASSERT_EQ(there.n_grants, 2);
	own = gateway_grant(there, "dist", "dist", "public/far/#");
	behind = gateway_grant(there, "r-1", "", "public/far/#");
	ASSERT_BYTES(behind.grant.from, own.grant.grant_id, GRANT_ID_BYTES);
	BUNDLE(self, T0, 0, bundle_make_distributor(&self->m, &no_terms, "dist", in_base("d")));
	ASSERT_EQ(bundle_distributor_decode(kept_body(self, "d", STATEMENT_DISTRIBUTOR), &d), 0);
	EXPECT_TRUE(bytes_equal(d.from.gateway_id, bytes_str("gw")));
	EXPECT_TRUE(bytes_equal(d.to.gateway_id, bytes_str("gw2")));
	BUNDLE(self, T0, 0, bundle_make_party(&self->m, &at2, "r-1", in_base("p")));
	ASSERT_EQ(bundle_party_decode(open_bundle(self, "p", STATEMENT_BUNDLE).body, &b), 0);
	EXPECT_EQ(b.n_grants, 1);
	/* Who read behind the outlet has contexts open: senders are where the hop begins. */
	COMMAND(self, T0, 0, revoke_outlet_grant(&self->m, "far", "r-1"));
	BUNDLE(self, T0, 0, bundle_make_gateway(&self->m, &at1, in_base("g1")));
	ASSERT_EQ(bundle_gateway_decode(kept_body(self, "g1", STATEMENT_GATEWAY), &here), 0);
	EXPECT_EQ(here.n_revoked, 1);
	/* The place where it is taken is revoked: nothing of the chain is left. */
	COMMAND(self, T0, 0, revoke_gateway(&self->m, "gw"));
	BUNDLE(self, T0, 0, bundle_make_gateway(&self->m, &at2, in_base("g2")));
	ASSERT_EQ(bundle_gateway_decode(kept_body(self, "g2", STATEMENT_GATEWAY), &there), 0);
	EXPECT_EQ(there.n_grants, 0);
	EXPECT_EQ(there.n_revoked, 1);
}

/* --- what is refused ----------------------------------------------------------------------- */

TEST_F(token, the_same_again_and_other_terms)
{
	struct hop_terms h = { .scope = "hall", .distributor = "dist", .proof = false };
	struct outlet_terms t = {
		.name = "all", .scope = "hall", .distributor = "dist", .prefix = "public/all"
	};

	make_distribution(self);
	COMMAND(self, T0, 0, hop(self, "hall"));
	ASSERT_TRUE(!strncmp(said, "unchanged hop=", 14));
	COMMAND(self, T0, -EEXIST, hop_add(&self->m, &h));
	COMMAND(self, T0, 0, outlet_add(&self->m, &t));
	ASSERT_TRUE(!strncmp(said, "unchanged outlet=all", 20));
	t.rotate_seconds = 60;
	COMMAND(self, T0, -EEXIST, outlet_add(&self->m, &t));
	t.rotate_seconds = 0;
	t.receiver = "c-1";
	COMMAND(self, T0, -EEXIST, outlet_add(&self->m, &t));
	COMMAND(self, T0, 0, grant_outlet(self, "all", "c-1"));
	ASSERT_TRUE(!strncmp(said, "unchanged grant=", 16));

	/* One place to take from, one to publish at. */
	enrol_second_gateway(self);
	h.gateway = "gw2";
	COMMAND(self, T0, -EEXIST, hop_add(&self->m, &h));
	EXPECT_TRUE(strstr(said, "gateway \"gw\"") != NULL);
	t = (struct outlet_terms){ .name = "far",
				   .scope = "hall",
				   .distributor = "dist",
				   .prefix = "public/far",
				   .gateway = "gw2" };
	COMMAND(self, T0, -EEXIST, outlet_add(&self->m, &t));
}

TEST_F(token, topics_that_meet_no_others)
{
	static const struct {
		const char *prefix;
		int want;
	} cases[] = {
		{ "hall", -EEXIST },
		{ "hall/public", -EEXIST },
		{ "public", -EEXIST },
		{ "public/all", -EEXIST },
		{ "public/all/x", -EEXIST },
		{ "a/b/c", -EEXIST },
		{ "a", -EEXIST },
		{ "", -EINVAL },
		{ "x/#", -EINVAL },
		{ "x/+", -EINVAL },
		{ "x/", -EINVAL },
		{ "$SYS/x", -EINVAL },
		{ "public/allx", 0 },
		{ "a/y", -EEXIST },
		{ "hallway", 0 },
		{ "a/y/z", 0 },
	};

	make_distribution(self);
	COMMAND(self, T0, 0, add_scope(self, "yard", "a/+/c"));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char name[16];

		snprintf(name, sizeof(name), "o%zu", i);
		COMMAND(self, T0, cases[i].want, outlet(self, name, cases[i].prefix, NULL));
	}
	/* And the other way round. */
	COMMAND(self, T0, -EEXIST, add_scope(self, "late", "public/all/x"));
	COMMAND(self, T0, -EEXIST, add_scope(self, "late", "+/y"));
	COMMAND(self, T0, -EEXIST, add_scope(self, "late", "#"));
	COMMAND(self, T0, 0, add_scope(self, "late", "a"));
}

TEST_F(token, id_domains)
{
	struct outlet_terms t = { .scope = "hall", .distributor = "dist", .ids = "shared" };

	make_distribution(self);
	t.name = "s1";
	t.prefix = "p/1";
	t.rotate_seconds = 3600;
	COMMAND(self, T0, 0, outlet_add(&self->m, &t));
	t.name = "s2";
	t.prefix = "p/2";
	COMMAND(self, T0, 0, outlet_add(&self->m, &t));
	t.name = "s3";
	t.prefix = "p/3";
	t.rotate_seconds = 60;
	COMMAND(self, T0, -EEXIST, outlet_add(&self->m, &t)); /* they change together */
	t.ids = "all";					      /* the other outlet's own */
	t.rotate_seconds = 0;
	COMMAND(self, T0, -EEXIST, outlet_add(&self->m, &t));
	t.ids = "later";
	COMMAND(self, T0, 0, outlet_add(&self->m, &t));
	t.name = "later"; /* would make the domain its own */
	t.prefix = "p/4";
	t.ids = NULL;
	COMMAND(self, T0, -EEXIST, outlet_add(&self->m, &t));
	t.name = "shared";
	COMMAND(self, T0, -EINVAL, outlet_add(&self->m, &t));
	t.name = "ok";
	t.ids = "no id";
	COMMAND(self, T0, -EINVAL, outlet_add(&self->m, &t));
}

TEST_F(token, what_is_not_there)
{
	make_world(self);
	COMMAND(self, T0, -ESRCH, hop(self, "hall")); /* no distributor yet */
	enrol_distributor(self, "dist");
	COMMAND(self, T0, -ESRCH, outlet(self, "all", "public", NULL)); /* no hop */
	EXPECT_TRUE(strstr(said, "hop --scope hall --distributor dist") != NULL);
	BUNDLE(self, T0, -ESRCH,
	       bundle_make_distributor(&self->m, &no_terms, "dist", in_base("d")));
	COMMAND(self, T0, -ESRCH, hop(self, "none"));
	COMMAND(self, T0, 0, hop(self, "hall"));
	COMMAND(self, T0, -ESRCH, outlet(self, "all", "public", "nobody"));
	COMMAND(self, T0, -ESRCH, grant_outlet(self, "all", "r-1"));
	BUNDLE(self, T0, -ESRCH, bundle_make_distributor(&self->m, &no_terms, "r-1", in_base("d")));
	BUNDLE(self, T0, 0, bundle_make_distributor(&self->m, &no_terms, "dist", in_base("d")));
}

/* --- taking it back ------------------------------------------------------------------------ */

#define GRANTS_LEFT(self)  count(self, "SELECT count(*) FROM grants")
#define OUTLETS_LEFT(self) count(self, "SELECT count(*) FROM outlet")

TEST_F(token, revoking_takes_what_hangs_on_it)
{
	make_distribution(self);
	ASSERT_EQ(GRANTS_LEFT(self), 2 + 4);

	COMMAND(self, T0 + 1, 0, revoke_outlet_grant(&self->m, "all", "c-1"));
	COMMAND(self, T0 + 1, 0, revoke_outlet_grant(&self->m, "all", "c-1"));
	ASSERT_TRUE(!strncmp(said, "unchanged", 9));
	COMMAND(self, T0 + 1, -ESRCH, revoke_outlet_grant(&self->m, "all", "c-2"));
	COMMAND(self, T0 + 1, -EINVAL, revoke_outlet_grant(&self->m, "one", "c-2"));
	COMMAND(self, T0 + 1, -ESRCH, revoke_outlet_grant(&self->m, "none", "c-2"));
	EXPECT_EQ(GRANTS_LEFT(self), 5);
	EXPECT_EQ(count(self, "SELECT count(*) FROM revoked"), 1);

	COMMAND(self, T0, 0, grant_outlet(self, "all", "c-1"));
	COMMAND(self, T0, 0, revoke_outlet(&self->m, "all"));
	ASSERT_STREQ(said, "revoked outlet=all grants=2\n");
	EXPECT_EQ(GRANTS_LEFT(self), 4);
	EXPECT_EQ(OUTLETS_LEFT(self), 1);
	COMMAND(self, T0, 0, revoke_outlet(&self->m, "all"));
	COMMAND(self, T0, -ESRCH, revoke_outlet(&self->m, "none"));

	COMMAND(self, T0, 0, revoke_hop(&self->m, "hall", "dist"));
	ASSERT_STREQ(said, "revoked hop=dist/hall grants=2\n");
	EXPECT_EQ(GRANTS_LEFT(self), 2);
	EXPECT_EQ(OUTLETS_LEFT(self), 0);
	COMMAND(self, T0, -ESRCH, revoke_hop(&self->m, "hall", "other"));
	COMMAND(self, T0, 0, list_check(&self->m));
}

TEST_F(token, revoking_a_party_takes_its_part_of_the_chain)
{
	make_distribution(self);
	COMMAND(self, T0, 0, revoke_party(&self->m, "c-2", RECORD_ROLE_RECEIVER));
	EXPECT_EQ(OUTLETS_LEFT(self), 1); /* that for c-2 alone went with it */
	EXPECT_EQ(GRANTS_LEFT(self), 5);
	/* Another role of the distributor's does not keep its hops, nor do they go with that. */
	COMMAND(self, T0, 0, enrol_with(self, "dist", RECORD_ROLE_DISTRIBUTOR, "dist.pub", NULL));
	COMMAND(self, T0, 0, revoke_party(&self->m, "dist", RECORD_ROLE_DISTRIBUTOR));
	EXPECT_EQ(OUTLETS_LEFT(self), 0);
	EXPECT_EQ(GRANTS_LEFT(self), 2);
	COMMAND(self, T0, 0, list_check(&self->m));
}

TEST_F(token, revoking_a_scope_of_a_receiver_takes_both_ways)
{
	make_distribution(self);
	COMMAND(self, T0, 0, grant(self, "hall", "c-1", true));
	COMMAND(self, T0, 0, revoke_grant(&self->m, "hall", "c-1", NULL));
	ASSERT_STREQ(said, "revoked grant=c-1/hall grants=2\n");
	EXPECT_EQ(GRANTS_LEFT(self), 5);
	/* A hop is no grant: all outlets would go with it. */
	COMMAND(self, T0, -ESRCH, revoke_grant(&self->m, "hall", "dist", NULL));
	EXPECT_EQ(GRANTS_LEFT(self), 5);
}

TEST_F(token, a_secret_opens_only_where_it_was_sealed)
{
	make_distribution(self);
	COMMAND(self, T0, 0, add_scope(self, "yard", "yard"));
	COMMAND(self, T0, 0, hop(self, "yard"));
	COMMAND(self, T0, 0, list_check(&self->m));
	change_registry("UPDATE grants SET secret = (SELECT secret FROM grants JOIN epoch"
			" USING (key_id) WHERE scope = 'yard') WHERE receiver = 'dist'"
			" AND upstream IS NULL");
	COMMAND(self, T0, -EIO, outlet(self, "new", "public/new", NULL));
	EXPECT_TRUE(strstr(said, "not what this token sealed") != NULL);
	COMMAND(self, T0, -EIO, list_check(&self->m));
}

/* --- lists, padding, tracing --------------------------------------------------------------- */

TEST_F(token, told_in_lists)
{
	make_distribution(self);
	COMMAND(self, T0, 0, list_grants(&self->m));
	EXPECT_TRUE(strstr(said, "kind=hop outlet=- stands=yes") != NULL);
	EXPECT_TRUE(strstr(said, "kind=outlet outlet=all") != NULL);
	EXPECT_TRUE(strstr(said, "kind=behind-outlet outlet=all") != NULL);
	EXPECT_TRUE(strstr(said, "kind=reader outlet=-") != NULL);
	COMMAND(self, T0, 0, list_outlets(&self->m));
	EXPECT_TRUE(strstr(said, "outlet=one scope=hall distributor=dist gateway=gw ids=one") !=
		    NULL);
	COMMAND(self, T0, 0, list_outlet(&self->m, "all"));
	EXPECT_TRUE(strstr(said, "receivers=c-1\n") != NULL);
	COMMAND(self, T0, 0, list_scope(&self->m, "hall"));
	EXPECT_TRUE(strstr(said, "public=public/all/#\n") != NULL);
	EXPECT_TRUE(strstr(said, "receivers=c-1,c-2,r-1,r-2\n") != NULL);
	EXPECT_TRUE(strstr(said, "distributors=dist\n") != NULL);
	COMMAND(self, T0, 0, list_party(&self->m, "dist"));
	EXPECT_TRUE(strstr(said, "distributes=hall\n") != NULL);
}

TEST_F(token, a_padded_scope)
{
	struct scope_terms t = { .name = "pad",
				 .filters = { "pad" },
				 .n_filters = 1,
				 .suite = 1,
				 .padded = true,
				 .rekey_messages = 1,
				 .rekey_seconds = 1 };
	struct bundle_party b;
	struct record_grant g;

	COMMAND(self, T0, 0, scope_add(&self->m, &t));
	COMMAND(self, T0, 0, scope_add(&self->m, &t));
	ASSERT_TRUE(!strncmp(said, "unchanged", 9));
	t.padded = false;
	COMMAND(self, T0, -EEXIST, scope_add(&self->m, &t));
	COMMAND(self, T0, 0, enrol(self, "r", RECORD_ROLE_RECEIVER));
	COMMAND(self, T0, 0, grant(self, "pad", "r", true));
	BUNDLE(self, T0, 0, bundle_make_party(&self->m, &no_terms, "r", in_base("p")));
	ASSERT_EQ(bundle_party_decode(open_bundle(self, "p", STATEMENT_BUNDLE).body, &b), 0);
	ASSERT_EQ(bundle_party_next_grant(&b.grants, &g), 0);
	EXPECT_EQ(g.flags, RECORD_GRANT_PROOF | RECORD_GRANT_PADDED);
}

/* The point that distributors get is that of a key in the token, which derives with it. */
TEST_F(token, the_tracing_key)
{
	struct bundle_distributor d;
	struct secret32 k, want;
	struct p256_point p;
	uint8_t x[P256_X_BYTES];

	make_distribution(self);
	BUNDLE(self, T0, 0, bundle_make_distributor(&self->m, &no_terms, "dist", in_base("d")));
	ASSERT_EQ(bundle_distributor_decode(kept_body(self, "d", STATEMENT_DISTRIBUTOR), &d), 0);
	ASSERT_EQ(p256_scalar_random(&k), 0);
	ASSERT_EQ(p256_mul_base(&k, &p), 0);
	ASSERT_EQ(p256_dh(&k, &d.trace, &want), 0);
	open_at(self, T0);
	ASSERT_EQ(manager_token(&self->m), 0);
	ASSERT_EQ(token_open_point(self->m.token, MANAGER_TRACE_LABEL, p.b, x), 0);
	ASSERT_BYTES(x, want.b, sizeof(x));
	EXPECT_NE(token_sign(self->m.token, MANAGER_TRACE_LABEL, x, (uint8_t[64]){ 0 }), 0);
	done(self, 0, 0);
}

/* bundle all makes the distributor's of its own kind. */
TEST_F(token, bundles_of_all)
{
	make_distribution(self);
	BUNDLE(self, T0, 0, bundle_make_all(&self->m, &no_terms, in_base("out")));
	EXPECT_EQ(access(in_base("out/distributor-dist.bundle"), F_OK), 0);
	EXPECT_EQ(access(in_base("out/party-dist.bundle"), F_OK), -1);
	EXPECT_EQ(access(in_base("out/party-c-1.bundle"), F_OK), 0);
}

int main(int argc, char **argv)
{
	return world_main(argc, argv);
}
