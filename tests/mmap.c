// SPDX-License-Identifier: GPL-2.0
/*
 * The device node: who may open and map what of it, what a mapping shows, and what can be done to
 * one.
 */
#include <sys/uio.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)

static uint64_t last_page(void)
{
	return dev.size - page_size;
}

/* --- open and lseek --- */

TEST_ANY(node_is_for_its_owner_alone)
{
	char path[64];
	struct stat st;

	/* Without udev: nothing for others by default. */
	snprintf(path, sizeof(path), "/dev/%s", dev.name);
	ASSERT_OK(stat(path, &st));
	EXPECT_EQ(S_IFCHR | 0600, st.st_mode);
	EXPECT_EQ(0, st.st_uid);
	IN_CHILD(ASSERT_OK(setresuid(65534, 65534, 65534));
		 EXPECT_ERRNO(EACCES, open(path, O_RDONLY)));
}

TEST_ANY(lseek_tells_the_size)
{
	EXPECT_EQ(dev.size, lseek(dev.fd, 0, SEEK_END));
	EXPECT_EQ(dev.size, lseek(dev.fd, 0, SEEK_CUR));
	EXPECT_EQ(dev.size - 5, lseek(dev.fd, -5, SEEK_CUR));
	EXPECT_EQ(0, lseek(dev.fd, 0, SEEK_SET));
	EXPECT_EQ(7, lseek(dev.fd, 7, SEEK_SET));
	EXPECT_EQ(9, lseek(dev.fd, 2, SEEK_CUR));
	EXPECT_EQ(dev.size - page_size, lseek(dev.fd, -(off_t)page_size, SEEK_END));
}

TEST_ANY(lseek_outside_the_device_is_refused)
{
	ASSERT_EQ(5, lseek(dev.fd, 5, SEEK_SET));
	EXPECT_ERRNO(EINVAL, lseek(dev.fd, -1, SEEK_SET));
	EXPECT_ERRNO(EINVAL, lseek(dev.fd, dev.size + 1, SEEK_SET));
	EXPECT_ERRNO(EINVAL, lseek(dev.fd, 1, SEEK_END));
	EXPECT_ERRNO(EINVAL, lseek(dev.fd, -6, SEEK_CUR));
	EXPECT_ERRNO(EINVAL, lseek(dev.fd, 0, 42));
	EXPECT_EQ(5, lseek(dev.fd, 0, SEEK_CUR));
}

TEST_ANY(size_cannot_be_changed)
{
	struct kvmfr_dev now;

	EXPECT_ERRNO(EINVAL, ftruncate(dev.fd, 0));
	EXPECT_ERRNO(EINVAL, ftruncate(dev.fd, dev.size * 2));
	EXPECT_ERRNO(ENODEV, fallocate(dev.fd, 0, 0, dev.size * 2));
	EXPECT_ERRNO(ENODEV, fallocate(dev.fd, 3 /* KEEP_SIZE | PUNCH_HOLE */, 0, page_size));
	ASSERT_TRUE(dev_read(&now, dev.name));
	EXPECT_EQ(dev.size, now.size);
	EXPECT_EQ(dev.size, lseek(dev.fd, 0, SEEK_END));
}

TEST_ANY(o_path_descriptor_can_do_nothing)
{
	int fd = dev_open(&dev, O_PATH);

	ASSERT_OK(fd);
	EXPECT_ERRNO(EBADF, mmap(NULL, page_size, PROT_READ, MAP_SHARED, fd, 0));
	EXPECT_ERRNO(EBADF, ioctl(fd, KVMFR_DMABUF_GETSIZE));
	EXPECT_ERRNO(EBADF, dmabuf_try(fd, 0, 0, page_size));
	EXPECT_ERRNO(EBADF, lseek(fd, 0, SEEK_END));
}

/* --- what can be mapped --- */

