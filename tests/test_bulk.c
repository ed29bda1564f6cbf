// SPDX-License-Identifier: MIT
/*
 * Enrolment in bulk: all lines or none, the same file again, claim codes and what comes of them.
 * What ssdtf-admin says of it on the command line, and whether others can read the QR codes, is in
 * test_bulk.sh.
 */
#include "tests/manager_env.h"
#include "userspace/base/text.h"
#include "userspace/manager/bulk.h"
#include "userspace/manager/claimcode.h"
#include "userspace/manager/revoke.h"
#include "userspace/manager/scope.h"

#define HEADER "id,scopes,clock,keys\n"

FIXTURE(bulk)
{
	struct manager_env e;
	char complaints[8192];
	struct bulk_order order;
};

static void complain(void *arg, const char *text)
{
	struct fixture_bulk *self = arg;
	size_t used = strlen(self->complaints);

	snprintf(self->complaints + used, sizeof(self->complaints) - used, "%s\n", text);
}

static int add_gateway(struct manager_env *e, const char *id)
{
	struct gateway g = { .spki_bytes = 4 };

	random_point(&g.broker);
	snprintf(g.id, sizeof(g.id), "%s", id);
	return gateway_store(&e->m, &g);
}

static int add_scope(struct manager_env *e, const char *name)
{
	const struct scope_terms t = { .name = name,
				       .filters = { name },
				       .n_filters = 1,
				       .suite = 1,
				       .rekey_messages = 100,
				       .rekey_seconds = 100 };

	return scope_add(&e->m, &t);
}

FIXTURE_SETUP(bulk)
{
	struct manager_env *e = &self->e;

	manager_env_make(e);
	ASSERT_EQ(ENV_IN_TRANSACTION(e, 0, add_gateway(e, "gw")), 0);
	ASSERT_EQ(ENV_IN_TRANSACTION(e, 0, add_scope(e, "heat")), 0);
	ASSERT_EQ(ENV_IN_TRANSACTION(e, 0, add_scope(e, "power")), 0);
	ASSERT_EQ(mkdir(env_path(e, "codes"), 0700), 0);
	self->order = (struct bulk_order){ .complain = complain, .arg = self };
}
FIXTURE_TEARDOWN(bulk)
{
	manager_env_remove(&self->e);
}

static int run_file(struct fixture_bulk *self, const char *name)
{
	self->order.file = env_path(&self->e, name);
	self->order.folder = env_path(&self->e, "codes");
	self->complaints[0] = '\0';
	return ENV_COMMAND(&self->e, 1000, bulk_enrol(&self->e.m, &self->order));
}

static int run_text(struct fixture_bulk *self, const char *text)
{
	write_file(env_path(&self->e, "devices.csv"), text, 0600);
	return run_file(self, "devices.csv");
}

static void good(struct fixture_bulk *self, const char *text, const char *said)
{
	if (run_text(self, text))
		harness_fail(__FILE__, __LINE__, true, "%s: %s", self->e.said, self->complaints);
	ASSERT_STREQ(self->e.said, said);
	ASSERT_STREQ(self->complaints, "");
}

static int64_t number(struct manager_env *e, const char *sql)
{
	int64_t v = -1;
	struct registry_query q;

	env_open(e, MANAGER_ENV_T0);
	q = registry_query(&e->m.registry, sql);
	if (registry_step(&q))
		v = registry_int(&q, 0);
	ASSERT_EQ(registry_end(&q), 0);
	env_close(e, 0);
	return v;
}

static struct p256_point make_public(struct manager_env *e, const char *file)
{
	struct p256_point p;
	char pem[512];
	int n;

	random_point(&p);
	n = p256_public_to_pem(&p, (uint8_t *)pem, sizeof(pem) - 1);
	ASSERT_GT(n, 0);
	pem[n] = '\0';
	write_file(env_path(e, file), pem, 0600);
	return p;
}

