// SPDX-License-Identifier: MIT
/* A peer that is a /dev/kvmfrN. */
#include "peer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* The last component of what a link in the device's sysfs directory points to. */
static int link_name(const struct stat *st, const char *name, char *result,
		     size_t size)
{
	char path[80], link[256], *last;
	ssize_t length;

	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/%s", major(st->st_rdev),
		 minor(st->st_rdev), name);
	length = readlink(path, link, sizeof(link) - 1);
	if (length < 0)
		return -ENODEV;
	link[length] = 0;
	last = strrchr(link, '/');
	if (!last || strlen(last + 1) >= size)
		return -ENODEV;
	strcpy(result, last + 1);
	return 0;
}

/*
 * Checks that it is a kvmfr device, since 'u' 0x50 to 0x52 may mean something else
 * to another driver, and finds its PCI slot.
 */
static int identify(struct kvmfr_peer *peer)
{
	char class[16];
	struct stat st;

	if (fstat(peer->memory, &st))
		return -errno;
	if (link_name(&st, "subsystem", class, sizeof(class)) || strcmp(class, "kvmfr"))
		return -ENODEV;
	/* Static memory has no slot. */
	if (link_name(&st, "device", peer->slot, sizeof(peer->slot)))
		peer->slot[0] = 0;
	return 0;
}

int kvmfr__device_in_slot(const char *slot, char node[64])
{
	char path[96];
	struct dirent *entry;
	int ret = -ENOENT;
	DIR *dir;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/kvmfr", slot);
	dir = opendir(path);
	while (dir && ret && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.' || strlen(entry->d_name) > 32)
			continue;
		snprintf(node, 64, "/dev/%.32s", entry->d_name);
		ret = 0;
	}
	if (dir)
		closedir(dir);
	return ret;
}

int kvmfr__device_open(struct kvmfr_peer *peer, const char *path)
{
	struct kvmfr_doorbell_info info = { 0 };
	off_t size;
	int ret;

	peer->is_device = true;
	peer->memory = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (peer->memory < 0)
		return -errno;
	ret = identify(peer);
	if (ret)
		return ret;
	size = lseek(peer->memory, 0, SEEK_END);
	if (size < 0)
		return -errno;
	peer->size = size;

	/* ENOTTY: a module without doorbells */
	if (!ioctl(peer->memory, KVMFR_DOORBELL_INFO, &info))
		peer->self.id = info.id;
	else if (errno != EOPNOTSUPP && errno != ENOTTY)
		return -errno;
	if (info.vectors < peer->wanted)
		return -ENXIO;
	if (info.vectors > KVMFR_VECTORS_MAX)
		info.vectors = KVMFR_VECTORS_MAX;
	for (; peer->self.vectors < info.vectors; peer->self.vectors++)
		peer->self.fd[peer->self.vectors] = -1;

	/* Readable until KVMFR_EVENT_READY has been taken. */
	peer->fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	return peer->fd < 0 ? -errno : 0;
}

int kvmfr__device_event(struct kvmfr_peer *peer, struct kvmfr_event *event)
{
	uint64_t count;

	if (read(peer->fd, &count, sizeof(count)) != sizeof(count))
		return 0;
	peer->ready = true;
	event->type = KVMFR_EVENT_READY;
	event->peer = peer->self.id < 0 ? 0 : peer->self.id;
	event->vectors = peer->self.vectors;
	return 1;
}

int kvmfr__device_vector_fd(struct kvmfr_peer *peer, unsigned int vector)
{
	struct kvmfr_doorbell_eventfd eventfd_arg = { .vector = vector };
	int fd = peer->self.fd[vector];

	if (fd >= 0)
		return fd;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	eventfd_arg.fd = fd;
	if (ioctl(peer->memory, KVMFR_DOORBELL_EVENTFD, &eventfd_arg)) {
		int ret = -errno;

		close(fd);
		return ret;
	}
	peer->self.fd[vector] = fd;
	return fd;
}
