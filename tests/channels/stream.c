// SPDX-License-Identifier: GPL-2.0
/*
 * One end of a stream that goes on through a live migration; tests/channels/migrate
 * starts both ends.
 *
 *	stream DEVICE			the guest's end
 *	stream SOCKET			the host's, until SIGTERM
 *	stream SOCKET GOT SENT		its successor on the other machine
 *
 * Each end sends the pattern without end. The guest begins a connection with a word
 * on the one before. The host says at its end how much it has got and sent; its
 * successor, having read what was left, compares.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../lib/libkvmfr-channel.h"
#include "pattern.h"

#define RING	65536
#define ENOUGH	(1u << 20)

/* The first bytes that a guest sends on a connection; of the one before. */
struct hello {
	uint64_t number;	/* of this connection, from 0 */
	uint64_t sent, got;
	int64_t wrong;		/* the first byte got that was another one, or -1 */
};

static struct kvmfr_channels *set;
static struct kvmfr_channel *channel;
static struct hello hello = { .wrong = -1 };
static bool is_host;
static uint64_t sent, got;	/* on this connection; a hello counts */
static int64_t wrong = -1;
static volatile sig_atomic_t stop;

static void on_term(int sig)
{
	(void)sig;
	stop = 1;
}

static void die(const char *what, int error)
{
	fprintf(stderr, "stream: %s: %s\n", what, strerror(-error));
	exit(1);
}

static void transmit(void)
{
	uint8_t data[5000];
	uint64_t start = is_host ? 0 : sizeof(hello);
	ssize_t n;

	if (sent < start) {
		n = kvmfr_channel_write(channel, (uint8_t *)&hello + sent, start - sent);
	} else {
		pattern_fill(data, sent - start, sizeof(data));
		n = kvmfr_channel_write(channel, data, sizeof(data));
	}
	if (n < 0 && n != -EAGAIN && n != -EPIPE)
		die("write", n);
	sent += n > 0 ? n : 0;
}

/* Answers false at the end of the connection. */
static bool receive(void)
{
	uint8_t data[5000];
	uint64_t start = is_host ? sizeof(hello) : 0;
	size_t size = got < start ? start - got : sizeof(data);
	ssize_t n = kvmfr_channel_read(channel, data, size), bad;

	if (n < 0 && n != -EAGAIN)
		die("read", n);
	if (n <= 0)
		return n;
	if (got < start) {
		memcpy((uint8_t *)&hello + got, data, n);
	} else {
		bad = pattern_compare(data, got - start, n);
		if (bad >= 0 && wrong < 0)
			wrong = got + bad;
	}
	got += n;
	return true;
}

static void sleep_until_rung(void)
{
	struct pollfd wake = { .fd = kvmfr_channels_fd(set), .events = POLLIN };
	struct kvmfr_channel_event event;

	poll(&wake, 1, -1);
	while (kvmfr_channels_event(set, &event) == 1)
		;
}

static unsigned int wait_for(unsigned int missing, unsigned int there)
{
	unsigned int bits;

	while (((bits = kvmfr_channel_poll(channel)) & missing) || (bits & there) != there)
		sleep_until_rung();
	return bits;
}

/* Until the connection is over, or @enough is got and sent, or it is told to stop. */
static bool converse(uint64_t enough)
{
	while (!stop && (got < enough || sent < enough)) {
		unsigned int bits = kvmfr_channel_poll(channel);

		if ((bits & KVMFR_CHANNEL_IN) && !receive())
			return false;
		if (bits & KVMFR_CHANNEL_OUT)
			transmit();
		if (!(bits & (KVMFR_CHANNEL_IN | KVMFR_CHANNEL_OUT)))
			sleep_until_rung();
	}
	return true;
}

static void guest(void)
{
	for (;;) {
		wait_for(KVMFR_CHANNEL_HUP, 0);
		while (converse(UINT64_MAX))
			;
		hello = (struct hello){ hello.number + 1, sent, got, wrong };
		sent = got = 0;
	}
}

static void first_host(void)
{
	wait_for(KVMFR_CHANNEL_HUP, 0);
	converse(ENOUGH);
	printf("moving\n");
	fflush(stdout);
	converse(UINT64_MAX);
	/* So that something is on the way. */
	wait_for(0, KVMFR_CHANNEL_IN);
	kvmfr_channels_leave(set);
	printf("%" PRIu64 " %" PRIu64 " %" PRId64 "\n", got, sent, wrong);
}

/* Answers whether all is as it should be. */
static bool second_host(uint64_t first_got, uint64_t first_sent)
{
	uint64_t all;

	got = first_got;
	wait_for(0, KVMFR_CHANNEL_IN);
	while (receive())
		;
	all = got;
	got = sent = 0;
	wait_for(KVMFR_CHANNEL_HUP, 0);
	converse(ENOUGH);
	printf("# %" PRIu64 " bytes were on the way to the host; the guest: connection %" PRIu64
	       ", sent %" PRIu64 " of %" PRIu64 ", got %" PRIu64 " of %" PRIu64 "\n", all - first_got,
	       hello.number, hello.sent, all, hello.got, first_sent);
	return wrong < 0 && hello.wrong < 0 && hello.number == 1 && hello.sent == all &&
	       hello.got == first_sent && all > first_got;
}

int main(int argc, char **argv)
{
	const struct sigaction action = { .sa_handler = on_term };
	struct kvmfr_channels_backing backing;
	struct kvmfr_peer *peer;
	int ret;

	if (argc != 2 && argc != 4)
		return 2;
	is_host = strncmp(argv[1], "/dev/", 5);
	sigaction(SIGTERM, &action, NULL);
	ret = kvmfr_peer_open(argv[1], 0, 1, &peer);
	if (!ret)
		ret = kvmfr_channels_back(&backing, peer);
	if (ret)
		die(argv[1], ret);
	/* A guest waits for its host to format the memory. */
	while ((ret = kvmfr_channels_attach(&set, &backing, is_host ? KVMFR_CHANNEL_HOST : KVMFR_CHANNEL_GUEST,
					    is_host && argc == 2 ? KVMFR_CHANNELS_FORMAT : 0)) == -EPROTO && !is_host)
		usleep(100000);
	if (!ret && is_host && argc == 2)
		ret = kvmfr_channel_create(set, "stream", RING, RING);
	while (!ret && (ret = kvmfr_channel_open(set, "stream", KVMFR_CHANNEL_NONBLOCK, &channel)) == -ENOENT &&
	       !is_host) {
		usleep(100000);
		ret = 0;
	}
	if (ret)
		die("channel", ret);
	if (argc == 4)
		return !second_host(strtoull(argv[2], NULL, 0), strtoull(argv[3], NULL, 0));
	if (is_host)
		first_host();
	else
		guest();
	return 0;
}
