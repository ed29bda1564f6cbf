// SPDX-License-Identifier: MIT
#include "userspace/core/server.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "userspace/base/log.h"
#include "userspace/broker/verify.h"
#include "userspace/core/bundlefile.h"
#include "userspace/base/file.h"
#include "userspace/core/notify.h"
#include "userspace/core/sandbox.h"
#include "userspace/core/server_impl.h"
#include "userspace/crypto/hash.h"

#define LINGER_MS	   1000
#define HSM_WAIT_MS	   10000 /* for a first ssdtf-hsmd */
#define HSM_STEP_MS	   50
#define BIND_WAIT_MS	   1000
#define BIND_STEP_MS	   10
#define KEY_FILE_BYTES_MAX 4096
#define SPARE_SLOTS	   256 /* of connections that are closing while others come */
/* What was on its way to be signed when the soft limit was reached goes out all the same. */
#define HARD_PACKETS 16

static void load_manager_key(struct server *s)
{
	const char *path = s->config->manager_key;
	struct p256_point point;
	uint8_t *pem;
	size_t n;
	int err = file_read(AT_FDCWD, path, KEY_FILE_BYTES_MAX, &pem, &n, NULL);

	if (err)
		exit_with(EX_NOINPUT, "%s: %s", path, strerror(-err));
	err = p256_public_from_pem(bytes_of(pem, n), &point);
	free(pem);
	if (err)
		exit_with(EX_DATAERR, "%s: is not a P-256 public key in PEM", path);
	err = p256_public_new(&point, &s->manager);
	if (err)
		exit_with(EX_OSERR, "%s: %s", path, strerror(-err));
}

static int exit_code_of_bundle(int err)
{
	switch (-err) {
	case EBADMSG:
	case ESTALE:
		return EX_DATAERR;
	case EXDEV:
	case EPERM:
		return EX_CONFIG;
	case ENOMEM:
		return EX_OSERR;
	default:
		return EX_NOINPUT;
	}
}

static void load_bundle(struct server *s, uint64_t serial_min, struct bundlefile *ret_b)
{
	char why[BUNDLEFILE_ERROR_BYTES];
	int err = server_choose_bundle(s, serial_min, ret_b, why);

	if (err)
		exit_with(exit_code_of_bundle(err), "%s", why);
	server_keys_of(&ret_b->gateway, &s->keys);
	s->bundle_serial = ret_b->statement.serial;
}

static void open_store(struct server *s)
{
	int err = store_open(s->config->state_dir, &s->store);

	switch (-err) {
	case 0:
		return;
	case EBUSY:
		exit_with(EX_TEMPFAIL, "%s", store_open_error());
	case EPERM:
		exit_with(EX_CONFIG, "%s", store_open_error());
	case EPROTO:
	case EUCLEAN:
		exit_with(EX_DATAERR, "%s", store_open_error());
	default:
		exit_with(EX_CANTCREAT, "%s", store_open_error());
	}
}

static void start_engine(struct server *s)
{
	static const enum broker_admission admission[] = {
		[CONFIG_ADMISSION_OFF] = BROKER_ADMISSION_OFF,
		[CONFIG_ADMISSION_MONITOR] = BROKER_ADMISSION_MONITOR,
		[CONFIG_ADMISSION_ENFORCE] = BROKER_ADMISSION_ENFORCE,
		[CONFIG_ADMISSION_AUTO] = BROKER_ADMISSION_ENFORCE,
	};
	struct broker_config c = {
		.plain = s->config->plain,
		.durable = s->store,
		.admission = admission[s->config->admission],
		.limits = s->config->limits,
	};

	hash_random(c.hash_key, sizeof(c.hash_key));
	s->broker = broker_new(&c, &server_ops, s);
	if (!s->broker)
		exit_with(EX_OSERR, "no memory for the broker");
	broker_time(s->broker, s->mono_ms, s->wall_ms);
	s->admit = admit_new(s->config);
	if (!s->admit)
		exit_with(EX_OSERR, "no memory for admission");
	admit_attach(s->admit, &s->listeners);
}

static int exit_code_of_control(int err)
{
	switch (-err) {
	case EADDRINUSE:
		return EX_TEMPFAIL;
	case ENOTSOCK:
	case ENAMETOOLONG:
		return EX_CONFIG;
	case EACCES:
	case EPERM:
		return EX_NOPERM;
	default:
		return EX_CANTCREAT;
	}
}

static void start_control(struct server *s)
{
	const char *path = s->config->control_socket;
	int err;

	if (!path[0])
		return;
	err = operators_new(path, &s->ring, &server_answer_ops, s, &s->operators);
	if (err)
		exit_with(exit_code_of_control(err), "control-socket %s: %s", path,
			  operators_explain(err));
}

