/* SPDX-License-Identifier: MIT */
/*
 * libkvmfr-channel: named byte streams between a host and its guest
 *
 * Channels use all of the memory of an ivshmem-doorbell device; docs/channels.rst
 * describes the format. The memory has two sides, "host" and "guest". The host
 * formats it, and creates and removes channels. (Between two guests, one of them
 * plays the host.) A side belongs to one process at a time. Usually that is
 * kvmfrd, which gives other programs each channel as a UNIX socket; they don't
 * need this library.
 *
 * Whatever the other side writes into the memory, every word is read once and
 * checked. At worst a channel returns -EPROTO.
 *
 * The rules of libkvmfr.h apply: negative errno, no threads, no signals. A set of
 * channels and the channels opened from it count as one object, which only one
 * thread uses at a time.
 */
#ifndef LIBKVMFR_CHANNEL_H
#define LIBKVMFR_CHANNEL_H

#include <stdbool.h>
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
	KVMFR_CHANNEL_GUEST = 1
};

/* The state of one end of a channel. */
enum kvmfr_channel_state {
	KVMFR_CHANNEL_ABSENT,		/* nobody is attached to this side */
	KVMFR_CHANNEL_CLOSED,		/* no program has it open */
	KVMFR_CHANNEL_OPEN,		/* open, not connected with the other end */
	KVMFR_CHANNEL_CONNECTED
};

struct kvmfr_channel_info {
	char name[KVMFR_CHANNEL_NAME_SIZE];
	/* In each of these, [0] is the host's side and [1] the guest's. */
	enum kvmfr_channel_state state[2];
	uint32_t size[2];		/* of the ring that the side writes, in bytes */
	uint32_t waiting[2];		/* written by the side, not yet read by the other */
	uint64_t bytes[2];		/* ever written by the side */
	uint32_t tag;			/* see kvmfr_channel_set_tag() */
};

/* One side of a memory with channels, and one open end of a channel. */
struct kvmfr_channels;
struct kvmfr_channel;

/*
 * What channels run on: memory and a doorbell. The struct is copied; what it
 * points to stays the caller's and must outlive the set.
 */
struct kvmfr_channels_backing {
	void *memory;		/* mapped readable and writable, aligned to a page */
	size_t size;		/* of the memory in bytes, a multiple of 4096 */
	int fd;			/* of the memory, to lock the side against a second
				 * process; -1: the caller makes sure there is none */
	uint32_t id;		/* own id as a peer of the device */
	int wake;		/* polls readable when somebody has rung vector 0 */
	/* Clears vector 0. 1: it was rung; 0: it wasn't; or a negative errno. */
	int (*clear)(void *opaque);
	/* Rings a vector of another peer. */
	int (*ring)(void *opaque, uint32_t peer, uint32_t vector);
	void *opaque;		/* for both */
};

/*
 * Fills in the backing for channels on a peer (libkvmfr.h) that was opened with
 * one vector or more. Maps its memory; kvmfr_channels_unback() unmaps it. Backing
 * and peer belong to the caller, and the peer must stay open as long as the
 * backing is used.
 *
 * When a device is unplugged, touching its memory gives SIGBUS, see kvmfr.h. A
 * program that must survive that installs a handler that calls
 * kvmfr_channels_fault().
 *
 * Errors: those of kvmfr_peer_size(), kvmfr_peer_id(), kvmfr_peer_vector_fd() and
 * kvmfr_peer_map().
 */
KVMFR_API int kvmfr_channels_back(struct kvmfr_channels_backing *backing, struct kvmfr_peer *peer);
KVMFR_API void kvmfr_channels_unback(struct kvmfr_channels_backing *backing);

/* Format the memory if it is empty: its first page and its last 64 KiB are zero. */
#define KVMFR_CHANNELS_FORMAT	0x1
/* Format the memory whatever is in it. The contents are lost. */
#define KVMFR_CHANNELS_OVERWRITE 0x2
/* Only look: kvmfr_channels_list() works. Nothing is written and nobody is rung. */
#define KVMFR_CHANNELS_OBSERVE	0x4

