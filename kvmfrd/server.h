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

struct server;

/* Is called when a peer has come or gone. */
typedef void (*server_changed)(void *data);

/* The memory stays the caller's. NULL: no memory left. */
struct server *server_new(sd_event *event, int memory, unsigned int vectors,
			  server_changed changed, void *data);
void server_free(struct server *server);

/*
 * A client has connected. The socket is the server's from now on. Answers the
 * new peer's id or a negative errno: -ENOSPC: there are SERVER_PEERS already.
 */
int server_accept(struct server *server, int fd);

/* How many peers there are, and the i-th of them. */
unsigned int server_peers(const struct server *server);
void server_peer(const struct server *server, unsigned int i, int *id, pid_t *pid);

#endif