TEST_ANY(every_page_is_memory_of_its_own)
{
	char *all = map(dev.fd, 0, dev.size, RW);

	stamp(all, 0, dev.size);
	EXPECT_EQ(-1, unstamped(all, 0, dev.size));
	/* to the last byte */
	all[dev.size - 1] = 0x77;
	EXPECT_EQ(0x77, all[dev.size - 1]);
}

TEST_ANY(part_shows_the_device_from_its_offset_on)
{
	const size_t lengths[] = { page_size, 3 * page_size, dev.size / 2 };
	char *all = map(dev.fd, 0, dev.size, RW);

	stamp(all, 0, dev.size);
	for (unsigned int i = 0; i < 3; i++) {
		const uint64_t offsets[] = {
			0, page_size, dev.size / 2 - page_size, dev.size - lengths[i],
		};

		for (unsigned int j = 0; j < 4; j++) {
			char *part = map(dev.fd, offsets[j], lengths[i], PROT_READ);

			EXPECT_EQ(-1, unstamped(part, offsets[j], lengths[i]));
			munmap(part, lengths[i]);
		}
	}
}

TEST_ANY(mmap_past_the_end_is_refused)
{
	EXPECT_ERRNO(EINVAL, mmap(NULL, dev.size + page_size, RW, MAP_SHARED, dev.fd, 0));
	EXPECT_ERRNO(EINVAL, mmap(NULL, dev.size, RW, MAP_SHARED, dev.fd, page_size));
	EXPECT_ERRNO(EINVAL, mmap(NULL, 2 * page_size, RW, MAP_SHARED, dev.fd, last_page()));
	EXPECT_ERRNO(EINVAL, mmap(NULL, page_size, RW, MAP_SHARED, dev.fd, dev.size));
	EXPECT_ERRNO(EINVAL, mmap(NULL, page_size, RW, MAP_SHARED, dev.fd, dev.size + (1 << 30)));
	/* rounded up to whole pages by the kernel */
	EXPECT_ERRNO(EINVAL, mmap(NULL, page_size + 1, RW, MAP_SHARED, dev.fd, last_page()));
	EXPECT_ERRNO(EINVAL, mmap(NULL, page_size, PROT_READ, MAP_SHARED, dev.fd, dev.size));
}

TEST_ANY(mmap_wrapping_around_is_refused)
{
	const uint64_t p = page_size;
	const uint64_t offsets[] = {
		1ULL << 63, (1ULL << 63) - p, (1ULL << 63) + dev.size, -64 * p, -dev.size,
		(1ULL << 32) * p, 1ULL << 44,
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(offsets); i++) {
		EXPECT_ERRNO(EINVAL, mmap(NULL, p, RW, MAP_SHARED, dev.fd, offsets[i]));
		EXPECT_ERRNO(EINVAL, mmap(NULL, 32 * p, RW, MAP_SHARED, dev.fd, offsets[i]));
	}
	/* Where the sum wraps, the kernel itself returns another errno. */
	EXPECT_ERRNO(EOVERFLOW, mmap(NULL, 2 * p, RW, MAP_SHARED, dev.fd, -p));
}

TEST_ANY(private_mapping_is_refused)
{
	int ro = dev_open(&dev, O_RDONLY);

	EXPECT_ERRNO(EINVAL, mmap(NULL, page_size, RW, MAP_PRIVATE, dev.fd, 0));
	EXPECT_ERRNO(EINVAL, mmap(NULL, page_size, PROT_READ, MAP_PRIVATE, dev.fd, 0));
	EXPECT_ERRNO(EINVAL, mmap(NULL, page_size, PROT_NONE, MAP_PRIVATE, dev.fd, 0));
	EXPECT_ERRNO(EINVAL, mmap(NULL, page_size, RW, MAP_PRIVATE, ro, 0));
	EXPECT_ERRNO(EINVAL, mmap(NULL, page_size, PROT_READ, MAP_PRIVATE, ro, 0));
}

