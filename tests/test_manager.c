// SPDX-License-Identifier: MIT
/*
 * The manager below its command line: registry, files, key files, and with a SoftHSM token in a
 * temporary folder the whole of it, up to a reading that two receivers open.
 */
#include "tests/manager_world.h"

FIXTURE(plain)
{
	int unused;
};
FIXTURE_SETUP(plain)
{
	base_make();
}
FIXTURE_TEARDOWN(plain)
{
	base_remove();
}

/* --- files --------------------------------------------------------------------------------- */

TEST_F(plain, file_round_trip)
{
	const char *path = in_base("f");
	uint8_t buf[8];
	struct stat st;
	size_t n = 99;

	ASSERT_EQ(file_write(AT_FDCWD, path, bytes_str("first"), 0600), 0);
	ASSERT_EQ(file_write(AT_FDCWD, path, bytes_str("second"), 0640), 0);
	ASSERT_EQ(get(path, buf, sizeof(buf)), 6);
	ASSERT_BYTES(buf, "second", 6);
	ASSERT_EQ(stat(path, &st), 0);
	EXPECT_EQ(st.st_mode & 0777, 0640);
	EXPECT_EQ(access(in_base("f.tmp"), F_OK), -1);

	EXPECT_EQ(file_read_into(AT_FDCWD, path, buf, 5, &n), -EFBIG);
	EXPECT_EQ(file_read_into(AT_FDCWD, in_base("none"), buf, 5, &n), -ENOENT);
	EXPECT_EQ(file_read_into(AT_FDCWD, base, buf, 5, &n), -EISDIR);
	ASSERT_EQ(mkfifo(in_base("fifo"), 0600), 0);
	EXPECT_EQ(file_read_into(AT_FDCWD, in_base("fifo"), buf, 5, &n), -EINVAL);
	EXPECT_EQ(file_read_into(AT_FDCWD, "/dev/zero", buf, 5, &n), -EINVAL);
	EXPECT_EQ(n, 99);
}

TEST_F(plain, file_write_replaces_only_files)
{
	const char *target = in_base("target"), *link = in_base("link");
	uint8_t buf[8];

	put(target, "kept");
	ASSERT_EQ(symlink(target, link), 0);
	EXPECT_EQ(file_write(AT_FDCWD, link, bytes_str("x"), 0600), -EINVAL);
	ASSERT_EQ(mkfifo(in_base("fifo"), 0600), 0); /* stands for a device */
	EXPECT_EQ(file_write(AT_FDCWD, in_base("fifo"), bytes_str("x"), 0600), -EINVAL);
	EXPECT_EQ(file_write(AT_FDCWD, base, bytes_str("x"), 0600), -EISDIR);
	EXPECT_EQ(file_write(AT_FDCWD, in_base("no/such/folder"), bytes_str("x"), 0600), -ENOENT);
	ASSERT_EQ(get(target, buf, sizeof(buf)), 4);

	/* What a killed program left, even as a trap for us, is replaced and not written into. */
	ASSERT_EQ(symlink(target, in_base("new.tmp")), 0);
	EXPECT_EQ(file_write(AT_FDCWD, in_base("new"), bytes_str("x"), 0600), 0);
	ASSERT_EQ(get(target, buf, sizeof(buf)), 4);
	ASSERT_EQ(get(in_base("new"), buf, sizeof(buf)), 1);
}

/* --- the registry -------------------------------------------------------------------------- */

TEST_F(plain, registry_opens_and_refuses)
{
	const char *path = in_base("registry.db");
	struct registry r, again;
	struct stat st;
	char text[16];

	EXPECT_EQ(registry_open(&r, path), -ENODATA);
	EXPECT_EQ(access(path, F_OK), -1); /* and made nothing */
	put(path, "");
	EXPECT_EQ(registry_open(&r, path), -ENODATA); /* cut short at the first byte */
	(void)umask(077);
	ASSERT_EQ(registry_create(&r, path), 0);
	ASSERT_EQ(stat(path, &st), 0);
	EXPECT_EQ(st.st_mode & 0777, 0600);
	ASSERT_EQ(registry_set(&r, "a", "1"), 0);
	ASSERT_EQ(registry_set(&r, "a", "2"), 0);
	ASSERT_EQ(registry_create(&again, path), 0); /* what is there is kept */
	ASSERT_EQ(registry_setting(&again, "a", text, sizeof(text)), 0);
	ASSERT_STREQ(text, "2");
	EXPECT_EQ(registry_setting(&again, "b", text, sizeof(text)), -ENOENT);
	EXPECT_EQ(registry_setting(&again, "a", text, 1), -EIO);
	EXPECT_EQ(registry_check(&again), 0);
	registry_close(&again);

	ASSERT_EQ(sqlite3_exec(r.db, "PRAGMA user_version = 9", NULL, NULL, NULL), SQLITE_OK);
	registry_close(&r);
	EXPECT_EQ(registry_open(&r, path), -EIO);
	put(in_base("text"), "this is a text and no database, for sure; it is long enough, too\n"
			     "this is a text and no database, for sure; it is long enough, too\n");
	EXPECT_EQ(registry_open(&r, in_base("text")), -EIO);
}

TEST_F(plain, registry_queries)
{
	struct registry r;
	struct registry_query q;
	uint8_t four[4] = { 9, 9, 9, 9 };

	ASSERT_EQ(registry_create(&r, in_base("registry.db")), 0);
	q = registry_query(&r, "SELECT nonsense FROM nowhere");
	registry_bind_int(&q, 1);
	EXPECT_FALSE(registry_step(&q));
	EXPECT_EQ(registry_end(&q), -EIO);
	EXPECT_TRUE(strstr(r.error, "nowhere") != NULL);

	q = registry_query(&r, "SELECT x'010203'");
	ASSERT_TRUE(registry_step(&q));
	registry_copy(&q, 0, four, sizeof(four)); /* three bytes where four are due */
	EXPECT_FALSE(registry_step(&q));
	EXPECT_EQ(registry_end(&q), -EIO);
	EXPECT_EQ(four[0], 9);

	q = registry_query(&r, "SELECT ?1 || ?2");
	registry_bind_text(&q, "a");
	registry_bind_text(&q, "b");
	ASSERT_TRUE(registry_step(&q));
	ASSERT_BYTES(registry_blob(&q, 0).p, "ab", 2);
	registry_again(&q);
	registry_bind_text(&q, "c");
	registry_bind_text(&q, "d");
	ASSERT_TRUE(registry_step(&q));
	ASSERT_BYTES(registry_blob(&q, 0).p, "cd", 2);
	EXPECT_FALSE(registry_step(&q));
	EXPECT_EQ(registry_end(&q), 0);

	/* What refers to nothing is refused. */
	q = registry_query(&r, "INSERT INTO permission VALUES ('nobody', 'nothing')");
	EXPECT_EQ(registry_run(&q), -EEXIST);

	/* Rolled back is as if never done. */
	ASSERT_EQ(registry_begin(&r), 0);
	ASSERT_EQ(registry_set(&r, "x", "1"), 0);
	registry_rollback(&r);
	char text[4];
	EXPECT_EQ(registry_setting(&r, "x", text, sizeof(text)), -ENOENT);
	registry_close(&r);
}

