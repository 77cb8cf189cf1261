/* SPDX-License-Identifier: MIT */
/*
 * libkvmfr-channel: named byte streams between a host and its guest
 *
 * Channels are in the memory of an ivshmem-doorbell device that has nothing
 * else in it; docs/channels.rst describes the format. The memory has two sides,
 * "host" and "guest". The host formats it, and creates and removes channels.
 * (Between two guests, one of them plays the host.) A side belongs to one
 * process at a time. On most machines that is kvmfrd, which gives every channel
 * to other programs as a UNIX socket; then they need nothing of this.
 *
 * What the other side writes into the memory does no harm: every word is read
 * once and checked. At worst a channel answers -EPROTO.
 *
 * The library has no threads, handles no signals and prints nothing. A set of
 * channels, with all that are open of it, is used by one thread at a time.
 * Functions return a negative errno when they fail; errno itself is not set.
 */
#ifndef LIBKVMFR_CHANNEL_H
#define LIBKVMFR_CHANNEL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "libkvmfr.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KVMFR_CHANNEL_NAME_SIZE	64	/* with the NUL */

enum kvmfr_channel_side {
	KVMFR_CHANNEL_HOST = 0,
	KVMFR_CHANNEL_GUEST = 1,
};

/* What an end of a channel is. */
enum kvmfr_channel_state {
	KVMFR_CHANNEL_ABSENT,		/* nobody is attached to this side */
	KVMFR_CHANNEL_CLOSED,		/* no program has it open */
	KVMFR_CHANNEL_OPEN,		/* open, not connected with the other end */
	KVMFR_CHANNEL_CONNECTED,
};

struct kvmfr_channel_info {
	char name[KVMFR_CHANNEL_NAME_SIZE];
	/* All of these are [0] of the host, [1] of the guest. */
	enum kvmfr_channel_state state[2];
	uint32_t size[2];		/* of the ring that the side writes, in bytes */
	uint32_t waiting[2];		/* written by the side, not yet read by the other */
	uint64_t bytes[2];		/* ever written by the side */
};

/* One side of a memory with channels, and one open end of a channel. */
struct kvmfr_channels;
struct kvmfr_channel;

/*
 * What channels need of the outside. It is copied; what it points to stays the
 * caller's and has to outlive the set.
 */
struct kvmfr_channels_backing {
	void *memory;		/* mapped readable and writable, aligned to a page */
	size_t size;		/* of the memory in bytes, a multiple of 4096 */
	int fd;			/* of the memory, for a lock that keeps a second process
				 * from the same side; -1: the caller sees to that */
	uint32_t id;		/* own id as a peer of the device */
	int wake;		/* polls readable when somebody has rung vector 0 */
	/* Makes it unreadable again. 1: it was rung; 0: it wasn't; or an error. */
	int (*clear)(void *opaque);
	/* Rings a vector of another peer. */
	int (*ring)(void *opaque, uint32_t peer, uint32_t vector);
	void *opaque;		/* for both */
};

/*
 * The backing of channels on a peer that was opened with one vector or more
 * (see libkvmfr.h). Maps its memory, which kvmfr_channels_unback() unmaps.
 * Both belong to the caller; the peer stays open as long as the backing is used.
 *
 * When a device is unplugged its memory gives SIGBUS, as kvmfr.h says: a program
 * that is to outlive that has a handler which calls kvmfr_channels_fault().
 *
 * Errors: those of the kvmfr_peer_*() functions.
 */
KVMFR_API int kvmfr_channels_back(struct kvmfr_channels_backing *backing, struct kvmfr_peer *peer);
KVMFR_API void kvmfr_channels_unback(struct kvmfr_channels_backing *backing);

/* Make the memory one for channels if it is empty: zero at its start and its end. */
#define KVMFR_CHANNELS_FORMAT	0x1
/* The same, whatever is in it. What was there is lost. */
#define KVMFR_CHANNELS_OVERWRITE 0x2
/* Only look: kvmfr_channels_list() works, nothing is written, nobody disturbed. */
#define KVMFR_CHANNELS_OBSERVE	0x4

/**
 * kvmfr_channels_attach - become a side of a memory with channels
 * @set: the new set, to be given to kvmfr_channels_detach()
 * @backing: the memory and the doorbell
 * @side: which side to be
 * @flags: KVMFR_CHANNELS_*; FORMAT and OVERWRITE are for the host
 *
 * Ends that an earlier process left open, by kvmfr_channels_leave() or because it
 * died, are closed. What it hadn't read yet is read by the next that opens that
 * channel, followed by an end of file. Channels that are in the memory stay; a
 * host that shouldn't believe its guest, who can write there, what they are
 * called removes those it doesn't know.
 *
 * Errors:
 * EINVAL: an unknown flag, a flag that isn't for this side, memory that isn't
 *	aligned.
 * EPROTO: the memory has no channels in it, or of a newer major version, or it
 *	isn't empty and FORMAT was asked for; kvmfr_channels_problem() says which.
 *	Nothing was written.
 * EBUSY: another process is this side.
 * ENOSPC: the memory is too small to format: 24 KiB are the least.
 * ENOMEM
 */
