// SPDX-License-Identifier: MIT
#include "userspace/distributor/config.h"

#include <confuse.h>
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/file.h"

#define LIMITS_SECTION	  "limits"
#define NAME_BYTES_MAX	  40
#define FILE_BYTES_MAX	  (1 << 20)
#define SUGGEST_EDITS_MAX 3

/*
 * libconfuse takes the end of the file for the end of a section. So an option is put behind the
 * text, by a name that no file can hold, and is known outside of sections alone.
 */
#define END_NAME "\001"
#define END_LINE "\n" END_NAME " = 1\n"

enum kind { KIND_PATH, KIND_LEVEL, KIND_ADDRESS, KIND_NUMBER };

/* One option: where its value goes, and what is asked of it. */
struct option {
	const char *name;
	enum kind kind;
	size_t offset; /* in struct config */
	long min, max; /* KIND_NUMBER */
	bool optional;
};

#define AT(field) offsetof(struct config, field)

static const struct option options[] = {
	{ "manager-key", KIND_PATH, AT(manager_key) },
	{ "bundle", KIND_PATH, AT(bundle) },
	{ "state-dir", KIND_PATH, AT(state_dir) },
	{ "hsm-sockets", KIND_PATH, AT(hsm_sockets) },
	{ "upstream", KIND_ADDRESS, AT(upstream) },
	{ "downstream", KIND_ADDRESS, AT(downstream), .optional = true },
	{ "log-level", KIND_LEVEL, AT(log_level), .optional = true },
};

static const struct option limits[] = {
	{ "messages-max", KIND_NUMBER, AT(limits.messages_max), 1, 1000000 },
	{ "window", KIND_NUMBER, AT(limits.window), 1, 128 },
	{ "capsules-max", KIND_NUMBER, AT(limits.capsules_max), 1, 10000000 },
	{ "names-max", KIND_NUMBER, AT(limits.names_max), 1, 10000000 },
	{ "packet-bytes-max", KIND_NUMBER, AT(limits.packet_bytes_max), 1024, 268435455 },
	{ "keepalive-s", KIND_NUMBER, AT(limits.keepalive_s), 5, 3600 },
	{ "reports-per-second", KIND_NUMBER, AT(limits.reports_per_second), 0, 1000 },
	{ "anonymity-period-s", KIND_NUMBER, AT(limits.anonymity_period_s), 60, 31536000 },
	{ "trace-days", KIND_NUMBER, AT(limits.trace_days), 0, 36500 },
};

#define OPTIONS (ARRAY_SIZE(options) + ARRAY_SIZE(limits))

/* The one reading that goes on: libconfuse's callbacks carry no context. */
static struct {
	struct config *config;
	const char *file;
	char *why;
	int lines;
	int line_of[OPTIONS]; /* where it stands; 0: nowhere yet */
	bool limits_seen;
} reading;

static void config_init(struct config *c)
{
	*c = (struct config){
		.log_level = LOG_LEVEL_INFO,
		.limits = {
			.messages_max = 4096,
			.window = 100,
			.capsules_max = 65536,
			.names_max = 262144,
			.packet_bytes_max = 1 << 20,
			.keepalive_s = 60,
			.reports_per_second = 10,
			.anonymity_period_s = 86400,
		},
	};
}

static void *field(struct config *c, const struct option *o)
{
	return (char *)c + o->offset;
}

/* --- errors ----------------------------------------------------------------------------------- */

/* Edits (change, insert, leave out a character) that make b of a, up to NAME_BYTES_MAX characters.
 */
static unsigned edits(const char *a, const char *b)
{
	unsigned row[2][NAME_BYTES_MAX + 1];
	size_t na = strlen(a), nb = strlen(b);

	if (na > NAME_BYTES_MAX || nb > NAME_BYTES_MAX)
		return NAME_BYTES_MAX;
	for (unsigned j = 0; j <= nb; j++)
		row[0][j] = j;
	for (unsigned i = 1; i <= na; i++) {
		unsigned *now = row[i % 2], *last = row[(i - 1) % 2];

		now[0] = i;
		for (unsigned j = 1; j <= nb; j++) {
			unsigned least = last[j - 1] + (a[i - 1] != b[j - 1]);

			if (last[j] + 1 < least)
				least = last[j] + 1;
			if (now[j - 1] + 1 < least)
				least = now[j - 1] + 1;
			now[j] = least;
		}
	}
	return row[na % 2][nb];
}