TEST_F(plain, registry_that_others_hold)
{
	struct registry r, other;

	ASSERT_EQ(registry_create(&other, in_base("registry.db")), 0);
	ASSERT_EQ(registry_open(&r, in_base("registry.db")), 0);
	ASSERT_EQ(registry_begin(&other), 0);
	EXPECT_EQ(registry_begin(&r), -EBUSY); /* after the wait */
	EXPECT_TRUE(strstr(r.error, "another program") != NULL);
	ASSERT_EQ(registry_commit(&other), 0);
	EXPECT_EQ(registry_begin(&r), 0);
	EXPECT_EQ(registry_commit(&r), 0);
	registry_close(&r);
	registry_close(&other);
}

TEST_F(plain, registry_check_finds_damage)
{
	struct registry r;

	ASSERT_EQ(registry_create(&r, in_base("registry.db")), 0);
	ASSERT_EQ(sqlite3_exec(r.db,
			       "PRAGMA foreign_keys = OFF;"
			       "INSERT INTO permission VALUES ('nobody', 'nothing')",
			       NULL, NULL, NULL),
		  SQLITE_OK);
	EXPECT_EQ(registry_check(&r), -EIO);
	EXPECT_TRUE(strstr(r.error, "permission") != NULL);
	registry_close(&r);
}

/* --- key files ----------------------------------------------------------------------------- */

TEST_F(plain, public_key_files)
{
	struct manager m = { .lock_fd = -1 };
	struct p256_point want = make_key("private", "public"), got;
	EVP_PKEY *p384 = EVP_EC_gen("P-384");

	ASSERT_EQ(keyfile_read_public(&m, in_base("public"), &got), 0);
	ASSERT_BYTES(got.b, want.b, sizeof(want.b));

	EXPECT_EQ(keyfile_read_public(&m, in_base("private"), &got), -EINVAL);
	EXPECT_TRUE(strstr(m.error, "private key") && strstr(m.error, "-pubout"));
	EXPECT_EQ(keyfile_read_public(&m, in_base("none"), &got), -ENOENT);
	EXPECT_TRUE(strstr(m.error, "No such file") != NULL);

	write_public_pem("p384", p384);
	EVP_PKEY_free(p384);
	EXPECT_EQ(keyfile_read_public(&m, in_base("p384"), &got), -EINVAL);
	put(in_base("empty"), "");
	EXPECT_EQ(keyfile_read_public(&m, in_base("empty"), &got), -EINVAL);
	put(in_base("garbage"),
	    "-----BEGIN PUBLIC KEY-----\nnot base64!\n-----END PUBLIC KEY-----\n");
	EXPECT_EQ(keyfile_read_public(&m, in_base("garbage"), &got), -EINVAL);
	put(in_base("cut"), "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n");
	EXPECT_EQ(keyfile_read_public(&m, in_base("cut"), &got), -EINVAL);
	append("two", "public");
	append("two", "public");
	EXPECT_EQ(keyfile_read_public(&m, in_base("two"), &got), -EINVAL);
	EXPECT_EQ(keyfile_read_public(&m, base, &got), -EISDIR);
	EXPECT_EQ(keyfile_read_public(&m, "/dev/zero", &got), -EINVAL);
}

TEST_F(plain, gateway_key_files)
{
	struct manager m = { .lock_fd = -1 };
	struct p256_point broker = make_key("private", "ec");
	struct p256_point bundle = make_key("bundle-private", "bundle");
	EVP_PKEY *rsa = make_rsa("rsa", 2048), *small = make_rsa("small", 1024);
	struct keyfile_gateway g;

	append("ec-rsa", "ec");
	append("ec-rsa", "rsa");
	ASSERT_EQ(keyfile_read_gateway(&m, in_base("ec-rsa"), &g), 0);
	ASSERT_BYTES(g.broker.b, broker.b, sizeof(broker.b));
	EXPECT_EQ(g.spki_bytes, i2d_PUBKEY(rsa, NULL));
	EXPECT_FALSE(g.has_bundle);
	append("whole", "ec-rsa");
	append("whole", "bundle");
	ASSERT_EQ(keyfile_read_gateway(&m, in_base("whole"), &g), 0);
	ASSERT_BYTES(g.broker.b, broker.b, sizeof(broker.b));
	EXPECT_TRUE(g.has_bundle);
	ASSERT_BYTES(g.bundle.b, bundle.b, sizeof(bundle.b));
	append("two-purposes", "ec-rsa");
	append("two-purposes", "ec");
	EXPECT_EQ(keyfile_read_gateway(&m, in_base("two-purposes"), &g), -EINVAL);
	append("four", "whole");
	append("four", "bundle");
	EXPECT_EQ(keyfile_read_gateway(&m, in_base("four"), &g), -EINVAL);
	append("rsa-ec", "rsa");
	append("rsa-ec", "ec");
	EXPECT_EQ(keyfile_read_gateway(&m, in_base("rsa-ec"), &g), 0);

	EXPECT_EQ(keyfile_read_gateway(&m, in_base("ec"), &g), -EINVAL);
	EXPECT_EQ(keyfile_read_gateway(&m, in_base("rsa"), &g), -EINVAL);
	append("ec-ec", "ec");
	append("ec-ec", "ec");
	EXPECT_EQ(keyfile_read_gateway(&m, in_base("ec-ec"), &g), -EINVAL);
	append("three", "ec-rsa");
	append("three", "rsa");
	EXPECT_EQ(keyfile_read_gateway(&m, in_base("three"), &g), -EINVAL);
	append("weak", "ec");
	append("weak", "small");
	EXPECT_EQ(keyfile_read_gateway(&m, in_base("weak"), &g), -EINVAL);
	append("leak", "ec-rsa");
	append("leak", "private");
	EXPECT_EQ(keyfile_read_gateway(&m, in_base("leak"), &g), -EINVAL);
	EXPECT_TRUE(strstr(m.error, "private key") != NULL);
	EVP_PKEY_free(rsa);
	EVP_PKEY_free(small);
}

/* --- RSA ----------------------------------------------------------------------------------- */

