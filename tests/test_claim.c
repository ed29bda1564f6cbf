// SPDX-License-Identifier: MIT
/*
 * Claim codes, what is derived from them, and the device's messages (PROTOCOL 15): known values of
 * an independent implementation, round trips, and what is refused.
 */
#include <errno.h>

#include "tests/harness.h"
#include "userspace/base/text.h"
#include "userspace/bundle/claim.h"
#include "userspace/crypto/hash.h"
#include "userspace/crypto/hpke.h"

/* Made with Python's hmac and cryptography: id dev:1, secret 0..15, keys 2G and 4G, gateway gw-1 */
#define CODE                                                                                  \
	"SSDTF1:AQVkZXY6MQABAgMEBQYHCAkKCwwNDg8DfPJ7GI0DT36KUjgDBLUaw8CJaeJ38hs1pgtI_EdmmXgE" \
	"Z3ctMQLiU0o1MtCPu6At3mWe5ivQAx_i23hVlu9QkwJEawMIUg"
#define SIGNING "52122d108f9783b169d7288e0a8848283e4d95e755d1196c796a7b1181d3ba07"
#define K_ADM	"c30f87248dc9f81aaa9ad02b0a180e71"

static const uint8_t r_b[CLAIM_NONCE_BYTES] = { 1, 2, 3 };

static struct p256_point point_of(uint8_t scalar)
{
	struct secret32 k = { .b = { [31] = scalar } };
	struct p256_point p;

	ASSERT_EQ(p256_mul_base(&k, &p), 0);
	return p;
}

static struct claim_code sample_code(void)
{
	struct claim_code c = { .id = "dev:1", .gateway_id = "gw-1" };

	for (unsigned i = 0; i < sizeof(c.secret); i++)
		c.secret[i] = (uint8_t)i;
	c.manager = point_of(2);
	c.broker = point_of(4);
	return c;
}

TEST(code_is_as_documented)
{
	struct claim_code c = sample_code(), back;
	char text[CLAIM_CODE_SIZE];

	ASSERT_EQ(claim_code_encode(&c, text), 0);
	EXPECT_EQ(strcmp(text, CODE), 0);
	ASSERT_EQ(claim_code_decode(bytes_str(CODE), &back), 0);
	EXPECT_EQ(memcmp(&back, &c, sizeof(c)), 0);
}

TEST(keys_are_as_documented)
{
	struct claim_code c = sample_code();
	uint8_t k_adm[ADMISSION_KEY_BYTES];
	struct secret32 signing;
	char hex[TEXT_HEX_SIZE(32)];

	ASSERT_EQ(claim_keys(bytes_str(c.id), c.secret, &signing, k_adm), 0);
	EXPECT_EQ(strcmp(text_hex(bytes_of(signing.b, 32), hex), SIGNING), 0);
	EXPECT_EQ(strcmp(text_hex(bytes_of(k_adm, sizeof(k_adm)), hex), K_ADM), 0);
	/* Another id has other keys, even with the same secret. */
	ASSERT_EQ(claim_keys(bytes_str("dev:2"), c.secret, &signing, k_adm), 0);
	EXPECT_NE(strcmp(text_hex(bytes_of(signing.b, 32), hex), SIGNING), 0);
}

TEST(code_of_the_longest_ids)
{
	struct claim_code c = sample_code(), back;
	char text[CLAIM_CODE_SIZE];

	memset(c.id, 'i', RECORD_NAME_BYTES_MAX);
	memset(c.gateway_id, 'g', RECORD_NAME_BYTES_MAX);
	ASSERT_EQ(claim_code_encode(&c, text), 0);
	EXPECT_EQ(strlen(text), CLAIM_CODE_SIZE - 1);
	ASSERT_EQ(claim_code_decode(bytes_str(text), &back), 0);
	EXPECT_EQ(memcmp(&back, &c, sizeof(c)), 0);
	c.id[0] = ' ';
	EXPECT_EQ(claim_code_encode(&c, text), -EINVAL);
	c.id[0] = '\0';
	EXPECT_EQ(claim_code_encode(&c, text), -EINVAL);
}

/* The bytes beneath the text, with one of them changed. */
static int decode_with(size_t at, uint8_t value, struct claim_code *ret_c)
{
	uint8_t code[CLAIM_CODE_BYTES_MAX];
	char text[CLAIM_CODE_SIZE] = CLAIM_PREFIX;
	size_t begin = sizeof(CLAIM_PREFIX) - 1, n = (strlen(CODE) - begin) * 3 / 4;

	ASSERT_EQ(text_unb64u(bytes_of(CODE + begin, strlen(CODE) - begin), code, n), 0);
	ASSERT_LT(at, n);
	code[at] = value;
	text_b64u(bytes_of(code, n), text + begin);
	return claim_code_decode(bytes_str(text), ret_c);
}

TEST(codes_refused)
{
	struct claim_code c = { .id = "untouched" };
	char text[sizeof(CODE) + 8] = CODE;

	for (size_t n = 0; n < strlen(CODE); n++)
		ASSERT_EQ(claim_code_decode(bytes_of(CODE, n), &c), -EINVAL);
	text[sizeof(CODE) - 1] = 'A';
	for (size_t n = sizeof(CODE); n < sizeof(text); n++) {
		text[n] = 'A';
		ASSERT_EQ(claim_code_decode(bytes_of(text, n), &c), -EINVAL);
	}
	EXPECT_EQ(claim_code_decode(bytes_str(CODE "\n"), &c), -EINVAL);
	EXPECT_EQ(claim_code_decode(bytes_str("ssdtf1:" CODE), &c), -EINVAL);
	EXPECT_EQ(decode_with(0, 2, &c), -EINVAL);    /* version */
	EXPECT_EQ(decode_with(1, 0, &c), -EINVAL);    /* no id */
	EXPECT_EQ(decode_with(2, ' ', &c), -EINVAL);  /* no character of one */
	EXPECT_EQ(decode_with(23, 4, &c), -EINVAL);   /* the manager's key has another form */
	EXPECT_EQ(decode_with(57, '/', &c), -EINVAL); /* of the gateway's id */
	EXPECT_EQ(strcmp(c.id, "untouched"), 0);
	EXPECT_EQ(decode_with(2, 'D', &c), 0); /* this is how it looks where it holds */
	EXPECT_EQ(strcmp(c.id, "Dev:1"), 0);
}

