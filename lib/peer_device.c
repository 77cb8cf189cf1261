// SPDX-License-Identifier: MIT
/* A peer that is a /dev/kvmfrN. */
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* 'u' 0x50 to 0x52 may mean something else to another driver's device. */
static int check_class(int fd)
{
	char name[64], link[256];
	ssize_t length;
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	snprintf(name, sizeof(name), "/sys/dev/char/%u:%u/subsystem",
		 major(st.st_rdev), minor(st.st_rdev));
	length = readlink(name, link, sizeof(link) - 1);
	if (length < 0)
		return -ENODEV;
	link[length] = 0;
	return length >= 6 && !strcmp(link + length - 6, "/kvmfr") ? 0 : -ENODEV;
}

int kvmfr_device_open(struct kvmfr_peer *peer)
{
	struct kvmfr_doorbell_info info = { 0 };
	off_t size;
	int ret;

	peer->is_device = true;
	peer->memory = open(peer->path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (peer->memory < 0)
		return -errno;
	ret = check_class(peer->memory);
	if (ret)
		return ret;
	size = lseek(peer->memory, 0, SEEK_END);
	if (size < 0)
		return -errno;
	peer->size = size;

	/* An older module answers ENOTTY. */
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

int kvmfr_device_event(struct kvmfr_peer *peer, struct kvmfr_event *event)
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

int kvmfr_device_vector_fd(struct kvmfr_peer *peer, unsigned int vector)
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