TEST_F(plain, rsa_wraps)
{
	EVP_PKEY *key = make_rsa("rsa", 2048);
	uint8_t pem[2048], der[RSA_SPKI_BYTES_MAX], again[2048];
	uint8_t wrapped[RSA_WRAPPED_BYTES_MAX], opened[RSA_WRAPPED_BYTES_MAX];
	size_t pem_n = get(in_base("rsa"), pem, sizeof(pem));
	int n = rsa_public_from_pem(bytes_of(pem, pem_n), der, sizeof(der));
	struct bytes spki;

	ASSERT_GT(n, 0);
	spki = bytes_of(der, (size_t)n);
	ASSERT_EQ(rsa_public_to_pem(spki, again, sizeof(again)), pem_n);
	ASSERT_BYTES(again, pem, pem_n);
	EXPECT_EQ(rsa_public_to_pem(spki, again, pem_n - 1), -ENOBUFS);
	EXPECT_EQ(rsa_public_from_pem(bytes_of(pem, pem_n), again, (size_t)n - 1), -ENOBUFS);

	ASSERT_EQ(rsa_wrap(spki, bytes_str("secret"), wrapped, sizeof(wrapped)), 256);
	ASSERT_EQ(unwrap(key, bytes_of(wrapped, 256), opened, sizeof(opened)), 6);
	ASSERT_BYTES(opened, "secret", 6);
	EXPECT_EQ(rsa_wrap(spki, bytes_str("secret"), wrapped, 255), -ENOBUFS);
	EXPECT_EQ(rsa_wrap(bytes_of(der, spki.n - 1), bytes_str("s"), wrapped, 512), -EINVAL);
	der[n] = 0; /* a byte behind the key */
	EXPECT_EQ(rsa_wrap(bytes_of(der, spki.n + 1), bytes_str("s"), wrapped, 512), -EINVAL);
	EXPECT_EQ(rsa_wrap(bytes_of(NULL, 0), bytes_str("s"), wrapped, 512), -EINVAL);
	EVP_PKEY_free(key);
}

/* A receiver's way from its bundle and the converted x to the reading (PROTOCOL 3). */
static void receive(struct fixture_token *self, const char *id, struct envelope *e,
		    const uint8_t x[P256_X_BYTES], const char *want)
{
	char name[64], file[64];
	struct bundle_party b;
	struct record_grant g;
	struct grant_terms t;
	struct secret32 d, dh, private;
	uint8_t plain[64];

	snprintf(name, sizeof(name), "out/party-%s.bundle", id);
	snprintf(file, sizeof(file), "%s/encryption.pem", id);
	private = private_of(file);
	ASSERT_EQ(bundle_party_decode(open_bundle(self, name, STATEMENT_BUNDLE).body, &b), 0);
	ASSERT_EQ(b.n_grants, 1);
	ASSERT_EQ(bundle_party_next_grant(&b.grants, &g), 0);
	ASSERT_TRUE(bytes_equal(g.receiver, bytes_str(id)));
	memcpy(t.grant_id, g.grant_id, sizeof(t.grant_id));
	t.key_id = g.key_id;
	t.x = g.x;
	t.b = g.b;
	ASSERT_EQ(grant_secret_receiver(&t, &private, &d), 0);
	ASSERT_EQ(grant_dh(&d, x, &dh), 0);
	ASSERT_EQ(envelope_open(e, &dh, &g.a, plain), 0);
	ASSERT_BYTES(plain, want, strlen(want));
}

TEST_F(token, a_reading_that_two_receivers_open)
{
	uint8_t sealed[ENVELOPE_SEALED_BYTES(sizeof(reading))], x[2][P256_X_BYTES];
	struct bundle_party device;
	struct bundle_gateway gateway;
	struct bundle_gateway_grant g;
	struct record_scope scope;
	struct envelope_sender sender;
	struct envelope e;
	struct statement s;

	make_world(self);
	BUNDLE(self, T0 + 1, 0, bundle_make_all(&self->m, &no_terms, in_base("out")));

	/* The device seals to what its bundle says. */
	s = open_bundle(self, "out/party-dev-1.bundle", STATEMENT_BUNDLE);
	ASSERT_EQ(bundle_party_decode(s.body, &device), 0);
	ASSERT_EQ(device.n_scopes, 1);
	EXPECT_EQ(device.n_grants, 0);
	EXPECT_EQ(device.n_origins, 0);
	ASSERT_BYTES(device.broker.signing.b, self->broker.b, sizeof(self->broker.b));
	ASSERT_EQ(bundle_party_next_scope(&device.scopes, &scope), 0);
	EXPECT_EQ(scope.rekey_messages, 100);
	EXPECT_TRUE(record_valid_at(scope.not_before_ms, scope.not_after_ms, T0 - 60000));
	ASSERT_EQ(envelope_sender_init(&sender, (enum hpke_suite)scope.suite, scope.key_id,
				       &scope.a),
		  0);
	ASSERT_EQ(envelope_seal(&sender, 1, T0, bytes_str("dev-1"), bytes_str("hall/a"),
				bytes_str(reading), sealed),
		  0);
	ASSERT_EQ(envelope_parse(bytes_of(sealed, ENVELOPE_SEALED_BYTES(strlen(reading))), &e), 0);

	/* The gateway converts for both; what it makes of the capsule differs. */
	s = open_bundle(self, "out/gateway-gw.bundle", STATEMENT_GATEWAY);
	ASSERT_EQ(bundle_gateway_decode(s.body, &gateway), 0);
	ASSERT_EQ(gateway.n_scopes, 1);
	ASSERT_EQ(gateway.n_parties, 3);
	ASSERT_EQ(gateway.n_grants, 2);
	EXPECT_EQ(gateway.n_revoked, 0);
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(bundle_gateway_next_grant(&gateway.grants, &g), 0);
		EXPECT_EQ(g.grant.flags, i == 0 ? RECORD_GRANT_PROOF : 0);
		convert(self, &g, &sender.enc, x[i]);
	}
	EXPECT_NE(memcmp(x[0], x[1], P256_X_BYTES), 0);
	receive(self, "r-1", &e, x[0], reading);
	receive(self, "r-2", &e, x[1], reading);
	envelope_sender_deinit(&sender);
}

/* --- enrolment ----------------------------------------------------------------------------- */