static const struct option *option_at(unsigned i)
{
	return i < ARRAY_SIZE(options) ? &options[i] : &limits[i - ARRAY_SIZE(options)];
}

/* "did you mean", for a name that is not an option where it stands. Writes at most room bytes. */
static void suggest(const char *name, bool in_limits, char *out, size_t room)
{
	unsigned least = SUGGEST_EDITS_MAX + 1, best = OPTIONS;
	bool best_in_limits;

	for (unsigned i = 0; i < OPTIONS; i++) {
		unsigned e = edits(name, option_at(i)->name);

		if (e < least) {
			least = e;
			best = i;
		}
	}
	out[0] = '\0';
	if (best == OPTIONS)
		return;
	best_in_limits = best >= ARRAY_SIZE(options);
	snprintf(out, room, "; did you mean '%s'%s?", option_at(best)->name,
		 best_in_limits == in_limits ? ""
		 : best_in_limits	     ? ", inside of " LIMITS_SECTION " { }"
					     : ", outside of " LIMITS_SECTION " { }");
}

/* libconfuse's own words, ours behind them; the first error is the one that counts. */
static void say(cfg_t *cfg, const char *fmt, va_list ap) format_printf(2, 0);
static void say(cfg_t *cfg, const char *fmt, va_list ap)
{
	static const char unknown[] = "no such option '";
	char words[CONFIG_ERROR_BYTES / 2], hint[3 * NAME_BYTES_MAX] = "";
	char name[NAME_BYTES_MAX + 1];

	if (reading.why[0])
		return;
	vsnprintf(words, sizeof(words), fmt, ap);
	if (strstr(words, END_NAME)) {
		snprintf(words, sizeof(words), "a section is still open at the end of the file");
	} else if (!strncmp(words, unknown, sizeof(unknown) - 1)) {
		snprintf(name, sizeof(name), "%.*s", NAME_BYTES_MAX, words + sizeof(unknown) - 1);
		name[strcspn(name, "'")] = '\0';
		suggest(name, !strcmp(cfg_name(cfg), LIMITS_SECTION), hint, sizeof(hint));
	}
	snprintf(reading.why, CONFIG_ERROR_BYTES, "%s:%d: %s%s", reading.file,
		 cfg->line < reading.lines ? cfg->line : reading.lines, words, hint);
}

static int wrong_file(const char *fmt, ...) format_printf(1, 2);
static int wrong_file(const char *fmt, ...)
{
	char words[CONFIG_ERROR_BYTES / 2];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(words, sizeof(words), fmt, ap);
	va_end(ap);
	snprintf(reading.why, CONFIG_ERROR_BYTES, "%s: %s", reading.file, words);
	return -EINVAL;
}

/* --- values ----------------------------------------------------------------------------------- */

static int take_path(cfg_t *cfg, cfg_opt_t *opt, char to[CONFIG_PATH_BYTES])
{
	const char *text = cfg_opt_getnstr(opt, 0), *slash = strrchr(reading.file, '/');
	int dir = slash && text[0] != '/' ? (int)(slash - reading.file) + 1 : 0;

	if (!text[0]) {
		cfg_error(cfg, "'%s' is empty", opt->name);
		return -1;
	}
	if (snprintf(to, CONFIG_PATH_BYTES, "%.*s%s", dir, reading.file, text) >=
	    CONFIG_PATH_BYTES) {
		cfg_error(cfg, "'%s' is longer than %d bytes", opt->name, CONFIG_PATH_BYTES - 1);
		return -1;
	}
	return 0;
}

