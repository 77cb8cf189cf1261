// SPDX-License-Identifier: GPL-2.0
/*
 * A libFuzzer target: a server that says anything to libkvmfr.
 *
 * The input is a row of commands of 10 bytes: what descriptor goes with it, how
 * many bytes are sent, and the bytes. The library must neither crash, block nor
 * lose a descriptor, whatever they are.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../lib/libkvmfr.h"

#define COMMAND	10

/* What is passed: an eventfd, memory, what is no memory, two at once, nothing. */
static int make_descriptors(unsigned int kind, int fd[2])
{
	switch (kind % 8) {
	case 0:
	case 1:
		fd[0] = eventfd(0, 0);
		return 1;
	case 2:
		fd[0] = memfd_create("fuzz", 0);
		if (ftruncate(fd[0], kind & 8 ? 4095 : 65536))
			abort();
		return 1;
	case 3:
		return pipe(fd) ? 0 : 2;
	case 4:
		fd[0] = open("/dev/null", kind & 8 ? O_RDWR : O_PATH);
		return 1;
	default:
		return 0;
	}
}

static void say(int server, const unsigned char *command)
{
	char control[CMSG_SPACE(2 * sizeof(int))] = { 0 };
	struct iovec part = {
		.iov_base = (void *)(command + 2),
		.iov_len = 1 + (command[1] + 7) % 8,
	};
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
	int fd[2], n = make_descriptors(command[0], fd);

	if (n) {
		header.msg_control = control;
		header.msg_controllen = CMSG_SPACE(n * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&header);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(c), fd, n * sizeof(int));
	}
	sendmsg(server, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n)
		close(fd[--n]);
}

/* As a program does: take the events, ring who is there, map what there is. */
static void use(struct kvmfr_peer *peer)
{
	struct kvmfr_event event;
	void *p;

	while (kvmfr_peer_event(peer, &event) == 1) {
		if (event.type == KVMFR_EVENT_PEER && event.vectors)
			kvmfr_peer_ring(peer, event.peer, event.vectors - 1);
		if (event.type != KVMFR_EVENT_READY)
			continue;
		if (kvmfr_peer_size(peer) <= 0)
			abort();
		if (!kvmfr_peer_map(peer, 0, kvmfr_peer_size(peer), &p))
			munmap(p, kvmfr_peer_size(peer));
	}
	for (unsigned int i = 0; i < kvmfr_peer_vectors(peer); i++)
		kvmfr_peer_vector_clear(peer, i);
}

/* How many of the first descriptors are open: more than before is a leak. */
static unsigned int count_descriptors(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 64; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	struct kvmfr_peer *peer;
	unsigned int before = count_descriptors();
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ||
	    kvmfr_peer_from_socket(pair[0], KVMFR_PEER_NONBLOCK, 1, &peer))
		abort();
	for (; size >= COMMAND; data += COMMAND, size -= COMMAND) {
		say(pair[1], data);
		use(peer);
	}
	close(pair[1]);
	use(peer);
	kvmfr_peer_close(peer);
	if (count_descriptors() != before)
		abort();
	return 0;
}
