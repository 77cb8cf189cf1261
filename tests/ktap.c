// SPDX-License-Identifier: GPL-2.0
/* The running half of ktap.h: main(), one child for each test, probes. */
#include <sys/prctl.h>

#include "ktap.h"

struct ktap_test *ktap_tests, **ktap_tail = &ktap_tests;
char *ktap_skip_reason;
unsigned int ktap_failed;

const char *ktap_errno(int error)
{
	const char *name = strerrorname_np(error);

	return error && name ? name : "0";
}

static sigjmp_buf probe_env;

static void probe_caught(int sig)
{
	siglongjmp(probe_env, sig);
}

static int probe(volatile char *address, bool write)
{
	const struct sigaction catch = { .sa_handler = probe_caught };
	struct sigaction old_segv, old_bus;
	int sig;

	sigaction(SIGSEGV, &catch, &old_segv);
	sigaction(SIGBUS, &catch, &old_bus);
	sig = sigsetjmp(probe_env, 1);
	if (!sig) {
		char byte = *address;

		if (write)
			*address = byte;
	}
	sigaction(SIGSEGV, &old_segv, NULL);
	sigaction(SIGBUS, &old_bus, NULL);
	return sig;
}

int probe_read(const volatile void *address)
{
	return probe((volatile char *)address, false);
}

int probe_write(volatile void *address)
{
	return probe(address, true);
}

/* Where a process is stuck that not even SIGKILL ends. */
static void show_stack(pid_t pid)
{
	char path[64], line[256];
	FILE *stack;

	snprintf(path, sizeof(path), "/proc/%d/stack", pid);
	stack = fopen(path, "r");
	while (stack && fgets(line, sizeof(line), stack)) {
		line[strcspn(line, "\n")] = 0;
		ktap_note("%s", line);
	}
	if (stack)
		fclose(stack);
}

static int run_child(const struct ktap_test *test, const char *variant)
{
	unsigned int seconds = ktap_scale(test->timeout ? test->timeout : KTAP_TIMEOUT);
	const struct timespec grace = { .tv_sec = ktap_scale(10) };
	const struct timespec patience = { .tv_sec = seconds + grace.tv_sec };
	int status = 0;
	sigset_t chld;
	pid_t pid, left;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	ktap_skip_reason[0] = 0;
	fflush(stdout);

	pid = fork();
	if (!pid) {
		setpgid(0, 0);
		sigprocmask(SIG_UNBLOCK, &chld, NULL);
		alarm(seconds);
		if (test->fixture)
			test->fixture->setup(variant);
		test->run();
		fflush(stdout);
		_exit(ktap_failed ? KTAP_FAIL : KTAP_PASS);
	}
	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (sigtimedwait(&chld, NULL, &patience) < 0 && errno == EAGAIN) {
			ktap_note("process %d does not end, not even killed:", pid);
			show_stack(pid);
			kill(-pid, SIGKILL);
			return KTAP_FAIL;
		}
	}
	/* Whatever it left behind may hold what the next test wants unused. */
	kill(-pid, SIGKILL);
	while ((left = waitpid(-pid, NULL, WNOHANG)) >= 0)
		if (!left && sigtimedwait(&chld, NULL, &grace) < 0 && errno == EAGAIN)
			break;

	if (WIFSIGNALED(status)) {
		if (WTERMSIG(status) == SIGALRM)
			ktap_note("not done after %u s", seconds);
		else
			ktap_note("killed by SIG%s", sigabbrev_np(WTERMSIG(status)));
		return KTAP_FAIL;
	}
	return WEXITSTATUS(status);
}

static bool wanted(const char *name, int argc, char **argv)
{
	bool any = false;

	for (int i = 1; i < argc; i++) {
		if (strchr(argv[i], '='))
			continue;
		if (strstr(name, argv[i]))
			return true;
		any = true;
	}
	return !any;
}

int main(int argc, char **argv)
{
	static const char *const once[] = { "", NULL };
	int total[5] = { 0 }, plan = 0, number = 0;

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	setvbuf(stdout, NULL, _IOLBF, 0);
	ktap_skip_reason = mmap(NULL, 256, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
				-1, 0);
	for (int i = 1; i < argc; i++)
		if (strchr(argv[i], '='))
			putenv(argv[i]);

	/* The same walk twice: the plan comes first. */
	for (int running = 0; running < 2; running++) {
		if (running)
			printf("KTAP version 1\n1..%d\n", plan);
		for (struct ktap_test *test = ktap_tests; test; test = test->next) {
			const char *const *variant = test->fixture ? test->fixture->variants : once;

			for (; *variant; variant++) {
				char name[128];
				int result;

				snprintf(name, sizeof(name), "%s%s%s", *variant,
					 **variant ? "." : "", test->name);
				if (!wanted(name, argc, argv))
					continue;
				if (!running) {
					plan++;
					continue;
				}
				result = run_child(test, *variant);
				if (result != KTAP_PASS && result != KTAP_SKIP)
					result = KTAP_FAIL;
				total[result]++;
				printf("%sok %d %s%s%s\n", result == KTAP_FAIL ? "not " : "",
				       ++number, name, result == KTAP_SKIP ? " # SKIP " : "",
				       result == KTAP_SKIP ? ktap_skip_reason : "");
			}
		}
	}
	printf("# Totals: pass:%d fail:%d xfail:0 xpass:0 skip:%d error:0\n",
	       total[KTAP_PASS], total[KTAP_FAIL], total[KTAP_SKIP]);
	return total[KTAP_FAIL] ? 1 : 0;
}
