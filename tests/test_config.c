// SPDX-License-Identifier: MIT
/*
 * The configuration file (each mistake named with its line) and the bundle file (each that must not
 * be believed refused, with a reason).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/harness.h"
#include "userspace/core/bundlefile.h"
#include "userspace/core/config.h"

#define PATH_BYTES 256
#define EXAMPLE	   "tools/gateway.conf.example"

FIXTURE(files)
{
	char dir[PATH_BYTES];
	char path[PATH_BYTES + 32];
	struct p256_private *manager, *other;
	struct p256_public *manager_public;
};

static struct p256_private *private_of(uint8_t scalar)
{
	struct secret32 k = { .b[31] = scalar };
	struct p256_private *key;

	ASSERT_EQ(p256_private_new(&k, &key), 0);
	return key;
}

FIXTURE_SETUP(files)
{
	struct p256_point point;

	snprintf(self->dir, sizeof(self->dir), "%s/ssdtf-config-XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	ASSERT_TRUE(mkdtemp(self->dir));
	snprintf(self->path, sizeof(self->path), "%s/gateway.conf", self->dir);
	self->manager = private_of(7);
	self->other = private_of(8);
	p256_private_point(self->manager, &point);
	ASSERT_EQ(p256_public_new(&point, &self->manager_public), 0);
}

FIXTURE_TEARDOWN(files)
{
	(void)unlink(self->path); /* not each test writes it */
	ASSERT_EQ(rmdir(self->dir), 0);
	p256_private_free(self->manager);
	p256_private_free(self->other);
	p256_public_free(self->manager_public);
}

static void write_file(const char *path, const void *p, size_t n, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(write(fd, p, n), (ssize_t)n);
	ASSERT_EQ(fchmod(fd, mode), 0);
	close(fd);
}

/* --- configuration ---------------------------------------------------------------------------- */

#define REQUIRED                          \
	"listen = {\"127.0.0.1:1883\"}\n" \
	"gateway-id = \"gw\"\n"           \
	"manager-key = \"manager.pem\"\n" \
	"bundle = \"/etc/bundle\"\n"      \
	"state-dir = \"state\"\n"         \
	"hsm-sockets = \"/run/ssdtf\"\n"

static int read_config(struct fixture_files *self, const char *text, struct config *ret_c,
		       char *why)
{
	write_file(self->path, text, strlen(text), 0600);
	return config_read(self->path, ret_c, why);
}

TEST_F(files, config_takes_what_is_given_and_defaults_the_rest)
{
	char why[CONFIG_ERROR_BYTES], want[PATH_BYTES + 64], address[ADDRESS_TEXT_BYTES_MAX];
	struct broker_limits defaults;
	struct config c;

	ASSERT_EQ(read_config(self,
			      REQUIRED "admission = enforce\nworkers = 3\nlog-level = \"debug\"\n"
				       "# a comment\nlimits { inflight-max = 7\n"
				       "stall-timeout-ms = 2500 }\n",
			      &c, why),
		  0);
	ASSERT_EQ(c.n_listen, 1);
	ASSERT_STREQ(address_text(&c.listen[0], address), "127.0.0.1:1883");
	ASSERT_STREQ(c.gateway_id, "gw");
	ASSERT_STREQ(c.bundle, "/etc/bundle");
	snprintf(want, sizeof(want), "%s/manager.pem", self->dir); /* beside the file */
	ASSERT_STREQ(c.manager_key, want);
	snprintf(want, sizeof(want), "%s/state", self->dir);
	ASSERT_STREQ(c.state_dir, want);
	ASSERT_EQ(c.admission, CONFIG_ADMISSION_ENFORCE);
	ASSERT_FALSE(c.plain);
	ASSERT_EQ(c.workers, 3);
	ASSERT_EQ(c.log_level, LOG_LEVEL_DEBUG);
	ASSERT_EQ(c.limits.inflight_max, 7);
	ASSERT_EQ(c.core.stall_timeout_ms, 2500);
	broker_limits_default(&defaults);
	defaults.inflight_max = 7;
	ASSERT_BYTES(&c.limits, &defaults, sizeof(defaults));
}

