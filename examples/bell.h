/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How the examples wait for each other: by doorbell where there is one, else by
 * looking again in a moment.
 *
 * The viewer, on the host, is told by the server who is there and rings all of
 * them. The writer, in a guest, is told by nobody: the viewer's id is in the
 * memory.
 */
#ifndef KVMFR_EXAMPLES_BELL_H
#define KVMFR_EXAMPLES_BELL_H

#include <err.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>

#include "../lib/libkvmfr.h"
#include "frames.h"

struct bell {
	struct kvmfr_peer *peer;	/* NULL: polling */
	bool others[65536];		/* who is there, as a server tells */
	uint64_t wakeups;
};

/* path: a server's socket, or a guest's device with a doorbell; NULL to poll. */
static inline void bell_open(struct bell *bell, const char *path)
{
	int ret;

	if (!path)
		return;
	ret = kvmfr_peer_open(path, 0, 1, &bell->peer);
	if (ret)
		errx(1, "%s: %s", path, strerror(-ret));
}

/* Our id plus one, or 0 if there is no doorbell. */
static inline uint32_t bell_id(const struct bell *bell)
{
	return bell->peer ? kvmfr_peer_id(bell->peer) + 1 : 0;
}

static inline void bell_ring(struct bell *bell, uint32_t id)
{
	if (bell->peer && id)
		kvmfr_peer_ring(bell->peer, id - 1, 0);
}

static inline void bell_ring_all(struct bell *bell)
{
	if (!bell->peer)
		return;
	for (uint32_t id = 0; id < 65536; id++)
		if (bell->others[id])
			kvmfr_peer_ring(bell->peer, id, 0);
}

/* Takes what the server has to say; who comes late is rung at once. */
static inline void bell_events(struct bell *bell)
{
	struct kvmfr_event event;
	int ret;

	while ((ret = kvmfr_peer_event(bell->peer, &event)) == 1) {
		if (event.type != KVMFR_EVENT_PEER || event.peer > 65535)
			continue;
		bell->others[event.peer] = event.vectors;
		if (event.vectors)
			kvmfr_peer_ring(bell->peer, event.peer, 0);
	}
	if (ret < 0)
		errx(1, "the doorbell's server: %s", strerror(-ret));
}

/*
 * Waits until something may have changed. A ring that comes between the
 * caller's look at the memory and poll() is not lost: it stays in the eventfd.
 */
static inline void bell_wait(struct bell *bell)
{
	bell->wakeups++;
	if (!bell->peer) {
		frames_pause();
		return;
	}
	bell_events(bell);

	struct pollfd waits[] = {
		{ .fd = kvmfr_peer_fd(bell->peer), .events = POLLIN },
		{ .fd = kvmfr_peer_vector_fd(bell->peer, 0), .events = POLLIN },
	};

	if (poll(waits, 2, -1) < 0)
		err(1, "poll");
	if (kvmfr_peer_vector_clear(bell->peer, 0) < 0)
		errx(1, "the doorbell has gone");
}

#endif
