// SPDX-License-Identifier: GPL-2.0
/*
 * Channels between two processes: one memfd, and two eventfds for doorbells.
 * Prints KTAP. Built with AddressSanitizer and UBSan by check.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libkvmfr-channel.h"

#define SIZE		(2u << 20)
#define TABLE		4096u
#define TRANSFER	(100u << 20)
#define RING		65536u

static unsigned char *memory;
static int bell[2];	/* of each side */
static int number, failed;

#define EQUAL(got, expected) do { \
	long got_ = (got), expected_ = (expected); \
	if (got_ != expected_) { \
		printf("#   [%d] %s: expected %ld, got %ld\n", __LINE__, #got, expected_, got_); \
		fflush(stdout); \
		return 1; \
	} \
} while (0)

static void ring_bell(void *argument)
{
	eventfd_write(*(int *)argument, 1);
}

/* Waits for a ring; only a wake-up that was lost lasts so long. */
static int bell_wait(int side)
{
	struct pollfd pollfd = { .fd = bell[side], .events = POLLIN };
	eventfd_t value;

	if (poll(&pollfd, 1, 60000) != 1) {
		printf("#   a wake-up was lost\n");
		fflush(stdout);
		return -ETIMEDOUT;
	}
	eventfd_read(bell[side], &value);
	return 0;
}

