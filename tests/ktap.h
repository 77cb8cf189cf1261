/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A small test harness in the conventions of the kernel's selftests.
 *
 * A program is a list of TEST()s. Each runs in a child of its own, in a process group of its own,
 * with an alarm: a test that crashes, hangs or leaves processes behind is one "not ok" and the
 * next one runs. The verdict is KTAP on stdout. ASSERT_* end the test, EXPECT_* let it go on;
 * like in kselftest the expected value comes first. SKIP("reason") ends it as skipped.
 *
 * Arguments: NAME=VALUE goes to the environment, anything else selects the tests whose names
 * contain it. KTAP_TIMEOUT_SCALE multiplies every deadline (for kernels that are slow because
 * they look for mistakes).
 */
#ifndef KTAP_H
#define KTAP_H

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

enum { KTAP_PASS = 0, KTAP_FAIL = 1, KTAP_SKIP = 4 };

/*
 * What tests have in common: setup() runs in the child before the test, once for each of the
 * variants.
 */
struct ktap_fixture {
	const char *const *variants;	/* ends with NULL */
	void (*setup)(const char *variant);
};

struct ktap_test {
	const char *name;
	void (*run)(void);
	const struct ktap_fixture *fixture;
	unsigned int timeout;		/* seconds, 0 means KTAP_TIMEOUT */
	struct ktap_test *next;
};

#define KTAP_TIMEOUT 60

extern struct ktap_test *ktap_tests, **ktap_tail;
extern char *ktap_skip_reason;		/* shared with the child */
extern unsigned int ktap_failed;	/* failures of this test; 20 are enough */

/* TEST(name) { … }, or with fields of struct ktap_test: TEST(name, .timeout = 300) { … } */
#define TEST(id, ...)								\
	static void test_##id(void);						\
	static struct ktap_test ktap_##id = { .name = #id, .run = test_##id, ##__VA_ARGS__ }; \
	static void __attribute__((constructor)) ktap_add_##id(void)		\
	{									\
		*ktap_tail = &ktap_##id;					\
		ktap_tail = &ktap_##id.next;					\
	}									\
	static void test_##id(void)

static inline unsigned int ktap_scale(unsigned int seconds)
{
	const char *scale = getenv("KTAP_TIMEOUT_SCALE");

	return seconds * (scale ? atoi(scale) : 1);
}

static inline void __attribute__((format(printf, 1, 2))) ktap_note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("# ", stdout);
	vprintf(fmt, ap);
	putchar('\n');
	fflush(stdout);
	va_end(ap);
}

#define SKIP(...) do {								\
	snprintf(ktap_skip_reason, 256, __VA_ARGS__);				\
	fflush(stdout);								\
	_exit(KTAP_SKIP);							\
} while (0)

static inline void ktap_fail(bool fatal)
{
	if (++ktap_failed == 20 || fatal)
		_exit(KTAP_FAIL);
}

#define FAIL(...) do {								\
	ktap_note("%s:%d:", __FILE__, __LINE__);				\
	ktap_note(__VA_ARGS__);							\
	ktap_fail(true);							\
} while (0)

#define KTAP_COMPARE(fatal, want, op, seen) do {				\
	long long ktap_want = (long long)(want), ktap_seen = (long long)(seen);	\
										\
	if (!(ktap_want op ktap_seen)) {					\
		ktap_note("%s:%d: %s %s %s does not hold: %lld (%#llx) %s %lld (%#llx)", \
			  __FILE__, __LINE__, #want, #op, #seen,		\
			  ktap_want, ktap_want, #op, ktap_seen, ktap_seen);	\
		ktap_fail(fatal);						\
	}									\
} while (0)

#define ASSERT_EQ(want, seen) KTAP_COMPARE(true, want, ==, seen)
#define ASSERT_NE(want, seen) KTAP_COMPARE(true, want, !=, seen)
#define ASSERT_LE(want, seen) KTAP_COMPARE(true, want, <=, seen)
#define ASSERT_GE(want, seen) KTAP_COMPARE(true, want, >=, seen)
#define EXPECT_EQ(want, seen) KTAP_COMPARE(false, want, ==, seen)
#define EXPECT_NE(want, seen) KTAP_COMPARE(false, want, !=, seen)
#define EXPECT_LE(want, seen) KTAP_COMPARE(false, want, <=, seen)
#define EXPECT_GE(want, seen) KTAP_COMPARE(false, want, >=, seen)

#define KTAP_TRUE(fatal, what) do {						\
	if (!(what)) {								\
		ktap_note("%s:%d: not true: %s (errno %s)", __FILE__, __LINE__, \
			  #what, ktap_errno(errno));				\
		ktap_fail(fatal);						\
	}									\
} while (0)

#define ASSERT_TRUE(what) KTAP_TRUE(true, what)
#define EXPECT_TRUE(what) KTAP_TRUE(false, what)

const char *ktap_errno(int error);

/* The call returns -1 (or MAP_FAILED) and errno is exactly this. */
#define KTAP_ERRNO(fatal, want, call) do {					\
	long ktap_result;							\
	int ktap_error;								\
										\
	errno = 0;								\
	ktap_result = (long)(call);						\
	ktap_error = errno;							\
	if (ktap_result != -1) {						\
		ktap_note("%s:%d: %s returned %ld, expected it to fail with %s", \
			  __FILE__, __LINE__, #call, ktap_result, ktap_errno(want)); \
		ktap_fail(fatal);						\
	} else if (ktap_error != (want)) {					\
		ktap_note("%s:%d: %s failed with %s, expected %s", __FILE__, __LINE__, \
			  #call, ktap_errno(ktap_error), ktap_errno(want));	\
		ktap_fail(fatal);						\
	}									\
} while (0)

#define ASSERT_ERRNO(want, call) KTAP_ERRNO(true, want, call)
#define EXPECT_ERRNO(want, call) KTAP_ERRNO(false, want, call)

/* The call succeeds: it does not return -1 or MAP_FAILED. */
#define ASSERT_OK(call) do {							\
	if ((long)(call) == -1) {						\
		ktap_note("%s:%d: %s failed with %s", __FILE__, __LINE__, #call, \
			  ktap_errno(errno));					\
		ktap_fail(true);						\
	}									\
} while (0)

/* True as soon as the condition is true; false if it isn't within half a minute. */
#define WAIT_FOR(condition) ({							\
	time_t ktap_end = time(NULL) + ktap_scale(30);				\
	bool ktap_came;								\
										\
	while (!(ktap_came = !!(condition)) && time(NULL) < ktap_end)		\
		usleep(2000);							\
	ktap_came;								\
})

/* Touches one byte. Returns 0, or the signal that it raised. */
int probe_read(const volatile void *address);
int probe_write(volatile void *address);

#endif
