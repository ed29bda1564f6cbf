// SPDX-License-Identifier: MIT
#include "userspace/admit/load.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/admission.h"
#include "bpf/admission.skel.h"

#define WHY_BYTES_MAX 512

struct load {
	struct admission *object;
	int fds[LOAD_PARTS];
};

static char first_words[WHY_BYTES_MAX];

/* libbpf says much; the first complaint is the one that names the cause. */
static int keep_first(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	if (level != LIBBPF_WARN || first_words[0])
		return 0;
	vsnprintf(first_words, sizeof(first_words), fmt, ap);
	first_words[strcspn(first_words, "\n")] = '\0';
	return 0;
}

const char *load_name(unsigned part)
{
#define NAME(name, mode, owned) #name,
	static const char *const names[] = { ADMISSION_PIN_LIST(NAME) };
#undef NAME
	_Static_assert(ARRAY_SIZE(names) == LOAD_PARTS, "each part has a name");

	return names[part];
}

static int fd_of(const struct bpf_object *o, const char *name)
{
	const struct bpf_program *p = bpf_object__find_program_by_name(o, name);

	return p ? bpf_program__fd(p) : bpf_object__find_map_fd_by_name(o, name);
}

/* A broker of another version finds it out by that. Until one comes, nothing is enforced. */
static int put_version(const struct load *l)
{
	const struct admission_config config = { .version = ADMISSION_VERSION };
	const __u32 zero = 0;

	return bpf_map_update_elem(bpf_map__fd(l->object->maps.config), &zero, &config, BPF_ANY)
		       ? -errno
		       : 0;
}

int load_new(uint32_t devices_max, struct load **ret_load, const char **ret_why)
{
	struct load *l = calloc(1, sizeof(*l));
	struct bpf_program *p;
	int err = -ENOMEM;

	first_words[0] = '\0';
	*ret_why = first_words;
	libbpf_set_print(keep_first);
	if (!l)
		return -ENOMEM;
	l->object = admission__open();
	if (!l->object)
		goto free_load;
	bpf_object__for_each_program(p,
				     l->object->obj) if (strstr(bpf_program__name(p), "_test_ip"))
		bpf_program__set_autoload(p, false);
	err = bpf_map__set_max_entries(l->object->maps.devices, devices_max);
	/* All may come back at once, and some of them twice, while their tokens are good. */
	if (!err && 2 * devices_max > bpf_map__max_entries(l->object->maps.seen))
		err = bpf_map__set_max_entries(l->object->maps.seen, 2 * devices_max);
	if (!err)
		err = admission__load(l->object);
	if (err)
		goto free_load;
	for (unsigned i = 0; i < LOAD_PARTS; i++) {
		l->fds[i] = fd_of(l->object->obj, load_name(i));
		BUG_ON(l->fds[i] < 0);
	}
	err = put_version(l);
	if (err)
		goto free_load;
	*ret_load = l;
	return 0;

free_load:
	load_free(l);
	return err;
}

void load_free(struct load *l)
{
	if (!l)
		return;
	admission__destroy(l->object);
	free(l);
}

int load_fd(const struct load *l, unsigned part)
{
	return l->fds[part];
}

int load_program_sizes(int fd, uint32_t *ret_bytes, uint32_t *ret_verified)
{
	struct bpf_prog_info info = { 0 };
	uint32_t n = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &n))
		return -errno;
	*ret_bytes = info.xlated_prog_len;
	*ret_verified = info.verified_insns;
	return 0;
}
