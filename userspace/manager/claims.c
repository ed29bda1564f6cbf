// SPDX-License-Identifier: MIT
#include "userspace/manager/claims.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/secret.h"
#include "userspace/bundle/relay.h"
#include "userspace/crypto/publish.h"
#include "userspace/manager/party.h"
#include "userspace/manager/session.h"
#include "userspace/manager/update.h"

#define NOTE_MS 60000 /* between two notes about refusals of one party */

/* --- the registry's row ----------------------------------------------------------------------- */

struct row {
	bool found, claimed;
	struct p256_point signing; /* where it is claimed */
	uint64_t after_serial;
};

static int load_row(struct manager *m, const char *id, struct row *ret_row)
{
	struct registry_query q = registry_query(
		&m->registry,
		"SELECT state = 'claimed', signing, after_serial FROM claim WHERE party = ?");
	struct row row = { 0 };
	int err;

	registry_bind_text(&q, id);
	row.found = registry_step(&q);
	row.claimed = registry_int(&q, 0) != 0;
	if (row.claimed)
		registry_copy(&q, 1, row.signing.b, sizeof(row.signing.b));
	row.after_serial = (uint64_t)registry_int(&q, 2);
	err = manager_fail_registry(m, registry_end(&q));
	if (!err)
		*ret_row = row;
	return err;
}

/* The last serial that was given out: a bundle made from now on has a higher one. */
static int last_serial(struct manager *m, uint64_t *ret_serial)
{
	char text[24] = "0";
	int err = registry_setting(&m->registry, "serial", text, sizeof(text));

	if (err && err != -ENOENT)
		return manager_fail_registry(m, err);
	*ret_serial = strtoull(text, NULL, 10);
	return 0;
}

static int store_row(struct manager *m, const char *id, const struct p256_point *key,
		     uint64_t after_serial)
{
	struct registry_query q =
		registry_query(&m->registry,
			       "UPDATE claim SET state = 'claimed', signing = ?, claimed_ms = ?,"
			       " after_serial = ? WHERE party = ?");

	registry_bind_blob(&q, bytes_of(key->b, sizeof(key->b)));
	registry_bind_int(&q, (int64_t)m->now_ms);
	registry_bind_int(&q, (int64_t)after_serial);
	registry_bind_text(&q, id);
	return manager_fail_registry(m, registry_run(&q));
}

static int is_applied(struct manager *m, const char *gateway, uint64_t after_serial, bool *ret_is)
{
	struct registry_query q = registry_query(
		&m->registry, "SELECT applied_serial > ? FROM online WHERE gateway = ?");
	bool is;

	registry_bind_int(&q, (int64_t)after_serial);
	registry_bind_text(&q, gateway);
	is = registry_step(&q) && registry_int(&q, 0);
	*ret_is = is;
	return manager_fail_registry(m, registry_end(&q));
}

/* --- what the device said --------------------------------------------------------------------- */

struct said {
	struct relay_forward forward;
	struct publish_trailer trailer;
	struct claim_request request;
	uint8_t r_b[CLAIM_NONCE_BYTES];
};

static int read_said(struct bytes forward, struct said *ret_s)
{
	struct bytes_reader r;
	int err = relay_read_forward(forward, &ret_s->forward);

	if (!err)
		err = publish_split(ret_s->forward.payload, &ret_s->trailer);
	if (err || ret_s->trailer.kind != 1)
		return -EBADMSG;
	r = bytes_reader_of(ret_s->trailer.body);
	claim_request_read(&r, &ret_s->request);
	bytes_read_copy(&r, ret_s->r_b, sizeof(ret_s->r_b));
	(void)bytes_read_u32(&r); /* the broker has looked at it */
	return bytes_read_done(&r) ? 0 : -EBADMSG;
}

/* By the key that the party is enrolled with: until it has claimed, the code's. */
static int check_sender(const struct said *s, const struct p256_point *key)
{
	const struct publish p = {
		.first = s->forward.first,
		.topic = bytes_str(CLAIM_TOPIC),
		.properties = s->forward.properties,
		.body = { s->trailer.body },
		.body_parts = 1,
		.client_id = s->forward.id,
	};
	struct p256_public *public;
	int err = p256_public_new(key, &public);

	if (err)
		return err;
	err = publish_verify(&p, &s->trailer, public);
	p256_public_free(public);
	return err;
}

/* --- the decision ----------------------------------------------------------------------------- */

/* Another key than the first is what somebody does who found the code. */
static int refuse_other_key(struct manager *m, struct claims_one *c)
{
	uint64_t at = 0;
	int err = manager_noted(m, "claim refused", c->id, &at);

	if (!err && m->now_ms - at >= NOTE_MS)
		err = manager_note(m, "claim refused", c->id, "another key");
	c->result = CLAIM_REFUSED;
	c->text = "it was claimed before, with another key";
	return err;
}

