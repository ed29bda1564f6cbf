// SPDX-License-Identifier: MIT
#include "bench/lab/lab.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/lab/child.h"
#include "bench/lab/group.h"
#include "bench/lab/netlink.h"
#include "userspace/base/log.h"

#define VETH_INDEX     100 /* some kernels put interfaces of their own into a new namespace */
#define SERVER_VETH    "server0"
#define CLIENT_VETH    "client0"
#define LINK_SERVER    0xc6120001u /* 198.18.0.1 */
#define LINK_CLIENT    0xc6120002u /* 198.18.0.2 */
#define LINK_PREFIX    24
#define CLIENTS	       0xc6130000u /* 198.19.0.0 */
#define CLIENTS_PREFIX 16
#define OWN_PREFIX     17 /* the lower half are the client namespace's own */
#define TMPFS_OPTIONS  "mode=0711,size=256m"
#define FILES_MAX      65536

/* --- set-up, in the lab ----------------------------------------------------------------------- */

/* What was refused, and what there is to do about it. */
static void noreturn_fn refused(const char *what, int error)
{
	if (error == -EPERM || error == -EACCES)
		exit_with(EX_UNAVAILABLE,
			  "%s: %s: run it as root with all capabilities (not in a container that "
			  "lacks CAP_SYS_ADMIN or CAP_NET_ADMIN)",
			  what, strerror(-error));
	exit_with(EX_UNAVAILABLE,
		  "%s: %s: this kernel lacks something; it takes network, PID and mount "
		  "namespaces and veth (CONFIG_NET_NS, CONFIG_PID_NS, CONFIG_VETH)",
		  what, strerror(-error));
}

static void must(const char *what, int ret)
{
	if (ret)
		refused(what, ret);
}

static void enter_new(const char *what, int flag)
{
	must(what, unshare(flag) ? -errno : 0);
}

static int namespace_fd(void)
{
	int fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		refused("a network namespace", -errno);
	return fd;
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	/* What is set this way makes measuring better, not possible. */
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		log_warn("%s cannot be set: %s", path, strerror(errno));
	if (fd >= 0)
		(void)close(fd);
}

