// SPDX-License-Identifier: MIT
/*
 * ssdtfctl: an operator asks a running broker, and bans. The one subject so far is admission.
 */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "userspace/base/log.h"
#include "userspace/base/words.h"
#include "userspace/core/answer.h"
#include "userspace/core/source.h"
#include "userspace/ctl/ask.h"
#include "userspace/ctl/show.h"

#define VERSION_TEXT   "ssdtfctl 0.1 (SSDTF/MQTT protocol 1)"
#define DEFAULT_SOCKET "/run/ssdtf/broker.sock"
#define SUBJECT	       "admission"
#define OPERANDS_MAX   2
#define CLEAR_SCREEN   "\033[H\033[2J"

enum { KEY_JSON = 0x100, KEY_ONCE };

struct arguments {
	const char *socket;
	bool json, once;
	const char *subject, *command;
	const char *operands[OPERANDS_MAX];
	unsigned n;
};

/* --- commands --------------------------------------------------------------------------------- */

static uint64_t clock_us(void)
{
	struct timespec ts;

	BUG_ON(clock_gettime(CLOCK_MONOTONIC, &ts));
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* Until a second after at. */
static void sleep_from(uint64_t at_us)
{
	uint64_t until_us = at_us + 1000000;
	const struct timespec until = { .tv_sec = (time_t)(until_us / 1000000),
					.tv_nsec = (long)(until_us % 1000000 * 1000) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

static void flush(void)
{
	if (fflush(stdout) || ferror(stdout))
		exit_with(EX_IOERR, "standard output: %s", strerror(errno));
}

static void sample(struct ask *a, struct show_sample *ret_s)
{
	struct bytes lines = ask_lines(a, "admission");

	ret_s->at_us = clock_us();
	if (answer_read_status(lines, &ret_s->status))
		ask_malformed(a);
}

static void show(struct ask *a, const struct arguments *args)
{
	struct show_sample before, now;

	sample(a, &now);
	if (!args->once) {
		before = now;
		sleep_from(before.at_us);
		sample(a, &now);
	}
	show_admission(&now, args->once ? NULL : &before, args->json, stdout);
}

static void watch(struct ask *a, const struct arguments *args) noreturn_fn;
static void watch(struct ask *a, const struct arguments *args)
{
	bool clear = !args->json && isatty(STDOUT_FILENO);
	struct show_sample before, now;

	sample(a, &before);
	for (;;) {
		sleep_from(before.at_us);
		sample(a, &now);
		if (clear)
			fputs(CLEAR_SCREEN, stdout);
		show_admission(&now, &before, args->json, stdout);
		if (!clear && !args->json)
			putchar('\n');
		flush();
		before = now;
	}
}

static void list(struct ask *a, const char *request, const char *key, struct answer_list *ret_l)
{
	if (answer_read_list(ask_lines(a, "%s", request), key, ret_l))
		ask_malformed(a);
}

static void bans(struct ask *a, const struct arguments *args)
{
	static struct answer_list l;

	list(a, "bans", "ban", &l);
	show_bans(&l, args->json, stdout);
}

static void sources(struct ask *a, const struct arguments *args)
{
	static struct answer_list l;

	list(a, "sources", "source", &l);
	show_sources(&l, args->json, stdout);
}

static const char *source_operand(const struct arguments *args, char text[SOURCE_TEXT_BYTES_MAX])
{
	struct admission_source s;

	if (source_parse(bytes_str(args->operands[0]), &s))
		exit_with(EX_USAGE,
			  "%s: '%s' is no address; give one such as 192.0.2.7 or "
			  "2001:db8:1:2::/64",
			  args->command, args->operands[0]);
	return source_text(&s, text);
}

static uint64_t seconds_operand(const struct arguments *args)
{
	uint64_t seconds;

	if (words_number(bytes_str(args->operands[1]), ANSWER_BAN_SECONDS_MAX, &seconds) ||
	    !seconds)
		exit_with(EX_USAGE, "%s: '%s' is no number of seconds from 1 to %d", args->command,
			  args->operands[1], ANSWER_BAN_SECONDS_MAX);
	return seconds;
}

/* Where bans do not count, that must not go unsaid. */
static void warn_of_mode(struct ask *a)
{
	struct show_sample now;

	sample(a, &now);
	if (!strcmp(now.status.mode, "off") || !strcmp(now.status.mode, "monitor"))
		log_warn("admission is in mode %s: the ban is kept, but refuses nobody",
			 now.status.mode);
}

static void ban(struct ask *a, const struct arguments *args)
{
	char text[SOURCE_TEXT_BYTES_MAX];
	uint64_t seconds = seconds_operand(args);

	(void)ask_lines(a, "ban %s %" PRIu64, source_operand(args, text), seconds);
	if (args->json)
		printf("{\"banned\":\"%s\",\"seconds\":%" PRIu64 "}\n", text, seconds);
	else
		printf("banned %s for %" PRIu64 " seconds\n", text, seconds);
	warn_of_mode(a);
}

static void unban(struct ask *a, const struct arguments *args)
{
	char text[SOURCE_TEXT_BYTES_MAX];

	(void)ask_lines(a, "unban %s", source_operand(args, text));
	if (args->json)
		printf("{\"unbanned\":\"%s\"}\n", text);
	else
		printf("%s is banned no more\n", text);
}

static const struct command {
	const char *name;
	unsigned operands;
	void (*run)(struct ask *a, const struct arguments *args);
} commands[] = {
	{ "show", 0, show }, { "watch", 0, watch }, { "sources", 0, sources },
	{ "bans", 0, bans }, { "ban", 2, ban },	    { "unban", 1, unban },
};

/* --- the command line ------------------------------------------------------------------------- */

static const struct argp_option argp_options[] = {
	{ "socket", 's', "PATH", 0, "The broker's control socket (" DEFAULT_SOCKET ")", 0 },
	{ "json", KEY_JSON, 0, 0, "Say it for programs: one JSON object a line", 0 },
	{ "once", KEY_ONCE, 0, 0, "With show: totals only, without waiting a second for rates", 0 },
	{ 0 },
};

static const char args_doc[] = "admission [show|watch|sources|bans]\n"
			       "admission ban ADDRESS SECONDS\n"
			       "admission unban ADDRESS";

static const char doc[] =
	"Asks a running ssdtf-broker whom it lets in, whom it does not, and why; bans and unbans.\v"
	"  show     what was counted for each reason, in kernel and broker\n"
	"  watch    the same, each second until interrupted\n"
	"  sources  who was rejected most\n"
	"  bans     who is banned, and for how long still\n"
	"  ban      refuses a source; of an IPv6 address the first 64 bits count\n"
	"  unban    lets it in again";

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 's':
		a->socket = arg;
		return 0;
	case KEY_JSON:
		a->json = true;
		return 0;
	case KEY_ONCE:
		a->once = true;
		return 0;
	case ARGP_KEY_ARG:
		if (!a->subject)
			a->subject = arg;
		else if (!a->command)
			a->command = arg;
		else if (a->n < OPERANDS_MAX)
			a->operands[a->n++] = arg;
		else
			argp_error(state, "'%s' is one word too many", arg);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct command *command_of(const struct arguments *a)
{
	const struct command *c = commands;

	if (!a->subject)
		exit_with(EX_USAGE, "what about? Say " SUBJECT);
	if (strcmp(a->subject, SUBJECT) != 0)
		exit_with(EX_USAGE, "'%s' is nothing to ask about; say " SUBJECT, a->subject);
	while (c < commands + ARRAY_SIZE(commands) && strcmp(c->name, a->command) != 0)
		c++;
	if (c == commands + ARRAY_SIZE(commands))
		exit_with(EX_USAGE,
			  "'%s' is no command; there are show, watch, sources, bans, ban and unban",
			  a->command);
	if (a->n != c->operands)
		exit_with(EX_USAGE, "%s takes %s", c->name,
			  c->operands == 2   ? "ADDRESS and SECONDS"
			  : c->operands == 1 ? "ADDRESS"
					     : "no more words");
	if (a->once && c->run != show)
		exit_with(EX_USAGE, "--once is for show");
	return c;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = argp_options, .parser = parse, .args_doc = args_doc, .doc = doc
	};
	struct arguments a = { .socket = DEFAULT_SOCKET };
	const struct command *c;
	struct ask ask;

	argp_program_version = VERSION_TEXT;
	argp_err_exit_status = EX_USAGE;
	log_init("ssdtfctl", LOG_LEVEL_INFO);
	argp_parse(&argp, argc, argv, 0, NULL, &a);
	if (!a.command)
		a.command = "show";
	c = command_of(&a);
	/* Operands are looked at before anybody is asked. */
	if (c->operands > 0)
		source_operand(&a, (char[SOURCE_TEXT_BYTES_MAX]){ 0 });
	if (c->operands > 1)
		seconds_operand(&a);
	ask_open(&ask, a.socket);
	c->run(&ask, &a);
	flush();
	close(ask.fd);
	return EX_OK;
}