TEST_F(token, enrolment)
{
	static const char *const not_ids[] = { "", "a b", "a/b", "\xc3\xa9",
					       "1234567890123456789012345678901234567890"
					       "1234567890123456789012345" };

	make_key("k1", "p1");
	make_key("k2", "p2");
	make_key("k3", "p3");
	for (size_t i = 0; i < ARRAY_SIZE(not_ids); i++)
		COMMAND(self, T0, -EINVAL,
			enrol_with(self, not_ids[i], RECORD_ROLE_DEVICE, "p1", NULL));
	COMMAND(self, T0, 0, enrol_with(self, "a", RECORD_ROLE_DEVICE, "p1", NULL));
	ASSERT_STREQ(said, "enrolled id=a roles=device\n");
	COMMAND(self, T0, 0, enrol_with(self, "a", RECORD_ROLE_DEVICE, "p1", NULL));
	ASSERT_STREQ(said, "unchanged id=a roles=device\n");

	/* Another key, another's key, one key for two uses, the gateway's id, its key, ours. */
	COMMAND(self, T0, -EEXIST, enrol_with(self, "a", RECORD_ROLE_DEVICE, "p2", NULL));
	EXPECT_TRUE(strstr(said, "revoke it first") != NULL);
	COMMAND(self, T0, -EEXIST, enrol_with(self, "b", RECORD_ROLE_DEVICE, "p1", NULL));
	COMMAND(self, T0, -EINVAL, enrol_with(self, "a", RECORD_ROLE_RECEIVER, "p1", "p1"));
	COMMAND(self, T0, -EEXIST, enrol_with(self, "gw", RECORD_ROLE_DEVICE, "p2", NULL));
	COMMAND(self, T0, -EEXIST,
		enrol_with(self, "b", RECORD_ROLE_DEVICE, "state/manager.pub", NULL));
	COMMAND(self, T0, -EEXIST, enrol_gateway(&self->m, "a", in_base("gateway")));
	COMMAND(self, T0, -EEXIST, enrol_gateway(&self->m, "gw2", in_base("gateway")));

	/* A second role keeps the first; a third with the receiver's key offered as signing key. */
	COMMAND(self, T0, 0, enrol_with(self, "a", RECORD_ROLE_RECEIVER, "p1", "p2"));
	ASSERT_STREQ(said, "enrolled id=a roles=device,receiver\n");
	COMMAND(self, T0, -EEXIST, enrol_with(self, "a", RECORD_ROLE_RECEIVER, "p1", "p3"));
	COMMAND(self, T0, -EEXIST, enrol_with(self, "c", RECORD_ROLE_DEVICE, "p2", NULL));
	/* A distributor brings its token's keys. */
	COMMAND(self, T0, -EINVAL, enrol_with(self, "a", RECORD_ROLE_DISTRIBUTOR, "p1", NULL));
	append("d1", "p1");
	append("d1", "rsa");
	COMMAND(self, T0, 0, enrol_with(self, "a", RECORD_ROLE_DISTRIBUTOR, "d1", NULL));
	COMMAND(self, T0, 0, enrol_with(self, "a", RECORD_ROLE_DISTRIBUTOR, "d1", NULL));
	ASSERT_STREQ(said, "unchanged id=a roles=device,receiver,distributor\n");
	COMMAND(self, T0, 0, enrol_with(self, "a", RECORD_ROLE_MANAGER, "p1", NULL));
	ASSERT_STREQ(said, "enrolled id=a roles=device,receiver,distributor,manager\n");

	/* After a revocation the id is free for another key. */
	COMMAND(self, T0, 0, revoke_party(&self->m, "a", PARTY_ANY_ROLE));
	COMMAND(self, T0, 0, enrol_with(self, "a", RECORD_ROLE_DEVICE, "p3", NULL));
}

TEST_F(token, admission_keys_and_clocks)
{
	struct enrol_party e = { .id = "a", .role = RECORD_ROLE_DEVICE, .generate = in_base("ka") };
	struct party a, b, again;

	e.clock = ENROL_NO_CLOCK;
	COMMAND(self, T0, 0, enrol_party(&self->m, &e));
	COMMAND(self, T0, 0, party_load(&self->m, "a", PARTY_ANY_ROLE, &a));
	EXPECT_EQ(a.admission_flags, BUNDLE_ADMISSION_NO_CLOCK);
	e.clock = ENROL_CLOCK_AS_IS;
	COMMAND(self, T0, 0, enrol_party(&self->m, &e));
	COMMAND(self, T0, 0, party_load(&self->m, "a", PARTY_ANY_ROLE, &again));
	EXPECT_EQ(again.admission_flags, BUNDLE_ADMISSION_NO_CLOCK);
	ASSERT_BYTES(again.k_adm, a.k_adm, sizeof(a.k_adm));
	e.clock = ENROL_CLOCK;
	COMMAND(self, T0, 0, enrol_party(&self->m, &e));
	COMMAND(self, T0, 0, party_load(&self->m, "a", PARTY_ANY_ROLE, &again));
	EXPECT_EQ(again.admission_flags, 0);

	COMMAND(self, T0, 0, enrol(self, "b", RECORD_ROLE_DEVICE));
	COMMAND(self, T0, 0, party_load(&self->m, "b", PARTY_ANY_ROLE, &b));
	EXPECT_NE(memcmp(a.k_adm, b.k_adm, sizeof(a.k_adm)), 0);
	EXPECT_FALSE(bytes_is_zero(bytes_of(b.k_adm, sizeof(b.k_adm))));
}

TEST_F(token, generated_keys)
{
	uint8_t first[1024], again[1024];
	size_t n;
	struct stat st;

	COMMAND(self, T0, 0, enrol(self, "r", RECORD_ROLE_RECEIVER));
	n = get(in_base("r/signing.pem"), first, sizeof(first));
	ASSERT_EQ(stat(in_base("r/encryption.pem"), &st), 0);
	EXPECT_EQ(st.st_mode & 0777, 0600);
	ASSERT_EQ(stat(in_base("r"), &st), 0);
	EXPECT_EQ(st.st_mode & 0777, 0700);

	/* Again: nothing is overwritten. Another role: the same files serve. */
	COMMAND(self, T0, 0, enrol(self, "r", RECORD_ROLE_RECEIVER));
	COMMAND(self, T0, 0, enrol(self, "r", RECORD_ROLE_DEVICE));
	ASSERT_EQ(get(in_base("r/signing.pem"), again, sizeof(again)), n);
	ASSERT_BYTES(first, again, n);

	/* The folder is gone: no new key for an old id. */
	ASSERT_EQ(rename(in_base("r"), in_base("moved")), 0);
	COMMAND(self, T0, -EEXIST, enrol(self, "r", RECORD_ROLE_RECEIVER));
	EXPECT_EQ(access(in_base("r"), F_OK), -1);

	/* What was made goes with a transaction that is rolled back; what was there stays. */
	open_at(self, T0);
	ASSERT_EQ(enrol(self, "x", RECORD_ROLE_RECEIVER), 0);
	EXPECT_EQ(access(in_base("x/encryption.pem"), F_OK), 0);
	done(self, -EIO, -EIO);
	EXPECT_EQ(access(in_base("x"), F_OK), -1);
	ASSERT_EQ(mkdir(in_base("x"), 0700), 0);
	make_key("x/signing.pem", "x/public");
	open_at(self, T0);
	ASSERT_EQ(enrol(self, "x", RECORD_ROLE_RECEIVER), 0);
	done(self, -EIO, -EIO);
	EXPECT_EQ(access(in_base("x/signing.pem"), F_OK), 0);
	EXPECT_EQ(access(in_base("x/encryption.pem"), F_OK), -1);

	/* A file that is no key is not overwritten. */
	put(in_base("x/encryption.pem"), "my notes\n");
	COMMAND(self, T0, -EINVAL, enrol(self, "x", RECORD_ROLE_RECEIVER));
	ASSERT_EQ(get(in_base("x/encryption.pem"), first, sizeof(first)), 9);
}

