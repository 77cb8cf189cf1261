// SPDX-License-Identifier: GPL-2.0
/*
 * fragment: leave a page that cannot be moved in every 256 KiB of most of the
 * memory, say "ready", and keep it so until killed.
 *
 * A packet in a pipe has a page of its own, which stays where it is. Free memory
 * is filled with them, up to what everybody else needs to go on, and then all but
 * every 64th are given back.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define SLOTS	16		/* of a pipe */
#define EVERY	64
#define MAX	100000
#define SPARE	(160L << 10)	/* KiB for everybody else */

static int given[MAX][2], kept[MAX][2];

static long free_kib(void)
{
	char line[128];
	long kib = 0;
	FILE *f = fopen("/proc/meminfo", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemFree: %ld", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib;
}

/* A page into the last of the pipes, or into a new one when that is full. */
static void add_page(int pipes[MAX][2], int *n)
{
	if (*n && write(pipes[*n - 1][1], "", 1) == 1)
		return;
	if (*n == MAX || pipe2(pipes[*n], O_DIRECT | O_NONBLOCK)) {
		perror("pipe");
		exit(1);
	}
	++*n;
	if (write(pipes[*n - 1][1], "", 1) != 1) {
		perror("write");
		exit(1);
	}
}

int main(void)
{
	struct rlimit limit = { 1 << 18, 1 << 18 };
	int n_given = 0, n_kept = 0;
	unsigned long page = 0;

	if (setrlimit(RLIMIT_NOFILE, &limit)) {
		perror("RLIMIT_NOFILE");
		return 1;
	}
	while (page % 1024 || free_kib() > SPARE) {
		if (page++ % EVERY)
			add_page(given, &n_given);
		else
			add_page(kept, &n_kept);
	}
	for (int i = 0; i < n_given; i++) {
		close(given[i][0]);
		close(given[i][1]);
	}
	printf("ready after %lu pages\n", page);
	fflush(stdout);
	for (;;)
		pause();
}
