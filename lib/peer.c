// SPDX-License-Identifier: MIT
/* A peer of shared memory: the part that is common to guest and host. */
#include "peer.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define HUGE (2ul << 20)

static void end_close(struct kvmfr_end *end)
{
	for (unsigned int i = 0; i < end->vectors; i++)
		if (end->fd[i] >= 0)
			close(end->fd[i]);
	end->id = -1;
	end->vectors = 0;
}

/* No descriptor is open and no other peer known. */
static void peer_init(struct kvmfr_peer *peer)
{
	peer->fd = peer->memory = peer->passed = -1;
	peer->self.id = -1;
	for (unsigned int i = 0; i < KVMFR_PEERS_MAX; i++)
		peer->others[i].id = -1;
}

static void peer_release(struct kvmfr_peer *peer)
{
	end_close(&peer->self);
	for (unsigned int i = 0; i < KVMFR_PEERS_MAX; i++)
		end_close(&peer->others[i]);
	if (peer->passed >= 0)
		close(peer->passed);
	if (peer->memory >= 0)
		close(peer->memory);
	if (peer->fd >= 0)
		close(peer->fd);
}

static int peer_new(unsigned int flags, unsigned int vectors,
		    struct kvmfr_peer **result)
{
	struct kvmfr_peer *peer;

	*result = NULL;
	if (flags & ~(KVMFR_PEER_NONBLOCK | KVMFR_PEER_SEALED) ||
	    vectors > KVMFR_VECTORS_MAX)
		return -EINVAL;
	peer = calloc(1, sizeof(*peer));
	if (!peer)
		return -ENOMEM;
	peer_init(peer);
	peer->flags = flags;
	peer->wanted = vectors;
	*result = peer;
	return 0;
}

/*
 * Opens what the path names; after an error the caller releases what is open.
 * A device that was plugged in again is looked for by its slot, since its old
 * number may belong to another device now.
 */
static int peer_start(struct kvmfr_peer *peer, const char *slot)
{
	char node[64];
	struct stat st;
	int ret;

	if (*slot) {
		ret = kvmfr__device_in_slot(slot, node);
		return ret ? ret : kvmfr__device_open(peer, node);
	}
	if (stat(peer->path, &st))
		return -errno;
	if (S_ISCHR(st.st_mode))
		return kvmfr__device_open(peer, peer->path);
	if (!S_ISSOCK(st.st_mode))
		return -ENODEV;
	ret = kvmfr__server_connect(peer);
	return ret ? ret : kvmfr__server_wait(peer);
}

static int peer_open(const char *path, const char *slot, unsigned int flags,
		     unsigned int vectors, struct kvmfr_peer **result)
{
	int ret = peer_new(flags, vectors, result);

	if (ret)
		return ret;
	(*result)->path = strdup(path);
	ret = (*result)->path ? peer_start(*result, slot) : -ENOMEM;
	if (ret) {
		kvmfr_peer_close(*result);
		*result = NULL;
	}
	return ret;
}

int kvmfr_peer_open(const char *path, unsigned int flags, unsigned int vectors,
		    struct kvmfr_peer **result)
{
	return peer_open(path, "", flags, vectors, result);
}

int kvmfr_peer_from_socket(int fd, unsigned int flags, unsigned int vectors,
			   struct kvmfr_peer **result)
{
	int ret = peer_new(flags, vectors, result);

	if (ret) {
		close(fd);
		return ret;
	}
	(*result)->fd = fd;
	ret = kvmfr__server_wait(*result);
	if (ret) {
		kvmfr_peer_close(*result);
		*result = NULL;
	}
	return ret;
}

void kvmfr_peer_close(struct kvmfr_peer *peer)
{
	if (!peer)
		return;
	peer_release(peer);
	free(peer->path);
	free(peer);
}

int kvmfr_peer_reopen(struct kvmfr_peer *peer)
{
	struct kvmfr_peer *fresh;
	int ret;

	if (!peer->path)
		return -EOPNOTSUPP;
	ret = peer_open(peer->path, peer->slot, peer->flags, peer->wanted, &fresh);
	if (ret)
		return ret;
	peer_release(peer);
	free(peer->path);
	*peer = *fresh;
	free(fresh);
	return 0;
}

int64_t kvmfr_peer_size(const struct kvmfr_peer *peer)
{
	return peer->memory < 0 ? -EAGAIN : (int64_t)peer->size;
}

int kvmfr_peer_id(const struct kvmfr_peer *peer)
{
	if (peer->self.id < 0)
		return peer->is_device ? -EOPNOTSUPP : -EAGAIN;
	return peer->self.id;
}

