// SPDX-License-Identifier: MIT
/* Channels in the memory of a struct kvmfr_peer. */
#include <errno.h>
#include <sys/mman.h>

#include "libkvmfr-channel.h"
#include "peer.h"

static int peer_clear(void *peer)
{
	return kvmfr_peer_vector_clear(peer, 0);
}

static int peer_ring(void *peer, uint32_t id, uint32_t vector)
{
	return kvmfr_peer_ring(peer, id, vector);
}

int kvmfr_channels_back(struct kvmfr_channels_backing *backing, struct kvmfr_peer *peer)
{
	int64_t size = kvmfr_peer_size(peer);
	int id = kvmfr_peer_id(peer), wake = kvmfr_peer_vector_fd(peer, 0);

	if (size < 0)
		return size;
	if (id < 0)
		return id;
	if (wake < 0)
		return wake;
	*backing = (struct kvmfr_channels_backing){
		.size = size,
		.fd = peer->memory,
		.id = id,
		.wake = wake,
		.clear = peer_clear,
		.ring = peer_ring,
		.opaque = peer,
	};
	return kvmfr_peer_map(peer, 0, size, &backing->memory);
}

void kvmfr_channels_unback(struct kvmfr_channels_backing *backing)
{
	munmap(backing->memory, backing->size);
	backing->memory = NULL;
}
