// SPDX-License-Identifier: GPL-2.0
/*
 * Pages of the device pinned for the long term, as VFIO does with all of a guest's memory: by the
 * importer module, and by io_uring where the kernel lets it pin pages of a file.
 */
#include <linux/io_uring.h>
#include <sys/uio.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)

static void check_pinned(int imp, uint64_t offset, size_t length)
{
	char *copy = malloc(length);

	memset(copy, 0xaa, length);
	ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_PIN, false, 0, copy, length));
	EXPECT_EQ(-1, unstamped(copy, offset, length));
	free(copy);
}

TEST_PAGED(whole_device_can_be_pinned)
{
	char *p = map(dev.fd, 0, dev.size, RW);
	int imp = importer();
	uint64_t value = 0x414;

	stamp(p, 0, dev.size);
	ASSERT_EQ(0, import_pin(imp, p, dev.size));
	check_pinned(imp, 0, dev.size);
	ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_PIN, true, dev.size - 8, &value, 8));
	EXPECT_EQ(value, word(p + dev.size - 8));
	ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_UNPIN));
}

/*
 * A part, at an address out of step, not touched before. Of a BAR such a part is mapped by page
 * frame numbers where the struct pages are those of huge folios, from 6.13 on.
 */
TEST_PAGED(odd_part_at_an_odd_address_can_be_pinned)
{
	const uint64_t offset = pmd_size - 3 * page_size;
	const size_t length = pmd_size + 7 * page_size;
	char *p;
	int imp = importer();

	stamp(map(dev.fd, 0, dev.size, RW), 0, dev.size);
	p = map_at(dev.fd, offset, length, RW, 11 * page_size);
	if (!strcmp(dev.type, "pci") && dev.huge_bytes && kernel_is(6, 13)) {
		EXPECT_EQ(EFAULT, import_pin(imp, p, length));
		return;
	}
	ASSERT_EQ(0, import_pin(imp, p, length));
	check_pinned(imp, offset, length);
}

TEST_PAGED(mapping_of_a_dmabuf_can_be_pinned)
{
	const uint64_t offset = 5 * page_size, length = 2 * pmd_size;
	char *p = map_at(dmabuf(dev.fd, offset, length), 0, length, RW, offset);
	int imp = importer();

	stamp(p, offset, length);
	ASSERT_EQ(0, import_pin(imp, p, length));
	check_pinned(imp, offset, length);
}

/* The memory never moves: pinned pages stay the device's, whatever happens to the mapping. */
TEST_PAGED(pin_outlives_the_mapping)
{
	char *p = map(dev.fd, 0, 2 * pmd_size, RW);
	uint64_t value = 0x600d;
	int imp = importer();

	stamp(p, 0, 2 * pmd_size);
	ASSERT_EQ(0, import_pin(imp, p, 2 * pmd_size));
	ASSERT_OK(madvise(p, 2 * pmd_size, MADV_DONTNEED));
	EXPECT_EQ(-1, unstamped(p, 0, 2 * pmd_size));
	ASSERT_OK(munmap(p, 2 * pmd_size));
	check_pinned(imp, 0, 2 * pmd_size);
	ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_PIN, true, pmd_size + page_size, &value, 8));
	EXPECT_EQ(value, word((char *)map(dev.fd, pmd_size, 2 * page_size, PROT_READ) + page_size));
}

TEST_PAGED(pinned_memory_is_shared_with_children)
{
	char *p = map(dev.fd, 0, pmd_size, RW);
	uint64_t value = 0;
	int imp = importer();

	ASSERT_EQ(0, import_pin(imp, p, pmd_size));
	IN_CHILD(stamp(p, 0, pmd_size));
	EXPECT_EQ(-1, unstamped(p, 0, pmd_size));
	check_pinned(imp, 0, pmd_size);
	set_word(p, 0x1234);
	ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_PIN, false, 0, &value, 8));
	EXPECT_EQ(0x1234, value);
}

TEST_PAGED(read_only_mapping_is_not_pinned_for_writing)
{
	char *p = map(dev_open(&dev, O_RDONLY), 0, pmd_size, PROT_READ);

	EXPECT_EQ(EFAULT, import_pin(importer(), p, pmd_size));
}

TEST_ANY(memory_without_struct_pages_is_not_pinned)
{
	char *p = map(dev.fd, 0, dev.size, RW);

	if (dev.paged) {
		EXPECT_EQ(0, import_pin(importer(), p, dev.size));
		return;
	}
	stamp(p, 0, dev.size);
	EXPECT_EQ(EFAULT, import_pin(importer(), p, dev.size));
	EXPECT_EQ(-1, unstamped(p, 0, dev.size));
}

