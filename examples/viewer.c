// SPDX-License-Identifier: GPL-2.0
/*
 * viewer: follow the frames that examples/writer.c draws, through DMA-BUFs
 *
 * Runs on the host. Each frame's place in the device becomes a DMA-BUF, which
 * is what a real viewer hands to its GPU; this one maps it and checks every
 * pixel. The last frame is written as a PNG.
 */
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/dma-buf.h>

#include "../kvmfr.h"
#include "bell.h"
#include "frames.h"

struct slot {
	int dmabuf;
	uint32_t *pixels;
};

/*
 * Maps a DMA-BUF at an address that agrees with its place in the device modulo
 * 2 MiB, so that it gets huge pages: reserves 2 MiB too much and gives back
 * what is left over on both sides.
 */
static void *map_dmabuf(int fd, const struct kvmfr_dmabuf_create *part)
{
	size_t huge = FRAMES_ALIGN;
	size_t before;
	char *p;

	p = mmap(NULL, part->size + huge, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		err(1, "reserving addresses");
	before = (part->offset - (uintptr_t)p) & (huge - 1);
	if (before)
		munmap(p, before);
	if (huge - before)
		munmap(p + before + part->size, huge - before);

	p = mmap(p + before, part->size, PROT_READ, MAP_SHARED | MAP_FIXED,
		 fd, 0);
	if (p == MAP_FAILED)
		err(1, "mapping a DMA-BUF");
	return p;
}

static void slot_open(struct slot *slot, int device, unsigned int i)
{
	struct kvmfr_dmabuf_create part = {
		.flags = KVMFR_DMABUF_FLAG_CLOEXEC,
		.offset = FRAMES_START + i * FRAMES_SIZE,
		.size = FRAMES_SIZE,
	};

	slot->dmabuf = ioctl(device, KVMFR_DMABUF_CREATE, &part);
	if (slot->dmabuf < 0)
		err(1, "making a DMA-BUF of frame %u", i);
	slot->pixels = map_dmabuf(slot->dmabuf, &part);
}

/* CPU access to a DMA-BUF is announced, so that the exporter can sync caches. */
static void slot_sync(struct slot *slot, __u64 when)
{
	struct dma_buf_sync sync = { .flags = when | DMA_BUF_SYNC_READ };

	if (ioctl(slot->dmabuf, DMA_BUF_IOCTL_SYNC, &sync))
		err(1, "DMA_BUF_IOCTL_SYNC");
}

static void write_png(const char *path, const uint32_t *pixels)
{
	png_image image = {
		.version = PNG_IMAGE_VERSION,
		.width = FRAMES_WIDTH,
		.height = FRAMES_HEIGHT,
		.format = PNG_FORMAT_BGRA,
	};

	if (!png_image_write_to_file(&image, path, 0, pixels, 0, NULL))
		errx(1, "%s: %s", path, image.message);
}

static void usage(void)
{
	errx(2, "usage: viewer [--device /dev/kvmfr0] [--frames N] [--png FILE]\n"
	     "              [--doorbell SOCKET]");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "device", required_argument, NULL, 'd' },
		{ "frames", required_argument, NULL, 'f' },
		{ "png", required_argument, NULL, 'p' },
		{ "doorbell", required_argument, NULL, 'b' },
		{ }
	};
	uint32_t expected = 0, total, frame, damaged = 0, hello;
	const char *device = "/dev/kvmfr0", *png = NULL, *doorbell = NULL;
	struct bell bell = { 0 };
	struct slot slots[FRAMES_SLOTS];
	struct frames *f;
	uint64_t start, latency = 0;
	int fd, c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'd')
			device = optarg;
		else if (c == 'f')
			expected = strtoul(optarg, NULL, 0);
		else if (c == 'p')
			png = optarg;
		else if (c == 'b')
			doorbell = optarg;
		else
			usage();
	}
	if (optind != argc)
		usage();

	fd = open(device, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(1, "%s", device);
	f = mmap(NULL, FRAMES_START, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (f == MAP_FAILED)
		err(1, "%s: mmap", device);
	for (frame = 0; frame < FRAMES_SLOTS; frame++)
		slot_open(&slots[frame], fd, frame);
	close(fd);		/* mappings and DMA-BUFs live on without it */

	/* Any number but 0 and what an earlier run has left in the memory. */
	hello = (uint32_t)frames_now_ns() | 1;
	if (hello == f->session)
		hello += 2;
	f->seen = 0;
	bell_open(&bell, doorbell);
	f->viewer_bell = bell_id(&bell);
	frames_publish(&f->hello, hello);
	start = frames_now_ns();
	while (frames_read(&f->session) != hello)
		bell_wait(&bell);
	printf("viewer: waits by %s; %.1f wake-ups a second in %.1f s without a writer\n",
	       doorbell ? "doorbell" : "polling",
	       bell.wakeups * 1e9 / (frames_now_ns() - start),
	       (frames_now_ns() - start) / 1e9);
	total = f->total;

	bell.wakeups = 0;
	start = frames_now_ns();
	for (frame = 0; frame < total; frame++) {
		struct slot *slot = &slots[frame % FRAMES_SLOTS];
		uint64_t sum;

		while (frames_read(&f->drawn) <= frame)
			bell_wait(&bell);

		slot_sync(slot, DMA_BUF_SYNC_START);
		sum = frames_sum(frame, slot->pixels, FRAMES_PIXELS);
		if (sum != f->sum[frame % FRAMES_SLOTS])
			damaged++;
		if (png && frame + 1 == total)
			write_png(png, slot->pixels);
		slot_sync(slot, DMA_BUF_SYNC_END);
		/* first, so that a next writer doesn't take it for a next viewer's */
		if (frame + 1 == total)
			frames_publish(&f->hello, 0);
		frames_publish(&f->seen, frame + 1);
		bell_ring(&bell, frames_read(&f->writer_bell));

		latency += f->latency_ns;
		printf("\rviewer: %4u of %u frames, %5.1f/s, latency %6.1f ms, %u damaged ",
		       frame + 1, total,
		       (frame + 1) * 1e9 / (frames_now_ns() - start),
		       f->latency_ns / 1e6, damaged);
		fflush(stdout);
	}
	printf("\nviewer: by %s: latency %.1f ms in the mean, %.1f wake-ups for a frame\n",
	       doorbell ? "doorbell" : "polling", total ? latency / 1e6 / total : 0,
	       total ? (double)bell.wakeups / total : 0);

	if (expected && total != expected)
		errx(1, "%u frames came, %u were expected", total, expected);
	return !total || damaged;
}
