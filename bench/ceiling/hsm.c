// SPDX-License-Identifier: MIT
#include <jansson.h>
#include <stdlib.h>
#include <sysexits.h>

#include "bench/ceiling/ceiling.h"
#include "bench/ceiling/options.h"
#include "bench/ceiling/sheet.h"
#include "bench/ceiling/scratch.h"
#include "bench/ceiling/throwaway.h"
#include "bench/ceiling/works_token.h"
#include "bench/lab/results.h"
#include "userspace/base/log.h"

static const struct course_ratio ratios[] = {
	{ .name = "token_convert() / the bare calls", .of = "convert", .to = "bare convert" },
	{ .name = "a conversion / a verification in process", .of = "convert", .to = "verify" },
};

struct run {
	int argc;
	char **argv;
	struct ceiling_options options;
};

static void ready(void *ctx, unsigned which)
{
	token_bed_ready(ctx);
}

/* The token's calls must not be made before fork(): a module need not survive one. */
static int measure(const char *dir, void *ctx)
{
	static struct throwaway throwaway;
	static struct works works;
	struct run *r = ctx;
	const struct ceiling_options *o = &r->options;
	char lock[THROWAWAY_PATH_BYTES];
	struct token_config config = {
		.module = o->module, .label = o->label, .pin_file = o->pin_file, .lock_file = lock
	};
	struct token_bed *bed;
	struct course *course;
	struct crew *crew;
	int ret;

	snprintf(lock, sizeof(lock), "%s/lock", dir);
	if (!o->module) {
		throwaway_make(&throwaway, dir);
		config = throwaway.config;
	}
	bed = token_bed_new(&config);
	works_token(&works, bed);
	crew = crew_start(&works, o->plan.counts[o->plan.n_counts - 1], ready, bed);
	course = course_run(&o->plan, &works, crew);
	crew_stop(crew);
	ret = sheet_write(&(struct sheet){ .argc = r->argc,
					   .argv = r->argv,
					   .course = course,
					   .ratios = ratios,
					   .n_ratios = ARRAY_SIZE(ratios),
					   .module = config.module,
					   .json = o->json });
	free(course);
	free(bed);
	return ret;
}

int ceiling_hsm_main(int argc, char **argv)
{
	struct run r = { .argc = argc, .argv = argv };

	options_hsm(argc, argv, &r.options);
	if (!r.options.module && !throwaway_possible())
		exit_with(EX_UNAVAILABLE, "SoftHSM is not there: apt install softhsm2, or give "
					  "--module, --token and --pin-file");
	if (r.options.json)
		results_check_path(r.options.json);
	return scratch_run(measure, &r);
}
