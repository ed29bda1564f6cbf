// SPDX-License-Identifier: MIT
/*
 * hsm/token.h on a real SoftHSM token: what the gateway's keys are, that conversion in the token is
 * conversion in software, every rung of the recovery ladder, and what the holder of the PIN tries
 * with the module in hand ("attack.*"; each must fail, and with the answer that is asserted).
 */
#include <errno.h>
#include <sys/file.h>
#include <sys/wait.h>

#include "hsm/keys.h"
#include "hsm/pin.h"
#include "tests/token_env.h"
#include "userspace/crypto/hash.h"

/* --- the token as ssdtf-hsmd and ssdtf-admin use it --- */

FIXTURE(token)
{
	struct token_env env;
	struct token *t;
};

FIXTURE_SETUP(token)
{
	token_env_make(&self->env);
	ASSERT_EQ(token_open(&self->env.config, &self->t), 0);
	token_env_learn(&self->env, self->t);
}

FIXTURE_TEARDOWN(token)
{
	token_close(self->t);
	token_env_remove(&self->env);
}

static unsigned long unwrap(struct fixture_token *self, const struct secret32 *rk)
{
	uint8_t blob[RSA_WRAPPED_BYTES_MAX];
	unsigned long handle = 0;
	size_t n = blob_of(&self->env, rk, blob);

	ASSERT_EQ(token_unwrap(self->t, TOKEN_LABEL_UNWRAP, bytes_of(blob, n), &handle), 0);
	return handle;
}

static void expect_converts(struct token *t, unsigned long handle, const struct secret32 *rk)
{
	uint8_t x[P256_X_BYTES], want[P256_X_BYTES];
	struct p256_point e;

	random_point(&e);
	ASSERT_EQ(grant_convert(rk, &e, want), 0);
	ASSERT_EQ(token_convert(t, handle, e.b, x), 0);
	ASSERT_BYTES(x, want, sizeof(x));
}

static int try_convert(struct token *t, unsigned long handle)
{
	uint8_t x[P256_X_BYTES];
	struct p256_point e;

	random_point(&e);
	return token_convert(t, handle, e.b, x);
}

static int try_sign(struct token *t)
{
	uint8_t digest[P256_DIGEST_BYTES] = { 1 }, sig[P256_SIG_BYTES];

	return token_sign(t, TOKEN_LABEL_SIGN, digest, sig);
}

/* PROTOCOL 3: the token's x(rk * E) is software's. */
TEST_F(token, converts_as_software_does)
{
	for (unsigned i = 0; i < 20; i++) {
		struct secret32 rk;
		unsigned long handle;

		random_scalar(&rk);
		handle = unwrap(self, &rk);
		for (unsigned k = 0; k < 5; k++)
			expect_converts(self->t, handle, &rk);
		token_forget(self->t, handle);
		ASSERT_EQ(try_convert(self->t, handle), -ENOKEY);
	}
}

TEST_F_TIMEOUT(token, keeps_leading_zeros_of_x, 60)
{
	uint8_t want[P256_X_BYTES], x[P256_X_BYTES];
	struct p256_point e;
	struct secret32 rk;
	unsigned long handle;

	random_scalar(&rk);
	handle = unwrap(self, &rk);
	do {
		random_point(&e);
		ASSERT_EQ(grant_convert(&rk, &e, want), 0);
	} while (want[0]);
	ASSERT_EQ(token_convert(self->t, handle, e.b, x), 0);
	ASSERT_BYTES(x, want, sizeof(x));
}

TEST_F(token, signs)
{
	uint8_t digest[P256_DIGEST_BYTES], sig[P256_SIG_BYTES];
	struct p256_point point;
	struct p256_public *key;

	ASSERT_EQ(token_signing_public(self->t, TOKEN_LABEL_SIGN, &point), 0);
	ASSERT_EQ(p256_public_new(&point, &key), 0);
	for (unsigned i = 0; i < 20; i++) {
		hash_random(digest, sizeof(digest));
		ASSERT_EQ(token_sign(self->t, TOKEN_LABEL_SIGN, digest, sig), 0);
		ASSERT_EQ(p256_verify_digest(key, digest, sig), 0);
		digest[7] ^= 1;
		ASSERT_EQ(p256_verify_digest(key, digest, sig), -EBADMSG);
	}
	p256_public_free(key);
}

TEST_F(token, generates_once)
{
	struct p256_point before, after;

	ASSERT_EQ(token_signing_public(self->t, TOKEN_LABEL_SIGN, &before), 0);
	ASSERT_EQ(token_generate_signing(self->t, TOKEN_LABEL_SIGN, &after), -EEXIST);
	ASSERT_EQ(token_generate_unwrapping(self->t, TOKEN_LABEL_UNWRAP), -EEXIST);
	ASSERT_EQ(token_generate_store(self->t, "test-store"), 0);
	ASSERT_EQ(token_generate_store(self->t, "test-store"), -EEXIST);
	ASSERT_EQ(token_signing_public(self->t, "no-such-key", &after), -ENOKEY);
	ASSERT_EQ(token_generate_signing(self->t, "another-key", &after), 0);
	ASSERT_TRUE(memcmp(&before, &after, sizeof(before)));
}

TEST_F(token, keeps_the_unwrapping_key_s_promise)
{
	ASSERT_EQ(token_check_unwrapping(self->t, TOKEN_LABEL_UNWRAP), 0);
}

