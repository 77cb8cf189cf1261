/* SPDX-License-Identifier: MIT */
/*
 * Channels: named byte streams between the two sides of one shared memory.
 *
 * The format is in docs/channels.rst. Nothing here blocks, locks or allocates
 * in the memory's name: the program waits for its doorbell, then asks
 * kvmfr_channel_poll(). One thread at a time uses a struct kvmfr_channels and
 * the channels opened from it. The other side may write anything anywhere at
 * any time; at worst a channel is closed with -EPROTO.
 */
#ifndef LIBKVMFR_CHANNEL_H
#define LIBKVMFR_CHANNEL_H

#include <sys/types.h>

#include "libkvmfr.h"

#ifdef __cplusplus
extern "C" {
#endif

struct kvmfr_channels;
struct kvmfr_channel;

#define KVMFR_CHANNELS_MAX	1000
#define KVMFR_CHANNEL_NAME_MAX	63		/* bytes, printable ASCII but '/' */
#define KVMFR_CHANNEL_RING_MIN	64u		/* bytes one way, a power of two */
#define KVMFR_CHANNEL_RING_MAX	(1u << 30)

enum kvmfr_channel_side {
	KVMFR_CHANNEL_OFFERING,	/* formats, creates and removes: the host */
	KVMFR_CHANNEL_OTHER,	/* the guest */
};

enum kvmfr_channel_state {
	KVMFR_CHANNEL_ABSENT,	/* never opened */
	KVMFR_CHANNEL_OPEN,
	KVMFR_CHANNEL_CLOSED,
};

/* Rings the doorbell of the other side. Called from the functions below. */
typedef void (*kvmfr_channel_notify)(void *argument);

/* kvmfr_channels_format(): even if something else is in the memory. */
#define KVMFR_CHANNELS_FORCE	0x1

/*
 * Makes the memory one without channels. @memory is 64-byte aligned, @size is
 * in bytes. Nobody may be attached to it.
 *
 * Errors, with nothing written: -EINVAL: alignment, unknown flag. -ENOSPC: too
 * small. Without KVMFR_CHANNELS_FORCE: -EBUSY: it is neither all zero nor in
 * this format. -EPROTO: this format in a newer major version.
 */
KVMFR_API int kvmfr_channels_format(void *memory, size_t size, unsigned int flags);

/*
 * Takes formatted memory, which stays mapped until kvmfr_channels_detach().
 *
 * Errors: -EINVAL: alignment, side. -EPROTO: not this format, a newer major
 * version, or formatted with a larger size. -ENOMEM.
 */
KVMFR_API int kvmfr_channels_attach(void *memory, size_t size,
				    enum kvmfr_channel_side side,
				    kvmfr_channel_notify notify, void *argument,
				    struct kvmfr_channels **channels);

/* All channels opened from it have to be closed before. NULL is fine. */
KVMFR_API void kvmfr_channels_detach(struct kvmfr_channels *channels);

/*
 * Creates a channel with @ring bytes each way. @room may be NULL; with -ENOSPC
 * it is set to the largest @ring that there is room for, 0 for none.
 *
 * Errors: -EINVAL: name, or @ring isn't a power of two within the bounds.
 * -EEXIST. -ENOSPC: memory, or all 1,000 are in use. -EPERM: the other side.
 */
KVMFR_API int kvmfr_channels_create(struct kvmfr_channels *channels,
				    const char *name, uint32_t ring, uint32_t *room);

/* Errors: -EINVAL: name. -ENOENT. -EBUSY: an end is open. -EPERM: other side. */
KVMFR_API int kvmfr_channels_remove(struct kvmfr_channels *channels, const char *name);

struct kvmfr_channel_info {
	char name[KVMFR_CHANNEL_NAME_MAX + 1];
	uint32_t ring;			/* bytes each way */
	uint32_t state[2];		/* enum kvmfr_channel_state, by side */
	uint32_t waiting[2];		/* bytes written by a side and not yet read */
};

/*
 * What is at @index of the table, 0 to KVMFR_CHANNELS_MAX - 1. 1: a channel;
 * 0: none. Errors: -EINVAL: the index. -EPROTO: the entry is damaged.
 */
KVMFR_API int kvmfr_channels_info(struct kvmfr_channels *channels,
				  unsigned int index, struct kvmfr_channel_info *info);

/*
 * The other side has died, as KVMFR_EVENT_PEER says: its ends count as closed
 * until it opens them again.
 */
KVMFR_API void kvmfr_channels_peer_gone(struct kvmfr_channels *channels);

/* The last program that had the own end is dead and couldn't close it. */
#define KVMFR_CHANNEL_TAKE	0x1

/*
 * Opens the own end. What the other end wrote before is kept and comes first.
 *
 * Errors: -EINVAL: name, flag. -ENOENT. -EBUSY: the own end is open already.
 * -EPROTO: the entry or its indices are damaged; the offering side removes and
 * creates it again. -ENOMEM.
 */
KVMFR_API int kvmfr_channel_open(struct kvmfr_channels *channels, const char *name,
				 unsigned int flags, struct kvmfr_channel **channel);

/* What was written stays for the other end to read. NULL is fine. */
KVMFR_API void kvmfr_channel_close(struct kvmfr_channel *channel);

/*
 * Up to @size bytes. 0: the other end is not open and nothing is left.
 *
 * Errors: -EAGAIN: nothing now, the doorbell rings when there is. -EPROTO: the
 * other side broke the format; the end is closed.
 */
KVMFR_API ssize_t kvmfr_channel_read(struct kvmfr_channel *channel, void *data, size_t size);

/*
 * Writes as many of @size bytes as there is room for, whether or not the other
 * end is open. Errors: -EAGAIN: full, the doorbell rings when it isn't. -EPROTO.
 */
KVMFR_API ssize_t kvmfr_channel_write(struct kvmfr_channel *channel,
				      const void *data, size_t size);

#define KVMFR_CHANNEL_IN	0x1	/* read() gives data or 0 */
#define KVMFR_CHANNEL_OUT	0x2	/* write() has room */
#define KVMFR_CHANNEL_HUP	0x4	/* the other end isn't open, or was closed since */

/*
 * The states now, and asks for a ring when one that is missing comes. Clear
 * the doorbell before it, not after, or a ring is lost. Errors: -EPROTO.
 */
KVMFR_API int kvmfr_channel_poll(struct kvmfr_channel *channel);

#ifdef __cplusplus
}
#endif

#endif
