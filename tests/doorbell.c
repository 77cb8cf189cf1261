// SPDX-License-Identifier: GPL-2.0
/*
 * Doorbells: interrupts between the peers of an IVSHMEM device. The VM has an ivshmem-doorbell of
 * 4 vectors beside other devices. A peer may ring itself, so one VM is enough here.
 */
#include <poll.h>
#include <sys/eventfd.h>

#include "kvmfr_test.h"

#define VECTORS 4
#define MAX_EVENTFDS 256	/* of a device, see kvmfr.h */

static struct kvmfr_dev bell;

/* The device with a doorbell, opened. */
static void find_bell(const char *variant)
{
	(void)variant;
	need_kvmfr();
	if (dev_find_doorbell(&bell, 0) < 0)
		SKIP("this machine has no ivshmem-doorbell");
	bell.fd = dev_open(&bell, O_RDWR);
	ASSERT_OK(bell.fd);
}

static const char *const once[] = { "bell", NULL };
static const struct ktap_fixture bell_device = { .variants = once, .setup = find_bell };
#define TEST_BELL(name) TEST(name, .fixture = &bell_device)

static struct kvmfr_doorbell_info info(void)
{
	struct kvmfr_doorbell_info info = { ~0u, ~0u };

	ASSERT_OK(ioctl(bell.fd, KVMFR_DOORBELL_INFO, &info));
	return info;
}

static int ring_from(int fd, uint32_t peer, uint32_t vector)
{
	struct kvmfr_doorbell_ring ring = { peer, vector };

	return ioctl(fd, KVMFR_DOORBELL_RING, &ring);
}

static int ring(uint32_t vector)
{
	return ring_from(bell.fd, info().id, vector);
}

static int listen_from(int fd, uint32_t vector, int event)
{
	struct kvmfr_doorbell_eventfd arg = { vector, event };

	return ioctl(fd, KVMFR_DOORBELL_EVENTFD, &arg);
}

static int new_event(void)
{
	int event = eventfd(0, EFD_NONBLOCK);

	ASSERT_OK(event);
	return event;
}

static int listen_at(uint32_t vector)
{
	int event = new_event();

	ASSERT_OK(listen_from(bell.fd, vector, event));
	return event;
}

/* How often it was signalled since the last time. */
static uint64_t signals(int event)
{
	uint64_t n = 0;

	if (read(event, &n, sizeof(n)) < 0)
		EXPECT_EQ(EAGAIN, errno);
	return n;
}

static bool rang(int event)
{
	struct pollfd poll_fd = { .fd = event, .events = POLLIN };

	return poll(&poll_fd, 1, 1000 * ktap_scale(30)) == 1 && signals(event);
}

/* Binds the driver anew, and opens what comes back. */
static void plug(void)
{
	char slot[sizeof(bell.slot)];

	memcpy(slot, bell.slot, sizeof(slot));
	close(bell.fd);
	ASSERT_EQ(0, pci_driver("bind", slot));
	ASSERT_TRUE(dev_wait(&bell, slot));
	bell.fd = dev_open(&bell, O_RDWR);
	ASSERT_OK(bell.fd);
}

TEST_BELL(info_and_sysfs_agree)
{
	char path[64], text[32];

	EXPECT_EQ(VECTORS, info().vectors);
	EXPECT_LE(info().id, 65535);
	snprintf(path, sizeof(path), "/sys/class/kvmfr/%s/peer_id", bell.name);
	ASSERT_TRUE(read_file(path, text, sizeof(text)));
	EXPECT_EQ(info().id, atoi(text));
	snprintf(path, sizeof(path), "/sys/class/kvmfr/%s/vectors", bell.name);
	ASSERT_TRUE(read_file(path, text, sizeof(text)));
	EXPECT_EQ(VECTORS, atoi(text));
}

TEST_BELL(its_memory_is_like_any_other)
{
	char *p = map(bell.fd, 0, bell.size, PROT_READ | PROT_WRITE);

	stamp(p, 0, bell.size);
	EXPECT_EQ(-1, unstamped(map(bell.fd, 0, bell.size, PROT_READ), 0, bell.size));
}

TEST_BELL(each_vector_signals_its_own_eventfds)
{
	int events[VECTORS];

	for (int v = 0; v < VECTORS; v++)
		events[v] = listen_at(v);
	for (int v = VECTORS - 1; v >= 0; v--) {
		ASSERT_OK(ring(v));
		EXPECT_TRUE(rang(events[v]));
		for (int other = 0; other < VECTORS; other++)
			EXPECT_EQ(0, signals(events[other]));
	}
}

