// SPDX-License-Identifier: GPL-2.0
/*
 * Channels in a guest, through the module: tests/channels/host.c is the other side, at kvmfrd's socket on the host;
 * tests/suite starts both, and boots twice with one memory.
 */
#include <sys/prctl.h>

#include "../lib/libkvmfr-channel.h"
#include "channels/pattern.h"
#include "kvmfr_test.h"

static struct kvmfr_dev bell;
static struct kvmfr_peer *peer;
static struct kvmfr_channels_backing backing;
static struct kvmfr_channels *set;

static void attach(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/%s", bell.name);
	ASSERT_EQ(0, kvmfr_peer_open(path, 0, 1, &peer));
	ASSERT_EQ(0, kvmfr_channels_back(&backing, peer));
	/* The host may have to format the memory first, and another test's process to end. */
	ASSERT_TRUE(WAIT_FOR(!kvmfr_channels_attach(&set, &backing, KVMFR_CHANNEL_GUEST, 0)));
	ASSERT_TRUE(WAIT_FOR(kvmfr_channels_list(set, NULL, 0) == 4));
}

static void detach(void)
{
	kvmfr_channels_detach(set);
	kvmfr_channels_unback(&backing);
	kvmfr_peer_close(peer);
}

static void set_up(const char *variant)
{
	(void)variant;
	if (!getenv("HOST"))
		SKIP("needs the other side on the host; tests/suite starts it");
	need_kvmfr();
	ASSERT_LE(0, dev_find_doorbell(&bell, 0));
	attach();
}

static const char *const once[] = { "guest", NULL };
static const struct ktap_fixture guest = { .variants = once, .setup = set_up };
#define TEST_GUEST(name) TEST(name, .fixture = &guest, .timeout = 240)

/* Opened and connected. */
static struct kvmfr_channel *open_channel(const char *name, unsigned int flags)
{
	struct kvmfr_channel *channel;

	ASSERT_EQ(0, kvmfr_channel_open(set, name, flags, &channel));
	while (kvmfr_channel_poll(channel) & KVMFR_CHANNEL_HUP)
		kvmfr_channel_wait(channel, KVMFR_CHANNEL_OUT, -1);
	return channel;
}

/* Returns 0, or the error that ended it. After a quarter a byte goes to the pipe, unless -1. */
static ssize_t send_all(struct kvmfr_channel *channel, int pipe)
{
	uint8_t data[10000];

	for (uint64_t done = 0; done < PATTERN_BYTES;) {
		size_t size = PATTERN_BYTES - done < sizeof(data) ? PATTERN_BYTES - done : sizeof(data);
		ssize_t n;

		pattern_fill(data, done, size);
		n = kvmfr_channel_write(channel, data, size);
		if (n < 0)
			return n;
		if (pipe >= 0 && done < PATTERN_BYTES / 4 && done + n >= PATTERN_BYTES / 4)
			ASSERT_EQ(1, write(pipe, "x", 1));
		done += n;
	}
	return 0;
}

static void read_exactly(struct kvmfr_channel *channel, void *data, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = kvmfr_channel_read(channel, (uint8_t *)data + done, size - done);

		ASSERT_LE(1, n);
		done += n;
	}
}

/* Reads to the end of the connection, and returns at which byte that is. */
static uint64_t receive_all(struct kvmfr_channel *channel, uint64_t at)
{
	uint8_t data[10000];
	ssize_t n;

	while ((n = kvmfr_channel_read(channel, data, sizeof(data))) > 0) {
		ASSERT_EQ(-1, pattern_compare(data, at, n));
		at += n;
	}
	ASSERT_EQ(0, n);
	return at;
}

static void transfer_both_ways(void)
{
	struct kvmfr_channel *channel = open_channel("sink", 0);
	uint64_t answer[2];

	ASSERT_EQ(0, send_all(channel, -1));
	ASSERT_EQ(0, kvmfr_channel_shutdown(channel));
	read_exactly(channel, answer, sizeof(answer));
	EXPECT_EQ(PATTERN_BYTES, answer[0]);
	EXPECT_EQ(-1, (int64_t)answer[1]);
	kvmfr_channel_close(channel);

	channel = open_channel("source", 0);
	EXPECT_EQ(PATTERN_BYTES, receive_all(channel, 0));
	kvmfr_channel_close(channel);
}

