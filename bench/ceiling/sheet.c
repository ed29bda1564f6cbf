// SPDX-License-Identifier: MIT
#include "bench/ceiling/sheet.h"

#include <jansson.h>
#include <string.h>
#include <sysexits.h>

#include "bench/lab/results.h"
#include "userspace/base/log.h"

static const char *text_of(const json_t *head, const char *key)
{
	const char *text = json_string_value(json_object_get(head, key));

	return text ? text : "unknown";
}

static void print_head(const struct sheet *s, const json_t *head)
{
	const json_t *machine = json_object_get(head, "machine");

	for (int i = 0; i < s->argc; i++)
		printf("%s%s", i ? " " : "", s->argv[i]);
	printf("\n%s, commit %s\n%s, %s, %lld CPUs\nOpenSSL: %s; PKCS#11: %s\n",
	       text_of(head, "date"), text_of(head, "commit"), text_of(machine, "kernel"),
	       text_of(machine, "cpu"), json_integer_value(json_object_get(machine, "cpus")),
	       text_of(machine, "openssl"), s->module ? s->module : "none");
}

int sheet_write(const struct sheet *s)
{
	const struct course_plan *p = s->course->plan;
	json_t *head = results_head(s->argc, s->argv, NULL);
	int ret = 0;

	if (!head)
		exit_with(EX_OSERR, "no memory");
	print_head(s, head);
	course_print(s->course, stdout);
	course_print_ratios(s->course, s->ratios, s->n_ratios, stdout);
	(void)fflush(stdout);
	json_object_set_new(head, "rounds", json_integer(p->rounds));
	json_object_set_new(head, "seconds", json_real(p->seconds));
	json_object_set_new(head, "module", s->module ? json_string(s->module) : json_null());
	json_object_set_new(head, "entries", course_entries(s->course, s->ratios, s->n_ratios));
	if (s->json)
		ret = results_write(head, s->json);
	json_decref(head);
	return ret;
}