TEST_BELL(all_eventfds_of_a_vector_are_signalled)
{
	int a = listen_at(1), b = listen_at(1), twice = listen_at(1);

	ASSERT_OK(listen_from(bell.fd, 1, twice));
	ASSERT_OK(ring(1));
	EXPECT_TRUE(rang(a));
	EXPECT_TRUE(rang(b));
	EXPECT_TRUE(rang(twice));
}

TEST_BELL(minus_one_takes_those_of_this_vector_and_descriptor)
{
	int fd = dev_open(&bell, O_RDWR), kept = listen_at(2), taken = new_event(),
	    elsewhere = new_event();

	ASSERT_OK(listen_from(fd, 2, taken));
	ASSERT_OK(listen_from(fd, 3, elsewhere));
	ASSERT_OK(listen_from(fd, 2, -1));
	ASSERT_OK(listen_from(fd, 2, -1));	/* none is no error */
	ASSERT_OK(ring(2));
	EXPECT_TRUE(rang(kept));
	EXPECT_EQ(0, signals(taken));
	ASSERT_OK(ring(3));
	EXPECT_TRUE(rang(elsewhere));
}

TEST_BELL(closing_the_descriptor_takes_its_eventfds)
{
	int fd = dev_open(&bell, O_RDWR), kept = listen_at(0), taken = new_event();

	ASSERT_OK(listen_from(fd, 0, taken));
	close(fd);
	ASSERT_OK(ring(0));
	EXPECT_TRUE(rang(kept));
	EXPECT_EQ(0, signals(taken));
}

TEST_BELL(eventfd_may_be_closed_first)
{
	int gone = listen_at(0), copy, kept;

	copy = dup(gone);
	close(gone);
	kept = listen_at(0);
	ASSERT_OK(ring(0));
	EXPECT_TRUE(rang(copy));
	EXPECT_TRUE(rang(kept));
	close(copy);
	ASSERT_OK(ring(0));
	EXPECT_TRUE(rang(kept));
}

/* Rings, and waits until all who listen have been signalled: kept listens last of all. */
static void ring_and_wait(uint32_t vector, int kept)
{
	ASSERT_OK(ring(vector));
	ASSERT_TRUE(rang(kept));
}

/* Eventfds of three descriptors at all vectors; one descriptor is closed meanwhile. */
TEST_BELL(listeners_go_in_any_order)
{
	enum { FDS = 3, ALL = FDS * VECTORS };

	srand(1);
	for (int round = 0; round < 30; round++) {
		int fds[FDS], events[ALL], copies[ALL], order[ALL], kept[VECTORS];

		for (int i = 0; i < FDS; i++)
			ASSERT_OK(fds[i] = dev_open(&bell, O_RDWR));
		for (int i = 0; i < ALL; i++) {
			int other = rand() % (i + 1);

			events[i] = new_event();
			copies[i] = dup(events[i]);
			ASSERT_OK(listen_from(fds[i % FDS], i / FDS, events[i]));
			order[i] = order[other];
			order[other] = i;
		}
		for (int v = 0; v < VECTORS; v++)
			kept[v] = listen_at(v);
		for (int n = 0; n < ALL; n++) {
			int i = order[n], fd = fds[i % FDS], v = i / FDS;

			close(events[i]);	/* the device keeps it */
			if (fd >= 0) {
				ring_and_wait(v, kept[v]);
				EXPECT_LE(1, signals(copies[i]));
				ASSERT_OK(listen_from(fd, v, -1));
			}
			signals(copies[i]);
			ring_and_wait(v, kept[v]);
			EXPECT_EQ(0, signals(copies[i]));
			if (n == round % ALL) {
				close(fds[0]);
				fds[0] = -1;
			}
		}
		for (int i = 0; i < ALL; i++)
			close(copies[i]);
		for (int i = 0; i < FDS; i++)
			close(fds[i]);
		for (int v = 0; v < VECTORS; v++) {
			ASSERT_OK(listen_from(bell.fd, v, -1));
			close(kept[v]);
		}
	}
}

TEST_BELL(storm_hurts_nobody)
{
	int mark = log_mark(), event = listen_at(0);

	for (int i = 0; i < 20000; i++)
		ASSERT_OK(ring(i % VECTORS));
	EXPECT_TRUE(rang(event));
	EXPECT_EQ(0, log_count(mark, ""));
}

