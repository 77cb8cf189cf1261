/* SPDX-License-Identifier: GPL-2.0 */
/* For tests that compare what memory is free: before and after something. */
#ifndef SETTLE_H
#define SETTLE_H

#include <dirent.h>
#include <limits.h>
#include <linux/membarrier.h>

#include "kvmfr_test.h"

/*
 * Nothing is hidden afterwards: in caches, on lists of a CPU, behind the end of a grace period, or
 * in the quarantine where KASAN keeps what was freed, and which only the shrinking of a slab
 * empties. Nor behind kernel addresses that are unmapped: they are given back many at a time, with
 * what KASAN keeps for them, an eighth of their size; and whenever a module comes or goes.
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
