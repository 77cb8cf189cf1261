/* SPDX-License-Identifier: MIT */
/*
 * libkvmfr: memory shared between machines, for programs
 *
 * The library starts no threads, handles no signals and prints nothing. A
 * function blocks only if its comment says so. Two threads may use two objects
 * at once, but an object must not be used by two threads at once: there are no
 * locks inside.
 *
 * A function that can fail returns a negative errno, such as -ENODEV; errno
 * itself is not set. Sizes and offsets are in bytes. Strings that are passed in
 * are copied.
 */
#ifndef LIBKVMFR_H
#define LIBKVMFR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Marks what the library exports; libkvmfr.map lists the same names. */
#define KVMFR_API __attribute__((visibility("default")))

/* The library's version as in "1.1.0". A constant, never freed. */
KVMFR_API const char *kvmfr_library_version(void);

/*
 * Peers and doorbells
 *
 * A struct kvmfr_peer is this program's end of one shared memory: in a guest a
 * /dev/kvmfrN, on a host a connection to an ivshmem server such as kvmfrd. With
 * doorbells it has an id (0 to 65535) and vectors: any peer can ring any vector
 * of another. A ring carries no data; rings merge until the receiver clears the
 * vector.
 *
 * Trust: every number and descriptor from a server is checked (descriptors in
 * /proc, which must be mounted). A server can still close the connection, lie
 * about who is there, and shrink memory that isn't sealed (see
 * KVMFR_PEER_SEALED). With a file of a FUSE file system as the memory it can make
 * kvmfr_peer_event() and each access to the memory wait. Other peers can write to
 * the memory and ring at any time. A host process that shares an eventfd can make
 * kvmfr_peer_ring() block by clearing O_NONBLOCK and filling the eventfd in the
 * middle of the call; a guest can't.
 *
 * After fork() only one of the two processes may go on using an object. The other
 * should close it, which the first doesn't notice: the server sees the peer go
 * when both have closed it.
 */
struct kvmfr_peer;

#define KVMFR_PEERS_MAX		64	/* other peers that a server may announce */
#define KVMFR_VECTORS_MAX	64	/* vectors of one peer */

/* kvmfr_peer_open(): don't wait for the server's greeting. */
#define KVMFR_PEER_NONBLOCK	0x1
/*
 * Accept a server's memory only if it can't be shrunk, that is a memfd with
 * F_SEAL_SHRINK or a DMA-BUF. Accessing what was cut off would be SIGBUS.
 */
#define KVMFR_PEER_SEALED	0x2

/*
 * Opens a /dev/kvmfrN, or connects to the UNIX socket of an ivshmem server.
 *
 * @flags: KVMFR_PEER_*.
 * @vectors: how many own vectors the program will use, 0 to KVMFR_VECTORS_MAX.
 * @peer: the new object, to be closed with kvmfr_peer_close(); NULL on error.
 *
 * With a server, waits up to five seconds for the id, the memory and that many
 * vectors. With KVMFR_PEER_NONBLOCK it doesn't wait: whenever kvmfr_peer_fd() is
 * readable, call kvmfr_peer_event(), until KVMFR_EVENT_READY comes. Until then,
 * functions that need what is missing return -EAGAIN.
 *
 * Errors: -EINVAL: unknown flag, too many vectors. -ENODEV: @path is neither
 * a socket nor a kvmfr device, or the device is being unplugged. -ENXIO: the
 * device has fewer vectors. -ETIMEDOUT: the greeting wasn't complete in time.
 * -EAGAIN: with KVMFR_PEER_NONBLOCK, the server's backlog is full. -EPROTO: not
 * the ivshmem protocol. -EPERM: the memory isn't sealed (KVMFR_PEER_SEALED).
 * -ECONNRESET: the server closed the connection; it may be full.
 * -ENAMETOOLONG: too long for a socket's path. -ENOMEM, -EMFILE; and the errors
 * of stat(), open(), socket() and connect().
 */
KVMFR_API int kvmfr_peer_open(const char *path, unsigned int flags,
			      unsigned int vectors, struct kvmfr_peer **peer);

/*
 * As kvmfr_peer_open(), on a socket that is already connected. The object owns
 * @fd from then on; on error it is closed.
 */
KVMFR_API int kvmfr_peer_from_socket(int fd, unsigned int flags,
				     unsigned int vectors,
				     struct kvmfr_peer **peer);

/*
 * Closes the descriptors of the object and frees it. Mappings and DMA-BUFs that
 * were made of it belong to the caller and stay valid. NULL is allowed.
 */
KVMFR_API void kvmfr_peer_close(struct kvmfr_peer *peer);

/*
 * Opens the same path again after -ECONNRESET or -ENODEV, with the same flags
 * and number of vectors. The peer then has a new id and new vectors, knows no
 * other peers, and may have other memory. The object's old descriptors are
 * closed. Old mappings stay, but still show the old memory: map it again. A PCI
 * device is found by the slot that it was in, whatever its number is now.
 * Blocks as kvmfr_peer_open() does. On error the object is unchanged, and the
 * call can be repeated.
 *
 * Errors: as kvmfr_peer_open(). -ENOENT: the device or socket isn't back yet.
 * -EOPNOTSUPP: the object was made by kvmfr_peer_from_socket().
 */