TEST_ANY(read_only_descriptor_gives_read_only_mappings)
{
	int ro = dev_open(&dev, O_RDONLY);
	char *rw = map(dev.fd, 0, page_size, RW);
	char *p;

	EXPECT_ERRNO(EACCES, mmap(NULL, page_size, RW, MAP_SHARED, ro, 0));
	EXPECT_ERRNO(EACCES, mmap(NULL, page_size, PROT_WRITE, MAP_SHARED, ro, 0));
	p = map(ro, 0, page_size, PROT_READ);
	set_word(rw, 0x1111);
	EXPECT_EQ(0x1111, word(p));
	EXPECT_EQ(SIGSEGV, probe_write(p));
	EXPECT_ERRNO(EACCES, mprotect(p, page_size, RW));
	EXPECT_EQ(SIGSEGV, probe_write(p));
	set_word(rw, 0x2222);
	EXPECT_EQ(0x2222, word(p));
}

TEST_ANY(write_only_descriptor_gives_no_mapping)
{
	int wo = dev_open(&dev, O_WRONLY);

	ASSERT_OK(wo);
	EXPECT_ERRNO(EACCES, mmap(NULL, page_size, PROT_WRITE, MAP_SHARED, wo, 0));
	EXPECT_ERRNO(EACCES, mmap(NULL, page_size, PROT_READ, MAP_SHARED, wo, 0));
	EXPECT_ERRNO(EACCES, mmap(NULL, page_size, PROT_NONE, MAP_SHARED, wo, 0));
}

/* --- what can be done to a mapping --- */

TEST_ANY(mapping_outlives_its_descriptor)
{
	char *p = map(dev.fd, 0, dev.size, RW);

	close(dev.fd);
	stamp(p, 0, dev.size);
	EXPECT_EQ(-1, unstamped(p, 0, dev.size));
}

TEST_ANY(mapping_of_the_last_page_does_not_grow)
{
	char *room = reserve(4 * page_size, 0);
	char *p = mmap(room, page_size, RW, MAP_SHARED | MAP_FIXED, dev.fd, last_page());

	ASSERT_OK(p);
	munmap(p + page_size, 3 * page_size);	/* there is room to grow in place */
	EXPECT_ERRNO(EFAULT, mremap(p, page_size, 2 * page_size, 0));
	EXPECT_ERRNO(EFAULT, mremap(p, page_size, 2 * page_size, MREMAP_MAYMOVE));
	EXPECT_EQ(0, probe_read(p));
	EXPECT_EQ(SIGSEGV, probe_read(p + page_size));
}

TEST_ANY(mapping_does_not_grow_even_inside_the_device)
{
	char *p = map(dev.fd, 0, page_size, RW);

	EXPECT_ERRNO(EFAULT, mremap(p, page_size, 2 * page_size, MREMAP_MAYMOVE));
	/* an old length of 0 asks for a second mapping of the same: refused, too */
	EXPECT_ERRNO(EFAULT, mremap(p, 0, page_size, MREMAP_MAYMOVE));
	EXPECT_ERRNO(EFAULT, mremap(p, 0, 2 * page_size, MREMAP_MAYMOVE));
}

TEST_ANY(mapping_moves_and_shrinks)
{
	char *p = map(dev.fd, 0, 8 * page_size, RW);
	char *q;

	stamp(p, 0, 8 * page_size);
	q = move(p, 8 * page_size, 0);
	EXPECT_EQ(-1, unstamped(q, 0, 8 * page_size));
	EXPECT_EQ(SIGSEGV, probe_read(p));
	ASSERT_OK(mremap(q, 8 * page_size, 3 * page_size, 0));
	EXPECT_EQ(-1, unstamped(q, 0, 3 * page_size));
	EXPECT_EQ(SIGSEGV, probe_read(q + 3 * page_size));
}

/*
 * remap_file_pages() maps again without the checks of mmap(). When it is refused, the old mapping
 * may be gone.
 */