static void mounts_make(struct lab *lab)
{
	char sys[LAB_PATH_BYTES + 8];

	enter_new("a mount namespace", CLONE_NEWNS);
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		refused("private mounts", -errno);
	if (mount("tmpfs", lab->dir, "tmpfs", MS_NOSUID | MS_NODEV, TMPFS_OPTIONS))
		refused("a tmpfs", -errno);
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		refused("a /proc for the PID namespace", -errno);
	snprintf(lab->bpf, sizeof(lab->bpf), "%s/bpf", lab->dir);
	snprintf(sys, sizeof(sys), "%s/sys", lab->dir);
	if (mkdir(lab->bpf, 0755) || mkdir(sys, 0755))
		refused(lab->dir, -errno);
	if (mount("bpf", lab->bpf, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755"))
		lab->bpf[0] = '\0';
}

/* In the server's namespace, whose interfaces a sysfs mounted from within shows. */
static void sysfs_mount(const struct lab *lab)
{
	char path[LAB_PATH_BYTES + 8];

	snprintf(path, sizeof(path), "%s/sys", lab->dir);
	if (umount2(path, MNT_DETACH) && errno != EINVAL) /* EINVAL: none there yet */
		refused("unmounting a sysfs", -errno);
	if (mount("sysfs", path, "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		refused("a sysfs for the network namespace", -errno);
}

static void client_net_make(struct lab *lab, int *ret_netlink)
{
	enter_new("a network namespace", CLONE_NEWNET);
	lab->client_net = namespace_fd();
	must("rtnetlink", netlink_open(ret_netlink));
	write_file("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535");
	write_file("/proc/sys/net/ipv4/conf/all/rp_filter", "0");
}

static void networks_make(struct lab *lab)
{
	int client, server;

	client_net_make(lab, &client);
	enter_new("a network namespace", CLONE_NEWNET);
	lab->server_net = namespace_fd();
	must("rtnetlink", netlink_open(&server));
	must("a veth pair",
	     netlink_add_veth(server, SERVER_VETH, CLIENT_VETH, lab->client_net, VETH_INDEX));
	must("lo", netlink_set_up(server, NETLINK_LOOPBACK));
	must("lo", netlink_set_up(client, NETLINK_LOOPBACK));
	must(SERVER_VETH, netlink_add_address(server, VETH_INDEX, htonl(LINK_SERVER), LINK_PREFIX));
	must(CLIENT_VETH, netlink_add_address(client, VETH_INDEX, htonl(LINK_CLIENT), LINK_PREFIX));
	must(SERVER_VETH, netlink_set_up(server, VETH_INDEX));
	must(CLIENT_VETH, netlink_set_up(client, VETH_INDEX));
	must("the clients' addresses", netlink_add_local(client, htonl(CLIENTS), OWN_PREFIX));
	must("the route to clients", netlink_add_route(server, VETH_INDEX, htonl(CLIENTS),
						       CLIENTS_PREFIX, htonl(LINK_CLIENT)));
	(void)close(client);
	(void)close(server);
}

/* --- who works where -------------------------------------------------------------------------- */

static void cpus_choose(struct lab *lab)
{
	int *const wanted[] = { &lab->server_cpu, &lab->flood_cpu, &lab->good_cpu };
	cpu_set_t set;
	size_t found = 0;

	if (sched_getaffinity(0, sizeof(set), &set))
		refused("the CPUs that may be used", -errno);
	for (int i = 0; i < CPU_SETSIZE && found < ARRAY_SIZE(wanted); i++) {
		if (!CPU_ISSET(i, &set))
			continue;
		/* Who finds none left shares the last. */
		for (size_t k = found; k < ARRAY_SIZE(wanted); k++)
			*wanted[k] = i;
		found++;
	}
}

/*
 * A packet over veth is worked on by the CPU that sent it, unless it is steered (RPS): then by one
 * of the receiver's, as with two machines. The mask is in groups of 32 bits, highest first.
 */
static int steer(const struct lab *lab, const char *veth, int cpu, int other)
{
	char path[2 * LAB_PATH_BYTES], mask[512];
	int group = (cpu > other ? cpu : other) / 32;
	size_t used = 0;
	ssize_t n;
	int fd;

	for (; group >= 0; group--)
		used += (size_t)snprintf(mask + used, sizeof(mask) - used, "%08x%s",
					 (group == cpu / 32 ? 1u << cpu % 32 : 0u) |
						 (group == other / 32 ? 1u << other % 32 : 0u),
					 group ? "," : "");
	snprintf(path, sizeof(path), "%s/sys/class/net/%s/queues/rx-0/rps_cpus", lab->dir, veth);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = write(fd, mask, used);
	(void)close(fd);
	return n < 0 ? -EIO : 0;
}

static void packets_steer(struct lab *lab)
{
	int ret;

	if (lab->server_cpu == lab->flood_cpu)
		return;
	sysfs_mount(lab);
	ret = steer(lab, SERVER_VETH, lab->server_cpu, lab->server_cpu);
	if (setns(lab->client_net, CLONE_NEWNET))
		refused("entering the clients' namespace", -errno);
	sysfs_mount(lab);
	if (!ret)
		ret = steer(lab, CLIENT_VETH, lab->flood_cpu, lab->good_cpu);
	if (setns(lab->server_net, CLONE_NEWNET))
		refused("entering the server's namespace", -errno);
	lab->steered = !ret;
}

static void files_allow(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l))
		refused("the limit of open files", -errno);
	l.rlim_cur = l.rlim_max < FILES_MAX ? l.rlim_max : FILES_MAX;
	if (setrlimit(RLIMIT_NOFILE, &l))
		refused("the limit of open files", -errno);
}

static void lab_make(struct lab *lab)
{
	(void)umask(022); /* servers run as another user and must get to their own folders */
	mounts_make(lab);
	networks_make(lab);
	cpus_choose(lab);
	packets_steer(lab);
	files_allow();
}

/* --- the process that waits ------------------------------------------------------------------- */

/* The servers, which are nobody, have to get through to what lies beneath path. */
static void check_reachable(const char *path)
{
	char part[LAB_PATH_BYTES];
	struct stat s;

	for (const char *p = path; *p; p += strcspn(p, "/")) {
		p += strspn(p, "/");
		snprintf(part, sizeof(part), "%.*s", (int)(p - path + strcspn(p, "/")), path);
		if (stat(part, &s))
			exit_with(EX_CANTCREAT, "%s: %s", part, strerror(errno));
		if (!(s.st_mode & S_IXOTH))
			exit_with(EX_CANTCREAT,
				  "%s: servers run as nobody, who may not enter it: chmod o+x, or "
				  "another $TMPDIR",
				  part);
	}
}

static void folder_make(struct lab *lab)
{
	const char *tmp = getenv("TMPDIR");

	if (!tmp || !*tmp)
		tmp = "/tmp";
	if (tmp[0] != '/')
		exit_with(EX_USAGE, "$TMPDIR is not an absolute path");
	if (snprintf(lab->dir, sizeof(lab->dir), "%s/ssdtf-bench.XXXXXX", tmp) >=
	    (int)sizeof(lab->dir))
		exit_with(EX_USAGE, "$TMPDIR is too long");
	check_reachable(tmp);
	if (!mkdtemp(lab->dir))
		exit_with(EX_CANTCREAT, "%s: %s", lab->dir, strerror(errno));
}

/* Ends with the process that waits, also where that ended before this was asked for. */
static void end_with(int parent_pidfd)
{
	struct pollfd ended = { .fd = parent_pidfd, .events = POLLIN };

	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		refused("PR_SET_PDEATHSIG", -errno);
	if (poll(&ended, 1, 0))
		_exit(EX_OSERR);
	(void)close(parent_pidfd);
}

/* The lab's exit status as waitpid() has it; *ret_signal is one that wanted an end, or 0. */
static int wait_for(pid_t pid, const sigset_t *set, int *ret_signal)
{
	int status;

	*ret_signal = 0;
	for (;;) {
		int number = sigwaitinfo(set, NULL);

		if (number > 0 && number != SIGCHLD) {
			*ret_signal = number;
			(void)kill(pid, SIGKILL); /* a zombie at worst */
		}
		if (waitpid(pid, &status, WNOHANG) == pid)
			return status;
	}
}

static void clean_up(const struct lab *lab)
{
	if (lab->group[0])
		group_remove(lab->group);
	if (rmdir(lab->dir))
		log_warn("%s cannot be removed: %s", lab->dir, strerror(errno));
}

static void group_start(struct lab *lab, unsigned percent)
{
	int ret;

	if (!percent)
		return;
	ret = group_make(percent & ~LAB_PERCENT_IF_POSSIBLE, lab->group, sizeof(lab->group),
			 &lab->capped_by);
	if (!ret)
		return;
	if (percent & LAB_PERCENT_IF_POSSIBLE) {
		lab->group[0] = '\0';
		lab->capped_by = NULL;
		return;
	}
	(void)rmdir(lab->dir);
	exit_with(EX_UNAVAILABLE,
		  "--server-cpu-percent takes a cgroup with the cpu controller, v2 or v1, that may "
		  "be written: %s; leave the option out",
		  strerror(-ret));
}

/* Process 1 of the lab takes in orphans. With it, all of them end. */
static void noreturn_fn init_run(struct lab *lab, int (*body)(struct lab *lab, void *ctx),
				 void *ctx)
{
	pid_t ended, pid = fork();
	int status = 0;

	if (pid < 0)
		refused("a process", -errno);
	if (!pid) {
		lab_make(lab);
		exit(body(lab, ctx));
	}
	do
		ended = waitpid(-1, &status, 0);
	while (ended != pid && (ended >= 0 || errno == EINTR));
	if (WIFEXITED(status))
		_exit(WEXITSTATUS(status));
	log_error("ended by signal %d", WTERMSIG(status));
	_exit(EX_SOFTWARE);
}

int lab_run(unsigned server_percent, int (*body)(struct lab *lab, void *ctx), void *ctx)
{
	struct lab lab = { .server_net = -1, .client_net = -1 };
	sigset_t set, before;
	int status, ended_by, self;
	pid_t pid;

	folder_make(&lab);
	group_start(&lab, server_percent);
	child_endings(&set);
	(void)sigprocmask(SIG_BLOCK, &set, &before);
	self = pidfd_open(getpid(), 0);
	pid = self < 0 || unshare(CLONE_NEWPID) ? -1 : fork();
	if (!pid) {
		(void)sigprocmask(SIG_SETMASK, &before, NULL);
		end_with(self);
		init_run(&lab, body, ctx);
	}
	if (pid < 0) {
		int error = -errno;

		clean_up(&lab);
		refused("a PID namespace", error);
	}
	/* Children of this process would come into the lab; none but a sanitizer's is made. */
	(void)setns(self, CLONE_NEWPID);
	(void)close(self);
	status = wait_for(pid, &set, &ended_by);
	clean_up(&lab);
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
	if (ended_by)
		(void)raise(ended_by); /* whoever called us sees what it was */
	if (WIFEXITED(status) && !ended_by)
		return WEXITSTATUS(status);
	exit_with(EX_SOFTWARE, "ended by signal %d", ended_by ? ended_by : WTERMSIG(status));
}
