// SPDX-License-Identifier: MIT
#include "bench/flow/json.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#define WORDS_BYTES 192
#define ROUNDS_MAX  FIGURE_VALUES_MAX

/* A field of a struct, by its name there. */
enum field_type { FIELD_U32, FIELD_U64, FIELD_REAL, FIELD_BOOL };

struct field {
	const char *name;
	size_t at;
	enum field_type type;
};

/* clang-format off */
#define SCENARIO(name, type) { #name, offsetof(struct scenario, name), type }
#define OUTCOME(name, type)  { #name, offsetof(struct outcome, name), type }
#define LATENCY(name)	     { #name, offsetof(struct outcome_latency, name), FIELD_U64 }
/* clang-format on */

static const struct field scenario_fields[] = {
	SCENARIO(clients, FIELD_U32),  SCENARIO(topics, FIELD_U32),  SCENARIO(qos, FIELD_U32),
	SCENARIO(payload, FIELD_U32),  SCENARIO(window, FIELD_U32),  SCENARIO(rate, FIELD_REAL),
	SCENARIO(seconds, FIELD_REAL), SCENARIO(context, FIELD_U32), SCENARIO(batch, FIELD_U32),
	SCENARIO(hsmd, FIELD_U32),     SCENARIO(workers, FIELD_U32), SCENARIO(idle, FIELD_U32),
	SCENARIO(others, FIELD_U32),
};

static const struct field outcome_fields[] = {
	OUTCOME(seconds, FIELD_REAL),
	OUTCOME(sent, FIELD_U64),
	OUTCOME(delivered, FIELD_U64),
	OUTCOME(lost, FIELD_U64),
	OUTCOME(duplicated, FIELD_U64),
	OUTCOME(disordered, FIELD_U64),
	OUTCOME(wrong, FIELD_U64),
	OUTCOME(opened, FIELD_U64),
	OUTCOME(server_s, FIELD_REAL),
	OUTCOME(core_s, FIELD_REAL),
	OUTCOME(stolen_s, FIELD_REAL),
	OUTCOME(conversions, FIELD_U64),
	OUTCOME(capsule_hits, FIELD_U64),
	OUTCOME(signatures, FIELD_U64),
	OUTCOME(signed_deliveries, FIELD_U64),
	OUTCOME(commits, FIELD_U64),
	OUTCOME(token_packets, FIELD_U64),
	OUTCOME(rss_before_kib, FIELD_U64),
	OUTCOME(rss_idle_kib, FIELD_U64),
	OUTCOME(rss_kib, FIELD_U64),
	OUTCOME(behind, FIELD_BOOL),
};

static const struct field latency_fields[] = {
	LATENCY(n),   LATENCY(min),  LATENCY(p50), LATENCY(p90),
	LATENCY(p99), LATENCY(p999), LATENCY(max),
};

const char *json_metric_name(enum outcome_metric m)
{
	switch (m) {
	case OUTCOME_PER_SECOND:
		return "per_second";
	case OUTCOME_SERVER_US:
		return "server_us";
	case OUTCOME_BROKER_US:
		return "broker_us";
	case OUTCOME_CORE_US:
		return "core_us";
	case OUTCOME_TOKEN_OPS:
		return "token_ops";
	case OUTCOME_P50_US:
		return "p50_us";
	case OUTCOME_P99_US:
		return "p99_us";
	case OUTCOME_MALLOCS:
		return "mallocs_of_a_million";
	case OUTCOME_METRICS:
		break;
	}
	BUG_ON(true);
	return NULL;
}

/* --- to JSON ---------------------------------------------------------------------------------- */

/* JSON has no NAN: null. */
static json_t *real(double v)
{
	return isfinite(v) ? json_real(v) : json_null();
}

static void fields_set(json_t *j, const void *from, const struct field *fields, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const char *at = (const char *)from + fields[i].at;
		json_t *v = NULL;

		switch (fields[i].type) {
		case FIELD_U32:
			v = json_integer(*(const unsigned *)(const void *)at);
			break;
		case FIELD_U64:
			v = json_integer((json_int_t) * (const uint64_t *)(const void *)at);
			break;
		case FIELD_REAL:
			v = real(*(const double *)(const void *)at);
			break;
		case FIELD_BOOL:
			v = json_boolean(*(const bool *)(const void *)at);
			break;
		}
		json_object_set_new(j, fields[i].name, v);
	}
}

