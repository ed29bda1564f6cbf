// SPDX-License-Identifier: MIT
/*
 *   pass 1  each line alone, and against the lines before it and the registry: only complaints
 *   pass 2  the same once more, and what it says is done: codes on the disk, rows in the
 * transaction commit pass 3  labels, from the codes
 *
 * What fails or crashes before the commit leaves codes of devices that are not enrolled, which are
 * good for nothing; the next run takes them.
 */
#include "userspace/manager/bulk.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sysexits.h>

#include "userspace/base/text.h"
#include "userspace/crypto/hash.h"
#include "userspace/manager/claimcode.h"
#include "userspace/manager/csv.h"
#include "userspace/manager/keyfile.h"
#include "userspace/manager/labels.h"
#include "userspace/manager/update.h"

#define COMPLAINT_BYTES 1024

enum column { COLUMN_ID, COLUMN_SCOPES, COLUMN_CLOCK, COLUMN_KEYS, COLUMNS };

static const char *const column_names[COLUMNS] = { "id", "scopes", "clock", "keys" };

/* Asked for each line, so prepared once. */
enum question {
	SEEN_ID,
	SEEN_KEY,
	SEE,
	GATEWAY,
	SCOPE,
	CLAIM,
	CLAIM_PUT,
	ALLOW,
	ALLOWED,
	QUESTIONS
};

static const char *const questions[QUESTIONS] = {
	[SEEN_ID] = "SELECT line FROM bulk_line WHERE id = ?",
	[SEEN_KEY] = "SELECT line FROM bulk_line WHERE signing = ?",
	[SEE] = "INSERT INTO bulk_line (id, line, signing) VALUES (?, ?, ?)",
	[GATEWAY] = "SELECT 1 FROM gateway WHERE id = ?",
	[SCOPE] = "SELECT 1 FROM scope WHERE name = ?",
	[CLAIM] = "SELECT state = 'waiting' FROM claim WHERE party = ?",
	[CLAIM_PUT] =
		"INSERT INTO claim (party, gateway, state, made_ms) VALUES (?, ?, 'waiting', ?)",
	[ALLOW] = "INSERT INTO permission (party, scope) VALUES (?, ?) ON CONFLICT DO NOTHING",
	[ALLOWED] = "SELECT count(*) FROM permission WHERE party = ?",
};

struct bulk {
	struct manager *m;
	const struct bulk_order *o;
	struct csv csv;
	unsigned at[COLUMNS]; /* column of the file */
	unsigned n_columns;
	char folder[FILE_PATH_BYTES_MAX]; /* the file's own, with a slash; or empty */
	struct registry_query q[QUESTIONS];
	bool has_gateway;
	struct gateway gateway;
	unsigned bad, enrolled, changed, unchanged, codes, labels;
};

/* One line of the file, and what the registry knows of it. */
struct line {
	const char *id, *keys; /* keys "": by a claim code */
	unsigned n_scopes;
	const char *scopes[RECORD_SCOPES_MAX];
	bool no_clock;
	struct p256_point signing; /* of the file in keys */
	bool is_enrolled, has_claim, waits;
	struct party old;
};

/* --- complaints ---------------------------------------------------------------------------- */

static void complain(struct bulk *b, const char *fmt, ...) format_printf(2, 3);
static void complain(struct bulk *b, const char *fmt, ...)
{
	char text[COMPLAINT_BYTES];
	int n = snprintf(text, sizeof(text), "%s:%u: ", b->o->file, b->csv.line);
	va_list ap;

	if (n > 0 && (size_t)n < sizeof(text)) {
		va_start(ap, fmt);
		(void)vsnprintf(text + n, sizeof(text) - (size_t)n, fmt,
				ap); /* cut where too long */
		va_end(ap);
	}
	b->bad++;
	b->o->complain(b->o->arg, text);
}

static int fail_bad(struct bulk *b)
{
	b->m->exit_code = EX_DATAERR;
	return manager_fail(b->m, -EINVAL, "%s: %u complaint%s; nobody was enrolled", b->o->file,
			    b->bad, b->bad == 1 ? "" : "s");
}

static int fail_file(struct bulk *b, int err)
{
	return manager_fail_file(b->m, err, "read", b->o->file);
}

/* --- questions ----------------------------------------------------------------------------- */

static struct registry_query *ask(struct bulk *b, enum question which, const char *text)
{
	struct registry_query *q = &b->q[which];

	registry_again(q);
	if (text)
		registry_bind_text(q, text);
	return q;
}

