// SPDX-License-Identifier: GPL-2.0
/*
 * PID 1 of a guest that loads /module.ko, if it is there, and says on its console
 * where its memory is:
 *
 *	page 0x3f42000	guest-physical address of a page with TEXT again and again and,
 *			in its last eight bytes, a counter
 *	child 57	a process called kvmfr-child
 *	ready
 *
 * Then it counts.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE		4096
#define TEXT		"kvmfr was here\n"

static void die(const char *what)
{
	printf("failed: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t physical(const void *address)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry;

	if (fd < 0 || pread(fd, &entry, 8, (uintptr_t)address / PAGE * 8) != 8)
		die("/proc/self/pagemap");
	return (entry & ((1ULL << 55) - 1)) * PAGE;
}

static void load(const char *module)
{
	int fd = open(module, O_RDONLY);

	if (fd >= 0 && syscall(SYS_finit_module, fd, "", 0))
		die(module);
	close(fd);
}

int main(void)
{
	volatile uint64_t *counter;
	char *page;
	pid_t child;

	setvbuf(stdout, NULL, _IOLBF, 0);
	mkdir("/proc", 0755);
	if (mount("proc", "/proc", "proc", 0, NULL))
		die("/proc");
	load("/module.ko");

	/* Before the page is there: one that both have is copied at the next write. */
	child = fork();
	if (child < 0)
		die("fork");
	if (!child) {
		prctl(PR_SET_NAME, "kvmfr-child");
		/* crash fails at times if a CPU is idle. */
		for (;;)
			;
	}

	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_LOCKED, -1, 0);
	if (page == MAP_FAILED)
		die("mmap");
	for (size_t i = 0; i < PAGE - sizeof(*counter); i++)
		page[i] = TEXT[i % strlen(TEXT)];
	counter = (uint64_t *)(page + PAGE) - 1;
	printf("page 0x%llx\n", (unsigned long long)physical(page));
	printf("child %d\nready\n", child);
	for (;;)
		++*counter;
}