KVMFR_API int kvmfr_channels_attach(struct kvmfr_channels **set,
				    const struct kvmfr_channels_backing *backing,
				    enum kvmfr_channel_side side, unsigned int flags);

/**
 * kvmfr_channels_detach - stop being a side
 *
 * Closes every channel that is open in @set, whose pointers are void from then
 * on, tells the other side, and frees @set. NULL is allowed.
 */
KVMFR_API void kvmfr_channels_detach(struct kvmfr_channels *set);

/**
 * kvmfr_channels_leave - stop being a side, so that another process goes on
 *
 * As kvmfr_channels_detach(), but what hasn't been read stays for the next that
 * attaches, as after a process that died. For a new version of a program, and
 * for the host before a live migration. NULL is allowed.
 */
KVMFR_API void kvmfr_channels_leave(struct kvmfr_channels *set);

/**
 * kvmfr_channels_fault - the memory gave SIGBUS: go on without it
 * @address: si_addr of the signal
 *
 * For a handler of SIGBUS, from which it is safe to call. If @address is in the
 * memory of @set, memory of zeros is put in its place, so that the handler can
 * return. From then on everything answers -ENODEV; what was being read when it
 * happened isn't returned as data.
 *
 * Returns 1, or 0 if the address is elsewhere: the fault is another one.
 */
KVMFR_API int kvmfr_channels_fault(struct kvmfr_channels *set, const void *address);

/**
 * kvmfr_channels_problem - why memory can't be used for channels
 *
 * Returns a sentence without a full stop, a constant, or NULL if the memory is
 * in the format and of a version that this library knows. Only reads.
 */
KVMFR_API const char *kvmfr_channels_problem(const void *memory, size_t size);

/**
 * kvmfr_channels_fd - the descriptor that tells when something has happened
 *
 * It polls readable; then ask kvmfr_channels_event() until it returns 0. It is
 * the "wake" of the backing, and the caller's.
 */
KVMFR_API int kvmfr_channels_fd(const struct kvmfr_channels *set);

enum kvmfr_channel_what {
	KVMFR_CHANNEL_ADDED,		/* a channel was created */
	KVMFR_CHANNEL_REMOVED,		/* a channel was removed */
	KVMFR_CHANNEL_CHANGED,		/* an end changed its state, or there is data or room */
};

struct kvmfr_channel_event {
	enum kvmfr_channel_what what;
	char name[KVMFR_CHANNEL_NAME_SIZE];
	struct kvmfr_channel *channel;	/* if it is open here, otherwise NULL */
	enum kvmfr_channel_state other;	/* what the other side's end is */
};

/**
 * kvmfr_channels_event - the next thing that has happened
 *
 * Events tell where to look, they don't count: several may come as one, and one
 * may turn out to be for nothing. After a CHANGED ask kvmfr_channel_poll().
 * Who mixes this with calls that block asks until 0 before sleeping on the
 * descriptor, since those calls read it, too. The other side can make events
 * without end; no channel waits for another that has many, but a program that
 * has more to do than this asks so and so often, then does that.
 *
 * Returns 1 and fills *@event, or 0 if there is none.
 *
 * Errors: ESTALE: the memory was formatted anew, or replaced by that of another
 * machine (live migration, which rings nobody: a host that has a guest coming
 * asks now and then): detach and attach again; until then everything answers
 * ENODEV. Or what the backing's clear() answers, as ENODEV when the
 * device was unplugged.
 */
KVMFR_API int kvmfr_channels_event(struct kvmfr_channels *set, struct kvmfr_channel_event *event);

/**
 * kvmfr_channels_peer_gone - the doorbell's server says that a peer has left
 *
 * If @id is the other side, its ends count as closed until somebody attaches
 * there again. Without this call, the end of a process that had no time to say
 * so is only noticed when the next one attaches.
 */
KVMFR_API void kvmfr_channels_peer_gone(struct kvmfr_channels *set, uint32_t id);

/**
 * kvmfr_channels_list - all channels
 * @infos: filled with as many as fit, may be NULL if @count is 0
 *
 * Returns how many channels there are, which may be more than @count.
 */
KVMFR_API int kvmfr_channels_list(struct kvmfr_channels *set, struct kvmfr_channel_info *infos,
				  int count);

/**
 * kvmfr_channels_room - the largest piece of memory that is free, in bytes
 *
 * Both rings of a channel have to fit into one piece. 0: none, or there are as
 * many channels as the memory was formatted for.
 */
KVMFR_API uint64_t kvmfr_channels_room(struct kvmfr_channels *set);

/**
 * kvmfr_channel_create - add a channel (the host only)
 * @name: 1 to 63 printable ASCII characters without "/", not "." or ".."
 * @to_guest: bytes of the ring that the host writes; the next power of two,
 *	at least 4096, at most 1 GiB, is taken
 * @to_host: bytes of the ring that the guest writes
 *
 * Errors: EINVAL: such a name, or a size that is too large. EEXIST: the name is
 * taken. ENOSPC: no room, see kvmfr_channels_room(). EPERM: not the host.
 */