static struct claim_request sample_request(const char *id)
{
	struct secret32 k = { .b = { [31] = 6 } };
	struct claim_request q = { .signing = point_of(6), .answer = point_of(7) };
	uint8_t digest[P256_DIGEST_BYTES];
	struct p256_private *key;

	ASSERT_EQ(p256_private_new(&k, &key), 0);
	claim_request_digest(&q, bytes_str(id), r_b, digest);
	ASSERT_EQ(p256_sign_digest(key, digest, q.sig), 0);
	p256_private_free(key);
	return q;
}

TEST(request)
{
	struct claim_request q = sample_request("dev:1"), back;
	uint8_t bytes[256], other_r_b[CLAIM_NONCE_BYTES] = { 9 };
	struct bytes_writer w = bytes_writer_of(bytes, sizeof(bytes));
	struct bytes_reader r;

	claim_request_write(&q, &w);
	ASSERT_FALSE(w.bad);
	ASSERT_EQ(w.used, 1 + 2 * P256_POINT_BYTES + P256_SIG_BYTES);
	r = bytes_reader_of(bytes_of(bytes, w.used));
	claim_request_read(&r, &back);
	ASSERT_TRUE(bytes_read_done(&r));
	EXPECT_EQ(memcmp(&back, &q, sizeof(q)), 0);
	EXPECT_EQ(claim_request_verify(&back, bytes_str("dev:1"), r_b), 0);
	EXPECT_EQ(claim_request_verify(&back, bytes_str("dev:2"), r_b), -EBADMSG);
	EXPECT_EQ(claim_request_verify(&back, bytes_str("dev:1"), other_r_b), -EBADMSG);
	back.answer = point_of(8);
	EXPECT_EQ(claim_request_verify(&back, bytes_str("dev:1"), r_b), -EBADMSG);
	/* Cut, of another kind, or with a key that is no point. */
	for (size_t n = 0; n < w.used; n++) {
		r = bytes_reader_of(bytes_of(bytes, n));
		claim_request_read(&r, &back);
		ASSERT_TRUE(r.bad);
	}
	for (size_t at = 0; at <= 1 + P256_POINT_BYTES; at += P256_POINT_BYTES) {
		bytes[at] ^= 2;
		r = bytes_reader_of(bytes_of(bytes, w.used));
		claim_request_read(&r, &back);
		EXPECT_TRUE(r.bad);
		bytes[at] ^= 2;
	}
}

TEST(answer)
{
	static const char bundle[] = "what the manager certifies";
	struct secret32 key = { .b = { [31] = 7 } }, other = { .b = { [31] = 8 } };
	struct claim_answer a = { .result = CLAIM_CERTIFIED, .text = bytes_str("welcome") }, back;
	uint8_t sealed[sizeof(bundle) + HPKE_TAG_BYTES], opened[sizeof(bundle)], bytes[256];
	struct bytes_writer w = bytes_writer_of(bytes, sizeof(bytes));
	struct p256_point to = point_of(7);
	struct bytes_reader r;

	ASSERT_EQ(claim_seal(&to, bytes_of(bundle, sizeof(bundle)), &a.enc, sealed), 0);
	a.sealed = bytes_of(sealed, sizeof(sealed));
	claim_answer_write(&a, &w);
	ASSERT_FALSE(w.bad);
	r = bytes_reader_of(bytes_of(bytes, w.used));
	claim_answer_read(&r, &back);
	ASSERT_TRUE(bytes_read_done(&r));
	EXPECT_EQ(back.result, CLAIM_CERTIFIED);
	EXPECT_TRUE(bytes_equal(back.text, a.text));
	ASSERT_EQ(back.sealed.n, sizeof(sealed));
	ASSERT_EQ(claim_open(&key, &back.enc, back.sealed, opened), 0);
	EXPECT_EQ(memcmp(opened, bundle, sizeof(bundle)), 0);
	EXPECT_EQ(claim_open(&other, &back.enc, back.sealed, opened), -EBADMSG);
	sealed[3] ^= 1;
	EXPECT_EQ(claim_open(&key, &a.enc, a.sealed, opened), -EBADMSG);
	EXPECT_EQ(claim_open(&key, &a.enc, bytes_of(sealed, 15), opened), -EBADMSG);
	a.enc = (struct p256_point){ { 0 } };
	EXPECT_EQ(claim_open(&key, &a.enc, a.sealed, opened), -EBADMSG);
	for (size_t n = 0; n < w.used; n++) {
		r = bytes_reader_of(bytes_of(bytes, n));
		claim_answer_read(&r, &back);
		ASSERT_TRUE(r.bad);
	}
	bytes[1] = CLAIM_TRY_AGAIN + 1;
	r = bytes_reader_of(bytes_of(bytes, w.used));
	claim_answer_read(&r, &back);
	EXPECT_TRUE(r.bad);
}

HARNESS_MAIN
