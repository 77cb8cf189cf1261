// SPDX-License-Identifier: GPL-2.0
/* peer SOCKET WORD: connects to a kvmfrd, says what word is in the memory, and leaves WORD there. */
#include <libkvmfr.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

/* However long systemd takes to start the server. */
static int wait_until_ready(struct kvmfr_peer *peer)
{
	struct pollfd wait = { .fd = kvmfr_peer_fd(peer), .events = POLLIN };
	struct kvmfr_event event = { 0 };
	int ret = 0;

	while (ret >= 0 && event.type != KVMFR_EVENT_READY) {
		ret = kvmfr_peer_event(peer, &event);
		if (!ret)
			poll(&wait, 1, -1);
	}
	return ret < 0 ? ret : 0;
}

int main(int argc, char **argv)
{
	struct kvmfr_peer *peer;
	void *memory;
	int ret = argc == 3 ? kvmfr_peer_open(argv[1], KVMFR_PEER_NONBLOCK, 1, &peer) : -1;

	if (!ret)
		ret = wait_until_ready(peer);
	if (!ret)
		ret = kvmfr_peer_map(peer, 0, kvmfr_peer_size(peer), &memory);
	if (ret) {
		fprintf(stderr, "peer: %s\n", strerror(-ret));
		return 1;
	}
	printf("id %d, %lld bytes, there was '%.31s'\n", kvmfr_peer_id(peer),
	       (long long)kvmfr_peer_size(peer), (char *)memory);
	snprintf(memory, 32, "%s", argv[2]);
	kvmfr_peer_close(peer);
	return 0;
}
