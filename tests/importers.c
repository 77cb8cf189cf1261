// SPDX-License-Identifier: GPL-2.0
/*
 * DMA-BUFs and importers in the kernel: our own (importer/), which does what it is told and counts
 * what it gets; vgem, which imports like a GPU driver; vivid, which writes pictures through a vmap.
 */
#include <dirent.h>
#include <linux/videodev2.h>
#include <poll.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)

/* --- scatter lists --- */

static void check_through_sg(int imp, uint64_t offset, uint64_t size)
{
	static char *copy;

	if (!copy)
		copy = malloc(dev.size);
	memset(copy, 0xaa, size);
	ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_SG, false, 0, copy, size));
	EXPECT_EQ(-1, unstamped(copy, offset, size));
	/* the table ends where the buffer ends */
	EXPECT_EQ(ERANGE, import_io(imp, KVMFR_IMPORTER_VIA_SG, false, size, copy, 1));
}

TEST_PAGED(scatter_list_is_the_buffer_within_the_segment_limit)
{
	const uint32_t limits[] = {
		0, page_size, 3 * page_size, page_size + page_size / 2, 1 << 20,
		pmd_size + page_size, UINT32_MAX,
	};
	const uint64_t parts[][2] = {
		{ 0, dev.size }, { 0, page_size }, { dev.size - page_size, page_size },
		{ pmd_size - 3 * page_size, 2 * pmd_size },
		{ 5 * page_size, pmd_size + 7 * page_size },
	};
	char *all = map(dev.fd, 0, dev.size, RW);

	stamp(all, 0, dev.size);
	for (unsigned int i = 0; i < ARRAY_SIZE(parts); i++) {
		for (unsigned int j = 0; j < ARRAY_SIZE(limits); j++) {
			uint64_t offset = parts[i][0], size = parts[i][1], value = 0xd3a + j;
			uint32_t limit = limits[j] ? limits[j] : 65536;
			struct kvmfr_importer_map table;
			int imp = importer();

			ASSERT_EQ(0, import(imp, dmabuf(dev.fd, offset, size), limits[j]));
			ASSERT_EQ(0, import_map(imp, KVMFR_IMPORTER_BIDIRECTIONAL, &table));
			EXPECT_EQ(size, table.total);
			EXPECT_LE(table.largest, limit);
			EXPECT_EQ(0, table.largest % page_size);
			EXPECT_LE(table.nents, table.orig_nents);
			if (limit % page_size == 0)
				EXPECT_EQ(0, table.unmerged);
			check_through_sg(imp, offset, size);
			ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_SG, true, size - 8,
					       &value, 8));
			EXPECT_EQ(value, word(all + offset + size - 8));
			close(imp);
		}
	}
}

TEST_PAGED(no_segment_crosses_the_importers_boundary)
{
	const uint64_t boundaries[] = { page_size, 16 * page_size, 1 << 20, 2 * pmd_size };
	const uint64_t offset = 3 * page_size, size = dev.size - offset;

	stamp(map(dev.fd, 0, dev.size, RW), 0, dev.size);
	for (unsigned int i = 0; i < ARRAY_SIZE(boundaries); i++) {
		struct kvmfr_importer_attach attach = {
			.fd = dmabuf(dev.fd, offset, size), .max_segment = UINT32_MAX,
			.boundary = boundaries[i] - 1,
		};
		struct kvmfr_importer_map table;
		int imp = importer();

		ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_ATTACH, &attach));
		ASSERT_EQ(0, import_map(imp, KVMFR_IMPORTER_BIDIRECTIONAL, &table));
		EXPECT_EQ(0, table.crossing);
		EXPECT_EQ(0, table.unmerged);
		EXPECT_EQ(size, table.total);
		check_through_sg(imp, offset, size);
		close(imp);
	}
}

