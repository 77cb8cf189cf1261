// SPDX-License-Identifier: GPL-2.0
/*
 * libkvmfr in a guest with two ivshmem-doorbells of 4 vectors, which are peers of one server. At the
 * end the second one is unplugged from the machine: QMP_ID=ID is its ID in QEMU.
 */
#include <poll.h>

#include "../lib/libkvmfr.h"
#include "kvmfr_test.h"

#define VECTORS 4

static struct kvmfr_dev devs[2];
static struct kvmfr_peer *peers[2];

static struct kvmfr_peer *peer_of(const struct kvmfr_dev *d)
{
	struct kvmfr_peer *peer;
	char path[256];

	snprintf(path, sizeof(path), "/dev/%s", d->name);
	ASSERT_EQ(0, kvmfr_peer_open(path, 0, VECTORS, &peer));
	return peer;
}

/* In the order of their slots: numbers may have been swapped by an earlier test. */
static int compare_slots(const void *a, const void *b)
{
	return strcmp(((const struct kvmfr_dev *)a)->slot, ((const struct kvmfr_dev *)b)->slot);
}

static void find_both(const char *variant)
{
	int first;

	(void)variant;
	need_kvmfr();
	first = dev_find_doorbell(&devs[0], 0);
	if (first < 0 || dev_find_doorbell(&devs[1], first + 1) < 0)
		SKIP("this machine has no two ivshmem-doorbells");
	qsort(devs, 2, sizeof(devs[0]), compare_slots);
	for (int i = 0; i < 2; i++)
		peers[i] = peer_of(&devs[i]);
}

static const char *const once[] = { "bells", NULL };
static const struct ktap_fixture two_bells = { .variants = once, .setup = find_both };
#define TEST_TWO(name, ...) TEST(name, .fixture = &two_bells, ##__VA_ARGS__)

static bool readable(int fd, unsigned int seconds)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };

	return poll(&wait, 1, 1000 * ktap_scale(seconds)) == 1;
}

static bool rang(struct kvmfr_peer *peer, unsigned int vector)
{
	return readable(kvmfr_peer_vector_fd(peer, vector), 30) &&
	       kvmfr_peer_vector_clear(peer, vector) == 1;
}

static void expect_silence(struct kvmfr_peer *peer)
{
	for (unsigned int v = 0; v < VECTORS; v++)
		EXPECT_EQ(0, kvmfr_peer_vector_clear(peer, v));
}

static void listen_at_all(struct kvmfr_peer *peer)
{
	for (unsigned int v = 0; v < VECTORS; v++)
		ASSERT_OK(kvmfr_peer_vector_fd(peer, v));
}

TEST_TWO(a_device_is_ready_and_announces_nobody)
{
	struct kvmfr_event event;

	for (int i = 0; i < 2; i++) {
		EXPECT_TRUE(readable(kvmfr_peer_fd(peers[i]), 0));
		ASSERT_EQ(1, kvmfr_peer_event(peers[i], &event));
		EXPECT_EQ(KVMFR_EVENT_READY, event.type);
		EXPECT_EQ(kvmfr_peer_id(peers[i]), event.peer);
		EXPECT_EQ(VECTORS, event.vectors);
		EXPECT_EQ(0, kvmfr_peer_event(peers[i], &event));
		EXPECT_TRUE(!readable(kvmfr_peer_fd(peers[i]), 0));
	}
	EXPECT_NE(kvmfr_peer_id(peers[0]), kvmfr_peer_id(peers[1]));
}

TEST_TWO(both_have_the_same_memory)
{
	uint64_t size = kvmfr_peer_size(peers[0]);
	void *left, *right;

	ASSERT_EQ(size, kvmfr_peer_size(peers[1]));
	ASSERT_EQ(0, kvmfr_peer_map(peers[0], 0, size, &left));
	ASSERT_EQ(0, kvmfr_peer_map(peers[1], 0, size, &right));
	stamp(left, 0, size);
	EXPECT_EQ(-1, unstamped(right, 0, size));
}

