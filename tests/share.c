// SPDX-License-Identifier: GPL-2.0
/*
 * Two machines that have the same memory, each uses it through its own /dev/kvmfrN: two guests with the same IVSHMEM
 * device (VM to VM), or a host and its guest. One runs "share SIDE=left", the other "share SIDE=right", the host
 * with KIND=static; tests/suite and tests/qemu start them.
 *
 * They take turns: a word at the start of the memory says whose turn it is and what for.
 */
#include "kvmfr_test.h"

/* The word with the turn. The pages from DATA on are exchanged. */
#define DATA	(4 * page_size)

static bool left;
static volatile uint64_t *turn;
static char *mem;

static void set_up(const char *variant)
{
	const char *side = getenv("SIDE"), *kind = getenv("KIND");

	(void)variant;
	if (!side)
		SKIP("needs another machine; tests/suite starts two, with SIDE=left and SIDE=right");
	left = !strcmp(side, "left");
	need_kvmfr();
	ASSERT_TRUE(dev_find(&dev, kind ? kind : "pci"));
	dev.fd = dev_open(&dev, O_RDWR);
	ASSERT_GE(dev.fd, 0);
	mem = map(dev.fd, 0, dev.size, PROT_READ | PROT_WRITE);
	turn = (uint64_t *)mem;
}

static const char *const once[] = { "", NULL };
static const struct ktap_fixture pair = { once, set_up };

/* Waits for the other side. If it doesn't come, the alarm of the test ends the wait. */
static void wait_turn(uint64_t what)
{
	while (__atomic_load_n(turn, __ATOMIC_ACQUIRE) != what)
		usleep(1000);
}

static void give_turn(uint64_t what)
{
	__atomic_store_n(turn, what, __ATOMIC_RELEASE);
}

/* What this side writes into a page: another value on each side, in each page and round. */
static uint64_t value(bool of_left, int round, uint64_t offset)
{
	return offset * 0x9e3779b97f4a7c15ull ^ (of_left ? 0x1ef7 : 0x819447) ^ (uint64_t)round << 56;
}

static void fill(char *base, uint64_t from, bool of_left, int round)
{
	for (uint64_t at = from; at < dev.size; at += page_size)
		set_word(base + at - from, value(of_left, round, at));
}

static void expect(const char *base, uint64_t from, bool of_left, int round)
{
	for (uint64_t at = from; at < dev.size; at += page_size)
		ASSERT_EQ(value(of_left, round, at), word(base + at - from));
}

TEST(each_side_sees_what_the_other_wrote, .fixture = &pair, .timeout = 300)
{
	if (left) {
		fill(mem + DATA, DATA, true, 1);
		give_turn(1);
		wait_turn(2);
		expect(mem + DATA, DATA, false, 1);
	} else {
		wait_turn(1);
		expect(mem + DATA, DATA, true, 1);
		fill(mem + DATA, DATA, false, 1);
		give_turn(2);
	}
}

TEST(a_dma_buf_on_one_side_is_the_memory_of_the_other, .fixture = &pair, .timeout = 300)
{
	int buf = dmabuf(dev.fd, DATA, dev.size - DATA);
	char *p = map(buf, 0, dev.size - DATA, PROT_READ | PROT_WRITE);

	if (left) {
		wait_turn(2);
		fill(p, DATA, true, 2);
		give_turn(3);
		wait_turn(4);
		expect(p, DATA, false, 2);
	} else {
		wait_turn(3);
		expect(p, DATA, true, 2);
		fill(p, DATA, false, 2);
		give_turn(4);
	}
}

/* A window of two huge pages of each side moves through the misalignments of address against offset. */
TEST(memory_is_the_same_at_every_misalignment, .fixture = &pair, .timeout = 300)
{
	size_t window = 2 * pmd_size;
	uint64_t offset = DATA;

	if (left) {
		wait_turn(4);
		fill(mem + DATA, DATA, true, 3);
		give_turn(5);
		wait_turn(6);
		expect(mem + DATA, DATA, false, 3);
		return;
	}

	wait_turn(5);
	for (size_t misalign = 0; misalign < pmd_size; misalign += page_size) {
		char *p = map_at(dev.fd, offset, window, PROT_READ | PROT_WRITE, misalign);

		for (size_t at = 0; at < window; at += pmd_size / 8)
			ASSERT_EQ(value(true, 3, offset + at), word(p + at));
		munmap(p, window);
		offset += page_size;
		if (offset + window > dev.size)
			offset = DATA;
	}
	fill(map_at(dev.fd, DATA, dev.size - DATA, PROT_READ | PROT_WRITE, 3 * page_size), DATA, false, 3);
	give_turn(6);
}

TEST_UNLOADS()