unsigned int kvmfr_peer_vectors(const struct kvmfr_peer *peer)
{
	return peer->self.vectors;
}

int kvmfr_peer_fd(const struct kvmfr_peer *peer)
{
	return peer->fd;
}

int kvmfr_peer_event(struct kvmfr_peer *peer, struct kvmfr_event *event)
{
	memset(event, 0, sizeof(*event));
	return peer->is_device ? kvmfr__device_event(peer, event) :
				 kvmfr__server_event(peer, event);
}

/* 0 if it is a part of the memory in whole pages; else an errno. */
static int part_check(const struct kvmfr_peer *peer, uint64_t offset,
		      uint64_t size)
{
	uint64_t page = sysconf(_SC_PAGESIZE);

	if (peer->memory < 0)
		return -EAGAIN;
	if (!size || (offset | size) & (page - 1) || size > peer->size ||
	    offset > peer->size - size)
		return -EINVAL;
	return 0;
}

/*
 * Reserves addresses for a mapping. The kernel maps huge pages where address and
 * offset agree modulo HUGE, so HUGE bytes more than needed are reserved. What is
 * too much in front is given back here, the *@left bytes behind by the caller.
 */
static char *reserve(uint64_t offset, size_t size, size_t *left)
{
	size_t before;
	char *p;

	if (size > SIZE_MAX - HUGE)
		return MAP_FAILED;
	p = mmap(NULL, size + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return p;
	before = (offset - (uintptr_t)p) & (HUGE - 1);
	if (before)
		munmap(p, before);
	*left = HUGE - before;
	return p + before;
}

int kvmfr_peer_map(struct kvmfr_peer *peer, uint64_t offset, size_t size,
		   void **address)
{
	int ret = part_check(peer, offset, size);
	size_t left = 0;
	char *place, *p;

	*address = NULL;
	if (ret)
		return ret;
	place = reserve(offset, size, &left);
	if (place == MAP_FAILED)
		return -ENOMEM;
	/* Before mmap(), so that nothing is left to fail after it. */
	munmap(place + size, left);
	p = mmap(place, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		 peer->memory, offset);
	if (p == MAP_FAILED) {
		ret = -errno;
		munmap(place, size);
		return ret;
	}
	*address = p;
	return 0;
}

int kvmfr_peer_dmabuf(struct kvmfr_peer *peer, uint64_t offset, uint64_t size)
{
	struct kvmfr_dmabuf_create create = {
		.flags = KVMFR_DMABUF_FLAG_CLOEXEC,
		.offset = offset,
		.size = size,
	};
	int ret = part_check(peer, offset, size);

	if (ret)
		return ret;
	if (!peer->is_device)
		return kvmfr__server_dmabuf(peer, offset, size);
	ret = ioctl(peer->memory, KVMFR_DMABUF_CREATE, &create);
	return ret < 0 ? -errno : ret;
}

int kvmfr_peer_ring(struct kvmfr_peer *peer, unsigned int id,
		    unsigned int vector)
{
	struct kvmfr_doorbell_ring ring = { .peer = id, .vector = vector };

	if (id > 65535 || vector > 65535)
		return -EINVAL;
	if (!peer->is_device)
		return kvmfr__server_ring(peer, id, vector);
	if (peer->self.id < 0)
		return -EOPNOTSUPP;
	return ioctl(peer->memory, KVMFR_DOORBELL_RING, &ring) ? -errno : 0;
}

int kvmfr_peer_vector_fd(struct kvmfr_peer *peer, unsigned int vector)
{
	if (vector >= peer->self.vectors)
		return vector < peer->wanted ? -EAGAIN : -EINVAL;
	return peer->is_device ? kvmfr__device_vector_fd(peer, vector) :
				 peer->self.fd[vector];
}

int kvmfr_peer_vector_clear(struct kvmfr_peer *peer, unsigned int vector)
{
	int fd = kvmfr_peer_vector_fd(peer, vector);
	struct kvmfr_doorbell_info info;
	uint64_t count;
	struct iovec part = { .iov_base = &count, .iov_len = sizeof(count) };

	if (fd < 0)
		return fd;
	/* The eventfd was made O_NONBLOCK, but whoever has it can undo that. */
	if (preadv2(fd, &part, 1, -1, RWF_NOWAIT) != sizeof(count))
		return errno == EAGAIN ? 0 : -errno;
	if (peer->is_device && ioctl(peer->memory, KVMFR_DOORBELL_INFO, &info))
		return -errno;
	return 1;
}