TEST_F(token, store_seals_and_opens)
{
	uint8_t plain[TOKEN_STORE_BYTES_MAX], opened[sizeof(plain)];
	static uint8_t sealed[sizeof(plain) + TOKEN_STORE_OVERHEAD];
	static const size_t lengths[] = { 1, 32, 33, TOKEN_STORE_BYTES_MAX };
	struct bytes aad = bytes_str("scope 7");

	ASSERT_EQ(token_generate_store(self->t, "test-store"), 0);
	hash_random(plain, sizeof(plain));
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		size_t n = lengths[i];

		ASSERT_EQ(token_store_seal(self->t, "test-store", aad, bytes_of(plain, n), sealed),
			  0);
		ASSERT_EQ(token_store_open(self->t, "test-store", aad,
					   bytes_of(sealed, n + TOKEN_STORE_OVERHEAD), opened),
			  0);
		ASSERT_BYTES(opened, plain, n);
	}
	/* Nonce, ciphertext, tag, associated data, length: nothing may differ. */
	ASSERT_EQ(token_store_seal(self->t, "test-store", aad, bytes_of(plain, 32), sealed), 0);
	for (size_t at = 0; at < 32 + TOKEN_STORE_OVERHEAD; at += 7) {
		sealed[at] ^= 0x10;
		ASSERT_EQ(token_store_open(self->t, "test-store", aad,
					   bytes_of(sealed, 32 + TOKEN_STORE_OVERHEAD), opened),
			  -EBADMSG);
		sealed[at] ^= 0x10;
	}
	ASSERT_EQ(token_store_open(self->t, "test-store", bytes_str("scope 8"),
				   bytes_of(sealed, 32 + TOKEN_STORE_OVERHEAD), opened),
		  -EBADMSG);
	for (size_t n = 0; n < 32 + TOKEN_STORE_OVERHEAD; n += 9)
		ASSERT_EQ(token_store_open(self->t, "test-store", aad, bytes_of(sealed, n), opened),
			  -EBADMSG);
	ASSERT_EQ(token_store_seal(self->t, "test-store", aad,
				   bytes_of(plain, TOKEN_STORE_BYTES_MAX + 1), sealed),
		  -EINVAL);
	ASSERT_EQ(token_store_open(self->t, "test-store", aad,
				   bytes_of(sealed, 32 + TOKEN_STORE_OVERHEAD), opened),
		  0);
}

static int unwrap_bytes(struct fixture_token *self, const void *plain, size_t n)
{
	uint8_t blob[RSA_WRAPPED_BYTES_MAX];
	unsigned long handle;
	int wrapped = rsa_wrap(bytes_of(self->env.spki, self->env.spki_n), bytes_of(plain, n), blob,
			       sizeof(blob));

	ASSERT_GT(wrapped, 0);
	return token_unwrap(self->t, TOKEN_LABEL_UNWRAP, bytes_of(blob, (size_t)wrapped), &handle);
}

/* A bad blob is the blob's fault, though SoftHSM answers as if it were broken itself. */
TEST_F(token, refuses_bad_blobs)
{
	/* secp384r1, scalar 0x11.. */
	uint8_t p384[80] = { 0x30, 0x4e, 0x02, 0x01, 0x00, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86,
			     0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
			     0x22, 0x04, 0x37, 0x30, 0x35, 0x02, 0x01, 0x01, 0x04, 0x30 };
	static const uint8_t order[] = { 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00,
					 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
					 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84,
					 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51 };
	uint8_t pkcs8[P256_PKCS8_BYTES], blob[RSA_WRAPPED_BYTES_MAX];
	struct secret32 rk, good;
	unsigned long alive, handle;
	size_t n;

	random_scalar(&good);
	alive = unwrap(self, &good);
	memset(p384 + 32, 0x11, 48);
	ASSERT_EQ(unwrap_bytes(self, p384, sizeof(p384)), -EBADMSG);
	memset(rk.b, 0, sizeof(rk.b)); /* no scalar; some tokens take it */
	p256_pkcs8(&rk, pkcs8);
	ASSERT_EQ(unwrap_bytes(self, pkcs8, sizeof(pkcs8)), -EBADMSG);
	memcpy(rk.b, order, sizeof(order));
	p256_pkcs8(&rk, pkcs8);
	ASSERT_EQ(unwrap_bytes(self, pkcs8, sizeof(pkcs8)), -EBADMSG);
	ASSERT_EQ(unwrap_bytes(self, good.b, sizeof(good.b)), -EBADMSG); /* a bare scalar */
	p256_pkcs8(&good, pkcs8);
	ASSERT_EQ(unwrap_bytes(self, pkcs8, sizeof(pkcs8) - 1), -EBADMSG);

	n = blob_of(&self->env, &good, blob);
	for (size_t at = 0; at < n; at += 37) {
		blob[at] ^= 4;
		ASSERT_EQ(token_unwrap(self->t, TOKEN_LABEL_UNWRAP, bytes_of(blob, n), &handle),
			  -EBADMSG);
		blob[at] ^= 4;
	}
	ASSERT_EQ(token_unwrap(self->t, TOKEN_LABEL_UNWRAP, bytes_of(blob, n - 1), &handle),
		  -EBADMSG);
	ASSERT_EQ(token_unwrap(self->t, TOKEN_LABEL_UNWRAP, bytes_of(blob, 0), &handle), -EBADMSG);
	/* None of it cost the key that was there before. */
	expect_converts(self->t, alive, &good);
}

/* --- keys.h: blobs kept, session objects in turn --- */

static void expect_key_converts(struct fixture_token *self, struct keys *k, const uint8_t *id,
				const struct secret32 *rk)
{
	unsigned long handle;

	ASSERT_EQ(keys_handle(k, self->t, id, &handle), 0);
	expect_converts(self->t, handle, rk);
}

