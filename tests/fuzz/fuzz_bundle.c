// FUZZ_OF: userspace/bundle
// SPDX-License-Identifier: MIT
/*
 * Records, bundles, statements and claims from anywhere. What decodes must encode to the very same
 * bytes: there is one encoding of each record, so a parser that misreads a field shows itself.
 */
#include <stdlib.h>
#include <string.h>

#include "userspace/bundle/bundle.h"
#include "userspace/bundle/claim.h"
#include "userspace/bundle/record.h"
#include "userspace/bundle/statement.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct bytes_writer writer_for(size_t n, uint8_t **ret_buf)
{
	*ret_buf = malloc(n + 1);
	if (!*ret_buf)
		abort();
	return bytes_writer_of(*ret_buf, n);
}

static void expect_same(struct bytes_writer *w, uint8_t *buf, struct bytes v)
{
	if (w->bad || w->used != v.n || memcmp(buf, v.p, v.n))
		abort();
	free(buf);
}

static void fuzz_scope(struct bytes v)
{
	struct record_scope s;
	struct bytes_writer w;
	uint8_t *buf;

	if (record_scope_decode(v, &s))
		return;
	w = writer_for(v.n, &buf);
	record_scope_encode(&s, &w);
	expect_same(&w, buf, v);
	for (unsigned i = 0; i < s.n_filters; i++)
		(void)record_filter_matches(s.filters[i], s.name);
}

static void fuzz_grant(struct bytes v)
{
	struct record_grant g;
	struct bytes_writer w;
	uint8_t *buf;

	if (record_grant_decode(v, &g))
		return;
	w = writer_for(v.n, &buf);
	record_grant_encode(&g, &w);
	expect_same(&w, buf, v);
}

static void fuzz_party(struct bytes v)
{
	struct record_party p;
	struct bytes_writer w;
	uint8_t *buf;

	if (record_party_decode(v, &p))
		return;
	w = writer_for(v.n, &buf);
	record_party_encode(&p, &w);
	expect_same(&w, buf, v);
}

static void fuzz_broker(struct bytes v)
{
	struct record_broker b;
	struct bytes_writer w;
	uint8_t *buf;

	if (record_broker_decode(v, &b))
		return;
	w = writer_for(v.n, &buf);
	record_broker_encode(&b, &w);
	expect_same(&w, buf, v);
}

static void fuzz_gateway(struct bytes v)
{
	struct bundle_gateway b;
	struct statement statement;
	struct bytes whole;
	struct record_scope s;
	struct bundle_gateway_party p;
	struct bundle_gateway_grant g;
	struct bundle_gateway_revoked r;

	if (bundle_gateway_decode(v, &b))
		return;
	for (uint32_t i = 0; i < b.n_scopes && !bundle_gateway_next_scope(&b.scopes, &s); i++)
		;
	for (uint32_t i = 0; i < b.n_parties && !bundle_gateway_next_party(&b.parties, &p); i++)
		;
	for (uint32_t i = 0; i < b.n_grants && !bundle_gateway_next_grant(&b.grants, &g); i++)
		;
	for (uint32_t i = 0; i < b.n_revoked; i++) {
		if (bundle_gateway_next_revoked(&b.revoked, &r))
			abort(); /* decode counted them */
	}
	for (uint32_t i = 0;
	     i < b.n_updates && !bundle_gateway_next_update(&b.updates, &whole, &statement); i++)
		if (statement.body.n > whole.n)
			abort();
}

static void fuzz_bundle(struct bytes v)
{
	struct bundle_party b;
	struct record_scope s;
	struct record_grant g;
	struct record_party p;

	if (bundle_party_decode(v, &b))
		return;
	for (uint16_t i = 0; i < b.n_scopes && !bundle_party_next_scope(&b.scopes, &s); i++)
		;
	for (uint16_t i = 0; i < b.n_grants && !bundle_party_next_grant(&b.grants, &g); i++)
		;
	for (uint16_t i = 0; i < b.n_origins && !bundle_party_next_origin(&b.origins, &p); i++)
		;
}

static void fuzz_distributor(struct bytes v)
{
	struct bundle_distributor d;
	struct bundle_outlet o;
	struct record_grant g;
	struct record_party p;

	if (bundle_distributor_decode(v, &d))
		return;
	for (uint16_t i = 0; i < d.n_hops && !bundle_distributor_next_hop(&d.hops, &g); i++)
		;
	for (uint16_t i = 0; i < d.n_outlets && !bundle_distributor_next_outlet(&d.outlets, &o);
	     i++)
		;
	for (uint32_t i = 0; i < d.n_origins && !bundle_distributor_next_origin(&d.origins, &p);
	     i++)
		;
}

/* The code as text, and as the bytes beneath it: what decodes has one text. */
static void fuzz_claim_code(struct bytes v)
{
	char text[CLAIM_CODE_SIZE] = CLAIM_PREFIX, again[CLAIM_CODE_SIZE];
	struct claim_code c;

	(void)!claim_code_decode(v, &c);
	if (v.n > CLAIM_CODE_BYTES_MAX)
		return;
	text_b64u(v, text + strlen(CLAIM_PREFIX));
	if (!claim_code_decode(bytes_str(text), &c) &&
	    (claim_code_encode(&c, again) || strcmp(text, again)))
		abort();
}

static void fuzz_claim(struct bytes v)
{
	struct bytes_reader r = bytes_reader_of(v);
	struct claim_request q;
	struct claim_answer a;
	struct bytes_writer w;
	uint8_t *buf;

	claim_request_read(&r, &q);
	if (bytes_read_done(&r)) {
		w = writer_for(v.n, &buf);
		claim_request_write(&q, &w);
		expect_same(&w, buf, v);
	}
	r = bytes_reader_of(v);
	claim_answer_read(&r, &a);
	if (bytes_read_done(&r)) {
		w = writer_for(v.n, &buf);
		claim_answer_write(&a, &w);
		expect_same(&w, buf, v);
	}
}

static void fuzz_filter(struct bytes v)
{
	size_t half = v.n / 2;

	(void)record_filter_matches(bytes_of(v.p, half), bytes_of(v.p + half, v.n - half));
	(void)record_filter_is_valid(v);
	if (record_topic_is_valid(v) && !record_filter_is_valid(v))
		abort();
}

static void fuzz_statement(struct bytes v)
{
	static struct p256_public *manager;
	struct p256_point g;
	struct secret32 one = { { [31] = 1 } };
	struct statement s;

	if (!manager && (p256_mul_base(&one, &g) || p256_public_new(&g, &manager)))
		abort();
	for (int kind = STATEMENT_SCOPE; kind <= STATEMENT_MANIFEST; kind++)
		(void)!statement_open(v, (enum statement_kind)kind, manager, &s);
}

/* The first byte chooses the parser, the rest is its input. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static void (*const parsers[])(struct bytes v) = {
		fuzz_scope,	  fuzz_grant,	   fuzz_party,	   fuzz_gateway,
		fuzz_bundle,	  fuzz_filter,	   fuzz_statement, fuzz_broker,
		fuzz_distributor, fuzz_claim_code, fuzz_claim,
	};

	if (n)
		parsers[data[0] % ARRAY_SIZE(parsers)](bytes_of(data + 1, n - 1));
	return 0;
}
