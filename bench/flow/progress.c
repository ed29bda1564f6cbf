// SPDX-License-Identifier: MIT
#include "bench/flow/progress.h"

#include <inttypes.h>

#include "userspace/base/log.h"

#define NS_PER_S ((uint64_t)1000000000)

void progress_init(struct progress *p, bool quiet)
{
	*p = (struct progress){ .quiet = quiet };
}

void progress_tick(struct progress *p, uint64_t now_ns, uint64_t delivered)
{
	if (!p->begun_ns) {
		p->begun_ns = p->last_ns = now_ns;
		p->next_ns = now_ns + NS_PER_S;
		p->last = delivered;
	}
	if (p->quiet || now_ns < p->next_ns)
		return;
	log_info("%2" PRIu64 " s: %" PRIu64 " deliveries, %.0f a second",
		 (now_ns - p->begun_ns) / NS_PER_S, delivered,
		 (double)(delivered - p->last) * 1e9 / (double)(now_ns - p->last_ns));
	p->last_ns = now_ns;
	p->last = delivered;
	p->next_ns += NS_PER_S;
}