TEST_ANY(remap_file_pages_stays_inside_the_device)
{
	const size_t size = 2 * page_size, pages = dev.size / page_size;
	const size_t outside[] = { pages - 1, pages, pages + 1, SIZE_MAX / page_size / 2 };
	char *p;

	stamp(map(dev.fd, 0, dev.size, RW), 0, dev.size);
	for (unsigned int i = 0; i < 4; i++) {
		p = map(dev.fd, 0, size, RW);
		EXPECT_ERRNO(EINVAL, syscall(SYS_remap_file_pages, p, size, 0, outside[i], 0));
	}
	p = map(dev.fd, 0, size, RW);
	ASSERT_OK(syscall(SYS_remap_file_pages, p, size, 0, 5, 0));
	EXPECT_EQ(-1, unstamped(p, 5 * page_size, size));
}

TEST_ANY(dropped_pages_keep_their_contents)
{
	const int advice[] = {
		MADV_DONTNEED, MADV_COLD, MADV_PAGEOUT, MADV_FREE, MADV_REMOVE, MADV_DONTNEED,
	};
	char *p = map(dev.fd, 0, dev.size, RW);

	stamp(p, 0, dev.size);
	for (unsigned int i = 0; i < ARRAY_SIZE(advice); i++) {
		int ret = madvise(p, dev.size, advice[i]);

		/* The kernel may refuse any of them, but none may lose data. */
		if (advice[i] == MADV_DONTNEED && dev.paged)
			EXPECT_EQ(0, ret);
		EXPECT_EQ(0, probe_read(p));
		EXPECT_EQ(-1, unstamped(p, 0, dev.size));
	}
	ASSERT_OK(munmap(p, dev.size));
	p = map(dev.fd, 0, dev.size, RW);
	EXPECT_EQ(-1, unstamped(p, 0, dev.size));
}

TEST_PAGED(odd_parts_can_be_dropped_and_touched_again)
{
	char *p = map_at(dev.fd, 0, dev.size, RW, 0);
	size_t step = pmd_size / 2 + page_size;

	stamp(p, 0, dev.size);
	for (size_t i = page_size; i + step < dev.size; i += 2 * step)
		ASSERT_OK(madvise(p + i, step, MADV_DONTNEED));
	EXPECT_EQ(-1, unstamped(p, 0, dev.size));
}

TEST_ANY(mprotect_takes_and_gives_back)
{
	char *p = map(dev.fd, 0, 3 * page_size, RW);

	stamp(p, 0, 3 * page_size);
	ASSERT_OK(mprotect(p + page_size, page_size, PROT_READ));
	EXPECT_EQ(0, probe_write(p));
	EXPECT_EQ(0, probe_read(p + page_size));
	EXPECT_EQ(SIGSEGV, probe_write(p + page_size));
	EXPECT_EQ(0, probe_write(p + 2 * page_size));
	ASSERT_OK(mprotect(p + page_size, page_size, PROT_NONE));
	EXPECT_EQ(SIGSEGV, probe_read(p + page_size));
	ASSERT_OK(mprotect(p, 3 * page_size, RW));
	EXPECT_EQ(0, probe_write(p + page_size));
	EXPECT_EQ(-1, unstamped(p, 0, 3 * page_size));
}

TEST_PAGED(huge_mapping_can_be_protected_page_by_page)
{
	char *p = map_at(dev.fd, 0, pmd_size, RW, 0);

	stamp(p, 0, pmd_size);
	for (size_t i = page_size; i < pmd_size; i += 2 * page_size)
		ASSERT_OK(mprotect(p + i, page_size, PROT_READ));
	for (size_t i = 0; i < pmd_size; i += page_size)
		EXPECT_EQ(i / page_size % 2 ? SIGSEGV : 0, probe_write(p + i));
	EXPECT_EQ(-1, unstamped(p, 0, pmd_size));
}