/* HOST:PORT or [HOST]:PORT; host in numbers, or localhost, which is 127.0.0.1. */
static int parse_address(const char *text, struct config_address *to)
{
	const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
					.ai_socktype = SOCK_STREAM };
	const char *colon = strrchr(text, ':');
	char host[sizeof(to->text)];
	struct addrinfo *found;
	bool bracket = text[0] == '[';
	size_t n;

	if (!colon || !colon[1] || strlen(text) >= sizeof(to->text))
		return -EINVAL;
	n = (size_t)(colon - text);
	if (bracket ? n < 3 || text[n - 1] != ']' : n < 1 || memchr(text, ':', n) != NULL)
		return -EINVAL;
	snprintf(host, sizeof(host), "%.*s", (int)(bracket ? n - 2 : n), text + bracket);
	if (strchr(host, ':') ? !bracket : bracket)
		return -EINVAL;
	if (getaddrinfo(strcmp(host, "localhost") ? host : "127.0.0.1", colon + 1, &hints, &found))
		return -EINVAL;
	*to = (struct config_address){ .len = found->ai_addrlen };
	memcpy(&to->sa, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	snprintf(to->text, sizeof(to->text), "%s", text);
	return 0;
}

static int take_address(cfg_t *cfg, cfg_opt_t *opt, struct config_address *to)
{
	const char *text = cfg_opt_getnstr(opt, 0);

	if (!parse_address(text, to))
		return 0;
	cfg_error(cfg,
		  "'%s' is not a broker's address: \"192.0.2.1:1883\" or \"[2001:db8::1]:1883\", "
		  "numeric but for localhost",
		  text);
	return -1;
}

static int take_level(cfg_t *cfg, cfg_opt_t *opt, enum log_level *to)
{
	static const char *const names[] = {
		[LOG_LEVEL_ERROR] = "error",
		[LOG_LEVEL_WARN] = "warning",
		[LOG_LEVEL_INFO] = "info",
		[LOG_LEVEL_DEBUG] = "debug",
	};
	const char *text = cfg_opt_getnstr(opt, 0);

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		if (!strcmp(text, names[i])) {
			*to = (enum log_level)i;
			return 0;
		}
	}
	cfg_error(cfg, "'%s' is not a log level: error, warning, info or debug", text);
	return -1;
}

static int take_number(cfg_t *cfg, cfg_opt_t *opt, const struct option *o)
{
	long n = cfg_opt_getnint(opt, 0);
	uint32_t value;

	if (n < o->min || n > o->max) {
		cfg_error(cfg, "'%s' is %ld; it may be from %ld to %ld", o->name, n, o->min,
			  o->max);
		return -1;
	}
	value = (uint32_t)n;
	memcpy(field(reading.config, o), &value, sizeof(value));
	return 0;
}

static unsigned find(const char *name)
{
	unsigned i = 0;

	while (i < OPTIONS && strcmp(option_at(i)->name, name))
		i++;
	BUG_ON(i == OPTIONS);
	return i;
}

/* Each option as it is read, so that an error is on its line. */
static int take(cfg_t *cfg, cfg_opt_t *opt)
{
	unsigned i = find(opt->name);
	const struct option *o = option_at(i);

	if (reading.line_of[i]) {
		cfg_error(cfg, "'%s' stands twice; the first is in line %d", o->name,
			  reading.line_of[i]);
		return -1;
	}
	reading.line_of[i] = cfg->line;
	switch (o->kind) {
	case KIND_PATH:
		return take_path(cfg, opt, field(reading.config, o));
	case KIND_LEVEL:
		return take_level(cfg, opt, field(reading.config, o));
	case KIND_ADDRESS:
		return take_address(cfg, opt, field(reading.config, o));
	case KIND_NUMBER:
		return take_number(cfg, opt, o);
	}
	return -1;
}

static int take_section(cfg_t *cfg, cfg_opt_t *opt)
{
	if (reading.limits_seen) {
		cfg_error(cfg, "'%s' stands twice", opt->name);
		return -1;
	}
	reading.limits_seen = true;
	return 0;
}

/* --- the file --------------------------------------------------------------------------------- */