KVMFR_API int kvmfr_channel_create(struct kvmfr_channels *set, const char *name,
				   size_t to_guest, size_t to_host);

/**
 * kvmfr_channel_remove - take a channel away (the host only)
 *
 * Whoever has it open gets ENODEV from then on. Its memory is used again as
 * soon as the guest has closed it.
 *
 * Errors: EINVAL: no name for a channel. ENOENT: there is none. EPERM: not the
 * host.
 */
KVMFR_API int kvmfr_channel_remove(struct kvmfr_channels *set, const char *name);

/* For kvmfr_channel_open(): -EAGAIN instead of waiting. */
#define KVMFR_CHANNEL_NONBLOCK	0x1

/**
 * kvmfr_channel_open - open this side's end of a channel
 * @channel: the open end, to be given to kvmfr_channel_close()
 *
 * Doesn't wait for the other end to be opened.
 *
 * Errors: EINVAL: no name for a channel, unknown flag. ENOENT: there is none.
 * EBUSY: this side's end is open already. EPERM: the set only observes. ENOMEM.
 */
KVMFR_API int kvmfr_channel_open(struct kvmfr_channels *set, const char *name,
				 unsigned int flags, struct kvmfr_channel **channel);

/**
 * kvmfr_channel_close - close an end
 *
 * The other end can still read what was written, then it gets the end of file.
 * What this end hasn't read is lost. NULL is allowed.
 */
KVMFR_API void kvmfr_channel_close(struct kvmfr_channel *channel);

/**
 * kvmfr_channel_read - read what has come
 *
 * Waits until there is something, unless the channel is NONBLOCK.
 *
 * Returns the bytes read, 1 to @size. 0: nothing is left, and the other end is
 * away or has finished writing (or @size is 0). A connection that ends is
 * reported by one 0, or more; after it the channel connects again by itself
 * when the other end is opened.
 *
 * Errors: EAGAIN: nothing has come (NONBLOCK only). EINTR: a signal while
 * waiting. ENODEV: the channel was removed. EPROTO: the other side has broken
 * the protocol; close the channel, and open it again if that is wanted.
 */
KVMFR_API ssize_t kvmfr_channel_read(struct kvmfr_channel *channel, void *data, size_t size);

/**
 * kvmfr_channel_write - write
 *
 * Waits until all is written, unless the channel is NONBLOCK: then it writes
 * what there is room for.
 *
 * Returns the bytes written, which are fewer than @size if the channel is
 * NONBLOCK or something happened after some were written.
 *
 * Errors: EAGAIN: no room, or the other end is not open (NONBLOCK only). EPIPE:
 * the other end was closed, or kvmfr_channel_shutdown() was called; the
 * connection is over, read until 0 to go on with the next. EINTR, ENODEV,
 * EPROTO as for reading.
 */
KVMFR_API ssize_t kvmfr_channel_write(struct kvmfr_channel *channel, const void *data,
				      size_t size);

/**
 * kvmfr_channel_shutdown - write no more on this connection
 *
 * The other end gets an end of file once it has read everything; this end can
 * go on reading.
 *
 * Errors: EPIPE: the connection is over. ENODEV, EPROTO.
 */
KVMFR_API int kvmfr_channel_shutdown(struct kvmfr_channel *channel);

#define KVMFR_CHANNEL_IN	0x1	/* read() doesn't wait: data, or the end */
#define KVMFR_CHANNEL_OUT	0x2	/* write() doesn't wait: there is room */
#define KVMFR_CHANNEL_HUP	0x4	/* the other end is away */
#define KVMFR_CHANNEL_ERR	0x8	/* read() and write() say what: ENODEV, EPROTO */
#define KVMFR_CHANNEL_END	0x10	/* a connection is over; reading it to its end is due */
#define KVMFR_CHANNEL_EOF	0x20	/* with IN: nothing is left of a connection, read() answers 0 */

/**
 * kvmfr_channel_poll - what could be done without waiting
 *
 * Returns KVMFR_CHANNEL_* bits. What is missing of IN and OUT will be told:
 * the descriptor of the set polls readable when it may have come. (read() and
 * write() that return -EAGAIN see to the same.)
 */
KVMFR_API unsigned int kvmfr_channel_poll(struct kvmfr_channel *channel);

/**
 * kvmfr_channel_wait - wait until something can be done
 * @events: KVMFR_CHANNEL_IN, OUT or both. ERR ends the waiting, too, and HUP
 *	unless the other end was away all the time. Who waits for OUT is woken by
 *	END as well, since writing then answers -EPIPE
 * @timeout: milliseconds; -1: as long as it takes
 *
 * Returns KVMFR_CHANNEL_* bits, 0 when the time is over, or -EINTR.
 */
KVMFR_API int kvmfr_channel_wait(struct kvmfr_channel *channel, unsigned int events, int timeout);

/* The name of an open channel. Lives as long as the open end. */
KVMFR_API const char *kvmfr_channel_name(const struct kvmfr_channel *channel);

#ifdef __cplusplus
}
#endif

#endif
