// SPDX-License-Identifier: MIT
#include "bench/flow/run.h"

#include <jansson.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/flow/json.h"
#include "bench/lab/lab.h"
#include "bench/lab/results.h"
#include "userspace/base/log.h"

#define WHY_BYTES 512

struct run_of {
	struct run_options options;
	int argc;
	char **argv;
	struct outcome rounds[RUN_ROUNDS_MAX];
};

static int write_json(struct run_of *r)
{
	struct json_entry e = { .series = "run",
				.scenario = r->options.scenario,
				.n_rounds = r->options.rounds,
				.rounds = r->rounds };
	json_t *root = results_head(r->argc, r->argv, r->options.stage.mosquitto);
	int ret;

	json_entries_set(root, &e, 1);
	ret = results_write(root, r->options.json);
	json_decref(root);
	return ret;
}

static int body(struct lab *lab, void *ctx)
{
	struct run_of *r = ctx;
	const struct run_options *o = &r->options;
	char why[WHY_BYTES], words[WHY_BYTES];
	struct stage *s;

	if (stage_open(lab, &o->stage, &s, why, sizeof(why)))
		exit_with(EX_UNAVAILABLE, "%s", why);
	if (!stage_has(s, o->scenario.server))
		exit_with(EX_UNAVAILABLE, "%s is not there",
			  scenario_server_name(o->scenario.server));
	scenario_words(&o->scenario, words, sizeof(words));
	for (unsigned i = 0; i < o->rounds; i++) {
		log_info("%s, round %u of %u", words, i + 1, o->rounds);
		scenario_run(s, &o->scenario, &r->rounds[i]);
	}
	stage_close(s);
	run_print(&o->scenario, r->rounds, o->rounds, stdout);
	return o->json ? write_json(r) : 0;
}

int run_main(int argc, char **argv)
{
	static struct run_of r;

	r.argc = argc;
	r.argv = argv;
	run_parse(argc, argv, &r.options);
	if (geteuid())
		exit_with(EX_NOPERM, "it makes network namespaces, which takes root: sudo");
	if (r.options.json)
		results_check_path(r.options.json);
	return lab_run(0, body, &r);
}