/**
 * kvmfr_channels_attach - become a side of a memory with channels
 * @set: the new set, to be given to kvmfr_channels_detach()
 * @backing: the memory and the doorbell
 * @side: which side to be
 * @flags: KVMFR_CHANNELS_*; FORMAT and OVERWRITE are for the host only
 *
 * Ends that an earlier process left open, by kvmfr_channels_leave() or by dying,
 * are closed. What that process had not read is read by whoever opens the channel
 * next, followed by an end of file. Channels in the memory are kept. The guest
 * could have written any names there: a host that must not trust it removes the
 * channels it doesn't know.
 *
 * Errors:
 * EINVAL: an unknown flag, a flag that isn't for this side, or memory or a size
 *	that isn't a multiple of 4096.
 * EPROTO: the memory has no channels in it, or they have another major version,
 *	or FORMAT was given and it isn't empty; kvmfr_channels_problem() says which.
 *	Nothing was written.
 * EBUSY: another process is attached as this side.
 * ENOSPC: the memory is too small to format: at least 24 KiB are needed.
 * ENOMEM; and the errors of fcntl() when it locks @backing->fd.
 */
KVMFR_API int kvmfr_channels_attach(struct kvmfr_channels **set,
				    const struct kvmfr_channels_backing *backing,
				    enum kvmfr_channel_side side, unsigned int flags);

/**
 * kvmfr_channels_detach - stop being a side
 *
 * Closes every open channel of @set, whose pointers become invalid, tells the
 * other side, and frees @set. NULL is allowed.
 */
KVMFR_API void kvmfr_channels_detach(struct kvmfr_channels *set);

/**
 * kvmfr_channels_leave - stop being a side, so that another process can go on
 *
 * As kvmfr_channels_detach(), but unread data stays for the process that attaches
 * next, as it does when a process dies. For replacing a program by a new version,
 * and for the host before a live migration. NULL is allowed.
 */
KVMFR_API void kvmfr_channels_leave(struct kvmfr_channels *set);

/**
 * kvmfr_channels_fault - the memory gave SIGBUS: go on without it
 * @address: si_addr of the signal
 *
 * To be called from a SIGBUS handler; it is async-signal-safe. If @address is in
 * the memory of @set, zeroed memory is mapped in its place, so that the handler
 * can return. From then on every call returns -ENODEV; bytes that were being read
 * at that moment are not returned as data.
 *
 * Returns 1, or 0 if @address isn't in this memory: the fault has another cause.
 */
KVMFR_API int kvmfr_channels_fault(struct kvmfr_channels *set, const void *address);

/**
 * kvmfr_channels_problem - why memory can't be used for channels
 *
 * Returns a constant string (a sentence without a full stop), or NULL if the
 * memory is formatted in a version that this library knows. Only reads.
 */
KVMFR_API const char *kvmfr_channels_problem(const void *memory, size_t size);

/**
 * kvmfr_channels_fd - the descriptor that polls readable when something happens
 *
 * Then call kvmfr_channels_event() until it returns 0. It is the "wake" of the
 * backing, so the caller owns it.
 */
KVMFR_API int kvmfr_channels_fd(const struct kvmfr_channels *set);

enum kvmfr_channel_what {
	KVMFR_CHANNEL_ADDED,		/* a channel was created */
	KVMFR_CHANNEL_REMOVED,		/* a channel was removed */
	KVMFR_CHANNEL_CHANGED		/* an end changed its state, or there is data or room */
};

struct kvmfr_channel_event {
	enum kvmfr_channel_what what;
	char name[KVMFR_CHANNEL_NAME_SIZE];
	struct kvmfr_channel *channel;	/* the open channel, NULL if it isn't open here */
	enum kvmfr_channel_state other;	/* of the other side's end */
};