TEST_ANY(children_share_the_mapping)
{
	char *p = map(dev.fd, 0, dev.size, RW);
	char *fresh = map(dev.fd, 0, dev.size, RW);	/* not touched before the fork */

	stamp(p, 0, dev.size);
	IN_CHILD(EXPECT_EQ(-1, unstamped(p, 0, dev.size));
		 EXPECT_EQ(-1, unstamped(fresh, 0, dev.size));
		 set_word(p + last_page(), 0xc0ffee);
		 set_word(fresh, 0xfee));
	EXPECT_EQ(0xc0ffee, word(p + last_page()));
	EXPECT_EQ(0xfee, word(p));
}

TEST_PAGED(mapping_can_be_unmapped_in_pieces)
{
	char *p = map_at(dev.fd, 0, 2 * pmd_size, RW, 0);
	const size_t huge = pmd_size / page_size;
	const size_t holes[] = { 0, 1, huge / 2, huge - 1, huge + 3 };
	size_t hole = 0;

	stamp(p, 0, 2 * pmd_size);
	for (unsigned int i = 0; i < 5; i++)
		ASSERT_OK(munmap(p + holes[i] * page_size, page_size));
	for (size_t i = 0; i < 2 * huge; i++) {
		if (hole < 5 && i == holes[hole]) {
			EXPECT_EQ(SIGSEGV, probe_read(p + i * page_size));
			hole++;
		} else {
			ASSERT_EQ(stamp_of(i * page_size), word(p + i * page_size));
		}
	}
}

TEST_ANY(populate_and_mlock_work)
{
	char *p = map(dev.fd, 0, dev.size, RW);
	unsigned long before;
	char *q;

	stamp(p, 0, dev.size);
	q = mmap(NULL, dev.size, RW, MAP_SHARED | MAP_POPULATE, dev.fd, 0);
	ASSERT_OK(q);
	before = faults();
	EXPECT_EQ(-1, unstamped(q, 0, dev.size));
	/* The kernel populates only what has struct pages. */
	if (dev.paged)
		EXPECT_LE(faults() - before, 2);
	ASSERT_OK(mlock(p, dev.size));
	EXPECT_EQ(-1, unstamped(p, 0, dev.size));
	ASSERT_OK(munlock(p, dev.size));
}

TEST_PAGED(populate_by_madvise_works)
{
	char *p = map(dev.fd, 0, dev.size, RW);
	unsigned long before;

	if (!kernel_is(5, 14))
		SKIP("MADV_POPULATE_WRITE is newer than this kernel");
	stamp(p, 0, dev.size);
	ASSERT_OK(madvise(p, dev.size, MADV_DONTNEED));
	ASSERT_OK(madvise(p, dev.size, MADV_POPULATE_WRITE));
	before = faults();
	EXPECT_EQ(-1, unstamped(p, 0, dev.size));
	EXPECT_LE(faults() - before, 2);
}

TEST_ANY(mapping_can_be_used_for_other_files_io)
{
	char *p = map(dev.fd, 0, 4 * page_size, RW);
	char file[] = "/tmp/kvmfr-XXXXXX";
	char *copy = malloc(4 * page_size);
	int fd = mkstemp(file);
	int pipes[2];

	ASSERT_OK(fd);
	unlink(file);
	stamp(p, 0, 4 * page_size);
	/* out of the mapping, and into it again at another place */
	ASSERT_EQ(2 * page_size, write(fd, p, 2 * page_size));
	memset(copy, 0xaa, 4 * page_size);
	ASSERT_EQ(2 * page_size, pread(fd, copy, 2 * page_size, 0));
	EXPECT_EQ(-1, unstamped(copy, 0, 2 * page_size));
	ASSERT_EQ(2 * page_size, pread(fd, p + 2 * page_size, 2 * page_size, 0));
	EXPECT_EQ(-1, unstamped(p + 2 * page_size, 0, 2 * page_size));

	ASSERT_OK(pipe(pipes));
	ASSERT_EQ(8, write(pipes[1], p + page_size, 8));
	ASSERT_EQ(8, read(pipes[0], p, 8));
	EXPECT_EQ(stamp_of(page_size), word(p));
}

