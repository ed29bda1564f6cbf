/* SPDX-License-Identifier: MIT */
/*
 * A small kselftest-style harness: TAP 13 on stdout, fixtures, variants, each test in a process of
 * its own with a time-out, skip with a reason.
 *
 *   TEST(name) { ASSERT_EQ(1 + 1, 2); }
 *
 *   FIXTURE(tok) { int fd; };
 *   FIXTURE_SETUP(tok) { self->fd = ...; }          // self: the fixture, variant: NULL or the row
 *   FIXTURE_TEARDOWN(tok) { close(self->fd); }
 *   TEST_F(tok, name) { ASSERT_GE(self->fd, 0); }
 *
 *   FIXTURE_VARIANT(tok) { int bits; };             // before FIXTURE_SETUP
 *   FIXTURE_VARIANT_ADD(tok, small) { .bits = 8 };  // each TEST_F of tok runs once a variant
 *
 *   HARNESS_MAIN
 *
 * ASSERT_* ends the test; EXPECT_* marks it failed and goes on. SKIP("why") ends it as a TAP skip.
 * TEST_TIMEOUT(name, s) and TEST_F_TIMEOUT(fixture, name, s) give a time-out in seconds other than
 * 30; HARNESS_TIMEOUT_SCALE multiplies all of them (sanitizers, emulators).
 * A test fails, too, where it leaks (under a leak checker) or exits before its end. What it leaves
 * running in its process group is killed.
 * Options of a test program: -l lists, -t GLOB runs the matching ones, -s N sets the seed.
 * harness_seed() is a number from -s, SSDTF_SEED or the clock, printed as a TAP comment at start.
 */
#ifndef SSDTF_TESTS_HARNESS_H
#define SSDTF_TESTS_HARNESS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct harness_test {
	const char *fixture; /* NULL: a plain TEST */
	const char *name;
	void (*run)(void *self, const void *variant);
	void (*setup)(void *self, const void *variant);
	void (*teardown)(void *self, const void *variant);
	size_t self_bytes;
	unsigned timeout_s;
	struct harness_test *next;
};

struct harness_variant {
	const char *fixture;
	const char *name;
	const void *data;
	struct harness_variant *next;
};

void harness_add_test(struct harness_test *t);
void harness_add_variant(struct harness_variant *v);
int harness_main(int argc, char **argv);
uint64_t harness_seed(void);
/* A small generator seeded from harness_seed() in each test: the same numbers every run of a seed.
 */
uint64_t harness_random(void);

/*
 * How often a test is to do what it would do `full` times: as often, or a quarter of that (and at
 * least once) under TESTS_EFFORT=low, for machines that are slow. For repetitions of one and the
 * same check alone, such as the steps of a random walk: every kind of check is made either way.
 */
unsigned harness_rounds(unsigned full);
/* What a wait of so long is on this machine: HARNESS_TIMEOUT_SCALE times that. */
uint64_t harness_patience_ms(uint64_t ms);

