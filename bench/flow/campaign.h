/* SPDX-License-Identifier: MIT */
/*
 * Many scenarios, run in groups: those of a group take turns within each round (A B A B), so that
 * whatever else the machine does falls on all of them. What was measured is in the file of --json
 * after each group.
 */
#ifndef SSDTF_BENCH_CAMPAIGN_H
#define SSDTF_BENCH_CAMPAIGN_H

#include "bench/flow/json.h"

#define CAMPAIGN_ENTRIES_MAX 256
#define CAMPAIGN_ROUNDS_MAX  16

struct argp;
struct json_t;

struct campaign {
	unsigned rounds;
	double seconds; /* of each window */
	bool quick;	/* fewer points */
	char only[128]; /* fnmatch(3) of what campaign_wants() is given; empty: all */
	const char *json, *programs, *mosquitto;

	unsigned n;
	struct json_entry entries[CAMPAIGN_ENTRIES_MAX];
	unsigned groups[CAMPAIGN_ENTRIES_MAX]; /* ascending */
	struct json_t *root;
	const char *capped_by; /* what limits brokers that are connected to; NULL: nothing can */
};

/* Of a CPU, to them: so that the rate of connects is theirs and not the clients'. */
#define CAMPAIGN_CONNECT_PERCENT 20

/* Options of every campaign, for a command's own argp to have as a child; its input is a campaign
 * with the defaults in it. */
extern const struct argp campaign_argp;

/* Whether --only leaves in what has this for a name. */
bool campaign_wants(const struct campaign *c, const char *words) must_check;
/* The next group: what is added goes in there. */
void campaign_group(struct campaign *c);
/* Its window's length comes from the options. */
void campaign_add(struct campaign *c, const char *series, const struct scenario *s);
/*
 * Measures all of them in a lab, prints with print(), and returns the exit code. What has no server
 * here has no rounds, and that is said. argc, argv: the command's own, for the head of the file.
 */
int campaign_run(struct campaign *c, int argc, char **argv,
		 void (*print)(const struct campaign *c, FILE *to)) must_check;

#endif