TEST_F(token, keys_unwrap_as_used)
{
	enum { GRANTS = 9, BLOBS = 6, SESSIONS = 3 };
	uint8_t blob[GRANTS][RSA_WRAPPED_BYTES_MAX], ids[GRANTS][GRANT_ID_BYTES] = { 0 };
	struct secret32 rk[GRANTS];
	unsigned long handle;
	struct keys k;

	ASSERT_EQ(keys_init(&k, BLOBS, SESSIONS), 0);
	for (unsigned i = 0; i < GRANTS; i++) {
		random_scalar(&rk[i]);
		ids[i][7] = (uint8_t)i;
		(void)blob_of(&self->env, &rk[i], blob[i]);
		ASSERT_EQ(keys_load(&k, self->t, ids[i], bytes_of(blob[i], 384)), 0);
	}
	ASSERT_EQ(k.blobs.n, BLOBS);
	for (unsigned i = 0; i < GRANTS - BLOBS; i++)
		ASSERT_EQ(keys_handle(&k, self->t, ids[i], &handle), -ENOENT);
	for (unsigned round = 0; round < 40; round++) {
		unsigned i = GRANTS - BLOBS + (unsigned)(harness_random() % BLOBS);

		expect_key_converts(self, &k, ids[i], &rk[i]);
		ASSERT_LE(k.sessions.n, SESSIONS);
	}
	/* What gives way is gone from the token, too. */
	ASSERT_EQ(keys_handle(&k, self->t, ids[3], &handle), 0);
	for (unsigned i = 4; i < 4 + SESSIONS; i++)
		expect_key_converts(self, &k, ids[i], &rk[i]);
	ASSERT_EQ(try_convert(self->t, handle), -ENOKEY);
	/* The same blob again costs nothing; another takes its place. */
	ASSERT_EQ(keys_handle(&k, self->t, ids[8], &handle), 0);
	ASSERT_EQ(keys_load(&k, self->t, ids[8], bytes_of(blob[8], 384)), 0);
	expect_converts(self->t, handle, &rk[8]);
	ASSERT_EQ(keys_load(&k, self->t, ids[8], bytes_of(blob[0], 384)), 0);
	ASSERT_EQ(try_convert(self->t, handle), -ENOKEY);
	expect_key_converts(self, &k, ids[8], &rk[0]);

	ASSERT_EQ(keys_handle(&k, self->t, ids[7], &handle), 0);
	keys_forget(&k, self->t, ids[7]);
	ASSERT_EQ(try_convert(self->t, handle), -ENOKEY);
	ASSERT_EQ(keys_handle(&k, self->t, ids[7], &handle), -ENOENT);

	blob[7][100] ^= 1;
	ASSERT_EQ(keys_load(&k, self->t, ids[7], bytes_of(blob[7], 384)), 0);
	ASSERT_EQ(keys_handle(&k, self->t, ids[7], &handle), -EBADMSG);
	ASSERT_EQ(keys_handle(&k, self->t, ids[7], &handle), -EBADMSG);
	blob[7][100] ^= 1;
	ASSERT_EQ(keys_load(&k, self->t, ids[7], bytes_of(blob[7], 384)), 0);
	expect_key_converts(self, &k, ids[7], &rk[7]);
	keys_deinit(&k);
}

/* --- the ladder --- */

/* As ssdtf-hsmd climbs it: until it holds, within a few rungs. */
static void recover(struct token *t, bool *ret_lost)
{
	*ret_lost = false;
	for (unsigned rungs = 0; try_sign(t); rungs++) {
		bool lost;

		ASSERT_LT(rungs, 4);
		ASSERT_EQ(token_recover(t, &lost), 0);
		*ret_lost |= lost;
	}
}

static void log_out(struct ck_function_list *f, ck_slot_id_t slot)
{
	ck_session_handle_t session;

	/* Logins are the process's: another session of it logs all of them out. */
	ASSERT_EQ(f->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &session), CKR_OK);
	ASSERT_EQ(f->C_Logout(session), CKR_OK);
	ASSERT_EQ(f->C_CloseSession(session), CKR_OK);
}

static void close_sessions(struct ck_function_list *f, ck_slot_id_t slot)
{
	ASSERT_EQ(f->C_CloseAllSessions(slot), CKR_OK);
}

static void finalize(struct ck_function_list *f, ck_slot_id_t slot)
{
	ASSERT_EQ(f->C_Finalize(NULL), CKR_OK);
}

TEST_F(token, recovers_what_is_pulled_from_under_it)
{
	void (*const pulls[])(struct ck_function_list * f, ck_slot_id_t slot) = {
		log_out, close_sessions, finalize, close_sessions, log_out,
	};

	for (size_t i = 0; i < ARRAY_SIZE(pulls); i++) {
		struct ck_function_list *f = raw_module();
		struct secret32 rk;
		unsigned long handle;
		bool lost;

		random_scalar(&rk);
		handle = unwrap(self, &rk);
		expect_converts(self->t, handle, &rk);
		pulls[i](f, (ck_slot_id_t)raw_slot(f, TOKEN_ENV_LABEL));
		ASSERT_NE(try_convert(self->t, handle), 0);
		recover(self->t, &lost);
		ASSERT_TRUE(lost);
		expect_converts(self->t, unwrap(self, &rk), &rk);
		ASSERT_EQ(try_sign(self->t), 0);
	}
}

TEST_F(token, recovers_when_the_token_comes_back)
{
	struct secret32 rk;
	unsigned long handle;
	bool lost;

	random_scalar(&rk);
	handle = unwrap(self, &rk);
	ASSERT_EQ(try_sign(self->t), 0);
	ASSERT_EQ(rename(self->env.tokens, self->env.aside), 0);
	ASSERT_NE(try_sign(self->t), 0);
	for (unsigned i = 0; i < 5; i++)
		ASSERT_EQ(token_recover(self->t, &lost), -ENODEV);
	ASSERT_EQ(try_sign(self->t), -ENODEV);
	ASSERT_EQ(try_convert(self->t, handle), -ENODEV);
	ASSERT_EQ(rename(self->env.aside, self->env.tokens), 0);
	recover(self->t, &lost);
	ASSERT_TRUE(lost);
	expect_converts(self->t, unwrap(self, &rk), &rk);
}

