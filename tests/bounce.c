// SPDX-License-Identifier: GPL-2.0
/*
 * A machine whose devices are served by bounce buffers (swiotlb=force). Syncing one copies all of
 * it over what the other machine has written to the memory since, so such an import is refused.
 */
#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)

TEST_PAGED(import_by_a_bounce_buffer_is_refused_and_overwrites_nothing)
{
	const uint32_t directions[] = {
		KVMFR_IMPORTER_BIDIRECTIONAL, KVMFR_IMPORTER_TO_DEVICE, KVMFR_IMPORTER_FROM_DEVICE,
	};
	volatile char *p = map(dev.fd, 0, dev.size, RW);
	int buf = dmabuf(dev.fd, page_size, 4 * page_size);
	struct dma_buf_sync sync = { .flags = DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ };

	for (unsigned int i = 0; i < ARRAY_SIZE(directions); i++) {
		int imp = importer();

		set_word(p + page_size, 0x1d);
		ASSERT_EQ(0, import(imp, buf, 0));
		EXPECT_EQ(EOPNOTSUPP, import_map(imp, directions[i], NULL));
		set_word(p + page_size, 0xbeef);	/* as a guest would */
		ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_BEGIN_CPU, KVMFR_IMPORTER_FROM_DEVICE));
		EXPECT_EQ(0xbeef, word(p + page_size));
		set_word(p + page_size, 0xcafe);
		ASSERT_OK(ioctl(buf, DMA_BUF_IOCTL_SYNC, &sync));
		EXPECT_EQ(0xcafe, word(p + page_size));
		set_word(p + page_size, 0xd00d);
		close(imp);	/* unmaps what is mapped */
		EXPECT_EQ(0xd00d, word(p + page_size));
	}
}

/* It needs no DMA. */
TEST_PAGED(vmap_works_without_bouncing)
{
	char *p = map(dev.fd, 0, dev.size, RW);
	int imp = importer();
	uint64_t value = 0;

	stamp(p, 0, dev.size);
	ASSERT_EQ(0, import(imp, dmabuf(dev.fd, 0, dev.size), 0));
	ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_VMAP));
	ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_VMAP, false, 5 * page_size, &value, 8));
	EXPECT_EQ(stamp_of(5 * page_size), value);
}

TEST_UNLOADS()