static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1 };

static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&set, signals[i]);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -1;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static uint32_t hard_limit(const struct config *c)
{
	uint64_t hard = 4ull * c->limits.output_bytes_soft +
			HARD_PACKETS * (uint64_t)c->limits.packet_bytes_max;

	if (c->core.output_bytes_hard)
		return c->core.output_bytes_hard;
	return hard < UINT32_MAX ? (uint32_t)hard : UINT32_MAX;
}

static void start_ring(struct server *s)
{
	const struct config *c = s->config;
	const struct stream_limits limits = {
		.slots_max = c->limits.connections_max + SPARE_SLOTS,
		.output_soft = c->limits.output_bytes_soft,
		.output_hard = hard_limit(c),
		.output_total = c->core.output_bytes_total,
		.stall_ms = c->core.stall_timeout_ms,
		.linger_ms = LINGER_MS,
	};
	int err = ring_init(&s->ring, RING_SQ_ENTRIES, RING_CQ_ENTRIES);

	if (!err)
		err = bufring_init(&s->buffers, &s->ring, BUFRING_ENTRIES);
	if (err)
		exit_with(EX_OSERR, "%s", ring_explain(err));
	err = wake_init(&s->wake);
	s->polled[POLLED_WAKE].fd = s->wake.fd;
	s->polled[POLLED_SIGNALS].fd = open_signals();
	if (err || s->polled[POLLED_SIGNALS].fd < 0)
		exit_with(EX_OSERR, "no descriptor for signals: %s", strerror(errno));
	ring_on(&s->ring, RING_POLL, server_complete_poll, s);
	pool_init(&s->pool);
	listener_set_init(&s->listeners, &s->ring, server_accepted, s);
	err = stream_table_init(&s->streams, &s->ring, &s->buffers, &s->pool, &limits,
				&server_stream_events, s);
	if (err)
		exit_with(EX_OSERR, "no memory for connections");
}

static unsigned worker_count(const struct config *c)
{
	cpu_set_t set;
	int n = 1;

	if (c->workers)
		return c->workers;
	if (!sched_getaffinity(0, sizeof(set), &set))
		n = CPU_COUNT(&set) - 1;
	return n < 1 ? 1 : n > WORKERS_MAX ? WORKERS_MAX : (unsigned)n;
}

static void start_workers(struct server *s)
{
	static const struct workers_ops ops = { broker_verify_run, broker_verify_same_batch };
	unsigned n = worker_count(s->config);
	int err = workers_new(n, &s->wake, &ops, &s->workers);

	if (err)
		exit_with(EX_OSERR, "no threads for %u workers: %s", n, strerror(-err));
}

static void start_bundlein(struct server *s)
{
	if (server_start_bundlein(s))
		exit_with(EX_OSERR, "no memory for bundles that come online");
}

static void turn_or_exit(struct server *s)
{
	int err = server_turn(s, HSM_STEP_MS);

	if (err)
		exit_with(EX_OSERR, "%s", ring_explain(err));
}

/* Waits for a first key process that holds our keys: before that nobody could be answered. */
static void start_hsm(struct server *s)
{
	const char *dir = s->config->hsm_sockets;
	uint64_t end_ms = s->mono_ms + HSM_WAIT_MS;
	int err;

	for (;;) {
		err = hsmlink_new(dir, &s->ring, &s->pool, &s->keys, server_token_done, s, &s->hsm);
		if (err != -ENOENT || s->stops || s->mono_ms >= end_ms)
			break;
		turn_or_exit(s);
	}
	if (s->stops)
		return;
	if (err)
		exit_with(EX_UNAVAILABLE, "%s: no hsmd.N.sock: %s; is ssdtf-hsmd running?", dir,
			  strerror(-err));
	while (!hsmlink_up(s->hsm) && !hsmlink_mismatch(s->hsm) && !s->stops && s->mono_ms < end_ms)
		turn_or_exit(s);
	if (s->stops || hsmlink_up(s->hsm))
		return;
	exit_with(hsmlink_mismatch(s->hsm) ? EX_CONFIG : EX_UNAVAILABLE, "%s/%s", dir,
		  hsmlink_trouble(s->hsm));
}

/* An address in use may be that of a broker that was killed: the kernel takes its ring down, and
 * with it the listening socket, some milliseconds behind the process. */
static int bind_one(struct server *s, const struct address *a, struct address *ret_bound)
{
	const struct timespec step = { .tv_nsec = BIND_STEP_MS * 1000000 };
	int err = listener_add(&s->listeners, a, ret_bound);

	for (unsigned ms = 0; err == -EADDRINUSE && ms < BIND_WAIT_MS; ms += BIND_STEP_MS) {
		nanosleep(&step, NULL);
		err = listener_add(&s->listeners, a, ret_bound);
	}
	return err;
}