static int certify(struct manager *m, struct party *party, const struct said *s)
{
	uint64_t serial = 0;
	int err = last_serial(m, &serial);

	party->signing = s->request.signing;
	party->flags &= (uint8_t)~RECORD_PARTY_CLAIM;
	if (!err)
		err = party_store(m, party);
	if (!err)
		err = update_party(m, party->id);
	if (!err)
		err = store_row(m, party->id, &s->request.signing, serial);
	return err ? err : manager_note(m, "claim", party->id, "");
}

/* NULL: its claim is good, as far as it is known. A text: it is refused. */
static const char *find_fault(const struct row *row, const struct party *party,
			      const struct said *s, const char *owner)
{
	if (!row->claimed && check_sender(s, &party->signing))
		return "it is not signed by the code's key";
	if (claim_request_verify(&s->request, s->forward.id, s->r_b))
		return "its new key did not sign it";
	return owner[0] ? "its new key is another's" : NULL;
}

static int decide(struct manager *m, const char *gateway, const struct said *s,
		  struct claims_one *c)
{
	char owner[MANAGER_ID_ROOM];
	struct party party;
	struct row row = { 0 };
	bool found = false;
	int err = party_find(m, c->id, &party, &found);

	if (!err && found)
		err = load_row(m, c->id, &row);
	if (!err)
		err = party_key_owner(m, c->id, &s->request.signing, owner);
	if (err)
		return err;
	c->result = CLAIM_REFUSED;
	if (!row.found || (!row.claimed && !(party.flags & RECORD_PARTY_CLAIM))) {
		c->text = "there is nothing for it to claim";
		return 0;
	}
	c->text = find_fault(&row, &party, s, owner);
	if (c->text)
		return 0;
	if (row.claimed && memcmp(row.signing.b, s->request.signing.b, sizeof(row.signing.b)) != 0)
		return refuse_other_key(m, c);
	/* Its key may have been rotated since: then the claim is a thing of the past. */
	if (row.claimed && memcmp(party.signing.b, row.signing.b, sizeof(row.signing.b)) != 0) {
		c->text = "it has another key by now";
		return 0;
	}
	c->result = CLAIM_CERTIFIED;
	c->text = "";
	c->answer = s->request.answer;
	if (row.claimed)
		return is_applied(m, gateway, row.after_serial, &c->in_force);
	return certify(m, &party, s);
}

int claims_decide(struct manager *m, const char *gateway, struct bytes forward,
		  struct claims_one *ret_c)
{
	struct said s;
	int err = read_said(forward, &s);

	if (err)
		return err;
	*ret_c = (struct claims_one){ .text = "" };
	(void)snprintf(ret_c->id, sizeof(ret_c->id), "%.*s", (int)s.forward.id.n,
		       (const char *)s.forward.id.p);
	return decide(m, gateway, &s, ret_c);
}

/* --- the answer ------------------------------------------------------------------------------- */

static int say(const struct claims_one *c, const struct claim_answer *a, struct session *s)
{
	size_t room = RELAY_DECISION_BYTES(a->sealed.n);
	uint8_t *body = malloc(room);
	struct bytes_writer w = bytes_writer_of(body, room);
	int err = -ENOMEM;

	if (body) {
		relay_write_decision(bytes_str(c->id), a, &w);
		BUG_ON(w.bad);
		err = session_say(s, CLAIM_TOPIC, bytes_of(body, w.used));
	}
	free(body);
	return err;
}

static int answer_with_bundle(struct manager *m, const struct bundle_terms *t,
			      const struct claims_one *c, struct session *s)
{
	struct claim_answer a = { .result = CLAIM_CERTIFIED, .text = bytes_str(c->text) };
	struct bundle_made made = { 0 };
	const struct bundle_terms terms = { t->gateway, t->valid_days, &made };
	uint8_t *sealed;
	int err = bundle_make_party(m, &terms, c->id, NULL);

	if (err)
		return err;
	sealed = malloc(made.n + HPKE_TAG_BYTES);
	err = sealed ? claim_seal(&c->answer, bytes_of(made.bytes, made.n), &a.enc, sealed)
		     : -ENOMEM;
	a.sealed = bytes_of(sealed, made.n + HPKE_TAG_BYTES);
	if (!err)
		err = say(c, &a, s);
	secret_wipe(made.bytes, made.n);
	free(made.bytes);
	free(sealed);
	return err ? manager_fail(m, err, "\"%s\" cannot be answered: %s", c->id, strerror(-err))
		   : 0;
}

int claims_answer(struct manager *m, const struct bundle_terms *t, const struct claims_one *c,
		  struct session *s)
{
	const struct claim_answer a = { .result = c->result, .text = bytes_str(c->text) };
	int err;

	if (c->result == CLAIM_CERTIFIED)
		return answer_with_bundle(m, t, c, s);
	err = say(c, &a, s);
	return err ? manager_fail(m, err, "\"%s\" cannot be answered: %s", c->id, strerror(-err))
		   : 0;
}
