// SPDX-License-Identifier: GPL-2.0
/*
 * read() and write(): the device as a block of memory, for dd, cmp, memory forensics and all other
 * programs that don't map.
 */
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)

/* The device's memory as a mapping shows it, stamped. */
static char *stamped(void)
{
	char *p = map(dev.fd, 0, dev.size, RW);

	stamp(p, 0, dev.size);
	return p;
}

static char *buffer(size_t size)
{
	char *p = malloc(size);

	ASSERT_TRUE(p);
	memset(p, 0xaa, size);
	return p;
}

/* --- what is where --- */

TEST_ANY(read_gives_what_a_mapping_shows)
{
	char *p = stamped(), *copy = buffer(dev.size);

	ASSERT_EQ(dev.size, read(dev.fd, copy, dev.size));
	EXPECT_EQ(0, memcmp(p, copy, dev.size));
	EXPECT_EQ(dev.size, lseek(dev.fd, 0, SEEK_CUR));
}

TEST_ANY(write_is_seen_in_a_mapping)
{
	char *p = stamped(), *data = buffer(dev.size);

	for (size_t i = 0; i < dev.size; i++)
		data[i] = i * 7 + i / 4096;
	ASSERT_EQ(dev.size, write(dev.fd, data, dev.size));
	EXPECT_EQ(0, memcmp(p, data, dev.size));
}

/* Around every kind of border: bytes, pages, huge pages, what one call copies at once. */
TEST_ANY(any_offset_and_length_is_taken)
{
	const size_t at[] = { 0, 1, 7, 4095, 4096, page_size + 1, 65535, 262144 - 3, (1 << 20) - 1,
			      dev.size / 2 - 1, dev.size - 4097, dev.size - 1 };
	const size_t lengths[] = { 1, 2, 8, 511, 4096, 4097, 3 * page_size + 5, (1 << 20) + 1,
				   pmd_size + 1 };
	char *p = stamped(), *data = buffer(pmd_size + 1), *copy = buffer(dev.size + pmd_size + 1);

	for (size_t i = 0; i <= pmd_size; i++)
		data[i] = i * 11 + 3;
	for (size_t i = 0; i < ARRAY_SIZE(at); i++)
		for (size_t j = 0; j < ARRAY_SIZE(lengths); j++) {
			size_t fits = dev.size - at[i] < lengths[j] ? dev.size - at[i] : lengths[j];

			memcpy(copy, p, dev.size);
			ASSERT_EQ(fits, pwrite(dev.fd, data, lengths[j], at[i]));
			memcpy(copy + at[i], data, fits);
			ASSERT_EQ(0, memcmp(copy, p, dev.size));
			memset(copy, 0xaa, lengths[j]);
			ASSERT_EQ(fits, pread(dev.fd, copy, lengths[j], at[i]));
			ASSERT_EQ(0, memcmp(data, copy, fits));
			if (fits < lengths[j])
				ASSERT_EQ((char)0xaa, copy[fits]);
		}
}

TEST_ANY(position_advances_by_what_was_done)
{
	char byte[3];

	stamped();
	ASSERT_EQ(3, read(dev.fd, byte, 3));
	EXPECT_EQ(3, lseek(dev.fd, 0, SEEK_CUR));
	ASSERT_EQ(2, write(dev.fd, byte, 2));
	EXPECT_EQ(5, lseek(dev.fd, 0, SEEK_CUR));
	ASSERT_EQ(1, pread(dev.fd, byte, 1, 100));
	EXPECT_EQ(5, lseek(dev.fd, 0, SEEK_CUR));
	ASSERT_EQ(dev.size - 1, lseek(dev.fd, -1, SEEK_END));
	ASSERT_EQ(1, read(dev.fd, byte, 3));
	EXPECT_EQ(dev.size, lseek(dev.fd, 0, SEEK_CUR));
}

