// SPDX-License-Identifier: MIT
#include "hsm/override.h"

#include <linux/capability.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OVERRIDE (UINT32_C(1) << CAP_DAC_OVERRIDE)

/* The effective set alone is changed: what is permitted can be had again. */
static bool set_effective(bool on)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &head, sets))
		return false;
	if (!(sets[0].permitted & OVERRIDE) || on == !!(sets[0].effective & OVERRIDE))
		return false;
	sets[0].effective ^= OVERRIDE;
	return syscall(SYS_capset, &head, sets) == 0;
}

bool override_drop(void)
{
	return set_effective(false);
}

void override_restore(bool dropped)
{
	if (dropped)
		(void)set_effective(true); /* we had it: it is permitted */
}