/**
 * kvmfr_channels_event - the next thing that has happened
 *
 * Returns 1 and fills *@event, or 0 if there is none. Never blocks.
 *
 * An event says where to look: several may be merged into one, and one may turn
 * out to be spurious. After CHANGED, call kvmfr_channel_poll(). Blocking calls
 * clear the descriptor, too, so a program that uses both calls this until it
 * returns 0 before it sleeps on the descriptor. Channels take turns, so that a
 * busy one doesn't hold up the others; but the other side can make events without
 * end, so a program with other work must bound how many it takes in a row.
 *
 * Errors: ESTALE: the memory was formatted again, or replaced by that of another
 * machine: detach and attach again; until then other calls return ENODEV. (A live
 * migration rings nobody, so a host that expects a guest calls this now and then.)
 * Or the error of the backing's clear(), such as ENODEV when the device was
 * unplugged.
 */
KVMFR_API int kvmfr_channels_event(struct kvmfr_channels *set, struct kvmfr_channel_event *event);

/**
 * kvmfr_channels_peer_gone - report a peer that has left the doorbell's server
 *
 * If @id is the other side's, its ends count as closed until a process attaches
 * there again. Without this call, the death of that process is only noticed when
 * the next one attaches.
 */
KVMFR_API void kvmfr_channels_peer_gone(struct kvmfr_channels *set, uint32_t id);

/**
 * kvmfr_channels_list - all channels
 * @infos: filled with as many as fit, may be NULL if @count is 0
 *
 * Returns how many channels there are, which may be more than @count.
 *
 * Errors: ENODEV: see kvmfr_channels_event().
 */
KVMFR_API int kvmfr_channels_list(struct kvmfr_channels *set, struct kvmfr_channel_info *infos,
				  int count);

/**
 * kvmfr_channels_room - the size of the largest free piece of memory, in bytes
 *
 * Both rings of a channel must fit into one piece. 0: there is none, or there are
 * as many channels as the memory was formatted for.
 */
KVMFR_API uint64_t kvmfr_channels_room(struct kvmfr_channels *set);

/*
 * Whether a channel can have this name: 1 to 63 printable ASCII characters without
 * "/", not "." or "..".
 */
KVMFR_API bool kvmfr_channel_name_is_valid(const char *name);

/**
 * kvmfr_channel_create - add a channel (the host only)
 * @name: see kvmfr_channel_name_is_valid()
 * @to_guest: bytes of the ring that the host writes; the next power of two,
 *	at least 4096, at most 1 GiB, is taken
 * @to_host: bytes of the ring that the guest writes
 *
 * Errors: EINVAL: an invalid name, or a size that is too large. EEXIST: the name
 * is taken. ENOSPC: no room, see kvmfr_channels_room(). EPERM: not the host.
 * ENODEV: see kvmfr_channels_event().
 */
KVMFR_API int kvmfr_channel_create(struct kvmfr_channels *set, const char *name,
				   size_t to_guest, size_t to_host);

/**
 * kvmfr_channel_set_tag - keep a number with a channel (the host only)
 * @tag: 0 when a channel is created; it means nothing to the guest
 *
 * For a host that comes back, in struct kvmfr_channel_info. A guest could have
 * changed it.
 *
 * Errors: EINVAL: an invalid name. ENOENT: there is no such channel. EPERM: not the
 * host. ENODEV: as with kvmfr_channels_event().
 */
KVMFR_API int kvmfr_channel_set_tag(struct kvmfr_channels *set, const char *name, uint32_t tag);

/**
 * kvmfr_channel_remove - remove a channel (the host only)
 *
 * Whoever has it open gets ENODEV from then on. Its memory is reused as soon as
 * the guest has closed it.
 *
 * Errors: EINVAL: an invalid name. ENOENT: no such channel. EPERM: not the host.
 * ENODEV: see kvmfr_channels_event().
 */
KVMFR_API int kvmfr_channel_remove(struct kvmfr_channels *set, const char *name);

/* For kvmfr_channel_open(): read() and write() return -EAGAIN instead of waiting. */
#define KVMFR_CHANNEL_NONBLOCK	0x1

