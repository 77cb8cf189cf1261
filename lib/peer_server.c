// SPDX-License-Identifier: MIT
/*
 * A peer that is a client of an ivshmem server.
 *
 * Only the server sends. A message is a little-endian int64 with at most one
 * descriptor. First come version 0, the client's id, and -1 with the memory. Then
 * an id with an eventfd announces one vector of that peer (the own id: one of the
 * own vectors), and an id without a descriptor says that the peer has gone. See
 * QEMU's docs/specs/ivshmem-spec.rst.
 */
#include "peer.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <linux/udmabuf.h>

#define DMA_BUF_MAGIC	0x444d4142
#define WAIT_MS		5000
#define DESCRIPTORS	8	/* received with one message at most; all but one are closed */

int kvmfr__server_connect(struct kvmfr_peer *peer)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval wait = { .tv_sec = WAIT_MS / 1000 };
	int nonblock = peer->flags & KVMFR_PEER_NONBLOCK ? SOCK_NONBLOCK : 0;

	if (strlen(peer->path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, peer->path);
	peer->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | nonblock, 0);
	if (peer->fd < 0)
		return -errno;
	/* bounds how long connect() waits for a place in the server's backlog */
	if (setsockopt(peer->fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)))
		return -errno;
	if (connect(peer->fd, (struct sockaddr *)&address, sizeof(address)))
		return errno == EAGAIN && !nonblock ? -ETIMEDOUT : -errno;
	return 0;
}

/* Keeps the descriptor of a received message; more than one is an error. */
static int take_descriptors(struct kvmfr_peer *peer, struct msghdr *header)
{
	int ret = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
		unsigned int n = 0;

		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
			n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (unsigned int i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (peer->passed < 0) {
				peer->passed = fd;
			} else {
				close(fd);
				ret = -EPROTO;
			}
		}
	}
	/* The kernel drops descriptors that don't fit into our table. */
	if (!ret && header->msg_flags & MSG_CTRUNC)
		ret = peer->passed < 0 ? -EMFILE : -EPROTO;
	return ret;
}

/* Receives a part of a message; returns its size, or 0 if there is nothing to receive. */
static int receive_part(struct kvmfr_peer *peer)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
	} control;
	struct iovec part = {
		.iov_base = peer->message + peer->received,
		.iov_len = sizeof(peer->message) - peer->received,
	};
	struct msghdr header = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(peer->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int ret;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	ret = take_descriptors(peer, &header);
	if (ret)
		return ret;
	if (!n)
		return -ECONNRESET;
	peer->received += n;
	return n;
}

/* 1: a message is complete; 0: not yet, and the socket is empty, as edge-triggered epoll needs. */
static int receive(struct kvmfr_peer *peer)
{
	int ret;

	do {
		ret = receive_part(peer);
	} while (ret > 0 && peer->received < sizeof(peer->message));
	return ret > 0 ? 1 : ret;
}

static bool is_eventfd(int fd)
{
	static const char name[] = "anon_inode:[eventfd]";
	char link[32], path[32];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link));
	return n == sizeof(name) - 1 && !memcmp(link, name, n);
}

/* Adds fd as the next vector. On error it stays the caller's. */
static int add_vector(struct kvmfr_end *end, int id, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (end->vectors == KVMFR_VECTORS_MAX || !is_eventfd(fd))
		return -EPROTO;
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return -EPROTO;
	end->id = id;
	end->fd[end->vectors++] = fd;
	return 0;
}

static struct kvmfr_end *find(struct kvmfr_peer *peer, int id)
{
	for (unsigned int i = 0; i < KVMFR_PEERS_MAX; i++)
		if (peer->others[i].id == id)
			return &peer->others[i];
	return NULL;
}

/* Takes the memory if its size is sane and, with KVMFR_PEER_SEALED, can't shrink. */
static int take_memory(struct kvmfr_peer *peer, int fd)
{
	uint64_t page = sysconf(_SC_PAGESIZE);
	struct statfs fs;
	struct stat st;
	int flags = fcntl(fd, F_GETFL);
	int seals = fcntl(fd, F_GET_SEALS);

	if (peer->memory >= 0 || flags < 0 || flags & O_PATH ||
	    (flags & O_ACCMODE) != O_RDWR || fstat(fd, &st) || fstatfs(fd, &fs))
		return -EPROTO;
	peer->is_dmabuf = fs.f_type == DMA_BUF_MAGIC;
	if ((!S_ISREG(st.st_mode) && !peer->is_dmabuf) || st.st_size <= 0 ||
	    st.st_size % page)
		return -EPROTO;
	if (peer->flags & KVMFR_PEER_SEALED && !peer->is_dmabuf &&
	    (seals < 0 || !(seals & F_SEAL_SHRINK)))
		return -EPERM;
	peer->memory = fd;
	peer->size = st.st_size;
	return 0;
}

/* An id with a vector's eventfd, or without (-1). 1: a peer that was reported has gone. */
static int take_peer(struct kvmfr_peer *peer, int id, int fd,
		     struct kvmfr_event *event)
{
	struct kvmfr_end *end = id == peer->self.id ? &peer->self : find(peer, id);
	bool told;
	int ret;

