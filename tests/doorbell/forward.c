// SPDX-License-Identifier: GPL-2.0
/*
 * forward: what a guest of tests/doorbell/check runs. Prints KTAP.
 *
 * Rings peer 0, the host, with vector 0 to say that it is there. From then on
 * passes every ring on: to the peer whose id is in the memory, at 64 bytes
 * for each guest's id, and to the same vector. 65535 there means: end.
 */
#include <err.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "../../lib/libkvmfr.h"

#define VECTORS	4
#define END	65535

static void must(int result, const char *what)
{
	if (result < 0)
		errx(1, "%s: %s", what, strerror(-result));
}

/* Waits for rings and passes them on; 0 when it is to end. */
static int forward(struct kvmfr_peer *peer, struct pollfd *waits,
		   const _Atomic uint32_t *target)
{
	if (poll(waits, VECTORS, -1) < 0)
		err(1, "poll");
	for (unsigned int i = 0; i < VECTORS; i++) {
		uint32_t to;

		if (!waits[i].revents)
			continue;
		must(kvmfr_peer_vector_clear(peer, i), "clear");
		to = atomic_load(target);
		if (to == END)
			return 0;
		must(kvmfr_peer_ring(peer, to, i), "ring");
	}
	return 1;
}

int main(void)
{
	struct pollfd waits[VECTORS];
	struct kvmfr_peer *peer;
	void *memory;
	int id;

	printf("KTAP version 1\n1..1\n");
	must(kvmfr_peer_open("/dev/kvmfr0", 0, VECTORS, &peer), "/dev/kvmfr0");
	must(kvmfr_peer_map(peer, 0, kvmfr_peer_size(peer), &memory), "map");
	id = kvmfr_peer_id(peer);
	must(id, "id");
	for (unsigned int i = 0; i < VECTORS; i++) {
		waits[i] = (struct pollfd){ kvmfr_peer_vector_fd(peer, i), POLLIN, 0 };
		must(waits[i].fd, "vector");
	}
	must(kvmfr_peer_ring(peer, 0, 0), "ring the host");
	while (forward(peer, waits, (void *)((char *)memory + 64 * id)))
		;
	kvmfr_peer_close(peer);
	printf("ok 1 rings_are_passed_on\n");
	return 0;
}
