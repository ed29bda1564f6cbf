// SPDX-License-Identifier: MIT
#include "userspace/manager/outlet.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/manager/access.h"
#include "userspace/manager/gateway.h"
#include "userspace/manager/hop.h"
#include "userspace/manager/party.h"

#define IDS_OWN	   "own"
#define IDS_SHARED "shared"

/* --- reading ------------------------------------------------------------------------------- */

int outlet_find(struct manager *m, const char *name, struct outlet *ret_o, bool *ret_found)
{
	struct registry_query q =
		registry_query(&m->registry,
			       "SELECT name, scope, distributor, gateway, domain, receiver, prefix,"
			       " rotate_seconds FROM outlet WHERE name = ?");
	struct outlet *o = ret_o;
	bool found;
	int err;

	registry_bind_text(&q, name);
	found = registry_step(&q);
	registry_text(&q, 0, o->name, sizeof(o->name));
	registry_text(&q, 1, o->scope, sizeof(o->scope));
	registry_text(&q, 2, o->distributor, sizeof(o->distributor));
	registry_text(&q, 3, o->gateway, sizeof(o->gateway));
	registry_text(&q, 4, o->domain, sizeof(o->domain));
	registry_text(&q, 5, o->receiver, sizeof(o->receiver));
	registry_text(&q, 6, o->prefix, sizeof(o->prefix));
	o->rotate_seconds = (uint32_t)registry_int(&q, 7);
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	*ret_found = found;
	return 0;
}

int outlet_load(struct manager *m, const char *name, struct outlet *ret_o)
{
	bool found = false;
	int err = manager_check_id(m, "outlet", name);

	if (!err)
		err = outlet_find(m, name, ret_o, &found);
	if (!err && !found)
		return manager_fail(m, -ESRCH, "there is no outlet \"%s\"", name);
	return err;
}

/* --- what is asked for --------------------------------------------------------------------- */

static int check_prefix(struct manager *m, const char *prefix)
{
	struct bytes v = bytes_str(prefix);

	if (!record_topic_is_valid(v))
		return manager_fail(
			m, -EINVAL,
			"topic \"%.80s\": is no MQTT topic (UTF-8, not empty, without # "
			"and +, not beginning with $)",
			prefix);
	if (v.p[v.n - 1] == '/')
		return manager_fail(m, -EINVAL,
				    "topic \"%.80s\": ends in a slash; one is put "
				    "behind it anyway",
				    prefix);
	if (v.n + 2 > SCOPE_FILTER_BYTES_MAX) /* with "/#" behind it */
		return manager_fail(m, -EINVAL, "topic \"%.80s...\": longer than %d bytes", prefix,
				    SCOPE_FILTER_BYTES_MAX - 2);
	return 0;
}

/* Neither covers the other. */
static int check_topics(struct manager *m, const struct outlet *o)
{
	struct registry_query q =
		registry_query(&m->registry, "SELECT filter, 'scope', scope FROM filter UNION ALL"
					     " SELECT prefix || '/#', 'outlet', name FROM outlet");
	char what[8] = "", name[MANAGER_ID_ROOM] = "";
	int err;

	while (registry_step(&q)) {
		if (!scope_filter_meets(registry_blob(&q, 0), bytes_str(o->prefix)))
			continue;
		registry_text(&q, 1, what, sizeof(what));
		registry_text(&q, 2, name, sizeof(name));
		break;
	}
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	if (name[0])
		return manager_fail(m, -EEXIST, "topic \"%.80s\": meets topics of %s \"%s\"",
				    o->prefix, what, name);
	return 0;
}

/* Outlets that share external ids change them at the same time; an outlet's own are nobody else's.
 */
static int check_domain(struct manager *m, const struct outlet *o)
{
	struct registry_query q =
		registry_query(&m->registry,
			       "SELECT name, domain = name, rotate_seconds FROM outlet"
			       " WHERE domain = ?1 OR name = ?1");
	bool own = !strcmp(o->domain, o->name), clash = false, other_time = false;
	char name[MANAGER_ID_ROOM] = "";
	int err;

	registry_bind_text(&q, o->domain);
	while (!clash && !other_time && registry_step(&q)) {
		registry_text(&q, 0, name, sizeof(name));
		clash = own || registry_int(&q, 1);
		other_time = registry_int(&q, 2) != o->rotate_seconds;
	}
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	if (clash)
		return manager_fail(m, -EEXIST,
				    "id domain \"%s\": is in use by outlet \"%s\"; an outlet's own "
				    "ids are not shared",
				    o->domain, name);
	if (other_time)
		return manager_fail(m, -EEXIST,
				    "id domain \"%s\": changes its ids as outlet \"%s\" says, at "
				    "another time",
				    o->domain, name);
	return 0;
}

