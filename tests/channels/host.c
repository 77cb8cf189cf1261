// SPDX-License-Identifier: GPL-2.0
/*
 * host SOCKET: the host's side for tests/channels.c, at a socket of kvmfrd.
 *
 * sink reads all, and when the guest has finished writing answers with how many
 * bytes it was and the first that was wrong (-1: none). source writes the pattern.
 * stuck reads nothing. A byte on death ends the process as a kill would: who
 * started it starts it again.
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../../lib/libkvmfr-channel.h"
#include "pattern.h"

#define RING	65536

static const char *const names[] = { "sink", "source", "stuck", "death" };
enum { SINK, SOURCE, STUCK, DEATH, COUNT };

static struct kvmfr_channel *channels[COUNT];
static uint64_t done[COUNT];		/* bytes of this connection */
static int64_t wrong;
static bool answered;

static void begin(int i)
{
	done[i] = 0;
	if (i == SINK) {
		wrong = -1;
		answered = false;
	}
}

static void take(int i)
{
	uint8_t data[20000];
	ssize_t n;

	while ((n = kvmfr_channel_read(channels[i], data, sizeof(data))) > 0) {
		ssize_t bad = pattern_compare(data, done[i], n);

		if (i == DEATH)
			_exit(1);
		if (bad >= 0 && wrong < 0)
			wrong = done[i] + bad;
		done[i] += n;
	}
}

static void give(void)
{
	uint8_t data[20000];
	ssize_t n = 1;

	while (n > 0 && done[SOURCE] < PATTERN_BYTES) {
		size_t size = PATTERN_BYTES - done[SOURCE];

		size = size < sizeof(data) ? size : sizeof(data);
		pattern_fill(data, done[SOURCE], size);
		n = kvmfr_channel_write(channels[SOURCE], data, size);
		if (n > 0)
			done[SOURCE] += n;
	}
	if (done[SOURCE] == PATTERN_BYTES)
		kvmfr_channel_shutdown(channels[SOURCE]);
}

static void answer(void)
{
	uint64_t words[2] = { done[SINK], wrong };

	if (!answered)
		answered = kvmfr_channel_write(channels[SINK], words, sizeof(words)) > 0;
}

static void serve(int i)
{
	unsigned int bits = kvmfr_channel_poll(channels[i]);

	if (bits & KVMFR_CHANNEL_END) {
		take(i);
		if (kvmfr_channel_poll(channels[i]) & KVMFR_CHANNEL_HUP)
			begin(i);
		return;
	}
	if (bits & KVMFR_CHANNEL_HUP)
		return;
	if (i == SOURCE)
		give();
	if ((bits & KVMFR_CHANNEL_IN) && (i == SINK || i == DEATH))
		take(i);
	if (i == SINK && (kvmfr_channel_poll(channels[i]) & KVMFR_CHANNEL_EOF))
		answer();
}

int main(int argc, char **argv)
{
	struct kvmfr_channels_backing backing;
	struct kvmfr_channel_event channel_event;
	struct kvmfr_channels *set;
	struct kvmfr_event event;
	struct kvmfr_peer *peer;
	int ret;

	if (argc != 2)
		return 2;
	ret = kvmfr_peer_open(argv[1], 0, 1, &peer);
	if (!ret)
		ret = kvmfr_channels_back(&backing, peer);
	if (!ret)
		ret = kvmfr_channels_attach(&set, &backing, KVMFR_CHANNEL_HOST, KVMFR_CHANNELS_FORMAT);
	for (int i = 0; !ret && i < COUNT; i++) {
		ret = kvmfr_channel_create(set, names[i], RING, RING);
		if (!ret || ret == -EEXIST)
			ret = kvmfr_channel_open(set, names[i], KVMFR_CHANNEL_NONBLOCK, &channels[i]);
		begin(i);
	}
	if (ret) {
		fprintf(stderr, "host: %s\n", strerror(-ret));
		return 1;
	}
	for (;;) {
		struct pollfd waits[] = {
			{ .fd = kvmfr_peer_fd(peer), .events = POLLIN },
			{ .fd = kvmfr_channels_fd(set), .events = POLLIN },
		};

		while ((ret = kvmfr_peer_event(peer, &event)) == 1)
			if (event.type == KVMFR_EVENT_PEER && !event.vectors)
				kvmfr_channels_peer_gone(set, event.peer);
		if (ret < 0)
			return 0;	/* kvmfrd has ended */
		while (kvmfr_channels_event(set, &channel_event) == 1)
			;
		for (int i = 0; i < COUNT; i++)
			if (i != STUCK || (kvmfr_channel_poll(channels[i]) & KVMFR_CHANNEL_END))
				serve(i);
		poll(waits, 2, -1);
	}
}