/* An option of libconfuse's, without a default: ours stand in struct config already. */
static cfg_opt_t cfg_option(const struct option *o)
{
	cfg_opt_t string = CFG_STR(o->name, NULL, CFGF_NODEFAULT);
	cfg_opt_t number = CFG_INT(o->name, 0, CFGF_NODEFAULT);
	cfg_opt_t opt = o->kind == KIND_NUMBER ? number : string;

	opt.validcb = take;
	return opt;
}

static int parse(FILE *f)
{
	cfg_opt_t in_limits[ARRAY_SIZE(limits) + 1], all[ARRAY_SIZE(options) + 3];
	cfg_opt_t section = CFG_SEC(LIMITS_SECTION, in_limits, CFGF_NONE);
	cfg_opt_t end_line = CFG_INT(END_NAME, 0, CFGF_NODEFAULT), end = CFG_END();
	cfg_t *cfg;
	int code;

	for (unsigned i = 0; i < ARRAY_SIZE(limits); i++)
		in_limits[i] = cfg_option(&limits[i]);
	in_limits[ARRAY_SIZE(limits)] = end;
	for (unsigned i = 0; i < ARRAY_SIZE(options); i++)
		all[i] = cfg_option(&options[i]);
	section.validcb = take_section;
	all[ARRAY_SIZE(options)] = section;
	all[ARRAY_SIZE(options) + 1] = end_line;
	all[ARRAY_SIZE(options) + 2] = end;
	cfg = cfg_init(all, CFGF_NONE);
	if (!cfg)
		return wrong_file("no memory");
	cfg_set_error_function(cfg, say);
	code = cfg_parse_fp(cfg, f);
	cfg_free(cfg);
	if (code == CFG_SUCCESS && !reading.why[0])
		return 0;
	return reading.why[0] ? -EINVAL : wrong_file("cannot be parsed");
}

/*
 * libconfuse's scanner prints what it does not know to stdout, and ends the process where it cannot
 * read: so it gets text that was read already, without such characters.
 */
static int check_text(const uint8_t *text, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t c = text[i];

		reading.lines += i == 0 || text[i - 1] == '\n';
		if ((c >= 0x20 && c != 0x7f && c != '\\') || c == '\n' || c == '\t' || c == '\r')
			continue;
		snprintf(reading.why, CONFIG_ERROR_BYTES, "%s:%d: %s has no place here",
			 reading.file, reading.lines,
			 c == '\\' ? "a backslash" : "a control character");
		return -EINVAL;
	}
	return 0;
}

static int parse_text(const uint8_t *text, size_t n)
{
	size_t whole = n + sizeof(END_LINE) - 1;
	int err = check_text(text, n);
	char *copy;
	FILE *f;

	if (err)
		return err;
	copy = malloc(whole);
	f = copy ? fmemopen(copy, whole, "r") : NULL;
	if (!f) {
		free(copy);
		return wrong_file("no memory");
	}
	memcpy(copy, text, n);
	memcpy(copy + n, END_LINE, sizeof(END_LINE) - 1);
	err = parse(f);
	fclose(f);
	free(copy);
	return err;
}

int config_read(const char *file, struct config *ret_c, char why[CONFIG_ERROR_BYTES])
{
	struct config c;
	uint8_t *text;
	size_t n;
	int err;

	config_init(&c);
	memset(&reading, 0, sizeof(reading));
	reading.config = &c;
	reading.file = file;
	reading.why = why;
	why[0] = '\0';
	err = file_read(AT_FDCWD, file, FILE_BYTES_MAX, &text, &n, NULL);
	if (err) {
		snprintf(why, CONFIG_ERROR_BYTES, "%s: %s", file,
			 err == -EINVAL || err == -EISDIR ? "is not a regular file"
							  : strerror(-err));
		return err;
	}
	err = parse_text(text, n);
	free(text);
	for (unsigned i = 0; i < ARRAY_SIZE(options) && !err; i++)
		if (!options[i].optional && !reading.line_of[i])
			err = wrong_file("'%s' is missing", options[i].name);
	if (!err)
		*ret_c = c;
	return err;
}
