// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <sysexits.h>

#include "bench/ceiling/cast.h"
#include "bench/ceiling/ceiling.h"
#include "bench/ceiling/options.h"
#include "bench/ceiling/sheet.h"
#include "bench/ceiling/scratch.h"
#include "bench/ceiling/throwaway.h"
#include "bench/ceiling/works_crypto.h"
#include "bench/ceiling/works_token.h"
#include "bench/lab/results.h"
#include "userspace/base/log.h"

/* clang-format off */
#define AGAINST(way, ours)                                                                     \
	{ .name = way " / ours, " ours, .of = "delivery " way, .to = "delivery ours, " ours }
#define AGAINST_AT(bytes, way, ours)                                                           \
	{ .name = way ", " #bytes " B / ours, " ours, .of = "delivery " way, .of_bytes = bytes, \
	  .to = "delivery ours, " ours }
static const struct course_ratio ratios[] = {
	{ .name = "p256.h's verification / EVP's", .of = "p256 verify", .to = "evp verify" },
	{ .name = "p256.h's signature / EVP's", .of = "p256 sign", .to = "evp sign" },
	{ .name = "p256.h's multiplication / EVP's", .of = "p256 multiply", .to = "evp derive" },
	{ .name = "SSDTF-ZK-1 / SSDTF-1, the device's part", .of = "zk prove", .to = "p256 sign" },
	{ .name = "SSDTF-ZK-1 / SSDTF-1, the broker's part", .of = "zk verify",
	  .to = "p256 verify" },
	{ .name = "ingress, E fresh / a verification", .of = "ingress trailer 1", .of_context = 1,
	  .to = "p256 verify" },
	{ .name = "ingress, context of 1000 / a verification", .of = "ingress trailer 1",
	  .of_context = CAST_CONTEXT, .to = "p256 verify" },
	{ .name = "ingress, trailer 1 / trailer 2 in batches of 64", .of = "ingress trailer 1",
	  .of_context = CAST_CONTEXT, .to = "ingress trailer 2", .to_context = CAST_CONTEXT,
	  .to_batch = 64 },
	{ .name = "egress with the token, batch of 1 / of 64", .of = "egress token", .of_batch = 1,
	  .to = "egress token", .to_batch = 64 },
	AGAINST("umbral, proof", "E fresh, token"),
	AGAINST("umbral, proof", "E fresh, in process"),
	AGAINST("umbral, check", "E fresh, in process"),
	AGAINST("umbral, no check", "E fresh, in process"),
	AGAINST("umbral, check and proof", "E fresh, in process"),
	AGAINST("umbral, proof", "capsule remembered"),
	AGAINST_AT(64, "decrypt, E fresh, token", "E fresh, token"),
	AGAINST_AT(1024, "decrypt, E fresh, token", "E fresh, token"),
	AGAINST_AT(64, "decrypt, E fresh, in process", "E fresh, in process"),
	AGAINST_AT(1024, "decrypt, E fresh, in process", "E fresh, in process"),
	AGAINST_AT(64, "decrypt, contexts kept", "capsule remembered"),
	AGAINST_AT(256, "decrypt, contexts kept", "capsule remembered"),
	AGAINST_AT(1024, "decrypt, contexts kept", "capsule remembered"),
};
/* clang-format on */

struct run {
	int argc;
	char **argv;
	struct ceiling_options options;
};

static void ready(void *ctx, unsigned which)
{
	if (ctx)
		token_bed_ready(ctx);
}

static int measure(const char *dir, void *ctx)
{
	static struct throwaway throwaway;
	static struct works works;
	struct run *r = ctx;
	const struct course_plan *p = &r->options.plan;
	struct token_bed *token = NULL;
	struct course *course;
	struct crew *crew;
	int ret;

	if (throwaway_possible()) {
		throwaway_make(&throwaway, dir);
		token = token_bed_new(&throwaway.config);
	}
	works_curve(&works);
	works_bytes(&works);
	works_envelope(&works);
	works_routing(&works);
	works_ingress(&works);
	works_egress(&works, token);
	works_delivery(&works, token);
	crew = crew_start(&works, p->counts[p->n_counts - 1], ready, token);
	course = course_run(p, &works, crew);
	crew_stop(crew);
	ret = sheet_write(&(struct sheet){ .argc = r->argc,
					   .argv = r->argv,
					   .course = course,
					   .ratios = ratios,
					   .n_ratios = ARRAY_SIZE(ratios),
					   .module = token ? throwaway.config.module : NULL,
					   .json = r->options.json });
	free(course);
	free(token);
	return ret;
}

int ceiling_crypto_main(int argc, char **argv)
{
	struct run r = { .argc = argc, .argv = argv };

	options_crypto(argc, argv, &r.options);
	if (r.options.json)
		results_check_path(r.options.json);
	if (!throwaway_possible())
		log_warn("SoftHSM is not there (apt install softhsm2): what needs a token is left "
			 "out");
	return scratch_run(measure, &r);
}
