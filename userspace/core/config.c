// SPDX-License-Identifier: MIT
#include "userspace/core/config.h"

#include <confuse.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/base/text.h"
#include "userspace/base/file.h"
#include "userspace/core/workers.h"

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

enum kind { KIND_PATH, KIND_ID, KIND_LEVEL, KIND_LISTEN, KIND_ADMISSION, KIND_NUMBER, KIND_FLAG };

/* One option: where its value goes, and what is asked of it. */
struct option {
	const char *name;
	enum kind kind;
	size_t offset; /* in struct config */
	long min, max; /* KIND_NUMBER */
	bool required; /* but in plain mode, which takes only an address */
};

#define AT(field) offsetof(struct config, field)

static const struct option options[] = {
	{ "plain", KIND_FLAG, AT(plain) },
	{ "listen", KIND_LISTEN, AT(listen), .required = true },
	{ "gateway-id", KIND_ID, AT(gateway_id), .required = true },
	{ "manager-key", KIND_PATH, AT(manager_key), .required = true },
	{ "bundle", KIND_PATH, AT(bundle), .required = true },
	{ "state-dir", KIND_PATH, AT(state_dir), .required = true },
	{ "hsm-sockets", KIND_PATH, AT(hsm_sockets), .required = true },
	{ "control-socket", KIND_PATH, AT(control_socket) },
	{ "admission", KIND_ADMISSION, AT(admission) },
	{ "admission-pins", KIND_PATH, AT(admission_pins) },
	{ "workers", KIND_NUMBER, AT(workers), 0, WORKERS_MAX },
	{ "log-level", KIND_LEVEL, AT(log_level) },
};

static const struct option limits[] = {
	{ "packet-bytes-max", KIND_NUMBER, AT(limits.packet_bytes_max), 1024, 268435455 },
	{ "connections-max", KIND_NUMBER, AT(limits.connections_max), 1, 1000000 },
	{ "sessions-max", KIND_NUMBER, AT(limits.sessions_max), 1, 10000000 },
	{ "subscriptions-max", KIND_NUMBER, AT(limits.subscriptions_max), 1, 1000000 },
	{ "retained-max", KIND_NUMBER, AT(limits.retained_max), 1, 10000000 },
	{ "queue-messages-max", KIND_NUMBER, AT(limits.queue_messages_max), 1, 10000000 },
	{ "queue-bytes-max", KIND_NUMBER, AT(limits.queue_bytes_max), 4096, 1 << 30 },
	{ "queue-high-water", KIND_NUMBER, AT(limits.queue_high_water), 1, 10000000 },
	{ "receiver-stall-ms", KIND_NUMBER, AT(limits.receiver_stall_ms), 10, 3600000 },
	{ "inflight-max", KIND_NUMBER, AT(limits.inflight_max), 1, 65535 },
	{ "output-bytes-soft", KIND_NUMBER, AT(limits.output_bytes_soft), 4096, 1 << 28 },
	{ "verify-bytes-max", KIND_NUMBER, AT(limits.verify_bytes_max), 4096, 1 << 30 },
	{ "verify-pending-max", KIND_NUMBER, AT(limits.verify_pending_max), 1, 100000 },
	{ "connect-timeout-ms", KIND_NUMBER, AT(limits.connect_timeout_ms), 100, 3600000 },
	{ "auth-timeout-ms", KIND_NUMBER, AT(limits.auth_timeout_ms), 100, 3600000 },
	{ "convert-deadline-ms", KIND_NUMBER, AT(limits.convert_deadline_ms), 10, 3600000 },
	{ "capsules-max", KIND_NUMBER, AT(limits.capsules_max), 1, 10000000 },
	{ "contexts-max", KIND_NUMBER, AT(limits.contexts_max), 1, 10000000 },
	{ "errors-per-second", KIND_NUMBER, AT(limits.errors_per_second), 1, 100000 },
	{ "reports-queue-max", KIND_NUMBER, AT(limits.reports_queue_max), 1, 100000 },
	{ "admission-connects-per-second", KIND_NUMBER, AT(limits.admission_connects_per_second), 1,
	  1000000 },
	{ "admission-no-clock-ms", KIND_NUMBER, AT(limits.admission_no_clock_ms), 1, 3600000 },
	{ "admission-told-per-second", KIND_NUMBER, AT(limits.admission_told_per_second), 1,
	  1000000 },
	{ "admission-told-total-per-second", KIND_NUMBER,
	  AT(limits.admission_told_total_per_second), 1, 1000000 },
	{ "admission-ban-failures", KIND_NUMBER, AT(limits.admission_ban_failures), 1, 1000000 },
	{ "admission-ban-window-ms", KIND_NUMBER, AT(limits.admission_ban_window_ms), 100,
	  86400000 },
	{ "admission-ban-ms", KIND_NUMBER, AT(limits.admission_ban_ms), 0, 86400000 },
	{ "origins-max", KIND_NUMBER, AT(limits.origins_max), 1, 10000000 },
	{ "output-bytes-hard", KIND_NUMBER, AT(core.output_bytes_hard), 8192, 1 << 30 },
	{ "output-bytes-total", KIND_NUMBER, AT(core.output_bytes_total), 65536, 1 << 30 },
	{ "stall-timeout-ms", KIND_NUMBER, AT(core.stall_timeout_ms), 1000, 3600000 },
	{ "admission-grace-ms", KIND_NUMBER, AT(core.admission_grace_ms), 0, 3600000 },
	{ "admission-pressure-per-second", KIND_NUMBER, AT(core.admission_pressure_per_second), 1,
	  1000000 },
	{ "admission-calm-ms", KIND_NUMBER, AT(core.admission_calm_ms), 1000, 3600000 },
};