static int domain_of(struct manager *m, const struct outlet_terms *t, const char **ret_domain)
{
	const char *ids = t->ids ? t->ids : IDS_OWN;

	if (!strcmp(t->name, IDS_OWN) || !strcmp(t->name, IDS_SHARED))
		return manager_fail(m, -EINVAL, "outlet \"%s\": the name means something to --ids",
				    t->name);
	*ret_domain = strcmp(ids, IDS_OWN) ? ids : t->name;
	return manager_check_id(m, "id domain", *ret_domain);
}

/* All but the gateway, checked for what it is in itself. */
static int outlet_of(struct manager *m, const struct outlet_terms *t, struct outlet *o)
{
	const char *domain = NULL;
	int err = manager_check_id(m, "outlet", t->name);

	if (!err)
		err = domain_of(m, t, &domain);
	if (!err)
		err = check_prefix(m, t->prefix);
	if (err)
		return err;
	*o = (struct outlet){ .rotate_seconds = t->rotate_seconds };
	(void)snprintf(o->name, sizeof(o->name), "%s", t->name);
	(void)snprintf(o->scope, sizeof(o->scope), "%s", t->scope);
	(void)snprintf(o->distributor, sizeof(o->distributor), "%s", t->distributor);
	(void)snprintf(o->domain, sizeof(o->domain), "%s", domain);
	(void)snprintf(o->prefix, sizeof(o->prefix), "%s", t->prefix);
	if (t->receiver)
		(void)snprintf(o->receiver, sizeof(o->receiver), "%s", t->receiver);
	return 0;
}

static bool same(const struct outlet *a, const struct outlet *b)
{
	return !strcmp(a->scope, b->scope) && !strcmp(a->distributor, b->distributor) &&
	       !strcmp(a->gateway, b->gateway) && !strcmp(a->domain, b->domain) &&
	       !strcmp(a->receiver, b->receiver) && !strcmp(a->prefix, b->prefix) &&
	       a->rotate_seconds == b->rotate_seconds;
}

/* --- adding -------------------------------------------------------------------------------- */

/* A distributor has one connection to publish by, and a scope so many filters. */
static int check_room(struct manager *m, const struct outlet *o)
{
	struct registry_query q =
		registry_query(&m->registry,
			       "SELECT (SELECT count(*) FROM outlet WHERE scope = ?1),"
			       " (SELECT min(gateway) FROM outlet WHERE distributor = ?2)");
	char other[MANAGER_ID_ROOM] = "";
	int64_t n = 0;
	int err;

	registry_bind_text(&q, o->scope);
	registry_bind_text(&q, o->distributor);
	if (registry_step(&q)) {
		n = registry_int(&q, 0);
		registry_text(&q, 1, other, sizeof(other));
	}
	err = registry_end(&q);
	if (err)
		return manager_fail_registry(m, err);
	if (n >= RECORD_FILTERS_MAX)
		return manager_fail(m, -EINVAL, "scope \"%s\": has %d outlets already", o->scope,
				    RECORD_FILTERS_MAX);
	if (other[0] && strcmp(other, o->gateway))
		return manager_fail(
			m, -EEXIST,
			"distributor \"%s\": publishes at gateway \"%s\", and can do so "
			"at one only",
			o->distributor, other);
	return 0;
}

static int insert(struct manager *m, const struct outlet *o)
{
	struct registry_query q = registry_query(
		&m->registry,
		"INSERT INTO outlet (name, scope, distributor, gateway, prefix, domain,"
		" rotate_seconds, receiver) VALUES (?, ?, ?, ?, ?, ?, ?, ?)");

	registry_bind_text(&q, o->name);
	registry_bind_text(&q, o->scope);
	registry_bind_text(&q, o->distributor);
	registry_bind_text(&q, o->gateway);
	registry_bind_text(&q, o->prefix);
	registry_bind_text(&q, o->domain);
	registry_bind_int(&q, o->rotate_seconds);
	if (o->receiver[0])
		registry_bind_text(&q, o->receiver);
	else
		registry_bind_blob(&q, bytes_of(NULL, 0));
	return manager_fail_registry(m, registry_run(&q));
}

/* The outlet's own grant: from the hop to the next one, or to the one receiver. */
static void own_grant(const struct outlet *o, const struct grant *hop, struct grant *g)
{
	*g = (struct grant){ .has_from = true,
			     .flags = o->receiver[0] ? RECORD_GRANT_IDS_REPLACED
						     : RECORD_GRANT_HOP };
	memcpy(g->from, hop->id, sizeof(g->from));
	(void)snprintf(g->gateway, sizeof(g->gateway), "%s", o->gateway);
	(void)snprintf(g->receiver, sizeof(g->receiver), "%s",
		       o->receiver[0] ? o->receiver : o->distributor);
	(void)snprintf(g->upstream, sizeof(g->upstream), "%s", o->distributor);
	(void)snprintf(g->outlet, sizeof(g->outlet), "%s", o->name);
}