	if (peer->memory < 0 || (fd < 0 && (!end || end == &peer->self)))
		return -EPROTO;
	if (!end)
		end = find(peer, -1);
	if (!end)
		return -EPROTO;
	if (fd >= 0) {
		ret = add_vector(end, id, fd);
		if (!ret)
			peer->passed = -1;
		return ret;
	}
	while (end->vectors)
		close(end->fd[--end->vectors]);
	told = end->told;
	end->told = 0;
	end->id = -1;
	event->type = KVMFR_EVENT_PEER;
	event->peer = id;
	return told;
}

/* Handles one message. If peer->passed isn't taken, the caller closes it. */
static int take_message(struct kvmfr_peer *peer, struct kvmfr_event *event)
{
	uint64_t word;
	int64_t value;
	int fd = peer->passed, ret;

	memcpy(&word, peer->message, sizeof(word));
	value = (int64_t)le64toh(word);
	if (!peer->greeted) {
		if (value || fd >= 0)
			return -EPROTO;
		peer->greeted = true;
		return 0;
	}
	if (peer->self.id < 0) {
		if (value < 0 || value > 65535 || fd >= 0)
			return -EPROTO;
		peer->self.id = value;
		return 0;
	}
	if (value == -1 && fd >= 0) {
		ret = take_memory(peer, fd);
		if (!ret)
			peer->passed = -1;
		return ret;
	}
	if (value < 0 || value > 65535)
		return -EPROTO;
	return take_peer(peer, value, fd, event);
}

static bool is_ready(const struct kvmfr_peer *peer)
{
	return peer->memory >= 0 && peer->self.vectors >= peer->wanted;
}

/* Shuts the socket down but keeps it open, so that kvmfr_peer_fd() stays readable. */
static int fail(struct kvmfr_peer *peer, int error)
{
	if (peer->passed >= 0)
		close(peer->passed);
	peer->passed = -1;
	shutdown(peer->fd, SHUT_RDWR);
	peer->error = error;
	return error;
}

/* Receives a message. 0: none; 1: it was handled; 2: it was, and *@event is filled. */
static int step(struct kvmfr_peer *peer, struct kvmfr_event *event)
{
	int ret = receive(peer);

	if (!ret)
		return 0;
	if (ret > 0) {
		peer->received = 0;
		ret = take_message(peer, event);
		if (ret >= 0 && peer->passed >= 0)
			ret = -EPROTO;
	}
	return ret < 0 ? fail(peer, ret) : 1 + ret;
}

/* Reports what is known and not reported yet: READY, and vectors of other peers. */
static bool tell(struct kvmfr_peer *peer, struct kvmfr_event *event)
{
	if (!peer->ready && is_ready(peer)) {
		peer->ready = true;
		event->type = KVMFR_EVENT_READY;
		event->peer = peer->self.id;
		event->vectors = peer->self.vectors;
		return true;
	}
	for (unsigned int i = 0; i < KVMFR_PEERS_MAX; i++) {
		struct kvmfr_end *end = &peer->others[i];

		if (end->told == end->vectors)
			continue;
		event->type = KVMFR_EVENT_PEER;
		event->peer = end->id;
		event->vectors = ++end->told;
		return true;
	}
	return false;
}

int kvmfr__server_event(struct kvmfr_peer *peer, struct kvmfr_event *event)
{
	int ret;

	do {
		if (tell(peer, event))
			return 1;
		if (peer->error)
			return peer->error;
		ret = step(peer, event);
	} while (ret == 1);
	return ret < 0 ? ret : ret == 2;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

/* Reads messages up to READY. kvmfr__server_event() later reports the peers among them. */
int kvmfr__server_wait(struct kvmfr_peer *peer)
{
	struct pollfd wait = { .fd = peer->fd, .events = POLLIN };
	int64_t end = now_ms() + WAIT_MS, left;
	struct kvmfr_event event;
	int ret;

	if (peer->flags & KVMFR_PEER_NONBLOCK)
		return 0;
	while (!is_ready(peer)) {
		ret = step(peer, &event);
		if (ret < 0)
			return ret;
		left = end - now_ms();
		if (left <= 0)
			return -ETIMEDOUT;
		if (!ret && poll(&wait, 1, left) < 0 && errno != EINTR)
			return -errno;
	}
	return 0;
}

int kvmfr__server_ring(struct kvmfr_peer *peer, unsigned int id,
		       unsigned int vector)
{
	struct kvmfr_end *end = (int)id == peer->self.id ? &peer->self :
							   find(peer, id);
	struct pollfd room = { .events = POLLOUT };
	uint64_t one = 1;

	if (!end || vector >= end->vectors)
		return -ENOENT;
	/* The eventfd was made O_NONBLOCK, but whoever has it can undo that. */
	room.fd = end->fd[vector];
	if (poll(&room, 1, 0) != 1)
		return -EAGAIN;
	return write(room.fd, &one, sizeof(one)) < 0 ? -errno : 0;
}

int kvmfr__server_dmabuf(struct kvmfr_peer *peer, uint64_t offset, uint64_t size)
{
	struct udmabuf_create create = {
		.memfd = peer->memory,
		.flags = UDMABUF_FLAGS_CLOEXEC,
		.offset = offset,
		.size = size,
	};
	int fd, ret;

	if (peer->is_dmabuf) {
		if (offset || size != peer->size)
			return -EOPNOTSUPP;
		ret = fcntl(peer->memory, F_DUPFD_CLOEXEC, 0);
		return ret < 0 ? -errno : ret;
	}
	fd = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -EOPNOTSUPP : -errno;
	ret = ioctl(fd, UDMABUF_CREATE, &create);
	if (ret < 0)
		ret = -errno;
	close(fd);
	return ret;
}