static void read_code(struct manager_env *e, const char *file, struct claim_code *c)
{
	uint8_t text[CLAIM_CODE_SIZE + 1];
	struct stat st;
	size_t n = 0;

	ASSERT_EQ(file_read_into(AT_FDCWD, env_path(e, file), text, sizeof(text), &n), 0);
	ASSERT_EQ(text[n - 1], '\n');
	ASSERT_EQ(claim_code_decode(bytes_of(text, n - 1), c), 0);
	ASSERT_EQ(stat(env_path(e, file), &st), 0);
	EXPECT_EQ(st.st_mode & 0777, 0600);
}

/* The registry has what the code leads to. */
static void expect_fits(struct manager_env *e, const char *id, const struct claim_code *c)
{
	uint8_t k_adm[ADMISSION_KEY_BYTES];
	struct secret32 signing;
	struct p256_point public;
	struct party p;
	bool found = false;

	ASSERT_EQ(claim_keys(bytes_str(id), c->secret, &signing, k_adm), 0);
	ASSERT_EQ(p256_mul_base(&signing, &public), 0);
	env_open(e, MANAGER_ENV_T0);
	ASSERT_EQ(party_find(&e->m, id, &p, &found), 0);
	ASSERT_TRUE(found);
	EXPECT_EQ(p.flags, RECORD_PARTY_CLAIM);
	EXPECT_EQ(p.roles, RECORD_ROLE_DEVICE);
	ASSERT_BYTES(p.signing.b, public.b, sizeof(public.b));
	ASSERT_BYTES(p.k_adm, k_adm, sizeof(k_adm));
	ASSERT_BYTES(c->manager.b, e->m.key.b, sizeof(c->manager.b));
	ASSERT_STREQ(c->id, id);
	ASSERT_STREQ(c->gateway_id, "gw");
	env_close(e, 0);
}

/* --- good files ---------------------------------------------------------------------------- */

TEST_F(bulk, enrols)
{
	struct manager_env *e = &self->e;
	struct claim_code a, c, again;
	struct p256_point key = make_public(e, "b.pem");
	struct party p;
	bool found = false;
	static const char text[] = "keys,\"id\",clock,scopes\r\n"
				   ",dev-a,yes,heat; power\r\n"
				   "b.pem,dev-b,no,\" heat ;\"\r\n"
				   ",\"dev:c\",yes,\r\n";

	good(self, text, "enrolled=3 changed=0 unchanged=0 codes=2 labels=2\n");
	read_code(e, "codes/dev-a.claim", &a);
	expect_fits(e, "dev-a", &a);
	read_code(e, "codes/dev:c.claim", &c);
	expect_fits(e, "dev:c", &c);
	EXPECT_TRUE(memcmp(a.secret, c.secret, sizeof(a.secret)) != 0);
	EXPECT_EQ(access(env_path(e, "codes/dev-b.claim"), F_OK), -1);
	EXPECT_EQ(access(env_path(e, "codes/dev-a.svg"), F_OK), 0);
	EXPECT_EQ(access(env_path(e, "codes/labels.html.tmp"), F_OK), -1);
	EXPECT_EQ(number(e, "SELECT count(*) FROM permission"), 3);
	EXPECT_EQ(number(e, "SELECT count(*) FROM claim WHERE state = 'waiting'"), 2);

	env_open(e, MANAGER_ENV_T0);
	ASSERT_EQ(party_find(&e->m, "dev-b", &p, &found), 0);
	ASSERT_TRUE(found);
	ASSERT_BYTES(p.signing.b, key.b, sizeof(key.b));
	EXPECT_EQ(p.flags, 0);
	EXPECT_EQ(p.admission_flags, BUNDLE_ADMISSION_NO_CLOCK);
	env_close(e, 0);

	/* Again: nothing changes, not even a label's code. */
	good(self, text, "enrolled=0 changed=0 unchanged=3 codes=0 labels=2\n");
	read_code(e, "codes/dev-a.claim", &again);
	ASSERT_BYTES(again.secret, a.secret, sizeof(a.secret));
	/* Somewhere else, as well: then there is no code to make a label of. */
	ASSERT_EQ(rename(env_path(e, "codes"), env_path(e, "old")), 0);
	ASSERT_EQ(mkdir(env_path(e, "codes"), 0700), 0);
	good(self, text, "enrolled=0 changed=0 unchanged=3 codes=0 labels=0\n");
	EXPECT_EQ(access(env_path(e, "codes/labels.html"), F_OK), -1);
}

