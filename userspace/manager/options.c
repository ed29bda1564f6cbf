// SPDX-License-Identifier: MIT
#include "userspace/manager/options.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "userspace/base/compiler.h"
#include "userspace/crypto/hpke.h"
#include "userspace/manager/outlet.h"
#include "userspace/manager/rotate.h"
#include "userspace/manager/scope.h"
#include "userspace/manager/update.h"

#define KEY_FIRST 0x100 /* argp keys without a short option */

enum kind { KIND_TEXT, KIND_NUMBER, KIND_FLAG, KIND_FILTER };

static const struct row {
	const char *name, *argument, *doc;
	enum kind kind;
	uint32_t least, most, standard; /* KIND_NUMBER */
	char letter;			/* the short option, as ssdtf-pub has it */
} rows[OPTION_COUNT] = {
	[OPTION_DIR] = { "dir", "DIR",
			 "state directory ($SSDTF_ADMIN_DIR, else /var/lib/ssdtf-manager)" },
	[OPTION_MODULE] = { "module", "PATH", "PKCS#11 module of the manager's token" },
	[OPTION_TOKEN] = { "token", "LABEL", "label of the manager's token" },
	[OPTION_PIN_FILE] = { "pin-file", "FILE", "file whose first line is the token's PIN" },
	[OPTION_ADOPT] = { "adopt", NULL, "take over the keys that the token has", KIND_FLAG },
	[OPTION_ID] = { "id", "ID", "MQTT client id: 1 to 64 of A-Z a-z 0-9 . _ : -" },
	[OPTION_PUBLIC] = { "public", "FILE", "public signing key, PEM" },
	[OPTION_ENCRYPTION] = { "encryption", "FILE", "public encryption key, PEM" },
	[OPTION_GENERATE] = { "generate", "FOLDER",
			      "make the keys here: signing.pem, encryption.pem" },
	[OPTION_CLOCK] = { "clock", NULL, "it has a clock (as a new party has)", KIND_FLAG },
	[OPTION_NO_CLOCK] = { "no-clock", NULL, "admit it with slot 0: it has no clock",
			      KIND_FLAG },
	[OPTION_ZK] = { "zk", NULL,
			"it authenticates by SSDTF-ZK-1: its id is made of its key (no --id)",
			KIND_FLAG },
	[OPTION_NAME] = { "name", "NAME", "its name" },
	[OPTION_FILTER] = { "filter", "FILTER", "MQTT topic filter, may be repeated", KIND_FILTER },
	[OPTION_SUITE] = { "suite", "1|2", "1: AES-128-GCM (standard), 2: ChaCha20-Poly1305",
			   KIND_NUMBER, HPKE_SUITE_AES_128_GCM, HPKE_SUITE_CHACHA20_POLY1305,
			   HPKE_SUITE_AES_128_GCM },
	[OPTION_REKEY_MESSAGES] = { "rekey-messages", "N",
				    "a sender opens a new context after so many (65536)",
				    KIND_NUMBER, 1, SCOPE_REKEY_MESSAGES_MAX,
				    SCOPE_REKEY_MESSAGES_MAX },
	[OPTION_REKEY_SECONDS] = { "rekey-seconds", "N", "and at the latest after so long (3600)",
				   KIND_NUMBER, 1, SCOPE_REKEY_SECONDS_MAX,
				   SCOPE_REKEY_SECONDS_MAX },
	[OPTION_VALID_DAYS] = { "valid-days", "N", "valid so long (no end)", KIND_NUMBER, 1,
				SCOPE_VALID_DAYS_MAX, 0 },
	[OPTION_SCOPE] = { "scope", "NAME", "the scope" },
	[OPTION_DEVICE] = { "device", "ID", "the device" },
	[OPTION_RECEIVER] = { "receiver", "ID", "the receiver" },
	[OPTION_GATEWAY] = { "gateway", "ID", "the gateway (the only one)" },
	[OPTION_NO_PROOF] = { "no-proof", NULL, "do without the sender's own signature",
			      KIND_FLAG },
	[OPTION_OUT] = { "out", "FILE", "file to write" },
	[OPTION_OUT_DIR] = { "out-dir", "FOLDER", "folder to write into" },
	[OPTION_DISTRIBUTOR] = { "distributor", "ID", "the distributor" },
	[OPTION_OUTLET] = { "outlet", "NAME", "the outlet" },
	[OPTION_TOPIC] = { "topic", "PREFIX", "what its public topics begin with" },
	[OPTION_IDS] = { "ids", "own|shared|DOMAIN",
			 "external ids: its own (standard), or those of all that say the same" },
	[OPTION_ROTATE_SECONDS] = { "rotate-seconds", "N", "external ids change so often (never)",
				    KIND_NUMBER, 1, OUTLET_ROTATE_SECONDS_MAX, 0 },
	[OPTION_DRY_RUN] = { "dry-run", NULL, "say what would change, and change nothing",
			     KIND_FLAG },
	[OPTION_OVERLAP_HOURS] = { "overlap-hours", "N", "the old one holds so long (24)",
				   KIND_NUMBER, 0, ROTATE_OVERLAP_HOURS_MAX,
				   ROTATE_OVERLAP_HOURS_STANDARD },
	[OPTION_KEEP_DAYS] = { "keep-days", "N",
			       "and so much longer what was sealed to it is converted (30)",
			       KIND_NUMBER, 0, ROTATE_KEEP_DAYS_MAX, ROTATE_KEEP_DAYS_STANDARD },
	[OPTION_ALL] = { "all", NULL, "every party", KIND_FLAG },
	[OPTION_FROM] = { "from", "TIME", "when it begins, as 2027-01-31T23:59:59Z" },
	[OPTION_IN_HOURS] = { "in-hours", "N", "when it begins, from now", KIND_NUMBER, 0,
			      ROTATE_OVERLAP_HOURS_MAX, 0 },
	[OPTION_UPDATE_DAYS] = { "update-days", "N",
				 "bundles carry what is stated anew so long (30)", KIND_NUMBER, 1,
				 SCOPE_VALID_DAYS_MAX, UPDATE_DAYS_STANDARD },
	[OPTION_PADDED] = { "padded", NULL, "plaintexts are padded to size classes", KIND_FLAG },
	[OPTION_AT] = { "at", "TIME", "2026-01-31T23:59:59Z or 2026-01-31, in UTC" },
	[OPTION_REASON] = { "reason", "TEXT", "why; it is kept in the audit log" },
	[OPTION_TABLE] = { "table", "FILE", "a distributor's table of external ids, or a copy" },
	[OPTION_JSON] = { "json", NULL, "as JSON", KIND_FLAG },
	[OPTION_PARTY_DIR] = { "party-dir", "FOLDER",
			       "keys and bundle of the manager's client, as ssdtf-pub has them" },
	[OPTION_AS] = { "as", "ID", "id of that client (its bundle's)" },
	[OPTION_HOST] = { "host", "HOST", "the gateway's broker", .letter = 'h' },
	[OPTION_PORT] = { "port", "PORT", "its port (1883)", KIND_NUMBER, 1, 65535, 1883, 'p' },
	[OPTION_TIMEOUT] = { "timeout", "S", "give up after so long (120)", KIND_NUMBER, 1, 86400,
			     120 },
	[OPTION_PUSH] = { "push", NULL, "bring the gateway a new bundle when something changed",
			  KIND_FLAG },
	[OPTION_SINCE] = { "since", "N", "from this number on (1)", KIND_NUMBER, 1, UINT32_MAX, 1 },
};