TEST_PAGED(segment_limit_below_a_page_is_refused)
{
	int imp = importer();

	ASSERT_EQ(0, import(imp, dmabuf(dev.fd, 0, dev.size), page_size / 2));
	EXPECT_EQ(EINVAL, import_map(imp, KVMFR_IMPORTER_BIDIRECTIONAL, NULL));
}

TEST_PAGED(whole_device_is_few_segments)
{
	struct kvmfr_importer_map table;
	int imp = importer();

	ASSERT_EQ(0, import(imp, dmabuf(dev.fd, 0, dev.size), UINT32_MAX));
	ASSERT_EQ(0, import_map(imp, KVMFR_IMPORTER_BIDIRECTIONAL, &table));
	ktap_note("%u segments for %" PRIu64 " MiB", table.nents, dev.size >> 20);
	EXPECT_LE(table.orig_nents, dev.slot[0] ? 1 : dev.size / pmd_size);
	EXPECT_LE(table.nents, table.orig_nents);
}

TEST_PAGED(each_direction_can_be_mapped)
{
	const uint32_t directions[] = {
		KVMFR_IMPORTER_BIDIRECTIONAL, KVMFR_IMPORTER_TO_DEVICE, KVMFR_IMPORTER_FROM_DEVICE,
	};

	for (int i = 0; i < 3; i++) {
		int imp = importer();

		ASSERT_EQ(0, import(imp, dmabuf(dev.fd, 0, dev.size), 0));
		EXPECT_EQ(0, import_map(imp, directions[i], NULL));
		EXPECT_EQ(0, ioctl(imp, KVMFR_IMPORTER_UNMAP));
		EXPECT_EQ(0, import_map(imp, directions[i], NULL));	/* and again */
	}
}

TEST_PAGED(importers_with_different_limits_share_a_dmabuf)
{
	enum { N = 5 };
	long refs = module_refs("kvmfr");
	int buf = dmabuf(dev.fd, page_size, dev.size - page_size);
	struct kvmfr_importer_map table;
	int imp[N];

	stamp(map(dev.fd, 0, dev.size, RW), 0, dev.size);
	for (int i = 0; i < N; i++) {
		imp[i] = importer();
		ASSERT_EQ(0, import(imp[i], buf, page_size << 2 * i));
	}
	for (int i = 0; i < N; i++) {
		ASSERT_EQ(0, import_map(imp[i], KVMFR_IMPORTER_BIDIRECTIONAL, &table));
		EXPECT_EQ(dev.size - page_size, table.total);
		EXPECT_LE(table.largest, page_size << 2 * i);
	}
	close(buf);
	close(dev.fd);
	for (int i = 0; i < N; i++) {
		check_through_sg(imp[i], page_size, dev.size - page_size);
		close(imp[i]);
	}
	EXPECT_EQ(refs, module_refs("kvmfr"));	/* what is left is our own mapping */
}

TEST_PAGED(import_outlives_every_descriptor)
{
	int buf = dmabuf(dev.fd, 3 * page_size, 8 * page_size);
	char *p = map(dev.fd, 3 * page_size, 8 * page_size, RW);
	int imp = importer();

	stamp(p, 3 * page_size, 8 * page_size);
	ASSERT_EQ(0, import(imp, buf, 0));
	munmap(p, 8 * page_size);
	close(dev.fd);
	close(buf);
	ASSERT_EQ(0, import_map(imp, KVMFR_IMPORTER_BIDIRECTIONAL, NULL));
	check_through_sg(imp, 3 * page_size, 8 * page_size);
	EXPECT_EQ(EWOULDBLOCK, module_unload("kvmfr"));
	close(imp);
	EXPECT_EQ(0, module_unload("kvmfr"));
}

