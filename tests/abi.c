// SPDX-License-Identifier: GPL-2.0
/*
 * The ABI that existing binaries were compiled against: numbers, layouts, answers. Built a second
 * time as a 32-bit program (abi32), for which the struct is shorter and its ioctl another number.
 */
#include <stddef.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)

/* Written down from the outside, not taken from kvmfr.h. */
#define OLD_GETSIZE	0x7544
#define OLD_CREATE_20	0x40147542	/* i386: a 64-bit number is aligned to 4 bytes */
#define OLD_CREATE_24	0x40187542	/* everybody else */

#if defined(__i386__)
#define OLD_CREATE	OLD_CREATE_20
#define OLD_OFFSET_AT	4
#else
#define OLD_CREATE	OLD_CREATE_24
#define OLD_OFFSET_AT	8
#endif

TEST(numbers_and_layout_are_the_old_ones)
{
	EXPECT_EQ(OLD_GETSIZE, KVMFR_DMABUF_GETSIZE);
	EXPECT_EQ(OLD_CREATE, (unsigned int)KVMFR_DMABUF_CREATE);
	EXPECT_EQ(OLD_OFFSET_AT + 16, sizeof(struct kvmfr_dmabuf_create));
	EXPECT_EQ(0, offsetof(struct kvmfr_dmabuf_create, flags));
	EXPECT_EQ(OLD_OFFSET_AT, offsetof(struct kvmfr_dmabuf_create, offset));
	EXPECT_EQ(OLD_OFFSET_AT + 8, offsetof(struct kvmfr_dmabuf_create, size));
	EXPECT_EQ(1, KVMFR_DMABUF_FLAG_CLOEXEC);
}

/* The struct by hand, as bytes, at an address of any alignment. */
static int create_by_hand(unsigned int number, unsigned int offset_at, uint8_t flags,
			  uint64_t offset, uint64_t size)
{
	uint8_t bytes[32];

	memset(bytes, 0xff, sizeof(bytes));
	bytes[1] = flags;
	memcpy(bytes + 1 + offset_at, &offset, 8);
	memcpy(bytes + 1 + offset_at + 8, &size, 8);
	return ioctl(dev.fd, number, bytes + 1);
}

TEST_PAGED(create_takes_the_old_struct)
{
	int buf = create_by_hand(OLD_CREATE, OLD_OFFSET_AT, 1, 3 * page_size, 2 * page_size);
	const uint64_t high = 1ULL << 32;
	char *p;

	ASSERT_OK(buf);
	EXPECT_EQ(FD_CLOEXEC, fcntl(buf, F_GETFD));
	stamp(map(dev.fd, 0, dev.size, RW), 0, dev.size);
	EXPECT_EQ(2 * page_size, lseek(buf, 0, SEEK_END));
	p = map(buf, 0, 2 * page_size, PROT_READ);
	EXPECT_EQ(-1, unstamped(p, 3 * page_size, 2 * page_size));
	/* all 64 bits count */
	EXPECT_ERRNO(EINVAL, create_by_hand(OLD_CREATE, OLD_OFFSET_AT, 0, high, page_size));
	EXPECT_ERRNO(EINVAL, create_by_hand(OLD_CREATE, OLD_OFFSET_AT, 0, 0, high + page_size));
}

/*
 * A 32-bit ARM program has the long struct: both are known to a 32-bit caller, the short one to
 * no other.
 */
TEST_PAGED(struct_of_the_other_layout)
{
#if defined(__i386__)
	int buf = create_by_hand(OLD_CREATE_24, 8, 0, page_size, 2 * page_size);

	ASSERT_OK(buf);
	EXPECT_EQ(2 * page_size, lseek(buf, 0, SEEK_END));
#else
	EXPECT_ERRNO(ENOTTY, create_by_hand(OLD_CREATE_20, 4, 0, page_size, 2 * page_size));
#endif
}

TEST_ANY(getsize_returns_the_size)
{
	EXPECT_EQ(dev.size, ioctl(dev.fd, KVMFR_DMABUF_GETSIZE));
	EXPECT_EQ(dev.size, ioctl(dev.fd, OLD_GETSIZE, 0));
	/* there is no argument to look at */
	EXPECT_EQ(dev.size, ioctl(dev.fd, OLD_GETSIZE, -1L));
	EXPECT_EQ(dev.size, ioctl(dev_open(&dev, O_RDONLY), OLD_GETSIZE, 0));
}

