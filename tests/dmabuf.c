// SPDX-License-Identifier: GPL-2.0
/*
 * DMA-BUFs from user space: what can be made, what is in one, how long it lives. Importers are in
 * importers.c.
 */
#include <sys/resource.h>
#include <sys/socket.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)

/* --- what can be made --- */

TEST_PAGED(part_becomes_a_dmabuf_of_that_size)
{
	const uint64_t parts[][2] = {
		{ 0, dev.size }, { 0, page_size }, { dev.size - page_size, page_size },
		{ 5 * page_size, 3 * page_size }, { pmd_size - page_size, 2 * page_size },
		{ page_size, dev.size - page_size },
	};
	char *all = map(dev.fd, 0, dev.size, RW);

	stamp(all, 0, dev.size);
	for (unsigned int i = 0; i < ARRAY_SIZE(parts); i++) {
		uint64_t offset = parts[i][0], size = parts[i][1];
		int buf = dmabuf(dev.fd, offset, size);
		char *p = map(buf, 0, size, RW);

		EXPECT_EQ(size, lseek(buf, 0, SEEK_END));
		EXPECT_EQ(-1, unstamped(p, offset, size));
		set_word(p + size - page_size, 0x5ea1 + i);
		EXPECT_EQ(0x5ea1 + i, word(all + offset + size - page_size));
		set_word(all + offset + size - page_size, stamp_of(offset + size - page_size));
		EXPECT_EQ(-1, unstamped(p, offset, size));
		munmap(p, size);
		close(buf);
	}
}

TEST_ANY(nothing_and_unaligned_parts_are_refused)
{
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, 0, 0));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, page_size, 0));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, dev.size, 0));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, 0, 1));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, 0, page_size - 1));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, 0, page_size + 1));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, 1, page_size));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, page_size / 2, page_size));
}

TEST_ANY(parts_beyond_the_end_are_refused)
{
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, 0, dev.size + page_size));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, page_size, dev.size));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, dev.size, page_size));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, dev.size - page_size, 2 * page_size));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, 1ULL << 40, page_size));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, 0, 1ULL << 32));	/* 0 in an int */
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, 1ULL << 44, page_size));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, 1ULL << 63, 1ULL << 63));
}

TEST_ANY(parts_wrapping_around_are_refused)
{
	const uint64_t p = page_size;

	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, -p, p));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, -p, 2 * p));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, p, -p));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, 2 * p, -p));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, dev.size, -p));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, -dev.size, dev.size + p));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, 0, -p));
}

TEST_ANY(unknown_flags_are_refused)
{
	for (unsigned int bit = 1; bit < 8; bit++) {
		EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 1 << bit, 0, page_size));
		EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 1 << bit | 1, 0, page_size));
	}
}

TEST_PAGED(close_on_exec_is_as_asked)
{
	int buf = dmabuf_try(dev.fd, 0, 0, page_size);

	ASSERT_OK(buf);
	EXPECT_EQ(0, fcntl(buf, F_GETFD));
	buf = dmabuf_try(dev.fd, KVMFR_DMABUF_FLAG_CLOEXEC, 0, page_size);
	ASSERT_OK(buf);
	EXPECT_EQ(FD_CLOEXEC, fcntl(buf, F_GETFD));
}

TEST(memory_without_struct_pages_gives_no_dmabuf)
{
	struct kvmfr_dev pfn;
	int fd, mark;

	load_kvmfr("static_size_mb=%u", default_mb());
	if (!dev_find(&pfn, "pfn"))
		SKIP("this machine has no IVSHMEM device too small or too high for struct pages");
	fd = dev_open(&pfn, O_RDWR);
	EXPECT_ERRNO(EOPNOTSUPP, dmabuf_try(fd, 0, 0, page_size));
	EXPECT_ERRNO(EOPNOTSUPP, dmabuf_try(fd, KVMFR_DMABUF_FLAG_CLOEXEC, 0, pfn.size));
	EXPECT_EQ(0, pfn.huge_bytes);

	/* Why is in the log, once. */
	mark = log_mark();
	ASSERT_EQ(0, pci_driver("unbind", pfn.slot));
	ASSERT_EQ(0, pci_driver("bind", pfn.slot));
	ASSERT_TRUE(dev_wait(&pfn, pfn.slot));
	EXPECT_EQ(1, log_count(mark, "no struct pages"));
	ktap_note("%s", log_last);
	EXPECT_TRUE(strstr(log_last, pfn.slot));
}