/* Away and back before anybody looked: SoftHSM's handles are void for ever, until it is finalised.
 */
TEST_F(token, recovers_when_the_token_was_away)
{
	bool lost;

	ASSERT_EQ(try_sign(self->t), 0);
	ASSERT_EQ(rename(self->env.tokens, self->env.aside), 0);
	ASSERT_NE(try_sign(self->t), 0);
	ASSERT_EQ(rename(self->env.aside, self->env.tokens), 0);
	recover(self->t, &lost);
	ASSERT_EQ(token_check_unwrapping(self->t, TOKEN_LABEL_UNWRAP), 0);
}

TEST_F(token, recycles)
{
	struct secret32 rk;
	unsigned long handle;

	random_scalar(&rk);
	for (unsigned i = 0; i < 5; i++) {
		handle = unwrap(self, &rk);
		expect_converts(self->t, handle, &rk);
		ASSERT_EQ(token_recycle(self->t), 0);
		ASSERT_NE(try_convert(self->t, handle), 0);
		ASSERT_EQ(try_sign(self->t), 0);
	}
}

/* --- opening --- */

FIXTURE(opening)
{
	struct token_env env;
};

FIXTURE_SETUP(opening)
{
	token_env_make(&self->env);
}

FIXTURE_TEARDOWN(opening)
{
	token_env_remove(&self->env);
}

static int open_and_close(const struct token_config *c)
{
	struct token *t = NULL;
	int rc = token_open(c, &t);

	token_close(t);
	return rc;
}

static void wait_for_byte(int fd)
{
	char byte;

	ASSERT_EQ(read(fd, &byte, 1), 1);
}

/* In a process of its own, as the module is in use here: takes the signing key away when told so,
 * and makes another when told again. */
static void replace_key(struct token_env *env, int told, int done)
{
	struct p256_point public;
	struct token *t;
	struct raw r;

	wait_for_byte(told);
	raw_open(&r);
	ASSERT_EQ(r.f->C_DestroyObject(r.session, raw_find(&r, TOKEN_LABEL_SIGN, CKO_PRIVATE_KEY)),
		  CKR_OK);
	ASSERT_EQ(r.f->C_DestroyObject(r.session, raw_find(&r, TOKEN_LABEL_SIGN, CKO_PUBLIC_KEY)),
		  CKR_OK);
	raw_close(&r);
	ASSERT_EQ(write(done, "d", 1), 1);
	wait_for_byte(told);
	ASSERT_EQ(token_open(&env->config, &t), 0);
	ASSERT_EQ(token_generate_signing(t, TOKEN_LABEL_SIGN, &public), 0);
	token_close(t);
	ASSERT_EQ(write(done, "d", 1), 1);
}

/* Void once, a handle was lost with something else and is looked up again; twice in a row, the
 * module is started afresh. */
TEST_F(opening, recovers_from_a_key_taken_away)
{
	int told[2], done[2], status;
	struct p256_point before, after;
	unsigned long handle;
	struct fixture_token token = { .env = self->env };
	struct secret32 rk;
	bool lost;
	pid_t pid;

	ASSERT_EQ(pipe(told) | pipe(done), 0);
	pid = fork();
	if (!pid) {
		replace_key(&self->env, told[0], done[1]);
		_exit(0);
	}
	ASSERT_EQ(token_open(&self->env.config, &token.t), 0);
	token_env_learn(&token.env, token.t);
	ASSERT_EQ(token_signing_public(token.t, TOKEN_LABEL_SIGN, &before), 0);
	ASSERT_EQ(try_sign(token.t), 0);
	random_scalar(&rk);
	handle = unwrap(&token, &rk);

	ASSERT_EQ(write(told[1], "t", 1), 1);
	wait_for_byte(done[0]);
	ASSERT_EQ(try_sign(token.t), -ENOKEY);
	ASSERT_EQ(token_recover(token.t, &lost), 0);
	ASSERT_TRUE(lost);
	ASSERT_EQ(try_sign(token.t), -ENOKEY);
	ASSERT_STREQ(token_error(token.t), "no object labelled \"" TOKEN_LABEL_SIGN "\"");
	ASSERT_EQ(token_recover(token.t, &lost), 0);
	ASSERT_EQ(try_convert(token.t, handle), -ENOKEY); /* with the module's first life */
	ASSERT_EQ(try_sign(token.t), -ENOKEY);

	ASSERT_EQ(write(told[1], "t", 1), 1);
	wait_for_byte(done[0]);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	ASSERT_EQ(status, 0);
	ASSERT_EQ(try_sign(token.t), 0);
	ASSERT_EQ(token_signing_public(token.t, TOKEN_LABEL_SIGN, &after), 0);
	ASSERT_TRUE(memcmp(&before, &after, sizeof(before)));
	token_close(token.t);
}

/* A PIN that was refused is not tried again, not by us and not by the next process, until its file
 * is another. */
