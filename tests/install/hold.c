// SPDX-License-Identifier: GPL-2.0
/*
 * hold NODE mapping|dmabuf: map all of a device, or make a DMA-BUF of it and
 * map that; touch every page, say "ready", and keep it until killed.
 * hold NODE is-zero: is all of it?
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../kvmfr.h"

int main(int argc, char **argv)
{
	struct kvmfr_dmabuf_create create = { .flags = KVMFR_DMABUF_FLAG_CLOEXEC };
	volatile char *memory;
	off_t size;
	int fd;

	if (argc != 3)
		return 2;
	fd = open(argv[1], O_RDWR | O_CLOEXEC);
	size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	if (size < 0) {
		perror(argv[1]);
		return 1;
	}
	if (!strcmp(argv[2], "dmabuf")) {
		int device = fd;

		create.size = size;
		fd = ioctl(device, KVMFR_DMABUF_CREATE, &create);
		if (fd < 0) {
			perror("KVMFR_DMABUF_CREATE");
			return 1;
		}
		close(device);
	}
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	if (!strcmp(argv[2], "is-zero")) {
		for (off_t i = 0; i < size; i++)
			if (memory[i])
				return 1;
		return 0;
	}
	for (off_t i = 0; i < size; i += 4096)
		memory[i] = 1;
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}