TEST_F(files, config_of_a_plain_broker_needs_an_address_alone)
{
	char why[CONFIG_ERROR_BYTES];
	struct config c;

	ASSERT_EQ(read_config(self,
			      "plain = true\nlisten = { \"127.0.0.1:1883\" }\n"
			      "limits { inflight-max = 7 }\n",
			      &c, why),
		  0);
	ASSERT_TRUE(c.plain);
	ASSERT_EQ(c.limits.inflight_max, 7);
	ASSERT_EQ(read_config(self, "plain = true\n", &c, why), -EINVAL);
	ASSERT_TRUE(strstr(why, "'listen' is missing"));
	ASSERT_EQ(read_config(self, "plain = false\nlisten = { \"127.0.0.1:1883\" }\n", &c, why),
		  -EINVAL);
	ASSERT_TRUE(strstr(why, "is missing"));
	ASSERT_EQ(read_config(self, "plain = perhaps\nlisten = { \"127.0.0.1:1883\" }\n", &c, why),
		  -EINVAL);
}

TEST_F(files, config_takes_every_limit_by_its_name)
{
	char why[CONFIG_ERROR_BYTES];
	struct broker_limits *l;
	struct config c;
	uint32_t *each;

	ASSERT_EQ(
		read_config(self,
			    REQUIRED
			    "limits {\n packet-bytes-max = 4101\n connections-max = 4102\n"
			    "sessions-max = 4103\n subscriptions-max = 4104\n retained-max = 4105\n"
			    "queue-messages-max = 4106\n queue-bytes-max = 4107\n"
			    "queue-high-water = 4099\n receiver-stall-ms = 4109\n"
			    "inflight-max = 4110\n output-bytes-soft = 4111\n"
			    "verify-bytes-max = 4112\n verify-pending-max = 4113\n"
			    "connect-timeout-ms = 4114\n auth-timeout-ms = 4115\n"
			    "convert-deadline-ms = 4116\n capsules-max = 4117\n"
			    "contexts-max = 4118\n errors-per-second = 4119\n"
			    "reports-queue-max = 4120\n"
			    "admission-connects-per-second = 4121\n"
			    "admission-no-clock-ms = 4122\n admission-told-per-second = 4123\n"
			    "admission-told-total-per-second = 4124\n"
			    "admission-ban-failures = 4125\n"
			    "admission-ban-window-ms = 4126\n admission-ban-ms = 4127\n"
			    "origins-max = 4128\n}\n",
			    &c, why),
		0);
	l = &c.limits;
	l->queue_high_water = 4108;
	/* The struct is nothing but these numbers, in the order of its declaration. */
	each = (uint32_t *)l;
	for (unsigned i = 0; i < sizeof(*l) / sizeof(*each); i++)
		ASSERT_EQ(each[i], 4101 + i);
}

TEST_F(files, config_example_is_valid_and_changes_no_default)
{
	char why[CONFIG_ERROR_BYTES];
	struct config c, d;

	if (access(EXAMPLE, R_OK))
		SKIP(EXAMPLE " is not here");
	if (config_read(EXAMPLE, &c, why))
		harness_fail(__FILE__, __LINE__, true, "%s", why);
	config_init(&d);
	ASSERT_BYTES(&c.limits, &d.limits, sizeof(c.limits));
	ASSERT_BYTES(&c.core, &d.core, sizeof(c.core));
	ASSERT_EQ(c.n_listen, 2);
	ASSERT_EQ(c.log_level, d.log_level);
}

/* The example with each of its commented options switched on: their names and defaults are right.
 */