TEST_F(bulk, changes)
{
	struct manager_env *e = &self->e;

	good(self, HEADER "dev-a,heat,yes,\ndev-b,heat,yes,\ndev-c,heat,yes,\n",
	     "enrolled=3 changed=0 unchanged=0 codes=3 labels=3\n");
	self->order.dry_run = true;
	good(self, HEADER "dev-a,heat,no,\ndev-b,power,yes,\ndev-c,,yes,\ndev-d,,yes,\n",
	     "dry-run enrolled=1 changed=2 unchanged=1 codes=1 labels=0\n");
	EXPECT_EQ(number(e, "SELECT count(*) FROM permission"), 3);
	EXPECT_EQ(access(env_path(e, "codes/dev-d.claim"), F_OK), -1);
	self->order.dry_run = false;
	good(self, HEADER "dev-a,heat,no,\ndev-b,power,yes,\ndev-c,,yes,\ndev-d,,yes,\n",
	     "enrolled=1 changed=2 unchanged=1 codes=1 labels=4\n");
	EXPECT_EQ(number(e, "SELECT count(*) FROM permission"), 4);
	EXPECT_EQ(number(e, "SELECT count(*) FROM party WHERE admission_flags = 1"), 1);

	/* One that has claimed keeps the key that it made. */
	ASSERT_EQ(number(e, "UPDATE claim SET state = 'claimed', signing = zeroblob(65),"
			    " claimed_ms = 5 WHERE party = 'dev-a' RETURNING claimed_ms"),
		  5);
	good(self, HEADER "dev-a,heat,no,\n",
	     "enrolled=0 changed=0 unchanged=1 codes=0 labels=0\n");
}

/* What a run left that was killed before its commit: the code counts that may be printed already.
 */
TEST_F(bulk, takes_codes_that_were_left)
{
	struct manager_env *e = &self->e;
	struct claim_code left, taken;

	good(self, HEADER "dev-a,heat,yes,\n",
	     "enrolled=1 changed=0 unchanged=0 codes=1 labels=1\n");
	read_code(e, "codes/dev-a.claim", &left);
	ASSERT_EQ(number(e, "DELETE FROM history WHERE subject = 'dev-a' AND action = 'enrol'"
			    " RETURNING 1"),
		  1);
	ASSERT_EQ(number(e, "DELETE FROM permission RETURNING 1"), 1);
	ASSERT_EQ(number(e, "DELETE FROM party RETURNING 1"), 1);
	EXPECT_EQ(number(e, "SELECT count(*) FROM claim"), 0); /* it goes with the party */
	good(self, HEADER "dev-a,heat,yes,\n",
	     "enrolled=1 changed=0 unchanged=0 codes=1 labels=1\n");
	read_code(e, "codes/dev-a.claim", &taken);
	ASSERT_BYTES(taken.secret, left.secret, sizeof(left.secret));
	expect_fits(e, "dev-a", &taken);

	/* Of one who was revoked since it may be in other hands. */
	ASSERT_EQ(ENV_IN_TRANSACTION(e, 0, revoke_party(&e->m, "dev-a", PARTY_ANY_ROLE)), 0);
	good(self, HEADER "dev-a,heat,yes,\n",
	     "enrolled=1 changed=0 unchanged=0 codes=1 labels=1\n");
	read_code(e, "codes/dev-a.claim", &taken);
	EXPECT_TRUE(memcmp(taken.secret, left.secret, sizeof(left.secret)) != 0);
	expect_fits(e, "dev-a", &taken);

	/* Half of one is made anew. */
	write_file(env_path(e, "codes/dev-b.claim"), "SSDTF1:AAAA", 0600);
	good(self, HEADER "dev-b,heat,yes,\n",
	     "enrolled=1 changed=0 unchanged=0 codes=1 labels=1\n");
	read_code(e, "codes/dev-b.claim", &taken);
	expect_fits(e, "dev-b", &taken);
	/* Somebody else's is not ours to take, or to write over. */
	ASSERT_EQ(rename(env_path(e, "codes/dev-b.claim"), env_path(e, "codes/dev-c.claim")), 0);
	EXPECT_EQ(run_text(self, HEADER "dev-c,heat,yes,\n"), -EINVAL);
	EXPECT_TRUE(strstr(self->complaints, "dev-c.claim: is a code of another") != NULL);
	EXPECT_EQ(access(env_path(e, "codes/dev-c.claim"), F_OK), 0);
}

