// SPDX-License-Identifier: MIT
#include "userspace/manager/reports.h"

#include <errno.h>
#include <string.h>

#include "userspace/base/secret.h"
#include "userspace/crypto/hash.h"
#include "userspace/manager/party.h"
#include "userspace/manager/say.h"

#define EVIDENCE_ROOM (1 + 2 + 4096 + PUBLISH_TRAILER_1_BYTES)

/* --- keeping ---------------------------------------------------------------------------------- */

/* An id, or nothing, terminated. */
static const char *text_of(struct bytes id, char out[MANAGER_ID_ROOM])
{
	(void)snprintf(out, MANAGER_ID_ROOM, "%.*s", (int)id.n, id.n ? (const char *)id.p : "");
	return out;
}

static int verify(const struct ssdtf_report *r, const struct p256_point *key)
{
	struct p256_public *public;
	int err = p256_public_new(key, &public);

	if (err)
		return err;
	err = ssdtf_report_verify(r, public);
	p256_public_free(public);
	return err;
}

static bool is_forged(int err)
{
	return err == -EBADMSG || err == -EINVAL;
}

/* Was it signed by the key that its reporter is enrolled with, or by the one before that while it
 * holds? One who is not enrolled any more proves nothing. */
static int check(struct manager *m, const struct ssdtf_report *r, bool *ret_proven)
{
	char id[MANAGER_ID_ROOM];
	struct party party;
	bool found = false;
	int err = party_find(m, text_of(r->reporter, id), &party, &found);

	if (err || !found) {
		*ret_proven = false;
		return err;
	}
	secret_wipe(party.k_adm, sizeof(party.k_adm));
	secret_wipe(party.previous_k_adm, sizeof(party.previous_k_adm));
	err = verify(r, &party.signing);
	if (is_forged(err) && party.has_previous &&
	    record_valid_at(0, party.previous_until_ms, m->now_ms))
		err = verify(r, &party.previous);
	*ret_proven = !err;
	return err && !is_forged(err)
		       ? manager_fail(m, err, "cannot verify a report: %s", strerror(-err))
		       : 0;
}

/* first || u16+ properties || body || trailer: with the reporter's id all that was
 * signed. R_b and n in the body make it the only one of its kind. */
static void write_evidence(const struct ssdtf_report *r, struct bytes_writer *w)
{
	bytes_write_u8(w, r->first);
	bytes_write_u16_view(w, r->properties);
	bytes_write(w, r->body);
	bytes_write(w, r->trailer.trailer);
}

static int insert(struct manager *m, const char *gateway, const struct ssdtf_report *r, bool proven)
{
	struct registry_query q = registry_query(
		&m->registry,
		"INSERT INTO report (at_ms, gateway, reporter, nack, reason, about, counter, text,"
		" proven, evidence, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
		" ON CONFLICT (digest) DO NOTHING");
	uint8_t evidence[EVIDENCE_ROOM], digest[HASH_BYTES];
	char id[MANAGER_ID_ROOM];
	struct bytes_writer w = bytes_writer_of(evidence, sizeof(evidence));
	const struct bytes parts[] = { r->reporter, bytes_str(r->nack ? "/nack/" : "/report/"),
				       r->body };

	write_evidence(r, &w);
	hash_parts(parts, ARRAY_SIZE(parts), digest);
	registry_bind_int(&q, (int64_t)m->now_ms);
	registry_bind_text(&q, gateway);
	registry_bind_text(&q, text_of(r->reporter, id));
	registry_bind_int(&q, r->nack);
	registry_bind_int(&q, r->reason);
	registry_bind_text(&q, text_of(r->about, id));
	registry_bind_int(&q, (int64_t)r->counter); /* the same bits */
	registry_bind_blob(&q, r->text.p ? r->text : bytes_str(""));
	registry_bind_int(&q, proven);
	registry_bind_blob(&q, w.bad ? bytes_str("") : bytes_of(evidence, w.used));
	registry_bind_blob(&q, bytes_of(digest, sizeof(digest)));
	return manager_fail_registry(m, registry_run(&q));
}