TEST_TWO(each_vector_of_each_rings_at_the_other)
{
	for (int from = 0; from < 2; from++) {
		struct kvmfr_peer *to = peers[!from];

		listen_at_all(to);
		for (unsigned int v = 0; v < VECTORS; v++) {
			ASSERT_EQ(0, kvmfr_peer_ring(peers[from], kvmfr_peer_id(to), v));
			EXPECT_TRUE(rang(to, v));
			expect_silence(to);
		}
	}
}

/* As a guest with any driver can do: ring ids and vectors that don't exist. */
TEST_TWO(rings_of_nobody_reach_nobody)
{
	const unsigned int ids[] = { 2, 63, 255, 65535, kvmfr_peer_id(peers[1]) };
	int mark = log_mark();

	listen_at_all(peers[0]);
	listen_at_all(peers[1]);
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		for (unsigned int v = 0; v < 256; v++)
			if (v >= VECTORS || (int)ids[i] != kvmfr_peer_id(peers[1]))
				ASSERT_EQ(0, kvmfr_peer_ring(peers[0], ids[i], v));
	EXPECT_EQ(-EINVAL, kvmfr_peer_ring(peers[0], 65536, 0));
	EXPECT_EQ(-EINVAL, kvmfr_peer_ring(peers[0], 0, 65536));
	/* The last ring arrives, and nothing else. */
	ASSERT_EQ(0, kvmfr_peer_ring(peers[0], kvmfr_peer_id(peers[1]), 1));
	EXPECT_TRUE(rang(peers[1], 1));
	expect_silence(peers[0]);
	expect_silence(peers[1]);
	EXPECT_EQ(0, log_count(mark, ""));
}

TEST_TWO(a_storm_from_the_other_becomes_one_ring_and_no_line)
{
	int mark = log_mark();

	listen_at_all(peers[1]);
	for (int i = 0; i < 20000; i++)
		ASSERT_EQ(0, kvmfr_peer_ring(peers[0], kvmfr_peer_id(peers[1]), i % VECTORS));
	for (unsigned int v = 0; v < VECTORS; v++)
		EXPECT_TRUE(rang(peers[1], v));
	EXPECT_EQ(0, log_count(mark, ""));
}

/* Everyone who waits is woken, and the next call returns ENODEV. */
static void expect_gone(struct kvmfr_peer *peer)
{
	for (unsigned int v = 0; v < VECTORS; v++) {
		ASSERT_TRUE(readable(kvmfr_peer_vector_fd(peer, v), 30));
		EXPECT_EQ(-ENODEV, kvmfr_peer_vector_clear(peer, v));
		EXPECT_TRUE(!readable(kvmfr_peer_vector_fd(peer, v), 0));
	}
	EXPECT_EQ(-ENODEV, kvmfr_peer_ring(peer, 0, 0));
}

static void expect_connected(struct kvmfr_peer *a, struct kvmfr_peer *b)
{
	listen_at_all(a);
	listen_at_all(b);
	ASSERT_EQ(0, kvmfr_peer_ring(a, kvmfr_peer_id(b), 2));
	EXPECT_TRUE(rang(b, 2));
	ASSERT_EQ(0, kvmfr_peer_ring(b, kvmfr_peer_id(a), 3));
	EXPECT_TRUE(rang(a, 3));
}

static void unplug(int i)
{
	ASSERT_EQ(0, pci_driver("unbind", devs[i].slot));
	expect_gone(peers[i]);
	EXPECT_EQ(-ENOENT, kvmfr_peer_reopen(peers[i]));
}

static void plug_in(int i, struct kvmfr_dev *back)
{
	ASSERT_EQ(0, pci_driver("bind", devs[i].slot));
	ASSERT_TRUE(dev_wait(back, devs[i].slot));
}