/* The engine's stand first. */
#define LIMITS_OF_CORE 6
_Static_assert(sizeof(struct broker_limits) ==
		       (ARRAY_SIZE(limits) - LIMITS_OF_CORE) * sizeof(uint32_t),
	       "each of the engine's limits has an option");

#define OPTIONS (ARRAY_SIZE(options) + ARRAY_SIZE(limits))

/* The one reading that goes on: libconfuse's callbacks carry no context. */
static struct {
	struct config *config;
	const char *file;
	char *why;
	int lines;
	int line_of[OPTIONS]; /* where it stands; 0: nowhere yet */
	char listen_text[LISTENER_MAX][ADDRESS_TEXT_BYTES_MAX];
	bool limits_seen;
} reading;

void config_init(struct config *c)
{
	memset(c, 0, sizeof(*c));
	c->log_level = LOG_LEVEL_INFO;
	broker_limits_default(&c->limits);
	c->core.output_bytes_total = 128u << 20;
	c->core.stall_timeout_ms = 10000;
	c->core.admission_grace_ms = 90000;
	c->core.admission_pressure_per_second = 100;
	c->core.admission_calm_ms = 30000;
	snprintf(c->admission_pins, sizeof(c->admission_pins), "/sys/fs/bpf/ssdtf");
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

static const char *nearest(const char *name, const struct option *list, size_t n,
			   unsigned *ret_edits)
{
	const char *best = NULL;

	*ret_edits = SUGGEST_EDITS_MAX + 1;
	for (size_t i = 0; i < n; i++) {
		unsigned e = edits(name, list[i].name);

		if (e < *ret_edits) {
			*ret_edits = e;
			best = list[i].name;
		}
	}
	return best;
}

/* "did you mean", for a name that is not an option where it stands. Writes at most room bytes. */
static void suggest(const char *name, bool in_limits, char *out, size_t room)
{
	unsigned edits_here, edits_there;
	const struct option *here = in_limits ? limits : options;
	const struct option *there = in_limits ? options : limits;
	const char *best_here = nearest(
		name, here, in_limits ? ARRAY_SIZE(limits) : ARRAY_SIZE(options), &edits_here);
	const char *best_there = nearest(
		name, there, in_limits ? ARRAY_SIZE(options) : ARRAY_SIZE(limits), &edits_there);

	if (best_here && edits_here <= edits_there)
		snprintf(out, room, "; did you mean '%s'?", best_here);
	else if (best_there && in_limits)
		snprintf(out, room, "; did you mean '%s', outside of " LIMITS_SECTION " { }?",
			 best_there);
	else if (best_there)
		snprintf(out, room, "; did you mean '%s', inside of " LIMITS_SECTION " { }?",
			 best_there);
	else
		out[0] = '\0';
}

/* libconfuse's own words, ours behind them; the first error is the one that counts. */
static void say(cfg_t *cfg, const char *fmt, va_list ap) format_printf(2, 0);
static void say(cfg_t *cfg, const char *fmt, va_list ap)
{
	static const char unknown[] = "no such option '";
	char words[CONFIG_ERROR_BYTES / 2], hint[2 * NAME_BYTES_MAX] = "";
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

int config_add_listen(struct config *c, const char *text)
{
	if (c->n_listen == LISTENER_MAX)
		return -E2BIG;
	if (address_parse(text, &c->listen[c->n_listen]))
		return -EINVAL;
	c->n_listen++;
	return 0;
}

static int take_address(cfg_t *cfg, const char *text)
{
	unsigned i = reading.config->n_listen;

	switch (-config_add_listen(reading.config, text)) {
	case 0:
		snprintf(reading.listen_text[i], sizeof(reading.listen_text[i]), "%s", text);
		return 0;
	case E2BIG:
		cfg_error(cfg, "more than %d addresses to listen on", LISTENER_MAX);
		return -1;
	default:
		cfg_error(cfg,
			  "'%s' is not an address to listen on: \"192.0.2.1:1883\" or "
			  "\"[2001:db8::1]:1883\", numeric but for localhost",
			  text);
		return -1;
	}
}

/*
 * Called for each value of the list, and once more at its end. A list that is shorter than what was
 * taken, or has other values, is a second one.
 */
static int take_listen(cfg_t *cfg, cfg_opt_t *opt)
{
	unsigned n = cfg_opt_size(opt);

	for (unsigned i = 0; i < n; i++) {
		const char *text = cfg_opt_getnstr(opt, i);

		if (i >= reading.config->n_listen) {
			if (take_address(cfg, text))
				return -1;
		} else if (n < reading.config->n_listen || strcmp(reading.listen_text[i], text)) {
			cfg_error(cfg, "'listen' stands twice; give one list");
			return -1;
		}
	}
	return 0;
}

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

static int take_id(cfg_t *cfg, cfg_opt_t *opt, char to[CONFIG_ID_BYTES])
{
	const char *text = cfg_opt_getnstr(opt, 0);

	if (!text_is_id(bytes_str(text))) {
		cfg_error(cfg, "'%s' is not an id: 1 to 64 of A-Z a-z 0-9 . _ : -", text);
		return -1;
	}
	snprintf(to, CONFIG_ID_BYTES, "%s", text);
	return 0;
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

static int take_admission(cfg_t *cfg, cfg_opt_t *opt, enum config_admission *to)
{
	static const char *const names[] = {
		[CONFIG_ADMISSION_OFF] = "off",
		[CONFIG_ADMISSION_MONITOR] = "monitor",
		[CONFIG_ADMISSION_ENFORCE] = "enforce",
		[CONFIG_ADMISSION_AUTO] = "auto",
	};
	const char *text = cfg_opt_getnstr(opt, 0);

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		if (!strcmp(text, names[i])) {
			*to = (enum config_admission)i;
			return 0;
		}
	}
	cfg_error(cfg, "'%s' is not a mode of admission: off, monitor, enforce or auto", text);
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

static int take_flag(cfg_opt_t *opt, bool *to)
{
	*to = cfg_opt_getnbool(opt, 0);
	return 0;
}

static const struct option *find(const char *name, unsigned *ret_index)
{
	for (unsigned i = 0; i < OPTIONS; i++) {
		const struct option *o =
			i < ARRAY_SIZE(options) ? &options[i] : &limits[i - ARRAY_SIZE(options)];

		if (!strcmp(o->name, name)) {
			*ret_index = i;
			return o;
		}
	}
	return NULL;
}

/* Each option as it is read, so that an error is on its line. */
static int take(cfg_t *cfg, cfg_opt_t *opt)
{
	unsigned i;
	const struct option *o = find(opt->name, &i);

	BUG_ON(!o);
	if (reading.line_of[i] && o->kind != KIND_LISTEN) {
		cfg_error(cfg, "'%s' stands twice; the first is in line %d", o->name,
			  reading.line_of[i]);
		return -1;
	}
	reading.line_of[i] = cfg->line;
	switch (o->kind) {
	case KIND_LISTEN:
		return take_listen(cfg, opt);
	case KIND_PATH:
		return take_path(cfg, opt, field(reading.config, o));
	case KIND_ID:
		return take_id(cfg, opt, field(reading.config, o));
	case KIND_LEVEL:
		return take_level(cfg, opt, field(reading.config, o));
	case KIND_ADMISSION:
		return take_admission(cfg, opt, field(reading.config, o));
	case KIND_NUMBER:
		return take_number(cfg, opt, o);
	case KIND_FLAG:
		return take_flag(opt, field(reading.config, o));
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
	cfg_opt_t list = CFG_STR_LIST(o->name, NULL, CFGF_NODEFAULT);
	cfg_opt_t number = CFG_INT(o->name, 0, CFGF_NODEFAULT);
	cfg_opt_t flag = CFG_BOOL(o->name, cfg_false, CFGF_NODEFAULT);
	cfg_opt_t opt = string;

	switch (o->kind) {
	case KIND_LISTEN:
		opt = list;
		break;
	case KIND_NUMBER:
		opt = number;
		break;
	case KIND_FLAG:
		opt = flag;
		break;
	case KIND_PATH:
	case KIND_ID:
	case KIND_LEVEL:
	case KIND_ADMISSION:
		break;
	}
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
	if (!reading.why[0])
		return wrong_file("cannot be parsed");
	return -EINVAL;
}

/* What no single line is to blame for. */
static int check_whole(struct config *c)
{
	for (unsigned i = 0; i < ARRAY_SIZE(options); i++)
		if (options[i].required && !reading.line_of[i] &&
		    (!c->plain || options[i].kind == KIND_LISTEN))
			return wrong_file("'%s' is missing", options[i].name);
	if (c->n_listen == 0)
		return wrong_file("'listen' names no address");
	if (c->core.output_bytes_hard && c->core.output_bytes_hard <= c->limits.output_bytes_soft)
		return wrong_file("'output-bytes-hard' (%u) must be above 'output-bytes-soft' (%u)",
				  c->core.output_bytes_hard, c->limits.output_bytes_soft);
	if (c->limits.queue_high_water > c->limits.queue_messages_max)
		return wrong_file(
			"'queue-high-water' (%u) must not be above 'queue-messages-max' (%u)",
			c->limits.queue_high_water, c->limits.queue_messages_max);
	return 0;
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
	if (!err)
		err = check_whole(&c);
	if (!err)
		*ret_c = c;
	return err;
}