/* --- scopes -------------------------------------------------------------------------------- */

TEST_F(token, scopes)
{
	static const char *const bad[] = {
		"", "a#", "a/#/b", "+a", "$SYS/#", "$share/g/t", "\xff"
	};
	struct scope_terms t = { .name = "s",
				 .filters = { "b/+", "a/#" },
				 .n_filters = 2,
				 .suite = 2,
				 .rekey_messages = 1,
				 .rekey_seconds = 1 };
	struct scope *first = malloc(sizeof(*first)), *second = malloc(sizeof(*second));

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		COMMAND(self, T0, -EINVAL, add_scope(self, "bad", bad[i]));
	COMMAND(self, T0, -EINVAL, add_scope(self, "no name", "a"));
	COMMAND(self, T0, 0, scope_add(&self->m, &t));
	COMMAND(self, T0, 0, scope_load(&self->m, "s", first));
	t.filters[0] = "a/#"; /* the order does not matter */
	t.filters[1] = "b/+";
	COMMAND(self, T0 + 1, 0, scope_add(&self->m, &t));
	ASSERT_TRUE(!strncmp(said, "unchanged", 9));
	COMMAND(self, T0, 0, scope_load(&self->m, "s", second));
	EXPECT_EQ(first->record.key_id, second->record.key_id);
	ASSERT_BYTES(first->record.a.b, second->record.a.b, P256_POINT_BYTES);

	t.suite = 1;
	COMMAND(self, T0, -EEXIST, scope_add(&self->m, &t));
	t.suite = 2;
	t.filters[1] = "b/#";
	COMMAND(self, T0, -EEXIST, scope_add(&self->m, &t));
	t.filters[1] = "a/#";
	COMMAND(self, T0, -EINVAL, scope_add(&self->m, &t));

	/* A filter is one scope's; overlapping ones may be two's. Nothing is left of the refused.
	 */
	COMMAND(self, T0, -EEXIST, add_scope(self, "other", "a/#"));
	COMMAND(self, T0, -ESRCH, scope_load(&self->m, "other", second));
	COMMAND(self, T0, 0, add_scope(self, "other", "a/b"));
	COMMAND(self, T0, 0, scope_load(&self->m, "other", second));
	EXPECT_NE(first->record.key_id, second->record.key_id);
	EXPECT_NE(memcmp(first->record.a.b, second->record.a.b, P256_POINT_BYTES), 0);
	free(first);
	free(second);
}

TEST_F(token, scope_filter_limits)
{
	static char text[RECORD_FILTERS_MAX + 1][SCOPE_FILTER_BYTES_MAX + 2];
	struct scope_terms t = {
		.name = "wide", .suite = 1, .rekey_messages = 1, .rekey_seconds = 1
	};
	struct bundle_gateway b;
	struct record_scope s;

	for (unsigned i = 0; i < RECORD_FILTERS_MAX; i++) {
		memset(text[i], 'x', SCOPE_FILTER_BYTES_MAX);
		snprintf(text[i], 8, "%06u", i);
		text[i][6] = '/';
		t.filters[i] = text[i];
	}
	t.n_filters = RECORD_FILTERS_MAX;
	text[5][SCOPE_FILTER_BYTES_MAX] = 'x';
	COMMAND(self, T0, -EINVAL, scope_add(&self->m, &t));
	text[5][SCOPE_FILTER_BYTES_MAX] = '\0';
	COMMAND(self, T0, 0, scope_add(&self->m, &t));
	BUNDLE(self, T0, 0, bundle_make_gateway(&self->m, &no_terms, in_base("g")));
	ASSERT_EQ(bundle_gateway_decode(open_bundle(self, "g", STATEMENT_GATEWAY).body, &b), 0);
	ASSERT_EQ(bundle_gateway_next_scope(&b.scopes, &s), 0);
	EXPECT_EQ(s.n_filters, RECORD_FILTERS_MAX);
	EXPECT_EQ(s.filters[63].n, SCOPE_FILTER_BYTES_MAX);
}

TEST_F(token, a_scalar_opens_only_where_it_was_sealed)
{

	COMMAND(self, T0, 0, add_scope(self, "s1", "a"));
	COMMAND(self, T0, 0, add_scope(self, "s2", "b"));
	COMMAND(self, T0, 0, enrol(self, "r", RECORD_ROLE_RECEIVER));
	COMMAND(self, T0, 0, list_check(&self->m));
	/* Somebody who can write the file gives s1 the key of s2. */
	change_registry("UPDATE epoch SET (a, sealed) = (SELECT a, sealed FROM epoch WHERE"
			" scope = 's2') WHERE scope = 's1'");
	COMMAND(self, T0, -EIO, grant(self, "s1", "r", false));
	COMMAND(self, T0, 0, grant(self, "s2", "r", false));
	COMMAND(self, T0, -EIO, list_check(&self->m));
	/* Or another A alone, whose private half is the attacker's. */
	COMMAND(self, T0, 0, add_scope(self, "s3", "c"));
	change_registry("UPDATE epoch SET a = (SELECT signing FROM party) WHERE scope = 's3'");
	COMMAND(self, T0, -EIO, grant(self, "s3", "r", false));
}

TEST_F(token, permissions)
{
	char name[16], filter[16];

	COMMAND(self, T0, 0, enrol(self, "d", RECORD_ROLE_DEVICE));
	COMMAND(self, T0, 0, enrol(self, "r", RECORD_ROLE_RECEIVER));
	for (unsigned i = 0; i <= RECORD_SCOPES_MAX; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		snprintf(filter, sizeof(filter), "t/%u", i);
		COMMAND(self, T0, 0, add_scope(self, name, filter));
		COMMAND(self, T0, i < RECORD_SCOPES_MAX ? 0 : -EINVAL,
			access_allow(&self->m, name, "d"));
	}
	COMMAND(self, T0, 0, access_allow(&self->m, "s3", "d"));
	ASSERT_TRUE(!strncmp(said, "unchanged", 9));
	COMMAND(self, T0, 0, access_deny(&self->m, "s3", "d"));
	COMMAND(self, T0, 0, access_deny(&self->m, "s3", "d"));
	ASSERT_TRUE(!strncmp(said, "unchanged", 9));
	COMMAND(self, T0, -ESRCH, access_allow(&self->m, "s3", "nobody"));
	COMMAND(self, T0, -ESRCH, access_allow(&self->m, "s3", "r"));
	COMMAND(self, T0, -ESRCH, access_allow(&self->m, "none", "d"));
	COMMAND(self, T0, -ESRCH, access_deny(&self->m, "none", "d"));
}