/**
 * kvmfr_channel_open - open this side's end of a channel
 * @channel: the open end, to be given to kvmfr_channel_close()
 *
 * Doesn't wait for the other end to be opened.
 *
 * Errors: EINVAL: an invalid name, or an unknown flag. ENOENT: no such channel.
 * EBUSY: this side's end is already open. EPERM: the set only observes. ENODEV:
 * see kvmfr_channels_event(). ENOMEM.
 */
KVMFR_API int kvmfr_channel_open(struct kvmfr_channels *set, const char *name,
				 unsigned int flags, struct kvmfr_channel **channel);

/**
 * kvmfr_channel_close - close an end
 *
 * The other end can still read what was written, then gets an end of file. What
 * this end has not read is lost. NULL is allowed.
 */
KVMFR_API void kvmfr_channel_close(struct kvmfr_channel *channel);

/**
 * kvmfr_channel_read - read what has come
 *
 * Waits for data, unless the channel is NONBLOCK.
 *
 * Returns the number of bytes read, 1 to @size. 0 (end of file): nothing is left,
 * and the other end is not open or has finished writing; or @size is 0. A
 * connection that ends gives one 0 or more. After that the channel connects again
 * by itself when the other end is opened.
 *
 * Errors: EAGAIN: no data (NONBLOCK only). EINTR: a signal while waiting. ENODEV:
 * the channel was removed, or see kvmfr_channels_event(). EPROTO: the other side
 * has broken the protocol; close the channel, it can be opened again.
 */
KVMFR_API ssize_t kvmfr_channel_read(struct kvmfr_channel *channel, void *data, size_t size);

/**
 * kvmfr_channel_write - write
 *
 * Waits until all is written. If the channel is NONBLOCK, writes as much as there
 * is room for.
 *
 * Returns the number of bytes written. It is less than @size if the channel is
 * NONBLOCK, or if an error came after some bytes were written.
 *
 * Errors: EAGAIN: no room, or the other end is not open (NONBLOCK only). EPIPE:
 * the connection is over, because the other end was closed or
 * kvmfr_channel_shutdown() was called; read until 0 to go on with the next.
 * EINTR, ENODEV, EPROTO as for kvmfr_channel_read().
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

#define KVMFR_CHANNEL_IN	0x1	/* read() doesn't wait: data, or the end of file */
#define KVMFR_CHANNEL_OUT	0x2	/* write() doesn't wait: there is room */
#define KVMFR_CHANNEL_HUP	0x4	/* the other end is not open */
#define KVMFR_CHANNEL_ERR	0x8	/* read() and write() fail with ENODEV or EPROTO */
#define KVMFR_CHANNEL_END	0x10	/* the connection is over; read until 0 for the next one */
#define KVMFR_CHANNEL_EOF	0x20	/* with IN: nothing is left to read, read() returns 0 */

/**
 * kvmfr_channel_poll - what can be done without waiting
 *
 * Returns KVMFR_CHANNEL_* bits. If IN or OUT is missing, the descriptor of the set
 * polls readable when it may have become possible; the same holds after a read()
 * or write() that returned -EAGAIN. Never blocks.
 */
KVMFR_API unsigned int kvmfr_channel_poll(struct kvmfr_channel *channel);

/**
 * kvmfr_channel_wait - wait until something can be done
 * @events: KVMFR_CHANNEL_IN, OUT or both. ERR always ends the wait. HUP does if
 *	the other end has been open during the wait. END ends a wait for OUT,
 *	since writing then fails with EPIPE
 * @timeout: in milliseconds; -1: no limit
 *
 * Returns KVMFR_CHANNEL_* bits, 0 after the timeout, or -EINTR.
 */
KVMFR_API int kvmfr_channel_wait(struct kvmfr_channel *channel, unsigned int events, int timeout);

/* The name of an open channel. Valid until the channel is closed. */
KVMFR_API const char *kvmfr_channel_name(const struct kvmfr_channel *channel);

#ifdef __cplusplus
}
#endif

#endif