/* Programs would take an error there for a huge byte count. */
TEST_ANY(at_and_past_the_end_read_and_write_give_0)
{
	const uint64_t places[] = { dev.size, dev.size + 1, dev.size + page_size, 1ULL << 40,
				    INT64_MAX - 4096 };
	char byte = 0x5a;

	ASSERT_EQ(dev.size, lseek(dev.fd, 0, SEEK_END));
	EXPECT_EQ(0, read(dev.fd, &byte, 1));
	EXPECT_EQ(0, write(dev.fd, &byte, 1));
	EXPECT_EQ(0, write(dev.fd, &byte, 0));
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		EXPECT_EQ(0, pread(dev.fd, &byte, 1, places[i]));
		EXPECT_EQ(0, pwrite(dev.fd, &byte, 1, places[i]));
	}
	EXPECT_EQ(0x5a, byte);
	EXPECT_ERRNO(EINVAL, pread(dev.fd, &byte, 1, -1));
	EXPECT_ERRNO(EINVAL, pwrite(dev.fd, &byte, 1, -1));
	EXPECT_EQ(0, pread(dev.fd, &byte, 0, 0));
}

TEST_ANY(several_buffers_are_filled_in_order)
{
	char *p = stamped(), a[5000], b[1], c[70000], copy[sizeof(a) + sizeof(b) + sizeof(c)];
	struct iovec iov[] = { { a, sizeof(a) }, { b, sizeof(b) }, { NULL, 0 }, { c, sizeof(c) } };

	ASSERT_EQ(sizeof(copy), preadv(dev.fd, iov, 4, 77));
	memcpy(copy, a, sizeof(a));
	memcpy(copy + sizeof(a), b, sizeof(b));
	memcpy(copy + sizeof(a) + sizeof(b), c, sizeof(c));
	EXPECT_EQ(0, memcmp(copy, p + 77, sizeof(copy)));
	memset(a, 1, sizeof(a));
	memset(b, 2, sizeof(b));
	memset(c, 3, sizeof(c));
	ASSERT_EQ(sizeof(copy), writev(dev.fd, iov, 4));
	EXPECT_EQ(1, p[4999]);
	EXPECT_EQ(2, p[5000]);
	EXPECT_EQ(3, p[5001]);
	EXPECT_EQ(3, p[sizeof(copy) - 1]);
}

TEST_ANY(pieces_of_any_flags_are_the_same)
{
	const int flags[] = { O_SYNC, O_DSYNC, O_APPEND, O_NONBLOCK, O_NOATIME };
	char *p = stamped();
	uint64_t value;

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		int fd = dev_open(&dev, O_RDWR | flags[i]);

		ASSERT_OK(fd);
		ASSERT_EQ(page_size, lseek(fd, page_size, SEEK_SET));
		ASSERT_EQ(8, read(fd, &value, 8));
		EXPECT_EQ(word(p + page_size), value);
		value = i + 1;
		ASSERT_EQ(8, pwrite(fd, &value, 8, 64));
		EXPECT_EQ(i + 1, word(p + 64));
		close(fd);
	}
}

/* --- who may --- */

TEST_ANY(descriptor_for_one_direction_has_one)
{
	int ro = dev_open(&dev, O_RDONLY), wo = dev_open(&dev, O_WRONLY);
	char *p = stamped(), byte = 0x5a;

	EXPECT_EQ(1, read(ro, &byte, 1));
	EXPECT_ERRNO(EBADF, write(ro, &byte, 1));
	EXPECT_ERRNO(EBADF, pwrite(ro, &byte, 1, 0));
	byte = 0x5a;
	EXPECT_EQ(1, write(wo, &byte, 1));
	EXPECT_EQ(0x5a, *p);
	EXPECT_ERRNO(EBADF, read(wo, &byte, 1));
}

/* --- buffers that are no good --- */

