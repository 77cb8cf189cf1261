/* SPDX-License-Identifier: MIT */
/* Inside libkvmfr: a guest's memory, its map and where both come from. */
#ifndef KVMFR_MEMORY_H
#define KVMFR_MEMORY_H

#include "libkvmfr-memory.h"

#include <stdbool.h>

/* Bounds for QEMU's answers; for a guest of 4 TiB with 256 pc-dimms they take 30 KiB. */
#define MEMORY_TEXT_MAX		(16u << 20)
#define MEMORY_RANGES_MAX	4096

/* A RAM block that is attached: mapped here, or copied from a process. */
struct memory_mapping {
	const char *block;	/* of one of the ranges */
	enum kvmfr_memory_way way;
	bool write;
	uint64_t size;		/* in bytes, from the start of the block */
	/* mapped */
	int fd;			/* -1: none */
	uint64_t offset;	/* of the block in the file */
	char *data;
	/* copied */
	uint64_t there;		/* address of the block in the process */
	bool anonymous;		/* what the process never touched is zeros */
};

struct memory_process {
	pid_t pid;		/* 0: none */
	int fd;			/* a pidfd, so that a reused pid is noticed */
	int pagemap;		/* -1: not permitted */
};

struct kvmfr_memory {
	struct kvmfr_memory_range *ranges;
	size_t n_ranges;
	struct memory_mapping *mappings;
	size_t n_mappings;
	struct memory_qmp *qmp;	/* NULL: none */
	struct memory_process process;
};

/* memory.c */

/* Takes over the ranges. Errors: -ENOMEM, and then they are freed. */
int kvmfr__memory_new(struct kvmfr_memory_range *ranges, size_t count,
		      struct kvmfr_memory **memory);
const struct memory_mapping *kvmfr__memory_mapping_find(const struct kvmfr_memory *memory,
							const char *block);
/*
 * The block's name as in the ranges, and the end of its last range. @block NULL:
 * the block with the first RAM. Returns NULL if there is no such block.
 */
const char *kvmfr__memory_block(const struct kvmfr_memory *memory, const char *block,
				uint64_t *size);
/* Adds a copy of the mapping. Errors: -ENOMEM. */
int kvmfr__memory_mapping_add(struct kvmfr_memory *memory,
			      const struct memory_mapping *mapping);
/*
 * Maps @mapping->size bytes from @mapping->offset of @mapping->fd, which stays
 * the caller's after an error. Errors: -ERANGE, -ENODEV, what mmap() answers.
 */
int kvmfr__memory_mapping_map(struct memory_mapping *mapping);

/* memory_parse.c */

/*
 * The ranges of RAM and ROM in an answer to "info mtree -f", in ascending order,
 * without overlaps. The array and its names are freed by kvmfr__memory_ranges_free().
 * Errors: -EPROTO, -ENOMEM.
 */
int kvmfr__memory_parse(const char *text, struct kvmfr_memory_range **ranges,
			size_t *count);
void kvmfr__memory_ranges_free(struct kvmfr_memory_range *ranges, size_t count);

/* memory_qmp.c. The errors are those of kvmfr_memory_from_qmp(). */

#define MEMORY_EVENT_RESET	0x1	/* the guest was reset */
#define MEMORY_EVENT_RESIZED	0x2	/* virtio-mem gave or took memory */

int kvmfr__memory_qmp_open(const char *path, struct memory_qmp **qmp);
void kvmfr__memory_qmp_close(struct memory_qmp *qmp);
/* The process that listens at the socket. */
pid_t kvmfr__memory_qmp_pid(const struct memory_qmp *qmp);
/* MEMORY_EVENT_* so far; events are received only while an answer is waited for. */
unsigned int kvmfr__memory_qmp_events(const struct memory_qmp *qmp);
/* What a command of the human monitor prints, as a new string that the caller frees. */
int kvmfr__memory_qmp_monitor(struct memory_qmp *qmp, const char *command, char **text);
/*
 * QEMU writes its dump of @size bytes of guest-physical memory into the file.
 * Errors also: -EBUSY: QEMU refuses now, for example while it migrates.
 */
int kvmfr__memory_qmp_dump(struct memory_qmp *qmp, int fd, uint64_t address, uint64_t size);

/* memory_process.c */

/* Copies from or to the process. Errors: see kvmfr_memory_read(). */
int kvmfr__memory_process_copy(const struct memory_process *process, uint64_t there,
			       void *here, size_t size, bool write);
/*
 * Finds the next part of [*@begin, @end) that the process ever touched. 1: it
 * begins at *@begin and has *@size bytes. 0: there is none.
 */
int kvmfr__memory_process_touched(const struct memory_process *process, uint64_t *begin,
				  uint64_t end, uint64_t *size);
void kvmfr__memory_process_close(struct memory_process *process);

#endif
