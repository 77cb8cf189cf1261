/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What examples/writer.c and examples/viewer.c say to each other through the
 * memory of a /dev/kvmfrN.
 *
 * The first FRAMES_START bytes hold struct frames, then come FRAMES_SLOTS
 * frames, each at a multiple of 2 MiB so that it is mapped with huge pages.
 * The writer, in the guest, never overwrites a frame before the viewer, on the
 * host, has acknowledged it, so every frame is seen.
 *
 * Each field has one side that writes it. A field is published with
 * frames_publish() after all that it announces, and waited for with
 * frames_read().
 */
#ifndef KVMFR_EXAMPLES_FRAMES_H
#define KVMFR_EXAMPLES_FRAMES_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define FRAMES_WIDTH	1920
#define FRAMES_HEIGHT	1080
#define FRAMES_PIXELS	((size_t)FRAMES_WIDTH * FRAMES_HEIGHT)

#define FRAMES_ALIGN	(2ull << 20)
#define FRAMES_START	FRAMES_ALIGN
#define FRAMES_SIZE	((FRAMES_PIXELS * 4 + FRAMES_ALIGN - 1) & -FRAMES_ALIGN)
#define FRAMES_SLOTS	3
#define FRAMES_BYTES	(FRAMES_START + FRAMES_SLOTS * FRAMES_SIZE)

struct frames {
	/* written by the viewer */
	uint32_t hello;		/* a number of its own: "a viewer is here" */
	uint32_t seen;		/* frames it is done with */
	uint32_t viewer_bell;	/* its peer id plus one, 0 if it polls */

	/* written by the writer */
	uint32_t writer_bell;	/* as viewer_bell */
	uint32_t session;	/* the hello it answers; frames count from 0 */
	uint32_t total;		/* frames it is going to draw */
	uint32_t drawn;		/* frames that are complete */
	uint64_t latency_ns;	/* of the last seen frame, drawn to seen */
	uint64_t sum[FRAMES_SLOTS];	/* frames_sum() of the pixels as drawn */
};

/* Pixels are BGRA in memory: 0xAARRGGBB on a little-endian machine. */
static inline uint64_t frames_sum(uint64_t sum, const uint32_t *pixel, size_t n)
{
	while (n--)
		sum = (sum ^ *pixel++) * 0x100000001b3ull;
	return sum;
}

static inline void frames_publish(uint32_t *field, uint32_t value)
{
	__atomic_store_n(field, value, __ATOMIC_RELEASE);
}

static inline uint32_t frames_read(const uint32_t *field)
{
	return __atomic_load_n(field, __ATOMIC_ACQUIRE);
}

/* Without a doorbell the other side can't wake us: look again in a moment. */
static inline void frames_pause(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 200 * 1000 }, NULL);
}

static inline uint64_t frames_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

#endif