_Static_assert(OPTION_COUNT <= 64, "options.given has a bit for each");

static char version_text[] = "ssdtf-admin, SSDTF/MQTT protocol 1";

void options_init(struct options *o)
{
	*o = (struct options){ 0 };
	for (size_t i = 0; i < OPTION_COUNT; i++)
		o->number[i] = rows[i].standard;
	o->text[OPTION_DIR] = getenv("SSDTF_ADMIN_DIR");
	if (!o->text[OPTION_DIR])
		o->text[OPTION_DIR] = "/var/lib/ssdtf-manager";
	argp_program_version = version_text;
	argp_err_exit_status = EX_USAGE;
}

/* --- one option ---------------------------------------------------------------------------- */

static void take_number(struct options *o, enum option_name which, char *arg,
			struct argp_state *state)
{
	const struct row *row = &rows[which];
	unsigned long long v;
	char *end;

	errno = 0;
	v = strtoull(arg, &end, 10);
	if (*arg < '0' || *arg > '9' || *end || errno || v < row->least || v > row->most)
		argp_error(state, "--%s: \"%s\" is no number from %u to %u", row->name, arg,
			   row->least, row->most);
	o->number[which] = (uint32_t)v;
}

static void take_filter(struct options *o, char *arg, struct argp_state *state)
{
	if (o->n_filters == RECORD_FILTERS_MAX)
		argp_error(state, "more than %d filters", RECORD_FILTERS_MAX);
	o->filters[o->n_filters++] = arg;
	o->given |= OPTION_BIT(OPTION_FILTER);
}

static void take(struct options *o, enum option_name which, char *arg, struct argp_state *state)
{
	bool again = options_has(o, which);

	o->given |= OPTION_BIT(which);
	switch (rows[which].kind) {
	case KIND_TEXT:
		if (again && !(OPTION_BIT(which) & OPTION_GLOBAL))
			argp_error(state, "--%s: twice", rows[which].name);
		o->text[which] = arg;
		return;
	case KIND_NUMBER:
		take_number(o, which, arg, state);
		return;
	case KIND_FILTER:
		take_filter(o, arg, state);
		return;
	case KIND_FLAG:
		return;
	}
}

static int key_of(int which)
{
	return rows[which].letter ? rows[which].letter : KEY_FIRST + which;
}

