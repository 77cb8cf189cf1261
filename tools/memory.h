/* SPDX-License-Identifier: GPL-2.0 */
/* kvmfrctl memory: what its actions share. */
#ifndef MEMORY_H
#define MEMORY_H

#include "kvmfrctl.h"
#include "../lib/libkvmfr-memory.h"

#define MAX_FILES	64
/* How many bytes are handled between two steps of the progress */
#define MEMORY_STEP	(16 * MIB)

/* For SIGBUS, and for EFAULT of a system call that was given a mapping. */
#define MEMORY_GONE	"the memory went away: its file became shorter, or has no page left to give"

struct request {
	const char *qmp;
	const char *machine;
	const char *size;
	const char *name;
	pid_t pid;
	const char *files[MAX_FILES];	/* PATH or BLOCK=PATH */
	int n_files;
	bool json, memmap;
	char **arguments;
	struct kvmfr_memory *memory;
};

/* memory.c */

/*
 * Up to MEMORY_STEP bytes at an address, all in one range; valid until the next call.
 * If there is no memory, calls fail() with a message that names what is there.
 */
const char *memory_bytes(const struct request *r, uint64_t address, uint64_t max,
			 uint64_t *size);

/* How many bytes of attached memory are below an address, for the progress. */
uint64_t memory_below(const struct request *r, uint64_t address);

/* memory_guest.c: a QEMU process. Each calls fail() if there is none. */

pid_t guest_named(const char *name);
/* The machine type and the size of the RAM in bytes, from the command line. */
void guest_machine(pid_t pid, const char **machine, uint64_t *size);
/* Parses "4G", or a plain number of @unit bytes. Calls misuse() for anything else. */
uint64_t guest_size(const char *s, uint64_t unit);
/* The end of an error message: why this process may not be looked into. */
const char *guest_permission(pid_t pid);

/* memory_search.c, memory_core.c: actions. Each returns the exit status. */
int memory_search(struct request *r);
int memory_core(struct request *r);

#endif