TEST_PAGED(cpu_access_reaches_importers_and_processes)
{
	int buf = dmabuf(dev.fd, 0, dev.size);
	struct dma_buf_sync sync = { .flags = DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW };
	int imp[2] = { importer(), importer() };

	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(0, import(imp[i], buf, 0));
		/* attached, not mapped */
		EXPECT_EQ(0, ioctl(imp[i], KVMFR_IMPORTER_BEGIN_CPU, KVMFR_IMPORTER_FROM_DEVICE));
		EXPECT_EQ(0, ioctl(imp[i], KVMFR_IMPORTER_END_CPU, KVMFR_IMPORTER_FROM_DEVICE));
		ASSERT_EQ(0, import_map(imp[i], i, NULL));
		EXPECT_EQ(0, ioctl(imp[i], KVMFR_IMPORTER_BEGIN_CPU, KVMFR_IMPORTER_BIDIRECTIONAL));
		EXPECT_EQ(0, ioctl(imp[i], KVMFR_IMPORTER_END_CPU, KVMFR_IMPORTER_BIDIRECTIONAL));
	}
	EXPECT_EQ(0, ioctl(buf, DMA_BUF_IOCTL_SYNC, &sync));
	sync.flags = DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW;
	EXPECT_EQ(0, ioctl(buf, DMA_BUF_IOCTL_SYNC, &sync));
	ASSERT_OK(ioctl(imp[0], KVMFR_IMPORTER_UNMAP));
	EXPECT_EQ(0, ioctl(buf, DMA_BUF_IOCTL_SYNC, &sync));
}

/* --- vmap --- */

TEST_PAGED(vmap_is_the_buffer)
{
	uint64_t offset = pmd_size - 3 * page_size, size = pmd_size + 5 * page_size, value = 0x7a9;
	char *all = map(dev.fd, 0, dev.size, RW);
	char *copy = malloc(size);
	int imp = importer();

	stamp(all, 0, dev.size);
	ASSERT_EQ(0, import(imp, dmabuf(dev.fd, offset, size), 0));
	ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_VMAP));
	memset(copy, 0xaa, size);
	ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_VMAP, false, 0, copy, size));
	EXPECT_EQ(-1, unstamped(copy, offset, size));
	ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_VMAP, true, size - 8, &value, 8));
	EXPECT_EQ(value, word(all + offset + size - 8));
	ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_VUNMAP));
}

TEST_PAGED(vmaps_are_counted)
{
	int buf = dmabuf(dev.fd, page_size, dev.size - page_size);
	int imp[2] = { importer(), importer() };
	uint64_t value;

	stamp(map(dev.fd, 0, dev.size, RW), 0, dev.size);
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(0, import(imp[i], buf, 0));
		ASSERT_OK(ioctl(imp[i], KVMFR_IMPORTER_VMAP));
	}
	ASSERT_OK(ioctl(imp[0], KVMFR_IMPORTER_VUNMAP));
	ASSERT_EQ(0, import_io(imp[1], KVMFR_IMPORTER_VIA_VMAP, false, 2 * page_size, &value, 8));
	EXPECT_EQ(stamp_of(3 * page_size), value);
	ASSERT_OK(ioctl(imp[1], KVMFR_IMPORTER_VUNMAP));
	ASSERT_OK(ioctl(imp[0], KVMFR_IMPORTER_VMAP));
	ASSERT_EQ(0, import_io(imp[0], KVMFR_IMPORTER_VIA_VMAP, false, 0, &value, 8));
	EXPECT_EQ(stamp_of(page_size), value);
}

/* --- an importer that lets its own user map what it has imported --- */

TEST_PAGED(importer_can_map_the_buffer_for_its_user)
{
	uint64_t offset = 3 * page_size, size = 8 * page_size;
	char *all = map(dev.fd, 0, dev.size, RW);
	int imp = importer();
	char *p;

	stamp(all, 0, dev.size);
	ASSERT_EQ(0, import(imp, dmabuf(dev.fd, offset, size), 0));
	EXPECT_ERRNO(EINVAL, mmap(NULL, size + page_size, RW, MAP_SHARED, imp, 0));
	EXPECT_ERRNO(EINVAL, mmap(NULL, size, RW, MAP_SHARED, imp, page_size));
	EXPECT_ERRNO(EINVAL, mmap(NULL, size, RW, MAP_PRIVATE, imp, 0));
	p = map(imp, page_size, size - page_size, RW);
	EXPECT_EQ(-1, unstamped(p, offset + page_size, size - page_size));
	set_word(p, 0x600d);
	EXPECT_EQ(0x600d, word(all + offset + page_size));
	close(imp);
	EXPECT_EQ(0x600d, word(p));
}

