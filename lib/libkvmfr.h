/* SPDX-License-Identifier: MIT */
/*
 * libkvmfr: memory shared between machines, for programs
 *
 * The library has no threads, handles no signals and prints nothing. Nothing
 * blocks unless a function's text says so. Two threads may use two objects at
 * once; one object is used by one thread at a time.
 *
 * A function that can fail returns a negative errno, as in -ENODEV; errno
 * itself is not set.
 */
#ifndef LIBKVMFR_H
#define LIBKVMFR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Marks what the library exports; libkvmfr.map has the same names. */
#define KVMFR_API __attribute__((visibility("default")))

/* The library's version as in "1.1.0". A constant, never freed. */
KVMFR_API const char *kvmfr_library_version(void);

/*
 * Peers and doorbells
 *
 * A struct kvmfr_peer is this program's end of one shared memory: in a guest a
 * /dev/kvmfrN, on a host a connection to an ivshmem server such as kvmfrd. It
 * has an id (0 to 65535) and, where there are doorbells, vectors: any peer may
 * ring any vector of another. A ring carries nothing; rings that come before
 * the first was looked at become one.
 *
 * Every number and descriptor that comes from a server is checked. A server can
 * end the connection, lie about who is there and, if its memory isn't sealed,
 * shrink that (see KVMFR_PEER_SEALED). Another peer can write to the memory and
 * ring, at any time. Descriptors that are received are looked up in /proc,
 * which has to be mounted. One thing is left: a host process that shares an
 * eventfd can clear its O_NONBLOCK and fill or empty it at the same moment, so
 * that a call waits for it. A guest can't.
 */
struct kvmfr_peer;

#define KVMFR_PEERS_MAX		64	/* others that a server may announce */
#define KVMFR_VECTORS_MAX	64	/* of one peer */

/* kvmfr_peer_open(): return before the server has said all of its greeting. */
#define KVMFR_PEER_NONBLOCK	0x1
/*
 * Refuse a server's memory that could be shrunk, which would make an access
 * to it SIGBUS: only a memfd with F_SEAL_SHRINK or a DMA-BUF is taken.
 */
#define KVMFR_PEER_SEALED	0x2

/*
 * Opens a /dev/kvmfrN, or connects to the UNIX socket of an ivshmem server.
 *
 * @vectors: how many own vectors the program is going to use, 0 for none.
 * @peer: the new object, closed with kvmfr_peer_close(); NULL after an error.
 *
 * With a server it waits up to five seconds for the id, the memory and so many
 * vectors. With KVMFR_PEER_NONBLOCK it doesn't wait: call kvmfr_peer_event()
 * when kvmfr_peer_fd() is readable until KVMFR_EVENT_READY comes. Until then
 * the functions that need what is missing answer -EAGAIN.
 *
 * Errors: -EINVAL: unknown flag, too many vectors. -ENODEV: @path is neither
 * a socket nor a kvmfr device; the device is being unplugged. -ENXIO: the
 * device has fewer vectors. -ETIMEDOUT: the server didn't say enough in time.
 * -EAGAIN: with KVMFR_PEER_NONBLOCK, too many are waiting to be accepted.
 * -EPROTO: it doesn't speak the ivshmem protocol. -EPERM: KVMFR_PEER_SEALED.
 * -ECONNRESET: it closed the connection, perhaps because it is full. -ENOMEM,
 * -EMFILE; and what open(), socket() and connect() answer.
 */
KVMFR_API int kvmfr_peer_open(const char *path, unsigned int flags,
			      unsigned int vectors, struct kvmfr_peer **peer);

/*
 * As kvmfr_peer_open() on a socket that is connected already, which belongs to
 * the object from then on, or is closed if there is an error.
 */
KVMFR_API int kvmfr_peer_from_socket(int fd, unsigned int flags,
				     unsigned int vectors,
				     struct kvmfr_peer **peer);

/*
 * Closes what the object has; its mappings and DMA-BUFs belong to the caller
 * and stay. NULL is fine.
 */
KVMFR_API void kvmfr_peer_close(struct kvmfr_peer *peer);

/*
 * Starts anew after -ECONNRESET or -ENODEV, with the path, flags and vectors
 * of kvmfr_peer_open(): new id, new vectors, nobody known, and maybe other
 * memory. Descriptors of the object are other ones afterwards, and those from
 * before are closed; mappings stay what they were, and have to be made anew.
 * A PCI device is looked for in the slot that it was in, whatever its number is
 * now. After an error the object is as before and the call can be repeated.
 *
 * Errors: as kvmfr_peer_open(); -ENOENT: nothing is back yet. -EOPNOTSUPP: made
 * by kvmfr_peer_from_socket().
 */
