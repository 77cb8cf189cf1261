/* SPDX-License-Identifier: GPL-2.0 */
/* What kvmfrd's parts say to each other; server.h has the protocol. */
#ifndef KVMFRD_H
#define KVMFRD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct server;

/* One line on standard error, exit 1. */
void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* memory.c: a new descriptor of the memory, whose size fstat() tells; or die(). */
int memory_of_device(const char *path);
int memory_of_size(uint64_t size);

/* socket.c: a listening socket at the path, with this access; or die(). */
int socket_listen(const char *path, mode_t mode, gid_t group);

/* status.c: what is served and who is there, in a file. */
struct status {
	const char *memory;		/* the device, or "memfd" */
	uint64_t size;			/* of the memory, in bytes */
	unsigned int vectors;
	const struct server *server;

	char *path;			/* NULL: there is no file */
	bool failed;			/* the last time; it was said */
};

/*
 * Writes the file, whose path is "SOCKET.status" if it is NULL. What can't be
 * written is said once, and the server serves all the same.
 */
void status_begin(struct status *status, const char *path, int listener);
void status_write(struct status *status);
/* Removes it. */
void status_end(struct status *status);

#endif
