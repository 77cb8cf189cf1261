// SPDX-License-Identifier: MIT
/*
 * The map that QEMU gives a PC, from its machine type and the size of its RAM
 * (hw/i386/pc_piix.c and pc_q35.c, where "lowmem" is set).
 */
#include "memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KIB	(1ULL << 10)
#define MIB	(1ULL << 20)
#define GIB	(1ULL << 30)

/* Above this QEMU may move RAM out of the addresses that AMD's IOMMU reserves. */
#define SIZE_MAX_KNOWN	(960 * GIB)

static const struct {
	const char *name, *versions;
	uint64_t split_from;	/* less RAM than this is all below 4 GiB */
	uint64_t low;		/* from then on, this much is below 4 GiB */
} machines[] = {
	{ "pc", "pc-i440fx-", 3584 * MIB, 3 * GIB },
	{ "q35", "pc-q35-", 2816 * MIB, 2 * GIB },
};

static int add(struct kvmfr_memory_range *ranges, size_t *count, uint64_t address,
	       uint64_t size, uint64_t offset)
{
	struct kvmfr_memory_range *range = &ranges[*count];

	if (!size)
		return 0;
	*range = (struct kvmfr_memory_range) {
		.address = address,
		.size = size,
		.offset = offset,
		.block = strdup("pc.ram"),
	};
	if (!range->block)
		return -ENOMEM;
	(*count)++;
	return 0;
}

int kvmfr_memory_from_machine(const char *machine, uint64_t size,
			      struct kvmfr_memory **memory)
{
	struct kvmfr_memory_range *ranges;
	size_t i, count = 0, n = sizeof(machines) / sizeof(*machines);
	uint64_t low;
	int err;

	*memory = NULL;
	for (i = 0; i < n; i++)
		if (!strcmp(machine, machines[i].name) ||
		    !strncmp(machine, machines[i].versions, strlen(machines[i].versions)))
			break;
	if (i == n)
		return -ENOENT;
	if (size <= MIB || size > SIZE_MAX_KNOWN || size % (4 * KIB))
		return -EINVAL;
	low = size < machines[i].split_from ? size : machines[i].low;

	ranges = calloc(3, sizeof(*ranges));
	if (!ranges)
		return -ENOMEM;
	/* 640 KiB to 1 MiB is VGA, ROM or RAM, as the guest sets the chipset. */
	err = add(ranges, &count, 0, 640 * KIB, 0) ?:
	      add(ranges, &count, MIB, low - MIB, MIB) ?:
	      add(ranges, &count, 4 * GIB, size - low, low);
	if (err) {
		kvmfr__memory_ranges_free(ranges, count);
		return err;
	}
	return kvmfr__memory_new(ranges, count, memory);
}
