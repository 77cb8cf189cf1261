// SPDX-License-Identifier: MIT
/* A guest's physical memory: its ranges, and the files that they lie in. */
#include "memory.h"
#include "../kvmfr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct mapping {
	const char *block;	/* of one of the ranges */
	int fd;
	char *data;
	uint64_t size;
};

struct kvmfr_memory {
	struct kvmfr_memory_range *ranges;
	size_t n_ranges;
	struct mapping *mappings;
	size_t n_mappings;
};

int kvmfr_memory_from_text(const char *text, struct kvmfr_memory **memory)
{
	struct kvmfr_memory *m = calloc(1, sizeof(*m));
	int err;

	*memory = NULL;
	if (!m)
		return -ENOMEM;
	err = memory_parse(text, &m->ranges, &m->n_ranges);
	if (err) {
		free(m);
		return err;
	}
	*memory = m;
	return 0;
}

int kvmfr_memory_from_qmp(const char *socket, struct kvmfr_memory **memory)
{
	char *text;
	int err;

	*memory = NULL;
	err = memory_ask_qmp(socket, &text);
	if (err)
		return err;
	err = kvmfr_memory_from_text(text, memory);
	free(text);
	return err;
}

void kvmfr_memory_close(struct kvmfr_memory *memory)
{
	if (!memory)
		return;
	for (size_t i = 0; i < memory->n_mappings; i++) {
		munmap(memory->mappings[i].data, memory->mappings[i].size);
		close(memory->mappings[i].fd);
	}
	free(memory->mappings);
	memory_ranges_free(memory->ranges, memory->n_ranges);
	free(memory);
}

size_t kvmfr_memory_ranges(const struct kvmfr_memory *memory,
			   const struct kvmfr_memory_range **ranges)
{
	*ranges = memory->ranges;
	return memory->n_ranges;
}

static const struct mapping *mapping_find(const struct kvmfr_memory *memory,
					  const char *block)
{
	for (size_t i = 0; i < memory->n_mappings; i++)
		if (!strcmp(memory->mappings[i].block, block))
			return &memory->mappings[i];
	return NULL;
}

/* The block's name as the ranges have it, and how much of it they reach. */
static const char *block_find(const struct kvmfr_memory *memory,
			      const char *block, uint64_t *size)
{
	const char *found = NULL;

	*size = 0;
	for (size_t i = 0; i < memory->n_ranges; i++) {
		const struct kvmfr_memory_range *range = &memory->ranges[i];

		if (!block && !range->rom)
			block = range->block;
		if (!block || strcmp(range->block, block))
			continue;
		found = range->block;
		if (range->offset + range->size > *size)
			*size = range->offset + range->size;
	}
	return found;
}

static int file_size(int fd, uint64_t *size)
{
	struct stat st;
	int bytes;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISREG(st.st_mode)) {
		*size = st.st_size;
		return 0;
	}
	if (!S_ISCHR(st.st_mode))
		return -ENODEV;
	/* The ioctl says that it is a kvmfr device; its result is an int. */
	bytes = ioctl(fd, KVMFR_DMABUF_GETSIZE, 0);
	if (bytes < 0 && errno == ENOTTY)
		return -ENODEV;
	st.st_size = lseek(fd, 0, SEEK_END);
	if (st.st_size > 0)
		*size = st.st_size;
	else if (bytes > 0)
		*size = bytes;
	else
		return -ENODEV;
	return 0;
}

int kvmfr_memory_attach(struct kvmfr_memory *memory, const char *block,
			const char *path, unsigned int flags)
{
	bool write = flags & KVMFR_MEMORY_WRITE;
	struct mapping mapping = { }, *more;
	uint64_t needed;
	int err;

	if (flags & ~KVMFR_MEMORY_WRITE)
		return -EINVAL;
	mapping.block = block_find(memory, block, &needed);
	if (!mapping.block)
		return -ENOENT;
	if (mapping_find(memory, mapping.block))
		return -EEXIST;
	more = realloc(memory->mappings, (memory->n_mappings + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	memory->mappings = more;

	mapping.fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
	if (mapping.fd < 0)
		return -errno;
	err = file_size(mapping.fd, &mapping.size);
	if (!err && mapping.size < needed)
		err = -ERANGE;
	if (err)
		goto err_close;
	mapping.data = mmap(NULL, mapping.size, write ? PROT_READ | PROT_WRITE : PROT_READ,
			    MAP_SHARED, mapping.fd, 0);
	if (mapping.data == MAP_FAILED) {
		err = -errno;
		goto err_close;
	}
	memory->mappings[memory->n_mappings++] = mapping;
	return 0;

err_close:
	close(mapping.fd);
	return err;
}

int kvmfr_memory_range(const struct kvmfr_memory *memory, uint64_t address,
		       struct kvmfr_memory_range *range)
{
	uint64_t begin = 0, last = UINT64_MAX;

	for (size_t i = 0; i < memory->n_ranges; i++) {
		const struct kvmfr_memory_range *r = &memory->ranges[i];

		if (address < r->address) {
			last = r->address - 1;
			break;
		}
		if (address - r->address < r->size) {
			*range = *r;
			return 0;
		}
		begin = r->address + r->size;
	}
	/* All 2^64 addresses can't be a hole: a map has at least one range. */
	*range = (struct kvmfr_memory_range) {
		.address = begin,
		.size = last - begin + 1,
	};
	return -EFAULT;
}

int kvmfr_memory_at(const struct kvmfr_memory *memory, uint64_t address,
		    void **pointer, uint64_t *reach)
{
	struct kvmfr_memory_range range;
	const struct mapping *mapping;
	int err;

	err = kvmfr_memory_range(memory, address, &range);
	if (err)
		return err;
	mapping = mapping_find(memory, range.block);
	if (!mapping)
		return -ENXIO;
	*pointer = mapping->data + range.offset + (address - range.address);
	*reach = range.size - (address - range.address);
	return 0;
}

/* The same for one range, from @skip bytes into it. */
static int data_in_range(const struct mapping *mapping,
			 const struct kvmfr_memory_range *range, uint64_t skip,
			 uint64_t *address, uint64_t *size)
{
	uint64_t begin = range->offset + skip, end = range->offset + range->size;
	off_t data, hole;

	data = lseek(mapping->fd, begin, SEEK_DATA);
	if (data < 0 && errno == ENXIO)
		return 0;
	hole = data < 0 ? -1 : lseek(mapping->fd, data, SEEK_HOLE);
	/* A device knows no holes: all of it is data. */
	if (hole < 0) {
		data = begin;
		hole = end;
	}
	if ((uint64_t)data >= end)
		return 0;
	if ((uint64_t)hole > end)
		hole = end;
	*address = range->address + (data - range->offset);
	*size = hole - data;
	return 1;
}

int kvmfr_memory_data(const struct kvmfr_memory *memory, uint64_t *address,
		      uint64_t *size)
{
	uint64_t from = *address;

	for (size_t i = 0; i < memory->n_ranges; i++) {
		const struct kvmfr_memory_range *range = &memory->ranges[i];
		const struct mapping *mapping = mapping_find(memory, range->block);
		uint64_t skip = from > range->address ? from - range->address : 0;

		if (mapping && skip < range->size &&
		    data_in_range(mapping, range, skip, address, size))
			return 1;
	}
	return 0;
}
