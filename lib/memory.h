/* SPDX-License-Identifier: MIT */
/* Inside libkvmfr: a guest's memory, its map and where the map comes from. */
#ifndef KVMFR_MEMORY_H
#define KVMFR_MEMORY_H

#include "libkvmfr-memory.h"

/* What a QEMU may say; a guest of 4 TiB with 256 pc-dimms has 30 KiB. */
#define MEMORY_TEXT_MAX		(16u << 20)
#define MEMORY_RANGES_MAX	4096

/*
 * The answer to "info mtree -f" as a new string, freed by the caller.
 * Errors: see kvmfr_memory_from_qmp().
 */
int memory_ask_qmp(const char *path, char **text);

/*
 * The ranges of RAM and ROM in such an answer, in ascending order, without
 * overlaps. The array and its names are freed by memory_ranges_free().
 * Errors: -EPROTO, -ENOMEM.
 */
int memory_parse(const char *text, struct kvmfr_memory_range **ranges,
		 size_t *count);
void memory_ranges_free(struct kvmfr_memory_range *ranges, size_t count);

#endif
