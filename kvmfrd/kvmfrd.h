/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of kvmfrd share. server.h has the ivshmem server. */
#ifndef KVMFRD_H
#define KVMFRD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

struct server;

/* Prints one line on standard error and exits with 1. */
void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
/* Prints one line on standard error. */
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A new event loop that SIGTERM, SIGINT and SIGHUP end. Calls die() on failure. */
sd_event *event_loop(void);

/* Raises the limit of descriptors to @want if it is lower; returns the new limit. */
unsigned long descriptors_want(unsigned long want);

/*
 * memory.c: a new descriptor of memory, with its size in fstat(). Call die() on failure.
 * @alone: as long as this process runs, no other can open the device so.
 */
int memory_of_device(const char *path, bool alone);
int memory_of_size(uint64_t size);

/* Who may connect to a socket. Owner or group -1: as the daemon runs. */
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

/* The path of a listening socket, freed by the caller; NULL if it is not absolute. */
char *socket_path(int listener);

/* status.c: a file that says what is served and which peers there are. */
struct status {
	const char *memory;		/* the device, or "memfd" */
	uint64_t size;			/* of the memory, in bytes */
	unsigned int vectors;
	const struct server *server;

	char *path;			/* NULL: there is no file */
	bool failed;			/* the last write failed, and that was reported */
};

/*
 * Writes the file, by default "SOCKET.status" (@path NULL). A failure is reported
 * once and doesn't stop the server.
 */
void status_begin(struct status *status, const char *path, int listener);
void status_write(struct status *status);
/* Removes the file. */
void status_end(struct status *status);

#endif
