// SPDX-License-Identifier: MIT
/*
 * clipboard: an agent in a guest, with libkvmfr alone
 *
 *	clipboard /dev/kvmfr0 FILE
 *
 * What a program of the host sends on the channel "clipboard" becomes the file;
 * the program gets what was in it before: "kvmfrctl channel connect clipboard".
 * It is the whole guest's side, so it doesn't run beside kvmfrd --guest.
 */
#include <err.h>
#include <stdio.h>
#include <string.h>

#include "../lib/libkvmfr-channel.h"

static void must(int result, const char *what)
{
	if (result < 0)
		errx(1, "%s: %s", what, strerror(-result));
}

/* Up to the end that the host's program gives it, or as much as there is room for. */
static size_t receive(struct kvmfr_channel *channel, char *text, size_t room)
{
	size_t size = 0;
	ssize_t n;

	while ((n = kvmfr_channel_read(channel, text + size, room - size)) > 0)
		size += n;
	must(n, "the channel");
	return size;
}

static size_t file_swap(const char *path, char *text, size_t size, size_t room)
{
	static char before[1 << 20];
	FILE *file = fopen(path, "r");
	size_t n = file ? fread(before, 1, room, file) : 0;

	if (file)
		fclose(file);
	file = fopen(path, "w");
	if (!file || fwrite(text, 1, size, file) != size || fclose(file))
		warn("%s", path);
	memcpy(text, before, n);
	return n;
}

int main(int argc, char **argv)
{
	struct kvmfr_channels_backing backing;
	struct kvmfr_channel *channel;
	struct kvmfr_channels *set;
	struct kvmfr_peer *peer;
	static char text[1 << 20];

	if (argc != 3)
		errx(2, "usage: clipboard DEVICE FILE");
	must(kvmfr_peer_open(argv[1], 0, 1, &peer), argv[1]);
	must(kvmfr_channels_back(&backing, peer), argv[1]);
	must(kvmfr_channels_attach(&set, &backing, KVMFR_CHANNEL_GUEST, 0), "attaching");
	must(kvmfr_channel_open(set, "clipboard", 0, &channel), "opening the channel");
	for (;;) {
		size_t size;

		/* Until somebody is there, until they have said all, until they leave. */
		must(kvmfr_channel_wait(channel, KVMFR_CHANNEL_OUT, -1), "waiting");
		size = receive(channel, text, sizeof(text));
		size = file_swap(argv[2], text, size, sizeof(text));
		kvmfr_channel_write(channel, text, size);
		kvmfr_channel_shutdown(channel);
		must(kvmfr_channel_wait(channel, 0, -1), "waiting");
		kvmfr_channel_read(channel, text, sizeof(text));	/* 0: it is over */
	}
}