TEST_TWO(reopen_comes_back_to_a_device_that_was_away)
{
	int id = kvmfr_peer_id(peers[1]);
	struct kvmfr_dev back;
	void *memory;

	ASSERT_EQ(0, kvmfr_peer_map(peers[1], 0, page_size, &memory));
	for (int round = 0; round < 3; round++) {
		listen_at_all(peers[1]);
		unplug(1);
		/* Ringing the one that has gone is no error. */
		EXPECT_EQ(0, kvmfr_peer_ring(peers[0], id, 0));
		plug_in(1, &back);
		ASSERT_EQ(0, kvmfr_peer_reopen(peers[1]));
		EXPECT_EQ(id, kvmfr_peer_id(peers[1]));
		expect_connected(peers[0], peers[1]);
	}
}

/* The first one to come back gets the lowest number, so the old path may be the other's. */
TEST_TWO(reopen_finds_devices_that_came_back_with_each_others_number)
{
	int id[2] = { kvmfr_peer_id(peers[0]), kvmfr_peer_id(peers[1]) };
	struct kvmfr_dev back;

	listen_at_all(peers[0]);
	listen_at_all(peers[1]);
	unplug(0);
	unplug(1);
	plug_in(1, &back);
	ASSERT_EQ(0, strcmp(back.name, devs[0].name));
	plug_in(0, &back);
	ASSERT_EQ(0, strcmp(back.name, devs[1].name));
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(0, kvmfr_peer_reopen(peers[i]));
		EXPECT_EQ(id[i], kvmfr_peer_id(peers[i]));
	}
	expect_connected(peers[0], peers[1]);
}

/* One peer rings all the time while the other's device is unbound and bound. */
TEST_TWO(rings_at_a_device_that_goes_and_comes, .timeout = 300)
{
	int id = kvmfr_peer_id(peers[1]);
	pid_t pid = fork();

	if (!pid)
		for (unsigned int n = 0;; n++)
			if (kvmfr_peer_ring(peers[0], id, n % VECTORS))
				_exit(1);
	for (int round = 0; round < 20; round++) {
		struct kvmfr_dev back;

		listen_at_all(peers[1]);
		EXPECT_TRUE(readable(kvmfr_peer_vector_fd(peers[1], round % VECTORS), 30));
		ASSERT_EQ(0, pci_driver("unbind", devs[1].slot));
		EXPECT_EQ(-ENODEV, kvmfr_peer_ring(peers[1], 0, 0));
		ASSERT_EQ(0, pci_driver("bind", devs[1].slot));
		ASSERT_TRUE(dev_wait(&back, devs[1].slot));
		ASSERT_EQ(0, kvmfr_peer_reopen(peers[1]));
		EXPECT_EQ(id, kvmfr_peer_id(peers[1]));
	}
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, join(pid));
}

/*
 * By QEMU. The last test, since nobody plugs in another one: QEMU (7.2, TCG) still listens for the
 * rings of the old one with what it has freed, and crashes.
 */
TEST_TWO(who_waits_is_told_when_it_is_unplugged_from_the_machine, .timeout = 300)
{
	const char *id = getenv("QMP_ID");
	char sysfs[64];

	if (!id)
		SKIP("QMP_ID is not set");
	listen_at_all(peers[1]);
	snprintf(sysfs, sizeof(sysfs), "/sys/bus/pci/devices/%s", devs[1].slot);
	qmp("{'execute': 'device_del', 'arguments': {'id': '%s'}}", id);
	expect_gone(peers[1]);
	ASSERT_TRUE(WAIT_FOR(access(sysfs, F_OK)));
	EXPECT_EQ(-ENOENT, kvmfr_peer_reopen(peers[1]));
	/* The other one goes on. */
	listen_at_all(peers[0]);
	ASSERT_EQ(0, kvmfr_peer_ring(peers[0], kvmfr_peer_id(peers[0]), 1));
	EXPECT_TRUE(rang(peers[0], 1));
}

TEST_UNLOADS()