TEST_GUEST(boot_before_has_left_what_it_did_not_read)
{
	struct kvmfr_channel *channel;
	uint64_t end;

	ASSERT_EQ(0, kvmfr_channel_open(set, "source", 0, &channel));
	ASSERT_TRUE(kvmfr_channel_poll(channel) & KVMFR_CHANNEL_END);
	end = receive_all(channel, 1000);
	EXPECT_LE(1001, end);
	ktap_note("%" PRIu64 " bytes", end - 1000);
	kvmfr_channel_close(channel);
}

TEST_GUEST(transfers_both_ways_arrive_as_they_are)
{
	transfer_both_ways();
}

TEST_GUEST(full_stuck_channel_holds_up_no_other)
{
	struct kvmfr_channel *stuck = open_channel("stuck", KVMFR_CHANNEL_NONBLOCK);
	uint8_t data[100000] = { 0 };

	/* The host answers the connection when it gets to it. */
	ASSERT_TRUE(WAIT_FOR(kvmfr_channel_poll(stuck) & KVMFR_CHANNEL_OUT));
	EXPECT_EQ(65536, kvmfr_channel_write(stuck, data, sizeof(data)));
	EXPECT_EQ(-EAGAIN, kvmfr_channel_write(stuck, data, 1));
	transfer_both_ways();
	EXPECT_EQ(-EAGAIN, kvmfr_channel_write(stuck, data, 1));
}

TEST_GUEST(host_that_dies_comes_back_to_the_same_channels)
{
	struct kvmfr_channel *channel = open_channel("death", 0);
	char byte;

	ASSERT_EQ(1, kvmfr_channel_write(channel, "x", 1));
	/* the byte ends the host's process; its successor ends the connection */
	EXPECT_EQ(0, kvmfr_channel_read(channel, &byte, 1));
	transfer_both_ways();
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	if (!kvmfr_channels_fault(set, info->si_addr))
		_exit(KTAP_FAIL);
}

TEST_GUEST(unplug_in_mid_transfer_is_enodev_and_what_comes_back_works)
{
	const struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
	struct kvmfr_channel *channel;
	char slot[sizeof(bell.slot)], byte;
	int go[2];
	pid_t pid;

	memcpy(slot, bell.slot, sizeof(slot));
	ASSERT_EQ(0, sigaction(SIGBUS, &action, NULL));
	ASSERT_EQ(0, pipe(go));
	pid = fork();
	if (!pid) {
		ASSERT_EQ(1, read(go[0], &byte, 1));
		_exit(pci_driver("unbind", slot) ? KTAP_FAIL : KTAP_PASS);
	}
	channel = open_channel("sink", 0);
	EXPECT_EQ(-ENODEV, send_all(channel, go[1]));
	EXPECT_EQ(-ENODEV, kvmfr_channel_read(channel, &byte, 1));
	EXPECT_TRUE(kvmfr_channel_poll(channel) & KVMFR_CHANNEL_ERR);
	EXPECT_EQ(-ENODEV, kvmfr_channels_event(set, &(struct kvmfr_channel_event){ 0 }));
	detach();
	ASSERT_EQ(KTAP_PASS, join(pid));

	ASSERT_EQ(0, pci_driver("bind", slot));
	ASSERT_TRUE(dev_wait(&bell, slot));
	attach();
	transfer_both_ways();
	detach();
}

TEST_GUEST(boot_ends_with_an_open_channel)
{
	uint8_t data[1000];

	read_exactly(open_channel("source", 0), data, sizeof(data));
	EXPECT_EQ(-1, pattern_compare(data, 0, sizeof(data)));
	/* The host fills the ring; the next boot finds it. */
}