/* Then nothing holds the module, so the pages must outlive it by their refcounts. */
TEST_STATIC(pinned_pages_outlive_the_module)
{
	char *p = map(dev.fd, 0, dev.size, RW);
	int imp = importer();

	stamp(p, 0, dev.size);
	ASSERT_EQ(0, import_pin(imp, p + page_size, 2 * pmd_size));
	munmap(p, dev.size);
	close(dev.fd);
	load_kvmfr("static_size_mb=%u", default_mb());
	ASSERT_TRUE(dev_find(&dev, "static"));
	dev.fd = dev_open(&dev, O_RDWR);
	memset(map(dev.fd, 0, dev.size, RW), 0xff, dev.size);
	check_pinned(imp, page_size, 2 * pmd_size);
}

/* --- io_uring --- */

struct uring {
	int fd;
	struct io_uring_params params;
	char *ring;
	struct io_uring_sqe *sqes;
};

static void uring_setup(struct uring *ring)
{
	memset(ring, 0, sizeof(*ring));
	ring->fd = syscall(SYS_io_uring_setup, 4, &ring->params);
	if (ring->fd < 0 && (errno == ENOSYS || errno == EPERM))
		SKIP("this kernel has no io_uring");
	ASSERT_OK(ring->fd);
	ASSERT_TRUE(ring->params.features & IORING_FEAT_SINGLE_MMAP);
	ring->ring = map(ring->fd, IORING_OFF_SQ_RING, ring->params.cq_off.cqes +
			 ring->params.cq_entries * sizeof(struct io_uring_cqe), RW);
	ring->sqes = map(ring->fd, IORING_OFF_SQES, 4 * sizeof(struct io_uring_sqe), RW);
}

/* One operation on fixed buffer 0; its result. */
static int uring_do(struct uring *ring, int op, int fd, void *address, size_t length)
{
	const struct io_sqring_offsets *sq = &ring->params.sq_off;
	const struct io_cqring_offsets *cq = &ring->params.cq_off;
	unsigned int *tail = (unsigned int *)(ring->ring + sq->tail);
	unsigned int *head = (unsigned int *)(ring->ring + cq->head);
	unsigned int slot = *tail & *(unsigned int *)(ring->ring + sq->ring_mask);
	struct io_uring_cqe *cqe = (struct io_uring_cqe *)(ring->ring + cq->cqes) +
				   (*head & *(unsigned int *)(ring->ring + cq->ring_mask));
	int result;

	ring->sqes[slot] = (struct io_uring_sqe) {
		.opcode = op, .fd = fd, .addr = (uintptr_t)address, .len = length,
	};
	((unsigned int *)(ring->ring + sq->array))[slot] = slot;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	ASSERT_EQ(1, syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0));
	result = cqe->res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return result;
}

TEST_PAGED(io_uring_takes_the_mapping_as_a_fixed_buffer)
{
	const uint64_t offset = pmd_size - 3 * page_size;
	const size_t length = pmd_size + 7 * page_size;
	char *p = map(dev.fd, offset, length, RW);
	struct iovec buffer = { .iov_base = p, .iov_len = length };
	char file[] = "/tmp/kvmfr-XXXXXX";
	char *copy = malloc(length);
	struct uring ring;
	char *into;
	int fd = mkstemp(file);

	ASSERT_OK(fd);
	unlink(file);
	stamp(p, offset, length);
	uring_setup(&ring);
	if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &buffer, 1)) {
		ASSERT_EQ(EOPNOTSUPP, errno);
		ASSERT_TRUE(!kernel_is(6, 12));
		SKIP("this kernel's io_uring takes no mapping of a file as a fixed buffer");
	}
	munmap(p + page_size, page_size);	/* stays pinned */

	ASSERT_EQ(4 * page_size, uring_do(&ring, IORING_OP_WRITE_FIXED, fd, p, 4 * page_size));
	memset(copy, 0xaa, length);
	ASSERT_EQ(4 * page_size, pread(fd, copy, length, 0));
	EXPECT_EQ(-1, unstamped(copy, offset, 4 * page_size));

	memset(copy, 0x5c, length);
	ASSERT_EQ(length, pwrite(fd, copy, length, 0));
	into = p + pmd_size;
	ASSERT_EQ(2 * page_size, uring_do(&ring, IORING_OP_READ_FIXED, fd, into, 2 * page_size));
	for (size_t i = 0; i < 2 * page_size; i += 8)
		EXPECT_EQ(0x5c5c5c5c5c5c5c5c, word(into + i));
	EXPECT_EQ(stamp_of(offset + pmd_size - page_size), word(into - page_size));
	EXPECT_EQ(stamp_of(offset + pmd_size + 2 * page_size), word(into + 2 * page_size));
}

TEST_UNLOADS()
