// SPDX-License-Identifier: MIT
#include "userspace/crypto/grant.h"

#include <string.h>

#include "userspace/crypto/hash.h"

#define LABEL	   "ssdtf-grant-1"
#define WIDE_BYTES 48 /* 16 more than the order, so that the remainder is not biased */

int grant_secret(const struct grant_terms *t, const struct secret32 *dh, struct secret32 *ret_d)
{
	struct bytes ikm = bytes_of(dh->b, sizeof(dh->b));
	uint8_t key_id[4], wide[WIDE_BYTES];
	struct bytes info[] = {
		bytes_str(LABEL),
		bytes_of(t->grant_id, GRANT_ID_BYTES),
		bytes_of(key_id, sizeof(key_id)),
		bytes_of(t->x.b, P256_POINT_BYTES),
		bytes_of(t->b.b, P256_POINT_BYTES),
	};
	struct secret32 prk SECRET = { 0 };
	int err;

	bytes_store_u32(key_id, t->key_id);
	hash_hkdf_extract(bytes_of(NULL, 0), &ikm, 1, &prk);
	hash_hkdf_expand(&prk, info, ARRAY_SIZE(info), wide, sizeof(wide));
	err = p256_scalar_from_wide(bytes_of(wide, sizeof(wide)), ret_d);
	secret_wipe(wide, sizeof(wide));
	return err;
}

int grant_secret_receiver(const struct grant_terms *t, const struct secret32 *b,
			  struct secret32 *ret_d)
{
	struct secret32 dh SECRET = { 0 };
	int err = p256_dh(b, &t->x, &dh);

	return err ? err : grant_secret(t, &dh, ret_d);
}

int grant_secret_manager(const struct grant_terms *t, const struct secret32 *x,
			 struct secret32 *ret_d)
{
	struct secret32 dh SECRET = { 0 };
	int err = p256_dh(x, &t->b, &dh);

	return err ? err : grant_secret(t, &dh, ret_d);
}

int grant_conversion_key(const struct secret32 *from, const struct secret32 *to,
			 struct secret32 *ret_rk)
{
	struct secret32 inverse SECRET = { 0 };
	int err = p256_scalar_invert(to, &inverse);

	return err ? err : p256_scalar_mul(from, &inverse, ret_rk);
}

int grant_convert(const struct secret32 *rk, const struct p256_point *e,
		  uint8_t ret_x[P256_X_BYTES])
{
	struct secret32 x SECRET = { 0 };
	int err = p256_dh(rk, e, &x);

	if (!err)
		memcpy(ret_x, x.b, P256_X_BYTES);
	return err;
}

int grant_dh(const struct secret32 *d, const uint8_t x[P256_X_BYTES], struct secret32 *ret_dh)
{
	struct p256_point p;
	int err = p256_point_lift(x, &p);

	return err ? err : p256_dh(d, &p, ret_dh);
}
