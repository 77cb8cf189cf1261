// SPDX-License-Identifier: MIT
/*
 * A guest's memory through its QEMU process: a file that QEMU has mapped shared is
 * mapped here, too; private memory is copied.
 *
 * The process isn't trusted. A file is written to only if the process itself has
 * it mapped shared and writable, so that it can't make a more privileged program
 * write to a file for it.
 */
#include "memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGEMAP_ENTRIES	512
#define PAGEMAP_PRESENT	(1ULL << 63)
#define PAGEMAP_SWAPPED	(1ULL << 62)

/* A line of /proc/PID/maps. */
struct area {
	uint64_t begin, end, offset, inode;
	dev_t device;
	bool shared, writable;
};

static bool parse_area(const char *line, struct area *area)
{
	unsigned int major, minor;
	char rights[5];

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64,
		   &area->begin, &area->end, rights, &area->offset, &major, &minor,
		   &area->inode) != 7)
		return false;
	area->device = makedev(major, minor);
	area->writable = rights[1] == 'w';
	area->shared = rights[3] == 's';
	return true;
}

/* Does b continue a? One mapping can be split into several areas. */
static bool goes_on(const struct area *a, const struct area *b)
{
	return a->end == b->begin && a->shared == b->shared &&
	       a->writable == b->writable && a->inode == b->inode &&
	       a->device == b->device &&
	       (!a->inode || a->offset + (a->end - a->begin) == b->offset);
}

/*
 * The area that contains the whole block or, if @there is 0, the only writable one
 * of its size.
 * Errors: -ENOENT: there is none. -EEXIST: there are several. What open() answers.
 */
static int find_area(const struct memory_process *process, uint64_t there,
		     uint64_t size, struct area *found)
{
	struct area area, last = { };
	char name[32], *line = NULL;
	size_t room = 0;
	int err = -ENOENT;
	FILE *maps;

	snprintf(name, sizeof(name), "/proc/%d/maps", process->pid);
	maps = fopen(name, "re");
	if (!maps)
		return errno == ENOENT ? -ESRCH : -errno;
	while (err != -EEXIST && getline(&line, &room, maps) >= 0) {
		if (!parse_area(line, &area))
			continue;
		if (there && goes_on(&last, &area)) {
			last.end = area.end;
			area = last;
		}
		last = area;
		if (there ? there >= area.begin && there < area.end &&
			    size <= area.end - there :
			    area.writable && area.end - area.begin == size) {
			err = there || err ? 0 : -EEXIST;
			*found = area;
		}
	}
	if (ferror(maps))
		err = -errno;
	free(line);
	fclose(maps);
	return err;
}

static bool is_areas_file(const struct area *area, const struct stat *st)
{
	return area->inode == st->st_ino && area->device == st->st_dev;
}

