/* SPDX-License-Identifier: MIT */
/*
 * The engine's inside: what its files share. Each part's own state is in its own struct, defined in
 * its own header; struct broker only puts them together.
 *
 *    conn ── auth ──► session ──► delivery ──► capsule (conversion) ──► signer ──► conn
 *      │                 ▲
 *      └── ingress ──► route (trie), retained      commit: counters, contexts and, by durable,
 *                                                          sessions to storage
 */
#ifndef SSDTF_BROKER_ENGINE_H
#define SSDTF_BROKER_ENGINE_H

#include "userspace/base/list.h"
#include "userspace/base/pool.h"
#include "userspace/base/timer.h"
#include "userspace/broker/acks.h"
#include "userspace/broker/broker.h"
#include "userspace/broker/capsule.h"
#include "userspace/broker/commit.h"
#include "userspace/broker/contexts.h"
#include "userspace/broker/control.h"
#include "userspace/broker/directory.h"
#include "userspace/broker/durable.h"
#include "userspace/broker/gate.h"
#include "userspace/broker/keys.h"
#include "userspace/broker/origins.h"
#include "userspace/broker/retained.h"
#include "userspace/broker/route.h"
#include "userspace/broker/session.h"
#include "userspace/broker/signer.h"
#include "userspace/broker/sys.h"
#include "userspace/broker/updates.h"

struct broker {
	struct broker_config config;
	struct broker_ops ops;
	void *io;
	uint64_t mono_ms, wall_ms;
	struct pool pool;
	struct timer_wheel wheel;
	struct directory *directory; /* NULL in plain mode and before the first bundle */
	bool starved;		/* something found no memory this turn and is to be tried again */
	uint64_t bundle_serial; /* the highest ever applied */
	struct list conns;	/* alive */
	struct list dead;	/* closed; a job is out that points there */
	struct list reapable;	/* closed, and nothing points there */
	struct sessions sessions;
	struct route route;
	struct retained retained;
	struct capsules capsules;
	struct signer signer;
	struct commit commit;
	struct durable durable;
	struct contexts contexts;
	struct origins origins;
	struct control control;
	struct updates updates;
	struct keys keys;
	struct sys sys;
	struct gate gate;
	struct broker_stats stats;
};

/* Says it to the owner's log. */
void broker_note(struct broker *b, const char *event, struct bytes client_id, const char *what);

#endif