/* Whatever went wrong stays in the query, and is told by close_questions(). */
static bool is_there(struct bulk *b, enum question which, const char *text)
{
	return registry_step(ask(b, which, text));
}

static int open_questions(struct bulk *b)
{
	struct registry_query q =
		registry_query(&b->m->registry, "CREATE TEMP TABLE bulk_line (id TEXT PRIMARY KEY,"
						" line INTEGER NOT NULL, signing BLOB UNIQUE)"
						" STRICT, WITHOUT ROWID");
	int err = manager_fail_registry(b->m, registry_run(&q));

	for (unsigned i = 0; !err && i < QUESTIONS; i++)
		b->q[i] = registry_query(&b->m->registry, questions[i]);
	return err;
}

/* Before the transaction ends. */
static int close_questions(struct bulk *b)
{
	int first = 0;

	for (unsigned i = 0; i < QUESTIONS; i++) {
		int err = b->q[i].r ? registry_end(&b->q[i]) : 0;

		b->q[i].r = NULL;
		if (!first)
			first = manager_fail_registry(b->m, err);
	}
	return first;
}

static int forget_lines(struct bulk *b)
{
	struct registry_query q = registry_query(&b->m->registry, "DELETE FROM bulk_line");

	return manager_fail_registry(b->m, registry_run(&q));
}

/* --- a line, alone ------------------------------------------------------------------------- */

static const char *field(struct bulk *b, enum column c)
{
	return (const char *)b->csv.fields[b->at[c]].p;
}

/* Cuts `text`, which is the record's own, into words; blanks around them go. */
static void split_scopes(struct bulk *b, struct line *l, char *text)
{
	char *next = text;

	while (next) {
		char *word = next, *end;

		next = strchr(word, ';');
		end = next ? next : word + strlen(word);
		if (next)
			*next++ = '\0';
		word += strspn(word, " \t");
		while (end > word && (end[-1] == ' ' || end[-1] == '\t'))
			*--end = '\0';
		if (!*word)
			continue;
		if (l->n_scopes == RECORD_SCOPES_MAX) {
			complain(b, "more than %d scopes: leave some out", RECORD_SCOPES_MAX);
			return;
		}
		l->scopes[l->n_scopes++] = word;
	}
}

static bool parse_line(struct bulk *b, struct line *l)
{
	const char *clock;
	unsigned before = b->bad;

	*l = (struct line){ 0 };
	if (b->csv.n_fields != b->n_columns) {
		complain(b, "%u fields, and the header has %u: is a comma missing, or are quotes?",
			 b->csv.n_fields, b->n_columns);
		return false;
	}
	l->id = field(b, COLUMN_ID);
	l->keys = field(b, COLUMN_KEYS);
	clock = field(b, COLUMN_CLOCK);
	l->no_clock = !strcmp(clock, "no");
	if (!text_is_id(bytes_str(l->id)))
		complain(b, "id \"%.80s\": 1 to 64 characters of A-Z a-z 0-9 . _ : -", l->id);
	if (!l->no_clock && strcmp(clock, "yes"))
		complain(b, "clock \"%.80s\": write yes or no", clock);
	split_scopes(b, l, (char *)(uintptr_t)field(b, COLUMN_SCOPES));
	return b->bad == before;
}

/* --- a line, against the others and the registry -------------------------------------------- */

static void check_scopes(struct bulk *b, const struct line *l)
{
	for (unsigned i = 0; i < l->n_scopes; i++) {
		if (!is_there(b, SCOPE, l->scopes[i]))
			complain(b,
				 "scope \"%.80s\": there is none; add it first, or mend its name",
				 l->scopes[i]);
	}
}

/* The PEM file that the line names, read as seen from the CSV file. */
static void read_key(struct bulk *b, struct line *l)
{
	char path[FILE_PATH_BYTES_MAX];
	int n = snprintf(path, sizeof(path), "%s%s", *l->keys == '/' ? "" : b->folder, l->keys);

	if (n < 0 || (size_t)n >= sizeof(path))
		complain(b, "keys \"%.80s...\": the path is too long", l->keys);
	else if (keyfile_read_public(b->m, path, &l->signing))
		complain(b, "%s", b->m->error);
}