void harness_fail(const char *file, int line, bool fatal, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void harness_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
/* What ASSERT_* calls at the end, so that compilers know that nothing follows. */
void harness_end(void) __attribute__((noreturn));
void harness_compare(const char *file, int line, const char *what, long long a, long long b);
void harness_compare_bytes(const char *file, int line, bool fatal, const char *what, const void *a,
			   const void *b, size_t n);
/* A TAP comment line. */
void harness_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define HARNESS_TIMEOUT_S 30

#define TEST_TIMEOUT(tname, seconds)                                       \
	static void test_##tname(void);                                    \
	static void run_##tname(void *self_, const void *variant_)         \
	{                                                                  \
		(void)self_;                                               \
		(void)variant_;                                            \
		test_##tname();                                            \
	}                                                                  \
	static __attribute__((constructor)) void add_##tname(void)         \
	{                                                                  \
		static struct harness_test t = { .name = #tname,           \
						 .run = run_##tname,       \
						 .timeout_s = (seconds) }; \
		harness_add_test(&t);                                      \
	}                                                                  \
	static void test_##tname(void)
#define TEST(tname) TEST_TIMEOUT(tname, HARNESS_TIMEOUT_S)

#define FIXTURE(f)	   struct fixture_##f
#define FIXTURE_VARIANT(f) struct variant_##f
#define FIXTURE_VARIANT_ADD(f, v)                                                 \
	extern const struct variant_##f variant_##f##_##v;                        \
	static __attribute__((constructor)) void add_variant_##f##_##v(void)      \
	{                                                                         \
		static struct harness_variant h = { .fixture = #f,                \
						    .name = #v,                   \
						    .data = &variant_##f##_##v }; \
		harness_add_variant(&h);                                          \
	}                                                                         \
	const struct variant_##f variant_##f##_##v =
#define FIXTURE_SETUP(f)                                                                    \
	struct variant_##f;                                                                 \
	static void setup_##f(struct fixture_##f *self, const struct variant_##f *variant); \
	static void setup_any_##f(void *s, const void *v)                                   \
	{                                                                                   \
		setup_##f(s, v);                                                            \
	}                                                                                   \
	static void setup_##f(struct fixture_##f *self, const struct variant_##f *variant)
#define FIXTURE_TEARDOWN(f)                                                                    \
	static void teardown_##f(struct fixture_##f *self, const struct variant_##f *variant); \
	static void teardown_any_##f(void *s, const void *v)                                   \
	{                                                                                      \
		teardown_##f(s, v);                                                            \
	}                                                                                      \
	static void teardown_##f(struct fixture_##f *self, const struct variant_##f *variant)
#define TEST_F_TIMEOUT(f, tname, seconds)                                                  \
	static void test_##f##_##tname(struct fixture_##f *self,                           \
				       const struct variant_##f *variant);                 \
	static void run_##f##_##tname(void *s, const void *v)                              \
	{                                                                                  \
		test_##f##_##tname(s, v);                                                  \
	}                                                                                  \
	static __attribute__((constructor)) void add_##f##_##tname(void)                   \
	{                                                                                  \
		static struct harness_test t = { .fixture = #f,                            \
						 .name = #tname,                           \
						 .run = run_##f##_##tname,                 \
						 .setup = setup_any_##f,                   \
						 .teardown = teardown_any_##f,             \
						 .self_bytes = sizeof(struct fixture_##f), \
						 .timeout_s = (seconds) };                 \
		harness_add_test(&t);                                                      \
	}                                                                                  \
	static void test_##f##_##tname(struct fixture_##f *self, const struct variant_##f *variant)
#define TEST_F(f, tname) TEST_F_TIMEOUT(f, tname, HARNESS_TIMEOUT_S)

#define HARNESS_CMP(fatal, a, op, b)                                                    \
	do {                                                                            \
		long long a_ = (long long)(a), b_ = (long long)(b);                     \
		if (!(a_ op b_)) {                                                      \
			harness_compare(__FILE__, __LINE__, #a " " #op " " #b, a_, b_); \
			if (fatal)                                                      \
				harness_end();                                          \
		}                                                                       \
	} while (0)
#define ASSERT_EQ(a, b) HARNESS_CMP(true, a, ==, b)
#define ASSERT_NE(a, b) HARNESS_CMP(true, a, !=, b)
#define ASSERT_LT(a, b) HARNESS_CMP(true, a, <, b)
#define ASSERT_LE(a, b) HARNESS_CMP(true, a, <=, b)
#define ASSERT_GT(a, b) HARNESS_CMP(true, a, >, b)
#define ASSERT_GE(a, b) HARNESS_CMP(true, a, >=, b)
#define EXPECT_EQ(a, b) HARNESS_CMP(false, a, ==, b)
#define EXPECT_NE(a, b) HARNESS_CMP(false, a, !=, b)
#define ASSERT_TRUE(c)                                                               \
	do {                                                                         \
		if (!(c)) {                                                          \
			harness_fail(__FILE__, __LINE__, false, "not true: %s", #c); \
			harness_end();                                               \
		}                                                                    \
	} while (0)
#define EXPECT_TRUE(c)                                                               \
	do {                                                                         \
		if (!(c))                                                            \
			harness_fail(__FILE__, __LINE__, false, "not true: %s", #c); \
	} while (0)
#define ASSERT_FALSE(c)	      ASSERT_TRUE(!(c))
#define EXPECT_FALSE(c)	      EXPECT_TRUE(!(c))
#define ASSERT_BYTES(a, b, n) harness_compare_bytes(__FILE__, __LINE__, true, #a " is " #b, a, b, n)
#define ASSERT_STREQ(a, b)                                                                         \
	do {                                                                                       \
		const char *sa_ = (a), *sb_ = (b);                                                 \
		if (strcmp(sa_, sb_)) {                                                            \
			harness_fail(__FILE__, __LINE__, false, "\"%s\" is not \"%s\"", sa_, sb_); \
			harness_end();                                                             \
		}                                                                                  \
	} while (0)
#define SKIP(...) harness_skip(__VA_ARGS__)

#define HARNESS_MAIN                             \
	int main(int argc, char **argv)          \
	{                                        \
		return harness_main(argc, argv); \
	}

#endif