TEST_ANY(bad_buffer_gives_efault_or_what_was_copied_before_it)
{
	char *bad = reserve(page_size, 0), *p = stamped();
	char *good = mmap(bad, page_size, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	long n;

	mprotect(good + page_size, page_size, PROT_NONE);
	EXPECT_ERRNO(EFAULT, pread(dev.fd, (void *)page_size, 1, 0));
	EXPECT_ERRNO(EFAULT, pwrite(dev.fd, (void *)page_size, 1, 0));
	n = pread(dev.fd, good + page_size - 100, 200, 3);
	ASSERT_TRUE(n >= 0 && n <= 100);
	EXPECT_EQ(0, memcmp(good + page_size - 100, p + 3, n));
	n = pread(dev.fd, good, 3 * page_size, 0);
	ASSERT_TRUE(n > 0 && (size_t)n <= page_size);
	EXPECT_EQ(0, memcmp(good, p, n));
}

/* The buffer is a mapping of the device, whose fault takes the device's locks: no deadlock. */
TEST_ANY(buffer_may_be_a_mapping_of_the_device)
{
	char *p = stamped();
	char *q = map(dev.fd, 0, dev.size, RW);

	ASSERT_EQ(dev.size / 2, pread(dev.fd, q + dev.size / 2, dev.size / 2, 0));
	EXPECT_EQ(0, memcmp(p, p + dev.size / 2, dev.size / 2));
	stamp(p, 0, dev.size);
	q = map(dev.fd, 0, dev.size, RW);
	ASSERT_EQ(dev.size / 2, pwrite(dev.fd, q + dev.size / 2, dev.size / 2, 0));
	EXPECT_EQ(0, memcmp(p, p + dev.size / 2, dev.size / 2));
}

/* --- pipes and files --- */

TEST_ANY(sendfile_and_splice_work_both_ways)
{
	char *p = stamped(), *copy = buffer(page_size);
	loff_t offset = page_size + 1;
	int pipes[2], file = syscall(SYS_memfd_create, "copy", 0);

	ASSERT_OK(file);
	ASSERT_OK(pipe(pipes));
	ASSERT_EQ(page_size, splice(dev.fd, &offset, pipes[1], NULL, page_size, 0));
	ASSERT_EQ(page_size, read(pipes[0], copy, page_size));
	EXPECT_EQ(0, memcmp(p + page_size + 1, copy, page_size));

	/* 5.10 refuses sendfile() from all but regular files and block devices. */
	ASSERT_EQ(0, lseek(dev.fd, 0, SEEK_SET));
	for (size_t done = kernel_is(5, 11) ? 0 : dev.size; done < dev.size;) {
		ssize_t n = sendfile(file, dev.fd, NULL, dev.size - done);

		ASSERT_TRUE(n > 0);
		done += n;
	}
	if (kernel_is(5, 11)) {
		EXPECT_EQ(0, sendfile(file, dev.fd, NULL, 1));
		EXPECT_EQ(0, memcmp(p, map(file, 0, dev.size, PROT_READ), dev.size));
	}

	memset(copy, 0x77, page_size);
	ASSERT_EQ(page_size, write(pipes[1], copy, page_size));
	offset = 5;
	ASSERT_EQ(page_size, splice(pipes[0], NULL, dev.fd, &offset, page_size, 0));
	EXPECT_EQ(0, memcmp(p + 5, copy, page_size));
}

/* --- syncing --- */

TEST_ANY(there_is_nothing_to_sync)
{
	char *p = stamped();

	EXPECT_EQ(0, fsync(dev.fd));
	EXPECT_EQ(0, fdatasync(dev.fd));
	EXPECT_EQ(0, msync(p, dev.size, MS_SYNC));
	EXPECT_EQ(0, msync(p, dev.size, MS_ASYNC));
	EXPECT_EQ(-1, unstamped(p, 0, dev.size));
}

/* --- unplug --- */

/* Another process reads and writes during an unplug: each call is complete, short, or ENODEV. */
static void user_of(char *copy, int pipe)
{
	for (unsigned int round = 0;; round++) {
		ssize_t n = round & 1 ? pread(dev.fd, copy, dev.size, 0) :
					pwrite(dev.fd, copy, dev.size, 0);

		if (n < 0 && errno == ENODEV) {
			EXPECT_ERRNO(ENODEV, read(dev.fd, copy, 1));
			EXPECT_ERRNO(ENODEV, write(dev.fd, copy, 1));
			EXPECT_ERRNO(ENODEV, fsync(dev.fd));
			_exit(ktap_failed ? KTAP_FAIL : KTAP_PASS);
		}
		ASSERT_TRUE(n >= 0 && (uint64_t)n <= dev.size);
		if (round == 2)
			ASSERT_EQ(1, write(pipe, "", 1));
	}
}

TEST_PCI(unplug_ends_reading_and_writing)
{
	char *copy = buffer(dev.size), byte;
	int pipes[2];
	pid_t pid;

	ASSERT_OK(pipe(pipes));
	pid = fork();
	if (!pid)
		user_of(copy, pipes[1]);
	ASSERT_EQ(1, read(pipes[0], &byte, 1));
	ASSERT_EQ(0, pci_driver("unbind", dev.slot));
	EXPECT_EQ(KTAP_PASS, join(pid));
	ASSERT_EQ(0, pci_driver("bind", dev.slot));
}

TEST_UNLOADS()