TEST_F(opening, tries_a_wrong_pin_once)
{
	struct token_config c = self->env.config;
	struct token_env other = self->env;

	write_file(self->env.pin, "0815\n", 0600);
	ASSERT_EQ(open_and_close(&c), -EACCES);
	ASSERT_STREQ(token_open_error(), "C_Login: CKR_PIN_INCORRECT");
	ASSERT_EQ(open_and_close(&c), -EKEYREJECTED);
	ASSERT_EQ(open_and_close(&c), -EKEYREJECTED);
	ASSERT_EQ(utimensat(AT_FDCWD, self->env.pin, NULL, 0), 0);
	ASSERT_EQ(open_and_close(&c), -EACCES);
	ASSERT_EQ(open_and_close(&c), -EKEYREJECTED);
	/* The right PIN beside it is none of the note's business. */
	path_in(self->env.dir, "pin2", other.pin);
	write_file(other.pin, TOKEN_ENV_PIN "\n", 0600);
	c.pin_file = other.pin;
	ASSERT_EQ(open_and_close(&c), 0);
	write_file(self->env.pin, TOKEN_ENV_PIN "\n", 0600);
	ASSERT_EQ(open_and_close(&self->env.config), 0);
}

TEST_F(opening, wants_a_private_pin_file)
{
	struct token_config c = self->env.config;
	char overlong[PIN_BYTES_MAX + 2];

	for (unsigned mode = 0; mode < 0777; mode++) {
		ASSERT_EQ(chmod(self->env.pin, 0600 | mode), 0);
		c.pin_credential = false;
		if (mode & 077)
			ASSERT_EQ(open_and_close(&c), -EPERM);
		c.pin_credential = true;
		if (mode & 07)
			ASSERT_EQ(open_and_close(&c), -EPERM);
	}
	ASSERT_EQ(chmod(self->env.pin, 0440), 0);
	c.pin_credential = true;
	ASSERT_EQ(open_and_close(&c), 0);
	c.pin_credential = false;

	write_file(self->env.pin, "", 0600);
	ASSERT_EQ(open_and_close(&c), -EINVAL);
	write_file(self->env.pin, "\n" TOKEN_ENV_PIN "\n", 0600);
	ASSERT_EQ(open_and_close(&c), -EINVAL);
	memset(overlong, '1', sizeof(overlong));
	overlong[sizeof(overlong) - 1] = '\0';
	write_file(self->env.pin, overlong, 0600);
	ASSERT_EQ(open_and_close(&c), -EINVAL);
	write_file(self->env.pin, TOKEN_ENV_PIN, 0600); /* no end of line */
	ASSERT_EQ(open_and_close(&c), 0);
	write_file(self->env.pin, TOKEN_ENV_PIN "\nsecond line\n", 0600);
	ASSERT_EQ(open_and_close(&c), 0);

	ASSERT_EQ(unlink(self->env.pin), 0);
	ASSERT_EQ(open_and_close(&c), -ENOENT);
	ASSERT_EQ(mkfifo(self->env.pin, 0600), 0);
	ASSERT_EQ(open_and_close(&c), -EPERM);
	ASSERT_EQ(unlink(self->env.pin), 0);
	ASSERT_EQ(mkdir(self->env.pin, 0700), 0);
	ASSERT_EQ(open_and_close(&c), -EPERM);
}

TEST_F(opening, says_what_is_missing)
{
	struct token_config c = self->env.config;

	c.label = "elsewhere";
	ASSERT_EQ(open_and_close(&c), -ENODEV);
	ASSERT_STREQ(token_open_error(), "no token labelled \"elsewhere\"");
	c.label = "gate"; /* a beginning is not the label */
	ASSERT_EQ(open_and_close(&c), -ENODEV);
	c.label = "";
	ASSERT_EQ(open_and_close(&c), -EINVAL);
	c.label = "a label that is longer than PKCS#11 has room for";
	ASSERT_EQ(open_and_close(&c), -EINVAL);
	c = self->env.config;
	c.module = "/nonexistent/module.so";
	ASSERT_EQ(open_and_close(&c), -ENODEV);
	c.module = "libc.so.6"; /* a library, but no module */
	ASSERT_EQ(open_and_close(&c), -ENODEV);
	raw_make_token(TOKEN_ENV_LABEL);
	ASSERT_EQ(open_and_close(&self->env.config), -EINVAL);
	ASSERT_STREQ(token_open_error(), "2 tokens are labelled \"" TOKEN_ENV_LABEL "\"");
}

TEST_F(opening, refuses_a_module_in_use)
{
	struct token *t;

	ASSERT_EQ(token_open(&self->env.config, &t), 0);
	ASSERT_EQ(open_and_close(&self->env.config), -EBUSY);
	ASSERT_EQ(try_sign(t), 0);
	token_close(t);
	ASSERT_EQ(open_and_close(&self->env.config), 0);
}

/* Without the lock, processes that initialise together miss the token about one time in five. */
TEST_F_TIMEOUT(opening, many_processes_together, 60)
{
	enum { PROCESSES = 4, TIMES = 15 };

	for (unsigned i = 0; i < PROCESSES; i++) {
		if (fork())
			continue;
		for (unsigned k = 0; k < TIMES; k++)
			ASSERT_EQ(open_and_close(&self->env.config), 0);
		_exit(0);
	}
	for (unsigned i = 0; i < PROCESSES; i++) {
		int status;

		ASSERT_GT(wait(&status), 0);
		ASSERT_EQ(status, 0);
	}
}

