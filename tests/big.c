// SPDX-License-Identifier: GPL-2.0
/*
 * Sizes that don't fit in an int, and in 32 bits. Needs a machine with at least 5.5 GiB of memory.
 */
#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)
#define PART 65536

static void load_big(unsigned int mb)
{
	if (!dev_find(&dev, "static") || dev.size != (uint64_t)mb << 20) {
		if (module_loaded("kvmfr"))
			ASSERT_EQ(0, module_unload("kvmfr"));
		if (meminfo("MemAvailable") >> 20 < mb + 256)
			SKIP("needs %u MiB of free memory", mb + 256);
		load_kvmfr("static_size_mb=%u", mb);
		ASSERT_TRUE(dev_find(&dev, "static"));
	}
	dev.fd = dev_open(&dev, O_RDWR);
	ASSERT_OK(dev.fd);
	ASSERT_EQ((uint64_t)mb << 20, dev.size);
}

TEST(getsize_tells_the_largest_size_that_fits_an_int)
{
	load_big(2047);
	EXPECT_EQ(2047 << 20, ioctl(dev.fd, KVMFR_DMABUF_GETSIZE));
	EXPECT_EQ(dev.size, lseek(dev.fd, 0, SEEK_END));
}

TEST(getsize_does_not_tell_two_gigabytes)
{
	load_big(2048);
	EXPECT_ERRNO(EOVERFLOW, ioctl(dev.fd, KVMFR_DMABUF_GETSIZE));
	EXPECT_EQ(2048LL << 20, lseek(dev.fd, 0, SEEK_END));
	EXPECT_EQ(page_size, lseek(dev.fd, page_size - (2048LL << 20), SEEK_CUR));
}

/* Everything else takes offsets and sizes of any number of bits. */
static const uint64_t places[] = {
	0, 1ULL << 20, (1ULL << 31) - PART, 1ULL << 31, (1ULL << 32) - PART, 1ULL << 32,
	(1ULL << 32) + (1 << 20),
};

TEST(nothing_is_cut_to_32_bits, .timeout = 300)
{
	uint64_t last;
	char *all;

	load_big(4608);
	EXPECT_ERRNO(EOVERFLOW, ioctl(dev.fd, KVMFR_DMABUF_GETSIZE));
	EXPECT_EQ(4608LL << 20, lseek(dev.fd, 0, SEEK_END));
	EXPECT_EQ(dev.size, dev.huge_bytes);
	all = map(dev.fd, 0, dev.size, RW);
	for (unsigned int i = 0; i < ARRAY_SIZE(places); i++)
		stamp(all + places[i], places[i], PART);
	stamp(all + dev.size - PART, dev.size - PART, PART);

	for (unsigned int i = 0; i < ARRAY_SIZE(places); i++) {
		int buf = dmabuf(dev.fd, places[i], PART);
		int imp = importer();
		uint64_t value = 0;

		all = map(dev.fd, places[i], PART, PROT_READ);
		EXPECT_EQ(-1, unstamped(all, places[i], PART));
		all = map(buf, 0, PART, PROT_READ);
		EXPECT_EQ(-1, unstamped(all, places[i], PART));
		ASSERT_EQ(0, import(imp, buf, 0));
		ASSERT_EQ(0, import_map(imp, KVMFR_IMPORTER_BIDIRECTIONAL, NULL));
		ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_SG, false, page_size, &value, 8));
		EXPECT_EQ(stamp_of(places[i] + page_size), value);
		ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_VMAP));
		ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_VMAP, false, page_size, &value, 8));
		EXPECT_EQ(stamp_of(places[i] + page_size), value);
		close(imp);
	}
	last = dev.size - PART;
	EXPECT_ERRNO(EINVAL, mmap(NULL, 2 * PART, RW, MAP_SHARED, dev.fd, last));
	EXPECT_ERRNO(EINVAL, dmabuf_try(dev.fd, 0, last, 2 * PART));
	EXPECT_EQ(-1, unstamped(map(dev.fd, last, PART, PROT_READ), last, PART));
}

TEST(dmabuf_of_all_of_it, .timeout = 300)
{
	struct kvmfr_importer_map table;
	uint64_t value = 0;
	int buf, imp;
	char *p;

	load_big(4608);
	buf = dmabuf(dev.fd, 0, dev.size);
	EXPECT_EQ(dev.size, lseek(buf, 0, SEEK_END));
	p = map(buf, 0, dev.size, RW);
	for (unsigned int i = 0; i < ARRAY_SIZE(places); i++)
		set_word(p + places[i], stamp_of(places[i]));
	imp = importer();
	ASSERT_EQ(0, import(imp, buf, UINT32_MAX));
	ASSERT_EQ(0, import_map(imp, KVMFR_IMPORTER_BIDIRECTIONAL, &table));
	ktap_note("%u segments, the largest of %u MiB", table.nents,
		  (unsigned int)(table.largest >> 20));
	EXPECT_EQ(dev.size, table.total);
	EXPECT_LE(table.orig_nents, dev.size / pmd_size);
	EXPECT_EQ(0, table.unmerged);
	for (unsigned int i = 0; i < ARRAY_SIZE(places); i++) {
		ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_SG, false, places[i], &value, 8));
		EXPECT_EQ(stamp_of(places[i]), value);
	}
	ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_SG, false, dev.size - 8, &value, 8));
	EXPECT_EQ(ERANGE, import_io(imp, KVMFR_IMPORTER_VIA_SG, false, dev.size, &value, 8));
}

TEST_UNLOADS()