TEST_F(files, config_example_names_every_option_and_its_default)
{
	char text[16384], line[512], why[CONFIG_ERROR_BYTES];
	size_t used = 0;
	struct config c, d;
	unsigned n = 0;
	FILE *f = fopen(EXAMPLE, "re");

	if (!f)
		SKIP(EXAMPLE " is not here");
	while (fgets(line, sizeof(line), f)) {
		size_t blanks = strspn(line, "\t");
		bool off =
			line[blanks] == '#' && line[blanks + 1] >= 'a' && line[blanks + 1] <= 'z';

		n += off;
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s",
					 off ? line + blanks + 1 : line);
		ASSERT_LT(used, sizeof(text));
	}
	fclose(f);
	ASSERT_EQ(n, 6 + (sizeof(c.limits) + sizeof(c.core)) / sizeof(uint32_t));
	if (read_config(self, text, &c, why))
		harness_fail(__FILE__, __LINE__, true, "%s", why);
	config_init(&d);
	ASSERT_BYTES(&c.limits, &d.limits, sizeof(c.limits));
	ASSERT_EQ(c.core.output_bytes_total, d.core.output_bytes_total);
	ASSERT_EQ(c.core.stall_timeout_ms, d.core.stall_timeout_ms);
	ASSERT_EQ(c.core.output_bytes_hard,
		  4 * d.limits.output_bytes_soft + 16 * d.limits.packet_bytes_max);
	ASSERT_EQ(c.admission, d.admission);
	ASSERT_EQ(c.workers, d.workers);
}

/* What is said about a file, after its name. */
static const struct {
	const char *text, *says;
} mistakes[] = {
	{ "\n\nstate-dri = \"x\"\n", ":3: no such option 'state-dri'; did you mean 'state-dir'?" },
	{ "lsiten = {\"1.2.3.4:5\"}\n", ":1: no such option 'lsiten'; did you mean 'listen'?" },
	{ "hsm_sockets = \"x\"\n",
	  ":1: no such option 'hsm_sockets'; did you mean 'hsm-sockets'?" },
	{ "colour = \"x\"\n", ":1: no such option 'colour'" },
	{ "inflight-max = 3\n", ":1: no such option 'inflight-max'; did you mean 'inflight-max', "
				"inside of limits { }?" },
	{ "limits {\n\ninflight-mx = 3\n}\n",
	  ":3: no such option 'inflight-mx'; did you mean 'inflight-max'?" },
	{ "limits {\nworkers = 3\n}\n",
	  ":2: no such option 'workers'; did you mean 'workers', outside of limits { }?" },
	{ "workers = 65\n", ":1: 'workers' is 65; it may be from 0 to 64" },
	{ "workers = -1\n", ":1: 'workers' is -1; it may be from 0 to 64" },
	{ "workers = 1k\n", ":1: invalid integer value for option 'workers'" },
	{ "workers = 99999999999999999999\n",
	  ":1: integer value for option 'workers' is out of range" },
	{ "limits {\n\n\n packet-bytes-max = 1023\n}\n",
	  ":4: 'packet-bytes-max' is 1023; it may be from 1024 to 268435455" },
	{ "limits { inflight-max = 65536 }\n",
	  ":1: 'inflight-max' is 65536; it may be from 1 to 65535" },
	{ "admission = perhaps\n",
	  ":1: 'perhaps' is not a mode of admission: off, monitor, enforce or auto" },
	{ "log-level = \"loud\"\n",
	  ":1: 'loud' is not a log level: error, warning, info or debug" },
	{ "gateway-id = \"a b\"\n", ":1: 'a b' is not an id: 1 to 64 of A-Z a-z 0-9 . _ : -" },
	{ "gateway-id = \"\"\n", ":1: '' is not an id: 1 to 64 of A-Z a-z 0-9 . _ : -" },
	{ "bundle = \"\"\n", ":1: 'bundle' is empty" },
	{ "bundle = \"a\"\n\nbundle = \"b\"\n",
	  ":3: 'bundle' stands twice; the first is in line 1" },
	{ "workers = 2\nworkers = 2\n", ":2: 'workers' stands twice; the first is in line 1" },
	{ "limits {\ninflight-max = 3\ninflight-max = 3\n}\n",
	  ":3: 'inflight-max' stands twice; the first is in line 2" },
	{ "limits { }\nlimits { }\n", ":2: 'limits' stands twice" },
	{ "listen = {\"1.2.3.4:5\"}\nlisten = {\"1.2.3.4:6\"}\n",
	  ":2: 'listen' stands twice; give one list" },
	{ "listen = {\"1.2.3.4:5\", \"1.2.3.4:6\"}\nlisten = {\"1.2.3.4:5\"}\n",
	  ":2: 'listen' stands twice; give one list" },
	{ "listen = {\"1.2.3.4:5\",\n\"example.org:1883\"}\n",
	  ":2: 'example.org:1883' is not an address to listen on: \"192.0.2.1:1883\" or "
	  "\"[2001:db8::1]:1883\", numeric but for localhost" },
	{ "workers 3\n", ":1: missing equal sign after option 'workers'" },
	{ "limits {\ninflight-max = 3\n", ":2: a section is still open at the end of the file" },
	{ "limits = 3\n", ":1: missing opening brace for section 'limits'" },
	{ "\nbundle = \"a\\b\"\n", ":2: a backslash has no place here" },
	{ "bundle = \"a\"\n\n\001\n", ":3: a control character has no place here" },
	{ "bundle = \"abc\n", ":1: premature end of file" },
};