TEST_F(opening, does_not_hang_on_the_lock)
{
	int fd = open(self->env.lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(flock(fd, LOCK_EX), 0);
	ASSERT_EQ(open_and_close(&self->env.config), -ENODEV);
	close(fd);
	ASSERT_EQ(open_and_close(&self->env.config), 0);
}

/* --- the holder of the PIN, with the module in hand --- */

FIXTURE(attack)
{
	struct token_env env;
	struct raw raw;
	ck_object_handle_t rsa, rk;
	uint8_t blob[RSA_WRAPPED_BYTES_MAX];
	size_t blob_n;
};

#define LINE_BOOL(type, v)                     \
	{                                      \
		type, &(unsigned char){ v }, 1 \
	}
#define LINE_ULONG(type, v)                                        \
	{                                                          \
		type, &(unsigned long){ v }, sizeof(unsigned long) \
	}
/* What the unwrapping key's CKA_UNWRAP_TEMPLATE asks for; see hsm/token_impl.h. */
#define HONEST                                                                                   \
	LINE_ULONG(CKA_CLASS, CKO_PRIVATE_KEY), LINE_ULONG(CKA_KEY_TYPE, CKK_EC),                \
		LINE_BOOL(CKA_TOKEN, 0), LINE_BOOL(CKA_PRIVATE, 1), LINE_BOOL(CKA_SENSITIVE, 1), \
		LINE_BOOL(CKA_EXTRACTABLE, 0), LINE_BOOL(CKA_DERIVE, 1), LINE_BOOL(CKA_SIGN, 0), \
		LINE_BOOL(CKA_COPYABLE, 0), LINE_BOOL(CKA_MODIFIABLE, 0)
#define HONEST_LINES 10

static struct ck_rsa_pkcs_oaep_params oaep = { .hash_alg = CKM_SHA_1,
					       .mgf = CKG_MGF1_SHA1,
					       .source = CKZ_DATA_SPECIFIED };
static struct ck_mechanism mech_oaep = { CKM_RSA_PKCS_OAEP, &oaep, sizeof(oaep) };
static struct ck_mechanism mech_pkcs = { CKM_RSA_PKCS, NULL, 0 };
static struct ck_mechanism mech_raw_rsa = { CKM_RSA_X_509, NULL, 0 };
static struct ck_mechanism mech_ecdsa = { CKM_ECDSA, NULL, 0 };

static ck_rv_t attack_unwrap(struct fixture_attack *self, struct ck_mechanism *m,
			     struct ck_attribute *template, size_t n, ck_object_handle_t *ret_key)
{
	return self->raw.f->C_UnwrapKey(self->raw.session, m, self->rsa, self->blob, self->blob_n,
					template, n, ret_key);
}

FIXTURE_SETUP(attack)
{
	struct ck_attribute honest[] = { HONEST };
	struct secret32 rk;
	struct token *t;

	token_env_make(&self->env);
	ASSERT_EQ(token_open(&self->env.config, &t), 0);
	token_env_learn(&self->env, t);
	random_scalar(&rk);
	self->blob_n = blob_of(&self->env, &rk, self->blob);
	token_close(t);
	raw_open(&self->raw);
	self->rsa = raw_find(&self->raw, TOKEN_LABEL_UNWRAP, CKO_PRIVATE_KEY);
	ASSERT_EQ(attack_unwrap(self, &mech_oaep, honest, HONEST_LINES, &self->rk), CKR_OK);
}

FIXTURE_TEARDOWN(attack)
{
	raw_close(&self->raw);
	token_env_remove(&self->env);
}

static bool raw_bool(struct fixture_attack *self, ck_object_handle_t key, ck_attribute_type_t type)
{
	unsigned char v = 2;
	struct ck_attribute a = { type, &v, 1 };

	ASSERT_EQ(self->raw.f->C_GetAttributeValue(self->raw.session, key, &a, 1), CKR_OK);
	ASSERT_LT(v, 2);
	return v;
}

/* Not an attack, but what all of them meet. */
TEST_F(attack, meets_these_attributes)
{
	static const struct {
		ck_attribute_type_t type;
		bool sign, unwrap;
	} wanted[] = {
		{ CKA_TOKEN, true, true },	   { CKA_PRIVATE, true, true },
		{ CKA_SENSITIVE, true, true },	   { CKA_ALWAYS_SENSITIVE, true, true },
		{ CKA_EXTRACTABLE, false, false }, { CKA_NEVER_EXTRACTABLE, true, true },
		{ CKA_LOCAL, true, true },	   { CKA_MODIFIABLE, false, false },
		{ CKA_COPYABLE, false, false },	   { CKA_SIGN, true, false },
		{ CKA_UNWRAP, false, true },	   { CKA_DECRYPT, false, false },
		{ CKA_DERIVE, false, false },	   { CKA_SIGN_RECOVER, false, false },
	};
	ck_object_handle_t sign = raw_find(&self->raw, TOKEN_LABEL_SIGN, CKO_PRIVATE_KEY);
	ck_mechanism_type_t allowed[4];
	struct ck_attribute a = { CKA_ALLOWED_MECHANISMS, allowed, sizeof(allowed) };

	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		ASSERT_EQ(raw_bool(self, sign, wanted[i].type), wanted[i].sign);
		ASSERT_EQ(raw_bool(self, self->rsa, wanted[i].type), wanted[i].unwrap);
	}
	ASSERT_EQ(self->raw.f->C_GetAttributeValue(self->raw.session, self->rsa, &a, 1), CKR_OK);
	ASSERT_EQ(a.value_len, sizeof(allowed[0]));
	ASSERT_EQ(allowed[0], CKM_RSA_PKCS_OAEP);
	a.value_len = sizeof(allowed);
	ASSERT_EQ(self->raw.f->C_GetAttributeValue(self->raw.session, sign, &a, 1), CKR_OK);
	ASSERT_EQ(a.value_len, sizeof(allowed[0]));
	ASSERT_EQ(allowed[0], CKM_ECDSA);
}

/*
 * The blob unwrapped as anything but what it is to be: an attribute changed, left out, given twice.
 * SoftHSM fills in TOKEN=0 and PRIVATE=1 for who leaves them out, which is what they must be.
 */
