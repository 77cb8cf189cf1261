// SPDX-License-Identifier: GPL-2.0
/* The memory that peers share. */
#include "kvmfrd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../kvmfr.h"

/* QEMU asks fstat() for the size, which only a DMA-BUF of the device knows. */
int memory_of_device(const char *path, bool alone)
{
	struct kvmfr_dmabuf_create create = { .flags = KVMFR_DMABUF_FLAG_CLOEXEC };
	int fd, dmabuf;
	off_t size;
	struct stat st;

	fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		die("%s: %s; 'kvmfrctl doctor' tells what is missing", path,
		    strerror(errno));
	if (fstat(fd, &st) || !S_ISCHR(st.st_mode))
		die("%s: is not a kvmfr device; for memory of its own use --size",
		    path);
	size = lseek(fd, 0, SEEK_END);
	if (size <= 0)
		die("%s: has no size, so it is not a kvmfr device", path);
	create.size = size;
	/* Each DMA-BUF is a file of its own, so the channels' lock on that would not do. */
	if (alone && flock(fd, LOCK_EX | LOCK_NB))
		die("%s: another kvmfrd with channels uses it", path);
	dmabuf = ioctl(fd, KVMFR_DMABUF_CREATE, &create);
	if (dmabuf < 0)
		die("%s: making a DMA-BUF of it: %s", path, strerror(errno));
	if (!alone)
		close(fd);	/* else it holds the lock */
	return dmabuf;
}

/* A memfd that no client can shrink under the others. */
int memory_of_size(uint64_t size)
{
	int fd = memfd_create("kvmfrd", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, size) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		die("making memory of %llu bytes: %s", (unsigned long long)size,
		    strerror(errno));
	return fd;
}