TEST_F(files, config_names_the_line_of_a_mistake)
{
	char why[CONFIG_ERROR_BYTES];
	struct config c;

	for (unsigned i = 0; i < ARRAY_SIZE(mistakes); i++) {
		if (read_config(self, mistakes[i].text, &c, why) != -EINVAL)
			harness_fail(__FILE__, __LINE__, true, "taken: %s", mistakes[i].text);
		ASSERT_TRUE(!strncmp(why, self->path, strlen(self->path)));
		ASSERT_STREQ(why + strlen(self->path), mistakes[i].says);
	}
}

TEST_F(files, config_names_what_is_missing)
{
	static const char *const names[] = { "listen", "gateway-id", "manager-key",
					     "bundle", "state-dir",  "hsm-sockets" };
	char why[CONFIG_ERROR_BYTES], want[CONFIG_ERROR_BYTES], text[1024];
	struct config c;

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		/* Everything but one line. */
		const char *line = REQUIRED;
		size_t used = 0;

		while (*line) {
			size_t n = strcspn(line, "\n") + 1;

			if (strncmp(line, names[i], strlen(names[i])) != 0) {
				memcpy(text + used, line, n);
				used += n;
			}
			line += n;
		}
		text[used] = '\0';
		ASSERT_EQ(read_config(self, text, &c, why), -EINVAL);
		snprintf(want, sizeof(want), "%s: '%s' is missing", self->path, names[i]);
		ASSERT_STREQ(why, want);
	}
}

TEST_F(files, config_sees_limits_that_contradict_each_other)
{
	char why[CONFIG_ERROR_BYTES];
	struct config c;

	ASSERT_EQ(read_config(self,
			      REQUIRED "limits { output-bytes-soft = 100000\n"
				       "output-bytes-hard = 100000 }\n",
			      &c, why),
		  -EINVAL);
	ASSERT_TRUE(strstr(why, ": 'output-bytes-hard' (100000) must be above "
				"'output-bytes-soft' (100000)"));
	ASSERT_EQ(read_config(self, REQUIRED "limits { queue-messages-max = 10 }\n", &c, why),
		  -EINVAL);
	ASSERT_TRUE(strstr(why, "'queue-high-water' (1000) must not be above"));
	ASSERT_EQ(read_config(self, "listen = {}\n" REQUIRED, &c, why), 0);
}