TEST_BELL(bad_arguments_are_refused)
{
	int ro = dev_open(&bell, O_RDONLY), wo = dev_open(&bell, O_WRONLY), event = new_event();
	const unsigned long calls[] = { KVMFR_DOORBELL_INFO, KVMFR_DOORBELL_RING,
					KVMFR_DOORBELL_EVENTFD };

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		EXPECT_ERRNO(EFAULT, ioctl(bell.fd, calls[i], NULL));
		EXPECT_ERRNO(EFAULT, ioctl(bell.fd, calls[i], page_size));
	}
	EXPECT_ERRNO(EINVAL, listen_from(bell.fd, VECTORS, event));
	EXPECT_ERRNO(EINVAL, listen_from(bell.fd, ~0u, event));
	EXPECT_ERRNO(EINVAL, listen_from(bell.fd, VECTORS, -1));
	EXPECT_ERRNO(EINVAL, listen_from(bell.fd, 0, bell.fd));
	EXPECT_ERRNO(EBADF, listen_from(bell.fd, 0, 9999));
	EXPECT_ERRNO(EBADF, listen_from(bell.fd, 0, -2));
	EXPECT_ERRNO(EINVAL, ring_from(bell.fd, 0, 65536));
	EXPECT_ERRNO(EINVAL, ring_from(bell.fd, 65536, 0));
	EXPECT_ERRNO(EINVAL, ring_from(bell.fd, ~0u, ~0u));
	EXPECT_ERRNO(EACCES, ring_from(ro, info().id, 0));
	EXPECT_EQ(0, ring_from(wo, info().id, 0));
	EXPECT_EQ(0, listen_from(ro, 0, event));
	/* no such peer or vector: a guest can't know, so no error */
	EXPECT_EQ(0, ring_from(bell.fd, 65535, 65535));
	EXPECT_EQ(0, ring_from(bell.fd, info().id, 200));
}

TEST_BELL(there_is_a_bound_on_eventfds)
{
	int event = new_event(), fd = dev_open(&bell, O_RDWR);

	for (int i = 0; i < MAX_EVENTFDS; i++)
		ASSERT_OK(listen_from(fd, i % VECTORS, event));
	EXPECT_ERRNO(ENOSPC, listen_from(fd, 0, event));
	EXPECT_ERRNO(ENOSPC, listen_from(bell.fd, 0, event));
	ASSERT_OK(listen_from(fd, 1, -1));
	EXPECT_EQ(0, listen_from(bell.fd, 0, event));
	close(fd);
	for (int i = 1; i < MAX_EVENTFDS; i++)
		ASSERT_OK(listen_from(bell.fd, 0, event));
	EXPECT_ERRNO(ENOSPC, listen_from(bell.fd, 0, event));
}

TEST_ANY(other_devices_have_no_doorbell)
{
	struct kvmfr_doorbell_info info;
	char path[64];

	snprintf(path, sizeof(path), "/sys/class/kvmfr/%s/peer_id", dev.name);
	if (!access(path, F_OK))
		SKIP("%s is the ivshmem-doorbell", dev.name);
	EXPECT_ERRNO(EOPNOTSUPP, ioctl(dev.fd, KVMFR_DOORBELL_INFO, &info));
	EXPECT_ERRNO(EOPNOTSUPP, ring_from(dev.fd, 0, 0));
	EXPECT_ERRNO(EOPNOTSUPP, listen_from(dev.fd, 0, new_event()));
	snprintf(path, sizeof(path), "/sys/class/kvmfr/%s/vectors", dev.name);
	EXPECT_ERRNO(ENOENT, access(path, F_OK));
}

TEST_BELL(unplug_signals_each_eventfd_once_and_then_there_is_enodev)
{
	int a = listen_at(0), b = listen_at(VECTORS - 1);
	struct kvmfr_doorbell_info info;

	ASSERT_EQ(0, pci_driver("unbind", bell.slot));
	EXPECT_EQ(1, signals(a));
	EXPECT_EQ(1, signals(b));
	EXPECT_ERRNO(ENODEV, ioctl(bell.fd, KVMFR_DOORBELL_INFO, &info));
	EXPECT_ERRNO(ENODEV, ring_from(bell.fd, 0, 0));
	EXPECT_ERRNO(ENODEV, listen_from(bell.fd, 0, a));
	plug();
	a = listen_at(0);
	ASSERT_OK(ring(0));
	EXPECT_TRUE(rang(a));
}

/* A thread rings and listens all the time while the device is unbound and bound. */
TEST_BELL(unplug_while_it_rings)
{
	for (int round = 0; round < 20; round++) {
		uint32_t id = info().id;
		pid_t pid = fork();

		if (!pid) {
			for (;;) {
				int event = new_event();

				if (listen_from(bell.fd, 1, event) || ring_from(bell.fd, id, 1)) {
					EXPECT_EQ(ENODEV, errno);
					_exit(ktap_failed ? KTAP_FAIL : KTAP_PASS);
				}
				ASSERT_TRUE(rang(event));
				ASSERT_TRUE(!listen_from(bell.fd, 1, -1) || errno == ENODEV);
				close(event);
			}
		}
		ASSERT_EQ(0, pci_driver("unbind", bell.slot));
		EXPECT_EQ(KTAP_PASS, join(pid));
		plug();
	}
}

TEST_UNLOADS()