/* --- vgem --- */

struct drm_version {
	int version[3];
	size_t name_len;
	char *name;
	size_t date_len;
	char *date;
	size_t desc_len;
	char *desc;
};
struct drm_prime_handle { __u32 handle, flags; __s32 fd; };
struct drm_gem_close { __u32 handle, pad; };
#define DRM_IOCTL_VERSION		_IOWR('d', 0x00, struct drm_version)
#define DRM_IOCTL_GEM_CLOSE		_IOW('d', 0x09, struct drm_gem_close)
#define DRM_IOCTL_PRIME_HANDLE_TO_FD	_IOWR('d', 0x2d, struct drm_prime_handle)
#define DRM_IOCTL_PRIME_FD_TO_HANDLE	_IOWR('d', 0x2e, struct drm_prime_handle)

static int open_vgem(void)
{
	for (int i = 0; i < 16; i++) {
		char name[16] = "", path[32];
		struct drm_version version = { .name = name, .name_len = sizeof(name) - 1 };
		int fd;

		snprintf(path, sizeof(path), "/dev/dri/card%d", i);
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd >= 0 && !ioctl(fd, DRM_IOCTL_VERSION, &version) && !strcmp(name, "vgem"))
			return fd;
		close(fd);
	}
	SKIP("no vgem in this machine");
}

TEST_PAGED(vgem_imports_like_a_gpu_driver)
{
	struct drm_prime_handle prime = { .fd = dmabuf(dev.fd, page_size, dev.size - page_size) };
	struct drm_gem_close gone = { 0 };
	struct drm_prime_handle again;
	int vgem = open_vgem();

	ASSERT_OK(ioctl(vgem, DRM_IOCTL_PRIME_FD_TO_HANDLE, &prime));
	EXPECT_NE(0, prime.handle);
	/* the same buffer is the same object */
	again = prime;
	again.handle = 0;
	ASSERT_OK(ioctl(vgem, DRM_IOCTL_PRIME_FD_TO_HANDLE, &again));
	EXPECT_EQ(prime.handle, again.handle);

	/* back out of the object comes what went in */
	close(prime.fd);
	close(dev.fd);
	again.fd = -1;
	again.flags = O_CLOEXEC | O_RDWR;
	ASSERT_OK(ioctl(vgem, DRM_IOCTL_PRIME_HANDLE_TO_FD, &again));
	EXPECT_EQ(dev.size - page_size, lseek(again.fd, 0, SEEK_END));
	EXPECT_EQ(0, probe_write(map(again.fd, 0, page_size, RW)));
	close(again.fd);

	gone.handle = prime.handle;
	ASSERT_OK(ioctl(vgem, DRM_IOCTL_GEM_CLOSE, &gone));
}

TEST_PAGED(vgem_gives_everything_back_when_closed)
{
	struct drm_prime_handle prime = { 0 };
	int vgem = open_vgem();

	for (int i = 0; i < 8; i++) {
		prime.fd = dmabuf(dev.fd, i * page_size, 16 * page_size);
		ASSERT_OK(ioctl(vgem, DRM_IOCTL_PRIME_FD_TO_HANDLE, &prime));
		close(prime.fd);
	}
	close(dev.fd);
	EXPECT_EQ(EWOULDBLOCK, module_unload("kvmfr"));
	close(vgem);
	EXPECT_EQ(0, module_unload("kvmfr"));
}

/* --- vivid --- */