TEST_F(files, config_says_that_there_is_no_file)
{
	char why[CONFIG_ERROR_BYTES], want[CONFIG_ERROR_BYTES];
	struct config c;

	ASSERT_EQ(config_read(self->path, &c, why), -ENOENT);
	snprintf(want, sizeof(want), "%s: No such file or directory", self->path);
	ASSERT_STREQ(why, want);
	ASSERT_EQ(config_read(self->dir, &c, why), -EISDIR);
	ASSERT_TRUE(strstr(why, ": is not a regular file"));
	ASSERT_EQ(read_config(self, "", &c, why), -EINVAL);
	ASSERT_TRUE(strstr(why, ": 'listen' is missing"));
}

/* No text, however broken, does more than be refused. */
TEST_F(files, config_survives_what_is_no_configuration)
{
	static const char alphabet[] = "{}=\"',#/*+\n \t\\ab1-listenlimits$\x80";
	char text[600], why[CONFIG_ERROR_BYTES];
	struct config c;

	for (unsigned round = 0; round < 3000; round++) {
		size_t n = harness_random() % (sizeof(text) - 1);

		if (round % 2) {
			n = (size_t)snprintf(text, sizeof(text), "%s", REQUIRED "limits { }\n");
			for (unsigned k = 0; k < 3; k++)
				text[harness_random() % n] =
					alphabet[harness_random() % (sizeof(alphabet) - 1)];
		} else {
			for (size_t i = 0; i < n; i++)
				text[i] = alphabet[harness_random() % (sizeof(alphabet) - 1)];
			text[n] = '\0';
		}
		if (read_config(self, text, &c, why))
			ASSERT_TRUE(why[0]);
	}
}

/* --- bundle ----------------------------------------------------------------------------------- */

#define NOW_MS 1700000000000ull

/* A whole bundle with nothing in it, signed by key. Returns its length. */
static size_t write_bundle(struct fixture_files *self, const char *gateway_id,
			   const struct statement *like, const struct p256_private *key,
			   uint8_t *out, size_t room)
{
	struct bundle_gateway g = { .broker.gateway_id = bytes_str(gateway_id) };
	uint8_t body[512], digest[P256_DIGEST_BYTES], sig[P256_SIG_BYTES];
	struct bytes_writer b = bytes_writer_of(body, sizeof(body));
	struct bytes_writer w = bytes_writer_of(out, room);
	struct statement s = *like;

	p256_private_point(self->other, &g.broker.signing);
	memset(g.unwrap_key_hash, 0x5a, sizeof(g.unwrap_key_hash));
	bundle_gateway_write_head(&g, &b);
	for (unsigned section = 0; section < 5; section++)
		bytes_write_u32(&b, 0);
	ASSERT_FALSE(b.bad);
	s.body = bytes_of(body, b.used);
	statement_write_unsigned(&s, &w);
	statement_digest(s.kind, bytes_of(out, w.used), digest);
	ASSERT_EQ(p256_sign_digest(key, digest, sig), 0);
	bytes_write(&w, bytes_of(sig, sizeof(sig)));
	ASSERT_FALSE(w.bad);
	write_file(self->path, out, w.used, 0600);
	return w.used;
}

static const struct statement usual = {
	.kind = STATEMENT_GATEWAY,
	.serial = 40,
	.not_before_ms = NOW_MS - 1000,
	.not_after_ms = NOW_MS + 1000,
};

static void expect(struct fixture_files *self, const struct bundlefile_expect *e, int err,
		   const char *words)
{
	char why[BUNDLEFILE_ERROR_BYTES];
	struct bundlefile b;

	ASSERT_EQ(bundlefile_read(self->path, e, &b, why), err);
	ASSERT_TRUE(!strncmp(why, self->path, strlen(self->path)));
	if (!strstr(why, words))
		harness_fail(__FILE__, __LINE__, true, "%s", why);
}

