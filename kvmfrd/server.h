/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The server's side of the ivshmem protocol: who is there, and who has been
 * told of it. It doesn't know where the memory and the connections come from.
 */
#ifndef KVMFRD_SERVER_H
#define KVMFRD_SERVER_H

#include <sys/types.h>
#include <systemd/sd-event.h>

#define SERVER_PEERS	64
#define SERVER_VECTORS	64	/* at most, of each peer; libkvmfr takes no more */

#define SERVER_SELF	65535	/* the daemon's own id; QEMU may need 0 */

struct server;

/* Is called when a peer has come or gone. */
typedef void (*server_changed)(void *data);
/* A peer has gone. */
typedef void (*server_gone)(void *data, unsigned int id);

/* The memory stays the caller's. NULL: no memory left. */
struct server *server_new(sd_event *event, int memory, unsigned int vectors,
			  server_changed changed, void *data);
void server_free(struct server *server);

/*
 * A client has connected. The socket is the server's from now on. Answers the
 * new peer's id or a negative errno: -ENOSPC: there are SERVER_PEERS already.
 */
int server_accept(struct server *server, int fd);

/*
 * The daemon becomes a peer itself, in one of the places. Before any client.
 * Answers the eventfd of its vector 0, which is the server's, or a negative errno.
 */
int server_join(struct server *server, server_gone gone, void *data);

/*
 * Rings a vector of a peer. -ENOENT: there is none. -EAGAIN: it has not looked
 * for 2^64 rings.
 */
int server_ring(struct server *server, unsigned int id, unsigned int vector);

/* How many clients there are, and the i-th of them. */
unsigned int server_peers(const struct server *server);
void server_peer(const struct server *server, unsigned int i, int *id, pid_t *pid);

#endif
