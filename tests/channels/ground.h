/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Both sides of a memory with channels on one machine: the memory is a memfd,
 * the doorbells are two eventfds. Each side has a mapping of its own.
 */
#ifndef CHANNELS_GROUND_H
#define CHANNELS_GROUND_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../lib/libkvmfr-channel.h"

#define HOST	KVMFR_CHANNEL_HOST
#define GUEST	KVMFR_CHANNEL_GUEST

struct ground {
	int memory;
	size_t size;
	int bell[2];		/* the one that a side is woken by */
	uint64_t rings[2];	/* how often a side was rung from this process */
};

/* One side's view, which the backing's callbacks get. */
struct view {
	struct ground *ground;
	int side;
};

static inline int ground_clear(void *opaque)
{
	struct view *view = opaque;
	uint64_t count;

	if (read(view->ground->bell[view->side], &count, 8) == 8)
		return 1;
	return errno == EAGAIN ? 0 : -errno;
}

/* The peer's id is 10 for the host, 11 for the guest. */
static inline int ground_ring(void *opaque, uint32_t peer, uint32_t vector)
{
	struct view *view = opaque;
	uint64_t one = 1;

	if (peer != 10u + !view->side || vector)
		return -ENOENT;
	view->ground->rings[!view->side]++;
	return write(view->ground->bell[!view->side], &one, 8) == 8 ? 0 : -errno;
}

static inline bool ground_make(struct ground *ground, size_t size)
{
	*ground = (struct ground){ .size = size };
	ground->memory = memfd_create("channels", MFD_CLOEXEC);
	for (int i = 0; i < 2; i++)
		ground->bell[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return ground->memory >= 0 && ground->bell[0] >= 0 && ground->bell[1] >= 0 &&
	       !ftruncate(ground->memory, size);
}

/* A mapping with a page before and behind it that nobody may touch. */
static inline void *ground_map(const struct ground *ground)
{
	uint8_t *p = mmap(NULL, ground->size + 2 * 4096, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? p :
	       mmap(p + 4096, ground->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		    ground->memory, 0);
}

static inline void ground_back(struct ground *ground, struct view *view, int side,
			       struct kvmfr_channels_backing *backing)
{
	*view = (struct view){ ground, side };
	*backing = (struct kvmfr_channels_backing){
		.memory = ground_map(ground),
		.size = ground->size,
		.fd = ground->memory,
		.id = 10 + side,
		.wake = ground->bell[side],
		.clear = ground_clear,
		.ring = ground_ring,
		.opaque = view,
	};
}

#endif