TEST_F(files, bundle_that_fits_is_taken)
{
	struct bundlefile_expect e = { self->manager_public, "gw", 40, NOW_MS };
	char why[BUNDLEFILE_ERROR_BYTES];
	struct p256_point broker;
	struct bundlefile b;
	uint8_t out[1024];

	write_bundle(self, "gw", &usual, self->manager, out, sizeof(out));
	ASSERT_EQ(bundlefile_read(self->path, &e, &b, why), 0);
	ASSERT_EQ(b.statement.serial, 40);
	p256_private_point(self->other, &broker);
	ASSERT_BYTES(&b.gateway.broker.signing, &broker, sizeof(broker));
	ASSERT_EQ(b.gateway.unwrap_key_hash[31], 0x5a);
	bundlefile_deinit(&b);
	e.wall_ms = 0; /* a gateway without a clock yet */
	ASSERT_EQ(bundlefile_read(self->path, &e, &b, why), 0);
	bundlefile_deinit(&b);
}

TEST_F(files, bundle_of_another_manager_or_gateway_or_time_is_refused)
{
	struct bundlefile_expect e = { self->manager_public, "gw", 40, NOW_MS };
	struct statement s = usual;
	uint8_t out[1024];

	write_bundle(self, "gw", &usual, self->other, out, sizeof(out));
	expect(self, &e, -EBADMSG, "signed by this manager's key");
	write_bundle(self, "gw2", &usual, self->manager, out, sizeof(out));
	expect(self, &e, -EXDEV, "is for gateway 'gw2', this one is 'gw'");
	s.serial = 39;
	write_bundle(self, "gw", &s, self->manager, out, sizeof(out));
	expect(self, &e, -ESTALE, "has serial 39; one with serial 40 was in force");
	s.serial = 41;
	s.kind = STATEMENT_BUNDLE;
	write_bundle(self, "gw", &s, self->manager, out, sizeof(out));
	expect(self, &e, -EBADMSG, "gateway bundle");
	write_bundle(self, "gw", &usual, self->manager, out, sizeof(out));
	e.wall_ms = NOW_MS + 1000;
	expect(self, &e, -ESTALE, "has run out");
	e.wall_ms = NOW_MS - 1001;
	expect(self, &e, -ESTALE, "is not valid yet");
}

TEST_F(files, bundle_cut_or_bent_anywhere_is_refused)
{
	struct bundlefile_expect e = { self->manager_public, "gw", 40, NOW_MS };
	char why[BUNDLEFILE_ERROR_BYTES];
	struct bundlefile b;
	uint8_t out[1024];
	size_t n = write_bundle(self, "gw", &usual, self->manager, out, sizeof(out));

	for (size_t i = 0; i < n; i++) {
		write_file(self->path, out, i, 0600);
		ASSERT_EQ(bundlefile_read(self->path, &e, &b, why), -EBADMSG);
		out[i] ^= (uint8_t)(1u << harness_random() % 8);
		write_file(self->path, out, n, 0600);
		ASSERT_EQ(bundlefile_read(self->path, &e, &b, why), -EBADMSG);
		write_bundle(self, "gw", &usual, self->manager, out, sizeof(out));
	}
	out[n] = 0;
	write_file(self->path, out, n + 1, 0600);
	expect(self, &e, -EBADMSG, "whole");
}

TEST_F(files, bundle_open_to_others_or_missing_is_refused)
{
	struct bundlefile_expect e = { self->manager_public, "gw", 40, NOW_MS };
	uint8_t out[1024];

	expect(self, &e, -ENOENT, "No such file");
	write_bundle(self, "gw", &usual, self->manager, out, sizeof(out));
	ASSERT_EQ(chmod(self->path, 0640), 0);
	expect(self, &e, -EPERM, "chmod 600");
}

HARNESS_MAIN