TEST_F(attack, unwrap_with_another_attribute)
{
	static const struct {
		ck_attribute_type_t type;
		unsigned char v;
		ck_rv_t left_out;
	} changes[] = {
		{ CKA_SENSITIVE, 0, CKR_TEMPLATE_INCONSISTENT },
		{ CKA_EXTRACTABLE, 1, CKR_TEMPLATE_INCONSISTENT },
		{ CKA_SIGN, 1, CKR_TEMPLATE_INCONSISTENT },
		{ CKA_MODIFIABLE, 1, CKR_TEMPLATE_INCONSISTENT },
		{ CKA_COPYABLE, 1, CKR_TEMPLATE_INCONSISTENT },
		{ CKA_DERIVE, 0, CKR_TEMPLATE_INCONSISTENT },
		{ CKA_TOKEN, 1, CKR_OK },
		{ CKA_PRIVATE, 0, CKR_OK },
	};

	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		struct ck_attribute changed[] = { HONEST }, left_out[] = { HONEST },
				    twice[] = { HONEST, LINE_BOOL(changes[i].type, changes[i].v) },
				    before[] = { LINE_BOOL(changes[i].type, changes[i].v), HONEST };
		ck_object_handle_t key = CK_INVALID_HANDLE;
		size_t at = 0;

		while (changed[at].type != changes[i].type)
			at++;
		changed[at].value = raw_bytes(&changes[i].v);
		ASSERT_EQ(attack_unwrap(self, &mech_oaep, changed, HONEST_LINES, &key),
			  CKR_TEMPLATE_INCONSISTENT);
		ASSERT_EQ(attack_unwrap(self, &mech_oaep, twice, HONEST_LINES + 1, &key),
			  CKR_TEMPLATE_INCONSISTENT);
		memmove(&left_out[at], &left_out[at + 1],
			(HONEST_LINES - 1 - at) * sizeof(left_out[0]));
		ASSERT_EQ(attack_unwrap(self, &mech_oaep, left_out, HONEST_LINES - 1, &key),
			  changes[i].left_out);
		if (changes[i].left_out == CKR_OK)
			ASSERT_NE(raw_bool(self, key, changes[i].type), changes[i].v);
		/* Of two, the last counts: again the one that it must be. */
		ASSERT_EQ(attack_unwrap(self, &mech_oaep, before, HONEST_LINES + 1, &key),
			  changes[i].left_out);
		if (changes[i].left_out == CKR_OK)
			ASSERT_NE(raw_bool(self, key, changes[i].type), changes[i].v);
	}
}

TEST_F(attack, unwrap_as_a_generic_secret)
{
	struct ck_attribute bare[] = { LINE_ULONG(CKA_CLASS, CKO_SECRET_KEY),
				       LINE_ULONG(CKA_KEY_TYPE, CKK_GENERIC_SECRET),
				       LINE_BOOL(CKA_TOKEN, 0),
				       LINE_BOOL(CKA_SENSITIVE, 0),
				       LINE_BOOL(CKA_EXTRACTABLE, 1),
				       LINE_BOOL(CKA_DERIVE, 1) };
	struct ck_attribute polite[] = { HONEST };
	ck_object_handle_t key;
	unsigned long class = CKO_SECRET_KEY, type = CKK_GENERIC_SECRET;

	ASSERT_EQ(attack_unwrap(self, &mech_oaep, bare, ARRAY_SIZE(bare), &key),
		  CKR_TEMPLATE_INCONSISTENT);
	polite[0].value = &class;
	polite[1].value = &type;
	ASSERT_EQ(attack_unwrap(self, &mech_oaep, polite, HONEST_LINES, &key),
		  CKR_TEMPLATE_INCONSISTENT);
	type = CKK_AES;
	ASSERT_EQ(attack_unwrap(self, &mech_oaep, polite, HONEST_LINES, &key),
		  CKR_TEMPLATE_INCONSISTENT);
}

TEST_F(attack, unwrap_with_another_mechanism)
{
	struct ck_attribute honest[] = { HONEST };
	ck_object_handle_t key;

	ASSERT_EQ(attack_unwrap(self, &mech_pkcs, honest, HONEST_LINES, &key),
		  CKR_MECHANISM_INVALID);
	ASSERT_EQ(attack_unwrap(self, &mech_raw_rsa, honest, HONEST_LINES, &key),
		  CKR_MECHANISM_INVALID);
}

TEST_F(attack, decrypt_the_blob)
{
	struct ck_function_list *f = self->raw.f;

	ASSERT_EQ(f->C_DecryptInit(self->raw.session, &mech_oaep, self->rsa),
		  CKR_KEY_FUNCTION_NOT_PERMITTED);
	ASSERT_EQ(f->C_DecryptInit(self->raw.session, &mech_pkcs, self->rsa),
		  CKR_KEY_FUNCTION_NOT_PERMITTED);
	ASSERT_EQ(f->C_DecryptInit(self->raw.session, &mech_raw_rsa, self->rsa),
		  CKR_KEY_FUNCTION_NOT_PERMITTED);
	/* A raw signature is a raw decryption. */
	ASSERT_EQ(f->C_SignInit(self->raw.session, &mech_raw_rsa, self->rsa),
		  CKR_KEY_FUNCTION_NOT_PERMITTED);
}