KVMFR_API int kvmfr_peer_reopen(struct kvmfr_peer *peer);

/* The memory's size in bytes. Errors: -EAGAIN: not known yet. */
KVMFR_API int64_t kvmfr_peer_size(const struct kvmfr_peer *peer);

/*
 * The own peer id. Errors: -EAGAIN: not known yet. -EOPNOTSUPP: a device without
 * doorbells.
 */
KVMFR_API int kvmfr_peer_id(const struct kvmfr_peer *peer);

/* How many own vectors there are so far; 0 on a device without doorbells. */
KVMFR_API unsigned int kvmfr_peer_vectors(const struct kvmfr_peer *peer);

/*
 * Maps @size bytes from @offset, both multiples of the page size, for reading
 * and writing, at an address that allows huge pages. The caller owns the mapping
 * and ends it with munmap().
 *
 * Errors: -EINVAL: not aligned, or not inside the memory. -EAGAIN: the memory
 * isn't known yet. The errors of mmap().
 */
KVMFR_API int kvmfr_peer_map(struct kvmfr_peer *peer, uint64_t offset,
			     size_t size, void **address);

/*
 * Makes a DMA-BUF of a part of the memory; @offset and @size as in
 * kvmfr_peer_map(). Returns a new descriptor with FD_CLOEXEC that the caller owns.
 *
 * Errors: -EINVAL, -EAGAIN: as kvmfr_peer_map(). -EOPNOTSUPP: the server's memory
 * is a DMA-BUF and only a part was asked for, or there is no /dev/udmabuf. In a
 * guest, those of KVMFR_DMABUF_CREATE (kvmfr.h); on a host, those of opening
 * /dev/udmabuf and of UDMABUF_CREATE.
 */
KVMFR_API int kvmfr_peer_dmabuf(struct kvmfr_peer *peer, uint64_t offset,
				uint64_t size);

enum kvmfr_event_type {
	KVMFR_EVENT_READY = 1,	/* the id, the memory and the vectors asked for are there */
	KVMFR_EVENT_PEER = 2	/* another peer got a vector, or has gone (vectors == 0) */
};

struct kvmfr_event {
	uint32_t type;		/* enum kvmfr_event_type */
	uint32_t peer;		/* id of another peer, or the own with READY */
	uint32_t vectors;	/* how many it has now: one event for each, 1, 2, ... */
};

/*
 * The descriptor that polls readable when kvmfr_peer_event() has an event, and for
 * good after the connection has failed. The object owns it: don't read or close it.
 */
KVMFR_API int kvmfr_peer_fd(const struct kvmfr_peer *peer);

/*
 * Takes the next event. Returns 1 and fills *@event, or 0 if there is none. Call
 * it until it returns 0: after kvmfr_peer_open() and kvmfr_peer_reopen(), then
 * whenever kvmfr_peer_fd() is readable. Never blocks.
 *
 * A guest can't learn from its device who is there: a device has no event but
 * KVMFR_EVENT_READY.
 *
 * Errors, which end the connection: -ECONNRESET: the server has gone or closed
 * it. -EPROTO: the server broke the protocol. -EPERM: as kvmfr_peer_open().
 * -EMFILE: no descriptor was free for one that the server sent. Mappings stay and
 * known peers can still be rung; kvmfr_peer_reopen() connects again.
 */
KVMFR_API int kvmfr_peer_event(struct kvmfr_peer *peer,
			       struct kvmfr_event *event);

/*
 * Rings vector @vector of peer @id. What was written to the memory before is
 * visible to the peer when it is rung. Never blocks.
 *
 * Errors: -EINVAL: a number above 65535. -ENOENT (on a host only): no such peer
 * or vector; a guest isn't told. -EAGAIN (on a host only): the peer has not
 * cleared the vector for 2^64 rings. -EOPNOTSUPP: a device without doorbells.
 * -ENODEV: the device has been unplugged.
 */
KVMFR_API int kvmfr_peer_ring(struct kvmfr_peer *peer, unsigned int id,
			      unsigned int vector);

/*
 * The descriptor that polls readable when an own vector was rung, and once when
 * the device is unplugged. The object owns it: don't close it.
 *
 * Errors: -EINVAL: no such vector. -EAGAIN: the server has not sent it yet.
 * -ENODEV, -ENOSPC: see KVMFR_DOORBELL_EVENTFD in kvmfr.h. -EMFILE, -ENOMEM.
 */
KVMFR_API int kvmfr_peer_vector_fd(struct kvmfr_peer *peer,
				   unsigned int vector);

/*
 * Clears a vector, so that its descriptor is no longer readable. Returns 1 if it
 * was rung, 0 if not. Look at the memory after this call, not before, or a ring
 * can be lost.
 *
 * Errors: as kvmfr_peer_vector_fd(). -ENODEV: the device has been unplugged.
 */
KVMFR_API int kvmfr_peer_vector_clear(struct kvmfr_peer *peer,
				      unsigned int vector);

#ifdef __cplusplus
}
#endif

#endif
