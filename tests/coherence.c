// SPDX-License-Identifier: GPL-2.0
/*
 * One memory, seen from everywhere: every mapping of a byte, of the device or of a DMA-BUF, in
 * any process and at any address, shows the same byte.
 *
 * The kernel maps a huge page at a multiple of its size, whatever place in the device was
 * faulted. So what matters is how far address and place in the device are out of step, and there
 * is one test for each such misalignment.
 */
#include <sched.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)

static char *all;	/* the whole device, aligned: the reference for the others */
static size_t nr;	/* how many misalignments there are */

static void look_at_everything(void)
{
	ASSERT_GE(dev.size, 4 * pmd_size);
	all = map_at(dev.fd, 0, dev.size, RW, 0);
	stamp(all, 0, dev.size);
	nr = pmd_size / page_size;
}

/*
 * Is p, length bytes, the device from offset on? Looks at the ends and around the borders of huge
 * pages.
 */
static void check_window(char *p, uint64_t offset, size_t length)
{
	const size_t address_border = -(uintptr_t)p % pmd_size, device_border = -offset % pmd_size;
	const size_t places[] = {
		0, page_size, length - page_size, length - 2 * page_size,
		address_border, address_border - page_size, address_border + pmd_size - page_size,
		device_border, device_border - page_size, device_border + pmd_size - page_size,
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(places); i++) {
		size_t at = places[i];
		uint64_t value = stamp_of(offset + at);

		if (at >= length)	/* or below 0 */
			continue;
		EXPECT_EQ(value, word(p + at));
		set_word(p + at, ~value);
		EXPECT_EQ(~value, word(all + offset + at));
		set_word(all + offset + at, value);
		EXPECT_EQ(value, word(p + at));
	}
}

static void check_mapping(int fd, uint64_t fd_offset, uint64_t offset, size_t misalign)
{
	const size_t length = pmd_size + pmd_size / 2;
	static char *room;
	char *p;

	if (!room)
		room = reserve(length + pmd_size, 0);
	p = mmap(room + misalign, length, RW, MAP_SHARED | MAP_FIXED, fd, fd_offset);
	ASSERT_OK(p);
	check_window(p, offset, length);
	if (ktap_failed)
		FAIL("that was offset %#" PRIx64 " at %p", offset, (void *)p);
	/* made inaccessible, not unmapped: nothing else may be mapped there */
	ASSERT_OK(mmap(p, length, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0));
}

TEST_PAGED(every_misalignment_of_the_offset, .timeout = 300)
{
	look_at_everything();
	for (size_t i = 0; i < nr; i++)
		check_mapping(dev.fd, i * page_size, i * page_size, 0);
}

TEST_PAGED(every_misalignment_of_the_address, .timeout = 300)
{
	look_at_everything();
	for (size_t i = 0; i < nr; i++)
		check_mapping(dev.fd, 0, 0, i * page_size);
}

TEST_PAGED(every_misalignment_of_a_dmabuf_in_the_device, .timeout = 300)
{
	look_at_everything();
	for (size_t i = 0; i < nr; i++) {
		int buf = dmabuf(dev.fd, i * page_size, 2 * pmd_size);

		check_mapping(buf, 0, i * page_size, 0);
		close(buf);
	}
}

TEST_PAGED(every_misalignment_of_a_dmabuf_mapping, .timeout = 300)
{
	int whole;

	look_at_everything();
	whole = dmabuf(dev.fd, 0, dev.size);
	for (size_t i = 0; i < nr; i++) {
		int buf = dmabuf(dev.fd, page_size, 2 * pmd_size);

		/* buffer and mapping both odd; and an odd part of a buffer of everything */
		check_mapping(buf, 3 * page_size, 4 * page_size, i * page_size);
		check_mapping(whole, i * page_size, i * page_size, (nr - i) % 7 * page_size);
		close(buf);
	}
}

/*
 * Huge pages that were in step are not any more after a move, nor are the pieces of a split
 * mapping.
 */
TEST_PAGED(moved_mapping_shows_the_same, .timeout = 300)
{
	const size_t length = 2 * pmd_size;

	look_at_everything();
	for (size_t i = 0; i < nr; i += i < 8 ? 1 : 37) {
		char *p = map_at(dev.fd, 0, length, RW, 0);
		char *q;

		check_window(p, 0, length);
		q = move(p, length, i * page_size);
		check_window(q, 0, length);
		EXPECT_EQ(-1, unstamped(q, 0, length));
		/* out of the middle to somewhere else */
		p = move(q + 5 * page_size, pmd_size, (i + 5) % nr * page_size);
		ASSERT_OK(madvise(p, pmd_size, MADV_DONTNEED));
		EXPECT_EQ(-1, unstamped(p, 5 * page_size, pmd_size));
		EXPECT_EQ(-1, unstamped(q, 0, 5 * page_size));
		munmap(p, pmd_size);
		munmap(q, length);
	}
}

/*
 * Two processes take turns at every word of a page: device against DMA-BUF, at different places
 * and addresses.
 */
TEST_PAGED(two_processes_see_each_others_writes)
{
	enum { ROUNDS = 500 };
	const uint64_t offset = pmd_size - 2 * page_size, size = 4 * page_size;
	int buf = dmabuf(dev.fd, offset, size);
	volatile uint64_t *p, *turn;
	pid_t pid;

	look_at_everything();
	memset(all + offset, 0, size);
	pid = fork();
	if (pid)
		p = map_at(dev.fd, offset, size, RW, 0);
	else
		p = map_at(buf, 0, size, RW, 3 * page_size);
	turn = p + size / 8 - 1;
	for (uint64_t round = !pid; round < 2 * ROUNDS; round += 2) {
		size_t words = size / 8 - 1;
		size_t at = round * 997 % words;

		while (__atomic_load_n(turn, __ATOMIC_ACQUIRE) != round)
			sched_yield();
		if (round)
			ASSERT_EQ(stamp_of(round - 1), p[(round - 1) * 997 % words]);
		p[at] = stamp_of(round);
		__atomic_store_n(turn, round + 1, __ATOMIC_RELEASE);
	}
	if (!pid)
		_exit(ktap_failed ? KTAP_FAIL : KTAP_PASS);
	EXPECT_EQ(KTAP_PASS, join(pid));
	EXPECT_EQ(2 * ROUNDS, *turn);
}

TEST(devices_do_not_share_memory)
{
	struct kvmfr_dev d[64];
	unsigned int n;
	char *p[64];

	need_kvmfr();
	n = dev_count();
	ASSERT_LE(2, n);
	for (unsigned int i = 0; i < n; i++) {
		char name[32];

		snprintf(name, sizeof(name), "kvmfr%u", i);
		ASSERT_TRUE(dev_read(&d[i], name));
		p[i] = map(dev_open(&d[i], O_RDWR), 0, d[i].size, RW);
		memset(p[i], i + 1, d[i].size);
	}
	for (unsigned int i = 0; i < n; i++)
		for (uint64_t at = 0; at < d[i].size; at += page_size)
			ASSERT_EQ((i + 1) * 0x0101010101010101, word(p[i] + at));
}

TEST_UNLOADS()
