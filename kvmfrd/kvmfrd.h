/* SPDX-License-Identifier: GPL-2.0 */
/* What kvmfrd's parts say to each other; server.h has the protocol. */
#ifndef KVMFRD_H
#define KVMFRD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

struct server;

/* One line on standard error, exit 1. */
void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
/* One line on standard error. */
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* An event loop that ends with SIGTERM and SIGINT; or die(). */
sd_event *event_loop(void);

/* Raises the limit of descriptors to @want if need be; how many there may be. */
unsigned long descriptors_want(unsigned long want);

/* memory.c: a new descriptor of the memory, whose size fstat() tells; or die(). */
int memory_of_device(const char *path);
int memory_of_size(uint64_t size);

/* Who may connect to a socket; -1: the owner or group that the daemon runs as. */
struct access {
	uid_t owner;
	gid_t group;
	mode_t mode;
};

/*
 * socket.c: a listening socket of this type at the path, whose directory is
 * made. -1: there can't be one, and standard error says why.
 */
int socket_listen(const char *path, int type, const struct access *access);

/* Where a listening socket is bound, to be freed; NULL if that is not a path from "/" on. */
char *socket_path(int listener);

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
