// SPDX-License-Identifier: MIT
#include "userspace/manager/bundle_make_impl.h"

#include <errno.h>
#include <string.h>

#include "userspace/base/secret.h"
#include "userspace/crypto/hash.h"
#include "userspace/manager/outlet.h"

#define COUNT_BYTES sizeof(uint16_t)

/* Where it subscribes (its hops say so), and where it publishes (its outlets do, if there are any).
 */
static int load_gateways(struct bundle_work *k, const char *id, struct gateway *to)
{
	struct registry_query q =
		registry_query(&k->m->registry,
			       "SELECT (SELECT min(gateway) FROM grants WHERE receiver = ?1"
			       " AND from_id IS NULL AND secret IS NOT NULL),"
			       " (SELECT min(gateway) FROM outlet WHERE distributor = ?1)");
	char from_id[MANAGER_ID_ROOM] = "", to_id[MANAGER_ID_ROOM] = "";
	int err;

	registry_bind_text(&q, id);
	if (registry_step(&q)) {
		registry_text(&q, 0, from_id, sizeof(from_id));
		registry_text(&q, 1, to_id, sizeof(to_id));
	}
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(k->m, err);
	if (!from_id[0])
		return manager_fail(k->m, -ESRCH,
				    "distributor \"%s\": no hop leads to it: make one with hop",
				    id);
	err = gateway_load(k->m, from_id, &k->gateway);
	return err ? err : gateway_load(k->m, to_id[0] ? to_id : from_id, to);
}

static int put_head(struct bundle_work *k, const char *id)
{
	struct bundle_distributor head = { .trace = k->trace };
	struct gateway to;
	int err = party_load(k->m, id, RECORD_ROLE_DISTRIBUTOR, &k->party);

	if (!err && !k->party.unwrap_bytes)
		return manager_fail(
			k->m, -EINVAL,
			"distributor \"%s\": is enrolled without its token's unwrapping "
			"key; enrol it again with what `ssdtf-hsmd keygen` prints",
			id);
	if (!err)
		err = load_gateways(k, id, &to);
	if (err)
		return err;
	gateway_record(&k->gateway, &head.from);
	gateway_record(&to, &head.to);
	head.id = bytes_str(k->party.id);
	head.signing = k->party.signing;
	hash_one(bytes_of(k->party.unwrap, k->party.unwrap_bytes), head.unwrap_key_hash);
	head.admission_flags = k->party.admission_flags;
	memcpy(head.k_adm, k->party.k_adm, sizeof(head.k_adm));
	bundle_distributor_write_head(&head, &k->w);
	secret_wipe(&head, sizeof(head));
	return 0;
}

static int put_hops(struct bundle_work *k, const char *id)
{
	struct registry_query q = registry_query(&k->m->registry, GRANTS_SQL
						 " WHERE g.from_id IS NULL AND g.secret IS NOT NULL"
						 " AND g.receiver = ? AND" GRANTS_IN_FORCE
						 " ORDER BY g.key_id, g.next IS NULL, g.id");
	uint8_t *count = bundle_make_section(k, COUNT_BYTES);
	struct record_grant r;
	uint32_t n = 0;
	int err = 0, end;

	registry_bind_text(&q, id);
	registry_bind_int(&q, (int64_t)k->m->now_ms);
	while (!err && registry_step(&q)) {
		err = bundle_make_read_grant(k, &q, &r);
		if (!err)
			bundle_distributor_write_hop(&r, &k->w);
		n++;
	}
	end = registry_end(&q);
	bundle_make_count(k, count, COUNT_BYTES, n);
	return err ? err : manager_fail_registry(k->m, end);
}

static int put_outlet(struct bundle_work *k, struct registry_query *q)
{
	struct bundle_outlet out = { 0 };
	struct outlet o;
	int err = bundle_make_read_grant(k, q, &out.grant);

	if (!err)
		err = outlet_load(k->m, k->grant.outlet, &o);
	if (err)
		return err;
	out.wrapped_rk = bytes_of(k->grant.wrapped, k->grant.wrapped_bytes);
	out.name = bytes_str(o.name);
	out.prefix = bytes_str(o.prefix);
	out.domain = bytes_str(o.domain);
	out.rotate_seconds = o.rotate_seconds;
	bundle_distributor_write_outlet(&out, &k->w);
	return 0;
}

static int put_outlets(struct bundle_work *k, const char *id)
{
	struct registry_query q =
		registry_query(&k->m->registry,
			       GRANTS_SQL " WHERE g.upstream = ? AND" GRANTS_IN_FORCE
					  " ORDER BY g.outlet, g.key_id, g.next IS NULL, g.id");
	uint8_t *count = bundle_make_section(k, COUNT_BYTES);
	uint32_t n = 0;
	int err = 0, end;

	registry_bind_text(&q, id);
	registry_bind_int(&q, (int64_t)k->m->now_ms);
	while (!err && registry_step(&q)) {
		err = put_outlet(k, &q);
		n++;
	}
	end = registry_end(&q);
	bundle_make_count(k, count, COUNT_BYTES, n);
	return err ? err : manager_fail_registry(k->m, end);
}

static int read_back(const struct bundle_work *k)
{
	struct bundle_distributor b;
	struct bundle_outlet o;
	struct record_grant g;
	struct record_party p;
	int err = bundle_distributor_decode(bytes_of(k->body, k->w.used), &b);

	for (uint16_t i = 0; !err && i < b.n_hops; i++)
		err = bundle_distributor_next_hop(&b.hops, &g);
	for (uint16_t i = 0; !err && i < b.n_outlets; i++)
		err = bundle_distributor_next_outlet(&b.outlets, &o);
	for (uint32_t i = 0; !err && i < b.n_origins; i++)
		err = bundle_distributor_next_origin(&b.origins, &p);
	secret_wipe(&b, sizeof(b));
	return err;
}

int bundle_make_distributor_body(struct bundle_work *k, const char *id)
{
	int err;

	bundle_make_begin(k);
	err = put_head(k, id);
	if (!err)
		err = put_hops(k, id);
	if (!err)
		err = put_outlets(k, id);
	if (!err)
		err = bundle_make_origins(k, id, sizeof(uint32_t));
	if (!err)
		err = bundle_make_end(k, id);
	return !err && read_back(k) ? bundle_make_damaged(k) : err;
}
