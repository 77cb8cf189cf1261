/* SPDX-License-Identifier: GPL-2.0 */
/* For tests that compare free memory before and after something. */
#ifndef SETTLE_H
#define SETTLE_H

#include <dirent.h>
#include <limits.h>
#include <linux/membarrier.h>

#include "kvmfr_test.h"

/*
 * Makes all free memory count as free. It may be in caches, on per-CPU lists, waiting for a grace
 * period, or in KASAN's quarantine, which only shrinking a slab cache empties; or belong to kernel
 * addresses that are unmapped lazily (many at a time, or when a module is loaded or unloaded), with
 * an eighth of their size in KASAN's shadow.
 */
static inline void settle(void)
{
	char path[PATH_MAX];
	struct dirent *entry;
	DIR *dir;

	if (!module_load("kvmfr_importer", ""))
		module_unload("kvmfr_importer");
	sync();
	syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
	write_file("/proc/sys/vm/drop_caches", "3");
	dir = opendir("/sys/kernel/slab");
	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink", entry->d_name);
		write_file(path, "1");
	}
	if (dir)
		closedir(dir);
	/* All these files have been files, too. */
	syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
	write_file("/sys/kernel/slab/filp/shrink", "1");
	write_file("/proc/sys/vm/compact_memory", "1");
}

#endif