static int check_key(struct bulk *b, const struct line *l)
{
	char owner[MANAGER_ID_ROOM];
	struct registry_query *q;
	int err;

	if (l->is_enrolled && memcmp(l->old.signing.b, l->signing.b, sizeof(l->signing.b))) {
		complain(b,
			 "\"%s\" is enrolled with another key: revoke it first, or take the line "
			 "out",
			 l->id);
		return 0;
	}
	err = party_key_owner(b->m, l->id, &l->signing, owner);
	if (err)
		return err;
	if (owner[0])
		complain(b, "the key in \"%.200s\" is that of \"%s\": one key, one party", l->keys,
			 owner);
	if (!memcmp(l->signing.b, b->m->key.b, sizeof(l->signing.b)))
		complain(b, "the key in \"%.200s\" is the manager's own", l->keys);
	q = ask(b, SEEN_KEY, NULL);
	registry_bind_blob(q, bytes_of(l->signing.b, sizeof(l->signing.b)));
	if (registry_step(q))
		complain(b, "the key in \"%.200s\" is that of line %lld: one key, one device",
			 l->keys, (long long)registry_int(q, 0));
	return 0;
}

/* Where codes lead to is asked when the first one is due. */
static int check_code(struct bulk *b, const struct line *l)
{
	struct claim_code code;
	bool found;
	int err = b->has_gateway ? 0 : gateway_load(b->m, b->o->gateway, &b->gateway);

	if (err)
		return err;
	b->has_gateway = true;
	/* One that is not ours may be somebody's. */
	err = claimcode_read(b->m, b->o->folder, &b->gateway, l->id, &code, &found);
	claim_code_wipe(&code);
	if (err)
		complain(b, "%s", b->m->error);
	return 0;
}

static void see(struct bulk *b, const struct line *l, bool has_key)
{
	struct registry_query *q = ask(b, SEE, l->id);

	registry_bind_int(q, b->csv.line);
	registry_bind_blob(q, has_key ? bytes_of(l->signing.b, sizeof(l->signing.b))
				      : bytes_of(NULL, 0));
	(void)registry_step(q); /* asked for in close_questions() */
}

static int find_party(struct bulk *b, struct line *l)
{
	int err = party_find(b->m, l->id, &l->old, &l->is_enrolled);

	if (err)
		return err;
	l->has_claim = l->is_enrolled && is_there(b, CLAIM, l->id);
	l->waits = l->has_claim && registry_int(&b->q[CLAIM], 0);
	return 0;
}

/* Complaints, or an error that is none of the line's. */
static int check_line(struct bulk *b, struct line *l)
{
	unsigned before;
	int err;

	if (is_there(b, SEEN_ID, l->id)) {
		complain(b, "\"%s\" is in line %lld already: take one of them out", l->id,
			 (long long)registry_int(&b->q[SEEN_ID], 0));
		return 0;
	}
	if (is_there(b, GATEWAY, l->id))
		complain(b, "\"%s\" is a gateway's id: take another", l->id);
	check_scopes(b, l);
	err = find_party(b, l);
	if (err)
		return err;
	before = b->bad;
	if (*l->keys)
		read_key(b, l);
	if (*l->keys && b->bad == before)
		err = check_key(b, l);
	else if (!*l->keys && l->is_enrolled && !l->has_claim)
		complain(b,
			 "\"%s\" is enrolled already, without a claim code: name its key in keys, "
			 "or take the line out",
			 l->id);
	else if (!*l->keys && !l->is_enrolled)
		err = check_code(b, l);
	if (!err && b->bad == before)
		see(b, l, *l->keys);
	return err;
}

/* --- what a line says is done -------------------------------------------------------------- */

/*
 * A code that lies there for somebody who was never enrolled was made by a run that did not come to
 * its end. For one who was, and is not any more, it may be the very code that was stolen.
 */
static int give_code(struct bulk *b, const struct line *l, struct party *p)
{
	struct claim_code code;
	uint64_t enrolled_ms = 0;
	bool found = false;
	int err = manager_noted(b->m, "enrol", l->id, &enrolled_ms);

	if (!err && !enrolled_ms && !b->o->dry_run)
		err = claimcode_read(b->m, b->o->folder, &b->gateway, l->id, &code, &found);
	if (!err && !found)
		claimcode_make(b->m, &b->gateway, l->id, &code);
	if (!err && !found && !b->o->dry_run)
		err = claimcode_write(b->m, b->o->folder, &code);
	if (!err)
		err = claimcode_apply(b->m, &code, p);
	claim_code_wipe(&code);
	return err;
}

static int store_party(struct bulk *b, const struct line *l, const struct party *p)
{
	char roles[PARTY_ROLES_ROOM];
	struct registry_query *q;
	int err = party_store(b->m, p);

	if (!err)
		err = manager_note(b->m, "enrol", p->id, party_roles_text(p->roles, roles));
	if (err || *l->keys || l->has_claim)
		return err;
	q = ask(b, CLAIM_PUT, p->id);
	registry_bind_text(q, b->gateway.id);
	registry_bind_int(q, (int64_t)b->m->now_ms);
	(void)registry_step(q); /* asked for in close_questions() */
	b->codes++;
	return 0;
}

