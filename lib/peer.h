/* SPDX-License-Identifier: MIT */
/* The parts of a struct kvmfr_peer; private to the library. */
#ifndef LIBKVMFR_PEER_H
#define LIBKVMFR_PEER_H

#include <stdbool.h>

#include "../kvmfr.h"
#include "libkvmfr.h"

/* A peer: another one that a server has announced, or ourselves. */
struct kvmfr_end {
	int id;				/* -1: this place is free */
	unsigned int vectors;		/* entries of fd[] in use */
	unsigned int told;		/* how many were reported as events */
	int fd[KVMFR_VECTORS_MAX];	/* eventfds; on a device -1 until asked for */
};

struct kvmfr_peer {
	char *path;			/* NULL: made by kvmfr_peer_from_socket() */
	char slot[32];			/* PCI address of a device, or "" */
	unsigned int flags, wanted;
	bool is_device;
	bool ready;			/* KVMFR_EVENT_READY was reported */

	int fd;				/* for kvmfr_peer_fd() */
	int memory;			/* the device, or the server's memory; or -1 */
	uint64_t size;
	bool is_dmabuf;
	struct kvmfr_end self;

	/* with a server */
	int error;			/* why the connection has ended */
	bool greeted;			/* the version was right */
	unsigned char message[8];	/* being received: the first @received bytes of it */
	unsigned int received;
	int passed;			/* the descriptor that came with it, or -1 */
	struct kvmfr_end others[KVMFR_PEERS_MAX];
};

/* peer_device.c: opens and closes what belongs to a device. */
int kvmfr__device_open(struct kvmfr_peer *peer, const char *path);
int kvmfr__device_event(struct kvmfr_peer *peer, struct kvmfr_event *event);
int kvmfr__device_vector_fd(struct kvmfr_peer *peer, unsigned int vector);

/* The node of the device that is in this PCI slot now: 0, or -ENOENT. */
int kvmfr__device_in_slot(const char *slot, char node[64]);

/* peer_server.c: the client's side of the ivshmem protocol. */
int kvmfr__server_connect(struct kvmfr_peer *peer);
int kvmfr__server_event(struct kvmfr_peer *peer, struct kvmfr_event *event);
int kvmfr__server_wait(struct kvmfr_peer *peer);
int kvmfr__server_ring(struct kvmfr_peer *peer, unsigned int id,
		       unsigned int vector);
int kvmfr__server_dmabuf(struct kvmfr_peer *peer, uint64_t offset, uint64_t size);

#endif