TEST_PAGED(pages_can_be_lent_to_a_pipe)
{
	char *p = map(dev.fd, 0, dev.size, RW);
	struct iovec iov = { .iov_base = p, .iov_len = page_size };
	char *copy = malloc(page_size);
	int pipes[2];

	stamp(p, 0, page_size);
	ASSERT_OK(pipe(pipes));
	ASSERT_EQ(page_size, vmsplice(pipes[1], &iov, 1, 0));
	munmap(p, dev.size);
	close(dev.fd);
	memset(copy, 0xaa, page_size);
	ASSERT_EQ(page_size, read(pipes[0], copy, page_size));
	EXPECT_EQ(-1, unstamped(copy, 0, page_size));
}

TEST_ANY(proc_mem_reads_and_writes_the_mapping)
{
	char *p = map(dev.fd, 0, 2 * page_size, RW);
	int mem = open("/proc/self/mem", O_RDWR);
	uint64_t value = 0x5a5a5a5a5a5a5a5a;

	ASSERT_OK(mem);
	stamp(p, 0, 2 * page_size);
	ASSERT_EQ(8, pread(mem, &value, 8, (uintptr_t)p + page_size));
	EXPECT_EQ(stamp_of(page_size), value);
	value = 0x600d;
	ASSERT_EQ(8, pwrite(mem, &value, 8, (uintptr_t)p));
	EXPECT_EQ(0x600d, word(map(dev.fd, 0, page_size, PROT_READ)));
}

TEST_ANY(proc_mem_ends_where_the_mapping_does)
{
	char *p = map_at(dev.fd, 0, page_size, RW, page_size);
	char *next = map(dev.fd, page_size, page_size, RW);
	int mem = open("/proc/self/mem", O_RDWR);
	uint64_t value[2] = { 0xbad, 0xbad };

	ASSERT_OK(mem);
	ASSERT_OK(munmap(p + page_size, page_size));	/* there is nothing behind it */
	set_word(p + page_size - 8, 0x600d);
	set_word(next, 0x5ec2e7);
	EXPECT_EQ(8, pread(mem, value, 16, (uintptr_t)p + page_size - 8));
	EXPECT_EQ(0x600d, value[0]);
	EXPECT_EQ(0xbad, value[1]);
	EXPECT_EQ(8, pwrite(mem, value, 16, (uintptr_t)p + page_size - 8));
	EXPECT_EQ(0x5ec2e7, word(next));
}

TEST_PAGED(proc_mem_does_not_write_through_a_read_only_descriptor)
{
	int ro = dev_open(&dev, O_RDONLY);
	char *p = map(ro, 0, page_size, PROT_READ);
	char *rw = map(dev.fd, 0, page_size, RW);
	int mem = open("/proc/self/mem", O_RDWR);
	uint64_t value = 0xbad;

	set_word(rw, 0x600d);
	EXPECT_ERRNO(EIO, pwrite(mem, &value, 8, (uintptr_t)p));
	EXPECT_EQ(0x600d, word(rw));
}

/* --- huge pages --- */

/* How many faults it takes to touch and check every page of a new mapping. */
static unsigned long faults_to_touch(const char *p, size_t length)
{
	unsigned long before = faults();

	EXPECT_EQ(-1, unstamped(p, 0, length));
	return faults() - before;
}

static void need_huge_pages(void)
{
	if (dev.slot[0] && !kernel_is(5, 17))
		SKIP("before 5.17 the memory of an IVSHMEM device can't be huge pages");
	ASSERT_EQ(0, dev.size % pmd_size);
}