/* The device learns what to seal to, others whose proofs to take. Of a device that has to claim yet
 * there are none: they learn the key that it claims with. */
static int tell_allowed(struct bulk *b, const struct line *l, const struct party *p,
			const char *scope)
{
	int err = p->bundle_serial ? update_scope(b->m, scope) : 0;

	if (!err && !(p->flags & RECORD_PARTY_CLAIM))
		err = update_party(b->m, l->id);
	return err ? err : manager_note(b->m, "allow", l->id, scope);
}

static int allow(struct bulk *b, const struct line *l, const struct party *p, bool *ret_changed)
{
	int err = 0;

	for (unsigned i = 0; !err && i < l->n_scopes; i++) {
		struct registry_query *q = ask(b, ALLOW, l->id);

		registry_bind_text(q, l->scopes[i]);
		(void)registry_step(q); /* as above */
		if (registry_changes(&b->m->registry) == 0)
			continue;
		*ret_changed = true;
		err = tell_allowed(b, l, p, l->scopes[i]);
	}
	if (!err && *ret_changed && is_there(b, ALLOWED, l->id) &&
	    registry_int(&b->q[ALLOWED], 0) > RECORD_SCOPES_MAX)
		complain(b, "\"%s\" may publish under %d scopes and no more: deny it some", l->id,
			 RECORD_SCOPES_MAX);
	return err;
}

static int do_line(struct bulk *b, const struct line *l)
{
	struct party p = l->old;
	bool changed = false;
	int err = 0;

	if (!l->is_enrolled) {
		(void)snprintf(p.id, sizeof(p.id), "%s", l->id); /* an id, so it fits */
		p.signing = l->signing;
		if (*l->keys)
			hash_random(p.k_adm, sizeof(p.k_adm));
		else
			err = give_code(b, l, &p);
	}
	p.roles |= RECORD_ROLE_DEVICE;
	p.admission_flags &= (uint8_t)~BUNDLE_ADMISSION_NO_CLOCK;
	if (l->no_clock)
		p.admission_flags |= BUNDLE_ADMISSION_NO_CLOCK;
	if (!err && (p.roles != l->old.roles || p.admission_flags != l->old.admission_flags)) {
		changed = true;
		err = store_party(b, l, &p);
	}
	secret_wipe(p.k_adm, sizeof(p.k_adm));
	if (!err)
		err = allow(b, l, &p, &changed);
	if (!l->is_enrolled)
		b->enrolled++;
	else if (changed)
		b->changed++;
	else
		b->unchanged++;
	return err;
}

/* --- passes -------------------------------------------------------------------------------- */

static int read_header(struct bulk *b)
{
	enum csv_result r;
	int err = csv_rewind(&b->csv);

	if (err)
		return fail_file(b, err);
	r = csv_next(&b->csv);
	if (r == CSV_FAILED)
		return fail_file(b, errno ? -errno : -EIO);
	if (r != CSV_RECORD) {
		complain(b, "%s", r == CSV_BAD ? b->csv.error : "empty: the header is missing");
		return fail_bad(b);
	}
	b->n_columns = b->csv.n_fields;
	for (unsigned c = 0; c < COLUMNS; c++)
		b->at[c] = b->n_columns;
	for (unsigned i = 0; i < b->n_columns; i++) {
		const char *name = (const char *)b->csv.fields[i].p;
		unsigned c = 0;

		while (c < COLUMNS && strcmp(name, column_names[c]))
			c++;
		if (c == COLUMNS)
			complain(b, "column \"%.80s\": there are id, scopes, clock and keys", name);
		else if (b->at[c] < b->n_columns)
			complain(b, "column \"%s\" is there twice", name);
		else
			b->at[c] = i;
	}
	for (unsigned c = 0; c < COLUMNS; c++) {
		if (b->at[c] == b->n_columns)
			complain(b, "column \"%s\" is missing in the header", column_names[c]);
	}
	return b->bad ? fail_bad(b) : 0;
}

/* Each line to `visit`, where it is good as it stands. */
static int pass(struct bulk *b, int (*visit)(struct bulk *b, struct line *l))
{
	struct line l = { 0 };
	enum csv_result r;
	int err = read_header(b);

	if (err)
		return err;
	while (!err && (r = csv_next(&b->csv)) != CSV_END) {
		if (r == CSV_FAILED)
			return fail_file(b, errno ? -errno : -EIO);
		if (r == CSV_BAD)
			complain(b, "%s", b->csv.error);
		else if (parse_line(b, &l))
			err = visit(b, &l);
	}
	secret_wipe(&l, sizeof(l)); /* the last one's admission key */
	return err;
}