static int drop_oldest(struct manager *m)
{
	struct registry_query q = registry_query(
		&m->registry, "DELETE FROM report WHERE n <= (SELECT max(n) FROM report) - ?");

	registry_bind_int(&q, REPORTS_MAX);
	return manager_fail_registry(m, registry_run(&q));
}

int reports_store(struct manager *m, const char *gateway, const struct ssdtf_report *r,
		  bool *ret_new)
{
	bool proven = false;
	int err = check(m, r, &proven);

	if (!err)
		err = insert(m, gateway, r, proven);
	if (err)
		return err;
	*ret_new = registry_changes(&m->registry) > 0;
	return *ret_new ? drop_oldest(m) : 0;
}

/* --- listing ---------------------------------------------------------------------------------- */

enum column { N, AT, GATEWAY, REPORTER, NACK, REASON, ABOUT, COUNTER, TEXT, PROVEN };

static void put_line(FILE *out, struct registry_query *q)
{
	char at[SAY_TIME_ROOM];
	struct bytes about = registry_blob(q, ABOUT), text = registry_blob(q, TEXT);

	(void)fprintf(out, "%lld %s gateway=%.*s reporter=%.*s %s reason=%lld about=%.*s",
		      (long long)registry_int(q, N), say_time(registry_int(q, AT), at),
		      (int)registry_blob(q, GATEWAY).n, (const char *)registry_blob(q, GATEWAY).p,
		      (int)registry_blob(q, REPORTER).n, (const char *)registry_blob(q, REPORTER).p,
		      registry_int(q, NACK) ? "nack" : "report", (long long)registry_int(q, REASON),
		      about.n ? (int)about.n : 1, about.n ? (const char *)about.p : "-");
	(void)fprintf(out, " counter=%llu signature=%s what=\"%s\"",
		      (unsigned long long)registry_int(q, COUNTER),
		      registry_int(q, PROVEN) ? "holds" : "unproven",
		      ssdtf_reason_text((unsigned)registry_int(q, REASON)));
	if (text.n) {
		(void)fprintf(out, " text=");
		say_quoted(out, text);
	}
	(void)fputc('\n', out);
}

static void put_json(FILE *out, struct registry_query *q)
{
	static const struct {
		const char *name;
		enum column column;
	} texts[] = { { "gateway", GATEWAY },
		      { "reporter", REPORTER },
		      { "about", ABOUT },
		      { "text", TEXT } };
	char at[SAY_TIME_ROOM];

	(void)fprintf(out, "{\"n\":%lld,\"time\":\"%s\",\"kind\":\"%s\",\"reason\":%lld",
		      (long long)registry_int(q, N), say_time(registry_int(q, AT), at),
		      registry_int(q, NACK) ? "nack" : "report",
		      (long long)registry_int(q, REASON));
	(void)fprintf(out, ",\"what\":\"%s\",\"counter\":%llu,\"proven\":%s",
		      ssdtf_reason_text((unsigned)registry_int(q, REASON)),
		      (unsigned long long)registry_int(q, COUNTER),
		      registry_int(q, PROVEN) ? "true" : "false");
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		(void)fprintf(out, ",\"%s\":", texts[i].name);
		say_json(out, registry_blob(q, (int)texts[i].column));
	}
	(void)fprintf(out, "}\n");
}

int reports_list(struct manager *m, uint32_t since, bool json)
{
	struct registry_query q =
		registry_query(&m->registry,
			       "SELECT n, at_ms, gateway, reporter, nack, reason, about, counter,"
			       " text, proven FROM report WHERE n >= ? ORDER BY n");

	registry_bind_int(&q, since);
	while (registry_step(&q)) {
		if (json)
			put_json(m->out, &q);
		else
			put_line(m->out, &q);
	}
	return manager_fail_registry(m, registry_end(&q));
}
