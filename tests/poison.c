// SPDX-License-Identifier: GPL-2.0
/*
 * A page with a memory error (PG_hwpoison) is never mapped again, and its neighbours stay usable.
 */
#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)

#ifndef MADV_HWPOISON
#define MADV_HWPOISON 100
#endif

/* A mapping made afterwards, in step with huge pages or not, that is touched from the start */
static void check_fresh_mapping(size_t misalign, uint64_t bad)
{
	char *p = map_at(dev.fd, 0, dev.size, RW, misalign);

	for (uint64_t i = 0; i < dev.size; i += page_size) {
		int sig = probe_read(p + i);

		if (i == bad)
			EXPECT_EQ(SIGBUS, sig);
		else
			ASSERT_EQ(0, sig);
	}
	munmap(p, dev.size);
}

TEST_STATIC(poisoned_page_is_neither_mapped_nor_read)
{
	const uint64_t bad = pmd_size + 5 * page_size;
	char *copy = malloc(dev.size);
	pid_t pid = fork();

	stamp(map(dev.fd, 0, dev.size, RW), 0, dev.size);
	if (!pid) {
		char *p = map_at(dev.fd, 0, dev.size, RW, page_size);

		probe_read(p + bad);
		madvise(p + bad, page_size, MADV_HWPOISON);	/* may kill this process */
		_exit(errno == EINVAL || errno == EPERM);
	}
	if (join(pid) == 1)
		SKIP("this kernel can't poison a page (CONFIG_MEMORY_FAILURE)");

	EXPECT_ERRNO(EIO, pread(dev.fd, copy, 1, bad));
	EXPECT_ERRNO(EIO, pwrite(dev.fd, copy, page_size, bad + 7));
	EXPECT_EQ(bad - 5, pread(dev.fd, copy, dev.size - 5, 5));
	EXPECT_EQ(dev.size - bad - page_size, pread(dev.fd, copy, dev.size, bad + page_size));
	check_fresh_mapping(page_size, bad);
}

/* It is poisoned by now. */
TEST_STATIC(poisoned_page_is_not_mapped_as_part_of_a_huge_page)
{
	const uint64_t bad = pmd_size + 5 * page_size;
	char byte, *p;

	if (pread(dev.fd, &byte, 1, bad) == 1)
		SKIP("this kernel can't poison a page (CONFIG_MEMORY_FAILURE)");
	ASSERT_EQ(EIO, errno);
	if (!kernel_is(5, 16))
		SKIP("before 5.16 the core maps a huge page whether or not a part of it is poisoned");
	p = map_at(dev.fd, 0, dev.size, RW, 0);
	ASSERT_EQ(0, probe_read(p + pmd_size));
	munmap(p, dev.size);
	check_fresh_mapping(0, bad);
}

/* Marking it clean, as checkpointing does, write-protects the huge page. */
TEST_STATIC(huge_page_that_was_mapped_before_the_error_can_be_written_again)
{
	const uint64_t bad = 2 * pmd_size + 5 * page_size;
	char byte, *p = map_at(dev.fd, 0, dev.size, RW, 0);
	pid_t pid;

	if (pread(dev.fd, &byte, 1, pmd_size + 5 * page_size) == 1)
		SKIP("this kernel can't poison a page (CONFIG_MEMORY_FAILURE)");
	set_word(p + 2 * pmd_size, 1);
	pid = fork();
	if (!pid) {
		char *q = map_at(dev.fd, 0, dev.size, RW, page_size);

		madvise(q + bad, page_size, MADV_HWPOISON);
		_exit(0);
	}
	join(pid);
	ASSERT_ERRNO(EIO, pread(dev.fd, &byte, 1, bad));
	write_file("/proc/self/clear_refs", "4");
	set_word(p + 2 * pmd_size, 2);
	EXPECT_EQ(2, word(p + 2 * pmd_size));
}