static int add_new(struct manager *m, const struct outlet *o, const struct scope *s,
		   struct grant *g, bool *ret_made)
{
	int err = check_room(m, o);

	if (!err)
		err = check_topics(m, o);
	if (!err)
		err = check_domain(m, o);
	if (!err)
		err = insert(m, o);
	if (!err)
		err = access_make(m, g, s, "outlet", o->name, ret_made);
	return err ? err : manager_note(m, "outlet add", o->name, o->distributor);
}

static int load_parties(struct manager *m, const struct outlet_terms *t)
{
	struct party p;
	int err = party_load(m, t->distributor, RECORD_ROLE_DISTRIBUTOR, &p);

	if (!err && t->receiver)
		err = party_load(m, t->receiver, RECORD_ROLE_RECEIVER, &p);
	return err;
}

static int add_with(struct manager *m, const struct outlet_terms *t, struct scope *s)
{
	struct outlet o, old;
	struct gateway gateway;
	struct grant hop, g;
	char hex[GRANTS_HEX_ROOM];
	bool found = false, made = false;
	int err = outlet_of(m, t, &o);

	if (!err)
		err = scope_load(m, t->scope, s);
	if (!err)
		err = load_parties(m, t);
	if (!err)
		err = hop_load(m, s, t->distributor, &hop);
	if (!err)
		err = gateway_load(m, t->gateway ? t->gateway : hop.gateway, &gateway);
	if (err)
		return err;
	(void)snprintf(o.gateway, sizeof(o.gateway), "%s", gateway.id);
	err = outlet_find(m, t->name, &old, &found);
	if (!err && found && !same(&o, &old))
		return manager_fail(m, -EEXIST,
				    "outlet \"%s\": exists with other terms (see show outlet)",
				    t->name);
	own_grant(&o, &hop, &g);
	if (!err)
		err = found ? access_make(m, &g, s, "outlet", o.name, &made)
			    : add_new(m, &o, s, &g, &made);
	if (!err)
		(void)fprintf(m->out, "%s outlet=%s grant=%s key_id=%u topics=%s/# gateway=%s\n",
			      made ? "added" : "unchanged", o.name,
			      text_hex(bytes_of(g.id, sizeof(g.id)), hex), g.key_id, o.prefix,
			      o.gateway);
	return err;
}

int outlet_add(struct manager *m, const struct outlet_terms *t)
{
	struct scope *s = malloc(sizeof(*s));
	int err = s ? add_with(m, t, s) : manager_fail(m, -ENOMEM, "out of memory");

	free(s);
	return err;
}

/* --- granting it --------------------------------------------------------------------------- */

static int grant_with(struct manager *m, const struct outlet_grant *t, struct scope *s)
{
	struct outlet o;
	struct party receiver;
	struct grant g = { .has_from = true,
			   .flags = RECORD_GRANT_IDS_REPLACED,
			   .valid_days = t->valid_days };
	struct grant own;
	char hex[GRANTS_HEX_ROOM];
	bool found = false, made = false;
	int err = outlet_load(m, t->outlet, &o);

	if (!err)
		err = party_load(m, t->receiver, RECORD_ROLE_RECEIVER, &receiver);
	if (err)
		return err;
	if (o.receiver[0])
		return manager_fail(m, -EINVAL, "outlet \"%s\": is for \"%s\" alone", o.name,
				    o.receiver);
	err = scope_load(m, o.scope, s);
	if (!err)
		err = grants_find(m, o.gateway, o.distributor, s->record.key_id, o.name, &own,
				  &found);
	if (err)
		return err;
	if (!found)
		return manager_fail(m, -EIO, "outlet \"%s\": has no grant: registry damaged",
				    o.name);
	memcpy(g.from, own.id, sizeof(g.from));
	(void)snprintf(g.gateway, sizeof(g.gateway), "%s", o.gateway);
	(void)snprintf(g.receiver, sizeof(g.receiver), "%s", receiver.id);
	(void)snprintf(g.outlet, sizeof(g.outlet), "%s", o.name);
	err = access_make(m, &g, s, "outlet", o.name, &made);
	if (!err && made)
		err = manager_note(m, "grant", receiver.id, o.name);
	if (!err)
		(void)fprintf(m->out, "%s grant=%s key_id=%u outlet=%s receiver=%s gateway=%s\n",
			      made ? "granted" : "unchanged",
			      text_hex(bytes_of(g.id, sizeof(g.id)), hex), g.key_id, o.name,
			      receiver.id, g.gateway);
	return err;
}

int outlet_grant(struct manager *m, const struct outlet_grant *t)
{
	struct scope *s = malloc(sizeof(*s));
	int err = s ? grant_with(m, t, s) : manager_fail(m, -ENOMEM, "out of memory");

	free(s);
	return err;
}