/* --- grants and revocations ---------------------------------------------------------------- */

TEST_F(token, grants)
{
	struct access_grant g = { .scope = "hall", .receiver = "r-1", .proof = true };
	char first[sizeof(said)];

	make_world(self);
	COMMAND(self, T0, 0, access_grant(&self->m, &g));
	ASSERT_TRUE(!strncmp(said, "unchanged grant=", 16));
	snprintf(first, sizeof(first), "%s", said + 10);
	COMMAND(self, T0 + 1000, 0, access_grant(&self->m, &g));
	ASSERT_STREQ(said + 10, first);
	g.proof = false;
	COMMAND(self, T0, -EEXIST, access_grant(&self->m, &g));
	g.proof = true;
	g.valid_days = 1;
	COMMAND(self, T0, -EEXIST, access_grant(&self->m, &g));
	COMMAND(self, T0, 0, revoke_grant(&self->m, "hall", "r-1", NULL));
	COMMAND(self, T0, 0, access_grant(&self->m, &g));
	ASSERT_TRUE(!strncmp(said, "granted", 7));
	ASSERT_TRUE(strncmp(said + 8, first, 22)); /* fresh, with a fresh x */
	snprintf(first, sizeof(first), "%s", said + 8);
	COMMAND(self, T0 + 86399999, 0, access_grant(&self->m, &g));
	ASSERT_STREQ(said + 10, first);
	/* A day later it has run out: made anew. */
	COMMAND(self, T0 + 86400000, 0, access_grant(&self->m, &g));
	ASSERT_TRUE(!strncmp(said, "granted", 7));

	g.receiver = "dev-1";
	COMMAND(self, T0, -ESRCH, access_grant(&self->m, &g));
	g.receiver = "nobody";
	COMMAND(self, T0, -ESRCH, access_grant(&self->m, &g));
	g.receiver = "r-1";
	g.scope = "none";
	COMMAND(self, T0, -ESRCH, access_grant(&self->m, &g));
	g.scope = "hall";
	g.gateway = "other";
	COMMAND(self, T0, -ESRCH, access_grant(&self->m, &g));
}

TEST_F(token, a_scope_that_has_run_out_is_granted_to_nobody)
{
	struct scope_terms t = { .name = "short",
				 .filters = { "x" },
				 .n_filters = 1,
				 .suite = 1,
				 .valid_days = 1,
				 .rekey_messages = 1,
				 .rekey_seconds = 1 };

	COMMAND(self, T0, 0, enrol(self, "r", RECORD_ROLE_RECEIVER));
	COMMAND(self, T0, 0, scope_add(&self->m, &t));
	COMMAND(self, T0 + 86400000, -EINVAL, grant(self, "short", "r", false));
	COMMAND(self, T0 + 86399999, 0, grant(self, "short", "r", false));
}

TEST_F(token, several_gateways)
{
	struct access_grant g = { .scope = "hall", .receiver = "r-1", .gateway = "gw2" };
	const struct bundle_terms at2 = { .gateway = "gw2" };
	struct bundle_party b;

	make_world(self);
	enrol_second_gateway(self);
	COMMAND(self, T0, -EINVAL, grant(self, "hall", "r-1", true));
	EXPECT_TRUE(strstr(said, "--gateway") != NULL);
	BUNDLE(self, T0, -EINVAL, bundle_make_party(&self->m, &no_terms, "r-1", in_base("p")));
	COMMAND(self, T0, 0, access_grant(&self->m, &g));
	BUNDLE(self, T0, 0, bundle_make_party(&self->m, &at2, "r-1", in_base("p")));
	ASSERT_EQ(bundle_party_decode(open_bundle(self, "p", STATEMENT_BUNDLE).body, &b), 0);
	EXPECT_TRUE(bytes_equal(b.broker.gateway_id, bytes_str("gw2")));
	EXPECT_EQ(b.n_grants, 1);  /* that at gw is not in it */
	EXPECT_EQ(b.n_origins, 0); /* and here no proof is delivered */

	COMMAND(self, T0, 0, revoke_gateway(&self->m, "gw2"));
	COMMAND(self, T0, 0, revoke_gateway(&self->m, "gw2"));
	COMMAND(self, T0, -ESRCH, revoke_gateway(&self->m, "gw3"));
	BUNDLE(self, T0, -ESRCH, bundle_make_party(&self->m, &at2, "r-1", in_base("p")));
	COMMAND(self, T0, 0, list_check(&self->m));
}

TEST_F(token, revocations)
{
	struct bundle_gateway b;
	struct bundle_gateway_revoked v;

	make_world(self);
	COMMAND(self, T0, 0, add_scope(self, "yard", "yard"));
	COMMAND(self, T0, 0, grant(self, "yard", "r-1", false));
	COMMAND(self, T0 + 5, 0, revoke_party(&self->m, "r-1", RECORD_ROLE_RECEIVER));
	ASSERT_STREQ(said, "revoked id=r-1 roles=receiver\n");
	COMMAND(self, T0 + 6, 0, revoke_party(&self->m, "r-1", RECORD_ROLE_RECEIVER));
	ASSERT_STREQ(said, "unchanged id=r-1\n");
	COMMAND(self, T0, -ESRCH, revoke_party(&self->m, "r-11", RECORD_ROLE_RECEIVER));
	COMMAND(self, T0, -ESRCH, revoke_party(&self->m, "dev-1", RECORD_ROLE_RECEIVER));
	COMMAND(self, T0, -ESRCH, grant(self, "hall", "r-1", false));
	BUNDLE(self, T0 + 7, 0, bundle_make_gateway(&self->m, &no_terms, in_base("g")));
	ASSERT_EQ(bundle_gateway_decode(open_bundle(self, "g", STATEMENT_GATEWAY).body, &b), 0);
	EXPECT_EQ(b.n_parties, 2);
	EXPECT_EQ(b.n_grants, 1);
	ASSERT_EQ(b.n_revoked, 2); /* for each key id that it could read */
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(bundle_gateway_next_revoked(&b.revoked, &v), 0);
		EXPECT_EQ(v.revoked_at_ms, T0 + 5);
	}

	/* The last revocation counts, one entry a key id; it stays, hours and months later. */
	COMMAND(self, T0 + 9, 0, revoke_grant(&self->m, "hall", "r-2", NULL));
	COMMAND(self, T0 + 9, 0, revoke_grant(&self->m, "hall", "r-2", NULL));
	COMMAND(self, T0 + 9, -ESRCH, revoke_grant(&self->m, "yard", "r-2", NULL));
	COMMAND(self, T0 + 9, 0, revoke_party(&self->m, "dev-1", RECORD_ROLE_DEVICE));
	BUNDLE(self, T0 + 90 * 86400000ull, 0,
	       bundle_make_gateway(&self->m, &no_terms, in_base("g")));
	ASSERT_EQ(bundle_gateway_decode(open_bundle(self, "g", STATEMENT_GATEWAY).body, &b), 0);
	EXPECT_EQ(b.n_parties, 1);
	EXPECT_EQ(b.n_grants, 0);
	ASSERT_EQ(b.n_revoked, 2);
	ASSERT_EQ(bundle_gateway_next_revoked(&b.revoked, &v), 0);
	uint64_t sum = v.revoked_at_ms;
	ASSERT_EQ(bundle_gateway_next_revoked(&b.revoked, &v), 0);
	EXPECT_EQ(sum + v.revoked_at_ms, 2 * T0 + 5 + 9);
	COMMAND(self, T0, 0, list_check(&self->m));
}