/* Of argp's key; OPTION_COUNT: none of ours. */
static int option_of(int key)
{
	int i = 0;

	while (i < OPTION_COUNT && key_of(i) != key)
		i++;
	return i;
}

/* The options of mask as argp wants them, ended by an empty one. */
static void fill(struct argp_option out[OPTION_COUNT + 1], uint64_t mask)
{
	size_t n = 0;

	for (int i = 0; i < OPTION_COUNT; i++) {
		if (mask & OPTION_BIT(i))
			out[n++] =
				(struct argp_option){ .name = rows[i].name,
						      .key = key_of(i),
						      .arg = rows[i].argument,
						      .doc = rows[i].doc,
						      .group = !!(OPTION_BIT(i) & OPTION_GLOBAL) };
	}
	out[n] = (struct argp_option){ 0 };
}

/* --- the command line ---------------------------------------------------------------------- */

struct parse {
	struct options *o;
	const struct options_rules *rules;
	int command_at;
};

static error_t parse_global(int key, char *arg, struct argp_state *state)
{
	struct parse *p = state->input;

	if (option_of(key) < OPTION_COUNT) {
		take(p->o, (enum option_name)option_of(key), arg, state);
		return 0;
	}
	if (key != ARGP_KEY_ARG)
		return ARGP_ERR_UNKNOWN;
	/* The command: what follows it is the command's. */
	p->command_at = state->next - 1;
	state->next = state->argc;
	return 0;
}

int options_parse_global(struct options *o, int argc, char **argv, const char *commands)
{
	struct argp_option options[OPTION_COUNT + 1];
	struct parse p = { .o = o, .command_at = argc };
	const struct argp argp = { .options = options,
				   .parser = parse_global,
				   .args_doc = "COMMAND [OPTION...]",
				   .doc = commands };

	fill(options, OPTION_GLOBAL);
	(void)argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &p); /* ends us where it fails */
	return p.command_at;
}

static const char *name_of(uint64_t bit)
{
	return rows[__builtin_ctzll(bit)].name;
}

static void check(const struct parse *p, struct argp_state *state)
{
	uint64_t missing = p->rules->needs & ~p->o->given;
	uint64_t one_of = p->rules->one_of & p->o->given;

	if (options_has(p->o, OPTION_ZK))
		missing &= ~OPTION_BIT(OPTION_ID); /* it follows from the key */
	if (missing)
		argp_error(state, "--%s is missing", name_of(missing));
	if (p->rules->one_of && !one_of)
		argp_error(state, "--%s or --%s is missing", name_of(p->rules->one_of),
			   name_of(p->rules->one_of & (p->rules->one_of - 1)));
	if (one_of & (one_of - 1))
		argp_error(state, "--%s and --%s exclude each other", name_of(one_of),
			   name_of(one_of & (one_of - 1)));
	if (options_has(p->o, OPTION_CLOCK) && options_has(p->o, OPTION_NO_CLOCK))
		argp_error(state, "--clock and --no-clock exclude each other");
	/* Who is new brings both keys. */
	if (p->rules->one_of & OPTION_BIT(OPTION_PUBLIC) &&
	    p->rules->takes & OPTION_BIT(OPTION_ENCRYPTION) &&
	    options_has(p->o, OPTION_PUBLIC) != options_has(p->o, OPTION_ENCRYPTION))
		argp_error(state, "--public and --encryption belong together");
	if (p->rules->word && !p->o->word)
		argp_error(state, "%s is missing", p->rules->word);
}

static error_t parse_command(int key, char *arg, struct argp_state *state)
{
	struct parse *p = state->input;

	if (option_of(key) < OPTION_COUNT) {
		take(p->o, (enum option_name)option_of(key), arg, state);
		return 0;
	}
	switch (key) {
	case ARGP_KEY_ARG:
		if (p->rules->takes & OPTION_BIT(OPTION_FILTER))
			take_filter(p->o, arg, state);
		else if (p->rules->word && !p->o->word)
			p->o->word = arg;
		else
			argp_error(state, "\"%s\" is one too many", arg);
		return 0;
	case ARGP_KEY_END:
		check(p, state);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

void options_parse(struct options *o, const struct options_rules *rules, int argc, char **argv)
{
	struct argp_option options[OPTION_COUNT + 1];
	struct parse p = { .o = o, .rules = rules };
	const struct argp argp = {
		.options = options,
		.parser = parse_command,
		.args_doc = rules->takes & OPTION_BIT(OPTION_FILTER) ? "[FILTER...]" : rules->word,
		.doc = rules->doc,
	};
	char *keep = argv[0];
	char name[64];

	(void)snprintf(name, sizeof(name), "%s", rules->usage);
	fill(options, OPTION_GLOBAL | rules->takes);
	argv[0] = name; /* what argp begins its messages with */
	(void)argp_parse(&argp, argc, argv, 0, NULL, &p);
	argv[0] = keep;
}