static json_t *scenario_json(const struct scenario *s)
{
	json_t *j = json_pack("{s:s, s:s}", "kind", scenario_kind_name(s->kind), "server",
			      scenario_server_name(s->server));

	fields_set(j, s, scenario_fields, ARRAY_SIZE(scenario_fields));
	return j;
}

static json_t *processes_json(const struct outcome *o)
{
	json_t *j = json_array();

	for (unsigned i = 0; i < o->n_processes; i++)
		json_array_append_new(j, json_pack("{s:s, s:o}", "name", o->processes[i].name,
						   "cpu_s", real(o->processes[i].cpu_s)));
	return j;
}

static json_t *values_json(const struct scenario *s, const struct outcome *o)
{
	json_t *j = json_object();

	for (unsigned i = 0; i < OUTCOME_METRICS; i++) {
		enum outcome_metric m = (enum outcome_metric)i;

		json_object_set_new(j, json_metric_name(m), real(outcome_value(s, o, m)));
	}
	return j;
}

static json_t *outcome_json(const struct scenario *s, const struct outcome *o)
{
	json_t *j = json_object(), *latency = json_object();

	fields_set(j, o, outcome_fields, ARRAY_SIZE(outcome_fields));
	fields_set(latency, &o->latency, latency_fields, ARRAY_SIZE(latency_fields));
	json_object_set_new(j, "latency_us", latency);
	json_object_set_new(j, "mallocs",
			    o->mallocs_known ? json_integer((json_int_t)o->mallocs) : json_null());
	json_object_set_new(j, "processes", processes_json(o));
	json_object_set_new(j, "values", values_json(s, o));
	return j;
}

static json_t *entry_json(const struct json_entry *e)
{
	json_t *rounds = json_array();
	char words[WORDS_BYTES];

	scenario_words(&e->scenario, words, sizeof(words));
	for (unsigned i = 0; i < e->n_rounds; i++)
		json_array_append_new(rounds, outcome_json(&e->scenario, &e->rounds[i]));
	return json_pack("{s:s, s:o, s:s, s:o}", "series", e->series, "scenario",
			 scenario_json(&e->scenario), "words", words, "rounds", rounds);
}

void json_entries_set(json_t *root, const struct json_entry *entries, unsigned n)
{
	json_t *all = json_array();

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(all, entry_json(&entries[i]));
	json_object_set_new(root, "entries", all);
}

/* --- and back --------------------------------------------------------------------------------- */

/* Where we are in the file, and what is wrong there. */
struct reading {
	unsigned entry, round;
	bool in_round, bad;
	char *why;
	size_t room;
};

/* The first thing that is wrong is said. */
static void format_printf(2, 3) wrong(struct reading *r, const char *fmt, ...)
{
	char round[32] = "", what[128];
	va_list ap;

	if (r->bad)
		return;
	r->bad = true;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	if (r->in_round)
		snprintf(round, sizeof(round), ", round %u", r->round + 1);
	snprintf(r->why, r->room, "entry %u%s: %s", r->entry + 1, round, what);
}

static const char *string_get(struct reading *r, const json_t *j, const char *name)
{
	const char *s = json_string_value(json_object_get(j, name));

	if (!s)
		wrong(r, "\"%s\" is no string", name);
	return s ? s : "";
}

static uint64_t count_get(struct reading *r, const json_t *v, const char *name, uint64_t max)
{
	json_int_t n = json_integer_value(v);

	if (!json_is_integer(v) || n < 0 || (uint64_t)n > max)
		wrong(r, "\"%s\" is no count", name);
	return (uint64_t)n;
}

static double real_get(struct reading *r, const json_t *v, const char *name)
{
	if (json_is_null(v))
		return NAN;
	if (!json_is_number(v))
		wrong(r, "\"%s\" is no number", name);
	return json_number_value(v);
}

static void fields_get(struct reading *r, const json_t *j, void *to, const struct field *fields,
		       size_t n)
{
	for (size_t i = 0; i < n; i++) {
		void *at = (char *)to + fields[i].at;
		const char *name = fields[i].name;
		const json_t *v = json_object_get(j, name);

		switch (fields[i].type) {
		case FIELD_U32:
			*(unsigned *)at = (unsigned)count_get(r, v, name, UINT32_MAX);
			break;
		case FIELD_U64:
			*(uint64_t *)at = count_get(r, v, name, INT64_MAX);
			break;
		case FIELD_REAL:
			*(double *)at = real_get(r, v, name);
			break;
		case FIELD_BOOL:
			if (!json_is_boolean(v))
				wrong(r, "\"%s\" is neither true nor false", name);
			*(bool *)at = json_is_true(v);
			break;
		}
	}
}