TEST_F(bulk, many)
{
	unsigned lines = harness_rounds(1000);
	FILE *f = fopen(env_path(&self->e, "many.csv"), "w");
	char said[128];

	ASSERT_TRUE(f != NULL);
	(void)fputs(HEADER, f);
	for (unsigned i = 0; i < lines; i++)
		(void)fprintf(f, "dev-%05u,heat;power,%s,\n", i, i % 3 ? "yes" : "no");
	ASSERT_EQ(fclose(f), 0);
	ASSERT_EQ(run_file(self, "many.csv"), 0);
	snprintf(said, sizeof(said), "enrolled=%u changed=0 unchanged=0 codes=%u labels=%u\n",
		 lines, lines, lines);
	ASSERT_STREQ(self->e.said, said);
	EXPECT_EQ(number(&self->e, "SELECT count(DISTINCT signing) FROM party"), lines);
}

/* --- files that are not good --------------------------------------------------------------- */

static const struct {
	const char *text; /* behind the header */
	unsigned line;
	const char *complaint;
} bad_lines[] = {
	{ "dev a,heat,yes,\n", 2, "id \"dev a\": 1 to 64 characters of A-Z" },
	{ ",heat,yes,\n", 2, "id \"\": 1 to 64" },
	{ "../x,heat,yes,\n", 2, "id \"../x\"" },
	{ "dev-a,heat,yes\n", 2, "3 fields, and the header has 4" },
	{ "dev-a,heat,yes,,\n", 2, "5 fields, and the header has 4" },
	{ "dev-a,heat,maybe,\n", 2, "clock \"maybe\": write yes or no" },
	{ "dev-a,heat,,\n", 2, "clock \"\": write yes or no" },
	{ "dev-a,cold,yes,\n", 2, "scope \"cold\": there is none" },
	{ "dev-a,heat;;cold,yes,\n", 2, "scope \"cold\": there is none" },
	{ "dev-a,heat,yes,none.pem\n", 2, "none.pem: cannot read: No such file" },
	{ "dev-a,heat,yes,/dev/zero\n", 2, "/dev/zero: cannot read" },
	{ "dev-a,heat,yes,pin\n", 2, "pin: is no P-256 public key in PEM" },
	{ "dev-a,heat,yes,b.pem\ndev-b,,yes,b.pem\n", 3, "is that of line 2" },
	{ "dev-a,heat,yes,old.pem\n", 2, "the key in \"old.pem\" is that of \"old\"" },
	{ "dev-a,heat,yes,state/manager.pub\n", 2, "is the manager's own" },
	{ "dev-a,heat,yes,\ndev-b,heat,yes,\ndev-a,heat,yes,\n", 4, "is in line 2 already" },
	{ "gw,heat,yes,\n", 2, "\"gw\" is a gateway's id" },
	{ "old,heat,yes,b.pem\n", 2, "\"old\" is enrolled with another key: revoke it first" },
	{ "old,heat,yes,\n", 2, "\"old\" is enrolled already, without a claim code" },
	{ "dev-a,\"heat\"x,yes,\n", 2, "has text behind a closing quote" },
	{ "dev-a,heat,yes,\n\ndev-\xff,heat,yes,\n", 4, "is not UTF-8" },
	{ "dev-a,\"heat,yes,\n", 2, "has a quote that is opened and not closed" },
#define TEN "a;b;c;d;e;f;g;h;i;j;"
	{ "dev-a," TEN TEN TEN TEN TEN TEN "1;2;3;4;5,yes,\n", 2, "more than 64 scopes" },
};