static void bind_all(struct server *s)
{
	char text[ADDRESS_TEXT_BYTES_MAX];

	for (unsigned i = 0; i < s->config->n_listen; i++) {
		const struct address *a = &s->config->listen[i];
		int err = bind_one(s, a, &s->bound[i]);

		if (err)
			exit_with(err == -EACCES ? EX_NOPERM : EX_UNAVAILABLE,
				  "cannot listen on %s: %s", address_text(a, text), strerror(-err));
	}
}

/* One line that people and tests wait for; it is said at every log level. */
static void start_listening(struct server *s)
{
	char line[32 + LISTENER_MAX * ADDRESS_TEXT_BYTES_MAX];
	char text[ADDRESS_TEXT_BYTES_MAX];
	size_t n = (size_t)snprintf(line, sizeof(line), "ssdtf-broker: ready: listening on");
	int err = listener_start(&s->listeners);
	struct rlimit files;

	if (err)
		exit_with(EX_UNAVAILABLE, "cannot listen: %s", strerror(-err));
	if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur < s->config->limits.connections_max)
		log_info("event=limit what=\"%llu descriptors are fewer than connections-max\"",
			 (unsigned long long)files.rlim_cur);
	for (unsigned i = 0; i < s->config->n_listen; i++)
		n += (size_t)snprintf(line + n, sizeof(line) - n, " %s",
				      address_text(&s->bound[i], text));
	n += (size_t)snprintf(line + n, sizeof(line) - n, "\n");
	admit_say(s->admit);		      /* before the line that others wait for */
	(void)!write(STDERR_FILENO, line, n); /* nobody is left to tell */
	notify_state("READY=1");
}

void server_start(struct server *s, const struct config *config)
{
	struct bundlefile bundle = { 0 };
	int err = sandbox_enter();

	if (err)
		exit_with(EX_OSERR, "cannot restrict the process: %s", strerror(-err));
	s->config = config;
	server_take_time(s);
	if (!config->plain) {
		load_manager_key(s);
		open_store(s);
		load_bundle(s, store_bundle_serial(s->store), &bundle);
	} else if (config->state_dir[0]) {
		open_store(s);
	}
	start_ring(s);
	bind_all(s);
	start_engine(s);
	if (s->store)
		server_restore(s, &bundle);
	if (!config->plain) {
		bundlefile_deinit(&bundle);
		start_workers(s);
		start_bundlein(s);
		start_hsm(s);
	}
	if (s->stops)
		return;
	start_control(s);
	start_listening(s);
}

int server_check(const struct config *config)
{
	char why[BUNDLEFILE_ERROR_BYTES];
	struct bundlefile_expect e = { .gateway_id = config->gateway_id };
	static struct server s;
	struct bundlefile bundle;
	int err;

	if (config->plain)
		return 0;
	s.config = config;
	server_take_time(&s);
	load_manager_key(&s);
	e.manager = s.manager;
	e.wall_ms = s.wall_ms;
	err = bundlefile_read(config->bundle, &e, &bundle, why);
	if (err)
		exit_with(exit_code_of_bundle(err), "%s", why);
	bundlefile_deinit(&bundle);
	p256_public_free(s.manager);
	return 0;
}

/* --- the end ---------------------------------------------------------------------------------- */

/* Jobs are the engine's memory: whatever the end, each is given back before it goes. An answer may
 * bring another job. */
static void give_back_jobs(struct server *s)
{
	const struct timespec step = { .tv_nsec = 1000000 };
	bool more = true;

	while (more) {
		server_retire(s);
		more = s->hsm && hsmlink_stop(s->hsm);
		if ((s->workers && workers_pending(s->workers)) ||
		    (s->store && store_busy(s->store))) {
			if (s->workers)
				workers_publish(s->workers);
			nanosleep(&step, NULL);
			more = true;
		}
	}
}

void server_free(struct server *s)
{
	give_back_jobs(s);
	operators_free(s->operators);
	admit_free(s->admit);
	workers_free(s->workers);
	store_close(s->store);
	p256_public_free(s->manager);
	/* The kernel lets go of every buffer with the ring. */
	bufring_deinit(&s->buffers);
	ring_deinit(&s->ring);
	hsmlink_free(s->hsm);
	bundlein_free(s->bundlein); /* behind the ring, which may have been syncing a file of it */
	listener_set_deinit(&s->listeners);
	stream_table_deinit(&s->streams);
	broker_free(s->broker); /* behind the streams, which may still point into its messages */
	pool_deinit(&s->pool);
	close(s->polled[POLLED_SIGNALS].fd);
	wake_deinit(&s->wake);
}
