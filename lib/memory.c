// SPDX-License-Identifier: MIT
/* A guest's physical memory: its ranges, and the files behind them. */
#include "memory.h"
#include "../kvmfr.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_NOTES	(16u << 20)
#define DUMP_BYTES	4096u

int kvmfr__memory_new(struct kvmfr_memory_range *ranges, size_t count,
		      struct kvmfr_memory **memory)
{
	struct kvmfr_memory *m = calloc(1, sizeof(*m));

	*memory = m;
	if (!m) {
		kvmfr__memory_ranges_free(ranges, count);
		return -ENOMEM;
	}
	m->ranges = ranges;
	m->n_ranges = count;
	m->process.fd = -1;
	m->process.pagemap = -1;
	return 0;
}

int kvmfr_memory_from_text(const char *text, struct kvmfr_memory **memory)
{
	struct kvmfr_memory_range *ranges;
	size_t count;
	int err;

	*memory = NULL;
	err = kvmfr__memory_parse(text, &ranges, &count);
	return err ?: kvmfr__memory_new(ranges, count, memory);
}

/* QEMU's current map. */
static int ask_ranges(struct memory_qmp *qmp, struct kvmfr_memory_range **ranges,
		      size_t *count)
{
	char *text;
	int err;

	err = kvmfr__memory_qmp_monitor(qmp, "info mtree -f", &text);
	if (err)
		return err;
	err = kvmfr__memory_parse(text, ranges, count);
	free(text);
	return err;
}

int kvmfr_memory_from_qmp(const char *socket, struct kvmfr_memory **memory)
{
	struct kvmfr_memory_range *ranges;
	struct memory_qmp *qmp;
	size_t count;
	int err;

	*memory = NULL;
	err = kvmfr__memory_qmp_open(socket, &qmp);
	if (err)
		return err;
	err = ask_ranges(qmp, &ranges, &count);
	if (!err)
		err = kvmfr__memory_new(ranges, count, memory);
	if (err) {
		kvmfr__memory_qmp_close(qmp);
		return err;
	}
	(*memory)->qmp = qmp;
	return 0;
}

