// SPDX-License-Identifier: MIT
/* Commands that replace keys. */
#include "userspace/manager/run.h"

#include <stdio.h>

#include "userspace/manager/rotate.h"
#include "userspace/manager/update.h"

int run_rotate_scope(struct manager *m, const struct options *o)
{
	return rotate_scope(m, o->text[OPTION_NAME], o->number[OPTION_OVERLAP_HOURS],
			    o->number[OPTION_KEEP_DAYS]);
}

int run_rotate_party(struct manager *m, const struct options *o)
{
	const struct rotate_party r = { .id = o->text[OPTION_ID],
					.public_file = o->text[OPTION_PUBLIC],
					.encryption_file = o->text[OPTION_ENCRYPTION],
					.generate = o->text[OPTION_GENERATE],
					.overlap_hours = o->number[OPTION_OVERLAP_HOURS] };

	return rotate_party(m, &r);
}

int run_rotate_admission(struct manager *m, const struct options *o)
{
	return rotate_admission(m, o->text[OPTION_ID], o->number[OPTION_OVERLAP_HOURS]);
}

int run_rotate_gateway(struct manager *m, const struct options *o)
{
	uint64_t from_ms = m->now_ms + o->number[OPTION_IN_HOURS] * 3600000ull;
	int err = o->text[OPTION_FROM] ? rotate_time(m, o->text[OPTION_FROM], &from_ms) : 0;

	return err ? err
		   : rotate_gateway(m, o->text[OPTION_ID], o->text[OPTION_PUBLIC], from_ms,
				    o->number[OPTION_OVERLAP_HOURS]);
}

int run_set(struct manager *m, const struct options *o)
{
	char text[16];
	int err;

	(void)snprintf(text, sizeof(text), "%u", o->number[OPTION_UPDATE_DAYS]);
	err = manager_fail_registry(m, registry_set(&m->registry, UPDATE_DAYS_SETTING, text));
	if (!err)
		err = manager_note(m, "set", UPDATE_DAYS_SETTING, text);
	if (!err)
		(void)fprintf(m->out, "set update-days=%s\n", text);
	return err;
}