static void scenario_get(struct reading *r, const json_t *j, struct scenario *s)
{
	const char *kind = string_get(r, j, "kind"), *server = string_get(r, j, "server");
	unsigned k = 0, v = 0;

	while (k < SCENARIO_KINDS && strcmp(kind, scenario_kind_name((enum scenario_kind)k)))
		k++;
	while (v < SCENARIO_SERVERS &&
	       strcmp(server, scenario_server_name((enum scenario_server)v)))
		v++;
	if (k == SCENARIO_KINDS)
		wrong(r, "\"%.32s\" is no kind of scenario", kind);
	if (v == SCENARIO_SERVERS)
		wrong(r, "\"%.32s\" is no server", server);
	s->kind = (enum scenario_kind)k;
	s->server = (enum scenario_server)v;
	fields_get(r, j, s, scenario_fields, ARRAY_SIZE(scenario_fields));
}

static void processes_get(struct reading *r, const json_t *j, struct outcome *o)
{
	size_t n = json_array_size(j);

	if (!json_is_array(j) || n > OUTCOME_PROCESSES_MAX) {
		wrong(r, "\"processes\" is no list of up to %d", OUTCOME_PROCESSES_MAX);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		const json_t *p = json_array_get(j, i);

		snprintf(o->processes[i].name, sizeof(o->processes[i].name), "%s",
			 string_get(r, p, "name"));
		o->processes[i].cpu_s = real_get(r, json_object_get(p, "cpu_s"), "cpu_s");
	}
	o->n_processes = (unsigned)n;
}

static void outcome_get(struct reading *r, const json_t *j, struct outcome *o)
{
	const json_t *mallocs = json_object_get(j, "mallocs");

	fields_get(r, j, o, outcome_fields, ARRAY_SIZE(outcome_fields));
	fields_get(r, json_object_get(j, "latency_us"), &o->latency, latency_fields,
		   ARRAY_SIZE(latency_fields));
	o->mallocs_known = !json_is_null(mallocs);
	if (o->mallocs_known)
		o->mallocs = count_get(r, mallocs, "mallocs", INT64_MAX);
	processes_get(r, json_object_get(j, "processes"), o);
}

static void entry_get(struct reading *r, const json_t *j, struct json_entry *e)
{
	const json_t *rounds = json_object_get(j, "rounds");
	size_t n = json_array_size(rounds);

	r->in_round = false;
	snprintf(e->series, sizeof(e->series), "%s", string_get(r, j, "series"));
	scenario_get(r, json_object_get(j, "scenario"), &e->scenario);
	if (!json_is_array(rounds) || n > ROUNDS_MAX)
		wrong(r, "\"rounds\" is no list of up to %d", ROUNDS_MAX);
	if (r->bad)
		return;
	e->rounds = calloc(n ? n : 1, sizeof(e->rounds[0]));
	if (!e->rounds) {
		wrong(r, "out of memory");
		return;
	}
	e->n_rounds = (unsigned)n;
	r->in_round = true;
	for (r->round = 0; !r->bad && r->round < n; r->round++)
		outcome_get(r, json_array_get(rounds, r->round), &e->rounds[r->round]);
}

int json_entries_get(const json_t *root, struct json_entry **ret_entries, unsigned *ret_n,
		     char *ret_why, size_t room)
{
	const json_t *all = json_object_get(root, "entries");
	struct reading r = { .why = ret_why, .room = room };
	size_t n = json_array_size(all);
	struct json_entry *entries;

	if (all && !json_is_array(all)) {
		snprintf(ret_why, room, "\"entries\" is no list");
		return -EINVAL;
	}
	entries = calloc(n ? n : 1, sizeof(entries[0]));
	if (!entries) {
		snprintf(ret_why, room, "out of memory");
		return -EINVAL;
	}
	for (; !r.bad && r.entry < n; r.entry++)
		entry_get(&r, json_array_get(all, r.entry), &entries[r.entry]);
	if (r.bad) {
		json_entries_free(entries, (unsigned)n);
		return -EINVAL;
	}
	*ret_entries = entries;
	*ret_n = (unsigned)n;
	return 0;
}

void json_entries_free(struct json_entry *entries, unsigned n)
{
	for (unsigned i = 0; entries && i < n; i++)
		free(entries[i].rounds);
	free(entries);
}
