// SPDX-License-Identifier: GPL-2.0
/*
 * writer: draw a moving test pattern into the memory of a /dev/kvmfrN
 *
 * Runs in the guest, where the device is an IVSHMEM device (or anywhere else:
 * the device is the same on both sides). examples/viewer.c shows the frames.
 */
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bell.h"
#include "frames.h"

/* Maps the whole device, which must have room for the frames. */
static void *map_device(const char *path)
{
	off_t size;
	void *mem;
	int fd;

	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(1, "%s", path);
	size = lseek(fd, 0, SEEK_END);
	if (size < 0)
		err(1, "%s: no size, is this a kvmfr device?", path);
	if ((unsigned long long)size < FRAMES_BYTES)
		errx(1, "%s has %lld MiB, the frames need %llu: load kvmfr with a larger size",
		     path, (long long)size >> 20, (FRAMES_BYTES >> 20) + 1);

	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED)
		err(1, "%s: mmap", path);
	close(fd);
	return mem;
}

/* Eight colour bars that move to the left, brighter from top to bottom. */
static void draw_bars(uint32_t *row, unsigned int y, unsigned int frame)
{
	static const uint32_t bar[] = {
		0xffffff, 0xffff00, 0x00ffff, 0x00ff00,
		0xff00ff, 0xff0000, 0x0000ff, 0x404040,
	};
	uint32_t level = 64 + 191 * y / FRAMES_HEIGHT;
	uint32_t shade[8];
	unsigned int x, i;

	for (i = 0; i < 8; i++)
		shade[i] = 0xff000000 |
			   ((bar[i] >> 16 & 0xff) * level >> 8) << 16 |
			   ((bar[i] >> 8 & 0xff) * level >> 8) << 8 |
			   ((bar[i] & 0xff) * level >> 8);
	for (x = 0; x < FRAMES_WIDTH; x++)
		row[x] = shade[(x + frame * 16) / 240 % 8];
}

/* The frame's number in binary, as white and black squares, moves along. */
static void draw_number(uint32_t *row, unsigned int y, unsigned int frame)
{
	unsigned int top = frame * 8 % (FRAMES_HEIGHT - 96);
	unsigned int bit, x;

	if (y < top || y >= top + 96)
		return;
	for (bit = 0; bit < 16; bit++)
		for (x = 0; x < 96; x++)
			row[192 + bit * 96 + x] =
				frame >> (15 - bit) & 1 ? 0xffffffff : 0xff000000;
}

/*
 * The sum is taken of the pixels before they go into the shared memory, so
 * that it shows when they don't arrive there.
 */
static uint64_t draw_frame(uint32_t *pixels, unsigned int frame)
{
	uint32_t row[FRAMES_WIDTH];
	uint64_t sum = frame;
	unsigned int y;

	for (y = 0; y < FRAMES_HEIGHT; y++) {
		draw_bars(row, y, frame);
		draw_number(row, y, frame);
		sum = frames_sum(sum, row, FRAMES_WIDTH);
		memcpy(pixels + (size_t)y * FRAMES_WIDTH, row, sizeof(row));
	}
	return sum;
}

static void usage(void)
{
	errx(2, "usage: writer [--device /dev/kvmfr0] [--frames N] [--rate HZ]\n"
	     "              [--doorbell /dev/kvmfr1]");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "device", required_argument, NULL, 'd' },
		{ "frames", required_argument, NULL, 'f' },
		{ "rate", required_argument, NULL, 'r' },
		{ "doorbell", required_argument, NULL, 'b' },
		{ }
	};
	uint64_t drawn_at[FRAMES_SLOTS] = { 0 };
	uint32_t hello, total = 120, rate = 0, frame = 0, seen = 0;
	const char *device = "/dev/kvmfr0", *doorbell = NULL;
	struct bell bell = { 0 };
	uint64_t start;
	struct frames *f;
	char *mem;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'd')
			device = optarg;
		else if (c == 'f')
			total = strtoul(optarg, NULL, 0);
		else if (c == 'r')
			rate = strtoul(optarg, NULL, 0);
		else if (c == 'b')
			doorbell = optarg;
		else
			usage();
	}
	if (optind != argc || !total)
		usage();

	mem = map_device(device);
	f = (struct frames *)mem;

	bell_open(&bell, doorbell);
	while (!(hello = frames_read(&f->hello)))
		bell_wait(&bell);
	f->total = total;
	f->drawn = 0;
	f->latency_ns = 0;
	f->writer_bell = bell_id(&bell);
	frames_publish(&f->session, hello);
	bell_ring(&bell, frames_read(&f->viewer_bell));

	start = frames_now_ns();
	while (seen < total) {
		unsigned int slot = frame % FRAMES_SLOTS;

		if (frame < total && frame - seen < FRAMES_SLOTS &&
		    (!rate || frames_now_ns() - start >=
			      frame * 1000000000ull / rate)) {
			f->sum[slot] = draw_frame((uint32_t *)(mem + FRAMES_START +
							       slot * FRAMES_SIZE),
						  frame);
			drawn_at[slot] = frames_now_ns();
			frames_publish(&f->drawn, ++frame);
			bell_ring(&bell, frames_read(&f->viewer_bell));
		} else if (frames_read(&f->seen) == seen) {
			if (rate && frame < total)
				frames_pause();		/* it has a clock of its own */
			else
				bell_wait(&bell);
		}

		/* "seen" is somebody else's number: believe what can be true */
		if (frames_read(&f->seen) > seen && seen < frame) {
			f->latency_ns = frames_now_ns() -
					drawn_at[seen % FRAMES_SLOTS];
			seen++;
		}
	}
	printf("writer: %u frames drawn and seen\n", total);
	return 0;
}