static bool same_range(const struct kvmfr_memory_range *a,
		       const struct kvmfr_memory_range *b)
{
	return a->address == b->address && a->size == b->size &&
	       a->offset == b->offset && a->rom == b->rom &&
	       !strcmp(a->block, b->block);
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

/* Is all of the mapping in the file? -ERANGE: no. */
static int in_file(const struct memory_mapping *mapping)
{
	uint64_t size = 0;
	int err = file_size(mapping->fd, &size);

	if (err)
		return err;
	return size < mapping->offset || size - mapping->offset < mapping->size ? -ERANGE : 0;
}

int kvmfr_memory_check(const struct kvmfr_memory *memory)
{
	struct kvmfr_memory_range *ranges;
	unsigned int events;
	size_t count;
	int err, result = 0;

	for (size_t i = 0; i < memory->n_mappings; i++)
		if (memory->mappings[i].fd >= 0 && in_file(&memory->mappings[i]))
			return KVMFR_MEMORY_GONE;
	if (!memory->qmp)
		return -EOPNOTSUPP;
	err = ask_ranges(memory->qmp, &ranges, &count);
	if (err)
		return err;
	if (count != memory->n_ranges)
		result |= KVMFR_MEMORY_RESIZED;
	for (size_t i = 0; i < count && !result; i++)
		if (!same_range(&ranges[i], &memory->ranges[i]))
			result |= KVMFR_MEMORY_RESIZED;
	kvmfr__memory_ranges_free(ranges, count);

	events = kvmfr__memory_qmp_events(memory->qmp);
	if (events & MEMORY_EVENT_RESET)
		result |= KVMFR_MEMORY_RESET;
	if (events & MEMORY_EVENT_RESIZED)
		result |= KVMFR_MEMORY_RESIZED;
	return result;
}

void kvmfr_memory_close(struct kvmfr_memory *memory)
{
	if (!memory)
		return;
	for (size_t i = 0; i < memory->n_mappings; i++) {
		struct memory_mapping *mapping = &memory->mappings[i];

		if (mapping->way == KVMFR_MEMORY_COPIED)
			continue;
		munmap(mapping->data, mapping->size);
		close(mapping->fd);
	}
	free(memory->mappings);
	kvmfr__memory_process_close(&memory->process);
	kvmfr__memory_qmp_close(memory->qmp);
	kvmfr__memory_ranges_free(memory->ranges, memory->n_ranges);
	free(memory);
}

size_t kvmfr_memory_ranges(const struct kvmfr_memory *memory,
			   const struct kvmfr_memory_range **ranges)
{
	*ranges = memory->ranges;
	return memory->n_ranges;
}

const struct memory_mapping *kvmfr__memory_mapping_find(const struct kvmfr_memory *memory,
							const char *block)
{
	for (size_t i = 0; i < memory->n_mappings; i++)
		if (!strcmp(memory->mappings[i].block, block))
			return &memory->mappings[i];
	return NULL;
}

const char *kvmfr__memory_block(const struct kvmfr_memory *memory, const char *block,
				uint64_t *size)
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

enum kvmfr_memory_way kvmfr_memory_way(const struct kvmfr_memory *memory,
				       const char *block)
{
	const struct memory_mapping *mapping;
	uint64_t size;

	block = kvmfr__memory_block(memory, block, &size);
	mapping = block ? kvmfr__memory_mapping_find(memory, block) : NULL;
	return mapping ? mapping->way : KVMFR_MEMORY_NONE;
}

int kvmfr__memory_mapping_add(struct kvmfr_memory *memory,
			      const struct memory_mapping *mapping)
{
	size_t n = memory->n_mappings;
	struct memory_mapping *more;

	more = realloc(memory->mappings, (n + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	more[n] = *mapping;
	memory->mappings = more;
	memory->n_mappings++;
	return 0;
}

int kvmfr__memory_mapping_map(struct memory_mapping *mapping)
{
	int protection = mapping->write ? PROT_READ | PROT_WRITE : PROT_READ;
	int err = in_file(mapping);

	if (err)
		return err;
	mapping->data = mmap(NULL, mapping->size, protection, MAP_SHARED, mapping->fd,
			     mapping->offset);
	return mapping->data == MAP_FAILED ? -errno : 0;
}

int kvmfr_memory_attach(struct kvmfr_memory *memory, const char *block,
			const char *path, unsigned int flags)
{
	struct memory_mapping mapping = { .way = KVMFR_MEMORY_FILE };
	int err;

	if (flags & ~KVMFR_MEMORY_WRITE)
		return -EINVAL;
	mapping.write = flags & KVMFR_MEMORY_WRITE;
	mapping.block = kvmfr__memory_block(memory, block, &mapping.size);
	if (!mapping.block)
		return -ENOENT;
	if (kvmfr__memory_mapping_find(memory, mapping.block))
		return -EEXIST;

	mapping.fd = open(path, (mapping.write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
	if (mapping.fd < 0)
		return -errno;
	err = kvmfr__memory_mapping_map(&mapping);
	if (err)
		goto err_close;
	err = kvmfr__memory_mapping_add(memory, &mapping);
	if (err)
		goto err_unmap;
	return 0;

err_unmap:
	munmap(mapping.data, mapping.size);
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
	/* The size can't overflow: a map has at least one range, so no hole is 2^64 bytes. */
	*range = (struct kvmfr_memory_range) {
		.address = begin,
		.size = last - begin + 1,
	};
	return -EFAULT;
}

/* The range and the mapping of an address. */
static int find(const struct kvmfr_memory *memory, uint64_t address,
		struct kvmfr_memory_range *range, const struct memory_mapping **mapping)
{
	int err = kvmfr_memory_range(memory, address, range);

	if (err)
		return err;
	*mapping = kvmfr__memory_mapping_find(memory, range->block);
	return *mapping ? 0 : -ENXIO;
}

int kvmfr_memory_at(const struct kvmfr_memory *memory, uint64_t address,
		    void **pointer, uint64_t *reach)
{
	const struct memory_mapping *mapping;
	struct kvmfr_memory_range range;
	int err;

	err = find(memory, address, &range, &mapping);
	if (err)
		return err;
	if (mapping->way == KVMFR_MEMORY_COPIED)
		return -EOPNOTSUPP;
	*pointer = mapping->data + range.offset + (address - range.address);
	*reach = range.size - (address - range.address);
	return 0;
}

/* The part of a read or write that is in one range. @here NULL: only check it. */
static int copy_part(const struct kvmfr_memory *memory, uint64_t address, char *here,
		     size_t *size, bool write)
{
	const struct memory_mapping *mapping;
	struct kvmfr_memory_range range;
	uint64_t skip;
	int err;

	err = find(memory, address, &range, &mapping);
	if (err)
		return err;
	if (write && !mapping->write)
		return -EACCES;
	skip = address - range.address;
	if (*size > range.size - skip)
		*size = range.size - skip;
	if (!here)
		return 0;
	skip += range.offset;
	if (mapping->way == KVMFR_MEMORY_COPIED)
		return kvmfr__memory_process_copy(&memory->process, mapping->there + skip, here,
						  *size, write);
	if (write)
		memcpy(mapping->data + skip, here, *size);
	else
		memcpy(here, mapping->data + skip, *size);
	return 0;
}

static int copy(const struct kvmfr_memory *memory, uint64_t address, char *data,
		size_t size, bool write)
{
	size_t done, n;
	int err;

	if (size && address + (size - 1) < address)
		return -EFAULT;
	for (done = 0; done < size; done += n) {
		n = size - done;
		err = copy_part(memory, address + done, NULL, &n, write);
		if (err)
			return err;
	}
	for (done = 0; done < size; done += n) {
		n = size - done;
		err = copy_part(memory, address + done, data + done, &n, write);
		if (err)
			return err;
	}
	return 0;
}

int kvmfr_memory_read(const struct kvmfr_memory *memory, uint64_t address, void *data,
		      size_t size)
{
	return copy(memory, address, data, size, false);
}

int kvmfr_memory_write(const struct kvmfr_memory *memory, uint64_t address,
		       const void *data, size_t size)
{
	return copy(memory, address, (char *)data, size, true);
}

/* Finds data in a block's [*@begin, @end): 1 and *@size, or 0 if there is only a hole. */
static int data_in_file(const struct memory_mapping *mapping, uint64_t *begin,
			uint64_t end, uint64_t *size)
{
	off_t data, hole;

	data = lseek(mapping->fd, mapping->offset + *begin, SEEK_DATA);
	if (data < 0 && errno == ENXIO)
		return 0;
	hole = data < 0 ? -1 : lseek(mapping->fd, data, SEEK_HOLE);
	/* A device knows no holes: all of it is data. */
	if (hole < 0) {
		*size = end - *begin;
		return 1;
	}
	data -= mapping->offset;
	hole -= mapping->offset;
	if ((uint64_t)data >= end)
		return 0;
	*begin = data;
	*size = ((uint64_t)hole > end ? end : (uint64_t)hole) - data;
	return 1;
}

static int data_in_process(const struct kvmfr_memory *memory,
			   const struct memory_mapping *mapping, uint64_t *begin,
			   uint64_t end, uint64_t *size)
{
	uint64_t there = mapping->there + *begin;
	int result;

	if (!mapping->anonymous) {
		*size = end - *begin;
		return 1;
	}
	result = kvmfr__memory_process_touched(&memory->process, &there, mapping->there + end,
					       size);
	*begin = there - mapping->there;
	return result;
}

int kvmfr_memory_data(const struct kvmfr_memory *memory, uint64_t *address,
		      uint64_t *size)
{
	uint64_t from = *address;

	for (size_t i = 0; i < memory->n_ranges; i++) {
		const struct kvmfr_memory_range *range = &memory->ranges[i];
		const struct memory_mapping *mapping;
		uint64_t skip = from > range->address ? from - range->address : 0;
		uint64_t begin = range->offset + skip, end = range->offset + range->size;
		int result;

		mapping = kvmfr__memory_mapping_find(memory, range->block);
		if (!mapping || skip >= range->size)
			continue;
		result = mapping->way == KVMFR_MEMORY_COPIED ?
			 data_in_process(memory, mapping, &begin, end, size) :
			 data_in_file(mapping, &begin, end, size);
		if (result) {
			*address = range->address + (begin - range->offset);
			return 1;
		}
	}
	return 0;
}

/* Reads the notes of a 64-bit ELF core. */
static int read_notes(int fd, void **notes, size_t *size, unsigned int *machine)
{
	Elf64_Phdr segment = { };
	Elf64_Ehdr elf;

	if (pread(fd, &elf, sizeof(elf), 0) != sizeof(elf) ||
	    memcmp(elf.e_ident, ELFMAG, SELFMAG) || elf.e_ident[EI_CLASS] != ELFCLASS64 ||
	    elf.e_ident[EI_DATA] != ELFDATA2LSB)
		return -EPROTO;
	for (unsigned int i = 0; i < elf.e_phnum && segment.p_type != PT_NOTE; i++)
		if (pread(fd, &segment, sizeof(segment), elf.e_phoff + i * sizeof(segment)) !=
		    sizeof(segment))
			return -EPROTO;
	if (segment.p_type != PT_NOTE || !segment.p_filesz || segment.p_filesz > MAX_NOTES)
		return -EPROTO;
	*size = segment.p_filesz;
	*machine = elf.e_machine;
	*notes = malloc(*size);
	if (!*notes)
		return -ENOMEM;
	if (pread(fd, *notes, *size, segment.p_offset) == (ssize_t)*size)
		return 0;
	free(*notes);
	*notes = NULL;
	return -EPROTO;
}

int kvmfr_memory_notes(const struct kvmfr_memory *memory, void **notes, size_t *size,
		       unsigned int *machine)
{
	const struct kvmfr_memory_range *first = memory->ranges;
	int fd, err;

	*notes = NULL;
	if (!memory->qmp)
		return -EOPNOTSUPP;
	fd = memfd_create("kvmfr-notes", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* QEMU has to dump some memory; only the notes before it are wanted. */
	err = kvmfr__memory_qmp_dump(memory->qmp, fd, first->address,
				     first->size < DUMP_BYTES ? first->size : DUMP_BYTES);
	if (!err)
		err = read_notes(fd, notes, size, machine);
	close(fd);
	return err;
}