TEST_F(token, one_role_revoked_leaves_the_other)
{
	struct party p;

	make_world(self);
	COMMAND(self, T0, 0, enrol(self, "r-1", RECORD_ROLE_DEVICE));
	COMMAND(self, T0, 0, access_allow(&self->m, "hall", "r-1"));
	COMMAND(self, T0, 0, revoke_party(&self->m, "r-1", RECORD_ROLE_RECEIVER));
	COMMAND(self, T0, 0, party_load(&self->m, "r-1", RECORD_ROLE_DEVICE, &p));
	EXPECT_FALSE(p.has_encryption);
	COMMAND(self, T0, 0, access_deny(&self->m, "hall", "r-1"));
	ASSERT_TRUE(!strncmp(said, "denied", 6)); /* the permission was still there */
	COMMAND(self, T0, 0, revoke_party(&self->m, "r-1", PARTY_ANY_ROLE));
	COMMAND(self, T0, -ESRCH, party_load(&self->m, "r-1", PARTY_ANY_ROLE, &p));
}

/* --- bundles ------------------------------------------------------------------------------- */

TEST_F(token, origins_only_with_proof)
{
	struct bundle_party b;
	struct record_party p;

	make_world(self);
	COMMAND(self, T0, 0, enrol(self, "dev-2", RECORD_ROLE_DEVICE));
	COMMAND(self, T0, 0, enrol(self, "dev-3", RECORD_ROLE_DEVICE));
	COMMAND(self, T0, 0, enrol(self, "r-2", RECORD_ROLE_DEVICE));
	COMMAND(self, T0, 0, add_scope(self, "yard", "yard"));
	COMMAND(self, T0, 0, access_allow(&self->m, "yard", "dev-1"));
	COMMAND(self, T0, 0, access_allow(&self->m, "yard", "dev-2"));
	COMMAND(self, T0, 0, access_allow(&self->m, "hall", "r-2"));
	BUNDLE(self, T0, 0, bundle_make_party(&self->m, &no_terms, "r-1", in_base("p")));
	ASSERT_EQ(bundle_party_decode(open_bundle(self, "p", STATEMENT_BUNDLE).body, &b), 0);
	EXPECT_EQ(b.n_scopes, 0);
	ASSERT_EQ(b.n_grants, 1);
	ASSERT_EQ(b.n_origins, 2); /* who may publish under hall, and nobody else */
	ASSERT_EQ(bundle_party_next_origin(&b.origins, &p), 0);
	EXPECT_TRUE(bytes_equal(p.id, bytes_str("dev-1")));
	ASSERT_EQ(p.n_scopes, 1); /* that it may publish under yard is none of r-1's business */
	EXPECT_TRUE(bytes_equal(p.scopes[0], bytes_str("hall")));
	ASSERT_EQ(bundle_party_next_origin(&b.origins, &p), 0);
	EXPECT_TRUE(bytes_equal(p.id, bytes_str("r-2")));
	EXPECT_EQ(p.roles, RECORD_ROLE_DEVICE);
	EXPECT_FALSE(p.has_encryption);

	BUNDLE(self, T0, 0, bundle_make_party(&self->m, &no_terms, "r-2", in_base("p")));
	ASSERT_EQ(bundle_party_decode(open_bundle(self, "p", STATEMENT_BUNDLE).body, &b), 0);
	EXPECT_EQ(b.n_scopes, 1);
	EXPECT_EQ(b.n_grants, 1);
	EXPECT_EQ(b.n_origins, 0);
}

TEST_F(token, serials_never_go_back)
{
	static uint8_t first[4096], second[4096];
	const struct bundle_terms two_days = { .valid_days = 2 };
	struct statement s;
	uint64_t serial;
	size_t n;

	make_world(self);
	BUNDLE(self, T0 + 50, 0, bundle_make_gateway(&self->m, &no_terms, in_base("g")));
	s = open_bundle(self, "g", STATEMENT_GATEWAY);
	serial = s.serial;
	EXPECT_EQ(serial, T0 + 50);
	EXPECT_EQ(s.not_before_ms, 0);
	EXPECT_EQ(s.not_after_ms, 0);
	n = s.body.n;
	memcpy(first, s.body.p, n);
	/* The same registry: the same body. The clock went back: the serial does not. */
	BUNDLE(self, T0, 0, bundle_make_gateway(&self->m, &two_days, in_base("g")));
	s = open_bundle(self, "g", STATEMENT_GATEWAY);
	EXPECT_EQ(s.serial, serial + 1);
	EXPECT_EQ(s.not_after_ms, T0 + 2 * 86400000ull);
	ASSERT_EQ(s.body.n, n);
	memcpy(second, s.body.p, n);
	ASSERT_BYTES(first, second, n);
	/* bundle all takes one for each. */
	BUNDLE(self, T0, 0, bundle_make_all(&self->m, &no_terms, in_base("out")));
	EXPECT_EQ(open_bundle(self, "out/gateway-gw.bundle", STATEMENT_GATEWAY).serial, serial + 2);
	EXPECT_EQ(open_bundle(self, "out/party-dev-1.bundle", STATEMENT_BUNDLE).serial, serial + 3);
	EXPECT_EQ(open_bundle(self, "out/party-r-2.bundle", STATEMENT_BUNDLE).serial, serial + 5);
	BUNDLE(self, T0, 0, bundle_make_party(&self->m, &no_terms, "r-1", in_base("p")));
	EXPECT_EQ(open_bundle(self, "p", STATEMENT_BUNDLE).serial, serial + 6);
}

