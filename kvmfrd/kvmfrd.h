/* SPDX-License-Identifier: GPL-2.0 */
/* What kvmfrd's parts say to each other; server.h has the protocol. */
#ifndef KVMFRD_H
#define KVMFRD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* One line on standard error, exit 1. */
void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* memory.c: a new descriptor of the memory, whose size fstat() tells; or die(). */
int memory_of_device(const char *path);
int memory_of_size(uint64_t size);

/* socket.c: a listening socket at the path, with this access; or die(). */
int socket_listen(const char *path, mode_t mode, gid_t group);

#endif
