// SPDX-License-Identifier: MIT
/*
 * clipboard: an agent in a guest, with libkvmfr alone: clipboard /dev/kvmfr0 FILE
 *
 * What a program of the host sends on the channel "clipboard" becomes the file;
 * the program gets what was in it before: "kvmfrctl channel connect clipboard".
 * It is the whole guest's side, so it doesn't run beside kvmfrd --guest.
 */
#include <err.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "../lib/libkvmfr-channel.h"

static char text[1 << 20], before[1 << 20];

static ssize_t must(ssize_t result, const char *what)
{
	if (result < 0)
		errx(1, "%s: %s", what, strerror(-result));
	return result;
}

static size_t file_swap(const char *path, size_t size)
{
	FILE *file = fopen(path, "a+");	/* reads from its start, and makes it if need be */
	size_t n = file ? fread(before, 1, sizeof(before), file) : 0;

	if (!file || ftruncate(fileno(file), 0) || fwrite(text, 1, size, file) != size || fclose(file))
		err(1, "%s", path);
	return n;
}

int main(int argc, char **argv)
{
	struct kvmfr_channels_backing backing;
	struct kvmfr_channel *channel;
	struct kvmfr_channels *set;
	struct kvmfr_peer *peer;

	if (argc != 3)
		errx(2, "usage: clipboard DEVICE FILE");
	must(kvmfr_peer_open(argv[1], 0, 1, &peer), argv[1]);
	must(kvmfr_channels_back(&backing, peer), argv[1]);
	must(kvmfr_channels_attach(&set, &backing, KVMFR_CHANNEL_GUEST, 0), "attaching");
	must(kvmfr_channel_open(set, "clipboard", 0, &channel), "opening the channel");
	for (size_t size = 0;; size = 0) {
		must(kvmfr_channel_wait(channel, KVMFR_CHANNEL_OUT, -1), "waiting for a program");
		while (size < sizeof(text) &&
		       !(kvmfr_channel_wait(channel, KVMFR_CHANNEL_IN, -1) & KVMFR_CHANNEL_EOF))
			size += must(kvmfr_channel_read(channel, text + size, sizeof(text) - size), "reading");
		/* If the program has left already these two fail, and that is fine. */
		kvmfr_channel_write(channel, before, file_swap(argv[2], size));
		kvmfr_channel_shutdown(channel);
		must(kvmfr_channel_wait(channel, KVMFR_CHANNEL_OUT, -1), "waiting for its end");
		while (must(kvmfr_channel_read(channel, text, sizeof(text)), "reading") > 0)
			;	/* 0 at the end of a connection: the next may come */
	}
}
