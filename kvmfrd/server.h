/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The server's side of the ivshmem protocol: which peers there are, and what each
 * client was told. Memory and connections come from the caller.
 */
#ifndef KVMFRD_SERVER_H
#define KVMFRD_SERVER_H

#include <sys/types.h>
#include <systemd/sd-event.h>

#define SERVER_PEERS	64
#define SERVER_VECTORS	64	/* at most, of each peer; libkvmfr takes no more */

#define SERVER_SELF	65535	/* the daemon's own id; QEMU may need 0 */

struct server;

/* Called when a peer has come or gone. */
typedef void (*server_changed)(void *data);
/* Called with the id of a peer that has gone. */
typedef void (*server_gone)(void *data, unsigned int id);

/* The descriptor @memory stays the caller's. Returns NULL if out of memory. */
struct server *server_new(sd_event *event, int memory, unsigned int vectors,
			  server_changed changed, void *data);
void server_free(struct server *server);

/*
 * Adds a client that has connected. The server owns the socket from now on, also
 * after an error. Returns the new peer's id or a negative errno; -EUSERS: there are
 * SERVER_PEERS peers already.
 */
int server_accept(struct server *server, int fd);

/*
 * Makes the daemon a peer itself, before any client connects. It takes one of the
 * places. Returns the eventfd of its vector 0, which the server owns, or a negative
 * errno.
 */
int server_join(struct server *server, server_gone gone, void *data);

/*
 * Rings a vector of a peer. -ENOENT: no such peer or vector. -EAGAIN: the peer has
 * not read its eventfd for 2^64 rings.
 */
int server_ring(struct server *server, unsigned int id, unsigned int vector);

/* How many clients there are; the id and process of the i-th one. */
unsigned int server_peers(const struct server *server);
void server_peer(const struct server *server, unsigned int i, int *id, pid_t *pid);

#endif