/* Opens one of the process's descriptors, if it is of the area's file. */
static int open_descriptor(const struct memory_process *process, int directory,
			   const char *name, const struct area *area, bool write)
{
	struct stat st;
	int fd;

	if (fstatat(directory, name, &st, 0) || !is_areas_file(area, &st))
		return -ENOENT;
	/* Opening it again gives a read-only descriptor, but needs the file's permissions. */
	fd = openat(directory, name, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = syscall(SYS_pidfd_getfd, process->fd, atoi(name), 0);
	if (fd < 0)
		return -errno;
	if (!fstat(fd, &st) && is_areas_file(area, &st))
		return fd;
	close(fd);
	return -ENOENT;
}

/* A descriptor of the area's file. -ENOENT: the process has none any more. */
static int open_area(const struct memory_process *process, const struct area *area,
		     bool write)
{
	struct dirent *entry;
	int err = -ENOENT;
	char name[32];
	DIR *fds;

	snprintf(name, sizeof(name), "/proc/%d/fd", process->pid);
	fds = opendir(name);
	if (!fds)
		return -errno;
	while (err < 0 && (entry = readdir(fds))) {
		int fd = open_descriptor(process, dirfd(fds), entry->d_name, area, write);

		if (fd >= 0 || fd != -ENOENT)
			err = fd;
	}
	closedir(fds);
	return err;
}

static bool is_alive(const struct memory_process *process)
{
	struct pollfd wait = { .fd = process->fd, .events = POLLIN };

	return !poll(&wait, 1, 0);
}

int kvmfr__memory_process_copy(const struct memory_process *process, uint64_t there,
			       void *here, size_t size, bool write)
{
	while (size) {
		struct iovec local = { here, size };
		struct iovec remote = { (void *)(uintptr_t)there, size };
		ssize_t n;

		n = write ? process_vm_writev(process->pid, &local, 1, &remote, 1, 0) :
			    process_vm_readv(process->pid, &local, 1, &remote, 1, 0);
		/* If the process is alive now, the pid was its own during the copy. */
		if (!is_alive(process))
			return -ESRCH;
		if (n <= 0)
			return !n || errno == EFAULT ? -ESTALE : -errno;
		here = (char *)here + n;
		there += n;
		size -= n;
	}
	return 0;
}

/* Did the process ever touch one of these pages? */
static bool is_touched(const struct memory_process *process, uint64_t begin, uint64_t end)
{
	const uint64_t page = sysconf(_SC_PAGESIZE);
	uint64_t entries[PAGEMAP_ENTRIES];
	ssize_t n;

	n = pread(process->pagemap, entries, ((end - 1) / page - begin / page + 1) * 8,
		  begin / page * 8);
	for (ssize_t i = 0; i < n / 8; i++)
		if (entries[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED))
			return true;
	return n <= 0;
}

int kvmfr__memory_process_touched(const struct memory_process *process, uint64_t *begin,
				  uint64_t end, uint64_t *size)
{
	const uint64_t step = PAGEMAP_ENTRIES * sysconf(_SC_PAGESIZE);
	uint64_t at, next;

	*size = 0;
	for (at = *begin; at < end; at = next) {
		next = at / step * step + step;
		if (next > end)
			next = end;
		if (is_touched(process, at, next)) {
			if (!*size)
				*begin = at;
			*size = next - *begin;
		} else if (*size) {
			break;
		}
	}
	return *size != 0;
}

void kvmfr__memory_process_close(struct memory_process *process)
{
	if (process->fd >= 0)
		close(process->fd);
	if (process->pagemap >= 0)
		close(process->pagemap);
}

/* The address of a block in QEMU. *@there is 0 without QMP. */
static int block_address(const struct kvmfr_memory *memory, const char *block,
			 uint64_t *there)
{
	const struct kvmfr_memory_range *range = memory->ranges;
	char command[40], *text, *is;
	int err;

	*there = 0;
	if (!memory->qmp)
		return 0;
	while (strcmp(range->block, block))
		range++;
	snprintf(command, sizeof(command), "gpa2hva 0x%" PRIx64, range->address);
	err = kvmfr__memory_qmp_monitor(memory->qmp, command, &text);
	if (err)
		return err;
	/* Host virtual address for 0x100000 (pc.ram) is 0x7f50bbf00000 */
	is = strstr(text, ") is 0x");
	if (is)
		*there = strtoull(is + strlen(") is "), NULL, 16) - range->offset;
	free(text);
	return *there ? 0 : -EPROTO;
}

/* The file behind an area that the process has mapped shared. */
static int attach_shared(struct kvmfr_memory *memory, struct memory_mapping *mapping,
			 const struct area *area)
{
	int err;

	if (!area->shared || (mapping->write && !area->writable))
		return -EACCES;
	mapping->way = KVMFR_MEMORY_SHARED;
	mapping->offset = area->offset + (mapping->there - area->begin);
	mapping->fd = open_area(&memory->process, area, mapping->write);
	if (mapping->fd < 0)
		return mapping->fd;
	err = kvmfr__memory_mapping_map(mapping);
	if (err)
		goto err_close;
	err = kvmfr__memory_mapping_add(memory, mapping);
	if (err)
		goto err_unmap;
	return 0;

err_unmap:
	munmap(mapping->data, mapping->size);
err_close:
	close(mapping->fd);
	return err;
}

static int attach_block(struct kvmfr_memory *memory, const char *block, bool write)
{
	struct memory_mapping mapping = { .fd = -1, .write = write };
	struct area area = { };
	char byte;
	int err;

	mapping.block = kvmfr__memory_block(memory, block, &mapping.size);
	err = block_address(memory, block, &mapping.there);
	if (!err)
		err = find_area(&memory->process, mapping.there, mapping.size, &area);
	if (err)
		return err;
	if (!mapping.there)
		mapping.there = area.begin;
	if (!attach_shared(memory, &mapping, &area))
		return 0;

	mapping.way = KVMFR_MEMORY_COPIED;
	mapping.fd = -1;
	mapping.anonymous = !area.shared && !area.inode && memory->process.pagemap >= 0;
	err = kvmfr__memory_process_copy(&memory->process, mapping.there, &byte, 1, false);
	return err ?: kvmfr__memory_mapping_add(memory, &mapping);
}

static int process_open(struct memory_process *process, pid_t pid)
{
	char name[32];

	kvmfr__memory_process_close(process);
	process->pid = pid;
	process->fd = syscall(SYS_pidfd_open, pid, 0);
	if (process->fd < 0)
		return -errno;
	snprintf(name, sizeof(name), "/proc/%d/pagemap", pid);
	process->pagemap = open(name, O_RDONLY | O_CLOEXEC);
	return 0;
}

int kvmfr_memory_attach_process(struct kvmfr_memory *memory, pid_t pid,
				unsigned int flags)
{
	int err, first = 0;

	if (flags & ~KVMFR_MEMORY_WRITE || pid < 0 || (!pid && !memory->qmp))
		return -EINVAL;
	if (memory->process.pid)
		return -EEXIST;
	err = process_open(&memory->process, pid ?: kvmfr__memory_qmp_pid(memory->qmp));
	if (err)
		return err;
	for (size_t i = 0; i < memory->n_ranges; i++) {
		const struct kvmfr_memory_range *range = &memory->ranges[i];

		if (kvmfr__memory_mapping_find(memory, range->block))
			continue;
		err = attach_block(memory, range->block,
				   !range->rom && (flags & KVMFR_MEMORY_WRITE));
		if (err && !range->rom && !first)
			first = err;
	}
	/* If the process is alive now, its pid was not reused meanwhile. */
	return is_alive(&memory->process) ? first : -ESRCH;
}

pid_t kvmfr_memory_process(const struct kvmfr_memory *memory)
{
	if (memory->process.pid)
		return memory->process.pid;
	return memory->qmp ? kvmfr__memory_qmp_pid(memory->qmp) : 0;
}