/* A capture device of vivid, set to a small picture; *size is what one takes. */
static int open_vivid(uint32_t *size)
{
	DIR *directory = opendir("/sys/class/video4linux");
	struct dirent *entry;

	while (directory && (entry = readdir(directory))) {
		struct v4l2_format format = { .type = V4L2_BUF_TYPE_VIDEO_CAPTURE };
		struct v4l2_capability cap;
		char path[PATH_MAX];
		int fd;

		/* there are a radio and a touch screen, too */
		if (strncmp(entry->d_name, "video", 5))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (!ioctl(fd, VIDIOC_QUERYCAP, &cap) && !strcmp((char *)cap.driver, "vivid") &&
		    cap.device_caps & V4L2_CAP_VIDEO_CAPTURE && !ioctl(fd, VIDIOC_G_FMT, &format)) {
			format.fmt.pix.width = 320;
			format.fmt.pix.height = 180;
			format.fmt.pix.pixelformat = V4L2_PIX_FMT_YUYV;
			format.fmt.pix.bytesperline = 0;	/* no gaps between the lines */
			ASSERT_OK(ioctl(fd, VIDIOC_S_FMT, &format));
			*size = format.fmt.pix.sizeimage;
			closedir(directory);
			return fd;
		}
		close(fd);
	}
	SKIP("no vivid in this machine");
}

TEST_PAGED(vivid_writes_pictures_into_dmabufs)
{
	enum { N = 3 };		/* as many as vivid wants to have before it begins */
	struct v4l2_requestbuffers request = {
		.count = N, .type = V4L2_BUF_TYPE_VIDEO_CAPTURE, .memory = V4L2_MEMORY_DMABUF,
	};
	int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
	/* the second across the border of two huge pages */
	const uint64_t offset[N] = {
		3 * page_size, 2 * pmd_size - 3 * page_size, 3 * pmd_size + 3 * page_size,
	};
	char *all = map(dev.fd, 0, dev.size, RW);
	int vivid, buf[N];
	uint64_t size;
	uint32_t image;

	vivid = open_vivid(&image);
	ASSERT_GE(image, 320 * 180 * 2);
	size = (image + page_size - 1) / page_size * page_size;
	ASSERT_OK(ioctl(vivid, VIDIOC_REQBUFS, &request));
	ASSERT_EQ(N, request.count);
	memset(all, 0x5a, dev.size);

	for (int i = 0; i < N; i++) {
		struct v4l2_buffer buffer = {
			.type = type, .memory = V4L2_MEMORY_DMABUF, .index = i,
		};

		buf[i] = dmabuf(dev.fd, offset[i], size);
		buffer.m.fd = buf[i];
		buffer.length = size;
		ASSERT_OK(ioctl(vivid, VIDIOC_QBUF, &buffer));
	}
	ASSERT_OK(ioctl(vivid, VIDIOC_STREAMON, &type));
	for (int i = 0; i < N; i++) {
		struct v4l2_buffer buffer = { .type = type, .memory = V4L2_MEMORY_DMABUF };
		struct pollfd ready = { .fd = vivid, .events = POLLIN };
		char *picture;

		ASSERT_EQ(1, poll(&ready, 1, ktap_scale(30) * 1000));
		ASSERT_OK(ioctl(vivid, VIDIOC_DQBUF, &buffer));
		ASSERT_LE(buffer.index, N - 1);
		EXPECT_EQ(0, buffer.flags & V4L2_BUF_FLAG_ERROR);
		/* each page of the picture is another now, and the page on each side is not */
		picture = all + offset[buffer.index];
		for (uint64_t at = 0; at < image; at += page_size)
			EXPECT_NE(0x5a5a5a5a5a5a5a5a, word(picture + at));
		for (uint64_t i = 0; i < page_size; i += 8) {
			EXPECT_EQ(0x5a5a5a5a5a5a5a5a, word(picture - page_size + i));
			EXPECT_EQ(0x5a5a5a5a5a5a5a5a, word(picture + size + i));
		}
	}
	ASSERT_OK(ioctl(vivid, VIDIOC_STREAMOFF, &type));
}

TEST_UNLOADS()