TEST_F(bulk, nothing_unless_all_is_good)
{
	struct manager_env *e = &self->e;

	(void)make_public(e, "b.pem");
	(void)make_public(e, "old.pem");
	good(self, HEADER "old,heat,yes,old.pem\n",
	     "enrolled=1 changed=0 unchanged=0 codes=0 labels=0\n");
	for (size_t i = 0; i < ARRAY_SIZE(bad_lines); i++) {
		char text[2048], want[PATH_ROOM];

		/* Good lines before and behind it do not help. */
		snprintf(text, sizeof(text), HEADER "%s", bad_lines[i].text);
		if (run_text(self, text) != -EINVAL)
			harness_fail(__FILE__, __LINE__, false, "row %zu: %s", i, e->said);
		EXPECT_SAID(e, "nobody was enrolled");
		snprintf(want, sizeof(want), "%s:%u: ", self->order.file, bad_lines[i].line);
		if (strncmp(self->complaints, want, strlen(want)) ||
		    !strstr(self->complaints, bad_lines[i].complaint))
			harness_fail(__FILE__, __LINE__, false, "row %zu: not \"%s%s\": %s", i,
				     want, bad_lines[i].complaint, self->complaints);
		if (number(e, "SELECT count(*) FROM party") != 1)
			harness_fail(__FILE__, __LINE__, false, "row %zu enrolled somebody", i);
	}
	EXPECT_EQ(access(env_path(e, "codes/dev-a.claim"), F_OK), -1);
	EXPECT_EQ(number(e, "SELECT count(*) FROM permission"), 1);
}

TEST_F(bulk, every_bad_line_is_named)
{
	EXPECT_EQ(run_text(self,
			   HEADER "dev-a,heat,yes,\nx y,cold,perhaps,\ndev-a,cold,yes,\n\"\n"),
		  -EINVAL);
	EXPECT_TRUE(strstr(self->complaints, ":3: id \"x y\"") != NULL);
	EXPECT_TRUE(strstr(self->complaints, ":3: clock \"perhaps\"") != NULL);
	EXPECT_TRUE(strstr(self->complaints, ":4: \"dev-a\" is in line 2 already") != NULL);
	EXPECT_TRUE(strstr(self->complaints, ":5: has a quote that is opened") != NULL);
	EXPECT_SAID(&self->e, ": 4 complaints; nobody was enrolled");
}