TEST_PAGED(any_number_of_dmabufs_of_the_same_memory)
{
	enum { N = 900 };
	const struct rlimit many = { .rlim_cur = N + 50, .rlim_max = N + 50 };
	const size_t size = dev.size / 2;
	static int buf[N];

	ASSERT_OK(setrlimit(RLIMIT_NOFILE, &many));
	stamp(map(dev.fd, 0, dev.size, RW), 0, dev.size);
	for (int i = 0; i < N; i++)
		buf[i] = dmabuf(dev.fd, i % 7 * page_size, size);
	for (int i = 0; i < N; i += 13) {
		char *p = map(buf[i], 0, size, PROT_READ);
		const size_t last = size - page_size;

		EXPECT_EQ(stamp_of(i % 7 * page_size), word(p));
		EXPECT_EQ(stamp_of(i % 7 * page_size + last), word(p + last));
		munmap(p, size);
	}
}

TEST_PAGED(full_descriptor_table_leaks_nothing)
{
	long refs = module_refs("kvmfr");
	struct rlimit limit;
	int next = dup(dev.fd);

	close(next);
	ASSERT_OK(getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = next;
	ASSERT_OK(setrlimit(RLIMIT_NOFILE, &limit));
	for (int i = 0; i < 100; i++)
		EXPECT_ERRNO(EMFILE, dmabuf_try(dev.fd, 0, 0, dev.size));
	limit.rlim_cur = limit.rlim_max;
	ASSERT_OK(setrlimit(RLIMIT_NOFILE, &limit));
	EXPECT_EQ(refs, module_refs("kvmfr"));
	close(dmabuf(dev.fd, 0, dev.size));
	EXPECT_EQ(refs, module_refs("kvmfr"));
	close(dev.fd);
	EXPECT_EQ(0, module_refs("kvmfr"));
	EXPECT_EQ(0, module_unload("kvmfr"));
}

/* --- what it can be mapped as --- */

TEST_PAGED(mapping_past_its_end_is_refused)
{
	int buf = dmabuf(dev.fd, 2 * page_size, 4 * page_size);
	char *p;

	EXPECT_ERRNO(EINVAL, mmap(NULL, 5 * page_size, RW, MAP_SHARED, buf, 0));
	EXPECT_ERRNO(EINVAL, mmap(NULL, 4 * page_size, RW, MAP_SHARED, buf, page_size));
	EXPECT_ERRNO(EINVAL, mmap(NULL, page_size, RW, MAP_SHARED, buf, 4 * page_size));
	EXPECT_ERRNO(EINVAL, mmap(NULL, page_size, RW, MAP_SHARED, buf, 1ULL << 62));
	EXPECT_EQ(-1, (long)mmap(NULL, page_size, RW, MAP_SHARED, buf, -2 * (off_t)page_size));
	stamp(map(dev.fd, 0, dev.size, RW), 0, dev.size);
	p = map(buf, 3 * page_size, page_size, PROT_READ);
	EXPECT_EQ(stamp_of(5 * page_size), word(p));
}

TEST_PAGED(private_mapping_of_it_is_refused)
{
	int buf = dmabuf(dev.fd, 0, 4 * page_size);

	EXPECT_ERRNO(EINVAL, mmap(NULL, page_size, RW, MAP_PRIVATE, buf, 0));
	EXPECT_ERRNO(EINVAL, mmap(NULL, page_size, PROT_READ, MAP_PRIVATE, buf, 0));
}

TEST_PAGED(mapping_of_it_does_not_grow)
{
	char *p = map(dmabuf(dev.fd, page_size, 4 * page_size), 0, page_size, RW);

	EXPECT_ERRNO(EFAULT, mremap(p, page_size, 2 * page_size, MREMAP_MAYMOVE));
	EXPECT_ERRNO(EFAULT, mremap(p, 0, page_size, MREMAP_MAYMOVE));
}

/*
 * A DMA-BUF gives access to its part of the device and to no other. remap_file_pages() maps a
 * mapping's file again at a page that the caller chooses.
 */
TEST_PAGED(no_way_leads_out_of_the_part)
{
	const size_t first = 4, n = 4;
	int buf = dmabuf(dev.fd, first * page_size, n * page_size);

	stamp(map(dev.fd, 0, dev.size, RW), 0, dev.size);
	for (size_t page = 0; page < 3 * n; page++) {
		char *p = map(buf, 0, page_size, RW);
		size_t off;

		if (!syscall(SYS_remap_file_pages, p, page_size, 0, page, 0)) {
			off = place_of(word(p)) / page_size;
			EXPECT_LE(first, off);
			EXPECT_LE(off, first + n - 1);
		}
		munmap(p, page_size);
	}
}

TEST_PAGED(dropped_pages_of_it_keep_their_contents)
{
	uint64_t offset = 3 * page_size, size = dev.size - 5 * page_size;
	char *p = map_at(dmabuf(dev.fd, offset, size), 0, size, RW, offset);

	stamp(p, offset, size);
	ASSERT_OK(madvise(p, size, MADV_DONTNEED));
	EXPECT_EQ(-1, unstamped(p, offset, size));
	EXPECT_EQ(-1, unstamped(map(dev.fd, offset, size, PROT_READ), offset, size));
}

TEST_PAGED(mapping_of_it_moves_splits_and_is_inherited)
{
	uint64_t offset = 3 * page_size, size = 9 * page_size;
	char *p = map(dmabuf(dev.fd, offset, size), 0, size, RW);
	char *q;

	stamp(p, offset, size);
	ASSERT_OK(munmap(p + 4 * page_size, page_size));
	EXPECT_EQ(-1, unstamped(p, offset, 4 * page_size));
	EXPECT_EQ(-1, unstamped(p + 5 * page_size, offset + 5 * page_size, 4 * page_size));
	/* of a BAR it is mapped by page frame numbers, which can't be dropped */
	if (madvise(p + 5 * page_size, 4 * page_size, MADV_DONTNEED))
		EXPECT_TRUE(errno == EINVAL && !strcmp(dev.type, "pci") && kernel_is(6, 13));
	q = move(p + 5 * page_size, 4 * page_size, 3 * page_size);
	IN_CHILD(EXPECT_EQ(-1, unstamped(q, offset + 5 * page_size, 4 * page_size));
		 set_word(q, 0xc41d));
	EXPECT_EQ(0xc41d, word(q));
}

/* --- from a descriptor that cannot do everything --- */

/*
 * There are no read-only DMA-BUFs, since an importer needs no permission to write through a vmap.
 */
TEST_PAGED(descriptor_that_is_not_read_write_gives_no_dmabuf)
{
	EXPECT_ERRNO(EACCES, dmabuf_try(dev_open(&dev, O_RDONLY), 0, 0, page_size));
	EXPECT_ERRNO(EACCES, dmabuf_try(dev_open(&dev, O_RDONLY), 1, 0, dev.size));
	EXPECT_ERRNO(EACCES, dmabuf_try(dev_open(&dev, O_WRONLY), 0, 0, page_size));
	EXPECT_EQ(O_RDWR, fcntl(dmabuf(dev.fd, 0, page_size), F_GETFL) & O_ACCMODE);
}

/* --- how long it lives, and where it goes --- */

TEST_PAGED(dmabuf_outlives_the_descriptor_it_was_made_from)
{
	int buf = dmabuf(dev.fd, page_size, 4 * page_size);
	char *p;

	close(dev.fd);
	p = map(buf, 0, 4 * page_size, RW);
	stamp(p, page_size, 4 * page_size);
	EXPECT_ERRNO(EWOULDBLOCK, syscall(SYS_delete_module, "kvmfr", O_NONBLOCK));
	EXPECT_EQ(-1, unstamped(p, page_size, 4 * page_size));
}

TEST_PAGED(mapping_outlives_the_dmabuf_descriptor)
{
	int buf = dmabuf(dev.fd, page_size, 4 * page_size);
	char *p = map(buf, 0, 4 * page_size, RW);

	close(buf);
	close(dev.fd);
	stamp(p, page_size, 4 * page_size);
	EXPECT_ERRNO(EWOULDBLOCK, syscall(SYS_delete_module, "kvmfr", O_NONBLOCK));
	EXPECT_EQ(-1, unstamped(p, page_size, 4 * page_size));
	munmap(p, 4 * page_size);
	EXPECT_EQ(0, module_unload("kvmfr"));
}

TEST_PAGED(duplicate_is_the_same_dmabuf)
{
	int buf = dmabuf(dev.fd, page_size, 2 * page_size);
	int copy = dup(buf);

	ASSERT_OK(copy);
	close(buf);
	stamp(map(dev.fd, 0, dev.size, RW), 0, dev.size);
	EXPECT_EQ(-1, unstamped(map(copy, 0, 2 * page_size, PROT_READ), page_size, 2 * page_size));
}

static void send_fd(int sock, int fd)
{
	union { struct cmsghdr head; char space[CMSG_SPACE(sizeof(int))]; } control;
	struct iovec iov = { .iov_base = "x", .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};

	memset(&control, 0, sizeof(control));
	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	control.head.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	ASSERT_EQ(1, sendmsg(sock, &msg, 0));
}

static int receive_fd(int sock)
{
	union { struct cmsghdr head; char space[CMSG_SPACE(sizeof(int))]; } control;
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};
	int fd = -1;

	ASSERT_EQ(1, recvmsg(sock, &msg, 0));
	ASSERT_EQ(CMSG_LEN(sizeof(int)), control.head.cmsg_len);
	memcpy(&fd, CMSG_DATA(&control.head), sizeof(fd));
	return fd;
}