TEST_ANY(unknown_ioctls_are_refused)
{
	const unsigned int sizes[] = { 0, 1, 4, 8, 16, 20, 24, 32, 4096 };
	uint8_t bytes[4096], poison[4096];

	memset(bytes, 0xa5, sizeof(bytes));
	memset(poison, 0xa5, sizeof(poison));
	for (unsigned int nr = 0; nr < 256; nr++) {
		for (unsigned int dir = 0; dir < 4; dir++) {
			for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++) {
				unsigned int number = _IOC(dir, 'u', nr, sizes[i]);

				if (number == OLD_GETSIZE || number == OLD_CREATE ||
				    number == OLD_CREATE_24 ||
				    number == KVMFR_DOORBELL_INFO ||
				    number == KVMFR_DOORBELL_RING ||
				    number == KVMFR_DOORBELL_EVENTFD)
					continue;
				EXPECT_ERRNO(ENOTTY, ioctl(dev.fd, number, bytes));
			}
		}
	}
	EXPECT_ERRNO(ENOTTY, ioctl(dev.fd, 0, bytes));
	EXPECT_ERRNO(ENOTTY, ioctl(dev.fd, ~0u, bytes));
	EXPECT_ERRNO(ENOTTY, ioctl(dev.fd, DMA_BUF_IOCTL_SYNC, bytes));
	EXPECT_EQ(0, memcmp(bytes, poison, sizeof(bytes)));
}

TEST_ANY(bad_pointers_are_refused)
{
	char *edge = mmap(NULL, 2 * page_size, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kvmfr_dmabuf_create create = { .size = page_size };
	char *beyond = edge + page_size - sizeof(create) + 1;	/* by a byte */

	ASSERT_OK(edge);
	ASSERT_OK(munmap(edge + page_size, page_size));
	memcpy(beyond, &create, sizeof(create) - 1);
	EXPECT_ERRNO(EFAULT, ioctl(dev.fd, KVMFR_DMABUF_CREATE, NULL));
	EXPECT_ERRNO(EFAULT, ioctl(dev.fd, KVMFR_DMABUF_CREATE, 1L));
	EXPECT_ERRNO(EFAULT, ioctl(dev.fd, KVMFR_DMABUF_CREATE, edge + page_size));
	EXPECT_ERRNO(EFAULT, ioctl(dev.fd, KVMFR_DMABUF_CREATE, beyond));
	EXPECT_ERRNO(EFAULT, ioctl(dev.fd, KVMFR_DMABUF_CREATE, -(long)page_size));
	ASSERT_OK(mprotect(edge, page_size, PROT_NONE));
	EXPECT_ERRNO(EFAULT, ioctl(dev.fd, KVMFR_DMABUF_CREATE, edge));
}

/* The kernel copies the argument from a page of this very device that nobody has touched yet. */
TEST_ANY(argument_may_lie_in_the_device_itself)
{
	struct kvmfr_dmabuf_create *there = map(dev.fd, 0, page_size, RW);
	int buf;

	memset(there, 0, sizeof(*there));
	there->offset = page_size;
	there->size = 2 * page_size;
	munmap(there, page_size);
	there = map(dev.fd, 0, page_size, RW);
	if (!dev.paged) {
		EXPECT_ERRNO(EOPNOTSUPP, ioctl(dev.fd, KVMFR_DMABUF_CREATE, there));
		return;
	}
	buf = ioctl(dev.fd, KVMFR_DMABUF_CREATE, there);
	ASSERT_OK(buf);
	EXPECT_EQ(2 * page_size, lseek(buf, 0, SEEK_END));
	/* from a mapping of a DMA-BUF of the same device, too */
	buf = dmabuf(dev.fd, 0, page_size);
	EXPECT_NE(-1, ioctl(dev.fd, KVMFR_DMABUF_CREATE, map(buf, 0, page_size, RW)));
}

TEST_UNLOADS()
