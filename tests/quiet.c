// SPDX-License-Identifier: GPL-2.0
/*
 * Nothing that an ordinary user can repeat writes to the kernel log, whether it succeeds or is
 * refused.
 */
#include <sys/resource.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)
#define ROUNDS 200

static void everything_that_works(const char *path)
{
	struct dma_buf_sync sync = { .flags = DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW };
	int fd = open(path, O_RDWR);
	int ro = open(path, O_RDONLY);
	char *p;
	int buf;

	ASSERT_OK(fd);
	ASSERT_OK(ro);
	lseek(fd, 0, SEEK_END);
	ioctl(fd, KVMFR_DMABUF_GETSIZE);
	p = map(fd, 0, dev.size, RW);
	probe_write(p);
	munmap(p, dev.size);
	p = map(ro, page_size, page_size, PROT_READ);
	probe_read(p);
	munmap(p, page_size);
	if (dev.paged) {
		buf = dmabuf(fd, page_size, 2 * page_size);
		p = map(buf, 0, 2 * page_size, RW);
		ioctl(buf, DMA_BUF_IOCTL_SYNC, &sync);
		probe_write(p);
		munmap(p, 2 * page_size);
		close(buf);
	}
	close(ro);
	close(fd);
}

static void everything_that_is_refused(const char *path)
{
	int fd = open(path, O_RDWR), ro = open(path, O_RDONLY), wo = open(path, O_WRONLY);
	struct rlimit limit;
	char byte;
	char *p;
	int full;

	mmap(NULL, page_size, RW, MAP_PRIVATE, fd, 0);
	mmap(NULL, dev.size + page_size, RW, MAP_SHARED, fd, 0);
	mmap(NULL, page_size, RW, MAP_SHARED, fd, dev.size);
	mmap(NULL, page_size, RW, MAP_SHARED, fd, 1ULL << 63);
	mmap(NULL, page_size, RW, MAP_SHARED, ro, 0);
	mmap(NULL, page_size, PROT_READ, MAP_SHARED, wo, 0);
	p = map(fd, dev.size - page_size, page_size, RW);
	EXPECT_ERRNO(EFAULT, mremap(p, page_size, 2 * page_size, MREMAP_MAYMOVE));
	madvise(p, page_size, MADV_DONTNEED);
	munmap(p, page_size);
	EXPECT_ERRNO(EINVAL, dmabuf_try(fd, 0, 0, 0));
	EXPECT_ERRNO(EINVAL, dmabuf_try(fd, 0xfe, 0, page_size));
	EXPECT_ERRNO(EINVAL, dmabuf_try(fd, 0, 1, 1));
	EXPECT_ERRNO(EINVAL, dmabuf_try(fd, 0, dev.size, page_size));
	EXPECT_ERRNO(EACCES, dmabuf_try(ro, 0, 0, page_size));
	EXPECT_ERRNO(EFAULT, ioctl(fd, KVMFR_DMABUF_CREATE, NULL));
	EXPECT_ERRNO(ENOTTY, ioctl(fd, _IO('u', 0x45), NULL));
	EXPECT_ERRNO(EINVAL, lseek(fd, -1, SEEK_SET));
	EXPECT_ERRNO(EFAULT, pread(fd, (void *)page_size, 1, 0));
	EXPECT_ERRNO(EBADF, write(ro, &byte, 1));
	EXPECT_ERRNO(EBADF, read(wo, &byte, 1));
	if (dev.paged) {
		getrlimit(RLIMIT_NOFILE, &limit);
		full = dup(fd);
		close(full);
		limit.rlim_cur = full;
		setrlimit(RLIMIT_NOFILE, &limit);
		EXPECT_ERRNO(EMFILE, dmabuf_try(fd, 0, 0, page_size));
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	} else {
		EXPECT_ERRNO(EOPNOTSUPP, dmabuf_try(fd, 0, 0, page_size));
	}
	close(fd);
	close(ro);
	close(wo);
}

static void repeat(void (*what)(const char *path))
{
	int mark = log_mark();
	char path[64];

	snprintf(path, sizeof(path), "/dev/%s", dev.name);
	ASSERT_OK(chmod(path, 0666));
	close(dev.fd);
	IN_CHILD(ASSERT_OK(setresuid(65534, 65534, 65534));
		 for (int i = 0; i < ROUNDS; i++)
			what(path));
	ASSERT_OK(chmod(path, 0600));
	EXPECT_EQ(0, log_count(mark, ""));
	if (ktap_failed)
		ktap_note("the last of them: %s", log_last);
}

TEST_ANY(users_who_do_it_right_are_not_logged)
{
	repeat(everything_that_works);
}

TEST_ANY(users_who_do_it_wrong_are_not_logged)
{
	repeat(everything_that_is_refused);
}

/* By a mapping that QEMU makes: it asks for no alignment on its own. */
TEST_PAGED(log_says_once_that_a_mapping_has_no_huge_pages)
{
	int mark;

	if (!dev.huge_bytes)
		SKIP("this device has no huge pages");
	close(dev.fd);
	load_kvmfr("static_size_mb=%u,1", default_mb());
	ASSERT_TRUE(dev_find(&dev, dev.slot[0] ? "pci" : "static"));
	dev.fd = dev_open(&dev, O_RDWR);
	mark = log_mark();
	map_at(dev.fd, 0, dev.size, RW, 0);
	map(dev.fd, 0, page_size, RW);		/* nor could this have one */
	EXPECT_EQ(0, log_count(mark, ""));
	for (int i = 0; i < 3; i++)
		map_at(dev.fd, 0, dev.size, RW, pmd_size - page_size);
	EXPECT_EQ(1, log_count(mark, "align="));
	EXPECT_TRUE(strstr(log_last, dev.name));
	ktap_note("%s", log_last);
}

TEST_ANY(loading_says_a_line_for_each_device)
{
	int mark = log_mark();

	close(dev.fd);
	load_kvmfr("static_size_mb=%u,1", default_mb());
	EXPECT_LE(1, log_count(mark, dev.name));
	EXPECT_LE(log_count(mark, ""), 0);
	ktap_note("%s", log_last);
}

TEST_UNLOADS()