/* fork(), but the child ends with the parent, whatever ends that. */
static pid_t child(void)
{
	pid_t parent = getpid(), pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

static struct kvmfr_channels *attach(int side)
{
	struct kvmfr_channels *c;

	if (kvmfr_channels_attach(memory, SIZE, side, ring_bell, &bell[!side], &c))
		abort();
	return c;
}

/* Fresh memory, between two pages without access, with a channel "a". */
static struct kvmfr_channels *fresh(void)
{
	struct kvmfr_channels *c;

	memset(memory, 0, SIZE);
	if (kvmfr_channels_format(memory, SIZE, 0))
		abort();
	c = attach(0);
	if (kvmfr_channels_create(c, "a", RING, NULL))
		abort();
	return c;
}

static int bad_names_sizes_and_memory_are_refused(void)
{
	struct kvmfr_channels *c = fresh(), *other = attach(1);
	struct kvmfr_channel *ch;
	char name[65] = "";
	uint32_t room = 0;

	EQUAL(kvmfr_channels_create(c, "", 64, NULL), -EINVAL);
	EQUAL(kvmfr_channels_create(c, "a/b", 64, NULL), -EINVAL);
	EQUAL(kvmfr_channels_create(c, "\xc3\xa4", 64, NULL), -EINVAL);
	memset(name, 'x', 64);
	EQUAL(kvmfr_channels_create(c, name, 64, NULL), -EINVAL);
	name[63] = 0;
	EQUAL(kvmfr_channels_create(c, name, 64, NULL), 0);
	EQUAL(kvmfr_channels_create(c, "a", 64, NULL), -EEXIST);
	EQUAL(kvmfr_channels_create(c, "b", 100, NULL), -EINVAL);
	EQUAL(kvmfr_channels_create(c, "b", 1u << 20, &room), -ENOSPC);
	EQUAL(room, 1u << 19);
	EQUAL(kvmfr_channels_create(c, "b", room, &room), 0);
	EQUAL(kvmfr_channels_create(other, "c", 64, NULL), -EPERM);
	EQUAL(kvmfr_channel_open(c, "none", 0, &ch), -ENOENT);
	memory[8] = 2;
	EQUAL(kvmfr_channels_format(memory, SIZE, 0), -EPROTO);
	EQUAL(kvmfr_channels_attach(memory, SIZE, 0, ring_bell, bell, &other), -EPROTO);
	memory[0] = 'x';
	EQUAL(kvmfr_channels_format(memory, SIZE, 0), -EBUSY);
	EQUAL(memory[0], 'x');
	EQUAL(kvmfr_channels_format(memory, SIZE, KVMFR_CHANNELS_FORCE), 0);
	return 0;
}

static int there_is_room_for_1000_channels(void)
{
	struct kvmfr_channels *c = fresh();
	struct kvmfr_channel_info info;
	char name[16];
	uint32_t room = 1;
	int found = 0;

	for (int i = 1; i < KVMFR_CHANNELS_MAX; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		EQUAL(kvmfr_channels_create(c, name, 64, NULL), 0);
	}
	EQUAL(kvmfr_channels_create(c, "more", 64, &room), -ENOSPC);
	EQUAL(room, 0);
	for (int i = 0; i < KVMFR_CHANNELS_MAX; i++)
		found += kvmfr_channels_info(c, i, &info);
	EQUAL(found, 1000);
	EQUAL(kvmfr_channels_remove(c, "n500"), 0);
	EQUAL(kvmfr_channels_create(c, "more", 64, &room), 0);
	return 0;
}

static int both_ends_see_open_and_close_and_only_one_opens(void)
{
	struct kvmfr_channels *c[2] = { fresh(), attach(1) };

	for (int side = 0; side < 2; side++) {
		struct kvmfr_channel *ch, *peer, *second;
		char byte;

		EQUAL(kvmfr_channel_open(c[side], "a", 0, &ch), 0);
		EQUAL(kvmfr_channel_poll(ch), KVMFR_CHANNEL_HUP | KVMFR_CHANNEL_IN | KVMFR_CHANNEL_OUT);
		EQUAL(kvmfr_channel_read(ch, &byte, 1), 0);
		EQUAL(kvmfr_channel_open(c[side], "a", 0, &second), -EBUSY);
		EQUAL(kvmfr_channels_remove(c[0], "a"), -EBUSY);
		EQUAL(kvmfr_channel_open(c[!side], "a", 0, &peer), 0);
		kvmfr_channel_poll(ch);
		EQUAL(kvmfr_channel_poll(ch), KVMFR_CHANNEL_OUT);
		EQUAL(kvmfr_channel_read(ch, &byte, 1), -EAGAIN);
		kvmfr_channel_close(peer);
		EQUAL(kvmfr_channel_open(c[!side], "a", 0, &peer), 0);
		EQUAL(kvmfr_channel_poll(ch), KVMFR_CHANNEL_OUT | KVMFR_CHANNEL_HUP);
		EQUAL(kvmfr_channel_poll(ch), KVMFR_CHANNEL_OUT);
		kvmfr_channel_close(peer);
		kvmfr_channel_close(ch);
	}
	return 0;
}

static int data_is_kept_and_a_full_channel_blocks_no_other(void)
{
	struct kvmfr_channels *c[2] = { fresh(), attach(1) };
	struct kvmfr_channel *full, *b[2];
	static char data[RING + 1], got[RING + 1];

	EQUAL(kvmfr_channels_create(c[0], "b", 64, NULL), 0);
	for (int i = 0; i < (int)sizeof(data); i++)
		data[i] = i * 7 + i / 256;
	EQUAL(kvmfr_channel_open(c[0], "a", 0, &full), 0);
	EQUAL(kvmfr_channel_write(full, data, RING + 1), RING);
	EQUAL(kvmfr_channel_write(full, data, 1), -EAGAIN);
	for (int side = 0; side < 2; side++)
		EQUAL(kvmfr_channel_open(c[side], "b", 0, &b[side]), 0);
	EQUAL(kvmfr_channel_write(b[0], "through", 7), 7);
	EQUAL(kvmfr_channel_read(b[1], got, 64), 7);
	EQUAL(memcmp(got, "through", 7), 0);
	kvmfr_channel_close(full);
	EQUAL(kvmfr_channel_open(c[1], "a", 0, &full), 0);
	EQUAL(kvmfr_channel_read(full, got, RING + 1), RING);
	EQUAL(memcmp(got, data, RING), 0);
	EQUAL(kvmfr_channel_read(full, got, 1), 0);
	return 0;
}

static uint32_t next(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* Sends TRANSFER bytes and receives as many at once; compares both sums. */
static int transfer(int side)
{
	struct kvmfr_channels *c = attach(side);
	uint32_t seed[2] = { 1 + side, 2 - side }, sent = 0, got = 0;
	static uint32_t out[8192], in[8192];
	uint32_t out_at = 0, out_end = 0;
	uint64_t sum = 0, expected = 0;
	struct kvmfr_channel *ch;

	EQUAL(kvmfr_channel_open(c, "a", 0, &ch), 0);
	while (sent < TRANSFER || got < TRANSFER) {
		ssize_t n, moved = 0;

		if (out_at == out_end && sent < TRANSFER) {
			for (unsigned int i = 0; i < 8192; i++)
				out[i] = next(&seed[0]);
			out_at = 0;
			out_end = sizeof(out);
		}
		if (out_at < out_end) {
			n = kvmfr_channel_write(ch, (char *)out + out_at, out_end - out_at);
			if (n > 0) {
				out_at += n;
				sent += n;
				moved += n;
			}
		}
		n = kvmfr_channel_read(ch, in, sizeof(in));
		for (ssize_t i = 0; i < n; i++)
			sum = (sum ^ ((unsigned char *)in)[i]) * 0x100000001b3;
		if (n > 0) {
			got += n;
			moved += n;
		}
		if (!moved && bell_wait(side))
			return 1;
	}
	for (uint32_t i = 0; i < TRANSFER / 4; i++) {
		uint32_t word = next(&seed[1]);

		for (int b = 0; b < 4; b++, word >>= 8)
			expected = (expected ^ (word & 255)) * 0x100000001b3;
	}
	EQUAL(got, TRANSFER);
	EQUAL(sum == expected, 1);
	return 0;
}

static int a_hundred_mb_each_way_at_once_arrive_unchanged(void)
{
	int status, err;
	pid_t pid;

	fresh();
	pid = child();
	if (!pid)
		_exit(transfer(1));
	err = transfer(0);
	waitpid(pid, &status, 0);
	EQUAL(status, 0);
	return err;
}

/* Writes 0, 1, 2... as bytes until it is killed. */
static void count_for_ever(void)
{
	struct kvmfr_channels *c = attach(1);
	struct kvmfr_channel *ch;
	unsigned char byte = 0;

	if (kvmfr_channel_open(c, "a", KVMFR_CHANNEL_TAKE, &ch))
		_exit(1);
	for (;; byte++)
		while (kvmfr_channel_write(ch, &byte, 1) == -EAGAIN)
			bell_wait(1);
}

static int a_killed_end_is_seen_closed_a_hundred_times(void)
{
	struct kvmfr_channels *c = fresh();
	struct kvmfr_channel *ch;
	uint32_t seed = getpid();
	static unsigned char data[RING];

	EQUAL(kvmfr_channel_open(c, "a", 0, &ch), 0);
	for (int i = 0; i < 100; i++) {
		unsigned int least = next(&seed) % 5000, got = 0;
		pid_t pid = child();
		ssize_t n;

		if (!pid)
			count_for_ever();
		while (got <= least) {
			n = kvmfr_channel_read(ch, data, sizeof(data));
			/* 0 until it has opened */
			if (n <= 0) {
				EQUAL(bell_wait(0), 0);
				continue;
			}
			for (ssize_t k = 0; k < n; k++)
				EQUAL(data[k], (unsigned char)(got + k));
			got += n;
		}
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		kvmfr_channels_peer_gone(c);
		EQUAL(kvmfr_channel_poll(ch) & KVMFR_CHANNEL_HUP, KVMFR_CHANNEL_HUP);
		/* What it finished is still there, and in order; then the end. */
		while ((n = kvmfr_channel_read(ch, data, sizeof(data))) > 0)
			for (ssize_t k = 0; k < n; k++)
				EQUAL(data[k], (unsigned char)got++);
		EQUAL(n, 0);
	}
	return 0;
}

/* Values that break bounds, all over the table, the header and the rings. */
static void overwrite_for_ever(void)
{
	static const uint32_t chosen[] = { 0, 1, 2, 63, 64, RING, RING + 1, 1u << 30,
		1u << 31, 0x7fffffff, 0xffffffff, 0xffffffc0, 4096, SIZE, SIZE - 64 };
	uint32_t seed = 77;
	volatile uint32_t *words = (uint32_t *)memory;

	for (;;) {
		uint32_t at = next(&seed), value = next(&seed);

		at = at & 3 ? (TABLE + (at >> 2) % 512) / 4 : (at >> 2) % (SIZE / 4);
		words[at] = value & 1 ? chosen[(value >> 1) % 15] : value;
	}
}

static int a_hostile_end_does_no_harm(void)
{
	struct kvmfr_channels *c = fresh();
	struct kvmfr_channel_info info;
	/* More than the memory has: a bound that is missing ends at the page behind. */
	static char data[2 * SIZE];
	int broken = 0, moved = 0, status;
	pid_t pid = child();

	if (!pid)
		overwrite_for_ever();
	/* More rounds where the other process hardly ran. */
	for (int round = 0; round < 20000 || (round < 1000000 && !(broken && moved)); round++) {
		struct kvmfr_channel *ch;

		if (round % 8 == 0) {
			memset(memory + TABLE, 0, 512);
			kvmfr_channels_create(c, "a", RING, NULL);
			kvmfr_channels_create(c, "b", 64, NULL);
		}
		for (int i = 0; i < 4; i++)
			kvmfr_channels_info(c, i, &info);
		kvmfr_channels_peer_gone(c);
		kvmfr_channels_remove(c, "b");
		if (kvmfr_channel_open(c, "a", KVMFR_CHANNEL_TAKE, &ch))
			continue;
		for (int i = 0; i < 8; i++) {
			size_t size = i & 1 ? sizeof(data) : (size_t)round % RING;
			ssize_t n = kvmfr_channel_read(ch, data, size);

			broken += n == -EPROTO;
			moved += n > 0;
			kvmfr_channel_write(ch, data, size);
			kvmfr_channel_poll(ch);
		}
		kvmfr_channel_close(ch);
	}
	EQUAL(waitpid(pid, &status, WNOHANG), 0);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	/* It came as far as the rings, and was refused there. */
	EQUAL(broken > 0 && moved > 0, 1);
	return 0;
}

static void run(const char *name, int (*test)(void))
{
	int bad = test();

	failed += bad;
	printf("%sok %d %s\n", bad ? "not " : "", ++number, name);
	fflush(stdout);
}

#define RUN(test) run(#test, test)

int main(void)
{
	int fd = memfd_create("channels", 0);
	unsigned char *area = mmap(NULL, SIZE + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (fd < 0 || ftruncate(fd, SIZE) || area == MAP_FAILED)
		return 2;
	memory = mmap(area + 4096, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	for (int side = 0; side < 2; side++)
		bell[side] = eventfd(0, EFD_NONBLOCK);
	if (memory == MAP_FAILED)
		return 2;
	RUN(bad_names_sizes_and_memory_are_refused);
	RUN(there_is_room_for_1000_channels);
	RUN(both_ends_see_open_and_close_and_only_one_opens);
	RUN(data_is_kept_and_a_full_channel_blocks_no_other);
	RUN(a_hundred_mb_each_way_at_once_arrive_unchanged);
	RUN(a_killed_end_is_seen_closed_a_hundred_times);
	RUN(a_hostile_end_does_no_harm);
	return failed != 0;
}
