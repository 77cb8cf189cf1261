/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How the examples wait for each other: by doorbell where there is one, else by
 * looking again in a moment.
 *
 * Each side writes its id into the memory, and the other one rings it. The viewer,
 * on the host, also rings everybody who the server says is there, since a writer
 * that came first waits for that. A writer in a guest is told by nobody.
 */
#ifndef KVMFR_EXAMPLES_BELL_H
#define KVMFR_EXAMPLES_BELL_H

#include <err.h>
#include <poll.h>
#include <string.h>

#include "../lib/libkvmfr.h"
#include "frames.h"

struct bell {
	struct kvmfr_peer *peer;	/* NULL: polling */
	struct pollfd waits[2];		/* for news of other peers, and for rings */
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
	ret = kvmfr_peer_vector_fd(bell->peer, 0);
	if (ret < 0)
		errx(1, "%s: vector 0: %s", path, strerror(-ret));
	bell->waits[0] = (struct pollfd){ .fd = kvmfr_peer_fd(bell->peer), .events = POLLIN };
	bell->waits[1] = (struct pollfd){ .fd = ret, .events = POLLIN };
}

/* Our id plus one, or 0 if there is no doorbell. */
static inline uint32_t bell_id(const struct bell *bell)
{
	return bell->peer ? kvmfr_peer_id(bell->peer) + 1 : 0;
}

/* id: what the other side's bell_id() is. If nobody has it any more, nobody is rung. */
static inline void bell_ring(struct bell *bell, uint32_t id)
{
	if (bell->peer && id)
		kvmfr_peer_ring(bell->peer, id - 1, 0);
}

/*
 * Takes what the server has to say. When it ends, those who know each other still
 * ring each other, so the session goes on; a program that waits for new peers
 * would call kvmfr_peer_reopen() instead.
 */
static inline void bell_events(struct bell *bell)
{
	struct kvmfr_event event;
	int ret;

	while ((ret = kvmfr_peer_event(bell->peer, &event)) == 1)
		if (event.type == KVMFR_EVENT_PEER && event.vectors)
			kvmfr_peer_ring(bell->peer, event.peer, 0);
	if (ret < 0 && bell->waits[0].fd >= 0) {
		warnx("the doorbell's server: %s", strerror(-ret));
		bell->waits[0].fd = -1;		/* ignored by poll() */
	}
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
	if (poll(bell->waits, 2, -1) < 0)
		err(1, "poll");
	if (kvmfr_peer_vector_clear(bell->peer, 0) < 0)
		errx(1, "the doorbell has gone");
}

#endif