TEST_PAGED(whole_device_takes_one_fault_for_each_huge_page)
{
	char *p = map(dev.fd, 0, dev.size, RW);

	need_huge_pages();
	EXPECT_EQ(dev.size, dev.huge_bytes);
	stamp(p, 0, dev.size);
	munmap(p, dev.size);
	/* at an address of the kernel's choice, like the Looking Glass client */
	p = map(dev.fd, 0, dev.size, RW);
	EXPECT_EQ(0, (uintptr_t)p % pmd_size);
	EXPECT_LE(faults_to_touch(p, dev.size), dev.size / pmd_size);
	/* at an aligned one, like QEMU */
	p = map_at(dev.fd, 0, dev.size, RW, 0);
	EXPECT_LE(faults_to_touch(p, dev.size), dev.size / pmd_size);
	p = map_at(dev.fd, 0, dev.size, PROT_READ, 0);
	EXPECT_LE(faults_to_touch(p, dev.size), dev.size / pmd_size);
}

/* smaps doesn't count the pages of a PCI device. */
TEST_STATIC(smaps_counts_the_mapping_as_huge)
{
	char *p = map(dev.fd, 0, dev.size, RW);

	stamp(p, 0, dev.size);
	EXPECT_EQ(dev.size >> 10, smaps_kb(p, "FilePmdMapped"));
}

/* What only one process maps counts as private, also where it is mapped by small pages. */
TEST_PAGED(pss_of_a_single_process_is_its_rss)
{
	const size_t misalign[] = { 0, page_size, 3 * page_size, pmd_size / 2 + 65 * page_size };
	uint64_t before = meminfo("Mapped");

	for (unsigned int i = 0; i < ARRAY_SIZE(misalign); i++) {
		unsigned long rss, pss;
		char *p;

		/*
		 * Tails of a BAR's huge folios share a mapcount. Before 6.13 they are counted one
		 * by one for KVM's sake, and up to 6.1 also in what is mapped as a huge page.
		 */
		if (dev.slot[0] && !kernel_is(6, misalign[i] ? 13 : 2))
			continue;
		p = map_at(dev.fd, 0, dev.size, RW, misalign[i]);
		stamp(p, 0, dev.size);
		rss = smaps_kb(p, "Rss");
		pss = smaps_kb(p, "Pss");
		ktap_note("%zu pages out of step: Rss %lu kB, Pss %lu kB", misalign[i] / page_size,
			  rss, pss);
		EXPECT_EQ(rss, pss);
		EXPECT_EQ(-1, unstamped(p, 0, dev.size));
		ASSERT_OK(munmap(p, dev.size));
	}
	/* nothing is left of them in the sum, to a margin for what else runs */
	EXPECT_LE(meminfo("Mapped"), before + dev.size / 4);
	EXPECT_LE(before, meminfo("Mapped") + dev.size / 4);
}

/*
 * No huge page fitted the old address; one fits the new one, where it is touched first. Where the
 * core asks vma_is_special_huge() (6.15, by its source) a reference got lost. 7.3.4 never lost it.
 */
TEST_PAGED(mapping_moved_before_its_first_touch_leaves_nothing_mapped)
{
	uint64_t before = meminfo("Mapped");
	char *p = move(map_at(dev.fd, 0, dev.size, RW, page_size), dev.size, 0);

	stamp(p, 0, dev.size);
	EXPECT_EQ(-1, unstamped(p, 0, dev.size));
	ASSERT_OK(munmap(p, dev.size));
	EXPECT_LE(meminfo("Mapped"), before + dev.size / 4);
}

TEST_PAGED(part_at_an_odd_offset_is_huge_where_it_can_be)
{
	uint64_t offset = page_size;
	size_t length = dev.size - offset;
	unsigned long before;
	char *p;

	need_huge_pages();
	stamp(map(dev.fd, 0, dev.size, RW), 0, dev.size);
	p = map_at(dev.fd, offset, length, RW, offset);
	before = faults();
	EXPECT_EQ(-1, unstamped(p, offset, length));
	/* small pages before the first whole huge page, huge ones from there on */
	EXPECT_LE(faults() - before, (pmd_size - offset) / page_size + dev.size / pmd_size - 1);
}

TEST_UNLOADS()