/* Every change that would open one of the ways above, to the key itself and in a copy of it. */
TEST_F(attack, weaken_a_key)
{
	struct ck_attribute changes[] = {
		LINE_BOOL(CKA_DECRYPT, 1),
		LINE_BOOL(CKA_SIGN, 1),
		LINE_BOOL(CKA_SENSITIVE, 0),
		LINE_BOOL(CKA_EXTRACTABLE, 1),
		LINE_BOOL(CKA_DERIVE, 1),
		LINE_BOOL(CKA_MODIFIABLE, 1),
		LINE_BOOL(CKA_COPYABLE, 1),
		LINE_BOOL(CKA_TOKEN, 0),
		LINE_BOOL(CKA_TOKEN, 1),
		{ CKA_UNWRAP_TEMPLATE, NULL, 0 },
		{ CKA_ALLOWED_MECHANISMS, NULL, 0 },
	};
	const ck_object_handle_t keys[] = {
		self->rsa,
		self->rk,
		raw_find(&self->raw, TOKEN_LABEL_SIGN, CKO_PRIVATE_KEY),
	};

	for (size_t k = 0; k < ARRAY_SIZE(keys); k++) {
		for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
			ck_object_handle_t copy;

			ASSERT_EQ(self->raw.f->C_SetAttributeValue(self->raw.session, keys[k],
								   &changes[i], 1),
				  CKR_ACTION_PROHIBITED);
			ASSERT_EQ(self->raw.f->C_CopyObject(self->raw.session, keys[k], &changes[i],
							    1, &copy),
				  CKR_ACTION_PROHIBITED);
		}
	}
}

TEST_F(attack, wrap_a_key_under_a_fresh_one)
{
	struct ck_mechanism gen = { CKM_AES_KEY_GEN, NULL, 0 };
	struct ck_mechanism kw = { CKM_AES_KEY_WRAP, NULL, 0 }, kwp = { 0x210a, NULL, 0 };
	struct ck_attribute template[] = { LINE_BOOL(CKA_TOKEN, 0), LINE_BOOL(CKA_WRAP, 1),
					   LINE_ULONG(CKA_VALUE_LEN, 32) };
	const ck_object_handle_t keys[] = {
		self->rk,
		self->rsa,
		raw_find(&self->raw, TOKEN_LABEL_SIGN, CKO_PRIVATE_KEY),
	};
	ck_object_handle_t aes;
	unsigned char out[4096];

	ASSERT_EQ(self->raw.f->C_GenerateKey(self->raw.session, &gen, template,
					     ARRAY_SIZE(template), &aes),
		  CKR_OK);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		unsigned long n = sizeof(out);

		ASSERT_EQ(self->raw.f->C_WrapKey(self->raw.session, &kw, aes, keys[i], out, &n),
			  CKR_KEY_UNEXTRACTABLE);
		n = sizeof(out);
		ASSERT_EQ(self->raw.f->C_WrapKey(self->raw.session, &kwp, aes, keys[i], out, &n),
			  CKR_KEY_UNEXTRACTABLE);
	}
}

TEST_F(attack, read_a_private_value)
{
	static const ck_attribute_type_t rsa_values[] = { CKA_PRIVATE_EXPONENT, CKA_PRIME_1,
							  CKA_PRIME_2,		CKA_EXPONENT_1,
							  CKA_EXPONENT_2,	CKA_COEFFICIENT };
	unsigned char out[4096];
	struct ck_attribute a = { CKA_VALUE, out, sizeof(out) };

	ASSERT_EQ(self->raw.f->C_GetAttributeValue(self->raw.session, self->rk, &a, 1),
		  CKR_ATTRIBUTE_SENSITIVE);
	a.value_len = sizeof(out);
	ASSERT_EQ(self->raw.f->C_GetAttributeValue(
			  self->raw.session,
			  raw_find(&self->raw, TOKEN_LABEL_SIGN, CKO_PRIVATE_KEY), &a, 1),
		  CKR_ATTRIBUTE_SENSITIVE);
	for (size_t i = 0; i < ARRAY_SIZE(rsa_values); i++) {
		a = (struct ck_attribute){ rsa_values[i], out, sizeof(out) };
		ASSERT_EQ(self->raw.f->C_GetAttributeValue(self->raw.session, self->rsa, &a, 1),
			  CKR_ATTRIBUTE_SENSITIVE);
	}
}

TEST_F(attack, use_a_key_for_what_it_is_not)
{
	ck_object_handle_t sign = raw_find(&self->raw, TOKEN_LABEL_SIGN, CKO_PRIVATE_KEY), derived;
	struct p256_point e;
	struct ck_ecdh1_derive_params params = { .kdf = CKD_NULL,
						 .public_data_len = sizeof(e.b),
						 .public_data = e.b };
	struct ck_mechanism ecdh = { CKM_ECDH1_DERIVE, &params, sizeof(params) };
	struct ck_attribute readable[] = { LINE_ULONG(CKA_CLASS, CKO_SECRET_KEY),
					   LINE_ULONG(CKA_KEY_TYPE, CKK_GENERIC_SECRET),
					   LINE_ULONG(CKA_VALUE_LEN, 32),
					   LINE_BOOL(CKA_SENSITIVE, 0) };

	random_point(&e);
	/* A conversion key signs nothing, the signing key converts nothing. */
	ASSERT_EQ(self->raw.f->C_SignInit(self->raw.session, &mech_ecdsa, self->rk),
		  CKR_KEY_FUNCTION_NOT_PERMITTED);
	ASSERT_EQ(self->raw.f->C_DeriveKey(self->raw.session, &ecdh, sign, readable,
					   ARRAY_SIZE(readable), &derived),
		  CKR_KEY_FUNCTION_NOT_PERMITTED);
	/* Not even the PIN's holder gets a wrong point past the module. */
	e.b[64] ^= 1;
	ASSERT_EQ(self->raw.f->C_DeriveKey(self->raw.session, &ecdh, self->rk, readable,
					   ARRAY_SIZE(readable), &derived),
		  CKR_GENERAL_ERROR);
}

int main(int argc, char **argv)
{
	return token_env_main(argc, argv);
}