/* Like the Looking Glass client and a compositor: the receiver has nothing but the DMA-BUF. */
TEST_PAGED(dmabuf_can_be_sent_to_a_process_that_has_no_access_to_the_device)
{
	char *p = map(dev.fd, 0, dev.size, RW);
	int socks[2], buf;
	pid_t pid;

	stamp(p, 0, dev.size);
	ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, socks));
	pid = fork();
	if (!pid) {
		char *q;

		munmap(p, dev.size);
		close(dev.fd);
		ASSERT_OK(setresuid(65534, 65534, 65534));
		buf = receive_fd(socks[1]);
		q = map(buf, 0, 4 * page_size, RW);
		EXPECT_EQ(-1, unstamped(q, 2 * page_size, 4 * page_size));
		set_word(q, 0x5e47);
		_exit(ktap_failed ? KTAP_FAIL : KTAP_PASS);
	}
	buf = dmabuf(dev.fd, 2 * page_size, 4 * page_size);
	send_fd(socks[0], buf);
	close(buf);
	ASSERT_EQ(KTAP_PASS, join(pid));
	EXPECT_EQ(0x5e47, word(p + 2 * page_size));
}

TEST_PAGED(cpu_access_is_bracketed)
{
	int buf = dmabuf(dev.fd, 0, 4 * page_size);
	const __u64 both = DMA_BUF_SYNC_RW;
	struct dma_buf_sync sync;

	for (__u64 how = DMA_BUF_SYNC_READ; how <= both; how++) {
		sync.flags = DMA_BUF_SYNC_START | how;
		EXPECT_EQ(0, ioctl(buf, DMA_BUF_IOCTL_SYNC, &sync));
		sync.flags = DMA_BUF_SYNC_END | how;
		EXPECT_EQ(0, ioctl(buf, DMA_BUF_IOCTL_SYNC, &sync));
	}
	sync.flags = DMA_BUF_SYNC_START;
	EXPECT_ERRNO(EINVAL, ioctl(buf, DMA_BUF_IOCTL_SYNC, &sync));
	sync.flags = ~0ULL;
	EXPECT_ERRNO(EINVAL, ioctl(buf, DMA_BUF_IOCTL_SYNC, &sync));
}

/* --- huge pages --- */

TEST_PAGED(mapping_of_a_dmabuf_has_huge_pages_where_the_address_fits)
{
	const uint64_t offsets[] = { 0, 3 * page_size, pmd_size - page_size };

	if (dev.slot[0] && !kernel_is(5, 17))
		SKIP("before 5.17 the memory of an IVSHMEM device can't be huge pages");
	stamp(map(dev.fd, 0, dev.size, RW), 0, dev.size);
	for (unsigned int i = 0; i < 3; i++) {
		uint64_t offset = offsets[i], size = dev.size - offset;
		char *p = map_at(dmabuf(dev.fd, offset, size), 0, size, RW, offset);
		size_t head = offset ? pmd_size - offset : 0;
		unsigned long before = faults();

		EXPECT_EQ(-1, unstamped(p, offset, size));
		EXPECT_LE(faults() - before, head / page_size + (size - head) / pmd_size);
		munmap(p, size);
	}
}

TEST_UNLOADS()