TEST_F(bulk, headers)
{
	static const struct {
		const char *text, *complaint;
	} rows[] = {
		{ "", "empty: the header is missing" },
		{ "\n\n", "empty: the header is missing" },
		{ "id,scopes,clock\n", ":1: column \"keys\" is missing" },
		{ "id,scopes,clock,keys,colour\n", "column \"colour\": there are id, scopes" },
		{ "id,scopes,clock,keys,id\n", "column \"id\" is there twice" },
		{ "dev-a,heat,yes,\n", "column \"dev-a\"" },
		{ "id,scopes,clock,\"keys\n", "has a quote that is opened" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		EXPECT_EQ(run_text(self, rows[i].text), -EINVAL);
		if (!strstr(self->complaints, rows[i].complaint))
			harness_fail(__FILE__, __LINE__, false, "row %zu: %s", i, self->complaints);
	}
	good(self, HEADER, "enrolled=0 changed=0 unchanged=0 codes=0 labels=0\n");
}

TEST_F(bulk, files_and_folders)
{
	struct manager_env *e = &self->e;

	EXPECT_EQ(run_file(self, "none.csv"), -ENOENT);
	EXPECT_EQ(run_file(self, "state"), -EISDIR);
	ASSERT_EQ(chmod(env_path(e, "codes"), 0770), 0);
	EXPECT_EQ(run_text(self, HEADER "dev-a,heat,yes,\n"), -EACCES);
	EXPECT_SAID(e, "others may write to it (mode 770); chmod 700 it first");
	ASSERT_EQ(chmod(env_path(e, "codes"), 0700), 0);
	ASSERT_EQ(rename(env_path(e, "codes"), env_path(e, "away")), 0);
	EXPECT_EQ(run_text(self, HEADER "dev-a,heat,yes,\n"), -ENOENT);
	ASSERT_EQ(rename(env_path(e, "away"), env_path(e, "codes")), 0);
	/* A folder where a code is to be: the commit does not come. */
	ASSERT_EQ(mkdir(env_path(e, "codes/dev-b.claim"), 0700), 0);
	EXPECT_NE(run_text(self, HEADER "dev-a,heat,yes,\ndev-b,heat,yes,\n"), 0);
	EXPECT_EQ(number(e, "SELECT count(*) FROM party"), 0);
}

TEST_F(bulk, more_gateways)
{
	struct manager_env *e = &self->e;
	struct claim_code c;

	ASSERT_EQ(ENV_IN_TRANSACTION(e, 0, add_gateway(e, "other")), 0);
	EXPECT_EQ(run_text(self, HEADER "dev-a,heat,yes,\n"), -EINVAL); /* which one? */
	self->order.gateway = "gw";
	good(self, HEADER "dev-a,heat,yes,\n",
	     "enrolled=1 changed=0 unchanged=0 codes=1 labels=1\n");
	read_code(e, "codes/dev-a.claim", &c);
	expect_fits(e, "dev-a", &c);
	self->order.gateway = "other"; /* what is enrolled stays with the first */
	good(self, HEADER "dev-a,heat,yes,\n",
	     "enrolled=0 changed=0 unchanged=1 codes=0 labels=0\n");
	self->order.gateway = "nowhere";
	EXPECT_EQ(run_text(self, HEADER "dev-b,heat,yes,\n"), -ESRCH);
}

/* --- renewal ------------------------------------------------------------------------------- */

static int renew(struct manager_env *e, const char *id)
{
	const char *folder = env_path(e, "codes");

	return ENV_IN_TRANSACTION(e, 2000, claimcode_renew(&e->m, id, NULL, folder));
}

TEST_F(bulk, renew)
{
	struct manager_env *e = &self->e;
	struct claim_code first, second;

	(void)make_public(e, "b.pem");
	good(self, HEADER "dev-a,heat,yes,\ndev-b,heat,yes,b.pem\n",
	     "enrolled=2 changed=0 unchanged=0 codes=1 labels=1\n");
	read_code(e, "codes/dev-a.claim", &first);
	ASSERT_EQ(ENV_IN_TRANSACTION(e, 0, add_gateway(e, "other")), 0);
	ASSERT_EQ(renew(e, "dev-a"), 0); /* at the gateway of before */
	EXPECT_SAID(e, "renewed id=dev-a gateway=gw code=");
	read_code(e, "codes/dev-a.claim", &second);
	EXPECT_TRUE(memcmp(first.secret, second.secret, sizeof(first.secret)) != 0);
	expect_fits(e, "dev-a", &second); /* and the first one not: it is void */

	EXPECT_EQ(renew(e, "dev-b"), -ESRCH);
	EXPECT_SAID(e, "was enrolled without a claim code");
	EXPECT_EQ(renew(e, "dev-c"), -ESRCH);
	EXPECT_EQ(renew(e, "dev c"), -EINVAL);
	ASSERT_EQ(number(e, "UPDATE claim SET state = 'claimed', signing = zeroblob(65),"
			    " claimed_ms = 1800000000000 RETURNING 1"),
		  1);
	EXPECT_EQ(renew(e, "dev-a"), -EEXIST);
	EXPECT_SAID(e, "has claimed already");
	ASSERT_EQ(ENV_COMMAND(e, 0, claimcode_list(&e->m)), 0);
	ASSERT_STREQ(e->said, "id=dev-a gateway=gw state=claimed made=2027-01-15T08:00:02Z"
			      " claimed=2027-01-15T08:00:00Z\n");
}

HARNESS_MAIN