KVMFR_API int kvmfr_peer_reopen(struct kvmfr_peer *peer);

/* The memory's size in bytes. Errors: -EAGAIN. */
KVMFR_API int64_t kvmfr_peer_size(const struct kvmfr_peer *peer);

/* The own id. Errors: -EAGAIN, -EOPNOTSUPP: a device without doorbells. */
KVMFR_API int kvmfr_peer_id(const struct kvmfr_peer *peer);

/* How many own vectors there are (so far); 0 on a device without doorbells. */
KVMFR_API unsigned int kvmfr_peer_vectors(const struct kvmfr_peer *peer);

/*
 * Maps @size bytes from @offset, both multiples of the page size, for reading
 * and writing. Where it makes a difference the address is one that huge pages
 * can be mapped at. The mapping is the caller's, who ends it with munmap().
 *
 * Errors: -EINVAL: not inside the memory. -EAGAIN. What mmap() answers.
 */
KVMFR_API int kvmfr_peer_map(struct kvmfr_peer *peer, uint64_t offset,
			     size_t size, void **address);

/*
 * Makes a DMA-BUF of a part; offset and size as in kvmfr_peer_map(). The result
 * is a new descriptor with FD_CLOEXEC that the caller owns.
 *
 * Errors: -EINVAL, -EAGAIN. -EOPNOTSUPP: the server's memory is a DMA-BUF and
 * only a part was asked for; or it has memory that can't be one. What the ioctl
 * of /dev/kvmfrN, on a host open() and the ioctl of /dev/udmabuf, answer.
 */
KVMFR_API int kvmfr_peer_dmabuf(struct kvmfr_peer *peer, uint64_t offset,
				uint64_t size);

enum kvmfr_event_type {
	KVMFR_EVENT_READY = 1,	/* id, memory and the vectors asked for are there */
	KVMFR_EVENT_PEER = 2,	/* another peer has so many vectors; 0: it has gone */
};

struct kvmfr_event {
	uint32_t type;		/* enum kvmfr_event_type */
	uint32_t peer;		/* id of another peer, or the own with READY */
	uint32_t vectors;	/* a peer comes as one event for each vector: 1, 2, ... */
};

/*
 * The descriptor that is readable when kvmfr_peer_event() has something; it is
 * the object's, never to be read or closed. After an error it stays readable.
 */
KVMFR_API int kvmfr_peer_fd(const struct kvmfr_peer *peer);

/*
 * Takes the next event. 1: there was one; 0: none now. Call it until there is
 * none: after kvmfr_peer_open() and kvmfr_peer_reopen(), then whenever
 * kvmfr_peer_fd() is readable.
 *
 * A guest has no way to learn who is there: on a device nothing comes after
 * KVMFR_EVENT_READY.
 *
 * Errors: -ECONNRESET: the server has gone or closed the connection. What was
 * mapped stays, peers can still be rung, nobody new comes: kvmfr_peer_reopen().
 * -EPROTO: it broke the protocol, and the connection is closed. -EPERM as in
 * kvmfr_peer_open(). -EMFILE: no descriptor is left for one that it sent, and
 * the connection is closed.
 */
KVMFR_API int kvmfr_peer_event(struct kvmfr_peer *peer,
			       struct kvmfr_event *event);

/*
 * Rings a vector of another peer.
 *
 * Errors: -ENOENT: on a host: there is no such peer or vector (a guest is not
 * told). -EAGAIN: on a host: the peer has not looked for 2^64 rings. -EINVAL: a
 * number above 65535. -EOPNOTSUPP: a device without doorbells. -ENODEV: the
 * device has been unplugged.
 */
KVMFR_API int kvmfr_peer_ring(struct kvmfr_peer *peer, unsigned int id,
			      unsigned int vector);

/*
 * The descriptor that is readable when an own vector was rung, the object's,
 * never to be closed. When a device is unplugged each becomes readable once.
 *
 * Errors: -EINVAL: there is no such vector. -ENODEV, -ENOSPC: see
 * KVMFR_DOORBELL_EVENTFD in kvmfr.h. -EMFILE, -ENOMEM.
 */
KVMFR_API int kvmfr_peer_vector_fd(struct kvmfr_peer *peer,
				   unsigned int vector);

/*
 * Makes the vector's descriptor unreadable again. Look at the memory after it,
 * not before, or a ring is lost. 1: it was rung; 0: it wasn't.
 *
 * Errors: as kvmfr_peer_vector_fd(). -ENODEV: the device has been unplugged.
 */
KVMFR_API int kvmfr_peer_vector_clear(struct kvmfr_peer *peer,
				      unsigned int vector);

#ifdef __cplusplus
}
#endif

#endif