static int visit_do(struct bulk *b, struct line *l)
{
	int err = check_line(b, l);

	if (!err && !b->bad)
		err = do_line(b, l);
	/* Not what the first pass saw: the file was changed in between, or a party has too much. */
	return err ? err : b->bad ? fail_bad(b) : 0;
}

/* --- labels -------------------------------------------------------------------------------- */

struct label_pass {
	struct bulk b; /* first: visit_label() is given this */
	struct labels sheet;
};

/* A code that waits and lies in the folder; one that was renewed elsewhere is void. */
static int visit_label(struct bulk *b, struct line *l)
{
	struct label_pass *p = container_of(b, struct label_pass, b);
	char text[CLAIM_CODE_SIZE];
	struct party of_code = { 0 };
	struct claim_code code;
	bool found = false;
	int err = find_party(b, l);

	if (err || !l->waits)
		return err;
	err = claimcode_read(b->m, b->o->folder, &b->gateway, l->id, &code, &found);
	if (err == -EEXIST) /* another gateway's */
		return 0;
	if (err || !found)
		return err;
	err = claimcode_apply(b->m, &code, &of_code);
	if (!err && !memcmp(of_code.signing.b, l->old.signing.b, sizeof(l->old.signing.b)) &&
	    !claim_code_encode(&code, text)) {
		err = labels_write_svg(b->m, b->o->folder, l->id, text);
		labels_add(&p->sheet, l->id);
		b->labels++;
		secret_wipe(text, sizeof(text));
	}
	claim_code_wipe(&code);
	secret_wipe(&of_code, sizeof(of_code));
	return err;
}

static int write_labels(struct label_pass *p)
{
	struct bulk *b = &p->b;
	int end, err;

	if (!b->has_gateway && gateway_load(b->m, b->o->gateway, &b->gateway)) {
		b->m->exit_code = 0;
		return 0; /* so no line has a code of it */
	}
	b->q[CLAIM] = registry_query(&b->m->registry, questions[CLAIM]);
	err = labels_begin(b->m, &p->sheet, b->o->folder);
	if (!err)
		err = pass(b, visit_label);
	if (!err && b->labels)
		err = labels_end(b->m, &p->sheet);
	labels_drop(&p->sheet);
	end = close_questions(b);
	return err ? err : end;
}

/* --- the whole ----------------------------------------------------------------------------- */

static int enrol(struct bulk *b)
{
	int end, err = open_questions(b);

	if (!err)
		err = pass(b, check_line);
	if (!err && b->bad)
		err = fail_bad(b);
	if (!err)
		err = forget_lines(b);
	if (!err)
		err = pass(b, visit_do);
	end = close_questions(b);
	if (!err)
		err = end;
	if (!err && b->codes && !b->o->dry_run)
		err = claimcode_sync(b->m, b->o->folder);
	return err;
}

static int run(struct label_pass *p)
{
	struct bulk *b = &p->b;
	int err = manager_begin(b->m);

	if (!err)
		err = enrol(b);
	if (!err && !b->o->dry_run)
		err = manager_commit(b->m);
	if (err || b->o->dry_run)
		manager_rollback(b->m);
	if (!err && !b->o->dry_run)
		err = write_labels(p);
	if (err)
		return err;
	(void)fprintf(b->m->out, "%senrolled=%u changed=%u unchanged=%u codes=%u labels=%u\n",
		      b->o->dry_run ? "dry-run " : "", b->enrolled, b->changed, b->unchanged,
		      b->codes, b->labels);
	return 0;
}

static void find_folder(struct bulk *b)
{
	const char *slash = strrchr(b->o->file, '/');
	size_t n = slash ? (size_t)(slash - b->o->file) + 1 : 0;

	if (n < sizeof(b->folder))
		memcpy(b->folder, b->o->file, n); /* csv_open() has refused a longer path */
}

int bulk_enrol(struct manager *m, const struct bulk_order *o)
{
	struct label_pass *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return manager_fail(m, -ENOMEM, "out of memory");
	p->b.m = m;
	p->b.o = o;
	find_folder(&p->b);
	err = claimcode_check_folder(m, o->folder);
	if (!err) {
		err = csv_open(&p->b.csv, o->file);
		if (err)
			err = fail_file(&p->b, err);
	}
	if (!err)
		err = run(p);
	csv_close(&p->b.csv);
	free(p);
	return err;
}