TEST_F(token, a_failed_bundle_leaves_the_old_file)
{
	uint8_t before[4096], after[4096];
	struct stat st;
	size_t n;

	make_world(self);
	BUNDLE(self, T0, 0, bundle_make_gateway(&self->m, &no_terms, in_base("g")));
	ASSERT_EQ(stat(in_base("g"), &st), 0);
	EXPECT_EQ(st.st_mode & 0777, 0600);
	n = get(in_base("g"), before, sizeof(before));
	/* A key that is not on the curve, as only a damaged file has it: nothing is signed. */
	change_registry("UPDATE party SET signing = zeroblob(65) WHERE id = 'dev-1'");
	BUNDLE(self, T0, -EIO, bundle_make_gateway(&self->m, &no_terms, in_base("g")));
	ASSERT_EQ(get(in_base("g"), after, sizeof(after)), n);
	ASSERT_BYTES(before, after, n);
	BUNDLE(self, T0, -ESRCH, bundle_make_party(&self->m, &no_terms, "nobody", in_base("p")));
	EXPECT_EQ(access(in_base("p"), F_OK), -1);
	BUNDLE(self, T0, -ENOENT,
	       bundle_make_party(&self->m, &no_terms, "r-2", in_base("no/folder")));
}

/* 10,000 devices: enrolled, bundled and read back well within the test's time. */
TEST_F_TIMEOUT(token, ten_thousand_devices, 60)
{
	const unsigned n = harness_rounds(10000);
	struct bundle_gateway b;
	struct bundle_gateway_party p;
	struct party device = { .roles = RECORD_ROLE_DEVICE };
	struct secret32 k = { 0 };

	make_world(self);
	open_at(self, T0);
	for (unsigned i = 0; i < n; i++) {
		snprintf(device.id, sizeof(device.id), "many-%05u", i);
		bytes_store_u32(k.b + 28, i + 1);
		ASSERT_EQ(p256_mul_base(&k, &device.signing), 0);
		bytes_store_u32(device.k_adm, i);
		ASSERT_EQ(party_store(&self->m, &device), 0);
		ASSERT_EQ(access_allow(&self->m, "hall", device.id), 0);
	}
	done(self, 0, 0);
	BUNDLE(self, T0, 0, bundle_make_gateway(&self->m, &no_terms, in_base("g")));
	ASSERT_EQ(bundle_gateway_decode(open_bundle(self, "g", STATEMENT_GATEWAY).body, &b), 0);
	ASSERT_EQ(b.n_parties, n + 3);
	for (unsigned i = 0; i < b.n_parties; i++) {
		ASSERT_EQ(bundle_gateway_next_party(&b.parties, &p), 0);
		EXPECT_EQ(p.party.n_scopes, p.party.roles & RECORD_ROLE_DEVICE ? 1 : 0);
	}
	/* A receiver with proofs checks all of them. */
	BUNDLE(self, T0, 0, bundle_make_party(&self->m, &no_terms, "r-1", in_base("p")));
	struct bundle_party bp;
	ASSERT_EQ(bundle_party_decode(open_bundle(self, "p", STATEMENT_BUNDLE).body, &bp), 0);
	EXPECT_EQ(bp.n_origins, n + 1);
}

/* --- init and locks ------------------------------------------------------------------------ */

TEST_F(token, init_again_and_elsewhere)
{
	struct manager_config c = self->config;
	struct p256_point key;
	struct stat st;

	COMMAND(self, T0, 0, 0);
	open_at(self, T0);
	key = self->m.key;
	done(self, 0, 0);

	c.module = find_module();
	c.token_label = "mgr";
	c.pin_file = in_base("pin");
	ASSERT_EQ(unlink(in_base("state/manager.pub")), 0);
	ASSERT_EQ(setup_manager(&self->m, &c, false, T0), 0);
	manager_close(&self->m);
	ASSERT_EQ(stat(in_base("state/manager.pub"), &st), 0);
	EXPECT_EQ(st.st_mode & 0777, 0644);
	open_at(self, T0);
	ASSERT_BYTES(self->m.key.b, key.b, sizeof(key.b));
	done(self, 0, 0);

	c.token_label = "another";
	EXPECT_EQ(setup_manager(&self->m, &c, false, T0), -EEXIST);
	manager_close(&self->m);
	/* A second registry over the same keys would sign the same serials twice. */
	c.token_label = "mgr";
	c.dir = in_base("second");
	EXPECT_EQ(setup_manager(&self->m, &c, false, T0), -EEXIST);
	manager_close(&self->m);
	EXPECT_EQ(access(in_base("second"), F_OK), -1);
	EXPECT_EQ(setup_manager(&self->m, &c, true, T0), 0);
	manager_close(&self->m);
}

TEST_F(token, init_that_fails_leaves_nothing)
{
	struct manager_config c = { .dir = in_base("fresh"),
				    .module = find_module(),
				    .token_label = "none",
				    .pin_file = in_base("pin") };

	EXPECT_EQ(setup_manager(&self->m, &c, false, T0), -ENODEV);
	manager_close(&self->m);
	EXPECT_EQ(access(in_base("fresh"), F_OK), -1);
	c.pin_file = in_base("nopin");
	EXPECT_EQ(setup_manager(&self->m, &c, false, T0), -ENOENT);
	manager_close(&self->m);
	EXPECT_EQ(access(in_base("fresh"), F_OK), -1);
}

TEST_F(token, one_writer_at_a_time)
{
	struct manager other;

	open_at(self, T0);
	EXPECT_EQ(manager_open(&other, &self->config, MANAGER_WRITES, T0), -EBUSY);
	EXPECT_TRUE(strstr(other.error, "another ssdtf-admin") != NULL);
	manager_close(&other);
	ASSERT_EQ(manager_open(&other, &self->config, MANAGER_READS, T0), 0); /* reading goes on */
	manager_close(&other);
	done(self, 0, 0);
}

TEST_F(token, a_directory_that_others_may_enter)
{
	ASSERT_EQ(chmod(self->config.dir, 0750), 0);
	EXPECT_EQ(manager_open(&self->m, &self->config, MANAGER_READS, T0), -EACCES);
	EXPECT_TRUE(strstr(self->m.error, "chmod 700") != NULL);
	manager_close(&self->m);
	ASSERT_EQ(chmod(self->config.dir, 0700), 0);
}

int main(int argc, char **argv)
{
	return world_main(argc, argv);
}
